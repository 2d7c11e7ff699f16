"""MARS: people followed by six cameras of a campus, cut out already; one track is one person before one camera.

``` text
<root>/bbox_train/0001/0001C1T0001F001.jpg    person 0001, camera 1, tracklet 1, frame 1; 128 x 256 px
<root>/bbox_test/0002/0002C1T0001F001.jpg     other people; also 0000 (false detections) and 00-1 (junk)
<root>/info/tracks_train_info.mat             optional: which lines of train_name.txt are a track, of whom, in which camera
<root>/info/train_name.txt                    (both also for test; from another download than the images)
```
Tracklet numbers restart in every camera. Without `info/` the tracks are rebuilt from the file names; with it, the two must
say the same.

Source: Zheng et al., MARS: A Video Benchmark for Large-Scale Person Re-Identification, ECCV 2016.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import override

from manifests.errors import SourceError
from manifests.matlab import read_mat
from manifests.types import BoxFrom, Domain, Reason, Reject, Split
from pipeline.sources import trees
from pipeline.sources.base import STAGE, Card, Marker, Recording, Scan, Source
from pipeline.sources.boxes import whole
from pipeline.sources.layout import files_below, unique_names

logger = logging.getLogger(__name__)

Ints = npt.NDArray[np.int64]

FOLDERS = {Split.TRAIN: "bbox_train", Split.TEST: "bbox_test"}
JUNK = {"00-1": "junk of the detector", "0000": "false detections"}  # folders that show nobody
_PERSON = re.compile(r"\d{4}|00-1")
BETWEEN = "images that info/ puts into another track than their names do; without info/ the names count"
NO_INFO = "info/ missing (it is in a separate repository, MARS-evaluation): tracks rebuilt from file names"

CARD = Card(
    title="MARS",
    domains=(Domain.BODY,),
    tree="bbox_train/0001/0001C1T0001F001.jpg, bbox_test/; info/ (optional)",
    get="the author's page (Google Drive, Baidu): bbox_train.zip, bbox_test.zip; info/ of github liangzheng06/MARS-evaluation",
    licence="research only (unverified)",
    terms="Its exact terms were not seen; surveillance images of people who were not asked.",
    gives="cross-pose; the images are boxes of a detector; silhouettes from the parser",
)


@dataclass(frozen=True, slots=True)
class Tracks:
    """The table of tracks of one split.

    Attributes:
        names: file names of all its images.
        rows: (n, 4) first and last image (from 1, inclusive), person, camera.
    """

    names: pa.StringArray
    rows: Ints

    def of_person(self, person: int) -> tuple[pa.StringArray, Ints]:
        """File names of a person's images, and which row each is in."""
        mine = np.flatnonzero(self.rows[:, 2] == person)
        spans = [np.arange(self.rows[row, 0] - 1, self.rows[row, 1]) for row in mine]
        at = np.concatenate([*spans, np.zeros(0, np.int64)])
        return self.names.take(pa.array(at)), np.repeat(mine, [len(span) for span in spans])


class MarsSource(Source):
    """See the module."""

    card = CARD

    @override
    def look(self, root: Path) -> list[Marker]:
        """See `Source.look`."""
        home = trees.find_home(root, _is_home)
        lacking = [
            _no_info(root, home, split)
            for split, name in FOLDERS.items()
            if home is not None and (home / name).is_dir() and not _info_files(root, home, split)
        ]
        return [
            Marker.of("bbox_train/ or bbox_test/", home, "" if home else _hint(root)),
            Marker.of(
                "info/tracks_train_info.mat and train_name.txt, and those of test",
                home is not None and not lacking,
                "; ".join(dict.fromkeys(lacking)) or NO_INFO,
                needed=False,
            ),
        ]

    @override
    def recordings(self, root: Path) -> list[Recording]:
        """One recording per person; see `Source.recordings`."""
        home = _home(root)
        found = []
        for split, name in FOLDERS.items():
            folder = trees.unwrapped(home / name)
            people = set(trees.list_folders(folder))
            if not people:
                continue
            info = _info_files(root, home, split)
            if info:
                people |= {_person_name(int(person)) for person in read_tracks(*info).rows[:, 2]}
            else:
                logger.warning("MARS %s: %s", name, _no_info(root, home, split))
            files = files_below(root, info) if info else ()
            names = unique_names([PurePosixPath(person) for person in sorted(people)])
            for person, sequence in zip(sorted(people), names, strict=True):
                place = (folder / person).relative_to(root).as_posix()
                found.append(Recording(sequence=sequence, group=person, split=split, files=files, folder=place))
                files = ()  # the tables are those of all: they stand in the fingerprint once
        if not found:
            raise SourceError(
                "bbox_train/ and bbox_test/ hold no folder",
                where=home,
                hint="unpack bbox_train.zip and bbox_test.zip again",
            )
        return sorted(found, key=lambda recording: recording.sequence)

    @override
    def scan(self, root: Path, recording: Recording, *, split: Split) -> Scan:
        """List the images of one person; see `Source.scan`."""
        folder, place = root / recording.folder, recording.folder
        person = folder.name
        info = _info_files(root, _home(root), recording.split or split)
        tracks = read_tracks(*info) if info else None
        if not folder.is_dir():
            listed = len(tracks.of_person(_person_number(person))[0]) if tracks else 0
            detail = trees.numbered(listed, "images of info/ have no folder")
            return Scan([], [Reject(STAGE, place, Reason.MISSING, detail, max(1, listed))])
        names, odd = trees.list_named(folder, rf"{re.escape(person)}C[1-6]T\d{{4}}F\d{{3,5}}\.jpg")
        if not _PERSON.fullmatch(person):
            num, detail = odd + len(names), "the folder is not named like a person, 0001"
            return Scan(
                [], [Reject(STAGE, place, Reason.BAD_LABEL, trees.numbered(num, f"images: {detail}"), max(1, num))]
            )
        rejects = trees.counted(place, (odd, Reason.BAD_LABEL, f"images are not named like {person}C1T0001F001.jpg"))
        if person in JUNK:
            detail = trees.numbered(len(names), f"images: {JUNK[person]}")
            return Scan([], [*rejects, Reject(STAGE, place, Reason.JUNK, detail, max(1, len(names)))])
        if tracks:
            names, left_out = _agreed(names, tracks, person)
            rejects += trees.counted(place, *left_out)
        size = trees.image_size(folder, names)
        if size is None:
            return Scan([], rejects + trees.nothing_seen(place, len(names)))
        width, height = size
        camera, tracklet = pc.utf8_slice_codeunits(names, 5, 6), pc.utf8_slice_codeunits(names, 7, 11)
        frames = self.table(
            recording, split,
            instant=trees.numbers_of(names, 12, -4),
            view=pc.binary_join_element_wise("c", camera, ""),
            track=pc.binary_join_element_wise("c", camera, "t", tracklet, ""),
            media=trees.below(place, names),
            width=width, height=height,
            subject=person,
            box_xyxy_px=whole(size),
            box_from=BoxFrom.DATASET.value,
        )  # fmt: skip
        return Scan(frames, rejects)


@trees.remembered(2)  # one for each split: every person of a worker is looked up in it
def read_tracks(table: Path, names: Path) -> Tracks:
    """Read the tracks of one split.

    Args:
        table: tracks_train_info.mat or tracks_test_info.mat.
        names: train_name.txt or test_name.txt.

    Raises:
        SourceError: one of them does not parse, or they do not belong together.
    """
    again = "get info/ again from MARS-evaluation"
    listed = pa.array(trees.read_text(names, again).split(), pa.string())
    variable = table.stem.replace("tracks", "track")  # the variable in tracks_train_info.mat is track_train_info
    rows = np.asarray(read_mat(table, variables=[variable])[variable])
    if rows.ndim != 2 or rows.shape[1] != 4 or rows.dtype.kind not in "iuf":
        raise SourceError(f"{variable} of {table.name} has not four columns", where=table, hint=again)
    rows = rows.astype(np.int64)
    first, last = rows[:, 0], rows[:, 1]
    if len(rows) and (first.min() < 1 or (last < first).any() or last.max() > len(listed)):
        raise SourceError(
            f"{table.name} numbers images up to {last.max()}, {names.name} names {len(listed)}",
            where=table,
            hint="take both from one copy of MARS-evaluation, or move info/ away to go by the file names",
        )
    return Tracks(listed, rows)


def _agreed(names: pa.StringArray, tracks: Tracks, person: str) -> tuple[pa.StringArray, list[tuple[int, Reason, str]]]:
    """The images that the table lists in a track of the camera and tracklet of their names, and what is left out."""
    listed, rows = tracks.of_person(_person_number(person))
    unlisted, absent = (
        int(pc.sum(pc.invert(pc.is_in(a, b))).as_py() or 0) for a, b in ((names, listed), (listed, names))
    )
    named = pc.starts_with(listed, person).to_numpy(zero_copy_only=False)
    tracklets = pc.utf8_slice_codeunits(listed, 4, 11).to_numpy(zero_copy_only=False).astype(str)
    camera = np.char.add("C", tracks.rows[rows, 3].astype(str))
    good = (
        named
        & np.char.startswith(tracklets, np.char.add(camera, "T"))
        & ~_mixed(rows, tracklets)
        & ~_mixed(tracklets, rows)
    )
    left_out = [
        (unlisted, Reason.UNLABELLED, "images are in no track of info/"),
        (absent, Reason.MISSING, "images that info/ lists are not there"),
        (int((~good).sum()), Reason.BAD_LABEL, BETWEEN),
    ]
    return names.filter(pc.is_in(names, listed.filter(pa.array(good)))), left_out


def _mixed(groups: npt.NDArray[np.generic], values: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Which entries are of a group that holds several values."""
    group, value = (np.unique(column, return_inverse=True)[1] for column in (groups, values))
    held = np.unique(np.stack([group, value]), axis=1)[0]
    several: npt.NDArray[np.bool_] = np.bincount(held, minlength=int(group.max(initial=-1)) + 1)[group] > 1
    return several


def _is_home(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in FOLDERS.values())


def _home(root: Path) -> Path:
    return trees.require_home(root, _is_home, "neither bbox_train/ nor bbox_test/ is here", _hint)


def _hint(root: Path) -> str:
    """What to do about a root that is not MARS."""
    if trees.find_home(root, lambda folder: (folder / "bounding_box_train").is_dir()):
        return "this is Market-1501, single images without tracks: MARS is the video set of the same author"
    if trees.find_home(root, lambda folder: (folder / "bbox_train.zip").is_file()):
        return "unpack bbox_train.zip"
    if trees.find_home(root, lambda folder: (folder / "info" / "tracks_train_info.mat").is_file()):
        return "only info/ is here: the images are in bbox_train.zip and bbox_test.zip of the author's page"
    return "give the folder that holds bbox_train/ as ROOT"


def _info_files(root: Path, home: Path, split: Split) -> tuple[Path, Path] | None:
    """The table of tracks and the list of names of a split, where both are there."""
    pairs = (_pair(folder, split) for folder in _info_folders(root, home))
    return next((pair for pair in pairs if all(file.is_file() for file in pair)), None)


def _no_info(root: Path, home: Path, split: Split) -> str:
    """What to say where `_info_files` gave None."""
    for pair in (_pair(folder, split) for folder in _info_folders(root, home)):
        if any(file.is_file() for file in pair):
            lacking, other = sorted(pair, key=Path.is_file)
            return (
                f"info/{lacking.name} missing, and {other.name} is of no use without it: tracks rebuilt from file names"
            )
    return NO_INFO


def _pair(folder: Path, split: Split) -> tuple[Path, Path]:
    return folder / f"tracks_{split}_info.mat", folder / f"{split}_name.txt"


def _info_folders(root: Path, home: Path) -> Iterator[Path]:
    yield home / "info"
    for level in dict.fromkeys((home, root)):
        yield from sorted(level.glob("MARS-evaluation*/info"))


def _person_number(person: str) -> int:
    return -1 if person == "00-1" else int(person)


def _person_name(person: int) -> str:
    return "00-1" if person < 0 else f"{person:04d}"
