import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import TrainingError
from manifests.types import Domain
from synthetic.models.convert import convert_model
from tests.support import smpl_files
from tests.training.tasks.cuts import about_of, cut_of, example_of
from training.heads.regressor import Mesh
from training.heads.rotations import axis_angle_from_matrix, matrix_from_axis_angle
from training.tasks.binocular import BodyTwo, HandTwo
from training.tasks.body_mesh import BodyMesh
from training.tasks.hand_mesh import HandMesh
from training.tasks.joints import HAND21, LANDMARKS, LSP14, MANO16, SETS, SMPL24, TIPS, Vocabulary, other_side
from training.tasks.mesh_model import read_mesh_model
from training.tasks.mesh_task import projected

PICTURE_PX = 128


@pytest.fixture(autouse=True)
def _assets(assets, monkeypatch):
    monkeypatch.setenv("CROSSPOSE_ASSETS", str(assets))


@pytest.fixture(params=["body", "hand"])
def domain(request):
    return request.param


def task_of(domain, **options):
    return BodyMesh(**options) if domain == "body" else HandMesh(**options)


def whole(example, **ways):
    """A cut of the whole picture; left hands mirrored."""
    return cut_of(example.rgb_HW3, **{"flipped": example.labels.get("side") == "left", **ways})


def batch_of(targets):
    return {name: torch.from_numpy(np.stack([target[name] for target in targets])) for name in targets[0]}


def targets_of(task, views, **ways):
    return batch_of([task.target(example, whole(example, **ways), about) for example, about, _ in views])


def perfect(target, camera=(1.0, 0.0, 0.0)):
    num = len(target["betas"])
    return Mesh(
        rotations_BR33=target["rotations"].clone(),
        shape_BS=target["betas"].clone(),
        camera_B3=torch.tensor([camera]).expand(num, 3).clone(),
    )


# ---------------------------------------------------------------------------------------------------------------- names


def test_every_name_is_a_point_or_has_a_mirror_image():
    body, hand = Vocabulary((*SMPL24, *LANDMARKS)), Vocabulary((*MANO16, *TIPS))
    assert (hand.places(HAND21) >= 0).all()
    assert sorted(hand.places(HAND21)) == list(range(21))
    for vocabulary in (body, hand):
        np.testing.assert_array_equal(vocabulary.mirrored[vocabulary.mirrored], np.arange(len(vocabulary)))
    assert body.names[body.mirrored[SMPL24.index("left_knee")]] == "right_knee"
    assert (body.mirrored != np.arange(len(body))).sum() == 18 + 20
    for names in SETS.values():
        used = [name for name in names if name]
        assert len(set(used)) == len(used)
        assert {other_side(name) for name in used} == set(used)
    assert LSP14[:6] == tuple(
        f"h36m_{s}" for s in ("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle")
    )
    assert LSP14[8:10] == ("h36m_right_shoulder", "h36m_left_shoulder")


def test_points_of_a_set_find_their_place_and_stand_ins():
    body = Vocabulary((*SMPL24, *LANDMARKS))
    points = np.arange(49 * 2.0).reshape(49, 2)
    weight = np.ones(49)
    weight[30] = 0
    points[31] = np.nan
    spread, weights = body.spread(points, weight, "spin49")
    place = body.names.index
    np.testing.assert_array_equal(spread[place("right_hip")], points[27])  # LSP's hip stands where no regressor is
    np.testing.assert_array_equal(spread[place("left_ear")], points[47])
    assert weights[place("left_ankle")] == weights[place("right_wrist")] == weights[place("pelvis")] == 0
    assert weights.sum() == 12 + 5 - 2  # limbs and face, without the two unknown
    with pytest.raises(ValueError, match="spin49 has 49 points, not 24"):
        body.spread(points[:24], weight[:24], "spin49")


# --------------------------------------------------------------------------------------------------------------- labels


def test_rendered_labels_reproject_through_the_model(domain, rendered, assets):
    for example, about, transl in rendered[domain]:
        labels = example.labels
        name = "body" if domain == "body" else f"hand_{labels['side']}"
        model = read_mesh_model(assets / f"{name}.npz", hand=domain == "hand")
        turns = matrix_from_axis_angle(torch.from_numpy(labels["pose"]))[None]
        points = model.points(turns, torch.from_numpy(labels["betas"])[None])[0].numpy() + transl
        places = model.vocabulary.places(SETS[about.keypoint_set])
        seen = points[places] @ labels["intrinsics"].T
        np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], labels["keypoints_px"][:, :2], atol=0.02)
        places = model.vocabulary.places(SETS[about.joint_set])
        np.testing.assert_allclose(points[places], labels["joints_m"], atol=2e-5)


@given(
    turn=st.floats(-3, 3),
    scale=st.floats(0.5, 2),
    flipped=st.booleans(),
    focal=st.floats(100, 400),
    index=st.integers(0, 3),
)
def test_labels_move_as_the_picture_does(rendered, turn, scale, flipped, focal, index):
    """With the camera's axis through the middle, projected labels of the cut are the cut labels of the projection."""
    example, about, _ = rendered["body"][index]
    middle = (PICTURE_PX - 1) / 2
    joints = example.labels["joints_m"] - example.labels["joints_m"][0] + [0.1, 0.2, 4.0]
    pixels = np.concatenate([focal * joints[:, :2] / joints[:, 2:] + middle, np.ones((24, 1))], axis=1)
    example = dataclasses.replace(example, labels={**example.labels, "joints_m": joints, "keypoints_px": pixels})
    task, cut = BodyMesh(), cut_of(example.rgb_HW3, image_px=96, scale=scale, turn_rad=turn, flipped=flipped)
    target = task.target(example, cut, about)
    expected = focal * scale * 96 / PICTURE_PX * target["points_m"][:24, :2] / target["points_m"][:24, 2:] / (96 / 2)
    np.testing.assert_allclose(target["keypoints"][:24], expected, atol=2e-5)
    # And the model's parameters say the same.
    posed = task.mesh_model().points(
        torch.from_numpy(target["rotations"])[None], torch.from_numpy(target["betas"])[None]
    )[0]
    from_root = target["points_m"][:24] - target["points_m"][0]
    np.testing.assert_allclose(posed[:24] - posed[0], from_root, atol=5e-4)  # the body is not quite symmetric


def test_mirrored_hands_are_right_hands(rendered):
    task, seen = HandMesh(), set()
    for example, about, _ in rendered["hand"]:
        target = task.target(example, whole(example, turn_rad=0.4), about)
        posed = task.mesh_model().points(
            torch.from_numpy(target["rotations"])[None], torch.from_numpy(target["betas"])[None]
        )[0]
        from_wrist = target["points_m"][:16] - target["points_m"][0]
        np.testing.assert_allclose(posed[:16] - posed[0], from_wrist, atol=1e-5)
        seen.add(example.labels["side"])
        with pytest.raises(TrainingError, match=r"hand is (not )?mirrored"):
            task.target(example, whole(example, flipped=example.labels["side"] == "right"), about)
    assert seen == {"left", "right"}


@pytest.mark.parametrize("ways", [{}, {"turn_rad": 0.7, "scale": 1.2, "shift_px": (3.0, -5.0)}])
def test_flipping_twice_changes_nothing(rendered, ways):
    task, (example, about, _) = BodyMesh(), rendered["body"][1]
    plain = task.target(example, whole(example, **ways), about)
    once = task.target(example, whole(example, **ways, flipped=True), about)
    assert not np.allclose(once["rotations"], plain["rotations"], atol=0.01)
    back = {
        "pose": axis_angle_from_matrix(torch.from_numpy(once["rotations"]).double()).numpy(),
        "betas": once["betas"],
        "joints_m": once["points_m"][:24],
        "keypoints_px": np.concatenate([(once["keypoints"][:24] + 1) * 48 - 0.5, np.ones((24, 1))], axis=1),
    }
    mirrored = dataclasses.replace(example, labels=back, rgb_HW3=np.zeros((96, 96, 3), np.uint8))
    twice = task.target(mirrored, whole(mirrored, flipped=True), about)
    for name, value in plain.items():
        np.testing.assert_allclose(twice[name], value, atol=1e-5, err_msg=name)


def test_what_is_unknown_has_no_weight_and_keeps_its_shape():
    task = BodyMesh()
    picture = np.zeros((80, 100, 3), np.uint8)
    about = about_of("keypoints_px", keypoint_set="coco17", joint_set="h36m17")
    keypoints = np.array([[50.0, 40.0, 0.5]] * 17)
    bare = task.target(example_of(picture, keypoints_px=keypoints), cut_of(picture), about)
    full = task.target(
        example_of(picture, pose=np.zeros((24, 3)), betas=np.ones(10), gender="male", joints_m=np.ones((17, 3))),
        cut_of(picture),
        about,
    )
    assert {k: (v.shape, v.dtype) for k, v in bare.items()} == {k: (v.shape, v.dtype) for k, v in full.items()}
    assert bare["rotations_known"] == bare["betas_known"] == 0
    assert full["rotations_known"] == 1
    assert full["betas_known"] == 0  # of a man's model
    assert not bare["points_weight"].any()
    assert (full["points_weight"] > 0).sum() == 12  # limbs; trunk and head need the regressor
    np.testing.assert_allclose(bare["keypoints_weight"].sum(), 0.5, rtol=1e-6)
    joints = np.ones((17, 3))
    joints[1] = np.nan
    lost = task.target(example_of(picture, joints_m=joints), cut_of(picture), about)
    assert not lost["points_weight"].any()  # a hip is unknown, and with it the root


# ----------------------------------------------------------------------------------------------------------------- loss


def slow_losses(task, outputs, target):
    """One image, one number at a time, in float64."""
    model = task.mesh_model().double()
    points = model(outputs.rotations_BR33.double(), outputs.shape_BS.double()).points_BV3.numpy()
    model.float()
    t = {name: value.numpy().astype(np.float64) for name, value in target.items()}
    num, unit = len(points), 0.1 if task.side else 1.0  # hands in decimetres
    keypoints, joints, rotations, shape, camera = 0.0, [], [], [], 0.0
    for i in range(num):
        s, tx, ty = outputs.camera_B3[i].double().tolist()
        away = 2 * 5000 / (224 * s + 1e-9)
        root = sum(t["root"][i][v] * points[i][v] for v in range(points.shape[1]))
        true_root = sum(t["root"][i][v] * t["points_m"][i][v] for v in range(points.shape[1]))
        joint = 0.0
        for v, (x, y, z) in enumerate(points[i]):
            seen = [5000 / 112 * (at / unit + shift) / (z / unit + away) for at, shift in ((x, tx), (y, ty))]
            for axis in (0, 1):
                keypoints += t["keypoints_weight"][i][v] * (seen[axis] - t["keypoints"][i][v][axis]) ** 2 / 2 / num
            apart = points[i][v] - root - (t["points_m"][i][v] - true_root)
            joint += t["points_weight"][i][v] * ((apart / unit) ** 2).sum() / 3
        if t["points_weight"][i].any():
            joints.append(joint)
        if t["rotations_known"][i]:
            rotations.append(np.mean((outputs.rotations_BR33[i].double().numpy() - t["rotations"][i]) ** 2))
        if t["betas_known"][i]:
            betas = t["betas"][i] if (np.abs(t["betas"][i]) <= 3).all() else np.zeros(10)
            shape.append(np.mean((outputs.shape_BS[i].double().numpy() - betas) ** 2))
        camera += math.exp(-10 * s) ** 2 / num
    return {
        "keypoints": 60 * 5 * keypoints,
        "joints": 60 * 5 * np.mean(joints),
        "rotations": 60 * np.mean(rotations),
        "shape": 60 * 0.001 * np.mean(shape),
        "camera": 60 * camera,
    }


def test_the_losses_are_their_slow_twin(domain, rendered):
    task = task_of(domain)
    target = targets_of(task, rendered[domain][:4], turn_rad=-0.3)
    target["rotations_known"][1], target["betas_known"][1], target["betas_known"][2] = 0, 0, 0
    target["points_weight"][3] = 0
    target["keypoints_weight"][0, :5] = 0.01
    target["betas"][0, 3] = 3.5  # not believed
    generator = torch.Generator().manual_seed(0)
    turns = 0.3 * torch.randn(4, target["rotations"].shape[1], 3, generator=generator)
    outputs = Mesh(
        rotations_BR33=target["rotations"] @ matrix_from_axis_angle(turns),
        shape_BS=torch.randn(4, 10, generator=generator),
        camera_B3=torch.tensor([[0.9, 0.1, -0.2], [0.02, 0.0, 0.0], [1.4, 0.3, 0.1], [0.7, -0.1, 0.0]]),
    )
    losses = task.loss(outputs, target)
    slow = slow_losses(task, outputs, target)
    assert set(losses) == set(slow)
    for name, value in slow.items():
        assert value > 0
        np.testing.assert_allclose(losses[name], value, rtol=2e-4, err_msg=name)


def test_losses_without_any_label_are_zero_and_pull_nowhere(rendered):
    task = BodyMesh()
    target = targets_of(task, rendered["body"][:2])
    for name in ("rotations_known", "betas_known", "points_weight", "keypoints_weight"):
        target[name].zero_()
    outputs = perfect(target)
    outputs.rotations_BR33.requires_grad_()
    losses = task.loss(outputs, target)
    assert sum(losses[name].item() for name in ("keypoints", "joints", "rotations", "shape")) == 0
    sum(losses.values()).backward()
    assert not outputs.rotations_BR33.grad.any()


def test_a_perfect_prediction_costs_nothing_and_has_no_error(domain, rendered):
    task = task_of(domain)
    target = targets_of(task, rendered[domain], turn_rad=0.2)
    target["betas"].clamp_(-3, 3)
    outputs = perfect(target)
    points = task.mesh_model().points(outputs.rotations_BR33, outputs.shape_BS)
    target["points_m"], target["keypoints"] = points.clone(), projected(points, outputs.camera_B3, task.unit_m)
    losses = task.loss(outputs, target)
    assert losses.pop("camera") < 1e-6
    assert max(loss.item() for loss in losses.values()) < 1e-7
    measured = task.measure(outputs, target)
    scores = task.scores(measured)
    assert all(score.convention for score in scores.values())
    for name, score in scores.items():
        if score.unit == "mm":
            assert score.value < 1e-4, name
            assert score.better == "lower"
        else:
            assert score.value > 0.994, name  # a curve that starts at 0 mm never has all its area
    assert task.main in scores


def test_gradients_reach_all_parameters(domain, rendered):
    task = task_of(domain)
    target = targets_of(task, rendered[domain][:2])
    head = task.head([32], 4)
    maps = (torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(1)),)
    sum(task.loss(head(maps), target).values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())
    assert all(p.grad.any() for name, p in head.named_parameters() if "dec" in name)


# --------------------------------------------------------------------------------------------------------------- scores


def shifted(target, task, *, by_m):
    """A prediction that is right but for the trunk's root, which is turned away."""
    outputs = perfect(target)
    turn = matrix_from_axis_angle(torch.tensor([0.0, by_m, 0.0]))
    outputs.rotations_BR33[:, 0] = turn @ outputs.rotations_BR33[:, 0]
    return outputs


def test_a_turned_body_is_wrong_until_it_is_aligned(domain, rendered):
    task = task_of(domain)
    target = targets_of(task, rendered[domain][:3])
    measured = task.measure(shifted(target, task, by_m=0.3), target)
    aligned = {"pa_mpjpe", "pa_mpjpe_strict", "pa_mpvpe", "pa_mpvpe_strict"}
    for name, score in task.scores(measured).items():
        if score.unit == "mm":
            assert (score.value < 1e-3) == (name in aligned), name
            assert score.value < 1e-3 or score.value > 3


def test_errors_are_those_of_nested_loops(rendered):
    task = BodyMesh()
    target = targets_of(task, rendered["body"][:2])
    outputs = shifted(target, task, by_m=0.5)
    outputs.rotations_BR33[:, 16] = torch.eye(3)
    outputs.shape_BS.add_(0.5)
    measured = task.measure(outputs, target)
    model = task.mesh_model()
    (verts, points), (true_verts, true_points) = (
        model(mesh["r"], mesh["s"])
        for mesh in (
            {"r": outputs.rotations_BR33, "s": outputs.shape_BS},
            {"r": target["rotations"], "s": target["betas"]},
        )
    )
    for i in range(2):
        apart = [(points[i, j] - points[i, 0] - true_points[i, j] + true_points[i, 0]).norm().item() for j in range(24)]
        np.testing.assert_allclose(measured["mpjpe"][i], 1000 * np.mean(apart), rtol=1e-4)
        moved = verts[i] - points[i, 0] - true_verts[i] + true_points[i, 0]
        np.testing.assert_allclose(measured["mpvpe"][i], 1000 * moved.norm(dim=1).mean(), rtol=1e-4)
        np.testing.assert_allclose(
            measured["mpvpe_unaligned"][i], 1000 * (verts[i] - true_verts[i]).norm(dim=1).mean(), rtol=1e-4
        )
    assert (measured["mpvpe"] - measured["mpvpe_unaligned"]).any()


def test_a_mirrored_hand_scores_zero_by_the_official_alignment_alone(rendered):
    task = HandMesh()
    target = targets_of(task, rendered["hand"][:2])
    outputs = perfect(target)
    truth = task.mesh_model()(target["rotations"], target["betas"])
    mirror = np.array([-1.0, 1.0, 1.0])
    errors = task.mesh_errors(truth.points_BV3.numpy() * mirror, truth.verts_BX3.numpy() * mirror, target)
    assert errors["pa_mpjpe"].max() < 1e-3
    assert errors["pa_mpvpe"].max() < 1e-3
    assert errors["f_5mm"].min() == 1
    assert errors["pa_mpjpe_strict"].min() > 2
    assert errors["pa_mpvpe_strict"].min() > 2
    assert "reflect" in task.scores(task.measure(outputs, target))["pa_mpjpe"].convention


def test_images_without_a_mesh_are_scored_by_their_joints(rendered):
    task = BodyMesh()
    target = targets_of(task, rendered["body"][:3])
    target["points_weight"][1, [0, 5]] = 0  # no pelvis: from both hips
    outputs = shifted(target, task, by_m=0.3)
    with_mesh = task.measure(outputs, target)
    target["rotations_known"][:2] = 0
    measured = task.measure(outputs, target)
    np.testing.assert_allclose(measured["mpjpe"][0], with_mesh["mpjpe"][0], atol=0.1)
    assert measured["num_joints"].tolist() == [24, 22, 24]
    assert np.isnan(measured["mpvpe"]).tolist() == [True, True, False]
    points = task.predict(outputs).points_BV3[1].numpy()
    true = target["points_m"][1].numpy()
    hips = [points - points[1:3].mean(axis=0), true - true[1:3].mean(axis=0)]
    kept = [j for j in range(24) if j not in (0, 5)]
    np.testing.assert_allclose(
        measured["mpjpe"][1], 1000 * np.linalg.norm(hips[0] - hips[1], axis=1)[kept].mean(), rtol=1e-4
    )
    scores = task.scores(measured)
    assert (
        "22 to 24 of SMPL's 24 joints, root the pelvis, or both hips where it is unknown" in scores["mpjpe"].convention
    )
    assert "2 images without such a label left out" in scores["mpvpe"].convention
    target["rotations_known"].zero_()
    assert set(task.scores(task.measure(outputs, target))) == {"mpjpe", "pa_mpjpe"}


@pytest.fixture(scope="module")
def smpl(tmp_path_factory):
    """Three converted SMPLs of invented bodies, and both regressors."""
    folder = tmp_path_factory.mktemp("smpl")
    for seed, gender in enumerate(("neutral", "male", "female")):
        source = smpl_files.write_pickle(folder / f"{gender}.pkl", smpl_files.model("smpl", seed=seed))
        convert_model(source, folder / f"{gender}.npz")
    rng = np.random.default_rng(3)
    for name, rows in (("h36m", 17), ("extra", 9)):
        np.save(folder / f"{name}.npy", rng.dirichlet(np.full(6890, 0.01), rows).astype(np.float32))
    return folder


def test_ground_truth_is_of_the_gendered_model(smpl):
    files = {name: str(smpl / f"{name}.npz") for name in ("male", "female")}
    task = BodyMesh(
        model=str(smpl / "neutral.npz"),
        **files,
        regressor_h36m=str(smpl / "h36m.npy"),
        regressor_extra=str(smpl / "extra.npy"),
    )
    picture, rng = np.zeros((80, 80, 3), np.uint8), np.random.default_rng(0)
    about = about_of("pose", "gender", keypoint_set="spin49", joint_set="h36m17")
    task.check([about], about)
    pose, betas = rng.normal(0, 0.3, (24, 3)), 2 * np.ones(10)
    target = batch_of([
        task.target(example_of(picture, pose=pose, betas=betas, gender=gender), cut_of(picture), about)
        for gender in ("neutral", "male", "female")
    ])  # fmt: skip
    measured = task.measure(perfect(target), target)
    assert measured["mpvpe"][0] < 1e-3
    assert measured["mpvpe_neutral"].max() < 1e-3
    for index, gender in ((1, "male"), (2, "female")):
        truth = read_mesh_model(smpl / f"{gender}.npz", h36m=smpl / "h36m.npy", extra=smpl / "extra.npy")(
            target["rotations"][[index]], target["betas"][[index]]
        )
        predicted = task.predict(perfect(target))
        pelvis = task.mesh_model().vocabulary.names.index("h36m_pelvis")
        apart = (
            predicted.verts_BX3[index]
            - predicted.points_BV3[index, pelvis]
            - truth.verts_BX3[0]
            + truth.points_BV3[0, pelvis]
        )
        np.testing.assert_allclose(measured["mpvpe"][index], 1000 * apart.norm(dim=1).mean(), rtol=1e-4)
        assert measured["mpvpe"][index] > 1
    scores = task.scores(measured)
    assert "14 joints of J_regressor_h36m, root the h36m_pelvis; gendered ground truth" in scores["mpjpe"].convention
    alone = BodyMesh(model=task.model)
    assert (
        "on the neutral model, theirs not given"
        in alone.scores(alone.measure(perfect(target), target))["mpjpe"].convention
    )


# ---------------------------------------------------------------------------------------------------------------- start


def test_the_mean_mesh_stands_before_the_camera(domain):
    task = task_of(domain)
    mean = task.mean_mesh()
    model = task.mesh_model()
    points = model.points(mean.rotations_BR33[None], mean.shape_BS[None])
    seen = projected(points, mean.camera_B3[None], task.unit_m)[0]
    low, high = seen.amin(dim=0), seen.amax(dim=0)
    assert 1.4 < (high - low).max() < 1.6
    torch.testing.assert_close(low + high, torch.zeros(2), atol=0.05, rtol=0)
    if domain == "body":
        place = model.vocabulary.names.index
        assert seen[place("head"), 1] < seen[place("pelvis"), 1] < seen[place("left_foot"), 1]
        assert seen[place("left_hand"), 0] > seen[place("right_hand"), 0]  # it faces us


@pytest.mark.parametrize("predictor", ["regressor", "model_free"])
def test_a_constant_answer_is_the_mean_of_what_is_known(domain, predictor, rendered):
    task = task_of(domain, predictor=predictor)
    target = targets_of(task, rendered[domain][:2])
    alone = {name: value[:1] for name, value in target.items()}
    of_itself = task.scores(task.measure(task.constant(alone, 1), alone))
    assert of_itself["mpjpe"].value < 0.01, "the mean of one mesh is itself"
    of_both = task.scores(task.measure(task.constant(target, 2), target))
    assert of_both["mpjpe"].value > 1
    unknown = target | {name: torch.zeros_like(target[name]) for name in ("rotations_known", "betas_known")}
    start = task.scores(task.measure(task.constant(unknown, 2), target))
    rest = task.mean_mesh()
    expected = Mesh(
        rotations_BR33=rest.rotations_BR33.expand(2, -1, -1, -1),
        shape_BS=rest.shape_BS.expand(2, -1),
        camera_B3=rest.camera_B3.expand(2, -1),
    )
    plain = task_of(domain)
    assert start["mpjpe"].value == pytest.approx(plain.scores(plain.measure(expected, target))["mpjpe"].value, rel=0.02)


def test_a_camera_that_does_not_see_the_mesh_is_finite_and_pulled_back():
    camera = torch.tensor([[0.0, 0.0, 0.0], [-5.0, 0.3, 0.0]], requires_grad=True)
    seen = projected(torch.rand(2, 5, 3), camera, 1.0)
    assert torch.isfinite(seen).all()
    assert seen.abs().max() < 1, "what is this far away is small"
    task = BodyMesh()
    outputs = Mesh(rotations_BR33=torch.eye(3).expand(2, 24, 3, 3), shape_BS=torch.zeros(2, 10), camera_B3=camera)
    points = len(task.mesh_model().vocabulary)
    target = {name: torch.zeros(2, points) for name in ("keypoints_weight", "points_weight", "root")}
    target |= {"keypoints": torch.zeros(2, points, 2), "points_m": torch.zeros(2, points, 3)}
    target |= {"rotations": torch.zeros(2, 24, 3, 3), "betas": torch.zeros(2, 10)}
    target |= {"rotations_known": torch.zeros(2), "betas_known": torch.zeros(2)}
    sum(task.loss(outputs, target).values()).backward()
    assert (camera.grad[:, 0] < 0).all(), "a step against the gradient makes it larger"


def test_mean_parameters_of_a_file_are_taken(tmp_path):
    path = tmp_path / "mean.npz"
    rng = np.random.default_rng(0)
    turns = matrix_from_axis_angle(torch.from_numpy(rng.normal(size=(24, 3))))
    np.savez(path, pose=turns[..., :2].flatten().numpy(), shape=rng.normal(size=10), cam=[0.8, 0.1, 0.2])
    task = BodyMesh(mean=str(path))
    torch.testing.assert_close(task.mean_mesh().rotations_BR33, turns.float())
    head = task.head([16], 4).eval()
    assert torch.equal(head.head.mean_camera, torch.tensor([0.8, 0.1, 0.2]))
    np.savez(path, pose=np.zeros(96), shape=np.zeros(10), cam=np.zeros(3))
    with pytest.raises(TrainingError, match=r"shapes \(96,\), \(10,\), \(3,\)"):
        task.mean_mesh()
    path.write_bytes(b"no npz")
    with pytest.raises(TrainingError, match="mean parameters cannot be read"):
        task.mean_mesh()


def test_two_images_ask_the_same_of_the_decoder():
    assert BodyTwo().reads == HandTwo().reads == "two"
    assert BodyMesh().reads == HandMesh().reads == "pooled"
    assert HandTwo().side == "right"
    assert not HandTwo().flips
    assert sum(p.numel() for p in BodyTwo().head([512], 196).parameters()) == 1_896_605
    assert sum(p.numel() for p in HandTwo().head([512], 196).parameters()) == 1_798_253


def test_datasets_that_cannot_teach_or_score_are_refused(assets, smpl):
    free, classes = about_of("pose", "joints_m"), about_of("class")
    free = dataclasses.replace(free, name="free_body")
    BodyMesh().check([free], free)
    hands = dataclasses.replace(free, name="free_hand", domain=Domain.HAND)
    with pytest.raises(TrainingError, match="free_hand shows a hand, and body_mesh asks for a body"):
        BodyMesh().check([free], hands)
    with pytest.raises(TrainingError, match="free_body shows a body, and hand_two asks for a hand"):
        HandTwo().check([free], hands)
    HandTwo().check([hands], hands)
    with pytest.raises(TrainingError, match="made up teaches no mesh"):
        BodyMesh().check([free, classes], free)
    with pytest.raises(TrainingError, match="made up cannot score a mesh"):
        BodyMesh().check([free], about_of("keypoints_px"))
    with pytest.raises(
        TrainingError, match="the poses of made up are of a published SMPL, which the free model is not"
    ):
        BodyMesh().check([about_of("pose")], free)
    BodyMesh().check([about_of("keypoints_px")], free)
    neutral = str(smpl / "neutral.npz")
    BodyMesh(model=neutral).check([about_of("pose")], about_of("pose"))
    with pytest.raises(TrainingError, match="one of the models of men and women is given"):
        BodyMesh(model=neutral, male=str(smpl / "male.npz")).check([free], free)
    with pytest.raises(TrainingError, match="the female model has another mesh"):
        BodyMesh(model=neutral, male=str(smpl / "male.npz"), female=str(assets / "body.npz")).check([free], free)
    with pytest.raises(TrainingError, match="the model is a left hand"):
        HandMesh(model=str(assets / "hand_left.npz")).check([free], free)
