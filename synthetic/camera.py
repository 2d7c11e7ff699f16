"""Cameras around the person: a ring of calibrated views, each framed as the crop that training uses.

Convention: x right, y down, z forward; metres; `camera_from_world` maps points; pixel (0, 0) is the centre of the first
pixel. The world has y up and its floor at y = 0. A view's place and gaze are fixed for the scene, its intrinsics are those
of a square crop around the person, so they change from instant to instant as crops of a real camera do.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manifests.geometry import crop_from_frame, project

Floats = npt.NDArray[np.float64]

TARGET_M = (0.0, 0.9, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """One view of the ring, as pure data.

    Attributes:
        azimuth_rad: around the vertical, 0 on the +z side.
        elevation_rad: above the person's middle.
        distance_m: from the person's middle.
        roll_rad: clockwise turn of the camera around its gaze.
        person_share: the longer side of the person's box, over the side of the image.
        shift: place of the box in the remaining space, each in [-1, 1], 0 is the middle.
    """

    azimuth_rad: float
    elevation_rad: float
    distance_m: float
    roll_rad: float
    person_share: float
    shift: tuple[float, float]

    @property
    def eye_m(self) -> Floats:
        """(3,) camera centre in the world, metres."""
        across = self.distance_m * np.cos(self.elevation_rad)
        offset = [
            across * np.sin(self.azimuth_rad),
            self.distance_m * np.sin(self.elevation_rad),
            across * np.cos(self.azimuth_rad),
        ]
        return np.asarray(np.array(TARGET_M) + offset)

    @property
    def camera_from_world(self) -> Floats:
        """(4, 4) extrinsics."""
        pose = look_at(self.eye_m, np.array(TARGET_M), up=np.array([0.0, 1.0, 0.0]))
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
    length = np.linalg.norm(gaze)
    if length < 1e-9:
        raise ValueError(f"eye and target coincide at {np.asarray(eye_m).tolist()}")
    forward = gaze / length
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-9 * max(float(np.linalg.norm(up)), 1e-30):
        raise ValueError("up is parallel to the gaze")
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = -pose[:3, :3] @ eye_m
    return pose


def sample_ring(
    rng: np.random.Generator,
    num_views: int,
    *,
    elevation_rad: tuple[float, float],
    distance_m: tuple[float, float],
    person_share: tuple[float, float],
) -> tuple[Camera, ...]:
    """Draw views all around the person, one in each equal sector; an even number of views comes in nearly opposite pairs.

    Args:
        rng: source of randomness.
        num_views: how many.
        elevation_rad: lowest and highest.
        distance_m: nearest and farthest.
        person_share: smallest and largest share of the image side.
    """
    step = 2.0 * np.pi / num_views
    start = rng.uniform(0.0, 2.0 * np.pi)
    return tuple(
        Camera(
            azimuth_rad=float((start + (index + rng.uniform(-0.2, 0.2)) * step) % (2.0 * np.pi)),
            elevation_rad=float(rng.uniform(*elevation_rad)),
            distance_m=float(rng.uniform(*distance_m)),
            roll_rad=float(np.clip(rng.normal(0.0, 0.04), -0.12, 0.12)),
            person_share=float(rng.uniform(*person_share)),
            shift=(float(rng.uniform(-0.6, 0.6)), float(rng.uniform(-0.6, 0.6))),
        )
        for index in range(num_views)
    )


def crop_intrinsics(camera: Camera, points_X3: npt.ArrayLike, image_px: int) -> Floats:
    """Frame points in a square image.

    Args:
        camera: the view; its `person_share` and `shift` say how.
        points_X3: (X, 3) points of the person in the world, metres, all in front of the camera.
        image_px: side of the image.

    Returns:
        K, (3, 3): the box of the projected points has its longer side `person_share` of the image, wholly inside it.
    """
    flat_X2, _ = project(np.asarray(points_X3, dtype=np.float64), np.eye(3), camera.camera_from_world)
    low, high = flat_X2.min(axis=0), flat_X2.max(axis=0)
    side = float((high - low).max()) / camera.person_share
    slack = (side - (high - low)) / 2.0 * 0.8
    centre = (low + high) / 2.0 - np.array(camera.shift) * slack
    return np.asarray(
        crop_from_frame(np.concatenate([centre - side / 2.0, centre + side / 2.0]), image_px), dtype=np.float64
    )
