"""Ingest against the bare listing of the same tree: files per second of `recordings` and `scan`, and of the whole stage.

Run it on a quiet machine: `python -m pytest tests/bench/bench_ingest.py --timeout 0 -o log_cli=true -o log_cli_level=INFO`.

The trees have the names of real datasets and hold empty files, but for the first image of each folder. They are listed from the
cache of the file system: on a cold disk or NFS both sides wait for the same reads, and the ratio comes nearer to 1.
"""

import logging
import os
import statistics
import time
from pathlib import Path

import numpy as np
import pytest

from manifests.types import Split
from pipeline.executors import LocalExecutor
from pipeline.recipes import dataset
from pipeline.sources import build_source
from pipeline.stage import run_stage
from pipeline.stages import Ingest
from tests.support.honest import write_jpeg
from tests.support.toy_stage import SilentWatcher

logger = logging.getLogger(__name__)

ROUNDS = 3


def walk(folder: Path | str) -> int:
    """Files below a folder, by `os.scandir` and nothing else."""
    files = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                files += walk(entry.path)
            else:
                files += 1
    return files


def fill(folder: Path, names: list[str], size: tuple[int, int]) -> None:
    """Empty files, the first a true image of (width, height)."""
    folder.mkdir(parents=True)
    write_jpeg(folder / names[0], np.full((size[1], size[0], 3), 90, np.uint8))
    for name in names[1:]:
        os.close(os.open(folder / name, os.O_CREAT | os.O_WRONLY))


def grow_mars(root: Path) -> None:
    """400 people, 300,000 crops."""
    for person in range(1, 401):
        stem = f"{person:04d}C%dT%04dF%03d.jpg"
        names = [stem % (1 + t % 6, 1 + t // 6, f) for t in range(15) for f in range(1, 51)]
        fill(root / "bbox_train" / f"{person:04d}", names, (128, 256))


def grow_humbi(root: Path) -> None:
    """12 subjects, 60 instants, 107 cameras: 77,000 images."""
    cameras = range(107)
    K = "1500 0 960\n0 1500 540\n0 0 1\n"
    for subject in range(1, 13):
        home = root / "Body_1_80" / f"subject_{subject}" / "body"
        home.mkdir(parents=True)
        head = "Numcam: 107\nnumframes: 60\nnumP: 1\n"
        home.joinpath("intrinsic.txt").write_text(head + "".join(f"0 {c}\n{K}" for c in cameras))
        pose = "0 -3 0\n{a} 0 {b}\n0 1 0\n{c} 0 {a}\n".replace("0 -3 0", "0 0 -3")
        turns = [(np.cos(c / 17), np.sin(c / 17)) for c in cameras]
        text = "".join(f"0 {c}\n" + pose.format(a=a, b=b, c=-b) for c, (a, b) in zip(cameras, turns, strict=True))
        home.joinpath("extrinsic.txt").write_text(head + text)
        for instant in range(1, 961, 16):
            fill(home / f"{instant:08d}" / "image", [f"image{c:07d}.jpg" for c in cameras], (1920, 1080))


@pytest.mark.timeout(0)
@pytest.mark.parametrize(("kind", "grow"), [("mars", grow_mars), ("humbi", grow_humbi)])
def test_files_per_second(kind, grow, tmp_path):
    root = tmp_path / kind
    grow(root)
    recipe = dataset(kind)
    num_files = walk(root)
    times: dict[str, list[float]] = {"walk": [], "scan": [], "stage": []}
    frames = 0
    for turn in range(ROUNDS):
        began = time.perf_counter()
        walk(root)
        times["walk"].append(time.perf_counter() - began)

        began = time.perf_counter()
        source = build_source(recipe.sources[0], tmp_path / "work")
        scans = [source.scan(root, one, split=one.split or Split.TRAIN) for one in source.recordings(root)]
        times["scan"].append(time.perf_counter() - began)
        frames = sum(scan.frames.num_rows for scan in scans)

        began = time.perf_counter()
        out = tmp_path / f"out{turn}"
        run_stage(Ingest(recipe, {kind: root}, out), out, LocalExecutor(), SilentWatcher())
        times["stage"].append(time.perf_counter() - began)
    assert frames > 0.9 * num_files
    for name, seconds in times.items():
        share = statistics.median(w / s for w, s in zip(times["walk"], seconds, strict=True))
        rate = num_files / statistics.median(seconds)
        logger.info("%-8s %-6s %9s files a second, %.2f of the walk", kind, name, f"{rate:,.0f}", share)
