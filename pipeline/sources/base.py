"""What a source is: a raw dataset on disk that lists its frames, without decoding a pixel.

Adding one is a file here and a fixture in the tests: see docs/add-a-source.md.
"""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifests import table as tables
from manifests.errors import RecipeError
from manifests.types import EVERYBODY, BoxFrom, Domain, Reason, Reject, SilhouetteFrom, Split
from pipeline.recipes import SourceRecipe

STAGE = "ingest"

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a person must know of a dataset before using it; `python -m pipeline sources` prints it.

    Attributes:
        title: its name, with the version that is read.
        domains: what it shows; the first is the default of a recipe that does not say.
        tree: what must lie under the root, in a line or two.
        get: where it comes from, and what to download.
        licence: its terms in a few words; travels into every table and shard.
        terms: what may not be done with it, or what is not known of its terms, in a sentence.
        gives: kinds of pairs; where boxes and silhouettes come from.
    """

    title: str
    domains: tuple[Domain, ...]
    tree: str
    get: str
    licence: str
    terms: str
    gives: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """Something by which a dataset's root is known.

    Attributes:
        what: the file or folder, as a person would look for it below the root.
        found: whether it is there.
        needed: whether nothing can be ingested without it.
        hint: where to get it, when it is missing; or what it was found as, when that is unusual.
    """

    what: str
    found: bool
    needed: bool = True
    hint: str = ""

    @classmethod
    def of(cls, what: str, found: object, otherwise: str = "", *, needed: bool = True) -> "Marker":
        """A marker whose hint is for when it is missing: when `found` is None, False or empty."""
        return cls(what=what, found=bool(found), needed=needed, hint="" if found else otherwise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One sequence of a source: the unit of ingest and crop.

    Attributes:
        sequence: key part, unique in the source and split.
        group: subject or recording that must not be in two splits.
        split: the dataset's own split, or None when the recipe decides.
        files: paths below the root that decide what it holds, sorted, with their sizes in bytes; part of the fingerprint. Of
            a tree of images only calibrations and annotations: listing its images is the work of `scan`.
        folder: where it lies, below the root.
    """

    sequence: str
    group: str
    split: Split | None
    files: tuple[tuple[str, int], ...]
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Scan:
    """What one recording holds: its frames (a FRAMES table, or mappings of column to value), and what was left out."""

    frames: pa.Table | list[dict[str, Any]]
    rejects: list[Reject]


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What a dataset's label files say of the subject in one picture, read when the picture is cut.

    Attributes:
        reject: why the picture cannot be used: (reason, detail).
        box_xyxy_px: (4,) in the frame, where the frame's row has none, or a worse one.
        box_from: who found it.
        silhouette: draws the subject: (crop_from_frame (3, 3), size_px) to (size_px, size_px) booleans.
        silhouette_from: who drew it.
    """

    reject: tuple[Reason, str] | None = None
    box_xyxy_px: Floats | None = None
    box_from: BoxFrom = BoxFrom.DATASET
    silhouette: Callable[[Floats, int], Mask] | None = None
    silhouette_from: SilhouetteFrom = SilhouetteFrom.DATASET


class Source(ABC):
    """A raw dataset's layout.

    Its split protocols are `protocols`, where it has several.

    `recordings` says what is under a root (cheap: directory listings and small files), `scan` lists the frames of one
    recording, without decoding pixels. A source is built anew in each worker.

    Args:
        recipe: of this source.
        work: a folder of the build where `prepare` may keep what it derives from very large files; absent until then.
    """

    card: ClassVar[Card]
    protocols: ClassVar[tuple[str, ...]] = ()

    def __init__(self, recipe: SourceRecipe, work: Path | None = None) -> None:
        self.recipe, self.work = recipe, work
        if recipe.domain is not None and Domain(recipe.domain) not in self.card.domains:
            shown = " or ".join(self.card.domains)
            raise RecipeError(
                f"{self.card.title} shows {shown}, not {recipe.domain}",
                where=f"source {recipe.name}: domain",
                hint=f"leave `domain` out, or give {shown}",
            )
        if recipe.protocol is not None and recipe.protocol not in self.protocols:
            known = f"it has {', '.join(self.protocols)}; or leave `protocol` out"
            raise RecipeError(
                f"{self.card.title} has no split protocol{f' `{recipe.protocol}`' if self.protocols else 's'}",
                where=f"source {recipe.name}: protocol",
                hint=did_you_mean(recipe.protocol, self.protocols, known if self.protocols else "leave `protocol` out"),
            )

    @property
    def domain(self) -> Domain:
        """What its images show."""
        return Domain(self.recipe.domain) if self.recipe.domain else self.card.domains[0]

    @property
    def licence(self) -> str:
        """The terms that travel into tables and shards."""
        return self.recipe.licence or self.card.licence

    @abstractmethod
    def look(self, root: Path) -> list[Marker]:
        """Look for the dataset's markers under a root; the first tells whether it is this dataset at all."""

    def prepare(self, root: Path) -> Iterator[tuple[int, int]]:  # noqa: ARG002 - most sources have nothing to prepare
        """Derive what `recordings` and `scan` need from very large files, into `work`; does nothing when it is there.

        Yields:
            bytes (or files) done and in all.
        """
        yield from ()

    @abstractmethod
    def recordings(self, root: Path) -> list[Recording]:
        """List the recordings under a root, sorted by sequence.

        Raises:
            SourceError: the root is missing or is not of this layout.
        """

    @abstractmethod
    def scan(self, root: Path, recording: Recording, *, split: Split) -> Scan:
        """List the frames of one recording.

        Raises:
            SourceError: a calibration, an annotation or a timestamps file does not parse.
        """

    def labels(self, root: Path, row: dict[str, Any]) -> Labels | None:  # noqa: ARG002 - most rows say it all
        """What label files say of the subject of one row of the frames table; None: nothing that the row does not."""
        return None

    def table(
        self,
        recording: Recording,
        split: Split,
        *,
        instant: npt.NDArray[np.int64],
        view: Any,
        media: Sequence[str],
        width: Any,
        height: Any,
        track: Any = EVERYBODY,
        **columns: Any,
    ) -> pa.Table:
        """Build the frames of a recording by columns, in the order of view, instant and track.

        Args:
            recording: whose frames they are.
            split: that it goes to.
            instant: (n,) integers.
            view: key part, or (n,) of them; so are `track` and other columns of one value.
            media: (n,) paths below the root.
            width: px, or (n,).
            height: px, or (n,).
            track: key part, or (n,).
            columns: others of the schema. One value holds for all rows; (n, ...) arrays and sequences hold one a row.
                Matrices, boxes and keypoints are (4,), (3, 3), (4, 4), (J, 3), or those with n rows before; a row that
                holds a NaN, but for keypoints, is null. `flags` is a tuple for all, or a list of n lists.

        Returns:
            FRAMES rows of every `frame_step`-th instant.

        Raises:
            ManifestError: a column does not fit the schema.
        """
        instant = np.asarray(instant, np.int64)
        rows = len(instant)
        shared = {
            "source": self.recipe.name, "licence": self.licence, "domain": self.domain.value, "split": split.value,
            "group": recording.group, "sequence": recording.sequence, "media_index": 0, "flags": (),
            "silhouette_from": SilhouetteFrom.NONE.value,
        }  # fmt: skip
        given = shared | columns | {"instant": instant, "view": view, "track": track}
        given |= {"media": media, "width": width, "height": height}
        # Only what differs from row to row is put in order, and only if it is not.
        codes = [_codes(given[name], rows) for name in ("track", "instant", "view")]
        order = np.lexsort(codes)
        if self.recipe.frame_step > 1:
            kept = np.unique(instant)[:: self.recipe.frame_step]
            order = order[np.isin(instant[order], kept)]
        table = tables.frames_from_columns(given, rows)
        return table if np.array_equal(order, np.arange(rows)) else table.take(pa.array(order))


def did_you_mean(name: str, known: Collection[str], otherwise: str) -> str:
    """The hint for a name that is not known: the nearest one, or another hint where none is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean `{near[0]}`?" if near else otherwise


def _codes(values: Any, rows: int) -> npt.NDArray[np.int64]:
    """Numbers in the order of a column's values; (rows,)."""
    if isinstance(values, str):
        return np.zeros(rows, np.int64)
    if isinstance(values, np.ndarray) and values.dtype.kind == "i":
        return values
    column = (values if isinstance(values, pa.Array) else pa.array(values)).dictionary_encode()
    rank = np.argsort(np.argsort(np.array(column.dictionary.to_pylist(), str), kind="stable"))
    codes: npt.NDArray[np.int64] = rank[column.indices.to_numpy(zero_copy_only=False)]
    return codes
