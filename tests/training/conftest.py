import cv2
import numpy as np
import pytest
import torch

from training import pretrain

DRAWN = pretrain.draw_loss_curve
BLANK = cv2.imencode(".png", np.full((1, 1, 3), 255, np.uint8))[1].tobytes()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny layers run many times slower when threads wait for each other on a busy machine, and add up otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def blank_curves():
    """Half of a tiny run would be its picture: one pixel stands for it where no test looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "draw_loss_curve", lambda _folder, path, *, zero_loss: path.write_bytes(BLANK))
        yield


@pytest.fixture
def true_curves(monkeypatch):
    """Curves are drawn in this test."""
    monkeypatch.setattr(pretrain, "draw_loss_curve", DRAWN)
