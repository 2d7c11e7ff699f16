"""Squares of whole pixels: cutting them out of an image, and moving masks from one to another.

Convention: a square is (x0, y0, side) in pixels, the first column and row inside it and their number; in the continuous
coordinates of `manifests.geometry` it spans x0 - 0.5 to x0 + side - 0.5. Whole pixels make the crop's camera exact.
"""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


class Square(NamedTuple):
    """A square of whole pixels in an image; it may leave the image."""

    x0: int
    y0: int
    side: int

    def xyxy_px(self) -> Floats:
        """Its box (4,) in continuous coordinates."""
        return np.array([self.x0, self.y0, self.x0 + self.side, self.y0 + self.side], float) - 0.5


def square_of(box_xyxy_px: Floats, *, margin: float, shift: tuple[float, float] = (0.0, 0.0)) -> Square:
    """The square around a box whose side is the box's longer side times `margin`, shifted by shares of its side."""
    x0, y0, x1, y1 = box_xyxy_px
    side = max(1, round(max(x1 - x0, y1 - y0) * margin))
    corner = ((x0 + x1) / 2 + shift[0] * side, (y0 + y1) / 2 + shift[1] * side)
    return Square(round(corner[0] + 0.5 - side / 2), round(corner[1] + 0.5 - side / 2), side)


def square_within(box_xyxy_px: Floats, *, margin: float, width: int, height: int) -> Square:
    """The square to store for a person: `square_of`, made to invent as few pixels as it can.

    It gives up margin to fit the image's shorter side, then slides inwards; only a person longer than that side is
    padded.
    """
    longer = max(box_xyxy_px[2] - box_xyxy_px[0], box_xyxy_px[3] - box_xyxy_px[1])
    side = max(1, min(round(longer * margin), max(int(np.ceil(longer)), min(width, height))))
    centre = ((box_xyxy_px[0] + box_xyxy_px[2]) / 2, (box_xyxy_px[1] + box_xyxy_px[3]) / 2)
    corner = []
    for middle, length in zip(centre, (width, height), strict=True):
        start = round(middle + 0.5 - side / 2)
        corner.append(min(max(start, 0), length - side) if side <= length else (length - side) // 2)
    return Square(corner[0], corner[1], side)


def cut(image: Image, square: Square, size_px: int) -> Image:
    """Cut a square out and resize it: by area when it shrinks, cubically when it grows; edges are repeated outside.

    Args:
        image: (H, W, 3) or (H, W).
        square: what to cut.
        size_px: side of the result.
    """
    height, width = image.shape[:2]
    x0, y0, side = square
    # At least one row and column of the image, so that there is an edge to repeat.
    left, top = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    right, bottom = max(min(x0 + side, width), left + 1), max(min(y0 + side, height), top + 1)
    part = image[top:bottom, left:right]
    if part.shape[:2] != (side, side):
        pad = (max(top - y0, 0), max(y0 + side - bottom, 0), max(left - x0, 0), max(x0 + side - right, 0))
        part = np.asarray(cv2.copyMakeBorder(part, *pad, cv2.BORDER_REPLICATE), np.uint8)[:side, :side]
    if side == size_px:
        return np.ascontiguousarray(part)
    way = cv2.INTER_AREA if side > size_px else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(part, (size_px, size_px), interpolation=way), np.uint8)


def carry(grid: npt.NDArray[np.float32], source: Square, target: Square, size_px: int) -> npt.NDArray[np.float32]:
    """Resample a map over one square onto another, linearly; zero outside the first.

    Args:
        grid: (S, S) over `source`.
        source: the square that `grid` covers.
        target: the square to cover.
        size_px: side of the result.
    """
    old, new = source.side / len(grid), target.side / size_px  # frame pixels per cell
    # Centre of target cell i lies at target.x0 - .5 + (i + .5) * new in the frame.
    scale = new / old
    offsets = [((t - s) + 0.5 * new) / old - 0.5 for t, s in ((target.x0, source.x0), (target.y0, source.y0))]
    to_source = np.array([[scale, 0, offsets[0]], [0, scale, offsets[1]]])
    return np.asarray(
        cv2.warpAffine(grid, to_source, (size_px, size_px), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), np.float32
    )


def inside(square: Square, size_px: int, *, width: int, height: int) -> npt.NDArray[np.bool_]:
    """(size_px, size_px): which cells of a square have their centre in an image of this size."""
    step = square.side / size_px
    at = (np.arange(size_px) + 0.5) * step - 0.5
    x, y = square.x0 + at, square.y0 + at
    in_x, in_y = (x > -0.5) & (x < width - 0.5), (y > -0.5) & (y < height - 0.5)
    return in_y[:, None] & in_x[None, :]
