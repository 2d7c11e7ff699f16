"""Which example stands at which place of a fine-tuning's endless stream, and batches of them as tensors.

Shape letters: `B` examples, `C H W` image.
"""

import os
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manifests.errors import TrainingError
from manifests.recipes import fingerprint
from manifests.seeds import seed_for
from manifests.splits import assign
from manifests.types import Split
from training.augment import MEAN_RGB, STD_RGB
from training.examples.base import Examples
from training.noise import uniform_noise
from training.order import Order, ShardRows
from training.tasks.base import Arrays, Task, Tensors
from training.tasks.recipes import FinetuneRecipe
from training.views import STILL, Draw, Image, look, sample_draws

Ints = npt.NDArray[np.int64]
DECODE_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Part:
    """Some examples of a dataset.

    Args:
        examples: all of it.
        index: places of those that are meant, rising.
        weight: in a mixture.
    """

    examples: Examples
    index: Ints
    weight: float = 1.0

    def share(self, rank: int, world: int) -> "Part":
        """What one of so many processes takes: one's follow another's, and may be none."""
        return Part(self.examples, np.array_split(self.index, world)[rank], self.weight)

    def spread(self, most: int) -> "Part":
        """At most so many, spread evenly."""
        if len(self.index) <= most:
            return self
        return Part(self.examples, self.index[np.linspace(0, len(self.index) - 1, most).astype(np.int64)], self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Examples as a task's network takes them.

    Args:
        keys: of the examples.
        images: (B, C, H, W) float32 each, normalised: one tensor, or two for a task on two pictures.
        target: labels by name, the first axis is B.
    """

    keys: tuple[str, ...]
    images: tuple[Tensor, ...]
    target: Tensors


def divide(parts: Sequence[Part], *, share: float, seed: int) -> tuple[list[Part], list[Part]]:
    """Keep a share of the people of each part apart; pictures of nobody known are each a group of their own.

    Returns:
        What is left, and what was kept apart.

    Raises:
        TrainingError: a part has one group only.
    """
    left, apart = [], []
    for part in parts:
        people = part.examples.subjects()
        groups = [people[i] or f"picture {i}" for i in part.index.tolist()]
        sides = assign(set(groups), seed=seed_for(seed, "validation"), val_share=share)
        held = np.array([sides[group] is Split.VAL for group in groups])
        if not held.any():
            hint = "name a dataset in `validation` of the recipe"
            raise TrainingError("one person cannot be divided", where=part.examples.about.name, hint=hint)
        left.append(Part(part.examples, part.index[~held], part.weight))
        apart.append(Part(part.examples, part.index[held], part.weight))
    return left, apart


def thin(part: Part, *, share: float, seed: int) -> Part:
    """A share of the examples, at least one; of one seed the smaller shares lie in the larger."""
    if share == 1:
        return part
    noise = uniform_noise(seed_for(seed, "share", part.examples.about.name), part.index, 1)[:, 0]
    kept = np.sort(np.argsort(noise, kind="stable")[: max(1, round(share * len(noise)))])
    return Part(part.examples, part.index[kept], part.weight)


class Mixture:
    """The endless training stream: every example of a part comes once before any comes again.

    Args:
        parts: what is mixed, by their weights.
        recipe: how pictures are varied, and the seed.
        task: reads them.
        image_px: side of the images.
    """

    def __init__(self, parts: Sequence[Part], recipe: FinetuneRecipe, task: Task, *, image_px: int) -> None:
        self.parts, self.recipe, self.task, self.image_px = parts, recipe, task, image_px
        rows = [
            ShardRows(name=f"{i:04d}", source=f"{i:04d}", weight=part.weight, rows=len(part.index))
            for i, part in enumerate(parts)
        ]
        self._order = Order(rows, seed=seed_for(recipe.seed, "mixture"), block_shards=1)

    def batches(
        self, position: int, *, device: torch.device, rank: int = 0, world: int = 1
    ) -> Generator[Batch, None, None]:
        """Batches from a place of the stream on, decoded and varied ahead of their use; of each the share of one of so many processes."""
        size = self.recipe.batch_size
        assert size % world == 0
        with ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode") as threads:
            while True:
                position_B = np.arange(position, position + size).reshape(world, -1)[rank]
                part_B, row_B = self._order.locate(position_B)
                draws = sample_draws(self.recipe.variation, position_B, seed=self.recipe.seed)
                places = [(self.parts[p], int(self.parts[p].index[r])) for p, r in zip(part_B, row_B, strict=True)]
                yield _batch(threads, places, draws, self.task, image_px=self.image_px, device=device)
                position += size


def still_batches(part: Part, task: Task, *, image_px: int, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """Examples as they are, in their order."""
    with ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode") as threads:
        for start in range(0, len(part.index), batch_size):
            places = [(part, int(i)) for i in part.index[start : start + batch_size]]
            draws = [STILL] * len(places)
            yield _batch(threads, places, draws, task, image_px=image_px, device=device)


def stamp_of(parts: Sequence[Part]) -> str:
    """What tells these examples from others: names, splits and people, not where they lie."""
    return fingerprint(
        [
            [part.examples.about.name, part.examples.about.split, part.weight, part.index.tolist()]
            + [name or "" for name in part.examples.subjects()]
            for part in parts
        ]
    )


def normalised(images_BHW3: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """(B, C, H, W) float32 on the device, by the mean and deviation of ImageNet; only bytes travel."""
    images_BCHW = torch.from_numpy(images_BHW3).to(device).permute(0, 3, 1, 2).float() / 255
    mean_311, std_311 = (images_BCHW.new_tensor(v)[:, None, None] for v in (MEAN_RGB, STD_RGB))
    return ((images_BCHW - mean_311) / std_311).contiguous()


def _batch(
    threads: ThreadPoolExecutor,
    places: Sequence[tuple[Part, int]],
    draws: Sequence[Draw],
    task: Task,
    *,
    image_px: int,
    device: torch.device,
) -> Batch:
    def one(place: tuple[Part, int], draw: Draw) -> tuple[str, tuple[Image, ...], Arrays]:
        part, index = place
        example = part.examples[index]
        view = look(example, task, draw, image_px=image_px)
        return example.key, view.images, task.target(example, view.cut, part.examples.about)

    keys, images, targets = zip(*threads.map(one, places, draws), strict=True)
    stacked = [np.stack(pictures) for pictures in zip(*images, strict=True)]
    target = {
        name: torch.from_numpy(np.stack([np.asarray(labels[name]) for labels in targets])).to(device)
        for name in targets[0]
    }
    return Batch(keys=keys, images=tuple(normalised(own, device) for own in stacked), target=target)
