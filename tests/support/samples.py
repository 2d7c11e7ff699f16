"""Real recordings that tests may use where they are: public sample clips, and what `make fetch` brought."""

import os
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]


def _found(name: str, variable: str, folder: Path) -> Path:
    path = Path(os.environ.get(variable) or folder) / name
    if not path.exists():
        pytest.skip(f"{name} is not there (set {variable})")
    return path


def sample(name: str) -> Path:
    """A file or folder of the sample recordings, `owner+repository/path`; skips the test where it is absent."""
    return _found(name, "CROSSPOSE_SAMPLES", _REPOSITORY.parent / "shared" / "samples")


def asset(name: str) -> Path:
    """A file or folder that `make fetch` brings; skips the test where it is absent."""
    return _found(name, "CROSSPOSE_ASSETS", _REPOSITORY / "assets")
