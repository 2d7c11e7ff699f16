"""Builds a tiny road, then grows it, while its processes are killed at any moment; at the end it must be as if never killed.

`python -m tests.support.kills FOLDER local|ray KILLS SEED` prints what it did and fails where a byte differs. What is killed
is always below this process: drivers that it forked or started, and the workers of its own Ray cluster.

On `local` the whole road is killed; on `ray`, where a driver takes many seconds to start, its last stage, drivers and workers.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from manifests.build import STAGES, Build
from manifests.sample import read_tar
from pipeline.executors import MAX_TRIES, LocalExecutor, RayExecutor
from pipeline.recipes import BuildRecipe, CropRecipe, PairRecipe, ParserRecipe, ShardRecipe, SourceRecipe
from pipeline.stage import Executor, run_stage
from pipeline.stages import stages
from tests.support.figures import Figure, draw, write_stills
from tests.support.folders import contents
from tests.support.toy_stage import SilentWatcher

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


# --- drivers that can be killed ---


class Forked:
    """A driver forked from this process, which has everything imported."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                work()
                status = 0
            finally:
                os._exit(status)

    def ended(self) -> bool:
        """Whether it is over by itself; it must have ended well."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        assert not pid or status == 0, f"a driver failed: {status}"
        return bool(pid)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Started:
    """A driver of its own, on a cluster."""

    def __init__(self, *arguments: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.support.kills", "drive", *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sys.stderr)

    def ended(self) -> bool:
        """Whether it is over by itself; it must have ended well."""
        assert self.process.poll() in (None, 0), "a driver failed"
        return self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


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


def busy_workers() -> list[int]:
    """The Ray workers below this process that run our units, or will."""
    found = []
    for pid in below(os.getpid()):
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::_Worker"):
            found.append(pid)
    return found


# --- the two soaks ---


def soak(folder: Path, how: str, kills: int, seed: int) -> dict[str, Any]:
    """Kill until it is enough. Returns counts by what was seen."""
    chance = random.Random(seed)
    calm, out = [folder / "calm0", folder / "calm1"], folder / "out"
    cluster = start_cluster() if how == "ray" else None
    count: Counter[str] = Counter()
    for phase in range(len(PHASES)):
        root = folder / f"clips{phase}"
        for name in sum(PHASES[: phase + 1], ()):
            add_clip(root, name)
        if phase:
            subprocess.run(["cp", "-r", str(calm[0]), str(calm[1])], check=True)
        build(root, calm[phase], extend=bool(phase))
    while count["kills of drivers"] + count["kills of workers"] < kills:
        for phase in range(len(PHASES)):
            root, extend = folder / f"clips{phase}", bool(phase)
            if cluster is not None:
                out.mkdir(exist_ok=True)
                subprocess.run(["cp", "-r", *(calm[phase] / s for s in ("frames", "crops", "pairs")), out], check=True)
            while True:
                if cluster is None:
                    driver: Any = Forked(lambda root=root, extend=extend: build(root, out, extend=extend))
                else:
                    driver = Started(cluster.address, str(root), str(out), str(phase))
                if kill_some(driver, chance, count, out):
                    break
            count.update(prove(out, calm[phase]))
        subprocess.run(["rm", "-r", str(out)], check=True)
    if cluster is not None:
        cluster.shutdown()
    return dict(count)


def kill_some(driver: Forked | Started, chance: random.Random, count: Counter[str], out: Path) -> bool:
    """Kill a driver at a moment of chance, and workers before it. Returns whether it came to its end first."""
    forked = isinstance(driver, Forked)
    before, end = num_commits(out), time.monotonic() + chance.uniform(0, 0.5 if forked else 120)
    spare = 0 if forked else MAX_TRIES - 1  # more kills of its workers, and a unit is given up for good reason
    while time.monotonic() < end:
        if driver.ended():
            return True
        if not forked and num_commits(out) > before:  # it has begun: now any moment will do
            before, end = sys.maxsize, time.monotonic() + chance.uniform(0, 3)
        if spare and chance.random() < 0.005 and (workers := busy_workers()):
            with suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
                count["kills of workers"] += 1
                spare -= 1
        time.sleep(0.003 if forked else 0.03)
    if driver.ended():
        return True
    driver.kill()
    count["kills of drivers"] += 1
    count["kills after a commit"] += num_commits(out) > 0
    count["kills in the middle of a unit"] += any((out / stage / "_tmp").exists() for stage in STAGES)
    return False


def num_commits(out: Path) -> int:
    """Units that are committed, of all stages."""
    own = ("plan.json", "stats.json")
    return sum(path.name not in own for stage in STAGES for path in (out / stage).glob("*.json"))


def start_cluster() -> Any:
    """A Ray cluster of two nodes, below this process."""
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = str(ROOT)  # workers import from here
    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    return cluster


def main(arguments: list[str]) -> None:
    """Run a soak, or be a driver of one."""
    if arguments[0] == "drive":
        address, root, out, phase = arguments[1:]
        executor = RayExecutor(address=address, workers=2)
        build(Path(root), Path(out), "shards", executor=executor, extend=bool(int(phase)))
        return
    folder, how, kills, seed = arguments
    print(json.dumps(soak(Path(folder), how, int(kills), int(seed))))  # noqa: T201 - the answer to who called


if __name__ == "__main__":
    main(sys.argv[1:])
