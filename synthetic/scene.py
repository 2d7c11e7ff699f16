"""A scene as pure data: who, dressed how, moving how, lit how, where, and seen from where.

A scene follows from (recipe, seed, index) alone. An identity keeps shape and clothes over its scenes; a scene keeps room,
light and cameras over its instants. So two cameras at one instant are a cross-view pair, and two instants of one camera a
cross-pose pair.
"""

import dataclasses
import json
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from manifests.errors import RecipeError
from manifests.recipes import from_mapping
from manifests.seeds import rng_for, seed_for
from synthetic.camera import TARGET_M, Camera, Framing, Rig, Side, sample_rig
from synthetic.looks.hand_look import HAND_M, Hand, sample_hand
from synthetic.looks.look import Look, chance_of_woman, sample_look
from synthetic.patterns import FLOOR_KINDS, WALL_KINDS, Colour, Pattern
from synthetic.places.backdrop import Backdrop
from synthetic.places.props import PERSON_M, Prop, muted, sample_furniture, sample_occluders, sample_surface
from synthetic.sensor import Sensor

if TYPE_CHECKING:
    from synthetic.places.backdrops import Backdrops

Domain = Literal["body", "hand"]
Background = Literal["room", "images", "panoramas", "meshes"]

CLIPS = (
    "backflip", "cartwheel", "crawl", "dance_a", "dance_b", "jump", "kick", "punch", "roll", "run", "spin", "spinkick", "walk",
)  # fmt: skip


MAX_SCENES = 5_000_000  # each is a unit of a build; more is a slip of the finger
LABELS = ("parts", "depth", "normals", "uv")
_DISTANCES_M: dict[Domain, tuple[float, float]] = {"body": (2.2, 10.0), "hand": (0.25, 2.0)}
_OPEN_M = 2.5  # how high things stand where no ceiling is known
_CLOSE_UPS: tuple[tuple[Framing, float], ...] = (("full", 0.5), ("upper", 0.3), ("hands", 0.2))


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneRecipe:
    """What is rendered.

    Attributes:
        num_identities: different people; the unit by which train and val are split.
        scenes_per_identity: rooms, motions and sets of cameras for each of them.
        instants_per_scene: poses in each scene.
        num_views: cameras in each scene.
        image_px: side of the square images.
        domain: people, or their hands.
        rig: where cameras stand: on a ring, evenly on a dome, at random, or as SURREAL's.
        framing: the whole person, a close-up of the upper body or of a hand with its forearm, or "mixed": scenes of all three.
        person_share_min: smallest share of the image side that the longer side of what is framed takes; with the distance it
            decides the focal length.
        person_share_max: largest share.
        elevation_min_deg: lowest camera, degrees over the person's middle.
        elevation_max_deg: highest camera.
        distance_min_m: nearest camera.
        distance_max_m: farthest camera; a room grows with it.
        clips: names of motion clips, or patterns as "ACCAD/*". With `motion`, a pattern stands for your own clips only, so "*" is
            all of yours; a name for any.
        motion: a folder of your own clips, read beside the free ones: BVH, ASF with AMC, AMASS in either release.
        body: a model of your own, a clean npz as `python -m synthetic convert` writes it.
        textures: a folder of SURREAL's textures, for an SMPL in `body`.
        uv: the file of SMPL's texture coordinates, for `textures`.
        background: a procedural room, or what `backgrounds` holds.
        backgrounds: a folder of images, panoramas or meshes.
        annotations: COCO's annotations of the images, to leave out those with people; "none" if you know that there are none.
        num_occluders: most things that stand between cameras and person; they hide a part of it.
        noise: largest noise of the sensor, see `Sensor`; 0 is off.
        blur: largest blur, pixels; 0 is off.
        jpeg: how far JPEG quality falls below 100; 0 is off.
        white_balance: how far red and blue may be off; 0 is off.
        supersampling: 2 draws at twice the size and averages; 1 draws as it is: half the time, and jagged edges.
        labels: which maps are kept of a view, beside its silhouette: some of parts, depth, normals, uv.
    """

    num_identities: int = 24
    scenes_per_identity: int = 2
    instants_per_scene: int = 4
    num_views: int = 4
    image_px: int = 256
    domain: Domain = "body"
    rig: Rig = "ring"
    framing: Literal["full", "upper", "hands", "mixed"] = "full"
    person_share_min: float = 0.68
    person_share_max: float = 0.86
    elevation_min_deg: float = -6.0
    elevation_max_deg: float = 32.0
    distance_min_m: float = 2.6
    distance_max_m: float = 4.8
    clips: tuple[str, ...] = CLIPS
    motion: str | None = None
    body: str | None = None
    textures: str | None = None
    uv: str | None = None
    background: Background = "room"
    backgrounds: str | None = None
    annotations: str | None = None
    num_occluders: int = 0
    noise: float = 0.0
    blur: float = 0.0
    jpeg: int = 0
    white_balance: float = 0.0
    supersampling: int = 2
    labels: tuple[str, ...] = LABELS

    def __post_init__(self) -> None:
        for name in ("num_identities", "scenes_per_identity", "instants_per_scene", "num_views"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_scenes > MAX_SCENES:
            raise ValueError(
                f"{self.num_identities:,} people in {self.scenes_per_identity:,} scenes each are {self.num_scenes:,} scenes: "
                f"at most {MAX_SCENES:,} go into one recipe (another seed gives others)"
            )
        if not 32 <= self.image_px <= 1024:
            raise ValueError(f"image_px must lie in [32, 1024], got {self.image_px}")
        if self.supersampling not in (1, 2):
            raise ValueError(f"supersampling must be 1 or 2, got {self.supersampling}")
        if not 0.1 <= self.person_share_min <= self.person_share_max <= 0.95:
            raise ValueError("person shares must satisfy 0.1 <= min <= max <= 0.95, or the person would be cut")
        if not self.clips or len(set(self.clips)) != len(self.clips):
            raise ValueError(f"clips must be different names, at least one: {self.clips}")
        if len(set(self.labels)) != len(self.labels) or not set(self.labels) <= set(LABELS):
            raise ValueError(f"labels must be different names of {', '.join(LABELS)}: {self.labels}")
        self._check_words()
        self._check_cameras()
        self._check_surroundings()
        for name, most in (("num_occluders", 8), ("noise", 0.3), ("blur", 16), ("jpeg", 95), ("white_balance", 0.5)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must lie in [0, {most}], got {getattr(self, name)}")

    def _check_words(self) -> None:
        for name, hint in typing.get_type_hints(type(self)).items():
            known = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
            if known and getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")

    def _check_cameras(self) -> None:
        if not -75.0 <= self.elevation_min_deg <= self.elevation_max_deg <= 75.0:
            raise ValueError("elevations must satisfy -75 <= min <= max <= 75 degrees")
        low, high = _DISTANCES_M[self.domain]
        if not low <= self.distance_min_m <= self.distance_max_m <= high:
            raise ValueError(
                f"distances must satisfy {low:g} <= min <= max <= {high:g} metres for domain {self.domain}: "
                "give distance_min_m and distance_max_m"
            )
        lowest_m = TARGET_M[1] + self.distance_max_m * np.sin(np.deg2rad(self.elevation_min_deg))
        if lowest_m < 0.1:
            raise ValueError(
                f"a camera at {self.elevation_min_deg} degrees and {self.distance_max_m} m stands below the floor"
            )
        if self.rig == "dome" and self.elevation_max_deg < 45.0:
            raise ValueError("a dome reaches over the person: give elevation_max_deg of 45 to 75 for rig dome")
        if self.rig == "surreal":
            own = ("elevation_min_deg", "elevation_max_deg", "distance_min_m", "distance_max_m")
            plain = {field.name: field.default for field in dataclasses.fields(self)}
            given = [name for name in own if getattr(self, name) != plain[name]]
            if given or self.domain == "hand":
                raise ValueError(
                    "rig surreal has level cameras about 8 m from a body: "
                    + (f"leave {', '.join(given)} out" if given else "choose another rig for domain hand")
                )

    def _check_surroundings(self) -> None:
        if (self.background == "room") != (self.backgrounds is None):
            raise ValueError(
                "background room takes no folder: set background to what backgrounds holds, images, panoramas or meshes"
                if self.backgrounds
                else f"background {self.background} needs a folder: give backgrounds"
            )
        if self.annotations is not None and self.background != "images":
            raise ValueError("annotations tell which images hold people: they go with background images only")
        if self.num_occluders and self.background == "images":
            raise ValueError("occluders stand on a floor, and images have none: set num_occluders to 0")
        if (self.textures is None) != (self.uv is None) or (self.textures is not None and self.body is None):
            raise ValueError(
                "SURREAL's textures fit SMPL: give textures, uv and body (a converted SMPL), or none of them"
            )
        if self.domain == "hand":
            given = [
                f"{name} {value}"
                for name, value, plain in (
                    ("framing", self.framing, "full"),
                    ("num_occluders", self.num_occluders, 0),
                    ("textures", self.textures, None),
                    ("body", self.body, None),
                    ("motion", self.motion, None),
                )
                if value != plain
            ]
            if given:
                raise ValueError(f"domain hand renders hands alone: leave {', '.join(given)} out")

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
class Room:
    """Floor, four walls with things on them, ceiling, furniture.

    Attributes:
        half_m: half the inner width along x and z.
        height_m: of the walls.
        floor: pattern of the floor.
        walls: pattern of each wall.
        ceiling: colour of the ceiling.
        furniture: what stands along the walls.
        seed: of pictures, windows and skirting boards.
    """

    half_m: tuple[float, float]
    height_m: float
    floor: Pattern
    walls: tuple[Pattern, ...]
    ceiling: Colour
    furniture: tuple[Prop, ...]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One person in one room through a few instants, seen by all cameras of a rig.

    Attributes:
        index: position in the recipe's list of scenes.
        identity: name of the person, as "p0007".
        betas: ten shape coefficients of the body.
        look: skin, hair and clothes.
        clip: name of the motion; empty in scenes of a hand.
        phases: for each instant, its position in the clip in [0, 1), ascending.
        cameras: the views.
        light: the lighting.
        room: what is around, or none with a backdrop.
        backdrop: what stands behind from files, or none in a room.
        occluders: what stands between some cameras and the person.
        framing: what of the person the images show.
        side: which hand, for framing "hands" and in scenes of a hand.
        hand: its looks and movement, in scenes of a hand.
        sensor: faults of the cameras, or none.
        image_px: side of the square images.
        supersampling: how many times larger they are drawn.
    """

    index: int
    identity: str
    betas: tuple[float, ...]
    look: Look
    clip: str
    phases: tuple[float, ...]
    cameras: tuple[Camera, ...]
    light: Light
    room: Room | None
    backdrop: Backdrop | None
    occluders: tuple[Prop, ...]
    framing: Framing
    side: Side | None
    hand: Hand | None
    sensor: Sensor | None
    image_px: int
    supersampling: int

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


def sample_scene(recipe: SceneRecipe, seed: int, scene: int, backdrops: "Backdrops | None" = None) -> Scene:
    """Draw a scene.

    Args:
        recipe: what is rendered; its clips are names, with all patterns replaced (`motion.choose_clips`).
        seed: root of all randomness.
        scene: index in [0, recipe.num_scenes); the identity is `scene // recipe.scenes_per_identity`.
        backdrops: what `recipe.backgrounds` holds; none for rooms.

    Returns:
        The scene; it does not depend on `num_identities`, so a longer list of people starts with the shorter one.

    Raises:
        ValueError: there is no scene of that index, or backdrops are missing or too many.
        SyntheticError: a background is damaged or has no room for the cameras.
    """
    if (backdrops is None) != (recipe.background == "room"):
        raise ValueError(f"background {recipe.background} {'takes no' if backdrops else 'needs'} backdrops")
    if not 0 <= scene < recipe.num_scenes:
        raise ValueError(f"scene must lie in [0, {recipe.num_scenes}), got {scene}")
    identity = scene // recipe.scenes_per_identity
    person = rng_for(seed, "identity", identity)
    names = (identity, scene % recipe.scenes_per_identity)
    rng = rng_for(seed, "scene", *names)
    start = rng.random()
    steps = (
        np.arange(recipe.instants_per_scene) + rng.uniform(-0.25, 0.25, recipe.instants_per_scene)
    ) / recipe.instants_per_scene
    light = _sample_light(rng)
    cameras = sample_rig(
        rng,
        recipe.rig,
        recipe.num_views,
        elevation_rad=(float(np.deg2rad(recipe.elevation_min_deg)), float(np.deg2rad(recipe.elevation_max_deg))),
        distance_m=(recipe.distance_min_m, recipe.distance_max_m),
        person_share=(recipe.person_share_min, recipe.person_share_max),
        target_m=HAND_M if recipe.domain == "hand" else TARGET_M,
    )
    clip = str(recipe.clips[int(rng.integers(len(recipe.clips)))])
    room, backdrop, ceiling_m = None, None, _OPEN_M
    if backdrops is None:
        room = _sample_room(rng, cameras)
        ceiling_m = room.height_m
    else:
        backdrop = backdrops.sample(rng_for(seed, "backdrop", *names), cameras)
        cameras, light = backdrops.fit(backdrop, cameras), backdrops.light(backdrop) or light
    framing, side = _sample_framing(recipe, rng_for(seed, "framing", *names))
    betas = tuple(np.clip(person.normal(0.0, 1.0, 10), -2.0, 2.0).round(4).tolist())
    free = recipe.domain == "body" and recipe.body is None  # of other models the shapes do not tell
    look = sample_look(person, women=chance_of_woman(betas) if free else 0.5)
    hand = None
    if recipe.domain == "hand":
        hand = sample_hand(rng_for(seed, "hand", *names), rng_for(seed, "hands", identity), look, cameras)
    return Scene(
        index=scene,
        identity=f"p{identity:04d}",
        betas=betas,
        look=look,
        clip="" if hand else clip,
        phases=tuple(sorted(float(p) for p in (start + steps) % 1.0)),
        cameras=cameras,
        light=light,
        room=room,
        backdrop=backdrop,
        occluders=sample_occluders(
            rng_for(seed, "occluders", *names), recipe.num_occluders, cameras, ceiling_m, framing
        ),
        framing=framing,
        side=side,
        hand=hand,
        sensor=_sensor(recipe, seed_for(seed, "sensor", *names)),
        image_px=recipe.image_px,
        supersampling=recipe.supersampling,
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


def _sample_framing(recipe: SceneRecipe, rng: np.random.Generator) -> tuple[Framing, Side | None]:
    framing = (
        _CLOSE_UPS[int(rng.choice(len(_CLOSE_UPS), p=[share for _, share in _CLOSE_UPS]))][0]
        if recipe.framing == "mixed"
        else recipe.framing
    )
    left: bool = rng.random() < 0.5
    side: Side = "left" if left else "right"
    return framing, side if framing == "hands" or recipe.domain == "hand" else None


def _sensor(recipe: SceneRecipe, seed: int) -> Sensor | None:
    if not (recipe.noise or recipe.blur or recipe.jpeg or recipe.white_balance):
        return None
    return Sensor(noise=recipe.noise, blur=recipe.blur, jpeg=recipe.jpeg, white_balance=recipe.white_balance, seed=seed)


def _sample_room(rng: np.random.Generator, cameras: tuple[Camera, ...]) -> Room:
    eyes = np.array([camera.eye_m for camera in cameras])
    reach_m = max(float(np.linalg.norm(eyes[:, [0, 2]], axis=1).max()), 2.0 * PERSON_M)
    half = rng.uniform(reach_m + 0.7, reach_m + 2.6, 2)
    half_m = (float(half[0]), float(half[1]))
    wall, other = sample_surface(rng, WALL_KINDS, (0.8, 2.0)), sample_surface(rng, WALL_KINDS, (0.8, 2.0))
    return Room(
        half_m=half_m,
        height_m=float(max(rng.uniform(2.9, 4.4), eyes[:, 1].max() + 0.4)),
        floor=sample_surface(rng, FLOOR_KINDS, (1.2, 3.0)),
        walls=tuple(other if rng.random() < 0.3 else wall for _ in range(4)),
        ceiling=muted(rng, low=0.7, high=0.95),
        furniture=sample_furniture(rng, half_m),
        seed=int(rng.integers(2**31)),
    )
