"""Decoder block: tokens of the target attend to themselves, then to the reference.

Shape letters: `B` pairs, `N` patches of an image, `E` decoder width, `K` heads, `A` width of a head.
"""

from torch import Tensor, nn
from torch.nn import functional

from training.model.positions import Rotation, rotate
from training.model.vit import NORM_EPS, Attention, Mlp


class CrossAttention(nn.Module):
    """Attention of the target's tokens to those of the reference.

    Args:
        dim: width of a token.
        heads: number of heads, a divisor of `dim`.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq = nn.Linear(dim, dim)
        self.projk = nn.Linear(dim, dim)
        self.projv = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self,
        x_BNE: Tensor,
        memory_BNE: Tensor,
        rotation: Rotation | None = None,
        memory_rotation: Rotation | None = None,
    ) -> Tensor:
        """Gather from the reference; queries turn with the target's places, keys with the reference's."""
        q_BKNA, k_BKNA, v_BKNA = (
            tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for tokens in (self.projq(x_BNE), self.projk(memory_BNE), self.projv(memory_BNE))
        )
        if rotation is not None and memory_rotation is not None:
            q_BKNA, k_BKNA = rotate(q_BKNA, rotation), rotate(k_BKNA, memory_rotation)
        mixed_BKNA = functional.scaled_dot_product_attention(q_BKNA, k_BKNA, v_BKNA)
        out_BNE: Tensor = self.proj(mixed_BKNA.transpose(1, 2).flatten(2))
        return out_BNE


class DecoderBlock(nn.Module):
    """Pre-norm block: self-attention, cross-attention, MLP. The memory is normed by each block itself and never changes.

    Args:
        dim: width of a token.
        heads: number of heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, heads)
        self.norm_y = nn.LayerNorm(dim, eps=NORM_EPS)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.cross_attn = CrossAttention(dim, heads)
        self.norm3 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim)

    def forward(
        self,
        x_BNE: Tensor,
        memory_BNE: Tensor,
        rotation: Rotation | None = None,
        memory_rotation: Rotation | None = None,
    ) -> Tensor:
        """Refine the target's tokens with the help of the reference's."""
        x_BNE = x_BNE + self.attn(self.norm1(x_BNE), rotation)
        x_BNE = x_BNE + self.cross_attn(self.norm2(x_BNE), self.norm_y(memory_BNE), rotation, memory_rotation)
        out_BNE: Tensor = x_BNE + self.mlp(self.norm3(x_BNE))
        return out_BNE
