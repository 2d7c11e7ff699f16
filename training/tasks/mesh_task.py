"""What all mesh tasks share: labels of a cut picture, the losses, the predicted mesh, its pictures and files.

Shape letters: `B` images, `R` rotations, `S` shape values, `X` vertices, `V` points of the model's vocabulary.
Source: losses and weights of Kolotouros et al., SPIN, ICCV 2019, as published with its code; written from their description.
"""

import io
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from manifests.errors import TrainingError
from manifests.types import Domain
from training.assets import asset
from training.examples.base import About, Example
from training.heads.model_free import FreeMesh
from training.heads.pooling import OfPooled, Pool, Pooling
from training.heads.regressor import IterativeRegressor, Mesh
from training.heads.rotations import matrix_from_axis_angle, matrix_from_sixd, nearest_rotation
from training.metrics.points import mpjpe_mm, pa_mpjpe_mm
from training.tasks.base import Arrays, Cut, Score, Tensors
from training.tasks.free_mesh import FreeMeshHead, free_loss, levels_of
from training.tasks.joints import SETS
from training.tasks.mesh_losses import joints_loss, keypoints_loss, mean_of_known
from training.tasks.mesh_model import NUM_SHAPES, MeshModel, Posed
from training.tasks.overlay import draw_mesh, from_the_side, write_glb
from training.tasks.placing import shares_in_image

Floats = npt.NDArray[np.float64]

FOCAL_PX, CROP_PX = 5000.0, 224.0  # of the camera that is assumed for every crop
LARGEST_SHAPE = 3.0  # a fit beyond is not believed, and drawn to the mean
WEIGHT, KEYPOINTS, JOINTS, ROTATIONS, SHAPE = 60.0, 5.0, 5.0, 1.0, 0.001
GENDERS = ("neutral", "male", "female")
_UPRIGHT = np.diag([1.0, -1.0, -1.0])  # a model stands y up and looks along +z: turned to face a camera
_SMALLEST = 0.01  # scale of a camera; at 0 the mesh would be infinitely far, below behind the camera
_FILLS = 0.75  # of half the crop that the mean mesh takes


class Predicted(NamedTuple):
    """A predicted mesh, float32.

    Args:
        verts_BX3: metres, from the model's origin, in the camera's axes.
        points_BV3: points of the vocabulary, likewise.
        place_B3: where the mesh stands before the camera that is assumed, metres.
    """

    verts_BX3: Tensor
    points_BV3: Tensor
    place_B3: Tensor


@dataclass(frozen=True, kw_only=True)
class MeshTask(ABC):
    """Options of all mesh tasks.

    Attributes:
        unit_m: metres of the unit that cameras and joints are learned in, so that hands weigh as people do.

    Args:
        model: npz that `python -m synthetic` wrote; the free model of the assets if none is named.
        mean: npz with pose (six numbers of each rotation), shape and cam, where the regressor starts, as SPIN's
            smpl_mean_params.npz, the camera's in `unit_m`; a standing person, or the hand's own mean pose, if none is named.
        rotation: what is predicted of a rotation, see `IterativeRegressor`.
        predictor: the iterative regressor of the model's parameters, or the transformer that needs no model but its mesh.
        parameter_weight: of the errors of rotations and shape in the regressor's loss, times SPIN's. A network that cannot yet tell which
            way people face is right on average, in joints and keypoints, with folded limbs and a shrunken body; a larger weight forbids it.
        pooling: how tokens become the regressor's feature, see `Pool`.
    """

    model: str | None = None
    mean: str | None = None
    rotation: Literal["sixd", "procrustes"] = "sixd"
    predictor: Literal["regressor", "model_free"] = "regressor"
    parameter_weight: float = 1.0
    pooling: Pooling = "mean"

    name: ClassVar[str]
    reads: ClassVar[Literal["pooled", "dense", "two"]] = "pooled"
    domain: ClassVar[Domain]
    side: ClassVar[Literal["right"] | None] = None
    asset: ClassVar[str]
    unit_m: ClassVar[float] = 1.0
    flips: ClassVar[bool]
    turns: ClassVar[bool] = True
    score_names: ClassVar[tuple[str, ...]]
    mirror_aligned: ClassVar[bool] = False  # whether the alignment of PA-MPJPE may reflect

    # ----------------------------------------------------------------------------------------------------------- models

    @abstractmethod
    def mesh_model(self) -> MeshModel:
        """The model whose parameters are predicted."""

    def mesh_path(self) -> Path:
        """Its file."""
        return asset(self.asset) if self.model is None else Path(self.model)

    def check(self, train: Sequence[About], test: About) -> None:
        """Refuse datasets that lack what the task needs.

        Raises:
            TrainingError: which dataset lacks what.
        """
        free = self.mesh_model().free
        for about in (*train, test):
            if about.domain != self.domain:
                raise TrainingError(
                    f"{about.name} shows a {about.domain}, and {self.name} asks for a {self.domain}",
                    where=f"{about.name}, {about.split}",
                    hint="give other data, or take another task",
                )
            if free and "pose" in about.labels and not about.name.startswith("free_"):
                raise TrainingError(
                    f"the poses of {about.name} are of a published {self.mesh_model().layout}, which the free model is not",
                    where=self.mesh_path(),
                    hint="convert yours by `python -m synthetic convert IN OUT` and name it as the task's option `model`",
                )
        for about in train:
            if not {"pose", "joints_m", "keypoints_px"} & set(about.labels):
                raise TrainingError(
                    f"{about.name} teaches no mesh: it has neither pose nor joints nor keypoints",
                    where=f"{about.name}, {about.split}",
                    hint="train on a dataset with one of these labels",
                )
        if not {"pose", "joints_m"} & set(test.labels):
            raise TrainingError(
                f"{test.name} cannot score a mesh: it has neither pose nor joints in 3D",
                where=f"{test.name}, {test.split}",
                hint="test on a dataset with one of these labels",
            )

    # ------------------------------------------------------------------------------------------------------------- head

    def head(self, widths: Sequence[int], num_patches: int) -> nn.Module:
        """The iterative regressor, or the model-free transformer."""
        if self.predictor == "model_free":
            model = self.mesh_model()
            rest_R33 = torch.eye(3).repeat(len(model.parents), 1, 1)
            rest_R33[0] = torch.from_numpy(_UPRIGHT)
            return FreeMeshHead(
                widths[-1],
                num_patches,
                model=model,
                rotations_R33=rest_R33,
                places=self.scored(),
                root=self.root_place(),
            )
        pool = Pool(widths[-1], num_patches, self.pooling)
        return OfPooled(pool, IterativeRegressor(pool.width, mean=self.mean_mesh(), rotation=self.rotation))

    def mean_mesh(self) -> Mesh:
        """Where the regressor starts.

        Raises:
            TrainingError: the file of mean parameters is unusable.
        """
        model = self.mesh_model()
        if self.mean is not None:
            return _read_mean(Path(self.mean), len(model.parents))
        pose_R3 = self.rest_pose(model)
        rotations_R33 = matrix_from_axis_angle(torch.from_numpy(pose_R3)).float()
        rotations_R33[0] = torch.from_numpy(_UPRIGHT).float() @ rotations_R33[0]
        shape = torch.zeros(NUM_SHAPES)
        points_V3 = model.cpu()(rotations_R33[None], shape[None]).points_BV3[0]
        low, high = points_V3[:, :2].amin(dim=0), points_V3[:, :2].amax(dim=0)
        extent, middle = (high - low).amax() / self.unit_m, (low + high) / 2 / self.unit_m
        camera = torch.cat([2 * _FILLS / extent[None], -middle])
        return Mesh(rotations_BR33=rotations_R33, shape_BS=shape, camera_B3=camera)

    @abstractmethod
    def rest_pose(self, model: MeshModel) -> Floats:
        """(R, 3) axis-angles of the mean pose, upright."""

    # ----------------------------------------------------------------------------------------------------------- labels

    def target(self, example: Example, cut: Cut, about: About) -> Arrays:
        """What is known of a mesh, in the image's frame.

        Returns:
            rotations (R, 3, 3), betas (S,), with weights rotations_known and betas_known; gender, an index of `GENDERS`;
            points_m (V, 3) in the camera's axes and keypoints (V, 2) from -1 to 1, with points_weight and
            keypoints_weight (V,); root (V,), shares of the points that `points_m` is measured from. A weight is the
            confidence over the number of points in the dataset's set, so that every image weighs alike.

        Raises:
            TrainingError: a hand is of the other side and not mirrored.
        """
        self._check_side(example, cut)
        model, labels = self.mesh_model(), example.labels
        vocabulary, frame = model.vocabulary, frame_of(cut)
        order = vocabulary.mirrored if cut.flipped else np.arange(len(vocabulary))
        turns = order[: len(model.parents)]
        out: dict[str, Any] = {}
        pose, betas = labels.get("pose"), labels.get("betas")
        rotations_R33 = np.broadcast_to(np.eye(3), (len(turns), 3, 3))
        if pose is not None:
            rotations_R33 = matrix_from_axis_angle(torch.from_numpy(np.array(pose, np.float64))).numpy()
            mirror = np.diag([-1.0 if cut.flipped else 1.0, 1.0, 1.0])
            rotations_R33 = mirror @ rotations_R33[turns] @ mirror
            rotations_R33[0] = frame @ mirror @ rotations_R33[0]
        gender = GENDERS.index(labels.get("gender", "neutral"))
        out["rotations"], out["rotations_known"] = rotations_R33, pose is not None
        out["betas"] = np.zeros(NUM_SHAPES) if betas is None else np.asarray(betas)[:NUM_SHAPES]
        # The same values make another shape of a man's or woman's model.
        out["betas_known"] = betas is not None and pose is not None and gender == 0
        root_V = np.zeros(len(vocabulary))
        points_V3, weight_V = np.zeros((len(vocabulary), 3)), np.zeros(len(vocabulary))
        if (joints := labels.get("joints_m")) is not None and about.joint_set is not None:
            points_V3, weight_V = vocabulary.spread(joints, np.full(len(joints), 1 / len(joints)), about.joint_set)
            root_V = vocabulary.root(SETS[about.joint_set])
            if not weight_V[root_V > 0].all() or not root_V.any():
                weight_V[:] = 0  # what is measured from an unknown root is unknown
        out["points_m"], out["points_weight"], out["root"] = (
            (points_V3 @ frame.T)[order],
            weight_V[order],
            root_V[order],
        )
        keypoints_V2, weight_V = np.zeros((len(vocabulary), 2)), np.zeros(len(vocabulary))
        if (keypoints := labels.get("keypoints_px")) is not None and about.keypoint_set is not None:
            keypoints = np.asarray(keypoints, np.float64)
            keypoints_V2, weight_V = vocabulary.spread(
                2 * shares_in_image(keypoints[:, :2], cut) - 1, keypoints[:, 2] / len(keypoints), about.keypoint_set
            )
        out["keypoints"], out["keypoints_weight"] = keypoints_V2[order], weight_V[order]
        return {name: np.asarray(value, np.float32) for name, value in out.items()} | {"gender": np.array(gender)}

    def _check_side(self, example: Example, cut: Cut) -> None:
        side = example.labels.get("side", self.side)
        if self.side is not None and (side != self.side) != cut.flipped:
            raise TrainingError(
                f"a {side} hand is {'' if cut.flipped else 'not '}mirrored",
                where=example.key,
                hint=f"{type(self).__name__} learns {self.side} hands: mirror the others, and no other",
            )

    # ------------------------------------------------------------------------------------------------------------- loss

    def predict(self, outputs: Mesh | FreeMesh) -> Predicted:
        """The mesh, its points and where it stands."""
        camera_B3 = outputs.camera_B3.float()
        model = self.mesh_model().to(camera_B3.device)
        if isinstance(outputs, Mesh):
            posed = model(outputs.rotations_BR33, outputs.shape_BS)
        else:
            verts_BX3 = outputs.vertices[-1].float()
            posed = Posed(verts_BX3, levels_of(model).points_VX.to(verts_BX3.device) @ verts_BX3)
        return Predicted(posed.verts_BX3, posed.points_BV3, camera_from_mesh(camera_B3, self.unit_m))

    def loss(self, outputs: Mesh | FreeMesh, target: Tensors) -> Mapping[str, Tensor]:
        """Weighted terms: of SPIN for the regressor, of METRO for the model-free head."""
        model = self.mesh_model().to(outputs.camera_B3.device)
        if isinstance(outputs, FreeMesh):
            root_V = torch.from_numpy(model.vocabulary.root(self.scored_names)).to(outputs.camera_B3)
            return free_loss(
                outputs,
                target,
                model=model,
                places=self.scored(),
                root=self.root_place(),
                root_V=root_V,
                unit_m=self.unit_m,
            )
        points_BV3 = model.points(outputs.rotations_BR33, outputs.shape_BS)
        known_B, shape_known_B = target["rotations_known"], target["betas_known"]
        apart = (outputs.rotations_BR33.float() - target["rotations"]).square().mean(dim=(1, 2, 3))
        betas = target["betas"]
        betas = betas * (betas.abs() <= LARGEST_SHAPE).all(dim=1, keepdim=True)
        seen_BV2 = projected(points_BV3, outputs.camera_B3.float(), self.unit_m)
        terms = {
            "keypoints": KEYPOINTS * keypoints_loss(seen_BV2, target),
            "joints": JOINTS / self.unit_m**2 * joints_loss(points_BV3, target),
            "rotations": self.parameter_weight * ROTATIONS * mean_of_known(apart, known_B),
            "shape": self.parameter_weight
            * SHAPE
            * mean_of_known((outputs.shape_BS.float() - betas).square().mean(dim=1), shape_known_B),
            "camera": away_from_zero(outputs.camera_B3[:, 0].float()).mean(),
        }
        return {name: WEIGHT * term for name, term in terms.items()}

    # ----------------------------------------------------------------------------------------------------------- scores

    def constant(self, target: Tensors, num: int) -> Mesh | FreeMesh:
        """The mean pose and shape; of a training set without either those that the regressor starts from."""
        model, mean, known_B = self.mesh_model(), self.mean_mesh(), target["rotations_known"] > 0
        rotations_R33, shape_S = mean.rotations_BR33, mean.shape_BS
        if known_B.any():
            rotations_R33 = nearest_rotation(target["rotations"][known_B].mean(dim=0).cpu())
        if (shaped_B := target["betas_known"] > 0).any():
            shape_S = target["betas"][shaped_B].mean(dim=0).cpu()
        camera_B3 = mean.camera_B3.expand(num, -1)
        if self.predictor == "regressor":
            return Mesh(
                rotations_BR33=rotations_R33.expand(num, -1, -1, -1),
                shape_BS=shape_S.expand(num, -1),
                camera_B3=camera_B3,
            )
        levels = levels_of(model)
        verts_BX3 = model.cpu()(rotations_R33[None], shape_S[None]).verts_BX3.expand(num, -1, -1)
        points_BV3 = levels.points_VX @ verts_BX3
        root_B13 = points_BV3[:, self.root_place(), None]
        verts_BX3 = verts_BX3 - root_B13
        return FreeMesh(
            joints=(points_BV3 - root_B13)[:, self.scored()],
            vertices=(*(verts_BX3[:, index] for index in levels.coarse), verts_BX3),
            camera_B3=camera_B3,
        )

    def measure(self, outputs: Mesh | FreeMesh, target: Tensors) -> Arrays:
        """What is known of each image.

        Returns:
            Errors, NaN where an image has no such label; gendered, whether its model is a man's or woman's; num_joints, how many
            are scored.
        """
        predicted = self.predict(outputs)
        points, verts = as_numpy(predicted.points_BV3), as_numpy(predicted.verts_BX3)
        known_B = as_numpy(target["rotations_known"]) > 0
        errors = {name: np.full(len(points), np.nan) for name in self.score_names}
        weight_BV = as_numpy(target["points_weight"])
        num_joints = np.where(known_B, len(self.scored()), (weight_BV[:, self.scored()] > 0).sum(axis=1))
        if known_B.any():
            known = {name: value[torch.from_numpy(known_B).to(value.device)] for name, value in target.items()}
            for name, values in self.mesh_errors(points[known_B], verts[known_B], known).items():
                errors[name][known_B] = values
        for image in np.flatnonzero(~known_B & (num_joints > 0)):
            truth = as_numpy(target["points_m"][image]), as_numpy(target["root"][image])
            for name, value in self._joint_errors(points[image], *truth, weight_BV[image] > 0).items():
                errors[name][image] = value
        return {**errors, "gendered": as_numpy(target["gender"]) > 0, "num_joints": num_joints}

    def true_points(self, truth: Posed) -> npt.NDArray[Any]:
        """(B, V, 3) points of annotated meshes, by the rule that makes those of predicted ones."""
        if self.predictor == "regressor":
            return as_numpy(truth.points_BV3)
        return as_numpy(levels_of(self.mesh_model()).points_VX.to(truth.verts_BX3.device) @ truth.verts_BX3)

    def told_joints(self, measured: Arrays, joints: str) -> str:
        """Which joints are scored, and from where, in words."""
        told = joints if self.predictor == "regressor" else f"{joints}, regressed from either mesh"
        known = measured["num_joints"][measured["num_joints"] > 0]
        if len(known) and known.min() < len(self.scored_names):
            return (
                f"{known.min()} to {known.max()} of {told}, root the {self.root_name}, or both hips where it is unknown"
            )
        return f"{told}, root the {self.root_name}"

    def scored(self) -> list[int]:
        """Places of the joints that are scored."""
        return [int(place) for place in self.mesh_model().vocabulary.places(self.scored_names)]

    def root_place(self) -> int:
        """Place of the joint that is their root."""
        return int(self.mesh_model().vocabulary.places([self.root_name])[0])

    @property
    @abstractmethod
    def scored_names(self) -> tuple[str, ...]:
        """Names of the joints that are scored."""

    @property
    @abstractmethod
    def root_name(self) -> str:
        """Name of the joint that is their root."""

    @abstractmethod
    def mesh_errors(
        self, points_BV3: npt.NDArray[Any], verts_BX3: npt.NDArray[Any], target: Tensors
    ) -> dict[str, Floats]:
        """Errors of images whose mesh is known, by name."""

    def _joint_errors(
        self,
        points_V3: npt.NDArray[Any],
        true_V3: npt.NDArray[Any],
        share_V: npt.NDArray[Any],
        known_V: npt.NDArray[np.bool_],
    ) -> dict[str, float]:
        """Errors of an image of which some joints are known and no mesh; from the root, or from both hips if it is unknown."""
        scored, root = [place for place in self.scored() if known_V[place]], self.root_place()
        if known_V[root]:
            share_V = np.eye(len(share_V))[root]
        joints, true_joints = ((points - share_V @ points)[None, scored] for points in (points_V3, true_V3))
        return {
            "mpjpe": float(mpjpe_mm(joints, true_joints, root=())[0]),
            "pa_mpjpe": float(pa_mpjpe_mm(joints, true_joints, mirror=self.mirror_aligned)[0]),
        }

    # --------------------------------------------------------------------------------------------------------- pictures

    def draw(self, image_HW3: npt.NDArray[np.uint8], outputs: Mesh | FreeMesh, index: int) -> npt.NDArray[np.uint8]:
        """The mesh over its image, and beside it the mesh from the side."""
        predicted = self.predict(outputs)
        verts_X3 = as_numpy(predicted.verts_BX3[index] + predicted.place_B3[index]).astype(np.float64)
        focal_px, faces_F3 = FOCAL_PX * image_HW3.shape[0] / CROP_PX, self.mesh_model().faces_F3
        over = draw_mesh(image_HW3, verts_X3, faces_F3, focal_px=focal_px)
        beside = draw_mesh(np.full_like(image_HW3, 255), from_the_side(verts_X3), faces_F3, focal_px=focal_px)
        return np.concatenate([over, beside], axis=1)

    def write(self, out: Path, cut: Cut, outputs: Mesh | FreeMesh) -> list[Path]:  # noqa: ARG002
        """The first mesh as glb, from the model's own origin."""
        path = out.with_suffix(".glb")
        write_glb(path, as_numpy(self.predict(outputs).verts_BX3[0]).astype(np.float64), self.mesh_model().faces_F3)
        return [path]


def as_numpy(tensor: Tensor) -> npt.NDArray[Any]:
    """On the CPU, as it is."""
    return np.asarray(tensor.detach().cpu().numpy())


def means_of(measured: Arrays, conventions: Mapping[str, str], *, shares: Sequence[str] = ()) -> dict[str, Score]:
    """Mean of each error over the images that have it, NaN elsewhere; what no image has is left out.

    Args:
        measured: errors in millimetres by name.
        conventions: what to say of those that are wanted.
        shares: names of those that are shares, of which more is better.
    """
    told = {}
    for name, convention in conventions.items():
        known = np.isfinite(measured[name])
        if known.any():
            left_out = "" if known.all() else f"; {int((~known).sum())} images without such a label left out"
            told[name] = Score(
                value=float(measured[name][known].mean()),
                unit="share" if name in shares else "mm",
                better="higher" if name in shares else "lower",
                convention=convention + left_out,
            )
    return told


def camera_from_mesh(camera_B3: Tensor, unit_m: float) -> Tensor:
    """(B, 3) metres: where a weak-perspective camera's scale, x and y put a mesh before the camera that is assumed."""
    away_B = 2 * FOCAL_PX / (CROP_PX * camera_B3[:, 0].clamp(min=_SMALLEST))
    return unit_m * torch.stack([camera_B3[:, 1], camera_B3[:, 2], away_B], dim=1)


def projected(points_BV3: Tensor, camera_B3: Tensor, unit_m: float) -> Tensor:
    """(B, V, 2) where points are seen in the crop, from -1 at its left or upper edge to 1 at the other."""
    seen_BV3 = points_BV3 + camera_from_mesh(camera_B3, unit_m)[:, None]
    return FOCAL_PX / (CROP_PX / 2) * seen_BV3[..., :2] / seen_BV3[..., 2:]


def away_from_zero(scale_B: Tensor) -> Tensor:
    """What a camera's small scale costs, exp(-10 s) squared; below 0 its tangent, as the exponential of a first step's -5 is not finite."""
    return torch.where(scale_B > 0, torch.exp(-20 * scale_B.clamp(min=0)), 1 - 20 * scale_B)


def frame_of(cut: Cut) -> Floats:
    """(3, 3) what a cut does to the camera's axes: a turn around the gaze, then perhaps a mirror."""
    cos, sin = np.cos(cut.turn_rad), np.sin(cut.turn_rad)
    turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    return np.diag([-1.0, 1.0, 1.0]) @ turn if cut.flipped else turn


def _read_mean(path: Path, num_rotations: int) -> Mesh:
    hint = "give an npz with pose (6 numbers of each rotation), shape (10) and cam (3), as SPIN's smpl_mean_params.npz"
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            pose, shape, camera = (
                torch.from_numpy(archive[name].astype(np.float32)) for name in ("pose", "shape", "cam")
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(f"the mean parameters cannot be read: {error}", where=path, hint=hint) from error
    if (pose.shape, shape.shape, camera.shape) != ((6 * num_rotations,), (NUM_SHAPES,), (3,)):
        raise TrainingError(
            f"the mean parameters have shapes {tuple(pose.shape)}, {tuple(shape.shape)}, {tuple(camera.shape)}",
            where=path,
            hint=hint,
        )
    return Mesh(rotations_BR33=matrix_from_sixd(pose.reshape(-1, 6)), shape_BS=shape, camera_B3=camera)
