"""A tiny road killed at any moment, and on disks that are full: never a byte that differs. The long version is `make soak`."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.commit import STATS, commits
from manifests.errors import StageError
from manifests.files import sha256_of
from pipeline import stage
from pipeline.executors import LocalExecutor
from pipeline.stage import run_stage
from tests.support.folders import contents
from tests.support.kills import ROOT, add_clip, build
from tests.support.toy_stage import SilentWatcher, Toy


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_road_that_is_killed_and_grows(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.kills", str(tmp_path), "local", "25", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["kills of drivers"] >= 25
    assert seen["kills in the middle of a unit"] >= 5, "killed too early or too late to prove anything"
    assert (seen["lost"], seen["doubled"], seen["left_over"]) == (0, 0, 0)


def limited(out: Path, file_bytes: int) -> int:
    """Run the toy stage in a process that may write no larger file; returns its exit status."""
    pid = os.fork()
    if not pid:
        status = 3
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
            run_stage(Toy(units=4), out, LocalExecutor(), SilentWatcher())
            status = 0
        except StageError as error:
            status = 1 if "free disk space" in str(error) else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@settings(max_examples=20)
@given(file_bytes=st.integers(0, 9000))
def test_a_file_that_cannot_grow_fails_its_unit_in_words_and_leaves_the_rest(
    file_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("full")
    status = limited(folder / "out", file_bytes)
    assert status == (0 if file_bytes >= 8192 else 1), "a toy's tar has 8192 bytes"
    for commit in commits(folder / "out/toys"):
        assert all(sha256_of(folder / "out/toys" / file.name) == file.sha256 for file in commit.files)
    run_stage(Toy(units=4), folder / "out", LocalExecutor(), SilentWatcher())
    run_stage(Toy(units=4), folder / "calm", LocalExecutor(), SilentWatcher())
    assert contents(folder / "out") == contents(folder / "calm")
    shutil.rmtree(folder)


def killed_at_the_sums(out: Path) -> int:
    """Extend the toy stage to four units in a process that is killed when all are committed; returns its exit status."""
    pid = os.fork()
    if not pid:
        try:
            stage._sum_up = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
            run_stage(Toy(units=4), out, LocalExecutor(), SilentWatcher(), extend=True)
        finally:
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_sums_that_a_kill_left_behind_are_written_anew(tmp_path: Path) -> None:
    sums = tmp_path / "toys" / STATS
    run_stage(Toy(units=2), tmp_path, LocalExecutor(), SilentWatcher())
    assert killed_at_the_sums(tmp_path) == -signal.SIGKILL
    assert len(commits(tmp_path / "toys")) == 4
    assert json.loads(sums.read_text())["units"] == 2, "it was killed too late"
    summary = run_stage(Toy(units=4), tmp_path, LocalExecutor(), SilentWatcher())
    told = json.loads(sums.read_text())
    assert (told["units"], told["counts"]["pieces"], summary.new) == (4, 16, 0)
    before = sums.stat().st_mtime_ns
    run_stage(Toy(units=4), tmp_path, LocalExecutor(), SilentWatcher())
    assert sums.stat().st_mtime_ns == before, "sums that are right stay as they are"


ON_A_SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from manifests.commit import commits
from manifests.errors import CrossposeError
from manifests.files import sha256_of
from tests.support.folders import contents
from tests.support.kills import build
clips, disk, calm = map(Path, sys.argv[1:])
tried = 0
for kilobytes in (16, 48, 80, 120, 160, 200, 240, 300, 400, 4000):
    how = f"remount,size={kilobytes}k" if tried else f"size={kilobytes}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", disk], check=True)
    tried += 1
    try:
        build(clips, disk / "out")
        break
    except CrossposeError as error:
        assert "free" in error.hint or "failed" in str(error), error
    for stage in ("frames", "crops", "pairs", "shards"):
        for commit in commits(disk / "out" / stage):
            for file in commit.files:
                assert sha256_of(disk / "out" / stage / file.name) == file.sha256, file.name
assert contents(disk / "out") == contents(calm)
print(tried)
"""


def test_a_disk_that_is_full_again_and_again(tmp_path: Path) -> None:
    """A disk of its own in memory, a little larger at each try."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a small disk")
    for name in ("a", "b"):
        add_clip(tmp_path / "clips", name)
    build(tmp_path / "clips", tmp_path / "calm")
    (tmp_path / "disk").mkdir()
    command = ["unshare", "-rm", sys.executable, "-c", ON_A_SMALL_DISK]
    done = subprocess.run(
        [*command, *(str(tmp_path / name) for name in ("clips", "disk", "calm"))],
        cwd=ROOT, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3, "it was never full"
