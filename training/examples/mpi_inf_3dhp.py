"""MPI-INF-3DHP for body meshes: eight people before chest-high cameras, and a test set of six sequences.

``` text
<root>/S1/Seq1/annot.mat                                    annot2, annot3: a cell for each of 14 cameras, (T, 56) px and (T, 84) mm
<root>/S1/Seq1/imageFrames/video_0/frame_000001.jpg         frames from 1; video_0/000001.jpg is found as well
<root>/mpi_inf_3dhp_test_set/TS1/annot_data.mat             annot2 (T, 1, 17, 2), annot3 (T, 1, 17, 3), valid_frame (T, 1)
<root>/mpi_inf_3dhp_test_set/TS1/imageSequence/img_000001.jpg
```
The dataset ships videos (`imageSequence/video_0.avi`), which are too slow to read in random order: cut them into pictures first. Of the 28
joints 17 are kept, in the order of the test set. Cameras 0, 1, 2, 4, 5, 6, 7, 8; S8/Seq2 is the validation split.

Source: Mehta et al., 3DV 2017; non-commercial.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import SourceError
from manifests.matlab import read_mat
from manifests.types import Domain, Reason, Reject
from training.examples.base import About
from training.examples.listed import Entry, Listed, entry_of_joints

CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
VAL = ("S8", "Seq2")
MARGIN = 1.2
# Of the 28: head top, neck, right arm, left arm, right leg, left leg (from the body outwards), pelvis, spine, head.
JOINTS = (7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6)
_HINT = "give the folder that holds S1/ to S8/ and mpi_inf_3dhp_test_set/"

Floats = npt.NDArray[np.float64]


def mpi_inf_3dhp(root: Path, *, split: str, every: int = 5) -> Listed:
    """Pictures of one split.

    Args:
        root: holds `S1/` and others, and `mpi_inf_3dhp_test_set/`.
        split: train, val or test.
        every: of the training videos one frame in so many.

    Raises:
        SourceError: annotations or pictures are missing or of another form.
    """
    rejects: list[Reject] = []
    entries = _test(root, rejects) if split == "test" else _train(root, split, every, rejects)
    if not entries:
        hint = "cut the videos into pictures: ffmpeg -i S1/Seq1/imageSequence/video_0.avi S1/Seq1/imageFrames/video_0/frame_%06d.jpg"
        raise SourceError(f"no picture of the {split} split is here", where=root, hint=hint)
    about = About(
        name="mpi_inf_3dhp",
        domain=Domain.BODY,
        split=split,
        labels=("joints_m", "keypoints_px"),
        joint_set="mpii_3dhp17",
        keypoint_set="mpii_3dhp17",
        protocol=f"square of {MARGIN:g} x the joints' box"
        + (", valid frames of TS1 to TS6" if split == "test" else ""),
        rejects=tuple(rejects),
    )
    return Listed(about, entries)


def _train(root: Path, split: str, every: int, rejects: list[Reject]) -> list[Entry]:
    sequences = [path.parent for path in sorted(root.glob("S[1-8]/Seq[12]/annot.mat"))]
    if not sequences:
        raise SourceError("no S1/Seq1/annot.mat is here", where=root, hint=_HINT)
    entries: list[Entry] = []
    for home in sequences:
        if ((home.parent.name, home.name) == VAL) != (split == "val"):
            continue
        told = read_mat(home / "annot.mat", variables=["annot2", "annot3"])
        for camera in CAMERAS:
            pixels, joints = (_cell(told[name], camera, axes, home) for name, axes in (("annot2", 2), ("annot3", 3)))
            folder = home / "imageFrames" / f"video_{camera}"
            folder = folder if folder.is_dir() else home / f"video_{camera}"
            there = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
            numbers = [f"{{}}{frame + 1:06d}.jpg" for frame in range(0, len(pixels), every)]
            names = [
                next((n for n in (name.format("frame_"), name.format("")) if n in there), None) for name in numbers
            ]
            key = f"mpi_inf_3dhp/{home.parent.name}_{home.name}/video_{camera}"
            for frame, name in zip(range(0, len(pixels), every), names, strict=True):
                if name is not None:
                    entry = _entry(f"{key}/{frame:06d}", folder / name, pixels[frame], joints[frame], home.parent.name)
                    entries.append(entry)
            if lost := names.count(None):
                rejects.append(Reject("examples", key, Reason.MISSING, f"frames have no picture in {folder}", lost))
    return entries


def _test(root: Path, rejects: list[Reject]) -> list[Entry]:
    home = next((root / name for name in ("mpi_inf_3dhp_test_set", ".") if (root / name / "TS1").is_dir()), None)
    if home is None:
        raise SourceError("no mpi_inf_3dhp_test_set/TS1/ is here", where=root, hint=_HINT)
    entries: list[Entry] = []
    for path in sorted(home.glob("TS[1-6]/annot_data.mat")):
        told = read_mat(path, variables=["annot2", "annot3", "valid_frame"])
        pixels, joints = (_points(told[name], axes, path) for name, axes in (("annot2", 2), ("annot3", 3)))
        valid = np.asarray(told["valid_frame"]).ravel() > 0
        if not len(valid) == len(pixels) == len(joints):
            raise SourceError(
                f"{len(valid)}, {len(pixels)} and {len(joints)} frames", where=path, hint="unpack it again"
            )
        key, folder = f"mpi_inf_3dhp/{path.parent.name}", path.parent / "imageSequence"
        lost = 0
        for frame in np.flatnonzero(valid).tolist():
            picture = folder / f"img_{frame + 1:06d}.jpg"
            if picture.is_file():
                entries.append(_entry(f"{key}/{frame:06d}", picture, pixels[frame], joints[frame], path.parent.name))
            else:
                lost += 1
        for num, reason, detail in (
            (int((~valid).sum()), Reason.UNLABELLED, "frames are not valid"),
            (lost, Reason.MISSING, f"frames have no picture in {folder}"),
        ):
            if num:
                rejects.append(Reject("examples", key, reason, detail, num))
    return entries


def _entry(key: str, picture: Path, xy: Floats, xyz_mm: Floats, subject: str) -> Entry:
    return entry_of_joints(key, picture, xy, xyz_mm / 1000.0, subject=subject, margin=MARGIN)


def _cell(cells: Any, camera: int, axes: int, home: Path) -> Floats:
    """(T, 17, axes) of one camera."""
    try:
        points: Floats = np.asarray(np.asarray(cells, dtype=object).ravel()[camera], dtype=np.float64)
        points = points.reshape(-1, 28, axes)[:, list(JOINTS)]
        if not np.isfinite(points).all():
            raise ValueError("a joint is no number")
    except (ValueError, TypeError, IndexError) as error:
        hint = "unpack the annotations again"
        raise SourceError(f"no joints of camera {camera}: {error}", where=home / "annot.mat", hint=hint) from error
    return points


def _points(array: Any, axes: int, path: Path) -> Floats:
    try:
        points: Floats = np.asarray(array, dtype=np.float64).reshape(-1, 17, axes)
        if not np.isfinite(points).all():
            raise ValueError("a joint is no number")
    except (ValueError, TypeError) as error:
        raise SourceError(f"no 17 joints a frame: {error}", where=path, hint="unpack the test set again") from error
    return points
