"""Fine-tuning in several processes: what one learns on the whole batch, two learn on halves of it."""

import json
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from manifests.errors import TrainingError
from tests.support.toy_task import ToyTask
from tests.training.finetuning.test_finetune import assert_same_state, last
from training.checkpoints import list_checkpoints, read_checkpoint
from training.finetuning.finetune import finetune
from training.finetuning.measure import whole
from training.finetuning.mixture import Mixture
from training.finetuning.network import BEST
from training.machine import Machine
from training.record import read_metrics
from training.tasks.datasets import READERS, open_examples
from training.tasks.mesh_losses import mean_of_known
from training.tasks.recipes import TASKS, paper

ROOT = Path(__file__).parents[3]
EVERY_THIRD = Machine(checkpoint_every=3)


@dataclass(frozen=True, kw_only=True)
class PartlyKnown(ToyTask):
    """Beside the mean over all discs one over those that are known: a third of them."""

    def target(self, example, cut, about):
        known = np.float32(int(example.key.split("/")[1]) % 3 == 0)
        return {**super().target(example, cut, about), "known": known}

    def loss(self, outputs, target):
        apart_B = (outputs - target["point"]).abs().mean(dim=1)
        return {**super().loss(outputs, target), "known": mean_of_known(apart_B, target["known"])}


def register():
    TASKS["toy"] = f"{__name__}:PartlyKnown"
    READERS["toy"] = "tests.support.toy_task:ToyExamples"


@pytest.fixture
def partly(monkeypatch, recipe):
    monkeypatch.setitem(TASKS, "toy", f"{__name__}:PartlyKnown")
    (test,) = recipe.test
    return replace(recipe, test=(replace(test, options={"count": 13}),))


WORKER = """
import faulthandler, json, os, pickle, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
faulthandler.dump_traceback_later(200, exit=True)  # says where it waits, should it wait for ever
from manifests.errors import TrainingError
from tests.training.finetuning import test_processes
from tests.training.conftest import BLANK
from training.finetuning import finetune as engine
from training.machine import Machine

test_processes.register()
engine.draw_curves = lambda _run, path, *, main, unit: path.write_bytes(BLANK)
out, rank, ports = Path(sys.argv[1]), os.environ["RANK"], sys.argv[2:]
exact, drawn = pickle.loads((out / "recipes.pickle").read_bytes())
train_step = engine.Tuner.train_step


def disturbed(step, action):
    def watched(self, batch):
        if self.step + 1 == step and rank == "1":
            action(batch)
        return train_step(self, batch)
    engine.Tuner.train_step = watched



def run(recipe, name, **given):
    os.environ["MASTER_PORT"] = ports.pop(0)  # one process may be at its next run while the other still draws
    return engine.finetune(recipe, out / name, **given)


told = {}
run(exact, "two", machine=test_processes.EVERY_THIRD)
run(drawn, "undisturbed")
disturbed(3, lambda _: os.kill(os.getpid(), signal.SIGUSR1))
ended = run(drawn, "stopped")
told["stopped"] = [ended.finished, ended.step, ended.signal]
told["files"] = sorted(path.name for path in (out / "stopped/checkpoints").iterdir())
told["finished"] = (out / "stopped/finished.json").exists()
disturbed(0, None)
told["evaluations"] = len(run(drawn, "stopped").evaluations)
disturbed(2, lambda batch: batch.target["point"].fill_(float("nan")))
try:
    run(drawn, "not-finite", machine=Machine(checkpoint_every=1))
except TrainingError as error:
    told["not finite"] = str(error)
(out / f"told-{rank}.json").write_text(json.dumps(told))
"""


def free_ports(num):
    """Below those that the system gives away by itself: gloo's own connections of an earlier run could have taken one of these."""
    found = []
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found[:num]


def numbers(run):
    lost = ("seconds", "data_wait", "kind")
    return [{name: v for name, v in line.items() if name not in lost} for line in read_metrics(run)]


@pytest.mark.timeout(600)  # three processes start
def test_two_processes_learn_what_one_learns_and_stop_and_go_on_together(tmp_path, partly, monkeypatch):

    exact, drawn = replace(partly, options={"dropout": 0.0}), partly
    (tmp_path / "recipes.pickle").write_bytes(pickle.dumps((exact, drawn)))
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, str(tmp_path / "worker.py"), str(tmp_path), *map(str, free_ports(5))]
    common = {**os.environ, "PYTHONPATH": str(ROOT), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    with ExitStack() as stack:
        workers = [
            subprocess.Popen(
                command,
                env={**common, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
                cwd=ROOT,
                stderr=stack.enter_context((tmp_path / f"said-{rank}").open("w")),
            )
            for rank in (0, 1)
        ]
        for worker in workers:
            stack.callback(worker.kill)  # one that failed leaves the other waiting
        codes = [worker.wait() for worker in workers]
    assert codes == [0, 0], "\n".join((tmp_path / f"said-{rank}").read_text() for rank in (0, 1))
    told = [json.loads((tmp_path / f"told-{rank}.json").read_text()) for rank in (0, 1)]

    # Every number of a run is that of one process, a mean over what is known in a batch like one over its examples.
    finetune(exact, tmp_path / "one", machine=EVERY_THIRD)
    for one, two in zip(numbers(tmp_path / "one"), numbers(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-7)
    assert_same_scores(tmp_path / "one", tmp_path / "two")
    # One process goes on from the middle of what two began.
    (tmp_path / "two/finished.json").unlink()
    list_checkpoints(tmp_path / "two/checkpoints")[-1].unlink()
    assert last(tmp_path / "two").step == 3
    finetune(exact, tmp_path / "two", machine=EVERY_THIRD)
    assert_same_scores(tmp_path / "one", tmp_path / "two")

    # A signal to the second process stops both after the same step, with one checkpoint.
    assert [one["stopped"] for one in told] == [[False, 3, signal.SIGUSR1]] * 2
    for one in told:
        assert one["files"] == ["step-00000003.pt"]
        assert not one["finished"]
    assert [one["evaluations"] for one in told] == [1, 0]
    assert_same_state(last(tmp_path / "stopped"), last(tmp_path / "undisturbed"))
    assert numbers(tmp_path / "stopped") == numbers(tmp_path / "undisturbed")
    scores = [(tmp_path / run / "scores.json").read_bytes() for run in ("stopped", "undisturbed")]
    assert scores[0] == scores[1]

    # A loss that is not finite in one process stops both before the step; that one says which examples.
    assert "the loss (point, known) is not finite" in told[1]["not finite"]
    assert "the gradient is not finite" in told[0]["not finite"]
    assert last(tmp_path / "not-finite").step == 1


def assert_same_scores(one, two):
    assert read_checkpoint(one / BEST).step == read_checkpoint(two / BEST).step
    for part in ("model", "head"):
        weights = getattr(last(two), part)
        for name, value in getattr(last(one), part).items():
            if not name.endswith("qkv.bias"):  # softmax takes no notice of a key's: Adam follows what is rounded
                torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=2e-5, msg=name)
    told = [json.loads((run / "scores.json").read_text())["datasets"][0] for run in (one, two)]
    assert told[0]["examples"] == told[1]["examples"] == 13
    for name, score in told[0]["scores"].items():
        assert told[1]["scores"][name]["value"] == pytest.approx(score["value"], rel=1e-4)
        assert told[1]["scores"][name]["interval"] == pytest.approx(score["interval"], rel=1e-4)
        assert told[1]["scores"][name]["constant"] == pytest.approx(score["constant"], rel=1e-6)


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_shares_of_a_batch_are_the_batch(recipe, world):
    parts = [whole(open_examples(recipe.train[0]))]
    mixture = Mixture(parts, recipe, ToyTask(), image_px=56)

    def batch(rank, world):
        stream = mixture.batches(16, device=torch.device("cpu"), rank=rank, world=world)
        return [next(stream) for _ in range(2)][1]

    shares, of_one = [batch(rank, world) for rank in range(world)], batch(0, 1)
    assert [key for share in shares for key in share.keys] == list(of_one.keys)
    assert torch.equal(torch.cat([share.images[0] for share in shares]), of_one.images[0])
    assert torch.equal(torch.cat([share.target["point"] for share in shares]), of_one.target["point"])


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_shares_of_what_is_scored_are_as_even_as_can_be_and_follow_each_other(recipe, world):
    part = whole(open_examples(replace(recipe.test[0], options={"count": 5})))
    shares = [part.share(rank, world).index.tolist() for rank in range(world)]
    assert [place for share in shares for place in share] == part.index.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("world", "message"),
    [
        (3, r"3 processes cannot share a batch of 8 examples evenly(.|\n)*start 2 processes, or set `batch_size: 9`"),
        (16, r"16 processes cannot(.|\n)*start 8 processes, or set `batch_size: 16`"),
    ],
)
def test_processes_that_cannot_share_a_batch_are_refused_with_numbers_that_can(
    tmp_path, recipe, monkeypatch, world, message
):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    with pytest.raises(TrainingError, match=message):
        finetune(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_recipes_of_the_paper_run_on_one_two_four_and_eight_processes():
    for world in (1, 2, 4, 8):
        assert paper("body_mesh").batch_size % world == 0
