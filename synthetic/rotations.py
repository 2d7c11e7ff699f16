"""Small rotation helpers for any batch shape.

Convention: matrices act on columns, quaternions are (w, x, y, z), angles in radians.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def matrix_from_axis_angle(axis_angle: npt.ArrayLike) -> Floats:
    """Rodrigues' formula.

    Args:
        axis_angle: (..., 3) axis times angle, radians.

    Returns:
        (..., 3, 3).
    """
    vector = np.asarray(axis_angle, dtype=np.float64)
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    axis = vector / np.maximum(angle[..., 0], 1e-12)
    zero = np.zeros_like(axis[..., 0])
    x, y, z = axis[..., 0], axis[..., 1], axis[..., 2]
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*axis.shape[:-1], 3, 3)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross))


def matrix_from_quaternion(wxyz: npt.ArrayLike) -> Floats:
    """Turn quaternions (..., 4), of any length but zero, into matrices (..., 3, 3)."""
    return matrix_from_axis_angle(axis_angle_from_quaternion(wxyz))


def axis_angle_from_quaternion(wxyz: npt.ArrayLike) -> Floats:
    """Turn quaternions (..., 4), of any length but zero, into axis-angle (..., 3) with angles in [0, pi]."""
    q = np.asarray(wxyz, dtype=np.float64)
    q = np.where(q[..., :1] < 0, -q, q)
    sine = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, q[..., :1])
    return np.asarray(q[..., 1:] / np.maximum(sine, 1e-12) * angle)


def axis_angle_from_matrix(matrix: npt.ArrayLike) -> Floats:
    """Turn matrices (..., 3, 3) into axis-angle (..., 3), angles in [0, pi]."""
    m = np.asarray(matrix, dtype=np.float64)
    # The symmetric 4x4 form of Bar-Itzhack: its leading eigenvector is the quaternion (x, y, z, w), safe at pi.
    k = np.empty((*m.shape[:-2], 4, 4))
    k[..., :3, :3] = m + np.swapaxes(m, -1, -2)
    k[..., [0, 1, 2], [0, 1, 2]] -= np.trace(m, axis1=-2, axis2=-1)[..., None]
    turn = np.stack([m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], axis=-1)
    k[..., :3, 3] = turn
    k[..., 3, :3] = turn
    k[..., 3, 3] = np.trace(m, axis1=-2, axis2=-1)
    xyzw = np.linalg.eigh(k)[1][..., -1]
    return axis_angle_from_quaternion(np.roll(xyzw, 1, axis=-1))


def align(source: npt.ArrayLike, target: npt.ArrayLike) -> Floats:
    """Turn one direction onto another by the shortest way.

    Args:
        source: (3,), not zero.
        target: (3,), not zero, not opposite to `source`.

    Returns:
        (3, 3) rotation.
    """
    a = np.asarray(source, dtype=np.float64)
    b = np.asarray(target, dtype=np.float64)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    axis = np.cross(a, b)
    sine = np.linalg.norm(axis)
    return matrix_from_axis_angle(axis / max(float(sine), 1e-12) * np.arctan2(sine, a @ b))
