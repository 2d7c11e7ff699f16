"""Last part of the audit: shards against pairs, crops, indexes and commits, member by member.

A tar is read once: hashed, and while it is in memory its members are held against what they should be. Of the pairs only numbers
are kept, so that any number of them fits.

Legend: p pairs, f further views, s samples of a block, m members of a block.
"""

import hashlib
import json
import logging
import math
import mmap
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from manifests import table as tables
from manifests.audit.files import Evidence, Part, Progress
from manifests.audit.findings import NUM_EXAMPLES, Finding, Severity, error, of_rows, plural
from manifests.audit.images import Images
from manifests.audit.keys import Hashes, Ints, Keys, hashes_of, words_of
from manifests.errors import ManifestError, ShardError
from manifests.sample import MAX_MEMBER_BYTES, SILHOUETTE_BYTES, check_end, member_names, tar_members
from manifests.schema import MEMBERS
from manifests.types import PairKind, Role

logger = logging.getLogger(__name__)

WORDS = ("kind", "source", "domain", "split")  # that a sample's JSON tells of its pair
NUMBERS = ("dt_s", "view_angle_rad", "covisibility")
SIDES = tuple(role.value for role in Role)
TOLD = (
    "kind",
    "source",
    "domain",
    "split",
    "dt_s",
    "view_angle_rad",
    "covisibility",
)  # by a sample's JSON, of its pair
AT_ONCE = 512  # samples of a shard that are held against the rest together: some 20 MB
FIXED = len(MEMBERS) - 1  # members before those of further views; the JSON is the last
BLOCK = tarfile.BLOCKSIZE

N = TypeVar("N", bound=np.generic)
Floats = npt.NDArray[np.float64]
Places = dict[str, tuple[int, int]]  # member name to offset and size of its data


@dataclass(frozen=True, slots=True)
class Paired:
    """What shards are held against of all pairs: some 80 bytes of each, however long its names are.

    Attributes:
        words: by column: the distinct ones.
        codes: by column: (p,) which of them each pair has.
        numbers: by column: (p,) NaN where it is null.
        sides: by role: (p,) hash of the crop's key.
        further: (f,) hashes of the keys of all further views, pair after pair.
        starts: (p + 1,) where those of each pair begin.
    """

    words: dict[str, list[str]]
    codes: dict[str, npt.NDArray[np.int32]]
    numbers: dict[str, Floats]
    sides: dict[str, Hashes]
    further: Hashes
    starts: Ints

    @classmethod
    def of(cls, parts: Sequence[Part], pool: ThreadPoolExecutor) -> "Paired":
        """Read them, file by file."""
        known: dict[str, dict[str, int]] = {column: {} for column in WORDS}
        found: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
        for part, numbers in zip(parts, pool.map(cls._read, parts), strict=True):
            for column in WORDS:
                words, rows = numbers.pop(column)
                codes = [known[column].setdefault(word, len(known[column])) for word in words]
                found[column].append(np.array(codes, np.int32)[rows] if part.num_rows else np.zeros(0, np.int32))
            for name, values in numbers.items():
                found[name].append(values)
        whole = {
            name: np.concatenate([np.zeros(0, kind), *found.pop(name, [])])
            for kind, names in ((np.int32, WORDS), (np.float64, (*NUMBERS, "weight")), (np.uint64, (*SIDES, "further")), (np.int64, ("views",)))
            for name in names
        }  # fmt: skip
        return cls(
            words={column: list(words) for column, words in known.items()},
            codes={column: whole[column] for column in WORDS},
            numbers={column: whole[column] for column in (*NUMBERS, "weight")},
            sides={role: whole[role] for role in SIDES},
            further=whole["further"],
            starts=np.append(0, np.cumsum(whole["views"])),
        )

    @staticmethod
    def _read(part: Part) -> dict[str, Any]:
        data = part.read([*WORDS, *NUMBERS, "weight", *SIDES, "further"])
        listed = data.column("further").combine_chunks()
        told = {column: words_of(data.column(column)) for column in WORDS}
        return {
            **{column: (words.to_pylist(), rows) for column, (words, rows) in told.items()},
            **{column: data.column(column).to_numpy() for column in (*NUMBERS, "weight")},
            **{role: hashes_of(data.column(role)) for role in SIDES},
            "further": hashes_of(pc.list_flatten(listed)),
            "views": pc.list_value_length(listed).to_numpy(zero_copy_only=False).astype(np.int64),
        }


@dataclass(frozen=True, slots=True)
class Index:
    """What is kept of a shard's index: its file, the row in the pairs of each sample (-1: none), and the first and last key."""

    part: Part
    rows: Ints
    ends: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shelf:
    """What the samples of all shards are held against."""

    paired: Paired
    images: Images
    crops: Keys


@dataclass(frozen=True, slots=True)
class Block:
    """Some samples of a shard, as its index tells of them.

    Attributes:
        keys: (s,) of the samples.
        first: (s,) number of each sample's first member.
        views: (s,) how many further views each has.
        offset: (m,) where the data of each begins; -1: nowhere.
        size: (m,) its bytes.
    """

    keys: pa.Array
    first: Ints
    views: Ints
    offset: Ints
    size: Ints

    @property
    def names(self) -> list[str]:
        """(m,) of the members, in the order of the tar."""
        told = zip(self.keys.to_pylist(), self.views.tolist(), strict=True)
        return [f"{key}.{name}" for key, num in told for name in member_names(num)]

    @property
    def members(self) -> Iterator[tuple[str, Ints, Ints]]:
        """Every name that members have after the key, with the samples that have one of it, and its number in these."""
        sample = np.arange(len(self.first))
        for number, name in enumerate(MEMBERS[:-1]):
            yield name, sample, self.first + number
        for number in range(int(self.views.max(initial=0))):
            mine = sample[self.views > number]
            for side, kind in enumerate(("jpg", "sil")):
                yield f"view{number + 2}.{kind}", mine, self.first[mine] + FIXED + 2 * number + side
        yield MEMBERS[-1], sample, self.first + FIXED + 2 * self.views

    @classmethod
    def of(cls, index: pa.Table) -> "Block":
        """Read it from rows of an index."""
        keys, further = index.column("key").combine_chunks(), index.column("further").combine_chunks()
        views = pc.list_value_length(further).to_numpy(zero_copy_only=False).astype(np.int64)
        first = np.append(0, np.cumsum(views * 2 + len(MEMBERS)))[:-1].astype(np.int64)
        place = np.zeros((2, int((views * 2 + len(MEMBERS)).sum())), np.int64)
        at = {name: first + number for number, name in enumerate(MEMBERS[:-1])} | {"json": first + FIXED + 2 * views}
        for name, rows in at.items():
            told = index.column(name.replace(".", "_")).combine_chunks()
            place[:, rows] = [told.field(side).to_numpy() for side in ("offset", "size")]
        flat, rows = pc.list_flatten(further), _views_at(first, views)
        for number, kind in enumerate(("jpg", "sil")):
            place[:, rows + number] = [flat.field(kind).field(side).to_numpy() for side in ("offset", "size")]
        return cls(keys, first, views, *place)

    def found_in(self, places: Places) -> "Block":
        """The same samples, with their members where a walk through the tar found them."""
        found = np.array([places.get(name, (-1, 0)) for name in self.names], np.int64).reshape(-1, 2)
        return Block(self.keys, self.first, self.views, found[:, 0], found[:, 1])


def _views_at(first: Ints, views: Ints) -> Ints:
    """(f,) number of the first member of every further view."""
    before = np.cumsum(views) - views
    return np.repeat(first + FIXED - 2 * before, views) + 2 * np.arange(int(views.sum()))


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
    blocks = partial(_blocks, listed)
    places = None
    if not _is_as_listed(tar, data, listed.num_rows, blocks()):  # then a walk tells what is there instead
        places, order = _members(tar)
        yield from _hold_against_index(where, tar, listed, places, order)
    bad: dict[tuple[str, str], list[str]] = defaultdict(list)
    for first, block in blocks():
        rows = pairs[first : first + len(block.keys)]
        _look_at_samples(data, block if places is None else block.found_in(places), rows, shelf, bad)
    for (rule, message), names in sorted(bad.items()):
        yield Finding(
            rule=rule, severity=Severity.ERROR, table="index", where=where, message=message, count=len(names),
            examples=tuple(names[:NUM_EXAMPLES]),
        )  # fmt: skip


def _blocks(index: pa.Table) -> Iterator[tuple[int, Block]]:
    """The samples of a shard, some at a time, each with the number of its first."""
    for first in range(0, index.num_rows, AT_ONCE):
        yield first, Block.of(index.slice(first, AT_ONCE))


def _is_as_listed(tar: Part, data: memoryview, num_rows: int, blocks: Iterator[tuple[int, Block]]) -> bool:
    """Whether a tar is, header by header, what this version writes for its index: one pass over columns, and no more to prove."""
    if num_rows != tar.file.rows:
        return False
    end, whole = 0, np.frombuffer(data[: len(data) // BLOCK * BLOCK], np.uint64).reshape(-1, BLOCK // 8)
    for _, block in blocks:
        if not (block.size >= 0).all() or block.size.max() > MAX_MEMBER_BYTES:
            return False
        after = block.offset + -(-block.size // BLOCK) * BLOCK + BLOCK
        if block.offset[0] != end + BLOCK or (block.offset[1:] != after[:-1]).any() or after[-1] - BLOCK > len(data):
            return False
        end = int(after[-1]) - BLOCK
        due = _headers(block)
        if due is None or (whole[block.offset // BLOCK - 1] != due.view(np.uint64)).any():
            return False
    check_end(tar.path, end)
    return True


def _template() -> npt.NDArray[np.uint8]:
    info = tarfile.TarInfo()
    info.mode = 0o444
    return np.frombuffer(info.tobuf(tarfile.USTAR_FORMAT), np.uint8)


_TEMPLATE = _template()
_NAME, _SIZE, _SUM, _PREFIX = slice(0, 100), slice(124, 135), slice(148, 154), slice(345, 500)
_REST = int(_TEMPLATE.sum()) - int(_TEMPLATE[_SIZE].sum()) - int(_TEMPLATE[148:155].sum()) + 7 * ord(" ")


def _headers(block: Block) -> npt.NDArray[np.uint8] | None:
    """(m, BLOCK) the headers that `manifests.sample` writes for members; None for names that it does not write."""
    length = pc.binary_length(block.keys).to_numpy().astype(np.int64)
    longest = max(map(len, member_names(int(block.views.max(initial=0))))) + 1
    if not pc.all(pc.string_is_ascii(block.keys)).as_py() or not length.all():
        return None
    due = np.tile(_TEMPLATE, (len(block.size), 1))
    sums = np.full(len(due), _REST)
    if length.max(initial=0) + longest > _NAME.stop:
        if not _split_names(due, block.names):
            return None
        sums += sum(due[:, place].sum(axis=1, dtype=np.int64) for place in (_NAME, _PREFIX))
    else:
        keys = np.zeros((len(length), _NAME.stop), np.uint8)
        text = np.frombuffer(b"".join(block.keys.cast(pa.binary()).to_pylist()), np.uint8)
        keys[np.arange(_NAME.stop) < length[:, None]] = text
        of_keys = keys.sum(axis=1, dtype=np.int64)
        for name, sample, number in block.members:
            tail = np.frombuffer(f".{name}".encode(), np.uint8)
            due[number, _NAME] = keys[sample]
            due[number[:, None], length[sample][:, None] + np.arange(len(tail))] = tail
            sums[number] += of_keys[sample] + int(tail.sum())
    sizes = _octal(block.size, 11)
    due[:, _SIZE] = sizes
    due[:, _SUM] = _octal(sums + sizes.sum(axis=1), 6)
    return due


def _split_names(due: npt.NDArray[np.uint8], names: list[str]) -> bool:
    """Write long names into headers: what is longer than the place for it is cut at the first slash that leaves little enough."""
    cuts = [name.find("/", len(name) - 101) if len(name) > 100 else -1 for name in names]
    parts = [(name[: max(cut, 0)], name[cut + 1 :]) for name, cut in zip(names, cuts, strict=True)]
    if any(len(first) > 155 or not 0 < len(last) <= 100 for first, last in parts):
        return False
    for place, width, words in (
        (_NAME, "S100", [last for _, last in parts]),
        (_PREFIX, "S155", [first for first, _ in parts]),
    ):
        due[:, place] = np.array(words, width).view(np.uint8).reshape(len(names), -1)
    return True


def _octal(values: npt.NDArray[Any], digits: int) -> npt.NDArray[np.uint8]:
    return ((values.astype(np.int64)[:, None] >> (3 * np.arange(digits - 1, -1, -1))) % 8 + ord("0")).astype(np.uint8)


def _members(tar: Part) -> tuple[Places, list[str]]:
    """Where each member lies, as a tar reader finds it, and their names in order."""
    places, order = Places(), []
    with tar.path.open("rb") as file:
        for name, offset, size in tar_members(file, tar.path):
            places[name] = offset, size
            order.append(name)
    return places, order


def _hold_against_index(where: str, tar: Part, index: pa.Table, places: Places, order: list[str]) -> Iterator[Finding]:
    blocks = [block for _, block in _blocks(index)]
    listed = [name for block in blocks for name in block.names]
    due = tar.file.rows * len(MEMBERS) + 2 * sum(int(block.views.sum()) for block in blocks)
    if len(order) != due:
        message = f"it holds {len(order)} members, its commit and index tell {due}"
        yield error("rows", "tar", where, message)
    elif order != listed:
        first = next((i for i, pair in enumerate(zip(order, listed, strict=False)) if pair[0] != pair[1]), 0)
        message = f"member {first} is {order[first]}, where the index lists {listed[first] if listed else 'nothing'}"
        yield error("tar", "tar", where, message)
    off = []
    for block in blocks:
        found = block.found_in(places)
        wrong = (found.offset >= 0) & ((found.offset != block.offset) | (found.size != block.size))
        off.append(np.add.reduceat(wrong, block.first) > 0)
    message = "the index has a member begin or end where the tar does not"
    if off:
        yield from of_rows("offset", "index", np.concatenate(off), index.column("key"), message, where=where)


# --- its samples ---


def _look_at_samples(
    data: memoryview, block: Block, rows: Ints, shelf: Shelf, bad: dict[tuple[str, str], list[str]]
) -> None:
    """Hold the bytes of samples against their crops and their pairs.

    Args:
        data: the tar.
        block: of its samples.
        rows: (s,) row of the pair of each, -1 where it is none.
        shelf: what they are held against.
        bad: gets the keys of samples, by rule and message.
    """
    paired = shelf.paired
    sample, number = np.arange(len(rows)), np.zeros(0, np.int64)
    places = [(role, sample, block.first + side, block.first + side + 2) for side, role in enumerate(SIDES)]
    hashes = [_at(paired.sides[role], rows) for role in SIDES]
    if block.views.any():
        parent, at = np.repeat(sample, block.views), _views_at(block.first, block.views)
        number = np.arange(len(parent)) - np.repeat(np.cumsum(block.views) - block.views, block.views)
        place = _at(paired.starts, rows[parent]) + number
        hashes.append(_at(paired.further, np.where(place < _at(paired.starts[1:], rows[parent]), place, -1)))
        places.append(("view", parent, at, at + 1))
    for (role, of, jpeg, silhouette), its in zip(places, hashes, strict=True):
        crop = np.where(rows[of] >= 0, shelf.crops.rows_of(its), -1)
        crop = np.where(_at(shelf.images.known, crop), crop, -1)
        _look_at_images(data, block, (role, of, number), (jpeg, silhouette), crop, shelf.images, bad)
    mine = np.flatnonzero((rows >= 0) & (block.offset[block.first + FIXED + 2 * block.views] >= 0))
    _look_at_json(data, block, mine, rows, paired, bad)


def _at(values: npt.NDArray[N], rows: Ints) -> npt.NDArray[N]:
    """The values of rows; 0 for a row of -1."""
    found = np.zeros(len(rows), values.dtype)
    found[rows >= 0] = values[rows[rows >= 0]]
    return found


def _look_at_images(
    data: memoryview,
    block: Block,
    names: tuple[str, Ints, Ints],
    members: tuple[Ints, Ints],
    crop: Ints,
    images: Images,
    bad: dict[tuple[str, str], list[str]],
) -> None:
    """Hold images and silhouettes of one role against their crops, -1 where it is not known."""
    role, sample, number = names
    for what, at, digests in zip(("image", "silhouette"), members, (images.jpeg, images.silhouette), strict=True):
        offset, size = block.offset[at], block.size[at]
        found = [hash(data[a:b]) for a, b in zip(offset.tolist(), (offset + size).tolist(), strict=True)]
        same = (crop >= 0) & (_at(digests, crop) == np.array(found, np.int64))
        size_due = size == SILHOUETTE_BYTES if what == "silhouette" else True
        for i in np.flatnonzero((offset >= 0) & ~(same & size_due)).tolist():
            its = f"the view{number[i] + 2}" if role == "view" else f"the {role}"
            if what == "silhouette" and size[i] != SILHOUETTE_BYTES:
                problem = "silhouette", f"{its}'s silhouette has not {SILHOUETTE_BYTES} bytes"
            elif what == "image" and (wrong := images.judge(bytes(data[offset[i] : offset[i] + size[i]]))) is not None:
                problem = "image", f"{its} {wrong}"
            elif crop[i] >= 0:
                problem = "sample_bytes", f"{its}'s {what} is not its crop's"
            else:
                continue
            bad[problem].append(block.keys[int(sample[i])].as_py())


# What is asked of a sample's JSON, as columns.
_SIDE = pa.struct([("key", pa.string())])
_ASKED = [
    *((name, pa.string()) for name in WORDS),
    *((name, pa.float64()) for name in NUMBERS),
    *((role, _SIDE) for role in SIDES),
]
MOST_OPEN = (
    500  # brackets of a document that Arrow's reader is trusted with: Python's gives up where some thousand are nested
)
MOST_DIGITS = re.compile(rb"[0-9]{4300}")  # and where an integer is longer
MOST_BYTES = 64 << 20  # of a block's documents


def _look_at_json(
    data: memoryview, block: Block, mine: Ints, rows: Ints, paired: Paired, bad: dict[tuple[str, str], list[str]]
) -> None:
    """Hold the JSON of samples against their pairs: all at once, and one by one where one of them is not as it should be.

    Args:
        data: the tar.
        block: of its samples.
        mine: numbers in the block of those that have a JSON and a pair.
        rows: (s,) row of the pair of each sample.
        paired: the pairs.
        bad: gets the keys of samples, by rule and message.
    """
    at = block.first[mine] + FIXED + 2 * block.views[mine]
    ends = zip(block.offset[at].tolist(), (block.offset[at] + block.size[at]).tolist(), strict=True)
    documents = [bytes(data[first:last]) for first, last in ends]
    if documents and not _agree(documents, rows[mine], paired):
        _look_at_each(documents, block.keys.take(pa.array(mine)).to_pylist(), rows[mine], paired, bad)


def _agree(documents: list[bytes], pair: Ints, paired: Paired) -> bool:
    """Whether all documents say what their pairs do. False where they may not, or where another reader might not read them."""
    whole = b"\n".join(documents)
    if (
        not whole.isascii()
        or len(whole) > MOST_BYTES
        or (max(map(len, documents)) > 4300 and MOST_DIGITS.search(whole))
    ):
        return False
    # Each begins and ends as an object, so that as many rows as documents are one of each.
    if any(one[:1] != b"{" or one[-1:] != b"}" or one.count(b"[") + one.count(b"{") > MOST_OPEN for one in documents):
        return False
    views = np.diff(paired.starts)[pair]
    asked = [*_ASKED, *((f"view{n + 2}", _SIDE) for n in range(int(views.max())))]
    try:
        told = pa_json.read_json(
            pa.BufferReader(whole),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(whole) + 1),
            parse_options=pa_json.ParseOptions(explicit_schema=pa.schema(asked), unexpected_field_behavior="ignore"),
        ).combine_chunks()
    except pa.ArrowException:
        return False
    if told.num_rows != len(documents):
        return False
    for name in WORDS:
        words = pa.array(paired.words[name], pa.string()).take(pa.array(paired.codes[name][pair]))
        if not pc.all(pc.equal(told.column(name), words).fill_null(False)).as_py():
            return False
    for name in NUMBERS:
        due = paired.numbers[name][pair]
        known = ~np.isnan(due)
        if (told.column(name).is_valid().to_numpy() != known).any() or (told.column(name).to_numpy() != due)[
            known
        ].any():
            return False
    sides = [(role, np.arange(len(pair)), paired.sides[role][pair]) for role in SIDES]
    for number in range(int(views.max())):
        those = np.flatnonzero(views > number)
        sides.append((f"view{number + 2}", those, paired.further[paired.starts[pair[those]] + number]))
    for role, those, hashes in sides:
        keys = pc.struct_field(told.column(role).combine_chunks(), "key").take(pa.array(those))
        if not pc.all(pc.string_is_ascii(keys.fill_null(""))).as_py() or (hashes_of(keys) != hashes).any():
            return False
    return True


# Of a sample's JSON only few numbers are asked for: the others stay text, as bytes, which no JSON value is.
_decode = json.JSONDecoder(parse_float=str.encode).decode


def _look_at_each(
    documents: list[bytes], keys: list[str], pair: Ints, paired: Paired, bad: dict[tuple[str, str], list[str]]
) -> None:
    """Say what of each document is not as its pair has it.

    Args:
        documents: (n,) JSON of samples.
        keys: (n,) of the samples.
        pair: (n,) row of the pair of each.
        paired: the pairs.
        bad: gets the keys of samples, by rule and message.
    """
    words = zip(
        *([paired.words[name][code] for code in paired.codes[name][pair].tolist()] for name in WORDS), strict=True
    )
    numbers = zip(*(paired.numbers[name][pair].tolist() for name in NUMBERS), strict=True)
    due = list(zip(words, numbers, strict=True))
    wrong: list[list[str]] = []
    sides: list[str] = []  # keys that they tell
    hashes: list[int] = []  # and those due
    of: list[tuple[int, str]] = []  # whose they are
    starts, further = paired.starts, paired.further
    targets, references = (paired.sides[role][pair].tolist() for role in SIDES)
    for i, document in enumerate(documents):
        wrong.append([])
        try:
            meta = _decode(document.decode())
        except (ValueError, RecursionError):
            bad["sample_json", "its JSON does not parse"].append(keys[i])
            continue
        if not isinstance(meta, dict):
            bad["sample_json", "its JSON is no mapping"].append(keys[i])
            continue
        if tuple(map(meta.get, WORDS)) != due[i][0]:
            wrong[i] += [name for name, value in zip(WORDS, due[i][0], strict=True) if meta.get(name) != value]
        for name, number in zip(NUMBERS, due[i][1], strict=True):
            value = meta.get(name)
            value = float(value) if type(value) is bytes else value
            if value != number and not (value is None and math.isnan(number)):
                wrong[i].append(name)
        named = [(SIDES[0], targets[i]), (SIDES[1], references[i])]
        views = further[starts[pair[i]] : starts[pair[i] + 1]].tolist()
        for role, hashed in (*named, *((f"view{n}", one) for n, one in enumerate(views, start=2))):
            side = meta.get(role)
            key = side.get("key") if isinstance(side, dict) else None
            sides.append(key if isinstance(key, str) and key.isascii() else "")
            hashes.append(hashed)
            of.append((i, role))
    differs = hashes_of(pa.array(sides, pa.string())) != np.array(hashes, np.uint64)
    for place in np.flatnonzero(differs).tolist():
        i, role = of[place]
        wrong[i].append(f"{role}.key")
    for i, names in enumerate(wrong):
        if names:
            bad["sample_json", f"its JSON differs from its pair in {', '.join(names)}"].append(keys[i])
