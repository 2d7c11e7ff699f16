"""Cameras around the person: calibrated views on a ring, a dome or anywhere, each framed as the crop that training uses.

Convention: x right, y down, z forward; metres; `camera_from_world` maps points; pixel (0, 0) is the centre of the first
pixel. The world has y up and its floor at y = 0. A view's place and gaze are fixed for the scene, its intrinsics are those
of a square crop around the person, so they change from instant to instant as crops of a real camera do. So a focal length
is not drawn: it follows from the distance and from how large the person is framed.

Shape letters: X points, J joints (24), N framed joints, B points of a ball.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from manifests.geometry import crop_from_frame

Floats = npt.NDArray[np.float64]

Rig = Literal["ring", "dome", "random", "surreal"]
Framing = Literal["full", "upper", "hands"]
Side = Literal["left", "right"]

TARGET_M = (0.0, 0.9, 0.0)
_SURREAL_M = (8.0, 1.0)  # mean and deviation of SURREAL's distance; its lens was 60 mm on a film of 32 mm
_GOLDEN_RAD = float(np.pi * (3.0 - np.sqrt(5.0)))
# Of SMPL's 24 joints, those that a close-up shows, and how far the body reaches around each, metres.
_UPPER = {0: 0.16, 3: 0.21, 6: 0.2, 9: 0.17, 12: 0.1, 15: 0.24, 16: 0.12, 17: 0.12, 18: 0.07, 19: 0.07}
_HANDS: dict[Side, dict[int, float]] = {
    "left": {20: 0.15, 22: 0.13},
    "right": {21: 0.15, 23: 0.13},
}
_BALL_B3 = np.concatenate(
    [np.eye(3), -np.eye(3), np.stack(np.meshgrid(*[[-1, 1]] * 3), axis=-1).reshape(-1, 3) / 3**0.5]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """One view, as pure data.

    Attributes:
        azimuth_rad: around the vertical, 0 on the +z side.
        elevation_rad: above the target.
        distance_m: from the target.
        roll_rad: clockwise turn of the camera around its gaze.
        person_share: the longer side of the person's box, over the side of the image.
        shift: place of the box in the remaining space, each in [-1, 1], 0 is the middle.
        target_m: the point of the world that it looks at, the person's middle.
    """

    azimuth_rad: float
    elevation_rad: float
    distance_m: float
    roll_rad: float
    person_share: float
    shift: tuple[float, float]
    target_m: tuple[float, float, float] = TARGET_M

    @property
    def eye_m(self) -> Floats:
        """(3,) camera centre in the world, metres."""
        across = self.distance_m * np.cos(self.elevation_rad)
        offset = [
            across * np.sin(self.azimuth_rad),
            self.distance_m * np.sin(self.elevation_rad),
            across * np.cos(self.azimuth_rad),
        ]
        return np.asarray(np.array(self.target_m) + offset)

    @property
    def camera_from_world(self) -> Floats:
        """(4, 4) extrinsics."""
        pose = look_at(self.eye_m, np.array(self.target_m), up=np.array([0.0, 1.0, 0.0]))
        roll = np.eye(4)
        roll[:2, :2] = [[np.cos(self.roll_rad), np.sin(self.roll_rad)], [-np.sin(self.roll_rad), np.cos(self.roll_rad)]]
        return np.asarray(roll @ pose)


def look_at(eye_m: Floats, target_m: Floats, *, up: Floats) -> Floats:
    """Pose a camera at one point looking at another.

    Args:
        eye_m: (3,) camera centre in the world.
        target_m: (3,) point seen at the image centre.
        up: (3,) world direction that appears upwards.

    Returns:
        camera_from_world, (4, 4): maps homogeneous world points to camera points.

    Raises:
        ValueError: eye and target coincide, or up is parallel to the gaze.
    """
    gaze = np.asarray(target_m, dtype=np.float64) - eye_m
    length = np.sqrt(gaze @ gaze)
    if length < 1e-9:
        raise ValueError(f"eye and target coincide at {np.asarray(eye_m).tolist()}")
    forward = gaze / length
    right = _cross(forward, up)
    share = np.sqrt(right @ right)
    if share < 1e-9 * max(float(np.sqrt(up @ up)), 1e-30):
        raise ValueError("up is parallel to the gaze")
    right /= share
    pose = np.eye(4)
    pose[:3, :3] = right, _cross(forward, right), forward
    pose[:3, 3] = -pose[:3, :3] @ eye_m
    return pose


def _cross(a_3: Floats, b_3: Floats) -> Floats:
    """The cross product of two vectors; numpy's takes long for so few."""
    (ax, ay, az), (bx, by, bz) = a_3.tolist(), b_3.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def sample_rig(
    rng: np.random.Generator,
    rig: Rig,
    num_views: int,
    *,
    elevation_rad: tuple[float, float],
    distance_m: tuple[float, float],
    person_share: tuple[float, float],
    target_m: tuple[float, float, float] = TARGET_M,
) -> tuple[Camera, ...]:
    """Draw views around the person.

    Args:
        rng: source of randomness.
        rig: ring: one view in each equal sector, so an even number comes in nearly opposite pairs. dome: spread evenly over
            the part of a sphere between the elevations. random: each view anywhere, and held less level. surreal: level
            with the person's middle, anywhere around, at a distance of N(8, 1) m, not below 5 m or above 10 m.
        num_views: how many.
        elevation_rad: lowest and highest; surreal knows 0 only.
        distance_m: nearest and farthest; surreal has its own.
        person_share: smallest and largest share of the image side.
        target_m: what they look at.
    """
    start = rng.uniform(0.0, 2.0 * np.pi)
    step = 2.0 * np.pi / num_views
    low, high = np.sin(elevation_rad)
    cameras = []
    for index in range(num_views):
        elevation, distance, roll = rng.uniform(*elevation_rad), rng.uniform(*distance_m), rng.normal(0.0, 0.04)
        match rig:
            case "ring":
                azimuth = start + (index + rng.uniform(-0.2, 0.2)) * step
            case "dome":
                azimuth = start + index * _GOLDEN_RAD
                elevation = np.arcsin(low + (high - low) * (index + rng.random()) / num_views)
            case "random":
                azimuth, roll = rng.uniform(0.0, 2.0 * np.pi), 3.0 * roll
            case "surreal":
                azimuth, elevation, roll = rng.uniform(0.0, 2.0 * np.pi), 0.0, 0.0
                distance = np.clip(rng.normal(*_SURREAL_M), 5.0, 10.0)
        cameras.append(
            Camera(
                azimuth_rad=float(azimuth % (2.0 * np.pi)),
                elevation_rad=float(elevation),
                distance_m=float(distance),
                roll_rad=float(np.clip(roll, -0.3, 0.3)),
                person_share=float(rng.uniform(*person_share)),
                shift=(float(rng.uniform(-0.6, 0.6)), float(rng.uniform(-0.6, 0.6))),
                target_m=target_m,
            )
        )
    return tuple(cameras)


def framed_joints(framing: Framing, side: Side | None = None) -> tuple[npt.NDArray[np.int64], Floats]:
    """Tell what a close-up of a body shows.

    Args:
        framing: "upper" is from the hips to the crown and to both elbows; "hands" is one hand and the forearm near it.
        side: which hand.

    Returns:
        (N,) indices into SMPL's 24 joints, and (N,) how far the clothed body reaches around each, metres.

    Raises:
        ValueError: "full" frames the surface, not joints; or the side of a hand is missing.
    """
    if framing == "full" or (framing == "hands" and side is None):
        raise ValueError(f"no joints are framed by {framing!r} with side {side!r}")
    reach = _HANDS[side] if framing == "hands" and side is not None else _UPPER
    return np.array(list(reach)), np.array(list(reach.values()))


def framed_points(joints_J3: npt.ArrayLike, framing: Framing, side: Side | None = None) -> Floats:
    """Points around the joints of a close-up, for `crop_intrinsics`.

    Args:
        joints_J3: (24, 3) joints in the world, metres.
        framing: see `framed_joints`.
        side: which hand.

    Returns:
        (14 N, 3) metres: what a close-up shows lies within their box.
    """
    index, reach_m = framed_joints(framing, side)
    around = np.asarray(joints_J3, dtype=np.float64)[index, None] + reach_m[:, None, None] * _BALL_B3
    return np.asarray(around.reshape(-1, 3))


def crop_intrinsics(camera: Camera, points_X3: npt.ArrayLike, image_px: int) -> Floats:
    """Frame points in a square image.

    Args:
        camera: the view; its `person_share` and `shift` say how.
        points_X3: (X, 3) points in the world that must be seen, metres, all in front of the camera.
        image_px: side of the image.

    Returns:
        K, (3, 3): the box of the projected points has its longer side `person_share` of the image, wholly inside it.
    """
    pose = camera.camera_from_world
    x_X, y_X, z_X = pose[:3, :3] @ np.asarray(points_X3, dtype=np.float64).T + pose[:3, 3:]
    x_X, y_X = x_X / z_X, y_X / z_X
    low, high = np.array([x_X.min(), y_X.min()]), np.array([x_X.max(), y_X.max()])
    side = float((high - low).max()) / camera.person_share
    slack = (side - (high - low)) / 2.0 * 0.8
    centre = (low + high) / 2.0 - np.array(camera.shift) * slack
    return np.asarray(
        crop_from_frame(np.concatenate([centre - side / 2.0, centre + side / 2.0]), image_px), dtype=np.float64
    )
