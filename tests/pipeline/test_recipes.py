"""Recipes: named, overridden by a file, strict."""

from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import RecipeError
from manifests.recipes import fingerprint, from_mapping, read_recipe, to_mapping
from pipeline.recipes import (
    RECIPES,
    BuildRecipe,
    CropRecipe,
    PairRecipe,
    ParserRecipe,
    ShardRecipe,
    SourceRecipe,
    SplitRecipe,
)


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


NEGATIVE = {"cut_correlation", "seed"}  # mean something below 0
SMALL = {  # with what else it takes to build one
    SourceRecipe: {"kind": "videos"},
    SplitRecipe: {},
    ParserRecipe: {},
    CropRecipe: {},
    PairRecipe: {},
    ShardRecipe: {},
    BuildRecipe: {"name": "b", "sources": [{"kind": "videos"}]},
}


def numbers(cls: type) -> list[str]:
    """The fields of a recipe that are numbers."""
    hints = get_type_hints(cls)
    return [field.name for field in fields(cls) if {int, float} & {hints[field.name], *get_args(hints[field.name])}]


NUMBERS = [(cls, name) for cls in SMALL for name in numbers(cls)]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), 10**400], ids=["nan", "inf", "-inf", "huge"]
)
@pytest.mark.parametrize(("cls", "name"), NUMBERS)
def test_a_number_that_is_none_is_refused_by_its_name(cls: type, name: str, value: float) -> None:
    if name == "seed" and isinstance(value, int):
        return  # a name like any other
    with pytest.raises(RecipeError) as caught:
        from_mapping(cls, SMALL[cls] | {name: value}, where="mine.yaml")
    assert name in str(caught.value)
    with pytest.raises(ValueError, match=name) if name != "seed" else nullcontext():
        replace(from_mapping(cls, SMALL[cls]), **{name: value})


@pytest.mark.parametrize(("cls", "name"), [(cls, name) for cls, name in NUMBERS if name not in NEGATIVE])
@given(value=st.integers(max_value=-1) | st.floats(max_value=-1e-9, allow_infinity=False))
def test_what_means_nothing_below_0_is_refused_by_its_name(cls: type, name: str, value: float) -> None:
    with pytest.raises(RecipeError) as caught:
        from_mapping(cls, SMALL[cls] | {name: value}, where="mine.yaml")
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ({"min_hash_distance": 65}, "min_hash_distance 65 must be at least 0 and at most 64"),
        ({"min_dt_s": -1}, "min_dt_s -1.0 must be at least 0"),
        ({"num_views": 1}, "num_views 1 must be at least 2"),
        ({"num_views": 2, "mixed_tuples": True}, "num_views 2 must be at least 3"),
        ({"cross_view": 0, "cross_pose": 0}, "cross_view and cross_pose are both 0"),
        ({"view_angle_deg": [0, 60]}, "[0, 60] is not a mapping like {edges: ..., shares: ...}"),
        ({"view_angle_deg": {"0-60": 1}}, "unknown recipe key `0-60`"),
        ({"view_angle_deg": {}}, "`edges` and `shares` are missing"),
        ({"view_angle_deg": {"edges": [0, 60], "shares": [1, 1]}}, "edges must be one more than shares, not 2 and 2"),
        ({"view_angle_deg": {"edges": [0, 200], "shares": [1]}}, "the edges of view_angle_deg must be in [0, 180]"),
        ({"time_gap_s": {"edges": [0, float("inf")], "shares": [1]}}, "inf is not a finite number"),
        ({"time_gap_s": {"edges": [0, 1e12], "shares": [1]}}, "the edges of time_gap_s must be in [0, 1e+09]"),
        ({"time_gap_s": {"edges": [0, 1, 1], "shares": [1, 1]}}, "edges (0.0, 1.0, 1.0) must be finite and rise"),
        ({"time_gap_s": {"edges": [0, 1, 2], "shares": [1e308, 1e308]}}, "must be finite, not negative, and not all 0"),
        ({"temperature": 1e-9}, "a weight of 2 at temperature 1e-09 is out of all proportion"),
    ],
)  # fmt: skip
def test_what_no_pair_could_be_is_told(pair: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        from_mapping(BuildRecipe, {"name": "b", "sources": [{"kind": "videos", "weight": 2}], "pair": pair})
    assert message in caught.value.what


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
