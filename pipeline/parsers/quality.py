"""How well a silhouette fits the true one: by pixels, and by the patches that masking works on."""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


class PatchScores(NamedTuple):
    """Agreement of two masks on patches.

    Attributes:
        accuracy: share of all patches on which both say the same.
        recall: share of the person's patches that were found; 1 where there are none.
        precision: share of the patches called a person's that are; 1 where none was.
    """

    accuracy: float
    recall: float
    precision: float


def pixel_iou(mask: Mask, truth: Mask) -> float:
    """Intersection over union of two masks (H, W); 1 where both are empty.

    Raises:
        ValueError: the shapes differ.
    """
    _check_same_shape(mask, truth)
    union = int((mask | truth).sum())
    return int((mask & truth).sum()) / union if union else 1.0


def patch_scores(mask: Mask, truth: Mask, *, patch_px: int = 16, size: int = 224, share: float = 0.25) -> PatchScores:
    """Compare two masks on the patches of the network's image.

    Args:
        mask: (H, W), over a square.
        truth: (H, W), over the same square.
        patch_px: side of a patch.
        size: side of the image that the network sees, px.
        share: of a patch's area that makes it a person's.

    Raises:
        ValueError: the shapes differ, or patches do not tile the image.
    """
    _check_same_shape(mask, truth)
    found = patches_of(mask, patch_px=patch_px, size=size, share=share)
    true = patches_of(truth, patch_px=patch_px, size=size, share=share)
    both = int((found & true).sum())
    return PatchScores(
        accuracy=float((found == true).mean()),
        recall=both / int(true.sum()) if true.any() else 1.0,
        precision=both / int(found.sum()) if found.any() else 1.0,
    )


def patches_of(mask: Mask, *, patch_px: int = 16, size: int = 224, share: float = 0.25) -> Mask:
    """Which patches (size / patch_px, size / patch_px) are a person's; arguments as of `patch_scores`."""
    if size % patch_px:
        raise ValueError(f"patches of {patch_px} px do not tile an image of {size} px")
    grid, area = size // patch_px, mask.astype(np.float32)
    if mask.shape != (size, size):
        area = np.asarray(cv2.resize(area, (size, size), interpolation=cv2.INTER_AREA), np.float32)
    patches: Mask = area.reshape(grid, patch_px, grid, patch_px).mean(axis=(1, 3)) >= share
    return patches


def centre_ellipse(size_px: int) -> Mask:
    """The floor for every parser: one ellipse (S, S) for every crop, half as wide as it is high, 80 % of the side high."""
    x, y = np.meshgrid(*[(np.arange(size_px) + 0.5) / size_px - 0.5] * 2)
    ellipse: Mask = (x / 0.2) ** 2 + (y / 0.4) ** 2 <= 1
    return ellipse


def _check_same_shape(mask: Mask, truth: Mask) -> None:
    if mask.shape != truth.shape or mask.ndim != 2:
        raise ValueError(f"two masks (H, W) of one shape are compared, not {mask.shape} and {truth.shape}")
