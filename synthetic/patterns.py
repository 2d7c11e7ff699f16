"""Procedural patterns for cloth, floors and walls: a small tileable picture from a few numbers.

Shape letters: H W picture, C channels (RGB).
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from manifests.seeds import rng_for

Floats32 = npt.NDArray[np.float32]
Colour = tuple[float, float, float]

TILE_PX = 256


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
    weights_HW2 = KINDS[pattern.kind](rng)
    ground, figure, accent = (np.array(colour, dtype=np.float32) for colour in pattern.colours)
    first, second = weights_HW2[..., :1], weights_HW2[..., 1:2]
    out = ground * (1 - first) + figure * first
    out = out * (1 - second) + accent * second
    grain = 1.0 + 0.07 * (noise(rng, (64, 128)) - 0.5)[..., None] + 0.08 * (noise(rng, (4, 9)) - 0.5)[..., None]
    return np.asarray(np.clip(out * grain, 0.0, 1.0), dtype=np.float32)


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
    total = np.zeros((size_px, size_px), dtype=np.float32)
    weight = 0.0
    for octave, count in enumerate(cells):
        grid = rng.random((count, count), dtype=np.float32)
        pad = 3
        wrapped = np.pad(grid, pad, mode="wrap")
        scale = size_px / count
        full = cv2.resize(wrapped, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        start = round(pad * scale)
        total += full[start : start + size_px, start : start + size_px] * 0.5**octave
        weight += 0.5**octave
    return np.asarray(np.clip((total / weight - 0.5) * 1.3 + 0.5, 0.0, 1.0), dtype=np.float32)


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
    "camo": _camo, "denim": _denim, "blotches": _blotches, "print": _print, "bricks": _bricks, "planks": _planks, "tiles": _tiles,
}  # fmt: skip
CLOTH_KINDS = ("plain", "stripes", "pinstripes", "plaid", "check", "dots", "camo", "denim", "blotches", "print")
FLOOR_KINDS = ("planks", "tiles", "blotches", "check", "plain", "bricks")
WALL_KINDS = ("plain", "bricks", "stripes", "pinstripes", "blotches", "planks", "tiles", "dots")
