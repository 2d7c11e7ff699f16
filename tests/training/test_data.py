"""The stream: the right pixels in the right order for anybody, memory that is never overwritten, damage that is told."""

import gc
import hashlib
import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from manifests import table as tables
from manifests.errors import ManifestError, ShardError
from manifests.sample import read_tar, unpack_cells
from manifests.types import Split
from tests.support.builds import Made, encode, make_sample, texture, write_shard, write_shards
from training.data import PairStream, _Memory, _tell_repeated, validation_batches
from training.shards import _further

ROWS = {"a": (9, 7), "b": (6,)}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two sources for training, one for validation."""
    return write_shards(
        tmp_path_factory.mktemp("built") / "shards",
        [
            Made(source="a", rows=ROWS["a"], weight=2.0),
            Made(source="b", rows=ROWS["b"]),
            Made(source="a", rows=(3, 2), split="val"),
            Made(source="b", rows=(4,), split="val"),
        ],
    )


@pytest.fixture
def copied(built, tmp_path):
    """The same, to be damaged."""
    return Path(shutil.copytree(built, tmp_path / "shards"))


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    if num_threads():  # a failed test's traceback may hold its stream in a cycle
        gc.collect()
    assert num_threads() == 0


def num_threads():
    return sum(thread.name.startswith("pairs") for thread in threading.enumerate())


def stream(folder, **other):
    return PairStream(folder, **{"split": Split.TRAIN, "seed": 11, "batch_size": 4, **other})


def samples_of(folder, split):
    """Every sample by its key, read the plain way."""
    return {s.key: s for path in sorted(folder.glob(f"{split}-*.tar")) for s in read_tar(path)}


def keys_of(batches):
    return [key for batch in batches for key in batch.keys]


def test_pixels_and_silhouettes_are_those_of_the_tar(built):
    samples = samples_of(built, "train")
    with stream(built, threads=3, batch_size=7) as batches:
        for batch in islice(batches, 5):
            for i, key in enumerate(batch.keys):
                sample = samples[key]
                np.testing.assert_array_equal(batch.target_BHWC[i], simplejpeg.decode_jpeg(sample.target_jpg))
                np.testing.assert_array_equal(batch.reference_BHWC[i], simplejpeg.decode_jpeg(sample.reference_jpg))
                np.testing.assert_array_equal(batch.target_cells_BGG[i], unpack_cells(sample.target_sil))
                np.testing.assert_array_equal(batch.reference_cells_BGG[i], unpack_cells(sample.reference_sil))
            assert batch.target_cells_BGG.any()
            assert not batch.target_cells_BGG.all()


def with_further(number):
    """A sample with so many further views."""
    sample = make_sample(f"v/train/000000/{number:06d}", source="v")
    views = [make_sample(f"other/{number}/{k}") for k in range(number)]
    return replace(sample, further=tuple((view.target_jpg, view.target_sil) for view in views))


@pytest.fixture
def viewed(tmp_path):
    """A shard whose samples have 0, 1, 2 and 3 further views."""
    about = {"split": "train", "source": "v", "licence": "none", "domain": "body", "weight": 1.0}
    row = write_shard(tmp_path / "shards", "train-v-body-000000", [with_further(n) for n in range(4)], **about)
    tables.write("shards", tables.from_rows("shards", [row]), tmp_path / "shards/shards.parquet")
    return tmp_path / "shards"


@pytest.mark.parametrize("num_references", [1, 2, 3, 5])
def test_further_views_come_in_turn(viewed, num_references):
    samples = samples_of(viewed, "train")
    with stream(viewed, num_references=num_references) as batches, stream(viewed) as plain:
        batch, usual = next(batches), next(plain)
    assert batch.keys == usual.keys
    assert sorted(batch.keys) == sorted(samples)
    np.testing.assert_array_equal(batch.reference_BHWC, usual.reference_BHWC)
    assert usual.further_BFHWC is None
    if num_references == 1:
        assert batch.further_BFHWC is None
        return
    assert batch.further_BFHWC.shape == (4, num_references - 1, 256, 256, 3)
    for i, key in enumerate(batch.keys):
        shown = [samples[key].reference_jpg, *(jpg for jpg, _ in samples[key].further)]
        for number in range(1, num_references):
            wanted = simplejpeg.decode_jpeg(shown[number % len(shown)])
            np.testing.assert_array_equal(batch.further_BFHWC[i, number - 1], wanted)


def test_references_that_are_shown_again_are_told_once(viewed, caplog):
    _tell_repeated.cache_clear()
    with stream(viewed, num_references=9) as batches:
        next(batches), next(batches)
    told = [record.getMessage() for record in caplog.records if "shown these again" in record.getMessage()]
    assert told
    assert len(told) == len(set(told))


@pytest.mark.parametrize(("field", "value"), [("offset", 10**9), ("offset", -1), ("size", -1), ("size", 5 << 20)])
def test_a_further_view_outside_the_tar_is_refused(viewed, field, value):
    rows = tables.read("index", viewed / "train-v-body-000000.index.parquet").to_pylist()
    num_bytes = (viewed / "train-v-body-000000.tar").stat().st_size
    starts, _ = _further(tables.from_rows("index", rows), num_bytes, "here")
    assert starts == [0, 0, 1, 3, 6]
    rows[2]["further"][1]["jpg"][field] = value
    with pytest.raises(ShardError, match=f"a further view cannot be in a tar of {num_bytes} bytes"):
        _further(tables.from_rows("index", rows), num_bytes, "here")


def test_the_stream_follows_the_order(built):
    table = tables.read("shards", built / "shards.parquet").to_pylist()
    names = sorted(row["name"] for row in table if row["split"] == "train")
    with stream(built) as batches:
        got = list(islice(batches, 12))
        shard_N, row_N = batches.order.locate(np.arange(48))
        assert batches.position == 48
        assert batches.rows == sum(map(sum, ROWS.values()))
    expected = [f"{names[s].split('-')[1]}/train/{names[s][-6:]}/{r:06d}" for s, r in zip(shard_N, row_N, strict=True)]
    assert keys_of(got) == expected
    np.testing.assert_array_equal(np.concatenate([b.index_B for b in got]), np.arange(48))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("world", "batch_size"), [(1, 12), (2, 6), (3, 4), (4, 3)])
def test_any_number_of_ranks_and_threads_reads_the_same_global_batches(built, world, batch_size, threads):
    with stream(built, batch_size=12, threads=1) as alone:
        expected = keys_of(islice(alone, 3))
    ranks = [
        stream(built, batch_size=batch_size, rank=rank, world=world, threads=threads, verify=False)
        for rank in range(world)
    ]
    got = [keys_of(next(rank) for rank in ranks) for _ in range(3)]
    assert [key for keys in got for key in keys] == expected
    assert {rank.position for rank in ranks} == {36}
    for rank in ranks:
        rank.close()


def test_resuming_at_every_step_on_another_world_gives_the_rest(built):
    with stream(built, batch_size=2) as whole:
        batches = list(islice(whole, 14))
        positions = [2 * (i + 1) for i in range(14)]
        pixels = np.concatenate([b.target_BHWC for b in batches])
    for step, position in enumerate(positions[:-4]):
        halves = [stream(built, batch_size=2, rank=rank, world=2, position=position, verify=False) for rank in range(2)]
        resumed = [next(half) for _ in range(2) for half in halves]
        assert keys_of(resumed) == keys_of(batches[step + 1 : step + 5])
        np.testing.assert_array_equal(np.concatenate([b.target_BHWC for b in resumed]), pixels[position : position + 8])
        assert resumed[0].index_B[0] == position
        for half in halves:
            half.close()


def test_position_counts_what_was_yielded_and_not_what_was_read_ahead(built):
    with stream(built, batch_size=5, world=2, rank=1, position=100) as batches:
        assert batches.position == 100
        assert next(batches).index_B.tolist() == [105, 106, 107, 108, 109]
        assert batches.position == 110
    assert batches.position == 110
    with pytest.raises(StopIteration):
        next(batches)


def test_batches_that_are_kept_stay_as_they_were(built):
    samples = samples_of(built, "train")
    with stream(built) as batches:
        kept, views = [], []
        for batch in islice(batches, 12):
            kept.append(batch)
            views.append((batch.keys[1], batch.reference_BHWC[1, 10:20]))
            if len(kept) > 3:
                kept.pop(0)  # only a slice of this one is still held
            del batch
        for key, view in views:
            np.testing.assert_array_equal(view, simplejpeg.decode_jpeg(samples[key].reference_jpg)[10:20])


def test_memory_comes_back_only_when_the_last_view_is_gone():
    torch = pytest.importorskip("torch")
    memory = _Memory()
    first = memory.take((2, 8))
    address = first.ctypes.data
    tensor = torch.from_numpy(first[1])
    del first
    second = memory.take((2, 8))
    assert second.ctypes.data != address
    del tensor
    third = memory.take((1, 8))
    assert third.ctypes.data == address, "the memory is used again, for a smaller batch too"


def test_the_stream_reuses_memory(built):
    seen = set()
    with stream(built) as batches:
        for batch in islice(batches, 20):
            seen.add(batch.target_BHWC.ctypes.data)
            del batch
    assert len(seen) <= 5  # one in hand, two ahead, one growing, one to spare


def test_validation_reads_every_pair_once_in_order(built):
    batches = list(validation_batches(built, split=Split.VAL, batch_size=4))
    assert [len(batch) for batch in batches] == [4, 4, 1]
    assert keys_of(batches) == list(samples_of(built, "val"))
    assert np.concatenate([batch.index_B for batch in batches]).tolist() == list(range(9))
    again = list(validation_batches(built, split=Split.VAL, batch_size=9, threads=1))
    np.testing.assert_array_equal(np.concatenate([b.target_BHWC for b in batches]), again[0].target_BHWC)


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, [0]), (3, [0, 3, 6]), (8, [0, 1, 2, 3, 4, 5, 6, 7]), (50, range(9))]
)
def test_a_limit_spreads_over_the_split(built, limit, expected):
    batches = list(validation_batches(built, split=Split.VAL, batch_size=2, limit=limit))
    assert np.concatenate([batch.index_B for batch in batches]).tolist() == list(expected)
    keys = list(samples_of(built, "val"))
    assert keys_of(batches) == [keys[i] for i in expected]


def test_the_table_hash_tells_splits_and_changes_apart(built, copied):
    def table_hash(folder, split=Split.TRAIN):
        with stream(folder, split=split) as opened:
            return opened.table_hash

    assert table_hash(built) == table_hash(copied)
    assert table_hash(built) != table_hash(built, Split.VAL)
    rewrite(copied, lambda row: {**row, "weight": row["weight"] + (row["source"] == "b")})
    assert table_hash(built) != table_hash(copied)
    assert len(table_hash(built)) == 64


def rewrite(folder, change):
    """Change rows of the shard table."""
    path = folder / "shards.parquet"
    rows = [change(row) for row in tables.read("shards", path).to_pylist()]
    tables.write("shards", tables.from_rows("shards", rows), path)


# Damage: each case leaves a shard that must not be read, and says what and where.

TAR = "train-a-body-000000.tar"


def cut_between_samples(folder):
    path = folder / TAR
    index = tables.read("index", folder / TAR.replace(".tar", ".index.parquet")).to_pylist()
    path.write_bytes(path.read_bytes()[: index[4]["target_jpg"]["offset"] - 512])


def flip_a_bit(folder):
    path = folder / TAR
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)


def remove(suffix):
    def damage(folder):
        (folder / TAR.replace(".tar", suffix)).unlink()

    return damage


def other_index(folder):
    path = folder / TAR.replace(".tar", ".index.parquet")
    rows = tables.read("index", path).to_pylist()
    rows[2]["target_jpg"]["offset"] += 512
    tables.write("index", tables.from_rows("index", rows), path)


def commit_of_another_shard(folder):
    path = folder / TAR.replace(".tar", ".json")
    commit = json.loads(path.read_text())
    commit["files"][0]["rows"] += 1
    path.write_text(json.dumps(commit))


@pytest.mark.parametrize(
    ("damage", "match", "suffix"),
    [
        (cut_between_samples, r"the tar has \d+ bytes, its commit says", ".tar"),
        (remove(".tar"), "the tar cannot be read: No such file", ".tar"),
        (flip_a_bit, "the tar's SHA-256 is not", ".tar"),
        (remove(".index.parquet"), "the index cannot be read: No such file", ".index.parquet"),
        (other_index, "the index's SHA-256 is not", ".index.parquet"),
        (remove(".json"), "the shard has no commit", ".json"),
        (commit_of_another_shard, "the commit and the shard table tell different rows", ".json"),
    ],
)
def test_a_damaged_shard_is_refused(copied, damage, match, suffix):
    damage(copied)
    with pytest.raises(ShardError, match=match) as caught, stream(copied) as batches:
        list(islice(batches, 8))
    assert caught.value.where == str(copied / TAR.replace(".tar", suffix))
    assert "make shards" in caught.value.hint


def test_without_verification_sizes_are_still_compared(copied):
    flip_a_bit(copied)
    with stream(copied, verify=False) as batches:
        assert len(keys_of(islice(batches, 8))) == 32
    cut_between_samples(copied)
    with pytest.raises(ShardError, match="bytes, its commit says"):
        stream(copied, verify=False)


def reindex(folder, change):
    """Change the index of a shard, and all that vouches for it."""
    name = TAR.removesuffix(".tar")
    path = folder / f"{name}.index.parquet"
    rows = tables.read("index", path).to_pylist()
    change(rows)
    tables.write("index", tables.from_rows("index", rows), path)
    digest, size = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
    commit = json.loads((folder / f"{name}.json").read_text())
    for file in commit["files"]:
        if file["table"] == "index":
            file.update(sha256=digest, bytes=size, rows=len(rows))
    (folder / f"{name}.json").write_text(json.dumps(commit))
    rewrite(folder, lambda row: {**row, "index_sha256": digest} if row["name"] == name else row)


def put(row, member, **change):
    def damage(rows):
        rows[row][member] = {**rows[row][member], **change}

    return damage


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (put(3, "target_jpg", offset=-1), "target.jpg of row 3 has offset -1"),
        (put(3, "json", offset=10**7), "json of row 3 has offset 10000000"),
        (put(8, "reference_jpg", size=2**62), "reference.jpg of row 8 .* size 4611686018427387904"),
        (put(8, "reference_jpg", offset=2**63 - 1), "reference.jpg of row 8 .* cannot be in a tar"),
        (put(0, "reference_sil", size=511), "reference.sil of row 0 .* size 511"),
        (lambda rows: rows.pop(), "commit and the shard table tell different rows"),
    ],
)
def test_an_index_that_points_elsewhere_is_refused_before_anything_is_read(copied, change, match):
    reindex(copied, change)
    with pytest.raises(ShardError, match=match), stream(copied) as batches:
        list(islice(batches, 8))


def one_odd_sample(tmp_path, **change):
    """A shard whose third sample is odd, in good order otherwise."""
    samples = [make_sample(f"made/train/{i}") for i in range(4)]
    samples[2] = replace(samples[2], **change)
    about = {"split": "train", "source": "made", "licence": "none", "domain": "body", "weight": 1.0}
    row = write_shard(tmp_path, "train-made-body-000000", samples, **about)
    tables.write("shards", tables.from_rows("shards", [row]), tmp_path / "shards.parquet")
    return tmp_path


@pytest.mark.parametrize(
    ("jpeg", "match"),
    [
        (encode(texture(1, size_px=128)), "an image is 128 x 128 pixels, not 256 x 256"),
        (encode(np.zeros((256, 264, 3), np.uint8)), "an image is 264 x 256 pixels"),
        (encode(texture(1))[:-2000], "an image does not decode"),
        (b"", "an image does not decode"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "an image does not decode"),
    ],
)
def test_an_image_that_is_not_as_agreed_is_an_error(tmp_path, jpeg, match):
    folder = one_odd_sample(tmp_path, reference_jpg=jpeg)
    with pytest.raises(ShardError, match=match) as caught, stream(folder) as batches:
        next(batches)
    assert caught.value.where.endswith("train-made-body-000000.tar: made/train/2.reference.jpg")
    with pytest.raises(ShardError, match=match):
        list(validation_batches(folder, split=Split.TRAIN, batch_size=2))


def test_further_views_of_a_sample_are_passed_over(tmp_path):
    more = make_sample("made/train/more")
    views = ((more.target_jpg, more.target_sil), (more.reference_jpg, more.reference_sil))
    folder = one_odd_sample(tmp_path, further=views)
    samples = list(read_tar(next(folder.glob("*.tar"))))
    assert [len(sample.further) for sample in samples] == [0, 0, 2, 0]
    [batch] = validation_batches(folder, split=Split.TRAIN, batch_size=4)
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(batch.target_BHWC[i], simplejpeg.decode_jpeg(sample.target_jpg))
        np.testing.assert_array_equal(batch.reference_cells_BGG[i], unpack_cells(sample.reference_sil))


def test_an_image_that_does_not_decode_loses_its_own_place_only(tmp_path):
    folder = one_odd_sample(tmp_path, target_jpg=b"no picture")
    with stream(folder, on_bad_shard="skip") as batches:
        got = list(islice(batches, 3))
        _shard_N, row_N = batches.order.locate(np.arange(12))
        assert batches.left_out == {"train-made-body-000000": 3}
    keys = keys_of(got)
    assert [key for key, row in zip(keys, row_N, strict=True) if row != 2] == [
        f"made/train/{row}" for row in row_N if row != 2
    ]
    assert "made/train/2" not in keys


@pytest.mark.parametrize(
    "damage",
    [remove(".tar"), remove(".json"), flip_a_bit, cut_between_samples, other_index],
    ids=["no tar", "no commit", "a bit", "cut", "other index"],
)
def test_a_damaged_shard_on_disk_is_left_out_by_policy(built, copied, damage, caplog):
    whole = samples_of(built, "train")
    damage(copied)
    with stream(copied, on_bad_shard="skip") as batches:
        keys = keys_of(islice(batches, 20))
        left_out = batches.left_out
    with stream(built) as batches:
        expected = keys_of(islice(batches, 20))
    bad = [key.startswith("a/train/000000/") for key in expected]
    assert left_out == {TAR.removesuffix(".tar"): sum(bad)}
    assert [key for key, is_bad in zip(keys, bad, strict=True) if not is_bad] == [
        key for key, is_bad in zip(expected, bad, strict=True) if not is_bad
    ]
    assert {key[:14] for key, is_bad in zip(keys, bad, strict=True) if is_bad} == {"a/train/000001"}
    assert set(keys) <= set(whole)
    assert caplog.text.count("is left out") == 1


@pytest.mark.parametrize("others", [0, 1])
def test_when_all_shards_of_a_source_are_left_out_that_is_said(tmp_path, others):
    made = [Made(source="one", rows=(3,)), *others * [Made(source="two", rows=(3, 3))]]
    folder = write_shards(tmp_path, made)
    for path in folder.glob("train-one-*.tar"):
        path.unlink()
    said = "all shards of split train with pairs of one had to be left out, 1 of 1: no pair can stand in; the last: "
    with stream(folder, on_bad_shard="skip") as batches, pytest.raises(ShardError) as caught:
        next(batches)
    assert caught.value.what.startswith(said)
    assert "train-one-" in caught.value.where
    with pytest.raises(ShardError) as caught, stream(folder) as batches:
        next(batches)
    assert "left out" not in caught.value.what


def test_an_image_without_colour_comes_as_three_equal_planes(tmp_path):
    gray = simplejpeg.encode_jpeg(texture(1)[:, :, :1].copy(), colorspace="GRAY")
    batches = validation_batches(one_odd_sample(tmp_path, target_jpg=gray), split=Split.TRAIN, batch_size=4)
    image = next(batches).target_BHWC[2]
    batches.close()
    np.testing.assert_array_equal(image, np.repeat(image[:, :, :1], 3, axis=2))
    assert image.std() > 10


def test_a_folder_without_table_or_split_is_refused(built, tmp_path):
    with pytest.raises(ManifestError, match="the shards table is missing") as caught:
        stream(tmp_path)
    assert caught.value.where == str(tmp_path / "shards.parquet")
    with pytest.raises(ManifestError, match="no shard of split test") as caught:
        stream(built, split=Split.TEST)
    for part in ("train, val", "recordings.toml", "render more (N=...)", "split: {val_share: ...}"):
        assert part in caught.value.hint


def test_no_path_is_built_from_a_hostile_name(copied):
    rewrite(copied, lambda row: {**row, "name": "../" + row["name"]} if row["rows"] == 9 else row)
    with pytest.raises(ShardError, match="cannot name a shard"):
        stream(copied)


@pytest.mark.parametrize("bad", [{"threads": 0}, {"batch_size": 0}, {"rank": 1}, {"position": -4}])
def test_arguments_out_of_range_are_refused(built, bad):
    with pytest.raises(ValueError, match=r"threads must be|no such slice"):
        stream(built, **bad)


def test_limits_out_of_range_are_refused(built):
    with pytest.raises(ValueError, match="must be at least 1"):
        validation_batches(built, split=Split.VAL, batch_size=4, limit=0)


def test_threads_end_when_the_stream_is_dropped(built):
    batches = stream(built)
    next(batches)
    assert num_threads() == 2
    del batches
    assert num_threads() == 0


def test_a_process_ends_quietly_with_an_open_stream(built):
    code = f"""
from pathlib import Path
from manifests.types import Split
from training.data import PairStream
batches = PairStream(Path({str(built)!r}), split=Split.TRAIN, seed=0, batch_size=4)
print(len(next(batches)))
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout, done.stderr) == (0, "4\n", "")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves its tars open
def test_stock_webdataset_reads_our_tars(built):
    wds = pytest.importorskip("webdataset")
    decoders = {
        "jpg": simplejpeg.decode_jpeg,
        "sil": unpack_cells,
        "json": json.loads,
    }

    def decode(sample):
        # Each member by its extension: never webdataset's default decoder, which unpickles.
        plain = {name: value for name, value in sample.items() if not name.startswith("__")}
        return {**sample, **{name: decoders[name.rpartition(".")[2]](value) for name, value in plain.items()}}

    for path in sorted(built.glob("*.tar")):
        dataset = wds.WebDataset(str(path), shardshuffle=False)
        ours = list(read_tar(path))
        raw = list(dataset)
        assert [sample["__key__"] for sample in raw] == [sample.key for sample in ours]
        for theirs, sample in zip(raw, ours, strict=True):
            assert {n: v for n, v in theirs.items() if not n.startswith("__")} == dict(sample.members())
        decoded = next(iter(dataset.map(decode)))
        assert decoded["json"] == ours[0].meta
        assert decoded["target.jpg"].shape == (256, 256, 3)
        np.testing.assert_array_equal(decoded["reference.sil"], unpack_cells(ours[0].reference_sil))
