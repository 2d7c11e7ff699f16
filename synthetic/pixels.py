"""From samples, as they were drawn, to pixels: pictures are averages of samples, labels come from one of them.

Shape letters: S side of the drawing, H W image.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats32 = npt.NDArray[np.float32]

# Where the sample that speaks for a pixel lies: right and down of the pixel's centre, pixels.
SAMPLES = np.array([(-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25), (0.0, 0.0)], dtype=np.float32)
_CENTRE = 4


# From where to where OpenGL draws, metres along the gaze.
NEAR_M, FAR_M = 0.05, 60.0


@dataclass(frozen=True, slots=True)
class Drawing:
    """What one pass drew, the upper row first.

    Attributes:
        rgba: (S, S, 4) uint8; the alpha is 255 on the person, 0 elsewhere.
        number: (S, S) float32, 1 + index of the triangle; tells on the person only.
        depth: (S, S) float32 as OpenGL keeps it, 1 where nothing was drawn.
    """

    rgba: Bytes
    number: Floats32
    depth: Floats32


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """An image.

    Attributes:
        rgb: (H, W, 3) uint8.
        alpha: (H, W) uint8, share of each pixel that the person covers, 255 all.
        depth_m: (H, W) float32 along the gaze, of the sample; 0 where nothing is. Not told on the silhouette, where the
            triangles tell it better.
        rows: (P,) of the pixels of the silhouette.
        columns: (P,).
        triangles: (P,) the person's triangle that each sees.
        samples: (P,) by which sample, index into `SAMPLES`.
    """

    rgb: Bytes
    alpha: Bytes
    depth_m: Floats32
    rows: Ints
    columns: Ints
    triangles: Ints
    samples: Ints


def pixels_of(drawing: Drawing, side: int) -> Pixels:
    """Turn a drawing of one or two times the side into an image.

    Twice as large, a pixel with two samples or more of the person is the person's, and the first of them speaks for it; for another
    pixel the first that is not the person's does.
    """
    rgba, depth, zoom = drawing.rgba, drawing.depth, len(drawing.rgba) // side
    if zoom == 2:
        rgba = np.asarray(cv2.resize(rgba, (side, side), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    alpha = rgba[..., 3].copy()  # 0, 64, 128, 191 or 255
    own = np.flatnonzero(alpha > 127)
    at, samples = own, np.full(len(own), _CENTRE)
    if zoom == 2:
        hit, depth = drawing.rgba.reshape(-1, 4)[:, 3], depth[::2, ::2].copy()
        at = _first_samples(own, side)
        samples = np.where(hit[at], 0, np.where(hit[at + 1], 1, 2))
        at = at + np.array([0, 1, 2 * side])[samples]
        mixed = np.flatnonzero(alpha == 64)
        mixed = mixed[hit[_first_samples(mixed, side)] > 0]
        depth.ravel()[mixed] = drawing.depth.ravel()[_first_samples(mixed, side) + 1]
    return Pixels(
        rgb=np.asarray(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), dtype=np.uint8),
        alpha=alpha,
        depth_m=_metres(depth),
        rows=own // side,
        columns=own % side,
        triangles=drawing.number.ravel()[at].astype(np.int64) - 1,
        samples=samples,
    )


def _metres(depth: Floats32) -> Floats32:
    """Along the gaze, from what OpenGL keeps; 0 where nothing was drawn."""
    span = FAR_M - NEAR_M
    metres = np.float32(FAR_M * NEAR_M / span) / (np.float32(NEAR_M / span) + (np.float32(1.0) - depth))
    return np.asarray(np.where(depth < 1.0, metres, np.float32(0.0)))


def _first_samples(pixels: Ints, side: int) -> Ints:
    """Where the first samples of pixels lie in a drawing of twice the side, both counted row after row."""
    return np.asarray(2 * (pixels + pixels // side * side))
