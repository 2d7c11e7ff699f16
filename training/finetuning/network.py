"""A task's network: features of a pre-trained encoder (and decoder), a head, and the weights both start from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from manifests.errors import RecipeError, TrainingError
from manifests.recipes import from_mapping
from manifests.seeds import seed_for
from training.checkpoints import architecture_of, file_sha256, list_checkpoints, load_weights, read_payload
from training.finetuning.mixture import normalised
from training.heads.features import Binocular, Monocular, Queried
from training.model.croco import Architecture, CroCo, base_small
from training.model.mae import MAE
from training.recipes import study
from training.tasks.base import Asking, Task
from training.tasks.recipes import FinetuneRecipe

BEST = "best.pt"
DECODED = ("two", "query")  # what is read behind the decoder


class TaskNetwork(nn.Module):
    """From images to what a task asks for.

    Args:
        network: whose encoder, and decoder for a task on two pictures, is taken.
        task: gives the head.
    """

    def __init__(self, network: CroCo | MAE, task: Task) -> None:
        super().__init__()
        a = self.architecture = network.architecture
        if task.reads == "two":
            assert isinstance(network, CroCo)
            self.features: Monocular | Binocular | Queried = Binocular(network)
        elif task.reads == "query":
            assert isinstance(network, CroCo)
            query_HW3 = cast("Asking", task).query(a.image_px)
            self.features = Queried(network, normalised(query_HW3[None], torch.device("cpu"))[0])
        else:
            self.features = Monocular(network, hooks=dense_hooks(a.enc_depth) if task.reads == "dense" else (-1,))
        self.head = task.head(self.features.widths, a.num_patches)

    def forward(self, images: tuple[Tensor, ...]) -> Any:
        """What the head makes of the features of one picture, or of two."""
        return self.head(self.features(*images))


def dense_hooks(depth: int) -> tuple[int, ...]:
    """Four blocks at even distances, the last among them: DPT's (2, 5, 8, 11) of twelve; a shallow network's come twice."""
    return tuple(math.ceil(quarter * depth / 4) - 1 for quarter in (1, 2, 3, 4))


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Weights to start from.

    Args:
        path: of the file.
        sha256: of its bytes.
        architecture: of the network they are of.
        mae: whether they are an MAE's.
        finetuned: of which task, if they come from a fine-tuning.
        told: what they are, in a few words.
    """

    path: Path
    sha256: str
    architecture: Architecture
    mae: bool
    finetuned: str | None
    told: str


def told_of(start: Start | None, task: str) -> str:
    """What a run of a task starts from, in a line."""
    if start is None:
        return "random weights"
    head = "" if start.finetuned is None else ", with its head" if start.finetuned == task else ", with a new head"
    return f"{start.path}: {start.told}{head}"


def find_start(init: str) -> Start | None:
    """Say what `--init` stands for.

    Args:
        init: `random`; the folder of a run, pre-trained or fine-tuned; or a file of weights.

    Returns:
        None for random weights.

    Raises:
        TrainingError: there is no such file, no checkpoint in the folder, or nothing readable.
    """
    if init == "random":
        return None
    path = Path(init)
    if path.is_dir():
        found = [path / BEST] if (path / BEST).exists() else list_checkpoints(path / "checkpoints")
        if not found:
            hint = "give the folder of a run, a file of weights, or random"
            raise TrainingError("the folder holds no checkpoint", where=path, hint=hint)
        if found[-1].is_dir():
            hint = "`python -m training export` makes one file of them"
            raise TrainingError("the run's weights are shared among files", where=found[-1], hint=hint)
        path = found[-1]
    payload = read_payload(path)
    state, recipe = payload["model"], payload.get("recipe", {})
    mae = "cls_token" in state
    if "architecture" in recipe:
        architecture = from_mapping(Architecture, recipe["architecture"], where=str(path))
        what = f"step {payload['step']} of {recipe['name']}"
    else:
        architecture, what = _public_architecture(payload, path), "public weights"
    finetuned = recipe.get("task")
    parts = "encoder" if mae else "encoder and decoder"
    return Start(
        path=path,
        sha256=file_sha256(path),
        architecture=architecture,
        mae=mae,
        finetuned=finetuned,
        told=f"{parts} of {'an MAE' if mae else 'a CroCo'}, {what}" + (f" on {finetuned}" if finetuned else ""),
    )


def _public_architecture(payload: Mapping[str, Any], path: Path) -> Architecture:
    """What a public file states, and of what it does not state the size that most of them have."""
    try:
        stated = architecture_of(payload)
    except (ValueError, SyntaxError) as error:
        hint = "check its origin"
        raise TrainingError(f"the file's own settings cannot be read: {error}", where=path, hint=hint) from error
    is_cosine = not payload["model"].keys().isdisjoint(("enc_pos_embed", "pos_embed"))
    return replace(base_small(), **{"positions": "cosine" if is_cosine else "rope", **stated})


def settle(recipe: FinetuneRecipe, task: Task, start: Start | None) -> FinetuneRecipe:
    """Fill in what the weights decide: the architecture, whether the network is an MAE, and that random ones are all learned alike.

    Raises:
        RecipeError: an MAE is asked to read two pictures.
    """
    architecture = recipe.architecture or (study().architecture if start is None else start.architecture)
    mae = recipe.mae if recipe.mae is not None else start is not None and start.mae and task.reads not in DECODED
    if mae and task.reads in DECODED:
        hint = "leave mae out: its encoder goes into a network with a random decoder"
        raise RecipeError(f"{task.name} needs a decoder of two pictures, which an MAE has not", where="mae", hint=hint)
    layer_decay = 1.0 if start is None else recipe.layer_decay
    return replace(recipe, architecture=architecture, mae=mae, layer_decay=layer_decay)


def build_network(recipe: FinetuneRecipe, task: Task, start: Start | None = None) -> TaskNetwork:
    """The network of a settled recipe, with the weights to start from in it.

    Raises:
        TrainingError: the weights do not fit.
    """
    assert recipe.architecture is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(recipe.seed, "weights"))
        network = MAE(recipe.architecture) if recipe.mae else CroCo(recipe.architecture)
        if start is not None and start.finetuned is None:
            load_weights(network, start.path)
        torch.manual_seed(seed_for(recipe.seed, "head"))
        whole = TaskNetwork(network, task)
    if start is not None and start.finetuned is not None:
        _load_finetuned(whole, recipe, start)
    return whole


def _load_finetuned(whole: TaskNetwork, recipe: FinetuneRecipe, start: Start) -> None:
    payload = read_payload(start.path)
    try:
        whole.features.network.load_state_dict(payload["model"])
        if start.finetuned == recipe.task:
            whole.head.load_state_dict(payload["head"])
    except RuntimeError as error:
        hint = "start from a run of the same architecture, and of a task that reads as many pictures"
        raise TrainingError(f"the weights do not fit: {str(error)[:200]}", where=start.path, hint=hint) from error
