"""Tokens of one or two images, from a pre-trained network without what a task has no use for.

Shape letters: `B` images or pairs, `N` patches of an image, `D` width of a token (the encoder's, or the decoder's), `C H W` image.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from training.losses import patchify
from training.model.croco import CroCo
from training.model.mae import MAE


class Monocular(nn.Module):
    """The encoder alone: the rest of the network is dropped, so that every weight left is trained.

    Args:
        network: whose encoder is taken; it can't complete images any more.
        hooks: after which blocks tokens are read, from 0; after the last one they are normed. DPT reads (2, 5, 8, 11).

    Attributes:
        widths: width of the tokens of each hook.
    """

    def __init__(self, network: CroCo | MAE, *, hooks: Sequence[int] = (-1,)) -> None:
        super().__init__()
        self.network = network
        for part in [name for name, _ in network.named_children()] + ["mask_token"]:
            if part not in network.ENCODER:
                delattr(network, part)
        self.hooks = _places(hooks, network.architecture.enc_depth)
        self.widths = (network.architecture.enc_dim,) * len(self.hooks)

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Tokens (B, N, D) of normalised images, a map for each hook; a class token is left out."""
        network = self.network
        patches_BNP = patchify(images_BCHW, network.architecture.patch_px)
        with _outputs_of(network.enc_blocks if isinstance(network, CroCo) else network.blocks) as maps:
            maps[-1:] = [network.encode(patches_BNP)]
        return tuple(maps[hook][:, -patches_BNP.shape[1] :] for hook in self.hooks)


class Binocular(nn.Module):
    """Encoder and decoder on two images that are both seen whole: the first is what a head answers for.

    The baseline "MAE with a random decoder" is a CroCo whose encoder alone has an MAE's weights.

    Args:
        network: taken without its last layer and its mask token.
        hooks: after which blocks tokens are read, those of the decoder counted on from the encoder's; after the last block of
            either they are normed. DPT reads (10, 13, 16, 19).

    Attributes:
        widths: width of the tokens of each hook.

    Source: CroCo's binocular tasks.
    """

    def __init__(self, network: CroCo, *, hooks: Sequence[int] = (-1,)) -> None:
        super().__init__()
        self.network = network
        network.add_module("prediction_head", nn.Identity())
        del network.mask_token
        a = network.architecture
        self.hooks = _places(hooks, a.enc_depth + a.dec_depth)
        self.widths = tuple(a.enc_dim if hook < a.enc_depth else a.dec_dim for hook in self.hooks)

    def forward(self, images_BCHW: Tensor, others_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Tokens (B, N, D) of the first images, a map for each hook."""
        patches = patchify(torch.cat([images_BCHW, others_BCHW]), self.network.architecture.patch_px)
        with _outputs_of(self.network.enc_blocks) as encoder, _outputs_of(self.network.dec_blocks) as decoder:
            encoder[-1:] = [self.network.encode(patches)]
            own_BND, other_BND = encoder[-1].chunk(2)
            decoder[-1:] = [self.network.decode(own_BND, other_BND)]
        maps = [*(tokens[: len(images_BCHW)] for tokens in encoder), *decoder]
        return tuple(maps[hook] for hook in self.hooks)


class Queried(nn.Module):
    """A picture that is the same for all asks, and each image answers: the decoder reads the image, its tokens stand for the picture's patches.

    The picture passes through an encoder of its own, a copy that is trained apart from the image's.

    Args:
        network: taken without its last layer and its mask token.
        query_CHW: the picture, normalised.

    Attributes:
        widths: width of the tokens.
    """

    query_CHW: Tensor

    def __init__(self, network: CroCo, query_CHW: Tensor) -> None:
        super().__init__()
        own = Monocular(copy.deepcopy(network)).network
        self.network = network
        network.add_module("prediction_head", nn.Identity())
        del network.mask_token
        network.add_module("query", own)
        self.register_buffer("query_CHW", query_CHW, persistent=False)
        self.widths = (network.architecture.dec_dim,)

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor]:
        """Tokens (B, N, E) of the picture's patches, each image's own."""
        px = self.network.architecture.patch_px
        query_1ND = self.network.get_submodule("query").encode(patchify(self.query_CHW[None], px))  # type: ignore[operator]
        image_BND = self.network.encode(patchify(images_BCHW, px))
        return (self.network.decode(query_1ND.expand(len(images_BCHW), -1, -1), image_BND),)


@contextmanager
def _outputs_of(blocks: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        seen.append(output)

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _places(hooks: Sequence[int], depth: int) -> tuple[int, ...]:
    if bad := [hook for hook in hooks if not -depth <= hook < depth]:
        raise ValueError(f"there is no block {bad[0]} to read from: the network has {depth}")
    return tuple(hook % depth for hook in hooks)
