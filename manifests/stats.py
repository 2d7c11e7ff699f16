"""What a build holds, in numbers: for the report, and for whoever compares two builds by eye."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.audit_files import Evidence
from manifests.types import PairKind

ANGLE_EDGES_RAD = np.radians(np.arange(0, 181, 10))
DT_EDGES_S = np.array([0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1e9])
COVERAGE_EDGES = np.linspace(0, 1, 21)


def stats_of(evidence: Evidence) -> dict[str, Any]:
    """Count what reads: plain JSON values, the same for the same build.

    Args:
        evidence: of the audit's first part.

    Returns:
        stages (units, counts, fingerprint), rows per table, pairs per source, split and kind, people and recordings per
        source and split, shards per split, rejects per stage, source and reason, and histograms (edges, counts).
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


def _histogram(values: pa.ChunkedArray, edges: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Counts between edges; the last bin takes its upper edge in. `unknown` counts nulls and what is outside."""
    numbers = values.cast(pa.float64()).to_numpy()
    counts, _ = np.histogram(numbers[np.isfinite(numbers)], bins=edges)
    return {"edges": edges.tolist(), "counts": counts.tolist(), "unknown": len(numbers) - int(counts.sum())}
