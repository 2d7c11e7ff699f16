"""Rules about what renders carry beside their crops: labels and scenes, of some rows of each unit or of all."""

import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from manifests.audit.files import Evidence, Part
from manifests.audit.findings import Finding, error, of_rows
from manifests.audit.keys import hashes_of, rows_of
from manifests.sample import MAX_MEMBER_BYTES, MAX_SIDE_PX, cells_of, pack_cells
from manifests.schema import SCHEMAS

SOME = 8  # labels of a unit that are decoded, unless all are: a unit is one scene, and a fault of the renderer is in all of them
_HASH = re.compile(r"[0-9a-f]{64}")


def look_at_labels(evidence: Evidence, pool: ThreadPoolExecutor, *, most: int | None) -> Iterator[Finding]:
    """Hold the labels and scenes of renders against their crops.

    Args:
        evidence: of the first part.
        pool: reads and decodes.
        most: maps of each unit that are decoded; None for all, 0 to look at no pixels.
    """
    asked = _asked(evidence)
    units: dict[str, dict[str, Part]] = {}
    for table in ("labels", "scenes", "crops"):
        for part in evidence.parts.get(table, []):
            if part.stage == "renders":
                units.setdefault(part.commit.unit, {})[table] = part
    for findings in pool.map(lambda parts: _look_at_unit(parts, asked, most), units.values()):
        yield from findings


def _asked(evidence: Evidence) -> tuple[str, ...] | None:
    """The maps that the recipe of the renders asks for; None where its plan does not tell."""
    recipe = evidence.plans.get("renders", {}).get("recipe")
    render = recipe.get("render") if isinstance(recipe, dict) else None
    maps = render.get("labels") if isinstance(render, dict) else None
    return tuple(name for name in SCHEMAS["labels"].names if name in maps) if isinstance(maps, list) else None


def _look_at_unit(parts: dict[str, Part], asked: tuple[str, ...] | None, most: int | None) -> list[Finding]:
    """The rules about one unit; runs in a thread."""
    findings: list[Finding] = []
    crops = parts.get("crops")
    if crops is None:
        return findings
    for table, look in (("labels", partial(_labels, asked=asked or (), most=most)), ("scenes", _scenes)):
        part = parts.get(table)
        if part is None:
            # A commit that lists none is the fault here; a file that is listed and does not read is told elsewhere.
            if asked is not None and crops.num_rows and crops.commit.file(table) is None:
                where = f"{crops.stage}/{crops.commit.unit}.json"
                findings.append(error(table, table, where, f"a rendered unit has no table of {table}"))
            continue
        try:
            findings += look(part, crops)
        except Exception as problem:  # noqa: BLE001 - a damaged file may fail in any way: that is a finding
            findings.append(error("unreadable", table, part.where, f"{type(problem).__name__}: {problem}"))
    return findings


def _labels(part: Part, crops: Part, *, asked: tuple[str, ...], most: int | None) -> Iterator[Finding]:
    keys, cut = part.read(["key"]).column("key"), crops.read(["key"]).column("key")
    for missing, of, message in (
        (rows_of(cut, keys) < 0, cut, "a rendered crop has no labels"),
        (rows_of(keys, cut) < 0, keys, "labels are of no crop of their unit"),
    ):
        yield from of_rows("labels", "labels", missing, of, message, where=part.where)
    for name in asked if most != 0 else ():
        kept = _kept(part, name)
        if not kept.all():
            yield from of_rows(
                "labels", "labels", ~kept, keys, f"the recipe asks for {name}, which is not there", where=part.where
            )
    order = np.argsort(hashes_of(keys), kind="stable")  # chance, but the same chance always
    wanted = pc.take(keys.combine_chunks(), pa.array(np.sort(order[:most])))
    if not len(wanted):
        return
    maps, pictures = (dict(_picked(one, column, wanted)) for one, column in ((part, "parts"), (crops, "silhouette")))
    bad: dict[str, list[str]] = {}
    for key in wanted.to_pylist():
        if maps.get(key) is not None and key in pictures:
            problem = _problem_of(maps[key], pictures[key])
            if problem is not None:
                bad.setdefault(problem, []).append(key)
    for problem, names in bad.items():
        yield from of_rows("labels", "labels", np.ones(len(names), bool), pa.array(names), problem, where=part.where)


def _kept(part: Part, column: str) -> npt.NDArray[np.bool_]:
    """Whether each row has a value in a column; a few rows in memory at a time."""
    with pq.ParquetFile(part.path) as file:
        batches = file.iter_batches(batch_size=256, columns=[column])
        return np.concatenate([np.zeros(0, bool), *(b.column(column).is_valid().to_numpy(False) for b in batches)])


def _picked(part: Part, column: str, keys: pa.Array) -> Iterator[tuple[str, Any]]:
    """The values of a column in the rows of some keys; a few rows in memory at a time."""
    with pq.ParquetFile(part.path) as file:
        for batch in file.iter_batches(batch_size=64, columns=["key", column]):
            rows = batch.filter(pc.is_in(batch.column("key"), value_set=keys))
            yield from zip(rows.column("key").to_pylist(), rows.column(column).to_pylist(), strict=True)


def _problem_of(png: bytes, silhouette: bytes) -> str | None:
    """What is wrong with a map of parts, or None."""
    try:
        parts = _decoded(png)
        cells = pack_cells(cells_of(parts > 0))
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as problem:
        return f"the map of parts does not decode: {problem}"
    return None if cells == silhouette else "the map of parts shows the person elsewhere than the silhouette"


def _decoded(png: bytes) -> npt.NDArray[np.uint8]:
    if len(png) > MAX_MEMBER_BYTES:
        raise ValueError("too many bytes")
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        if max(image.size) > MAX_SIDE_PX or image.mode != "L":
            raise ValueError(f"it is {image.width} x {image.height} px of mode {image.mode}, not one byte a pixel")
        return np.asarray(image)


def _scenes(part: Part, crops: Part) -> Iterator[Finding]:
    scenes, cut = part.read(), crops.read(["sequence", "instant", "view"])
    sequences = cut.column("sequence").cast(pa.string()).to_pylist()
    seen: dict[str, tuple[set[int], set[str]]] = {}
    for sequence, instant, view in zip(
        sequences, cut.column("instant").to_pylist(), cut.column("view").cast(pa.string()).to_pylist(), strict=True
    ):
        instants, views = seen.setdefault(sequence, (set(), set()))
        instants.add(instant)
        views.add(view)
    for row in scenes.to_pylist():
        problem = _odd_scene(row, *seen.get(row["sequence"], (set(), set())))
        if problem is not None:
            yield error("scenes", "scenes", part.where, problem, examples=(row["sequence"],))
    told = set(scenes.column("sequence").to_pylist())
    if set(seen) - told:
        yield error(
            "scenes",
            "scenes",
            part.where,
            "a rendered sequence has no scene",
            examples=tuple(sorted(set(seen) - told)[:5]),
        )


def _odd_scene(row: dict[str, Any], instants: set[int], views: set[str]) -> str | None:
    """What is wrong with a scene, or None. Crops may lack some of its pictures: those that show too little are left out."""
    if not _HASH.fullmatch(row["model"]):
        return "the model of a scene is no SHA-256"
    try:
        scene = json.loads(row["scene"])
    except (ValueError, RecursionError):
        return "a scene does not parse"
    cameras, phases = (scene.get(name) if isinstance(scene, dict) else None for name in ("cameras", "phases"))
    if not isinstance(cameras, list) or not isinstance(phases, list):
        return "a scene has no cameras, or no phases"
    if len(views) > len(cameras) or len(instants) > len(phases) or max(instants, default=0) >= len(phases):
        return f"a scene has {len(cameras)} cameras and {len(phases)} phases, its pictures {len(views)} views and {len(instants)} instants"
    return None
