"""CPU time of our stream per pair, against the least that decoding costs and against stock webdataset, in one run.

Run it on a quiet machine: `python -m pytest tests/bench/bench_loader.py -o log_cli=true -o log_cli_level=INFO`.

All cases read the same tars from the page cache and end with the same arrays: uint8 pictures of both roles and boolean
silhouettes, 64 pairs a batch. Rounds are interleaved, and a ratio is the median of the quotients of the same round.
"""

import json
import logging
import statistics
import time
from itertools import islice

import numpy as np
import pytest
import simplejpeg

from manifests.sample import read_tar, unpack_cells
from manifests.types import Split
from tests.support.builds import Made, write_shards
from training.data import AHEAD, PairStream

logger = logging.getLogger(__name__)

BATCH, BATCHES, ROUNDS = 64, 12, 7
SETTLE_S = 0.4


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("bench") / "shards", [Made(source="a", rows=(256, 256, 256))])


def floor(built):
    """Two decodes a pair into one buffer, from bytes in memory: no reading, no batch, no silhouette."""
    samples = [s for path in sorted(built.glob("*.tar")) for s in read_tar(path)]
    buffer = np.empty((256, 256, 3), np.uint8)

    def run():
        for sample in islice(samples, BATCH * BATCHES):
            simplejpeg.decode_jpeg(sample.target_jpg, buffer=buffer)
            simplejpeg.decode_jpeg(sample.reference_jpg, buffer=buffer)

    return run


def ours(built, threads):
    stream = PairStream(built, split=Split.TRAIN, seed=0, batch_size=BATCH, threads=threads)
    for _ in range(4):  # opens and hashes the shards, and fills the ring of memory
        next(stream)
    time.sleep(SETTLE_S)

    def run():
        began = time.perf_counter()
        for batch in islice(stream, BATCHES):
            assert batch.target_cells_BGG.shape == (BATCH, 64, 64)
        wall_s = (time.perf_counter() - began) / (BATCHES - AHEAD) * BATCHES  # AHEAD batches were there already
        # The stream has gone on reading ahead: when it is done, it has decoded as many batches as we took.
        time.sleep(SETTLE_S)
        return wall_s

    return run


def stock(built, decode):
    """Stock webdataset with its shuffle buffer and its collation, in this process."""
    wds = pytest.importorskip("webdataset")

    def arrays(sample):
        images = [decode(sample[name]) for name in ("target.jpg", "reference.jpg")]
        cells = [unpack_cells(sample[name]) for name in ("target.sil", "reference.sil")]
        json.loads(sample["json"])
        return (*images, *cells)

    urls = [str(path) for path in sorted(built.glob("*.tar"))]
    dataset = wds.WebDataset(urls, shardshuffle=3).shuffle(256).map(arrays).batched(BATCH)

    def run():
        count = 0
        for target, _, cells, _ in dataset:
            assert target.shape == (BATCH, 256, 256, 3)
            assert cells.shape == (BATCH, 64, 64)
            count += 1
        assert count == BATCHES

    return run


def pil(data):
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves its tars open
def test_cpu_time_per_pair(built):
    cases = {
        "floor": floor(built),
        "ours, 1 thread": ours(built, 1),
        "ours, 2 threads": ours(built, 2),
        "webdataset + simplejpeg": stock(built, simplejpeg.decode_jpeg),
        "webdataset + PIL": stock(built, pil),
    }
    cpu_us: dict[str, list[float]] = {name: [] for name in cases}
    wall_us: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(ROUNDS + 1):
        for name, run in cases.items():
            cpu, wall = time.process_time(), time.perf_counter()
            wall_s = run() or time.perf_counter() - wall
            if turn:  # the first turn warms up
                cpu_us[name].append((time.process_time() - cpu) / (BATCH * BATCHES) * 1e6)
                wall_us[name].append(wall_s / (BATCH * BATCHES) * 1e6)

    def ratio(above, below, times=cpu_us):
        return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))

    for name in cases:
        logger.info(
            "%-24s %5.0f us CPU a pair, %5.0f us wall, %.2f x the floor",
            name,
            statistics.median(cpu_us[name]),
            statistics.median(wall_us[name]),
            ratio(name, "floor"),
        )
    logger.info("2 threads are %.2f x as fast as 1", ratio("ours, 1 thread", "ours, 2 threads", wall_us))
    logger.info("webdataset takes %.2f x our CPU time", ratio("webdataset + simplejpeg", "ours, 2 threads"))
    assert ratio("ours, 2 threads", "floor") <= 1.25
    assert ratio("webdataset + simplejpeg", "ours, 2 threads") >= 1.5
