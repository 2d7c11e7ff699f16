import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from synthetic.rotations import (
    align,
    axis_angle_from_matrix,
    axis_angle_from_quaternion,
    matrix_from_axis_angle,
    matrix_from_quaternion,
)

VECTORS = hnp.arrays(float, (4, 3), elements=st.floats(-2.5, 2.5, width=32))


@given(VECTORS)
def test_matrices_equal_scipys(vectors: np.ndarray) -> None:
    assert np.allclose(matrix_from_axis_angle(vectors), Rotation.from_rotvec(vectors).as_matrix(), atol=1e-9)


@given(VECTORS)
def test_axis_angle_comes_back_as_the_same_rotation(vectors: np.ndarray) -> None:
    matrices = matrix_from_axis_angle(vectors)
    back = axis_angle_from_matrix(matrices)
    assert np.allclose(matrix_from_axis_angle(back), matrices, atol=1e-6)
    assert (np.linalg.norm(back, axis=-1) <= np.pi + 1e-9).all()


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.6, 0.8, 0.0)])
def test_half_turns_are_safe(axis: tuple[float, float, float]) -> None:
    half = matrix_from_axis_angle(np.pi * np.array(axis))
    assert np.allclose(matrix_from_axis_angle(axis_angle_from_matrix(half)), half, atol=1e-7)


def test_quaternions_of_any_length_and_sign() -> None:
    quaternion = np.array([0.5, -0.1, 0.7, 0.3])
    expected = Rotation.from_quat(quaternion, scalar_first=True).as_matrix()
    for scale in (1.0, -1.0, 3.0):
        assert np.allclose(matrix_from_quaternion(scale * quaternion), expected)
    assert np.allclose(axis_angle_from_quaternion([-1.0, 0, 0, 0]), 0.0)


def test_align_takes_the_shortest_way() -> None:
    turn = align([2.0, 0.0, 0.0], [0.0, 3.0, 0.0])
    assert np.allclose(turn @ [1, 0, 0], [0, 1, 0])
    assert np.allclose(turn @ [0, 0, 1], [0, 0, 1])
    assert np.allclose(align([0.0, 0, 2], [0.0, 0, 1]), np.eye(3))
