"""Human3.6M for body meshes: joints of one person in the axes of each of four cameras.

``` text
<root>/S1/Poses_D3_Positions_mono/Directions 1.54138969.cdf     Pose (1, T, 96): 32 joints, mm, in the camera's axes
<root>/S1/Poses_D2_Positions/Directions 1.54138969.cdf          Pose (1, T, 64): px
<root>/S1/images/S1_Directions_1.54138969/S1_Directions_1.54138969_000001.jpg    frames from 1, spaces are underscores
```
`extracted/` above the subjects, and `MyPoseFeatures/{D3_Positions_mono,D2_Positions}/` (the form of the archives) are found as well. Every
fifth frame is kept (50 to 10 a second), and `_ALL` is skipped. The dataset ships videos, which are too slow to read in random order: cut
them into pictures first. SMPL fits ("Mosh") may not be passed on, so the labels are joints: 17 in the order of SPIN's regressor.

Train: S1, S5, S6, S7, S8; test: S9, S11 of all cameras ("P1") or of camera 60457274 ("P2"). A twentieth of train's sequences is val.

Source: Ionescu et al., Human3.6M, TPAMI 2014; academic use only.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import SourceError
from manifests.splits import split_of
from manifests.types import Domain, Reason, Reject, Split
from training.examples.base import About
from training.examples.listed import Entry, Listed, entry_of_joints

TRAIN, TEST = ("S1", "S5", "S6", "S7", "S8"), ("S9", "S11")
P2_CAMERA = "60457274"
EVERY = 5
MARGIN = 1.2
VAL_SHARE = 0.05
# Rows of the 32 joints: pelvis, left and right leg, spine, neck, nose, head top, left and right arm.
JOINTS = (0, 6, 7, 8, 1, 2, 3, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
_NAME = re.compile(r"[A-Za-z]+(?: \d)?\.\d{8}")

Floats = npt.NDArray[np.float64]


def human36m(root: Path, *, split: str, protocol: str = "P2") -> Listed:
    """Pictures of one split.

    Args:
        root: holds `S1/` and others, or `extracted/` with them.
        split: train, val or test.
        protocol: P1, or P2: of the test set only its frontal camera.

    Raises:
        SourceError: poses or pictures are missing or of another form, or `cdflib` is not installed.
    """
    home = root / "extracted" if (root / "extracted").is_dir() else root
    subjects = [name for name in (TEST if split == "test" else TRAIN) if (home / name).is_dir()]
    if not subjects:
        hint = "give the folder that holds S1/ to S11/"
        raise SourceError(f"no subject of the {split} split is here", where=home, hint=hint)
    entries: list[Entry] = []
    rejects: list[Reject] = []
    for subject in subjects:
        for path in _poses(home / subject):
            action, camera = path.stem.rsplit(".", 1)
            if split == "test" and protocol == "P2" and camera != P2_CAMERA:
                continue
            if split != "test" and split_of(f"{subject} {action}", seed=0, val_share=VAL_SHARE) is not Split(split):
                continue
            entries += _frames(home / subject, path, rejects)
    if not entries:
        hint = (
            "cut the videos into pictures: ffmpeg -i 'S1/Videos/Directions 1.54138969.mp4'"
            " S1/images/S1_Directions_1.54138969/S1_Directions_1.54138969_%06d.jpg"
        )
        raise SourceError("none of the pictures is here", where=home, hint=hint)
    about = About(
        name="human36m",
        domain=Domain.BODY,
        split=split,
        labels=("joints_m", "keypoints_px"),
        joint_set="h36m17",
        keypoint_set="h36m17",
        protocol=f"every {EVERY}th frame, square of {MARGIN:g} x the joints' box"
        + (f", {protocol}" if split == "test" else ""),
        rejects=tuple(rejects),
    )
    return Listed(about, entries)


def _poses(folder: Path) -> list[Path]:
    names = ("Poses_D3_Positions_mono", "MyPoseFeatures/D3_Positions_mono")
    found = next((folder / name for name in names if (folder / name).is_dir()), None)
    if found is None:
        raise SourceError(
            "no Poses_D3_Positions_mono/ is here", where=folder, hint="unpack Poses_D3_Positions_mono_S*.tgz"
        )
    return sorted(path for path in found.glob("*.cdf") if _NAME.fullmatch(path.stem))


def _frames(home: Path, path: Path, rejects: list[Reject]) -> list[Entry]:
    place = path.parent
    flat = place.parent / ("Poses_D2_Positions" if place.name.startswith("Poses") else "D2_Positions") / path.name
    joints_m, pixels = _read(path, 3) / 1000.0, _read(flat, 2)
    if len(joints_m) != len(pixels):
        what = f"{len(joints_m)} poses in space and {len(pixels)} in the picture"
        raise SourceError(what, where=path, hint="unpack the poses again")
    name = f"{home.name}_{path.stem.replace(' ', '_')}"
    folder = home / "images" / name
    there = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    entries, lost = [], 0
    for frame in range(0, len(pixels), EVERY):
        picture = f"{name}_{frame + 1:06d}.jpg"
        if picture not in there:
            lost += 1
            continue
        xy, xyz = pixels[frame], joints_m[frame]
        if not np.isfinite(xy).all() or not np.isfinite(xyz).all():
            rejects.append(Reject("examples", f"human36m/{name}/{frame:06d}", Reason.BAD_LABEL, "a joint is no number"))
            continue
        key = f"human36m/{name}/{frame:06d}"
        entries.append(entry_of_joints(key, folder / picture, xy, xyz, subject=home.name, margin=MARGIN))
    if lost:
        rejects.append(
            Reject("examples", f"human36m/{name}", Reason.MISSING, f"frames have no picture in {folder}", lost)
        )
    return entries


def _read(path: Path, dimensions: int) -> Floats:
    """(T, 17, dimensions) of a file's `Pose`."""
    try:
        import cdflib
    except ImportError as error:
        hint = "pip install 'crosspose[datasets]'"
        raise SourceError("cdflib is needed to read poses", where=path, hint=hint) from error
    try:
        pose: Any = np.asarray(cdflib.CDF(str(path)).varget("Pose"), dtype=np.float64)
        joints: Floats = pose.reshape(-1, 32, dimensions)[:, list(JOINTS)]
    except Exception as error:  # of a damaged file the library raises whatever comes
        raise SourceError(f"holds no Pose of 32 joints: {error}", where=path, hint="unpack the poses again") from error
    return joints
