"""HanCo as it lies on disk: frames, cameras, masks, and what is left out."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from manifests import table as tables
from manifests.errors import SourceError
from manifests.sample import CELLS, unpack_cells
from manifests.types import FrameKey, Reason, Split
from pipeline.recipes import ParserRecipe, SourceRecipe, SplitRecipe, dataset
from pipeline.sources import build_source
from tests.support.hanco_fixture import EVALUATION, TRAIN, UNKNOWN, figure_of, lens_of, write_hanco, write_meta
from tests.support.proof import prove_cameras, prove_crop_cameras, prove_pairs, run_road
from tests.support.rejects import told as said
from tests.support.samples import sample


def source():
    return build_source(SourceRecipe(kind="hanco", name="hanco"))


def scan(root: Path, sequence: str):
    found = {one.sequence: one for one in source().recordings(root)}[sequence]
    return source().scan(root, found, split=found.split)


@pytest.fixture(scope="module")
def hanco(tmp_path_factory):
    return write_hanco(tmp_path_factory.mktemp("hanco") / "HanCo")


@pytest.fixture
def whole(tmp_path):
    return write_hanco(tmp_path / "HanCo", faults=False)


def test_splits_and_groups(hanco):
    found = source().recordings(hanco.home)
    assert [(one.sequence, one.split, one.group) for one in found] == [
        (TRAIN, Split.TRAIN, "subject-3"), (EVALUATION, Split.TEST, "evaluation-subject-3"), (UNKNOWN, Split.TRAIN, UNKNOWN),
    ]  # fmt: skip
    assert [len(one.files) for one in found] == [1, 0, 0]


def test_frames_by_key_and_nothing_of_the_variants(hanco):
    frames = scan(hanco.home, TRAIN).frames
    rows = {row["key"]: row for row in frames.to_pylist()}
    assert len(rows) == 3 * 8 - 1
    row = rows[f"hanco/train/{TRAIN}/00000002/cam3/hand"]
    assert (row["media"], row["width"], row["height"]) == (f"rgb/{TRAIN}/cam3/00000002.jpg", 224, 224)
    assert (row["subject"], row["group"], row["time_s"], row["box_from"]) == (
        "subject-3",
        "subject-3",
        None,
        "full_frame",
    )
    assert row["box_xyxy_px"] == [-0.5, -0.5, 223.5, 223.5]
    assert (row["silhouette_from"], row["domain"], row["licence"]) == ("dataset", "hand", "research only (unverified)")
    assert {Path(media).parts[0] for media in frames.column("media").to_pylist()} == {"rgb"}
    assert f"hanco/train/{TRAIN}/00000001/cam2/hand" not in rows


def test_what_is_left_out_is_counted(hanco):
    left_out = scan(hanco.home, TRAIN).rejects
    said(left_out)
    told = {(r.key.removeprefix("rgb/"), r.reason): r.detail for r in left_out}
    unknown = {(f"{TRAIN}/cam{k}", Reason.UNLABELLED): "1 image: meta.json knows 3 frames" for k in range(8)}
    assert told == unknown | {
        (f"{TRAIN}/cam2", Reason.MISSING): "1 frame of meta.json has no image",
        (f"{TRAIN}/cam6", Reason.BAD_LABEL): "1 image is not named like 00000024.jpg",
    }
    of_unknown = scan(hanco.home, UNKNOWN)
    assert not of_unknown.frames
    assert said(of_unknown.rejects) == [(Reason.UNLABELLED, "4 images: meta.json knows 0 frames")]


def test_one_frame_that_is_not_to_learn_from_keeps_its_sequence_out(tmp_path):
    for sequence in ("0000", "0001", "0002"):
        (tmp_path / "rgb" / sequence).mkdir(parents=True)
    meta = {"is_train": [[True, False], [True], [True]], "subject_id": [[3, 3], [None], [4]]}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    assert [(one.sequence, one.split, one.group) for one in source().recordings(tmp_path)] == [
        ("0000", Split.TEST, "evaluation-subject-3"),
        ("0001", Split.TRAIN, "0001"),
        ("0002", Split.TRAIN, "subject-4"),
    ]


def test_evaluation_frames_say_so(hanco):
    frames = scan(hanco.home, EVALUATION).frames
    assert frames.num_rows == 16
    assert Counter(map(tuple, frames.column("flags").to_pylist())) == {("evaluation", "official_split"): 16}


def test_cameras(hanco):
    def lens(key: FrameKey):
        lost = (key.sequence, key.instant) == (TRAIN, 2)
        return None if lost else lens_of(int(key.view[3:]), key.instant)

    for sequence, proven in ((TRAIN, 15), (EVALUATION, 16)):
        frames = scan(hanco.home, sequence).frames
        assert proven == prove_cameras(frames, lens, figure_of(sequence, 0).surface(60))
        for row in frames.to_pylist():
            assert ("uncalibrated" in row["flags"]) == (row["camera_from_world"] is None) == (row["intrinsics"] is None)


def test_found_in_the_folder_above_and_below_a_zip(hanco, tmp_path):
    for place in ("HanCo", "zip/HanCo"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).symlink_to(hanco.home)
        rows = scan(tmp_path, EVALUATION).frames.to_pylist()
        assert rows[0]["media"] == f"{place}/rgb/{EVALUATION}/cam0/00000000.jpg"
        assert source().labels(tmp_path, rows[0]).silhouette is not None
        (tmp_path / place).unlink()
    assert [(m.what, m.found) for m in source().look(hanco.home)] == [
        ("rgb/0000/cam0/", True), ("meta.json", True), ("calib/", True), ("mask_hand/", True),
    ]  # fmt: skip


def test_meta_is_another_download(whole):
    (whole.home / "meta.json").unlink()
    with pytest.raises(
        SourceError, match=r"meta\.json absent: it is the separate download 'Camera Calibration and Meta Inf"
    ):
        source().recordings(whole.home)
    assert [m.found for m in source().look(whole.home)] == [True, False, True, True]


def test_other_folders_are_not_hanco(tmp_path):
    (tmp_path / "rgb_merged" / "0007").mkdir(parents=True)
    assert not source().look(tmp_path)[0].found
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(SourceError):
            source().recordings(root)
    assert "rgb/ is another download" in source().look(tmp_path)[0].hint
    with pytest.raises(SourceError, match=r"is not here[\s\S]*rgb/ is another download"):
        source().recordings(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"is_train": 1, "subject_id": []}', '{"is_train": [[true]]}', "\x00"])
def test_a_bad_meta(tmp_path, text):
    (tmp_path / "rgb" / TRAIN).mkdir(parents=True)
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(SourceError, match=r"meta\.json does not parse"):
        source().recordings(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        "[1]",
        json.dumps({"K": np.eye(3).tolist(), "M": np.eye(4).tolist()}),
        '{"K": [[1]], "M": "x"}',
        '{"K": NaN, "M": NaN}',
        '{"K": 1, "M": null}',
    ],
)
def test_a_bad_calibration(hanco, tmp_path, text):
    for part in ("rgb", "meta.json"):
        (tmp_path / part).symlink_to(hanco.home / part)
    bad = tmp_path / "calib" / TRAIN / "00000001.json"
    bad.parent.mkdir(parents=True)
    bad.write_text(text)
    with pytest.raises(SourceError, match=r"00000001\.json does not parse") as error:
        scan(tmp_path, TRAIN)
    assert error.value.where == str(bad)


def test_parts_that_are_not_there(whole):
    for part in ("calib", "mask_hand", f"rgb/{TRAIN}/cam7"):
        shutil.rmtree(whole.home / part)
    found = scan(whole.home, TRAIN)
    assert found.frames.num_rows == 3 * 7
    assert [(r.key[-4:], r.detail) for r in found.rejects if r.reason is Reason.MISSING] == [
        ("cam7", "3 frames: the camera's folder is not there")
    ]
    row = found.frames.to_pylist()[0]
    assert (row["intrinsics"], row["silhouette_from"], row["flags"]) == (None, "none", ["uncalibrated"])
    assert source().labels(whole.home, row) is None
    for path in (whole.home / "rgb" / EVALUATION).rglob("*.jpg"):
        path.write_bytes(b"no picture")
    of_bad = scan(whole.home, EVALUATION)
    assert said(of_bad.rejects) == [(Reason.UNREADABLE, "16 images: none of the first 8 can be read")]


def test_masks_that_cannot_be_used(whole):
    row = scan(whole.home, TRAIN).frames.to_pylist()[0]
    path = whole.home / "mask_hand" / TRAIN / "cam0" / "00000000.jpg"
    cv2.imwrite(str(path), np.zeros((9, 9), np.uint8))
    assert source().labels(whole.home, row).reject == (Reason.BAD_LABEL, "mask_hand has 9 x 9 px")
    path.write_bytes(b"\xff\xd8")
    assert source().labels(whole.home, row).reject[0] is Reason.BAD_LABEL
    path.unlink()
    assert source().labels(whole.home, row) is None


def test_from_raw_to_audited_shards(hanco, tmp_path):
    recipe = replace(dataset("hanco"), parser=ParserRecipe(backend="none"), split=SplitRecipe())
    recipe = replace(recipe, sources=(replace(recipe.sources[0], splits=(Split.TRAIN, Split.TEST)),))
    run_road(recipe, {"hanco": hanco.home}, tmp_path)
    rejects = {
        (row["key"], row["reason"]): row["detail"]
        for path in (tmp_path / "crops").glob("*.rejects.parquet")
        for row in tables.read("rejects", path).to_pylist()
    }
    place = f"hanco/train/{TRAIN}"
    assert rejects == {
        (f"{place}/00000000/cam3/hand", "hidden"): "mask_hand shows no hand in this view",
        (f"{place}/00000002/cam4/hand", "unreadable"): "the image's header does not parse, or says it is too large",
        (f"{place}/00000000/cam5/hand", "size"): "120 x 100 px, where 224 x 224 is due",
    }
    # Instants 0, 1 and 2 are seen by 6, 7 and 7 cameras; four cameras see 3 instants, four see 2. Evaluation frames: none.
    counts = prove_pairs(tmp_path, codes=lambda key: (key.instant, int(key.view[3:])))
    assert counts == {"cross_view": 15 + 21 + 21, "cross_pose": 4 * 3 + 4}
    assert prove_crop_cameras(tmp_path, lambda key: figure_of(key.sequence, key.instant)) > 0
    prove_silhouettes(tmp_path, hanco.drawn)


def prove_silhouettes(out: Path, drawn: dict) -> None:
    (path,) = (out / "crops").glob(f"*{TRAIN}.crops.parquet")
    for crop in tables.read("crops", path).to_pylist():
        key = FrameKey.parse(crop["key"])
        true = drawn[key.sequence, int(key.view[3:]), key.instant].mask(0).astype(np.float32)
        true = cv2.resize(true, (CELLS, CELLS), interpolation=cv2.INTER_AREA) > 0.5  # the crop is the whole frame
        stored = unpack_cells(crop["silhouette"])
        assert crop["silhouette_from"] == "dataset"
        assert (true & stored).sum() / (true | stored).sum() > 0.9


def test_the_real_excerpt(tmp_path):
    """Two cameras of sequence 0108, before other backgrounds: their names carry the background's number."""
    real = sample("lmb-freiburg+contra-hand/rgb_variants/0108")
    for camera, frame, background in (("cam3", 26, 2), ("cam4", 26, 3), ("cam4", 19, 0), ("cam4", 7, 0)):
        to = tmp_path / "rgb" / "0108" / camera / f"{frame:08d}.jpg"
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(real / camera / f"{frame:08d}_{background}.jpg", to)
    write_meta(tmp_path)
    meta = json.loads((tmp_path / "meta.json").read_text())
    meta["is_train"][108], meta["subject_id"][108] = [True] * 27, [8] * 27
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    found = scan(tmp_path, "0108")
    assert [key.removeprefix("hanco/train/0108/") for key in found.frames.column("key").to_pylist()] == [
        "00000026/cam3/hand", "00000007/cam4/hand", "00000019/cam4/hand", "00000026/cam4/hand",
    ]  # fmt: skip
    assert set(found.frames.column("width").to_pylist()) == {224}
    assert Counter(r.reason for r in found.rejects) == {Reason.MISSING: 8}
    recipe = replace(dataset("hanco"), parser=ParserRecipe(backend="none"))
    run_road(recipe, {"hanco": tmp_path}, tmp_path / "out")
    (path,) = (tmp_path / "out" / "pairs").glob("*.pairs.parquet")
    assert Counter(tables.read("pairs", path).column("kind").to_pylist()) == {"cross_view": 1, "cross_pose": 3}
