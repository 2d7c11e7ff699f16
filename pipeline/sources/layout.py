"""What the generic sources share: names from paths, `recordings.toml`, and the rows of one view."""

import hashlib
import logging
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from typing_extensions import override

from manifests.errors import SourceError
from manifests.types import EVERYBODY, BoxFrom, Domain, FrameKey, Reason, Reject, SilhouetteFrom, Split, key_part
from pipeline.media import Media, is_image, is_video, probe
from pipeline.sources.base import STAGE, Marker, Recording, Source, did_you_mean
from pipeline.sources.boxes import whole
from pipeline.sources.calibration import Camera, fit_to_image

logger = logging.getLogger(__name__)

RECORDINGS = "recordings.toml"
MAX_DEPTH = 8
# A clock that goes wrong at more than this share of the frames is not used at all.
MAX_CLOCK_FAULTS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What `recordings.toml` says of one recording; what it leaves out stays None.

    Attributes:
        group: who must not be on two sides of a split; by default the recording's name.
        subject: identity of the person.
        domain: body | hand.
        split: train | val, decided by hand.
        fps: frames per second, where files have no clock, or a wrong one.
        metres_per_unit: of the calibration's translations, where its format does not say.
    """

    group: str | None = None
    subject: str | None = None
    domain: Domain | None = None
    split: Split | None = None
    fps: float | None = None
    metres_per_unit: float = 1.0


@dataclass(slots=True, kw_only=True)
class View:
    """One camera's part of a recording.

    Attributes:
        name: key part.
        media: what it shows, with its size and clock.
        places: by instant, (path below the root, index in display order).
        times_s: by instant, where there is a clock.
        size_px: by instant, where images have sizes of their own.
        camera: its calibration, when known.
        flags: that hold for all of its frames.
        doubtful_from: the first instant from which its frames may not be of their instant, when there is a sign of it.
    """

    name: str
    media: Media
    places: dict[int, tuple[str, int]]
    times_s: dict[int, float]
    size_px: dict[int, tuple[int, int]] = field(default_factory=dict)
    camera: Camera | None = None
    flags: list[str] = field(default_factory=list)
    doubtful_from: int | None = None


class OwnSource(Source):
    """What a user filmed: any folder may hold recordings."""

    @override
    def look(self, root: Path) -> list[Marker]:
        """See `Source.look`."""
        try:
            found = self.recordings(root)
        except SourceError:
            found = []
        return [Marker.of(self.card.tree, found)]


def require_folder(root: Path, named: str | None = None) -> None:
    """Refuse a root that is not there.

    Args:
        root: to look at.
        named: what the user calls it, where it was just given.

    Raises:
        SourceError: it is missing, no folder, or may not be read.
    """
    try:
        is_there, is_folder = root.exists(), root.is_dir()
    except PermissionError:  # a folder above may not be entered
        is_there = is_folder = True
    if named and not is_there:
        hint = "check ROOT; make splits it at spaces, `python -m pipeline` takes them"
        raise SourceError(f"{named} is not there", where=root, hint=hint)
    if not is_folder:
        raise SourceError("the root is no folder", where=root, hint="give the folder that holds the recordings as ROOT")
    if not os.access(root, os.R_OK | os.X_OK):
        raise SourceError("you may not read this folder", where=root, hint="ask whoever owns it for the right to")


def may_search(folder: Path) -> bool:
    """Whether a folder may be read; one that may not, such as `lost+found`, is noted once and passed over in a search."""
    allowed = os.access(folder, os.R_OK | os.X_OK)
    if not allowed:
        pass_over(folder)
    return allowed


@lru_cache(1024)  # a search for each dataset comes by
def pass_over(folder: Path) -> None:
    """Note that a folder may not be read."""
    logger.warning("%s may not be read: passed over", folder)


def walk(folder: Path, depth: int = 0) -> Iterator[tuple[Path, list[Path], list[Path]]]:
    """A folder and those below it, in order of their names: (folder, its folders, its files); hidden ones are left out."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        logger.warning("%s cannot be listed: %s", folder, error)
        return
    folders = [entry for entry in entries if entry.is_dir() and may_search(entry)]
    yield folder, folders, [entry for entry in entries if entry.is_file()]
    if depth < MAX_DEPTH:
        for below in folders:
            if not (below.is_symlink() and folder.resolve().is_relative_to(below.resolve())):  # no way round in circles
                yield from walk(below, depth + 1)


def unique_names(paths: Sequence[PurePosixPath]) -> list[str]:
    """Name each path by its parts, without the suffix of a media file; names that clash get a mark of their path."""
    names = []
    for path in paths:
        plain = path.with_suffix("") if is_video(Path(path)) or is_image(Path(path)) else path
        try:
            names.append(key_part("-".join(plain.parts)))
        except ValueError:
            names.append("")
    return [
        name
        if name and names.count(name) == 1
        else f"{name or 'x'}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"
        for name, path in zip(names, paths, strict=True)
    ]


def files_below(root: Path, files: Sequence[Path]) -> tuple[tuple[str, int], ...]:
    """Paths below the root, sorted, with their sizes."""
    return tuple(sorted((file.relative_to(root).as_posix(), file.stat().st_size) for file in set(files)))


def read_about(root: Path, names: Sequence[str]) -> dict[str, About]:
    """Read a root's `recordings.toml`, if it has one.

    Args:
        root: of the source.
        names: the recordings that are there.

    Returns:
        for each recording, what is said of it; all of a group are in one split when the split of any is stated.

    Raises:
        SourceError: the file does not parse, names an unknown recording or key, or puts one group into two splits.
    """
    path = root / RECORDINGS
    about = {name: About() for name in names}
    for name, one in _parse(path).items():
        _check_known(name, names, "recording", path)
        about[name] = one
    decided: dict[str, Split] = {}
    for name, one in about.items():
        if one.split is not None and decided.setdefault(one.group or name, one.split) != one.split:
            raise SourceError(
                f"group {one.group or name} is in two splits",
                where=path,
                hint="give all recordings of a group one split",
            )
    return {name: About(**{**_fields(one), "split": decided.get(one.group or name)}) for name, one in about.items()}


def about_recording(root: Path, name: str) -> About:
    """What `recordings.toml` says of one recording that is known to be there; see `read_about`."""
    return _parse(root / RECORDINGS).get(name, About())


def _parse(path: Path) -> dict[str, About]:
    if not path.is_file():
        return {}
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        hint = 'write a table for each recording: [name], then group = "..."'
        raise SourceError(f"{RECORDINGS} does not parse: {error}", where=path, hint=hint) from error
    for name, values in data.items():
        if not isinstance(values, dict):
            raise SourceError(f"`{name}` is no table", where=path, hint=f"write [{name}], then keys below it")
    return {name: _about(values, f"{path}: [{name}]") for name, values in data.items()}


def _fields(about: About) -> dict[str, Any]:
    return {name: getattr(about, name) for name in About.__slots__}


def _about(values: Mapping[str, Any], where: str) -> About:
    for key in values:
        _check_known(key, About.__slots__, "key", where)
    wanted: dict[str, Any] = {"domain": Domain, "split": Split, "fps": float, "metres_per_unit": float}
    read: dict[str, Any] = {}
    for key, value in values.items():
        try:
            read[key] = wanted.get(key, str)(value)
        except (ValueError, TypeError) as error:
            kinds = {"domain": "body or hand", "split": "train, val or test"}
            hint = f"give {kinds.get(key, 'a number')}"
            raise SourceError(f"{key} = {value!r} is not understood", where=where, hint=hint) from error
    for key in ("fps", "metres_per_unit"):
        if key in read and not 0 < read[key] < float("inf"):
            raise SourceError(f"{key} must be above 0", where=where, hint="leave it out when it is not known")
    return About(**read)


def _check_known(name: str, known: Sequence[str], what: str, where: Path | str) -> None:
    if name in known:
        return
    shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    hint = did_you_mean(name, known, f"known: {shown}")
    raise SourceError(f"unknown {what} `{name}`", where=where, hint=hint)


class Rows:
    """Collects the rows of a recording, view after view, and what is left out of it."""

    def __init__(self, source: Source, recording: Recording, about: About, split: Split) -> None:
        self.source, self.recipe = source, source.recipe
        self.recording, self.about, self.split = recording, about, split
        self.domain = about.domain or source.domain
        self.frames: list[dict[str, Any]] = []
        self.rejects: list[Reject] = []

    def key(self, instant: int, view: str) -> str:
        """The key of everybody in one image."""
        sequence = self.recording.sequence
        named = FrameKey(
            source=self.recipe.name, split=self.split, sequence=sequence, instant=instant, view=view, track=EVERYBODY
        )
        return str(named)

    def open(self, root: Path, place: PurePosixPath) -> Media | None:
        """Read the headers of what lies at a place below the root; what cannot be read is left out."""
        try:
            return probe(root / place)
        except SourceError as error:
            said = error.what.replace(str((root / place).absolute()), str(place))
            self.reject(str(place), Reason.UNREADABLE, said)
            return None

    def reject(self, key: str, reason: Reason, detail: str, count: int = 1) -> None:
        """Leave something out, of `count` frames."""
        self.rejects.append(Reject(STAGE, key, reason, detail, count))

    def add(self, view: View, instants: Sequence[int]) -> None:
        """Add the rows of a view at some instants, in order; an instant without a frame is a reject."""
        times, faulty = self._clock(view)
        calibrations: dict[tuple[int, int], tuple[Camera | None, list[str]]] = {}
        for instant in instants:
            key = self.key(instant, view.name)
            if instant not in view.places:
                self.reject(key, Reason.UNSYNCHRONISED, "no frame of this camera belongs to the instant")
                continue
            size = view.size_px.get(instant, (view.media.width, view.media.height))
            if size == (0, 0):
                self.reject(key, Reason.UNREADABLE, f"{view.places[instant][0]}: the header does not parse")
                continue
            if size not in calibrations:
                fitted = fit_to_image(view.camera, *size, rotation=view.media.rotation) if view.camera else (None, [])
                calibrations[size] = fitted
            camera, flags = calibrations[size]
            if instant in faulty:
                self.reject(key, Reason.CLOCK, faulty[instant])
                flags = [*flags, "clock"]
            if view.doubtful_from is not None and instant >= view.doubtful_from:
                flags = [*flags, "unsynchronised"]
            row = self._row(view, instant, key, size, camera)
            self.frames.append(row | {"time_s": times.get(instant), "flags": sorted({*view.flags, *flags})})

    def _row(self, view: View, instant: int, key: str, size: tuple[int, int], camera: Camera | None) -> dict[str, Any]:
        media, index = view.places[instant]
        width, height = size
        row: dict[str, Any] = {
            "key": key,
            "source": self.recipe.name,
            "licence": self.source.licence,
            "domain": self.domain,
            "split": self.split,
            "group": self.recording.group,
            "subject": self.about.subject,
            "sequence": self.recording.sequence,
            "instant": instant,
            "view": view.name,
            "track": EVERYBODY,
            "media": media,
            "media_index": index,
            "width": width,
            "height": height,
            "silhouette_from": SilhouetteFrom.NONE,
        }
        if self.domain == Domain.HAND:  # no parser finds hands: the whole frame is taken
            row |= {"box_xyxy_px": whole(size).tolist(), "box_from": BoxFrom.FULL_FRAME}
        if camera is not None:
            pose = camera.camera_from_world
            row["intrinsics"] = camera.intrinsics.reshape(-1).tolist()
            row["camera_from_world"] = None if pose is None else pose.reshape(-1).tolist()
            row["distortion"] = None if camera.distortion is None else list(camera.distortion)
        return row

    def _clock(self, view: View) -> tuple[dict[int, float], dict[int, str]]:
        """Times that can be trusted, and what is wrong with the others: time must pass from frame to frame."""
        if self.about.fps is not None:
            first = min(view.places, default=0)
            return {instant: (instant - first) / self.about.fps for instant in view.places}, {}
        good: dict[int, float] = {}
        faulty: dict[int, str] = {}
        last: float | None = None
        for instant in sorted(view.times_s):
            time_s = view.times_s[instant]
            if last is None or time_s > last:
                good[instant], last = time_s, time_s
            else:
                faulty[instant] = f"{time_s:.6f} s comes after {last:.6f} s"
        if len(faulty) > MAX_CLOCK_FAULTS * len(view.times_s):
            where = next(iter(view.places.values()))[0] if view.places else self.recording.sequence
            detail = f"view {view.name}: time does not pass at {len(faulty)} of {len(view.times_s)} frames; not used"
            self.reject(where, Reason.CLOCK, detail, len(faulty))
            view.flags.append("clock")
            return {}, {}
        return good, faulty
