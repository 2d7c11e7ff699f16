"""Writes tiny real videos and image folders, whole or with the defects that real recordings have."""

from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np

SIZE = (96, 64)  # width, height
_BITS = 6


def picture(number: int, size: tuple[int, int] = SIZE, *, seed: int = 0) -> np.ndarray:
    """An RGB image that shows a number as a row of bright and dark blocks along its top, over a texture that moves."""
    width, height = size
    texture = np.random.default_rng(seed).integers(60, 180, (height // 8 + 1, width // 8 + 64, 3), dtype=np.uint8)
    image = cv2.resize(texture[:, number % 32 : number % 32 + width // 8 + 1], size, interpolation=cv2.INTER_LINEAR)
    side = width // _BITS
    for bit in range(_BITS):
        image[:side, bit * side : (bit + 1) * side] = 255 if number >> bit & 1 else 0
    return image


def number_of(rgb: np.ndarray) -> int:
    """Read back the number that `picture` drew."""
    side = rgb.shape[1] // _BITS
    lit = [
        rgb[side // 4 : -side // 4][: side // 2, bit * side + side // 4 : (bit + 1) * side - side // 4].mean()
        for bit in range(_BITS)
    ]
    return sum((value > 127) << bit for bit, value in enumerate(lit))


def write_video(
    path: Path,
    numbers: Sequence[int],
    *,
    codec: str = "libx264",
    fps: int = 30,
    size: tuple[int, int] = SIZE,
    pts: Sequence[int] | None = None,
    keep_every: int = 6,
    reordered: int = 0,
    rotation: int | None = None,
) -> Path:
    """Write a video that shows numbers.

    Args:
        path: whose suffix names the container.
        numbers: one per frame, below 64; a repeated number is a frozen frame.
        codec: of the video.
        fps: frames per second.
        size: width and height.
        pts: presentation time of each frame, in frames; by default 0, 1, 2, ...
        keep_every: frames from one key frame to the next.
        reordered: B-frames between two others.
        rotation: degrees counterclockwise by which a player turns the pictures.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        context = stream.codec_context
        context.gop_size, context.max_b_frames, context.thread_count = keep_every, reordered, 1
        if codec == "libx264":
            stream.options = {"sc_threshold": "0", "crf": "18"}
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for k, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
            frame.pts = pts[k] if pts is not None else k
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_images(
    folder: Path, numbers: Sequence[int], *, name: str = "{:06d}.png", size: tuple[int, int] = SIZE
) -> Path:
    """Write a folder of images that show numbers, each named by its number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        cv2.imwrite(str(folder / name.format(number)), picture(number % 64, size)[..., ::-1])
    return folder


def damage_packet(path: Path, number: int) -> None:
    """Overwrite most of one packet of a video with noise."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
        position, size = packets[number].pos, packets[number].size
    data = bytearray(path.read_bytes())
    data[position + 5 : position + size] = np.random.default_rng(1).integers(0, 255, size - 5, dtype=np.uint8).tobytes()
    path.write_bytes(data)


def cut_file(path: Path, share: float) -> None:
    """Keep only the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
