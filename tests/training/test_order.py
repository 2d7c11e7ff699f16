"""The order of the stream: a permutation per source and epoch, true weights, and the same from anywhere."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import ManifestError
from training.order import CYCLE, SUBSTITUTES, Order, ShardRows, rank_positions, spread_evenly

TWO = [
    ShardRows(name="a0", source="a", weight=3.0, rows=5),
    ShardRows(name="a1", source="a", weight=3.0, rows=7),
    ShardRows(name="b0", source="b", weight=1.0, rows=4),
]


@st.composite
def shard_tables(draw):
    """Up to four sources of up to six small shards; some shards are empty, weights differ a hundredfold."""
    shards = []
    for number in range(draw(st.integers(1, 4))):
        rows = draw(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any))
        weight = draw(st.floats(0.1, 10.0))
        shards += [
            ShardRows(name=f"s{number}-{i}", source=f"s{number}", weight=weight, rows=n) for i, n in enumerate(rows)
        ]
    return draw(st.permutations(shards))


def pairs_at(order, shards, positions):
    """(source, shard name, row) at each place."""
    shard_N, row_N = order.locate(positions)
    return [(shards[s].source, shards[s].name, int(row)) for s, row in zip(shard_N, row_N, strict=True)]


@given(shards=shard_tables(), seed=st.integers(0, 2**32), block=st.integers(1, 4), position=st.integers(0, 2**40))
def test_an_epoch_of_a_source_is_a_permutation_of_its_pairs(shards, seed, block, position):
    # Two whole epochs of the slowest source, from any place of the stream.
    order = Order(shards, seed=seed, block_shards=block)
    drawn = order.drawn(position)
    seen = {source: [] for source in order.sources}
    length = 0
    while length < 10_000 and any(
        len(seen[s]) < 3 * sum(x.rows for x in shards if x.source == s) for s in order.sources
    ):
        for source, *pair in pairs_at(order, shards, np.arange(position + length, position + length + 512)):
            seen[source].append(tuple(pair))
        length += 512
    for source, stream in seen.items():
        whole = {(x.name, row) for x in shards if x.source == source for row in range(x.rows)}
        begin = -drawn[source] % len(whole)  # the first whole epoch after the position
        for start in range(begin, min(len(stream), begin + 3 * len(whole)) - len(whole) + 1, len(whole)):
            epoch = stream[start : start + len(whole)]
            assert set(epoch) == whole
            assert len(epoch) == len(whole)
        assert len(stream) >= len(whole), "the test must have seen at least one epoch"


@given(shards=shard_tables(), seed=st.integers(0, 99), data=st.data())
def test_any_access_equals_going_through_in_order(shards, seed, data):
    first = data.draw(st.sampled_from([0, 17, CYCLE - 40, 5 * CYCLE - 3]))
    one_by_one = Order(shards, seed=seed, block_shards=2)
    stream = [pairs_at(one_by_one, shards, [p])[0] for p in range(first, first + 80)]
    asked = data.draw(st.lists(st.integers(0, 79), min_size=1, max_size=120))
    anew = Order(shards, seed=seed, block_shards=2)
    assert pairs_at(anew, shards, first + np.array(asked)) == [stream[i] for i in asked]


@given(
    shards=shard_tables(),
    start=st.integers(0, 1000),
    splits=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 7)), min_size=1, max_size=6),
)
def test_every_world_size_and_batch_size_reads_the_same_stream(shards, start, splits):
    # The world and the batch change at every step, as after a resume on another machine.
    order = Order(shards, seed=1)
    position, read = start, []
    for world, batch_size in splits:
        for rank in range(world):
            places = rank_positions(position, batch_size=batch_size, rank=rank, world=world)
            read += pairs_at(order, shards, places)
        position += world * batch_size
    assert read == pairs_at(order, shards, np.arange(start, position))


@given(
    shards=shard_tables(),
    seed=st.integers(0, 2**32),
    block=st.integers(1, 4),
    start=st.integers(0, 2 * CYCLE),
    runs=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 8)), min_size=1, max_size=5),
    read_ahead=st.integers(0, 3),
)
def test_killed_anywhere_and_resumed_anywhere_the_stream_is_one(shards, seed, block, start, runs, read_ahead):
    # Each run has its own world, batch and steps before it is killed, having read ahead; all that is kept is the position.
    position, read = start, []
    for world, batch_size, steps in runs:
        order = Order(shards, seed=seed, block_shards=block)
        for step in range(steps + read_ahead):
            first = position + step * world * batch_size
            by_rank = [rank_positions(first, batch_size=batch_size, rank=rank, world=world) for rank in range(world)]
            pairs = [pair for places in by_rank for pair in pairs_at(order, shards, places)]
            read += pairs if step < steps else []
        position += steps * world * batch_size
    alone = Order(shards, seed=seed, block_shards=block)
    assert read == pairs_at(alone, shards, np.arange(start, position))
    before, after = alone.drawn(start), alone.drawn(position)
    assert {s: after[s] - before[s] for s in alone.sources} == {s: sum(p[0] == s for p in read) for s in alone.sources}


@given(shards=shard_tables(), seed=st.integers(0, 99), block=st.integers(1, 4), position=st.integers(0, 3 * CYCLE))
def test_what_is_near_is_what_is_read_next(shards, seed, block, position):
    order = Order(shards, seed=seed, block_shards=block)
    near = order.near(position)
    assert len(set(near)) == len(near) <= 2 * block * len(order.sources)
    shard_N, _ = order.locate(np.arange(position, position + 300))
    read = dict.fromkeys(order.sources, ())
    for shard in shard_N.tolist():
        read[shards[shard].source] += (shard,)
    expected = set()
    for source, stream, index in zip(order.sources, order._streams, order.drawn(position).values(), strict=True):
        now, then, left = stream.near(index)
        assert set(read[source][:left]) <= set(now)
        assert set(read[source][left : left + sum(shards[s].rows for s in then)]) <= set(then)
        assert 0 < left <= sum(shards[s].rows for s in now)
        assert not read[source] or near.index(read[source][0]) < block * len(order.sources), (
            "what is read now comes before what is next"
        )
        expected |= {*now, *then}
    assert set(near) == expected


@given(shards=shard_tables(), seed=st.integers(0, 99), block=st.integers(1, 4), position=st.integers(0, 3 * CYCLE))
def test_substitutes_are_of_the_source_and_the_block_at_hand_first(shards, seed, block, position):
    order = Order(shards, seed=seed, block_shards=block)
    [(source, name, _)] = pairs_at(order, shards, [position])
    others = list(order.substitutes(position))
    mirrored = Order(shards[::-1], seed=seed, block_shards=block).substitutes(position)
    assert [(len(shards) - 1 - s, row) for s, row in mirrored] == others
    assert {shards[s].name for s, _ in others} == {s.name for s in shards if s.source == source and s.rows}
    once = len({s for s, _ in others})
    assert len(others) == SUBSTITUTES * once
    assert [s for s, _ in others] == SUBSTITUTES * [s for s, _ in others[:once]]
    assert all(0 <= row < shards[s].rows for s, row in others)
    near = [s for s in order.near(position) if shards[s].source == source and shards[s].rows]
    own = next(i for i, s in enumerate(others) if shards[s[0]].name == name)
    assert own < block, "the bad shard is of the block at hand, which comes first"
    assert {s for s, _ in others[: own + 1]} <= set(near)


def test_substitutes_spread_over_shards_and_rows():
    shards = [ShardRows(name=f"s{i}", source="s", weight=1.0, rows=20) for i in range(4)]
    order = Order(shards, seed=3)
    first = [next(order.substitutes(position)) for position in range(400)]
    counts = np.bincount([s for s, _ in first], minlength=4)
    assert counts.min() > 60
    assert len(set(first)) > 75


def test_resuming_at_every_step_gives_the_rest_of_the_stream():
    whole = pairs_at(Order(TWO, seed=3), TWO, np.arange(60))
    for position in range(60):
        assert pairs_at(Order(TWO, seed=3), TWO, np.arange(position, 60)) == whole[position:]


@given(shards=shard_tables(), seed=st.integers(0, 99))
def test_the_order_of_the_table_does_not_matter(shards, seed):
    other = sorted(shards, key=lambda shard: shard.name, reverse=True)
    places = np.arange(200)
    assert pairs_at(Order(shards, seed=seed), shards, places) == pairs_at(Order(other, seed=seed), other, places)


@given(shards=shard_tables(), seed=st.integers(0, 99), position=st.integers(0, 3 * CYCLE))
def test_sources_are_drawn_by_weight_at_every_prefix(shards, seed, position):
    order = Order(shards, seed=seed)
    weights = {shard.source: shard.weight for shard in shards}
    drawn = order.drawn(position)
    assert sum(drawn.values()) == position
    for source, count in drawn.items():
        share = weights[source] / sum(weights.values())
        # One pair for the strip at hand, one per source for the others' strips, and the rounding of weights to slots.
        allowed = 1 + len(weights) * share + (position / CYCLE) * len(weights)
        assert abs(count - share * position) <= allowed


def test_counts_of_a_prefix_are_those_of_going_through_it():
    shards = [replace(shard, rows=1000 * shard.rows) for shard in TWO]
    order = Order(shards, seed=5)
    shard_N, _ = order.locate(np.arange(CYCLE + 100))
    from_a = np.cumsum([shards[shard].source == "a" for shard in shard_N])
    for position in (1, 7, 1000, CYCLE - 1, CYCLE, CYCLE + 9):
        assert order.drawn(position) == {"a": from_a[position - 1], "b": position - from_a[position - 1]}
    assert order.drawn(0) == {"a": 0, "b": 0}
    assert order.epochs(CYCLE) == {"a": CYCLE * 0.75 / 12_000, "b": CYCLE * 0.25 / 4000}


def test_sources_alternate_finely_but_not_in_lockstep():
    # Equal weights: within any 64 places both give about half, yet a rank that reads every other place sees both.
    shards = [ShardRows(name=n, source=n, weight=1.0, rows=3) for n in "ab"]
    shard_N, _ = Order(shards, seed=0).locate(np.arange(6400))
    by_window = (shard_N.reshape(-1, 64) == 0).sum(axis=1)
    assert abs(by_window - 32).max() <= 4
    assert 0.3 < (shard_N[::2] == 0).mean() < 0.7


def test_pairs_are_mixed_between_the_shards_of_a_block_and_only_there():
    shards = [ShardRows(name=f"s{i}", source="s", weight=1.0, rows=50) for i in range(6)]
    shard_N, row_N = Order(shards, seed=2, block_shards=3).locate(np.arange(300))
    assert len(set(shard_N[:150])) == len(set(shard_N[150:])) == 3
    assert set(shard_N[:150]).isdisjoint(shard_N[150:])
    assert len(set(shard_N[:20])) == 3, "a stretch of a block sees all of its shards"
    assert (np.diff(row_N) == 1).mean() < 0.2


def test_seeds_and_epochs_differ():
    shards = [ShardRows(name=f"s{i}", source="s", weight=1.0, rows=40) for i in range(3)]
    first = pairs_at(Order(shards, seed=0), shards, np.arange(240))
    assert first[:120] != first[120:]
    assert first != pairs_at(Order(shards, seed=1), shards, np.arange(240))


def test_the_stream_is_pinned():
    """The stream of a seed must never change while `order.VERSION` stands: runs resume on it.

    To regenerate: raise `VERSION`, and put in the digest that the failure shows.
    """
    shard_N, row_N = Order(TWO, seed=7).locate([*range(2000), *range(CYCLE - 10, CYCLE + 10), 10**12])
    digest = hashlib.sha256(np.stack([shard_N, row_N]).astype("<i8").tobytes()).hexdigest()
    assert digest == "e3734daabd8dc5a28ff2d3f87bcdabde0ea1d80b33ac3ed19f6951d97ee987c4"


def test_a_rare_source_is_still_drawn():
    shards = [
        ShardRows(name="big", source="big", weight=1e9, rows=3),
        ShardRows(name="rare", source="rare", weight=1e-9, rows=3),
    ]
    assert Order(shards, seed=0).drawn(CYCLE) == {"big": CYCLE - 1, "rare": 1}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ([], "there is no shard"),
        ([TWO[0], TWO[0]], "two shards have one name"),
        ([*TWO, ShardRows(name="b1", source="b", weight=2.0, rows=4)], "source b has two weights"),
        ([ShardRows(name="b1", source="b", weight=0.0, rows=4)], "weight of 0.0"),
        ([ShardRows(name="b1", source="b", weight=float("nan"), rows=4)], "weight of nan"),
        ([ShardRows(name="b1", source="b", weight=1.0, rows=-1)], "-1 rows"),
        ([*TWO, ShardRows(name="c0", source="c", weight=2.0, rows=0)], "source c has no pair"),
    ],
)
def test_a_table_that_cannot_be_is_refused(change, match):
    with pytest.raises(ManifestError, match=match) as caught:
        Order(change, seed=0)
    assert "shard" in caught.value.where
    assert caught.value.hint


def test_arguments_out_of_range_are_refused():
    order = Order(TWO, seed=0)
    with pytest.raises(ValueError, match="count from 0"):
        order.locate([3, -1])
    with pytest.raises(ValueError, match="block_shards"):
        Order(TWO, seed=0, block_shards=0)
    for bad in ({"rank": 2}, {"rank": -1}, {"batch_size": 0}, {"position": -1}):
        with pytest.raises(ValueError, match="no such slice"):
            rank_positions(**{"position": 0, "batch_size": 4, "rank": 0, "world": 2, **bad})
    assert order.locate(np.empty(0, np.int64))[0].shape == (0,)


@given(
    rows=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    batch_size=st.integers(1, 9),
    limit=st.one_of(st.none(), st.integers(1, 200)),
)
def test_validation_places_are_exact(rows, batch_size, limit):
    shard, row, index = spread_evenly(rows, limit)
    total = sum(rows)
    whole = [(s, r) for s, n in enumerate(rows) for r in range(n)]
    assert len(index) == min(total, limit or total)
    assert [whole[i] for i in index] == list(zip(shard.tolist(), row.tolist(), strict=True))
    assert len(set(index.tolist())) == len(index)
    if limit is None or limit >= total:
        assert index.tolist() == list(range(total))
    elif len(index) > 1:
        gaps = np.diff(index)
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1, "spread evenly"
