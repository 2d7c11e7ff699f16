"""Hundreds of kills on both executors: nothing lost, nothing twice, nothing left over, every byte as if never killed.

`make soak`, or `python -m pytest tests/soak/soak_*.py -m "" --timeout 0 -o log_cli=true -o log_cli_level=INFO`; KILLS=1000 kills
more, SEED=7 at other moments. On `local` drivers are killed on the road from the raw clips to the shards; on `ray` drivers,
workers and nodes while pairs are drawn and packed. Each build is extended once, and killed again while it is.
"""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kills import ROOT

logger = logging.getLogger(__name__)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "kills"), [("local", 300), pytest.param("ray", 100, marks=pytest.mark.ray)])
def test_killed_hundreds_of_times(tmp_path: Path, how: str, kills: int) -> None:
    wanted = os.environ.get("KILLS") or str(kills)
    command = [sys.executable, "-m", "tests.support.kills", str(tmp_path), how, wanted, os.environ.get("SEED") or "0"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    seen = json.loads(done.stdout)
    logger.info("%s: %s", how, ", ".join(f"{count} {what}" for what, count in seen.items()))
    assert (seen["lost"], seen["doubled"], seen["left_over"]) == (0, 0, 0)
