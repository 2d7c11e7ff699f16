"""Paints what is not cloth: skin, face, beard, hair of the head, eyes. All places are metres from the eyes or from landmarks.

Shape letters: N points. Colours lie in three rows (3, N), which is several times faster to pick from than (N, 3).
"""

import numpy as np
import numpy.typing as npt

from manifests.seeds import rng_for
from synthetic.looks.canvas import LOCKS_GROUP, TEXEL_M, Points
from synthetic.looks.look import Look
from synthetic.patterns import Floats32, Reals, lookup, noise, streaks

HATS = ("cap", "beanie", "headscarf")
_BLOTCHES = noise(rng_for("skin", "blotches"), (4, 9, 19, 40))
_NAIL_M = (-0.003, 0.005, -0.0016)  # from the tip of a finger to the middle of its nail
_LEAST = 1 / 400  # less is not seen
_SPECKLES = noise(rng_for("skin", "speckles"), (60, 110))
_STRANDS = streaks(rng_for("hair", "strands"), ((4, 48), (8, 90), (16, 128)))
_CURLS = noise(rng_for("hair", "curls"), (28, 52, 90))


def ramp(inside_m: Reals, width_m: float) -> Floats32:
    """0 outside, 1 further inside than the width, smooth between."""
    t = np.clip(inside_m * np.float32(1.0 / width_m), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), np.float32)


def edge(inside_m: Reals, *, blur_m: float = TEXEL_M) -> Floats32:
    """0 outside, 1 inside, and between over about a texel, so that no stairs are seen."""
    return np.asarray(np.clip(inside_m * np.float32(1.0 / blur_m) + np.float32(0.5), 0.0, 1.0), np.float32)


def near(squared_m2: Reals, radius_m: float) -> Floats32:
    """A soft dab: 1 at distance 0, falling like a Gaussian."""
    return np.asarray(np.exp(squared_m2 * np.float32(-1.0 / radius_m**2)), np.float32)


def flat(colour: npt.ArrayLike, num_points: int) -> Floats32:
    """One colour for all points (3, N)."""
    return np.repeat(np.asarray(colour, np.float32)[:, None], num_points, axis=1)


def mix(colour_3N: Floats32, other: npt.ArrayLike, share_N: Reals) -> Floats32:
    """Move colours towards another one, in place; only where there is a share, which most often is at few points."""
    at = np.flatnonzero(share_N > _LEAST)
    share = share_N.take(at).astype(np.float32)
    for row, target in zip(colour_3N, np.asarray(other, np.float32), strict=True):
        kept = row.take(at)
        row[at] = kept + share * ((target.take(at) if target.ndim else target) - kept)
    return colour_3N


def darken(colour_3N: Floats32, amount_N: Reals) -> Floats32:
    """Take a share of the light away, in place; negative amounts add light."""
    at = np.flatnonzero(np.abs(amount_N) > _LEAST)
    light = np.float32(1.0) - amount_N.take(at).astype(np.float32)
    for row in colour_3N:
        row[at] = row.take(at) * light
    return colour_3N


def hair_inside(points: Points, look: Look) -> Floats32:
    """Metres inside of what covers the scalp: hair, or what is worn on it; negative outside."""
    marks = points.marks
    side, y, z = points.side, points.y - np.float32(marks.eye[1]), points.z
    if look.hair == "headscarf":
        face = 1.0 - np.sqrt(
            np.square(side / np.float32(0.062)) + np.square((y + np.float32(0.032)) / np.float32(0.088))
        )
        face = np.where(z > 0.045, 0.06 * face, np.float32(-1.0))
        drape = points.y - np.float32(marks.neck_y - 0.075) + 0.3 * side
        return np.asarray(np.minimum(-face, drape), np.float32)
    if look.hair in ("cap", "beanie"):
        brim, slope = (0.046, 0.22) if look.hair == "cap" else (0.036, 0.3)
        return np.asarray(y - np.float32(brim) - slope * np.minimum(z - np.float32(0.1), 0.0), np.float32)
    rise = 0.022 * look.hairline
    line = np.interp(
        z,
        (-0.06, -0.025, -0.011, 0.003, 0.034, 0.042, 0.058, 0.068, 0.088, 0.108, 0.125, 0.15),
        (
            -0.1,
            -0.088,
            -0.06,
            0.02,
            0.024,
            -0.012,
            -0.01,
            0.026,
            0.058 + rise,
            0.063 + 1.4 * rise,
            0.06 + rise,
            0.062 + 0.6 * rise,
        ),
    ).astype(np.float32)
    wave = lookup(_BLOTCHES, points.x / np.float32(0.2) + look.seed % 97 / 97.0, points.z / np.float32(0.2))
    inside = y - line + np.float32(0.012) * (wave - np.float32(0.5))
    if look.hair == "bald":
        crown = 0.018 - y - 0.35 * np.minimum(z, 0.0)
        inside = np.minimum(inside, crown)
    return np.asarray(np.where((side > 0.0795) & (y < 0.03), np.float32(-0.02), inside), np.float32)  # ears stay free


def beard_inside(points: Points, look: Look) -> Floats32:
    """Metres inside the beard; negative outside."""
    side, y, z = points.side, points.y - np.float32(points.marks.eye[1]), points.z
    mouth = (
        np.sqrt(np.square(side / np.float32(0.029)) + np.square((y + np.float32(0.0725)) / np.float32(0.0125))) - 1.0
    )
    lip_free = np.asarray(0.012 * mouth, np.float32)
    moustache = np.minimum(
        np.minimum(y + np.float32(0.07), np.float32(-0.0545) - y - 0.1 * side), np.float32(0.031) - side
    )
    if look.beard == "moustache":
        return np.asarray(np.minimum(np.minimum(moustache, lip_free), z - np.float32(0.1)), np.float32)
    chin = np.minimum(np.minimum(np.float32(0.034) - side, np.float32(-0.055) - y), y + np.float32(0.124))
    if look.beard == "goatee":
        return np.asarray(np.minimum(np.minimum(chin, lip_free), z - np.float32(0.085)), np.float32)
    cheek = np.interp(
        side, (0.0, 0.024, 0.034, 0.045, 0.06, 0.068, 0.08), (-0.0505, -0.0535, -0.062, -0.06, -0.045, -0.012, -0.005)
    ).astype(np.float32)
    jaw = np.minimum(
        np.minimum(cheek - y, y + np.float32(0.128) - 0.15 * (np.float32(0.1) - z)),
        0.8 * (z - np.float32(0.036) - 0.3 * np.clip(-y - np.float32(0.02), 0.0, 0.1)),
    )
    return np.asarray(np.minimum(jaw, lip_free), np.float32)


def paint_skin(points: Points, look: Look) -> Floats32:
    """Colours of bare skin, with the face."""
    shift = np.float32(look.seed % 1009 / 1009.0)
    u = (points.x + 0.4 * points.z) / np.float32(0.45) + shift
    v = (points.y + 0.6 * points.z) / np.float32(0.45) + shift
    base = np.array(look.skin, np.float32)
    hand = ramp(points.side - np.float32(points.marks.wrist_x + 0.03), 0.04) * (points.side < 1.0)
    hollow = np.clip(points.hollow, -0.003, np.float32(0.007) - np.float32(0.0085) * hand)  # a palm is no hollow
    colour = np.empty((3, len(points)), np.float32)
    light = np.float32(0.93) + np.float32(0.14) * lookup(_BLOTCHES, u, v)
    for channel, depth in enumerate((-36.0, -52.0, -56.0)):  # hollows are reddish
        colour[channel] = base[channel] * light * np.exp(hollow * np.float32(depth))
    flush = (1.06, 0.9, 0.89) if float(base.mean()) > 0.5 else (1.05, 0.95, 0.94)
    knuckles = ramp(points.side - np.float32(points.marks.wrist_x + 0.07), 0.06) * (points.side < 1.0)
    colour = mix(colour, colour * np.array(flush, np.float32)[:, None], 0.6 * knuckles)
    ends = np.flatnonzero(points.side > points.marks.tips_53[:, 0].min() - 0.02)
    colour[:, ends] = _paint_nails(points.take(ends), look, colour.take(ends, axis=1))
    face = np.flatnonzero((points.y > points.marks.neck_y - 0.02) & (points.z > -0.03) & (points.side < 0.095))
    colour[:, face] = _paint_face(points.take(face), look, colour.take(face, axis=1), np.array(flush, np.float32))
    return np.asarray(colour, np.float32)


def _paint_nails(points: Points, look: Look, colour: Floats32) -> Floats32:
    nails = np.zeros(len(points), np.float32)
    for x, y, z in points.marks.tips_53 + _NAIL_M:
        away = (
            np.square(points.side - np.float32(x))
            + np.square(points.y - np.float32(y))
            + np.square(points.z - np.float32(z))
        )
        nails = np.maximum(nails, edge(np.float32(0.0068) - np.sqrt(away), blur_m=0.003))
    if "makeup" in look.extras and look.seed % 2:
        return mix(colour, look.accent, 0.9 * nails)
    return mix(colour, np.array(look.skin, np.float32) * (0.85, 0.8, 0.82) + np.float32(0.17), 0.75 * nails)


def _paint_face(points: Points, look: Look, colour: Reals, flush: Reals) -> Floats32:
    eye = points.marks.eye
    side, y, z = points.side, points.y - np.float32(eye[1]), points.z
    front = ramp(z - np.float32(0.07), 0.02)
    speckle = lookup(_SPECKLES, points.x / np.float32(0.11), points.y / np.float32(0.11))
    red = 0.9 * near(np.square(side - np.float32(0.046)) + np.square(y + np.float32(0.04)), 0.022) * front
    red += 0.9 * near(np.square(side) + np.square(y + np.float32(0.04)), 0.015) * (z > 0.14)
    red += 0.8 * near(
        np.square(side - np.float32(0.085)) + np.square(y - np.float32(0.005)) + np.square(z - np.float32(0.025)), 0.03
    )
    red += 0.4 * near(np.square(side) + np.square(y + np.float32(0.105)), 0.02) * front
    colour = mix(colour, colour * flush[:, None], red)
    if "freckles" in look.extras:
        spots = (
            ramp(speckle - np.float32(0.7), 0.08)
            * near(np.square(side - np.float32(0.03)) + np.square(y + np.float32(0.03)), 0.04)
            * front
        )
        colour = mix(colour, np.array(look.skin, np.float32) * (0.72, 0.56, 0.46), 0.4 * spots)

    # Eyes: shaded sockets, the fold of the lid, lashes along the opening.
    from_eye_x, depth = side - np.float32(eye[0]), z - np.float32(eye[2])
    flat = np.square(from_eye_x)
    colour = darken(colour, 0.2 * near(0.5 * flat + np.square(y - np.float32(0.007)), 0.011) * front)
    ball = np.sqrt(flat + np.square(y) + np.square(depth))
    lids = edge(np.float32(0.0143) - ball, blur_m=0.002) * front
    made_up = "makeup" in look.extras
    upper = lids * ramp(y + np.float32(0.0035), 0.004)
    colour = mix(colour, (0.07, 0.05, 0.045), (0.85 if made_up else 0.6) * upper)
    colour = mix(colour, np.array(look.skin, np.float32) * (0.75, 0.5, 0.48), 0.45 * (lids - upper))
    fold = (
        near(np.square(y - np.float32(0.0095) + 9.0 * flat), 0.0018)
        * ramp(np.float32(0.015) - np.abs(from_eye_x), 0.004)
        * front
    )
    colour = darken(colour, 0.28 * fold)
    if made_up:
        shadow = near(flat * 0.6 + np.square(y - np.float32(0.008)), 0.008) * front
        colour = mix(colour, np.array(look.accent, np.float32) * 0.6, 0.3 * shadow)

    along = (side - np.float32(eye[0] - 0.019)) * np.float32(
        1 / 0.044
    )  # 0 at the inner end of the brow, 1 at the outer
    centre = np.float32(0.0185) + np.float32(0.0075) * np.sin(np.clip(along, 0, 1) * np.float32(2.2))
    half = (np.float32(0.0022 + 0.0032 * look.brows)) * (1.1 - 0.65 * np.clip(along, 0, 1))
    brow = edge(half - np.abs(y - centre), blur_m=0.003) * ramp(along, 0.12) * ramp(1.0 - along, 0.2) * front
    brow_colour = np.minimum(np.array(look.hair_colour, np.float32), 0.42)
    colour = mix(colour, brow_colour, brow * (0.62 + 0.5 * (speckle - 0.5)) * np.float32(0.75 + 0.25 * look.brows))

    # Lips between two curves around the seam of the mouth, darkest on the seam; nostrils.
    seam = np.float32(-0.0705)
    taper = 1.0 - np.square(side * np.float32(1 / 0.0255))
    bow = 1.0 - 0.16 * near(np.square(side), 0.005)
    lips = edge(np.where(y > seam, seam + 0.0098 * taper * bow - y, y - seam + 0.0128 * taper), blur_m=0.003) * (
        z > 0.11
    )
    lip_colour = np.array(look.lips, np.float32) * ((1.0, 0.62, 0.66) if made_up else (1.0, 1.0, 1.0))
    sheen = 1.0 + 0.18 * near(np.square(y + np.float32(0.0785)), 0.003) - 0.14 * (y > seam)
    colour = mix(colour, lip_colour[:, None] * sheen, (0.92 if made_up else 0.8) * lips)
    colour = darken(
        colour, 0.55 * near(np.square(y - seam), 0.0014) * ramp(np.float32(0.027) - side, 0.006) * (z > 0.11)
    )
    nostril = near(np.square(side - np.float32(0.0075)) + np.square(y + np.float32(0.0485)), 0.0042) * (z > 0.135)
    colour = darken(colour, 0.45 * nostril)

    if look.beard != "none":
        inside = beard_inside(points, look)
        strength, soft = {"stubble": (0.4, 0.014), "full": (0.94, 0.009)}.get(look.beard, (0.9, 0.005))
        beard = ramp(inside, soft) * strength * (0.72 + 0.5 * speckle)
        colour = mix(colour, np.array(look.hair_colour, np.float32) * 0.85, np.minimum(beard, 1.0))
    return np.asarray(colour, np.float32)


def paint_hair(points: Points, look: Look) -> Floats32:
    """Colours of hair, or of what is worn on the head."""
    if look.hair in HATS:
        return _paint_hat(points, look)
    x, y, z = points.x, points.y - np.float32(points.marks.eye[1]), points.z - np.float32(0.03)
    shift = np.float32(look.seed % 1013 / 1013.0)
    fall = np.hypot(x, z)
    locks = points.group == LOCKS_GROUP
    if look.hair in ("curly", "afro"):
        strand = lookup(_CURLS, (x + 0.5 * z) / np.float32(0.22) + shift, (y + 0.5 * z) / np.float32(0.22))
        shade = np.float32(0.35) + np.float32(1.2) * strand
    else:
        if look.hair == "parted":
            u, v = z / np.float32(0.24), (np.abs(x - np.float32(0.025)) - y) / np.float32(0.5)
        elif look.hair in ("bun", "tail"):
            u, v = (y + 0.2 * np.abs(x)) / np.float32(0.2), (z + np.abs(x)) / np.float32(0.5)
        else:
            u, v = np.arctan2(x, z) * np.float32(0.5 / np.pi) + 0.6 * x, (fall - y) / np.float32(0.5)
        u, v = np.where(locks, x / np.float32(0.09), u), np.where(locks, y / np.float32(1.6), v)
        strand = lookup(_STRANDS, u + shift, v + shift)
        gloss = 0.3 * near(np.square(y - np.float32(0.075) - 0.02 * np.sin(9.0 * u)), 0.02)
        shade = (np.float32(0.5) + np.float32(0.95) * strand) * (1.0 + gloss)
    if look.hair == "parted":
        line = near(np.square(x - np.float32(0.025)), 0.0022) * (z > -0.05) * (y > 0.05)
        shade = shade * (1.0 - 0.45 * line)
    colour = np.array(look.hair_colour, np.float32)[:, None] * shade
    if look.hair in ("shaved", "bald"):
        colour = 0.62 * colour + 0.38 * np.array(look.skin, np.float32)[:, None]
    return np.asarray(colour, np.float32)


def hair_cover(points: Points, look: Look) -> Floats32:
    """How much of the scalp is hidden, 0 to 1: hair thins out at its line, cloth does not."""
    inside = hair_inside(points, look)
    if look.hair in HATS:
        return edge(inside)
    ragged = lookup(_SPECKLES, points.x / np.float32(0.15), (points.y + points.z) / np.float32(0.15)) - np.float32(0.5)
    return ramp(inside + 0.009 * ragged + np.float32(0.002), 0.016 if look.hair in ("shaved", "bald") else 0.007)


def _paint_hat(points: Points, look: Look) -> Floats32:
    y, z = points.y - np.float32(points.marks.eye[1]), points.z
    angle = np.arctan2(points.x, z - np.float32(0.04)) * np.float32(0.5 / np.pi)
    shade = np.float32(0.86) + np.float32(0.2) * lookup(_BLOTCHES, angle, y / np.float32(0.2))
    colour = np.array(look.hat_colour, np.float32)[:, None] * shade
    if look.hair == "cap":
        seam = near(np.square((angle * 6.0 + 0.5) % 1.0 - 0.5) * 0.002, 0.0022)
        colour = darken(colour, 0.25 * seam * (y > 0.06))
        brim = edge(np.float32(0.056) - y) * (z > 0.1)
        return mix(colour, np.array(look.accent, np.float32) * 0.9, brim * (0.9 if look.seed % 2 else 0.0))
    if look.hair == "beanie":
        ribs = 0.84 + 0.16 * np.cos(angle * np.float32(2 * np.pi * 56))
        cuff = edge(np.float32(0.028) - hair_inside(points, look))
        return np.asarray(mix(colour, look.accent, 0.6 * cuff * (look.seed % 3 == 0)) * ribs, np.float32)
    fold = lookup(
        _STRANDS, np.asarray(y + 0.4 * z, np.float32) / np.float32(0.9), angle + np.float32(look.seed % 101 / 101)
    )
    return np.asarray(colour * (0.78 + 0.4 * fold), np.float32)


def paint_eyes(points: Points, look: Look) -> Floats32:
    """Colours of the eyeballs: iris with a dark rim, pupil, a glint, and the shade of the upper lid."""
    eye = points.marks.eye
    dx = points.x - np.float32(eye[0]) * np.sign(points.x)
    y, z = points.y - np.float32(eye[1]), points.z - np.float32(eye[2])
    radius = np.hypot(dx, y + np.float32(0.001))
    white = np.array((0.87, 0.84, 0.82), np.float32)[:, None] * (0.94 - 0.3 * ramp(np.abs(dx), 0.013))
    iris = np.array(look.iris, np.float32)[:, None] * (0.75 + 0.6 * ramp(np.float32(0.0066) - radius, 0.006))
    colour = mix(white, (0.1, 0.08, 0.07), edge(np.float32(0.0068) - radius, blur_m=0.0015) * 0.75)
    colour = mix(colour, iris, edge(np.float32(0.006) - radius, blur_m=0.0015))
    colour = mix(colour, (0.02, 0.02, 0.02), edge(np.float32(0.003) - radius, blur_m=0.0015))
    colour = mix(
        colour,
        (1.0, 1.0, 1.0),
        0.8
        * near(np.square(points.x - np.float32(eye[0]) * np.sign(points.x) - 0.0018) + np.square(y - 0.001), 0.0013),
    )
    colour *= 1.0 - 0.5 * ramp(y + np.float32(0.001), 0.006)
    return np.asarray(np.where(z > 0, colour, np.float32(0.4)), np.float32)
