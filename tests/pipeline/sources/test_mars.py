"""MARS: tracks from its tables and from its file names, junk counted, and the whole road proven from pixels."""

import logging
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from manifests.build import Build
from manifests.errors import SourceError
from manifests.types import FrameKey, Reason, Split
from pipeline.recipes import BuildRecipe, PairRecipe, ParserRecipe, SourceRecipe, dataset
from pipeline.sources.base import Recording, Scan
from pipeline.sources.mars import MarsSource, read_tracks
from tests.support.mars_fixture import TRAIN, Truth, write_mars
from tests.support.proof import prove_pairs, run_road
from tests.support.rejects import told
from tests.support.samples import sample

SOURCE = MarsSource(SourceRecipe(kind="mars", name="mars"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_mars(tmp_path / "mars", faults=False)
    return tmp_path / "mars"


def recording(root: Path, sequence: str) -> Recording:
    return next(one for one in SOURCE.recordings(root) if one.sequence == sequence)


def scan(root: Path, sequence: str) -> Scan:
    one = recording(root, sequence)
    assert one.split is not None
    return SOURCE.scan(root, one, split=one.split)


def keys(root: Path) -> dict[str, list[str]]:
    found = {}
    for one in SOURCE.recordings(root):
        frames = SOURCE.scan(root, one, split=one.split or Split.TRAIN).frames
        found[f"{one.split}/{one.sequence}"] = [] if isinstance(frames, list) else frames.column("key").to_pylist()
    return found


def counts(found: Scan) -> dict[Reason, str]:
    assert len({reject.reason for reject in found.rejects}) == len(found.rejects)
    return dict(told(found.rejects))


def test_frames_are_keyed_by_camera_and_tracklet(root: Path) -> None:
    found = scan(root, "0001")
    assert found.rejects == []
    rows = found.frames.to_pylist()
    assert [row["key"] for row in rows] == [
        *(
            f"mars/train/0001/0000000{k}/c1/c1t000{t}"
            for k, t in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1))
        ),
        *(f"mars/train/0001/0000000{k}/c6/c6t0001" for k in range(1, 6)),
    ]
    row = rows[7]
    assert row["media"] == "bbox_train/0001/0001C6T0001F001.jpg"
    assert (root / row["media"]).is_file()
    assert (row["width"], row["height"], row["box_xyxy_px"]) == (128, 256, [-0.5, -0.5, 127.5, 255.5])
    assert (row["box_from"], row["silhouette_from"], row["time_s"], row["flags"]) == ("dataset", "none", None, [])
    assert (row["subject"], row["group"], row["split"], row["domain"]) == ("0001", "0001", "train", "body")
    assert row["intrinsics"] is None


def test_people_of_both_splits_and_the_junk_are_listed(root: Path) -> None:
    assert [(one.sequence, one.split, one.group) for one in SOURCE.recordings(root)] == [
        ("00-1", Split.TEST, "00-1"), ("0000", Split.TEST, "0000"), ("0001", Split.TRAIN, "0001"),
        ("0002", Split.TEST, "0002"), ("0003", Split.TRAIN, "0003"), ("0004", Split.TEST, "0004"),
    ]  # fmt: skip
    assert scan(root, "00-1").frames == []
    assert counts(scan(root, "00-1")) == {Reason.JUNK: "3 images: junk of the detector"}
    assert counts(scan(root, "0000")) == {Reason.JUNK: "3 images: false detections"}
    assert scan(root, "0002").frames.num_rows == 6


def test_the_tables_are_fingerprinted_once(root: Path) -> None:
    held = [[name for name, _ in one.files] for one in SOURCE.recordings(root)]
    assert sorted(name for names in held for name in names) == [
        "info/test_name.txt", "info/tracks_test_info.mat", "info/tracks_train_info.mat", "info/train_name.txt",
    ]  # fmt: skip


def test_names_give_the_same_tracks_as_the_tables(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with_tables = keys(root)
    assert "info/ missing" not in caplog.text
    write_mars(tmp_path / "bare", info=False, faults=False)
    with caplog.at_level(logging.WARNING):
        assert keys(tmp_path / "bare") == with_tables
    assert (
        "info/ missing (it is in a separate repository, MARS-evaluation): tracks rebuilt from file names" in caplog.text
    )
    assert len(with_tables["train/0001"]) == 12


def test_frame_step_takes_every_second_frame_of_each_track(root: Path) -> None:
    source = MarsSource(SourceRecipe(kind="mars", name="mars", frame_step=2))
    frames = source.scan(root, recording(root, "0001"), split=Split.TRAIN).frames
    assert set(frames.column("instant").to_pylist()) == {1, 3, 5}


@pytest.mark.parametrize("form", ["parent", "zip", "deep"])
def test_unpacked_forms(root: Path, tmp_path: Path, form: str) -> None:
    plain = keys(root)
    if form == "zip":
        for name in ("bbox_train", "bbox_test"):
            (root / name).rename(root / "x")
            (root / name).mkdir()
            (root / "x").rename(root / name / name)
        given = root
    else:
        given = tmp_path / "given"
        given.mkdir()
        root.rename(given / "MARS" if form == "parent" else given / "x")
        if form == "deep":
            (given / "more").mkdir()
            (given / "x").rename(given / "more/mars")
    assert keys(given) == plain
    assert all(marker.found for marker in SOURCE.look(given))
    media = SOURCE.scan(given, recording(given, "0001"), split=Split.TRAIN).frames.column("media").to_pylist()
    assert all((given / name).is_file() for name in media)


def test_tables_are_found_in_their_repository(root: Path) -> None:
    (root / "MARS-evaluation-master").mkdir()
    (root / "info").rename(root / "MARS-evaluation-master/info")
    assert SOURCE.look(root)[1].found
    (root / "bbox_train/0001/0001C1T0001F009.jpg").write_bytes(b"")
    assert Reason.UNLABELLED in counts(scan(root, "0001"))


@pytest.mark.parametrize(
    ("made", "hint"),
    [
        ("bounding_box_train/", "Market-1501"),
        ("bbox_train.zip", r"unpack bbox_train\.zip"),
        ("MARS-evaluation/info/tracks_train_info.mat", "only info/ is here"),
        ("clips/a.mp4", "folder that holds bbox_train/"),
    ],
)
def test_other_roots_are_refused(tmp_path: Path, made: str, hint: str) -> None:
    path = tmp_path / made
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if made.endswith("/") else path.write_bytes(b"x")
    with pytest.raises(SourceError, match=rf"neither bbox_train/ nor bbox_test/ is here[\s\S]*{hint}"):
        SOURCE.recordings(tmp_path)
    marker = SOURCE.look(tmp_path)[0]
    assert (marker.found, marker.needed) == (False, True)


@pytest.mark.parametrize(
    ("gone", "other"),
    [("train_name.txt", "tracks_train_info.mat"), ("tracks_test_info.mat", "test_name.txt")],
)
def test_a_table_without_its_partner_is_named(
    root: Path, gone: str, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "info" / gone).unlink()
    said = f"info/{gone} missing, and {other} is of no use without it: tracks rebuilt from file names"
    marker = SOURCE.look(root)[1]
    assert (marker.found, marker.hint) == (False, said)
    assert SOURCE.recordings(root)
    assert caplog.text.count(said) == 1
    assert "separate repository" not in caplog.text


def test_empty_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bbox_train").mkdir()
    with pytest.raises(SourceError, match="hold no folder"):
        SOURCE.recordings(tmp_path)
    with pytest.raises(SourceError, match="no folder"):
        SOURCE.recordings(tmp_path / "absent")


def test_faults_are_counted(tmp_path: Path) -> None:
    write_mars(tmp_path)
    found = scan(tmp_path, "0003")
    assert found.frames.num_rows == 3  # the cut image is noticed when it is decoded
    assert counts(found) == {
        Reason.BAD_LABEL: "1 image is not named like 0003C1T0001F001.jpg",
        Reason.UNLABELLED: "1 image is in no track of info/",
    }


def test_what_the_tables_list_and_is_not_there_is_counted(root: Path) -> None:
    (root / "bbox_train/0001/0001C1T0002F002.jpg").unlink()
    shutil.rmtree(root / "bbox_train/0003")
    assert counts(scan(root, "0001")) == {Reason.MISSING: "1 image that info/ lists is not there"}
    gone = scan(root, "0003")
    assert gone.frames == []
    assert counts(gone) == {Reason.MISSING: "3 images of info/ have no folder"}


@pytest.mark.parametrize("wrong", ["camera", "joined", "split", "person"])
def test_tables_that_contradict_the_names_lose_the_track(root: Path, wrong: str) -> None:
    path = root / "info/tracks_train_info.mat"
    rows = loadmat(path)["track_train_info"]
    assert len(rows) == len(TRAIN)
    if wrong == "camera":
        rows[0, 3] = 4
    elif wrong == "joined":
        rows = np.concatenate([[[rows[0, 0], rows[1, 1], 1, 1]], rows[2:]])
    elif wrong == "split":
        rows = np.concatenate([[[1, 2, 1, 1], [3, 4, 1, 1]], rows[1:]])
    else:
        rows[3, 2] = 1
    savemat(path, {"track_train_info": rows.astype(np.int32)})
    lost = {"camera": 4, "joined": 7, "split": 4, "person": 3}[wrong]
    found = scan(root, "0001")
    assert found.frames.num_rows == (12 if wrong == "person" else 12 - lost)
    assert counts(found)[Reason.BAD_LABEL].startswith(f"{lost} images that info/ puts into another track")


def test_damaged_tables_are_refused_by_name(root: Path) -> None:
    names, table = root / "info/train_name.txt", root / "info/tracks_train_info.mat"
    whole = names.read_text()
    names.write_text("\n".join(whole.split()[:5]))
    with pytest.raises(SourceError, match=r"tracks_train_info\.mat numbers images up to 15, train_name\.txt names 5"):
        SOURCE.recordings(root)
    names.write_bytes(b"\xff\xfe")
    with pytest.raises(SourceError, match=r"train_name\.txt does not parse"):
        SOURCE.recordings(root)
    names.write_text(whole)
    savemat(table, {"track_test_info": np.zeros((2, 4), np.int32)})
    with pytest.raises(SourceError, match=r"tracks_train_info\.mat has no variable track_train_info"):
        SOURCE.recordings(root)
    savemat(table, {"track_train_info": np.zeros((2, 3), np.int32)})
    with pytest.raises(SourceError, match="four columns"):
        SOURCE.recordings(root)
    table.write_bytes(table.read_bytes()[:150])
    with pytest.raises(SourceError, match=r"tracks_train_info\.mat"):
        SOURCE.recordings(root)


def test_folders_and_pictures_that_are_nobodys(root: Path) -> None:
    (root / "bbox_train/0001 (copy)").mkdir()
    shutil.copy(root / "bbox_train/0001/0001C1T0001F001.jpg", root / "bbox_train/0001 (copy)")
    assert "1 image: the folder is not named like a person" in counts(scan(root, "0001-copy"))[Reason.BAD_LABEL]
    (root / "bbox_train/@").mkdir()
    assert len({one.sequence for one in SOURCE.recordings(root) if one.split is Split.TRAIN}) == 4
    for path in (root / "bbox_train/0003").iterdir():
        path.write_bytes(b"no picture")
    assert counts(scan(root, "0003")) == {Reason.UNREADABLE: "3 images: none of the first 3 can be read"}


def test_the_real_tables(tmp_path: Path) -> None:
    """The published tables, with names made up for their rows: tracklets counted per person and camera."""
    info = sample("liangzheng06+MARS-evaluation/info")
    for part, num_tracks, num_people, num_images in (("train", 8298, 625, 509_914), ("test", 12180, 634 + 2, 681_089)):
        (tmp_path / "info").mkdir(exist_ok=True)
        shutil.copy(info / f"tracks_{part}_info.mat", tmp_path / "info")
        rows = loadmat(info / f"tracks_{part}_info.mat")[f"track_{part}_info"]
        seen: Counter[tuple[int, int]] = Counter()
        lines = []
        for first, last, pid, camera in rows.tolist():
            seen[pid, camera] += 1
            stem = f"{'00-1' if pid < 0 else f'{pid:04d}'}C{camera}T{seen[pid, camera]:04d}F"
            lines += [f"{stem}{frame:03d}.jpg" for frame in range(1, last - first + 2)]
        path = tmp_path / f"info/{part}_name.txt"
        path.write_text("\n".join(lines))
        tracks = read_tracks(tmp_path / f"info/tracks_{part}_info.mat", path)
        assert (len(tracks.rows), len(tracks.names)) == (num_tracks, num_images)
        people = set(tracks.rows[:, 2].tolist())
        assert len(people) == num_people
        lengths = tracks.rows[:, 1] - tracks.rows[:, 0] + 1
        assert lengths.sum() == num_images
        if part == "train":
            assert (lengths.min(), np.median(lengths), lengths.max()) == (5, 36, 900)
            assert {name[5] for name in tracks.names.to_pylist()[::97]} == set("123456")
        else:
            assert ((tracks.rows[:, 2] == -1).sum(), (tracks.rows[:, 2] == 0).sum()) == (870, 3248)
    (tmp_path / "bbox_train/0001").mkdir(parents=True)
    listed = SOURCE.recordings(tmp_path)
    assert len(listed) == 625
    of_two = read_tracks(tmp_path / "info/tracks_train_info.mat", tmp_path / "info/train_name.txt").rows
    expected = int((of_two[:, 1] - of_two[:, 0] + 1)[of_two[:, 2] == of_two[-1, 2]].sum())
    assert counts(scan(tmp_path, "1499")) == {Reason.MISSING: f"{expected} images of info/ have no folder"}


# --- the road ---


def recipe(**changes: object) -> BuildRecipe:
    plain = dataset("mars")
    return replace(plain, parser=ParserRecipe(backend="none"), pair=PairRecipe(cross_pose=100), **changes)


def code_of(truth: Truth, key: FrameKey) -> tuple[int, int]:
    return truth.code_of(key.track, key.sequence, key.instant)


def test_the_road(tmp_path: Path) -> None:
    truth = write_mars(tmp_path / "mars")
    out = tmp_path / "out"
    run_road(recipe(), {"mars": tmp_path / "mars"}, out)
    kinds = prove_pairs(out, codes=lambda key: code_of(truth, key))
    # Of 4, 3 and 5 frames of person 1 each two of a track, and one of person 3, whose third image is cut short.
    assert kinds == {"cross_pose": 6 + 3 + 10 + 1}
    rejects = Build(out).table("rejects").to_pylist()
    assert [(r["key"], r["reason"]) for r in rejects if r["stage"] == "crops"] == [
        ("mars/train/0003/00000004/c2/c2t0001", "unreadable")
    ]
    crops = Build(out).table("crops").to_pylist()
    assert {(row["box_from"], row["silhouette_from"]) for row in crops} == {("dataset", "none")}
    assert all(row["square_xyxy_px"][3] - row["square_xyxy_px"][1] == 256 for row in crops)


def test_the_road_without_tables_takes_the_people_to_test_on_when_asked(tmp_path: Path) -> None:
    truth = write_mars(tmp_path / "mars", info=False)
    source = replace(dataset("mars").sources[0], splits=(Split.TRAIN, Split.TEST))
    out = tmp_path / "out"
    run_road(recipe(sources=(source,)), {"mars": tmp_path / "mars"}, out)
    assert prove_pairs(out, codes=lambda key: code_of(truth, key)) == {"cross_pose": 20 + 3 + 3 + 1}
    crops = Build(out).table("crops").to_pylist()
    assert {(row["split"], row["subject"] or row["group"]) for row in crops} == {
        ("val", "0001"), ("train", "0003"), ("test", "0002"), ("test", "0004"),  # one of two is held out
    }  # fmt: skip
    rejects = {(r["reason"], r["detail"]) for r in Build(out).table("rejects").to_pylist()}
    assert ("size", "64 x 128 px, where 128 x 256 is due") in rejects
    assert ("junk", "3 images: junk of the detector") in rejects
