"""Build recipes: what decides the bytes of a build, and nothing about the machine it runs on."""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Literal

from manifests.recipes import ABOVE_0, BELOW_1, check_ranges
from manifests.sample import MAX_FURTHER
from manifests.types import KEY_PART, Split
from pipeline.parsers.label_maps import LABEL_MAPS
from synthetic.scene import SceneRecipe

MANY = 10**9  # more of anything than a build can have
MOST_LOG = 100  # of a weight in the mixture: e^100
HASH_BITS = 64  # of a perceptual hash

# What frames may be flagged with; the pages of the datasets say which of them are theirs.
FLAGS = (
    "clock", "distorted", "evaluation", "gray", "interacting", "interpolated", "left", "no_eval", "official_split", "resampled",
    "rescaled", "right", "severely_occluded", "size_differs", "truncated", "uncalibrated", "unlabelled", "unsynchronised",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecipe:
    """One raw dataset that takes part in a build.

    Attributes:
        kind: the layout on disk, a name of `pipeline.sources.SOURCES`.
        name: opens every key of this source; by default its kind.
        weight: its share in the training mixture, relative to the other sources.
        domain: what to take of it, where it has several; by default what the dataset mainly shows.
        frame_step: take every n-th instant; the clock is kept.
        splits: of the dataset's own splits, those to take. Evaluation sets are never paired, taken or not.
        protocol: the dataset's split protocol, where it has several (see docs/datasets).
        without: leave out frames that carry one of these flags, such as `gray`.
        licence: your own words for its terms, in place of what is known of it.
    """

    kind: str
    name: str = ""
    weight: float = 1.0
    domain: Literal["body", "hand"] | None = None
    frame_step: int = 1
    splits: tuple[Split, ...] = (Split.TRAIN, Split.VAL)
    protocol: str | None = None
    without: tuple[str, ...] = ()
    licence: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.kind)
        if not KEY_PART.fullmatch(self.name):
            raise ValueError(f"source name {self.name!r} must match [a-z0-9_-]+")
        check_ranges(self, weight=(ABOVE_0, math.inf), frame_step=(1, MANY))
        for flag in self.without:
            if flag not in FLAGS:
                near = difflib.get_close_matches(flag, FLAGS, n=1)
                hint = f"did you mean `{near[0]}`" if near else f"flags are {', '.join(FLAGS)}"
                raise ValueError(f"source {self.name}: no frame carries a flag `{flag}`; {hint}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRecipe:
    """Who is held out. A group (subject or recording, see `frames.group`) is never in two splits.

    Attributes:
        val_groups: groups that go to `val`, by name.
        val_share: of the other groups, about this share goes to `val`, chosen by the hash of the group's name.
    """

    val_groups: tuple[str, ...] = ()
    val_share: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(self, val_share=(0, BELOW_1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ParserRecipe:
    """Which human parser draws silhouettes and finds people.

    Attributes:
        backend: `selfie` (embedded default), `mmseg` (any config and checkpoint), or `none` (whole frame, no silhouette).
        threshold: person probability from which a pixel is the person.
        config: mmseg config: a file, or the name of one that ships with mmseg.
        checkpoint: mmseg weights on disk (plain state dict, or safetensors).
        labels: the label set that the mmseg net was trained on, a name of `pipeline.parsers.label_maps.LABEL_MAPS`.
        person_classes: names or indices of the classes that are a person, in place of those of `labels`; without both,
            looked up in the class names that come with the checkpoint or the config.
        input_px: side of the square that the mmseg net sees; by default from its config.
        precision: of the mmseg net's arithmetic. Half precision is for GPUs that are fast at it.
        engine: what runs the nets of `selfie`. `litert` needs the package ai-edge-litert and is some four times as fast;
            its last digits differ.
    """

    backend: Literal["selfie", "mmseg", "none"] = "selfie"
    threshold: float = 0.4
    config: str | None = None
    checkpoint: str | None = None
    labels: str | None = None
    person_classes: tuple[int | str, ...] = ()
    input_px: int | None = None
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    engine: Literal["opencv", "litert"] = "opencv"

    def __post_init__(self) -> None:
        check_ranges(self, threshold=(ABOVE_0, BELOW_1), input_px=(32, 4096))
        if self.labels is not None and self.labels not in LABEL_MAPS:
            raise ValueError(f"labels {self.labels!r} is no known label set; known: {', '.join(LABEL_MAPS)}")
        if self.backend == "mmseg" and self.config is None:
            raise ValueError("backend mmseg needs a config")


@dataclass(frozen=True, slots=True, kw_only=True)
class CropRecipe:
    """How people are found, followed and cut out.

    Attributes:
        size_px: side of the stored crop.
        margin: side of the square over the longer side of the person's box.
        jpeg_quality: of the stored crop (baseline, 4:2:0).
        detect_every: frames between two looks at the whole image for new people.
        min_person_px: a person whose box has a shorter longer side than this is TOO_SMALL.
        min_track: frames a person must be followed to be trusted.
        black_mean: a frame of mean luma below this is BLACK.
        frozen_difference: mean absolute luma difference to the frame before below which a frame is FROZEN.
        cut_difference: the same, above which the picture may have changed at once.
        cut_correlation: with it, the correlation of the two pictures as thumbnails, below which that is a CUT.
        time_gap: a step of more than this many usual steps is a TIME_GAP.
        meet_m: rays of the subject's crops must pass each other within this distance, metres.
        max_people: people followed at once in one view.
        silhouettes: who draws the person of a box that the dataset gave, tried in this order: `labels` (the dataset's masks,
            model vertices or capsules, where it has them), `parser` (kept to this person by his keypoints or his box),
            `keypoints` (those of the dataset, drawn as capsules: nearly as good as the default parser, and free).
    """

    size_px: int = 256
    margin: float = 1.25
    jpeg_quality: int = 90
    detect_every: int = 15
    min_person_px: int = 64
    min_track: int = 5
    black_mean: float = 10.0
    frozen_difference: float = 0.0625
    cut_difference: float = 10.0
    cut_correlation: float = 0.6
    time_gap: float = 2.5
    meet_m: float = 0.35
    max_people: int = 4
    silhouettes: tuple[Literal["labels", "parser", "keypoints"], ...] = ("labels", "parser", "keypoints")

    def __post_init__(self) -> None:
        if self.size_px % 64:
            raise ValueError("size_px must be a multiple of 64, the cells of a silhouette")
        check_ranges(
            self,
            size_px=(64, 4096),
            margin=(1, 3),
            jpeg_quality=(50, 100),
            detect_every=(1, MANY),
            min_person_px=(0, MANY),
            min_track=(1, MANY),
            black_mean=(0, 255),
            frozen_difference=(0, 255),
            cut_difference=(0, 255),
            cut_correlation=(-1, 1),
            time_gap=(1, math.inf),
            meet_m=(ABOVE_0, math.inf),
            max_people=(1, MANY),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Strata:
    """Wished shares of classes of pairs.

    Attributes:
        edges: rising; the first class reaches from the first edge to below the second. The last holds its upper edge too.
        shares: of each class, relative to the others. A class that has too few candidates stays small; the others do not
            take its place. Pairs in no class are left out.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.shares) + 1 or not self.shares:
            raise ValueError(f"edges must be one more than shares, not {len(self.edges)} and {len(self.shares)}")
        if not all(map(math.isfinite, self.edges)) or any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError(f"edges {self.edges} must be finite and rise")
        if not all(share >= 0 for share in self.shares) or not 0 < sum(self.shares) < math.inf:
            raise ValueError(f"shares {self.shares} must be finite, not negative, and not all 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRecipe:
    """How pairs are drawn from crops, per sequence and kind.

    By default chance alone decides, as in the paper: any two cameras, back and front included, and any two times.

    Attributes:
        cross_view: most cross-view pairs of a sequence.
        cross_pose: most cross-pose pairs of a sequence.
        equal_kinds: draw both kinds in equal number from each sequence.
        per_subject: most pairs of each kind that show one person, over all sequences; of a person that the dataset does not
            name, over the sequence. By default no limit.
        min_dt_s: least time between the two images of a cross-pose pair.
        min_hash_distance: least number of differing bits of the perceptual hashes; fewer are ALIKE.
        min_covisibility: least share of the body shown by either image that the other shows too, where that is known
            (rendered people); less is LOW_COVISIBILITY.
        view_angle_deg: shares of angles between the views of cross-view pairs, degrees in [0, 180]. Sequences without
            calibration are drawn from as chance has it; of those with more than a million candidates, a million chosen by
            chance are looked at.
        time_gap_s: shares of times between the images of cross-pose pairs. Sequences without a clock are drawn from as
            chance has it.
        swap_roles: let chance decide which image is the target.
        num_views: images of a sample. Those beyond two are further cameras of the target's instant, as many as there are.
        mixed_tuples: give further cameras to cross-pose pairs too: one tuple shows another time and another side.
        temperature: of the mixture: weights of sources are raised to 1 / temperature. Above 1 evens them out.
    """

    cross_view: int = 2000
    cross_pose: int = 2000
    equal_kinds: bool = False
    per_subject: int | None = None
    min_dt_s: float = 0.1
    min_hash_distance: int = 2
    min_covisibility: float = 0.0
    view_angle_deg: Strata | None = None
    time_gap_s: Strata | None = None
    swap_roles: bool = True
    num_views: int = 2
    mixed_tuples: bool = False
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_ranges(
            self,
            cross_view=(0, MANY),
            cross_pose=(0, MANY),
            per_subject=(1, MANY),
            min_dt_s=(0, MANY),
            min_hash_distance=(0, HASH_BITS),
            min_covisibility=(0, 1),
            num_views=(3 if self.mixed_tuples else 2, 2 + MAX_FURTHER),
            temperature=(ABOVE_0, math.inf),
        )
        if not self.cross_view + self.cross_pose:
            raise ValueError("cross_view and cross_pose are both 0: there would be no pair")
        if self.equal_kinds and not (self.cross_view and self.cross_pose):
            raise ValueError("equal_kinds needs both cross_view and cross_pose")
        for name, strata, kind, most in (
            ("view_angle_deg", self.view_angle_deg, "cross_view", 180.0),
            ("time_gap_s", self.time_gap_s, "cross_pose", MANY),
        ):
            if strata and not 0 <= strata.edges[0] < strata.edges[-1] <= most:
                raise ValueError(f"the edges of {name} must be in [0, {most:g}]")
            if strata and not getattr(self, kind):
                raise ValueError(f"{name} has nothing to sort: {kind} is 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecipe:
    """How pairs are packed. Attributes: `rows`, the most pairs of a shard; those of a block are of nearly one size."""

    rows: int = 512

    def __post_init__(self) -> None:
        check_ranges(self, rows=(1, MANY))


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRecipe:
    """Everything that decides a build.

    Attributes:
        name: of the recipe.
        seed: root of all named random streams.
        sources: raw datasets.
        render: synthetic people or hands to render, or none.
        render_weight: their share in the training mixture.
        max_reject_share: a unit that leaves out more than this share of its frames fails loudly.
    """

    name: str
    seed: int = 0
    sources: tuple[SourceRecipe, ...] = ()
    split: SplitRecipe = field(default_factory=SplitRecipe)
    render: SceneRecipe | None = None
    render_weight: float = 1.0
    parser: ParserRecipe = field(default_factory=ParserRecipe)
    crop: CropRecipe = field(default_factory=CropRecipe)
    pair: PairRecipe = field(default_factory=PairRecipe)
    shard: ShardRecipe = field(default_factory=ShardRecipe)
    max_reject_share: float = 0.95

    def __post_init__(self) -> None:
        check_ranges(self, render_weight=(ABOVE_0, math.inf), max_reject_share=(0, 1))
        names = [source.name for source in self.sources] + (["synthetic"] if self.render else [])
        if len(set(names)) != len(names):
            raise ValueError(f"two sources of one name in {names}")
        if self.render and self.render.image_px != self.crop.size_px:
            raise ValueError(
                f"render.image_px {self.render.image_px} must equal crop.size_px {self.crop.size_px}: renders are stored as they are"
            )
        if not names:
            raise ValueError("a recipe needs a source, or something to render")
        for weight in (*(source.weight for source in self.sources), self.render_weight):
            if not abs(math.log(weight) / self.pair.temperature) < MOST_LOG:
                raise ValueError(
                    f"a weight of {weight:g} at temperature {self.pair.temperature:g} is out of all proportion"
                )

    def source(self, name: str) -> SourceRecipe:
        """The source of this name."""
        return next(source for source in self.sources if source.name == name)


def cameras() -> BuildRecipe:
    """Your own rig: a folder per recording, one video or image folder per camera; one group in five is held out."""
    return BuildRecipe(
        name="cameras", sources=(SourceRecipe(kind="cameras", name="cameras"),), split=SplitRecipe(val_share=0.2)
    )


def videos() -> BuildRecipe:
    """Your own clips: any folder of videos; one clip in five is held out."""
    return BuildRecipe(
        name="videos", sources=(SourceRecipe(kind="videos", name="videos"),), split=SplitRecipe(val_share=0.2)
    )


def synthetic() -> BuildRecipe:
    """Rendered people only."""
    return BuildRecipe(name="synthetic", render=SceneRecipe(), split=SplitRecipe(val_share=0.2))


def synthetic_hand() -> BuildRecipe:
    """Rendered hands only, from a dome of cameras within reach."""
    hands = SceneRecipe(
        domain="hand",
        scenes_per_identity=4,
        rig="dome",
        person_share_min=0.5,
        person_share_max=0.8,
        elevation_min_deg=-20.0,
        elevation_max_deg=65.0,
        distance_min_m=0.4,
        distance_max_m=0.9,
    )
    return BuildRecipe(name="synthetic_hand", render=hands, split=SplitRecipe(val_share=0.2))


def free_body() -> BuildRecipe:
    """Rendered people to fine-tune and evaluate on: on their feet, from cameras near their height, with the labels that tasks need.

    The seed's people are none that pre-training sees. Who somersaults is left out: a small network learned next to nothing from a few
    thousand pictures of people in every attitude.
    """
    people = SceneRecipe(
        num_identities=400,
        scenes_per_identity=1,
        instants_per_scene=4,
        num_views=6,
        elevation_max_deg=15.0,
        clips=("walk", "run", "dance_a", "dance_b", "jump", "kick", "punch"),
        labels=("parts", "uv"),
    )
    return replace(synthetic(), name="free_body", seed=1, render=people)


def free_hand() -> BuildRecipe:
    """Rendered hands to fine-tune and evaluate on; the seed's people are none that pre-training sees. Many poses, few views of each."""
    hands = synthetic_hand()
    assert hands.render is not None
    render = replace(
        hands.render, num_identities=240, scenes_per_identity=4, instants_per_scene=3, num_views=3, labels=()
    )
    return replace(hands, name="free_hand", seed=1, render=render)


def demo() -> BuildRecipe:
    """The road in a quarter of an hour: a real recording of four cameras, a real clip, and rendered people.

    The clip's people and some of the rendered identities are held out.
    """
    return BuildRecipe(
        name="demo",
        sources=(
            SourceRecipe(kind="cameras", name="cameras"),
            SourceRecipe(kind="videos", name="videos", frame_step=2),
        ),
        split=SplitRecipe(val_groups=("sports2d",), val_share=0.2),
        render=SceneRecipe(num_identities=48, scenes_per_identity=1),
        render_weight=2.0,  # one man fills all real recordings; many people teach more
        pair=PairRecipe(cross_pose=800),  # no clip outweighs the rest
    )


# The datasets that are read as they lie on disk: each is also the name of a recipe of this one source.
DATASETS = (
    "humbi", "aist", "interhand", "3dpw", "posetrack", "pennaction", "jrdb", "mars", "dexycb", "ho3d", "hanco", "freihand",
)  # fmt: skip


# Every n-th instant of those that film so fast that neighbours are nearly equal pictures: ten and five a second.
FRAME_STEPS = {"aist": 6, "jrdb": 3}


def _sources(*kinds: str) -> tuple[SourceRecipe, ...]:
    return tuple(SourceRecipe(kind=kind, name=kind, frame_step=FRAME_STEPS.get(kind, 1)) for kind in kinds)


def dataset(kind: str) -> BuildRecipe:
    """One dataset, and nothing else; of one without splits of its own, one group in ten is held out."""
    return BuildRecipe(name=kind, sources=_sources(kind), split=SplitRecipe(val_share=0.1))


def humbi_hand() -> BuildRecipe:
    """The hand sessions of HUMBI; its body sessions are other recordings and have a recipe of their own."""
    return replace(
        dataset("humbi"), name="humbi_hand", sources=(SourceRecipe(kind="humbi", name="humbi_hand", domain="hand"),)
    )


def body() -> BuildRecipe:
    """The data of CroCo-Body: multi-view sets, videos, and rendered people (paper, section 3; decision 0005)."""
    return BuildRecipe(
        name="body",
        sources=_sources("humbi", "aist", "3dpw", "posetrack", "pennaction", "jrdb", "mars"),
        split=SplitRecipe(val_share=0.1),
        render=SceneRecipe(num_identities=1000, scenes_per_identity=2),
    )


def hand() -> BuildRecipe:
    """The data of CroCo-Hand: InterHand2.6M, cross-view and cross-pose in equal number (paper, section 3)."""
    return replace(dataset("interhand"), name="hand", pair=PairRecipe(equal_kinds=True))


def hand_plus() -> BuildRecipe:
    """The data of CroCo-Hand, and more hands: DexYCB, HO3D, HanCo and those of HUMBI."""
    sources = (*_sources("interhand", "dexycb", "ho3d", "hanco"), *humbi_hand().sources)
    return BuildRecipe(name="hand_plus", sources=sources, split=SplitRecipe(val_share=0.1))


RECIPES: dict[str, Callable[[], BuildRecipe]] = {
    **{recipe.__name__: recipe for recipe in (cameras, videos, synthetic, synthetic_hand, free_body, free_hand, demo)},
    **{kind: partial(dataset, kind) for kind in DATASETS},
    **{recipe.__name__: recipe for recipe in (humbi_hand, body, hand, hand_plus)},
}
