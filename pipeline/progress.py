"""What a person sees while a stage runs: bars in a terminal, a line now and then in a log."""

import time
from collections.abc import Iterable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline.stage import Outcome, Summary

SECONDS_BETWEEN_LINES = 10.0


class TerminalWatcher:
    """Bars for the stage and for each unit under way; where no terminal is, plain lines."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._stage, self._total, self._done, self._spoke = "", 0, 0, 0.0
        self._steps: dict[str, tuple[int, int]] = {}
        self._bars: Progress | None = None
        self._whole: TaskID | None = None
        self._tasks: dict[str, TaskID] = {}

    def start(self, stage: str, *, total: int, done: int) -> None:
        """Open the bars."""
        self._stage, self._total, self._done, self._spoke = stage, total, done, time.monotonic()
        self._steps, self._tasks = {}, {}
        if self.console.is_terminal and done < total:
            self._bars = Progress(
                TextColumn("{task.description:<32}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._whole = self._bars.add_task(f"[bold]{stage}", total=total, completed=done)
            self._bars.start()

    def step(self, unit: str, done: int, total: int) -> None:
        """Move a unit's bar."""
        self._steps[unit] = (done, total)
        if self._bars is None:
            self._say_now_and_then()
        elif unit in self._tasks:
            self._bars.update(self._tasks[unit], completed=done, total=total)
        else:
            self._tasks[unit] = self._bars.add_task(f"  {unit}", total=total, completed=done)

    def end(self, outcome: Outcome) -> None:
        """Close a unit's bar."""
        self._done += 1
        self._steps.pop(outcome.unit, None)
        if outcome.error is not None:
            self.console.print(f"[red]{outcome.unit}: {outcome.error.what}[/]")
        if self._bars is None:
            self._say_now_and_then()
            return
        assert self._whole is not None, "the stage's bar is opened in start"
        self._bars.update(self._whole, completed=self._done)
        if outcome.unit in self._tasks:
            self._bars.remove_task(self._tasks.pop(outcome.unit))

    def stop(self) -> None:
        """Close all bars."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _say_now_and_then(self) -> None:
        if time.monotonic() - self._spoke < SECONDS_BETWEEN_LINES:
            return
        self._spoke = time.monotonic()
        running = ", ".join(f"{unit} {done}/{total}" for unit, (done, total) in sorted(self._steps.items()))
        self.console.print(f"{self._stage}: {self._done}/{self._total} units" + (f" ({running})" if running else ""))


def watch(what: str, steps: Iterable[tuple[int, int]]) -> None:
    """Go through steps (done, in all) with a bar that appears with the first; without a terminal, a line now and then."""
    console, spoke = Console(stderr=True, highlight=False), time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task: TaskID | None = None
        for done, total in steps:
            if task is None:
                task = bars.add_task(what, total=total)
            bars.update(task, completed=done, total=total)
            if not console.is_terminal and time.monotonic() - spoke > SECONDS_BETWEEN_LINES:
                spoke = time.monotonic()
                console.print(f"{what}: {done / max(total, 1):.0%}")


def print_summary(console: Console, summary: Summary) -> None:
    """One line on what a stage has, and what it left out; then what to know of it."""
    counts = ", ".join(
        f"{count:,} {name}" for name, count in sorted(summary.counts.items()) if name != "rejects" and count
    )
    rejects = ", ".join(f"{count} {reason}" for reason, count in summary.rejects.most_common())
    how = f"{summary.new} new, {summary.seconds:.0f} s" if summary.new else "all there"
    console.print(
        f"[green]✓[/] [bold]{summary.stage:<8}[/] {summary.units} units ({how}): {counts or 'nothing to do'}"
        + (f"; left out: {rejects}" if rejects else ""),
        soft_wrap=True,
    )
    for note in summary.notes:
        console.print(f"    {note}", markup=False, soft_wrap=True)
