"""The pipeline's door: messages a user sees, and exit codes."""

import json
from pathlib import Path

import pytest
import yaml

from manifests.commit import UnitWriter
from manifests.errors import RecipeError, SourceError, StageError
from manifests.recipes import read_recipe, to_mapping
from pipeline.__main__ import find_roots, main, with_images
from pipeline.recipes import RECIPES, BuildRecipe
from pipeline.stage import check_recipes
from pipeline.stages import Render
from tests.support.folders import contents
from tests.support.kills import RECIPE as KILLED
from tests.support.kills import add_clip, build


def read(name: str) -> BuildRecipe:
    return read_recipe(name, RECIPES)


def test_roots_of_one_and_of_several_sources(tmp_path: Path) -> None:
    (tmp_path / "cameras").mkdir()
    (tmp_path / "videos").mkdir()
    one = find_roots(read("cameras"), [str(tmp_path)])
    assert one == {"cameras": tmp_path}
    both = find_roots(read("demo"), [str(tmp_path)])
    assert both == {"cameras": tmp_path / "cameras", "videos": tmp_path / "videos"}
    named = find_roots(read("demo"), [f"videos={tmp_path}", f"cameras={tmp_path}/cameras"])
    assert named == {"cameras": tmp_path / "cameras", "videos": tmp_path}


def test_datasets_find_their_own_place_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "humbi").mkdir()
    found = find_roots(read("hand_plus"), [str(tmp_path)])
    assert found["interhand"] == found["hanco"] == tmp_path
    (tmp_path / "hanco").mkdir()
    assert find_roots(read("hand_plus"), [str(tmp_path)])["hanco"] == tmp_path / "hanco"
    assert find_roots(read("mars"), [str(tmp_path)]) == {"mars": tmp_path}


def test_wrong_roots(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'video' is no source of this recipe"):
        find_roots(read("videos"), [f"video={tmp_path}"])
    with pytest.raises(RecipeError, match="no folder is given for cameras"):
        find_roots(read("cameras"), [])
    with pytest.raises(SourceError, match="the root of source cameras is not there"):
        find_roots(read("cameras"), [str(tmp_path / "nowhere")])


def test_an_error_is_what_where_try_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["ingest", "--recipe", "cameras", "--root", str(tmp_path / "no"), "--out", str(tmp_path / "out")])
    told = capsys.readouterr().err
    assert code == 2
    assert "SourceError: the root of source cameras is not there" in told
    assert "where: " in told
    assert "try:   check ROOT" in told


def test_a_share_of_gpus_that_nobody_can_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pairs", "--recipe", "cameras", "--out", str(tmp_path), "--gpus", "1.5"]) == 2
    told = capsys.readouterr().err
    assert "RecipeError: gpus 1.5 is neither a share of one nor a whole number" in told
    assert "GPUS=1.5" in told


@pytest.mark.parametrize(("workers", "executor"), [("0", "ray"), ("-3", "local")])
def test_fewer_workers_than_one(
    workers: str, executor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["pairs", "--recipe", "cameras", "--out", str(tmp_path), "--executor", executor, "--workers", workers]
    assert main(run) == 2
    told = capsys.readouterr().err
    assert f"RecipeError: {workers} workers get nothing done" in told
    assert f"where: WORKERS={workers}" in told
    assert "or none for one per CPU" in told


def test_a_station_without_the_one_before_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pairs", "--recipe", "cameras", "--out", str(tmp_path), "--executor", "local"]) == 2
    assert "run `make crop`" in capsys.readouterr().err


def test_recipe_prints_all_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "cameras"]) == 0
    assert '"min_hash_distance"' in capsys.readouterr().out


def test_a_build_refuses_another_pair_recipe_before_it_lists_a_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        add_clip(tmp_path / "clips", name)
    build(tmp_path / "clips", tmp_path / "out")
    add_clip(tmp_path / "clips", "c")
    recipe = tmp_path / "mine.yaml"
    pair = "{cross_pose: 21, cross_view: 0, min_dt_s: 0.0, min_hash_distance: 0}"
    rest = "parser: {backend: none}\ncrop: {min_track: 2}\nshard: {rows: 4}\nsplit: {val_share: 0.0}\n"
    recipe.write_text(f"recipe: videos\nname: clips\npair: {pair}\n{rest}")
    where = ["--root", str(tmp_path / "clips"), "--out", str(tmp_path / "out"), "--executor", "local", "--extend"]
    before = contents(tmp_path / "out")
    assert main(["build", "--recipe", str(recipe), *where]) == 2
    assert "recipe.pair.cross_pose: 20 -> 21" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before
    recipe.write_text(recipe.read_text().replace("cross_pose: 21", "cross_pose: 20"))
    assert main(["build", "--recipe", str(recipe), *where]) == 0
    assert "\n    nobody is held out: training will have no pair to validate on" in capsys.readouterr().out


def commit_renders(out: Path, recipe: BuildRecipe) -> None:
    """What `make render` leaves of a recipe, but for the pictures."""
    decides = to_mapping(Render(recipe, out).decides())
    with UnitWriter(out / "renders", stage="renders", unit="synthetic-s000000", fingerprint="a"):
        pass
    told = {"recipe": decides, "fingerprint": "a", "units": ["synthetic-s000000"], "version": 0}
    (out / "renders" / "plan.json").write_text(json.dumps(told))


@pytest.mark.parametrize("verb", ["pairs", "shards"])
def test_a_late_station_refuses_another_recipe_than_its_renders_have(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit_renders(tmp_path / "out", with_images(read("synthetic"), 100))
    other = tmp_path / "other.yaml"
    other.write_text(
        "recipe: synthetic\nname: other\nsplit: {val_share: 0.5}\nrender: {num_identities: 50, noise: 0.1}\n"
    )
    run = ["--out", str(tmp_path / "out"), "--executor", "local"]
    assert main([verb, "--recipe", str(other), *run]) == 2
    told = capsys.readouterr().err
    assert f"where: {tmp_path / 'out' / 'renders'}" in told
    assert "recipe.split.val_share: 0.2 -> 0.5" in told
    assert "recipe.render.noise" in told
    assert "num_identities" not in told
    assert "give the RECIPE that `renders` was made with" in told
    assert not (tmp_path / "out" / verb).exists()
    other.write_text("recipe: synthetic\nname: other\nrender: {num_identities: 50}\n")
    for same in ("synthetic", str(other)):  # however many people there are
        main([verb, "--recipe", same, *run])
        assert "another recipe" not in capsys.readouterr().err


def test_what_an_older_version_did_not_know_is_no_change(tmp_path: Path) -> None:
    commit_renders(tmp_path, read("synthetic"))
    path = tmp_path / "renders" / "plan.json"
    told = json.loads(path.read_text())
    del told["recipe"]["render"]["noise"]
    path.write_text(json.dumps(told))
    check_recipes([], tmp_path, earlier=[Render(read("synthetic"), tmp_path)])
    told["recipe"]["render"]["num_views"] += 1
    path.write_text(json.dumps(told))
    with pytest.raises(StageError, match=r"recipe\.render\.num_views"):
        check_recipes([], tmp_path, earlier=[Render(read("synthetic"), tmp_path)])


@pytest.mark.parametrize(
    ("verb", "line", "told"),
    [
        ("crop", "split: {val_share: 0.5}", "recipe.split.val_share: 0.0 -> 0.5"),
        ("pairs", "sources: [{kind: videos, frame_step: 2}]", "recipe.sources.videos.frame_step: 1 -> 2"),
        ("pairs", "crop: {min_track: 3}", "recipe.crop.min_track: 2 -> 3"),
        ("shards", "pair: {cross_pose: 21}", "recipe.pair.cross_pose: 20 -> 21"),
        ("shards", "sources: [{kind: videos, weight: 2.0}]", "recipe.weights.videos: 1.0 -> 2.0"),
    ],
)
def test_a_late_station_refuses_what_an_earlier_one_did_otherwise(
    verb: str, line: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_clip(tmp_path / "clips", "a")
    build(tmp_path / "clips", tmp_path / "out")
    mine = to_mapping(KILLED)
    recipe = tmp_path / "mine.yaml"
    run = ["--out", str(tmp_path / "out"), "--root", str(tmp_path / "clips"), "--executor", "local"]
    recipe.write_text(json.dumps({"recipe": "videos", **mine}))
    assert main([verb, "--recipe", str(recipe), *run]) == 0
    before = contents(tmp_path / "out")
    key, value = next(iter(yaml.safe_load(line).items()))
    recipe.write_text(
        json.dumps({"recipe": "videos", **mine, key: {**mine[key], **value} if key != "sources" else value})
    )
    assert main([verb, "--recipe", str(recipe), *run]) == 2
    assert told in capsys.readouterr().err
    assert contents(tmp_path / "out") == before


def test_a_folder_that_make_has_split_at_its_spaces_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pairs", "--recipe", "cameras", "--out", "my", "out", "folder"])
    assert "unrecognized arguments: out folder; make splits names at spaces" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["pairs", "--recipe", "cameras", "--out", "out", "--exend"])
    assert "unrecognized arguments: --exend\n" in capsys.readouterr().err
