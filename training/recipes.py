"""What decides the result of a pre-training, by name: `body`, `hand`, `body_rope`, `mae_body`, ..., `study`, `demo`, `smoke`.

Where it runs (folders, device, processes) is no part of a recipe. A YAML file may name a recipe and change fields of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from training.augment import Augmentation
from training.masking import PadTo, num_visible
from training.model.croco import Architecture, base_base_rope, base_small, base_small_rope, large_base_rope


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainRecipe:
    """Settings of a pre-training run.

    Args:
        name: how people call it.
        network: complete the target with the help of its reference, or (`mae`) both images of a pair, each by itself.
        architecture: its size.
        augmentation: how training images are varied.
        symmetric: mask the reference, too, and complete both images, each with the help of what is seen of the other.
        num_references: images that help to complete a target: the reference, then the sample's further views. Where a sample has
            fewer, they are shown again in turn; one reference shown again and again is one reference.
        completion_weight: of the completion loss; 0 trains the encoder on keypoints alone.
        keypoint_weight: of the loss on heatmaps of 13 joints, told from the whole reference; 0: no keypoints are read.
        mask: hide patches of the person first, or without regard to the person.
        mask_ratio: share of patches hidden.
        human_coverage: least share of a patch that the person covers for it to count as human.
        pad_to: visible patches of every image: the most that any image of the group needs, or a fixed number.
        batch_size: pairs of a step, over all processes.
        group_size: pairs that are masked and pass through the network together; gradients of the groups are added up to a
            step's. It decides the visible length, so it is no matter of the machine.
        num_steps: steps of the run.
        warmup_steps: steps over which the learning rate rises.
        anneal_steps: step at which the cosine reaches 0; a later one than `num_steps` stops while the rate is still high.
        spike: after the warm-up, a step whose gradient is this many times as long as usual is left out.
        base_lr: learning rate for 256 pairs a step; the peak is base_lr * batch_size / 256.
        weight_decay: AdamW's, on weights only: neither on vectors nor on biases.
        betas: AdamW's.
        precision: of the forward pass on CUDA; a CPU always computes in float32, as it is slower in bfloat16.
        validate_every: steps between validations; one more closes the run.
        validation_pairs: at most so many pairs, spread evenly over the validation split.
        seed: of everything random in the run.

    Raises:
        ValueError: settings contradict each other.
    """

    name: str
    network: Literal["croco", "mae"] = "croco"
    architecture: Architecture = field(default_factory=base_small)
    augmentation: Augmentation = field(default_factory=Augmentation)
    symmetric: bool = False
    num_references: int = 1
    completion_weight: float = 1.0
    keypoint_weight: float = 0.0
    mask: Literal["human", "uniform"] = "human"
    mask_ratio: float = 0.75
    human_coverage: float = 0.10
    pad_to: PadTo = "batch_max"
    batch_size: int = 256
    group_size: int = 64
    num_steps: int
    warmup_steps: int
    anneal_steps: int
    base_lr: float = 1.5e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    spike: float = 10.0
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    validate_every: int
    validation_pairs: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_references", "batch_size", "group_size", "num_steps", "validate_every", "validation_pairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.warmup_steps < self.num_steps <= self.anneal_steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} < num_steps {self.num_steps} <= anneal_steps {self.anneal_steps}"
                " does not hold"
            )
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio must lie between 0 and 1, not {self.mask_ratio}")
        if not 0 < self.human_coverage <= 1:
            raise ValueError(f"human_coverage must lie in (0, 1], not {self.human_coverage}")
        if self.base_lr <= 0 or self.weight_decay < 0 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("base_lr must be positive, weight_decay at least 0, betas in [0, 1)")
        if self.batch_size % self.group_size:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of group_size {self.group_size}")
        if self.spike <= 1:
            raise ValueError(f"spike must be more than 1, not {self.spike}")
        if min(self.completion_weight, self.keypoint_weight) < 0 or not self.completion_weight + self.keypoint_weight:
            raise ValueError("completion_weight and keypoint_weight must be at least 0, and one of them more")
        if self.network == "mae" and (self.symmetric or self.architecture.positions != "cosine"):
            raise ValueError("an mae has cosine positions, and completes both images anyway: it cannot be symmetric")
        if self.num_references > 1 and self.masks_both:
            raise ValueError("several references are seen whole: neither an mae nor a symmetric recipe has them")
        self._check_patches()

    def _check_patches(self) -> None:
        full, total = num_visible(self.architecture.num_patches, self.mask_ratio), self.architecture.num_patches
        if full == total:
            raise ValueError(f"mask_ratio {self.mask_ratio} hides none of {total} patches")
        if self.pad_to not in ("batch_max", full):
            raise ValueError(f"pad_to {self.pad_to}: at mask_ratio {self.mask_ratio} only {full} fits every image")
        if self.augmentation.crop_px % self.architecture.image_px:
            raise ValueError(
                f"crop_px {self.augmentation.crop_px} is not a multiple of image_px {self.architecture.image_px}"
            )

    @property
    def peak_lr(self) -> float:
        """Learning rate at the end of the warm-up."""
        return self.base_lr * self.batch_size / 256

    @property
    def masks_both(self) -> bool:
        """Whether the reference is masked, too."""
        return self.symmetric or self.network == "mae"

    @property
    def full_length(self) -> int:
        """Visible patches of an image that is human everywhere."""
        return num_visible(self.architecture.num_patches, self.mask_ratio)


def body() -> PretrainRecipe:
    """CroCo-Body: start it from the public CroCo weights.

    The paper's text has no schedule; its budget (8 days on 4 A100) at CroCo's published speed is some 0.55 G pairs. As in
    CroCo, a tenth of the run warms up and the cosine is twice as long as the run.
    """
    return PretrainRecipe(
        name="body",
        num_steps=2_150_000,
        warmup_steps=215_000,
        anneal_steps=4_300_000,
        validate_every=10_000,
        validation_pairs=4096,
    )


def hand() -> PretrainRecipe:
    """CroCo-Hand: as `body`, with its smaller budget (2.25 days on 4 V100, some 0.11 G pairs)."""
    return replace(body(), name="hand", num_steps=430_000, warmup_steps=43_000, anneal_steps=860_000)


def body_rope() -> PretrainRecipe:
    """Settings of the paper with rotary positions; starts from CroCo v2's smallest weights."""
    return replace(body(), name="body_rope", architecture=base_small_rope())


def body_base() -> PretrainRecipe:
    """As `body_rope` with the Base decoder; starts from CroCo v2's ViT-B with that decoder."""
    return replace(body(), name="body_base", architecture=base_base_rope())


def body_large() -> PretrainRecipe:
    """As `body_base` with a ViT-Large; starts from CroCo v2's largest weights."""
    return replace(body(), name="body_large", architecture=large_base_rope())


def body_beyond() -> PretrainRecipe:
    """Beyond the paper: both images masked and completed, rotary positions, one visible length, the rate annealed to zero."""
    return replace(
        body_base(), name="body_beyond", symmetric=True, pad_to=body().full_length, anneal_steps=body().num_steps
    )


def body_views() -> PretrainRecipe:
    """Beyond the paper: as `body_rope`, each target with three references, of pairs that were drawn with further views."""
    return replace(body_rope(), name="body_views", num_references=3)


def mae_body() -> PretrainRecipe:
    """MAE-Body: the same data and loop, each image by itself; starts from random or MAE's own weights."""
    return replace(body(), name="mae_body", network="mae")


def mae_hand() -> PretrainRecipe:
    """MAE-Hand: as `mae_body`, with the budget of `hand`."""
    return replace(hand(), name="mae_hand", network="mae")


def keypoints() -> PretrainRecipe:
    """The encoder trained on keypoints alone, of pairs that know them."""
    return replace(body(), name="keypoints", completion_weight=0.0, keypoint_weight=1.0)


def body_keypoints() -> PretrainRecipe:
    """Completion as in `body`, and keypoints beside it."""
    return replace(body(), name="body_keypoints", keypoint_weight=1.0)


def demo() -> PretrainRecipe:
    """A small network at 112 px that learns visibly from a few thousand pairs in about four minutes on two CPU cores.

    Patches of 8 px: with 16 px it was twice as fast a step, but learned a dozen recordings by heart within two minutes.
    A zero prediction scores 191/192 here.
    """
    return PretrainRecipe(
        name="demo",
        architecture=Architecture(
            image_px=112, patch_px=8, enc_dim=128, enc_depth=4, enc_heads=4, dec_dim=96, dec_depth=3, dec_heads=3
        ),
        batch_size=32,
        group_size=32,
        num_steps=300,
        warmup_steps=20,
        anneal_steps=300,
        base_lr=8e-3,
        precision="float32",
        validate_every=100,
        validation_pairs=128,
    )


def smoke() -> PretrainRecipe:
    """The smallest run that goes through every part: some seconds on one CPU core."""
    return replace(
        demo(),
        name="smoke",
        architecture=Architecture(
            image_px=112, patch_px=16, enc_dim=64, enc_depth=2, enc_heads=2, dec_dim=64, dec_depth=2, dec_heads=2
        ),
        batch_size=8,
        group_size=8,
        num_steps=20,
        warmup_steps=4,
        anneal_steps=20,
        base_lr=3e-2,
        validate_every=10,
        validation_pairs=16,
    )


def study() -> PretrainRecipe:
    """A network for `make study`: does it use its reference? Half the size of `demo`'s images makes a step four times as cheap.

    At 0.9, as CroCo masks, little of the target is left to go by. See docs/pretraining.md.
    """
    return replace(
        demo(),
        name="study",
        architecture=replace(demo().architecture, image_px=56),
        mask_ratio=0.9,
        batch_size=64,
        group_size=64,
        num_steps=500,
        warmup_steps=50,
        anneal_steps=500,
        base_lr=4e-3,
        validate_every=250,
        validation_pairs=256,
    )


_SIZES = (body, hand, body_rope, body_base, body_large)
_ALL = (*_SIZES, body_beyond, body_views, mae_body, mae_hand, keypoints, body_keypoints, study, demo, smoke)
RECIPES: Mapping[str, Callable[[], PretrainRecipe]] = {recipe.__name__: recipe for recipe in _ALL}
"""Recipes that a command line or a YAML file may name."""
