"""From stored pairs to what the network takes: varied, masked, with heatmaps of joints where a recipe asks for them.

Shape letters: `B` pairs, `N` patches of an image, `V` visible, `M` masked, `G` silhouette cells or heatmap cells along a side,
`J` joints.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manifests.seeds import seed_for
from training.augment import fixed_draws, prepare, sample_draws
from training.batch import Batch
from training.keypoints import PATCH_CELLS, heatmaps, joints_of
from training.masking import Longest, Masks, human_masks, patch_coverage, uniform_masks
from training.noise import uniform_noise
from training.objective import Inputs
from training.recipes import PretrainRecipe
from training.source import PairSource

VALIDATION_BATCH = 32


@dataclass(frozen=True, slots=True)
class Group:
    """Pairs that pass through the network together, as it takes them."""

    keys: tuple[str, ...]
    inputs: Inputs


def training_groups(
    batch: Batch, recipe: PretrainRecipe, device: torch.device, source: PairSource, *, longest: Longest = int
) -> Generator[Group, None, None]:
    """Vary and mask a training batch group by group, each pair by its place in the stream.

    Args:
        batch: of this process: whole groups, or a part of one.
        recipe: what decides the result.
        device: where the network computes.
        source: of the batch.
        longest: asks those that hold the other parts of a group, so that all mask as if it were whole.
    """
    for start in range(0, len(batch), recipe.group_size):
        part = batch[start : start + recipe.group_size]
        yield Group(part.keys, _inputs(part, recipe, device, source, seed=recipe.seed, longest=longest))


def validation_groups(
    source: PairSource, recipe: PretrainRecipe, device: torch.device, *, limit: int | None = None
) -> Iterator[tuple[Batch, Group]]:
    """Centre crops of validation pairs, with masks that never change; as many as the recipe says, or `limit`."""
    limit, num_references = limit or recipe.validation_pairs, recipe.num_references
    for batch in source.validation(batch_size=VALIDATION_BATCH, limit=limit, num_references=num_references):
        yield batch, Group(batch.keys, _inputs(batch, recipe, device, source, seed=None))


def _inputs(
    batch: Batch,
    recipe: PretrainRecipe,
    device: torch.device,
    source: PairSource,
    *,
    seed: int | None,
    longest: Longest = int,
) -> Inputs:
    """Crop, vary and mask; with a seed as in training, without one as in validation."""
    architecture, augmentation = recipe.architecture, recipe.augmentation
    views = prepare(
        batch, augmentation, image_px=architecture.image_px, side=architecture.side, device=device, seed=seed
    )
    draws = (
        fixed_draws(augmentation, len(batch)) if seed is None else sample_draws(augmentation, batch.index_B, seed=seed)
    )

    def masks_of(coverage_BN: npt.NDArray[np.float32], purpose: str) -> Masks:
        named = seed_for("validation", purpose) if seed is None else seed_for(seed, purpose)
        noise_BN = uniform_noise(named, batch.index_B, architecture.num_patches)
        if recipe.mask == "uniform":
            return uniform_masks(noise_BN, mask_ratio=recipe.mask_ratio)
        pad_to = recipe.full_length if seed is None else recipe.pad_to
        human_BN = coverage_BN >= recipe.human_coverage
        return human_masks(human_BN, noise_BN, mask_ratio=recipe.mask_ratio, pad_to=pad_to, longest=longest)

    def on_device(masks: Masks) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(masks.visible_BV).to(device), torch.from_numpy(masks.masked_BM).to(device)

    visible_BV, masked_BM = on_device(masks_of(views.coverage_BN, "mask"))
    inputs = Inputs(
        target_BCHW=views.target_BCHW,
        reference_BCHW=views.reference_BCHW,
        visible_BV=visible_BV,
        masked_BM=masked_BM,
        further_BFCHW=views.further_BFCHW,
    )
    if recipe.masks_both:
        swapped_B11 = draws.swap_B[:, None, None]
        cells_BGG = np.where(swapped_B11, batch.target_cells_BGG, batch.reference_cells_BGG)
        coverage_BN = patch_coverage(
            cells_BGG, draws.offset_xy_BI2[:, 1], crop_px=augmentation.crop_px, side=architecture.side
        ).reshape(-1, architecture.side, architecture.side)
        coverage_BN = np.where(draws.flip_B[:, None, None], coverage_BN[:, :, ::-1], coverage_BN)
        visible_BV, masked_BM = on_device(masks_of(coverage_BN.reshape(len(batch), -1), "reference mask"))
        inputs = replace(inputs, reference_visible_BV=visible_BV, reference_masked_BM=masked_BM)
    if recipe.keypoint_weight:
        roles = ["target" if swapped else "reference" for swapped in draws.swap_B]
        said = source.about(batch, seed=seed)
        maps_BJGG, weight_BJ = heatmaps(
            [joints_of(pair[role]) for pair, role in zip(said, roles, strict=True)],
            draws.offset_xy_BI2[:, 1],
            draws.flip_B,
            crop_px=augmentation.crop_px,
            cells=architecture.side * PATCH_CELLS,
        )
        inputs = replace(inputs, maps_BJGG=maps_BJGG.to(device), weight_BJ=weight_BJ.to(device))
    return inputs
