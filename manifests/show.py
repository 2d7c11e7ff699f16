"""Show a build to a person: what it holds, and any row of any table by its key."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import simplejpeg
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from manifests import table as tables
from manifests.build import STAGES, Build
from manifests.commit import PLAN
from manifests.errors import ManifestError
from manifests.sample import SILHOUETTE_BYTES, unpack_cells
from manifests.schema import CELLS, SCHEMAS

NUM_EXAMPLES = 3
SAMPLES = {"index": "samples"}  # a row of the index is a sample of the tar
MATRICES = {"intrinsics": 3, "camera_from_world": 4, "keypoints_px": 3}  # values in a row of the matrix


def key_column(table: str) -> str:
    """What the rows of a table are named by."""
    return {"shards": "name", "scenes": "sequence"}.get(table, "key")


def parts_of(build: Build, table: str) -> Iterator[tuple[str, Path]]:
    """The committed files of a table: path below the build's root, and path.

    Raises:
        ManifestError: no such table.
    """
    if table not in SCHEMAS:
        raise ManifestError(f"no table named {table}", where=build.root, hint=f"tables: {', '.join(SCHEMAS)}")
    if table == "shards":
        path = build.folder("shards") / "shards.parquet"
        if path.exists():
            yield "shards/shards.parquet", path
        return
    for stage in STAGES:
        for commit in build.commits(stage):
            file = commit.file(table)
            if file is not None:
                yield f"{stage}/{file.name}", build.folder(stage) / file.name


def rows_by_key(build: Build, table: str, key: str) -> list[tuple[str, dict[str, Any]]]:
    """Every row of that key, with the place it was found at; only the files that hold it are read whole.

    Args:
        build: to look in.
        table: its name.
        key: of the row; rejects may have several rows of one key.
    """
    found = []
    for name, path in parts_of(build, table):
        column = tables.read(table, path, columns=[key_column(table)]).column(0)
        rows = np.flatnonzero(pc.equal(column, key).to_numpy())
        if len(rows):
            data = tables.read(table, path).take(pa.array(rows)).to_pylist()
            found += [(f"{name} row {row}", values) for row, values in zip(rows, data, strict=True)]
    return found


def show_key(build: Build, key: str, table: str | None = None) -> RenderableType:
    """All rows of a key, in one table or wherever it names something.

    Raises:
        ManifestError: it names nothing.
    """
    wanted = [table] if table is not None else list(SCHEMAS)
    found = [(name, place, row) for name in wanted for place, row in rows_by_key(build, name, key)]
    if not found:
        raise ManifestError(
            f"no row {key} in {' or '.join(wanted)}", where=build.root, hint="`show` without --key lists examples"
        )
    return Group(*[_row(name, place, row) for name, place, row in found])


def show_table(build: Build, table: str, *, num: int = 20) -> RenderableType:
    """Number of rows of a table, and its first keys; for rejects also why."""
    lines, total = list[str](), 0
    columns = ["key", "count", "reason", "detail"] if table == "rejects" else [key_column(table)]
    for _, path in parts_of(build, table):
        rows = tables.read(table, path, columns=columns)
        total += rows.num_rows
        first = rows.slice(0, max(0, num - len(lines))).to_pylist()
        lines += ["  ".join(str(row[name]) for name in columns) for row in first]
    more = f"\n[dim]... and {total - len(lines):,} more[/]" if total > len(lines) else ""
    return f"[bold]{table}[/]: {total:,} rows\n" + "\n".join(map(escape, lines)) + more


def show_summary(build: Build) -> RenderableType:
    """Stages with their units, and tables with their rows and a few keys to ask for.

    Raises:
        ManifestError: nothing of a build is there.
    """
    if not any(build.folder(stage).is_dir() for stage in STAGES):
        raise ManifestError(
            "no build is here", where=build.root, hint=f"give the OUT folder of a build: it holds {', '.join(STAGES)}"
        )
    stages = Table(title="stages", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("stage", "units", "rows", "left out", "fingerprint"):
        stages.add_column(name, justify="right" if name in ("units", "left out") else "left")
    for stage in STAGES:
        done = build.commits(stage)
        if not build.folder(stage).is_dir():
            continue
        counts: dict[str, int] = {}
        for commit in done:
            for name, count in commit.counts.items():
                counts[name] = counts.get(name, 0) + count
        told = ", ".join(
            f"{count:,} {SAMPLES.get(name, name)}" for name, count in sorted(counts.items()) if name != "rejects"
        )
        left_out = sum(sum(commit.rejects.values()) for commit in done)
        stamps = sorted({commit.fingerprint[:12] for commit in done})
        stages.add_row(
            stage, f"{len(done)} of {_planned(build.folder(stage))}", told, f"{left_out:,}", " ".join(stamps)
        )
    keys = ["keys to ask for with --key:"]
    for table in SCHEMAS:
        names = next((n for _, path in parts_of(build, table) if (n := _first_keys(table, path))), [])
        keys += [
            f"  {table:8}{escape(name)}" if i == 0 else f"          {escape(name)}" for i, name in enumerate(names)
        ]
    return Group(stages, "\n".join(keys))


def _planned(folder: Path) -> str:
    try:
        return str(len(json.loads((folder / PLAN).read_text())["units"]))
    except (OSError, ValueError, KeyError, TypeError):
        return "?"


def _first_keys(table: str, path: Path) -> list[str]:
    keys: list[str] = tables.read(table, path, columns=[key_column(table)]).column(0)[:NUM_EXAMPLES].to_pylist()
    return keys


def _row(table: str, place: str, row: dict[str, Any]) -> Table:
    shown = Table(
        title=f"[bold]{table}[/]  [dim]{escape(place)}[/]", title_justify="left", show_header=False, expand=False
    )
    shown.add_column(style="cyan")
    shown.add_column(overflow="fold")
    for name, value in row.items():
        shown.add_row(name, value_text(name, value))
    return shown


def value_text(name: str, value: Any) -> Text:
    """One value of a row for people: matrices in rows, images by size, silhouettes drawn, angles in degrees too."""
    if value is None:
        return Text("unknown", style="dim")
    if name == "jpeg":
        return Text(_jpeg_text(value))
    if name == "silhouette":
        return Text(_drawn(value))
    if name in MATRICES and isinstance(value, list):
        width = MATRICES[name]
        lines = [" ".join(f"{v:10.4g}" for v in value[i : i + width]) for i in range(0, len(value), width)]
        return Text("\n".join(lines))
    if isinstance(value, list) and value and isinstance(value[0], float):
        return Text("  ".join(f"{v:.4g}" for v in value))
    if isinstance(value, list):
        return Text(", ".join(map(str, value)) or "none")
    if name.endswith("_rad"):
        return Text(f"{value:.4f} rad = {np.degrees(value):.1f}\N{DEGREE SIGN}")
    if name == "phash":
        return Text(f"{value:016x}")
    if isinstance(value, dict):
        return Text("  ".join(f"{key} {inner:,}" for key, inner in value.items()))
    return Text(f"{value:.6g}" if isinstance(value, float) else str(value))


def _jpeg_text(jpeg: bytes) -> str:
    try:
        height, width, colours, subsampling = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError as error:
        return f"{len(jpeg):,} bytes that are no JPEG: {error}"
    return f"JPEG {width} x {height} px, {colours} {subsampling}, {len(jpeg):,} bytes"


def _drawn(packed: bytes, side: int = 32) -> str:
    """A silhouette as text, two rows of cells to a line."""
    if len(packed) != SILHOUETTE_BYTES:
        return f"{len(packed)} bytes, not {SILHOUETTE_BYTES}"
    cells = unpack_cells(packed)
    if not cells.any():
        return "unknown (all zero)"
    step = CELLS // side
    coarse = cells.reshape(side, step, side, step).mean(axis=(1, 3)) >= 0.5
    marks = np.array([" ", "\N{LOWER HALF BLOCK}", "\N{UPPER HALF BLOCK}", "\N{FULL BLOCK}"])
    return "\n".join("".join(line).rstrip() for line in marks[coarse[0::2] * 2 + coarse[1::2]])
