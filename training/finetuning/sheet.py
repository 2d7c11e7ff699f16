"""Contact sheets of predictions, and the curves of a fine-tuning, as PNG."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from training.checkpoints import write_atomic
from training.record import read_metrics

_HEIGHT_PX, _GAP_PX, _TITLE_PX, _CAPTION_PX, _FONT_PX = 224, 8, 34, 26, 15
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a sheet, with a line below it."""

    pixels: npt.NDArray[np.uint8]
    caption: str


def sheet_of(rows: Sequence[tuple[str, Sequence[Tile]]], *, title: str) -> Image.Image:
    """Lay out rows of pictures of one height, each row under its name."""
    pictures = [(name, [(_scaled(tile.pixels), tile.caption) for tile in tiles]) for name, tiles in rows if tiles]
    step_y = _TITLE_PX + _HEIGHT_PX + _CAPTION_PX
    width = max([480, *(sum(p.width + _GAP_PX for p, _ in tiles) + _GAP_PX for _, tiles in pictures)])
    sheet = Image.new("RGB", (width, _TITLE_PX + len(pictures) * step_y + _GAP_PX), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_FONT_PX)
    draw.text((_GAP_PX, 8), title, _INK, font)
    for row, (name, tiles) in enumerate(pictures):
        x, y = _GAP_PX, _TITLE_PX + row * step_y
        draw.text((x, y + 8), name, _INK, font)
        for picture, caption in tiles:
            sheet.paste(picture, (x, y + _TITLE_PX))
            draw.text((x, y + _TITLE_PX + _HEIGHT_PX + 2), caption, _INK, font)
            x += picture.width + _GAP_PX
    return sheet


def draw_curves(run: Path, path: Path, *, main: str, unit: str) -> None:
    """Draw a run's training loss, and its main score in validation, over the steps.

    Raises:
        TrainingError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    lines = read_metrics(run)
    train = [line for line in lines if line["kind"] == "train"]
    validation = [line for line in lines if line["kind"] == "validation" and line.get(main) is not None]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    left = figure.add_subplot()
    left.plot([t["step"] for t in train], [t["loss"] for t in train], color="tab:blue", linewidth=0.8, label="loss")
    left.set_xlabel("step")
    left.set_ylabel("training loss")
    left.set_yscale("log")
    left.yaxis.set_major_formatter(LogFormatter())
    left.yaxis.set_minor_formatter(LogFormatter())
    right = left.twinx()
    right.plot([v["step"] for v in validation], [v[main] for v in validation], "o-", color="tab:orange", label=main)
    right.set_ylabel(f"{main} in validation{f', {unit}' if unit else ''}")
    figure.legend(loc="outside upper center", ncols=2)
    left.grid(visible=True, alpha=0.3)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    write_atomic(path, buffer.getvalue())


def png(image: Image.Image) -> bytes:
    """A picture as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _scaled(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(pixels)
    return picture.resize((max(1, round(picture.width * _HEIGHT_PX / picture.height)), _HEIGHT_PX))
