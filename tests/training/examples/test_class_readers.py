"""HaGRID and GUN-71: layouts of both versions, crops, held out people, and what is wrong on disk."""

import json

import numpy as np
import pytest
from PIL import Image

from manifests.errors import SourceError
from manifests.splits import split_of
from manifests.types import Reason, Split
from training.examples.gun71 import gun71
from training.examples.hagrid import VAL_SHARE, hagrid

WIDTH, HEIGHT = 40, 30


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), value, np.uint8)).save(path)


def users(split):
    """Two user names of a split of version 1."""
    names = (f"user{number}" for number in range(1000))
    return [name for name in names if split_of(name, seed=0, val_share=VAL_SHARE) is split][:2]


def entry(user, *, labels=("call", "no_gesture"), boxes=((0.25, 0.2, 0.5, 0.4), (0.0, 0.0, 0.1, 0.1))):
    return {
        "bboxes": [list(box) for box in boxes],
        "labels": list(labels),
        "landmarks": [[], []],
        "leading_hand": "right",
        "user_id": user,
    }


@pytest.fixture
def version_1(tmp_path):
    """Two gestures; a picture without an annotation, an annotation without a picture, one without its own gesture's box."""
    train, val = users(Split.TRAIN), users(Split.VAL)
    told = {
        "call": {
            "a1": entry(train[0]),
            "a2": entry(train[1], labels=("no_gesture", "call")),
            "a3": entry(val[0]),
            "lost": entry(train[0]),
            "other": entry(train[0], labels=("fist", "no_gesture")),
        },
        "stop_inverted": {"b1": entry(train[0], labels=("stop inverted", "call"))},
        "no_gesture": {"c1": entry(train[0])},
    }
    for folder in ("ann_train_val", "ann_test"):
        (tmp_path / folder).mkdir()
        for gesture, entries in told.items():
            (tmp_path / folder / f"{gesture}.json").write_text(json.dumps(entries))
    for stem in ("a1", "a2", "a3", "other", "extra"):
        picture(tmp_path / "train_val_call" / "call" / f"{stem}.jpg")
    picture(tmp_path / "stop_inverted" / "b1.jpg")
    picture(tmp_path / "test" / "call" / "a1.jpg")
    picture(tmp_path / "test" / "stop_inverted" / "b1.jpg")
    return tmp_path


class TestHagrid:
    def test_inner_join(self, version_1):
        examples = hagrid(version_1, split="train")
        assert examples.keys() == ["hagrid/call/a1", "hagrid/call/a2", "hagrid/stop_inverted/b1"]
        assert examples.class_indices() == [0, 0, 1]
        assert examples.about.classes == ("call", "stop_inverted")
        told = {(reject.key, reject.reason): reject.count for reject in examples.about.rejects}
        assert told == {
            ("hagrid/call/lost", Reason.MISSING): 1,
            ("hagrid/call/other", Reason.BAD_LABEL): 1,
            ("hagrid/call", Reason.UNLABELLED): 1,
        }

    def test_the_square_is_of_the_own_gesture(self, version_1):
        first, second, _ = hagrid(version_1, split="train")
        side = 0.5 * WIDTH
        middle = (0.5 * WIDTH - 0.5, 0.4 * HEIGHT - 0.5)
        expected = [middle[0] - side / 2, middle[1] - side / 2, middle[0] + side / 2, middle[1] + side / 2]
        assert first.square_xyxy_px.tolist() == pytest.approx(expected)
        assert second.square_xyxy_px[2] - second.square_xyxy_px[0] == pytest.approx(0.1 * WIDTH)

    def test_users_are_held_out(self, version_1):
        train, val = (hagrid(version_1, split=split) for split in ("train", "val"))
        assert val.keys() == ["hagrid/call/a3"]
        assert not set(train.subjects()) & set(val.subjects())

    def test_the_test_split_has_folders_of_its_own(self, version_1):
        assert hagrid(version_1, split="test").keys() == ["hagrid/call/a1", "hagrid/stop_inverted/b1"]

    def test_version_2(self, tmp_path):
        for split in ("train", "val", "test"):
            folder = tmp_path / "hagrid_annotations" / split
            folder.mkdir(parents=True)
            told = entry("u1") | {"united_bbox": None, "hand_landmarks": [], "meta": {}}
            (folder / "call.json").write_text(json.dumps({split: told}))
            picture(tmp_path / "hagrid_dataset" / "call" / f"{split}.jpg")
        for split in ("train", "val", "test"):
            assert hagrid(tmp_path, split=split).keys() == [f"hagrid/call/{split}"]

    def test_what_is_missing_is_told(self, tmp_path, version_1):
        empty = tmp_path / "empty"
        empty.mkdir()
        with pytest.raises(SourceError, match=r"no annotations(.|\n)*ann_train_val"):
            hagrid(empty, split="train")
        (empty / "ann_test").mkdir()
        (empty / "ann_test" / "call.json").write_text(json.dumps({"x": entry("u")}))
        with pytest.raises(SourceError, match=r"none of the pictures(.|\n)*unpack the pictures"):
            hagrid(empty, split="test")
        (empty / "ann_test" / "call.json").write_text('{"x": {"bboxes"')
        with pytest.raises(SourceError, match=r"call\.json"):
            hagrid(empty, split="test")

    @pytest.mark.parametrize(
        "box", [(0.1, 0.1, 0, 0.2), (0.1, 0.1, float("nan"), 0.2), ("a", 0.1, 0.1, 0.1), (0.1, 0.1, 0.1)]
    )
    def test_a_bad_box_is_a_reject(self, version_1, box):
        path = version_1 / "ann_test" / "call.json"
        path.write_text(json.dumps({"a1": entry("u", boxes=(box, box))}))
        examples = hagrid(version_1, split="test")
        assert [(reject.key, reject.reason) for reject in examples.about.rejects] == [
            ("hagrid/call/a1", Reason.BAD_LABEL)
        ]


@pytest.fixture
def grasps(tmp_path):
    """Three subjects; views of one grasp, a name that tells no grasp, grasp 51 which does not exist, depth beside it."""
    for subject in (1, 2, 8):
        for name in (
            "kitchen/a/x01_1.jpg",
            "kitchen/a/x01_2.jpg",
            "garage/x73_1.jpg",
            "garage/x51_1.jpg",
            "readme.jpg",
        ):
            picture(tmp_path / f"Subject{subject}" / name)
        (tmp_path / f"Subject{subject}" / "kitchen/a/x01_1.png").write_bytes(b"depth")
    return tmp_path


class TestGun71:
    def test_one_subject_is_held_out(self, grasps):
        splits = {split: gun71(grasps, split=split, held_out="Subject8") for split in ("train", "val", "test")}
        assert {split: set(examples.subjects()) for split, examples in splits.items()} == {
            "train": {"Subject2"},
            "val": {"Subject1"},
            "test": {"Subject8"},
        }
        assert {len(examples) for examples in splits.values()} == {3}

    def test_classes_and_instances(self, grasps):
        examples = gun71(grasps, split="test")
        assert examples.about.classes == ("grasp 1", "grasp 73")
        by_key = {one.key: one.labels for one in examples}
        assert by_key["gun71/Subject8/garage/x73_1.jpg"]["class"] == 1
        views = [by_key[f"gun71/Subject8/kitchen/a/x01_{view}.jpg"] for view in (1, 2)]
        assert views[0] == views[1] == {"class": 0, "instance": "Subject8/kitchen/a/1"}

    def test_what_is_no_grasp_is_counted(self, grasps):
        (reject,) = gun71(grasps, split="test").about.rejects
        assert (reject.key, reject.reason, reject.count) == ("gun71/Subject8", Reason.BAD_LABEL, 2)

    def test_the_users_table(self, grasps):
        table = grasps / "feix.csv"
        table.write_text("grasp,class\n1,17\n2,3\n")
        examples = gun71(grasps, split="test", classes=str(table))
        assert examples.about.classes == ("3", "17")
        assert examples.class_indices() == [1, 1]
        assert (Reason.UNLABELLED, 1) in {(reject.reason, reject.count) for reject in examples.about.rejects}

    @pytest.mark.parametrize(
        ("text", "why"), [("", "no grasp"), ("51,1\n", "do not exist: 51"), ("7\n", "not a table")]
    )
    def test_a_bad_table_is_told(self, grasps, text, why):
        (grasps / "feix.csv").write_text(text)
        with pytest.raises(SourceError, match=why):
            gun71(grasps, split="test", classes=str(grasps / "feix.csv"))

    def test_what_is_missing_is_told(self, grasps, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(SourceError, match="no Subject1/"):
            gun71(tmp_path / "empty", split="test")
        with pytest.raises(SourceError, match=r"Subject3 is not here(.|\n)*Subject1, Subject2, Subject8"):
            gun71(grasps, split="test", held_out="Subject3")

    def test_pictures_are_whole(self, grasps):
        square = gun71(grasps, split="test")[0].square_xyxy_px
        assert square.tolist() == [-0.5, HEIGHT / 2 - 0.5 - WIDTH / 2, WIDTH - 0.5, HEIGHT / 2 - 0.5 + WIDTH / 2]
