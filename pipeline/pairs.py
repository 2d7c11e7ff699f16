"""Draw cross-view and cross-pose pairs from the crops of one sequence, by columns alone.

Legend: a *candidate* is an unordered pair that the kind allows. Candidates are numbered without being listed: a group of
g crops holds g (g - 1) / 2 of them, so a number names a group and a pair inside it. That keeps a sequence of a million
candidates as cheap as the pairs that are drawn from it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests import table as tables
from manifests.geometry import angle_between
from manifests.schema import PAIRS
from manifests.seeds import rng_for
from manifests.surface import SURFACE_CELLS, covisibility
from manifests.types import EVALUATION, PairKind, Reason, Reject
from pipeline.recipes import PairRecipe

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# The columns of crops that pairing reads: no pixels.
COLUMNS = [
    "key", "source", "licence", "domain", "split", "subject", "sequence", "instant", "time_s", "view", "track", "segment",
    "phash", "intrinsics", "camera_from_world", "size_px", "surface", "flags",
]  # fmt: skip
OVERSAMPLE = 4  # candidates drawn for each pair wanted, where there are too many to look at all
LOOK_AT_ALL = 1_000_000
COVISIBILITY_AT_ONCE = 4096  # pairs, of 4 kB each


@dataclass(frozen=True, slots=True)
class Candidates:
    """Crops in groups, and how many unordered pairs the groups hold.

    Attributes:
        rows: crop rows, group after group.
        starts: where each group begins in `rows`.
        sizes: crops of each group.
        before: pairs in all groups before this one; one longer than `sizes`, so the last is their total.
    """

    rows: Ints
    starts: Ints
    sizes: Ints
    before: Ints

    @property
    def total(self) -> int:
        """Number of candidates."""
        return int(self.before[-1])

    def rows_of(self, numbers: Ints) -> tuple[Ints, Ints]:
        """The two crop rows of candidates by number, first in row order first; (n,) to (n,), (n,)."""
        group = np.searchsorted(self.before, numbers, side="right") - 1
        low, high = pair_of(numbers - self.before[group])
        start = self.starts[group]
        return self.rows[start + low], self.rows[start + high]


def pair_of(number: Ints) -> tuple[Ints, Ints]:
    """Number to pair: 0, 1, 2, 3... name (0,1), (0,2), (1,2), (0,3)...; low < high."""
    high = ((1 + np.sqrt(8.0 * number + 1)) / 2).astype(np.int64)
    # The square root may land one off for large numbers; put it right with integers.
    high -= high * (high - 1) // 2 > number
    high += (high + 1) * high // 2 <= number
    return number - high * (high - 1) // 2, high


def group_rows(columns: list[npt.NDArray[np.generic]]) -> Candidates:
    """Put rows that agree in all columns together, keeping their order inside each group."""
    codes = [np.unique(column, return_inverse=True)[1] for column in columns]
    order = np.lexsort(codes[::-1])
    if not len(order):
        return Candidates(order, np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(1, np.int64))
    change = np.any([np.diff(code[order]) != 0 for code in codes], axis=0)
    starts = np.concatenate([[0], np.flatnonzero(change) + 1]).astype(np.int64)
    sizes = np.diff(np.append(starts, len(order)))
    return Candidates(order, starts, sizes, np.concatenate([[0], np.cumsum(sizes * (sizes - 1) // 2)]))


def sample_pairs(crops: pa.Table, recipe: PairRecipe, *, seed: int, weight: float) -> tuple[pa.Table, list[Reject]]:
    """Draw the pairs of one sequence.

    Args:
        crops: the sequence's crops, with `COLUMNS` at least; any row order gives the same pairs.
        recipe: how many of each kind, and which are too alike.
        seed: of the build.
        weight: of the source in the training mixture.

    Returns:
        pairs (PAIRS schema), sorted by kind and keys, and one reject per kind and reason that tells how many candidates
        were left out.
    """
    if not crops.num_rows:
        return tables.empty("pairs"), []
    crops = crops.sort_by("key")
    place = _place(crops)
    held_back = tables.has_flag(crops.column("flags"), EVALUATION)
    crops = crops.filter(pa.array(~held_back))
    parts, rejects = [tables.empty("pairs")], []
    if held_back.any():
        detail = f"{held_back.sum()} crops belong to an evaluation set and are never paired"
        rejects.append(Reject("pairs", place, Reason.EVALUATION, detail, int(held_back.sum())))
        if not crops.num_rows:
            return parts[0], rejects
    for kind in PairKind:
        wanted = recipe.cross_view if kind is PairKind.CROSS_VIEW else recipe.cross_pose
        if wanted:
            part, left_out = _sample_kind(crops, kind, wanted, recipe, seed=seed, weight=weight)
            parts.append(part)
            rejects += left_out
    return pa.concat_tables(parts), rejects


def candidates_of(crops: pa.Table, kind: PairKind) -> Candidates:
    """All unordered pairs that a kind allows: same person and instant, or same person, camera and segment.

    A view that fell out of step (flag `unsynchronised`) still shows poses, but no instant that another view shows.
    """
    shared = ["track", "instant"] if kind is PairKind.CROSS_VIEW else ["track", "view", "segment"]
    columns = [crops.column(name).to_numpy() for name in shared]
    if kind is PairKind.CROSS_VIEW:
        astray = tables.has_flag(crops.column("flags"), "unsynchronised")
        columns.append(np.where(astray, 1 + np.arange(crops.num_rows), 0))  # a group of its own
    return group_rows(columns)


def _sample_kind(
    crops: pa.Table, kind: PairKind, wanted: int, recipe: PairRecipe, *, seed: int, weight: float
) -> tuple[pa.Table, list[Reject]]:
    place = _place(crops)
    rng = rng_for(seed, "pairs", place, kind.value)
    candidates = candidates_of(crops, kind)
    if not candidates.total:
        return tables.empty("pairs"), [
            Reject("pairs", place, Reason.NO_PARTNER, f"no two crops make a {kind.value} pair")
        ]
    if candidates.total <= max(LOOK_AT_ALL, OVERSAMPLE * wanted):
        numbers = np.arange(candidates.total)
    else:
        numbers = np.sort(rng.choice(candidates.total, size=OVERSAMPLE * wanted, replace=False, shuffle=False))
    first, second = candidates.rows_of(numbers)
    alike = _hash_distance(crops, first, second) < recipe.min_hash_distance
    dt_s = _time_between(crops, first, second, kind)
    soon = (np.abs(dt_s) < recipe.min_dt_s) if kind is PairKind.CROSS_POSE else np.zeros(len(first), bool)
    fit = np.flatnonzero(~alike & ~soon)
    rejects = [
        Reject(
            "pairs", place, Reason.ALIKE, f"{bad.sum()} of {len(first)} {kind.value} candidates {why}", int(bad.sum())
        )
        for bad, why in ((alike, "look the same"), (soon & ~alike, f"are less than {recipe.min_dt_s} s apart"))
        if bad.any()
    ]
    chosen = np.sort(rng.choice(len(fit), size=min(wanted, len(fit)), replace=False)) if len(fit) else fit
    swap = rng.random(len(chosen)) < 0.5 if recipe.swap_roles else np.zeros(len(chosen), bool)
    one, other, dt_s = first[fit[chosen]], second[fit[chosen]], dt_s[fit[chosen]]
    target, reference = np.where(swap, other, one), np.where(swap, one, other)
    return _pairs_table(crops, kind, target, reference, np.where(swap, -dt_s, dt_s), weight), rejects


def _place(crops: pa.Table) -> str:
    return f"{crops.column('source')[0]}/{crops.column('split')[0]}/{crops.column('sequence')[0]}"


def _hash_distance(crops: pa.Table, first: Ints, second: Ints) -> npt.NDArray[np.uint8]:
    hashes = crops.column("phash").to_numpy()
    bits: npt.NDArray[np.uint8] = np.bitwise_count(hashes[first] ^ hashes[second])
    return bits


def _time_between(crops: pa.Table, first: Ints, second: Ints, kind: PairKind) -> Floats:
    """Seconds from first to second: 0 for one instant, NaN when a clock is unknown."""
    if kind is PairKind.CROSS_VIEW:
        return np.zeros(len(first))
    times = crops.column("time_s").cast(pa.float64()).fill_null(float("nan")).to_numpy()
    gap: Floats = times[second] - times[first]
    return gap


def _pairs_table(
    crops: pa.Table, kind: PairKind, target: Ints, reference: Ints, dt_s: Floats, weight: float
) -> pa.Table:
    keys = crops.column("key").to_numpy()
    angle = _view_angles(crops, kind, target, reference)
    shared = _covisibility(crops, target, reference)
    count = len(target)
    same = {
        name: pa.array([crops.column(name)[0].as_py()] * count, pa.string())
        for name in ("source", "licence", "split", "sequence")
    }
    columns = {
        "key": pa.array(
            [pair_key(kind, keys[t], keys[r]) for t, r in zip(target, reference, strict=True)], pa.string()
        ),
        "kind": pa.array([kind.value] * count, pa.string()),
        **same,
        "domain": crops.column("domain").take(pa.array(target)).combine_chunks(),
        "target": pa.array(keys[target], pa.string()),
        "reference": pa.array(keys[reference], pa.string()),
        "dt_s": pa.array(dt_s, pa.float64(), mask=np.isnan(dt_s)),
        "view_angle_rad": pa.array(angle, pa.float64(), mask=np.isnan(angle)),
        "covisibility": pa.array(shared, pa.float64(), mask=np.isnan(shared)),
        "weight": pa.array(np.full(count, weight)),
        "further": pa.array([[]] * count, pa.list_(pa.string())),
    }
    schema = PAIRS
    return pa.table([columns[name] for name in schema.names], schema=schema).sort_by("key")


def pair_key(kind: PairKind, target: str, reference: str) -> str:
    """Name a pair by its crops: source/split/sequence/v|p/instant-view-track/instant-view-track."""
    place, _, tail = _split_key(target)
    return f"{place}/{'v' if kind is PairKind.CROSS_VIEW else 'p'}/{tail}/{_split_key(reference)[2]}"


def _split_key(key: str) -> tuple[str, str, str]:
    source, split, sequence, instant, view, track = key.split("/")
    return f"{source}/{split}/{sequence}", sequence, f"{int(instant)}-{view}-{track}"


def _view_angles(crops: pa.Table, kind: PairKind, target: Ints, reference: Ints) -> Floats:
    """Angle at the subject between two views, radians; NaN without calibration.

    The rays through the centres of the two crops both point at the subject, so the angle between them is the angle
    between the lines of sight, whether or not the rays meet exactly. A camera that stands still has an angle of 0 to itself.
    """
    poses = _poses(crops)
    sight = _lines_of_sight(crops, poses)
    angle = angle_between(sight[target], sight[reference])
    still = (poses[target] == poses[reference]).all(axis=(1, 2))
    return np.where(still & (kind is PairKind.CROSS_POSE), 0.0, angle)


def _covisibility(crops: pa.Table, target: Ints, reference: Ints) -> Floats:
    """Share of the target's visible body that the reference sees; NaN unless both crops are of one body and know it."""
    share = np.full(len(target), np.nan)
    subject, surface = (crops.column(name).combine_chunks() for name in ("subject", "surface"))
    known = pc.and_(surface.is_valid(), subject.is_valid()).to_numpy(zero_copy_only=False)
    person = subject.fill_null("").to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(known[target] & known[reference] & (person[target] == person[reference]))
    for some in np.array_split(rows, 1 + len(rows) // COVISIBILITY_AT_ONCE):
        cells = [_cells(surface.take(pa.array(of[some]))) for of in (target, reference)]
        share[some] = covisibility(*cells)
    return share


def _cells(surface: pa.BinaryArray) -> npt.NDArray[np.uint8]:
    """(n, SURFACE_CELLS) visible pixels of each cell, from the bytes of crops that know them."""
    return np.frombuffer(b"".join(surface.to_pylist()), np.uint8).reshape(len(surface), SURFACE_CELLS)


def _poses(crops: pa.Table) -> Floats:
    """(n, 4, 4) camera_from_world; NaN where it is unknown."""
    column = crops.column("camera_from_world").combine_chunks()
    poses = np.full((len(column), 16), np.nan)
    known = column.is_valid().to_numpy(zero_copy_only=False)
    poses[known] = column.flatten().to_numpy().reshape(-1, 16)
    return poses.reshape(-1, 4, 4)


def _lines_of_sight(crops: pa.Table, poses: Floats) -> Floats:
    """(n, 3) unit rays in the world through the centres of the crops; NaN where the camera is unknown."""
    column = crops.column("intrinsics").combine_chunks()
    known = column.is_valid().to_numpy(zero_copy_only=False)
    matrices = np.full((len(column), 9), np.nan)
    matrices[known] = column.flatten().to_numpy().reshape(-1, 9)
    K = matrices.reshape(-1, 3, 3)  # noqa: N806
    centre = (crops.column("size_px").to_numpy() - 1) / 2
    y = (centre - K[:, 1, 2]) / K[:, 1, 1]
    x = (centre - K[:, 0, 2] - K[:, 0, 1] * y) / K[:, 0, 0]
    directions = np.einsum("nij,ni->nj", poses[:, :3, :3], np.stack([x, y, np.ones_like(x)], axis=1))
    sight: Floats = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return sight
