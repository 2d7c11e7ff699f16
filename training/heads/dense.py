"""Maps as large as the image from the tokens of four blocks: the dense prediction transformer's head.

Shape letters: `B` images, `N` patches of an image, `D` width of a token, `F` feature maps, `C H W` output.
Source: Ranftl et al., Vision transformers for dense prediction, ICCV 2021, with the sizes of CroCo; written from their
description.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYER_DIMS = (96, 192, 384, 768)
NUM_PARTS = 24


class DenseHead(nn.Module):
    """Reassemble each map of tokens at a quarter, an eighth, a 16th and a 32nd of the image, then fuse from coarse to fine.

    The reference holds a unit that it never runs (the skip of the coarsest fusion); it is left out here.

    Args:
        widths: width of the tokens of each of the four maps, shallow to deep.
        channels: maps that are predicted, `C`.
        patch_px: side of the image's patches, 16 in the reference; a power of two, 4 at least.
        features: width of the maps on the way, `F`, 256 in the reference; the layers before them are as wide in proportion.

    Raises:
        ValueError: there are not four widths, or no such patch.
    """

    def __init__(self, widths: Sequence[int], channels: int, *, patch_px: int = 16, features: int = 256) -> None:
        super().__init__()
        if len(widths) != len(LAYER_DIMS):
            raise ValueError(f"the head reads {len(LAYER_DIMS)} maps of tokens, not {len(widths)}")
        if patch_px < 4 or patch_px.bit_count() != 1:
            raise ValueError(f"patch_px must be a power of two, 4 at least, not {patch_px}")
        self.reassemble = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, layer, 1),
                _resize(layer, patch_px, px),
                nn.Conv2d(layer, features, 3, padding=1, bias=False),
            )
            for width, px, layer in zip(
                widths, (4, 8, 16, 32), (dim * features // 256 for dim in LAYER_DIMS), strict=True
            )
        )
        self.fuse = nn.ModuleList(_Fusion(features, skips=index < len(widths) - 1) for index in range(len(widths)))
        self.up = nn.Conv2d(features, features // 2, 3, padding=1)
        self.predict = nn.Sequential(
            nn.Conv2d(features // 2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, channels, kernel_size=1)
        )

    def forward(self, maps_BND: Sequence[Tensor]) -> Tensor:
        """(B, C, H, W) at the resolution of the image, a square one, from its tokens."""
        side = round(maps_BND[0].shape[1] ** 0.5)
        layers = [
            block(tokens_BND.mT.reshape(len(tokens_BND), -1, side, side))
            for block, tokens_BND in zip(self.reassemble, maps_BND, strict=True)
        ]
        path: Tensor = self.fuse[-1](layers[-1])
        for fusion, layer in zip(reversed(self.fuse[:-1]), reversed(layers[:-1]), strict=True):
            # An odd grid is halved upwards, so that doubling it again leaves a row and a column too many.
            path = fusion(path[..., : layer.shape[-2], : layer.shape[-1]], layer)
        out_BCHW: Tensor = self.predict(_twice(self.up(path)))
        return out_BCHW


class SurfaceMaps(NamedTuple):
    """DensePose's maps: logits of the background and 24 parts, (B, 25, H, W); u and v of each part, (B, 24, H, W)."""

    parts: Tensor
    u: Tensor
    v: Tensor

    @classmethod
    def split(cls, maps_BCHW: Tensor) -> "SurfaceMaps":
        """Name the 73 channels of a head."""
        return cls(*torch.split(maps_BCHW, [1 + NUM_PARTS, NUM_PARTS, NUM_PARTS], dim=1))


def _resize(dim: int, from_px: int, to_px: int) -> nn.Module:
    """From one cell in `from_px` pixels of the image to one in `to_px`."""
    if from_px == to_px:
        return nn.Identity()
    if from_px > to_px:
        return nn.ConvTranspose2d(dim, dim, kernel_size=from_px // to_px, stride=from_px // to_px)
    return nn.Conv2d(dim, dim, kernel_size=3, stride=to_px // from_px, padding=1)


class _Residual(nn.Module):
    """Two convolutions, each behind a ReLU, added to the input."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(features, features, 3, padding=1) for _ in range(2))

    def forward(self, x_BFHW: Tensor) -> Tensor:
        out: Tensor = x_BFHW + self.conv2(functional.relu(self.conv1(functional.relu(x_BFHW))))
        return out


class _Fusion(nn.Module):
    """Add a layer to the path, refine both, and double the size."""

    def __init__(self, features: int, *, skips: bool) -> None:
        super().__init__()
        self.skip = _Residual(features) if skips else None
        self.refine = _Residual(features)
        self.out = nn.Conv2d(features, features, 1)

    def forward(self, path: Tensor, layer: Tensor | None = None) -> Tensor:
        if self.skip is not None:
            path = path + self.skip(layer)
        # A 1 x 1 convolution and bilinear interpolation commute: this order costs a quarter.
        return _twice(self.out(self.refine(path)))


def _twice(x_BFHW: Tensor) -> Tensor:
    return functional.interpolate(x_BFHW, scale_factor=2, mode="bilinear", align_corners=True)
