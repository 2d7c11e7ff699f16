"""Crops of a recording, from files to rows, with a parser that knows people exactly."""

from functools import partial

import cv2
import numpy as np
import pytest
import simplejpeg

from manifests import table as tables
from manifests.geometry import box_overlap, crop_from_frame, project
from manifests.sample import cells_of, unpack_cells
from manifests.types import Reason, SilhouetteFrom, Split
from pipeline.crop import STAGE, crop_recording
from pipeline.media import read_frames
from pipeline.parse import build_parser
from pipeline.quality import Watch
from pipeline.recipes import CropRecipe, ParserRecipe, SourceRecipe
from pipeline.sight import Sought, see, see_all
from pipeline.silhouettes import from_mask
from pipeline.sources import build_source
from pipeline.sources.base import Labels
from pipeline.squares import Square, cut
from tests.support.crops import ring_camera
from tests.support.figures import (
    MAGENTA,
    ORANGE,
    SIZE,
    ColourParser,
    Figure,
    OneColourParser,
    draw,
    frame_row,
    rows_of_stills,
    write_clip,
    write_stills,
)
from tests.support.samples import asset, sample
from tests.support.videos import damage_packet

WALK = [Figure(100 + 3 * i, 120) for i in range(12)]


def crop(root, rows, *, parser=ColourParser, progress=None, **recipe):
    """Crops as dictionaries by key, and rejects as (frame or person, reason)."""
    crops, rejects = crop_recording(
        tables.from_rows("frames", rows),
        root,
        recipe=CropRecipe(**recipe),
        parser=parser() if parser else None,
        parser_threshold=0.4,
        progress=progress,
    )
    assert crops.schema.equals(tables.from_rows("crops", []).schema)
    assert {reject.stage for reject in rejects} <= {STAGE}
    found = crops.to_pylist()
    assert [c["key"] for c in found] == sorted(c["key"] for c in found)
    return {c["key"]: c for c in found}, rejects


def crop_images(root, images, *, name="cam", rows=None, **options):
    write_stills(root / name, images)
    return crop(root, rows or rows_of_stills(root / name, view=name), **options)


def short(rejects):
    """(instant, track, reason) of each reject."""
    return [(int(r.key.split("/")[3]), r.key.split("/")[-1], r.reason) for r in rejects]


def pixels(row):
    return simplejpeg.decode_jpeg(row["jpeg"], colorspace="RGB")


def test_a_walk_becomes_one_crop_a_frame(tmp_path):
    told = []
    crops, rejects = crop_images(
        tmp_path, [draw([figure]) for figure in WALK], progress=lambda done, total: told.append((done, total))
    )
    assert rejects == []
    assert list(crops) == [f"cameras/train/rec/{i:08d}/cam/p0" for i in range(12)]
    assert told == [(i + 1, 12) for i in range(12)]
    for i, row in enumerate(crops.values()):
        assert row["frame_key"] == f"cameras/train/rec/{i:08d}/cam/all"
        assert (row["instant"], row["time_s"], row["view"], row["track"]) == (i, pytest.approx(i / 30), "cam", "p0")
        assert (row["box_from"], row["parser"], row["silhouette_from"]) == ("parser", "colour-1", "parser")
        assert box_overlap(np.array(row["box_xyxy_px"]), WALK[i].box()) > 0.7
        assert row["segment"] == 0
        assert (row["difference"] is None) == (i == 0)


def test_the_crop_is_the_picture_inside_its_square(tmp_path):
    images = [draw([figure]) for figure in WALK]
    crops, _ = crop_images(tmp_path, images, jpeg_quality=100)
    for row, image in zip(crops.values(), images, strict=True):
        x0, y0, x1, y1 = row["square_xyxy_px"]
        square = Square(round(x0 + 0.5), round(y0 + 0.5), round(x1 - x0))
        assert square.xyxy_px().tolist() == row["square_xyxy_px"]
        assert y1 - y0 == x1 - x0
        stored = pixels(row)
        assert stored.shape == (256, 256, 3)
        wanted = cut(image, square, 256).astype(int)
        assert np.abs(stored - wanted).mean() < 4  # the colours of edges are stored at half the resolution
        assert row["mean"] == pytest.approx(stored.mean(axis=(0, 1)) @ [0.299, 0.587, 0.114], abs=1)


def test_silhouettes_lie_on_the_figure_in_the_stored_picture(tmp_path):
    crops, _ = crop_images(tmp_path, [draw([figure]) for figure in WALK])
    for row, figure in zip(crops.values(), WALK, strict=True):
        found = unpack_cells(row["silhouette"])
        to_crop = crop_from_frame(np.array(row["square_xyxy_px"]), 256)
        exact = cells_of(cv2.warpAffine(figure.mask().astype(np.float32), to_crop[:2], (256, 256)) > 0.5)
        assert (found & exact).sum() / (found | exact).sum() > 0.93
        stored = pixels(row).astype(int)
        red = cells_of(stored[..., 0] - stored[..., 1] > 60)
        assert (found & red).sum() / (found | red).sum() > 0.93
        assert row["coverage"] == pytest.approx(exact.mean(), abs=0.02)


def test_the_crops_camera_sees_a_point_where_the_crop_shows_it(tmp_path):
    """A white dot at a known point of the world, drawn through the frame's camera, found again in the crop."""
    K = np.array([[300.0, 0, 161.2], [0, 310.0, 118.7], [0, 0, 1]])
    pose = ring_camera(0.4)
    points = [np.array([0.05 * i - 0.2, 0.1, 0.03 * i]) for i in range(8)]
    images = []
    for point in points:
        (x, y), _ = project(point, K, pose)
        image = draw([Figure(x, y + 10)])
        yy, xx = np.mgrid[: SIZE[1], : SIZE[0]]
        dot = np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 8)[..., None]
        images.append((image * (1 - dot) + np.array([220, 255, 255]) * dot).astype(np.uint8))
    write_stills(tmp_path / "cam", images)
    camera = {"intrinsics": K.ravel().tolist(), "camera_from_world": pose.ravel().tolist()}
    crops, _ = crop(tmp_path, rows_of_stills(tmp_path / "cam", **camera))
    assert len(crops) == 8
    for row, point in zip(crops.values(), points, strict=True):
        assert row["camera_from_world"] == camera["camera_from_world"]
        wanted, _ = project(point, np.reshape(row["intrinsics"], (3, 3)), np.reshape(row["camera_from_world"], (4, 4)))
        blue = pixels(row)[..., 2].astype(float)
        near = np.hypot(*(np.mgrid[:256, :256] - wanted[::-1, None, None])) < 12
        weight = np.clip(blue - 100, 0, None) * near
        yy, xx = np.mgrid[:256, :256]
        found = np.array([(weight * xx).sum(), (weight * yy).sum()]) / weight.sum()
        assert np.abs(found - wanted).max() < 0.6


def test_the_same_bytes_every_time(tmp_path):
    images = [draw([figure, Figure(240, 130, colour=MAGENTA)]) for figure in WALK]
    first, rejects = crop_images(tmp_path, images)
    second, rejects_again = crop(tmp_path, rows_of_stills(tmp_path / "cam")[::-1])  # rows come in any order
    assert len(first) == 24
    assert first == second
    assert rejects == rejects_again


def test_bad_pictures_are_left_out_with_their_reason(tmp_path):
    images = [draw([figure]) for figure in WALK]
    images[3] = images[2]
    images[5] = np.zeros_like(images[5])
    write_stills(tmp_path / "cam", images)
    (tmp_path / "cam/0007.png").write_bytes(b"no picture")
    crops, rejects = crop(tmp_path, rows_of_stills(tmp_path / "cam"))
    assert short(rejects) == [(3, "all", Reason.FROZEN), (5, "all", Reason.BLACK), (7, "all", Reason.UNREADABLE)]
    assert "difference 0.000" in rejects[0].detail
    assert sorted(row["instant"] for row in crops.values()) == [0, 1, 2, 4, 6, 8, 9, 10, 11]
    assert {row["track"] for row in crops.values()} == {"p0"}, "the track goes on over bad pictures"


def test_a_damaged_packet_of_a_video_is_unreadable_and_shifts_nothing(tmp_path):
    images = [draw([figure]) for figure in WALK]
    write_clip(tmp_path / "cam.mp4", images, keep_every=1)
    damage_packet(tmp_path / "cam.mp4", 6)
    rows = [frame_row(i, media="cam.mp4", media_index=i) for i in range(12)]
    crops, rejects = crop(tmp_path, rows)
    assert short(rejects) == [(6, "all", Reason.UNREADABLE)]
    assert sorted(row["instant"] for row in crops.values()) == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    for row in crops.values():
        assert box_overlap(np.array(row["box_xyxy_px"]), WALK[row["instant"]].box()) > 0.7


def test_a_missing_camera_file_leaves_the_other_camera_alone(tmp_path):
    write_stills(tmp_path / "cam1", [draw([figure]) for figure in WALK])
    rows = [frame_row(i, view="cam0", media="gone.mp4", media_index=i) for i in range(12)]
    crops, rejects = crop(tmp_path, rows + rows_of_stills(tmp_path / "cam1", view="cam1"))
    assert short(rejects) == [(i, "all", Reason.UNREADABLE) for i in range(12)]
    assert {row["view"] for row in crops.values()} == {"cam1"}


def test_a_cut_parts_segments_and_tracks(tmp_path):
    """The figure stands where it stood, in another landscape."""
    images = [draw([figure], seed=0) for figure in WALK[:6]] + [draw([figure], seed=7) for figure in WALK[6:]]
    crops, rejects = crop_images(tmp_path, images, cut_difference=5, cut_correlation=0.95)
    assert short(rejects) == [(6, "all", Reason.CUT)]
    assert "correlation" in rejects[0].detail
    assert {row["instant"]: (row["track"], row["segment"]) for row in crops.values()} == {
        i: ("p0", 0) if i < 6 else ("p1", 1) for i in range(12)
    }


def test_missing_time_parts_segments_and_tracks(tmp_path):
    write_stills(tmp_path / "cam", [draw([figure]) for figure in WALK])
    instants = [*range(6), *range(9, 15)]
    crops, rejects = crop(tmp_path, rows_of_stills(tmp_path / "cam", instants=instants))
    assert short(rejects) == [(9, "all", Reason.TIME_GAP)]
    assert [(row["instant"], row["track"], row["segment"]) for row in crops.values()] == [
        (i, "p0", 0) if i < 9 else (i, "p1", 1) for i in instants
    ]


def test_nobody_there_is_empty(tmp_path):
    images = [draw([], seed=0) // 2 + i for i in range(4)]
    crops, rejects = crop_images(tmp_path, [image.astype(np.uint8) for image in images])
    assert crops == {}
    assert short(rejects) == [(i, "all", Reason.EMPTY) for i in range(4)]


def test_people_of_too_few_pixels_are_too_small(tmp_path):
    small = [Figure(260 - 2 * i, 130, 56, MAGENTA) for i in range(12)]
    crops, rejects = crop_images(tmp_path, [draw([one, other]) for one, other in zip(WALK, small, strict=True)])
    assert short(rejects) == [(i, "t1", Reason.TOO_SMALL) for i in range(12)]
    assert {r.detail for r in rejects} <= {"55 px", "56 px", "57 px"}
    assert [row["track"] for row in crops.values()] == ["p0"] * 12


def test_tracks_of_few_frames_are_not_trusted(tmp_path):
    passing = Figure(250, 125, colour=MAGENTA)
    images = [draw([figure, passing] if 0 <= i < 3 else [figure]) for i, figure in enumerate(WALK)]
    crops, rejects = crop_images(tmp_path, images)
    assert len(crops) == 12
    brief = [(instant, reason) for instant, _, reason in short(rejects)]
    assert brief == [(i, Reason.SHORT_TRACK) for i in range(3)]
    assert {r.detail for r in rejects} == {"followed for 3 frames"}


def test_slivers_at_the_edge_are_truncated(tmp_path):
    leaving = [Figure(250 + 5 * i, 120) for i in range(18)]
    crops, rejects = crop_images(tmp_path, [draw([figure]) for figure in leaving])
    cut_off = {instant for instant, _, reason in short(rejects) if reason is Reason.TRUNCATED}
    assert cut_off
    assert min(cut_off) > max(row["instant"] for row in crops.values())
    for i in cut_off:
        box = leaving[i].box()
        assert min(box[2:] - box[:2]) < 0.35 * max(box[2:] - box[:2])


def test_views_share_names_through_their_cameras(tmp_path):
    """Two people before three cameras; a third seen by one camera only."""
    K = np.array([[220.0, 0, 159.5], [0, 220.0, 119.5], [0, 0, 1]])
    rows = []
    for view, angle in (("a", 0.0), ("b", 0.9), ("c", -0.8)):
        pose = ring_camera(angle)
        images = []
        for i in range(8):
            people = [np.array([-0.9 + 0.03 * i, 0, 0.03 * i]), np.array([0.9 - 0.03 * i, 0, 0.03 * i - 0.3])]
            figures = []
            for point, colour in zip(people, (ORANGE, MAGENTA), strict=True):
                (x, y), depth = project(point, K, pose)
                figures.append(Figure(float(x), float(y), 1.7 * 220 / float(depth), colour))
            if view == "c":
                figures.append(Figure(295 - i, 50, 80))
            images.append(draw(figures, seed=ord(view)))
        write_stills(tmp_path / view, images)
        camera = {"intrinsics": K.ravel().tolist(), "camera_from_world": pose.ravel().tolist()}
        rows += rows_of_stills(tmp_path / view, view=view, subject="ann", **camera)
    crops, rejects = crop(tmp_path, rows)
    colours = {}
    for row in crops.values():
        middle = unpack_cells(row["silhouette"]).repeat(4, axis=0).repeat(4, axis=1)
        blue = float(pixels(row)[middle][:, 2].mean())
        colours.setdefault(row["track"], set()).add((row["view"], "magenta" if blue > 120 else "orange"))
        assert row["subject"] is None, "which of the two is ann is unknown"
    assert len(crops) == 48
    assert set(colours) == {"p0", "p1"}
    assert {frozenset(colour for _, colour in seen) for seen in colours.values()} == {
        frozenset({"magenta"}),
        frozenset({"orange"}),
    }
    assert all({view for view, _ in seen} == {"a", "b", "c"} for seen in colours.values())
    assert {(key.split("/")[4], reason) for key, reason in ((r.key, r.reason) for r in rejects)} == {
        ("c", Reason.BYSTANDER)
    }
    assert len(rejects) == 8


def test_two_equals_without_calibration_are_ambiguous(tmp_path):
    both = [draw([figure, Figure(240, 130, colour=MAGENTA)]) for figure in WALK]
    write_stills(tmp_path / "one", [draw([figure]) for figure in WALK])
    write_stills(tmp_path / "two", both)
    rows = [row for view in ("one", "two") for row in rows_of_stills(tmp_path / view, view=view, subject="ann")]
    crops, rejects = crop(tmp_path, rows)
    assert {(row["view"], row["track"], row["subject"]) for row in crops.values()} == {("one", "p0", "ann")}
    assert {(r.key.split("/")[4], r.reason) for r in rejects} == {("two", Reason.AMBIGUOUS)}
    assert len(rejects) == 24


def test_frames_with_a_box_are_cut_there_and_keep_their_name(tmp_path):
    figure = Figure(150, 120)
    write_stills(tmp_path / "cam", [draw([figure]), draw([Figure(153, 120)])])
    boxed = {"box_xyxy_px": figure.box().tolist(), "box_from": "dataset", "track": "kid", "subject": "s1"}
    points = [150.0, 120, 1, 140, 100, 0.5]
    rows = rows_of_stills(tmp_path / "cam", **boxed, keypoints_set="two", keypoints_px=points, distortion=[0.1, 0])
    crops, rejects = crop(tmp_path, rows)
    assert rejects == []
    assert [key.rsplit("/")[-1] for key in crops] == ["kid", "kid"]
    row = next(iter(crops.values()))
    assert (row["box_from"], row["box_xyxy_px"], row["subject"]) == ("dataset", figure.box().tolist(), "s1")
    assert (row["silhouette_from"], row["flags"]) == ("parser", ["distorted"])
    to_crop = crop_from_frame(np.array(row["square_xyxy_px"]), 256)
    wanted = [*(to_crop @ [150, 120, 1])[:2], 1, *(to_crop @ [140, 100, 1])[:2], 0.5]
    assert row["keypoints_px"] == pytest.approx(wanted, rel=1e-6)


def test_label_files_give_box_silhouette_and_rejects(tmp_path):
    figure = Figure(150, 120)
    write_stills(tmp_path / "cam", [draw([figure]), draw([Figure(153, 120)]), draw([Figure(156, 120)])])
    rows = rows_of_stills(tmp_path / "cam", track="kid")

    def labels(row):
        if row["instant"] == 1:
            return Labels(reject=(Reason.HIDDEN, "labels say so"))
        drawn = partial(from_mask, figure.mask())
        return Labels(box_xyxy_px=figure.box(), silhouette=drawn, silhouette_from=SilhouetteFrom.VERTICES)

    frames = tables.from_rows("frames", rows)
    crops, rejects = crop_recording(
        frames, tmp_path, recipe=CropRecipe(), parser=ColourParser(), parser_threshold=0.4, labels=labels
    )
    assert [(r.key.split("/")[3], r.reason, r.detail) for r in rejects] == [
        ("00000001", Reason.HIDDEN, "labels say so")
    ]
    first, last = crops.to_pylist()
    assert first["box_xyxy_px"] == last["box_xyxy_px"]
    assert (first["box_xyxy_px"], first["box_from"]) == (figure.box().tolist(), "dataset")
    assert (first["silhouette_from"], first["parser"]) == ("vertices", None)
    true = from_mask(figure.mask(), crop_from_frame(np.array(first["square_xyxy_px"]), 256), 256)
    assert first["coverage"] == pytest.approx(true.mean())


def two_people(tmp_path):
    """One person with a box, keypoints and a neighbour of the same colours close by."""
    mine, other = Figure(120, 120), Figure(178, 120)
    write_stills(tmp_path / "cam", [draw([mine, other])])
    points = np.zeros((17, 3))
    x, y, tall = mine.x, mine.y, mine.tall
    for joint, (dx, dy) in {
        0: (0, -0.36),
        5: (0.1, -0.2),
        6: (-0.1, -0.2),
        11: (0.07, 0.1),
        12: (-0.07, 0.1),
        15: (0.08, 0.45),
        16: (-0.08, 0.45),
    }.items():
        points[joint] = x + dx * tall, y + dy * tall, 1
    box = {"box_xyxy_px": mine.box().tolist(), "box_from": "dataset", "track": "kid"}
    (row,) = rows_of_stills(tmp_path / "cam", keypoints_set="coco17", keypoints_px=points.ravel().tolist(), **box)
    return mine, other, row


@pytest.mark.parametrize("keypoints", [False, True])
def test_the_parser_s_silhouette_is_of_this_person_only(tmp_path, keypoints):
    mine, other, row = two_people(tmp_path)
    if not keypoints:
        row |= {"keypoints_px": None, "keypoints_set": None}
    (found,) = crop(tmp_path, [row])[0].values()
    to_crop = crop_from_frame(np.array(found["square_xyxy_px"]), 256)
    cells = unpack_cells(found["silhouette"])
    own, neighbour = (cells_of(from_mask(f.mask(), to_crop, 256)) for f in (mine, other))
    assert found["silhouette_from"] == "parser"
    assert (cells & own).sum() > (0.6 if keypoints else 0.9) * own.sum()  # the figure is stouter than its limbs
    assert (cells & neighbour & ~own).sum() < 0.1 * max(1, neighbour.sum())


def test_who_draws_follows_the_order_of_the_recipe(tmp_path):
    _, _, row = two_people(tmp_path)

    def drawn_by(*order, parser=ColourParser, **changes):
        (found,) = crop(tmp_path, [row | changes], parser=parser, silhouettes=order)[0].values()
        return found["silhouette_from"], found["parser"]

    assert drawn_by("labels", "parser", "keypoints") == ("parser", "colour-1")
    assert drawn_by("labels", "keypoints", "parser") == ("keypoints", None)
    assert drawn_by("labels", "parser", "keypoints", parser=None) == ("keypoints", None)
    assert drawn_by("labels", "parser", keypoints_px=None, parser=None) == ("none", None)
    assert drawn_by() == ("none", None)


def test_a_picture_of_another_size_than_told_is_left_out(tmp_path):
    write_stills(tmp_path / "cam", [draw([Figure(150, 120)])])
    (row,) = rows_of_stills(tmp_path / "cam")
    crops, rejects = crop(tmp_path, [row | {"width": 640}])
    assert crops == {}
    assert [(r.reason, r.detail) for r in rejects] == [(Reason.SIZE, "320 x 240 px, where 640 x 240 is due")]


def test_whom_the_dataset_names_stays_who_he_is_across_cuts_and_gaps(tmp_path):
    images = [draw([Figure(150, 120)]), draw([Figure(152, 120)]), 255 - draw([Figure(154, 120)])]
    write_stills(tmp_path / "cam", images)
    rows = rows_of_stills(tmp_path / "cam", track="kid", box_xyxy_px=[80.0, 40, 230, 200], box_from="dataset")
    rows[2] |= {"instant": 90, "time_s": 3.0, "key": rows[2]["key"].replace("00000002", "00000090")}
    crops, rejects = crop(tmp_path, rows, parser=None)
    assert rejects == []
    assert {row["segment"] for row in crops.values()} == {0}
    assert len(crops) == 3


@pytest.mark.parametrize("parser", [None, ColourParser])
def test_hands_take_the_full_frame_and_no_silhouette(tmp_path, parser):
    images = [draw([figure]) for figure in WALK[:3]]
    write_stills(tmp_path / "cam", images)
    rows = rows_of_stills(tmp_path / "cam", domain="hand", side="left")
    crops, rejects = crop(tmp_path, rows, parser=parser)
    assert rejects == []
    assert len(crops) == 3
    for row in crops.values():
        assert (row["track"], row["box_from"], row["side"], row["domain"]) == ("p0", "full_frame", "left", "hand")
        assert row["box_xyxy_px"] == [-0.5, -0.5, 319.5, 239.5]
        assert (row["silhouette_from"], row["parser"], row["coverage"]) == ("none", None, 0.0)
        assert not any(row["silhouette"])


def test_without_parser_each_whole_frame_is_taken(tmp_path):
    crops, rejects = crop_images(tmp_path, [draw([figure]) for figure in WALK[:3]], parser=None)
    assert rejects == []
    assert {(row["box_from"], row["silhouette_from"]) for row in crops.values()} == {("full_frame", "none")}
    assert len(crops) == 3


def test_a_box_of_too_few_pixels_is_too_small(tmp_path):
    write_stills(tmp_path / "cam", [draw([])])
    rows = rows_of_stills(tmp_path / "cam", box_xyxy_px=[10.0, 10, 40, 60], box_from="dataset", track="kid")
    crops, rejects = crop(tmp_path, rows)
    assert crops == {}
    assert short(rejects) == [(0, "kid", Reason.TOO_SMALL)]
    assert rejects[0].detail == "50 px"


def frozen_frames(path):
    watch = Watch(CropRecipe())
    pictures = [picture.rgb for picture in read_frames(path)]
    return len(pictures), sum(watch.look(rgb).reason is Reason.FROZEN for rgb in pictures if rgb is not None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clip", "frames", "frozen"),
    # Frames after the first whose mean luma difference to the one before is below 0.0625; regenerate: `frozen_frames`.
    [("jeffffffli+HybrIK", 412, 6), ("tensorflow+tfjs-models", 120, 16)],
)
def test_frozen_frames_of_real_clips(clip, frames, frozen):
    names = {"jeffffffli+HybrIK": "taiji.mp4", "tensorflow+tfjs-models": "pose_1.mp4"}
    found = sorted(sample(clip).rglob(names[clip]))
    assert found, "the sample folder lacks its clip"
    assert frozen_frames(found[0]) == (frames, frozen)


def test_two_boxes_of_one_picture_are_two_people(tmp_path):
    """A source that knows people names each picture once a person; the picture is decoded and judged once."""
    scenes = [[Figure(80 + 3 * i, 120), Figure(240 - 3 * i, 120, colour=MAGENTA)] for i in range(4)]
    path = write_clip(tmp_path / "clip.mp4", [draw(figures) for figures in scenes])
    rows = [
        frame_row(i, media=path.name, media_index=i, track=f"p{k}", box_xyxy_px=f.box().tolist(), box_from="dataset")
        for i, figures in enumerate(scenes)
        for k, f in enumerate(figures)
    ]
    crops, rejects = crop(tmp_path, rows)
    assert rejects == []
    assert len(crops) == 8
    for i, figures in enumerate(scenes):
        for k, figure in enumerate(figures):
            row = crops[f"cameras/train/rec/{i:08d}/cam/p{k}"]
            assert row["box_xyxy_px"] == figure.box().tolist()
            assert row["silhouette_from"] == "parser"
        one, other = (crops[f"cameras/train/rec/{i:08d}/cam/p{k}"] for k in (0, 1))
        assert one["difference"] == other["difference"]


# pose2sim's recording of two people in touch: boxes read off the pictures, by (instant, view).
# At instant 48 the fourth camera has lost the man, whose leg is before the coach.
COACH = {
    (0, "cam01"): (484, 789, 1000, 1738), (0, "cam02"): (24, 635, 357, 1477),
    (0, "cam03"): (161, 496, 348, 1037), (0, "cam04"): (632, 394, 954, 946),
    (48, "cam02"): (21, 663, 423, 1463), (48, "cam03"): (151, 533, 425, 1087), (48, "cam04"): (603, 406, 1029, 970),
}  # fmt: skip
MAN = {
    (0, "cam01"): (238, 324, 574, 1164), (0, "cam02"): (409, 405, 740, 1145),
    (0, "cam03"): (477, 424, 812, 1329), (0, "cam04"): (130, 500, 600, 1424),
    (48, "cam02"): (135, 360, 742, 1101), (48, "cam03"): (302, 420, 706, 1244),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_people_in_touch_are_two_in_all_views_of_a_real_recording():
    root = asset("crowd")
    source = build_source(SourceRecipe(kind="cameras", name="crowd"))
    (recording,) = source.recordings(root)
    rows = source.scan(root, recording, split=Split.TRAIN).frames
    rows = [row for row in rows if row["instant"] % 4 == 0 and row["instant"] <= 48]
    parser = build_parser(ParserRecipe(), asset("parser").parent)
    crops, rejects = crop_recording(
        tables.from_rows("frames", rows), root, recipe=CropRecipe(), parser=parser, parser_threshold=0.4
    )
    boxes = {(row["track"], row["instant"], row["view"]): row["box_xyxy_px"] for row in crops.to_pylist()}
    assert {track for track, *_ in boxes} == {"p0", "p1"}
    fits = {}
    for name, truth in (("coach", COACH), ("man", MAN)):
        for track in ("p0", "p1"):
            found = [
                box_overlap(np.array(boxes.get((track, *at), [0.0] * 4)), np.array(box)) for at, box in truth.items()
            ]
            fits[name, track] = np.array(found)
    coach = max(("p0", "p1"), key=lambda track: fits["coach", track].mean())
    man = {"p0": "p1", "p1": "p0"}[coach]
    assert fits["coach", coach].min() > 0.5
    assert fits["man", man].min() > 0.5
    # Of two times 52 chances to see somebody few are missed, and whoever else is there is nobody's partner.
    assert len(boxes) >= 95
    assert {r.reason for r in rejects} <= {Reason.BYSTANDER, Reason.EMPTY, Reason.SHORT_TRACK}


@pytest.mark.parametrize("kind", [ColourParser, OneColourParser])
def test_people_of_boxes_are_parsed_in_batches_and_as_if_alone(tmp_path, kind):
    images = [draw([Figure(100 + 5 * k, 120), Figure(230, 118, colour=MAGENTA)]) for k in range(10)]
    write_stills(tmp_path / "cam", images)
    rows = []
    for row, k in zip(rows_of_stills(tmp_path / "cam"), range(10), strict=True):
        for name, figure in (("kid", Figure(100 + 5 * k, 120)), ("mum", Figure(230, 118))):
            box = {"box_xyxy_px": figure.box().tolist(), "box_from": "dataset", "track": name}
            rows.append(row | box | {"key": row["key"].replace("/all", f"/{name}")})
    sizes = []

    class Counting(kind):
        def parse(self, crops):
            sizes.append(len(crops))
            return super().parse(crops)

    class CountingOne(Counting):
        def parse_one(self, crops):
            sizes.append(len(crops))
            return [self._one(crop) for crop in crops]

    together, _ = crop(tmp_path, rows, parser=CountingOne if kind is OneColourParser else Counting)
    assert max(sizes) >= 16
    for row in rows:
        (alone,) = crop(tmp_path, [row], parser=kind)[0].values()
        assert together[alone["key"]] | {"difference": None} == alone | {"difference": None}


def test_a_box_is_seen_as_the_follower_sees_it():
    images = [draw([Figure(100 + 5 * k, 120)]) for k in range(3)]
    sought = [Sought(image, Figure(100 + 5 * k, 120).box()) for k, image in enumerate(images)]
    for parser in (ColourParser(), OneColourParser()):
        for who, one in zip(sought, see_all(parser, sought, threshold=0.4), strict=True):
            alone = see(parser, who.image, who.box_xyxy_px, threshold=0.4)
            assert (one.person == alone.person).all()
            assert (one.box_xyxy_px == alone.box_xyxy_px).all()
