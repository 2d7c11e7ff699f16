"""A scene whose truth is known: coloured 3D figures, seen by real cameras, before a backdrop that says when and where.

One figure is drawn into every view with the camera that is written down, and each picture carries its instant and view,
so that a wrong camera, a wrong pairing or a wrong person is seen from pixels alone.

The code: upright stripes in two brightnesses cover the backdrop, so every crop shows both. In colour, instant and view
are the blue and the red chroma of all stripes; brightness is the same at all instants, so nothing looks like a cut. In
gray, the bright stripes' level is the instant and the dark stripes' is the view. Figures are darker or brighter than
any stripe.

World: metres, z up, floor at z = 0. Cameras: x right, y down, z forward; pixel (0, 0) is the centre of the first pixel.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline.squares import Floats, Image

# --- cameras ---


@dataclass(frozen=True)
class Lens:
    """One camera as it truly is.

    Attributes:
        K: (3, 3), px.
        camera_from_world: (4, 4), metres.
        distortion: (5,) OpenCV k1, k2, p1, p2, k3; zeros: none.
        size: width, height, px.
    """

    K: Floats
    camera_from_world: Floats
    distortion: Floats
    size: tuple[int, int]

    @property
    def rotation(self) -> Floats:
        """(3, 3) rotation, world to camera."""
        return self.camera_from_world[:3, :3]

    @property
    def translation_m(self) -> Floats:
        """(3,) translation, world to camera, metres."""
        return self.camera_from_world[:3, 3]

    @property
    def rvec(self) -> Floats:
        """(3,) the rotation as a Rodrigues vector."""
        return cv2.Rodrigues(self.rotation)[0].reshape(3)

    @property
    def centre_m(self) -> Floats:
        """(3,) where the camera stands, metres."""
        return -self.rotation.T @ self.translation_m

    def in_camera(self, points_m: Floats) -> Floats:
        """World points (n, 3) in the camera's axes."""
        return np.asarray(points_m, float) @ self.rotation.T + self.translation_m

    def pixels(self, points_m: Floats) -> Floats:
        """(n, 2) where OpenCV sees world points (n, 3): a second opinion on the geometry of ours."""
        points = np.asarray(points_m, float).reshape(-1, 1, 3)
        return cv2.projectPoints(points, self.rvec, self.translation_m, self.K, self.distortion)[0].reshape(-1, 2)


def ring(
    num: int,
    *,
    size: tuple[int, int],
    radius_m: float = 3.0,
    height_m: float = 1.2,
    focal_px: float | None = None,
    look_at: Sequence[float] = (0, 0, 1),
    distortion: Sequence[float] | None = None,
) -> list[Lens]:
    """Cameras around a subject, all looking at it: 3 m suit a body, 0.6 m a hand."""
    width, height = size
    focal = 1.2 * min(height, 2 * width) if focal_px is None else focal_px
    K = np.array([[focal, 0, 0.51 * width], [0, focal, 0.495 * height], [0, 0, 1]])  # a little beside the middle
    lenses = []
    for angle in 0.3 + 2 * np.pi * np.arange(num) / num:
        eye = np.array([look_at[0] + radius_m * np.cos(angle), look_at[1] + radius_m * np.sin(angle), height_m])
        forward = look_at - eye
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward])
        pose[:3, 3] = -pose[:3, :3] @ eye
        lenses.append(Lens(K, pose, np.array(distortion if distortion is not None else np.zeros(5), float), size))
    return lenses


# --- figures ---

SMPL24 = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
COCO17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
BODY25 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe",
    "right_heel",
)  # fmt: skip
PENN13 = (
    "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
    "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
FINGERS = ("thumb", "index", "middle", "ring", "pinky")
HAND21 = ("wrist", *(f"{finger}{k}" for finger in FINGERS for k in (1, 2, 3, 4)))  # base to tip


@dataclass(frozen=True)
class Capsule:
    """A limb: everything within `radius_m` of the line between two joints; `shade` in [-1, 1] tells it from others."""

    a: str
    b: str
    radius_m: float
    shade: float


@dataclass(frozen=True)
class Figure:
    """A body or a hand in the world. `person` below `NUM_PEOPLE` chooses its colour; joints are (3,) in metres."""

    person: int
    points: dict[str, Floats]
    capsules: tuple[Capsule, ...]

    def joints(self, names: Iterable[str]) -> Floats:
        """(J, 3) joints by name."""
        return np.stack([self.points[name] for name in names])

    def coco17(self) -> Floats:
        """(17, 3) as COCO orders them."""
        return self.joints(COCO17)

    def body25(self) -> Floats:
        """(25, 3) as OpenPose orders them."""
        return self.joints(BODY25)

    def hand21(self) -> Floats:
        """(21, 3) as OpenPose and FreiHAND order them: wrist, then thumb to little finger, base to tip."""
        return self.joints(HAND21)

    def surface(self, num: int, seed: int = 0) -> Floats:
        """(num, 3) points on the limbs' skins; the same seed gives the same places on the skin at every instant."""
        rng = np.random.default_rng(seed)
        along, turn = rng.random(num)[:, None], rng.uniform(0, 2 * np.pi, num)[:, None]
        limb = np.arange(num) % len(self.capsules)
        a = self.joints(capsule.a for capsule in self.capsules)[limb]
        b = self.joints(capsule.b for capsule in self.capsules)[limb]
        radius = np.array([capsule.radius_m for capsule in self.capsules])[limb, None]
        axis = b - a
        aside = np.cross(axis, [0.36, 0.48, 0.8])  # no limb points there
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        other = np.cross(axis, aside)
        other /= np.linalg.norm(other, axis=1, keepdims=True)
        return a + along * axis + radius * (np.cos(turn) * aside + np.sin(turn) * other)


_BODY_LIMBS = (
    Capsule("left_hip", "left_shoulder", 0.085, 0.1),
    Capsule("right_hip", "right_shoulder", 0.085, -0.1),
    Capsule("pelvis", "neck", 0.1, 0.0),
    Capsule("neck", "head", 0.05, 0.6),
    Capsule("head", "crown", 0.09, 0.9),
    Capsule("crown", "nose", 0.03, -0.9),
    Capsule("left_shoulder", "left_elbow", 0.05, 0.7),
    Capsule("left_elbow", "left_wrist", 0.042, -0.4),
    Capsule("left_wrist", "left_hand", 0.035, 0.9),
    Capsule("right_shoulder", "right_elbow", 0.05, -0.7),
    Capsule("right_elbow", "right_wrist", 0.042, 0.4),
    Capsule("right_wrist", "right_hand", 0.035, -0.9),
    Capsule("left_hip", "left_knee", 0.075, 0.5),
    Capsule("left_knee", "left_ankle", 0.055, -0.3),
    Capsule("left_heel", "left_big_toe", 0.035, 0.8),
    Capsule("right_hip", "right_knee", 0.075, -0.5),
    Capsule("right_knee", "right_ankle", 0.055, 0.3),
    Capsule("right_heel", "right_big_toe", 0.035, -0.8),
)


def body(person: int, instant: int, at: Sequence[float] = (0, 0)) -> Figure:
    """A standing person of some 1.7 m who moves the limbs and slowly turns; each `person` faces another way.

    Args:
        person: who.
        instant: one step of a gesture that does not repeat itself; neighbours differ like frames a fifth of a second apart.
        at: (2,) where on the floor, metres.
    """
    k, tall = float(instant), 1 + 0.03 * (person % 3 - 1)
    up = np.array([0, 0, 1.0])
    heading = 0.8 * person + 0.27 * k
    forward, left = _facing(heading)
    turned, across = _facing(heading + 0.35 * np.sin(0.9 * k + 0.5))
    lean = 0.16 * np.sin(0.7 * k + person)
    spine = np.cos(lean) * up + np.sin(lean) * left
    points: dict[str, Floats] = {"pelvis": np.zeros(3)}
    for name, height in (("spine1", 0.1), ("spine2", 0.22), ("spine3", 0.3), ("neck", 0.53), ("head", 0.6)):
        points[name] = height * spine
    points |= {"crown": 0.68 * spine, "head_top": 0.77 * spine, "nose": 0.64 * spine + 0.1 * turned}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        step = 0.9 * k + person + (0 if sign > 0 else np.pi)
        points[f"{side}_eye"] = 0.67 * spine + 0.085 * turned + sign * 0.03 * across
        points[f"{side}_ear"] = 0.65 * spine + sign * 0.08 * across
        points[f"{side}_collar"] = 0.5 * spine + sign * 0.07 * across
        shoulder = points[f"{side}_shoulder"] = 0.5 * spine + sign * 0.17 * across
        lift, swing = 0.6 + 0.5 * np.sin(1.1 * k + 0.7 * sign), -0.8 * np.sin(step)
        elbow = points[f"{side}_elbow"] = shoulder + 0.28 * _limb(swing, lift, turned, sign * across, up)
        fore = _limb(swing + 0.9 + 0.7 * np.sin(0.77 * k + sign), lift, turned, sign * across, up)
        points[f"{side}_wrist"], points[f"{side}_hand"] = elbow + 0.25 * fore, elbow + 0.34 * fore
        hip = points[f"{side}_hip"] = -0.03 * up + sign * 0.1 * left
        stride = 0.4 * np.sin(step)
        knee = points[f"{side}_knee"] = hip + 0.41 * _limb(stride, 0.08, forward, sign * left, up)
        bend = stride - 0.3 - 0.25 * np.sin(step + 1.2)
        ankle = points[f"{side}_ankle"] = knee + 0.41 * _limb(bend, 0.03, forward, sign * left, up)
        points[f"{side}_foot"] = ankle + 0.12 * forward - 0.06 * up
        points[f"{side}_heel"] = ankle - 0.04 * forward - 0.06 * up
        points[f"{side}_big_toe"] = ankle + 0.17 * forward - 0.06 * up - sign * 0.02 * left
        points[f"{side}_small_toe"] = ankle + 0.14 * forward - 0.06 * up + sign * 0.04 * left
    lowest = min(points[f"{side}_heel"][2] for side in ("left", "right"))
    place = np.array([at[0], at[1], 0.035 - tall * lowest])
    return Figure(person, {name: tall * point + place for name, point in points.items()}, _BODY_LIMBS)


def _facing(heading_rad: float) -> tuple[Floats, Floats]:
    """Level unit directions ahead, and to the left."""
    ahead = np.array([np.cos(heading_rad), np.sin(heading_rad), 0])
    return ahead, np.array([-ahead[1], ahead[0], 0])


def _limb(swing_rad: float, lift_rad: float, forward: Floats, outward: Floats, up: Floats) -> Floats:
    """The unit direction of a hanging limb, swung forwards and lifted sidewards."""
    hang = np.sin(swing_rad) * forward - np.cos(swing_rad) * up
    return np.cos(lift_rad) * hang + np.sin(lift_rad) * outward


# Of each finger: its base along the hand and across it towards the thumb, the way it points, its three bones; metres.
_FINGER_SHAPE: dict[str, tuple[tuple[float, float], float, tuple[float, float, float]]] = {
    "thumb": ((0.025, 0.025), 0.9, (0.042, 0.032, 0.026)),
    "index": ((0.09, 0.025), 0.15, (0.042, 0.025, 0.02)),
    "middle": ((0.092, 0.004), 0.03, (0.046, 0.028, 0.021)),
    "ring": ((0.086, -0.015), -0.08, (0.043, 0.026, 0.02)),
    "pinky": ((0.078, -0.032), -0.2, (0.034, 0.02, 0.018)),
}


def hand(person: int, instant: int, side: str = "right", at: Sequence[float] = (0, 0, 1)) -> Figure:
    """A raised hand of some 0.18 m whose fingers bend, and which tilts and slowly turns.

    Args:
        person: whose.
        instant: one step of a gesture that does not repeat itself.
        side: right, or left: its mirror image.
        at: (3,) middle of the palm, metres.
    """
    k = float(instant)
    yaw, roll = 0.8 * person + 0.27 * k, 0.4 * np.sin(0.9 * k + 0.4)
    normal, across = _facing(yaw)
    along = np.cos(roll) * np.array([0, 0, 1.0]) + np.sin(roll) * across
    across = np.cross(along, normal) * (1 if side == "right" else -1)
    points = {"wrist": np.zeros(3)}
    limbs = []
    for number, finger in enumerate(FINGERS):
        (up, out), aim, bones = _FINGER_SHAPE[finger]
        way = np.cos(aim) * along + np.sin(aim) * across
        curl = 0.4 + 0.4 * np.sin(0.8 * k + 1.3 * number + person)
        joint = points[f"{finger}1"] = up * along + out * across
        limbs.append(Capsule("wrist", f"{finger}1", 0.013, 0.4 - 0.2 * number))
        for bone, length in enumerate(bones):
            angle = curl * (bone + 1) * (0.4 if finger == "thumb" else 0.75)
            joint = joint + length * (np.cos(angle) * way + np.sin(angle) * normal)
            points[f"{finger}{bone + 2}"] = joint
            shade = (-1) ** (number + bone) * (0.9 - 0.25 * bone)
            limbs.append(Capsule(f"{finger}{bone + 1}", f"{finger}{bone + 2}", 0.009 - 0.001 * bone, shade))
    place = np.array(at, float) - 0.08 * along
    return Figure(person, {name: point + place for name, point in points.items()}, tuple(limbs))


# --- the code ---

NUM_INSTANTS, NUM_VIEWS = 16, 12  # that colour tells apart
NUM_GRAY_INSTANTS, NUM_GRAY_VIEWS = 6, 6
_BLUE, _RED = 68 + 8 * np.arange(NUM_INSTANTS), 62 + 12 * np.arange(NUM_VIEWS)  # chroma, 128 is none
_STRIPES = (108, 146)  # brightness in colour
_BRIGHT, _DARK = 145 + 10 * np.arange(NUM_GRAY_INSTANTS), 65 + 10 * np.arange(NUM_GRAY_VIEWS)  # in gray
_PALETTE = np.array([(120, 10, 10), (255, 250, 60), (10, 10, 150), (110, 250, 250), (10, 85, 10), (255, 205, 250)])
_GRAYS = np.array([8, 248, 25, 231, 42, 214])
NUM_PEOPLE = len(_PALETTE)


@dataclass(frozen=True)
class Code:
    """What a picture says of itself."""

    instant: int
    view: int
    person: int


def _backdrop(size: tuple[int, int], instant: int, view: int, *, gray: bool) -> Image:
    most = (NUM_GRAY_INSTANTS, NUM_GRAY_VIEWS) if gray else (NUM_INSTANTS, NUM_VIEWS)
    if not (0 <= instant < most[0] and 0 <= view < most[1]):
        raise ValueError(f"instant {instant}, view {view}: a code has {most[0]} instants and {most[1]} views at most")
    if gray:
        stripes = [[_BRIGHT[instant]] * 3, [_DARK[view]] * 3]
    else:  # one level more or less at odd instants: no frame looks frozen
        stripes = [_rgb(level + instant % 2 * 2, _BLUE[instant], _RED[view]) for level in _STRIPES]
    width, height = size
    breadth = max(4, round(np.hypot(width, height) / 28))
    row = np.array(stripes, np.uint8)[np.arange(width) // breadth % 2]
    return np.repeat(row[None], height, axis=0)


def _rgb(luma: float, blue: float, red: float) -> list[int]:
    """Full-range BT.601, as in JPEG."""
    b, r = blue - 128, red - 128
    return [round(luma + 1.402 * r), round(luma - 0.344136 * b - 0.714136 * r), round(luma + 1.772 * b)]


def read_code(rgb: Image, *, gray: bool = False) -> Code:
    """Read a picture's or a crop's code from its pixels; the person is the one in the middle.

    Args:
        rgb: (H, W, 3).
        gray: whether it was drawn gray.

    Raises:
        ValueError: the pixels do not say it for sure.
    """
    luma, red, blue = np.moveaxis(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb).astype(np.int64), 2, 0)
    if gray:
        instant = _vote(luma, _BRIGHT, sure=3, what="instant")
        view = _vote(luma, _DARK, sure=3, what="view")
    else:
        striped = (luma > 98) & (luma < 158)
        instant = _vote(blue[striped], _BLUE, sure=2, what="instant")
        view = _vote(red[striped], _RED, sure=3, what="view")
    height, width = luma.shape
    people = read_people(rgb, gray=gray)
    middle = people[height // 5 : height - height // 5, width // 5 : width - width // 5]
    votes = np.bincount(middle[middle >= 0], minlength=NUM_PEOPLE)
    person = int(votes.argmax())
    if votes[person] < 0.01 * middle.size or votes[person] < 0.6 * votes.sum():
        raise ValueError(f"no one person fills the middle: {votes.tolist()} of {middle.size} pixels")
    return Code(instant, view, person)


def read_people(rgb: Image, *, gray: bool = False) -> np.ndarray:
    """Whose colour each pixel has: (H, W, 3) to (H, W); -1: nobody's."""
    if gray:
        luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        apart, near = np.abs(luma[..., None] - _GRAYS), 7
    else:
        pixels, palette = rgb.astype(np.float32), _PALETTE.astype(np.float32)
        apart = (pixels**2).sum(axis=-1, keepdims=True) - 2 * pixels @ palette.T + (palette**2).sum(axis=-1)
        near = 45**2
    return np.where(apart.min(axis=-1) <= near, apart.argmin(axis=-1), -1)


def _vote(values: np.ndarray, levels: np.ndarray, *, sure: int, what: str) -> int:
    """Which of some evenly spaced levels most of the values near them show."""
    step = levels[1] - levels[0]
    values = values[(values > levels[0] - step) & (values < levels[-1] + step)].ravel()
    nearest = np.clip(np.rint((values - levels[0]) / step).astype(np.int64), 0, len(levels) - 1)
    votes = np.bincount(nearest[np.abs(values - levels[nearest]) <= sure], minlength=len(levels))
    if votes.max() < 100 or votes.max() < 0.5 * len(values):
        raise ValueError(f"the {what} is not clear: {votes.tolist()} of {len(values)} pixels")
    return int(votes.argmax())


# --- pictures ---


@dataclass(frozen=True)
class Drawn:
    """A picture (h, w, 3), and whose each pixel is (h, w): the index of a figure, or -1."""

    rgb: Image
    owner: np.ndarray

    def mask(self, k: int) -> np.ndarray:
        """(h, w) booleans: what is seen of figure k."""
        return self.owner == k

    def box(self, k: int = 0) -> Floats:
        """(4,) x0, y0, x1, y1 around what is seen of figure k, edges as in `manifests.geometry`.

        Raises:
            ValueError: nothing of it is seen.
        """
        mask = self.mask(k)
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        if not len(rows):
            raise ValueError(f"nothing is seen of figure {k}")
        return np.array([columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5])


_CIRCLE = np.stack([np.cos(np.arange(16) * np.pi / 8), np.sin(np.arange(16) * np.pi / 8)], axis=1)
_PIECE_M = 0.15  # longest piece of a limb: bends with the lens, and hides and is hidden where it should
_NEAREST_M = 0.05


def draw(lens: Lens, figures: Sequence[Figure], *, instant: int, view: int, gray: bool = False) -> Drawn:
    """Draw figures before the backdrop that carries the code, far limbs first.

    Args:
        lens: camera.
        figures: all with another `person`, if they are to be told apart.
        instant: of the code; the figures' own instant is theirs.
        view: of the code.
        gray: R = G = B.

    Raises:
        ValueError: the code has no such instant or view.
    """
    rgb = _backdrop(lens.size, instant, view, gray=gray)
    owner = np.full(rgb.shape[:2], -1, np.int16)
    pieces = [piece for k, figure in enumerate(figures) for piece in _pieces(lens, k, figure, gray=gray)]
    for _, k, colour, outline in sorted(pieces, key=lambda piece: -piece[0]):
        cv2.fillConvexPoly(rgb, outline, colour, shift=4)
        cv2.fillConvexPoly(owner, outline, k, shift=4)
    return Drawn(rgb, owner)


def _pieces(lens: Lens, k: int, figure: Figure, *, gray: bool) -> list[tuple[float, int, list[float], np.ndarray]]:
    """The limbs of a figure, cut up: depth, index, colour and outline in 1/16 px of each piece before the camera."""
    pieces = []
    for capsule in figure.capsules:
        a, b = figure.points[capsule.a], figure.points[capsule.b]
        num = int(np.ceil(np.linalg.norm(b - a) / _PIECE_M))
        ends = a + np.linspace(0, 1, num + 1)[:, None] * (b - a)
        depth = lens.in_camera(ends)[:, 2]
        radius = capsule.radius_m * np.sqrt(lens.K[0, 0] * lens.K[1, 1]) / np.maximum(depth, _NEAREST_M)
        circles = lens.pixels(ends)[:, None] + radius[:, None, None] * _CIRCLE
        for one, two in zip(range(num), range(1, num + 1), strict=True):
            if min(depth[one], depth[two]) > _NEAREST_M:
                hull = cv2.convexHull(np.concatenate([circles[one], circles[two]]).astype(np.float32))
                colour = _colour(figure.person, capsule.shade, gray=gray)
                pieces.append((depth[one] + depth[two], k, colour, np.rint(hull * 16).astype(np.int32)))
    return pieces


def _colour(person: int, shade: float, *, gray: bool) -> list[float]:
    if gray:
        return [float(_GRAYS[person] + round(4 * shade))] * 3
    return [float(level) for level in np.clip(_PALETTE[person] + round(14 * shade), 0, 255)]


# --- files ---


def write_jpeg(path: Path, rgb: Image, quality: int = 92) -> Path:
    """Write a JPEG; parents are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return path


def write_png(path: Path, rgb: Image) -> Path:
    """Write a PNG, (h, w, 3) or (h, w); parents are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), rgb[..., ::-1] if rgb.ndim == 3 else rgb, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return path


def write_mp4(path: Path, frames: Iterable[Image], fps: Fraction, *, keep_every: int = 12) -> Path:
    """Write pictures of one even size as H.264; parents are created.

    Args:
        path: its suffix names the container.
        frames: in order.
        fps: frames per second.
        keep_every: frames from one key frame to the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "ultrafast", "crf": "16"}
        stream.codec_context.gop_size, stream.codec_context.thread_count = keep_every, 1
        for number, rgb in enumerate(frames):
            if not number:
                stream.height, stream.width = rgb.shape[:2]
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
