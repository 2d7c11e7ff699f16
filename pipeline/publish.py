"""Copies of a build in an object store (or any other place), unit by unit, and back.

The commit rule holds there too: a unit's data first, then its `<unit>.json`; the stage's table and plan last of all. So
a unit that has its `<unit>.json` in the store is whole, the table never names one that is not, and what was killed
in the middle is done again by the same command. What is there already must be of the same build.
"""

import logging
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from manifests import table as tables
from manifests.build import STAGES
from manifests.commit import PLAN, UNIT_ID, Commit, DataFile, commits
from manifests.errors import ManifestError, StageError
from manifests.lineage import own_stamp
from manifests.recipes import changed_keys
from pipeline.progress import watch
from pipeline.stage import read_plan
from pipeline.stores import Store

logger = logging.getLogger(__name__)

TABLE = "shards.parquet"
LAST = (TABLE, PLAN)  # of a stage, in this order, when all its units are there


def copy_build(
    source: str, target: str, console: Console, *, stages: Sequence[str], threads: int = 8, verify: bool = False
) -> None:
    """Bring another place to hold what a build holds, from wherever it stands.

    Args:
        source: path or URL of the build.
        target: path or URL of its copy.
        console: for a line on each stage.
        stages: to copy, by name; all that the build has when there are none.
        threads: files under way at once.
        verify: read back and hash all that is in the copy, also what was there before, and send anew what is damaged.

    Raises:
        StageError: a stage is not complete, the copy is of another build, or something cannot be read or written.
        ManifestError: a commit or a table of the source is damaged.
    """
    if unknown := [name for name in stages if name not in STAGES]:
        raise StageError(f"there is no stage {unknown[0]!r}", where="--stages", hint=f"stages: {', '.join(STAGES)}")
    here, there = Store(source), Store(target)
    chosen = [name for name in STAGES if (name in stages if stages else PLAN in here.sizes(name))]
    if not chosen:
        raise StageError(
            "there is no build here", where=here.url, hint="name the folder that was OUT when it was built"
        )
    for stage in chosen:
        copy = StageCopy(here, there, stage, threads=threads, verify=verify)
        with closing(copy.steps()) as steps:
            watch(f"copying {stage}", steps)
        console.print(f"[green]✓[/] [bold]{stage:<8}[/] {copy.told()}", soft_wrap=True)


@dataclass(frozen=True, slots=True)
class _Held:
    """What a place holds of a stage: its plan, the commits of planned units, and the small files byte by byte."""

    plan: dict[str, Any]
    commits: list[Commit]
    small: dict[str, bytes]


@dataclass(slots=True)
class StageCopy:
    """Copies one stage.

    Attributes:
        units: in the stage.
        sent: of these, were not there yet.
        healed: files that were there, but damaged or lost.
        sent_bytes: of data files.
        seconds: that it took.
    """

    source: Store
    target: Store
    stage: str
    threads: int
    verify: bool
    units: int = 0
    sent: int = 0
    healed: int = 0
    sent_bytes: int = 0
    seconds: float = 0.0
    _done_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def told(self) -> str:
        """One line on what was done."""
        done = f"{self.units} units in {self.target.url}: {self.sent} sent, {self.units - self.sent} were there"
        done += f"; {self.healed} damaged files sent anew" if self.healed else ""
        done += "; all read back and hashed" if self.verify else ""
        sent_mb = self.sent_bytes / 1e6
        return done + (
            f"; {sent_mb:,.1f} MB in {self.seconds:.1f} s ({sent_mb / self.seconds:,.1f} MB/s)" if sent_mb else ""
        )

    def steps(self) -> Generator[tuple[int, int], None, None]:
        """Copy; yields bytes done and in all, now and then. Close it to stop: files under way are then finished."""
        began = time.monotonic()
        with ThreadPoolExecutor(self.threads) as pool:
            held = self._read_source(pool)
            sizes, known = self._check_target(held, pool)
            self.units, self.sent = len(held.commits), len(held.commits) - len(known)
            total = sum(file.bytes for commit in held.commits for file in commit.files)
            pending = {
                pool.submit(self._copy_unit, commit, held.small[f"{commit.unit}.json"], sizes, commit.unit in known)
                for commit in held.commits
            }
            try:
                while pending:
                    ended, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
                    for one in ended:
                        one.result()
                    yield self._done_bytes, total
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            # Another build may have been published meanwhile: its units must not be mixed with ours under our table.
            sizes, known = self._check_target(held, pool)
            if lost := {commit.unit for commit in held.commits} - known:
                raise StageError(
                    f"somebody removes what is copied: {len(lost)} units are gone again",
                    where=f"{self.target.url}/{self.stage}",
                    hint="find out who, then run the same command again",
                )
            for name in LAST:
                if name in held.small:
                    self._put_small(name, held.small[name], is_there=name in sizes)
            for name in sizes:
                if self.target.renames and name.startswith(".") and name.endswith(".tmp"):
                    self.target.remove(f"{self.stage}/{name}")  # of a copy that was killed
        self.seconds = time.monotonic() - began

    def _read_source(self, pool: Executor) -> _Held:
        """Read a stage that is complete.

        Raises:
            StageError: it is not.
            ManifestError: a commit is damaged.
        """
        where, sizes = f"{self.source.url}/{self.stage}", self.source.sizes(self.stage)
        if PLAN not in sizes:
            raise StageError(
                f"there is no stage `{self.stage}` here", where=where, hint="build it, or name others with --stages"
            )
        names = [name for name in sizes if _is_commit(name) or name in LAST]
        small = dict(zip(names, pool.map(lambda name: self.source.read(f"{self.stage}/{name}"), names), strict=True))
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for name, data in small.items():
                (folder / name).write_bytes(data)
            try:
                plan, done = read_plan(folder), {commit.unit: commit for commit in commits(folder)}
                table = tables.read("shards", folder / TABLE, columns=["name", "sha256"]) if TABLE in small else None
            except (StageError, ManifestError) as error:
                name = Path(error.where).name
                raise type(error)(error.what, where=f"{where}/{name}", hint=error.hint) from error
        assert plan is not None, "it was listed"
        missing = [
            unit
            for unit in plan["units"]
            if unit not in done
            or (done[unit].fingerprint, done[unit].own) != (plan["fingerprint"], own_stamp(plan["own"].get(unit)))
            or any(sizes.get(file.name) != file.bytes for file in done[unit].files)
        ]
        if not missing and self.stage == "shards":
            tars = {unit: file.sha256 for unit in plan["units"] if (file := done[unit].file("tar"))}
            named = {} if table is None else dict(zip(*table.to_pydict().values(), strict=True))
            missing = [TABLE] if tars != named else []
        if missing:
            raise StageError(
                f"stage `{self.stage}` is not complete: {len(missing)} of its {len(plan['units'])} units are missing or "
                f"damaged, {missing[0]} for one"
                if missing != [TABLE]
                else f"{TABLE} does not name the shards that are there",
                where=where,
                hint=f"run `make {self.stage}` (or copy it there) to its end first",
            )
        return _Held(plan, [done[unit] for unit in plan["units"]], small)

    def _check_target(self, held: _Held, pool: Executor) -> tuple[dict[str, int], set[str]]:
        """Hold what the copy has against the source.

        Returns:
            Sizes of its files, and the units that are committed there.

        Raises:
            StageError: it is a copy of another build.
        """
        sizes, folder = self.target.sizes(self.stage), f"{self.target.url}/{self.stage}"
        names = sorted(name for name in sizes if _is_commit(name))
        changes = self._changed_plan(held) if PLAN in sizes else []
        if not changes:
            planned = {f"{commit.unit}.json" for commit in held.commits}
            read = pool.map(lambda name: self.target.read(f"{self.stage}/{name}"), names)
            changes = [
                f"unit {Path(name).stem} was decided otherwise, or has other bytes"
                for name, data in zip(names, read, strict=True)
                if name in planned and data != held.small[name]
            ]
            changes += [f"unit {Path(name).stem} is not in this build" for name in names if name not in planned]
        if changes:
            more = f"; and {len(changes) - 4} more" if len(changes) > 4 else ""
            raise StageError(
                "this place holds another build: " + "; ".join(changes[:4]) + more,
                where=folder,
                hint="choose another place, or remove what is there",
            )
        return sizes, {Path(name).stem for name in names}

    def _changed_plan(self, held: _Held) -> list[str]:
        """How the copy's plan decides otherwise what all units share."""
        with tempfile.TemporaryDirectory() as temporary:
            (Path(temporary) / PLAN).write_bytes(self.target.read(f"{self.stage}/{PLAN}"))
            old = read_plan(Path(temporary)) or {}
        if old["fingerprint"] == held.plan["fingerprint"]:
            return []
        keys = ("recipe", "inputs", "stage", "version")
        found = [change for key in keys for change in changed_keys(old.get(key), held.plan.get(key), key)]
        return found or ["its plan has another fingerprint"]

    def _copy_unit(self, commit: Commit, data: bytes, sizes: dict[str, int], known: bool) -> None:
        """Bring one unit over: data first, its commit last."""
        for file in commit.files:
            there = known and sizes.get(file.name) == file.bytes
            if not there or (self.verify and not self._is_right(file)):
                self._send(file)
                if self.verify and not self._is_right(file):
                    raise StageError(
                        "this was damaged on the way, or in the place itself",
                        where=f"{self.target.url}/{self.stage}/{file.name}",
                        hint="run the same command again; if it stays, the place cannot be trusted",
                    )
                with self._lock:
                    self.sent_bytes += file.bytes
                    self.healed += known
            with self._lock:
                self._done_bytes += file.bytes
        if not known:
            self._put_small(f"{commit.unit}.json", data, is_there=False)

    def _is_right(self, file: DataFile) -> bool:
        return self.target.sha256(f"{self.stage}/{file.name}") == file.sha256

    def _send(self, file: DataFile) -> None:
        name = f"{self.stage}/{file.name}"
        # What fails half way in an object store may replace what is there, and a local file that is damaged stays so.
        if (self.source.is_local or not self.target.renames) and self.source.sha256(name) != file.sha256:
            raise StageError(
                "this file's SHA-256 is not the one it was committed with",
                where=f"{self.source.url}/{name}",
                hint=f"remove it and the unit's .json, then run `make {self.stage}` again",
            )
        self.target.put(name, lambda: self.source.chunks(name, sha256=file.sha256))

    def _put_small(self, name: str, data: bytes, *, is_there: bool) -> None:
        path = f"{self.stage}/{name}"
        if not (is_there and self.target.read(path) == data):
            self.target.put(path, lambda: [data])


def _is_commit(name: str) -> bool:
    return name.endswith(".json") and UNIT_ID.fullmatch(name.removesuffix(".json")) is not None
