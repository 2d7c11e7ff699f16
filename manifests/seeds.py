"""Randomness by name: the same names give the same numbers on any worker, at any time."""

import hashlib

import numpy as np


def seed_for(*names: str | int) -> int:
    """Turn names into a 64-bit seed.

    Args:
        *names: what the numbers are for, from the general to the particular: `seed_for(7, "pairs", "rec1")`.

    Returns:
        An integer in [0, 2**64), independent of platform, process and Python's hash seed.
    """
    if not names:
        raise ValueError("a random stream needs at least one name")
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def rng_for(*names: str | int) -> np.random.Generator:
    """Open the random stream that belongs to these names.

    Convention: draw all of a sequence's numbers in one call from one stream; a stream per pair costs thousands of times more.
    """
    return np.random.Generator(np.random.PCG64(seed_for(*names)))
