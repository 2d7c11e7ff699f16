"""What a run minimises: completion with a reference, without one, of both images, and keypoints beside it or alone.

Shape letters: `B` pairs, `N` patches of an image, `V` visible, `M` masked, `P` values of a patch, `J` joints, `G` cells of a
heatmap along a side, `F` further references, `C H W` image.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from training.keypoints import JOINTS, PATCH_CELLS, KeypointHead, keypoint_losses
from training.losses import pair_losses, patchify
from training.model.croco import CroCo
from training.model.mae import MAE
from training.recipes import PretrainRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Pairs as the network takes them, on its device.

    Args:
        target_BCHW: normalised targets.
        reference_BCHW: normalised references.
        visible_BV: int64, patches of the targets that are seen.
        masked_BM: int64, patches to complete.
        reference_visible_BV: the same of the references, where they are masked too.
        reference_masked_BM: the same.
        maps_BJGG: heatmaps of the references' joints.
        weight_BJ: their weights.
        further_BFCHW: further references, seen whole.
    """

    target_BCHW: Tensor
    reference_BCHW: Tensor
    visible_BV: Tensor
    masked_BM: Tensor
    reference_visible_BV: Tensor | None = None
    reference_masked_BM: Tensor | None = None
    maps_BJGG: Tensor | None = None
    weight_BJ: Tensor | None = None
    further_BFCHW: Tensor | None = None

    def with_references(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        """The same targets with other references, as a function makes them from these."""
        further_BFCHW = None if self.further_BFCHW is None else change(self.further_BFCHW)
        return replace(self, reference_BCHW=change(self.reference_BCHW), further_BFCHW=further_BFCHW)


class Objective(nn.Module):
    """A network, its keypoint head if there is one, and the loss of each pair.

    Args:
        recipe: what to build and to weigh.

    Attributes:
        model: the network; what a checkpoint keeps and downstream tasks start from.
        head: of keypoints, or None.
    """

    def __init__(self, recipe: PretrainRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.model: CroCo | MAE = MAE(recipe.architecture) if recipe.network == "mae" else CroCo(recipe.architecture)
        self.head = KeypointHead(recipe.architecture.enc_dim) if recipe.keypoint_weight else None
        if not recipe.completion_weight:  # a decoder that learns nothing is not trained
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name.split(".")[0] in self.model.ENCODER)

    def forward(self, inputs: Inputs, *, target_only: bool = False) -> Tensor:
        """Loss of each pair, (B,).

        Args:
            inputs: the pairs.
            target_only: leave out how well the reference is completed where it is masked too, so that any may be shown.
        """
        losses_B = torch.zeros(len(inputs.target_BCHW), device=inputs.target_BCHW.device)
        whole_BND = None
        if self.recipe.completion_weight:
            completion_B, whole_BND = self._completion(inputs, target_only=target_only)
            losses_B = self.recipe.completion_weight * completion_B
        if self.head is not None and inputs.maps_BJGG is not None and inputs.weight_BJ is not None:
            if whole_BND is None:
                whole_BND = self.model.encode(self._patches(inputs.reference_BCHW))
            losses = keypoint_losses(self.head(whole_BND), inputs.maps_BJGG, inputs.weight_BJ)
            losses_B = losses_B + self.recipe.keypoint_weight * losses
        return losses_B

    def predict(self, inputs: Inputs) -> Tensor:
        """Completed targets, (B, N, P) in the space of the loss, each seen with its reference as in training."""
        target_BNP = self._patches(inputs.target_BCHW)
        if isinstance(self.model, MAE):
            return self.model(target_BNP, inputs.visible_BV)  # type: ignore[no-any-return]
        reference_BNP = self._references(inputs)
        return self.model(target_BNP, reference_BNP, inputs.visible_BV, inputs.reference_visible_BV)  # type: ignore[no-any-return]

    def _completion(self, inputs: Inputs, *, target_only: bool) -> tuple[Tensor, Tensor | None]:
        """Of the target alone, or the mean of both images' where both are masked; and tokens of the first reference if it is seen whole."""
        model, visible_BV, other_BV = self.model, inputs.visible_BV, inputs.reference_visible_BV
        target_BNP, reference_BNP = self._patches(inputs.target_BCHW), self._references(inputs)
        other_BVD = None
        if isinstance(model, MAE):
            first_BNP = model(target_BNP, visible_BV)
        else:
            target_BVD, other_BVD = model.encode_both(target_BNP, reference_BNP, visible_BV, other_BV)
            first_BNP = model.decode(target_BVD, other_BVD, visible_BV, other_BV)
        losses_B = pair_losses(first_BNP, target_BNP, inputs.masked_BM)
        if other_BV is None:
            return losses_B, None if other_BVD is None else other_BVD[:, : target_BNP.shape[1]]
        if target_only or inputs.reference_masked_BM is None:
            return losses_B, None
        if isinstance(model, MAE):
            second_BNP = model(reference_BNP, other_BV)
        else:
            assert other_BVD is not None
            second_BNP = model.decode(other_BVD, target_BVD, other_BV, visible_BV)
        return (losses_B + pair_losses(second_BNP, reference_BNP, inputs.reference_masked_BM)) / 2, None

    def _references(self, inputs: Inputs) -> Tensor:
        """Patches of all references, those of a pair one after another."""
        images_BCHW = inputs.reference_BCHW
        if inputs.further_BFCHW is not None:
            images_BCHW = torch.cat([images_BCHW[:, None], inputs.further_BFCHW], dim=1).flatten(0, 1)
        return self._patches(images_BCHW)

    def _patches(self, images_BCHW: Tensor) -> Tensor:
        return patchify(images_BCHW, self.recipe.architecture.patch_px)


@lru_cache(maxsize=64)
def step_flops(recipe: PretrainRecipe, num_visible: int) -> float:
    """Floating-point operations of a pair's step with so many visible patches: its forward pass, counted, times three."""
    a = recipe.architecture
    with torch.device("meta"):
        visible_BV = torch.empty(1, num_visible, dtype=torch.int64)
        masked_BM = torch.empty(1, a.num_patches - num_visible, dtype=torch.int64)
        cells = a.side * PATCH_CELLS
        inputs = Inputs(
            target_BCHW=torch.empty(1, 3, a.image_px, a.image_px),
            reference_BCHW=torch.empty(1, 3, a.image_px, a.image_px),
            visible_BV=visible_BV,
            masked_BM=masked_BM,
            reference_visible_BV=visible_BV if recipe.masks_both else None,
            reference_masked_BM=masked_BM if recipe.masks_both else None,
            maps_BJGG=torch.empty(1, len(JOINTS), cells, cells),
            weight_BJ=torch.empty(1, len(JOINTS)),
            further_BFCHW=torch.empty(1, recipe.num_references - 1, 3, a.image_px, a.image_px),
        )
        objective = Objective(recipe)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            objective(inputs)
    return 3.0 * float(counter.get_total_flops())
