"""The light that a dressed body takes from itself: from all around where limbs are near, and the lamp's where one stands before another.

The surface is cut into patches once. At each instant every patch is asked how much of its sky the others fill, and how much of
them lies between it and the lamp; what it answers is spread over the vertices. Both are soft, as the light of rooms is.

Shape letters: X vertices, F faces of the model, P patches.
"""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from synthetic.looks.canvas import SKIRT_GROUP, neighbour_means, vertex_normals

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

NUM_PATCHES = 480
_SPREAD_STEPS = 8
_TURNED_M = 0.06  # two sides of a hand are patches of their own: opposite normals count as this far apart
_LAYERS_APART_M = 10.0
_TAKEN = 0.9  # of the light that other limbs would take; the rest comes back from them
_FLOOR_TAKES, _FLOOR_M = (
    0.6,
    0.15,
)  # the body lies on its own light from below: how much is missing at the floor, and how far up
_PENUMBRA_M = 0.045
_BEFORE_M = (0.03, 0.1)  # from where on, and where wholly, a patch stands before another and not beside it
_LEAST = 0.25


class Shade:
    """Patches of one body.

    Args:
        template_X3: (X, 3) the body at rest, metres.
        faces_F3: (F, 3) vertex indices.
        group_F: (F,) index into `makehuman.GROUPS`; skirts and hair are open, and seen from both sides.
    """

    def __init__(self, template_X3: Floats, faces_F3: Ints, group_F: Ints) -> None:
        num = len(template_X3)
        group_X = np.zeros(num, dtype=np.int64)
        np.maximum.at(group_X, faces_F3, group_F[:, None])
        used = np.unique(faces_F3)
        normals_X3 = vertex_normals(template_X3, faces_F3)
        places = np.concatenate(
            [template_X3, 0.5 * _TURNED_M * normals_X3, _LAYERS_APART_M * group_X[:, None]], axis=1
        )[used].astype(np.float32)
        nearest, patch = np.full(len(used), np.inf, np.float32), np.zeros(len(used), dtype=np.int64)
        self._num = min(NUM_PATCHES, len(used))
        for index in range(self._num):  # farthest points, one after the other
            away = np.square(places - places[nearest.argmax() if index else 0]).sum(axis=1)
            closer = away < nearest
            nearest[closer], patch[closer] = away[closer], index
        self._patch_X = np.zeros(num, dtype=np.int64)
        self._patch_X[used] = patch
        first, second, third = (template_X3[faces_F3[:, corner]] for corner in range(3))
        self._area_F = 0.5 * np.linalg.norm(np.cross(second - first, third - first), axis=1)
        self._faces_F3 = faces_F3
        self._open_P = np.bincount(self._patch_X, group_X >= SKIRT_GROUP, self._num) > 0
        spread = sp.csr_matrix((np.ones(len(used)), (used, patch)), (num, self._num))
        mean_XX = neighbour_means(faces_F3, num)
        for _ in range(_SPREAD_STEPS):
            spread = (0.5 * (spread + mean_XX @ spread)).tocsr()
        self._spread_XP = spread.astype(np.float32)

    def weights(self, face_ids_F: Ints) -> sp.csr_matrix:
        """How much surface each vertex adds to its patch, (P, X) square metres, where some of the faces are shown."""
        corners, num = self._faces_F3[face_ids_F], len(self._patch_X)
        area_X = np.bincount(corners.ravel(), np.repeat(self._area_F[face_ids_F] / 3.0, 3), num)
        # Patches that are not shown have a place too.
        return sp.csr_matrix((area_X + 1e-9, (self._patch_X, np.arange(num))), (self._num, num))

    def open(
        self,
        verts_X3: Floats,
        normals_X3: Floats,
        weights_PX: sp.csr_matrix,
        *,
        lamp: tuple[float, float, float],
        shadow: float,
    ) -> Floats:
        """The share of light that reaches each vertex.

        Args:
            verts_X3: (X, 3) dressed and posed, metres.
            normals_X3: (X, 3) unit.
            weights_PX: what `weights` gave.
            lamp: unit direction towards the lamp.
            shadow: how dark its shadow is, 0 none.

        Returns:
            (X,) in (0, 1].
        """
        sums = weights_PX @ np.concatenate([verts_X3, normals_X3, np.ones((len(verts_X3), 1))], axis=1)
        places_P3 = (sums[:, :3] / np.maximum(sums[:, 6:], 1e-12)).astype(np.float32)
        length_P1 = np.maximum(np.linalg.norm(sums[:, 3:6], axis=1, keepdims=True), 1e-12)
        normals_P3, area_P = (sums[:, 3:6] / length_P1).astype(np.float32), sums[:, 6].astype(np.float32)
        square_PP = _squares(places_P3)
        found_P2 = np.stack(
            [
                self._sky_taken(places_P3, normals_P3, area_P, square_PP),
                self._lamp_hidden(places_P3, normals_P3, area_P, square_PP, np.array(lamp, np.float32)),
            ],
            axis=1,
        )
        taken_X, hidden_X = (self._spread_XP @ found_P2).T.astype(np.float64)
        downwards_X = 0.5 - 0.5 * normals_X3[:, 1]
        floor_X = _FLOOR_TAKES * downwards_X * np.exp(-np.maximum(verts_X3[:, 1], 0.0) / _FLOOR_M)
        towards_X = np.clip(2.0 * (normals_X3 @ np.array(lamp)), 0.0, 1.0)
        share_X = (1.0 - _TAKEN * taken_X) * (1.0 - floor_X) * (1.0 - shadow * hidden_X * towards_X)
        return np.asarray(np.maximum(share_X, _LEAST))

    def _sky_taken(self, places_P3: Floats32, normals_P3: Floats32, area_P: Floats32, square_PP: Floats32) -> Floats32:
        """The share of an even light (P,) that the patches take from each other.

        Source: a disc of area A at distance r, seen under cosines a and b, fills A a b / (pi r^2 + A) of the sky.
        """
        up_PP = _products(normals_P3, places_P3)  # becomes the cosines times r
        up_PP -= (normals_P3 * places_P3).sum(axis=1)[:, None]
        backs = np.abs(up_PP[self._open_P])
        np.maximum(up_PP, 0.0, out=up_PP)
        facing_PP = up_PP.copy()
        facing_PP[self._open_P] = backs
        up_PP *= facing_PP.T
        np.multiply(square_PP, np.float32(np.pi), out=facing_PP)
        facing_PP += area_P
        facing_PP *= square_PP
        up_PP /= facing_PP
        return np.asarray(np.minimum(np.einsum("pq,q->p", up_PP, area_P), 1.0))

    def _lamp_hidden(
        self, places_P3: Floats32, normals_P3: Floats32, area_P: Floats32, square_PP: Floats32, lamp: Floats32
    ) -> Floats32:
        """How much of the lamp (P,) the patches hide from each other.

        Only what turns its back to the lamp counts: light meets a closed surface once on its way out, and no lit patch shades
        its neighbours.
        """
        turned_P = normals_P3 @ lamp
        turned_P = np.where(self._open_P, np.abs(turned_P), np.maximum(-turned_P, 0.0))
        height_P = places_P3 @ lamp
        before_PP = height_P - height_P[:, None]
        spot = np.float32(2.0 * _PENUMBRA_M**2)
        share_PP = np.square(before_PP)
        share_PP -= square_PP  # the square of how far one stands beside the other's line to the lamp, negative
        share_PP /= spot
        np.exp(share_PP, out=share_PP)
        low, high = _BEFORE_M
        before_PP -= np.float32(low)
        before_PP /= np.float32(high - low)
        share_PP *= np.clip(before_PP, 0.0, 1.0, out=before_PP)
        depth_P = np.einsum("pq,q->p", share_PP, area_P * turned_P) / (np.float32(np.pi) * spot)
        return np.asarray(1.0 - np.exp(-2.0 * depth_P))


def _squares(places_P3: Floats32) -> Floats32:
    """Squares of the distances between places, (P, P)."""
    total = np.full((len(places_P3), len(places_P3)), 1e-6, dtype=np.float32)
    for axis in range(3):
        total += np.square(np.subtract.outer(places_P3[:, axis], places_P3[:, axis]))
    return total


def _products(one_P3: Floats32, other_P3: Floats32) -> Floats32:
    """Scalar products (P, P). Not by BLAS, whose sums may depend on the number of threads."""
    total = np.multiply.outer(one_P3[:, 0], other_P3[:, 0])
    for axis in (1, 2):
        total += np.multiply.outer(one_P3[:, axis], other_P3[:, axis])
    return np.asarray(total)


__all__ = ["NUM_PATCHES", "Shade"]
