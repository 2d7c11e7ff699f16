"""Patches and the completion loss on them.

Shape letters: `B` pairs, `N` patches of an image, `M` masked, `P` values of a patch, `C H W` image.
"""

import torch
from torch import Tensor

NORM_EPS = 1e-6


def patchify(images_BCHW: Tensor, patch_px: int) -> Tensor:
    """Cut images into patches.

    Convention: patches row by row; inside a patch pixel by pixel, row by row, colour last.

    Args:
        images_BCHW: images whose sides are multiples of the patch.
        patch_px: side of a patch.

    Returns:
        (B, N, P), P = patch_px^2 * C.
    """
    B, C, H, W = images_BCHW.shape
    grid = images_BCHW.reshape(B, C, H // patch_px, patch_px, W // patch_px, patch_px)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(B, (H // patch_px) * (W // patch_px), patch_px**2 * C)


def unpatchify(patches_BNP: Tensor, patch_px: int) -> Tensor:
    """Put square images together again: the inverse of `patchify`.

    Returns:
        (B, C, H, W) images.
    """
    B, N, P = patches_BNP.shape
    side, colours = round(N**0.5), P // patch_px**2
    grid = patches_BNP.reshape(B, side, side, patch_px, patch_px, colours)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(B, colours, side * patch_px, side * patch_px)


def patch_statistics(patches_BNP: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each patch.

    Convention: the variance is the unbiased one, so that a zero prediction scores (P - 1) / P.

    Returns:
        mean and std, each (B, N, 1); std is sqrt(variance + 1e-6).
    """
    mean_BN1 = patches_BNP.mean(dim=-1, keepdim=True)
    std_BN1 = (patches_BNP.var(dim=-1, keepdim=True) + NORM_EPS).sqrt()
    return mean_BN1, std_BN1


def pair_losses(predicted_BNP: Tensor, target_BNP: Tensor, masked_BM: Tensor) -> Tensor:
    """Completion loss of each pair: squared error to the per-patch normalised target, over its masked patches.

    Args:
        predicted_BNP: output of the network.
        target_BNP: patches of the normalised target image.
        masked_BM: int64, the masked patches of each pair.

    Returns:
        (B,) float32. As all pairs of a batch have equally many masked patches, their mean is the loss of the batch.
    """
    index_BMP = masked_BM[..., None].expand(-1, -1, target_BNP.shape[-1])
    target_BMP = target_BNP.gather(1, index_BMP).float()
    mean_BM1, std_BM1 = patch_statistics(target_BMP)
    error_BMP = predicted_BNP.gather(1, index_BMP).float() - (target_BMP - mean_BM1) / std_BM1
    return error_BMP.square().mean(dim=(1, 2))


def completed_patches(predicted_BNP: Tensor, target_BNP: Tensor, masked_BM: Tensor) -> Tensor:
    """Undo the per-patch normalisation of a prediction and keep the true patch wherever the network saw it.

    The true patch's mean and deviation are used, as the network predicts neither: what is shown is structure, not shade.

    Returns:
        (B, N, P) patches of the normalised image.
    """
    mean_BN1, std_BN1 = patch_statistics(target_BNP)
    shown_BNP = predicted_BNP.float() * std_BN1 + mean_BN1
    is_masked_BN = torch.zeros(target_BNP.shape[:2], dtype=torch.bool, device=target_BNP.device)
    is_masked_BN.scatter_(1, masked_BM, True)
    return torch.where(is_masked_BN[..., None], shown_BNP, target_BNP)
