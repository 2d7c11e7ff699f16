"""Is a tar what its index lists: header by header where this version wrote it, or by a walk that tells what is there instead.

Legend: s samples of a block, m members of a block, f further views.
"""

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.audit.files import Part
from manifests.audit.findings import Finding, error, of_rows
from manifests.audit.keys import Ints
from manifests.sample import MAX_MEMBER_BYTES, check_end, member_names, tar_members
from manifests.schema import MEMBERS

AT_ONCE = 512  # samples of a shard that are held against the rest together: some 20 MB
FIXED = len(MEMBERS) - 1  # members before those of further views; the JSON is the last
BLOCK = tarfile.BLOCKSIZE

Places = dict[str, tuple[int, int]]  # member name to offset and size of its data


@dataclass(frozen=True, slots=True)
class Block:
    """Some samples of a shard, as its index tells of them.

    Attributes:
        keys: (s,) of the samples.
        first: (s,) number of each sample's first member.
        views: (s,) how many further views each has.
        offset: (m,) where the data of each begins; -1: nowhere.
        size: (m,) its bytes.
    """

    keys: pa.Array
    first: Ints
    views: Ints
    offset: Ints
    size: Ints

    @property
    def names(self) -> list[str]:
        """(m,) of the members, in the order of the tar."""
        told = zip(self.keys.to_pylist(), self.views.tolist(), strict=True)
        return [f"{key}.{name}" for key, num in told for name in member_names(num)]

    @property
    def members(self) -> Iterator[tuple[str, Ints, Ints]]:
        """Every name that members have after the key, with the samples that have one of it, and its number in these."""
        sample = np.arange(len(self.first))
        for number, name in enumerate(MEMBERS[:-1]):
            yield name, sample, self.first + number
        for number in range(int(self.views.max(initial=0))):
            mine = sample[self.views > number]
            for side, kind in enumerate(("jpg", "sil")):
                yield f"view{number + 2}.{kind}", mine, self.first[mine] + FIXED + 2 * number + side
        yield MEMBERS[-1], sample, self.first + FIXED + 2 * self.views

    @classmethod
    def of(cls, index: pa.Table) -> "Block":
        """Read it from rows of an index."""
        keys, further = index.column("key").combine_chunks(), index.column("further").combine_chunks()
        views = pc.list_value_length(further).to_numpy(zero_copy_only=False).astype(np.int64)
        first = np.append(0, np.cumsum(views * 2 + len(MEMBERS)))[:-1].astype(np.int64)
        place = np.zeros((2, int((views * 2 + len(MEMBERS)).sum())), np.int64)
        at = {name: first + number for number, name in enumerate(MEMBERS[:-1])} | {"json": first + FIXED + 2 * views}
        for name, rows in at.items():
            told = index.column(name.replace(".", "_")).combine_chunks()
            place[:, rows] = [told.field(side).to_numpy() for side in ("offset", "size")]
        flat, rows = pc.list_flatten(further), views_at(first, views)
        for number, kind in enumerate(("jpg", "sil")):
            place[:, rows + number] = [flat.field(kind).field(side).to_numpy() for side in ("offset", "size")]
        return cls(keys, first, views, *place)

    def found_in(self, places: Places) -> "Block":
        """The same samples, with their members where a walk through the tar found them."""
        found = np.array([places.get(name, (-1, 0)) for name in self.names], np.int64).reshape(-1, 2)
        return Block(self.keys, self.first, self.views, found[:, 0], found[:, 1])


def views_at(first: Ints, views: Ints) -> Ints:
    """(f,) number of the first member of every further view."""
    before = np.cumsum(views) - views
    return np.repeat(first + FIXED - 2 * before, views) + 2 * np.arange(int(views.sum()))


def blocks_of(index: pa.Table) -> list[Block]:
    """The samples of a shard, some at a time."""
    return [Block.of(index.slice(first, AT_ONCE)) for first in range(0, index.num_rows, AT_ONCE)]


def is_as_listed(tar: Part, data: memoryview, num_rows: int, blocks: Sequence[Block]) -> bool:
    """Whether a tar is, header by header, what this version writes for its index: one pass over columns, and no more to prove.

    Args:
        tar: of which the commit tells the rows.
        data: its bytes.
        num_rows: of its index.
        blocks: of its samples.

    Raises:
        ShardError: it does not end where its last sample does.
    """
    if num_rows != tar.file.rows:
        return False
    end, whole = 0, np.frombuffer(data[: len(data) // BLOCK * BLOCK], np.uint64).reshape(-1, BLOCK // 8)
    for block in blocks:
        if not (block.size >= 0).all() or block.size.max() > MAX_MEMBER_BYTES:
            return False
        after = block.offset + -(-block.size // BLOCK) * BLOCK + BLOCK
        if block.offset[0] != end + BLOCK or (block.offset[1:] != after[:-1]).any() or after[-1] - BLOCK > len(data):
            return False
        end = int(after[-1]) - BLOCK
        due = headers_of(block)
        if due is None or (whole[block.offset // BLOCK - 1] != due.view(np.uint64)).any():
            return False
    check_end(tar.path, end)
    return True


def _template() -> npt.NDArray[np.uint8]:
    info = tarfile.TarInfo()
    info.mode = 0o444
    return np.frombuffer(info.tobuf(tarfile.USTAR_FORMAT), np.uint8)


_TEMPLATE = _template()
_NAME, _SIZE, _SUM, _PREFIX = slice(0, 100), slice(124, 135), slice(148, 154), slice(345, 500)
_REST = int(_TEMPLATE.sum()) - int(_TEMPLATE[_SIZE].sum()) - int(_TEMPLATE[148:155].sum()) + 7 * ord(" ")


def headers_of(block: Block) -> npt.NDArray[np.uint8] | None:
    """(m, BLOCK) the headers that `manifests.sample` writes for members; None for names that it does not write."""
    length = pc.binary_length(block.keys).to_numpy().astype(np.int64)
    longest = max(map(len, member_names(int(block.views.max(initial=0))))) + 1
    if not pc.all(pc.string_is_ascii(block.keys)).as_py() or not length.all():
        return None
    due = np.tile(_TEMPLATE, (len(block.size), 1))
    sums = np.full(len(due), _REST)
    if length.max(initial=0) + longest > _NAME.stop:
        if not _split_names(due, block.names):
            return None
        sums += sum(due[:, place].sum(axis=1, dtype=np.int64) for place in (_NAME, _PREFIX))
    else:
        keys = np.zeros((len(length), _NAME.stop), np.uint8)
        text = np.frombuffer(b"".join(block.keys.cast(pa.binary()).to_pylist()), np.uint8)
        keys[np.arange(_NAME.stop) < length[:, None]] = text
        of_keys = keys.sum(axis=1, dtype=np.int64)
        for name, sample, number in block.members:
            tail = np.frombuffer(f".{name}".encode(), np.uint8)
            due[number, _NAME] = keys[sample]
            due[number[:, None], length[sample][:, None] + np.arange(len(tail))] = tail
            sums[number] += of_keys[sample] + int(tail.sum())
    sizes = _octal(block.size, 11)
    due[:, _SIZE] = sizes
    due[:, _SUM] = _octal(sums + sizes.sum(axis=1), 6)
    return due


def _split_names(due: npt.NDArray[np.uint8], names: list[str]) -> bool:
    """Write long names into headers: what is longer than the place for it is cut at the first slash that leaves little enough."""
    cuts = [name.find("/", len(name) - 101) if len(name) > 100 else -1 for name in names]
    parts = [(name[: max(cut, 0)], name[cut + 1 :]) for name, cut in zip(names, cuts, strict=True)]
    if any(len(first) > 155 or not 0 < len(last) <= 100 for first, last in parts):
        return False
    for place, width, words in (
        (_NAME, "S100", [last for _, last in parts]),
        (_PREFIX, "S155", [first for first, _ in parts]),
    ):
        due[:, place] = np.array(words, width).view(np.uint8).reshape(len(names), -1)
    return True


def _octal(values: npt.NDArray[Any], digits: int) -> npt.NDArray[np.uint8]:
    return ((values.astype(np.int64)[:, None] >> (3 * np.arange(digits - 1, -1, -1))) % 8 + ord("0")).astype(np.uint8)


def members_of(tar: Part) -> tuple[Places, list[str]]:
    """Where each member lies, as a tar reader finds it, and their names in order."""
    places, order = Places(), []
    with tar.path.open("rb") as file:
        for name, offset, size in tar_members(file, tar.path):
            places[name] = offset, size
            order.append(name)
    return places, order


def hold_against_index(
    where: str, tar: Part, blocks: Sequence[Block], places: Places, order: list[str]
) -> Iterator[Finding]:
    """Say in what a tar is not what its index lists.

    Args:
        where: its path below the build's root.
        tar: of which the commit tells the rows.
        blocks: of its samples.
        places: where its members lie.
        order: their names.
    """
    listed = [name for block in blocks for name in block.names]
    due = tar.file.rows * len(MEMBERS) + 2 * sum(int(block.views.sum()) for block in blocks)
    if len(order) != due:
        message = f"it holds {len(order)} members, its commit and index tell {due}"
        yield error("rows", "tar", where, message)
    elif order != listed:
        first = next((i for i, pair in enumerate(zip(order, listed, strict=False)) if pair[0] != pair[1]), 0)
        message = f"member {first} is {order[first]}, where the index lists {listed[first] if listed else 'nothing'}"
        yield error("tar", "tar", where, message)
    off = []
    for block in blocks:
        found = block.found_in(places)
        wrong = (found.offset >= 0) & ((found.offset != block.offset) | (found.size != block.size))
        off.append(np.add.reduceat(wrong, block.first) > 0)
    message = "the index has a member begin or end where the tar does not"
    if off:
        keys = pa.chunked_array([block.keys for block in blocks])
        yield from of_rows("offset", "index", np.concatenate(off), keys, message, where=where)
