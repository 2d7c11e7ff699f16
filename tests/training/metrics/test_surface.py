from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.metrics import plain
from training.metrics.surface import Surface, geodesic_auc, geodesic_errors_m

PARTS = 3


def surface(seed=0, num_vertices=24):
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(num_vertices, 3))
    distance = np.linalg.norm(places[:, None] - places, axis=-1)
    part = np.arange(num_vertices) % PARTS + 1
    return Surface(part_X=part, uv_X2=rng.random((num_vertices, 2)), distance_XX_m=distance)


def slow_errors(predicted_part, predicted_uv, true_part, true_uv, on):
    def vertex(part, uv):
        own = [x for x in range(len(on.part_X)) if on.part_X[x] == part]
        return min(own, key=lambda x: plain.distance(uv, on.uv_X2[x]))

    errors = []
    for a_part, a_uv, b_part, b_uv in zip(predicted_part, predicted_uv, true_part, true_uv, strict=True):
        errors.append(float("inf") if a_part == 0 else on.distance_XX_m[vertex(a_part, a_uv), vertex(b_part, b_uv)])
    return errors


@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_errors_are_their_slow_twin(seed, num):
    rng, on = np.random.default_rng(seed), surface()
    predicted, true = rng.integers(0, PARTS + 1, num), rng.integers(1, PARTS + 1, num)
    predicted_uv, true_uv = rng.random((2, num, 2))
    errors = geodesic_errors_m(predicted, predicted_uv, true, true_uv, surface=on)
    np.testing.assert_array_equal(errors, slow_errors(predicted, predicted_uv, true, true_uv, on))
    np.testing.assert_array_equal(geodesic_errors_m(true, true_uv, true, true_uv, surface=on), 0)


def test_the_nearest_vertex_is_of_the_part_even_when_another_part_is_nearer():
    on = Surface(part_X=np.array([1, 2]), uv_X2=np.array([[0.0, 0.0], [0.5, 0.5]]), distance_XX_m=1 - np.eye(2))
    assert on.nearest([1, 2, 0], [[0.5, 0.5], [0.0, 0.0], [np.nan, np.nan]]).tolist() == [0, 1, -1]


def test_many_pixels_are_done_in_pieces():
    on, rng = surface(), np.random.default_rng(1)
    part, uv = rng.integers(1, PARTS + 1, 13000), rng.random((13000, 2))
    found = on.nearest(part, uv)
    assert found[::1000].tolist() == [on.nearest(part[i : i + 1], uv[i : i + 1])[0] for i in range(0, 13000, 1000)]
    assert (on.part_X[found] == part).all()


@given(st.lists(st.floats(0, 1) | st.just(np.inf), min_size=1, max_size=20), st.floats(0.01, 1))
def test_the_area_is_the_integral_of_the_share(errors, limit_m):
    score = geodesic_auc(errors, limit_m=limit_m)
    # The curve is a staircase: between its steps it is constant, so the sum over them is exact.
    steps = sorted({0.0, limit_m, *(e for e in errors if e < limit_m)})
    area = sum((b - a) * sum(e <= a for e in errors) / len(errors) for a, b in pairwise(steps))
    assert score == pytest.approx(area / limit_m, abs=1e-12)
    assert 0 <= score <= geodesic_auc(errors, limit_m=2 * limit_m) <= 1


def test_closed_forms():
    assert geodesic_auc([0.0, np.inf], limit_m=0.1) == 0.5
    assert geodesic_auc([0.05], limit_m=0.1) == pytest.approx(0.5)
    assert geodesic_auc([0.3], limit_m=0.3) == 0


def test_mistakes_are_told():
    on, uv = surface(), np.zeros((1, 2))
    with pytest.raises(ValueError, match="annotated pixel is of the background"):
        geodesic_errors_m([1], uv, [0], uv, surface=on)
    with pytest.raises(ValueError, match="part 9 has no vertices"):
        geodesic_errors_m([9], uv, [1], uv, surface=on)
    with pytest.raises(ValueError, match=r"\(u, v\) on part 1 is not finite"):
        geodesic_errors_m([1], uv * np.nan, [1], uv, surface=on)
    for bad in ([], [np.nan], [-1.0]):
        with pytest.raises(ValueError, match="must be distances"):
            geodesic_auc(bad, limit_m=0.1)
    with pytest.raises(ValueError, match="must be"):
        Surface(part_X=np.array([1, 2]), uv_X2=np.zeros((2, 2)), distance_XX_m=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="part from 1 on"):
        Surface(part_X=np.array([0, 1]), uv_X2=np.zeros((2, 2)), distance_XX_m=np.zeros((2, 2)))
