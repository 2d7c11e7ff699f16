"""Reads motion capture as it is given away: BVH, and Acclaim's ASF (a skeleton) with AMC (its motion).

Neither tells its unit of length: it is guessed from the size of the person, see `Mocap.unit`. AMC does not tell its rate: 120
a second are assumed, as in CMU's and HDM05's collections.

Convention: a joint's rotation acts on column vectors in the frame of its parent; at rest all frames are the file's own.
Rotations of BVH are multiplied in the order in which a joint's channels are listed. Acclaim's axis "XYZ" turns around X first.
Shape letters: T instants, J joints.
"""

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from manifests.errors import SyntheticError
from synthetic.motion.clip import thinning
from synthetic.rotations import matrix_from_axis_angle

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

MAX_FILE_BYTES = 128 * 2**20  # some hundred thousand frames
MAX_JOINTS = 1000
AMC_FPS = 120.0
_SANE = 1e9
_CMU_M = 0.0254 / 0.45
_UNITS = (("metres", 1.0), ("centimetres", 0.01), ("millimetres", 0.001), ("inches", 0.0254), ("inches / 0.45", _CMU_M))
_PERSON_M = (1.3, 2.3)  # height, or span of the arms
_TYPICAL_M = 1.7
_HINT = "export or download the file again, or take it out of the folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mocap:
    """A recording in its own skeleton.

    Attributes:
        names: of the joints; the ends of limbs are joints too, called as their parent with " end" behind.
        parents: index of each joint's parent, smaller than its own; -1 for the root.
        offsets_J3: (J, 3) from the parent at rest, metres, along the file's axes.
        turns_TJ33: (T, J, 3, 3) rotations relative to the parent.
        root_T3: (T, 3) place of the root, metres.
        fps: instants per second.
        unit: which unit of length was assumed.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets_J3: Floats
    turns_TJ33: Floats
    root_T3: Floats
    fps: float
    unit: str


class _Reader:
    """A text file, line by line; knows where it is when something is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise SyntheticError(
                    f"the file has {path.stat().st_size} bytes, more than {MAX_FILE_BYTES}", where=path, hint=_HINT
                )
            self._lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise SyntheticError(f"the file cannot be read: {error.strerror}", where=path, hint=_HINT) from error

    def __iter__(self) -> Iterator[list[str]]:
        """The words of each line from here on that has any and is no comment."""
        while self.number < len(self._lines):
            self.number += 1
            words = self._lines[self.number - 1].split()
            if words and not words[0].startswith("#"):
                yield words

    def fail(self, what: str) -> NoReturn:
        """Refuse the file for what is wrong in this line."""
        raise SyntheticError(what, where=f"{self.path} line {self.number}", hint=_HINT)

    def numbers(self, words: list[str], count: int | None = None) -> list[float]:
        """Read numbers of a sane size, so many if it is told."""
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = [math.nan]
        if not all(abs(value) < _SANE for value in values) or (count is not None and len(values) != count):
            self.fail(f"expected {'numbers' if count is None else f'{count} numbers'}, found {' '.join(words)[:60]!r}")
        return values


def _euler(angles_TN: Floats, order: str) -> Floats:
    """Product of the rotations (T,) about the axes named in `order`, the first leftmost: (T, 3, 3)."""
    turn_T33 = np.broadcast_to(np.eye(3), (len(angles_TN), 3, 3))
    for place, axis in enumerate(order):
        turn_T33 = turn_T33 @ matrix_from_axis_angle(angles_TN[:, place, None] * np.eye(3)["XYZ".index(axis)])
    return np.asarray(turn_T33)


def _unit(offsets_J3: Floats, parents: list[int], told: tuple[tuple[str, float], ...], path: Path) -> tuple[str, float]:
    """The unit in which the skeleton is as large as a person, and its length in metres."""
    place_J3 = np.zeros_like(offsets_J3)
    for joint, parent in enumerate(parents):
        if parent >= 0:
            place_J3[joint] = place_J3[parent] + offsets_J3[joint]
    size = float(np.ptp(place_J3, axis=0).max())
    if size <= 0:
        raise SyntheticError("the skeleton has no size: all offsets are zero", where=path, hint=_HINT)
    fitting = [unit for unit in (*told, *_UNITS) if _PERSON_M[0] <= size * unit[1] <= _PERSON_M[1]]
    unknown = (f"unknown, taken so that the person is {_TYPICAL_M} m long", _TYPICAL_M / size)
    name, metres = min(fitting, key=lambda unit: abs(math.log(size * unit[1] / _TYPICAL_M)), default=unknown)
    logger.info("%s: unit of length %s; the skeleton measures %.2f m", path.name, name, size * metres)
    return name, metres


# ------------------------------------------------------------------------------------------------------------------ BVH


@dataclass(slots=True)
class _Tree:
    names: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    offsets: list[list[float]] = field(default_factory=list)
    channels: list[tuple[str, ...]] = field(default_factory=list)  # as "Xposition", in capitals


def read_bvh(path: Path, *, every: int | None = None) -> Mocap:
    """Read a BVH file of one skeleton.

    Position channels of joints other than the root are passed over: limbs keep their length.

    Args:
        path: the file.
        every: take every n-th instant; by default as many as make about 30 a second.

    Raises:
        SyntheticError: the file is missing, too large, damaged, or holds several skeletons.
    """
    reader = _Reader(path)
    tree = _bvh_tree(reader)
    width = sum(map(len, tree.channels))
    num_frames, seconds = _bvh_header(reader)
    every = every or thinning(1.0 / seconds)
    rows, num_seen = [], 0
    for words in reader:
        if len(words) != width:
            reader.fail(f"a frame has {width} numbers, one for each channel; this line has {len(words)}")
        if num_seen % every == 0:
            rows.append(reader.numbers(words))
        num_seen += 1
    if num_seen != num_frames:
        reader.fail(f"the file tells of {num_frames} frames and holds {num_seen}: it was cut off or changed by hand")
    data_TC = np.array(rows)
    unit, metres = _unit(np.array(tree.offsets), tree.parents, (), path)
    turns_TJ33 = np.empty((len(data_TC), len(tree.names), 3, 3))
    root_T3 = np.tile(np.array(tree.offsets[0]), (len(data_TC), 1))
    column = 0
    for joint, channels in enumerate(tree.channels):
        values = dict(zip(channels, data_TC[:, column : column + len(channels)].T, strict=True))
        column += len(channels)
        order = "".join(name[0] for name in channels if name.endswith("ROTATION"))
        angles = [np.deg2rad(values[f"{axis}ROTATION"]) for axis in order]
        turns_TJ33[:, joint] = _euler(np.stack(angles, axis=1), order) if order else np.eye(3)
        if joint == 0:
            for place, axis in enumerate("XYZ"):
                root_T3[:, place] = values.get(f"{axis}POSITION", root_T3[:, place])
    return Mocap(
        names=tuple(tree.names),
        parents=tuple(tree.parents),
        offsets_J3=np.array(tree.offsets) * metres,
        turns_TJ33=turns_TJ33,
        root_T3=root_T3 * metres,
        fps=1.0 / (seconds * every),
        unit=unit,
    )


def _bvh_tree(reader: _Reader) -> _Tree:
    tree, open_joints = _Tree(), list[int]()
    started = declared = False
    for words in reader:
        head = words[0].upper()
        if declared != (head == "{"):
            reader.fail(f"expected {'a brace after a joint' if declared else 'a joint before a brace'}")
        if head == "HIERARCHY":
            started = True
        elif not started:
            reader.fail("a BVH file starts with HIERARCHY")
        elif head == "MOTION":
            break
        elif head in ("ROOT", "JOINT", "END"):
            name = " ".join(words[1:]).rstrip("{ ")
            if (head == "ROOT") != (not tree.names):
                reader.fail("a file of one skeleton has one ROOT, before all joints")
            if tree.names and not open_joints:
                reader.fail(f"{head} {name} stands outside of the root's braces")
            if len(tree.names) >= MAX_JOINTS:
                reader.fail(f"the skeleton has more than {MAX_JOINTS} joints")
            parent = open_joints[-1] if open_joints else -1
            tree.names.append(f"{tree.names[parent]} end" if head == "END" else name)
            tree.parents.append(parent)
            tree.offsets.append([0.0, 0.0, 0.0])
            tree.channels.append(())
            declared = not words[-1].endswith("{")
            if not declared:
                open_joints.append(len(tree.names) - 1)
        elif head == "{":
            open_joints.append(len(tree.names) - 1)
            declared = False
        elif head == "}":
            if not open_joints:
                reader.fail("a brace is closed that was not opened")
            open_joints.pop()
        elif head in ("OFFSET", "CHANNELS") and open_joints:
            if head == "OFFSET":
                tree.offsets[open_joints[-1]] = reader.numbers(words[1:], 3)
            else:
                tree.channels[open_joints[-1]] = _bvh_channels(reader, words)
        else:
            reader.fail(f"{' '.join(words)[:60]!r} is no part of a BVH skeleton")
    else:
        reader.fail("there is no MOTION: the file ends within its skeleton")
    if open_joints or not tree.names:
        reader.fail("the skeleton is not complete: a brace is missing")
    return tree


def _bvh_channels(reader: _Reader, words: list[str]) -> tuple[str, ...]:
    names = tuple(word.upper() for word in words[2:])
    known = all(re.fullmatch("[XYZ](POSITION|ROTATION)", name) for name in names)
    if not known or len(set(names)) != len(names) or words[1:2] != [str(len(names))]:
        reader.fail("CHANNELS is a count and as many names, as `3 Zrotation Xrotation Yrotation`")
    return names


def _bvh_header(reader: _Reader) -> tuple[int, float]:
    lines = iter(reader)
    first, second = next(lines, []), next(lines, [])
    if [w.upper() for w in first[:1]] != ["FRAMES:"] or [w.upper() for w in second[:2]] != ["FRAME", "TIME:"]:
        reader.fail("MOTION is followed by `Frames: N` and `Frame Time: SECONDS`")
    (num_frames,), (seconds,) = reader.numbers(first[1:], 1), reader.numbers(second[2:], 1)
    if num_frames < 2 or num_frames % 1 or not 1e-4 < seconds < 10:
        reader.fail(f"{num_frames:g} frames of {seconds:g} seconds are no motion")
    return int(num_frames), seconds


# -------------------------------------------------------------------------------------------------------------- ASF/AMC


@dataclass(slots=True)
class _Bone:
    vector: Floats
    frame_33: Floats
    order: str
    dof: tuple[str, ...]


@dataclass(slots=True)
class _Skeleton:
    bones: dict[str, _Bone]
    children: dict[str, list[str]]
    degrees: bool
    root_position: list[float]
    told_unit: tuple[tuple[str, float], ...]


def asf_of(path: Path) -> Path:
    """The skeleton of an AMC file: the ASF beside it whose name it starts with (`01.asf` of `01_01.amc`), or the only one.

    Raises:
        SyntheticError: there is none.
    """
    beside = sorted(file for file in path.parent.glob("*") if file.suffix.lower() == ".asf")
    fitting = [file for file in beside if path.stem.lower().startswith(file.stem.lower())]
    fitting = fitting or (beside if len(beside) == 1 else [])
    if not fitting:
        raise SyntheticError(
            f"the motion {path.name} has no skeleton",
            where=path.parent,
            hint=f"put its .asf beside it, under a name that {path.stem} starts with",
        )
    return max(fitting, key=lambda file: len(file.stem))


def read_amc(path: Path, skeleton: Path | None = None, *, every: int | None = None) -> Mocap:
    """Read an AMC file and the ASF file of its skeleton; limits of joints are passed over.

    Args:
        path: the .amc file.
        skeleton: the .asf file; by default `asf_of(path)`.
        every: take every n-th instant; by default as many as make about 30 a second.

    Raises:
        SyntheticError: a file is missing, too large or damaged.
    """
    asf = _read_asf(skeleton or asf_of(path))
    names, parents, offsets = ["root"], [-1], [np.zeros(3)]
    waiting = [("root", 0)]
    while waiting:
        name, joint = waiting.pop()
        vector = asf.bones[name].vector
        for child in asf.children.get(name, ()):
            waiting.append((child, len(names)))
            names.append(child)
            parents.append(joint)
            offsets.append(vector)
        if name != "root" and not asf.children.get(name):
            names.append(f"{name} end")
            parents.append(joint)
            offsets.append(vector)
    every = every or thinning(AMC_FPS)
    values, degrees = _read_amc_frames(path, asf, every)
    unit, metres = _unit(np.array(offsets), parents, asf.told_unit, path)
    num_frames = len(values["root"])
    turns_TJ33 = np.tile(np.eye(3), (num_frames, len(names), 1, 1))
    for joint, name in enumerate(names):
        bone = asf.bones.get(name)
        if bone is not None and bone.dof:
            columns = {dof: values[name][:, place] for place, dof in enumerate(bone.dof)}
            order = bone.order[::-1]
            angles_T3 = np.stack([columns.get(f"r{a.lower()}", np.zeros(num_frames)) for a in order], axis=1)
            turn_T33 = _euler(np.deg2rad(angles_T3) if degrees else angles_T3, order)
            turns_TJ33[:, joint] = bone.frame_33 @ turn_T33 @ bone.frame_33.T
    root = asf.bones["root"].dof
    root_T3 = np.stack([values["root"][:, root.index(f"t{axis}")] for axis in "xyz"], axis=1)
    return Mocap(
        names=tuple(names),
        parents=tuple(parents),
        offsets_J3=np.array(offsets) * metres,
        turns_TJ33=turns_TJ33,
        root_T3=(root_T3 + asf.root_position) * metres,
        fps=AMC_FPS / every,
        unit=unit,
    )


def _read_asf(path: Path) -> _Skeleton:
    reader = _Reader(path)
    asf = _Skeleton({}, {}, True, [0.0, 0.0, 0.0], ())
    section, block = "", dict[str, list[str]]()
    root_dof: tuple[str, ...] = ("tx", "ty", "tz", "rx", "ry", "rz")
    root_order = "XYZ"
    for words in reader:
        head = words[0].lower()
        if head.startswith(":"):
            section = head[1:]
        elif section == "units" and head == "angle":
            asf.degrees = not words[-1].lower().startswith("rad")
        elif section == "units" and head == "length":
            (length,) = reader.numbers(words[1:], 1)
            asf.told_unit = ((f"inches / {length:g}", 0.0254 / length),) if length > 0 else ()
        elif section == "root":
            if head == "order":
                root_dof = tuple(word.lower() for word in words[1:])
                if sorted(root_dof) != ["rx", "ry", "rz", "tx", "ty", "tz"]:
                    reader.fail("the root's order names TX TY TZ RX RY RZ, each once")
            elif head == "axis":
                root_order = _axis_order(reader, words[1:])
            elif head == "position":
                asf.root_position = reader.numbers(words[1:], 3)
            elif head == "orientation" and any(reader.numbers(words[1:], 3)):
                reader.fail("a root with an orientation of its own is not read")
        elif section == "bonedata":
            if head == "begin":
                block = {}
            elif head == "end":
                _add_bone(reader, asf, block)
            else:
                block[head] = words[1:]
        elif section == "hierarchy" and head not in ("begin", "end"):
            asf.children.setdefault(words[0], []).extend(words[1:])
    asf.bones["root"] = _Bone(np.zeros(3), np.eye(3), root_order, root_dof)
    placed = [child for children in asf.children.values() for child in children]
    unknown = [name for name in (*asf.children, *placed) if name not in asf.bones]
    if unknown or len(set(placed)) != len(placed) or "root" in placed or not asf.children.get("root"):
        reader.fail(
            f"the hierarchy names {unknown[0]}, which has no bone data"
            if unknown
            else "the hierarchy is no tree below root"
        )
    return asf


def _axis_order(reader: _Reader, words: list[str]) -> str:
    order = "".join(words).upper()
    if sorted(order) != ["X", "Y", "Z"]:
        reader.fail(f"an axis is an order as XYZ, not {order[:60]!r}")
    return order


def _add_bone(reader: _Reader, asf: _Skeleton, block: dict[str, list[str]]) -> None:
    name = " ".join(block.get("name", ()))
    missing = [key for key in ("name", "direction", "length", "axis") if not block.get(key)]
    if missing or name in asf.bones or len(asf.bones) >= MAX_JOINTS:
        reader.fail(
            f"bone {name or 'without a name'} lacks {missing[0]}" if missing else f"bone {name} is one too many"
        )
    direction = np.array(reader.numbers(block["direction"], 3))
    (length,) = reader.numbers(block["length"], 1)
    angles = np.array([reader.numbers(block["axis"][:3], 3)])
    order = _axis_order(reader, block["axis"][3:])
    by_axis = angles[:, ["XYZ".index(axis) for axis in order[::-1]]]
    dof = tuple(word.lower() for word in block.get("dof", ()))
    if not set(dof) <= {"rx", "ry", "rz", "tx", "ty", "tz", "l"} or len(set(dof)) != len(dof):
        reader.fail(f"bone {name} has the degrees of freedom {' '.join(dof)[:60]}; known are rx ry rz tx ty tz l")
    asf.bones[name] = _Bone(
        vector=direction * length,
        frame_33=_euler(np.deg2rad(by_axis) if asf.degrees else by_axis, order[::-1])[0],
        order=order,
        dof=dof,
    )


def _read_amc_frames(path: Path, asf: _Skeleton, every: int) -> tuple[dict[str, Floats], bool]:
    """Values (T, dof) of each bone, and whether angles are degrees."""
    reader = _Reader(path)
    moved = {name: bone.dof for name, bone in asf.bones.items() if bone.dof}
    frames: list[dict[str, list[float]]] = []
    frame: dict[str, list[float]] = {}
    degrees, num_seen = asf.degrees, 0

    def close() -> None:
        missing = [name for name in moved if name not in frame]
        if missing:
            reader.fail(f"a frame before this line lacks the bone {missing[0]}")
        frames.append(dict(frame))

    for words in reader:
        if words[0].startswith(":"):
            degrees = {":DEGREES": True, ":RADIANS": False}.get(words[0].upper(), degrees)
        elif len(words) == 1 and words[0].isdigit():
            if frame and (num_seen - 1) % every == 0:
                close()
            frame = {}
            num_seen += 1
        elif words[0] not in moved or not num_seen:
            reader.fail(f"{words[0][:60]!r} is no moving bone of the skeleton")
        elif len(words) - 1 != len(moved[words[0]]):
            reader.fail(f"{words[0]} moves by {len(moved[words[0]])} numbers; this line has {len(words) - 1}")
        elif (num_seen - 1) % every == 0:
            frame[words[0]] = reader.numbers(words[1:])
    if frame:
        close()
    if len(frames) < 2:
        reader.fail(f"{num_seen} frames are no motion")
    return {name: np.array([one[name] for one in frames]) for name in moved}, degrees
