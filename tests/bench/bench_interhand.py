"""InterHand's index: how fast a data.json of a gigabyte is read, in how much memory, and what one scan of it costs.

Run it on a quiet machine with 1.1 GB free for temporary files:
`python -m pytest tests/bench/bench_interhand.py --timeout 0 -o log_cli=true -o log_cli_level=INFO`.

The file is written here: as many pictures in as many sequences and cameras as in the real training set at 5 fps. It is read
in a process of its own, whose peak memory is told by the kernel; beside it stands a pass that decodes every item and keeps none.
"""

import json
import logging
import subprocess
import sys

import pytest

logger = logging.getLogger(__name__)

CAPTURES, SEQUENCES, CAMERAS, FRAMES = 27, 60, 80, 11  # 1.4 million pictures
MOST_TIMES_DECODING, MOST_PEAK_MB = 1.6, 700

READ = """
import json, resource, sys, time
from pathlib import Path
from manifests.jsonstream import iter_arrays
from manifests.types import Split
from pipeline.recipes import SourceRecipe
from pipeline.sources.interhand import InterHandSource

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

root, what = Path(sys.argv[1]), sys.argv[2]
before_mb, began = peak_mb(), time.perf_counter()
told = {}
if what == "decode":
    for _ in iter_arrays(root / "annotations/train/InterHand2.6M_train_data.json", ("images", "annotations")):
        pass
else:
    source = InterHandSource(SourceRecipe(kind="interhand", name="interhand"), root / "work")
    for _ in source.prepare(root):
        pass
told["seconds"], told["before_mb"], told["peak_mb"] = time.perf_counter() - began, before_mb, peak_mb()
if what == "index":
    began = time.perf_counter()
    recordings = source.recordings(root)
    told["recordings"], told["listing_s"] = len(recordings), time.perf_counter() - began
    began = time.perf_counter()
    for recording in recordings[:20]:
        scan = source.scan(root, recording, split=Split.TRAIN)
        assert len(scan.rejects) == 1, scan.rejects[:2]
    told["scan_s"] = (time.perf_counter() - began) / 20
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root of empty folders and one large data.json."""
    root = tmp_path_factory.mktemp("interhand")
    labels = root / "annotations/train"
    labels.mkdir(parents=True)
    places = [(c, f"{s:04d}_sequence") for c in range(CAPTURES) for s in range(SEQUENCES)]
    pictures = [(400000 + cam, 18 * k + 4000) for k in range(FRAMES) for cam in range(CAMERAS)]
    valid = json.dumps([[1]] * 42)
    with (labels / "InterHand2.6M_train_data.json").open("w") as file:
        file.write('{"images": [')
        for number, (capture, name) in enumerate(places):
            (root / f"images/train/Capture{capture}/{name}").mkdir(parents=True)
            file.write(", " if number else "")
            file.write(
                ", ".join(
                    f'{{"id": {number * len(pictures) + k}, "file_name": "Capture{capture}/{name}/cam{cam}/image{frame}.jpg", '
                    f'"width": 334, "height": 512, "capture": {capture}, "subject": {capture}, "seq_name": "{name}", '
                    f'"camera": "{cam}", "frame_idx": {frame}}}'
                    for k, (cam, frame) in enumerate(pictures)
                )
            )
        file.write('], "annotations": [')
        for number in range(len(places)):
            file.write(", " if number else "")
            file.write(
                ", ".join(
                    f'{{"id": {k}, "image_id": {k}, "bbox": [{33.56839370727539 + k % 50}, 164.92373657226562, '
                    f'185.057861328125, 142.7256622314453], "joint_valid": {valid}, "hand_type": "interacting", "hand_type_valid": 1}}'
                    for k in range(number * len(pictures), (number + 1) * len(pictures))
                )
            )
        file.write("]}")
    return root


def read(root, what):
    done = subprocess.run(
        [sys.executable, "-c", READ, str(root), what], check=True, capture_output=True, text=True, timeout=1800
    )
    return json.loads(done.stdout)


def test_a_gigabyte_is_read_once_in_little_memory(root):
    size_mb = (root / "annotations/train/InterHand2.6M_train_data.json").stat().st_size / 1e6
    decoded, indexed = read(root, "decode"), read(root, "index")
    pictures = CAPTURES * SEQUENCES * CAMERAS * FRAMES
    for what, told in (("every item decoded and dropped", decoded), ("index", indexed)):
        logger.info(
            "%-30s %6.0f MB in %5.1f s: %5.1f MB/s, peak %4.0f MB (%.0f MB of it before)",
            what, size_mb, told["seconds"], size_mb / told["seconds"], told["peak_mb"], told["before_mb"],
        )  # fmt: skip
    index = next((root / "work").glob("*.parquet")).stat().st_size
    grown = (indexed["peak_mb"] - indexed["before_mb"]) * 2**20 / pictures
    logger.info("%d pictures: %.0f bytes each at the peak, index of %.1f MB", pictures, grown, index / 1e6)
    logger.info(
        "%d recordings in %.2f s; a scan %.0f ms", indexed["recordings"], indexed["listing_s"], 1e3 * indexed["scan_s"]
    )
    assert indexed["recordings"] == CAPTURES * SEQUENCES
    assert indexed["seconds"] <= MOST_TIMES_DECODING * decoded["seconds"]
    assert indexed["peak_mb"] <= MOST_PEAK_MB
