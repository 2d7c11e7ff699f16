"""A hand to render: MANO's layout in painted skin, on a forearm in a sleeve, moving from grasp to grasp.

The forearm goes on from the rim where the model ends, so there is no cut to be seen; it ends in a sleeve, and the sleeve
outside of the image. Forearm, sleeve, rings and watch are drawn, and may hide the hand, but are no part of it: they are not
in the silhouette, as in datasets of hands, and have part 0.

Convention: all that is added to the model is made in the right hand's rest pose, and mirrored for a left hand.
Shape letters: X vertices of hand and additions, H of the hand alone, R of its rim, M stations along the arm, E additions,
F faces, K corners, J joints (16), G grasps, N points.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import SyntheticError
from manifests.seeds import rng_for
from synthetic.canvas import vertex_normals
from synthetic.figure import Dressed, Posed, part_of_faces
from synthetic.hand import FINGERS, HAND_PARENTS, TIPS, HandModel, Side
from synthetic.hand_looks import HAND_M, Hand, Ring
from synthetic.hand_paint import (
    ARM_RECT,
    DIAL_RECT,
    GARMENTS,
    RING_RECTS,
    SLEEVE_RECT,
    STRAP_RECT,
    STRIP_M,
    HandPainter,
    in_rect,
)
from synthetic.patterns import noise, sample_tile
from synthetic.rotations import align, axis_angle_from_matrix, matrix_from_axis_angle
from synthetic.scene import Scene

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Keypoints as FreiHAND counts them: the wrist, then thumb to pinky, each from the palm to the tip.
HAND21 = (
    "wrist",
    *(
        f"{finger}{knuckle}"
        for finger in ("thumb", "index", "middle", "ring", "pinky")
        for knuckle in (1, 2, 3, "_tip")
    ),
)
_SKIN, _ARM, _SLEEVE, _STRAP, _DIAL, _RINGS = 0, 2, 3, 4, 5, 6  # layers of faces; 1 is the lid of the stump
_STUMP_M = 0.03  # how far behind the wrist the model ends
# Stations of the forearm behind the rim.
_ARM_M = (0.006, 0.015, 0.028, 0.042, 0.058, 0.076, 0.096, 0.118, 0.142, 0.168)
_SLEEVE_END_M = 0.33
_SLEEVE_STATIONS, _RING_LOOPS, _RING_ANGLES = 22, 4, 32
_BAND = _RING_LOOPS * _RING_ANGLES  # vertices of a ring, or of the watch's strap
_ANGLES: Floats = np.asarray(np.arange(_RING_ANGLES) * (2 * np.pi / _RING_ANGLES))
_BEND_M = 0.07  # the wrist bends over this length
_GLOVE_M = 0.0014
_PROFILE_M, _PROFILE = (-0.05, 0.0, 0.03, 0.12, 0.22, 0.30), (1.0, 1.0, 1.03, 1.28, 1.5, 1.5)  # girth of the arm


@dataclass(frozen=True, slots=True)
class _Rest:
    """A dressed hand at rest: what its poses share.

    Attributes:
        dressed: what was drawn.
        verts_E3: additions to the model, right-handed, from the middle of the rim.
        bone_E: the first joint of the finger that an addition sits on; -1 those on the arm.
        bones_J3: the hand's joints, in the same frame.
        along: unit direction of the arm.
        middle: (3,) the rim's middle in the model's frame.
    """

    dressed: Dressed
    verts_E3: Floats
    bone_E: Ints
    bones_J3: Floats
    along: Floats
    middle: Floats


@dataclass(frozen=True, slots=True)
class _Movement:
    """What a hand does at each of its grasps: fingers, turns around the arm, wrist, turns of the arm, radians; sway, metres."""

    grasps_GJ3: Floats
    rolls_G: Floats
    bends_G3: Floats
    swings_G3: Floats
    sways_G3: Floats

    @classmethod
    def of(cls, model: HandModel, hand: Hand) -> "_Movement":
        rng, num = rng_for(hand.seed, "movement"), hand.grasps
        return cls(
            grasps_GJ3=model.sample_poses(rng, num),
            rolls_G=np.clip(rng.normal(0.0, 0.7, num), -1.4, 1.4),
            bends_G3=np.clip(rng.normal(0.0, 0.2, (num, 3)), -0.4, 0.4),
            swings_G3=rng.normal(0.0, 0.1, (num, 3)),
            sways_G3=rng.normal(0.0, 0.02, (num, 3)),
        )


class HandFigure:
    """Hands of either side, in a sleeve.

    Args:
        right: the right hand.
        left: its mirror image.

    Raises:
        SyntheticError: the hands have no texture coordinates, so nothing can be painted on them, or do not belong together.
    """

    joints_set: str = "mano16"
    garments: tuple[str, ...] = GARMENTS
    limb_m: float = 0.028  # the wrist lies deepest

    def __init__(self, right: HandModel, left: HandModel) -> None:
        self.sha256 = right.sha256
        if not len(right.uvs_U2):
            raise SyntheticError(
                "this hand cannot be painted: it has no texture coordinates (a converted MANO has none)",
                where="hand",
                hint="render with the free hands (`python -m synthetic hand`)",
            )
        if (right.side, left.side) != ("right", "left") or right.template_X3.shape != left.template_X3.shape:
            raise SyntheticError(
                "the two hands are not one person's",
                where=f"{right.side}, {left.side}",
                hint="build both with one version: python -m synthetic hand --side right, --side left",
            )
        self._models: dict[str, HandModel] = {"right": right, "left": left}
        self._painter = HandPainter(right)
        self._rim = _rim(right)
        self._num_hand = len(right.template_X3)
        additions = self._additions()
        faces, uvs, corners, groups = (
            [right.faces_F3],
            [self._painter.uvs_U2],
            [right.face_uvs_F3],
            [right.face_group_F],
        )
        for new_faces, new_uvs, new_corners, group in additions:
            faces.append(new_faces)
            corners.append(new_corners + sum(map(len, uvs)))
            uvs.append(new_uvs.astype(np.float32))
            groups.append(np.full(len(new_faces), group))
        self.faces_F3: Ints = np.concatenate(faces)
        self.face_uvs_F3: Ints = np.concatenate(corners)
        self.uvs_U2: npt.NDArray[np.float32] = np.concatenate(uvs)
        self.group_F: Ints = np.concatenate(groups)
        part = part_of_faces(right.weights_XJ, right.faces_F3)
        self.part_F = np.concatenate([part, np.zeros(len(self.faces_F3) - len(part), dtype=np.uint8)])
        self.part_F[self.group_F != _SKIN] = 0
        self.template_X3 = np.zeros((int(self.faces_F3.max()) + 1, 3))
        self.template_X3[: self._num_hand] = right.template_X3
        self._rest: _Rest | None = None
        self._movement: tuple[tuple[Hand, str], _Movement] | None = None

    # ------------------------------------------------------------------------------------------------------- additions

    def _additions(self) -> list[tuple[Ints, Floats, Ints, int]]:
        """Faces, texture coordinates, corners and layer of all that is added, in the order of `_shapes`."""
        rim, first = self._rim, self._num_hand
        num = len(rim)
        out = []
        grid = np.concatenate([rim[None], first + np.arange(len(_ARM_M) * num).reshape(-1, num)])
        out.append((*_sheet(grid, ARM_RECT, np.concatenate([[0.0], _ARM_M]) / _ARM_M[-1]), _ARM))
        first += len(_ARM_M) * num
        grid = first + np.arange(_SLEEVE_STATIONS * num).reshape(-1, num)
        out.append((*_sheet(grid, SLEEVE_RECT, _sleeve_length(0.0) / STRIP_M), _SLEEVE))
        first += grid.size
        for rect, layer in ((STRAP_RECT, _STRAP), *zip(RING_RECTS, range(_RINGS, _RINGS + 3), strict=True)):
            grid = first + np.arange(_BAND).reshape(_RING_LOOPS, -1)
            out.append((*_sheet(grid, rect, np.array([0.0, 0.25, 0.75, 1.0])), layer))
            first += grid.size
        out.append((*_disc(first), _DIAL))
        return out

    def _shapes(self, scene: Scene, hand: Hand, rest_X3: Floats, joints_J3: Floats, along: Floats) -> Floats:
        """The additions (E, 3) around a right hand at rest whose rim has its middle at the origin."""
        look = hand.look
        rim_R3 = rest_X3[self._rim]
        up = _unit(np.array([0.0, 1.0, 0.0]) - along * along[1])
        side = _unit(np.cross(along, up))
        angle_R = np.arctan2(rim_R3 @ side, rim_R3 @ up)
        skin_X3 = rest_X3[(rest_X3 @ along > -0.06)]

        def girth(at_m: Floats, angle_A: Floats) -> Floats:
            """Radius (M, A) of the arm, or of the hand before it, at stations and angles."""
            radius_A = _outline(rim_R3, np.zeros(3), along, up, side, angle_A, 1.0)
            smooth_A = np.mean([np.roll(radius_A, shift) for shift in range(-3, 4)], axis=0)
            soft_M1, round_M1 = np.clip(at_m / 0.02, 0.0, 1.0)[:, None], np.clip(at_m / 0.2, 0.0, 0.7)[:, None]
            radius_MA = (1 - soft_M1) * radius_A + soft_M1 * smooth_A
            radius_MA = (1 - round_M1) * radius_MA + round_M1 * radius_A.mean()
            radius_MA *= np.interp(at_m, _PROFILE_M, _PROFILE)[:, None]
            for index in np.flatnonzero(at_m < 0):
                before = _outline(skin_X3, at_m[index] * along, along, up, side, angle_A, 0.006)
                radius_MA[index] = np.maximum(radius_MA[index], before)
            return np.asarray(radius_MA)

        def tube(at_m: Floats, radius_MA: Floats, angle_A: Floats) -> Floats:
            spokes_A3 = np.cos(angle_A)[:, None] * up + np.sin(angle_A)[:, None] * side
            return np.asarray((at_m[:, None, None] * along + radius_MA[..., None] * spokes_A3).reshape(-1, 3))

        arm_m = np.array(_ARM_M)
        blocks = [tube(arm_m, girth(arm_m, angle_R), angle_R)]
        start = look.sleeve_m - _STUMP_M
        at_m = start + _sleeve_length(start)
        skin_MR = girth(at_m, angle_R)
        off = look.loose_m * _SLEEVE_OFF + 0.0025
        folds = noise(rng_for(look.seed, "folds"), (3, 7))
        fold_MR = sample_tile(folds[..., None], angle_R / (2 * np.pi), at_m[:, None] / 0.16)[..., 0] - 0.5
        beyond = np.clip((at_m - start - look.cuff_m) / 0.02, 0.0, 1.0)[:, None]
        radius_MR = (
            skin_MR
            + off[:, None]
            + (0.25 + 0.75 * beyond) * (0.35 * look.loose_m + 0.004) * fold_MR * (off[:, None] > 0.003)
        )
        radius_MR[-1] = 1e-4
        radius_MR[-2] *= 0.6
        blocks.append(tube(at_m, radius_MR, angle_R))
        angle_A = _ANGLES
        strap_m = np.array([-0.017, -0.016, -0.002, -0.001])
        blocks.append(tube(strap_m, girth(strap_m, angle_A) + np.array([0.0, 0.0028, 0.0028, 0.0])[:, None], angle_A))
        bands = []
        for ring in _worn(scene):
            joint = _under(ring)
            of_finger = self._models["right"].weights_XJ[:, joint : joint + 3].sum(axis=1) > 0.5
            bands.append(_band(ring, rest_X3[of_finger], joints_J3[joint : joint + 2], angle_A))
        blocks += [*bands, np.zeros(((len(RING_RECTS) - len(bands)) * _BAND, 3))]
        radius = look.watch.radius_m if look.watch else 0.01
        top = float(girth(strap_m[1:2], np.zeros(1))[0, 0])
        middle = strap_m.mean() * along + (top + 0.001) * up
        blocks.append(middle + _dial(radius) @ np.stack([along, up, side]))
        return np.concatenate(blocks)

    # ------------------------------------------------------------------------------------------------------------ dress

    def dress(self, scene: Scene) -> Dressed:
        """Draw the look of a scene's hand; the sleeve is always worn."""
        hand = _hand_of(scene)
        look, side = hand.look, scene.side
        assert side is not None
        shown = np.isin(self.group_F, [_SKIN, _ARM, _SLEEVE])
        shown |= (self.group_F >= _RINGS) & (self.group_F < _RINGS + len(_worn(scene)))
        if look.watch is not None and look.watch.side == side:
            shown |= np.isin(self.group_F, [_STRAP, _DIAL])
        faces_T = np.flatnonzero(shown)
        num_own = int((self.group_F[faces_T] == _SKIN).sum())
        turn = 1 if side == "right" else -1  # mirrored triangles would look inwards
        verts_T3 = np.asarray(self.faces_F3[faces_T, ::turn])
        uvs_T3 = np.asarray(self.face_uvs_F3[faces_T, ::turn])
        corners, inverse = np.unique(np.stack([verts_T3.ravel(), uvs_T3.ravel()], axis=1), axis=0, return_inverse=True)
        dressed = Dressed(
            texture_SS4=self._painter.paint(look, side),
            faces_T=faces_T,
            num_closed=num_own,
            num_own=num_own,
            verts_T3=verts_T3,
            corners_K2=corners,
            triangles_T3=inverse.reshape(-1, 3),
        )
        verts, joints = self._models[side].pose(np.zeros((1, 16, 3)), scene.betas, np.zeros((1, 3)))
        mirror = _MIRROR[side]
        rest_X3, joints_J3 = verts[0].astype(np.float64) * mirror, joints[0].astype(np.float64) * mirror
        middle = rest_X3[self._rim].mean(axis=0)
        along = _normal(rest_X3[self._rim])
        additions = self._shapes(scene, hand, rest_X3 - middle, joints_J3 - middle, along)
        bone_E = np.full(len(additions), -1, dtype=np.int64)
        start = len(self._rim) * (len(_ARM_M) + _SLEEVE_STATIONS) + _BAND  # after forearm, sleeve and strap
        for index, ring in enumerate(_worn(scene)):
            bone_E[start + index * _BAND : start + (index + 1) * _BAND] = _under(ring)
        self._rest = _Rest(dressed, additions, bone_E, joints_J3 - middle, along, middle)
        return dressed

    # ------------------------------------------------------------------------------------------------------------- pose

    def pose(self, scene: Scene, instant: int, dressed: Dressed) -> Posed:
        """Put the scene's hand where its movement has it.

        Raises:
            IndexError: there is no such instant.
        """
        rest = self._rest
        assert rest is not None, "poses follow dresses"
        assert rest.dressed is dressed, "poses follow dresses"
        hand, side = _hand_of(scene), scene.side
        assert side is not None
        model, mirror, phase = self._models[side], _MIRROR[side], scene.phases[instant]
        pose_J3, bend, sway = self._move(model, hand, rest.along * mirror, phase)
        verts, joints = model.pose(pose_J3[None], scene.betas, np.zeros((1, 3)))
        hand_X3, joints_J3 = verts[0].astype(np.float64), joints[0].astype(np.float64)
        shift = np.array(HAND_M) + sway - joints_J3[[0, 1, 4, 7, 10, 13]].mean(axis=0)
        root = joints_J3[0].copy()
        hand_X3, joints_J3 = hand_X3 + shift, joints_J3 + shift
        turns_J33 = _world_turns(pose_J3)
        flip = np.diag(mirror)
        bent_E3 = _bent(rest.verts_E3, rest.along, flip @ bend @ flip)
        for joint in np.unique(rest.bone_E[rest.bone_E >= 0]):
            on = rest.bone_E == joint
            # From rest to the pose and back by the wrist's turn, which all additions take.
            turn = flip @ turns_J33[0].T @ turns_J33[joint] @ flip
            place = flip @ turns_J33[0].T @ (joints_J3[joint] - joints_J3[0])
            bent_E3[on] = (rest.verts_E3[on] - rest.bones_J3[joint]) @ turn.T + place + rest.bones_J3[0]
        middle = hand_X3[self._rim].mean(axis=0)
        added_E3 = bent_E3 @ (turns_J33[0] @ flip).T + middle
        tips_53 = hand_X3[model.tip_vertices]
        if hand.look.glove is not None:
            hand_X3 = hand_X3 + _GLOVE_M * vertex_normals(hand_X3, model.faces_F3)
        verts_X3 = np.concatenate([hand_X3, added_E3])
        return Posed(
            verts_X3=verts_X3,
            normals_X3=vertex_normals(verts_X3, dressed.verts_T3),
            shown_N3=verts_X3[np.unique(dressed.verts_T3)],
            framed_M3=hand_X3,
            joints_J3=joints_J3,
            keypoints={"hand21": _keypoints(joints_J3, tips_53)},
            parameters={
                "global_orient": pose_J3[0],
                "hand_pose": pose_J3[1:].ravel(),
                "betas": np.array(scene.betas),
                "transl": shift,
            },
            root_3=root,
            time_s=phase * hand.duration_s,
        )

    def _move(self, model: HandModel, hand: Hand, along: Floats, phase: float) -> tuple[Floats, Floats, Floats]:
        """The movement at a phase: pose (16, 3), how the arm bends behind the rim (3, 3), and sway (3,) in metres."""
        if self._movement is None or self._movement[0] != (hand, model.side):
            self._movement = ((hand, model.side), _Movement.of(model, hand))
        keys = self._movement[1]
        here = phase * (hand.grasps - 1)
        first = min(int(here), hand.grasps - 2)
        ease = _ease(here - first)

        def between(values: Floats) -> Floats:
            return np.asarray((1 - ease) * values[first] + ease * values[first + 1])

        start, end = keys.grasps_GJ3[first : first + 2]
        share = ease
        pose_J3 = _between_turns(start, end, share)
        while (
            model.collides(pose_J3[None])[0] and 0 < share < 1
        ):  # on the way fingers may meet: wait at the nearer grasp
            share = min(max(share - 0.1 if ease < 0.5 else share + 0.1, 0.0), 1.0)
            pose_J3 = _between_turns(start, end, share)
        tilt = between(keys.bends_G3)
        bend = matrix_from_axis_angle(tilt - (tilt @ along) * along)
        arm = np.array(hand.arm)
        turn = (
            matrix_from_axis_angle(between(keys.swings_G3))
            @ matrix_from_axis_angle(arm * (hand.roll_rad + between(keys.rolls_G)))
            @ align(along, arm)
            @ bend.T
        )
        pose_J3[0] = axis_angle_from_matrix(turn)
        return pose_J3, bend, between(keys.sways_G3)


def _worn(scene: Scene) -> list[Ring]:
    """The rings on the scene's hand."""
    return [ring for ring in _hand_of(scene).look.rings if ring.side == scene.side]


_MIRROR: Mapping[Side, Floats] = {"right": np.ones(3), "left": np.array([-1.0, 1.0, 1.0])}


def _hand_of(scene: Scene) -> Hand:
    if scene.hand is None or scene.side is None:
        raise SyntheticError(
            "the scene is of a body, not of a hand", where=f"scene {scene.index}", hint='sample it with domain="hand"'
        )
    return scene.hand


# ------------------------------------------------------------------------------------------------------------- geometry

# Stations of the sleeve behind its end: in (the shade between cuff and skin), over the cuff's edge, along the arm, its end.
_SLEEVE_STEPS = np.array([0.004, 0.0, 0.0008, 0.006, 0.012, 0.018, 0.025, 0.033, 0.042, 0.052, 0.064, 0.077, 0.092, 0.11, 0.13, 0.15, 0.175, 0.2, 0.23, 0.26, 0.29, 0.30])  # fmt: skip
_SLEEVE_OFF = np.array([0.0, 0.9, 1.0] + [1.0] * (_SLEEVE_STATIONS - 3))


def _sleeve_length(start_m: float) -> Floats:
    """Place of each station behind the sleeve's end, metres; the last is where the arm ends."""
    return np.asarray(_SLEEVE_STEPS * ((_SLEEVE_END_M - start_m) / _SLEEVE_STEPS[-1]))


def _rim(hand: HandModel) -> Ints:
    """Vertices around the stump in order, as the faces of the lid pass them, from the back of the hand on."""
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


def _normal(rim_R3: Floats) -> Floats:
    """Unit direction away from the hand, across the plane of the rim."""
    from_middle = rim_R3 - rim_R3.mean(axis=0)
    area = np.cross(from_middle, np.roll(from_middle, -1, axis=0)).sum(axis=0)
    return np.asarray(area / np.linalg.norm(area))


def _sheet(grid_MR: Ints, rect: tuple[float, float, float, float], v_M: Floats) -> tuple[Ints, Floats, Ints]:
    """Faces between rings of vertices, which look outwards, their texture coordinates and corners."""
    rows, columns = grid_MR.shape
    closed = np.concatenate([grid_MR, grid_MR[:, :1]], axis=1)
    places = np.arange(rows * (columns + 1)).reshape(rows, columns + 1)

    def triangles(of: Ints) -> Ints:
        a, b, c, d = of[:-1, :-1], of[:-1, 1:], of[1:, 1:], of[1:, :-1]
        return np.concatenate([np.stack([a, b, c], axis=-1), np.stack([a, c, d], axis=-1)]).reshape(-1, 3)

    u, v = np.meshgrid(np.linspace(0, 1, columns + 1), v_M)
    return triangles(closed), in_rect(rect, u, v).reshape(-1, 2), triangles(places)


def _disc(first: int) -> tuple[Ints, Floats, Ints]:
    """A watch's case: a disc, its rim and the middle of its face, from vertex `first` on; see `_dial`."""
    num = _RING_ANGLES
    low, high, middle = first + np.arange(num), first + num + np.arange(num), first + 2 * num
    next_low, next_high = np.roll(low, -1), np.roll(high, -1)
    faces = np.concatenate(
        [
            np.stack([np.full(num, middle), next_high, high], axis=1),
            np.stack([high, next_low, low], axis=1),
            np.stack([high, next_high, next_low], axis=1),
        ]
    )
    angles = _ANGLES
    circle = 0.5 + 0.5 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    uvs = in_rect(DIAL_RECT, *np.concatenate([circle, 0.5 + 0.92 * (circle - 0.5), [[0.5, 0.5]]]).T)
    return faces, uvs, faces - first


def _dial(radius_m: float) -> Floats:
    """Vertices of a watch's case around its foot: axes along the arm, outwards, across."""
    angles = _ANGLES
    circle = np.stack([np.cos(angles), np.zeros(_RING_ANGLES), np.sin(angles)], axis=1) * radius_m
    return np.concatenate([circle - [0, 0.002, 0], 0.92 * circle + [0, 0.006, 0], [[0.0, 0.0062, 0.0]]])


def _outline(
    points_N3: Floats, origin: Floats, axis: Floats, up: Floats, side: Floats, angle_A: Floats, reach_m: float
) -> Floats:
    """How far points near a plane reach from its origin, in each direction (A,)."""
    from_origin = points_N3 - origin
    near = from_origin[np.abs(from_origin @ axis) < reach_m]
    angle, radius = np.arctan2(near @ side, near @ up), np.hypot(near @ side, near @ up)
    order = np.argsort(angle)
    return np.asarray(np.interp(angle_A, angle[order], radius[order], period=2 * np.pi))


def _under(ring: Ring) -> int:
    """The joint at the root of the bone that a ring sits on: the thumb's first bone is part of the palm."""
    return 3 * FINGERS.index(ring.finger) + (2 if ring.finger == "thumb" else 1)


def _band(ring: Ring, finger_X3: Floats, bone_23: Floats, angle_A: Floats) -> Floats:
    """A ring around a finger at rest, as loops from edge to edge, (loops * angles, 3)."""
    axis = _unit(bone_23[1] - bone_23[0])
    up = _unit(np.cross(axis, [0.0, 0.0, 1.0]))
    side = _unit(np.cross(axis, up))
    origin = bone_23[0] + ring.at * (bone_23[1] - bone_23[0])
    near = finger_X3[np.abs((finger_X3 - origin) @ axis) < 0.007]
    for across in (up, side):
        reach = (near - origin) @ across
        origin = origin + across * (reach.max() + reach.min()) / 2
    radius_A = _outline(near, origin, axis, up, side, angle_A, 0.007)
    radius_A = np.maximum(radius_A, 0.97 * radius_A.mean())
    spokes_A3 = np.cos(angle_A)[:, None] * up + np.sin(angle_A)[:, None] * side
    loops = [
        origin + at * ring.width_m * axis + (radius_A + off)[:, None] * spokes_A3
        for at, off in ((-0.5, -0.0008), (-0.3, 0.0012), (0.3, 0.0012), (0.5, -0.0008))
    ]
    return np.concatenate(loops)


def _bent(points_E3: Floats, along: Floats, turn: Floats) -> Floats:
    """Bend an arm: points behind the rim follow a line that turns away from `along` over a few centimetres."""
    full = axis_angle_from_matrix(turn)
    steps_m = np.linspace(0.0, 0.4, 101)
    shares = np.array([_ease(min(step / _BEND_M, 1.0)) for step in steps_m])
    gaze_S3 = matrix_from_axis_angle(shares[:, None] * full) @ along
    line_S3 = np.concatenate([np.zeros((1, 3)), np.cumsum(gaze_S3[:-1] * np.diff(steps_m)[:, None], axis=0)])
    at_E = points_E3 @ along
    behind = np.clip(at_E, 0.0, steps_m[-1])
    share_E = np.interp(behind, steps_m, shares)
    place_E3 = np.stack([np.interp(behind, steps_m, line_S3[:, axis]) for axis in range(3)], axis=1)
    across = points_E3 - behind[:, None] * along
    return np.asarray(place_E3 + np.einsum("eab,eb->ea", matrix_from_axis_angle(share_E[:, None] * full), across))


def _unit(vector: npt.NDArray[Any]) -> Floats:
    return np.asarray(vector / np.linalg.norm(vector))


def _ease(t: float) -> float:
    return float(t * t * (3.0 - 2.0 * t))


def _between_turns(first_J3: Floats, second_J3: Floats, share: float) -> Floats:
    """Turns on the shortest way from the first (J, 3) to the second."""
    start = matrix_from_axis_angle(first_J3)
    way = axis_angle_from_matrix(start.transpose(0, 2, 1) @ matrix_from_axis_angle(second_J3))
    return axis_angle_from_matrix(start @ matrix_from_axis_angle(share * way))


def _world_turns(pose_J3: Floats) -> Floats:
    turns_J33 = matrix_from_axis_angle(pose_J3)
    for joint, parent in enumerate(HAND_PARENTS[1:], start=1):
        turns_J33[joint] = turns_J33[parent] @ turns_J33[joint]
    return turns_J33


def _keypoints(joints_J3: Floats, tips_53: Floats) -> Floats:
    """The 21 keypoints of `HAND21` from MANO's joints and the fingertips, thumb first."""
    rows = [joints_J3[0]]
    for index, finger in enumerate(TIPS):
        first = 3 * FINGERS.index(finger) + 1
        rows += [*joints_J3[first : first + 3], tips_53[index]]
    return np.stack(rows)
