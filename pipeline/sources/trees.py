"""What the sources of datasets share: finding the folder, listing images by the thousand, reading small files, counting rejects."""

import json
import os
import re
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from manifests.errors import SourceError
from manifests.types import Reason, Reject
from pipeline.media import is_image, probe
from pipeline.sources.base import STAGE
from pipeline.sources.layout import may_search, pass_over, require_folder

MAX_FOLDERS = 64  # a folder of more holds recordings, not datasets
MAX_PROBED = 8  # images whose headers are tried for a sequence's size
MAX_TEXT_BYTES = 64 << 20
_PLURAL = re.compile(r"(images|frames|pictures|videos)\b(?:([^:;,]*?) (are|have|say)\b)?")
_SINGULAR = {"are": "is", "have": "has", "say": "says"}

_P = ParamSpec("_P")
_T = TypeVar("_T")


def find_home(root: Path, is_home: Callable[[Path], bool]) -> Path | None:
    """The dataset's folder: the root, or a folder one or two levels below it (a parent was given, or a zip made a level)."""
    level = [root]
    for _ in range(3):
        found = next((folder for folder in level if _is(folder, is_home)), None)
        if found is not None:
            return found
        level = [below for folder in level for below in _few_folders(folder)]
    return None


def require_home(root: Path, is_home: Callable[[Path], bool], what: str, hint: str | Callable[[Path], str]) -> Path:
    """The dataset's folder, see `find_home`.

    Args:
        root: where it is looked for.
        is_home: whether a folder is it.
        what: to say when none is.
        hint: what to do then; or a function that tells it of the root.

    Raises:
        SourceError: the root is no folder, or the dataset is not there.
    """
    require_folder(root)
    home = find_home(root, is_home)
    if home is None:
        raise SourceError(what, where=root, hint=hint if isinstance(hint, str) else hint(root))
    return home


def unwrapped(folder: Path) -> Path:
    """`x/x` where a zip made a level of its own, else `x`."""
    inner = folder / folder.name
    return inner if inner.is_dir() else folder


def list_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones and those that macOS adds to zips are left out; none are in one that is not there.

    Raises:
        SourceError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
            return [name for name in names if name != "__MACOSX"]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unlisted(folder, error) from error


def list_names(folder: Path) -> list[str]:
    """Names of all that is in a folder, in any order.

    Raises:
        SourceError: the folder cannot be listed.
    """
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are enough, and there may be a million of them
    except OSError as error:
        raise _unlisted(folder, error) from error


def list_named(folder: Path, pattern: str) -> tuple[pa.StringArray, int]:
    """The files of a folder whose names match a pattern (of RE2, whole name), in any order, and how many other images there are.

    Raises:
        SourceError: the folder cannot be listed.
    """
    listed = list_names(folder)
    try:
        names = pa.array(listed, pa.string())
    except UnicodeEncodeError:  # a name that is no text
        names = pa.array([name.encode(errors="replace").decode() for name in listed], pa.string())
    fits = pc.match_substring_regex(names, f"^(?:{pattern})$")
    odd = names.filter(pc.invert(fits)).to_pylist()
    return names.filter(fits), sum(is_image(Path(name)) for name in odd)


def numbers_of(names: pa.StringArray, start: int, stop: int) -> Any:
    """The (n,) integers at some place of names; `stop` may count from the end."""
    return pc.utf8_slice_codeunits(names, start, stop).cast(pa.int64()).to_numpy()


def below(folder: str, names: pa.StringArray) -> pa.StringArray:
    """(n,) paths of the files of a folder that lies below the root."""
    return pc.binary_join_element_wise(folder, names, "/")


def image_size(folder: Path, names: pa.StringArray) -> tuple[int, int] | None:
    """Width and height of the first image whose header can be read, px; None: not one of the first few."""
    for name in pc.bottom_k_unstable(names, MAX_PROBED) if len(names) else []:
        try:
            media = probe(folder / names[name.as_py()].as_py())
        except SourceError:
            continue
        return media.width, media.height
    return None


def counted(place: str, *left_out: tuple[int, Reason, str]) -> list[Reject]:
    """What is left out of a place: (of how many frames, why, what to say of them), of each that there are any."""
    return [Reject(STAGE, place, reason, numbered(count, what), count) for count, reason, what in left_out if count > 0]


def numbered(count: int, what: str) -> str:
    """A count and what is said of its plural: `3 images are gone`, and so `1 image is gone`."""
    if count == 1 and (plural := _PLURAL.match(what)):
        noun, between, verb = plural.groups()
        what = noun[:-1] + (f"{between} {_SINGULAR[verb]}" if verb else "") + what[plural.end() :]
    return f"{count} {what}"


def nothing_seen(place: str, num_images: int) -> list[Reject]:
    """The reject of a folder for which `image_size` gave None."""
    what = f"images: none of the first {min(num_images, MAX_PROBED)} can be read"
    return counted(place, (num_images, Reason.UNREADABLE, what)) or [
        Reject(STAGE, place, Reason.MISSING, "the folder holds no image of its recording")
    ]


def read_text(path: Path, hint: str, *, most_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a file of text that is not large.

    Args:
        path: of the file.
        hint: what to do when it does not read.
        most_bytes: that it may have.

    Raises:
        SourceError: it is not there, is no text, or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
        if len(data) > most_bytes:
            raise ValueError(f"it is larger than {most_bytes >> 20} MiB")
        return data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise unparsed(path, error, hint) from error


def read_json(path: Path, hint: str) -> Any:
    """Read a JSON file that is not large; see `read_text`."""
    text = read_text(path, hint)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unparsed(path, error, hint) from error


def unparsed(path: Path, why: Exception | str, hint: str, *, says: str = "does not parse") -> SourceError:
    """The error of a file that does not read, or holds something else than it should; its first line names no folder."""
    return SourceError(f"{path.name} {says}: {saying(why)}", where=path, hint=hint)


def saying(why: Exception | str) -> str:
    """What an error says, in a line; one of a missing key gives the key alone."""
    if isinstance(why, KeyError):
        return f"key {why.args[0] if why.args else ''} is missing"
    return (why.strerror if isinstance(why, OSError) else " ".join(str(why).split())) or type(why).__name__


def misfit(path: Path, key: str, value: Any, wanted: str) -> SourceError:
    """The error of a label file that has something else at some key than is wanted there."""
    return SourceError(f"{key} is {value!r:.60}, not {wanted}", where=path, hint="get the label file again")


def remembered(most: int) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Remember what a function read of its `most` latest files, until these change."""

    def decorate(read: Callable[_P, _T]) -> Callable[_P, _T]:
        answer: Callable[..., _T] = lru_cache(most)(lambda _states, *args, **named: read(*args, **named))

        @wraps(read)
        def ask(*args: _P.args, **named: _P.kwargs) -> _T:
            return answer(tuple(_state(path) for path in args if isinstance(path, Path)), *args, **named)

        return ask

    return decorate


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # whoever reads it says so
    return status.st_size, status.st_mtime_ns


def _is(folder: Path, is_home: Callable[[Path], bool]) -> bool:
    try:
        return is_home(folder)
    except (PermissionError, SourceError):  # something in it may not be listed
        pass_over(folder)
        return False


def _few_folders(folder: Path) -> list[Path]:
    try:
        found = [folder / name for name in list_folders(folder)]
    except SourceError:  # what may not be listed is not looked into
        return []
    return [below for below in found if may_search(below)] if len(found) <= MAX_FOLDERS else []


def _unlisted(folder: Path, error: OSError) -> SourceError:
    return SourceError(
        f"the folder cannot be listed: {error.strerror}", where=folder, hint="check its permissions and the disk"
    )
