"""The shards of a split, wherever they lie: checked in full when first opened, mapped into memory, kept open while they are used.

Shards are untrusted: a tar and its index are held against the commit and the shard table, offsets against the file's end,
image headers against the one size that is allowed, and nothing is ever unpickled. The index says where members are; of a sample's
further views (`view2.jpg`, ...) only the images are looked at, and only where a recipe asks for them.

Shape letters: `H W C` stored rows, columns and colours, `N` rows of a shard, `M` members of a pair, `F` further views of
all rows, one after another.
"""

import math
import mmap
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import simplejpeg

from manifests import table as tables
from manifests.commit import UNIT_ID, Commit, DataFile, read_commit
from manifests.errors import CrossposeError, ManifestError, ShardError
from manifests.recipes import fingerprint
from manifests.sample import MAX_MEMBER_BYTES, SILHOUETTE_BYTES
from manifests.schema import MEMBERS
from manifests.types import Split
from training.batch import STORED_PX
from training.order import BLOCK_SHARDS, VERSION, Ints, ShardRows
from training.storage import REBUILD, Cache, Folder, storage_of

IMAGES = (MEMBERS.index("target.jpg"), MEMBERS.index("reference.jpg"))
SILHOUETTES = (MEMBERS.index("target.sil"), MEMBERS.index("reference.sil"))
_COLUMNS = ["key", *(name.replace(".", "_") for name in MEMBERS)]  # of the index
_FURTHER = "further"
_TABLE = "shards.parquet"

Further = tuple[list[int], list[tuple[int, int]]]

FETCHERS = 4
"""Shards that are fetched at once from elsewhere."""


class Shards:
    """The shards of one split.

    Args:
        root: folder of the `shards` stage: a path, or a URL (`training.storage`).
        split: whose shards.
        verify: hash each tar and index when first opened; without it only sizes and row counts are compared. What is
            fetched from elsewhere is hashed in any case.
        cache: for what is fetched.
        lenient: look at no shard before it is opened, so that a missing one is found only then.

    Attributes:
        split: whose shards.
        entries: what the order needs, sorted by name.
        table_hash: SHA-256 of what decides the stream besides the seed: these shards and the order's version.

    Raises:
        ManifestError: there is no shard table, or it holds nothing for the split.
        ShardError: a shard is missing, or of another size than the table says; the table cannot be fetched.
    """

    def __init__(
        self, root: Path | str, *, split: Split, verify: bool, cache: Cache | None, lenient: bool = False
    ) -> None:
        self._storage = storage_of(root, cache)
        table = tables.read("shards", self._storage.small(_TABLE)).to_pylist()
        rows = sorted((row for row in table if row["split"] == split), key=lambda row: str(row["name"]))
        if not rows:
            known = ", ".join(sorted({row["split"] for row in table})) or "none"
            raise ManifestError(
                f"no shard of split {split}",
                where=self._storage.where(_TABLE),
                hint=f"splits with shards: {known}; to hold people out, record more than one group, or say `split` in recordings.toml;"
                " of rendered people, render more (N=...), or give the build's recipe a larger `split: {val_share: ...}`",
            )
        self.entries = [
            ShardRows(name=row["name"], source=row["source"], weight=row["weight"], rows=row["rows"]) for row in rows
        ]
        decides = [[row[c] for c in ("name", "source", "weight", "rows", "sha256")] for row in rows]
        self.table_hash = fingerprint({"order": VERSION, "shards": decides})
        self.split = split
        self._rows, self._verify = rows, verify
        self._verified: set[int] = set()
        self._failed: dict[int, ShardError] = {}
        self._opened: OrderedDict[int, Shard] = OrderedDict()
        # At most two blocks of each source are read at once.
        self._keep_open = 2 * BLOCK_SHARDS * len({row["source"] for row in rows}) + 8
        self._lock = threading.Lock()
        self._locks = [threading.Lock() for _ in rows]
        self._closed = threading.Event()
        self._soon: tuple[int, ...] = ()
        self._queue: SimpleQueue[int | None] = SimpleQueue()
        self._fetchers: list[threading.Thread] = []
        if not isinstance(self._storage, Folder):
            _check_cache(rows, cache or Cache(), self._storage.where(""))
        for row in rows:
            if not UNIT_ID.fullmatch(row["name"]):
                raise ShardError(
                    f"{row['name']!r} cannot name a shard",
                    where=self._storage.where(_TABLE),
                    hint="run `make shards` again",
                )
            if isinstance(self._storage, Folder) and not lenient:
                self._storage.check_size(f"{row['name']}.tar", row["bytes"])

    def open(self, index: int) -> "Shard":
        """A shard, checked in full when it is opened for the first time. One that fails once fails for good.

        Raises:
            ShardError: it is not what its commit and the shard table say.
        """
        with self._locks[index]:
            if index in self._failed:
                raise self._failed[index]
            with self._lock:
                shard = self._opened.get(index)
                if shard is not None:
                    self._opened.move_to_end(index)
                    return shard
            try:
                shard = self._read(self._rows[index], verify=self._verify and index not in self._verified)
            except ShardError as error:
                self._failed[index] = error
                raise
            with self._lock:
                self._verified.add(index)
                self._opened[index] = shard
                if len(self._opened) > self._keep_open:
                    self._opened.popitem(last=False)  # closed when no thread reads it any more
            return shard

    def prepare(self, indices: Sequence[int]) -> None:
        """Open shards in the background, in this order; whoever needs one that fails meets its error in `open`."""
        before, self._soon = self._soon, tuple(indices)
        if self._soon == before:
            return
        for index in self._soon:
            if index not in before:
                self._queue.put(index)
        if not self._fetchers:
            # They are daemons: a program that ends with its stream open does not wait for what is being fetched.
            number = 1 if isinstance(self._storage, Folder) else FETCHERS
            self._fetchers = [
                threading.Thread(target=self._prepare, name=f"shards_{i}", daemon=True) for i in range(number)
            ]
            for thread in self._fetchers:
                thread.start()

    def close(self) -> None:
        """Stop what is being fetched, and end the threads."""
        self._storage.close()
        self._closed.set()
        for _ in self._fetchers:
            self._queue.put(None)
        for thread in self._fetchers:
            thread.join()

    def _prepare(self) -> None:
        while (index := self._queue.get()) is not None and not self._closed.is_set():
            with suppress(CrossposeError):
                self.open(index)

    def _read(self, row: dict[str, Any], *, verify: bool) -> "Shard":
        """Map a tar and read its index, and check both."""
        index_file = self._check_commit(row)
        tar, index_name = f"{row['name']}.tar", f"{row['name']}.index.parquet"
        where = self._storage.where(index_name)
        try:
            with (
                self._storage.hold(tar, sha256=row["sha256"], num_bytes=row["bytes"], verify=verify) as path,
                path.open("rb") as file,
            ):
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            sha256, num_bytes = row["index_sha256"], index_file.bytes
            with self._storage.hold(index_name, sha256=sha256, num_bytes=num_bytes, verify=verify) as path:
                index = tables.read("index", path, columns=[*_COLUMNS, _FURTHER]).combine_chunks()
        except (OSError, ValueError, ManifestError) as error:
            raise ShardError(f"the shard cannot be opened: {error}", where=where, hint=REBUILD) from error
        if index.num_rows != row["rows"]:
            problem = f"the index has {index.num_rows} rows, the table says {row['rows']}"
            raise ShardError(problem, where=where, hint=REBUILD)
        offset_NM, size_NM = _column(index, "offset", where), _column(index, "size", where)
        _check_offsets(offset_NM, size_NM, len(mapped), where)
        keys: list[str] = index.column("key").to_pylist()
        further_N = _further(index, len(mapped), where)
        return Shard(
            self._storage.where(tar), memoryview(mapped), keys, offset_NM.tolist(), size_NM.tolist(), further_N
        )

    def _check_commit(self, row: dict[str, Any]) -> DataFile:
        """Insist that the shard is committed, and with what the table says. Returns what it says of the index."""
        name = f"{row['name']}.json"
        path, where = self._storage.small(name), self._storage.where(name)
        if not path.exists():
            raise ShardError("the shard has no commit", where=where, hint="run `make shards` again")
        try:
            commit: Commit = read_commit(path)
        except ManifestError as error:
            raise ShardError(error.what, where=where, hint=REBUILD) from error
        tar, index = commit.file("tar"), commit.file("index")
        told = (tar and (tar.rows, tar.bytes, tar.sha256), index and (index.rows, index.sha256))
        if index is None or told != ((row["rows"], row["bytes"], row["sha256"]), (row["rows"], row["index_sha256"])):
            raise ShardError(
                "the commit and the shard table tell different rows, bytes or SHA-256",
                where=where,
                hint="remove shards.parquet and run `make shards` again",
            )
        return index


@dataclass(frozen=True, slots=True)
class Shard:
    """An open shard."""

    where: str
    memory: memoryview
    keys: list[str]
    offset_NM: list[list[int]]
    size_NM: list[list[int]]
    further_N: Further

    def member(self, row: int, member: int) -> memoryview:
        """The bytes of a sample's member."""
        offset = self.offset_NM[row][member]
        return self.memory[offset : offset + self.size_NM[row][member]]

    def decode(self, row: int, member: int, *, out_HWC: npt.NDArray[np.uint8]) -> None:
        """Decode an image into place.

        Raises:
            ShardError: it does not decode, or is of another size.
        """
        self._decode(self.member(row, member), f"{self.keys[row]}.{MEMBERS[member]}", out_HWC)

    def further(self, row: int) -> list[tuple[int, int]]:
        """Offset and size in bytes of a sample's further views."""
        start_N, offset_size_F = self.further_N
        return offset_size_F[start_N[row] : start_N[row + 1]]

    def decode_further(self, row: int, number: int, *, out_HWC: npt.NDArray[np.uint8]) -> None:
        """Decode a further view into place; the first is number 0.

        Raises:
            ShardError: as of `decode`.
        """
        offset, size = self.further(row)[number]
        self._decode(self.memory[offset : offset + size], f"{self.keys[row]}.view{2 + number}.jpg", out_HWC)

    def _decode(self, data: memoryview, name: str, out_HWC: npt.NDArray[np.uint8]) -> None:
        try:
            image = simplejpeg.decode_jpeg(data, "RGB", buffer=out_HWC)
            problem = "" if image.shape == out_HWC.shape else _size_of(data)
        except ValueError as error:
            problem = _size_of(data) or f"an image does not decode: {error}"
        if problem:
            raise ShardError(problem, where=f"{self.where}: {name}", hint=REBUILD)


def _size_of(data: memoryview) -> str:
    """What is wrong with an image's size; nothing if it is right, or cannot be told."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return ""
    if (height, width) == (STORED_PX, STORED_PX):
        return ""
    return f"an image is {width} x {height} pixels, not {STORED_PX} x {STORED_PX}: crops must have that size_px"


def _check_cache(rows: list[dict[str, Any]], cache: Cache, where: str) -> None:
    """Insist on room for what is read at once; with less, shards would be fetched for a few pairs each time."""
    needed = 0
    for source in {row["source"] for row in rows}:
        sizes = sorted(row["bytes"] for row in rows if row["source"] == source)
        needed += sum(sizes[-2 * BLOCK_SHARDS :])
    if needed > cache.max_bytes:
        raise ShardError(
            f"a cache of {cache.max_bytes} bytes cannot hold the shards that are read at once",
            where=where,
            hint=f"give it {needed} bytes or more: `--cache-gb {math.ceil(needed / 1e8) / 10}`",
        )


def _column(index: pa.Table, field: str, where: str) -> Ints:
    """Offsets or sizes of all members, (N, M)."""
    columns = [index.column(name).combine_chunks().field(field) for name in _COLUMNS[1:]]
    if any(column.null_count for column in columns):
        raise ShardError(f"the index lacks an {field}", where=where, hint=REBUILD)
    return np.stack([column.to_numpy() for column in columns], axis=1)


def _further(index: pa.Table, num_bytes: int, where: str) -> Further:
    """Where each row's further views begin among those of all, and offset and size of each."""
    lists = index.column(_FURTHER).combine_chunks()
    views = lists.flatten().field("jpg")
    offset_F, size_F = (views.field(name).to_numpy(zero_copy_only=False) for name in ("offset", "size"))
    if ((offset_F < 0) | (size_F < 0) | (size_F > MAX_MEMBER_BYTES) | (offset_F > num_bytes - size_F)).any():
        problem = f"a further view cannot be in a tar of {num_bytes} bytes"
        raise ShardError(problem, where=where, hint=REBUILD)
    return lists.offsets.to_pylist(), list(zip(offset_F.tolist(), size_F.tolist(), strict=True))


def _check_offsets(offset_NM: Ints, size_NM: Ints, num_bytes: int, where: str) -> None:
    """Hold every member against the tar's end and the sizes that a member may have."""
    outside = (offset_NM < 0) | (size_NM < 0) | (size_NM > MAX_MEMBER_BYTES) | (offset_NM > num_bytes - size_NM)
    outside[:, SILHOUETTES] |= size_NM[:, SILHOUETTES] != SILHOUETTE_BYTES
    if outside.any():
        row, member = np.argwhere(outside)[0]
        raise ShardError(
            f"{MEMBERS[member]} of row {row} has offset {offset_NM[row, member]} and size {size_NM[row, member]}, "
            f"which cannot be in a tar of {num_bytes} bytes",
            where=where,
            hint=REBUILD,
        )
