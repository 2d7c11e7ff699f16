"""Wrong references for right targets: what a model that uses its reference must do worse with.

A negative is named by the sample whose reference takes the place of the true one, so a reader of shards has it at hand.

Legend: n samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manifests.seeds import rng_for
from manifests.types import FrameKey

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Negatives:
    """For each sample, the one to take a wrong reference from; -1 where there is none.

    Attributes:
        other_person: (n,) of the same source: another person of the same recording where it shows several, else one whose
            subject, or recording where no subject is known, is another.
        other_pose: (n,) the same person in the same recording, at an instant that is neither the target's nor the reference's.
    """

    other_person: Ints
    other_pose: Ints


def hard_negatives(
    target: Sequence[str], reference: Sequence[str], subject: Sequence[str | None], *, seed: int
) -> Negatives:
    """Draw a wrong reference of either kind for each of some samples, among themselves.

    Args:
        target: (n,) crop keys.
        reference: (n,) crop keys.
        subject: (n,) identities, None where unknown.
        seed: the same samples in the same order get the same negatives.
    """
    targets, references = ([FrameKey.parse(key) for key in keys] for keys in (target, reference))
    rng = rng_for(seed, "negatives")
    source = _codes([key.source for key in targets])
    place = _codes([(key.source, key.split, key.sequence) for key in targets])
    track = _codes([(key.source, key.split, key.sequence, key.track) for key in targets])
    named = [(key.source, who) for key, who in zip(targets, subject, strict=True)]
    # Of whom no subject is known, tracks tell apart who was recorded together, and recordings those who were not.
    person = _codes([name if name[1] is not None else t for name, t in zip(named, track.tolist(), strict=True)])
    stranger = _codes([name if name[1] is not None else p for name, p in zip(named, place.tolist(), strict=True)])
    beside = _draw_apart(place, person, [person], rng)
    away = _draw_apart(source, stranger, [stranger], rng)
    instants = np.array([[key.instant for key in keys] for keys in (targets, references)], np.int64)
    target_at, reference_at = np.unique(instants, return_inverse=True)[1].reshape(instants.shape)
    return Negatives(
        other_person=np.where(beside >= 0, beside, away),
        other_pose=_draw_apart(track, reference_at, [target_at, reference_at], rng),
    )


def _codes(names: Sequence[object]) -> Ints:
    """0, 1, 2, ...: equal numbers for equal names."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def _draw_apart(same: Ints, code: Ints, apart: list[Ints], rng: np.random.Generator) -> Ints:
    """For each place another, evenly drawn from those that agree in `same` and whose code is none of `apart`; -1: none is."""
    width = 1 + max((int(codes.max(initial=0)) for codes in (code, *apart)), default=0)
    order = np.argsort(same * width + code, kind="stable")
    sorted_codes = (same * width + code)[order]

    def run_of(low: Ints, high: Ints) -> tuple[Ints, Ints]:
        return np.searchsorted(sorted_codes, low), np.searchsorted(sorted_codes, high)

    start, end = run_of(same * width, (same + 1) * width)
    # What is left out, from the first on; what is named twice is left out once.
    left_out = np.sort([same * width + codes for codes in apart], axis=0)
    runs = [run_of(codes, codes + 1) for codes in left_out]
    sizes = [high - low for low, high in runs]
    for before, after, size in zip(left_out, left_out[1:], sizes[1:], strict=False):
        size[before == after] = 0
    left = end - start - sum(sizes)
    number = start + (rng.random(len(order)) * left).astype(np.int64)
    for (low, _), size in zip(runs, sizes, strict=True):
        number += np.where(number >= low, size, 0)
    drawn = np.full(len(order), -1)
    drawn[left > 0] = order[number[left > 0]]
    return drawn
