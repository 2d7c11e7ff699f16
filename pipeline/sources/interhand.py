"""InterHand2.6M v1.0, at 5 or 30 frames per second: one or two hands of a person before dozens of synchronous cameras.

``` text
<root>/InterHand2.6M_5fps_batch1/images/{train,val,test}/Capture0/0013_surfer/cam410049/image4973.jpg
<root>/annotations/{train,val,test}/InterHand2.6M_{train,val,test}_{data,camera}.json
```
The root may be the folder that holds both, `images/` itself, or one more level up; the annotations may lie under any name
below it. The number in an image's name is the frame of the capture's clock, not padded, and shared by all cameras. Captures
are counted anew in each split: val/Capture0 and test/Capture0 are not one.

data.json (gigabytes: a box that holds all hands, and the kind of hands, for every picture) is read once, in one pass, into a
Parquet file of one row group per sequence. A split without it is listed from its folders, and the whole frame is the box.

Convention: world and `campos` are millimetres there, metres here; x_camera = R (x_world - campos); no lens distortion. Boxes
are [x, y, width, height], 1.2 times as large as that of the projected joints, and clipped to the picture here.
"""

import io
import json
import logging
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from manifests.errors import SourceError
from manifests.files import stamp_of, write_bytes
from manifests.jsonstream import iter_arrays, iter_members
from manifests.types import OFFICIAL_SPLIT, BoxFrom, Domain, Reason, Reject, Split, key_part
from pipeline.sources import trees
from pipeline.sources.base import STAGE, Card, Floats, Marker, Recording, Scan, Source
from pipeline.sources.boxes import clipped, whole
from pipeline.sources.calibration import is_rotation, pinhole
from pipeline.sources.layout import may_search, require_folder

logger = logging.getLogger(__name__)

Ints = npt.NDArray[np.int64]

TRACK = "hands"  # one box holds all hands of the one person
# Ticks per second of the numbers in the images' names. Source: issue 147 of the dataset's repository.
CLOCK_HZ = {Split.TRAIN: 90, Split.VAL: 30, Split.TEST: 30}
RELEASES_FPS = (5, 30)
INDEX = "interhand-2"  # of the Parquet files made of data.json; the number rises when their content changes
MANY_PICTURES = 100_000  # of one sequence: its crops take some 1.5 GB
OLD_FOLDERS = ("all", "human_annot", "machine_annot")  # of annotations v0.0

HANDS = (None, "right", "left", "interacting")  # in this order in the index
SIDES = (None, "right", "left", None)
_HAND_NUMBER = {name: number for number, name in enumerate(HANDS) if name}
# Why a picture that data.json lists cannot be used; in this order in the index.
FAULTS: tuple[tuple[Reason, str] | None, ...] = (
    None,
    (Reason.BAD_LABEL, "the file is not named as the capture, sequence, camera and frame in data.json say"),
    (Reason.TWICE, "data.json lists or annotates it more than once"),
    (Reason.UNLABELLED, "no annotation in data.json"),
    (Reason.BAD_LABEL, "the box or the size in data.json is not positive and finite"),
    (Reason.HIDDEN, "the box in data.json lies outside the picture"),
)
OK, ASTRAY, TWICE, UNLABELLED, BAD_BOX, OUTSIDE = range(len(FAULTS))

IMAGES = "images/{train,val,test}/Capture0"
_SPLITS = [split.value for split in Split]
_CAPTURE = re.compile(r"Capture[0-9]+")
_CAMERA = re.compile(r"cam(0|[1-9][0-9]{0,8})")
_IMAGE = re.compile(r"image(0|[1-9][0-9]{0,8})\.jpg")
_NAME = re.compile(r"\w[\w.-]*")
_PLAIN = ("camera", "frame", "fault", "hands")
_SCHEMA = pa.schema(
    [
        pa.field("camera", pa.int32(), nullable=False),
        pa.field("frame", pa.uint32(), nullable=False),
        pa.field("fault", pa.int8(), nullable=False),  # place in FAULTS
        pa.field("hands", pa.int8(), nullable=False),  # place in HANDS
        pa.field("size", pa.list_(pa.int32(), 2), nullable=False),  # width, height, px
        pa.field("box_xyxy_px", pa.list_(pa.float32(), 4), nullable=False),  # clipped to the picture; NaN: none
    ]
)

CARD = Card(
    title="InterHand2.6M v1.0",
    domains=(Domain.HAND,),
    tree="images/{train,val,test}/Capture*/<sequence>/cam*/image*.jpg and "
    "annotations/{train,val,test}/InterHand2.6M_*_{data,camera}.json",
    get="mks0601.github.io/InterHand2.6M: images of 5 or 30 fps (join the parts, then unpack) and their annotations, v1.0",
    licence="CC BY-NC 4.0",
    terms="Not for commercial use; the authors are to be named.",
    gives="cross-view and cross-pose; boxes from the dataset, around both hands; no silhouettes",
)


@dataclass(frozen=True, slots=True)
class _Tree:
    """Where things lie below a root.

    Attributes:
        images: holds a folder for each split.
        annotations: the same, or None.
    """

    images: Path
    annotations: Path | None

    def splits(self) -> list[Split]:
        """Those that have images."""
        return [split for split in Split if _captures(self.images / split)]

    def annotation(self, split: Split, what: str) -> Path | None:
        """An annotation file of a split, if it is there."""
        if self.annotations is None:
            return None
        path = self.annotations / split / f"InterHand2.6M_{split}_{what}.json"
        return path if path.is_file() else None


@dataclass(frozen=True, slots=True)
class _Sequence:
    """What the index says of a sequence: its row group, the number of its rows, and the person."""

    row_group: int
    pictures: int
    subject: int | None


@dataclass(frozen=True, slots=True)
class _Pictures:
    """The pictures of one sequence, in the order of camera and frame.

    Attributes:
        camera: (n,) numbers.
        frame: (n,) numbers.
        size: (n, 2) width and height, px.
        box_xyxy_px: (n, 4), in the picture.
        hands: (n,) places in HANDS.
    """

    camera: Ints
    frame: Ints
    size: Ints
    box_xyxy_px: Floats
    hands: Ints

    @classmethod
    def joined(cls, parts: "Sequence[_Pictures]") -> "_Pictures":
        """Several views, one after another."""
        none = cls(*(np.zeros(shape, np.int64) for shape in (0, 0, (0, 2), (0, 4), 0)))  # type: ignore[arg-type]
        columns = [[getattr(part, name) for part in (none, *parts)] for name in cls.__slots__]
        return cls(*(np.concatenate(column) for column in columns))


class InterHandSource(Source):
    """See the module."""

    card = CARD

    @override
    def look(self, root: Path) -> list[Marker]:
        """See `Source.look`."""
        try:
            tree = _find(root)
        except SourceError as error:
            return [Marker(what=IMAGES, found=False, hint=f"{error.what}: {error.hint}")]
        splits = tree.splits()
        fewer = f"only {', '.join(splits)}" if len(splits) < len(Split) else ""
        markers = [Marker(what=IMAGES, found=True, hint=fewer)]
        for split in splits:
            for what, without in (("data", "whole frames are cut"), ("camera", "pairs have no view angle")):
                hint = f"without it {without}; unpack the annotations of v1.0 below the root"
                name = f"annotations/{split}/InterHand2.6M_{split}_{what}.json"
                markers.append(Marker.of(name, tree.annotation(split, what), hint, needed=False))
        return markers

    @override
    def prepare(self, root: Path) -> Iterator[tuple[int, int]]:
        """Read the data.json of each wanted split into its index; see `Source.prepare`."""
        tree = _find(root)
        wanted = [file for split in self._wanted(tree) if (file := tree.annotation(split, "data"))]
        due = [(file, self._index_of(file)) for file in wanted]
        due = [(file, target) for file, target in due if not target.is_file()]
        done, total = 0, sum(file.stat().st_size for file, _ in due)
        for file, target in due:
            for now in _write_index(file, target):
                yield done + now, total
            done += file.stat().st_size
            yield done, total

    @override
    def recordings(self, root: Path) -> list[Recording]:
        """List the sequences of all splits that have images; see `Source.recordings`."""
        tree = _find(root)
        found = [one for split in tree.splits() for one in self._recordings(root, tree, split)]
        captures = {split: {one.folder.split("/")[-2] for one in found if one.split is split} for split in Split}
        for name in sorted(captures[Split.VAL] & captures[Split.TEST]):
            logger.info("val/%s and test/%s are different captures", name, name)
        return sorted(found, key=lambda one: (one.sequence, one.split))

    @override
    def scan(self, root: Path, recording: Recording, *, split: Split) -> Scan:
        """List the pictures of one sequence; see `Source.scan`."""
        there, rejects = _files_of(root, recording.folder)
        data, calibration = (_listed(root, recording, what) for what in ("data", "camera"))
        subject = None
        if data is None:
            pictures, bad = _from_files(root, recording.folder, there)
        else:
            index = self._index_of(data)
            entry = _sequences(index).get(_place(recording.folder))
            subject = entry.subject if entry else None
            pictures, bad = _from_index(index, entry, recording.folder, there)
        rejects += bad
        time_s, doubt = _times_s(pictures.frame, CLOCK_HZ[split])
        if doubt:
            rejects.append(Reject(STAGE, recording.folder, Reason.CLOCK, doubt, len(pictures.frame)))
        views, at = np.unique(pictures.camera, return_inverse=True)
        cameras = _cameras(calibration, recording.folder) if calibration else {}
        unknown = (np.full((3, 3), np.nan), np.full((4, 4), np.nan))
        known = [cameras.get(view, unknown) for view in views.tolist()]
        frames = self.table(
            recording,
            split,
            instant=pictures.frame,
            view=np.array([f"cam{view}" for view in views.tolist()], object)[at],
            media=[
                f"{recording.folder}/cam{view}/image{frame}.jpg"
                for view, frame in zip(pictures.camera.tolist(), pictures.frame.tolist(), strict=True)
            ],
            width=pictures.size[:, 0],
            height=pictures.size[:, 1],
            track=TRACK,
            subject=None if subject is None else f"subject{subject}",
            time_s=time_s,
            box_xyxy_px=pictures.box_xyxy_px,
            box_from=(BoxFrom.FULL_FRAME if data is None else BoxFrom.DATASET).value,
            intrinsics=np.reshape([matrix for matrix, _ in known], (-1, 3, 3))[at],
            camera_from_world=np.reshape([pose for _, pose in known], (-1, 4, 4))[at],
            side=np.array(SIDES, object)[pictures.hands],
            flags=_flags(pictures, views.tolist(), at, calibrated=cameras if calibration else None),
        )
        return Scan(frames, rejects)

    def _wanted(self, tree: _Tree) -> list[Split]:
        return [split for split in tree.splits() if split in self.recipe.splits]

    def _index_of(self, data: Path) -> Path:
        assert self.work is not None, "whoever lists recordings gives a folder for the index"
        return self.work / f"{INDEX}-{_stamp(data)[:32]}.parquet"

    def _warn_of_long(self, split: Split, index: Mapping[tuple[str, str], _Sequence]) -> None:
        """Say so where a sequence is so long that its crops may not fit into memory at once."""
        place, longest = max(index.items(), key=lambda item: item[1].pictures, default=(None, None))
        if place and longest and longest.pictures > MANY_PICTURES * self.recipe.frame_step:
            logger.warning(
                "%s/%s: %d pictures, whose crops are kept in memory together: with a `frame_step` of %d they are fewer",
                split, "/".join(place), longest.pictures, -(-longest.pictures // MANY_PICTURES),
            )  # fmt: skip

    def _recordings(self, root: Path, tree: _Tree, split: Split) -> list[Recording]:
        """The sequences of one split that data.json lists, or that are there."""
        folder = tree.images / split
        places = {(name, sequence) for name in _captures(folder) for sequence in trees.list_folders(folder / name)}
        subjects: dict[tuple[str, str], int | None] = {}
        if data := tree.annotation(split, "data"):
            if split in self.recipe.splits:  # of the others no more than their names is of interest
                index = _sequences(self._index_of(data))
                subjects = {place: one.subject for place, one in index.items()}
                self._warn_of_long(split, index)
        elif split in self.recipe.splits:
            logger.warning(
                "%s has no data.json: its pictures are listed from folders, and whole frames are cut", folder
            )
        files = [file for what in ("camera", "data") if (file := tree.annotation(split, what))]
        listed = tuple(sorted((file.relative_to(root).as_posix(), file.stat().st_size) for file in files))
        recordings: dict[str, Recording] = {}
        for capture, sequence in sorted(places | subjects.keys()):
            subject = subjects.get((capture, sequence))
            place = f"{folder.relative_to(root).as_posix()}/{capture}/{sequence}"
            name = key_part(f"{capture}-{sequence}")
            if name in recordings:
                raise SourceError(
                    f"two sequences are called {name} in keys",
                    where=root / place,
                    hint=f"rename it, or {recordings[name].folder}",
                )
            recordings[name] = Recording(
                sequence=name,
                group=f"{split}-{capture.lower() if subject is None else f'subject{subject}'}",
                split=split,
                files=listed,
                folder=place,
            )
        return list(recordings.values())


# --- the folders ---


def _find(root: Path) -> _Tree:
    """Find the images and the annotations, down to three folders below the root.

    Raises:
        SourceError: they are not there, there are several, or they are of v0.0 or not unpacked.
    """
    require_folder(root)
    folders = _below(root, depth=3)
    images = _distinct(
        [f for f in folders if f in (root, f.parent / "images") and any(_captures(s) for s in _splits_in(f))]
    )
    labels = _distinct([f for f in folders if any(_is_annotation(s, s.name) for s in _splits_in(f))])
    for folder in [] if labels else folders:
        old = [name for name in OLD_FOLDERS if (folder / name).is_dir()]
        if old and (folder.name == "annotations" or any(folder.glob(f"{old[0]}/InterHand2.6M_*_data.json"))):
            raise SourceError(
                f"found v0.0 layout (annotations/{old[0]}); v1.0 expected annotations/train/",
                where=folder,
                hint="v0.0 is withdrawn: get the images and the annotations of v1.0",
            )
    if not images:
        parts = sorted(path.name for folder in folders for path in folder.glob("*.tar.part[a-z][a-z]"))
        if parts:
            name = parts[0].rpartition(".")[0]
            raise SourceError(
                f"archive parts not concatenated: file is named {parts[0]}",
                where=root,
                hint=f"cat {name}.part* > {name} && tar -xf {name}",
            )
        raise SourceError(
            f"no {IMAGES} is here",
            where=root,
            hint="give the folder that InterHand2.6M_5fps_batch1 was unpacked into, with the annotations beside it",
        )
    for what, found in (("images", images), ("annotations", labels)):
        if len(found) > 1:
            shown = " and ".join(folder.relative_to(root).as_posix() for folder in found[:2])
            raise SourceError(
                f"{what} are here more than once: {shown}",
                where=root,
                hint="give a folder that holds one release, 5 or 30 fps, and its annotations; links will do",
            )
    return _Tree(images[0], labels[0] if labels else None)


def _below(folder: Path, depth: int) -> list[Path]:
    """A folder and those below it, down to splits and captures; what cannot be listed is none of ours."""
    found = [folder]
    with suppress(SourceError):
        names = [name for name in trees.list_folders(folder) if name not in _SPLITS and not _CAPTURE.fullmatch(name)]
        for name in names if depth and len(names) <= trees.MAX_FOLDERS else []:
            found += _below(folder / name, depth - 1) if may_search(folder / name) else []
    return found


def _splits_in(folder: Path) -> list[Path]:
    return [folder / split for split in Split if (folder / split).is_dir() and may_search(folder / split)]


def _distinct(folders: list[Path]) -> list[Path]:
    """Of links to one folder, the first."""
    return list({folder.resolve(): folder for folder in reversed(folders)}.values())[::-1]


def _is_annotation(folder: Path, split: str) -> bool:
    return any((folder / f"InterHand2.6M_{split}_{what}.json").is_file() for what in ("data", "camera"))


def _captures(folder: Path) -> list[str]:
    return [name for name in trees.list_folders(folder) if _CAPTURE.fullmatch(name)]


def _place(folder: str) -> tuple[str, str]:
    """Capture3 and 0390_dh_touchROM of images/train/Capture3/0390_dh_touchROM."""
    capture, sequence = PurePosixPath(folder).parts[-2:]
    return capture, sequence


def _listed(root: Path, recording: Recording, what: str) -> Path | None:
    """An annotation file that was there when the recording was listed."""
    return next((root / name for name, _ in recording.files if name.endswith(f"_{what}.json")), None)


@trees.remembered(8)
def _stamp(path: Path) -> str:
    return stamp_of(path)


def _files_of(root: Path, folder: str) -> tuple[dict[int, list[str]], list[Reject]]:
    """Names of the files of each camera of a sequence; a folder that is no camera's is a reject."""
    found, rejects = dict[int, list[str]](), list[Reject]()
    for name in trees.list_folders(root / folder):
        if _CAMERA.fullmatch(name):
            found[int(name[3:])] = [file for file in trees.list_names(root / folder / name) if not file.startswith(".")]
        else:
            rejects.append(
                Reject(STAGE, f"{folder}/{name}", Reason.UNLABELLED, "the folder is not called cam and a number")
            )
    return found, rejects


def _from_files(root: Path, folder: str, there: dict[int, list[str]]) -> tuple[_Pictures, list[Reject]]:
    """The pictures that are there, where nothing else is known of them: of the size of their view's first, boxed whole."""
    parts, rejects = list[_Pictures](), list[Reject]()
    for camera, names in sorted(there.items()):
        place = f"{folder}/cam{camera}"
        frames = sorted(int(found[1]) for name in names if (found := _IMAGE.fullmatch(name)))
        odd = [name for name in names if not _IMAGE.fullmatch(name)]
        rejects += _of_some(place, odd, Reason.UNLABELLED, ": not called image and a number")
        size = trees.image_size(root / place, pa.array([f"image{frame}.jpg" for frame in frames], pa.string()))
        if size is not None:
            each = np.zeros((len(frames), 1), np.int64)
            parts.append(_Pictures(camera + each[:, 0], np.array(frames), size + each, whole(size) + each, each[:, 0]))
        elif frames:
            rejects += trees.nothing_seen(place, len(frames))
    return _Pictures.joined(parts), rejects


def _of_some(place: str, names: Sequence[str], reason: Reason, what: str) -> list[Reject]:
    """The reject of some files, of which the first are named."""
    shown = f"({', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''})"
    return trees.counted(place, (len(names), reason, shown + what))


# --- the clock, the flags and the cameras ---


def _times_s(frame: Ints, hz: int) -> tuple[Floats | None, str]:
    """Seconds since the first picture; None, and why, where the steps are not those of a release."""
    steps, counts = np.unique(np.diff(np.unique(frame)), return_counts=True)
    usual = {fps: hz // fps for fps in RELEASES_FPS}
    if len(steps) and (step := int(steps[counts.argmax()])) not in usual.values():
        due = " or ".join(f"{step} ({fps} fps)" for fps, step in usual.items())
        return None, f"frames mostly step by {step}, where {due} is due: times are not known"
    return (frame - (frame.min() if len(frame) else 0)) / hz, ""


def _flags(pictures: _Pictures, views: list[int], at: Ints, calibrated: Mapping[int, Any] | None) -> list[list[str]]:
    """The flags of each picture: of its camera (`at` its place in `views`), and of the hands that it shows."""
    table = []
    for view in views:
        own = [OFFICIAL_SPLIT]
        own += ["gray"] if str(view).startswith("41") else []
        own += ["uncalibrated"] if calibrated is not None and view not in calibrated else []
        table.append([sorted([*own, hands] if hands else own) for hands in HANDS])
    return [table[view][hands] for view, hands in zip(at.tolist(), pictures.hands.tolist(), strict=True)]


def _cameras(path: Path, folder: str) -> dict[int, tuple[Floats, Floats]]:
    """Intrinsics and camera_from_world of the cameras of a sequence's capture, by number."""
    return _read_cameras(path, _place(folder)[0].removeprefix("Capture"))


@trees.remembered(8)
def _read_cameras(path: Path, capture: str) -> dict[int, tuple[Floats, Floats]]:
    found: Any = next((parts for name, parts in iter_members(path) if name == capture), {})
    cameras = {}
    try:
        for name, campos in found.get("campos", {}).items():
            rotation, campos_m = np.array(found["camrot"][name], float), np.array(campos, float) / 1000
            focal, centre = np.array(found["focal"][name], float), np.array(found["princpt"][name], float)
            if not np.isfinite([*focal, *centre]).all() or focal.min() <= 0:
                raise ValueError(f"focal and princpt of camera {name} are no pinhole's")
            if not np.isfinite(campos_m).all():
                raise ValueError(f"campos of camera {name} is not finite")
            if rotation.shape != (3, 3) or not is_rotation(rotation):
                raise ValueError(f"camrot of camera {name} is no rotation")
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = rotation, -rotation @ campos_m
            cameras[int(name)] = pinhole(*focal, *centre), pose
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SourceError(
            f"the calibration does not parse: {error}",
            where=f"{path}, capture {capture}",
            hint="unpack the annotations of v1.0 again, or move the file away to go on without calibration",
        ) from error
    return cameras


# --- the index of data.json ---


def _from_index(
    path: Path, entry: _Sequence | None, folder: str, there: dict[int, list[str]]
) -> tuple[_Pictures, list[Reject]]:
    """The pictures that data.json lists, that can be used, and that are there."""
    with pq.ParquetFile(path) as file:
        rows = file.read_row_group(entry.row_group) if entry else file.schema_arrow.empty_table()
    camera, frame, fault, hands = (rows.column(name).to_numpy().astype(np.int64) for name in _PLAIN)
    size, box = (rows.column(name).combine_chunks().flatten().to_numpy() for name in ("size", "box_xyxy_px"))
    size, box = size.reshape(-1, 2).astype(np.int64), box.reshape(-1, 4).astype(np.float64)
    used = fault == OK
    rejects: list[Reject] = []
    if not there and len(frame):
        rejects += trees.counted(folder, (len(frame), Reason.MISSING, "pictures: no camera's folder is there"))
        used[:] = False
    starts = np.searchsorted(camera, views := sorted({*camera.tolist(), *there}))
    for view, start, stop in zip(views, starts, [*starts[1:], len(camera)], strict=True):
        place, mine = f"{folder}/cam{view}", slice(start, stop)
        names = [f"image{number}.jpg" for number in frame[mine].tolist()]
        for kind in np.unique(fault[mine]).tolist():
            told = FAULTS[kind]
            if told and (bad := [name for name, k in zip(names, fault[mine].tolist(), strict=True) if k == kind]):
                rejects += _of_some(place, bad, told[0], f": {told[1]}")
        if not there:
            continue
        files = set(there.get(view, ()))
        shown = np.fromiter((name in files for name in names), bool, len(names))
        gone = [name for name, is_there in zip(names, shown.tolist(), strict=True) if not is_there]
        rejects += _of_some(place, gone, Reason.MISSING, f" of {len(names)} are not there")
        extra = sorted(files.difference(names))
        rejects += _of_some(place, extra, Reason.UNLABELLED, ": data.json does not list them")
        used[mine] &= shown
    return _Pictures(camera[used], frame[used], size[used], box[used], hands[used]), rejects


@lru_cache(maxsize=4)
def _sequences(path: Path) -> dict[tuple[str, str], _Sequence]:
    """The sequences of an index, by capture and name.

    Raises:
        SourceError: there is no index, or it cannot be read.
    """
    try:
        told = json.loads(pq.read_schema(path).metadata[b"sequences"])
        return {
            (one["capture"], one["sequence"]): _Sequence(k, one["pictures"], one["subject"])
            for k, one in enumerate(told)
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"the index of data.json cannot be read: {error}",
            where=path,
            hint="remove it; the next ingest makes it anew",
        ) from error


@dataclass(slots=True)
class _Listed:
    """The columns of data.json's `images`."""

    id: "array[int]" = field(default_factory=lambda: array("q"))
    sequence: "array[int]" = field(default_factory=lambda: array("i"))  # place in `sequences`
    camera: "array[int]" = field(default_factory=lambda: array("i"))
    frame: "array[int]" = field(default_factory=lambda: array("I"))
    width: "array[int]" = field(default_factory=lambda: array("i"))
    height: "array[int]" = field(default_factory=lambda: array("i"))
    astray: "array[int]" = field(default_factory=lambda: array("b"))
    sequences: dict[tuple[int, str], int] = field(default_factory=dict)
    subjects: list[set[Any]] = field(default_factory=list)  # of each sequence

    def add(self, item: dict[str, Any]) -> None:
        """Take one in."""
        capture, name, camera, frame = item["capture"], item["seq_name"], int(item["camera"]), item["frame_idx"]
        place = self.sequences.get((capture, name))
        if place is None:
            if not _NAME.fullmatch(name) or capture < 0:
                raise ValueError(f"capture {capture!r}, sequence {name!r} name no folder")
            place = self.sequences[capture, name] = len(self.sequences)
            self.subjects.append(set())
        self.subjects[place].add(item.get("subject"))
        self.sequence.append(place)
        self.id.append(item["id"])
        self.camera.append(camera)
        self.frame.append(frame)
        self.width.append(item["width"])
        self.height.append(item["height"])
        self.astray.append(item["file_name"] != f"Capture{capture}/{name}/cam{camera}/image{frame}.jpg")


@dataclass(slots=True)
class _Labelled:
    """The columns of data.json's `annotations`."""

    image_id: "array[int]" = field(default_factory=lambda: array("q"))
    box_xywh_px: "array[float]" = field(default_factory=lambda: array("f"))
    hands: "array[int]" = field(default_factory=lambda: array("b"))

    def add(self, item: dict[str, Any]) -> None:
        """Take one in."""
        x, y, width, height = item["bbox"]
        self.box_xywh_px.extend((x, y, width, height))
        self.image_id.append(item["image_id"])
        self.hands.append(_HAND_NUMBER.get(item["hand_type"], 0) if item["hand_type_valid"] else 0)


def _write_index(path: Path, target: Path) -> Iterator[int]:
    """Read a data.json, in one pass, and write its index.

    Memory: some 200 bytes a picture at the most, while the two arrays are joined (see tests/bench/bench_interhand.py).

    Yields:
        bytes done.

    Raises:
        SourceError: the file is damaged, or is not a data.json.
    """
    listed, labelled, before = _Listed(), _Labelled(), 0
    for key, item, done in iter_arrays(path, ("images", "annotations")):
        try:
            (listed if key == "images" else labelled).add(item)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            shown = item.get("id") if isinstance(item, dict) else item
            raise SourceError(
                f"{path.name} does not parse: {type(error).__name__} {error}",
                where=f"{path}, {key}, the one with id {str(shown)[:40]}",
                hint="unpack the annotations of v1.0 again",
            ) from error
        if done > before:
            yield (before := done)
    write_bytes(target, _joined(path, listed, labelled))


def _joined(path: Path, listed: _Listed, labelled: _Labelled) -> bytes:
    """Images with their annotations, as a Parquet file of one row group per sequence."""
    ids = np.frombuffer(listed.id, np.int64)
    by_id = np.argsort(ids, kind="stable")
    if (np.diff(ids[by_id]) == 0).any():
        raise SourceError("two images have one id", where=path, hint="unpack the annotations of v1.0 again")
    of = np.frombuffer(labelled.image_id, np.int64)
    at = np.searchsorted(ids, of, sorter=by_id)
    known = at < len(ids)
    known[known] = ids[by_id[at[known]]] == of[known]
    if not known.all():
        logger.warning("%s: %d annotations are of images that it does not list", path, (~known).sum())
    row = by_id[at[known]]
    box, hands = np.full((len(ids), 4), np.nan, np.float32), np.zeros(len(ids), np.int8)
    box[row] = np.frombuffer(labelled.box_xywh_px, np.float32).reshape(-1, 4)[known]
    hands[row] = np.frombuffer(labelled.hands, np.int8)[known]
    size = np.stack([np.frombuffer(listed.width, np.int32), np.frombuffer(listed.height, np.int32)], axis=1)
    columns: dict[str, npt.NDArray[Any]] = {
        name: np.frombuffer(getattr(listed, name), dtype)
        for name, dtype in (("sequence", np.int32), ("camera", np.int32), ("frame", np.uint32), ("astray", np.int8))
    }
    order = np.lexsort([columns["frame"], columns["camera"], columns["sequence"]])
    same = np.all([np.diff(columns[name][order]) == 0 for name in ("frame", "camera", "sequence")], axis=0)
    twice = np.bincount(row, minlength=len(ids)) > 1
    twice[order[1:][same]] = twice[order[:-1][same]] = True

    good = np.isfinite(box).all(axis=1) & (box[:, 2:] > 0).all(axis=1) & (size > 0).all(axis=1)
    box[~good] = np.nan
    box[:, 2:] += box[:, :2]
    box[:] = clipped(box, size)
    inside = np.isfinite(box).all(axis=1)
    bare = np.ones(len(ids), bool)
    bare[row] = False
    checks = [columns["astray"] > 0, twice, bare, ~good, ~inside]
    columns["fault"] = np.select(checks, [ASTRAY, TWICE, UNLABELLED, BAD_BOX, OUTSIDE], OK).astype(np.int8)
    columns |= {"size": size, "box_xyxy_px": box, "hands": hands}

    counts = np.bincount(columns["sequence"], minlength=len(listed.sequences))
    told = [
        {"capture": f"Capture{capture}", "sequence": name, "pictures": count, "subject": _only(subjects)}
        for (capture, name), count, subjects in zip(listed.sequences, counts.tolist(), listed.subjects, strict=True)
    ]
    schema = _SCHEMA.with_metadata({"sequences": json.dumps(told)})
    ends = np.cumsum(counts)
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for start, end in zip(ends - counts, ends, strict=True):
            rows = order[start:end]
            arrays = [_arrow(columns[name][rows], kind) for name, kind in zip(schema.names, schema.types, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=len(rows))
    return buffer.getvalue()


def _only(subjects: set[Any]) -> int | None:
    """The one person that all pictures of a sequence name."""
    one = next(iter(subjects)) if len(subjects) == 1 else None
    return one if isinstance(one, int) else None


def _arrow(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values, kind)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), kind.value_type), kind.list_size).cast(kind)
