"""Shards: planning ten million pairs, packing against a plain copy of the same bytes, and how well shards mix.

Run it on a quiet machine: `python -m pytest tests/bench/bench_shards.py --timeout 0 -o log_cli=true -o log_cli_level=INFO`.

- Planning: time and peak memory of all that happens before the first shard, in a process of its own.
- Packing: the whole stage in one process, against copying the members of its shards into new tars with `tarfile`, in one run,
  in turn, by the processor's time: the time of the wall is told too, and is the disk's. The crops are of noise: nothing
  decodes them.
- Mixing, after MosaicML's simulator: different sequences in a batch of 256 of the training stream, which mixes the pairs of 8
  shards at a time, against a batch drawn from all pairs.
"""

import hashlib
import io
import json
import logging
import os
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from manifests.commit import UnitWriter
from manifests.files import write_json
from manifests.lineage import own_stamp
from manifests.seeds import rng_for
from pipeline.executors import LocalExecutor
from pipeline.pairs import sample_pairs
from pipeline.recipes import BuildRecipe, PairRecipe, ShardRecipe, SourceRecipe
from pipeline.shards import mix, plan_shards
from pipeline.stage import run_stage
from pipeline.stages import Shards
from tests.support.crops import recording
from tests.support.toy_stage import SilentWatcher
from training.order import BLOCK_SHARDS, Order, ShardRows

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
RECIPE = BuildRecipe(name="bench", sources=(SourceRecipe(kind="cameras", name="cameras"),))
BATCH, BATCHES = 256, 40


def many_sequences(root: Path, num_sequences: int, pairs_each: int) -> None:
    """Crops and pairs of many sequences as the pairs stage leaves them: each the same files, under other names."""
    crops = recording(views=4, instants=8, sequence="s")
    pairs, _ = sample_pairs(crops, PairRecipe(cross_view=20, cross_pose=20), seed=0, weight=1.0)
    pairs = pairs.take(pa.array(np.arange(pairs_each) % pairs.num_rows))
    own: dict[str, dict[str, object]] = {}
    read: dict[str, str] = {}  # what the stage before handed on
    for stage, data in (("crops", crops.slice(0, 1)), ("pairs", pairs)):
        (root / stage).mkdir(parents=True)
        with UnitWriter(root / stage, stage=stage, unit="first", fingerprint="f") as out:
            out.table(stage, data)
        first = root / stage / f"first.{stage}.parquet"
        commit = json.loads((root / stage / "first.json").read_text())
        for number in range(num_sequences):
            unit = f"cameras-s{number:06d}"
            os.link(first, root / stage / f"{unit}.{stage}.parquet")
            own[unit] = {"recipe": None, "inputs": read}
            named = {"unit": unit, "own": own_stamp(own[unit])}
            files = [commit["files"][0] | {"name": f"{unit}.{stage}.parquet"}]
            (root / stage / f"{unit}.json").write_text(json.dumps(commit | named | {"files": files}))
        read = {stage: commit["files"][0]["sha256"]}
        for path in (root / stage).glob("first.*"):
            path.unlink()
        write_json(root / stage / "plan.json", {"fingerprint": "f", "units": sorted(own), "own": own})


PLAN = """
import resource, sys, time
from pathlib import Path
from tests.bench.bench_shards import RECIPE
from pipeline.stages import Shards
from pipeline.stage import _settle_plan
out, stage = Path(sys.argv[1]), None
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.monotonic()
stage = Shards(RECIPE, out)
plan = stage.plan()
(out / "shards").mkdir()
_settle_plan(stage, plan, out / "shards", extend=False)
took = time.monotonic() - began
print(took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, base / 2**20, len(plan.units))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("num_sequences", [10_000])
def test_planning_ten_million_pairs(tmp_path: Path, num_sequences: int) -> None:
    pairs = 10_000_000
    many_sequences(tmp_path, num_sequences, pairs // num_sequences)
    done = subprocess.run(
        [sys.executable, "-c", PLAN, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    took, peak, base, num_shards = map(float, done.stdout.split())
    logger.info(
        "%d pairs of %d sequences: %d shards planned in %.1f s, peak memory %.2f GiB (%.2f before)",
        pairs, num_sequences, num_shards, took, peak, base,
    )  # fmt: skip
    assert took < 60
    assert peak < 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_packing_against_a_plain_copy(tmp_path: Path) -> None:
    noise = rng_for("noise")
    for name in ("crops", "pairs"):
        (tmp_path / name).mkdir()
    for number in range(24):
        crops = recording(views=4, instants=64, sequence=f"s{number}")
        jpegs = [noise.bytes(int(size)) for size in noise.normal(16_000, 3_000, crops.num_rows).clip(4_000, 40_000)]
        at = crops.schema.get_field_index("jpeg")
        crops = crops.set_column(at, crops.schema.field(at), pa.array(jpegs, pa.binary()))
        pairs, _ = sample_pairs(crops, PairRecipe(cross_view=170, cross_pose=171), seed=0, weight=1.0)
        for stage, data in (("crops", crops), ("pairs", pairs)):
            with UnitWriter(tmp_path / stage, stage=stage, unit=f"cameras-s{number}", fingerprint="f") as out:
                out.table(stage, data)
    for stage in ("crops", "pairs"):
        units = [f"cameras-s{number}" for number in range(24)]
        write_json(tmp_path / stage / "plan.json", {"fingerprint": "f", "units": units})
    folder = tmp_path / "shards"
    ratios: dict[str, list[float]] = {"copy": [], "copy, fsync and hash": []}
    for turn in range(3):
        stage = Shards(replace(RECIPE, name=f"turn {turn}"), tmp_path)
        took = timed(lambda stage=stage: run_stage(stage, tmp_path, LocalExecutor(), SilentWatcher()))
        tars = sorted(folder.glob("*.tar"))
        size = sum(tar.stat().st_size for tar in tars) / 1e6
        logger.info("%d shards, %.0f MB: packed in %.2f s (%.2f s by the wall)", len(tars), size, *took)
        for how in ratios:
            plain = timed(
                lambda how=how, tars=tars: [copy_tar(tar, tmp_path / tar.name, safe=how != "copy") for tar in tars]
            )
            ratios[how].append(took[0] / plain[0])
            logger.info("  %s in %.2f s (%.2f s by the wall)", how, *plain)
        for path in [*folder.iterdir(), *tmp_path.glob("*.tar")]:
            path.unlink()
    for how, found in ratios.items():
        told = ", ".join(f"{ratio:.2f}" for ratio in found)
        logger.info("packing takes %.2f times the %s (%s)", statistics.median(found), how, told)
    assert statistics.median(ratios["copy"]) < 1.3


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of this process, and by the wall."""
    began, cpu = time.monotonic(), time.process_time()
    work()
    return time.process_time() - cpu, time.monotonic() - began


def copy_tar(source: Path, target: Path, *, safe: bool) -> None:
    """Copy each member's bytes into a new tar; `safe` as whoever wants to be sure of it would."""
    with tarfile.open(source) as old, target.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as new:
            for member in old:
                data = old.extractfile(member).read()
                info = tarfile.TarInfo(member.name)
                info.size = len(data)
                new.addfile(info, io.BytesIO(data))
        if safe:
            file.flush()
            os.fsync(file.fileno())
    if safe:
        with target.open("rb") as file:
            hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(("num_sequences", "pairs_each"), [(100, 4000), (1000, 1000), (5000, 1000), (20000, 40)])
def test_mixing_against_a_perfect_shuffle(tmp_path: Path, num_sequences: int, pairs_each: int) -> None:
    many_sequences(tmp_path, num_sequences, pairs_each)
    units = {f"cameras-s{number:06d}": "hash" for number in range(num_sequences)}
    works = plan_shards(tmp_path / "pairs", [units], rows=ShardRecipe().rows, seed=0)
    shards = [ShardRows(name=name, source="cameras", weight=1.0, rows=w.stop - w.start) for name, w in works]
    order = Order(shards, seed=0)
    sequences, block = [], ""
    for _, work in works:
        if work.block != block:
            block, (portions, sequence, _) = work.block, mix(work)
            names = np.array([int(unit[-6:]) for unit in portions])
        sequences.append(names[sequence[work.start : work.stop]])
    starts = rng_for("batches").integers(0, order.rows - BATCH, BATCHES)
    found = []
    for start in starts.tolist():
        shard, row = order.locate(start + np.arange(BATCH))
        found.append(len({int(sequences[s][r]) for s, r in zip(shard.tolist(), row.tolist(), strict=True)}))
    perfect = num_sequences * (1 - (1 - 1 / num_sequences) ** BATCH)
    within = np.mean([len(np.unique(one)) for one in islice(sequences, 50)])
    logger.info(
        "%d sequences of %d pairs: %.0f different ones in a shard of 512; %.1f in a batch of %d from %d shards, perfect %.1f (%.0f%%)",
        num_sequences, pairs_each, within, np.mean(found), BATCH, BLOCK_SHARDS, perfect, 100 * np.mean(found) / perfect,
    )  # fmt: skip
    assert np.mean(found) > 0.8 * perfect
