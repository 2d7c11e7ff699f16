"""Pack pairs into tars: every pair in exactly one, mixed over the whole source, the same bytes wherever it runs."""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from manifests import table as tables
from manifests.commit import UnitWriter, commits
from manifests.errors import StageError
from manifests.sample import Sample, write_tar
from manifests.seeds import rng_for
from manifests.types import Role

CACHE_BYTES = 1 << 30

# What of a crop goes into a sample's JSON, beside its key.
_CROP_META = ["instant", "view", "track", "intrinsics", "camera_from_world", "silhouette_from", "keypoints_set", "keypoints_px", "side", "flags"]  # fmt: skip
_CROP_COLUMNS = ["key", "jpeg", "silhouette", *_CROP_META]
_PAIR_META = ["kind", "source", "licence", "domain", "split", "dt_s", "view_angle_rad", "covisibility"]


@dataclass(frozen=True, slots=True)
class ShardWork:
    """Which pairs a shard holds: for each, the pair unit it was committed in (index into `units`) and its row there."""

    split: str
    source: str
    domain: str
    units: tuple[str, ...]
    unit_index: tuple[int, ...]
    row: tuple[int, ...]


def plan_shards(pairs_folder: Path, *, rows: int, seed: int) -> list[tuple[str, ShardWork]]:
    """Cut all committed pairs into shards: per split, source and domain, in one shuffled order.

    Args:
        pairs_folder: the `pairs` stage of the build.
        rows: pairs per shard.
        seed: of the build.

    Returns:
        shard names with their work, sorted by name.

    Raises:
        StageError: there is not one pair.
    """
    units: list[str] = []
    groups: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for commit in commits(pairs_folder):
        file = commit.file("pairs")
        if file is None or not file.rows:
            continue
        data = tables.read("pairs", pairs_folder / file.name, columns=["split", "source", "domain"])
        columns = [data.column(name).to_pylist() for name in data.column_names]
        for row, group in enumerate(zip(*columns, strict=True)):
            groups.setdefault(group, []).append((len(units), row))
        units.append(commit.unit)
    if not groups:
        why = Counter[str]()
        for commit in commits(pairs_folder):
            why.update(commit.rejects)
        told = "; left out: " + ", ".join(f"{n} {reason}" for reason, n in why.most_common(3)) if why else ""
        raise StageError(
            f"there is not one pair to pack{told}",
            where=pairs_folder,
            hint="look at `python -m manifests show OUT --table rejects`",
        )
    shards = []
    for (split, source, domain), places in sorted(groups.items()):
        order = rng_for(seed, "shards", split, source, domain).permutation(len(places))
        for number, start in enumerate(range(0, len(places), rows)):
            chosen = [places[i] for i in order[start : start + rows]]
            used = sorted({unit for unit, _ in chosen})
            work = ShardWork(
                split,
                source,
                domain,
                tuple(units[unit] for unit in used),
                tuple(used.index(unit) for unit, _ in chosen),
                tuple(row for _, row in chosen),
            )
            shards.append((f"{split}-{source}-{domain}-{number:06d}", work))
    return shards


@dataclass
class CropReader:
    """Reads crops by key from the stage folders of a build; keeps the tables read last, up to `CACHE_BYTES`."""

    root: Path
    _cache: OrderedDict[str, tuple[pa.Table, dict[str, int]]] = field(default_factory=OrderedDict)

    @classmethod
    @lru_cache(maxsize=1)
    def of(cls, root: Path) -> "CropReader":
        """The one reader of this process, so that its tables serve shard after shard."""
        return cls(root)

    def unit(self, unit: str) -> tuple[pa.Table, dict[str, int]]:
        """The crops of one sequence and the row of each key."""
        if unit in self._cache:
            self._cache.move_to_end(unit)
            return self._cache[unit]
        path = next(p for s in ("crops", "renders") if (p := self.root / s / f"{unit}.crops.parquet").exists())
        data = tables.read("crops", path, columns=_CROP_COLUMNS).combine_chunks()
        found = data, {key: row for row, key in enumerate(data.column("key").to_pylist())}
        self._cache[unit] = found
        while len(self._cache) > 1 and sum(table.nbytes for table, _ in self._cache.values()) > CACHE_BYTES:
            self._cache.popitem(last=False)
        return found

    def crops(self, unit: str, keys: list[str]) -> list[dict[str, Any]]:
        """Crops of one sequence, in the order of the keys."""
        data, rows = self.unit(unit)
        taken: list[dict[str, Any]] = data.take(pa.array([rows[key] for key in keys])).to_pylist()
        return taken


def write_shard(out: UnitWriter, work: ShardWork, reader: CropReader, pairs_folder: Path) -> None:
    """Write one shard's tar and index into the unit."""
    samples: dict[int, Sample] = {}
    unit_index = np.array(work.unit_index)
    for index, unit in enumerate(work.units):
        places = np.flatnonzero(unit_index == index)
        pairs = tables.read("pairs", pairs_folder / f"{unit}.pairs.parquet").take(
            pa.array([work.row[p] for p in places])
        )
        crops = {role: reader.crops(unit, pairs.column(role.value).to_pylist()) for role in Role}
        for place, pair, target, reference in zip(
            places, pairs.to_pylist(), crops[Role.TARGET], crops[Role.REFERENCE], strict=True
        ):
            samples[int(place)] = sample_of(pair, target, reference)
    path = out.path(".tar")
    with path.open("wb") as file:
        rows = write_tar(file, [samples[i] for i in range(len(samples))])
    out.add(path, table="tar", rows=len(rows))
    out.table("index", tables.from_rows("index", rows))
    out.counts.update(sample.meta["kind"] for sample in samples.values())


def sample_of(pair: dict[str, Any], target: dict[str, Any], reference: dict[str, Any]) -> Sample:
    """Join a pair's row with its two crops' rows."""
    meta = {name: pair[name] for name in _PAIR_META}
    for role, crop in ((Role.TARGET, target), (Role.REFERENCE, reference)):
        meta[role.value] = {"key": crop["key"], **{n: crop[n] for n in _CROP_META if crop[n] is not None}}
    return Sample(
        key=pair["key"],
        target_jpg=target["jpeg"],
        reference_jpg=reference["jpeg"],
        target_sil=target["silhouette"],
        reference_sil=reference["silhouette"],
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
