import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.geometry import camera_centre, project
from synthetic.camera import TARGET_M, Camera, crop_intrinsics, framed_joints, framed_points, look_at, sample_rig
from synthetic.models.body import BodyModel

UP = np.array([0.0, 1.0, 0.0])


def rig(kind: str, seed: int, num_views: int, elevation_rad: tuple[float, float] = (-0.1, 0.5)) -> tuple[Camera, ...]:
    return sample_rig(
        np.random.default_rng(seed),
        kind,
        num_views,
        elevation_rad=elevation_rad,
        distance_m=(2.6, 4.8),
        person_share=(0.6, 0.8),
    )


def ring(seed: int, num_views: int) -> tuple[Camera, ...]:
    return rig("ring", seed, num_views)


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


def test_a_dome_covers_its_part_of_the_sphere_evenly() -> None:
    low, high = -0.1, 1.3
    for seed in range(5):
        cameras = rig("dome", seed, 64, (low, high))
        rays = np.array([camera.eye_m - TARGET_M for camera in cameras])
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        assert np.allclose(np.diff(np.sort(rays[:, 1])).mean(), (np.sin(high) - np.sin(low)) / 64, rtol=0.05)
        at = rays @ rays.T - 2.0 * np.eye(64)
        nearest = np.arccos(at.max(axis=1))
        lattice = np.sqrt(2.0 * np.pi * (np.sin(high) - np.sin(low)) / 64)  # side of a view's own patch
        assert nearest.min() > 0.35 * lattice
        assert nearest.max() < 1.6 * lattice


def test_random_views_stand_anywhere_and_are_tilted() -> None:
    cameras = rig("random", 0, 400)
    azimuth, roll = np.array([(camera.azimuth_rad, camera.roll_rad) for camera in cameras]).T
    assert np.histogram(azimuth, bins=8, range=(0, 2 * np.pi))[0].min() > 30
    assert 0.09 < roll.std() < 0.15
    assert np.abs(roll).max() <= 0.3
    assert all(-0.1 <= camera.elevation_rad <= 0.5 and 2.6 <= camera.distance_m <= 4.8 for camera in cameras)


def test_surreal_views_are_level_and_far() -> None:
    cameras = rig("surreal", 0, 400)
    distance = np.array([camera.distance_m for camera in cameras])
    assert distance.mean() == pytest.approx(8.0, abs=0.15)
    assert distance.std() == pytest.approx(1.0, abs=0.1)
    assert 5.0 <= distance.min() <= distance.max() <= 10.0
    assert {camera.elevation_rad for camera in cameras} == {camera.roll_rad for camera in cameras} == {0.0}
    assert {camera.eye_m[1] for camera in cameras} == {TARGET_M[1]}
    assert np.histogram([c.azimuth_rad for c in cameras], bins=8, range=(0, 2 * np.pi))[0].min() > 30


def test_views_look_at_another_target() -> None:
    target = (0.5, 1.1, -0.2)
    (camera,) = sample_rig(
        np.random.default_rng(0),
        "ring",
        1,
        elevation_rad=(0.1, 0.1),
        distance_m=(0.6, 0.6),
        person_share=(0.7, 0.7),
        target_m=target,
    )
    assert np.linalg.norm(camera.eye_m - target) == pytest.approx(0.6)
    assert np.allclose(camera.camera_from_world @ [*target, 1.0], [0.0, 0.0, 0.6, 1.0])


@pytest.mark.parametrize(
    ("framing", "side", "shown", "hidden"),
    [
        ("upper", None, (3, 6, 9, 12, 13, 14, 15, 16, 17), (7, 8, 10, 11)),
        ("hands", "left", (20, 22), (0, 7, 15, 21, 23)),
        ("hands", "right", (21, 23), (0, 7, 15, 20, 22)),
    ],
)
def test_close_ups_hold_what_they_promise(
    body: BodyModel, framing: str, side: str | None, shown: tuple[int, ...], hidden: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    limb = body.weights_XJ[body.skin_vertices].argmax(axis=1)
    pose_TJ3 = np.clip(rng.normal(0.0, 0.25, (12, 24, 3)), -0.6, 0.6)
    betas = np.clip(rng.normal(0.0, 1.0, 10), -2.0, 2.0)
    verts_TX3, joints_TJ3 = body.pose(pose_TJ3, betas, np.tile(TARGET_M, (12, 1)))
    others, own = [], []
    for verts, joints in zip(verts_TX3[:, body.skin_vertices], joints_TJ3, strict=True):
        points = framed_points(joints, framing, side)
        for camera in rig("random", int(joints.sum() * 1e6) % 997, 2):
            intrinsics = crop_intrinsics(camera, points, 200)
            pixels, _ = project(verts.astype(float), intrinsics, camera.camera_from_world)
            inside = ((pixels > -0.5) & (pixels < 199.5)).all(axis=1)
            assert inside[np.isin(limb, shown)].all()
            others.append(inside[np.isin(limb, hidden)].mean())
            own.append(np.ptp(pixels[np.isin(limb, shown)], axis=0).max())
    assert np.mean(others) < 0.6, "and not much else"
    assert np.median(own) > 0.3 * 200, "what is framed is large"


def test_the_whole_person_is_framed_by_its_surface() -> None:
    with pytest.raises(ValueError, match="no joints are framed by 'full'"):
        framed_joints("full")
    with pytest.raises(ValueError, match="'hands' with side None"):
        framed_joints("hands")
