"""Shards: every pair once, mixed, and the same bytes on every run."""

import tarfile
from pathlib import Path

import pytest

from manifests import table as tables
from manifests.commit import UnitWriter, commits
from manifests.errors import StageError
from manifests.sample import read_tar
from manifests.types import Split
from pipeline import shards
from pipeline.pairs import sample_pairs
from pipeline.recipes import PairRecipe
from pipeline.shards import BlockReader, ShardWork, plan_shards, shard_table, write_shard
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


def plan(build: Path, *, rows: int = 10, parts: tuple[str, ...] = ("abc",)) -> list[tuple[str, ShardWork]]:
    named = [{f"cameras-{name}": "hash" for name in part} for part in parts]
    return plan_shards(build / "pairs", named, rows=rows, seed=0)


def pack(build: Path, out: Path, *, rows: int = 10) -> None:
    out.mkdir()
    reader = BlockReader(build)
    for name, work in plan(build, rows=rows):
        with UnitWriter(out, stage="shards", unit=name, fingerprint="f") as writer:
            write_shard(writer, work, reader)
    tables.write("shards", shard_table(out, {"cameras": 1.0}, {"cameras": "none"}), out / "shards.parquet")


def test_every_pair_is_in_exactly_one_shard_of_its_split(build: Path, tmp_path: Path) -> None:
    pack(build, tmp_path / "shards")
    assert packed_keys(tmp_path / "shards") == pair_keys(build)
    tars = (tmp_path / "shards").glob("*.tar")
    splits = {(path.name.split("-")[0], sample.meta["split"]) for path in tars for sample in read_tar(path)}
    assert splits == {("train", "train"), ("val", "val")}


def test_shards_of_a_group_are_of_one_size_and_mix_its_sequences(build: Path, tmp_path: Path) -> None:
    works = dict(plan(build))
    assert [work.stop - work.start for work in works.values()] == [8, 8, 9, 8, 9, 7, 7, 7]
    assert list(works) == [f"train-cameras-body-{i:06d}" for i in range(5)] + [
        f"val-cameras-body-{i:06d}" for i in range(3)
    ]
    pack(build, tmp_path / "shards")
    for path in (tmp_path / "shards").glob("train-*.tar"):
        assert {sample.key.split("/")[2] for sample in read_tar(path)} == {"a", "b"}


@pytest.mark.parametrize(("portion", "block"), [(4, 10), (1, 1), (3, 100), (100, 3)])
def test_every_pair_is_packed_once_however_blocks_are_cut(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portion: int, block: int
) -> None:
    monkeypatch.setattr(shards, "PORTION_PAIRS", portion)
    monkeypatch.setattr(shards, "BLOCK_PAIRS", block)
    pack(build, tmp_path / "shards", rows=4)
    assert packed_keys(tmp_path / "shards") == pair_keys(build)
    works = [work for _, work in plan(build, rows=4)]
    assert max(sum(p.size for p in work.portions) for work in works) < block + portion
    assert max(work.stop - work.start for work in works) <= 4


def test_pairs_that_come_later_get_shards_of_their_own_and_the_old_ones_stay(build: Path) -> None:
    before, after = plan(build, parts=("a", "c")), plan(build, parts=("a", "c", "b"))
    assert [name for name, _ in before] == [name for name, _ in after][: len(before)]
    assert before == after[: len(before)]
    assert [(name, work.part) for name, work in after[len(before) :]] == [
        (f"train-cameras-body-{i:06d}", 2) for i in (3, 4, 5)
    ]
    assert {portion.unit for _, work in after[len(before) :] for portion in work.portions} == {"cameras-b"}


def packed_keys(folder: Path) -> list[str]:
    return sorted(sample.key for path in folder.glob("*.tar") for sample in read_tar(path))


def pair_keys(build: Path) -> list[str]:
    files = [build / "pairs" / c.files[0].name for c in commits(build / "pairs")]
    return sorted(key for file in files for key in tables.read("pairs", file).column("key").to_pylist())


def test_further_views_travel_with_their_pair(build: Path, tmp_path: Path) -> None:
    path = build / "pairs/cameras-a.pairs.parquet"
    rows = tables.read("pairs", path).to_pylist()
    crops = {row["key"]: row for row in tables.read("crops", build / "crops/cameras-a.crops.parquet").to_pylist()}
    named = sorted(crops)
    for number, row in enumerate(rows):
        row["further"] = named[number : number + number % 3]
    tables.write("pairs", tables.from_rows("pairs", rows), path)
    pack(build, tmp_path / "shards")
    further = {row["key"]: row["further"] for row in rows}
    seen = 0
    for tar in (tmp_path / "shards").glob("*.tar"):
        index = {row["key"]: row for row in tables.read("index", tar.with_suffix(".index.parquet")).to_pylist()}
        data = tar.read_bytes()
        for sample in read_tar(tar):
            keys = further.get(sample.key, [])
            assert [view for view in sample.meta if view.startswith("view") and view[4:].isdigit()] == [
                f"view{n}" for n in range(2, 2 + len(keys))
            ]
            for number, (key, (jpeg, silhouette)) in enumerate(zip(keys, sample.further, strict=True)):
                assert (jpeg, silhouette) == (crops[key]["jpeg"], crops[key]["silhouette"])
                assert sample.meta[f"view{2 + number}"]["key"] == key
                place = index[sample.key]["further"][number]["jpg"]
                assert data[place["offset"] :][: place["size"]] == jpeg
                seen += 1
    assert seen == sum(map(len, further.values())) > 10


def test_a_crop_that_is_gone_is_said(build: Path, tmp_path: Path) -> None:
    path = build / "crops/cameras-b.crops.parquet"
    tables.write("crops", tables.read("crops", path).slice(1), path)
    with pytest.raises(StageError, match=r"1 crops that pairs of cameras-b name are not there"):
        pack(build, tmp_path / "shards")


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
    with pytest.raises(StageError, match=r"(?s)not one pair.*-m manifests show \S+ --table rejects"):
        plan_shards(tmp_path / "pairs", [{}], rows=10, seed=0)
