"""Cross-view completion: a target, mostly masked, is completed with the help of a reference that is seen whole.

Shape letters: `B` pairs, `N` patches of an image, `V` visible, `M` masked, `P` values of a patch, `D` encoder width,
`E` decoder width, `A` width of a head, `T` tokens of all images, one after another, `C H W` image.
Source: CroCo (Weinzaepfel et al., NeurIPS 2022) and CroCo v2 (ICCV 2023); written from their description.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.model.decoder import DecoderBlock
from training.model.positions import Rotation, cosine_positions, rotary_positions
from training.model.vit import NORM_EPS, Block, Part, PatchEmbed


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Size of a network.

    Args:
        image_px: side of the input images.
        patch_px: side of a patch.
        enc_dim: width of the encoder's tokens.
        enc_depth: blocks of the encoder.
        enc_heads: heads of the encoder.
        dec_dim: width of the decoder's tokens.
        dec_depth: blocks of the decoder.
        dec_heads: heads of the decoder.
        positions: fixed cosine tables (CroCo v1) or rotations (CroCo v2). Weights trained with one do not run with the other.

    Raises:
        ValueError: sizes do not divide each other.
    """

    image_px: int = 224
    patch_px: int = 16
    enc_dim: int = 768
    enc_depth: int = 12
    enc_heads: int = 12
    dec_dim: int = 512
    dec_depth: int = 8
    dec_heads: int = 16
    positions: Literal["cosine", "rope"] = "cosine"

    def __post_init__(self) -> None:
        for name in ("image_px", "patch_px", "enc_dim", "enc_depth", "enc_heads", "dec_dim", "dec_depth", "dec_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.image_px % self.patch_px:
            raise ValueError(f"image_px {self.image_px} is not a multiple of patch_px {self.patch_px}")
        for part in ("enc", "dec"):
            dim, heads = getattr(self, f"{part}_dim"), getattr(self, f"{part}_heads")
            if dim % (4 * heads):
                raise ValueError(f"{part}_dim {dim} is not a multiple of four times {part}_heads {heads}")

    @property
    def side(self) -> int:
        """Patches along a side of an image."""
        return self.image_px // self.patch_px

    @property
    def num_patches(self) -> int:
        """Patches of an image, `N`."""
        return self.side**2


def base_small() -> Architecture:
    """ViT-Base encoder, Small decoder, cosine positions: CroCo v1, and the network of the paper."""
    return Architecture()


def base_small_rope() -> Architecture:
    """ViT-Base encoder, Small decoder, rotary positions: CroCo v2's smallest."""
    return Architecture(positions="rope")


def base_base_rope() -> Architecture:
    """ViT-Base encoder, Base decoder, rotary positions."""
    return Architecture(dec_dim=768, dec_depth=12, dec_heads=12, positions="rope")


def large_base_rope() -> Architecture:
    """ViT-Large encoder, Base decoder, rotary positions: CroCo v2's largest."""
    return Architecture(
        enc_dim=1024, enc_depth=24, enc_heads=16, dec_dim=768, dec_depth=12, dec_heads=12, positions="rope"
    )


class CroCo(nn.Module):
    """The completion network.

    Args:
        architecture: its size.

    Attributes:
        recompute: compute each block's activations again in the backward pass instead of keeping them.
    """

    ENCODER = frozenset({"enc_pos_embed", "patch_embed", "enc_blocks", "enc_norm"})
    """Where the names of the encoder's weights begin."""

    recompute = False
    enc_pos_embed: Tensor
    dec_pos_embed: Tensor
    enc_rotation_cos: Tensor
    enc_rotation_sin: Tensor
    dec_rotation_cos: Tensor
    dec_rotation_sin: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.patch_embed = PatchEmbed(a.patch_px, a.enc_dim)
        self.enc_blocks = nn.ModuleList(Block(a.enc_dim, a.enc_heads) for _ in range(a.enc_depth))
        self.enc_norm = nn.LayerNorm(a.enc_dim, eps=NORM_EPS)
        self.decoder_embed = nn.Linear(a.enc_dim, a.dec_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, a.dec_dim))
        self.dec_blocks = nn.ModuleList(DecoderBlock(a.dec_dim, a.dec_heads) for _ in range(a.dec_depth))
        self.dec_norm = nn.LayerNorm(a.dec_dim, eps=NORM_EPS)
        self.prediction_head = nn.Linear(a.dec_dim, 3 * a.patch_px**2)
        if a.positions == "cosine":
            self.register_buffer("enc_pos_embed", cosine_positions(a.side, a.enc_dim))
            self.register_buffer("dec_pos_embed", cosine_positions(a.side, a.dec_dim))
        else:
            for part, head_dim in (("enc", a.enc_dim // a.enc_heads), ("dec", a.dec_dim // a.dec_heads)):
                cos, sin = rotary_positions(a.side, head_dim)
                self.register_buffer(f"{part}_rotation_cos", cos, persistent=False)
                self.register_buffer(f"{part}_rotation_sin", sin, persistent=False)
        initialise(self, self.patch_embed)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self, target_BNP: Tensor, reference_BNP: Tensor, visible_BV: Tensor, reference_visible_BV: Tensor | None = None
    ) -> Tensor:
        """Complete the targets.

        Args:
            target_BNP: patches of the normalised target (`patchify`); only the visible ones are read.
            reference_BNP: patches of the normalised reference; of R references a pair, (B R, N, P), one pair's after another.
            visible_BV: int64, the visible patches of each target, in raster order.
            reference_visible_BV: the same for the reference; None: it is seen whole.

        Returns:
            (B, N, P) predicted patches, in the space of the loss.
        """
        target_BVD, reference_BVD = self.encode_both(target_BNP, reference_BNP, visible_BV, reference_visible_BV)
        return self.decode(target_BVD, reference_BVD, visible_BV, reference_visible_BV)

    def encode(self, patches_BNP: Tensor, visible_BV: Tensor | None = None) -> Tensor:
        """Encode images, or only their visible patches.

        Args:
            patches_BNP: patches of normalised images.
            visible_BV: the patches to encode; all of them when None.

        Returns:
            (B, V, D) tokens after the last norm.
        """
        x_BVD, rotation = self._embed(patches_BNP, visible_BV)
        for block in self.enc_blocks:
            x_BVD = self._run(block, x_BVD, rotation)
        out_BVD: Tensor = self.enc_norm(x_BVD)
        return out_BVD

    def encode_both(
        self, target_BNP: Tensor, reference_BNP: Tensor, visible_BV: Tensor, reference_visible_BV: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode both images of each pair; the arguments are those of `forward`.

        All tokens pass through each linear map in one product, and weights that are shared out are gathered once.

        Returns:
            what `encode` gives of the targets and of the references, all tokens of a pair's references in one row.
        """
        embedded = self._embed(target_BNP, visible_BV), self._embed(reference_BNP, reference_visible_BV)
        parts = tuple((*x_BVD.shape[:2], rotation) for x_BVD, rotation in embedded)
        x_TD = torch.cat([x_BVD.flatten(0, 1) for x_BVD, _ in embedded])
        for block in self.enc_blocks:
            x_TD = self._run(block, x_TD, None, parts)
        sets = self.enc_norm(x_TD).split([images * tokens for images, tokens, _ in parts])
        target_BVD, reference_BVD = (x_TD.view(len(target_BNP), -1, x_TD.shape[-1]) for x_TD in sets)
        return target_BVD, reference_BVD

    def _embed(self, patches_BNP: Tensor, visible_BV: Tensor | None) -> tuple[Tensor, Rotation | None]:
        """Tokens of the visible patches, and how they turn with their places."""
        if visible_BV is not None:
            patches_BNP = patches_BNP.gather(1, visible_BV[..., None].expand(-1, -1, patches_BNP.shape[-1]))
        x_BVD = self.patch_embed(patches_BNP)
        if self.architecture.positions == "cosine":
            return x_BVD + _at(self.enc_pos_embed, visible_BV), None
        return x_BVD, (_at(self.enc_rotation_cos, visible_BV), _at(self.enc_rotation_sin, visible_BV))

    def decode(
        self,
        target_BVD: Tensor,
        reference_BND: Tensor,
        visible_BV: Tensor | None = None,
        reference_visible_BV: Tensor | None = None,
    ) -> Tensor:
        """Predict every patch of the target from the visible tokens and the reference.

        Args:
            target_BVD: tokens of the target's visible patches.
            reference_BND: tokens of the reference, or of several, one after another.
            visible_BV: which patches of the target the tokens stand for; None when all are present.
            reference_visible_BV: the same for the reference.

        Returns:
            (B, N, P) predicted patches.
        """
        x_BNE, memory_BNE = self.decoder_embed(target_BVD), self.decoder_embed(reference_BND)
        if visible_BV is not None:
            x_BNE = scatter_visible(x_BNE, visible_BV, self.mask_token, self.architecture.num_patches)
        rotations: tuple[Rotation, Rotation] | tuple[()] = ()
        if self.architecture.positions == "cosine":
            x_BNE, memory_BNE = (
                x_BNE + self.dec_pos_embed,
                memory_BNE + _along(self.dec_pos_embed, memory_BNE.shape[1], reference_visible_BV),
            )
        else:
            cos, sin = self.dec_rotation_cos, self.dec_rotation_sin
            length = memory_BNE.shape[1]
            seen = reference_visible_BV
            rotations = (cos, sin), (_along(cos, length, seen), _along(sin, length, seen))
        for block in self.dec_blocks:
            x_BNE = self._run(block, x_BNE, memory_BNE, *rotations)
        out_BNP: Tensor = self.prediction_head(self.dec_norm(x_BNE))
        return out_BNP

    def _run(self, block: nn.Module, *inputs: Tensor | Rotation | tuple[Part, ...] | None) -> Tensor:
        out: Tensor = checkpoint(block, *inputs, use_reentrant=False) if self.recompute else block(*inputs)
        return out


def initialise(model: nn.Module, patch_embed: PatchEmbed) -> None:
    """Xavier-uniform linear maps with zero bias, the patch convolution as one of them; norms are units already."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(patch_embed.proj.weight.view(len(patch_embed.proj.weight), -1))


def scatter_visible(tokens_BVE: Tensor, visible_BV: Tensor, mask_token: Tensor, num_patches: int) -> Tensor:
    """Put visible tokens in their places and the mask token everywhere else, (B, N, E)."""
    blank_BNE = mask_token.to(tokens_BVE.dtype).expand(len(tokens_BVE), num_patches, -1)
    return blank_BNE.scatter(1, visible_BV[..., None].expand(-1, -1, tokens_BVE.shape[-1]), tokens_BVE)


def _along(table_NA: Tensor, length: int, visible_BV: Tensor | None) -> Tensor:
    """Rows of a table for the patches of one image or several, one after another."""
    return table_NA.repeat(length // len(table_NA), 1) if visible_BV is None else table_NA[visible_BV]


def _at(table_NA: Tensor, visible_BV: Tensor | None) -> Tensor:
    """Rows of a table for the patches that are present."""
    return table_NA if visible_BV is None else table_NA[visible_BV]
