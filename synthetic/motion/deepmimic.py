"""The free `humanoid3d_*.txt` clips of DeepMimic, as pybullet ships them (zlib licence), in SMPL's joints.

A clip file is JSON: `Frames` holds 44 numbers a frame: seconds, root position (3), root quaternion, then rotations of chest,
neck, right hip, right knee (one angle), right ankle, right shoulder, right elbow (one angle), and the same for the left side.
Quaternions are (w, x, y, z). That skeleton faces +x, y up, arms hanging down at rest; ours faces +z in a T-pose.

Shape letters: T instants, J joints (24).
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.errors import SyntheticError
from synthetic.motion.clip import Clip
from synthetic.rotations import axis_angle_from_matrix, matrix_from_axis_angle, matrix_from_quaternion

Floats = npt.NDArray[np.float64]

NUMBERS_PER_FRAME = 44
_QUATERNIONS = {
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
_ANGLES = {"rknee": 20, "relbow": 29, "lknee": 34, "lelbow": 43}
_OURS_FROM_THEIRS = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])  # their forward x is our z
_ARM_DROP_RAD = np.deg2rad(85.0)  # from our T-pose arm to their hanging arm
_THEIR_HIP_M = 0.88  # pelvis over the floor when that skeleton stands upright
LICENCE = "zlib"
PREFIX = "humanoid3d_"
HINT = "unpack pybullet_data/data/motions/humanoid3d_*.txt of the wheel pybullet==3.2.7 into that folder"


def read_deepmimic(path: Path, *, name: str) -> Clip:
    """Read a clip and turn it into SMPL's joints.

    Args:
        path: a `humanoid3d_*.txt` file.
        name: of the clip.

    Returns:
        The clip; joints that the file does not move (collars, feet, hands) stay at rest.

    Raises:
        SyntheticError: the file is missing or is not a clip.
    """
    try:
        frames = np.array(json.loads(path.read_text(encoding="utf-8"))["Frames"], dtype=np.float64)
    except FileNotFoundError:
        raise SyntheticError("there is no such motion clip", where=path, hint=HINT) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SyntheticError(f"the motion clip cannot be read: {error}", where=path, hint=HINT) from error
    if frames.ndim != 2 or frames.shape[1] != NUMBERS_PER_FRAME or len(frames) < 2:
        raise SyntheticError(
            f"a motion clip has rows of {NUMBERS_PER_FRAME} numbers, at least 2; this has {frames.shape}",
            where=path,
            hint=HINT,
        )
    lengths = np.stack([np.linalg.norm(frames[:, i : i + 4], axis=1) for i in _QUATERNIONS.values()])
    if not np.isfinite(frames).all() or np.abs(lengths - 1.0).max() > 0.5 or not (frames[:-1, 0] > 0).all():
        raise SyntheticError("the motion clip holds durations or rotations that are none", where=path, hint=HINT)
    return Clip(
        name=name,
        pose_TJ3=_smpl_pose(frames),
        trans_T3=frames[:, 1:4] @ _OURS_FROM_THEIRS.T,
        fps=float(1.0 / np.median(frames[:-1, 0])),
        hip_m=_THEIR_HIP_M,
        licence=LICENCE,
    )


def _smpl_pose(frames: Floats) -> Floats:
    def ours(name: str) -> Floats:
        if name in _ANGLES:  # hinges turn around their z axis
            start = _ANGLES[name]
            turn = matrix_from_axis_angle(frames[:, start, None] * np.array([0.0, 0.0, 1.0]))
        else:
            start = _QUATERNIONS[name]
            turn = matrix_from_quaternion(frames[:, start : start + 4])
        return np.asarray(_OURS_FROM_THEIRS @ turn @ _OURS_FROM_THEIRS.T)

    pose_TJ3 = np.zeros((len(frames), 24, 3))
    pose_TJ3[:, 0] = axis_angle_from_matrix(ours("root"))
    pose_TJ3[:, [3, 6, 9]] = axis_angle_from_matrix(ours("chest"))[:, None] / 3.0
    pose_TJ3[:, [12, 15]] = axis_angle_from_matrix(ours("neck"))[:, None] / 2.0
    for side, sign, hip, knee, ankle, shoulder, elbow in (("l", 1.0, 1, 4, 7, 16, 18), ("r", -1.0, 2, 5, 8, 17, 19)):
        drop = matrix_from_axis_angle([0.0, 0.0, -sign * _ARM_DROP_RAD])
        pose_TJ3[:, hip] = axis_angle_from_matrix(ours(f"{side}hip"))
        pose_TJ3[:, knee] = axis_angle_from_matrix(ours(f"{side}knee"))
        pose_TJ3[:, ankle] = axis_angle_from_matrix(ours(f"{side}ankle"))
        pose_TJ3[:, shoulder] = axis_angle_from_matrix(ours(f"{side}shoulder") @ drop)
        pose_TJ3[:, elbow] = axis_angle_from_matrix(drop.T @ ours(f"{side}elbow") @ drop)
    return pose_TJ3
