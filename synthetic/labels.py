"""Exact labels of a rendered view."""

import numpy as np
import numpy.typing as npt

from manifests.geometry import project

Floats = npt.NDArray[np.float64]
LIMB_M = 0.16  # a joint lies at most this far under the surface of its own limb, clothes included


def joints_in_image(joints_m: npt.ArrayLike, intrinsics: Floats, camera_from_world: Floats) -> tuple[Floats, Floats]:
    """Project joints.

    Args:
        joints_m: (J, 3) in the world.
        intrinsics: (3, 3) K.
        camera_from_world: (4, 4).

    Returns:
        (J, 2) pixels and (J,) depth in metres.
    """
    pixels, depth = project(np.asarray(joints_m, dtype=np.float64), intrinsics, camera_from_world)
    return np.asarray(pixels), np.asarray(depth)


def joint_visibility(
    joints_xy_px: Floats, joint_depth_m: Floats, depth_m: npt.NDArray[np.float32], silhouette: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Tell which joints are seen: the surface at the joint's pixel is the person's, and just in front of the joint.

    Args:
        joints_xy_px: (J, 2).
        joint_depth_m: (J,).
        depth_m: (H, W) of the image.
        silhouette: (H, W).

    Returns:
        (J,) bool; joints outside of the image are not visible.
    """
    height, width = silhouette.shape
    column, row = np.rint(joints_xy_px).astype(np.int64).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
    return np.asarray(inside & silhouette[row, column] & (joint_depth_m - depth_m[row, column] < LIMB_M))


def silhouette_box(silhouette: npt.NDArray[np.bool_]) -> Floats:
    """Edges of a silhouette.

    Returns:
        (4,) x0 y0 x1 y1 in pixels, from the outer edges of the outermost pixels; zeros if the silhouette is empty.
    """
    rows, columns = np.flatnonzero(silhouette.any(axis=1)), np.flatnonzero(silhouette.any(axis=0))
    if len(rows) == 0:
        return np.zeros(4)
    return np.array([columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5])
