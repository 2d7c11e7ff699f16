"""3DPW: two people or one, outdoors, before a phone that is carried along; where they are is known in every frame.

``` text
<root>/imageFiles/courtyard_arguing_00/image_00000.jpg          from 0; portrait or landscape
<root>/sequenceFiles/{train,validation,test}/courtyard_arguing_00.pkl   a Python 2 pickle; `val` is accepted too
```
Of the pickle are read: `poses2d` (a (frames, 3, 18) array of each person: x, y, confidence), `jointPositions` ((frames, 72), m, in
the world), `cam_poses` ((frames, 4, 4), world to camera), `campose_valid` (frames, of each person) and `cam_intrinsics`. The
notes that ship with it say `poses2D`, which is accepted as well. The camera moves: every frame has a pose of its own.

Test sequences are an evaluation set (35 thousand crops of it are a common benchmark): their frames are flagged, and never paired.

Source: von Marcard et al., Recovering Accurate 3D Human Pose in the Wild Using IMUs and a Moving Camera, ECCV 2018.
"""

import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from manifests.errors import SourceError
from manifests.geometry import project
from manifests.types import EVALUATION, BoxFrom, Domain, Reason, Reject, Split
from manifests.unpickle import read_pickle
from pipeline.sources import trees
from pipeline.sources.base import STAGE, Card, Floats, Marker, Recording, Scan, Source
from pipeline.sources.boxes import around, clipped
from pipeline.sources.calibration import is_rotation
from pipeline.sources.layout import files_below, unique_names

logger = logging.getLogger(__name__)

Bools = npt.NDArray[np.bool_]

SPLITS = {"train": Split.TRAIN, "validation": Split.VAL, "val": Split.VAL, "test": Split.TEST}
SEQUENCES, IMAGES = "sequenceFiles", "imageFiles"
VIEW, FPS = "cam", 30
# nose, neck, right and then left arm from the shoulder, right and then left leg from the hip, eyes, ears (right first)
KEYPOINTS, NUM_KEYPOINTS = "coco18", 18
LEAST_KEYPOINTS = 6  # fewer frame too little of a person, where the body's joints can be projected instead
FARTHEST = 0.5  # a keypoint farther outside than this share of the image is a mistake
OFF_CENTRE = (
    0.2  # a principal point farther from the middle than this share: the images are not those of the calibration
)

CARD = Card(
    title="3DPW",
    domains=(Domain.BODY,),
    tree="imageFiles/courtyard_arguing_00/image_00000.jpg, sequenceFiles/{train,validation,test}/*.pkl",
    get="the page of 3DPW (registration): imageFiles.zip, sequenceFiles.zip",
    licence="non-commercial research (unverified)",
    terms="Registration; images and labels may not be passed on. The test sequences are never paired.",
    gives="cross-pose; boxes around the dataset's keypoints, silhouettes from the parser; a moving calibrated camera",
)


@dataclass(frozen=True, slots=True)
class Sequence:
    """What one pickle says of P people in N frames.

    Attributes:
        keypoints: (P, N, 18, 3) x, y, confidence; px.
        joints_m: (P, N, 24, 3) in the world.
        camera_from_world: (N, 4, 4).
        has_camera: (P, N) whether the pose holds for this person.
        intrinsics: (3, 3).
    """

    keypoints: Floats
    joints_m: Floats
    camera_from_world: Floats
    has_camera: Bools
    intrinsics: Floats


class ThreedpwSource(Source):
    """See the module."""

    card = CARD

    @override
    def look(self, root: Path) -> list[Marker]:
        """See `Source.look`."""
        home = trees.find_home(root, _is_home) or trees.find_home(root, _is_part)
        files = home is not None and any(_pickles(home))
        images = home is not None and (home / IMAGES).is_dir()
        return [
            Marker.of(f"3DPW: {SEQUENCES}/ or {IMAGES}/", home, _hint(root)),
            Marker.of(f"{SEQUENCES}/{{train,validation,test}}/*.pkl", files, "" if files else _hint(root)),
            Marker.of(f"{IMAGES}/", images, f"unpack {IMAGES}.zip beside {SEQUENCES}/"),
        ]

    @override
    def recordings(self, root: Path) -> list[Recording]:
        """One recording per sequence; see `Source.recordings`."""
        home = trees.require_home(root, _is_home, f"no {SEQUENCES}/ is here", _hint)
        if not (home / IMAGES).is_dir():
            raise SourceError(f"no {IMAGES}/ is here", where=home, hint=f"unpack {IMAGES}.zip beside {SEQUENCES}/")
        paths: dict[str, tuple[Split, Path]] = {}
        for split, path in _pickles(home):
            before = paths.setdefault(path.stem, (split, path))[0]
            if before is not split:
                raise SourceError(
                    f"{path.stem} is in {before} and in {split}", where=path, hint=f"unpack {SEQUENCES}.zip again"
                )
        if not paths:
            raise SourceError(f"{SEQUENCES}/ holds no train/*.pkl", where=home / SEQUENCES, hint=_hint(root))
        if any(path.parent.name == "val" for _, path in paths.values()):
            logger.warning("3DPW: found %s/val, expected validation: using val.", SEQUENCES)
        images = trees.unwrapped(home / IMAGES)
        found = [
            Recording(
                sequence=sequence,
                group=sequence,
                split=split,
                files=files_below(root, [path]),
                folder=(images / path.stem).relative_to(root).as_posix(),
            )
            for sequence, (split, path) in zip(
                unique_names([PurePosixPath(stem) for stem in paths]), paths.values(), strict=True
            )
        ]
        return sorted(found, key=lambda recording: recording.sequence)

    @override
    def scan(self, root: Path, recording: Recording, *, split: Split) -> Scan:
        """List the people in the images of one sequence; see `Source.scan`."""
        folder, place = root / recording.folder, recording.folder
        told = read_sequence(root / recording.files[0][0])
        num_people, num_frames = told.keypoints.shape[:2]
        if not folder.is_dir():
            detail = trees.numbered(num_frames, "frames that labels tell of: no such folder")
            return Scan([], [Reject(STAGE, place, Reason.MISSING, detail, max(1, num_frames))])
        names, odd = trees.list_named(folder, r"image_\d{5}\.jpg")
        rejects = trees.counted(place, (odd, Reason.BAD_LABEL, "images are not named like image_00000.jpg"))
        size = trees.image_size(folder, names)
        if size is None:
            return Scan([], rejects + trees.nothing_seen(place, len(names)))
        if (np.abs(told.intrinsics[:2, 2] / size - 0.5) > OFF_CENTRE).any():
            x, y = told.intrinsics[:2, 2]
            detail = f"images of {size[0]} x {size[1]} px, where the middle of the calibration is ({x:.0f}, {y:.0f})"
            return Scan([], rejects + trees.counted(place, (len(names), Reason.SIZE, detail)))
        instant = trees.numbers_of(names, 6, 11)
        labelled = instant < num_frames
        num, last = int(labelled.sum()), f"images have no labels: those end with frame {num_frames - 1}"
        rejects += trees.counted(
            place,
            (len(names) - num, Reason.UNLABELLED, last),
            (num_frames - num, Reason.MISSING, "frames of the labels have no image"),
            (0 if num_people else num, Reason.UNLABELLED, "images in which nobody is labelled"),
        )
        instant, media = instant[labelled], trees.below(place, names.filter(labelled))
        parts = []
        for person in range(num_people):
            keypoints = _plausible(told.keypoints[person], size)
            boxes, is_seen = _boxes(told, person, keypoints, size)
            track, within = f"p{person}", np.asarray(np.isfinite(boxes).all(axis=1))
            rejects += trees.counted(
                place,
                (int((~is_seen)[instant].sum()), Reason.UNLABELLED, f"frames say nothing of where {track} is"),
                (int((is_seen & ~within)[instant].sum()), Reason.HIDDEN, f"frames of {track}, outside of the image"),
            )
            here = within[instant]
            parts.append((np.full(int(here.sum()), person), instant[here], media.filter(here), boxes, keypoints))
        if not sum(len(part[0]) for part in parts):
            return Scan([], rejects)
        who, when, shown = (np.concatenate([part[k] for part in parts]) for k in range(3))
        known = told.has_camera[who, when]
        frames = self.table(
            recording, split,
            instant=when,
            time_s=when / FPS,
            view=VIEW,
            track=np.array([f"p{person}" for person in who]),
            media=shown.tolist(),
            width=size[0], height=size[1],
            box_xyxy_px=np.concatenate([part[3][part[1]] for part in parts]),
            box_from=BoxFrom.KEYPOINTS.value,
            keypoints_set=KEYPOINTS,
            keypoints_px=np.concatenate([part[4][part[1]] for part in parts]),
            intrinsics=told.intrinsics,
            camera_from_world=np.where(known[:, None, None], told.camera_from_world[when], np.nan),
            flags=(EVALUATION,) if recording.split is Split.TEST else (),
        )  # fmt: skip
        return Scan(frames, rejects)


def read_sequence(path: Path) -> Sequence:
    """Read the labels of one sequence.

    Raises:
        SourceError: the pickle does not parse, asks for something that datasets do not hold, or is of another form.
    """
    found = read_pickle(path)
    try:
        if not isinstance(found, dict):
            raise TypeError(f"it holds a {type(found).__name__}")
        keypoints = _array(found, "poses2d", "poses2D")
        people, frames = (keypoints.shape[0], keypoints.shape[1]) if keypoints.ndim == 4 else (0, 0)
        if keypoints.shape != (people, frames, 3, NUM_KEYPOINTS) and len(keypoints):
            raise ValueError(f"poses2d is of shape {keypoints.shape}, not people x frames x 3 x {NUM_KEYPOINTS}")
        poses = _array(found, "cam_poses")
        frames = frames if len(keypoints) else len(poses)
        told = Sequence(
            keypoints=np.swapaxes(keypoints.reshape(people, frames, 3, NUM_KEYPOINTS), 2, 3),
            joints_m=_array(found, "jointPositions").reshape(people, frames, 24, 3),
            camera_from_world=poses.reshape(frames, 4, 4),
            has_camera=(_array(found, "campose_valid").reshape(people, frames) > 0) & _is_rigid(poses),
            intrinsics=_array(found, "cam_intrinsics").reshape(3, 3),
        )
        if not np.isfinite(told.intrinsics).all() or min(told.intrinsics[0, 0], told.intrinsics[1, 1]) <= 0:
            raise ValueError("cam_intrinsics is no camera matrix")
    except (ValueError, TypeError, KeyError) as error:
        raise trees.unparsed(path, error, f"unpack {SEQUENCES}.zip again", says="holds no sequence of 3DPW") from error
    return told


def _array(found: dict[Any, Any], *names: str) -> Floats:
    name = next((name for name in names if name in found), None)
    if name is None:
        raise KeyError(names[0])
    return np.asarray(found[name], np.float64)


def _is_rigid(poses: Floats) -> Bools:
    """Which of (N, 4, 4) matrices turn and shift, and do nothing else."""
    return np.asarray(is_rotation(poses[:, :3, :3]) & np.isfinite(poses).all(axis=(1, 2)))


def _plausible(keypoints: Floats, size: tuple[int, int]) -> Floats:
    """(N, 18, 3) keypoints; those that nobody saw, or that lie absurdly far outside, are zero."""
    at, extent = keypoints[..., :2], np.array(size, float)
    with np.errstate(invalid="ignore"):
        near = (np.abs(at / extent - 0.5) <= 0.5 + FARTHEST).all(axis=-1) & (keypoints[..., 2] > 0)
    return np.where(near[..., None], keypoints, 0.0)


def _boxes(told: Sequence, person: int, keypoints: Floats, size: tuple[int, int]) -> tuple[Floats, Bools]:
    """The box of a person in each frame, within the image, and whether the labels say where the person is at all.

    It is drawn around the keypoints; where few were seen, around the body's projected joints, if the camera is known.
    """
    num_seen = (keypoints[..., 2] > 0).sum(axis=1)
    boxes = around(keypoints[..., :2], keypoints[..., 2] > 0)
    is_seen = np.asarray(num_seen >= 2)
    for frame in np.flatnonzero((num_seen < LEAST_KEYPOINTS) & told.has_camera[person]):
        joints = told.joints_m[person, frame]
        pixels, depth = project(joints, told.intrinsics, told.camera_from_world[frame])
        if np.isfinite(pixels).all() and depth.min() > 0:
            boxes[frame], is_seen[frame] = around(pixels, np.ones(len(joints), bool)), True
    return clipped(boxes, size), is_seen


def _pickles(home: Path) -> list[tuple[Split, Path]]:
    """The pickles of each split, sorted."""
    folder = trees.unwrapped(home / SEQUENCES)
    names = trees.list_folders(folder)
    return [
        (SPLITS[name], path) for name in SPLITS if name in names for path in sorted((folder / name).glob("[!.]*.pkl"))
    ]


def _is_home(folder: Path) -> bool:
    return (folder / SEQUENCES).is_dir()


def _is_part(folder: Path) -> bool:
    return (folder / IMAGES).is_dir()


def _hint(root: Path) -> str:
    if root.resolve().name in (IMAGES, SEQUENCES):
        return f"give the folder above: the one that holds {IMAGES}/ and {SEQUENCES}/"
    if trees.find_home(root, lambda folder: (folder / f"{SEQUENCES}.zip").is_file()):
        return f"unpack {SEQUENCES}.zip"
    if trees.find_home(root, _is_part):
        return f"only {IMAGES}/ is here: unpack {SEQUENCES}.zip beside it"
    return f"give the folder that holds {IMAGES}/ and {SEQUENCES}/ (3DPW) as ROOT"
