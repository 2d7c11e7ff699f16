"""Shards over http and S3: the same stream as from disk, through every kind of failure, in a cache that keeps its bound."""

import errno
import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from manifests import table as tables
from manifests.errors import ManifestError, ShardError, TrainingError
from manifests.types import Split
from tests.support.builds import Made, write_shards
from tests.support.servers import serving
from training import remote
from training.data import PairStream, validation_batches
from training.storage import Cache, Folder, storage_of

REPOSITORY = Path(__file__).parents[2]
TAR = "train-a-body-000001.tar"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return write_shards(
        tmp_path_factory.mktemp("built") / "shards",
        [
            Made(source="a", rows=(6, 5, 4), weight=2.0),
            Made(source="b", rows=(3,)),
            Made(source="a", rows=(3, 2), split="val"),
        ],
    )


@pytest.fixture
def server(built):
    with serving(built) as files:
        yield files


@pytest.fixture
def cache(tmp_path):
    return Cache(folder=tmp_path / "cache")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Pauses of milliseconds, and no proxy between us and loopback."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(remote, "PAUSES_S", (0.001,) * 7)


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith(("pairs", "shards"))] == []


def url(server):
    return f"{server.address}/some/shards"


def stream(root, cache=None, **other):
    return PairStream(root, **{"split": Split.TRAIN, "seed": 5, "batch_size": 4, "cache": cache, **other})


def keys_of(batches):
    return [key for batch in batches for key in batch.keys]


def first_keys(root, cache=None, *, num=6, **other):
    with stream(root, cache, **other) as batches:
        return keys_of(islice(batches, num))


def rows_of(folder):
    return {row["name"]: row for row in tables.read("shards", folder / "shards.parquet").to_pylist()}


def test_the_stream_is_that_of_the_disk(built, server, cache):
    with stream(built) as near, stream(url(server), cache) as far:
        assert near.table_hash == far.table_hash
        for ours, theirs in zip(islice(near, 8), islice(far, 8), strict=True):
            assert ours.keys == theirs.keys
            np.testing.assert_array_equal(ours.target_BHWC, theirs.target_BHWC)
            np.testing.assert_array_equal(ours.reference_cells_BGG, theirs.reference_cells_BGG)
    assert keys_of(validation_batches(url(server), split=Split.VAL, batch_size=2, cache=cache)) == keys_of(
        validation_batches(built, split=Split.VAL, batch_size=2)
    )
    objects = list((cache.folder / "objects").iterdir())
    assert {path.name for path in objects} == {
        row[column] for row in rows_of(built).values() for column in ("sha256", "index_sha256")
    }
    for path in objects:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert max(server.count(".tar").values()) == 1, "what is in the cache is not fetched again"


def test_s3_is_read_with_credentials_from_the_environment(built, server, cache, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server.faults = {TAR: ["drop", "busy"], "train-b-body-000000.tar": ["flip"]}
    assert first_keys("s3://bucket/some/shards", cache) == first_keys(built)
    assert server.signed == len(server.gets) > 0
    server.faults = {"shards.parquet": ["missing", "*"]}
    with pytest.raises(ShardError, match="it cannot be fetched") as caught:
        stream("s3://bucket/some/shards", cache)
    assert caught.value.where == "s3://bucket/some/shards/shards.parquet"


@pytest.mark.parametrize(
    "faults",
    [
        ["refuse"] * 3,
        ["drop"] * 4,
        ["busy", "refuse", "drop"],
        ["missing"],
        ["flip"],
        ["cut"],
        ["more"],
        ["drop", "whole"],
        ["drop", "flip"],
    ],
    ids="-".join,
)
def test_what_fails_for_a_while_is_tried_again(built, server, cache, faults):
    server.faults = {TAR: list(faults), TAR.replace(".tar", ".index.parquet"): list(faults), "shards.parquet": ["drop"]}
    assert first_keys(url(server), cache) == first_keys(built)
    assert server.faults[TAR] == []
    starts = [first for name, first in server.gets if name == TAR]
    # The last two end well: the whole file is as good as the rest of it, and the wrong bit is in the half that was there.
    assert len(starts) == len(faults) + (faults not in (["drop", "whole"], ["drop", "flip"]))
    if "drop" in faults:
        assert 0 < starts[faults.index("drop") + 1] < rows_of(built)[TAR.removesuffix(".tar")]["bytes"]


def test_silence_is_a_lost_connection(built, server, cache, monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.3)
    server.faults = {TAR: ["stall"]}
    assert first_keys(url(server), cache) == first_keys(built)
    assert server.count(".tar")[TAR] == 2


def test_pauses_grow_and_begin_anew_when_bytes_come(server, cache, monkeypatch):
    pauses = []
    monkeypatch.setattr(remote, "PAUSES_S", (1.0, 2.0, 4.0))
    monkeypatch.setattr(remote.Remote, "_wait", lambda self, seconds: pauses.append(seconds))
    server.faults = {"shards.parquet": ["refuse", "refuse", "drop", "refuse", "refuse"]}
    storage = storage_of(url(server), cache)
    storage.small("shards.parquet")
    assert [pause for pause in pauses if pause] == [1.0, 2.0, 1.0, 2.0, 4.0]
    server.faults = {"shards.parquet": ["refuse", "*"]}
    with pytest.raises(TrainingError, match=r"tried 4 times"):
        storage.small("shards.parquet")


@pytest.mark.parametrize(
    ("fault", "match", "tries"),
    [
        ("missing", "HTTP 404", 2),
        ("flip", "its SHA-256 is not the one it was committed with", 3),
        ("cut", r"it has \d+ bytes, its commit says \d+", 3),
        ("more", r"it has \d+ bytes, its commit says \d+", 3),
    ],
)
def test_a_shard_that_stays_bad_is_an_error_that_names_it(server, cache, fault, match, tries):
    server.faults = {TAR: [fault, "*"]}
    with pytest.raises(ShardError, match=match) as caught:
        first_keys(url(server), cache)
    assert caught.value.where == f"{url(server)}/{TAR}"
    assert server.count(".tar")[TAR] == tries


@pytest.mark.parametrize(("fault", "tries"), [("refuse", 8), ("busy", 8), ("denied", 2)])
@pytest.mark.parametrize("policy", ["error", "skip"])
def test_a_connection_that_stays_lost_is_an_error_in_any_case(server, cache, fault, tries, policy):
    # It says nothing of the shard: other ranks may well read it.
    server.faults = {TAR: [fault, "*"]}
    with pytest.raises(TrainingError, match=rf"it cannot be fetched: .*\(tried {tries} times\)") as caught:
        first_keys(url(server), cache, on_bad_shard=policy)
    assert caught.value.where == f"{url(server)}/{TAR}"


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_a_full_disk_is_an_error_in_any_case(server, cache, policy, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(remote.os, "fsync", full)
    with pytest.raises(TrainingError, match="the cache cannot be written: No space left"):
        first_keys(url(server), cache, on_bad_shard=policy)


def test_a_bad_shard_is_left_out_alike_for_every_world_and_resume(built, server, tmp_path, caplog):
    server.faults = {TAR: ["flip", "*"]}
    whole = dict(enumerate(first_keys(built, num=12)))
    bad = {place for place, key in whole.items() if key.startswith("a/train/000001/")}
    assert len(bad) > 8
    with (
        caplog.at_level(logging.WARNING, "training.data"),
        stream(url(server), Cache(folder=tmp_path / "0"), on_bad_shard="skip") as batches,
    ):
        alone = keys_of(islice(batches, 12))
        assert batches.left_out == Counter({TAR.removesuffix(".tar"): len(bad)})
    assert [key for place, key in enumerate(alone) if place not in bad] == [
        key for place, key in whole.items() if place not in bad
    ]
    stood_in = [alone[place] for place in sorted(bad)]
    assert all(key.startswith(("a/train/000000/", "a/train/000002/")) for key in stood_in)
    assert len(set(stood_in)) > 3
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert f"{url(server)}/{TAR}" in warnings[0]

    # Three ranks of another batch size, begun in the middle, with a cache of their own each, threads in any number.
    for rank in range(3):
        with stream(
            url(server),
            Cache(folder=tmp_path / f"rank{rank}"),
            batch_size=2,
            rank=rank,
            world=3,
            position=12,
            threads=1 + rank,
            on_bad_shard="skip",
        ) as batches:
            for batch in islice(batches, 6):
                assert list(batch.keys) == [alone[place] for place in batch.index_B]


def test_a_source_without_any_good_shard_is_an_error_in_any_case(built, server, cache):
    server.faults = {"train-b-body-000000.tar": ["missing", "*"]}
    with pytest.raises(ShardError, match="HTTP 404"):
        first_keys(url(server), cache, on_bad_shard="skip")


def test_validation_leaves_nothing_out(server, cache):
    server.faults = {"val-a-body-000001.tar": ["missing", "*"]}
    with pytest.raises(ShardError, match="HTTP 404"):
        list(validation_batches(url(server), split=Split.VAL, batch_size=2, cache=cache))


def test_the_next_block_is_fetched_before_it_is_needed(tmp_path):
    folder = write_shards(tmp_path / "shards", [Made(source="a", rows=(1,) * 20)])
    with serving(folder) as server, stream(url(server), Cache(folder=tmp_path / "cache"), batch_size=1) as batches:
        near = {batches.order.near(0)[i] for i in range(16)}
        next(batches)
        deadline = time.monotonic() + 20
        while len(server.count(".tar")) < 16 and time.monotonic() < deadline:
            time.sleep(0.01)
        names = sorted(rows_of(folder))
        assert set(server.count(".tar")) == {f"{names[i]}.tar" for i in near}


def bytes_in(folder):
    """What the files of a folder take; one may be renamed meanwhile."""
    total = 0
    for path in list(folder.iterdir()):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def test_the_cache_keeps_its_bound_and_throws_out_what_was_used_least_recently(tmp_path):
    folder = write_shards(tmp_path / "shards", [Made(source="a", rows=(1,) * 40)])
    rows = rows_of(folder)
    largest = sorted(row["bytes"] for row in rows.values())[-17:]
    index_bytes = sum(path.stat().st_size for path in folder.glob("*.index.parquet"))
    cache = Cache(folder=tmp_path / "cache", max_bytes=sum(largest) + index_bytes)
    most = 0
    with serving(folder) as server:
        with stream(url(server), cache, batch_size=4) as batches:
            got = []
            for batch in islice(batches, 30):
                got += batch.keys
                most = max(most, bytes_in(cache.folder / "objects"))
        assert got == first_keys(folder, num=30, batch_size=4)
        assert sum(server.count(".tar").values()) > 40, "three epochs do not fit: some must have been fetched again"
        assert 0.7 * cache.max_bytes < most <= cache.max_bytes

        storage = storage_of(url(server), cache)
        order = sorted(rows.values(), key=lambda row: row["name"])
        for row in order:
            with storage.hold(f"{row['name']}.tar", sha256=row["sha256"], num_bytes=row["bytes"], verify=True):
                time.sleep(0.002)
        left = {path.name for path in (cache.folder / "objects").glob("*")}
        assert {row["sha256"] for row in order[-15:]} <= left
        assert order[0]["sha256"] not in left


def test_a_file_that_is_held_is_not_thrown_out(built, server, cache):
    rows = list(rows_of(built).values())[:2]
    arguments = [
        {"name": f"{row['name']}.tar", "sha256": row["sha256"], "num_bytes": row["bytes"], "verify": True}
        for row in rows
    ]
    small = Cache(folder=cache.folder, max_bytes=max(row["bytes"] for row in rows))
    storage, other = storage_of(url(server), small), storage_of(url(server), small)
    with storage.hold(**arguments[0]) as path:
        waiting = threading.Thread(target=lambda: other.hold(**arguments[1]).__enter__())
        waiting.start()
        time.sleep(0.2)
        assert path.exists(), "there is room for one only, and that is in use"
    waiting.join(timeout=20)
    assert {file.name for file in (cache.folder / "objects").glob("*")} == {rows[1]["sha256"]}


def test_damage_on_the_cache_s_disk_is_found_and_fetched_again(built, server, cache, caplog):
    expected = first_keys(url(server), cache)
    path = cache.folder / "objects" / rows_of(built)[TAR.removesuffix(".tar")]["sha256"]
    data = bytearray(path.read_bytes())
    data[4000] ^= 1
    path.write_bytes(data)
    assert first_keys(url(server), cache) == expected
    assert "damaged in the cache" in caplog.text
    path.write_bytes(data[:-5000])
    assert first_keys(url(server), cache, verify=False) == expected
    assert server.count(".tar")[TAR] == 3


CODE = """
import sys
from itertools import islice
from pathlib import Path
from manifests.types import Split
from training.data import PairStream
from training.storage import Cache
root, folder = sys.argv[1:]
with PairStream(root, split=Split.TRAIN, seed=5, batch_size=4, cache=Cache(folder=Path(folder))) as batches:
    print("open", flush=True)
    print(" ".join(key for batch in islice(batches, 6) for key in batch.keys), flush=True)
"""


def start(server, cache):
    command = [sys.executable, "-W", "error", "-c", CODE, url(server), str(cache.folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)


def test_processes_share_a_cache_and_fetch_each_shard_once(built, server, cache):
    expected = " ".join(first_keys(built))
    for process in [start(server, cache) for _ in range(2)]:
        out, err = process.communicate(timeout=100)
        assert (out, err, process.returncode) == (f"open\n{expected}\n", "", 0)
    assert server.count(".tar") == {f"{name}.tar": 1 for name in rows_of(built) if name.startswith("train")}


def test_a_killed_process_leaves_nothing_in_the_way(built, server, cache):
    server.faults = {TAR: ["stall"]}
    process = start(server, cache)
    row = rows_of(built)[TAR.removesuffix(".tar")]
    part = cache.folder / "objects" / f"{row['sha256']}.{row['bytes']}.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    had = part.stat().st_size
    assert had > 0
    assert first_keys(url(server), cache) == first_keys(built)
    assert [first for name, first in server.gets if name == TAR] == [0, had], "it went on where the other was killed"
    assert list(cache.folder.rglob("*.part")) == []


def test_closing_a_stream_ends_what_is_being_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSES_S", (600.0,))
    folder = write_shards(tmp_path / "shards", [Made(source="a", rows=(1,) * 20)])
    with serving(folder) as server:
        batches = stream(url(server), Cache(folder=tmp_path / "cache"), batch_size=1)
        names = sorted(rows_of(folder))
        later = [f"{names[i]}.tar" for i in batches.order.near(0)[8:]]
        server.faults = {name: ["refuse", "*"] for name in later}
        next(batches)
        while not any(server.count(".tar")[name] for name in later):
            time.sleep(0.01)
        began = time.monotonic()
        batches.close()
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("root", "match"),
    [
        ("ftp://host/shards", "cannot be read from ftp://"),
        ("http:///shards", "cannot be read from"),
        ("https://me:secret@host/shards", "has a password or a query"),
        ("s3://bucket/shards?key=secret", "has a password or a query"),
    ],
)
def test_other_addresses_are_refused_without_telling_secrets(cache, root, match):
    with pytest.raises(ShardError, match=match) as caught:
        stream(root, cache)
    assert "secret" not in str(caught.value)


def test_a_cache_that_cannot_serve_is_refused(built, server, tmp_path):
    with pytest.raises(ShardError, match="cannot hold the shards that are read at once") as caught:
        stream(url(server), Cache(folder=tmp_path / "cache", max_bytes=100_000))
    needed = sum(row["bytes"] for row in rows_of(built).values() if row["split"] == "train")
    assert str(needed) in caught.value.hint
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="the cache cannot be written"):
        stream(url(server), Cache(folder=tmp_path / "file"))
    with pytest.raises(ValueError, match="max_bytes"):
        Cache(folder=tmp_path, max_bytes=0)


def test_what_is_no_table_is_refused(server, cache):
    server.faults = {"shards.parquet": ["cut"]}
    with pytest.raises(ManifestError, match="not a readable shards table"):
        stream(url(server), cache)


def test_a_path_is_a_local_folder(tmp_path):
    assert isinstance(storage_of(tmp_path), Folder)
    assert isinstance(storage_of(str(tmp_path)), Folder)
