"""A contact sheet of pairs: target, reference, silhouettes outlined, and what a pair says of itself."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from manifests import table as tables
from manifests.audit.keys import Ints, hashes_of
from manifests.build import Build
from manifests.commit import iter_tables
from manifests.errors import ManifestError
from manifests.files import write_bytes
from manifests.sample import MAX_MEMBER_BYTES, MAX_SIDE_PX, unpack_cells
from manifests.types import FrameKey, PairKind, Role

TILE_PX = 160
GAP_PX = 12
CAPTION_PX = 34
FONT_PX = 12
PAPER, INK, FAINT = (250, 249, 246), (32, 32, 36), (110, 108, 104)
WAY = ("source", "split", "kind")
OUTLINE = {Role.TARGET: (255, 120, 30), Role.REFERENCE: (30, 190, 255)}
OF_FURTHER = (140, 220, 90)  # outlines of views beyond these two
TILES_ACROSS = 6


def choose_pairs(
    build: Build, *, num: int, kind: str | None = None, source: str | None = None, split: str | None = None
) -> pa.Table:
    """Draw pairs for a sheet: the same from the same build, in turn from every source, split and kind there is.

    Args:
        build: to draw from.
        num: how many; fewer when there are fewer.
        kind: only pairs of this kind.
        source: only pairs of this source.
        split: only pairs of this split.

    Returns:
        rows of the pairs table, sorted by source, split, kind and key.

    Raises:
        ManifestError: no pair is left to show.
    """
    asked = {
        column: value for column, value in (("kind", kind), ("source", source), ("split", split)) if value is not None
    }
    kept, ways = tables.empty("pairs"), set[tuple[str, ...]]()
    for _, pairs in iter_tables(build.folder("pairs"), "pairs"):  # one unit in memory at a time
        ways |= {tuple(way.values()) for way in pairs.group_by(list(WAY)).aggregate([]).to_pylist()}
        for column, value in asked.items():
            pairs = pairs.filter(pc.equal(pairs.column(column), value))
        kept = pa.concat_tables([kept, pairs])
        kept = kept.take(pa.array(_in_turn(kept, num)))
    for column, value in asked.items():
        known = sorted({way[WAY.index(column)] for way in ways})
        ways = {way for way in ways if way[WAY.index(column)] == value}
        if not ways:
            raise ManifestError(
                f"no pair of {column} {value!r}",
                where=build.folder("pairs"),
                hint=f"there are: {', '.join(known) or 'none'}",
            )
    if not kept.num_rows:
        raise ManifestError("there is no pair to show", where=build.folder("pairs"), hint="run `make pairs` first")
    return kept.slice(0, num).sort_by([(name, "ascending") for name in (*WAY, "key")])


def _in_turn(pairs: pa.Table, num: int) -> Ints:
    """Rows of pairs, in turn from every source, split and kind, and so many of each at most.

    Those whose keys have the smallest hashes: chance, but the same chance always.
    """
    way = pc.binary_join_element_wise(*(pairs.column(name) for name in WAY), "/")
    ways = pc.rank(way, sort_keys="ascending", tiebreaker="dense").to_numpy()
    order = np.lexsort((hashes_of(pairs.column("key")), ways))
    turn = np.arange(len(order)) - np.searchsorted(ways[order], ways[order])
    rows: Ints = order[np.lexsort((ways[order], turn))]
    return rows[: int((turn < num).sum())]


def contact_sheet(build: Build, pairs: pa.Table) -> Image.Image:
    """Draw pairs side by side: target, reference, further views, and two lines of caption beneath.

    Args:
        build: that holds their crops.
        pairs: rows of the pairs table.
    """
    rows = pairs.to_pylist()
    return draw_sheet(rows, _crops(build, {key for pair in rows for key in crops_of(pair)}))


def crops_of(pair: Mapping[str, Any]) -> list[str]:
    """The keys of a pair's crops: target, reference, further views."""
    return [*(pair[role.value] for role in Role), *pair["further"]]


def draw_sheet(pairs: Sequence[dict[str, Any]], crops: Mapping[str, dict[str, Any]]) -> Image.Image:
    """Draw pairs, see `contact_sheet`, from their rows and those of their crops by key; a crop that is not there is marked."""
    views = max(len(crops_of(pair)) for pair in pairs)
    width, height = views * (TILE_PX + 2) - 2, TILE_PX + CAPTION_PX
    columns = min(max(1, TILES_ACROSS // views), len(pairs))
    lines = math.ceil(len(pairs) / columns)
    size = GAP_PX + columns * (width + GAP_PX), GAP_PX + lines * (height + GAP_PX)
    sheet = Image.new("RGB", size, PAPER)
    font = ImageFont.load_default(FONT_PX)
    for place, pair in enumerate(pairs):
        x = GAP_PX + place % columns * (width + GAP_PX)
        y = GAP_PX + place // columns * (height + GAP_PX)
        colours = [*OUTLINE.values(), *[OF_FURTHER] * len(pair["further"])]
        for side, (key, colour) in enumerate(zip(crops_of(pair), colours, strict=True)):
            sheet.paste(_tile(crops.get(key), colour), (x + side * (TILE_PX + 2), y))
        write = ImageDraw.Draw(sheet)
        first, second = captions(pair)
        write.text((x, y + TILE_PX + 3), _fit(first, font, width), font=font, fill=INK)
        write.text((x, y + TILE_PX + 18), _fit(second, font, width), font=font, fill=FAINT)
    return sheet


def captions(pair: dict[str, Any]) -> tuple[str, str]:
    """Two lines about a pair: what it is; and how its images differ (degrees and seconds, for people)."""
    target, reference = FrameKey.parse(pair["target"]), FrameKey.parse(pair["reference"])
    first = f"{pair['kind'].replace('_', '-')}  {pair['source']} / {pair['sequence']}  ({pair['split']})"
    if pair["kind"] == PairKind.CROSS_VIEW:
        angle = pair["view_angle_rad"]
        seen = "angle unknown" if angle is None else f"{math.degrees(angle):.0f}\N{DEGREE SIGN} apart"
        views = [FrameKey.parse(key).view for key in crops_of(pair)]
        return first, f"{' + '.join(views)}, {seen}, instant {target.instant}"
    gap = "dt unknown" if pair["dt_s"] is None else f"dt {pair['dt_s']:+.2f} s"
    return first, f"{target.view}, {gap}, instants {target.instant} + {reference.instant}"


def encode(sheet: Image.Image, form: str) -> bytes:
    """PNG or JPEG bytes of a sheet."""
    data = io.BytesIO()
    sheet.save(data, form, **({"quality": 85} if form == "JPEG" else {}))
    return data.getvalue()


def write_sheet(path: Path, sheet: Image.Image) -> None:
    """Write a sheet as PNG, whole or not at all.

    Raises:
        ManifestError: the folder does not take it.
    """
    try:
        write_bytes(path, encode(sheet, "PNG"))
    except OSError as error:
        raise ManifestError(
            f"the sheet cannot be written: {error.strerror or error}", where=path, hint="name another file"
        ) from error


def open_jpeg(jpeg: bytes) -> Image.Image:
    """Decode an untrusted JPEG with Pillow, held to the caps before any pixel is decoded.

    Raises:
        ValueError: it is too large or does not decode.
    """
    if len(jpeg) > MAX_MEMBER_BYTES:
        raise ValueError("too many bytes")
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            if max(image.size) > MAX_SIDE_PX:
                raise ValueError("too many pixels")
            return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error


def _crops(build: Build, keys: set[str]) -> dict[str, dict[str, Any]]:
    """The crops of some keys; unit by unit, pixels only where one is in."""
    wanted, found = pa.array(sorted(keys), pa.string()), dict[str, dict[str, Any]]()
    for stage in ("renders", "crops"):
        for commit in build.commits(stage):
            file = commit.file("crops")
            if file is None:
                continue
            path = build.folder(stage) / file.name
            names = tables.read("crops", path, columns=["key"]).column("key")
            rows = np.flatnonzero(pc.is_in(names, value_set=wanted).to_numpy())
            if len(rows):
                data = tables.read("crops", path, columns=["key", "jpeg", "silhouette"]).take(pa.array(rows))
                found |= {row["key"]: row for row in data.to_pylist()}
    return found


def _tile(crop: dict[str, Any] | None, outline: tuple[int, int, int]) -> Image.Image:
    """A crop at tile size with its silhouette outlined; a crossed box when it is missing or does not decode."""
    try:
        if crop is None:
            raise ValueError("missing")
        picture = open_jpeg(crop["jpeg"]).resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
        cells = unpack_cells(crop["silhouette"])
    except ValueError as error:
        picture = Image.new("RGB", (TILE_PX, TILE_PX), (228, 222, 216))
        draw = ImageDraw.Draw(picture)
        draw.line([(0, 0), (TILE_PX, TILE_PX)], fill=FAINT)
        draw.line([(0, TILE_PX), (TILE_PX, 0)], fill=FAINT)
        draw.text((6, 4), str(error)[:24], font=ImageFont.load_default(FONT_PX), fill=INK)
        return picture
    mask = Image.fromarray(cells.astype(np.uint8) * 255).resize(picture.size, Image.Resampling.BICUBIC)
    mask = mask.point([255 * (value > 127) for value in range(256)])
    edge = ImageChops.subtract(mask.filter(ImageFilter.MaxFilter(5)), mask)
    halo = ImageChops.subtract(mask.filter(ImageFilter.MaxFilter(7)), mask)
    picture.paste((0, 0, 0), mask=halo.point([value // 3 for value in range(256)]))
    picture.paste(outline, mask=edge)
    return picture


def _fit(text: str, font: Any, width: int) -> str:
    while text and font.getlength(text) > width:
        text = text.rstrip(".")[:-1] + "..." if len(text) > 4 else ""
    return text
