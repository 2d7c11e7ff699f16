import numpy as np
import pytest
import simplejpeg

from manifests.build import Build
from manifests.errors import TrainingError
from manifests.splits import assign
from pipeline.recipes import free_body, free_hand
from tests.support.build_folder import change_rows
from tests.support.renders import write_renders
from training.examples.base import LABELS
from training.examples.free import Free

PEOPLE = {f"p{n:04d}": "val" if n % 5 == 4 else "train" for n in range(20)}


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    root = tmp_path_factory.mktemp("free")
    return root, write_renders(root, PEOPLE)


def test_an_example_tells_what_was_rendered(build):
    root, made = build
    examples = Free(root, split="train")
    for index in (0, 7, len(examples) - 1):
        example = examples[index]
        seen, labels = made[example.key], example.labels
        assert set(labels) == set(examples.about.labels) <= set(LABELS)
        np.testing.assert_allclose(labels["pose"][0], seen.parameters["global_orient"])
        np.testing.assert_allclose(labels["pose"][1:].ravel(), seen.parameters["body_pose"])
        np.testing.assert_allclose(labels["betas"], seen.parameters["betas"])
        np.testing.assert_allclose(labels["joints_m"], seen.joints_m, atol=1e-6)
        np.testing.assert_allclose(labels["keypoints_px"][:, :2], seen.points[:, :2], atol=1e-4)
        np.testing.assert_allclose(labels["intrinsics"], seen.intrinsics)
        assert (labels["keypoints_px"][:, 2] == 1).all(), "exact, seen or hidden"
        assert (labels["parts"] == seen.parts).all()
        np.testing.assert_allclose(labels["uv"], seen.uv, atol=1 / 65535)
        assert (labels["uv"][~seen.silhouette] == -1).all()
        assert example.subject == examples.subjects()[index]
        jpeg = next(r["jpeg"] for r in Build(root).table("crops").to_pylist() if r["key"] == example.key)
        assert (example.rgb_HW3 == simplejpeg.decode_jpeg(jpeg, "RGB")).all()
    with pytest.raises(IndexError):
        examples[len(examples)]


def test_the_square_is_around_the_box_with_its_margin(build):
    example = Free(build[0], split="train")[0]
    np.testing.assert_allclose(example.square_xyxy_px, [120 - 120, 130 - 120, 120 + 120, 130 + 120])


def test_nobody_is_in_two_splits_and_the_build_s_held_out_people_are_the_test(build):
    sets = {split: {*Free(build[0], split=split).subjects()} for split in ("train", "val", "test")}
    assert sets["test"] == {person for person, split in PEOPLE.items() if split == "val"}
    assert sets["train"] | sets["val"] | sets["test"] == {*PEOPLE}
    assert sum(map(len, sets.values())) == len(PEOPLE)
    assert sets["val"]
    assert len(sets["train"]) > len(sets["val"])


@pytest.mark.parametrize("recipe", [free_body, free_hand])
def test_a_tenth_of_the_people_that_the_free_builds_keep_is_held_out_for_validation(recipe, tmp_path):
    made = recipe()
    people = assign({f"p{n:04d}" for n in range(100)}, seed=made.seed, val_share=made.split.val_share)
    write_renders(tmp_path, {person: split.value for person, split in people.items()}, views=1)
    held = {*Free(tmp_path, split="val").subjects()}
    kept = {*Free(tmp_path, split="train").subjects()}
    assert 0.04 < len(held) / len(held | kept) < 0.2


def test_the_second_picture_is_the_same_moment_from_another_side(build):
    root, made = build
    examples = Free(root, split="test")
    keys = {key: index for index, key in enumerate(examples.keys())}
    for key, index in keys.items():
        example = examples[index]
        *sequence, instant, view, track = key.split("/")
        other = "/".join([*sequence, instant, f"v{(int(view[1:]) + 1) % 3}", track])
        assert (example.second_HW3 == examples[keys[other]].rgb_HW3).all()
        np.testing.assert_allclose(example.labels["second_uv"], made[other].uv, atol=1 / 65535)
        assert example.labels["instance"] == f"{sequence[-1]}/{int(instant)}"


def test_with_one_camera_the_second_picture_is_another_moment(tmp_path):
    write_renders(tmp_path, {"a": "train", "b": "train"}, views=1)
    examples = Free(tmp_path, split="train")
    assert (examples[0].second_HW3 == examples[1].rgb_HW3).all()


def test_what_is_known_without_decoding_is_what_examples_say(build):
    examples = Free(build[0], split="val")
    for index in range(len(examples)):
        np.testing.assert_array_equal(examples.poses()[index], examples[index].labels["pose"])
        assert examples.keys()[index] == examples[index].key


def test_other_points_are_given_when_asked_for(build):
    root, made = build
    for name in ("coco17", "penn13"):
        example = Free(root, split="train", keypoint_set=name)[3]
        np.testing.assert_allclose(
            example.labels["keypoints_px"][:, :2], made[example.key].keypoints_px[name][:, :2], atol=1e-6
        )
    with pytest.raises(TrainingError, match="a body has no points hand21"):
        Free(root, split="train", keypoint_set="hand21")


def test_hands_tell_their_side_and_have_sixteen_joints(tmp_path):
    write_renders(tmp_path, {"a": "train", "b": "train", "c": "train"}, domain="hand", labels=())
    examples = Free(tmp_path, split="train")
    assert examples.about.joint_set == "mano16"
    assert {"uv", "parts", "second_uv"}.isdisjoint(examples.about.labels)
    assert [examples[i].labels["side"] for i in range(len(examples))] == examples.sides()
    assert examples[0].labels["pose"].shape == (16, 3)


def test_a_build_without_renders_says_how_to_make_them(tmp_path):
    with pytest.raises(TrainingError, match="make render RECIPE=free_body"):
        Free(tmp_path, split="train")


def test_a_damaged_map_names_its_picture(tmp_path):
    write_renders(tmp_path, {"a": "train", "b": "train"})
    key = Free(tmp_path, split="train").keys()[0]

    def cut(rows):
        for row in rows:
            row["uv"] = row["uv"][:40]

    change_rows(tmp_path, "renders", f"synthetic-{key.split('/')[2]}", "labels", cut)
    with pytest.raises(TrainingError, match=f"the map of uv is damaged[\\s\\S]*{key}"):
        Free(tmp_path, split="train")[0].labels["uv"]


def test_a_picture_of_a_stated_size_beyond_reason_is_not_unfolded(tmp_path):
    write_renders(tmp_path, {"a": "train", "b": "train"}, labels=("parts",))
    key = Free(tmp_path, split="train").keys()[0]

    def swell(rows):
        for row in rows:
            row["parts"] = row["parts"][:16] + (60_000).to_bytes(4, "big") * 2 + row["parts"][24:]

    change_rows(tmp_path, "renders", f"synthetic-{key.split('/')[2]}", "labels", swell)
    with pytest.raises(TrainingError, match="the map of parts is damaged"):
        Free(tmp_path, split="train")[0].labels["parts"]
