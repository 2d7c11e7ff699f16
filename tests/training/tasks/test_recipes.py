import inspect
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import pytest

from manifests.errors import RecipeError, TrainingError
from manifests.recipes import from_mapping, to_mapping
from training.tasks import datasets, recipes
from training.tasks.datasets import FILES, READERS, check_draws, check_places, open_examples, with_roots, without_roots
from training.tasks.recipes import RECIPES, TASKS, Data, FinetuneRecipe, build_task, read_finetune


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_there_with_what_the_loop_asks_of_it(name):
    task = build_task(name, {})
    assert task.name == name
    assert task.reads in ("pooled", "dense", "two", "query")
    for method in ("check", "head", "target", "loss", "constant", "measure", "scores", "draw", "write"):
        assert callable(getattr(task, method))


@pytest.mark.parametrize("kind", READERS)
def test_every_reader_takes_a_root_and_a_split(kind):
    names = list(inspect.signature(recipes.imported(READERS[kind])).parameters)
    assert names[0] == "root"
    assert "split" in names


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_name_readers_and_options_that_exist_and_survive_json(name, task):
    if (name, task) == ("paper", "keypoints"):
        with pytest.raises(RecipeError, match="the paper fine-tunes no keypoints"):
            read_finetune(name, task)
        return
    recipe = read_finetune(name, task)
    assert from_mapping(FinetuneRecipe, to_mapping(recipe)) == recipe
    build_task(recipe.task, recipe.options)
    for data in (*recipe.train, *recipe.test, *([recipe.validation] if recipe.validation else [])):
        taken = inspect.signature(recipes.imported(READERS[data.kind])).parameters
        assert {*data.options} <= {*taken}


def test_a_file_changes_a_recipe_of_its_task(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "recipe: free\nbatch_size: 8\noptions: {rotation: procrustes}\n"
        "train: [{kind: free, weight: 2, root: /a}, {kind: threedpw, options: {neighbour: 3}}]\n"
    )
    recipe = read_finetune(str(path), "body_mesh")
    assert (recipe.name, recipe.batch_size, recipe.options) == ("mine", 8, {"rotation": "procrustes"})
    assert recipe.train == (Data(kind="free", weight=2.0, root="/a"), Data(kind="threedpw", options={"neighbour": 3}))
    assert build_task(recipe.task, recipe.options).rotation == "procrustes"
    path.write_text("recipe: free\ntask: gesture\n")
    with pytest.raises(RecipeError, match="of the task gesture"):
        read_finetune(str(path), "body_mesh")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("share: 0", "share"),
        ("betas: [0.9, 1.0]", "betas"),
        ("num_steps: 0", "num_steps"),
        ("train: []", "train and test each need a dataset"),
        ("train: [{kind: free}, {kind: free}]", "named twice"),
        ("train: [{kind: free, weight: 0}]", "weight"),
        ("variation: {flip: 2}", "flip"),
        ("varation: {flip: 1}", "did you mean `variation`"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path, changes, message):
    path = tmp_path / "mine.yaml"
    path.write_text(f"recipe: free\n{changes}\n")
    with pytest.raises(RecipeError, match=message):
        read_finetune(str(path), "body_mesh")


def test_roots_are_given_by_kind_or_for_all_and_are_no_part_of_the_result():
    recipe = from_mapping(
        FinetuneRecipe,
        {"train": [{"kind": "coco_eft"}, {"kind": "mpii", "root": "/own"}]},
        base=read_finetune("paper", "body_mesh"),
    )
    placed = with_roots(recipe, ["coco_eft=/coco", "threedpw=/3dpw"])
    assert [data.root for data in (*placed.train, placed.validation, *placed.test)] == [
        "/coco",
        "/own",
        "/coco",
        "/3dpw",
    ]
    assert [data.root for data in with_roots(recipe, ["/all", "mpii=/m"]).train] == ["/all", "/m"]
    assert with_roots(recipe, ["coco_eft=/coco"]).test[0].root is None
    with pytest.raises(RecipeError, match="no dataset free"):
        with_roots(recipe, ["/all", "free=/f"])
    with pytest.raises(RecipeError, match="two folders"):
        with_roots(recipe, ["/all", "/more"])
    assert without_roots(placed) == without_roots(with_roots(recipe, ["/all"]))


def test_wrong_names_and_options_are_answered_with_right_ones(tmp_path):
    with pytest.raises(RecipeError, match="did you mean body_mesh"):
        read_finetune("free", "bodymesh")
    with pytest.raises(RecipeError, match="no reader is called fre"):
        open_examples(Data(kind="fre", root=str(tmp_path)))
    with pytest.raises(RecipeError, match=r"free has no option keypoints[\s\S]*it takes keypoint_set"):
        open_examples(Data(kind="free", root=str(tmp_path), options={"keypoints": "penn13"}))
    with pytest.raises(TrainingError, match="free is not there"):
        open_examples(Data(kind="free", root=str(Path("/no/such"))))
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="free is no folder"):
        open_examples(Data(kind="free", root=str(tmp_path / "file")))
    with pytest.raises(RecipeError, match="did you mean `rotation`"):
        build_task("body_mesh", {"rotaton": "sixd"})


def test_all_that_is_missing_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSPOSE_ASSETS", "/gone")
    recipe = with_roots(read_finetune("paper", "texture"), [str(tmp_path / "none")])
    with pytest.raises(TrainingError) as caught:
        check_places(recipe, ["random", "croco.pth", "mae.pth"])
    assert caught.value.what == (
        "there is no such folder (smpl_market), and there is no such file (body, reid, reid_plain, textures, uv),"
        " and there is no such file of weights"
    )
    assert f"smpl_market={tmp_path / 'none'}, body=/gone/smpl.npz, reid=/gone/texformer/" in caught.value.where
    assert caught.value.where.endswith("croco.pth, mae.pth")
    for wanted in (
        "--data smpl_market=FOLDER;",
        "docs/finetuning.md",
        "{body, reid, reid_plain, textures, uv}",
        "--init",
    ):
        assert wanted in caught.value.hint
    (tmp_path / "none").mkdir()
    (tmp_path / "smpl.npz").touch()
    recipe = replace(recipe, options={"body": str(tmp_path / "smpl.npz"), "uv": str(tmp_path / "uv.obj")})
    with pytest.raises(TrainingError, match=r"^there is no such file \(uv\)\n"):
        check_places(recipe)
    (tmp_path / "uv.obj").touch()
    check_places(recipe, ["random", str(tmp_path / "uv.obj")])


def test_datasets_that_lie_nowhere_are_named_with_the_models_that_are_missing(monkeypatch):
    monkeypatch.setenv("CROSSPOSE_ASSETS", "/gone")
    recipe = read_finetune("paper", "body_mesh")
    with pytest.raises(
        TrainingError,
        match=r"where coco_eft and threedpw lie, and there is no such file \(female, male, model, regressor_h36m\)"
        r"\n.*/gone/smpl_female.npz.*\n.*--data coco_eft=FOLDER threedpw=FOLDER",
    ):
        check_places(with_roots(recipe, []))
    with pytest.raises(
        TrainingError, match=r"nothing says where threedpw lies, and there is no such folder \(coco_eft\)"
    ):
        check_places(with_roots(recipe, ["coco_eft=/coco"]))


def test_a_recipe_on_data_that_draw_by_the_seed_refuses_seeds_without_a_draw(monkeypatch, tmp_path):
    opened = []

    def reader(root, *, split, seed=0):
        opened.append(seed)
        if seed > 4:
            raise TrainingError(f"no draw {seed}", where="few", hint="0 to 4")

    monkeypatch.setattr(datasets, "imported", lambda _where: reader)
    recipe = with_roots(read_finetune("smoke", "gesture"), [str(tmp_path)])
    check_draws(recipe, (0, 3))
    with pytest.raises(TrainingError, match="no draw 5"):
        check_draws(recipe, (4, 5))
    assert opened == [0, 3, 4, 5]


@pytest.mark.parametrize("name", sorted(TASKS))
def test_options_that_may_be_files_are_known_as_such(name):
    hints = get_type_hints(recipes.imported(TASKS[name]))
    assert {option for option, hint in hints.items() if hint == str | None} <= FILES
