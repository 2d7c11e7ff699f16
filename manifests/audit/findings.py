"""What an audit rule saw: the rules by name, and the findings they leave."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifests.build import STAGES
from manifests.doors import door

NUM_EXAMPLES = 5
MOST_ALIKE = 8  # findings of one stage, rule and table that are told one by one; more are folded into one
# By table, the stage that writes it; frames and crops of rendered people are written by `renders`.
STAGE_OF = {
    "frames": "frames", "crops": "crops", "pairs": "pairs", "index": "shards", "tar": "shards", "shards": "shards",
    "labels": "renders", "scenes": "renders",
}  # fmt: skip

# Every rule of the audit, in the order of the road, with what it proves.
RULES: dict[str, str] = {
    "plan": "each stage folder has a plan that reads",
    "commit": "each commit file reads and belongs to its stage",
    "fingerprint": "every commit carries the fingerprint of its stage's plan, and of what the plan tells of it alone",
    "behind": "every stage was made from what the stages before it hold",
    "uncommitted": "every planned unit is committed",
    "unplanned": "every committed unit is planned",
    "stray": "every data file belongs to a commit",
    "missing": "every committed file is there",
    "hash": "every file has the bytes and the SHA-256 that its commit tells",
    "rows": "every file has the rows that its commit tells",
    "counts": "what a commit counts is what its tables hold, and stats.json adds up the commits",
    "schema": "every table has this version's schema, and no nulls where none may be",
    "unreadable": "every file reads to its end",
    "unique": "no key is used twice",
    "key": "every key is spelled from its row's columns",
    "value": "every value is one of the known words, or in its range",
    "reference": "crops name frames, pairs name crops, and rejects name either, that are there",
    "crop_frame": "a crop agrees with its frame on source, licence, domain, split, group, sequence, instant and view",
    "cross_view": "a cross-view pair is one person at one instant, seen by two cameras",
    "cross_pose": "a cross-pose pair is one person seen by one camera at two instants without a cut between",
    "pair_columns": "a pair agrees with its crops on source, licence, domain, subject and sequence",
    "pair_split": "target and reference are of the pair's split",
    "evaluation": "no pair shows anybody of an evaluation set",
    "time": "dt_s is the time between the two crops",
    "calibration": "every camera is one that can be: a lens, and a place in the world",
    "angle": "view_angle_rad is the angle between the rays through the two crops",
    "meet": "the rays through the two crops of a cross-view pair meet in one person",
    "covisibility": "covisibility is what the rendered surfaces of the two crops give",
    "alike": "the two pictures of a pair differ as the recipe asks",
    "weight": "every pair has the weight that the recipe gives its source",
    "leak": "no group, subject, sequence or media file is on both sides of a split",
    "copies": "no image is stored twice, and none of one split looks like one of another",
    "image": "every image decodes, and has the size its row tells",
    "silhouette": "every silhouette has 512 bytes",
    "labels": "every rendered crop has labels, and its map of parts shows the person where its silhouette does",
    "scenes": "the scene of a rendering reads, and has a picture of every instant from every camera",
    "drawn": "most bodies of a source have a silhouette, and it agrees with the dataset's boxes",
    "balance": "every source that the recipe weighs has pairs to train on, and none is repeated far more than the others",
    "licence": "every pair tells the terms of its source",
    "asked": "the pairs are of the kinds and classes that the recipe asks for, and no more of a person than it allows",
    "held_out": "there are people to train on, and others to validate on",
    "packed": "every pair is in exactly one shard, and every sample is a pair",
    "shard_columns": "a shard holds pairs of its own split, source and domain",
    "tar": "a tar holds what its index lists, in that order",
    "offset": "the index knows where each member begins and ends",
    "sample_bytes": "a sample's images and silhouettes are those of its crops, byte for byte",
    "sample_json": "a sample's JSON agrees with its pair",
    "shards_table": "shards.parquet agrees with the commits",
    "unchecked": "no rule had to be left out",
}


class Severity(StrEnum):
    """How bad a finding is; errors fail the audit."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one rule saw in one place.

    Attributes:
        rule: a name of `RULES`.
        severity: errors fail the audit.
        table: frames, crops, pairs, index, shards, rejects or tar; empty when it is about a folder.
        where: a path below the build's root, or the columns it is about.
        message: one sentence.
        count: rows, files or members it concerns.
        examples: the first few keys (or paths), in order.
        hint: what mends it; a rule gives it only where `manifests.audit.mend` cannot know.
    """

    rule: str
    severity: Severity
    table: str
    where: str
    message: str
    count: int = 1
    examples: tuple[str, ...] = ()
    hint: str = ""

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"no rule named {self.rule}")

    @property
    def stage(self) -> str:
        """The stage that it is about, a name of `STAGES`; empty where it is about the build as a whole."""
        folder = self.where.partition("/")[0]
        rendered = self.table in ("frames", "crops") and self.examples[:1] and self.examples[0].startswith("synthetic/")
        return folder if folder in STAGES else "renders" if rendered else STAGE_OF.get(self.table, "")

    def command(self, root: str) -> str:
        """The command that shows the first example, or lists the folder the finding is about."""
        if self.table in ("frames", "crops", "pairs", "index", "shards", "rejects") and self.examples:
            return door("manifests", "show", root, "--table", self.table, "--key", self.examples[0])
        if "/" in self.where and not self.where.endswith(("/", " more places")):
            return shlex.join(["ls", "-l", f"{root}/{self.where}"])
        return door("manifests", "show", root)


def error(rule: str, table: str, where: str, message: str, *, examples: tuple[str, ...] = ()) -> Finding:
    """A finding about one thing that fails the audit."""
    return Finding(rule=rule, severity=Severity.ERROR, table=table, where=where, message=message, examples=examples)


def plural(count: int, noun: str) -> str:
    """`1 file`, `2 files`, `1,000 files`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def of_rows(
    rule: str,
    table: str,
    bad: npt.NDArray[np.bool_] | pa.ChunkedArray | pa.Array,
    keys: pa.ChunkedArray | pa.Array,
    message: str,
    *,
    where: str = "",
    severity: Severity = Severity.ERROR,
) -> list[Finding]:
    """One finding about the rows where `bad` holds; none if there is none.

    Args:
        rule: its name.
        table: whose rows they are.
        bad: (n,) booleans; null counts as good.
        keys: (n,) what to name the rows by.
        message: what is wrong with them.
        where: the columns or the file; the table's name when left out.
        severity: of the finding.
    """
    flags = bad if isinstance(bad, np.ndarray) else bad.fill_null(False).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(flags)
    if not len(rows):
        return []
    examples = tuple(str(keys[int(row)].as_py()) for row in rows[:NUM_EXAMPLES])
    return [
        Finding(
            rule=rule,
            severity=severity,
            table=table,
            where=where or table,
            message=message,
            count=len(rows),
            examples=examples,
        )
    ]


def merge(findings: Iterable[Finding]) -> list[Finding]:
    """Put findings that say the same of the same table and place, unit by unit, into one each; in the order of the first."""
    merged: dict[tuple[str, Severity, str, str, str], Finding] = {}
    for one in findings:
        same = one.rule, one.severity, one.table, one.where, one.message
        before = merged.get(same)
        merged[same] = (
            one
            if before is None
            else replace(
                before, count=before.count + one.count, examples=(*before.examples, *one.examples)[:NUM_EXAMPLES]
            )
        )
    return list(merged.values())


def fold(findings: Iterable[Finding]) -> list[Finding]:
    """Put findings in order, and many alike into one: errors first, then by stage as causes come before what follows, then by rule."""
    groups: dict[tuple[int, int, int, str], list[Finding]] = {}
    severities, stages, rules = list(Severity), [*STAGES, ""], list(RULES)
    for finding in findings:
        rank = severities.index(finding.severity), stages.index(finding.stage)
        place = *rank, rules.index(finding.rule), finding.table
        groups.setdefault(place, []).append(finding)
    folded = []
    for _, alike in sorted(groups.items(), key=lambda item: item[0]):
        alike.sort(key=lambda finding: (finding.where, finding.message))
        if len(alike) <= MOST_ALIKE:
            folded += alike
            continue
        first = alike[0]
        folded.append(
            Finding(
                rule=first.rule,
                severity=first.severity,
                table=first.table,
                where=f"{first.where} and {len(alike) - 1} more places",
                message=f"{first.message} (the first of {len(alike)} findings alike)",
                count=sum(finding.count for finding in alike),
                examples=tuple(key for finding in alike for key in finding.examples or (finding.where,))[:NUM_EXAMPLES],
            )
        )
    return folded
