"""Motion clips in the layout of `humanoid3d_*.txt`, made in a test."""

import json
from pathlib import Path

import numpy as np

QUATERNION_STARTS = {
    "root": 4,
    "chest": 8,
    "neck": 12,
    "rhip": 16,
    "rankle": 21,
    "rshoulder": 25,
    "lhip": 30,
    "lankle": 35,
    "lshoulder": 39,
}
ANGLE_COLUMNS = {"rknee": 20, "relbow": 29, "lknee": 34, "lelbow": 43}


def standing(num_frames: int = 2) -> np.ndarray:
    """Frames (T, 44) of that skeleton at rest: upright, arms hanging."""
    frames = np.zeros((num_frames, 44))
    frames[:, 0] = 1 / 30
    frames[:, 2] = 0.88
    frames[:, list(QUATERNION_STARTS.values())] = 1.0
    return frames


def waving(num_frames: int = 12) -> np.ndarray:
    """Frames (T, 44) of somebody who moves arms and legs about the axis across the body, and bends the knees."""
    frames = standing(num_frames)
    swing = np.sin(np.linspace(0.0, 2.0 * np.pi, num_frames, endpoint=False))
    for name, share in (("rhip", 0.5), ("lhip", -0.5), ("rshoulder", -1.2), ("lshoulder", 1.2)):
        start = QUATERNION_STARTS[name]
        frames[:, start], frames[:, start + 3] = np.cos(share * swing / 2), np.sin(share * swing / 2)
    frames[:, ANGLE_COLUMNS["rknee"]] = -0.3 - 0.3 * swing
    frames[:, ANGLE_COLUMNS["lknee"]] = -0.3 + 0.3 * swing
    return frames


def write_clip(folder: Path, name: str, frames: np.ndarray) -> Path:
    """Write `humanoid3d_<name>.txt`."""
    path = folder / f"humanoid3d_{name}.txt"
    path.write_text(json.dumps({"Loop": "wrap", "Frames": frames.tolist()}))
    return path
