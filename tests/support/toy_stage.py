"""A stage small enough to be killed a hundred times: `python -m tests.support.toy_stage OUT local|ray UNITS SECONDS`."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from manifests.commit import UnitWriter
from manifests.errors import SourceError
from manifests.seeds import rng_for
from manifests.types import Reason, Reject
from pipeline.executors import LocalExecutor, RayExecutor
from pipeline.parse import DEVICE
from pipeline.stage import Outcome, Plan, Report, Stage, Unit, run_stage


@dataclass
class Toy(Stage):
    """Writes a few kilobytes per unit, slowly; `broken` units fail, `deadly` ones kill their process."""

    name: ClassVar[str] = "toys"
    units: int = 8
    seconds: float = 0.0
    salt: int = 0
    broken: tuple[int, ...] = ()
    deadly: tuple[int, ...] = ()
    pooled: bool = False  # type: ignore[misc]

    def plan(self) -> Plan:
        units = tuple(Unit(f"u{i:03d}", i) for i in range(self.units))
        return Plan(recipe={"salt": self.salt}, inputs={}, units=units)

    def run(self, unit: Unit, out: UnitWriter, opened: Any, report: Report) -> None:
        if unit.work in self.broken:
            raise SourceError("this toy is broken", where=unit.id, hint="glue it")
        if unit.work in self.deadly:
            os._exit(1)
        path = out.path(".tar")
        with path.open("wb") as file:
            for step in range(4):
                file.write(rng_for(self.salt, unit.id, step).bytes(2048))
                file.flush()
                report(step + 1, 4)
                time.sleep(self.seconds / 4)
        out.add(path, table="tar", rows=4)
        out.counts["pieces"] += 4
        out.reject([Reject("toys", unit.id, Reason.EMPTY)] if unit.work % 3 == 0 else [])


class DeviceToy(Toy):
    """Counts where its workers would compute."""

    def open(self) -> str:
        return os.environ.get(DEVICE, "cpu")

    def run(self, unit: Unit, out: UnitWriter, opened: Any, report: Report) -> None:
        super().run(unit, out, opened, report)
        out.counts[opened] += 1


class SilentWatcher:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int]] = []
        self.outcomes: list[Outcome] = []

    def start(self, stage: str, *, total: int, done: int) -> None:
        self.begun = (stage, total, done)

    def step(self, unit: str, done: int, total: int) -> None:
        self.steps.append((unit, done, total))

    def end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def stop(self) -> None:
        self.stopped = True


if __name__ == "__main__":
    out, how, units, seconds = sys.argv[1:]
    executor = LocalExecutor() if how == "local" else RayExecutor(workers=2)
    run_stage(Toy(int(units), float(seconds)), Path(out), executor, SilentWatcher())
