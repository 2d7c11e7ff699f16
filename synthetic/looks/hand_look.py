"""How a hand looks and moves, as pure data. Skin and sleeve are those of the person's `Look`.

`hand_paint.py` draws it, `hand_figure.py` poses it.
"""

import colorsys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthetic.camera import Camera
from synthetic.looks.look import Look
from synthetic.patterns import Colour, Pattern

Floats = npt.NDArray[np.float64]
HAND_M = (0.0, 1.1, 0.0)  # where hands are held, and where their cameras look
MAX_RINGS = 3
_TRIES, _CLEAR_M = 8, 0.22
_ELBOW_M = 0.36  # from the middle of the hand to the elbow
_METALS = ((0.83, 0.66, 0.30), (0.78, 0.78, 0.80), (0.82, 0.56, 0.46), (0.22, 0.22, 0.24))
_GLOVE_KINDS = ("plain", "denim", "stripes", "blotches", "camo", "dots")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """A ring on a finger.

    Attributes:
        side: of the hand that wears it.
        finger: one of `hand.FINGERS`.
        at: where on its bone, 0 to 1: the finger's first that is free of the palm.
        width_m: of the band.
        colour: of the metal.
    """

    side: str
    finger: str
    at: float
    width_m: float
    colour: Colour


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A wrist watch.

    Attributes:
        side: of the hand that wears it.
        strap: colour of the strap.
        case: colour of the metal.
        dial: colour of the dial.
        radius_m: of the case.
    """

    side: str
    strap: Colour
    case: Colour
    dial: Colour
    radius_m: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HandLook:
    """All that makes somebody's hands look like themselves, besides their shape.

    Attributes:
        skin: base colour of the skin.
        age: 0 smooth, 1 wrinkled, with veins and sinews that show.
        mottled: how uneven the skin is, 0 to 1.
        nail: colour of the nails.
        polish: whether that is nail polish.
        rings: on either hand.
        watch: on one wrist, if any.
        glove: what gloves are made of, if they are worn.
        sleeve: cloth of the sleeve.
        cuff: colour of its cuff.
        sleeve_m: where the sleeve ends, metres behind the wrist.
        loose_m: how far the sleeve stands off the arm.
        cuff_m: width of its cuff.
        seed: of creases, veins and folds.
    """

    skin: Colour
    age: float
    mottled: float
    nail: Colour
    polish: bool
    rings: tuple[Ring, ...]
    watch: Watch | None
    glove: Pattern | None
    sleeve: Pattern
    cuff: Colour
    sleeve_m: float
    loose_m: float
    cuff_m: float
    seed: int

    def __post_init__(self) -> None:
        if len(self.rings) > MAX_RINGS:
            raise ValueError(f"a person wears {MAX_RINGS} rings at most, got {len(self.rings)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """What the scene of a hand says of it, besides side, shape and skin.

    Attributes:
        look: of both hands of this person.
        arm: unit direction in the world from the wrist to the elbow.
        elbow_rad: by how much the elbow is bent, so that the upper arm rises.
        roll_rad: turn around the arm at rest.
        duration_s: how long the movement takes, from phase 0 to phase 1.
        grasps: how many grasps the hand takes in that time, one after another.
        seed: of grasps and turns.
    """

    look: HandLook
    arm: tuple[float, float, float]
    elbow_rad: float
    roll_rad: float
    duration_s: float
    grasps: int
    seed: int

    def __post_init__(self) -> None:
        if self.grasps < 2 or not self.duration_s > 0:
            raise ValueError(f"a movement has 2 grasps or more and lasts, got {self.grasps} and {self.duration_s} s")


def sample_hand(rng: np.random.Generator, person: np.random.Generator, look: Look, cameras: tuple[Camera, ...]) -> Hand:
    """Draw what a scene says of its hand: the arm comes from where no camera stands, and from below.

    Args:
        rng: of the scene.
        person: of the identity.
        look: of the person.
        cameras: of the scene.
    """
    around = np.sort([camera.azimuth_rad for camera in cameras])
    gaps = np.diff(np.append(around, around[0] + 2 * np.pi))
    widest = int(gaps.argmax())
    eyes = np.array([camera.eye_m for camera in cameras])
    tries = []
    for _ in range(_TRIES):
        azimuth, height = around[widest] + gaps[widest] * rng.uniform(0.4, 0.6), rng.uniform(-1.2, -0.15)
        elbow = float(np.clip(rng.uniform(0.1, 0.7) - height, 0.5, 1.5))
        tries.append((_clearance(azimuth, height, elbow, eyes), azimuth, height, elbow))
    enough = [one for one in tries if one[0] > _CLEAR_M]
    _, azimuth, height, elbow = enough[0] if enough else max(tries)
    arm = _direction(azimuth, height)
    return Hand(
        look=sample_hand_look(person, look),
        arm=(float(arm[0]), float(arm[1]), float(arm[2])),
        elbow_rad=elbow,
        roll_rad=float(rng.uniform(-np.pi, np.pi)),
        duration_s=float(rng.uniform(1.5, 4.0)),
        grasps=int(rng.integers(2, 5)),
        seed=int(rng.integers(2**31)),
    )


def _direction(azimuth: float, height: float) -> Floats:
    return np.array([np.cos(height) * np.sin(azimuth), np.sin(height), np.cos(height) * np.cos(azimuth)])


def _clearance(azimuth: float, height: float, elbow: float, eyes_N3: Floats) -> float:
    """How far cameras are from the middle line of an arm, metres."""
    joint = np.array(HAND_M) + _ELBOW_M * _direction(azimuth, height)
    upper = joint + np.linspace(0.0, 0.35, 8)[:, None] * _direction(azimuth, height + elbow)
    line = np.concatenate([np.linspace(HAND_M, joint, 8), upper])
    return float(np.linalg.norm(eyes_N3[:, None] - line, axis=2).min())


def sample_hand_look(rng: np.random.Generator, person: Look) -> HandLook:
    """Draw how the hands of a person look."""
    skin = np.array(person.skin)
    polish = bool(rng.random() < 0.22)
    natural = np.clip(0.62 * skin + 0.38 * np.array((0.96, 0.74, 0.70)) + rng.normal(0.0, 0.015, 3), 0.05, 0.97)
    painted = colorsys.hsv_to_rgb(
        float(rng.normal(0.96, 0.06) % 1.0 if rng.random() < 0.7 else rng.random()),
        float(rng.uniform(0.25, 0.95)),
        float(rng.uniform(0.25, 0.95)),
    )
    rings = tuple(
        Ring(
            side=str(rng.choice(("right", "left"))),
            finger=str(rng.choice(("ring", "middle", "index", "pinky", "thumb"), p=(0.45, 0.2, 0.18, 0.09, 0.08))),
            at=float(rng.uniform(0.58, 0.8)),
            width_m=float(rng.uniform(0.0025, 0.006)),
            colour=_METALS[int(rng.choice(4, p=(0.45, 0.35, 0.12, 0.08)))],
        )
        for _ in range(int(rng.choice(4, p=(0.5, 0.28, 0.14, 0.08))))
    )
    watch = Watch(
        side=str(rng.choice(("left", "right"), p=(0.75, 0.25))),
        strap=person.accent if rng.random() < 0.4 else _grey(rng.choice((0.06, 0.12, 0.3))),
        case=_METALS[int(rng.integers(4))],
        dial=_grey(rng.choice((0.05, 0.08, 0.85, 0.93))),
        radius_m=float(rng.uniform(0.013, 0.019)),
    )
    gloved, watched = rng.random() < 0.1, rng.random() < 0.25
    sleeve_m = float(
        rng.choice((rng.uniform(0.0, 0.02), rng.uniform(0.03, 0.07), rng.uniform(0.09, 0.16)), p=(0.4, 0.3, 0.3))
    )
    return HandLook(
        skin=person.skin,
        age=float(rng.beta(1.3, 1.8)),
        mottled=float(rng.uniform(0.2, 1.0)),
        nail=_colour(painted if polish else natural),
        polish=polish,
        rings=() if gloved else rings,
        watch=watch if watched and not gloved else None,
        glove=_glove(rng) if gloved else None,
        sleeve=person.top.pattern,
        cuff=person.accent if rng.random() < 0.3 else person.top.pattern.colours[0],
        sleeve_m=min(sleeve_m, 0.02) if gloved else max(sleeve_m, 0.055) if watched else sleeve_m,
        loose_m=float(rng.uniform(0.003, 0.013)),
        cuff_m=float(rng.uniform(0.012, 0.06)),
        seed=int(rng.integers(2**31)),
    )


def _glove(rng: np.random.Generator) -> Pattern:
    ground = np.array(
        colorsys.hsv_to_rgb(float(rng.random()), float(rng.uniform(0.0, 0.7)), float(rng.uniform(0.08, 0.9)))
    )
    return Pattern(
        kind=str(rng.choice(_GLOVE_KINDS, p=(0.45, 0.15, 0.12, 0.12, 0.08, 0.08))),
        colours=(_colour(ground), _colour(ground * rng.uniform(0.55, 0.9)), _colour(1.0 - 0.8 * ground)),
        tile_m=float(rng.uniform(0.06, 0.14)),
        seed=int(rng.integers(2**31)),
    )


def _grey(value: float) -> Colour:
    return _colour((value, value, value))


def _colour(rgb: object) -> Colour:
    red, green, blue = np.clip(np.asarray(rgb, dtype=np.float64), 0.02, 0.98).round(4).tolist()
    return (red, green, blue)
