"""Ray gives what the local executor gives, and survives what kills a worker."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from manifests import table as tables
from manifests.commit import commits
from manifests.errors import StageError
from manifests.types import Reason
from pipeline.executors import LocalExecutor, RayExecutor
from pipeline.recipes import RECIPES, CropRecipe
from pipeline.stage import run_stage
from pipeline.stages import Ingest
from tests.support.deadly import DeadlyCrop
from tests.support.figures import MAGENTA, RED, Figure, draw, write_stills
from tests.support.folders import contents
from tests.support.toy_stage import DeviceToy, SilentWatcher, Toy

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:.*:FutureWarning"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    import ray

    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])  # workers import the toy stage from here
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=128 << 20,
        _system_config={"prestart_worker_first_driver": False},  # ours all ask for other variables
    )
    yield
    ray.shutdown()


@pytest.mark.parametrize("pooled", [False, True])
def test_ray_and_local_write_the_same_bytes(tmp_path: Path, cluster: None, pooled: bool) -> None:
    watcher = SilentWatcher()
    run_stage(Toy(pooled=pooled, seconds=0.4), tmp_path / "ray", RayExecutor(), watcher)
    run_stage(Toy(), tmp_path / "local", LocalExecutor(), SilentWatcher())
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert {outcome.unit for outcome in watcher.outcomes} == {f"u{i:03d}" for i in range(8)}
    assert watcher.steps, "progress inside units reaches the driver"


@pytest.mark.parametrize("pooled", [False, True])
def test_an_error_keeps_its_words_and_the_rest_goes_on(tmp_path: Path, cluster: None, pooled: bool) -> None:
    with pytest.raises(StageError, match=r"(?s)1 of 8 units.*this toy is broken \(u003\); glue it"):
        run_stage(Toy(broken=(3,), pooled=pooled), tmp_path, RayExecutor(workers=1), SilentWatcher())
    assert len(commits(tmp_path / "toys")) == 7


@pytest.mark.parametrize("pooled", [False, True])
def test_an_input_that_kills_its_worker_is_given_up_by_name(tmp_path: Path, cluster: None, pooled: bool) -> None:
    with pytest.raises(StageError, match=r"(?s)1 of 4 units.*the worker died 3 times on unit u001"):
        run_stage(Toy(units=4, deadly=(1,), pooled=pooled), tmp_path, RayExecutor(), SilentWatcher())
    assert [c.unit for c in commits(tmp_path / "toys")] == ["u000", "u002", "u003"]


def test_pictures_that_kill_the_parser_are_left_out_and_their_recording_stays(tmp_path: Path, cluster: None) -> None:
    root = tmp_path / "clips"
    for name, deadly in (("calm", []), ("deadly", [2, 6, 7])):
        walk = [Figure(100 + 4 * i, 120, colour=MAGENTA if i in deadly else RED) for i in range(12)]
        write_stills(root / name, [draw([figure]) for figure in walk])
    recipe = replace(RECIPES["videos"](), crop=CropRecipe(min_track=2))
    run_stage(Ingest(recipe, {"videos": root}, tmp_path), tmp_path, LocalExecutor(), SilentWatcher())
    stage = DeadlyCrop(recipe, {"videos": root}, tmp_path, tmp_path)
    summary = run_stage(stage, tmp_path, RayExecutor(), SilentWatcher())
    assert summary.rejects[Reason.PARSER_CRASH] == 3
    crops = tables.read("crops", tmp_path / "crops" / "videos-deadly.crops.parquet")
    assert set(crops.column("instant").to_pylist()) <= set(range(12)) - {2, 6, 7}
    assert len(commits(tmp_path / "crops")) == 2


def test_workers_with_a_network_share_a_gpu(tmp_path: Path, cluster: None) -> None:
    """The cluster only says that it has a GPU: what is tested is who is told to use it."""
    on_gpu = run_stage(DeviceToy(units=3, pooled=True), tmp_path / "a", RayExecutor(gpus=0.5), SilentWatcher())
    on_cpu = run_stage(DeviceToy(units=3, pooled=True), tmp_path / "b", RayExecutor(), SilentWatcher())
    light = run_stage(DeviceToy(units=3), tmp_path / "c", RayExecutor(gpus=0.5), SilentWatcher())
    assert [summary.counts["cuda"] for summary in (on_gpu, on_cpu, light)] == [3, 0, 0]
    with pytest.raises(StageError, match="the cluster has 1 GPUs, and a worker asks for 4"):
        run_stage(DeviceToy(units=3, pooled=True), tmp_path / "d", RayExecutor(gpus=4), SilentWatcher())
    with pytest.raises(ValueError, match="neither a share of one nor a whole number"):
        RayExecutor(gpus=1.5)
