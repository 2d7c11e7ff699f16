"""How a person looks, as pure data: skin, hair, and clothes that always cover the body. `wardrobe.py` draws it."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthetic.patterns import CLOTH_KINDS, Colour, Pattern

HAIR_STYLES = (
    "bald", "shaved", "short", "parted", "curly", "afro", "bun", "tail", "bob", "long", "cap", "beanie", "headscarf",
)  # fmt: skip
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
TOPS = ("tee", "tank", "sweater", "shirt", "polo", "hoodie", "jacket", "blazer")
NECKS = ("crew", "v", "high")
PRINTS = ("none", "text", "number", "badge", "picture", "band")
BOTTOMS = ("trousers", "jeans", "cargo", "sweatpants")
SKIRTS = ("none", "skirt", "dress", "coat")
SHOES = ("sneaker", "runner", "oxford", "boot")
EXTRAS = ("belt", "watch", "mask", "scarf", "stripe", "sleeves", "makeup", "freckles")
_SKIN_TONES = (
    (0.93, 0.78, 0.69),
    (0.88, 0.7, 0.58),
    (0.8, 0.6, 0.46),
    (0.67, 0.47, 0.34),
    (0.52, 0.35, 0.25),
    (0.37, 0.24, 0.17),
)
_HAIR_COLOURS = (
    (0.055, 0.045, 0.045),
    (0.12, 0.08, 0.06),
    (0.22, 0.14, 0.09),
    (0.36, 0.23, 0.13),
    (0.42, 0.2, 0.1),
    (0.6, 0.44, 0.26),
    (0.76, 0.62, 0.4),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Garment:
    """A garment as pure data.

    Attributes:
        pattern: its cloth.
        end: where it ends, 0 to 1: sleeves from shoulder to wrist, legs from hip to ankle.
        loose_m: how far it hangs off the body where it is widest, metres.
    """

    pattern: Pattern
    end: float
    loose_m: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """All that makes a person look like itself, besides its shape.

    Attributes:
        skin: base colour of the skin.
        lips: colour of the lips.
        iris: colour of the eyes.
        brows: 0 thin to 1 bushy.
        hair: one of `HAIR_STYLES`; the last three are worn.
        hair_colour: of hair, brows and beard.
        hat_colour: of what is worn on the head.
        hairline: 0 low to 1 receding.
        beard: one of `BEARDS`.
        top: the upper garment; its hem hangs below the waist of the lower one, unless it is tucked in.
        top_style: one of `TOPS`.
        hem: how far below the waist the top hangs, 0 to 1.
        tucked: whether the top is worn inside the lower garment.
        neck: one of `NECKS`, of tops that have no collar of their own.
        open: how wide a jacket or coat stands open, 0 closed to 1.
        inner: cloth of what is worn under it.
        accent: colour of collar band, hems, zips, buttons, ties.
        print: one of `PRINTS`, on the chest.
        bottom: trousers or shorts.
        bottom_style: one of `BOTTOMS`.
        skirt: one of `SKIRTS`; over the lower garment, of its cloth, or of the top's for a dress or coat.
        skirt_end: 0 above the knee to 1 at the calf.
        shoes: colours of upper and sole.
        shoe_style: one of `SHOES`.
        socks: colour of the socks.
        sock_height: 0 ankle to 1 half the calf.
        extras: some of `EXTRAS`.
        seed: of creases, hair strands, prints and skin variation.
    """

    skin: Colour
    lips: Colour
    iris: Colour
    brows: float
    hair: str
    hair_colour: Colour
    hat_colour: Colour
    hairline: float
    beard: str
    top: Garment
    top_style: str
    hem: float
    tucked: bool
    neck: str
    open: float
    inner: Pattern
    accent: Colour
    print: str
    bottom: Garment
    bottom_style: str
    skirt: str
    skirt_end: float
    shoes: tuple[Colour, Colour]
    shoe_style: str
    socks: Colour
    sock_height: float
    extras: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        for name, known in _NAMED.items():
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} must be of {known}, got {value!r}")
        if not set(self.extras) <= set(EXTRAS):
            raise ValueError(f"extras must be of {EXTRAS}, got {self.extras!r}")


_NAMED = {
    "hair": HAIR_STYLES, "beard": BEARDS, "top_style": TOPS, "neck": NECKS, "print": PRINTS, "bottom_style": BOTTOMS,
    "skirt": SKIRTS, "shoe_style": SHOES,
}  # fmt: skip


# How often each cloth is seen, in the order of CLOTH_KINDS, for tops, dresses and lower garments.
_TOP_CLOTH = (0.44, 0.12, 0.04, 0.07, 0.03, 0.03, 0.02, 0.02, 0.04, 0.04, 0.03, 0.02, 0.02, 0.04, 0.01, 0.03)
_DRESS_CLOTH = (0.3, 0.06, 0.04, 0.06, 0.04, 0.1, 0.0, 0.04, 0.04, 0.07, 0.15, 0.03, 0.01, 0.02, 0.02, 0.02)
_BOTTOM_CLOTH = (0.74, 0.01, 0.04, 0.04, 0.02, 0.01, 0.04, 0.02, 0.03, 0.01, 0.01, 0.005, 0.005, 0.01, 0.005, 0.005)
_SHIRT_CLOTH = (0.42, 0.1, 0.1, 0.2, 0.06, 0.04, 0.0, 0.04, 0.01, 0.02, 0.01, 0.0, 0.0, 0.0, 0.0, 0.0)
_SOBER_CLOTH = (0.7, 0.0, 0.14, 0.08, 0.02, 0.0, 0.0, 0.03, 0.0, 0.0, 0.0, 0.0, 0.0, 0.03, 0.0, 0.0)
_HAIR_OF_WOMEN = (0.0, 0.01, 0.1, 0.08, 0.06, 0.05, 0.15, 0.12, 0.13, 0.18, 0.04, 0.03, 0.05)
_HAIR_OF_MEN = (0.09, 0.13, 0.3, 0.16, 0.09, 0.05, 0.01, 0.02, 0.01, 0.02, 0.08, 0.04, 0.0)


# The free body's shapes tell its sex: MakeHuman's axis of gender, 0 man to 1 woman, regressed on the ten shapes of the 300 people
# that the body was fitted to, which explains 0.996 of its variance.
_GENDER_OF_SHAPE = (0.2, 0.285, -0.056, 0.153, -0.035, -0.026, -0.024, 0.005, 0.006, 0.009)
_GENDER_OF_MEAN = 0.486


def chance_of_woman(betas: Sequence[float]) -> float:
    """How likely somebody of a shape of the free body is a woman: never in doubt but around the middle between the sexes.

    Args:
        betas: ten shape coefficients.
    """
    gender = _GENDER_OF_MEAN + float(np.dot(_GENDER_OF_SHAPE, betas))
    return float(np.clip(0.5 + 2.0 * (gender - 0.5), 0.0, 1.0))


def sample_look(rng: np.random.Generator, *, women: float = 0.5) -> Look:
    """Draw a look. What goes together is drawn together: beards seldom meet skirts, blazers meet shirts and dark shoes.

    Args:
        rng: source of randomness.
        women: how likely it is a woman's.
    """
    feminine = bool(rng.random() < women)
    skin = _between(_SKIN_TONES, rng.random(), rng, jitter=0.015)
    hair_colour = _hair_colour(rng, float(np.mean(skin)))
    top_style = _pick(rng, TOPS, (0.3, 0.06, 0.15, 0.14, 0.07, 0.1, 0.12, 0.06))
    skirt = _pick(rng, SKIRTS, (0.6, 0.2, 0.15, 0.05) if feminine else (0.96, 0.0, 0.0, 0.04))
    if skirt == "dress":
        top_style = _pick(rng, TOPS, (0.6, 0.25, 0.0, 0.1, 0.05, 0.0, 0.0, 0.0))
    elif skirt == "coat":
        top_style = "jacket"
    opens = top_style in ("jacket", "blazer", "hoodie") and (skirt != "coat")
    ends = {
        "tank": 0.0, "tee": rng.uniform(0.24, 0.48), "polo": rng.uniform(0.28, 0.42),
        "shirt": rng.choice((rng.uniform(0.35, 0.6), rng.uniform(0.92, 1.0))),
    }  # fmt: skip
    cloth = (
        _DRESS_CLOTH if skirt == "dress" else {"shirt": _SHIRT_CLOTH, "blazer": _SOBER_CLOTH}.get(top_style, _TOP_CLOTH)
    )
    top = Garment(
        pattern=_cloth(rng, cloth, dull=top_style == "blazer"),
        end=float(ends.get(top_style, rng.uniform(0.94, 1.0))),
        loose_m=float(rng.uniform(0.004, 0.016) if skirt == "dress" else rng.uniform(0.006, 0.034)),
    )
    bottom_style = _pick(rng, BOTTOMS, (0.35, 0.4, 0.1, 0.15))
    bottom_ends = (rng.uniform(0.3, 0.5), rng.uniform(0.72, 0.85), rng.uniform(0.95, 1.0))
    short = skirt in ("skirt", "dress")
    bottom = Garment(
        pattern=_denim(rng) if bottom_style == "jeans" else _cloth(rng, _BOTTOM_CLOTH, dull=rng.random() < 0.7),
        end=float(bottom_ends[0] if short else rng.choice(bottom_ends, p=(0.2, 0.08, 0.72))),
        loose_m=float(
            rng.uniform(0.004, 0.012) if short else rng.choice((rng.uniform(0.003, 0.01), rng.uniform(0.01, 0.034)))
        ),
    )
    dressy = top_style == "blazer" or rng.random() < 0.1
    leather = _rgb(np.array(((0.09, 0.08, 0.08), (0.3, 0.18, 0.1), (0.2, 0.12, 0.09))[int(rng.integers(3))]))
    shoe_style = _pick(rng, SHOES, (0.0, 0.0, 0.8, 0.2) if dressy else (0.45, 0.25, 0.12, 0.18))
    chances = {
        "belt": 0.5, "watch": 0.25, "mask": 0.03, "scarf": 0.05, "stripe": 0.4 * (bottom_style == "sweatpants"),
        "sleeves": 0.15, "makeup": 0.45 * feminine, "freckles": 0.12,
    }  # fmt: skip
    draws = rng.random(len(EXTRAS))
    return Look(
        skin=skin,
        lips=_rgb(np.array(skin) * (0.9, rng.uniform(0.62, 0.76), rng.uniform(0.64, 0.78))),
        iris=_between(
            ((0.2, 0.12, 0.07), (0.28, 0.17, 0.09), (0.35, 0.25, 0.12), (0.28, 0.36, 0.26), (0.32, 0.44, 0.55)),
            rng.random() ** (1.0 if np.mean(skin) > 0.6 else 4.0),
            rng,
            jitter=0.02,
        ),
        brows=float(np.clip(rng.normal(0.3 if feminine else 0.6, 0.2), 0.0, 1.0)),
        hair=_pick(rng, HAIR_STYLES, _HAIR_OF_WOMEN if feminine else _HAIR_OF_MEN),
        hair_colour=hair_colour,
        hat_colour=_cloth_colour(rng),
        hairline=float(rng.uniform(0.0, 0.45 if feminine else 1.0)),
        beard="none" if feminine else _pick(rng, BEARDS, (0.4, 0.27, 0.07, 0.08, 0.18)),
        top=top,
        top_style=top_style,
        hem=float(rng.uniform(0.1, 1.0)),
        tucked=bool(skirt != "dress" and top_style in ("tee", "tank", "shirt", "polo") and rng.random() < 0.35),
        neck=_pick(rng, NECKS, (0.62, 0.24, 0.14)),
        open=float(opens * rng.choice((0.0, rng.uniform(0.25, 1.0)), p=(0.4, 0.6))) if top_style != "blazer" else 0.5,
        inner=_cloth(rng, _SHIRT_CLOTH if top_style == "blazer" else _TOP_CLOTH),
        accent=_cloth_colour(rng),
        print=_pick(rng, PRINTS, (0.45, 0.15, 0.08, 0.12, 0.12, 0.08)),
        bottom=bottom,
        bottom_style=bottom_style,
        skirt=skirt,
        skirt_end=float(rng.random()),
        shoes=(
            leather if shoe_style in ("oxford", "boot") and rng.random() < 0.8 else _cloth_colour(rng),
            _rgb(np.full(3, rng.uniform(0.05, 0.2))) if dressy or rng.random() < 0.35 else (0.9, 0.9, 0.88),
        ),
        shoe_style=shoe_style,
        socks=_rgb(np.full(3, rng.choice((rng.uniform(0.05, 0.2), rng.uniform(0.8, 0.95)))))
        if rng.random() < 0.8
        else _cloth_colour(rng),
        sock_height=float(rng.random() ** 2),
        extras=tuple(name for name, draw in zip(EXTRAS, draws, strict=True) if draw < chances[name]),
        seed=int(rng.integers(2**31)),
    )


def _pick(rng: np.random.Generator, names: tuple[str, ...], share: tuple[float, ...]) -> str:
    return str(rng.choice(names, p=np.array(share) / sum(share)))


def _hair_colour(rng: np.random.Generator, skin_light: float) -> Colour:
    """Dark skin mostly has dark hair; a few people are grey, and a few dye it."""
    kind = rng.random()
    if kind < 0.1:
        return _rgb(rng.uniform(0.35, 0.8) + rng.normal(0.0, 0.01, 3))
    if kind < 0.13:
        return _rgb(colorsys.hsv_to_rgb(float(rng.random()), 0.6, float(rng.uniform(0.3, 0.8))))
    return _between(_HAIR_COLOURS, rng.random() ** (1.1 if skin_light > 0.62 else 3.0), rng, jitter=0.015)


def _rgb(values: Any) -> Colour:
    red, green, blue = np.clip(np.asarray(values, dtype=np.float64), 0.02, 0.98).round(4).tolist()
    return (red, green, blue)


def _between(stops: tuple[Colour, ...], position: float, rng: np.random.Generator, *, jitter: float) -> Colour:
    at = position * (len(stops) - 1)
    low = min(int(at), len(stops) - 2)
    return _rgb(
        (1 - at + low) * np.array(stops[low]) + (at - low) * np.array(stops[low + 1]) + rng.normal(0.0, jitter, 3)
    )


def _cloth_colour(rng: np.random.Generator) -> Colour:
    """Most clothes are grey, dark, white or blue; some are of any colour."""
    kind = rng.random()
    if kind < 0.4:
        return _rgb(rng.choice((0.08, 0.15, 0.3, 0.55, 0.8, 0.92)) + rng.normal(0.0, 0.02, 3))
    hue = rng.normal(0.61, 0.04) % 1.0 if kind < 0.6 else rng.random()
    return _rgb(colorsys.hsv_to_rgb(float(hue), float(rng.uniform(0.3, 0.85)), float(rng.uniform(0.2, 0.9))))


def _cloth(rng: np.random.Generator, share: tuple[float, ...], *, dull: bool = False) -> Pattern:
    kind = _pick(rng, CLOTH_KINDS, share)
    ground, figure, accent = (_cloth_colour(rng) for _ in range(3))
    if dull:
        ground = _rgb(
            np.array(_DULL[int(rng.integers(len(_DULL)))]) * rng.uniform(0.7, 1.2) + rng.normal(0.0, 0.015, 3)
        )
    if kind in ("plain", "denim", "fade", "knit") or dull:
        figure = _rgb(np.array(ground) * rng.uniform(0.72, 0.92))
    if dull:
        accent = _rgb(np.array(ground) * rng.uniform(0.7, 1.4))
    if kind == "denim":
        return _denim(rng)
    if kind == "leopard":
        ground, figure, accent = (0.78, 0.62, 0.42), (0.13, 0.09, 0.07), (0.5, 0.33, 0.17)
    return Pattern(
        kind=kind, colours=(ground, figure, accent), tile_m=float(rng.uniform(0.16, 0.4)), seed=int(rng.integers(2**31))
    )


_DULL = (
    (0.1, 0.1, 0.11),
    (0.16, 0.18, 0.25),
    (0.3, 0.3, 0.3),
    (0.45, 0.38, 0.28),
    (0.62, 0.55, 0.43),
    (0.28, 0.3, 0.22),
    (0.32, 0.22, 0.16),
)


def _denim(rng: np.random.Generator) -> Pattern:
    dark = rng.random()
    ground = _rgb(
        colorsys.hsv_to_rgb(float(rng.uniform(0.58, 0.63)), float(0.62 - 0.35 * dark), float(0.22 + 0.5 * dark))
    )
    if rng.random() < 0.2:
        ground = _rgb(np.full(3, rng.uniform(0.06, 0.25)))
    figure = _rgb(np.array(ground) * 0.6)
    return Pattern(
        kind="denim",
        colours=(ground, figure, figure),
        tile_m=float(rng.uniform(0.2, 0.4)),
        seed=int(rng.integers(2**31)),
    )
