"""Which patches of the target the network sees: human-centric masking, and the uniform masking it replaces.

Shape letters: `B` pairs, `G` silhouette cells along a side, `T` patches along a side, `N` patches of an image, `V` visible,
`M` masked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from training.batch import CELL_PX

PadTo = Literal["batch_max"] | int

Longest = Callable[[int], int]
"""Of the lengths that several processes need, the largest; alone, `int`: the one there is."""

_ROUNDING_GUARD = 1e-9  # 0.29 * 100 is 28.999999999999996 in floating point


@dataclass(frozen=True)
class Masks:
    """Patches of each target: every patch is in exactly one of the two, both in raster order.

    Args:
        visible_BV: int64, patches that the encoder sees.
        masked_BM: int64, patches to complete.
    """

    visible_BV: npt.NDArray[np.int64]
    masked_BM: npt.NDArray[np.int64]


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """Patches left of `num_patches` after masking: n - floor(r n), so 49 of 196 at 0.75 and 20 at 0.9."""
    return num_patches - int(np.floor(mask_ratio * num_patches + _ROUNDING_GUARD))


def patch_coverage(
    cells_BGG: npt.NDArray[np.bool_], offset_xy_B2: npt.NDArray[np.int64], *, crop_px: int, side: int
) -> npt.NDArray[np.float32]:
    """Share of each patch of a crop that silhouette cells cover, exact for any offset of the crop.

    Args:
        cells_BGG: silhouette of the stored image, rows first.
        offset_xy_B2: top left pixel of each crop in the stored image, x then y.
        crop_px: side of the crop.
        side: patches along a side of the crop, `T`.

    Returns:
        (B, N) in [0, 1], in raster order.
    """
    patch_px = crop_px // side
    cell_start_G = CELL_PX * np.arange(cells_BGG.shape[-1])
    overlaps = []
    for axis in (0, 1):
        start_BT1 = (offset_xy_B2[:, axis, None] + patch_px * np.arange(side))[..., None]
        end_BTG = np.minimum(start_BT1 + patch_px, cell_start_G + CELL_PX)
        overlaps.append(np.maximum(end_BTG - np.maximum(start_BT1, cell_start_G), 0).astype(np.float32))
    x_BTG, y_BTG = overlaps
    covered_BTT = y_BTG @ cells_BGG.astype(np.float32) @ x_BTG.transpose(0, 2, 1)
    coverage_BN: npt.NDArray[np.float32] = (covered_BTT / patch_px**2).reshape(len(cells_BGG), side**2)
    return coverage_BN


def uniform_masks(noise_BN: npt.NDArray[np.float64], *, mask_ratio: float) -> Masks:
    """Hide patches without regard to what they show.

    Args:
        noise_BN: uniform numbers; the patches with the smallest stay visible.
        mask_ratio: share of patches to hide.
    """
    everywhere_BN = np.ones(noise_BN.shape, dtype=np.bool_)
    return human_masks(everywhere_BN, noise_BN, mask_ratio=mask_ratio)


def human_masks(
    human_BN: npt.NDArray[np.bool_],
    noise_BN: npt.NDArray[np.float64],
    *,
    mask_ratio: float,
    pad_to: PadTo = "batch_max",
    longest: Longest = int,
) -> Masks:
    """Hide the same share of every person, whatever its size, and fill up with background to an equal length.

    Of n human patches n - floor(r n) stay visible, drawn uniformly; the largest such number in the batch is the length of
    all, and the missing ones are drawn uniformly from the background. An image without human patches has no known
    silhouette and counts as human everywhere; a batch that holds one therefore has full length.

    Args:
        human_BN: patches that show the person.
        noise_BN: uniform numbers; in each of the two classes the patches with the smallest stay visible.
        mask_ratio: share of human patches to hide.
        pad_to: length `V`: the largest of the batch (the paper), or a fixed number, which must be
            `num_visible(N, mask_ratio)` to be feasible for every image.
        longest: turns the largest length of this batch into that of all parts of a batch, where other processes hold some.

    Raises:
        ValueError: the fixed length is too short for a person, or longer than the background allows.

    Source: arXiv 2311.09104, human-centric masking. With floor((1 - r) n) instead, r = 0.9 would show 19 patches, not 20.
    """
    human_BN = human_BN | ~human_BN.any(axis=1, keepdims=True)
    human_B = human_BN.sum(axis=1)
    keep_B = human_B - np.floor(mask_ratio * human_B + _ROUNDING_GUARD).astype(np.int64)
    length = longest(int(keep_B.max())) if pad_to == "batch_max" else int(pad_to)
    fill_B = length - keep_B
    if (fill_B < 0).any() or (fill_B > (~human_BN).sum(axis=1)).any():
        feasible = num_visible(human_BN.shape[1], mask_ratio)
        raise ValueError(f"{length} visible patches are not feasible for every image of this batch; {feasible} are")
    visible_BN = (_rank(noise_BN, human_BN) < keep_B[:, None]) | (_rank(noise_BN, ~human_BN) < fill_B[:, None])
    return Masks(
        visible_BV=np.nonzero(visible_BN)[1].reshape(len(visible_BN), -1).astype(np.int64),
        masked_BM=np.nonzero(~visible_BN)[1].reshape(len(visible_BN), -1).astype(np.int64),
    )


def _rank(noise_BN: npt.NDArray[np.float64], member_BN: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Rank of each member among the members of its row, smallest noise first; N for the others."""
    order_BN = np.argsort(np.where(member_BN, noise_BN, 2.0), axis=1, kind="stable")
    rank_BN = np.empty_like(order_BN)
    np.put_along_axis(rank_BN, order_BN, np.broadcast_to(np.arange(noise_BN.shape[1]), noise_BN.shape), axis=1)
    return np.where(member_BN, rank_BN, noise_BN.shape[1])
