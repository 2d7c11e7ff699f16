"""PoseTrack 2018 and 2021: labelled people of crowds, in four forms of label files."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests.audit.findings import Severity
from manifests.audit.prove import audit
from manifests.build import Build
from manifests.errors import SourceError
from manifests.types import FrameKey, Reason, Split
from pipeline.recipes import BuildRecipe, PairRecipe, ParserRecipe, SourceRecipe, dataset
from pipeline.sources import build_source
from pipeline.sources.base import Scan, Source
from tests.support.posetrack_fixture import FOLDERS, PEOPLE, SIZE, TRAIN, VAL, Truth, write_labels, write_posetrack
from tests.support.proof import prove_pairs, run_road
from tests.support.rejects import told
from tests.support.samples import sample


def source_at(work: Path | None = None) -> Source:
    return build_source(SourceRecipe(kind="posetrack", name="posetrack"), work)


def scan_all(root: Path, work: Path | None = None) -> dict[str, Scan]:
    source = source_at(work)
    list(source.prepare(root))
    return {r.sequence: source.scan(root, r, split=r.split or Split.TRAIN) for r in source.recordings(root)}


def rows_of(scans: dict[str, Scan]) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for scan in scans.values() for row in scan.frames.to_pylist()}


def keys(*, third: bool) -> set[str]:
    train = [(frame, track) for frame in (2, 3, 4, 5) for track in (0, 1) if (frame, track) != (5, 1)]
    train += [(3, 2), (4, 2)] if third else []
    val = [(frame, track) for frame in (0, 2, 3) for track in (0, 1)]
    named = {("train", TRAIN): train, ("val", VAL): val}
    return {f"posetrack/{s}/{name}/{f:08d}/cam/t{t}" for (s, name), found in named.items() for f, t in found}


@pytest.mark.parametrize("form", ["18", "moved", "merged"])
def test_every_form_gives_the_labelled_people(tmp_path: Path, form: str) -> None:
    truth = write_posetrack(tmp_path / "posetrack18", form)
    scans = scan_all(tmp_path / "posetrack18", tmp_path / "work")
    rows = rows_of(scans)
    assert rows.keys() == keys(third=False)
    for key, row in rows.items():
        named = FrameKey.parse(key)
        drawn = (named.sequence, named.instant, int(named.track[1:]))
        assert np.allclose(row["box_xyxy_px"], truth.boxes[drawn])
        points = np.reshape(row["keypoints_px"], (17, 3))
        assert np.allclose(points, truth.keypoints[drawn], atol=1e-3)
        assert (points[3:5] == 0).all()
        assert (row["width"], row["height"]) == SIZE
        assert row["media"] == f"images/{named.split}/{named.sequence}/{named.instant:06d}.jpg"
        assert (row["box_from"], row["keypoints_set"], row["group"]) == ("dataset", "posetrack17", named.sequence)
        assert row["subject"] is row["time_s"] is None
        assert row["flags"] == []
    assert min(row["box_xyxy_px"][0] for row in rows.values()) == -0.5  # clipped


@pytest.mark.parametrize("form", ["18", "merged"])
def test_what_is_left_out_is_counted(tmp_path: Path, form: str) -> None:
    write_posetrack(tmp_path / "posetrack18", form)
    scans = scan_all(tmp_path, tmp_path / "work")
    place = f"posetrack18/images/train/{TRAIN}"
    key = f"posetrack/train/{TRAIN}"
    assert {(r.key, r.reason, r.detail) for r in scans[TRAIN].rejects} == {
        (place, Reason.UNLABELLED, "2 of 8 pictures carry no label"),
        (place, Reason.MISSING, f"1 of 6 labelled images are not there, such as images/train/{TRAIN}/000007.jpg"),
        (place, Reason.EMPTY, "1 of 5 labelled pictures show nobody"),
        (f"{key}/00000002/cam/t6", Reason.TRUNCATED, "the bbox lies outside the picture"),
        (f"{key}/00000003/cam/t5", Reason.BAD_LABEL, "the bbox is 0 x 0 px"),
        (f"{key}/00000003/cam/t2", Reason.BAD_LABEL, "all keypoints are 0"),
        (f"{key}/00000004/cam/t2", Reason.BAD_LABEL, "all keypoints are 0"),
        (f"{key}/00000004/cam/t0", Reason.TWICE, "track 0 is labelled twice in 000004.jpg; the first counts"),
        (f"{key}/00000005/cam/t1", Reason.BAD_LABEL, "no bbox"),
    }
    assert len(told(scans[TRAIN].rejects)) == 9
    assert told(scans[VAL].rejects) == [(Reason.UNLABELLED, "1 of 4 pictures carry no label")]


def test_posetrack21_knows_people_over_all_videos(tmp_path: Path) -> None:
    write_posetrack(tmp_path, "21")
    rows = rows_of(scan_all(tmp_path))
    assert rows.keys() == keys(third=True)  # boxes without keypoints are labels of its own
    assert all(row["flags"] == ["official_split"] for row in rows.values())
    assert {(row["split"], row["track"], row["subject"]) for row in rows.values()} == {
        ("train", "t0", "p1024"), ("train", "t1", "p7"), ("train", "t2", "p8"),
        ("val", "t0", "p1024"), ("val", "t1", "p9"),
    }  # fmt: skip
    assert {key for key, row in rows.items() if row["keypoints_px"] is None} == keys(third=True) - keys(third=False)


def test_frames_of_posetrack21_with_boxes_alone_count_as_labelled(tmp_path: Path) -> None:
    write_posetrack(tmp_path, "21")
    change(tmp_path / f"posetrack_data/val/{VAL}.json", lambda labels: labels["images"][2].update(is_labeled=False))
    assert rows_of(scan_all(tmp_path)).keys() == keys(third=True)


def test_posetrack21_is_used_before_18_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_posetrack(tmp_path / "a", "18")
    write_posetrack(tmp_path / "b", "21")
    recordings = source_at().recordings(tmp_path)
    assert {recording.folder for recording in recordings} == {"b"}
    shutil.copytree(tmp_path / "a/posetrack_data", tmp_path / "b/posetrack_data", dirs_exist_ok=True)
    with caplog.at_level("INFO"):
        files = [recording.files[0][0] for recording in source_at().recordings(tmp_path / "b")]
    assert files == [f"posetrack_data/train/{TRAIN}.json", f"posetrack_data/val/{VAL}.json"]
    assert "PoseTrack21 is used; PoseTrack18 is there too, and not used" in caplog.text


def test_the_root_may_be_a_level_above(tmp_path: Path) -> None:
    write_posetrack(tmp_path / "data/zip/posetrack18")
    for root in (tmp_path / "data", tmp_path / "data/zip", tmp_path / "data/zip/posetrack18"):
        assert rows_of(scan_all(root)).keys() == keys(third=False)
        assert all((root / row["media"]).is_file() for row in rows_of(scan_all(root)).values())


def test_test_sequences_have_no_labels_and_no_recording(tmp_path: Path) -> None:
    write_posetrack(tmp_path)
    assert [(r.sequence, r.split) for r in source_at().recordings(tmp_path)] == [(TRAIN, "train"), (VAL, "val")]


def test_markers_count_sequences_and_say_where_to_get_the_rest(tmp_path: Path) -> None:
    write_posetrack(tmp_path)
    (tmp_path / "images/train/000002_bonn_train").mkdir()
    markers = source_at().look(tmp_path)
    assert [(m.found, m.needed) for m in markers] == [(True, True), (True, True), (True, True), (True, False)]
    assert markers[2].hint == (
        "PoseTrack18 is used; posetrack.net is offline; see PoseTrack21 form. 1/593 sequences found; "
        "1 image folders have no label file"
    )
    for number in range(73):
        write_labels(tmp_path / f"posetrack_data/annotations/val/{900000 + number}_mpii_test.json", {})
    assert source_at().look(tmp_path)[3].hint.endswith("1/170 sequences found; labels of version 0.2")
    shutil.rmtree(tmp_path / "posetrack_data")
    markers = source_at().look(tmp_path)
    assert [m.found for m in markers] == [True, True, False, False]
    with pytest.raises(SourceError, match="no label file is here"):
        source_at().recordings(tmp_path)
    assert not source_at().look(tmp_path / "images/train")[0].found
    for inside in ("images", "images/train"):
        with pytest.raises(SourceError, match="this is no PoseTrack") as error:
            source_at().recordings(tmp_path / inside)
        assert "give the folder above images/ as ROOT" in error.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        SourceError, match=r"give the folder that holds images/ and posetrack_data/ \(or annotations/\)"
    ):
        source_at().recordings(tmp_path / "empty")


def test_labels_without_images_are_refused(tmp_path: Path) -> None:
    write_posetrack(tmp_path)
    shutil.rmtree(tmp_path / "images")
    assert [m.found for m in source_at().look(tmp_path)[:2]] == [True, False]
    with pytest.raises(SourceError, match="images/ is missing"):
        source_at().recordings(tmp_path)


def test_archives_of_2017_are_refused(tmp_path: Path) -> None:
    (tmp_path / "posetrack_data/images/bonn_5sec/000342_mpii").mkdir(parents=True)
    write_labels(tmp_path / "posetrack_data/annotations/train/00001_mpii_relpath.json", {"annolist": []})
    markers = source_at().look(tmp_path)
    assert [m.found for m in markers] == [True, True, False, False]
    assert "PoseTrack 2017" in markers[0].hint
    assert markers[2].hint == "get PoseTrack18 or PoseTrack21: posetrack.net is offline; see PoseTrack21 form"
    with pytest.raises(SourceError, match="archives of PoseTrack 2017"):
        source_at().recordings(tmp_path)


def test_labels_of_2017_beside_images_of_2018_are_refused(tmp_path: Path) -> None:
    write_posetrack(tmp_path)
    write_labels(tmp_path / f"posetrack_data/annotations/train/{TRAIN}.json", {"annolist": [{"image": "a"}]})
    with pytest.raises(SourceError, match="archives of PoseTrack 2017"):
        scan_all(tmp_path)


def test_a_sequence_without_images_is_a_reject(tmp_path: Path) -> None:
    write_posetrack(tmp_path)
    shutil.rmtree(tmp_path / f"images/val/{VAL}")
    scan = scan_all(tmp_path)[VAL]
    assert scan.frames == []
    assert (Reason.MISSING, f"3 of 3 labelled images are not there, such as images/val/{VAL}/000000.jpg") in [
        (r.reason, r.detail) for r in scan.rejects
    ]


def test_the_size_is_that_of_an_image_that_can_be_read(tmp_path: Path) -> None:
    write_posetrack(tmp_path)
    images = [tmp_path / f"images/val/{VAL}/{frame:06d}.jpg" for frame in (0, 2, 3)]
    images[0].write_bytes(b"\xff\xd8 cut")
    assert len(scan_all(tmp_path)[VAL].frames) == 6
    for image in images:
        image.write_bytes(b"")
    scan = scan_all(tmp_path)[VAL]
    assert scan.frames == []
    assert told(scan.rejects)[-1] == (Reason.UNREADABLE, "3 images: none of the first 3 can be read")


def test_people_without_a_track_or_a_picture_are_left_out(tmp_path: Path) -> None:
    write_posetrack(tmp_path)

    def spoil(labels: dict[str, Any]) -> None:
        people = labels["annotations"]
        del people[0]["track_id"]
        people[1]["image_id"] = 5
        people[2]["bbox"][0] = float("nan")
        people[3]["keypoints"][0] = float("inf")

    change(tmp_path / f"posetrack_data/annotations/val/{VAL}.json", spoil)
    scan = scan_all(tmp_path)[VAL]
    assert scan.frames.num_rows == 2
    assert Counter((r.reason, r.key.split("/")[-1], r.detail[:31]) for r in scan.rejects) == {
        (Reason.UNLABELLED, VAL, "1 of 4 pictures carry no label"): 1,
        (Reason.BAD_LABEL, VAL, "1 people are in none of the pic"): 1,
        (Reason.BAD_LABEL, "all", "no track_id"): 1,
        (Reason.BAD_LABEL, "t0", "the bbox is no box"): 1,
        (Reason.BAD_LABEL, "t1", "a keypoint is no number"): 1,
    }


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    labels = json.loads(path.read_text())
    how(labels)
    path.write_text(json.dumps(labels))


@pytest.mark.parametrize("form", ["18", "merged"])
@pytest.mark.parametrize(
    ("part", "key", "value", "told"),
    [
        ("images", "id", "1", r"images\[0\].id is '1', not a whole number"),
        ("images", "id", None, r"images\[0\].id is None, not a whole number"),
        ("images", "file_name", "../../000000.jpg", r"images\[0\].file_name is '../../000000.jpg', not a file such as"),
        ("images", "file_name", "../1_a/000000.jpg", "file_name is"),
        ("images", "file_name", "/etc/1_a/000000.jpg", "file_name is"),
        ("images", "file_name", "images/val/1_a/first.jpg", "file_name is"),
        ("images", "file_name", 7, "file_name is 7"),
        ("images", "file_name", f"images/val/{VAL}/000001.jpg", "not another image"),
        ("images", "is_labeled", "yes", r"images\[0\].is_labeled"),
        ("annotations", "image_id", None, r"annotations\[0\].image_id is None"),
        ("annotations", "track_id", 0.5, r"annotations\[0\].track_id is 0.5, not a whole number"),
        ("annotations", "bbox", [1, 2, 3], r"annotations\[0\].bbox is \[1, 2, 3\], not 4 numbers"),
        ("annotations", "bbox", "wide", "bbox is 'wide'"),
        ("annotations", "bbox", [1, 2, 3, 10**400], "not 4 numbers"),
        ("annotations", "keypoints", [[1], 2], "keypoints is"),
        ("annotations", "person_id", True, "person_id is True"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, form: str, part: str, key: str, value: object, told: str) -> None:
    write_posetrack(tmp_path, form)
    path = tmp_path / ("annotations/posetrack18_val.json" if form == "merged" else f"{FOLDERS[form]}/val/{VAL}.json")
    change(path, lambda labels: labels[part][0].update({key: value}))
    with pytest.raises(SourceError, match=told) as error:
        scan_all(tmp_path, tmp_path / "work")
    assert error.value.where.endswith(".json")


def test_damaged_label_files_are_source_errors(tmp_path: Path) -> None:
    write_posetrack(tmp_path)
    path = tmp_path / f"posetrack_data/annotations/val/{VAL}.json"
    whole = path.read_text()
    for text in ("", "[]", "{", whole[: len(whole) // 3], whole[:-400], '{"images": 3}', '{"images": [4]}', "\x00"):
        path.write_text(text)
        with pytest.raises(SourceError) as error:
            scan_all(tmp_path)
        assert str(path) in error.value.where
    path.write_text('{"images": [], "annotations": []}')
    assert told(scan_all(tmp_path)[VAL].rejects) == [(Reason.UNLABELLED, "0 of 0 pictures carry no label")]


def test_merged_labels_are_taken_apart_once_and_again_when_they_change(tmp_path: Path) -> None:
    root, work = tmp_path / "data", tmp_path / "work"
    write_posetrack(root, "merged")
    with pytest.raises(ValueError, match="need a work folder"):
        source_at().recordings(root)
    assert list(source_at(work).prepare(root)) == [(1, 2), (2, 2)]
    recordings = source_at(work).recordings(root)
    assert [[name for name, _ in r.files] for r in recordings] == [
        ["annotations/posetrack18_train.json"], ["annotations/posetrack18_val.json"],
    ]  # fmt: skip
    before = (work / f"val/{VAL}.json").stat().st_mtime_ns
    list(source_at(work).prepare(root))
    assert (work / f"val/{VAL}.json").stat().st_mtime_ns == before

    def rename(labels: dict[str, Any]) -> None:
        for image in labels["images"][2:]:
            image["file_name"] = image["file_name"].replace(VAL, "000343_mpii_test")

    change(root / "annotations/posetrack18_val.json", rename)
    list(source_at(work).prepare(root))
    assert [(r.sequence, len(r.files)) for r in source_at(work).recordings(root)] == [
        (TRAIN, 1), (VAL, 1), ("000343_mpii_test", 0),  # one file stands for both
    ]  # fmt: skip


def test_the_real_excerpt(tmp_path: Path) -> None:
    root = sample("open-mmlab+mmpose/tests/data/posetrack18")
    recordings = source_at().recordings(root)
    assert [r.sequence for r in recordings] == ["003418_mpii_test", "009473_mpii_test", "012834_mpii_test"]
    assert {r.split for r in recordings} == {Split.VAL}
    scans = scan_all(root)
    assert [scan.rejects for scan in scans.values()] == [[], [], []]
    rows = rows_of(scans)
    assert Counter(row["sequence"] for row in rows.values()) == {
        "003418_mpii_test": 1, "009473_mpii_test": 2, "012834_mpii_test": 11,
    }  # fmt: skip
    beyond = rows["posetrack/val/003418_mpii_test/00000000/cam/t0"]
    assert beyond["box_xyxy_px"] == [214.25, 15, 1572.75, 1079.5]
    assert (beyond["width"], beyond["height"]) == (1920, 1080)
    assert sum(np.reshape(beyond["keypoints_px"], (17, 3))[:, 2] > 0) == 11
    merged = tmp_path / "merged"
    shutil.copytree(root / "images", merged / "images")
    (merged / "annotations").mkdir()
    shutil.copy(root / "annotations/test_posetrack18_val.json", merged / "annotations/posetrack18_val.json")
    assert rows_of(scan_all(merged, tmp_path / "work")) == rows


def recipe() -> BuildRecipe:
    return replace(dataset("posetrack"), parser=ParserRecipe(backend="none"), pair=PairRecipe(cross_pose=100))


def code_of(key: FrameKey) -> tuple[int, int, int]:
    return key.instant, int(key.sequence == VAL), PEOPLE[int(key.track[1:])]


def test_the_road(tmp_path: Path) -> None:
    truth = write_posetrack(tmp_path / "posetrack18")
    out = tmp_path / "out"
    run_road(recipe(), {"posetrack": tmp_path / "posetrack18"}, out)
    # Of train 4 and 3 frames of two people, of val 3 of each.
    assert prove_pairs(out, codes=code_of) == {"cross_pose": 6 + 3 + 3 + 3}
    crops = Build(out).table("crops").to_pylist()
    assert {row["key"] for row in crops} == keys(third=False)
    assert {(row["box_from"], row["silhouette_from"]) for row in crops} == {("dataset", "keypoints")}
    assert Counter(r["reason"] for r in Build(out).table("rejects").to_pylist() if r["stage"] == "ingest") == {
        "unlabelled": 2, "missing": 1, "empty": 1, "truncated": 1, "bad_label": 4, "twice": 1,
    }  # fmt: skip
    check_keypoints(crops, truth)


def check_keypoints(crops: list[dict[str, Any]], truth: Truth) -> None:
    """Keypoints move with the crop."""
    for row in crops:
        named = FrameKey.parse(row["key"])
        points = truth.keypoints[named.sequence, named.instant, int(named.track[1:])]
        x0, _, x1, _ = row["square_xyxy_px"]
        seen = points[:, 2] > 0
        scale = row["size_px"] / (x1 - x0)
        found = np.reshape(row["keypoints_px"], (17, 3))
        assert np.allclose(found[seen, 0], (points[seen, 0] - x0) * scale - 0.5, atol=0.01)


def test_the_road_of_posetrack21_from_a_merged_or_a_person_id_tree(tmp_path: Path) -> None:
    write_posetrack(tmp_path / "21", "21")
    write_posetrack(tmp_path / "merged", "merged")
    run_road(recipe(), {"posetrack": tmp_path / "21"}, tmp_path / "out")
    assert prove_pairs(tmp_path / "out", codes=code_of) == {"cross_pose": 15 + 1}
    leaks = [f for f in audit(tmp_path / "out", threads=2).findings if f.rule == "leak"]
    assert [(f.severity, f.examples) for f in leaks] == [(Severity.WARNING, ("posetrack/p1024",))]
    run_road(recipe(), {"posetrack": tmp_path / "merged"}, tmp_path / "out2")
    assert prove_pairs(tmp_path / "out2", codes=code_of) == {"cross_pose": 15}
