"""Second part of the audit: rules about rows, by columns alone."""

from collections.abc import Iterator, Mapping
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.audit_files import Evidence
from manifests.findings import NUM_EXAMPLES, Finding, Severity, of_rows, plural
from manifests.splits import leaks
from manifests.table import KEY_COLUMNS, has_flag
from manifests.types import EVALUATION, OFFICIAL_SPLIT, BoxFrom, Domain, PairKind, Reason, SilhouetteFrom, Split

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

WORDS: dict[str, type[StrEnum]] = {
    "domain": Domain,
    "split": Split,
    "kind": PairKind,
    "reason": Reason,
    "box_from": BoxFrom,
    "silhouette_from": SilhouetteFrom,
}
RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "frames": {"instant": (0, np.inf), "media_index": (0, np.inf), "width": (1, np.inf), "height": (1, np.inf)},
    "crops": {"instant": (0, np.inf), "size_px": (1, 4096), "coverage": (0, 1), "mean": (0, 255)},
    "pairs": {"view_angle_rad": (0, np.pi + 1e-9), "weight": (1e-12, np.inf), "dt_s": (-1e9, 1e9)},
}
CLOCK_S = 1e-6  # times are written as float64 seconds: a difference beyond this is no rounding


def look_at_rows(evidence: Evidence) -> Iterator[Finding]:
    """Apply every rule about rows of frames, crops and pairs."""
    frames, crops, pairs = (evidence.table(name) for name in ("frames", "crops", "pairs"))
    for name, data in (("frames", frames), ("crops", crops), ("pairs", pairs)):
        yield from _unique(name, data)
        yield from _values(name, data)
    yield from _values("rejects", evidence.table("rejects"))
    for name, data in (("frames", frames), ("crops", crops)):
        yield from _spelled_keys(name, data)
    yield from _frames_of_crops(evidence, frames, crops)
    yield from _crops_of_pairs(evidence, crops, pairs)
    yield from _leaks(frames, crops)


def rows_of(keys: pa.ChunkedArray, among: pa.ChunkedArray) -> Ints:
    """Where each key stands in another column; -1 where it does not. (n,) strings to (n,) rows."""
    found: Ints = pc.index_in(keys, value_set=among.combine_chunks()).fill_null(-1).to_numpy().astype(np.int64)
    return found


def _unique(name: str, data: pa.Table) -> Iterator[Finding]:
    counts = data.group_by("key").aggregate([("key", "count")])
    twice = counts.filter(pc.greater(counts.column("key_count"), 1))
    if twice.num_rows:
        extra = int(pc.sum(twice.column("key_count")).as_py()) - twice.num_rows
        keys = twice.column("key").sort()
        examples = tuple(keys[: min(NUM_EXAMPLES, len(keys))].to_pylist())
        yield Finding(
            rule="unique", severity=Severity.ERROR, table=name, where=name,
            message=f"{plural(twice.num_rows, 'key')} used more than once", count=extra, examples=examples,
        )  # fmt: skip


def _values(name: str, data: pa.Table) -> Iterator[Finding]:
    keys = data.column("key")
    for column in data.column_names:
        if column in WORDS:
            known = pa.array([word.value for word in WORDS[column]])
            odd = pc.and_(pc.is_valid(data.column(column)), pc.invert(pc.is_in(data.column(column), value_set=known)))
            yield from of_rows(
                "value", name, odd, keys, f"{column} is none of {', '.join(known.to_pylist())}", where=column
            )
    for column, (low, high) in RANGES.get(name, {}).items():
        values = data.column(column).cast(pa.float64()).to_numpy()
        given = data.column(column).is_valid().to_numpy()
        odd = given & ~((values >= low) & (values <= high))
        yield from of_rows("value", name, odd, keys, f"{column} is not in [{low:g}, {high:g}]", where=column)


def _spelled_keys(name: str, data: pa.Table) -> Iterator[Finding]:
    instant = pc.ascii_lpad(data.column("instant").cast(pa.string()), 8, "0")
    columns = [data.column(c) if c != "instant" else instant for c in KEY_COLUMNS]
    spelled = pc.binary_join_element_wise(*columns, "/")
    odd = pc.or_(
        pc.not_equal(spelled, data.column("key")),
        pc.invert(pc.match_substring_regex(data.column("key"), r"^[a-z0-9_-]+(/[a-z0-9_-]+){5}$")),
    )
    message = "the key is not source/split/sequence/instant/view/track of its row, in [a-z0-9_-]"
    yield from of_rows("key", name, odd, data.column("key"), message)


def _frames_of_crops(evidence: Evidence, frames: pa.Table, crops: pa.Table) -> Iterator[Finding]:
    row = rows_of(crops.column("frame_key"), frames.column("key"))
    if "frames" not in evidence.blind:
        yield from of_rows(
            "reference", "crops", row < 0, crops.column("key"), "frame_key is no frame", where="frame_key"
        )
    there = np.flatnonzero(row >= 0)
    mine, its = crops.take(pa.array(there)), frames.take(pa.array(row[there]))
    for column in ("source", "licence", "domain", "split", "group", "sequence", "instant", "view"):
        differs = pc.not_equal(mine.column(column), its.column(column))
        yield from of_rows(
            "crop_frame", "crops", differs, mine.column("key"), f"{column} is not that of its frame", where=column
        )


def _crops_of_pairs(evidence: Evidence, crops: pa.Table, pairs: pa.Table) -> Iterator[Finding]:
    row = {role: rows_of(pairs.column(role), crops.column("key")) for role in ("target", "reference")}
    keys = pairs.column("key")
    if "crops" not in evidence.blind:
        for role in row:
            yield from of_rows("reference", "pairs", row[role] < 0, keys, f"the {role} is no crop", where=role)
    there = np.flatnonzero((row["target"] >= 0) & (row["reference"] >= 0))
    pairs = pairs.take(pa.array(there))
    sides = {role: crops.take(pa.array(row[role][there])) for role in row}
    keys = pairs.column("key")
    for column, rule in (
        ("source", "pair_columns"),
        ("licence", "pair_columns"),
        ("domain", "pair_columns"),
        ("sequence", "pair_columns"),
        ("split", "pair_split"),
    ):
        differs = np.zeros(len(there), bool)
        for side in sides.values():
            differs |= _differ(pairs.column(column), side.column(column))
        message = f"the {column} of the pair, its target and its reference are not one"
        yield from of_rows(rule, "pairs", differs, keys, message, where=column)
    held_back = np.zeros(len(there), bool)
    for side in sides.values():
        held_back |= has_flag(side.column("flags"), EVALUATION)
    yield from of_rows(
        "evaluation", "pairs", held_back, keys, "a pair shows somebody of an evaluation set", where="flags"
    )
    yield from _kinds(pairs, sides["target"], sides["reference"])
    yield from _times(pairs, sides["target"], sides["reference"])


def _kinds(pairs: pa.Table, target: pa.Table, reference: pa.Table) -> Iterator[Finding]:
    """What the two crops of a pair must share, and what must differ, by the pair's kind."""
    one = {
        c: ~_differ(target.column(c), reference.column(c)) for c in ("sequence", "instant", "view", "track", "segment")
    }
    rules: Mapping[PairKind, tuple[tuple[str, Bools, str], ...]] = {
        PairKind.CROSS_VIEW: (
            ("instant", ~one["instant"], "cross-view pair joins two instants"),
            ("view", one["view"], "cross-view pair joins a camera with itself"),
        ),
        PairKind.CROSS_POSE: (
            ("view", ~one["view"], "cross-pose pair joins two cameras"),
            ("instant", one["instant"], "cross-pose pair joins an instant with itself"),
            ("segment", one["view"] & ~one["segment"], "cross-pose pair crosses a cut or a time gap"),
        ),
    }
    for kind, checks in rules.items():
        mine = pc.equal(pairs.column("kind"), kind.value).to_numpy()
        both = (
            ("sequence", ~one["sequence"], f"{kind.value} pair joins two sequences"),
            ("track", ~one["track"], f"{kind.value} pair joins two people (tracks)"),
        )
        for column, bad, message in (*both, *checks):
            yield from of_rows(kind.value, "pairs", mine & bad, pairs.column("key"), message, where=column)


def _times(pairs: pa.Table, target: pa.Table, reference: pa.Table) -> Iterator[Finding]:
    told = pairs.column("dt_s").cast(pa.float64()).to_numpy()
    clock = reference.column("time_s").to_numpy() - target.column("time_s").to_numpy()
    across = pc.equal(pairs.column("kind"), PairKind.CROSS_VIEW.value).to_numpy()
    due = np.where(across, 0.0, clock)
    with np.errstate(invalid="ignore"):
        off = np.abs(told - due) > CLOCK_S  # NaN, an unknown time, is not off
    message = "dt_s is not the reference's time minus the target's (0 for cross-view)"
    yield from of_rows("time", "pairs", off, pairs.column("key"), message, where="dt_s")


def _differ(a: pa.ChunkedArray, b: pa.ChunkedArray) -> Bools:
    differs: Bools = pc.not_equal(a, b).to_numpy()
    return differs


def _leaks(frames: pa.Table, crops: pa.Table) -> Iterator[Finding]:
    """Groups, subjects and sequences on two sides, within a source: another source may use the same names."""
    columns = ["source", "split", "group", "subject", "sequence"]
    own = pa.array(has_flag(frames.column("flags"), OFFICIAL_SPLIT))
    official = set(frames.filter(own).column("source").unique().to_pylist())
    people = pa.concat_tables([frames.select(columns), crops.select(columns)]).group_by(columns).aggregate([])
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


def _share_group(people: pa.Table, names: pa.ChunkedArray, torn: list[str]) -> bool:
    """Whether a torn sequence has one group, or an unknown one, on two sides."""
    rows = people.filter(pc.is_in(names, value_set=pa.array(torn)))
    groups = pc.binary_join_element_wise(rows.column("source"), rows.column("sequence"), rows.column("group"), "/")
    return bool(leaks(groups, rows.column("split")))
