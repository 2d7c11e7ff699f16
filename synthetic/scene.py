"""A scene as pure data: who, dressed how, moving how, lit how, where, and seen from where.

A scene follows from (recipe, seed, index) alone. An identity keeps shape and clothes over its scenes; a scene keeps room,
light and cameras over its instants. So two cameras at one instant are a cross-view pair, and two instants of one camera a
cross-pose pair.
"""

import dataclasses
import json
from dataclasses import dataclass

import numpy as np

from manifests.errors import RecipeError
from manifests.recipes import from_mapping
from manifests.seeds import rng_for
from synthetic.camera import TARGET_M, Camera, sample_ring
from synthetic.looks import Look, sample_look
from synthetic.patterns import FLOOR_KINDS, WALL_KINDS, Colour, Pattern

CLIPS = (
    "backflip", "cartwheel", "crawl", "dance_a", "dance_b", "jump", "kick", "punch", "roll", "run", "spin", "spinkick", "walk",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneRecipe:
    """What is rendered.

    Attributes:
        num_identities: different people; the unit by which train and val are split.
        scenes_per_identity: rooms, motions and camera rings for each of them.
        instants_per_scene: poses in each scene.
        num_views: cameras in each scene.
        image_px: side of the square images.
        person_share_min: smallest share of the image side that the person's longer side takes.
        person_share_max: largest share.
        elevation_min_deg: lowest camera, degrees over the person's middle.
        elevation_max_deg: highest camera.
        distance_min_m: nearest camera.
        distance_max_m: farthest camera.
        clips: names of motion clips, or patterns as "ACCAD/*" of those that are there.
        motion: a folder of your own clips, read beside the free ones: BVH, ASF with AMC, AMASS in either release.
    """

    num_identities: int = 24
    scenes_per_identity: int = 2
    instants_per_scene: int = 4
    num_views: int = 4
    image_px: int = 256
    person_share_min: float = 0.68
    person_share_max: float = 0.86
    elevation_min_deg: float = -6.0
    elevation_max_deg: float = 32.0
    distance_min_m: float = 2.6
    distance_max_m: float = 4.8
    clips: tuple[str, ...] = CLIPS
    motion: str | None = None

    def __post_init__(self) -> None:
        for name in ("num_identities", "scenes_per_identity", "instants_per_scene", "num_views"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 32 <= self.image_px <= 1024:
            raise ValueError(f"image_px must lie in [32, 1024], got {self.image_px}")
        if not 0.1 <= self.person_share_min <= self.person_share_max <= 0.95:
            raise ValueError("person shares must satisfy 0.1 <= min <= max <= 0.95, or the person would be cut")
        if not -12.0 <= self.elevation_min_deg <= self.elevation_max_deg <= 75.0:
            raise ValueError(
                "elevations must satisfy -12 <= min <= max <= 75 degrees: lower cameras stand below the floor"
            )
        if not 2.2 <= self.distance_min_m <= self.distance_max_m <= 6.0:
            raise ValueError("distances must satisfy 2.2 <= min <= max <= 6 metres: the room ends there")
        lowest_m = TARGET_M[1] + self.distance_max_m * np.sin(np.deg2rad(self.elevation_min_deg))
        if lowest_m < 0.1:
            raise ValueError(
                f"a camera at {self.elevation_min_deg} degrees and {self.distance_max_m} m stands below the floor"
            )
        if not self.clips or len(set(self.clips)) != len(self.clips):
            raise ValueError(f"clips must be different names, at least one: {self.clips}")

    @property
    def num_scenes(self) -> int:
        """How many scenes there are."""
        return self.num_identities * self.scenes_per_identity

    @property
    def num_images(self) -> int:
        """How many images there are."""
        return self.num_scenes * self.instants_per_scene * self.num_views


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """Light from all sides, and one lamp that is stronger.

    Attributes:
        sh: nine spherical-harmonic coefficients of incoming light for each of R, G, B.
        lamp: unit direction towards the lamp; it casts the shadow.
        shadow: how dark the shadow on the floor is, 0 none.
    """

    sh: tuple[tuple[float, ...], ...]
    lamp: tuple[float, float, float]
    shadow: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A box that stands in the room, away from the person and the cameras.

    Attributes:
        centre_m: (x, z) on the floor.
        size_m: width, height, depth.
        yaw_rad: turn around the vertical.
        pattern: its surface.
    """

    centre_m: tuple[float, float]
    size_m: tuple[float, float, float]
    yaw_rad: float
    pattern: Pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Floor, four walls with things on them, ceiling, boxes.

    Attributes:
        half_m: half the inner width along x and z.
        height_m: of the walls.
        floor: pattern of the floor.
        walls: pattern of each wall.
        ceiling: colour of the ceiling.
        boxes: furniture.
        seed: of pictures, windows and skirting boards.
    """

    half_m: tuple[float, float]
    height_m: float
    floor: Pattern
    walls: tuple[Pattern, ...]
    ceiling: Colour
    boxes: tuple[Box, ...]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One person in one room through a few instants, seen by all cameras of a ring.

    Attributes:
        index: position in the recipe's list of scenes.
        identity: name of the person, as "p0007".
        betas: ten shape coefficients of the body.
        look: skin, hair and clothes.
        clip: name of the motion.
        phases: for each instant, its position in the clip in [0, 1), ascending.
        cameras: the views.
        light: the lighting.
        room: the background.
        image_px: side of the square images.
    """

    index: int
    identity: str
    betas: tuple[float, ...]
    look: Look
    clip: str
    phases: tuple[float, ...]
    cameras: tuple[Camera, ...]
    light: Light
    room: Room
    image_px: int

    def to_json(self) -> str:
        """Write the scene as sorted JSON; equal scenes give equal text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Scene":
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text is no scene.
        """
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError(f"the text is no scene but {type(data).__name__}")
        try:
            return from_mapping(cls, data, where="scene")
        except RecipeError as error:
            raise ValueError(f"the text is no scene: {error}") from error


def sample_scene(recipe: SceneRecipe, seed: int, scene: int) -> Scene:
    """Draw a scene.

    Args:
        recipe: what is rendered; its clips are names, with all patterns replaced (`motion.choose_clips`).
        seed: root of all randomness.
        scene: index in [0, recipe.num_scenes); the identity is `scene // recipe.scenes_per_identity`.

    Returns:
        The scene; it does not depend on `num_identities`, so a longer list of people starts with the shorter one.

    Raises:
        ValueError: there is no scene of that index.
    """
    if not 0 <= scene < recipe.num_scenes:
        raise ValueError(f"scene must lie in [0, {recipe.num_scenes}), got {scene}")
    identity = scene // recipe.scenes_per_identity
    person = rng_for(seed, "identity", identity)
    rng = rng_for(seed, "scene", identity, scene % recipe.scenes_per_identity)
    start = rng.random()
    steps = (
        np.arange(recipe.instants_per_scene) + rng.uniform(-0.25, 0.25, recipe.instants_per_scene)
    ) / recipe.instants_per_scene
    light = _sample_light(rng)
    cameras = sample_ring(
        rng,
        recipe.num_views,
        elevation_rad=(float(np.deg2rad(recipe.elevation_min_deg)), float(np.deg2rad(recipe.elevation_max_deg))),
        distance_m=(recipe.distance_min_m, recipe.distance_max_m),
        person_share=(recipe.person_share_min, recipe.person_share_max),
    )
    return Scene(
        index=scene,
        identity=f"p{identity:04d}",
        betas=tuple(np.clip(person.normal(0.0, 1.0, 10), -2.0, 2.0).round(4).tolist()),
        look=sample_look(person),
        clip=str(recipe.clips[int(rng.integers(len(recipe.clips)))]),
        phases=tuple(sorted(float(p) for p in (start + steps) % 1.0)),
        cameras=cameras,
        light=light,
        room=_sample_room(rng, recipe.distance_max_m, max(float(camera.eye_m[1]) for camera in cameras)),
        image_px=recipe.image_px,
    )


def light_lobe(direction: tuple[float, float, float]) -> tuple[float, ...]:
    """Nine spherical-harmonic coefficients of a lamp of unit strength in a unit direction.

    Source: Ramamoorthi and Hanrahan 2001, order (1, y, z, x, xy, yz, 3zz-1, xz, xx-yy).
    """
    x, y, z = direction
    return (
        0.282095, 0.488603 * y, 0.488603 * z, 0.488603 * x, 1.092548 * x * y, 1.092548 * y * z,
        0.315392 * (3 * z * z - 1), 1.092548 * x * z, 0.546274 * (x * x - y * y),
    )  # fmt: skip


def _sample_light(rng: np.random.Generator) -> Light:
    height, around = rng.uniform(0.5, 1.35), rng.uniform(0.0, 2 * np.pi)
    lamp = (float(np.cos(height) * np.sin(around)), float(np.sin(height)), float(np.cos(height) * np.cos(around)))
    side_height, side_around = rng.uniform(-0.1, 0.7), around + rng.uniform(1.5, 4.5)
    side = (
        float(np.cos(side_height) * np.sin(side_around)),
        float(np.sin(side_height)),
        float(np.cos(side_height) * np.cos(side_around)),
    )
    ambient, strength, fill = rng.uniform(0.3, 0.6), rng.uniform(0.35, 0.95), rng.uniform(0.05, 0.3)
    warmth = float(rng.normal(0.0, 0.06))
    tints = np.stack([(1 + warmth, 1.0, 1 - 1.3 * warmth), (1 - warmth, 1.0, 1 + 1.3 * warmth)])
    exposure = rng.uniform(0.82, 1.08) / (ambient + 0.8 * strength + 0.35 * fill)
    coefficients = np.zeros((3, 9))
    for channel in range(3):
        coefficients[channel, 0] += ambient / (0.886227 * 1.0) * tints[1, channel]
        coefficients[channel, 1] += 0.2 * ambient  # more from the sky than from the floor
        coefficients[channel] += strength * tints[0, channel] * np.array(light_lobe(lamp))
        coefficients[channel] += fill * tints[1, channel] * np.array(light_lobe(side))
    return Light(
        sh=tuple(tuple(row) for row in (coefficients * exposure).round(5).tolist()),
        lamp=lamp,
        shadow=float(0.25 + 0.5 * strength / (ambient + strength) + rng.uniform(-0.08, 0.08)),
    )


def _muted(rng: np.random.Generator, *, low: float = 0.25, high: float = 0.9) -> Colour:
    base = rng.uniform(low, high)
    tint = rng.normal(0.0, 0.04, 3) + rng.uniform(-0.03, 0.07) * np.array((1.0, 0.2, -1.0))  # indoors are a little warm
    return tuple(np.clip(base + tint, 0.03, 0.97).round(4).tolist())


def _surface(rng: np.random.Generator, kinds: tuple[str, ...], tile_m: tuple[float, float]) -> Pattern:
    ground = _muted(rng)
    shift = rng.uniform(-0.3, 0.1)
    figure = tuple(np.clip(np.array(ground) + shift + rng.normal(0.0, 0.05, 3), 0.02, 0.98).round(4).tolist())
    accent = tuple(np.clip(np.array(ground) * rng.uniform(0.35, 0.75), 0.02, 0.98).round(4).tolist())
    return Pattern(
        kind=str(rng.choice(kinds)),
        colours=(ground, figure, accent),
        tile_m=float(rng.uniform(*tile_m)),
        seed=int(rng.integers(2**31)),
    )


def _sample_room(rng: np.random.Generator, reach_m: float, highest_m: float) -> Room:
    half = rng.uniform(reach_m + 0.7, reach_m + 2.6, 2)
    boxes = []
    for _ in range(int(rng.integers(4, 11))):
        wall, along = int(rng.integers(4)), rng.uniform(-0.95, 0.95)
        size = rng.uniform((0.3, 0.3, 0.25), (1.6, 2.1, 0.55))
        across = half[0 if wall < 2 else 1] - size[2] / 2 - 0.02
        x, z = (across, along * half[1]) if wall < 2 else (along * half[0], across)
        sign = 1.0 if wall % 2 else -1.0
        boxes.append(
            Box(
                centre_m=(float(x * (sign if wall < 2 else 1.0)), float(z * (1.0 if wall < 2 else sign))),
                size_m=(float(size[0]), float(size[1]), float(size[2])),
                yaw_rad=float(np.pi / 2 if wall < 2 else 0.0),
                pattern=_surface(rng, (*WALL_KINDS, "check", "camo"), (0.4, 1.2)),
            )
        )
    wall_pattern = _surface(rng, WALL_KINDS, (0.8, 2.0))
    other = _surface(rng, WALL_KINDS, (0.8, 2.0))
    return Room(
        half_m=(float(half[0]), float(half[1])),
        height_m=float(max(rng.uniform(2.9, 4.4), highest_m + 0.4)),
        floor=_surface(rng, FLOOR_KINDS, (1.2, 3.0)),
        walls=tuple(other if rng.random() < 0.3 else wall_pattern for _ in range(4)),
        ceiling=_muted(rng, low=0.7, high=0.95),
        boxes=tuple(boxes),
        seed=int(rng.integers(2**31)),
    )
