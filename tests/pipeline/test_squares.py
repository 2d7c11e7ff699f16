"""Squares of whole pixels: where they lie, what is cut out of them, and masks carried from one to another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.geometry import crop_from_frame
from pipeline.squares import Square, carry, cut, inside, square_of, square_within

SIDES = st.integers(8, 60)


@st.composite
def boxes_within(draw):
    """An image's size, and a box inside it."""
    width, height = draw(st.integers(8, 400)), draw(st.integers(8, 400))
    x = sorted(draw(st.lists(st.floats(-0.5, width - 0.5), min_size=2, max_size=2)))
    y = sorted(draw(st.lists(st.floats(-0.5, height - 0.5), min_size=2, max_size=2)))
    return width, height, np.array([x[0], y[0], max(x[1], x[0] + 0.01), max(y[1], y[0] + 0.01)])


def test_square_spans_whole_pixels():
    assert Square(3, 4, 10).xyxy_px().tolist() == [2.5, 3.5, 12.5, 13.5]


@given(boxes_within(), st.floats(1, 3), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
def test_square_of_is_centred_on_the_box(case, margin, dx, dy):
    _, _, box = case
    square = square_of(box, margin=margin, shift=(dx, dy))
    assert all(isinstance(part, int) for part in square)
    longer = max(box[2] - box[0], box[3] - box[1])
    assert square.side == max(1, round(longer * margin))
    middle = np.array([square.xyxy_px()[:2], square.xyxy_px()[2:]]).mean(axis=0)
    wanted = (box[:2] + box[2:]) / 2 + square.side * np.array([dx, dy])
    assert np.abs(middle - wanted).max() <= 0.5 + 1e-9


@given(boxes_within(), st.floats(1, 3))
def test_square_within_holds_the_person_and_invents_few_pixels(case, margin):
    width, height, box = case
    square = square_within(box, margin=margin, width=width, height=height)
    assert all(isinstance(part, int) for part in square)
    around = square.xyxy_px()
    assert (around[:2] <= box[:2] + 1).all()
    assert (around[2:] >= box[2:] - 1).all()
    longer = max(box[2] - box[0], box[3] - box[1])
    assert square.side <= max(1, round(longer * margin))
    x_in, y_in = 0 <= square.x0 <= width - square.side, 0 <= square.y0 <= height - square.side
    if longer <= min(width, height):
        assert x_in, "padded without need"
        assert y_in, "padded without need"
    else:  # longer than the image's shorter side: padded across it only, by as much on both sides
        assert square.side <= max(width, height)
        assert y_in if height > width else x_in
        across = width - square.side if width < height else height - square.side
        assert (square.x0 if width < height else square.y0) == across // 2


def test_square_within_slides_inwards_and_gives_up_margin():
    free = square_within(np.array([100.0, 100, 140, 180]), margin=1.25, width=400, height=300)
    assert free == Square(70, 90, 100)
    at_edge = square_within(np.array([-0.5, 100, 39.5, 180]), margin=1.25, width=400, height=300)
    assert at_edge == Square(0, 90, 100)
    tall = square_within(np.array([100.0, 9.5, 180, 289.5]), margin=1.25, width=400, height=300)
    assert (tall.side, tall.y0) == (300, 0)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(-80, 80), st.integers(-80, 80), st.integers(1, 60))
def test_cut_repeats_edges_outside(width, height, x0, y0, side):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    rows, columns = np.clip(np.arange(y0, y0 + side), 0, height - 1), np.clip(np.arange(x0, x0 + side), 0, width - 1)
    assert (cut(image, Square(x0, y0, side), side) == image[rows[:, None], columns]).all()
    assert (cut(image[..., 0], Square(x0, y0, side), side) == image[rows[:, None], columns, 0]).all()


@given(st.integers(1, 6), st.integers(4, 16))
def test_cut_shrinks_by_the_mean_of_the_area(factor, size):
    image = np.random.default_rng(1).integers(0, 256, (120, 120), dtype=np.uint8)
    out = cut(image, Square(5, 7, factor * size), size)
    part = image[7 : 7 + factor * size, 5 : 5 + factor * size].astype(float)
    assert np.abs(out - part.reshape(size, factor, size, factor).mean(axis=(1, 3))).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("size", [32, 64, 96, 256])
def test_cut_puts_points_where_the_crop_camera_says(size):
    """The mass of a bright blob lands where `crop_from_frame` maps its centre."""
    y, x = np.mgrid[:120, :160]
    image = (255 * np.exp(-((x - 70.3) ** 2 + (y - 50.6) ** 2) / 50)).astype(np.uint8)
    square = Square(30, 10, 80)
    out = cut(image, square, size).astype(float)
    at = np.arange(size)
    found = np.array([out.sum(axis=0) @ at, out.sum(axis=1) @ at]) / out.sum()
    wanted = crop_from_frame(square.xyxy_px(), size) @ [70.3, 50.6, 1]
    assert np.abs(found - wanted[:2]).max() < 0.05 * max(1, size / 80)


def slow_carry(grid, source, target, size):
    """Bilinear, cell by cell; zero outside."""
    cells = len(grid)
    padded = np.pad(grid, 1)
    out = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            x = (target.x0 + (column + 0.5) * target.side / size - source.x0) * cells / source.side - 0.5
            y = (target.y0 + (row + 0.5) * target.side / size - source.y0) * cells / source.side - 0.5
            i, j = int(np.floor(y)), int(np.floor(x))
            for di, dj in ((0, 0), (0, 1), (1, 0), (1, 1)):
                if -1 <= i + di <= cells and -1 <= j + dj <= cells:
                    out[row, column] += (1 - abs(y - i - di)) * (1 - abs(x - j - dj)) * padded[i + di + 1, j + dj + 1]
    return out


@given(SIDES, SIDES, st.integers(-20, 20), st.integers(-20, 20))
def test_carry_against_its_slow_twin(old, new, dx, dy):
    grid = np.random.default_rng(old).uniform(0, 1, (24, 24)).astype(np.float32)
    source, target = Square(5, -3, old), Square(5 + dx, -3 + dy, new)
    # OpenCV places samples on a grid of 1/32 cell: up to 1/64 off in each direction.
    assert np.abs(carry(grid, source, target, 20) - slow_carry(grid, source, target, 20)).max() < 0.04


@given(SIDES)
def test_carry_onto_itself_changes_nothing(side):
    grid = np.random.default_rng(side).uniform(0, 1, (32, 32)).astype(np.float32)
    square = Square(-4, 9, side)
    assert np.allclose(carry(grid, square, square, 32), grid)


def test_carry_is_zero_outside():
    ones = np.ones((16, 16), np.float32)
    assert not carry(ones, Square(0, 0, 16), Square(40, 0, 16), 16).any()
    half = carry(ones, Square(0, 0, 16), Square(8, 0, 16), 16)
    assert (half[:, :8] == 1).all()
    assert not half[:, 8:].any()


@given(st.integers(-30, 30), st.integers(-30, 30), st.integers(150, 300))
def test_a_mask_carried_to_a_larger_square_and_back_is_the_same(dx, dy, side):
    y, x = np.mgrid[:128, :128]
    mask = ((x - 60) / 25) ** 2 + ((y - 66) / 45) ** 2 < 1
    home, away = Square(100, 50, 128), Square(100 + (128 - side) // 2 + dx // 4, 50 + (128 - side) // 2 + dy // 4, side)
    there = carry(mask.astype(np.float32), home, away, 256)
    back = carry(there, away, home, 128) > 0.5
    assert (back & mask).sum() / (back | mask).sum() > 0.97


@given(st.integers(-20, 50), st.integers(-20, 50), st.integers(1, 60), st.integers(1, 30))
def test_inside_says_which_cells_lie_in_the_image(x0, y0, side, size):
    width, height = 37, 23
    found = inside(Square(x0, y0, side), size, width=width, height=height)
    for row in range(size):
        for column in range(size):
            x, y = x0 + (column + 0.5) * side / size, y0 + (row + 0.5) * side / size  # from the image's corner
            if min(abs(x), abs(x - width), abs(y), abs(y - height)) > 1e-9:
                assert found[row, column] == (0 < x < width and 0 < y < height)
