import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.support.toy_task import ToyTask, draw_example
from training.tasks.recipes import Variation
from training.views import STILL, cut_square, look, sample_draws, take


def picture_of_disc(x, y, size=200, radius=9):
    picture = np.zeros((size, size, 3), np.uint8)
    cv2.circle(picture, (round(x * 16), round(y * 16)), radius * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    return picture


def middle_of(image):
    weight = image[..., 0].astype(float)
    rows, columns = np.mgrid[: len(image), : len(image)]
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turn_rad", [0.0, 0.5, -0.9])
@pytest.mark.parametrize("image_px", [24, 64, 224])
def test_what_the_map_says_of_a_point_is_where_its_pixels_are(flip, turn_rad, image_px):
    x, y = 82.0, 118.0
    cut = cut_square(np.array([29.5, 39.5, 149.5, 159.5]), image_px=image_px, scale=1.1, turn_rad=turn_rad, flip=flip)
    told = cut.image_from_picture @ [x, y, 1]
    np.testing.assert_allclose(middle_of(take(picture_of_disc(x, y), cut)), told, atol=0.06)


def test_a_turn_is_clockwise_as_seen_and_a_mirror_comes_last():
    cut = cut_square(np.array([-0.5, -0.5, 99.5, 99.5]), image_px=100, turn_rad=math.pi / 2)
    above, right = np.array([49.5, 9.5, 1]), [89.5, 49.5]
    np.testing.assert_allclose(cut.image_from_picture @ above, right, atol=1e-9)
    mirrored = cut_square(np.array([-0.5, -0.5, 99.5, 99.5]), image_px=100, turn_rad=math.pi / 2, flip=True)
    np.testing.assert_allclose(mirrored.image_from_picture @ above, [9.5, 49.5], atol=1e-9)


def test_the_square_as_it_is_of_the_same_size_is_the_picture_itself():
    picture = draw_example("train", 3).rgb_HW3
    cut = cut_square(np.array([-0.5, -0.5, 63.5, 63.5]), image_px=64)
    assert (take(picture, cut) == picture).all()


def test_outside_the_picture_it_is_black():
    picture = np.full((50, 50, 3), 200, np.uint8)
    image = take(picture, cut_square(np.array([24.5, -0.5, 74.5, 49.5]), image_px=100))
    assert (image[5:-5, 2:48] == 200).all()
    assert (image[:, 52:] == 0).all()
    assert (take(picture, cut_square(np.array([99.5, 99.5, 149.5, 149.5]), image_px=10)) == 0).all()


def test_fine_stripes_become_gray_rather_than_a_false_pattern():
    picture = np.zeros((512, 512, 3), np.uint8)
    picture[:, ::2] = 255
    image = take(picture, cut_square(np.array([-0.5, -0.5, 511.5, 511.5]), image_px=60))
    assert image[2:-2, 2:-2].std() < 25, "of 127 where every other column is taken"
    assert abs(image[2:-2, 2:-2].mean() - 127.5) < 3


def test_draws_belong_to_their_place_and_keep_to_the_recipe():
    variation = Variation()
    places = np.arange(4000)
    draws = sample_draws(variation, places, seed=3)
    again = sample_draws(variation, places[100:110], seed=3)
    assert [d.turn_rad for d in again] == [d.turn_rad for d in draws[100:110]]
    turns = np.degrees([d.turn_rad for d in draws])
    assert abs((turns != 0).mean() - 0.4) < 0.03
    assert np.abs(turns).max() <= 60
    assert 25 < turns[turns != 0].std() < 30, "30 degrees, cut at 60"
    scales = np.array([d.scale for d in draws])
    assert (scales.min(), scales.max()) == (0.75, 1.25)
    assert 0.25 < (np.abs(scales - 1) > 0.2499).mean() < 0.39, "a third of a normal lies beyond one deviation"
    assert abs(np.mean([d.flip for d in draws]) - 0.5) < 0.03
    colours = np.array([d.colour_23 for d in draws])
    assert 0.6 <= colours.min() < 0.61
    assert 1.39 < colours.max() <= 1.4
    assert sample_draws(variation, places[:5], seed=4)[0].scale != draws[0].scale


def test_a_task_that_forbids_flips_and_turns_sees_none():
    class Strict(ToyTask):
        flips = turns = False

    draw = next(d for d in sample_draws(Variation(), np.arange(99), seed=0) if d.flip and d.turn_rad)
    assert look(draw_example("train", 0), ToyTask(), draw, image_px=32).cut.flipped
    cut = look(draw_example("train", 0), Strict(), draw, image_px=32).cut
    assert not cut.flipped
    assert cut.turn_rad == 0


def test_hands_of_the_other_side_are_always_mirrored_and_only_they():
    class RightHands(ToyTask):
        flips, side = False, "right"

    for side, mirrored in (("left", True), ("right", False)):
        example = replace(draw_example("train", 0), labels={"side": side})
        for draw in (STILL, *sample_draws(Variation(), np.arange(6), seed=0)):
            assert look(example, RightHands(), draw, image_px=32).cut.flipped is mirrored


def test_two_pictures_turn_and_mirror_together_and_differ_in_colour():
    example = draw_example("train", 1)
    twice = look(example, ToyTask(reads="two"), STILL, image_px=64)
    assert (twice.images[1] == example.rgb_HW3[:, ::-1]).all()
    draw = next(d for d in sample_draws(Variation(), np.arange(99), seed=0) if d.flip and not d.turn_rad)
    first, second = look(example, ToyTask(reads="two"), draw, image_px=64).images
    assert np.abs(first.astype(int) - second[:, ::-1]).mean() > 3, "colours are each picture's own"
    plain = look(
        example, ToyTask(reads="two"), type(draw)(**{**_values(draw), "colour_23": STILL.colour_23}), image_px=64
    )
    assert np.abs(plain.images[0].astype(int) - plain.images[1][:, ::-1]).mean() < 1


def _values(draw):
    return {name: getattr(draw, name) for name in draw.__slots__}
