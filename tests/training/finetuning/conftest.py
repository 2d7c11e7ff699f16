import pytest

from tests.support.toy_task import register
from tests.training.conftest import BLANK
from training.finetuning import finetune
from training.finetuning.finetune import Tuner
from training.model.croco import Architecture
from training.tasks.recipes import Data, FinetuneRecipe

SMALL = Architecture(
    image_px=56, patch_px=8, enc_dim=32, enc_depth=2, enc_heads=2, dec_dim=32, dec_depth=1, dec_heads=2
)


@pytest.fixture(autouse=True)
def toy(monkeypatch, one_thread):
    register(monkeypatch)


DRAWN = finetune.draw_curves


@pytest.fixture(scope="module", autouse=True)
def blank_tuning_curves():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "draw_curves", lambda _run, path, *, main, unit: path.write_bytes(BLANK))
        yield


@pytest.fixture
def true_curves(monkeypatch):
    """Curves are drawn in this test."""
    monkeypatch.setattr(finetune, "draw_curves", DRAWN)


@pytest.fixture
def recipe(tmp_path):
    data = {split: Data(kind="toy", split=split, root=str(tmp_path)) for split in ("train", "val", "test")}
    return FinetuneRecipe(
        name="toy",
        task="toy",
        train=(data["train"],),
        validation=data["val"],
        test=(data["test"],),
        architecture=SMALL,
        batch_size=8,
        num_steps=6,
        base_lr=3e-2,
        precision="float32",
        validate_every=2,
    )


def during_step(monkeypatch, step, action):
    """Do something when a step begins, counted from 1."""
    train_step = Tuner.train_step

    def watched(self, batch):
        if self.step + 1 == step:
            action(self, batch)
        return train_step(self, batch)

    monkeypatch.setattr(Tuner, "train_step", watched)
