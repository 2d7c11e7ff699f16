import numpy as np
import pytest
import torch

from manifests.errors import TrainingError
from synthetic.models.body import load_body
from synthetic.models.convert import convert_model
from synthetic.models.hand import load_hand
from tests.support import smpl_files
from training.heads.rotations import matrix_from_axis_angle
from training.tasks.joints import EXTRA9, H36M17
from training.tasks.mesh_model import read_mesh_model


@pytest.fixture(params=["body", "hand_right", "hand_left"])
def model_file(request, assets):
    return assets / f"{request.param}.npz"


def random_pose(num_rotations, *, num=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.5, (num, num_rotations, 3)), rng.normal(0, 1, (num, 10))


def read(path):
    return read_mesh_model(path, hand="hand" in path.name)


def shown(path):
    """The vertices that a model keeps, from its file."""
    with np.load(path) as file:
        landmarks = file["tip_vertices" if "hand" in path.name else "extra_vertices"]
        return np.unique([*file["f"][file["face_group"] < 3].ravel(), *landmarks]), landmarks


def test_it_is_smplx_own_forward(model_file):
    model = read(model_file)
    pose_BR3, betas_BS = random_pose(len(model.parents))
    posed = model(matrix_from_axis_angle(torch.tensor(pose_BR3)), torch.tensor(betas_BS))
    smplx_model = (load_hand if "hand" in model_file.name else load_body)(model_file)
    kept, landmarks = shown(model_file)
    assert posed.verts_BX3.shape[1] == len(kept)
    for image in range(3):
        verts, joints = smplx_model.pose(pose_BR3[[image]], betas_BS[image], np.zeros((1, 3)))
        np.testing.assert_allclose(posed.verts_BX3[image], verts[0, kept], atol=2e-6)
        points = np.concatenate([joints[0], verts[0, landmarks]])
        np.testing.assert_allclose(posed.points_BV3[image], points, atol=2e-6)
    np.testing.assert_array_equal(kept[model.faces_F3[:5]], np.load(model_file)["f"][:5])


def test_it_is_its_slow_twin(model_file):
    """One vertex at a time in float64, from the arrays of the file."""
    model = read(model_file)
    pose_BR3, betas_BS = random_pose(len(model.parents), num=1, seed=1)
    turns = matrix_from_axis_angle(torch.tensor(pose_BR3))[0].numpy()
    with np.load(model_file) as file:
        arrays = {
            name: file[name].astype(np.float64)
            for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")
        }
    shaped = arrays["v_template"] + arrays["shapedirs"] @ betas_BS[0]
    joints = arrays["J_regressor"] @ shaped
    world = []
    for joint, parent in enumerate(model.parents):
        step = np.eye(4)
        step[:3, :3], step[:3, 3] = turns[joint], joints[joint] - (joints[parent] if joint else 0)
        world.append(world[parent] @ step if joint else step)
    bent = (turns[1:] - np.eye(3)).ravel()
    kept, _ = shown(model_file)
    verts = model.double()(torch.tensor(turns)[None], torch.tensor(betas_BS)).verts_BX3[0]
    model.float()
    for place in range(0, len(kept), 97):
        vertex = kept[place]
        rest = shaped[vertex] + arrays["posedirs"][vertex] @ bent
        moved = sum(
            arrays["weights"][vertex, j] * (world[j][:3, :3] @ (rest - joints[j]) + world[j][:3, 3])
            for j in range(len(world))
        )
        np.testing.assert_allclose(verts[place], moved, atol=1e-6)


@pytest.fixture(scope="module")
def smpl(tmp_path_factory):
    """A converted SMPL of an invented body, and both regressors."""
    folder = tmp_path_factory.mktemp("smpl")
    source = smpl_files.write_pickle(folder / "SMPL_NEUTRAL.pkl", smpl_files.model("smpl"))
    convert_model(source, folder / "neutral.npz")
    rng = np.random.default_rng(3)
    for name, rows in (("h36m", 17), ("extra", 9)):
        np.save(folder / f"{name}.npy", rng.dirichlet(np.full(6890, 0.01), rows))
    return folder


def test_regressors_add_their_rows(smpl):
    model = read_mesh_model(smpl / "neutral.npz", h36m=smpl / "h36m.npy", extra=smpl / "extra.npy")
    assert not model.free
    assert model.vocabulary.names[-26:] == (*H36M17, *EXTRA9)
    pose_BR3, betas_BS = random_pose(24)
    posed = model(matrix_from_axis_angle(torch.tensor(pose_BR3)), torch.tensor(betas_BS))
    assert posed.verts_BX3.shape == (3, 6890, 3)
    rows = np.concatenate([np.load(smpl / "h36m.npy"), np.load(smpl / "extra.npy")])
    np.testing.assert_allclose(posed.points_BV3[:, -26:], rows @ posed.verts_BX3.numpy(), atol=1e-5)


def test_files_that_are_no_models_are_told(tmp_path, assets, smpl):
    with pytest.raises(TrainingError, match="there is no model"):
        read_mesh_model(tmp_path / "none.npz")
    with pytest.raises(TrainingError, match="format crosspose-hand-1, due is crosspose-body-1"):
        read_mesh_model(assets / "hand_right.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(TrainingError, match="cannot be read"):
        read_mesh_model(tmp_path / "bad.npz")
    with pytest.raises(
        TrainingError, match=r"the regressor is \(17, 6890\), due are finite numbers of shape \(17, 14944\)"
    ):
        read_mesh_model(assets / "body.npz", h36m=smpl / "h36m.npy")
    with pytest.raises(TrainingError, match="the regressor cannot be read"):
        read_mesh_model(smpl / "neutral.npz", extra=tmp_path / "bad.npz")
