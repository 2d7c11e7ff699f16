"""A stage: units planned from a recipe and its inputs, run anywhere, each committed by itself.

The rule (see `manifests.commit`): a unit that has its `<unit>.json` with the plan's fingerprint is done and is never
touched again; whatever was killed in the middle has no such file and is run anew, to the same bytes.
"""

import fcntl
import json
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from manifests.commit import PLAN, Commit, UnitWriter, commits, is_committed, read_commit, sweep
from manifests.errors import CrossposeError, StageError
from manifests.files import write_json
from manifests.recipes import changed_keys, fingerprint, to_mapping

logger = logging.getLogger(__name__)

Report = Callable[[int, int], None]  # steps done, steps in all, of the unit at hand


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work that is committed by itself. `work` is small and picklable."""

    id: str
    work: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What decides the bytes of a stage: the part of the recipe it reads, and hashes of its inputs by name."""

    recipe: Any
    inputs: dict[str, str]
    units: tuple[Unit, ...]


class Stage(ABC):
    """One station of the road. Instances are picklable: they travel to the workers.

    Attributes:
        name: the stage's folder in a build.
        version: rises when the same plan would give other bytes than before.
        pooled: units need something that is dear to open (a network, a renderer), so workers live on between units.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    pooled: ClassVar[bool] = False

    @abstractmethod
    def plan(self) -> Plan:
        """Look at the inputs and list the units, in order."""

    def open(self) -> Any:
        """Open what every unit needs; called once in each worker."""
        return None

    @abstractmethod
    def run(self, unit: Unit, out: UnitWriter, opened: Any, report: Report) -> None:
        """Do one unit: write its files to `out`."""

    def finish(self, folder: Path) -> None:  # noqa: B027 - most stages have nothing to sum up
        """Sum up after the last unit; runs again harmlessly."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a unit ended: its commit, or the error that stopped it."""

    unit: str
    commit: Commit | None
    error: CrossposeError | None
    seconds: float


class Executor(Protocol):
    """Runs units somewhere and tells how each ended, in any order."""

    def run(
        self, stage: Stage, folder: Path, stamp: str, units: list[Unit], report: Callable[[str, int, int], None]
    ) -> Iterator[Outcome]:
        """Run the units. `report(unit, done, total)` may be called at any time."""
        ...


class Watcher(Protocol):
    """Sees a stage go on; the terminal's progress bars are one."""

    def start(self, stage: str, *, total: int, done: int) -> None:
        """The stage begins with `done` of `total` units there already."""
        ...

    def step(self, unit: str, done: int, total: int) -> None:
        """A running unit has come this far."""
        ...

    def end(self, outcome: Outcome) -> None:
        """A unit has ended."""
        ...

    def stop(self) -> None:
        """The stage is over."""
        ...


@dataclass(slots=True)
class Summary:
    """What a stage has: units, counts and rejects by reason, over all commits; seconds of this run."""

    stage: str
    units: int
    new: int
    counts: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def run_stage(stage: Stage, root: Path, executor: Executor, watcher: Watcher) -> Summary:
    """Bring a stage of a build to its end, from wherever it stands.

    Args:
        stage: what to run.
        root: the build's output folder.
        executor: where to run it.
        watcher: who sees it go on.

    Raises:
        StageError: the folder holds another recipe's work, another run is writing in it, or units failed. What is
            committed stays.
    """
    began = time.monotonic()
    folder = root / stage.name
    _make(folder)
    with _only_one(folder):
        plan = stage.plan()
        stamp = _settle_plan(stage, plan, folder)
        sweep(folder)
        todo = [unit for unit in plan.units if not is_committed(folder, unit.id, stamp)]
        failed: list[CrossposeError] = []
        watcher.start(stage.name, total=len(plan.units), done=len(plan.units) - len(todo))
        try:
            if todo:
                for outcome in executor.run(stage, folder, stamp, todo, watcher.step):
                    watcher.end(outcome)
                    if outcome.error is not None:
                        failed.append(outcome.error)
        finally:
            watcher.stop()
        sweep(folder)
        if failed:
            raise _failure(stage, failed, len(plan.units))
        try:
            stage.finish(folder)
        except OSError as error:
            raise StageError(
                f"the stage could not be summed up: {error.strerror}",
                where=folder,
                hint="free disk space, then run again",
            ) from error
        return _sum_up(stage, folder, new=len(todo), seconds=time.monotonic() - began)


def run_unit(stage: Stage, folder: Path, stamp: str, unit: Unit, opened: Any, report: Report) -> Outcome:
    """Run and commit one unit where we are. An error of ours, or a bug on this input, becomes part of the outcome."""
    began = time.monotonic()
    try:
        with UnitWriter(folder, stage=stage.name, unit=unit.id, fingerprint=stamp) as out:
            stage.run(unit, out, opened, report)
    except CrossposeError as error:
        return Outcome(unit.id, None, error, time.monotonic() - began)
    except Exception as error:
        logger.exception("unit %s of %s", unit.id, stage.name)
        told = StageError(
            f"unit {unit.id} stopped on {type(error).__name__}: {error}",
            where=folder / unit.id,
            hint="this is a bug in crosspose or a defect it does not know: run with EXECUTOR=local to see the traceback",
        )
        return Outcome(unit.id, None, told, time.monotonic() - began)
    return Outcome(unit.id, read_commit(folder / f"{unit.id}.json"), None, time.monotonic() - began)


def finished(root: Path, stage: str) -> bool:
    """Whether every planned unit of a stage is committed."""
    plan = read_plan(root / stage)
    if plan is None:
        return False
    return all(is_committed(root / stage, unit, plan["fingerprint"]) for unit in plan["units"])


def require(root: Path, *stages: str) -> None:
    """Insist that earlier stages are complete.

    Raises:
        StageError: one is not; says which, and how to run it.
    """
    for stage in stages:
        if not finished(root, stage):
            target = {"frames": "ingest", "renders": "render", "crops": "crop"}.get(stage, stage)
            raise StageError(
                f"stage `{stage}` is not complete",
                where=root / stage,
                hint=f"run `make {target}` with the same RECIPE, ROOT and OUT first",
            )


def read_plan(folder: Path) -> dict[str, Any] | None:
    """The plan a stage folder was started with, or None.

    Raises:
        StageError: the file is damaged.
    """
    path = folder / PLAN
    if not path.exists():
        return None
    try:
        plan: dict[str, Any] = json.loads(path.read_text())
        plan["fingerprint"], plan["units"]
    except (ValueError, KeyError, TypeError) as error:
        raise StageError("the plan of this folder does not parse", where=path, hint="move the folder away") from error
    return plan


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StageError(
            f"the output folder cannot be made: {error.strerror}",
            where=folder,
            hint="choose another OUT, or free space",
        ) from error


def _settle_plan(stage: Stage, plan: Plan, folder: Path) -> str:
    """Hold the plan against what the folder was started with; write it when the folder is new. Returns the fingerprint."""
    decides = {
        "stage": stage.name,
        "version": stage.version,
        "recipe": to_mapping(plan.recipe),
        "inputs": plan.inputs,
    }
    stamp = fingerprint(decides)
    ids = [unit.id for unit in plan.units]
    if len(set(ids)) != len(ids):
        twice = [name for name, count in Counter(ids).items() if count > 1]
        raise StageError(f"units named twice: {twice[:3]}", where=folder, hint="rename one of the recordings")
    old = read_plan(folder)
    if old is not None and old["fingerprint"] != stamp and not commits(folder):
        old = None  # nothing was built by that plan: nothing is lost with it
    if old is not None and old["fingerprint"] != stamp:
        raise StageError(
            "this folder holds the work of another recipe or other inputs: " + "; ".join(_changes(old, decides)),
            where=folder,
            hint="choose another OUT, or remove this folder (and those of the later stages) to build it anew",
        )
    if old is None:
        try:
            write_json(folder / PLAN, {**decides, "fingerprint": stamp, "units": ids})
        except OSError as error:
            raise StageError(
                f"the plan cannot be written: {error.strerror}", where=folder, hint="free disk space, then run again"
            ) from error
    return stamp


def _changes(old: dict[str, Any], decides: dict[str, Any]) -> list[str]:
    """What differs between two plans, the recipe first; of the inputs only names, for their hashes mean nothing to people."""
    changes = [
        change for key in ("recipe", "stage", "version") for change in changed_keys(old.get(key), decides[key], key)
    ]
    before, now = old.get("inputs") or {}, decides["inputs"]
    for what, names in (
        ("is new", now.keys() - before.keys()),
        ("is gone", before.keys() - now.keys()),
        ("has changed", {name for name in now.keys() & before.keys() if now[name] != before[name]}),
    ):
        shown = sorted(names)
        changes += [f"{name} {what}" for name in shown[:3]]
        changes += (
            [f"{len(shown) - 3} more {what.replace('is ', 'are ').replace('has ', 'have ')}"] if len(shown) > 3 else []
        )
    return changes[:8]


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: the system lets it go when the process ends, however it ends."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StageError(
                "another run is writing here", where=folder, hint="wait for it, stop it, or choose another OUT"
            ) from error
        yield


def _failure(stage: Stage, failed: list[CrossposeError], total: int) -> CrossposeError:
    if len(failed) == total == 1:
        return failed[0]
    first = "\n".join(f"  - {error.what} ({error.where}); {error.hint}" for error in failed[:5])
    return StageError(
        f"{len(failed)} of {total} units of `{stage.name}` failed:\n{first}",
        where=failed[0].where,
        hint="mend these and run the same command: all other units are committed and stay",
    )


def _sum_up(stage: Stage, folder: Path, *, new: int, seconds: float) -> Summary:
    """Add up the commits and leave the sums beside them in `stats.json`."""
    done = commits(folder)
    summary = Summary(stage.name, units=len(done), new=new, seconds=seconds)
    for commit in done:
        summary.counts.update(commit.counts)
        summary.rejects.update(commit.rejects)
    if new or not (folder / "stats.json").exists():
        stats = {"units": len(done), "counts": summary.counts, "rejects": summary.rejects, "seconds": round(seconds, 1)}
        write_json(folder / "stats.json", stats)
    return summary
