"""Silhouettes and depths by plain geometry, without OpenGL: the slow twins of the renderer."""

import cv2
import numpy as np

from manifests.geometry import project


def fill_triangles(
    verts_m: np.ndarray,
    faces: np.ndarray,
    intrinsics: np.ndarray,
    camera_from_world: np.ndarray,
    size_px: int,
    *,
    fine: int = 8,
) -> np.ndarray:
    """(size, size) share of each pixel that the projected triangles cover, drawn `fine` times larger and averaged."""
    pixels, depth = project(verts_m, intrinsics, camera_from_world)
    assert (depth > 0).all()
    canvas = np.zeros((size_px * fine, size_px * fine), dtype=np.uint8)
    corners = np.rint(((pixels + 0.5) * fine - 0.5) * 16).astype(np.int32)[faces]
    for triangle in corners:
        cv2.fillConvexPoly(canvas, triangle, 1, shift=4)
    return canvas.reshape(size_px, fine, size_px, fine).mean(axis=(1, 3))


def ray_depth(
    pixel_xy: np.ndarray, verts_m: np.ndarray, faces: np.ndarray, intrinsics: np.ndarray, camera_from_world: np.ndarray
) -> float:
    """Depth along the gaze, metres, of the first triangle that the ray through a pixel meets; infinite if none (Moeller-Trumbore)."""
    points = verts_m @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    a, b, c = (points[faces[:, i]] for i in range(3))
    ray = np.linalg.inv(intrinsics) @ [*pixel_xy, 1.0]
    cross = np.cross(ray, c - a)
    scale = (cross * (b - a)).sum(axis=1)
    scale = np.where(np.abs(scale) < 1e-15, 1e-15, scale)
    u = (cross * -a).sum(axis=1) / scale
    other = np.cross(-a, b - a)
    v = other @ ray / scale
    t = (other * (c - a)).sum(axis=1) / scale
    hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
    return float(t[hit].min()) if hit.any() else float("inf")
