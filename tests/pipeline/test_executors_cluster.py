"""A cluster of several nodes that loses one in the middle: the same bytes, and no unit waits for what will never be."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.executors import LocalExecutor, RayExecutor
from pipeline.stage import Outcome, run_stage
from tests.support.folders import contents
from tests.support.toy_stage import SilentWatcher, Toy

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:.*:FutureWarning"),
]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that computes nothing, and two nodes of one CPU each."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])  # workers import the toy stage from here
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args=head)
    yield made
    ray.shutdown()
    made.shutdown()


class Saboteur(SilentWatcher):
    """Takes a node away when the second unit ends."""

    def __init__(self, cluster: Any, node: Any) -> None:
        super().__init__()
        self.cluster, self.node = cluster, node

    def end(self, outcome: Outcome) -> None:
        super().end(outcome)
        if len(self.outcomes) == 2:
            self.cluster.remove_node(self.node, allow_graceful=False)


@pytest.mark.parametrize("pooled", [False, True])
def test_a_node_is_lost_in_the_middle(tmp_path: Path, cluster: Any, pooled: bool) -> None:
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 << 20) for _ in range(2)]
    cluster.wait_for_nodes()
    watcher = Saboteur(cluster, nodes[1])
    toy = Toy(units=10, seconds=2.0, pooled=pooled)
    run_stage(toy, tmp_path / "cluster", RayExecutor(address=cluster.address, workers=2), watcher)
    run_stage(Toy(units=10), tmp_path / "calm", LocalExecutor(), SilentWatcher())
    assert contents(tmp_path / "cluster") == contents(tmp_path / "calm")
    assert sorted(outcome.unit for outcome in watcher.outcomes) == [f"u{i:03d}" for i in range(10)]
    assert all(outcome.error is None for outcome in watcher.outcomes)
