"""Clothes: where each covers the T-pose, and what it looks like there.

`*_inside` answer in metres, positive inside the garment; `paint_*` answer with colours (3, N). Both work on vertices and texels.

Shape letters: N points.
"""

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from manifests.seeds import rng_for
from synthetic.looks.canvas import SKIN_GROUP, TEXEL_M, Points
from synthetic.looks.look import Look
from synthetic.looks.skins import darken, edge, flat, mix, near, ramp
from synthetic.patterns import Colour, Floats32, Pattern, Reals, crease_tiles, lookup, tile

COLLARED = ("shirt", "polo", "blazer")
_LINE_M = 0.0028  # half the width of a seam
_SHOE_HEIGHT = {"sneaker": 0.15, "runner": 0.0, "oxford": 0.0, "boot": 0.85}
_SHOE_TOE_Z = {"sneaker": 0.198, "runner": 0.2, "oxford": 0.21, "boot": 0.203}
_SHELL_FROM_Z, _CAP_FROM_Z = 0.0, 0.105


# -------------------------------------------------------------------------------------------------------------- outlines


def top_edges(points: Points, look: Look) -> tuple[Reals, Reals, Reals]:
    """Metres inside of a top's neckline, sleeve end and hem."""
    marks, y, z, side = points.marks, points.y, points.z, points.side
    rise = {"crew": -0.012, "v": -0.004, "high": 0.035}[look.neck]
    if look.top_style in COLLARED:
        rise = 0.018
    elif look.top_style in ("hoodie", "jacket"):
        rise = 0.012
    elif look.top_style == "tank":
        rise = -0.03
    neckline = np.float32(marks.neck_y + rise) - 0.35 * np.maximum(z, np.float32(-0.03)) - y
    deep = {"v": (0.09, 1.6), "tank": (0.035, 0.9), "open": (0.05, 1.6)}
    cut = deep.get(look.top_style) or deep.get(
        "open" if look.top_style in COLLARED else look.neck if look.top_style in ("tee", "sweater") else ""
    )
    if cut is not None:
        neckline = neckline - np.where(z > 0, np.maximum(np.float32(0.0), cut[0] - cut[1] * side), 0.0).astype(
            np.float32
        )
    sleeve = np.float32(marks.shoulder_x + 0.01 + look.top.end * (marks.wrist_x - marks.shoulder_x - 0.01)) - side
    if look.top_style == "tank":
        sleeve = sleeve - np.float32(0.012) - 0.3 * np.clip(y - np.float32(marks.neck_y - 0.13), 0.0, 0.12)
    hem = y - np.float32(marks.waist_y - 0.06 - 0.14 * look.hem)
    if look.tucked:
        hem = y - np.float32(marks.waist_y - 0.03)
    return neckline, sleeve, hem


def top_inside(points: Points, look: Look) -> Floats32:
    """Metres inside the upper garment."""
    neckline, sleeve, hem = top_edges(points, look)
    return np.asarray(np.minimum(np.minimum(neckline, sleeve), hem), np.float32)


def opening_inside(points: Points, look: Look) -> Floats32:
    """Metres inside of what an open front shows of the cloth beneath."""
    if look.open <= 0:
        return np.full(len(points), -1.0, np.float32)
    down = np.float32(points.marks.neck_y) - points.y
    if look.top_style == "blazer":
        width = 0.075 - 0.26 * down + 0.16 * np.clip(down - 0.33, 0.0, 1.0) * 4.0
    else:
        width = 0.02 + 0.075 * look.open + 0.06 * look.open * down
    return np.asarray(np.where(points.z > -0.02, width - points.side, np.float32(-1.0)), np.float32)


def bottom_inside(points: Points, look: Look) -> Floats32:
    """Metres inside of trousers or shorts."""
    marks = points.marks
    end_y = marks.hip_y + look.bottom.end * (marks.ankle_y - 0.01 - marks.hip_y)
    return np.asarray(np.minimum(np.float32(marks.waist_y + 0.03) - points.y, points.y - np.float32(end_y)))


def shoe_inside(points: Points, look: Look) -> Floats32:
    """Metres inside a shoe."""
    top_y = points.marks.ankle_y - 0.005 + 0.11 * _SHOE_HEIGHT[look.shoe_style]
    return np.asarray(np.float32(top_y) - points.y + 0.15 * np.minimum(points.z + np.float32(0.03), 0.0), np.float32)


def sock_inside(points: Points, look: Look) -> Floats32:
    """Metres inside a sock, which reaches higher than the shoe."""
    return shoe_inside(points, look) + np.float32(0.025 + 0.15 * look.sock_height)


def scarf_inside(points: Points) -> Floats32:
    """Metres inside a scarf around the neck."""
    middle = np.float32(points.marks.neck_y - 0.005) - 0.45 * np.maximum(points.z, np.float32(-0.05))
    return np.asarray(
        np.float32(0.047) - np.abs(points.y - middle) - 0.6 * np.maximum(points.side - np.float32(0.1), 0.0), np.float32
    )


def mask_inside(points: Points) -> Floats32:
    """Metres inside a mask over mouth and nose."""
    y = points.y - np.float32(points.marks.eye[1])
    height = np.minimum(np.float32(-0.022) - y - 0.25 * points.side, y + np.float32(0.118) - 0.3 * points.side)
    return np.asarray(
        np.minimum(np.minimum(height, points.z - np.float32(0.052)), np.float32(0.075) - points.side), np.float32
    )


def shoe_shell(points: Points, look: Look) -> tuple[Reals, Reals, Reals, Reals]:
    """Move points of the foot onto the outside of a shoe.

    Returns:
        side, y and z (N,) on the shell, and (N,) how far a point is in the front part, which has a shell, 0 to 1.
    """
    side, z = points.side, points.z
    centre = np.interp(z, (-0.1, 0.0, 0.08, 0.15, 0.2), (0.168, 0.17, 0.17, 0.164, 0.158)).astype(np.float32)
    half = np.interp(z, (0.0, 0.05, 0.1, 0.2), (0.043, 0.049, 0.055, 0.055)).astype(np.float32)
    top = np.interp(
        z, (0.0, 0.03, 0.05, 0.07, 0.09, _CAP_FROM_Z, 0.2), (0.12, 0.1, 0.084, 0.072, 0.063, 0.058, 0.058)
    ).astype(np.float32)
    over = points.y - np.float32(points.marks.sole_y)
    middle = 0.36 * top
    dx, dy = (side - centre) / half, over - middle
    dy = dy / np.where(dy > 0, top - middle, middle)
    dz = np.maximum(z - np.float32(_CAP_FROM_Z), 0.0) / np.float32(_SHOE_TOE_Z[look.shoe_style] - _CAP_FROM_Z)
    # A box with round edges below, rounder above; the toe is closed like half an egg.
    power = np.where(dy > 0, np.float32(2.4), np.float32(5.0))
    length = np.power(np.abs(dx) ** power + np.abs(dy) ** power + dz**power, 1.0 / power) + np.float32(1e-4)
    front = ramp(z - np.float32(_SHELL_FROM_Z), 0.045) * ramp(np.float32(0.125) - over, 0.03)
    shell_side = centre + half * dx / length
    shell_over = middle + np.where(dy > 0, top - middle, middle) * dy / length
    shell_z = np.where(z > _CAP_FROM_Z, np.float32(_CAP_FROM_Z) + (z - np.float32(_CAP_FROM_Z)) / length, z)
    return (
        side + front * (shell_side - side),
        points.y + front * (shell_over - over),
        z + front * (shell_z - z),
        front,
    )


# ----------------------------------------------------------------------------------------------------------------- cloth


def creases(points: Points, look: Look, *, strength: float, salt: float) -> Floats32:
    """Light and shade of creased cloth, factors around 1: rings where limbs bend, drapes elsewhere."""
    rings, drapes = _creases()
    shift = np.float32(look.seed % 1021 / 1021.0 + salt)
    other = np.where(points.x < 0, np.float32(0.37), np.float32(0.0)) * (points.on_arm | points.on_leg)
    u = points.turn * np.where(points.on_arm | points.on_leg, np.float32(1), np.float32(2)) + shift + other
    down = np.where(points.on_arm, points.along, -points.along)
    bends = points.bends * (points.group == SKIN_GROUP)
    ring = lookup(rings, u, down / np.float32(0.36) + shift + other, texel_tiles=points.texel_m / 0.36)
    drape = lookup(drapes, u, down / np.float32(0.8) + shift + other, texel_tiles=points.texel_m / 0.8)
    share = np.float32(0.16) + np.float32(0.84) * bends
    light = 1.0 + np.float32(strength) * (share * (ring - 1.0) + (1.0 - 0.6 * bends) * (drape - 1.0))
    return np.asarray(light * np.exp(points.hollow * np.float32(-22.0)), np.float32)


@cache
def _creases() -> tuple[Floats32, Floats32]:
    return crease_tiles()


def cloth(points: Points, pattern: Pattern) -> Floats32:
    """A pattern laid along and around trunk and limbs."""
    size = np.float32(1.0 / pattern.tile_m)
    found = lookup(
        tile(pattern), points.around * size, -points.along * size, texel_tiles=points.texel_m / pattern.tile_m
    )
    return np.ascontiguousarray(found.T)


def _seam(
    colour: Floats32,
    distance_m: Reals,
    where: npt.ArrayLike = 1.0,
    *,
    depth: float = 0.3,
    half_m: float = _LINE_M,
) -> Floats32:
    """Darken along a line, and lighten beside it, in place."""
    at = np.flatnonzero(np.abs(distance_m) < 6.0 * half_m)
    far = np.square(distance_m[at].astype(np.float32))
    line = near(far, half_m) * np.float32(depth) - near(far, 2.6 * half_m) * np.float32(0.18 * depth)
    here = np.asarray(where)
    light = (np.float32(1.0) - line * (here[at] if here.ndim else here)).astype(np.float32)
    for row in colour:
        row[at] = row.take(at) * light
    return colour


def _box(u: Reals, v: Reals, half_u: float, half_v: float) -> Floats32:
    return np.minimum(np.float32(half_u) - np.abs(u), np.float32(half_v) - np.abs(v))


def paint_top(points: Points, look: Look) -> Floats32:
    """The upper garment without what is worn beneath."""
    marks, style, accent = points.marks, look.top_style, np.array(look.accent, np.float32)
    x, y, z, side = points.x, points.y, points.z, points.side
    front, back = ramp(z + np.float32(0.0), 0.02), ramp(-z - np.float32(0.02), 0.02)
    neckline, sleeve, hem = top_edges(points, look)
    colour = cloth(points, look.top.pattern)
    if "sleeves" in look.extras and style in ("tee", "sweater", "hoodie", "jacket"):
        colour = mix(
            colour,
            accent,
            edge(side - np.float32(marks.shoulder_x - 0.02) - 0.35 * np.maximum(np.float32(marks.shoulder_y) - y, 0)),
        )
    if look.print != "none" and style in ("tee", "sweater", "hoodie", "tank"):
        colour = _printed(colour, points, look, front, back)
    colour = _seam(colour, side - np.float32(marks.shoulder_x - 0.012), depth=0.28)
    down = np.float32(marks.neck_y) - y
    if style in ("tee", "sweater", "tank", "polo"):
        band = edge(np.float32(0.018) - neckline)
        share = 0.9 if look.seed % 3 == 0 else 0.0
        colour = mix(colour, accent, share * band)
        colour = _seam(colour, neckline - np.float32(0.018))
        if style == "tee" or (style == "polo"):
            colour = mix(colour, accent, share * edge(np.float32(0.016) - sleeve) * (look.seed % 2))
    if style in ("sweater", "hoodie", "jacket"):
        ribs = 0.9 + 0.1 * np.cos(points.around * np.float32(2 * np.pi / 0.008))
        cuff = np.maximum(edge(np.float32(0.05) - sleeve), edge(np.float32(0.05) - hem))
        colour = darken(colour, cuff * (1.0 - ribs))
        colour = _seam(colour, np.minimum(sleeve, hem) - np.float32(0.05))
        colour = mix(colour, accent, (0.85 if look.seed % 5 == 0 else 0.0) * cuff)
    else:
        colour = _seam(colour, np.minimum(sleeve, hem) - np.float32(0.016))
    if style in COLLARED:
        colour = _collar(colour, points, look, neckline, front)
    if style in ("shirt", "polo"):
        placket = edge(np.float32(0.014) - side) * front * (edge(np.float32(0.19) - down) if style == "polo" else 1.0)
        colour = _seam(colour, side - np.float32(0.014), front * (down < (0.19 if style == "polo" else 9.0)))
        spots = near(np.square(x) + np.square((y % np.float32(0.075)) - np.float32(0.03)), 0.0055) * placket
        colour = mix(colour, accent * 0.8 if look.seed % 2 else (0.92, 0.92, 0.9), 0.85 * spots)
        pocket = np.abs(_box(x - np.float32(0.078), y - np.float32(marks.neck_y - 0.215), 0.045, 0.05))
        colour = _seam(colour, pocket, front * (look.seed % 4 < 2))
    if style == "hoodie":
        string = near(np.square(side - np.float32(0.03) - 0.04 * down), 0.0032) * (down > 0.04) * (down < 0.2) * front
        colour = mix(colour, accent, 0.9 * string)
        pouch = _box(x, y - np.float32(marks.waist_y + 0.03), 0.125, 0.07) - 0.5 * np.maximum(
            side - np.float32(0.085), 0.0
        )
        colour = _seam(colour, pouch, front, depth=0.4)
        hood = near(np.square(side / np.float32(1.3)) + np.square(y - np.float32(marks.neck_y - 0.045)), 0.1) * back
        rim = np.square(np.hypot(side / np.float32(1.25), y - np.float32(marks.neck_y + 0.0)) - np.float32(0.11))
        colour = darken(colour, 0.35 * near(rim, 0.012) * back - 0.04 * hood)
    if style == "jacket" or (style == "hoodie" and look.open > 0):
        if look.open <= 0:
            teeth = np.float32(0.6) + np.float32(0.4) * ((y * np.float32(160.0)) % 1.0 > 0.5)
            colour = mix(colour, (0.55, 0.55, 0.53), 0.8 * edge(np.float32(0.004) - side) * front * teeth)
            colour = _seam(colour, side - np.float32(0.012), front)
        else:
            colour = _seam(colour, -opening_inside(points, look) - np.float32(0.014), front, depth=0.35)
        slit = np.abs(
            _box(
                side - np.float32(0.115) + 0.3 * (y - np.float32(marks.waist_y + 0.03)),
                y - np.float32(marks.waist_y + 0.03),
                0.003,
                0.065,
            )
        )
        colour = _seam(colour, slit, front, depth=0.5)
        if look.seed % 3 == 0:
            colour = _seam(
                colour, (y - np.float32(marks.neck_y)) % np.float32(0.075) - np.float32(0.037), depth=0.42, half_m=0.006
            )  # quilted
    if style == "blazer":
        flap = _box(side - np.float32(0.115), y - np.float32(marks.waist_y - 0.03), 0.06, 0.022)
        colour = _seam(colour, flap, front, depth=0.4)
        colour = _seam(colour, side, back * (y < marks.waist_y), depth=0.5)
        button = near(
            np.square(x - np.float32(0.012))
            + np.square((y - np.float32(marks.waist_y + 0.045)) % np.float32(0.1) - np.float32(0.05)),
            0.008,
        )
        colour = darken(colour, 0.6 * button * front * (y < marks.waist_y + 0.11))
    return colour


def paint_inner(points: Points, look: Look) -> Floats32:
    """What an open front shows; under a blazer a shirt, often with a tie."""
    colour = cloth(points, look.inner)
    down = np.float32(points.marks.neck_y) - points.y
    if look.top_style == "blazer":
        colour = _seam(colour, points.side - np.float32(0.014))
        if look.seed % 3:
            tie = 0.011 + 0.07 * np.clip(down - 0.02, 0.0, 0.35)
            stripes = ((points.x + points.y) * np.float32(40.0) % 1.0 < 0.3) * np.float32(0.25 * (look.seed % 2))
            tied = mix(flat(look.accent, len(points)), (0.9, 0.9, 0.9), stripes)
            inside = np.asarray(tie, np.float32) - points.side
            colour = _seam(mix(colour, tied, edge(inside)), inside, depth=0.3)
    return darken(colour, 0.3 * near(np.square(opening_inside(points, look)), 0.02))


def _collar(colour: Reals, points: Points, look: Look, neckline: Reals, front: Reals) -> Floats32:
    side = points.side
    if look.top_style == "blazer":
        lapel = np.float32(0.055) + opening_inside(points, look)  # beside the opening
        notch = np.square(points.y - np.float32(points.marks.neck_y - 0.11) - 0.4 * (side - np.float32(0.09)))
        colour = _seam(colour, lapel, front * (points.y > points.marks.waist_y + 0.1), depth=0.5)
        colour = darken(colour, -0.1 * (lapel > 0) * front * (points.y > points.marks.waist_y + 0.1))
        return _seam(colour, np.sqrt(notch), front * (lapel > 0) * (side > 0.06), depth=0.4)
    reach = np.float32(0.034) + 0.026 * near(np.square(side - np.float32(0.045)), 0.022) * front
    collar = reach - neckline
    share = (0.9 if look.seed % 3 == 0 else 0.0) if look.top_style == "polo" else (0.95 if look.seed % 7 == 0 else 0.0)
    colour = mix(colour, look.accent, share * edge(collar))
    colour = darken(colour, -0.06 * (collar > 0))
    return _seam(colour, collar, depth=0.55, half_m=0.0035)


def paint_bottom(points: Points, look: Look) -> Floats32:
    """Trousers or shorts."""
    marks, style = points.marks, look.bottom_style
    x, y, z, side = points.x, points.y, points.z, points.side
    front, back = ramp(z, 0.02), ramp(-z - np.float32(0.01), 0.02)
    colour = cloth(points, look.bottom.pattern)
    inside = bottom_inside(points, look)
    leg = y < marks.hip_y - 0.05
    outer = np.abs(np.abs(points.turn) - np.float32(0.25))
    stitch = mix if style == "jeans" and look.seed % 2 else None
    if style == "jeans":
        worn = near(
            np.square(side - np.float32(marks.thigh_x))
            + np.square((y - np.float32(marks.hip_y - 0.2)) / np.float32(3.0)),
            0.06,
        )
        worn += (
            0.7
            * near(np.square(y - np.float32(marks.knee_y)), 0.06)
            * near(np.square(side - np.float32(marks.thigh_x + 0.01)), 0.06)
        )
        colour = mix(
            colour,
            np.minimum(np.array(look.bottom.pattern.colours[0], np.float32) * 1.7, 0.85),
            0.4 * worn * front * (look.seed % 4 > 0),
        )
    colour = _seam(colour, outer * np.float32(0.5), leg, depth=0.35)
    if "stripe" in look.extras:
        band = edge(np.float32(0.016) - outer * np.float32(0.5)) * (y < marks.hip_y + 0.08) * ((points.turn > 0) | ~leg)
        colour = mix(colour, look.accent, 0.95 * band)
    fly = front * (y > marks.hip_y - 0.06)
    colour = _seam(colour, x, fly)
    colour = _seam(
        colour,
        np.float32(0.035) - np.hypot(np.minimum(x - 0.0, 0.03), np.maximum(np.float32(marks.hip_y - 0.0) - y, 0.0)),
        fly * (x > 0),
        depth=0.2,
    )
    slant = y - np.float32(marks.hip_y + 0.055) + 0.9 * (side - np.float32(0.13))
    colour = _seam(colour, np.asarray(slant, np.float32), front * (side > 0.075) * (y > marks.hip_y - 0.03), depth=0.45)
    patch = np.asarray(
        _box(side - np.float32(0.075), y - np.float32(marks.hip_y + 0.0), 0.055, 0.062) - 0.0, np.float32
    )
    colour = _seam(colour, patch, back, depth=0.42)
    if stitch is not None:
        colour = mix(colour, (0.72, 0.48, 0.22), 0.6 * near(np.square(patch - np.float32(0.005)), 0.0016) * back)
        colour = mix(
            colour,
            (0.72, 0.48, 0.22),
            0.6
            * near(np.square(slant + np.float32(0.006)), 0.0018)
            * front
            * (side > 0.075)
            * (y > marks.hip_y - 0.03),
        )
    if style == "cargo":
        outside = np.abs(points.turn) * np.float32(0.534) - np.float32(0.1335)
        box = _box(np.asarray(outside, np.float32), y - np.float32(marks.hip_y - 0.27), 0.06, 0.075)
        colour = _seam(
            darken(colour, 0.08 * (box > 0) * leg * (points.turn > 0)),
            box,
            leg * (points.turn > 0),
            depth=0.5,
        )
        colour = _seam(colour, y - np.float32(marks.hip_y - 0.235), leg * (box > 0) * (points.turn > 0), depth=0.5)
    if style == "sweatpants":
        ribs = 0.9 + 0.1 * np.cos(points.around * np.float32(2 * np.pi / 0.008))
        colour = darken(colour, edge(np.float32(0.05) - inside) * (1.0 - ribs))
        colour = _seam(colour, inside - np.float32(0.05))
        string = near(np.square(side - np.float32(0.012)), 0.003) * front * (y > marks.waist_y - 0.08)
        colour = mix(colour, (0.9, 0.9, 0.88), 0.8 * string)
    else:
        colour = _seam(colour, inside - np.float32(0.018))
        colour = _seam(colour, y - np.float32(marks.waist_y - 0.008))
    if "belt" in look.extras and style != "sweatpants":
        belt = edge(np.float32(0.018) - np.abs(y - np.float32(marks.waist_y + 0.01)))
        colour = mix(colour, (0.13, 0.09, 0.07) if look.seed % 2 else (0.05, 0.05, 0.05), belt)
        buckle = edge(_box(x, y - np.float32(marks.waist_y + 0.01), 0.024, 0.019)) * front
        colour = mix(
            colour, (0.72, 0.7, 0.64), buckle * edge(-_box(x, y - np.float32(marks.waist_y + 0.01), 0.016, 0.011))
        )
    return colour


def paint_skirt(points: Points, look: Look) -> Floats32:
    """The skirt of a skirt, dress or coat."""
    pattern = look.bottom.pattern if look.skirt == "skirt" else look.top.pattern
    colour = cloth(points, pattern)
    if look.seed % 3 == 0 and look.skirt != "coat":  # pleats
        pleat = np.asarray(points.turn * np.float32(40) % 1.0, np.float32)
        colour *= 0.74 + 0.34 * pleat
    if look.skirt == "coat":
        front = ramp(points.z, 0.02)
        colour = _seam(colour, points.x, front, depth=0.6)
        colour = _seam(colour, points.x - np.float32(0.03), front)
    return colour


def paint_shoes(points: Points, look: Look) -> Floats32:
    """Shoes, by place on their outside."""
    style, (upper, sole) = look.shoe_style, (np.array(c, np.float32) for c in look.shoes)
    side, y, z, front = shoe_shell(points, look)
    over = y - np.float32(points.marks.sole_y)
    from_middle = side - np.float32(0.167)
    colour = flat(upper, len(points))
    sole_top = {"sneaker": 0.024, "runner": 0.026 + 0.0, "oxford": 0.013, "boot": 0.024}[style]
    edge_y = np.full_like(over, sole_top)
    if style == "runner":
        edge_y += np.where(z < 0.0, 0.1 * np.minimum(np.float32(0.0) - z, 0.08), 0.0) + 0.003 * np.sin(z * 60)
    throat = np.float32(0.024) - np.abs(from_middle)
    laced = (z > 0.015) & (z < 0.1) & (over > 0.05)
    tongue = edge(throat) * laced
    if style in ("sneaker", "runner", "boot"):
        colour = mix(colour, upper * 0.72 + 0.04, tongue)
        lace = (
            near(np.square((z + 0.25 * np.abs(from_middle)) % np.float32(0.017) - np.float32(0.008)), 0.0032) * tongue
        )
        colour = mix(colour, (0.92, 0.92, 0.9) if style != "boot" else (0.25, 0.2, 0.12), 0.95 * lace)
        colour = _seam(colour, throat, laced, depth=0.4)
    else:
        colour = _seam(colour, z - np.float32(0.115), over > 0.02, depth=0.5)
        lace = (
            near(np.square(z % np.float32(0.014) - np.float32(0.007)), 0.0028)
            * edge(throat - np.float32(0.01))
            * laced
            * (z > 0.045)
        )
        colour = darken(colour, 0.55 * lace)
    if style == "sneaker":
        toe = ramp(z - np.float32(0.125) - 0.1 * np.abs(from_middle), 0.004)
        colour = mix(colour, sole if look.seed % 2 else upper * 0.8, toe * front)
        colour = _seam(colour, z - np.float32(0.127) - 0.1 * np.abs(from_middle), depth=0.4)
    if style in ("sneaker", "runner") and look.seed % 3:
        swoosh = np.abs(over - np.float32(0.05) - 0.35 * (z - np.float32(0.02)) + 3.5 * np.square(z - np.float32(0.03)))
        mark = edge(np.float32(0.007) - swoosh) * ramp(np.float32(0.062) - np.abs(z - np.float32(0.02)), 0.01)
        colour = mix(colour, look.accent if look.seed % 5 else sole, mark * (np.abs(from_middle) > 0.025))
    colour = _seam(colour, z + np.float32(0.055), (over > sole_top) * (z < 0), depth=0.35)
    shine = 1.0 + (0.35 if style in ("oxford", "boot") else 0.1) * near(
        np.square(over - np.float32(0.045)) + 0.3 * np.square(z - np.float32(0.15)), 0.03
    )
    colour = darken(colour, 1.0 - shine)
    colour = mix(colour, sole * (0.85 if look.seed % 2 else 1.0), edge(edge_y - over))
    return _seam(colour, edge_y - over, depth=0.45)


def paint_scarf(points: Points, look: Look) -> Floats32:
    """A scarf, its folds around the neck."""
    fold = 0.85 + 0.25 * np.sin(
        (points.y + 0.45 * points.z + 0.02 * np.sin(9 * points.x)) * np.float32(2 * np.pi / 0.032)
    )
    return np.asarray(flat(look.hat_colour, len(points)) * fold, np.float32)


def paint_mask(points: Points, look: Look) -> Floats32:
    """A mask with three pleats."""
    base: Colour = ((0.62, 0.78, 0.86), (0.93, 0.93, 0.92), (0.1, 0.1, 0.11))[look.seed % 3]
    colour = flat(base, len(points))
    y = points.y - np.float32(points.marks.eye[1] - 0.04)
    return _seam(
        _seam(colour, y % np.float32(0.02) - np.float32(0.01), depth=0.25), mask_inside(points) - np.float32(0.006)
    )


# ---------------------------------------------------------------------------------------------------------------- prints

_SYLLABLES = ("ba", "ko", "ri", "lu", "ne", "ta", "vo", "mi", "sa", "ro", "zen", "tor", "lan", "mer", "dio", "fin")
_PRINT_PX = 256


def _printed(colour: Reals, points: Points, look: Look, front: Reals, back: Reals) -> Floats32:
    centre_y = points.marks.neck_y - 0.215
    if look.print == "band":
        height = points.y - np.float32(centre_y)
        colour = mix(colour, look.accent, edge(np.float32(0.05) - np.abs(height)))
        return mix(colour, look.inner.colours[0], edge(np.float32(0.012) - np.abs(height)))
    picture = print_picture(look)
    half = 0.105 if look.print in ("picture", "number") else 0.09
    for face, sign in ((front, 1.0), (back, -1.0)):
        if sign < 0 and look.print != "number":
            break
        u = sign * points.x / np.float32(2 * half) + np.float32(0.5)
        v = (np.float32(centre_y) - points.y) / np.float32(2 * half) + np.float32(0.5)
        shown = np.flatnonzero((u > 0.005) & (u < 0.995) & (v > 0.005) & (v < 0.995) & (face > 0))
        rgba = lookup(picture, u[shown], v[shown], texel_tiles=TEXEL_M / (2 * half))
        colour[:, shown] = mix(colour.take(shown, axis=1), rgba[:, :3].T, rgba[:, 3] * face[shown])
    return colour


def print_picture(look: Look) -> Floats32:
    """Draw what is printed on a chest.

    Returns:
        (256, 256, 4) RGB and cover in [0, 1].
    """
    rng = rng_for(look.seed, "print")
    ink, second, third = (tuple(255 * c for c in colour) for colour in (look.accent, *look.inner.colours[1:]))
    rgba = np.zeros((_PRINT_PX, _PRINT_PX, 4), np.uint8)
    middle = _PRINT_PX // 2
    if look.print == "picture":
        sky = np.linspace(1.0, 0.45, _PRINT_PX, dtype=np.float32)[:, None, None]
        rgba[..., :3] = np.array(second, np.float32) * sky + (1 - sky) * np.array(ink, np.float32)
        sun = (int(rng.integers(50, 206)), int(rng.integers(40, 110)))
        cv2.circle(rgba, sun, int(rng.integers(14, 40)), (250, 230, 150, 255), -1, cv2.LINE_AA)
        for layer in range(3):
            heights = 130 + 35 * layer + np.cumsum(rng.normal(0, 6, 17))
            outline = np.stack([np.linspace(0, 255, 17), heights], axis=1)
            corners = np.concatenate([outline, [(255, 255), (0, 255)]]).astype(np.int32)
            shade = np.array(third) * (0.9 - 0.28 * layer)
            cv2.fillPoly(rgba, [corners], (*map(float, shade), 255), cv2.LINE_AA)
        rgba[..., 3] = 255
        return _as_floats(rgba)
    if look.print == "badge":
        rays = int(rng.integers(3, 9))
        angles = 2 * np.pi * np.arange(2 * rays) / (2 * rays) - np.pi / 2
        radii = np.where(np.arange(2 * rays) % 2, rng.uniform(0.45, 1.0), 1.0) * 90
        star = np.stack([middle + radii * np.cos(angles), middle + radii * np.sin(angles)], axis=1).astype(np.int32)
        cv2.circle(rgba, (middle, middle), 112, (*second, 255), -1 if rng.random() < 0.6 else 10, cv2.LINE_AA)
        cv2.fillPoly(rgba, [star], (*ink, 255), cv2.LINE_AA)
        return _as_floats(rgba)
    if look.print == "number":
        text, font, lines = str(int(rng.integers(1, 100))), cv2.FONT_HERSHEY_SIMPLEX, 1
    else:
        fonts = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX)
        text, font, lines = (
            "".join(rng.choice(_SYLLABLES, int(rng.integers(2, 4)))),
            fonts[int(rng.integers(3))],
            int(rng.integers(1, 4)),
        )
        text = text.upper() if font != cv2.FONT_HERSHEY_SCRIPT_COMPLEX and rng.random() < 0.7 else text.capitalize()
    thick = 22 if look.print == "number" else 7
    (width, height), _ = cv2.getTextSize(text, font, 1.0, 1)
    scale = min(215 / width, 180 / height / lines if look.print == "number" else 70 / height)
    for line in range(lines):
        base = round(middle + scale * height / 2 + (line - (lines - 1) / 2) * scale * height * 1.5)
        at = (round(middle - scale * width / 2), base)
        colour = ink if line % 2 == 0 else second
        cv2.putText(rgba, text, at, font, scale, (*colour, 255), thick, cv2.LINE_AA)
    return _as_floats(rgba)


def _as_floats(rgba: npt.NDArray[np.uint8]) -> Floats32:
    return np.asarray(rgba, np.float32) / np.float32(255.0)
