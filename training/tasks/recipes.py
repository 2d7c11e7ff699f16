"""What decides the result of a fine-tuning: the task with its options, the datasets, the network, the schedule.

`free` runs on rendered data on any machine; the names beside it are those of the paper's protocols. A YAML file may name a recipe and
change fields of it. Tasks and readers are imported when they are asked for.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from typing import Any, Literal, cast

from manifests.errors import RecipeError
from manifests.recipes import from_mapping, read_recipe
from training.assets import asset
from training.model.croco import Architecture, base_small
from training.tasks.base import Task

Option = str | int | float | bool | tuple[str, ...]

TASKS: Mapping[str, str] = {
    "body_mesh": "training.tasks.body_mesh:BodyMesh",
    "hand_mesh": "training.tasks.hand_mesh:HandMesh",
    "body_two": "training.tasks.binocular:BodyTwo",
    "hand_two": "training.tasks.binocular:HandTwo",
    "densepose": "training.tasks.densepose:DensePose",
    "keypoints": "training.tasks.keypoints:Keypoints",
    "gesture": "training.tasks.gesture:Gesture",
    "grasp": "training.tasks.grasp:Grasp",
    "texture": "training.tasks.texture:Texture",
}
"""Where each task is, `module:class`."""

FREE: Mapping[str, str] = {"gesture": "free_classes", "grasp": "free_classes", "densepose": "free_surface"}
"""Readers of rendered data for tasks that need other labels than `free` gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """One dataset.

    Args:
        kind: its reader, of `training.tasks.datasets`.
        split: train, val or test.
        weight: in the mixture of the training sets.
        root: where it lies; what `--data` says when None. It is no part of what a run is known by.
        options: of the reader.
    """

    kind: str
    split: str = "train"
    weight: float = 1.0
    root: str | None = None
    options: dict[str, Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError(f"weight must be positive, not {self.weight}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """How training pictures are varied; evaluation takes the square as it is. The defaults are SPIN's.

    Args:
        flip: share of pictures that are mirrored, where the task allows it.
        noise: each colour channel is multiplied by U(1 - noise, 1 + noise).
        turn_deg: deviation of the turn around the square's centre, cut at twice this, where the task allows it.
        turned: share of pictures that are turned at all.
        scale: deviation of the square's size, cut at this.
    """

    flip: float = 0.5
    noise: float = 0.4
    turn_deg: float = 30.0
    turned: float = 0.4
    scale: float = 0.25

    def __post_init__(self) -> None:
        if not (0 <= self.flip <= 1 and 0 <= self.turned <= 1):
            raise ValueError("flip and turned are shares, in [0, 1]")
        if not (0 <= self.noise < 1 and 0 <= self.scale < 1 and 0 <= self.turn_deg <= 90):
            raise ValueError("noise and scale must lie in [0, 1), turn_deg in [0, 90]")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneRecipe:
    """Settings of a fine-tuning run.

    Args:
        name: how people call it.
        task: of `TASKS`.
        options: the task's own, as models and heads; its fields by name.
        train: datasets that are learned from, mixed by their weights.
        validation: what chooses the best checkpoint; when None, a share of the training sets' people is kept for it.
        validation_share: this share.
        test: datasets that are scored at the end.
        architecture: of the network; None: as the initial weights are, and `study`'s when they are random.
        mae: keep an MAE's class token beside the patches; None: where the weights are an MAE's and the task reads one picture.
        variation: of training pictures.
        share: of the training examples that is learned from; smaller shares of a seed lie in larger ones.
        batch_size: examples of a step.
        num_steps: steps of the run.
        warmup: share of the steps over which the learning rate rises; then a cosine brings it to 0.
        base_lr: learning rate for 256 examples a step; the peak is base_lr * batch_size / 256.
        layer_decay: each block of the encoder has this times the rate of the next one; decoder and head have the whole rate. Random
            weights are all learned at the whole rate.
        weight_decay: AdamW's, on weights only.
        betas: AdamW's.
        clip: a longer gradient is shortened to this; the iterative regressor's is hundreds long at the start.
        precision: of the forward pass on CUDA; a CPU always computes in float32.
        validate_every: steps between validations; one more closes the run.
        validation_examples: at most so many, spread evenly.
        seed: of everything random in the run.

    Raises:
        ValueError: settings contradict each other.
    """

    name: str
    task: str
    options: dict[str, Option] = field(default_factory=dict)
    train: tuple[Data, ...]
    validation: Data | None = None
    validation_share: float = 0.1
    test: tuple[Data, ...]
    architecture: Architecture | None = None
    mae: bool | None = None
    variation: Variation = field(default_factory=Variation)
    share: float = 1.0
    batch_size: int = 64
    num_steps: int
    warmup: float = 0.05
    base_lr: float = 1e-4
    layer_decay: float = 0.75
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    validate_every: int
    validation_examples: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_steps", "validate_every", "validation_examples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if not self.train or not self.test:
            raise ValueError("train and test each need a dataset")
        names = [(data.kind, data.split, sorted(data.options.items())) for data in self.train]
        if any(name in names[:place] for place, name in enumerate(names)):
            raise ValueError("a dataset is named twice in train: give it one weight")
        if not 0 < self.share <= 1 or not 0 < self.layer_decay <= 1:
            raise ValueError("share and layer_decay must lie in (0, 1]")
        if not 0 <= self.warmup < 1 or not 0 < self.validation_share < 1:
            raise ValueError("warmup must lie in [0, 1), validation_share in (0, 1)")
        if min(self.base_lr, self.clip) <= 0 or self.weight_decay < 0 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("base_lr and clip must be positive, weight_decay at least 0, betas in [0, 1)")

    @property
    def datasets(self) -> tuple[Data, ...]:
        """All that it names."""
        return *self.train, *self.test, *(() if self.validation is None else (self.validation,))

    @property
    def peak_lr(self) -> float:
        """Learning rate at the end of the warm-up."""
        return self.base_lr * self.batch_size / 256


MESHES = ("body_mesh", "hand_mesh", "body_two", "hand_two")


def free(task: str) -> FinetuneRecipe:
    """Rendered people or hands and a small network, on a CPU. Pictures are not turned: few of them have to teach which way is up.

    Heads read what each patch says instead of the mean, which from random weights told hardly anything (see `Pool`), and colours are varied little. The head of dense
    maps is a quarter as wide: as the paper has it, a step took 15 s.
    """
    is_mesh = task in MESHES
    options: dict[str, Option] = {"keypoint_set": "penn13"} if task == "keypoints" else {}
    own: dict[str, Option] = {"pooling": "places"} if is_mesh or task in ("gesture", "grasp") else {}
    own |= {"parameter_weight": 20.0} if is_mesh else {}
    own |= {"patch_px": 8, "features": 64} if task == "densepose" else {}
    data = {
        split: Data(kind=FREE.get(task, "free"), split=split, options=options) for split in ("train", "val", "test")
    }
    return FinetuneRecipe(
        name="free",
        task=task,
        options=own,
        train=(data["train"],),
        validation=data["val"],
        test=(data["test"],),
        # A texture's colours are what is asked for.
        variation=Variation(turned=0.0, scale=0.1, noise=0.0 if task == "texture" else 0.1),
        batch_size=32,
        num_steps=2000,
        base_lr=4e-3,
        layer_decay=0.9,
        precision="float32",
        validate_every=200,
        validation_examples=256,
    )


def paper(task: str) -> FinetuneRecipe:
    """The paper's datasets and network. Its schedules are not published: these are ours, within its budget of half a day on a GPU.

    Textures are learned as Texformer learns them, as the paper says: 16 pictures a step, a rate of 1e-4, 500 times each of some 1,400 people; the rate's
    cosine and the limit on gradients are ours. What nobody can ship lies among the assets, or where a YAML file says.

    Raises:
        RecipeError: the paper fine-tunes no such task.
    """
    steps, train, validation, test = _paper_sets(task)
    recipe = FinetuneRecipe(
        name="paper",
        task=task,
        options={name: str(asset(file)) for name, file in PAPER_FILES.get(task, {}).items()},
        train=train,
        validation=validation,
        test=(test,),
        architecture=base_small(),
        batch_size=128,
        num_steps=steps,
        validate_every=max(1, steps // 50),
    )
    if task != "texture":
        return recipe
    return replace(
        recipe,
        variation=Variation(flip=0.0, noise=0.0, turned=0.0, scale=0.0),
        batch_size=16,
        warmup=0.0,
        base_lr=1e-4 * 256 / 16,
        layer_decay=1.0,
        weight_decay=0.0,
    )


_SMPL = {
    "model": "smpl.npz",
    "male": "smpl_male.npz",
    "female": "smpl_female.npz",
    "regressor_h36m": "J_regressor_h36m.npy",
}
_MANO = {"model": "mano_right.npz"}
PAPER_FILES: Mapping[str, Mapping[str, str]] = {
    "body_mesh": _SMPL,
    "body_two": _SMPL,
    "hand_mesh": _MANO,
    "hand_two": _MANO,
    "densepose": {"evaluation": "densepose"},
    "texture": {
        "body": "smpl.npz",
        "uv": "smpl_uv.obj",
        "reid": "texformer/checkpoint_120.pth.tar",
        "reid_plain": "texformer/resnet50_market_xent.pth.tar",
        "textures": "surreal/textures",
    },
}
"""Files among the assets for the tasks in the paper's setting, that nobody but their owners may pass on: models as their user converted them; SMPL's texture coordinates;
DensePose's evaluation data; re-identification networks, under the names that Texformer's authors gave them; SURREAL's textures."""


def _paper_sets(task: str) -> tuple[int, tuple[Data, ...], Data | None, Data]:
    """Steps, and what is learned from, validated on (people kept apart when None) and scored."""
    if task == "body_mesh":
        test = Data(kind="threedpw", split="test")
        return 50_000, (Data(kind="coco_eft"),), Data(kind="coco_eft", split="val"), test
    if task == "body_two":
        both = Data(kind="coco_eft"), Data(kind="threedpw", options={"neighbour": 10})
        validation, test = (Data(kind="threedpw", split=split, options={"neighbour": 10}) for split in ("val", "test"))
        return 50_000, both, validation, test
    if task == "gesture":
        return 2_000, (Data(kind="few_shot"),), Data(kind="few_shot", split="val"), Data(kind="few_shot", split="test")
    if task == "texture":
        photos = {split: Data(kind="smpl_market", split=split) for split in ("train", "val", "test")}
        return 44_000, (photos["train"],), photos["val"], photos["test"]
    kinds = {
        "hand_mesh": ("freihand", 50_000),
        "hand_two": ("hanco", 50_000),
        "densepose": ("densepose_coco", 50_000),
        "grasp": ("gun71", 5_000),
    }
    if task not in kinds:
        hint = "take free, or a YAML recipe on a dataset with keypoints, as coco_eft, mpii or threedpw"
        raise RecipeError(f"the paper fine-tunes no {task}", where="--recipe paper", hint=hint)
    kind, steps = kinds[task]
    return steps, (Data(kind=kind),), Data(kind=kind, split="val"), Data(kind=kind, split="test")


def smoke(task: str) -> FinetuneRecipe:
    """The smallest run that goes through every part: twelve steps take some seconds on one CPU core, then the whole test set is scored."""
    network = Architecture(
        image_px=56, patch_px=8, enc_dim=64, enc_depth=2, enc_heads=2, dec_dim=64, dec_depth=2, dec_heads=2
    )
    return replace(
        free(task),
        name="smoke",
        architecture=network,
        batch_size=8,
        num_steps=12,
        validate_every=6,
        validation_examples=16,
    )


RECIPES: Mapping[str, Callable[[str], FinetuneRecipe]] = {"free": free, "paper": paper, "smoke": smoke}
"""Recipes of a task that a command line or a YAML file may name."""


def read_finetune(name_or_file: str, task: str) -> FinetuneRecipe:
    """Find a task's recipe by name, or read a YAML file that starts from one.

    Raises:
        RecipeError: there is no such task or recipe, or the file is of another task, or wrong.
    """
    check_task(task)
    recipe = read_recipe(name_or_file, {name: partial(make, task) for name, make in RECIPES.items()}, where="--recipe")
    if recipe.task != task:
        hint = f"give --task {recipe.task}, or another recipe"
        raise RecipeError(f"the recipe is of the task {recipe.task}", where=name_or_file, hint=hint)
    return recipe


def check_task(task: str) -> None:
    """Refuse a name that is no task's.

    Raises:
        RecipeError: there is no such task.
    """
    if task not in TASKS:
        near = difflib.get_close_matches(task, TASKS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"tasks: {', '.join(TASKS)}"
        raise RecipeError(f"no task is called `{task}`", where="--task", hint=hint)


def build_task(name: str, options: Mapping[str, Any]) -> Task:
    """The task with its options.

    Raises:
        RecipeError: it has no such option, or the option no such value.
        TrainingError: a model that it names is missing or damaged.
    """
    check_task(name)
    return cast("Task", from_mapping(imported(TASKS[name]), options, where=f"options of {name}"))


def imported(where: str) -> Any:
    """What stands at `module:name`; it is imported when it is asked for."""
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)
