"""Where a run's pairs come from."""

from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Protocol

from manifests.recipes import fingerprint
from manifests.types import Split
from training.batch import Batch
from training.data import PairStream, validation_batches


class PairSource(Protocol):
    """What a run asks of its pairs; shards on disk, or pairs in memory."""

    @property
    def shards_hash(self) -> str:
        """Hash of what decides the stream besides the seed: another one is another run."""

    def train(
        self, *, seed: int, batch_size: int, position: int, rank: int, world: int
    ) -> Generator[Batch, None, None]:
        """Stream this process's slice of each global batch for ever, from a global position on.

        Args:
            seed: of the order.
            batch_size: pairs of a global batch.
            position: place of the first pair.
            rank: which slice, from 0.
            world: number of slices.
        """

    def validation(self, *, batch_size: int, limit: int) -> Iterable[Batch]:
        """At most `limit` pairs of the validation split, always the same ones in the same order."""


class Shards:
    """Pairs of a folder of shards.

    Args:
        folder: the folder of the `shards` stage.
        threads: that decode.

    Raises:
        ManifestError: there is no shard table, or it holds nothing for training or validation.
        ShardError: a shard is missing or of another size than its commit says.
    """

    def __init__(self, folder: Path, *, threads: int = 2) -> None:
        self.folder, self.threads = folder, threads
        splits = (Split.TRAIN, Split.VAL)
        self.shards_hash = fingerprint(
            {s.value: PairStream(folder, split=s, seed=0, batch_size=1).table_hash for s in splits}
        )

    def train(
        self, *, seed: int, batch_size: int, position: int, rank: int, world: int
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
        )
        with stream:
            yield from stream

    def validation(self, *, batch_size: int, limit: int) -> Iterable[Batch]:
        """See `PairSource`; the pairs are spread evenly over the split."""
        return validation_batches(
            self.folder, split=Split.VAL, batch_size=batch_size, limit=limit, threads=self.threads
        )
