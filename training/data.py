"""Shards in, `Batch`es out: an endless stream that resumes at any place, and finite batches for validation.

A shard's tar is mapped into memory and read through its offset index, so any pair costs the same. Images decode in threads,
straight into the memory of the batch they belong to. That memory is used again as soon as nobody holds an array on it,
and never before: fresh pages would cost a quarter of the time that the decoding takes.

A shard that cannot be read, after every retry, ends the stream with an error that names it, or is left out
(`on_bad_shard="skip"`): each of its places in the stream is then given to another pair of the same source, which depends on
the seed, the place and the shard table alone (`Order.substitutes`). Ranks need not talk to each other about it: they stay in
step, and all of them, and a resumed run on another world, give the same stream, as a shard counts as bad only when it is
missing or not what it was committed as; a lost connection or a full disk is an error whatever the policy. An image that does not decode loses its own place only. What is left out is counted, and logged by shard.
Validation never leaves anything out.

Shape letters: `B` pairs, `H W C` stored rows, columns and colours, `G` silhouette cells along a side, `I` images of a pair
(target, reference, further references), `R` roles of those with a silhouette (target, reference).
"""

import logging
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from manifests.errors import ShardError
from manifests.sample import SILHOUETTE_BYTES
from manifests.types import Split
from training.batch import NUM_CELLS, STORED_PX, Batch
from training.order import Ints, Order, rank_positions, spread_evenly
from training.shards import IMAGES, SILHOUETTES, Shards
from training.storage import Cache

logger = logging.getLogger(__name__)

OnBadShard = Literal["error", "skip"]

AHEAD = 2
"""Batches that are decoded while the consumer works on one."""


class PairStream(Iterator[Batch]):
    """The endless stream of a build's pairs, as one rank sees it.

    The stream is that of `training.order`: it depends on the seed and the shard table only. Ranks cut each global batch of
    `world * batch_size` pairs among them. To resume, on any number of ranks, open a stream with the `position` kept in the
    checkpoint, and refuse to go on if `table_hash` differs.

    Use it in a `with` block, or `close` it: that ends its threads. An error ends the stream.

    Args:
        shards: the folder of the `shards` stage: a path, or a URL of http(s) or s3 (`training.storage`).
        split: whose pairs to read.
        seed: of the order.
        batch_size: pairs per batch of this rank.
        rank: which slice of each global batch to read, from 0.
        world: number of ranks.
        position: place of the stream at which the first global batch begins.
        threads: that decode.
        verify: hash each tar and index when first opened; without it only sizes and row counts are compared.
            What is fetched from elsewhere is hashed in any case.
        cache: where fetched shards are kept on this node.
        on_bad_shard: `error` ends the stream; `skip` leaves the shard out and counts it.
        num_references: images beside each target: the reference, then the sample's further views, then these again in turn.

    Attributes:
        position: place after the last global batch that was yielded: where to resume.
        table_hash: SHA-256 of what decides the stream besides the seed: the split's shards and the order's version.
        rows: pairs in the split, one epoch of the run.
        order: the order of the stream.
        left_out: places of this rank, among those yielded, at which a pair of another shard stood in; by bad shard.

    Raises:
        ManifestError: there is no shard table, or it holds nothing for the split.
        ShardError: a shard is missing, cut short, or not what its commit says; also raised while iterating.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        shards: Path | str,
        *,
        split: Split,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        position: int = 0,
        threads: int = 2,
        verify: bool = True,
        cache: Cache | None = None,
        on_bad_shard: OnBadShard = "error",
        num_references: int = 1,
    ) -> None:
        rank_positions(position, batch_size=batch_size, rank=rank, world=world)
        if on_bad_shard not in get_args(OnBadShard):
            raise ValueError(f"on_bad_shard is one of {get_args(OnBadShard)}, not {on_bad_shard!r}")
        skip = on_bad_shard == "skip"
        folder = Shards(shards, split=split, verify=verify, cache=cache, lenient=skip)
        self.order = Order(folder.entries, seed=seed)
        self.position = position
        self.table_hash = folder.table_hash
        self.rows = self.order.rows
        self._step = world * batch_size
        slices = (
            rank_positions(first, batch_size=batch_size, rank=rank, world=world)
            for first in count(position, self._step)
        )
        order = self.order
        plans = (_Plan(*order.locate(index_B), index_B, order.near(int(index_B[0]))) for index_B in slices)
        self.left_out: Counter[str] = Counter()
        others = order.substitutes if skip else None
        self._batches = _decode(
            folder, plans, threads=threads, num_images=1 + num_references, others=others, left_out=self.left_out
        )

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self.position += self._step
        return batch

    def close(self) -> None:
        """End the threads. The stream is over then; `position` stays."""
        self._batches.close()

    def __enter__(self) -> "PairStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def validation_batches(
    shards: Path | str,
    *,
    split: Split,
    batch_size: int,
    limit: int | None = None,
    threads: int = 2,
    verify: bool = True,
    cache: Cache | None = None,
    num_references: int = 1,
) -> Generator[Batch, None, None]:
    """Every pair of a split once, in the order of shard names and rows; the last batch may be shorter.

    Args:
        shards: as in `PairStream`.
        split: whose pairs to read.
        batch_size: pairs per batch.
        limit: read only this many pairs, spread evenly over the split so that every source is seen.
        threads: that decode.
        verify: as in `PairStream`.
        cache: as in `PairStream`.
        num_references: as in `PairStream`.

    Returns:
        batches whose `index_B` is the place of each pair in the whole split, whatever the limit.

    Raises:
        ManifestError, ShardError, ValueError: as `PairStream`.
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise ValueError(f"batch_size {batch_size} and limit {limit} must be at least 1")
    folder = Shards(shards, split=split, verify=verify, cache=cache)
    shard, row, index = spread_evenly([entry.rows for entry in folder.entries], limit)
    cuts = [slice(first, first + batch_size) for first in range(0, len(index), batch_size)]
    last = len(folder.entries) - 1
    plans = (
        _Plan(shard[cut], row[cut], index[cut], sorted({*shard[cut].tolist(), min(int(shard[cut][-1]) + 1, last)}))
        for cut in cuts
    )
    return _decode(folder, plans, threads=threads, num_images=1 + num_references)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which pairs make a batch: shard and row of each, and its place in the stream; and the shards to have at hand."""

    shard_B: Ints
    row_B: Ints
    index_B: Ints
    near: list[int]


@dataclass(slots=True)
class _Growing:
    """A batch whose images are being decoded."""

    plan: _Plan
    images_IBHWC: npt.NDArray[np.uint8]
    packed_RB: npt.NDArray[np.uint8]  # (2, B, SILHOUETTE_BYTES)
    keys: list[str]
    parts: list[Future[None]]
    failed: list[tuple[int, ShardError]]  # shards that could not be read, once for each place


Others = Callable[[int], Iterable[tuple[int, int]]]
"""Shards and rows of the pairs that may stand in at a place."""


def _decode(
    folder: Shards,
    plans: Iterator[_Plan],
    *,
    threads: int,
    num_images: int,
    others: Others | None = None,
    left_out: Counter[str] | None = None,
) -> Generator[Batch, None, None]:
    """Decode batches in threads, in the order of their plans, `AHEAD` of the consumer."""
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")

    def finish(batch: _Growing) -> Batch:
        done = _finish(batch)
        for index, error in batch.failed:
            name = folder.entries[index].name
            if left_out is not None:
                if name not in left_out:
                    logger.warning("shard %s is left out, other pairs of its source stand in: %s", name, error)
                left_out[name] += 1
        return done

    def run() -> Generator[Batch, None, None]:
        memory = _Memory()
        executor = ThreadPoolExecutor(threads, thread_name_prefix="pairs")
        growing: deque[_Growing] = deque()
        try:
            for plan in plans:
                folder.prepare(plan.near)
                growing.append(_start(plan, folder, memory, executor, threads, num_images, others))
                if len(growing) > AHEAD:
                    yield finish(growing.popleft())
            while growing:
                yield finish(growing.popleft())
        finally:
            folder.close()
            executor.shutdown(wait=True, cancel_futures=True)

    return run()


def _start(
    plan: _Plan,
    folder: Shards,
    memory: "_Memory",
    executor: ThreadPoolExecutor,
    threads: int,
    num_images: int,
    others: Others | None,
) -> _Growing:
    """Hand a batch to the threads, a run of its pairs to each."""
    num_pairs = len(plan.index_B)
    batch = _Growing(
        plan,
        memory.take((num_images, num_pairs, STORED_PX, STORED_PX, 3)),
        np.empty((2, num_pairs, SILHOUETTE_BYTES), np.uint8),
        [""] * num_pairs,
        [],
        [],
    )
    step = -(-num_pairs // threads)
    batch.parts += [executor.submit(_fill, batch, folder, i, i + step, others) for i in range(0, num_pairs, step)]
    return batch


def _fill(batch: _Growing, folder: Shards, first: int, last: int, others: Others | None) -> None:
    """Decode the pairs `first` to `last` of a batch into it."""
    plan = batch.plan
    places = zip(plan.shard_B[first:last].tolist(), plan.row_B[first:last].tolist(), strict=True)
    for place, (index, row) in enumerate(places, start=first):
        try:
            _fill_pair(batch, folder, place, index, row)
        except ShardError as error:
            if others is None:
                raise
            batch.failed.append((index, error))
            _stand_in(batch, folder, place, others, error)


def _fill_pair(batch: _Growing, folder: Shards, place: int, index: int, row: int) -> None:
    shard = folder.open(index)
    batch.keys[place] = shard.keys[row]
    for role in range(2):
        shard.decode(row, IMAGES[role], out_HWC=batch.images_IBHWC[role, place])
        batch.packed_RB[role, place] = np.frombuffer(shard.member(row, SILHOUETTES[role]), np.uint8)
    if len(batch.images_IBHWC) > 2:
        num_views = 1 + len(shard.further(row))
        if num_views < len(batch.images_IBHWC) - 1:
            with _TELLING:
                _tell_repeated(num_views, len(batch.images_IBHWC) - 1)
        for number, out_HWC in enumerate(batch.images_IBHWC[2:, place], start=1):
            if number < num_views:
                shard.decode_further(row, number - 1, out_HWC=out_HWC)
            else:  # all are shown: again from the first
                out_HWC[...] = batch.images_IBHWC[1 + number % num_views, place]


_TELLING = threading.Lock()  # threads that come at once would all tell


@cache  # told once
def _tell_repeated(num_views: int, wanted: int) -> None:
    logger.warning(
        "pairs with %d of %d references are shown these again in turn; `pair: {num_views: ...}` of a build gives more",
        num_views,
        wanted,
    )


def _stand_in(batch: _Growing, folder: Shards, place: int, others: Others, error: ShardError) -> None:
    """Fill a place whose own pair cannot be read.

    Raises:
        ShardError: no shard of the source can be read.
    """
    tried = set()
    for index, row in others(int(batch.plan.index_B[place])):
        tried.add(index)
        try:
            return _fill_pair(batch, folder, place, index, row)
        except ShardError as another:
            error = another
    source = folder.entries[min(tried)].source
    raise ShardError(
        f"all shards of split {folder.split} with pairs of {source} had to be left out, {len(tried)} of {len(tried)}: "
        f"no pair can stand in; the last: {error.what}",
        where=error.where,
        hint=error.hint,
    ) from error


def _finish(batch: _Growing) -> Batch:
    """Wait for a batch's parts and unpack its silhouettes, all at once."""
    for part in batch.parts:
        part.result()
    cells = np.unpackbits(batch.packed_RB, axis=-1).reshape(2, -1, NUM_CELLS, NUM_CELLS).view(np.bool_)
    return Batch(
        target_BHWC=batch.images_IBHWC[0],
        reference_BHWC=batch.images_IBHWC[1],
        target_cells_BGG=cells[0],
        reference_cells_BGG=cells[1],
        index_B=batch.plan.index_B,
        keys=tuple(batch.keys),
        further_BFHWC=batch.images_IBHWC[2:].swapaxes(0, 1) if len(batch.images_IBHWC) > 2 else None,
    )


class _Memory:
    """Hands out arrays, and takes their memory back when the last view of one is gone."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []

    def take(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """An array of any content. Views, tensors and slices of it keep it from being used again."""
        num_bytes = int(np.prod(shape))
        block = self._free.pop() if self._free else bytearray(num_bytes)
        if len(block) < num_bytes:
            block = bytearray(num_bytes)
        # NumPy makes this array, which does not own its data, the base of all views: it lives as long as any of them.
        array = np.frombuffer(block, np.uint8, count=num_bytes)
        weakref.finalize(array, self._free.append, block).atexit = False
        return array.reshape(shape)
