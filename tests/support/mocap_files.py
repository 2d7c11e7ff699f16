"""Motion capture files with known rotations, made in a test: BVH, ASF with AMC, and AMASS in both releases."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from synthetic.motion.clip import Clip

# A person in a T-pose, metres: y up, facing +z. Names as most BVH files have them.
_REST = (
    ("Hips", None, (0, 0.9, 0)),
    ("Spine", "Hips", (0, 0.1, 0)), ("Spine1", "Spine", (0, 0.15, 0)), ("Spine2", "Spine1", (0, 0.15, 0)),
    ("Neck", "Spine2", (0, 0.16, 0)), ("Head", "Neck", (0, 0.1, 0.02)), ("Head end", "Head", (0, 0.2, 0)),
    *((name.replace("Left", side), parent.replace("Left", side), (sign * x, y, z)) for side, sign in (("Left", 1), ("Right", -1))
      for name, parent, (x, y, z) in (
        ("LeftShoulder", "Spine2", (0.05, 0.1, 0)), ("LeftArm", "LeftShoulder", (0.13, 0, 0)),
        ("LeftForeArm", "LeftArm", (0.28, 0, 0)), ("LeftHand", "LeftForeArm", (0.25, 0, 0)),
        ("LeftHand end", "LeftHand", (0.1, 0, 0)), ("LeftUpLeg", "Hips", (0.1, -0.02, 0)),
        ("LeftLeg", "LeftUpLeg", (0, -0.42, 0)), ("LeftFoot", "LeftLeg", (0, -0.42, 0)),
        ("LeftToeBase", "LeftFoot", (0, -0.06, 0.13)), ("LeftToeBase end", "LeftToeBase", (0, 0, 0.06)),
      )),
)  # fmt: skip


@dataclass(frozen=True)
class Puppet:
    """A skeleton; joints called "... end" are ends of limbs and do not turn."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray

    @property
    def turning(self) -> list[int]:
        return [joint for joint, name in enumerate(self.names) if not name.endswith(" end")]

    def children(self, joint: int) -> list[int]:
        return [child for child, parent in enumerate(self.parents) if parent == joint]

    def renamed(self, names: dict[str, str]) -> "Puppet":
        """With other names; the ends of limbs follow."""
        new = [names.get(name.removesuffix(" end"), name.removesuffix(" end")) for name in self.names]
        return replace(self, names=tuple(n + " end" * o.endswith(" end") for n, o in zip(new, self.names, strict=True)))

    def places(self, turns_TJ33: np.ndarray, root_T3: np.ndarray) -> np.ndarray:
        """Joints (T, J, 3) in the room."""
        places, turns = np.empty(turns_TJ33.shape[:3]), turns_TJ33.copy()
        for joint, parent in enumerate(self.parents):
            if parent < 0:
                places[:, joint] = root_T3
                continue
            places[:, joint] = places[:, parent] + turns[:, parent] @ self.offsets[joint]
            turns[:, joint] = turns[:, parent] @ turns_TJ33[:, joint]
        return places


def puppet(*, arms_down_deg: float = 0.0) -> Puppet:
    """The person above; or in an A-pose, arms and legs turned about the axis of their gaze."""
    names = tuple(name for name, _, _ in _REST)
    offsets = np.array([offset for _, _, offset in _REST], dtype=float)
    offsets[0] = 0.0
    for side, sign in (("Left", 1), ("Right", -1)):
        down = Rotation.from_euler("z", -sign * arms_down_deg, degrees=True).as_matrix()
        apart = Rotation.from_euler("z", sign * arms_down_deg / 4, degrees=True).as_matrix()
        for part in ("ForeArm", "Hand", "Hand end"):
            offsets[names.index(side + part)] = down @ offsets[names.index(side + part)]
        for part in ("Leg", "Foot"):
            offsets[names.index(side + part)] = apart @ offsets[names.index(side + part)]
    return Puppet(names, tuple(-1 if p is None else names.index(p) for _, p, _ in _REST), offsets)


def moves(who: Puppet, num_frames: int, seed: int, *, most_deg: float = 40.0) -> tuple[np.ndarray, np.ndarray]:
    """Random rotations (T, J, 3, 3) of all joints that turn, and places of the root (T, 3), metres."""
    rng = np.random.default_rng(seed)
    turns = np.tile(np.eye(3), (num_frames, len(who.names), 1, 1))
    for joint in who.turning:
        angles = rng.uniform(-most_deg, most_deg, (num_frames, 3))
        turns[:, joint] = Rotation.from_euler("ZYX", angles, degrees=True).as_matrix()
    return turns, np.array((0, 1.2, 0)) + rng.uniform(-1, 1, (num_frames, 3))


def write_bvh(
    path: Path,
    who: Puppet,
    turns_TJ33: np.ndarray,
    root_T3: np.ndarray,
    *,
    orders: Sequence[str] = ("ZXY",),
    fps: float = 30.0,
    metres: float = 0.01,
) -> Path:
    """Write a BVH; `orders` are the channel orders of the joints, in turn; `metres` is the unit of length."""
    lines: list[str] = ["HIERARCHY"]
    columns: list[np.ndarray] = []

    def joint(index: int, depth: int) -> None:
        pad, children = "\t" * depth, who.children(index)
        end = who.names[index].endswith(" end")
        kind = "JOINT" if depth else "ROOT"
        lines.append(pad + ("End Site" if end else f"{kind} {who.names[index]}"))
        lines.append(pad + "{")
        lines.append(f"{pad}\tOFFSET {' '.join(f'{v / metres:.6f}' for v in who.offsets[index])}")
        if not end:
            order = orders[index % len(orders)]
            place = "" if depth else "Xposition Yposition Zposition "
            lines.append(f"{pad}\tCHANNELS {3 if depth else 6} {place}{' '.join(f'{axis}rotation' for axis in order)}")
            if not depth:
                columns.append(root_T3 / metres)
            columns.append(Rotation.from_matrix(turns_TJ33[:, index]).as_euler(order, degrees=True))
        for child in children:
            joint(child, depth + 1)
        lines.append(pad + "}")

    joint(0, 0)
    rows = np.concatenate(columns, axis=1)
    lines += ["MOTION", f"Frames: {len(rows)}", f"Frame Time: {1 / fps:.8f}"]
    lines += [" ".join(f"{value:.6f}" for value in row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_amc(
    path: Path,
    who: Puppet,
    turns_TJ33: np.ndarray,
    root_T3: np.ndarray,
    *,
    seed: int = 0,
    degrees: bool = True,
    root_order: str = "TX TY TZ RX RY RZ",
    length: float = 0.45,
) -> Path:
    """Write an AMC, and beside it the ASF of its skeleton with random axes of the bones.

    A bone reaches from its joint to the next; where several joints follow, it has no length and fixed bones lead to them.
    """
    rng = np.random.default_rng(seed)
    metres, angle = 0.0254 / length, 1.0 if degrees else np.pi / 180
    bones: list[str] = []
    tree: dict[str, list[str]] = {}
    axes: dict[int, Rotation] = {}

    def bone(name: str, vector: np.ndarray, axis: np.ndarray, *, moves: bool) -> None:
        size = float(np.linalg.norm(vector)) / metres
        direction = vector / metres / size if size else np.array([1.0, 0.0, 0.0])
        bones.append(
            f"  begin\n    id {len(bones) + 1}\n    name {name}\n    direction {' '.join(map(str, direction))}\n"
            f"    length {size}\n    axis {' '.join(str(a * angle) for a in axis)}  XYZ\n"
            + ("    dof rx ry rz\n    limits (-160.0 20.0)\n           (-70.0 70.0)\n           (-60.0 70.0)\n" if moves else "")
            + "  end"
        )  # fmt: skip

    def joint(index: int, above: str) -> None:
        children = who.children(index)
        name = "root"
        if index:
            name, axis = who.names[index], rng.uniform(-80, 80, 3)
            axes[index] = Rotation.from_euler("xyz", axis, degrees=True)
            straight = len(children) == 1
            bone(name, who.offsets[children[0]] if straight else np.zeros(3), axis, moves=True)
            tree.setdefault(above, []).append(name)
        for child in children:
            over = name
            if not index or len(children) > 1:
                over = f"to_{who.names[child]}"
                bone(over, who.offsets[child], np.zeros(3), moves=False)
                tree.setdefault(name, []).append(over)
            if not who.names[child].endswith(" end"):
                joint(child, over)

    joint(0, "")
    hierarchy = "\n".join(f"    {name} {' '.join(children)}" for name, children in tree.items())
    path.with_suffix(".asf").write_text(
        f"# made in a test\n:version 1.10\n:name made\n:units\n  mass 1.0\n  length {length}\n"
        f"  angle {'deg' if degrees else 'rad'}\n:documentation\n  made in a test\n:root\n  order {root_order}\n  axis XYZ\n"
        "  position 0 0 0\n  orientation 0 0 0\n:bonedata\n" + "\n".join(bones) + f"\n:hierarchy\n  begin\n{hierarchy}\n  end\n"
    )  # fmt: skip
    turned = {index: Rotation.from_matrix(turns_TJ33[:, index]) for index in who.turning}
    values = {
        index: (axes[index].inv() * turn * axes[index] if index else turn).as_euler("xyz", degrees=True) * angle
        for index, turn in turned.items()
    }
    lines = ["#!made in a test", ":FULLY-SPECIFIED", ":DEGREES" if degrees else ":RADIANS"]
    for frame in range(len(turns_TJ33)):
        lines.append(str(frame + 1))
        root = {f"T{a}": root_T3[frame, i] / metres for i, a in enumerate("XYZ")}
        root |= {f"R{a}": values[0][frame, i] for i, a in enumerate("XYZ")}
        lines.append("root " + " ".join(f"{root[key]:.8f}" for key in root_order.split()))
        lines += [f"{who.names[i]} {' '.join(f'{v:.8f}' for v in values[i][frame])}" for i in values if i and i in axes]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_amass(path: Path, clip: Clip, *, fps: float = 120.0, gender: object = "female", **changed: object) -> Path:
    """Write a clip as AMASS would: SMPL-X where the name ends with `_stageii.npz`, else SMPL+H; z up, with NaN markers.

    Args:
        path: of the npz.
        clip: the motion; its hands become those of the index fingers.
        fps: as the file tells it, whatever the clip has.
        gender: text or bytes.
        **changed: keys to set otherwise, or to leave out by None.
    """
    x_release = path.name.endswith("_stageii.npz")
    poses = np.zeros((clip.num_instants, 55 if x_release else 52, 3))
    poses[:, :22] = clip.pose_TJ3[:, :22]
    poses[:, [25, 40] if x_release else [22, 37]] = clip.pose_TJ3[:, 22:]
    stand = Rotation.from_euler("x", 90, degrees=True)
    poses[:, 0] = (stand * Rotation.from_rotvec(poses[:, 0])).as_rotvec()
    markers = np.full((clip.num_instants, 41, 3), np.nan)
    arrays: dict[str, object] = {
        "poses": poses.reshape(clip.num_instants, -1),
        "trans": stand.apply(clip.trans_T3),
        "betas": np.zeros(16),
        "gender": np.array(gender),
    }
    if x_release:
        arrays |= {"mocap_frame_rate": fps, "surface_model_type": "smplx", "pose_jaw": np.zeros((clip.num_instants, 3))}
    else:
        arrays |= {"mocap_framerate": fps, "dmpls": np.zeros((clip.num_instants, 8)), "marker_data": markers}
    arrays |= changed
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, **{key: np.asarray(value) for key, value in arrays.items() if value is not None})
    return path
