"""What a recipe may ask of pairs: quotas, strata, floors, equal kinds, further views. Properties over made-up recordings."""

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import table as tables
from manifests.commit import UnitWriter, iter_tables
from manifests.errors import ManifestError
from manifests.surface import SURFACE_CELLS, covisibility
from manifests.types import PairKind, Reason
from pipeline.candidates import accept, apportion, group_rows, in_random_order, rank_in_class, windows
from pipeline.pairs import Sequence, allot, candidates_of, count_people, sample_pairs, told_strata
from pipeline.recipes import RECIPES, BuildRecipe, PairRecipe, SourceRecipe, Strata
from pipeline.stages import Pairs, source_weights
from synthetic.scene import SceneRecipe
from tests.support.crops import crop_row, recording
from tests.support.many_crops import Shape, many_crops, write_crops

EVERY = PairRecipe(cross_view=10**6, cross_pose=10**6, min_dt_s=0.0, min_hash_distance=0)

TENTHS = Strata(edges=(0.1, 0.2, 0.4), shares=(1, 2))

shapes = st.builds(
    Shape,
    source=st.just("rig"),
    views=st.integers(1, 6),
    instants=st.integers(1, 25),
    people=st.integers(1, 3),
    calibrated=st.booleans(),
    num_subjects=st.sampled_from([None, 1, 2, 7]),
)


def draw(crops: pa.Table, recipe: PairRecipe, seed: int = 0, **other: Any) -> pa.Table:
    return sample_pairs(crops, recipe, seed=seed, weight=1.0, **other)[0]


def of_kind(pairs: pa.Table, kind: PairKind) -> list[dict]:
    return [row for row in pairs.to_pylist() if row["kind"] == kind.value]


def person_of(crops: pa.Table) -> dict[str, str]:
    columns = (crops.column(name).to_pylist() for name in ("key", "subject", "track"))
    return {key: subject or track for key, subject, track in zip(*columns, strict=True)}


@st.composite
def recipes(draw_: st.DrawFn) -> PairRecipe:
    """Any mixture of wishes."""
    strata = st.none() | st.builds(
        lambda edges, shares: Strata(edges=tuple(edges), shares=tuple(shares[: len(edges) - 1])),
        st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]), min_size=2, unique=True).map(sorted),
        st.lists(st.floats(0.1, 9), min_size=4, max_size=4),
    )
    angles = st.none() | st.just(Strata(edges=(0.0, 61.0, 125.0, 180.0), shares=(1.0, 0.0, 3.0)))
    num_views = draw_(st.integers(2, 5))
    return PairRecipe(
        cross_view=draw_(st.integers(1, 60)),
        cross_pose=draw_(st.integers(1, 60)),
        equal_kinds=draw_(st.booleans()),
        per_subject=draw_(st.none() | st.integers(1, 40)),
        view_angle_deg=draw_(angles),
        time_gap_s=draw_(strata),
        num_views=num_views,
        mixed_tuples=num_views > 2 and draw_(st.booleans()),
    )


@given(shapes, recipes(), st.integers(0, 9), st.randoms())
def test_whatever_is_asked_no_pair_comes_twice_and_quotas_are_kept(shape, recipe, seed, random) -> None:
    crops = many_crops("rec7", shape, seed=seed)
    held_back = random.sample(range(crops.num_rows), crops.num_rows // 5)
    flags = [["evaluation"] if row in held_back else [] for row in range(crops.num_rows)]
    crops = crops.set_column(
        crops.schema.get_field_index("flags"), crops.schema.field("flags"), pa.array(flags, pa.list_(pa.string()))
    )
    pairs = tables.check("pairs", draw(crops, recipe, seed), where="pairs")
    rows = pairs.to_pylist()

    keys = crops.column("key").to_pylist()
    never = {keys[row] for row in held_back}
    assert not never & {key for row in rows for key in (row["target"], row["reference"], *row["further"])}

    unordered = Counter(frozenset((row["target"], row["reference"])) for row in rows)
    assert all(len(pair) == 2 for pair in unordered)
    assert max(unordered.values(), default=1) == 1
    assert len({row["key"] for row in rows}) == len(rows)

    person = person_of(crops)
    counts = Counter((row["kind"], person[row["target"]]) for row in rows)
    if recipe.per_subject:
        assert max(counts.values(), default=0) <= recipe.per_subject
    kinds = Counter(row["kind"] for row in rows)
    assert kinds["cross_view"] <= recipe.cross_view
    assert kinds["cross_pose"] <= recipe.cross_pose
    if recipe.equal_kinds:
        assert kinds["cross_view"] == kinds["cross_pose"]

    order = list(range(crops.num_rows))
    random.shuffle(order)
    assert draw(crops.take(pa.array(order)), recipe, seed).equals(pairs)


@given(shapes, st.integers(1, 300), st.integers(0, 9))
def test_as_many_are_drawn_as_there_are_up_to_the_quota(shape, wanted, seed) -> None:
    crops = many_crops("rec7", shape, seed=seed)
    recipe = PairRecipe(cross_view=wanted, cross_pose=wanted, min_dt_s=0.0, min_hash_distance=0)
    pairs = draw(crops, recipe, seed)
    for kind in PairKind:
        assert len(of_kind(pairs, kind)) == min(wanted, candidates_of(Sequence.of(crops), kind).total)


@given(st.integers(1, 200), st.lists(st.floats(0.05, 5), min_size=3, max_size=3), st.integers(0, 9))
def test_strata_get_their_shares_where_candidates_suffice(wanted, shares, seed) -> None:
    crops = many_crops("rec7", Shape(source="rig", views=2, instants=61), seed=seed)
    edges = (0.2, 0.5, 1.0, 2.0)
    recipe = PairRecipe(
        cross_view=0, cross_pose=wanted, min_hash_distance=0, time_gap_s=Strata(edges=edges, shares=tuple(shares))
    )
    gaps = draw(crops, recipe, seed).column("dt_s").to_numpy()
    steps = [6, 15, 30, 60]  # the edges, at 30 pictures a second
    counts = np.histogram(np.abs(np.rint(gaps * 30)), steps)[0]
    assert len(gaps) == wanted
    assert np.abs(counts - wanted * np.array(shares) / sum(shares)).max() <= 1
    apart = [abs(one - other) for one, other in itertools.combinations(range(61), 2)]
    assert np.histogram(apart, steps)[0].min() > 200  # candidates of each class, in each of two views


def test_short_gaps_are_found_in_a_long_recording() -> None:
    crops = many_crops("rec7", Shape(source="rig", views=1, instants=9000))
    crops = crops.set_column(
        crops.schema.get_field_index("segment"),
        crops.schema.field("segment"),
        pa.repeat(pa.scalar(0, pa.int32()), 9000),
    )
    strata = Strata(edges=(0.1, 0.13, 290, 300), shares=(1, 1, 2))  # of 40 million candidates, 9000 lie in the first
    pairs = draw(crops, PairRecipe(cross_view=0, cross_pose=2000, time_gap_s=strata))
    steps = np.abs(np.rint(pairs.column("dt_s").to_numpy() * 30))
    assert np.histogram(steps, [3, 4, 8700, 9000])[0].tolist() == [500, 500, 1000]


def test_a_quota_of_a_person_keeps_the_strata() -> None:
    crops = many_crops("rec7", Shape(source="rig", views=2, instants=100, num_subjects=1))
    strata = Strata(edges=(0.1, 1, 2, 3), shares=(1, 1, 2))
    pairs = draw(crops, PairRecipe(per_subject=40, time_gap_s=strata))
    gaps = [abs(row["dt_s"]) for row in of_kind(pairs, PairKind.CROSS_POSE)]
    assert np.histogram(gaps, [0.09, 0.99, 1.99, 3.01])[0].tolist() == [10, 10, 20]


def test_no_pair_of_the_gaps_asked_for_is_told() -> None:
    crops = many_crops("rec7", Shape(source="rig", views=1, instants=20))
    recipe = PairRecipe(cross_view=0, time_gap_s=Strata(edges=(5, 6, 7), shares=(1, 1)))
    pairs, rejects = sample_pairs(crops, recipe, seed=0, weight=1.0)
    assert pairs.num_rows == 0
    assert [(r.reason, r.detail) for r in rejects] == [
        (Reason.OUTSIDE_STRATA, "190 of 190 cross_pose candidates lie in no stratum"),
        (Reason.NO_PARTNER, "no two crops make a cross_pose pair of the time gaps asked for"),
    ]


@given(shapes, st.integers(0, 9))
def test_candidates_outside_the_gaps_asked_for_are_counted(shape, seed) -> None:
    crops = many_crops("rec7", shape, seed=seed)
    strata = Strata(edges=(0.1, 0.2, 0.4), shares=(1, 1))
    recipe = PairRecipe(cross_view=0, cross_pose=10**6, min_dt_s=0, min_hash_distance=0, time_gap_s=strata)
    pairs, rejects = sample_pairs(crops, recipe, seed=seed, weight=1.0)
    every = draw(crops, replace(EVERY, cross_view=0), seed).num_rows
    assert sum(r.count for r in rejects if r.reason is Reason.OUTSIDE_STRATA) == every - pairs.num_rows


def test_what_strata_got_is_told(tmp_path) -> None:
    for name, calibrated in (("a", True), ("b", False)):
        crops = many_crops(name, Shape(source="rig", views=12, instants=50, calibrated=calibrated))
        angles = Strata(edges=(0, 45, 90, 91, 180), shares=(1, 0, 1, 2))
        recipe = PairRecipe(cross_view=400, cross_pose=90, view_angle_deg=angles, time_gap_s=TENTHS)
        pairs, _ = sample_pairs(crops, recipe, seed=0, weight=1.0)
        with UnitWriter(tmp_path, stage="pairs", unit=name, fingerprint="f") as out:
            out.table("pairs", pairs)
    pairs = [
        row for _, table in iter_tables(tmp_path, "pairs") for row in table.to_pylist() if row["kind"] == "cross_view"
    ]
    middle = sum(90 <= np.degrees(row["view_angle_rad"]) < 91 for row in pairs if row["view_angle_rad"] is not None)
    assert middle < 90
    share = [f"{count / (300 + middle):.0%}" for count in (100, middle, 200)]
    assert told_strata(tmp_path, recipe) == [
        f"view_angle_deg got (of what was asked) 0 to 45: 100 ({share[0]} of 25%); 45 to 90: 0 (0% of 0%); "
        f"90 to 91: {middle} ({share[1]} of 25%, too few candidates); 91 to 180: 200 ({share[2]} of 50%); 400 without a calibration, drawn by chance",
        "time_gap_s got (of what was asked) 0.1 to 0.2: 60 (33% of 33%); 0.2 to 0.4: 120 (67% of 67%)",
    ]
    assert told_strata(tmp_path, replace(recipe, view_angle_deg=None, time_gap_s=None)) == []
    (tmp_path / "a.json").unlink()
    assert told_strata(tmp_path, replace(recipe, time_gap_s=None)) == [
        "view_angle_deg got (of what was asked) no pair; 400 without a calibration, drawn by chance"
    ]


def test_angles_are_drawn_as_asked_and_others_are_left_out() -> None:
    crops = many_crops("rec7", Shape(source="rig", views=12, instants=50))
    recipe = PairRecipe(
        cross_view=400, cross_pose=0, view_angle_deg=Strata(edges=(0, 45, 90, 180), shares=(0.5, 0, 0.5))
    )
    pairs, rejects = sample_pairs(crops, recipe, seed=0, weight=1.0)
    angles = np.degrees(pairs.column("view_angle_rad").to_numpy())
    assert ((angles < 45).sum(), ((angles >= 45) & (angles < 90)).sum(), (angles >= 90).sum()) == (200, 0, 200)
    assert rejects == []
    narrow = PairRecipe(cross_view=400, cross_pose=0, view_angle_deg=Strata(edges=(170, 180), shares=(1,)))
    pairs, rejects = sample_pairs(crops, narrow, seed=0, weight=1.0)
    assert np.degrees(pairs.column("view_angle_rad").to_numpy()).min() >= 170
    assert [reject.reason for reject in rejects] == [Reason.OUTSIDE_STRATA]
    assert pairs.num_rows + rejects[0].count == 66 * 50  # nothing is left that was not looked at


@pytest.mark.parametrize("known", [True, False])
def test_without_calibration_angles_do_not_decide(known) -> None:
    crops = many_crops("rec7", Shape(source="rig", views=4, instants=30, calibrated=known))
    strata = Strata(edges=(0, 10), shares=(1,))  # no two of these cameras are that near
    pairs = draw(crops, PairRecipe(cross_view=50, cross_pose=0, view_angle_deg=strata))
    assert pairs.num_rows == (0 if known else 50)


def test_by_default_every_camera_pair_and_every_gap_has_its_chance() -> None:
    crops = many_crops("rec7", Shape(source="rig", views=6, instants=200))
    pairs = draw(crops, PairRecipe(cross_view=1500, cross_pose=1500))
    views = Counter(frozenset(row[role].split("/")[4] for role in ("target", "reference")) for row in of_kind(pairs, PairKind.CROSS_VIEW))  # fmt: skip
    assert len(views) == 15
    assert 60 < min(views.values()) <= max(views.values()) < 145  # 100 each
    gaps = [abs(row["dt_s"]) for row in of_kind(pairs, PairKind.CROSS_POSE)]
    # The gap of two times drawn evenly from a length L is on average L / 3.
    assert np.mean(gaps) == pytest.approx(200 / 30 / 3, rel=0.06)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 9))
def test_both_kinds_come_in_equal_number(views, instants, seed) -> None:
    crops = many_crops("rec7", Shape(source="rig", views=views, instants=instants), seed=seed)
    recipe = PairRecipe(cross_view=150, cross_pose=100, equal_kinds=True, min_hash_distance=0, min_dt_s=0.0)
    pairs = draw(crops, recipe, seed)
    possible = [candidates_of(Sequence.of(crops), kind).total for kind in PairKind]
    assert [len(of_kind(pairs, kind)) for kind in PairKind] == [min(100, *possible)] * 2


def test_thinning_for_equal_kinds_keeps_the_strata() -> None:
    crops = many_crops("rec7", Shape(source="rig", views=2, instants=40))  # 40 cross-view pairs
    strata = Strata(edges=(0, 0.5, 2.0), shares=(1, 3))
    pairs = draw(crops, PairRecipe(cross_pose=1000, equal_kinds=True, time_gap_s=strata))
    gaps = np.array([abs(row["dt_s"]) for row in of_kind(pairs, PairKind.CROSS_POSE)])
    everything = draw(crops, PairRecipe(cross_pose=1000, time_gap_s=strata))
    share = np.mean([abs(row["dt_s"]) < 0.5 for row in of_kind(everything, PairKind.CROSS_POSE)])
    assert (len(gaps), abs((gaps < 0.5).sum() - 40 * share) <= 1) == (40, True)


def test_quotas_of_subjects_hold_in_the_sequence_and_others_fall_back_on_the_recipe() -> None:
    crops = many_crops("rec7", Shape(source="rig", views=3, instants=60, people=3, num_subjects=50))
    person = person_of(crops)  # s7, s8, s9
    pairs = draw(crops, PairRecipe(per_subject=20), quotas={"rig/s7": 5, "rig/s9": 0})
    assert Counter((row["kind"], person[row["target"]]) for row in pairs.to_pylist()) == {
        (kind.value, name): count for kind in PairKind for name, count in (("s7", 5), ("s8", 20))
    }


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(1, 50), max_size=3), max_size=6), st.integers(1, 1000)
)
def test_allotted_quotas_add_up_for_each_subject(counts, most) -> None:
    quotas = allot([Counter(count) for count in counts], most)
    assert [set(quota) for quota in quotas] == [set(count) for count in counts]
    for who in {who for count in counts for who in count}:
        total = sum(count.get(who, 0) for count in counts)
        assert sum(quota.get(who, 0) for quota in quotas) == most
        for count, quota in zip(counts, quotas, strict=True):
            assert who not in count or abs(quota[who] - most * count[who] / total) < 1


def test_pairs_that_share_too_little_of_the_body_are_left_out() -> None:
    crops = many_crops("rec7", Shape(source="rig", views=8, instants=6, num_subjects=1, cells=True))
    surface = {
        key: np.frombuffer(cells, np.uint8)
        for key, cells in zip(crops.column("key").to_pylist(), crops.column("surface").to_pylist(), strict=True)
    }
    every = of_kind(draw(crops, EVERY), PairKind.CROSS_VIEW)
    assert len(every) == 28 * 6
    for row in every:
        target, reference = surface[row["target"]][None], surface[row["reference"]][None]
        share = covisibility(target, reference)[0]
        assert row["covisibility"] == (None if np.isnan(share) else share)
    floor = 0.99  # a crop of these shows all cells or none
    both = [row for row in every if row["covisibility"] is None or row["covisibility"] >= floor]
    told = {frozenset((row["target"], row["reference"])) for row in both}
    mirrored = {  # from the other side too: nothing of a crop that shows all is seen in one that shows nothing
        pair for pair in told if len({surface[key].any() for key in pair}) == 1
    }
    recipe = PairRecipe(cross_view=10**6, cross_pose=0, min_hash_distance=0, min_covisibility=floor)
    pairs, rejects = sample_pairs(crops, recipe, seed=0, weight=1.0)
    assert {frozenset((row["target"], row["reference"])) for row in pairs.to_pylist()} == mirrored
    assert [(r.reason, r.count) for r in rejects] == [(Reason.LOW_COVISIBILITY, len(every) - len(mirrored))]
    assert 0 < len(mirrored) < len(every)


def test_what_is_not_known_is_not_below_the_floor() -> None:
    pairs = draw(recording(views=3, instants=2), PairRecipe(cross_pose=0, min_covisibility=1.0))
    assert pairs.num_rows == 6


@given(st.integers(1, 7), st.integers(3, 7), st.booleans(), st.integers(0, 9))
def test_further_views_are_other_cameras_of_the_instant(views, num_views, mixed, seed) -> None:
    crops = many_crops("rec7", Shape(source="rig", views=views, instants=5, people=2), seed=seed)
    crops = crops.filter(pa.array(np.random.default_rng(seed).random(crops.num_rows) < 0.8))
    recipe = PairRecipe(num_views=num_views, mixed_tuples=mixed, min_dt_s=0.0)
    pairs = draw(crops, recipe, seed).to_pylist()
    there = set(crops.column("key").to_pylist())
    for row in pairs:
        _, _, _, instant, view, track = row["target"].split("/")
        peers = {key for key in there if key.split("/")[3] == instant and key.split("/")[5] == track}
        across = row["kind"] == "cross_view"
        possible = peers - {row["target"], row["reference"]}
        assert set(row["further"]) <= possible
        assert len(set(row["further"])) == len(row["further"])
        assert len(row["further"]) == (min(num_views - 2, len(possible)) if across or mixed else 0)
        assert view not in {key.split("/")[4] for key in row["further"]}


def test_further_views_are_drawn_evenly_and_never_out_of_step() -> None:
    rows = [
        crop_row(instant=i, view=f"c{v}", flags=["unsynchronised"] if v == 5 else [], jpeg=b"")
        for i in range(120)
        for v in range(6)
    ]
    pairs = draw(tables.from_rows("crops", rows), PairRecipe(cross_pose=0, cross_view=1200, num_views=3)).to_pylist()
    seen = Counter(key.split("/")[4] for row in pairs for key in row["further"])
    assert set(seen) == {"c0", "c1", "c2", "c3", "c4"}
    assert min(seen.values()) > 0.8 * len(pairs) / 5


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(-5, 12) | st.none()), max_size=25),
    st.lists(st.integers(0, 12), min_size=2, max_size=5, unique=True).map(sorted),
)
def test_windows_equal_a_loop_over_all_candidates(rows, edges) -> None:
    group = np.array([row[0] for row in rows], np.int64)
    known = np.array([row[1] is not None for row in rows], bool)
    time = np.array([row[1] or 0 for row in rows], np.int64)
    found = windows(group_rows([group]), time, known, np.array(edges))
    for low, high, window in zip(edges, edges[1:], found, strict=False):
        pairs = np.stack(window.rows_of(np.arange(window.total)))
        assert Counter(map(frozenset, pairs.T.tolist())) == Counter(
            frozenset((a, b))
            for a, b in itertools.combinations(range(len(rows)), 2)
            if group[a] == group[b] and known[a] and known[b] and low <= abs(time[a] - time[b]) < high
        )


def test_a_window_that_never_ends_reaches_into_no_other_group() -> None:
    """Times of 2,000 groups laid end to end, each as long as the window, would pass what 64 bits hold."""
    group, time = np.repeat(np.arange(2000), 2), np.tile([0, 5], 2000)
    found = windows(group_rows([group]), time, np.ones(4000, bool), np.array([1, 10**16]))
    assert [pool.total for pool in found] == [2000]


@given(st.integers(0, 4000), st.integers(1, 300), st.integers(1, 3000), st.integers(0, 99))
def test_numbers_come_in_random_order_each_once(total, batch, most, seed) -> None:
    batches = list(in_random_order(np.random.default_rng(seed), total, batch=batch, most=most))
    numbers = np.concatenate([np.zeros(0, int), *batches])
    assert len(np.unique(numbers)) == len(numbers)
    assert ((numbers >= 0) & (numbers < total)).all()
    assert len(numbers) >= min(total, most)


def test_the_first_of_many_numbers_are_spread_evenly() -> None:
    first = next(in_random_order(np.random.default_rng(0), 10**12, batch=20000, most=1))
    counts = np.histogram(first, 10, (0, 10**12))[0]
    assert 1800 < counts.min() <= counts.max() < 2200


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=60), st.data())
def test_taking_what_fits_leaves_nothing_that_fits(pairs, data) -> None:
    first, second = (np.array([pair[i] for pair in pairs], np.int64) for i in range(2))
    most = [data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)) for n in (4, 3)]
    rooms = [np.array(room) for room in most]
    taken = accept([first, second], rooms)
    assert len(set(taken.tolist())) == len(taken)
    for codes, room, limit in zip((first, second), rooms, most, strict=True):
        assert np.array_equal(np.bincount(codes[taken], minlength=len(limit)), np.array(limit) - room)
        assert (room >= 0).all()
    left = np.setdiff1d(np.arange(len(pairs)), taken)
    assert not ((rooms[0][first[left]] > 0) & (rooms[1][second[left]] > 0)).any()


@given(st.lists(st.integers(0, 5), max_size=40))
def test_rank_in_class_equals_a_loop(codes) -> None:
    assert rank_in_class(np.array(codes, np.int64)).tolist() == [codes[:i].count(c) for i, c in enumerate(codes)]


@given(st.integers(0, 10**6), st.lists(st.floats(0, 1e6), min_size=1, max_size=9).filter(any))
def test_apportioned_numbers_are_near_their_shares(total, shares) -> None:
    counts = apportion(total, tuple(shares))
    assert counts.sum() == total
    assert np.abs(counts - total * np.array(shares) / sum(shares)).max() <= 1 + 1e-6


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_groups_hold_what_agrees(rows) -> None:
    groups = group_rows([np.array([row[i] for row in rows]) for i in range(2)])
    ends = groups.starts + groups.sizes
    found = [groups.rows[s:e].tolist() for s, e in zip(groups.starts, ends, strict=True)]
    assert sorted(itertools.chain(*found)) == list(range(len(rows)))
    assert sorted(found) == sorted([i for i, row in enumerate(rows) if row == value] for value in set(rows))


def test_one_body_known_from_only_some_views_tells_what_it_can() -> None:
    full = bytes([1]) * SURFACE_CELLS
    rows = [crop_row(view=f"c{v}", subject="s1", surface=full if v else None, jpeg=b"") for v in range(3)]
    told = {row["covisibility"] for row in draw(tables.from_rows("crops", rows), EVERY).to_pylist()}
    assert told == {None, 1.0}


def stage_of(out: Path, pair: PairRecipe, **recordings: Shape) -> Pairs:
    """The pair stage of a build whose crops are complete."""
    (out / "crops").mkdir(parents=True)
    for name, shape in recordings.items():
        write_crops(out / "crops", name, shape)
    sources = {shape.source for shape in recordings.values()}
    return Pairs(
        BuildRecipe(
            name="test", sources=tuple(SourceRecipe(kind="videos", name=name) for name in sorted(sources)), pair=pair
        ),
        out,
    )


def run(stage: Pairs) -> dict[str, pa.Table]:
    """Plan and run all units; pairs by unit."""
    found = {}
    (stage.out / "pairs").mkdir()
    for unit in stage.plan().units:
        with UnitWriter(stage.out / "pairs", stage="pairs", unit=unit.id, fingerprint="0" * 64) as out:
            stage.run(unit, out, None, lambda _done, _total: None)
        found[unit.id] = tables.read("pairs", stage.out / "pairs" / f"{unit.id}.pairs.parquet")
    return found


def test_one_person_in_several_recordings_has_one_quota(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.stages.require", lambda *_: None)
    rig = Shape(source="rig", views=3, instants=40, num_subjects=2)
    other = Shape(source="other", views=3, instants=40, num_subjects=2)  # of the same names, but another source
    stage = stage_of(tmp_path, PairRecipe(per_subject=31), rec0=rig, rec2=rig, rec1=rig, rec4=rig, rec6=other)
    assert {unit: [len(of_kind(pairs, kind)) for kind in PairKind] for unit, pairs in run(stage).items()} == {
        "other-rec6": [31, 31],
        "rig-rec0": [10, 10],  # s0
        "rig-rec1": [31, 31],  # s1
        "rig-rec2": [10, 10],  # s0
        "rig-rec4": [11, 11],  # s0
    }


def test_crops_of_evaluation_sets_do_not_count_for_quotas() -> None:
    crops = many_crops("rec7", Shape(source="rig", views=3, instants=4, num_subjects=2))
    assert count_people(crops) == {"rig/s1": 12}
    flags = [["evaluation"] if row < 5 else [] for row in range(12)]
    place = crops.schema.get_field_index("flags")
    held_back = crops.set_column(place, crops.schema.field("flags"), pa.array(flags, pa.list_(pa.string())))
    assert count_people(held_back) == {"rig/s1": 7}


def test_temperature_evens_out_the_weights_of_sources(tmp_path, monkeypatch) -> None:
    sources = (SourceRecipe(kind="videos", name="a", weight=16.0), SourceRecipe(kind="videos", name="b"))
    recipe = BuildRecipe(name="test", sources=sources, render=SceneRecipe(), render_weight=0.25)
    assert source_weights(recipe) == {"a": 16.0, "b": 1.0, "synthetic": 0.25}
    even = replace(recipe, pair=PairRecipe(temperature=2.0))
    assert source_weights(even) == {"a": 4.0, "b": 1.0, "synthetic": 0.5}
    monkeypatch.setattr("pipeline.stages.require", lambda *_: None)
    stage = stage_of(tmp_path, even.pair, rec0=Shape(source="a", views=2, instants=3))
    stage.recipe = replace(even, render=None)
    assert set(run(stage)["a-rec0"].column("weight").to_pylist()) == {4.0}


def test_hands_are_paired_in_equal_number() -> None:
    assert RECIPES["hand"]().pair.equal_kinds


def test_a_surface_of_another_size_is_refused() -> None:
    rows = [crop_row(view=f"c{v}", subject="s1", surface=bytes(9), jpeg=b"") for v in range(2)]
    with pytest.raises(ManifestError, match=r"(?s)has not 2048 cells.*cameras/train/rec.*rebuild the crops"):
        draw(tables.from_rows("crops", rows), EVERY)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cross_view": 0, "equal_kinds": True}, "equal_kinds needs both"),
        ({"per_subject": 0}, "per_subject 0 must be at least 1"),
        ({"min_covisibility": 1.5}, "min_covisibility 1.5 must be at least 0 and at most 1"),
        ({"view_angle_deg": Strata(edges=(0, 200), shares=(1,))}, r"edges of view_angle_deg must be in \[0, 180\]"),
        ({"time_gap_s": Strata(edges=(-1, 2), shares=(1,))}, r"edges of time_gap_s must be in \[0, 1e\+09\]"),
        ({"cross_pose": 0, "time_gap_s": Strata(edges=(0, 2), shares=(1,))}, "time_gap_s has nothing to sort"),
        ({"num_views": 1}, "num_views 1 must be at least 2 and at most 16"),
        ({"num_views": 17}, "num_views 17 must be at least 2 and at most 16"),
        ({"mixed_tuples": True}, "num_views 2 must be at least 3"),
        ({"temperature": 0.0}, "temperature 0.0 must be above 0"),
    ],
)
def test_contradictions_are_refused(values, message) -> None:
    with pytest.raises(ValueError, match=message):
        PairRecipe(**values)


@pytest.mark.parametrize(
    ("edges", "shares", "message"),
    [
        ((0, 1), (1, 1), "edges must be one more than shares, not 2 and 2"),
        ((0,), (), "edges must be one more than shares, not 1 and 0"),
        ((0, 0), (1,), "must be finite and rise"),
        ((0, float("inf")), (1,), "must be finite and rise"),
        ((0, 1, 2), (0, 0), "not all 0"),
        ((0, 1, 2), (2, -1), "not negative"),
    ],
)
def test_strata_that_are_none_are_refused(edges, shares, message) -> None:
    with pytest.raises(ValueError, match=message):
        Strata(edges=edges, shares=shares)
