"""DexYCB as it lies on disk: frames, cameras, labels, protocols, and what is left out."""

import io
import shutil
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from manifests import table as tables
from manifests.errors import RecipeError, SourceError
from manifests.geometry import crop_from_frame
from manifests.sample import CELLS, unpack_cells
from manifests.types import FrameKey, Reason, Split
from pipeline.recipes import ParserRecipe, SourceRecipe, dataset
from pipeline.sources import build_source
from pipeline.sources.dexycb import CAMERAS, split_of
from tests.support.dexycb_fixture import (
    LEFT,
    LENSES,
    OTHER,
    RIGHT,
    SEQUENCES,
    Sequence,
    master_from_world,
    write_dexycb,
    write_meta,
)  # fmt: skip
from tests.support.proof import prove_cameras, prove_crop_cameras, prove_pairs, run_road
from tests.support.rejects import told as said

EVERY = (Split.TRAIN, Split.VAL, Split.TEST)
HAND_OF = {one.key: one for one in SEQUENCES}


def source(**options):
    return build_source(SourceRecipe(kind="dexycb", name="dexycb", **options))


def scan(root: Path, one: Sequence, split: Split | None = None, **options):
    made = source(**options)
    found = next(r for r in made.recordings(root) if r.sequence == one.key and split in (None, r.split))
    return made.scan(root, found, split=found.split)


@pytest.fixture(scope="module")
def dexycb(tmp_path_factory):
    return write_dexycb(tmp_path_factory.mktemp("dexycb") / "dex-ycb")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """One sequence of two frames, without faults."""
    return write_dexycb(tmp_path_factory.mktemp("two") / "dex-ycb", sequences=(LEFT,), faults=False)


@pytest.fixture
def mine(two, tmp_path):
    """The same, to spoil."""
    return Path(shutil.copytree(two.home, tmp_path / "dex-ycb"))


def test_subjects_are_on_one_side_by_default(dexycb):
    found = source().recordings(dexycb.home)
    assert [(one.sequence, one.split, one.group) for one in found] == [
        (RIGHT.key, Split.TRAIN, "subject-01"), (LEFT.key, Split.TRAIN, "subject-01"), (OTHER.key, Split.VAL, "subject-07"),
    ]  # fmt: skip
    assert [len(one.files) for one in found] == [1 + 8 + 1, 1, 1]


def test_frames_by_key(dexycb):
    rows = {row["key"]: row for row in scan(dexycb.home, RIGHT).frames.to_pylist()}
    assert len(rows) == 7 * 3 - 2
    row = rows[f"dexycb/train/{RIGHT.key}/00000002/{CAMERAS[6]}/hand"]
    assert row["media"] == f"{RIGHT.subject}/{RIGHT.name}/{CAMERAS[6]}/color_000002.jpg"
    assert (row["width"], row["height"], row["side"], row["subject"]) == (640, 480, "right", "subject-01")
    assert (row["time_s"], row["box_xyxy_px"], row["silhouette_from"], row["flags"]) == (None, None, "dataset", [])
    assert set(scan(dexycb.home, LEFT).frames.column("side").to_pylist()) == {"left"}


def test_what_is_left_out_is_counted(dexycb, caplog):
    left_out = scan(dexycb.home, RIGHT).rejects
    told = {(r.key.split("/")[-1], r.reason): (r.detail, r.count) for r in left_out}
    assert told == {
        (CAMERAS[3], Reason.UNLABELLED): ("1 image has no labels_*.npz", 1),
        (CAMERAS[4], Reason.MISSING): ("1 of 3 frames of meta.yml have no image", 1),
        (CAMERAS[7], Reason.MISSING): ("3 frames: the camera's folder is not there", 3),
    }
    assert "20200709-subject-01: subject has 2 of 100 sequences" in caplog.text
    assert [(m.found, m.needed) for m in source().look(dexycb.home)] == [(True, True), (True, False), (False, False)]
    assert "20200928-subject-07 has 1 of 100 sequences" in source().look(dexycb.home)[2].hint


def test_cameras(dexycb):
    for one, proven in ((RIGHT, 19), (LEFT, 16)):
        points = one.hand(0).surface(60)
        frames = scan(dexycb.home, one).frames
        lenses = dict(zip(CAMERAS, LENSES, strict=True))
        moved = master_from_world()
        assert proven == prove_cameras(frames, lambda key: lenses[key.view], points, world_from_fixture=moved)  # noqa: B023


def test_labels(dexycb):
    rows = {row["key"].split("/", 3)[3]: row for row in scan(dexycb.home, RIGHT).frames.to_pylist()}
    told = source().labels(dexycb.home, rows[f"00000000/{CAMERAS[1]}/hand"])  # joints are -1, the hand is in seg
    np.testing.assert_array_equal(told.box_xyxy_px, dexycb.drawn[RIGHT.key, 1, 0].box())
    told = source().labels(dexycb.home, rows[f"00000001/{CAMERAS[2]}/hand"])
    assert told.reject == (Reason.HIDDEN, "labels say no hand in this view (seg has no 255)")


@pytest.mark.parametrize("protocol", ["s0", "s3"])
def test_protocols_by_place_need_all_sequences(dexycb, tmp_path, protocol):
    with pytest.raises(SourceError, match="and 20200709-subject-01 has 2") as error:
        source(protocol=protocol).recordings(dexycb.home)
    assert "s1 or s2" in error.value.hint
    for subject in ("20200709-subject-01", "20200820-subject-03"):
        for place in range(100):
            write_meta(tmp_path / subject / f"20200709_{place:06d}", LEFT)
    found = source(protocol=protocol).recordings(tmp_path)
    counts = Counter((one.group, one.split) for one in found)
    held_out = {"s0": [20, 0, 0, 20], "s3": [10, 15, 10, 15]}[protocol]
    expected = {(f"subject-{n:02d}-train", Split.TRAIN): 80 if protocol == "s0" else 75 for n in (1, 3)}
    groups = [("subject-01", "val"), ("subject-01", "test"), ("subject-03", "val"), ("subject-03", "test")]
    expected |= {(f"{who}-{split}", Split(split)): n for (who, split), n in zip(groups, held_out, strict=True) if n}
    assert counts == expected


def test_what_the_protocols_hold_out():
    def held_out(protocol: str, **where: range) -> dict[Split, list[int]]:
        at = {"subject": 5, "place": 0, "camera": 0}
        ((name, values),) = where.items()
        return {
            split: [v for v in values if split_of(protocol, **(at | {name: v})) is split]
            for split in (Split.VAL, Split.TEST)
        }

    assert held_out("s1", subject=range(1, 11)) == {Split.VAL: [7], Split.TEST: [8, 9]}
    assert held_out("s2", camera=range(8)) == {Split.VAL: [6], Split.TEST: [7]}
    assert held_out("s0", place=range(10)) == {Split.VAL: [], Split.TEST: [4, 9]}
    assert {split_of("s0", subject, 4, 0) for subject in (1, 2)} == {Split.VAL}
    places = held_out("s3", place=range(100))
    assert places == {
        Split.VAL: [*range(15, 20), *range(95, 100)],
        Split.TEST: [*range(35, 40), *range(55, 60), *range(75, 80)],
    }


def test_cameras_of_one_instant_in_several_splits_are_never_paired(two, tmp_path):
    found = source(protocol="s2").recordings(two.home)
    assert [(one.sequence, one.split, one.group) for one in found] == [
        (LEFT.key, split, f"subject-01-{split}") for split in ("test", "train", "val")
    ]
    frames = {split: scan(two.home, LEFT, split, protocol="s2").frames for split in EVERY}
    views = {Split.TRAIN: CAMERAS[:6], Split.VAL: CAMERAS[6:7], Split.TEST: CAMERAS[7:]}
    assert {split: tuple(sorted(set(rows.column("view").to_pylist()))) for split, rows in frames.items()} == views
    assert set(map(tuple, frames[Split.TRAIN].column("flags").to_pylist())) == {("official_split",)}
    build = road("s2", two.home, tmp_path, EVERY)
    pairs = [
        pair for path in (build / "pairs").glob("*.pairs.parquet") for pair in tables.read("pairs", path).to_pylist()
    ]
    for pair in pairs:
        assert {FrameKey.parse(pair[role]).view for role in ("target", "reference")} <= set(views[pair["split"]])
    assert Counter((pair["split"], pair["kind"]) for pair in pairs) == {
        ("train", "cross_view"): 2 * 15, ("train", "cross_pose"): 6, ("val", "cross_pose"): 1, ("test", "cross_pose"): 1,
    }  # fmt: skip
    assert prove_pairs(build, codes=code_of) == {"cross_view": 30, "cross_pose": 8}


def test_an_unknown_protocol():
    with pytest.raises(RecipeError, match="DexYCB has no split protocol `s4`"):
        source(protocol="s4")


def test_found_in_the_folder_above_and_below_a_zip(two, tmp_path):
    for place in ("dex-ycb", "zip/dex-ycb"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).symlink_to(two.home)
        row = scan(tmp_path, LEFT).frames.to_pylist()[0]
        assert row["media"].startswith(f"{place}/{LEFT.subject}/")
        assert source().labels(tmp_path, row).reject is None
        (tmp_path / place).unlink()
    # Archives of one subject and of the calibration may each make a level of their own.
    (tmp_path / LEFT.subject).mkdir()
    (tmp_path / "calibration").mkdir()
    for part in (LEFT.subject, "calibration"):
        (tmp_path / part / part).symlink_to(two.home / part)
    frames = scan(tmp_path, LEFT).frames
    assert (frames.num_rows, frames.column("camera_from_world").null_count) == (16, 0)


def test_other_roots(two, tmp_path):
    assert not source().look(tmp_path)[0].found
    with pytest.raises(SourceError, match="no folder here is named like 20200709-subject-01"):
        source().recordings(tmp_path)
    with pytest.raises(SourceError) as error:
        source().recordings(two.home / LEFT.subject)
    assert error.value.hint == "this is one subject: give the folder that holds it, and calibration/"


def test_without_calibration(mine):
    shutil.rmtree(mine / "calibration" / "intrinsics")
    row = scan(mine, LEFT).frames.to_pylist()[0]
    assert (row["intrinsics"], row["flags"]) == (None, ["uncalibrated"])
    shutil.rmtree(mine / "calibration")
    assert scan(mine, LEFT).frames.column("camera_from_world").null_count == 16
    assert not source().look(mine)[1].found


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (f"{LEFT.subject}/{LEFT.name}/meta.yml", "num_frames: many\nmano_sides: [left]\nextrinsics: a\n"),
        (f"{LEFT.subject}/{LEFT.name}/meta.yml", "num_frames: 2\nmano_sides: [both]\nextrinsics: a\n"),
        (f"{LEFT.subject}/{LEFT.name}/meta.yml", "num_frames: 2\nmano_sides: [left]\nextrinsics: ../../a\n"),
        (f"{LEFT.subject}/{LEFT.name}/meta.yml", "{"),
        ("calibration/extrinsics_20200702_151821/extrinsics.yml", "extrinsics: 3\n"),
        ("calibration/extrinsics_20200702_151821/extrinsics.yml", f"extrinsics: {{{CAMERAS[0]}: !!python/tuple [1, 2]}}\n"),
        ("calibration/extrinsics_20200702_151821/extrinsics.yml", f"extrinsics: {{{CAMERAS[0]}: [{'1, ' * 12}]}}\n"),
        ("calibration/extrinsics_20200702_151821/extrinsics.yml", "a: !!python/object/apply:os.system ['touch pwned']\n"),
        ("calibration/extrinsics_20200702_151821/extrinsics.yml", "a: !!python/tuple {b: c}\n"),
        (f"calibration/intrinsics/{CAMERAS[0]}_640x480.yml", "color: {fx: 1, fy: 1}\n"),
        (f"calibration/intrinsics/{CAMERAS[0]}_640x480.yml", "[" * 1200),
    ],
)  # fmt: skip
def test_bad_text(mine, file, text):
    (mine / file).write_text(text)
    with pytest.raises(SourceError, match="does not parse") as error:
        scan(mine, LEFT)
    assert error.value.where == str(mine / file)
    assert not Path("pwned").exists()


def test_a_sequence_without_meta(mine):
    (mine / LEFT.subject / LEFT.name / "meta.yml").unlink()
    found = scan(mine, LEFT)
    assert not found.frames
    assert said(found.rejects) == [
        (Reason.MISSING, "meta.yml: the sequence's 8 cameras, 16 pictures in all, cannot be used")
    ]
    assert found.rejects[0].count == 16


def test_a_meta_without_a_key_says_which(mine):
    path = mine / LEFT.subject / LEFT.name / "meta.yml"
    path.write_text("mano_sides: [left]\nextrinsics: a\n")
    with pytest.raises(SourceError, match="are due: key num_frames is missing"):
        scan(mine, LEFT)


def test_damaged_labels(mine):
    row = scan(mine, LEFT).frames.to_pylist()[0]
    path = mine / row["media"].replace("color_", "labels_").replace(".jpg", ".npz")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for length in (0, 10, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert source().labels(mine, row).reject[0] is Reason.BAD_LABEL
    for _ in range(200):  # whatever the bytes, it is a label or a reject
        bytes_ = np.frombuffer(whole, np.uint8).copy()
        bytes_[rng.integers(0, len(bytes_), 4)] = rng.integers(0, 256, 4)
        path.write_bytes(bytes_.tobytes())
        told = source().labels(mine, row)
        assert told.reject is None or told.reject[0] in (Reason.BAD_LABEL, Reason.HIDDEN)
    path.unlink()
    assert source().labels(mine, row).reject[0] is Reason.BAD_LABEL


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (npz(seg=bytes(100 << 20)), "seg has 104857600 bytes, more than"),
        (npz(seg=npy(np.array([print], object))), "Object arrays cannot be loaded"),
        (npz(seg=npy(np.zeros((480, 640), np.int16))[:300_000]), "expected 262144 bytes"),
        (npz(seg=npy(np.zeros((480, 639), np.uint8))), "seg is (480, 639)"),
        (npz(seg=npy(np.zeros((480, 80), np.int64))), "of int64, not"),
        (npz(other=npy(np.zeros(3))), "no item named 'seg.npy'"),
    ],
)
def test_hostile_labels(mine, data, why):
    row = scan(mine, LEFT).frames.to_pylist()[0]
    (mine / row["media"].replace("color_", "labels_").replace(".jpg", ".npz")).write_bytes(data)
    reason, detail = source().labels(mine, row).reject
    assert reason is Reason.BAD_LABEL
    assert why in detail


def code_of(key: FrameKey) -> tuple[int, int]:
    return key.instant, CAMERAS.index(key.view)


def road(protocol: str | None, home: Path, out: Path, splits: tuple[Split, ...]) -> Path:
    recipe = replace(dataset("dexycb"), parser=ParserRecipe(backend="none"))
    recipe = replace(recipe, sources=(replace(recipe.sources[0], protocol=protocol, splits=splits),))
    run_road(recipe, {"dexycb": home}, out)
    return out


def test_from_raw_to_audited_shards(dexycb, tmp_path):
    road(None, dexycb.home, tmp_path, (Split.TRAIN,))
    rejects = {
        (row["key"], row["reason"]): row["detail"]
        for path in (tmp_path / "crops").glob("*.rejects.parquet")
        for row in tables.read("rejects", path).to_pylist()
    }
    place = f"dexycb/train/{RIGHT.key}"
    assert rejects == {
        (f"{place}/00000001/{CAMERAS[2]}/hand", "hidden"): "labels say no hand in this view (seg has no 255)",
        (
            f"{place}/00000000/{CAMERAS[5]}/hand",
            "unreadable",
        ): "the image's header does not parse, or says it is too large",
    }
    # RIGHT: instants 0, 1, 2 are seen by 6, 6, 5 cameras; three cameras see 3 instants, four see 2. LEFT: all of 2 by 8.
    counts = prove_pairs(tmp_path, codes=code_of)
    assert counts == {"cross_view": 15 + 15 + 10 + 2 * 28, "cross_pose": 3 * 3 + 4 + 8}
    assert prove_crop_cameras(
        tmp_path, lambda key: HAND_OF[key.sequence].hand(key.instant), world_from_fixture=master_from_world()
    )
    seen = 0
    for path in (tmp_path / "crops").glob("*.crops.parquet"):
        for crop in tables.read("crops", path).to_pylist():
            key = FrameKey.parse(crop["key"])
            true = dexycb.drawn[key.sequence, CAMERAS.index(key.view), key.instant]
            assert crop["silhouette_from"] == "dataset"
            assert (crop["box_from"], crop["box_xyxy_px"]) == ("dataset", true.box().tolist())
            to_crop = crop_from_frame(np.array(crop["square_xyxy_px"]), CELLS)
            mask = (
                cv2.warpAffine(true.mask(0).astype(np.float32), to_crop[:2], (CELLS, CELLS), flags=cv2.INTER_AREA) > 0.5
            )
            stored = unpack_cells(crop["silhouette"])
            assert (mask & stored).sum() / (mask | stored).sum() > 0.8
            seen += 1
    assert seen == 17 + 16
