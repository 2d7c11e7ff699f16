"""InterHand2.6M v1.0 in miniature: one capture of each split, three cameras of which one is gray and lies on its side.

What is wrong with the real one is wrong here too: an all-black picture, one that is not there, one that is there but not
listed, one without an annotation, boxes that leave the picture in part and as a whole, a JPEG that is cut short, un-annotated
joints at [1, 1, 1], a MANO frame that is missing, `joint_3d` with and without `seq`, and one set of relative names in val and
in test. Drawn by `tests.support.honest`: the code's instant is the place in the sequence, its view that of the camera.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from manifests.types import FrameKey
from tests.support import honest
from tests.support.honest import Figure, Lens

CAMERAS = ("400002", "400049", "410001")  # the last is gray, 512 x 334
GRAY = "cam410001"
STEPS = {("train", 5): 18, ("val", 5): 6, ("test", 5): 6, ("train", 30): 3, ("val", 30): 1, ("test", 30): 1}
SUBJECTS = {"train": 0, "val": 0, "test": 5}  # the splits share a person
# Split, folder, kind of hands, first frame; three frames each.
SEQUENCES = (
    ("train", "0013_surfer", "right", 3000),
    ("train", "0266_dh_pray", "interacting", 5000),
    ("val", "ROM04_LT_Occlusion", "left", 12000),
    ("test", "ROM04_LT_Occlusion", "left", 12000),
)
NUM_FRAMES = 3
FINGER_JOINTS = [
    f"{finger}{joint}" for finger in ("thumb", "index", "middle", "ring", "pinky") for joint in (4, 3, 2, 1)
]
JOINTS = [*FINGER_JOINTS, "wrist"]


@dataclass
class Truth:
    """What was drawn.

    Attributes:
        lenses: by split and view.
        figures: by split, sequence of the key, and frame.
        codes: instant of the code, by the same.
        boxes: x0, y0, x1, y1 of what is seen, by the same and view; before the faults.
    """

    lenses: dict[tuple[str, str], Lens] = field(default_factory=dict)
    figures: dict[tuple[str, str, int], Figure] = field(default_factory=dict)
    instants: dict[tuple[str, str, int], int] = field(default_factory=dict)
    boxes: dict[tuple[str, str, int, str], np.ndarray] = field(default_factory=dict)

    def lens_of(self, key: FrameKey) -> Lens:
        """The camera of a frame."""
        return self.lenses[key.split, key.view]

    def figure_of(self, key: FrameKey) -> Figure:
        """Whom a frame shows."""
        return self.figures[key.split, key.sequence, key.instant]

    def code_of(self, key: FrameKey) -> tuple[int, int]:
        """Instant and view that a frame was drawn with."""
        return self.instants[key.split, key.sequence, key.instant], CAMERAS.index(key.view[3:])


def lenses(split: str) -> dict[str, Lens]:
    """The cameras of a split's capture, a metre from the hands."""
    turn = {"train": 0.0, "val": 0.02, "test": 0.04}[split]
    upright = honest.ring(3, size=(334, 512), radius_m=1.0 + turn, height_m=1.1, focal_px=900)
    lying = honest.ring(3, size=(512, 334), radius_m=1.0 + turn, height_m=1.15, focal_px=800)
    return dict(zip(CAMERAS, (upright[0], upright[1], lying[2]), strict=True))


def hands(kind: str, person: int, instant: int) -> Figure:
    """One hand, or two as one figure."""
    if kind != "interacting":
        return honest.hand(person, instant, kind)
    points, capsules = {}, []
    for side, y in (("right", -0.06), ("left", 0.06)):
        one = honest.hand(person, instant, side, at=(0, y, 1))
        points |= {f"{side}_{name}": point for name, point in one.points.items()}
        capsules += [replace(c, a=f"{side}_{c.a}", b=f"{side}_{c.b}") for c in one.capsules]
    return Figure(person, points, tuple(capsules))


def write_interhand(root: Path, *, fps: int = 5, batch: str | None = None) -> Truth:
    """Write images and annotations under a root.

    Args:
        root: gets `InterHand2.6M_5fps_batch1/images` and `annotations`.
        fps: of the release, 5 or 30.
        batch: name of the folder of images; empty: none.
    """
    truth, images = Truth(), root / (f"InterHand2.6M_{fps}fps_batch1" if batch is None else batch) / "images"
    root.mkdir(parents=True, exist_ok=True)
    (root / "FIXTURE").write_text("synthetic pixels in the layout of InterHand2.6M v1.0\n")
    for split in ("train", "val", "test"):
        _write_split(root / "annotations" / split, images / split, split, fps, truth)
    (root / "annotations" / "subject.txt").write_text("0 Capture0 male\n")
    return truth


def edit(root: Path, split: str, what: str = "data") -> "_Edit":
    """Change an annotation file: `with edit(root, "train") as data: ...`."""
    return _Edit(root / "annotations" / split / f"InterHand2.6M_{split}_{what}.json")


class _Edit:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Any:
        self.content = json.loads(self.path.read_text())
        return self.content

    def __exit__(self, *_: object) -> None:
        self.path.write_text(json.dumps(self.content))


def _write_split(annotations: Path, images: Path, split: str, fps: int, truth: Truth) -> None:
    listed: list[dict[str, Any]] = []
    labelled: list[dict[str, Any]] = []
    joints: dict[str, Any] = {}
    cameras, person = lenses(split), SUBJECTS[split]
    truth.lenses |= {(split, f"cam{name}"): lens for name, lens in cameras.items()}
    for of_split, folder, kind, first in SEQUENCES:
        if of_split != split:
            continue
        sequence = f"capture0-{folder.lower()}"
        for instant in range(NUM_FRAMES):
            frame = first + instant * STEPS[split, fps]
            figure = hands(kind, person, instant)
            truth.figures[split, sequence, frame], truth.instants[split, sequence, frame] = figure, instant
            joints[str(frame)] = _joints(figure, kind) | ({"seq": folder} if split == "train" else {})
            for number, (name, lens) in enumerate(cameras.items()):
                drawn = honest.draw(lens, [figure], instant=instant, view=number, gray=name.startswith("41"))
                box = truth.boxes[split, sequence, frame, f"cam{name}"] = drawn.box()
                file = f"Capture0/{folder}/cam{name}/image{frame}.jpg"
                honest.write_jpeg(images / file, drawn.rgb)
                at = 7 * len(listed) + 100  # ids are no places
                width, height = lens.size
                listed.append(
                    {
                        "id": at, "file_name": file, "width": width, "height": height, "capture": 0, "subject": person,
                        "seq_name": folder, "camera": name, "frame_idx": frame,
                    }
                )  # fmt: skip
                labelled.append(
                    {
                        "id": at, "image_id": at, "bbox": [*box[:2], *(box[2:] - box[:2])], "hand_type": kind,
                        "joint_valid": [[int(kind in ("right", "interacting"))]] * 21
                        + [[int(kind in ("left", "interacting"))]] * 21, "hand_type_valid": 1,
                    }
                )  # fmt: skip
    _spoil(images, split, {item["file_name"]: item for item in listed}, listed, labelled, fps)
    annotations.mkdir(parents=True)
    for what, content in (
        ("data", {"images": listed, "annotations": labelled[::-1]}),  # in an order of their own
        ("camera", {"0": _calibration(cameras)}),
        ("joint_3d", {"0": joints}),
        ("MANO_NeuralAnnot", {"0": {frame: {"right": None, "left": None} for frame in list(joints)[1:]}}),
    ):
        (annotations / f"InterHand2.6M_{split}_{what}.json").write_text(json.dumps(content))


def _spoil(
    images: Path,
    split: str,
    by_name: dict[str, Any],
    listed: list[dict[str, Any]],
    labelled: list[dict[str, Any]],
    fps: int,
) -> None:
    """Put the faults in."""
    boxes = {item["image_id"]: item for item in labelled}
    step = STEPS[split, fps]
    if split == "val":
        cut = images / f"Capture0/ROM04_LT_Occlusion/cam400049/image{12000 + step}.jpg"
        cut.write_bytes(cut.read_bytes()[:150])
    if split != "train":
        return
    surfer, pray = "Capture0/0013_surfer", "Capture0/0266_dh_pray"
    honest.write_jpeg(images / f"{surfer}/cam400049/image{3000 + step}.jpg", np.zeros((512, 334, 3), np.uint8))
    (images / f"{surfer}/cam400002/image{3000 + 2 * step}.jpg").unlink()
    stray = images / f"{pray}/cam400002/image{5000 + 3 * step}.jpg"
    stray.write_bytes((images / f"{pray}/cam400002/image5000.jpg").read_bytes())
    leaves = boxes[by_name[f"{surfer}/cam410001/image3000.jpg"]["id"]]
    leaves["bbox"] = [-40.25, -30.5, 600.0, 400.0]
    boxes[by_name[f"{pray}/cam400049/image{5000 + 2 * step}.jpg"]["id"]]["bbox"] = [340.0, 10.0, 50.0, 60.0]
    labelled.remove(boxes[by_name[f"{pray}/cam410001/image5000.jpg"]["id"]])


def _joints(figure: Figure, kind: str) -> dict[str, Any]:
    coordinates, valid = [], []
    for side in ("right", "left"):
        there = kind in (side, "interacting")
        prefix = f"{side}_" if kind == "interacting" else ""
        for name in JOINTS:
            coordinates.append((figure.points[prefix + name] * 1000).tolist() if there else [1.0, 1.0, 1.0])
            valid.append([there])
    return {"world_coord": coordinates, "joint_valid": valid, "hand_type": kind, "hand_type_valid": True}


def _calibration(cameras: dict[str, Lens]) -> dict[str, Any]:
    return {
        "campos": {name: (lens.centre_m * 1000).tolist() for name, lens in cameras.items()},
        "camrot": {name: lens.rotation.tolist() for name, lens in cameras.items()},
        "focal": {name: lens.K[[0, 1], [0, 1]].tolist() for name, lens in cameras.items()},
        "princpt": {name: lens.K[:2, 2].tolist() for name, lens in cameras.items()},
    }
