"""A group's split follows from its name; nobody is on two sides."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.splits import assign, leaks, split_of
from manifests.types import Split

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


def test_share_is_about_what_was_asked_for():
    chosen = [split_of(f"s{i}", seed=1, val_share=0.1) for i in range(4000)]
    assert abs(chosen.count(Split.VAL) - 400) < 4 * (4000 * 0.1 * 0.9) ** 0.5  # four deviations of a binomial
    assert set(chosen) == {Split.TRAIN, Split.VAL}


@given(NAMES, st.integers(0, 99), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_only_adds_to_val(group, seed, one, other):
    small, large = sorted((one, other))
    if split_of(group, seed=seed, val_share=small) is Split.VAL:
        assert split_of(group, seed=seed, val_share=large) is Split.VAL


@given(NAMES, st.integers(0, 99))
def test_named_groups_none_and_all(group, seed):
    assert split_of(group, seed=seed, val_groups=(group,)) is Split.VAL
    assert split_of(group, seed=seed) is Split.TRAIN
    assert split_of(group, seed=seed, val_share=1.0) is Split.VAL


def test_the_seed_chooses_others():
    chosen = [{i for i in range(200) if split_of(f"s{i}", seed=seed, val_share=0.5) is Split.VAL} for seed in (0, 1)]
    assert chosen[0] != chosen[1]


def test_pinned_choice():
    """Builds that exist must not change sides. Regenerate: `split_of(f"s{i}", seed=0, val_share=0.2)` for i in 0..7."""
    chosen = [i for i in range(8) if split_of(f"s{i}", seed=0, val_share=0.2) is Split.VAL]
    assert chosen == [3, 5]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none(share):
    with pytest.raises(ValueError, match="val_share"):
        split_of("s1", seed=0, val_share=share)


@given(st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), st.sampled_from(["train", "val", "test"]))))
def test_leaks_against_a_slow_twin(rows):
    slow = sorted(
        group
        for group in {g for g, _ in rows if g is not None}
        if len({split for other, split in rows if other == group}) > 1
    )
    groups, splits = [row[0] for row in rows], [row[1] for row in rows]
    assert leaks(pa.array(groups, pa.string()), pa.array(splits, pa.string())) == slow
    halves = [pa.chunked_array([c[: len(c) // 2], c[len(c) // 2 :]], pa.string()) for c in (groups, splits)]
    assert leaks(*halves) == slow


@given(st.sets(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=12), st.integers(0, 99))
def test_no_side_stays_empty_where_that_can_be_helped(groups, seed):
    for share in (0.1, 0.9):
        chosen = assign(groups, seed=seed, val_share=share)
        assert set(chosen) == groups
        assert Split.TRAIN in chosen.values()
        assert len(groups) == 1 or Split.VAL in chosen.values()
        alone = {group: split_of(group, seed=seed, val_share=share) for group in groups}
        one_sided = len(set(alone.values())) == 1 and (len(groups) > 1 or Split.TRAIN not in alone.values())
        assert sum(chosen[group] is not alone[group] for group in groups) == one_sided
    assert set(assign(groups, seed=seed, val_share=0).values()) == {Split.TRAIN}


def test_groups_named_for_val_are_all_held_out_even_if_nobody_is_left():
    assert assign(["a", "b"], seed=0, val_groups=("a", "b")) == {"a": Split.VAL, "b": Split.VAL}
