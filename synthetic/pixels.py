"""From samples, as they were drawn, to pixels: pictures are averages of samples, labels come from one of them.

Shape letters: S side of the drawing, H W image.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats32 = npt.NDArray[np.float32]

# Where the sample that speaks for a pixel lies: right and down of the pixel's centre, pixels.
SAMPLES = np.array([(-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25), (0.0, 0.0)])
_CENTRE = 4


@dataclass(frozen=True, slots=True)
class Drawing:
    """What one pass drew, the lowest row first as OpenGL has it.

    Attributes:
        rgba: (S, S, 4) uint8; the alpha is that of the person's texture, which names garments, and 0 off the person.
        labels: (S, S, 2) float32: 1 + index of the person's triangle (exact below 2**24) or 0 off the person; metres along the
            gaze or 0 where nothing was drawn.
    """

    rgba: Bytes
    labels: Floats32


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """An image, the upper row first.

    Attributes:
        rgb: (H, W, 3) uint8.
        alpha: (H, W) uint8, share of each pixel that the person covers, 255 all.
        triangle: (H, W) int32, the person's triangle that a pixel of the silhouette sees, -1 outside.
        sample: (H, W) uint8, index into `SAMPLES`.
        garments: (H, W) uint8, alpha of the person's texture, 0 outside the silhouette.
        depth_m: (H, W) float32 along the gaze, of the sample; 0 where nothing is.
    """

    rgb: Bytes
    alpha: Bytes
    triangle: npt.NDArray[np.int32]
    sample: Bytes
    garments: Bytes
    depth_m: Floats32


def pixels_of(drawing: Drawing, side: int) -> Pixels:
    """Turn a drawing of one or two times the side into an image.

    Twice as large, a pixel with two samples or more of the person is the person's, and the first of them speaks for it; for another
    pixel the first that is not the person's does.
    """
    if len(drawing.rgba) == side:
        return _as_drawn(drawing)
    small = cv2.resize(drawing.rgba, (side, side), interpolation=cv2.INTER_AREA)
    rgb = np.ascontiguousarray(small[::-1, :, :3], dtype=np.uint8)
    # Drawn upside down, so the upper samples of a pixel stand in odd rows. Without the person the first sample speaks.
    depth_m = drawing.labels[::-2, ::2, 1].copy()
    alpha, sample, garments = (np.zeros((side, side), dtype=np.uint8) for _ in range(3))
    triangle = np.full((side, side), -1, dtype=np.int32)
    hit = drawing.labels[::-1, :, 0] > 0
    rows, columns = (np.flatnonzero(hit.any(axis=axis)) for axis in (1, 0))
    if len(rows):
        box = slice(rows[0] // 2, rows[-1] // 2 + 1), slice(columns[0] // 2, columns[-1] // 2 + 1)
        hits = [hit[y::2, x::2][box] for y in (0, 1) for x in (0, 1)]
        count = hits[0].astype(np.uint8) + hits[1] + hits[2] + hits[3]
        person = count >= 2
        alike = [one == person for one in hits]
        sample[box] = np.where(alike[0], 0, np.where(alike[1], 1, np.where(alike[2], 2, 3)))
        at = _first_samples(side)[box] + np.array([0, 1, -2 * side, 1 - 2 * side])[sample[box]]
        number, depth_m[box] = drawing.labels.reshape(-1, 2)[at].transpose(2, 0, 1)
        triangle[box] = np.where(person, number, 0.0).astype(np.int32) - 1
        garments[box] = np.where(person, drawing.rgba.reshape(-1, 4)[:, 3][at], 0)
        alpha[box] = np.array([0, 64, 128, 191, 255], dtype=np.uint8)[count]
    return Pixels(rgb=rgb, alpha=alpha, triangle=triangle, sample=sample, garments=garments, depth_m=depth_m)


def _as_drawn(drawing: Drawing) -> Pixels:
    rgba, labels = drawing.rgba[::-1], drawing.labels[::-1]
    triangle = labels[..., 0].astype(np.int32) - 1
    return Pixels(
        rgb=np.ascontiguousarray(rgba[..., :3]),
        alpha=np.where(triangle >= 0, 255, 0).astype(np.uint8),
        triangle=triangle,
        sample=np.full(triangle.shape, _CENTRE, dtype=np.uint8),
        garments=np.where(triangle >= 0, rgba[..., 3], 0).astype(np.uint8),
        depth_m=labels[..., 1].copy(),
    )


@lru_cache(maxsize=4)
def _first_samples(side: int) -> npt.NDArray[np.int64]:
    """Where the first sample of each pixel lies in a drawing of twice the side, row after row, the lowest row first."""
    row, column = np.mgrid[:side, :side]
    return np.asarray((2 * side - 1 - 2 * row) * 2 * side + 2 * column)
