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
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from manifests.build import STAGES
from manifests.commit import (
    PLAN,
    STATS,
    Commit,
    OutputError,
    UnitWriter,
    commits,
    is_committed,
    read_commit,
    remove_unit,
    sweep,
)
from manifests.errors import CrossposeError, StageError
from manifests.files import write_bytes, write_json
from manifests.lineage import READ_OF, behind, images_of, own_stamp, planned_from
from manifests.recipes import changed_keys, fingerprint, to_mapping

logger = logging.getLogger(__name__)

Report = Callable[[int, int], None]  # steps done, steps in all, of the unit at hand
FAILED = "failed.jsonl"  # in a stage's folder: the units that failed, and why


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work that is committed by itself.

    Attributes:
        id: names it and its files.
        work: what `Stage.run` needs to know; small and picklable.
        recipe: the part of the recipe that decides this unit and not all units.
        inputs: hashes of what only this unit reads, by name; what an earlier stage wrote is named after that stage.
        group: units of one group read the same files: where workers live on, one that has done some goes on with the rest.
    """

    id: str
    work: Any = None
    recipe: Any = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    group: str = ""

    @property
    def own(self) -> dict[str, Any] | None:
        """What decides this unit alone, as plain values; None where the plan says it all."""
        return {"recipe": to_mapping(self.recipe), "inputs": dict(self.inputs)} if self.recipe or self.inputs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What decides the bytes of all units of a stage, and the units.

    Attributes:
        recipe: the part of the recipe that decides every unit.
        inputs: hashes of what every unit reads, by name.
        units: with what decides each of them alone.
        about: of the recipe, what decides no unit beyond what that tells itself; for those who read the plan.
        packed: of the stage that packs: hashes of the files that it packs by unit, once more for each extension.
    """

    recipe: Any
    inputs: dict[str, str]
    units: tuple[Unit, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    packed: tuple[dict[str, str], ...] = ()


class Stage(ABC):
    """One station of the road. Instances are picklable: they travel to the workers.

    Attributes:
        name: the stage's folder in a build.
        version: rises when the same plan would give other bytes than before.
        pooled: units need something that is dear to open (a network, a renderer), so workers live on between units.
        on_gpu: a pooled stage's workers take the share of a GPU that the user offers.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    pooled: ClassVar[bool] = False
    on_gpu: ClassVar[bool] = True

    def decides(self) -> dict[str, Any]:
        """What of the recipe decides every unit."""
        return {}

    def about(self) -> dict[str, dict[str, Any]]:
        """What of the recipe decides some units: by name, and by what of it concerns which."""
        return {}

    def shapes(self) -> dict[str, Any]:
        """What else of the recipe made the units what they are, each of which tells its part; later stages are held against it."""
        return {}

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

    def notes(self, folder: Path) -> list[str]:  # noqa: ARG002 - of those that override it
        """What a person should know of all that is committed, a line each."""
        return []


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
    ) -> Generator[Outcome]:
        """Run the units, until closed. `report(unit, done, total)` may be called at any time."""
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
    """What a stage has: units, counts and rejects by reason, over all commits, and what to know of it; seconds of this run."""

    stage: str
    units: int
    new: int
    counts: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def check_recipes(stages: Iterable[Stage], root: Path, *, earlier: Iterable[Stage] = ()) -> None:
    """Refuse, before any work is done, what one of several stages would refuse when its turn comes.

    Args:
        stages: that are to be run.
        root: the build's output folder.
        earlier: the stages before them, of which what is there is used as it is: by whatever version, and however many people.

    Raises:
        StageError: a stage's folder holds the work of another recipe.
    """
    for stage in earlier:
        folder = root / stage.name
        if (old := read_plan(folder)) is not None and commits(folder):
            was = {**(old.get("recipe") or {}), **(old.get("shapes") or {})}
            now = to_mapping({**stage.decides(), **stage.about(), **stage.shapes()})
            if changes := changed_keys(_where(now, was), _where(was, now), "recipe"):
                hint = f"give the RECIPE that `{stage.name}` was made with; for another, choose another OUT"
                raise _other_work(changes, folder, hint)
    for stage in stages:
        folder = root / stage.name
        if (old := read_plan(folder)) is not None and commits(folder):
            recipe, decides = old.get("recipe") or {}, to_mapping(stage.decides())
            for name, now in to_mapping(stage.about()).items():
                decides[name] = recipe.get(name, {}) | {
                    key: now[key] for key in recipe.get(name, {}).keys() & now.keys()
                }
            changes = changed_keys({name: recipe.get(name) for name in decides}, decides, "recipe")
            changes += changed_keys(old.get("version"), stage.version, "version")
            if changes:
                raise _other_work(changes, folder, _ANEW)


def _where(other: Any, one: Any) -> Any:
    """What of one mapping another has a word for as well: sources come and go, and older versions knew fewer keys."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return {key: _where(other[key], value) for key, value in one.items() if key in other}
    return one


def run_stage(
    stage: Stage,
    root: Path,
    executor: Executor,
    watcher: Watcher,
    *,
    extend: bool = False,
    retry_failed: bool = False,
) -> Summary:
    """Bring a stage of a build to its end, from wherever it stands.

    Args:
        stage: what to run.
        root: the build's output folder.
        executor: where to run it.
        watcher: who sees it go on.
        extend: add the units that are new; those that are there must be decided as they were.
        retry_failed: run only the units that failed before, if there are any.

    Raises:
        StageError: the folder holds another recipe's work, another run is writing in it, or units failed. What is
            committed stays.
    """
    began = time.monotonic()
    folder = root / stage.name
    _make(folder)
    with _only_one(folder):
        plan = stage.plan()
        stamp, anew = _settle_plan(stage, plan, folder, extend=extend)
        sweep(folder)
        missing = [unit for unit in plan.units if not is_committed(folder, unit.id, stamp, own_stamp(unit.own))]
        earlier = read_failures(folder)
        again = earlier.keys() | anew
        todo = [unit for unit in missing if unit.id in again] if retry_failed and earlier else missing
        failed: dict[str, CrossposeError] = {}
        watcher.start(stage.name, total=len(plan.units), done=len(plan.units) - len(todo))
        try:
            with closing(executor.run(stage, folder, stamp, todo, watcher.step)) as outcomes:
                for outcome in outcomes if todo else ():
                    if isinstance(outcome.error, OutputError):
                        raise outcome.error  # once: the others would say the same
                    watcher.end(outcome)
                    if outcome.error is not None:
                        failed[outcome.unit] = outcome.error
                        _note_failure(folder, outcome.unit, outcome.error)
        finally:
            watcher.stop()
            sweep(folder)
        tried = {unit.id for unit in todo}
        _settle_failures(folder, {unit.id for unit in missing if unit.id in failed or unit.id not in tried})
        if failed:
            raise _failure(stage, list(failed.values()), len(plan.units), folder)
        if len(todo) < len(missing):
            return _sum_up(stage, folder, new=len(todo), seconds=time.monotonic() - began)
        try:
            stage.finish(folder)
            return _sum_up(stage, folder, new=len(todo), seconds=time.monotonic() - began)
        except OSError as error:
            raise StageError(
                f"the stage could not be summed up: {error.strerror}",
                where=folder,
                hint="free disk space, then run again",
            ) from error


def run_unit(stage: Stage, folder: Path, stamp: str, unit: Unit, opened: Any, report: Report) -> Outcome:
    """Run and commit one unit where we are. An error of ours, or a bug on this input, becomes part of the outcome."""
    began = time.monotonic()
    try:
        with UnitWriter(folder, stage=stage.name, unit=unit.id, fingerprint=stamp, own=own_stamp(unit.own)) as out:
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
    plan, folder = read_plan(root / stage), root / stage
    if plan is None:
        return False
    return all(is_committed(folder, u, plan["fingerprint"], own_stamp(plan["own"].get(u))) for u in plan["units"])


def require(root: Path, *stages: str) -> None:
    """Insist that earlier stages are complete, and made from what the stages before them hold now.

    Raises:
        StageError: one is not; says which, and how to run it.
    """
    for stage in stages:
        target = {"frames": "ingest", "renders": "render", "crops": "crop"}.get(stage, stage)
        if not finished(root, stage):
            images = images_of(read_plan(root / stage) or {})
            number = f" N={images}," if images else ""
            raise StageError(
                f"stage `{stage}` is not complete",
                where=root / stage,
                hint=f"run `make {target}` with the same RECIPE,{number} ROOT and OUT first",
            )
        plan = read_plan(root / stage) or {}
        for earlier, what, units in behind(plan, lambda earlier: commits(root / earlier)):
            raise StageError(
                f"stage `{stage}` is behind `{earlier}`: {_some(units)} {what}",
                where=root / stage,
                hint=f"run `make {target}` with EXTEND=1 first: it adds what is new to what is there",
            )
        require(root, *planned_from(plan))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


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
        plan.setdefault("own", {}).items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
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


def _settle_plan(stage: Stage, plan: Plan, folder: Path, *, extend: bool) -> tuple[str, set[str]]:
    """Hold the plan against what the folder was started with; write it when it is new.

    A unit of which nothing went on may be decided anew, or go: what it reads was mended, or taken away.

    Returns:
        the fingerprint, and the units that are decided anew.
    """
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
    own = {unit.id: unit.own for unit in plan.units if unit.own is not None}
    recipe = {**decides["recipe"], **to_mapping(plan.about)} if plan.about else decides["recipe"]
    new = {**decides, "recipe": recipe, "fingerprint": stamp, "units": ids, "own": own}
    new |= {"packed": list(plan.packed)} if plan.packed else {}
    new |= {"shapes": shapes} if (shapes := to_mapping(stage.shapes())) else {}
    old = read_plan(folder)
    if old is not None and old != new and not commits(folder):
        old = None  # nothing was built by that plan: nothing is lost with it
    free: set[str] = set()
    if old is not None:
        names = set(ids)
        other = {unit for unit in old["units"] if unit not in names or old["own"].get(unit) != own.get(unit)}
        free = _free(stage.name, folder, old, new, other, extend=extend)
        changes, added = _changes(old, new, plan.about, free), sorted(set(ids) - set(old["units"]))
        if changes or (added and not extend):
            hint = _ANEW
            if extend:
                hint = f"EXTEND=1 only adds units: what is here must be decided as it was; {hint}"
            elif not _changes(old, new, plan.about, _free(stage.name, folder, old, new, other, extend=True)):
                hint = f"the same `make` command with EXTEND=1 keeps what is here and adds the rest; or {hint}"
            if images := images_of(old):  # of renders
                hint = f"N={images} asks for as many images as are here; {hint}" if names != set(old["units"]) else hint
            changes += [f"{_some(added)} {'is' if len(added) == 1 else 'are'} new"] if added else []
            raise _other_work(changes, folder, hint)
    for unit in sorted(free - set(ids)):
        logger.info("%s is gone; nothing that is here was made of it", unit)
        remove_unit(folder, unit)
    if old != new:
        try:
            write_json(folder / PLAN, new)
        except OSError as error:
            raise StageError(
                f"the plan cannot be written: {error.strerror}", where=folder, hint="free disk space, then run again"
            ) from error
    anew = free & set(ids)
    if anew:
        logger.info("%s: another input than before, of which nothing was made; taken in", _some(sorted(anew)))
    return stamp, anew


_ANEW = "choose another OUT, or remove this folder (and those of the later stages) to build it anew"


def _other_work(changes: list[str], folder: Path, hint: str) -> StageError:
    what = "this folder holds the work of another recipe or other inputs: " + "; ".join(changes[:8])
    return StageError(what, where=folder, hint=hint)


def _free(
    stage: str, folder: Path, old: dict[str, Any], new: dict[str, Any], units: set[str], *, extend: bool
) -> set[str]:
    """Those of some units that may read something else than before, or go, because nothing was made of them.

    A unit that is not committed may be decided in any other way. One that is may only have other inputs: if a later stage failed
    on it, or, with `extend`, if none has made a row of it.
    """
    root = folder.parent
    read = {later: planned_from(read_plan(root / later) or {}) for later in STAGES}

    def nothing_made(stage: str, unit: str) -> bool:
        committed = (root / stage / f"{unit}.json").exists()
        for later in STAGES:
            if unit in read[later].get(stage, {}):
                if later == "shards":
                    return extend and not commits(root / later)
                if (root / later / f"{unit}.json").exists():
                    return nothing_made(later, unit)
                return not committed or extend or unit in read_failures(root / later)
        return not committed or (extend and stage in READ_OF)

    def same_recipe(unit: str) -> bool:
        was, is_now = (plan["own"].get(unit) or {} for plan in (old, new))
        return unit not in new["own"] or was.get("recipe") == is_now.get("recipe")

    return {
        unit
        for unit in units
        if nothing_made(stage, unit) and (same_recipe(unit) or not (folder / f"{unit}.json").exists())
    }


def _changes(old: dict[str, Any], new: dict[str, Any], about: Mapping[str, Any], free: set[str]) -> list[str]:
    """How a plan decides otherwise what is there; of the inputs only names, for their hashes mean nothing to people."""
    changes = [
        change
        for key in ("recipe", "stage", "version")
        for change in changed_keys(old.get(key), new[key], key)
        if not any(change.startswith((f"recipe.{name}.", f"recipe.{name}:")) for name in about)
    ]
    before, now = old.get("inputs") or {}, new["inputs"]
    changes += [
        f"{name} {'is new' if name not in before else 'has changed' if name in now else 'is gone'}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    units: dict[str, list[str]] = {}  # by what happened to them
    for unit in (unit for unit in old["units"] if unit not in free):
        was, is_now = old["own"].get(unit) or {}, new["own"].get(unit) or {}
        recipe = changed_keys(was.get("recipe"), is_now.get("recipe"), "recipe")
        for change in recipe:
            units.setdefault(change, []).append(unit)
        if not recipe and was != is_now:
            units.setdefault("changed", []).append(unit)
    gone = sorted(set(old["units"]) - set(new["units"]) - free)
    changes += [f"{change} ({_some(its)})" for change, its in units.items() if change != "changed"]
    for what, its in ((("has", "have"), units.get("changed", [])), (("is", "are"), gone)):
        if its:
            changes.append(f"{_some(its)} {what[len(its) > 1]} {'changed' if what[0] == 'has' else 'gone'}")
    return changes


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


def read_failures(folder: Path) -> dict[str, dict[str, str]]:
    """The units of a stage that failed and are not committed since: what was wrong, where, and what to try.

    A line that a kill cut short is passed over: its unit is run again anyhow.
    """
    found = {}
    path = folder / FAILED
    for line in path.read_text().splitlines() if path.exists() else []:
        with suppress(ValueError, TypeError, KeyError):
            row = json.loads(line)
            found[str(row["unit"])] = {name: str(row[name]) for name in ("unit", "error", "what", "where", "hint")}
    return found


def _note_failure(folder: Path, unit: str, error: CrossposeError) -> None:
    """Write a failure down at once; where not even that can be written, the error that is raised tells it."""
    row = {"unit": unit, "error": type(error).__name__, "what": error.what, "where": error.where, "hint": error.hint}
    with suppress(OSError), (folder / FAILED).open("a") as file:
        file.write("\n" + json.dumps(row) + "\n")  # a line of its own, even after one that was cut short


def _settle_failures(folder: Path, open_units: set[str]) -> None:
    """Keep one line for each unit that still is to be mended; the file goes with the last of them."""
    path = folder / FAILED
    rows = [row for unit, row in sorted(read_failures(folder).items()) if unit in open_units]
    with suppress(OSError):
        if rows:
            write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        else:
            path.unlink(missing_ok=True)


def _failure(stage: Stage, failed: list[CrossposeError], total: int, folder: Path) -> CrossposeError:
    if len(failed) == total == 1:
        return failed[0]
    first = "\n".join(f"  - {error.what} ({error.where}); {error.hint}" for error in failed[:5])
    return StageError(
        f"{len(failed)} of {total} units of `{stage.name}` failed:\n{first}",
        where=failed[0].where,
        hint="mend these and run the same command: all other units are committed and stay; "
        f"{folder / FAILED} lists all that failed, and RETRY_FAILED=1 runs only them",
    )


def _sum_up(stage: Stage, folder: Path, *, new: int, seconds: float) -> Summary:
    """Add up the commits and leave the sums beside them in `stats.json`."""
    done = commits(folder)
    summary = Summary(stage.name, units=len(done), new=new, seconds=seconds)
    for commit in done:
        summary.counts.update(commit.counts)
        summary.rejects.update(commit.rejects)
    path = folder / STATS
    sums = {"units": len(done), "counts": summary.counts, "rejects": summary.rejects}
    if not new:
        with suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(path.read_text())
            if {name: told[name] for name in sums} == sums:  # a run that is killed at its very end leaves older ones
                summary.notes = [str(note) for note in told["notes"]]
                return summary
    summary.notes = stage.notes(folder)
    write_json(path, {**sums, "notes": summary.notes, "seconds": round(seconds, 1)})
    return summary
