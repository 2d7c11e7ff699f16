"""Moves SMPL's 24 joints as a recorded skeleton moved, whatever its names, its number of joints and its rest pose.

Limbs are found by name, trunk and neck by what lies between them. Each limb of ours points where the recorded one does: at
rest, in a T-pose or an A-pose, ours is turned onto it by the shortest way; from there both turn alike. Trunk, neck, collars and
feet take over the recorded turns alone: where a skeleton puts those joints differs more than how people hold them.

Convention: a skeleton at rest stands upright along the axes of its room, as BVH and ASF files do.
Shape letters: T instants, J joints of the recording.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.errors import SyntheticError
from synthetic.models.makehuman import PARENTS
from synthetic.motion.clip import REST_HIP_M, REST_J3, Clip, on_floor
from synthetic.motion.mocap import Mocap
from synthetic.rotations import align, axis_angle_from_matrix, matrix_from_axis_angle

Floats = npt.NDArray[np.float64]

# What limbs are called without "left" or "right", the surest name first: a shoulder is an upper arm only where no joint is
# called arm, and a hand is the wrist only where none is.
NAMES = {
    "thigh": ("upleg", "upperleg", "thigh", "femur", "hip"),
    "shin": ("knee", "shin", "calf", "tibia", "lowerleg", "lowleg", "leg"),
    "foot": ("ankle", "foot"),
    "upper arm": ("upperarm", "uparm", "humerus", "arm", "shldr", "shoulder"),
    "forearm": ("forearm", "lowerarm", "lowarm", "elbow", "radius"),
    "hand": ("wrist", "hand"),
}
_SIDES = {"left": "left", "right": "right", "l": "left", "r": "right"}
# Each limb: its joint, the joint it ends at, and ours of the left side; those of the right side are one more.
_LIMBS = (
    ("thigh", "shin", 1, 4), ("shin", "foot", 4, 7), ("upper arm", "forearm", 16, 18), ("forearm", "hand", 18, 20),
)  # fmt: skip
_UPRIGHT = 0.8  # cosine between the trunk at rest and an axis of the room
_LEGS_DOWN = 0.5
_SHORT_M = 0.01


def retarget(mocap: Mocap, *, name: str, where: Path) -> Clip:
    """Turn a recording into a clip of ours.

    Args:
        mocap: the recording.
        name: of the clip.
        where: its file, for messages.

    Raises:
        SyntheticError: limbs are not found by their names, or the skeleton at rest does not stand upright.
    """
    limbs = _find_limbs(mocap, where)
    rest_J3 = _places(mocap.parents, mocap.offsets_J3)
    theirs_from_ours = _upright_frame(limbs, rest_J3, where)
    rest_J3 = rest_J3 @ theirs_from_ours
    turn_TJ33 = np.empty_like(mocap.turns_TJ33)  # of each joint in the room, in our axes
    place_TJ3 = np.empty(mocap.turns_TJ33.shape[:3])
    for joint, parent in enumerate(mocap.parents):
        local = theirs_from_ours.T @ mocap.turns_TJ33[:, joint] @ theirs_from_ours
        offset = mocap.offsets_J3[joint] @ theirs_from_ours
        turn_TJ33[:, joint] = turn_TJ33[:, parent] @ local if parent >= 0 else local
        place_TJ3[:, joint] = (
            place_TJ3[:, parent] + turn_TJ33[:, parent] @ offset if parent >= 0 else mocap.root_T3 @ theirs_from_ours
        )
    ours_T33 = _our_turns(mocap, limbs, rest_J3, turn_TJ33, where)
    pose_TJ3 = np.stack(
        [
            axis_angle_from_matrix(np.swapaxes(ours_T33[parent], -1, -2) @ ours_T33[joint] if joint else ours_T33[0])
            for joint, parent in enumerate(PARENTS)
        ],
        axis=1,
    )
    thighs = [limbs[f"{side} thigh"] for side in ("left", "right")]
    hip_m = _hip_height(limbs, rest_J3)
    return Clip(
        name=name,
        pose_TJ3=pose_TJ3,
        trans_T3=on_floor(pose_TJ3, place_TJ3[:, thighs].mean(axis=1), hip_m=hip_m),
        fps=mocap.fps,
        hip_m=hip_m,
    )


def _our_turns(mocap: Mocap, limbs: dict[str, int], rest_J3: Floats, turn_TJ33: Floats, where: Path) -> list[Floats]:
    """How each of our 24 joints is turned in the room, (T, 3, 3) each."""
    parents = mocap.parents
    hips = _meeting(parents, limbs["left thigh"], limbs["right thigh"])
    chest = _meeting(parents, limbs["left upper arm"], limbs["right upper arm"])
    spine = [turn_TJ33[:, joint] for joint in (hips, *_between(parents, hips, chest))]
    neck = [turn_TJ33[:, joint] for joint in (chest, *_between(parents, chest, limbs["head"]))]
    turns = {0: spine[0], 12: _part_way(neck, 1 / 2), 15: neck[-1]}
    turns |= {joint: _part_way(spine, share) for joint, share in ((3, 1 / 3), (6, 2 / 3), (9, 1.0))}
    for side, right in (("left", 0), ("right", 1)):
        turns[13 + right] = turn_TJ33[:, parents[limbs[f"{side} upper arm"]]]
        for part, end, joint, child in _LIMBS:
            theirs = rest_J3[limbs[f"{side} {end}"]] - rest_J3[limbs[f"{side} {part}"]]
            if np.linalg.norm(theirs) < _SHORT_M:
                raise SyntheticError(f"the {side} {part} has no length", where=where, hint="export the skeleton again")
            onto = align(REST_J3[child + right] - REST_J3[joint + right], theirs)
            turns[joint + right] = turn_TJ33[:, limbs[f"{side} {part}"]] @ onto
            if part == "forearm":  # the hand lies along it at rest
                turns[20 + right] = turn_TJ33[:, limbs[f"{side} hand"]] @ onto
        turns[22 + right] = turns[20 + right]
        foot = limbs[f"{side} foot"]
        toes = [joint for joint, parent in enumerate(parents) if parent == foot]
        onto = np.eye(3)
        if toes:  # at rest the sole is flat, whatever the height of its joints
            level = (rest_J3[toes[0]] - rest_J3[foot]) * (1, 0, 1)
            if np.linalg.norm(level) > _SHORT_M:
                onto = align((REST_J3[10 + right] - REST_J3[7 + right]) * (1, 0, 1), level)
        turns[7 + right] = turn_TJ33[:, foot] @ onto
        turns[10 + right] = turn_TJ33[:, toes[0]] @ onto if toes else turns[7 + right]
    return [turns[joint] for joint in range(24)]


def _part_way(chain: list[Floats], share: float) -> Floats:
    """The turn at this share of a chain of turns; a chain of one is rigid."""
    at = share * (len(chain) - 1)
    low = min(int(at + 1e-9), max(len(chain) - 2, 0))
    if len(chain) == 1 or at - low < 1e-9:
        return chain[low]
    step = axis_angle_from_matrix(np.swapaxes(chain[low], -1, -2) @ chain[low + 1])
    return chain[low] @ matrix_from_axis_angle(step * (at - low))


# ------------------------------------------------------------------------------------------------------------- skeleton


def _readings(name: str) -> Iterator[tuple[str, str]]:
    """All ways to read a joint's name as (side, what it is): "Bip01 L UpperArm", "upperarm01.R", "LeftArm", "rfemur"."""
    words = [word.rstrip("0123456789") for word in re.split("[^a-z0-9]+", name.lower())]
    words = [word for word in words if word]
    for place, word in enumerate(words):
        if word in _SIDES:
            yield _SIDES[word], "".join(words[place + 1 :])
            yield from ((_SIDES[word], "".join(words[start:place])) for start in range(place))
    for start in range(len(words)):
        joined = "".join(words[start:])
        yield "", joined
        for word, side in _SIDES.items():
            if joined.startswith(word):
                yield side, joined[len(word) :]
            if len(word) > 1 and joined.endswith(word):
                yield side, joined[: -len(word)]


def _find_limbs(mocap: Mocap, where: Path) -> dict[str, int]:
    """Joints by what they are, as "left thigh" and "head"."""
    readings = [set() if name.endswith(" end") else set(_readings(name)) for name in mocap.names]
    wanted = {f"{side} {part}": (side, names) for side in ("left", "right") for part, names in NAMES.items()}
    wanted["head"] = ("", ("head",))
    found: dict[str, int] = {}
    for limb, (side, names) in wanted.items():
        fitting = [joint for name in names for joint, known in enumerate(readings) if (side, name) in known]
        if fitting:
            found[limb] = fitting[0]
    for side in ("left", "right"):
        for upper, lower, _, _ in _LIMBS:
            pair = [found.get(f"{side} {part}") for part in (upper, lower)]
            if None not in pair and pair[0] not in _upwards(mocap.parents, pair[1])[1:]:
                del found[f"{side} {lower}"]  # of that name, and no part of this limb
    missing = [limb for limb in wanted if limb not in found]
    if missing:
        known = {limb: ", ".join(wanted[limb][1]) for limb in missing}
        raise SyntheticError(
            f"the skeleton has no {'; no '.join(f'{limb} ({names})' for limb, names in known.items())}",
            where=f"{where}: {', '.join(name for name in mocap.names if not name.endswith(' end'))[:600]}",
            hint="rename the joints, with left or right (or l, r) and one of the names in brackets",
        )
    return found


def _upwards(parents: tuple[int, ...], joint: int | None) -> list[int]:
    """A joint, its parent, and so on up to the root."""
    path = []
    while joint is not None and joint >= 0:
        path.append(joint)
        joint = parents[joint]
    return path


def _meeting(parents: tuple[int, ...], one: int, other: int) -> int:
    """The lowest joint from which both hang."""
    above = set(_upwards(parents, one))
    return next(joint for joint in _upwards(parents, other) if joint in above)


def _between(parents: tuple[int, ...], start: int, end: int) -> list[int]:
    """The joints on the way down to `end`, from below where it parts from the way to `start`."""
    above = set(_upwards(parents, start))
    return [joint for joint in _upwards(parents, end) if joint not in above][::-1]


def _places(parents: tuple[int, ...], offsets_J3: Floats) -> Floats:
    place_J3 = np.zeros_like(offsets_J3)
    for joint, parent in enumerate(parents):
        if parent >= 0:
            place_J3[joint] = place_J3[parent] + offsets_J3[joint]
    return place_J3


def _upright_frame(limbs: dict[str, int], rest_J3: Floats, where: Path) -> Floats:
    """The skeleton's left, up and forward, (3, 3) in columns: axes of its room, as they are nearest."""
    ends = {part: rest_J3[[limbs[f"{side} {part}"] for side in ("left", "right")]] for part in NAMES}
    trunk = ends["upper arm"].mean(axis=0) - ends["thigh"].mean(axis=0)
    across = ends["upper arm"][0] - ends["upper arm"][1] + ends["thigh"][0] - ends["thigh"][1]
    up, left = (np.eye(3)[np.abs(v).argmax()] * np.sign(v[np.abs(v).argmax()]) for v in (trunk, across))
    legs = (ends["foot"] - ends["thigh"]) @ -up / np.maximum(np.linalg.norm(ends["foot"] - ends["thigh"], axis=1), 1e-9)
    straight = min(float(v @ axis) / max(float(np.linalg.norm(v)), 1e-9) for v, axis in ((trunk, up), (across, left)))
    if straight < _UPRIGHT or abs(up @ left) > 0 or legs.min() < _LEGS_DOWN:
        raise SyntheticError(
            "the skeleton at rest, with all rotations zero, does not stand upright along the axes",
            where=where,
            hint="export it with a T-pose or an A-pose as its rest pose",
        )
    return np.stack([left, up, np.cross(left, up)], axis=1)


def _hip_height(limbs: dict[str, int], rest_J3: Floats) -> float:
    """How high the hips are in standing, from the length of the legs; ankles and soles as ours are to our legs."""
    legs = [[rest_J3[limbs[f"{side} {part}"]] for part in ("thigh", "shin", "foot")] for side in ("left", "right")]
    theirs = np.mean([np.linalg.norm(np.diff(leg, axis=0), axis=1).sum() for leg in legs])
    ours = np.linalg.norm(np.diff(REST_J3[[1, 4, 7]], axis=0), axis=1).sum()
    return float(REST_HIP_M * theirs / ours)
