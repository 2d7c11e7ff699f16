"""The door of the room on real shards: train, go on, find finished, draw, export, and every mistake with its message."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from manifests.recipes import read_recipe
from tests.support.builds import Made, write_shards
from tests.support.toy_pairs import ToyPairs
from tests.training.test_pretrain import during_step
from training.__main__ import main
from training.checkpoints import list_checkpoints, read_checkpoint
from training.machine import Machine
from training.pretrain import pretrain
from training.recipes import RECIPES, PretrainRecipe
from training.reconstruct import COLUMNS, complete_rows, draw_rows, load_run
from training.source import Shards
from training.tasks.recipes import read_finetune

QUICK = """
recipe: smoke
architecture: {image_px: 56, patch_px: 8, enc_dim: 32, enc_depth: 1, dec_dim: 32, dec_depth: 1}
batch_size: 4
group_size: 4
num_steps: 4
warmup_steps: 1
anneal_steps: 4
validate_every: 2
validation_pairs: 4
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    made = [Made(source="rig", rows=(6, 5)), Made(source="rig", rows=(5,), split="val")]
    return write_shards(tmp_path_factory.mktemp("shards"), made)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "quick.yaml"
    path.write_text(QUICK)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, shards, recipe):
    out = tmp_path_factory.mktemp("run") / "pretrain"
    assert (
        main(["pretrain", "--recipe", str(recipe), "--shards", str(shards), "--out", str(out), "--threads", "1"]) == 0
    )
    return out


def test_a_run_from_shards_to_picture(run, shards, tmp_path, capsys):
    sheet = tmp_path / "new" / "reconstructions.png"
    arguments = ["reconstruct", "--run", str(run), "--shards", str(shards), "--out", str(sheet), "--rows", "3"]
    assert main(arguments) == 0
    assert "3 pairs, mean loss" in capsys.readouterr().out
    with Image.open(sheet) as image:
        assert image.format == "PNG"
        assert image.width > 4 * 200
        assert image.height > 3 * 200


def test_a_second_call_finds_the_run_finished(run, shards, recipe, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    start_s = time.perf_counter()
    assert main(["pretrain", "--recipe", str(recipe), "--shards", str(shards), "--out", str(run)]) == 0
    assert time.perf_counter() - start_s < 5
    assert "4 steps, validation loss" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_weights_leave_as_safetensors(run, tmp_path):
    assert main(["export", "--run", str(run), "--out", str(tmp_path / "weights.safetensors")]) == 0
    weights = load_file(tmp_path / "weights.safetensors")
    for name, value in read_checkpoint(list_checkpoints(run / "checkpoints")[-1]).model.items():
        assert torch.equal(weights[name], value), name


def mistakes():
    return [
        (["pretrain", "--recipe", "bodi"], ["RecipeError", "no recipe is called `bodi`", "did you mean"]),
        (["pretrain", "--device", "tpu9"], ["TrainingError", "no device is called tpu9", "--device"]),
        (["pretrain", "--recipe", "smoke", "--shards", "ABSENT"], ["ManifestError", "ABSENT"]),
        (["pretrain", "--init", "ABSENT.pth"], ["TrainingError", "no such file", "ABSENT.pth", "check --init"]),
        (
            ["pretrain", "--recipe", "smoke", "--out", "RUN"],
            [
                "TrainingError",
                "holds the run `quick`, not `smoke`; changed: recipe.anneal_steps: 4 -> 20; ",
                "; and 9 more\n",
            ],
        ),
        (["pretrain", "--out", "FILE/run"], ["TrainingError", "cannot write", "FILE/run"]),
        (["reconstruct", "--run", "ABSENT"], ["TrainingError", "no checkpoint", "train it first: `make pretrain`"]),
        (["reconstruct", "--run", "RUN", "--shards", "OTHER"], ["TrainingError", "not the shards", "--shards"]),
    ]


@pytest.mark.parametrize(("arguments", "wanted"), mistakes(), ids=lambda value: " ".join(value)[:40])
def test_mistakes_say_what_where_and_what_to_do(arguments, wanted, run, shards, recipe, tmp_path, capsys):
    (tmp_path / "FILE").write_text("not a folder")
    others = write_shards(
        tmp_path / "OTHER", [Made(source="rig", rows=(2,)), Made(source="rig", rows=(2,), split="val")]
    )
    names = {"RUN": run, "OTHER": others}
    given = [str(tmp_path / a) if a.startswith(("ABSENT", "FILE")) else str(names.get(a, a)) for a in arguments]
    defaults = {"--shards": shards, "--out": tmp_path / "out"}
    defaults |= {"--recipe": recipe} if arguments[0] == "pretrain" else {"--run": run}
    for option, value in defaults.items():
        if option not in given:
            given += [option, str(value)]
    assert main(given) == 2
    message = capsys.readouterr().err
    for part in [*wanted, "where:", "try:"]:
        assert part in message


def test_ctrl_c_while_torch_is_read_ends_in_one_line(tmp_path):
    (tmp_path / "torch").mkdir()
    # A job in the background of a script begins with Ctrl-C switched off.
    (tmp_path / "torch/__init__.py").write_text(
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nsignal.raise_signal(signal.SIGINT)\n"
    )
    command = [sys.executable, "-m", "training", "recipe"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped before anything began\n")


@pytest.mark.parametrize("name", ["body_views", "demo"])
def test_a_recipe_is_printed_with_all_keys_as_a_file_takes_them(name, tmp_path, capsys):
    assert main(["recipe", name]) == 0
    said = capsys.readouterr().out
    assert list(yaml.safe_load(said)) == [field.name for field in fields(PretrainRecipe)]
    (tmp_path / "again.yaml").write_text("recipe: smoke\n" + said)
    assert read_recipe(str(tmp_path / "again.yaml"), RECIPES) == RECIPES[name]()
    assert main(["recipe", "bodi"]) == 2
    assert "did you mean `body`" in capsys.readouterr().err


def test_a_recipe_of_a_task_is_printed_too(tmp_path, capsys):
    assert main(["recipe", "paper", "--task", "body_two"]) == 0
    said = capsys.readouterr().out
    (tmp_path / "again.yaml").write_text("recipe: smoke\n" + said)
    assert read_finetune(str(tmp_path / "again.yaml"), "body_two") == read_finetune("paper", "body_two")
    assert main(["recipe", "--task", "texture"]) == 0
    assert "name: free\ntask: texture\n" in capsys.readouterr().out
    assert main(["recipe", "--task", "textur"]) == 2
    assert "did you mean texture" in capsys.readouterr().err


def test_a_batch_without_room_is_told_and_the_folder_is_free_for_a_smaller_one(
    shards, recipe, tmp_path, capsys, monkeypatch
):
    def none_is_left(_memory, _shape):
        raise MemoryError

    large = tmp_path / "quick.yaml"
    large.write_text(recipe.read_text().replace("batch_size: 4", "batch_size: 1000000"))
    arguments = ["pretrain", "--shards", str(shards), "--out", str(tmp_path / "run"), "--recipe"]
    with monkeypatch.context() as patched:
        patched.setattr("training.data._Memory.take", none_is_left)
        assert main([*arguments, str(large)]) == 2
    said = capsys.readouterr().err
    assert "TrainingError: 1000000 pairs do not fit into memory: their pictures take 393 GB" in said
    assert "where: batch_size 1000000 of the recipe" in said
    assert "try:   set a smaller `batch_size`" in said
    assert main([*arguments, str(recipe)]) == 0


@pytest.fixture
def long(recipe, tmp_path):
    """Arguments of a run that would take hours."""
    path = tmp_path / "long.yaml"
    path.write_text(recipe.read_text().replace("steps: 4", "steps: 100000"))
    return ["pretrain", "--threads", "1", "--checkpoint-every", "100000", "--recipe", str(path)]


def assert_stopped(number, said, run):
    assert "Traceback" not in said
    assert f"stopped by signal {number.value}" in said
    checkpoint = read_checkpoint(list_checkpoints(run / "checkpoints")[-1])
    assert checkpoint.step >= 3
    assert checkpoint.position == 4 * checkpoint.step


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_the_next_call_goes_on(shards, long, tmp_path, capsys, monkeypatch, number):
    during_step(monkeypatch, 3, lambda: os.kill(os.getpid(), number))
    arguments = [*long, "--shards", str(shards), "--out", str(tmp_path / "run")]
    assert main(arguments) == 128 + number
    assert_stopped(number, capsys.readouterr().err, tmp_path / "run")
    during_step(monkeypatch, 5, lambda: os.kill(os.getpid(), number))
    assert main(arguments) == 128 + number
    assert "going on from step 3" in capsys.readouterr().err


def test_a_signal_from_outside_ends_the_process_by_its_number(shards, long, tmp_path):
    command = [sys.executable, "-m", "training", *long, "--shards", str(shards), "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "step 3/" in line and "pairs/s" in line:
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert_stopped(signal.SIGTERM, rest, tmp_path / "run")


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory, recipe):
    source, out = ToyPairs(num_train=4, num_validation=4), tmp_path_factory.mktemp("toy")
    pretrain(read_recipe(str(recipe), RECIPES), source, out, machine=Machine())
    return source, out


def test_a_probe_tells_differences_and_why_it_knows_nothing_yet(toy_run, tmp_path, capsys, monkeypatch):
    source, run = toy_run
    monkeypatch.setattr("training.__main__._shards", lambda _options: source)
    assert main(["probe", "--run", str(run), "--shards", "toy", "--out", str(tmp_path / "probe")]) == 0
    said = capsys.readouterr().out
    gain = json.loads((tmp_path / "probe/probe.json").read_text())["strata"][0]["gain"]["black"]["mean"]
    assert re.search(rf"black reference: loss 1\.\d{{4}}  pairs 4  above the true one's by {gain:.4f} \[", said)
    assert re.search(r"predicting nothing: loss 0\.99\d\d\n", said)
    assert re.search(r"not shown to be used \(too few people to tell: \d of 8; its loss, 1\.", said)


def test_rows_show_what_they_say(toy_run):
    source, out = toy_run
    objective, step = load_run(out, torch.device("cpu"))
    recipe = objective.recipe
    assert step == 4
    assert not objective.training
    rows = complete_rows(objective, source, num_rows=2, device=torch.device("cpu"))
    assert [row.key for row in rows] == ["val/0", "val/1"]
    patch = recipe.architecture.patch_px
    for i, row in enumerate(rows):
        target, masked, reference, completion = row.images
        stored = source.batch("val", [i])
        for shown, whole in ((target, stored.target_BHWC[0]), (reference, stored.reference_BHWC[0])):
            averaged = whole[16:240, 16:240].reshape(56, 4, 56, 4, 3).mean(axis=(1, 3))
            assert np.abs(shown - averaged).max() <= 1
        hidden = (masked == 128).all(axis=-1).reshape(7, patch, 7, patch).all(axis=(1, 3))
        assert hidden.sum() == 49 - recipe.full_length
        visible = ~hidden.repeat(patch, axis=0).repeat(patch, axis=1)
        assert (masked[visible] == target[visible]).all()
        assert (completion[visible] == target[visible]).all()
        assert (completion[~visible] != target[~visible]).any()
        assert row.loss != row.loss_black


def test_the_sheet_has_a_title_and_captions_of_any_length(toy_run):
    source, out = toy_run
    objective, _ = load_run(out, torch.device("cpu"))
    rows = complete_rows(objective, source, num_rows=1, device=torch.device("cpu"))
    sheet = np.asarray(draw_rows(rows, title="title " * 100))
    assert sheet.shape[2] == 3
    right_margin = sheet[:, -8:]
    assert (right_margin == 255).all()
    assert (sheet[:34] < 128).any()
    assert (sheet[-52:] < 128).any()
    assert len(COLUMNS) == 4


@pytest.mark.parametrize("seed", [None, 3])
def test_what_a_sample_says_is_found_by_its_place(shards, seed):
    source = Shards(shards)
    if seed is None:
        batches = list(source.validation(batch_size=3, limit=4))
    else:
        stream = source.train(seed=seed, batch_size=4, position=6, rank=0, world=1)
        batches = [next(stream) for _ in range(6)]
        stream.close()
    for batch in batches:
        said = source.about(batch, seed=seed)
        assert [pair["target"]["key"] for pair in said] == [f"{key}/target" for key in batch.keys]


def test_a_shard_that_is_left_out_has_others_say_what_stands_in(tmp_path):
    folder = write_shards(tmp_path, [Made(source="rig", rows=(3, 3)), Made(source="rig", rows=(2,), split="val")])
    (folder / "train-rig-body-000001.tar").unlink()
    source = Shards(folder, on_bad_shard="skip")
    stream = source.train(seed=0, batch_size=6, position=0, rank=0, world=1)
    batch = next(stream)
    stream.close()
    assert {key.split("/")[2] for key in batch.keys} == {"000000"}
    said = source.about(batch, seed=0)
    assert [pair["target"]["key"] for pair in said] == [f"{key}/target" for key in batch.keys]


def test_shards_that_are_left_out_are_counted_at_the_end(tmp_path, recipe, capsys):
    folder = write_shards(tmp_path, [Made(source="rig", rows=(3, 3)), Made(source="rig", rows=(2,), split="val")])
    (folder / "train-rig-body-000001.tar").unlink()
    options = ["--recipe", str(recipe), "--shards", str(folder), "--threads", "1", "--out", str(tmp_path / "run")]
    assert main(["pretrain", *options]) == 2
    assert main(["pretrain", *options, "--on-bad-shard", "skip"]) == 0
    assert re.search(r"train-rig-body-000001: left out .* [1-9]\d* times", capsys.readouterr().out)


def test_runs_on_shards_learn_keypoints_and_need_frame_keys_to_be_probed(shards, recipe, tmp_path, capsys):
    joint = tmp_path / "joint.yaml"
    joint.write_text(recipe.read_text() + "keypoint_weight: 1.0\nsymmetric: true\n")
    common = ["--shards", str(shards), "--threads", "1"]
    runs = [str(tmp_path / f"run{seed}") for seed in (0, 1)]
    for seed, run in enumerate(runs):
        assert main(["pretrain", "--recipe", str(joint), "--seed", str(seed), "--out", run, *common]) == 0
    # Keys of these pairs name no frames, so a stranger cannot be told.
    assert main(["probe", "--run", *runs, "--out", str(tmp_path / "probe"), *common]) == 2
    assert "not a frame key" in capsys.readouterr().err
