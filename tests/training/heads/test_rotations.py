import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from training.heads.rotations import (
    axis_angle_from_matrix,
    matrix_from_axis_angle,
    matrix_from_sixd,
    nearest_rotation,
    sixd_from_matrix,
)

SEEDS = st.integers(0, 2**32 - 1)
EYE = torch.eye(3, dtype=torch.float64)


def drawn(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def rotations(seed, num=5):
    return torch.from_numpy(Rotation.random(num, rng=np.random.default_rng(seed)).as_matrix())


def assert_rotations(matrices):
    torch.testing.assert_close(matrices @ matrices.mT, EYE.expand_as(matrices), rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(matrices.shape[:-2], dtype=torch.float64))


@given(SEEDS)
def test_two_columns_become_a_rotation(seed):
    numbers = drawn(seed, 4, 2, 6)
    matrices = matrix_from_sixd(numbers)
    assert_rotations(matrices)
    for six, matrix in zip(numbers.reshape(-1, 6), matrices.reshape(-1, 3, 3), strict=True):
        first, second = six[[0, 2, 4]], six[[1, 3, 5]]
        torch.testing.assert_close(matrix[:, 0], first / first.norm())
        assert matrix[:, 1] @ second > 0
        torch.testing.assert_close(matrix[:, 2] @ torch.stack([first, second]).T, torch.zeros(2).double())
    torch.testing.assert_close(matrix_from_sixd(3.5 * numbers), matrices)


@given(SEEDS)
def test_round_trips(seed):
    matrices = rotations(seed).reshape(5, 1, 3, 3)
    torch.testing.assert_close(matrix_from_sixd(sixd_from_matrix(matrices)), matrices)
    torch.testing.assert_close(matrix_from_axis_angle(axis_angle_from_matrix(matrices)), matrices)
    vectors = 0.9 * torch.nn.functional.normalize(drawn(seed, 7, 3), dim=-1) * torch.linspace(0, 3.4, 7)[:, None]
    torch.testing.assert_close(axis_angle_from_matrix(matrix_from_axis_angle(vectors)), vectors)


@given(SEEDS, st.sampled_from([0.0, 1e-12, 1e-6, 1e-3, 1.0, 3.0, np.pi - 1e-6, np.pi]))
def test_axis_angle_is_scipys(seed, angle_rad):
    vectors = angle_rad * torch.nn.functional.normalize(drawn(seed, 3, 3), dim=-1)
    matrices = matrix_from_axis_angle(vectors)
    torch.testing.assert_close(matrices, torch.from_numpy(Rotation.from_rotvec(vectors.numpy()).as_matrix()))
    back = axis_angle_from_matrix(matrices)
    torch.testing.assert_close(back.norm(dim=-1), vectors.norm(dim=-1), rtol=0, atol=1e-7)
    torch.testing.assert_close(matrix_from_axis_angle(back), matrices, rtol=0, atol=1e-10)
    if 1e-4 < angle_rad < 3.1:
        torch.testing.assert_close(back, vectors)


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_about_the_axes(axis):
    half = torch.diag(torch.where(torch.arange(3) == axis, 1.0, -1.0))
    expected = torch.pi * torch.eye(3)[axis]
    torch.testing.assert_close(axis_angle_from_matrix(half).abs(), expected)


@given(SEEDS)
def test_the_nearest_rotation_is_nearest(seed):
    matrices = drawn(seed, 5, 3, 3)  # about half of them mirror
    nearest = nearest_rotation(matrices)
    assert_rotations(nearest)
    others = torch.cat([rotations(seed, 50), nearest[0] @ matrix_from_axis_angle(0.01 * drawn(seed, 50, 3))])
    least = (nearest - matrices).square().sum((1, 2))
    assert ((others[:, None] - matrices).square().sum((2, 3)) >= least - 1e-12).all()


@given(SEEDS, st.floats(0.01, 100))
def test_a_rotation_of_any_size_is_its_own_nearest(seed, size):
    torch.testing.assert_close(nearest_rotation(size * rotations(seed)), rotations(seed))


@pytest.mark.parametrize("seed", range(4))
def test_gradients(seed):
    def check(function, at):
        assert torch.autograd.gradcheck(function, (at.requires_grad_(),), eps=1e-6, atol=1e-6)

    check(matrix_from_sixd, drawn(seed, 2, 6))
    check(matrix_from_axis_angle, drawn(seed, 2, 3))
    check(nearest_rotation, drawn(seed, 2, 3, 3))


def test_gradients_where_formulas_divide_by_zero():
    assert torch.autograd.gradcheck(matrix_from_axis_angle, (torch.zeros(2, 3).double().requires_grad_(),), atol=1e-6)
    # At a rotation all singular values are equal: the gradient through the singular vectors would be NaN.
    assert torch.autograd.gradcheck(nearest_rotation, (rotations(0, 2).requires_grad_(),), atol=1e-6)
    assert torch.autograd.gradcheck(nearest_rotation, ((2 * EYE)[None].requires_grad_(),), atol=1e-6)
    for undefined in (torch.zeros(1, 3, 3), -torch.eye(3)[None]):
        undefined.requires_grad_()
        nearest_rotation(undefined)[0, 0, 1].backward()
        assert undefined.grad.isfinite().all()


def test_mixed_precision_keeps_rotations_exact():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        matrices = nearest_rotation(torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3).expand(4, 3, 3), rtol=0, atol=1e-5)
