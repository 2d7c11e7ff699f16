"""A folder that its reader may not open, also for a user whom no mode keeps out."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def forbid(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Make a folder as mode 000 makes it: it is there, and neither listed nor entered."""
    shut = os.fspath(folder)

    def refusing(ask: Callable[..., Any], *, inside: bool) -> Callable[..., Any]:
        def answer(path: Any = ".", *args: Any, **named: Any) -> Any:
            asked = "" if isinstance(path, int) else os.fsdecode(path)
            if asked.startswith(shut + os.sep) or (asked == shut and not inside):
                raise PermissionError(13, "Permission denied", asked)
            return ask(path, *args, **named)

        return answer

    def access(path: Any, mode: int, **named: Any) -> bool:
        return not f"{os.fspath(path)}{os.sep}".startswith(shut + os.sep) and may(path, mode, **named)

    may = os.access
    patch.setattr(os, "access", access)
    patch.setattr(os, "stat", refusing(os.stat, inside=True))
    patch.setattr(os, "scandir", refusing(os.scandir, inside=False))
    patch.setattr(os, "listdir", refusing(os.listdir, inside=False))
