import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.metrics import plain
from training.metrics.images import ssim


def image(seed, side=14, colours=2):
    return np.random.default_rng(seed).random((colours, side, side + 1))


@pytest.mark.parametrize("seed", range(3))
def test_ssim_is_its_slow_twin(seed):
    a = image(seed)
    b = np.clip(a + 0.2 * image(seed + 9) - 0.1, 0, 1)
    assert ssim(a, b) == pytest.approx(plain.ssim(a, b), abs=1e-12)
    assert 0.5 < ssim(a, b) < 1


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_bounds_and_symmetry(seed_a, seed_b):
    a, b = image(seed_a), image(seed_b)
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)
    assert -1 <= ssim(a, b) <= 1 + 1e-12
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12)
    assert ssim(a[:, ::-1], b[:, ::-1]) == pytest.approx(ssim(a, b), abs=1e-12)


def test_flat_images_differ_in_shade_alone():
    a, b = np.full((1, 12, 12), 0.25), np.full((1, 12, 12), 0.75)
    assert ssim(a, b) == pytest.approx((2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4))


def test_a_negative_is_worse_than_noise():
    a = image(0)
    assert ssim(a, 1 - a) < 0 < ssim(a, np.clip(a + 0.1 * image(1), 0, 1))


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="of at least 11 px"):
        ssim(np.zeros((1, 10, 20)), np.zeros((1, 10, 20)))
    with pytest.raises(ValueError, match="are needed, not"):
        ssim(np.zeros((1, 12, 12)), np.zeros((3, 12, 12)))
    for bad in (np.nan, 255.0, -0.1):
        with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
            ssim(np.zeros((1, 12, 12)), np.full((1, 12, 12), bad))
