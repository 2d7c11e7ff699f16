"""Rules about pictures that are there twice: the same bytes under two keys, and near duplicates on two sides of a split.

Legend: n crops, a and b distinct hashes of two splits.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt

from manifests.audit.findings import NUM_EXAMPLES, Finding, Severity, plural
from manifests.audit.keys import ODD, Hashes, Ints, Keys
from manifests.types import Split

# Of 64; were bits fair coins, two unlike pictures would be that near once in 10^16 times. Seen of 200 real and rendered crops each:
# written anew at quality 50 or at half the size, all are that near; 10 % brighter, 94 % and more; moved by 2 px, 62 %; by 4 px, 20 %.
# Different people of two splits differ in 12 bits and more (819 by 351 bodies), or 8 (1,086 by 448 hands), so 4 bits, which find
# 92 % of pictures moved by 2 px, would do for small builds; in 10^12 pairs of hands they would find thousands that are none.
NEAR_BITS = 2
BAND_BITS, NUM_BANDS = 16, 4  # hashes that differ in NEAR_BITS agree in at least two of these bands
MOST_CANDIDATES = 100_000_000  # that are compared; beyond, the hashes tell pictures apart so badly that nothing follows
AT_ONCE = 4_000_000
SIEVE_BITS = 24


def look_at_copies(keys: Keys, phash: Hashes, split: npt.NDArray[np.int8]) -> Iterator[Finding]:
    """Look for pictures of one split that look like pictures of another.

    Args:
        keys: of the crops.
        phash: (n,) their perceptual hashes.
        split: (n,) number of each crop's split; negative ones are unknown and left out.
    """
    sides = {}
    for number in range(len(Split)):
        mine = np.sort(phash[split == number])  # np.unique takes fifty times as long
        sides[number] = mine[np.append(True, mine[1:] != mine[:-1])] if len(mine) else mine
    for one, other in combinations(sides, 2):
        a, b, complete = near(sides[one], sides[other])
        names = list(Split)[one].value, list(Split)[other].value
        if not complete:
            message = f"the hashes of {names[0]} and {names[1]} are too much alike to look for near duplicates"
            yield Finding(rule="unchecked", severity=Severity.WARNING, table="crops", where="phash", message=message)
        if not len(a):
            continue
        first = [_first_rows(phash, split, number, found) for number, found in ((one, a), (other, b))]
        examples = tuple(name for rows in zip(*first, strict=True) for name in keys.names(np.array(rows)))
        message = f"{plural(len(a), 'picture')} of {names[0]} and {names[1]} look the same"
        yield Finding(
            rule="copies", severity=Severity.WARNING, table="crops", where=f"phash of {names[0]} and {names[1]}",
            message=message, count=len(a), examples=examples,
        )  # fmt: skip


def _first_rows(phash: Hashes, split: npt.NDArray[np.int8], side: int, hashes: Hashes) -> Ints:
    return np.array([int(np.argmax((phash == one) & (split == side))) for one in hashes[: NUM_EXAMPLES // 2]], np.int64)


def near(a: Hashes, b: Hashes, bits: int = NEAR_BITS) -> tuple[Hashes, Hashes, bool]:
    """Pairs of hashes, one of each side, that differ in at most so many bits, at most NEAR_BITS.

    Hashes that near agree in at least two of four bands, so only those that share two are compared.

    Args:
        a: distinct.
        b: distinct.
        bits: most that may differ.

    Returns:
        the two hashes of each pair, sorted by the first, and whether all candidates were compared.
    """
    if len(a) < len(b):
        second, first, complete = near(b, a, bits)
        order = np.lexsort((second, first))
        return first[order], second[order], complete
    found, left = [np.zeros((0, 2), np.uint64)], MOST_CANDIDATES
    for bands in combinations(range(NUM_BANDS), NUM_BANDS - NEAR_BITS):
        mask = np.uint64(sum(((1 << BAND_BITS) - 1) << (BAND_BITS * band) for band in bands))
        # Most of one side share two bands with nobody: a table of one bit for many values tells that without a search.
        there = np.zeros(1 << SIEVE_BITS, bool)
        there[_sieve(b & mask)] = True
        some = a[there[_sieve(a & mask)]]
        order = np.argsort(b & mask, kind="stable")
        shared = (b & mask)[order]
        start, stop = (np.searchsorted(shared, some & mask, side=side) for side in ("left", "right"))
        ends = np.cumsum(stop - start)
        total = int(ends[-1]) if len(ends) else 0
        left -= total
        if left < 0:
            return np.zeros(0, np.uint64), np.zeros(0, np.uint64), False
        for low in range(0, total, AT_ONCE):
            number = np.arange(low, min(low + AT_ONCE, total))
            row = np.searchsorted(ends, number, side="right")
            partner = b[order[stop[row] - (ends[row] - number)]]
            fit = np.bitwise_count(some[row] ^ partner) <= bits
            found.append(np.stack([some[row][fit], partner[fit]], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[:, 0], pairs[:, 1], True


def _sieve(values: Hashes) -> Hashes:
    return (values * ODD[0]) >> np.uint64(64 - SIEVE_BITS)


def look_at_same_images(
    keys: Keys, digests: Ints, known: npt.NDArray[np.bool_], split: npt.NDArray[np.int8]
) -> Iterator[Finding]:
    """Look for images that are stored for several crops, byte for byte.

    Args:
        keys: of the crops.
        digests: (n,) of their images.
        known: (n,) whether they could be read.
        split: (n,) number of each crop's split.
    """
    order = np.argsort(digests, kind="stable")
    order = order[known[order]]
    same = digests[order][1:] == digests[order][:-1]
    across = same & (split[order][1:] != split[order][:-1])
    # Rows that go on with the image of the row before; a run that crosses a split is told once, as that.
    for bad, severity, message in (
        (across, Severity.ERROR, "one image is stored in two splits"),
        (same & ~across, Severity.WARNING, "one image is stored for several crops"),
    ):
        places = np.flatnonzero(bad)
        if len(places):
            some = places[: NUM_EXAMPLES // 2]
            rows = np.stack([order[some], order[some + 1]], axis=1).ravel()
            yield Finding(
                rule="copies", severity=severity, table="crops", where="jpeg", message=message, count=len(places),
                examples=tuple(keys.names(rows)),
            )  # fmt: skip
