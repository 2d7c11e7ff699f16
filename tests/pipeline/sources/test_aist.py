"""AIST: names, the 60 Hz grid, keypoints in both forms, known exceptions, and the whole road proven from pixels."""

import json
import pickle
import shutil
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from pathlib import Path, PurePosixPath

import av
import numpy as np
import pytest

from manifests.audit.findings import Severity
from manifests.audit.prove import audit
from manifests.build import Build
from manifests.errors import RecipeError, SourceError
from manifests.geometry import crop_from_frame
from manifests.sample import cells_of, unpack_cells
from manifests.types import EVERYBODY, FrameKey, PairKind, Reason, Split
from pipeline.recipes import BuildRecipe, CropRecipe, PairRecipe, ParserRecipe, SourceRecipe, dataset
from pipeline.silhouettes import from_mask
from pipeline.sources.aist import AistSource, on_grid, read_keypoints
from pipeline.sources.base import Scan
from tests.support import honest
from tests.support.aist_fixture import (
    ADVANCED,
    BARE,
    CROWDS,
    NAN_INSTANT,
    NAN_JOINT,
    NAN_VIEW,
    NTSC,
    NUM,
    ODD,
    SIZE,
    SLOW,
    SYNCED,
    UNFILMED,
    UNSEEN,
    VIEWS,
    Truth,
    write_aist,
)
from tests.support.pickles import python2_pickle
from tests.support.proof import prove_cameras, prove_crop_cameras, prove_pairs, run_road
from tests.support.rejects import told

NAMES = {name.lower(): name for name in (SYNCED, ODD, ADVANCED, BARE)}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    root = tmp_path_factory.mktemp("aist")
    return root, write_aist(root)


@pytest.fixture
def root(made: tuple[Path, Truth], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(made[0], tmp_path / "aist")


def source(**options) -> AistSource:
    return AistSource(SourceRecipe(kind="aist", name="aist", **options))


def scans(root: Path, **options) -> dict[str, Scan]:
    built = source(**options)
    return {
        NAMES.get(one.sequence, one.sequence): built.scan(root, one, split=one.split or Split.TRAIN)
        for one in built.recordings(root)
    }


def rows(scan: Scan) -> dict[str, dict[int, dict]]:
    found: dict[str, dict[int, dict]] = {}
    for row in scan.frames.to_pylist():
        found.setdefault(row["view"], {})[row["instant"]] = row
    return found


def instants(scan: Scan) -> dict[str, list[int]]:
    return {view: list(found) for view, found in rows(scan).items()}


def details(scan: Scan, reason: Reason) -> dict[str, str]:
    told(scan.rejects)
    return {reject.key: reject.detail for reject in scan.rejects if reject.reason is reason}


def counts(scan: Scan, reason: Reason) -> dict[str, int]:
    return {PurePosixPath(reject.key).name[8:11]: reject.count for reject in scan.rejects if reject.reason is reason}


def visible(sequence: str) -> dict[str, set[int]]:
    """Instants that must come out, by view: what was filmed, readable and labelled."""
    last = NUM - 1 if sequence in (SYNCED, ADVANCED) else NUM
    found = {view: set(range(last)) for view in VIEWS[sequence]}
    if sequence == SYNCED:
        found[SLOW] = set(range(0, last, 2))
        found[NAN_VIEW] -= {NAN_INSTANT}
    if sequence == ODD:
        del found["c04"]
        found[UNSEEN[0]] -= {UNSEEN[1]}
    return found


# --- what is found ---


def test_frames_stand_on_the_grid(made: tuple[Path, Truth]) -> None:
    found = scans(made[0])
    assert list(found) == [SYNCED, ADVANCED, BARE, ODD, "left-out"]
    for sequence in (SYNCED, ADVANCED, BARE, ODD):
        assert instants(found[sequence]) == {view: sorted(them) for view, them in visible(sequence).items()}
    row = rows(found[SYNCED])["c03"][7]
    assert row["key"] == f"aist/train/{SYNCED.lower()}/00000007/c03/d04"
    assert (row["media"], row["media_index"]) == ("videos/gBR_sBM_c03_d04_mBR0_ch01.mp4", 7)
    assert (row["width"], row["height"], row["subject"], row["group"], row["track"]) == (*SIZE, "d04", "d04", "d04")
    assert row["time_s"] == pytest.approx(7 / 60, abs=1e-12)
    assert row["licence"].startswith("AIST Dance DB terms of use (unverified)")
    slow = rows(found[SYNCED])[SLOW]
    assert [(k, slow[k]["media_index"]) for k in slow] == [(0, 0), (2, 1), (4, 2), (6, 3), (8, 4), (10, 5)]


def test_a_sequence_without_annotations_is_for_the_follower(made: tuple[Path, Truth]) -> None:
    found = scans(made[0])[BARE]
    assert found.frames.num_rows == 2 * NUM
    row = rows(found)["c02"][0]
    assert (row["track"], row["subject"], row["box_xyxy_px"], row["keypoints_px"]) == (EVERYBODY, "d20", None, None)
    assert (row["intrinsics"], row["silhouette_from"], row["flags"]) == (None, "none", [])
    assert source().labels(made[0], row) is None


def test_boxes_hold_the_dancer(made: tuple[Path, Truth]) -> None:
    root, truth = made
    for sequence in (SYNCED, ODD):
        for view, found in rows(scans(root)[sequence]).items():
            for instant in list(found)[::4]:
                box = np.array(found[instant]["box_xyxy_px"])
                drawn = truth.drawn(sequence, view, instant).box()
                overlap = np.prod(np.minimum(box, drawn)[2:] - np.maximum(box, drawn)[:2])
                assert overlap >= 0.98 * np.prod(drawn[2:] - drawn[:2]), (sequence, view, instant)
                assert overlap >= 0.5 * np.prod(box[2:] - box[:2]), (sequence, view, instant)
                assert found[instant]["box_from"] == "keypoints"


def test_a_joint_that_was_not_found_has_no_confidence(made: tuple[Path, Truth]) -> None:
    view, instant, joint = NAN_JOINT
    found = rows(scans(made[0])[SYNCED])[view]
    points = np.reshape(found[instant]["keypoints_px"], (17, 3))
    assert points[joint].tolist() == [0, 0, 0]
    assert np.isfinite(points).all()
    truth = made[1].keypoints(SYNCED, view, instant)
    others = np.arange(17) != joint
    assert np.allclose(points[others], truth[others], atol=1e-3)


def test_cameras_are_those_that_drew(made: tuple[Path, Truth]) -> None:
    root, truth = made
    found = scans(root)
    points = honest.body(0, 3).surface(200)
    for sequence, uncalibrated in ((SYNCED, set()), (ODD, {"c07"}), (ADVANCED, set())):

        def lens_of(key: FrameKey, sequence=sequence, uncalibrated=uncalibrated) -> honest.Lens | None:
            return None if key.view in uncalibrated else truth.lenses[sequence, key.view]

        proven = prove_cameras(found[sequence].frames, lens_of, points)
        assert proven == sum(len(them) for view, them in visible(sequence).items() if view not in uncalibrated)
    assert rows(found[ODD])["c07"][0]["intrinsics"] is None


def test_flags(made: tuple[Path, Truth]) -> None:
    found = scans(made[0])
    flags = {view: them[0]["flags"] for view, them in rows(found[SYNCED]).items()}
    assert {view: them for view, them in flags.items() if them} == {
        "c03": ["resampled"], "c05": ["unsynchronised"], SLOW: ["resampled"],
    }  # fmt: skip
    odd = {view: them[0]["flags"] for view, them in rows(found[ODD]).items()}
    assert odd == {"c01": ["poor_3d"], "c02": ["poor_3d"], "c07": ["poor_3d", "size_differs", "unsynchronised"]}
    assert rows(found[ADVANCED])["c01"][0]["flags"] == []


def test_what_is_left_out_is_said(made: tuple[Path, Truth]) -> None:
    found = scans(made[0])
    assert details(found[SYNCED], Reason.MISSING) == {
        f"videos/{SYNCED}": f"5 of 9 views present for {SYNCED}; missing c04, c07, c08, c09"
    }
    assert details(found[SYNCED], Reason.UNSYNCHRONISED) == {
        "videos/gBR_sBM_c05_d04_mBR0_ch01.mp4": f"c05 of {SYNCED} is known unsynchronised: excluded from cross-view",
        "videos/gBR_sBM_c06_d04_mBR0_ch01.mp4": "video gBR_sBM_c06_d04_mBR0_ch01.mp4 is 30.00 fps: resampled to the "
        "60 Hz grid; 5 instants without a frame, 0 frames without an instant",
    }
    unlabelled = details(found[SYNCED], Reason.UNLABELLED)
    ended = "1 of them come after the last annotated one"
    assert len(unlabelled) == 4
    assert (
        unlabelled["videos/gBR_sBM_c01_d04_mBR0_ch01.mp4"] == f"no keypoints of the dancer at 1 of 12 instants; {ended}"
    )
    assert (
        unlabelled["videos/gBR_sBM_c02_d04_mBR0_ch01.mp4"] == f"no keypoints of the dancer at 2 of 12 instants; {ended}"
    )
    assert details(found[ODD], Reason.UNLABELLED) == {
        "videos/gJB_sBM_c02_d07_mJB3_ch05.mp4": "no keypoints of the dancer at 1 of 12 instants"
    }
    assert details(found[ODD], Reason.UNREADABLE) == {
        "videos/gJB_sBM_c04_d07_mJB3_ch05.mp4": "cannot decode: truncated mp4, re-download from the AIST site (not Google)"
    }
    assert (
        "excluded from cross-view" in details(found[ODD], Reason.UNSYNCHRONISED)["videos/gJB_sBM_c07_d07_mJB3_ch05.mp4"]
    )
    assert counts(found[SYNCED], Reason.MISSING) == {"cAl": 4}
    assert counts(found[SYNCED], Reason.UNSYNCHRONISED) == {"c05": 12, "c06": 5}
    assert counts(found[SYNCED], Reason.UNLABELLED) == {"c01": 1, "c02": 2, "c03": 1, "c05": 1}
    assert counts(found[ODD], Reason.UNREADABLE) == {"c04": 1}
    left = found["left-out"]
    assert left.frames.num_rows == 0
    assert details(left, Reason.CROWD) == {
        f"videos/{name}.mp4": "multi-dancer video skipped" for name in sorted(CROWDS)
    }
    assert details(left, Reason.MISSING) == {
        UNFILMED: f"1 of 4 annotated sequences have no video here, such as {UNFILMED}"
    }
    assert len(left.rejects) == len(CROWDS) + 1
    assert Counter(reject.reason for reject in found[BARE].rejects) == {Reason.MISSING: 1}


def test_frame_step_takes_the_same_instants_of_all_views(made: tuple[Path, Truth]) -> None:
    found = instants(scans(made[0], frame_step=5)[SYNCED])
    assert found == {view: [0, 10] if view == SLOW else [0, 5, 10] for view in VIEWS[SYNCED]}


# --- the grid ---


@pytest.mark.parametrize("fps", [Fraction(60), NTSC, Fraction(6002, 100), Fraction(50), Fraction(25)])
def test_each_instant_has_its_nearest_frame(fps: Fraction) -> None:
    num = round(48 * fps)
    times = [float(k / fps) for k in range(num)]
    instant, frame, late = on_grid(times)
    assert len(late) == 0
    assert (np.diff(instant) > 0).all()
    assert (np.diff(frame) > 0).all()
    apart = np.abs(np.array(times)[frame] - instant / 60)
    assert apart.max() <= 0.5 / 60 + 1e-9
    nearest = np.abs(np.array(times) - (instant / 60)[:, None]).min(axis=1)
    assert np.allclose(apart, nearest)
    assert abs(len(instant) - min(num, 48 * 60)) <= 4


def test_frame_numbers_drift_where_the_grid_does_not() -> None:
    """48 s at 59.94 fps: by number the last frame would be three instants off."""
    instant, frame, _ = on_grid([k * 1001 / 60000 for k in range(2877)])
    assert (instant[-1], frame[-1]) == (2879, 2876)
    assert len(instant) == 2877


def test_a_clock_that_stands_still_or_runs_back() -> None:
    instant, frame, late = on_grid([0, 1 / 60, 1 / 60, 3 / 60, 2 / 60, 4 / 60])
    assert (instant.tolist(), frame.tolist(), late.tolist()) == ([0, 1, 3, 4], [0, 1, 3, 5], [2, 4])
    assert on_grid([0, 1 / 60, 1e30])[2].tolist() == [2]


def test_the_nearer_of_two_frames_is_taken() -> None:
    instant, frame, late = on_grid([0, 0.6 / 60, 0.9 / 60, 1.3 / 60, 2.1 / 60])
    assert (instant.tolist(), frame.tolist(), late.tolist()) == ([0, 1, 2], [0, 2, 4], [])


def test_a_long_video_of_another_rate(root: Path) -> None:
    bare = root / "videos" / "gHO_sBM_c02_d20_mHO0_ch02.mp4"
    blank = np.zeros((64, 64, 3), np.uint8)
    honest.write_mp4(bare, (blank for _ in range(620)), NTSC, keep_every=300)
    found = scans(root)[BARE]
    view = rows(found)["c02"]
    assert len(view) == 620
    assert (max(view), view[max(view)]["media_index"]) == (620, 619)
    assert 500 not in view or 501 not in view
    assert view[0]["flags"] == ["resampled"]
    assert details(found, Reason.UNSYNCHRONISED)[f"videos/{bare.name}"] == (
        f"video {bare.name} is 59.94 fps: resampled to the 60 Hz grid; 1 instants without a frame, 0 frames without an instant"
    )
    assert (
        "ends at 0.18 s, other views at 10.33 s"
        in details(found, Reason.MISSING)["videos/gHO_sBM_c01_d20_mHO0_ch02.mp4"]
    )


# --- forms, splits, wrong roots ---


@pytest.mark.parametrize("form", ["parts", "parent", "zip level", "beside", "link"])
def test_unpacked_forms(made: tuple[Path, Truth], root: Path, tmp_path: Path, form: str) -> None:
    plain = {name: scan.frames.drop_columns("media") for name, scan in scans(made[0]).items()}
    annotations = root / "aist_plusplus_final"
    given = root
    if form == "parts":
        for name in ("cameras", "keypoints2d", "splits"):
            (root / f"20210308_{name}").mkdir()
            (annotations / name).rename(root / f"20210308_{name}" / name)
    elif form == "parent":
        given = root.parent
    elif form == "zip level":
        annotations.rename(root / "x")
        annotations.mkdir()
        (root / "x").rename(annotations / "aist_plusplus_final")
    elif form == "beside":
        for video in (root / "videos").iterdir():
            video.rename(root / video.name)
    else:
        (root / "videos").rename(tmp_path / "elsewhere")
        (root / "videos").symlink_to(tmp_path / "elsewhere")
        (root / "again").symlink_to(root)  # leads back
    assert all(marker.found for marker in source(protocol="subject").look(given))
    found = scans(given)
    assert {name: scan.frames.drop_columns("media") for name, scan in found.items()} == plain
    assert Counter(reject.reason for reject in found["left-out"].rejects) == {Reason.CROWD: 4, Reason.MISSING: 1}
    media = found[SYNCED].frames.column("media").to_pylist()
    assert all((given / path).is_file() for path in media)


def test_videos_alone_serve(root: Path) -> None:
    shutil.rmtree(root / "aist_plusplus_final")
    built = source()
    assert [marker.found for marker in built.look(root)] == [True, False, False]
    for given in (root, root / "videos"):
        found = scans(given)
        assert found[SYNCED].frames.column("track").unique().to_pylist() == [EVERYBODY]
        assert len(rows(found[SYNCED])["c05"]) == NUM
        assert Counter(reject.reason for reject in found["left-out"].rejects) == {Reason.CROWD: 4}


def test_both_bit_rates_are_one_video(root: Path) -> None:
    (root / "videos_2M").mkdir()
    small = root / "videos_2M" / "gHO_sBM_c01_d20_mHO0_ch02.mp4"
    honest.write_mp4(small, [np.zeros((64, 64, 3), np.uint8)], Fraction(60))
    found = scans(root)
    assert set(found[BARE].frames.column("media").to_pylist()) == {
        f"videos/gHO_sBM_c0{k}_d20_mHO0_ch02.mp4" for k in (1, 2)
    }
    assert details(found["left-out"], Reason.TWICE) == {
        "videos_2M/gHO_sBM_c01_d20_mHO0_ch02.mp4": "the same video as videos/gHO_sBM_c01_d20_mHO0_ch02.mp4, which is larger"
    }


def test_rescaled_videos_rescale_cameras_and_keypoints(root: Path, made: tuple[Path, Truth]) -> None:
    lens = made[1].lenses[ADVANCED, "c01"]
    half = honest.Lens(np.diag([0.5, 0.5, 1]) @ lens.K, lens.camera_from_world, lens.distortion, (320, 180))
    half.K[:2, 2] -= 0.25  # pixel 0 is the centre of the first pixel
    pictures = [honest.draw(half, [honest.body(0, k)], instant=k, view=0) for k in range(NUM)]
    honest.write_mp4(root / "videos/gBR_sFM_c01_d04_mBR4_ch07.mp4", (one.rgb for one in pictures), Fraction(60))
    found = scans(root)[ADVANCED]
    row = rows(found)["c01"][2]
    assert row["flags"] == ["rescaled"]
    prove_cameras(found.frames.slice(0, 3), lambda _: half, honest.body(0, 2).surface(200))
    points = np.reshape(row["keypoints_px"], (17, 3))[:, :2]
    assert np.abs(points - half.pixels(honest.body(0, 2).coco17())).max() < 0.01
    drawn = pictures[2].box()
    assert np.abs(np.array(row["box_xyxy_px"]) - drawn).max() < 20


def test_splits_of_a_protocol(made: tuple[Path, Truth]) -> None:
    def sides(**options) -> dict[str, tuple[Split | None, str]]:
        return {
            NAMES.get(one.sequence, one.sequence): (one.split, one.group)
            for one in source(**options).recordings(made[0])
        }

    free = sides()
    assert free == {
        SYNCED: (None, "d04"), ADVANCED: (None, "d04"), BARE: (None, "d20"), ODD: (None, "d07"),
        "left-out": (Split.TRAIN, "left-out"),
    }  # fmt: skip
    subject = sides(protocol="subject")
    assert subject == {
        SYNCED: (Split.TRAIN, "d04-train"), ADVANCED: (Split.VAL, "d04-val"), ODD: (Split.TEST, "d07-test"),
        "left-out": (Split.TRAIN, "left-out"),
    }  # fmt: skip
    assert [name for name, (split, _) in sides(protocol="crossmodal").items() if split] == [SYNCED, ODD, "left-out"]
    left = scans(made[0], protocol="subject")["left-out"]
    assert details(left, Reason.UNLABELLED) == {
        f"videos/gHO_sBM_c0{k}_d20_mHO0_ch02.mp4": "in no list of the protocol `subject`" for k in (1, 2)
    }
    row = rows(scans(made[0], protocol="subject")[ADVANCED])["c01"][0]
    assert (row["split"], row["group"], row["subject"], row["flags"]) == ("val", "d04-val", "d04", ["official_split"])


def test_protocols_that_cannot_be(root: Path) -> None:
    with pytest.raises(RecipeError, match=r"no split protocol `crossmodel`[\s\S]*did you mean `crossmodal`"):
        source(protocol="crossmodel")
    lists = root / "aist_plusplus_final/splits"
    (lists / "pose_val.txt").write_text(f"{SYNCED}\n")
    with pytest.raises(SourceError, match=f"{SYNCED} is in train and in val"):
        source(protocol="subject").recordings(root)
    (lists / "pose_val.txt").unlink()
    with pytest.raises(SourceError, match=r"needs splits/pose_val.txt"):
        source(protocol="subject").recordings(root)
    assert [m.what for m in source(protocol="subject").look(root) if not m.found] == ["splits/pose_val.txt"]
    (lists / "crossmodal_train.txt").write_text("gBR_sBM_cAll_d99_mBR0_ch01\n")
    (lists / "crossmodal_test.txt").write_text(f"{UNFILMED}\n")
    (lists / "crossmodal_val.txt").write_text("")
    with pytest.raises(SourceError, match="no video of a solo dancer that the protocol lists is here"):
        source(protocol="crossmodal").recordings(root)


@pytest.mark.parametrize(
    ("made_of", "hint"),
    [
        ("", "give the folder of the AIST Dance DB's videos"),
        ("aist_plusplus_final/cameras/mapping.txt", "these are AIST\\+\\+'s annotations"),
        ("videos/clip.mp4", "1 video is here, but none is named like"),
        ("videos/gPO_sGR_c01_d10_d11_d12_mPO1_ch10.mp4", "sBM and sFM are solos"),
    ],
)
def test_wrong_roots(tmp_path: Path, made_of: str, hint: str) -> None:
    if made_of:
        (tmp_path / made_of).parent.mkdir(parents=True)
        (tmp_path / made_of).write_bytes(b"")
    with pytest.raises(SourceError, match=f"no video of a solo dancer is here[\\s\\S]*{hint}"):
        source().recordings(tmp_path)
    first = source().look(tmp_path)[0]
    assert not first.found
    assert first.hint
    with pytest.raises(SourceError, match="no folder"):
        source().recordings(tmp_path / "absent")
    assert not source().look(tmp_path / "absent")[0].found


def test_strange_names_are_counted(root: Path) -> None:
    shutil.copy(root / "videos/gLO_sSH_c01_v0.mp4", root / "videos/holiday.mp4")
    shutil.copy(root / "videos/gLO_sSH_c01_v0.mp4", root / "videos/gBR_sBM_c01_d04_d05_mBR0_ch01.mp4")
    shutil.copy(root / "videos/gLO_sSH_c01_v0.mp4", root / "videos/gWA_sSH_c10_d26_mWA5_ch20.mp4")
    (root / "videos/._gBR_sBM_c07_d04_mBR0_ch01.mp4").write_bytes(b"of another system")
    left = scans(root)["left-out"]
    assert details(left, Reason.UNLABELLED) == {
        "videos/holiday.mp4": "1 video has names that are not AIST's, such as videos/holiday.mp4"
    }
    assert len(details(left, Reason.CROWD)) == len(CROWDS) + 2


# --- damage ---


def test_a_download_cut_short_that_still_opens(root: Path) -> None:
    """An mp4 whose index comes first opens, and holds fewer frames than it says."""
    path = root / "videos/gHO_sBM_c01_d20_mHO0_ch02.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=60, options={"preset": "ultrafast", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for k in range(NUM):
            noise = np.random.default_rng(k).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found = scans(root)[BARE]
    assert 0 < len(rows(found)["c01"]) < NUM - 3
    assert "instants are missing; re-download it" in details(found, Reason.MISSING)[f"videos/{path.name}"]


def test_no_video_of_a_sequence_opens(root: Path) -> None:
    for path in (root / "videos").glob("gHO_*"):
        path.write_bytes(b"<html>504 Gateway Time-out</html>")
    found = scans(root)[BARE]
    assert found.frames.num_rows == 0
    assert len(details(found, Reason.UNREADABLE)) == 2


def keypoints_of(**changes) -> dict[str, object]:
    plain = {"keypoints2d": np.zeros((9, 4, 17, 3)), "det_scores": np.zeros((9, 4)), "timestamps": np.arange(4)}
    return {key: value for key, value in (plain | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (keypoints_of(keypoints2d=np.zeros((9, 4, 67, 3))), r"\(9, 4, 67, 3\), not \(views, frames, 17, 3\)"),
        (keypoints_of(keypoints2d=None), "KeyError: 'keypoints2d'"),
        (keypoints_of(det_scores=None), "KeyError: 'bboxes'"),
        (keypoints_of(keypoints2d="text"), "ValueError"),
        (keypoints_of(det_scores=None, keypoints2d=[[np.zeros((1, 5, 3))]], bboxes=[[np.zeros((1, 5))]]), "ValueError"),
        ([1, 2], "TypeError"),
        (7, "TypeError"),
        (type("Evil", (), {"__module__": "os"}), "refused"),
    ],
)
def test_keypoints_of_another_kind(tmp_path: Path, value: object, match: str) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(python2_pickle(value))
    with pytest.raises(SourceError, match=match):
        read_keypoints(path)


def test_damaged_keypoints_name_their_file(root: Path) -> None:
    path = root / f"aist_plusplus_final/keypoints2d/{SYNCED}.pkl"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(SourceError, match=f"{SYNCED}.pkl does not read as a pickle"):
        scans(root)


@pytest.mark.parametrize("per_second", [1, 1000, 1_000_000, 1_000_000_000, 60])
def test_timestamps_of_any_unit_keep_their_gaps(tmp_path: Path, per_second: int) -> None:
    instants = np.delete(np.arange(2881), [5, 6, 1000])
    stamps = (
        instants * per_second / 60 if per_second == 1 else np.floor(instants * per_second / 60 + 1e-6).astype(np.int64)
    )
    value = keypoints_of(
        keypoints2d=np.zeros((1, len(instants), 17, 3), np.float32),
        timestamps=stamps + (7 * per_second if per_second > 60 else 0),
    )
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol=4))
    assert read_keypoints(tmp_path / "x.pkl")["c01"].instants.tolist() == instants.tolist()


@pytest.mark.parametrize("stamps", [[0, 0, 0, 0], [3, 2, 1, 0], [0, 1], [0, 1, np.nan, 3], [0, 5, 10, 15]])
def test_timestamps_without_sense_leave_the_order(tmp_path: Path, stamps: list[float]) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(keypoints_of(timestamps=np.array(stamps, float)), protocol=4))
    assert read_keypoints(tmp_path / "x.pkl")["c09"].instants.tolist() == [0, 1, 2, 3]


def test_keypoints_beside_the_image_are_bad_labels(root: Path) -> None:
    path = root / f"aist_plusplus_final/keypoints2d/{ADVANCED}.pkl"
    points = np.full((9, NUM, 17, 3), 0.9, np.float32)
    points[..., :2] = 5000 + 40 * np.arange(17)[:, None]
    points[0, 2, :, :2] = 200 + 5 * np.arange(17)[:, None]
    points[0, 2, 16] = [1e30, np.inf, 0.9]
    value = keypoints_of(keypoints2d=points, det_scores=np.ones((9, NUM)), timestamps=np.arange(NUM))
    path.write_bytes(python2_pickle(value))
    found = scans(root)[ADVANCED]
    assert instants(found) == {"c01": [2]}
    box = [200 - 7.5, 200 - 7.5, 275 + 7.5, 275 + 7.5]
    assert rows(found)["c01"][2]["box_xyxy_px"] == pytest.approx(box)
    assert details(found, Reason.BAD_LABEL) == {
        "videos/gBR_sFM_c01_d04_mBR4_ch07.mp4": "the keypoints lie outside the image at 11 of 12 instants",
        "videos/gBR_sFM_c02_d04_mBR4_ch07.mp4": "the keypoints lie outside the image at 12 of 12 instants",
    }
    assert counts(found, Reason.BAD_LABEL) == {"c01": 11, "c02": 12}


def test_damaged_cameras(root: Path) -> None:
    cameras = root / "aist_plusplus_final/cameras"
    listed = json.loads((cameras / "setting1.json").read_text())
    (cameras / "setting1.json").write_text(json.dumps(listed[1:]))
    found = rows(scans(root)[ADVANCED])
    assert (found["c01"][0]["flags"], found["c01"][0]["intrinsics"]) == (["uncalibrated"], None)
    assert found["c02"][0]["intrinsics"] is not None
    (cameras / "setting1.json").write_text('[{"name": "c01"')
    with pytest.raises(SourceError, match="calibration does not parse") as error:
        scans(root)
    assert error.value.where.endswith("setting1.json")
    assert "download the cameras of AIST++ again" in error.value.hint
    (cameras / "setting1.json").unlink()
    with pytest.raises(
        SourceError, match=r"names setting1, but aist_plusplus_final/cameras/setting1.json is not there"
    ):
        source().recordings(root)
    (cameras / "mapping.txt").write_text(f"{SYNCED} ../../secret\n")
    with pytest.raises(SourceError, match=r"names \.\./\.\./secret"):
        source().recordings(root)
    (cameras / "mapping.txt").write_text(f"{SYNCED}\n")
    with pytest.raises(SourceError, match=r"list of cameras does not parse[\s\S]*line 1"):
        source().recordings(root)
    (cameras / "mapping.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match=r"mapping.txt does not parse"):
        source().recordings(root)


# --- the road ---


def recipe(**options) -> BuildRecipe:
    """Nothing is left to chance: no candidate is too alike, or drawn away."""
    plain = dataset("aist")
    return replace(
        plain,
        sources=(replace(plain.sources[0], **({"frame_step": 1} | options)),),
        parser=ParserRecipe(backend="none"),
        crop=CropRecipe(size_px=128),
        pair=PairRecipe(min_hash_distance=0, min_dt_s=0.09),
    )


def expected(sequence: str) -> dict[PairKind, int]:
    """How many pairs a sequence allows."""
    alone = {SYNCED: "c05", ODD: "c07"}.get(sequence)
    found = visible(sequence)
    views = [them for view, them in found.items() if view != alone]
    apart = [(a, b) for them in found.values() for a, b in combinations(sorted(them), 2) if b - a >= 6]
    return {
        PairKind.CROSS_VIEW: sum(len(one & other) for one, other in combinations(views, 2)),
        PairKind.CROSS_POSE: len(apart),
    }


def test_from_raw_files_to_audited_shards(made: tuple[Path, Truth], tmp_path: Path) -> None:
    root, truth = made
    run_road(recipe(), {"aist": root}, tmp_path)

    def code(key: FrameKey) -> tuple[int, int]:
        return truth.shown(NAMES[key.sequence], key.view, key.instant), int(key.view[1:]) - 1

    kinds = prove_pairs(tmp_path, codes=code)
    wanted = [expected(sequence) for sequence in (SYNCED, ODD, ADVANCED, BARE)]
    assert kinds == {kind: sum(one[kind] for one in wanted) for kind in PairKind}
    pairs = Build(tmp_path).table("pairs")
    assert "/c05/" not in "".join(
        key
        for key, kind in zip(pairs["target"].to_pylist(), pairs["kind"].to_pylist(), strict=True)
        if kind == "cross_view"
    )

    def figure(key: FrameKey) -> honest.Figure:
        return truth.figure(NAMES[key.sequence], key.view, key.instant)

    assert prove_crop_cameras(tmp_path, figure, least_overlap=0.6) > 100  # small crops blur colours
    prove_silhouettes(tmp_path, truth)


def prove_silhouettes(out: Path, truth: Truth) -> None:
    """The capsules in the crops lie on the dancer, as far as sticks can tell."""
    overlaps = []
    for crop in Build(out).table("crops").to_pylist():
        key = FrameKey.parse(crop["key"])
        if NAMES[key.sequence] == BARE:
            assert (crop["silhouette_from"], crop["box_from"], crop["track"]) == ("none", "full_frame", "p0")
            continue
        assert (crop["silhouette_from"], crop["keypoints_set"]) == ("keypoints", "coco17")
        matrix = crop_from_frame(np.array(crop["square_xyxy_px"]), crop["size_px"])
        owner = truth.drawn(NAMES[key.sequence], key.view, key.instant).mask(0)
        true = cells_of(from_mask(owner, matrix, crop["size_px"]))
        told = unpack_cells(crop["silhouette"])
        overlaps.append((true & told).sum() / (true | told).sum())
    assert len(overlaps) == sum(len(them) for s in (SYNCED, ODD, ADVANCED) for them in visible(s).values())
    assert np.mean(overlaps) > 0.75
    assert min(overlaps) > 0.65


def test_a_protocol_that_shows_one_dancer_on_both_sides_is_a_warning(made: tuple[Path, Truth], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"^copies in jpeg: one image is stored in two splits$"):
        run_road(
            recipe(protocol="subject"), {"aist": made[0]}, tmp_path
        )  # two of the fixture's recordings look the same
    leaks = [one for one in audit(tmp_path, threads=2).findings if one.rule == "leak"]
    assert [(one.severity, one.where) for one in leaks] == [(Severity.WARNING, "subject")]
    assert "dataset's own split shows one subject on both sides" in leaks[0].message
    assert Build(tmp_path).folder("frames").joinpath(f"aist-val-{ADVANCED.lower()}.frames.parquet").is_file()
