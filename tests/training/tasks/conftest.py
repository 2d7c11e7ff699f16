import os
from pathlib import Path

import pytest
import torch

from synthetic.models.body import build_body
from synthetic.models.hand import build_hands

ASSETS = Path(os.environ.get("CROSSPOSE_ASSETS") or Path(__file__).parents[3] / "assets")


@pytest.fixture(scope="session")
def assets(tmp_path_factory):
    """The models that `make fetch` built, or models built now, which takes half a minute."""
    if all((ASSETS / name).exists() for name in ("body.npz", "hand_right.npz", "hand_left.npz")):
        return ASSETS
    folder = tmp_path_factory.mktemp("assets")
    build_body(folder / "body.npz")
    build_hands(folder / "hand_right.npz", folder / "hand_left.npz")
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
