"""Where units run: in this process, or on a Ray cluster. Both give the same bytes."""

import logging
import os
import shutil
import socket
from collections import Counter, deque
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

from manifests.commit import TEMPORARY
from manifests.errors import CrossposeError, StageError
from pipeline.parse import DEVICE
from pipeline.stage import Outcome, Report, Stage, Unit, run_unit

logger = logging.getLogger(__name__)

Steps = Callable[[str, int, int], None]
MAX_TRIES = 3  # a unit whose worker dies this often, and gets no further between, is given up


class LocalExecutor:
    """Runs units one after the other in this process."""

    def run(self, stage: Stage, folder: Path, stamp: str, units: list[Unit], report: Steps) -> Generator[Outcome]:
        """Run the units in order."""
        opened = stage.open()
        for unit in units:
            yield run_unit(stage, folder, stamp, unit, opened, _for_unit(report, unit.id))


def _for_unit(report: Steps, unit: str) -> Report:
    return lambda done, total: report(unit, done, total)


class RayExecutor:
    """Runs units on Ray: tasks for light stages, a pool of actors for those that open something dear.

    Args:
        address: of a running cluster; None starts one on this machine for the time being.
        workers: actors of a pool, and units under way at once; by default one per CPU of the cluster, or as many as its GPUs
            can hold.
        gpus: share of a GPU that each actor of a pool takes, such as 0.25; 0: they compute on CPUs.
    """

    def __init__(self, *, address: str | None = None, workers: int | None = None, gpus: float = 0.0) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"{workers} workers get nothing done")
        if gpus < 0 or (gpus > 1 and gpus % 1):
            raise ValueError(f"gpus {gpus} is neither a share of one nor a whole number")
        self.address, self.workers, self.gpus = address, workers, gpus

    def run(self, stage: Stage, folder: Path, stamp: str, units: list[Unit], report: Steps) -> Generator[Outcome]:
        """Keep a bounded window of units under way and tell of each as it ends."""
        import ray

        self._connect()
        progress = folder / TEMPORARY / "progress"
        progress.mkdir(parents=True, exist_ok=True)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = self.gpus if stage.pooled and stage.on_gpu else 0.0
        slots = resources.get("CPU", 1)
        if gpus:
            slots = min(slots, resources.get("GPU", 0) / gpus + 1e-9)
            if slots < 1:
                raise StageError(
                    f"the cluster has {resources.get('GPU', 0):g} GPUs, and a worker asks for {gpus:g}",
                    where=self.address or "this machine",
                    hint="leave GPUS out to compute on CPUs, or start Ray on nodes with GPUs",
                )
        workers = min(len(units), self.workers or max(1, int(slots)))
        pool = _Pool(ray, stage, folder, stamp, workers, gpus)
        waiting, tries, furthest = _Waiting(units), Counter[str](), Counter[str]()
        try:
            while waiting or pool.busy:
                while waiting and pool.free:
                    pool.start(waiting)
                ready, _ = ray.wait([*pool.busy, *pool.opening], num_returns=1, timeout=0.5)
                _tell_steps(progress, report)
                for reference in ready:
                    if reference in pool.opening:
                        pool.welcome(reference)
                        continue
                    unit, outcome = pool.collect(reference)
                    if isinstance(outcome, str):
                        done = _steps(progress / unit.id)[0]
                        tries[unit.id] = 1 if done > furthest[unit.id] else tries[unit.id] + 1
                        furthest[unit.id] = max(done, furthest[unit.id])
                        if tries[unit.id] < MAX_TRIES:
                            logger.warning("the worker of unit %s died (%s); trying again", unit.id, outcome)
                            waiting.add(unit)
                            continue
                        outcome = _given_up(folder, unit, outcome)
                    with suppress(FileNotFoundError):
                        (progress / unit.id).unlink()
                    yield outcome
        finally:
            pool.close()
            shutil.rmtree(progress, ignore_errors=True)

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        if self.address:
            _check_reachable(self.address)
        local: dict[str, Any] = {} if self.address else {"include_dashboard": False, "object_store_memory": 256 << 20}
        try:
            ray.init(address=self.address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
        except Exception as error:  # Ray raises a bare one where a busy machine starts its processes too slowly
            raise StageError(
                f"no Ray cluster could be reached or started: {error}",
                where=self.address or "this machine",
                hint="check RAY_ADDRESS; on a busy machine try again, or run with EXECUTOR=local",
            ) from error


def _check_reachable(address: str) -> None:
    """Knock at a cluster's `host:port` first: Ray itself would try for minutes and say nothing of ours."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise StageError(
            f"no Ray cluster answers: {error.strerror or error}",
            where=f"RAY_ADDRESS={address}",
            hint="start one with `ray start --head`, check the address, or leave it out to start one here",
        ) from error


def _given_up(folder: Path, unit: Unit, why: str) -> Outcome:
    error = StageError(
        f"the worker died {MAX_TRIES} times on unit {unit.id}: {why}",
        where=folder / unit.id,
        hint="look for a damaged input or too little memory; EXECUTOR=local shows where it dies",
    )
    return Outcome(unit.id, None, error, 0.0)


def _tell_steps(progress: Path, report: Steps) -> None:
    """Pass on what the workers have noted in their progress files."""
    for path in progress.iterdir():
        done, total = _steps(path)
        if total:
            report(path.name, done, total)


def _steps(path: Path) -> tuple[int, int]:
    """Steps done and in all, from a unit's progress file; (0, 0) without one."""
    try:
        done, total = path.read_text().split()
        return int(done), int(total)
    except (OSError, ValueError):
        return 0, 0


def _note(progress: Path, unit: str) -> Report:
    """A report that leaves a note for the driver; one that cannot be written is not worth stopping for."""

    def note(done: int, total: int) -> None:
        with suppress(OSError):
            (progress / unit).write_text(f"{done} {total}")

    return note


def _run_here(stage: Stage, folder: Path, stamp: str, unit: Unit, opened: Any) -> Outcome:
    return run_unit(stage, folder, stamp, unit, opened, _note(folder / TEMPORARY / "progress", unit.id))


class _Worker:
    """Lives in an actor: opens what the stage needs once, then runs unit after unit."""

    def __init__(self, stage: Stage, folder: Path, stamp: str) -> None:
        self.stage, self.folder, self.stamp = stage, folder, stamp
        self.opened: Any = None
        self.is_open = False

    def hello(self) -> None:
        """Answer, which it can only once it is up."""

    def run(self, unit: Unit) -> Outcome:
        if not self.is_open:
            self.opened, self.is_open = self.stage.open(), True
        return _run_here(self.stage, self.folder, self.stamp, unit, self.opened)


class _Waiting:
    """Units to be run, by group. A worker goes on with its group; then it takes one that nobody is at, or helps the longest."""

    def __init__(self, units: list[Unit]) -> None:
        self._groups: dict[str, deque[Unit]] = {}
        self._begun: set[str] = set()
        for unit in units:
            self._groups.setdefault(unit.group, deque()).append(unit)

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, unit: Unit) -> None:
        """Put a unit back, as the next of its group."""
        self._groups.setdefault(unit.group, deque()).appendleft(unit)

    def take(self, group: str) -> Unit:
        """The next unit for a worker that was at a group."""
        if group not in self._groups:
            fresh = (name for name in self._groups if name not in self._begun)
            group = next(fresh, max(self._groups, key=lambda name: len(self._groups[name])))
        self._begun.add(group)
        unit = self._groups[group].popleft()
        if not self._groups[group]:
            del self._groups[group]
        return unit


class _Pool:
    """Units under way: one per free slot; a slot is an actor for pooled stages, else just leave to start a task.

    An actor gets a unit only when it is up: where a node was lost, there may be no room for one that replaces another, and a
    unit given to it would wait for ever while the others go on.
    """

    def __init__(self, ray: Any, stage: Stage, folder: Path, stamp: str, size: int, gpus: float = 0.0) -> None:
        self.ray, self.stage, self.folder, self.stamp = ray, stage, folder, stamp
        self.busy: dict[Any, tuple[Unit, Any]] = {}
        self.free: list[Any] = []
        self.opening: dict[Any, Any] = {}
        self._failed = 0  # actors that died before they were up, one after the other
        self._groups: dict[Any, str] = {}  # that each actor has read for
        # One thread per worker, whatever the library: as many workers as CPUs must not each take all CPUs.
        variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS"), "1")
        variables |= {DEVICE: "cuda"} if gpus else {}
        options = {"num_cpus": 1, "num_gpus": gpus, "runtime_env": {"env_vars": variables}}
        if stage.pooled:
            # One that dies is replaced by us: a restarting one would refuse the next units for a while.
            self._actor = ray.remote(_Worker).options(max_restarts=0, **options)
            for _ in range(size):
                self._open()
        else:
            self._task = ray.remote(_run_task).options(max_retries=0, **options)
            self.free = [None] * size

    def _open(self) -> None:
        slot = self._actor.remote(self.stage, self.folder, self.stamp)
        self.opening[slot.hello.remote()] = slot

    def welcome(self, reference: Any) -> None:
        """Take an actor that is up into the pool; replace one that died before."""
        slot = self.opening.pop(reference)
        try:
            self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            self._failed += 1
            if self._failed > MAX_TRIES * (len(self.opening) + 1):
                raise StageError(
                    f"no worker comes up: {_short(error)}",
                    where=self.folder,
                    hint="look at the cluster (`ray status`); do its nodes have this version of crosspose?",
                ) from error
            self._open()
        else:
            self._failed = 0
            self.free.append(slot)

    def start(self, waiting: _Waiting) -> None:
        slot = self.free.pop()
        unit = waiting.take(self._groups.get(slot, ""))
        self._groups[slot] = unit.group
        if slot is not None:
            reference = slot.run.remote(unit)
        else:
            reference = self._task.remote(self.stage, self.folder, self.stamp, unit)
        self.busy[reference] = (unit, slot)

    def collect(self, reference: Any) -> tuple[Unit, Outcome | str]:
        """The unit and its outcome; when its worker or its node died, what Ray says of that."""
        unit, slot = self.busy.pop(reference)
        self.free.append(slot)
        try:
            outcome: Outcome = self.ray.get(reference)
            return unit, outcome
        except self.ray.exceptions.RayTaskError as error:
            told = error.cause
            if not isinstance(told, CrossposeError):
                told = StageError(
                    f"unit {unit.id} could not start: {error}",
                    where=self.folder / unit.id,
                    hint="run with EXECUTOR=local",
                )
            return unit, Outcome(unit.id, None, told, 0.0)
        except self.ray.exceptions.RayError as error:
            if slot is not None:
                self.free.pop()
                self._groups.pop(slot, None)
                self._open()
            return unit, _short(error)

    def close(self) -> None:
        for reference, (_, slot) in self.busy.items():
            if slot is None:
                self.ray.cancel(reference, force=True)
            else:
                self.ray.kill(slot)
        for slot in (*self.free, *self.opening.values()):
            if slot is not None:
                self.ray.kill(slot)


def _short(error: Exception) -> str:
    """The first line of what Ray says."""
    return next(iter(str(error).splitlines()), type(error).__name__).strip()


def _run_task(stage: Stage, folder: Path, stamp: str, unit: Unit) -> Outcome:
    return _run_here(stage, folder, stamp, unit, stage.open())
