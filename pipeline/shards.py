"""Pack pairs into tars: every pair in exactly one, well mixed, and the same bytes wherever it runs.

A shard that took its pairs from anywhere would have to read the crops of every sequence. So each sequence's pairs are shuffled
and cut into *portions*, the portions of all sequences are shuffled, and as many as fit into memory make a *block*, whose
pairs are shuffled once more and cut into shards. A shard mixes the sequences of its block, some 128 or more; a worker
reads their crops once for all shards of the block, and keeps those that the block shows.

Plans hold names and numbers, not pairs: who writes a shard finds its pairs by the seed. Shuffles sort the raw bits of PCG64,
whose stream NumPy guarantees, so workers with other versions of it agree.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests import table as tables
from manifests.commit import UnitWriter, commits
from manifests.doors import door
from manifests.errors import ManifestError, StageError
from manifests.sample import Sample, write_tar
from manifests.seeds import rng_for
from manifests.types import Role

Ints = npt.NDArray[np.int64]
Group = tuple[str, str, str]  # split, source, domain: shards hold one of each

PORTION_PAIRS = 256  # of one sequence; the reason why a sequence of n pairs is read n / 256 times
BLOCK_PAIRS = 32768  # their crops, 16 kB each, take up to 1 GiB of a worker

_GROUP = ["split", "source", "domain"]
# What of a crop goes into a sample's JSON, beside its key.
_CROP_META = ["instant", "view", "track", "intrinsics", "camera_from_world", "silhouette_from", "keypoints_set", "keypoints_px", "side", "flags"]  # fmt: skip
_CROP_COLUMNS = ["key", "jpeg", "silhouette", *_CROP_META]
_PAIR_META = ["kind", "source", "licence", "domain", "split", "subject", "dt_s", "view_angle_rad", "covisibility"]


@dataclass(frozen=True, slots=True)
class Portion:
    """Some of a sequence's pairs: those from place `PORTION_PAIRS * number` on, of its `pairs` in shuffled order."""

    unit: str
    pairs: int
    number: int

    @property
    def size(self) -> int:
        """Number of its pairs."""
        return min(PORTION_PAIRS, self.pairs - PORTION_PAIRS * self.number)


@dataclass(frozen=True, slots=True)
class ShardWork:
    """Which pairs a shard holds.

    Attributes:
        group: their split, source and domain.
        part: 0, or by which extension of the build they came.
        block: names the block.
        portions: of the block; the same object for all of its shards.
        start: of the shard's places among the block's pairs in shuffled order.
        stop: first place after them.
        seed: of the build.
    """

    group: Group
    part: int
    block: str
    portions: tuple[Portion, ...]
    start: int
    stop: int
    seed: int


def shuffled(number: int, *names: str | int) -> Ints:
    """A permutation of 0, 1, ..., number - 1 that belongs to these names."""
    bits: npt.NDArray[np.uint64] = rng_for(*names).bit_generator.random_raw(number)
    return np.argsort(bits, kind="stable")


def plan_shards(
    folder: Path, parts: Sequence[Mapping[str, str]], *, rows: int, seed: int
) -> list[tuple[str, ShardWork]]:
    """Cut committed pairs into shards: per part, split, source and domain.

    Args:
        folder: the `pairs` stage of the build.
        parts: names of the units to pack together, as keys; a later part gets shards of its own, numbered on.
        rows: most pairs of a shard.
        seed: of the build.

    Returns:
        shard names with their work, block after block.

    Raises:
        StageError: there is not one pair.
    """
    shards: list[tuple[str, ShardWork]] = []
    numbers = Counter[Group]()
    for part, units in enumerate(parts):
        sizes: dict[Group, list[tuple[str, int]]] = {}
        for unit in sorted(units):
            for group, pairs in _count(folder / f"{unit}.pairs.parquet").items():
                sizes.setdefault(group, []).append((unit, pairs))
        for group, of_units in sorted(sizes.items()):
            for work in _cut(group, part, of_units, rows=rows, seed=seed):
                shards.append((f"{'-'.join(group)}-{numbers[group]:06d}", work))
                numbers[group] += 1
    if not shards:
        why = Counter[str]()
        for commit in commits(folder):
            why.update(commit.rejects)
        told = "; left out: " + ", ".join(f"{n} {reason}" for reason, n in why.most_common(3)) if why else ""
        raise StageError(
            f"there is not one pair to pack{told}",
            where=folder,
            hint=f"look at `{door('manifests', 'show', folder.parent, '--table', 'rejects')}`",
        )
    return shards


def _cut(group: Group, part: int, of_units: list[tuple[str, int]], *, rows: int, seed: int) -> list[ShardWork]:
    """The shards of one group, from its units and how many of its pairs each holds."""
    portions = [
        Portion(unit, pairs, number) for unit, pairs in of_units for number in range(-(-pairs // PORTION_PAIRS))
    ]
    order = shuffled(len(portions), seed, "portions", *group, part)
    before = np.cumsum([0, *(portions[i].size for i in order)])
    blocks = before[:-1] // BLOCK_PAIRS
    works = []
    for number in range(int(blocks[-1]) + 1):
        inside = np.flatnonzero(blocks == number)
        if not len(inside):
            continue  # a portion reached over all of it
        name, mine = "-".join((*group, str(part), str(number))), tuple(portions[i] for i in order[inside])
        total = sum(portion.size for portion in mine)
        num_shards = -(-total // rows)
        ends = [total * shard // num_shards for shard in range(num_shards + 1)]
        works += [ShardWork(group, part, name, mine, start, stop, seed) for start, stop in pairwise(ends)]
    return works


def _count(path: Path) -> Counter[Group]:
    """Pairs of a unit by split, source and domain; from the file's footer where that tells."""
    found = Counter[Group]()
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = [names.index(name) for name in _GROUP]
            for index in range(file.metadata.num_row_groups):
                part = file.metadata.row_group(index)
                ends = [part.column(column).statistics for column in columns]
                if all(end is not None and end.has_min_max and end.min == end.max for end in ends):
                    found[ends[0].min, ends[1].min, ends[2].min] += part.num_rows
                else:
                    data = file.read_row_group(index, columns=_GROUP)
                    found.update(zip(*(data.column(name).to_pylist() for name in _GROUP), strict=True))
    except (OSError, pa.ArrowException, ValueError) as error:
        raise ManifestError(
            f"not a readable pairs table: {error}", where=path, hint="run `make pairs` again"
        ) from error
    return found


def mix(work: ShardWork) -> tuple[dict[str, list[Portion]], Ints, Ints]:
    """Where the pairs of a shard's block stand; the shard takes the places from `start` to `stop`.

    Returns:
        the portions by sequence; and for each place, (n,), the index of its sequence and the row in that sequence's portions.
    """
    portions: dict[str, list[Portion]] = {}
    for portion in work.portions:
        portions.setdefault(portion.unit, []).append(portion)
    sizes = np.array([sum(portion.size for portion in mine) for mine in portions.values()])
    mixed = shuffled(int(sizes.sum()), work.seed, "block", work.block)
    sequence = np.repeat(np.arange(len(sizes)), sizes)
    row = np.arange(len(sequence)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return portions, sequence[mixed], row[mixed]


@dataclass(frozen=True, slots=True)
class Block:
    """The pairs of a block, in the order of their places, and the crops that they show.

    Attributes:
        pairs: by sequence.
        crops: by sequence.
        rows: of each key in its sequence's crops.
        sequence: (n,) index of the sequence of each pair, by place.
        row: (n,) row in its sequence's pairs.
    """

    pairs: list[pa.Table]
    crops: list[pa.Table]
    rows: list[dict[str, int]]
    sequence: Ints
    row: Ints


@dataclass(slots=True)
class BlockReader:
    """Reads blocks from the stage folders of a build at `root`, and keeps the last one, shard after shard."""

    root: Path
    _name: str = ""
    _block: Block | None = None

    def block(self, work: ShardWork) -> Block:
        """The block of a shard."""
        if self._block is None or self._name != work.block:
            self._block = None  # before the next is read: only one has room
            self._name, self._block = work.block, read_block(self.root, work)
        return self._block


def read_block(root: Path, work: ShardWork) -> Block:
    """Read the pairs of a shard's block and their crops from the stage folders of a build."""
    group, seed = work.group, work.seed
    portions, sequence, row = mix(work)
    pairs, crops, rows = [], [], []
    for unit, mine in portions.items():
        data = tables.read("pairs", root / "pairs" / f"{unit}.pairs.parquet")
        wanted = [pc.equal(data.column(name), value) for name, value in zip(_GROUP, group, strict=True)]
        own = np.flatnonzero(np.logical_and.reduce([column.to_numpy() for column in wanted]))
        order = own[shuffled(len(own), seed, "pairs", unit, *group)]
        starts = [PORTION_PAIRS * portion.number for portion in mine]
        chosen = np.concatenate([order[start : start + PORTION_PAIRS] for start in starts])
        pairs.append(data.take(pa.array(chosen)))
        crops.append(_read_crops(root, unit, pairs[-1]))
        rows.append({key: at for at, key in enumerate(crops[-1].column("key").to_pylist())})
    return Block(pairs, crops, rows, sequence, row)


def _read_crops(root: Path, unit: str, pairs: pa.Table) -> pa.Table:
    """The crops that some pairs of a sequence show; of the others no more than a row group is in memory at once."""
    path = next(p for s in ("crops", "renders") if (p := root / s / f"{unit}.crops.parquet").exists())
    columns = [*(pairs.column(role.value) for role in Role), pc.list_flatten(pairs.column("further"))]
    keys = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string()).unique()
    tables.read("crops", path, columns=[])  # is it of this version?
    found = []
    with pq.ParquetFile(path, memory_map=True) as file:
        for index in range(file.metadata.num_row_groups):
            shown = pc.is_in(file.read_row_group(index, columns=["key"]).column("key"), value_set=keys)
            if pc.any(shown).as_py():
                found.append(file.read_row_group(index, columns=_CROP_COLUMNS).filter(shown))
    crops = pa.concat_tables(found)
    if crops.num_rows != len(keys):
        raise StageError(
            f"{len(keys) - crops.num_rows} crops that pairs of {unit} name are not there",
            where=path,
            hint="remove the pairs of this sequence and run `make pairs` again",
        )
    return crops


def write_shard(out: UnitWriter, work: ShardWork, reader: BlockReader) -> None:
    """Write one shard's tar and index into the unit."""
    block = reader.block(work)
    sequence, row = block.sequence[work.start : work.stop], block.row[work.start : work.stop]
    samples: dict[int, Sample] = {}
    for index in np.unique(sequence):
        places = np.flatnonzero(sequence == index)
        pairs = block.pairs[index].take(pa.array(row[places])).to_pylist()
        views = [[pair["target"], pair["reference"], *pair["further"]] for pair in pairs]
        numbers = [block.rows[index][key] for keys in views for key in keys]
        crops = iter(block.crops[index].take(pa.array(numbers)).to_pylist())
        for place, pair, keys in zip(places, pairs, views, strict=True):
            samples[int(place)] = sample_of(pair, [next(crops) for _ in keys])
    path = out.path(".tar")
    with path.open("wb") as file:
        rows = write_tar(file, (samples[i] for i in range(len(samples))))
    out.add(path, table="tar", rows=len(rows))
    out.table("index", tables.from_rows("index", rows))
    out.counts.update(sample.meta["kind"] for sample in samples.values())


def sample_of(pair: dict[str, Any], views: list[dict[str, Any]]) -> Sample:
    """Join a pair's row with the rows of its crops: target, reference, and further views."""
    meta = {name: pair[name] for name in _PAIR_META}
    roles = [role.value for role in Role] + [f"view{number}" for number in range(2, len(views))]
    for role, crop in zip(roles, views, strict=True):
        meta[role] = {"key": crop["key"], **{n: crop[n] for n in _CROP_META if crop[n] is not None}}
    target, reference, *further = views
    return Sample(
        key=pair["key"],
        target_jpg=target["jpeg"],
        reference_jpg=reference["jpeg"],
        target_sil=target["silhouette"],
        reference_sil=reference["silhouette"],
        further=tuple((crop["jpeg"], crop["silhouette"]) for crop in further),
        meta=meta,
    )


def shard_table(folder: Path, weights: dict[str, float], licences: dict[str, str]) -> pa.Table:
    """The table of all committed shards, from their commits.

    Args:
        folder: the `shards` stage of a build.
        weights: of each source in the mixture.
        licences: of each source.
    """
    rows = []
    for commit in commits(folder):
        tar, index = commit.file("tar"), commit.file("index")
        assert tar is not None, "a shard's commit holds a tar"
        assert index is not None, "a shard's commit holds an index"
        keys = tables.read("index", folder / index.name, columns=["key"]).column("key")
        split, rest = commit.unit.split("-", 1)
        source, domain, _ = rest.rsplit("-", 2)
        rows.append(
            {
                "name": commit.unit,
                "split": split,
                "source": source,
                "licence": licences[source],
                "domain": domain,
                "weight": weights[source],
                "rows": tar.rows,
                "bytes": tar.bytes,
                "sha256": tar.sha256,
                "index_sha256": index.sha256,
                "fingerprint": commit.fingerprint,
                "first_pair": keys[0].as_py(),
                "last_pair": keys[-1].as_py(),
            }
        )
    return tables.from_rows("shards", rows)
