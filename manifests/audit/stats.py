"""What a build holds, in numbers: for the report, and for whoever compares two builds by eye."""

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.audit.files import Evidence
from manifests.audit.keys import Hashes, Ints, is_word, words_of
from manifests.audit.tables import Asked
from manifests.types import PairKind, SilhouetteFrom, Split

Floats32 = npt.NDArray[np.float32]
Place = tuple[str, ...]

EDGES: dict[str, npt.NDArray[np.float64]] = {
    "view_angle_rad": np.radians(np.arange(0, 181, 10)),
    "dt_s": np.array([0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1e9]),
    "coverage": np.linspace(0, 1, 21),
    "covisibility": np.linspace(0, 1, 21),
    "pairs_of_a_subject": np.array([1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000, 1e12]),
}
FULL = 0.9  # share of the crop from which a silhouette covers everything
ASTRAY = 0.5  # overlap of a silhouette's box and the dataset's, below which one of them is of something else
NUM_EXTREMES = 6
FEW_CODES = 1 << 16  # combinations of words that are counted without being sorted
PLACE = ["source", "domain", "split"]
DRAWN = ["source", "domain", "silhouette_from"]


@dataclass(slots=True)
class Tally:
    """Numbers of some rows; those of two units add up.

    Attributes:
        frames: rows per source, domain and split.
        crops: the same.
        names: distinct sequences, groups and views of the frames, per source, domain and split.
        pairs: rows per source, domain, split and kind.
        licences: pairs per terms, source and split.
        subjects: pairs per source, subject and kind; the empty name where it is unknown.
        rigs: sequences that have crops of several views, per source.
        classes: per source and kind, pairs in each class that the recipe asks for, then those of which it is not known.
        histograms: by name and source: counts between EDGES, and how many are unknown or outside.
        coverage: of the crops, per source, domain and who drew the silhouette.
        rejects: entries per stage, source and reason.
        why: the first few of these: key and detail.
        extremes: by name: how far, and the key of a pair.
        drawn: per place and kind of pairs, those whose keys have the smallest hashes: hash and key; chance, but the same chance always.
    """

    frames: Counter[Place] = field(default_factory=Counter)
    crops: Counter[Place] = field(default_factory=Counter)
    names: defaultdict[Place, dict[str, set[str]]] = field(default_factory=lambda: defaultdict(dict))
    pairs: Counter[Place] = field(default_factory=Counter)
    licences: Counter[Place] = field(default_factory=Counter)
    subjects: Counter[Place] = field(default_factory=Counter)
    rigs: Counter[str] = field(default_factory=Counter)
    classes: dict[Place, Ints] = field(default_factory=dict)
    histograms: defaultdict[str, dict[str, Ints]] = field(default_factory=lambda: defaultdict(dict))
    coverage: defaultdict[Place, list[Floats32]] = field(default_factory=lambda: defaultdict(list))
    rejects: Counter[Place] = field(default_factory=Counter)
    why: defaultdict[Place, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    extremes: defaultdict[str, list[tuple[float, str]]] = field(default_factory=lambda: defaultdict(list))

    drawn: defaultdict[Place, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(
        cls,
        frames: pa.Table,
        crops: pa.Table,
        pairs: pa.Table,
        hashes: Hashes,
        *,
        target: Ints,
        at_home: pa.Table,
        asked: Asked,
    ) -> "Tally":
        """Count the rows of one unit.

        Args:
            frames: of the unit.
            crops: of the unit.
            pairs: of the unit.
            hashes: of the keys of the pairs.
            target: (h,) row in the crops of the target of each pair whose crops are of this unit.
            at_home: these h pairs.
            asked: what the recipe asked for.
        """
        tally = cls()
        tally.frames, tally.crops = count_by(frames, PLACE), count_by(crops, PLACE)
        for name in ("sequence", "group", "view"):
            for *place, value in count_by(frames, [*PLACE, name]):
                tally.names[tuple(place)].setdefault(name, set()).add(value)
        tally.pairs = count_by(pairs, [*PLACE, "kind"])
        tally.licences = count_by(pairs, ["licence", "source", "split"])
        shown = count_by(pairs, ["source", "subject", "kind"])
        tally.subjects = Counter(
            {(source, subject or "", kind): rows for (source, subject, kind), rows in shown.items()}
        )
        views = Counter((source, sequence) for source, sequence, _ in count_by(crops, ["source", "sequence", "view"]))
        tally.rigs = Counter(source for (source, _), num_views in views.items() if num_views > 1)
        tally._classify(pairs, asked)
        across = pa.array(is_word(pairs.column("kind"), PairKind.CROSS_VIEW))
        gaps = pc.abs(pc.if_else(across, None, pairs.column("dt_s")))
        angles = pc.if_else(across, pairs.column("view_angle_rad"), None)
        tally._count("view_angle_rad", pairs.select(["source", "view_angle_rad"]).filter(across), "view_angle_rad")
        tally._count("dt_s", pairs.select(["source", "dt_s"]).filter(pc.invert(across)), "dt_s")
        tally._count("coverage", crops, "coverage")
        tally._count("covisibility", pairs, "covisibility")
        keys = pairs.column("key")
        for way in tally.pairs:
            rows = np.flatnonzero(_are(pairs, [*PLACE, "kind"], way))
            rows = rows[np.argsort(hashes[rows])[:NUM_EXTREMES]]
            tally.drawn[way] = list(zip(hashes[rows].tolist(), keys.take(pa.array(rows)).to_pylist(), strict=True))
        tally._farthest("widest view angles", angles, keys)
        tally._farthest("narrowest view angles", pc.negate(angles), keys)
        tally._farthest("longest times between", gaps, keys)
        tally._farthest("least covisible", pc.negate(pairs.column("covisibility")), keys)
        shares = pa.chunked_array([crops.column("coverage").combine_chunks().take(pa.array(target))])
        tally._farthest("largest people", shares, at_home.column("key"))
        tally._farthest(
            "smallest people", pc.negate(pc.if_else(pc.greater(shares, 0), shares, None)), at_home.column("key")
        )
        for drawn in count_by(crops, DRAWN):
            mine = _rows_at(crops, DRAWN, drawn)
            tally.coverage[drawn].append(mine.column("coverage").to_numpy())
        return tally

    def _classify(self, pairs: pa.Table, asked: Asked) -> None:
        """Count the pairs in the classes that the recipe asks for, bounded as the stage of pairs bounds them."""
        for kind, classes in asked.classes.items():
            edges = np.array([*classes.edges[:-1], np.nextafter(classes.edges[-1], np.inf)])
            for source, of in count_by(pairs, ["source", "kind"]):
                if of != kind:
                    continue
                mine = _rows_at(pairs, ["source", "kind"], (source, of))
                angles = mine.column("view_angle_rad").cast(pa.float64()).to_numpy()
                times = mine.column("dt_s").cast(pa.float64()).to_numpy()
                values = np.degrees(angles).round(9) if kind == PairKind.CROSS_VIEW else np.abs(times).round(6)
                known = values[np.isfinite(values)]
                place = np.searchsorted(edges, known, side="right") - 1
                fit = (place >= 0) & (place < len(classes.shares))
                counts = np.bincount(place[fit], minlength=len(classes.shares))
                self.classes[source, of] = np.append(counts, len(values) - counts.sum())

    def _count(self, name: str, rows: pa.Table, column: str) -> None:
        for (source,) in count_by(rows, ["source"]):
            values = _rows_at(rows, ["source"], (source,)).column(column).cast(pa.float64()).to_numpy()
            counts, _ = np.histogram(np.abs(values[np.isfinite(values)]), bins=EDGES[name])
            self.histograms[name][source] = np.append(counts, len(values) - counts.sum())

    def _farthest(self, name: str, values: pa.ChunkedArray, keys: pa.ChunkedArray) -> None:
        """Keep the unit's first extreme: the report shows those of several units."""
        numbers = values.cast(pa.float64()).fill_null(-np.inf).to_numpy()
        numbers = np.where(np.isnan(numbers), -np.inf, numbers)
        if len(numbers) and np.isfinite(numbers.max()):
            row = int(numbers.argmax())
            self.extremes[name] = [(float(numbers[row]), keys[row].as_py())]

    def add(self, other: "Tally") -> None:
        """Take the numbers of another unit in."""
        for name in ("frames", "crops", "pairs", "licences", "subjects", "rigs", "rejects"):
            getattr(self, name).update(getattr(other, name))
        for place, counts in other.classes.items():
            self.classes[place] = self.classes.get(place, 0) + counts
        for place, names in other.names.items():
            for name, values in names.items():
                self.names[place].setdefault(name, set()).update(values)
        for name, of_source in other.histograms.items():
            for source, counts in of_source.items():
                self.histograms[name][source] = self.histograms[name].get(source, 0) + counts
        for place, shares in other.coverage.items():
            self.coverage[place] += shares
        for name, found in other.extremes.items():
            self.extremes[name] = heapq.nsmallest(
                NUM_EXTREMES, [*self.extremes[name], *found], key=lambda one: (-one[0], one[1])
            )

        for place, drawn in other.drawn.items():
            self.drawn[place] = sorted([*self.drawn[place], *drawn])[:NUM_EXTREMES]

    def add_rejects(self, rejects: pa.Table) -> None:
        """Count what a unit left out."""
        sources = pc.list_element(pc.split_pattern(rejects.column("key"), "/"), 0)
        by = ["stage", "source", "reason"]
        words = {"stage": rejects.column("stage"), "source": sources, "reason": rejects.column("reason")}
        encoded = {name: column.dictionary_encode() for name, column in words.items()}
        rejects = pa.table({**encoded, **{name: rejects.column(name) for name in ("key", "detail", "count")}})
        for place, entries in count_by(rejects, by, of="count").items():
            self.rejects[place] += entries
            some = NUM_EXTREMES - len(self.why[place])
            if some > 0:
                rows = _rows_at(rejects, by, place).slice(0, some)
                self.why[place] += zip(rows.column("key").to_pylist(), rows.column("detail").to_pylist(), strict=True)


def count_by(data: pa.Table, by: list[str], *, of: str | None = None) -> Counter[Place]:
    """Rows of each combination of words; or the sum of a column. A null is None."""
    words, codes = zip(*(words_of(data.column(name)) for name in by), strict=True)
    combined, num_codes = np.zeros(data.num_rows, np.int64), 1
    for known, rows in zip(words, codes, strict=True):
        combined = combined * (len(known) + 1) + rows + 1
        num_codes *= len(known) + 1
    if num_codes > FEW_CODES:
        combined = np.unique(combined, return_inverse=True)[1]
        num_codes = int(combined.max(initial=-1)) + 1
    first = np.full(num_codes, -1)
    first[combined[::-1]] = np.arange(data.num_rows)[::-1]
    found = np.flatnonzero(first >= 0)
    weights = None if of is None else data.column(of).to_numpy()
    totals = np.bincount(combined, weights=weights, minlength=num_codes)[found].astype(np.int64).tolist()
    names = [data.column(name).take(pa.array(first[found])).cast(pa.string()).to_pylist() for name in by]
    return Counter(dict(zip(zip(*names, strict=True), totals, strict=True)))


def _rows_at(data: pa.Table, by: list[str], place: Place) -> pa.Table:
    """The rows that have these words; the table itself where all have."""
    fit = _are(data, by, place)
    return data if fit.all() else data.filter(pa.array(fit))


def _are(data: pa.Table, by: list[str], place: Place) -> npt.NDArray[np.bool_]:
    fit = np.ones(data.num_rows, bool)
    for name, value in zip(by, place, strict=True):
        fit &= is_word(data.column(name), value)
    return fit


def stats_of(evidence: Evidence, tally: Tally, overlaps: dict[Place, Floats32]) -> dict[str, Any]:
    """Put the numbers of a build into plain JSON values, the same for the same build.

    Args:
        evidence: of the audit's first part.
        tally: of all of its rows.
        overlaps: of the silhouettes' boxes with the dataset's, per source, domain and who drew them.

    Returns:
        stages (units, counts, fingerprint), rows per table, pairs per source, split and kind, people and recordings per
        source and split, shards per split, rejects per stage, source and reason, silhouettes per source and who drew them,
        asked (what the recipe asks for, and what there is), balance (weight and pairs of each source), licences, subjects, drawn and extremes (keys of pairs), and histograms (edges, counts)
        of all and of each source.
    """
    tars = [part.file for part in evidence.parts.get("tar", [])]
    return {
        "stages": {
            stage: {
                "units": len(done),
                "fingerprints": sorted({commit.fingerprint for commit in done}),
                "bytes": sum(file.bytes for commit in done for file in commit.files),
            }
            for stage, done in evidence.commits.items()
        },
        "rows": {
            "frames": tally.frames.total(),
            "crops": tally.crops.total(),
            "pairs": tally.pairs.total(),
            "rejects": tally.rejects.total(),
        },
        "sources": [
            {
                **dict(zip(PLACE, place, strict=True)),
                "frames": frames,
                **{f"{name}s": len(tally.names[place][name]) for name in ("sequence", "group", "view")},
                "crops": tally.crops[place],
            }
            for place, frames in sorted(tally.frames.items())
        ],
        "pairs": _listed(tally.pairs, [*PLACE, "kind"]),
        "licences": _listed(tally.licences, ["licence", "source", "split"]),
        "asked": _asked(Asked.of(evidence.plans.get("pairs")), tally),
        "balance": _balance(evidence, tally),
        "subjects": _subjects(tally),
        "shards": {"tars": len(tars), "rows": sum(tar.rows for tar in tars), "bytes": sum(tar.bytes for tar in tars)},
        "rejects": [
            {**row, "examples": [list(one) for one in tally.why[row["stage"], row["source"], row["reason"]]]}
            for row in _listed(tally.rejects, ["stage", "source", "reason"])
        ],
        "silhouettes": _silhouettes(tally, overlaps),
        "drawn": _in_turn(tally),
        "extremes": {name: [key for _, key in found] for name, found in sorted(tally.extremes.items())},
        "histograms": {name: _histogram(name, list(tally.histograms[name].values())) for name in EDGES}
        | {"pairs_of_a_subject": _of_subjects(list(_people(tally).items()))},
        "histograms_by_source": {
            name: {source: _histogram(name, [counts]) for source, counts in sorted(tally.histograms[name].items())}
            for name in EDGES
            if tally.histograms[name]
        },
    }


def _in_turn(tally: Tally) -> list[str]:
    """Keys of pairs drawn by chance, in turn from every source, split and kind there is."""
    ways = [drawn for _, drawn in sorted(tally.drawn.items())]
    return [drawn[turn][1] for turn in range(NUM_EXTREMES) for drawn in ways if turn < len(drawn)][: 2 * NUM_EXTREMES]


def _listed(counts: Counter[Place], by: list[str]) -> list[dict[str, Any]]:
    return [{**dict(zip(by, place, strict=True)), "rows": rows} for place, rows in sorted(counts.items())]


def _asked(asked: Asked, tally: Tally) -> dict[str, Any]:
    """What the recipe asks for of each source, and what there is; `share` and `got` are of pairs whose class is known."""
    classes = []
    for (source, kind), counts in sorted(tally.classes.items()):
        of = asked.classes[PairKind(kind)]
        for low, high, share, count in zip(of.edges[:-1], of.edges[1:], of.shares, counts.tolist(), strict=False):
            got = count / max(1, int(counts[:-1].sum()))
            row = {"source": source, "kind": kind, "by": of.name, "from": low, "to": high, "pairs": count}
            classes.append(row | {"share": round(share, 4), "got": round(got, 4)})
    kinds = Counter[tuple[str, str]]()
    for (source, _, _, kind), rows in tally.pairs.items():
        kinds[source, kind] += rows
    sources = sorted({source for source, _, _ in tally.crops})
    return {
        "most_of_a_sequence": {kind.value: most for kind, most in sorted(asked.most.items())},
        "per_subject": asked.per_subject,
        "equal_kinds": asked.equal_kinds,
        "kinds": [
            {
                "source": source,
                "rigs": tally.rigs[source],
                **{kind.value: kinds[source, kind.value] for kind in PairKind},
            }
            for source in sources
        ],
        "classes": classes,
    }


def _balance(evidence: Evidence, tally: Tally) -> list[dict[str, Any]]:
    """What share of the training mixture each source is given, and what share of the pairs to train on it has.

    `repeats` is how often a pair is seen while a mixture as long as all pairs is drawn: 1 where both shares are one.
    """
    recipe = (evidence.plans.get("pairs") or {}).get("recipe")
    weights = recipe.get("weights") if isinstance(recipe, dict) else None
    rows = Counter[str]()
    for (source, _, split, _), pairs in tally.pairs.items():
        rows[source] += pairs if split == Split.TRAIN else 0
    weights = (
        {s: w for s, w in weights.items() if isinstance(w, int | float) and w > 0} if isinstance(weights, dict) else {}
    )
    found = []
    present = sum(weight for source, weight in weights.items() if rows[source])
    for source in sorted(weights):
        share = weights[source] / sum(weights.values())
        held = rows[source] / max(1, rows.total())
        found.append(
            {
                "source": source,
                "weight": weights[source],
                "share": round(share, 4),
                "pairs": rows[source],
                "share_of_pairs": round(held, 4),
                "repeats": round(weights[source] / present / held, 2) if rows[source] else None,
            }
        )
    return found


def _subjects(tally: Tally) -> list[dict[str, Any]]:
    """Per source: its known subjects, the pairs of unknown ones, and the subject with the most pairs."""
    found = []
    people = _people(tally)
    for source in sorted({source for source, _ in people}):
        known = {subject: rows for (of, subject), rows in people.items() if of == source and subject}
        of_a_kind = [rows for (of, subject, _), rows in tally.subjects.items() if of == source and subject]
        most = min(known, key=lambda subject: (-known[subject], subject), default=None)
        found.append(
            {
                "source": source,
                "subjects": len(known),
                "pairs": sum(known.values()),
                "unknown": people[source, ""],
                "most": most,
                "most_pairs": known[most] if most is not None else 0,
                "most_of_a_kind": max(of_a_kind, default=0),
            }
        )
    return found


def _people(tally: Tally) -> Counter[Place]:
    """Pairs per source and subject."""
    people = Counter[Place]()
    for (source, subject, _), rows in tally.subjects.items():
        people[source, subject] += rows
    return people


def _of_subjects(subjects: list[tuple[Place, int]]) -> dict[str, Any]:
    edges = EDGES["pairs_of_a_subject"]
    counts, _ = np.histogram([rows for (_, subject), rows in subjects if subject], bins=edges)
    unknown = sum(not subject for (_, subject), _ in subjects)
    return {"edges": edges.tolist(), "counts": counts.tolist(), "unknown": unknown}


def _silhouettes(tally: Tally, overlaps: dict[Place, Floats32]) -> list[dict[str, Any]]:
    """How the silhouettes of each source are, by who drew them.

    `agreement` is the median overlap (intersection over union) of the box around a silhouette with the box that the dataset gave
    (or that its keypoints made) for `boxed` of them, `astray` the share of these where it is below `ASTRAY`; both null where no such box is.
    """
    found = []
    for place in sorted(tally.coverage):
        source, domain, by = place
        drawn, held = np.concatenate(tally.coverage[place]), overlaps.get(place, np.zeros(0, np.float32))
        empty = by == SilhouetteFrom.NONE
        found.append(
            {
                "source": source,
                "domain": domain,
                "drawn_by": by,
                "crops": len(drawn),
                "coverage": None if empty else [round(float(q), 4) for q in np.quantile(drawn, (0.05, 0.5, 0.95))],
                "histogram": None if empty else np.histogram(drawn, bins=EDGES["coverage"])[0].tolist(),
                "boxed": len(held),
                "full": int((drawn > FULL).sum()),
                "agreement": None if empty or not len(held) else round(float(np.median(held)), 4),
                "astray": None if empty or not len(held) else round(float((held < ASTRAY).mean()), 4),
            }
        )
    return found


def _histogram(name: str, parts: list[Ints]) -> dict[str, Any]:
    """Counts between edges; the last bin takes its upper edge in. `unknown` counts nulls and what is outside."""
    counts = np.sum([np.zeros(len(EDGES[name]), np.int64), *parts], axis=0)
    return {"edges": EDGES[name].tolist(), "counts": counts[:-1].tolist(), "unknown": int(counts[-1])}
