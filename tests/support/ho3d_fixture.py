"""HO-3D in miniature: the five cameras of SB1 over both splits, one sequence of a single camera, and what is wrong with it.

A file's id is the code's instant, a camera's digit the code's view.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.squares import Floats
from tests.support import honest
from tests.support.pickles import python2_pickle

SIZE = (640, 480)
LENSES = honest.ring(5, size=SIZE, radius_m=0.6)
ORDERS = (2, 0, 1, 4, 3)  # digit of each camera of the calibration
TRAIN, EVALUATION = ("SB10", "SB12", "SB14"), ("SB11", "SB13")
SINGLE = "MC1"
PEOPLE = {"SB1": 1, "MC1": 2}
NUM_FRAMES = 3
# Where MANO's joints are in the fixture's: wrist, index, middle, little, ring finger, thumb without tips; tips, thumb first.
MANO = (0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3, 4, 8, 12, 16, 20)
TO_OPENGL = np.array([1.0, -1.0, -1.0])


def hand_of(group: str, frame: int) -> honest.Figure:
    """The hand of one frame."""
    return honest.hand(PEOPLE[group], frame)


def shared_from_world() -> Floats:
    """(4, 4): the world of the figures to the frame that the cameras share: the first camera of the calibration."""
    return LENSES[ORDERS[0]].camera_from_world


@dataclass(frozen=True)
class Truth:
    """The home folder, and the drawn pictures by (sequence's folder, frame)."""

    home: Path
    drawn: dict[tuple[str, int], honest.Drawn]


def write_ho3d(root: Path, *, version: str = "v3", faults: bool = True) -> Truth:
    """Write the dataset.

    Args:
        root: becomes `HO3D_v3/`.
        version: v3: jpg, with calibration; v2: png, without.
        faults: a lost picture, a meta file of None, one that is lost and one cut short.
    """
    drawn, lists = {}, {"train": [], "evaluation": []}
    root.mkdir(parents=True)
    (root / "FIXTURE").write_text("synthetic pixels in the layout of HO-3D\n")
    for split, folders in (("train", (*TRAIN, SINGLE)), ("evaluation", EVALUATION)):
        for folder in folders:
            group, camera = (SINGLE, 0) if folder == SINGLE else (folder[:-1], int(folder[-1]))
            lens = LENSES[camera]
            for frame in range(NUM_FRAMES):
                hand = hand_of(group, frame)
                seen = drawn[folder, frame] = honest.draw(lens, [hand], instant=frame, view=camera)
                place = root / split / folder
                if version == "v3":
                    honest.write_jpeg(place / "rgb" / f"{frame:04d}.jpg", seen.rgb)
                else:
                    honest.write_png(place / "rgb" / f"{frame:04d}.png", seen.rgb)
                honest.write_png(place / "depth" / f"{frame:04d}.png", np.zeros((4, 4, 3), np.uint8))
                meta = meta_of(lens, hand, evaluation=split == "evaluation")
                write_meta(place / "meta" / f"{frame:04d}.pkl", meta)
                lists[split].append(f"{folder}/{frame:04d}")
    for split, lines in lists.items():
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    if version == "v3":
        _write_calibration(root / "calibration" / "SB1" / "calibration")
    if faults:
        train = root / "train"
        (train / "SB12" / "rgb" / f"0001.{'jpg' if version == 'v3' else 'png'}").unlink()
        nothing = dict.fromkeys(meta_of(LENSES[4], hand_of("SB1", 2), evaluation=False))
        write_meta(train / "SB14" / "meta" / "0002.pkl", nothing)
        for frame in (1, 2):
            (train / SINGLE / "meta" / f"{frame:04d}.pkl").unlink()
        cut = train / "SB10" / "meta" / "0000.pkl"
        cut.write_bytes(cut.read_bytes()[:200])
    return Truth(root, drawn)


def meta_of(lens: honest.Lens, hand: honest.Figure, *, evaluation: bool) -> dict[str, Any]:
    """What one meta file holds: all joints to learn from, the wrist and a box to evaluate."""
    joints = (lens.in_camera(hand.hand21()) * TO_OPENGL).astype(np.float32)[list(MANO)]
    shared = {
        "camMat": lens.K, "objName": "003_cracker_box", "objLabel": 2, "objRot": np.zeros((3, 1)), "objTrans": np.zeros(3),
        "objCorners3DRest": np.zeros((8, 3)),
    }  # fmt: skip
    if evaluation:
        points = lens.pixels(hand.hand21())
        box = [int(value) for value in (*points.min(axis=0) - 9, *points.max(axis=0) + 9)]
        return shared | {"handJoints3D": joints[0], "handBoundingBox": box}
    return shared | {"handJoints3D": joints, "handPose": np.zeros(48), "handTrans": joints[0], "handBeta": np.zeros(10)}


def write_meta(path: Path, meta: dict[str, Any]) -> None:
    """Write a meta file as Python 2 did."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(python2_pickle(meta))


def _write_calibration(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "cam_orders.txt").write_text("".join(f"{digit}\n" for digit in ORDERS))
    for number, digit in enumerate(ORDERS):
        lens = LENSES[digit]
        (folder / f"cam_{number}_depth_scale.txt").write_text("0.00012498664727900177\n")
        fx, fy, x, y = (lens.K[at] for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
        (folder / f"cam_{number}_intrinsics.txt").write_text(
            f"width: 640, height: 480, ppx: {x}, ppy: {y}, fx: {fx}, fy: {fy}\n"
        )
        np.savetxt(folder / f"trans_{number}.txt", shared_from_world() @ np.linalg.inv(lens.camera_from_world))
