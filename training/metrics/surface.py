"""Scores of points on the surface of a body, as DensePose has them.

Shape letters: `Q` annotated pixels, pooled over all images; `X` vertices of the surface.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BACKGROUND = 0


class Distances(Protocol):
    """Distances of a table too large to hold, computed or read when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the table."""

    def __getitem__(self, pairs: tuple[Ints, Ints], /) -> npt.NDArray[np.floating]:
        """Distance of each pair of rows and columns; -1 may stand for any."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surface:
    """A mesh whose vertices have a part, a place on it, and distances along the surface.

    Args:
        part_X: part of each vertex, from 1; a vertex on a seam is listed once for each of its parts.
        uv_X2: place of each vertex on its part, in [0, 1].
        distance_XX_m: geodesic distances: an array, or what answers like one.

    Raises:
        ValueError: the arrays are not of the same vertices, or a vertex is of the background.
    """

    part_X: Ints
    uv_X2: Floats
    distance_XX_m: npt.NDArray[np.floating] | Distances

    def __post_init__(self) -> None:
        X = len(self.part_X)
        if self.part_X.shape != (X,) or self.uv_X2.shape != (X, 2) or self.distance_XX_m.shape != (X, X):
            shapes = self.part_X.shape, self.uv_X2.shape, self.distance_XX_m.shape
            raise ValueError(f"parts, uv and distances must be (X,), (X, 2) and (X, X), not {shapes}")
        if (self.part_X <= BACKGROUND).any():
            raise ValueError("a vertex must have a part from 1 on")

    def nearest(self, part_Q: npt.ArrayLike, uv_Q2: npt.ArrayLike) -> Ints:
        """Vertex of the same part whose (u, v) is nearest, the first of equals; -1 for the background.

        Raises:
            ValueError: a part has no vertices, or a (u, v) on a part is not finite.
        """
        part, uv = np.asarray(part_Q), np.asarray(uv_Q2, dtype=np.float64)
        found = np.full(len(part), -1)
        for one in np.unique(part[part != BACKGROUND]).tolist():
            at_Q, at_X = np.flatnonzero(part == one), np.flatnonzero(self.part_X == one)
            if not len(at_X):
                raise ValueError(f"part {one} has no vertices on this surface")
            if not np.isfinite(uv[at_Q]).all():
                raise ValueError(f"a (u, v) on part {one} is not finite")
            # A part has a thousand vertices: in pieces, millions of pixels need little memory.
            for some in np.array_split(at_Q, len(at_Q) // 4096 + 1):
                squared = ((uv[some, None] - self.uv_X2[at_X]) ** 2).sum(axis=-1)
                found[some] = at_X[squared.argmin(axis=1)]
        return found


def geodesic_errors_m(
    predicted_part_Q: npt.ArrayLike,
    predicted_uv_Q2: npt.ArrayLike,
    true_part_Q: npt.ArrayLike,
    true_uv_Q2: npt.ArrayLike,
    *,
    surface: Surface,
) -> Floats:
    """Distance along the surface between what was predicted and what was annotated.

    Args:
        predicted_part_Q: the likeliest of all parts and the background, at the annotated pixels.
        predicted_uv_Q2: (u, v) predicted for that part.
        true_part_Q: annotated parts, none of them the background.
        true_uv_Q2: annotated (u, v).
        surface: what both are places on.

    Returns:
        (Q,) metres; infinite where the background was predicted.

    Raises:
        ValueError: an annotated pixel is of the background, or a part is unknown to the surface.
    """
    predicted, true = surface.nearest(predicted_part_Q, predicted_uv_Q2), surface.nearest(true_part_Q, true_uv_Q2)
    if (true < 0).any():
        raise ValueError("an annotated pixel is of the background")
    distance_m = np.asarray(surface.distance_XX_m[predicted, true], dtype=np.float64)
    return np.where(predicted < 0, np.inf, distance_m)


def geodesic_auc(errors_m: npt.ArrayLike, *, limit_m: float) -> float:
    """Area under the share of points within t, for t from 0 to the limit, divided by the limit: in [0, 1].

    It is exactly the mean of 1 - d / limit, cut at 0. The paper's two columns are read as limits of 0.30 and 0.10 m.

    Args:
        errors_m: distances of all points, those of all images pooled; infinite ones count as misses.
        limit_m: largest distance that still scores, positive.

    Raises:
        ValueError: there are no distances, or one is NaN or negative.
    """
    errors = np.asarray(errors_m, dtype=np.float64)
    if not errors.size or not (errors >= 0).all():
        raise ValueError("geodesic errors must be distances: there are none, or one is NaN or negative")
    return float(np.clip(1 - errors / limit_m, 0, 1).mean())
