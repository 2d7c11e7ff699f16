"""The iterative regressor: parameters of a body or a hand, corrected step by step from their mean.

Shape letters: `B` images, `D` width of a feature, `R` rotations (24 of a body, 16 of a hand), `S` shape values.
Source: Kanazawa et al., HMR, CVPR 2018, in the form of Kolotouros et al., SPIN, ICCV 2019; written from their description.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.heads.rotations import matrix_from_sixd, nearest_rotation, sixd_from_matrix

HIDDEN = 1024
DROPOUT = 0.5
LAST_GAIN = 0.01  # the first corrections are small


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mesh:
    """Parameters of meshes; the mean one has no batch axis.

    Args:
        rotations_BR33: of each joint relative to its parent, the root's first.
        shape_BS: shape values of the body or hand model.
        camera_B3: scale, x and y of a weak-perspective camera, in units of half the crop.
    """

    rotations_BR33: Tensor
    shape_BS: Tensor
    camera_B3: Tensor


class IterativeRegressor(nn.Module):
    """Two wide layers that see the feature and the parameters so far, and correct the parameters.

    There is no activation between the layers, as there is none in the reference: what is not linear are the dropout in
    training and the rotations.

    Args:
        dim: width of a feature: 768 of the encoder's pooled tokens, 512 of the decoder's.
        mean: where every image starts.
        rotation: what is predicted of a rotation: two columns, made orthonormal one after the other (the paper), or a full
            matrix, replaced by the nearest rotation.
        iterations: number of corrections.

    Raises:
        ValueError: the mean has other shapes than one mesh has, or there are no iterations.
    """

    mean_pose: Tensor
    mean_shape: Tensor
    mean_camera: Tensor

    def __init__(
        self, dim: int, *, mean: Mesh, rotation: Literal["sixd", "procrustes"] = "sixd", iterations: int = 3
    ) -> None:
        super().__init__()
        shapes = mean.rotations_BR33.shape, mean.shape_BS.shape, mean.camera_B3.shape
        if [len(shape) for shape in shapes] != [3, 1, 1] or shapes[0][1:] != (3, 3) or shapes[2] != (3,):
            raise ValueError(f"the mean must be (R, 3, 3), (S,) and (3,), not {[tuple(shape) for shape in shapes]}")
        if iterations < 1:
            raise ValueError(f"iterations must be positive, not {iterations}")
        self.rotation, self.iterations = rotation, iterations
        pose = sixd_from_matrix(mean.rotations_BR33) if rotation == "sixd" else mean.rotations_BR33
        for name, start in (
            ("mean_pose", pose.flatten()),
            ("mean_shape", mean.shape_BS),
            ("mean_camera", mean.camera_B3),
        ):
            self.register_buffer(name, start.clone().float())
        sizes = [len(self.mean_pose), len(self.mean_shape), 3]
        self.fc1 = nn.Linear(dim + sum(sizes), HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, HIDDEN)
        self.drop = nn.Dropout(DROPOUT)
        self.decpose, self.decshape, self.deccam = (nn.Linear(HIDDEN, size) for size in sizes)
        for last in (self.decpose, self.decshape, self.deccam):
            nn.init.xavier_uniform_(last.weight, gain=LAST_GAIN)

    def forward(self, feature_BD: Tensor) -> Mesh:
        """Parameters of each image's mesh."""
        means = self.mean_pose, self.mean_shape, self.mean_camera
        pose, shape, camera = (mean.expand(len(feature_BD), -1) for mean in means)
        for _ in range(self.iterations):
            hidden = self.drop(self.fc1(torch.cat([feature_BD, pose, shape, camera], dim=1)))
            hidden = self.drop(self.fc2(hidden))
            pose, shape = pose + self.decpose(hidden), shape + self.decshape(hidden)
            camera = camera + self.deccam(hidden)
        if self.rotation == "sixd":
            rotations_BR33 = matrix_from_sixd(pose.reshape(len(pose), -1, 6))
        else:
            rotations_BR33 = nearest_rotation(pose.reshape(len(pose), -1, 3, 3))
        return Mesh(rotations_BR33=rotations_BR33, shape_BS=shape, camera_B3=camera)
