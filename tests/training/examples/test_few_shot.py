import json

import numpy as np
import pytest

from manifests.errors import RecipeError, TrainingError
from manifests.types import Domain
from training.examples import few_shot as module
from training.examples.base import About, Example
from training.examples.few_shot import Chosen, draw_shots, few_shot
from training.tasks.datasets import open_examples
from training.tasks.recipes import Data

CLASSES = ("call", "fist", "palm")


class Gestures:
    def __init__(self, keys, split="train", name="hagrid"):
        self._keys = keys
        self.about = About(
            name=name, domain=Domain.HAND, split=split, labels=("class",), classes=CLASSES, protocol="squares"
        )

    def __len__(self):
        return len(self._keys)

    def __getitem__(self, index):
        key = self._keys[index]
        return Example(
            key=key,
            rgb_HW3=np.zeros((4, 4, 3), np.uint8),
            square_xyxy_px=np.array([0, 0, 4, 4.0]),
            labels={"class": self.class_indices()[index]},
        )

    def subjects(self):
        return [f"user {key}" for key in self._keys]

    def keys(self):
        return self._keys

    def class_indices(self):
        return [CLASSES.index(key.split("/")[0]) if "/" in key else -1 for key in self._keys]


def keys_of(num):
    return [f"{name}/{i:03d}" for name in CLASSES for i in range(num)]


@pytest.fixture
def dataset(monkeypatch):
    """What a root holds, which a test may change."""
    held = {"train": keys_of(100), "val": keys_of(5), "test": keys_of(9)}
    monkeypatch.setattr(module, "READERS", {"hagrid": lambda _root, *, split: Gestures(held[split], split)})
    return held


@pytest.mark.parametrize("shots", [1, 16, 32, 64])
def test_each_class_has_as_many_as_asked(dataset, tmp_path, shots):
    examples = few_shot(tmp_path, split="train", shots=shots)
    assert np.bincount(examples.class_indices()).tolist() == [shots] * 3
    assert len(set(examples.keys())) == len(examples) == 3 * shots
    assert [examples[i].key for i in range(len(examples))] == examples.keys() == sorted(examples.keys())
    assert examples.subjects() == [f"user {key}" for key in list(examples.keys())]
    assert f"{shots} of each class, draw 0" in examples.about.protocol


def test_only_training_is_thinned(dataset, tmp_path):
    assert few_shot(tmp_path, split="val").keys() == dataset["val"]
    assert few_shot(tmp_path, split="test").keys() == dataset["test"]


def test_the_draw_is_the_runs_seed_where_none_is_named(dataset, tmp_path):
    """Five seeds of a comparison learn from the five draws."""
    for seed in range(5):
        drawn = open_examples(Data(kind="few_shot", root=str(tmp_path)), seed=seed)
        assert drawn.keys() == few_shot(tmp_path, split="train", draw=seed).keys()
        assert f"draw {seed} of" in drawn.about.protocol
    named = Data(kind="few_shot", root=str(tmp_path), options={"draw": 2, "shots": 4})
    assert open_examples(named, seed=4).keys() == few_shot(tmp_path, split="train", draw=2, shots=4).keys()
    with pytest.raises(TrainingError, match=r"no draw 5[\s\S]*the run's seed"):
        open_examples(Data(kind="few_shot", root=str(tmp_path)), seed=5)
    with pytest.raises(RecipeError, match="few_shot has no option seed"):
        open_examples(Data(kind="few_shot", root=str(tmp_path), options={"seed": 1}))


def test_more_shots_hold_the_fewer_and_draws_differ(dataset, tmp_path):
    chosen = {
        (shots, draw): set(few_shot(tmp_path, split="train", shots=shots, draw=draw).keys())
        for shots in (16, 32, 64)
        for draw in range(5)
    }
    for draw in range(5):
        assert chosen[16, draw] < chosen[32, draw] < chosen[64, draw]
    assert len({frozenset(chosen[16, draw]) for draw in range(5)}) == 5


def test_a_draw_depends_on_names_not_on_their_order():
    keys = keys_of(70)
    drawn = draw_shots(Gestures(keys))
    assert drawn == draw_shots(Gestures(keys[::-1]))
    more = [f"palm/x{i}" for i in range(20)]
    grown = draw_shots(Gestures([*keys, *more]))
    assert grown["draws"][0]["call"] == drawn["draws"][0]["call"]
    assert grown["draws"][0]["palm"] != drawn["draws"][0]["palm"]
    assert draw_shots(Gestures(keys), seed=1) != drawn


def test_every_key_has_the_same_chance():
    """Of 600 draws of 5 of 20, each key should be in 150: within five deviations."""
    drawn = draw_shots(Gestures(keys_of(20)), most=5, draws=600)
    counts = dict.fromkeys(keys_of(20), 0)
    for one in drawn["draws"]:
        for key in one["fist"]:
            counts[key] += 1
    of_class = [count for key, count in counts.items() if key.startswith("fist")]
    assert max(abs(count - 150) for count in of_class) < 5 * np.sqrt(600 * 0.25 * 0.75)


def test_a_manifest_is_written_once_and_then_holds(dataset, tmp_path):
    path = tmp_path / "shots.json"
    without = few_shot(tmp_path, split="train", shots=32, draw=2).keys()
    assert few_shot(tmp_path, split="train", shots=32, draw=2, manifest=str(path)).keys() == without
    first = path.read_bytes()
    dataset["train"] = [*dataset["train"], *(f"fist/new{i}" for i in range(50))]
    again = few_shot(tmp_path, split="train", shots=32, draw=2, manifest=str(path)).keys()
    assert sorted(again) == sorted(without)
    assert few_shot(tmp_path, split="train", shots=32, draw=2).keys() != without
    assert path.read_bytes() == first
    dataset["train"] = [key for key in dataset["train"] if key not in without[:2]]
    with pytest.raises(TrainingError, match="2 of 96 chosen examples are not here"):
        few_shot(tmp_path, split="train", shots=32, draw=2, manifest=str(path))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": "few_shot/9"}, "not of the classes"),
        ({"dataset": "other"}, "not of the classes"),
        ({"shots": 65}, "not of the classes"),
        ({"draws": [{"call": []}]}, "not of the classes"),
        ({"draws": [["call"]]}, "no manifest"),
        ({"draws": None}, "no manifest"),
    ],
)
def test_other_manifests_are_refused(dataset, tmp_path, change, match):
    path = tmp_path / "shots.json"
    path.write_text(json.dumps({**draw_shots(Gestures(keys_of(100))), **change}))
    with pytest.raises(TrainingError, match=match) as caught:
        few_shot(tmp_path, split="train", manifest=str(path))
    assert "shots.json" in caught.value.where


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"draw": 5}, "no draw 5 of 16"),
        ({"draw": -1}, "no draw -1"),
        ({"shots": 0}, "no draw 0 of 0"),
        ({"shots": 101}, "call has 100 examples, and 101"),
        ({"of": "imagenet"}, "few shots of imagenet"),
    ],
)
def test_what_cannot_be_drawn_is_refused(dataset, tmp_path, options, match):
    with pytest.raises(TrainingError, match=match):
        few_shot(tmp_path, split="train", **options)


def test_pictures_without_a_class_are_not_drawn():
    drawn = draw_shots(Gestures([*keys_of(3), "nobody", "nothing"]), most=3)
    assert sorted(key for keys in drawn["draws"][0].values() for key in keys) == keys_of(3)


def test_unknown_keys_are_refused():
    with pytest.raises(TrainingError, match="1 of 2 chosen"):
        Chosen(Gestures(keys_of(2)), ["call/000", "call/009"], protocol="")
