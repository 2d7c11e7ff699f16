"""What a source is: a raw dataset on disk that lists its frames, without decoding a pixel."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from manifests.types import Reject, Split
from pipeline.recipes import SourceRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One sequence of a source: the unit of ingest and crop.

    Attributes:
        sequence: key part, unique in the source.
        group: subject or recording that must not be in two splits.
        split: the dataset's own split, or None when the recipe decides.
        files: paths below the root that belong to it, sorted, with their sizes in bytes; part of the fingerprint.
    """

    sequence: str
    group: str
    split: Split | None
    files: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """What one recording holds: rows of the `frames` table (mappings of column to value), and what was left out."""

    frames: list[dict[str, Any]]
    rejects: list[Reject]


class Source(Protocol):
    """A raw dataset's layout.

    A source is built from its recipe; `recordings` says what is under a root (cheap: directory listings and small
    files), `scan` lists the frames of one recording (headers only).
    """

    recipe: SourceRecipe

    def recordings(self, root: Path) -> list[Recording]:
        """List the recordings under a root, sorted by sequence.

        Raises:
            SourceError: the root is missing or is not of this layout.
        """
        ...

    def scan(self, root: Path, recording: Recording, *, split: Split) -> Scan:
        """List the frames of one recording.

        Raises:
            SourceError: a calibration or timestamps file does not parse.
        """
        ...
