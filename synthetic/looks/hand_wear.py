"""What is drawn with a hand and is no part of the model: the forearm, a sleeve around it, a watch, rings.

Convention: all is made at the right hand's rest pose, with the middle of the model's rim at the origin.
Shape letters: X vertices of the hand, R of its rim, M stations along a tube, A angles around it, E vertices made here, F faces,
U texture coordinates.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manifests.seeds import rng_for
from synthetic.looks.hand_look import HandLook, Ring
from synthetic.looks.hand_paint import ARM_RECT, DIAL_RECT, RING_RECTS, SLEEVE_RECT, STRAP_RECT, STRIP_M, Rect, in_rect
from synthetic.models.hand import FINGERS, HandModel
from synthetic.patterns import noise, sample_tile

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Layers of faces, after the model's own 0 skin and 1 lid of the stump; three rings are the last.
ARM, SLEEVE, STRAP, DIAL, RINGS = 2, 3, 4, 5, 6
_STUMP_M = 0.03  # how far behind the wrist the model ends
# Stations of the forearm behind the rim.
_ARM_M = np.array([0.006, 0.015, 0.028, 0.042, 0.058, 0.076, 0.096, 0.118, 0.142, 0.168])
# Stations of the sleeve behind its end: in (what closes the gap to the skin), its edge, along the arm, and where it ends.
_SLEEVE_M = np.array([
    0.004, 0.0, 0.0008, 0.006, 0.012, 0.018, 0.025, 0.033, 0.042, 0.052, 0.064, 0.077, 0.092, 0.11, 0.13, 0.15, 0.17,
    0.19, 0.205, 0.22, 0.235, 0.25, 0.265, 0.28, 0.295, 0.315, 0.345, 0.38, 0.42, 0.46, 0.5, 0.52,
])  # fmt: skip
_SLEEVE_OFF = np.array([0.0, 0.9, *[1.0] * (len(_SLEEVE_M) - 2)])
_SLEEVE_END_M = 0.55
_PROFILE_M, _PROFILE = (
    (-0.05, 0.0, 0.03, 0.12, 0.2, 0.25, 0.34, 0.55),
    (1.0, 1.0, 1.03, 1.28, 1.45, 1.38, 1.5, 1.8),
)  # girth of the arm
_STRAP_M = np.array([-0.017, -0.016, -0.002, -0.001])
_NUM_ANGLES, _NUM_LOOPS = 32, 4
_BAND = _NUM_ANGLES * _NUM_LOOPS  # vertices of a ring, or of the strap
_ANGLES: Floats = np.asarray(np.arange(_NUM_ANGLES) * (2 * np.pi / _NUM_ANGLES))
_HARMONICS = 3  # of the forearm's outline


@dataclass(frozen=True, slots=True)
class Layer:
    """Faces (F, 3) of vertices, their texture coordinates (U, 2) and corners (F, 3) among them, and their layer."""

    faces_F3: Ints
    uvs_U2: Floats
    corners_F3: Ints
    layer: int


def rim_of(hand: HandModel) -> Ints:
    """Vertices (R,) around the stump in order, as the faces of the lid pass them, from the back of the hand on."""
    lid = hand.faces_F3[hand.face_group_F == 1]
    middle = int(np.bincount(lid.ravel()).argmax())
    after = {}
    for face in lid.tolist():
        at = face.index(middle)
        after[face[(at + 1) % 3]] = face[(at + 2) % 3]
    around = [next(iter(after))]
    while len(around) < len(after):
        around.append(after[around[-1]])
    return np.roll(around, -int(hand.template_X3[around, 1].argmax()))


def layers(rim_R: Ints, num_hand: int) -> list[Layer]:
    """Faces of all that a hand can wear; its vertices follow those of the hand, in the order of `worn_verts`."""
    first = num_hand
    out = []

    def rings_of(rows: int, columns: int) -> Ints:
        nonlocal first
        first += rows * columns
        return np.arange(first - rows * columns, first).reshape(rows, columns)

    forearm = np.concatenate([rim_R[None], rings_of(len(_ARM_M), len(rim_R))])
    out.append(_sheet(forearm, ARM_RECT, np.append(0.0, _ARM_M) / _ARM_M[-1], ARM))
    back_and_forth = 1.0 - np.abs(1.0 - _stations(0.0) / STRIP_M)  # the strip is shorter than the sleeve
    out.append(_sheet(rings_of(len(_SLEEVE_M), len(rim_R)), SLEEVE_RECT, back_and_forth, SLEEVE))
    for rect, layer in ((STRAP_RECT, STRAP), *zip(RING_RECTS, range(RINGS, RINGS + len(RING_RECTS)), strict=True)):
        out.append(_sheet(rings_of(_NUM_LOOPS, _NUM_ANGLES), rect, np.array([0.0, 0.25, 0.75, 1.0]), layer))
    out.append(_disc(first))
    return out


def worn_verts(
    look: HandLook, rings: list[Ring], rest_X3: Floats, joints_J3: Floats, rim_R: Ints, hand: HandModel
) -> tuple[Floats, Ints, Floats]:
    """Make what a hand wears.

    Args:
        look: of the hand.
        rings: those on this hand.
        rest_X3: (X, 3) the hand at rest, right, with the rim's middle at the origin.
        joints_J3: (16, 3) its joints.
        rim_R: its rim.
        hand: the model, for its weights.

    Returns:
        Vertices (E, 3); the joint that each follows, -1 those on the arm, (E,); and the unit direction of the arm.
    """
    arm = _Arm.of(rest_X3, rim_R)
    even_R = arm.angle_R[0] + np.arange(len(rim_R)) * (2 * np.pi / len(rim_R))
    turned_M1 = np.clip(_ARM_M / 0.03, 0.0, 1.0)[:, None]
    angle_MR = (1 - turned_M1) * arm.angle_R + turned_M1 * even_R
    blocks = [arm.tube(_ARM_M, arm.radius(_ARM_M, angle_MR), angle_MR)]
    start = look.sleeve_m - _STUMP_M
    blocks.append(_sleeve(look, arm, start, np.tile(even_R, (len(_SLEEVE_M), 1))))
    angle_MA = np.tile(_ANGLES, (_NUM_LOOPS, 1))
    strap_MA = arm.radius(_STRAP_M, angle_MA) + np.array([0.0, 0.0028, 0.0028, 0.0])[:, None]
    blocks.append(arm.tube(_STRAP_M, strap_MA, angle_MA))
    joints = [np.full(sum(map(len, blocks)), -1)]
    for ring in rings:
        joint = _under(ring)
        of_finger = hand.weights_XJ[:, joint : joint + 3].sum(axis=1) > 0.5
        blocks.append(_band(ring, rest_X3[of_finger], joints_J3[joint : joint + 2]))
        joints.append(np.full(_BAND, joint))
    blocks.append(np.zeros(((len(RING_RECTS) - len(rings)) * _BAND, 3)))
    radius_m = look.watch.radius_m if look.watch else 0.01
    foot = _STRAP_M.mean() * arm.along + (float(strap_MA[1, 0]) - 0.0018) * arm.up
    blocks.append(foot + _dial(radius_m) @ np.stack([arm.along, arm.up, arm.side]))
    joints.append(np.full(sum(map(len, blocks[-2:])), -1))
    return np.concatenate(blocks), np.concatenate(joints), arm.along


@dataclass(frozen=True, slots=True)
class _Arm:
    """A forearm: its direction away from the hand, the back of the hand, across; the rim's angles and outline; skin near it."""

    along: Floats
    up: Floats
    side: Floats
    angle_R: Floats
    outline: Floats
    skin_X3: Floats

    @classmethod
    def of(cls, rest_X3: Floats, rim_R: Ints) -> "_Arm":
        rim_R3 = rest_X3[rim_R]
        along = _unit(np.cross(rim_R3, np.roll(rim_R3, -1, axis=0)).sum(axis=0))
        up = _unit(np.array([0.0, 1.0, 0.0]) - along * along[1])
        side = _unit(np.cross(along, up))
        angle_R = np.asarray(np.unwrap(np.arctan2(rim_R3 @ side, rim_R3 @ up)))
        outline = np.asarray(np.linalg.lstsq(_waves(angle_R), np.hypot(rim_R3 @ side, rim_R3 @ up), rcond=None)[0])
        return cls(along, up, side, angle_R, outline, rest_X3[rest_X3 @ along > -0.06])

    def radius(self, at_m: Floats, angle_MA: Floats) -> Floats:
        """Radius (M, A) of the arm, or of the hand before it, at stations and angles."""
        round_M1 = np.clip(at_m / 0.2, 0.0, 0.7)[:, None]
        radius_MA = (1 - round_M1) * (_waves(angle_MA) @ self.outline) + round_M1 * self.outline[0]
        radius_MA *= np.interp(at_m, _PROFILE_M, _PROFILE)[:, None]
        for index in np.flatnonzero(at_m < 0):
            before = _outline(
                self.skin_X3 - at_m[index] * self.along, self.along, self.up, self.side, angle_MA[index], 0.006
            )
            radius_MA[index] = np.maximum(radius_MA[index], before)
        return np.asarray(radius_MA)

    def tube(self, at_m: Floats, radius_MA: Floats, angle_MA: Floats) -> Floats:
        """Vertices (M * A, 3)."""
        spokes_MA3 = np.cos(angle_MA)[..., None] * self.up + np.sin(angle_MA)[..., None] * self.side
        return np.asarray((at_m[:, None, None] * self.along + radius_MA[..., None] * spokes_MA3).reshape(-1, 3))


def _sleeve(look: HandLook, arm: _Arm, start_m: float, angle_MR: Floats) -> Floats:
    at_m = start_m + _stations(start_m)
    off_M1 = (look.loose_m * _SLEEVE_OFF + 0.0025)[:, None]
    folds = noise(rng_for(look.seed, "folds"), (3, 7))
    fold_MR = sample_tile(folds[..., None], angle_MR / (2 * np.pi), at_m[:, None] / 0.16)[..., 0] - 0.5
    beyond_M1 = np.clip((at_m - start_m - look.cuff_m) / 0.02, 0.0, 1.0)[:, None]  # a cuff hardly folds
    deep_M1 = (0.25 + 0.75 * beyond_M1) * (0.35 * look.loose_m + 0.004) * (off_M1 > 0.003)
    radius_MR = arm.radius(at_m, angle_MR) + off_M1 + deep_M1 * fold_MR
    radius_MR[-2:] *= [[0.6], [0.0]]  # it ends round
    return arm.tube(at_m, radius_MR, angle_MR)


def _stations(start_m: float) -> Floats:
    """Place of each station of a sleeve behind its end, metres; the last is where the arm ends."""
    return np.asarray(_SLEEVE_M * ((_SLEEVE_END_M - start_m) / _SLEEVE_M[-1]))


def _under(ring: Ring) -> int:
    """The joint at the root of the bone that a ring sits on: the thumb's first bone is part of the palm."""
    return 3 * FINGERS.index(ring.finger) + (2 if ring.finger == "thumb" else 1)


def _band(ring: Ring, finger_X3: Floats, bone_23: Floats) -> Floats:
    """A ring around a finger at rest, as loops from edge to edge."""
    axis = _unit(bone_23[1] - bone_23[0])
    up = _unit(np.cross(axis, [0.0, 0.0, 1.0]))
    side = _unit(np.cross(axis, up))
    origin = bone_23[0] + ring.at * (bone_23[1] - bone_23[0])
    near = finger_X3[np.abs((finger_X3 - origin) @ axis) < 0.007]
    for across in (up, side):
        reach = (near - origin) @ across
        origin = origin + across * (reach.max() + reach.min()) / 2
    radius_A = _outline(near - origin, axis, up, side, _ANGLES, 0.007)
    radius_A = np.maximum(radius_A, 0.97 * radius_A.mean())
    spokes_A3 = np.cos(_ANGLES)[:, None] * up + np.sin(_ANGLES)[:, None] * side
    loops = [
        origin + at * ring.width_m * axis + (radius_A + off)[:, None] * spokes_A3
        for at, off in ((-0.5, -0.0008), (-0.3, 0.0012), (0.3, 0.0012), (0.5, -0.0008))
    ]
    return np.concatenate(loops)


def _outline(points_N3: Floats, axis: Floats, up: Floats, side: Floats, angle_A: Floats, reach_m: float) -> Floats:
    """How far points near a plane through the origin reach in each direction, (A,)."""
    near = points_N3[np.abs(points_N3 @ axis) < reach_m]
    angle, radius = np.arctan2(near @ side, near @ up), np.hypot(near @ side, near @ up)
    return np.asarray(np.interp(angle_A, angle, radius, period=2 * np.pi))


def _waves(angle: Floats) -> Floats:
    """Cosines and sines of an angle's multiples, (..., 2 * harmonics + 1)."""
    turns = [wave(k * angle) for k in range(1, _HARMONICS + 1) for wave in (np.cos, np.sin)]
    return np.stack([np.ones_like(angle), *turns], axis=-1)


def _sheet(grid_MR: Ints, rect: Rect, v_M: Floats, layer: int) -> Layer:
    """Faces between rings of vertices; they look outwards."""
    rows, columns = grid_MR.shape
    closed = np.concatenate([grid_MR, grid_MR[:, :1]], axis=1)
    places = np.arange(rows * (columns + 1)).reshape(rows, columns + 1)

    def triangles(of: Ints) -> Ints:
        a, b, c, d = of[:-1, :-1], of[:-1, 1:], of[1:, 1:], of[1:, :-1]
        return np.concatenate([np.stack([a, b, c], axis=-1), np.stack([a, c, d], axis=-1)]).reshape(-1, 3)

    u, v = np.meshgrid(np.linspace(0, 1, columns + 1), v_M)
    return Layer(triangles(closed), in_rect(rect, u, v).reshape(-1, 2), triangles(places), layer)


def _disc(first: int) -> Layer:
    """A watch's case: a wall, its upper edge and the middle of its face, from vertex `first` on; see `_dial`."""
    low, high, middle = (
        first + np.arange(_NUM_ANGLES),
        first + _NUM_ANGLES + np.arange(_NUM_ANGLES),
        first + 2 * _NUM_ANGLES,
    )
    next_low, next_high = np.roll(low, -1), np.roll(high, -1)
    faces = np.concatenate(
        [
            np.stack([np.full(_NUM_ANGLES, middle), next_high, high], axis=1),
            np.stack([high, next_low, low], axis=1),
            np.stack([high, next_high, next_low], axis=1),
        ]
    )
    circle = 0.5 * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
    u, v = 0.5 + np.concatenate([circle, 0.92 * circle, [[0.0, 0.0]]]).T
    return Layer(faces, in_rect(DIAL_RECT, u, v), faces - first, DIAL)


def _dial(radius_m: float) -> Floats:
    """Vertices of a watch's case around its foot: axes along the arm, outwards, across."""
    circle = np.stack([np.cos(_ANGLES), np.zeros(_NUM_ANGLES), np.sin(_ANGLES)], axis=1) * radius_m
    return np.concatenate([circle - [0, 0.002, 0], 0.92 * circle + [0, 0.006, 0], [[0.0, 0.0062, 0.0]]])


def _unit(vector: npt.NDArray[np.floating]) -> Floats:
    return np.asarray(vector / np.linalg.norm(vector))
