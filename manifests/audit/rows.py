"""Second part of the audit: rules about rows, some units at a time, so that a build of any size is held in little memory.

A unit's crops name its own frames, and its pairs name its own crops; what names rows elsewhere is kept, and looked up when all
units were seen. What rules about the whole build need of each row is kept as numbers (see `manifests.audit.keys`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import table as tables
from manifests.audit.copies import look_at_copies
from manifests.audit.counts import look_at_counts
from manifests.audit.files import HEAVY, Evidence, Part, Progress, encoded
from manifests.audit.findings import NUM_EXAMPLES, Finding, Severity, merge, of_rows, plural
from manifests.audit.keys import Hashes, Ints, Keys, hashes_of, rows_of, words_of
from manifests.audit.stats import Place, Tally, count_by
from manifests.audit.tables import (
    Asked,
    Sides,
    look_at_crops,
    look_at_further,
    look_at_pairs,
    look_at_table,
    look_at_values,
    look_at_weights,
)
from manifests.splits import leaks
from manifests.surface import SURFACE_CELLS, covisibility
from manifests.table import has_flag
from manifests.types import EVALUATION, HELD_BACK, OFFICIAL_SPLIT, Split

N = TypeVar("N", bound=np.generic)
Values = npt.NDArray[N]
TABLES = ("frames", "crops", "pairs")
# By stage: the table whose rows it reads, and how many parts of their keys a reject shares with one: the picture, or the sequence.
REJECTED_OF = {"crops": ("frames", 5), "pairs": ("crops", 3)}
ROWS_AT_ONCE = 100_000  # of small units together: a rule takes as long for a few rows as for some thousands
PEOPLE = ["source", "split", "group", "subject", "sequence"]
AT_ONCE = 4096  # pairs whose surfaces are in memory together, of 4 kB each


@dataclass(slots=True)
class Seen:
    """What a batch of units leaves behind.

    Attributes:
        findings: of the rules that need no other units.
        parts: those of their files that read, by table.
        failed: those that do not, with why.
        hashes: of the keys, by table.
        phash: of the crops.
        split: number of each crop's split.
        frame_split: that of each frame's.
        media: of the frames: source and path in one hash.
        people: the distinct people and recordings of frames and crops.
        official: sources whose frames carry the dataset's own split.
        lost: rows that name rows of other units, see `_Lost`.
        held_back: frames of an evaluation set, by stage and unit.
        tally: their numbers.
    """

    findings: list[Finding]
    parts: dict[str, list[Part]]
    failed: list[tuple[Part, Exception]]
    hashes: dict[str, Hashes]
    phash: Hashes
    split: npt.NDArray[np.int8]
    media: Hashes
    frame_split: npt.NDArray[np.int8]
    people: set[Place]
    official: set[str]
    lost: list["_Lost"]
    held_back: dict[tuple[str, str], int]
    tally: Tally


@dataclass(frozen=True, slots=True)
class _Lost:
    """Rows of a table that name rows which are in no unit of the batch."""

    table: str
    columns: tuple[str, ...]  # those that name rows
    data: pa.Table


@dataclass(slots=True)
class Rows:
    """What the rows leave for the other parts.

    Attributes:
        findings: of all rules about rows.
        tally: the build in numbers.
        keys: of frames, crops and pairs.
        split: number of each crop's split.
    """

    findings: list[Finding]
    tally: Tally
    keys: dict[str, Keys] = field(default_factory=dict)
    split: npt.NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))


def look_at_rows(evidence: Evidence, pool: ThreadPoolExecutor, progress: Progress) -> Rows:
    """Apply every rule about rows of frames, crops, pairs and rejects."""
    asked = Asked.of(evidence.plans.get("pairs"))
    findings, tally, seen, count = list[Finding](), Tally(), list[Seen](), 0
    batches = list(_batches(evidence))
    total = sum(num_units for num_units, _ in batches)
    for (num_units, _), found in zip(
        batches, pool.map(lambda one: _look_at_batch(one[1], asked), batches), strict=True
    ):
        findings += found.findings
        findings += [evidence.give_up(part, problem) for part, problem in found.failed]
        tally.add(found.tally)
        seen.append(found)
        count += num_units
        progress("rows", count, total)
    left_out = dict[tuple[str, str], dict[str, int]]()
    findings += _look_at_rejects(evidence, pool, tally, left_out)
    findings += look_at_counts(evidence.commits, _counted(evidence, seen), left_out)
    keys = {table: _keys(evidence, seen, table) for table in TABLES}
    split = _in_order(evidence, "crops", seen, lambda one: one.split)
    media = _in_order(evidence, "frames", seen, lambda one: one.media)
    frame_split = _in_order(evidence, "frames", seen, lambda one: one.frame_split)
    looks = (
        *(_unique(table, keys[table]) for table in TABLES),
        _look_up_lost(evidence, keys, [lost for one in seen for lost in one.lost], asked),
        _leaks(seen),
        look_at_copies(keys["crops"], _in_order(evidence, "crops", seen, lambda one: one.phash), split),
        _torn_media(keys["frames"], media, frame_split),
    )
    for told in pool.map(list[Finding], looks):  # each in a thread of its own
        findings += told
    return Rows(merge(findings), tally, keys, split)


# --- a batch of units ---


def _batches(evidence: Evidence) -> Iterator[tuple[int, dict[str, list[Part]]]]:
    """Number of units, and their files by table: units in order of their names, as many as make `ROWS_AT_ONCE`."""
    units: dict[str, dict[str, list[Part]]] = {}
    for table in TABLES:
        for part in evidence.parts.get(table, []):
            units.setdefault(part.commit.unit, {}).setdefault(table, []).append(part)
    batch: dict[str, list[Part]] = {}
    num_units = num_rows = 0
    for _, parts in sorted(units.items()):
        for table, found in parts.items():
            batch.setdefault(table, []).extend(found)
            num_rows += sum(part.num_rows for part in found)
        num_units += 1
        if num_rows > ROWS_AT_ONCE:
            yield num_units, batch
            batch, num_units, num_rows = {}, 0, 0
    if num_units:
        yield num_units, batch


def _look_at_batch(parts: dict[str, list[Part]], asked: Asked) -> Seen:
    """Apply the rules about the rows of some units; runs in a thread."""
    data, read, failed = {}, dict[str, list[Part]](), []
    for table in TABLES:
        found = []
        for part in parts.get(table, []):
            try:
                found.append(part.read())
                read.setdefault(table, []).append(part)
            except Exception as problem:  # noqa: BLE001 - a damaged file may fail in any way: that is a finding
                failed.append((part, problem))
        blank = encoded(tables.empty(table).drop_columns(list(HEAVY.get(table, ()))))
        data[table] = (
            found[0] if len(found) == 1 else pa.concat_tables([blank, *found]).unify_dictionaries().combine_chunks()
        )
    frames, crops, pairs = (data[table] for table in TABLES)
    findings = [finding for table in TABLES for finding in look_at_table(table, data[table])]
    lost: list[_Lost] = []
    frame = rows_of(crops.column("frame_key"), frames.column("key"))
    findings += look_at_crops(crops, frames, frame)
    if (frame < 0).any():
        lost.append(_Lost("crops", ("frame_key",), crops.filter(pa.array(frame < 0))))
    sides = pa.chunked_array([*pairs.column("target").chunks, *pairs.column("reference").chunks], pa.string())
    target, reference = np.split(rows_of(sides, crops.column("key")), 2)
    home = (target >= 0) & (reference >= 0)
    if not home.all():
        lost.append(_Lost("pairs", ("target", "reference"), pairs.filter(pa.array(~home))))
        at_home, target, reference = pairs.filter(pa.array(home)), target[home], reference[home]
    else:
        at_home = pairs
    shown = Sides(crops)
    findings += look_at_pairs(at_home, shown, target, reference, asked)
    findings += look_at_weights(pairs, asked)
    findings += _covisible(read.get("crops", []), at_home, target, reference)
    parent, further = _flat(pairs.column("further"))
    if len(further):
        row = rows_of(further, crops.column("key"))
        findings += look_at_further(pairs, shown, parent[row >= 0], row[row >= 0])
        gone = np.isin(np.arange(pairs.num_rows), parent[row < 0])
        if gone.any():
            lost.append(_Lost("pairs", ("further",), pairs.filter(pa.array(gone))))
    hashes = {table: hashes_of(data[table].column("key")) for table in TABLES}
    return Seen(
        findings=findings,
        parts=read,
        failed=failed,
        hashes=hashes,
        phash=crops.column("phash").to_numpy(),
        split=_split_numbers(crops),
        media=hashes_of(pc.binary_join_element_wise(frames.column("source").cast(pa.string()), frames.column("media"), "/")),
        frame_split=_split_numbers(frames),
        people={*count_by(frames, PEOPLE), *count_by(crops, PEOPLE)},
        official={source for (source,) in count_by(_flagged(frames, OFFICIAL_SPLIT), ["source"])},
        lost=lost,
        held_back=_held_back(read.get("frames", []), frames),
        tally=Tally.of(frames, crops, pairs, hashes["pairs"], target=target, at_home=at_home, asked=asked),
    )  # fmt: skip


def _split_numbers(data: pa.Table) -> npt.NDArray[np.int8]:
    """Place of each row's split in `Split`; -1 for one that is not known."""
    words, rows = words_of(data.column("split"))
    known = [split.value for split in Split]
    numbers = np.array([known.index(word) if word in known else -1 for word in words.to_pylist()], np.int8)
    return numbers[rows] if len(words) else np.zeros(len(rows), np.int8)


def _held_back(parts: list[Part], frames: pa.Table) -> dict[tuple[str, str], int]:
    """How many frames of an evaluation set each file holds, where it holds some."""
    flagged, first, found = has_flag(frames.column("flags"), EVALUATION), 0, {}
    for part in parts:
        found[part.stage, part.commit.unit] = int(flagged[first : first + part.num_rows].sum())
        first += part.num_rows
    return {place: count for place, count in found.items() if count}


def _flagged(data: pa.Table, flag: str) -> pa.Table:
    return data.filter(pa.array(has_flag(data.column("flags"), flag)))


def _flat(lists: pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """The row of each item of a list column, and the items."""
    whole = lists.combine_chunks()
    return pc.list_parent_indices(whole).to_numpy(zero_copy_only=False).astype(np.int64), pc.list_flatten(whole)


def _covisible(parts: list[Part], pairs: pa.Table, target: Ints, reference: Ints) -> Iterator[Finding]:
    """Compute anew what pairs of rendered people tell of the surface that both pictures show."""
    told = pairs.column("covisibility").to_numpy()
    rows = np.flatnonzero(~np.isnan(told))
    if not len(rows):
        return
    surface = pa.concat_tables([part.read(["surface"]) for part in parts]).column("surface").combine_chunks()
    size = pc.binary_length(surface).fill_null(0).to_numpy()
    whole = size == SURFACE_CELLS
    wrong = np.zeros(pairs.num_rows, bool)
    proven = whole[target[rows]] & whole[reference[rows]]
    wrong[rows[~proven]] = True
    known = rows[proven]
    for some in np.array_split(known, 1 + len(known) // AT_ONCE):
        cells = [
            np.frombuffer(b"".join(surface.take(pa.array(side[some])).to_pylist()), np.uint8).reshape(-1, SURFACE_CELLS)
            for side in (target, reference)
        ]
        wrong[some] = ~(np.abs(covisibility(*cells) - told[some]) < 1e-6)
    message = "covisibility is not the share of the target's visible surface that the reference shows too"
    yield from of_rows("covisibility", "pairs", wrong, pairs.column("key"), message, where="covisibility")


# --- all units together ---


def _keys(evidence: Evidence, seen: Sequence[Seen], table: str) -> Keys:
    hashes = _in_order(evidence, table, seen, lambda one: one.hashes[table])
    return Keys(tuple(evidence.parts.get(table, ())), hashes)


def _in_order(evidence: Evidence, table: str, seen: Sequence[Seen], of_unit: Callable[[Seen], Values[N]]) -> Values[N]:
    """Put what units keep of each row into the order of the table's files."""
    of_part = {}
    for one in seen:
        values, first = of_unit(one), 0
        for part in one.parts.get(table, ()):
            of_part[part.where] = values[first : first + part.num_rows]
            first += part.num_rows
    parts = evidence.parts.get(table, ())
    return np.concatenate([of_part[part.where] for part in parts]) if parts else np.zeros(0, np.uint64)


def _unique(table: str, keys: Keys) -> Iterator[Finding]:
    rows = keys.repeated()
    if not len(rows):
        return
    names, counts = np.unique(np.array(keys.names(rows), object), return_counts=True)
    twice = names[counts > 1]
    if len(twice):
        yield Finding(
            rule="unique", severity=Severity.ERROR, table=table, where=table,
            message=f"{plural(len(twice), 'key')} used more than once", count=int((counts[counts > 1] - 1).sum()),
            examples=tuple(twice[:NUM_EXAMPLES]),
        )  # fmt: skip


def _look_up_lost(evidence: Evidence, keys: dict[str, Keys], lost: list[_Lost], asked: Asked) -> Iterator[Finding]:
    """Find the rows of other units that rows name, and hold them against those."""
    for one in lost:
        among = "frames" if one.table == "crops" else "crops"
        found = {}
        for column in one.columns:
            names = one.data.column(column)
            parent, names = _flat(names) if column == "further" else (np.arange(len(names)), names)
            rows = found[column] = keys[among].rows_of(hashes_of(names))
            if among not in evidence.blind:
                gone = np.zeros(one.data.num_rows, bool)
                gone[parent[rows < 0]] = True
                what = f"{column} is no frame" if among == "frames" else f"the {column} is no crop"
                what = "a further view is no crop" if column == "further" else what
                yield from of_rows("reference", one.table, gone, one.data.column("key"), what, where=column)
        if one.columns == ("further",):
            there = found["further"] >= 0
            sides = keys["crops"].fetch(found["further"][there])
            yield from look_at_further(one.data, Sides(sides), parent[there], np.arange(sides.num_rows))
            continue
        there = np.all([rows >= 0 for rows in found.values()], axis=0)
        data = one.data.filter(pa.array(there))
        if not data.num_rows:
            continue
        rows = np.concatenate([found[column][there] for column in one.columns])
        others, place = keys[among].fetch(rows), np.arange(len(rows))
        if one.table == "crops":
            yield from look_at_crops(data, others, place)
        else:
            yield from look_at_pairs(data, Sides(others), place[: data.num_rows], place[data.num_rows :], asked)


def _leaks(seen: Sequence[Seen]) -> Iterator[Finding]:
    """Groups, subjects and sequences on two sides, within a source: another source may use the same names."""
    if not any(one.people for one in seen):
        return
    official = {source for one in seen for source in one.official}
    found = sorted({place for one in seen for place in one.people}, key=repr)
    people = pa.table([pa.array(values, pa.string()) for values in zip(*found, strict=True)], names=PEOPLE)
    for column in ("group", "subject", "sequence"):
        names = pc.binary_join_element_wise(people.column("source"), people.column(column), "/")
        torn = leaks(names, people.column("split"))
        if not torn:
            continue
        severity, message = Severity.ERROR, f"one {column} is in more than one split"
        if column == "sequence" and not _share_group(people, names, torn):
            # Datasets reuse names across their splits; if the groups are others, these are other recordings.
            severity, message = Severity.WARNING, "a sequence name is used in more than one split, by different groups"
        if column == "subject" and {name.split("/")[0] for name in torn} <= official:
            severity, message = Severity.WARNING, "the dataset's own split shows one subject on both sides"
        yield Finding(
            rule="leak", severity=severity, table="", where=column, message=message, count=len(torn),
            examples=tuple(torn[:NUM_EXAMPLES]),
        )  # fmt: skip


def _torn_media(keys: Keys, media: Hashes, split: npt.NDArray[np.int8]) -> Iterator[Finding]:
    """Files (images or videos) whose frames are on two sides: one recording, whatever its frames call it."""
    order = np.argsort(media, kind="stable")
    torn = (media[order][1:] == media[order][:-1]) & (split[order][1:] != split[order][:-1])
    rows = order[1:][torn]
    if len(rows):
        rows = rows[np.unique(media[rows], return_index=True)[1]]
        yield Finding(
            rule="leak", severity=Severity.ERROR, table="frames", where="media", count=len(rows),
            message="one file is in more than one split", examples=tuple(keys.names(np.sort(rows)[:NUM_EXAMPLES])),
        )  # fmt: skip


def _counted(evidence: Evidence, seen: Sequence[Seen]) -> dict[tuple[str, str], dict[str, int]]:
    """What the files of each unit hold: rows by table, and frames of an evaluation set."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for table, parts in evidence.parts.items():
        for part in parts:
            found.setdefault((part.stage, part.commit.unit), {})[table] = part.num_rows
    for one in seen:
        for place, count in one.held_back.items():
            found[place][HELD_BACK] = count
    return found


def _look_at_rejects(
    evidence: Evidence, pool: ThreadPoolExecutor, tally: Tally, left_out: dict[tuple[str, str], dict[str, int]]
) -> Iterator[Finding]:
    """Hold what units left out against the known words and what they read, and count it; `left_out` gets the numbers by reason."""
    parts = list(evidence.parts.get("rejects", ()))
    inputs = {(table, part.commit.unit): part for table in TABLES for part in evidence.parts.get(table, ())}
    for part, seen in zip(parts, pool.map(lambda part: _read_rejects(part, inputs), parts), strict=True):
        if isinstance(seen, Exception):
            yield evidence.give_up(part, seen)
            continue
        rejects, findings = seen
        tally.add_rejects(rejects)
        reasons = rejects.column("reason").dictionary_encode()
        by_reason = count_by(pa.table({"reason": reasons, "count": rejects.column("count")}), ["reason"], of="count")
        left_out[part.stage, part.commit.unit] = {reason: count for (reason,), count in by_reason.items()}
        yield from findings


def _read_rejects(part: Part, inputs: Mapping[tuple[str, str], Part]) -> tuple[pa.Table, list[Finding]] | Exception:
    """Rejects of a unit and what is wrong with them, or why they do not read; runs in a thread."""
    try:
        rejects = part.read()
    except Exception as problem:  # noqa: BLE001 - a damaged file may fail in any way: that is a finding
        return problem
    findings = list(look_at_values("rejects", rejects))
    table, num_parts = REJECTED_OF.get(part.stage, ("", 1))
    if (read := inputs.get((table, part.commit.unit))) is not None:
        beginning = rf"^((?:[^/]*/){{{num_parts - 1}}}[^/]*)/.*$"
        left, rows = (
            pc.replace_substring_regex(names, beginning, r"\1")
            for names in (rejects.column("key"), read.read(["key"]).column("key"))
        )
        odd = pc.invert(pc.is_in(left, value_set=rows.unique()))
        message = f"what {part.stage} left out is in none of its {table}"
        findings += of_rows("reference", "rejects", odd, rejects.column("key"), message, where=part.where)
    return rejects, findings


def _share_group(people: pa.Table, names: pa.ChunkedArray, torn: list[str]) -> bool:
    """Whether a torn sequence has one group, or an unknown one, on two sides."""
    rows = people.filter(pc.is_in(names, value_set=pa.array(torn)))
    groups = pc.binary_join_element_wise(rows.column("source"), rows.column("sequence"), rows.column("group"), "/")
    return bool(leaks(groups, rows.column("split")))
