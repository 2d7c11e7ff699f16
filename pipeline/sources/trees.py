"""What the sources of image trees share: finding the dataset's folder, and listing images by the thousand."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.errors import SourceError
from manifests.types import Reason, Reject
from pipeline.media import is_image, probe
from pipeline.sources.base import STAGE

MAX_FOLDERS = 64  # a folder of more holds recordings, not datasets
MAX_PROBED = 8  # images whose headers are tried for a sequence's size


def find_home(root: Path, is_home: Callable[[Path], bool]) -> Path | None:
    """The dataset's folder: the root, or a folder one or two levels below it (a parent was given, or a zip made a level)."""
    level = [root]
    for _ in range(3):
        found = next((folder for folder in level if is_home(folder)), None)
        if found is not None:
            return found
        level = [below for folder in level for below in _few_folders(folder)]
    return None


def unwrapped(folder: Path) -> Path:
    """`x/x` where a zip made a level of its own, else `x`."""
    inner = folder / folder.name
    return inner if inner.is_dir() else folder


def list_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones are left out, and none are in one that is not there.

    Raises:
        SourceError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unlisted(folder, error) from error


def list_named(folder: Path, pattern: str) -> tuple[pa.StringArray, int]:
    """The files of a folder whose names match a pattern (of RE2, whole name), in any order, and how many other images there are.

    Raises:
        SourceError: the folder cannot be listed.
    """
    try:
        listed = os.listdir(folder)  # noqa: PTH208 - names are enough, and there may be a million of them
    except OSError as error:
        raise _unlisted(folder, error) from error
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


def below(folder: str, names: pa.StringArray) -> Any:
    """(n,) paths of the files of a folder that lies below the root."""
    return pc.binary_join_element_wise(folder, names, "/").to_numpy(zero_copy_only=False)


def image_size(folder: Path, names: pa.StringArray) -> tuple[int, int] | None:
    """Width and height of the first image whose header can be read, px; None: not one of the first few."""
    for name in pc.bottom_k_unstable(names, MAX_PROBED) if len(names) else []:
        try:
            media = probe(folder / names[name.as_py()].as_py())
        except SourceError:
            continue
        return media.width, media.height
    return None


def nothing_seen(place: str, num_images: int) -> Reject:
    """The reject of a folder for which `image_size` gave None."""
    if not num_images:
        return Reject(STAGE, place, Reason.MISSING, "the folder holds no image of its recording")
    return Reject(STAGE, place, Reason.UNREADABLE, f"{num_images} images: none can be read")


def _few_folders(folder: Path) -> list[Path]:
    try:
        found = [folder / name for name in list_folders(folder)]
    except SourceError:  # what may not be listed is not looked into
        return []
    return found if len(found) <= MAX_FOLDERS else []


def _unlisted(folder: Path, error: OSError) -> SourceError:
    return SourceError(
        f"the folder cannot be listed: {error.strerror}", where=folder, hint="check its permissions and the disk"
    )
