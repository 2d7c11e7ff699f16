"""Penn Action in miniature: two clips, and what is wrong with the real ones.

Drawn by `tests.support.honest`: frame k (from 1) of a clip has the code's instant k, the view is the clip's place.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.io import savemat

from tests.support import honest
from tests.support.honest import PENN13, Drawn, Lens

CLIPS = {"0001": (6, (480, 270), 1), "0002": (4, (320, 240), -1)}  # frames, size, train


@dataclass(frozen=True)
class Truth:
    """What was drawn, by (clip, frame from 1): picture, and joints (13, 2) in pixels from 0."""

    drawn: dict[tuple[str, int], Drawn] = field(default_factory=dict)
    joints_px: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)


def lens_of(clip: str) -> Lens:
    """The one camera of a clip."""
    return honest.ring(2, size=CLIPS[clip][1])[list(CLIPS).index(clip)]


def write_pennaction(root: Path, *, labels: bool = True) -> Truth:
    """Write the dataset; `root` becomes `Penn_Action/`.

    Clip 0002 has a box less than frames, its left wrist is not visible and lies at (1, 1), and it is of the official test split.
    """
    truth = Truth()
    root.mkdir(parents=True)
    (root / "FIXTURE").write_text("synthetic pixels in the layout of Penn Action\n")
    for view, (clip, (num, size, train)) in enumerate(CLIPS.items()):
        joints, boxes = [], []
        for frame in range(1, num + 1):
            figure = honest.body(1 + 2 * view, frame)
            drawn = honest.draw(lens_of(clip), [figure], instant=frame, view=view)
            honest.write_jpeg(root / "frames" / clip / f"{frame:06d}.jpg", drawn.rgb)
            joints.append(lens_of(clip).pixels(figure.joints(PENN13)))
            boxes.append(drawn.box())
            truth.drawn[clip, frame], truth.joints_px[clip, frame] = drawn, joints[-1]
        if labels:
            write_label(root, clip, np.array(joints), np.array(boxes), size=size, train=train, damaged=clip == "0002")
    return truth


def write_label(
    root: Path, clip: str, joints: np.ndarray, boxes: np.ndarray, *, size: tuple[int, int], train: int, damaged: bool
) -> None:
    """Write labels/<clip>.mat from pixels that count from 0; `damaged`: as clip 0002."""
    places, visible = joints + 1, np.ones(joints.shape[:2], np.uint8)
    if damaged:
        places[:, 5], visible[:, 5] = 1, 0
        boxes = boxes[:-1]
    (root / "labels").mkdir(exist_ok=True)
    values = {
        "action": "tennis_serve",
        "pose": "right",
        "x": places[..., 0],
        "y": places[..., 1],
        "visibility": visible,
        "train": np.int8(train),
        "bbox": boxes + 1,
        "dimensions": np.array([[size[1], size[0], len(joints)]], np.float64),
        "nframes": np.array([[len(joints)]], np.uint16),
    }
    savemat(root / "labels" / f"{clip}.mat", values)
