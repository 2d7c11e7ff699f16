"""The commit rule: what is done stays done, what failed leaves nothing, and a rerun gives the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from manifests.commit import commits, read_commit
from manifests.errors import SourceError, StageError
from pipeline.executors import LocalExecutor, RayExecutor
from pipeline.stage import finished, require, run_stage
from tests.support.folders import contents
from tests.support.toy_stage import SilentWatcher, Toy

ROOT = Path(__file__).parents[2]


def run(out: Path, toy: Toy) -> SilentWatcher:
    watcher = SilentWatcher()
    run_stage(toy, out, LocalExecutor(), watcher)
    return watcher


def test_two_runs_write_the_same_bytes_and_the_second_does_nothing(tmp_path: Path) -> None:
    first = run(tmp_path / "a", Toy())
    run(tmp_path / "b", Toy())
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(first.outcomes) == 8
    again = run(tmp_path / "a", Toy())
    assert (again.begun, again.outcomes) == (("toys", 8, 8), [])


def test_summary_adds_up_commits(tmp_path: Path) -> None:
    summary = run_stage(Toy(), tmp_path, LocalExecutor(), SilentWatcher())
    assert (summary.units, summary.counts["pieces"], summary.rejects) == (8, 32, {"empty": 3})


def test_a_broken_unit_is_not_committed_and_the_others_are(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"(?s)2 of 8 units.*this toy is broken \(u002\); glue it"):
        run(tmp_path, Toy(broken=(2, 5)))
    assert [c.unit for c in commits(tmp_path / "toys")] == ["u000", "u001", "u003", "u004", "u006", "u007"]
    assert not finished(tmp_path, "toys")
    mended = run(tmp_path, Toy())
    assert [outcome.unit for outcome in mended.outcomes] == ["u002", "u005"]
    assert finished(tmp_path, "toys")


def test_another_recipe_is_refused_by_its_changed_keys(tmp_path: Path) -> None:
    run(tmp_path, Toy())
    before = contents(tmp_path)
    with pytest.raises(StageError, match=r"recipe\.salt: 0 -> 1"):
        run(tmp_path, Toy(salt=1))
    assert contents(tmp_path) == before


def test_a_lost_or_cut_data_file_is_made_again(tmp_path: Path) -> None:
    run(tmp_path, Toy())
    before = contents(tmp_path)
    (tmp_path / "toys/u001.tar").unlink()
    (tmp_path / "toys/u003.tar").write_bytes(b"short")
    again = run(tmp_path, Toy())
    assert [outcome.unit for outcome in again.outcomes] == ["u001", "u003"]
    assert contents(tmp_path) == before


def test_a_later_stage_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="`make crop`"):
        require(tmp_path, "crops")
    with pytest.raises(StageError):
        run(tmp_path, Toy(broken=(0,)))
    with pytest.raises(StageError, match="stage `toys` is not complete"):
        require(tmp_path, "toys")


def test_units_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Toy().plan()
    monkeypatch.setattr(Toy, "plan", lambda self: replace(plan, units=(plan.units[0], plan.units[0])))
    with pytest.raises(StageError, match=r"units named twice: \['u000'\]"):
        run(tmp_path, Toy())


def test_a_second_run_at_the_same_time_is_refused(tmp_path: Path) -> None:
    slow = subprocess.Popen(
        [sys.executable, "-m", "tests.support.toy_stage", str(tmp_path), "local", "50", "0.2"], cwd=ROOT
    )
    try:
        wait_for(lambda: list(tmp_path.glob("toys/u000.json")))
        with pytest.raises(StageError, match="another run is writing here"):
            run(tmp_path, Toy())
    finally:
        slow.kill()
        slow.wait()


def test_a_full_disk_leaves_the_committed_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, Toy(units=3))
    kept = contents(tmp_path)
    monkeypatch.setattr("manifests.commit.sha256_of", full_disk)
    (tmp_path / "toys/u001.json").unlink()
    with pytest.raises(StageError, match=r"(?s)No space left on device.*free disk space"):
        run(tmp_path, Toy(units=3))
    monkeypatch.undo()
    assert read_commit(tmp_path / "toys/u000.json").unit == "u000"
    run(tmp_path, Toy(units=3))
    assert contents(tmp_path) == kept


def test_a_full_disk_is_told_once_and_stops_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manifests.commit.sha256_of", full_disk)
    watcher = SilentWatcher()
    with pytest.raises(StageError) as caught:
        run_stage(Toy(units=50), tmp_path, LocalExecutor(), watcher)
    assert str(caught.value).count("No space left on device") == 1
    assert (watcher.outcomes, watcher.stopped) == ([], True)
    assert not list((tmp_path / "toys").glob("_tmp/*"))


def full_disk(path: Path) -> str:
    raise OSError(28, "No space left on device", str(path))


def wait_for(condition: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "how", ["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)])]
)
def test_killed_anywhere_gives_the_same_bytes(tmp_path: Path, how: str) -> None:
    run(tmp_path / "calm", Toy(units=12))
    command = [sys.executable, "-m", "tests.support.toy_stage", str(tmp_path / "killed"), how, "12", "0.3"]
    chance, committed_before_a_kill = random.Random(7), 0
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for _ in range(4):
        before = len(commits(tmp_path / "killed/toys"))
        process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
        wait_for(
            lambda before=before, p=process: (
                len(list((tmp_path / "killed/toys").glob("u*.json"))) > before or p.poll() is not None
            )
        )
        time.sleep(chance.uniform(0, 0.4))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        committed_before_a_kill = max(committed_before_a_kill, len(commits(tmp_path / "killed/toys")))
    assert committed_before_a_kill > 0, "nothing was committed before a kill: this would prove nothing"
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120)
    assert contents(tmp_path / "killed") == contents(tmp_path / "calm")


def test_a_plan_that_built_nothing_gives_way_to_another(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        run(tmp_path, Toy(units=1, broken=(0,)))
    run(tmp_path, Toy(units=2, salt=1))
    assert finished(tmp_path, "toys")


def test_whatever_ray_says_when_it_does_not_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def too_slow(**_: object) -> None:
        raise Exception("the node timed out during startup")  # as it does

    monkeypatch.setattr(ray, "init", too_slow)
    with pytest.raises(StageError, match=r"(?s)the node timed out during startup.*EXECUTOR=local"):
        run_stage(Toy(), tmp_path, RayExecutor(), SilentWatcher())


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"(?s)no Ray cluster answers.*RAY_ADDRESS=127\.0\.0\.1:9"):
        run_stage(Toy(), tmp_path, RayExecutor(address="127.0.0.1:9"), SilentWatcher())


def test_a_worker_that_does_not_render_loads_no_renderer() -> None:
    """Each worker imports the stages when it starts: torch and trimesh would take four fifths of that."""
    code = "import sys, pipeline.stages, pipeline.__main__; print({'torch', 'trimesh', 'pyrender', 'ray'} & sys.modules.keys())"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told == "set()\n"
