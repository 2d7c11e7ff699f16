"""Commands that people copy."""

import subprocess
import sys
from pathlib import Path

from manifests.doors import door


def test_a_command_names_the_interpreter_that_runs_now(monkeypatch, tmp_path):
    python = tmp_path / "project" / ".venv" / "bin" / "python"
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", "")
    assert door("manifests", "show", Path("out")) == f"{python} -m manifests show out"
    python.parent.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    assert door("manifests", "show", "out") == ".venv/bin/python -m manifests show out"
    python.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(python.parent))
    assert door("manifests", "show", "out") == "python -m manifests show out"


def test_a_command_that_is_pasted_runs_and_nothing_else_does(tmp_path):
    done = subprocess.run(
        ["sh", "-c", door("manifests", "show", "a b; echo 'broken in'")], capture_output=True, text=True
    )
    assert "a b; echo 'broken in'" in done.stderr
    assert "no such folder" in done.stderr
    assert done.stdout == ""
