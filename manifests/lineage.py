"""What a stage was planned from, held against what the stages before it have committed since.

A plan (`plan.json`) tells of each unit, under `own`, the hash of the file that it reads of an earlier stage, by that stage's
name; the plan of the shards, whose units read many files, tells all of them under `packed`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from manifests.commit import Commit
from manifests.recipes import fingerprint

# By stage, the table that the next one reads of it.
READ_OF = {"frames": "frames", "renders": "crops", "crops": "crops", "pairs": "pairs"}

Hashes = dict[str, str]  # SHA-256 by unit


def own_stamp(own: Mapping[str, Any] | None) -> str:
    """The fingerprint of what decides one unit alone, as its plan tells it; empty when that is nothing."""
    return "" if own is None else fingerprint(own)


def hashes(stage: str, done: Sequence[Commit]) -> Hashes:
    """SHA-256 of the file that each unit of a stage hands on; units without a row hand on nothing."""
    table = READ_OF[stage]
    found = ((c.unit, c.file(table)) for c in done)
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


def images_of(plan: Mapping[str, Any]) -> int | None:
    """How many images a plan of the renders asks for (`N`), before those are left out that show too little; None where it tells not."""
    try:
        recipe = plan["recipe"]["render"]
        return len(plan["units"]) * int(recipe["instants_per_scene"]) * int(recipe["num_views"]) or None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def behind(
    plan: Mapping[str, Any], commits_of: Callable[[str], Sequence[Commit]]
) -> Iterator[tuple[str, str, list[str]]]:
    """Where a plan is behind the stages before it: the stage, what is the matter, and with which of its units.

    Args:
        plan: of a stage, as read.
        commits_of: gives the commits of an earlier stage, by its name.
    """
    for stage, planned in sorted(planned_from(plan).items()):
        there = hashes(stage, commits_of(stage))
        both = planned.keys() & there.keys()
        for what, units in (
            ("not used yet", there.keys() - planned.keys()),
            ("gone", planned.keys() - there.keys()),
            ("made anew since", {unit for unit in both if planned[unit] != there[unit]}),
        ):
            if units:
                yield stage, what, sorted(units)
