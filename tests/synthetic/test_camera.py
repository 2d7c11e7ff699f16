import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.geometry import camera_centre, project
from synthetic.camera import TARGET_M, Camera, crop_intrinsics, look_at, sample_rig

UP = np.array([0.0, 1.0, 0.0])


def ring(seed: int, num_views: int) -> tuple[Camera, ...]:
    return sample_rig(
        np.random.default_rng(seed),
        "ring",
        num_views,
        elevation_rad=(-0.1, 0.5),
        distance_m=(2.6, 4.8),
        person_share=(0.6, 0.8),
    )


@given(st.integers(0, 10_000))
def test_look_at_round_trip(seed: int) -> None:
    eye, target, other = np.random.default_rng(seed).normal(0.0, 3.0, (3, 3))
    pose = look_at(eye, target, up=UP)
    assert np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3))
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
    assert np.allclose(camera_centre(pose), eye)
    assert np.allclose(pose @ [*target, 1.0], [0, 0, np.linalg.norm(target - eye), 1])
    assert pose[1, 1] < 0, "up in the world is up in the image, where y points down"
    assert np.allclose(np.linalg.inv(pose) @ (pose @ [*other, 1.0]), [*other, 1.0])


def test_look_at_known_case() -> None:
    # From +z, the person's left (+x) appears on the right.
    pose = look_at(np.array([0.0, 0.0, 3.0]), np.zeros(3), up=UP)
    assert np.allclose(pose @ [1.0, 2.0, 0.5, 1.0], [1.0, -2.0, 2.5, 1.0])


def test_look_at_refuses_the_impossible() -> None:
    with pytest.raises(ValueError, match="eye and target coincide"):
        look_at(np.ones(3), np.ones(3), up=UP)
    with pytest.raises(ValueError, match="up is parallel"):
        look_at(np.zeros(3), UP, up=UP)


@given(st.integers(0, 10_000), st.integers(1, 9))
def test_a_ring_has_one_view_in_each_sector_looking_at_the_person(seed: int, num_views: int) -> None:
    cameras = ring(seed, num_views)
    step = 2 * np.pi / num_views
    azimuths = np.sort([camera.azimuth_rad for camera in cameras])
    gaps = np.diff([*azimuths, azimuths[0] + 2 * np.pi])
    assert ((gaps > 0.6 * step - 1e-9) & (gaps < 1.4 * step + 1e-9)).all() or num_views == 1
    for camera in cameras:
        assert np.allclose(camera_centre(camera.camera_from_world), camera.eye_m)
        assert np.linalg.norm(camera.eye_m - TARGET_M) == pytest.approx(camera.distance_m)
        assert np.allclose((camera.camera_from_world @ [*TARGET_M, 1.0])[:2], 0.0, atol=1e-9)
    if num_views % 2 == 0:
        across = [abs(np.angle(np.exp(1j * (cameras[0].azimuth_rad - c.azimuth_rad)))) for c in cameras]
        assert max(across) > np.pi - 0.4 * step - 1e-9, "somebody looks from nearly the other side"


@given(st.integers(0, 10_000), st.sampled_from([64, 256, 300]))
def test_the_crop_frames_the_person(seed: int, image_px: int) -> None:
    points = np.random.default_rng(seed).normal(0.0, (0.3, 0.4, 0.3), (200, 3)) + TARGET_M
    for camera in ring(seed, 3):
        intrinsics = crop_intrinsics(camera, points, image_px)
        pixels, depth = project(points, intrinsics, camera.camera_from_world)
        assert (depth > 0).all()
        assert (pixels > -0.5).all()
        assert (pixels < image_px - 0.5).all()
        assert np.ptp(pixels, axis=0).max() / image_px == pytest.approx(camera.person_share)
        assert intrinsics[0, 0] == pytest.approx(intrinsics[1, 1])
