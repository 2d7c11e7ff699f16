"""JRDB 2019 and 2022: pedestrians in the five cameras of a robot, or in their panorama."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests.build import Build
from manifests.errors import SourceError
from manifests.types import FrameKey, Reason, Split
from pipeline.recipes import BuildRecipe, PairRecipe, ParserRecipe, SourceRecipe, dataset
from pipeline.sources import build_source
from pipeline.sources.base import Scan, Source
from tests.support.jrdb_fixture import NUM_FRAMES, PEOPLE, SEQUENCES, VIEWS, Truth, label, write_jrdb
from tests.support.proof import prove_pairs, run_road
from tests.support.rejects import told

CAFE, GREEN = SEQUENCES
CAMERAS = VIEWS[:5]
WHOLE = "train_dataset_with_activity"


def source() -> Source:
    return build_source(SourceRecipe(kind="jrdb", name="jrdb"))


def scan_all(root: Path) -> dict[str, Scan]:
    return {r.sequence: source().scan(root, r, split=Split.TRAIN) for r in source().recordings(root)}


def rows_of(scans: dict[str, Scan]) -> dict[str, dict[str, Any]]:
    frames = [scan.frames for scan in scans.values() if not isinstance(scan.frames, list)]
    return {row["key"]: row for table in frames for row in table.to_pylist()}


def keys(views: tuple[str, ...]) -> set[str]:
    return {
        f"jrdb/train/{sequence}-{view}/{frame:08d}/{view}/ped-{pedestrian}"
        for sequence in SEQUENCES
        for view in views
        for frame in range(NUM_FRAMES)
        for pedestrian in PEOPLE
        if (sequence, view, frame) != (CAFE, "image8", 3)  # which shows nobody, its labels say
    }


def check_boxes(rows: dict[str, dict[str, Any]], truth: Truth) -> None:
    for row in rows.values():
        sequence = row["sequence"].rpartition("-")[0]
        drawn = truth.boxes[sequence, row["view"], row["instant"], int(row["track"].removeprefix("ped-"))]
        assert np.allclose(row["box_xyxy_px"], drawn), row["key"]


def test_each_camera_of_a_sequence_is_a_recording(tmp_path: Path) -> None:
    truth = write_jrdb(tmp_path)
    recordings = source().recordings(tmp_path)
    assert [r.sequence for r in recordings] == [f"{s}-{view}" for s in SEQUENCES for view in CAMERAS]
    assert {(r.group, r.split) for r in recordings} == {(CAFE, None), (GREEN, None)}
    rows = rows_of(scan_all(tmp_path))
    assert rows.keys() == keys(CAMERAS)
    check_boxes(rows, truth)
    for row in rows.values():
        named = FrameKey.parse(row["key"])
        camera = named.view.replace("image", "image_")
        assert row["media"] == f"{WHOLE}/images/{camera}/{row['group']}/{named.instant:06d}.jpg"  # the key, not file_id
        assert row["time_s"] == pytest.approx(named.instant / 15)
        assert (row["width"], row["height"], row["box_from"], row["subject"]) == (752, 480, "dataset", None)
    flags = {key: row["flags"] for key, row in rows.items() if row["flags"]}
    assert flags == {
        f"jrdb/train/{CAFE}-image0/00000002/image0/ped-6": ["interpolated", "no_eval"],
        f"jrdb/train/{CAFE}-image0/00000002/image0/ped-12": ["truncated"],
        f"jrdb/train/{CAFE}-image0/00000003/image0/ped-12": ["severely_occluded"],
    }
    assert rows[f"jrdb/train/{CAFE}-image0/00000002/image0/ped-12"]["box_xyxy_px"][2] == 751.5  # clipped


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    write_jrdb(tmp_path)
    scans = scan_all(tmp_path)
    assert {name for name, scan in scans.items() if scan.rejects} == {f"{CAFE}-image0", f"{CAFE}-image8"}
    file = f"{WHOLE}/labels/labels_2d/{CAFE}_image0.json"
    assert [(r.key, r.reason, r.detail) for r in scans[f"{CAFE}-image0"].rejects] == [
        (file, Reason.BAD_LABEL, "1 boxes without width or height"),
        (file, Reason.HIDDEN, "1 boxes of people who are fully hidden"),
        (file, Reason.JUNK, "1 boxes that are of no pedestrian"),
        (file, Reason.TRUNCATED, "1 boxes outside the picture"),
        (file, Reason.TWICE, "1 boxes of people who are labelled twice in one picture; the first counts"),
    ]
    assert [(r.key, r.reason, r.detail) for r in scans[f"{CAFE}-image8"].rejects] == [
        (f"{WHOLE}/images/image_8/{CAFE}", Reason.EMPTY, "1 of 4 pictures show nobody"),
    ]


def test_the_panorama_stands_in_for_cameras_without_labels(tmp_path: Path) -> None:
    truth = write_jrdb(tmp_path)
    shutil.rmtree(tmp_path / WHOLE / "labels/labels_2d")
    assert source().look(tmp_path)[3].hint.startswith("the stitched panorama is used")
    scans = scan_all(tmp_path)
    rows = rows_of(scans)
    assert rows.keys() == keys(("stitched",))
    check_boxes(rows, truth)
    assert {(row["width"], row["height"]) for row in rows.values()} == {(3760, 480)}
    assert [(r.reason, r.detail) for scan in scans.values() for r in scan.rejects] == [
        (Reason.TRUNCATED, "2 boxes across the panorama's seam")
    ]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("train_dataset/images", "train_dataset/labels"),
        ("images", "labels"),
        ("train_images/images", "train_labels/labels"),
        ("train_images", "train_labels"),
        ("train_images/train_images/images", "train_labels/labels"),
        ("JRDB2022/train_images/images", "JRDB2022/train_labels/labels"),
    ],
)
def test_other_names_are_known(tmp_path: Path, images: str, labels: str) -> None:
    write_jrdb(tmp_path / "data/JRDB", images=images, labels=labels, views=("image0",))
    shutil.copytree(tmp_path / "data/JRDB", tmp_path / "both")
    (tmp_path / "both/test_dataset_without_labels/images/image_0/x").mkdir(parents=True)
    for root in (tmp_path / "data/JRDB", tmp_path / "data", tmp_path / "both"):
        assert [m.found for m in source().look(root)] == [True] * 4
        rows = rows_of(scan_all(root))
        assert rows.keys() == keys(("image0",))
        assert all((root / row["media"]).is_file() for row in rows.values())


def test_images_and_labels_come_from_one_tree(tmp_path: Path) -> None:
    write_jrdb(tmp_path, images="train_dataset/images", labels="train_dataset/labels", views=("image0",))
    write_jrdb(tmp_path, views=("image2",))
    assert {r.folder.split("/")[0] for r in source().recordings(tmp_path)} == {WHOLE}
    assert {r.files[0][0].split("/")[0] for r in source().recordings(tmp_path)} == {WHOLE}
    assert source().look(tmp_path)[1].hint == f"{WHOLE}/images and {WHOLE}/labels"


@pytest.mark.parametrize("missing", ["images", "labels"])
def test_a_missing_half_is_said(tmp_path: Path, missing: str) -> None:
    write_jrdb(tmp_path, views=("image0",))
    shutil.rmtree(tmp_path / WHOLE / missing)
    markers = source().look(tmp_path)[1:3]
    assert ("test labels are withheld" in markers[1].hint) == (missing == "labels")
    found = {m.what.split("/")[0]: m.found for m in markers}
    assert found == {"images": missing != "images", "labels": missing != "labels"}
    with pytest.raises(SourceError, match=f"{missing} are missing") as error:
        source().recordings(tmp_path)
    assert "test labels are withheld" in error.value.hint


def test_labels_of_cameras_with_images_of_the_panorama_are_refused(tmp_path: Path) -> None:
    write_jrdb(tmp_path)
    for view in CAMERAS:
        shutil.rmtree(tmp_path / WHOLE / "images" / view.replace("image", "image_"))
    shutil.rmtree(tmp_path / WHOLE / "labels/labels_2d_stitched")
    assert [m.found for m in source().look(tmp_path)] == [True, True, True, False]
    with pytest.raises(SourceError, match="images of the labels are missing"):
        source().recordings(tmp_path)


def test_anything_else_is_no_jrdb(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert [m.found for m in source().look(tmp_path)] == [False] * 4
    with pytest.raises(SourceError, match="this is no JRDB"):
        source().recordings(tmp_path)
    (tmp_path / "images/image_0").mkdir()
    (tmp_path / "labels/labels_2d").mkdir(parents=True)
    with pytest.raises(SourceError, match="no label file is here"):
        source().recordings(tmp_path)


def test_labels_of_another_release_leave_a_sequence_out_and_no_other(tmp_path: Path) -> None:
    write_jrdb(tmp_path, views=("image0", "image2"))
    (tmp_path / WHOLE / f"images/image_0/{GREEN}/000003.jpg").unlink()
    first = tmp_path / WHOLE / f"images/image_2/{GREEN}/000000.jpg"
    first.rename(first.with_name("000004.jpg"))
    extra = tmp_path / WHOLE / f"images/image_2/{CAFE}/000004.jpg"
    shutil.copy(extra.with_name("000003.jpg"), extra)
    scans = scan_all(tmp_path)
    assert {name for name, scan in scans.items() if not len(scan.frames)} == scans.keys() - {f"{CAFE}-image0"}
    said = {name: [(r.reason, r.key, r.detail, r.count) for r in scan.rejects] for name, scan in scans.items()}
    two = "labels and images look like two releases, 2019 and 2022; sequence skipped"
    assert said[f"{GREEN}-image0"] == [
        (
            Reason.BAD_LABEL,
            f"{WHOLE}/images/image_0/{GREEN}",
            f"4 label keys but 3 images in {GREEN}, 1 keys without an image: "
            "labels look like 2022, images like 2019; sequence skipped",
            4,
        )
    ]
    assert said[f"{GREEN}-image2"][0][2] == f"4 label keys but 4 images in {GREEN}, 1 keys without an image: {two}"
    assert said[f"{CAFE}-image2"][0][2] == f"4 label keys but 5 images in {CAFE}: {two}"
    assert [said[name][0][3] for name in (f"{GREEN}-image2", f"{CAFE}-image2")] == [5, 5]  # keys or pictures


def test_a_camera_may_leave_out_frames_of_nobody_if_another_lists_them(tmp_path: Path) -> None:
    write_jrdb(tmp_path, views=("image0", "image2"))
    path = tmp_path / WHOLE / f"labels/labels_2d/{GREEN}_image0.json"
    change(path, lambda labels: labels.pop("000001.jpg"))
    scan = scan_all(tmp_path)[f"{GREEN}-image0"]
    assert scan.frames.column("instant").to_pylist() == [0, 0, 2, 2, 3, 3]
    assert told(scan.rejects) == [(Reason.EMPTY, "1 of 4 pictures show nobody")]
    change(path.with_name(f"{GREEN}_image2.json"), lambda labels: labels.pop("000001.jpg"))
    scan = scan_all(tmp_path)[f"{GREEN}-image0"]
    assert [(r.reason, r.detail[:36]) for r in scan.rejects] == [
        (Reason.BAD_LABEL, "3 label keys but 4 images in meyer-g")
    ]


def test_a_camera_without_images_is_a_reject(tmp_path: Path) -> None:
    write_jrdb(tmp_path, views=("image0", "image2"))
    shutil.rmtree(tmp_path / WHOLE / "images/image_2")
    assert told(scan_all(tmp_path)[f"{GREEN}-image2"].rejects) == [
        (Reason.MISSING, "4 labelled pictures: their folder is not there")
    ]


def test_images_of_another_size_or_none_that_is_readable(tmp_path: Path) -> None:
    write_jrdb(tmp_path)
    images = tmp_path / WHOLE / "images"
    for image in (images / f"image_0/{CAFE}").iterdir():
        shutil.copy(images / f"image_stitched/{CAFE}" / image.name, image)
    for image in (images / f"image_2/{CAFE}").iterdir():
        image.write_bytes(b"\xff\xd8 cut")
    (images / f"image_4/{CAFE}/000000.jpg").write_bytes(b"")
    scans = scan_all(tmp_path)
    assert told(scans[f"{CAFE}-image0"].rejects) == [
        (Reason.SIZE, "4 images: 3760 x 480 px, where labels are for 752 x 480")
    ]
    assert [r.reason for r in scans[f"{CAFE}-image2"].rejects] == [Reason.UNREADABLE]
    assert len(scans[f"{CAFE}-image4"].frames) == 8  # the next image is probed


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    labels = json.loads(path.read_text())
    how(labels["labels"])
    path.write_text(json.dumps(labels))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("label_id", 6, r"labels\['000001.jpg'\]\[0\].label_id is 6, not a name"),
        ("label_id", None, "label_id is None"),
        ("attributes", "visible", r"\[0\].attributes is 'visible', not an object"),
        ("box", None, r"labels\['000001.jpg'\], box of ped-6 is None, not 4 numbers"),
        ("box", [1, 2, 3], "not 4 numbers"),
        ("box", {"cx": 1.0, "cy": 2.0}, "not 4 numbers"),
        ("box", [1, 2, "wide", 3], "not 4 numbers"),
        ("box", [1, 2, 3, 10**400], "not 4 numbers"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, key: str, value: object, told: str) -> None:
    write_jrdb(tmp_path, views=("image2",))
    path = tmp_path / WHOLE / f"labels/labels_2d/{GREEN}_image2.json"
    change(path, lambda labels: labels["000001.jpg"][0].update({key: value}))
    with pytest.raises(SourceError, match=told) as error:
        scan_all(tmp_path)
    assert error.value.where == str(path)


def test_damaged_label_files_are_source_errors(tmp_path: Path) -> None:
    write_jrdb(tmp_path, views=("image2",))
    path = tmp_path / WHOLE / f"labels/labels_2d/{GREEN}_image2.json"
    whole = path.read_text()
    texts = [
        "", "[]", "{", whole[: len(whole) // 2], whole[:-3], '{"labels": []}', '{"labels": {"a.png": []}}', "\x00",
        '{"labels": {"000000.jpg": {}}}', '{"labels": {"000000.jpg": [3]}}', '{"detections": {}}',
        '{"labels": {"000000.jpg": [], "000000.jpg": []}}', '{"labels": {"../0.jpg": []}}',
    ]  # fmt: skip
    for text in texts:
        path.write_text(text)
        with pytest.raises(SourceError) as error:
            scan_all(tmp_path)
        assert str(path) in error.value.where, text


def test_boxes_that_are_no_numbers_and_attributes_that_are_not_there(tmp_path: Path) -> None:
    write_jrdb(tmp_path, views=("image2",))

    def spoil(labels: dict[str, Any]) -> None:
        labels["000000.jpg"][0]["box"][1] = float("nan")
        labels["000001.jpg"][0]["box"][2] = float("inf")
        del labels["000002.jpg"][0]["attributes"]
        labels["000003.jpg"] = []

    change(tmp_path / WHOLE / f"labels/labels_2d/{GREEN}_image2.json", spoil)
    scan = scan_all(tmp_path)[f"{GREEN}-image2"]
    assert len(scan.frames) == 4
    assert set(told(scan.rejects)) == {
        (Reason.BAD_LABEL, "2 boxes without width or height"),
        (Reason.EMPTY, "1 of 4 pictures show nobody"),
    }


def test_a_crowd_of_a_thousand_frames(tmp_path: Path) -> None:
    """Rows are built by columns; the order of people in a file does not matter."""
    write_jrdb(tmp_path, views=("image0",))
    folder = tmp_path / WHOLE / f"images/image_0/{GREEN}"
    rng = np.random.default_rng(0)
    labels = {}
    for frame in range(300):
        if frame >= NUM_FRAMES:
            (folder / f"{frame:06d}.jpg").hardlink_to(folder / "000000.jpg")
        boxes = zip(rng.permutation(30), rng.uniform(0, 400, (30, 2)).round(1).tolist(), strict=True)
        labels[f"{frame:06d}.jpg"] = [label(int(n), x, y, 40, 100, frame) for n, (x, y) in boxes]
    path = tmp_path / WHOLE / f"labels/labels_2d/{GREEN}_image0.json"
    path.write_text(json.dumps({"labels": labels}))
    scan = scan_all(tmp_path)[f"{GREEN}-image0"]
    assert (scan.frames.num_rows, scan.rejects) == (9000, [])
    row = scan.frames.to_pylist()[4567]
    shown = next(
        one for one in labels[f"{row['instant']:06d}.jpg"] if one["label_id"] == f"pedestrian:{row['track'][4:]}"
    )
    x, y, w, h = shown["box"]
    assert row["box_xyxy_px"] == pytest.approx([x, y, min(x + w, 751.5), min(y + h, 479.5)])
    assert row["media"].endswith(f"{row['instant']:06d}.jpg")
    assert scan.frames.column("key").to_pylist() == sorted(scan.frames.column("key").to_pylist())


def recipe(**source: Any) -> BuildRecipe:
    plain = dataset("jrdb")
    taken = replace(plain.sources[0], **({"frame_step": 1} | source))
    return replace(plain, sources=(taken,), parser=ParserRecipe(backend="none"), pair=PairRecipe(cross_pose=100))


def code_of(key: FrameKey) -> tuple[int, int, int]:
    second = key.sequence.startswith(GREEN)
    return key.instant + 8 * second, VIEWS.index(key.view), PEOPLE[int(key.track.removeprefix("ped-"))]


def test_the_road(tmp_path: Path) -> None:
    write_jrdb(tmp_path / "jrdb", views=("image0", "image2", "image8"))
    out = tmp_path / "out"
    run_road(recipe(), {"jrdb": tmp_path / "jrdb"}, out)
    # Of 4 frames 3 pairs lie 0.1 s apart or more, of 3 frames one; no pair joins two cameras.
    assert prove_pairs(out, codes=code_of) == {"cross_pose": 2 * (5 * 3 + 1)}
    crops = Build(out).table("crops").to_pylist()
    assert len(crops) == len(keys(("image0", "image2", "image8")))
    assert {(row["box_from"], row["silhouette_from"]) for row in crops} == {("dataset", "none")}
    pairs = Build(out).table("pairs").to_pylist()
    assert {round(abs(pair["dt_s"]) * 15) for pair in pairs} == {2, 3}
    groups = {row["group"]: row["split"] for row in crops}
    assert all(groups[row["group"]] == row["split"] for row in crops)  # the cameras of a sequence stay together
    assert Counter(r["reason"] for r in Build(out).table("rejects").to_pylist() if r["stage"] == "ingest") == {
        "bad_label": 1, "hidden": 1, "junk": 1, "truncated": 1, "twice": 1, "empty": 1,
    }  # fmt: skip


def test_the_road_of_the_panorama_without_what_is_interpolated(tmp_path: Path) -> None:
    write_jrdb(tmp_path / "cameras", views=("image0",))
    out = tmp_path / "out"
    run_road(recipe(without=("interpolated", "severely_occluded")), {"jrdb": tmp_path / "cameras"}, out)
    # The first sequence keeps frames 0, 1, 3 of pedestrian 6 and 0, 1, 2 of 12.
    assert prove_pairs(out, codes=code_of) == {"cross_pose": 2 * 3 + 2 + 1}
    write_jrdb(tmp_path / "panorama", views=("stitched",))
    run_road(recipe(), {"jrdb": tmp_path / "panorama"}, tmp_path / "out2")
    assert prove_pairs(tmp_path / "out2", codes=code_of) == {"cross_pose": 4 * 3}
