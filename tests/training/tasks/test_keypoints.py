import json
import math

import cv2
import numpy as np
import pytest
import torch

from manifests.errors import TrainingError
from tests.training.tasks.cuts import WAYS, about_of, cut_of, example_of, image_of
from training.keypoints import JOINTS, MIRRORED, PLACES, gaussians
from training.tasks.joints import SETS
from training.tasks.keypoints import Keypoints

TASK = Keypoints()
PENN = about_of("keypoints_px", keypoint_set="penn13")


@pytest.mark.parametrize("name", sorted(PLACES.keys() & SETS.keys()))
def test_joints_have_the_names_that_meshes_know_them_by(name):
    names = [SETS[name][place].removeprefix("lsp_") for place in PLACES[name]]
    assert names[1:] == list(JOINTS[1:])
    assert names[0] in {"head", "head_top", "nose", ""}


def targets_of(*examples, cut):
    each = [TASK.target(example, cut, PENN) for example in examples]
    return {name: torch.from_numpy(np.stack([one[name] for one in each])) for name in each[0]}


def logits_of(target, cells=24):
    maps, _ = gaussians(target["place"].numpy() * cells, target["weight"].numpy(), cells=cells)
    return torch.logit(maps, eps=1e-6)


def points_in(picture, num=13, seed=0):
    height, width = picture.shape[:2]
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.uniform(25, (width - 25, height - 25), (num, 2)), np.ones((num, 1))], axis=1)


@pytest.mark.parametrize(("scale", "turn_rad", "flipped", "shift_px"), WAYS)
def test_joints_go_where_their_pixels_go(scale, turn_rad, flipped, shift_px):
    picture = np.zeros((80, 100, 3), np.uint8)
    points = points_in(picture)
    cut = cut_of(picture, scale=scale, turn_rad=turn_rad, flipped=flipped, shift_px=shift_px)
    target = TASK.target(example_of(picture, keypoints_px=points), cut, PENN)
    for joint, (x, y, _) in enumerate(points):
        dotted = np.zeros((80, 100), np.float32)
        dotted[round(y), round(x)] = 1
        seen = cv2.GaussianBlur(image_of(dotted, cut), (5, 5), 1)
        middle = np.array([(seen * grid).sum() / seen.sum() for grid in np.mgrid[:96, :96][::-1]])
        # A mirrored left wrist is found under the right one's name.
        name = MIRRORED[joint] if flipped else joint
        np.testing.assert_allclose(target["place"][name] * 96 - 0.5, middle, atol=scale + 0.1)


def test_the_loss_is_that_of_a_slow_twin():
    rng = np.random.default_rng(1)
    logits = torch.from_numpy(rng.normal(size=(2, 13, 8, 8)).astype(np.float32))
    place = rng.uniform(0, 1, (2, 13, 2)).astype(np.float32)
    weight = rng.uniform(0, 1, (2, 13)).astype(np.float32)
    weight[0, 3:9], weight[1, 0] = 0, 0
    slow = []
    for b in range(2):
        terms = []
        for j in range(13):
            cell_x, cell_y = (math.floor(float(value) * 8) for value in place[b, j])
            total = 0.0
            for y in range(8):
                for x in range(8):
                    near = abs(x - cell_x) <= 6 and abs(y - cell_y) <= 6
                    t = math.exp(-((x - cell_x) ** 2 + (y - cell_y) ** 2) / 8) if near else 0.0
                    p = 1 / (1 + math.exp(-float(logits[b, j, y, x])))
                    total -= t * math.log(p) + (1 - t) * math.log(1 - p)
            terms.append(float(weight[b, j]) * total / 64)
        slow.append(sum(terms) / weight[b].sum(dtype=np.float64))
    loss = TASK.loss(logits, {"place": torch.from_numpy(place), "weight": torch.from_numpy(weight)})["keypoints"]
    assert float(loss) == pytest.approx(np.mean(slow), rel=1e-5)


def test_nothing_is_better_than_the_true_maps():
    picture = np.zeros((80, 100, 3), np.uint8)
    cut = cut_of(picture)
    target = targets_of(example_of(picture, keypoints_px=points_in(picture)), cut=cut)
    logits = logits_of(target).requires_grad_()
    TASK.loss(logits, target)["keypoints"].backward()
    assert float(logits.grad.abs().max()) < 1e-8
    scores = TASK.scores(TASK.measure(logits, target))
    assert scores["pck_0.1"].value == scores["pck_0.2"].value == 1
    assert 0 < scores["error"].value < 0.05  # half a cell


def test_a_joint_elsewhere_is_a_miss_by_as_much():
    target = {"place": torch.zeros(1, 13, 2), "weight": torch.zeros(1, 13)}
    target["place"][0, 1:4] = torch.tensor([[0.1, 0.1], [0.1, 0.9], [0.5, 0.5]])
    target["weight"][0, 1:4] = 1
    predicted = target["place"].clone()
    predicted[0, 3, 0] += 0.12  # of a person as large as 0.8
    measured = {"predicted": predicted.numpy(), "true": target["place"].numpy(), "known": target["weight"].numpy() > 0}
    scores = TASK.scores(measured)
    assert scores["pck_0.1"].value == pytest.approx(2 / 3)
    assert scores["pck_0.2"].value == 1
    assert scores["error"].value == pytest.approx(0.15 / 3)


def test_unknown_joints_and_those_outside_are_not_scored():
    picture = np.zeros((80, 100, 3), np.uint8)
    points = points_in(picture)
    points[0] = np.nan
    points[1] = -500, 20, 1
    points[2, 2] = 0
    cut = cut_of(picture)
    target = targets_of(example_of(picture, keypoints_px=points), example_of(picture), cut=cut)
    assert target["weight"][1].tolist() == [0] * 13
    measured = TASK.measure(torch.randn(2, 13, 24, 24), target)
    assert measured["known"].tolist() == [[False] * 3 + [True] * 10, [False] * 13]
    assert np.isfinite(TASK.scores(measured)["error"].value)
    with pytest.raises(ValueError, match="two known joints"):
        TASK.scores({name: values[1:] for name, values in measured.items()})
    logits = torch.randn(2, 13, 24, 24, requires_grad=True)
    TASK.loss(logits, target)["keypoints"].backward()
    assert logits.grad[:, :3].abs().sum() == logits.grad[1].abs().sum() == 0
    assert (logits.grad[0, 3:].abs().sum(dim=(1, 2)) > 0).all()


def test_datasets_without_a_body_are_refused():
    TASK.check([PENN], about_of("keypoints_px", keypoint_set="spin49"))
    for bad in (about_of("keypoints_px", keypoint_set="hand21"), about_of("pose"), about_of(keypoint_set="penn13")):
        with pytest.raises(TrainingError, match="no keypoints of a body"):
            TASK.check([PENN], bad)


def test_the_head_gives_a_quarter_of_a_patch_for_each_joint():
    head = TASK.head([8], 9)
    assert head((torch.randn(2, 9, 8),)).shape == (2, 13, 12, 12)


def test_the_head_starts_from_how_much_of_a_map_a_joint_fills():
    cells = 4 * 14
    maps, _ = gaussians(np.full((1, 13, 2), cells / 2), np.ones((1, 13)), cells=cells)
    start = torch.sigmoid(TASK.head([8], 14**2)((torch.zeros(1, 14**2, 8),)).detach())
    assert float(start.mean()) == pytest.approx(float(maps.mean()), rel=0.05)
    # No constant is a better answer.
    target = {"place": torch.full((1, 13, 2), 0.5), "weight": torch.ones(1, 13)}
    logits = torch.full((1, 13, cells, cells), float(torch.logit(start).mean()))
    best = TASK.loss(logits, target)["keypoints"]
    assert all(TASK.loss(logits + change, target)["keypoints"] > best for change in (-0.2, 0.2))
    tiny = TASK.head([8], 1)((torch.zeros(1, 1, 8),))
    assert torch.isfinite(tiny).all()


def test_a_skeleton_is_drawn_where_the_network_is_sure(tmp_path):
    image = np.full((96, 96, 3), 90, np.uint8)
    photograph = np.zeros((80, 100, 3), np.uint8)
    points, cut = points_in(photograph), cut_of(photograph, turn_rad=0.3)
    target = targets_of(example_of(photograph, keypoints_px=points), cut=cut)
    logits = logits_of(target)
    drawn = TASK.draw(image, logits, 0)
    assert (image == 90).all()
    left_wrist = np.floor(target["place"][0, 5].numpy() * 96).astype(int)
    assert (drawn[left_wrist[1], left_wrist[0]] != 90).any()
    unsure = TASK.draw(image, logits - 20, 0)
    assert (unsure[:-40] == 90).all()
    assert (unsure[-40:] != 90).any()  # says that no joint is sure
    (path,) = TASK.write(tmp_path / "person.png", cut, logits)
    written = json.loads(path.read_text())["joints"]
    assert set(written) == set(JOINTS)
    expected, found = points[5], written["left_wrist"]
    assert np.hypot(found["x_px"] - expected[0], found["y_px"] - expected[1]) <= np.hypot(2, 2) * 100 / 96
    assert found["confidence"] == pytest.approx(1, abs=1e-3)
