"""From raw datasets to frames: which recordings a recipe takes, what tells one state of them from another, and their frames."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from manifests import table as tables
from manifests.errors import SourceError
from manifests.files import stamp_of
from manifests.recipes import fingerprint
from manifests.splits import assign
from manifests.types import Reason, Reject, Split
from pipeline.progress import watch
from pipeline.recipes import DATASETS, BuildRecipe, SourceRecipe
from pipeline.sources.base import STAGE, Recording, Source

logger = logging.getLogger(__name__)

# Clocks, calibrations and notes: a change of one number in them must not pass unseen because the size stayed.
_READ_WHOLE = {".csv", ".dat", ".json", ".toml", ".txt", ".xml", ".yaml", ".yml"}


@dataclass(frozen=True, slots=True)
class RecordingWork:
    """One recording that is to be listed, and the split that it goes to."""

    source: SourceRecipe
    recording: Recording
    split: Split

    @property
    def unit(self) -> str:
        """Names the unit. Datasets use one name again in another split of their own."""
        own = [self.split] if self.recording.split else []
        return "-".join([self.source.name, *own, self.recording.sequence])


def find_recordings(
    recipe: BuildRecipe, roots: dict[str, Path], build: Callable[[SourceRecipe], Source]
) -> list[RecordingWork]:
    """The recordings that a recipe takes, source after source, each with its split.

    Args:
        recipe: of the build.
        roots: of each source.
        build: makes a source.

    Raises:
        SourceError: a root is not of its source's layout, or holds nothing of the splits that are wanted.
    """
    found: list[tuple[SourceRecipe, Recording, Split | None]] = []
    for source in recipe.sources:
        built, root = build(source), roots[source.name]
        watch(f"reading the annotations of {source.name}", built.prepare(root))
        there = built.recordings(root)
        taken = [one for one in there if one.split is None or one.split in source.splits]
        wanted = ", ".join(source.splits)
        if len(taken) < len(there):
            left_out = len(there) - len(taken)
            logger.info(
                "%s: %d of %d recordings are of other splits than %s", source.name, left_out, len(there), wanted
            )
        if not taken:
            raise SourceError(
                f"none of {len(there)} recordings is of split {wanted}",
                where=root,
                hint="name other `splits` in the recipe, or give the folder of the other split",
            )
        found += [(source, one, _own_split(source, one, there)) for one in taken]
    held_out = recipe.split
    free = [recording.group for _, recording, split in found if split is None]
    splits = assign(free, seed=recipe.seed, val_groups=held_out.val_groups, val_share=held_out.val_share)
    return [RecordingWork(source, one, split or splits[one.group]) for source, one, split in found]


def states_of(found: list[RecordingWork], roots: dict[str, Path]) -> dict[str, str]:
    """By unit, what tells one state of its recording from another: a hash of what `_listing` saw."""
    states: dict[str, str] = {}

    def look() -> Iterator[tuple[int, int]]:
        for number, work in enumerate(found, start=1):
            states[work.unit] = fingerprint(_listing(roots[work.source.name], work.recording))
            yield number, len(found)

    watch("looking for what has changed", look())
    return states


def list_frames(source: Source, root: Path, work: RecordingWork) -> tuple[pa.Table, list[Reject]]:
    """The frames of one recording that the recipe takes, and what was left out, in keys that begin with the source.

    Raises:
        SourceError: a file does not parse, or there is nothing at all.
    """
    scan = source.scan(root, work.recording, split=work.split)
    frames = tables.from_rows("frames", scan.frames) if isinstance(scan.frames, list) else scan.frames
    if not frames.num_rows and not scan.rejects:
        raise SourceError("the recording holds no frame", where=root / work.recording.sequence, hint="remove it")
    name = work.source.name
    place = f"{name}/{work.split}/{work.recording.sequence}/"
    rejects = [r if r.key.startswith(place) else replace(r, key=f"{name}/{r.key}") for r in scan.rejects]
    for flag in work.source.without:
        bad = tables.has_flag(frames.column("flags"), flag)
        keys = frames.column("key").filter(pa.array(bad)).to_pylist()
        rejects += [Reject(STAGE, key, Reason.FLAGGED, f"the recipe leaves out `{flag}`") for key in keys]
        frames = frames.filter(pa.array(~bad))
    return frames, rejects


def _own_split(source: SourceRecipe, recording: Recording, there: list[Recording]) -> Split | None:
    """A recording's own split; None where the recipe decides, as it does of whom to hold out of a dataset without `val`."""
    has_val = source.kind not in DATASETS or any(one.split is Split.VAL for one in there)
    return recording.split if has_val or recording.split is not Split.TRAIN else None


def _listing(root: Path, recording: Recording) -> list[list[str | int]]:
    """Sizes of a recording's media, content of its text files, and the names in its folder."""
    listing: list[list[str | int]] = []
    for name, size in recording.files:
        path = root / name
        whole = path.suffix.lower() in _READ_WHOLE
        listing.append([name, _stamp(path, size, path.stat().st_mtime_ns) if whole else size])
    if recording.folder:
        folder = root / recording.folder
        # A recording may be several folders of one beginning: SB10, SB11, ... for SB1.
        folders = [folder] if folder.is_dir() else sorted(folder.parent.glob(f"{folder.name}?"))
        names = "\n".join(sorted(name for one in folders for name in _names_below(str(one))))
        listing.append([recording.folder, hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()])
    return listing


@lru_cache(maxsize=4096)  # annotations that thousands of recordings share are read once
def _stamp(path: Path, _size: int, _modified_ns: int) -> str:
    return stamp_of(path)


def _names_below(folder: str) -> Iterator[str]:
    """Names of the files in a folder and those below it, by no more than listing them."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    yield from (f"{entry.name}/{name}" for name in _names_below(entry.path))
                else:
                    yield entry.name
    except OSError as error:
        logger.warning("%s cannot be listed: %s", folder, error.strerror)
