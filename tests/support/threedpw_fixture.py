"""3DPW in miniature: one sequence for each split, two people before a camera that is carried along, and the known faults.

Drawn by `tests.support.honest`: image k has the code's instant k, the view is the sequence's place; p0 and p1 are the persons
1 and 2 of the code. The world of the files is turned and shifted against that of the pictures: `WORLD_FROM_FIXTURE`.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import honest
from tests.support.honest import SMPL24, Drawn, Figure, Lens
from tests.support.pickles import python2_pickle

SIZE = (960, 540)
SEQUENCES = {"courtyard_arguing_00": "train", "courtyard_basketball_01": "validation", "downtown_walking_00": "test"}
NUM_FRAMES = 6
COCO18 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip
WORLD_FROM_FIXTURE = np.array([[0, 1, 0, 2.0], [0, 0, 1, -1], [1, 0, 0, 0.5], [0, 0, 0, 1]])  # y up, as SMPL has it

# Faults of every sequence, as (person, frame).
ABSURD = (0, 1)  # one keypoint at 1e5
NO_CAMERA = (0, 2)  # campose_valid is 0
NO_KEYPOINTS = (1, 3)  # poses2d is all 0, the camera is known
NOTHING = (1, 5)  # neither


@dataclass(frozen=True)
class Truth:
    """What was drawn, by (sequence, image)."""

    drawn: dict[tuple[str, int], Drawn] = field(default_factory=dict)


def lens_of(sequence: str, frame: int) -> Lens:
    """The camera of one image: it is carried sidewards, and turns."""
    base = honest.ring(3, size=SIZE)[list(SEQUENCES).index(sequence)]
    turn = 0.01 * frame
    step = np.eye(4)
    step[:3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    step[0, 3] = 0.01 * frame
    return replace(base, camera_from_world=step @ base.camera_from_world)


def figures_of(sequence: str, frame: int) -> list[Figure]:
    """p0 and p1: to the left and to the right in the image."""
    aside = lens_of(sequence, 0).rotation[0] * 0.75
    return [honest.body(1, frame, at=-aside[:2]), honest.body(2, frame, at=aside[:2])]


def labels_of(sequence: str) -> dict[str, Any]:
    """What the pickle of a sequence holds."""
    lenses = [lens_of(sequence, frame) for frame in range(NUM_FRAMES)]
    points = [[figures_of(sequence, frame)[person] for frame in range(NUM_FRAMES)] for person in (0, 1)]
    joints = [np.stack([figure.joints(SMPL24) for figure in frames]) for frames in points]
    turned = [each @ WORLD_FROM_FIXTURE[:3, :3].T + WORLD_FROM_FIXTURE[:3, 3] for each in joints]
    poses2d = []
    for frames in points:
        seen = [lens.pixels(figure.joints(COCO18)) for lens, figure in zip(lenses, frames, strict=True)]
        poses2d.append(np.concatenate([np.swapaxes(seen, 1, 2), np.full((NUM_FRAMES, 1, 18), 0.9)], axis=1))
    poses2d[ABSURD[0]][ABSURD[1], :2, 4] = 1e5
    valid = [np.ones(NUM_FRAMES, np.uint8), np.ones(NUM_FRAMES, np.uint8)]
    for person, frame in (NO_KEYPOINTS, NOTHING):
        poses2d[person][frame] = 0
    for person, frame in (NO_CAMERA, NOTHING):
        valid[person][frame] = 0
    world = np.linalg.inv(WORLD_FROM_FIXTURE)
    zeros = [np.zeros((NUM_FRAMES, 72)), np.zeros((NUM_FRAMES, 72))]
    return {
        "sequence": sequence,
        "genders": ["m", "f"],
        "betas": [np.zeros(10), np.zeros(300)],
        "poses": zeros,
        "trans": [each[:, 0] for each in turned],
        "poses_60Hz": zeros,
        "trans_60Hz": [each[:, 0] for each in turned],
        "betas_clothed": [np.zeros(10), np.zeros(10)],
        "v_template_clothed": [np.zeros((4, 3)), np.zeros((4, 3))],
        "texture_maps": [np.zeros((2, 2, 3), np.uint8)] * 2,
        "poses2d": poses2d,
        "jointPositions": [each.reshape(NUM_FRAMES, 72) for each in turned],
        "img_frame_ids": 2 * np.arange(NUM_FRAMES),
        "cam_poses": np.stack([lens.camera_from_world @ world for lens in lenses]),
        "campose_valid": valid,
        "cam_intrinsics": lenses[0].K,
    }


def write_labels(root: Path, sequence: str, values: Any, *, split: str | None = None) -> Path:
    """Write one pickle."""
    path = root / "sequenceFiles" / (split or SEQUENCES[sequence]) / f"{sequence}.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(python2_pickle(values))
    return path


def write_threedpw(root: Path) -> Truth:
    """Write the dataset; `root` becomes `3DPW/`."""
    truth = Truth()
    root.mkdir(parents=True)
    (root / "FIXTURE").write_text("synthetic pixels in the layout of 3DPW\n")
    for view, sequence in enumerate(SEQUENCES):
        write_labels(root, sequence, labels_of(sequence))
        for frame in range(NUM_FRAMES):
            drawn = honest.draw(lens_of(sequence, frame), figures_of(sequence, frame), instant=frame, view=view)
            honest.write_jpeg(root / "imageFiles" / sequence / f"image_{frame:05d}.jpg", drawn.rgb)
            truth.drawn[sequence, frame] = drawn
    return truth
