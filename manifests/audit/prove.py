"""Prove a build against every rule: files, rows, pixels, shards. A damaged file is a finding, never a crash."""

import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from manifests.audit.copies import look_at_same_images
from manifests.audit.files import Evidence, Progress, look_at_files
from manifests.audit.findings import Finding, Severity, fold
from manifests.audit.images import look_at_images
from manifests.audit.keys import Keys
from manifests.audit.labels import look_at_labels
from manifests.audit.rows import Rows, look_at_rows
from manifests.audit.shards import look_at_shards
from manifests.audit.stats import Tally, stats_of
from manifests.audit.terms import terms_of
from manifests.audit.totals import look_at_totals

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found. `stats` are plain JSON values (see `manifests.audit.stats`); `keys` lead to the rows."""

    findings: tuple[Finding, ...]
    stats: dict[str, Any]
    keys: dict[str, Keys] = field(default_factory=dict, compare=False, repr=False)

    def count(self, severity: Severity) -> int:
        """Number of findings of one severity."""
        return sum(finding.severity is severity for finding in self.findings)

    @property
    def passed(self) -> bool:
        """Whether there is no error; warnings and infos do not fail a build."""
        return not self.count(Severity.ERROR)


def audit(
    root: Path,
    *,
    progress: Progress | None = None,
    threads: int | None = None,
    tables_only: bool = False,
    every_label: bool = False,
) -> Audit:
    """Apply every rule to a build.

    Args:
        root: its output folder.
        progress: is told what is being looked at (`files`, `rows`, `images`, `shards`), how many are done, and of how many.
        threads: that hash, read and decode; as many as there are cores when left out.
        tables_only: leave pixels out: no image is decoded, no tar is read, and files that hold pixels are not hashed.

        every_label: decode the labels of every rendered crop, not of a few of each scene.

    Returns:
        the findings, errors first, and the build in numbers; both depend on the build alone.

    Raises:
        ManifestError: there is no build at all.
    """
    tell: Progress = progress or (lambda _what, _done, _total: None)
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        evidence, findings = look_at_files(root, pool, tell, tables_only=tables_only)
        try:
            rows = look_at_rows(evidence, pool, tell)
        except Exception as problem:
            logger.exception("the audit of rows stopped")
            rows = Rows([_stopped("rows", problem)], Tally())
        findings += rows.findings
        overlaps = {}
        if tables_only:
            message = "only tables were looked at: no image was decoded, no tar was read"
            findings.append(
                Finding(rule="unchecked", severity=Severity.INFO, table="", where="crops/", message=message)
            )
        else:
            images, found = look_at_images(evidence, pool, tell)
            findings += found
            if rows.keys:  # what the rows are held by
                findings += _guarded(
                    "images", lambda: look_at_same_images(rows.keys["crops"], images.jpeg, images.known, rows.split)
                )
            findings += _guarded("labels", lambda: look_at_labels(evidence, pool, every=every_label))
            findings += _guarded("shards", lambda: look_at_shards(evidence, images, rows.keys, pool, tell))
            overlaps = {place: np.concatenate(shares) for place, shares in images.overlaps.items()}
        findings += _unchecked(evidence)
    stats = stats_of(evidence, rows.tally, overlaps)
    stats["terms"] = terms_of(stats["licences"])
    findings += look_at_totals(stats)
    return Audit(tuple(fold(findings)), stats, rows.keys)


def _guarded(what: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Run one part. What stops it is itself an error of the audit; what it saw before is kept."""
    findings: list[Finding] = []
    try:
        findings.extend(look())
    except Exception as problem:
        logger.exception("the audit of %s stopped", what)
        findings.append(_stopped(what, problem))
    return findings


def _stopped(what: str, problem: Exception) -> Finding:
    message = f"the audit of {what} stopped on {type(problem).__name__}: {problem}"
    return Finding(rule="unchecked", severity=Severity.ERROR, table="", where=f"{what}/", message=message)


def _unchecked(evidence: Evidence) -> list[Finding]:
    """Tell which rules were left out, so that silence is not taken for proof."""
    findings = []
    for table, why in sorted(evidence.blind.items()):
        if table not in ("frames", "crops", "pairs", "index"):  # nothing names rows of the others
            continue
        message = f"{why}: what names rows of {table} was not held against it"
        findings.append(Finding(rule="unchecked", severity=Severity.WARNING, table=table, where=table, message=message))
    late = [stage for stage in ("pairs", "shards") if stage not in evidence.commits]
    if late:
        message = f"not run yet: {', '.join(late)}"
        findings.append(
            Finding(rule="unchecked", severity=Severity.INFO, table="", where=f"{late[0]}/", message=message)
        )
    return findings
