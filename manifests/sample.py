"""What one sample in a shard is, member by member: the pipeline writes it, the trainer reads it.

A sample is five tar members, in this order: `<key>.target.jpg`, `<key>.reference.jpg`, `<key>.target.sil`,
`<key>.reference.sil`, `<key>.json`; with further views, `<key>.view2.jpg`, `<key>.view2.sil`, `<key>.view3.jpg`, ... stand
before the last. A `.sil` is `CELLS` x `CELLS` bits over the stored crop, packed row by row with the
first cell in the highest bit (`numpy.packbits`); all zero means that no silhouette is known. Nothing is pickled.
"""

import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from manifests.errors import ManifestError, ShardError
from manifests.schema import CELLS, MEMBERS
from manifests.types import SAMPLE_KEY

SILHOUETTE_BYTES = CELLS * CELLS // 8
MAX_MEMBER_BYTES = 4 << 20  # a 256 px JPEG takes some 16 kB; anything above this is no sample of ours
MAX_SIDE_PX = 4096
MAX_FURTHER = 14  # views beside target and reference
_END = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One pair with its bytes.

    `meta` holds plain JSON: kind, source, domain, split, subject, dt_s, view_angle_rad, covisibility and, per role (target, reference,
    view2, ...), the crop's key, camera (intrinsics, camera_from_world), keypoints when known, and who drew the silhouette. `further` holds
    image and silhouette of view2, view3, ...
    """

    key: str
    target_jpg: bytes
    reference_jpg: bytes
    target_sil: bytes
    reference_sil: bytes
    meta: Mapping[str, Any]
    further: tuple[tuple[bytes, bytes], ...] = ()

    def members(self) -> list[tuple[str, bytes]]:
        """Names (after the key) and bytes, in the order of `member_names`.

        Raises:
            ManifestError: the key, a silhouette or the meta is not of the agreed form, or a member is too large.
        """
        if not SAMPLE_KEY.fullmatch(self.key):
            raise ManifestError("a sample key must match [a-z0-9_/-]+", where=self.key, hint="rebuild the pairs")
        if len(self.further) > MAX_FURTHER:
            raise ManifestError(
                f"a sample has {len(self.further)} further views, not {MAX_FURTHER} at most",
                where=self.key,
                hint="ask for fewer views in the recipe",
            )
        for sil in (self.target_sil, self.reference_sil, *(sil for _, sil in self.further)):
            if len(sil) != SILHOUETTE_BYTES:
                raise ManifestError(
                    f"a silhouette has {len(sil)} bytes, not {SILHOUETTE_BYTES}",
                    where=self.key,
                    hint="rebuild the crops",
                )
        try:
            meta = json.dumps(self.meta, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        except (ValueError, TypeError) as error:
            raise ManifestError(
                f"the meta is no plain JSON: {error}", where=self.key, hint="leave unknown numbers out"
            ) from error
        views = [part for view in self.further for part in view]
        parts = (self.target_jpg, self.reference_jpg, self.target_sil, self.reference_sil, *views, meta)
        if max(map(len, parts)) > MAX_MEMBER_BYTES:
            raise ManifestError(
                f"a member has more than {MAX_MEMBER_BYTES} bytes", where=self.key, hint="store smaller crops"
            )
        return list(zip(member_names(len(self.further)), parts, strict=True))


@lru_cache
def member_names(num_further: int = 0) -> tuple[str, ...]:
    """Names of a sample's members after its key, in order; without further views, `MEMBERS`."""
    views = [f"view{number}.{kind}" for number in range(2, 2 + num_further) for kind in ("jpg", "sil")]
    return (*MEMBERS[:-1], *views, MEMBERS[-1])


def pack_cells(cells: npt.NDArray[np.bool_]) -> bytes:
    """Pack (CELLS, CELLS) booleans into `SILHOUETTE_BYTES` bytes."""
    if cells.shape != (CELLS, CELLS):
        raise ValueError(f"a silhouette has {CELLS} x {CELLS} cells, not {cells.shape}")
    return np.packbits(cells).tobytes()


def unpack_cells(packed: bytes) -> npt.NDArray[np.bool_]:
    """Unpack `SILHOUETTE_BYTES` bytes into (CELLS, CELLS) booleans."""
    if len(packed) != SILHOUETTE_BYTES:
        raise ValueError(f"a silhouette has {SILHOUETTE_BYTES} bytes, not {len(packed)}")
    return np.unpackbits(np.frombuffer(packed, np.uint8)).reshape(CELLS, CELLS).astype(bool)


def cells_of(silhouette: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Reduce a square mask to (CELLS, CELLS) by majority.

    Args:
        silhouette: (S, S) with S a multiple of CELLS.
    """
    side = silhouette.shape[0]
    if silhouette.shape != (side, side) or side % CELLS:
        raise ValueError(f"the mask must be square with a side divisible by {CELLS}, not {silhouette.shape}")
    step = side // CELLS
    share = silhouette.reshape(CELLS, step, CELLS, step).mean(axis=(1, 3))
    cells: npt.NDArray[np.bool_] = share >= 0.5
    return cells


def write_tar(file: BinaryIO, samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """Write samples as a WebDataset tar whose bytes depend on nothing but the samples.

    They are the bytes that `tarfile` writes, with one call for each header: it takes that module longer to copy a member's
    bytes than to make its header.

    Returns:
        The rows of the index table: key, and offset and size in bytes of every member's data.
    """
    rows, offset = [], 0
    for sample in samples:
        places = {}
        for name, data in sample.members():
            header = _header(f"{sample.key}.{name}", len(data))
            places[name] = {"offset": offset + len(header), "size": len(data)}
            padding = bytes(-len(data) % tarfile.BLOCKSIZE)
            file.write(b"".join((header, data, padding)))
            offset += len(header) + len(data) + len(padding)
        row: dict[str, Any] = {"key": sample.key, **{name.replace(".", "_"): places[name] for name in MEMBERS}}
        views = [f"view{number}" for number in range(2, 2 + len(sample.further))]
        row["further"] = [{kind: places[f"{view}.{kind}"] for kind in ("jpg", "sil")} for view in views]
        rows.append(row)
    file.write(_END + bytes(-(offset + len(_END)) % tarfile.RECORDSIZE))
    return rows


def _header(name: str, size: int) -> bytes:
    """The header of a member: a plain file of nobody, from the beginning of time, that all may read."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, 0, 0o444
    try:
        return info.tobuf(tarfile.USTAR_FORMAT)
    except ValueError as error:
        raise ManifestError(
            f"the key does not fit a tar: {error}", where=name, hint="shorten the recording's name"
        ) from error


def read_tar(path: Path) -> Iterator[Sample]:
    """Read every sample of a tar in order.

    Raises:
        ShardError: it is cut short, damaged, or holds something that is no sample.
    """
    parts: dict[str, bytes] = {}
    sample_key = ""
    try:
        with path.open("rb") as file:
            for full_name, offset, size in tar_members(file, path):
                key, _, name = full_name.partition(".")
                sample_key = sample_key if parts else key
                due = _due(len(parts))
                if name not in due or key != sample_key:
                    raise ShardError(
                        f"{full_name} where {sample_key}.{due[0]} was due",
                        where=path,
                        hint="rebuild the shard",
                    )
                file.seek(offset)
                parts[name] = file.read(size)
                if name == MEMBERS[-1]:
                    yield from_members(key, parts)
                    parts = {}
    except (OSError, ValueError) as error:
        raise ShardError(f"the tar does not read to its end: {error}", where=path, hint="rebuild the shard") from error
    if parts:
        raise ShardError("the last sample is incomplete", where=path, hint="the tar was cut short: rebuild the shard")


def tar_members(file: BinaryIO, path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size in bytes of each member of a shard.

    Stricter than `tarfile`, and of bounded memory: a member is a plain file with a header of its own and no more than
    `MAX_MEMBER_BYTES`; headers that lengthen names or sizes, which may say anything of themselves, are refused.

    Args:
        file: an open tar.
        path: of it, for messages.

    Raises:
        ValueError: it is cut short, damaged, or holds something else.
        ShardError: it was cut between two members, or something hides the rest.
    """
    end, offset = file.seek(0, os.SEEK_END), 0
    while True:
        file.seek(offset)
        header = file.read(tarfile.BLOCKSIZE)
        if (offset or header) and not any(header):
            break  # the end, or nothing: `check_end` tells
        offset += tarfile.BLOCKSIZE
        name, size = _read_header(header)
        if offset + size > end:
            raise ValueError(f"member {name!r} is cut")
        yield name, offset, size
        offset += size + -size % tarfile.BLOCKSIZE
    check_end(path, offset)


def _read_header(header: bytes) -> tuple[str, int]:
    """Name and size of a member, from its header."""
    if len(header) != tarfile.BLOCKSIZE:
        raise ValueError("it is cut in a header")
    if int(header[148:155].strip(b" \0"), 8) != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise ValueError("the checksum of a header is wrong")
    size = int(header[124:136].rstrip(b" \0"), 8)
    parts = [part.split(b"\0", 1)[0].decode("ascii") for part in (header[345:500], header[:100])]
    name = "/".join(part for part in parts if part) if header[257:263] == b"ustar\0" else parts[1]
    if header[156:157] not in (b"0", b"\0") or not 0 <= size <= MAX_MEMBER_BYTES:
        raise ValueError(f"member {name!r} is no part of a sample")
    return name, size


def _due(read: int) -> tuple[str, ...]:
    """Names that the next member of a sample may have, after so many."""
    fixed = len(MEMBERS) - 1
    if read < fixed:
        return (MEMBERS[read],)
    views, inside = divmod(read - fixed, 2)
    if inside:
        return (f"view{2 + views}.sil",)
    return (MEMBERS[-1], f"view{2 + views}.jpg") if views < MAX_FURTHER else (MEMBERS[-1],)


def check_end(path: Path, end: int) -> None:
    """Insist on the two zero blocks that close a tar, which `tarfile` takes for granted, and on nothing after them.

    Raises:
        ShardError: the tar was cut between two samples, or a damaged header hides the rest.
    """
    with path.open("rb") as file:
        file.seek(end)
        rest = file.read(2 * tarfile.RECORDSIZE)
    if not 2 * tarfile.BLOCKSIZE <= len(rest) <= tarfile.RECORDSIZE + tarfile.BLOCKSIZE or any(rest):
        raise ShardError("the tar does not end where its last sample does", where=path, hint="rebuild the shard")


def from_members(key: str, parts: Mapping[str, bytes]) -> Sample:
    """Build a sample from its members' bytes.

    Raises:
        ShardError: the key or a silhouette is not of the agreed form, or the JSON does not parse or is no mapping.
    """
    further = [(parts[f"view{n}.jpg"], parts[f"view{n}.sil"]) for n in range(2, 2 + (len(parts) - len(MEMBERS)) // 2)]
    sils = [*(parts[sil] for sil in MEMBERS[2:4]), *(sil for _, sil in further)]
    if not SAMPLE_KEY.fullmatch(key) or any(len(sil) != SILHOUETTE_BYTES for sil in sils):
        raise ShardError("the key or a silhouette is not of the agreed form", where=key, hint="rebuild the shard")
    try:
        meta = json.loads(parts["json"])
    except (ValueError, RecursionError) as error:
        raise ShardError(f"the sample's JSON does not parse: {error}", where=key, hint="rebuild the shard") from error
    if not isinstance(meta, dict):
        raise ShardError("the sample's JSON is no mapping", where=key, hint="rebuild the shard")
    return Sample(
        key=key,
        target_jpg=parts["target.jpg"],
        reference_jpg=parts["reference.jpg"],
        target_sil=parts["target.sil"],
        reference_sil=parts["reference.sil"],
        further=tuple(further),
        meta=meta,
    )
