"""Scores of a fine-tuned network on a dataset: exact over all its examples, with intervals and pictures.

Intervals come from drawing the people of the dataset anew: pictures of one person are no independent evidence.
Shape letters: `B` examples of a batch, `n` examples of a dataset, `S` subjects, `H W` picture.
"""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from manifests.errors import CrossposeError, RecipeError
from manifests.seeds import rng_for
from training.checkpoints import write_atomic
from training.examples.base import About
from training.finetuning.measure import Measured, Run, ask, batches_of, load_finetuned, measure, measure_sets, whole
from training.finetuning.mixture import Part
from training.finetuning.sheet import Tile, png, sheet_of
from training.run_folder import FINISHED, RECIPE, make_folder, read_json, write_json
from training.tasks.base import Arrays, Score, Task, Tensors
from training.tasks.datasets import open_examples, placed
from training.tasks.recipes import Data, FinetuneRecipe
from training.views import STILL, Image, look

logger = logging.getLogger(__name__)

LEVEL = 0.95
NUM_DRAWS = 1000
NUM_DRAWS_OF_SETS = 200  # where a score of a set is no mean of its examples', it is computed anew for each draw
NUM_SHOWN = 4
SHOWN_PX = 224  # least side of a picture that is drawn on: a small network sees less than people want to see
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a network scores on a dataset.

    Args:
        about: of the dataset.
        scores: of the whole set, by name.
        intervals: low and high of each; None with fewer than two people.
        constants: what a constant answer scores, see `Task.constant`; none where the training set is not there.
        keys: (n,) of the examples.
        subjects: (n,) who they show; each example is somebody where nobody is known.
        values_n: of each example by itself, by score.
    """

    about: About
    scores: Mapping[str, Score]
    intervals: Mapping[str, tuple[float, float] | None]
    constants: Mapping[str, float]
    keys: tuple[str, ...]
    subjects: tuple[str, ...]
    values_n: Mapping[str, Floats]

    def as_json(self) -> dict[str, Any]:
        """The scores with their units, conventions and intervals, as plain values; null where there is none."""
        return {
            "dataset": self.about.name,
            "split": self.about.split,
            "protocol": self.about.protocol,
            "examples": len(self.keys),
            "subjects": len(set(self.subjects)),
            "left_out": len(self.about.rejects),
            "scores": {
                name: {
                    **asdict(score),
                    "value": _plain(score.value),
                    "interval": self.intervals[name],
                    "constant": _plain(self.constants.get(name, math.nan)),
                }
                for name, score in self.scores.items()
            },
        }


def evaluate_run(
    folder: Path, out: Path, *, given: Sequence[str], test: str | None, device: torch.device, console: Console | None
) -> tuple[Evaluation, ...]:
    """Score a run on its recipe's test sets, or on another dataset; write what `write_scores` does.

    Args:
        folder: of the run.
        out: folder to write to.
        given: where datasets lie, as `with_roots` reads it; what the run was told where they say nothing.
        test: `kind` or `kind/split` of a dataset; the test sets when None.
        device: where the network computes.
        console: where a progress bar is drawn.

    Raises:
        RecipeError: the dataset or its split is not known.
        TrainingError: nothing is trained yet, or the dataset is missing or lacks what the task needs.
    """
    run = load_finetuned(folder, device)
    datasets = run.recipe.test if test is None else (_dataset(run.recipe, test),)
    noted = dict(text.split("=", 1) for text in read_json(folder / RECIPE)["roots"])

    def opened(datasets: Sequence[Data]) -> list[Part]:
        every = [placed(replace(data, root=noted.get(data.kind)), given) for data in datasets]
        return [whole(open_examples(data, seed=run.recipe.seed)) for data in every]

    if not (folder / FINISHED).exists():
        logger.warning("the run is not finished: its weights are of step %d of %d", run.step, run.recipe.num_steps)
    parts = opened(datasets)
    for part in parts:
        run.task.check([], part.examples.about)
    try:
        train = opened(run.recipe.train)
    except CrossposeError as error:
        logger.info("no constant answer is scored, as the training set is not there: %s", error)
        train = []
    found = measure_sets(run, parts, train=train, device=device, console=console)
    return write_scores(run, parts, found, out, device=device)


def write_scores(
    run: Run, parts: Sequence[Part], measured: Sequence[Measured], out: Path, *, device: torch.device
) -> tuple[Evaluation, ...]:
    """Write `scores.json`, and the examples' scores and a picture of predictions for each dataset.

    Raises:
        TrainingError: the folder cannot be written.
    """
    evaluations = tuple(_evaluation(run, part, found) for part, found in zip(parts, measured, strict=True))
    write_evaluation(out, evaluations)
    for part, found in zip(parts, evaluations, strict=True):
        draw_predictions(out / f"predictions-{name_of(found.about)}.png", run, part, found, device=device)
    return evaluations


def _dataset(recipe: FinetuneRecipe, test: str) -> Data:
    kind, _, split = test.partition("/")
    if split not in ("", "train", "val", "test"):
        raise RecipeError(f"no split is called `{split}`", where="--test", hint="give train, val or test")
    known = (data.options for data in (*recipe.test, *recipe.train) if data.kind == kind)
    return Data(kind=kind, split=split or "test", options=next(known, {}))


def evaluate(
    run: Run, part: Part, *, learned: Tensors | None = None, device: torch.device, console: Console | None = None
) -> Evaluation:
    """Score a network on all of some examples, with an interval of each score; arguments and errors as of `measure`."""
    return _evaluation(run, part, measure(run, part, learned=learned, device=device, console=console))


def _evaluation(run: Run, part: Part, found: Measured) -> Evaluation:
    everybody = part.examples.subjects()
    subjects = tuple(everybody[i] or f"picture {i}" for i in part.index.tolist())
    values_n = values_of(run.task, found.arrays, len(found.keys))
    return Evaluation(
        about=part.examples.about,
        scores=found.scores,
        intervals={name: _interval(run.task, name, found, values_n[name], subjects) for name in found.scores},
        constants={name: score.value for name, score in found.constants.items()},
        keys=found.keys,
        subjects=subjects,
        values_n=values_n,
    )


def values_of(task: Task, measured: Arrays, num: int) -> dict[str, Floats]:
    """Each score of each example by itself, (n,); NaN where it has none."""
    single = [_values(task, {name: array[i : i + 1] for name, array in measured.items()}) for i in range(num)]
    names = dict.fromkeys(name for one in single for name in one)
    return {name: np.array([one.get(name, math.nan) for one in single]) for name in names}


def _values(task: Task, measured: Arrays) -> dict[str, float]:
    """The scores of a few examples; NaN, or left out, where nothing is known of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of means of nothing
        try:
            return {name: score.value for name, score in task.scores(measured).items()}
        except ValueError:
            return {}


def _interval(
    task: Task, name: str, found: Measured, values_n: Floats, subjects: Sequence[str]
) -> tuple[float, float] | None:
    """Where a score may lie for other people: where it is the mean of its examples' from their sums, else computed for each draw."""
    known, value = ~np.isnan(values_n), found.scores[name].value
    subject_n = np.unique(subjects, return_inverse=True)[1]
    num_subjects = int(subject_n.max()) + 1
    if num_subjects < 2 or not known.any() or math.isnan(value):
        return None
    rng = rng_for(0, "bootstrap", num_subjects)
    if math.isclose(values_n[known].mean(), value, rel_tol=1e-4, abs_tol=1e-9):
        draws_dS = rng.multinomial(num_subjects, np.full(num_subjects, 1 / num_subjects), NUM_DRAWS)
        count_S = np.bincount(subject_n[known], minlength=num_subjects)
        sum_S = np.bincount(subject_n[known], weights=values_n[known], minlength=num_subjects)
        num_d, sum_d = draws_dS @ count_S, draws_dS @ sum_S
        drawn = sum_d[num_d > 0] / num_d[num_d > 0]
    else:
        places = [np.flatnonzero(subject_n == subject) for subject in range(num_subjects)]
        choices = rng.integers(num_subjects, size=(NUM_DRAWS_OF_SETS, num_subjects))
        rows = [np.concatenate([places[subject] for subject in choice]) for choice in choices]
        sets = ({key: array[own] for key, array in found.arrays.items()} for own in rows)
        drawn = np.array([_values(task, one).get(name, math.nan) for one in sets])
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def draw_predictions(path: Path, run: Run, part: Part, evaluation: Evaluation, *, device: torch.device) -> None:
    """Draw the best, the middling and the worst predictions by the task's main score.

    Raises:
        TrainingError: the picture cannot be written.
    """
    main = run.task.main
    score, values_n = evaluation.scores[main], evaluation.values_n[main]
    order = np.argsort(values_n if score.better == "lower" else -values_n, kind="stable")
    order = order[~np.isnan(values_n[order])]
    middle = max(0, len(order) // 2 - NUM_SHOWN // 2)
    chosen = {"best": order[:NUM_SHOWN], "middling": order[middle:][:NUM_SHOWN], "worst": order[-NUM_SHOWN:]}
    rows = []
    for name, places in chosen.items():
        captions = [
            f"{main} {spoken(values_n[place], score.unit)}{unit_of(score)}{_class_of(part, place)}" for place in places
        ]
        drawn = [draw_example(run, part, int(place), device=device) for place in places]
        rows.append((name, [Tile(pixels, caption) for pixels, caption in zip(drawn, captions, strict=True)]))
    about = evaluation.about
    title = f"{run.task.name} on {about.name} {about.split}, step {run.step}: by {main}"
    write_atomic(path, png(sheet_of(rows, title=title)))


def _class_of(part: Part, place: int) -> str:
    """What an example is, in a caption, where its dataset has classes: a picture of it does not tell."""
    example = part.examples[int(part.index[place])]
    classes = part.examples.about.classes
    return f": {classes[example.labels['class']]}" if classes and "class" in example.labels else ""


@torch.no_grad()
def draw_example(run: Run, part: Part, place: int, *, device: torch.device) -> npt.NDArray[np.uint8]:
    """What a network says of the example at a place of the part, over its image, see `drawn_over`."""
    one = replace(part, index=part.index[place : place + 1])
    batch = next(iter(batches_of(run, one, device)))
    side = max(SHOWN_PX, run.network.architecture.image_px)
    return drawn_over(
        run, look(part.examples[int(one.index[0])], run.task, STILL, image_px=side).images, ask(run, batch.images)
    )


def drawn_over(run: Run, images: Sequence[Image], outputs: Any) -> Image:
    """An answer over its image, as the task draws it; beside it the second image, where the network has seen one."""
    return np.concatenate([run.task.draw(images[0], outputs, 0), *images[1:]], axis=1)


def write_evaluation(out: Path, evaluations: Sequence[Evaluation]) -> None:
    """Write `scores.json`, and `examples-<dataset>-<split>.parquet` with the scores of each example.

    Raises:
        TrainingError: the folder cannot be written.
    """
    make_folder(out)
    for evaluation in evaluations:
        columns = {"key": pa.array(evaluation.keys), "subject": pa.array(evaluation.subjects)}
        table = pa.table(columns | {name: pa.array(values) for name, values in evaluation.values_n.items()})
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer)
        write_atomic(out / f"examples-{name_of(evaluation.about)}.parquet", buffer.getvalue().to_pybytes())
    write_json(out / "scores.json", {"level": LEVEL, "datasets": [evaluation.as_json() for evaluation in evaluations]})


def name_of(about: About) -> str:
    """A dataset and its split, in names of files."""
    return f"{about.name}-{about.split}"


def scores_table(evaluation: Evaluation) -> Group:
    """The scores of a dataset with unit, interval and what a constant answer scores, and below them the convention of each."""
    about = evaluation.about
    people = len(set(evaluation.subjects))
    title = f"{about.name} {about.split}: {len(evaluation.keys)} examples of {people} subjects; {about.protocol}"
    table = Table(box=box.SIMPLE)
    columns = ("score", "left"), ("value", "right"), (f"{100 * LEVEL:.0f} %", "right"), ("constant", "right")
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    told: dict[str, list[str]] = {}
    for name, score in evaluation.scores.items():
        told.setdefault(score.convention, []).append(name)
        interval = evaluation.intervals[name]
        table.add_row(
            f"{name} {'↓' if score.better == 'lower' else '↑'}",
            f"{spoken(score.value, score.unit)}{unit_of(score)}",
            "" if interval is None else " to ".join(spoken(end, score.unit) for end in interval),
            spoken(evaluation.constants[name], score.unit) if name in evaluation.constants else "",
        )
    notes = (Text(f"{', '.join(names)}: {convention}") for convention, names in told.items())
    return Group(Text(title), table, *notes)


def spoken(value: float, unit: str) -> str:
    """A score as it is printed: tenths of a millimetre, thousandths of a share."""
    return "none" if math.isnan(value) else f"{value:.1f}" if unit == "mm" else f"{value:.3f}"


def unit_of(score: Score) -> str:
    """What follows a printed value."""
    return "" if score.unit == "none" else f" {score.unit}"


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
