"""The one commit rule of every stage: data first, `<unit>.json` last, and that file is the commit.

A stage folder holds, for each unit, its data files `<unit>.<table>.parquet` (or `.tar`) and `<unit>.json`, which lists
them with rows, bytes and SHA-256. Unfinished work lies in `_tmp/` and is never read. Durations and host names stay out:
a rerun writes the same bytes.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from manifests import table as tables
from manifests.errors import ManifestError, RecipeError, StageError
from manifests.files import sha256_of, sync_folder, write_bytes
from manifests.recipes import canonical_json, from_mapping
from manifests.schema import SCHEMAS, schema_version
from manifests.types import Reject

TEMPORARY = "_tmp"
PLAN = "plan.json"
STATS = "stats.json"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
UNIT_ID = re.compile(r"(?!(plan|stats)$)[a-z0-9_-]+")


class OutputError(StageError):
    """The output folder cannot be written: no other unit will fare better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One committed file. `table` is a name of `manifests.schema.SCHEMAS`, or `tar`."""

    name: str
    table: str
    version: int
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What `<unit>.json` says of a unit."""

    stage: str
    unit: str
    fingerprint: str
    files: tuple[DataFile, ...]
    counts: dict[str, int]
    rejects: dict[str, int]  # by reason
    own: str = ""  # fingerprint of what decides this unit alone; empty where the stage's says it all

    def file(self, table: str) -> DataFile | None:
        """The unit's file of one table, if it has one."""
        return next((file for file in self.files if file.table == table), None)


def read_commit(path: Path) -> Commit:
    """Read one `<unit>.json`.

    Raises:
        ManifestError: it is no commit file.
    """
    try:
        commit = from_mapping(Commit, json.loads(path.read_text()), where=str(path))
    except (OSError, ValueError, RecursionError, AttributeError, TypeError, RecipeError) as error:
        raise ManifestError(
            f"not a commit file: {error.what if isinstance(error, RecipeError) else error}",
            where=path,
            hint="delete it and run the stage again",
        ) from error
    if commit.unit != path.stem or any(
        Path(file.name).name != file.name or not file.name.startswith(f"{commit.unit}.") for file in commit.files
    ):
        raise ManifestError(
            "the commit names another unit or a file elsewhere", where=path, hint="delete it and run again"
        )
    return commit


def commits(folder: Path) -> list[Commit]:
    """All commits of a stage folder, by unit name; none when the folder is not there."""
    paths = sorted(path for path in folder.glob("*.json") if path.name not in (PLAN, STATS))
    return [read_commit(path) for path in paths]


def is_committed(folder: Path, unit: str, fingerprint: str, own: str = "") -> bool:
    """Whether a unit is done for these fingerprints: its commit is there and each file has the size it tells."""
    path = folder / f"{unit}.json"
    if not path.exists():
        return False
    commit = read_commit(path)
    if (commit.fingerprint, commit.own) != (fingerprint, own):
        return False
    sizes = {
        file.name: (folder / file.name).stat().st_size if (folder / file.name).exists() else -1 for file in commit.files
    }
    return all(sizes[file.name] == file.bytes for file in commit.files)


def content_hash(folder: Path, *, only: Iterable[str] | None = None) -> str:
    """SHA-256 over what a stage has committed (names and hashes of data files), for the fingerprint of the next stage.

    Args:
        folder: a stage folder.
        only: tables that count; all when left out.
    """
    wanted = None if only is None else set(only)
    lines = [
        f"{file.name} {file.sha256}"
        for c in commits(folder)
        for file in c.files
        if wanted is None or file.table in wanted
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def remove_unit(folder: Path, unit: str) -> None:
    """Remove a unit: its commit first, so that it never vouches for files that are gone."""
    (folder / f"{unit}.json").unlink(missing_ok=True)
    sync_folder(folder)
    for suffix in (".tar", *(f".{table}.parquet" for table in SCHEMAS)):
        (folder / f"{unit}{suffix}").unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what unfinished work left behind."""
    shutil.rmtree(folder / TEMPORARY, ignore_errors=True)
    for path in folder.glob(".*.tmp"):
        with suppress(FileNotFoundError):
            path.unlink()


class UnitWriter:
    """Writes one unit and commits it at the end of its `with` block; an exception leaves nothing behind.

    ```python
    with UnitWriter(folder, stage="crops", unit="rec1", fingerprint=f) as out:
        out.table("crops", crops)
        out.reject(rejects)
    ```
    """

    def __init__(self, folder: Path, *, stage: str, unit: str, fingerprint: str, own: str = "") -> None:
        if not UNIT_ID.fullmatch(unit):
            raise ValueError(f"unit {unit!r} does not match [a-z0-9_-]+, or is the name of a stage's own file")
        self.folder, self.stage, self.unit, self.fingerprint, self.own = folder, stage, unit, fingerprint, own
        self.counts: Counter[str] = Counter()
        self.rejects: list[Reject] = []
        self._files: list[tuple[Path, str, int]] = []
        # The name is unique to this attempt: two attempts at one unit never write into each other.
        self._temporary = folder / TEMPORARY / f"{unit}.{uuid.uuid4().hex}"

    def __enter__(self) -> "UnitWriter":
        try:
            self._temporary.mkdir(parents=True)
        except OSError as failure:
            raise self._failed(failure) from failure
        return self

    def path(self, suffix: str) -> Path:
        """Where to write the file that will be `<unit><suffix>`; `add` it when it is complete."""
        return self._temporary / f"{self.unit}{suffix}"

    def add(self, path: Path, *, table: str, rows: int) -> None:
        """Take a complete file, written at `path(...)`, into the commit."""
        self._files.append((path, table, rows))

    def table(self, name: str, data: pa.Table) -> None:
        """Write a table into the commit as `<unit>.<name>.parquet`."""
        path = self.path(f".{name}.parquet")
        with path.open("wb") as file:
            tables.encode(tables.check(name, data, where=path.name), file)
        self.add(path, table=name, rows=data.num_rows)
        self.counts[name] += data.num_rows

    def reject(self, rejects: Iterable[Reject]) -> None:
        """Count what was left out; the rows are written with the unit."""
        self.rejects += rejects

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
            elif isinstance(error, OSError) and error.errno in NO_ROOM:
                raise error
        except OSError as failure:
            raise self._failed(failure) from failure
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _failed(self, failure: OSError) -> OutputError:
        return OutputError(
            f"unit {self.unit} could not be written: {failure.strerror or failure}",
            where=failure.filename or self.folder,
            hint="free disk space or fix the permissions, then run the same command: committed units are kept",
        )

    def _commit(self) -> None:
        if self.rejects:
            self.table("rejects", tables.rejects_table(self.rejects))
        files = []
        for path, table, rows in self._files:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            version = schema_version(table) if table != "tar" else 1
            files.append(
                DataFile(
                    name=path.name,
                    table=table,
                    version=version,
                    rows=rows,
                    bytes=path.stat().st_size,
                    sha256=sha256_of(path),
                )
            )
        # A commit of an earlier attempt (its data was lost, or its input another) must not vouch for the new data.
        remove_unit(self.folder, self.unit)
        for path, _, _ in self._files:
            path.replace(self.folder / path.name)
        sync_folder(self.folder)
        left_out = Counter[str]()
        for reject in self.rejects:
            left_out[reject.reason.value] += reject.count
        commit = Commit(
            stage=self.stage,
            unit=self.unit,
            fingerprint=self.fingerprint,
            own=self.own,
            files=tuple(files),
            counts=dict(sorted(self.counts.items())),
            rejects=dict(sorted(left_out.items())),
        )
        write_bytes(self.folder / f"{self.unit}.json", (canonical_json(commit) + "\n").encode())


def iter_tables(folder: Path, table: str, *, columns: list[str] | None = None) -> Iterator[tuple[Commit, pa.Table]]:
    """Read one table of every commit in a stage folder, unit by unit."""
    for commit in commits(folder):
        file = commit.file(table)
        if file is not None:
            yield commit, tables.read(table, folder / file.name, columns=columns)
