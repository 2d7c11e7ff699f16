"""Rules about the rows of one unit's frames, crops and pairs, by columns alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.audit.files import WORDY
from manifests.audit.findings import Finding, of_rows
from manifests.audit.geometry import Sight, look_at_cameras, look_at_rays
from manifests.audit.keys import Ints, codes_of, is_word, words_of
from manifests.table import KEY_COLUMNS, has_flag
from manifests.types import EVALUATION, KEY_PART, BoxFrom, Domain, PairKind, Reason, SilhouetteFrom, Split

Bools = npt.NDArray[np.bool_]

WORDS: dict[str, type[StrEnum]] = {
    "domain": Domain,
    "split": Split,
    "kind": PairKind,
    "reason": Reason,
    "box_from": BoxFrom,
    "silhouette_from": SilhouetteFrom,
}
RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "frames": {"instant": (0, np.inf), "media_index": (0, np.inf), "width": (1, np.inf), "height": (1, np.inf)},
    "crops": {"instant": (0, np.inf), "size_px": (1, 4096), "coverage": (0, 1), "mean": (0, 255)},
    "pairs": {
        "view_angle_rad": (0, np.pi + 1e-9), "weight": (1e-12, np.inf), "dt_s": (-1e9, 1e9), "covisibility": (0, 1),
    },
}  # fmt: skip
CLOCK_S = 1e-6  # times are written as float64 seconds: a difference beyond this is no rounding


@dataclass(frozen=True, slots=True)
class Classes:
    """Classes of pairs of one kind, and the share that is asked of each: `edges` rise, in degrees or seconds; `shares` add up to 1."""

    name: str
    edges: tuple[float, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, name: str, told: Any) -> "Classes | None":
        """Read them from a recipe; None where they are not told, or not as they should be."""
        try:
            edges, shares = (tuple(map(float, told[key])) for key in ("edges", "shares"))
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        whole = np.array([*edges, *shares])
        fit = len(edges) == len(shares) + 1 > 1 and np.isfinite(whole).all() and sum(shares) > 0 and min(shares) >= 0
        if not fit or not (np.diff(edges) > 0).all():
            return None
        return cls(name, edges, tuple(share / sum(shares) for share in shares))


@dataclass(frozen=True, slots=True)
class Asked:
    """What the recipe of the pairs asked for, as far as their plan tells.

    Attributes:
        weights: of each source in the mixture; none when the plan does not tell.
        min_hash_distance: bits in which the hashes of a pair's pictures differ at least.
        most: pairs of a kind that are wanted of a sequence.
        per_subject: most pairs of a kind that show one person.
        equal_kinds: whether there are as many of both kinds.
        classes: of angles for cross-view pairs, of times for cross-pose pairs, where the recipe has some.
    """

    weights: Mapping[str, float]
    min_hash_distance: int
    most: Mapping[PairKind, int] = field(default_factory=dict)
    per_subject: int | None = None
    equal_kinds: bool = False
    classes: Mapping[PairKind, Classes] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Mapping[str, Any] | None) -> "Asked":
        """Read it from the plan of the pairs; what is not there, or is no number, is not asked for."""
        recipe = _mapping((plan or {}).get("recipe"))
        weights, pair = _mapping(recipe.get("weights")), _mapping(recipe.get("pair"))
        least, per_subject = pair.get("min_hash_distance"), pair.get("per_subject")
        most = {kind: pair.get(kind.value) for kind in PairKind}
        classes = {
            PairKind.CROSS_VIEW: Classes.of("view_angle_deg", pair.get("view_angle_deg")),
            PairKind.CROSS_POSE: Classes.of("time_gap_s", pair.get("time_gap_s")),
        }
        return cls(
            {source: float(weight) for source, weight in weights.items() if isinstance(weight, int | float)},
            least if isinstance(least, int) else 1,
            {kind: wanted for kind, wanted in most.items() if isinstance(wanted, int)},
            per_subject if isinstance(per_subject, int) else None,
            pair.get("equal_kinds") is True,
            {kind: one for kind, one in classes.items() if one is not None},
        )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


class Sides:
    """Crops that pairs are held against, with what is derived of them once."""

    def __init__(self, crops: pa.Table) -> None:
        self.crops = crops

    @cached_property
    def sight(self) -> Sight:
        """Where their cameras stand and look."""
        return Sight.of(self.crops)

    @cached_property
    def held_back(self) -> Bools:
        """Which of them belong to an evaluation set."""
        return has_flag(self.crops.column("flags"), EVALUATION)


def look_at_table(name: str, data: pa.Table) -> Iterator[Finding]:
    """Apply every rule that needs nothing but the rows of one table."""
    yield from look_at_values(name, data)
    if name in ("frames", "crops"):
        yield from _spelled_keys(name, data)
        yield from look_at_cameras(name, data)


def look_at_values(name: str, data: pa.Table) -> Iterator[Finding]:
    """Hold words to those that are known, and numbers to their ranges."""
    keys = data.column("key")
    for column in data.column_names:
        if column in WORDS:
            known = [word.value for word in WORDS[column]]
            words = data.column(column) if column in WORDY else data.column(column).dictionary_encode()
            if set(words_of(words)[0].to_pylist()) <= set(known):
                continue
            odd = ~is_word(words, *known) & words.is_valid().to_numpy()
            message = f"{column} is none of {', '.join(known)}"
            yield from of_rows("value", name, odd, keys, message, where=column)
    for column, (low, high) in RANGES.get(name, {}).items():
        values = data.column(column).cast(pa.float64()).to_numpy()
        given = data.column(column).is_valid().to_numpy()
        odd = given & ~((values >= low) & (values <= high))
        yield from of_rows("value", name, odd, keys, f"{column} is not in [{low:g}, {high:g}]", where=column)


def _spelled_keys(name: str, data: pa.Table) -> Iterator[Finding]:
    parts: list[Any] = []
    odd = np.zeros(data.num_rows, bool)
    for column in KEY_COLUMNS:
        if column == "instant":
            parts.append(pc.ascii_lpad(data.column(column).cast(pa.string()), 8, "0"))
            odd |= data.column(column).to_numpy() < 0
            continue
        words, rows = words_of(data.column(column))
        parts.append(words[0] if len(words) == 1 else words.take(pa.array(rows)))
        fit = np.array([bool(KEY_PART.fullmatch(word)) for word in words.to_pylist()], bool)
        if not fit.all():
            odd |= ~fit[rows]
    odd |= pc.not_equal(pc.binary_join_element_wise(*parts, "/"), data.column("key")).to_numpy()
    message = "the key is not source/split/sequence/instant/view/track of its row, in [a-z0-9_-]"
    yield from of_rows("key", name, odd, data.column("key"), message)


def look_at_crops(crops: pa.Table, frames: pa.Table, row: Ints) -> Iterator[Finding]:
    """Hold crops against their frames.

    Args:
        crops: n rows.
        frames: that they were cut from, among others.
        row: (n,) of each crop's frame in `frames`; -1: not there, and left out.
    """
    there = row >= 0
    for column in ("source", "licence", "domain", "split", "group", "sequence", "instant", "view"):
        if column == "instant":
            mine, its = (of.column(column).to_numpy() for of in (crops, frames))
        else:
            mine, its = codes_of(crops.column(column), frames.column(column))
        differs = there & (mine != its[row]) if len(its) else np.zeros(len(mine), bool)
        message = f"{column} is not that of its frame"
        yield from of_rows("crop_frame", "crops", differs, crops.column("key"), message, where=column)


def look_at_pairs(pairs: pa.Table, sides: Sides, target: Ints, reference: Ints, asked: Asked) -> Iterator[Finding]:
    """Hold pairs against their two crops.

    Args:
        pairs: p rows.
        sides: their crops, among others.
        target: (p,) row of each pair's target in `sides`.
        reference: (p,) that of its reference.
        asked: what the recipe asked for.
    """
    keys, crops = pairs.column("key"), sides.crops
    for column in ("source", "licence", "domain", "subject", "sequence", "split"):
        mine, its = codes_of(pairs.column(column), crops.column(column))
        differs = (mine != its[target]) | (mine != its[reference])
        message = f"the {column} of the pair, its target and its reference are not one"
        rule = "pair_split" if column == "split" else "pair_columns"
        yield from of_rows(rule, "pairs", differs, keys, message, where=column)
    held_back = sides.held_back[target] | sides.held_back[reference]
    message = "a pair shows somebody of an evaluation set"
    yield from of_rows("evaluation", "pairs", held_back, keys, message, where="flags")
    of_kind = {kind: is_word(pairs.column("kind"), kind.value) for kind in PairKind}
    across = of_kind[PairKind.CROSS_VIEW]
    fit = np.ones(pairs.num_rows, bool)
    for kind, bad, message, column in _kinds(crops, of_kind, target, reference):
        fit &= ~bad
        yield from of_rows(kind.value, "pairs", bad, keys, message, where=column)
    yield from _times(pairs, crops, across, target, reference)
    yield from look_at_rays(pairs, across, fit, sides.sight, target, reference)
    hashes = crops.column("phash").to_numpy()
    bits = np.bitwise_count(hashes[target] ^ hashes[reference])
    alike = fit & (bits < asked.min_hash_distance)
    message = f"the two pictures differ in fewer than {asked.min_hash_distance} bits of their perceptual hashes"
    yield from of_rows("alike", "pairs", alike, keys, message, where="phash")


def _kinds(
    crops: pa.Table, of_kind: Mapping[PairKind, Bools], target: Ints, reference: Ints
) -> Iterator[tuple[PairKind, Bools, str, str]]:
    """What the two crops of a pair must share, and what must differ, by the pair's kind."""
    one = {}
    for column in ("sequence", "instant", "view", "track", "segment"):
        numbers = (
            crops.column(column).to_numpy() if column in ("instant", "segment") else words_of(crops.column(column))[1]
        )
        one[column] = numbers[target] == numbers[reference]
    rules: Mapping[PairKind, tuple[tuple[str, Bools, str], ...]] = {
        PairKind.CROSS_VIEW: (
            ("instant", ~one["instant"], "cross-view pair joins two instants"),
            ("view", one["view"], "cross-view pair joins a camera with itself"),
        ),
        PairKind.CROSS_POSE: (
            ("view", ~one["view"], "cross-pose pair joins two cameras"),
            ("instant", one["instant"], "cross-pose pair joins an instant with itself"),
            ("segment", one["view"] & ~one["segment"], "cross-pose pair crosses a cut or a time gap"),
        ),
    }
    for kind, checks in rules.items():
        both = (
            ("sequence", ~one["sequence"], f"{kind.value} pair joins two sequences"),
            ("track", ~one["track"], f"{kind.value} pair joins two people (tracks)"),
        )
        for column, bad, message in (*both, *checks):
            yield kind, of_kind[kind] & bad, message, column


def _times(pairs: pa.Table, crops: pa.Table, across: Bools, target: Ints, reference: Ints) -> Iterator[Finding]:
    told, clock = pairs.column("dt_s").to_numpy(), crops.column("time_s").to_numpy()
    due = np.where(across, 0.0, clock[reference] - clock[target])
    with np.errstate(invalid="ignore"):
        off = np.abs(told - due) > CLOCK_S  # NaN, an unknown time, is not off
    message = "dt_s is not the reference's time minus the target's (0 for cross-view)"
    yield from of_rows("time", "pairs", off, pairs.column("key"), message, where="dt_s")


def look_at_further(pairs: pa.Table, sides: Sides, parent: Ints, row: Ints) -> Iterator[Finding]:
    """Hold the further views of pairs against the pairs.

    Args:
        pairs: p rows.
        sides: the crops of the further views, among others.
        parent: (f,) row of the pair of each further view.
        row: (f,) its row in `sides`.
    """
    for column in ("source", "split", "sequence"):
        mine, its = codes_of(pairs.column(column), sides.crops.column(column))
        differs = np.zeros(pairs.num_rows, bool)
        differs[parent[mine[parent] != its[row]]] = True
        rule = "pair_split" if column == "split" else "pair_columns"
        message = f"the {column} of the pair and of a further view are not one"
        yield from of_rows(rule, "pairs", differs, pairs.column("key"), message, where=f"further {column}")
    held_back = np.zeros(pairs.num_rows, bool)
    held_back[parent[sides.held_back[row]]] = True
    message = "a further view shows somebody of an evaluation set"
    yield from of_rows("evaluation", "pairs", held_back, pairs.column("key"), message, where="further")


def look_at_weights(pairs: pa.Table, asked: Asked) -> Iterator[Finding]:
    """Hold the weights of pairs to those that the recipe gives their sources."""
    if not asked.weights:
        return
    words, rows = words_of(pairs.column("source"))
    due = np.array([asked.weights.get(source, np.nan) for source in words.to_pylist()])[rows]
    unknown = np.isnan(due)
    wrong = ~unknown & (pairs.column("weight").to_numpy() != due)
    message = "the weight of a pair is not the one that the recipe gives its source"
    yield from of_rows("weight", "pairs", wrong, pairs.column("key"), message, where="weight")
    message = "the recipe has no such source"
    yield from of_rows("weight", "pairs", unknown, pairs.column("key"), message, where="source")
