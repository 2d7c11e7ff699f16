"""Paints a look on the texture of a body, layer by layer, from the outermost inwards.

Shape letters: N texels, K texels of one region, S texture side.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from synthetic.looks.canvas import TEXTURE_PX, Canvas, Points
from synthetic.looks.garments import (
    bottom_inside,
    creases,
    mask_inside,
    opening_inside,
    paint_bottom,
    paint_inner,
    paint_mask,
    paint_scarf,
    paint_shoes,
    paint_skirt,
    paint_top,
    scarf_inside,
    shoe_inside,
    sock_inside,
    top_inside,
)
from synthetic.looks.look import Look
from synthetic.looks.skins import edge, flat, hair_cover, hair_inside, paint_eyes, paint_hair, paint_skin
from synthetic.patterns import Floats32

Ints = npt.NDArray[np.int64]

PARTS = ("background", "skin", "hair", "top", "bottom", "shoes", "eyes", "accessory")
SKIN, HAIR, TOP, BOTTOM, SHOES, EYES, ACCESSORY = range(1, len(PARTS))


class Painter:
    """A texture in the making: each texel is painted about once, by the outermost layers that cover it.

    Args:
        canvas: the texels.
        regions: by name, the indices of some texels, and their points.
    """

    def __init__(self, canvas: Canvas, regions: Mapping[str, tuple[Ints, Points]]) -> None:
        num = len(canvas.points)
        self._canvas = canvas
        self._regions = regions
        self._colour, self._part = np.zeros((3, num), np.float32), np.zeros(num, np.uint8)
        self._bare, self._light = np.ones(num, np.float32), np.ones(num, np.float32)

    def points(self, region: str) -> Points:
        """The points of a region."""
        return self._regions[region][1]

    def lay(
        self,
        part: int,
        region: str,
        inside_K: Floats32,
        paint: Callable[[Points], Floats32],
        *,
        shade: float = 0.3,
        cover_K: Floats32 | None = None,
    ) -> None:
        """Lay cloth or hair below all that was laid before.

        Args:
            part: its id.
            region: where it may lie.
            inside_K: metres inside of it, for each texel of the region.
            paint: gives the colours (3, n) of n points.
            shade: how much it darkens what lies just beside it.
            cover_K: how far it covers a texel, in [0, 1]; as `inside_K` tells, if not given.
        """
        where, points = self._regions[region]
        share = edge(inside_K) if cover_K is None else cover_K
        seen = share * self._bare[where]
        at = np.flatnonzero(seen > 1 / 255)
        chosen = where[at]
        self._add(chosen, paint(points.take(at)), seen[at] * self._light[chosen])
        top = chosen[(share[at] > 0.5) & (self._part[chosen] == 0)]
        self._part[top] = part
        self._bare[chosen] -= seen[at]
        beside = np.flatnonzero((inside_K < 0.004) & (inside_K > -0.04))
        self._light[where[beside]] *= 1.0 - np.float32(shade) * np.exp(
            np.minimum(inside_K[beside], 0.0) * np.float32(1 / 0.012)
        )

    def lay_rest(self, region: str, paint: Callable[[Points], Floats32]) -> None:
        """Paint what no layer covers whole; it gets no part id."""
        where, points = self._regions[region]
        at = np.flatnonzero(self._bare[where] > 1 / 255)
        rest = where[at]
        self._add(rest, paint(points.take(at)), self._bare[rest] * self._light[rest])

    def fill(self, part: int, region: str, paint: Callable[[Points], Floats32]) -> None:
        """Paint a region that has no layers."""
        where, points = self._regions[region]
        self._colour[:, where], self._part[where] = paint(points), part

    def _add(self, where: Ints, colour: Floats32, weight: Floats32) -> None:
        for row, painted in zip(self._colour, colour, strict=True):
            row[where] += painted * weight

    def texture(self) -> npt.NDArray[np.uint8]:
        """RGB and part id, (S, S, 4) uint8; skin is what has no other id."""
        texels = np.empty((len(self._part), 4), dtype=np.uint8)
        colour = self._colour * np.float32(255.0)
        colour += np.float32(0.5)
        texels[:, :3] = np.clip(colour, 0.0, 255.0, out=colour).T
        texels[:, 3] = np.where(self._part == 0, SKIN, self._part)
        empty = np.array((128, 128, 128, SKIN), dtype=np.uint8)
        texture = np.full(TEXTURE_PX * TEXTURE_PX, empty.view(np.uint32)[0])  # moved as whole texels
        texture[self._canvas.texels] = texels.view(np.uint32)[:, 0]
        texture[self._canvas.gutter[0]] = texture[self._canvas.gutter[1]]
        return texture.view(np.uint8).reshape(TEXTURE_PX, TEXTURE_PX, 4)


def paint_look(painter: Painter, look: Look) -> npt.NDArray[np.uint8]:
    """Paint a look, (S, S, 4) uint8: clothes and hair over skin, and what has no layers."""
    _lay_hair(painter, look)
    if look.tucked:
        _lay_bottom(painter, look)
    _lay_top(painter, look)
    if not look.tucked:
        _lay_bottom(painter, look)
    _lay_small_things(painter, look)
    painter.lay_rest("skin", lambda p: paint_skin(p, look))
    for eye in ("left", "right"):
        painter.fill(EYES, eye, lambda p: paint_eyes(p, look))
    if look.skirt != "none":
        part = BOTTOM if look.skirt == "skirt" else TOP
        painter.fill(part, "skirt", lambda p: paint_skirt(p, look) * creases(p, look, strength=1.2, salt=0.5))
    if look.hair in ("long", "bob", "tail"):
        painter.fill(HAIR, "locks", lambda p: paint_hair(p, look))
    return painter.texture()


def _lay_hair(painter: Painter, look: Look) -> None:
    """Hair or hat, and what is worn over mouth and neck."""
    head = painter.points("head")
    shade = 0.15 if look.hair in ("shaved", "bald") else 0.3
    inside, cover = hair_inside(head, look), hair_cover(head, look)
    painter.lay(HAIR, "head", inside, lambda p: paint_hair(p, look), shade=shade, cover_K=cover)
    if look.hair in ("cap", "beanie") and look.seed % 4:  # hair is seen below it
        cropped = replace(look, hair="short" if look.seed % 2 else "shaved")
        inside, cover = hair_inside(head, cropped), hair_cover(head, cropped)
        painter.lay(HAIR, "head", inside, lambda p: paint_hair(p, cropped), shade=0.0, cover_K=cover)
    if "mask" in look.extras:
        painter.lay(ACCESSORY, "head", mask_inside(head), lambda p: paint_mask(p, look))
    if "scarf" in look.extras:
        painter.lay(ACCESSORY, "neck", scarf_inside(painter.points("neck")), lambda p: paint_scarf(p, look), shade=0.5)


def _lay_bottom(painter: Painter, look: Look) -> None:
    strength = 0.55 + 12.0 * look.bottom.loose_m

    def paint(points: Points) -> Floats32:
        return paint_bottom(points, look) * creases(points, look, strength=strength, salt=0.3)

    painter.lay(BOTTOM, "lower", bottom_inside(painter.points("lower"), look), paint)


def _lay_top(painter: Painter, look: Look) -> None:
    """The top, and first of all what an open front shows beneath it."""
    upper = painter.points("upper")
    inside = top_inside(upper, look)
    strength = 0.6 + 10.0 * look.top.loose_m

    def paint_beneath(points: Points) -> Floats32:
        return paint_inner(points, look) * creases(points, look, strength=0.6, salt=0.7)

    def paint(points: Points) -> Floats32:
        return paint_top(points, look) * creases(points, look, strength=strength, salt=0.0)

    if look.open > 0:
        painter.lay(TOP, "upper", np.minimum(inside, opening_inside(upper, look)), paint_beneath, shade=0.0)
    painter.lay(TOP, "upper", inside, paint)


def _lay_small_things(painter: Painter, look: Look) -> None:
    """Watch, shoes and socks."""
    upper, feet = painter.points("upper"), painter.points("feet")
    if "watch" in look.extras:
        side = upper.x - np.float32(upper.marks.wrist_x - 0.012)
        colour = np.full(3, 0.08 + 0.3 * (look.seed % 2))
        painter.lay(ACCESSORY, "upper", np.float32(0.011) - np.abs(side), lambda p: flat(colour, len(p)))
    painter.lay(SHOES, "feet", shoe_inside(feet, look), lambda p: paint_shoes(p, look))
    socks = np.array(look.socks, np.float32)[:, None]
    ribbed = np.float32(900)
    painter.lay(SHOES, "feet", sock_inside(feet, look), lambda p: socks * (0.9 + 0.1 * np.cos(p.around * ribbed)))


__all__ = ["PARTS", "Painter", "paint_look"]
