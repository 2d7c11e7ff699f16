import pytest
import torch

from tests.training.heads.fitting import fit, noise, num_parameters
from training.heads.regressor import IterativeRegressor, Mesh
from training.heads.rotations import matrix_from_axis_angle, nearest_rotation


def mean(num_rotations=24, seed=0):
    turns = matrix_from_axis_angle(0.5 * noise(num_rotations, 3, seed=seed))
    return Mesh(rotations_BR33=turns, shape_BS=0.1 * noise(10), camera_B3=torch.tensor([0.9, 0.0, 0.1]))


@pytest.mark.parametrize(
    ("dim", "rotations", "count"),
    [(768, 24, 2_158_749), (768, 16, 2_060_397), (512, 24, 1_896_605), (512, 16, 1_798_253)],
    ids=["body", "hand", "binocular body", "binocular hand"],
)
def test_parameters(dim, rotations, count):
    assert num_parameters(IterativeRegressor(dim, mean=mean(rotations))) == count


@pytest.mark.parametrize("rotation", ["sixd", "procrustes"])
def test_without_corrections_the_mean_comes_out(rotation):
    start = mean()
    head = IterativeRegressor(32, mean=start, rotation=rotation).eval()
    near = head(noise(3, 32))
    assert (near.rotations_BR33 - start.rotations_BR33).abs().max() < 0.5  # the first corrections are small
    with torch.no_grad():
        for last in (head.decpose, head.decshape, head.deccam):
            last.weight.zero_()
            last.bias.zero_()
    out = head(noise(3, 32))
    torch.testing.assert_close(out.rotations_BR33, start.rotations_BR33.expand(3, -1, -1, -1))
    assert torch.equal(out.shape_BS, start.shape_BS.expand(3, -1))
    assert torch.equal(out.camera_B3, start.camera_B3.expand(3, -1))


@pytest.mark.parametrize("rotation", ["sixd", "procrustes"])
@pytest.mark.parametrize("iterations", [1, 3])
def test_the_loop_is_its_slow_twin(rotation, iterations):
    """One image at a time, with the layers written out and the state kept as one vector."""
    start = mean(2)
    head = IterativeRegressor(8, mean=start, rotation=rotation, iterations=iterations).eval()
    features = noise(4, 8)
    out = head(features)
    for image, feature in enumerate(features):
        pose = start.rotations_BR33[:, :, :2] if rotation == "sixd" else start.rotations_BR33
        state = torch.cat([pose.reshape(-1), start.shape_BS, start.camera_B3])
        for _ in range(iterations):
            x = head.fc1.weight @ torch.cat([feature, state]) + head.fc1.bias
            x = head.fc2.weight @ x + head.fc2.bias
            state = state + torch.cat([d.weight @ x + d.bias for d in (head.decpose, head.decshape, head.deccam)])
        torch.testing.assert_close(out.shape_BS[image], state[-13:-3])
        torch.testing.assert_close(out.camera_B3[image], state[-3:])
        for joint in range(2):
            if rotation == "sixd":
                first, second = state[6 * joint : 6 * joint + 6].reshape(3, 2).T
                q, r = torch.linalg.qr(torch.stack([first, second], dim=1))
                expected = q * r.diagonal().sign()
                torch.testing.assert_close(out.rotations_BR33[image, joint, :, :2], expected)
            else:
                expected = nearest_rotation(state[9 * joint : 9 * joint + 9].reshape(3, 3))
                torch.testing.assert_close(out.rotations_BR33[image, joint], expected)


@pytest.mark.parametrize("rotation", ["sixd", "procrustes"])
def test_sixteen_random_meshes_are_learned_by_heart(rotation):
    torch.manual_seed(0)
    head = IterativeRegressor(64, mean=mean(16), rotation=rotation)
    features = noise(16, 64)
    turns, shapes = matrix_from_axis_angle(noise(16, 16, 3, seed=1)), noise(16, 10, seed=2)

    def loss():
        out = head(features)
        return (out.rotations_BR33 - turns).square().mean() + (out.shape_BS - shapes).square().mean()

    first, last = fit([head], loss, steps=80, rate=3e-4)
    assert first > 1
    assert last < 0.01


def test_dropout_acts_in_training_alone():
    head, feature = IterativeRegressor(16, mean=mean(2)), noise(1, 16)
    assert not torch.equal(head(feature).shape_BS, head(feature).shape_BS)
    head.eval()
    assert torch.equal(head(feature).shape_BS, head(feature).shape_BS)


def test_the_mean_travels_with_the_weights():
    head, other = IterativeRegressor(16, mean=mean(seed=0)).eval(), IterativeRegressor(16, mean=mean(seed=1)).eval()
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(noise(2, 16)).rotations_BR33, head(noise(2, 16)).rotations_BR33)


def test_mistakes_are_told():
    good = mean()
    with pytest.raises(ValueError, match=r"\(R, 3, 3\), \(S,\) and \(3,\), not \[\(1, 24, 3, 3\)"):
        IterativeRegressor(
            8, mean=Mesh(rotations_BR33=good.rotations_BR33[None], shape_BS=good.shape_BS, camera_B3=good.camera_B3)
        )
    with pytest.raises(ValueError, match="iterations must be positive, not 0"):
        IterativeRegressor(8, mean=good, iterations=0)
