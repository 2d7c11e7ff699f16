"""Videos and images, from a file to pixels: one decoding pass, in display order, that says which frames are missing.

Convention: a frame's index is its place in display order, counted over the packets of the file, so a frame that does not
decode keeps its number and never shifts those after it. Pictures are RGB, turned upright as the file says (display matrix,
EXIF). A frame that decoding errors have touched, directly or through the frames it is predicted from, is unreadable.
"""

import logging
import re
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from manifests.errors import SourceError

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
# What may be decoded: 8K video and the largest phone photos fit, a file that expands a thousandfold does not.
MAX_SIDE_PX = 16_384
MAX_PIXELS = 80_000_000  # below Pillow's own limit

# Containers of recordings only: a playlist or a concatenation script named .mp4 could make the demuxer open other files.
_OPEN = {"format_whitelist": "mov,avi,matroska,mpegts,mpeg,mpegvideo,h264,flv,asf,ogg", "protocol_whitelist": "file"}
# AVI stores no presentation times: its frames come at the stated rate, in the order in which the decoder shows them.
_CLOCKLESS = ("avi", "h264", "mpegvideo")
# EXIF orientation to (quarter turns counterclockwise, mirror first).
_EXIF = {
    1: (0, False),
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (1, True),
    6: (3, False),
    7: (3, True),
    8: (1, False),
}
# Frames held back at most, of a stream that holds packets which show nothing.
_MOST_HELD = 8
_BAD_IMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    SourceError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """What the headers of a video, an image or a folder of images say.

    Attributes:
        width: upright width, px, of the first frame.
        height: upright height, px, of the first frame.
        num_frames: frames in display order, including those that may not decode.
        times_s: presentation time of each frame, seconds from the first one; empty when there is no clock (images). Not
            ordered when the clock of the file runs backwards.
        rotation: degrees, counterclockwise, by which stored pixels are turned to stand upright: 0, 90, 180, 270.
        codec: name of the video's codec, or `image`.
        names: file names of a folder's images, in order; empty for a video.
        sizes: (width, height) of each image, upright; (0, 0): its header does not parse. Empty for a video.
    """

    width: int
    height: int
    num_frames: int
    times_s: tuple[float, ...]
    rotation: int
    codec: str
    names: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame of a video, or one image.

    Attributes:
        index: place in display order.
        time_s: seconds from the first frame, or None where there is no clock.
        rgb: (H, W, 3), upright; None: unreadable.
        detail: why it is unreadable.
    """

    index: int
    time_s: float | None
    rgb: Pixels | None
    detail: str = ""


def is_video(path: Path) -> bool:
    """Whether a file is named like a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def is_image(path: Path) -> bool:
    """Whether a file is named like an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def natural_order(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key under which `image9` comes before `image10`; equal only for equal names."""
    parts = re.split(r"(\d+)", name)
    return (*((0, int(part)) if part.isdecimal() else (1, part) for part in parts), (2, name))


def list_images(folder: Path) -> list[Path]:
    """The images directly in a folder, in natural order of their names."""
    return sorted((p for p in folder.iterdir() if p.is_file() and is_image(p)), key=lambda p: natural_order(p.name))


def probe(path: Path) -> Media:
    """Read headers: of a video (its packets are listed, one frame is decoded for its display matrix), image, or folder.

    Raises:
        SourceError: nothing of it can be read, or it is larger than `MAX_SIDE_PX` or `MAX_PIXELS`.
    """
    if path.is_dir():
        return _probe_images(path, list_images(path))
    if is_image(path):
        return _probe_images(path, [path])
    with _opened(path) as container:
        stream = _stream(container, path)
        clock = _Clock.read(container, stream)
    with _opened(path) as container:
        first = _first_frame(container, _stream(container, path), path)
    if clock.num_frames == 0 or first is None:
        raise _unreadable(path, "no frame of this video decodes")
    turns = _turns(first)
    _check_size(first.width, first.height, path)
    width, height = (first.height, first.width) if turns % 2 else (first.width, first.height)
    return Media(
        width=width,
        height=height,
        num_frames=clock.num_frames,
        times_s=tuple(clock.times_s),
        rotation=turns * 90,
        codec=stream.codec_context.name,
    )


def read_frames(path: Path, *, wanted: Collection[int] | None = None) -> Iterator[Picture]:
    """Decode a video, an image or a folder of images once, in display order.

    Args:
        path: what to read.
        wanted: indices to yield; by default all. Colours are converted for these only, and nothing after the last is
            decoded.

    Yields:
        One picture for each wanted index below the number of frames, in rising order; unreadable ones with `rgb` None.

    Raises:
        SourceError: nothing of it can be read, or it is larger than `MAX_SIDE_PX` or `MAX_PIXELS`.
    """
    if path.is_dir() or is_image(path):
        for index, image in enumerate(list_images(path) if path.is_dir() else [path]):
            if wanted is None or index in wanted:
                yield _read_image(image, index)
        return
    with _opened(path) as container:
        clock = _Clock.read(container, _stream(container, path))
    asked = range(clock.num_frames) if wanted is None else sorted(i for i in set(wanted) if 0 <= i < clock.num_frames)
    with _opened(path) as container:
        yield from _decode(container, _stream(container, path), clock, asked, path)


def read_media(root: Path, places: Iterable[tuple[str, int]]) -> Iterator[Picture]:
    """Read the frames that rows of the `frames` table name, each file once.

    Args:
        root: of the source.
        places: (media, media_index) of each row, in the order of the recording; the indices of one video rise.

    Yields:
        One picture per place, in the same order; its index is the media_index. A video that cannot be opened yields
        unreadable pictures, so the other cameras of a recording go on.
    """
    for media, group in groupby(places, key=lambda place: place[0]):
        indices = [index for _, index in group]
        if any(after <= before for before, after in pairwise(indices)):
            raise ValueError(f"the indices of {media} do not rise")
        pictures, missing = read_frames(root / media, wanted=set(indices)), "the file holds fewer frames"
        for index in indices:
            try:
                picture = next(pictures, None)
            except SourceError as error:
                picture, missing = None, error.what
            yield picture or Picture(index, None, None, missing)


@dataclass(slots=True)
class _Clock:
    """Where each packet of a stream stands in display order, and when.

    Attributes:
        order: display index of each packet in the order of the file; -1 for packets that show nothing. Empty when the
            container has no presentation times: then the decoder's order counts.
        times_s: by display index, from the first frame.
    """

    num_frames: int
    order: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)

    @classmethod
    def read(cls, container: Any, stream: Any) -> "_Clock":
        """List the packets of a stream.

        The display order is that of the presentation times, between key frames whose times rise; where a key frame is not
        later than the one before it the clock ran backwards, and the order starts anew.
        """
        packets = [
            (packet.pts, packet.dts, packet.is_keyframe, packet.is_discard) for packet in _packets(container, stream)
        ]
        base = float(stream.time_base)
        if container.format.name in _CLOCKLESS or any(pts is None for pts, *_ in packets):
            ticks = [dts for _, dts, _, _ in packets]
            if any(dts is None for dts in ticks):
                base = 1 / float(stream.average_rate or stream.guessed_rate or 25)
                ticks = list(range(len(packets)))
            return cls(len(packets), [], [(dts - ticks[0]) * base for dts in ticks])
        segments: list[list[tuple[int, int]]] = [[]]
        last_key = None
        for number, (pts, _, key, discard) in enumerate(packets):
            if key and last_key is not None and pts <= last_key:
                segments.append([])
            last_key = pts if key else last_key
            if not discard:
                segments[-1].append((pts, number))
        shown = [place for segment in segments for place in sorted(segment)]
        order = [-1] * len(packets)
        for index, (_, number) in enumerate(shown):
            order[number] = index
        return cls(len(shown), order, [(pts - shown[0][0]) * base for pts, _ in shown])


@dataclass(slots=True)
class _Tracker:
    """Gives decoded frames their display index, and knows which are touched by damage."""

    clock: _Clock
    last: int = -1  # display index
    shown: list[int] = field(default_factory=list)  # packets shown since the last key frame
    keys: list[tuple[int, int]] = field(default_factory=list)  # packet and index of each key frame
    damages: list[int] = field(default_factory=list)  # packets, sorted
    done: set[int] = field(default_factory=set)  # packets that are shown or lost, from `undone` on
    undone: int = 0  # first packet that is neither

    def damage(self, packet: int) -> None:
        """A packet did not decode, or not wholly."""
        insort(self.damages, packet)
        self.done.add(packet)

    def place(self, frame: Any) -> tuple[int, int]:
        """Display index and packet of a frame that the decoder has just shown."""
        packet = frame.opaque if frame.opaque is not None else self.last + 1
        if self.clock.order:
            index = self.clock.order[packet]
        elif frame.key_frame:
            # Every packet before a key frame is shown before it: that many frames came, or are lost.
            index = max(self.last + 1, packet + sum(other > packet for other in self.shown))
        else:
            index = self.last + 1
        self.shown = [packet] if frame.key_frame else [*self.shown[-64:], packet]
        if frame.key_frame:
            self.keys.append((packet, index))
        if frame.is_corrupt:
            self.damage(packet)
        self.done.add(packet)
        return index, packet

    def is_settled(self, packet: int) -> bool:
        """Whether all packets up to this one are shown or lost, so that no damage to it can still come to light."""
        while self.undone in self.done:
            self.done.remove(self.undone)
            self.undone += 1
        return packet < self.undone

    def is_whole(self, index: int, packet: int) -> bool:
        """Whether a frame, and all it is predicted from, since the last key frame shown before it, decoded."""
        place = bisect_right(self.damages, packet)
        if place == 0:
            return True
        before = (key for key, shown_at in reversed(self.keys) if key <= packet and shown_at <= index)
        return self.damages[place - 1] < next(before, -1)


def _decode(container: Any, stream: Any, clock: _Clock, asked: Iterable[int], path: Path) -> Iterator[Picture]:
    """Yield a picture for each asked index, in order; gaps that the decoder leaves come out as unreadable."""

    def time_of(index: int) -> float | None:
        return clock.times_s[index] if clock.times_s else None

    def lost(index: int) -> Picture:
        return Picture(index, time_of(index), None, "the frame does not decode")

    todo, tracker, size = iter(asked), _Tracker(clock), None
    waiting = next(todo, None)
    for index, frame, whole in _settled(container, stream, tracker, path):
        size = size or (frame.width, frame.height)
        while waiting is not None and waiting < index:
            yield lost(waiting)
            waiting = next(todo, None)
        if waiting is None:
            return
        if waiting == index:
            if not whole:
                yield Picture(index, time_of(index), None, "the frame, or one it is predicted from, is damaged")
            elif (frame.width, frame.height) != size:
                yield Picture(index, time_of(index), None, f"the size changes to {frame.width}x{frame.height}")
            else:
                _check_size(*size, path)
                rgb, turns = frame.to_ndarray(format="rgb24"), _turns(frame)
                # Upright pictures are not copied, though their rows may be padded: a copy costs more than the decoding.
                yield Picture(index, time_of(index), np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb)
            waiting = next(todo, None)
            if waiting is None:
                return
    while waiting is not None:
        yield lost(waiting)
        waiting = next(todo, None)


def _settled(container: Any, stream: Any, tracker: _Tracker, path: Path) -> Iterator[tuple[int, Any, bool]]:
    """Frames with their display index, and whether they are whole.

    A frame is held until what it may be predicted from has been shown: damage there comes to light only then.
    """
    held: deque[tuple[int, int, Any]] = deque()
    for frame in _shown(container, stream, tracker, path):
        index, packet = tracker.place(frame)
        if index <= tracker.last or index >= tracker.clock.num_frames:
            logger.debug("%s: the decoder showed frame %d after frame %d", path, index, tracker.last)
            continue
        tracker.last = index
        held.append((index, packet, frame))
        while held and (len(held) > _MOST_HELD or tracker.is_settled(held[0][1])):
            index, packet, frame = held.popleft()
            yield index, frame, tracker.is_whole(index, packet)
    for index, packet, frame in held:
        yield index, frame, tracker.is_whole(index, packet)


def _shown(container: Any, stream: Any, tracker: _Tracker, path: Path) -> Iterator[Any]:
    """Frames as the decoder shows them, on one thread; packets that it refuses go to the tracker."""
    context = stream.codec_context
    _check_size(context.width, context.height, path)
    context.thread_count = 1
    context.flags |= av.codec.context.Flags.copy_opaque  # each frame then names the packet it came from
    for number, packet in enumerate(_packets(container, stream)):
        packet.opaque = number
        try:
            frames = context.decode(packet)
        except av.FFmpegError:
            tracker.damage(number)
            continue
        yield from frames
    with suppress(av.FFmpegError):  # what is still held back for reordering
        yield from context.decode(None)


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream that hold anything, up to the end or to where the file is cut."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError as error:
            logger.debug("%s: the file ends early: %s", container.name, error)
            return
        if packet.size:
            yield packet


def _first_frame(container: Any, stream: Any, path: Path) -> Any:
    """The first frame that decodes, or None."""
    return next(_shown(container, stream, _Tracker(_Clock(0)), path), None)


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise SourceError(
            "no such file", where=path, hint="check the path, or run `make ingest` again after moving files"
        )
    try:
        return av.open(str(path.absolute()), options=dict(_OPEN))
    except (av.FFmpegError, ValueError) as error:
        raise _unreadable(path, f"this is no video that can be read: {_without_path(error)}") from error


def _without_path(error: Exception) -> str:
    """What went wrong, without where: the place stands beside it, and the same data elsewhere must be told the same."""
    return str(getattr(error, "strerror", None) or error)


def _stream(container: Any, path: Path) -> Any:
    covers = av.stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & covers and stream.codec_context is not None:
            return stream
    raise _unreadable(path, "this file holds no video of a known codec")


def _turns(frame: Any) -> int:
    """Quarter turns, counterclockwise, that make a frame upright."""
    return int(round(frame.rotation / 90) % 4)


def _check_size(width: int, height: int, path: Path) -> None:
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise SourceError(
            f"{width}x{height} px is larger than {MAX_SIDE_PX} px a side or {MAX_PIXELS} px in all",
            where=path,
            hint="scale it down before building, or leave the file out",
        )


def _unreadable(path: Path, what: str) -> SourceError:
    return SourceError(what, where=path, hint="play it, copy it again or convert it with ffmpeg, or leave the file out")


def _probe_images(path: Path, images: list[Path]) -> Media:
    headers = [_image_header(image) for image in images]
    sizes = tuple((width, height) for width, height, _ in headers)
    readable = [k for k, size in enumerate(sizes) if size != (0, 0)]
    if not readable:
        raise SourceError("no image here can be read", where=path, hint=f"give {', '.join(IMAGE_SUFFIXES)} files")
    first = readable[0]
    return Media(
        width=sizes[first][0],
        height=sizes[first][1],
        num_frames=len(images),
        times_s=(),
        rotation=_EXIF[headers[first][2]][0] * 90,
        codec="image",
        names=tuple(image.name for image in images),
        sizes=sizes,
    )


def _image_header(path: Path) -> tuple[int, int, int]:
    """Upright width and height, and the EXIF orientation; zeros for a header that does not parse or is too large."""
    orientation = 1
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            width, height = image.size
            _check_size(width, height, path)
            if image.format == "JPEG":  # Pillow would decode a whole PNG to look for it
                orientation = int(image.getexif().get(0x0112, 1))
    except _BAD_IMAGE as error:
        logger.debug("%s: %s", path, error)
        return 0, 0, 1
    orientation = orientation if orientation in _EXIF else 1
    return (height, width, orientation) if _EXIF[orientation][0] % 2 else (width, height, orientation)


def _read_image(path: Path, index: int) -> Picture:
    try:
        data = path.read_bytes()
    except OSError as error:
        return Picture(index, None, None, f"the image cannot be read: {error.strerror}")
    width, _, orientation = _image_header(path)
    if not width:
        return Picture(index, None, None, "the image's header does not parse, or says it is too large")
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        rgb = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        return Picture(index, None, None, f"the image does not decode: {_without_path(error)}")
    if rgb is None:
        return Picture(index, None, None, "the image does not decode")
    turns, mirror = _EXIF[orientation]
    upright = np.rot90(rgb[:, ::-1] if mirror else rgb, turns)
    return Picture(index, None, np.ascontiguousarray(upright))
