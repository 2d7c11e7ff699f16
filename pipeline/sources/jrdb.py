"""JRDB 2019 and 2022: crowds seen by the five cameras of a small robot; one track is one pedestrian in one camera.

``` text
<root>/train_dataset_with_activity/images/image_{0,2,4,6,8}/bytes-cafe-2019-02-07_0/000000.jpg     752 x 480
<root>/train_dataset_with_activity/labels/labels_2d/bytes-cafe-2019-02-07_0_image0.json
<root>/train_dataset_with_activity/images/image_stitched/bytes-cafe-2019-02-07_0/000000.jpg        3760 x 480
<root>/train_dataset_with_activity/labels/labels_2d_stitched/bytes-cafe-2019-02-07_0.json
<root>/train_dataset/..., <root>/{images,labels}/...                                               other names in use
<root>/train_images/images/..., <root>/train_labels/labels/...                                     zips unpacked apart
```
The five cameras are used where their labels are there, else the stitched panorama. A frame is named by the key of the label
file: the `file_id` inside may be another. The two releases number their frames differently, so a sequence whose labels and
images do not match is left out.

Source: Martin-Martin et al., JRDB, TPAMI 2021; Ehsanpour et al., JRDB-Act, CVPR 2022; 15 frames a second: jrdb_toolkit issue 20.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from manifests import table as tables
from manifests.errors import SourceError
from manifests.jsonstream import iter_members
from manifests.types import BoxFrom, Domain, Reason, Reject, Split, key_part
from pipeline.sources import trees
from pipeline.sources.base import STAGE, Card, Marker, Recording, Scan, Source
from pipeline.sources.boxes import clipped
from pipeline.sources.layout import files_below, require_folder

FPS = 15
CAMERAS = {f"image{number}": f"image_{number}" for number in (0, 2, 4, 6, 8)}
STITCHED = "stitched"
SIZE, STITCHED_SIZE = (752, 480), (3760, 480)

_WHOLE = ("train_dataset_with_activity", "train_dataset", "")
_LABEL_FILE = re.compile(r"(.+)_(image[02468])")
_FRAME = re.compile(r"\d{1,9}\.jpg")
_PEDESTRIAN = re.compile(r"pedestrian:(\d+)")
# What may be said of a box, with the flag that its frame then carries.
_FLAGS = ("truncated", "interpolated", "no_eval")
_HIDDEN, _SEVERE = "Fully_occluded", "Severely_occluded"

_HINT = "unpack train_labels and train_images of one release; test labels are withheld, so the test set is no use"

CARD = Card(
    title="JRDB 2019, 2022",
    domains=(Domain.BODY,),
    tree="train_dataset_with_activity/{images/image_0/<sequence>/000000.jpg, labels/labels_2d/<sequence>_image0.json}",
    get="jrdb.erc.monash.edu (account): images and labels of the train set, both of one release",
    licence="CC BY-NC-SA 3.0 (unverified)",
    terms="Its exact terms were not seen; the test set has no labels and is not read.",
    gives="cross-pose in each camera; boxes of the dataset; silhouettes from the parser",
)


@dataclass(frozen=True, slots=True)
class _Home:
    """Where images and labels lie; they may be in folders apart."""

    images: Path
    labels: Path


@dataclass(slots=True)
class _Boxes:
    """Columns of a label file: frames by their keys, and the boxes of pedestrians, each once a frame."""

    keys: list[str] = field(default_factory=list)
    num_empty: int = 0  # frames that show nobody
    left_out: Counter[tuple[Reason, str]] = field(default_factory=Counter)
    frames: list[int] = field(default_factory=list)  # by box: place in `keys`
    names: list[str] = field(default_factory=list)
    boxes: list[Any] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)
    flags: list[list[str]] = field(default_factory=list)


class JrdbSource(Source):
    """See the module."""

    card = CARD

    @override
    def look(self, root: Path) -> list[Marker]:
        """See `Source.look`."""
        home = _find(root)
        images = home is not None and _has_images(home)
        labels = home is not None and _has_labels(home)
        used = home is not None and (_has_cameras(home) or _has_panorama(home))
        how = "the stitched panorama is used: no single camera has images and labels"
        return [
            Marker(what="JRDB: images/image_0/ or labels/labels_2d/", found=images or labels),
            Marker(what="images/image_{0,2,4,6,8}/<sequence>/, or image_stitched/", found=images, hint=_at(root, home)),
            Marker.of("labels/labels_2d/<sequence>_image0.json, or labels_2d_stitched/", labels, _HINT),
            Marker(
                what="images and labels of the same cameras",
                found=used,
                hint=how if home is not None and used and not _has_cameras(home) else "",
            ),
        ]

    @override
    def recordings(self, root: Path) -> list[Recording]:
        """One recording per sequence and camera, so that no track is joined across cameras; see `Source.recordings`."""
        require_folder(root)
        home = _find(root)
        if home is None:
            raise SourceError("this is no JRDB", where=root, hint=f"looked for {CARD.tree}")
        if not (_has_cameras(home) or _has_panorama(home)):
            missing = (
                "labels" if not _has_labels(home) else "images" if not _has_images(home) else "images of the labels"
            )
            raise SourceError(f"{missing} are missing", where=_at(root, home), hint=_HINT)
        cameras = _has_cameras(home)
        found = []
        for file in sorted((home.labels / ("labels_2d" if cameras else "labels_2d_stitched")).glob("*.json")):
            named = _LABEL_FILE.fullmatch(file.stem)
            if cameras and named is None:
                continue
            name, view = (named[1], named[2]) if cameras and named else (file.stem, STITCHED)
            images = home.images / CAMERAS.get(view, "image_stitched") / name
            found.append(
                Recording(
                    sequence=f"{key_part(name)}-{view}",
                    group=key_part(name),
                    split=None,
                    files=files_below(root, [file]),
                    folder=images.relative_to(root).as_posix(),
                )
            )
        if not found:
            raise SourceError("no label file is here", where=home.labels, hint=_HINT)
        return sorted(found, key=lambda recording: recording.sequence)

    @override
    def scan(self, root: Path, recording: Recording, *, split: Split) -> Scan:
        """List the pedestrians of one sequence in one camera; see `Source.scan`."""
        path, folder = root / recording.files[0][0], root / recording.folder
        view = recording.sequence.rpartition("-")[2]
        found = _read_labels(path)

        def nothing(count: int, reason: Reason, detail: str) -> Scan:
            return Scan([], [Reject(STAGE, recording.folder, reason, detail, max(1, count))])

        if not folder.is_dir():
            num = len(found.keys)
            return nothing(num, Reason.MISSING, f"{num} labelled pictures: their folder is not there")
        names, odd = trees.list_named(folder, r"\d{1,9}\.jpg")
        there = set(names.to_pylist())
        listed = set(found.keys)
        if listed < there:  # a camera before which nobody is at times may leave frames out; its sequence must not
            listed |= _keys_of_cameras(path)
        if listed != there:
            detail = _mismatch(found.keys, there, folder.name)
            return nothing(len(there.union(found.keys)), Reason.BAD_LABEL, detail)
        width, height = due = STITCHED_SIZE if view == STITCHED else SIZE
        size = trees.image_size(folder, names)
        if size is None and len(names):
            return Scan([], trees.nothing_seen(recording.folder, len(names)))
        if size not in (None, due):
            detail = trees.numbered(
                len(names), f"images: {size[0]} x {size[1]} px, where labels are for {width} x {height}"
            )
            return nothing(len(names), Reason.SIZE, detail)
        boxes, kept = _judge(found, path, view)
        left_out = [(count, reason, what) for (reason, what), count in sorted(found.left_out.items())]
        rejects = trees.counted(recording.files[0][0], *left_out)
        rejects += trees.counted(recording.folder, (odd, Reason.BAD_LABEL, "images are not named like 000000.jpg"))
        num_empty = found.num_empty + len(there) - len(found.keys)
        if num_empty or not there:
            detail = f"{num_empty} of {len(there)} pictures show nobody"
            rejects.append(Reject(STAGE, recording.folder, Reason.EMPTY, detail, max(1, num_empty)))
        if not len(kept):
            return Scan(tables.empty("frames"), rejects)
        numbers = np.array([int(key[:-4]) for key in found.keys], np.int64)
        paths = [f"{recording.folder}/{key}" for key in found.keys]
        shown = np.array(found.frames, np.int64)[kept]
        instant = numbers[shown]
        frames = self.table(
            recording, split,
            instant=instant,
            time_s=instant / FPS,
            view=view,
            track=[found.names[row] for row in kept],
            media=[paths[frame] for frame in shown],
            width=width, height=height,
            box_xyxy_px=boxes,
            box_from=BoxFrom.DATASET.value,
            flags=[found.flags[row] for row in kept],
        )  # fmt: skip
        return Scan(frames, rejects)


def _layouts(folder: Path) -> Iterator[_Home]:
    for name in _WHOLE:
        yield _Home(folder / name / "images", folder / name / "labels")
    images, labels = trees.unwrapped(folder / "train_images"), trees.unwrapped(folder / "train_labels")
    yield _Home(
        images / "images" if (images / "images").is_dir() else images,
        labels / "labels" if (labels / "labels").is_dir() else labels,
    )


def _has_images(home: _Home) -> bool:
    return any((home.images / name).is_dir() for name in (*CAMERAS.values(), "image_stitched"))


def _has_labels(home: _Home) -> bool:
    return any((home.labels / name).is_dir() for name in ("labels_2d", "labels_2d_stitched"))


def _has_part(home: _Home) -> bool:
    return _has_images(home) or _has_labels(home)


def _has_cameras(home: _Home) -> bool:
    """Whether single cameras can be used."""
    return (home.labels / "labels_2d").is_dir() and any((home.images / name).is_dir() for name in CAMERAS.values())


def _has_panorama(home: _Home) -> bool:
    """Whether the stitched panorama can be used."""
    return (home.labels / "labels_2d_stitched").is_dir() and (home.images / "image_stitched").is_dir()


def _find(root: Path) -> _Home | None:
    """Images and labels that go together: with single cameras first, then the panorama, then a part of a dataset."""
    for fits in (_has_cameras, _has_panorama, _has_part):

        def holds(folder: Path, fits: Callable[[_Home], bool] = fits) -> bool:
            return any(map(fits, _layouts(folder)))

        folder = trees.find_home(root, holds)
        if folder is not None:
            return next(filter(fits, _layouts(folder)))
    return None


def _at(root: Path, home: _Home | None) -> str:
    if home is None:
        return ""
    parts = [path.relative_to(root).as_posix() for path in (home.images, home.labels)]
    return f"{parts[0]} and {parts[1]}"


def _mismatch(keys: list[str], there: set[str], sequence: str) -> str:
    """Why labels and images are not of one release."""
    if len(keys) > len(there):
        releases = "labels look like 2022, images like 2019"
    else:
        releases = "labels and images look like two releases, 2019 and 2022"
    count = f"{len(keys)} label keys but {len(there)} images in {sequence}"
    lost = len(set(keys) - there)
    return f"{count}{f', {lost} keys without an image' if lost else ''}: {releases}; sequence skipped"


def _read_labels(path: Path) -> _Boxes:
    """Read a label file, frame by frame.

    Raises:
        SourceError: it does not parse, or has not the fields of the dataset.
    """
    found = _Boxes()
    for key, people in iter_members(path, "labels"):
        if not _FRAME.fullmatch(key) or not isinstance(people, list):
            raise trees.misfit(path, f"labels[{key!r}]", people, "a list of people under a name such as 000000.jpg")
        seen = set[str]()
        for number, person in enumerate(people):
            where = f"labels[{key!r}][{number}]"
            if not isinstance(person, dict):
                raise trees.misfit(path, where, person, "an object")
            label, about = person.get("label_id"), person.get("attributes", {})
            if not isinstance(label, str):
                raise trees.misfit(path, f"{where}.label_id", label, "a name such as pedestrian:6")
            if not isinstance(about, dict):
                raise trees.misfit(path, f"{where}.attributes", about, "an object")
            pedestrian = _PEDESTRIAN.fullmatch(label)
            if pedestrian is None:
                found.left_out[Reason.JUNK, "boxes that are of no pedestrian"] += 1
                continue
            name = f"ped-{pedestrian[1]}"
            if name in seen:
                found.left_out[
                    Reason.TWICE, "boxes of people who are labelled twice in one picture; the first counts"
                ] += 1
                continue
            seen.add(name)
            occlusion = about.get("occlusion")
            found.frames.append(len(found.keys))
            found.names.append(name)
            found.boxes.append(person.get("box"))
            found.hidden.append(occlusion == _HIDDEN)
            # `truncated` is written as a string, the others as true or false.
            flags = [flag for flag in _FLAGS if str(about.get(flag)).lower() == "true"]
            found.flags.append(sorted([*flags, "severely_occluded"]) if occlusion == _SEVERE else sorted(flags))
        found.num_empty += not people
        found.keys.append(key)
    if len(set(found.keys)) < len(found.keys):
        raise SourceError("a frame is listed twice", where=path, hint="get the label file again")
    return found


def _keys_of_cameras(path: Path) -> set[str]:
    """The frames that any camera's label file of the same sequence lists."""
    files = [path.with_name(f"{path.stem.rpartition('_')[0]}_{view}.json") for view in CAMERAS]
    return {key for file in files if file.is_file() for key, _ in iter_members(file, "labels")}


def _judge(found: _Boxes, path: Path, view: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Boxes (n, 4) that can be used, clipped to the picture, and which of all they are (n,); the others are counted."""
    boxes = _corners(found, path)
    picture = STITCHED_SIZE if view == STITCHED else SIZE
    inside = clipped(boxes, picture)
    with np.errstate(invalid="ignore"):
        size = boxes[:, 2:] - boxes[:, :2]
        faults = [
            (Reason.HIDDEN, "boxes of people who are fully hidden", np.array(found.hidden, bool)),
            (Reason.BAD_LABEL, "boxes without width or height", ~(np.isfinite(size).all(axis=1) & (size > 0).all(axis=1))),
            (Reason.TRUNCATED, "boxes outside the picture", np.isnan(inside).any(axis=1)),
        ]  # fmt: skip
        if view == STITCHED:
            seam = (boxes[:, 0] < 0) | (boxes[:, 2] > picture[0])
            faults.insert(2, (Reason.TRUNCATED, "boxes across the panorama's seam", seam))
    good = np.ones(len(boxes), bool)
    for reason, what, bad in faults:
        if (good & bad).any():
            found.left_out[reason, what] += int((good & bad).sum())
        good &= ~bad
    kept = np.flatnonzero(good)
    return inside[kept], kept


def _corners(found: _Boxes, path: Path) -> npt.NDArray[np.float64]:
    """(n, 4) x0, y0, x1, y1 of boxes that are written as x, y, width, height."""
    try:
        boxes = np.array(found.boxes, np.float64).reshape(len(found.boxes), 4)
    except (ValueError, TypeError, OverflowError):
        for frame, name, box in zip(found.frames, found.names, found.boxes, strict=True):
            if not _is_box(box):
                raise trees.misfit(path, f"labels[{found.keys[frame]!r}], box of {name}", box, "4 numbers") from None
        raise
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _is_box(value: Any) -> bool:
    try:
        return np.array(value, np.float64).shape == (4,)
    except (ValueError, TypeError, OverflowError):
        return False
