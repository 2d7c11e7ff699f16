"""Coloured figures that stand for people, a parser that knows them by their colour, and recordings of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from manifests.types import FrameKey, Split

RED, MAGENTA, ORANGE = (220, 30, 30), (220, 30, 200), (230, 90, 20)
SIZE = (320, 240)  # width, height


class ColourParser:
    """Knows people exactly: pixels much redder than green, which the background never has."""

    name = "colour-1"

    def parse(self, crops):
        return [np.clip((c[..., 0].astype(np.float32) - c[..., 1]) / 120, 0, 1) for c in crops]


class OneColourParser(ColourParser):
    """Knows the figures apart by their colours too; takes the one whose middle is nearest to that of the crop."""

    name = "one-colour-1"

    def parse_one(self, crops):
        return [self._one(crop) for crop in crops]

    def _one(self, crop):
        person = self.parse([crop])[0] > 0.4
        kind = np.where(crop[..., 2] > 110, 1, np.where(crop[..., 1] > 60, 2, 0))  # magenta, orange, red
        masks = [person & (kind == k) for k in range(3)]
        masks = [mask for mask in masks if mask.mean() > 0.02]
        if not masks:
            return np.zeros(crop.shape[:2], np.float32), 0.0
        middle = (np.array(crop.shape[:2]) - 1) / 2
        nearest = min(masks, key=lambda mask: np.linalg.norm(np.mean(np.nonzero(mask), axis=1) - middle))
        return nearest.astype(np.float32), 1.0


@dataclass(frozen=True)
class Figure:
    """A head on a body: where its middle is, how tall it is, px."""

    x: float
    y: float
    tall: float = 120
    colour: tuple[int, int, int] = RED

    def mask(self, size=SIZE):
        """(H, W): its pixels."""
        canvas = np.zeros(size[::-1], np.uint8)
        fine = 16  # cv2 draws in 1/16 px
        head = (round(self.x * fine), round((self.y - 0.36 * self.tall) * fine))
        cv2.circle(canvas, head, round(0.13 * self.tall * fine), 1, -1, shift=4)
        body = (round(self.x * fine), round((self.y + 0.12 * self.tall) * fine))
        axes = (round(0.2 * self.tall * fine), round(0.37 * self.tall * fine))
        cv2.ellipse(canvas, body, axes, 0, 0, 360, 1, -1, shift=4)
        return canvas > 0

    def box(self, size=SIZE):
        """Tight box (4,) of its pixels."""
        rows, columns = np.nonzero(self.mask(size))
        return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) - 0.5


def draw(figures: Sequence[Figure], *, size=SIZE, seed: int = 0):
    """(H, W, 3): figures, the later before the earlier, over a green landscape."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 70, (8, 10, 3)) + np.array([20, 150, 40])
    image = cv2.resize(cells.astype(np.uint8), size, interpolation=cv2.INTER_CUBIC)
    for figure in figures:
        image[figure.mask(size)] = figure.colour
    return image


def write_stills(folder: Path, images) -> Path:
    """Lossless pictures, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number:04d}.png"), image[..., ::-1])
    return folder


def write_clip(path: Path, images, *, keep_every: int = 4) -> Path:
    """A video of pictures, with nearly no loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = images[0].shape[1], images[0].shape[0], "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = keep_every, 0
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 30)
        stream.options = {"sc_threshold": "0", "crf": "8"}
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def frame_row(instant: int, *, view: str = "cam", media: str, media_index: int = 0, size=SIZE, **other):
    """A row of the frames table: a frame of which nothing is known but its place."""
    names = {"source": "cameras", "split": Split.TRAIN, "sequence": "rec"}
    key = FrameKey(**names, instant=instant, view=view, track=other.get("track", "all"))
    return {
        **names,
        "key": str(key),
        "split": "train",
        "licence": "none",
        "domain": "body",
        "group": "rec",
        "subject": None,
        "instant": instant,
        "time_s": instant / 30,
        "view": view,
        "track": "all",
        "media": media,
        "media_index": media_index,
        "width": size[0],
        "height": size[1],
        "silhouette_from": "none",
        "flags": [],
    } | other


def rows_of_stills(folder: Path, *, view: str = "cam", instants=None, **other):
    """Rows of a folder that `write_stills` wrote; its name is the media's folder."""
    files = sorted(folder.glob("*.png"))
    return [
        frame_row(instant, view=view, media=f"{folder.name}/{path.name}", **other)
        for path, instant in zip(files, instants if instants is not None else range(len(files)), strict=True)
    ]
