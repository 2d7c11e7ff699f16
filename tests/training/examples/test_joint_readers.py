"""Human3.6M, MPI-INF-3DHP, MPII and HanCo: joints in the camera, squares, splits, and what is wrong on disk."""

import json
import shutil

import h5py
import numpy as np
import pytest
from cdflib.cdfwrite import CDF
from PIL import Image
from scipy.io import savemat

from manifests.errors import SourceError
from manifests.geometry import project
from manifests.splits import split_of
from manifests.types import Reason, Split
from tests.support import hanco_fixture
from training.examples import mpi_inf_3dhp as threedhp
from training.examples.hanco import PARTNERS, hanco
from training.examples.human36m import EVERY, JOINTS, VAL_SHARE, human36m
from training.examples.mpi_inf_3dhp import mpi_inf_3dhp
from training.examples.mpii import mpii

CAMERAS = ("54138969", "60457274")


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((60, 80, 3), value, np.uint8)).save(path)


def write_cdf(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    file = CDF(str(path), cdf_spec={"Compressed": 0}, delete=True)
    file.write_var(
        {
            "Variable": "Pose",
            "Data_Type": 45,
            "Num_Elements": 1,
            "Rec_Vary": True,
            "Dim_Sizes": list(array.shape),
        },
        var_data=array[None],
    )
    file.close()


def action_of(split):
    names = (f"Walking {number}" for number in range(1, 10))
    return next(name for name in names if split_of(f"S1 {name}", seed=0, val_share=VAL_SHARE) is split)


def write_human36m(home, num_frames=11, seed=0):
    """Two subjects, two cameras; names with spaces, `_ALL` beside them."""
    rng = np.random.default_rng(seed)
    space, flat = rng.uniform(500, 4000, (num_frames, 96)), rng.uniform(0, 60, (num_frames, 64))
    for subject, actions in (("S1", [action_of(Split.TRAIN)]), ("S9", ["Directions 1", "Directions"])):
        for action in actions:
            for camera in CAMERAS:
                for folder, poses in (("Poses_D3_Positions_mono", space), ("Poses_D2_Positions", flat)):
                    write_cdf(home / subject / folder / f"{action}.{camera}.cdf", poses)
                name = f"{subject}_{action}.{camera}".replace(" ", "_")
                for frame in range(num_frames - 1):
                    picture(home / subject / "images" / name / f"{name}_{frame + 1:06d}.jpg", frame)
        write_cdf(home / subject / "Poses_D3_Positions_mono" / f"_ALL.{CAMERAS[0]}.cdf", space)
    return space, flat


class TestHuman36m:
    def test_joints_of_each_frame(self, tmp_path):
        space, flat = write_human36m(tmp_path / "extracted")
        examples = human36m(tmp_path, split="train")
        assert len(examples) == 2 * 2, "of frames 0, 5 and 10 the last one has no picture"
        for one in examples:
            frame = int(one.key[-6:])
            assert frame % EVERY == 0
            assert (one.rgb_HW3 == frame).all(), "pictures count from 1, poses from 0"
            assert np.allclose(one.labels["joints_m"], space[frame].reshape(32, 3)[list(JOINTS)] / 1000, atol=1e-5)
            assert np.allclose(one.labels["keypoints_px"][:, :2], flat[frame].reshape(32, 2)[list(JOINTS)], atol=1e-4)
        assert {(reject.reason, reject.count) for reject in examples.about.rejects} == {(Reason.MISSING, 1)}

    def test_protocols(self, tmp_path):
        write_human36m(tmp_path)
        front, every = (human36m(tmp_path, split="test", protocol=protocol) for protocol in ("P2", "P1"))
        assert len(every) == 2 * len(front) == 8
        assert all(CAMERAS[1] in key for key in sorted(front.keys()))
        assert set(every.subjects()) == {"S9"}

    def test_names_of_the_archives(self, tmp_path):
        write_human36m(tmp_path)
        for subject in ("S1", "S9"):
            (tmp_path / subject / "MyPoseFeatures").mkdir()
            for name in ("D3_Positions_mono", "D2_Positions"):
                (tmp_path / subject / f"Poses_{name}").rename(tmp_path / subject / "MyPoseFeatures" / name)
        assert len(human36m(tmp_path, split="train")) == 4

    def test_what_is_missing_is_told(self, tmp_path):
        with pytest.raises(SourceError, match="no subject of the train split"):
            human36m(tmp_path, split="train")
        (tmp_path / "S1").mkdir()
        with pytest.raises(SourceError, match="no Poses_D3_Positions_mono/"):
            human36m(tmp_path, split="train")
        write_human36m(tmp_path, num_frames=1)
        with pytest.raises(SourceError, match=r"none of the pictures(.|\n)*ffmpeg"):
            human36m(tmp_path, split="train")

    def test_damage_is_told(self, tmp_path):
        write_human36m(tmp_path)
        path = next((tmp_path / "S9" / "Poses_D2_Positions").glob("*60457274.cdf"))
        path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(SourceError, match="no Pose of 32 joints"):
            human36m(tmp_path, split="test")


def write_3dhp(root, num_frames=7):
    """Two sequences, one of them held out, three cameras with pictures; one valid and one invalid frame of the test set."""
    rng = np.random.default_rng(1)
    told = {}
    for place in ("S1/Seq1", "S8/Seq2"):
        cells = {name: np.empty((14, 1), object) for name in ("annot2", "annot3")}
        for camera in range(14):
            for name, axes in (("annot2", 2), ("annot3", 3)):
                cells[name][camera, 0] = rng.uniform(1, 50, (num_frames, 28 * axes))
        (root / place).mkdir(parents=True)
        savemat(root / place / "annot.mat", cells)
        told[place] = cells
        for camera in (0, 3, 8):
            for frame in range(num_frames):
                name = f"frame_{frame + 1:06d}.jpg" if camera else f"{frame + 1:06d}.jpg"
                picture(root / place / "imageFrames" / f"video_{camera}" / name, frame)
    home = root / "mpi_inf_3dhp_test_set" / "TS1"
    home.mkdir(parents=True)
    told["TS1"] = {"annot2": rng.uniform(1, 50, (3, 1, 17, 2)), "annot3": rng.uniform(1, 50, (3, 1, 17, 3))}
    with h5py.File(home / "annot_data.mat", "w", userblock_size=512) as file:
        for name, value in (told["TS1"] | {"valid_frame": np.array([[1.0], [0.0], [1.0]])}).items():
            file[name] = value.T  # HDF5 keeps MATLAB's arrays with their axes the other way round
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    for frame in range(2):
        picture(home / "imageSequence" / f"img_{frame + 1:06d}.jpg", frame)
    return told


class TestMpiInf3dhp:
    def test_training_cameras(self, tmp_path):
        told = write_3dhp(tmp_path)
        examples = mpi_inf_3dhp(tmp_path, split="train", every=3)
        assert {key.split("/")[2] for key in sorted(examples.keys())} == {"video_0", "video_8"}, (
            "camera 3 hangs from the ceiling"
        )
        assert len(examples) == 2 * 3
        for one in examples:
            _, place, video, frame = one.key.split("/")
            assert place == "S1_Seq1"
            row = told["S1/Seq1"]["annot3"][int(video[6:]), 0][int(frame)].reshape(28, 3)
            assert np.allclose(one.labels["joints_m"], row[list(threedhp.JOINTS)] / 1000, atol=1e-6)
            assert (one.rgb_HW3 == int(frame)).all()
        lost = sum(reject.count for reject in examples.about.rejects if reject.reason is Reason.MISSING)
        assert lost == 6 * 3, "six cameras have no pictures"

    def test_validation_is_a_person_of_its_own(self, tmp_path):
        write_3dhp(tmp_path)
        assert set(mpi_inf_3dhp(tmp_path, split="val").subjects()) == {"S8"}

    def test_only_valid_frames_are_scored(self, tmp_path):
        told = write_3dhp(tmp_path)
        examples = mpi_inf_3dhp(tmp_path, split="test")
        assert examples.keys() == ["mpi_inf_3dhp/TS1/000000"]
        assert np.allclose(examples[0].labels["joints_m"], told["TS1"]["annot3"][0, 0] / 1000, atol=1e-6)
        assert {(reject.reason, reject.count) for reject in examples.about.rejects} == {
            (Reason.UNLABELLED, 1),
            (Reason.MISSING, 1),
        }

    def test_what_is_missing_is_told(self, tmp_path):
        for split, what in (("train", "no S1/Seq1/annot"), ("test", "no mpi_inf_3dhp_test_set/TS1")):
            with pytest.raises(SourceError, match=what):
                mpi_inf_3dhp(tmp_path, split=split)
        (tmp_path / "S1" / "Seq1").mkdir(parents=True)
        savemat(tmp_path / "S1/Seq1/annot.mat", {"annot2": np.zeros((2, 3)), "annot3": np.zeros((2, 3))})
        with pytest.raises(SourceError, match="no joints of camera 0"):
            mpi_inf_3dhp(tmp_path, split="train")


def struct(**fields):
    """A MATLAB struct of one element."""
    array = np.empty((1, 1), dtype=[(name, object) for name in fields])
    for name, value in fields.items():
        array[name][0, 0] = value
    return array


def structs(*elements):
    array = np.empty((1, len(elements)), dtype=elements[0].dtype)
    for index, element in enumerate(elements):
        array[0, index] = element[0, 0]
    return array


def mpii_rect(points, scale=0.2):
    point = structs(*(struct(id=float(number), x=float(x), y=float(y), is_visible=1.0) for number, x, y in points))
    return struct(scale=scale, objpos=struct(x=41.0, y=31.0), annopoints=struct(point=point))


def write_mpii(root, rects, *, train=1.0, names=("000001.jpg",)):
    pictures = structs(*(struct(image=struct(name=name), annorect=rects) for name in names))
    path = root / "mpii_human_pose_v1_u12_2" / "mpii_human_pose_v1_u12_1.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"RELEASE": struct(annolist=pictures, img_train=np.full((1, len(names)), train))})
    for name in names:
        picture(root / "images" / name)
    return path


def mpii_name(split):
    return next(name for name in (f"{n:09d}.jpg" for n in range(99)) if split_of(name, seed=0, val_share=0.1) is split)


class TestMpii:
    def test_pixels_count_from_0(self, tmp_path):
        name = mpii_name(Split.TRAIN)
        write_mpii(tmp_path, mpii_rect([(0, 11.0, 21.0), (15, 3.5, 4.0)]), names=(name,))
        (one,) = mpii(tmp_path, split="train")
        keypoints = one.labels["keypoints_px"]
        assert keypoints[0].tolist() == [10, 20, 1]
        assert keypoints[15].tolist() == [2.5, 3, 1]
        assert keypoints[:, 2].sum() == 2
        assert one.square_xyxy_px.tolist() == [40 - 25, 30 + 3 - 25, 40 + 25, 30 + 3 + 25]

    def test_people_without_joints_are_counted(self, tmp_path):
        name = mpii_name(Split.TRAIN)
        good = mpii_rect([(0, 11.0, 21.0)])
        bare = good.copy()
        bare["annopoints"][0, 0] = np.zeros((0, 0))
        odd = mpii_rect([(16, 1.0, 1.0)])
        write_mpii(tmp_path, structs(good, bare, odd), names=(name,))
        examples = mpii(tmp_path, split="train")
        assert examples.keys() == [f"mpii/{name[:-4]}/00"]
        assert [(reject.reason, reject.count) for reject in examples.about.rejects] == [(Reason.UNLABELLED, 2)]

    def test_splits(self, tmp_path):
        names = (mpii_name(Split.TRAIN), mpii_name(Split.VAL))
        write_mpii(tmp_path, mpii_rect([(0, 11.0, 21.0)]), names=names)
        found = [mpii(tmp_path, split=split).keys() for split in ("train", "val")]
        assert found == [[f"mpii/{name[:-4]}/00"] for name in names]

    def test_the_test_set_is_not_read(self, tmp_path):
        write_mpii(tmp_path, mpii_rect([(0, 11.0, 21.0)]), train=0.0)
        with pytest.raises(SourceError, match="no person with joints"):
            mpii(tmp_path, split="train")

    def test_what_is_missing_is_told(self, tmp_path):
        with pytest.raises(SourceError, match=r"mpii_human_pose_v1_u12_1\.mat is here"):
            mpii(tmp_path, split="train")
        path = write_mpii(tmp_path, mpii_rect([(0, 11.0, 21.0)]))
        savemat(path, {"RELEASE": struct(annolist=np.zeros(3), img_train=np.zeros(2))})
        with pytest.raises(SourceError, match="no RELEASE of MPII"):
            mpii(tmp_path, split="train")


@pytest.fixture(scope="module")
def hanco_root(tmp_path_factory):
    home = hanco_fixture.write_hanco(tmp_path_factory.mktemp("data") / "HanCo", faults=False).home
    for sequence in (hanco_fixture.TRAIN, hanco_fixture.EVALUATION):
        for path in sorted((home / "calib" / sequence).glob("*.json")):
            hand = hanco_fixture.figure_of(sequence, int(path.stem))
            target = home / "xyz" / sequence / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(hand.hand21().tolist()))
    return home


class TestHanco:
    def split_of_train(self, root):
        for split in ("train", "val"):
            try:
                return hanco(root, split=split)
            except SourceError:
                continue
        return pytest.fail("the sequence is in neither split")

    def test_joints_lie_where_the_picture_shows_them(self, hanco_root):
        one = self.split_of_train(hanco_root)[0]
        _, sequence, frame, camera = one.key.split("/")
        lens = hanco_fixture.lens_of(int(camera[3:]), int(frame))
        expected = lens.pixels(hanco_fixture.figure_of(sequence, int(frame)).hand21())
        found, _ = project(one.labels["joints_m"], one.labels["intrinsics"], np.eye(4))
        assert np.allclose(found, expected, atol=0.01)
        assert np.allclose(one.labels["keypoints_px"][:, :2], expected, atol=0.01)

    def test_the_second_picture_is_of_a_partner_at_the_same_instant(self, hanco_root):
        examples = self.split_of_train(hanco_root)
        by_key = {one.key: one for one in examples}
        chosen = set()
        for one in examples:
            head, camera = one.key.rsplit("/cam", 1)
            partners = [f"{head}/cam{other}" for other in PARTNERS[int(camera)]]
            same = [key for key in partners if np.array_equal(by_key[key].rgb_HW3, one.second_HW3)]
            assert len(same) == 1
            chosen.add(PARTNERS[int(camera)].index(int(same[0][-1])))
        assert len(chosen) > 1, "it is not always the first partner"

    def test_sequences_of_the_evaluation_are_the_test_set(self, hanco_root):
        assert {key.split("/")[1] for key in sorted(hanco(hanco_root, split="test").keys())} == {
            hanco_fixture.EVALUATION
        }
        assert {key.split("/")[1] for key in sorted(self.split_of_train(hanco_root).keys())} == {hanco_fixture.TRAIN}

    def test_mano_where_it_is(self, hanco_root, tmp_path):
        root = tmp_path / "HanCo"
        shutil.copytree(hanco_root, root)
        shutil.rmtree(root / "shape")
        examples = hanco(root, split="test")
        assert "pose" not in examples.about.labels
        for key in sorted(examples.keys()):
            _, sequence, frame, camera = key.split("/")
            path = root / "shape" / sequence / camera / f"{frame}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps([list(np.arange(61) / 10)]))
        told = hanco(root, split="test")
        assert "pose" in told.about.labels
        assert np.allclose(told[0].labels["pose"].ravel(), np.arange(48) / 10)
        assert np.allclose(told[0].labels["betas"], np.arange(48, 58) / 10)

    def test_what_is_missing_is_told(self, tmp_path):
        with pytest.raises(SourceError, match=r"meta\.json(.|\n)*Camera Calibration and Meta Information"):
            hanco(tmp_path, split="train")
        (tmp_path / "meta.json").write_text('{"is_train": []}')
        with pytest.raises(SourceError, match="no hand of the train split"):
            hanco(tmp_path, split="train")
