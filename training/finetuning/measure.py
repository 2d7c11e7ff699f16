"""What a fine-tuned network does on datasets: `measure`, and a run's folder as a network that can be asked."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from manifests.errors import TrainingError
from manifests.recipes import from_mapping
from training.checkpoints import list_checkpoints, read_checkpoint
from training.examples.base import Examples
from training.finetuning.mixture import Batch, Part, still_batches
from training.finetuning.network import BEST, TaskNetwork, build_network
from training.machine import Processes
from training.run_folder import RECIPE, read_json
from training.tasks.base import Arrays, Score, Task, Tensors
from training.tasks.recipes import FinetuneRecipe, build_task

logger = logging.getLogger(__name__)

NUM_LEARNED = 512  # training examples that a constant answer is learned from


@dataclass(frozen=True, slots=True)
class Run:
    """A fine-tuned network, ready to be asked."""

    recipe: FinetuneRecipe
    task: Task
    network: TaskNetwork
    step: int


def load_finetuned(run: Path, device: torch.device) -> Run:
    """Read a run's best weights, or its last ones while there are no best.

    Raises:
        TrainingError: the folder holds no fine-tuning, or nothing is trained yet.
    """
    task_of(run)
    recipe = from_mapping(FinetuneRecipe, read_json(run / RECIPE)["recipe"], where=str(run / RECIPE))
    best, found = run / BEST, list_checkpoints(run / "checkpoints")
    if not best.exists() and not found:
        raise TrainingError("nothing is trained yet", where=run, hint="run `make finetune` first")
    task = build_task(recipe.task, recipe.options)
    network = build_network(recipe, task)
    checkpoint = read_checkpoint(best if best.exists() else found[-1])
    restore(network, checkpoint.model, checkpoint.head)
    return Run(recipe, task, network.to(device).eval(), checkpoint.step)


def task_of(run: Path) -> str:
    """Name of the task of a run.

    Raises:
        TrainingError: the folder holds no fine-tuning.
    """
    name = read_json(run / RECIPE).get("recipe", {}).get("task")
    if not isinstance(name, str):
        hint = "give the folder of a fine-tuning: `make finetune TASK=...` makes one"
        raise TrainingError("this is no fine-tuning", where=run, hint=hint)
    return name


def restore(network: TaskNetwork, features: Mapping[str, Any], head: Mapping[str, Any]) -> None:
    """Put a checkpoint's weights into a network."""
    network.features.network.load_state_dict(features)
    network.head.load_state_dict(head)


@contextmanager
def precision_of(recipe: FinetuneRecipe, device: torch.device) -> Iterator[None]:
    """bfloat16 on CUDA where the recipe says so."""
    use_bfloat16 = device.type == "cuda" and recipe.precision == "bfloat16"
    with torch.autocast("cuda", torch.bfloat16) if use_bfloat16 else nullcontext():
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a network does on a dataset: the arrays of `Task.measure`, joined, and their scores; and the constant answer's scores."""

    keys: tuple[str, ...]
    arrays: Arrays
    scores: Mapping[str, Score]
    constants: Mapping[str, Score]


def measure_sets(
    run: Run,
    parts: Sequence[Part],
    *,
    train: Sequence[Part],
    device: torch.device,
    console: Console | None,
    processes: Processes | None = None,
) -> list[Measured]:
    """Ask a network for all of some datasets, and say so; arguments as of `measure`, those of `train` teach the constant answer."""
    for about, num in ((part.examples.about, len(part.index)) for part in parts):
        logger.info("scoring the weights of step %d on %s, %s: %d examples", run.step, about.name, about.split, num)
    learned = targets_of(run, train, device) if train else None
    return [measure(run, part, learned=learned, device=device, console=console, processes=processes) for part in parts]


@torch.no_grad()
def measure(
    run: Run,
    part: Part,
    *,
    learned: Tensors | None = None,
    device: torch.device,
    console: Console | None = None,
    processes: Processes | None = None,
) -> Measured:
    """Ask a network for all of some examples.

    Args:
        run: its network in evaluation mode.
        part: what to score.
        learned: labels of the training set, for the constant answer.
        device: where the network computes.
        console: where a progress bar is drawn.
        processes: each asks for its share, and all get the whole; None: this one asks for all.

    Raises:
        TrainingError: there is no example, one is damaged, or none can be scored.
    """
    about = part.examples.about
    if not len(part.index):
        raise TrainingError("there is nothing to score", where=about.name, hint="give another split")
    measured: list[Arrays] = []
    constant: list[Arrays] = []
    keys: list[str] = []
    own = part if processes is None else part.share(processes.rank, processes.world)
    with Progress(console=console, disable=console is None) as progress:
        bar = progress.add_task(f"scoring {about.name} {about.split}", total=len(own.index))
        for batch in batches_of(run, own, device):
            measured.append(run.task.measure(ask(run, batch.images), batch.target))
            if learned is not None:
                constant.append(run.task.measure(run.task.constant(learned, len(batch.keys)), batch.target))
            keys += batch.keys
            progress.advance(bar, len(batch.keys))
    if processes is not None:
        measured = list(chain(*processes.from_all(measured)))
        constant = list(chain(*processes.from_all(constant)))
        keys = list(chain(*processes.from_all(keys)))
    arrays = joined(measured)
    try:
        scores = run.task.scores(arrays)
        constants = run.task.scores(joined(constant)) if constant else {}
    except ValueError as error:
        where = f"{about.name}, {about.split}"
        raise TrainingError(str(error), where=where, hint="look at its labels, or score another dataset") from error
    return Measured(keys=tuple(keys), arrays=arrays, scores=scores, constants=constants)


def targets_of(run: Run, train: Sequence[Part], device: torch.device) -> Tensors:
    """Labels of some training examples, spread evenly over the sets."""
    some = [part.spread(-(-NUM_LEARNED // len(train))) for part in train]
    targets = [batch.target for part in some for batch in batches_of(run, part, device)]
    return {name: torch.cat([one[name] for one in targets]) for name in targets[0]}


def joined(arrays: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Arrays of batches as those of the whole set."""
    return {name: np.concatenate([one[name] for one in arrays]) for name in arrays[0]}


def whole(examples: Examples) -> Part:
    """All examples of a dataset."""
    return Part(examples, np.arange(len(examples)))


def batches_of(run: Run, part: Part, device: torch.device) -> Iterator[Batch]:
    """The part's examples in order, each once, as still views."""
    image_px = run.network.architecture.image_px
    return still_batches(part, run.task, image_px=image_px, batch_size=run.recipe.batch_size, device=device)


def ask(run: Run, images: Sequence[Tensor]) -> Any:
    """What the network answers to images, in the recipe's precision."""
    with precision_of(run.recipe, images[0].device):
        return run.network(images)
