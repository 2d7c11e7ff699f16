"""A motion in SMPL's 24 joints, whatever file it came from.

Convention: y up, the person faces +z at rest, metres, radians.
Shape letters: T instants, J joints (24).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthetic.models.makehuman import PARENTS
from synthetic.rotations import matrix_from_axis_angle

Floats = npt.NDArray[np.float64]

TARGET_FPS = 30.0

# The joints of the mean free body in its T-pose; limbs of other people have other lengths, and the same directions.
_SIDE = (
    (0.114, -0.015, -0.009), (0.150, -0.424, -0.009), (0.164, -0.872, -0.031), (0.158, -0.923, 0.121),
    (0.024, 0.479, 0.017), (0.182, 0.458, 0.013), (0.453, 0.458, 0.013), (0.695, 0.458, 0.013), (0.804, 0.458, 0.013),
)  # fmt: skip
_MIDDLE = {0: (0.0, 0.0, 0.0), 3: (0.0, 0.083, -0.039), 6: (0.0, 0.153, -0.025), 9: (0.0, 0.236, -0.028), 12: (0.0, 0.557, 0.002), 15: (0.0, 0.657, 0.036)}  # fmt: skip
LEFT = (1, 4, 7, 10, 13, 16, 18, 20, 22)
REST_J3: Floats = np.zeros((24, 3))
REST_J3[list(_MIDDLE)] = list(_MIDDLE.values())
REST_J3[list(LEFT)] = _SIDE
REST_J3[[joint + 1 for joint in LEFT]] = np.array(_SIDE) * (-1, 1, 1)
REST_HIP_M = 0.936  # the hips of that body over its soles
_SOLE_M = 0.03  # below the joint of the toes
_TOUCHING = 2.0  # of a motion's instants, this share in percent is taken to be on the floor or below it


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A motion.

    Attributes:
        name: what recipes call it: the file's path below its folder, without prefix and ending, as "walk".
        pose_TJ3: (T, 24, 3) axis-angle in SMPL's joints, radians.
        trans_T3: (T, 3) translation of the pelvis, metres, y up; the floor is at y = 0.
        fps: instants per second.
        hip_m: how high the hips of the person who was recorded are over the floor when standing upright.
        licence: terms of the motion, in a few words; they bind what is rendered from it.
    """

    name: str
    pose_TJ3: Floats
    trans_T3: Floats
    fps: float
    hip_m: float = REST_HIP_M
    licence: str = "terms of the motion's owner"

    @property
    def num_instants(self) -> int:
        """Number of instants T."""
        return len(self.pose_TJ3)


def thinning(fps: float) -> int:
    """How many instants of a recording one of ours stands for: at 119.99 a second every fourth, as at 120."""
    return max(1, round(fps / TARGET_FPS))


def on_floor(pose_TJ3: Floats, pelvis_T3: Floats, *, hip_m: float) -> Floats:
    """Shift a motion up or down so that its floor is at y = 0; recordings put their zero where they like.

    The floor is where the lowest joints are in all but a few instants that are lower.

    Args:
        pose_TJ3: (T, 24, 3) axis-angle, radians.
        pelvis_T3: (T, 3) metres, y up.
        hip_m: see `Clip`.

    Returns:
        (T, 3).
    """
    turn_TJ33 = matrix_from_axis_angle(pose_TJ3)
    lowest_T = np.zeros(len(pose_TJ3))
    place_J: list[Floats] = [np.zeros((len(pose_TJ3), 3))]
    for joint, parent in enumerate(PARENTS[1:], start=1):
        place_J.append(place_J[parent] + turn_TJ33[:, parent] @ (REST_J3[joint] - REST_J3[parent]))
        turn_TJ33[:, joint] = turn_TJ33[:, parent] @ turn_TJ33[:, joint]
        lowest_T = np.minimum(lowest_T, place_J[joint][:, 1])
    height_T = pelvis_T3[:, 1] + (lowest_T - _SOLE_M) * hip_m / REST_HIP_M
    return np.asarray(pelvis_T3 - (0.0, np.percentile(height_T, _TOUCHING), 0.0))
