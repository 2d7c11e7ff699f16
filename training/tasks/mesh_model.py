"""Bodies and hands as a network learns them: vertices and named points from rotations and shape, differentiable.

The files are those of `python -m synthetic`: the free body and hands, or an SMPL or MANO that its user converted. Convention:
metres, the model's own origin; a rotation is relative to the joint's parent, the root's to the axes that the mesh comes out in.

Shape letters: `B` images, `R` joints that turn (24 of a body, 16 of a hand), `S` shape values (10), `X` vertices, `F` faces,
`V` points of the vocabulary (see `training.tasks.joints`).
"""

import io
import json
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from manifests.errors import TrainingError
from training.tasks.joints import EXTRA9, H36M17, LANDMARKS, MANO16, SMPL24, TIPS, Vocabulary

Arrays = dict[str, npt.NDArray[Any]]

BODY_FORMAT, HAND_FORMAT = "crosspose-body-1", "crosspose-hand-1"
NUM_SHAPES = 10
_HINT = "`make fetch` brings the free ones; `python -m synthetic convert IN OUT` makes one of a published SMPL or MANO"
_SHOWN_GROUPS = 3  # skin and eyes; skirt and hair of the free body are clothes, the lid of a hand's stump has group 1
_DAMAGE = (OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class Posed(NamedTuple):
    """Vertices (B, X, 3) and points of the vocabulary (B, V, 3), metres."""

    verts_BX3: Tensor
    points_BV3: Tensor


class MeshModel(nn.Module):
    """Linear blend skinning of a model in SMPL's or MANO's layout.

    Args:
        arrays: of the file.
        regressors: further points as sums of vertices, (rows, vertices of the file) each, with the names of their rows.

    Attributes:
        vocabulary: the names of all points.
        faces_F3: (F, 3) vertices of each face.
        free: whether it is the project's own model; not SMPL's or MANO's shape space.
        side: of a hand, "right" or "left".
        layout: SMPL or MANO.
        mean_hand_R3: (R, 3) axis-angles of the mean pose that a hand's file tells; None for a body.
    """

    template_X3: Tensor
    shapes_SX3: Tensor
    bends_P_X3: Tensor
    weights_XR: Tensor
    joints_R3: Tensor
    joint_shapes_SR3: Tensor
    landmarks: Tensor
    further: Tensor

    def __init__(self, arrays: Arrays, regressors: tuple[tuple[tuple[str, ...], npt.NDArray[Any]], ...] = ()) -> None:
        super().__init__()
        hand = "tip_vertices" in arrays
        told = json.loads(str(arrays["provenance"]))
        self.layout, self.free = ("MANO" if hand else "SMPL"), "made_from_sha256" not in told
        self.side = str(arrays["side"]) if hand else None
        self.mean_hand_R3 = (
            np.concatenate([np.zeros(3), arrays["hands_mean"]]).reshape(-1, 3).astype(np.float64) if hand else None
        )
        self.parents = [-1, *arrays["kintree_table"][0, 1:].tolist()]
        names = (*MANO16, *TIPS) if hand else (*SMPL24, *LANDMARKS)
        self.vocabulary = Vocabulary((*names, *(name for rows, _ in regressors for name in rows)))
        shown_F3 = arrays["f"][arrays["face_group"] < _SHOWN_GROUPS].astype(np.int64)
        landmarks = arrays["tip_vertices"] if hand else arrays["extra_vertices"]
        # A regressor is of all vertices; what is not shown is kept only where one of them reads it.
        read = np.concatenate(
            [np.flatnonzero(matrix.any(axis=0)) for _, matrix in regressors] or [np.zeros(0, np.int64)]
        )
        kept = np.unique(np.concatenate([shown_F3.ravel(), landmarks, read.astype(np.int64)]))
        place = np.full(len(arrays["v_template"]), -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        self.faces_F3 = place[shown_F3]
        template, shapes = arrays["v_template"].astype(np.float64), arrays["shapedirs"][..., :NUM_SHAPES]
        joints = arrays["J_regressor"].astype(np.float64)
        further = np.concatenate([m[:, kept] for _, m in regressors] or [np.zeros((0, len(kept)))])
        for name, value in (
            ("template_X3", template[kept]),
            ("shapes_SX3", np.moveaxis(shapes[kept], 2, 0)),
            ("bends_P_X3", np.moveaxis(arrays["posedirs"][kept], 2, 0).reshape(arrays["posedirs"].shape[2], -1)),
            ("weights_XR", arrays["weights"][kept]),
            ("joints_R3", joints @ template),
            ("joint_shapes_SR3", np.einsum("rx,xcs->src", joints, shapes)),
            ("further", further),
        ):
            self.register_buffer(
                name, torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32)), persistent=False
            )
        self.register_buffer("landmarks", torch.from_numpy(place[landmarks]), persistent=False)

    def forward(self, rotations_BR33: Tensor, shape_BS: Tensor) -> Posed:
        """Pose people or hands, each with its own shape, in float32 whatever the autocast."""
        with torch.autocast(rotations_BR33.device.type, enabled=False):
            turns, shape = rotations_BR33.to(self.template_X3.dtype), shape_BS.to(self.template_X3.dtype)
            joints_BR3 = self.joints_R3 + torch.einsum("bs,src->brc", shape, self.joint_shapes_SR3)
            world, places = [turns[:, 0]], [joints_BR3[:, 0]]
            for joint, parent in enumerate(self.parents[1:], start=1):
                bone_B3 = joints_BR3[:, joint] - joints_BR3[:, parent]
                places.append(places[parent] + (world[parent] @ bone_B3[..., None])[..., 0])
                world.append(world[parent] @ turns[:, joint])
            world_BR33, posed_BR3 = torch.stack(world, dim=1), torch.stack(places, dim=1)
            bent_BP = (turns[:, 1:] - torch.eye(3, dtype=turns.dtype, device=turns.device)).flatten(1)
            rest_BX3 = self.template_X3 + torch.einsum("bs,sxc->bxc", shape, self.shapes_SX3)
            rest_BX3 = rest_BX3 + (bent_BP @ self.bends_P_X3).reshape(rest_BX3.shape)
            shift_BR3 = posed_BR3 - (world_BR33 @ joints_BR3[..., None])[..., 0]
            turn_BX33 = (self.weights_XR @ world_BR33.flatten(2)).reshape(*rest_BX3.shape, 3)
            verts_BX3 = (turn_BX33 @ rest_BX3[..., None])[..., 0] + self.weights_XR @ shift_BR3
            points = [posed_BR3, verts_BX3[:, self.landmarks], self.further @ verts_BX3]
        return Posed(verts_BX3, torch.cat(points, dim=1))


@lru_cache(maxsize=8)
def read_mesh_model(
    path: Path, *, h36m: Path | None = None, extra: Path | None = None, hand: bool = False
) -> MeshModel:
    """Read a model; the same object for the same files.

    Args:
        path: npz that `python -m synthetic` wrote.
        h36m: J_regressor_h36m.npy (17, vertices), which makes the joints that 3DPW's protocol scores.
        extra: J_regressor_extra.npy (9, vertices) of SPIN, which makes the joints of LSP and MPII.
        hand: whether it must be a hand.

    Raises:
        TrainingError: a file is missing, damaged, of another kind, or a regressor is of another mesh.
    """
    arrays = read_arrays(path, HAND_FORMAT if hand else BODY_FORMAT)
    regressors = tuple(
        (rows, _regressor(file, len(rows), len(arrays["v_template"])))
        for file, rows in ((h36m, H36M17), (extra, EXTRA9))
        if file is not None
    )
    try:
        return MeshModel(arrays, regressors).eval().requires_grad_(requires_grad=False)
    except _DAMAGE as error:
        raise TrainingError(f"the model is damaged: {error}", where=path, hint=_HINT) from error


def read_arrays(path: Path, file_format: str) -> Arrays:
    """Read a model's file as it stands.

    Raises:
        TrainingError: it is missing, damaged or of another format.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        found = json.loads(str(arrays["provenance"]))["format"]
    except FileNotFoundError:
        raise TrainingError("there is no model of a body or hand", where=path, hint=_HINT) from None
    except _DAMAGE as error:
        raise TrainingError(f"the model cannot be read: {error}", where=path, hint=_HINT) from error
    if found != file_format:
        raise TrainingError(f"the model is of the format {found}, due is {file_format}", where=path, hint=_HINT)
    return arrays


def _regressor(path: Path, num_rows: int, num_vertices: int) -> npt.NDArray[Any]:
    hint = "give the .npy of SPIN's data for SMPL's 6890 vertices, with a converted SMPL as the model"
    try:
        matrix = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except _DAMAGE as error:
        raise TrainingError(f"the regressor cannot be read: {error}", where=path, hint=hint) from error
    if matrix.shape != (num_rows, num_vertices) or not np.isfinite(matrix).all():
        raise TrainingError(
            f"the regressor is {matrix.shape}, due are finite numbers of shape {(num_rows, num_vertices)}",
            where=path,
            hint=hint,
        )
    return np.asarray(matrix)
