"""HUMBI: one person at a time in a dome of 107 synchronous cameras; sessions of whole bodies, and of hands.

``` text
<root>/Body_81_140/subject_82/body/{intrinsic,extrinsic,project}.txt                      a folder per downloaded bundle
<root>/Body_81_140/subject_82/body/00000001/image/image0000033.jpg                        1920 x 1080; 33 is the camera
<root>/Body_81_140/subject_82/body/00000001/reconstruction/{keypoints,smpl_vertex}.txt    25 of OpenPose; 6890 of SMPL
<root>/Hand_1_80/subject_7/hand/{intrinsic,extrinsic,project}.txt
<root>/Hand_1_80/subject_7/hand/00000001/image_cropped/{left,right}/image0000033.png      250 x 250
<root>/Hand_1_80/subject_7/hand/00000001/image_cropped/{left,right}/list.txt              where the crops were cut
<root>/Hand_1_80/subject_7/hand/00000001/reconstruction/{keypoints,vertices}_{l,r}.txt    21 joints; 778 of MANO
```
The root may hold the bundles, be one bundle or one subject, or lie a folder or two above. A source reads the sessions of its
`domain` and no others: a subject's hands and body were filmed at different times, so their frame numbers are unrelated.

Convention: x_camera = R (x - C), P = K R [I | -C], no distortion. World units are passed on as metres, which the publisher does
not promise. A row of list.txt (camera, xmin, xmax, ymin, ymax) is taken as the crop's edges in the whole picture.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import override

from manifests.errors import SourceError
from manifests.geometry import project
from manifests.types import EVERYBODY, BoxFrom, Domain, Reason, Reject, SilhouetteFrom, Split
from pipeline.recipes import SourceRecipe
from pipeline.silhouettes import from_vertices
from pipeline.sources import trees
from pipeline.sources.base import STAGE, Card, Floats, Labels, Marker, Recording, Scan, Source
from pipeline.sources.boxes import around, clipped, whole
from pipeline.sources.calibration import is_rotation
from pipeline.sources.layout import may_search, require_folder

logger = logging.getLogger(__name__)

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NUM_CAMERAS = 107
PICTURE_PX = (1920, 1080)
BUNDLE_DEPTH = 4  # folders from the root to a subject, at most
MARGIN = 0.08  # of a box's longer side, added to each side: keypoints end at ears, wrists and soles
SKIN_MARGIN = 0.02  # the same around the body model, which wears no clothes
LEAST_INSIDE = 0.5  # share of the points that a picture must show
LEAST_POINTS = 8  # fewer known points tell no box

_SUBJECT = re.compile(r"subject_([0-9]{1,9})")
_FRAME = re.compile(r"[0-9]{8}")
_NEEDED = ("intrinsic.txt", "extrinsic.txt")
_AGAIN = "unpack the bundle again"
_MOST_TEXTS = 1024  # vertices kept in memory: more frames than a session has, at most 85 MB
_CONTRADICTION_PX, _CONTRADICTION_AT = 2.0, 2.0  # between project.txt and the other two, seen from 2 units away
_FARTHEST = 1e6  # units: coordinates beyond are no measurement
_NEAREST = 1e-6

# What a camera can make of the points of a subject; those from 0 on are reasons to leave the picture out.
_UNKNOWN, _FINE, _BEHIND, _OUTSIDE, _PARTLY, _UNTOLD = range(-2, 4)
_FAULTS = (
    (Reason.HIDDEN, "the subject is behind the camera"),
    (Reason.HIDDEN, "the subject is outside the picture"),
    (Reason.TRUNCATED, "less than half of the subject is in the picture"),
    (Reason.UNLABELLED, "neither keypoints nor vertices say whether the crop shows the hand"),
)


@dataclass(frozen=True, slots=True)
class _Shelf:
    """Where a frame's folder holds one kind of picture, and what its `reconstruction` says of them."""

    folder: str
    side: str | None
    keypoints: str
    num_keypoints: int
    vertices: str
    num_vertices: int


@dataclass(frozen=True, slots=True)
class _Session:
    """A kind of session. Attributes: `size`, of its pictures, px; `shelves`, in the order of their tracks."""

    name: str
    other: str
    suffix: str
    size: tuple[int, int]
    shelves: tuple[_Shelf, ...]


_BODY = _Shelf("image", None, "keypoints.txt", 25, "smpl_vertex.txt", 6890)
_HANDS = tuple(
    _Shelf(f"image_cropped/{side}", side, f"keypoints_{side[0]}.txt", 21, f"vertices_{side[0]}.txt", 778)
    for side in ("left", "right")
)
_SESSIONS = {
    Domain.BODY: _Session("body", "hand", ".jpg", PICTURE_PX, (_BODY,)),
    Domain.HAND: _Session("hand", "body", ".png", (250, 250), _HANDS),
}

CARD = Card(
    title="HUMBI (body and hand sessions)",
    domains=(Domain.BODY, Domain.HAND),
    tree="**/subject_*/{body,hand}/ with intrinsic.txt, extrinsic.txt and a folder per frame",
    get="register at the publisher's site; unpack the Body_* or Hand_* bundles below one folder. Cloth, texture, face and gaze "
    "bundles are not read",
    licence="HUMBI data terms (unverified)",
    terms="The publisher's code is MIT, which says nothing of the pictures: read what you agreed to when registering.",
    gives="cross-view and cross-pose of one subject; boxes from 3D keypoints, silhouettes from SMPL and MANO vertices. Hand "
    "frames and body frames are different recordings and are never paired with each other",
)


class HumbiSource(Source):
    """See the module."""

    card = CARD

    def __init__(self, recipe: SourceRecipe, work: Path | None = None) -> None:
        super().__init__(recipe, work)
        self._session = _SESSIONS[self.domain]
        self._vertices = lru_cache(_MOST_TEXTS)(_read_points)  # one text serves all views, which are cut in turn

    @override
    def look(self, root: Path) -> list[Marker]:
        """See `Source.look`."""
        name, other = self._session.name, self._session.other
        found = list(_find_sessions(root)) if root.is_dir() else []
        mine = [folder for folder in found if folder.name == name]
        whole = [folder for folder in mine if all((folder / text).is_file() for text in _NEEDED)]
        has_frames = any(_instants(folder) for folder in whole)
        markers = [
            Marker.of(f"**/subject_*/{name}", mine, f"unpack the {name.title()}_* bundles"),
            Marker(
                what=f"subject_*/{name}/{{intrinsic,extrinsic}}.txt",
                found=bool(whole),
                hint="" if len(whole) == len(mine) else f"{len(whole)} of {len(mine)} sessions have both",
            ),
            Marker.of(f"subject_*/{name}/00000001", has_frames, "a folder of eight digits for each frame"),
        ]
        if whole:
            shelf, without = self._session.shelves[0], "no silhouettes"
            if self.domain is Domain.BODY:
                without = "silhouettes from the parser"
            drawn = any(
                (folder / f"{instant:08d}" / "reconstruction" / shelf.vertices).is_file()
                for folder in whole
                for instant in _instants(folder)[:1]
            )
            markers.append(Marker.of(f"reconstruction/{shelf.vertices}", drawn, f"without: {without}", needed=False))
        if num_other := sum(folder.name == other for folder in found):
            hint = (
                f"{num_other} {other} sessions: other recordings, never paired with these; `domain: {other}` reads them"
            )
            markers.append(Marker(what=f"**/subject_*/{other}", found=True, needed=False, hint=hint))
        return markers

    @override
    def recordings(self, root: Path) -> list[Recording]:
        """List the sessions of this domain, one per subject; see `Source.recordings`."""
        require_folder(root)
        name, sessions = self._session.name, dict[int, Path]()
        found = list(_find_sessions(root))
        for folder in found:
            if folder.name != name:
                continue
            if not any((folder / text).is_file() for text in _NEEDED):
                logger.warning("%s has no intrinsic.txt and no extrinsic.txt: left out", folder)  # cloth or texture
                continue
            subject = _subject(folder)
            sessions[subject] = self._choose(sessions[subject], folder) if subject in sessions else folder
        if not sessions:
            raise self._nothing(root, found)
        if num_other := sum(folder.name == self._session.other for folder in found):
            logger.info(
                "%d %s sessions are here, too: hand frames and body frames are different recordings; refusing to pair across "
                "sessions", num_other, self._session.other,
            )  # fmt: skip
        recordings = [
            Recording(
                sequence=f"subject-{subject}-{name}",
                group=f"subject-{subject}",
                split=None,
                files=_files(root, folder),
                folder=folder.relative_to(root).as_posix(),
            )
            for subject, folder in sessions.items()
        ]
        return sorted(recordings, key=lambda recording: recording.sequence)

    @override
    def scan(self, root: Path, recording: Recording, *, split: Split) -> Scan:
        """List the pictures of one session; see `Source.scan`."""
        session = self._session
        cameras, pictures = _read_cameras(root / recording.folder), _Pictures(root, recording.folder, session)
        slot = pictures.take_uncalibrated(cameras)
        K, pose = cameras.K[slot], cameras.pose[slot]  # noqa: N806
        if self.domain is Domain.HAND:
            boxes, keep = pictures.take_unlisted(cameras)
            K, pose = _crop_from_picture(boxes, session.size) @ K[keep], pose[keep]  # noqa: N806
        else:
            pictures.count_missing(np.isin(np.arange(NUM_CAMERAS), cameras.ids))
        points, has_vertices = pictures.read_spots()
        seen = _see(points[pictures.at], K, pose, session.size, MARGIN)
        fault = seen.fault
        if self.domain is Domain.HAND:
            fault = np.where((fault == _UNKNOWN) & ~has_vertices[pictures.at], _UNTOLD, fault)
        keep = pictures.take_out(np.where(fault == _UNKNOWN, _FINE, fault), _FAULTS)
        K, pose, box = K[keep], pose[keep], seen.box_xyxy_px[keep]  # noqa: N806
        drawn = has_vertices[pictures.at]
        width, height = session.size
        columns: dict[str, Any] = {}
        if self.domain is Domain.HAND:
            sides = np.array([spot.shelf.side for spot in pictures.spots], object)[pictures.at]
            columns["side"], columns["track"] = sides, f"{recording.group}-" + sides
            columns["box_from"] = BoxFrom.FULL_FRAME.value
            box = whole(session.size)
        else:
            boxed: Bools = np.asarray(np.isfinite(box).all(axis=1))
            columns["track"] = np.where(boxed | drawn, recording.group, EVERYBODY).astype(object)
            columns["box_from"] = np.array([None, BoxFrom.KEYPOINTS.value], object)[boxed.astype(int)]
        media = pictures.paths()
        _check_size(root, media, session.size)
        frames = self.table(
            recording,
            split,
            instant=np.array([spot.instant for spot in pictures.spots], np.int64)[pictures.at],
            view=np.array([f"cam{camera:03d}" for camera in range(NUM_CAMERAS)], object)[pictures.camera],
            media=media,
            width=width,
            height=height,
            subject=recording.group,
            box_xyxy_px=box,
            intrinsics=K,
            camera_from_world=pose,
            silhouette_from=np.where(drawn, SilhouetteFrom.VERTICES.value, SilhouetteFrom.NONE.value).astype(object),
            **columns,
        )
        return Scan(frames, pictures.rejects)

    @override
    def labels(self, root: Path, row: dict[str, Any]) -> Labels | None:
        """The body or hand model in one picture; without keypoints, the box comes from it too."""
        if row["silhouette_from"] != SilhouetteFrom.VERTICES:
            return None
        shelf = next(shelf for shelf in self._session.shelves if shelf.side == row["side"])
        frame = (root / row["media"]).parents[shelf.folder.count("/") + 1]
        path = frame / "reconstruction" / shelf.vertices
        points = self._vertices(path, shelf.num_vertices)
        if points is None or isinstance(points, str):
            wrong = points or "is gone since the frames were listed"
            detail = f"{path.relative_to(root)}: {wrong}"
            return Labels(reject=(Reason.BAD_LABEL, detail))
        K, pose = np.reshape(row["intrinsics"], (3, 3)), np.reshape(row["camera_from_world"], (4, 4))  # noqa: N806
        box = None
        if row["box_from"] != BoxFrom.KEYPOINTS:
            seen = _see(points[None], K[None], pose[None], (row["width"], row["height"]), SKIN_MARGIN)
            if seen.fault[0] >= 0:
                return Labels(reject=_FAULTS[seen.fault[0]])
            box = seen.box_xyxy_px[0] if row["box_xyxy_px"] is None else None
        return Labels(
            box_xyxy_px=box,
            silhouette=partial(from_vertices, project(points, K, pose)[0]),
            silhouette_from=SilhouetteFrom.VERTICES,
        )

    def _choose(self, one: Path, two: Path) -> Path:
        """Which of two folders of one session holds its pictures; another bundle may repeat its camera texts.

        Raises:
            SourceError: both do.
        """
        top = self._session.shelves[0].folder.partition("/")[0]
        full = [folder for folder in (one, two) if any((folder / f"{i:08d}" / top).is_dir() for i in _instants(folder))]
        if len(full) == 2:
            raise SourceError(
                f"the {self._session.name} session of subject {_subject(one)} lies twice below the root",
                where=f"{one} and {two}",
                hint="move one away; the free sample, for one, repeats a part of a bundle",
            )
        chosen = full[0] if full else one
        logger.warning("%s has no pictures: left out", two if chosen == one else one)
        return chosen

    def _nothing(self, root: Path, found: Sequence[Path]) -> SourceError:
        """Why no session can be read below a root."""
        session = self._session
        bundles = f"unpack the {session.name.title()}_* bundles below this folder"
        mine = sum(folder.name == session.name for folder in found)
        if mine:
            what = f"none of {mine} {session.name} sessions has intrinsic.txt or extrinsic.txt"
            return SourceError(what, where=root, hint=f"cloth and texture bundles come without; {bundles}, too")
        if found:
            what = f"{len(found)} {session.other} sessions are here, and no {session.name} session"
            return SourceError(what, where=root, hint=f"{bundles}, or read these with `domain: {session.other}`")
        if any(root.glob("*.zip")):
            return SourceError("the bundles are not unpacked", where=root, hint="unzip them side by side, right here")
        inside = next((above for above in root.resolve().parents[:3] if _SUBJECT.fullmatch(above.name)), None)
        if inside is not None:
            what = f"this is a part of {inside.name}"
            return SourceError(
                what, where=root, hint=f"give {inside.name}/ as ROOT, or the folder that holds the bundles"
            )
        what = f"no subject_*/{session.name} is here or up to {BUNDLE_DEPTH} folders below"
        return SourceError(what, where=root, hint=bundles)


# --- folders ---


def _find_sessions(folder: Path, depth: int = 0) -> Iterator[Path]:
    """The body and hand sessions of all subjects below a folder, in order of their names."""
    is_subject = _SUBJECT.fullmatch(folder.absolute().name) is not None
    try:
        names = trees.list_folders(folder)
    except SourceError as error:
        logger.warning("%s: %s", folder, error.what)
        return
    for name in names:
        if not may_search(folder / name):
            continue
        if not is_subject and depth < BUNDLE_DEPTH:
            yield from _find_sessions(folder / name, depth + 1)
        elif is_subject and name in ("body", "hand"):
            yield folder / name


def _subject(session: Path) -> int:
    found = _SUBJECT.fullmatch(session.absolute().parent.name)
    assert found, "a session lies in a subject's folder"
    return int(found[1])


def _instants(session: Path) -> list[int]:
    """The frames of a session, sorted."""
    return [int(name) for name in trees.list_folders(session) if _FRAME.fullmatch(name)]


def _files(root: Path, session: Path) -> tuple[tuple[str, int], ...]:
    """What decides a recording: its cameras, and which frames there are."""
    texts = [session / name for name in (*_NEEDED, "project.txt") if (session / name).is_file()]
    listed = [(text, text.stat().st_size) for text in texts]
    listed += [(session / f"{instant:08d}", 0) for instant in _instants(session)]
    return tuple(sorted((path.relative_to(root).as_posix(), size) for path, size in listed))


def _check_size(root: Path, media: Sequence[str], size: tuple[int, int]) -> None:
    """Hold the first picture that can be read against the size that the cameras are for.

    Raises:
        SourceError: it is of another size.
    """
    found = trees.image_size(root, pa.array(media[: trees.MAX_PROBED], pa.string()))
    if found not in (None, size):  # those that cannot be read are left out when they are cut
        raise SourceError(
            "the picture is of {} x {} px, its camera of {} x {} px".format(*found, *size),
            where=(root / media[0]).parent,
            hint="give the pictures as they were released, not scaled copies",
        )


@dataclass(frozen=True, slots=True)
class _Spot:
    """One shelf of one frame's folder; `frame` is that folder."""

    frame: str
    instant: int
    shelf: _Shelf

    def path(self, *names: str) -> str:
        return "/".join((self.frame, *names))


class _Pictures:
    """The pictures of a session by columns, and what was left out of them.

    Attributes:
        at: (n,) which of the spots a picture lies in.
        camera: (n,) its number.
        rejects: what was left out.
    """

    def __init__(self, root: Path, folder: str, session: _Session) -> None:
        self._root, self._folder, self._session = root, folder, session
        instants = _instants(root / folder)
        self.spots = [_Spot(f"{folder}/{i:08d}", i, shelf) for shelf in session.shelves for i in instants]
        self.rejects: list[Reject] = []
        self.at, self.camera = self._list()
        if not instants:
            self.reject(Reason.MISSING, "no frame is here: no folder is named like 00000001")

    def reject(self, reason: Reason, detail: str, count: int = 1, key: str | None = None) -> None:
        self.rejects.append(Reject(STAGE, key or self._folder, reason, detail, count))

    def _list(self) -> tuple[Ints, Ints]:
        """Read spot and camera of each picture from its name, image0000033.jpg."""
        names, counts = list[bytes](), list[int]()
        for spot in self.spots:
            try:
                found = os.listdir(os.fsencode(self._root / spot.path(spot.shelf.folder)))  # noqa: PTH208 - a tenth of the time
            except OSError:  # its pictures are counted as missing
                found = []
            names += found
            counts.append(len(found))
        suffix = np.frombuffer(self._session.suffix.encode(), np.uint8)
        letters = np.array(names, "S17").view(np.uint8).reshape(-1, 17)
        digits = letters[:, 5:12] - ord("0")  # what is no digit comes out above 9
        good = (letters[:, :5] == np.frombuffer(b"image", np.uint8)).all(axis=1) & (digits <= 9).all(axis=1)
        good &= (letters[:, 12:16] == suffix).all(axis=1) & (letters[:, 16] == 0)
        pictures = (".jpg", ".jpeg", ".png")
        strange = sum(os.fsdecode(names[i]).lower().endswith(pictures) for i in np.flatnonzero(~good))
        if strange:
            detail = trees.numbered(strange, f"pictures are not named like image0000033{self._session.suffix}")
            self.reject(Reason.BAD_LABEL, detail, strange)
        return np.repeat(np.arange(len(counts)), counts)[good], digits[good] @ 10 ** np.arange(6, -1, -1)

    def paths(self) -> Any:
        """(n,) paths below the root."""
        folders = pa.array([f"{spot.path(spot.shelf.folder)}/image" for spot in self.spots], pa.string())
        names = pa.array([f"{camera:07d}{self._session.suffix}" for camera in range(NUM_CAMERAS)])
        paths = pc.binary_join_element_wise(folders.take(self.at), names.take(self.camera), "")
        return paths.to_numpy(zero_copy_only=False)

    def take_out(self, fault: Ints, faults: Sequence[tuple[Reason, str]]) -> Bools:
        """Leave out pictures whose fault is a place in `faults`; returns which stay."""
        for number, (reason, why) in enumerate(faults):
            self._count(self.at[fault == number], self.camera[fault == number], reason, why)
        keep: Bools = fault < 0
        self.at, self.camera = self.at[keep], self.camera[keep]
        return keep

    def _count(self, at: Ints, camera: Ints, reason: Reason, why: str) -> None:
        """One reject for all cameras of a side that are left out at the same instants."""
        instants: dict[tuple[str, int], list[int]] = {}
        for place, number in sorted(zip(at.tolist(), camera.tolist(), strict=True)):
            spot = self.spots[place]
            instants.setdefault((spot.shelf.side or "", number), []).append(spot.instant)
        groups: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for (side, number), when in instants.items():
            groups.setdefault((side, tuple(when)), []).append(number)
        num_instants = len(self.spots) // len(self._session.shelves)
        for (side, times), cameras in groups.items():
            who = f"{side} {_shown(cameras)}".strip()
            share = f"{len(times)} of {num_instants} instants ({_shown(times)})"
            num = len(cameras) * len(times)
            self.reject(reason, f"{why}: camera {who} at {share}, {num} in all", num)

    def take_uncalibrated(self, cameras: "_Cameras") -> Ints:
        """Leave out what has no camera; returns (n,) places in `cameras`."""
        counts = Counter(self.camera.tolist())
        dropped = dict(cameras.dropped)
        for number in sorted(counts.keys() - set(cameras.ids.tolist()) - dropped.keys()):
            dropped[number] = Reason.MISSING, f"camera {number} is neither in intrinsic.txt nor in extrinsic.txt"
        for number, (reason, why) in sorted(dropped.items()):
            self.reject(reason, f"{why}; its {counts[number]} pictures are left out", max(1, counts[number]))
        slot = np.minimum(np.searchsorted(cameras.ids, self.camera), len(cameras.ids) - 1)
        keep = cameras.ids[slot] == self.camera
        self.at, self.camera = self.at[keep], self.camera[keep]
        return np.asarray(slot[keep], np.int64)

    def count_missing(self, due: Bools) -> None:
        """Count the pictures that are not there; (NUM_CAMERAS,) or (spots, NUM_CAMERAS): which should be."""
        due = np.broadcast_to(due, (len(self.spots), NUM_CAMERAS)).copy()
        due[self.at, self.camera] = False
        at, camera = np.nonzero(due)
        self._count(at, camera, Reason.MISSING, "no such picture")

    def take_unlisted(self, cameras: "_Cameras") -> tuple[Floats, Bools]:
        """Leave out crops that no list.txt places; returns (n, 4) xmin, xmax, ymin, ymax, and which stay."""
        boxes = np.full((len(self.spots), NUM_CAMERAS, 4), np.nan)
        filled = set(self.at.tolist())
        for place, spot in enumerate(self.spots):
            name = spot.path(spot.shelf.folder, "list.txt")
            listed = _read_list(self._root / name)
            if not isinstance(listed, str):
                for camera, box in listed.items():
                    boxes[place, camera] = box
            elif place in filled:  # a hand may not be cropped at all in a frame
                self.reject(Reason.BAD_LABEL, listed, key=name)
        due = np.zeros(boxes.shape[:2], bool)
        due[:, cameras.ids] = np.isfinite(boxes[:, cameras.ids]).all(axis=2)
        self.count_missing(due)
        mine = boxes[self.at, self.camera]
        unlisted = np.isnan(mine).any(axis=1)
        why = "list.txt does not say where the crop was cut"
        keep = self.take_out(np.where(unlisted, 0, _FINE), [(Reason.UNLABELLED, why)])
        return mine[keep], keep

    def read_spots(self) -> tuple[Floats, Bools]:
        """(spots, J, 3) keypoints, NaN where unknown; (spots,) whether there are vertices."""
        points = np.full((len(self.spots), self._session.shelves[0].num_keypoints, 3), np.nan)
        has_vertices, lost = np.zeros(len(self.spots), bool), dict[_Shelf, list[int]]()
        for place in np.unique(self.at):
            spot = self.spots[place]
            name = spot.path("reconstruction", spot.shelf.keypoints)
            has_vertices[place] = os.path.isfile(self._root / spot.path("reconstruction", spot.shelf.vertices))  # noqa: PTH113
            read = _read_points(self._root / name, spot.shelf.num_keypoints)
            if read is None:
                lost.setdefault(spot.shelf, []).append(spot.instant)
            elif isinstance(read, str):
                self.reject(Reason.BAD_LABEL, f"{read}: not used", key=name)
            else:
                points[place] = read
        for shelf, instants in lost.items():
            detail = f"no {shelf.keypoints} at {len(instants)} instants ({_shown(instants)})"
            self.reject(Reason.UNLABELLED, detail, len(instants))
        return points, has_vertices


def _shown(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:6])) + (", ..." if len(numbers) > 6 else "")


# --- texts ---


@dataclass(frozen=True, slots=True)
class _Cameras:
    """The calibrated cameras of a session, V of them.

    Attributes:
        ids: (V,) their numbers, sorted.
        K: (V, 3, 3).
        pose: (V, 4, 4) camera_from_world.
        dropped: of the other numbers, why they are not used.
    """

    ids: Ints
    K: Floats
    pose: Floats
    dropped: dict[int, tuple[Reason, str]]


def _read_cameras(session: Path) -> _Cameras:
    """Read intrinsic.txt and extrinsic.txt, and hold them against project.txt where it is.

    Raises:
        SourceError: a file is missing or does not parse, or no camera is in both.
    """
    intrinsic = _read_blocks(session / "intrinsic.txt", (3,) * 3)
    extrinsic = _read_blocks(session / "extrinsic.txt", (3,) * 4)
    projections = _read_blocks(session / "project.txt", (4,) * 3) if (session / "project.txt").is_file() else {}
    place, dropped = f"{session.parent.name}/{session.name}", dict[int, tuple[Reason, str]]()
    for one, two, has, lacks in (
        ("intrinsic", "extrinsic", intrinsic, extrinsic),
        ("extrinsic", "intrinsic", extrinsic, intrinsic),
    ):
        for camera in has.keys() - lacks.keys():
            why = (
                f"{place} has {one}.txt for {len(has)} cameras but {two}.txt for {len(lacks)}; camera {camera} dropped"
            )
            dropped[camera] = Reason.MISSING, why
    ids = np.array(sorted(intrinsic.keys() & extrinsic.keys()), np.int64)
    K = np.array([intrinsic[camera] for camera in ids.tolist()]).reshape(-1, 3, 3)  # noqa: N806
    placed = np.array([extrinsic[camera] for camera in ids.tolist()]).reshape(-1, 4, 3)
    C, R = placed[:, 0, :, None], placed[:, 1:]  # noqa: N806
    unknown = np.full((3, 4), np.nan)
    P = np.array([projections.get(camera, unknown) for camera in ids.tolist()]).reshape(-1, 3, 4)  # noqa: N806
    pose = np.tile(np.eye(4), (len(ids), 1, 1))
    pose[:, :3, :3], pose[:, :3, 3:] = R, -R @ C
    good = np.ones(len(ids), bool)
    for wrong, reason, why in _camera_faults(K, C, R, P):
        for camera in ids[wrong & good].tolist():
            dropped[camera] = reason, f"{place}: camera {camera} has {why}; dropped"
        good &= ~wrong
    if not good.any():
        why = next((text for _, text in dropped.values()), "the files name none")
        raise SourceError(f"no camera is calibrated: {why}", where=session, hint=_AGAIN)
    return _Cameras(ids[good], K[good], pose[good], dropped)


def _camera_faults(K: Floats, C: Floats, R: Floats, P: Floats) -> list[tuple[Bools, Reason, str]]:  # noqa: N803
    """Which of V cameras have numbers that make no camera.

    Args:
        K: (V, 3, 3).
        C: (V, 3, 1).
        R: (V, 3, 3).
        P: (V, 3, 4), NaN where none is stated.
    """
    with np.errstate(all="ignore"):  # wild numbers are what is looked for
        rays = np.array([[-0.4, -0.3, 1], [0.4, -0.3, 1], [-0.4, 0.3, 1], [0.4, 0.3, 1]]).T * _CONTRADICTION_AT
        one, two = K @ rays, P[:, :, :3] @ (C + R.transpose(0, 2, 1) @ rays) + P[:, :, 3:]
        off = np.abs(two[:, :2] / two[:, 2:] - one[:, :2] / one[:, 2:]).max(axis=(1, 2))
    focal = (K[:, 0, 0] > 0) & (K[:, 1, 1] > 0) & (np.abs(K[:, 2] - [0, 0, 1]) < 1e-6).all(axis=1)
    return [
        (~R.any(axis=(1, 2)), Reason.MISSING, "a rotation of zeros, which marks it absent"),
        (~focal, Reason.BAD_LABEL, "a K without positive focal lengths or a last row of 0 0 1"),
        (~is_rotation(R), Reason.BAD_LABEL, "an R that is no rotation"),
        (
            ~np.isnan(P).any(axis=(1, 2)) & ~(off <= _CONTRADICTION_PX),
            Reason.BAD_LABEL,
            f"a P in project.txt that contradicts K R [I | -C] by more than {_CONTRADICTION_PX:.0f} px",
        ),
    ]


def _read_blocks(path: Path, shape: tuple[int, ...]) -> dict[int, Floats]:
    """Read a camera text: three lines of heading, then `0 <camera>` and rows of numbers for each camera.

    Args:
        path: of the text.
        shape: how many numbers each row has.

    Returns:
        (rows, numbers) by camera.

    Raises:
        SourceError: it is missing, or a line is not as it should be.
    """

    def wrong(line: int, what: str) -> SourceError:
        return SourceError(what, where=f"{path}, line {line}", hint="unpack the bundle again; the file is damaged")

    if not path.is_file():
        raise SourceError(f"{path.name} is missing", where=path, hint=_AGAIN)
    text = trees.read_text(path, _AGAIN).splitlines()
    lines = [(number, line.split()) for number, line in enumerate(text, start=1) if line.strip()]
    for number, words in lines[:3]:
        if ":" not in " ".join(words):
            raise wrong(number, f"the heading has a line without a colon: {' '.join(words)[:40]!r}")
    found: dict[int, Floats] = {}
    for start in range(3, len(lines), 1 + len(shape)):
        number, words = lines[start]
        if len(words) != 2 or words[0] != "0" or not words[1].isdecimal() or int(words[1]) >= NUM_CAMERAS:
            raise wrong(number, f"`0 <camera>` is due, a camera below {NUM_CAMERAS}, not {' '.join(words)[:40]!r}")
        camera = int(words[1])
        if camera in found:
            raise wrong(number, f"camera {camera} comes a second time")
        rows = lines[start + 1 : start + 1 + len(shape)]
        if len(rows) < len(shape):
            raise wrong(number, f"the file ends within camera {camera}")
        values = []
        for (at, row), due in zip(rows, shape, strict=True):
            try:
                values.append([float(word) for word in row])
            except ValueError:
                raise wrong(at, f"camera {camera} has a row with something that is no number") from None
            if len(row) != due or not np.isfinite(values[-1]).all():
                raise wrong(at, f"camera {camera} has a row of {len(row)} numbers, where {due} finite ones are due")
        found[camera] = np.array(values)
    return found


def _read_list(path: Path) -> dict[int, list[float]] | str:
    """Read a list.txt: xmin, xmax, ymin, ymax by camera, or what is wrong with it. Commas or blanks part the numbers."""
    try:
        lines = trees.read_text(path, _AGAIN).replace(",", " ").splitlines()
    except SourceError as error:
        return error.what if path.exists() else "is missing"
    boxes: dict[int, list[float]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            camera, *box = (float(word) for word in line.split())
        except ValueError:
            return f"line {number} holds something that is no number"
        if len(box) != 4 or not np.isfinite(box).all() or camera not in range(NUM_CAMERAS):
            return f"line {number} is not camera, xmin, xmax, ymin, ymax"
        if int(camera) in boxes:
            return f"line {number} names camera {camera:.0f} a second time"
        if box[1] <= box[0] or box[3] <= box[2]:
            return f"line {number} gives a box of no size"
        boxes[int(camera)] = box
    return boxes


def _read_points(path: Path, num: int) -> Floats | str | None:
    """Read num x 3 numbers: (num, 3), with NaN for points that are not known; or what is wrong; or None: no such file.

    An unknown point is written as zeros, as NaN, or lies beyond all bounds.
    """
    try:
        values = np.fromiter(map(float, trees.read_text(path, _AGAIN).split()), np.float64)
    except SourceError as error:
        return error.what if path.exists() else None
    except ValueError as error:
        return f"does not parse ({error})"
    if values.size != num * 3:
        return f"holds {values.size} numbers, where {num} x 3 are due"
    points: Floats = values.reshape(num, 3)
    known = (np.abs(points) < _FARTHEST).all(axis=1) & points.any(axis=1)
    if known.sum() < LEAST_POINTS:
        return f"only {known.sum()} of {num} points are known"
    points[~known] = np.nan
    return points


# --- geometry ---


@dataclass(frozen=True, slots=True)
class _Seen:
    """Attributes: `box_xyxy_px` (n, 4) in the picture, NaN but for the fine; `fault` (n,): `_FINE` or what is wrong."""

    box_xyxy_px: Floats
    fault: Ints


def _see(points: Floats, K: Floats, pose: Floats, size: tuple[int, int], margin: float) -> _Seen:  # noqa: N803
    """Look at the points of a subject in each of n pictures.

    Args:
        points: (n, J, 3) in the world; NaN: unknown.
        K: (n, 3, 3).
        pose: (n, 4, 4) camera_from_world.
        size: width and height of the pictures, px.
        margin: of the box, as a share of its longer side.
    """
    camera = K @ pose[:, :3]
    known: Bools = np.isfinite(points[..., 0])
    at = camera[:, :, :3] @ np.where(known[..., None], points, 0).transpose(0, 2, 1) + camera[:, :, 3:]  # (n, 3, J)
    depth = at[:, 2]
    behind = known & (depth <= _NEAREST)
    at = at[:, :2] / np.where(depth > _NEAREST, depth, 1)[:, None]
    within = known & ((at >= -0.5) & (at <= np.array(size)[:, None] - 0.5)).all(axis=1)
    share = within.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    box = clipped(around(at.transpose(0, 2, 1), known, margin), size)
    nothing = (share == 0) | np.isnan(box).any(axis=1)
    judged = [~known.any(axis=1), behind.any(axis=1), nothing, share < LEAST_INSIDE]
    fault = np.select(judged, [_UNKNOWN, _BEHIND, _OUTSIDE, _PARTLY], _FINE)
    box[fault != _FINE] = np.nan
    return _Seen(box, fault.astype(np.int64))


def _crop_from_picture(boxes: Floats, size: tuple[int, int]) -> Floats:
    """(n, 3, 3) matrices that map pixels of the whole picture to pixels of crops of `size`; edges map to edges.

    Args:
        boxes: (n, 4) xmin, xmax, ymin, ymax.
        size: of the crops, px.
    """
    crop_from_picture = np.zeros((len(boxes), 3, 3))
    for axis in (0, 1):
        start = boxes[:, 2 * axis]
        scale = size[axis] / (boxes[:, 2 * axis + 1] - start)
        crop_from_picture[:, axis, axis], crop_from_picture[:, axis, 2] = scale, -scale * start - 0.5
    crop_from_picture[:, 2, 2] = 1
    return crop_from_picture
