"""What every task gives the one loop that trains, scores and draws it.

Shape letters: `B` examples, `C H W` image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch import distributed as dist

from training.examples.base import About, Example

Arrays = Mapping[str, npt.NDArray[Any]]
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How a square of a picture became a network's input.

    Args:
        image_from_picture: (2, 3) affine map of pixels of the picture onto pixels of the image.
        turn_rad: by which the picture was turned around the image's centre, clockwise as seen; 0 in evaluation.
        flipped: whether the image is mirrored, left for right, after all else.
        image_px: side of the image.
    """

    image_from_picture: npt.NDArray[np.float64]
    turn_rad: float
    flipped: bool
    image_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One number of an evaluation.

    Args:
        value: of the whole set.
        unit: mm, share, or none.
        better: which way is good.
        convention: what was aligned to what, which model, which thresholds: printed beside the number.
    """

    value: float
    unit: str
    better: Literal["lower", "higher"]
    convention: str


class Task(Protocol):
    """A task: what its head is, what is asked of an example, what counts as an error.

    Attributes:
        name: as in `TASK=...`.
        reads: what the head reads: `pooled` features of one image, `dense` maps of four blocks, `two` images through the decoder, or
            `query`: the decoder's features of a picture of the task's own, which sees the image (see `Asking`).
        main: the score that decides which checkpoint is best.
        flips: whether mirrored examples are examples of the task, labels mirrored along.
        turns: whether turned ones are.
    """

    name: str
    reads: Literal["pooled", "dense", "two", "query"]
    main: str
    flips: bool
    turns: bool

    def check(self, train: Sequence[About], test: About) -> None:
        """Refuse datasets that lack what the task needs, before anything is trained.

        Raises:
            TrainingError: which dataset lacks what.
        """

    def head(self, widths: Sequence[int], num_patches: int) -> nn.Module:
        """The head: called with the tuple of token maps (B, N, D) that `training.heads.features` gives."""

    def target(self, example: Example, cut: Cut, about: About) -> Arrays:
        """Labels of one example in the image's frame: the same names, shapes and dtypes for every example.

        What is unknown is zero, with a weight of zero beside it.
        """

    def loss(self, outputs: Any, target: Tensors) -> Mapping[str, Tensor]:
        """Weighted terms, scalars over the batch; their sum is minimised.

        Several processes see equal shares of a batch, and the mean of their terms has to be the term of the batch. Means over
        examples are; what is divided by a count of what is known in a batch takes it from `of_batch`.
        """

    def constant(self, target: Tensors, num: int) -> Any:
        """A constant answer, from labels of the training set: the outputs of `num` images, all the same."""

    def measure(self, outputs: Any, target: Tensors) -> Arrays:
        """What `scores` needs of each example: arrays whose first axis is B; predictions and truth in float32 or float64."""

    def scores(self, measured: Arrays) -> Mapping[str, Score]:
        """Scores of a whole set, from the concatenated arrays of `measure`.

        Raises:
            ValueError: nothing is known of any example.
        """

    def draw(self, image_HW3: npt.NDArray[np.uint8], outputs: Any, index: int) -> npt.NDArray[np.uint8]:
        """A prediction over its image, a picture of the same height."""

    def write(self, out: Path, cut: Cut, outputs: Any) -> list[Path]:
        """What the prediction of a photograph cut like this leaves besides its picture (a mesh as glb, classes as JSON); the files written."""


def of_batch(count: Tensor) -> Tensor:
    """A count over this process's examples as its mean over the processes, at least one in the whole batch.

    Sums that are divided by it have the whole batch's quotient as their mean over the processes. Every process must ask for it.
    """
    if not dist.is_initialized():
        return count.clamp(min=1)
    total = count.float()
    dist.all_reduce(total)
    return total.clamp(min=1) / dist.get_world_size()


class Asking(Task, Protocol):
    """A task whose head reads a `query`."""

    def query(self, image_px: int) -> npt.NDArray[np.uint8]:
        """The picture that asks, (H, W, 3), as large as the images."""
