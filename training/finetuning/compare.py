"""Which weights are the better start? The same task from several, with the same head, data, order and steps; seeds and shares of the data.

Each cell is a run folder of its own, `cells/<start>-<share>-<seed>`, that is found finished the next time. Means are over seeds;
intervals come from drawing seeds and people anew, where a score is a mean over examples, and else from the spread of the seeds.
Differences are taken example by example between cells of one seed, which show the same examples in the same order.
Shape letters: `R` seeds, `n` examples.
"""

import logging
import math
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch

from manifests.errors import CrossposeError, TrainingError
from training.checkpoints import write_atomic
from training.finetuning.compare_page import curves_of, page_of
from training.finetuning.evaluate import LEVEL, draw_example
from training.finetuning.finetune import finetune
from training.finetuning.measure import load_finetuned, whole
from training.finetuning.network import find_start
from training.finetuning.sheet import Tile, png, sheet_of
from training.machine import Machine, StopSignal, hold_memory
from training.probe import interval
from training.run_folder import read_json, write_json
from training.tasks.datasets import check_draws, check_places, open_examples
from training.tasks.recipes import FinetuneRecipe

logger = logging.getLogger(__name__)

SHARES = (1.0, 0.5, 0.25, 0.1)
NUM_PICTURES = 6
_START_METHOD = "spawn"  # of processes: a fork would copy torch's threads as they stand
_T975 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)  # Student's, of 1 degree of freedom and more


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of a comparison."""

    start: str
    share: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.start}-{100 * self.share:g}-{self.seed}"


def compare(
    recipe: FinetuneRecipe,
    starts: Mapping[str, str],
    out: Path,
    *,
    shares: Sequence[float],
    seeds: Sequence[int],
    machine: Machine,
    jobs: int = 1,
) -> dict[str, Any] | None:
    """Run every cell that is not finished, then write `compare.json`, `compare.html` and their pictures.

    Args:
        recipe: of every cell, but for its share and seed; each dataset has its root.
        starts: by name, what `--init` takes; differences are to the first.
        out: folder to write to.
        shares: of the training examples.
        seeds: of each cell.
        machine: where it runs.
        jobs: processes that share the cells and the threads; small networks gain little from a second thread.

    Returns:
        What `compare.json` holds; None where a signal stopped a run.

    Raises:
        TrainingError: weights are of other architectures, or what `finetune` raises.
    """
    check_places(recipe, starts.values())
    check_draws(recipe, seeds)
    recipe = _one_architecture(recipe, starts)
    cells = [Cell(start=start, share=share, seed=seed) for seed in seeds for share in shares for start in starts]
    run = partial(_run_beside, jobs=min(jobs, len(cells))) if jobs > 1 else _run
    if not run(recipe, starts, out, cells, machine):
        return None
    report = _report(recipe, out, cells, starts)
    curves, pictures = curves_of(report), _pictures(recipe, out, cells, machine.device)
    write_json(out / "compare.json", report)
    write_atomic(out / "efficiency.png", curves)
    write_atomic(out / "predictions.png", pictures)
    write_atomic(out / "compare.html", page_of(report, [curves, pictures]).encode())
    return report


def _run(recipe: FinetuneRecipe, starts: Mapping[str, str], out: Path, cells: Sequence[Cell], machine: Machine) -> bool:
    """Run cells one after the other, but those that are finished; False where a signal stopped one."""
    for number, cell in enumerate(cells, start=1):
        logger.info("run %d of %d: %s", number, len(cells), cell.name)
        own = replace(recipe, share=cell.share, seed=cell.seed)
        if not finetune(own, out / "cells" / cell.name, init=starts[cell.start], machine=machine).finished:
            return False
    return True


def _run_beside(
    recipe: FinetuneRecipe, starts: Mapping[str, str], out: Path, cells: Sequence[Cell], machine: Machine, *, jobs: int
) -> bool:
    """Run cells in `jobs` processes, each with its part of the cells and of the threads; False where a signal stopped them."""
    context = multiprocessing.get_context(_START_METHOD)
    failures = context.SimpleQueue()
    threads = max(1, torch.get_num_threads() // jobs)
    quiet = replace(machine, console=None)
    workers = [
        context.Process(  # type: ignore[attr-defined]
            target=_work,
            args=(recipe, dict(starts), out, cells[job::jobs], quiet, threads, failures),
            name=f"{job + 1}/{jobs}",
        )
        for job in range(jobs)
    ]
    with StopSignal() as stop:
        for worker in workers:
            worker.start()
        told = False
        while running := [worker for worker in workers if worker.is_alive()]:
            if stop.number is not None and not told:
                told = True
                for worker in running:
                    worker.terminate()  # asks for a checkpoint
            wait([worker.sentinel for worker in running], timeout=0.5)
        if stop.number is not None:
            return False
    if not failures.empty():
        raise failures.get()
    for worker in workers:
        if worker.exitcode:
            hint = "its last words are above, if it had any; give fewer JOBS if memory is short, and run again to go on"
            raise TrainingError(f"process {worker.name} ended with {worker.exitcode}", where=out, hint=hint)
    return True


def _work(
    recipe: FinetuneRecipe,
    starts: Mapping[str, str],
    out: Path,
    cells: Sequence[Cell],
    machine: Machine,
    threads: int,
    failures: "SimpleQueue[CrossposeError]",
) -> None:
    """What a process of `_run_beside` does. Lines of its log begin with its number."""
    os.setpgrp()  # Ctrl-C reaches the parent alone: told by it as well, a run would take a second signal and stop without a checkpoint
    name = multiprocessing.current_process().name
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s [{name}] %(levelname)s %(message)s", force=True)
    hold_memory()
    torch.set_num_threads(threads)
    try:
        if not _run(recipe, starts, out, cells, machine):
            sys.exit(1)
    except CrossposeError as error:
        logger.error("%s", error)
        failures.put(error)
        sys.exit(1)


def _one_architecture(recipe: FinetuneRecipe, starts: Mapping[str, str]) -> FinetuneRecipe:
    """The recipe with the architecture of the weights, so that random ones are of it, too."""
    found = {name: start.architecture for name, init in starts.items() if (start := find_start(init)) is not None}
    if recipe.architecture is not None:
        return recipe
    if len({*found.values()}) > 1:
        hint = "pre-train them with one architecture, or name it in the recipe"
        raise TrainingError("the weights are of different architectures", where=", ".join(found), hint=hint)
    return replace(recipe, architecture=next(iter(found.values()), None))


def _report(recipe: FinetuneRecipe, out: Path, cells: Sequence[Cell], starts: Mapping[str, str]) -> dict[str, Any]:
    folders = {cell: out / "cells" / cell.name for cell in cells}
    said = {cell: read_json(folder / "scores.json")["datasets"][0] for cell, folder in folders.items()}
    task = load_finetuned(folders[cells[0]], torch.device("cpu")).task
    first = said[cells[0]]
    file = f"examples-{first['dataset']}-{first['split']}.parquet"
    tables = {cell: pq.read_table(folder / file) for cell, folder in folders.items()}
    subjects = np.array(tables[cells[0]]["subject"].to_pylist())
    subject_n = np.unique(subjects, return_inverse=True)[1]
    groups: dict[tuple[float, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.share, cell.start), []).append(cell)
    rows = []
    for (share, start), own in groups.items():
        against = groups[share, next(iter(starts))]
        scores = {}
        for name in first["scores"]:
            value_R = np.array([said[cell]["scores"][name]["value"] for cell in own], np.float64)
            values_Rn = np.stack([tables[cell][name].to_numpy() for cell in own])
            other_R = np.array([said[cell]["scores"][name]["value"] for cell in against], np.float64)
            other_Rn = np.stack([tables[cell][name].to_numpy() for cell in against])
            is_mean = np.allclose(np.nanmean(values_Rn, axis=1), value_R, rtol=1e-4)
            scores[name] = _spread(value_R, values_Rn if is_mean else None, subject_n) | {
                "difference": None
                if own == against
                else _spread(value_R - other_R, values_Rn - other_Rn if is_mean else None, subject_n)
            }
        rows.append({"share": share, "start": start, "scores": scores})
    return {
        "task": recipe.task,
        "recipe": recipe.name,
        "main": task.main,
        "starts": dict(starts),
        "seeds": sorted({cell.seed for cell in cells}),
        "steps": recipe.num_steps,
        "train": [{"kind": data.kind, **data.options} for data in recipe.train],
        "dataset": {name: first[name] for name in ("dataset", "split", "protocol", "examples", "subjects")},
        "scores": {
            name: {key: score[key] for key in ("unit", "better", "convention", "constant")}
            for name, score in first["scores"].items()
        },
        "level": LEVEL,
        "rows": rows,
    }


def _spread(
    value_R: npt.NDArray[np.float64], values_Rn: npt.NDArray[np.float64] | None, subject_n: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Mean over seeds with an interval: of seeds and people drawn anew, or of the seeds' spread where there are no values by example."""
    out: dict[str, Any] = {"mean": float(value_R.mean()), "low": None, "high": None, "seeds": value_R.tolist()}
    if values_Rn is not None:
        found = interval(values_Rn, subject_n)
        return out | {"low": found["low"], "high": found["high"]} if found is not None else out
    if len(value_R) > 1:
        half = _T975[min(len(value_R), len(_T975) + 1) - 2] * float(value_R.std(ddof=1)) / math.sqrt(len(value_R))
        out |= {"low": out["mean"] - half, "high": out["mean"] + half}
    return out


def _pictures(recipe: FinetuneRecipe, out: Path, cells: Sequence[Cell], device: torch.device) -> bytes:
    """What each start makes of the same test examples, a row each: of the first share and seed."""
    shown = [cell for cell in cells if (cell.share, cell.seed) == (cells[0].share, cells[0].seed)]
    part = whole(open_examples(recipe.test[0])).spread(NUM_PICTURES)
    rows = []
    for cell in shown:
        run = load_finetuned(out / "cells" / cell.name, device)
        tiles = [Tile(draw_example(run, part, place, device=device), "") for place in range(len(part.index))]
        rows.append((cell.start, tiles))
    title = f"{recipe.task} on the same test examples: {100 * shown[0].share:g} % of the data, seed {shown[0].seed}"
    return png(sheet_of(rows, title=title))
