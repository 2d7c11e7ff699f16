"""Which triangle stands at each pixel, exactly: as many as a body has, in a few hundredths of a second without OpenGL.

Shape letters: `F` faces, `Q` pixels that a face's box holds, `H W` picture. Convention: pixel (0, 0) is the centre of the first pixel, and a
pixel shows what lies behind its centre.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NEAR_M = 0.1
_RIM = 1e-9  # of a share: between two faces there is no gap


def draw_faces(
    corners_F32_px: npt.ArrayLike, depth_F3_m: npt.ArrayLike, *, size: tuple[int, int]
) -> tuple[Ints, Floats]:
    """Draw triangles seen by a pinhole camera, both of their sides; faces that reach nearer than `NEAR_M` are left out.

    Args:
        corners_F32_px: (F, 3, 2) x and y of the corners.
        depth_F3_m: (F, 3) along the camera's axis; ones for a flat drawing, where the first face wins.
        size: height and width of the picture.

    Returns:
        The nearest face at each pixel (H, W), -1 where there is none; and shares (H, W, 3) of its corners in the point of the surface that is
        seen, which sum to 1, or 0 where there is no face.
    """
    corners, depth = np.asarray(corners_F32_px, np.float64), np.asarray(depth_F3_m, np.float64)
    height, width = size
    double_area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    finite = np.isfinite(corners).all(axis=(1, 2)) & np.isfinite(depth).all(axis=1)
    face_F = np.flatnonzero(finite & (depth.min(axis=1) > NEAR_M) & (double_area != 0))
    low = np.clip(np.ceil(corners[face_F].min(axis=1)), 0, [width, height]).astype(np.int64)
    high = np.clip(np.floor(corners[face_F].max(axis=1)), -1, [width - 1, height - 1]).astype(np.int64)
    columns, rows = np.maximum(high - low + 1, 0).T
    count = columns * rows
    which_Q = np.repeat(np.arange(len(face_F)), count)
    place_Q = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    xy_Q2 = low[which_Q] + np.column_stack([place_Q % columns[which_Q], place_Q // columns[which_Q]])
    face_Q = face_F[which_Q]
    a, b, c = (corners[face_Q, corner] - xy_Q2 for corner in range(3))
    share_Q3 = np.column_stack([_cross(b, c), _cross(c, a), _cross(a, b)]) / double_area[face_Q, None]
    inside = share_Q3.min(axis=1) >= -_RIM
    face_Q, xy_Q2, share_Q3 = face_Q[inside], xy_Q2[inside], share_Q3[inside].clip(0)
    share_Q3 /= depth[face_Q]  # of a point of the surface, not of its image
    inverse_Q = share_Q3.sum(axis=1)
    share_Q3 /= inverse_Q[:, None]
    pixel_Q = xy_Q2[:, 1] * width + xy_Q2[:, 0]
    order = np.lexsort((-inverse_Q, pixel_Q))
    nearest = order[np.diff(pixel_Q[order], prepend=-1) > 0]
    pixel_Q = pixel_Q[nearest]
    face_HW, share_HW3 = np.full(height * width, -1, np.int64), np.zeros((height * width, 3))
    face_HW[pixel_Q], share_HW3[pixel_Q] = face_Q[nearest], share_Q3[nearest]
    return face_HW.reshape(size), share_HW3.reshape(*size, 3)


def _cross(a_N2: Floats, b_N2: Floats) -> Floats:
    return np.asarray(a_N2[:, 0] * b_N2[:, 1] - a_N2[:, 1] * b_N2[:, 0])
