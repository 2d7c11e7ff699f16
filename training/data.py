"""Shards in, `Batch`es out: an endless stream that resumes at any place, and finite batches for validation.

A shard's tar is mapped into memory and read through its offset index, so any pair costs the same. Images decode in threads,
straight into the memory of the batch they belong to. That memory is used again as soon as nobody holds an array on it,
and never before: fresh pages would cost a quarter of the time that the decoding takes.

Shards are untrusted: a tar and its index are held against the commit and the shard table when first opened, offsets against
the file's end, image headers against the one size that is allowed, and nothing is ever unpickled.

Shape letters: `B` pairs, `H W C` stored rows, columns and colours, `G` silhouette cells along a side, `R` roles (target,
reference), `N` rows of a shard, `M` members of a sample.
"""

import hashlib
import mmap
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import simplejpeg

from manifests import table as tables
from manifests.commit import UNIT_ID, Commit, read_commit
from manifests.errors import ManifestError, ShardError
from manifests.files import sha256_of
from manifests.recipes import fingerprint
from manifests.sample import MAX_MEMBER_BYTES, SILHOUETTE_BYTES
from manifests.schema import MEMBERS
from manifests.types import Split
from training.batch import NUM_CELLS, STORED_PX, Batch
from training.order import BLOCK_SHARDS, VERSION, Ints, Order, ShardRows, rank_positions

AHEAD = 2
"""Batches that are decoded while the consumer works on one."""

_REBUILD = "remove this shard's .tar, .index.parquet and .json and run `make shards` again"
_IMAGES = (MEMBERS.index("target.jpg"), MEMBERS.index("reference.jpg"))
_SILHOUETTES = (MEMBERS.index("target.sil"), MEMBERS.index("reference.sil"))


class PairStream(Iterator[Batch]):
    """The endless stream of a build's pairs, as one rank sees it.

    The stream is that of `training.order`: it depends on the seed and the shard table only. Ranks cut each global batch of
    `world * batch_size` pairs among them. To resume, on any number of ranks, open a stream with the `position` kept in the
    checkpoint, and refuse to go on if `table_hash` differs.

    Use it in a `with` block, or `close` it: that ends its threads. An error ends the stream.

    Args:
        shards: the folder of the `shards` stage.
        split: whose pairs to read.
        seed: of the order.
        batch_size: pairs per batch of this rank.
        rank: which slice of each global batch to read, from 0.
        world: number of ranks.
        position: place of the stream at which the first global batch begins.
        threads: that decode.
        verify: hash each tar and index when first opened; without it only sizes and row counts are compared.

    Attributes:
        position: place after the last global batch that was yielded: where to resume.
        table_hash: SHA-256 of what decides the stream besides the seed: the split's shards and the order's version.
        rows: pairs in the split, one epoch of the run.
        order: the order of the stream.

    Raises:
        ManifestError: there is no shard table, or it holds nothing for the split.
        ShardError: a shard is missing, cut short, or not what its commit says; also raised while iterating.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        shards: Path,
        *,
        split: Split,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        position: int = 0,
        threads: int = 2,
        verify: bool = True,
    ) -> None:
        rank_positions(position, batch_size=batch_size, rank=rank, world=world)
        folder = _Shards(shards, split=split, verify=verify)
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
        plans = (_Plan(*order.locate(index_B), index_B) for index_B in slices)
        self._batches = _decode(folder, plans, threads=threads)

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
    shards: Path, *, split: Split, batch_size: int, limit: int | None = None, threads: int = 2, verify: bool = True
) -> Generator[Batch, None, None]:
    """Every pair of a split once, in the order of shard names and rows; the last batch may be shorter.

    Args:
        shards: the folder of the `shards` stage.
        split: whose pairs to read.
        batch_size: pairs per batch.
        limit: read only this many pairs, spread evenly over the split so that every source is seen.
        threads: that decode.
        verify: as in `PairStream`.

    Returns:
        batches whose `index_B` is the place of each pair in the whole split, whatever the limit.

    Raises:
        ManifestError, ShardError, ValueError: as `PairStream`.
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise ValueError(f"batch_size {batch_size} and limit {limit} must be at least 1")
    folder = _Shards(shards, split=split, verify=verify)
    start = np.cumsum([0] + [entry.rows for entry in folder.entries])
    num_pairs = min(int(start[-1]), limit or int(start[-1]))
    index = np.arange(num_pairs, dtype=np.int64) * start[-1] // num_pairs
    shard = np.searchsorted(start, index, side="right") - 1
    row = index - start[shard]
    cuts = [slice(first, first + batch_size) for first in range(0, num_pairs, batch_size)]
    return _decode(folder, (_Plan(shard[cut], row[cut], index[cut]) for cut in cuts), threads=threads)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which pairs make a batch: shard and row of each, and its place in the stream."""

    shard_B: Ints
    row_B: Ints
    index_B: Ints


@dataclass(slots=True)
class _Growing:
    """A batch whose images are being decoded."""

    plan: _Plan
    images_RBHWC: npt.NDArray[np.uint8]
    packed_RB: npt.NDArray[np.uint8]  # (2, B, SILHOUETTE_BYTES)
    keys: list[str]
    parts: list[Future[None]]


def _decode(folder: "_Shards", plans: Iterator[_Plan], *, threads: int) -> Generator[Batch, None, None]:
    """Decode batches in threads, in the order of their plans, `AHEAD` of the consumer."""
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")

    def run() -> Generator[Batch, None, None]:
        memory = _Memory()
        executor = ThreadPoolExecutor(threads, thread_name_prefix="pairs")
        growing: deque[_Growing] = deque()
        try:
            for plan in plans:
                growing.append(_start(plan, folder, memory, executor, threads))
                if len(growing) > AHEAD:
                    yield _finish(growing.popleft())
            while growing:
                yield _finish(growing.popleft())
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    return run()


def _start(plan: _Plan, folder: "_Shards", memory: "_Memory", executor: ThreadPoolExecutor, threads: int) -> _Growing:
    """Hand a batch to the threads, a run of its pairs to each."""
    num_pairs = len(plan.index_B)
    batch = _Growing(
        plan,
        memory.take((2, num_pairs, STORED_PX, STORED_PX, 3)),
        np.empty((2, num_pairs, SILHOUETTE_BYTES), np.uint8),
        [""] * num_pairs,
        [],
    )
    step = -(-num_pairs // threads)
    batch.parts += [executor.submit(_fill, batch, folder, i, i + step) for i in range(0, num_pairs, step)]
    return batch


def _fill(batch: _Growing, folder: "_Shards", first: int, last: int) -> None:
    """Decode the pairs `first` to `last` of a batch into it."""
    places = zip(batch.plan.shard_B[first:last].tolist(), batch.plan.row_B[first:last].tolist(), strict=True)
    for place, (index, row) in enumerate(places, start=first):
        shard = folder.open(index)
        batch.keys[place] = shard.keys[row]
        for role in range(2):
            shard.decode(row, _IMAGES[role], out_HWC=batch.images_RBHWC[role, place])
            batch.packed_RB[role, place] = np.frombuffer(shard.member(row, _SILHOUETTES[role]), np.uint8)


def _finish(batch: _Growing) -> Batch:
    """Wait for a batch's parts and unpack its silhouettes, all at once."""
    for part in batch.parts:
        part.result()
    cells = np.unpackbits(batch.packed_RB, axis=-1).reshape(2, -1, NUM_CELLS, NUM_CELLS).view(np.bool_)
    return Batch(
        target_BHWC=batch.images_RBHWC[0],
        reference_BHWC=batch.images_RBHWC[1],
        target_cells_BGG=cells[0],
        reference_cells_BGG=cells[1],
        index_B=batch.plan.index_B,
        keys=tuple(batch.keys),
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


class _Shards:
    """The shards of one split: checked, opened when needed, and the ones used last kept open.

    Attributes:
        entries: what the order needs, sorted by name.
        table_hash: see `PairStream`.
    """

    def __init__(self, folder: Path, *, split: Split, verify: bool) -> None:
        path = folder / "shards.parquet"
        table = tables.read("shards", path).to_pylist()
        rows = sorted((row for row in table if row["split"] == split), key=lambda row: str(row["name"]))
        if not rows:
            known = ", ".join(sorted({row["split"] for row in table})) or "none"
            raise ManifestError(
                f"no shard of split {split}",
                where=path,
                hint=f"splits with shards: {known}; to hold people out, record more than one group, or say `split` in recordings.toml",
            )
        self.entries = [
            ShardRows(name=row["name"], source=row["source"], weight=row["weight"], rows=row["rows"]) for row in rows
        ]
        decides = [[row[c] for c in ("name", "source", "weight", "rows", "sha256")] for row in rows]
        self.table_hash = fingerprint({"order": VERSION, "shards": decides})
        self._folder, self._rows, self._verify = folder, rows, verify
        self._verified: set[int] = set()
        self._opened: OrderedDict[int, _Shard] = OrderedDict()
        # At most two blocks of each source are read at once.
        self._keep_open = 2 * BLOCK_SHARDS * len({row["source"] for row in rows}) + 8
        self._lock = threading.Lock()
        for row in rows:
            _check_size(folder, row)

    def open(self, index: int) -> "_Shard":
        """A shard, checked in full when it is opened for the first time.

        Raises:
            ShardError: it is not what its commit and the shard table say.
        """
        with self._lock:
            shard = self._opened.get(index)
            if shard is None:
                shard = _open(self._folder, self._rows[index], verify=self._verify and index not in self._verified)
                self._verified.add(index)
                self._opened[index] = shard
                if len(self._opened) > self._keep_open:
                    self._opened.popitem(last=False)  # closed when no thread reads it any more
            self._opened.move_to_end(index)
            return shard


@dataclass(frozen=True, slots=True)
class _Shard:
    """An open shard."""

    path: Path
    memory: memoryview
    keys: list[str]
    offset_NM: list[list[int]]
    size_NM: list[list[int]]

    def member(self, row: int, member: int) -> memoryview:
        """The bytes of a sample's member."""
        offset = self.offset_NM[row][member]
        return self.memory[offset : offset + self.size_NM[row][member]]

    def decode(self, row: int, member: int, *, out_HWC: npt.NDArray[np.uint8]) -> None:
        """Decode an image into place.

        Raises:
            ShardError: it does not decode, or is of another size.
        """
        data = self.member(row, member)
        where = f"{self.path}: {self.keys[row]}.{MEMBERS[member]}"
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            if (height, width) != (STORED_PX, STORED_PX):
                raise ShardError(
                    f"an image is {width} x {height} pixels, not {STORED_PX} x {STORED_PX}",
                    where=where,
                    hint=f"build the shards from crops with size_px {STORED_PX}",
                )
            simplejpeg.decode_jpeg(data, "RGB", buffer=out_HWC)
        except ValueError as error:
            raise ShardError(f"an image does not decode: {error}", where=where, hint=_REBUILD) from error


def _check_size(folder: Path, row: dict[str, Any]) -> None:
    """Hold a tar's size against the table; costs no more than a look at the folder."""
    if not UNIT_ID.fullmatch(row["name"]):
        raise ShardError(
            f"{row['name']!r} cannot name a shard", where=folder / "shards.parquet", hint="run `make shards` again"
        )
    path = folder / f"{row['name']}.tar"
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ShardError(f"the tar cannot be read: {error.strerror}", where=path, hint=_REBUILD) from error
    if size != row["bytes"]:
        raise ShardError(f"the tar has {size} bytes, the table says {row['bytes']}", where=path, hint=_REBUILD)


def _open(folder: Path, row: dict[str, Any], *, verify: bool) -> _Shard:
    """Map a tar and read its index, and check both."""
    name = row["name"]
    path, index_path = folder / f"{name}.tar", folder / f"{name}.index.parquet"
    _check_commit(folder / f"{name}.json", row)
    _check_size(folder, row)
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if verify and hashlib.sha256(mapped).hexdigest() != row["sha256"]:
            raise ShardError("the tar's SHA-256 is not the one it was committed with", where=path, hint=_REBUILD)
        if verify and sha256_of(index_path) != row["index_sha256"]:
            raise ShardError("the index's SHA-256 is not the one of its commit", where=index_path, hint=_REBUILD)
        index = tables.read("index", index_path).combine_chunks()
    except (OSError, ValueError, ManifestError) as error:
        raise ShardError(f"the shard cannot be opened: {error}", where=index_path, hint=_REBUILD) from error
    if index.num_rows != row["rows"]:
        problem = f"the index has {index.num_rows} rows, the table says {row['rows']}"
        raise ShardError(problem, where=index_path, hint=_REBUILD)
    offset_NM, size_NM = _column(index, "offset", index_path), _column(index, "size", index_path)
    _check_offsets(offset_NM, size_NM, len(mapped), index_path)
    keys: list[str] = index.column("key").to_pylist()
    return _Shard(path, memoryview(mapped), keys, offset_NM.tolist(), size_NM.tolist())


def _check_commit(path: Path, row: dict[str, Any]) -> None:
    """Insist that the shard is committed, and with what the table says."""
    if not path.exists():
        raise ShardError("the shard has no commit", where=path, hint="run `make shards` again")
    try:
        commit: Commit = read_commit(path)
    except ManifestError as error:
        raise ShardError(error.what, where=path, hint=_REBUILD) from error
    tar, index = commit.file("tar"), commit.file("index")
    told = (tar and (tar.rows, tar.bytes, tar.sha256), index and (index.rows, index.sha256))
    if told != ((row["rows"], row["bytes"], row["sha256"]), (row["rows"], row["index_sha256"])):
        raise ShardError(
            "the commit and the shard table tell different rows, bytes or SHA-256",
            where=path,
            hint="remove shards.parquet and run `make shards` again",
        )


def _column(index: pa.Table, field: str, path: Path) -> Ints:
    """Offsets or sizes of all members, (N, M)."""
    columns = [index.column(name.replace(".", "_")).combine_chunks().field(field) for name in MEMBERS]
    if any(column.null_count for column in columns):
        raise ShardError(f"the index lacks an {field}", where=path, hint=_REBUILD)
    return np.stack([column.to_numpy() for column in columns], axis=1)


def _check_offsets(offset_NM: Ints, size_NM: Ints, num_bytes: int, path: Path) -> None:
    """Hold every member against the tar's end and the sizes that a member may have."""
    outside = (offset_NM < 0) | (size_NM < 0) | (size_NM > MAX_MEMBER_BYTES) | (offset_NM > num_bytes - size_NM)
    outside[:, _SILHOUETTES] |= size_NM[:, _SILHOUETTES] != SILHOUETTE_BYTES
    if outside.any():
        row, member = np.argwhere(outside)[0]
        raise ShardError(
            f"{MEMBERS[member]} of row {row} has offset {offset_NM[row, member]} and size {size_NM[row, member]}, "
            f"which cannot be in a tar of {num_bytes} bytes",
            where=path,
            hint=_REBUILD,
        )
