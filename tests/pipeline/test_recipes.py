"""Recipes: named, overridden by a file, strict."""

from pathlib import Path

import pytest

from manifests.errors import RecipeError
from manifests.recipes import fingerprint, from_mapping, read_recipe, to_mapping
from pipeline.recipes import RECIPES, BuildRecipe, CropRecipe, ParserRecipe, SourceRecipe, SplitRecipe


def read(name: str) -> BuildRecipe:
    return read_recipe(name, RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_json(name: str) -> None:
    recipe = read(name)
    assert from_mapping(BuildRecipe, to_mapping(recipe)) == recipe


def test_a_file_overrides_only_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: cameras\nseed: 3\npair: {cross_view: 7}\n")
    mine, base = read(str(path)), read("cameras")
    assert (mine.name, mine.seed, mine.pair.cross_view) == ("mine", 3, 7)
    assert (mine.crop, mine.sources, mine.pair.cross_pose) == (base.crop, base.sources, base.pair.cross_pose)
    assert fingerprint(mine) != fingerprint(base)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "recipe: cameras\npair: {cros_view: 7}\n",
            r"(?s)unknown recipe key `cros_view`.*mine\.yaml: pair.*`cross_view`",
        ),
        ("recipe: camras\n", r"(?s)no recipe is called `camras`.*`cameras`"),
        ("seed: 1\n", "names no recipe to start from"),
        ("recipe: cameras\nseed: many\n", r"(?s)'many' is not a whole number.*seed"),
        ("recipe: cameras\ncrop: {size_px: 250}\n", "size_px must be a multiple of 64"),
        ("recipe: [\n", "does not read"),
    ],
)
def test_a_wrong_file_is_told_what_and_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        read(str(path))


def test_unknown_names_and_missing_files() -> None:
    with pytest.raises(RecipeError, match="did you mean `videos`"):
        read("video")
    with pytest.raises(RecipeError, match="does not read"):
        read("nowhere.yaml")


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (SourceRecipe, {"kind": "cameras", "name": "No Slash/"}),
        (SourceRecipe, {"kind": "cameras", "name": "a", "weight": 0.0}),
        (SplitRecipe, {"val_share": 1.0}),
        (ParserRecipe, {"backend": "mmseg"}),
        (CropRecipe, {"margin": 0.5}),
        (BuildRecipe, {"name": "empty"}),
        (
            BuildRecipe,
            {
                "name": "twice",
                "sources": (SourceRecipe(kind="videos", name="a"), SourceRecipe(kind="cameras", name="a")),
            },
        ),
    ],
)
def test_contradictions_are_refused_before_any_work(cls: type, values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        cls(**values)
