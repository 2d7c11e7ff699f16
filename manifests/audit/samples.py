"""Are the members of a shard's samples those of their crops, byte for byte, and does their JSON say what their pairs do.

Of the pairs only numbers are kept, so that any number of them fits.

Legend: p pairs, f further views, s samples of a block.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from manifests.audit.files import Part
from manifests.audit.images import Images
from manifests.audit.keys import Hashes, Ints, Keys, hashes_of, words_of
from manifests.audit.tars import FIXED, Block, views_at
from manifests.sample import SILHOUETTE_BYTES
from manifests.types import Role

WORDS = ("kind", "source", "licence", "domain", "split")  # that a sample's JSON tells of its pair
NUMBERS = ("dt_s", "view_angle_rad", "covisibility")
SIDES = tuple(role.value for role in Role)

N = TypeVar("N", bound=np.generic)
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Paired:
    """What shards are held against of all pairs: some 80 bytes of each, however long its names are.

    Attributes:
        words: by column: the distinct ones.
        codes: by column: (p,) which of them each pair has.
        numbers: by column: (p,) NaN where it is null.
        sides: by role: (p,) hash of the crop's key.
        further: (f,) hashes of the keys of all further views, pair after pair.
        starts: (p + 1,) where those of each pair begin.
    """

    words: dict[str, list[str]]
    codes: dict[str, npt.NDArray[np.int32]]
    numbers: dict[str, Floats]
    sides: dict[str, Hashes]
    further: Hashes
    starts: Ints

    @classmethod
    def of(cls, parts: Sequence[Part], pool: ThreadPoolExecutor) -> "Paired":
        """Read them, file by file."""
        known: dict[str, dict[str, int]] = {column: {} for column in WORDS}
        found: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
        for part, numbers in zip(parts, pool.map(cls._read, parts), strict=True):
            for column in WORDS:
                words, rows = numbers.pop(column)
                codes = [known[column].setdefault(word, len(known[column])) for word in words]
                found[column].append(np.array(codes, np.int32)[rows] if part.num_rows else np.zeros(0, np.int32))
            for name, values in numbers.items():
                found[name].append(values)
        whole = {
            name: np.concatenate([np.zeros(0, kind), *found.pop(name, [])])
            for kind, names in ((np.int32, WORDS), (np.float64, (*NUMBERS, "weight")), (np.uint64, (*SIDES, "further")), (np.int64, ("views",)))
            for name in names
        }  # fmt: skip
        return cls(
            words={column: list(words) for column, words in known.items()},
            codes={column: whole[column] for column in WORDS},
            numbers={column: whole[column] for column in (*NUMBERS, "weight")},
            sides={role: whole[role] for role in SIDES},
            further=whole["further"],
            starts=np.append(0, np.cumsum(whole["views"])),
        )

    def licences(self) -> dict[str, str]:
        """The terms of each source, as `shards.parquet` tells them: all that its pairs are under."""
        names = self.words["licence"]
        found = np.unique(self.codes["source"].astype(np.int64) * len(names) + self.codes["licence"])
        told: dict[str, list[str]] = {}
        for source, licence in zip(*(divmod(found, max(1, len(names)))), strict=True):
            told.setdefault(self.words["source"][source], []).append(names[licence])
        return {source: "; ".join(sorted(terms)) for source, terms in told.items()}

    @staticmethod
    def _read(part: Part) -> dict[str, Any]:
        data = part.read([*WORDS, *NUMBERS, "weight", *SIDES, "further"])
        listed = data.column("further").combine_chunks()
        told = {column: words_of(data.column(column)) for column in WORDS}
        return {
            **{column: (words.to_pylist(), rows) for column, (words, rows) in told.items()},
            **{column: data.column(column).to_numpy() for column in (*NUMBERS, "weight")},
            **{role: hashes_of(data.column(role)) for role in SIDES},
            "further": hashes_of(pc.list_flatten(listed)),
            "views": pc.list_value_length(listed).to_numpy(zero_copy_only=False).astype(np.int64),
        }


@dataclass(frozen=True, slots=True)
class Shelf:
    """What the samples of all shards are held against."""

    paired: Paired
    images: Images
    crops: Keys


def look_at_samples(
    data: memoryview, block: Block, rows: Ints, shelf: Shelf, bad: dict[tuple[str, str], list[str]]
) -> None:
    """Hold the bytes of samples against their crops and their pairs.

    Args:
        data: the tar.
        block: of its samples.
        rows: (s,) row of the pair of each, -1 where it is none.
        shelf: what they are held against.
        bad: gets the keys of samples, by rule and message.
    """
    paired = shelf.paired
    sample, number = np.arange(len(rows)), np.zeros(0, np.int64)
    places = [(role, sample, block.first + side, block.first + side + 2) for side, role in enumerate(SIDES)]
    hashes = [_at(paired.sides[role], rows) for role in SIDES]
    if block.views.any():
        parent, at = np.repeat(sample, block.views), views_at(block.first, block.views)
        number = np.arange(len(parent)) - np.repeat(np.cumsum(block.views) - block.views, block.views)
        place = _at(paired.starts, rows[parent]) + number
        hashes.append(_at(paired.further, np.where(place < _at(paired.starts[1:], rows[parent]), place, -1)))
        places.append(("view", parent, at, at + 1))
    for (role, of, jpeg, silhouette), its in zip(places, hashes, strict=True):
        crop = np.where(rows[of] >= 0, shelf.crops.rows_of(its), -1)
        crop = np.where(_at(shelf.images.known, crop), crop, -1)
        _look_at_images(data, block, (role, of, number), (jpeg, silhouette), crop, shelf.images, bad)
    mine = np.flatnonzero((rows >= 0) & (block.offset[block.first + FIXED + 2 * block.views] >= 0))
    _look_at_json(data, block, mine, rows, paired, bad)


def _at(values: npt.NDArray[N], rows: Ints) -> npt.NDArray[N]:
    """The values of rows; 0 for a row of -1."""
    found = np.zeros(len(rows), values.dtype)
    found[rows >= 0] = values[rows[rows >= 0]]
    return found


def _look_at_images(
    data: memoryview,
    block: Block,
    names: tuple[str, Ints, Ints],
    members: tuple[Ints, Ints],
    crop: Ints,
    images: Images,
    bad: dict[tuple[str, str], list[str]],
) -> None:
    """Hold images and silhouettes of one role against their crops, -1 where it is not known."""
    role, sample, number = names
    for what, at, digests in zip(("image", "silhouette"), members, (images.jpeg, images.silhouette), strict=True):
        offset, size = block.offset[at], block.size[at]
        found = [hash(data[a:b]) for a, b in zip(offset.tolist(), (offset + size).tolist(), strict=True)]
        same = (crop >= 0) & (_at(digests, crop) == np.array(found, np.int64))
        size_due = size == SILHOUETTE_BYTES if what == "silhouette" else True
        for i in np.flatnonzero((offset >= 0) & ~(same & size_due)).tolist():
            its = f"the view{number[i] + 2}" if role == "view" else f"the {role}"
            if what == "silhouette" and size[i] != SILHOUETTE_BYTES:
                problem = "silhouette", f"{its}'s silhouette has not {SILHOUETTE_BYTES} bytes"
            elif what == "image" and (wrong := images.judge(bytes(data[offset[i] : offset[i] + size[i]]))) is not None:
                problem = "image", f"{its} {wrong}"
            elif crop[i] >= 0:
                problem = "sample_bytes", f"{its}'s {what} is not its crop's"
            else:
                continue
            bad[problem].append(block.keys[int(sample[i])].as_py())


# What is asked of a sample's JSON, as columns.
_SIDE = pa.struct([("key", pa.string())])
_ASKED = [
    *((name, pa.string()) for name in WORDS),
    *((name, pa.float64()) for name in NUMBERS),
    *((role, _SIDE) for role in SIDES),
]
MOST_OPEN = (
    500  # brackets of a document that Arrow's reader is trusted with: Python's gives up where some thousand are nested
)
MOST_DIGITS = re.compile(rb"[0-9]{4300}")  # and where an integer is longer
MOST_BYTES = 64 << 20  # of a block's documents


def _look_at_json(
    data: memoryview, block: Block, mine: Ints, rows: Ints, paired: Paired, bad: dict[tuple[str, str], list[str]]
) -> None:
    """Hold the JSON of samples against their pairs: all at once, and one by one where one of them is not as it should be.

    Args:
        data: the tar.
        block: of its samples.
        mine: numbers in the block of those that have a JSON and a pair.
        rows: (s,) row of the pair of each sample.
        paired: the pairs.
        bad: gets the keys of samples, by rule and message.
    """
    at = block.first[mine] + FIXED + 2 * block.views[mine]
    ends = zip(block.offset[at].tolist(), (block.offset[at] + block.size[at]).tolist(), strict=True)
    documents = [bytes(data[first:last]) for first, last in ends]
    if documents and not _agree(documents, rows[mine], paired):
        _look_at_each(documents, block.keys.take(pa.array(mine)).to_pylist(), rows[mine], paired, bad)


def _agree(documents: list[bytes], pair: Ints, paired: Paired) -> bool:
    """Whether all documents say what their pairs do. False where they may not, or where another reader might not read them."""
    whole = b"\n".join(documents)
    if (
        not whole.isascii()
        or len(whole) > MOST_BYTES
        or (max(map(len, documents)) > 4300 and MOST_DIGITS.search(whole))
    ):
        return False
    # Each begins and ends as an object, so that as many rows as documents are one of each.
    if any(one[:1] != b"{" or one[-1:] != b"}" or one.count(b"[") + one.count(b"{") > MOST_OPEN for one in documents):
        return False
    views = np.diff(paired.starts)[pair]
    asked = [*_ASKED, *((f"view{n + 2}", _SIDE) for n in range(int(views.max())))]
    try:
        told = pa_json.read_json(
            pa.BufferReader(whole),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(whole) + 1),
            parse_options=pa_json.ParseOptions(explicit_schema=pa.schema(asked), unexpected_field_behavior="ignore"),
        ).combine_chunks()
    except pa.ArrowException:
        return False
    if told.num_rows != len(documents):
        return False
    for name in WORDS:
        words = pa.array(paired.words[name], pa.string()).take(pa.array(paired.codes[name][pair]))
        if not pc.all(pc.equal(told.column(name), words).fill_null(False)).as_py():
            return False
    for name in NUMBERS:
        due = paired.numbers[name][pair]
        known = ~np.isnan(due)
        if (told.column(name).is_valid().to_numpy() != known).any() or (told.column(name).to_numpy() != due)[
            known
        ].any():
            return False
    sides = [(role, np.arange(len(pair)), paired.sides[role][pair]) for role in SIDES]
    for number in range(int(views.max())):
        those = np.flatnonzero(views > number)
        sides.append((f"view{number + 2}", those, paired.further[paired.starts[pair[those]] + number]))
    for role, those, hashes in sides:
        keys = pc.struct_field(told.column(role).combine_chunks(), "key").take(pa.array(those))
        if not pc.all(pc.string_is_ascii(keys.fill_null(""))).as_py() or (hashes_of(keys) != hashes).any():
            return False
    return True


# Of a sample's JSON only few numbers are asked for: the others stay text, as bytes, which no JSON value is.
_decode = json.JSONDecoder(parse_float=str.encode).decode


def _look_at_each(
    documents: list[bytes], keys: list[str], pair: Ints, paired: Paired, bad: dict[tuple[str, str], list[str]]
) -> None:
    """Say what of each document is not as its pair has it.

    Args:
        documents: (n,) JSON of samples.
        keys: (n,) of the samples.
        pair: (n,) row of the pair of each.
        paired: the pairs.
        bad: gets the keys of samples, by rule and message.
    """
    words = zip(
        *([paired.words[name][code] for code in paired.codes[name][pair].tolist()] for name in WORDS), strict=True
    )
    numbers = zip(*(paired.numbers[name][pair].tolist() for name in NUMBERS), strict=True)
    due = list(zip(words, numbers, strict=True))
    wrong: list[list[str]] = []
    sides: list[str] = []  # keys that they tell
    hashes: list[int] = []  # and those due
    of: list[tuple[int, str]] = []  # whose they are
    starts, further = paired.starts, paired.further
    targets, references = (paired.sides[role][pair].tolist() for role in SIDES)
    for i, document in enumerate(documents):
        wrong.append([])
        try:
            meta = _decode(document.decode())
        except (ValueError, RecursionError):
            bad["sample_json", "its JSON does not parse"].append(keys[i])
            continue
        if not isinstance(meta, dict):
            bad["sample_json", "its JSON is no mapping"].append(keys[i])
            continue
        if tuple(map(meta.get, WORDS)) != due[i][0]:
            wrong[i] += [name for name, value in zip(WORDS, due[i][0], strict=True) if meta.get(name) != value]
        for name, number in zip(NUMBERS, due[i][1], strict=True):
            value = meta.get(name)
            value = float(value) if type(value) is bytes else value
            if value != number and not (value is None and math.isnan(number)):
                wrong[i].append(name)
        named = [(SIDES[0], targets[i]), (SIDES[1], references[i])]
        views = further[starts[pair[i]] : starts[pair[i] + 1]].tolist()
        for role, hashed in (*named, *((f"view{n}", one) for n, one in enumerate(views, start=2))):
            side = meta.get(role)
            key = side.get("key") if isinstance(side, dict) else None
            sides.append(key if isinstance(key, str) and key.isascii() else "")
            hashes.append(hashed)
            of.append((i, role))
    differs = hashes_of(pa.array(sides, pa.string())) != np.array(hashes, np.uint64)
    for place in np.flatnonzero(differs).tolist():
        i, role = of[place]
        wrong[i].append(f"{role}.key")
    for i, names in enumerate(wrong):
        if names:
            bad["sample_json", f"its JSON differs from its pair in {', '.join(names)}"].append(keys[i])
