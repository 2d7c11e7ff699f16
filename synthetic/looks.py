"""How a person looks, as pure data: skin, hair, and clothes that always cover the body. `wardrobe.py` draws it."""

import colorsys
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthetic.patterns import CLOTH_KINDS, Colour, Pattern

COLLARS = ("crew", "v", "high")
HAIR_STYLES = ("shaved", "short", "full", "long", "cap")
_SKIN_TONES = (
    (0.96, 0.82, 0.74),
    (0.91, 0.74, 0.62),
    (0.82, 0.62, 0.48),
    (0.68, 0.47, 0.34),
    (0.50, 0.33, 0.23),
    (0.33, 0.21, 0.15),
)
_HAIR_COLOURS = (
    (0.06, 0.05, 0.05),
    (0.16, 0.10, 0.07),
    (0.31, 0.20, 0.12),
    (0.52, 0.36, 0.2),
    (0.74, 0.6, 0.38),
    (0.5, 0.22, 0.1),
    (0.62, 0.61, 0.6),
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
        hair: one of `HAIR_STYLES`.
        hair_colour: of hair and brows (a cap has its own colour).
        cap_colour: of the cap.
        beard: 0 none to 1 full.
        top: the upper garment; its hem hangs below the waist of the lower one.
        hem: how far below the waist it hangs, 0 to 1.
        collar: one of `COLLARS`.
        collar_colour: of the collar band and the hem.
        chest_print: whether a picture is printed on the chest.
        placket: whether buttons or a zip run down the front.
        bottom: trousers or shorts.
        skirt: whether a skirt of the lower garment's cloth is worn over them.
        shoes: colours of upper and sole.
        shoe_height: 0 low shoe to 1 boot.
        socks: colour of the socks.
        seed: of creases, hair strands and skin variation.
    """

    skin: Colour
    lips: Colour
    iris: Colour
    hair: str
    hair_colour: Colour
    cap_colour: Colour
    beard: float
    top: Garment
    hem: float
    collar: str
    collar_colour: Colour
    chest_print: bool
    placket: bool
    bottom: Garment
    skirt: bool
    shoes: tuple[Colour, Colour]
    shoe_height: float
    socks: Colour
    seed: int

    def __post_init__(self) -> None:
        if self.hair not in HAIR_STYLES or self.collar not in COLLARS:
            raise ValueError(
                f"hair must be of {HAIR_STYLES} and collar of {COLLARS}, got {self.hair!r}, {self.collar!r}"
            )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Look":
        """Rebuild from `dataclasses.asdict` and JSON.

        Raises:
            KeyError, TypeError: a field is missing or unknown.
        """
        return cls(**{key: _from_plain(key, value) for key, value in data.items()})


def _from_plain(key: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_plain("", item) for item in value)
    if key in ("top", "bottom"):
        return Garment(**{k: _from_plain(k, v) for k, v in value.items()})
    if key == "pattern":
        return Pattern(**{k: _from_plain(k, v) for k, v in value.items()})
    return value


def sample_look(rng: np.random.Generator) -> Look:
    """Draw a look."""
    skin = _between(_SKIN_TONES, rng.random(), rng, jitter=0.02)
    hair_colour = _between(_HAIR_COLOURS, rng.random() ** 1.5, rng, jitter=0.02)
    skirt = bool(rng.random() < 0.18)
    top_ends = (rng.uniform(0.0, 0.06), rng.uniform(0.28, 0.48), rng.uniform(0.92, 1.0))
    bottom_ends = (rng.uniform(0.3, 0.5), rng.uniform(0.72, 0.85), rng.uniform(0.95, 1.0))
    return Look(
        skin=skin,
        lips=_rgb(np.array(skin) * (0.86, 0.62, 0.62)),
        iris=_between(
            ((0.25, 0.15, 0.08), (0.35, 0.25, 0.12), (0.25, 0.4, 0.3), (0.3, 0.42, 0.55)),
            rng.random(),
            rng,
            jitter=0.02,
        ),
        hair=str(rng.choice(HAIR_STYLES, p=(0.1, 0.32, 0.26, 0.2, 0.12))),
        hair_colour=hair_colour,
        cap_colour=_cloth_colour(rng),
        beard=float(max(0.0, rng.uniform(-1.2, 1.0))),
        top=Garment(
            pattern=_cloth(rng, (0.42, 0.14, 0.05, 0.11, 0.05, 0.04, 0.03, 0.03, 0.07, 0.06)),
            end=float(rng.choice(top_ends, p=(0.14, 0.46, 0.4))),
            loose_m=float(rng.uniform(0.004, 0.03)),
        ),
        hem=float(rng.uniform(0.1, 1.0)),
        collar=str(rng.choice(COLLARS, p=(0.5, 0.3, 0.2))),
        collar_colour=_cloth_colour(rng),
        chest_print=bool(rng.random() < 0.3),
        placket=bool(rng.random() < 0.3),
        bottom=Garment(
            pattern=_cloth(rng, (0.5, 0.03, 0.04, 0.05, 0.03, 0.02, 0.06, 0.22, 0.03, 0.02)),
            end=float(bottom_ends[0] if skirt else rng.choice(bottom_ends, p=(0.27, 0.1, 0.63))),
            loose_m=float(rng.uniform(0.004, 0.032)),
        ),
        skirt=skirt,
        shoes=(_cloth_colour(rng), (0.9, 0.9, 0.88) if rng.random() < 0.5 else _rgb(rng.uniform(0.05, 0.3, 3))),
        shoe_height=float(rng.choice((rng.uniform(0.0, 0.25), rng.uniform(0.6, 1.0)), p=(0.75, 0.25))),
        socks=_rgb(np.full(3, rng.uniform(0.05, 0.95))),
        seed=int(rng.integers(2**31)),
    )


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


def _cloth(rng: np.random.Generator, share: tuple[float, ...]) -> Pattern:
    kind = str(rng.choice(CLOTH_KINDS, p=np.array(share) / sum(share)))
    ground, figure, accent = (_cloth_colour(rng) for _ in range(3))
    if kind in ("plain", "denim"):
        figure = _rgb(np.array(ground) * rng.uniform(0.7, 0.9))
    if kind == "denim":
        ground = _rgb(
            colorsys.hsv_to_rgb(
                float(rng.uniform(0.57, 0.64)), float(rng.uniform(0.3, 0.6)), float(rng.uniform(0.3, 0.7))
            )
        )
        figure = _rgb(np.array(ground) * 0.6)
    return Pattern(
        kind=kind, colours=(ground, figure, accent), tile_m=float(rng.uniform(0.16, 0.4)), seed=int(rng.integers(2**31))
    )
