"""Streams the items of a JSON file of any size in bounded memory.

InterHand's annotations are one file of several gigabytes, `{"images": [...], "annotations": [...]}`: read whole, its objects
would take more memory than a machine has. Here the file passes through a window of text, and json's own scanner takes one
item at a time out of it. Values that nobody asked for are passed over in the same way, item by item.
"""

import codecs
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NoReturn

from manifests.errors import SourceError

_WINDOW_BYTES = 1 << 20
_MAX_ITEM_BYTES = 64 << 20

_SPACE = re.compile(r"[ \t\n\r]*")
_scan = json.JSONDecoder().raw_decode
# Letters at a window's end that may read wrongly because the rest is missing: of a literal ("-Infinit") or an escape, and
# after what looks like a whole number ("e+" of "1e+5").
_LONGEST_CUT = 12
_LONGEST_EXPONENT = 2


def iter_items(path: Path, key: str, *, max_item_bytes: int = _MAX_ITEM_BYTES) -> Iterator[Any]:
    """Items of the array under one key of the top-level object, in the file's order.

    Args:
        path: a JSON file in UTF-8.
        key: where the array is; the first of its name counts.
        max_item_bytes: length of text at which an item is taken for damage, not only of this array.

    Raises:
        SourceError: the file is absent, cut short or not JSON, has no such array, or has an item that is too long.
    """
    with _Window(path, max_item_bytes) as window:
        window.seek_key(key)
        yield from window.items()


def iter_members(
    path: Path, key: str | None = None, *, max_item_bytes: int = _MAX_ITEM_BYTES
) -> Iterator[tuple[str, Any]]:
    """Names and values of the top-level object, or of the object under one of its keys; each value is decoded whole.

    Arguments and errors are those of `iter_items`.
    """
    with _Window(path, max_item_bytes) as window:
        if key is not None:
            window.seek_key(key)
        yield from window.members()


def iter_arrays(
    path: Path, keys: Collection[str], *, max_item_bytes: int = _MAX_ITEM_BYTES
) -> Iterator[tuple[str, Any, int]]:
    """Items of several arrays of the top-level object in one pass over the whole file: key, item, bytes done before it.

    Bytes are counted to the begin of the window that the item lies in. Arguments and errors are those of `iter_items`.
    """
    with _Window(path, max_item_bytes) as window:
        yield from window.arrays(keys)


class _Window:
    """A piece of the file as text, and how far it has been used."""

    def __init__(self, path: Path, max_item_bytes: int) -> None:
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise SourceError(
                f"cannot read {path.name}: {error.strerror}", where=path, hint="check the path"
            ) from error
        self._path = path
        self._max_item_bytes = max_item_bytes
        self._text = ""
        self._at = 0  # the next letter, in the text
        self._text_byte = 0  # the text's first letter, in the file
        self._half_letter = b""

    def __enter__(self) -> "_Window":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def seek_key(self, key: str) -> None:
        """Go to the value under a key of the object that begins here."""
        names = []
        for name in self._names():
            if name == key:
                return
            names.append(name)
            self._skip()
        self._fail_lacking(key, names)

    def arrays(self, keys: Collection[str]) -> Iterator[tuple[str, Any, int]]:
        """Key, item and place of the items of some arrays of the object that begins here."""
        names: list[str] = []
        for name in self._names():
            if name in keys and name not in names:
                for item in self.items():
                    yield name, item, self._text_byte
            else:
                self._skip()
            names.append(name)
        for key in keys:
            if key not in names:
                self._fail_lacking(key, names)

    def items(self) -> Iterator[Any]:
        """Values of the array that begins here."""
        self._expect("[")
        if self._next_is("]"):
            return
        while True:
            yield self._value()
            if self._next_is("]"):
                return
            self._expect(",")

    def members(self) -> Iterator[tuple[str, Any]]:
        """Names and values of the object that begins here."""
        for name in self._names():
            yield name, self._value()

    def _names(self) -> Iterator[str]:
        """Names of the object that begins here; the caller takes each value."""
        self._expect("{")
        if self._next_is("}"):
            return
        while True:
            if self._peek() != '"':
                self._fail_expecting("a name")
            name = self._value()
            self._expect(":")
            yield name
            if self._next_is("}"):
                return
            self._expect(",")

    def _skip(self) -> None:
        first = self._peek()
        if first == "[":
            for _ in self.items():
                pass
        elif first == "{":
            for _ in self.members():
                pass
        else:
            self._value()

    def _peek(self) -> str:
        """The next letter that is no space, to be used next; empty at the file's end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # matches even nothing
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def _next_is(self, letter: str) -> bool:
        found = self._peek() == letter
        self._at += found
        return found

    def _expect(self, letter: str) -> None:
        if not self._next_is(letter):
            self._fail_expecting(letter)

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = _scan(self._text, self._at)
            except json.JSONDecodeError as error:
                is_cut = error.pos > len(self._text) - _LONGEST_CUT or error.msg.startswith("Unterminated string")
                if is_cut and self._fill():
                    continue
                self._at = error.pos
                if is_cut:
                    self._fail("is cut short, or damaged at its end")
                self._fail_expecting("JSON")
            except (ValueError, RecursionError) as error:  # an endless number, or a thousand brackets
                self._fail(f"is damaged: {error}")
            else:
                is_closed = self._text[end - 1] in '"]}' or end < len(self._text) - _LONGEST_EXPONENT
                if is_closed or not self._fill():
                    self._at = end
                    return value

    def _fill(self) -> bool:
        """Read more and drop the text that is used; at the file's end, False and all stays as it is."""
        pending = len(self._text) - self._at
        if pending > self._max_item_bytes:
            self._fail(f"has an item of more than {self._max_item_bytes} bytes")
        # As much again as is pending, so that a long item is not scanned once per window.
        new = self._file.read(max(_WINDOW_BYTES, pending))
        data = self._half_letter + new
        try:
            text, used = codecs.utf_8_decode(data, "strict", not new)
        except UnicodeDecodeError as error:
            self._fail("is not UTF-8", at_byte=self._file.tell() - len(data) + error.start)
        if not new:
            return False
        self._half_letter = data[used:]
        self._text_byte += len(self._text[: self._at].encode())
        self._text, self._at = self._text[self._at :] + text, 0
        return True

    def _fail_lacking(self, key: str, names: list[str]) -> NoReturn:
        seen = ", ".join(repr(name) for name in names[:10]) or "none"
        self._fail(f"has no key {key!r}; its keys: {seen}", hint="check that it is the right file of the dataset")

    def _fail_expecting(self, what: str) -> NoReturn:
        found = self._peek()
        if not found:
            self._fail("is cut short")
        self._fail(f"is damaged: expected {what}, found {found!r}")

    def _fail(
        self, what: str, *, at_byte: int | None = None, hint: str = "download it again, or unpack it again"
    ) -> NoReturn:
        if at_byte is None:
            at_byte = self._text_byte + len(self._text[: self._at].encode())
        raise SourceError(f"{self._path.name} {what}", where=f"{self._path}, byte {at_byte}", hint=hint)
