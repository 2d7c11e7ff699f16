"""What a stage was planned from, held against what the stages before it have committed since.

A plan (`plan.json`) tells of each unit, under `own`, the hash of the file that it reads of an earlier stage, by that stage's
name; the plan of the shards, whose units read many files, tells all of them under `packed`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from manifests.commit import commits

# By stage, the table that the next one reads of it.
READ_OF = {"frames": "frames", "renders": "crops", "crops": "crops", "pairs": "pairs"}

Hashes = dict[str, str]  # SHA-256 by unit


def hashes(root: Path, stage: str) -> Hashes:
    """SHA-256 of the file that each unit of a stage hands on; units without a row hand on nothing."""
    table = READ_OF[stage]
    found = ((c.unit, c.file(table)) for c in commits(root / stage))
    return {unit: file.sha256 for unit, file in found if file is not None and file.rows}


def planned_from(plan: Mapping[str, Any]) -> dict[str, Hashes]:
    """By earlier stage, the hashes that a plan was made from; empty when it tells of none."""
    read: dict[str, Hashes] = {}
    for unit, own in plan.get("own", {}).items():
        for stage in READ_OF.keys() & own["inputs"].keys():
            read.setdefault(stage, {})[unit] = own["inputs"][stage]
    for part in plan.get("packed", []):
        read.setdefault("pairs", {}).update(part)
    return read


def behind(root: Path, plan: Mapping[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Where a plan is behind the stages before it: the stage, what is the matter, and with which of its units.

    Args:
        root: of the build.
        plan: of one of its stages, as read.
    """
    for stage, planned in sorted(planned_from(plan).items()):
        there = hashes(root, stage)
        both = planned.keys() & there.keys()
        for what, units in (
            ("not used yet", there.keys() - planned.keys()),
            ("gone", planned.keys() - there.keys()),
            ("made anew since", {unit for unit in both if planned[unit] != there[unit]}),
        ):
            if units:
                yield stage, what, sorted(units)
