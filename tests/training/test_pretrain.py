import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from manifests.errors import TrainingError
from tests.support.toy_pairs import ToyPairs
from training.checkpoints import list_checkpoints, read_checkpoint
from training.machine import Machine, Processes, find_device
from training.model.croco import Architecture, CroCo
from training.pretrain import Trainer, build_optimizer, learning_rate, pretrain, training_views, zero_loss
from training.recipes import body, smoke
from training.record import read_metrics

TINY = replace(
    smoke(),
    architecture=Architecture(
        image_px=56, patch_px=8, enc_dim=32, enc_depth=1, enc_heads=2, dec_dim=32, dec_depth=1, dec_heads=2
    ),
    batch_size=4,
    num_steps=6,
    warmup_steps=2,
    anneal_steps=6,
    validate_every=3,
    validation_pairs=6,
)
EVERY_STEP = Machine(checkpoint_every=1, keep_checkpoints=99)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pairs():
    return ToyPairs(num_train=12, num_validation=6)


def last(out):
    return read_checkpoint(list_checkpoints(out / "checkpoints")[-1])


def assert_same_state(one, other):
    assert (one.step, one.position) == (other.step, other.position)
    for name, value in one.model.items():
        assert torch.equal(value, other.model[name]), name
    for number, moments in one.optimizer["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, other.optimizer["state"][number][name]), (number, name)


class Interrupted:
    """A source that raises a signal when a step's batch is fetched."""

    def __init__(self, pairs, position, number):
        self.pairs, self.position, self.number, self.shards_hash = pairs, position, number, pairs.shards_hash

    def train(self, **arguments):
        for batch in self.pairs.train(**arguments):
            if batch.index_B[0] == self.position:
                os.kill(os.getpid(), self.number)
            yield batch

    def validation(self, **arguments):
        return self.pairs.validation(**arguments)


def test_a_run_leaves_what_it_promises(tmp_path, pairs, caplog):
    caplog.set_level("INFO")
    outcome = pretrain(TINY, pairs, tmp_path / "run")
    assert outcome.finished
    assert outcome.step == 6
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"recipe.json", "checkpoints", "metrics.jsonl", "tensorboard", "loss.png", "finished.json"}
    assert (tmp_path / "run/loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "run/tensorboard").iterdir())
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [line["position"] for line in lines if line["kind"] == "train"] == [4, 8, 12, 16, 20, 24]
    validations = [line for line in lines if line["kind"] == "validation"]
    assert [line["step"] for line in validations] == [3, 6]
    assert outcome.validation_loss == validations[-1]["loss"]
    assert validations[-1]["pairs"] == 6
    steps = [r.getMessage() for r in caplog.records if "pairs/s" in r.getMessage()]
    assert len(steps) == 6
    assert all(
        line.index("loss") < line.index("lr") < line.index("pairs/s") < line.index("data") < line.index("position")
        for line in steps
    )


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 5])
def test_a_run_stopped_at_any_step_ends_as_if_it_had_never_stopped(tmp_path, pairs, stop_after):
    whole = pretrain(TINY, pairs, tmp_path / "whole", machine=EVERY_STEP)
    source = Interrupted(pairs, (stop_after - 1) * TINY.batch_size, signal.SIGTERM)
    stopped = pretrain(TINY, source, tmp_path / "parts")
    assert (stopped.finished, stopped.step, stopped.signal) == (False, stop_after, signal.SIGTERM)
    assert not (tmp_path / "parts/finished.json").exists()
    again = pretrain(TINY, pairs, tmp_path / "parts")
    assert again == whole
    assert_same_state(last(tmp_path / "parts"), last(tmp_path / "whole"))
    timeless = ("pairs_per_s", "data_wait")
    numbers = [
        [{key: value for key, value in line.items() if key not in timeless} for line in read_metrics(tmp_path / run)]
        for run in ("whole", "parts")
    ]
    # A validation that fell on the step of the stop is not caught up on.
    skipped = [line for line in numbers[0] if line["kind"] == "validation" and line["step"] == stop_after]
    assert [line for line in numbers[0] if line not in skipped] == numbers[1]


def test_a_kill_between_checkpoints_repeats_the_lost_steps(tmp_path, pairs):
    pretrain(TINY, pairs, tmp_path / "whole")

    class Killed(Interrupted):
        def train(self, **arguments):
            for batch in self.pairs.train(**arguments):
                if batch.index_B[0] == self.position:
                    raise KeyboardInterrupt  # as a second Ctrl-C: nothing is saved on the way out
                yield batch

    with pytest.raises(KeyboardInterrupt):
        pretrain(TINY, Killed(pairs, 4 * 4, 0), tmp_path / "run", machine=Machine(checkpoint_every=3))
    assert last(tmp_path / "run").step == 3
    assert read_metrics(tmp_path / "run")[-1]["step"] == 4
    pretrain(TINY, pairs, tmp_path / "run")
    assert_same_state(last(tmp_path / "run"), last(tmp_path / "whole"))
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3, 3, 4, 5, 6, 6]


def test_a_finished_run_is_found_without_training(tmp_path, pairs):
    first = pretrain(TINY, pairs, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    class Untouchable:
        shards_hash = pairs.shards_hash

    assert pretrain(TINY, Untouchable(), tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_run_killed_before_its_last_mark_is_completed(tmp_path, pairs):
    first = pretrain(TINY, pairs, tmp_path)
    (tmp_path / "finished.json").unlink()
    again = pretrain(TINY, pairs, tmp_path)
    assert again.finished
    assert again.validation_loss == pytest.approx(first.validation_loss, rel=1e-6)


@pytest.mark.parametrize(
    ("recipe", "shards", "message"),
    [
        (replace(TINY, base_lr=0.5, seed=3), "toy", "changed: recipe.base_lr: 0.03 -> 0.5; recipe.seed: 0 -> 3"),
        (TINY, "other", 'changed: shards: "toy" -> "other"'),
    ],
)
def test_a_folder_of_another_run_is_left_alone(tmp_path, pairs, recipe, shards, message):
    pretrain(TINY, pairs, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    other = Interrupted(pairs, -1, 0)
    other.shards_hash = shards
    with pytest.raises(TrainingError, match=message):
        pretrain(recipe, other, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path, pairs, monkeypatch, where):
    machine = Machine(checkpoint_every=1)
    train_step, forward, states = Trainer.train_step, Trainer.forward, []

    def spoiled(self, views, masks, reference=None):
        losses = forward(self, views, masks, reference)
        if self.step == 3 and self.model.training and torch.is_grad_enabled():
            if where == "loss":
                return losses * torch.tensor([1, 1, float("nan"), 1])
            losses.register_hook(lambda gradient: gradient * float("inf"))
        return losses

    def watched(self, *arguments):
        states.append({name: value.clone() for name, value in self.model.state_dict().items()})
        try:
            return train_step(self, *arguments)
        except TrainingError:
            assert all(torch.equal(value, states[-1][name]) for name, value in self.model.state_dict().items())
            raise

    monkeypatch.setattr(Trainer, "forward", spoiled)
    monkeypatch.setattr(Trainer, "train_step", watched)
    keys = "train/14" if where == "loss" else "train/12, train/13, train/14, train/15"
    with pytest.raises(TrainingError, match=rf"the {where} is not finite(.|\n)*step 4, pairs {keys}\n"):
        pretrain(TINY, pairs, tmp_path, machine=machine)
    assert len(states) == 4
    assert last(tmp_path).step == 3
    assert all(torch.isfinite(value).all() for value in last(tmp_path).model.values())


def test_learning_rate_rises_and_falls_as_published():
    recipe = body()
    rates = [
        learning_rate(step, recipe) for step in (0, recipe.warmup_steps - 1, recipe.warmup_steps, recipe.num_steps)
    ]
    assert rates[0] == pytest.approx(1.5e-4 / recipe.warmup_steps)
    assert rates[1] == rates[2] == pytest.approx(1.5e-4)
    # CroCo stops at half of its cosine (warm-up 40, stop 400, end 800), where the rate is 0.54 of the peak.
    assert rates[3] / 1.5e-4 == pytest.approx(0.54, abs=0.005)
    assert learning_rate(TINY.anneal_steps, TINY) == pytest.approx(0)
    assert learning_rate(TINY.anneal_steps - 1, TINY) < TINY.peak_lr / 5


def test_decay_is_on_weights_only():
    model = CroCo(TINY.architecture)
    decayed, free = build_optimizer(model, TINY).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    assert {names[id(p)] for p in free["params"]} == {n for n in names.values() if n.endswith(".bias") or "norm" in n}
    assert "mask_token" in {names[id(p)] for p in decayed["params"]}


def test_masks_and_crops_do_not_depend_on_the_split_into_batches(pairs):
    recipe = replace(TINY, pad_to=TINY.full_length)
    whole_views, whole_masks = training_views(pairs.batch("train", [5, 6, 7, 8]), recipe, torch.device("cpu"))
    views, masks = training_views(pairs.batch("train", [7, 8]), recipe, torch.device("cpu"))
    assert (masks.visible_BV == whole_masks.visible_BV[2:]).all()
    torch.testing.assert_close(views.target_BCHW, whole_views.target_BCHW[2:], rtol=0, atol=1e-6)


def test_human_masking_shows_less_of_the_person_than_uniform(pairs):
    batch = pairs.batch("train", list(range(12)))
    shown = {}
    for mask in ("human", "uniform"):
        views, masks = training_views(batch, replace(TINY, mask=mask, pad_to=TINY.full_length), torch.device("cpu"))
        human = views.coverage_BN >= TINY.human_coverage
        shown[mask] = [human[i, seen].sum() for i, seen in enumerate(masks.visible_BV)]
        total = human.sum(axis=1)
    assert shown["human"] == [n - math.floor(0.75 * n) for n in total]
    assert shown["uniform"] != shown["human"]


def test_an_initial_file_is_loaded_and_recorded(tmp_path, pairs):
    torch.manual_seed(4)
    weights = CroCo(TINY.architecture)
    torch.save({"model": weights.state_dict()}, tmp_path / "start.pth")
    still = replace(TINY, base_lr=1e-30, weight_decay=0.0)
    pretrain(still, pairs, tmp_path / "run", init=tmp_path / "start.pth")
    for name, value in weights.state_dict().items():
        torch.testing.assert_close(last(tmp_path / "run").model[name], value, msg=name)
    assert last(tmp_path / "run").init == json.loads((tmp_path / "run/recipe.json").read_text())["init"]
    with pytest.raises(TrainingError, match="changed: init"):
        pretrain(still, pairs, tmp_path / "run")
    with pytest.raises(TrainingError, match=r"no such file(.|\n)*check --init"):
        pretrain(still, pairs, tmp_path / "new", init=tmp_path / "absent.pth")


def test_validation_needs_pairs(tmp_path, pairs):
    empty = Interrupted(pairs, -1, 0)
    empty.validation = lambda **_: iter(())
    with pytest.raises(TrainingError, match="validation split is empty"):
        pretrain(TINY, empty, tmp_path)


def test_zero_scores():
    assert zero_loss(body()) == 767 / 768


def test_devices_are_checked():
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(TrainingError, match="no device is called gpu"):
        find_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match=r"cuda:7 is not here: 0 CUDA devices(.|\n)*--device cpu"):
            find_device("cuda:7")


def test_alone_without_torchrun(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with Processes(Machine()) as processes:
        assert processes.is_first
        assert processes.any(flag=True)
        assert processes.sum(torch.tensor(2.0), torch.tensor(3.0)) == [2.0, 3.0]


WORKER = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from dataclasses import replace
from tests.support.toy_pairs import ToyPairs
from tests.training.test_pretrain import TINY
from training.pretrain import pretrain
pretrain(replace(TINY, pad_to=TINY.full_length), ToyPairs(num_train=12, num_validation=6), Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path, pairs):
    (tmp_path / "worker.py").write_text(WORKER)
    root = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(tmp_path / "worker.py"),
    ]
    done = subprocess.run(
        [*command, str(tmp_path / "two")],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    pretrain(replace(TINY, pad_to=TINY.full_length), pairs, tmp_path / "one")
    one, two = last(tmp_path / "one"), last(tmp_path / "two")
    assert (one.step, one.position) == (two.step, two.position)
    for name, value in one.model.items():
        torch.testing.assert_close(two.model[name], value, rtol=2e-2, atol=2e-4, msg=name)
    losses = [
        [line["loss"] for line in read_metrics(tmp_path / run) if line["kind"] == "train"] for run in ("one", "two")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
