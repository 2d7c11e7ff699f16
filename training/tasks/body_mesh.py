"""The mesh of a body from one image: COCO-Part-EFT to 3DPW in the paper, rendered people where there is no dataset.

Shape letters: `B` images, `J` scored joints, `X` vertices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from manifests.errors import TrainingError
from training.examples.base import About
from training.heads.regressor import Mesh
from training.metrics.points import mpjpe_mm, mpvpe_mm, pa_mpjpe_mm
from training.tasks.base import Arrays, Score, Tensors
from training.tasks.joints import LSP14, SMPL24
from training.tasks.mesh_model import MeshModel, Posed, read_mesh_model
from training.tasks.mesh_task import GENDERS, Floats, MeshTask, as_numpy, means_of

_ARM_RAD = 1.0  # by which arms hang from the T-pose
_SCORES = ("mpjpe", "pa_mpjpe", "mpvpe", "mpvpe_unaligned", "mpvpe_neutral")


@dataclass(frozen=True, kw_only=True)
class BodyMesh(MeshTask):
    """SMPL's parameters from the pooled tokens.

    Args:
        male: model of the ground truth of men, as `model`; the neutral one stands for it if none is named.
        female: of women.
        regressor_h36m: J_regressor_h36m.npy: scores the 14 joints of 3DPW's protocol instead of SMPL's own 24.
        regressor_extra: J_regressor_extra.npy: trains on the joints of LSP and MPII too, of which hips have a stand-in.
    """

    male: str | None = None
    female: str | None = None
    regressor_h36m: str | None = None
    regressor_extra: str | None = None

    name: ClassVar[str] = "body_mesh"
    main: ClassVar[str] = "pa_mpjpe"
    asset: ClassVar[str] = "body.npz"
    flips: ClassVar[bool] = True

    def mesh_model(self) -> MeshModel:
        """The neutral model."""
        return self._model("neutral")

    def rest_pose(self, model: MeshModel) -> Floats:
        """Standing, arms hanging."""
        pose_R3 = np.zeros((len(model.parents), 3))
        pose_R3[[SMPL24.index("left_shoulder"), SMPL24.index("right_shoulder")], 2] = -_ARM_RAD, _ARM_RAD
        return pose_R3

    def check(self, train: Sequence[About], test: About) -> None:
        """Refuse datasets that lack what the task needs, and models that are not of one mesh.

        Raises:
            TrainingError: which dataset or file.
        """
        super().check(train, test)
        for gender in GENDERS[1:]:
            if len(self._model(gender).template_X3) != len(self.mesh_model().template_X3):
                raise TrainingError(
                    f"the {gender} model has another mesh than the neutral one",
                    where=str(getattr(self, gender)),
                    hint="give models of one family, all converted or none",
                )

    # ----------------------------------------------------------------------------------------------------------- scores

    def measure(self, outputs: Mesh, target: Tensors) -> Arrays:
        """Errors of each image in millimetres, NaN where an image has no such label. `gendered`: its model is a man or woman."""
        predicted = self.predict(outputs)
        points, verts = as_numpy(predicted.points_BV3), as_numpy(predicted.verts_BX3)
        known_B = as_numpy(target["rotations_known"]) > 0
        errors = {name: np.full(len(points), np.nan) for name in _SCORES}
        if known_B.any():
            found = self._mesh_errors(points[known_B], verts[known_B], self._truth(target, known_B, gendered=True))
            if self.male or self.female:
                neutral = self._truth(target, known_B, gendered=False)
                found["mpvpe_neutral"] = self._mesh_errors(points[known_B], verts[known_B], neutral)["mpvpe"]
            for name, values in found.items():
                errors[name][known_B] = values
        weight_BV = as_numpy(target["points_weight"])
        for image in np.flatnonzero(~known_B & weight_BV.any(axis=1)):
            truth = as_numpy(target["points_m"][image]), as_numpy(target["root"][image])
            errors["mpjpe"][image], errors["pa_mpjpe"][image] = self._joint_errors(
                points[image], *truth, weight_BV[image] > 0
            )
        return {**errors, "gendered": as_numpy(target["gender"]) > 0}

    def scores(self, measured: Arrays) -> Mapping[str, Score]:
        """Means over the images that have the label; those without are counted in the convention."""
        given = [gender for gender in GENDERS[1:] if getattr(self, gender) is not None]
        truth = "neutral ground truth"
        if measured["gendered"].any():
            truth = (
                "gendered ground truth"
                if len(given) == 2
                else "gendered labels on the neutral model, none of men and women given"
            )
        joints = (
            "14 joints of J_regressor_h36m, root its pelvis"
            if self.regressor_h36m
            else "SMPL's 24 joints, root the pelvis"
        )
        models = f"{truth}, neutral prediction" + (", the project's own body" if self.mesh_model().free else "")
        conventions = {
            "mpjpe": f"root-aligned; {joints}; {models}",
            "pa_mpjpe": f"similarity without reflection of each image; {joints}; {models}",
            "mpvpe": f"pelvis-aligned, by the root of the joints; {models}",
            "mpvpe_unaligned": f"nothing aligned, both meshes from the model's origin; {models}",
            "mpvpe_neutral": "pelvis-aligned; ground truth of all genders by the neutral model, neutral prediction",
        }
        told = means_of(measured, conventions)
        if not (measured["gendered"].any() and given):
            told.pop("mpvpe_neutral", None)
        return told

    def _model(self, gender: str) -> MeshModel:
        path = getattr(self, gender, None)
        h36m, extra = (None if file is None else Path(file) for file in (self.regressor_h36m, self.regressor_extra))
        return read_mesh_model(self.mesh_path() if path is None else Path(path), h36m=h36m, extra=extra)

    def _mesh_errors(
        self, points_BV3: npt.NDArray[Any], verts_BX3: npt.NDArray[Any], truth: Posed
    ) -> dict[str, Floats]:
        """Errors of images whose mesh is known."""
        true_BV3, true_BX3 = as_numpy(truth.points_BV3), as_numpy(truth.verts_BX3)
        root, scored = self._root_place(), self._scored()
        roots, joints = (points_BV3[:, root], true_BV3[:, root]), (points_BV3[:, scored], true_BV3[:, scored])
        from_root = [joint_BJ3 - root_B3[:, None] for joint_BJ3, root_B3 in zip(joints, roots, strict=True)]
        return {
            "mpjpe": mpjpe_mm(*from_root, root=()),
            "pa_mpjpe": pa_mpjpe_mm(*joints),
            "mpvpe": mpvpe_mm(verts_BX3, true_BX3, roots_m=roots),
            "mpvpe_unaligned": mpvpe_mm(verts_BX3, true_BX3, roots_m=None),
        }

    def _joint_errors(
        self,
        points_V3: npt.NDArray[Any],
        true_V3: npt.NDArray[Any],
        share_V: npt.NDArray[Any],
        known_V: npt.NDArray[np.bool_],
    ) -> tuple[float, float]:
        """MPJPE and PA-MPJPE of an image of which some joints are known and no mesh; from the pelvis, or from both hips."""
        scored = [place for place in self._scored() if known_V[place]]
        if known_V[self._root_place()]:
            share_V = np.eye(len(share_V))[self._root_place()]
        joints, true_joints = ((points - share_V @ points)[None, scored] for points in (points_V3, true_V3))
        return float(mpjpe_mm(joints, true_joints, root=())[0]), float(pa_mpjpe_mm(joints, true_joints)[0])

    def _scored(self) -> list[int]:
        return [int(place) for place in self.mesh_model().vocabulary.places(LSP14 if self.regressor_h36m else SMPL24)]

    def _root_place(self) -> int:
        return int(self.mesh_model().vocabulary.places(["h36m_pelvis" if self.regressor_h36m else "pelvis"])[0])

    def _truth(self, target: Tensors, known_B: npt.NDArray[np.bool_], *, gendered: bool) -> Posed:
        """Annotated meshes of the images that are known."""
        known = torch.from_numpy(known_B).to(target["gender"].device)
        rotations, betas, gender = target["rotations"][known], target["betas"][known], target["gender"][known]
        verts, points = self.mesh_model().to(betas.device)(rotations, betas)
        for index, name in enumerate(GENDERS):
            at = gender == index
            if gendered and getattr(self, name, None) is not None and at.any():
                verts[at], points[at] = self._model(name).to(betas.device)(rotations[at], betas[at])
        return Posed(verts, points)
