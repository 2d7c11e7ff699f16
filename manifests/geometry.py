"""Boxes, crops, rays and angles. Axes: x right, y down, z forward; metres, pixels, radians; `camera_from_world` maps points.

Convention: pixel (0, 0) is the centre of the first pixel, so an image of width w spans [-0.5, w - 0.5]; boxes are
`x0, y0, x1, y1` in these coordinates with x1, y1 at the far edge.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def square_around(box_xyxy_px: Floats, *, margin: float = 1.25) -> Floats:
    """The square around a box's centre whose side is the box's longer side times `margin`; (..., 4) to (..., 4)."""
    box = np.asarray(box_xyxy_px, float)
    centre = (box[..., :2] + box[..., 2:]) / 2
    half = (box[..., 2:] - box[..., :2]).max(axis=-1, keepdims=True) * margin / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def crop_from_frame(square_xyxy_px: Floats, size_px: int) -> Floats:
    """(3, 3) matrix that maps homogeneous frame pixels to pixels of the square resized to `size_px`."""
    x0, y0, x1, _ = np.asarray(square_xyxy_px, float)
    if x1 <= x0:
        raise ValueError(f"the square {square_xyxy_px} has no width")
    scale = size_px / (x1 - x0)
    # Edges map to edges: frame x0 (an edge) becomes -0.5.
    return np.array([[scale, 0, -scale * x0 - 0.5], [0, scale, -scale * y0 - 0.5], [0, 0, 1.0]])


def box_overlap(a_xyxy: Floats, b_xyxy: Floats) -> Floats:
    """Intersection over union of boxes, broadcast over leading axes: (..., 4), (..., 4) to (...)."""
    a, b = np.asarray(a_xyxy, float), np.asarray(b_xyxy, float)
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=-1)
    union = np.prod(a[..., 2:] - a[..., :2], axis=-1) + np.prod(b[..., 2:] - b[..., :2], axis=-1) - both
    share: Floats = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return share


def camera_centre(camera_from_world: Floats) -> Floats:
    """Camera centre in the world, metres: (..., 4, 4) to (..., 3)."""
    pose = np.asarray(camera_from_world, float)
    centre: Floats = -np.einsum("...ji,...j->...i", pose[..., :3, :3], pose[..., :3, 3])
    return centre


def rays(pixels: Floats, intrinsics: Floats, camera_from_world: Floats, distortion: Floats | None = None) -> Floats:
    """Unit directions in the world of the rays through pixels.

    Args:
        pixels: (..., 2).
        intrinsics: (3, 3) K.
        camera_from_world: (4, 4).
        distortion: OpenCV k1, k2, p1, p2[, k3[, k4, k5, k6]]; undone by fixed-point iteration.

    Returns:
        (..., 3).
    """
    K = np.asarray(intrinsics, float)  # noqa: N806
    pixels = np.asarray(pixels, float)
    y = (pixels[..., 1] - K[1, 2]) / K[1, 1]
    x = (pixels[..., 0] - K[0, 2] - K[0, 1] * y) / K[0, 0]
    flat = np.stack([x, y], axis=-1)
    if distortion is not None and np.any(distortion):
        flat = _undistort(flat, np.asarray(distortion, float))
    directions = np.concatenate([flat, np.ones_like(flat[..., :1])], axis=-1)
    directions = directions @ np.asarray(camera_from_world, float)[:3, :3]
    unit: Floats = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    return unit


def distort(flat: Floats, distortion: Floats) -> Floats:
    """Apply OpenCV's lens model to points on the plane z = 1; (..., 2) to (..., 2)."""
    k1, k2, p1, p2, k3, k4, k5, k6 = np.pad(distortion[:8], (0, 8 - min(8, len(distortion))))
    x, y = flat[..., 0], flat[..., 1]
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    return np.stack(
        [x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y],
        axis=-1,
    )


def _undistort(seen: Floats, distortion: Floats, steps: int = 20) -> Floats:
    flat = seen
    for _ in range(steps):
        flat = flat + (seen - distort(flat, distortion))
    return flat


def project(
    points_m: Floats, intrinsics: Floats, camera_from_world: Floats, distortion: Floats | None = None
) -> tuple[Floats, Floats]:
    """Project world points.

    Args:
        points_m: (..., 3).
        intrinsics: (3, 3) K.
        camera_from_world: (4, 4).
        distortion: OpenCV coefficients, or none.

    Returns:
        pixels (..., 2), and depth (...) in metres: points with depth <= 0 lie behind the camera, their pixels mean nothing.
    """
    pose = np.asarray(camera_from_world, float)
    points = np.asarray(points_m, float) @ pose[:3, :3].T + pose[:3, 3]
    depth = points[..., 2]
    safe = np.where(np.abs(depth) > 1e-12, depth, 1e-12)
    flat = points[..., :2] / safe[..., None]
    if distortion is not None and np.any(distortion):
        flat = distort(flat, np.asarray(distortion, float))
    K = np.asarray(intrinsics, float)  # noqa: N806
    return flat @ K[:2, :2].T + K[:2, 2], depth


def meet(origins_m: Floats, directions: Floats) -> tuple[Floats, Floats]:
    """The point nearest to a bundle of rays, in the least-squares sense.

    Args:
        origins_m: (R, 3).
        directions: (R, 3) unit.

    Returns:
        the point (3,), and each ray's distance to it (R,) in metres.

    Raises:
        ValueError: fewer than two rays, or all parallel.
    """
    origins, directions = np.asarray(origins_m, float), np.asarray(directions, float)
    if len(origins) < 2:
        raise ValueError("two rays at least are needed to meet")
    away = np.eye(3) - directions[:, :, None] * directions[:, None, :]  # (R, 3, 3): what is across the ray
    normal = away.sum(axis=0)
    if np.linalg.cond(normal) > 1e10:
        raise ValueError("the rays are parallel")
    point = np.linalg.solve(normal, np.einsum("rij,rj->i", away, origins))
    return point, np.linalg.norm(np.einsum("rij,rj->ri", away, point - origins), axis=-1)


def angle_between(a: Floats, b: Floats) -> Floats:
    """Angle in radians, [0, pi], between vectors: (..., 3), (..., 3) to (...). Exact near 0 and pi, where arccos is not."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    angle: Floats = np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1))
    return angle


def view_angle(subject_m: Floats, target_from_world: Floats, reference_from_world: Floats) -> Floats:
    """Angle in radians at the subject between the lines to two cameras: 0 the same side, pi front and back."""
    return angle_between(camera_centre(target_from_world) - subject_m, camera_centre(reference_from_world) - subject_m)
