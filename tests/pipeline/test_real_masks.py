"""Real masks of people, as the parsers are judged by: they are read right, and lie where the people are."""

import json

import cv2
import numpy as np
import pytest

from pipeline.parse import build_parser
from pipeline.parsers.quality import centre_ellipse, patch_scores
from pipeline.parsers.selfie import EVERYBODY_NET, ONE_NET
from pipeline.recipes import ParserRecipe
from pipeline.silhouettes import from_coco17
from tests.support.real_masks import CIHP, COCO, cihp_people, coco_mask, coco_people, people_of_labels
from tests.support.samples import asset, sample


def test_polygons_fill_what_they_surround():
    square = coco_mask([[2, 1, 6, 1, 6, 4, 2, 4]], (8, 10))
    assert square[1:4, 2:6].all()
    assert square.sum() <= 20  # the border may take one more row and column


def test_run_lengths_go_down_the_columns():
    mask = np.zeros((3, 4), bool)
    mask[1:, 1] = mask[0, 2] = True
    assert np.array_equal(coco_mask({"size": [3, 4], "counts": [4, 3, 5]}, (3, 4)), mask)


def test_a_run_may_begin_inside():
    assert coco_mask({"size": [2, 2], "counts": [0, 4]}, (2, 2)).all()


@pytest.mark.parametrize("counts", ["PPYo0", [4, 3]])
def test_other_run_lengths_are_refused(counts):
    with pytest.raises(ValueError, match="no plain run lengths"):
        coco_mask({"size": [3, 4], "counts": counts}, (3, 4))


def test_people_who_touch_have_boxes_but_no_masks():
    labels = np.zeros((200, 300), np.uint8)
    labels[20:180, 10:60] = labels[20:180, 100:150] = labels[20:180, 150:200] = 5
    labels[20:40, 25:45] = labels[20:40, 115:135] = labels[20:40, 165:185] = 13
    labels[150:, 250:] = 5  # nobody's: it has no face
    (alone_box, alone), (left_box, left), (right_box, right) = people_of_labels(labels)
    assert alone_box.tolist() == [9.5, 19.5, 59.5, 179.5]
    assert alone.sum() == 50 * 160
    assert left_box.tolist() == [99.5, 19.5, 149.5, 179.5]
    assert right_box.tolist() == [149.5, 19.5, 199.5, 179.5]
    assert left is None
    assert right is None


def test_coco_masks_are_as_large_as_the_dataset_says():
    table = json.loads((sample(COCO) / "test_coco.json").read_text())["annotations"]
    people = coco_people()
    assert len(people) == 13  # of 14: one is 32 px long
    for person in people:
        annotation = [a for a in table if str(a["image_id"]) == person.photo][int(person.name)]
        assert person.own.sum() == pytest.approx(annotation["area"], rel=0.05)
        assert (person.everybody | ~person.own).all()
        rows, columns = np.nonzero(person.own)
        tight = [columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5]
        assert np.abs(tight - person.box_xyxy_px).max() < 2


def test_coco_keypoints_lie_on_their_person():
    shares = []
    for person in coco_people():
        if person.keypoints_px is None:
            continue
        x, y, marked = person.keypoints_px.T
        at = np.stack([y, x], axis=1)[marked > 0].round().astype(int)
        shares.append(person.own[tuple(np.clip(at, 0, np.array(person.own.shape) - 1).T)].mean())
        assert len(person.others_px) < 5
    assert np.mean(shares) > 0.8


def test_cihp_labels_are_those_of_the_photo_and_not_of_its_mirror_image():
    for path in sorted((sample(CIHP) / "labels").iterdir()):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        mirrored = cv2.imread(str(path.parents[1] / "labels_rev" / path.name), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(labels[:, ::-1] > 0, mirrored > 0)
        for left, right in ((14, 15), (16, 17), (18, 19)):
            assert np.array_equal(labels[:, ::-1] == left, mirrored == right)


def test_cihp_people_are_found_by_their_faces():
    people = cihp_people()
    photos = [person.photo for person in people]
    assert {name: photos.count(name) for name in set(photos)} == {"0005008": 7, "0012008": 3, "0032190": 2}
    alone = [person for person in people if person.own is not None]
    assert 0 < len(alone) < len(people)
    assert all((person.everybody | ~person.own).all() for person in alone)


def test_both_nets_and_keypoints_beat_a_fixed_ellipse_on_real_people():
    asset(ONE_NET[0])
    parser = build_parser(ParserRecipe(), asset(EVERYBODY_NET[0]).parents[1])
    scores = {"ellipse": [], "parsed": [], "capsules": []}
    from tests.bench.bench_parser import of_crop, truth_of  # the crop that the bench judges

    for person in coco_people():
        if person.keypoints_px is None:
            continue
        crop, _, crop_from_image = of_crop(person)
        truth = truth_of(person.own, crop_from_image)
        masks = {
            "ellipse": centre_ellipse(len(crop)),
            "parsed": parser.parse([crop])[0] > 0.4,
            "capsules": from_coco17(person.keypoints_px, crop_from_image, len(crop)),
        }
        for name, mask in masks.items():
            scores[name].append(patch_scores(mask, truth).accuracy)
    assert np.mean(scores["parsed"]) > np.mean(scores["ellipse"]) + 0.1
    assert np.mean(scores["capsules"]) > np.mean(scores["ellipse"]) + 0.1
