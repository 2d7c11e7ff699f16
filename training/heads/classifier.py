"""Classes of an image: gestures and grasps.

Shape letters: `B` images, `F` width of a feature, `C` classes.
"""

from torch import Tensor, nn


class Classifier(nn.Module):
    """A linear map, or two with a GELU between them.

    Args:
        dim: `F`.
        num_classes: `C`.
        hidden: width between the two maps; None is the linear probe.
    """

    def __init__(self, dim: int, num_classes: int, *, hidden: int | None = None) -> None:
        super().__init__()
        last = nn.Linear(hidden or dim, num_classes)
        self.map = last if hidden is None else nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), last)

    def forward(self, feature_BF: Tensor) -> Tensor:
        """(B, C) logits."""
        logits_BC: Tensor = self.map(feature_BF)
        return logits_BC
