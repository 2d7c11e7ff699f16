import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image

from manifests.errors import TrainingError
from tests.support.toy_pairs import ToyPairs
from training.checkpoints import (
    export_safetensors,
    list_checkpoints,
    load_weights,
    read_checkpoint,
    read_place,
    save_checkpoint,
)
from training.machine import Machine, Processes, find_device
from training.model.croco import Architecture, CroCo, base_base_rope, base_small, large_base_rope
from training.objective import step_flops
from training.pretrain import Trainer, build_optimizer, learning_rate, pretrain, processes_of_a_group, zero_loss
from training.recipes import RECIPES, body, smoke
from training.reconstruct import load_run
from training.record import read_metrics

TINY = replace(
    smoke(),
    architecture=Architecture(
        image_px=56, patch_px=8, enc_dim=32, enc_depth=1, enc_heads=2, dec_dim=32, dec_depth=1, dec_heads=2
    ),
    batch_size=4,
    group_size=2,
    num_steps=6,
    warmup_steps=2,
    anneal_steps=6,
    validate_every=3,
    validation_pairs=6,
)
ONE_GROUP = replace(TINY, group_size=4, symmetric=True)
TIMELESS = ("pairs_per_s", "data_wait", "tflops")
EVERY_STEP = Machine(checkpoint_every=1, keep_checkpoints=99)


@pytest.fixture(scope="module")
def pairs():
    return ToyPairs(num_train=12, num_validation=6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, pairs):
    """A run that nothing disturbed, with a checkpoint of each step: its folder, and how it ended. Tests only read it."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, pretrain(TINY, pairs, out, machine=EVERY_STEP)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Weights to begin with."""
    path = tmp_path_factory.mktemp("start") / "start.pth"
    torch.manual_seed(4)
    torch.save({"model": CroCo(TINY.architecture).state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def started(tmp_path_factory, pairs, start):
    """As `whole`, from these weights."""
    out = tmp_path_factory.mktemp("started") / "run"
    pretrain(TINY, pairs, out, init=start, machine=Machine(checkpoint_every=3))
    return out


def last(out):
    return read_checkpoint(list_checkpoints(out / "checkpoints")[-1])


def assert_same_state(one, other, close=0):
    assert (one.step, one.position) == (other.step, other.position)
    for name, value in one.model.items():
        assert torch.equal(value, other.model[name]), name
    assert one.usual_norm == pytest.approx(other.usual_norm, rel=close, abs=0)
    assert set(one.optimizer["state"]) == {f"model.{name}" for name in one.model if "pos_embed" not in name}
    for weight, moments in one.optimizer["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, other.optimizer["state"][weight][name]), (weight, name)


class Other:
    """A source like another one, for tests to change."""

    def __init__(self, pairs):
        self.pairs, self.shards_hash = pairs, pairs.shards_hash

    def train(self, **arguments):
        return self.pairs.train(**arguments)

    def validation(self, **arguments):
        return self.pairs.validation(**arguments)


def during_step(monkeypatch, step, action):
    """Do something when a step begins, counted from 1."""
    train_step = Trainer.train_step

    def watched(self, *arguments):
        if self.step + 1 == step:
            action()
        return train_step(self, *arguments)

    monkeypatch.setattr(Trainer, "train_step", watched)


def test_a_run_leaves_what_it_promises(tmp_path, pairs, caplog, true_curves):
    caplog.set_level("INFO")
    outcome = pretrain(TINY, pairs, tmp_path / "run")
    assert outcome.finished
    assert outcome.step == 6
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"recipe.json", "checkpoints", "metrics.jsonl", "tensorboard", "loss.png", "finished.json"}
    with Image.open(tmp_path / "run/loss.png") as image:
        assert image.size == (800, 450)
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
def test_a_run_stopped_at_any_step_ends_as_if_it_had_never_stopped(tmp_path, pairs, whole, stop_after, monkeypatch):
    number = signal.SIGTERM if stop_after % 2 else signal.SIGUSR1
    with monkeypatch.context() as patch:
        during_step(patch, stop_after, lambda: os.kill(os.getpid(), number))
        stopped = pretrain(TINY, pairs, tmp_path / "parts")
    assert (stopped.finished, stopped.step, stopped.signal) == (False, stop_after, number)
    assert not (tmp_path / "parts/finished.json").exists()
    again = pretrain(TINY, pairs, tmp_path / "parts")
    out, outcome = whole
    assert again == outcome
    assert_same_state(last(tmp_path / "parts"), last(out))
    numbers = [
        [{key: value for key, value in line.items() if key not in TIMELESS} for line in read_metrics(run)]
        for run in (out, tmp_path / "parts")
    ]
    # A validation that fell on the step of the stop is not caught up on.
    skipped = [line for line in numbers[0] if line["kind"] == "validation" and line["step"] == stop_after]
    assert [line for line in numbers[0] if line not in skipped] == numbers[1]


def test_a_kill_between_checkpoints_repeats_the_lost_steps(tmp_path, pairs, whole, monkeypatch):
    def kill():
        raise KeyboardInterrupt  # as a second Ctrl-C: nothing is saved on the way out

    with monkeypatch.context() as patch:
        during_step(patch, 5, kill)
        with pytest.raises(KeyboardInterrupt):
            pretrain(TINY, pairs, tmp_path / "run", machine=Machine(checkpoint_every=3))
    assert last(tmp_path / "run").step == 3
    assert read_metrics(tmp_path / "run")[-1]["step"] == 4
    pretrain(TINY, pairs, tmp_path / "run")
    assert_same_state(last(tmp_path / "run"), last(whole[0]))
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3, 3, 4, 5, 6, 6]


def test_a_finished_run_is_found_without_training(pairs, whole):
    out, first = whole
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}

    class Untouchable:
        shards_hash = pairs.shards_hash

    assert pretrain(TINY, Untouchable(), out) == first
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_run_killed_before_its_last_mark_is_completed(tmp_path, pairs, whole):
    out, first = whole
    shutil.copytree(out, tmp_path / "run")
    (tmp_path / "run/finished.json").unlink()
    again = pretrain(TINY, pairs, tmp_path / "run")
    assert again.finished
    assert again.validation_loss == pytest.approx(first.validation_loss, rel=1e-6)


@pytest.mark.parametrize(
    ("recipe", "shards", "message"),
    [
        (replace(TINY, base_lr=0.5, seed=3), "toy", "changed: recipe.base_lr: 0.03 -> 0.5; recipe.seed: 0 -> 3"),
        (TINY, "other", 'changed: shards: "toy" -> "other"'),
    ],
)
def test_a_folder_of_another_run_is_left_alone(pairs, whole, recipe, shards, message):
    out = whole[0]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    other = Other(pairs)
    other.shards_hash = shards
    with pytest.raises(TrainingError, match=message):
        pretrain(recipe, other, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path, pairs, monkeypatch, where):
    machine = Machine(checkpoint_every=1)
    train_step, losses_of, states = Trainer.train_step, Trainer.losses, []

    def spoiled(self, inputs):
        losses = losses_of(self, inputs)
        if self.step == 3 and torch.is_grad_enabled():
            if where == "loss":
                # The second group's first pair, and so the third of the step.
                factor = [1, 1] if next(groups) == 0 else [float("nan"), 1]
                return losses * torch.tensor(factor)
            losses.register_hook(lambda gradient: gradient * float("inf"))
        return losses

    groups = iter((0, 1))

    def watched(self, *arguments):
        states.append({name: value.clone() for name, value in self.model.state_dict().items()})
        try:
            return train_step(self, *arguments)
        except TrainingError:
            assert all(torch.equal(value, states[-1][name]) for name, value in self.model.state_dict().items())
            raise

    monkeypatch.setattr(Trainer, "losses", spoiled)
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


def test_weights_that_are_refused_leave_the_folder_free(tmp_path, pairs):
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    with pytest.raises(TrainingError, match="cannot be read as a checkpoint"):
        pretrain(TINY, pairs, tmp_path / "run", init=tmp_path / "bad.pth")
    assert pretrain(TINY, pairs, tmp_path / "run").finished


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
    empty = Other(pairs)
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
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.support.toy_pairs import ToyPairs
from tests.training.test_pretrain import ONE_GROUP, TINY
from training.machine import Machine
from training.pretrain import Trainer, pretrain

out, weights, init = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
disturbed = [] if weights == "both" else sys.argv[4:]
if disturbed:
    number, once, train_step = int(disturbed[0]), Path(disturbed[1]), Trainer.train_step

    def watched(self, *arguments):
        if self.step == 3 and os.environ["RANK"] == "1" and not once.exists():
            once.touch()
            os.kill(os.getpid(), number)
        return train_step(self, *arguments)

    Trainer.train_step = watched
machine = Machine(shard=weights == "shard", recompute=weights == "shard", checkpoint_every=3)
pairs = ToyPairs(num_train=12, num_validation=6)
pretrain(TINY, pairs, out, machine=machine, init=init)
if weights == "both":
    pretrain(ONE_GROUP, pairs, Path(sys.argv[4]), machine=machine)
"""


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    path = tmp_path_factory.mktemp("worker") / "worker.py"
    path.write_text(WORKER)

    def run(num, *arguments, restarts=0):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num}"]
        command += [f"--max-restarts={restarts}", str(path)]
        root = Path(__file__).parents[2]
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        # Otherwise torchrun 2.13 restarts over a store that keeps the addresses of the dead.
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        done = subprocess.run(
            [*command, *map(str, arguments)], env=environment, capture_output=True, text=True, cwd=root, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


@pytest.mark.timeout(600)  # three processes start
def test_two_processes_learn_exactly_what_one_learns(tmp_path, pairs, worker, start, started):
    """Two groups make a step: two processes pass one each, one passes both and adds up the same two gradients.

    Of a single group they pass a half each, as long as the whole one: only gradients are added up in another order.
    """
    pretrain(ONE_GROUP, pairs, tmp_path / "one-group")
    worker(2, tmp_path / "two", "both", start, tmp_path / "two-halves")
    assert_same_run(tmp_path / "two", started)
    numbers = [
        [line[key] for line in read_metrics(tmp_path / run) for key in ("loss", "gradient_norm") if key in line]
        for run in ("one-group", "two-halves")
    ]
    assert len(numbers[0]) == 6 + 6 + 2
    assert numbers[1] == pytest.approx(numbers[0], rel=1e-4)
    # One process goes on from the middle of what two began.
    (tmp_path / "two/finished.json").unlink()
    list_checkpoints(tmp_path / "two/checkpoints")[-1].unlink()
    assert last(tmp_path / "two").step == 3
    pretrain(TINY, pairs, tmp_path / "two", init=start, machine=Machine(shard=True))
    assert_same_state(last(tmp_path / "two"), last(started))


def assert_same_run(run, other, close=0):
    assert_same_state(last(run), last(other), close=close)
    lines = [[line for line in read_metrics(folder) if line["kind"] == "train"] for folder in (run, other)]
    for one, two in zip(*lines, strict=True):
        assert one["loss"] == two["loss"]
        assert one["gradient_norm"] == pytest.approx(two["gradient_norm"], rel=close, abs=0)
    validations = [read_metrics(folder)[-1]["loss"] for folder in (run, other)]
    assert validations[0] == validations[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("weights", ["whole", "shard"])
def test_a_run_whose_worker_dies_is_restarted_and_ends_as_if_undisturbed(tmp_path, worker, start, started, weights):
    once = tmp_path / "once"
    said = worker(2, tmp_path / "two", weights, start, int(signal.SIGKILL), once, restarts=2)
    assert once.exists()
    assert "exitcode: -9" in said
    assert_same_run(tmp_path / "two", started, close=0 if weights == "whole" else 1e-6)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_one_process_stops_all_with_a_checkpoint(tmp_path, worker, start, started, number):
    once = tmp_path / "once"
    worker(2, tmp_path / "two", "shard", start, int(number), once)
    assert not (tmp_path / "two/finished.json").exists()
    assert last(tmp_path / "two").step == 4  # the step under way is done
    worker(2, tmp_path / "two", "shard", start)
    assert_same_state(last(tmp_path / "two"), last(started), close=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_shared_weights_learn_the_same_and_go_on_in_any_number_of_processes(tmp_path, pairs, worker, start, started):
    close = 1e-6  # norms of shares are added up in another order than those of weights
    shutil.copytree(started, tmp_path / "one")
    worker(2, tmp_path / "two", "shard", start)
    assert_same_run(tmp_path / "two", tmp_path / "one", close)
    written = [path.name for path in list_checkpoints(tmp_path / "two/checkpoints")]
    assert written == ["step-00000003", "step-00000006"]
    assert len(list((tmp_path / "two/checkpoints/step-00000003").glob("*.safetensors"))) == 2
    for began, world in (("two", 1), ("two", 2), ("one", 2)):
        out = tmp_path / f"{began}-{world}"
        shutil.copytree(tmp_path / began, out)
        (out / "finished.json").unlink()
        name = list_checkpoints(out / "checkpoints")[-1]
        name.rename(tmp_path / "gone") if name.is_file() else shutil.rmtree(name)
        assert read_place(list_checkpoints(out / "checkpoints")[-1]).step == 3
        if world == 1:
            pretrain(TINY, pairs, out, init=start)
        else:
            worker(2, out, "shard", start)
        assert_same_state(last(out), last(tmp_path / "one"), close=close)
    objective, step = load_run(tmp_path / "two", torch.device("cpu"))
    export_safetensors(objective.model, tmp_path / "weights.safetensors")
    model = CroCo(TINY.architecture)
    load_weights(model, tmp_path / "weights.safetensors")
    assert step == 6
    for name, value in last(tmp_path / "one").model.items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("change", "world", "message"),
    [
        (
            {},
            3,
            r"3 processes cannot share 2 groups of 2 pairs(.|\n)*2 processes, or set `batch_size: 6` and `group_size: 2`",
        ),
        ({"batch_size": 12, "group_size": 4}, 2, r"2 processes cannot(.|\n)*start 1 process, or set `group_size: 6`"),
        ({"batch_size": 12, "group_size": 4}, 9, r"9 processes cannot(.|\n)*start 6 processes"),
    ],
)
def test_processes_that_cannot_share_a_step_are_refused_with_numbers_that_can(
    tmp_path, pairs, monkeypatch, change, world, message
):
    monkeypatch.setattr(Processes, "__enter__", lambda self: self)
    monkeypatch.setattr(Processes, "__exit__", lambda self, *_: None)
    monkeypatch.setenv("WORLD_SIZE", str(world))
    with pytest.raises(TrainingError, match=message):
        pretrain(replace(TINY, **change), pairs, tmp_path)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_published_recipes_run_on_one_two_four_and_eight_processes(name):
    for world in (1, 2, 4, 8):
        assert processes_of_a_group(RECIPES[name](), world) >= 1


OBJECTIVES = {
    "masked alike": {"symmetric": True},
    "mae": {"network": "mae"},
    "keypoints": {"completion_weight": 0.0, "keypoint_weight": 1.0},
    "both": {"keypoint_weight": 0.5},
    "both, masked alike": {"keypoint_weight": 0.5, "symmetric": True},
    "uniform": {"mask": "uniform", "mask_ratio": 0.9},
    "three references": {"num_references": 3, "keypoint_weight": 0.5},
}


def test_a_reference_shown_three_times_is_one_reference(pairs):
    trainers = [Trainer(replace(TINY, num_references=num), Machine(), Processes(Machine())) for num in (1, 3)]
    one, three = (trainer.validate(pairs) for trainer in trainers)
    assert three == pytest.approx(one, rel=1e-5)


def test_a_run_begun_before_a_key_was_known_goes_on(tmp_path, pairs):
    pretrain(TINY, pairs, tmp_path / "new", machine=Machine(checkpoint_every=3))
    folder = tmp_path / "new"
    (folder / "finished.json").unlink()
    list_checkpoints(folder / "checkpoints")[-1].unlink()
    written = json.loads((folder / "recipe.json").read_text())
    assert written["recipe"].pop("num_references") == 1
    (folder / "recipe.json").write_text(json.dumps(written))
    path = list_checkpoints(folder / "checkpoints")[-1]
    checkpoint = read_checkpoint(path)
    del checkpoint.recipe["num_references"]
    save_checkpoint(path.parent, checkpoint, keep=9)
    assert pretrain(TINY, pairs, folder).finished
    with pytest.raises(TrainingError, match="num_references: 1 -> 2"):
        pretrain(replace(TINY, num_references=2), pairs, folder)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_learns_and_goes_on_where_it_stopped(tmp_path, pairs, name):
    recipe = replace(TINY, **OBJECTIVES[name], num_steps=12, anneal_steps=12, group_size=4, validate_every=12)
    pretrain(recipe, pairs, tmp_path, machine=Machine(checkpoint_every=6))
    whole, losses = last(tmp_path), [line["loss"] for line in read_metrics(tmp_path) if line["kind"] == "train"]
    assert sum(losses[-3:]) < 0.98 * sum(losses[:3])
    (tmp_path / "finished.json").unlink()
    list_checkpoints(tmp_path / "checkpoints")[-1].unlink()
    pretrain(recipe, pairs, tmp_path, machine=Machine(checkpoint_every=6, recompute=True))
    again = last(tmp_path)
    assert set(again.model) == set(whole.model)
    assert all(torch.equal(value, whole.model[key]) for key, value in again.model.items())
    assert set(again.head) == ({"weight", "bias"} if "keypoint_weight" in OBJECTIVES[name] else set())
    assert all(torch.equal(value, whole.head[key]) for key, value in again.head.items())


def test_keypoints_alone_leave_the_decoder_as_it_was(tmp_path, pairs):
    recipe = replace(TINY, **OBJECTIVES["keypoints"])
    pretrain(recipe, pairs, tmp_path)
    fresh, trained = Trainer(recipe, Machine(), Processes(Machine())).model.state_dict(), last(tmp_path).model
    changed = {name.split(".")[0] for name in trained if not torch.equal(trained[name], fresh[name])}
    assert changed == {"patch_embed", "enc_blocks", "enc_norm"}


def test_a_spike_is_left_out_and_what_is_usual_follows(tmp_path, pairs, monkeypatch, caplog):
    states, losses_of, train_step = [], Trainer.losses, Trainer.train_step

    def watched(self, *arguments):
        states.append({name: value.clone() for name, value in self.model.state_dict().items()})
        return train_step(self, *arguments)

    def spoiled(self, inputs):
        losses = losses_of(self, inputs)
        return losses * 1000 if self.step == 3 and torch.is_grad_enabled() else losses

    monkeypatch.setattr(Trainer, "train_step", watched)
    monkeypatch.setattr(Trainer, "losses", spoiled)
    caplog.set_level("INFO")
    pretrain(TINY, pairs, tmp_path)
    lines = [line for line in read_metrics(tmp_path) if line["kind"] == "train"]
    assert [line["left_out"] for line in lines] == [0, 0, 0, 1, 0, 0]
    assert [line["left_out_so_far"] for line in lines] == [0, 0, 0, 1, 1, 1]
    assert "step 4 is left out" in caplog.text
    told = [r.getMessage() for r in caplog.records if "pairs/s" in r.getMessage()]
    assert [line.endswith("left out 1") for line in told] == [False, False, False, True, True, True]
    same = [all(torch.equal(before[name], after[name]) for name in before) for before, after in pairwise(states)]
    assert same == [False, False, False, True, False]
    usual = lines[0]["gradient_norm"]
    for line in lines[1:]:
        usual += 0.02 * (min(line["gradient_norm"], TINY.spike * usual) - usual)
    assert last(tmp_path).usual_norm == pytest.approx(usual)


def test_a_trace_of_some_steps_is_written(tmp_path, pairs):
    pretrain(TINY, pairs, tmp_path, machine=Machine(profile_steps=2))
    assert (tmp_path / "profile/trace.json.gz").stat().st_size > 1000
    assert "aten::mm" in (tmp_path / "profile/operators.txt").read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)  # compilers on a busy machine
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of torch's own
def test_a_compiled_step_learns_the_same(tmp_path, pairs):
    recipe = replace(TINY, pad_to=TINY.full_length)
    pretrain(recipe, pairs, tmp_path / "plain")
    pretrain(recipe, pairs, tmp_path / "compiled", machine=Machine(compile=True))
    for name, value in last(tmp_path / "plain").model.items():
        torch.testing.assert_close(last(tmp_path / "compiled").model[name], value, rtol=1e-2, atol=2e-4, msg=name)
    with pytest.raises(TrainingError, match=r"never change(.|\n)*pad_to: 13"):
        pretrain(TINY, pairs, tmp_path / "refused", machine=Machine(compile=True))


def test_lines_are_written_as_often_as_asked_for_with_what_the_device_does(tmp_path, pairs):
    pretrain(TINY, pairs, tmp_path, machine=Machine(log_every=4, peak_tflops=0.5))
    lines = [line for line in read_metrics(tmp_path) if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [4, 6]
    for line in lines:
        assert line["mfu"] == pytest.approx(line["tflops"] / 0.5)
        assert 0 < line["tflops"] * 1e12 / line["pairs_per_s"] <= step_flops(TINY, TINY.full_length)


@pytest.mark.parametrize(
    ("architecture", "ratio", "published"),
    [
        (base_small(), 0.9, 53.3e9),
        (base_small(), 0.75, 58.3e9),
        (base_base_rope(), 0.75, 91.3e9),
        (large_base_rope(), 0.9, 182.7e9),
    ],
)
def test_operations_of_a_pair_are_those_of_the_published_networks(architecture, ratio, published):
    recipe = replace(body(), architecture=architecture, mask_ratio=ratio, mask="uniform")
    assert step_flops(recipe, recipe.full_length) / 3 == pytest.approx(published, rel=0.005)
