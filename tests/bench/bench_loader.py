"""CPU time of a pair and pairs a second, with 1 and 2 workers: our stream, what one would use instead, and the least there is.

Run it on a quiet machine: `python -m pytest tests/bench/bench_loader.py --timeout 0 -o log_cli=true -o log_cli_level=INFO`.

All cases read the same 768 samples from the page cache, in a shuffled order, and end with the same arrays: uint8 pictures of
both roles and boolean silhouettes, 64 pairs a batch (a checksum holds them to that). All decode with simplejpeg, the fastest
decoder here; stock webdataset runs with its own, PIL, as well. Our workers are threads, the others' are processes of a DataLoader,
whose CPU time counts. Rounds are interleaved, and a ratio is the median of the quotients of the same round, so that other work
on the machine falls on all alike; pairs a second mean something on a quiet machine only. Loaders that are not installed are passed over: `pip install litdata mosaicml-streaming`
(not into the project's environment: they bring some hundred packages).
"""

import gc
import logging
import multiprocessing
import os
import shutil
import statistics
import time
from importlib import import_module
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, default_collate

from manifests.sample import read_tar, unpack_cells
from manifests.types import Split
from tests.support.builds import Made, write_shards
from training.data import AHEAD, PairStream

logger = logging.getLogger(__name__)

BATCH, ROUNDS = 64, 5
ROWS = (192, 192, 192, 192)
PAIRS = sum(ROWS)
BATCHES = PAIRS // BATCH
CHUNK_BYTES = 6 << 20  # a quarter of the pairs, as in our shards
SETTLE_S = 0.4
MEMBERS = ("target.jpg", "reference.jpg", "target.sil", "reference.sil")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("bench") / "shards", [Made(source="a", rows=ROWS)])


def samples_of(built):
    return [dict(sample.members()) for path in sorted(built.glob("*.tar")) for sample in read_tar(path)]


def arrays(sample, decode=simplejpeg.decode_jpeg):
    """A sample's bytes as arrays."""
    return (*(decode(sample[name]) for name in MEMBERS[:2]), *(unpack_cells(sample[name]) for name in MEMBERS[2:]))


def pil(data):
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


class Floor:
    """Two decodes a pair into one buffer, from bytes in memory: no reading, no batch, no silhouette."""

    def __init__(self, built):
        self.jpegs = [sample[name] for sample in samples_of(built) for name in MEMBERS[:2]]
        self.buffer = np.empty((256, 256, 3), np.uint8)

    def round(self):
        for jpeg in self.jpegs:
            simplejpeg.decode_jpeg(jpeg, buffer=self.buffer)

    def sum(self):
        return sum(int(simplejpeg.decode_jpeg(jpeg).sum()) for jpeg in self.jpegs)

    def close(self):
        pass


class Ours:
    def __init__(self, built, threads):
        self.stream = PairStream(built, split=Split.TRAIN, seed=0, batch_size=BATCH, threads=threads)

    def sum(self):
        """The stream's first epoch."""
        total = sum(int(b.target_BHWC.sum()) + int(b.reference_BHWC.sum()) for b in islice(self.stream, BATCHES))
        time.sleep(SETTLE_S)
        return total

    def round(self):
        began = time.perf_counter()
        for batch in islice(self.stream, BATCHES):
            assert batch.target_cells_BGG.shape == (BATCH, 64, 64)
        wall_s = (time.perf_counter() - began) / (BATCHES - AHEAD) * BATCHES  # AHEAD batches were there already
        # The stream has gone on reading ahead: when it is done, it has decoded as many batches as we took.
        time.sleep(SETTLE_S)
        return wall_s

    def close(self):
        self.stream.close()


class Loader:
    """A DataLoader whose worker processes stay; one round is one epoch."""

    def __init__(self, loader):
        self.loader = loader
        self.sum()

    def sum(self):
        return sum(int(target.sum()) + int(reference.sum()) for target, reference, _, _ in self.loader)

    def round(self):
        num_pairs = 0
        for target, _, cells, _ in self.loader:
            assert cells.dtype == torch.bool
            num_pairs += len(target)
        assert num_pairs == PAIRS

    def close(self):
        self.loader = None


class Loose(Dataset):
    """A file for each member of each sample."""

    def __init__(self, built, folder):
        if not folder.exists():
            folder.mkdir()
            for number, sample in enumerate(samples_of(built)):
                for name in MEMBERS:
                    (folder / f"{number:06d}.{name}").write_bytes(sample[name])
        self.folder = folder

    def __len__(self):
        return PAIRS

    def __getitem__(self, index):
        return arrays({name: Path(self.folder / f"{index:06d}.{name}").read_bytes() for name in MEMBERS})


def loose(built, folder, workers):
    dataset = Loose(built, folder / "loose")
    return DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=True)


def webdataset(built, workers, decode):
    import webdataset as wds

    urls = [str(path) for path in sorted(built.glob("*.tar"))]
    dataset = wds.WebDataset(urls, shardshuffle=4).shuffle(256).map(lambda sample: arrays(sample, decode))
    dataset = dataset.batched(BATCH, collation_fn=default_collate)
    return DataLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=True)


def litdata(built, folder, workers):
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    if not (folder / "lit").exists():
        writer = BinaryWriter(str(folder / "lit"), chunk_bytes=CHUNK_BYTES)
        for number, sample in enumerate(samples_of(built)):
            writer[number] = {name: sample[name] for name in MEMBERS}
        writer.done()
        writer.merge()

    class Decoded(StreamingDataset):
        def __getitem__(self, index):
            return arrays(super().__getitem__(index))

    dataset = Decoded(str(folder / "lit"), shuffle=True)
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers, persistent_workers=True)


def mosaic(built, folder, workers):
    from streaming import MDSWriter, StreamingDataset

    out = folder / f"mds{workers}"  # two datasets may not share a folder
    with MDSWriter(out=str(out), columns=dict.fromkeys(MEMBERS, "bytes"), size_limit=CHUNK_BYTES) as writer:
        for sample in samples_of(built):
            writer.write({name: sample[name] for name in MEMBERS})

    class Decoded(StreamingDataset):
        def __getitem__(self, index):
            return arrays(super().__getitem__(index))

    dataset = Decoded(local=str(out), shuffle=True, batch_size=BATCH, num_canonical_nodes=1)
    return DataLoader(dataset, BATCH, num_workers=workers, persistent_workers=True)


def cpu_s():
    """CPU time of this process and of its workers so far."""
    total = time.process_time()
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) * TICK_S
    return total


def is_there(name):
    try:
        import_module(name)
    except ImportError as error:
        logger.info("%s is passed over: %s", name, error)
        return False
    return True


@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")  # the others' own
def test_cpu_time_per_pair(built, tmp_path):
    makers = {"webdataset + PIL, 1": lambda: webdataset(built, 1, pil)}
    for workers in (1, 2):
        makers[f"webdataset, {workers}"] = lambda w=workers: webdataset(built, w, simplejpeg.decode_jpeg)
        makers[f"loose files, {workers}"] = lambda w=workers: loose(built, tmp_path, w)
        if is_there("litdata"):
            makers[f"litdata, {workers}"] = lambda w=workers: litdata(built, tmp_path, w)
        if is_there("streaming"):
            makers[f"mosaicml, {workers}"] = lambda w=workers: mosaic(built, tmp_path, w)
    # Processes are forked before there are threads.
    cases = {name: Loader(make()) for name, make in makers.items()}
    cases |= {"floor": Floor(built), "ours, 1": Ours(built, 1), "ours, 2": Ours(built, 2)}
    expected = cases["floor"].sum()
    for name, case in cases.items():
        assert case.sum() == expected, f"{name} reads other pixels"

    cpu_us: dict[str, list[float]] = {name: [] for name in cases}
    wall_us: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            cpu, wall = cpu_s(), time.perf_counter()
            wall_s = case.round() or time.perf_counter() - wall
            cpu_us[name].append((cpu_s() - cpu) / PAIRS * 1e6)
            wall_us[name].append(wall_s / PAIRS * 1e6)
    for case in cases.values():
        case.close()
    gc.collect()
    shutil.rmtree(tmp_path)

    def ratio(above, below, times=cpu_us):
        return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))

    logger.info("load of the machine: %.1f %.1f %.1f on %d cores", *os.getloadavg(), os.cpu_count())
    for name in sorted(cases, key=lambda name: statistics.median(cpu_us[name])):
        logger.info(
            "%-22s %5.0f us CPU a pair, %.2f x the floor, %.2f x ours; %5.0f pairs/s",
            name,
            statistics.median(cpu_us[name]),
            ratio(name, "floor"),
            ratio(name, f"ours, {name[-1]}" if name[-1] in "12" else "ours, 1"),
            1e6 / statistics.median(wall_us[name]),
        )
    for workers in (1, 2):
        assert ratio(f"ours, {workers}", "floor") <= 1.15
        # The aim is 2.3; 2.3 to 2.5 was seen on a machine with three to four times as much work as cores.
        assert ratio(f"webdataset, {workers}", f"ours, {workers}") >= 2.1
        if f"litdata, {workers}" in cases:
            assert ratio(f"litdata, {workers}", f"ours, {workers}") >= 1.9
