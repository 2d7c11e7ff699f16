"""A build that may be read by all tests of the room, and a copy to break."""

import shutil

import pytest

from tests.support.build_folder import make_build


@pytest.fixture(scope="session")
def honest(tmp_path_factory):
    """A build that nobody writes into."""
    return make_build(tmp_path_factory.mktemp("build") / "out")


@pytest.fixture
def build(honest, tmp_path):
    """A copy of it that may be broken."""
    return shutil.copytree(honest, tmp_path / "out")
