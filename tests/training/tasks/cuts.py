"""Pictures cut into images in known ways."""

import cv2
import numpy as np

from training.examples.base import About, Example
from training.tasks.base import Cut

WAYS = [  # scale, turn in radians, flipped, shift of the middle in px
    (1.0, 0.0, False, (0.0, 0.0)),
    (0.7, 0.0, True, (3.0, -2.0)),
    (1.3, 0.6, False, (-4.0, 1.0)),
    (0.9, -1.1, True, (2.0, 5.0)),
]


def cut_of(picture_HW3, *, image_px=96, scale=1.0, turn_rad=0.0, flipped=False, shift_px=(0.0, 0.0)):
    """The middle of the picture, moved, becomes the middle of the image."""
    height, width = picture_HW3.shape[:2]
    size = scale * image_px / max(height, width)
    turn = np.array([[np.cos(turn_rad), -np.sin(turn_rad)], [np.sin(turn_rad), np.cos(turn_rad)]]) * size
    middle = np.array([(width - 1) / 2, (height - 1) / 2]) + shift_px
    move = (image_px - 1) / 2 - turn @ middle
    matrix = np.concatenate([turn, move[:, None]], axis=1)
    if flipped:
        matrix[0] = -matrix[0]
        matrix[0, 2] += image_px - 1
    return Cut(image_from_picture=matrix, turn_rad=turn_rad, flipped=flipped, image_px=image_px)


def image_of(picture_HW3, cut):
    return cv2.warpAffine(picture_HW3, cut.image_from_picture, (cut.image_px, cut.image_px), flags=cv2.INTER_LINEAR)


def example_of(picture_HW3=None, *, key="a", second_HW3=None, **labels):
    picture = np.zeros((80, 100, 3), np.uint8) if picture_HW3 is None else picture_HW3
    square = np.array([0.0, 0.0, picture.shape[1], picture.shape[0]]) - 0.5
    return Example(
        key=key,
        rgb_HW3=picture,
        square_xyxy_px=square,
        labels={name.rstrip("_"): value for name, value in labels.items()},
        second_HW3=second_HW3,
        second_square_xyxy_px=None if second_HW3 is None else square,
    )


def about_of(*labels, domain="body", **more):
    return About(name="made up", domain=domain, split="test", labels=labels, protocol="whole pictures", **more)
