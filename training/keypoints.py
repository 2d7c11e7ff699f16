"""Heatmaps of 13 joints: the supervision that pre-training is compared with, and joined to.

Shape letters: `B` pairs, `J` joints, `G` cells of a heatmap along a side.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

JOINTS = tuple(
    ["head"]
    + [f"{side}_{j}" for j in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")]
)
"""As PennAction has them."""

MIRRORED = (0, *(place + 1 if place % 2 else place - 1 for place in range(1, len(JOINTS))))
PATCH_CELLS = 4  # cells of a heatmap along a side of a patch: 56 x 56 at 224 px
SIGMA_CELLS = 2.0

# Where the joints stand in each set; the nose stands for the head where there is none, and the top of the head in MPII.
_LIMBS = tuple(range(5, 17))
PLACES = {
    "penn13": tuple(range(13)),
    "coco17": (0, *_LIMBS),
    "posetrack17": (0, *_LIMBS),
    "coco18": (0, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10),
    "mpii16": (9, 13, 12, 14, 11, 15, 10, 3, 2, 4, 1, 5, 0),
    "spin49": (44, 34, 33, 35, 32, 36, 31, 28, 27, 29, 26, 30, 25),
    "smpl24": (15, 16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8),
}


class KeypointHead(nn.Linear):
    """The simple head: each token of the encoder tells the cells of its patch.

    Args:
        dim: width of a token.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, len(JOINTS) * PATCH_CELLS**2)
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """(B, J, G, G) logits."""
        cells = super().forward(tokens_BND)
        side = round(cells.shape[1] ** 0.5)
        grid = cells.reshape(len(cells), side, side, PATCH_CELLS, PATCH_CELLS, len(JOINTS)).permute(0, 5, 1, 3, 2, 4)
        return grid.reshape(len(cells), len(JOINTS), side * PATCH_CELLS, side * PATCH_CELLS)


def joints_of(role: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """The 13 joints of an image, from what its sample says of it.

    Returns:
        (J, 3): x and y in the stored image, px; confidence, 0 where a joint is not known.
    """
    places = PLACES.get(role.get("keypoints_set", ""))
    if places is None:
        return np.zeros((len(JOINTS), 3))
    points = np.nan_to_num(np.asarray(role["keypoints_px"], np.float64).reshape(-1, 3)[list(places)])
    points[:, 2] = points[:, 2].clip(0, 1)
    return points


def heatmaps(
    joints: Sequence[npt.NDArray[np.float64]],
    offset_xy_B2: npt.NDArray[np.int64],
    flip_B: npt.NDArray[np.bool_],
    *,
    crop_px: int,
    cells: int,
) -> tuple[Tensor, Tensor]:
    """Draw each joint as a Gaussian of peak 1 around the cell it lies in, cut at 3 sigma.

    Convention: pixel (0, 0) is the centre of the first pixel, so a crop spans [-0.5, crop_px - 0.5].

    Args:
        joints: of each image, (J, 3) as `joints_of` has them.
        offset_xy_B2: top left pixel of each crop.
        flip_B: which crops are mirrored; left and right change names with them.
        crop_px: side of a crop.
        cells: side of a heatmap, `G`.

    Returns:
        (B, J, G, G) float32, and weights (B, J): the confidence, 0 for joints too far outside to be seen in the map.
    """
    points_BJ3 = np.stack(joints)
    place_BJ2 = (points_BJ3[..., :2] + 0.5 - offset_xy_B2[:, None]) * (cells / crop_px)
    place_BJ2[flip_B, :, 0] = cells - place_BJ2[flip_B, :, 0]
    points_BJ3 = np.concatenate([place_BJ2, points_BJ3[..., 2:]], axis=-1)
    points_BJ3[flip_B] = points_BJ3[flip_B][:, MIRRORED]
    return gaussians(points_BJ3[..., :2], points_BJ3[..., 2], cells=cells)


def gaussians(
    place_BJ2: npt.NDArray[np.floating], confidence_BJ: npt.NDArray[np.floating], *, cells: int
) -> tuple[Tensor, Tensor]:
    """As `heatmaps`, of places in cells: the first cell spans [0, 1]."""
    apart_BJ2G = np.arange(cells) - np.floor(place_BJ2)[..., None]
    wave_BJ2G = np.exp(-(apart_BJ2G**2) / (2 * SIGMA_CELLS**2)) * (np.abs(apart_BJ2G) <= 3 * SIGMA_CELLS)
    maps_BJGG = wave_BJ2G[:, :, 1, :, None] * wave_BJ2G[:, :, 0, None, :]
    weight_BJ = confidence_BJ * maps_BJGG.any(axis=(2, 3))
    return torch.from_numpy(maps_BJGG.astype(np.float32)), torch.from_numpy(weight_BJ.astype(np.float32))


def keypoint_losses(logits_BJGG: Tensor, maps_BJGG: Tensor, weight_BJ: Tensor) -> Tensor:
    """Binary cross entropy of each image, (B,): mean over cells, then over joints by their weight; 0 without any."""
    each_BJ = functional.binary_cross_entropy_with_logits(logits_BJGG.float(), maps_BJGG, reduction="none").mean((2, 3))
    return (each_BJ * weight_BJ).sum(1) / weight_BJ.sum(1).clamp(min=1e-6)
