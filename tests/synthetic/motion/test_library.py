from pathlib import Path

import numpy as np
import pytest

from manifests.errors import SyntheticError
from synthetic.models.body import JOINT_NAMES, BodyModel
from synthetic.motion.library import Clip, ClipLibrary, choose_clips, files_of, find_clips, load_clip, place_on_ground
from synthetic.scene import CLIPS
from tests.support.clips import ANGLE_COLUMNS, QUATERNION_STARTS, standing, waving, write_clip
from tests.support.mocap_files import moves, puppet, write_amass, write_amc, write_bvh
from tests.support.samples import asset


def joints_of(body: BodyModel, clip: Clip, index: int = 0) -> dict[str, np.ndarray]:
    _, joints = body.pose(clip.pose_TJ3[index, None], np.zeros(10), np.zeros((1, 3)))
    return dict(zip(JOINT_NAMES, joints[0], strict=True))


def test_at_rest_the_arms_hang_and_the_person_faces_us(body: BodyModel, tmp_path: Path) -> None:
    clip = load_clip(write_clip(tmp_path, "rest", standing()))
    assert (clip.name, clip.num_instants, round(clip.fps)) == ("rest", 2, 30)
    joints = joints_of(body, clip)
    for side in ("left", "right"):
        arm = joints[f"{side}_wrist"] - joints[f"{side}_shoulder"]
        assert arm[1] < -0.95 * np.linalg.norm(arm)
    assert joints["left_wrist"][0] > 0.1 > -0.1 > joints["right_wrist"][0]
    assert joints["left_foot"][2] > joints["left_ankle"][2] + 0.05


def test_hinges_bend_as_limbs_do(body: BodyModel, tmp_path: Path) -> None:
    frames = standing()
    frames[:, ANGLE_COLUMNS["lknee"]] = -1.0  # negative bends a knee, positive an elbow, in that skeleton
    frames[:, ANGLE_COLUMNS["relbow"]] = 1.2
    joints = joints_of(body, load_clip(write_clip(tmp_path, "bent", frames)))
    assert joints["left_ankle"][2] < joints["left_knee"][2] - 0.25, "the shin goes back"
    assert joints["right_wrist"][2] > joints["right_elbow"][2] + 0.15, "the forearm goes forward"
    assert np.isclose(joints["right_ankle"][2], joints["right_knee"][2], atol=0.05)


def test_the_root_turns_and_moves_into_our_axes(body: BodyModel, tmp_path: Path) -> None:
    frames = standing(3)
    frames[:, 1:4] = [[0, 0.9, 0], [1, 0.9, 0], [1, 1.1, 2]]
    start = QUATERNION_STARTS["root"]
    frames[2, start : start + 4] = [np.cos(np.pi / 4), 0, np.sin(np.pi / 4), 0]  # a quarter turn to the left
    clip = load_clip(write_clip(tmp_path, "moves", frames))
    assert np.allclose(clip.trans_T3, [[0, 0.9, 0], [0, 0.9, 1], [-2, 1.1, 1]])
    joints = joints_of(body, clip, 2)
    assert joints["left_foot"][0] > joints["left_ankle"][0] + 0.05, "turned left, the toes point to +x"


def test_a_person_stands_on_the_ground_and_jumps_off_it(body: BodyModel, tmp_path: Path) -> None:
    frames = standing(2)
    frames[1, 2] += 0.6
    clip = load_clip(write_clip(tmp_path, "hop", frames))
    lowest = []
    for index in range(2):
        trans = place_on_ground(clip, body, np.full(10, 0.7), index)
        verts, joints = body.pose(clip.pose_TJ3[index, None], np.full(10, 0.7), trans[None])
        lowest.append(verts[0, body.skin_vertices, 1].min())
        middle = (joints[0].min(axis=0) + joints[0].max(axis=0)) / 2
        assert np.allclose(middle[[0, 2]], 0.0, atol=1e-5)
    assert lowest[0] == pytest.approx(0.0, abs=1e-5)
    assert 0.4 < lowest[1] < 0.75


def test_real_clips_walk_on_the_floor(body: BodyModel) -> None:
    paths = find_clips(asset("motion/humanoid3d_walk.txt").parent)
    assert set(CLIPS) <= set(paths)
    walk = load_clip(paths["walk"])
    assert walk.licence == "zlib"
    assert walk.num_instants == 39
    verts, joints = body.pose(walk.pose_TJ3, np.zeros(10), walk.trans_T3)
    # Its own root track keeps the feet near one height: the converted legs are as long as they should be.
    assert verts[:, body.skin_vertices, 1].min(axis=1).std() < 0.01
    stride = joints[:, JOINT_NAMES.index("left_ankle"), 2] - joints[:, JOINT_NAMES.index("right_ankle"), 2]
    assert stride.max() > 0.3
    assert stride.min() < -0.3
    assert walk.trans_T3[-1, 2] - walk.trans_T3[0, 2] > 1.0, "it walks the way it faces"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "cannot be read"),
        ('{"Loop": "wrap"}', "cannot be read"),
        ("[1]", "cannot be read"),
        ('{"Frames": [[1, 2], [3, 4]]}', r"rows of 44 numbers, at least 2; this has \(2, 2\)"),
        ('{"Frames": [[1, 2], [3]]}', "cannot be read"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_malformed_clips_say_what_and_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "humanoid3d_bad.txt"
    path.write_text(text)
    with pytest.raises(SyntheticError, match=message) as caught:
        load_clip(path)
    assert caught.value.where == str(path)
    assert "pybullet==3.2.7" in caught.value.hint


@pytest.mark.parametrize(("column", "value"), [(0, 0.0), (10, np.nan), (4, 0.0)])
def test_impossible_numbers_are_refused(tmp_path: Path, column: int, value: float) -> None:
    frames = standing(3)
    frames[1, column] = value
    with pytest.raises(SyntheticError, match="durations or rotations that are none"):
        load_clip(write_clip(tmp_path, "odd", frames))


def test_missing_clips_are_named(tmp_path: Path) -> None:
    with pytest.raises(SyntheticError, match=r"(?s)no such motion clip.*pybullet==3.2.7"):
        load_clip(tmp_path / "humanoid3d_none.txt")
    with pytest.raises(SyntheticError, match="no motion clip"):
        find_clips(tmp_path)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with a clip of every format, and things that are none."""
    (tmp_path / "mine").mkdir()
    walk = load_clip(write_clip(tmp_path, "walk", waving()))
    who = puppet()
    write_bvh(tmp_path / "mine" / "dance.bvh", who, *moves(who, 3, 0))
    write_amc(tmp_path / "mine" / "01_01.amc", who, *moves(who, 9, 0))
    (tmp_path / "mine" / "01_01.asf").rename(tmp_path / "mine" / "01.asf")
    write_amass(tmp_path / "CMU" / "01" / "01_02_poses.npz", walk)
    for name in ("README.txt", "mine/raw.c3d", "CMU/LICENSE"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_folder_of_all_formats(mixed: Path) -> None:
    found = find_clips(mixed)
    assert list(found) == ["CMU/01/01_02", "walk", "mine/01_01", "mine/dance"]
    assert files_of(found["mine/01_01"]) == (mixed / "mine/01_01.amc", mixed / "mine/01.asf")
    assert files_of(found["walk"]) == (mixed / "humanoid3d_walk.txt",)
    library = ClipLibrary(found)
    assert (len(library), list(library)) == (4, list(found))
    for name, clip in library.items():
        assert clip.name == name
        assert clip.pose_TJ3.shape == (clip.num_instants, 24, 3)
        assert clip.trans_T3.shape == (clip.num_instants, 3)
        assert 0.8 < clip.hip_m < 1.0
    assert [library[name].licence for name in found] == [
        "AMASS-derived, non-commercial",
        "zlib",
        *["terms of the motion's owner"] * 2,
    ]


def test_clips_are_read_when_they_are_asked_for(mixed: Path) -> None:
    library = ClipLibrary(find_clips(mixed))
    (mixed / "mine/dance.bvh").write_text("nothing")
    assert "mine/dance" in library
    assert library["walk"] is library["walk"]
    with pytest.raises(SyntheticError, match="starts with HIERARCHY"):
        library["mine/dance"]
    with pytest.raises(KeyError):
        library["none"]


def test_names_and_patterns_choose_clips() -> None:
    names = ["walk", "CMU/01/a", "CMU/02/b", "run [fast]"]
    assert choose_clips(names, ("walk",)) == ("walk",)
    assert choose_clips(names, ("walk", "CMU/*")) == ("walk", "CMU/01/a", "CMU/02/b")
    assert choose_clips(reversed(names), ("*", "walk")) == ("CMU/01/a", "CMU/02/b", "run [fast]", "walk")
    assert choose_clips(names, ("run [fast]",)) == ("run [fast]",)
    with pytest.raises(SyntheticError, match=r"(?s)no motion clip 'HDM05/\*'.*CMU/01/a, CMU/02/b.*name other clips"):
        choose_clips(names, ("walk", "HDM05/*"))


def test_other_files_and_equal_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SyntheticError, match=r"(?s)motion is not read from \.c3d.*give a folder of \.bvh"):
        load_clip(tmp_path / "raw.c3d")
    (tmp_path / "a.bvh").touch()
    (tmp_path / "a.amc").touch()
    with pytest.raises(SyntheticError, match="two motion clips are called a"):
        find_clips(tmp_path)
