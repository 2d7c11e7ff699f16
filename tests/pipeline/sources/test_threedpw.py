"""3DPW: people before a moving camera, keypoints that lie, test sequences that are never paired, hostile pickles."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests import table as tables
from manifests.build import Build
from manifests.errors import SourceError
from manifests.types import EVALUATION, FrameKey, Reason, Split
from pipeline.recipes import BuildRecipe, PairRecipe, ParserRecipe, SourceRecipe, dataset
from pipeline.sources.base import Scan
from pipeline.sources.threedpw import ThreedpwSource
from tests.support import threedpw_fixture as fixture
from tests.support.pickles import python2_pickle
from tests.support.proof import prove_cameras, prove_crop_cameras, prove_pairs, run_road
from tests.support.rejects import told
from tests.support.threedpw_fixture import SEQUENCES, Truth, figures_of, labels_of, lens_of, write_labels

SOURCE = ThreedpwSource(SourceRecipe(kind="3dpw", name="3dpw"))
TRAIN, VAL, TEST = SEQUENCES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    root = tmp_path_factory.mktemp("threedpw") / "3DPW"
    return root, fixture.write_threedpw(root)


@pytest.fixture
def root(made: tuple[Path, Truth], tmp_path: Path) -> Path:
    shutil.copytree(made[0], tmp_path / "3DPW")
    return tmp_path / "3DPW"


def scan(root: Path, sequence: str = TRAIN) -> Scan:
    one = next(one for one in SOURCE.recordings(root) if one.sequence == sequence)
    assert one.split is not None
    return SOURCE.scan(root, one, split=one.split)


def rows_of(found: Scan) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["track"], row["instant"]): row for row in found.frames.to_pylist()}


def details(found: Scan) -> list[tuple[Reason, str]]:
    return told(found.rejects)


def overlap(a: Any, b: Any) -> float:
    """Intersection over union of two boxes."""
    a, b = np.asarray(a), np.asarray(b)
    inner = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(inner / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner))


def test_each_person_of_each_image_is_a_frame(made: tuple[Path, Truth]) -> None:
    root, truth = made
    found = scan(root)
    rows = rows_of(found)
    assert sorted(rows) == [("p0", k) for k in range(6)] + [("p1", k) for k in range(5)]
    assert details(found) == [(Reason.UNLABELLED, "1 frame says nothing of where p1 is")]
    row = rows["p1", 4]
    assert row["key"] == f"3dpw/train/{TRAIN}/00000004/cam/p1"
    assert row["media"] == f"imageFiles/{TRAIN}/image_00004.jpg"
    assert (row["width"], row["height"], row["group"], row["subject"]) == (960, 540, TRAIN, None)
    assert row["time_s"] == pytest.approx(4 / 30)
    assert (row["box_from"], row["keypoints_set"], row["silhouette_from"], row["flags"]) == (
        "keypoints", "coco18", "none", [],
    )  # fmt: skip
    for (track, frame), row in rows.items():
        true = truth.drawn[TRAIN, frame].box(int(track[1]))
        assert overlap(row["box_xyxy_px"], true) > 0.6, (track, frame)


def test_keypoints_that_lie_are_dropped(made: tuple[Path, Truth]) -> None:
    rows = rows_of(scan(made[0]))
    joints = np.reshape(rows["p0", 1]["keypoints_px"], (18, 3))
    true = lens_of(TRAIN, 1).pixels(figures_of(TRAIN, 1)[0].joints(fixture.COCO18))
    assert joints[4].tolist() == [0, 0, 0]
    assert np.allclose(np.delete(joints[:, :2], 4, axis=0), np.delete(true, 4, axis=0), atol=0.01)
    assert np.allclose(np.delete(joints[:, 2], 4), 0.9)


def test_keypoints_that_nobody_saw_are_zero(root: Path) -> None:
    values = labels_of(TRAIN)
    values["poses2d"][0][0, :, 0] = (300, 200, 0)
    values["poses2d"][0][0, :, 1] = (np.nan, 200, 1)
    write_labels(root, TRAIN, values)
    row = rows_of(scan(root))["p0", 0]
    assert not np.any(row["keypoints_px"][:6])
    assert np.all(row["keypoints_px"][6:])


def test_without_keypoints_the_projected_joints_are_framed(made: tuple[Path, Truth]) -> None:
    row = rows_of(scan(made[0]))["p1", 3]
    true = lens_of(TRAIN, 3).pixels(figures_of(TRAIN, 3)[1].joints(fixture.SMPL24))
    assert np.allclose(row["box_xyxy_px"], [*true.min(axis=0), *true.max(axis=0)], atol=0.01)
    assert not np.any(row["keypoints_px"])


def test_the_moving_camera_is_true_in_every_frame(made: tuple[Path, Truth]) -> None:
    found = scan(made[0])

    def lens(key: FrameKey) -> Any:
        return None if (int(key.track[1]), key.instant) == fixture.NO_CAMERA else lens_of(TRAIN, key.instant)

    points = figures_of(TRAIN, 0)[0].surface(100)
    proven = prove_cameras(found.frames, lens, points, world_from_fixture=fixture.WORLD_FROM_FIXTURE)
    assert proven == 10
    assert rows_of(found)["p0", 2]["intrinsics"] is not None


def test_splits_and_the_evaluation_set(made: tuple[Path, Truth]) -> None:
    root = made[0]
    assert [(one.sequence, one.split) for one in SOURCE.recordings(root)] == [
        (TRAIN, Split.TRAIN), (VAL, Split.VAL), (TEST, Split.TEST),
    ]  # fmt: skip
    for sequence in SEQUENCES:
        frames = scan(root, sequence).frames
        assert tables.has_flag(frames.column("flags"), EVALUATION).all() == (sequence == TEST)
        assert not tables.has_flag(frames.column("flags"), EVALUATION).any() or sequence == TEST


def test_val_is_taken_for_validation(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "sequenceFiles/validation").rename(root / "sequenceFiles/val")
    with caplog.at_level(logging.WARNING):
        listed = SOURCE.recordings(root)
    assert caplog.messages == ["3DPW: found sequenceFiles/val, expected validation: using val."]
    assert [one.split for one in listed] == [Split.TRAIN, Split.VAL, Split.TEST]


def test_the_spelling_of_the_notes_is_accepted(root: Path) -> None:
    plain = scan(root).frames
    values = labels_of(TRAIN)
    values["poses2D"], values["gender"] = values.pop("poses2d"), values.pop("genders")
    write_labels(root, TRAIN, values)
    assert scan(root).frames.equals(plain)


def test_images_and_labels_that_have_no_partner_are_counted(root: Path) -> None:
    folder = root / "imageFiles" / TRAIN
    shutil.copy(folder / "image_00000.jpg", folder / "image_00006.jpg")
    shutil.copy(folder / "image_00000.jpg", folder / "image_0.jpg")
    (folder / "image_00001.jpg").unlink()
    (folder / "image_00005.jpg").unlink()
    found = scan(root)
    assert sorted(rows_of(found)) == [(f"p{p}", k) for p in (0, 1) for k in (0, 2, 3, 4)]
    assert details(found) == [
        (Reason.BAD_LABEL, "1 image is not named like image_00000.jpg"),
        (Reason.UNLABELLED, "1 image has no labels: those end with frame 5"),
        (Reason.MISSING, "2 frames of the labels have no image"),
    ]
    shutil.rmtree(folder)
    gone = scan(root)
    assert gone.frames == []
    assert details(gone) == [(Reason.MISSING, "6 frames that labels tell of: no such folder")]


def test_people_outside_of_the_image_are_hidden(root: Path) -> None:
    values = labels_of(TRAIN)
    values["poses2d"][0][0, 0] = -200 - np.arange(18)
    values["cam_poses"][4, 0, 3] += 10
    values["poses2d"][1][4] = 0
    write_labels(root, TRAIN, values)
    found = scan(root)
    assert ("p0", 0) not in rows_of(found)
    assert ("p1", 4) not in rows_of(found)
    assert details(found) == [
        (Reason.HIDDEN, "1 frame of p0, outside of the image"),
        (Reason.UNLABELLED, "1 frame says nothing of where p1 is"),
        (Reason.HIDDEN, "1 frame of p1, outside of the image"),
    ]


def test_a_pose_that_is_none_leaves_the_frame_without_camera(root: Path) -> None:
    values = labels_of(TRAIN)
    values["cam_poses"][0] = 0
    values["cam_poses"][1, :3, :3] *= 1.5
    values["cam_poses"][3, 0, 3] = np.nan
    write_labels(root, TRAIN, values)
    found = scan(root)
    bare = {key for key, row in rows_of(found).items() if row["camera_from_world"] is None}
    assert bare == {("p0", 0), ("p1", 0), ("p0", 1), ("p1", 1), ("p0", 2), ("p0", 3)}
    assert ("p1", 3) not in rows_of(found)  # nothing to draw a box around


def test_nobody_in_the_labels(root: Path) -> None:
    empty: dict[str, Any] = {"poses2d": [], "jointPositions": [], "campose_valid": []}
    write_labels(root, TRAIN, labels_of(TRAIN) | empty)
    found = scan(root)
    assert found.frames == []
    assert details(found) == [(Reason.UNLABELLED, "6 images in which nobody is labelled")]


def test_images_of_another_size_than_the_calibration_are_not_used(root: Path) -> None:
    write_labels(
        root, TRAIN, labels_of(TRAIN) | {"cam_intrinsics": np.array([[1961.0, 0, 960], [0, 1969, 540], [0, 0, 1]])}
    )
    found = scan(root)
    assert found.frames == []
    assert details(found) == [
        (Reason.SIZE, "6 images of 960 x 540 px, where the middle of the calibration is (960, 540)")
    ]
    for path in (root / "imageFiles" / TRAIN).iterdir():
        path.write_bytes(b"")
    assert details(scan(root)) == [(Reason.UNREADABLE, "6 images: none of the first 6 can be read")]
    for path in (root / "imageFiles" / TRAIN).iterdir():
        path.unlink()
    assert details(scan(root)) == [(Reason.MISSING, "the folder holds no image of its recording")]


@pytest.mark.parametrize("form", ["parent", "zip", "deep"])
def test_unpacked_forms(root: Path, tmp_path: Path, form: str) -> None:
    given = tmp_path
    if form == "zip":
        for name in ("imageFiles", "sequenceFiles"):
            (root / name).rename(root / "x")
            (root / name).mkdir()
            (root / "x").rename(root / name / name)
        given = root
    elif form == "deep":
        given = tmp_path / "deep"
        (given / "a").mkdir(parents=True)
        root.rename(given / "a/3dpw")
    assert all(marker.found for marker in SOURCE.look(given))
    rows = scan(given).frames.to_pylist()
    assert len(rows) == 11
    assert all((given / row["media"]).is_file() for row in rows)


@pytest.mark.parametrize(
    ("made", "hint"),
    [
        ("sequenceFiles.zip", r"unpack sequenceFiles\.zip"),
        ("imageFiles/a/image_00000.jpg", "only imageFiles/ is here"),
        ("sequenceFiles/train/a.pkl", r"unpack imageFiles\.zip"),
        ("clips/a.mp4", "the folder that holds imageFiles/ and sequenceFiles/"),
    ],
)
def test_other_roots_are_refused(tmp_path: Path, made: str, hint: str) -> None:
    (tmp_path / made).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / made).write_bytes(b"x")
    with pytest.raises(SourceError, match=hint):
        SOURCE.recordings(tmp_path)
    assert any(marker.needed and not marker.found for marker in SOURCE.look(tmp_path))


def test_roots_that_contradict_themselves_are_refused(root: Path) -> None:
    write_labels(root, TRAIN, {}, split="test")
    with pytest.raises(SourceError, match=rf"{TRAIN} is in train and in test"):
        SOURCE.recordings(root)
    shutil.rmtree(root / "sequenceFiles")
    (root / "sequenceFiles/other").mkdir(parents=True)
    with pytest.raises(SourceError, match=r"holds no train/\*\.pkl"):
        SOURCE.recordings(root)


def test_a_hostile_pickle_is_refused_by_name(root: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            import os

            return os.system, ("touch /tmp/crosspose-was-here",)

    path = write_labels(root, TRAIN, {})
    path.write_bytes(python2_pickle({"poses2d": Hostile()}))
    with pytest.raises(SourceError, match=rf"refused: {TRAIN}\.pkl asks to import posix\.system; not a dataset pickle"):
        scan(root)
    assert not Path("/tmp/crosspose-was-here").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"poses2d": [np.zeros((6, 18, 3))] * 2}, r"poses2d is of shape \(2, 6, 18, 3\)"),
        ({"poses2d": [np.zeros((6, 3, 18)), np.zeros((5, 3, 18))]}, "inhomogeneous"),
        ({"poses2d": None}, "holds no sequence"),
        ({"poses2d": "no"}, "holds no sequence"),
        ({"jointPositions": [np.zeros((6, 72))]}, "holds no sequence"),
        ({"cam_poses": np.zeros((4, 4, 4))}, "holds no sequence"),
        ({"cam_poses": np.zeros(6)}, "holds no sequence"),
        ({"campose_valid": [np.ones(6)] * 3}, "holds no sequence"),
        ({"cam_intrinsics": np.zeros((3, 3))}, "cam_intrinsics is no camera matrix"),
        ({"cam_intrinsics": np.zeros(3)}, "holds no sequence"),
    ],
)
def test_labels_of_another_form_are_refused_by_name(root: Path, change: dict[str, Any], said: str) -> None:
    write_labels(root, TRAIN, labels_of(TRAIN) | change)
    with pytest.raises(SourceError, match=rf"{TRAIN}\.pkl holds no sequence of 3DPW: .*{said}|{said}"):
        scan(root)


def test_damaged_labels_are_refused_by_name(root: Path) -> None:
    values = labels_of(TRAIN)
    for name in ("poses2d", "cam_poses", "cam_intrinsics", "campose_valid", "jointPositions"):
        write_labels(root, TRAIN, {key: value for key, value in values.items() if key != name})
        with pytest.raises(SourceError, match=rf"{TRAIN}\.pkl holds no sequence of 3DPW: key {name} is missing"):
            scan(root)
    path = write_labels(root, TRAIN, [1, 2])
    with pytest.raises(SourceError, match="it holds a list"):
        scan(root)
    whole = python2_pickle(values)
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(SourceError, match=rf"{TRAIN}\.pkl"):
            scan(root)


# --- the road ---


def recipe(*splits: Split) -> BuildRecipe:
    plain = dataset("3dpw")
    source = replace(plain.sources[0], splits=splits) if splits else plain.sources[0]
    return replace(
        plain, sources=(source,), parser=ParserRecipe(backend="none"), pair=PairRecipe(cross_pose=100, min_dt_s=0.05)
    )


def code_of(key: FrameKey) -> tuple[int, int]:
    return key.instant, list(SEQUENCES).index(key.sequence)


def test_the_road(made: tuple[Path, Truth], tmp_path: Path) -> None:
    run_road(recipe(Split.TRAIN, Split.VAL, Split.TEST), {"3dpw": made[0]}, tmp_path)
    # Of two sequences, p0 in 6 frames and p1 in 5; neighbours, 1/30 s apart, make no pair. None of the test sequence.
    assert prove_pairs(tmp_path, codes=code_of) == {"cross_pose": 2 * (15 - 5 + 10 - 4)}
    crops = Build(tmp_path).table("crops").to_pylist()
    assert {(row["split"], row["sequence"]) for row in crops} == {("train", TRAIN), ("val", VAL), ("test", TEST)}
    rejects = Build(tmp_path).table("rejects").to_pylist()
    assert [row["detail"] for row in rejects if row["reason"] == "evaluation"] == [
        "11 crops belong to an evaluation set and are never paired"
    ]


def test_the_default_road_leaves_the_test_sequences_out(made: tuple[Path, Truth], tmp_path: Path) -> None:
    run_road(recipe(), {"3dpw": made[0]}, tmp_path)
    assert {row["sequence"] for row in Build(tmp_path).table("frames").to_pylist()} == {TRAIN, VAL}

    def figure_of(key: FrameKey) -> Any:
        return figures_of(key.sequence, key.instant)[int(key.track[1])]

    proven = prove_crop_cameras(tmp_path, figure_of, world_from_fixture=fixture.WORLD_FROM_FIXTURE)
    assert proven > 40
