"""What is wrong with a picture: frozen, black, a cut, missing time; and the hash that tells pictures apart."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.types import Reason
from pipeline.quality import Watch, gaps, perceptual_hash
from pipeline.recipes import CropRecipe

RECIPE = CropRecipe()


def landscape(seed, *, size=(320, 240)):
    """A smooth picture with detail, unlike those of other seeds."""
    rng = np.random.default_rng(seed)
    width, height = size
    layers = [
        share * cv2.resize(rng.uniform(0, 255, (cells, cells, 3)), size, interpolation=cv2.INTER_CUBIC)
        for cells, share in ((4, 0.5), (12, 0.3), (40, 0.2))
    ]
    return np.clip(sum(layers), 20, 235).astype(np.uint8).reshape(height, width, 3)


def looks(*pictures):
    watch = Watch(RECIPE)
    return [watch.look(picture) for picture in pictures]


def gray(luma):
    return np.repeat(luma[..., None], 3, axis=2).astype(np.uint8)


def test_the_first_picture_has_nothing_to_differ_from():
    (verdict,) = looks(landscape(0))
    assert (verdict.difference, verdict.reason, verdict.cut) == (None, None, False)


@given(st.integers(0, 600))
def test_frozen_below_a_mean_difference_of_a_sixteenth_of_a_level(changed):
    """Of 4096 gray pixels, `changed` rise by one level."""
    before = np.full((64, 64), 100)
    after = before.copy().ravel()
    after[:changed] += 1
    _, verdict = looks(gray(before), gray(after.reshape(64, 64)))
    assert verdict.difference == pytest.approx(changed / 4096)
    assert (verdict.reason is Reason.FROZEN) == (changed < 256)
    assert not verdict.cut


def test_a_frozen_picture_is_held_against_the_picture_before_it_each_time():
    one, other = landscape(0), np.roll(landscape(0), 3, axis=1)
    assert [v.reason for v in looks(one, one, one, other, other)] == [
        None, Reason.FROZEN, Reason.FROZEN, None, Reason.FROZEN,
    ]  # fmt: skip


@given(st.integers(0, 40))
def test_black_below_the_mean_of_the_recipe(level):
    (verdict,) = looks(np.full((48, 64, 3), level, np.uint8))
    assert (verdict.reason is Reason.BLACK) == (level < RECIPE.black_mean)
    assert (verdict.detail == f"mean luma {level:.1f}") == (level < RECIPE.black_mean)


def test_black_pictures_are_passed_over():
    black = np.zeros((240, 320, 3), np.uint8)
    same = looks(landscape(0), black, black, landscape(0))
    assert [v.reason for v in same] == [None, Reason.BLACK, Reason.BLACK, Reason.FROZEN]
    other = looks(landscape(0), black, landscape(1))
    assert other[2].cut
    assert other[2].reason is None


@pytest.mark.parametrize("seed", range(10))
def test_another_scene_is_a_cut(seed):
    _, verdict = looks(landscape(seed), landscape(seed + 100))
    assert verdict.cut
    assert verdict.reason is None
    assert "correlation" in verdict.detail


def test_a_fast_pan_is_no_cut():
    wide = landscape(3, size=(640, 240))
    verdicts = looks(*[wide[:, x : x + 320] for x in range(0, 320, 16)])  # 5 % of the width each frame
    assert not any(v.cut for v in verdicts)
    assert max(v.difference for v in verdicts[1:]) > RECIPE.cut_difference, "the pan is not fast enough to be a test"


@pytest.mark.parametrize("gain", [0.5, 0.7, 1.4, 1.8])
def test_an_exposure_jump_is_no_cut(gain):
    before = landscape(4)
    _, verdict = looks(before, np.clip(before * gain, 0, 255).astype(np.uint8))
    assert not verdict.cut
    assert verdict.difference > RECIPE.cut_difference


def test_another_size_is_a_cut():
    _, verdict = looks(landscape(0), landscape(0, size=(240, 320)))
    assert verdict.cut
    assert verdict.detail == "the size changes"
    assert verdict.difference is None


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.floats(1.5, 5))
def test_gaps_are_the_steps_above_some_usual_steps(steps, factor):
    clock = np.cumsum([0, *steps]).tolist()
    usual = float(np.median(steps))
    slow = [False] + [after - before > factor * usual for before, after in pairwise(clock)]
    assert gaps(clock, factor=factor).tolist() == slow


@given(st.integers(2, 60), st.floats(0.001, 10), st.floats(0, 1000))
def test_a_regular_clock_has_no_gap(count, step, start):
    assert not gaps([start + step * i for i in range(count)], factor=2.5).any()


def test_a_missing_stretch_is_one_gap():
    instants = [i for i in range(30) if i not in (10, 11)]
    assert np.flatnonzero(gaps(instants, factor=2.5)).tolist() == [10]
    one_dropped = [i for i in range(30) if i != 10]
    assert not gaps(one_dropped, factor=2.5).any()


@pytest.mark.parametrize("clock", [[], [3.0], [3.0, 3.0, 3.0], [2.0, 1.0, 0.0]])
def test_clocks_that_do_not_run_have_no_gap(clock):
    assert gaps(clock, factor=2.5).tolist() == [False] * len(clock)


def bits_apart(a, b):
    return (perceptual_hash(a) ^ perceptual_hash(b)).bit_count()


def luma(seed):
    return cv2.cvtColor(landscape(seed), cv2.COLOR_RGB2GRAY)


@given(st.integers(0, 30))
def test_hash_changes_little_with_size_light_and_noise(seed):
    picture = luma(seed)
    assert bits_apart(picture, picture) == 0
    assert bits_apart(picture, cv2.resize(picture, (160, 120), interpolation=cv2.INTER_AREA)) <= 4
    assert bits_apart(picture, picture + 15) <= 4
    assert bits_apart(picture, (picture * 0.7).astype(np.uint8)) <= 4
    noise = np.random.default_rng(seed).normal(0, 3, picture.shape)
    assert bits_apart(picture, np.clip(picture + noise, 0, 255).astype(np.uint8)) <= 4


@given(st.integers(0, 30))
def test_hash_tells_pictures_apart(seed):
    assert bits_apart(luma(seed), luma(seed + 100)) >= 12
    assert bits_apart(luma(seed), luma(seed)[:, ::-1]) >= 12


@given(st.integers(0, 255), st.integers(1, 70), st.integers(1, 70))
def test_hash_of_any_picture_fits_64_bits(level, width, height):
    assert 0 <= perceptual_hash(np.full((height, width), level, np.uint8)) < 2**64
