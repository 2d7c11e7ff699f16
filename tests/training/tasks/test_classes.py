import json
import math

import numpy as np
import pytest
import torch

from manifests.errors import TrainingError
from tests.training.tasks.cuts import about_of, cut_of, example_of
from training.tasks.gesture import Gesture
from training.tasks.grasp import Grasp

NAMES = ("fist", "palm", "peace", "call")


def about(classes=NAMES, labels=("class",)):
    return about_of(*labels, domain="hand", classes=classes)


def test_the_loss_is_cross_entropy_and_falls_to_nothing_for_sure_right_answers():
    task, rng = Gesture(classes=NAMES), np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 4)), [3, 0, 1, 1, 2]
    slow = np.mean(
        [math.log(sum(math.exp(v) for v in row)) - row[label] for row, label in zip(logits, labels, strict=True)]
    )
    target = {"class": torch.tensor(labels)}
    assert float(task.loss(torch.from_numpy(logits), target)["class"]) == pytest.approx(slow, rel=1e-6)
    sure = 50 * torch.eye(4)[torch.tensor(labels)]
    assert float(task.loss(sure, target)["class"]) < 1e-6
    assert task.scores(task.measure(sure, target))["top1"].value == 1
    assert task.scores(task.measure(-sure, target))["top1"].value == 0


def test_a_grasp_is_judged_by_its_surest_view():
    task = Grasp(classes=NAMES)
    views = [
        ("a", 0, [9, 0, 0, 0]),
        ("a", 0, [0, 2, 0, 0]),
        ("b", 1, [1, 0, 0, 0]),
        ("b", 1, [0, 3, 0, 0]),
        ("c", 2, [5, 0, 0, 0]),
    ]
    each = [task.target(example_of(class_=label, instance=name), None, about()) for name, label, _ in views]
    target = {name: torch.from_numpy(np.stack([one[name] for one in each])) for name in each[0]}
    scores = task.scores(task.measure(torch.tensor([row for *_, row in views], dtype=torch.float32), target))
    assert scores["best_view"].value == pytest.approx(2 / 3)
    assert scores["all"].value == pytest.approx(2 / 5)
    assert "3 grasps" in scores["best_view"].convention
    assert "5 views" in scores["all"].convention


def test_pictures_without_an_instance_are_their_own():
    task = Grasp(classes=NAMES)
    numbers = [int(task.target(example_of(key=key, class_=0), None, about())["instance"]) for key in ("a", "b", "a")]
    assert numbers[0] == numbers[2] != numbers[1]
    assert min(numbers) >= 0


def test_a_label_does_not_change_with_the_cut():
    example = example_of(class_=2)
    for flipped in (False, True):
        assert Gesture(classes=NAMES).target(example, cut_of(example.rgb_HW3, flipped=flipped), about())["class"] == 2


@pytest.mark.parametrize(("hidden", "parameters"), [(None, 6 * 4 + 4), (10, 6 * 10 + 10 + 10 * 4 + 4)])
def test_the_head_is_linear_or_has_one_hidden_layer(hidden, parameters):
    head = Gesture(classes=NAMES, hidden=hidden).head([6], 9)
    assert sum(p.numel() for p in head.parameters()) == parameters
    assert head((torch.randn(3, 9, 6),)).shape == (3, 4)


def test_datasets_with_other_classes_are_refused():
    task = Gesture(classes=NAMES)
    task.check([about()], about())
    for bad in (about(NAMES[::-1]), about(()), about(labels=("pose",))):
        with pytest.raises(TrainingError, match="the task's are 4") as caught:
            task.check([about()], bad)
        assert "made up, test" in caught.value.where


def test_classes_are_drawn_and_written_the_likeliest_first(tmp_path):
    task, image = Gesture(classes=NAMES), np.full((112, 112, 3), 200, np.uint8)
    logits = torch.tensor([[0.0, 0, 0, 0], [0.0, 1, 4, 2]])
    drawn = task.draw(image, logits, 1)
    assert drawn.shape == image.shape
    assert (drawn[:80] == 200).all()
    assert (drawn[96:] < 200).mean() > 0.5
    assert (image == 200).all()
    (path,) = task.write(tmp_path / "hand.jpg", cut_of(image), logits[1:])
    written = json.loads(path.read_text())["classes"]
    assert [one["name"] for one in written] == ["peace", "call", "palm", "fist"]
    assert sum(one["probability"] for one in written) == pytest.approx(1, abs=1e-5)
