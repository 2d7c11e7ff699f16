"""Completion without a reference: the masked autoencoder that cross-view completion is compared with.

Module names are those of the public MAE weights, so that these load as they are.
Shape letters: `B` images, `N` patches of an image, `V` visible, `P` values of a patch, `D` encoder width, `E` decoder width.
Source: He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022; written from its description.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.model.croco import Architecture, initialise, scatter_visible
from training.model.positions import cosine_positions
from training.model.vit import NORM_EPS, Block, PatchEmbed


class MAE(nn.Module):
    """The autoencoder: a class token beside the patches, a decoder of plain blocks.

    Args:
        architecture: its size, with cosine positions.

    Attributes:
        recompute: as of `CroCo`.

    Raises:
        ValueError: the architecture asks for rotary positions.
    """

    ENCODER = frozenset({"cls_token", "pos_embed", "patch_embed", "blocks", "norm"})
    """Where the names of the encoder's weights begin."""

    recompute = False
    pos_embed: Tensor
    decoder_pos_embed: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        if a.positions != "cosine":
            raise ValueError(f"an MAE has cosine positions, not {a.positions}")
        self.patch_embed = PatchEmbed(a.patch_px, a.enc_dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, a.enc_dim))
        self.blocks = nn.ModuleList(Block(a.enc_dim, a.enc_heads) for _ in range(a.enc_depth))
        self.norm = nn.LayerNorm(a.enc_dim, eps=NORM_EPS)
        self.decoder_embed = nn.Linear(a.enc_dim, a.dec_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, a.dec_dim))
        self.decoder_blocks = nn.ModuleList(Block(a.dec_dim, a.dec_heads) for _ in range(a.dec_depth))
        self.decoder_norm = nn.LayerNorm(a.dec_dim, eps=NORM_EPS)
        self.decoder_pred = nn.Linear(a.dec_dim, 3 * a.patch_px**2)
        for name, dim in (("pos_embed", a.enc_dim), ("decoder_pos_embed", a.dec_dim)):
            table_ND = torch.cat([torch.zeros(1, dim), cosine_positions(a.side, dim)])
            self.register_buffer(name, table_ND[None])
        initialise(self, self.patch_embed)
        nn.init.normal_(self.mask_token, std=0.02)
        nn.init.normal_(self.cls_token, std=0.02)

    def forward(self, images_BNP: Tensor, visible_BV: Tensor) -> Tensor:
        """Complete images, (B, N, P), from their visible patches."""
        x_BVE = self.decoder_embed(self._encode(images_BNP, visible_BV))
        patches_BNE = scatter_visible(x_BVE[:, 1:], visible_BV, self.mask_token, self.architecture.num_patches)
        x_BNE = torch.cat([x_BVE[:, :1], patches_BNE], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x_BNE = self._run(block, x_BNE)
        out_BNP: Tensor = self.decoder_pred(self.decoder_norm(x_BNE))[:, 1:]
        return out_BNP

    def encode(self, patches_BNP: Tensor, visible_BV: Tensor | None = None) -> Tensor:
        """Encode images, or only their visible patches; (B, V, D) without the class token."""
        return self._encode(patches_BNP, visible_BV)[:, 1:]

    def _encode(self, patches_BNP: Tensor, visible_BV: Tensor | None) -> Tensor:
        places_BVD = self.pos_embed[:, 1:]
        if visible_BV is not None:
            patches_BNP = patches_BNP.gather(1, visible_BV[..., None].expand(-1, -1, patches_BNP.shape[-1]))
            places_BVD = places_BVD[0][visible_BV]
        x_BVD = self.patch_embed(patches_BNP) + places_BVD
        cls_B1D = (self.cls_token + self.pos_embed[:, :1]).to(x_BVD.dtype).expand(len(x_BVD), -1, -1)
        x_BVD = torch.cat([cls_B1D, x_BVD], dim=1)
        for block in self.blocks:
            x_BVD = self._run(block, x_BVD)
        out_BVD: Tensor = self.norm(x_BVD)
        return out_BVD

    def _run(self, block: nn.Module, x_BVD: Tensor) -> Tensor:
        out: Tensor = checkpoint(block, x_BVD, use_reentrant=False) if self.recompute else block(x_BVD)
        return out
