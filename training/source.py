"""Where a run's pairs come from."""

import json
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from manifests.errors import ShardError
from manifests.recipes import fingerprint
from manifests.schema import MEMBERS
from manifests.types import Split
from training import shards
from training.batch import Batch
from training.data import OnBadShard, PairStream, validation_batches
from training.order import Order
from training.storage import REBUILD, Cache

_JSON = MEMBERS.index("json")


class PairSource(Protocol):
    """What a run asks of its pairs; shards on disk, or pairs in memory."""

    @property
    def shards_hash(self) -> str:
        """Hash of what decides the stream besides the seed: another one is another run."""

    def train(
        self, *, seed: int, batch_size: int, position: int, rank: int, world: int, num_references: int = 1
    ) -> Generator[Batch, None, None]:
        """Stream this process's slice of each global batch for ever, from a global position on.

        Args:
            seed: of the order.
            batch_size: pairs of a global batch.
            position: place of the first pair.
            rank: which slice, from 0.
            world: number of slices.
            num_references: images beside each target.
        """

    def validation(self, *, batch_size: int, limit: int, num_references: int = 1) -> Iterable[Batch]:
        """At most `limit` pairs of the validation split, always the same ones in the same order."""

    def about(self, batch: Batch, *, seed: int | None) -> list[dict[str, Any]]:
        """What the JSON of each pair of a batch says; of one of `train` with the seed of its order, of `validation` with None."""


class Shards:
    """Pairs of a folder of shards.

    Args:
        folder: the folder of the `shards` stage: a path, or a URL of http(s) or s3.
        threads: that decode.
        cache: where fetched shards are kept on this node.
        on_bad_shard: `error` ends the run; `skip` leaves the shard out of training and counts it.

    Attributes:
        left_out: pairs of this start of `train` for which others stood in, by bad shard.

    Raises:
        ManifestError: there is no shard table, or it holds nothing for training or validation.
        ShardError: a shard is missing or of another size than its commit says.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        threads: int = 2,
        cache: Cache | None = None,
        on_bad_shard: OnBadShard = "error",
    ) -> None:
        self.folder, self.threads, self.cache, self.on_bad_shard = folder, threads, cache, on_bad_shard
        self._splits = {
            split: shards.Shards(folder, split=split, verify=False, cache=cache, lenient=on_bad_shard == "skip")
            for split in (Split.TRAIN, Split.VAL)
        }
        self._orders: dict[int, Order] = {}
        self.left_out: Counter[str] = Counter()
        self.shards_hash = fingerprint({split.value: opened.table_hash for split, opened in self._splits.items()})

    def train(
        self, *, seed: int, batch_size: int, position: int, rank: int, world: int, num_references: int = 1
    ) -> Generator[Batch, None, None]:
        """See `PairSource`."""
        stream = PairStream(
            self.folder,
            split=Split.TRAIN,
            seed=seed,
            batch_size=batch_size // world,
            rank=rank,
            world=world,
            position=position,
            threads=self.threads,
            cache=self.cache,
            on_bad_shard=self.on_bad_shard,
            num_references=num_references,
        )
        self.left_out = stream.left_out
        with stream:
            yield from stream

    def validation(self, *, batch_size: int, limit: int, num_references: int = 1) -> Iterable[Batch]:
        """See `PairSource`; the pairs are spread evenly over the split."""
        return validation_batches(
            self.folder,
            split=Split.VAL,
            batch_size=batch_size,
            limit=limit,
            threads=self.threads,
            cache=self.cache,
            num_references=num_references,
        )

    def about(self, batch: Batch, *, seed: int | None) -> list[dict[str, Any]]:
        """See `PairSource`."""
        return [self._about(key, place, seed) for key, place in zip(batch.keys, batch.index_B.tolist(), strict=True)]

    def _about(self, key: str, place: int, seed: int | None) -> dict[str, Any]:
        folder = self._splits[Split.VAL if seed is None else Split.TRAIN]
        for index, row in self._places(place, seed):
            try:
                shard = folder.open(index)
            except ShardError:  # the stream met it, too, and took a pair of another shard
                continue
            if shard.keys[row] != key:
                continue
            try:
                return dict(json.loads(bytes(shard.member(row, _JSON))))
            except (ValueError, TypeError, RecursionError) as error:
                problem = f"the JSON of {key} does not parse: {error}"
                raise ShardError(problem, where=shard.where, hint=REBUILD) from error
        raise AssertionError(f"{key} is none of the pairs that may stand at {place}")

    def _places(self, place: int, seed: int | None) -> Iterator[tuple[int, int]]:
        """Shard and row of the pairs that may stand at a place of the stream, or of the validation split."""
        if seed is None:
            start = np.cumsum([0] + [entry.rows for entry in self._splits[Split.VAL].entries])
            shard = int(np.searchsorted(start, place, side="right")) - 1
            return iter([(shard, place - int(start[shard]))])
        if seed not in self._orders:
            self._orders[seed] = Order(self._splits[Split.TRAIN].entries, seed=seed)
        order = self._orders[seed]
        own_shard, own_row = order.locate([place])
        return chain([(int(own_shard[0]), int(own_row[0]))], order.substitutes(place))
