"""Last part of the audit: shards against pairs, crops, indexes and commits, member by member."""

import json
import logging
import mmap
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import table as tables
from manifests.audit_files import Evidence, Part, Progress
from manifests.audit_images import Images, digest_of
from manifests.audit_keys import Keys, hashes_of
from manifests.errors import ManifestError, ShardError
from manifests.findings import NUM_EXAMPLES, Finding, Severity, error, of_rows, plural
from manifests.sample import SILHOUETTE_BYTES, member_names, tar_members
from manifests.schema import MEMBERS
from manifests.types import Role

logger = logging.getLogger(__name__)

PAIR_COLUMNS = [
    "key", "kind", "source", "domain", "split", "target", "reference", "dt_s", "view_angle_rad", "covisibility", "weight",
    "further",
]  # fmt: skip
Ints = npt.NDArray[np.int64]
Places = dict[str, tuple[int, int]]  # member name to offset and size of its data


@dataclass(frozen=True, slots=True)
class Shelf:
    """What the samples of a shard are held against.

    Attributes:
        pairs: all pairs.
        rows: row in `pairs` of each sample of the shard, -1 where it is none.
        crop_rows: per role, row in the crops of each pair, -1 where it is none.
        further: the same of all further views, pair after pair, and where those of each pair begin.
        num_further: further views of each sample, as the index tells.
        images: of the crops.
    """

    pairs: pa.Table
    rows: Ints
    crop_rows: dict[Role, Ints]
    further: tuple[Ints, Ints]
    num_further: list[int]
    images: Images

    def crops_of(self, row: int) -> dict[str, int]:
        """Row in the crops of each view of a pair, by the name that opens its members."""
        crops = {role.value: int(self.crop_rows[role][row]) for role in Role}
        views, starts = self.further
        return crops | {f"view{n}": int(crop) for n, crop in enumerate(views[starts[row] : starts[row + 1]], start=2)}


def look_at_shards(
    evidence: Evidence, images: Images, keys: Mapping[str, Keys], progress: Progress
) -> Iterator[Finding]:
    """Hold every shard against its index, its pairs and its crops, and `shards.parquet` against the commits.

    Args:
        evidence: of the first part.
        images: of the crops.
        keys: of crops and pairs, over all files.
        progress: is told about the tars.
    """
    pairs = evidence.table("pairs", PAIR_COLUMNS)
    indexes, found = _read_indexes(evidence, keys["pairs"])
    yield from found
    tars = evidence.parts.get("tar", [])
    yield from _packed(evidence, pairs, indexes, keys["pairs"])
    yield from _shards_table(evidence, pairs, indexes)
    crop_rows = {role: keys["crops"].rows_of(hashes_of(pairs.column(role.value))) for role in Role}
    listed = pairs.column("further").combine_chunks()
    starts = np.append(0, np.cumsum(pc.list_value_length(listed).to_numpy(zero_copy_only=False))).astype(np.int64)
    further = keys["crops"].rows_of(hashes_of(pc.list_flatten(listed))), starts
    for count, tar in enumerate(tars, start=1):
        listed_in = indexes.get(tar.commit.unit)
        if listed_in is not None:
            index = listed_in.part.read()
            num_further = pc.list_value_length(index.column("further")).to_pylist()
            shelf = Shelf(pairs, listed_in.rows, crop_rows, further, num_further, images)
            yield from _look_at_shard(tar, index, shelf)
        progress("shards", count, len(tars))


@dataclass(frozen=True, slots=True)
class Index:
    """What is kept of a shard's index: its file, the row in the pairs of each sample (-1: none), and the first and last key."""

    part: Part
    rows: Ints
    ends: tuple[str, ...]


def _read_indexes(evidence: Evidence, keys: Keys) -> tuple[dict[str, Index], list[Finding]]:
    """The index of each shard, and what is wrong with those that do not read."""
    indexes, findings = {}, []
    for part in list(evidence.parts.get("index", ())):
        try:
            names = part.read().column("key")
            ends = (names[0].as_py(), names[-1].as_py()) if len(names) else ()
            indexes[part.commit.unit] = Index(part, keys.rows_of(hashes_of(names)), ends)
        except Exception as problem:  # noqa: BLE001 - a damaged file may fail in any way: that is a finding
            findings.append(evidence.give_up(part, problem))
    return indexes, findings


def _packed(evidence: Evidence, pairs: pa.Table, indexes: dict[str, Index], keys: Keys) -> Iterator[Finding]:
    """Every pair is in exactly one shard; nothing else is."""
    if "shards" not in evidence.commits:
        return
    if "pairs" not in evidence.blind:
        for index in indexes.values():
            if (index.rows < 0).any():
                samples = index.part.read(["key"]).column("key")
                yield from of_rows("packed", "index", index.rows < 0, samples, "a sample is no pair")
    rows = np.concatenate([np.zeros(0, np.int64), *(index.rows for index in indexes.values())])
    times = np.bincount(rows[rows >= 0], minlength=pairs.num_rows)
    times = times[keys.rows_of(keys.hashes)]  # a key used twice counts for both
    yield from of_rows("packed", "pairs", times > 1, pairs.column("key"), "a pair is more than once in the shards")
    if "index" not in evidence.blind:
        yield from of_rows("packed", "pairs", times == 0, pairs.column("key"), "a pair is in no shard")


def _shards_table(evidence: Evidence, pairs: pa.Table, indexes: dict[str, Index]) -> Iterator[Finding]:
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
        listed = indexes.get(name)
        if listed is not None and listed.ends:
            due["first_pair"], due["last_pair"] = listed.ends
            yield from _own_pairs(name, rows[name], listed.rows, pairs)
        wrong = [column for column, value in due.items() if rows[name][column] != value]
        if wrong:
            message = f"{', '.join(wrong)} differ from the shard's commit or index"
            yield error("shards_table", "shards", where, message, examples=(name,))


def _own_pairs(name: str, row: dict[str, Any], rows: Ints, pairs: pa.Table) -> Iterator[Finding]:
    mine = pairs.take(pa.array(rows[rows >= 0]))
    for column in ("split", "source", "domain", "weight"):
        odd = pc.not_equal(mine.column(column), row[column])
        message = f"shard {name} of {column} {row[column]} holds pairs of another"
        yield from of_rows("shard_columns", "pairs", odd, mine.column("key"), message, where=f"shards/{name}.tar")


def _look_at_shard(tar: Part, index: pa.Table, shelf: Shelf) -> Iterator[Finding]:
    where = f"shards/{tar.file.name}"
    try:
        places, order = _members(tar)
        yield from _hold_against_index(where, tar, index, places, order)
        yield from _look_at_samples(where, tar, index.column("key").to_pylist(), places, shelf)
    except ShardError as problem:
        yield error("tar", "tar", where, problem.what)
    except (OSError, ValueError) as problem:
        yield error("unreadable", "tar", where, f"the tar does not read to its end: {problem}")


def _members(tar: Part) -> tuple[Places, list[str]]:
    """Where each member lies, as a tar reader finds it, and their names in order."""
    places, order = Places(), []
    with tar.path.open("rb") as file:
        for name, offset, size in tar_members(file, tar.path):
            places[name] = offset, size
            order.append(name)
    return places, order


def _hold_against_index(where: str, tar: Part, index: pa.Table, places: Places, order: list[str]) -> Iterator[Finding]:
    keys, further = index.column("key").to_pylist(), index.column("further").to_pylist()
    listed = [
        f"{key}.{member}" for key, views in zip(keys, further, strict=True) for member in member_names(len(views))
    ]
    due = tar.file.rows * len(MEMBERS) + sum(2 * len(views) for views in further)
    if len(order) != due:
        message = f"it holds {len(order)} members, its commit and index tell {due}"
        yield error("rows", "tar", where, message)
    elif order != listed:
        first = next((i for i, pair in enumerate(zip(order, listed, strict=False)) if pair[0] != pair[1]), 0)
        message = f"member {first} is {order[first]}, where the index lists {listed[first] if listed else 'nothing'}"
        yield error("tar", "tar", where, message)
    off = np.zeros(len(keys), bool)
    for member in MEMBERS:
        column = index.column(member.replace(".", "_")).combine_chunks()
        told = zip(column.field("offset").to_pylist(), column.field("size").to_pylist(), strict=True)
        off |= np.array(
            [
                (place := places.get(f"{key}.{member}")) is not None and place != tuple(t)
                for key, t in zip(keys, told, strict=True)
            ],
            bool,
        )
    for row, views in enumerate(further):
        for number, view in enumerate(views, start=2):
            of_view = {f"{keys[row]}.view{number}.{kind}": (at["offset"], at["size"]) for kind, at in view.items()}
            off[row] |= any(name in places and places[name] != place for name, place in of_view.items())
    message = "the index has a member begin or end where the tar does not"
    yield from of_rows("offset", "index", off, index.column("key"), message, where=where)


def _look_at_samples(where: str, tar: Part, keys: list[str], places: Places, shelf: Shelf) -> Iterator[Finding]:
    """Hold the bytes of each sample against its crops and its pair."""
    bad: dict[tuple[str, str], list[str]] = defaultdict(list)
    pairs = shelf.pairs.take(pa.array(np.maximum(shelf.rows, 0))).to_pylist() if shelf.pairs.num_rows else []
    with tar.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for i, key in enumerate(keys):
            members = member_names(shelf.num_further[i])
            parts = {m: bytes(data[p[0] : sum(p)]) for m in members if (p := places.get(f"{key}.{m}")) is not None}
            pair = pairs[i] if pairs and shelf.rows[i] >= 0 else None
            crops = shelf.crops_of(int(shelf.rows[i])) if pair is not None else {}
            for role in sorted({member.split(".")[0] for member in members if member != "json"}):
                for problem in _problems_of_role(parts, role, crops.get(role, -1), shelf.images):
                    bad[problem].append(key)
            if "json" in parts and pair is not None and (odd := _odd_json(parts["json"], pair)):
                bad["sample_json", f"its JSON {odd}"].append(key)
    for (rule, message), names in sorted(bad.items()):
        yield Finding(
            rule=rule, severity=Severity.ERROR, table="index", where=where, message=message, count=len(names),
            examples=tuple(names[:NUM_EXAMPLES]),
        )  # fmt: skip


def _problems_of_role(parts: dict[str, bytes], role: str, crop: int, images: Images) -> Iterator[tuple[str, str]]:
    """Rule and message for what is wrong with one image of a sample and its silhouette."""
    known = crop >= 0 and bool(images.known[crop])
    jpeg, silhouette = parts.get(f"{role}.jpg"), parts.get(f"{role}.sil")
    if jpeg is not None:
        digest = digest_of(jpeg)
        same = known and images.jpeg[crop].tobytes() == digest
        problem = None if same else images.judge(digest, jpeg)  # the crop's own finding tells of what they share
        if problem is not None:
            yield "image", f"the {role} {problem}"
        elif known and not same:
            yield "sample_bytes", f"the {role}'s image is not its crop's"
    if silhouette is not None:
        if len(silhouette) != SILHOUETTE_BYTES:
            yield "silhouette", f"the {role}'s silhouette has not {SILHOUETTE_BYTES} bytes"
        elif known and images.silhouette[crop].tobytes() != digest_of(silhouette):
            yield "sample_bytes", f"the {role}'s silhouette is not its crop's"


def _odd_json(text: bytes, pair: dict[str, Any]) -> str | None:
    """What a sample's JSON gets wrong, or None."""
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError):
        return "does not parse"
    if not isinstance(meta, dict):
        return "is no mapping"
    due = {name: pair[name] for name in ("kind", "source", "domain", "split", "dt_s", "view_angle_rad", "covisibility")}
    wrong = [name for name, value in due.items() if meta.get(name) != value]
    views = {f"view{n}": key for n, key in enumerate(pair["further"], start=2)}
    for role, key in {**{role.value: pair[role.value] for role in Role}, **views}.items():
        side = meta.get(role)
        if not isinstance(side, dict) or side.get("key") != key:
            wrong.append(f"{role}.key")
    return f"differs from its pair in {', '.join(wrong)}" if wrong else None
