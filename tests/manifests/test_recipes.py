"""Recipes as data: strict about what they are given, with one fingerprint that only what decides the result can move."""

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import SimpleNamespace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import RecipeError
from manifests.recipes import (
    ABOVE_0,
    canonical_json,
    changed_keys,
    check_ranges,
    fingerprint,
    from_mapping,
    to_mapping,
)  # fmt: skip


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    size_px: int
    share: float = 0.5

    def __post_init__(self):
        if self.size_px < 1:
            raise ValueError("size_px must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cart:
    name: str
    fast: bool = False
    colour: Colour = Colour.RED
    form: Literal["flat", "round"] = "flat"
    wheel: Wheel = field(default_factory=lambda: Wheel(size_px=3))
    wheels: tuple[Wheel, ...] = ()
    box: tuple[int, float] = (1, 2.0)
    spare: Wheel | None = None
    marks: tuple[int | str, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)


WHEELS = st.builds(Wheel, size_px=st.integers(1, 99), share=st.floats(0, 1))
CARTS = st.builds(
    Cart,
    name=st.text(max_size=5),
    fast=st.booleans(),
    colour=st.sampled_from(Colour),
    form=st.sampled_from(["flat", "round"]),
    wheel=WHEELS,
    wheels=st.lists(WHEELS, max_size=2).map(tuple),
    box=st.tuples(st.integers(-9, 9), st.floats(-9, 9)),
    spare=st.none() | WHEELS,
    marks=st.lists(st.integers() | st.text(max_size=3), max_size=3).map(tuple),
    weights=st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=2),
)


@given(CARTS)
def test_round_trip_through_plain_values(cart):
    assert from_mapping(Cart, to_mapping(cart)) == cart


@given(CARTS, CARTS)
def test_one_fingerprint_if_and_only_if_one_mapping(one, other):
    same = to_mapping(one) == to_mapping(other)
    assert not same or fingerprint(one) == fingerprint(other) or one != other  # 0.0 == -0.0 but they spell apart
    assert (fingerprint(one) == fingerprint(other)) == (canonical_json(one) == canonical_json(other))
    assert (changed_keys(to_mapping(one), to_mapping(other)) == []) == same


def test_fingerprint_is_blind_to_order_and_pinned():
    """Shards and checkpoints carry it. Regenerate: sha256 of '{"a":1,"b":[true,null,"x"],"c":{"d":0.5}}'."""
    value = {"c": {"d": 0.5}, "b": [True, None, "x"], "a": 1}
    assert canonical_json(value) == '{"a":1,"b":[true,null,"x"],"c":{"d":0.5}}'
    assert fingerprint(value) == fingerprint(dict(reversed(value.items())))
    assert fingerprint(value) == "f3d5e979bf69a16afce0536340fdd52600ca9ce22e7acbfbc3f7b0090b77dace"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_has_not_are_refused(value):
    with pytest.raises(ValueError, match="JSON compliant"):
        fingerprint({"a": value})


def test_what_is_no_plain_value_is_refused():
    with pytest.raises(TypeError, match="plain values, not set"):
        to_mapping({"a": {1}})


@pytest.mark.parametrize(
    ("mapping", "message", "hint"),
    [
        ({"nam": "a"}, "unknown recipe key `nam`", "did you mean `name`?"),
        ({"name": "a", "colours": "red"}, "unknown recipe key `colours`", "did you mean `colour`?"),
        ({"name": "a", "wheel": {"size": 3}}, "unknown recipe key `size`", "did you mean `size_px`?"),
        ({"name": "a", "xyz": 1}, "unknown recipe key `xyz`", "known keys: name, fast, colour"),
        ({"name": "a", 3: 1}, "unknown recipe key `3`", "known keys"),
        ({}, "is missing", "name every required key"),
        ({"name": 3}, "3 is not text", "give text"),
        ({"name": "a", "fast": 1}, "1 is not true or false", "give true or false"),
        ({"name": "a", "wheel": {"size_px": True}}, "True is not a whole number", "give a whole number"),
        ({"name": "a", "wheel": {"size_px": 2.0}}, "2.0 is not a whole number", "give a whole number"),
        ({"name": "a", "wheel": {"size_px": 2, "share": "x"}}, "is not a number", "give a number"),
        ({"name": "a", "wheel": {"size_px": 2, "share": False}}, "False is not a number", "give a number"),
        ({"name": "a", "wheel": {"size_px": 0}}, "size_px must be at least 1", "change one of the keys"),
        ({"name": "a", "wheel": 3}, "is not a mapping like {size_px: ..., share: ...}", "give a mapping like {size_px"),
        (
            {"name": "a", "wheel": None},
            "is not a mapping like {size_px: ..., share: ...}",
            "give a mapping like {size_px",
        ),
        (
            {"name": "a", "wheel": {"size_px": 2, "share": float("nan")}},
            "nan is not a finite number",
            "give a finite number",
        ),
        (
            {"name": "a", "wheel": {"size_px": 2, "share": float("inf")}},
            "inf is not a finite number",
            "give a finite number",
        ),
        ({"name": "a", "box": [1, 10**400]}, "is not a finite number", "give a finite number"),
        ({"name": "a", "colour": "green"}, "is not one of 'red', 'blue'", "give one of"),
        ({"name": "a", "form": "square"}, "is not one of 'flat', 'round'", "give one of"),
        ({"name": "a", "wheels": "round"}, "is not a list", "give"),
        ({"name": "a", "wheels": [{"size_px": 1}, {"size": 1}]}, "unknown recipe key `size`", "size_px"),
        ({"name": "a", "box": [1]}, "is not 2 values", "give 2 values"),
        ({"name": "a", "spare": 7}, "is not a mapping like {size_px", "give"),
        ({"name": "a", "marks": [1.5]}, "1.5 is not int or str", "give int or str"),
        ({"name": "a", "weights": {"x": "y"}}, "is not a number", "give a number"),
        ({"name": "a", "weights": [1]}, "is not a mapping", "give"),
    ],
)
def test_what_a_recipe_refuses(mapping, message, hint):
    with pytest.raises(RecipeError) as caught:
        from_mapping(Cart, mapping, where="my.yaml")
    assert message in caught.value.what
    assert hint in caught.value.hint
    assert caught.value.where.startswith("my.yaml")


@pytest.mark.parametrize(
    ("value", "message"),
    [(0.0, None), (9.0, None), (None, None), (-0.1, "share -0.1 must be at least 0 and at most 9"), (9.1, "at most 9"),
     (float("nan"), "share nan must"), (float("inf"), "share inf must")],
)  # fmt: skip
def test_ranges(value, message):
    cart = SimpleNamespace(share=value)
    with pytest.raises(ValueError, match=message) if message else nullcontext():
        check_ranges(cart, share=(0, 9))


def test_a_range_that_begins_above_0_or_never_ends():
    check_ranges(SimpleNamespace(share=1e-9), share=(ABOVE_0, float("inf")))
    with pytest.raises(ValueError, match=r"^share 0 must be above 0$"):
        check_ranges(SimpleNamespace(share=0), share=(ABOVE_0, float("inf")))
    with pytest.raises(ValueError, match=r"^share inf must be above 0$"):
        check_ranges(SimpleNamespace(share=float("inf")), share=(ABOVE_0, float("inf")))


def test_where_is_the_dotted_place():
    with pytest.raises(RecipeError) as caught:
        from_mapping(Cart, {"name": "a", "wheels": [{"size_px": 1}, {"size_px": "x"}]}, where="my.yaml")
    assert caught.value.where == "my.yaml: wheels[1]: size_px"


def test_whole_numbers_are_floats_where_floats_are_due():
    cart = from_mapping(Cart, {"name": "a", "wheel": {"size_px": 2, "share": 1}, "weights": {"x": 2}})
    assert (cart.wheel.share, type(cart.wheel.share)) == (1.0, float)
    assert fingerprint(cart) == fingerprint(replace(cart, wheel=Wheel(size_px=2, share=1.0), weights={"x": 2.0}))


def test_a_base_holds_wherever_the_mapping_is_silent():
    base = Cart(name="a", fast=True, wheel=Wheel(size_px=9, share=0.25), spare=Wheel(size_px=5))
    cart = from_mapping(Cart, {"wheel": {"size_px": 7}, "spare": {"share": 0.75}}, base=base)
    assert cart == replace(base, wheel=Wheel(size_px=7, share=0.25), spare=Wheel(size_px=5, share=0.75))
    assert from_mapping(Cart, {}, base=base) == base
    assert from_mapping(Cart, {"spare": None}, base=base).spare is None


def test_changed_keys_go_into_lists_of_mappings_of_one_length():
    old = {"train": [{"kind": "a", "options": {"shots": 32}}, {"kind": "b"}], "views": [1, 2]}
    new = {"train": [{"options": {"shots": 16}, "kind": "a"}, {"kind": "b"}], "views": [1, 3]}
    assert changed_keys(old, new) == ["train.0.options.shots: 32 -> 16", "views: [1, 2] -> [1, 3]"]
    (change,) = changed_keys(old, new | {"train": new["train"][:1], "views": [1, 2]})
    assert change.startswith("train: [")
    assert changed_keys({"x": []}, {"x": []}) == []


def test_changed_keys_names_leaves_with_both_values():
    old = {"crop": {"size_px": 256, "margin": 1.25}, "seed": 0, "sources": [1]}
    new = {"crop": {"size_px": 224, "margin": 1.25}, "seed": 0, "sources": [1, 2], "name": "x" * 100}
    changes = changed_keys(old, new)
    assert changes[0] == "crop.size_px: 256 -> 224"
    assert changes[1].startswith('name: null -> "xxx')
    assert changes[1].endswith("...")
    assert changes[2] == "sources: [1] -> [1, 2]"
    assert len(changes) == 3
