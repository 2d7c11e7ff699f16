"""A real S3 server on loopback (moto's), in an environment of its own: see `moto.lock`."""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyarrow import fs

BUCKET = "bucket"
SECRET = "never-in-a-log"
_PROGRAM = Path(__file__).parents[2] / ".venv/moto/bin/moto_server"


@contextmanager
def s3_environment(log: Path) -> Iterator[dict[str, str]]:
    """The environment in which `s3://bucket/...` is on a fresh server.

    Args:
        log: file for what the server says.
    """
    if not _PROGRAM.exists():
        pytest.skip("no S3 server: tests/support/moto.lock says how to install one")
    with log.open("w") as file, subprocess.Popen([_PROGRAM, "-H", "127.0.0.1", "-p", "0"], stderr=file) as server:
        try:
            address = _address(log)
            client = fs.S3FileSystem(
                endpoint_override=address.removeprefix("http://"),
                scheme="http",
                region="us-east-1",
                access_key="maker",
                secret_key=SECRET,
                allow_bucket_creation=True,
            )
            client.create_dir(BUCKET)
            yield {
                "AWS_ENDPOINT_URL": address,
                "AWS_ACCESS_KEY_ID": "maker",
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_REGION": "us-east-1",
            }
        finally:
            server.terminate()


def _address(log: Path) -> str:
    for _ in range(1200):
        if found := re.search(r"Running on (http://[\d.:]+)", log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise TimeoutError(f"the S3 server does not start: {log.read_text()}")
