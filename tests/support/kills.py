"""Builds a tiny road, then grows it, while its processes are killed at any moment; at the end it must be as if never killed.

`python -m tests.support.kills FOLDER local|ray KILLS SEED` prints what it did and fails where a byte differs. What is killed
is always below this process: drivers that it forked, and on `ray` also workers and a node of its own cluster, which stays up.

On `local` the whole road is killed; on `ray`, where a worker takes seconds to start, the stages of pairs (tasks) and shards (actors),
with units that take half a second, so that most kills meet some.
"""

import json
import logging
import math
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from manifests.build import STAGES, Build
from manifests.commit import UnitWriter
from manifests.sample import read_tar
from pipeline.executors import MAX_TRIES, LocalExecutor, RayExecutor
from pipeline.recipes import BuildRecipe, CropRecipe, PairRecipe, ParserRecipe, ShardRecipe, SourceRecipe
from pipeline.stage import Executor, Report, Unit, run_stage
from pipeline.stages import Pairs, Shards, stages
from tests.support.figures import Figure, draw, write_stills
from tests.support.folders import contents
from tests.support.toy_stage import SilentWatcher

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
RECIPE = BuildRecipe(
    name="clips",
    sources=(SourceRecipe(kind="videos", name="videos"),),
    parser=ParserRecipe(backend="none"),
    crop=CropRecipe(min_track=2),
    pair=PairRecipe(cross_pose=20, cross_view=0, min_dt_s=0.0, min_hash_distance=0),
    shard=ShardRecipe(rows=4),
)
PHASES = (("a", "b", "c"), ("d", "e"))  # the clips of the build, and those that come later


def add_clip(root: Path, name: str) -> None:
    """A clip that is like no other."""
    start = 80 + 10 * ord(name[0])
    write_stills(root / name, [draw([Figure(start % 200 + 60 + 5 * i, 120)]) for i in range(9)])


def build(
    root: Path,
    out: Path,
    *verbs: str,
    recipe: BuildRecipe = RECIPE,
    executor: Executor | None = None,
    extend: bool = False,
) -> None:
    """Run stages of the road, all but rendering when none is named."""
    there = stages(recipe, roots={source.name: root for source in recipe.sources}, assets=root, out=out)
    for verb in verbs or ("ingest", "crop", "pairs", "shards"):
        run_stage(there[verb](), out, executor or LocalExecutor(), SilentWatcher(), extend=extend)


def keys(out: Path) -> list[str]:
    """The keys of all samples in the shards of a build, sorted."""
    return sorted(sample.key for path in (out / "shards").glob("*.tar") for sample in read_tar(path))


def prove(out: Path, calm: Path) -> Counter[str]:
    """Hold a build against one that was never killed. Returns how many pairs were lost, are there twice, and files are left.

    Raises:
        AssertionError: a file is more, less or other than there.
    """
    pairs = Counter(Build(out).table("pairs", columns=["key"]).column("key").to_pylist())
    packed = Counter(keys(out))
    found, due = contents(out), contents(calm)
    count = Counter(
        builds=1,
        pairs=pairs.total(),
        lost=(pairs - packed).total(),
        doubled=(packed - pairs).total(),
        left_over=len(found.keys() - due.keys()),
    )
    assert found == due, f"{sorted(found.items() ^ due.items())[:5]}, {count}"
    return count


class SlowPairs(Pairs):
    """Takes its time, without the processor's."""

    def run(self, unit: Unit, out: UnitWriter, opened: Any, report: Report) -> None:
        time.sleep(0.25)
        super().run(unit, out, opened, report)
        time.sleep(0.25)


class SlowShards(Shards):
    """The same."""

    def run(self, unit: Unit, out: UnitWriter, opened: Any, report: Report) -> None:
        time.sleep(0.25)
        super().run(unit, out, opened, report)
        time.sleep(0.25)


def run_slowly(out: Path, executor: Executor, *, extend: bool) -> None:
    """Draw and pack pairs."""
    for stage in (SlowPairs(RECIPE, out), SlowShards(RECIPE, out)):
        run_stage(stage, out, executor, SilentWatcher(), extend=extend)


# --- what can be killed ---

# Statuses of drivers that ended for good reason, and said so: a unit's worker died too often; Ray did not answer.
GIVEN_UP, NOT_REACHED = 3, 4


class Driver:
    """A driver forked from this process, which has everything imported and has not met Ray."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.pid = os.fork()
        if not self.pid:
            os.dup2(2, 1)  # Ray tells of every death; the answer is ours alone
            status = 1
            try:
                work()
                status = 0
            except Exception as error:  # noqa: BLE001 - nothing above would see it
                traceback.print_exception(error)
                given_up = f"the worker died {MAX_TRIES} times" in str(error)
                status = GIVEN_UP if given_up else NOT_REACHED if "no Ray cluster could" in str(error) else 1
            finally:
                os._exit(status)

    def status(self) -> int | None:
        """How it ended by itself, or None."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Cluster:
    """A Ray cluster of two nodes, in a process of its own: drivers are forked from this one, and Ray does not outlive a fork."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}  # workers import from here
        command = [sys.executable, "-m", "tests.support.kills", "cluster"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = self._answer()
        assert self.address, "the cluster did not start"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill_node(self) -> None:
        """Kill all processes of the second node; another comes in its place."""
        assert self.process.stdin is not None
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        assert self._answer() == "killed", "the cluster has ended"

    def kill_worker(self, chance: random.Random) -> bool:
        """Kill a worker that runs our units, or will. Returns whether there was one."""
        found = []
        for pid in below(self.process.pid):
            with suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith((b"ray::_Worker", b"ray::_run_task")):
                    found.append(pid)
        with suppress(ProcessLookupError):
            if found:
                os.kill(chance.choice(found), signal.SIGKILL)
                return True
        return False

    def shutdown(self) -> None:
        self.process.communicate()


def run_cluster() -> None:
    """Start two nodes and tell the address; kill the second whenever asked to, until there is nobody to ask."""
    from ray.cluster_utils import Cluster as Nodes

    node = {"num_cpus": 1, "object_store_memory": 100 << 20}

    def patient(start: Callable[..., Any], **how: Any) -> Any:
        for _ in range(9):  # Ray gives up on a node that a busy machine starts slowly
            try:
                return start(**how)
            except Exception as error:  # noqa: BLE001 - it has no type of its own
                logger.warning("no node came up: %s", error)
        raise TimeoutError("no node comes up")

    nodes = patient(Nodes, initialize_head=True, head_node_args={**node, "include_dashboard": False})
    second = patient(nodes.add_node, **node)
    try:
        print(nodes.address, flush=True)  # noqa: T201
        for _ in sys.stdin:
            nodes.remove_node(second, allow_graceful=False)
            print("killed", flush=True)  # noqa: T201
            second = patient(nodes.add_node, **node)
    finally:
        nodes.shutdown()


def below(pid: int) -> Iterator[int]:
    """The processes below one, children first."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue  # it has ended
        children.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    todo = [pid]
    while todo:
        found = children.get(todo.pop(), [])
        yield from found
        todo += found


# --- the two soaks ---


def soak(folder: Path, how: str, kills: int, seed: int) -> dict[str, int]:
    """Kill until it is enough. Returns counts by what was seen."""
    chance, count = random.Random(seed), Counter[str]()
    calm, out = [folder / "calm0", folder / "calm1"], folder / "out"
    for phase in range(len(PHASES)):
        root = folder / f"clips{phase}"
        for name in sum(PHASES[: phase + 1], ()):
            add_clip(root, name)
        if phase:
            subprocess.run(["cp", "-r", str(calm[0]), str(calm[1])], check=True)
        build(root, calm[phase], extend=bool(phase))
    cluster = Cluster() if how == "ray" else None
    try:
        while num_kills(count) < kills:
            for phase in range(len(PHASES)):

                def drive(root: Path = folder / f"clips{phase}", extend: bool = bool(phase)) -> None:
                    if cluster is None:
                        build(root, out, extend=extend)
                    else:
                        run_slowly(out, RayExecutor(address=cluster.address, workers=2), extend=extend)

                if cluster is not None:
                    out.mkdir(exist_ok=True)
                    subprocess.run(["cp", "-r", calm[phase] / "frames", calm[phase] / "crops", out], check=True)
                while not disturb(Driver(drive), cluster, chance, count, out):
                    logger.info("%s", dict(count))
                count.update(prove(out, calm[phase]))
            subprocess.run(["rm", "-r", str(out)], check=True)
    finally:
        if cluster is not None:
            cluster.shutdown()
    return dict(count)


def disturb(driver: Driver, cluster: Cluster | None, chance: random.Random, count: Counter[str], out: Path) -> bool:
    """Kill workers and nodes at moments of chance, and at last the driver. Returns whether it did all before that.

    Raises:
        AssertionError: the driver failed.
    """
    workers, begun = 0, num_commits(out)
    while (ended := wait_a_while(driver, cluster is not None, chance, out)) is None:
        whom = "driver" if cluster is None else chance.choice(("driver", "node", "worker", "worker", "worker"))
        done = num_commits(out) - begun
        if cluster is None or whom == "driver":
            driver.kill()
        elif whom == "node":
            cluster.kill_node()
        elif not cluster.kill_worker(chance):
            continue
        workers += whom != "driver"
        count[f"kills of {whom}s"] += 1
        count["kills after a commit"] += done > 0
        count["kills in the middle of a unit"] += any((out / stage / "_tmp").exists() for stage in STAGES)
        if whom == "driver":
            return False
    assert ended in (0, NOT_REACHED) or (ended == GIVEN_UP and workers >= MAX_TRIES), f"a driver failed: {ended}"
    count["drivers that gave a unit up"] += ended == GIVEN_UP
    count["drivers that Ray did not answer"] += ended == NOT_REACHED
    return ended == 0


def wait_a_while(driver: Driver, on_ray: bool, chance: random.Random, out: Path) -> int | None:
    """Wait until a moment of chance: on Ray, where nothing is done for seconds, some commits later. Returns how the driver ended."""
    due, end = math.inf, time.monotonic() + chance.uniform(0, 0.5)
    if on_ray:
        due, end = num_commits(out) + chance.randint(0, 3), time.monotonic() + 60
    while time.monotonic() < end:
        if (ended := driver.status()) is not None:
            return ended
        if num_commits(out) >= due:
            due, end = math.inf, time.monotonic() + chance.uniform(0, 2)
        time.sleep(0.03 if on_ray else 0.003)
    return driver.status()


def num_kills(count: Counter[str]) -> int:
    """Of all kinds."""
    return sum(number for what, number in count.items() if what.startswith("kills of"))


def num_commits(out: Path) -> int:
    """Units that are committed, of all stages."""
    own = ("plan.json", "stats.json")
    return sum(path.name not in own for stage in STAGES for path in (out / stage).glob("*.json"))


def main(arguments: list[str]) -> None:
    """Run a soak, or the cluster of one."""
    if arguments == ["cluster"]:
        run_cluster()
        return
    logging.basicConfig(level=logging.INFO)
    folder, how, kills, seed = arguments
    print(json.dumps(soak(Path(folder), how, int(kills), int(seed))))  # noqa: T201 - the answer to who called


if __name__ == "__main__":
    main(sys.argv[1:])
