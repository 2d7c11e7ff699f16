"""Last part of the audit: shards against pairs, indexes and commits; their tars member by member.

A tar is read once: hashed, and while it is in memory its members are held against what they should be.

Legend: p pairs.
"""

import hashlib
import logging
import mmap
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from manifests import table as tables
from manifests.audit.files import Evidence, Part, Progress
from manifests.audit.findings import NUM_EXAMPLES, Finding, Severity, error, of_rows, plural
from manifests.audit.images import Images
from manifests.audit.keys import Ints, Keys, hashes_of
from manifests.audit.samples import Paired, Shelf, look_at_samples
from manifests.audit.tars import blocks_of, hold_against_index, is_as_listed, members_of
from manifests.errors import ManifestError, ShardError
from manifests.types import PairKind

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Index:
    """What is kept of a shard's index: its file, the row in the pairs of each sample (-1: none), and the first and last key."""

    part: Part
    rows: Ints
    ends: tuple[str, ...]


def look_at_shards(
    evidence: Evidence, images: Images | None, keys: Mapping[str, Keys], pool: ThreadPoolExecutor, progress: Progress
) -> Iterator[Finding]:
    """Hold every shard against its index, its pairs and its crops, and `shards.parquet` against the commits.

    Args:
        evidence: of the first part.
        images: of the crops; None to read no tar.
        keys: of crops and pairs, over all files; without them tars are hashed, and no more.
        pool: looks at the tars.
        progress: is told about the tars.
    """
    indexes, shelf = dict[str, Index](), None
    if "shards" not in evidence.commits:
        return
    if keys:
        paired = Paired.of(evidence.parts.get("pairs", []), pool)
        # Their other columns are read with the tars.
        indexes, found = _read_indexes(evidence, keys["pairs"], columns=None if images is None else ["key"])
        yield from found
        yield from _packed(evidence, indexes, keys["pairs"])
        yield from _shards_table(evidence, paired, indexes, keys["pairs"])
        if "pairs" not in evidence.blind:
            yield from _kinds(evidence, paired, indexes)
        shelf = None if images is None else Shelf(paired, images, keys["crops"])
    tars = evidence.parts.get("tar", []) if images is not None else []
    looks = pool.map(lambda tar: _look_at_tar(evidence, tar, indexes.get(tar.commit.unit), shelf), tars)
    for count, findings in enumerate(looks, start=1):
        yield from findings
        progress("shards", count, len(tars))


def _read_indexes(
    evidence: Evidence, keys: Keys, *, columns: list[str] | None
) -> tuple[dict[str, Index], list[Finding]]:
    """The index of each shard, and what is wrong with those that do not read."""
    indexes, findings = {}, []
    for part in list(evidence.parts.get("index", ())):
        try:
            names = part.read(columns).column("key")
            ends = (names[0].as_py(), names[-1].as_py()) if len(names) else ()
            indexes[part.commit.unit] = Index(part, keys.rows_of(hashes_of(names)), ends)
        except Exception as problem:  # noqa: BLE001 - a damaged file may fail in any way: that is a finding
            findings.append(evidence.give_up(part, problem))
    return indexes, findings


def _packed(evidence: Evidence, indexes: dict[str, Index], keys: Keys) -> Iterator[Finding]:
    """Every pair is in exactly one shard; nothing else is."""
    if "pairs" not in evidence.blind:
        for index in indexes.values():
            if (index.rows < 0).any():
                samples = index.part.read(["key"]).column("key")
                yield from of_rows("packed", "index", index.rows < 0, samples, "a sample is no pair")
    rows = np.concatenate([np.zeros(0, np.int64), *(index.rows for index in indexes.values())])
    times = np.bincount(rows[rows >= 0], minlength=len(keys.hashes))
    times = times[keys.rows_of(keys.hashes)]  # a key used twice counts for both
    yield from _of_pairs("packed", keys, np.flatnonzero(times > 1), "a pair is more than once in the shards")
    if "index" not in evidence.blind:
        yield from _of_pairs("packed", keys, np.flatnonzero(times == 0), "a pair is in no shard")


def _of_pairs(rule: str, keys: Keys, rows: Ints, message: str, *, where: str = "pairs") -> Iterator[Finding]:
    """One finding about these rows of the pairs; none if there is none."""
    if len(rows):
        yield Finding(
            rule=rule, severity=Severity.ERROR, table="pairs", where=where, message=message, count=len(rows),
            examples=tuple(keys.names(rows[:NUM_EXAMPLES])),
        )  # fmt: skip


def _shards_table(evidence: Evidence, paired: Paired, indexes: dict[str, Index], keys: Keys) -> Iterator[Finding]:
    """Hold `shards.parquet` against the commits and the indexes, and each shard's pairs against its row."""
    where, done = "shards/shards.parquet", evidence.commits.get("shards", [])
    try:
        told = tables.read("shards", evidence.root / where)
        told.validate(full=True)
    except ManifestError as problem:
        if done:
            yield error("shards_table", "shards", where, problem.what)
        return
    rows = {row["name"]: row for row in told.to_pylist()}
    if len(rows) != told.num_rows:
        yield error("shards_table", "shards", where, "a shard is listed more than once")
    licences = {} if "pairs" in evidence.blind else paired.licences()
    committed = {commit.unit: commit for commit in done}
    odd = sorted(set(rows) ^ set(committed))
    if odd:
        message = f"{plural(len(odd), 'shard')} in the table or committed, but not both"
        yield error("shards_table", "shards", where, message, examples=tuple(odd[:NUM_EXAMPLES]))
    for name in sorted(set(rows) & set(committed)):
        tar, index = committed[name].file("tar"), committed[name].file("index")
        if tar is None or index is None:
            yield error("commit", "tar", f"shards/{name}.json", "the commit lists no tar, or no index")
            continue
        due = {
            "rows": tar.rows,
            "bytes": tar.bytes,
            "sha256": tar.sha256,
            "index_sha256": index.sha256,
            "fingerprint": committed[name].fingerprint,
        }
        if (source := rows[name]["source"]) in licences:
            due["licence"] = licences[source]
        listed = indexes.get(name)
        if listed is not None and listed.ends:
            due["first_pair"], due["last_pair"] = listed.ends
            yield from _own_pairs(name, rows[name], listed.rows[listed.rows >= 0], paired, keys)
        wrong = [column for column, value in due.items() if rows[name][column] != value]
        if wrong:
            message = f"{', '.join(wrong)} differ from the shard's commit or index"
            yield error("shards_table", "shards", where, message, examples=(name,))


def _own_pairs(name: str, row: dict[str, Any], rows: Ints, paired: Paired, keys: Keys) -> Iterator[Finding]:
    for column in ("split", "source", "domain", "weight"):
        if column == "weight":
            odd = paired.numbers[column][rows] != row[column]
        else:
            odd = np.array([word != row[column] for word in paired.words[column]], bool)[paired.codes[column][rows]]
        message = f"shard {name} of {column} {row[column]} holds pairs of another"
        yield from _of_pairs("shard_columns", keys, rows[odd], message, where=f"shards/{name}.tar")


def _kinds(evidence: Evidence, paired: Paired, indexes: dict[str, Index]) -> Iterator[Finding]:
    """Hold what the commits of shards count of each kind against the pairs that are in them."""
    for commit in evidence.commits.get("shards", []):
        index = indexes.get(commit.unit)
        if index is None:
            continue
        codes = paired.codes["kind"][index.rows[index.rows >= 0]]
        there = dict(zip(paired.words["kind"], np.bincount(codes, minlength=len(paired.words["kind"])), strict=True))
        for kind in PairKind:
            told = commit.counts.get(kind.value)
            if told is not None and told != there.get(kind.value, 0):
                message = f"it counts {told:,} {kind.value} pairs, there are {there.get(kind.value, 0):,}"
                yield error("counts", "", f"shards/{commit.unit}.json", message)


# --- one tar ---


def _look_at_tar(evidence: Evidence, tar: Part, index: Index | None, shelf: Shelf | None) -> list[Finding]:
    """Read a tar once: hash it, and hold its members against the index and the shelf; runs in a thread."""
    where, findings = f"shards/{tar.file.name}", list[Finding]()
    try:
        with tar.path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # closed when nothing views it
        if len(data) == tar.file.bytes and hashlib.sha256(data).hexdigest() != tar.file.sha256:
            findings.append(error("hash", "tar", where, "its SHA-256 is not the one its commit tells"))
        if index is not None and shelf is not None:
            try:
                listed = index.part.read()
            except Exception as problem:  # noqa: BLE001 - a damaged file may fail in any way: that is a finding
                return [*findings, evidence.give_up(index.part, problem)]
            findings += _hold_members(where, tar, data, listed, index.rows, shelf)
    except ShardError as problem:
        findings.append(error("tar", "tar", where, problem.what))
    except (OSError, ValueError) as problem:
        findings.append(error("unreadable", "tar", where, f"the tar does not read to its end: {problem}"))
    return findings


def _hold_members(
    where: str, tar: Part, data: memoryview, listed: pa.Table, pairs: Ints, shelf: Shelf
) -> Iterator[Finding]:
    blocks = blocks_of(listed)
    if not is_as_listed(tar, data, listed.num_rows, blocks):  # then a walk tells what is there instead
        places, order = members_of(tar)
        yield from hold_against_index(where, tar, blocks, places, order)
        blocks = [block.found_in(places) for block in blocks]
    bad: dict[tuple[str, str], list[str]] = defaultdict(list)
    first = 0
    for block in blocks:
        look_at_samples(data, block, pairs[first : first + len(block.keys)], shelf, bad)
        first += len(block.keys)
    for (rule, message), names in sorted(bad.items()):
        yield Finding(
            rule=rule, severity=Severity.ERROR, table="index", where=where, message=message, count=len(names),
            examples=tuple(names[:NUM_EXAMPLES]),
        )  # fmt: skip
