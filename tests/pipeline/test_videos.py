"""Folders of clips: each video and each folder of images is a recording of one view."""

from itertools import pairwise

import pytest

from manifests import table as tables
from manifests.errors import RecipeError, SourceError
from manifests.types import Reason, Split
from pipeline.recipes import SourceRecipe
from pipeline.sources import build_source
from tests.support.samples import asset, sample
from tests.support.videos import write_images, write_video


def scan_all(root, **options):
    built = build_source(SourceRecipe(kind="videos", name="clips", **options))
    scans = {r.sequence: built.scan(root, r, split=Split.VAL) for r in built.recordings(root)}
    for scan in scans.values():
        tables.from_rows("frames", scan.frames)
    return scans


def test_every_clip_and_image_folder_is_a_recording(tmp_path):
    write_video(tmp_path / "Dance 1.mp4", range(4))
    write_video(tmp_path / "day2/Dance 1.avi", range(3), codec="mpeg4")
    write_images(tmp_path / "day2/stills", [7, 10])
    scans = scan_all(tmp_path)
    assert {name: len(scan.frames) for name, scan in scans.items()} == {
        "dance-1": 4,
        "day2-dance-1": 3,
        "day2-stills": 2,
    }
    row = scans["day2-dance-1"].frames[2]
    assert row["key"] == "clips/val/day2-dance-1/00000002/cam/all"
    assert (row["media"], row["media_index"], row["group"]) == ("day2/Dance 1.avi", 2, "day2-dance-1")
    stills = scans["day2-stills"].frames
    assert [(r["media"], r["media_index"], r["time_s"]) for r in stills] == [
        ("day2/stills/000007.png", 0, None),
        ("day2/stills/000010.png", 0, None),
    ]


def test_clips_whose_names_clash_stay_apart(tmp_path):
    write_video(tmp_path / "a.mp4", range(2))
    write_video(tmp_path / "a.mkv", range(3))
    write_video(tmp_path / "A/b.mp4", range(4))
    write_video(tmp_path / "a-b.mp4", range(5))
    scans = scan_all(tmp_path)
    assert sorted(len(scan.frames) for scan in scans.values()) == [2, 3, 4, 5]
    assert scan_all(tmp_path).keys() == scans.keys()


def test_images_of_several_sizes_keep_their_own(tmp_path):
    write_images(tmp_path / "stills", [1], size=(96, 64))
    write_images(tmp_path / "stills", [2], size=(64, 96))
    rows = scan_all(tmp_path)["stills"].frames
    assert [(r["width"], r["height"]) for r in rows] == [(96, 64), (64, 96)]


def test_an_unreadable_clip_is_a_reject(tmp_path):
    write_video(tmp_path / "good.mp4", range(2))
    (tmp_path / "bad.mp4").write_bytes(b"\0" * 1000)
    scans = scan_all(tmp_path)
    assert len(scans["good"].frames) == 2
    assert [(r.key, r.reason) for r in scans["bad"].rejects] == [("bad.mp4", Reason.UNREADABLE)]
    assert scans["bad"].frames == []


def test_every_nth_frame(tmp_path):
    write_video(tmp_path / "a.mp4", range(8))
    rows = scan_all(tmp_path, frame_step=3)["a"].frames
    assert [(r["instant"], r["media_index"], round(r["time_s"] * 30)) for r in rows] == [
        (0, 0, 0),
        (3, 3, 3),
        (6, 6, 6),
    ]


def test_a_clock_with_a_gap_is_kept_as_it_is(tmp_path):
    write_video(tmp_path / "a.mp4", range(5), pts=[0, 1, 2, 20, 21])
    scan = scan_all(tmp_path)["a"]
    assert [round(row["time_s"] * 30) for row in scan.frames] == [0, 1, 2, 20, 21]
    assert scan.rejects == []


def test_recordings_toml_is_followed_and_checked(tmp_path):
    write_video(tmp_path / "a.mp4", range(2))
    listing = tmp_path / "recordings.toml"
    listing.write_text('[a]\ngroup = "bo"\nsubject = "bo"\ndomain = "hand"\n')
    row = scan_all(tmp_path)["a"].frames[0]
    assert (row["group"], row["subject"], row["domain"], row["box_from"]) == ("bo", "bo", "hand", "full_frame")
    listing.write_text("[b]\n")
    with pytest.raises(SourceError, match=r"unknown recording `b`"):
        scan_all(tmp_path)


def test_a_missing_and_an_empty_root_are_named(tmp_path):
    with pytest.raises(SourceError, match="root is no folder"):
        scan_all(tmp_path / "gone")
    with pytest.raises(SourceError, match=r"no clip is here(.|\n)*\.webm"):
        scan_all(tmp_path)


def test_a_link_that_leads_round_in_circles_ends(tmp_path):
    write_video(tmp_path / "day/a.mp4", range(2))
    (tmp_path / "day/again").symlink_to(tmp_path, target_is_directory=True)
    assert list(scan_all(tmp_path)) == ["day-a"]


def test_a_kind_of_source_that_is_not_known_is_named():
    with pytest.raises(RecipeError, match=r"unknown kind of source `camera`(.|\n)*did you mean `cameras`"):
        build_source(SourceRecipe(kind="camera", name="x"))


@pytest.mark.parametrize(
    ("name", "sequence", "num_frames"),
    [
        ("jeffffffli+HybrIK", "examples-taiji", 412),
        ("TemugeB+bodypose3d", "media-cam0_test", 187),
        ("open-mmlab+mmaction2", "tests-data-test", 164),
        ("open-mmlab+mmaction2", "demo-demo_skeleton", 72),
    ],
)
def test_real_clips(name, sequence, num_frames):
    scan = scan_all(sample(name))[sequence]
    times = [row["time_s"] for row in scan.frames]
    assert len(times) == num_frames
    assert all(before < after for before, after in pairwise(times))
    assert scan.rejects == []


def test_the_demo_clip():
    assert len(scan_all(asset("demo/videos"))["sports2d"].frames) == 230
