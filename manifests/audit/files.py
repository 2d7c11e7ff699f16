"""First part of the audit: plans, commits and files of a build. What reads goes on to the rules about rows."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests import table as tables
from manifests.audit.counts import look_at_stats
from manifests.audit.findings import Finding, Severity, error, plural
from manifests.audit.mend import SAME
from manifests.build import STAGES
from manifests.commit import PLAN, STATS, TEMPORARY, Commit, DataFile, read_commit
from manifests.errors import ManifestError
from manifests.files import sha256_of
from manifests.lineage import behind, own_stamp, planned_from
from manifests.schema import SCHEMAS, schema_version

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]  # what is being looked at, how many of it are done, how many there are

# Looked at in the third part only: pixels, and what no rule about rows reads.
# Few words for many rows: read as dictionaries.
WORDY = (
    "source", "licence", "domain", "split", "group", "subject", "sequence", "view", "track", "kind", "box_from",
    "silhouette_from", "parser", "keypoints_set", "side",
)  # fmt: skip
READS = {"crops": ("frames",), "shards": ("pairs",)}  # what a stage is made from, where its plan does not tell
HEAVY = {"crops": ("jpeg", "silhouette", "surface", "keypoints_px"), "frames": ("keypoints_px",)}


@dataclass(frozen=True, slots=True)
class Part:
    """One committed file whose head reads; `num_rows` are those it holds, 0 for a tar."""

    stage: str
    commit: Commit
    file: DataFile
    path: Path
    num_rows: int

    @property
    def where(self) -> str:
        """Its path below the build's root."""
        return f"{self.stage}/{self.file.name}"

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a table without its heavy columns, or some columns, and check every value that is read; words come encoded.

        Raises:
            ManifestError: a column that may not has nulls.
            ArrowException: it is damaged; or anything else: a damaged file may fail in any way.
        """
        table = self.file.table
        names = columns or [name for name in SCHEMAS[table].names if name not in HEAVY.get(table, ())]
        with pq.ParquetFile(self.path, read_dictionary=[name for name in WORDY if name in names]) as file:
            data = file.read(columns=list(names), use_threads=False).combine_chunks()
        data.validate(full=True)
        for column in SCHEMAS[table]:
            if not column.nullable and column.name in names and data.column(column.name).null_count:
                raise ManifestError(f"column {column.name} has nulls", where=self.path, hint="rebuild the table")
        return data


@dataclass(slots=True)
class Evidence:
    """What the first part leaves for the others.

    Attributes:
        root: of the build.
        plans: those that read, by stage.
        commits: those that read, by stage.
        parts: files that read, by table.
        blind: tables of which rows may be missing here, with why: rules that need all of their rows are left out.
    """

    root: Path
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    commits: dict[str, list[Commit]] = field(default_factory=dict)
    parts: dict[str, list[Part]] = field(default_factory=dict)
    blind: dict[str, str] = field(default_factory=dict)

    def table(self, name: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of all rows of a table that read, part after part, in one piece."""
        found = [part.read(columns) for part in self.parts.get(name, [])]
        whole = pa.concat_tables([encoded(tables.empty(name).select(columns)), *found])
        del found
        return whole.unify_dictionaries().combine_chunks()

    def give_up(self, part: Part, problem: Exception) -> Finding:
        """Take out a file that does not read after all, and tell why."""
        self.parts[part.file.table].remove(part)
        self.blind.setdefault(part.file.table, "one of its files does not read")
        if isinstance(problem, ManifestError):
            return error("schema", part.file.table, part.where, problem.what)
        logger.debug("reading %s", part.path, exc_info=problem)
        return error("unreadable", part.file.table, part.where, f"{type(problem).__name__}: {problem}")


def encoded(data: pa.Table) -> pa.Table:
    """Encode the columns of words, as `Part.read` does."""
    for place, name in enumerate(data.column_names):
        if name in WORDY:
            words = data.column(name).dictionary_encode()
            data = data.set_column(place, data.schema.field(name).with_type(words.type), words)
    return data


def look_at_files(
    root: Path, pool: ThreadPoolExecutor, progress: Progress, *, tables_only: bool = False
) -> tuple[Evidence, list[Finding]]:
    """Hold every plan, commit and file of a build against each other.

    Args:
        root: of the build.
        pool: hashes files and reads their heads.
        progress: is told about each file.
        tables_only: of files that hold pixels, look at the size alone.

    Returns:
        what reads, and the findings.

    Raises:
        ManifestError: nothing of a build is there.
    """
    if not any((root / stage).is_dir() for stage in STAGES):
        raise ManifestError(
            "no build is here",
            where=root,
            hint=f"give the OUT folder of a build: it holds {', '.join(STAGES)}",
        )
    evidence, findings = Evidence(root), list[Finding]()
    for stage in STAGES:
        if (root / stage).is_dir():
            findings += _look_at_stage(evidence, stage)
    findings += _gone(evidence)
    jobs = [
        (stage, commit, file) for stage, done in evidence.commits.items() for commit in done for file in commit.files
    ]
    # A tar is hashed where its members are held against the crops, so that it is read from the disk once.
    sized = ("crops", "tar") if tables_only else ("tar",)
    looks = pool.map(lambda job: _look_at_file(root, *job, sized_only=job[2].table in sized), jobs)
    for count, (part, seen, table) in enumerate(looks, start=1):
        findings += seen
        if part is not None:
            evidence.parts.setdefault(table, []).append(part)
        else:
            evidence.blind.setdefault(table, "one of its files does not read")
        progress("files", count, len(jobs))
    return evidence, findings


def _look_at_stage(evidence: Evidence, stage: str) -> Iterator[Finding]:
    folder = evidence.root / stage
    plan, found = _read_plan(folder, stage)
    yield from found
    evidence.commits[stage] = []
    names = sorted(path.name for path in folder.iterdir())
    records = [name for name in names if name.endswith(".json") and name not in (PLAN, STATS) and name[0] != "."]
    for name in records:
        try:
            commit = read_commit(folder / name)
        except ManifestError as problem:
            yield error("commit", "", f"{stage}/{name}", problem.what)
            continue
        if commit.stage != stage:
            yield error("commit", "", f"{stage}/{name}", f"it is a commit of stage {commit.stage!r}")
            continue
        evidence.commits[stage].append(commit)
        if plan is None:
            continue
        if commit.fingerprint != plan["fingerprint"]:
            message = (
                f"the commit carries {commit.fingerprint[:12]}, the plan {plan['fingerprint'][:12]}: another recipe"
            )
            yield error("fingerprint", "", f"{stage}/{name}", message)
        elif commit.own != own_stamp(plan.get("own", {}).get(commit.unit)):
            message = "what decides this unit alone is not what its plan tells: another recipe, or another input"
            yield error("fingerprint", "", f"{stage}/{name}", message)
    if plan is not None:
        evidence.plans[stage] = plan
        yield from _hold_against_plan(evidence, stage, plan["units"])
        yield from _behind(evidence, stage, plan)
    yield from _strays(evidence, stage, names)
    if len(evidence.commits[stage]) == len(records):
        yield from look_at_stats(folder, evidence.commits[stage])


def _read_plan(folder: Path, stage: str) -> tuple[dict[str, Any] | None, list[Finding]]:
    where = f"{stage}/{PLAN}"
    try:
        plan = json.loads((folder / PLAN).read_text())
    except FileNotFoundError:
        return None, [error("plan", "", where, "the plan is missing: nothing tells which units there should be")]
    except (OSError, ValueError, RecursionError) as problem:
        return None, [error("plan", "", where, f"the plan does not read: {problem}")]
    if not isinstance(plan, dict):
        return None, [error("plan", "", where, f"the plan holds no JSON object but a {type(plan).__name__}")]
    if lacks := [f"`{name}`" for name in ("units", "fingerprint") if name not in plan]:
        return None, [error("plan", "", where, f"the plan lacks {' and '.join(lacks)}")]
    units = plan["units"]
    if not isinstance(units, list) or not all(isinstance(unit, str) for unit in units):
        return None, [error("plan", "", where, "the plan's `units` are no list of names")]
    if not isinstance(plan["fingerprint"], str):
        return None, [error("plan", "", where, "the plan's `fingerprint` is no text")]
    try:
        planned_from(plan)
    except (ValueError, KeyError, TypeError, AttributeError):
        message = "the plan's `own` or `packed` do not tell, unit by unit, what it was made from"
        return None, [error("plan", "", where, message)]
    return plan, []


def _hold_against_plan(evidence: Evidence, stage: str, planned: list[str]) -> Iterator[Finding]:
    done = {commit.unit for commit in evidence.commits[stage]}
    missing = [unit for unit in planned if unit not in done]
    extra = sorted(done.difference(planned))
    if missing:
        message = f"{len(missing)} of {plural(len(planned), 'planned unit')} not committed"
        yield Finding(
            rule="uncommitted", severity=Severity.ERROR, table="", where=f"{stage}/", message=message,
            count=len(missing), examples=tuple(missing[:5]),
        )  # fmt: skip
        for table in STAGES[stage]:
            evidence.blind.setdefault(table, f"units of {stage} are not committed")
    if extra:
        yield Finding(
            rule="unplanned", severity=Severity.WARNING, table="", where=f"{stage}/",
            message=f"{plural(len(extra), 'committed unit')} not in the plan", count=len(extra), examples=tuple(extra[:5]),
        )  # fmt: skip


def _behind(evidence: Evidence, stage: str, plan: dict[str, Any]) -> Iterator[Finding]:
    """Hold what a stage was made from against what the stages before it hold now: an extension may have stopped half way."""
    for earlier, what, units in behind(plan, lambda name: evidence.commits.get(name, [])):
        if earlier not in evidence.commits:  # `_gone` tells
            continue
        message = f"{plural(len(units), 'unit')} of {earlier} {what}"
        yield Finding(
            rule="behind", severity=Severity.ERROR, table="", where=f"{stage}/", message=message,
            count=len(units), examples=tuple(units[:5]),
        )  # fmt: skip


def _gone(evidence: Evidence) -> Iterator[Finding]:
    """Stages that are not there at all, though a later one was made from them."""
    for stage in evidence.commits:
        read = {*planned_from(evidence.plans.get(stage, {})), *READS.get(stage, ())}
        for earlier in sorted(read - evidence.commits.keys()):
            message = f"stage {earlier} is not there, though {stage} was made from it"
            hint = f"bring the folder back (`make publish ALL=1` copies all stages), or run `make build` {SAME}"
            yield Finding(
                rule="missing", severity=Severity.ERROR, table="", where=f"{earlier}/", message=message, hint=hint
            )
            for table in STAGES[earlier]:
                evidence.blind.setdefault(table, f"stage {earlier} is not there")


def _strays(evidence: Evidence, stage: str, names: list[str]) -> Iterator[Finding]:
    """Data files that no commit lists: readers pass them by, a person may not."""
    listed = {file.name for commit in evidence.commits[stage] for file in commit.files} | {f"{stage}.parquet"}
    stray = [name for name in names if name.endswith((".parquet", ".tar", ".tmp")) and name not in listed]
    unfinished = evidence.root / stage / TEMPORARY
    if unfinished.is_dir() and any(unfinished.iterdir()):
        stray.append(TEMPORARY)
    if stray:
        yield Finding(
            rule="stray", severity=Severity.WARNING, table="", where=f"{stage}/",
            message="files that no commit lists: what an interrupted run left, or a commit that was removed",
            count=len(stray), examples=tuple(f"{stage}/{name}" for name in stray[:5]),
        )  # fmt: skip


def _look_at_file(
    root: Path, stage: str, commit: Commit, file: DataFile, *, sized_only: bool
) -> tuple[Part | None, list[Finding], str]:
    """Hold one file against its commit and its schema; runs in a thread."""
    where, path = f"{stage}/{file.name}", root / stage / file.name
    if file.table != "tar" and file.table not in SCHEMAS:
        return (
            None,
            [error("commit", file.table, where, f"the commit lists an unknown table {file.table!r}")],
            file.table,
        )
    findings, version = [], 1 if file.table == "tar" else schema_version(file.table)
    if file.version != version:
        message = f"the commit tells version {file.version} of {file.table}, which is at version {version}"
        findings.append(error("commit", file.table, f"{stage}/{commit.unit}.json", message))
    try:
        size = path.stat().st_size
        if size != file.bytes:
            findings.append(error("hash", file.table, where, f"it has {size:,} bytes, its commit tells {file.bytes:,}"))
        elif not sized_only and sha256_of(path) != file.sha256:
            findings.append(error("hash", file.table, where, "its SHA-256 is not the one its commit tells"))
    except FileNotFoundError:
        return None, [error("missing", file.table, where, "the committed file is not there")], file.table
    except OSError as problem:
        return None, [error("unreadable", file.table, where, f"it does not read: {problem}")], file.table
    if file.table == "tar":
        return Part(stage, commit, file, path, 0), findings, "tar"
    rule = "schema"
    try:
        with pq.ParquetFile(path) as opened:
            tables.check_schema(file.table, opened.schema_arrow, where=path)
            rule = "unreadable"
            tables.check_expanded(file.table, opened.metadata, where=path)
            num_rows = opened.metadata.num_rows
    except ManifestError as problem:
        return None, [*findings, error(rule, file.table, where, problem.what)], file.table
    except Exception as problem:  # a damaged file may fail in any way: that is a finding, and the audit goes on
        logger.debug("reading %s", path, exc_info=True)
        return (
            None,
            [*findings, error("unreadable", file.table, where, f"{type(problem).__name__}: {problem}")],
            file.table,
        )
    if num_rows != file.rows:
        findings.append(error("rows", file.table, where, f"it has {num_rows} rows, its commit tells {file.rows}"))
    return Part(stage, commit, file, path, num_rows), findings, file.table
