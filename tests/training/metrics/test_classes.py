import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.metrics.classes import best_view_top1, top1


def drawn(seed, num=12, classes=4):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num, classes)), rng.integers(0, classes, num)


def slow_softmax(row):
    parts = [math.exp(x) for x in row]
    return [part / sum(parts) for part in parts]


@given(st.integers(0, 2**32 - 1), st.floats(-5, 5), st.floats(0.1, 9))
def test_top1_is_its_slow_twin(seed, shift, scale):
    logits, labels = drawn(seed)
    right = sum(all(row[label] >= x for x in row) for row, label in zip(logits, labels, strict=True))
    assert top1(logits, labels) == right / 12
    assert top1(scale * logits + shift, labels) == right / 12


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_best_view_is_its_slow_twin(seed, num_instances):
    logits, _ = drawn(seed)
    rng = np.random.default_rng(seed)
    instances, label_of = rng.integers(0, num_instances, 12), rng.integers(0, 4, num_instances)
    right, seen = 0, sorted(set(instances.tolist()))
    for instance in seen:
        rows = [slow_softmax(row) for row, own in zip(logits, instances, strict=True) if own == instance]
        best = max(rows, key=max)
        right += best.index(max(best)) == label_of[instance]
    assert best_view_top1(logits, label_of[instances], instances) == right / len(seen)


def test_best_view_of_lone_views_is_top1():
    logits, labels = drawn(1)
    assert best_view_top1(logits, labels, [f"grasp {i}" for i in range(12)]) == top1(logits, labels)


def test_the_surest_view_decides():
    logits = [[3.0, 0.0], [0.0, 9.0]]
    assert top1(logits, [0, 0]) == 0.5
    assert best_view_top1(logits, [0, 0], ["cup", "cup"]) == 0
    assert best_view_top1(logits, [1, 1], ["cup", "cup"]) == 1
    assert best_view_top1([[1000.0, 0.0], [0.0, 1.0]], [0, 0], ["cup", "cup"]) == 1  # no overflow


def test_the_first_of_equal_logits_is_the_prediction():
    assert top1(np.zeros((2, 3)), [0, 2]) == 0.5


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="a logit is NaN"):
        top1([[np.nan, 1.0]], [0])
    with pytest.raises(ValueError, match="none of the 2 classes"):
        top1([[0.0, 1.0]], [2])
    with pytest.raises(ValueError, match="with a label each"):
        top1([[0.0, 1.0]], [0, 1])
    with pytest.raises(ValueError, match="instance 7 have different labels"):
        best_view_top1(np.eye(2), [0, 1], [7, 7])
    with pytest.raises(ValueError, match="instances for"):
        best_view_top1(np.eye(2), [0, 1], [7])
