"""Where shards lie: a local or NFS folder, or one behind http(s) or S3 with a cache on this node.

A folder of shards is named by a path or by a URL (`file:///data/shards`, `https://host/rig/shards`, `s3://bucket/rig/shards`). Its files are read
under the same names in either case, and checked in the same way.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from manifests.errors import ShardError
from manifests.files import sha256_of

REBUILD = "remove this shard's .tar, .index.parquet and .json and run `make shards` again"


def _default_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "crosspose"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Where a node keeps what it has fetched; all its processes may share one, whatever they read.

    Args:
        folder: on a local disk (`flock` must work there).
        max_bytes: that tars and their indices may take. A file that goes while it is being read frees its room only when
            it is closed.

    Raises:
        ValueError: no room at all.
    """

    folder: Path = field(default_factory=_default_folder)
    max_bytes: int = 100 * 10**9

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {self.max_bytes}")


class Storage(Protocol):
    """A folder of shards."""

    def where(self, name: str) -> str:
        """How to call a file in messages."""

    def small(self, name: str) -> Path:
        """A file of a few bytes whose hash nobody knows beforehand, as it is now; a local one may be missing."""

    def hold(self, name: str, *, sha256: str, num_bytes: int, verify: bool) -> AbstractContextManager[Path]:
        """A file that is there, of the right size, as long as the `with` block lasts; mapped memory outlives it.

        Args:
            name: in the folder.
            sha256: that it was committed with.
            num_bytes: that it was committed with.
            verify: hash what lies on the disk. What is fetched is hashed in any case.

        Raises:
            ShardError: it is missing or damaged.
            TrainingError: it cannot be fetched, or the cache cannot be written.
        """

    def close(self) -> None:
        """Stop what is being fetched; whoever waits for it gets a `TrainingError`."""


class Folder:
    """A folder on a local disk or NFS.

    Args:
        path: of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def where(self, name: str) -> str:
        """See `Storage`."""
        return str(self._path / name)

    def small(self, name: str) -> Path:
        """See `Storage`."""
        return self._path / name

    def check_size(self, name: str, num_bytes: int) -> None:
        """Hold a file's size against the one it was committed with; costs no more than a look at the folder.

        Raises:
            ShardError: it is missing, or of another size.
        """
        path = self._path / name
        try:
            size = path.stat().st_size
        except OSError as error:
            raise ShardError(f"the {_kind(name)} cannot be read: {error.strerror}", where=path, hint=REBUILD) from error
        if size != num_bytes:
            raise ShardError(
                f"the {_kind(name)} has {size} bytes, its commit says {num_bytes}", where=path, hint=REBUILD
            )

    @contextmanager
    def hold(self, name: str, *, sha256: str, num_bytes: int, verify: bool) -> Iterator[Path]:
        """See `Storage`."""
        path = self._path / name
        self.check_size(name, num_bytes)
        if verify and sha256_of(path) != sha256:
            raise ShardError(
                f"the {_kind(name)}'s SHA-256 is not the one it was committed with", where=path, hint=REBUILD
            )
        yield path

    def close(self) -> None:
        """See `Storage`."""


def storage_of(root: Path | str, cache: Cache | None = None) -> Storage:
    """The storage that a path or a URL names.

    Args:
        root: the folder of the `shards` stage.
        cache: for what is fetched; unused for a local folder.

    Raises:
        ShardError: a URL of another kind, or one with a password.
    """
    if isinstance(root, str) and root.startswith("file://"):
        parts = urlsplit(root)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise ShardError("the URL is not of a folder on this machine", where=root, hint="file:///path, or the path")
        return Folder(Path(unquote(parts.path)))
    if isinstance(root, str) and "://" in root:
        from training.remote import Remote

        return Remote(root, cache or Cache())
    return Folder(Path(root))


def _kind(name: str) -> str:
    return "tar" if name.endswith(".tar") else "index"
