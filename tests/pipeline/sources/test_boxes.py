"""Boxes of subjects in pictures."""

import numpy as np

from pipeline.sources.boxes import around, clipped, whole


def test_boxes_frame_the_points_that_are_seen() -> None:
    points = np.zeros((3, 17, 2))
    points[0, :4] = [[10, 20], [50, 20], [10, 100], [500, 500]]
    points[1, :2] = [5, 5]
    is_seen = np.zeros((3, 17), bool)
    is_seen[0, :3] = is_seen[1, :2] = True
    boxes = around(points, is_seen, 0.1)
    assert boxes[:2].tolist() == [[2, 12, 58, 108], [5, 5, 5, 5]]
    assert np.isnan(boxes[2]).all()
    assert around(points[0], is_seen[0]).tolist() == [10, 20, 50, 100]


def test_boxes_are_clipped_to_their_pictures() -> None:
    assert whole((640, 480)).tolist() == [-0.5, -0.5, 639.5, 479.5]
    boxes = [[-9, 5, 30, 900], [600, 0, np.inf, 9], [639, 0, 700, 9], [5, 5, 4, 9], [np.nan] * 4, [-9, -9, -3, 9]]
    inside = clipped(boxes, (640, 480))
    assert inside[:2].tolist() == [[-0.5, 5, 30, 479.5], [600, 0, 639.5, 9]]
    assert np.isnan(inside[2:]).all()  # less than a pixel, turned round, unknown, outside
    sizes = np.array([[20, 10], [640, 480]])
    assert clipped(boxes[:2], sizes).tolist() == [[-0.5, 5, 19.5, 9.5], [600, 0, 639.5, 9]]
    assert clipped(boxes[0], (640, 480)).tolist() == inside[0].tolist()
