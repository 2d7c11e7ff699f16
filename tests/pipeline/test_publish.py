"""A build's copy in an object store: whole units at any moment, the same bytes at the end, and never two builds in one."""

import io
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from manifests.commit import PLAN
from manifests.errors import ManifestError, StageError
from manifests.types import Split
from pipeline import stores
from pipeline.__main__ import main
from pipeline.publish import TABLE, copy_build
from pipeline.recipes import ShardRecipe
from pipeline.stores import Store
from tests.support.folders import contents
from tests.support.kills import PHASES, RECIPE, ROOT, add_clip, build
from tests.support.s3_server import BUCKET, SECRET, s3_environment
from training.data import PairStream
from training.storage import Cache

QUIET = Console(quiet=True)
SHARDS = ["shards"]
OURS = replace(RECIPE, shard=ShardRecipe(rows=8))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a build (`out`), the same one extended (`grown`), and one by another recipe (`other`)."""
    folder = tmp_path_factory.mktemp("made")
    for name in PHASES[0]:
        add_clip(folder / "raw", name)
    build(folder / "raw", folder / "out", recipe=OURS)
    shutil.copytree(folder / "out", folder / "other")
    shutil.rmtree(folder / "other" / "shards")
    build(folder / "raw", folder / "other", "shards", recipe=replace(RECIPE, shard=ShardRecipe(rows=9)))
    shutil.copytree(folder / "out", folder / "grown")
    for name in PHASES[1]:
        add_clip(folder / "raw", name)
    build(folder / "raw", folder / "grown", recipe=OURS, extend=True)
    return folder


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_environment(tmp_path_factory.mktemp("s3") / "log") as environment:
        yield environment


@pytest.fixture(params=["memory", "file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty place, of each kind."""
    return _place(request.param, request, tmp_path, monkeypatch)


@pytest.fixture(params=["memory", "file"])
def near(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty place that is fast."""
    return _place(request.param, request, tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PAUSES_S", (0.0, 0.0))


def _place(kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if kind == "file":
        return f"file://{tmp_path / 'copy'}"
    if kind == "s3":
        for name, value in request.getfixturevalue("s3").items():
            monkeypatch.setenv(name, value)
        return f"s3://{BUCKET}/{tmp_path.name}/copy"
    return f"memory://{tmp_path.name}/copy"


def files(url: str, stage: str = "shards") -> dict[str, bytes]:
    store = Store(url)
    return {name: store.read(f"{stage}/{name}") for name in store.sizes(stage)}


def due(build: Path, stage: str = "shards") -> dict[str, bytes]:
    """What a finished copy of a stage holds."""
    here = (build / stage).iterdir()
    return {
        path.name: path.read_bytes() for path in here if path.is_file() and path.name not in (".lock", "stats.json")
    }


def whole_units(url: str, build: Path) -> int:
    """Units that a reader of this place finds; each of them must be whole, and the table may name no other."""
    there, whole = files(url), due(build)
    seen = [name for name in there if name.endswith(".json") and name != PLAN]
    for name in seen:
        assert there[name] == whole[name], name
        for file in json.loads(there[name])["files"]:
            assert there[file["name"]] == whole[file["name"]], file["name"]
    if PLAN in there:
        assert TABLE in there
    if TABLE in there:
        assert {name: data for name, data in there.items() if not name.endswith(".tmp")}.items() >= (
            {name: data for name, data in whole.items() if name != PLAN}.items()
        )
    return len(seen)


def test_there_and_back(made: Path, place: str, tmp_path: Path) -> None:
    copy_build(str(made / "out"), place, QUIET, stages=[], verify=True)
    for stage in ("frames", "crops", "pairs", "shards"):
        assert files(place, stage) == due(made / "out", stage)
    copy_build(place, str(tmp_path / "back"), QUIET, stages=[])
    ours = {name: stamp for name, stamp in contents(made / "out").items() if "_index" not in name}
    assert contents(tmp_path / "back") == ours


def test_the_trainer_reads_what_was_published(
    made: Path, s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{BUCKET}/{tmp_path.name}"
    copy_build(str(made / "out"), url, QUIET, stages=SHARDS)
    read = []
    for folder in (made / "out" / "shards", f"{url}/shards"):
        with PairStream(
            folder, split=Split.TRAIN, seed=3, batch_size=8, cache=Cache(folder=tmp_path / "cache")
        ) as pairs:
            read.append(
                [
                    (batch.keys, batch.target_BHWC.tobytes(), batch.reference_BHWC.tobytes())
                    for batch, _ in zip(pairs, range(6), strict=False)
                ]
            )
    assert read[0] == read[1]


class Stopped(BaseException):
    """As by Ctrl-C."""


@pytest.mark.parametrize(("kind", "half"), [("memory", False), ("file", False), ("file", True)])
def test_it_may_stop_at_any_write(
    kind: str, half: bool, made: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, number = Store._write, len(due(made / "out"))
    seen = set()
    for stop in range(0, number, 7 if kind == "file" else 1):
        url = _place(kind, request, tmp_path / str(stop), monkeypatch)
        with monkeypatch.context() as patch:
            left = iter(range(stop))

            def stopping(store: Store, path: str, chunks: Iterator[bytes], left=left, patch=patch) -> None:
                if next(left, None) is not None:
                    return write(store, path, chunks)
                if half and store.renames:  # as a machine that dies: nobody cleans up
                    data = b"".join(chunks)
                    write(store, path, [data[: len(data) // 2]])
                    patch.setattr(store._files, "rm_file", lambda path: None)
                raise Stopped

            patch.setattr(Store, "_write", stopping)
            with pytest.raises(Stopped):
                copy_build(str(made / "out"), url, QUIET, stages=SHARDS, threads=1)
        seen.add(whole_units(url, made / "out"))
        copy_build(str(made / "out"), url, QUIET, stages=SHARDS)
        assert files(url) == due(made / "out"), stop
    assert len(seen) > 3


@pytest.mark.parametrize(("kind", "kills"), [("file", 2), ("s3", 2), pytest.param("s3", 10, marks=pytest.mark.slow)])
def test_killed_and_started_again(
    kind: str, kills: int, made: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = _place(kind, request, tmp_path, monkeypatch)
    rng, units, killed = random.Random(kills), 0, 0
    while killed < kills:
        command = [sys.executable, "-m", "tests.support.slow_publisher", str(made / "out"), url]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            for _ in range(rng.randint(1, 5)):
                driver.stdout.readline()
            time.sleep(rng.uniform(0, 0.05))
            driver.send_signal(signal.SIGKILL)
        now = whole_units(url, made / "out")
        assert now >= units, "what was published stays"
        killed, units = killed + (driver.returncode == -signal.SIGKILL), now
        if driver.returncode == 0:  # it was done before
            assert files(url) == due(made / "out")
            url, units = f"{url}-again", 0
    copy_build(str(made / "out"), url, QUIET, stages=SHARDS)
    assert files(url) == due(made / "out")


def test_several_publishers_do_no_harm(made: Path, place: str) -> None:
    def publish(_: int) -> None:
        copy_build(str(made / "out"), place, QUIET, stages=SHARDS, threads=2)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(publish, range(3)))
    assert files(place) == due(made / "out")


def test_a_file_that_another_publisher_swept_away_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"file://{tmp_path}")
    move, moved = store._files.mv, []

    def swept_once(source: str, target: str) -> None:
        moved.append(source)
        if len(moved) == 1:
            Path(source).unlink()
        move(source, target)

    monkeypatch.setattr(store._files, "mv", swept_once)
    store.put("shards/a.json", lambda: iter([b"{}"]))
    assert (tmp_path / "shards/a.json").read_bytes() == b"{}"
    assert len(moved) == 2


def written(patch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is written from now on."""
    names: list[str] = []
    put = Store.put

    def noting(store: Store, name: str, chunks: Callable[[], Iterator[bytes]]) -> None:
        names.append(name.removeprefix("shards/"))
        put(store, name, chunks)

    patch.setattr(Store, "put", noting)
    return names


def test_an_extended_build_sends_what_is_new(made: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_build(str(made / "out"), place, QUIET, stages=SHARDS)
    with monkeypatch.context() as patch:
        names = written(patch)
        copy_build(str(made / "grown"), place, QUIET, stages=SHARDS)
    new = set(due(made / "grown")) - set(due(made / "out"))
    assert len(new) >= 3
    assert sorted(names) == sorted(new | {TABLE, PLAN})
    assert names[-2:] == [TABLE, PLAN]
    assert files(place) == due(made / "grown")
    with monkeypatch.context() as patch:
        assert written(patch) == []
        copy_build(str(made / "grown"), place, QUIET, stages=SHARDS)


def test_another_build_is_refused(made: Path, near: str) -> None:
    copy_build(str(made / "out"), near, QUIET, stages=SHARDS)
    with pytest.raises(StageError, match=r"another build: recipe.shard.rows: 8 -> 9\n.*\n.*choose another place"):
        copy_build(str(made / "other"), near, QUIET, stages=SHARDS)
    assert files(near) == due(made / "out")


def test_a_part_of_another_build_is_refused(made: Path, near: str) -> None:
    copy_build(str(made / "grown"), near, QUIET, stages=SHARDS)
    with pytest.raises(StageError, match="another build: unit train-videos-body-000008 is not in this build"):
        copy_build(str(made / "out"), near, QUIET, stages=SHARDS)
    Store(near).remove(f"shards/{PLAN}")
    with pytest.raises(StageError, match="unit train-videos-body-000000 was decided otherwise, or has other bytes"):
        copy_build(str(made / "other"), near, QUIET, stages=SHARDS)


def test_another_build_that_comes_at_the_same_time(made: Path, near: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, put = "train-videos-body-000000.json", Store.put

    def crossed(store: Store, path: str, chunks: Callable[[], Iterator[bytes]]) -> None:
        put(store, path, chunks)
        if path == f"shards/{name}":
            put(store, path, lambda: [(made / "other" / "shards" / name).read_bytes()])

    monkeypatch.setattr(Store, "put", crossed)
    with pytest.raises(StageError, match="this place holds another build"):
        copy_build(str(made / "out"), near, QUIET, stages=SHARDS)
    assert not {TABLE, PLAN} & set(files(near))


def test_damage_in_the_store_is_found_and_mended(made: Path, place: str) -> None:
    copy_build(str(made / "out"), place, QUIET, stages=SHARDS)
    store, whole = Store(place), due(made / "out")
    tar = min(name for name in whole if name.endswith(".tar"))
    store.put(f"shards/{tar}", lambda: [whole[tar][:-1] + b"x"])  # of the right size
    store.remove(f"shards/{tar.replace('000000.tar', '000001.tar')}")
    copy_build(str(made / "out"), place, QUIET, stages=SHARDS)
    assert {name for name, data in files(place).items() if data != whole[name]} == {tar}
    told = Console(record=True, width=200, file=io.StringIO())
    copy_build(str(made / "out"), place, told, stages=SHARDS, verify=True)
    assert "0 sent, 8 were there; 1 damaged files sent anew; all read back and hashed" in told.export_text()
    assert files(place) == whole


def test_a_store_that_damages_is_told(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Store._write
    monkeypatch.setattr(Store, "_write", lambda store, path, chunks: write(store, path, [b"x" + b"".join(chunks)[1:]]))
    with pytest.raises(StageError, match="damaged on the way"):
        copy_build(str(made / "out"), f"memory://{tmp_path.name}", QUIET, stages=SHARDS, verify=True)
    assert not any(name.endswith(".json") for name in files(f"memory://{tmp_path.name}"))


def test_what_is_damaged_here_is_never_sent(made: Path, near: str, tmp_path: Path) -> None:
    shutil.copytree(made / "out" / "shards", tmp_path / "out" / "shards")
    tar = next((tmp_path / "out" / "shards").glob("*.tar"))
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    with pytest.raises(StageError, match="SHA-256 is not the one it was committed with") as error:
        copy_build(str(tmp_path / "out"), near, QUIET, stages=SHARDS)
    assert error.value.where.endswith(tar.name)
    there = files(near)
    assert tar.name not in there
    assert f"{tar.stem}.json" not in there
    assert not {TABLE, PLAN} & set(there)


def test_an_unfinished_build_is_refused(made: Path, tmp_path: Path) -> None:
    url, folder = f"memory://{tmp_path.name}", tmp_path / "out" / "shards"
    shutil.copytree(made / "grown" / "shards", folder)
    shutil.copy(made / "out" / "shards" / TABLE, folder)
    with pytest.raises(StageError, match=r"shards\.parquet does not name the shards that are there"):
        copy_build(str(tmp_path / "out"), url, QUIET, stages=SHARDS)
    unit = min(folder.glob("*.tar")).stem
    (folder / f"{unit}.json").unlink()
    with pytest.raises(StageError, match=rf"not complete: 1 of its \d+ units are missing or damaged, {unit}"):
        copy_build(str(tmp_path / "out"), url, QUIET, stages=SHARDS)
    with pytest.raises(StageError, match="there is no stage `pairs` here"):
        copy_build(str(tmp_path / "out"), url, QUIET, stages=["pairs"])
    with pytest.raises(StageError, match=r"there is no stage 'shard'\n.*--stages\n.*shards"):
        copy_build(str(tmp_path / "out"), url, QUIET, stages=["shard"])
    with pytest.raises(StageError, match="there is no build here"):
        copy_build(str(tmp_path), url, QUIET, stages=[])
    assert files(url) == {}


def test_a_published_build_cannot_write_elsewhere(made: Path, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"
    copy_build(str(made / "out"), url, QUIET, stages=SHARDS)
    store, name = Store(url), "shards/train-videos-body-000000.json"
    evil = store.read(name).replace(b"train-videos-body-000000.tar", b"../../train-videos-0000.tar")
    store.put(name, lambda: [evil])
    with pytest.raises(ManifestError, match="names another unit or a file elsewhere") as error:
        copy_build(url, str(tmp_path / "here"), QUIET, stages=SHARDS)
    assert error.value.where == f"{url}/{name}"
    assert not (tmp_path / "here").exists()


def test_lost_connections_are_made_again(made: Path, near: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write, failed = Store._write, set()

    def unsteady(store: Store, path: str, chunks: Iterator[bytes]) -> None:
        name = path.rpartition("/")[2].split(".")[1 if store.renames else 0]
        if name not in failed:
            failed.add(name)
            next(iter(chunks))
            raise ConnectionResetError("the line is dead")
        write(store, path, chunks)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_write", unsteady)
        copy_build(str(made / "out"), near, QUIET, stages=SHARDS)
    assert len(failed) == 10
    assert files(near) == due(made / "out")


def test_a_connection_that_stays_lost_is_told(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def dead(store: Store, path: str, chunks: Iterator[bytes]) -> None:
        tries.append(path)
        raise ConnectionResetError("the line is dead")

    monkeypatch.setattr(Store, "_write", dead)
    with pytest.raises(StageError, match="cannot be copied: the line is dead"):
        copy_build(str(made / "out"), f"memory://{tmp_path.name}", QUIET, stages=SHARDS, threads=1)
    assert tries.count(tries[0]) == len(stores.PAUSES_S) + 1


def test_s3_through_the_door(
    made: Path, s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{BUCKET}/{tmp_path.name}"
    assert main(["publish", str(made / "out"), url]) == 0
    assert main(["publish", str(made / "out"), url, "--verify"]) == 0
    assert main(["pull", url, str(tmp_path / "back")]) == 0
    assert contents(tmp_path / "back" / "shards") == contents(made / "out" / "shards")
    assert main(["publish", str(made / "out"), "s3://no-such-bucket/here"]) == 2
    assert main(["publish", str(made / "out"), f"s3://maker:{SECRET}@{BUCKET}/here"]) == 2
    assert main(["publish", str(made / "out"), "nowhere://here"]) == 2
    told = "".join(capfd.readouterr())
    assert "8 sent, 0 were there" in told
    assert "0 sent, 8 were there; all read back and hashed" in told
    assert "NO_SUCH_BUCKET" in told
    assert "StageError: the URL has a password or a query" in told
    assert "StageError: nothing here opens nowhere://" in told
    assert SECRET not in told
