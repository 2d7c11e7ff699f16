"""The folder of a run: whose it is, whether it is done, and how a call that worked in it ended."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.errors import TrainingError
from manifests.recipes import changed_keys
from training.checkpoints import write_atomic

RECIPE, FINISHED = "recipe.json", "finished.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a call that trains ended.

    Args:
        finished: the run is complete; otherwise a signal stopped it after a checkpoint.
        step: steps done.
        signal: number of the signal that stopped the run.
    """

    finished: bool
    step: int
    signal: int | None = None


def claim(
    out: Path,
    wanted: Mapping[str, Any],
    *,
    noted: Mapping[str, Any],
    as_now: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    writes: bool = True,
) -> dict[str, Any] | None:
    """Take an empty folder, or check that a used one is this run's.

    Args:
        out: the folder.
        wanted: what decides the run, as plain values.
        noted: what is written beside it and may differ.
        as_now: says what an older version wrote in the words of this one.
        writes: whether this process is the one that writes.

    Returns:
        What `finished.json` says, if the run is done.

    Raises:
        TrainingError: the folder is another run's, or cannot be written.
    """
    if (out / RECIPE).exists():
        found = {name: value for name, value in read_json(out / RECIPE).items() if name not in noted}
        found = as_now(found)
        if changes := changed_keys(found, wanted):
            theirs, ours = (run.get("recipe", {}).get("name") for run in (found, wanted))
            other = "another run" if theirs == ours else f"the run `{theirs}`, not `{ours}`"
            changes = [change for change in changes if not change.startswith("recipe.name:")]
            raise TrainingError(
                f"the folder holds {other}{'; changed: ' * bool(changes)}{few(changes)}",
                where=out,
                hint="give another --out, or remove this one to start anew",
            )
    elif writes:
        make_folder(out)
        write_json(out / RECIPE, {**wanted, **noted})
    return read_json(out / FINISHED) if (out / FINISHED).exists() else None


def few(changes: Sequence[str], most: int = 4) -> str:
    """Changed keys (`changed_keys`) in a line: the least nested first, a few of them, and how many more there are."""
    keys = sorted(changes, key=lambda change: (not change.startswith("name:"), change.partition(":")[0].count(".")))
    more = f"; and {len(keys) - most} more" if len(keys) > most else ""
    return "; ".join(keys[:most]) + more


def make_folder(out: Path) -> None:
    """Make a folder and those above it.

    Raises:
        TrainingError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"cannot write: {error}", where=out, hint="give another --out") from error


def write_json(path: Path, value: Any) -> None:
    """Write a file whole or not at all, keys sorted."""
    write_atomic(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        TrainingError: there is no such file, or it is no JSON.
    """
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TrainingError("there is no such file", where=path, hint="give the folder of a run") from error
    except json.JSONDecodeError as error:
        raise TrainingError(f"not JSON: {error}", where=path, hint="give another --out") from error
    return value
