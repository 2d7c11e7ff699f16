"""Motion clips: the free `humanoid3d_*.txt` clips of DeepMimic, as pybullet ships them (zlib licence), in SMPL's joints.

A clip file is JSON: `Frames` holds 44 numbers a frame: seconds, root position (3), root quaternion, then rotations of chest,
neck, right hip, right knee (one angle), right ankle, right shoulder, right elbow (one angle), and the same for the left side.
Quaternions are (w, x, y, z). That skeleton faces +x, y up, arms hanging down at rest; ours faces +z in a T-pose.

Shape letters: T instants, J joints (24).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.errors import SyntheticError
from synthetic.body import BodyModel
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
_FLIGHT_M = 0.15  # lower than this is a clip's inaccuracy, not a jump
_HINT = "unpack pybullet_data/data/motions/humanoid3d_*.txt of the wheel pybullet==3.2.7 into that folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A motion.

    Attributes:
        name: file name without folder, prefix and ending, as "walk".
        pose_TJ3: (T, 24, 3) axis-angle in SMPL's joints, radians.
        trans_T3: (T, 3) translation of the pelvis, metres, y up.
        fps: instants per second.
    """

    name: str
    pose_TJ3: Floats
    trans_T3: Floats
    fps: float

    @property
    def num_instants(self) -> int:
        """Number of instants T."""
        return len(self.pose_TJ3)


def list_clips(folder: Path) -> tuple[Path, ...]:
    """List the clip files of a folder by name.

    Raises:
        SyntheticError: the folder holds none.
    """
    found = tuple(sorted(folder.glob("humanoid3d_*.txt")))
    if not found:
        raise SyntheticError("there is no motion clip humanoid3d_*.txt", where=folder, hint=_HINT)
    return found


def load_clip(path: Path) -> Clip:
    """Read a clip and turn it into SMPL's joints.

    Args:
        path: a `humanoid3d_*.txt` file.

    Returns:
        The clip; joints that the file does not move (collars, feet, hands) stay at rest.

    Raises:
        SyntheticError: the file is missing or is not a clip.
    """
    try:
        frames = np.array(json.loads(path.read_text(encoding="utf-8"))["Frames"], dtype=np.float64)
    except FileNotFoundError:
        raise SyntheticError("there is no such motion clip", where=path, hint=_HINT) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SyntheticError(f"the motion clip cannot be read: {error}", where=path, hint=_HINT) from error
    if frames.ndim != 2 or frames.shape[1] != NUMBERS_PER_FRAME or len(frames) < 2:
        raise SyntheticError(
            f"a motion clip has rows of {NUMBERS_PER_FRAME} numbers, at least 2; this has {frames.shape}",
            where=path,
            hint=_HINT,
        )
    lengths = np.stack([np.linalg.norm(frames[:, i : i + 4], axis=1) for i in _QUATERNIONS.values()])
    if not np.isfinite(frames).all() or np.abs(lengths - 1.0).max() > 0.5 or not (frames[:-1, 0] > 0).all():
        raise SyntheticError("the motion clip holds durations or rotations that are none", where=path, hint=_HINT)
    return Clip(
        name=path.stem.removeprefix("humanoid3d_"),
        pose_TJ3=_smpl_pose(frames),
        trans_T3=frames[:, 1:4] @ _OURS_FROM_THEIRS.T,
        fps=float(1.0 / np.median(frames[:-1, 0])),
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


def place_on_ground(clip: Clip, body: BodyModel, betas_S: npt.ArrayLike, clip_index: int) -> Floats:
    """Translate one instant so that the person stands on y = 0, over the middle of the floor.

    The lowest point touches the ground, unless the clip itself leaves it: a jump keeps its height.

    Args:
        clip: the motion.
        body: the body it moves.
        betas_S: (10,) shape coefficients.
        clip_index: which instant of the clip.

    Returns:
        (3,) translation, metres.
    """
    verts_TX3, joints_TJ3 = body.pose(clip.pose_TJ3[clip_index, None], betas_S, np.zeros((1, 3)))
    lowest = float(verts_TX3[0, body.skin_vertices, 1].min())
    hip_m = float(body.joints_J3[1, 1] - body.template_X3[body.skin_vertices, 1].min())
    flight = float(clip.trans_T3[clip_index, 1]) * hip_m / _THEIR_HIP_M + lowest
    middle = (joints_TJ3[0].min(axis=0) + joints_TJ3[0].max(axis=0)).astype(np.float64) / 2.0
    return np.array([-middle[0], (flight if flight > _FLIGHT_M else 0.0) - lowest, -middle[2]])
