"""Reads MATLAB files, those of version 5 through scipy and those of version 7.3, which are HDF5, through h5py.

The file's header tells the version; names and extensions do not. Both libraries come with the extra `datasets` and are
imported only here, when a file needs them.

|              | version 5 (scipy)                         | version 7.3 (h5py)                             |
|--------------|-------------------------------------------|------------------------------------------------|
| numbers      | array of MATLAB's shape, at least 2-D     | the same                                       |
| text         | array of `str`, one per row               | the same                                       |
| cell array   | object array of MATLAB's shape            | flat list in MATLAB's order, first index first |
| struct       | structured array, a field per member      | dict; members of a struct array are lists      |
"""

import importlib
import math
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from manifests.errors import SourceError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_VERSION_5 = (b"\x00\x01IM", b"\x01\x00MI")
# Of version 5: kinds of elements, and classes of variables. Sparse matrices are left out, because scipy takes their row
# numbers as they come, and so are objects and functions; no dataset here has one.
_FLAGS, _MATRIX, _COMPRESSED = 6, 14, 15
_NUMBERS = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18})
_CELL, _STRUCT = 1, 2
_PLAIN = frozenset({4, *range(6, 16)})  # text and numbers
_IS_COMPLEX = 0x800
_MAX_DEPTH = 32
# What one file may unfold to: an HDF5 array may claim any size and store nothing. Masks of a long H36M video take 6 GiB.
_MAX_BYTES = 8 << 30


def read_mat(path: Path, *, variables: Iterable[str] | None = None) -> dict[str, Any]:
    """Read the variables of a MATLAB file, as in the table above.

    Args:
        path: a file of version 5, 6, 7 or 7.3.
        variables: names of those to read; all by default.

    Raises:
        SourceError: the file is absent, damaged or not MATLAB's, lacks a variable, or its library is not installed.
    """
    names = None if variables is None else list(variables)
    try:
        with path.open("rb") as file:
            head = file.read(512 + len(_HDF5))
    except OSError as error:
        raise SourceError(f"cannot read {path.name}: {error.strerror}", where=path, hint="check the path") from error
    if head.startswith(_HDF5) or head[512:] == _HDF5:
        found = _read_hdf5(path, names)
    elif head[124:128] in _VERSION_5:
        found = _read_version_5(path, names)
    else:
        raise SourceError(
            f"{path.name} is no MATLAB file of version 5 or later: it begins with {head[:16]!r}",
            where=path,
            hint="download it again: it may be cut short, or a web page saved under this name",
        )
    absent = sorted(set(names or ()) - found.keys())
    if absent:
        raise SourceError(
            f"{path.name} has no variable {', '.join(absent)}", where=path, hint="check that it is the right file"
        )
    return found


def _read_version_5(path: Path, names: list[str] | None) -> dict[str, Any]:
    matlab = _library("scipy.io.matlab", path)
    try:
        _check_version_5(path.read_bytes())
        with warnings.catch_warnings():
            warnings.simplefilter("error", matlab.MatReadWarning)  # a variable that does not read
            found: dict[str, Any] = matlab.loadmat(path, appendmat=False, variable_names=names)
    except (
        matlab.MatReadError, Warning, OSError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError,
        RuntimeError, AttributeError, NameError, AssertionError, struct.error, zlib.error,
    ) as error:  # fmt: skip
        raise _damaged(path, error) from error
    return {name: value for name, value in found.items() if name not in ("__header__", "__version__", "__globals__")}


def _check_version_5(data: bytes) -> None:
    """Walk the elements of a file and see that they are those that a variable of its class has.

    scipy 1.17 takes the kind of an element for an index and does not look whether it is one; nor does it stop where the
    parent ends. Without this walk, a damaged file ends the process.

    Source: "MAT-File Format", MathWorks, chapter 1: an element is a kind, a size and a body.

    Raises:
        ValueError: it is not so, or the file unfolds to too much.
    """
    order, bytes_left = ("<" if data[126:128] == b"IM" else ">"), _MAX_BYTES
    for kind, body in _elements(memoryview(data)[128:], order):
        if kind != _COMPRESSED:
            _check_matrix(kind, body, order, _MAX_DEPTH)
            continue
        unfolded = zlib.decompressobj().decompress(body, bytes_left + 1)
        bytes_left -= len(unfolded)
        if bytes_left < 0:
            raise ValueError(f"it unfolds to more than {_MAX_BYTES >> 30} GiB")
        for inner_kind, inner in _elements(memoryview(unfolded), order):
            _check_matrix(inner_kind, inner, order, _MAX_DEPTH)


def _check_matrix(kind: int, body: memoryview, order: str, depth_left: int) -> None:
    if kind != _MATRIX or depth_left == 0:
        raise ValueError(f"an element of kind {kind} where a variable is due" if depth_left else "cells without end")
    if not body:
        return
    (flags_kind, flags), (_, dims), _, *parts = _elements(body, order)
    word, _ = struct.unpack(f"{order}II", flags)
    if flags_kind != _FLAGS or word & 0xFF not in (_CELL, _STRUCT, *_PLAIN):
        raise ValueError(f"a variable of class {word & 0xFF}")
    sizes = np.frombuffer(dims, f"{order}i4")
    num_items = math.prod(sizes.tolist())
    if word & 0xFF in _PLAIN:
        expected = 2 if word & _IS_COMPLEX else 1
        odd = [kind for kind, _ in parts if kind not in _NUMBERS]
        if odd:
            raise ValueError(f"an element of kind {odd[0]} where numbers are due")
    else:
        expected = num_items
        if word & 0xFF == _STRUCT:
            (_, name_bytes), (_, names), *parts = parts
            expected *= len(names) // struct.unpack(f"{order}i", name_bytes)[0]
        for part_kind, part in parts:
            _check_matrix(part_kind, part, order, depth_left - 1)
    if len(parts) != expected or len(sizes) < 2 or (sizes < 0).any():
        raise ValueError(f"{len(parts)} elements for a variable of shape {sizes.tolist()}")


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Kind and body of each element in a row."""
    at = 0
    while at < len(data):
        (kind,) = struct.unpack_from(f"{order}I", data, at)
        if kind >> 16:  # a small one: size and kind share four bytes, the body has the other four
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            end = at + 8
        else:
            (size,) = struct.unpack_from(f"{order}I", data, at + 4)
            start = at + 8
            end = start + size + (-size % 8 if kind != _COMPRESSED else 0)
        if start + size > min(end, len(data)):
            raise ValueError("an element is longer than what it lies in")
        yield kind, data[start : start + size]
        at = end


def _read_hdf5(path: Path, names: list[str] | None) -> dict[str, Any]:
    h5py = _library("h5py", path)
    try:
        with h5py.File(path, "r", locking=False) as file:  # nobody writes it, and not every disk can lock
            present = [name for name in file if not name.startswith("#")]  # "#refs#": the contents of cells
            reader = _Hdf5(h5py, file)
            return {name: reader.member(file, name) for name in present if names is None or name in names}
    except (OSError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError, RuntimeError) as error:
        raise _damaged(path, error) from error


class _Hdf5:
    """Turns HDF5 objects into values, each once: cells may share contents, and a hostile file may run in circles."""

    def __init__(self, h5py: Any, file: Any) -> None:
        self._h5py = h5py
        self._file = file
        self._bytes_left = _MAX_BYTES
        self._values: dict[int, Any] = {}

    def member(self, group: Any, name: str) -> Any:
        if not isinstance(group.get(name, getlink=True), self._h5py.HardLink):
            raise ValueError(f"{name} is a link to elsewhere")
        return self._value(group[name])

    def _value(self, node: Any) -> Any:
        address = self._h5py.h5o.get_info(node.id).addr
        if address not in self._values:
            self._values[address] = _OPEN
            self._values[address] = self._new_value(node)
        if self._values[address] is _OPEN:
            raise ValueError(f"{node.name} contains itself")
        return self._values[address]

    def _new_value(self, node: Any) -> Any:
        if isinstance(node, self._h5py.Group):
            return {name: self.member(node, name) for name in node}
        if not isinstance(node, self._h5py.Dataset):
            raise TypeError(f"{node.name} is neither an array nor a struct")
        if node.external or node.is_virtual:
            raise ValueError(f"{node.name} is stored in another file")
        self._bytes_left -= node.size * node.dtype.itemsize
        if self._bytes_left < 0:
            raise ValueError(f"it unfolds to more than {_MAX_BYTES >> 30} GiB")
        stored = node[()]
        kind = node.attrs.get("MATLAB_class", b"")
        if node.attrs.get("MATLAB_empty", 0):  # what is stored is the shape
            shape = tuple(int(size) for size in stored)
            if 0 not in shape:
                raise ValueError(f"{node.name} is empty and has the shape {shape}")
            return [] if kind == b"cell" else np.zeros(shape, _EMPTY.get(kind, node.dtype))
        if self._h5py.check_ref_dtype(node.dtype) is self._h5py.Reference:
            # HDF5 has the axes reversed, so that its order is MATLAB's.
            return [self._value(self._file[reference]) if reference else None for reference in stored.ravel()]
        if kind == b"char":
            rows = np.atleast_2d(stored.T).astype("<u2")
            return np.array([row.tobytes().decode("utf-16-le", "replace") for row in rows])
        return stored.T


_OPEN = object()
_EMPTY: dict[bytes, str] = {b"double": "f8", b"single": "f4", b"char": "U1"}


def _library(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise SourceError(
            f"{path.name} needs {package} to be read, which is not installed",
            where=path,
            hint="pip install 'crosspose[datasets]'",
        ) from error


def _damaged(path: Path, error: BaseException) -> SourceError:
    what = f"{path.name} does not read as a MATLAB file: {error}"
    return SourceError(what, where=path, hint="download it again: it may be cut short")
