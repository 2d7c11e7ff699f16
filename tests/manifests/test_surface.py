"""Covisibility of rendered people, against a plain loop."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from manifests.surface import SURFACE_CELLS, covisibility


@given(st.integers(0, 2**32 - 1), st.integers(0, 4))
def test_covisibility_equals_a_loop_over_cells(seed: int, num_pairs: int) -> None:
    rng = np.random.default_rng(seed)
    target, reference = rng.integers(0, 256, (2, num_pairs, 7)).astype(np.uint8) * rng.integers(
        0, 2, (2, num_pairs, 7), dtype=np.uint8
    )
    for share, own, other in zip(covisibility(target, reference), target.tolist(), reference.tolist(), strict=True):
        if not any(own):
            assert np.isnan(share)
        else:
            assert share == sum(a for a, b in zip(own, other, strict=True) if b) / sum(own)


def test_saturated_cells_do_not_overflow() -> None:
    full = np.full((1, SURFACE_CELLS), 255, np.uint8)
    half = full.copy()
    half[:, ::2] = 0
    assert covisibility(full, half) == 0.5
    assert covisibility(half, full) == 1.0
