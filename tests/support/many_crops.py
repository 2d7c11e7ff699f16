"""Crops tables of any size without a pixel: whole columns, at millions of rows a second.

Legend: n crops, V views, T instants, P people.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import table as tables
from manifests.commit import UnitWriter
from manifests.sample import SILHOUETTE_BYTES
from manifests.schema import CROPS
from manifests.seeds import rng_for
from manifests.surface import SURFACE_CELLS
from tests.support.crops import ring_camera


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A kind of recording: every camera sees everybody at every instant."""

    source: str
    views: int
    instants: int
    people: int = 1
    calibrated: bool = True
    num_subjects: int | None = None  # who take turns from recording to recording; None: nobody is named
    cells: bool = False  # crops know which cells of the body they show

    @property
    def crops(self) -> int:
        return self.views * self.instants * self.people


# A pre-training set in small: hands under a dome, dancers, people among a hundred cameras, and streets.
SHAPES = (
    Shape(source="dome", views=80, instants=125, num_subjects=26),
    Shape(source="dance", views=9, instants=300, num_subjects=40),
    Shape(source="studio", views=100, instants=30, num_subjects=700),
    Shape(source="street", views=1, instants=500, people=4, calibrated=False),
)


def shapes_of(num_crops: int) -> list[tuple[str, Shape]]:
    """Names and shapes of recordings that hold at least so many crops together, shapes in turn."""
    named, total = [], 0
    while total < num_crops:
        shape = SHAPES[len(named) % len(SHAPES)]
        named.append((f"rec{len(named):05d}", shape))
        total += shape.crops
    return named


def many_crops(sequence: str, shape: Shape, *, seed: int = 0) -> pa.Table:
    """The crops of one recording (CROPS schema), sorted by key; hashes and cells come from its name."""
    rng = rng_for(seed, "crops", shape.source, sequence)
    count, views, people = shape.crops, shape.views, shape.people
    instant, view, person = (a.ravel() for a in np.indices((shape.instants, views, people)))
    names = pa.array([f"c{v:03d}" for v in range(views)]).take(pa.array(view))
    tracks = pa.array([f"p{p}" for p in range(people)]).take(pa.array(person))
    digits = pc.ascii_lpad(pa.array(instant).cast(pa.string()), 8, "0")
    place = f"{shape.source}/train/{sequence}"
    subject = pa.nulls(count, pa.string())
    if shape.num_subjects:
        subject = pa.array([f"s{(int(sequence[3:]) + p) % shape.num_subjects}" for p in range(people)]).take(
            pa.array(person)
        )
    cells = pa.nulls(count, pa.binary())
    if shape.cells:
        shown = rng.integers(0, 256, (count, SURFACE_CELLS), dtype=np.uint8) * (rng.random((count, 1)) < 0.7)
        cells = pa.array([row.tobytes() for row in shown], pa.binary())
    poses = np.stack([ring_camera(angle) for angle in np.linspace(0, 2 * np.pi, views, endpoint=False)])
    K = np.tile([400.0, 0, 127.5, 0, 400.0, 127.5, 0, 0, 1], (count, 1))
    K[:, [2, 5]] += rng.uniform(-20, 20, (count, 2))  # the square follows the person
    known = pa.array(np.full(count, not shape.calibrated))
    none = pa.array([[]], pa.list_(pa.string())).take(pa.array(np.zeros(count, np.int64)))
    columns = {
        "key": pc.binary_join_element_wise(pa.scalar(place), digits, names, tracks, "/"),
        "source": shape.source,
        "licence": "none",
        "domain": "body",
        "split": "train",
        "group": sequence,
        "subject": subject,
        "sequence": sequence,
        "instant": instant,
        "time_s": instant / 30,
        "view": names,
        "track": tracks,
        "frame_key": pc.binary_join_element_wise(pa.scalar(place), digits, names, pa.scalar("all"), "/"),
        "jpeg": b"",
        "size_px": 256,
        "square_xyxy_px": _lists(np.tile([0.0, 0, 500, 500], (count, 1)), CROPS.field("square_xyxy_px").type),
        "box_xyxy_px": _lists(np.tile([100.0, 100, 300, 400], (count, 1)), CROPS.field("box_xyxy_px").type),
        "box_from": "parser",
        "intrinsics": _lists(K, CROPS.field("intrinsics").type, known),
        "camera_from_world": _lists(poses[view].reshape(count, 16), CROPS.field("camera_from_world").type, known),
        "silhouette": bytes(SILHOUETTE_BYTES),
        "silhouette_from": "none",
        "surface": cells,
        "coverage": 0.25,
        "mean": 120.0,
        "phash": rng.integers(0, 2**63, count, dtype=np.uint64),
        "segment": instant // 1000,
        "flags": none,
    }
    return pa.table([_column(field, columns.get(field.name), count) for field in CROPS], schema=CROPS).sort_by("key")


def write_crops(folder: Path, sequence: str, shape: Shape, *, seed: int = 0) -> int:
    """Commit a recording's crops as a build's crop stage does; tells how many they are."""
    crops = many_crops(sequence, shape, seed=seed)
    with UnitWriter(folder, stage="crops", unit=f"{shape.source}-{sequence}", fingerprint="0" * 64) as out:
        out.table("crops", tables.check("crops", crops, where=sequence))
    return crops.num_rows


def _column(field: pa.Field, values: object, count: int) -> pa.Array:
    if values is None:
        return pa.nulls(count, field.type)
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(values, np.ndarray):
        return pa.array(values).cast(field.type)
    return pa.repeat(pa.scalar(values, field.type), count)


def _lists(rows: np.ndarray, kind: pa.DataType, mask: pa.Array | None = None) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), type=kind, mask=mask)
