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
from training.heads.rotations import matrix_from_axis_angle
from training.tasks.joints import EXTRA9, H36M17, LANDMARKS, MANO16, SMPL24, TIPS, Vocabulary

Arrays = dict[str, npt.NDArray[Any]]

BODY_FORMAT, HAND_FORMAT = "crosspose-body-1", "crosspose-hand-1"
NUM_SHAPES = 10
_HINT = "`make fetch` brings the free ones; `python -m synthetic convert IN OUT` makes one of a published SMPL or MANO"
_SHOWN_GROUPS = 3  # skin and eyes; skirt and hair of the free body are clothes, the lid of a hand's stump has group 1
_NEAR, _RIDGE, _SPREAD_RAD = 200, 1e-7, 0.3  # of the fit of joints to vertices
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
    bends_PX3: Tensor
    weights_XR: Tensor
    joints_R3: Tensor
    joint_shapes_SR3: Tensor
    read: Tensor
    points_from_read: Tensor

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
        rows = np.concatenate(
            [np.eye(len(arrays["v_template"]), dtype=np.float32)[landmarks], *(m for _, m in regressors)]
        )
        read = np.flatnonzero(rows.any(axis=0))
        # What is not shown is kept only where a point is made from it.
        kept = np.unique(np.concatenate([shown_F3.ravel(), read]))
        place = np.full(len(arrays["v_template"]), -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        self.faces_F3 = place[shown_F3]
        template, shapes = arrays["v_template"].astype(np.float64), arrays["shapedirs"][..., :NUM_SHAPES]
        joints = arrays["J_regressor"].astype(np.float64)
        for name, value in (
            ("template_X3", template[kept]),
            ("shapes_SX3", np.moveaxis(shapes[kept], 2, 0)),
            ("bends_PX3", np.moveaxis(arrays["posedirs"][kept], 2, 0)),
            ("weights_XR", arrays["weights"][kept]),
            ("joints_R3", joints @ template),
            ("joint_shapes_SR3", np.einsum("rx,xcs->src", joints, shapes)),
            ("points_from_read", rows[:, read]),
        ):
            self.register_buffer(
                name, torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32)), persistent=False
            )
        self.register_buffer("read", torch.from_numpy(place[read]), persistent=False)

    def forward(self, rotations_BR33: Tensor, shape_BS: Tensor) -> Posed:
        """Pose people or hands, each with its own shape, in float32 whatever the autocast."""
        joints_BR3, verts_BX3 = self._posed(rotations_BR33, shape_BS, None)
        return Posed(verts_BX3, self._points(joints_BR3, verts_BX3[:, self.read]))

    def points(self, rotations_BR33: Tensor, shape_BS: Tensor) -> Tensor:
        """(B, V, 3) the points alone, which needs a few vertices only."""
        return self._points(*self._posed(rotations_BR33, shape_BS, self.read))

    def _points(self, joints_BR3: Tensor, read_BX3: Tensor) -> Tensor:
        with torch.autocast(read_BX3.device.type, enabled=False):
            return torch.cat([joints_BR3, self.points_from_read @ read_BX3], dim=1)

    def _posed(self, rotations_BR33: Tensor, shape_BS: Tensor, wanted: Tensor | None) -> tuple[Tensor, Tensor]:
        """Joints, and all vertices or those that are wanted."""
        template_X3, shapes_SX3, bends_PX3, weights_XR = (
            part if wanted is None else part.index_select(-2, wanted)
            for part in (self.template_X3, self.shapes_SX3, self.bends_PX3, self.weights_XR)
        )
        with torch.autocast(template_X3.device.type, enabled=False):
            turns, shape = rotations_BR33.to(template_X3.dtype), shape_BS.to(template_X3.dtype)
            joints_BR3 = self.joints_R3 + torch.einsum("bs,src->brc", shape, self.joint_shapes_SR3)
            world, places = [turns[:, 0]], [joints_BR3[:, 0]]
            for joint, parent in enumerate(self.parents[1:], start=1):
                bone_B3 = joints_BR3[:, joint] - joints_BR3[:, parent]
                places.append(places[parent] + (world[parent] @ bone_B3[..., None])[..., 0])
                world.append(world[parent] @ turns[:, joint])
            world_BR33, posed_BR3 = torch.stack(world, dim=1), torch.stack(places, dim=1)
            bent_BP = (turns[:, 1:] - torch.eye(3, dtype=turns.dtype, device=turns.device)).flatten(1)
            rest_BX3 = template_X3 + torch.einsum("bs,sxc->bxc", shape, shapes_SX3)
            rest_BX3 = rest_BX3 + (bent_BP @ bends_PX3.flatten(1)).reshape(rest_BX3.shape)
            shift_BR3 = posed_BR3 - (world_BR33 @ joints_BR3[..., None])[..., 0]
            turn_BX33 = (weights_XR @ world_BR33.flatten(2)).reshape(*rest_BX3.shape, 3)
            verts_BX3 = (turn_BX33 @ rest_BX3[..., None])[..., 0] + weights_XR @ shift_BR3
        return posed_BR3, verts_BX3


def points_from_verts(model: MeshModel, *, num_poses: int = 96) -> Tensor:
    """(V, X) which vertices make the points of a posed mesh that came without its parameters.

    Landmarks and regressed points are exact; a joint that turns is fitted to the vertices nearest to it, over random poses and
    shapes, with rows that sum to one.
    """
    generator = torch.Generator().manual_seed(0)
    num_joints = len(model.parents)
    with torch.no_grad():
        model = model.cpu()
        turns = matrix_from_axis_angle(_SPREAD_RAD * torch.randn(num_poses, num_joints, 3, generator=generator))
        posed = model(turns, torch.randn(num_poses, NUM_SHAPES, generator=generator))
        matrix_VX = torch.zeros(posed.points_BV3.shape[1], posed.verts_BX3.shape[1])
        matrix_VX[num_joints:, model.read] = model.points_from_read
        for joint in range(num_joints):
            near = (model.template_X3 - model.joints_R3[joint]).norm(dim=1).argsort(stable=True)[:_NEAR]
            verts_BM3 = posed.verts_BX3[:, near].double()
            middle_B13 = verts_BM3.mean(dim=1, keepdim=True)
            offset_QM = (verts_BM3 - middle_B13).mT.flatten(0, 1)
            due_Q = (posed.points_BV3[:, joint] - middle_B13[:, 0]).flatten().double()
            normal_MM = offset_QM.T @ offset_QM
            normal_MM += _RIDGE * normal_MM.trace() * torch.eye(_NEAR)
            share_M = torch.linalg.solve(normal_MM, offset_QM.T @ due_Q)
            matrix_VX[joint, near] = (share_M + (1 - share_M.sum()) / _NEAR).float()
    return matrix_VX


def farthest_points(points_X3: npt.NDArray[np.floating], num: int) -> npt.NDArray[np.int64]:
    """Indices of points that cover a mesh evenly, each as far as can be from those before; the first is the outermost."""
    points = np.asarray(points_X3, np.float64)
    chosen = [int(np.square(points - points.mean(axis=0)).sum(axis=1).argmax())]
    away = np.full(len(points), np.inf)
    for _ in range(num - 1):
        away = np.minimum(away, np.square(points - points[chosen[-1]]).sum(axis=1))
        chosen.append(int(away.argmax()))
    return np.array(chosen)


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
