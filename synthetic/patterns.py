"""Procedural patterns for cloth, floors and walls: a small tileable picture from a few numbers.

Shape letters: H W picture, C channels (RGB).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from manifests.seeds import rng_for

Floats32 = npt.NDArray[np.float32]
Reals = npt.NDArray[np.floating[Any]]  # either precision
Colour = tuple[float, float, float]

TILE_PX = 256
_ROW = 4096  # points are looked up in rows, because OpenCV's pictures are no longer than 32767


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A pattern as pure data.

    Attributes:
        kind: a name among `KINDS`.
        colours: three RGB colours in [0, 1]: ground, figure, accent.
        tile_m: edge of the tile on the surface, metres.
        seed: which of the random variants.
    """

    kind: str
    colours: tuple[Colour, Colour, Colour]
    tile_m: float
    seed: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown pattern {self.kind!r}; known: {', '.join(KINDS)}")
        if not self.tile_m > 0:
            raise ValueError(f"tile_m must be positive, got {self.tile_m}")


def tile(pattern: Pattern) -> Floats32:
    """Draw the tile.

    Returns:
        (256, 256, 3) RGB in [0, 1], which repeats without a seam.
    """
    rng = rng_for("pattern", pattern.kind, pattern.seed)
    first, second = np.moveaxis(KINDS[pattern.kind](rng), 2, 0).astype(np.float32)
    grain = np.roll(_grain(), (int(rng.integers(TILE_PX)), int(rng.integers(TILE_PX))), axis=(0, 1))
    out = np.empty((TILE_PX, TILE_PX, 3), dtype=np.float32)
    for channel, (ground, figure, accent) in enumerate(np.array(pattern.colours, dtype=np.float32).T):
        plain = ground + (figure - ground) * first
        np.clip((plain + (accent - plain) * second) * grain, 0.0, 1.0, out=out[..., channel])
    return out


@cache
def _grain() -> Floats32:
    rng = rng_for("pattern", "grain")
    fine, coarse = noise(rng, (64, 128)), noise(rng, (4, 9))
    return np.asarray(1.0 + 0.07 * (fine - 0.5) + 0.08 * (coarse - 0.5), np.float32)


def sample_tile(tile_HWC: Floats32, u_tiles: npt.ArrayLike, v_tiles: npt.ArrayLike) -> Floats32:
    """Look a repeating tile up by nearest texel.

    Args:
        tile_HWC: (H, W, C).
        u_tiles: (...,) horizontal position in tiles.
        v_tiles: (...,) vertical position in tiles.

    Returns:
        (..., C).
    """
    height, width = tile_HWC.shape[:2]
    columns = np.floor(np.asarray(u_tiles) * width).astype(np.int64) % width
    rows = np.floor(np.asarray(v_tiles) * height).astype(np.int64) % height
    return np.asarray(tile_HWC[rows, columns])


def noise(rng: np.random.Generator, cells: tuple[int, ...], *, size_px: int = TILE_PX) -> Floats32:
    """Smooth tileable noise.

    Args:
        rng: source of randomness.
        cells: cells along an edge, for each octave; octaves lose half their strength each.
        size_px: edge of the picture.

    Returns:
        (size_px, size_px) in [0, 1], mean near one half.
    """
    return streaks(rng, tuple((count, count) for count in cells), size_px=size_px)


def streaks(rng: np.random.Generator, cells: tuple[tuple[int, int], ...], *, size_px: int = TILE_PX) -> Floats32:
    """Smooth tileable noise that is longer one way than the other: hair, brushed cloth, creases.

    Args:
        rng: source of randomness.
        cells: cells down and across, for each octave; octaves lose half their strength each.
        size_px: edge of the picture.

    Returns:
        (size_px, size_px) in [0, 1], mean near one half.
    """
    total = np.zeros((size_px, size_px), dtype=np.float32)
    weight = 0.0
    pad = 3
    for octave, (rows, columns) in enumerate(cells):
        wrapped = np.pad(rng.random((rows, columns), dtype=np.float32), pad, mode="wrap")
        down, across = size_px / rows, size_px / columns
        full = cv2.resize(wrapped, None, fx=across, fy=down, interpolation=cv2.INTER_CUBIC)
        top, left = round(pad * down), round(pad * across)
        total += full[top : top + size_px, left : left + size_px] * 0.5**octave
        weight += 0.5**octave
    return np.asarray(np.clip((total / weight - 0.5) * 1.3 + 0.5, 0.0, 1.0), dtype=np.float32)


def lookup(tile_HWC: Floats32, u_tiles: Reals, v_tiles: Reals, *, texel_tiles: float = 0.0) -> Floats32:
    """Look a repeating tile up bilinearly, made smaller first where its texels are finer than the points.

    Args:
        tile_HWC: (H, W) or (H, W, C).
        u_tiles: (N,) horizontal position in tiles.
        v_tiles: (N,) vertical position in tiles.
        texel_tiles: distance between neighbouring points, in tiles.

    Returns:
        (N,) or (N, C).
    """
    side = tile_HWC.shape[0]
    wanted = 2 ** int(np.ceil(np.log2(max(1.4 / texel_tiles, 8.0)))) if texel_tiles > 0 else side
    picture: Any = tile_HWC
    if wanted < side:
        picture = cv2.resize(picture, (wanted, wanted), interpolation=cv2.INTER_AREA)
        side = wanted
    num = len(u_tiles)
    rows = max(-(-num // _ROW), 1)
    maps = np.zeros((2, rows * _ROW), dtype=np.float32)
    for line, tiles in zip(maps, (u_tiles, v_tiles), strict=True):
        line[:num] = (tiles - np.floor(tiles)) * np.float32(side) - np.float32(0.5)
    across, down = maps.reshape(2, rows, _ROW)
    found = cv2.remap(picture, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(found.reshape(rows * _ROW, *tile_HWC.shape[2:])[:num], dtype=np.float32)


def crease_tiles() -> tuple[Floats32, Floats32]:
    """Light on creased cloth, as factors around 1 over (256, 256) tiles: rings across a limb, and long drapes down it.

    Light falls from smaller v, so that the side of a crease that looks up is bright and the one that looks down dark.
    """
    tiles = []
    u, v = _grid()
    for cells, along, depth in ((((9, 3), (17, 5), (34, 11)), 1.0, 0.5), (((2, 7), (4, 12), (9, 25)), 0.25, 0.55)):
        rng = rng_for("creases", cells[0][0])
        smooth = streaks(rng, cells)
        ridged = 1.0 - np.abs(2.0 * smooth - 1.0) ** 0.8
        bend = 0.06 * (noise(rng, (3, 6)) - 0.5)
        folded = np.asarray(0.65 * ridged + 0.35 * smooth, np.float32)
        height = lookup(folded, (u + (1.6 - along) * bend).ravel(), (v + 1.6 * along * bend).ravel())
        wide = np.tile(height.reshape(TILE_PX, TILE_PX), (3, 3))
        height = np.asarray(cv2.GaussianBlur(wide, (0, 0), 1.6)[TILE_PX:-TILE_PX, TILE_PX:-TILE_PX], np.float32)
        down = np.roll(height, -2, axis=0) - np.roll(height, 2, axis=0)
        across = np.roll(height, -2, axis=1) - np.roll(height, 2, axis=1)
        light = 1.0 + 1.5 * (along * down + (1.3 - along) * across) + depth * (height - height.mean())
        tiles.append(np.asarray(np.clip(light / light.mean(), 0.6, 1.3), dtype=np.float32))
    return tiles[0], tiles[1]


def _grid() -> tuple[Floats32, Floats32]:
    line = (np.arange(TILE_PX, dtype=np.float32) + 0.5) / TILE_PX
    return np.broadcast_to(line, (TILE_PX, TILE_PX)), np.broadcast_to(line[:, None], (TILE_PX, TILE_PX))


def _bands(position: Floats32, count: int, share: float) -> Floats32:
    return np.asarray((position * count % 1.0) < share, dtype=np.float32)


def _stack(first: npt.ArrayLike, second: npt.ArrayLike | None = None) -> Floats32:
    one = np.asarray(first, dtype=np.float32)
    two = np.zeros_like(one) if second is None else np.asarray(second, dtype=np.float32)
    return np.stack([one, two], axis=-1)


def _plain(rng: np.random.Generator) -> Floats32:
    return _stack(0.25 * noise(rng, (3, 7)))


def _stripes(rng: np.random.Generator) -> Floats32:
    _, v = _grid()
    count = int(rng.integers(2, 7))
    return _stack(_bands(v, count, rng.uniform(0.25, 0.55)), _bands(v + 0.7 / count, count, 0.1) * (rng.random() < 0.4))


def _pinstripes(rng: np.random.Generator) -> Floats32:
    u, _ = _grid()
    return _stack(_bands(u, int(rng.integers(4, 10)), 0.12))


def _plaid(rng: np.random.Generator) -> Floats32:
    u, v = _grid()
    count = int(rng.integers(2, 5))
    share = rng.uniform(0.3, 0.5)
    thin = np.maximum(_bands(u + 0.1, count, 0.06), _bands(v + 0.1, count, 0.06))
    return _stack(0.5 * _bands(u, count, share) + 0.5 * _bands(v, count, share), 0.7 * thin)


def _check(rng: np.random.Generator) -> Floats32:
    u, v = _grid()
    count = int(rng.integers(2, 7))
    return _stack(np.abs(_bands(u, count, 0.5) - _bands(v, count, 0.5)))


def _dots(rng: np.random.Generator) -> Floats32:
    u, v = _grid()
    count = int(rng.integers(3, 7))
    row = np.floor(v * count)
    du = (u * count + 0.5 * (row % 2) * (count % 2 == 0)) % 1.0 - 0.5
    dv = (v * count) % 1.0 - 0.5
    return _stack(np.hypot(du, dv) < rng.uniform(0.18, 0.32))


def _camo(rng: np.random.Generator) -> Floats32:
    return _stack(noise(rng, (4, 8)) > 0.53, noise(rng, (5, 11)) > 0.62)


def _denim(rng: np.random.Generator) -> Floats32:
    u, v = _grid()
    twill = 0.5 + 0.5 * np.sin(2 * np.pi * (u + v) * 32)
    return _stack(0.25 * twill + 0.45 * noise(rng, (2, 5)))


def _blotches(rng: np.random.Generator) -> Floats32:
    return _stack(noise(rng, (4, 8, 16, 32)), 0.5 * (noise(rng, (16, 32)) > 0.68))


def _print(rng: np.random.Generator) -> Floats32:
    first, second = np.zeros((2, TILE_PX, TILE_PX), dtype=np.float32)
    for index in range(int(rng.integers(14, 26))):
        layer = first if index % 3 else second
        centre = rng.integers(0, TILE_PX, 2)
        axes = rng.integers(8, 26, 2)
        angle = float(rng.uniform(0, 180))
        for dx in (-TILE_PX, 0, TILE_PX):  # drawn nine times, so that the tile repeats
            for dy in (-TILE_PX, 0, TILE_PX):
                cv2.ellipse(
                    layer,
                    (int(centre[0] + dx), int(centre[1] + dy)),
                    (int(axes[0]), int(axes[1])),
                    angle,
                    0,
                    360,
                    1.0,
                    -1,
                )
    return _stack(first, second)


def _floral(rng: np.random.Generator) -> Floats32:
    petals, hearts = np.zeros((2, TILE_PX, TILE_PX), dtype=np.float32)
    for _ in range(int(rng.integers(7, 13))):
        x, y = rng.integers(0, TILE_PX, 2)
        size, count, turn = int(rng.integers(10, 24)), int(rng.integers(4, 7)), rng.uniform(0, 2 * np.pi)
        for dx in (-TILE_PX, 0, TILE_PX):
            for dy in (-TILE_PX, 0, TILE_PX):
                for angle in turn + 2 * np.pi * np.arange(count) / count:
                    at = (int(x + dx + size * np.cos(angle)), int(y + dy + size * np.sin(angle)))
                    cv2.ellipse(
                        petals, at, (int(size * 0.75), int(size * 0.5)), float(np.rad2deg(angle)), 0, 360, 1.0, -1
                    )
                cv2.circle(hearts, (int(x + dx), int(y + dy)), max(size // 2, 3), 1.0, -1)
    return _stack(petals, hearts)


def _zigzag(rng: np.random.Generator) -> Floats32:
    u, v = _grid()
    count = int(rng.integers(3, 8))
    bent = v + 0.5 / count * np.abs(2 * (u * count % 1.0) - 1)
    return _stack(_bands(np.asarray(bent), count, 0.5), _bands(np.asarray(bent + 0.3 / count), count, 0.15))


def _argyle(rng: np.random.Generator) -> Floats32:
    u, v = _grid()
    count = int(rng.integers(2, 5))
    across, down = np.abs(2 * (u * count % 1.0) - 1), np.abs(2 * (v * count % 1.0) - 1)
    line = np.abs((u + v) * count % 1.0 - 0.5) < 0.035
    return _stack(across + down < 1.0, 0.8 * (line | (np.abs((u - v) * count % 1.0 - 0.5) < 0.035)))


def _knit(rng: np.random.Generator) -> Floats32:
    u, v = _grid()
    count = int(rng.integers(10, 22))
    rows = (v + 0.35 / count * np.abs(2 * (u * count % 1.0) - 1)) * count
    cable = 0.3 * (np.abs(2 * (u * (count // 5) % 1.0) - 1) > 0.6)
    return _stack(0.55 * (rows % 1.0) + cable + 0.2 * noise(rng, (3, 7)))


def _leopard(rng: np.random.Generator) -> Floats32:
    spots = noise(rng, (13, 21))
    return _stack(np.abs(spots - 0.58) < 0.045, 0.7 * (spots > 0.625))


def _fade(rng: np.random.Generator) -> Floats32:
    _, v = _grid()
    return _stack(0.5 - 0.5 * np.cos(2 * np.pi * v) + 0.25 * (noise(rng, (3, 7)) - 0.5), 0.15 * noise(rng, (5, 11)))


def _bricks(rng: np.random.Generator) -> Floats32:
    u, v = _grid()
    rows = int(rng.integers(6, 11))
    row = np.floor(v * rows)
    across = u * rows / 2 + 0.5 * (row % 2) if rows % 2 == 0 else u * (rows // 2)
    joint = ((across % 1.0) < 0.06) | ((v * rows % 1.0) < 0.12)
    shade = rng.random((rows, 64), dtype=np.float32)[
        row.astype(int) % rows, np.floor(across).astype(int) % max(rows // 2, 1)
    ]
    return _stack(0.7 * shade * ~joint, 0.8 * joint)


def _planks(rng: np.random.Generator) -> Floats32:
    u, v = _grid()
    count = int(rng.integers(4, 9))
    plank = np.floor(u * count).astype(int) % count
    shade = rng.random(count, dtype=np.float32)[plank]
    grain_HW = noise(rng, (6, 12, 24))
    grain = cv2.resize(np.tile(grain_HW, (1, 4)), (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
    joint = ((u * count % 1.0) < 0.04) | (np.abs(v - rng.random(count)[plank]) < 0.006)
    return _stack(np.clip(0.55 * shade + 0.45 * grain, 0, 1) * ~joint, 0.8 * joint)


def _tiles(rng: np.random.Generator) -> Floats32:
    u, v = _grid()
    count = int(rng.integers(2, 6))
    shade = rng.random((count, count), dtype=np.float32)
    cell = shade[np.floor(v * count).astype(int), np.floor(u * count).astype(int)]
    joint = ((u * count % 1.0) < 0.05) | ((v * count % 1.0) < 0.05)
    return _stack((0.5 * cell + 0.35 * noise(rng, (8, 16))) * ~joint, 0.8 * joint)


KINDS: dict[str, Callable[[np.random.Generator], Floats32]] = {
    "plain": _plain, "stripes": _stripes, "pinstripes": _pinstripes, "plaid": _plaid, "check": _check, "dots": _dots,
    "camo": _camo, "denim": _denim, "blotches": _blotches, "print": _print, "floral": _floral, "zigzag": _zigzag,
    "argyle": _argyle, "knit": _knit, "leopard": _leopard, "fade": _fade, "bricks": _bricks, "planks": _planks, "tiles": _tiles,
}  # fmt: skip
CLOTH_KINDS = (
    "plain", "stripes", "pinstripes", "plaid", "check", "dots", "camo", "denim", "blotches", "print", "floral", "zigzag", "argyle",
    "knit", "leopard", "fade",
)  # fmt: skip
FLOOR_KINDS = ("planks", "tiles", "blotches", "check", "plain", "bricks")
WALL_KINDS = ("plain", "bricks", "stripes", "pinstripes", "blotches", "planks", "tiles", "dots")
