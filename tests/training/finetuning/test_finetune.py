import json
import logging
import os
import signal
from dataclasses import replace

import pytest
import torch
from PIL import Image

from manifests.errors import RecipeError, TrainingError
from tests.support.toy_pairs import ToyPairs
from tests.support.toy_task import ToyTask
from tests.training.finetuning.conftest import SMALL, during_step
from tests.training.test_pretrain import TINY
from training.checkpoints import list_checkpoints, read_checkpoint
from training.finetuning.evaluate import evaluate
from training.finetuning.finetune import Tuner, finetune, layer_of, learning_rate, prepare
from training.finetuning.measure import load_finetuned, whole
from training.finetuning.mixture import Mixture
from training.finetuning.network import BEST, TaskNetwork, build_network, dense_hooks, settle
from training.machine import Machine, Processes
from training.pretrain import pretrain
from training.record import read_metrics
from training.tasks.datasets import open_examples, with_roots
from training.tasks.recipes import Data, Variation

EVERY_STEP = Machine(checkpoint_every=1, keep_checkpoints=99)
ALONE = Machine(), Processes(Machine())


def last(out):
    return read_checkpoint(list_checkpoints(out / "checkpoints")[-1])


def assert_same_state(one, other):
    assert (one.step, one.position) == (other.step, other.position)
    for part in ("model", "head"):
        for name, value in getattr(one, part).items():
            assert torch.equal(value, getattr(other, part)[name]), name
    for number, moments in one.optimizer["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, other.optimizer["state"][number][name]), (number, name)


def test_a_run_leaves_what_it_promises(tmp_path, recipe, true_curves):
    out = tmp_path / "run"
    outcome = finetune(recipe, out)
    assert outcome.finished
    assert outcome.step == 6
    assert {path.name for path in out.iterdir()} == {
        "recipe.json", "checkpoints", "best.pt", "metrics.jsonl", "tensorboard", "loss.png", "scores.json", "finished.json",
        "predictions-toy-test.png", "examples-toy-test.parquet",
    }  # fmt: skip
    with Image.open(out / "loss.png") as image:
        assert image.width > 400
    lines = read_metrics(out)
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    validations = {line["step"]: line["distance"] for line in lines if line["kind"] == "validation"}
    assert list(validations) == [2, 4, 6]
    best = min(validations, key=validations.get)
    assert read_checkpoint(out / BEST).step == best
    assert json.loads((out / "finished.json").read_text()) == {"step": 6, "best_step": best}
    (told,) = json.loads((out / "scores.json").read_text())["datasets"]
    assert told["scores"]["distance"]["value"] == outcome.evaluations[0].scores["distance"].value
    assert told["scores"]["distance"]["convention"] == "of the image's side"


def test_a_finished_run_is_found_finished_and_left_alone(tmp_path, recipe):
    finetune(recipe, tmp_path / "run")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    again = finetune(recipe, tmp_path / "run")
    assert again.finished
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()} == times


@pytest.mark.parametrize("stop_after", [1, 2, 5, 6])
def test_a_run_stopped_at_any_step_ends_as_if_it_had_never_stopped(tmp_path, recipe, stop_after, monkeypatch):
    finetune(recipe, tmp_path / "whole", machine=EVERY_STEP)
    with monkeypatch.context() as patch:
        number = signal.SIGTERM if stop_after % 2 else signal.SIGUSR1
        during_step(patch, stop_after, lambda *_: os.kill(os.getpid(), number))
        # Checkpoints are rare: the one that the signal asks for is the only one.
        stopped = finetune(recipe, tmp_path / "run", machine=Machine(checkpoint_every=999))
    assert (stopped.finished, stopped.step, stopped.signal) == (False, stop_after, number)
    resumed = finetune(recipe, tmp_path / "run", machine=EVERY_STEP)
    assert resumed.finished
    assert_same_state(last(tmp_path / "run"), last(tmp_path / "whole"))
    assert (tmp_path / "run/scores.json").read_bytes() == (tmp_path / "whole/scores.json").read_bytes()
    best = [read_checkpoint(tmp_path / name / BEST) for name in ("run", "whole")]
    assert best[0].step == best[1].step
    lost = ("seconds", "data_wait")
    for one, other in zip(read_metrics(tmp_path / "run"), read_metrics(tmp_path / "whole"), strict=True):
        assert {n: v for n, v in one.items() if n not in lost} == {n: v for n, v in other.items() if n not in lost}


def test_an_interrupt_ends_scoring_at_once_and_the_run_is_scored_the_next_time(tmp_path, recipe, monkeypatch):
    short = replace(recipe, num_steps=2)
    finetune(short, tmp_path / "whole")
    measure = ToyTask.measure

    def interrupted(self, outputs, target):
        if (tmp_path / "run" / BEST).exists():
            signal.raise_signal(signal.SIGINT)
        return measure(self, outputs, target)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # off in a job that began in the background
    with monkeypatch.context() as patch:
        patch.setattr(ToyTask, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(short, tmp_path / "run")
    signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "run/scores.json").exists()
    assert finetune(short, tmp_path / "run").finished
    assert (tmp_path / "run/scores.json").read_bytes() == (tmp_path / "whole/scores.json").read_bytes()


def test_seeds_differ_and_one_seed_is_one_run(tmp_path, recipe):
    short = replace(recipe, num_steps=2)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        finetune(replace(short, seed=seed), tmp_path / name)
    assert_same_state(last(tmp_path / "a"), last(tmp_path / "b"))
    assert not torch.equal(last(tmp_path / "a").head["map.weight"], last(tmp_path / "c").head["map.weight"])


def test_another_recipe_may_not_go_on_in_the_folder(tmp_path, recipe):
    finetune(replace(recipe, num_steps=2), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"base_lr: 0\.03 -> 0\.1"):
        finetune(replace(recipe, num_steps=2, base_lr=0.1), tmp_path / "run")


def test_a_dataset_that_moved_is_still_the_same_run(tmp_path, recipe):
    finetune(replace(recipe, num_steps=2), tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    moved = with_roots(replace(recipe, num_steps=2), [f"toy={tmp_path / 'elsewhere'}"])
    assert finetune(moved, tmp_path / "run").finished


def test_datasets_are_checked_before_anything_is_trained(tmp_path, recipe):
    test = Data(kind="toy", split="test", root=str(tmp_path), options={"labels": False})
    with pytest.raises(TrainingError, match="toy has no points"):
        finetune(replace(recipe, test=(test,)), tmp_path / "run")
    with pytest.raises(TrainingError, match="there is no such folder"):
        finetune(with_roots(recipe, ["/no/such/folder"]), tmp_path / "run")
    with pytest.raises(RecipeError, match="unknown recipe key `wieght`"):
        finetune(replace(recipe, options={"wieght": 2.0}), tmp_path / "run")
    with pytest.raises(TrainingError, match="there is no such file"):
        finetune(recipe, tmp_path / "run", init=str(tmp_path / "missing.pth"))
    assert not (tmp_path / "run").exists()


def test_a_damaged_picture_is_named(tmp_path, recipe):
    (tmp_path / "damaged").write_text("train/5")
    with pytest.raises(TrainingError, match="train/5"):
        finetune(recipe, tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_change(tmp_path, recipe, monkeypatch):
    def spoil(tuner, batch):
        batch.target["point"][0] = float("nan")

    during_step(monkeypatch, 4, spoil)
    with pytest.raises(TrainingError, match=r"the loss \(point\) is not finite[\s\S]*step 4, examples train/"):
        finetune(recipe, tmp_path / "run", machine=EVERY_STEP)
    assert last(tmp_path / "run").step == 3


def test_a_share_of_the_examples_lies_in_a_larger_one_and_people_kept_apart_are_not_learned_from(recipe, caplog):
    caplog.set_level(logging.INFO)

    def learned(share, seed=0):
        _, _, sets = prepare(replace(recipe, share=share, seed=seed, validation=None))
        return {*sets.train[0].index.tolist()}, sets

    tenth, quarter, whole_ = learned(0.1)[0], learned(0.25)[0], learned(1.0)[0]
    assert len(whole_) == 48 - len(learned(1.0)[1].validation[0].index)
    assert len(tenth) == round(0.1 * len(whole_))
    assert f"10 % of the training examples: {len(tenth)} of {len(whole_)}" in caplog.messages
    assert not any("100 %" in message for message in caplog.messages)
    assert tenth < quarter < whole_
    assert learned(0.1, seed=1)[0] != tenth
    _, sets = learned(1.0)
    people = sets.train[0].examples.subjects()
    kept = {people[i] for i in sets.validation[0].index}
    assert kept
    assert not kept & {people[i] for i in whole_}


def test_every_example_comes_once_before_any_comes_again(recipe, tmp_path):
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        for step in range(1, 7):
            during_step(patch, step, lambda _, batch: seen.extend(batch.keys))
        finetune(recipe, tmp_path / "run")
    assert len(seen) == 48
    assert len({*seen}) == 48


@pytest.mark.parametrize(("clip", "wanted"), [(1.0, 1.0), (0.01, 0.01), (1e9, None)])
def test_a_long_gradient_is_shortened(recipe, clip, wanted):
    heavy = replace(recipe, options={"weight": 1e5}, clip=clip, mae=False)
    _, task, sets = prepare(heavy)
    tuner = Tuner(heavy, task, build_network(heavy, task), *ALONE)
    batch = next(Mixture(sets.train, heavy, task, image_px=56).batches(0, device=torch.device("cpu")))
    told = tuner.train_step(batch)["gradient_norm"]
    used = float(torch.nn.utils.get_total_norm([p.grad for p in tuner.network.parameters() if p.grad is not None]))
    assert told > 1e3, "what is told is the length before"
    assert used == pytest.approx(wanted or told, rel=1e-4)


def test_rates_fall_from_block_to_block_towards_the_image(recipe):
    names = {
        "features.network.patch_embed.proj.weight": 0,
        "features.network.enc_blocks.0.attn.qkv.weight": 1,
        "features.network.blocks.1.attn.qkv.weight": 2,
        "features.network.enc_norm.weight": 3,
        "features.network.dec_blocks.0.attn.qkv.weight": 3,
        "features.network.cls_token": 0,
        "head.map.weight": 3,
    }
    assert {name: layer_of(name, 2) for name in names} == names
    _, task, _ = prepare(recipe)
    tuner = Tuner(recipe, task, build_network(replace(recipe, mae=False), task), *ALONE)
    groups = {(round(g["scale"], 6), g["weight_decay"]) for g in tuner.optimizer.param_groups}
    assert groups == {(round(0.75**k, 6), decay) for k in range(4) for decay in (0.0, 0.05)}
    assert sum(len(g["params"]) for g in tuner.optimizer.param_groups) == len([*tuner.network.parameters()])


def test_random_weights_are_all_learned_alike(recipe):
    own, task, _ = prepare(recipe)
    settled = settle(own, task, None)
    tuner = Tuner(settled, task, build_network(settled, task), *ALONE)
    assert own.layer_decay == 0.75
    assert {group["scale"] for group in tuner.optimizer.param_groups} == {1.0}


def test_the_rate_rises_for_a_twentieth_and_falls_to_nothing(recipe):
    long = replace(recipe, num_steps=200)
    rates = [learning_rate(step, long) for step in range(200)]
    assert rates[9] == max(rates) == long.peak_lr
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-3 * long.peak_lr


def test_dense_heads_read_four_blocks_at_even_distances():
    assert dense_hooks(12) == (2, 5, 8, 11)
    assert dense_hooks(24) == (5, 11, 17, 23)
    assert dense_hooks(4) == (0, 1, 2, 3)
    assert dense_hooks(2) == (0, 0, 1, 1)


def test_classes_of_the_training_set_are_the_task_s_and_stay_with_the_run(tmp_path, recipe):
    finetune(replace(recipe, num_steps=2), tmp_path / "run")
    assert load_finetuned(tmp_path / "run", torch.device("cpu")).task.classes == ("left", "right")


def test_a_task_on_two_pictures_reads_both(tmp_path, recipe):
    two = replace(recipe, options={"reads": "two"}, num_steps=2)
    assert finetune(two, tmp_path / "run").finished
    run = load_finetuned(tmp_path / "run", torch.device("cpu"))
    images = torch.randn(2, 1, 3, 56, 56)
    with torch.no_grad():
        one, other = run.network((images[0], images[1])), run.network((images[0], images[0]))
    assert not torch.allclose(one, other)


def test_a_dense_task_reads_four_maps(recipe):
    whole_ = build_network(replace(recipe, options={"reads": "dense"}, mae=False), _task("dense"))
    assert isinstance(whole_, TaskNetwork)
    assert whole_.features.hooks == (0, 0, 1, 1)


def _task(reads):
    return ToyTask(reads=reads)


@pytest.mark.slow
def test_sixty_four_examples_are_learned_by_heart(tmp_path, recipe):
    """The whole chain, from pictures to the score: what is wrong anywhere keeps the error up."""
    data = Data(kind="toy", split="train", root=str(tmp_path), options={"count": 64})
    by_heart = replace(
        recipe,
        train=(data,),
        validation=data,
        test=(data,),
        options={"dropout": 0.0},
        architecture=replace(SMALL, patch_px=14, enc_dim=64, enc_heads=4),
        variation=Variation(flip=0, noise=0, turned=0, scale=0),
        batch_size=64,
        num_steps=300,
        base_lr=1e-2,
        layer_decay=1.0,
        weight_decay=0.0,
        validate_every=100,
    )
    outcome = finetune(by_heart, tmp_path / "run")
    assert outcome.evaluations[0].scores["distance"].value < 0.01, "of the image's side; the middle scores 0.33"


def test_validation_scores_are_those_of_an_evaluation(tmp_path, recipe):
    finetune(recipe, tmp_path / "run")
    run = load_finetuned(tmp_path / "run", torch.device("cpu"))
    found = evaluate(run, whole(open_examples(recipe.validation)), device=torch.device("cpu"))
    lines = [line for line in read_metrics(tmp_path / "run") if line["kind"] == "validation"]
    assert found.scores["distance"].value == min(line["distance"] for line in lines)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Runs of a few steps: a CroCo's and an MAE's, of one size."""
    out, pairs = tmp_path_factory.mktemp("pretrained"), ToyPairs(num_train=4, num_validation=2)
    for network in ("croco", "mae"):
        short = replace(TINY, network=network, num_steps=3, anneal_steps=3, validate_every=3)
        pretrain(short, pairs, out / network)
    return out


def weights_before(monkeypatch):
    """The weights a run starts from."""
    seen = {}
    during_step(
        monkeypatch, 1, lambda tuner, _: seen.update({n: v.clone() for n, v in tuner.network.state_dict().items()})
    )
    return seen


@pytest.mark.parametrize("name", ["croco", "mae"])
def test_a_run_starts_from_a_pretrained_encoder_of_its_size(tmp_path, recipe, pretrained, name, monkeypatch, caplog):
    caplog.set_level("INFO")
    seen = weights_before(monkeypatch)
    finetune(replace(recipe, num_steps=2, architecture=None), tmp_path / "run", init=str(pretrained / name))
    encoder = last(pretrained / name).model
    found = {n.removeprefix("features.network."): v for n, v in seen.items() if n.startswith("features.network.")}
    assert ("cls_token" in found) is (name == "mae")
    assert all(torch.equal(value, encoder[n]) for n, value in found.items())
    assert any("blocks.0.attn.qkv.weight" in n for n in found)
    assert f"of {'an MAE' if name == 'mae' else 'a CroCo'}, step 3 of smoke" in caplog.text


def test_two_pictures_go_through_an_mae_s_encoder_and_a_decoder_that_is_random(
    tmp_path, recipe, pretrained, monkeypatch
):
    seen = weights_before(monkeypatch)
    two = replace(recipe, num_steps=2, architecture=None, options={"reads": "two"})
    finetune(two, tmp_path / "run", init=str(pretrained / "mae"))
    encoder = last(pretrained / "mae").model
    assert torch.equal(seen["features.network.enc_blocks.0.attn.qkv.weight"], encoder["blocks.0.attn.qkv.weight"])
    assert "features.network.dec_blocks.0.attn.qkv.weight" in seen


def test_a_run_starts_from_a_fine_tuned_one_with_its_head(tmp_path, recipe, monkeypatch):
    finetune(replace(recipe, num_steps=2), tmp_path / "first")
    seen = weights_before(monkeypatch)
    finetune(replace(recipe, num_steps=2, architecture=None), tmp_path / "second", init=str(tmp_path / "first"))
    best = read_checkpoint(tmp_path / "first" / BEST)
    assert torch.equal(seen["head.map.weight"], best.head["map.weight"])
    assert torch.equal(seen["features.network.enc_norm.weight"], best.model["enc_norm.weight"])


def test_a_folder_without_weights_is_refused(tmp_path, recipe):
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="the folder holds no checkpoint"):
        finetune(recipe, tmp_path / "run", init=str(tmp_path / "empty"))


def test_weights_that_do_not_fit_take_no_folder(tmp_path, recipe):
    finetune(replace(recipe, num_steps=1), tmp_path / "first")
    wider = replace(recipe, architecture=replace(recipe.architecture, enc_dim=64))
    with pytest.raises(TrainingError, match="the weights do not fit"):
        finetune(wider, tmp_path / "run", init=str(tmp_path / "first"))
    assert not (tmp_path / "run").exists()
