import numpy as np
import pytest
import torch

from tests.training.tasks.test_mesh_tasks import targets_of, task_of
from training.heads.model_free import FreeMesh
from training.heads.rotations import matrix_from_axis_angle
from training.tasks.free_mesh import COARSE, levels_of
from training.tasks.mesh_model import farthest_points


@pytest.fixture(autouse=True)
def _assets(assets, monkeypatch):
    monkeypatch.setenv("CROSSPOSE_ASSETS", str(assets))


@pytest.fixture(params=["body", "hand"])
def task(request):
    return task_of(request.param, predictor="model_free")


def mesh_of(task, target):
    """What a perfect head says."""
    levels, model = levels_of(task.mesh_model()), task.mesh_model()
    verts = model(target["rotations"], target["betas"]).verts_BX3
    verts = verts - (levels.points_VX @ verts)[:, task.root_place(), None]
    meshes = (*(verts[:, index] for index in levels.coarse), verts)
    camera = torch.tensor([[1.1, 0.1, -0.2]]).repeat(len(verts), 1)
    return FreeMesh((levels.points_VX @ verts)[:, task.scored()], meshes, camera)


def test_farthest_points_are_those_of_nested_loops():
    points = np.random.default_rng(0).normal(size=(40, 3))
    chosen = farthest_points(points, 12).tolist()
    assert chosen[0] == max(range(40), key=lambda i: np.linalg.norm(points[i] - points.mean(axis=0)))
    for step in range(1, 12):
        gaps = [min(np.linalg.norm(points[i] - points[c]) for c in chosen[:step]) for i in range(40)]
        assert chosen[step] == int(np.argmax(gaps))


def test_coarse_meshes_are_nested_and_cover_the_fine_one(task):
    model, levels = task.mesh_model(), levels_of(task.mesh_model())
    assert tuple(map(len, levels.coarse)) == COARSE[model.layout]
    for few, many in zip(levels.coarse, levels.coarse[1:], strict=False):
        assert torch.equal(many[: len(few)], few)
    gap = torch.cdist(model.template_X3, model.template_X3[levels.coarse[0]]).amin(dim=1).max()
    assert gap < (0.07 if model.layout == "SMPL" else 0.015)


def test_joints_are_found_in_a_mesh_without_parameters(task):
    model, levels = task.mesh_model(), levels_of(task.mesh_model())
    generator = torch.Generator().manual_seed(5)
    turns = matrix_from_axis_angle(0.3 * torch.randn(8, len(model.parents), 3, generator=generator))
    verts, points = model(turns, torch.randn(8, 10, generator=generator))
    apart_mm = 1000 * (levels.points_VX @ verts - points).norm(dim=2)
    assert apart_mm.mean() < 1.5
    assert apart_mm.max() < 12
    assert apart_mm[:, len(model.parents) :].max() < 1e-3  # landmarks are vertices
    torch.testing.assert_close(levels.points_VX.sum(dim=1), torch.ones(len(model.vocabulary)), atol=1e-4, rtol=0)


def test_a_perfect_mesh_costs_nothing_and_has_no_error(task, rendered):
    domain = "hand" if task.side else "body"
    target = targets_of(task, rendered[domain][:3])
    outputs = mesh_of(task, target)
    levels = levels_of(task.mesh_model())
    points = levels.points_VX @ outputs.vertices[-1]
    seen = points[..., :2] / task.unit_m + outputs.camera_B3[:, None, 1:]
    target["keypoints"] = outputs.camera_B3[:, None, :1] * seen
    losses = task.loss(outputs, target)
    assert max(loss.item() for loss in losses.values()) < 1e-5
    scores = task.scores(task.measure(outputs, target))
    assert max(score.value for score in scores.values() if score.unit == "mm") < 1e-2
    assert "mpvpe_unaligned" not in scores
    assert "regressed from either mesh" in scores["mpjpe"].convention


def test_the_losses_are_their_slow_twin(task, rendered):
    domain = "hand" if task.side else "body"
    target = targets_of(task, rendered[domain][:3])
    target["rotations_known"][1] = 0  # joints alone
    target["points_weight"][1, 3] = 0
    exact, generator = mesh_of(task, target), torch.Generator().manual_seed(0)
    wrong = [x + 0.02 * torch.randn(x.shape, generator=generator) for x in (exact.joints, *exact.vertices)]
    outputs = FreeMesh(wrong[0], tuple(wrong[1:]), exact.camera_B3)
    losses = task.loss(outputs, target)

    model, levels = task.mesh_model(), levels_of(task.mesh_model())
    truth = model(target["rotations"], target["betas"]).verts_BX3.double().numpy()
    matrix, scored = levels.points_VX.double().numpy(), task.scored()
    names = [model.vocabulary.names[place] for place in scored]
    root = [names.index(name) for name in (("wrist",) if task.side else ("left_hip", "right_hip"))]
    joints, vertices, keypoints = [], [], 0.0
    for i in range(3):
        found = {
            "queries": outputs.joints[i].double().numpy(),
            "mesh": (matrix @ outputs.vertices[-1][i].double().numpy())[scored],
        }
        true = (matrix @ truth[i])[scored] if i != 1 else target["points_m"][i, scored].double().numpy()
        if i != 1:
            centre, share = (matrix @ truth[i])[task.root_place()], 1 / len(outputs.vertices)
            each = []
            for index, mesh in zip((*levels.coarse, torch.arange(truth.shape[1])), outputs.vertices, strict=True):
                each.append(np.abs(mesh[i].double().numpy() - truth[i][index] + centre).mean())
            vertices.append(100 * round(share, 2) * sum(each))
        total = 0.0
        for points in found.values():
            apart = points - points[root].mean(axis=0) - true + true[root].mean(axis=0)
            weight = target["points_weight"][i, scored].numpy() if i == 1 else np.full(len(scored), 1 / len(scored))
            total += (weight * (apart**2).mean(axis=1)).sum()
            s, tx, ty = outputs.camera_B3[i].double().tolist()
            seen = s * (points[:, :2] / (0.1 if task.side else 1.0) + [tx, ty])
            gap = ((seen - target["keypoints"][i, scored].numpy()) ** 2).mean(axis=1)
            keypoints += 100 * (target["keypoints_weight"][i, scored].numpy() * gap).sum() / 3
        joints.append(1000 * total)
    for name, value in {"joints": np.mean(joints), "vertices": np.mean(vertices), "keypoints": keypoints}.items():
        np.testing.assert_allclose(losses[name], value, rtol=1e-3, err_msg=name)


def test_a_hand_is_predicted_from_tokens(rendered):
    task = task_of("hand", predictor="model_free")
    head = task.head([32], 9).eval()
    outputs = head((torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0)),))
    assert outputs.joints.shape == (2, 21, 3)
    assert [mesh.shape[1] for mesh in outputs.vertices] == [195, len(task.mesh_model().template_X3)]
    queries = head.head.template_Q3
    assert queries[0].abs().max() < 2e-4  # the wrist is the root
    target = targets_of(task, rendered["hand"][:2])
    assert all(torch.isfinite(loss) for loss in task.loss(outputs, target).values())
