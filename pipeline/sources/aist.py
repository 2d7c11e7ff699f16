"""AIST Dance Video DB, with or without the annotations of AIST++: solo dancers, filmed by nine synchronous cameras.

``` text
<root>/videos/gBR_sBM_c01_d04_mBR0_ch01.mp4                  in any folder, `DEPTH` deep at most
<root>/aist_plusplus_final/cameras/{mapping.txt,setting1.json,...}
<root>/aist_plusplus_final/keypoints2d/gBR_sBM_cAll_d04_mBR0_ch01.pkl
<root>/aist_plusplus_final/splits/{pose,crossmodal}_{train,val,test}.txt
<root>/aist_plusplus_final/ignore_list.txt
```
Parts of the annotations that were downloaded one by one (`20210308_cameras/cameras`, ...) are found as well; any may be missing.

A recording is a sequence, named as in AIST++ with `cAll` in place of the camera. An instant is a place on the exact 60 Hz
grid of the annotations; each takes the video frame whose presentation time is nearest, within half a step.

Where a sequence has keypoints, the track is the dancer, boxes and silhouettes come from the keypoints, and an instant at which
a view has none is left out. Where it has not, everybody in the picture is followed; a solo dancer is the only one there.
"""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from manifests import table as tables
from manifests.errors import SourceError
from manifests.types import (
    EVERYBODY,
    OFFICIAL_SPLIT,
    BoxFrom,
    Domain,
    Reason,
    Reject,
    SilhouetteFrom,
    Split,
    key_part,
)
from manifests.unpickle import read_pickle
from pipeline.media import is_video, probe
from pipeline.silhouettes import from_coco17
from pipeline.sources import trees
from pipeline.sources.base import STAGE, Card, Floats, Labels, Marker, Recording, Scan, Source
from pipeline.sources.boxes import around, clipped
from pipeline.sources.calibration import Camera, fit_to_image, read_calibration
from pipeline.sources.layout import may_search, require_folder

logger = logging.getLogger(__name__)

Ints = npt.NDArray[np.int64]

FPS = 60
VIEWS = tuple(f"c{number:02d}" for number in range(1, 10))
SOLO = ("sBM", "sFM")  # basic and advanced dance; all other situations show several dancers
EXAMPLE = "gBR_sBM_c01_d04_mBR0_ch01.mp4"
DEPTH = 4  # folders below the root that are searched
METRES_PER_UNIT = 0.01
PROTOCOLS = {"subject": "pose", "crossmodal": "crossmodal"}  # protocol to the prefix of its lists
LEFT_OUT = "left-out"  # a recording without frames: it counts the videos that belong to none

LEAST_CONFIDENCE = 0.3  # of a keypoint that counts; the silhouette takes the same ones
LEAST_POINTS = 5
BOX_MARGIN = 0.1  # of the longer side, on every side: hands, feet and the top of the head lie beyond the keypoints

# Videos that AIST++'s own tools except by name: the flags of their frames, and what is wrong.
KNOWN_FAULTS = {
    ("gBR_sBM_cAll_d04_mBR0_ch01", "c05"): (("unsynchronised",), "unsynchronised"),
    ("gJB_sBM_cAll_d07_mJB3_ch05", "c07"): (("size_differs", "unsynchronised"), "of another size (640x480)"),
}

_SKIP = {"keypoints3d", "motions"}  # folders of thousands of files that are not read
_FARTHEST_PX = 1e5  # a keypoint beyond is none
_LONGEST_S = 86_400  # of a video; a later time is damage

CARD = Card(
    title="AIST Dance Video DB with AIST++",
    domains=(Domain.BODY,),
    tree=f"*.mp4 named {EXAMPLE}; beside them, if you have it, aist_plusplus_final/",
    get="videos from the AIST Dance DB's own site after accepting its terms; annotations from the AIST++ page",
    licence="AIST Dance DB terms of use (unverified); AIST++ annotations CC BY 4.0",
    terms="The text of the video terms was not seen: read it before use.",
    gives="cross-view and cross-pose; boxes and silhouettes from AIST++ keypoints, else from the parser",
)


@dataclass(frozen=True, slots=True)
class _Name:
    """What a video's name says. `sequence` has `cAll` in place of the camera."""

    sequence: str
    view: str
    situation: str
    dancers: tuple[str, ...]

    @classmethod
    def parse(cls, stem: str) -> "_Name | None":
        """Read a name by the prefixes of its parts: battles and showcases have other parts, in other places.

        Returns:
            None when it is no name of this dataset.
        """
        parts = stem.split("_")
        cameras = [part for part in parts if re.fullmatch(r"c\d\d", part)]
        situations = [part for part in parts if re.fullmatch(r"s[A-Z]{2}", part)]
        if not re.fullmatch(r"g[A-Z]{2}", parts[0]) or len(cameras) != 1 or len(situations) != 1:
            return None
        sequence = "_".join("cAll" if part == cameras[0] else part for part in parts)
        dancers = tuple(part for part in parts if re.fullmatch(r"d\d\d", part))
        return cls(sequence, cameras[0], situations[0], dancers)

    @property
    def is_solo(self) -> bool:
        """Whether one dancer alone is seen."""
        return self.situation in SOLO and len(self.dancers) == 1


@dataclass(frozen=True, slots=True)
class _Survey:
    """What lies under a root.

    Attributes:
        files: size in bytes of each file that matters, by its path below the root, sorted.
        solos: path of each video by sequence and view.
        mapping: sequence to the path of its calibration.
        keypoints: sequence to the path of its keypoints.
        ignored: sequence to the path of the list that says its 3D annotations are poor.
        splits: sequence to split by the recipe's protocol; None without one.
        rejects: videos that belong to no recording.
    """

    files: dict[str, int]
    solos: dict[str, dict[str, str]]
    mapping: dict[str, str]
    keypoints: dict[str, str]
    ignored: dict[str, str]
    splits: dict[str, Split] | None
    rejects: list[Reject]


class AistSource(Source):
    """See the module."""

    card = CARD
    protocols = tuple(PROTOCOLS)

    @override
    def look(self, root: Path) -> list[Marker]:
        """See `Source.look`; only the videos are needed, and the lists of a protocol that is asked for."""
        files = _find(root) if root.is_dir() else {}
        names = {PurePosixPath(path).name for path in files}
        videos = any(_is_solo(path) for path in files)
        keypoints = any(path.endswith(".pkl") for path in files)
        get = "from the AIST++ page; without it "
        optional = [
            ("cameras/mapping.txt", "mapping.txt" in names, "views have no camera"),
            ("keypoints2d/*.pkl", keypoints, "the parser finds and follows the dancers"),
        ]
        lists = [f"{PROTOCOLS[self.recipe.protocol]}_{split}.txt" for split in Split] if self.recipe.protocol else []
        return [
            Marker.of(f"{EXAMPLE} and its like", videos, _no_video(files)),
            *(Marker.of(what, found, get + then, needed=False) for what, found, then in optional),
            *(Marker.of(f"splits/{one}", one in names, get + "no such protocol") for one in lists),
        ]

    @override
    def recordings(self, root: Path) -> list[Recording]:
        """List the sequences that have a video, and one that only counts what is left out; see `Source.recordings`."""
        survey = self._survey(root)
        found = []
        for name, videos in survey.solos.items():
            split = survey.splits[name] if survey.splits is not None else None
            dancer = _dancer(name)
            beside = [place[name] for place in (survey.mapping, survey.keypoints, survey.ignored) if name in place]
            found.append(
                Recording(
                    sequence=key_part(name),
                    group=f"{dancer}-{split}" if split else dancer,  # a protocol may show one dancer on both sides
                    split=split,
                    files=tuple(sorted((path, survey.files[path]) for path in [*videos.values(), *beside])),
                )
            )
        if survey.rejects:
            files = tuple((one.key, survey.files[one.key]) for one in survey.rejects if one.key in survey.files)
            first = self.recipe.splits[0] if self.recipe.splits else Split.TRAIN  # so that no hash counts it
            found.append(Recording(sequence=LEFT_OUT, group=LEFT_OUT, split=first, files=tuple(sorted(set(files)))))
        return sorted(found, key=lambda recording: recording.sequence)

    @override
    def scan(self, root: Path, recording: Recording, *, split: Split) -> Scan:
        """List the frames of one sequence; see `Source.scan`."""
        if recording.sequence == LEFT_OUT:
            return Scan(tables.empty("frames"), self._survey(root).rejects)
        paths = [path for path, _ in recording.files]
        named = [(name, path) for path in paths if is_video(Path(path)) and (name := _Name.parse(Path(path).stem))]
        videos, sequence = {name.view: path for name, path in named}, named[0][0].sequence
        cameras, keypoints = _companions(root, paths)
        about = ["poor_3d"] if any(path.endswith(".txt") for path in paths) else []
        about += [OFFICIAL_SPLIT] if self.recipe.protocol else []
        rejects = _missing_views(sequence, videos)
        takes = []
        for view, path in sorted(videos.items()):
            take = _take(root, sequence, view, path, cameras, rejects)
            if take is not None:
                takes.append(take)
        _look_at_ends(takes, rejects)
        for take in takes:
            if keypoints is not None:
                take.label(keypoints.get(take.view), rejects)
            take.flags += about
        if not sum(len(take.instants) for take in takes):
            return Scan(tables.empty("frames"), rejects)
        return Scan(self._frames(recording, split, takes, _dancer(sequence), labelled=keypoints is not None), rejects)

    @override
    def labels(self, root: Path, row: dict[str, Any]) -> Labels | None:
        """The silhouette that the row's own keypoints draw; see `Source.labels`."""
        if row["keypoints_px"] is None:
            return None
        points = np.reshape(np.array(row["keypoints_px"], float), (17, 3))
        draw = partial(from_coco17, points, min_confidence=LEAST_CONFIDENCE)
        return Labels(silhouette=draw, silhouette_from=SilhouetteFrom.KEYPOINTS)

    def _frames(
        self, recording: Recording, split: Split, takes: Sequence["_Take"], dancer: str, *, labelled: bool
    ) -> Any:
        """One table of all views: `frame_step` then takes the same instants of each."""
        counts = [len(take.instants) for take in takes]
        instant = np.concatenate([take.instants for take in takes])

        def each(values: Sequence[Any]) -> Any:
            return np.repeat(np.array(values), counts, axis=0)

        def spread(values: Sequence[list[Any] | None]) -> list[list[Any] | None]:
            return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]

        columns: dict[str, Any] = {}
        if labelled:
            columns = {
                "box_xyxy_px": np.concatenate([take.boxes for take in takes]),
                "box_from": BoxFrom.KEYPOINTS.value,
                "keypoints_set": "coco17",
                "keypoints_px": np.concatenate([take.points for take in takes]),
                "silhouette_from": SilhouetteFrom.KEYPOINTS.value,
            }
        return self.table(
            recording,
            split,
            instant=instant,
            view=each([take.view for take in takes]),
            media=each([take.path for take in takes]),
            media_index=np.concatenate([take.indices for take in takes]),
            width=each([take.width for take in takes]),
            height=each([take.height for take in takes]),
            track=dancer if labelled else EVERYBODY,
            subject=dancer,
            time_s=instant / FPS,
            intrinsics=each([take.matrix for take in takes]),
            camera_from_world=each([take.pose for take in takes]),
            distortion=spread([take.distortion for take in takes]),
            flags=spread([sorted(set(take.flags)) for take in takes]),
            **columns,
        )

    def _survey(self, root: Path) -> _Survey:
        """Look at all that lies under a root.

        Raises:
            SourceError: no solo video is there, or a list does not parse, is missing or contradicts itself.
        """
        require_folder(root)
        files = _find(root)
        splits = _read_splits(root, files, self.recipe.protocol) if self.recipe.protocol else None
        mapping = _read_mapping(root, files)
        solos: dict[str, dict[str, str]] = defaultdict(dict)
        rejects, strange = [], []
        # The same name lies in the folder of each bit rate: the largest counts.
        for path in sorted((p for p in files if is_video(Path(p))), key=lambda p: (-files[p], p)):
            name = _Name.parse(PurePosixPath(path).stem)
            if name is None:
                strange.append(path)
            elif not name.is_solo:
                rejects.append(Reject(STAGE, path, Reason.CROWD, "multi-dancer video skipped"))
            elif splits is not None and name.sequence not in splits:
                detail = f"in no list of the protocol `{self.recipe.protocol}`"
                rejects.append(Reject(STAGE, path, Reason.UNLABELLED, detail))
            elif name.view in solos[name.sequence]:
                detail = f"the same video as {solos[name.sequence][name.view]}, which is larger"
                rejects.append(Reject(STAGE, path, Reason.TWICE, detail))
            else:
                solos[name.sequence][name.view] = path
        if not solos:
            listed = "that the protocol lists " if splits is not None else ""
            raise SourceError(f"no video of a solo dancer {listed}is here", where=root, hint=_no_video(files))
        rejects.sort(key=lambda reject: reject.key)
        if strange:
            what = f"videos have names that are not AIST's, such as {strange[0]}"
            rejects += trees.counted(strange[0], (len(strange), Reason.UNLABELLED, what))
        absent = [name for name in mapping if name not in solos and (splits is None or name in splits)]
        if absent:
            what = f"of {len(mapping)} annotated sequences have no video here, such as {absent[0]}"
            rejects += trees.counted(absent[0], (len(absent), Reason.MISSING, what))
        keypoints = {PurePosixPath(path).stem: path for path in reversed(files) if path.endswith(".pkl")}
        ignored = {
            name: path
            for path in files
            if PurePosixPath(path).name == "ignore_list.txt"
            for name in _read_names(root / path)
        }
        return _Survey(files, dict(sorted(solos.items())), mapping, keypoints, ignored, splits, rejects)


@dataclass(slots=True)
class _Take:
    """One video of a sequence, put on the grid.

    Attributes:
        view: c01, c02, ...
        path: below the root.
        width: px.
        height: px.
        instants: (n,) rising.
        indices: (n,) the frame of the video that each shows.
        flags: of its frames.
        matrix: (3, 3) K; NaN: not known. So is `pose`, (4, 4).
        distortion: of the lens, or None.
        scale: px of the video for one px of the annotations.
        points: (n, 17, 3) keypoints, px of the video; confidence 0 where a point was not found.
        boxes: (n, 4) around them.
    """

    view: str
    path: str
    width: int
    height: int
    instants: Ints
    indices: Ints
    flags: list[str]
    matrix: Floats = field(default_factory=lambda: np.full((3, 3), np.nan))
    pose: Floats = field(default_factory=lambda: np.full((4, 4), np.nan))
    distortion: list[float] | None = None
    scale: float = 1.0
    points: Floats = field(default_factory=lambda: np.zeros((0, 17, 3)))
    boxes: Floats = field(default_factory=lambda: np.zeros((0, 4)))

    def calibrate(self, camera: Camera | None, rotation: int) -> None:
        """Take over a camera that was calibrated for frames of the true size."""
        if camera is None:
            self.flags.append("uncalibrated")
            return
        fitted, flags = fit_to_image(camera, self.width, self.height, rotation=rotation)
        self.flags += flags
        if "size_differs" in flags:  # another lens, or another crop: K says nothing of these pixels
            return
        self.matrix = fitted.intrinsics
        self.distortion = None if fitted.distortion is None else list(fitted.distortion)
        if fitted.camera_from_world is not None:
            self.pose = fitted.camera_from_world
        if camera.size is not None and "rescaled" in flags:
            self.scale = self.width / camera.size[0]

    def label(self, keypoints: "_Keypoints | None", rejects: list[Reject]) -> None:
        """Keep the instants at which the dancer's keypoints are known, with boxes around them."""
        points = np.full((len(self.instants), 17, 3), np.nan) if keypoints is None else keypoints.at(self.instants)
        points[..., :2] = (points[..., :2] + 0.5) * self.scale - 0.5  # edges map to edges
        points[~(np.abs(points) < _FARTHEST_PX).all(axis=-1)] = 0  # NaN too
        sure = points[..., 2] >= LEAST_CONFIDENCE
        known = sure.sum(axis=1) >= LEAST_POINTS
        boxes = clipped(around(points[..., :2], sure, BOX_MARGIN), (self.width, self.height))
        inside = np.isfinite(boxes).all(axis=1)
        total = len(self.instants)
        if lost := int((~known).sum()):
            detail = f"no keypoints of the dancer at {lost} of {total} instants"
            after = 0 if keypoints is None else int((self.instants > keypoints.instants[-1:].max(initial=-1)).sum())
            detail += f"; {after} of them come after the last annotated one" if after else ""
            rejects.append(Reject(STAGE, self.path, Reason.UNLABELLED, detail, lost))
        if lost := int((known & ~inside).sum()):
            detail = f"the keypoints lie outside the image at {lost} of {total} instants"
            rejects.append(Reject(STAGE, self.path, Reason.BAD_LABEL, detail, lost))
        kept = known & inside
        self.instants, self.indices = self.instants[kept], self.indices[kept]
        self.points, self.boxes = points[kept], boxes[kept]


@dataclass(frozen=True, slots=True)
class _Keypoints:
    """What AIST++ detected in one view: instants (n,) rising, points (n, 17, 3), NaN where nobody was found."""

    instants: Ints
    points: Floats

    def at(self, instants: Ints) -> Floats:
        """(m, 17, 3) at instants (m,); NaN where there are none."""
        found = np.full((len(instants), 17, 3), np.nan)
        if len(self.instants):
            place = np.minimum(np.searchsorted(self.instants, instants), len(self.instants) - 1)
            there = self.instants[place] == instants
            found[there] = self.points[place[there]]
        return found


def on_grid(times_s: Sequence[float]) -> tuple[Ints, Ints, Ints]:
    """Put the frames of a video on the 60 Hz grid.

    Args:
        times_s: presentation time of each frame.

    Returns:
        instants that have a frame, rising; the frame of each, the nearest in time and never one twice; and the frames that
        are not later than one before them, which have no place in time.
    """
    times = np.asarray(times_s, float)
    later = np.append([True], times[1:] > np.maximum.accumulate(times)[:-1])[: len(times)]
    later &= times < _LONGEST_S
    frames = np.flatnonzero(later)
    at = times[frames] * FPS
    instants = np.rint(at).astype(np.int64)
    nearest_first = np.lexsort((np.abs(at - instants), instants))
    instants, first = np.unique(instants[nearest_first], return_index=True)
    return instants, frames[nearest_first[first]], np.flatnonzero(~later)


def _take(
    root: Path,
    sequence: str,
    view: str,
    path: str,
    cameras: Mapping[str, Camera] | None,
    rejects: list[Reject],
) -> _Take | None:
    """Read the headers and the clock of one video; None when it cannot be read."""

    def reject(reason: Reason, detail: str, count: int = 1) -> None:
        rejects.append(Reject(STAGE, path, reason, detail, count))

    try:
        media = probe(root / path)
    except SourceError as error:
        logger.info("%s: %s", path, error.what)
        reject(Reason.UNREADABLE, "cannot decode: truncated mp4, re-download from the AIST site (not Google)")
        return None
    instants, indices, late = on_grid(media.times_s)
    take = _Take(view, path, media.width, media.height, instants, indices, [])
    if len(late):
        detail = f"{len(late)} of {media.num_frames} frames are not later than those before them"
        reject(Reason.CLOCK, detail, len(late))
    shown = max(media.times_s) - min(media.times_s)
    fps = (media.num_frames - 1) / shown if shown > 0 else float(FPS)
    if abs(fps - FPS) > 0.005:
        note = f"video {PurePosixPath(path).name} is {fps:.2f} fps: resampled to the 60 Hz grid"
        logger.info("%s", note)
        take.flags.append("resampled")
        unused = media.num_frames - len(late) - len(indices)
        empty = int(instants[-1] - instants[0]) + 1 - len(instants)
        if unused or empty:
            detail = f"{note}; {empty} instants without a frame, {unused} frames without an instant"
            reject(Reason.UNSYNCHRONISED, detail, empty + unused)
    if (sequence, view) in KNOWN_FAULTS:
        flags, fault = KNOWN_FAULTS[sequence, view]
        take.flags += flags
        detail = f"{view} of {sequence} is known {fault}: excluded from cross-view"
        reject(Reason.UNSYNCHRONISED, detail, len(instants))
    if cameras is not None:
        take.calibrate(cameras.get(view), media.rotation)
    return take


def _missing_views(sequence: str, videos: Mapping[str, str]) -> list[Reject]:
    missing = [view for view in VIEWS if view not in videos]
    if not missing:
        return []
    present = f"{len(VIEWS) - len(missing)} of {len(VIEWS)} views present for {sequence}"
    where = PurePosixPath(next(iter(videos.values()))).with_name(sequence)
    return [Reject(STAGE, str(where), Reason.MISSING, f"{present}; missing {', '.join(missing)}", len(missing))]


def _look_at_ends(takes: Sequence[_Take], rejects: list[Reject]) -> None:
    """Say which videos end before the others: one frame more or less is usual, more is a download cut short."""
    ends = {take.path: int(take.instants[-1]) for take in takes if "unsynchronised" not in take.flags}
    last = max(ends.values(), default=0)
    for path, end in ends.items():
        if last - end > 2:
            detail = f"ends at {end / FPS:.2f} s, other views at {last / FPS:.2f} s: {last - end} instants are missing"
            detail += "; re-download it if it was cut short"
            rejects.append(Reject(STAGE, path, Reason.MISSING, detail, last - end))


def _companions(root: Path, paths: Sequence[str]) -> tuple[dict[str, Camera] | None, dict[str, _Keypoints] | None]:
    """The cameras and the keypoints of a sequence, by view; None where it has none."""
    settings = [root / path for path in paths if path.endswith(".json")]
    pickles = [root / path for path in paths if path.endswith(".pkl")]
    try:
        cameras = read_calibration(settings, metres_per_unit=METRES_PER_UNIT) if settings else None
    except SourceError as error:
        hint = "download the cameras of AIST++ again, or move the folder away to go on without cameras"
        raise SourceError(error.what, where=error.where, hint=hint) from error
    return cameras, read_keypoints(pickles[0]) if pickles else None


def read_keypoints(path: Path) -> dict[str, _Keypoints]:
    """Read a file of AIST++'s 2D keypoints.

    Of the two forms known, one holds arrays (views, frames, 17, 3), the other lists of views of frames of (people, 133, 3),
    with boxes (people, 5) whose last number is a score; there the dancer is who scores highest, and the first 17 points are
    those of COCO.

    Returns:
        keypoints by view.

    Raises:
        SourceError: it does not read, or is of another form.
    """
    data = read_pickle(path)
    try:
        given, stamps = data["keypoints2d"], data["timestamps"]
        if "det_scores" in data:
            table = np.asarray(given, np.float64)
            if table.ndim != 4 or table.shape[2:] != (17, 3):
                raise ValueError(f"the keypoints are {table.shape}, not (views, frames, 17, 3)")
            views = [(points, stamps) for points in table]
        else:
            views = [
                (np.array([_best(*one) for one in zip(frames, boxes, strict=True)]).reshape(-1, 17, 3), stamp)
                for frames, boxes, stamp in zip(given, data["bboxes"], stamps, strict=True)
            ]
        return {
            f"c{number:02d}": _Keypoints(_instants(stamp, len(points)), points)
            for number, (points, stamp) in enumerate(views, start=1)
        }
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise SourceError(
            f"these are no 2D keypoints of AIST++: {type(error).__name__}: {error}",
            where=path,
            hint="download keypoints2d again, or move the folder away to let the parser find the dancers",
        ) from error


def _best(people: Any, boxes: Any) -> Floats:
    """(17, 3) of the person whose box scores highest; NaN when nobody was found."""
    if not len(people):
        return np.full((17, 3), np.nan)
    points = np.asarray(people, np.float64)
    if points.ndim != 3 or points.shape[1] < 17 or points.shape[2] != 3:
        raise ValueError(f"the keypoints of a frame are {points.shape}, not (people, 133, 3)")
    best: Floats = points[int(np.asarray(boxes, np.float64)[:, -1].argmax()), :17]
    return best


def _instants(timestamps: Any, count: int) -> Ints:
    """The place on the grid of each annotated frame, (count,) rising.

    The first frame is instant 0. Where frames are missing in all views, timestamps have a gap; their unit is not documented,
    so it is told by their step: seconds, milli-, micro- or nanoseconds, or numbers of frames. Without a clear step, order counts.
    """
    ticks = np.asarray(timestamps, np.float64).ravel()
    if len(ticks) == count > 1 and np.isfinite(ticks).all():
        step = float(np.median(np.diff(ticks)))
        for per_second in (1, 1e3, 1e6, 1e9, FPS):
            if abs(step * FPS / per_second - 1) < 0.1:
                found: Ints = np.rint((ticks - ticks[0]) * (FPS / per_second)).astype(np.int64)
                if (np.diff(found) > 0).all():
                    return found
    return np.arange(count)


def _find(root: Path) -> dict[str, int]:
    """Files below a root that matter to this dataset, sorted by path, with their sizes."""
    found: dict[str, int] = {}
    seen: set[tuple[int, int]] = set()

    def walk(folder: Path, depth: int) -> None:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back
            return
        seen.add((status.st_dev, status.st_ino))
        below = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        below += [entry.name] if may_search(Path(entry.path)) else []
                    elif _matters(entry.name, folder.name):
                        path = (folder / entry.name).relative_to(root).as_posix()
                        found[path] = entry.stat().st_size if entry.is_file() else 0  # a link to nothing
        except OSError as error:
            logger.warning("%s cannot be listed: %s", folder, error)
        if depth < DEPTH and len(below) <= trees.MAX_FOLDERS:
            for name in sorted(set(below) - _SKIP):
                walk(folder / name, depth + 1)

    walk(root, 0)
    return dict(sorted(found.items()))


def _matters(name: str, folder: str) -> bool:
    if name.endswith(".pkl"):
        return "keypoints2d" in folder
    if name.endswith((".txt", ".json")):
        return bool(re.fullmatch(r"mapping\.txt|ignore_list\.txt|setting\w+\.json|(pose|crossmodal)_\w+\.txt", name))
    return is_video(Path(name))


def _is_solo(path: str) -> bool:
    name = _Name.parse(PurePosixPath(path).stem) if is_video(Path(path)) else None
    return name is not None and name.is_solo


def _no_video(files: Mapping[str, int]) -> str:
    """What to do where no solo video was found."""
    videos = [path for path in files if is_video(Path(path))]
    if videos:
        return trees.numbered(len(videos), f"videos are here, but none is named like {EXAMPLE} (sBM and sFM are solos)")
    if files:
        return (
            "these are AIST++'s annotations: get the videos from the AIST Dance DB, and give the folder that holds both"
        )
    return f"give the folder of the AIST Dance DB's videos as ROOT; {DEPTH} folders below it are searched"


def _dancer(sequence: str) -> str:
    return next(part for part in sequence.split("_") if re.fullmatch(r"d\d\d", part))


def _read_mapping(root: Path, files: Mapping[str, int]) -> dict[str, str]:
    """Path of the calibration of each sequence.

    Raises:
        SourceError: a line does not parse, or names a calibration that is not there.
    """
    path = next((path for path in files if PurePosixPath(path).name == "mapping.txt"), None)
    mapping: dict[str, str] = {}
    for number, line in enumerate(_read_lines(root / path) if path else [], start=1):
        words = line.split()
        setting = f"{PurePosixPath(path or '').parent}/{words[-1]}.json" if words else ""
        if words and (len(words) != 2 or setting not in files):
            what = f"it names {words[-1]}, but {setting} is not there" if len(words) == 2 else f"it reads {line!r}"
            raise SourceError(
                f"the list of cameras does not parse: {what}",
                where=f"{root / (path or '')}, line {number}",
                hint="unpack the cameras of AIST++ again; a line is a sequence and its setting",
            )
        if words:
            mapping[words[0]] = setting
    return mapping


def _read_splits(root: Path, files: Mapping[str, int], protocol: str) -> dict[str, Split]:
    """The split of each sequence that a protocol lists.

    Raises:
        SourceError: a list is missing, or two name one sequence.
    """
    splits: dict[str, Split] = {}
    for split in Split:
        wanted = f"{PROTOCOLS[protocol]}_{split}.txt"
        path = next((path for path in files if PurePosixPath(path).name == wanted), None)
        if path is None:
            hint = "download the splits of AIST++, or leave `protocol` out of the recipe to split by dancer"
            raise SourceError(f"the protocol `{protocol}` needs splits/{wanted}", where=root, hint=hint)
        for name in _read_names(root / path):
            if splits.setdefault(name, split) is not split:
                hint = "download the splits of AIST++ again"
                raise SourceError(f"{name} is in {splits[name]} and in {split}", where=root / path, hint=hint)
    return splits


def _read_names(path: Path) -> list[str]:
    """Sequences, one a line; some copies of the lists add a suffix to each."""
    return [line.strip().split(".")[0] for line in _read_lines(path) if line.strip()]


def _read_lines(path: Path) -> list[str]:
    return trees.read_text(path, "unpack the annotations of AIST++ again").splitlines()
