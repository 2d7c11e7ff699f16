import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from manifests.errors import TrainingError
from tests.support.toy_pairs import ToyPairs
from tests.training.test_pretrain import TINY
from training.objective import Objective
from training.pretrain import pretrain
from training.probe import (
    REFERENCES,
    Scores,
    _completed,
    _held_out,
    _score,
    _with,
    doubts,
    interval,
    probe,
    strata,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pairs():
    return ToyPairs(num_train=12, num_validation=9)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        pretrain(replace(TINY, seed=seed), pairs, folder / str(seed))
    return [folder / "0", folder / "1"]


def test_a_probe_leaves_numbers_page_and_picture(runs, pairs, tmp_path):
    report = probe(runs, pairs, tmp_path / "probe", device=CPU)
    assert report == json.loads((tmp_path / "probe/probe.json").read_text())
    assert [(run["seed"], run["step"], run["left_out"]) for run in report["runs"]] == [(0, 6, 0), (1, 6, 0)]
    every = report["strata"][0]
    assert (every["by"], every["pairs"], every["subjects"]) == ("all", 9, 3)
    assert every["gain"]["true"]["mean"] == 0
    for name in REFERENCES:
        loss = every["loss"][name]
        assert loss["mean"] == pytest.approx(np.mean(loss["runs"]))
        assert loss["low"] <= loss["mean"] <= loss["high"]
    assert report["zero_loss"] == pytest.approx(191 / 192, rel=1e-3)
    assert "too few people to tell: 3 of 8" in report["doubts"]
    page = (tmp_path / "probe/probe.html").read_text()
    assert "<h1>It is not shown that the runs use their references: too few people to tell: 3 of 8" in page
    assert "<script" not in page
    assert page.count("data:image/png") == 4  # chart, completions, and a curve of each run
    with Image.open(tmp_path / "probe/probe.png") as image:
        assert image.width > 10 * 224
    again = probe(runs, pairs, tmp_path / "again", device=CPU)
    assert again == report


def test_scores_are_those_of_each_pair_shown_by_itself(pairs):
    torch.manual_seed(0)
    objective = Objective(TINY).eval()
    held = _held_out(pairs, objective, CPU, 9)
    scores = _score([objective], held)
    index = np.array([4])
    for k, name in enumerate(REFERENCES):
        inputs = _with(held, k, index)
        with torch.no_grad():
            loss, psnr, _ = (value[0] for value in _completed(objective, inputs))
        assert scores.loss_RKn[0, k, 4] == pytest.approx(float(loss), rel=1e-4)
        assert scores.psnr_RKn[0, k, 4] == pytest.approx(float(psnr), rel=1e-4)
        stranger = held.about[held.taken_Kn[k, 4]]
        if name == "black":
            assert inputs.reference_BCHW.std(dim=(2, 3)).max() < 1e-5
        else:
            assert torch.equal(inputs.reference_BCHW[0], held.inputs.reference_BCHW[held.taken_Kn[k, 4]])
            assert (stranger["subject"] != held.about[4]["subject"]) == (name == "other person")
            assert (stranger["reference"]["key"] != held.about[4]["reference"]["key"]) == (name != "true")


def test_psnr_is_that_of_the_hidden_pixels():
    objective = Objective(replace(TINY, symmetric=True)).eval()
    held = _held_out(ToyPairs(num_validation=2), objective, CPU, 2)
    with torch.no_grad():
        _, psnr, shown = _completed(objective, held.inputs)
    std = torch.tensor([0.229, 0.224, 0.225]).repeat(64)
    true = (held.inputs.target_BCHW[0].unfold(1, 8, 8).unfold(2, 8, 8)).permute(1, 2, 3, 4, 0).reshape(49, 192)
    hidden = held.inputs.masked_BM[0]
    error = ((shown[0] - true) * std)[hidden].square().mean()
    assert float(psnr[0]) == pytest.approx(float(-10 * error.log10()), rel=1e-4)


def made(num, gains, seed=0):
    """Scores of one run whose loss with a wrong reference is higher by so much, and pairs of `num` subjects, ten of each."""
    rng = np.random.default_rng(seed)
    about = [
        {
            "source": "made",
            "subject": f"s{i // 10}",
            "kind": "cross_view" if i % 2 else "cross_pose",
            "view_angle_rad": np.radians(10 + i % 10 * 17),
            "dt_s": i % 10 * 0.3,
            "covisibility": None,
            "target": {"key": f"made/val/r/{i:08d}/a/p0"},
        }
        for i in range(10 * num)
    ]
    true = rng.normal(0.8, 0.1, 10 * num)
    loss = np.stack([true + gain + (rng.normal(0, 0.02, 10 * num) if gain else 0) for gain in gains])[None]
    return Scores(about, loss, 20 - loss, np.full(10 * num, 191 / 192))


USED = (0, 0.05, 0.04, 0.03)


@pytest.mark.parametrize(
    ("num", "gains", "zero_loss", "told"),
    [
        (20, USED, 0.9948, []),
        (8, USED, 0.9948, []),
        (7, USED, 0.9948, ["too few people to tell: 7 of 8"]),
        (20, USED, 0.75, [r"its loss, 0.8\d+, is not below that of predicting nothing, 0.7500"]),
        (2, USED, 0.75, ["too few people", "predicting nothing"]),
        (20, (0, 1e-4, -1e-4, 0.0), 0.9948, ["`black`", "`other person`"]),
        (20, (0, 0.05, -0.01, 0), 0.9948, ["`other person`"]),
        (20, (0, 0.05, np.nan, 0), 0.9948, ["too few people to tell: 0 of 8"]),
    ],
)
def test_a_used_reference_is_told_from_one_that_is_not(num, gains, zero_loss, told):
    found = doubts({"strata": strata(made(num, gains)), "zero_loss": zero_loss})
    assert len(found) == len(told)
    for what, pattern in zip(found, told, strict=True):
        assert re.search(pattern, what)


def test_strata_hold_the_pairs_whose_values_lie_in_them():
    scores = made(4, (0, 0.1, 0.1, 0.1))
    rows = {(row["by"], row["class"]): row for row in strata(scores)}
    assert ("covisibility", "0 to 0.25") not in rows
    # Pairs 1, 3, 5, ... of each ten are of two views: 27, 61, 95, 129 and 163 degrees apart.
    angles = {name: row["pairs"] for (by, name), row in rows.items() if by == "view angle"}
    assert angles == {"0 to 30°": 4, "60 to 90°": 4, "90 to 135°": 8, "135 to 180°": 4}
    # Pairs 0, 2, 4, ... are of two times: 0, 0.6, 1.2, 1.8 and 2.4 s.
    gaps = {name: row["pairs"] for (by, name), row in rows.items() if by == "time gap"}
    assert gaps == {"0 to 0.25 s": 4, "0.5 to 1 s": 4, "1 to 2 s": 8, "over 2 s": 4}


def test_an_interval_covers_the_truth_as_often_as_it_says_and_counts_subjects_not_pairs():
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(30), 20)
    covered = 0
    for _ in range(100):
        value = rng.normal(0, 1, 30)[subject] + rng.normal(0, 0.1, 600)
        found = interval(value[None], subject)
        covered += found["low"] <= 0 <= found["high"]
    # 95 in 100 with a deviation of 2.2; if pairs were drawn, some 30.
    assert 86 <= covered <= 100
    assert interval(value[None], np.zeros(600, np.int64))["low"] is None
    assert interval(np.full((2, 5), np.nan), np.arange(5)) is None
    widths = []
    for runs in (np.zeros((3, 600)), np.array([[-0.5], [0.0], [0.5]]) + np.zeros((3, 600))):
        found = interval(value + runs, subject)
        widths.append(found["high"] - found["low"])
    assert widths[1] > widths[0]


def test_mistakes_are_told(runs, pairs, tmp_path):
    pretrain(replace(TINY, base_lr=0.02), pairs, tmp_path / "other")
    with pytest.raises(TrainingError, match=r"more than their seed: base_lr: 0.03 -> 0.02(.|\n)*one recipe"):
        probe([runs[0], tmp_path / "other"], pairs, tmp_path / "out", device=CPU)
    with pytest.raises(TrainingError, match="not the shards"):
        probe(runs, ToyPairs(num_validation=2, shards_hash="new"), tmp_path / "out", device=CPU)
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot write"):
        probe(runs, pairs, tmp_path / "file/out", device=CPU)
