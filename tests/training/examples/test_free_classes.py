import numpy as np
import pytest

from manifests.errors import TrainingError
from manifests.types import Domain, Reason
from tests.training.examples.fake_free import fake_free
from training.examples import free_classes
from training.examples.free_classes import FreeClasses, finger_numbers, nearest, prototypes


def hands(num, seed, *, side="right", name="hand"):
    rng = np.random.default_rng(seed)
    centres = rng.normal(scale=0.6, size=(4, 16, 3))
    poses = centres[np.arange(num) % 4] + rng.normal(scale=0.05, size=(num, 16, 3))
    return [{"key": f"{name}/{i}", "pose": pose, "side": side} for i, pose in enumerate(poses)]


@pytest.fixture
def build(monkeypatch):
    def given(**rows):
        monkeypatch.setattr(free_classes, "Free", fake_free(rows))

    return given


def test_each_hand_has_the_class_of_the_nearest_prototype(build, tmp_path):
    rows = hands(40, 0)
    build(train=rows)
    examples = FreeClasses(tmp_path, split="train", num_classes=4)
    found = examples.class_indices()
    for row, number in zip(rows, found, strict=True):
        mine = finger_numbers(row["pose"][None], ["right"])[0]
        apart = [float(np.linalg.norm(mine - other)) for other in examples.prototypes_CF]
        assert number == int(np.argmin(apart))
    # Four heaps of poses, as many classes: each heap is one.
    assert len(set(found)) == 4
    assert all(found[i] == found[i % 4] for i in range(40))
    assert [examples[i].labels["class"] for i in range(40)] == list(found)
    assert examples.about.classes == ("pose 00", "pose 01", "pose 02", "pose 03")
    assert {"class", "pose"} <= set(examples.about.labels)
    assert examples.keys()[3] == "hand/3"


def test_a_hand_between_two_classes_is_left_out_and_counted(build, tmp_path):
    rows = hands(40, 0)
    between = [{"key": "between", "pose": (rows[0]["pose"] + rows[1]["pose"]) / 2, "side": "right", "subject": "p"}]
    build(train=rows, test=[*rows[:2], *between, *rows[2:4]])
    examples = FreeClasses(tmp_path, split="test", num_classes=4)
    assert examples.keys() == [f"hand/{i}" for i in range(4)]
    assert [examples[i].key for i in range(len(examples))] == examples.keys()
    assert len(examples.subjects()) == len(examples.class_indices()) == 4
    assert [(reject.key, reject.reason) for reject in examples.about.rejects] == [("between", Reason.UNLABELLED)]


def test_the_wrist_does_not_matter(build, tmp_path):
    rows = hands(40, 0)
    build(train=rows)
    before = FreeClasses(tmp_path, split="train", num_classes=4).class_indices()
    for row in rows:
        row["pose"][0] = np.random.default_rng(1).normal(size=3)
    assert FreeClasses(tmp_path, split="train", num_classes=4).class_indices() == before


def test_a_left_hand_has_the_class_of_its_mirror_image(build, tmp_path):
    right = hands(20, 0)
    left = [{**row, "side": "left", "pose": row["pose"] * (1, -1, -1)} for row in right]
    build(train=right, test=left)
    of_right, of_left = (FreeClasses(tmp_path, split=split, num_classes=4) for split in ("train", "test"))
    assert of_left.class_indices() == of_right.class_indices()


def test_other_splits_are_classed_by_the_prototypes_of_train(build, tmp_path):
    build(train=hands(40, 0), test=hands(6, 5))
    train, test = (FreeClasses(tmp_path, split=split, num_classes=4) for split in ("train", "test"))
    np.testing.assert_array_equal(train.prototypes_CF, test.prototypes_CF)


def test_prototypes_do_not_depend_on_the_order():
    poses = np.random.default_rng(0).normal(size=(50, 6))
    found = prototypes(poses, 5)
    np.testing.assert_array_equal(found, prototypes(poses[::-1], 5))
    member = nearest(poses, found)[0]
    assert set(member.tolist()) == set(range(5))
    # At rest: each is the middle of its class.
    np.testing.assert_allclose(found, [poses[member == c].mean(axis=0) for c in range(5)], atol=1e-12)


@pytest.mark.parametrize(("rows", "match"), [(hands(3, 0), "3 poses make no 4"), ([hands(1, 0)[0]] * 9, "1 poses")])
def test_too_few_poses_are_refused(build, tmp_path, rows, match):
    build(train=rows)
    with pytest.raises(TrainingError, match=match):
        FreeClasses(tmp_path, split="train", num_classes=4)


def test_bodies_have_no_such_classes(monkeypatch, tmp_path):
    monkeypatch.setattr(free_classes, "Free", fake_free({"train": hands(9, 0)}, domain=Domain.BODY))
    with pytest.raises(TrainingError, match="only hands"):
        FreeClasses(tmp_path, split="train")
