"""HUMBI: sessions below any unpacked form, cameras proven by reprojection, and the road from raw files to audited shards."""

import dataclasses
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from manifests import table as tables
from manifests.errors import SourceError
from manifests.geometry import box_overlap
from manifests.sample import cells_of, unpack_cells
from manifests.types import FrameKey, Reason, Split
from pipeline.recipes import RECIPES, BuildRecipe, ParserRecipe, SourceRecipe, SplitRecipe, dataset
from pipeline.sources import build_source
from pipeline.sources.base import Marker, Scan, Source
from tests.support import rejects
from tests.support.honest import Lens, draw, write_jpeg
from tests.support.humbi_fixture import (
    CAMERAS,
    HUMBI_FROM_FIXTURE,
    Truth,
    body_of,
    hand_of,
    write_humbi,
)
from tests.support.proof import prove_cameras, prove_crop_cameras, prove_pairs, prove_projection, run_road, samples

BODY_7, BODY_82 = "Body_1_80/subject_7/body", "Body_81_140/subject_82/body"
HAND_7 = "Hand_1_80/subject_7/hand"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """Not to be changed by a test."""
    return write_humbi(tmp_path_factory.mktemp("whole") / "HUMBI")


@pytest.fixture
def own(whole: Truth, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(whole.root, tmp_path / "HUMBI"))


def source_of(domain: str = "body", **other) -> Source:
    name = "humbi" if domain == "body" else "humbi_hand"
    return build_source(SourceRecipe(kind="humbi", name=name, domain=domain, **other))


def scan(root: Path, sequence: str, **other) -> Scan:
    source = source_of(sequence.split("-")[-1], **other)
    recording = next(one for one in source.recordings(root) if one.sequence == sequence)
    return source.scan(root, recording, split=Split.TRAIN)


def keys(scanned: Scan) -> set[tuple[int, str, str]]:
    found = [FrameKey.parse(key) for key in scanned.frames.column("key").to_pylist()]
    return {(key.instant, key.view, key.track) for key in found}


def told(scanned: Scan) -> list[tuple[str, str, str]]:
    rejects.told(scanned.rejects)
    for reject in scanned.rejects:
        if said := re.search(r"(\d+) in all$|its (\d+) pictures|at (\d+) instants \(", reject.detail):
            assert reject.count == max(1, int(next(filter(None, said.groups())))), reject
    return [(str(reject.reason), reject.key, reject.detail) for reject in scanned.rejects]


# --- what is found ---


def test_frames_and_rejects_of_a_body_session(whole: Truth) -> None:
    scanned = scan(whole.root, "subject-82-body")
    due = {(frame, f"cam{camera:03d}", "subject-82") for frame in (1, 17) for camera in CAMERAS}
    assert keys(scanned) == due - {(17, "cam024", "subject-82")}
    assert told(scanned) == [
        (
            "missing", BODY_82,
            "subject_82/body has intrinsic.txt for 7 cameras but extrinsic.txt for 6; camera 57 dropped; its 2 pictures are "
            "left out",
        ),
        (
            "missing", BODY_82,
            "subject_82/body: camera 60 has a rotation of zeros, which marks it absent; dropped; its 0 pictures are left out",
        ),
        ("missing", BODY_82, "no such picture: camera 24 at 1 of 2 instants (17), 1 in all"),
    ]  # fmt: skip
    rows = scanned.frames.to_pylist()
    assert {row["media"] for row in rows if row["instant"] == 17 and row["view"] == "cam104"} == {
        f"{BODY_82}/00000017/image/image0000104.jpg"
    }
    for row in rows:
        assert (row["source"], row["group"], row["subject"]) == ("humbi", "subject-82", "subject-82")
        assert (row["time_s"], row["side"], row["domain"], row["distortion"]) == (None, None, "body", None)
        assert (row["box_from"], row["silhouette_from"]) == ("keypoints", "vertices")
        assert (row["width"], row["height"], row["media_index"]) == (1920, 1080, 0)


def test_a_view_that_shows_nobody_and_one_that_contradicts_itself(whole: Truth) -> None:
    scanned = scan(whole.root, "subject-7-body")
    assert told(scanned) == [
        (
            "bad_label", BODY_7,
            "subject_7/body: camera 31 has a P in project.txt that contradicts K R [I | -C] by more than 2 px; dropped; its 2 "
            "pictures are left out",
        ),
        ("unlabelled", BODY_7, "no keypoints.txt at 1 instants (17)"),
        ("hidden", BODY_7, "the subject is behind the camera: camera 30 at 1 of 2 instants (1), 1 in all"),
    ]  # fmt: skip
    # Without keypoints nothing is known of camera 30 in frame 17 yet: its vertices speak when it is cut.
    assert keys(scanned) == {
        *((frame, f"cam{camera:03d}", "subject-7") for frame in (1, 17) for camera in CAMERAS),
        (17, "cam030", "subject-7"),
    }
    row = next(row for row in scanned.frames.to_pylist() if row["view"] == "cam030")
    labels = source_of().labels(whole.root, row)
    assert labels is not None
    assert labels.reject == (Reason.HIDDEN, "the subject is behind the camera")


def test_frames_and_rejects_of_a_hand_session(whole: Truth) -> None:
    scanned = scan(whole.root, "subject-7-hand")
    due = {(frame, f"cam{camera:03d}", f"subject-7-{side}") for _, side, frame, camera in whole.boxes}
    assert len(due) == 16
    assert keys(scanned) == due - {(1, "cam104", "subject-7-right")}
    assert told(scanned) == [
        ("hidden", HAND_7, "the subject is outside the picture: camera right 104 at 1 of 2 instants (1), 1 in all")
    ]
    for row in scanned.frames.to_pylist():
        assert row["track"] == f"subject-7-{row['side']}"
        assert (row["source"], row["domain"], row["group"]) == ("humbi_hand", "hand", "subject-7")
        assert (row["box_xyxy_px"], row["box_from"]) == ([-0.5, -0.5, 249.5, 249.5], "full_frame")
        assert row["silhouette_from"] == "vertices"
        assert (row["width"], row["height"]) == (250, 250)


def test_every_n_th_instant_is_the_same_for_both_hands(own: Path) -> None:
    shutil.rmtree(own / HAND_7 / "00000001" / "image_cropped" / "left")
    assert {(key[0], key[2]) for key in keys(scan(own, "subject-7-hand", frame_step=2))} == {(1, "subject-7-right")}


# --- where it lies ---


@pytest.mark.parametrize("below", [".", "HUMBI", "HUMBI/Body_81_140", "HUMBI/Body_81_140/subject_82"])
def test_the_root_may_be_the_set_what_holds_it_a_bundle_or_a_subject(whole: Truth, below: str) -> None:
    root = whole.root.parent / below
    found = source_of().recordings(root)
    assert [one.sequence for one in found][-1] == "subject-82-body"
    assert len(found) == (1 if "81" in below else 2)
    scanned = source_of().scan(root, found[-1], split=Split.TRAIN)
    assert scanned.frames.num_rows == 9
    assert all((root / media).is_file() for media in scanned.frames.column("media").to_pylist())
    assert all(marker.found for marker in source_of().look(root))


def test_a_zip_may_add_a_level_and_archivers_leave_things_behind(own: Path) -> None:
    (own / "Body_81_140").rename(own / "inner")
    (own / "Body_81_140").mkdir()
    (own / "inner").rename(own / "Body_81_140" / "Body_81_140")
    (own / "__MACOSX" / "subject_82" / "body").mkdir(parents=True)
    (own / "__MACOSX" / "subject_82" / "body" / "intrinsic.txt").write_text("")
    found = source_of().recordings(own)
    assert [one.folder for one in found] == [BODY_7, f"Body_81_140/{BODY_82}"]


@pytest.mark.parametrize("bundle", ["Appearance_1_80", "Texture_1_80"])  # before and after Body_1_80
def test_another_bundle_may_repeat_the_camera_texts(own: Path, caplog: pytest.LogCaptureFixture, bundle: str) -> None:
    other = own / bundle / "subject_7" / "body"
    (other / "00000001" / "appearance").mkdir(parents=True)
    for name in ("intrinsic.txt", "extrinsic.txt", "project.txt"):
        shutil.copy(own / BODY_7 / name, other)
    assert [one.folder for one in source_of().recordings(own)] == [BODY_7, BODY_82]
    assert f"{bundle}/subject_7/body has no pictures: left out" in caplog.text


def test_recordings_name_what_decides_them(own: Path) -> None:
    before, *_ = source_of().recordings(own)
    assert [name.removeprefix(BODY_7 + "/") for name, _ in before.files] == [
        "00000001", "00000017", "extrinsic.txt", "intrinsic.txt", "project.txt"
    ]  # fmt: skip
    (own / BODY_7 / "00000033").mkdir()
    after, *_ = source_of().recordings(own)
    assert before.files != after.files
    assert (before.split, before.group) == (None, "subject-7")


def test_hands_and_bodies_are_told_apart(whole: Truth, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert [one.sequence for one in source_of().recordings(whole.root)] == ["subject-7-body", "subject-82-body"]
    assert "1 hand sessions are here, too: hand frames and body frames are different recordings" in caplog.text
    assert "Body_cloth_81_140/subject_82/body has no intrinsic.txt and no extrinsic.txt: left out" in caplog.text
    assert [one.sequence for one in source_of("hand").recordings(whole.root)] == ["subject-7-hand"]
    other = source_of("hand").look(whole.root)[-1]
    assert (other.what, other.found, other.needed) == ("**/subject_*/body", True, False)
    assert RECIPES["humbi_hand"]().sources[0].domain == "hand"
    with pytest.raises(SourceError, match="1 hand sessions are here, and no body session"):
        source_of().recordings(whole.root / "Hand_1_80")


def test_vertices_are_a_marker_that_may_be_missing(own: Path) -> None:
    def vertices() -> Marker:
        return next(marker for marker in source_of().look(own) if marker.what == "reconstruction/smpl_vertex.txt")

    assert vertices().found
    for path in own.rglob("smpl_vertex.txt"):
        path.unlink()
    assert (vertices().found, vertices().needed) == (False, False)
    assert vertices().hint == "without: silhouettes from the parser"


def test_wrong_roots_say_what_is_missing(own: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no folder"):
        source_of().recordings(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SourceError, match=r"no subject_\*/body is here or up to 4 folders below"):
        source_of().recordings(empty)
    assert not any(marker.found for marker in source_of().look(empty))
    assert not source_of().look(tmp_path / "nowhere")[0].found
    (empty / "Body_1_80.zip").write_bytes(b"PK")
    with pytest.raises(SourceError, match="the bundles are not unpacked"):
        source_of().recordings(empty)
    with pytest.raises(SourceError, match="none of 1 body sessions has intrinsic"):
        source_of().recordings(own / "Body_cloth_81_140")
    markers = source_of().look(own / "Body_cloth_81_140")
    assert [marker.found for marker in markers] == [True, False, False]
    for inside in (BODY_82, f"{BODY_82}/00000001"):
        with pytest.raises(SourceError, match=r"this is a part of subject_82[\s\S]*give subject_82/ as ROOT"):
            source_of().recordings(own / inside)
    shutil.copytree(own / "Body_1_80", own / "Sample_body")
    with pytest.raises(SourceError, match="the body session of subject 7 lies twice"):
        source_of().recordings(own)


# --- cameras ---


def test_cameras_see_the_subject_where_it_was_drawn(whole: Truth) -> None:
    for sequence in ("subject-82-body", "subject-7-body"):
        frames = scan(whole.root, sequence).frames
        shown = frames.filter([view != "cam030" for view in frames.column("view").to_pylist()])
        points = body_of(1, 1).surface(300)
        num = prove_cameras(shown, whole.lens, points, world_from_fixture=HUMBI_FROM_FIXTURE, within_px=0.01)
        assert num == shown.num_rows > 8


def test_a_crops_camera_is_that_of_the_whole_picture_moved_and_scaled(whole: Truth) -> None:
    rows = scan(whole.root, "subject-7-hand").frames.to_pylist()
    assert {row["side"] for row in rows} == {"left", "right"}
    for row in rows:
        lens, points = whole.lens(FrameKey.parse(row["key"])), hand_of(row["side"], row["instant"]).surface(300)
        assert prove_projection(row, lens, points, world_from_fixture=HUMBI_FROM_FIXTURE, within_px=0.01) <= 0.01


def test_boxes_hold_the_person(whole: Truth) -> None:
    """Keypoints end short of crown and hands: the margin makes up for it, and for not much more."""
    source = source_of()
    for sequence in ("subject-82-body", "subject-7-body"):
        for row in scan(whole.root, sequence).frames.to_pylist():
            if row["view"] == "cam030":
                continue
            key = FrameKey.parse(row["key"])
            box = row["box_xyxy_px"]
            if box is None:
                assert (row["instant"], row["box_from"]) == (17, None)
                labels = source.labels(whole.root, row)
                assert labels is not None
                assert labels.box_xyxy_px is not None
                box = labels.box_xyxy_px
            drawn = draw(whole.lens(key), [whole.figure(key)], instant=0, view=0).box()
            off = np.abs(np.array(box) - drawn) / (drawn[2:] - drawn[:2]).max()
            if sequence == "subject-82-body" or row["instant"] == 17:  # else a wrist is not known
                assert off.max() < 0.1, key
                assert box_overlap(np.array(box), drawn) > 0.75, key


def test_a_box_is_around_the_keypoints_that_are_known(whole: Truth) -> None:
    known = np.delete(body_of(7, 1).body25(), (4, 15), axis=0)  # written as zeros and as NaN
    for row in scan(whole.root, "subject-7-body").frames.to_pylist():
        if row["instant"] == 1:
            seen = whole.lens(FrameKey.parse(row["key"])).pixels(known)
            low, high = seen.min(axis=0), seen.max(axis=0)
            margin = 0.08 * (high - low).max()
            due = np.clip([*(low - margin), *(high + margin)], -0.5, [1919.5, 1079.5] * 2)
            assert np.allclose(row["box_xyxy_px"], due, atol=0.01)


def test_a_box_is_clipped_to_the_picture_and_a_person_half_outside_is_left_out(own: Path) -> None:
    points = np.loadtxt(own / BODY_82 / "00000001" / "reconstruction" / "keypoints.txt")
    for shift, reason in ((0.5, None), (1.3, "truncated"), (9.0, "hidden")):
        low = points + np.array([0, shift, 0])
        np.savetxt(own / BODY_82 / "00000001" / "reconstruction" / "keypoints.txt", low)
        scanned = scan(own, "subject-82-body")
        rows = [row for row in scanned.frames.to_pylist() if row["instant"] == 1]
        if reason is None:
            assert [row["box_xyxy_px"][3] for row in rows] == [1079.5] * 5
        else:
            assert rows == []
            assert [d.split(", ")[-1] for r, _, d in told(scanned) if r == reason] == ["5 in all"]


# --- damage ---


def damage_text(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()), newline="", errors="surrogateescape")


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("intrinsic.txt", lambda text: text[: len(text) // 2], "ends within camera|numbers, where 3"),
        ("intrinsic.txt", lambda text: text.replace("Numcam: 7", "0 3"), "heading has a line without a colon"),
        ("intrinsic.txt", lambda text: text.replace("0 57\n", "1 57\n"), "`0 <camera>` is due"),
        ("intrinsic.txt", lambda text: text.replace("0 57\n", "0 107\n"), "a camera below 107, not '0 107'"),
        ("extrinsic.txt", lambda text: text.replace("0 24\n", "0 2\n"), "camera 2 comes a second time"),
        ("extrinsic.txt", lambda text: text.replace("0 24\n", "0 24\nx y z\n"), "something that is no number"),
        ("extrinsic.txt", lambda text: text.replace("0 24\n", "0 24\nnan 0 0\n"), "3 finite ones are due"),
        ("project.txt", lambda text: text.replace("0 24\n", "0 24\n1 2 3\n"), "row of 3 numbers, where 4"),
        ("extrinsic.txt", lambda text: "\udce9" + text, "does not parse: .*decode"),
        ("extrinsic.txt", lambda _: "", "no camera is calibrated"),
    ],
)  # fmt: skip
def test_a_damaged_camera_text_is_an_error_that_names_the_line(
    own: Path, name: str, change: Callable[[str], str], what: str
) -> None:
    damage_text(own / BODY_82 / name, change)
    with pytest.raises(SourceError, match=what) as error:
        scan(own, "subject-82-body")
    assert "subject_82" in error.value.where


def test_a_missing_camera_text_is_named(own: Path) -> None:
    (own / BODY_82 / "extrinsic.txt").unlink()
    with pytest.raises(SourceError, match=r"extrinsic\.txt is missing"):
        scan(own, "subject-82-body")


@pytest.mark.parametrize(
    ("signs", "what"),
    [
        ((-1, 1), "K without positive focal lengths"),
        ((1, 2), "R that is no rotation"),
        ((1, -1), "R that is no rotation"),
    ],
)
def test_numbers_that_make_no_camera_drop_it(own: Path, whole: Truth, signs: tuple[int, int], what: str) -> None:
    camera = 24
    lens = whole.lenses[82, "body", camera]
    R = lens.rotation @ HUMBI_FROM_FIXTURE[:3, :3].T
    for name, old, sign in (("intrinsic", lens.K, signs[0]), ("extrinsic", R, signs[1])):
        shown = [" ".join(f"{value:.8f}" for value in row) + " " for row in old]
        path = own / BODY_82 / f"{name}.txt"
        at = path.read_text().split("\n")
        begin = at.index(f"0 {camera}") + (1 if name == "intrinsic" else 2)
        assert at[begin : begin + 3] == shown
        at[begin : begin + 3] = [" ".join(map(str, row)) for row in sign * old]
        path.write_text("\n".join(at))
    scanned = scan(own, "subject-82-body")
    assert "cam024" not in set(scanned.frames.column("view").to_pylist())
    assert any(
        reason == "bad_label" and what in detail and "its 1 pictures" in detail for reason, _, detail in told(scanned)
    )


def test_pictures_of_cameras_that_nobody_calibrated_are_counted(own: Path) -> None:
    folder = own / BODY_82 / "00000001" / "image"
    for name in (
        "image0000099.jpg",
        "image9999999.jpg",
        "image12.jpg",
        "IMG_0001.JPG",
        "image0000001.jpg.jpg",
        "image00000é1.jpg",
    ):
        shutil.copy(folder / "image0000000.jpg", folder / name)
    (folder / "Thumbs.db").write_bytes(b"")
    scanned = scan(own, "subject-82-body")
    assert scanned.frames.num_rows == 9
    details = [detail for _, _, detail in told(scanned)]
    assert "4 pictures are not named like image0000033.jpg" in details
    for camera in (99, 9999999):
        why = f"camera {camera} is neither in intrinsic.txt nor in extrinsic.txt; its 1 pictures are left out"
        assert why in details


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1 2 3\n" * 24, "holds 72 numbers, where 25 x 3 are due"),
        ("1 2 x\n" * 25, "does not parse"),
        ("0 0 0\n" * 20 + "1 2 3\n" * 5, "only 5 of 25 points are known"),
        ("1e300 inf 1e999\n" * 25, "only 0 of 25 points are known"),
        ("", "holds 0 numbers"),
    ],
)
def test_bad_keypoints_are_told_and_the_vertices_stand_in(own: Path, text: str, what: str) -> None:
    name = f"{BODY_82}/00000001/reconstruction/keypoints.txt"
    (own / name).write_text(text)
    scanned = scan(own, "subject-82-body")
    found = [(reason, detail) for reason, key, detail in told(scanned) if key == name]
    assert len(found) == 1
    assert found[0][0] == "bad_label"
    assert what in found[0][1]
    rows = [row for row in scanned.frames.to_pylist() if row["instant"] == 1]
    assert [row["box_xyxy_px"] for row in rows] == [None] * 5
    assert {row["track"] for row in rows} == {"subject-82"}


def test_without_any_label_a_body_is_handed_to_the_parser_and_a_hand_is_left_out(own: Path) -> None:
    for session in (BODY_82, HAND_7):
        shutil.rmtree(own / session / "00000001" / "reconstruction")
    rows = [row for row in scan(own, "subject-82-body").frames.to_pylist() if row["instant"] == 1]
    assert [(row["track"], row["box_xyxy_px"], row["silhouette_from"]) for row in rows] == [("all", None, "none")] * 5
    assert source_of().labels(own, rows[0]) is None
    hands = scan(own, "subject-7-hand")
    assert {key[0] for key in keys(hands)} == {17}
    why = "neither keypoints nor vertices say whether the crop shows the hand"
    left_out = [d.removeprefix(why) for r, _, d in told(hands) if r == "unlabelled" and d.startswith(why)]
    assert left_out == [
        ": camera left 0, 1, 2, 24 at 1 of 2 instants (1), 4 in all",
        ": camera right 1, 2, 24, 104 at 1 of 2 instants (1), 4 in all",
    ]


def test_without_keypoints_the_vertices_say_whether_a_crop_shows_the_hand(own: Path) -> None:
    (own / HAND_7 / "00000001" / "reconstruction" / "keypoints_r.txt").unlink()
    source = source_of("hand")
    rows = [
        row for row in scan(own, "subject-7-hand").frames.to_pylist() if row["instant"] == 1 and row["side"] == "right"
    ]
    assert len(rows) == 4
    judged = {row["view"]: source.labels(own, row) for row in rows}
    assert {view for view, labels in judged.items() if labels is not None and labels.reject is not None} == {"cam104"}
    assert judged["cam104"].reject == (Reason.HIDDEN, "the subject is outside the picture")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "is missing"),
        ("1 2 3 4\n", "line 1 is not camera, xmin, xmax, ymin, ymax"),
        ("1 0 250 0 250\n1 0 250 0 250\n", "line 2 names camera 1 a second time"),
        ("1 0 250 0 a\n", "line 1 holds something that is no number"),
        ("300 0 250 0 250\n", "line 1 is not camera"),
        ("1 250 0 0 250\n", "line 1 gives a box of no size"),
        ("1 0 inf 0 250\n", "line 1 is not camera"),
    ],
)
def test_a_damaged_list_leaves_its_crops_out(own: Path, text: str | None, what: str) -> None:
    name = f"{HAND_7}/00000017/image_cropped/left/list.txt"
    (own / name).unlink()
    if text is not None:
        (own / name).write_text(text)
    scanned = scan(own, "subject-7-hand")
    assert {key for key in keys(scanned) if key[0] == 17 and key[2] == "subject-7-left"} == set()
    assert ("bad_label", name, what) in [(r, k, d[: len(what)]) for r, k, d in told(scanned)]
    why = "list.txt does not say where the crop was cut: camera left 0, 1, 2, 24 at 1 of 2 instants (17), 4 in all"
    assert ("unlabelled", HAND_7, why) in told(scanned)


def test_a_list_and_its_pictures_may_disagree(own: Path) -> None:
    folder = own / HAND_7 / "00000017" / "image_cropped" / "right"
    (folder / "image0000001.png").unlink()
    for camera in (0, 1, 2, 24):  # all of the other hand
        (own / HAND_7 / "00000001" / "image_cropped" / "left" / f"image{camera:07d}.png").unlink()
    lines = (folder / "list.txt").read_text().splitlines()
    (folder / "list.txt").write_text("\r\n".join(line for line in lines if not line.startswith("24 ")))
    left_out = told(scan(own, "subject-7-hand"))
    assert ("missing", HAND_7, "no such picture: camera right 1 at 1 of 2 instants (17), 1 in all") in left_out
    why = "no such picture: camera left 0, 1, 2, 24 at 1 of 2 instants (1), 4 in all"
    assert ("missing", HAND_7, why) in left_out
    why = "list.txt does not say where the crop was cut: camera right 24 at 1 of 2 instants (17), 1 in all"
    assert ("unlabelled", HAND_7, why) in left_out


@pytest.mark.parametrize("text", ["1 2 3\n", None, "1 2 x\n", "nan 0 0\n" * 6890])
def test_damaged_vertices_are_a_reject_when_the_picture_is_cut(own: Path, text: str | None) -> None:
    rows = [row for row in scan(own, "subject-82-body").frames.to_pylist() if row["instant"] == 1]
    path = own / BODY_82 / "00000001" / "reconstruction" / "smpl_vertex.txt"
    path.unlink()
    if text is not None:
        path.write_text(text)
    labels = source_of().labels(own, rows[0])
    assert labels is not None
    assert labels.reject is not None
    assert labels.reject[0] is Reason.BAD_LABEL
    assert "smpl_vertex.txt: " in labels.reject[1]


def test_a_session_without_frames_or_pictures_says_so(own: Path) -> None:
    for frame in ("00000001", "00000017"):
        shutil.rmtree(own / BODY_82 / frame / "image")
    scanned = scan(own, "subject-82-body")
    assert scanned.frames.num_rows == 0
    assert told(scanned)[-1] == (
        "missing", BODY_82, "no such picture: camera 0, 1, 2, 24, 104 at 2 of 2 instants (1, 17), 10 in all"
    )  # fmt: skip
    shutil.rmtree(own / BODY_82 / "00000001")
    shutil.rmtree(own / BODY_82 / "00000017")
    scanned = scan(own, "subject-82-body")
    assert ("missing", BODY_82, "no frame is here: no folder is named like 00000001") in told(scanned)


def test_scaled_copies_are_refused(own: Path, whole: Truth) -> None:
    small = draw(Lens(np.eye(3), np.eye(4), np.zeros(5), (960, 540)), [], instant=0, view=0).rgb
    for path in (own / BODY_82).rglob("image*.jpg"):
        write_jpeg(path, small)
    with pytest.raises(SourceError, match="the picture is of 960 x 540 px, its camera of 1920 x 1080 px"):
        scan(own, "subject-82-body")


def test_pictures_that_do_not_decode_do_not_stop_the_scan(own: Path) -> None:
    for path in sorted((own / BODY_82).rglob("image*.jpg"))[:4]:
        path.write_bytes(path.read_bytes()[:100])
    assert scan(own, "subject-82-body").frames.num_rows == 9


# --- the road ---


def road(domain: str, root: Path, out: Path) -> BuildRecipe:
    recipe = RECIPES["humbi" if domain == "body" else "humbi_hand"]()
    recipe = dataclasses.replace(recipe, parser=ParserRecipe(backend="none"), split=SplitRecipe())
    run_road(recipe, {recipe.sources[0].name: root}, out)
    return recipe


def silhouettes(out: Path, truth: Truth) -> list[float]:
    """Overlap of every stored silhouette with what the crop's camera sees of the figure, in cells."""
    overlaps = []
    for _, members in samples(out):
        meta = json.loads(members["json"])
        for role in ("target", "reference"):
            crop = meta[role]
            assert crop["silhouette_from"] == "vertices"
            key, pose = FrameKey.parse(crop["key"]), np.reshape(crop["camera_from_world"], (4, 4))
            lens = Lens(np.reshape(crop["intrinsics"], (3, 3)), pose @ HUMBI_FROM_FIXTURE, np.zeros(5), (256, 256))
            due = cells_of(draw(lens, [truth.figure(key)], instant=0, view=0).mask(0))
            seen = unpack_cells(members[f"{role}.sil"])
            overlaps.append(float((due & seen).sum() / (due | seen).sum()))
    return overlaps


def test_from_raw_bodies_to_audited_shards(whole: Truth, tmp_path: Path) -> None:
    road("body", whole.root, tmp_path / "out")
    # Subject 82: 10 + 6 pairs of views, 4 of poses; subject 7: 10 + 10, and 5.
    assert prove_pairs(tmp_path / "out", codes=whole.code) == Counter(cross_view=36, cross_pose=9)
    assert prove_crop_cameras(tmp_path / "out", whole.figure, world_from_fixture=HUMBI_FROM_FIXTURE) == 90
    overlaps = silhouettes(tmp_path / "out", whole)
    assert min(overlaps) > 0.75, sorted(overlaps)[:5]
    crops = tables.read("crops", tmp_path / "out" / "crops" / "humbi-subject-7-body.crops.parquet")
    assert Counter(crops.column("box_from").to_pylist()) == {"keypoints": 5, "dataset": 5}
    rejects = tables.read("rejects", tmp_path / "out" / "crops" / "humbi-subject-7-body.rejects.parquet").to_pylist()
    assert [(one["reason"], one["key"]) for one in rejects] == [
        ("hidden", "humbi/train/subject-7-body/00000017/cam030/subject-7")
    ]


def test_from_raw_hands_to_audited_shards(whole: Truth, tmp_path: Path) -> None:
    road("hand", whole.root, tmp_path / "out")
    # Left: 6 + 6 pairs of views, 4 of poses; right: 3 (one crop is empty) + 6, and 3.
    assert prove_pairs(tmp_path / "out", codes=whole.code) == Counter(cross_view=21, cross_pose=7)
    assert prove_crop_cameras(tmp_path / "out", whole.figure, world_from_fixture=HUMBI_FROM_FIXTURE) == 56
    overlaps = silhouettes(tmp_path / "out", whole)
    assert min(overlaps) > 0.6, sorted(overlaps)[:5]


def test_hands_and_body_of_a_subject_are_on_one_side_of_a_split(whole: Truth) -> None:
    groups = [{one.group for one in source_of(domain).recordings(whole.root)} for domain in ("body", "hand")]
    assert groups == [{"subject-7", "subject-82"}, {"subject-7"}]
    assert dataset("humbi").split == RECIPES["humbi_hand"]().split
