"""3DPW for body meshes: every person of every frame whose camera is known, in one sorted order.

``` text
<root>/imageFiles/courtyard_arguing_00/image_00000.jpg
<root>/sequenceFiles/{train,validation,test}/courtyard_arguing_00.pkl       a Python 2 pickle; `val` is accepted too
```
As the HMR family has it (SPIN's list, some 35.5 thousand crops of the test split): of each person the frames with `campose_valid`; a
square of 1.2 times the longer side of the box around the keypoints that were seen; pose and joints turned into the camera. A frame without
such keypoints, at which their script stops, is left out and counted. Bodies are of the person's gender.

Source: von Marcard et al., ECCV 2018; the protocol of Kolotouros et al., SPIN, ICCV 2019.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from manifests.errors import SourceError
from manifests.geometry import square_around
from manifests.types import Domain, Reason, Reject
from manifests.unpickle import read_pickle
from training.examples.base import About
from training.examples.listed import Entry, Listed

MARGIN = 1.2
NUM_KEYPOINTS = 18
_FOLDERS = {"train": ("train",), "val": ("validation", "val"), "test": ("test",)}
_GENDERS = {"m": "male", "f": "female", "n": "neutral"}
_HINT = "give the folder that holds imageFiles/ and sequenceFiles/ (3DPW)"

Floats = npt.NDArray[np.float64]


def threedpw(root: Path, *, split: str, neighbour: int = 0) -> Listed:
    """People of one split.

    Args:
        root: holds `imageFiles/` and `sequenceFiles/`.
        split: train, val or test.
        neighbour: for tasks on two pictures, so many frames later the same person is the second one (at the end of a sequence, so many
            earlier); 0 for none.

    Raises:
        SourceError: a folder is missing, a pickle is of another form, or no picture is there.
    """
    if not (root / "sequenceFiles").is_dir() or not (root / "imageFiles").is_dir():
        missing = "sequenceFiles" if not (root / "sequenceFiles").is_dir() else "imageFiles"
        raise SourceError(f"no {missing}/ is here", where=root, hint=_HINT)
    folders = [root / "sequenceFiles" / name for name in _FOLDERS[split]]
    paths = sorted(path for folder in folders if folder.is_dir() for path in folder.glob("[!.]*.pkl"))
    if not paths:
        raise SourceError(
            f"sequenceFiles/ holds no sequence of {split}", where=root, hint="unpack sequenceFiles.zip again"
        )
    entries: list[Entry] = []
    rejects: list[Reject] = []
    for path in paths:
        entries += _people(path, root / "imageFiles" / path.stem, neighbour, rejects)
    if not entries:
        raise SourceError("none of the pictures is here", where=root / "imageFiles", hint="unpack imageFiles.zip again")
    about = About(
        name="3dpw",
        domain=Domain.BODY,
        split=split,
        labels=("pose", "betas", "gender", "joints_m", "keypoints_px", "intrinsics"),
        joint_set="smpl24",
        keypoint_set="coco18",
        protocol=f"each person in each frame with a valid camera, square of {MARGIN:g} x the keypoints' box",
        rejects=tuple(rejects),
    )
    return Listed(about, entries)


def _people(path: Path, folder: Path, neighbour: int, rejects: list[Reject]) -> list[Entry]:
    told = _read(path)
    pictures = {name.name for name in folder.iterdir()} if folder.is_dir() else set()
    entries = []
    for person, keypoints_N33 in enumerate(told["poses2d"]):
        key = f"3dpw/{path.stem}/p{person}"
        xyc = np.swapaxes(keypoints_N33, 1, 2)
        shown = np.array([f"image_{frame:05d}.jpg" in pictures for frame in range(len(xyc))])
        placed, seen = told["valid"][person], _extent(xyc) > 1
        for which, reason, detail in (
            (~placed, Reason.UNLABELLED, "frames have no valid camera"),
            (placed & ~seen, Reason.HIDDEN, "frames with a valid camera show no two keypoints"),
            (placed & seen & ~shown, Reason.MISSING, f"frames have no picture in {folder}"),
        ):
            if which.any():
                rejects.append(Reject("examples", key, reason, detail, int(which.sum())))
        squares = {frame: _square(xyc[frame]) for frame in np.flatnonzero(placed & seen & shown).tolist()}
        for frame, square in squares.items():
            other = next((f for f in (frame + neighbour, frame - neighbour) if neighbour and f in squares), None)
            entries.append(
                Entry(
                    key=f"{key}/{frame:05d}",
                    picture=folder / f"image_{frame:05d}.jpg",
                    square_xyxy_px=square,
                    labels=_labels(told, person, frame) | {"keypoints_px": xyc[frame].astype(np.float32)},
                    subject=f"{path.stem}/p{person}",
                    second=None if other is None else folder / f"image_{other:05d}.jpg",
                    second_square_xyxy_px=None if other is None else squares[other],
                )
            )
    return entries


def _extent(xyc_NK3: Floats) -> Floats:
    """Longer side, in pixels, of the box around what was seen of each frame."""
    low, high = (np.where(xyc_NK3[..., 2:] > 0, xyc_NK3[..., :2], end) for end in (np.inf, -np.inf))
    return np.asarray((high.max(axis=1) - low.min(axis=1)).max(axis=1))


def _square(xyc_K3: Floats) -> Floats:
    seen = xyc_K3[xyc_K3[:, 2] > 0, :2]
    return square_around(np.concatenate([seen.min(axis=0), seen.max(axis=0)]), margin=MARGIN)


def _labels(told: dict[str, Any], person: int, frame: int) -> dict[str, Any]:
    camera = told["cameras"][frame]
    pose = told["poses"][person][frame].reshape(24, 3).copy()
    turn = Rotation.from_matrix(camera[:3, :3])
    pose[0] = (turn * Rotation.from_rotvec(pose[0])).as_rotvec()
    joints = told["joints"][person][frame].reshape(24, 3) @ camera[:3, :3].T + camera[:3, 3]
    return {
        "pose": pose.astype(np.float32),
        "betas": told["betas"][person],
        "gender": told["genders"][person],
        "joints_m": joints.astype(np.float32),
        "intrinsics": told["K"],
    }


def _read(path: Path) -> dict[str, Any]:
    """Arrays of one pickle: P people in N frames."""
    found = read_pickle(path)
    try:
        poses2d = np.asarray(found["poses2d"] if "poses2d" in found else found["poses2D"], np.float64)
        cameras = np.asarray(found["cam_poses"], np.float64)
        P, N = (len(poses2d), len(cameras))
        told: dict[str, Any] = {
            "poses2d": poses2d.reshape(P, N, 3, NUM_KEYPOINTS),
            "cameras": cameras.reshape(N, 4, 4),
            "valid": np.asarray(found["campose_valid"]).reshape(P, N) > 0,
            "poses": np.asarray(found["poses"], np.float64).reshape(P, N, 72),
            "joints": np.asarray(found["jointPositions"], np.float64).reshape(P, N, 72),
            "betas": [np.asarray(betas, np.float32).ravel()[:10] for betas in found["betas"]],
            "genders": [_GENDERS[str(gender)] for gender in found["genders"]],
            "K": np.asarray(found["cam_intrinsics"], np.float64).reshape(3, 3),
        }
        numbers = [told[name] for name in ("cameras", "poses", "joints", "K")] + told["betas"]
        if not all(np.isfinite(array).all() for array in numbers) or any(len(betas) != 10 for betas in told["betas"]):
            raise ValueError("numbers are missing in it")
        if len(told["betas"]) != P or len(told["genders"]) != P:
            raise ValueError("it tells of several numbers of people")
    except (KeyError, ValueError, TypeError) as error:
        hint = "unpack sequenceFiles.zip again"
        raise SourceError(f"holds no sequence of 3DPW: {error}", where=path, hint=hint) from error
    return told
