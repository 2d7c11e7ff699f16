"""Exact labels of a rendered view, from which triangle each pixel sees.

Shape letters: H W image, P pixels of the silhouette, T triangles shown, X vertices, F faces of the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from synthetic.pixels import SAMPLES, Pixels
from synthetic.rotations import axis_angle_from_matrix, matrix_from_axis_angle

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

LIMB_M = 0.16  # a joint lies at most this far under the surface of its own limb, clothes included


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The surface that each pixel of a silhouette sees.

    Where the triangle covers the pixel's centre, its point projects there; else where the sample hit, which is 0.36 pixels away.

    Attributes:
        rows: (P,) of the pixels.
        columns: (P,).
        triangles: (P,) index of the triangle shown.
        weights_P3: (P, 3) barycentric coordinates on it.
        depth_P: (P,) along the gaze, metres.
    """

    rows: Ints
    columns: Ints
    triangles: Ints
    weights_P3: Floats32
    depth_P: Floats32

    def carry(self, values: npt.NDArray[Any], index_T3: Ints) -> npt.NDArray[Any]:
        """Interpolate values of corners, (n, C) with triangles (T, 3), to the pixels, (P, C)."""
        corners_P3C = values.take(index_T3.take(self.triangles, axis=0), axis=0)
        return np.asarray(np.einsum("pk,pkc->pc", self.weights_P3, corners_P3C))


def seen_surface(pixels: Pixels, verts_X3: npt.ArrayLike, verts_T3: Ints, camera: Floats) -> Seen:
    """Find the point that each pixel sees.

    Args:
        pixels: which triangle each sees, and by which sample.
        verts_X3: (X, 3) in the world, metres.
        verts_T3: (T, 3) vertices of the triangles.
        camera: (3, 4) K times camera_from_world.
    """
    columns, rows = pixels.columns.astype(np.float32), pixels.rows.astype(np.float32)
    flat_3X = camera[:, :3].astype(np.float32) @ np.asarray(verts_X3, dtype=np.float32).T
    flat_3X += camera[:, 3:].astype(np.float32)
    flat_3X[:2] /= flat_3X[2]
    corners_3P = np.ascontiguousarray(verts_T3.take(pixels.triangles, axis=0).T)
    x_3P, y_3P, depth_3P = (row.take(corners_3P) for row in flat_3X)
    x_3P -= columns
    y_3P -= rows
    weights_3P = _weights(x_3P, y_3P)
    beside = np.flatnonzero(weights_3P.min(axis=0) < 0)
    right, down = SAMPLES.take(pixels.samples[beside], axis=0).T
    hit_3P = _weights(x_3P[:, beside] - right, y_3P[:, beside] - down)
    weights_3P[:, beside] = np.maximum(hit_3P, 0.0)  # what is below 0 is rounding
    total_P = weights_3P.sum(axis=0)
    weights_3P = np.where(total_P > 0, weights_3P / np.where(total_P > 0, total_P, 1.0), 1.0 / 3.0) / depth_3P
    depth_P = 1.0 / weights_3P.sum(axis=0)
    weights_3P *= depth_P
    return Seen(
        rows=pixels.rows,
        columns=pixels.columns,
        triangles=pixels.triangles,
        weights_P3=np.ascontiguousarray(weights_3P.T),
        depth_P=depth_P,
    )


def _weights(x_3P: Floats32, y_3P: Floats32) -> Floats32:
    """Barycentric coordinates of the origin among corners, up to a positive factor: negative where it lies outside."""
    (ax, bx, cx), (ay, by, cy) = x_3P, y_3P
    weights = np.stack([bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx])
    return np.asarray(weights * np.sign(weights.sum(axis=0)))  # seen from the front or the back


def joint_visibility(
    joints_xy_px: Floats, joint_depth_m: Floats, depth_m: Floats32, silhouette: Bools, *, under_m: float = LIMB_M
) -> Bools:
    """Tell which joints are seen: the surface at the joint's pixel is the person's, and just in front of the joint.

    Args:
        joints_xy_px: (J, 2).
        joint_depth_m: (J,).
        depth_m: (H, W) of the image.
        silhouette: (H, W).
        under_m: how far a joint may lie under the surface of its own limb.

    Returns:
        (J,) bool; joints outside of the image are not visible.
    """
    height, width = silhouette.shape
    column, row = np.rint(joints_xy_px).astype(np.int64).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
    return np.asarray(inside & silhouette[row, column] & (joint_depth_m - depth_m[row, column] < under_m))


def silhouette_box(silhouette: Bools) -> Floats:
    """Edges of a silhouette.

    Returns:
        (4,) x0 y0 x1 y1 in pixels, from the outer edges of the outermost pixels; zeros if the silhouette is empty.
    """
    rows, columns = np.flatnonzero(silhouette.any(axis=1)), np.flatnonzero(silhouette.any(axis=0))
    if len(rows) == 0:
        return np.zeros(4)
    return np.array([columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5])


def in_camera(parameters: Mapping[str, Floats], root_3: Floats, camera_from_world: Floats) -> dict[str, Floats]:
    """Turn a model's parameters from the world into a camera.

    Args:
        parameters: with "global_orient" (3,) axis-angle and "transl" (3,) metres; the others do not change.
        root_3: the joint that the model turns around, at rest.
        camera_from_world: (4, 4).

    Returns:
        Parameters with which the model's vertices come out in the camera's axes.
    """
    turn, move = camera_from_world[:3, :3], camera_from_world[:3, 3]
    orient = axis_angle_from_matrix(turn @ matrix_from_axis_angle(parameters["global_orient"]))
    return {**parameters, "global_orient": orient, "transl": turn @ (parameters["transl"] + root_3) + move - root_3}
