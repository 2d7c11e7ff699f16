"""What belongs to the machine: memory that is held, groups of processes that are left."""

import ctypes
import os
import random
import subprocess
import sys

import pytest

PAGES_OF_A_STEP = """
import resource, sys, torch
from training.machine import hold_memory
if sys.argv[1] == "hold":
    hold_memory()
def step():
    torch.ones(16 * 2**20)  # 64 MiB
for _ in range(20):  # until the heap has a place for it
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_held_memory_is_not_mapped_again():
    def new_pages(how):
        command = [sys.executable, "-c", PAGES_OF_A_STEP, how]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    assert new_pages("release") > 1000  # 16,384 of 4 KiB, fewer where they are larger
    assert new_pages("hold") < 100


LEFT_OVER_AND_OVER = """
import os, sys, torch
from torch import nn
from training.machine import Machine, Processes

torch.set_num_threads(1)
for port in sys.argv[1:]:
    os.environ["MASTER_PORT"] = port
    processes = Processes(Machine())
    with processes:
        network = processes.wrap(nn.Linear(8, 8))
        network(torch.ones(2, 8)).sum().backward()
        processes.from_all(port)
    del network
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nobody_stands_still_who_leaves_a_group():
    """DDP, letting go of a group last, did now and then."""
    ports = [str(port) for port in random.sample(range(20_000, 32_000), 100)]
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LEFT_OVER_AND_OVER, *ports]
    workers = [subprocess.Popen(command, env={**common, "RANK": str(rank)}) for rank in (0, 1)]
    try:
        assert [worker.wait(timeout=240) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
