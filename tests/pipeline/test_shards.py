"""Shards: every pair once, mixed, and the same bytes on every run."""

import tarfile
from pathlib import Path

import pytest

from manifests import table as tables
from manifests.commit import UnitWriter, commits
from manifests.errors import StageError
from manifests.sample import read_tar
from manifests.types import Split
from pipeline.pairs import sample_pairs
from pipeline.recipes import PairRecipe
from pipeline.shards import CropReader, plan_shards, shard_table, write_shard
from tests.support.crops import recording
from tests.support.folders import contents


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """Three committed sequences of crops and pairs; the last is held out."""
    for name, split in (("a", Split.TRAIN), ("b", Split.TRAIN), ("c", Split.VAL)):
        crops = recording(views=3, instants=6, sequence=name, split=split)
        pairs, _ = sample_pairs(crops, PairRecipe(cross_view=9, cross_pose=12), seed=0, weight=1.0)
        for stage, data in (("crops", crops), ("pairs", pairs)):
            (tmp_path / stage).mkdir(exist_ok=True)
            with UnitWriter(tmp_path / stage, stage=stage, unit=f"cameras-{name}", fingerprint="f") as out:
                out.table(stage, data)
    return tmp_path


def pack(build: Path, out: Path, *, rows: int = 10) -> None:
    out.mkdir()
    for name, work in plan_shards(build / "pairs", rows=rows, seed=0):
        with UnitWriter(out, stage="shards", unit=name, fingerprint="f") as writer:
            write_shard(writer, work, CropReader(build), build / "pairs")
    tables.write("shards", shard_table(out, {"cameras": 1.0}, {"cameras": "none"}), out / "shards.parquet")


def test_every_pair_is_in_exactly_one_shard_of_its_split(build: Path, tmp_path: Path) -> None:
    pack(build, tmp_path / "shards")
    keys, splits = [], set()
    for path in sorted((tmp_path / "shards").glob("*.tar")):
        for sample in read_tar(path):
            keys.append(sample.key)
            splits.add((path.name.split("-")[0], sample.meta["split"]))
    wanted = [
        k
        for c in commits(build / "pairs")
        for k in tables.read("pairs", build / "pairs" / c.files[0].name).column("key").to_pylist()
    ]
    assert sorted(keys) == sorted(wanted)
    assert splits == {("train", "train"), ("val", "val")}


def test_a_shard_mixes_sequences(build: Path) -> None:
    shards = dict(plan_shards(build / "pairs", rows=10, seed=0))
    assert [len(work.row) for work in shards.values()] == [10, 10, 10, 10, 2, 10, 10, 1]
    assert all(
        len(work.units) == 2 for name, work in shards.items() if name.startswith("train") and len(work.row) == 10
    )


def test_samples_hold_the_crops_of_their_pair(build: Path, tmp_path: Path) -> None:
    pack(build, tmp_path / "shards")
    crops = {
        row["key"]: row
        for path in (build / "crops").glob("*.crops.parquet")
        for row in tables.read("crops", path).to_pylist()
    }
    for path in (tmp_path / "shards").glob("*.tar"):
        for sample in read_tar(path):
            for role, jpg in (("target", sample.target_jpg), ("reference", sample.reference_jpg)):
                crop = crops[sample.meta[role]["key"]]
                assert jpg == crop["jpeg"]
                assert sample.meta[role]["camera_from_world"] == crop["camera_from_world"]


def test_packing_twice_gives_the_same_bytes(build: Path, tmp_path: Path) -> None:
    pack(build, tmp_path / "one")
    pack(build, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_index_points_at_the_members(build: Path, tmp_path: Path) -> None:
    pack(build, tmp_path / "shards")
    for path in (tmp_path / "shards").glob("*.tar"):
        data = path.read_bytes()
        rows = tables.read("index", path.with_suffix(".index.parquet")).to_pylist()
        with tarfile.open(path) as tar:
            members = {m.name: tar.extractfile(m).read() for m in tar}
        for row in rows:
            place = row["target_jpg"]
            assert data[place["offset"] : place["offset"] + place["size"]] == members[f"{row['key']}.target.jpg"]


def test_shard_table_tells_rows_bytes_and_ends(build: Path, tmp_path: Path) -> None:
    pack(build, tmp_path / "shards")
    for row in tables.read("shards", tmp_path / "shards/shards.parquet").to_pylist():
        path = tmp_path / "shards" / f"{row['name']}.tar"
        samples = list(read_tar(path))
        assert (row["rows"], row["bytes"]) == (len(samples), path.stat().st_size)
        assert (row["first_pair"], row["last_pair"]) == (samples[0].key, samples[-1].key)
        assert (row["source"], row["domain"]) == ("cameras", "body")


def test_no_pairs_at_all_is_said(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    with pytest.raises(StageError, match="not one pair"):
        plan_shards(tmp_path / "pairs", rows=10, seed=0)
