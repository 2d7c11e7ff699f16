"""Candidates: the unordered pairs that may be drawn, numbered without being listed.

A group of g crops holds g (g - 1) / 2 candidates, so a number names a group and a pair inside it. That keeps a sequence of
billions of candidates as cheap as the pairs that are drawn from it.

Legend: n candidates, K further views.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MOST_AT_ONCE = 1 << 20  # candidates looked at together


@dataclass(frozen=True, slots=True)
class Candidates:
    """Crops in groups, and how many unordered pairs the groups hold.

    Attributes:
        rows: crop rows, group after group.
        starts: where each group begins in `rows`.
        sizes: crops of each group.
        before: pairs in all groups before this one; one longer than `sizes`, so the last is their total.
    """

    rows: Ints
    starts: Ints
    sizes: Ints
    before: Ints

    @property
    def total(self) -> int:
        """Number of candidates."""
        return int(self.before[-1])

    def rows_of(self, numbers: Ints) -> tuple[Ints, Ints]:
        """The two crop rows of candidates by number, first in row order first; (n,) to (n,), (n,)."""
        group = np.searchsorted(self.before, numbers, side="right") - 1
        low, high = pair_of(numbers - self.before[group])
        start = self.starts[group]
        return self.rows[start + low], self.rows[start + high]

    def others_of(self, taken: list[Ints], most: int, rng: np.random.Generator) -> tuple[Ints, Bools]:
        """Draw further crops of the groups that these crops are in: none twice, none of those that are taken.

        Args:
            taken: crop rows, (n,) each; those of one place in the lists are of one group.
            most: K, the crops wanted.
            rng: decides which.

        Returns:
            crop rows (n, K), and which of them there are (n, K): a group of g crops has g - len(taken) others.
        """
        place = np.empty_like(self.rows)  # where each row stands in `rows`
        place[self.rows] = np.arange(len(self.rows))
        group = np.repeat(np.arange(len(self.sizes)), self.sizes)[place[taken[0]]]
        used = [place[row] - self.starts[group] for row in taken]
        others = np.empty((len(group), most), np.int64)
        there = np.empty((len(group), most), bool)
        for k, chance in enumerate(rng.random((most, len(group)))):
            left = self.sizes[group] - len(used)
            there[:, k] = left > 0
            number = (chance * left).astype(np.int64)
            for low in np.sort(used, axis=0):  # count past those in use, from the lowest on
                number += number >= low
            others[:, k] = self.rows[self.starts[group] + np.where(left > 0, number, 0)]
            used.append(number)
        return others, there


@dataclass(frozen=True, slots=True)
class Windows:
    """Candidates of which the second crop follows the first within a window of time.

    Attributes:
        rows: crop rows, group after group, in the order of time.
        first: (n,) where in `rows` the window of each begins.
        before: candidates of all rows before this one; one longer than `rows`, so the last is their total.
    """

    rows: Ints
    first: Ints
    before: Ints

    @property
    def total(self) -> int:
        """Number of candidates."""
        return int(self.before[-1])

    def rows_of(self, numbers: Ints) -> tuple[Ints, Ints]:
        """The two crop rows of candidates by number, first in time first; (n,) to (n,), (n,)."""
        place = np.searchsorted(self.before, numbers, side="right") - 1
        return self.rows[place], self.rows[self.first[place] + numbers - self.before[place]]


def windows(groups: Candidates, time: Ints, known: Bools, edges: Ints) -> list[Windows]:
    """Sort the candidates of some groups by the time between their crops.

    Args:
        groups: of crops.
        time: (n,) of each crop, in ticks.
        known: (n,) whether it is known; other crops are in no window.
        edges: rising; each window reaches from one edge to before the next, in ticks.
    """
    group = np.repeat(np.arange(len(groups.sizes)), groups.sizes)
    there = known[groups.rows]
    rows, group = groups.rows[there], group[there]
    ticks = time[rows] - time[rows].min(initial=0)
    edges = np.minimum(edges, ticks.max(initial=0) + 1)  # no two crops are further apart
    at = group * (ticks.max(initial=0) + edges[-1] + 1) + ticks  # no window reaches into the next group
    order = np.argsort(at, kind="stable")
    rows, at = rows[order], at[order]
    found = []
    for low, high in pairwise(edges):
        first = np.maximum(np.searchsorted(at, at + low), 1 + np.arange(len(at)))
        counts = np.maximum(np.searchsorted(at, at + high) - first, 0)
        found.append(Windows(rows, first, np.concatenate([[0], np.cumsum(counts)])))
    return found


def pair_of(number: Ints) -> tuple[Ints, Ints]:
    """Number to pair: 0, 1, 2, 3... name (0,1), (0,2), (1,2), (0,3)...; low < high."""
    high = ((1 + np.sqrt(8.0 * number + 1)) / 2).astype(np.int64)
    # The square root may land one off for large numbers; put it right with integers.
    high -= high * (high - 1) // 2 > number
    high += (high + 1) * high // 2 <= number
    return number - high * (high - 1) // 2, high


def group_rows(codes: list[Ints]) -> Candidates:
    """Put rows that agree in all codes together, keeping their order inside each group."""
    order = np.lexsort(codes[::-1])
    if not len(order):
        return Candidates(order, np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(1, np.int64))
    change = np.any([np.diff(code[order]) != 0 for code in codes], axis=0)
    starts = np.concatenate([[0], np.flatnonzero(change) + 1]).astype(np.int64)
    sizes = np.diff(np.append(starts, len(order)))
    return Candidates(order, starts, sizes, np.concatenate([[0], np.cumsum(sizes * (sizes - 1) // 2)]))


def in_random_order(rng: np.random.Generator, total: int, *, batch: int, most: int) -> Iterator[Ints]:
    """The numbers below `total`, each once, in random order, batch after batch.

    Args:
        rng: decides the order.
        total: how many numbers there are.
        batch: how many come first; later batches grow.
        most: stop after about as many, where there are more.
    """
    batch = min(batch, MOST_AT_ONCE)
    seen = np.zeros(0, np.int64)
    while total > 4 * (len(seen) + batch):  # few of many: those that came before are rarely drawn again
        drawn = rng.integers(total, size=batch)
        drawn = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
        new = drawn[~np.isin(drawn, seen, assume_unique=True)]
        yield new
        seen = np.concatenate([seen, new])
        if len(seen) >= most:
            return
        batch = min(2 * batch, MOST_AT_ONCE)
    rest = rng.permutation(np.setdiff1d(np.arange(total), seen, assume_unique=True))
    for start in range(0, len(rest), batch):
        yield rest[start : start + batch]


def accept(codes: list[Ints], rooms: list[Ints]) -> Ints:
    """Take what comes, in order, as long as there is room in each of the classes that it belongs to.

    Args:
        codes: per way to class, the class of each that comes, (n,).
        rooms: per way to class, how many more each class takes; counted down here.

    Returns:
        places of those that are taken. Nothing else of what came fits in.
    """
    waiting, taken = np.arange(len(codes[0])), [np.zeros(0, np.int64)]
    while True:
        open_ = np.all([room[code[waiting]] > 0 for code, room in zip(codes, rooms, strict=True)], axis=0)
        waiting = waiting[open_]
        if not len(waiting):
            return np.concatenate(taken)
        # The first of each class is always among them, so every pass takes some.
        fits = np.all(
            [rank_in_class(code[waiting]) < room[code[waiting]] for code, room in zip(codes, rooms, strict=True)],
            axis=0,
        )
        taken.append(waiting[fits])
        for code, room in zip(codes, rooms, strict=True):
            room -= np.bincount(code[waiting[fits]], minlength=len(room))
        waiting = waiting[~fits]


def rank_in_class(codes: Ints) -> Ints:
    """How many of the same class came before; (n,) to (n,)."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=codes.min(initial=0) - 1))
    rank = np.empty(len(codes), np.int64)
    rank[order] = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    return rank


def apportion(total: int, shares: tuple[float, ...]) -> Ints:
    """Whole numbers in the proportion of the shares, as near as they come, that add up to the total."""
    edges = np.rint(total * np.cumsum((0.0, *shares)) / sum(shares)).astype(np.int64)
    return np.diff(edges)
