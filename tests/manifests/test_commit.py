"""The commit rule: whole or not at all, whatever stops it, and the same bytes every time."""

import errno
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manifests import commit as commit_module
from manifests import table as tables
from manifests.commit import (
    Commit,
    DataFile,
    UnitWriter,
    commits,
    content_hash,
    is_committed,
    iter_tables,
    read_commit,
    sweep,
)
from manifests.errors import ManifestError, StageError
from manifests.files import sha256_of, write_bytes, write_json
from manifests.types import Reason, Reject

REPOSITORY = Path(__file__).parents[2]
ROW = {"stage": "crops", "key": "a/b", "reason": "cut", "detail": "", "count": 1}


def write_unit(folder, unit="u1", *, fingerprint="f1", rows=3, tar=b"bytes of a tar"):
    """A unit with a table, a tar and a reject."""
    with UnitWriter(folder, stage="shards", unit=unit, fingerprint=fingerprint) as out:
        path = out.path(".tar")
        path.write_bytes(tar)
        out.add(path, table="tar", rows=rows)
        out.table("pairs", tables.empty("pairs"))
        out.reject([Reject("shards", "k", Reason.ALIKE), Reject("shards", "l", Reason.ALIKE)])
        out.counts["cross_view"] = rows
    return read_commit(folder / f"{unit}.json")


def start_unit(folder, unit, *, then):
    """A unit that fails after it has written data."""
    with UnitWriter(folder, stage="shards", unit=unit, fingerprint="f1") as out:
        out.table("pairs", tables.empty("pairs"))
        out.path(".tar").write_bytes(b"half")
        raise then


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_unit_is_what_its_commit_says(tmp_path):
    commit = write_unit(tmp_path)
    assert set(contents(tmp_path)) == {"u1.json", "u1.pairs.parquet", "u1.rejects.parquet", "u1.tar"}
    assert commit.unit == "u1"
    assert commit.stage == "shards"
    assert commit.counts == {"cross_view": 3, "pairs": 0, "rejects": 2}
    assert commit.rejects == {"alike": 2}
    for file in commit.files:
        data = (tmp_path / file.name).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert sha256_of(tmp_path / file.name) == file.sha256
    tar = commit.file("tar")
    assert (tar.name, tar.rows, tar.version) == ("u1.tar", 3, 1)
    assert commit.file("crops") is None
    assert commits(tmp_path) == [commit]
    assert pickle.loads(pickle.dumps(commit)) == commit


def test_two_writes_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_unit(tmp_path / name)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    write_unit(tmp_path / "one")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert content_hash(tmp_path / "one") == content_hash(tmp_path / "two")


def test_a_commit_with_fewer_files_than_before_leaves_none_of_those(tmp_path):
    write_unit(tmp_path)
    with UnitWriter(tmp_path, stage="shards", unit="u1", fingerprint="f2") as out:
        out.table("pairs", tables.empty("pairs"))
    assert set(contents(tmp_path)) == {"u1.json", "u1.pairs.parquet"}


def test_an_exception_leaves_nothing_behind(tmp_path):
    before = write_unit(tmp_path) and contents(tmp_path)
    for unit in ("u1", "u2"):
        with pytest.raises(RuntimeError, match="in the middle"):
            start_unit(tmp_path, unit, then=RuntimeError("in the middle"))
        assert contents(tmp_path) == before
    assert not is_committed(tmp_path, "u2", "f1")


@pytest.mark.parametrize("stop_at", range(28))
def test_a_commit_that_stops_at_any_step_vouches_for_nothing_it_has_not(tmp_path, monkeypatch, stop_at):
    """Stops before each call to the file system in turn, without any clean-up, as a power cut does."""
    write_unit(tmp_path, "other")
    write_unit(tmp_path, fingerprint="f0", tar=b"of an older recipe!")
    undisturbed = tmp_path / "undisturbed"
    write_unit(undisturbed)
    calls = 0

    class PowerCut(BaseException):
        pass

    def counted(real):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > stop_at:
                raise PowerCut
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for target, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
            patch.setattr(target, name, counted(getattr(target, name)))
        patch.setattr(commit_module.shutil, "rmtree", lambda *args, **kwargs: None)
        try:
            write_unit(tmp_path)
            finished = True
        except PowerCut:
            finished = False
    # Whatever is committed now is true, byte for byte.
    for commit in commits(tmp_path):
        for file in commit.files:
            assert sha256_of(tmp_path / file.name) == file.sha256, (commit.unit, file.name)
    assert is_committed(tmp_path, "other", "f1")
    assert finished <= is_committed(tmp_path, "u1", "f1")
    # And going on gives the bytes of never having been stopped.
    write_unit(tmp_path)
    sweep(tmp_path)
    expected = contents(undisturbed)
    assert {name: contents(tmp_path)[name] for name in expected} == expected
    assert not (tmp_path / "_tmp").exists()
    assert not list(tmp_path.glob(".*.tmp"))


def test_the_power_cuts_above_reach_to_the_end(tmp_path, monkeypatch):
    calls = []
    for target, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
        real = getattr(target, name)
        monkeypatch.setattr(target, name, lambda *a, _real=real, **k: (calls.append(1), _real(*a, **k))[1])
    write_unit(tmp_path)
    assert 8 <= len(calls) <= 28


@pytest.mark.parametrize("delay_s", [0.0, 0.002, 0.01, 0.03])
def test_a_killed_writer_leaves_no_readable_half(tmp_path, delay_s):
    code = f"""
import sys
from pathlib import Path
from manifests import table as tables
from manifests.commit import UnitWriter
folder, row = Path(sys.argv[1]), {ROW!r}
print("go", flush=True)
for number in range(10**6):
    with UnitWriter(folder, stage="crops", unit=f"u{{number:06d}}", fingerprint="f1") as out:
        path = out.path(".tar")
        path.write_bytes(bytes(2_000_000))
        out.add(path, table="tar", rows=1)
        out.table("rejects", tables.from_rows("rejects", [row] * 500))
"""
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, cwd=REPOSITORY)
    assert process.stdout.readline() == b"go\n"
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    done = commits(tmp_path)
    assert done, "at least one unit was committed before the kill"
    for commit in done:
        assert is_committed(tmp_path, commit.unit, "f1")
        for file in commit.files:
            assert sha256_of(tmp_path / file.name) == file.sha256
    assert sum(data.num_rows for _, data in iter_tables(tmp_path, "rejects")) == 500 * len(done)
    sweep(tmp_path)
    assert not (tmp_path / "_tmp").exists()
    names = {f"{commit.unit}.json" for commit in done}
    assert {path.name for path in tmp_path.glob("*.json")} == names


def test_two_writers_of_one_unit_do_not_write_into_each_other(tmp_path):
    first = UnitWriter(tmp_path, stage="shards", unit="u1", fingerprint="f1")
    second = UnitWriter(tmp_path, stage="shards", unit="u1", fingerprint="f1")
    with first:
        with second:
            for out in (first, second):
                out.table("pairs", tables.empty("pairs"))
        middle = contents(tmp_path)
        assert "u1.json" in middle
    assert {n: d for n, d in middle.items() if not n.startswith("_tmp")} == contents(tmp_path)


def test_what_is_committed_depends_on_the_fingerprint_and_the_sizes(tmp_path):
    write_unit(tmp_path)
    assert is_committed(tmp_path, "u1", "f1")
    assert not is_committed(tmp_path, "u1", "f2")
    assert not is_committed(tmp_path, "u2", "f1")
    (tmp_path / "u1.tar").write_bytes(b"short")
    assert not is_committed(tmp_path, "u1", "f1")
    (tmp_path / "u1.tar").unlink()
    assert not is_committed(tmp_path, "u1", "f1")


def test_the_content_hash_follows_data_and_names_only(tmp_path):
    for name, unit, tar in (("a", "u1", b"x"), ("b", "u1", b"y"), ("c", "u2", b"x")):
        write_unit(tmp_path / name, unit, tar=tar)
    hashes = {name: content_hash(tmp_path / name) for name in "abc"}
    assert len(set(hashes.values())) == 3
    assert content_hash(tmp_path / "a", only=["pairs"]) == content_hash(tmp_path / "b", only=["pairs"])
    write_unit(tmp_path / "d", fingerprint="another", tar=b"x")
    assert content_hash(tmp_path / "d") == hashes["a"]
    assert content_hash(tmp_path / "nowhere") == hashlib.sha256(b"").hexdigest()


def test_tables_are_read_unit_by_unit_and_only_when_committed(tmp_path):
    for unit in ("b", "a"):
        write_unit(tmp_path, unit)
    (tmp_path / "a.json").unlink()
    write_json(tmp_path / "plan.json", {"units": ["a", "b"]})
    write_json(tmp_path / "stats.json", {})
    assert [(commit.unit, data.num_rows) for commit, data in iter_tables(tmp_path, "rejects")] == [("b", 2)]
    assert not list(iter_tables(tmp_path, "crops"))


GOOD = Commit(
    stage="s",
    unit="u1",
    fingerprint="f",
    files=(DataFile(name="u1.tar", table="tar", version=1, rows=1, bytes=1, sha256="0"),),
    counts={},
    rejects={},
)


def as_json(**change):
    file = {"name": "u1.tar", "table": "tar", "version": 1, "rows": 1, "bytes": 1, "sha256": "0"}
    return {"stage": "s", "unit": "u1", "fingerprint": "f", "files": [file], "counts": {}, "rejects": {}, **change}


def test_a_commit_is_read_strictly(tmp_path):
    path = tmp_path / "u1.json"
    write_json(path, as_json())
    assert read_commit(path) == GOOD
    file = as_json()["files"][0]
    for bad in (
        "",
        "{",
        "[]",
        "7",
        '"text"',
        "null",
        "[" * 10**5,
        json.dumps(as_json(more=1)),
        json.dumps({k: v for k, v in as_json().items() if k != "files"}),
        json.dumps(as_json(files=[{**file, "rows": "many"}])),
        json.dumps(as_json(files=[{**file, "colour": "red"}])),
        json.dumps(as_json(files=7)),
        json.dumps(as_json(counts={"a": "b"})),
    ):
        path.write_text(bad)
        with pytest.raises(ManifestError, match="not a commit file") as caught:
            read_commit(path)
        assert caught.value.where == str(path)
        assert "run the stage again" in caught.value.hint


@pytest.mark.parametrize("name", ["../u1.tar", "/etc/passwd", "sub/u1.tar", "..", "", "u2.tar", "u1"])
def test_a_commit_may_only_name_its_own_files(tmp_path, name):
    path = tmp_path / "u1.json"
    write_json(path, as_json(files=[{**as_json()["files"][0], "name": name}]))
    with pytest.raises(ManifestError, match="names another unit or a file elsewhere"):
        read_commit(path)


def test_a_commit_may_not_be_renamed(tmp_path):
    write_unit(tmp_path)
    (tmp_path / "u1.json").rename(tmp_path / "u2.json")
    with pytest.raises(ManifestError, match="names another unit"):
        commits(tmp_path)


@pytest.mark.parametrize("unit", ["", "A", "a/b", "..", "a.b", "plan", "stats"])
def test_a_unit_that_would_not_be_found_again_is_refused(tmp_path, unit):
    with pytest.raises(ValueError, match="does not match"):
        UnitWriter(tmp_path, stage="s", unit=unit, fingerprint="f")
    UnitWriter(tmp_path, stage="s", unit="plan-b", fingerprint="f")


def test_a_full_disk_while_a_unit_is_written_says_what_to_do(tmp_path):
    before = write_unit(tmp_path) and contents(tmp_path)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "here/u2.tar")
    with pytest.raises(StageError, match="unit u2 could not be written: No space left on device") as caught:
        start_unit(tmp_path, "u2", then=full)
    assert caught.value.where == "here/u2.tar"
    assert "free disk space" in caught.value.hint
    assert contents(tmp_path) == before


def test_a_full_disk_at_the_commit_says_what_to_do(tmp_path, monkeypatch):
    before = write_unit(tmp_path) and contents(tmp_path)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StageError, match="No space left on device"):
        write_unit(tmp_path, "u2")
    assert contents(tmp_path) == before


def test_an_unreadable_input_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(FileNotFoundError, match="an input"):
        start_unit(tmp_path, "u2", then=FileNotFoundError(errno.ENOENT, "an input"))


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StageError, match="unit u1 could not be written"):
        write_unit(tmp_path / "file")


def test_a_table_of_another_shape_is_not_committed(tmp_path):
    writer = UnitWriter(tmp_path, stage="s", unit="u1", fingerprint="f")
    with pytest.raises(ManifestError, match="not crops version"), writer as out:
        out.table("crops", tables.empty("pairs"))
    assert contents(tmp_path) == {}


def test_small_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "sub" / "x.json"
    write_json(path, {"b": 1, "a": [1, 2]}, indent=None)
    assert path.read_text() == '{"a": [1, 2], "b": 1}\n'

    def fail(handle):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_bytes(path, b"new")
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]
    assert path.read_text().startswith('{"a"')
