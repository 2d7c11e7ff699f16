"""A parser that may die: what kills it is found out, and left out, instead of stopping the recording.

Before each call, the call's number is noted in a file. A worker that dies (a crash inside a net's library takes the process along)
leaves that note behind, and the next try of the same unit makes the call in a process of its own: if that dies too, the
picture is to blame; if not, the worker died of something else, and the answer counts. So a kill from outside never
changes a result.
"""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.parse import HumanParser, OneParser

Image = npt.NDArray[np.uint8]
Probability = npt.NDArray[np.float32]


class ParserCrashError(Exception):
    """The parser died on these crops. Never leaves the crop stage: it becomes a reject."""


class GuardedParser:
    """Passes calls on to a parser and notes how far it has come.

    Args:
        parser: to be guarded.
        build: builds another one like it, in another process; picklable.
        note: file that outlives this process; what an earlier try has left there names the calls to be suspected.
    """

    def __init__(self, parser: HumanParser, build: Callable[[], HumanParser | None], note: Path) -> None:
        self.name = parser.name
        self._parser, self._build = parser, build
        note.parent.mkdir(parents=True, exist_ok=True)
        self._note, self._earlier = note, note.read_text() if note.exists() else ""
        self._suspects = {int(line) for line in self._earlier.split()}
        self._calls = 0

    def close(self) -> None:
        """The unit is through: nothing is suspected any more."""
        self._note.unlink(missing_ok=True)

    def parse(self, crops: Sequence[Image]) -> list[Probability]:
        """See `HumanParser.parse`.

        Raises:
            ParserCrashError: the parser dies on them.
        """
        found: list[Probability] = self._call("parse", crops)
        return found

    def _call(self, method: str, crops: Sequence[Image]) -> Any:
        self._calls += 1
        if self._calls in self._suspects:
            return _apart(self._build, method, crops)
        self._note.write_text(f"{self._earlier}{self._calls}\n")  # the last line is the call under way
        return getattr(self._parser, method)(crops)


class GuardedOneParser(GuardedParser):
    """The same, of a parser that can tell one person from the others."""

    def parse_one(self, crops: Sequence[Image]) -> list[tuple[Probability, float]]:
        """See `OneParser.parse_one`.

        Raises:
            ParserCrashError: the parser dies on them.
        """
        found: list[tuple[Probability, float]] = self._call("parse_one", crops)
        return found


def guarded(parser: HumanParser, build: Callable[[], HumanParser | None], note: Path) -> GuardedParser:
    """Guard a parser; see `GuardedParser`."""
    return (GuardedOneParser if isinstance(parser, OneParser) else GuardedParser)(parser, build, note)


def _apart(build: Callable[[], HumanParser | None], method: str, crops: Sequence[Image]) -> Any:
    """Make one call in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    asked = pickle.dumps((build, method, list(crops)))
    done = subprocess.run([sys.executable, "-m", __name__], input=asked, capture_output=True, env=environment)
    if done.returncode < 0:  # by a signal
        raise ParserCrashError(f"the parser died on this picture ({signal.Signals(-done.returncode).name})")
    if done.returncode:
        raise RuntimeError(f"the parser failed in a process of its own: {done.stderr.decode(errors='replace')[-2000:]}")
    return pickle.loads(done.stdout)  # noqa: S301 - from our own process


def main() -> None:
    """Answer one call from standard input on standard output."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the answer
    build, method, crops = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own process
    out.write(pickle.dumps(getattr(build(), method)(crops)))
    out.close()


if __name__ == "__main__":
    main()
