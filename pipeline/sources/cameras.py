"""Rigs of synchronous cameras: a folder per recording, with one video or one folder of images per camera.

``` text
<root>/<recording>/<camera>.mp4              or .avi .mov .mkv .webm .m4v; also <recording>/videos/<camera>.mp4
<root>/<recording>/<camera>/000123.jpg       or .png; the number in the name is the instant
<root>/recordings.toml                       optional: group, subject, domain, split, fps, metres_per_unit per recording
```
The root may itself be one recording. Frame k of every video belongs to instant k, unless a `timestamps.csv` lies beside the
videos: caliscope's (sync_index, cam_id or port, frame_time) or `instant,camera,frame[,time_s]` with frames counted from 0.
A calibration (see `calibration`) is looked for beside the videos, then upwards to the root, at each level also in the
folders `calibration`, `calib` and `camera_parameters`; the first place that has one counts. Cameras are matched by name,
then by number: `cam01`, `cam_1` and `1` are one.
"""

import csv
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from typing_extensions import override

from manifests.errors import SourceError
from manifests.types import Domain, Reason, Split
from pipeline.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Media, is_image, is_video, list_images, probe
from pipeline.sources.base import Card, Recording, Scan
from pipeline.sources.calibration import Camera, is_calibration, read_calibration
from pipeline.sources.layout import (
    RECORDINGS,
    About,
    OwnSource,
    Rows,
    View,
    about_recording,
    files_below,
    read_about,
    require_folder,
    unique_names,
    walk,
)

logger = logging.getLogger(__name__)

TIMESTAMPS = "timestamps.csv"
_CALIBRATION_FOLDERS = ("calibration", "calib", "camera_parameters", "cameras", "intrinsics", "extrinsics")
_MEDIA_FOLDERS = ("videos", "video", "images", "frames")
# Where several kinds of calibration lie together, the one with the fullest statement counts.
_KINDS = (".qca.txt", ".toml", ".yml", ".yaml", ".json", ".dat")
_LARGEST_INSTANT = 2**62
MAX_LOOKED_AT = 4  # recordings, to tell a rig from clips that lie beside each other


@dataclass(frozen=True, slots=True)
class _Stamp:
    """One line of a timestamps file. `frame` is None where the file leaves it to the order of its lines."""

    instant: int
    frame: int | None
    time_s: float | None


CARD = Card(
    title="your own rig",
    domains=(Domain.BODY, Domain.HAND),
    tree="<recording>/<camera>.mp4 or <recording>/<camera>/*.jpg",
    get="film with synchronous cameras; calibrate them if you can",
    licence="the user's own",
    terms="Say what holds for your recordings with `licence:` in the recipe.",
    gives="cross-view and cross-pose; boxes and silhouettes from the parser",
)


class CamerasSource(OwnSource):
    """See the module."""

    card = CARD

    @override
    def recordings(self, root: Path) -> list[Recording]:
        """List the folders that hold the videos or image folders of one rig; see `Source.recordings`."""
        require_folder(root)
        # Folders of calibration images look like recordings: they count only where there is nothing else.
        found = _find(root, skip=_CALIBRATION_FOLDERS) or _find(root, skip=())
        if not found:
            raise SourceError(
                "no recording is here",
                where=root,
                hint=f"looked for <recording>/<camera>{{{','.join(VIDEO_SUFFIXES)}}} and "
                f"<recording>/<camera>/*{{{','.join(IMAGE_SUFFIXES)}}}, also one level up and in `videos/`",
            )
        named = [
            PurePosixPath(*_spoken_parts(folder.relative_to(root).parts) or (root.resolve().name,)) for folder in found
        ]
        names = unique_names(named)
        about = read_about(root, names)
        recordings = [
            Recording(
                sequence=name,
                group=about[name].group or name,
                split=about[name].split,
                files=files_below(root, [*media, *_companions(root, folder)]),
            )
            for name, (folder, media) in zip(names, found.items(), strict=True)
        ]
        return sorted(recordings, key=lambda recording: recording.sequence)

    @override
    def scan(self, root: Path, recording: Recording, *, split: Split) -> Scan:
        """List the frames of one recording; see `Source.scan`."""
        about = about_recording(root, recording.sequence)
        rows = Rows(self, recording, about, split)
        paths = [PurePosixPath(path) for path, _ in recording.files]
        views = _open_views(root, paths, rows)
        _calibrate(root, paths, views, about)
        stamps = next((path for path in paths if path.name == TIMESTAMPS), None)
        if stamps is not None:
            _synchronise(views, _read_stamps(root / stamps), rows, root / stamps)
        else:
            _doubt_lonely_gaps(views, recording.sequence)
        instants = sorted({instant for view in views for instant in view.places})[:: self.recipe.frame_step]
        for view in views:
            rows.add(view, instants)
        rows.frames.sort(key=lambda row: (row["view"], row["instant"]))
        return Scan(rows.frames, rows.rejects)


def speaks_for_rig(root: Path) -> bool:
    """Whether the first recordings of several cameras are those of a rig, for all that their folders tell.

    A calibration or a timestamps file lies there, or the cameras hold equally many pictures: folders and videos that lie
    beside each other may as well be clips that have nothing to do with each other.
    """
    try:
        found = list((_find(root, skip=_CALIBRATION_FOLDERS) or _find(root, skip=())).items())
    except OSError:
        return False
    several = [(folder, media) for folder, media in found if len(_views(media)) > 1][:MAX_LOOKED_AT]
    return bool(several) and all(_is_rig(root, folder, media) for folder, media in several)


def match_names(names: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Match names of cameras, tolerantly.

    By the same name first, then by the name without punctuation and leading zeros, then by the camera's number; a form
    that two names of one side share matches none of them.

    Returns:
        others by name; what has no partner is left out.
    """
    left, right, matched = list(names), list(others), dict[str, str]()
    for form in (str.lower, _squashed, _number):
        mine, theirs = Counter(map(form, left)), Counter(map(form, right))
        partners = {form(other): other for other in right}
        for name in list(left):
            shape = form(name)
            if shape and mine[shape] == theirs[shape] == 1:
                matched[name] = partners[shape]
                left.remove(name)
                right.remove(partners[shape])
    return matched


def _views(media: Sequence[Path]) -> Counter[Path]:
    """How many files each camera of a recording has."""
    return Counter(file if is_video(file) else file.parent for file in media)


def _is_rig(root: Path, folder: Path, media: Sequence[Path]) -> bool:
    if any(file.name == TIMESTAMPS or is_calibration(file) for file in _companions(root, folder)):
        return True
    views = _views(media)
    if not is_video(media[0]):
        return len(set(views.values())) == 1
    try:
        return len({probe(file).num_frames for file in views}) == 1
    except SourceError:
        return False


def _squashed(name: str) -> str:
    return re.sub(r"0+(?=\d)", "", re.sub(r"[^a-z0-9]", " ", name.lower())).replace(" ", "")


def _number(name: str) -> str:
    """The number of a camera: after cam, camera, c, view or port, or the only one there is; empty when unclear."""
    name = name.lower()
    found = re.search(r"(?:cam(?:era)?|view|port|(?<![a-z])c)[ _-]*(\d+)", name)
    numbers = [found[1]] if found else re.findall(r"\d+", name)
    return str(int(numbers[0])) if len(numbers) == 1 else ""


def _find(root: Path, *, skip: Sequence[str]) -> dict[Path, list[Path]]:
    """Folders that are a recording, with their media files."""
    found: dict[Path, list[Path]] = {}
    for folder, folders, files in walk(root):
        if any(part.lower() in skip for part in folder.relative_to(root).parts):
            continue
        videos = [file for file in files if is_video(file)]
        images = [image for below in folders if below.name.lower() not in skip for image in list_images(below)]
        if videos or images:
            found[folder] = videos or images
    return found


def _spoken_parts(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The parts of a folder's path that name the recording."""
    return parts[:-1] if len(parts) > 1 and parts[-1].lower() in _MEDIA_FOLDERS else parts


def _companions(root: Path, folder: Path) -> list[Path]:
    """Files that say more about a recording: calibration, timestamps, and the list of recordings."""
    found = [root / RECORDINGS] if (root / RECORDINGS).is_file() else []
    beside = [folder, folder.parent] if folder != root and folder.name.lower() in _MEDIA_FOLDERS else [folder]
    found += [place / TIMESTAMPS for place in beside if (place / TIMESTAMPS).is_file()][:1]
    level = folder
    while True:
        for place in (level, *(level / name for name in _CALIBRATION_FOLDERS if (level / name).is_dir())):
            files = sorted(file for file in place.iterdir() if is_calibration(file) and file.is_file())
            for kind in _KINDS:
                of_kind = [file for file in files if file.name.lower().endswith(kind)]
                if of_kind:
                    return found + of_kind
        if level == root:
            return found
        level = level.parent


def _open_views(root: Path, paths: Sequence[PurePosixPath], rows: Rows) -> list[View]:
    """Read the headers of each camera's media; a camera that cannot be read is a reject."""
    videos = [path for path in paths if is_video(Path(path))]
    folders = sorted({path.parent for path in paths if is_image(Path(path))})
    sources = videos or folders
    names = unique_names([PurePosixPath(path.name) for path in sources])
    media: dict[str, tuple[PurePosixPath, Media]] = {}
    for name, path in zip(names, sources, strict=True):
        if (opened := rows.open(root, path)) is not None:
            media[name] = path, opened
    numbered = bool(videos) or any(path.name == TIMESTAMPS for path in paths)
    instants = {} if numbered else _image_instants({name: found.names for name, (_, found) in media.items()})
    views = []
    for name, (path, found) in media.items():
        numbers = instants.get(name, list(range(found.num_frames)))
        places = {n: (str(path / found.names[k]), 0) if found.names else (str(path), k) for k, n in enumerate(numbers)}
        times_s = dict(zip(numbers, found.times_s, strict=False))
        view = View(name=name, media=found, places=places, times_s=times_s)
        view.size_px = dict(zip(numbers, found.sizes, strict=False))
        views.append(view)
    return views


def _image_instants(names: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """The instant of each image of each camera: the last number in its name, or the first, whichever tells them apart.

    Where neither does, the place in the folder counts, if all cameras hold equally many.

    Raises:
        SourceError: nothing says which images belong together.
    """
    for pick in (-1, 0):
        instants: dict[str, list[int]] = {}
        for view, files in names.items():
            numbers = [re.findall(r"\d+", Path(file).stem) for file in files]
            instants[view] = [int(found[pick]) for found in numbers if found]
        told_apart = all(len(set(found)) == len(names[view]) for view, found in instants.items())
        if told_apart and all(number < _LARGEST_INSTANT for found in instants.values() for number in found):
            return instants
    if len({len(files) for files in names.values()}) > 1:
        raise SourceError(
            "nothing says which images of these cameras belong together",
            where=f"image folders {', '.join(names)}",
            hint="put the instant's number into the names of the images, or write a timestamps.csv",
        )
    logger.warning("images of %s have no number that tells them apart: their order counts", ", ".join(names))
    return {view: list(range(len(files))) for view, files in names.items()}


def _calibrate(root: Path, paths: Sequence[PurePosixPath], views: Sequence[View], about: About) -> None:
    """Give each view its camera; views that a calibration leaves out are flagged."""
    files = [root / path for path in paths if is_calibration(Path(path))]
    if not files:
        return
    cameras: dict[str, Camera] = read_calibration(files, metres_per_unit=about.metres_per_unit)
    matched = match_names([view.name for view in views], cameras)
    for view in views:
        if view.name in matched:
            view.camera = cameras[matched[view.name]]
        else:
            view.flags.append("uncalibrated")
            logger.warning("%s: no camera of %s is named like view %s", files[0], ", ".join(cameras), view.name)
    unused = sorted(set(cameras) - set(matched.values()))
    if unused:
        logger.info("%s: no view is named like %s", files[0], ", ".join(unused))


def _read_stamps(path: Path) -> dict[str, list[_Stamp]]:
    """Lines of a timestamps file, by camera, in order of instants.

    Raises:
        SourceError: the file, a line of it or a column is not as it should be.
    """

    def wrong(what: str, line: int | None = None) -> SourceError:
        where = f"{path}, line {line}" if line else str(path)
        hint = "columns are sync_index, cam_id, frame_time (caliscope) or instant, camera, frame[, time_s]"
        return SourceError(f"the timestamps do not parse: {what}", where=where, hint=hint)

    def whole(text: str | None, column: str, line: int) -> int:
        if text is None or not re.fullmatch(r"\s*\d{1,18}\s*", text):
            raise wrong(f"{column} is {text!r}, no whole number", line)
        return int(text)

    stamps: dict[str, list[_Stamp]] = {}
    seen: set[tuple[str, int]] = set()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = [column.strip() for column in reader.fieldnames or []]
            reader.fieldnames = columns
            caliscope = "sync_index" in columns
            camera = next((c for c in (("cam_id", "port") if caliscope else ("camera",)) if c in columns), None)
            instant, time = ("sync_index", "frame_time") if caliscope else ("instant", "time_s")
            missing = [c for c in ([instant, time] if caliscope else [instant, "frame"]) if c not in columns]
            if camera is None or missing:
                raise wrong(f"no column {', '.join(missing) or 'that names the camera'}")
            for row in reader:
                line = reader.line_num
                seconds = _seconds(row.get(time))
                if seconds is None and row.get(time):
                    raise wrong(f"{time} is {row[time]!r}, no number of seconds", line)
                frame = None if caliscope else whole(row["frame"], "frame", line)
                stamp = _Stamp(whole(row[instant], instant, line), frame, seconds)
                name = (row[camera] or "").strip()
                if (name, stamp.instant) in seen:
                    raise wrong(f"{camera} {name} has instant {stamp.instant} twice", line)
                seen.add((name, stamp.instant))
                stamps.setdefault(name, []).append(stamp)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise wrong(str(error)) from error
    return {name: sorted(listed, key=lambda stamp: stamp.instant) for name, listed in stamps.items()}


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _synchronise(views: list[View], stamps: Mapping[str, list[_Stamp]], rows: Rows, path: Path) -> None:
    """Let a timestamps file say which frame belongs to which instant; a view it does not fit is taken out."""
    matched = match_names([view.name for view in views], stamps)
    seconds = [stamp.time_s for listed in stamps.values() for stamp in listed if stamp.time_s is not None]
    start = min(seconds, default=0.0)
    for view in list(views):
        listed = stamps.get(matched.get(view.name, ""), [])
        frames = list(view.places.values())
        # caliscope writes one frame for each of its lines, in order, whatever number the camera gave it.
        fits = len(listed) == len(frames) or all(stamp.frame is not None for stamp in listed)
        if not listed or not fits:
            views.remove(view)
            detail = f"{path.name} lists {len(listed)} frames of it, and it holds {len(frames)}"
            rows.reject(frames[0][0] if frames else view.name, Reason.UNSYNCHRONISED, detail)
            continue
        sizes = list(view.size_px.values())
        own_times = list(view.times_s.values())
        view.places, view.size_px, view.times_s = {}, {}, {}
        for k, stamp in enumerate(listed):
            frame = k if stamp.frame is None else stamp.frame
            if frame >= len(frames):
                continue  # no such frame: the instant stays without this camera, which `Rows` counts
            view.places[stamp.instant] = frames[frame]
            if sizes:
                view.size_px[stamp.instant] = sizes[frame]
            if stamp.time_s is not None:
                view.times_s[stamp.instant] = stamp.time_s - start
            elif own_times and not seconds:
                view.times_s[stamp.instant] = own_times[frame]


def _doubt_lonely_gaps(views: Sequence[View], sequence: str) -> None:
    """Flag what comes after a time gap that other cameras do not have: there, frames may be lost and numbers be off."""
    gaps: dict[str, set[int]] = {}
    for view in views:
        steps = {k: view.times_s[k] - view.times_s[k - 1] for k in view.times_s if k - 1 in view.times_s}
        usual = sorted(steps.values())[len(steps) // 2] if steps else 0.0
        gaps[view.name] = {k for k, step in steps.items() if step > 1.5 * usual}
    shared = set.intersection(*gaps.values()) if len(gaps) > 1 else set().union(*gaps.values())
    for view in views:
        lonely = gaps[view.name] - shared
        if lonely:
            view.doubtful_from = min(lonely)
            logger.warning(
                "%s: view %s has a time gap at frame %d that others do not have; frames from there on are flagged"
                " unsynchronised (a timestamps.csv would tell)",
                sequence,
                view.name,
                view.doubtful_from,
            )
