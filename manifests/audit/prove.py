"""Prove a build against every rule: files, rows, pixels, shards. A damaged file is a finding, never a crash."""

import json
import logging
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from manifests.audit.copies import look_at_same_images
from manifests.audit.files import Evidence, Progress, look_at_files
from manifests.audit.findings import Finding, Severity, fold
from manifests.audit.images import look_at_images
from manifests.audit.keys import Keys
from manifests.audit.labels import SOME, look_at_labels
from manifests.audit.mend import SAME, TARGETS, mend
from manifests.audit.rows import Rows, look_at_rows
from manifests.audit.shards import look_at_shards
from manifests.audit.stats import Tally, stats_of
from manifests.audit.terms import terms_of
from manifests.audit.totals import look_at_totals
from manifests.build import STAGES
from manifests.lineage import images_of, planned_from

logger = logging.getLogger(__name__)

ALL_OF_IT = "all of it"
# What an audit of tables alone leaves out, by rule.
PIXELS = {
    "image": ALL_OF_IT, "silhouette": ALL_OF_IT, "tar": ALL_OF_IT, "offset": ALL_OF_IT, "sample_bytes": ALL_OF_IT,
    "sample_json": ALL_OF_IT, "hash": "bytes of crops and tars", "labels": "maps", "copies": "byte for byte",
    "drawn": "boxes",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found.

    Attributes:
        findings: errors first.
        stats: plain JSON values, see `manifests.audit.stats`.
        left_out: rules that were not held against all they are about, with what was not looked at.
        keys: lead to the rows.
    """

    findings: tuple[Finding, ...]
    stats: dict[str, Any]
    left_out: dict[str, str] = field(default_factory=dict)
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
        tables_only: leave pixels out, see `PIXELS`.
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
        overlaps, left_out = {}, dict[str, str]()
        images = None
        if tables_only:
            left_out |= PIXELS
            findings.append(_without_pixels())
        else:
            images, found = look_at_images(evidence, pool, tell)
            findings += found
            overlaps = {place: np.concatenate(shares) for place, shares in images.overlaps.items()}
            if rows.keys:  # what the rows are held by
                findings += _guarded(
                    "images", lambda: look_at_same_images(rows.keys["crops"], images.jpeg, images.known, rows.split)
                )
        most = 0 if tables_only else None if every_label else SOME
        if not tables_only and most is not None and any(p.num_rows > most for p in evidence.parts.get("labels", ())):
            left_out["labels"] = f"all maps but {most} of each scene: ALL=1 (`--all`) decodes every one"
        findings += _guarded("labels", lambda: look_at_labels(evidence, pool, most=most))
        findings += _guarded("shards", lambda: look_at_shards(evidence, images, rows.keys, pool, tell))
        findings += _unchecked(evidence)
    stats = stats_of(evidence, rows.tally, overlaps)
    stats["terms"] = terms_of(stats["licences"])
    complete = not evidence.blind.keys() & {"crops", "pairs"}
    findings += look_at_totals(stats, complete=complete, val_share=_val_share(evidence))
    asked = _images(evidence)
    mended = tuple(replace(finding, hint=mend(finding, asked)) for finding in fold(findings))
    return Audit(mended, stats, left_out, rows.keys)


def _images(evidence: Evidence) -> int | None:
    """How many images the renders were asked for: by their plan, or by the scenes that are there; 0 without any scene."""
    if (plan := evidence.plans.get("renders")) is not None:
        return images_of(plan) if plan["units"] else 0
    units = {commit.unit for commit in evidence.commits.get("renders", ())}
    units |= planned_from(evidence.plans.get("pairs", {})).get("renders", {}).keys()
    if not units:
        return None if "renders" in evidence.commits else 0
    last = max((int(name[0]) for unit in units if (name := re.findall(r"-s(\d+)$", unit))), default=0)
    for part in evidence.parts.get("scenes", ()):
        try:
            scene = json.loads(part.read(["scene"]).column("scene")[0].as_py())
            return (last + 1) * len(scene["phases"]) * len(scene["cameras"])
        except Exception:  # a damaged file may fail in any way: that is a finding of its own
            logger.debug("reading %s", part.path, exc_info=True)
    return None


def _val_share(evidence: Evidence) -> float | None:
    """The share that the recipe holds out, where a plan tells it: that of the renders, or of the frames."""
    for stage, key in (("renders", "recipe"), ("frames", "shapes")):
        told = evidence.plans.get(stage, {}).get(key)
        split = told.get("split") if isinstance(told, dict) else None
        share = split.get("val_share") if isinstance(split, dict) else None
        if isinstance(share, int | float) and 0 <= share < 1:
            return float(share)
    return None


def _without_pixels() -> Finding:
    """Tell what an audit of tables alone does not prove."""
    whole = [rule for rule, what in PIXELS.items() if what == ALL_OF_IT]
    part = [f"{rule} ({what})" for rule, what in PIXELS.items() if what != ALL_OF_IT]
    message = f"only tables were looked at. Not proven: {', '.join(whole)}; in part: {', '.join(part)}"
    hint = "leave TABLES=1 (`--tables`) out to prove all of it"
    return Finding(rule="unchecked", severity=Severity.INFO, table="", where="crops/", message=message, hint=hint)


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
    done = list(evidence.commits)
    late = [stage for stage in ("crops", "pairs", "shards") if stage not in done and _is_due(stage, done)]
    if late:
        message, targets = f"not run yet: {', '.join(late)}", " ".join(TARGETS[stage] for stage in late)
        findings.append(
            Finding(
                rule="unchecked", severity=Severity.INFO, table="", where=f"{late[0]}/", message=message,
                hint=f"run `make {targets}` {SAME}",
            )
        )  # fmt: skip
    return findings


def _is_due(stage: str, done: list[str]) -> bool:
    """Whether a stage that is not there is the next, not one that a later one was made from, or that has nothing to do."""
    order = list(STAGES)
    return not any(other in done for other in order[order.index(stage) + 1 :]) and (
        stage != "crops" or "frames" in done
    )
