"""Geometry by properties, closed forms and slow twins. Legend: R rays."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from manifests.geometry import (
    angle_between,
    box_overlap,
    camera_centre,
    crop_from_frame,
    distort,
    meet,
    project,
    rays,
    square_around,
    view_angle,
)
from manifests.seeds import rng_for

K = np.array([[900.0, 0, 640], [0, 920, 360], [0, 0, 1]])
# Coefficients of real lenses: a webcam (caliscope's sample), a sports camera, a rational model with eight of them.
LENSES = [
    (0.0, 0, 0, 0),
    (-0.3, 0.12, 0.001, -0.002, -0.02),
    (0.1, -0.25, 0.0005, 0.0005),
    (0.2, 0.1, 0.001, 0.001, 0.02, 0.25, 0.12, 0.03),
]
COORDINATE = st.floats(-1000, 1000, width=32)
POINT = hnp.arrays(np.float64, 3, elements=st.floats(-10, 10, width=32))
TURN = hnp.arrays(np.float64, 3, elements=st.floats(-3, 3, width=32))


@st.composite
def boxes(draw):
    x0, y0 = draw(COORDINATE), draw(COORDINATE)
    return np.array([x0, y0, x0 + draw(st.floats(1, 500, width=32)), y0 + draw(st.floats(1, 500, width=32))])


def rotation(turn):
    """Rodrigues' formula: (3,) axis times angle to (3, 3)."""
    angle = np.linalg.norm(turn)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = turn / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def pose_of(turn, centre_m):
    pose = np.eye(4)
    pose[:3, :3] = rotation(turn)
    pose[:3, 3] = -pose[:3, :3] @ centre_m
    return pose


# --- boxes and crops ---


@given(boxes(), st.floats(1, 3))
def test_square_is_square_around_the_same_centre_and_holds_the_box(box, margin):
    square = square_around(box, margin=margin)
    sides = square[2:] - square[:2]
    assert np.allclose(sides, (box[2:] - box[:2]).max() * margin)
    assert np.allclose(square[:2] + square[2:], box[:2] + box[2:])
    assert (square[:2] <= box[:2] + 1e-9).all()
    assert (square[2:] >= box[2:] - 1e-9).all()


def test_square_takes_any_leading_axes():
    many = rng_for("boxes").uniform(0, 50, (2, 5, 4)) + np.array([0, 0, 100, 100])
    squares = square_around(many, margin=1.5)
    assert squares.shape == (2, 5, 4)
    assert np.allclose(squares[1, 3], square_around(many[1, 3], margin=1.5))


@given(boxes(), st.integers(16, 512))
def test_crop_maps_edges_to_edges(box, size_px):
    square = square_around(box)
    matrix = crop_from_frame(square, size_px)
    corners = np.array([[square[0], square[1], 1], [square[2], square[3], 1]])
    assert np.allclose(corners @ matrix.T, [[-0.5, -0.5, 1], [size_px - 0.5, size_px - 0.5, 1]], atol=1e-6)


def test_crop_of_the_whole_image_is_the_identity():
    assert np.allclose(crop_from_frame(np.array([-0.5, -0.5, 63.5, 63.5]), 64), np.eye(3))


def test_crop_at_half_size_averages_blocks_of_two():
    """Pixel centres: the centre of a 2 x 2 block of the frame is the centre of one pixel of the crop."""
    matrix = crop_from_frame(np.array([-0.5, -0.5, 127.5, 127.5]), 64)
    assert np.allclose(matrix @ [0.5, 0.5, 1], [0, 0, 1])
    assert np.allclose(matrix @ [2.5, 4.5, 1], [1, 2, 1])


@given(boxes(), POINT)
def test_crop_camera_sees_what_the_frame_sees(box, point):
    """K of a crop is crop_from_frame @ K: projecting with it is projecting and then cropping."""
    crop = crop_from_frame(square_around(box), 256)
    pose = pose_of(np.zeros(3), np.array([0, 0, -20.0]))
    whole, _ = project(point, K, pose)
    direct, _ = project(point, crop @ K, pose)
    assert np.allclose(direct, (crop @ [*whole, 1])[:2], atol=1e-6)


def test_crop_of_no_width_is_refused():
    with pytest.raises(ValueError, match="has no width"):
        crop_from_frame(np.array([5.0, 5, 5, 9]), 64)


@given(boxes(), boxes())
def test_overlap_is_symmetric_and_a_share(one, other):
    share = box_overlap(one, other)
    assert 0 <= share <= 1 + 1e-12
    assert np.isclose(share, box_overlap(other, one))
    assert np.isclose(box_overlap(one, one), 1)


def test_overlap_against_counting_pixels():
    rng = rng_for("overlap")
    low = rng.integers(0, 30, (40, 2))
    some = np.concatenate([low, low + rng.integers(1, 20, (40, 2))], axis=1)
    fast = box_overlap(some[:, None], some[None])
    assert fast.shape == (40, 40)
    y, x = np.mgrid[:60, :60]
    inside = [(x >= b[0]) & (x < b[2]) & (y >= b[1]) & (y < b[3]) for b in some]
    slow = [[(a & b).sum() / (a | b).sum() for b in inside] for a in inside]
    assert np.allclose(fast, slow)


def test_overlap_of_empty_boxes_is_none():
    assert box_overlap(np.zeros(4), np.zeros(4)) == 0


# --- cameras ---


@given(TURN, POINT)
def test_camera_centre_is_where_the_camera_maps_to_zero(turn, centre):
    pose = pose_of(turn, centre)
    assert np.allclose(camera_centre(pose), centre, atol=1e-9)
    assert np.allclose(pose @ [*camera_centre(pose), 1], [0, 0, 0, 1], atol=1e-9)


@pytest.mark.parametrize("lens", LENSES)
@given(TURN, POINT, st.floats(0.5, 30), st.floats(20, 1260), st.floats(20, 700))
def test_a_ray_leads_back_to_its_pixel(lens, turn, centre, depth, x, y):
    """Round trip pixel -> ray -> point -> pixel, lens included, to a hundredth of a pixel all over a 1280 x 720 image."""
    pose = pose_of(turn, centre)
    pixel = np.array([x, y])
    direction = rays(pixel, K, pose, np.array(lens))
    assert np.isclose(np.linalg.norm(direction), 1)
    again, depths = project(centre + depth * direction, K, pose, np.array(lens))
    assert np.allclose(again, pixel, atol=0.01)
    assert 0 < depths <= depth + 1e-6


def test_skewed_sensors_too():
    skewed = K + np.array([[0, 40.0, 0], [0, 0, 0], [0, 0, 0]])
    pixel = np.array([[100.0, 200], [900, 50]])
    pose = pose_of(np.array([0.1, -0.4, 0.2]), np.array([1.0, 2, 3]))
    again, _ = project(camera_centre(pose) + 4 * rays(pixel, skewed, pose), skewed, pose)
    assert np.allclose(again, pixel)


def test_projection_by_hand():
    pixels, depth = project(np.array([[0.5, -0.25, 2.0], [0, 0, -1]]), K, np.eye(4))
    assert np.allclose(pixels[0], [640 + 900 * 0.25, 360 - 920 * 0.125])
    assert depth.tolist() == [2.0, -1.0]  # the second lies behind


def test_point_in_the_camera_plane_is_no_crash():
    pixels, depth = project(np.zeros((1, 3)), K, np.eye(4))
    assert depth[0] == 0
    assert np.isfinite(pixels).all()


def test_shapes_of_projections_and_rays():
    points = rng_for("points").normal(size=(4, 5, 3)) + np.array([0, 0, 9])
    pixels, depth = project(points, K, np.eye(4), np.array(LENSES[1]))
    assert (pixels.shape, depth.shape) == ((4, 5, 2), (4, 5))
    assert rays(pixels, K, np.eye(4), np.array(LENSES[1])).shape == (4, 5, 3)


@pytest.mark.parametrize("lens", LENSES)
def test_distortion_against_a_slow_twin(lens):
    """Written again from OpenCV's manual, term by term, for one point at a time."""
    k1, k2, p1, p2, k3, k4, k5, k6 = [*lens, *[0] * (8 - len(lens))]
    flat = rng_for("lens").uniform(-0.7, 0.7, (50, 2))
    slow = []
    for x, y in flat:
        r = math.hypot(x, y)
        radial = (1 + k1 * r**2 + k2 * r**4 + k3 * r**6) / (1 + k4 * r**2 + k5 * r**4 + k6 * r**6)
        slow.append(
            (
                x * radial + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2),
                y * radial + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y,
            )
        )
    assert np.allclose(distort(flat, np.array(lens)), slow)


def test_distortion_against_opencv():
    cv2 = pytest.importorskip("cv2")
    points = rng_for("cv").uniform(-1, 1, (30, 3)) + np.array([0, 0, 3])
    turn, centre = np.array([0.2, -0.1, 0.3]), np.array([0.1, 0.2, -0.5])
    pose = pose_of(turn, centre)
    for lens in LENSES:
        theirs, _ = cv2.projectPoints(points, turn, pose[:3, 3], K, np.array(lens))
        ours, _ = project(points, K, pose, np.array(lens))
        assert np.allclose(ours, theirs[:, 0], atol=1e-6)


# --- rays that meet ---


@given(POINT, st.integers(2, 6), st.integers(0, 1000))
def test_rays_through_one_point_meet_there(point, num, seed):
    rng = rng_for("meet", seed)
    directions = rng.normal(size=(num, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions[:2] = np.linalg.qr(rng.normal(size=(3, 3)))[0][:2]  # two across each other: never all parallel
    origins = point - directions * rng.uniform(1, 5, (num, 1))
    found, distances = meet(origins, directions)
    assert np.allclose(found, point, atol=1e-6)
    assert np.allclose(distances, 0, atol=1e-6)


def test_skew_rays_meet_in_the_middle():
    """Along x at z = 0, and along y at z = 2: nearest is the middle, one metre from each."""
    point, distances = meet(np.array([[-5.0, 0, 0], [0, -5, 2]]), np.array([[1.0, 0, 0], [0, 1, 0]]))
    assert np.allclose(point, [0, 0, 1])
    assert np.allclose(distances, 1)


def test_no_other_point_is_nearer():
    rng = rng_for("nearest")
    origins, directions = rng.normal(size=(5, 3)) * 4, rng.normal(size=(5, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)

    def cost(point):
        return sum(np.linalg.norm(np.cross(d, point - o)) ** 2 for o, d in zip(origins, directions, strict=True))

    point, distances = meet(origins, directions)
    assert np.isclose(cost(point), (distances**2).sum())
    assert all(cost(point) < cost(point + step) for step in rng.normal(size=(100, 3)) * 0.1)


@pytest.mark.parametrize(
    ("origins", "directions", "message"),
    [([[0, 0, 0]], [[1, 0, 0]], "two rays"), ([[0, 0, 0], [0, 1, 0]], [[1, 0, 0], [1, 0, 0]], "parallel")],
)
def test_rays_that_cannot_meet(origins, directions, message):
    with pytest.raises(ValueError, match=message):
        meet(np.array(origins, float), np.array(directions, float))


# --- angles ---


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.3, math.pi / 2, 3.0, math.pi - 1e-9, math.pi])
def test_angle_in_closed_form(angle):
    turned = np.array([math.cos(angle), math.sin(angle), 0]) * 7
    assert np.isclose(angle_between(np.array([2.0, 0, 0]), turned), angle, rtol=1e-6, atol=1e-15)


@given(TURN, st.floats(0, math.pi), POINT, st.floats(1, 9), st.floats(1, 9))
def test_view_angle_is_the_angle_of_the_rig(turn, angle, subject, near, far):
    """Cameras on two lines through the subject, at any distances, turned anywhere: the angle between the lines."""
    world = rotation(turn)
    eyes = [
        subject + world @ (distance * np.array([math.sin(a), 0, -math.cos(a)]))
        for a, distance in ((0.0, near), (angle, far))
    ]
    poses = [pose_of(turn * k, eye) for k, eye in enumerate(eyes)]  # where they look does not matter
    assert np.isclose(view_angle(subject, *poses), angle, atol=1e-6)
    assert np.isclose(view_angle(subject, *reversed(poses)), angle, atol=1e-6)


def test_angles_take_many_at_once():
    rng = rng_for("angles")
    a, b = rng.normal(size=(2, 6, 3)), rng.normal(size=(2, 6, 3))
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    assert np.allclose(angle_between(a, b), np.arccos(cosine))
