"""PoseTrack in miniature: a sequence to learn from, one of val, and what is wrong with the real one.

Drawn by `tests.support.honest`: the code's instant is the frame, its view the sequence. Track 0 is person 1 at the left edge,
track 1 is person 4, and track 2 person 2 in the background, who has boxes but no keypoints.
"""

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import honest

SIZE = (960, 540)
LENS = honest.ring(1, size=SIZE)[0]
TRAIN, VAL = "000001_bonn_train", "000342_mpii_test"
PEOPLE = {0: 1, 1: 4, 2: 2}  # track to person
PERSON_IDS = {TRAIN: {0: 1024, 1: 7, 2: 8}, VAL: {0: 1024, 1: 9, 2: 10}}  # 1024 is in both splits
LABELLED = {TRAIN: (2, 3, 4, 5, 6, 7), VAL: (0, 2, 3)}
NUM_FRAMES = {TRAIN: 8, VAL: 4}
NAMES = (
    "nose", "head_bottom", "head_top", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
FOLDERS = {"21": "posetrack_data", "18": "posetrack_data/annotations", "moved": "annotations", "merged": "annotations"}


@dataclass
class Truth:
    """What was drawn: (4,) box, clipped to the picture, and (17, 3) keypoints by (sequence, frame, track)."""

    boxes: dict[tuple[str, int, int], np.ndarray] = field(default_factory=dict)
    keypoints: dict[tuple[str, int, int], np.ndarray] = field(default_factory=dict)


def write_posetrack(root: Path, form: str = "18") -> Truth:
    """Write both sequences in one of the forms of `FOLDERS`."""
    truth = Truth()
    (root / "FIXTURE").parent.mkdir(parents=True, exist_ok=True)
    (root / "FIXTURE").write_text("synthetic\n")
    for number, (sequence, split) in enumerate(((TRAIN, "train"), (VAL, "val"))):
        labels = _sequence(root, sequence, split, number, truth, form)
        if form == "merged":
            path = root / f"annotations/posetrack18_{split}.json"
        else:
            path = root / FOLDERS[form] / split / f"{sequence}.json"
        write_labels(path, labels)
    # Test sequences have images, and label files that list them.
    honest.write_jpeg(root / "images/test/000002_mpiinew_test/000000.jpg", honest.draw(LENS, [], instant=0, view=2).rgb)
    if form in ("18", "moved"):
        write_labels(root / FOLDERS[form] / "test/000002_mpiinew_test.json", {"images": [], "annotations": []})
    return truth


def write_labels(path: Path, labels: Any) -> None:
    """Write a label file; parents are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(labels))


def _sequence(root: Path, sequence: str, split: str, view: int, truth: Truth, form: str) -> dict[str, Any]:
    images, people = [], []
    for frame in range(NUM_FRAMES[sequence]):
        name = f"images/{split}/{sequence}/{frame:06d}.jpg"
        figures, drawn = _drawn(frame, view)
        if (sequence, frame) != (TRAIN, 7):  # a labelled image that is lost
            honest.write_jpeg(root / name, drawn.rgb)
        number = (1 if "mpii" in sequence else 2) * 10**10 + int(sequence[:6]) * 10**4 + frame
        images.append(_image(name, number, sequence, form, labelled=frame in LABELLED[sequence]))
        if frame not in LABELLED[sequence] or (sequence, frame) == (TRAIN, 6):  # a labelled picture of nobody
            continue
        for track in (0, 1) if sequence == VAL or frame not in (3, 4) else (0, 1, 2):
            box = drawn.box(track)
            if track == 0:
                box[0] = -30.0  # beyond the image's edge
            points = np.zeros((17, 3))
            if track < 2:
                points = _keypoints(figures[track])
            key = (sequence, frame, track)
            truth.boxes[key], truth.keypoints[key] = np.maximum(box, -0.5), points
            xywh = [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]
            people.append(_label(number, track, xywh, points, PERSON_IDS[sequence][track], form))
        if sequence == TRAIN:
            people += _faults(frame, number, people, form)
    return {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person", "keypoints": NAMES}]}


@lru_cache
def _drawn(frame: int, view: int) -> tuple[list[honest.Figure], honest.Drawn]:
    right, ahead = LENS.rotation[0][:2], LENS.rotation[2][:2]
    places = (-1.6 * right, 1.2 * right, 1.4 * ahead)
    figures = [honest.body(PEOPLE[track], frame, at=place) for track, place in enumerate(places)]
    return figures, honest.draw(LENS, figures, instant=frame, view=view)


def _faults(frame: int, number: int, people: list[dict[str, Any]], form: str) -> list[dict[str, Any]]:
    """What is wrong with a frame of the train sequence: further labels; one of those there may be changed."""
    some = np.ones((17, 3))
    if frame == 2:
        return [_label(number, 6, [-90.5, 20.0, 60.0, 80.0], some, 60, form)]  # outside the picture
    if frame == 3:
        return [_label(number, 5, [100.0, 100.0, 0.0, 0.0], np.zeros((17, 3)), 50, form)]
    if frame == 4:
        return [_label(number, 0, [400.0, 100.0, 90.0, 200.0], some, 1024, form)]  # track 0 once more
    if frame == 5:
        del people[-1]["bbox"]
    return []


def _image(name: str, number: int, sequence: str, form: str, *, labelled: bool) -> dict[str, Any]:
    image = {
        "has_no_densepose": True, "is_labeled": labelled, "file_name": name, "nframes": NUM_FRAMES[sequence],
        "frame_id": number, "vid_id": sequence[:6], "id": number,
        "ignore_regions_x": [[0, 40, 40]], "ignore_regions_y": [[0, 0, 60]],
    }  # fmt: skip
    if form in ("moved", "merged"):
        image |= {"width": SIZE[0], "height": SIZE[1], "mask_file": name.replace("images", "mask")}
    return image | ({"has_labeled_person": labelled} if form == "21" else {})


def _label(image: int, track: int, box: list[float], points: np.ndarray, person: int, form: str) -> dict[str, Any]:
    label = {
        "bbox_head": [1, 2, 3, 4], "keypoints": points.ravel().tolist(), "track_id": track, "image_id": image,
        "bbox": box, "scores": [], "category_id": 1, "id": image * 100 + track,
    }  # fmt: skip
    return label | ({"person_id": person} if form == "21" else {})


def _keypoints(figure: honest.Figure) -> np.ndarray:
    """(17, 3) in the picture; ears are never labelled."""
    names = ["neck" if name == "head_bottom" else name for name in NAMES]
    points = np.concatenate([LENS.pixels(figure.joints(names)), np.ones((17, 1))], axis=1)
    points[3:5] = 0
    return points
