"""The mesh of a body from one image: COCO-Part-EFT to 3DPW in the paper, rendered people where there is no dataset.

Shape letters: `B` images, `J` scored joints, `X` vertices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from manifests.errors import TrainingError
from manifests.types import Domain
from training.examples.base import About
from training.metrics.points import mpjpe_mm, mpvpe_mm, pa_mpjpe_mm
from training.tasks.base import Arrays, Score, Tensors
from training.tasks.joints import LSP14, SMPL24
from training.tasks.mesh_model import MeshModel, Posed, read_mesh_model
from training.tasks.mesh_task import GENDERS, Floats, MeshTask, as_numpy, means_of

_ARM_RAD = 1.0  # by which arms hang from the T-pose


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
    domain: ClassVar[Domain] = Domain.BODY
    asset: ClassVar[str] = "body.npz"
    flips: ClassVar[bool] = True
    score_names: ClassVar[tuple[str, ...]] = ("mpjpe", "pa_mpjpe", "mpvpe", "mpvpe_unaligned", "mpvpe_neutral")

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
        if (self.male is None) != (self.female is None):
            raise TrainingError(
                "one of the models of men and women is given, and not the other",
                where="options male and female of the task",
                hint="give both, or none: the neutral model then stands for them",
            )
        for gender in GENDERS[1:]:
            if len(self._model(gender).template_X3) != len(self.mesh_model().template_X3):
                raise TrainingError(
                    f"the {gender} model has another mesh than the neutral one",
                    where=str(getattr(self, gender)),
                    hint="give models of one family, all converted or none",
                )

    # ----------------------------------------------------------------------------------------------------------- scores

    @property
    def scored_names(self) -> tuple[str, ...]:
        """Names of the joints that are scored."""
        return LSP14 if self.regressor_h36m else SMPL24

    @property
    def root_name(self) -> str:
        """Name of the joint that is their root."""
        return "h36m_pelvis" if self.regressor_h36m else "pelvis"

    def mesh_errors(
        self, points_BV3: npt.NDArray[Any], verts_BX3: npt.NDArray[Any], target: Tensors
    ) -> dict[str, Floats]:
        """Errors of images whose mesh is known."""
        truth, scored = self._truth(target, gendered=True), self.scored()
        true_BV3, true_BX3 = self.true_points(truth), as_numpy(truth.verts_BX3)
        root_B3, true_root_B3 = points_BV3[:, self.root_place()], true_BV3[:, self.root_place()]
        joints, true_joints = points_BV3[:, scored], true_BV3[:, scored]
        errors = {
            "mpjpe": mpjpe_mm(joints - root_B3[:, None], true_joints - true_root_B3[:, None], root=()),
            "pa_mpjpe": pa_mpjpe_mm(joints, true_joints),
            "mpvpe": mpvpe_mm(verts_BX3, true_BX3, roots_m=(root_B3, true_root_B3)),
        }
        if self.predictor == "regressor":  # a mesh without a model has no origin but its root
            errors["mpvpe_unaligned"] = mpvpe_mm(verts_BX3, true_BX3, roots_m=None)
        if self.male or self.female:
            neutral = self._truth(target, gendered=False)
            roots = root_B3, self.true_points(neutral)[:, self.root_place()]
            errors["mpvpe_neutral"] = mpvpe_mm(verts_BX3, as_numpy(neutral.verts_BX3), roots_m=roots)
        return errors

    def scores(self, measured: Arrays) -> Mapping[str, Score]:
        """Means over the images that have the label; those without are counted in the convention."""
        truth = "neutral ground truth"
        if measured["gendered"].any():
            own = self.male and self.female
            truth = "gendered ground truth" if own else "labels of men and women on the neutral model, theirs not given"
        joints = "14 joints of J_regressor_h36m" if self.regressor_h36m else "SMPL's 24 joints"
        joints = self.told_joints(measured, joints)
        models = f"{truth}, neutral prediction" + (", the project's own body" if self.mesh_model().free else "")
        conventions = {
            "mpjpe": f"root-aligned; {joints}; {models}",
            "pa_mpjpe": f"similarity without reflection of each image; {joints}; {models}",
            "mpvpe": f"root-aligned, root the {self.root_name}; {models}",
            "mpvpe_unaligned": f"nothing aligned, both meshes from the model's origin; {models}",
            "mpvpe_neutral": "root-aligned; ground truth of all genders by the neutral model, neutral prediction",
        }
        return means_of(measured, conventions)

    def _model(self, gender: str) -> MeshModel:
        path = getattr(self, gender, None)
        h36m, extra = (None if file is None else Path(file) for file in (self.regressor_h36m, self.regressor_extra))
        return read_mesh_model(self.mesh_path() if path is None else Path(path), h36m=h36m, extra=extra)

    def _truth(self, target: Tensors, *, gendered: bool) -> Posed:
        """Annotated meshes; in truth of men and women by their own models, where they are given."""
        rotations, betas, gender = target["rotations"], target["betas"], target["gender"]
        verts, points = self.mesh_model().to(betas.device)(rotations, betas)
        for index, name in enumerate(GENDERS):
            at = gender == index
            if gendered and getattr(self, name, None) is not None and at.any():
                verts[at], points[at] = self._model(name).to(betas.device)(rotations[at], betas[at])
        return Posed(verts, points)
