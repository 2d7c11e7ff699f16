"""Transformer parts of the encoder. Module names are those of the public CroCo weights, so that these load as they are.

Shape letters: `B` images, `N` patches of an image, `V` tokens present, `P` values of a patch, `D` width of a token, `K` heads,
`A` width of a head, `T` tokens of all images of several sets, one after another, `C H W` image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.positions import Rotation, rotate

NORM_EPS = 1e-6
MLP_RATIO = 4

Part = tuple[int, int, Rotation | None]
"""Images of a set, tokens of each, and how these turn with their places."""


class PatchEmbed(nn.Module):
    """Linear map of patches to tokens, kept as the convolution of the public weights.

    Args:
        patch_px: side of a patch.
        dim: width of a token.
    """

    def __init__(self, patch_px: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_px, stride=patch_px)

    def forward(self, patches_BVP: Tensor) -> Tensor:
        """Embed any subset of patches, their values pixel by pixel with the colour last: masked ones cost nothing."""
        weight_DP = self.proj.weight.permute(0, 2, 3, 1).flatten(1)
        return functional.linear(patches_BVP, weight_DP, self.proj.bias)


class Attention(nn.Module):
    """Self-attention over the tokens of one image.

    Args:
        dim: width of a token.
        heads: number of heads, a divisor of `dim`.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BVD: Tensor, rotation: Rotation | None = None, parts: Sequence[Part] | None = None) -> Tensor:
        """Mix tokens; with a rotation, queries and keys turn with their position.

        Args:
            x_BVD: tokens of a set of images; (T, D) where there are several parts.
            rotation: of these images.
            parts: sets of images with unequal numbers of tokens, which pass through the linear maps as one.
        """
        qkv_BVD = self.qkv(x_BVD)
        if parts is None:
            mixed_BVD = self._mix(qkv_BVD, rotation)
        else:
            sets = qkv_BVD.split([images * tokens for images, tokens, _ in parts])
            mixed = [
                self._mix(qkv_TD.view(images, tokens, -1), turn).flatten(0, 1)
                for qkv_TD, (images, tokens, turn) in zip(sets, parts, strict=True)
            ]
            mixed_BVD = torch.cat(mixed)
        out_BVD: Tensor = self.proj(mixed_BVD)
        return out_BVD

    def _mix(self, qkv_BVD: Tensor, rotation: Rotation | None) -> Tensor:
        heads_BV3KA = qkv_BVD.view(*qkv_BVD.shape[:2], 3, self.heads, -1)
        q_BKVA, k_BKVA, v_BKVA = heads_BV3KA.permute(2, 0, 3, 1, 4).unbind(0)
        if rotation is not None:
            q_BKVA, k_BKVA = rotate(q_BKVA, rotation), rotate(k_BKVA, rotation)
        return functional.scaled_dot_product_attention(q_BKVA, k_BKVA, v_BKVA).transpose(1, 2).flatten(2)


class Mlp(nn.Module):
    """Two linear layers around an exact GELU.

    Args:
        dim: width of a token; the hidden layer is `MLP_RATIO` times as wide.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, MLP_RATIO * dim)
        self.fc2 = nn.Linear(MLP_RATIO * dim, dim)

    def forward(self, x_BVD: Tensor) -> Tensor:
        """Transform each token by itself."""
        out_BVD: Tensor = self.fc2(functional.gelu(self.fc1(x_BVD)))
        return out_BVD


class Block(nn.Module):
    """Pre-norm transformer block: self-attention, then the MLP.

    Args:
        dim: width of a token.
        heads: number of heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim)

    def forward(self, x_BVD: Tensor, rotation: Rotation | None = None, parts: Sequence[Part] | None = None) -> Tensor:
        """Refine the tokens of each image; the arguments are those of `Attention`."""
        x_BVD = x_BVD + self.attn(self.norm1(x_BVD), rotation, parts)
        out_BVD: Tensor = x_BVD + self.mlp(self.norm2(x_BVD))
        return out_BVD
