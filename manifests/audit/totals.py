"""Rules about a build as a whole: what holds of most rows of a source, not of each."""

from collections.abc import Iterator
from typing import Any

from manifests.audit.findings import Finding, Severity
from manifests.types import Domain, SilhouetteFrom

MOST_BARE, MOST_ASTRAY = 0.5, 0.1  # shares of a source's crops from which its silhouettes are doubtful
MOST_REPEATED = 30.0  # times that a source's pairs are seen for each time of an average pair's


def look_at_totals(stats: dict[str, Any]) -> Iterator[Finding]:
    """Apply every rule about totals to the numbers of a build (see `manifests.audit.stats`)."""
    yield from _drawn(stats["silhouettes"])
    yield from _balance(stats["balance"])
    yield from _licences(stats["licences"])


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
