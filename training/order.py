"""Which pair stands at which place of the endless training stream: pure functions of (seed, position, shard table).

The stream is a weighted mixture of sources. Two questions are answered apart, each without looking at any earlier place:

1. *Which source?* The weights become whole numbers of slots in a cycle of `CYCLE` places, and each source's slots are
   spread evenly over the cycle (one at a seeded place in each of its equal strips). Every cycle is alike, so how many pairs
   a source has given before a position is a division and a table look-up.
2. *Which of its pairs?* The n-th pair of a source belongs to the source's epoch `n // rows`. In each epoch its shards are
   shuffled, cut into blocks of `block_shards`, and the pairs of a block are shuffled among each other.

So an epoch is a source's own: it shows every one of its pairs exactly once before any comes again, whatever the weights of
the others, and sources of different size or weight come to their next epoch at different places of the stream. Nothing here
knows of ranks, workers or batches; `rank_positions` cuts a global batch for a rank, so the stream is the same for any of
them, and one integer resumes it.

Randomness comes from the raw bits of PCG64 (whose stream NumPy guarantees) by sorting, not from `Generator.permutation`
(whose stream it does not), so an upgrade of NumPy in the middle of a run changes nothing.

Shape letters: `N` places asked for, `L` slots of a cycle.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from manifests.errors import ManifestError
from manifests.seeds import rng_for

Ints = npt.NDArray[np.int64]

VERSION = 1
"""Rises when the same seed and table would give another stream; part of a stream's `table_hash`."""

BLOCK_SHARDS = 8
"""Shards whose pairs are shuffled among each other, unless told otherwise."""

SUBSTITUTES = 4
"""Pairs of each shard that are tried in the place of one that cannot be read."""

CYCLE = 1 << 16
"""Places after which the choice of sources repeats; weights are kept to one part in this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRows:
    """What the order needs to know of a shard.

    Args:
        name: of the shard, unique.
        source: it belongs to.
        weight: of the source in the mixture, the same in all its shards.
        rows: pairs it holds.
    """

    name: str
    source: str
    weight: float
    rows: int


class Order:
    """The endless stream of a shard table.

    Args:
        shards: the shard table; the stream does not depend on the order of its rows.
        seed: root of all its random choices.
        block_shards: shards whose pairs are shuffled among each other. More mixes better and keeps more files open.

    Attributes:
        rows: pairs in all shards: the length of what is called one epoch of the run.
        sources: names, sorted.

    Raises:
        ManifestError: no shard, a source without a pair, two weights for one source, a weight that is not positive and
            finite, or two shards of one name.
        ValueError: `block_shards` is below 1, or there are more sources than places in a cycle.
    """

    def __init__(self, shards: Sequence[ShardRows], *, seed: int, block_shards: int = BLOCK_SHARDS) -> None:
        if block_shards < 1:
            raise ValueError(f"block_shards must be at least 1, not {block_shards}")
        weights = _check_weights(shards)
        place = {shard.name: index for index, shard in enumerate(shards)}
        self.sources = tuple(sorted(weights))
        self.rows = sum(shard.rows for shard in shards)
        self._streams = []
        for source in self.sources:
            own = sorted((shard for shard in shards if shard.source == source), key=lambda shard: shard.name)
            shard_index = np.array([place[shard.name] for shard in own], np.int64)
            rows = np.array([shard.rows for shard in own], np.int64)
            self._streams.append(_SourceOrder(source, shard_index, rows, seed=seed, block_shards=block_shards))
        self._slots = _slots_of([weights[source] for source in self.sources])
        self._slot_source_L = _spread(self._slots, seed=seed)
        self._slot_rank_L = np.empty(CYCLE, np.int64)
        for index, slots in enumerate(self._slots):
            self._slot_rank_L[self._slot_source_L == index] = np.arange(slots)

    def locate(self, position_N: npt.ArrayLike) -> tuple[Ints, Ints]:
        """Find the pairs at any places of the stream.

        Args:
            position_N: places from 0, in any order.

        Returns:
            shard_N, index into `shards` as given, and row_N, the row in that shard.

        Raises:
            ValueError: a negative place.
        """
        position_N = np.asarray(position_N, np.int64)
        if position_N.size and position_N.min() < 0:
            raise ValueError("places of the stream count from 0")
        cycle_N, slot_N = np.divmod(position_N, CYCLE)
        source_N, rank_N = self._slot_source_L[slot_N], self._slot_rank_L[slot_N]
        shard_N, row_N = np.empty_like(position_N), np.empty_like(position_N)
        for source in np.unique(source_N):
            own_N = source_N == source
            index = cycle_N[own_N] * self._slots[source] + rank_N[own_N]
            shard_N[own_N], row_N[own_N] = self._streams[source].locate(index)
        return shard_N, row_N

    def drawn(self, position: int) -> dict[str, int]:
        """How many pairs each source has given before a place: the state of the mixture there."""
        cycle, slot = divmod(position, CYCLE)
        before = np.bincount(self._slot_source_L[:slot], minlength=len(self.sources))
        return {name: int(cycle * self._slots[i] + before[i]) for i, name in enumerate(self.sources)}

    def epochs(self, position: int) -> dict[str, float]:
        """How often each source has been gone through before a place, with fractions."""
        return {name: n / s.rows for (name, n), s in zip(self.drawn(position).items(), self._streams, strict=True)}

    def near(self, position: int) -> list[int]:
        """The shards to have at hand at a place: the block that each source reads there, then the next, soonest first."""
        now: list[int] = []
        then: list[tuple[float, list[int]]] = []
        for slots, stream, index in zip(self._slots, self._streams, self.drawn(position).values(), strict=True):
            block, after, left = stream.near(index)
            now += block
            then.append((left / slots, after))
        return list(dict.fromkeys(now + [shard for _, block in sorted(then) for shard in block]))

    def substitutes(self, position: int) -> Iterator[tuple[int, int]]:
        """The pairs that may stand in at a place whose own cannot be read, in the order in which to try them.

        They are of the same source, one of each of its shards, those of the block at hand first, and then another of each: the
        mixture stays as it is, and no shard is needed that is not at hand. Which they are depends on the seed, the place and the table alone.

        Returns:
            shard and row, as in `locate`; the shard that fails is among them.
        """
        cycle, slot = divmod(position, CYCLE)
        source = int(self._slot_source_L[slot])
        return self._streams[source].substitutes(int(cycle * self._slots[source] + self._slot_rank_L[slot]))


def rank_positions(position: int, *, batch_size: int, rank: int, world: int) -> Ints:
    """The places that one rank reads of the global batch that begins at `position`; the next begins `world * batch_size` on.

    Args:
        position: first place of the global batch.
        batch_size: pairs of one rank.
        rank: from 0.
        world: number of ranks.

    Returns:
        (batch_size,) consecutive places; the ranks' places, one rank after the other, are those of the global batch.

    Raises:
        ValueError: an argument is out of range.
    """
    if batch_size < 1 or not 0 <= rank < world or position < 0:
        raise ValueError(f"no such slice: position {position}, batch size {batch_size}, rank {rank} of {world}")
    return position + rank * batch_size + np.arange(batch_size, dtype=np.int64)


def spread_evenly(rows: Sequence[int], limit: int | None) -> tuple[Ints, Ints, Ints]:
    """The places of a finite set: all of its pairs in order, or `limit` of them, spread evenly so that every source is seen.

    Args:
        rows: pairs of each shard.
        limit: how many to choose; all if None or more than there are.

    Returns:
        shard, row in it, and place in the whole set, of each chosen pair.
    """
    start = np.cumsum([0, *rows])
    num_pairs = min(int(start[-1]), limit or int(start[-1]))
    index = np.arange(num_pairs, dtype=np.int64) * start[-1] // max(num_pairs, 1)
    shard = np.searchsorted(start, index, side="right") - 1
    return shard, index - start[shard], index


class _SourceOrder:
    """The endless stream of one source: epoch after epoch, each a permutation of its pairs."""

    def __init__(self, name: str, shard_index: Ints, rows: Ints, *, seed: int, block_shards: int) -> None:
        self.rows = int(rows.sum())
        self._name, self._seed, self._block_shards = name, seed, block_shards
        self._shard_index, self._shard_rows = shard_index, rows
        # A place is found without any memory; these two only spare the same shuffle for its neighbours.
        self._deal = lru_cache(maxsize=2)(self._deal_shards)
        self._mix = lru_cache(maxsize=4)(self._mix_pairs)

    def locate(self, index_N: Ints) -> tuple[Ints, Ints]:
        """Shards and rows of the `index_N`-th pairs that this source gives."""
        shard_N, row_N = np.empty_like(index_N), np.empty_like(index_N)
        epoch_N, offset_N = np.divmod(index_N, self.rows)
        for epoch in np.unique(epoch_N).tolist():
            order, starts = self._deal(epoch)
            in_epoch = np.flatnonzero(epoch_N == epoch)
            block_N = (np.searchsorted(starts, offset_N[in_epoch], side="right") - 1) // self._block_shards
            for block in np.unique(block_N).tolist():
                chosen = in_epoch[block_N == block]
                first = starts[block * self._block_shards]
                flat = first + self._mix(epoch, block)[offset_N[chosen] - first]
                at = np.searchsorted(starts, flat, side="right") - 1
                shard_N[chosen], row_N[chosen] = self._shard_index[order[at]], flat - starts[at]
        return shard_N, row_N

    def near(self, index: int) -> tuple[list[int], list[int], int]:
        """The shards of the block of a place, those of the next block, and the pairs before that begins."""
        epoch, offset = divmod(index, self.rows)
        order, starts = self._deal(epoch)
        first = self._block_of(starts, offset) * self._block_shards
        after = first + self._block_shards
        if after >= len(order) or starts[after] == self.rows:
            order_then, after_then = self._deal(epoch + 1)[0], 0
        else:
            order_then, after_then = order, after
        return (
            self._shard_index[order[first:after]].tolist(),
            self._shard_index[order_then[after_then : after_then + self._block_shards]].tolist(),
            int(starts[min(after, len(order))]) - offset,
        )

    def substitutes(self, index: int) -> Iterator[tuple[int, int]]:
        """One pair of each shard that has any, those of the place's block first; `SUBSTITUTES` times over."""
        epoch, offset = divmod(index, self.rows)
        order, starts = self._deal(epoch)
        first = self._block_of(starts, offset) * self._block_shards
        turn, *raws = _raw(1 + SUBSTITUTES * len(order), self._seed, "substitute", self._name, index).tolist()
        block = np.roll(order[first : first + self._block_shards], turn % self._block_shards)
        shards = [*block.tolist(), *order[first + self._block_shards :].tolist(), *order[:first].tolist()]
        for shard, raw in zip(SUBSTITUTES * shards, raws, strict=True):
            if self._shard_rows[shard]:
                yield int(self._shard_index[shard]), raw % int(self._shard_rows[shard])

    def _block_of(self, starts: Ints, offset: int) -> int:
        return int(np.searchsorted(starts, offset, side="right") - 1) // self._block_shards

    def _deal_shards(self, epoch: int) -> tuple[Ints, Ints]:
        """The shards of an epoch in their order, and the place in the epoch where each begins (and the last ends)."""
        order = self._shuffle(len(self._shard_rows), "shards", epoch)
        return order, np.concatenate([[0], np.cumsum(self._shard_rows[order])])

    def _mix_pairs(self, epoch: int, block: int) -> Ints:
        """The order of a block's pairs, as places counted from the block's first."""
        _, starts = self._deal(epoch)
        first, last = block * self._block_shards, min((block + 1) * self._block_shards, len(starts) - 1)
        return self._shuffle(int(starts[last] - starts[first]), "pairs", epoch, block)

    def _shuffle(self, n: int, *names: str | int) -> Ints:
        return np.argsort(_raw(n, self._seed, "order", self._name, *names), kind="stable")


def _raw(n: int, *names: str | int) -> npt.NDArray[np.uint64]:
    raw: npt.NDArray[np.uint64] = rng_for(*names).bit_generator.random_raw(n)
    return raw


def _check_weights(shards: Sequence[ShardRows]) -> dict[str, float]:
    hint = "rebuild the shard table"
    if not shards:
        raise ManifestError("there is no shard to read", where="shards table", hint="choose a split that has shards")
    if len({shard.name for shard in shards}) != len(shards):
        raise ManifestError("two shards have one name", where="shards table", hint=hint)
    weights: dict[str, float] = {}
    rows: dict[str, int] = {}
    for shard in shards:
        if not (shard.weight > 0 and np.isfinite(shard.weight)) or shard.rows < 0:
            raise ManifestError(
                f"a weight of {shard.weight} or {shard.rows} rows cannot be", where=f"shard {shard.name}", hint=hint
            )
        if weights.setdefault(shard.source, shard.weight) != shard.weight:
            raise ManifestError(f"source {shard.source} has two weights", where=f"shard {shard.name}", hint=hint)
        rows[shard.source] = rows.get(shard.source, 0) + shard.rows
    for source, count in rows.items():
        if not count:
            raise ManifestError(f"source {source} has no pair", where="shards table", hint=hint)
    if len(weights) > CYCLE:
        raise ValueError(f"{len(weights)} sources do not fit a cycle of {CYCLE}")
    return weights


def _slots_of(weights: Sequence[float]) -> Ints:
    """Whole slots of a cycle for each source by largest remainder, at least one each."""
    relative = np.asarray(weights) / np.max(weights)
    share = relative / relative.sum() * (CYCLE - len(weights))
    slots = share.astype(np.int64)
    missing = CYCLE - len(weights) - int(slots.sum())
    slots[np.argsort(slots - share, kind="stable")[:missing]] += 1
    total: Ints = slots + 1
    return total


def _spread(slots: Ints, *, seed: int) -> Ints:
    """The source of each slot: a source of n slots has one at a seeded place in each n-th part of the cycle."""
    time_L = np.empty(CYCLE)
    ends = np.cumsum(slots)
    unit_L = (_raw(CYCLE, seed, "order", "mixture") >> np.uint64(11)) * 2.0**-53
    for end, n in zip(ends, slots, strict=True):
        time_L[end - n : end] = (np.arange(n) + unit_L[end - n : end]) / n
    source_L: Ints = np.repeat(np.arange(len(slots)), slots)[np.argsort(time_L, kind="stable")]
    return source_L
