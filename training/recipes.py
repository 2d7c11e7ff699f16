"""What decides the result of a pre-training, by name: `body`, `hand`, `body_rope`, `demo`, `smoke`.

Where it runs (folders, device, processes) is no part of a recipe. A YAML file may name a recipe and change fields of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from training.augment import Augmentation
from training.masking import PadTo, num_visible
from training.model.croco import Architecture, base_small


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainRecipe:
    """Settings of a pre-training run.

    Args:
        name: how people call it.
        architecture: the network.
        augmentation: how training images are varied.
        mask: hide patches of the person first, or without regard to the person.
        mask_ratio: share of patches hidden.
        human_coverage: least share of a patch that the person covers for it to count as human.
        pad_to: visible patches of every image: the most that any image of the batch needs, or a fixed number.
        batch_size: pairs of a step, over all processes.
        num_steps: steps of the run.
        warmup_steps: steps over which the learning rate rises.
        anneal_steps: step at which the cosine reaches 0; a later one than `num_steps` stops while the rate is still high.
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
    architecture: Architecture = field(default_factory=base_small)
    augmentation: Augmentation = field(default_factory=Augmentation)
    mask: Literal["human", "uniform"] = "human"
    mask_ratio: float = 0.75
    human_coverage: float = 0.10
    pad_to: PadTo = "batch_max"
    batch_size: int = 256
    num_steps: int
    warmup_steps: int
    anneal_steps: int
    base_lr: float = 1.5e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    validate_every: int
    validation_pairs: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_steps", "validate_every", "validation_pairs"):
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
    return replace(body(), name="body_rope", architecture=replace(base_small(), positions="rope"))


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
        num_steps=20,
        warmup_steps=4,
        anneal_steps=20,
        base_lr=3e-2,
        validate_every=10,
        validation_pairs=16,
    )


RECIPES: Mapping[str, Callable[[], PretrainRecipe]] = {
    recipe.__name__: recipe for recipe in (body, hand, body_rope, demo, smoke)
}
"""Recipes that a command line or a YAML file may name."""
