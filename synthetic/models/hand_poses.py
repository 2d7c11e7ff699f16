"""The bones of a hand, in MANO's order, and the poses that hands take.

Convention: axis-angles relative to the T-pose of `synthetic.models.hand`, radians.
Shape letters: N poses, J joints (16), K keypoints (21: joints, then fingertips), V values of a grasp, Q points along bones.
"""

import numpy as np
import numpy.typing as npt

from synthetic.rotations import axis_angle_from_matrix, matrix_from_axis_angle

Floats = npt.NDArray[np.float64]

FINGERS = ("index", "middle", "pinky", "ring", "thumb")  # as MANO orders them
HAND_JOINT_NAMES = ("wrist", *(f"{finger}{knuckle}" for finger in FINGERS for knuckle in (1, 2, 3)))
HAND_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
TIPS = ("thumb", "index", "middle", "ring", "pinky")

# How far each joint bends in well-known poses, 0 straight to 1 fully: (first, second) knuckle of index, middle, pinky, ring;
# how far the fingers spread (-1 side by side, 1 apart); thumb: swung towards the fingers, away from the palm, bent.
_GRASPS = np.array([
    #   index         middle        pinky         ring      spread        thumb
    [ 0.05,  0.00,  0.05,  0.00,  0.05,  0.00,  0.05,  0.00,  0.50, -0.10, -0.35,  0.00],  # open
    [ 0.05,  0.00,  0.05,  0.00,  0.05,  0.00,  0.05,  0.00, -0.90,  0.75, -0.30,  0.05],  # flat, fingers together
    [ 0.25,  0.30,  0.30,  0.35,  0.40,  0.40,  0.35,  0.40, -0.20,  0.30,  0.00,  0.25],  # relaxed
    [ 0.96,  0.86,  0.96,  0.90,  0.96,  0.80,  0.96,  0.84, -0.50, -0.16, -0.03,  0.74],  # fist
    [ 0.05,  0.00,  0.96,  0.90,  0.96,  0.80,  0.96,  0.86, -0.30, -0.04, -0.20,  0.82],  # pointing
    [ 0.05,  0.00,  0.05,  0.00,  0.96,  0.80,  0.96,  0.86,  0.90, -0.10,  0.50,  0.80],  # two fingers
    [ 0.05,  0.00,  0.05,  0.00,  0.96,  0.80,  0.05,  0.00,  0.30, -0.06,  0.88,  0.78],  # three fingers
    [ 0.05,  0.00,  0.96,  0.90,  0.05,  0.00,  0.96,  0.86,  0.20, -0.10,  0.18,  0.82],  # horns
    [ 0.96,  0.86,  0.96,  0.90,  0.96,  0.80,  0.96,  0.84, -0.50, -0.20, -0.40,  0.00],  # thumb up
    [ 0.50,  0.50,  0.15,  0.15,  0.10,  0.10,  0.10,  0.10,  0.40,  0.70, -0.20,  0.18],  # pinch
    [ 0.70,  0.40,  0.75,  0.40,  0.80,  0.50,  0.75,  0.45, -0.40,  0.80,  0.00,  0.24],  # fingertips together
    [ 0.00,  0.85,  0.00,  0.85,  0.10,  0.85,  0.00,  0.85, -0.50,  0.40, -0.20,  0.20],  # hook
    [ 0.30,  0.40,  0.35,  0.40,  0.40,  0.45,  0.35,  0.40,  0.60,  0.00, -0.05,  0.48],  # around a ball
    [ 0.55,  0.60,  0.60,  0.60,  0.65,  0.70,  0.60,  0.65, -0.60, -0.10,  0.30,  0.42],  # around a bar
    [ 0.95,  0.10,  0.95,  0.10,  0.95,  0.10,  0.95,  0.10, -0.70,  0.10,  0.00,  0.44],  # bent at the palm
])  # fmt: skip
# Bending, radians, from 0 to 1 of the table: first, second and third knuckle of a finger.
_BEND_RAD = ((-0.2, 1.45), (0.0, 1.75), (0.0, 0.95))
_THUMB_RAD = (1.0, 0.8, 0.4, 0.45, 0.9, 1.2)  # swing, down, roll that goes with the swing, bend of its three joints
_MOVE_AT_ONCE = 0.10  # spread of all fingers together, and of each joint by itself, in units of the table
_MOVE_ALONE = 0.06
# In lengths of the palm, wrist to middle finger: least gap between bones, and how far below the wrist the palm's skin is.
_FINGER_GAP = 0.105
_PALM_DEPTH = 0.2
_ATTEMPTS = 12


def sample_hand_poses(rng: np.random.Generator, joints_J3: Floats, tips_53: Floats, num_poses: int) -> Floats:
    """Draw poses that hands take: between two known grasps each, within the limits of joints, fingers not inside each other.

    The last knuckle follows the second, neighbouring fingers move together, fingers close up as they bend.

    Args:
        rng: source of randomness; equal states give equal poses, and those of a mirrored hand are mirrored.
        joints_J3: (16, 3) joints of the T-pose.
        tips_53: (5, 3) fingertips of the T-pose, thumb first.
        num_poses: how many.

    Returns:
        (N, 16, 3) axis-angle, radians; the wrist is not turned.
    """
    keypoints_K3 = np.concatenate([joints_J3, tips_53])
    poses_NJ3 = np.zeros((num_poses, len(HAND_PARENTS), 3))
    todo = np.arange(num_poses)
    for _ in range(_ATTEMPTS):
        if not len(todo):
            break
        poses_NJ3[todo] = _draw_poses(rng, keypoints_K3, len(todo))
        todo = todo[collides(poses_NJ3[todo], keypoints_K3)]
    while len(todo):  # rare, and an open hand never collides
        poses_NJ3[todo] *= 0.8
        todo = todo[collides(poses_NJ3[todo], keypoints_K3) & (np.abs(poses_NJ3[todo]).max(axis=(1, 2)) > 0.1)]
    return poses_NJ3


def _draw_poses(rng: np.random.Generator, keypoints_K3: Floats, num: int) -> Floats:
    pairs_N2 = rng.integers(0, len(_GRASPS), (num, 2))
    between_N1 = rng.beta(0.6, 0.6, (num, 1))
    value_NV = (1 - between_N1) * _GRASPS[pairs_N2[:, 0]] + between_N1 * _GRASPS[pairs_N2[:, 1]]
    value_NV[:, :8] += rng.normal(0.0, _MOVE_AT_ONCE, (num, 1))
    value_NV += rng.normal(0.0, _MOVE_ALONE, value_NV.shape)
    value_NV[:, :8] = np.clip(value_NV[:, :8], 0.0, 1.0)
    value_NV[:, 8:] = np.clip(value_NV[:, 8:], [-1.0, -0.25, -0.5, 0.0], 1.0)
    third_N4 = value_NV[:, 1:8:2] * rng.normal(1.0, 0.15, (num, 4))  # the last knuckle follows the second
    down, thumbward = np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, 1.0])
    turns_NJ33 = np.tile(np.eye(3), (num, len(HAND_PARENTS), 1, 1))
    along_middle = _unit(keypoints_K3[5] - keypoints_K3[4])
    for slot in range(4):
        first = 3 * slot + 1
        along = _unit(keypoints_K3[first + 1] - keypoints_K3[first])
        bend_axis, spread_axis = _unit(np.cross(along, down)), np.cross(along_middle, thumbward)
        apart = np.arcsin(np.cross(along_middle, along) @ spread_axis)
        first_N, second_N = value_NV[:, 2 * slot], value_NV[:, 2 * slot + 1]
        for knuckle, bend_N in enumerate((first_N, second_N, third_N4[:, slot])):
            low, high = _BEND_RAD[knuckle]
            turn_N3 = (low + (high - low) * bend_N)[:, None] * bend_axis
            turns_NJ33[:, first + knuckle] = matrix_from_axis_angle(turn_N3)
        spread_N = apart * ((1 - first_N) * value_NV[:, 8] - first_N)
        turns_NJ33[:, first] = matrix_from_axis_angle(spread_N[:, None] * spread_axis) @ turns_NJ33[:, first]
    swing_N1, down_N1, bent_N1 = value_NV[:, 9:].T[..., None]
    along = _unit(keypoints_K3[14] - keypoints_K3[13])
    palm = np.linalg.norm(keypoints_K3[4] - keypoints_K3[0])
    bend_axis = _unit(np.cross(along, keypoints_K3[7] + 0.4 * palm * down - keypoints_K3[14]))
    inward_axis, down_axis = np.cross(thumbward, along_middle), _unit(np.cross(along, down))
    roll_axis = -np.sign(along_middle[0]) * along  # axes that come from cross products change hands by themselves
    turns_NJ33[:, 13] = (
        matrix_from_axis_angle(inward_axis * _THUMB_RAD[0] * swing_N1)
        @ matrix_from_axis_angle(down_axis * _THUMB_RAD[1] * down_N1)
        @ matrix_from_axis_angle(roll_axis * _THUMB_RAD[2] * swing_N1)
        @ matrix_from_axis_angle(bend_axis * _THUMB_RAD[3] * bent_N1)
    )
    turns_NJ33[:, 14] = matrix_from_axis_angle(bend_axis * _THUMB_RAD[4] * bent_N1)
    turns_NJ33[:, 15] = matrix_from_axis_angle(bend_axis * _THUMB_RAD[5] * bent_N1)
    return axis_angle_from_matrix(turns_NJ33)


def collides(poses_NJ3: Floats, keypoints_K3: Floats) -> npt.NDArray[np.bool_]:
    """Which poses push a finger into another or into the palm, by points along the bones."""
    num, num_joints = len(poses_NJ3), len(HAND_PARENTS)
    turns_NJ33 = matrix_from_axis_angle(poses_NJ3)
    placed_NJ3 = np.zeros((num, num_joints, 3)) + keypoints_K3[:num_joints]
    ends_NJ3 = np.zeros((num, num_joints, 3))
    for joint, parent in enumerate(HAND_PARENTS[1:], start=1):
        if parent:
            placed_NJ3[:, joint] = ends_NJ3[:, parent]
            turns_NJ33[:, joint] = turns_NJ33[:, parent] @ turns_NJ33[:, joint]
        finger, knuckle = divmod(joint - 1, 3)
        tip = num_joints + TIPS.index(FINGERS[finger])
        bone = keypoints_K3[joint + 1 if knuckle < 2 else tip] - keypoints_K3[joint]
        ends_NJ3[:, joint] = placed_NJ3[:, joint] + turns_NJ33[:, joint] @ bone
    steps_4 = np.array([0.2, 0.45, 0.7, 0.95])[:, None]
    points_NQ3 = placed_NJ3[:, 1:, None] * (1 - steps_4) + ends_NJ3[:, 1:, None] * steps_4
    points_N5Q3 = points_NQ3.reshape(num, 5, 12, 3)
    palm = np.linalg.norm(keypoints_K3[4] - keypoints_K3[0])
    bad_N = np.zeros(num, dtype=bool)
    for one in range(5):
        for other in range(one):
            gap = points_N5Q3[:, one, :, None] - points_N5Q3[:, other, None]
            bad_N |= (np.square(gap).sum(axis=-1) < (_FINGER_GAP * palm) ** 2).any(axis=(1, 2))
    low, high = keypoints_K3[[7, 1], 2]
    over_palm = (np.abs(points_NQ3[..., 0]) < 0.85 * palm) & (points_NQ3[..., 2] > low) & (points_NQ3[..., 2] < high)
    inside = over_palm & (points_NQ3[..., 1] > -_PALM_DEPTH * palm)
    inside[:, 12] = False  # the thumb's first bone is part of the palm
    return np.asarray(bad_N | inside.any(axis=(1, 2)))


def _unit(vector: Floats) -> Floats:
    return np.asarray(vector / np.linalg.norm(vector))


__all__ = ["FINGERS", "HAND_JOINT_NAMES", "HAND_PARENTS", "TIPS", "collides", "sample_hand_poses"]
