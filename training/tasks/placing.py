"""Labels follow their picture into the image a network sees.

Shape letters: `X` points, `H W` picture. Convention: pixel (0, 0) is the centre of the first pixel; `Cut.image_from_picture` is
the whole map, turn and mirroring included.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from training.tasks.base import Cut


def points_in_image(points_X2_px: npt.ArrayLike, cut: Cut) -> npt.NDArray[np.float64]:
    """(X, 2) x and y in the image, px, of points of the picture; they may lie outside."""
    points_X2 = np.asarray(points_X2_px, dtype=np.float64)
    return np.asarray(points_X2 @ cut.image_from_picture[:, :2].T + cut.image_from_picture[:, 2])


def points_in_picture(points_X2_px: npt.ArrayLike, cut: Cut) -> npt.NDArray[np.float64]:
    """(X, 2) x and y in the picture, px, of points of the image."""
    moved_X2 = np.asarray(points_X2_px, dtype=np.float64) - cut.image_from_picture[:, 2]
    return np.asarray(np.linalg.solve(cut.image_from_picture[:, :2], moved_X2.T).T)


def shares_in_image(points_X2_px: npt.ArrayLike, cut: Cut) -> npt.NDArray[np.float64]:
    """(X, 2) the same as shares of the image's side: 0 at its left or upper edge, 1 at the other."""
    return (points_in_image(points_X2_px, cut) + 0.5) / cut.image_px


def map_in_image(labels: npt.NDArray[Any], cut: Cut, *, outside: float) -> npt.NDArray[Any]:
    """Labels (H, W) or (H, W, 2) of the picture at each pixel of the image: those of the nearest pixel, never a mixture.

    Args:
        labels: uint8 or float32, of the picture.
        cut: how the image came from it.
        outside: label of what lies outside the picture.
    """
    size = cut.image_px, cut.image_px
    fill = (float(outside),) * 4
    return np.asarray(cv2.warpAffine(labels, cut.image_from_picture, size, flags=cv2.INTER_NEAREST, borderValue=fill))
