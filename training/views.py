"""From an annotated picture to the square image a network sees: cut, turned, scaled, mirrored, with other colours.

Shape letters: `B` examples, `U` numbers drawn for one, `H W` picture. Convention: pixel (0, 0) is the centre of the first pixel;
what lies outside a picture is black.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from manifests.seeds import seed_for
from training.examples.base import Example
from training.noise import uniform_noise
from training.tasks.base import Cut, Task
from training.tasks.recipes import Variation

Image = npt.NDArray[np.uint8]
_NUMBERS = 12  # flip, turned, two for the turn, two for the scale, three channels of each picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What is varied of one example.

    Args:
        flip: mirror both pictures, where the task allows it.
        turn_rad: turn both, clockwise as seen, where the task allows it.
        scale: of both squares.
        colour_23: factors of the channels of each picture.
    """

    flip: bool
    turn_rad: float
    scale: float
    colour_23: npt.NDArray[np.float32]


STILL = Draw(flip=False, turn_rad=0.0, scale=1.0, colour_23=np.ones((2, 3), np.float32))
"""An example as it is, for evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One example as a network sees it.

    Args:
        images: one picture, or two for a task on two; uint8, square.
        cut: how the first one came about.
    """

    images: tuple[Image, ...]
    cut: Cut


def sample_draws(variation: Variation, position_B: npt.NDArray[np.int64], *, seed: int) -> list[Draw]:
    """Draw from (seed, place in the stream): the same whatever else is in the batch."""
    u_BU = uniform_noise(seed_for(seed, "variation"), position_B, _NUMBERS)
    normal_B2 = np.sqrt(-2 * np.log1p(-u_BU[:, 2:6:2])) * np.cos(2 * math.pi * u_BU[:, 3:6:2])
    turn_B = np.clip(variation.turn_deg * normal_B2[:, 0], -2 * variation.turn_deg, 2 * variation.turn_deg)
    turn_B = np.radians(np.where(u_BU[:, 1] < variation.turned, turn_B, 0.0))
    scale_B = 1 + np.clip(variation.scale * normal_B2[:, 1], -variation.scale, variation.scale)
    colour_B23 = (1 + variation.noise * (2 * u_BU[:, 6:] - 1)).astype(np.float32).reshape(-1, 2, 3)
    return [
        Draw(flip=bool(u < variation.flip), turn_rad=float(turn), scale=float(scale), colour_23=colour_23)
        for u, turn, scale, colour_23 in zip(u_BU[:, 0], turn_B, scale_B, colour_B23, strict=True)
    ]


def look(example: Example, task: Task, draw: Draw, *, image_px: int) -> View:
    """Cut an example out as the task reads it.

    A task on hands of one side sees the other side's mirrored, and only those. Where a task reads two pictures and an example has one,
    that one is seen twice, its colours varied anew.
    """
    side = getattr(task, "side", None)
    flip = draw.flip and task.flips if side is None else example.labels["side"] != side
    turn_rad = draw.turn_rad if task.turns else 0.0

    def seen(picture: Image, square: npt.NDArray[np.float64], colour_3: npt.NDArray[np.float32]) -> tuple[Image, Cut]:
        cut = cut_square(square, image_px=image_px, scale=draw.scale, turn_rad=turn_rad, flip=flip)
        image = take(picture, cut)
        return image if draw is STILL else _coloured(image, colour_3), cut

    image, cut = seen(example.rgb_HW3, example.square_xyxy_px, draw.colour_23[0])
    if task.reads != "two":
        return View(images=(image,), cut=cut)
    second, square = example.second_HW3, example.second_square_xyxy_px
    if second is None or square is None:
        second, square = example.rgb_HW3, example.square_xyxy_px
    return View(images=(image, seen(second, square, draw.colour_23[1])[0]), cut=cut)


def cut_square(
    square_xyxy_px: npt.NDArray[np.float64],
    *,
    image_px: int,
    scale: float = 1.0,
    turn_rad: float = 0.0,
    flip: bool = False,
) -> Cut:
    """Place a square of a picture in an image: scaled around its centre, turned clockwise, then mirrored."""
    centre_2 = (square_xyxy_px[:2] + square_xyxy_px[2:]) / 2
    px = image_px / (scale * (square_xyxy_px[2] - square_xyxy_px[0]))
    cos, sin = px * math.cos(turn_rad), px * math.sin(turn_rad)
    linear_22 = np.array([[cos, -sin], [sin, cos]])
    if flip:
        linear_22[0] *= -1
    middle = (image_px - 1) / 2
    image_from_picture = np.column_stack([linear_22, middle - linear_22 @ centre_2])
    return Cut(image_from_picture=image_from_picture, turn_rad=turn_rad, flipped=flip, image_px=image_px)


def take(picture_HW3: Image, cut: Cut) -> Image:
    """The image of a cut; a picture that is much larger is averaged first, so that fine patterns don't flicker."""
    linear_22, shift_2 = cut.image_from_picture[:, :2], cut.image_from_picture[:, 2]
    near, far = -0.5, cut.image_px - 0.5
    corners_42 = np.array([[near, near], [near, far], [far, near], [far, far]])
    inside_42 = (corners_42 - shift_2) @ np.linalg.inv(linear_22).T
    height, width = picture_HW3.shape[:2]
    factor = max(1, int(1 / math.sqrt(abs(np.linalg.det(linear_22)))))
    low = np.clip(np.floor(inside_42.min(axis=0)).astype(int) - factor, 0, [width, height])
    high = np.clip(np.ceil(inside_42.max(axis=0)).astype(int) + 1 + factor, 0, [width, height])
    if (high - low < factor).any():
        return np.zeros((cut.image_px, cut.image_px, 3), np.uint8)
    # Whole blocks only: each new pixel is the mean of factor x factor old ones.
    size = (high - low) // factor
    part = picture_HW3[low[1] : low[1] + size[1] * factor, low[0] : low[0] + size[0] * factor]
    if factor > 1:
        part = np.asarray(cv2.resize(part, (int(size[0]), int(size[1])), interpolation=cv2.INTER_AREA), np.uint8)
    middle = low + (factor - 1) / 2  # of the first block, in the picture
    matrix_23 = np.column_stack([linear_22 * factor, linear_22 @ middle + shift_2])
    image = cv2.warpAffine(part, matrix_23, (cut.image_px, cut.image_px), flags=cv2.INTER_LINEAR)
    return np.asarray(image, np.uint8)


def _coloured(image_HW3: Image, colour_3: npt.NDArray[np.float32]) -> Image:
    levels = np.arange(256, dtype=np.float32)[:, None] * colour_3
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image_HW3, table[:, None]), np.uint8)
