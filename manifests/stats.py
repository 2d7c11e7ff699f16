"""What a build holds, in numbers: for the report, and for whoever compares two builds by eye."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.audit_files import Evidence
from manifests.geometry import box_overlap
from manifests.types import BoxFrom, PairKind, SilhouetteFrom

Floats32 = npt.NDArray[np.float32]

ANGLE_EDGES_RAD = np.radians(np.arange(0, 181, 10))
DT_EDGES_S = np.array([0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1e9])
COVERAGE_EDGES = np.linspace(0, 1, 21)
FULL = 0.9  # share of the crop from which a silhouette covers everything
ASTRAY = 0.5  # overlap of a silhouette's box and the dataset's, below which one of them is of something else


def stats_of(evidence: Evidence, tight: Floats32) -> dict[str, Any]:
    """Count what reads: plain JSON values, the same for the same build.

    Args:
        evidence: of the audit's first part.
        tight: (crops, 4) box around each crop's silhouette, in shares of the crop; NaN where it is empty.

    Returns:
        stages (units, counts, fingerprint), rows per table, pairs per source, split and kind, people and recordings per
        source and split, shards per split, rejects per stage, source and reason, silhouettes per source and who drew them,
        and histograms (edges, counts).
    """
    frames, crops, pairs, rejects = (evidence.table(name) for name in ("frames", "crops", "pairs", "rejects"))
    across = pc.equal(pairs.column("kind"), PairKind.CROSS_VIEW.value)
    seconds = pc.abs(pairs.filter(pc.invert(across)).column("dt_s"))
    tars = [part.file for part in evidence.parts.get("tar", [])]
    sources = pc.list_element(pc.split_pattern(rejects.column("key"), "/"), 0)
    return {
        "stages": {
            stage: {
                "units": len(done),
                "fingerprints": sorted({commit.fingerprint for commit in done}),
                "bytes": sum(file.bytes for commit in done for file in commit.files),
            }
            for stage, done in evidence.commits.items()
        },
        "rows": {
            "frames": frames.num_rows,
            "crops": crops.num_rows,
            "pairs": pairs.num_rows,
            "rejects": int(pc.sum(rejects.column("count")).as_py() or 0),
        },
        "sources": _sources(frames, crops),
        "pairs": _counts(pairs, ["source", "domain", "split", "kind"]),
        "shards": {"tars": len(tars), "rows": sum(tar.rows for tar in tars), "bytes": sum(tar.bytes for tar in tars)},
        "rejects": _counts(rejects.append_column("source", sources), ["stage", "source", "reason"], of="count"),
        "silhouettes": _silhouettes(crops, tight),
        "histograms": {
            "view_angle_rad": _histogram(pairs.filter(across).column("view_angle_rad"), ANGLE_EDGES_RAD),
            "dt_s": _histogram(seconds, DT_EDGES_S),
            "coverage": _histogram(crops.column("coverage"), COVERAGE_EDGES),
        },
    }


def _sources(frames: pa.Table, crops: pa.Table) -> list[dict[str, Any]]:
    by = ["source", "domain", "split"]
    seen = frames.group_by(by).aggregate(
        [("key", "count"), ("sequence", "count_distinct"), ("group", "count_distinct"), ("view", "count_distinct")]
    )
    names = {
        "key_count": "frames",
        "sequence_count_distinct": "sequences",
        "group_count_distinct": "groups",
        "view_count_distinct": "views",
    }
    rows = seen.rename_columns([names.get(name, name) for name in seen.column_names]).to_pylist()
    cropped = {tuple(row[name] for name in by): row["rows"] for row in _counts(crops, by)}
    ordered = sorted(rows, key=lambda row: tuple(row[name] for name in by))
    return [{**row, "crops": cropped.get(tuple(row[name] for name in by), 0)} for row in ordered]


def _counts(data: pa.Table, by: list[str], *, of: str | None = None) -> list[dict[str, Any]]:
    """Rows of each combination, sorted; or the sum of a column."""
    what = ([], "count_all") if of is None else (of, "sum")
    counted = data.group_by(by).aggregate([what]).sort_by([(name, "ascending") for name in by])
    rows: list[dict[str, Any]] = counted.rename_columns([*by, "rows"]).to_pylist()
    return rows


def _silhouettes(crops: pa.Table, tight: Floats32) -> list[dict[str, Any]]:
    """How the silhouettes of each source are, by who drew them.

    `agreement` is the median overlap (intersection over union) of the box around a silhouette with the box that the dataset gave
    (or that its keypoints made) for `boxed` of them, `astray` the share of these where it is below `ASTRAY`; both null where no such box is.
    """
    squares, boxes = (_fixed(crops.column(name)) for name in ("square_xyxy_px", "box_xyxy_px"))
    side = squares[:, 2:] - squares[:, :2]
    given = np.clip((boxes - np.tile(squares[:, :2], 2)) / np.maximum(np.tile(side, 2), 1e-9), 0, 1)
    overlap = np.where(np.isnan(tight).any(axis=1), 0, box_overlap(given, np.nan_to_num(tight)))
    told = pc.is_in(crops.column("box_from"), value_set=pa.array([BoxFrom.DATASET.value, BoxFrom.KEYPOINTS.value]))
    told = told.to_numpy() & (np.prod(given[:, 2:] - given[:, :2], axis=1) < 0.99)  # a whole picture is no opinion
    coverage = crops.column("coverage").to_numpy()
    keys = pc.binary_join_element_wise(crops.column("source"), crops.column("silhouette_from"), "/")
    found = []
    for name in sorted(keys.unique().to_pylist()):
        mine = pc.equal(keys, name).to_numpy()
        drawn, held = coverage[mine], overlap[mine & told]
        source, _, by = name.partition("/")
        empty = by == SilhouetteFrom.NONE
        found.append(
            {
                "source": source,
                "domain": crops.column("domain")[int(np.flatnonzero(mine)[0])].as_py(),
                "drawn_by": by,
                "crops": int(mine.sum()),
                "coverage": None if empty else [round(float(q), 4) for q in np.quantile(drawn, (0.05, 0.5, 0.95))],
                "histogram": None if empty else np.histogram(drawn, bins=COVERAGE_EDGES)[0].tolist(),
                "boxed": len(held),
                "full": int((drawn > FULL).sum()),
                "agreement": None if empty or not len(held) else round(float(np.median(held)), 4),
                "astray": None if empty or not len(held) else round(float((held < ASTRAY).mean()), 4),
            }
        )
    return found


def _fixed(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    flat: npt.NDArray[np.float64] = column.combine_chunks().flatten().to_numpy().reshape(-1, column.type.list_size)
    return flat


def _histogram(values: pa.ChunkedArray, edges: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Counts between edges; the last bin takes its upper edge in. `unknown` counts nulls and what is outside."""
    numbers = values.cast(pa.float64()).to_numpy()
    counts, _ = np.histogram(numbers[np.isfinite(numbers)], bins=edges)
    return {"edges": edges.tolist(), "counts": counts.tolist(), "unknown": len(numbers) - int(counts.sum())}
