"""JRDB in miniature: two sequences of five cameras and a panorama, and what is wrong with the real ones.

Drawn by `tests.support.honest`: the code's instant is the frame, plus 8 in the second sequence; its view is the camera, from 0,
and 5 in the panorama. Pedestrian 6 is person 1 and pedestrian 12 is person 4. All cameras see both, so that a track joined across
cameras would show. Faults are in the first sequence, and most of them in `image0`.
"""

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.support import honest

SEQUENCES = ("bytes-cafe-2019-02-07_0", "meyer-green-2019-03-16_0")
VIEWS = ("image0", "image2", "image4", "image6", "image8", "stitched")
PEOPLE = {6: 1, 12: 4}  # number of a pedestrian to person
NUM_FRAMES = 4
SIZE, STITCHED_SIZE = (752, 480), (3760, 480)
LENSES = [
    *honest.ring(5, size=SIZE),
    honest.ring(1, size=STITCHED_SIZE, focal_px=576)[0],
]


@dataclass
class Truth:
    """What was drawn: (4,) box, clipped to the picture, by (sequence, view, frame, pedestrian)."""

    boxes: dict[tuple[str, str, int, int], np.ndarray] = field(default_factory=dict)


def write_jrdb(
    root: Path,
    *,
    images: str = "train_dataset_with_activity/images",
    labels: str = "train_dataset_with_activity/labels",
    views: tuple[str, ...] = VIEWS,
) -> Truth:
    """Write both sequences; `views` may leave cameras out, or the panorama."""
    truth = Truth()
    root.mkdir(parents=True, exist_ok=True)
    (root / "FIXTURE").write_text("synthetic\n")
    for number, sequence in enumerate(SEQUENCES):
        for camera, view in enumerate(VIEWS):
            if view not in views:
                continue
            folder = root / images / view.replace("image", "image_").replace("stitched", "image_stitched") / sequence
            folder.mkdir(parents=True)
            frames = {}
            for frame in range(NUM_FRAMES):
                jpeg, drawn = _drawn(frame + 8 * number, camera)
                boxes = {pedestrian: box.copy() for pedestrian, box in drawn.items()}
                (folder / f"{frame:06d}.jpg").write_bytes(jpeg)
                frames[f"{frame:06d}.jpg"] = _people(frame, view, boxes, faults=number == 0)
                for pedestrian, box in boxes.items():
                    truth.boxes[sequence, view, frame, pedestrian] = box
            path = root / labels / f"labels_2d/{sequence}_{view}.json"
            if view == "stitched":
                path = root / labels / f"labels_2d_stitched/{sequence}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"labels": frames}))
    return truth


@cache
def _drawn(instant: int, camera: int) -> tuple[bytes, dict[int, np.ndarray]]:
    """A picture's JPEG, and the boxes of its pedestrians."""
    lens = LENSES[camera]
    right = lens.rotation[0][:2]
    figures = [
        honest.body(person, instant, at=right * side) for person, side in zip(PEOPLE.values(), (-1.0, 1.0), strict=True)
    ]
    drawn = honest.draw(lens, figures, instant=instant, view=camera)
    jpeg = cv2.imencode(".jpg", drawn.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
    return jpeg, {pedestrian: drawn.box(k) for k, pedestrian in enumerate(PEOPLE)}


def _people(frame: int, view: str, boxes: dict[int, np.ndarray], *, faults: bool) -> list[dict[str, Any]]:
    """The labels of one picture."""
    if faults and (view, frame) == ("image8", 3):
        return []
    six, twelve = (label(pedestrian, *box[:2], *(box[2:] - box[:2]), frame) for pedestrian, box in boxes.items())
    if not faults or view not in ("image0", "stitched"):
        return [six, twelve]
    if view == "stitched":
        seam = {0: [label(30, 3700, 90, 80, 200, 0)], 1: [label(31, -20, 90, 80, 200, 1)]}
        return [six, twelve, *seam.get(frame, [])]
    if frame == 0:
        other = label(9, 100, 100, 50, 120, 0) | {"label_id": "person:9"}
        return [six, twelve, other, label(20, 300, 200, 0, 90, 0), label(21, 800, 100, 60, 120, 0)]
    if frame == 1:
        return [six, twelve, label(3, 200, 90, 70, 200, 1, occlusion="Fully_occluded"), label(6, 1, 2, 90, 90, 1)]
    if frame == 2:
        twelve["attributes"]["truncated"] = "true"
        twelve["box"][2] = SIZE[0] + 40 - twelve["box"][0]
        six["attributes"] |= {"interpolated": True, "no_eval": True}
        boxes[12][2] = SIZE[0] - 0.5
    if frame == 3:
        twelve["attributes"]["occlusion"] = "Severely_occluded"
    return [six, twelve]


def label(
    pedestrian: int, x: float, y: float, w: float, h: float, frame: int, *, occlusion: str = "Fully_visible"
) -> dict[str, Any]:
    """What a label file says of one person; its `file_id` is another than the frame's key."""
    return {
        "label_id": f"pedestrian:{pedestrian}", "box": [float(x), float(y), float(w), float(h)],
        "file_id": f"{frame + 2:06d}.jpg",
        "attributes": {
            "occlusion": occlusion, "truncated": "false", "interpolated": False, "no_eval": False, "area": float(w * h),
        },
        "action_label": {"standing": 1}, "social_group": {"cluster_ID": 1, "cluster_stat": 2}, "social_activity": {},
    }  # fmt: skip
