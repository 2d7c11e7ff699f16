"""Pairs against a plain loop over all candidates."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import table as tables
from manifests.surface import SURFACE_CELLS
from manifests.types import FrameKey, PairKind, Reason
from pipeline.candidates import pair_of
from pipeline.pairs import Sequence, candidates_of, sample_pairs
from pipeline.recipes import PairRecipe
from tests.support.crops import crop_row, recording, ring_camera

ALL = PairRecipe(cross_view=10**6, cross_pose=10**6, min_dt_s=0.0, min_hash_distance=0, swap_roles=False)


def unordered(pairs: pa.Table, kind: PairKind) -> set[frozenset[str]]:
    rows = [row for row in pairs.to_pylist() if row["kind"] == kind.value]
    return {frozenset((row["target"], row["reference"])) for row in rows}


def brute_force(crops: pa.Table, kind: PairKind) -> set[frozenset[str]]:
    """Every pair the kind allows, by looking at every two crops."""
    found = set()
    for a, b in itertools.combinations(crops.to_pylist(), 2):
        if a["track"] != b["track"] or a["sequence"] != b["sequence"]:
            continue
        if kind is PairKind.CROSS_VIEW and a["instant"] == b["instant"] and a["view"] != b["view"]:
            found.add(frozenset((a["key"], b["key"])))
        same_shot = a["view"] == b["view"] and a["segment"] == b["segment"]
        if kind is PairKind.CROSS_POSE and same_shot and a["instant"] != b["instant"]:
            found.add(frozenset((a["key"], b["key"])))
    return found


@given(st.integers(0, 2**45))
def test_pair_of_counts_through_the_triangle(number: int) -> None:
    low, high = (int(v[0]) for v in pair_of(np.array([number])))
    assert 0 <= low < high
    assert high * (high - 1) // 2 + low == number


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 2), st.integers(0, 5))
def test_all_candidates_equal_brute_force(views: int, instants: int, people: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        crop_row(instant=i, view=f"c{v}", track=f"p{p}", segment=int(rng.integers(0, 2)))
        for v in range(views)
        for i in range(instants)
        for p in range(people)
        if rng.random() < 0.8
    ]
    crops = tables.from_rows("crops", rows)
    pairs, _ = sample_pairs(crops, ALL, seed=seed, weight=1.0)
    for kind in PairKind:
        assert unordered(pairs, kind) == brute_force(crops, kind)


def test_caliscope_shape_gives_666_cross_view_candidates() -> None:
    crops = recording(views=4, instants=111)
    assert candidates_of(Sequence.of(crops), PairKind.CROSS_VIEW).total == 666


def test_row_order_does_not_matter() -> None:
    crops = recording(views=3, instants=12)
    recipe = PairRecipe(cross_view=10, cross_pose=15)
    shuffled = crops.take(pa.array(np.random.default_rng(1).permutation(crops.num_rows)))
    assert sample_pairs(crops, recipe, seed=4, weight=1.0)[0].equals(
        sample_pairs(shuffled, recipe, seed=4, weight=1.0)[0]
    )


def test_quota_seed_and_uniqueness() -> None:
    crops = recording(views=4, instants=30)
    recipe = PairRecipe(cross_view=50, cross_pose=70)
    pairs = sample_pairs(crops, recipe, seed=0, weight=1.0)[0]
    kinds = pairs.column("kind").to_pylist()
    assert (kinds.count("cross_view"), kinds.count("cross_pose")) == (50, 70)
    assert len(set(pairs.column("key").to_pylist())) == 120
    assert not pairs.equals(sample_pairs(crops, recipe, seed=1, weight=1.0)[0])


def test_sampling_without_listing_keeps_to_the_rules() -> None:
    crops = recording(views=4, instants=60)
    pairs = sample_pairs(crops, PairRecipe(cross_view=40, cross_pose=40), seed=0, weight=1.0)[0]
    for kind in PairKind:
        drawn = unordered(pairs, kind)
        assert len(drawn) == 40
        assert drawn <= brute_force(crops, kind)


def test_roles_are_swapped_about_half_the_time_and_dt_follows() -> None:
    crops = recording(views=1, instants=80)
    pairs = sample_pairs(crops, PairRecipe(cross_view=0, cross_pose=1000), seed=0, weight=1.0)[0].to_pylist()
    forwards = [row for row in pairs if row["dt_s"] > 0]
    assert 400 < len(forwards) < 600
    for row in pairs:
        target, reference = FrameKey.parse(row["target"]), FrameKey.parse(row["reference"])
        assert row["dt_s"] == pytest.approx((reference.instant - target.instant) / 30)
        assert abs(row["dt_s"]) >= 0.1 - 1e-12


def test_alike_crops_are_left_out_and_counted() -> None:
    rows = [crop_row(instant=i, phash=7) for i in range(0, 40, 10)] + [crop_row(instant=90, phash=2**40 - 1)]
    pairs, rejects = sample_pairs(
        tables.from_rows("crops", rows), PairRecipe(cross_view=0, cross_pose=99), seed=0, weight=1.0
    )
    assert pairs.num_rows == 4  # each of the four with the one that looks different
    assert [(r.reason, r.detail) for r in rejects] == [(Reason.ALIKE, "6 of 10 cross_pose candidates look the same")]


def test_view_angle_is_the_angle_on_the_ring() -> None:
    pairs = sample_pairs(recording(views=4, instants=2), ALL, seed=0, weight=1.0)[0].to_pylist()
    for row in pairs:
        if row["kind"] == "cross_view":
            steps = abs(int(row["target"].split("/")[4][-1]) - int(row["reference"].split("/")[4][-1]))
            assert row["view_angle_rad"] == pytest.approx(np.pi / 2 * min(steps, 4 - steps), abs=1e-6)
        else:
            assert row["view_angle_rad"] == 0.0


def test_a_camera_that_moves_has_an_angle_to_itself() -> None:
    rows = [crop_row(instant=i, view="v", camera=ring_camera(i * 0.1)) for i in range(4)]
    pairs = sample_pairs(tables.from_rows("crops", rows), ALL, seed=0, weight=1.0)[0].to_pylist()
    for row in pairs:
        steps = abs(int(row["target"].split("/")[3]) - int(row["reference"].split("/")[3]))
        assert row["view_angle_rad"] == pytest.approx(0.1 * steps, abs=1e-9)


def test_unknown_camera_and_clock_stay_unknown() -> None:
    rows = [crop_row(instant=i, view=v) | {"time_s": None} for i in range(3) for v in ("a", "b")]
    pairs = sample_pairs(tables.from_rows("crops", rows), ALL, seed=0, weight=1.0)[0].to_pylist()
    assert {row["dt_s"] for row in pairs if row["kind"] == "cross_pose"} == {None}
    assert {row["view_angle_rad"] for row in pairs} == {None}


def test_one_crop_has_no_partner() -> None:
    pairs, rejects = sample_pairs(recording(views=1, instants=1), PairRecipe(), seed=0, weight=1.0)
    assert pairs.num_rows == 0
    assert [r.reason for r in rejects] == [Reason.NO_PARTNER, Reason.NO_PARTNER]


def test_a_view_out_of_step_gives_poses_but_no_cross_view_pair() -> None:
    rows = [crop_row(instant=i, view=v, flags=["unsynchronised"] if v == "c" else []) for i in range(4) for v in "abc"]
    pairs = sample_pairs(tables.from_rows("crops", rows), ALL, seed=0, weight=1.0)[0].to_pylist()
    views = {
        FrameKey.parse(row[role]).view
        for row in pairs
        if row["kind"] == "cross_view"
        for role in ("target", "reference")
    }
    assert views == {"a", "b"}
    assert sum(row["kind"] == "cross_pose" for row in pairs) == 3 * 6


def test_an_evaluation_set_is_never_paired() -> None:
    rows = [
        crop_row(instant=i, view=f"c{v}", flags=["evaluation"] if i < 2 else []) for v in range(2) for i in range(4)
    ]
    pairs, rejects = sample_pairs(tables.from_rows("crops", rows), ALL, seed=0, weight=1.0)
    shown = {FrameKey.parse(key).instant for side in ("target", "reference") for key in pairs.column(side).to_pylist()}
    assert (pairs.num_rows, shown) == (2 + 2, {2, 3})
    assert [(r.key, r.reason, r.detail.split()[0]) for r in rejects] == [("cameras/train/rec", Reason.EVALUATION, "4")]
    held_back = tables.from_rows("crops", rows[:2])
    pairs, rejects = sample_pairs(held_back, ALL, seed=0, weight=1.0)
    assert (pairs.num_rows, [r.reason for r in rejects]) == (0, [Reason.EVALUATION])


def test_pairs_carry_the_terms_of_their_source() -> None:
    pairs, _ = sample_pairs(recording(instants=2, licence="CC BY-NC 4.0"), ALL, seed=0, weight=1.0)
    assert set(pairs.column("licence").to_pylist()) == {"CC BY-NC 4.0"}


def test_covisibility_is_told_where_both_crops_know_their_surface() -> None:
    rng = np.random.default_rng(3)
    cells = rng.integers(0, 9, (5, SURFACE_CELLS), dtype=np.uint8)
    rows = [crop_row(view=f"c{v}", subject="s1", surface=cells[v].tobytes() if v else None) for v in range(5)]
    rows[4]["subject"] = "s2"
    pairs = sample_pairs(tables.from_rows("crops", rows), ALL, seed=0, weight=1.0)[0].to_pylist()
    told = {(row["target"].split("/")[4], row["reference"].split("/")[4]): row["covisibility"] for row in pairs}
    known = {pair for pair, share in told.items() if share is not None}
    assert known == {("c1", "c2"), ("c1", "c3"), ("c2", "c3")}
    for one, other in known:
        target, reference = cells[int(one[1])].astype(int), cells[int(other[1])]
        assert told[one, other] == pytest.approx(target[reference > 0].sum() / target.sum(), abs=1e-12)


def test_pairs_tell_whom_they_show() -> None:
    rows = [
        crop_row(instant=i, track=f"p{p}", subject="s7" if p else None, jpeg=b"") for p in range(2) for i in range(3)
    ]
    pairs = sample_pairs(tables.from_rows("crops", rows), ALL, seed=0, weight=1.0)[0].to_pylist()
    assert {(FrameKey.parse(row["target"]).track, row["subject"]) for row in pairs} == {("p0", None), ("p1", "s7")}
