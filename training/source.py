"""Where a run's pairs come from."""

import json
from collections.abc import Generator, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from manifests import table as tables
from manifests.errors import ShardError
from manifests.recipes import fingerprint
from manifests.sample import MAX_MEMBER_BYTES
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

    def about(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """What the JSON of each of these pairs says."""


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

    def about(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """See `PairSource`."""
        said = []
        for key in keys:
            name, offset, size = self._places[key]
            path = self.folder / f"{name}.tar"
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(size if 0 < size <= MAX_MEMBER_BYTES else 0)
            try:
                said.append(dict(json.loads(data)))
            except (ValueError, TypeError, RecursionError) as error:
                raise ShardError(
                    f"the JSON of {key} does not parse: {error}", where=path, hint="run `make shards` again"
                ) from error
        return said

    @cached_property
    def _places(self) -> dict[str, tuple[str, int, int]]:
        """Shard, offset and size of each pair's JSON."""
        places = {}
        for name in tables.read("shards", self.folder / "shards.parquet", columns=["name"]).column("name").to_pylist():
            index = tables.read("index", self.folder / f"{name}.index.parquet", columns=["key", "json"])
            for row in index.to_pylist():
                places[row["key"]] = name, row["json"]["offset"], row["json"]["size"]
        return places
