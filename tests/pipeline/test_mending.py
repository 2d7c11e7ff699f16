"""What the audit says mends a build does mend it: damage, follow the words, run the named stage, and all is as before."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from manifests.audit.mend import TARGETS, mend
from manifests.audit.prove import audit
from pipeline.executors import LocalExecutor
from pipeline.recipes import ShardRecipe
from pipeline.stage import run_stage
from pipeline.stages import stages
from tests.support.figures import Figure, draw, write_stills
from tests.support.folders import contents
from tests.support.kills import RECIPE as KILLED
from tests.support.toy_stage import SilentWatcher

RECIPE = replace(KILLED, shard=ShardRecipe(rows=8))


def run(clips: Path, out: Path, *targets: str) -> None:
    there = stages(RECIPE, roots={source.name: clips for source in RECIPE.sources}, assets=clips, out=out)
    for target in targets:
        run_stage(there[target](), out, LocalExecutor(), SilentWatcher())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips, and a build of them that passes."""
    root = tmp_path_factory.mktemp("mending")
    for number, name in enumerate("ab"):
        write_stills(root / "clips" / name, [draw([Figure(90 + 60 * number + 5 * i, 120)]) for i in range(9)])
    run(root / "clips", root / "out", "ingest", "crop", "pairs", "shards")
    assert audit(root / "out").passed
    return root


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def garble(path: Path) -> None:
    path.write_text("{")


def recount(path: Path) -> None:
    path.write_text(re.sub(r'"counts":{"(\w+)":\d+', r'"counts":{"\1":99', path.read_text()))


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a cut table of frames": ("frames/*-a.frames.parquet", cut),
    "a lost table of crops": ("crops/*-a.crops.parquet", Path.unlink),
    "a cut table of pairs": ("pairs/*-b.pairs.parquet", cut),
    "a lost commit": ("pairs/*-b.json", Path.unlink),
    "a commit that does not read": ("crops/*-a.json", garble),
    "a commit that counts what is not there": ("crops/*-b.json", recount),
    "a cut tar": ("shards/*.tar", cut),
    "a lost plan": ("pairs/plan.json", Path.unlink),
    "a plan that does not read": ("crops/plan.json", garble),
    "a cut table of shards": ("shards/shards.parquet", cut),
    "sums that do not read": ("pairs/stats.json", garble),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_mends_a_finding_mends_it(whole: Path, tmp_path: Path, damage: str) -> None:
    out = shutil.copytree(whole / "out", tmp_path / "out")
    where, break_it = DAMAGES[damage]
    break_it(sorted(out.glob(where))[0])
    before = audit(whole / "out").findings
    found = [f for f in audit(out).findings if f not in before and f.rule not in ("unchecked", "stray")]
    told = " ".join(mend(finding) for finding in found)
    for path in re.findall(r"remove (\S+/\S+\.json)", told):
        (out / path).unlink(missing_ok=True)
    named = re.findall(r"`make (\w+)`", told)
    assert TARGETS[where.split("/")[0]] in named
    run(whole / "clips", out, *(target for target in TARGETS.values() if target in named))
    assert audit(out).findings == before
    assert contents(out) == contents(whole / "out")
