"""Silhouettes from masks, vertices and keypoints, held against shapes whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.geometry import crop_from_frame
from pipeline.silhouettes import TO_COCO17, coco17_of, from_coco17, from_limbs, from_mask, from_vertices, gate
from tests.support import honest

SIZE = 256
CROP = crop_from_frame(np.array([99.5, 49.5, 299.5, 249.5]), SIZE)  # 200 px of the frame


def disc(x, y, radius, shape=(300, 400)):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def true_disc(x, y, radius):
    """The same disc, drawn in the crop."""
    centre = CROP @ [x, y, 1]
    return disc(centre[0], centre[1], radius * CROP[0, 0], (SIZE, SIZE))


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


@given(x=st.floats(120, 280), y=st.floats(70, 230), radius=st.floats(15, 60))
def test_a_mask_lands_where_the_frame_s_pixels_do(x, y, radius):
    carried = from_mask(disc(x, y, radius).astype(np.uint8) * 255, CROP, SIZE)
    assert overlap(carried, true_disc(x, y, radius)) > 0.93


def test_a_mask_ends_at_the_frame():
    carried = from_mask(np.ones((150, 400), np.uint8), CROP, SIZE)  # the crop goes on below row 149
    assert carried[:127].all()
    assert not carried[130:].any()


@given(seed=st.integers(0, 999), radius=st.floats(30, 70))
def test_splatted_vertices_fill_their_shape(seed, radius):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-radius, radius, (6890, 2))
    points = points[np.hypot(*points.T) <= radius] + [200, 150]
    points[::97] = np.nan  # behind the camera
    assert overlap(from_vertices(points, CROP, SIZE), true_disc(200, 150, radius)) > 0.85


def test_vertices_outside_the_crop_are_left_out():
    assert not from_vertices(np.array([[1e9, 0], [-5.0, -5], [np.nan, 3]]), CROP, SIZE).any()
    assert not from_vertices(np.zeros((0, 2)), CROP, SIZE).any()


def person():
    """(17, 3): somebody upright, 180 px tall, facing the camera."""
    points = [
        (200, 70), (204, 66), (196, 66), (208, 68), (192, 68), (220, 95), (180, 95), (230, 125), (170, 125), (232, 150),
        (168, 150), (212, 155), (188, 155), (214, 195), (186, 195), (216, 235), (184, 235),
    ]  # fmt: skip
    return np.array([(x, y, 1.0) for x, y in points])


def test_capsules_cover_the_body_and_not_the_background():
    drawn = from_coco17(person(), CROP, SIZE)
    inside = [(200, 125), (185, 100), (226, 110), (213, 215), (187, 175), (200, 68), (200, 84)]
    outside = [(120, 60), (280, 240), (200, 220), (250, 100), (120, 200)]
    at = {point: CROP @ [*point, 1] for point in inside + outside}
    assert [p for p in inside if not drawn[int(at[p][1]), int(at[p][0])]] == []
    assert [p for p in outside if drawn[int(at[p][1]), int(at[p][0])]] == []
    assert 0.1 < drawn.mean() < 0.3


def test_keypoints_that_nobody_saw_are_not_drawn():
    points = person()
    whole = from_coco17(points, CROP, SIZE)
    points[[13, 15]] = [0, 0, 0.0], [np.nan, np.nan, np.nan]  # the left leg below the hip
    part = from_coco17(points, CROP, SIZE)
    knee = CROP @ [214, 205, 1]
    assert whole[int(knee[1]), int(knee[0])]
    assert not part[int(knee[1]), int(knee[0])]
    assert not (part & ~whole).any()
    points[:, 2] = 0
    assert not from_coco17(points, CROP, SIZE).any()


def test_a_bust_is_drawn_without_its_hips():
    points = person()
    points[11:, 2] = 0
    drawn = from_coco17(points, CROP, SIZE)
    chest = CROP @ [200, 95, 1]
    assert drawn[int(chest[1]), int(chest[0])]
    assert 0.02 < drawn.mean() < 0.3


@pytest.mark.parametrize("width", [4.0, 20.0])
def test_limbs_are_as_wide_as_told(width):
    drawn = from_limbs(np.array([[150.0, 150], [250, 150], [np.nan, 0]]), [(0, 1), (1, 2)], width, CROP, SIZE)
    middle = int((CROP @ [200, 150, 1])[0])
    assert drawn[:, middle].sum() == pytest.approx(width * CROP[0, 0], abs=2)  # OpenCV draws up to 2 px more


SETS = {
    "coco17": honest.COCO17,
    "penn13": honest.PENN13,
    "coco18": (
        "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
        "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear",
        "left_ear",
    ),
    "posetrack17": ("nose", "neck", "head_top", "left_ear", "right_ear", *honest.COCO17[5:]),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(TO_COCO17))
def test_other_sets_of_keypoints_name_the_same_joints(name):
    names = SETS[name]
    assert len(set(names)) == len(names)
    given = np.stack([np.arange(len(names)), np.arange(len(names)) * 10, np.ones(len(names))], axis=1)
    points = coco17_of(given.ravel().tolist(), name)
    assert points.shape == (17, 3)
    stand_ins = {"posetrack17": {"left_eye": "head_top"}, "penn13": {"nose": "head"}}.get(name, {})
    for number, joint in enumerate(honest.COCO17):
        joint = stand_ins.get(joint, joint)
        if joint in names and points[number, 2]:
            assert names[int(points[number, 0])] == joint
        else:
            assert points[number, 2] == 0
    assert (points[5:, 2] == 1).all()


def test_unknown_sets_and_too_few_keypoints_are_none():
    assert coco17_of(None, "coco17") is None
    assert coco17_of(person().ravel().tolist(), "smpl24") is None
    few = person()
    few[5:, 2] = 0
    few[3:5] = np.nan
    assert coco17_of(few.ravel().tolist(), "coco17") is None


def test_the_gate_keeps_a_person_and_leaves_neighbours_out():
    own = from_coco17(person(), CROP, SIZE)
    by_keypoints = gate(person(), np.zeros(4), CROP, SIZE)
    assert (by_keypoints | own).sum() == by_keypoints.sum()
    assert not by_keypoints[:, :40].any()
    by_box = gate(None, np.array([165.0, 60, 235, 240]), CROP, SIZE)
    rows, columns = np.flatnonzero(by_box.any(axis=1)), np.flatnonzero(by_box.any(axis=0))
    more = 0.03 * 180
    wanted = (np.array([165 - more, 60 - more, 235 + more, 240 + more]) - [99.5, 49.5] * 2) * SIZE / 200
    assert np.abs([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] - wanted).max() <= 1.5
