"""HO-3D as it lies on disk: views by the last digit, splits that are never joined, joints, and what is left out."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from manifests import table as tables
from manifests.errors import SourceError
from manifests.geometry import crop_from_frame
from manifests.sample import CELLS, unpack_cells
from manifests.types import FrameKey, Reason, Split
from pipeline.recipes import ParserRecipe, SourceRecipe, dataset
from pipeline.sources import build_source
from tests.support.ho3d_fixture import (
    LENSES,
    SINGLE,
    hand_of,
    meta_of,
    shared_from_world,
    write_ho3d,
    write_meta,
)
from tests.support.proof import prove_cameras, prove_crop_cameras, prove_pairs, run_road
from tests.support.rejects import told as said

GROUP = {"sb1": "SB1", "mc1": "MC1"}


def source():
    return build_source(SourceRecipe(kind="ho3d", name="ho3d"))


def scan(root: Path, sequence: str, split: Split = Split.TRAIN):
    found = next(one for one in source().recordings(root) if (one.sequence, one.split) == (sequence, split))
    return source().scan(root, found, split=split)


def camera_of(key: FrameKey) -> int:
    return int(key.view[3:] or 0)


@pytest.fixture(scope="module")
def v3(tmp_path_factory):
    return write_ho3d(tmp_path_factory.mktemp("v3") / "HO3D_v3")


@pytest.fixture(scope="module")
def v2(tmp_path_factory):
    return write_ho3d(tmp_path_factory.mktemp("v2") / "HO3D_v2", version="v2", faults=False)


@pytest.fixture
def mine(v2, tmp_path):
    """v2, to spoil."""
    return Path(shutil.copytree(v2.home, tmp_path / "HO3D_v2"))


def test_a_recording_is_a_group_of_cameras_in_one_split(v3):
    found = source().recordings(v3.home)
    assert [(one.sequence, one.split, one.group, one.folder) for one in found] == [
        ("mc1", Split.TRAIN, "mc1-train", "train/MC1"),
        ("sb1", Split.TEST, "sb1-evaluation", "evaluation/SB1"),
        ("sb1", Split.TRAIN, "sb1-train", "train/SB1"),
    ]
    # train.txt stands in the fingerprint once, and the calibration in those that use it.
    assert [len(one.files) for one in found] == [1, 1 + 16, 16]


def test_cameras_by_the_last_digit_of_some_names_only(tmp_path):
    for name in ("SMu40", "SMu41", "SMu1", "SM1", "SB15", "AP14"):
        (tmp_path / "train" / name / "rgb").mkdir(parents=True)
    found = source().recordings(tmp_path)
    assert [one.sequence for one in found] == ["ap1", "sb15", "sm1", "smu1", "smu4"]


def test_frames_by_key(v3):
    rows = {row["key"]: row for row in scan(v3.home, "sb1").frames.to_pylist()}
    assert len(rows) == 3 * 3 - 1
    row = rows["ho3d/train/sb1/00000002/cam2/hand"]
    assert (row["media"], row["width"], row["height"]) == ("train/SB12/rgb/0002.jpg", 640, 480)
    assert (row["side"], row["subject"], row["time_s"], row["flags"]) == ("right", None, None, ["official_split"])
    (row,) = scan(v3.home, "mc1").frames.to_pylist()
    assert (row["view"], row["media"], row["camera_from_world"]) == ("cam", "train/MC1/rgb/0000.jpg", None)
    rows = scan(v3.home, "sb1", Split.TEST).frames.to_pylist()
    assert {row["view"] for row in rows} == {"cam1", "cam3"}
    assert {tuple(row["flags"]) for row in rows} == {("evaluation", "official_split")}


def test_what_is_left_out_is_counted(v3):
    left_out = [r for one in ("sb1", "mc1") for r in scan(v3.home, one).rejects]
    said(left_out)
    told = [(r.key, r.reason, r.detail) for r in left_out]
    assert told == [
        ("train/SB12/rgb", Reason.MISSING, "1 listed pictures are not there"),
        ("train/SB12/rgb", Reason.MISSING, "1 of 3 instants have no usable picture of this camera"),
        ("train/MC1/rgb", Reason.UNLABELLED, "2 pictures: meta missing for MC1/0001..0002"),
    ]


def test_lists_decide_which_pictures_count(mine):
    (mine / "train.txt").write_text("SB10/0000\r\nSB10/0002\r\nSB12/0000\r\nMC1/0000\r\n")
    found = scan(mine, "sb1")
    assert [key.split("/", 3)[3] for key in found.frames.column("key").to_pylist()] == [
        "00000000/cam0/hand", "00000002/cam0/hand", "00000000/cam2/hand",
    ]  # fmt: skip
    assert Counter(said(found.rejects)) == {
        (Reason.UNLABELLED, "1 picture is not listed"): 1,
        (Reason.UNLABELLED, "2 pictures are not listed"): 1,
        (Reason.UNLABELLED, "3 pictures are not listed"): 1,
        (Reason.MISSING, "1 of 2 instants have no usable picture of this camera"): 1,
    }
    (mine / "train.txt").unlink()
    assert scan(mine, "sb1").frames.num_rows == 9
    assert not scan(mine, "sb1").rejects


def test_cameras(v3, v2):
    for split, proven in ((Split.TRAIN, 8), (Split.TEST, 6)):
        frames = scan(v3.home, "sb1", split).frames
        points = hand_of("SB1", 0).surface(60)
        assert proven == prove_cameras(
            frames, lambda key: LENSES[camera_of(key)], points, world_from_fixture=shared_from_world()
        )
    for row in scan(v2.home, "sb1").frames.to_pylist():  # v2 has no calibration: K is that of the first meta
        np.testing.assert_allclose(
            np.reshape(row["intrinsics"], (3, 3)), LENSES[camera_of(FrameKey.parse(row["key"]))].K
        )
        assert row["camera_from_world"] is None


def test_a_group_without_calibration_files_of_a_camera(v3, tmp_path):
    home = Path(shutil.copytree(v3.home, tmp_path / "HO3D_v3"))
    folder = home / "calibration" / "SB1" / "calibration"
    (folder / "cam_orders.txt").write_text("2\n1\n")
    rows = scan(home, "sb1").frames.to_pylist()
    assert {row["view"] for row in rows if row["camera_from_world"]} == {"cam2"}
    assert all(row["intrinsics"] for row in rows)


def test_labels(v3):
    rows = {row["key"]: row for row in scan(v3.home, "sb1").frames.to_pylist()}
    told = source().labels(v3.home, rows["ho3d/train/sb1/00000002/cam2/hand"])
    assert told.box_from == "keypoints"
    np.testing.assert_allclose(told.box_xyxy_px, v3.drawn["SB12", 2].box(), atol=8)
    told = source().labels(v3.home, rows["ho3d/train/sb1/00000002/cam4/hand"])
    assert told.reject == (Reason.UNLABELLED, "meta has no box and no joints of the hand")
    told = source().labels(v3.home, rows["ho3d/train/sb1/00000000/cam0/hand"])
    assert told.reject[0] is Reason.BAD_LABEL
    row = scan(v3.home, "sb1", Split.TEST).frames.to_pylist()[0]
    told = source().labels(v3.home, row)  # of evaluation pictures: box, and the wrist only
    assert (told.box_from, told.silhouette) == ("dataset", None)
    np.testing.assert_allclose(told.box_xyxy_px, v3.drawn["SB11", 0].box(), atol=12)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"handJoints3D": np.ones((21, 3))}, Reason.BAD_LABEL),  # behind the camera
        ({"handJoints3D": np.full((21, 3), np.nan)}, Reason.BAD_LABEL),
        ({"handJoints3D": [["a"]]}, Reason.BAD_LABEL),
        ({"handJoints3D": np.array([[9.0, 9.0, -1.0]] * 21)}, Reason.HIDDEN),
        ({"handJoints3D": None}, Reason.UNLABELLED),
        ({"camMat": np.zeros((3, 3))}, Reason.BAD_LABEL),
        ({"camMat": None}, Reason.UNLABELLED),
        ({"handBoundingBox": [1, 2, 3]}, Reason.BAD_LABEL),
        ({"handBoundingBox": [700, 10, 800, 90]}, Reason.HIDDEN),
    ],
)
def test_odd_labels(mine, change, reason):
    meta = meta_of(LENSES[0], hand_of("SB1", 0), evaluation=False)
    write_meta(mine / "train" / "SB10" / "meta" / "0000.pkl", meta | change)
    row = next(row for row in scan(mine, "sb1").frames.to_pylist() if row["key"].endswith("00000000/cam0/hand"))
    assert source().labels(mine, row).reject[0] is reason


def test_a_hostile_meta(mine):
    row = scan(mine, "sb1").frames.to_pylist()[0]
    for data in (b"", b"cos\nsystem\n(S'touch pwned'\ntR.", b"\x80\x02]q\x00.", b"<html>"):
        (mine / "train" / "SB10" / "meta" / "0000.pkl").write_bytes(data)
        assert source().labels(mine, row).reject[0] is Reason.BAD_LABEL
        assert scan(mine, "sb1").frames.num_rows == 9  # K is taken from the next one
    assert not Path("pwned").exists()


def test_versions(v2, v3, mine, caplog):
    for truth, version in ((v2, "v2 (png)"), (v3, "v3 (jpg)")):
        assert source().look(truth.home)[0].hint == f"{version} detected"
    with caplog.at_level("INFO"):
        source().recordings(v2.home)
    assert "HO-3D v2 (png) detected" in caplog.text
    shutil.copy(v3.home / "train" / "SB10" / "rgb" / "0001.jpg", mine / "train" / "SB10" / "rgb" / "0001.jpg")
    with pytest.raises(SourceError, match=r"png \(v2\) and jpg \(v3\) lie in one folder"):
        scan(mine, "sb1")


def test_found_in_the_folder_above_and_below_a_zip(v2, tmp_path):
    for place in ("HO3D_v2", "zip/HO3D_v2"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).symlink_to(v2.home)
        row = scan(tmp_path, "sb1").frames.to_pylist()[0]
        assert row["media"] == f"{place}/train/SB10/rgb/0000.png"
        assert source().labels(tmp_path, row).reject is None
        (tmp_path / place).unlink()
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "train").symlink_to(v2.home / "train")
    assert scan(tmp_path, "sb1").frames.num_rows == 9
    assert [m.found for m in source().look(tmp_path)] == [True, False, False]


def test_other_roots(tmp_path):
    (tmp_path / "train" / "SB10").mkdir(parents=True)
    assert not source().look(tmp_path)[0].found
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(SourceError):
            source().recordings(root)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("train.txt", "SB10-0000\n"),
        ("train.txt", "SB10/x\n"),
        ("calibration/SB1/calibration/cam_orders.txt", "first\n"),
        ("calibration/SB1/calibration/cam_0_intrinsics.txt", "fx: 3, fy: 4\n"),
        ("calibration/SB1/calibration/cam_0_intrinsics.txt", "fx: e, fy: 4, ppx: 3, ppy: 4\n"),
        ("calibration/SB1/calibration/trans_0.txt", "1 0 0\n0 1 0\n"),
        ("calibration/SB1/calibration/trans_0.txt", "1 0 0\n0 1\n"),
        ("calibration/SB1/calibration/trans_0.txt", ""),
        ("calibration/SB1/calibration/trans_0.txt", "nan 0 0 0\n" * 4),
    ],
)
def test_bad_text(v3, tmp_path, file, text):
    for part in ("train", "train.txt", "calibration/SB1/calibration"):
        to = tmp_path / part
        (shutil.copytree if (v3.home / part).is_dir() else shutil.copy)(v3.home / part, to)
    (tmp_path / file).write_text(text)
    with pytest.raises(SourceError, match="does not parse") as error:
        scan(tmp_path, "sb1")
    assert error.value.where == str(tmp_path / file)


def test_from_raw_to_audited_shards(v3, tmp_path):
    recipe = replace(dataset("ho3d"), parser=ParserRecipe(backend="none"))
    recipe = replace(recipe, sources=(replace(recipe.sources[0], splits=tuple(Split)),))
    run_road(recipe, {"ho3d": v3.home}, tmp_path)
    rejects = {
        (row["key"], row["reason"])
        for path in (tmp_path / "crops").glob("*.rejects.parquet")
        for row in tables.read("rejects", path).to_pylist()
    }
    assert rejects == {
        ("ho3d/train/sb1/00000000/cam0/hand", "bad_label"), ("ho3d/train/sb1/00000002/cam4/hand", "unlabelled"),
    }  # fmt: skip
    # Instants 0, 1, 2 are seen by 2 of the three cameras each; each camera has 2 instants. Evaluation frames: none, so no
    # pair crosses train and evaluation.
    assert prove_pairs(tmp_path, codes=lambda key: (key.instant, camera_of(key))) == {"cross_view": 3, "cross_pose": 3}
    for path in (tmp_path / "pairs").glob("*.pairs.parquet"):
        for pair in tables.read("pairs", path).to_pylist():
            keys = [FrameKey.parse(pair[role]) for role in ("target", "reference")]
            assert {key.split for key in keys} == {Split.TRAIN}
            assert not {"cam1", "cam3"} & {key.view for key in keys}
    assert prove_crop_cameras(
        tmp_path, lambda key: hand_of(GROUP[key.sequence], key.instant), world_from_fixture=shared_from_world()
    )
    overlaps = []
    for crop in (
        c for path in (tmp_path / "crops").glob("*.crops.parquet") for c in tables.read("crops", path).to_pylist()
    ):
        key = FrameKey.parse(crop["key"])
        if key.split is Split.TEST:
            assert crop["silhouette_from"] == "none"
            continue
        assert (crop["silhouette_from"], crop["box_from"]) == ("keypoints", "keypoints")
        folder = SINGLE if key.sequence == "mc1" else f"SB1{camera_of(key)}"
        to_crop = crop_from_frame(np.array(crop["square_xyxy_px"]), CELLS)
        true = v3.drawn[folder, key.instant].mask(0).astype(np.float32)
        true = cv2.warpAffine(true, to_crop[:2], (CELLS, CELLS), flags=cv2.INTER_AREA) > 0.5
        stored = unpack_cells(crop["silhouette"])
        overlaps.append((true & stored).sum() / (true | stored).sum())
    assert len(overlaps) == 7
    assert min(overlaps) > 0.7, overlaps
