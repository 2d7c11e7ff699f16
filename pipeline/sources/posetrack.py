"""PoseTrack 2018 and 2021: crowds in short web videos, some frames of each labelled; one track is one person of one video.

``` text
<root>/images/{train,val}/000001_bonn_train/000000.jpg
<root>/posetrack_data/{train,val}/000001_bonn_train.json                 PoseTrack21, or else
<root>/posetrack_data/annotations/{train,val}/000001_bonn_train.json     PoseTrack18 as published, or else
<root>/annotations/{train,val}/000001_bonn_train.json                    the same, moved by mmpose, or else
<root>/annotations/posetrack18_{train,val}.json                          merged by mmpose
```
The first form that is there counts, for each split. Image ids say nothing (they contradict their own description): frames are
named by their files. `person_id` of PoseTrack21 names a person over all videos.

Source: Andriluka et al., PoseTrack, CVPR 2018; Doering et al., PoseTrack21, CVPR 2022.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from typing_extensions import override

from manifests import table as tables
from manifests.errors import SourceError
from manifests.files import stamp_of, write_bytes, write_json
from manifests.jsonstream import iter_items
from manifests.types import EVERYBODY, OFFICIAL_SPLIT, BoxFrom, Domain, FrameKey, Reason, Reject, Split, key_part
from pipeline.recipes import SourceRecipe
from pipeline.sources import trees
from pipeline.sources.base import STAGE, Card, Marker, Recording, Scan, Source
from pipeline.sources.boxes import clipped
from pipeline.sources.layout import files_below, require_folder

logger = logging.getLogger(__name__)

VIEW = "cam"
KEYPOINTS = "posetrack17"  # nose, head bottom, head top, then as COCO; the ears are never labelled
NUM_KEYPOINTS = 17
EXPECTED = {Split.TRAIN: 593, Split.VAL: 170}  # sequences with labels, of version 0.45
OLD_VAL = 74  # of version 0.2

_FORMS = {
    "PoseTrack21": "posetrack_data/{}",
    "PoseTrack18": "posetrack_data/annotations/{}",
    "PoseTrack18, moved": "annotations/{}",
}
_MERGED = "PoseTrack18, merged"
_MERGED_FILE = "annotations/posetrack18_{}.json"
_SEQUENCE = re.compile(r"\d+_\w+")
_NUMBER = re.compile(r"\d{1,9}")
_DONE = "done.json"
_PARTS = ("images", "posetrack_data", "annotations")

OFFLINE = "posetrack.net is offline; see PoseTrack21 form"
IS_2017 = "these are archives of PoseTrack 2017 (images/bonn_5sec, .mat or annolist labels), which are not read"
HINT_2017 = f"get PoseTrack18 or PoseTrack21: {OFFLINE}"

CARD = Card(
    title="PoseTrack 2018, 2021",
    domains=(Domain.BODY,),
    tree="images/{train,val}/000001_bonn_train/000000.jpg; posetrack_data/ or annotations/",
    get="the signed form of github anDoer/PoseTrack21 (labels, and videos by mail): posetrack.net is offline",
    licence="CC BY-NC (unverified), signed agreement",
    terms="Its exact terms were not seen; the videos are web clips with rights of their own.",
    gives="cross-pose; boxes and keypoints of the dataset; silhouettes from the parser",
)


@dataclass(frozen=True, slots=True)
class _Picture:
    """An image that a label file lists."""

    instant: int
    file: PurePosixPath  # below the dataset's folder
    labelled: bool


@dataclass(slots=True)
class _People:
    """Columns of the people of one recording."""

    pictures: list[_Picture] = field(default_factory=list)
    tracks: list[str] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    keypoints: list[list[float] | None] = field(default_factory=list)
    subjects: list[str | None] = field(default_factory=list)


class PoseTrackSource(Source):
    """See the module."""

    card = CARD

    @override
    def look(self, root: Path) -> list[Marker]:
        """See `Source.look`."""
        home = _find(root)
        old = home is not None and _is_2017(home)
        shown = home is not None and (old or (home / "images").is_dir())
        markers = [
            Marker(what="PoseTrack: images/ or labels of it", found=home is not None, hint=IS_2017 if old else ""),
            Marker.of("images/{train,val}/000001_bonn_train/", shown, OFFLINE),
        ]
        for split in EXPECTED:
            forms = _forms(home, split) if home is not None else {}
            hint = HINT_2017 if old else _said(home, split, forms) if home is not None else OFFLINE
            markers.append(
                Marker(what=f"labels of {split}", found=bool(forms) and not old, needed=split is Split.TRAIN, hint=hint)
            )
        return markers

    @override
    def prepare(self, root: Path) -> Iterator[tuple[int, int]]:
        """Take merged label files apart, a file for each sequence; see `Source.prepare`."""
        home = _find(root)
        merged = [split for split in EXPECTED if home is not None and next(iter(_forms(home, split)), "") == _MERGED]
        for number, split in enumerate(merged, start=1):
            assert home is not None, "merged labels lie somewhere"
            path, folder = home / _MERGED_FILE.format(split), self._apart(split)
            done, stamp = folder / _DONE, {"file": path.name, "stamp": stamp_of(path)}
            if not done.is_file() or json.loads(done.read_text()) != stamp:
                shutil.rmtree(folder, ignore_errors=True)
                for name, labels in _take_apart(path).items():
                    write_bytes(folder / f"{name}.json", labels)
                write_json(done, stamp)
            yield number, len(merged)

    @override
    def recordings(self, root: Path) -> list[Recording]:
        """One recording per label file; see `Source.recordings`."""
        require_folder(root)
        home = _find(root)
        if home is None:
            raise SourceError("this is no PoseTrack", where=root, hint=_hint(root))
        if _is_2017(home):
            raise SourceError(IS_2017, where=home, hint=HINT_2017)
        if not (home / "images").is_dir():
            raise SourceError("images/ is missing", where=home, hint=f"unpack or link the images there; {OFFLINE}")
        place = home.relative_to(root).as_posix()
        found = []
        for split in EXPECTED:
            forms = _forms(home, split)
            if forms:
                logger.info("PoseTrack %s: %s", split, _said(home, split, forms))
            whole = files_below(root, forms[_MERGED]) if list(forms) == [_MERGED] else None
            for file in self._files(home, split):
                name, files = key_part(file.stem), whole if whole is not None else files_below(root, [file])
                found.append(Recording(sequence=name, group=name, split=split, files=files, folder=place))
                whole = whole and ()  # its labels are those of all: it stands in the fingerprint once
        if not found:
            raise SourceError("no label file is here", where=home, hint=f"looked for {CARD.tree}; {OFFLINE}")
        return sorted(found, key=lambda recording: recording.sequence)

    @override
    def scan(self, root: Path, recording: Recording, *, split: Split) -> Scan:
        """List the labelled people of one sequence; see `Source.scan`."""
        home, official = root / recording.folder, recording.split or split
        path = next((f for f in self._files(home, official) if key_part(f.stem) == recording.sequence), None)
        if path is None:
            raise SourceError("the label file is gone", where=home, hint="restore it, or build anew")
        pictures = _read_pictures(path)
        place = (PurePosixPath(recording.folder) / "images" / official / path.stem).as_posix()
        labelled = {number: picture for number, picture in pictures.items() if picture.labelled}
        num, rejects = len(pictures), list[Reject]()
        if len(labelled) < num or not num:
            detail = f"{num - len(labelled)} of {num} pictures carry no label"
            rejects.append(Reject(STAGE, place, Reason.UNLABELLED, detail, max(1, num - len(labelled))))
        there = _there(home, labelled)
        if len(there) < len(labelled):
            gone = next(picture for number, picture in labelled.items() if number not in there)
            what = f"of {len(labelled)} labelled images are not there, such as {gone.file}"
            rejects += trees.counted(place, (len(labelled) - len(there), Reason.MISSING, what))
        if not there:
            return Scan([], rejects)
        folder = next(iter(there.values())).file.parent
        names = pa.array(
            [picture.file.name for picture in there.values() if picture.file.parent == folder], pa.string()
        )
        size = trees.image_size(home / folder, names)
        if size is None:
            return Scan([], rejects + trees.nothing_seen(place, len(there)))
        judge = _Judge(self.recipe, recording, official, path, size)
        astray = 0
        for number, label in enumerate(iter_items(path, "annotations")):
            if not isinstance(label, dict):
                raise trees.misfit(path, f"annotations[{number}]", label, "an object")
            image = _whole(label, "image_id", f"annotations[{number}]", path)
            astray += image not in pictures
            if image in there:
                judge.take(label, there[image], number)
        rejects += trees.counted(
            place,
            (astray, Reason.BAD_LABEL, "people are in none of the pictures that their file lists"),
            (len(there) - len(judge.looked_at), Reason.EMPTY, f"of {len(there)} labelled pictures show nobody"),
        )
        return Scan(self._frames(recording, official, judge.people, size), rejects + judge.rejects)

    def _frames(self, recording: Recording, split: Split, people: _People, size: tuple[int, int]) -> pa.Table:
        if not people.tracks:
            return tables.empty("frames")
        known = any(people.subjects)
        return self.table(
            recording, split,
            instant=np.array([picture.instant for picture in people.pictures], np.int64),
            view=VIEW,
            track=people.tracks,
            media=[(PurePosixPath(recording.folder) / picture.file).as_posix() for picture in people.pictures],
            width=size[0], height=size[1],
            subject=people.subjects if known else None,
            box_xyxy_px=np.array(people.boxes),
            box_from=BoxFrom.DATASET.value,
            keypoints_set=KEYPOINTS,
            keypoints_px=people.keypoints,
            flags=(OFFICIAL_SPLIT,) if known else (),  # PoseTrack21 may show one person in train and in val
        )  # fmt: skip

    def _apart(self, split: Split) -> Path:
        """Where the labels of a merged file lie, one file a sequence."""
        if self.work is None:
            raise ValueError("merged labels need a work folder, and `prepare`")
        return self.work / split

    def _files(self, home: Path, split: Split) -> list[Path]:
        """The label files of a split, one a sequence."""
        form, files = next(iter(_forms(home, split).items()), ("", []))
        return _label_files(self._apart(split)) if form == _MERGED else files


class _Judge:
    """Goes through the labels of one recording: a row, or a reject."""

    def __init__(
        self, recipe: SourceRecipe, recording: Recording, split: Split, path: Path, size: tuple[int, int]
    ) -> None:
        self._key = {"source": recipe.name, "split": split, "sequence": recording.sequence, "view": VIEW}
        self._path, self._size = path, size
        self._seen: set[tuple[int, str]] = set()
        self.looked_at: set[int] = set()
        self.people, self.rejects = _People(), list[Reject]()

    def take(self, label: dict[str, Any], picture: _Picture, number: int) -> None:
        """Judge one label of a picture that is there."""
        where = f"annotations[{number}]"
        self.looked_at.add(picture.instant)
        track = _whole(label, "track_id", where, self._path, absent=-1)
        person = _whole(label, "person_id", where, self._path, absent=-1)
        box = _numbers(label, "bbox", 4, where, self._path)
        points = _numbers(label, "keypoints", 3 * NUM_KEYPOINTS, where, self._path)
        name = f"t{track}" if track >= 0 else EVERYBODY
        fault: tuple[Reason, str] | None = None
        corners = np.zeros(4)
        if track < 0:
            fault = Reason.BAD_LABEL, "no track_id"
        elif (picture.instant, name) in self._seen:
            fault = Reason.TWICE, f"track {track} is labelled twice in {picture.file.name}; the first counts"
        elif box is None:
            fault = Reason.BAD_LABEL, "no bbox"
        elif not np.isfinite(box).all():
            fault = Reason.BAD_LABEL, "the bbox is no box"
        elif min(box[2:]) <= 0:
            fault = Reason.BAD_LABEL, f"the bbox is {box[2]:g} x {box[3]:g} px"
        elif points is not None and not np.isfinite(points).all():
            fault = Reason.BAD_LABEL, "a keypoint is no number"
        elif (points is None or not points.any()) and person < 0:  # PoseTrack21 has boxes without keypoints
            fault = Reason.BAD_LABEL, "all keypoints are 0"
        else:
            corners = clipped([box[0], box[1], box[0] + box[2], box[1] + box[3]], self._size)
            if np.isnan(corners).any():
                fault = Reason.TRUNCATED, "the bbox lies outside the picture"
        self._seen.add((picture.instant, name))
        if fault is not None:
            key = str(FrameKey(**self._key, instant=picture.instant, track=name))  # type: ignore[arg-type]  # of two types
            self.rejects.append(Reject(STAGE, key, *fault))
            return
        self.people.pictures.append(picture)
        self.people.tracks.append(name)
        self.people.boxes.append(corners.tolist())
        self.people.keypoints.append(points.tolist() if points is not None and points.any() else None)
        self.people.subjects.append(f"p{person}" if person >= 0 else None)


def _find(root: Path) -> Path | None:
    """The dataset's folder: PoseTrack21 before 18, a whole one before a part."""

    def is_21(folder: Path) -> bool:
        return (folder / "images").is_dir() and any("PoseTrack21" in _forms(folder, split) for split in EXPECTED)

    def is_whole(folder: Path) -> bool:
        return (folder / "images").is_dir() and any(_forms(folder, split) for split in EXPECTED)

    def is_part(folder: Path) -> bool:
        images = any(_holds_sequences(folder / "images" / split) for split in EXPECTED)
        return images or _is_2017(folder) or any(_forms(folder, split) for split in EXPECTED)

    homes = (trees.find_home(root, test) for test in (is_21, is_whole, is_part))
    return next((home for home in homes if home is not None), None)


def _hint(root: Path) -> str:
    """What to do about a root that is not PoseTrack."""
    whole = "the folder that holds images/ and posetrack_data/ (or annotations/)"
    inside = next((folder for folder in (root.resolve(), *root.resolve().parents[:2]) if folder.name in _PARTS), None)
    if inside is not None:
        return f"this is inside the dataset: give the folder above {inside.name}/ as ROOT, {whole}"
    return f"give {whole} as ROOT; {OFFLINE}"


def _is_2017(home: Path) -> bool:
    images = [home / "images", home / "posetrack_data/images"]
    return any(name.startswith(("bonn", "mpii")) for folder in images for name in trees.list_folders(folder))


def _holds_sequences(folder: Path) -> bool:
    return any(_SEQUENCE.fullmatch(name) for name in trees.list_folders(folder))


def _forms(home: Path, split: Split) -> dict[str, list[Path]]:
    """The forms in which labels of a split are there, the one to use first, with their files."""
    forms = {name: _label_files(home / place.format(split)) for name, place in _FORMS.items()}
    merged = home / _MERGED_FILE.format(split)
    forms[_MERGED] = [merged] if merged.is_file() else []
    return {name: files for name, files in forms.items() if files}


def _label_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob("*.json") if _SEQUENCE.fullmatch(path.stem))


def _said(home: Path, split: Split, forms: dict[str, list[Path]]) -> str:
    """What a person should know of the labels of a split that were found."""
    if not forms:
        return f"0/{EXPECTED[split]} sequences found"
    (form, files), *others = forms.items()
    shown = set(trees.list_folders(home / "images" / split))
    labelled = shown if form == _MERGED else {file.stem for file in files}
    both = len(labelled & shown)
    told = [f"{form} is used"] + [f"{name} is there too, and not used" for name, _ in others]
    if both < EXPECTED[split]:
        told.append(f"{OFFLINE}. {both}/{EXPECTED[split]} sequences found")
    if len(shown - labelled):
        told.append(f"{len(shown - labelled)} image folders have no label file")
    if split is Split.VAL and len(files) == OLD_VAL:
        told.append("labels of version 0.2")
    return "; ".join(told)


def _take_apart(path: Path) -> dict[str, bytes]:
    """Group the labels of all sequences: name of a sequence to a label file's content.

    Raises:
        SourceError: the file does not parse, or has not the fields of the dataset.
    """
    images: dict[str, list[str]] = {}
    people: dict[str, list[str]] = {}
    sequence_of: dict[int, str] = {}
    for number, image in enumerate(_images(path)):
        where = f"images[{number}]"
        name = _file_name(image, where, path).parent.name
        sequence_of[_whole(image, "id", where, path)] = name
        kept = {key: value for key, value in image.items() if not key.startswith("ignore_regions")}
        images.setdefault(name, []).append(json.dumps(kept))
    for number, label in enumerate(iter_items(path, "annotations")):
        if not isinstance(label, dict):
            raise trees.misfit(path, f"annotations[{number}]", label, "an object")
        owner = sequence_of.get(_whole(label, "image_id", f"annotations[{number}]", path))
        if owner is None:
            raise trees.misfit(
                path, f"annotations[{number}].image_id", label["image_id"], "the id of one of the images"
            )
        people.setdefault(owner, []).append(json.dumps(label))
    return {
        name: f'{{"images": [{", ".join(listed)}], "annotations": [{", ".join(people.get(name, []))}]}}'.encode()
        for name, listed in images.items()
    }


def _images(path: Path) -> Iterator[dict[str, Any]]:
    try:
        for number, image in enumerate(iter_items(path, "images")):
            if not isinstance(image, dict):
                raise trees.misfit(path, f"images[{number}]", image, "an object")
            yield image
    except SourceError as error:
        if "annolist" in error.what:
            raise SourceError(IS_2017, where=path, hint=HINT_2017) from error
        raise


def _read_pictures(path: Path) -> dict[int, _Picture]:
    """The images that a label file lists, by id.

    Raises:
        SourceError: the file does not parse, or has not the fields of the dataset.
    """
    pictures: dict[int, _Picture] = {}
    files = set[PurePosixPath]()
    for number, image in enumerate(_images(path)):
        where = f"images[{number}]"
        file, name = _file_name(image, where, path), _whole(image, "id", where, path)
        labelled = [image.get(key, False) for key in ("is_labeled", "has_labeled_person")]
        if not all(isinstance(value, bool | int) for value in labelled):
            raise trees.misfit(path, f"{where}.is_labeled", labelled, "true or false")
        if name in pictures or file in files:
            raise trees.misfit(path, f"{where}.id", name, "another image than those before it")
        pictures[name] = _Picture(int(file.stem), file, any(labelled))
        files.add(file)
    return pictures


def _there(home: Path, labelled: dict[int, _Picture]) -> dict[int, _Picture]:
    """The pictures whose file is there; each folder is listed once."""
    folders = {picture.file.parent for picture in labelled.values()}
    listed = {
        folder: set(trees.list_names(home / folder)) if (home / folder).is_dir() else set[str]() for folder in folders
    }
    return {n: picture for n, picture in labelled.items() if picture.file.name in listed[picture.file.parent]}


def _file_name(image: dict[str, Any], where: str, path: Path) -> PurePosixPath:
    name = image.get("file_name")
    file = PurePosixPath(name) if isinstance(name, str) else PurePosixPath()
    named = _SEQUENCE.fullmatch(file.parent.name) and _NUMBER.fullmatch(file.stem)
    if not named or file.is_absolute() or ".." in file.parts:
        raise trees.misfit(path, f"{where}.file_name", name, "a file such as images/train/000001_bonn_train/000000.jpg")
    return file


def _whole(item: dict[str, Any], key: str, where: str, path: Path, *, absent: int | None = None) -> int:
    value = item.get(key, absent)
    if value is None and absent is not None:
        return absent
    if not isinstance(value, int) or isinstance(value, bool):
        raise trees.misfit(path, f"{where}.{key}", value, "a whole number")
    return value


def _numbers(item: dict[str, Any], key: str, count: int, where: str, path: Path) -> npt.NDArray[np.float64] | None:
    """Some numbers; None where there are none."""
    value = item.get(key)
    if value is None or value == []:
        return None
    try:
        numbers = np.array(value, np.float64)
    except (ValueError, TypeError, OverflowError):
        numbers = np.zeros(0)
    if numbers.shape != (count,):
        raise trees.misfit(path, f"{where}.{key}", value, f"{count} numbers")
    return numbers
