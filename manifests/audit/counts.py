"""What commits count, and what `stats.json` adds up, held against the rows."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from manifests.audit.findings import Finding, Severity, error
from manifests.audit.mend import SAME, TARGETS
from manifests.commit import STATS, Commit
from manifests.types import PairKind

Place = tuple[str, str]  # stage and unit


def look_at_counts(
    done: Mapping[str, list[Commit]],
    rows: Mapping[Place, Mapping[str, int]],
    rejects: Mapping[Place, Mapping[str, int]],
) -> Iterator[Finding]:
    """Hold what every commit counts against what its tables hold.

    Args:
        done: the commits, by stage.
        rows: what was counted in the files of each unit that read: rows by table, and frames that are held back.
        rejects: what their rejects tell, by reason; of units whose rejects do not read, nothing.
    """
    for stage, commits in done.items():
        for commit in commits:
            place, where = (stage, commit.unit), f"{stage}/{commit.unit}.json"
            found = rows.get(place, {})
            listed = {file.table for file in commit.files} - {"tar"}
            kinds = {kind.value for kind in PairKind} if stage == "shards" else set()  # see `manifests.audit.shards`
            for name in sorted((listed | commit.counts.keys()) - kinds):
                there = found.get(name, None if name in listed or listed - found.keys() else 0)
                told = commit.counts.get(name, 0)
                if there is not None and told != there:  # what does not read is told elsewhere
                    yield error("counts", "", where, f"it counts {told:,} {name}, there are {there:,}")
            if place in rejects or "rejects" not in listed:
                due = dict(rejects.get(place, {}))
                if due != commit.rejects:
                    odd = sorted(r for r in due.keys() | commit.rejects.keys() if due.get(r) != commit.rejects.get(r))
                    counted = ", ".join(f"{commit.rejects.get(r, 0):,} {r}, not {due.get(r, 0):,}" for r in odd)
                    yield error("counts", "", where, f"of what was left out it counts {counted}")


def look_at_stats(folder: Path, done: list[Commit]) -> Iterator[Finding]:
    """Hold the sums of a stage (`stats.json`) against its commits; a run that was stopped at its very end leaves older ones."""
    where = f"{folder.name}/{STATS}"
    try:
        told = json.loads((folder / STATS).read_text())
        told = {"units": told["units"], "counts": dict(told["counts"]), "rejects": dict(told["rejects"])}
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        told = None
    counts, rejects = Counter[str](), Counter[str]()
    for commit in done:
        counts.update(commit.counts)
        rejects.update(commit.rejects)
    due = {"units": len(done), "counts": dict(counts), "rejects": dict(rejects)}
    if told != due:
        odd = ", ".join(name for name, value in due.items() if told is None or told[name] != value)
        yield Finding(
            rule="counts", severity=Severity.WARNING, table="", where=where,
            message="it does not read" if told is None else f"its {odd} are not the sums of the commits",
            hint=f"run `make {TARGETS[folder.name]}` again {SAME}: it is written anew",
        )  # fmt: skip
