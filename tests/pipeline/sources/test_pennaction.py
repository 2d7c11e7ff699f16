"""Penn Action: boxes that end early, joints that are not visible, its split, and the whole road proven from pixels."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from manifests.build import Build
from manifests.errors import RecipeError, SourceError
from manifests.types import Reason, Split
from pipeline.recipes import PairRecipe, ParserRecipe, SourceRecipe, dataset
from pipeline.sources.base import Scan
from pipeline.sources.pennaction import PennActionSource
from tests.support.pennaction_fixture import CLIPS, Truth, write_pennaction
from tests.support.proof import prove_pairs, run_road
from tests.support.rejects import told

RECIPE = SourceRecipe(kind="pennaction", name="pennaction")
SOURCE = PennActionSource(RECIPE)
OFFICIAL = PennActionSource(replace(RECIPE, protocol="official"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    root = tmp_path_factory.mktemp("penn") / "Penn_Action"
    return root, write_pennaction(root)


@pytest.fixture
def root(made: tuple[Path, Truth], tmp_path: Path) -> Path:
    shutil.copytree(made[0], tmp_path / "Penn_Action")
    return tmp_path / "Penn_Action"


def scan(root: Path, sequence: str) -> Scan:
    one = next(one for one in SOURCE.recordings(root) if one.sequence == sequence)
    return SOURCE.scan(root, one, split=Split.TRAIN)


def details(found: Scan) -> list[tuple[Reason, str]]:
    return told(found.rejects)


def change(root: Path, clip: str, **values: object) -> None:
    """Write a label file anew with other values; None takes a variable out."""
    path = root / f"labels/{clip}.mat"
    held = {name: value for name, value in loadmat(path).items() if not name.startswith("__")} | values
    savemat(path, {name: value for name, value in held.items() if value is not None})


def test_frames_carry_box_and_joints_from_zero(made: tuple[Path, Truth]) -> None:
    root, truth = made
    found = scan(root, "0001")
    assert found.rejects == []
    rows = found.frames.to_pylist()
    assert [row["key"] for row in rows] == [f"pennaction/train/0001/0000000{k}/cam/p0" for k in range(1, 7)]
    for frame, row in enumerate(rows, start=1):
        assert row["media"] == f"frames/0001/{frame:06d}.jpg"
        assert (row["width"], row["height"], row["time_s"], row["flags"]) == (480, 270, None, [])
        assert np.allclose(row["box_xyxy_px"], truth.drawn["0001", frame].box())
        assert (row["box_from"], row["silhouette_from"], row["keypoints_set"]) == ("dataset", "none", "penn13")
        joints = np.reshape(row["keypoints_px"], (13, 3))
        assert np.allclose(joints[:, :2], truth.joints_px["0001", frame], atol=1e-3)
        assert (joints[:, 2] == 1).all()


def test_the_last_box_goes_on_and_hidden_joints_say_so(
    made: tuple[Path, Truth], caplog: pytest.LogCaptureFixture
) -> None:
    root, truth = made
    with caplog.at_level(logging.INFO):
        found = scan(root, "0002")
    assert caplog.messages == ["PennAction 0002: 4 frames, 3 boxes: last box repeated."]
    assert found.rejects == []
    rows = found.frames.to_pylist()
    assert rows[3]["box_xyxy_px"] == rows[2]["box_xyxy_px"] == truth.drawn["0002", 3].box().tolist()
    joints = np.reshape(rows[0]["keypoints_px"], (13, 3))
    assert joints[5].tolist() == [0, 0, 0]
    assert joints[:, 2].sum() == 12


def test_without_boxes_the_visible_joints_are_framed(root: Path, made: tuple[Path, Truth]) -> None:
    change(root, "0002", bbox=np.zeros((0, 4)))
    rows = scan(root, "0002").frames.to_pylist()
    seen = np.delete(made[1].joints_px["0002", 1], 5, axis=0)
    assert np.allclose(rows[0]["box_xyxy_px"], [*seen.min(axis=0), *seen.max(axis=0)], atol=1e-3)
    assert {row["box_from"] for row in rows} == {"keypoints"}


def test_boxes_that_are_wrong_give_way_and_none_at_all_is_counted(root: Path) -> None:
    boxes, seen = loadmat(root / "labels/0001.mat")["bbox"], np.ones((6, 13))
    boxes[0] = [300, 200, 100, 50]  # corners swapped
    boxes[1] = np.nan
    boxes[2] = [-900, -900, -800, -800]
    boxes[3] = [-50, -50, 900, 900]
    seen[2] = 0
    change(root, "0001", bbox=boxes, visibility=seen)
    found = scan(root, "0001")
    rows = {row["instant"]: row for row in found.frames.to_pylist()}
    assert {k: row["box_from"] for k, row in rows.items()} == {
        1: "keypoints", 2: "keypoints", 4: "dataset", 5: "dataset", 6: "dataset",
    }  # fmt: skip
    assert rows[4]["box_xyxy_px"] == [-0.5, -0.5, 479.5, 269.5]
    assert details(found) == [(Reason.UNLABELLED, "1 image has neither a box nor visible joints")]


def test_images_and_rows_that_have_no_partner_are_counted(root: Path) -> None:
    folder = root / "frames/0001"
    shutil.copy(folder / "000001.jpg", folder / "000007.jpg")
    shutil.copy(folder / "000001.jpg", folder / "thumb.jpg")
    (folder / "000003.jpg").unlink()
    found = scan(root, "0001")
    assert found.frames.num_rows == 5
    assert details(found) == [
        (Reason.BAD_LABEL, "1 image is not named like 000001.jpg"),
        (Reason.UNLABELLED, "1 image has no row in labels/0001.mat"),
        (Reason.MISSING, "1 frame of the labels has no image"),
    ]
    shutil.rmtree(folder)
    gone = scan(root, "0001")
    assert gone.frames == []
    assert details(gone) == [(Reason.MISSING, "6 frames that labels tell of: no such folder")]


def test_labels_for_images_of_another_size_are_not_used(root: Path) -> None:
    change(root, "0001", dimensions=np.array([[540.0, 960, 6]]))
    found = scan(root, "0001")
    assert found.frames == []
    assert details(found) == [(Reason.BAD_LABEL, "6 images of 480 x 270 px, where the labels are for 960 x 540")]


def test_a_clip_that_cannot_be_read_is_counted(root: Path) -> None:
    for path in (root / "frames/0002").iterdir():
        path.write_bytes(b"\xff\xd8")
    assert details(scan(root, "0002")) == [(Reason.UNREADABLE, "4 images: none of the first 4 can be read")]
    change(root, "0001", bbox=np.zeros((0, 4)), visibility=np.zeros((6, 13)))
    nobody = scan(root, "0001")
    assert nobody.frames == []
    assert details(nobody) == [(Reason.UNLABELLED, "6 images have neither a box nor visible joints")]


def test_without_labels_the_person_is_looked_for(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "labels/0001.mat").unlink()
    with caplog.at_level(logging.WARNING):
        rows = scan(root, "0001").frames.to_pylist()
    assert "PennAction: labels of 1 of 2 clips are missing, such as labels/0001.mat" in caplog.text
    assert len(rows) == 6
    assert {(row["track"], row["box_xyxy_px"], *row["flags"]) for row in rows} == {("all", None, "unlabelled")}
    shutil.rmtree(root / "labels")
    assert [row["track"] for row in scan(root, "0002").frames.to_pylist()] == ["all"] * 4
    markers = SOURCE.look(root)
    assert [(marker.found, marker.needed) for marker in markers] == [(True, True), (False, False)]
    assert "phases (TCC)" in markers[1].hint


def test_splits(root: Path) -> None:
    assert {(one.sequence, one.group, one.split) for one in SOURCE.recordings(root)} == {
        ("0001", "0001", None), ("0002", "0002", None),
    }  # fmt: skip
    assert {one.sequence: one.split for one in OFFICIAL.recordings(root)} == {"0001": Split.TRAIN, "0002": Split.TEST}
    (root / "labels/0002.mat").unlink()
    with pytest.raises(SourceError, match=r"labels of 1 of 2 clips are missing, such as labels/0002\.mat"):
        OFFICIAL.recordings(root)
    with pytest.raises(RecipeError, match="no split protocol `xsub`"):
        PennActionSource(replace(RECIPE, protocol="xsub"))


def test_folders_of_other_names_are_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "frames/0001_copy").mkdir()
    with caplog.at_level(logging.WARNING):
        assert len(SOURCE.recordings(root)) == 2
    assert "1 folders of frames/ are left out, such as 0001_copy" in caplog.text


@pytest.mark.parametrize("form", ["parent", "zip"])
def test_unpacked_forms(root: Path, tmp_path: Path, form: str) -> None:
    given = tmp_path if form == "parent" else tmp_path / "deep"
    if form == "zip":
        (given / "x").mkdir(parents=True)
        root.rename(given / "x/PennAction")
    assert all(marker.found for marker in SOURCE.look(given))
    rows = scan(given, "0001").frames.to_pylist()
    assert len(rows) == 6
    assert all((given / row["media"]).is_file() for row in rows)


@pytest.mark.parametrize(
    ("made", "hint"),
    [
        ("Penn_Action.tar.gz", r"unpack Penn_Action\.tar\.gz"),
        ("labels/0001.mat", "only labels/ is here"),
        ("frames/S01/000001.jpg", "the folder that holds frames/ and labels/"),
        ("frames/0001/img.jpg", "the folder that holds frames/ and labels/"),
    ],
)
def test_other_roots_are_refused(tmp_path: Path, made: str, hint: str) -> None:
    (tmp_path / made).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / made).write_bytes(b"x")
    with pytest.raises(SourceError, match=hint):
        SOURCE.recordings(tmp_path)
    assert not SOURCE.look(tmp_path)[0].found


def test_damaged_labels_are_refused_by_name(root: Path) -> None:
    path = root / "labels/0001.mat"
    whole = path.read_bytes()
    change(root, "0001", x=np.zeros((6, 14)), y=np.zeros((6, 14)), visibility=np.zeros((6, 14)))
    with pytest.raises(SourceError, match=r"0001\.mat is no label file of Penn Action: x is of shape \(6, 14\)"):
        scan(root, "0001")
    path.write_bytes(whole)
    for name, value in (("bbox", np.zeros((4, 3))), ("x", np.zeros((5, 13))), ("dimensions", np.zeros(1)), ("y", "no")):
        path.write_bytes(whole)
        change(root, "0001", **{name: value})
        with pytest.raises(SourceError, match=r"0001\.mat is no label file"):
            scan(root, "0001")
    path.write_bytes(whole)
    change(root, "0001", bbox=None)
    with pytest.raises(SourceError, match=r"0001\.mat has no variable bbox"):
        scan(root, "0001")
    for cut in (0, 100, 200, len(whole) // 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(SourceError, match=r"0001\.mat"):
            scan(root, "0001")


def test_the_road(tmp_path: Path) -> None:
    root, out = tmp_path / "penn", tmp_path / "out"
    write_pennaction(root)
    recipe = replace(
        dataset("pennaction"), parser=ParserRecipe(backend="none"), pair=PairRecipe(cross_pose=100, cross_view=100)
    )
    run_road(recipe, {"pennaction": root}, out)
    views = list(CLIPS)
    kinds = prove_pairs(out, codes=lambda key: (key.instant, views.index(key.sequence)))
    assert kinds == {"cross_pose": 15 + 6}
    crops = Build(out).table("crops").to_pylist()
    assert {(row["sequence"], row["box_from"], row["keypoints_set"]) for row in crops} == {
        ("0001", "dataset", "penn13"), ("0002", "dataset", "penn13"),
    }  # fmt: skip
    assert {row["split"] for row in crops} == {"train", "val"}  # by the hash of the clip


def test_the_official_road_leaves_the_test_clips_out(tmp_path: Path) -> None:
    root, out = tmp_path / "penn", tmp_path / "out"
    write_pennaction(root)
    plain = dataset("pennaction")
    sources = (replace(plain.sources[0], protocol="official"),)
    run_road(replace(plain, sources=sources, parser=ParserRecipe(backend="none")), {"pennaction": root}, out)
    assert prove_pairs(out) == {"cross_pose": 15}
    assert {row["sequence"] for row in Build(out).table("crops").to_pylist()} == {"0001"}
