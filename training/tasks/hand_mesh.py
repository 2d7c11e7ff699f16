"""The mesh of a hand from one image: FreiHAND in the paper, rendered hands where there is no dataset.

A left hand is learned and scored as the right hand that its mirrored picture shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from manifests.errors import TrainingError
from manifests.types import Domain
from training.examples.base import About
from training.metrics.points import (
    align_similarity,
    f_score,
    mpjpe_mm,
    mpvpe_mm,
    pa_mpjpe_mm,
    pck_auc,
    point_errors_mm,
)
from training.tasks.base import Arrays, Score, Tensors
from training.tasks.joints import HAND21
from training.tasks.mesh_model import MeshModel, read_mesh_model
from training.tasks.mesh_task import Floats, MeshTask, as_numpy, means_of

_SHARES = ("auc_joints", "auc_verts", "f_5mm", "f_15mm")


@dataclass(frozen=True, kw_only=True)
class HandMesh(MeshTask):
    """MANO's parameters of a right hand from the pooled tokens."""

    name: ClassVar[str] = "hand_mesh"
    main: ClassVar[str] = "pa_mpjpe"
    domain: ClassVar[Domain] = Domain.HAND
    asset: ClassVar[str] = "hand_right.npz"
    unit_m: ClassVar[float] = 0.1
    flips: ClassVar[bool] = False
    side: ClassVar[Literal["right"] | None] = "right"
    mirror_aligned: ClassVar[bool] = True
    score_names: ClassVar[tuple[str, ...]] = (
        *("mpjpe", "pa_mpjpe", "pa_mpjpe_strict", "mpvpe", "pa_mpvpe", "pa_mpvpe_strict"),
        *_SHARES,
    )

    def mesh_model(self) -> MeshModel:
        """The right hand."""
        return read_mesh_model(self.mesh_path(), hand=True)

    def rest_pose(self, model: MeshModel) -> Floats:
        """The mean pose that the hand's file tells."""
        assert model.mean_hand_R3 is not None
        return model.mean_hand_R3

    def check(self, train: Sequence[About], test: About) -> None:
        """Refuse datasets that lack what the task needs, and a model of a left hand.

        Raises:
            TrainingError: which dataset or file.
        """
        if (side := self.mesh_model().side) != self.side:
            raise TrainingError(
                f"the model is a {side} hand",
                where=self.mesh_path(),
                hint="give the right one: left hands are mirrored",
            )
        super().check(train, test)

    @property
    def scored_names(self) -> tuple[str, ...]:
        """Names of the joints that are scored."""
        return HAND21

    @property
    def root_name(self) -> str:
        """Name of the joint that is their root."""
        return "wrist"

    def mesh_errors(
        self, points_BV3: npt.NDArray[Any], verts_BX3: npt.NDArray[Any], target: Tensors
    ) -> dict[str, Floats]:
        """Errors of images whose mesh is known; FreiHAND's alignment, which allows reflections, and the strict one."""
        truth, scored = (
            self.mesh_model().to(target["betas"].device)(target["rotations"], target["betas"]),
            self.scored(),
        )
        joints, true_joints = points_BV3[:, scored], self.true_points(truth)[:, scored]
        true_BX3, wrist = as_numpy(truth.verts_BX3), HAND21.index(self.root_name)
        aligned_BJ3 = align_similarity(joints, true_joints, mirror=True)
        aligned_BX3 = align_similarity(verts_BX3, true_BX3, mirror=True)
        joint_mm, vert_mm = point_errors_mm(aligned_BJ3, true_joints), point_errors_mm(aligned_BX3, true_BX3)
        return {
            "mpjpe": mpjpe_mm(joints, true_joints, root=(wrist,)),
            "pa_mpjpe": joint_mm.mean(axis=1),
            "pa_mpjpe_strict": pa_mpjpe_mm(joints, true_joints),
            "mpvpe": mpvpe_mm(verts_BX3, true_BX3, roots_m=(joints[:, wrist], true_joints[:, wrist])),
            "pa_mpvpe": vert_mm.mean(axis=1),
            "pa_mpvpe_strict": pa_mpjpe_mm(verts_BX3, true_BX3),
            # All images have as many points: the mean of their areas is the area of all points together.
            "auc_joints": np.array([pck_auc(errors) for errors in joint_mm]),
            "auc_verts": np.array([pck_auc(errors) for errors in vert_mm]),
            "f_5mm": f_score(aligned_BX3, true_BX3, threshold_mm=5.0),
            "f_15mm": f_score(aligned_BX3, true_BX3, threshold_mm=15.0),
        }

    def scores(self, measured: Arrays) -> Mapping[str, Score]:
        """Means over the images that have the label; those without are counted in the convention."""
        model = ", the project's own hand" if self.mesh_model().free else ""
        truth = f"left hands mirrored; ground truth by the model{model}"
        official, strict = (
            "similarity of each image that may reflect, as FreiHAND has it",
            "similarity without reflection",
        )
        joints, verts = self.told_joints(measured, "21 joints"), f"{len(self.mesh_model().template_X3)} vertices"
        conventions = {
            "mpjpe": f"root-aligned; {joints}; {truth}",
            "pa_mpjpe": f"{official}; {joints}; {truth}",
            "pa_mpjpe_strict": f"{strict}; {joints}; {truth}",
            "mpvpe": f"wrist-aligned; {verts}; {truth}",
            "pa_mpvpe": f"{official}; {verts}; {truth}",
            "pa_mpvpe_strict": f"{strict}; {verts}; {truth}",
            "auc_joints": f"share of joints within 0 to 50 mm; {official}; {truth}",
            "auc_verts": f"share of vertices within 0 to 50 mm; {official}; {truth}",
            "f_5mm": f"within 5 mm; {official}; {verts}; {truth}",
            "f_15mm": f"within 15 mm; {official}; {verts}; {truth}",
        }
        return means_of(measured, conventions, shares=_SHARES)
