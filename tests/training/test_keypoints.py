import numpy as np
import pytest
import torch

from training.keypoints import JOINTS, MIRRORED, KeypointHead, heatmaps, joints_of, keypoint_losses

SMPL = dict(zip(("head", "left_shoulder", "right_wrist", "left_ankle"), (15, 16, 21, 7), strict=True))
COCO = dict(zip(("head", "left_shoulder", "right_wrist", "left_ankle"), (0, 5, 10, 15), strict=True))
OPENPOSE = dict(zip(("head", "left_shoulder", "right_wrist", "left_ankle"), (0, 5, 4, 13), strict=True))

MPII = dict(zip(("head", "left_shoulder", "right_wrist", "left_ankle"), (9, 13, 10, 5), strict=True))
SPIN = dict(zip(("head", "left_shoulder", "right_wrist", "left_ankle"), (44, 34, 31, 30), strict=True))


def drawn(x, y, *, offset=(0, 0), flip=False, confidence=1.0, joint=0, crop_px=224):
    points = np.zeros((13, 3))
    points[joint] = x, y, confidence
    maps, weight = heatmaps(
        [points], np.array([offset], dtype=np.int64), np.array([flip]), crop_px=crop_px, cells=crop_px // 4
    )
    return maps[0], weight[0]


@pytest.mark.parametrize(
    ("name", "num", "places"),
    [
        ("smpl24", 24, SMPL),
        ("coco17", 17, COCO),
        ("posetrack17", 17, COCO),
        ("coco18", 18, OPENPOSE),
        ("mpii16", 16, MPII),
        ("spin49", 49, SPIN),
    ],
)
def test_joints_are_found_in_every_set(name, num, places):
    points = np.stack([np.arange(num), 2 * np.arange(num), np.ones(num)], axis=1)
    joints = joints_of({"keypoints_set": name, "keypoints_px": points.ravel().tolist()})
    for joint, place in places.items():
        assert joints[JOINTS.index(joint)].tolist() == [place, 2 * place, 1]
    assert len(joints) == 13


def test_unknown_and_missing_joints_have_no_weight():
    assert not joints_of({}).any()
    assert not joints_of({"keypoints_set": "hand21", "keypoints_px": [1.0] * 63}).any()
    points = np.full((13, 3), np.nan)
    assert not joints_of({"keypoints_set": "penn13", "keypoints_px": points.ravel().tolist()}).any()


def test_a_gaussian_stands_where_its_joint_is():
    maps, weight = drawn(100, 60, offset=(16, 8))
    # Pixel 100 is the 84th of the crop, in cell 21 of 4 pixels each.
    assert np.unravel_index(int(maps[0].argmax()), (56, 56)) == (13, 21)
    assert float(maps[0, 13, 21]) == 1
    assert float(maps[0, 13, 23]) == pytest.approx(np.exp(-0.5))
    assert float(maps[0, 13, 21 + 6]) > 0
    assert float(maps[0, 13, 21 + 7]) == 0
    assert weight.tolist() == [1] + [0] * 12


def test_a_mirrored_joint_changes_its_name():
    assert [JOINTS[place] for place in MIRRORED[:4]] == ["head", "right_shoulder", "left_shoulder", "right_elbow"]
    maps, weight = drawn(0, 112, flip=True, joint=3, confidence=0.5)
    assert weight[4] == 0.5
    assert weight[3] == 0
    assert np.unravel_index(int(maps[4].argmax()), (56, 56)) == (28, 55)


@pytest.mark.parametrize(("x", "seen"), [(-20, True), (-40, False), (240, True), (270, False)])
def test_joints_outside_count_as_far_as_their_gaussian_reaches(x, seen):
    assert bool(drawn(x, 100)[1][0]) == seen


def test_the_head_tells_cells_patch_by_patch():
    head = KeypointHead(8)
    tokens = torch.randn(2, 9, 8)
    maps = head(tokens)
    assert maps.shape == (2, 13, 12, 12)
    other = tokens.clone()
    other[0, 5] += 1  # row 1, column 2
    changed = (head(other) != maps)[0].any(dim=0)
    assert changed[4:8, 8:12].all()
    assert changed.sum() == 16


def test_the_loss_is_a_weighted_mean_that_missing_joints_leave_alone():
    maps = torch.rand(2, 13, 8, 8)
    logits = torch.randn(2, 13, 8, 8)
    weight = torch.zeros(2, 13)
    weight[0, 2], weight[0, 5] = 1.0, 0.5
    losses = keypoint_losses(logits, maps, weight)
    p = torch.sigmoid(logits)
    each = -(maps * p.log() + (1 - maps) * (1 - p).log()).mean((2, 3))
    assert float(losses[0]) == pytest.approx(float((each[0, 2] + 0.5 * each[0, 5]) / 1.5), rel=1e-5)
    assert float(losses[1]) == 0
