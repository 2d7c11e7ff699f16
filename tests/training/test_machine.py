"""What belongs to the machine: memory that is held."""

import ctypes
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
