"""Calibrations: each format sees known points at known pixels, and what does not parse is named."""

import re
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest

from manifests.errors import SourceError
from manifests.geometry import camera_centre
from pipeline.sources.calibration import fit_to_image, is_calibration, read_calibration
from tests.support import rigs
from tests.support.samples import sample

FORMATS = {
    "caliscope": rigs.write_caliscope,
    "caliscope rvec": partial(rigs.write_caliscope, vector=True),
    "pose2sim": rigs.write_pose2sim,
    "qualisys": rigs.write_qualisys,
    "opencv yml": rigs.write_opencv,
    "opencv yaml rvec": partial(rigs.write_opencv, suffix=".yaml", vector=True),
    "opencv json": partial(rigs.write_opencv, suffix=".json"),
    "plain json": rigs.write_plain_json,
    "dat": rigs.write_dat,
}


@pytest.mark.parametrize("name", FORMATS)
def test_known_points_land_on_known_pixels(tmp_path, name):
    rig = rigs.true_rig()
    paths = FORMATS[name](tmp_path, rig)
    assert all(is_calibration(path) for path in paths)
    cameras = list(read_calibration(paths).values())
    assert len(cameras) == len(rig)
    for camera, true in zip(cameras, rig, strict=True):
        assert np.abs(rigs.seen_pixels(camera) - rigs.true_pixels(true)).max() < 1e-3
        assert np.allclose(camera_centre(camera.camera_from_world), -true.pose[:3, :3].T @ true.pose[:3, 3], atol=1e-6)
        assert camera.size == (None if name == "dat" else rigs.SIZE)


def test_units_are_scaled_to_metres(tmp_path):
    rig = rigs.true_rig()
    plain, scaled = (read_calibration(rigs.write_dat(tmp_path, rig), metres_per_unit=u) for u in (1.0, 0.025))
    for name in plain:
        assert np.allclose(scaled[name].camera_from_world[:3, 3], plain[name].camera_from_world[:3, 3] * 0.025)
        assert np.array_equal(scaled[name].camera_from_world[:3, :3], plain[name].camera_from_world[:3, :3])


def test_a_lens_without_a_pose_stays_without(tmp_path):
    paths = [path for path in rigs.write_dat(tmp_path, rigs.true_rig()) if not path.name.startswith("rot")]
    assert all(camera.camera_from_world is None for camera in read_calibration(paths).values())


def a_camera(tmp_path):
    return next(iter(read_calibration(rigs.write_caliscope(tmp_path, rigs.true_rig())).values()))


def test_another_resolution_of_the_same_shape_scales_the_matrix(tmp_path):
    camera = a_camera(tmp_path)
    half, flags = fit_to_image(camera, 320, 240)
    assert flags == ["rescaled"]
    # Edges map to edges: pixel centre u of the large image is (u + 0.5) / 2 - 0.5 of the small one.
    assert np.allclose(rigs.seen_pixels(half), (rigs.seen_pixels(camera) + 0.5) / 2 - 0.5, atol=1e-9)


def test_another_shape_is_flagged_and_left(tmp_path):
    camera = a_camera(tmp_path)
    kept, flags = fit_to_image(camera, 632, 480)
    assert flags == ["size_differs"]
    assert np.array_equal(kept.intrinsics, camera.intrinsics)
    assert fit_to_image(camera, *rigs.SIZE) == (camera, [])
    assert fit_to_image(replace(camera, size=None), 10, 10)[1] == []


@pytest.mark.parametrize("rotation", [90, 270])
@pytest.mark.parametrize("scale", [1, 2])
def test_a_video_that_is_turned_upright_turns_its_camera(tmp_path, rotation, scale):
    camera = a_camera(tmp_path)
    width, height = rigs.SIZE
    turned, flags = fit_to_image(camera, height * scale, width * scale, rotation=rotation)
    u, v = rigs.seen_pixels(camera).T
    expected = np.stack([v, width - 1 - u] if rotation == 90 else [height - 1 - v, u], axis=-1)
    assert np.allclose(rigs.seen_pixels(turned), (expected + 0.5) * scale - 0.5, atol=1e-9)
    assert flags == (["rescaled"] if scale == 2 else [])
    assert np.allclose(camera_centre(turned.camera_from_world), camera_centre(camera.camera_from_world))


BROKEN = [
    ("Calib.qca.txt", lambda text: text[:-30], r"Calib\.qca\.txt"),
    ("Calib.qca.txt", lambda text: text.replace('r11="', 'q11="', 1), r"camera cam01: attribute 'r11' is missing"),
    (
        "Calib.qca.txt",
        lambda text: text.replace('skew="0"', 'skew="none"', 1),
        r"camera cam01: skew: 'none' is no number",
    ),
    ("Calib.qca.txt", lambda text: "<!DOCTYPE a [<!ENTITY b 'c'>]>" + text[21:], r"declares entities"),
    ("camera_array.toml", lambda text: text.replace("matrix = [[", "matrix = [", 1), r"line 5"),
    ("camera_array.toml", lambda text: text.replace("matrix = [[50", "matrix = [[-50", 1), r"positive focal"),
    (
        "camera_array.toml",
        lambda text: text.replace("rotation = [[", "rotation = [[9.0, 0.0, 0.0], [", 1),
        r"1: rotation: has shape \(4, 3\)",
    ),
    (
        "camera_array.toml",
        lambda text: text.replace("distortions = [", "distortions = [1.0, ", 1),
        r"has 6 coefficients",
    ),
    (
        "camera_array.toml",
        lambda text: text.replace("translation", "shift", 1),
        r"only one of rotation and translation",
    ),
    ("Calib_scene.toml", lambda text: text.replace("fisheye = false", "fisheye = true", 1), r"fisheye"),
    ("cam01.yml", lambda text: text.replace("rows: 3", "rows: 4", 1), r"cam01: camera_matrix"),
    (
        "cam01.yml",
        lambda text: text.replace("!!opencv-matrix", "!!python/name:os.system", 1),
        r"could not determine a constr",
    ),
    ("cam01.json", lambda text: text[:-5], r"Expecting|delimiter|Unterminated"),
    ("c1.dat", lambda text: text.replace(" 0.0", " zero", 1), r"line 2: 'zero' is no number"),
    ("c1.dat", lambda text: text.replace("intrinsic:", "K:"), r"`intrinsic:` is needed"),
    ("rot_trans_c1.dat", lambda text: re.sub(r"R:\n\S+", "R:\n5.0", text, count=1), r"R: is no rotation"),
    ("rot_trans_c1.dat", lambda text: text.replace("T:", "S:"), r"`R:` and `T:` are needed"),
]


@pytest.mark.parametrize(("name", "spoil", "message"), BROKEN, ids=range(len(BROKEN)))
def test_a_calibration_that_does_not_parse_is_named(tmp_path, name, spoil, message):
    rig = rigs.true_rig()
    for write in (rigs.write_caliscope, rigs.write_pose2sim, rigs.write_qualisys, rigs.write_opencv, rigs.write_dat):
        write(tmp_path, rig)
    rigs.write_opencv(tmp_path, rig, suffix=".json")
    path = tmp_path / name
    spoilt = spoil(path.read_text())
    assert spoilt != path.read_text()
    path.write_text(spoilt)
    with pytest.raises(SourceError, match=r"the calibration does not parse(.|\n)*where: ") as caught:
        read_calibration([path])
    assert caught.value.where == str(path)
    with pytest.raises(SourceError, match=message):
        read_calibration([path])


def test_a_camera_that_two_files_calibrate_is_refused(tmp_path):
    rig = rigs.true_rig()
    paths = [*rigs.write_pose2sim(tmp_path, rig), *rigs.write_opencv(tmp_path, rig)]
    with pytest.raises(SourceError, match="camera cam01 is calibrated a second time"):
        read_calibration(paths)


def test_opencv_reads_what_we_read(tmp_path):
    """The parser of OpenCV's YAML agrees with OpenCV."""
    path = rigs.write_opencv(tmp_path, rigs.true_rig())[1]
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
    matrix = storage.getNode("camera_matrix").mat()
    storage.release()
    assert np.array_equal(read_calibration([path])["cam02"].intrinsics, matrix)


@pytest.mark.parametrize(
    "name", ["notes.txt", "config.toml", "data.json", ".calib.toml", "cam01_000001_keypoints.json"]
)
def test_other_files_are_no_calibration(tmp_path, name):
    assert not is_calibration(tmp_path / name)


def test_the_pose_from_camera_to_camera_that_a_real_file_states():
    """rot_trans_c1.dat states, below its own pose, the one from camera 0 to camera 1: ours must compose to it."""
    folder = sample("TemugeB+handpose3d/camera_parameters")
    cameras = read_calibration(sorted(folder.glob("*.dat")))
    second = (folder / "rot_trans_c1.dat").read_text().split("#")[1]
    numbers = np.array([float(word) for line in second.splitlines()[1:] for word in line.split() if ":" not in word])
    composed = cameras["c1"].camera_from_world @ np.linalg.inv(cameras["c0"].camera_from_world)
    assert np.allclose(composed[:3, :3].reshape(-1), numbers[:9], atol=1e-6)
    assert np.allclose(composed[:3, 3], numbers[9:], atol=1e-6)
