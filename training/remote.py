"""Shards behind http(s) or S3, and the cache that a node keeps of them.

A cache holds each file under its SHA-256, so shards of any number of builds may lie in one. All of a node's processes
share it by file locks, which the kernel drops with the process, so a kill leaves nothing to clean up:

- `objects/<sha256>` is whole and was right when it came. Who opens it holds a shared lock meanwhile; whoever makes room
  takes an exclusive one, or passes over it. The least recently used goes first.
- `objects/<sha256>.<bytes>.part` is being fetched by whoever holds its lock; the others wait for it. It counts with all the
  bytes it will have. What a killed process left is gone on with.
- `room` is locked while somebody counts bytes.
- `tables/<hash of the URL>/` has the table of shards and commits as they were fetched last; they are fetched anew by each
  reader, and are too small to count.

A lost connection is made again after growing pauses and goes on where it broke off; if it stays lost, that is a
`TrainingError`. A file that is not there, or has another size or hash than it was committed with, is asked for again, and is
a `ShardError` then: only that is the shard's own fault, and the same for every rank. Credentials come from the environment only: S3 reads the usual `AWS_...` variables (`AWS_ENDPOINT_URL`
for another service than Amazon's), and a URL with a password is refused.
"""

import fcntl
import hashlib
import http.client
import io
import logging
import os
import re
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from manifests.errors import ShardError, TrainingError
from manifests.files import sha256_of, write_bytes
from training.storage import Cache

logger = logging.getLogger(__name__)

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Waited before a lost connection is made again; the count begins anew whenever some bytes came."""

TRIES = {"denied": 2, "missing": 2, "damaged": 3}
"""Times that a server may say that a file is not for us or not there, or give another one, before it is believed."""

TIMEOUT_S = 30.0
"""Silence after which a connection counts as lost."""

_POLL_S = 0.05
_CHUNK_BYTES = 1 << 20
_MAX_SMALL_BYTES = 1 << 28
_KINDS = {401: "denied", 403: "denied", 404: "missing", 410: "missing"}  # of http's answers; all others may pass


@dataclass(frozen=True, slots=True)
class _Answer:
    """An open file somewhere else, from byte `first` of `total` (if told) on; `read` gives what has come, up to a number."""

    file: Any
    read: Callable[[int], bytes]
    first: int
    total: int | None


class _FailedError(Exception):
    """A file did not come. `kind` says whose fault that is: `lost`, or one of `TRIES`."""

    def __init__(self, problem: str, kind: str) -> None:
        super().__init__(problem)
        self.kind = kind


class Remote:
    """A folder of shards behind http(s) or S3.

    Args:
        root: `http://`, `https://` or `s3://` URL of the folder.
        cache: where fetched files are kept.

    Raises:
        ShardError: the URL is of another kind, or has a password or a query.
        TrainingError: the cache cannot be written.
    """

    def __init__(self, root: str, cache: Cache) -> None:
        parts = urlsplit(root)
        if parts.scheme not in ("http", "https", "s3") or not parts.netloc:
            raise ShardError(
                f"shards cannot be read from {parts.scheme}://", where=parts.scheme, hint="take a path, http(s) or s3"
            )
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ShardError(
                "the URL has a password or a query",
                where=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",
                hint="name the folder only; credentials for s3 come from the environment (AWS_ACCESS_KEY_ID, ...)",
            )
        self._root = root.rstrip("/")
        self._max_bytes = cache.max_bytes
        self._objects = cache.folder / "objects"
        self._tables = cache.folder / "tables" / hashlib.sha256(self._root.encode()).hexdigest()[:16]
        self._room = cache.folder / "room"
        try:
            self._objects.mkdir(parents=True, exist_ok=True)
            self._tables.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _no_room(cache.folder, error) from error
        self._closed = threading.Event()
        self._open: Callable[[str, int], _Answer] = _S3(self._root) if parts.scheme == "s3" else self._open_http

    def where(self, name: str) -> str:
        """See `Storage`."""
        return f"{self._root}/{name}"

    def small(self, name: str) -> Path:
        """See `Storage`.

        Raises:
            ShardError: it cannot be fetched.
        """
        buffer = io.BytesIO()
        self._fetch(name, buffer, num_bytes=None, sha256=None)
        path = self._tables / name
        try:
            write_bytes(path, buffer.getvalue())
        except OSError as error:
            raise _no_room(path, error) from error
        return path

    @contextmanager
    def hold(self, name: str, *, sha256: str, num_bytes: int, verify: bool) -> Iterator[Path]:
        """See `Storage`."""
        if num_bytes > self._max_bytes:
            raise ShardError(
                f"a file of {num_bytes} bytes does not fit a cache of {self._max_bytes}",
                where=self.where(name),
                hint="give the cache more room: --cache-gb",
            )
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ShardError("the table tells no SHA-256", where=self.where(name), hint="run `make shards` again")
        path = self._objects / sha256
        for _ in range(TRIES["damaged"]):
            with self._there(name, path, num_bytes) as (file, is_new):
                right_size = os.fstat(file.fileno()).st_size == num_bytes
                if right_size and (is_new or not verify or sha256_of(path) == sha256):
                    os.utime(path)
                    yield path
                    return
                path.unlink(missing_ok=True)
            logger.warning("%s was damaged in the cache and is fetched again", self.where(name))
        raise TrainingError("the cache's disk damages files", where=path, hint="give another folder for the cache")

    def close(self) -> None:
        """See `Storage`."""
        self._closed.set()

    @contextmanager
    def _there(self, name: str, path: Path, num_bytes: int) -> Iterator[tuple[BinaryIO, bool]]:
        """A cached file, locked against removal, fetched if need be; and whether it was."""
        is_new = False
        while True:
            try:
                file = path.open("rb")
            except FileNotFoundError:
                is_new = self._get(name, path, num_bytes) or is_new
                continue
            with file:
                fcntl.flock(file, fcntl.LOCK_SH)
                if os.fstat(file.fileno()).st_nlink:  # else it was removed before we had the lock
                    yield file, is_new
                    return

    def _get(self, name: str, path: Path, num_bytes: int) -> bool:
        """Fetch a file into the cache, or wait a moment for whoever does it. Returns whether it was fetched here."""
        part = path.with_name(f"{path.name}.{num_bytes}.part")
        file = self._claim(part, path, num_bytes)
        if file is None:
            self._wait(_POLL_S)
            return False
        with file:
            self._fetch(name, file, num_bytes=num_bytes, sha256=path.name)
            try:
                os.fsync(file.fileno())
                with self._counting():
                    part.replace(path)
            except OSError as error:
                raise _no_room(path, error) from error
        return True

    def _claim(self, part: Path, path: Path, num_bytes: int) -> BinaryIO | None:
        """Open and lock an unfinished file for which there is room; None when another has it, or there is none yet."""
        with self._counting():
            known = part.exists()
            if path.exists() or not (known or self._make_room(num_bytes)):
                return None
            file = part.open("a+b")
            if _lock(file) and not path.exists():
                return file
            file.close()
            return None

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Nobody else makes room, and no file gets another name meanwhile."""
        with self._room.open("wb") as room:
            fcntl.flock(room, fcntl.LOCK_EX)
            yield

    def _make_room(self, num_bytes: int) -> bool:
        """Remove what was used least recently and is not in use, until a new file fits."""
        files = []
        for path in self._objects.iterdir():
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # it was damaged, and whoever found that has removed it
            size = int(path.suffixes[0][1:]) if path.suffix == ".part" else stat.st_size
            files.append((stat.st_mtime_ns, size, path))
        over = sum(size for _, size, _ in files) + num_bytes - self._max_bytes
        for _, size, path in sorted(files):
            if over <= 0:
                break
            try:
                with path.open("rb") as file:
                    if _lock(file):
                        path.unlink()
                        over -= size
                        logger.debug("%s makes room in the cache", path.name)
            except FileNotFoundError:
                continue
        return over <= 0

    def _fetch(self, name: str, file: BinaryIO, *, num_bytes: int | None, sha256: str | None) -> None:
        """Fetch a file, going on with what it holds already, until it is whole and right.

        Raises:
            ShardError: it is not there, or another one is.
            TrainingError: the connection stays lost, or we are not allowed.
        """
        failures = Counter[str]()
        while True:
            had = file.seek(0, os.SEEK_END)
            try:
                self._append(name, file, num_bytes)
                if sha256 is None or _digest(file) == sha256:
                    return
                _cut(file, 0)
                raise _FailedError("its SHA-256 is not the one it was committed with", "damaged")
            except _FailedError as error:
                if file.seek(0, os.SEEK_END) > had:
                    failures["lost"] = 0
                failures[error.kind] += 1
                if failures[error.kind] >= TRIES.get(error.kind, 1 + len(PAUSES_S)):
                    blame = ShardError if error.kind in ("missing", "damaged") else TrainingError
                    raise blame(
                        f"it cannot be fetched: {error} (tried {failures.total()} times)",
                        where=self.where(name),
                        hint="check the address, the network and the credentials, or upload the folder again",
                    ) from error
                pause_s = PAUSES_S[failures[error.kind] - 1]
                logger.info("%s: %s; trying again in %.1f s", self.where(name), error, pause_s)
            self._wait(pause_s)

    def _append(self, name: str, file: BinaryIO, num_bytes: int | None) -> None:
        """Fetch what a file lacks; one whose size nobody knows is fetched from its beginning.

        Raises:
            _FailedError: it did not come, or not to its end.
        """
        limit = _MAX_SMALL_BYTES if num_bytes is None else num_bytes
        size = file.seek(0, os.SEEK_END)
        if num_bytes is None or size > limit:
            size = _cut(file, 0)
        if size == num_bytes:
            return
        try:
            answer = self._open(name, size)
            with closing(answer.file):
                if None not in (num_bytes, answer.total) and answer.total != num_bytes:
                    raise _FailedError(f"it has {answer.total} bytes, its commit says {num_bytes}", "damaged")
                size = _cut(file, answer.first)
                # One byte too many is enough to know that it is another file.
                while size <= limit and (chunk := answer.read(min(_CHUNK_BYTES, limit + 1 - size))):
                    self._write(file, chunk)
                    size += len(chunk)
        except urllib.error.HTTPError as error:
            error.close()
            raise _FailedError(f"HTTP {error.code} {error.reason}", _KINDS.get(error.code, "lost")) from error
        except FileNotFoundError as error:
            raise _FailedError(str(error), "missing") from error
        except (OSError, http.client.HTTPException) as error:
            raise _FailedError(str(error) or type(error).__name__, "lost") from error
        if num_bytes is None and size > limit:
            raise _FailedError(f"it has more than {limit} bytes", "damaged")
        total = answer.total if num_bytes is None else num_bytes
        if total is not None and size < total:
            raise _FailedError(f"the connection ended after {size} of {total} bytes", "lost")

    def _write(self, file: BinaryIO, chunk: bytes) -> None:
        self._wait(0)
        try:
            file.write(chunk)
            file.flush()
        except OSError as error:
            raise _no_room(self._objects, error) from error

    def _wait(self, seconds: float) -> None:
        """Pause, but not longer than the stream is open."""
        if self._closed.wait(seconds):
            raise TrainingError("the stream was closed", where=self._root, hint="open another")

    def _open_http(self, name: str, start: int) -> _Answer:
        headers = {"Range": f"bytes={start}-"} if start else {}
        request = urllib.request.Request(f"{self._root}/{quote(name)}", headers=headers)
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
        first = start if answer.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        return _Answer(answer, answer.read1, first, None if answer.length is None else first + answer.length)


class _S3:
    """Opens files of a bucket. Nothing is tried again here: that is done in one place for all kinds of storage.

    Args:
        root: `s3://bucket/folder`.
    """

    def __init__(self, root: str) -> None:
        self._prefix = root.removeprefix("s3://")
        self._lock = threading.Lock()
        self._files: Any = None

    def __call__(self, name: str, start: int) -> _Answer:
        """Open a file from a byte on."""
        with self._lock:
            self._files = self._files or self._connect()
        file = self._files.open_input_file(f"{self._prefix}/{name}")
        file.seek(start)
        return _Answer(file, file.read, start, file.size())

    def _connect(self) -> Any:
        from pyarrow import fs

        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if not (endpoint or region):
            region = fs.resolve_s3_region(self._prefix.partition("/")[0])
        return fs.S3FileSystem(
            region=region,
            endpoint_override=endpoint and urlsplit(endpoint).netloc,
            scheme=(endpoint and urlsplit(endpoint).scheme) or "https",
            connect_timeout=TIMEOUT_S,
            request_timeout=TIMEOUT_S,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
        )


def _lock(file: BinaryIO) -> bool:
    """Lock a file for ourselves alone, unless another has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _digest(file: BinaryIO) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _cut(file: BinaryIO, size: int) -> int:
    """Shorten a file, and go to its end."""
    file.truncate(size)
    return file.seek(size)


def _no_room(path: Path, error: OSError) -> TrainingError:
    return TrainingError(
        f"the cache cannot be written: {error.strerror}",
        where=path,
        hint="free some space, or give the cache another folder (--cache) or fewer bytes (--cache-gb)",
    )
