"""Each task end to end on a tiny network: eight pictures of noise, whose labels it learns by heart."""

import cv2
import numpy as np
import pytest
import torch

from tests.training.heads.fitting import fit
from tests.training.tasks.cuts import about_of, example_of
from training.finetuning.mixture import normalised
from training.finetuning.network import TaskNetwork
from training.metrics.surface import Surface
from training.model.croco import Architecture, CroCo
from training.tasks.densepose import DensePose
from training.tasks.gesture import Gesture
from training.tasks.grasp import Grasp
from training.tasks.keypoints import Keypoints
from training.tasks.texture import Texture
from training.views import STILL, look

NUM, PX = 8, 32
TINY = Architecture(
    image_px=PX, patch_px=16, enc_dim=32, enc_depth=4, enc_heads=2, dec_dim=32, dec_depth=1, dec_heads=2
)


def labels_of(task, index, rng):
    """Random truth, a bit of it in each patch."""
    place = np.stack(np.meshgrid([7.0, 23.0], [7.0, 23.0]), axis=-1).reshape(-1, 2)
    if task.name == "keypoints":
        return {"keypoints_px": np.concatenate([rng.uniform(2, 30, (13, 2)), np.ones((13, 1))], axis=1)}
    if task.name == "densepose":
        person = np.column_stack([place[:3], rng.integers(1, 25, 3), rng.random((3, 2))])
        return {"surface": np.concatenate([person, [[*place[3], 0, 0, 0]]]).astype(np.float32)}
    if task.name == "texture":
        uv = np.stack(np.meshgrid(np.linspace(0.02, 0.98, PX), np.linspace(0.02, 0.98, PX)), axis=-1).astype(np.float32)
        return {"uv": uv, "second_uv": uv}
    return {"class_": index // 2, "instance": str(index // 2)}


def picture(task, rng):
    if task.name == "texture":  # few colours, which a linear map of a token can tell
        return np.kron(rng.integers(40, 215, (2, 2, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    return rng.integers(0, 255, (PX, PX, 3)).astype(np.uint8)


TASKS = [
    (Keypoints(), 80, {"pck_0.1": 0.3}),
    (Gesture(classes=tuple("abcd")), 30, {"top1": 1.0}),
    (Grasp(classes=tuple("abcd"), hidden=16), 40, {"best_view": 1.0, "all": 1.0}),
    (DensePose(weights="detectron2", features=32), 25, {"part": 1.0, "auc_30cm": 0.5}),
    (Texture(), 30, {"psnr": 18.0}),
]


@pytest.mark.parametrize(("task", "steps", "wanted"), TASKS, ids=lambda value: getattr(value, "name", ""))
def test_eight_pictures_are_learned_by_heart(task, steps, wanted, monkeypatch):
    corners = np.array([(part, u, v) for part in range(1, 25) for u in (0.0, 0.5, 1.0) for v in (0.0, 0.5, 1.0)])
    apart = np.abs(corners[:, None] - corners).sum(axis=2) / 10
    toy = Surface(part_X=corners[:, 0].astype(int), uv_X2=corners[:, 1:], distance_XX_m=apart)
    monkeypatch.setattr(DensePose, "_surface", lambda _self: toy)
    query = np.random.default_rng(9).integers(0, 255, (PX, PX, 3)).astype(np.uint8)
    monkeypatch.setattr(Texture, "query", lambda _self, side: cv2.resize(query, (side, side)))
    rng = np.random.default_rng(0)
    about = about_of("keypoints_px", keypoint_set="penn13")
    pictures = [picture(task, rng) for _ in range(NUM)]
    examples = [
        example_of(one, key=str(i), second_HW3=one, **labels_of(task, i, rng)) for i, one in enumerate(pictures)
    ]
    views = [look(one, task, STILL, image_px=PX) for one in examples]
    targets = [task.target(one, view.cut, about) for one, view in zip(examples, views, strict=True)]
    target = {name: torch.from_numpy(np.stack([one[name] for one in targets])) for name in targets[0]}
    images = normalised(np.stack([view.images[0] for view in views]), torch.device("cpu"))
    torch.manual_seed(0)
    network = TaskNetwork(CroCo(TINY), task)

    def loss():
        return sum(task.loss(network((images,)), target).values())

    with torch.no_grad():
        before = task.scores(task.measure(network((images,)), target))
    first, last = fit([network], loss, steps=steps, rate=3e-3)
    with torch.no_grad():
        outputs = network((images,))
        scores = task.scores(task.measure(outputs, target))
    assert last < 0.7 * first
    for name, least in wanted.items():
        assert before[name].value < least <= scores[name].value, (name, before[name].value, scores[name].value)
    assert task.draw(views[0].images[0], outputs, 0).shape[0] == PX
    constant = task.scores(task.measure(task.constant(target, NUM), target))[task.main].value
    assert 0 < constant < scores[task.main].value, "an answer that is the same for all is worse than what was learned"
