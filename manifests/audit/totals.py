"""Rules about a build as a whole: what holds of most rows of a source, not of each."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from manifests.audit.findings import Finding, Severity, error, plural
from manifests.audit.mend import ANEW
from manifests.types import Domain, PairKind, SilhouetteFrom, Split

RARELY = 0.01  # of seeds, for which a share holds out nobody
LEAST_SHARE = 0.001  # to be held out; less is none
MOST_BARE, MOST_ASTRAY = 0.5, 0.1  # shares of a source's crops from which its silhouettes are doubtful
MOST_OFF = 0.05  # by which the share of a class of pairs may differ from the one that is asked for, and a pair
MOST_REPEATED = 30.0  # times that a source's pairs are seen for each time of an average pair's


def look_at_totals(stats: dict[str, Any], *, complete: bool, val_share: float | None = None) -> Iterator[Finding]:
    """Apply every rule about totals to the numbers of a build (see `manifests.audit.stats`).

    Args:
        stats: of the build.
        complete: whether all of its crops and pairs were read: only then what is not there was not drawn.
        val_share: of the recipe; None where no plan tells.
    """
    yield from _drawn(stats["silhouettes"])
    yield from _balance(stats["balance"])
    yield from _licences(stats["licences"])
    yield from _people(stats)
    if complete and "pairs" in stats["stages"]:
        yield from _asked(stats["asked"])
        yield from _held_out(stats, val_share)


def _drawn(rows: list[dict[str, Any]]) -> Iterator[Finding]:
    """Warn of silhouettes that are missing, or of something else, for too many of a source's people."""
    for source in sorted({row["source"] for row in rows}):
        mine = [row for row in rows if row["source"] == source and row["domain"] == Domain.BODY]
        crops = sum(row["crops"] for row in mine)
        bare = sum(row["crops"] for row in mine if row["drawn_by"] == SilhouetteFrom.NONE)
        told = [(bare, crops, MOST_BARE, "have no silhouette: masking will treat them as if people were everywhere")]
        astray = "have a silhouette beside the dataset's box"
        told += [
            (round(row["astray"] * row["boxed"]), row["boxed"], MOST_ASTRAY, astray)
            for row in mine
            if row["astray"] is not None
        ]
        for bad, of, most, what in told:
            if bad > most * of:
                message = f"{bad:,} of {of:,} crops {what}"
                yield Finding(
                    rule="drawn", severity=Severity.WARNING, table="", where=f"source {source}", message=message, count=bad
                )  # fmt: skip


def _balance(rows: list[dict[str, Any]]) -> Iterator[Finding]:
    """Warn of sources whose share of the mixture is not there, or is a few pairs over and over."""
    if not any(row["pairs"] for row in rows):
        return
    for row in rows:
        share = f"{100 * row['share']:.0f} % of the mixture"
        if row["repeats"] is None:
            message = f"{share} is due to this source, which has no pair to train on: the others share it"
        elif row["repeats"] > MOST_REPEATED:
            message = (
                f"{share} is drawn from {row['pairs']:,} pairs: {row['repeats']:.0f} times as often as an average pair"
            )
        else:
            continue
        where = f"source {row['source']}"
        yield Finding(
            rule="balance", severity=Severity.WARNING, table="", where=where, message=message, count=row["pairs"]
        )  # fmt: skip


def _licences(rows: list[dict[str, Any]]) -> Iterator[Finding]:
    """Warn of pairs whose terms nobody can tell."""
    for row in rows:
        if not row["licence"].strip():
            message = f"{row['rows']:,} pairs of {row['split']} tell no terms"
            where = f"source {row['source']}"
            yield Finding(
                rule="licence", severity=Severity.WARNING, table="", where=where, message=message, count=row["rows"]
            )  # fmt: skip


def _asked(asked: dict[str, Any]) -> Iterator[Finding]:
    """Warn of kinds and classes of pairs that the recipe asks for and the build does not have."""
    for row in asked["kinds"]:
        kinds = [kind.value for kind in PairKind]
        for kind in kinds:
            able = row["rigs"] if kind == PairKind.CROSS_VIEW else True
            if asked["most_of_a_sequence"].get(kind, 0) and able and not row[kind]:
                yield _unmet(row["source"], f"{kind} pairs are asked for, and there is none")
        if asked["equal_kinds"] and len({row[kind] for kind in kinds}) > 1:
            told = " and ".join(f"{row[kind]:,} {kind}" for kind in kinds)
            yield _unmet(row["source"], f"both kinds are asked for in equal number, and there are {told} pairs")
    classes: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in asked["classes"]:
        classes.setdefault((row["source"], row["kind"]), []).append(row)
    for (source, kind), rows in classes.items():
        pairs = sum(row["pairs"] for row in rows)
        off = [row for row in rows if pairs and abs(row["got"] - row["share"]) > MOST_OFF + 1 / pairs]
        told = ", ".join(
            f"{100 * row['got']:.0f} % in {row['from']:g} to {row['to']:g} where {100 * row['share']:.0f} % are asked for"
            for row in off
        )
        if off:
            yield _unmet(source, f"of {pairs:,} {kind} pairs, by {off[0]['by']}: {told}", pairs)


def _unmet(source: str, message: str, count: int = 0) -> Finding:
    return Finding(
        rule="asked", severity=Severity.WARNING, table="", where=f"source {source}", message=message, count=count
    )


def _people(stats: dict[str, Any]) -> Iterator[Finding]:
    """Tell of people who are in more pairs than the recipe allows."""
    most = stats["asked"]["per_subject"]
    for row in stats["subjects"]:
        if most is not None and row["most_of_a_kind"] > most:
            message = f"somebody is in {row['most_of_a_kind']:,} pairs of a kind, and the recipe allows {most:,}"
            yield error("asked", "", f"source {row['source']}", message)


def _held_out(stats: dict[str, Any], val_share: float | None) -> Iterator[Finding]:
    """Warn of a build that cannot be trained on, or not validated."""
    rows = Counter[str]()
    for row in stats["pairs"]:
        rows[row["split"]] += row["rows"]
    if not rows.total():
        message, hint = "there is no pair at all", "the rejects tell why: the command is `show` with `--table rejects`"
        yield Finding(
            rule="held_out", severity=Severity.WARNING, table="pairs", where="pairs/", message=message, hint=hint
        )
        return
    for split, what in ((Split.TRAIN, "to train on"), (Split.VAL, "to validate on")):
        if not rows[split]:
            message = f"there is nobody {what}: no pair of {rows.total():,} is of {split.value}"
            yield Finding(
                rule="held_out", severity=Severity.WARNING, table="pairs", where="split", message=message, count=0,
                hint=_hold_out(split, stats["sources"], val_share),
            )  # fmt: skip


def _hold_out(side: Split, sources: list[dict[str, Any]], val_share: float | None) -> str:
    """What gives a side of the split somebody, as far as it is known who is there and what was asked for."""
    if any(row["split"] == side for row in sources):
        return f"its people are there, and no pair of them: `show` with `--table rejects` tells why; give more of them, {ANEW}"
    if side is Split.TRAIN:
        return f"hold out fewer: a smaller `val_share`, or fewer `val_groups`, under `split:` in the recipe; {ANEW}"
    groups = sum(row["groups"] for row in sources)
    there = f"there {'is' if groups == 1 else 'are'} {plural(groups, 'group')} (people or recordings) in all"
    rendered = any(row["source"] == "synthetic" for row in sources)
    more = "more people (a larger N)" if rendered else "more recordings"
    if groups < 2:
        return f"{there}: build {more}, one of whom `split:` in the recipe can hold out; {ANEW}"
    if val_share is not None and val_share < LEAST_SHARE:
        val_share = None
    if not rendered or val_share is None:
        how = "some by name" if val_share else "some, as `split: {val_share: 0.1}` in the recipe, or by name"
        return f"{there}: hold out {how} with `split: val_groups`, or build {more}; {ANEW}"
    enough = math.ceil(math.log(RARELY) / math.log1p(-val_share))
    chance = (
        f"a share of {val_share:g} holds out nobody of {groups} people for {100 * (1 - val_share) ** groups:.0f} of 100 seeds, "
        f"of {enough} for 1"
    )
    return (
        f"{there}, and {chance}: build {more}, or ask for a larger `val_share`, another `seed`, or somebody by name "
        f"(`split: val_groups`); {ANEW}"
    )
