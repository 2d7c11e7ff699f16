"""DexYCB in miniature: three sequences of two people before eight cameras, and what is wrong with the real one.

A frame's number is the code's instant, a camera's place in the publisher's order the code's view.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.sources.dexycb import CAMERAS
from pipeline.squares import Floats
from tests.support import honest

SIZE = (640, 480)
LENSES = honest.ring(8, size=SIZE, radius_m=0.6)
MASTER = 0  # the camera whose axes are the world's
EXTRINSICS = "20200702_151821"
OBJECT = 5  # in seg, beside the hand


@dataclass(frozen=True)
class Sequence:
    """One sequence as it is drawn."""

    subject: str
    name: str
    side: str
    person: int
    frames: int

    @property
    def key(self) -> str:
        """As sequence of a frame's key."""
        return f"{self.subject[9:]}-{self.name}"

    def hand(self, frame: int) -> honest.Figure:
        """The hand of one frame."""
        return honest.hand(self.person, frame, self.side)


RIGHT = Sequence("20200709-subject-01", "20200709_141754", "right", 1, 3)
LEFT = Sequence("20200709-subject-01", "20200709_142123", "left", 1, 2)
OTHER = Sequence("20200928-subject-07", "20200928_143500", "right", 4, 2)
SEQUENCES = (RIGHT, LEFT, OTHER)


def master_from_world() -> Floats:
    """(4, 4): the world of the figures to the world of the dataset."""
    return LENSES[MASTER].camera_from_world


@dataclass(frozen=True)
class Truth:
    """The home folder, and the drawn pictures by (sequence's key, camera's index, frame)."""

    home: Path
    drawn: dict[tuple[str, int, int], honest.Drawn]


def write_dexycb(root: Path, *, sequences: tuple[Sequence, ...] = SEQUENCES, faults: bool = True) -> Truth:
    """Write the dataset.

    Args:
        root: becomes `dex-ycb/`.
        sequences: which to draw.
        faults: of RIGHT, joints of -1 beside a hand in seg, a seg without a hand, a lost camera, a lost frame, lost labels
            and an image cut short.
    """
    drawn = {}
    root.mkdir(parents=True)
    (root / "FIXTURE").write_text("synthetic pixels in the layout of DexYCB\n")
    write_calibration(root / "calibration")
    for one in sequences:
        folder = root / one.subject / one.name
        write_meta(folder, one)
        np.savez(
            folder / "pose.npz", pose_y=np.zeros((one.frames, 2, 7), np.float32), pose_m=np.zeros((one.frames, 1, 51))
        )
        for frame in range(one.frames):
            hand = one.hand(frame)
            for camera, lens in enumerate(LENSES):
                seen = drawn[one.key, camera, frame] = honest.draw(lens, [hand], instant=frame, view=camera)
                below = folder / CAMERAS[camera]
                honest.write_jpeg(below / f"color_{frame:06d}.jpg", seen.rgb)
                honest.write_png(below / f"aligned_depth_to_color_{frame:06d}.png", np.zeros((4, 4), np.uint16))
                joints = lens.in_camera(hand.hand21())
                write_labels(below / f"labels_{frame:06d}.npz", seen.mask(0), joints, lens.pixels(hand.hand21()))
    if faults:
        _spoil(root / RIGHT.subject / RIGHT.name)
    return Truth(root, drawn)


def write_meta(folder: Path, one: Sequence) -> None:
    """Write a sequence's meta.yml."""
    folder.mkdir(parents=True, exist_ok=True)
    serials = "".join(f"- '{camera}'\n" for camera in CAMERAS)
    (folder / "meta.yml").write_text(
        f"extrinsics: {EXTRINSICS}\nmano_calib:\n- {one.subject}_{one.side}\nmano_sides:\n- {one.side}\n"
        f"num_frames: {one.frames}\nserials:\n{serials}ycb_grasp_ind: 0\nycb_ids:\n- {OBJECT}\n- 8\n"
    )


def write_calibration(folder: Path) -> None:
    """Write lenses and rig as the publisher's Python wrote them."""
    (folder / "intrinsics").mkdir(parents=True)
    rig = folder / f"extrinsics_{EXTRINSICS}" / "extrinsics.yml"
    rig.parent.mkdir()
    text = "extrinsics:\n"
    poses = {
        camera: master_from_world() @ np.linalg.inv(lens.camera_from_world)
        for camera, lens in zip(CAMERAS, LENSES, strict=True)
    }
    for name, pose in (("apriltag", np.eye(4)), *poses.items()):
        values = "".join(f"  - {value!r}\n" for value in pose[:3].ravel().tolist())
        text += f"  {name if name == 'apriltag' else repr(name)}: !!python/tuple\n{values}"
    rig.write_text(text + f"master: '{CAMERAS[MASTER]}'\n")
    for camera, lens in zip(CAMERAS, LENSES, strict=True):
        fx, fy, x, y = (float(lens.K[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
        (folder / "intrinsics" / f"{camera}_640x480.yml").write_text(
            f"color:\n  fx: {fx!r}\n  fy: {fy!r}\n  ppx: {x!r}\n  ppy: {y!r}\ndepth:\n  fx: 1.0\n  fy: 1.0\n  ppx: 0.0\n  ppy: 0.0\n"
        )


def write_labels(path: Path, hand: np.ndarray, joints_m: Floats, joints_px: Floats) -> None:
    """Write one picture's labels."""
    seg = np.zeros(hand.shape, np.uint8)
    seg[:60, :80], seg[hand] = OBJECT, 255
    np.savez_compressed(
        path, seg=seg, pose_y=np.zeros((2, 3, 4), np.float32), pose_m=np.ones((1, 51), np.float32),
        joint_3d=joints_m[None].astype(np.float32), joint_2d=joints_px[None].astype(np.float32),
    )  # fmt: skip


def _spoil(folder: Path) -> None:
    for frame in range(RIGHT.frames):
        for file in (folder / CAMERAS[7]).glob(f"*{frame:06d}*"):
            file.unlink()
    (folder / CAMERAS[7]).rmdir()
    nowhere = np.full((21, 3), -1.0)
    first = folder / CAMERAS[1] / "labels_000000.npz"
    with np.load(first) as labels:
        hand = labels["seg"] == 255
    write_labels(first, hand, nowhere, nowhere[:, :2])  # the hand is seen, its joints are not known
    write_labels(folder / CAMERAS[2] / "labels_000001.npz", np.zeros(hand.shape, bool), nowhere, nowhere[:, :2])
    (folder / CAMERAS[3] / "labels_000002.npz").unlink()
    (folder / CAMERAS[4] / "color_000002.jpg").unlink()
    cut = folder / CAMERAS[5] / "color_000000.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
