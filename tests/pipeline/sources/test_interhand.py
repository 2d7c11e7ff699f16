"""InterHand2.6M as a source: its pictures by key, what it leaves out, its cameras, its index, and the whole road."""

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from manifests.audit.findings import Severity
from manifests.audit.prove import audit
from manifests.errors import SourceError, StageError
from manifests.geometry import project
from manifests.types import FrameKey, Reason, Split
from pipeline.recipes import ParserRecipe, SourceRecipe, dataset
from pipeline.sources import build_source
from pipeline.sources import interhand as module
from pipeline.sources.interhand import InterHandSource
from tests.support import rejects
from tests.support.interhand_fixture import CAMERAS, GRAY, edit, write_interhand
from tests.support.proof import prove_cameras, prove_crop_cameras, prove_pairs, run_road, samples
from tests.support.samples import sample

ALL = (Split.TRAIN, Split.VAL, Split.TEST)
IMAGES = "InterHand2.6M_5fps_batch1/images"
SURFER, PRAY, ROM = "capture0-0013_surfer", "capture0-0266_dh_pray", "capture0-rom04_lt_occlusion"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("interhand") / "data"
    return root, write_interhand(root)


@pytest.fixture
def root(drawn, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(drawn[0], tmp_path / "data"))


def source(work: Path, **recipe) -> InterHandSource:
    made = build_source(SourceRecipe(kind="interhand", name="interhand", **({"splits": ALL} | recipe)), work / "work")
    assert isinstance(made, InterHandSource)
    return made


def scans(root: Path, work: Path, **recipe):
    """Every recording's scan, by split and sequence."""
    one = source(work, **recipe)
    list(one.prepare(root))
    return {(r.split, r.sequence): one.scan(root, r, split=r.split) for r in one.recordings(root)}


def rows(scan) -> list[dict]:
    return scan.frames.to_pylist()


def told(scan) -> set[tuple[str, Reason, str]]:
    """Rejects: place below the sequence's folder, reason, detail."""
    rejects.told(scan.rejects)
    return {(r.key.rpartition("/")[2], r.reason, r.detail) for r in scan.rejects}


# --- what it lists ---


def test_frames_are_those_that_are_listed_labelled_and_there(drawn, tmp_path):
    root, _ = drawn
    found = scans(root, tmp_path)
    assert set(found) == {("train", SURFER), ("train", PRAY), ("val", ROM), ("test", ROM)}
    keys = [row["key"] for row in rows(found["train", SURFER])]
    view = "interhand/train/capture0-0013_surfer/{:08d}/cam{}/hands"
    there = [(3000, 0), (3018, 0), (3000, 1), (3018, 1), (3036, 1), (3000, 2), (3018, 2), (3036, 2)]
    assert keys == [view.format(frame, CAMERAS[camera]) for frame, camera in there]
    assert [found[place].frames.num_rows for place in (("train", PRAY), ("val", ROM), ("test", ROM))] == [7, 9, 9]
    for scan in found.values():
        for row in rows(scan):
            assert (root / row["media"]).is_file()
            assert row["media"].endswith(f"/{row['view']}/image{row['instant']}.jpg")
            assert (row["domain"], row["box_from"], row["silhouette_from"]) == ("hand", "dataset", "none")
            assert (row["width"], row["height"]) == ((512, 334) if row["view"] == GRAY else (334, 512))


def test_boxes_are_those_of_the_dataset_clipped_to_the_picture(drawn, tmp_path):
    root, truth = drawn
    found = scans(root, tmp_path)
    for (split, sequence), scan in found.items():
        for row in rows(scan):
            due = truth.boxes[split, sequence, row["instant"], row["view"]]
            if (sequence, row["instant"], row["view"]) == (SURFER, 3000, GRAY):
                due = [-0.5, -0.5, 511.5, 333.5]
            assert np.allclose(row["box_xyxy_px"], due, atol=1e-3), row["key"]


def test_flags_sides_and_people(drawn, tmp_path):
    found = scans(drawn[0], tmp_path)
    for (_, sequence), scan in found.items():
        hands = {SURFER: "right", PRAY: "interacting", ROM: "left"}[sequence]
        for row in rows(scan):
            assert set(row["flags"]) == {"official_split", hands} | ({"gray"} if row["view"] == GRAY else set())
            assert row["side"] == (None if hands == "interacting" else hands)
    people = {split: {(row["subject"], row["group"]) for row in rows(scan)} for (split, _), scan in found.items()}
    assert people["train"] == {("subject0", "train-subject0")}
    assert people["val"] == {("subject0", "val-subject0")}  # the same person, in another official split
    assert people["test"] == {("subject5", "test-subject5")}


@pytest.mark.parametrize("fps", [5, 30])
def test_time_is_that_of_the_captures_clock(tmp_path, fps):
    write_interhand(tmp_path / "data", fps=fps)
    for (split, sequence), scan in scans(tmp_path / "data", tmp_path).items():
        first = {SURFER: 3000, PRAY: 5000, ROM: 12000}[sequence]
        hz = {"train": 90, "val": 30, "test": 30}[split]
        due = {first + k * hz // fps: pytest.approx(k / fps) for k in range(3)}
        assert {row["instant"]: row["time_s"] for row in rows(scan)} == due
        assert Reason.CLOCK not in {reject.reason for reject in scan.rejects}


def test_steps_of_no_release_leave_time_unknown(root, tmp_path):
    with edit(root, "train") as data:
        for image in data["images"]:  # as if there were five in seven frames
            image["frame_idx"] = image["frame_idx"] // 18 * 7
            place, _, _ = image["file_name"].rpartition("/")
            old = root / IMAGES / "train" / image["file_name"]
            image["file_name"] = f"{place}/image{image['frame_idx']}.jpg"
            if old.exists():
                old.rename(root / IMAGES / "train" / image["file_name"])
    scan = scans(root, tmp_path)["train", SURFER]
    assert {row["time_s"] for row in rows(scan)} == {None}
    detail = "frames mostly step by 7, where 18 (5 fps) or 3 (30 fps) is due: times are not known"
    assert (("0013_surfer", Reason.CLOCK, detail)) in told(scan)
    (count,) = (reject.count for reject in scan.rejects if reject.reason is Reason.CLOCK)
    assert count == scan.frames.num_rows


def test_every_second_instant(drawn, tmp_path):
    scan = scans(drawn[0], tmp_path, frame_step=2)["test", ROM]
    assert sorted({(row["instant"], row["time_s"]) for row in rows(scan)}) == [(12000, 0.0), (12012, 0.4)]


def test_cameras_see_what_was_drawn(drawn, tmp_path):
    root, truth = drawn
    for (split, sequence), scan in scans(root, tmp_path).items():
        figure = next(figure for (s, name, _), figure in truth.figures.items() if (s, name) == (split, sequence))
        points = np.stack(list(figure.points.values()))
        assert prove_cameras(scan.frames, truth.lens_of, points) == scan.frames.num_rows


# --- splits ---


def test_only_wanted_splits_are_indexed_and_all_are_named(drawn, tmp_path, caplog):
    one = source(tmp_path, splits=(Split.VAL,))
    with caplog.at_level(logging.INFO):
        list(one.prepare(drawn[0]))
        found = {(r.split, r.sequence) for r in one.recordings(drawn[0])}
    assert found == {("train", SURFER), ("train", PRAY), ("val", ROM), ("test", ROM)}
    assert len(list((tmp_path / "work").iterdir())) == 1
    assert "val/Capture0 and test/Capture0 are different captures" in caplog.text


def test_a_split_without_images_is_none(root, tmp_path):
    shutil.rmtree(root / IMAGES / "train")
    assert {split for split, _ in scans(root, tmp_path)} == {"val", "test"}
    assert source(tmp_path).look(root)[0].hint == "only val, test"


# --- what it leaves out ---


def test_what_is_left_out_is_told_by_view(drawn, tmp_path):
    found = scans(drawn[0], tmp_path)
    assert told(found["train", SURFER]) == {("cam400002", Reason.MISSING, "1 (image3036.jpg) of 3 are not there")}
    assert told(found["train", PRAY]) == {
        ("cam400002", Reason.UNLABELLED, "1 (image5054.jpg): data.json does not list them"),
        ("cam400049", Reason.HIDDEN, "1 (image5036.jpg): the box in data.json lies outside the picture"),
        ("cam410001", Reason.UNLABELLED, "1 (image5000.jpg): no annotation in data.json"),
    }
    assert told(found["val", ROM]) == told(found["test", ROM]) == set()
    assert {r.key for r in found["train", SURFER].rejects} == {f"{IMAGES}/train/Capture0/0013_surfer/cam400002"}


def test_folders_that_are_missing_or_not_listed(root, tmp_path):
    shutil.rmtree(root / IMAGES / "train/Capture0/0013_surfer")
    shutil.rmtree(root / IMAGES / "val/Capture0/ROM04_LT_Occlusion/cam400002")
    (root / IMAGES / "val/Capture0/ROM04_LT_Occlusion/masks").mkdir()
    shutil.copytree(root / IMAGES / "train/Capture0/0266_dh_pray", root / IMAGES / "train/Capture1/0266_dh_pray")
    found = scans(root, tmp_path)
    assert told(found["train", SURFER]) == {("0013_surfer", Reason.MISSING, "9 pictures: no camera's folder is there")}
    assert found["train", SURFER].frames.num_rows == 0
    assert told(found["val", ROM]) == {
        ("cam400002", Reason.MISSING, "3 (image12000.jpg, image12006.jpg, image12012.jpg) of 3 are not there"),
        ("masks", Reason.UNLABELLED, "the folder is not called cam and a number"),
    }
    unlisted = found["train", "capture1-0266_dh_pray"]
    assert unlisted.frames.num_rows == 0
    assert (
        "cam410001",
        Reason.UNLABELLED,
        "3 (image5000.jpg, image5018.jpg, image5036.jpg): data.json does not list them",
    ) in told(unlisted)
    assert len(unlisted.rejects) == 3


def test_labels_that_contradict_themselves_are_told(root, tmp_path):
    with edit(root, "test") as data:
        images, labels = data["images"], {label["image_id"]: label for label in data["annotations"]}
        images.append(images[0] | {"id": 1})  # listed twice
        data["annotations"] += [labels[images[0]["id"]] | {"image_id": 1}, labels[images[1]["id"]] | {"id": 2}]
        images[2]["file_name"] = images[2]["file_name"].replace("image", "frame")
        for image, box in zip(
            images[3:8],
            (
                [1, 1, 0, 5],
                [1, 1, 5, -5],
                [1, 1, float("nan"), 5],
                [float("-inf"), 1, float("inf"), 5],
                [1, 1, 1e39, 1],
            ),
            strict=True,
        ):
            labels[image["id"]]["bbox"] = box
        images[8]["width"] = 0
        labels[images[8]["id"]]["hand_type_valid"] = 0
    scan = scans(root, tmp_path)["test", ROM]
    assert rows(scan) == []
    found = {(place, reason): detail for place, reason, detail in told(scan)}
    twice = "data.json lists or annotates it more than once"
    assert found["cam400002", Reason.TWICE] == f"2 (image12000.jpg, image12000.jpg): {twice}"
    assert found["cam400049", Reason.TWICE] == f"1 (image12000.jpg): {twice}"
    details = [r.detail for r in scan.rejects if r.reason is Reason.BAD_LABEL]
    assert (
        "1 (image12000.jpg): the file is not named as the capture, sequence, camera and frame in data.json say"
        in details
    )
    bad = "the box or the size in data.json is not positive and finite"
    assert sorted(detail for detail in details if bad in detail) == [
        f"2 (image12006.jpg, image12012.jpg): {bad}", f"2 (image12006.jpg, image12012.jpg): {bad}",
        f"2 (image12006.jpg, image12012.jpg): {bad}",
    ]  # fmt: skip


def test_a_hand_type_that_does_not_hold_is_no_side(root, tmp_path):
    with edit(root, "test") as data:
        for label in data["annotations"]:
            label["hand_type_valid"] = 0
    assert {(row["side"], *row["flags"]) for row in rows(scans(root, tmp_path)["test", ROM])} == {
        (None, "official_split"), (None, "gray", "official_split")
    }  # fmt: skip


def test_annotations_of_no_picture_are_told(root, tmp_path, caplog):
    with edit(root, "test") as data:
        data["annotations"].append(data["annotations"][0] | {"image_id": 10**12})
        del data["images"][0]
    assert scans(root, tmp_path)["test", ROM].frames.num_rows == 8
    assert "2 annotations are of images that it does not list" in caplog.text


# --- without annotations ---


@pytest.fixture
def bare(root):
    """Images alone, with a file of another name, a damaged first image, and a view of damaged ones."""
    shutil.rmtree(root / "annotations")
    rom = root / IMAGES / "test/Capture0/ROM04_LT_Occlusion"
    (rom / "cam400002/image00012000.jpg").write_bytes(b"")
    (rom / "cam400002/.hidden").write_bytes(b"")
    (rom / "cam410001/image12000.jpg").write_bytes(b"no picture")
    for file in (rom / "cam400049").iterdir():
        file.write_bytes(b"no picture")
    return root


def test_without_data_json_the_folders_are_listed(bare, tmp_path, caplog):
    found = scans(bare, tmp_path)
    assert "has no data.json: its pictures are listed from folders, and whole frames are cut" in caplog.text
    assert {place: scan.frames.num_rows for place, scan in found.items()} == {
        ("train", SURFER): 8, ("train", PRAY): 10, ("val", ROM): 9, ("test", ROM): 6
    }  # fmt: skip
    for row in rows(found["test", ROM]):
        wide = row["view"] == GRAY
        assert (row["width"], row["height"]) == ((512, 334) if wide else (334, 512))
        assert row["box_xyxy_px"] == ([-0.5, -0.5, 511.5, 333.5] if wide else [-0.5, -0.5, 333.5, 511.5])
        assert (row["box_from"], row["subject"], row["group"]) == ("full_frame", None, "test-capture0")
        assert (row["intrinsics"], row["camera_from_world"], row["side"]) == (None, None, None)
        assert row["time_s"] == pytest.approx((row["instant"] - 12000) / 30)
        assert row["flags"] == (["gray", "official_split"] if wide else ["official_split"])
    assert told(found["test", ROM]) == {
        ("cam400002", Reason.UNLABELLED, "1 (image00012000.jpg): not called image and a number"),
        ("cam400049", Reason.UNREADABLE, "3 images: none of the first 3 can be read"),
    }
    assert not (tmp_path / "work").exists()


def test_cameras_hold_without_data_json(root, tmp_path, drawn):
    (root / "annotations/val/InterHand2.6M_val_data.json").unlink()
    scan = scans(root, tmp_path)["val", ROM]
    points = np.stack(list(drawn[1].figures["val", ROM, 12000].points.values()))
    assert prove_cameras(scan.frames, drawn[1].lens_of, points) == 9


def test_without_camera_json_there_are_no_cameras(root, tmp_path):
    (root / "annotations/val/InterHand2.6M_val_camera.json").unlink()
    found = rows(scans(root, tmp_path)["val", ROM])
    assert {(row["intrinsics"], row["camera_from_world"]) for row in found} == {(None, None)}
    assert all("uncalibrated" not in row["flags"] for row in found)


def test_a_camera_that_camera_json_lacks_is_flagged(root, tmp_path):
    with edit(root, "val", "camera") as cameras:
        for part in cameras["0"].values():
            del part["400049"]
    for row in rows(scans(root, tmp_path)["val", ROM]):
        lacks = row["view"] == "cam400049"
        assert ("uncalibrated" in row["flags"], row["intrinsics"] is None, row["camera_from_world"] is None) == (
            lacks,
        ) * 3


DAMAGED_CAMERAS = {
    "no_focal_length": (lambda c: c["focal"].update({"400002": [0, 900]}), "focal and princpt of camera 400002 are no"),
    "nan": (lambda c: c["princpt"].update({"400002": [float("nan"), 1]}), "are no pinhole's"),
    "mirror": (lambda c: c["camrot"].update({"400002": np.diag([1, 1, -1]).tolist()}), "camrot of camera 400002 is no"),
    "vector": (lambda c: c["camrot"].update({"400002": [1, 2, 3]}), "does not parse"),
    "far": (lambda c: c["campos"].update({"400002": [float("inf"), 0, 0]}), "campos of camera 400002 is not finite"),
    "text": (lambda c: c["campos"].update({"400002": "here"}), "does not parse"),
    "half": (lambda c: c["camrot"].pop("400002"), "does not parse: '400002'"),
    "part": (lambda c: c.pop("focal"), "does not parse: 'focal'"),
    "list": (lambda c: c.update(campos=[1]), "does not parse"),
}


@pytest.mark.parametrize(("change", "what"), DAMAGED_CAMERAS.values(), ids=DAMAGED_CAMERAS.keys())
def test_a_damaged_camera_is_an_error(root, tmp_path, change, what):
    with edit(root, "val", "camera") as cameras:
        change(cameras["0"])
    one = source(tmp_path, splits=(Split.VAL,))
    list(one.prepare(root))
    recording = next(r for r in one.recordings(root) if r.split is Split.VAL)
    with pytest.raises(SourceError, match=what) as caught:
        one.scan(root, recording, split=Split.VAL)
    assert "InterHand2.6M_val_camera.json, capture 0" in caught.value.where


# --- the root ---


def moved(root: Path, to: Path, *parts: str) -> Path:
    to.mkdir(parents=True, exist_ok=True)
    for part in parts:
        (root / part).rename(to / Path(part).name)
    return to


FORMS = {
    "folder": lambda root: root,
    "parent": lambda root: root.parent,
    "annotations_in_batch": lambda root: moved(root, root / "InterHand2.6M_5fps_batch1", "annotations").parent,
    "no_batch": lambda root: moved(root, root, IMAGES),
    "extra_level": lambda root: moved(root, root / "InterHand2.6M_5fps_batch1/again", IMAGES).parents[1],
    "zip_level": lambda root: moved(root, root / "InterHand2.6M.annotations.5.fps", "annotations").parent,
    "other_name": lambda root: (root / "annotations").rename(root / "labels").parent,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_that_unpacking_makes_is_found(root, tmp_path, form):
    root = form(root)
    found = scans(root, tmp_path)
    assert {place: scan.frames.num_rows for place, scan in found.items()} == {
        ("train", SURFER): 8, ("train", PRAY): 7, ("val", ROM): 9, ("test", ROM): 9
    }  # fmt: skip
    for marker in source(tmp_path).look(root):
        assert marker.found, marker


def test_the_images_folder_itself_is_a_root_without_annotations(root, tmp_path):
    found = scans(root / IMAGES, tmp_path)
    assert found["test", ROM].frames.num_rows == 9
    assert rows(found["test", ROM])[0]["media"] == "test/Capture0/ROM04_LT_Occlusion/cam400002/image12000.jpg"


def test_links_to_one_release_are_one(root, tmp_path):
    (root / "a_link").symlink_to(root / "InterHand2.6M_5fps_batch1")
    assert len(scans(root, tmp_path)) == 4


def broken(root: Path, how: str) -> None:
    if how == "v0.0":
        shutil.rmtree(root / "annotations")
        for name in ("all", "human_annot", "machine_annot"):
            (root / "annotations" / name).mkdir(parents=True)
    elif how == "parts":
        shutil.rmtree(root / IMAGES)
        for part in ("aa", "ab"):
            (root / f"InterHand2.6M.images.5.fps.v1.0.tar.part{part}").write_bytes(b"")
    elif how == "nothing":
        shutil.rmtree(root / IMAGES)
    elif how == "two":
        shutil.copytree(root / "InterHand2.6M_5fps_batch1", root / "InterHand2.6M_30fps_batch1")
    elif how == "absent":
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("how", "what", "hint"),
    [
        ("v0.0", r"found v0\.0 layout \(annotations/all\); v1\.0 expected annotations/train/", "v0.0 is withdrawn"),
        (
            "parts",
            r"archive parts not concatenated: file is named InterHand2\.6M\.images\.5\.fps\.v1\.0\.tar\.partaa",
            "cat InterHand2.6M.images.5.fps.v1.0.tar.part* > InterHand2.6M.images.5.fps.v1.0.tar && tar -xf",
        ),
        ("nothing", r"no images/\{train,val,test\}/Capture0 is here", "InterHand2.6M_5fps_batch1"),
        (
            "two",
            "images are here more than once: InterHand2.6M_30fps_batch1/images and InterHand2.6M_5fps",
            "one release",
        ),
        ("absent", "the root is no folder", "ROOT"),
    ],
)
def test_a_root_of_another_kind_is_told(root, tmp_path, how, what, hint):
    broken(root, how)
    for call in (lambda: source(tmp_path).recordings(root), lambda: list(source(tmp_path).prepare(root))):
        with pytest.raises(SourceError, match=what) as caught:
            call()
        assert hint in caught.value.hint
    (marker,) = source(tmp_path).look(root)
    assert (marker.found, marker.needed) == (False, True)
    assert hint in marker.hint


def test_what_is_missing_is_marked(root, tmp_path):
    (root / "annotations/val/InterHand2.6M_val_camera.json").unlink()
    (root / "annotations/test/InterHand2.6M_test_data.json").unlink()
    missing = {marker.what: marker for marker in source(tmp_path).look(root) if not marker.found}
    assert set(missing) == {
        "annotations/val/InterHand2.6M_val_camera.json", "annotations/test/InterHand2.6M_test_data.json"
    }  # fmt: skip
    assert not any(marker.needed for marker in missing.values())
    assert "whole frames are cut" in missing["annotations/test/InterHand2.6M_test_data.json"].hint


def test_a_folder_that_cannot_be_listed_is_told(root, tmp_path, monkeypatch):
    listdir = os.listdir

    def refuse(folder):
        if Path(folder).name == "cam400049":
            raise PermissionError(13, "Permission denied")
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(SourceError, match="the folder cannot be listed: Permission denied") as caught:
        scans(root, tmp_path)
    assert caught.value.where.endswith("cam400049")


def test_sequences_that_keys_cannot_tell_apart_are_an_error(root, tmp_path):
    (root / IMAGES / "test/Capture0/ROM04 LT Occlusion").mkdir()
    (root / IMAGES / "test/Capture0/ROM04+LT+Occlusion").mkdir()
    with pytest.raises(SourceError, match="two sequences are called capture0-rom04-lt-occlusion in keys"):
        scans(root, tmp_path)


# --- the index ---


def test_the_index_is_made_once_and_anew_for_another_file(root, tmp_path):
    one, work = source(tmp_path), tmp_path / "work"
    steps = list(one.prepare(root))
    sizes = [file.stat().st_size for file in root.glob("annotations/*/*_data.json")]
    assert [total for _, total in steps] == [sum(sizes)] * len(steps)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert steps[-1] == (sum(sizes), sum(sizes))
    made = {file.name: file.read_bytes() for file in work.iterdir()}
    assert len(made) == 3
    assert list(one.prepare(root)) == []
    with edit(root, "test") as data:
        data["images"] = data["images"][1:]
    assert len(list(source(tmp_path).prepare(root))) == 1
    again = {file.name: file.read_bytes() for file in work.iterdir()}
    assert len(again) == 4
    assert made.items() < again.items()
    assert scans(root, tmp_path)["test", ROM].frames.num_rows == 8


def test_a_sequence_too_long_for_memory_is_told(drawn, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "MANY_PICTURES", 4)
    scans(drawn[0], tmp_path)
    assert "val/Capture0/ROM04_LT_Occlusion: 9 pictures" in caplog.text
    assert "a `frame_step` of 3" in caplog.text
    caplog.clear()
    scans(drawn[0], tmp_path, frame_step=3)
    assert "pictures, whose crops" not in caplog.text


def test_an_index_that_is_given_up_leaves_nothing(root, tmp_path):
    steps = source(tmp_path).prepare(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_joined", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(steps)
    assert not (tmp_path / "work").exists()
    with pytest.raises(SourceError, match=r"the index of data.json cannot be read") as caught:
        source(tmp_path).recordings(root)
    assert "the next ingest makes it anew" in caught.value.hint


@pytest.mark.parametrize("how", ["cut", "foreign"])
def test_an_index_that_is_damaged_is_told(root, tmp_path, how):
    list(source(tmp_path).prepare(root))
    for file in (tmp_path / "work").iterdir():
        if how == "cut":
            file.write_bytes(file.read_bytes()[:-20])
        else:
            pq.write_table(pq.read_table(file).replace_schema_metadata({"sequences": '[{"capture": 0}]'}), file)
    module._sequences.cache_clear()
    with pytest.raises(SourceError, match=r"the index of data.json cannot be read"):
        source(tmp_path).recordings(root)


def change_image(**values):
    return lambda data: data["images"][1].update(values)


def change_label(**values):
    return lambda data: data["annotations"][1].update(values)


DAMAGED_DATA = {
    "upwards": (change_image(seq_name="../../etc"), "capture 0, sequence '../../etc' name no folder"),
    "dots": (change_image(seq_name=".."), "name no folder"),
    "no_name": (change_image(seq_name=None), "TypeError"),
    "negative_capture": (change_image(capture=-1), "name no folder"),
    "capture_text": (change_image(capture="0"), "TypeError"),
    "capture_list": (change_image(capture=[0]), "TypeError"),
    "negative_frame": (change_image(frame_idx=-1), "OverflowError"),
    "frame_text": (change_image(frame_idx="12"), "TypeError"),
    "no_frame": (lambda data: data["images"][1].pop("frame_idx"), "KeyError 'frame_idx'"),
    "camera_text": (change_image(camera="cam400002"), "ValueError"),
    "large_id": (change_image(id=1 << 70), "OverflowError"),
    "one_id": (lambda data: data["images"].append(data["images"][0]), "two images have one id"),
    "no_width": (change_image(width=None), "TypeError"),
    "image_number": (lambda data: data["images"].insert(1, 7), "TypeError"),
    "images_object": (lambda data: data.update(images={}), "damaged"),
    "three_sides": (change_label(bbox=[1, 2, 3]), "ValueError"),
    "side_text": (change_label(bbox=["a", 2, 3, 4]), "TypeError"),
    "box_null": (change_label(bbox=None), "TypeError"),
    "no_box": (lambda data: data["annotations"][1].pop("bbox"), "KeyError 'bbox'"),
    "image_null": (change_label(image_id=None), "TypeError"),
    "hand_list": (change_label(hand_type=[]), "TypeError"),
    "label_list": (lambda data: data["annotations"].insert(1, [7]), "TypeError"),
    "no_labels": (lambda data: data.pop("annotations"), "has no key 'annotations'"),
}


@pytest.mark.parametrize(("change", "what"), DAMAGED_DATA.values(), ids=DAMAGED_DATA.keys())
def test_a_data_json_of_another_kind_is_an_error(root, tmp_path, change, what):
    with edit(root, "test") as data:
        change(data)
    with pytest.raises(SourceError, match=what) as caught:
        list(source(tmp_path, splits=(Split.TEST,)).prepare(root))
    assert "InterHand2.6M_test_data.json" in caught.value.where
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_data_json_that_is_cut_short_is_an_error(root, tmp_path, share):
    path = root / "annotations/test/InterHand2.6M_test_data.json"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(SourceError, match="is cut short"):
        list(source(tmp_path, splits=(Split.TEST,)).prepare(root))


def test_a_data_json_of_nothing_lists_nothing(root, tmp_path):
    with edit(root, "test") as data:
        data["images"], data["annotations"] = [], []
    scan = scans(root, tmp_path)["test", ROM]
    assert (scan.frames.num_rows, len(scan.rejects)) == (0, 3)


# --- real pictures ---


@pytest.fixture
def excerpt(tmp_path):
    """Four real pictures with their annotations, laid out as v1.0; and their joints, mm, by capture and frame."""
    folder, root = sample("open-mmlab+mmpose/tests/data/interhand2.6m"), tmp_path / "real"
    labels = root / "annotations/train"
    labels.mkdir(parents=True)
    data = json.loads((folder / "test_interhand2.6m_data.json").read_text())
    for image in data["images"]:
        name = "Capture{capture}/{seq_name}/cam{camera}/".format(**image) + image["file_name"]
        (root / "images/train" / name).parent.mkdir(parents=True)
        (root / "images/train" / name).symlink_to(folder / image["file_name"])
        image["file_name"] = name
    (labels / "InterHand2.6M_train_data.json").write_text(json.dumps(data))
    shutil.copy(folder / "test_interhand2.6m_camera.json", labels / "InterHand2.6M_train_camera.json")
    return root, data, json.loads((folder / "test_interhand2.6m_joint_3d.json").read_text())


def test_real_cameras_put_the_joints_into_the_boxes(excerpt, tmp_path):
    root, data, joints = excerpt
    found = [row for scan in scans(root, tmp_path).values() for row in rows(scan)]
    assert len(found) == 4
    assert {(row["view"][3:5], "gray" in row["flags"]) for row in found} == {("40", False), ("41", True)}
    labels = {label["image_id"]: label for label in data["annotations"]}
    for row in found:
        image = next(image for image in data["images"] if image["frame_idx"] == row["instant"])
        label = labels[image["id"]]
        valid = np.ravel(label["joint_valid"]) > 0
        world_m = np.array(joints[str(image["capture"])][str(row["instant"])]["world_coord"])[valid] / 1000
        pixels, depth = project(
            world_m, np.reshape(row["intrinsics"], (3, 3)), np.reshape(row["camera_from_world"], (4, 4))
        )
        assert (depth > 0.5).all()
        assert (depth < 2).all()
        # Their box is that of the projected joints, 1.2 times as large.
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        middle, half = (low + high) / 2, 0.6 * (high - low)
        assert np.allclose(row["box_xyxy_px"], [*(middle - half), *(middle + half)], atol=0.05), row["key"]
        assert row["side"] == {"interacting": None}.get(label["hand_type"], label["hand_type"])
        assert (row["subject"], row["group"]) == (f"subject{image['subject']}", f"train-subject{image['subject']}")


def test_real_pictures_are_cut(excerpt, tmp_path):
    recipe = replace(dataset("interhand"), parser=ParserRecipe(backend="none"))
    run = tmp_path / "out"
    with pytest.raises(StageError, match="there is not one pair"):  # four pictures of four people make none
        run_road(recipe, {"interhand": excerpt[0]}, run)
    crops = [row for file in sorted((run / "crops").glob("*.crops.parquet")) for row in pq.read_table(file).to_pylist()]
    assert sorted(row["view"] for row in crops) == ["cam400012", "cam400026", "cam410028", "cam410053"]
    assert all(10 < row["mean"] < 120 for row in crops)


# --- the road ---


def road(**changes):
    recipe = replace(dataset("interhand"), parser=ParserRecipe(backend="none"))
    return replace(recipe, sources=(replace(recipe.sources[0], **changes),))


def test_from_files_to_shards(drawn, tmp_path):
    root, truth = drawn
    run_road(road(), {"interhand": root}, tmp_path)
    assert prove_pairs(tmp_path, codes=truth.code_of, gray_views={GRAY}) == {"cross_view": 17, "cross_pose": 17}
    assert prove_crop_cameras(tmp_path, truth.figure_of, gray_views={GRAY}) == 68
    dark, cut = "interhand/train/capture0-0013_surfer/00003018/cam400049/hands", "00012006/cam400049/hands"
    for _, members in samples(tmp_path):
        meta = json.loads(members["json"])
        for role in ("target", "reference"):
            key = FrameKey.parse(meta[role]["key"])
            assert (key.split, str(key) == dark, str(key).endswith(cut)) == (meta["split"], False, False)
    rejects = [
        row for file in (tmp_path / "crops").glob("*.rejects.parquet") for row in pq.read_table(file).to_pylist()
    ]
    found = sorted((row["key"], row["reason"]) for row in rejects)
    assert found == [(dark, "black"), (f"interhand/val/{ROM}/{cut}", "unreadable")]
    leaks = [finding for finding in audit(tmp_path).findings if finding.rule == "leak"]
    assert [(finding.where, finding.severity) for finding in leaks] == [("subject", Severity.WARNING)]


def test_gray_cameras_can_be_left_out(drawn, tmp_path):
    root, truth = drawn
    run_road(road(without=("gray",), splits=(Split.TEST,)), {"interhand": root}, tmp_path)
    assert prove_pairs(tmp_path, codes=truth.code_of) == {"cross_view": 3, "cross_pose": 6}
