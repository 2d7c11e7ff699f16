"""Few examples of each class, drawn once and written down, so that every network learns from the same ones.

``` text
{"dataset": "hagrid", "format": "few_shot/1", "seed": 0, "shots": 64, "draws": [{"call": ["hagrid/call/...", ...], ...}, ...]}
```
A draw is an order of `shots` keys for each class: n-shot are the first n of them, so that 32 hold the same draw's 16. The order of a class
depends on the seed, the draw, the class's name and its sorted keys, and on nothing else.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from manifests.errors import TrainingError
from manifests.files import write_json
from manifests.seeds import rng_for
from training.examples.base import About, Example, Examples
from training.examples.free_classes import FreeClasses
from training.examples.hagrid import hagrid

FORMAT = "few_shot/1"
MOST_SHOTS = 64
NUM_DRAWS = 5

READERS: Mapping[str, Callable[..., "Classified"]] = {"hagrid": hagrid, "free_gesture": FreeClasses}


class Classified(Examples, Protocol):
    """Examples whose keys and classes are known without decoding."""

    def keys(self) -> Sequence[str]:
        """The key of each."""

    def class_indices(self) -> Sequence[int]:
        """The class of each, an index into `about.classes`."""


class Chosen:
    """Some examples of a dataset, in the order of its keys.

    Args:
        examples: of the dataset.
        keys: of those that are kept.
        protocol: which these are, in words, before those of the dataset.

    Raises:
        TrainingError: the dataset has no such key.
    """

    def __init__(self, examples: Classified, keys: Sequence[str], *, protocol: str) -> None:
        places = {key: index for index, key in enumerate(examples.keys())}
        if missing := sorted(set(keys) - set(places)):
            raise TrainingError(
                f"{len(missing)} of {len(keys)} chosen examples are not here, the first one is {missing[0]}",
                where=examples.about.name,
                hint="the manifest is of another copy of the dataset; write a new one",
            )
        self._examples = examples
        self._index = sorted(places[key] for key in keys)
        self._about = replace(examples.about, protocol=f"{protocol}; {examples.about.protocol}")

    @property
    def about(self) -> About:
        """What is known of all."""
        return self._about

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Example:
        """Decode one."""
        return self._examples[self._index[index]]

    def subjects(self) -> Sequence[str | None]:
        """The subject of each."""
        subjects = self._examples.subjects()
        return [subjects[index] for index in self._index]

    def keys(self) -> Sequence[str]:
        """The key of each."""
        keys = self._examples.keys()
        return [keys[index] for index in self._index]

    def class_indices(self) -> Sequence[int]:
        """The class of each."""
        classes = self._examples.class_indices()
        return [classes[index] for index in self._index]


def few_shot(
    root: Path,
    *,
    split: str,
    of: str = "hagrid",
    shots: int = 16,
    draw: int | None = None,
    manifest: str | None = None,
    seed: int = 0,
) -> Classified:
    """Train on a few examples of each class, validate and test on all.

    Args:
        root: of the dataset.
        split: train, val or test; only train is thinned.
        of: the dataset: hagrid or free_gesture.
        shots: examples of each class.
        draw: which of the draws, from 0; None: as the seed says.
        manifest: file that says what was drawn; written when it is not there. Without one, what it would say.
        seed: of the run.

    Raises:
        TrainingError: there is no such dataset or draw, a class has too few examples, or the manifest is of another dataset.
    """
    if of not in READERS:
        raise TrainingError(
            f"few shots of {of} are not known", where="option `of` of few_shot", hint=f"give {' or '.join(READERS)}"
        )
    examples = READERS[of](root, split=split)
    if split != "train":
        return examples
    path = None if manifest is None else Path(manifest)
    if path is not None and path.exists():
        drawn = _read(path, examples.about)
    else:
        drawn = draw_shots(examples, most=max(shots, MOST_SHOTS if path else 0))
        if path is not None:
            write_json(path, drawn)
    draw = seed if draw is None else draw
    if not 0 <= draw < len(drawn["draws"]) or not 1 <= shots <= drawn["shots"]:
        raise TrainingError(
            f"there is no draw {draw} of {shots} examples a class",
            where=path or "few_shot",
            hint=f"draws, which the run's seed names, are 0 to {len(drawn['draws']) - 1}, of at most {drawn['shots']} examples",
        )
    keys = [key for order in drawn["draws"][draw].values() for key in order[:shots]]
    return Chosen(examples, keys, protocol=f"{shots} of each class, draw {draw} of seed {drawn['seed']}")


def draw_shots(
    examples: Classified, *, most: int = MOST_SHOTS, draws: int = NUM_DRAWS, seed: int = 0
) -> dict[str, Any]:
    """Draw what a manifest says.

    Args:
        examples: the training split.
        most: keys that are drawn of each class.
        draws: how often.
        seed: of all draws.

    Raises:
        TrainingError: a class has fewer examples.
    """
    about = examples.about
    of_class: dict[str, list[str]] = {name: [] for name in about.classes}
    for key, number in zip(examples.keys(), examples.class_indices(), strict=True):
        if number >= 0:
            of_class[about.classes[number]].append(key)
    scarce = min(of_class, key=lambda name: len(of_class[name]))
    if len(of_class[scarce]) < most:
        what = f"{scarce} has {len(of_class[scarce])} examples, and {most} of each class are drawn"
        raise TrainingError(what, where=f"{about.name}, {about.split}", hint="ask for fewer, or add examples")
    orders = [
        {
            name: [keys[i] for i in rng_for(seed, "few_shot", draw, name).permutation(len(keys))[:most].tolist()]
            for name, keys in ((name, sorted(keys)) for name, keys in of_class.items())
        }
        for draw in range(draws)
    ]
    return {"format": FORMAT, "dataset": about.name, "seed": seed, "shots": most, "draws": orders}


def _read(path: Path, about: About) -> dict[str, Any]:
    hint = "give the file of this dataset, or the name of one that is not there yet"
    try:
        drawn = json.loads(path.read_bytes())
        fits = drawn["format"] == FORMAT and drawn["dataset"] == about.name
        classes = {frozenset(one) for one in drawn["draws"]}
        whole = all(len(order) == drawn["shots"] for one in drawn["draws"] for order in one.values())
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrainingError(f"no manifest of few shots: {error!r}", where=path, hint=hint) from error
    if not fits or not whole or classes != {frozenset(about.classes)}:
        raise TrainingError(f"the manifest is not of the classes of {about.name}", where=path, hint=hint)
    return dict(drawn)
