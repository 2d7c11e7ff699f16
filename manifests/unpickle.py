"""Reads the Python 2 pickles of old datasets without running anything that they ask for.

3DPW, AIST++, HO3D, SMPL and MANO ship pickles, and a pickle may name any function and have it called. This reader knows a
dozen names; each stands for a function of this module, never for the one that was named. Anything else is refused by
name. numpy's own `__setstate__` is not called either: it trusts the sizes that a pickle states.

- `numpy` arrays, scalars and dtypes are built anew through numpy's public functions, sizes checked.
- `scipy.sparse` matrices stored by columns become `SparseColumns`, which needs no scipy.
- `chumpy` objects become `Inert`: the state can be read (`state["x"]` is the array), nothing can be called.

What a pickle may grow to in arrays and bytes is bound by the size of its file.
"""

import io
import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt

from manifests.errors import SourceError

_MAX_FILE_BYTES = 2 << 30
_MAX_DENSE_VALUES = 1 << 27
_GROWTH = 16  # an object array takes 8 bytes per item, and the shortest item takes one byte of pickle
_DTYPE_CODE = re.compile(r"[?]|[biufcSUVO]\d{0,10}")

# What a damaged stream of opcodes can raise, beside a refusal.
_DAMAGE = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError,
    RuntimeError, BufferError, Warning, struct.error,
)  # fmt: skip


@dataclass(slots=True, eq=False)
class Inert:
    """What is left of an object whose class is not imported.

    Args:
        name: the class as the pickle names it, such as "chumpy.ch.Ch".
        args: what its constructor would have got.
        state: its attributes, as a rule a dict; None when the pickle gives none.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class SparseColumns:
    """A `scipy.sparse.csc_matrix`: values of column j are `data[indptr[j]:indptr[j + 1]]`, in rows `indices[...]`.

    Raises:
        ValueError: the parts do not fit together.
    """

    data: npt.NDArray[Any]
    indices: npt.NDArray[Any]
    indptr: npt.NDArray[Any]
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        rows, columns = self.shape
        parts = (self.data, self.indices, self.indptr)
        if any(part.ndim != 1 or part.dtype.kind not in "biuf" for part in parts):
            raise ValueError("a sparse matrix is made of three flat arrays of numbers")
        if rows < 0 or columns < 0 or rows * columns > _MAX_DENSE_VALUES:
            raise ValueError(f"a sparse matrix of {rows} x {columns} values")
        ends = self.indptr.astype(np.int64)
        if len(ends) != columns + 1 or ends[0] != 0 or ends[-1] > len(self.data) or (np.diff(ends) < 0).any():
            raise ValueError("the columns of a sparse matrix do not follow one another")
        rows_used = self.indices[: ends[-1]]
        if len(rows_used) < ends[-1] or (len(rows_used) and not 0 <= rows_used.min() <= rows_used.max() < rows):
            raise ValueError("a sparse matrix names rows that it does not have")

    def toarray(self) -> npt.NDArray[Any]:
        """All values, zeros included, of `shape`."""
        dense = np.zeros(self.shape, self.data.dtype)
        columns = np.repeat(np.arange(self.shape[1]), np.diff(self.indptr))
        np.add.at(dense, (self.indices[: len(columns)], columns), self.data[: len(columns)])
        return dense


@dataclass(slots=True, eq=False)
class _Unbuilt:
    """A thing that a pickle has begun and will BUILD from a state: until then, only this stands on the stack."""

    build: Callable[[Any], Any]
    built: Any = None


@dataclass(slots=True)
class _Budget:
    """Bytes that may still be made: memo and copies let a few bytes of pickle ask for gigabytes."""

    bytes_left: int

    def take(self, num_bytes: int) -> None:
        self.bytes_left -= num_bytes
        if self.bytes_left < 0:
            raise ValueError("grows far beyond the size of its file")


class _Memo(dict[int, Any]):
    """What GET brings back: the built thing, although PUT came before BUILD."""

    def __getitem__(self, key: int) -> Any:
        value = super().__getitem__(key)
        return value.built if isinstance(value, _Unbuilt) and value.built is not None else value


def read_pickle(path: Path) -> Any:
    """Read a dataset's pickle of protocol 0 to 5; byte strings of Python 2 come as latin-1 `str`.

    Raises:
        SourceError: the file is absent, cut short or no pickle, or asks for something that datasets do not hold.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return _load(file, size, path)
    except OSError as error:
        raise SourceError(f"cannot read {path.name}: {error.strerror}", where=path, hint="check the path") from error


def loads_pickle(data: bytes, where: str | Path = "a pickle") -> Any:
    """The same for bytes; `where` names them in errors."""
    return _load(io.BytesIO(data), len(data), Path(where))


def _load(file: BinaryIO, size: int, where: Path) -> Any:
    if size > _MAX_FILE_BYTES:
        raise SourceError(
            f"{where.name} has {size / 2**30:.1f} GiB, more than a dataset's pickle has (2 GiB)",
            where=where,
            hint="check that it is the right file",
        )
    try:
        result = _Reader(file, size, where).load()
    except _DAMAGE as error:
        raise SourceError(
            f"{where.name} does not read as a pickle of arrays: {_printable(str(error) or type(error).__name__)}",
            where=where,
            hint="download it again: it may be cut short, or a web page saved under this name",
        ) from error
    if isinstance(result, _Unbuilt):
        raise SourceError(f"{where.name} ends in the middle of an object", where=where, hint="download it again")
    return result


class _Reader(pickle._Unpickler):
    # The Python one, not the C one: there, extension codes and BUILD cannot be taken over.
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    memo: dict[int, Any]
    stack: list[Any]

    def __init__(self, file: BinaryIO, size: int, where: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._file_readline = partial(_whole_line, file)
        self.memo = _Memo()
        self._where = where
        budget = _Budget(_GROWTH * size + (1 << 16))
        array = partial(_new_array, budget)
        self._known: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Unbuilt(partial(_array_from_state, budget)),
            ("numpy.core.multiarray", "scalar"): lambda dtype, data: array(data, dtype, (), "C")[()],
            ("numpy.core.numeric", "_frombuffer"): array,
            ("numpy", "dtype"): lambda code, *_: _Unbuilt(partial(_dtype_from_state, code)),
            ("_codecs", "encode"): partial(_encode, budget),
            ("builtins", "bytes"): lambda: b"",  # how Python 3 writes an empty array at protocols 0 to 2
            ("builtins", "set"): lambda items=(): set(_checked(items, list)),
            ("copyreg", "_reconstructor"): lambda cls, *_: cls(),
        }

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of an allowed name."""
        if module.partition(".")[0] == "chumpy":
            return partial(_inert, f"{module}.{name}")
        if (module, name) in _MARKERS:
            return partial(_inert, f"{module}.{name}")
        if (module, name) in _CSC_MATRICES:
            return _sparse
        known = self._known.get((_MODULES.get(module, module), name))
        if known is None:
            asked = _printable(f"{module}.{name}")
            raise SourceError(
                f"refused: {self._where.name} asks to import {asked}; not a dataset pickle",
                where=self._where,
                hint="get the file from its publisher, and never open this one with `pickle.load`: it could run code",
            )
        return known

    def get_extension(self, code: int) -> None:
        """Refuse a code: what the process has registered is none of the file's business."""
        raise pickle.UnpicklingError(f"uses the extension code {code}")

    def load_newobj(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self.stack[-1](*args)

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.state = state
        else:
            unbuilt = _checked(target, _Unbuilt)
            self.stack[-1] = unbuilt.built = unbuilt.build(state)

    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.BUILD[0]] = load_build
    del dispatch[pickle.NEWOBJ_EX[0]]


# Where the names of `_Reader._known` were, or are now.
_MODULES = {
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
}
# Classes that are only handed on as an argument.
_MARKERS = {("numpy", "ndarray"), ("__builtin__", "object"), ("builtins", "object")}
_CSC_MATRICES = {("scipy.sparse.csc", "csc_matrix"), ("scipy.sparse._csc", "csc_matrix")}


def _whole_line(file: BinaryIO) -> bytes:
    """A line; the Python unpickler would take half a name for a name."""
    line = file.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return line


def _inert(name: str, *args: Any) -> Inert:
    return Inert(name, args)


def _sparse(*_: Any) -> _Unbuilt:
    return _Unbuilt(_sparse_from_state)


def _sparse_from_state(state: Any) -> SparseColumns:
    state = _checked(state, dict)
    rows, columns = _checked(state["_shape"] if "_shape" in state else state["shape"], tuple)
    data, indices, indptr = (_checked(state[name], np.ndarray) for name in ("data", "indices", "indptr"))
    return SparseColumns(data, indices, indptr, (int(rows), int(columns)))


def _dtype_from_state(code: Any, state: Any) -> np.dtype[Any]:
    """A dtype from (version, byte order, subarray, names, fields, bytes per item, ...), the layout since numpy 1.0."""
    _, order, subarray, names, fields, num_bytes, *_ = _checked(state, tuple)
    if subarray is not None:
        base, shape = subarray
        of_many: np.dtype[Any] = np.dtype((_checked(base, np.dtype), _shape(shape)))
        return of_many
    if names is not None:
        parts = [_checked(fields, dict)[name] for name in _checked(names, tuple)]
        formats = [_checked(part[0], np.dtype) for part in parts]
        if any(part.hasobject for part in formats):
            raise ValueError("a table with object columns")
        offsets = [_checked(part[1], int) for part in parts]
        titles = [part[2] if len(part) > 2 else None for part in parts]
        layout = {"names": list(names), "formats": formats, "offsets": offsets, "titles": titles, "itemsize": num_bytes}
        return np.dtype(layout)  # type: ignore[call-overload,no-any-return]
    if not _DTYPE_CODE.fullmatch(_checked(code, str)) or order not in ("<", ">", "|", "="):
        raise ValueError(f"a dtype {order!r}{code!r}")
    simple: np.dtype[Any] = np.dtype(code)
    return simple.newbyteorder(order)


def _array_from_state(budget: _Budget, state: Any) -> npt.NDArray[Any]:
    """An array from (version, shape, dtype, is in Fortran's order, bytes or list of items)."""
    *_, shape, dtype, is_fortran, items = _checked(state, tuple)
    if _checked(dtype, np.dtype).kind != "O":
        return _new_array(budget, items, dtype, shape, "F" if is_fortran else "C")
    items, shape = _checked(items, list), _shape(shape)
    budget.take(8 * len(items))
    if len(items) != np.prod(shape, dtype=object):
        raise ValueError(f"an array of {len(items)} objects, shape {shape}")
    objects = np.empty(len(items), object)
    for index, item in enumerate(items):
        objects[index] = item
    return objects.reshape(shape)


def _new_array(budget: _Budget, data: Any, dtype: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    dtype, shape = _checked(dtype, np.dtype), _shape(shape)
    if dtype.hasobject:
        raise ValueError("objects where numbers are due")
    raw = data.encode("latin1") if isinstance(data, str) else _checked(data, (bytes, bytearray))
    budget.take(len(raw))
    count = int(np.prod(shape, dtype=object))
    if len(raw) != count * dtype.itemsize or count > len(raw):
        raise ValueError(f"{len(raw)} bytes for an array of {dtype}, shape {shape}")
    # An array of its own: `frombuffer` alone is a read-only view, and refuses to be empty.
    array = np.empty(shape, dtype, order)
    if count:
        array[...] = np.frombuffer(raw, dtype, count).reshape(shape, order=order)
    return array


def _encode(budget: _Budget, text: Any, encoding: Any) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes encoded as {encoding!r}")
    budget.take(len(_checked(text, str)))
    return text.encode("latin1")  # type: ignore[no-any-return]


def _shape(shape: Any) -> tuple[int, ...]:
    if any(_checked(size, int) < 0 for size in _checked(shape, tuple)):
        raise ValueError(f"a shape {shape}")
    return shape  # type: ignore[no-any-return]


def _checked(value: Any, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"holds a {type(value).__name__} where something else is due")
    return value


def _printable(text: str) -> str:
    """Text of a stranger's file, fit for a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:120]
