"""CPU time of the crop stage without parsing, against decoding, resizing and encoding the same frames with OpenCV.

Run it on a quiet machine: `python -m pytest tests/bench/bench_crop.py -o log_cli=true -o log_cli_level=INFO`.

The rows come with boxes, as a dataset's do, so nobody has to be found. The floor takes each frame once, on one thread, and
cuts the same squares out of it; beside that, the stage looks for frozen and black frames and cuts, and takes fingerprints.
"""

import logging
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from manifests import table as tables
from manifests.types import FrameKey, Split
from pipeline import media
from pipeline.crop import crop_recording
from pipeline.media import probe
from pipeline.recipes import CropRecipe
from pipeline.squares import square_within
from tests.support.figures import frame_row
from tests.support.samples import asset, sample

logger = logging.getLogger(__name__)

FRAMES, ROUNDS = 100, 5
CLIP = "demo/videos/sports2d.mp4"  # VP9, 1768 x 994
PHONE = "demo/cameras/single/cam01.mp4"  # H.264, 1080 x 1920
SMALL = "jeffffffli+HybrIK/examples/taiji.mp4"  # H.264, 1280 x 720
MOST = 1.45  # times the floor; 1.3 is the aim, and a busy machine adds to it


def boxes(number: int, width: int, height: int, index: int):
    """Upright boxes side by side, which move a little from frame to frame."""
    size = np.array([0.28, 0.7]) * min(width, height)
    for k in range(number):
        middle = np.array([(k + 0.5) / number * width, 0.5 * height]) + (index % 7)
        yield np.clip(np.concatenate([middle - size / 2, middle + size / 2]), 0, [width, height] * 2)


def rows_of(place: str, found: media.Media, *, people: int) -> list[dict]:
    rows = []
    for index in range(min(FRAMES, found.num_frames)):
        for number, box in enumerate(boxes(people, found.width, found.height, index)):
            track = f"p{number}"
            key = FrameKey(source="cameras", split=Split.TRAIN, sequence="rec", instant=index, view="cam", track=track)
            rows.append(
                frame_row(index, media=place, media_index=index, width=found.width, height=found.height)
                | {"key": str(key), "track": track, "box_xyxy_px": box.tolist(), "box_from": "dataset"}
            )
    return rows


def ours(root: Path, rows: list[dict]):
    frames = tables.from_rows("frames", rows)

    def run():
        crops, rejects = crop_recording(
            frames, root, recipe=CropRecipe(frozen_difference=0.0), parser=None, parser_threshold=0.4
        )
        assert crops.num_rows == len(rows), rejects[:3]

    return run


def floor(root: Path, rows: list[dict]):
    """One thread of OpenCV: decode, cut, resize by area, encode at the stage's quality."""
    recipe = CropRecipe()
    place = root / rows[0]["media"]
    by_frame: dict[int, list] = {}
    for row in rows:
        square = square_within(
            np.array(row["box_xyxy_px"]), margin=recipe.margin, width=row["width"], height=row["height"]
        )
        by_frame.setdefault(row["media_index"], []).append(square)

    def frames():
        if place.is_dir():
            yield from (cv2.imread(str(path)) for path in sorted(place.iterdir()))
            return
        video = cv2.VideoCapture(str(place), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        while True:
            there, image = video.read()
            if not there:
                return
            yield image

    def run():
        cv2.setNumThreads(1)
        made = 0
        for index, image in enumerate(frames()):
            if index not in by_frame:
                break
            for x0, y0, side in by_frame[index]:
                part = image[max(y0, 0) : y0 + side, max(x0, 0) : x0 + side]
                small = cv2.resize(part, (recipe.size_px, recipe.size_px), interpolation=cv2.INTER_AREA)
                encoded, _ = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, recipe.jpeg_quality])
                made += encoded
        assert made == len(rows)

    return run


def compare(title: str, root: Path, rows: list[dict]) -> float:
    """CPU time of ours over the floor's: median of interleaved rounds."""
    cases = {"floor": floor(root, rows), "ours": ours(root, rows)}
    cpu_ms: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(ROUNDS + 1):
        for name, run in cases.items():
            began = time.process_time()
            run()
            if turn:  # the first turn warms up
                cpu_ms[name].append((time.process_time() - began) * 1e3 / (rows[-1]["media_index"] + 1))
    ratio = statistics.median(a / b for a, b in zip(cpu_ms["ours"], cpu_ms["floor"], strict=True))
    logger.info(
        "%-44s floor %6.2f ms CPU a frame, crop stage %6.2f: %.2f x the floor",
        title, statistics.median(cpu_ms["floor"]), statistics.median(cpu_ms["ours"]), ratio,
    )  # fmt: skip
    return ratio


def folder_of_jpegs(clip: Path, folder: Path) -> Path:
    """The first frames of a clip as JPEGs, as large as they are."""
    folder.mkdir()
    video = cv2.VideoCapture(str(clip))
    for index in range(FRAMES):
        there, image = video.read()
        assert there
        cv2.imwrite(str(folder / f"{index:06d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return folder


@pytest.mark.timeout(900)
@pytest.mark.parametrize("people", [1, 4])
@pytest.mark.parametrize(
    ("find", "name"), [(asset, CLIP), (asset, PHONE), (sample, SMALL)], ids=["vp9", "phone", "h264"]
)
def test_videos(find, name, people):
    path = find(name)
    rows = rows_of(path.name, probe(path), people=people)
    assert compare(f"{path.name}, {people} a frame", path.parent, rows) <= MOST


@pytest.mark.timeout(900)
@pytest.mark.parametrize("people", [1, 4])
def test_folder_of_jpegs(tmp_path, people):
    folder = folder_of_jpegs(sample(SMALL), tmp_path / "cam")
    rows = rows_of("cam", probe(folder), people=people)
    assert compare(f"JPEGs of 1280 x 720, {people} a frame", tmp_path, rows) <= MOST


def test_every_frame_is_decoded_once_and_in_order(monkeypatch):
    path = asset(CLIP)
    shown, opened = [], []
    plain_shown, plain_decode = media._shown, media._decode

    def counted(container, stream, tracker, at):
        for frame in plain_shown(container, stream, tracker, at):
            shown.append(frame.pts)
            yield frame

    def opened_once(*told):
        opened.append(told[-1])
        return plain_decode(*told)

    rows = rows_of(path.name, probe(path), people=4)
    monkeypatch.setattr(media, "_shown", counted)
    monkeypatch.setattr(media, "_decode", opened_once)
    ours(path.parent, rows)()
    assert opened == [path]
    assert shown == sorted(set(shown)), "in order, none twice"
    assert FRAMES <= len(shown) <= FRAMES + 16, "and hardly more than were asked for"
