"""The audit at the scale of a cluster: rows per second, tars against merely hashing them, and the most memory it takes.

Run it on a quiet machine: `python -m pytest tests/bench/bench_audit.py --timeout 0 -o log_cli=true -o log_cli_level=INFO`, with
`PAIRS=10000000` in the environment for ten million pairs of five million crops (some 3 GB of disk, kept in `KEEP` if that is set).

- Tables: they hold what those of a rig of ten cameras do, but for the pixels: keys, cameras that look at one person, times, hashes.
  The audit runs in a process of its own, with two threads, from the page cache, and must find nothing.
- Shards: `SHARDS_GB` (2) of tars by the stage that packs them, with pictures of some 16 kB. What the audit does with them, hash, members,
  JSON, is timed against hashing the same tars, in turn, in one run, from the page cache.
"""

import json
import logging
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from manifests.audit.files import look_at_files
from manifests.audit.images import look_at_images
from manifests.audit.rows import look_at_rows
from manifests.audit.shards import look_at_shards
from manifests.commit import UnitWriter
from manifests.files import sha256_of, write_json
from manifests.geometry import angle_between
from manifests.schema import SCHEMAS
from manifests.seeds import rng_for
from pipeline.executors import LocalExecutor
from pipeline.recipes import BuildRecipe, SourceRecipe
from pipeline.stage import run_stage
from pipeline.stages import Shards
from tests.support.builds import encode, texture
from tests.support.toy_stage import SilentWatcher

logger = logging.getLogger(__name__)

NUM_PAIRS = int(os.environ.get("PAIRS", "400000"))
VIEWS, INSTANTS, PAIRS_OF_A_UNIT = 10, 200, 4000
STAMP = "0" * 64
AUDIT = """
import json, resource, sys, time
from pathlib import Path
from manifests.audit.prove import audit
began = time.perf_counter()
steps = {}
def tell(what, done, total):
    steps[what] = time.perf_counter() - began
result = audit(Path(sys.argv[1]), threads=2, tables_only=True, progress=tell)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({"seconds": time.perf_counter() - began, "cpu": time.process_time(), "peak_gb": peak, "steps": steps, "rows": result.stats["rows"],
                  "findings": [f.rule + ": " + f.message for f in result.findings]}))
"""


def lists(values, kind):
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(values), kind.value_type), type=kind)


def table_of(name, rows, columns):
    """A table whose other columns are null, or one value for all rows."""
    built = []
    for field in SCHEMAS[name]:
        value = columns.get(field.name)
        if isinstance(value, str | int | float):
            value = pa.repeat(pa.scalar(value, field.type), rows)
        elif value is None:
            value = pa.nulls(rows, field.type)
        elif not isinstance(value, pa.Array):
            value = pa.array(value, field.type)
        built.append(value)
    return pa.table(built, schema=SCHEMAS[name])


def nothing(rows):
    return pa.ListArray.from_arrays(pa.array(np.zeros(rows + 1, np.int32)), pa.array([], pa.string()))


def pictures_of(number, rows):
    """So many different JPEGs of some 16 kB: a few pictures, each with another comment."""
    some = [encode(texture(n)) for n in range(8)]
    comments = [b"\xff\xfe\x00\x0a" + (number * rows + row).to_bytes(8, "big") for row in range(rows)]
    return [some[row % 8][:2] + comment + some[row % 8][2:] for row, comment in enumerate(comments)]


def write_unit(root, number, *, pictures=False):
    """Two thousand frames and crops of one person, and four thousand pairs of both kinds."""
    sequence, split = f"rec{number:05d}", "val" if number % 10 == 0 else "train"
    rng = rng_for("bench", number)
    rows = VIEWS * INSTANTS
    instant, view = (part.ravel() for part in np.mgrid[:INSTANTS, :VIEWS])
    turn = view * 2 * np.pi / VIEWS
    pose = np.zeros((rows, 4, 4))
    pose[:, [0, 1, 2, 3, 2], [0, 1, 2, 3, 3]] = np.stack(
        [np.cos(turn), turn * 0 + 1, np.cos(turn), turn * 0 + 1, turn * 0 + 3], 1
    )
    pose[:, 0, 2], pose[:, 2, 0] = np.sin(turn), -np.sin(turn)
    sight = pose[:, 2, :3]
    view_name = pc.binary_join_element_wise("cam", pa.array(view).cast(pa.string()), "")
    place = f"rig/{split}/{sequence}"
    instant_name = pc.ascii_lpad(pa.array(instant).cast(pa.string()), 8, "0")
    keys = [pc.binary_join_element_wise(place, instant_name, view_name, who, "/") for who in ("all", "p0")]
    schema = SCHEMAS["crops"]
    shared = {
        "source": "rig", "licence": "none", "domain": "body", "split": split, "group": sequence, "subject": f"rig-{number // 4}"
        if split == "train" else f"rig-val-{number}", "sequence": sequence, "instant": instant, "time_s": instant / 25,
        "view": view_name, "camera_from_world": lists(pose, schema.field("camera_from_world").type), "flags": nothing(rows),
        "box_from": "parser", "silhouette_from": "parser",
        "box_xyxy_px": lists(np.tile([90.0, 20, 230, 220], (rows, 1)), schema.field("box_xyxy_px").type),
    }  # fmt: skip
    frames = table_of("frames", rows, shared | {
        "key": keys[0], "track": "all", "media": pc.binary_join_element_wise(sequence, view_name, "/"), "media_index": instant,
        "width": 320, "height": 240,
        "intrinsics": lists(np.tile([300.0, 0, 160, 0, 300, 120, 0, 0, 1], (rows, 1)), schema.field("intrinsics").type),
    })  # fmt: skip
    crops = table_of("crops", rows, shared | {
        "key": keys[1], "track": "p0", "frame_key": keys[0], "size_px": 256,
        "jpeg": pictures_of(number, rows) if pictures else pa.repeat(pa.scalar(b""), rows),
        "square_xyxy_px": lists(np.tile([50.0, 10, 270, 230], (rows, 1)), schema.field("square_xyxy_px").type),
        "intrinsics": lists(np.tile([349.0, 0, 127.5, 0, 349, 127.5, 0, 0, 1], (rows, 1)), schema.field("intrinsics").type),
        "silhouette": pa.repeat(pa.scalar(bytes(512)), rows), "coverage": rng.random(rows).astype(np.float32),
        "mean": 100.0, "phash": rng.integers(1 << 64, size=rows, dtype=np.uint64), "segment": 0,
    })  # fmt: skip
    half = PAIRS_OF_A_UNIT // 2
    # Candidates by number, each once: two views of an instant, then two instants of a view.
    couples = np.array([(i, j) for i in range(VIEWS) for j in range(i)])
    chosen = rng.choice(INSTANTS * len(couples), half, replace=False)
    across = np.stack([chosen // len(couples) * VIEWS + couples[chosen % len(couples), k] for k in (0, 1)])
    chosen = rng.choice(VIEWS * INSTANTS, half, replace=False)
    moved = np.stack([chosen, (chosen + VIEWS * 7) % rows])
    target, reference = np.concatenate([across, moved], axis=1)
    kind = np.repeat(["v", "p"], half)
    tails = [
        pc.binary_join_element_wise(pa.array(instant[r]).cast(pa.string()), view_name.take(pa.array(r)), "p0", "-")
        for r in (target, reference)
    ]
    time = instant / 25
    angle = np.where(np.arange(2 * half) < half, angle_between(sight[target], sight[reference]), 0)
    pairs = table_of("pairs", 2 * half, {
        "key": pc.binary_join_element_wise(place, pa.array(kind), *tails, "/"),
        "kind": np.repeat(["cross_view", "cross_pose"], half), "source": "rig", "licence": "none", "domain": "body",
        "split": split, "sequence": sequence, "target": keys[1].take(pa.array(target)), "weight": 1.0,
        "reference": keys[1].take(pa.array(reference)), "dt_s": time[reference] - time[target], "view_angle_rad": angle, "subject": shared["subject"],
        "further": nothing(2 * half),
    }).sort_by("key")  # fmt: skip
    for stage, data in (("frames", frames), ("crops", crops), ("pairs", pairs)):
        (root / stage).mkdir(parents=True, exist_ok=True)
        with UnitWriter(root / stage, stage=stage, unit=f"rig-{sequence}", fingerprint=STAMP) as out:
            out.table(stage, data)


def write_build(root, num_pairs, *, pictures=False):
    units = range(-(-num_pairs // PAIRS_OF_A_UNIT))
    for number in units:
        write_unit(root, number, pictures=pictures)
    for stage in ("frames", "crops", "pairs"):
        recipe = {"weights": {"rig": 1.0}, "pair": {"min_hash_distance": 2}}
        plan = {"stage": stage, "recipe": recipe, "inputs": {}, "fingerprint": STAMP}
        write_json(root / stage / "plan.json", plan | {"units": [f"rig-rec{n:05d}" for n in units]})


@pytest.mark.timeout(0)
def test_pairs_per_second(tmp_path):
    root = Path(os.environ.get("KEEP", tmp_path)) / "out"
    if not root.exists():
        write_build(root, NUM_PAIRS)
    done = subprocess.run([sys.executable, "-c", AUDIT, root], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    late, skipped = sorted(told["findings"])
    assert late == "unchecked: not run yet: shards"
    assert skipped.startswith("unchecked: only tables were looked at.")
    pairs = told["rows"]["pairs"]
    logger.info(
        "%s pairs and %s crops in %.1f s, %.1f s of the processor: %s pairs a second, %.2f GB at most; until the end of %s",
        f"{pairs:,}", f"{told['rows']['crops']:,}", told["seconds"], told["cpu"], f"{pairs / told['seconds']:,.0f}", told["peak_gb"],
        ", ".join(f"{what} {seconds:.1f} s" for what, seconds in told["steps"].items()),
    )  # fmt: skip


@pytest.mark.timeout(0)
def test_shards_against_hashing_them(tmp_path):
    root = Path(os.environ.get("KEEP", tmp_path)) / "shards_out"
    if not (root / "shards").exists():
        write_build(root, int(float(os.environ.get("SHARDS_GB", "2")) * 1e9 / 38_000), pictures=True)
        recipe = BuildRecipe(name="bench", sources=(SourceRecipe(kind="cameras", name="rig"),))
        run_stage(Shards(recipe, root), root, LocalExecutor(), SilentWatcher())
    with ThreadPoolExecutor(2) as pool:
        evidence, _ = look_at_files(root, pool, silent)
        rows = look_at_rows(evidence, pool, silent)
        images, _ = look_at_images(evidence, pool, silent)
        paths = [part.path for part in evidence.parts["tar"]]
        size = sum(path.stat().st_size for path in paths)
        ratios = []
        for _ in range(3):
            hashed = timed(lambda: list(pool.map(sha256_of, paths)))
            found = []
            proven = timed(lambda f=found: f.extend(look_at_shards(evidence, images, rows.keys, pool, silent)))
            assert found == []
            ratios.append([ours / theirs for ours, theirs in zip(proven, hashed, strict=True)])
            logger.info(
                "%d tars, %.2f GB: hashed in %.2f s (%.2f s by the wall), proven in %.2f s (%.2f s)",
                len(paths), size / 1e9, *hashed, *proven,
            )  # fmt: skip
    told = [statistics.median(of) for of in zip(*ratios, strict=True)]
    logger.info("proving takes %.2f times the hashing by the processor's time, %.2f by the wall", *told)


def silent(_what, _done, _total):
    pass


def timed(work):
    """Seconds of this process, and by the wall."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - cpu, time.perf_counter() - began
