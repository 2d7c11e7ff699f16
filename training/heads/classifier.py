"""Classes of an image: gestures and grasps.

Shape letters: `B` images, `N` patches of an image, `D` width of a token, `C` classes.
"""

from torch import Tensor, nn


class Classifier(nn.Module):
    """The mean of the tokens, then a linear map, or two with a GELU between them.

    Args:
        dim: width of a token.
        num_classes: `C`.
        hidden: width between the two maps; None is the linear probe.
    """

    def __init__(self, dim: int, num_classes: int, *, hidden: int | None = None) -> None:
        super().__init__()
        last = nn.Linear(hidden or dim, num_classes)
        self.map = last if hidden is None else nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), last)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """(B, C) logits."""
        logits_BC: Tensor = self.map(tokens_BND.mean(dim=1))
        return logits_BC
