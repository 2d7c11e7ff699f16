"""Rotations as networks predict them, for any batch shape.

Convention: matrices act on columns; the six numbers of `sixd` are the first two columns, read row by row, as a (3, 2) matrix.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def matrix_from_sixd(sixd: Tensor) -> Tensor:
    """Make two columns orthonormal, one after the other, and add the third: (..., 6) to (..., 3, 3).

    Parallel columns have no answer; what comes is no rotation then.

    Source: Zhou et al., On the continuity of rotation representations in neural networks, CVPR 2019.
    """
    a1, a2 = sixd.reshape(*sixd.shape[:-1], 3, 2).unbind(-1)
    b1 = functional.normalize(a1, dim=-1)
    b2 = functional.normalize(a2 - (b1 * a2).sum(-1, keepdim=True) * b1, dim=-1)
    return torch.stack([b1, b2, torch.linalg.cross(b1, b2)], dim=-1)


def sixd_from_matrix(matrix: Tensor) -> Tensor:
    """The first two columns, row by row: (..., 3, 3) to (..., 6)."""
    return matrix[..., :2].flatten(-2)


def nearest_rotation(matrix: Tensor) -> Tensor:
    """The rotation with the least squared difference to each matrix: (..., 3, 3) to (..., 3, 3), never a reflection.

    Its gradient is finite at rotations themselves, where that of the singular vectors is not.

    Source: Levinson et al., An analysis of SVD for deep rotation estimation, NeurIPS 2020.
    """
    with torch.autocast(matrix.device.type, enabled=False):
        rotation: Tensor = _NearestRotation.apply(matrix)  # type: ignore[no-untyped-call]
    return rotation


def matrix_from_axis_angle(axis_angle: Tensor) -> Tensor:
    """Rodrigues' formula, smooth at zero: (..., 3) axis times angle in radians, to (..., 3, 3)."""
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*x.shape, 3, 3)
    turns = torch.linalg.vector_norm(axis_angle, dim=-1)[..., None, None] / torch.pi
    eye = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    matrix: Tensor = eye + torch.sinc(turns) * cross + torch.sinc(turns / 2).square() / 2 * (cross @ cross)
    return matrix


def axis_angle_from_matrix(matrix: Tensor) -> Tensor:
    """Turn rotations (..., 3, 3) into axis times angle (..., 3), angles in [0, pi] radians."""
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in matrix.unbind(-2))
    # Four times the outer product of the quaternion (w, x, y, z) with itself: each row is the quaternion times one of its
    # numbers. The row of the largest is the exact one.
    products = torch.stack(
        [
            *(1 + a + e + i, h - f, c - g, d - b),
            *(h - f, 1 + a - e - i, b + d, c + g),
            *(c - g, b + d, 1 - a + e - i, f + h),
            *(d - b, c + g, f + h, 1 - a - e + i),
        ],
        dim=-1,
    ).reshape(*a.shape, 4, 4)
    largest = products.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
    wxyz = functional.normalize(products.take_along_dim(largest, dim=-2)[..., 0, :], dim=-1)
    wxyz = torch.where(wxyz[..., :1] < 0, -wxyz, wxyz)
    sine = torch.linalg.vector_norm(wxyz[..., 1:], dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, wxyz[..., :1])
    axis_angle: Tensor = wxyz[..., 1:] * angle / sine.clamp(min=torch.finfo(matrix.dtype).tiny)
    return axis_angle


class _NearestRotation(torch.autograd.Function):
    """M = R P with P symmetric: a change of M turns R by the skew W that solves R'dM - dM'R = W P + P W."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        u, size, vt = torch.linalg.svd(matrix)
        sign = torch.ones_like(size)
        sign[..., 2] = torch.where(torch.linalg.det(u @ vt) < 0, -1.0, 1.0)
        rotation: Tensor = u * sign[..., None, :] @ vt
        ctx.save_for_backward(rotation, size * sign, vt)
        return rotation

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        rotation, size, vt = ctx.saved_tensors
        turn = rotation.mT @ gradient
        # Two sizes that cancel leave the rotation undefined; the limit keeps its gradient finite.
        sums = (size[..., :, None] + size[..., None, :]).clamp(min=1e-6)
        change: Tensor = rotation @ vt.mT @ (vt @ (turn - turn.mT) @ vt.mT / sums) @ vt
        return change
