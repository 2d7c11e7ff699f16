"""Where a build can lie: a folder, a bucket, or whatever else fsspec opens, through the few things that we ask of it."""

import errno
import hashlib
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from manifests.errors import CrossposeError, StageError
from manifests.files import sync_folder
from manifests.s3 import connect_s3

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Waited before something that failed is tried again."""

# An object is there whole, or as it was before, whatever happens while it is written. Elsewhere we rename.
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss", "tos", "memory")

_CHUNK_BYTES = 4 << 20
_S3_TRIES = 3  # of each part of an object, before the object is begun anew
_FINAL = (errno.ENOTDIR, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
_REFUSED = re.compile(
    r"AWS Error (ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|NO_SUCH_BUCKET|INVALID_SIGNATURE)"
    r"|HTTP status 40[013]|InvalidBucketName"
)


class Store:
    """A folder of stage folders. Its methods may be called by many threads, and go on after lost connections.

    Args:
        url: a path, `s3://bucket/folder`, or any other URL that fsspec opens.

    Raises:
        StageError: nothing opens such a URL, or it has a password.
    """

    def __init__(self, url: str) -> None:
        scheme, separator, rest = url.partition("://")
        if not separator:
            scheme, rest = "file", str(Path(url).resolve())
        self.is_local = scheme in ("file", "local")
        self.renames = scheme not in OBJECT_STORES
        if not self.is_local and re.search(r"[?#]|:[^@]*@", rest):
            raise StageError(
                "the URL has a password or a query",
                where=f"{scheme}://...",
                hint="name the folder only; credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, ...)",
            )
        self.url = url.rstrip("/")
        self._files, path = _open(scheme, rest.rstrip("/"))
        self._root = path.rstrip("/")

    def sizes(self, stage: str) -> dict[str, int]:
        """Bytes of each file in a stage's folder, by name; empty when it is not there."""

        def listed() -> dict[str, int]:
            self._files.invalidate_cache()
            try:
                entries = self._files.ls(f"{self._root}/{stage}", detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
            return {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in entries if entry["type"] == "file"}

        return self._patiently(stage, listed)

    def read(self, name: str) -> bytes:
        """A small file, whole."""
        return self._patiently(name, lambda: b"".join(self._chunks(name)))

    def chunks(self, name: str, *, sha256: str) -> Iterator[bytes]:
        """A file in pieces; the end comes only if they have this hash, else an `OSError`."""
        digest = hashlib.sha256()
        for chunk in self._chunks(name):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != sha256:
            raise OSError(f"what is read from {self.url}/{name} has another SHA-256 than its commit says")

    def sha256(self, name: str) -> str:
        """Hash of a file."""

        def hashed() -> str:
            digest = hashlib.sha256()
            for chunk in self._chunks(name):
                digest.update(chunk)
            return digest.hexdigest()

        return self._patiently(name, hashed)

    def put(self, name: str, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Write a file so that nobody ever sees a part of it under its name.

        Args:
            name: of the file, as `<stage>/<name>`.
            chunks: gives its bytes from the beginning, each time it is called. In an object store, what it gave before it
                failed may become the object; hash beforehand what is to be trusted.
        """
        self._patiently(name, lambda: self._put(name, chunks()))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{name}")

    def _chunks(self, name: str) -> Iterator[bytes]:
        with self._files.open(f"{self._root}/{name}", "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def _put(self, name: str, chunks: Iterable[bytes]) -> None:
        folder, _, last = f"{self._root}/{name}".rpartition("/")
        if not self.renames:
            self._write(f"{folder}/{last}", chunks)
            return
        self._files.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{last}.{uuid.uuid4().hex}.tmp"
        try:
            self._write(temporary, chunks)
            try:
                self._files.mv(temporary, f"{folder}/{last}")
            except FileNotFoundError as error:  # a publisher that ended took it for a killed one's: worth another try
                raise OSError(f"somebody removed {temporary}") from error
        except BaseException:
            with suppress(OSError):
                self._files.rm_file(temporary)
            raise
        if self.is_local:
            sync_folder(Path(folder))

    def _write(self, path: str, chunks: Iterable[bytes]) -> None:
        with self._files.open(path, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            if self.is_local:
                file.flush()
                os.fsync(file.fileno())

    def _patiently(self, name: str, call: Callable[[], T]) -> T:
        """Do something, again after growing pauses where that may help.

        Raises:
            StageError: it does not help.
        """
        for pause in (*PAUSES_S, None):
            try:
                return call()
            except CrossposeError:
                raise
            except Exception as error:  # the errors of a store are its own, and often no OSError
                problem = str(error) or type(error).__name__
                refused = (
                    isinstance(error, FileNotFoundError | PermissionError)
                    or getattr(error, "errno", None) in _FINAL
                    or _REFUSED.search(problem)
                )
                if refused or pause is None:
                    raise StageError(
                        f"this cannot be copied: {problem}",
                        where=f"{self.url}/{name}",
                        hint="check the address, the network, the room and the credentials (from the environment, such as "
                        "AWS_PROFILE), then run the same command to go on",
                    ) from error
                logger.info("%s/%s: %s; trying again in %.1f s", self.url, name, problem, pause)
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")


def _open(scheme: str, rest: str) -> tuple[Any, str]:
    """A file system of fsspec, and the path in it."""
    from fsspec.core import url_to_fs
    from fsspec.implementations.arrow import ArrowFSWrapper

    where = f"{scheme}://{rest}"
    if scheme in ("s3", "s3a"):
        bucket = rest.partition("/")[0]
        try:
            return ArrowFSWrapper(connect_s3(bucket, tries=_S3_TRIES), skip_instance_cache=True), rest
        except OSError as error:
            raise StageError(
                f"the bucket cannot be found: {error}", where=where, hint="check its name, or set AWS_REGION"
            ) from error
    try:
        files, path = url_to_fs(where, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise StageError(
            f"nothing here opens {scheme}://: {error}",
            where=where,
            hint="install its package for fsspec, such as gcsfs",
        ) from error
    return files, str(path)
