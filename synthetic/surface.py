"""The surface that views share: cells of a model's surface, and where the points that one view sees lie in another.

A point of the surface is named by its face and its place on it, whatever the pose: so any two views of one person, of
whatever instants, correspond exactly.

Shape letters: H W image, P pixels of the silhouette, X vertices, F faces of the model, C cells.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from manifests.surface import SURFACE_CELLS
from synthetic.figure import Figure
from synthetic.render import View

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_LAYERS_APART_M = 10.0  # so that a skirt has other cells than the thighs below it
_SAME_PX = 0.75  # how near a point must lie to what a neighbouring pixel sees, in pixels at its depth
_TURNED = 0.35  # and how much it must face the camera, cosine: surfaces seen from the edge jump from pixel to pixel
_BEHIND = -0.05  # smooth normals may point away a little where a surface is seen still


def cells_of_faces(figure: Figure, num_cells: int = SURFACE_CELLS) -> npt.NDArray[np.int32]:
    """Cut a model's surface at rest into cells of about equal width; (F,) the cell of each face.

    Farthest points of the surface are drawn one after the other; each is the middle of a cell.
    """
    middles_F3 = figure.template_X3[figure.faces_F3].mean(axis=1)
    places_F4 = np.concatenate([middles_F3, _LAYERS_APART_M * figure.group_F[:, None]], axis=1)
    nearest = np.full(len(places_F4), np.inf)
    chosen = np.zeros(min(num_cells, len(places_F4)), dtype=np.int64)
    for cell in range(len(chosen)):
        chosen[cell] = nearest.argmax() if cell else 0
        np.minimum(nearest, np.square(places_F4 - places_F4[chosen[cell]]).sum(axis=1), out=nearest)
    return np.asarray(cKDTree(places_F4[chosen]).query(places_F4)[1], dtype=np.int32)


def cells_seen(view: View, cell_F: npt.NDArray[np.int32]) -> bytes:
    """How many pixels of a view show each cell, saturated at 255: the column `surface` of crops."""
    cells = cell_F[view.dressed.faces_T[view.seen.triangles]]
    return bytes(np.minimum(np.bincount(cells, minlength=SURFACE_CELLS), 255).astype(np.uint8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Correspondence:
    """Where what one view sees lies in another.

    Attributes:
        rows: (P,) pixels of the target's silhouette.
        columns: (P,).
        xy_px: (P, 2) where their points project in the reference; may lie outside of it.
        seen: (P,) whether the reference sees them.
    """

    rows: Ints
    columns: Ints
    xy_px: Floats
    seen: Bools

    @property
    def covisibility(self) -> float:
        """Share of the target's visible surface that the reference sees; NaN where the target sees none."""
        return float(self.seen.mean()) if len(self.seen) else float("nan")


def correspond(target: View, reference: View) -> Correspondence:
    """Find the points that the target sees in the reference: another view, another pose, or both.

    Args:
        target: a view.
        reference: a view of the same person in the same clothes.

    Raises:
        ValueError: the views show different people, or one person in different clothes.
    """
    if target.dressed is not reference.dressed and not np.array_equal(
        target.dressed.verts_T3, reference.dressed.verts_T3
    ):
        raise ValueError("views correspond if they show one person in the same clothes")
    verts_T3, pose = reference.dressed.verts_T3, reference.camera_from_world
    seen_X3 = reference.posed.verts_X3 @ pose[:3, :3].T + pose[:3, 3]
    points = target.seen.carry(seen_X3, verts_T3)
    flat = points @ reference.intrinsics.T
    xy_px = flat[:, :2] / flat[:, 2:]
    normals = target.seen.carry(reference.posed.normals_X3 @ pose[:3, :3].T, verts_T3)
    facing = -(normals * points).sum(axis=1) / np.maximum(
        np.linalg.norm(points, axis=1) * np.linalg.norm(normals, axis=1), 1e-12
    )
    facing = np.where(
        target.seen.triangles < target.dressed.num_closed, facing, np.abs(facing)
    )  # hair shows both sides
    near = _SAME_PX * points[:, 2] / reference.intrinsics[0, 0]
    seen = (points[:, 2] > 0) & (facing > _BEHIND) & _among_seen(reference, seen_X3, points, xy_px, near, facing)
    return Correspondence(rows=target.seen.rows, columns=target.seen.columns, xy_px=xy_px, seen=seen)


def _among_seen(view: View, seen_X3: Floats, points: Floats, xy_px: Floats, near_m: Floats, facing: Floats) -> Bools:
    """Whether one of the nine pixels around a point's projection sees a point as near as neighbouring pixels are."""
    size = view.silhouette.shape[0]
    column, row = np.rint(xy_px).clip(-2, size + 1).astype(np.int64).T
    there = np.full((size + 4, size + 4, 3), np.inf)
    there[view.seen.rows + 2, view.seen.columns + 2] = view.seen.carry(seen_X3, view.dressed.verts_T3)
    least = np.full(len(points), np.inf)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            at = np.clip(row + down + 2, 0, size + 3), np.clip(column + right + 2, 0, size + 3)
            least = np.minimum(least, np.square(there[at] - points).sum(axis=1))
    return np.asarray(least < np.square(near_m / np.maximum(facing, _TURNED)))
