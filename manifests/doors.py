"""How a command of ours is written where a person reads it: so that it works when it is copied."""

import shlex
import shutil
import sys
from pathlib import Path


def door(room: str, *arguments: str | Path) -> str:
    """A command line of `python -m ROOM`, quoted for a shell.

    The interpreter is the one that runs now: `python` where a shell would find it by that name, else its path, below the folder
    that we are in if it lies there (`.venv/bin/python`).

    Args:
        room: manifests, synthetic, pipeline or training.
        arguments: of the command; what comes from data is safe to paste.
    """
    runs, here = Path(sys.executable), Path.cwd()
    if shutil.which("python") == str(runs):
        runs = Path("python")
    elif runs.is_relative_to(here):
        runs = runs.relative_to(here)
    return shlex.join([str(runs), "-m", room, *map(str, arguments)])
