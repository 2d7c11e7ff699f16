"""Rigs: what is found, which frames belong together, what is left out and why."""

import shutil
from collections import Counter, defaultdict
from itertools import combinations

import cv2
import numpy as np
import pytest

from manifests import table as tables
from manifests.errors import SourceError
from manifests.geometry import camera_centre, meet, project, rays
from manifests.types import FrameKey, Reason, Split
from pipeline.media import read_frames, read_media
from pipeline.recipes import SourceRecipe
from pipeline.sources import build_source
from pipeline.sources.cameras import match_names
from tests.support import rigs
from tests.support.samples import asset, sample
from tests.support.videos import number_of, write_images, write_video


def source(**options):
    return build_source(SourceRecipe(kind="cameras", name="rig", **options))


def scan_all(root, **options):
    """Each recording's scan, by sequence; every scan fits the table of frames."""
    built = source(**options)
    scans = {r.sequence: built.scan(root, r, split=Split.TRAIN) for r in built.recordings(root)}
    for scan in scans.values():
        table = tables.from_rows("frames", scan.frames)
        assert len(set(table["key"].to_pylist())) == table.num_rows
    return scans


def by_view(scan):
    views = defaultdict(dict)
    for row in scan.frames:
        views[row["view"]][row["instant"]] = row
    return dict(views)


def cross_view_pairs(scan):
    counts = Counter(row["instant"] for row in scan.frames)
    return sum(n * (n - 1) // 2 for n in counts.values())


def reasons(scan):
    return Counter(reject.reason for reject in scan.rejects)


@pytest.fixture
def rig(tmp_path):
    """Two recordings of two cameras, 8 frames each."""
    for recording in ("walk", "run/videos"):
        for camera in ("cam01", "cam02"):
            write_video(tmp_path / recording / f"{camera}.mp4", range(8))
    return tmp_path


def test_frames_of_synchronous_videos_share_their_instant(rig):
    scans = scan_all(rig)
    assert list(scans) == ["run", "walk"]
    for scan in scans.values():
        assert {view: list(rows) for view, rows in by_view(scan).items()} == {
            "cam01": [*range(8)],
            "cam02": [*range(8)],
        }
        assert scan.rejects == []
        assert cross_view_pairs(scan) == 8
    row = by_view(scans["run"])["cam02"][3]
    assert row["key"] == "rig/train/run/00000003/cam02/all"
    assert (row["media"], row["media_index"], row["time_s"]) == ("run/videos/cam02.mp4", 3, pytest.approx(0.1))
    assert (row["width"], row["height"], row["group"], row["subject"]) == (96, 64, "run", None)
    assert "box_xyxy_px" not in row
    assert "intrinsics" not in row


def test_rows_name_the_frame_that_shows_their_instant(rig):
    scan = scan_all(rig)["walk"]
    pictures = read_media(rig, [(row["media"], row["media_index"]) for row in scan.frames])
    assert [number_of(picture.rgb) for picture in pictures] == [row["instant"] for row in scan.frames]


def test_every_nth_instant_keeps_its_clock(rig):
    rows = by_view(scan_all(rig, frame_step=3)["walk"])["cam01"]
    assert {instant: round(row["time_s"] * 30) for instant, row in rows.items()} == {0: 0, 3: 3, 6: 6}


def test_a_root_that_is_one_recording_is_found(rig):
    assert [r.sequence for r in source().recordings(rig / "walk")] == ["walk"]
    assert [r.sequence for r in source().recordings(rig / "run")] == ["videos"]
    assert len(scan_all(rig / "walk")["walk"].frames) == 16


def test_the_files_of_a_recording_are_listed_with_their_sizes(rig):
    rigs.write_caliscope(rig, rigs.true_rig(2))
    for recording in source().recordings(rig):
        assert [path for path, _ in recording.files] == sorted(path for path, _ in recording.files)
        assert {path.split("/")[-1] for path, _ in recording.files} == {"cam01.mp4", "cam02.mp4", "camera_array.toml"}
        assert all((rig / path).stat().st_size == size for path, size in recording.files)


def test_folders_of_images_are_cameras_and_their_numbers_are_instants(tmp_path):
    write_images(tmp_path / "walk/left", [3, 4, 6], name="img_{:05d}.png")
    write_images(tmp_path / "walk/right", [4, 5, 6], name="{:05d}_cam2.png")
    (tmp_path / "recordings.toml").write_text("[walk]\nfps = 10\n")
    scan = scan_all(tmp_path)["walk"]
    views = by_view(scan)
    assert {view: list(rows) for view, rows in views.items()} == {"left": [3, 4, 6], "right": [4, 5, 6]}
    assert views["left"][4]["media"] == "walk/left/img_00004.png"
    assert views["left"][4]["media_index"] == 0
    assert views["left"][6]["time_s"] == pytest.approx(0.3)
    assert [(r.key, r.reason) for r in scan.rejects] == [
        ("rig/train/walk/00000005/left/all", Reason.UNSYNCHRONISED),
        ("rig/train/walk/00000003/right/all", Reason.UNSYNCHRONISED),
    ]


def test_images_that_nothing_puts_together_are_refused(tmp_path):
    write_images(tmp_path / "walk/left", [3, 4], name="a{}_1.png")
    (tmp_path / "walk/left/a3_2.png").write_bytes((tmp_path / "walk/left/a3_1.png").read_bytes())
    write_images(tmp_path / "walk/right", [3, 4], name="a{}_1.png")
    built = source()
    with pytest.raises(SourceError, match=r"nothing says which images(.|\n)*left, right(.|\n)*timestamps\.csv"):
        built.scan(tmp_path, built.recordings(tmp_path)[0], split=Split.TRAIN)


def test_an_image_whose_header_does_not_parse_is_a_reject(tmp_path):
    for camera in ("a", "b"):
        write_images(tmp_path / "walk" / camera, [0, 1])
    (tmp_path / "walk/b/000001.png").write_bytes(b"nothing")
    scan = scan_all(tmp_path)["walk"]
    assert len(scan.frames) == 3
    assert [(r.key, r.reason) for r in scan.rejects] == [("rig/train/walk/00000001/b/all", Reason.UNREADABLE)]


def test_a_camera_that_stops_early_leaves_unsynchronised_instants(rig):
    write_video(rig / "walk/cam02.mp4", range(5))
    scan = scan_all(rig)["walk"]
    assert cross_view_pairs(scan) == 5
    assert reasons(scan) == {Reason.UNSYNCHRONISED: 3}
    assert {FrameKey.parse(r.key).instant for r in scan.rejects} == {5, 6, 7}


def test_an_unreadable_video_is_a_reject_and_the_other_cameras_go_on(rig):
    (rig / "walk/cam02.mp4").write_bytes(b"no video")
    scan = scan_all(rig)["walk"]
    assert set(by_view(scan)) == {"cam01"}
    assert [(r.stage, r.key, r.reason) for r in scan.rejects] == [("ingest", "walk/cam02.mp4", Reason.UNREADABLE)]
    assert "no video that can be read" in scan.rejects[0].detail


def test_a_recording_of_unreadable_videos_only_is_all_rejects(tmp_path):
    (tmp_path / "walk").mkdir()
    (tmp_path / "walk/cam1.mp4").write_bytes(b"")
    scan = scan_all(tmp_path)["walk"]
    assert scan.frames == []
    assert reasons(scan) == {Reason.UNREADABLE: 1}


def test_hands_are_taken_with_the_whole_frame(rig):
    (rig / "recordings.toml").write_text('[walk]\ndomain = "hand"\n')
    scans = scan_all(rig)
    assert scans["walk"].frames[0]["box_xyxy_px"] == [-0.5, -0.5, 95.5, 63.5]
    assert scans["walk"].frames[0]["box_from"] == "full_frame"
    assert {row["domain"] for row in scans["run"].frames} == {"body"}
    assert {row["domain"] for row in scan_all(rig, domain="hand")["run"].frames} == {"hand"}


def caliscope_stamps(rows):
    return "sync_index,cam_id,frame_index,frame_time\n" + "".join(f"{s},{c},{f},{t}\n" for s, c, f, t in rows)


def test_caliscope_timestamps_give_instants_and_times(rig):
    """One frame of each video for each of its lines, whatever number the camera gave the frame."""
    lines = [(s, c, s, 100 + s / 6 + c / 100) for s in range(26, 34) for c in (2, 1)]
    (rig / "walk/timestamps.csv").write_text(caliscope_stamps(lines))
    views = by_view(scan_all(rig)["walk"])
    assert list(views["cam01"]) == list(range(26, 34))
    assert [row["media_index"] for row in views["cam02"].values()] == list(range(8))
    assert views["cam01"][26]["time_s"] == 0
    assert views["cam02"][27]["time_s"] == pytest.approx(1 / 6 + 0.01)


def test_an_instant_that_a_camera_dropped_is_unsynchronised(rig):
    write_video(rig / "walk/cam02.mp4", [0, 1, 2, 4, 5, 6, 7])
    lines = [(s, c, s, s / 6) for s in range(8) for c in (1, 2) if (s, c) != (3, 2)]
    (rig / "walk/timestamps.csv").write_text(caliscope_stamps(lines))
    scan = scan_all(rig)["walk"]
    shown = read_media(rig, [(row["media"], row["media_index"]) for row in scan.frames])
    assert [number_of(picture.rgb) for picture in shown] == [row["instant"] for row in scan.frames]
    assert [(r.key, r.reason) for r in scan.rejects] == [("rig/train/walk/00000003/cam02/all", Reason.UNSYNCHRONISED)]


def test_a_video_that_its_timestamps_do_not_fit_is_left_out(rig):
    lines = [(s, c, s, s / 6) for s in range(8) for c in (1, 2) if c == 1 or s < 5]
    (rig / "walk/timestamps.csv").write_text(caliscope_stamps(lines))
    scan = scan_all(rig)["walk"]
    assert set(by_view(scan)) == {"cam01"}
    assert [(r.key, r.reason) for r in scan.rejects] == [("walk/cam02.mp4", Reason.UNSYNCHRONISED)]
    assert "lists 5 frames of it, and it holds 8" in scan.rejects[0].detail


def test_plain_timestamps_name_the_frame(rig):
    lines = [(k, "cam01", k) for k in range(8)] + [(k, "2", k + 2) for k in range(8)]
    text = "instant,camera,frame\n" + "".join(f"{i},{c},{f}\n" for i, c, f in lines)
    (rig / "walk/timestamps.csv").write_text(text)
    scan = scan_all(rig)["walk"]
    views = by_view(scan)
    assert {i: row["media_index"] for i, row in views["cam02"].items()} == {k: k + 2 for k in range(6)}
    assert views["cam02"][0]["time_s"] == pytest.approx(2 / 30)  # the video's own clock
    assert reasons(scan) == {Reason.UNSYNCHRONISED: 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", r"no column instant, frame|that names the camera"),
        ("", r"no column"),
        ("instant,camera,frame\n0,cam01,0\nx,cam01,1\n", r"instant is 'x', no whole number(.|\n)*csv, line 3"),
        ("instant,camera,frame\n0,cam01,0\n0,cam01,1\n", r"camera cam01 has instant 0 twice(.|\n)*line 3"),
        ("instant,camera,frame\n0,cam01\n", r"frame is None(.|\n)*line 2"),
        ("sync_index,port,frame_time\n0,1,soon\n", r"frame_time is 'soon'(.|\n)*line 2"),
    ],
)
def test_timestamps_that_do_not_parse_are_named(rig, text, message):
    (rig / "walk/timestamps.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        scan_all(rig)


def test_a_clock_that_runs_backwards_is_counted_and_not_used(rig):
    times = [0, 1, 2, 3, 2.5, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    for camera in ("cam01", "cam02"):
        write_video(rig / f"walk/{camera}.mp4", range(14))
    lines = [(s, c, s, t) for s, t in enumerate(times) for c in (1, 2)]
    (rig / "walk/timestamps.csv").write_text(caliscope_stamps(lines))
    scan = scan_all(rig)["walk"]
    assert len(scan.frames) == 28
    unclear = [row for row in scan.frames if row["time_s"] is None]
    assert [(row["view"], row["instant"], row["flags"]) for row in unclear] == [
        ("cam01", 4, ["clock"]),
        ("cam02", 4, ["clock"]),
    ]
    assert [(r.key, r.reason) for r in scan.rejects] == [(row["key"], Reason.CLOCK) for row in unclear]


def test_a_clock_that_stands_still_is_not_used_at_all(rig):
    (rig / "walk/timestamps.csv").write_text(caliscope_stamps([(s, c, s, 5.0) for s in range(8) for c in (1, 2)]))
    scan = scan_all(rig)["walk"]
    assert {row["time_s"] for row in scan.frames} == {None}
    assert all(row["flags"] == ["clock"] for row in scan.frames)
    assert [(r.key, r.reason) for r in scan.rejects] == [
        ("walk/cam01.mp4", Reason.CLOCK),
        ("walk/cam02.mp4", Reason.CLOCK),
    ]


def test_a_time_gap_of_one_camera_alone_makes_its_synchrony_doubtful(rig, caplog):
    """A container that lost packets holds no trace of them but its clock: frame 4 of camera 2 is of instant 6."""
    write_video(rig / "walk/cam02.mp4", [0, 1, 2, 3, 6, 7], pts=[0, 1, 2, 3, 6, 7])
    views = by_view(scan_all(rig)["walk"])
    assert [row["flags"] for row in views["cam02"].values()] == [[]] * 4 + [["unsynchronised"]] * 2
    assert all(row["flags"] == [] for row in views["cam01"].values())
    assert "walk: view cam02 has a time gap at frame 4" in caplog.text


def test_a_time_gap_that_all_cameras_share_is_no_doubt(rig):
    for camera in ("cam01", "cam02"):
        write_video(rig / f"walk/{camera}.mp4", range(5), pts=[0, 1, 2, 8, 9])
    assert all(row["flags"] == [] for row in scan_all(rig)["walk"].frames)


@pytest.mark.parametrize("place", ["walk", "walk/calibration", ".", "calib"])
def test_calibration_is_found_beside_above_and_in_its_folder(rig, place):
    (rig / place).mkdir(exist_ok=True)
    true = rigs.true_rig(2)
    rigs.write_pose2sim(rig / place, true)
    rows = by_view(scan_all(rig)["walk"])
    for camera in true:
        row = rows[camera.name][0]
        # The images are 96 x 64 and the calibration is for 640 x 480: another shape.
        assert row["flags"] == ["size_differs"]
        assert np.allclose(np.reshape(row["camera_from_world"], (4, 4)), camera.pose, atol=1e-6)
        assert np.allclose(np.reshape(row["intrinsics"], (3, 3)), camera.K)
        assert row["distortion"] == camera.distortion.tolist()


def test_the_nearest_calibration_counts_and_one_kind_of_it(rig):
    far, near = rigs.true_rig(2), rigs.true_rig(3)[:2]
    rigs.write_pose2sim(rig, far)
    rigs.write_pose2sim(rig / "walk", near)
    rigs.write_dat(rig / "walk", far)
    pose = by_view(scan_all(rig)["walk"])["cam02"][0]["camera_from_world"]
    assert np.allclose(np.reshape(pose, (4, 4)), near[1].pose, atol=1e-6)


def test_a_view_that_the_calibration_leaves_out_is_flagged(rig, caplog):
    rigs.write_pose2sim(rig, rigs.true_rig(1))
    rows = by_view(scan_all(rig)["walk"])
    assert rows["cam02"][0]["flags"] == ["uncalibrated"]
    assert "intrinsics" not in rows["cam02"][0]
    assert "intrinsics" in rows["cam01"][0]
    assert "no camera of cam01 is named like view cam02" in caplog.text


def test_metres_per_unit_scales_the_world(rig):
    true = rigs.true_rig(2)
    rigs.write_dat(rig / "walk", true)
    (rig / "recordings.toml").write_text("[walk]\nmetres_per_unit = 0.5\n")
    pose = np.reshape(by_view(scan_all(rig)["walk"])["cam01"][0]["camera_from_world"], (4, 4))
    assert np.allclose(pose[:3, 3], true[0].pose[:3, 3] / 2)


def test_a_calibration_that_does_not_parse_stops_the_scan_and_is_named(rig):
    (rig / "walk/Calib.toml").write_text("[cam01]\nmatrix = 3\n")
    with pytest.raises(SourceError, match=r"camera matrix(.|\n)*walk/Calib\.toml"):
        scan_all(rig)


def test_folders_of_calibration_pictures_are_no_recording(rig):
    write_images(rig / "walk/calibration/intrinsics/int_cam01_img", [0, 1])
    write_video(rig / "calibration/board.mp4", range(3))
    assert [r.sequence for r in source().recordings(rig)] == ["run", "walk"]


@pytest.mark.parametrize(
    ("names", "others", "expected"),
    [
        (["cam01", "cam02"], ["cam_1", "2"], {"cam01": "cam_1", "cam02": "2"}),
        (["Cam-A", "Cam-B"], ["cama", "camb"], {"Cam-A": "cama", "Cam-B": "camb"}),
        (["cam0_test", "cam1_test"], ["c0", "c1"], {"cam0_test": "c0", "cam1_test": "c1"}),
        (["cam1", "cam01"], ["1"], {}),
        (["take2_cam1"], ["cam2", "cam1"], {"take2_cam1": "cam1"}),
        (["left", "right"], ["1", "2"], {}),
        (["cam1", "cam10"], ["10", "1"], {"cam1": "1", "cam10": "10"}),
    ],
)
def test_names_of_cameras_are_matched_tolerantly(names, others, expected):
    assert match_names(names, others) == expected


def test_what_recordings_toml_says_is_followed(rig):
    (rig / "recordings.toml").write_text(
        '[walk]\ngroup = "anna"\nsubject = "anna"\nsplit = "val"\nfps = 60\n[run]\ngroup = "anna"\n'
    )
    recordings = {r.sequence: r for r in source().recordings(rig)}
    assert {(r.group, r.split) for r in recordings.values()} == {("anna", Split.VAL)}
    row = by_view(scan_all(rig)["walk"])["cam01"][6]
    assert (row["group"], row["subject"], row["time_s"]) == ("anna", "anna", pytest.approx(0.1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[walk]\ngruop = 1\n", r"unknown key `gruop`(.|\n)*\[walk\](.|\n)*did you mean `group`"),
        ("[wlak]\n", r"unknown recording `wlak`(.|\n)*did you mean `walk`"),
        ('[walk]\nsplit = "trian"\n', r"split = 'trian' is not understood(.|\n)*train, val or test"),
        ("[walk]\nfps = 0\n", r"fps must be above 0"),
        ("[walk\n", r"recordings\.toml does not parse"),
        ("walk = 3\n", r"`walk` is no table"),
        ('[walk]\nsplit = "val"\ngroup = "a"\n[run]\nsplit = "train"\ngroup = "a"\n', r"group a is in two splits"),
    ],
)
def test_recordings_toml_is_checked_strictly(rig, text, message):
    (rig / "recordings.toml").write_text(text)
    with pytest.raises(SourceError, match=message):
        source().recordings(rig)


def test_a_missing_and_an_empty_root_are_named(tmp_path):
    with pytest.raises(SourceError, match=r"root is no folder(.|\n)*gone"):
        source().recordings(tmp_path / "gone")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(SourceError, match=r"no recording is here(.|\n)*looked for <recording>/<camera>(.|\n)*\.mp4"):
        source().recordings(tmp_path)


def test_recordings_whose_names_clash_stay_apart(tmp_path):
    for name in ("a b", "a-b"):
        write_video(tmp_path / name / "cam.mp4", range(2))
    names = [r.sequence for r in source().recordings(tmp_path)]
    assert len(set(names)) == 2
    assert all(name.startswith("a-b-") for name in names)


# Real recordings.


def test_the_caliscope_session_gives_666_cross_view_pairs():
    scan = scan_all(sample("mprib+caliscope/tests/sessions/charuco_calibration"))["calibration-extrinsic"]
    views = by_view(scan)
    assert {view: len(rows) for view, rows in views.items()} == {f"cam_{k}": 111 for k in range(4)}
    assert cross_view_pairs(scan) == 666
    assert scan.rejects == []
    assert all(row["flags"] == [] and row["intrinsics"] for row in scan.frames)
    spread = [np.ptp([views[v][i]["time_s"] for v in views]) for i in views["cam_0"]]
    assert max(spread) < 0.06


def test_the_caliscope_board_is_where_its_cameras_say():
    """Corners of the charuco board, found in all views of an instant, meet in space, and its squares are 5.4 cm."""
    root = sample("mprib+caliscope/tests/sessions/charuco_calibration")
    scan = scan_all(root, frame_step=10)["calibration-extrinsic"]
    board = cv2.aruco.CharucoBoard(
        (4, 5), 0.054, 0.054 * 0.75, cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_1000)
    )
    detector = cv2.aruco.CharucoDetector(board)
    seen = defaultdict(list)
    for row, picture in zip(
        scan.frames, read_media(root, [(r["media"], r["media_index"]) for r in scan.frames]), strict=True
    ):
        corners, ids, _, _ = detector.detectBoard(255 - cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2GRAY))
        for corner, number in zip(corners if ids is not None else [], ids if ids is not None else [], strict=True):
            seen[row["instant"], int(number.item())].append((row, corner.reshape(2).astype(float)))
    errors_px, places = [], {}
    for place, views in seen.items():
        if len(views) > 1:
            places[place], missed_px = triangulate(views)
            errors_px += missed_px
    grid = board.getChessboardCorners()
    ratios = [
        np.linalg.norm(places[a] - places[b]) / np.linalg.norm(grid[a[1]] - grid[b[1]])
        for a, b in combinations(places, 2)
        if a[0] == b[0]
    ]
    assert len(errors_px) > 100
    assert np.median(errors_px) < 1
    assert np.median(ratios) == pytest.approx(1, abs=0.02)


def triangulate(views):
    """Where rays through (row, pixel) meet, and by how many pixels each misses."""
    cameras = [
        (np.reshape(r["intrinsics"], (3, 3)), np.reshape(r["camera_from_world"], (4, 4)), np.array(r["distortion"]))
        for r, _ in views
    ]
    directions = [rays(px, *camera) for (_, px), camera in zip(views, cameras, strict=True)]
    point, _ = meet(np.array([camera_centre(pose) for _, pose, _ in cameras]), np.array(directions))
    return point, [np.linalg.norm(project(point, *c)[0] - px) for (_, px), c in zip(views, cameras, strict=True)]


def test_the_hand_recording_is_found_and_calibrated():
    scan = scan_all(sample("TemugeB+handpose3d"), domain="hand")["media"]
    assert {view: len(rows) for view, rows in by_view(scan).items()} == {"cam0_test": 378, "cam1_test": 378}
    assert cross_view_pairs(scan) == 378
    assert all(row["intrinsics"] and row["box_from"] == "full_frame" for row in scan.frames)


def test_the_demo_rig_is_one_group_and_its_odd_sizes_are_flagged():
    roots = {"single": asset("demo/cameras"), "multi": asset("crowd")}
    for name, root in roots.items():
        assert [(r.sequence, r.group) for r in source().recordings(root)] == [(name, "pose2sim")]
    scans = {name: scan_all(root)[name] for name, root in roots.items()}
    assert all(len(scan.frames) == 400 and scan.rejects == [] for scan in scans.values())
    flags = {view: rows[0]["flags"] for view, rows in by_view(scans["single"]).items()}
    assert flags == {"cam01": ["size_differs"], "cam02": ["size_differs"], "cam03": [], "cam04": []}


@pytest.mark.slow
def test_the_moving_man_of_the_demo_is_one_man_in_space():
    """The middle of what moves in each view: rays meet near him, in front of all cameras, at the height of a trunk."""
    root = asset("demo/cameras")
    built = source(frame_step=3)
    recording = next(r for r in built.recordings(root) if r.sequence == "single")
    seen = defaultdict(list)
    for rows in by_view(built.scan(root, recording, split=Split.TRAIN)).values():
        media = next(iter(rows.values()))["media"]
        pictures = list(read_frames(root / media, wanted=set(rows)))
        small = [
            cv2.resize(p.rgb, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA).mean(axis=-1) for p in pictures
        ]
        moves = np.abs(np.array(small) - np.median(small, axis=0)) > 18
        for picture, mask in zip(pictures, moves, strict=True):
            blob = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15)))
            _, labels, stats, _ = cv2.connectedComponentsWithStats(blob)
            y, x = np.nonzero(mask & (labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])))
            seen[picture.index].append((rows[picture.index], np.array([np.median(x), np.median(y)]) * 4 + 1.5))
    points, missed_px = zip(*(triangulate(views) for views in seen.values()), strict=True)
    assert len(points) == 34
    # What moves differs from view to view, so the middle is off by some of his width, about 250 px; conventions that
    # turn the cameras otherwise miss by 700 px and more, or put him behind the cameras.
    assert np.median(missed_px) < 120
    assert 0.6 < np.median(points, axis=0)[2] < 1.4
    for row, _ in seen[0]:
        depths = project(np.array(points), np.eye(3), np.reshape(row["camera_from_world"], (4, 4)))[1]
        assert (depths > 2).all()


def test_a_copy_of_the_demo_elsewhere_gives_the_same_rows(tmp_path):
    root = asset("demo/cameras/single")
    shutil.copytree(root, tmp_path / "rec" / "single")
    here = scan_all(tmp_path / "rec")["single"].frames
    assert [row["intrinsics"] for row in here] == [row["intrinsics"] for row in scan_all(root)["single"].frames]
