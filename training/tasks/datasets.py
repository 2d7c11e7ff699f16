"""Where the datasets and files of a fine-tuning recipe lie, and opening them; what is missing is told all at once."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from manifests.errors import RecipeError, TrainingError
from training.examples.base import Examples
from training.tasks.recipes import Data, FinetuneRecipe, imported

READERS: Mapping[str, str] = {
    "free": "training.examples.free:Free",
    "free_classes": "training.examples.free_classes:FreeClasses",
    "free_surface": "training.examples.free_surface:FreeSurface",
    "few_shot": "training.examples.few_shot:few_shot",
    **{
        name: f"training.examples.{name}:{name}"
        for name in (
            "coco_eft", "densepose_coco", "freihand", "gun71", "hagrid", "hanco", "human36m", "mpi_inf_3dhp", "mpii", "smpl_market",
            "threedpw",
        )
    },
}  # fmt: skip
"""Where the reader of each kind of dataset is, called with its root, a split and options."""

FILES = frozenset(
    {
        *("model", "mean", "male", "female", "regressor_h36m", "regressor_extra"),
        *("evaluation", "body", "uv", "reid", "reid_plain", "textures"),
    }
)
"""Options, of tasks and readers, that name a file or a folder which must be there."""


def with_roots(recipe: FinetuneRecipe, given: Sequence[str]) -> FinetuneRecipe:
    """Say where the datasets lie.

    Args:
        recipe: whose datasets may have a root of their own; `given` goes before it.
        given: `kind=folder`, or a folder alone for all kinds that are not named.

    Returns:
        The recipe; nothing is said of where a dataset lies that neither it nor `given` tells, see `check_places`.

    Raises:
        RecipeError: a kind is named that the recipe has not, or two folders could be meant.
    """
    kinds = sorted({data.kind for data in recipe.datasets})
    if unknown := sorted({text.split("=", 1)[0] for text in given if "=" in text} - {*kinds}):
        raise RecipeError(f"the recipe has no dataset {unknown[0]}", where="--data", hint=f"it has {', '.join(kinds)}")
    return replace(
        recipe,
        train=tuple(placed(data, given) for data in recipe.train),
        validation=None if recipe.validation is None else placed(recipe.validation, given),
        test=tuple(placed(data, given) for data in recipe.test),
    )


def placed(data: Data, given: Sequence[str]) -> Data:
    """A dataset with its root, if any is told; see `with_roots`.

    Raises:
        RecipeError: two folders could be meant.
    """
    named = dict(text.split("=", 1) for text in given if "=" in text)
    alone = [text for text in given if "=" not in text]
    if len(alone) > 1:
        hint = "give kind=folder ..."
        raise RecipeError("two folders, and nothing says of which datasets", where="--data", hint=hint)
    return replace(data, root=named.get(data.kind) or next(iter(alone), None) or data.root)


def without_roots(recipe: FinetuneRecipe) -> FinetuneRecipe:
    """What of a recipe decides the result: not where its datasets lie."""

    def bare(data: Data) -> Data:
        return replace(data, root=None)

    return replace(
        recipe,
        train=tuple(bare(data) for data in recipe.train),
        validation=None if recipe.validation is None else bare(recipe.validation),
        test=tuple(bare(data) for data in recipe.test),
    )


def check_places(recipe: FinetuneRecipe, starts: Iterable[str] = ()) -> None:
    """Refuse a recipe whose datasets, models and other files are not all there.

    Args:
        recipe: what is looked through.
        starts: what `--init` was told; `random` or places of weights.

    Raises:
        TrainingError: names all that is missing.
    """
    untold = list(dict.fromkeys(data.kind for data in recipe.datasets if data.root is None))
    lost = {data.kind: data.root for data in recipe.datasets if data.root and not Path(data.root).is_dir()}
    options = [recipe.options, *(data.options for data in recipe.datasets)]
    files = {name: str(some[name]) for some in options for name in sorted(FILES & {*some}) if some[name] is not None}
    files = {name: path for name, path in sorted(files.items()) if not Path(path).exists()}
    weights = [start for start in starts if start != "random" and not Path(start).exists()]
    what, hints = [], []
    if untold:
        what.append(f"nothing says where {' and '.join(untold)} lie{'s' * (len(untold) == 1)}")
    if lost:
        what.append(f"there is no such folder ({', '.join(lost)})")
    if untold or lost:
        hints.append(f"give --data {' '.join(f'{kind}=FOLDER' for kind in (*untold, *lost))}")
    if files:
        what.append(f"there is no such file ({', '.join(files)})")
        hints.append(
            f"docs/finetuning.md says where to get them; `options: {{{', '.join(files)}}}` of a YAML recipe name other places"
        )
    if weights:
        what.append("there is no such file of weights")
        hints.append("look at --init")
    if what:
        places = [*(f"{name}={path}" for name, path in {**lost, **files}.items()), *weights]
        raise TrainingError(", and ".join(what), where=", ".join(places) or "--data", hint="; ".join(hints))


def check_draws(recipe: FinetuneRecipe, seeds: Iterable[int]) -> None:
    """Refuse seeds that a training set which draws by them cannot draw by.

    Raises:
        TrainingError: which draw there is not.
    """
    for data in recipe.train:
        if _draws(data):
            for seed in seeds:
                open_examples(data, seed=seed)


def open_examples(data: Data, *, seed: int = 0) -> Examples:
    """Open a dataset: its lists are read, no picture is.

    Args:
        data: which one.
        seed: of the run, for readers that draw.

    Raises:
        RecipeError: there is no such reader.
        CrossposeError: the dataset is not as its layout promises.
    """
    if data.kind not in READERS:
        raise RecipeError(f"no reader is called {data.kind}", where="kind", hint=f"readers: {', '.join(READERS)}")
    if data.root is None or not Path(data.root).is_dir():
        what = "is no folder" if data.root and Path(data.root).exists() else "is not there"
        where = "--data" if data.root is None else data.root
        raise TrainingError(f"{data.kind} {what}", where=where, hint=f"give --data {data.kind}=FOLDER")
    reader = imported(READERS[data.kind])
    taken = [name for name in inspect.signature(reader).parameters if name not in ("root", "split", "seed")]
    if unknown := [name for name in data.options if name not in taken]:
        hint = f"it takes {', '.join(taken)}" if taken else "it takes none"
        raise RecipeError(f"{data.kind} has no option {unknown[0]}", where=f"options of {data.kind}", hint=hint)
    drawn = {"seed": seed} if _draws(data) else {}
    return cast("Examples", reader(Path(data.root), split=data.split, **data.options, **drawn))


def _draws(data: Data) -> bool:
    return data.kind in READERS and "seed" in inspect.signature(imported(READERS[data.kind])).parameters
