"""Tell two builds apart: recipes, units, rows, shards, and how far what they hold has drifted."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import table as tables
from manifests.audit.findings import plural
from manifests.audit.prove import audit
from manifests.build import STAGES, Build
from manifests.commit import PLAN, Commit, DataFile
from manifests.errors import ManifestError
from manifests.recipes import changed_keys
from manifests.show import key_column

NUM_EXAMPLES = 5
MEASURED = ("frames/frames", "renders/frames", "renders/crops", "crops/crops", "pairs/pairs")
LITTLE = 0.01  # share of a distribution that may move without being told


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One way in which two builds differ.

    Attributes:
        what: recipe, units, rows, bytes or drift.
        where: stage or table, and column.
        message: one sentence, counts first.
        examples: keys, units or changed settings.
    """

    what: str
    where: str
    message: str
    examples: tuple[str, ...] = ()


def diff(root_a: Path, root_b: Path) -> list[Difference]:
    """All differences between two builds, in the order of the road; none when their commits agree byte for byte.

    Raises:
        ManifestError: one of them is no build, or a file that differs cannot be read.
    """
    for root in (root_a, root_b):
        if not any((root / stage).is_dir() for stage in STAGES):
            raise ManifestError("no build is here", where=root, hint="give the OUT folders of two builds")
    found: list[Difference] = []
    for stage, names in STAGES.items():
        found += _plans(stage, root_a / stage, root_b / stage)
        mine, theirs = ({c.unit: c for c in Build(root).commits(stage)} for root in (root_a, root_b))
        found += _units(stage, mine, theirs)
        for root, commits in ((root_a, mine), (root_b, theirs)):
            found += _damaged(stage, root / stage, commits)
        for table in (*names, "rejects"):
            found += _tables(stage, table, root_a / stage, root_b / stage, mine, theirs)
        if stage == "shards":
            found += _tars(mine, theirs)
    if any(one.what == "rows" and one.where in MEASURED for one in found):
        found += _drift(*(audit(root, tables_only=True).stats for root in (root_a, root_b)))
    return found


def _drift(a: dict[str, Any], b: dict[str, Any]) -> Iterator[Difference]:
    """How the builds differ as a whole: shares of sources and kinds, and distributions, by the share that would have to move."""
    for name in ("source", "split", "kind", "domain"):
        one, other = (_shares(stats["pairs"], name) for stats in (a, b))
        yield from _moved(f"pairs by {name}", one, other)
    for name in a["histograms"]:
        (one, edges), (other, _) = (_bins(stats["histograms"][name]) for stats in (a, b))
        yield from _moved(name, one, other, edges)
    for source in sorted({row["source"] for stats in (a, b) for row in stats["sources"]}):
        one, other = (sum(row["crops"] for row in stats["sources"] if row["source"] == source) for stats in (a, b))
        if max(one, other) * (1 - LITTLE) > min(one, other):
            yield Difference(what="drift", where=f"crops of {source}", message=f"{one:,} in A, {other:,} in B")


def _shares(rows: list[dict[str, Any]], name: str) -> dict[str, float]:
    counts = Counter[str]()
    for row in rows:
        counts[row[name]] += row["rows"]
    return {value: count / counts.total() for value, count in counts.items()}


def _bins(histogram: dict[str, Any]) -> tuple[dict[str, float], list[str]]:
    """Share of each bin of a histogram, and of what is unknown; and the bins in order."""
    edges = [f"{edge:.3g}" for edge in histogram["edges"]]
    names = [*(f"{low} to {high}" for low, high in pairwise(edges)), "unknown"]
    counts = [*histogram["counts"], histogram["unknown"]]
    return {name: count / (sum(counts) or 1) for name, count in zip(names, counts, strict=True)}, names


def _moved(
    where: str, one: dict[str, float], other: dict[str, float], order: list[str] | None = None
) -> Iterator[Difference]:
    """Tell how much of a distribution moved (half the sum of all changes), and what changed most."""
    names = order or sorted({*one, *other})
    change = {name: other.get(name, 0) - one.get(name, 0) for name in names}
    moved = sum(map(abs, change.values())) / 2
    if moved > LITTLE:
        most = sorted(names, key=lambda name: -abs(change[name]))[:NUM_EXAMPLES]
        told = (
            f"{name}: {100 * one.get(name, 0):.1f} % -> {100 * other.get(name, 0):.1f} %"
            for name in most
            if change[name]
        )
        yield Difference(what="drift", where=where, message=f"{100 * moved:.1f} % of it moved", examples=tuple(told))


def _plans(stage: str, folder_a: Path, folder_b: Path) -> Iterator[Difference]:
    one, other = _plan(folder_a), _plan(folder_b)
    if one is None or other is None:
        if one is not other:
            yield Difference(what="recipe", where=stage, message=f"only {'B' if one is None else 'A'} has this stage")
        return
    decides = ("version", "recipe", "inputs")
    changes = changed_keys({key: one.get(key) for key in decides}, {key: other.get(key) for key in decides})
    if changes:
        message = f"{plural(len(changes), 'value')} of the recipe or the inputs changed"
        yield Difference(what="recipe", where=stage, message=message, examples=tuple(changes[:20]))


def _plan(folder: Path) -> dict[str, Any] | None:
    path = folder / PLAN
    if not path.exists():
        return None
    try:
        plan = json.loads(path.read_text())
        if not isinstance(plan, dict):
            raise ValueError("it holds no mapping")
    except (OSError, ValueError) as error:
        raise ManifestError(f"the plan does not read: {error}", where=path, hint="run the stage again") from error
    return plan


def _units(stage: str, mine: dict[str, Commit], theirs: dict[str, Commit]) -> Iterator[Difference]:
    for side, only in (("A", sorted(set(mine) - set(theirs))), ("B", sorted(set(theirs) - set(mine)))):
        if only:
            message = f"{plural(len(only), 'unit')} only in {side}"
            yield Difference(what="units", where=stage, message=message, examples=tuple(only[:NUM_EXAMPLES]))


def _tables(
    stage: str, table: str, folder_a: Path, folder_b: Path, mine: dict[str, Commit], theirs: dict[str, Commit]
) -> Iterator[Difference]:
    """Rows of one table: only the files whose hashes differ are read."""
    differing = [
        unit
        for unit in sorted(set(mine) | set(theirs))
        if _hash(mine.get(unit), table) != _hash(theirs.get(unit), table)
    ]
    if not differing:
        return
    a, b = (_read(table, folder, commits, differing) for folder, commits in ((folder_a, mine), (folder_b, theirs)))
    where = f"{stage}/{table}"
    yield Difference(
        what="rows",
        where=where,
        message=f"{plural(len(differing), 'file')} differing: {plural(a.num_rows, 'row')} in A, {b.num_rows:,} in B",
        examples=tuple(differing[:NUM_EXAMPLES]),
    )
    name = key_column(table)
    for side, one, other in (("A", a, b), ("B", b, a)):
        gone = one.column(name).filter(
            pc.invert(pc.is_in(one.column(name), value_set=other.column(name).combine_chunks()))
        )
        if len(gone):
            examples = tuple(gone[:NUM_EXAMPLES].to_pylist())
            yield Difference(
                what="rows", where=where, message=f"{plural(len(gone), 'key')} only in {side}", examples=examples
            )
    if table != "index":  # where members lie says nothing that the tars' own difference does not
        yield from _columns(where, a, b, name)


def _columns(where: str, a: pa.Table, b: pa.Table, name: str) -> Iterator[Difference]:
    """Columns whose values differ in rows of one key."""
    found = pc.index_in(a.column(name), value_set=b.column(name).combine_chunks()).fill_null(-1).to_numpy()
    both = np.flatnonzero(found >= 0)
    a, b = a.take(pa.array(both)), b.take(pa.array(found[both]))
    for column in a.column_names:
        if a.column(column).equals(b.column(column)):
            continue
        values = zip(a.column(column).to_pylist(), b.column(column).to_pylist(), strict=True)
        rows = [row for row, (one, other) in enumerate(values) if one != other]
        if not rows:
            continue
        first = rows[0]
        shown = f"{_short(a.column(column)[first].as_py())} -> {_short(b.column(column)[first].as_py())}"
        keys = [a.column(name)[row].as_py() for row in rows[:NUM_EXAMPLES]]
        examples = (f"{keys[0]}: {shown}", *keys[1:])
        message = f"{column} differs in {len(rows):,} of {plural(len(both), 'row')} of one key"
        yield Difference(what="rows", where=f"{where}.{column}", message=message, examples=examples)


def _short(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _damaged(stage: str, folder: Path, commits: dict[str, Commit]) -> Iterator[Difference]:
    """Commits are compared by what they say; a file that is gone or of another size does not say it any more."""
    files = [file for commit in commits.values() for file in commit.files]
    bad = [f.name for f in files if not (folder / f.name).is_file() or (folder / f.name).stat().st_size != f.bytes]
    if bad:
        message = f"{plural(len(bad), 'file')} missing or of another size than committed: run audit on {folder.parent}"
        yield Difference(what="bytes", where=stage, message=message, examples=tuple(bad[:NUM_EXAMPLES]))


def _tars(mine: dict[str, Commit], theirs: dict[str, Commit]) -> Iterator[Difference]:
    differing = [
        name for name in sorted(set(mine) & set(theirs)) if _hash(mine[name], "tar") != _hash(theirs[name], "tar")
    ]
    if not differing:
        return
    examples = []
    for name in differing[:NUM_EXAMPLES]:
        one, other = mine[name].file("tar"), theirs[name].file("tar")
        examples.append(f"{name}: {_told(one)} -> {_told(other)}")
    message = f"{len(differing):,} of {plural(len(set(mine) & set(theirs)), 'shard')} of one name differ in bytes"
    yield Difference(what="bytes", where="shards/tar", message=message, examples=tuple(examples))


def _told(file: DataFile | None) -> str:
    return "none" if file is None else f"{file.rows} rows, {file.bytes:,} bytes, {file.sha256[:12]}"


def _hash(commit: Commit | None, table: str) -> str | None:
    file = commit.file(table) if commit is not None else None
    return file.sha256 if file is not None else None


def _read(table: str, folder: Path, commits: dict[str, Commit], units: list[str]) -> pa.Table:
    files = [file for unit in units if unit in commits and (file := commits[unit].file(table)) is not None]
    return pa.concat_tables([tables.empty(table), *[tables.read(table, folder / file.name) for file in files]])
