"""HanCo in miniature: two sequences before eight cameras, and what is wrong with the real one.

A frame's number is the code's instant, a camera's number the code's view. Crops follow the hand, so K moves with the frame.
"""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests.support import honest

SIZE = (224, 224)
TRAIN, EVALUATION, UNKNOWN = "0007", "0110", "0200"
VARIANTS = ("rgb_merged", "rgb_homo", "rgb_color_auto", "rgb_color_sample")
_RING = honest.ring(8, size=SIZE, radius_m=0.6)
NUM_FRAMES = 4  # of TRAIN; meta.json knows the first three


def lens_of(camera: int, frame: int) -> honest.Lens:
    """The lens of one crop."""
    K = _RING[camera].K.copy()
    K[:2, 2] += (1.5 * frame, -frame)
    return replace(_RING[camera], K=K)


def figure_of(sequence: str, frame: int) -> honest.Figure:
    """The hand of one frame."""
    return honest.hand(int(sequence) % honest.NUM_PEOPLE, frame)


@dataclass(frozen=True)
class Truth:
    """The home folder, and the drawn pictures by (sequence, camera, frame)."""

    home: Path
    drawn: dict[tuple[str, int, int], honest.Drawn]


def write_hanco(root: Path, *, faults: bool = True) -> Truth:
    """Write the dataset.

    Args:
        root: becomes `HanCo/`.
        faults: a frame and a sequence that meta.json does not know, a lost image, one cut short, one of another size, one
            of another name, a mask without a hand, a frame without calibration.
    """
    drawn = {}
    root.mkdir(parents=True)
    (root / "FIXTURE").write_text("synthetic pixels in the layout of HanCo\n")
    for sequence, frames in ((TRAIN, NUM_FRAMES), (EVALUATION, 2)):
        for frame in range(frames):
            lenses = [lens_of(camera, frame) for camera in range(8)]
            hand = figure_of(sequence, frame)
            for camera, lens in enumerate(lenses):
                one = drawn[sequence, camera, frame] = honest.draw(lens, [hand], instant=frame, view=camera)
                below = f"{sequence}/cam{camera}/{frame:08d}.jpg"
                honest.write_jpeg(root / "rgb" / below, one.rgb)
                mask = np.repeat(one.mask(0)[..., None], 3, axis=2).astype(np.uint8) * 255
                honest.write_jpeg(root / "mask_hand" / below, mask)
                if sequence == TRAIN:  # only what was filmed before a green screen has other backgrounds
                    for k, variant in enumerate(VARIANTS):
                        honest.write_jpeg(root / variant / below, np.full((*SIZE, 3), 60 * k, np.uint8))
            parts = {
                "calib": {
                    "K": [lens.K.tolist() for lens in lenses],
                    "M": [lens.camera_from_world.tolist() for lens in lenses],
                },
                "xyz": hand.hand21().tolist(),
                "shape": {"poses": [[0.0] * 48], "shapes": [[0.0] * 10], "global_t": [[0.0] * 3]},
            }
            for part, value in parts.items():
                _write_json(root / part / sequence / f"{frame:08d}.json", value)
            for camera in range(8):
                _write_json(root / "shape" / sequence / f"cam{camera}" / f"{frame:08d}.json", [0.0] * 61)
    write_meta(root)
    if faults:
        _spoil(root)
    return Truth(root, drawn)


def write_meta(root: Path) -> None:
    """Write meta.json: of 111 sequences, most without frames, as the folders of a part of the dataset have it."""
    frames = {int(TRAIN): NUM_FRAMES - 1, int(EVALUATION): 2}
    values = {"is_train": None, "subject_id": None, "is_valid": True, "object_id": None, "has_fit": True}
    lists = {key: [[value] * frames.get(k, 0) for k in range(111)] for key, value in values.items()}
    for number, is_train, subject in ((int(TRAIN), True, 3), (int(EVALUATION), False, 3)):
        lists["is_train"][number] = [is_train] * frames[number]
        lists["subject_id"][number] = [subject] * frames[number]
    _write_json(root / "meta.json", lists)
    _write_json(root / "index_mv_unsup_weak.json", [])


def _spoil(root: Path) -> None:
    rgb = root / "rgb" / TRAIN
    (rgb / "cam2" / "00000001.jpg").unlink()
    cut = rgb / "cam4" / "00000002.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    honest.write_jpeg(rgb / "cam5" / "00000000.jpg", np.full((100, 120, 3), 90, np.uint8))
    shutil.copy(rgb / "cam6" / "00000000.jpg", rgb / "cam6" / "00000000_7.jpg")
    honest.write_jpeg(root / "mask_hand" / TRAIN / "cam3" / "00000000.jpg", np.full((*SIZE, 3), 90, np.uint8))
    (root / "calib" / TRAIN / "00000002.json").unlink()
    shutil.copytree(rgb / "cam0", root / "rgb" / UNKNOWN / "cam0")


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
