"""The whole road on real clips and a rendered scene: frames, crops, pairs, shards, audit, a few steps of training."""

import dataclasses
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manifests import table as tables
from manifests.audit.prove import audit
from manifests.build import Build
from manifests.errors import StageError
from manifests.recipes import to_mapping
from manifests.types import FrameKey
from pipeline.executors import LocalExecutor
from pipeline.recipes import BuildRecipe, PairRecipe, ShardRecipe, SourceRecipe, SplitRecipe
from pipeline.stage import run_stage
from pipeline.stages import stages
from synthetic.scene import SceneRecipe
from tests.support.folders import contents
from tests.support.samples import asset
from tests.support.toy_stage import SilentWatcher
from training.__main__ import main

ROOT = Path(__file__).parents[2]
RECIPE = BuildRecipe(
    name="small",
    sources=(SourceRecipe(kind="cameras", name="cameras", frame_step=24),),
    split=SplitRecipe(val_groups=("p0001",)),
    render=SceneRecipe(num_identities=2, scenes_per_identity=1, instants_per_scene=2, num_views=3),
    pair=PairRecipe(cross_view=40, cross_pose=30),
    shard=ShardRecipe(rows=25),
)


def run_road(recipe: BuildRecipe, rig: Path, assets: Path, out: Path) -> None:
    for make in stages(recipe, roots={"cameras": rig}, assets=assets, out=out).values():
        run_stage(make(), out, LocalExecutor(), SilentWatcher())


@pytest.fixture(scope="module")
def assets() -> Path:
    return asset("body.npz").parent


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, assets: Path) -> Path:
    """Two of the real recording's four cameras, with its calibration."""
    root = tmp_path_factory.mktemp("rig")
    (root / "single").mkdir()
    for name in ("Calib.qca.txt", "cam02.mp4", "cam03.mp4"):
        shutil.copy(assets / "demo/cameras/single" / name, root / "single" / name)
    return root


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, rig: Path, assets: Path) -> Path:
    out = tmp_path_factory.mktemp("built")
    run_road(RECIPE, rig, assets, out)
    return out


@pytest.mark.timeout(300)
def test_the_audit_finds_nothing_wrong(built: Path) -> None:
    found = audit(built)
    assert [f for f in found.findings if f.severity.value != "info"] == []


def test_both_kinds_come_from_both_sources(built: Path) -> None:
    pairs = Build(built).table("pairs").to_pylist()
    assert {(row["source"], row["kind"], row["split"]) for row in pairs} == {
        (source, kind, split)
        for source, splits in (("cameras", ["train"]), ("synthetic", ["train", "val"]))
        for kind in ("cross_view", "cross_pose")
        for split in splits
    }


def test_the_same_man_is_followed_in_both_cameras(built: Path) -> None:
    crops = Build(built).table("crops", columns=["key", "source", "box_xyxy_px", "coverage"]).to_pylist()
    real = [row for row in crops if row["source"] == "cameras"]
    keys = [FrameKey.parse(row["key"]) for row in real]
    assert {key.track for key in keys} == {"p0"}
    assert {key.view for key in keys} == {"cam02", "cam03"}
    assert len(real) >= 8  # of 2 x 5 frames
    for row in real:
        x0, y0, x1, y1 = row["box_xyxy_px"]
        assert 300 < y1 - y0 < 1200, "a man of some 600 to 1000 px height"
        assert x1 > x0


def test_rebuilding_gives_the_same_bytes_and_another_recipe_is_refused(
    built: Path, rig: Path, assets: Path, tmp_path: Path
) -> None:
    run_road(RECIPE, rig, assets, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(built)
    other = dataclasses.replace(RECIPE, pair=PairRecipe(cross_view=41))
    with pytest.raises(StageError, match=r"recipe\.pair\.cross_view: 40 -> 41"):
        run_road(other, rig, assets, built)
    assert contents(tmp_path / "again") == contents(built)


def test_a_changed_calibration_of_equal_size_is_noticed(built: Path, rig: Path, assets: Path, tmp_path: Path) -> None:
    changed = tmp_path / "rig"
    shutil.copytree(rig, changed)
    path = changed / "single/Calib.qca.txt"
    text = path.read_text()
    at = text.index("intrinsic")
    digit = next(i for i in range(at, len(text)) if text[i].isdigit() and text[i] != "9")
    path.write_text(text[:digit] + "9" + text[digit + 1 :])
    with pytest.raises(StageError, match="cameras-single has changed"):
        run_road(RECIPE, changed, assets, built)


@pytest.mark.parametrize(
    "how",
    [pytest.param("local", marks=pytest.mark.slow), pytest.param("ray", marks=[pytest.mark.slow, pytest.mark.ray])],
)
@pytest.mark.timeout(900)
def test_killed_again_and_again_gives_the_same_bytes(
    built: Path, rig: Path, assets: Path, tmp_path: Path, how: str
) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(json.dumps({"recipe": "cameras", **to_mapping(RECIPE)}))  # JSON is YAML
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "build",
        "--recipe",
        str(recipe),
        "--root",
        str(rig),
        "--assets",
        str(assets),
    ]
    command += ["--out", str(tmp_path / "out"), "--executor", how]
    chance, kills = random.Random(how), 0
    for _ in range(40):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        before, end = num_commits(tmp_path / "out"), time.monotonic() + 120
        while process.poll() is None and num_commits(tmp_path / "out") == before and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
    assert process.wait() == 0
    assert kills >= 4, "killed too seldom to prove anything"
    assert contents(tmp_path / "out") == contents(built)


def num_commits(out: Path) -> int:
    return len([p for p in out.glob("*/*.json") if p.name not in ("plan.json", "stats.json")])


@pytest.mark.timeout(300)
def test_a_model_trains_on_it_and_pictures_are_drawn(built: Path, tmp_path: Path) -> None:
    run, shards = str(tmp_path / "run"), str(built / "shards")
    assert main(["pretrain", "--recipe", "smoke", "--shards", shards, "--out", run]) == 0
    assert main(["reconstruct", "--run", run, "--shards", shards, "--out", str(tmp_path / "r.png")]) == 0
    done = json.loads((tmp_path / "run/finished.json").read_text())
    assert done["step"] == 20
    assert (tmp_path / "r.png").stat().st_size > 10_000
    assert (tmp_path / "run/loss.png").stat().st_size > 5_000


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves its tars open
def test_stock_webdataset_reads_the_shards(built: Path) -> None:
    import webdataset

    shards = sorted(str(path) for path in (built / "shards").glob("*.tar"))
    keys = [sample["__key__"] for sample in webdataset.WebDataset(shards, shardshuffle=False)]
    assert sorted(keys) == sorted(Build(built).table("pairs", columns=["key"]).column("key").to_pylist())


def test_shard_table_is_what_the_commits_say(built: Path) -> None:
    table = tables.read("shards", built / "shards/shards.parquet")
    assert sum(table.column("rows").to_pylist()) == Build(built).table("pairs", columns=["key"]).num_rows
