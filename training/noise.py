"""Uniform numbers by place: a pure function of (seed, index, column), drawn for a whole batch at once.

A generator object per pair would cost more than the masks and crops it feeds; a counter hashed by SplitMix64 costs
nanoseconds a number and needs no state to save.
Shape letters: `B` pairs, `U` numbers of a pair.
"""

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniform_noise(seed: int, index_B: npt.NDArray[np.int64], num: int) -> npt.NDArray[np.float64]:
    """Draw numbers that belong to the pairs at these places.

    Args:
        seed: 64-bit seed of the purpose, from `manifests.seeds.seed_for`.
        index_B: places in the stream.
        num: numbers for each pair, `U`.

    Returns:
        (B, U) in [0, 1), the same for a place whatever else is in the batch.

    Source: Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, 2014 (SplitMix64).
    """
    with np.errstate(over="ignore"):
        start_B = _mix(np.uint64(seed) + _GOLDEN * index_B.astype(np.uint64))
        counter_U = _GOLDEN * np.arange(1, num + 1, dtype=np.uint64)
        bits_BU = _mix(start_B[:, None] + counter_U)
    return (bits_BU >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed
