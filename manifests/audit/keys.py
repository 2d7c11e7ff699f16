"""Names as numbers: what lets the audit hold millions of keys against each other within a few bytes each.

Legend: n rows, W 8-byte words of a name.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.audit.files import Part

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

LONGEST = 256  # bytes of a name that is hashed by columns; longer ones are no keys of ours, and are hashed one by one
ODD = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9))  # of splitmix64


def hashes_of(names: pa.ChunkedArray | pa.Array) -> Hashes:
    """64-bit hashes of strings; (n,) to (n,). Null and the empty string share one. Equal hashes are to be looked up by name."""
    column = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    column = column.fill_null("")
    sizes = pc.binary_length(column).to_numpy()
    if not len(sizes):
        return np.zeros(0, np.uint64)
    if sizes.max() > LONGEST:
        long = sizes > LONGEST
        found = np.zeros(len(column), np.uint64)
        found[~long] = hashes_of(column.filter(pa.array(~long)))
        digests = [hashlib.blake2b(name.encode(), digest_size=8) for name in column.filter(pa.array(long)).to_pylist()]
        found[long] = [int.from_bytes(digest.digest(), "little") for digest in digests]
        return found
    # Every name becomes W words, filled up with zeros, which are mixed word by word as splitmix64 does.
    width = max(8, -(-int(sizes.max()) // 8) * 8)
    padded = np.zeros((len(column), width), np.uint8)
    text = np.frombuffer(column.buffers()[2] or b"", np.uint8)
    first, last = (np.frombuffer(column.buffers()[1], np.int32)[column.offset + i] for i in (0, len(column)))
    padded[np.arange(width) < sizes[:, None]] = text[first:last]
    hashed: Hashes = sizes.astype(np.uint64)
    for place, word in enumerate(padded.view(np.uint64).T):
        mixed = (hashed ^ word) * ODD[0]
        mixed = (mixed ^ (mixed >> np.uint64(29))) * ODD[1]
        # A name ends where it ends, however long the others are.
        hashed = np.where(sizes > 8 * place, mixed ^ (mixed >> np.uint64(32)), hashed)
    return hashed


def codes_of(*columns: pa.ChunkedArray | pa.Array) -> list[Ints]:
    """Numbers that are equal where values are, across columns of words (see `Part.read`); a null is equal to a null."""
    split = [words_of(column) for column in columns]
    values = pa.concat_arrays([words for words, _ in split]).dictionary_encode().indices.to_numpy().astype(np.int64)
    first, found = 0, []
    for words, rows in split:
        found.append(
            np.append(values[first : first + len(words)], -1)[rows]
        )  # a null has row -1, and so the last number
        first += len(words)
    return found


def words_of(column: pa.ChunkedArray) -> tuple[pa.Array, Ints]:
    """The distinct words of a column of words, and which of them each row has; -1 where it is null."""
    whole = column.combine_chunks()
    rows = whole.indices if not whole.indices.null_count else whole.indices.fill_null(-1)
    return whole.dictionary, rows.to_numpy().astype(np.int64)


def is_word(column: pa.ChunkedArray, *words: str) -> npt.NDArray[np.bool_]:
    """Which rows of a column of words are one of these; a null is none."""
    known, rows = words_of(column)
    fit = np.append(pc.is_in(known, value_set=pa.array(words)).to_numpy(zero_copy_only=False), False)
    found: npt.NDArray[np.bool_] = fit[rows]
    return found


def rows_of(keys: pa.ChunkedArray | pa.Array, among: pa.ChunkedArray) -> Ints:
    """Where each key stands in another column; -1 where it does not. (n,) strings to (n,) rows."""
    found: Ints = pc.index_in(keys, value_set=among.combine_chunks()).fill_null(-1).to_numpy().astype(np.int64)
    return found


@dataclass(frozen=True)
class Keys:
    """The keys of a table over all of its files, as hashes, in the order of the files.

    Attributes:
        parts: the files.
        hashes: (n,) of all rows, file after file.
    """

    parts: Sequence[Part]
    hashes: Hashes

    def names(self, rows: Ints, column: str = "key") -> list[str]:
        """The values of a column in these rows, which need not be in order; only the files that hold them are read."""
        found: list[str] = self.fetch(rows, [column]).column(0).to_pylist() if len(rows) else []
        return found

    def fetch(self, rows: Ints, columns: Sequence[str] | None = None) -> pa.Table:
        """These rows of the table, in the order asked for: all columns but the heavy ones, or some."""
        starts = np.cumsum([0, *(part.num_rows for part in self.parts)])
        part_of = np.searchsorted(starts, rows, side="right") - 1
        numbers = np.unique(part_of)
        found = [self.parts[n].read(columns).take(pa.array(rows[part_of == n] - starts[n])) for n in numbers]
        order = np.argsort(np.argsort(part_of, kind="stable"), kind="stable")
        return pa.concat_tables(found).unify_dictionaries().combine_chunks().take(pa.array(order))

    def named(self, names: Sequence[str], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The rows of these names that are there, in the order asked for."""
        rows = self.rows_of(hashes_of(pa.array(names, pa.string())))
        found: list[dict[str, Any]] = self.fetch(rows[rows >= 0], columns).to_pylist() if (rows >= 0).any() else []
        return found

    def rows_of(self, hashes: Hashes) -> Ints:
        """The first row of each hash, -1 where it is none's; (m,) to (m,)."""
        if not len(self.hashes):
            return np.full(len(hashes), -1)
        order = self._order
        place = np.minimum(np.searchsorted(self.hashes, hashes, sorter=order), len(order) - 1)
        return np.where(self.hashes[order[place]] == hashes, order[place], -1)

    @cached_property
    def _order(self) -> Ints:
        return np.argsort(self.hashes, kind="stable")

    def repeated(self) -> Ints:
        """Rows whose hash another row has too, in order."""
        ordered = np.sort(self.hashes)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        return np.flatnonzero(np.isin(self.hashes, twice)) if len(twice) else np.zeros(0, np.int64)
