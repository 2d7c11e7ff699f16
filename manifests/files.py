"""Files that are there whole or not at all."""

import hashlib
import json
import os
import tokenize
import uuid
import zipfile
import zlib
from pathlib import Path
from typing import Any

WHOLE_BYTES = 64 * 2**20  # a larger file is not read whole to be told from another
# What a damaged npz, or one that lies about its sizes, can raise on the way to its arrays.
NPZ_DAMAGE = (
    OSError, ValueError, TypeError, LookupError, EOFError, MemoryError, OverflowError, RuntimeError, SyntaxError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp_of(path: Path) -> str:
    """What tells one state of a file from another: the SHA-256 of its bytes, or of a very large file's size and ends."""
    size = path.stat().st_size
    if size <= WHOLE_BYTES:
        return sha256_of(path)
    with path.open("rb") as file:
        ends = file.read(1 << 20)
        file.seek(-(1 << 20), os.SEEK_END)
        return hashlib.sha256(f"{size} ".encode() + ends + file.read()).hexdigest()


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Write JSON with sorted keys so that it is there whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=indent, sort_keys=True) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a small file so that it is there whole or not at all, and survives a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
