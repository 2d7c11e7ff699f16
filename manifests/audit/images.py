"""Third part of the audit: every distinct image of the crops is decoded once, whatever holds it.

What stands for the bytes of an image is Python's own hash of them: SipHash under a key that each process draws anew, 64 bits, and
five times as fast as any cryptographic one. Nobody can make two images share it without that key, and of five million images
two do by chance once in a million audits.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import simplejpeg

from manifests.audit.files import Evidence, Part, Progress
from manifests.audit.findings import Finding, Severity, error
from manifests.audit.geometry import fixed
from manifests.geometry import box_overlap
from manifests.sample import MAX_MEMBER_BYTES, MAX_SIDE_PX, SILHOUETTE_BYTES
from manifests.schema import CELLS
from manifests.types import BoxFrom

logger = logging.getLogger(__name__)

BATCH = 256  # crops in memory at once
PIXELS = ("key", "jpeg", "silhouette", "size_px")
BOXES = ("source", "domain", "silhouette_from", "box_from", "square_xyxy_px", "box_xyxy_px")

Digests = npt.NDArray[np.int64]


@dataclass(slots=True)
class Images:
    """What the crops hold.

    Attributes:
        jpeg: (n,) digests of the crops' images, in the row order of `Evidence.table("crops")`.
        silhouette: (n,) of their silhouettes.
        overlaps: of the boxes around silhouettes with the boxes that the dataset gave, where it gave one; per source, domain and who
            drew the silhouette.
        known: (n,) whether the crop's bytes could be read.
        judged: digests of images of shards that are no crop's, with what is wrong with them.
    """

    jpeg: Digests
    silhouette: Digests
    known: npt.NDArray[np.bool_]
    overlaps: defaultdict[tuple[str, ...], list[npt.NDArray[np.float32]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    judged: dict[int, str | None] = field(default_factory=dict)

    def judge(self, jpeg: bytes) -> str | None:
        """What is wrong with an image, or None; decodes it when it was not met before."""
        digest = hash(jpeg)
        if digest not in self.judged:
            self.judged[digest] = problem_of(jpeg)
        return self.judged[digest]


def problem_of(jpeg: bytes, size_px: int | None = None) -> str | None:
    """What is wrong with an image, or None. Its header is read, and held to the caps, before any pixel is decoded.

    Args:
        jpeg: untrusted bytes.
        size_px: the side it should have; any square one when left out.
    """
    if len(jpeg) > MAX_MEMBER_BYTES:
        return f"has {len(jpeg):,} bytes, more than any image of ours"
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
        if max(height, width) > MAX_SIDE_PX:
            return f"says that it is {width} x {height} px, more than any image of ours"
        if height != width or (size_px is not None and width != size_px):
            return f"is {width} x {height} px, not a square of {size_px or 'one side'}"
        simplejpeg.decode_jpeg(jpeg, "GRAY")
    except ValueError as problem:
        return f"does not decode: {problem}"
    return None


def look_at_images(evidence: Evidence, pool: ThreadPoolExecutor, progress: Progress) -> tuple[Images, list[Finding]]:
    """Decode the images of all crops, and measure their silhouettes.

    Args:
        evidence: of the first part.
        pool: decodes.
        progress: is told about the crops.

    Returns:
        what the shards are held against, and the findings.
    """
    parts = evidence.parts.get("crops", [])
    total = sum(part.num_rows for part in parts)
    images = Images(
        jpeg=np.zeros(total, np.int64),
        silhouette=np.zeros(total, np.int64),
        known=np.zeros(total, bool),
    )
    findings, first = list[Finding](), 0
    for part in parts:
        try:
            findings += list(_look_at_part(part, images, first, pool, progress))
        except Exception as problem:  # a damaged file may fail in any way: that is a finding, and the audit goes on
            logger.debug("reading %s", part.path, exc_info=True)
            findings.append(error("unreadable", "crops", part.where, f"its images do not read: {problem}"))
        first += part.num_rows
    return images, findings


def _look_at_part(
    part: Part, images: Images, first: int, pool: ThreadPoolExecutor, progress: Progress
) -> Iterator[Finding]:
    keys, problems, short = [], [], []
    row = first
    with pq.ParquetFile(part.path) as file:
        for batch in file.iter_batches(batch_size=BATCH, columns=[*PIXELS, *BOXES]):
            names, jpegs, silhouettes, sizes = (batch.column(name).to_pylist() for name in PIXELS)
            for name, problem in zip(names, pool.map(problem_of, jpegs, sizes), strict=True):
                if problem is not None:
                    keys.append(name)
                    problems.append(problem)
            short += [name for name, one in zip(names, silhouettes, strict=True) if len(one) != SILHOUETTE_BYTES]
            images.jpeg[row : row + len(names)] = [hash(one) for one in jpegs]
            images.silhouette[row : row + len(names)] = [hash(one) for one in silhouettes]
            whole = [one if len(one) == SILHOUETTE_BYTES else bytes(SILHOUETTE_BYTES) for one in silhouettes]
            _hold_against_boxes(pa.table(batch), tight_boxes(np.frombuffer(b"".join(whole), np.uint8)), images)
            images.known[row : row + len(names)] = True
            row += len(names)
            progress("images", row, len(images.known))
    if keys:
        yield _about("image", part.where, f"the image {problems[0]}", keys)
    if short:
        yield _about("silhouette", part.where, f"the silhouette has not {SILHOUETTE_BYTES} bytes", short)


def _hold_against_boxes(crops: pa.Table, tight: npt.NDArray[np.float32], images: Images) -> None:
    """Measure how far the boxes around silhouettes are those that the dataset gave, or its keypoints made."""
    squares, boxes = fixed(crops.column("square_xyxy_px")), fixed(crops.column("box_xyxy_px"))
    side = np.maximum(squares[:, 2:] - squares[:, :2], 1e-9)
    given = np.clip((boxes - np.tile(squares[:, :2], 2)) / np.tile(side, 2), 0, 1)
    overlap = np.where(np.isnan(tight).any(axis=1), 0, box_overlap(given, np.nan_to_num(tight))).astype(np.float32)
    told = pc.is_in(crops.column("box_from"), value_set=pa.array([BoxFrom.DATASET.value, BoxFrom.KEYPOINTS.value]))
    told = told.to_numpy() & (np.prod(given[:, 2:] - given[:, :2], axis=1) < 0.99)  # a whole picture is no opinion
    places = np.array(list(zip(*(crops.column(name).to_pylist() for name in BOXES[:3]), strict=True)))
    for place in np.unique(places[told], axis=0):
        images.overlaps[tuple(map(str, place))].append(overlap[told & (places == place).all(axis=1)])


def tight_boxes(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Boxes around silhouettes.

    Args:
        packed: (n * SILHOUETTE_BYTES,) one after the other.

    Returns:
        (n, 4) x0, y0, x1, y1 in shares of the crop; NaN where a silhouette is empty.
    """
    cells = np.unpackbits(packed).reshape(-1, CELLS, CELLS)
    found = np.full((len(cells), 4), np.nan, np.float32)
    sides = {
        (0, 2): np.asarray(cells.any(axis=1)),
        (1, 3): np.asarray(cells.any(axis=2)),
    }  # columns tell x, rows tell y
    for (first, last), line in sides.items():
        there = line.any(axis=1)
        found[there, first] = line[there].argmax(axis=1) / CELLS
        found[there, last] = 1 - line[there, ::-1].argmax(axis=1) / CELLS
    return found


def _about(rule: str, where: str, message: str, keys: list[str]) -> Finding:
    return Finding(
        rule=rule, severity=Severity.ERROR, table="crops", where=where, message=message, count=len(keys),
        examples=tuple(keys[:5]),
    )  # fmt: skip
