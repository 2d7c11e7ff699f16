"""Draw cross-view and cross-pose pairs from the crops of one sequence, by columns alone.

Candidates (see `pipeline.candidates`) are looked at in random order and taken while there is room: in the sequence, in
their stratum, for their person. Which order that is follows from names alone, so any worker draws the same pairs.

Legend: n crops or candidates, C cells of the body's surface, K further views.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import table as tables
from manifests.commit import iter_tables
from manifests.errors import ManifestError
from manifests.geometry import angle_between
from manifests.schema import PAIRS
from manifests.seeds import rng_for
from manifests.surface import SURFACE_CELLS, covisibility
from manifests.types import EVALUATION, PairKind, Reason, Reject
from pipeline.candidates import (
    Bools,
    Candidates,
    Ints,
    Windows,
    accept,
    apportion,
    group_rows,
    in_random_order,
    windows,
)
from pipeline.recipes import PairRecipe

Floats = npt.NDArray[np.float64]

# The columns of crops that pairing reads: no pixels.
COLUMNS = [
    "key", "source", "licence", "domain", "split", "subject", "sequence", "instant", "time_s", "view", "track", "segment",
    "phash", "intrinsics", "camera_from_world", "size_px", "surface", "flags",
]  # fmt: skip
PEOPLE = ["source", "subject", "flags"]  # those that tell who may be paired
LOOK_AT = 1_000_000  # candidates of one kind, at most; or
OVERSAMPLE = 4  # times the pairs wanted, where that is more
TICKS_PER_S = 1_000_000
COVISIBILITY_AT_ONCE = 4096  # pairs, of 4 kB each


@dataclass(frozen=True, slots=True)
class Sequence:
    """The crops of one sequence that may be paired, in the order of their keys.

    Attributes:
        crops: their table.
        place: source/split/sequence.
        tail: what names each crop in this place: instant-view-track.
        people: those who are shown: source/subject where the subject is known, else place/track.
        person: (n,) whom each crop shows, index into `people`.
        time_s: (n,) NaN where no clock is known.
        phash: (n,).
        poses: (n, 4, 4) camera_from_world; NaN where the camera is unknown.
        sight: (n, 3) unit rays in the world through the centres of the crops; NaN where the camera is unknown.
        cells: (n, C) visible pixels of each cell of the body, or None where no crop knows them.
        seen: (n,) whether a crop knows them.
    """

    crops: pa.Table
    place: str
    tail: pa.Array
    people: list[str]
    person: Ints
    time_s: Floats
    phash: npt.NDArray[np.uint64]
    poses: Floats
    sight: Floats
    cells: npt.NDArray[np.uint8] | None
    seen: Bools

    @classmethod
    def of(cls, crops: pa.Table) -> "Sequence":
        """Look at crops of one sequence, with `COLUMNS` at least, sorted by key."""
        place = _place(crops)
        instant, view, track, subject, surface = (
            crops.column(name).combine_chunks() for name in ("instant", "view", "track", "subject", "surface")
        )
        named = pc.binary_join_element_wise(crops.column("source").combine_chunks(), subject, "/")
        who = pc.coalesce(named, pc.binary_join_element_wise(pa.scalar(place), track, "/")).dictionary_encode()
        poses = _matrices(crops.column("camera_from_world"), 4)
        seen = pc.and_(surface.is_valid(), subject.is_valid()).to_numpy(zero_copy_only=False)
        return cls(
            crops=crops,
            place=place,
            tail=pc.binary_join_element_wise(instant.cast(pa.string()), view, track, "-"),
            people=who.dictionary.to_pylist(),
            person=who.indices.to_numpy().astype(np.int64),
            time_s=crops.column("time_s").cast(pa.float64()).fill_null(float("nan")).to_numpy(),
            phash=crops.column("phash").to_numpy(),
            poses=poses,
            sight=_lines_of_sight(crops, poses),
            cells=_cells(surface, where=place) if seen.any() else None,
            seen=seen,
        )

    def seconds_between(self, first: Ints, second: Ints, kind: PairKind) -> Floats:
        """Seconds from first to second: 0 for one instant, NaN when a clock is unknown."""
        return np.zeros(len(first)) if kind is PairKind.CROSS_VIEW else self.time_s[second] - self.time_s[first]

    def angle_between(self, first: Ints, second: Ints, kind: PairKind) -> Floats:
        """Angle at the subject between two views, radians; NaN without calibration.

        The rays through the centres of the two crops both point at the subject, so the angle between them is the angle
        between the lines of sight, whether or not the rays meet exactly. A camera that stands still has an angle of 0 to
        itself.
        """
        angle = angle_between(self.sight[first], self.sight[second])
        if kind is PairKind.CROSS_VIEW:
            return angle
        still = (self.poses[first] == self.poses[second]).all(axis=(1, 2))
        return np.where(still, 0.0, angle)

    def covisibility(self, target: Ints, reference: Ints) -> Floats:
        """Share of the target's visible body that the reference sees; NaN unless both crops are of one body and know it."""
        share = np.full(len(target), np.nan)
        if self.cells is None:
            return share
        same = self.person[target] == self.person[reference]
        rows = np.flatnonzero(self.seen[target] & self.seen[reference] & same)
        for some in np.array_split(rows, 1 + len(rows) // COVISIBILITY_AT_ONCE):
            share[some] = covisibility(self.cells[target[some]], self.cells[reference[some]])
        return share


@dataclass(frozen=True, slots=True)
class Drawn:
    """Pairs of one kind that were drawn from a sequence, in the order in which they were taken.

    Attributes:
        first: (n,) crop rows; roles are not given yet.
        second: (n,).
        stratum: (n,) of each.
    """

    first: Ints
    second: Ints
    stratum: Ints

    def thinned(self, count: int) -> "Drawn":
        """So many of them, evenly from all strata."""
        order = np.argsort(self.stratum, kind="stable")
        chosen = order[np.arange(count) * len(order) // max(count, 1)]
        return Drawn(self.first[chosen], self.second[chosen], self.stratum[chosen])


def sample_pairs(
    crops: pa.Table, recipe: PairRecipe, *, seed: int, weight: float, quotas: Mapping[str, int] | None = None
) -> tuple[pa.Table, list[Reject]]:
    """Draw the pairs of one sequence.

    Args:
        crops: the sequence's crops, with `COLUMNS` at least; any row order gives the same pairs.
        recipe: how many of each kind, and which.
        seed: of the build.
        weight: of the source in the training mixture.
        quotas: by source/subject, the most pairs of each kind that this sequence may give of a person (see `allot`); of all
            others the recipe tells.

    Returns:
        pairs (PAIRS schema), sorted by kind and keys, and one reject per kind and reason that tells how many candidates
        were left out of those that were looked at.
    """
    if not crops.num_rows:
        return tables.empty("pairs"), []
    held_back = tables.has_flag(crops.column("flags"), EVALUATION)
    rejects = []
    if held_back.any():
        detail = f"{held_back.sum()} crops belong to an evaluation set and are never paired"
        rejects.append(Reject("pairs", _place(crops), Reason.EVALUATION, detail, int(held_back.sum())))
        crops = crops.filter(pa.array(~held_back))
        if not crops.num_rows:
            return tables.empty("pairs"), rejects
    keys = crops.column("key")
    in_order = pc.all(pc.less(keys[:-1], keys[1:])).as_py()
    sequence = Sequence.of(crops if in_order else crops.sort_by("key"))
    drawn: dict[PairKind, Drawn] = {}
    for kind, wanted in ((PairKind.CROSS_VIEW, recipe.cross_view), (PairKind.CROSS_POSE, recipe.cross_pose)):
        if wanted:
            drawn[kind], left_out = _draw(sequence, kind, wanted, recipe, quotas or {}, seed=seed)
            rejects += left_out
    if recipe.equal_kinds:
        count = min(len(part.first) for part in drawn.values())
        drawn = {kind: part.thinned(count) for kind, part in drawn.items()}
    parts = [_pairs_table(sequence, kind, part, recipe, seed=seed, weight=weight) for kind, part in drawn.items()]
    return pa.concat_tables(parts), rejects


def told_strata(folder: Path, recipe: PairRecipe) -> list[str]:
    """What was asked of the classes of pairs, and what they got, in words: a line for each way to class.

    Args:
        folder: the `pairs` stage of a build.
        recipe: that its pairs were drawn by.
    """
    ways = (
        ("view_angle_deg", recipe.view_angle_deg, PairKind.CROSS_VIEW, "view_angle_rad", np.degrees, "calibration"),
        ("time_gap_s", recipe.time_gap_s, PairKind.CROSS_POSE, "dt_s", np.abs, "clock"),
    )
    lines = []
    for name, strata, kind, column, measure, lack in ways:
        if strata is None:
            continue
        units, unknown, got = 0, 0, np.zeros(len(strata.shares), np.int64)
        for _, pairs in iter_tables(folder, "pairs", columns=["kind", column]):
            values = pairs.filter(pc.equal(pairs["kind"], kind.value)).column(column)
            known = measure(values.drop_null().to_numpy()).round(6)
            got += np.bincount(np.searchsorted(strata.edges[1:-1], known, side="right"), minlength=len(got))
            units, unknown = units + 1, unknown + values.null_count
        asked = np.array(strata.shares) / sum(strata.shares)
        enough = asked * (got[asked > 0] / asked[asked > 0]).max() - units  # each unit rounds
        told = [
            f"{low:g} to {high:g}: {count:,} ({count / max(got.sum(), 1):.0%} of {share:.0%}{', too few candidates' if few else ''})"
            for (low, high), count, share, few in zip(pairwise(strata.edges), got, asked, got < enough, strict=True)
        ]
        others = [f"{unknown:,} without a {lack}, drawn by chance"] if unknown else []
        lines.append(f"{name} got (of what was asked) {'; '.join([*(told if got.any() else ['no pair']), *others])}")
    return lines


def count_people(crops: pa.Table) -> Counter[str]:
    """How many crops of a sequence may be paired, by source/subject of those whose subject is known."""
    crops = crops.filter(pa.array(~tables.has_flag(crops.column("flags"), EVALUATION)))
    named = pc.binary_join_element_wise(crops.column("source"), crops.column("subject"), "/")
    return Counter({row["values"]: row["counts"] for row in named.drop_null().value_counts().to_pylist()})


def allot(crops: list[Counter[str]], most: int) -> list[dict[str, int]]:
    """Share out the pairs of each person among the sequences that show him, by the number of his crops.

    Args:
        crops: per sequence, how many crops show whom.
        most: pairs of one person in all sequences.

    Returns:
        per sequence, the most pairs of each person. They add up to `most` for each.
    """
    total, before = Counter[str](), Counter[str]()
    for counts in crops:
        total.update(counts)
    quotas = []
    for counts in crops:
        quota = {}
        for who, count in counts.items():
            after = before[who] + count
            quota[who] = after * most // total[who] - before[who] * most // total[who]
            before[who] = after
        quotas.append(quota)
    return quotas


def candidates_of(sequence: Sequence, kind: PairKind) -> Candidates:
    """All unordered pairs that a kind allows: same person and instant, or same person, camera and segment.

    A view that fell out of step (flag `unsynchronised`) still shows poses, but no instant that another view shows.
    """
    crops = sequence.crops
    track = _codes(crops.column("track"))
    if kind is PairKind.CROSS_POSE:
        return group_rows([track, _codes(crops.column("view")), crops.column("segment").to_numpy()])
    astray = tables.has_flag(crops.column("flags"), "unsynchronised")
    alone = np.where(astray, 1 + np.arange(crops.num_rows), 0)  # a group of its own
    return group_rows([track, crops.column("instant").to_numpy(), alone])


def _draw(
    sequence: Sequence, kind: PairKind, wanted: int, recipe: PairRecipe, quotas: Mapping[str, int], *, seed: int
) -> tuple[Drawn, list[Reject]]:
    """Look at candidates in random order and take those that are fit while there is room."""
    rng = rng_for(seed, "pairs", sequence.place, kind.value)
    limit = wanted if recipe.per_subject is None else min(wanted, recipe.per_subject)
    people_room = np.array([min(wanted, quotas.get(name, limit)) for name in sequence.people])
    pools, edges, shares, outside = _pools(sequence, kind, recipe)
    strata_room = apportion(min(wanted, int(people_room.sum())), shares)
    parts, left_out, looked = [Drawn(*np.zeros((3, 0), np.int64))], Counter[tuple[Reason, str]](), 0
    for number, pool in enumerate(pools):
        mine = strata_room if len(pools) == 1 else strata_room[number : number + 1]  # views: all count down together
        most = max(LOOK_AT, OVERSAMPLE * int(mine.sum()))
        for numbers in in_random_order(rng, pool.total, batch=1 + 2 * int(mine.sum()), most=most):
            if not mine.any() or not people_room.any():
                break
            looked += len(numbers)
            first, second = pool.rows_of(numbers)
            for reason, why, is_bad in _rules(sequence, kind, recipe, edges):
                bad = is_bad(first, second)
                left_out[reason, why] += int(bad.sum())
                first, second = first[~bad], second[~bad]
            stratum = _stratum(sequence, edges, first, second) if edges else np.zeros(len(first), np.int64)
            taken = accept([stratum, sequence.person[first]], [mine, people_room])
            parts.append(Drawn(first[taken], second[taken], number + stratum[taken]))
    rejects = [
        Reject("pairs", sequence.place, reason, f"{count} of {looked} {kind.value} candidates {why}", count)
        for (reason, why), count in left_out.items()
        if count
    ]
    if outside:
        total = outside + sum(pool.total for pool in pools)
        detail = f"{outside} of {total} {kind.value} candidates lie in no stratum"
        rejects.append(Reject("pairs", sequence.place, Reason.OUTSIDE_STRATA, detail, outside))
    if not any(pool.total for pool in pools):
        detail = f"no two crops make a {kind.value} pair" + (" of the time gaps asked for" if len(pools) > 1 else "")
        rejects.append(Reject("pairs", sequence.place, Reason.NO_PARTNER, detail))
    return Drawn(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("first", "second", "stratum"))), rejects


def _pools(
    sequence: Sequence, kind: PairKind, recipe: PairRecipe
) -> tuple[list[Candidates | Windows], tuple[float, ...], tuple[float, ...], int]:
    """What to draw from: one pool for each class of time gaps, else one for all; edges of angles; the shares of all classes.

    There are no classes where nothing is known that could tell them apart. Last comes the number of candidates in no pool.
    """
    candidates = candidates_of(sequence, kind)
    known = np.isfinite(sequence.time_s)
    if kind is PairKind.CROSS_POSE and (strata := recipe.time_gap_s) and known.any():
        edges = np.rint(np.array(strata.edges) * TICKS_PER_S).astype(np.int64)
        edges[-1] += 1  # its upper edge too
        time = np.rint(np.where(known, sequence.time_s, 0) * TICKS_PER_S).astype(np.int64)
        pools = windows(candidates, time, known, edges)
        return [*pools], (), strata.shares, candidates.total - sum(pool.total for pool in pools)
    if kind is PairKind.CROSS_VIEW and (strata := recipe.view_angle_deg) and np.isfinite(sequence.sight).any():
        return [candidates], strata.edges, strata.shares, 0
    return [candidates], (), (1.0,), 0


def _rules(
    sequence: Sequence, kind: PairKind, recipe: PairRecipe, edges: tuple[float, ...]
) -> Iterator[tuple[Reason, str, Callable[[Ints, Ints], Bools]]]:
    """Why candidates are left out: the reason, in words, and which of them; the dearest comes last."""
    hashes, dt_s, floor = sequence.phash, recipe.min_dt_s, recipe.min_covisibility
    yield (
        Reason.ALIKE,
        "look the same",
        lambda first, second: np.bitwise_count(hashes[first] ^ hashes[second]) < recipe.min_hash_distance,
    )
    if kind is PairKind.CROSS_POSE:
        yield (
            Reason.ALIKE,
            f"are less than {dt_s} s apart",
            lambda first, second: np.abs(sequence.time_s[second] - sequence.time_s[first]).round(9) < dt_s,
        )
    if edges:
        yield (
            Reason.OUTSIDE_STRATA,
            "lie in no stratum",
            lambda first, second: _stratum(sequence, edges, first, second) < 0,
        )
    if floor:
        yield (
            Reason.LOW_COVISIBILITY,
            f"share less than {floor:.0%} of the body that one of them shows",
            lambda first, second: (
                (sequence.covisibility(first, second) < floor) | (sequence.covisibility(second, first) < floor)
            ),
        )


def _stratum(sequence: Sequence, edges: tuple[float, ...], first: Ints, second: Ints) -> Ints:
    """(n,) class of the angle of each candidate, -1: in none. The last class holds its upper edge too."""
    angle_deg = np.degrees(sequence.angle_between(first, second, PairKind.CROSS_VIEW)).round(9)
    number = np.searchsorted([*edges[:-1], np.nextafter(edges[-1], np.inf)], angle_deg, side="right") - 1
    return np.where(number < len(edges) - 1, number, -1)  # what is not known comes after the last edge


def _pairs_table(
    sequence: Sequence, kind: PairKind, drawn: Drawn, recipe: PairRecipe, *, seed: int, weight: float
) -> pa.Table:
    """Give roles, draw further views, and tell what is known of each pair."""
    rng = rng_for(seed, "roles", sequence.place, kind.value)
    crops, count = sequence.crops, len(drawn.first)
    swap = rng.random(count) < 0.5 if recipe.swap_roles else np.zeros(count, bool)
    target, reference = np.where(swap, drawn.second, drawn.first), np.where(swap, drawn.first, drawn.second)
    known = {
        "dt_s": sequence.seconds_between(target, reference, kind),
        "view_angle_rad": sequence.angle_between(target, reference, kind),
        "covisibility": sequence.covisibility(target, reference),
    }
    keys = crops.column("key").combine_chunks()
    letter = "v" if kind is PairKind.CROSS_VIEW else "p"
    tails = [sequence.tail.take(pa.array(rows)) for rows in (target, reference)]
    columns = {
        "key": pc.binary_join_element_wise(pa.scalar(f"{sequence.place}/{letter}"), *tails, "/"),
        "kind": pa.repeat(kind.value, count),
        **{name: pa.repeat(crops.column(name)[0], count) for name in ("source", "licence", "split", "sequence")},
        **{name: crops.column(name).combine_chunks().take(pa.array(target)) for name in ("domain", "subject")},
        "target": keys.take(pa.array(target)),
        "reference": keys.take(pa.array(reference)),
        **{name: pa.array(values, mask=np.isnan(values)) for name, values in known.items()},
        "weight": pa.repeat(weight, count),
        "further": _further(sequence, kind, target, reference, recipe, rng, keys),
    }
    return pa.table([columns[name] for name in PAIRS.names], schema=PAIRS).sort_by("key")


def _further(
    sequence: Sequence,
    kind: PairKind,
    target: Ints,
    reference: Ints,
    recipe: PairRecipe,
    rng: np.random.Generator,
    keys: pa.Array,
) -> pa.ListArray:
    """Keys of further views of the target's instant, as many as there are up to the recipe's number."""
    most = recipe.num_views - 2
    if not most or (kind is PairKind.CROSS_POSE and not recipe.mixed_tuples):
        return pa.array([[]], pa.list_(pa.string())).take(pa.array(np.zeros(len(target), np.int64)))
    taken = [target, reference] if kind is PairKind.CROSS_VIEW else [target]
    others, there = candidates_of(sequence, PairKind.CROSS_VIEW).others_of(taken, most, rng)
    ends = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), keys.take(pa.array(others[there])))


def _place(crops: pa.Table) -> str:
    return f"{crops.column('source')[0]}/{crops.column('split')[0]}/{crops.column('sequence')[0]}"


def _codes(column: pa.ChunkedArray) -> Ints:
    """Equal numbers for equal texts; (n,)."""
    codes: Ints = column.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def _cells(surface: pa.BinaryArray, *, where: str) -> npt.NDArray[np.uint8]:
    """(n, C) visible pixels of each cell; zeros where they are not known.

    Raises:
        ManifestError: a crop tells of another number of cells.
    """
    if (pc.binary_length(surface).drop_null().to_numpy() != SURFACE_CELLS).any():
        raise ManifestError(f"a crop's surface has not {SURFACE_CELLS} cells", where=where, hint="rebuild the crops")
    cells = np.zeros((len(surface), SURFACE_CELLS), np.uint8)
    known = surface.is_valid().to_numpy(zero_copy_only=False)
    joined = b"".join(surface.drop_null().to_pylist())
    cells[known] = np.frombuffer(joined, np.uint8).reshape(-1, SURFACE_CELLS)
    return cells


def _lines_of_sight(crops: pa.Table, poses: Floats) -> Floats:
    """(n, 3) unit rays in the world through the centres of the crops; NaN where the camera is unknown."""
    K = _matrices(crops.column("intrinsics"), 3)  # noqa: N806
    centre = (crops.column("size_px").to_numpy() - 1) / 2
    y = (centre - K[:, 1, 2]) / K[:, 1, 1]
    x = (centre - K[:, 0, 2] - K[:, 0, 1] * y) / K[:, 0, 0]
    directions = np.einsum("nij,ni->nj", poses[:, :3, :3], np.stack([x, y, np.ones_like(x)], axis=1))
    sight: Floats = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return sight


def _matrices(column: pa.ChunkedArray, side: int) -> Floats:
    """(n, side, side); NaN where there is none."""
    values = column.combine_chunks()
    matrices = np.full((len(values), side * side), np.nan)
    matrices[values.is_valid().to_numpy(zero_copy_only=False)] = values.flatten().to_numpy().reshape(-1, side * side)
    return matrices.reshape(-1, side, side)
