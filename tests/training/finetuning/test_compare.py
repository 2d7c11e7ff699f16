import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from manifests.errors import TrainingError
from tests.support.toy_pairs import ToyPairs
from tests.support.toy_task import register
from tests.training.finetuning.conftest import during_step
from tests.training.test_pretrain import TINY
from training.finetuning import compare as compare_module
from training.finetuning.compare import Cell, compare
from training.finetuning.compare_page import rows_of
from training.machine import Machine
from training.pretrain import pretrain


@pytest.fixture
def short(recipe):
    return replace(recipe, num_steps=2, architecture=None, test=(replace(recipe.test[0], options={"count": 24}),))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    out = tmp_path_factory.mktemp("pretrained")
    pairs = ToyPairs(num_train=4, num_validation=2)
    for network in ("croco", "mae"):
        pretrain(replace(TINY, network=network, num_steps=3, anneal_steps=3, validate_every=3), pairs, out / network)
    return out


def test_starts_are_compared_over_seeds_and_shares(tmp_path, short, pretrained):
    starts = {"ours": str(pretrained / "croco"), "mae": str(pretrained / "mae"), "random": "random"}
    report = compare(short, starts, tmp_path, shares=(1.0, 0.25), seeds=(0, 1), machine=Machine())
    assert {path.name for path in (tmp_path / "cells").iterdir()} == {
        f"{start}-{share}-{seed}" for start in starts for share in (100, 25) for seed in (0, 1)
    }
    assert {path.name for path in tmp_path.iterdir()} == {
        "cells", "compare.json", "compare.html", "efficiency.png", "predictions.png",
    }  # fmt: skip
    assert len(report["rows"]) == 6
    for row in report["rows"]:
        own = row["scores"]["distance"]
        cells = [tmp_path / "cells" / Cell(start=row["start"], share=row["share"], seed=seed).name for seed in (0, 1)]
        told = [json.loads((cell / "scores.json").read_text())["datasets"][0] for cell in cells]
        assert own["seeds"] == [one["scores"]["distance"]["value"] for one in told]
        assert own["mean"] == pytest.approx(np.mean(own["seeds"]))
        assert own["low"] < own["mean"] < own["high"]
        if row["start"] == "ours":
            assert own["difference"] is None
        else:
            against = next(r for r in report["rows"] if (r["share"], r["start"]) == (row["share"], "ours"))
            assert own["difference"]["mean"] == pytest.approx(own["mean"] - against["scores"]["distance"]["mean"])
    page = (tmp_path / "compare.html").read_text()
    assert "of the image&#x27;s side" in page
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page
    assert [row[:2] for row in rows_of(report, "distance")][:3] == [("100 %", start) for start in starts]
    # Random weights have the architecture of the others.
    said = [json.loads((tmp_path / "cells" / f"{start}-100-0/recipe.json").read_text())["recipe"] for start in starts]
    assert said[0]["architecture"] == said[1]["architecture"] == said[2]["architecture"]
    assert [one["mae"] for one in said] == [False, True, False]


def test_a_comparison_that_was_stopped_goes_on_where_it_was(tmp_path, short, monkeypatch):
    starts = {"random": "random"}
    with monkeypatch.context() as patch:
        register(patch)
        during_step(patch, 1, lambda tuner, _: tuner.recipe.seed and os.kill(os.getpid(), signal.SIGTERM))
        assert compare(short, starts, tmp_path, shares=(1.0,), seeds=(0, 1), machine=Machine()) is None
    first = tmp_path / "cells/random-100-0/finished.json"
    assert not (tmp_path / "compare.json").exists()
    before = first.stat().st_mtime_ns
    assert compare(short, starts, tmp_path, shares=(1.0,), seeds=(0, 1), machine=Machine()) is not None
    assert first.stat().st_mtime_ns == before


def test_weights_that_are_not_there_are_told_before_anything_is_trained(tmp_path, short):
    starts = {"random": "random", "ours": str(tmp_path / "none.pth")}
    with pytest.raises(TrainingError, match=r"no such file of weights\n.*none.pth"):
        compare(short, starts, tmp_path / "out", shares=(1.0,), seeds=(0,), machine=Machine())
    (tmp_path / "none.pth").write_bytes(b"no weights")
    with pytest.raises(TrainingError, match=r"none.pth"):
        compare(short, starts, tmp_path / "out", shares=(1.0,), seeds=(0,), machine=Machine())
    assert not (tmp_path / "out").exists()


@pytest.fixture
def forked(monkeypatch):
    """Processes that know the toy task; one thread is left, so a fork copies none."""
    monkeypatch.setattr(compare_module, "_START_METHOD", "fork")


def test_processes_share_the_runs_of_a_comparison(tmp_path, short, forked):
    alone, beside = (
        compare(short, {"random": "random"}, tmp_path / str(jobs), shares=(1.0, 0.5), seeds=(0, 1), machine=Machine(), jobs=jobs)
        for jobs in (1, 3)
    )  # fmt: skip
    assert beside == alone


def test_a_comparison_of_several_processes_says_why_it_failed(tmp_path, short, forked):
    (tmp_path / "damaged").write_text("train/3")
    with pytest.raises(TrainingError, match="damaged"):
        compare(short, {"random": "random"}, tmp_path / "out", shares=(1.0,), seeds=(0, 1), machine=Machine(), jobs=2)


def test_a_process_that_dies_ends_a_comparison_with_a_message(tmp_path, short, forked, monkeypatch):
    def die(tuner, _):
        if tuner.recipe.seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        register(patch)
        during_step(patch, 2, die)
        with pytest.raises(TrainingError, match="process 2/2 ended with -9") as caught:
            compare(short, {"random": "random"}, tmp_path, shares=(1.0,), seeds=(0, 1), machine=Machine(), jobs=2)
    assert "run again to go on" in caught.value.hint
    assert (tmp_path / "cells/random-100-0/finished.json").exists()


def test_a_signal_stops_all_processes_of_a_comparison(tmp_path, short, forked, monkeypatch):
    parent = os.getpid()
    long = replace(short, num_steps=200, validate_every=200)

    def stop_parent(tuner, _):
        if tuner.recipe.seed == 0:
            os.kill(parent, signal.SIGTERM)
        else:
            time.sleep(0.05)

    with monkeypatch.context() as patch:
        register(patch)
        during_step(patch, 3, stop_parent)
        starts = {"random": "random"}
        assert compare(long, starts, tmp_path, shares=(1.0,), seeds=(0, 1), machine=Machine(), jobs=2) is None
    for seed in (0, 1):
        cell = tmp_path / f"cells/random-100-{seed}"
        assert list((cell / "checkpoints").iterdir())
        assert not (cell / "finished.json").exists()


def test_ctrl_c_at_a_terminal_leaves_a_checkpoint_of_each_process(tmp_path, short, forked, monkeypatch):
    """A terminal sends it to the whole group, and the parent tells its processes as well."""
    long = replace(short, num_steps=200, validate_every=200)

    def stop_group(tuner, _):
        if tuner.recipe.seed == 0:
            os.killpg(os.getsid(0), signal.SIGINT)
            time.sleep(0.5)
        else:
            time.sleep(0.05)

    def at_a_terminal():
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # off in a job that began in the background
        starts = {"random": "random"}
        sys.exit(compare(long, starts, tmp_path, shares=(1.0,), seeds=(0, 1), machine=Machine(), jobs=2) is not None)

    with monkeypatch.context() as patch:
        register(patch)
        during_step(patch, 3, stop_group)
        process = multiprocessing.get_context("fork").Process(target=at_a_terminal)
        process.start()
        process.join(60)
    assert process.exitcode == 0
    for seed in (0, 1):
        assert list((tmp_path / f"cells/random-100-{seed}/checkpoints").iterdir())


def test_weights_of_two_sizes_are_not_compared(tmp_path, short, pretrained):
    other = replace(TINY, architecture=replace(TINY.architecture, enc_dim=64), num_steps=3, anneal_steps=3)
    pretrain(other, ToyPairs(num_train=4, num_validation=2), tmp_path / "other")
    starts = {"ours": str(pretrained / "croco"), "other": str(tmp_path / "other")}
    with pytest.raises(TrainingError, match="different architectures"):
        compare(short, starts, tmp_path / "out", shares=(1.0,), seeds=(0,), machine=Machine())
