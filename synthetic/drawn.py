"""What OpenGL is given to draw: corners with their light, and triangles that look one way only.

OpenGL tells a shader the number of a triangle only at a price, so a triangle's first corner, which is its alone, carries it.

Shape letters: X vertices, K corners (a vertex with its texture coordinate), T triangles, D triangles drawn, C corners drawn.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthetic.figure import Dressed
from synthetic.pixels import NEAR_M

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_LEAST_LIGHT = 0.08
_ROUNDED = 1 / 64  # OpenGL moves corners by less, in samples


@dataclass(frozen=True, slots=True)
class Drawn:
    """Triangles to draw, each with a first corner of its own.

    Attributes:
        corner_C: (C,) which corner each is.
        back_C: (C,) whether it is of a surface seen from behind.
        number_C: (C,) float32, 1 + index of the triangle that begins there; 0 on what is not the person.
        triangles_D3: (D, 3) indices into the corners drawn.
    """

    corner_C: Ints
    back_C: npt.NDArray[np.bool_]
    number_C: Floats32
    triangles_D3: Ints

    @classmethod
    def of(cls, dressed: Dressed) -> tuple["Drawn", "Drawn"]:
        """The person, and what is drawn with it and is not the person's own. Of open surfaces both sides are drawn."""
        triangles, closed, own = dressed.triangles_T3, dressed.num_closed, dressed.num_own
        numbers = np.arange(1, len(triangles) + 1)
        person = cls._of(triangles[:own], triangles[closed:own], np.concatenate([numbers[:own], numbers[closed:own]]))
        worn = triangles[own:]
        return person, cls._of(worn, worn, np.zeros(2 * len(worn)))

    def corners(self, verts_X3: Floats, light_2X3: Floats32, vert_K: Ints, uvs_K2: Floats32) -> Floats32:
        """What OpenGL is told of each corner, (C, 9): place, light, number, texture coordinate.

        Args:
            verts_X3: (X, 3) in the world, metres.
            light_2X3: what `root_light` gave.
            vert_K: (K,) the vertex of each corner of the figure.
            uvs_K2: (K, 2) their texture coordinates.
        """
        places_X3 = verts_X3.astype(np.float32)
        sides_X6 = np.concatenate([np.tile(places_X3, (2, 1)), light_2X3.reshape(-1, 3)], axis=1)
        told_C9 = np.empty((len(self.corner_C), 9), dtype=np.float32)
        told_C9[:, :6] = sides_X6.take(vert_K.take(self.corner_C) + len(places_X3) * self.back_C, axis=0)
        told_C9[:, 6] = self.number_C
        told_C9[:, 7:] = uvs_K2.take(self.corner_C, axis=0)
        return told_C9

    @classmethod
    def _of(cls, fronts_F3: Ints, backs_B3: Ints, numbers_D: npt.NDArray[np.number]) -> "Drawn":
        turned = backs_B3[:, ::-1]
        sides = np.concatenate([2 * fronts_F3, 2 * turned + 1])  # a corner and the side that is seen, in one number
        rest = np.setdiff1d(sides[:, 1:], sides[:, 0])
        have_C = np.concatenate([sides[:, 0], rest])
        order = np.argsort(have_C, kind="stable")
        # Among a corner's copies the one nearest before the triangle that asks, so that OpenGL still remembers it.
        place = have_C[order] * len(have_C) + order
        at = np.searchsorted(place, sides[:, 1:] * len(have_C) + np.arange(len(sides))[:, None], side="right") - 1
        at = np.maximum(at, 0)
        at += have_C[order[at]] != sides[:, 1:]  # or, where none lies before it, the first
        return cls(
            corner_C=have_C // 2,
            back_C=have_C % 2 == 1,
            number_C=np.concatenate([numbers_D, np.zeros(len(rest))]).astype(np.float32),
            triangles_D3=np.concatenate([np.arange(len(sides))[:, None], order[at]], axis=1),
        )


def may_show(places_3C: Floats32, triangles_3D: Ints, clip: Floats32, side: int) -> Ints:
    """Tell which triangles a drawing may show: those that look at the camera, lie in the image, and can hold a sample.

    Args:
        places_3C: (3, C) corners in the world.
        triangles_3D: (3, D) their corners; the first D corners are the first ones, see `Drawn`.
        clip: (4, 4) clip space from the world.
        side: of the drawing, samples.

    Returns:
        Indices, ascending: without the other triangles the drawing is the same.
    """
    x_C, y_C, w_C = clip[[0, 1, 3], :3] @ places_3C + clip[[0, 1, 3], 3:]
    num = triangles_3D.shape[1]
    if float(w_C.min()) < NEAR_M:  # what reaches behind the camera lies nowhere in the image
        return np.arange(num)
    scale_C = np.float32(side / 2) / w_C
    ends, spans = [], []
    for value_C in (x_C, y_C):
        value_C *= scale_C
        value_C += np.float32((side - 1) / 2)  # samples lie at whole numbers
        first, second, third = value_C[:num], value_C.take(triangles_3D[1]), value_C.take(triangles_3D[2])
        low = np.minimum(np.minimum(first, second), third) - np.float32(_ROUNDED)
        high = np.maximum(np.maximum(first, second), third) + np.float32(_ROUNDED)
        ends.append((low, high))
        spans.append((second - first, third - first))
    (left, right), (top, bottom) = ends
    (right_2, right_3), (down_2, down_3) = spans
    turned = right_3 * down_2 - right_2 * down_3 > np.float32(-_ROUNDED) * (right - left + bottom - top)
    inside = (right >= 0) & (bottom >= 0) & (left <= side - 1) & (top <= side - 1)
    return np.flatnonzero(turned & inside & (np.floor(right) >= left) & (np.floor(bottom) >= top))


def root_light(normals_X3: npt.ArrayLike, sh: tuple[tuple[float, ...], ...], open_X: npt.ArrayLike = 1.0) -> Floats32:
    """Diffuse light from nine spherical-harmonic coefficients, as the root by which colours are multiplied.

    Args:
        normals_X3: (X, 3) unit.
        sh: nine coefficients of incoming light for each of R, G, B.
        open_X: (X,) the share that arrives, or (2, X) at the front and at the back.

    Returns:
        (2, X, 3): at the front of a surface, and at its back.

    Source: Ramamoorthi and Hanrahan 2001, equation 13.
    """
    x, y, z = np.asarray(normals_X3, dtype=np.float32).T
    l00, l1y, l1z, l1x, lxy, lyz, lzz, lxz, lxx = np.asarray(sh, dtype=np.float32).T[..., None]
    c1, c2, c3, c4, c5 = (np.float32(c) for c in (0.429043, 0.511664, 0.743125, 0.886227, 0.247708))
    even = c1 * lxx * (x * x - y * y) + lzz * (c3 * z * z - c5) + c4 * l00
    even += 2 * c1 * (lxy * (x * y) + lxz * (x * z) + lyz * (y * z))
    odd = 2 * c2 * (l1x * x + l1y * y + l1z * z)
    both = np.stack([even + odd, even - odd]) * np.atleast_1d(np.asarray(open_X, dtype=np.float32))[..., None, :]
    return np.asarray(np.sqrt(np.maximum(both, _LEAST_LIGHT)).transpose(0, 2, 1))
