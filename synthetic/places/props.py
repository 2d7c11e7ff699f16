"""Things that stand in a room, as pure data: furniture along the walls, and occluders between cameras and the person.

Shape letters: P points of a stand-in for the person.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from synthetic.camera import Camera, Framing
from synthetic.patterns import WALL_KINDS, Colour, Pattern

Floats = npt.NDArray[np.float64]
Kind = Literal["box", "shelf", "table", "chair", "plant", "pole"]

PERSON_M = 1.1  # around the middle of the floor, what a person's limbs may need
_SIZES_M: dict[Kind, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "box": ((0.3, 0.3, 0.25), (1.5, 2.0, 0.55)),
    "shelf": ((0.6, 0.9, 0.28), (1.4, 2.1, 0.4)),
    "table": ((0.8, 0.7, 0.5), (1.6, 0.78, 0.55)),
    "chair": ((0.42, 0.8, 0.42), (0.5, 1.0, 0.5)),
    "plant": ((0.4, 0.7, 0.4), (0.55, 1.7, 0.55)),
    "pole": ((0.08, 2.9, 0.08), (0.26, 2.9, 0.26)),
}
_ALONG_WALLS: dict[Kind, float] = {"box": 0.3, "shelf": 0.25, "table": 0.15, "chair": 0.1, "plant": 0.2}
_IN_THE_WAY: dict[Kind, float] = {"box": 0.2, "table": 0.1, "chair": 0.2, "plant": 0.25, "pole": 0.25}
_TRIALS = 40
_LEAST_HIDDEN = 0.06
Posture = Literal["standing", "lying"]
# Of what a camera frames; a hand is at one of many places, and is seen at most of them.
_MOST_HIDDEN: dict[Framing, dict[Posture, float]] = {
    "full": {"standing": 0.5, "lying": 0.7},
    "upper": {"standing": 0.5, "lying": 0.5},
    "hands": {"standing": 0.25, "lying": 0.35},
}


def _stand_in(radii_m: tuple[float, ...], heights_m: npt.ArrayLike) -> Floats:
    angle, radius, up = np.meshgrid(np.arange(8) * np.pi / 4.0, radii_m, heights_m)
    return np.stack([radius * np.cos(angle), up, radius * np.sin(angle)], axis=-1).reshape(-1, 3)


_LYING_P3 = _stand_in((0.3, 0.8), (0.1, 0.35, 0.6))
# Points of what is framed of a person in the middle of the floor: a pillar where it stands, a disc where it crawls or lies.
PERSONS_P3: dict[Framing, dict[Posture, Floats]] = {
    "full": {"standing": _stand_in((0.35,), np.linspace(0.1, 1.7, 9)), "lying": _LYING_P3},
    "upper": {"standing": _stand_in((0.25, 0.4), np.linspace(0.9, 1.75, 6)), "lying": _LYING_P3},
    "hands": {"standing": _stand_in((0.3, 0.6), np.linspace(0.6, 1.8, 7)), "lying": _LYING_P3},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prop:
    """A thing that stands in the room.

    Attributes:
        kind: what it is.
        centre_m: (x, z) on the floor.
        size_m: width, height, depth of the box that it fills.
        yaw_rad: turn around the vertical; its front looks along +z at 0, along +x at a quarter turn.
        pattern: its surface; a plant has a pot of the first colour and leaves of the others.
    """

    kind: Kind
    centre_m: tuple[float, float]
    size_m: tuple[float, float, float]
    yaw_rad: float
    pattern: Pattern


def muted(rng: np.random.Generator, *, low: float = 0.25, high: float = 0.9) -> Colour:
    """Draw the colour of a thing indoors: grey, a little warm."""
    base = rng.uniform(low, high)
    tint = rng.normal(0.0, 0.04, 3) + rng.uniform(-0.03, 0.07) * np.array((1.0, 0.2, -1.0))
    return _colour(base + tint)


def sample_surface(rng: np.random.Generator, kinds: Sequence[str], tile_m: tuple[float, float]) -> Pattern:
    """Draw a pattern of a floor, wall or piece of furniture: muted, its figure not far from its ground."""
    ground = muted(rng)
    return Pattern(
        kind=str(rng.choice(kinds)),
        colours=(
            ground,
            _colour(np.array(ground) + rng.uniform(-0.3, 0.1) + rng.normal(0.0, 0.05, 3)),
            _colour(np.array(ground) * rng.uniform(0.35, 0.75)),
        ),
        tile_m=float(rng.uniform(*tile_m)),
        seed=int(rng.integers(2**31)),
    )


def sample_furniture(rng: np.random.Generator, half_m: tuple[float, float]) -> tuple[Prop, ...]:
    """Draw things along the walls of a room, facing inwards, at most 0.55 m deep, none in another.

    Args:
        rng: source of randomness.
        half_m: half the inner width of the room along x and z.
    """
    covers = [sample_surface(rng, (*WALL_KINDS, "check", "camo"), (0.4, 1.2)) for _ in range(2)]
    props: list[Prop] = []
    for _ in range(int(rng.integers(6, 17))):
        kind = _choose(rng, _ALONG_WALLS)
        size = rng.uniform(*_SIZES_M[kind])
        wall, along = int(rng.integers(4)), rng.uniform(-1.0, 1.0)
        turn = (np.pi / 2, -np.pi / 2, 0.0, np.pi)[wall]
        across, free = (half_m if wall < 2 else half_m[::-1]) - np.array([size[2], size[0]]) / 2.0 - 0.02
        inwards, beside = np.array([np.sin(turn), np.cos(turn)]), np.array([np.cos(turn), -np.sin(turn)])
        x, z = beside * along * free - inwards * across
        prop = _prop(rng, kind, (float(x), float(z)), size, turn, covers[int(rng.integers(2))])
        if all(_apart(prop, other) for other in props):
            props.append(prop)
    return tuple(props)


def sample_occluders(
    rng: np.random.Generator, most: int, cameras: Sequence[Camera], height_m: float, framing: Framing = "full"
) -> tuple[Prop, ...]:
    """Draw things that stand between the person and some of the cameras.

    Each hides a part of what is framed from at least one camera; together they hide at most half of a standing person or of its
    upper body from any, 0.7 of a whole one that lies, and a hand at a quarter of the places where it may be, as far as the boxes
    tell that they fill. None stands where the person moves, or around a camera.

    Args:
        rng: source of randomness.
        most: how many; fewer where no room was found for one.
        cameras: the views.
        height_m: of the room, and so of poles.
        framing: what of the person the cameras show.
    """
    props: list[Prop] = []
    eyes = np.array([camera.eye_m for camera in cameras])
    covers = [sample_surface(rng, WALL_KINDS, (0.3, 0.9)) for _ in range(2)]
    for _ in range(most):
        for _ in range(_TRIALS):
            kind = _choose(rng, _IN_THE_WAY)
            size = rng.uniform(*_SIZES_M[kind])
            size[1] = height_m if kind == "pole" else min(size[1], 1.5)
            radius = float(np.hypot(size[0], size[2])) / 2.0
            view = int(rng.integers(len(cameras)))
            gaze = eyes[view, [0, 2]] / np.linalg.norm(eyes[view, [0, 2]])
            nearest, farthest = PERSON_M + radius, float(np.linalg.norm(eyes[view, [0, 2]])) - radius - 0.3
            away, aside, yaw = rng.uniform(0.0, 1.0), rng.uniform(-0.6, 0.6), float(rng.uniform(0.0, 2.0 * np.pi))
            x, z = gaze * (nearest + away * max(farthest - nearest, 0.0)) + aside * np.array([-gaze[1], gaze[0]])
            prop = _prop(rng, kind, (float(x), float(z)), size, yaw, covers[int(rng.integers(2))])
            clear = np.linalg.norm(eyes[:, [0, 2]] - (x, z), axis=1) > radius + 0.3
            seen = all(
                hidden_share(camera, (*props, prop), posture, framing) <= most_hidden
                for camera in cameras
                for posture, most_hidden in _MOST_HIDDEN[framing].items()
            )
            if (
                (clear | (eyes[:, 1] > size[1] + 0.3)).all()
                and all(_apart(prop, other) for other in props)
                and seen
                and hidden_share(cameras[view], (prop,), framing=framing) >= _LEAST_HIDDEN
            ):
                props.append(prop)
                break
    return tuple(props)


def hidden_share(
    camera: Camera, props: Sequence[Prop], posture: Posture = "standing", framing: Framing = "full"
) -> float:
    """Tell which share of a person, or of the part that is framed, the boxes around some things hide from a camera.

    Args:
        camera: the view.
        props: the things.
        posture: of the person, which is some points of `PERSONS_P3`.
        framing: what of it.

    Returns:
        Share of the rays to those points that the boxes cut, in [0, 1].
    """
    eye, person_P3 = camera.eye_m, PERSONS_P3[framing][posture]
    hidden = np.zeros(len(person_P3), dtype=bool)
    for prop in props:
        cos, sin = np.cos(prop.yaw_rad), np.sin(prop.yaw_rad)
        into_box = np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])
        half = np.array(prop.size_m) / 2.0
        centre = np.array([prop.centre_m[0], half[1], prop.centre_m[1]])
        start, ray_P3 = into_box @ (eye - centre), (person_P3 - eye) @ into_box.T
        ray_P3 = np.where(np.abs(ray_P3) < 1e-9, 1e-9, ray_P3)
        low, high = (-half - start) / ray_P3, (half - start) / ray_P3
        enters, leaves = np.minimum(low, high).max(axis=1), np.maximum(low, high).min(axis=1)
        hidden |= (enters < leaves) & (leaves > 0.0) & (enters < 1.0)
    return float(hidden.mean())


def _prop(
    rng: np.random.Generator, kind: Kind, centre_m: tuple[float, float], size: Floats, yaw_rad: float, pattern: Pattern
) -> Prop:
    if kind == "plant":
        leaf = np.array((0.16, 0.36, 0.1)) * rng.uniform(0.6, 1.5) + rng.normal(0.0, 0.03, 3)
        colours = (pattern.colours[0], _colour(leaf), _colour(leaf * rng.uniform(0.55, 0.85)))
        pattern = Pattern(kind="plain", colours=colours, tile_m=1.0, seed=pattern.seed)
    width, height, depth = (float(value) for value in size)
    return Prop(kind=kind, centre_m=centre_m, size_m=(width, height, depth), yaw_rad=yaw_rad, pattern=pattern)


def _apart(prop: Prop, other: Prop) -> bool:
    return float(np.hypot(*np.subtract(prop.centre_m, other.centre_m))) > (_radius_m(prop) + _radius_m(other)) * 0.9


def _radius_m(prop: Prop) -> float:
    return float(np.hypot(prop.size_m[0], prop.size_m[2])) / 2.0


def _choose(rng: np.random.Generator, chances: dict[Kind, float]) -> Kind:
    return list(chances)[int(rng.choice(len(chances), p=list(chances.values())))]


def _colour(values: Floats) -> Colour:
    red, green, blue = np.clip(values, 0.03, 0.97).round(4).tolist()
    return (red, green, blue)
