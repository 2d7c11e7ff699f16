"""A hand to render: MANO's layout in painted skin, on a forearm in a sleeve, moving from grasp to grasp.

The forearm goes on from the rim where the model ends, so there is no cut to be seen; it ends in a sleeve, and the sleeve
outside of the image. Forearm, sleeve, rings and watch are drawn, and may hide the hand, but are no part of it: they are not
in the silhouette, as in datasets of hands, and have part 0.

Convention: all that is added to the model is made in the right hand's rest pose, and mirrored for a left hand.
Shape letters: X vertices of hand and additions, H of the hand alone, R of its rim, M stations along the arm, E additions,
F faces, K corners, J joints (16), G grasps, N points.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manifests.errors import SyntheticError
from manifests.seeds import rng_for
from synthetic.figure import Dressed, Posed, part_of_faces
from synthetic.looks.canvas import vertex_normals
from synthetic.looks.hand_look import HAND_M, Hand
from synthetic.looks.hand_paint import GARMENTS, HandPainter
from synthetic.looks.hand_wear import ARM, DIAL, RINGS, SLEEVE, STRAP, layers, rim_of, worn_verts
from synthetic.models.hand import FINGERS, HAND_PARENTS, TIPS, HandModel, Side
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
_SKIN = 0  # the layer of the model's own faces that are shown
# From where to where behind the rim they bend; an elbow as sharply as a sleeve can without going through itself.
_WRIST_M, _ELBOW_M = (0.0, 0.07), (0.2, 0.28)
_GLOVE_M = 0.0014
_SHADE = 0.7  # of the light that is taken; the rest comes back from skin


@dataclass(frozen=True, slots=True)
class _Rest:
    """A dressed hand at rest: what its poses share.

    Attributes:
        verts_E3: additions to the model, right-handed, from the middle of the rim.
        bone_E: the first joint of the finger that an addition sits on; -1 those on the arm.
        bones_J3: the hand's joints, in the same frame.
        along: unit direction of the arm.
    """

    verts_E3: Floats
    bone_E: Ints
    bones_J3: Floats
    along: Floats


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
        self._rim = rim_of(right)
        self._num_hand = len(right.template_X3)
        faces, uvs, corners, groups = (
            [right.faces_F3],
            [self._painter.uvs_U2],
            [right.face_uvs_F3],
            [right.face_group_F],
        )
        for worn in layers(self._rim, self._num_hand):
            faces.append(worn.faces_F3)
            corners.append(worn.corners_F3 + sum(map(len, uvs)))
            uvs.append(worn.uvs_U2.astype(np.float32))
            groups.append(np.full(len(worn.faces_F3), worn.layer))
        self.faces_F3: Ints = np.concatenate(faces)
        self.face_uvs_F3: Ints = np.concatenate(corners)
        self.uvs_U2: npt.NDArray[np.float32] = np.concatenate(uvs)
        self.group_F: Ints = np.concatenate(groups)
        part = part_of_faces(right.weights_XJ, right.faces_F3)
        self.part_F = np.concatenate([part, np.zeros(len(self.faces_F3) - len(part), dtype=np.uint8)])
        self.part_F[self.group_F != _SKIN] = 0
        self.template_X3 = np.zeros((int(self.faces_F3.max()) + 1, 3))
        self.template_X3[: self._num_hand] = right.template_X3
        self._movement: tuple[tuple[Hand, str], _Movement] | None = None

    # ------------------------------------------------------------------------------------------------------------ dress

    def dress(self, scene: Scene) -> Dressed:
        """Draw the look of a scene's hand; the sleeve is always worn."""
        hand = _hand_of(scene)
        look, side = hand.look, scene.side
        assert side is not None
        rings = [ring for ring in look.rings if ring.side == side]
        shown = np.isin(self.group_F, [_SKIN, ARM, SLEEVE])
        shown |= (self.group_F >= RINGS) & (self.group_F < RINGS + len(rings))
        if look.watch is not None and look.watch.side == side:
            shown |= np.isin(self.group_F, [STRAP, DIAL])
        faces_T = np.flatnonzero(shown)
        num_own = int((self.group_F[faces_T] == _SKIN).sum())
        turn = 1 if side == "right" else -1  # mirrored triangles would look inwards
        verts_T3 = np.asarray(self.faces_F3[faces_T, ::turn])
        uvs_T3 = np.asarray(self.face_uvs_F3[faces_T, ::turn])
        corners, inverse = np.unique(np.stack([verts_T3.ravel(), uvs_T3.ravel()], axis=1), axis=0, return_inverse=True)
        verts, joints = self._models[side].pose(np.zeros((1, 16, 3)), scene.betas, np.zeros((1, 3)))
        mirror = _MIRROR[side]
        rest_X3, joints_J3 = verts[0].astype(np.float64) * mirror, joints[0].astype(np.float64) * mirror
        middle = rest_X3[self._rim].mean(axis=0)
        verts_E3, bone_E, along = worn_verts(
            look, rings, rest_X3 - middle, joints_J3 - middle, self._rim, self._models["right"]
        )
        return Dressed(
            texture_SS4=self._painter.paint(look, side),
            faces_T=faces_T,
            num_closed=num_own,
            num_own=num_own,
            verts_T3=verts_T3,
            shown_N=np.unique(verts_T3),
            corners_K2=corners,
            triangles_T3=inverse.reshape(-1, 3),
            worn=_Rest(verts_E3, bone_E, joints_J3 - middle, along),
        )

    # ------------------------------------------------------------------------------------------------------------- pose

    def pose(self, scene: Scene, instant: int, dressed: Dressed) -> Posed:
        """Put the scene's hand where its movement has it.

        Raises:
            IndexError: there is no such instant.
        """
        rest: _Rest = dressed.worn
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
        hinge = np.cross(hand.arm, (0.0, 1.0, 0.0))
        elbow = matrix_from_axis_angle(hand.elbow_rad * hinge / np.linalg.norm(hinge))
        to_world = turns_J33[0] @ flip
        bent_E3 = _bent(rest.verts_E3, rest.along, flip @ bend @ flip, to_world.T @ elbow @ to_world)
        for joint in np.unique(rest.bone_E[rest.bone_E >= 0]):
            on = rest.bone_E == joint
            # From rest to the pose and back by the wrist's turn, which all additions take.
            turn = flip @ turns_J33[0].T @ turns_J33[joint] @ flip
            place = flip @ turns_J33[0].T @ (joints_J3[joint] - joints_J3[0])
            bent_E3[on] = (rest.verts_E3[on] - rest.bones_J3[joint]) @ turn.T + place + rest.bones_J3[0]
        middle = hand_X3[self._rim].mean(axis=0)
        added_E3 = bent_E3 @ to_world.T + middle
        tips_53 = hand_X3[model.tip_vertices]
        if hand.look.glove is not None:
            hand_X3 = hand_X3 + _GLOVE_M * vertex_normals(hand_X3, model.faces_F3)
        verts_X3 = np.concatenate([hand_X3, added_E3])
        normals_X3 = vertex_normals(verts_X3, dressed.verts_T3)
        open_H = _openness(hand_X3, normals_X3[: len(hand_X3)], joints_J3, tips_53)
        return Posed(
            verts_X3=verts_X3,
            normals_X3=normals_X3,
            open_X=np.concatenate([open_H, np.ones(len(added_E3))]),
            shown_N3=verts_X3[dressed.shown_N],
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


_MIRROR: Mapping[Side, Floats] = {"right": np.ones(3), "left": np.array([-1.0, 1.0, 1.0])}


def _hand_of(scene: Scene) -> Hand:
    if scene.hand is None or scene.side is None:
        raise SyntheticError(
            "the scene is of a body, not of a hand", where=f"scene {scene.index}", hint='sample it with domain="hand"'
        )
    return scene.hand


# ------------------------------------------------------------------------------------------------------------- geometry


def _bent(points_E3: Floats, along: Floats, wrist: Floats, elbow: Floats) -> Floats:
    """Bend an arm that lies straight from the origin: points on it follow a line that turns at the wrist, and at the elbow.

    Args:
        points_E3: (E, 3) in a frame at rest, metres.
        along: (3,) unit direction of the straight arm.
        wrist: (3, 3) the turn of the forearm.
        elbow: (3, 3) the further turn of the upper arm.
    """
    steps_m = np.linspace(0.0, 0.6, 121)
    turns_S33 = np.eye(3)
    for turn, (start_m, end_m), soft in ((wrist, _WRIST_M, True), (elbow, _ELBOW_M, False)):
        share_S = np.clip((steps_m - start_m) / (end_m - start_m), 0.0, 1.0)
        if soft:
            share_S = share_S**2 * (3 - 2 * share_S)
        turns_S33 = matrix_from_axis_angle(share_S[:, None] * axis_angle_from_matrix(turn)) @ turns_S33
    gaze_S3 = turns_S33 @ along
    line_S3 = np.concatenate([np.zeros((1, 3)), np.cumsum(gaze_S3[:-1] * np.diff(steps_m)[:, None], axis=0)])
    behind = np.clip(points_E3 @ along, 0.0, steps_m[-1])
    place_E3 = np.stack([np.interp(behind, steps_m, line_S3[:, axis]) for axis in range(3)], axis=1)
    nearest = np.rint(behind / steps_m[1]).astype(np.int64)
    across = points_E3 - behind[:, None] * along
    return np.asarray(place_E3 + np.einsum("eab,eb->ea", turns_S33[nearest], across))


def _openness(verts_H3: Floats, normals_H3: Floats, joints_J3: Floats, tips_53: Floats) -> Floats:
    """The share of light (H,) that the hand leaves to each vertex, with balls along its bones in place of its flesh.

    Source: a ball of radius a at distance r takes cos (a / r)^2 of an even light, if it stands wholly above the horizon.
    """
    balls, radii = [], []
    for finger, name in enumerate(FINGERS):
        first = 3 * finger + 1
        chain = np.concatenate([joints_J3[first : first + 3], tips_53[TIPS.index(name), None]])
        for start, end in itertools.pairwise(chain):
            balls.append(start + np.array([[0.0], [0.25], [0.5], [0.75]]) * (end - start))
        radii += [0.0095 if name == "thumb" else 0.0082] * 12
        if name != "thumb":  # the palm
            balls.append(joints_J3[0] + np.array([[0.25], [0.45], [0.65], [0.85]]) * (chain[0] - joints_J3[0]))
            radii += [0.011] * 4
    ball_B3, radius_B = np.concatenate(balls), np.array(radii)
    square_HB = np.square(verts_H3).sum(axis=1)[:, None] - 2 * verts_H3 @ ball_B3.T + np.square(ball_B3).sum(axis=1)
    square_HB = np.maximum(square_HB, np.square(radius_B))
    up_HB = normals_H3 @ ball_B3.T - (normals_H3 * verts_H3).sum(axis=1)[:, None]
    taken_HB = np.square(radius_B) * np.maximum(up_HB, 0.0) / (square_HB * np.sqrt(square_HB))
    taken_HB[square_HB < np.square(1.15 * radius_B)] = 0.0  # the flesh that the vertex itself belongs to
    return np.asarray(np.maximum(np.prod(1.0 - _SHADE * np.minimum(taken_HB, 0.9), axis=1), 0.3))


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
