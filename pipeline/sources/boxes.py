"""Boxes of subjects in pictures, (..., 4) x0, y0, x1, y1 in px; NaN: there is none.

Convention: pixel (0, 0) is the centre of the first pixel, so a picture of width w spans [-0.5, w - 0.5].
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.sources.base import Floats


def whole(size: tuple[int, int]) -> Floats:
    """(4,) box of a whole picture of a width and height."""
    return np.array([-0.5, -0.5, size[0] - 0.5, size[1] - 0.5])


def clipped(boxes: Any, size: Any) -> Floats:
    """Boxes clipped to their pictures; NaN where less than a pixel is left of one.

    Args:
        boxes: (..., 4).
        size: (2,) width and height of all pictures, or (..., 2) of each.
    """
    inside: Floats = np.clip(boxes, -0.5, np.tile(size, 2) - 0.5)
    inside[~(inside[..., 2:] - inside[..., :2] >= 1).all(axis=-1)] = np.nan
    return inside


def around(points: Floats, is_seen: npt.NDArray[np.bool_], margin: float = 0.0) -> Floats:
    """Boxes around the points that are seen; NaN where none is.

    Args:
        points: (..., J, 2) px.
        is_seen: (..., J).
        margin: added on every side, as a share of the longer one.
    """
    low = np.where(is_seen[..., None], points, np.inf).min(axis=-2)
    high = np.where(is_seen[..., None], points, -np.inf).max(axis=-2)
    boxes = np.concatenate([low, high], axis=-1)
    boxes[~is_seen.any(axis=-1)] = np.nan
    grown = margin * (boxes[..., 2:] - boxes[..., :2]).max(axis=-1, keepdims=True)
    return np.asarray(boxes + grown * [-1, -1, 1, 1])
