import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest

from manifests.errors import SyntheticError
from synthetic.models.body import JOINT_NAMES, BodyModel
from synthetic.motion.amass import LICENCE, RENAMED, read_amass
from synthetic.motion.library import Clip, find_clips, load_clip
from synthetic.rotations import matrix_from_axis_angle
from tests.support.clips import standing, waving, write_clip
from tests.support.mocap_files import write_amass

RELEASES = ["walk_poses.npz", "walk_stageii.npz"]


@pytest.fixture
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return load_clip(write_clip(tmp_path_factory.mktemp("clip"), "waving", waving(24)))


@pytest.mark.parametrize("gender", ["female", b"female"], ids=["text", "bytes"])
@pytest.mark.parametrize("name", RELEASES)
def test_both_releases_give_the_motion_back(tmp_path: Path, clip: Clip, name: str, gender: object) -> None:
    clip.pose_TJ3[:, [22, 23]] = [[0.1, 0, 0.4], [0, 0.2, -0.3]]
    read = load_clip(write_amass(tmp_path / name, clip, fps=30.0, gender=gender))
    assert (read.name, read.fps, read.licence) == ("walk", 30.0, "AMASS-derived, non-commercial")
    assert np.allclose(matrix_from_axis_angle(read.pose_TJ3), matrix_from_axis_angle(clip.pose_TJ3), atol=1e-6)
    moved = clip.trans_T3 - read.trans_T3
    assert np.allclose(moved, moved[0] * (0, 1, 0), atol=1e-6), "up or down to the floor, and no other way"


def test_z_is_up_there_and_y_here(body: BodyModel, tmp_path: Path) -> None:
    """Written by hand, not by our writer: upright, a step along the file's x, a turn to the left about its z."""
    poses, trans = np.zeros((2, 156)), np.array([[0.0, 0, 0.93], [1.0, 0, 0.93]])
    upright = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    poses[0, :3] = [np.pi / 2, 0, 0]
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]) @ upright
    angle = np.arccos((np.trace(quarter) - 1) / 2)
    axis = np.array([quarter[2, 1] - quarter[1, 2], quarter[0, 2] - quarter[2, 0], quarter[1, 0] - quarter[0, 1]])
    poses[1, :3] = axis / np.linalg.norm(axis) * angle
    with (tmp_path / "a_poses.npz").open("wb") as file:
        np.savez(file, poses=poses, trans=trans, mocap_framerate=30.0)
    clip = load_clip(tmp_path / "a_poses.npz")
    joints = body.pose(clip.pose_TJ3, np.zeros(10), clip.trans_T3)[1]
    head, pelvis, toe, ankle = (joints[:, JOINT_NAMES.index(n)] for n in ("head", "pelvis", "left_foot", "left_ankle"))
    assert (head - pelvis)[:, 1] == pytest.approx(0.66, abs=0.02)
    assert (toe - ankle)[0, 2] > 0.1, "at first the toes point to our z"
    assert (toe - ankle)[1, 0] > 0.1, "after a turn to the left, to our x"
    assert clip.trans_T3[1] - clip.trans_T3[0] == pytest.approx([1, 0, 0], abs=1e-6)
    assert clip.trans_T3[:, 1] == pytest.approx(0.93, abs=0.03), "the soles are at y = 0"


@pytest.mark.parametrize(
    ("fps", "every"),
    [(120.0, 4), (120.00004577636719, 4), (119.99, 4), (100.0, 3), (60.0, 2), (30.0, 1), (25.0, 1), (250.0, 8)],
)
def test_rates_are_rounded_not_cut(tmp_path: Path, clip: Clip, fps: float, every: int) -> None:
    read = load_clip(write_amass(tmp_path / "a_poses.npz", clip, fps=fps))
    assert read.num_instants == -(-24 // every)
    assert read.fps == pytest.approx(fps / every)


@pytest.mark.parametrize("key", ["mocap_framerate", "mocap_frame_rate"])
@pytest.mark.parametrize("name", RELEASES)
def test_the_rate_has_two_names(tmp_path: Path, clip: Clip, name: str, key: str) -> None:
    other = {"mocap_framerate": None, "mocap_frame_rate": None} | {key: 60.0}
    path = write_amass(tmp_path / name, clip, **other)
    if name == RELEASES[0] and key == "mocap_frame_rate":  # 52 joints under the key of the 55
        with pytest.raises(SyntheticError, match="poses has 52 joints"):
            load_clip(path)
    else:
        assert load_clip(path).fps == 30.0


@pytest.mark.parametrize(
    ("written", "called", "message", "hint"),
    [
        ("a_stageii.npz", "a_poses.npz", r"poses has 55 joints \(165 numbers\), where the SMPL\+H release has 52", r"\*_stageii.npz"),
        ("a_poses.npz", "a_stageii.npz", r"poses has 52 joints \(156 numbers\), where the SMPL-X release has 55", r"\*_poses.npz"),
    ],
)  # fmt: skip
def test_a_file_of_the_other_release_says_which(
    tmp_path: Path, clip: Clip, written: str, called: str, message: str, hint: str
) -> None:
    path = write_amass(tmp_path / "w" / written, clip, mocap_frame_rate=None, mocap_framerate=120.0)
    path = path.rename(tmp_path / called)
    with pytest.raises(SyntheticError, match=f"(?s){message}.*{called}.*{hint}"):
        load_clip(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"poses": None}, "no poses: it is no motion of AMASS"),
        ({"trans": None}, "no trans"),
        ({"mocap_framerate": None}, "no mocap_framerate, nor mocap_frame_rate"),
        ({"poses": np.zeros((24, 72))}, r"poses is \(24, 72\), not \(T, 156\)"),
        ({"poses": np.zeros(156)}, r"poses is \(156,\), not"),
        ({"poses": np.full((24, 156), "x")}, "poses holds <U1, not numbers"),
        ({"poses": np.full((24, 156), None)}, "allow_pickle=False"),
        ({"poses": np.full((24, 156), np.nan)}, "what is no angle or place"),
        ({"poses": np.full((24, 156), 1e300)}, "the motion holds what is no angle or place of a person"),
        ({"trans": np.full((24, 3), np.inf)}, "what is no angle or place of a person"),
        ({"trans": np.zeros((23, 3))}, r"24 poses, translations \(23, 3\) and 120 frames a second are no motion"),
        ({"mocap_framerate": 0.0}, "and 0 frames a second"),
        ({"mocap_framerate": np.nan}, "nan frames a second"),
        ({"mocap_framerate": [120.0, 120.0]}, "are no motion"),
    ],
)
def test_what_is_no_motion_is_refused(tmp_path: Path, clip: Clip, changed: dict[str, object], message: str) -> None:
    path = write_amass(tmp_path / "a_poses.npz", clip, **changed)
    with pytest.raises(SyntheticError, match=message) as caught:
        load_clip(path)
    assert caught.value.where == str(path)
    assert "SMPL+H G" in caught.value.hint


def test_one_pose_is_no_motion(tmp_path: Path, clip: Clip) -> None:
    path = write_amass(tmp_path / "a_poses.npz", clip, poses=np.zeros((1, 156)), trans=np.zeros((1, 3)))
    with pytest.raises(SyntheticError, match="1 poses"):
        load_clip(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_files_that_were_cut_off(tmp_path: Path, clip: Clip, share: float) -> None:
    path = write_amass(tmp_path / "a_poses.npz", clip)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(SyntheticError, match="the motion cannot be read"):
        load_clip(path)


def test_changed_bytes_never_crash(tmp_path: Path, clip: Clip) -> None:
    path = write_amass(tmp_path / "a_poses.npz", clip)
    good, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(60):
        data = bytearray(good)
        data[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        path.write_bytes(data)
        try:
            load_clip(path)
        except SyntheticError:
            refused += 1
    assert refused > 10


def test_a_header_that_does_not_read_is_told(tmp_path: Path, clip: Clip) -> None:
    path = write_amass(tmp_path / "a_poses.npz", clip)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["poses.npy"] = members["poses.npy"].replace(b"}", b" ", 1)  # under a checksum that is right
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(SyntheticError, match=r"the motion cannot be read: .*EOF"):
        load_clip(path)


def test_pickled_things_beside_the_motion_are_not_touched(tmp_path: Path, clip: Clip) -> None:
    labels = np.array([{"marker": 1}, None], dtype=object)
    assert load_clip(write_amass(tmp_path / "a_stageii.npz", clip, latent_labels=labels)).num_instants == 6


def test_huge_arrays_are_not_unpacked(tmp_path: Path, clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_amass(tmp_path / "a_poses.npz", clip)
    monkeypatch.setattr("synthetic.motion.amass.MAX_MEMBER_BYTES", 1000)
    with pytest.raises(SyntheticError, match="poses has more than 1000 bytes"):
        load_clip(path)


def test_a_floor_at_any_height_is_found(body: BodyModel, tmp_path: Path) -> None:
    frames = standing(40)
    frames[:, 2] += 0.4  # over the file's zero
    frames[20:24, 2] += 0.5  # and a jump
    clip = load_clip(write_clip(tmp_path, "hop", frames))
    read = load_clip(write_amass(tmp_path / "a_poses.npz", clip, fps=30.0))
    verts, _ = body.pose(read.pose_TJ3[[0, 22]], np.zeros(10), read.trans_T3[[0, 22]])
    assert verts[:, body.skin_vertices, 1].min(axis=1) == pytest.approx([0.0, 0.5], abs=0.03)


def test_a_folder_as_it_is_unpacked(tmp_path: Path, clip: Clip, caplog: pytest.LogCaptureFixture) -> None:
    """Nested twice, names of before and of now, shapes among the motions."""
    for place in (
        "ACCAD/ACCAD/Female1Walking_c3d/B1 - stand to walk_poses.npz",
        "MPI_HDM05/bk/HDM_bk_01_poses.npz",
        "CMU/01/01_01_stageii.npz",
    ):
        write_amass(tmp_path / place, clip)
    for place in ("ACCAD/ACCAD/Female1Walking_c3d/shape.npz", "CMU/01/female_stagei.npz"):
        np.savez(tmp_path / place, betas=np.zeros(16))
    (tmp_path / "ACCAD/ACCAD/LICENSE.txt").touch()
    with caplog.at_level(logging.INFO):
        found = find_clips(tmp_path)
    assert list(found) == ["ACCAD/Female1Walking_c3d/B1 - stand to walk", "CMU/01/01_01", "HDM05/bk/HDM_bk_01"]
    assert caplog.text.count("passed over, it holds a person's shape and no motion") == 2
    assert all(load_clip(path, name=name).licence == LICENCE for name, path in found.items())
    with pytest.raises(SyntheticError, match=r"(?s)a person's shape and no motion.*give \*_poses.npz"):
        read_amass(tmp_path / "CMU/01/female_stagei.npz", name="x")


def test_old_and_new_names_of_a_subset_are_one(tmp_path: Path, clip: Clip) -> None:
    for number, (old, new) in enumerate(RENAMED.items()):
        write_amass(tmp_path / str(number) / old / "a_poses.npz", clip)
        assert list(find_clips(tmp_path / str(number))) == [f"{new}/a"]


def test_both_releases_in_one_folder_are_refused(tmp_path: Path, clip: Clip) -> None:
    for name in RELEASES:
        write_amass(tmp_path / "CMU" / name, clip)
    with pytest.raises(SyntheticError, match=r"(?s)two motion clips are called CMU/walk.*the two releases of AMASS"):
        find_clips(tmp_path)
