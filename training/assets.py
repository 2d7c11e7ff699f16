"""Where the files of `make fetch`, and those that a user put beside them, lie."""

import os
from pathlib import Path


def asset(name: str) -> Path:
    """A file below `$CROSSPOSE_ASSETS`, or else below `assets` in the working folder."""
    return Path(os.environ.get("CROSSPOSE_ASSETS") or "assets") / name
