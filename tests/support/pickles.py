"""Pickles as Python 2 and the numpy of its days wrote them: what 3DPW, AIST++, HO3D, SMPL and MANO ship."""

import io
import pickle
import struct
from typing import Any, ClassVar

_OLD_MODULES = {"numpy._core": "numpy.core", "scipy.sparse._csc": "scipy.sparse.csc", "builtins": "__builtin__"}


class _Python2Pickler(pickle._Pickler):
    """Protocol 2, `str` and `bytes` as byte strings, modules under their old names. Names need not exist."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

    def save_bytes(self, data: bytes) -> None:
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)

    def save_text(self, text: str) -> None:
        try:
            self.save_bytes(text.encode("latin1"))
        except UnicodeEncodeError:
            self.save_str(text)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = obj.__module__
        for new, old in _OLD_MODULES.items():
            if module == new or module.startswith(f"{new}."):
                module = old + module[len(new) :]
        self.write(pickle.GLOBAL + f"{module}\n{name or obj.__qualname__}\n".encode())
        self.memoize(obj)

    dispatch[bytes] = save_bytes
    dispatch[str] = save_text
    dispatch[type] = save_global


def python2_pickle(value: Any) -> bytes:
    """Bytes of a pickle by Python 2: load it with encoding latin-1 and `str` comes back as `str`, arrays as arrays.

    A `str` beyond latin-1 is written as Python 2's `unicode`. A class is only named, so that
    `type("Ch", (), {"__module__": "chumpy.ch"})` makes a pickle of chumpy without chumpy.
    """
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()
