"""One feature of an image from its tokens, and heads that read it.

Shape letters: `B` images, `N` patches of an image, `D` width of a token, `F` width of the feature.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

Pooling = Literal["mean", "places"]

NUMBERS = 16  # that `places` keeps of each token


class Pool(nn.Module):
    """The mean of the tokens, or a few numbers of each, side by side.

    In a mean the encoder alone says where something is seen. One that starts from random weights learns that slowly: in 600 steps
    on rendered people it told their joints no better than a constant, where `places` took a quarter off the squared error.

    Args:
        dim: width of a token.
        num_patches: `N`.
        how: `mean` (the paper), or `places`.

    Attributes:
        width: `F`.
    """

    def __init__(self, dim: int, num_patches: int, how: Pooling = "mean") -> None:
        super().__init__()
        self.map = nn.Linear(dim, NUMBERS) if how == "places" else None
        self.width = dim if self.map is None else NUMBERS * num_patches

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """(B, F)."""
        if self.map is None:
            return tokens_BND.mean(dim=1)
        feature_BF: Tensor = self.map(tokens_BND).flatten(1)
        return feature_BF


class OfPooled(nn.Module):
    """A head of the feature of the last tokens."""

    def __init__(self, pool: Pool, head: nn.Module) -> None:
        super().__init__()
        self.pool, self.head = pool, head

    def forward(self, maps_BND: Sequence[Tensor]) -> Any:
        """What the head answers."""
        return self.head(self.pool(maps_BND[-1]))
