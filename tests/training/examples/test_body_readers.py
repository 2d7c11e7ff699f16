"""EFT, 3DPW, FreiHAND and DensePose-COCO: labels in the camera, squares, splits, and what is wrong on disk."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from manifests.errors import SourceError
from manifests.geometry import project
from manifests.types import Reason
from tests.support import threedpw_fixture as pw
from tests.support.freihand_fixture import NUM_UNIQUE, write_freihand
from training.examples.coco_eft import coco_eft
from training.examples.densepose_coco import LATTICE, decode_runs, densepose_coco
from training.examples.freihand import freihand
from training.examples.threedpw import MARGIN, threedpw


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(path)


def eft_entry(name, seed=0, **changes):
    rng = np.random.default_rng(seed)
    return {
        "parm_pose": Rotation.random(24, rng=rng).as_matrix().tolist(),
        "parm_shape": rng.normal(size=10).tolist(),
        "parm_cam": [0.9, 0.0, 0.1],
        "bbox_scale": 0.2,
        "bbox_center": [40.0, 30.0],
        "gt_keypoint_2d": rng.uniform(size=(49, 3)).tolist(),
        "smpltype": "smpl",
        "annotId": 1,
        "imageName": name,
    } | changes


@pytest.fixture
def eft(tmp_path):
    """Forty pictures of 2014, one of 2017 only, one that is missing."""
    names = [f"COCO_train2014_{number:012d}.jpg" for number in range(42)]
    entries = [eft_entry(name, seed) for seed, name in enumerate(names)]
    for name in names[:40]:
        picture(tmp_path / "train2014" / name)
    picture(tmp_path / "val2017" / "000000000040.jpg")
    (tmp_path / "eft_fit").mkdir()
    (tmp_path / "eft_fit" / "COCO2014-Part-ver01.json").write_text(json.dumps({"ver": 0.1, "data": entries}))
    return tmp_path, entries


class TestEft:
    def test_labels(self, eft):
        root, entries = eft
        examples = coco_eft(root, split="train")
        one = examples[0]
        told = entries[int(one.key.rsplit("/")[-1])]
        assert np.allclose(Rotation.from_rotvec(one.labels["pose"]).as_matrix(), told["parm_pose"], atol=1e-6)
        assert np.allclose(one.labels["betas"], told["parm_shape"])
        assert np.allclose(one.labels["keypoints_px"], told["gt_keypoint_2d"])
        assert one.square_xyxy_px.tolist() == [20, 10, 60, 50]
        assert examples.about.keypoint_set == "spin49"

    def test_folders_of_2017_serve_too(self, eft):
        keys = [*coco_eft(eft[0], split="train").keys(), *coco_eft(eft[0], split="val").keys()]
        assert "COCO2014-Part-ver01/000040" in keys

    def test_splits_part_pictures(self, eft):
        train, val = (coco_eft(eft[0], split=split).keys() for split in ("train", "val"))
        assert not set(train) & set(val)
        assert len(train) + len(val) == 41
        assert 0 < len(val) < 10

    def test_missing_pictures_are_counted(self, eft):
        rejects = [reject for split in ("train", "val") for reject in coco_eft(eft[0], split=split).about.rejects]
        assert [(reject.reason, reject.count) for reject in rejects] == [(Reason.MISSING, 1)]

    @pytest.mark.parametrize(
        "changes",
        [
            {"parm_pose": np.full((24, 3, 3), 0.3).tolist()},
            {"parm_pose": (-np.tile(np.eye(3), (24, 1, 1))).tolist()},
            {"parm_shape": [0.0] * 9},
            {"bbox_scale": 0},
            {"bbox_center": [float("nan"), 1]},
            {"imageName": 7},
        ],
    )
    def test_bad_entries_are_rejects(self, eft, changes):
        root, entries = eft
        path = root / "eft_fit" / "COCO2014-Part-ver01.json"
        path.write_text(json.dumps({"data": [*entries[:40], entries[0] | changes, "nonsense", {}]}))
        rejects = coco_eft(root, split="train").about.rejects
        assert [(reject.key[-2:], reject.reason) for reject in rejects] == [
            (number, Reason.BAD_LABEL) for number in ("40", "41", "42")
        ]

    def test_names_with_folders_are_no_pictures(self, eft):
        root, entries = eft
        path = root / "eft_fit" / "COCO2014-Part-ver01.json"
        picture(root / "secret.jpg")
        path.write_text(json.dumps({"data": [*entries[:40], eft_entry("../secret.jpg")]}))
        told = [coco_eft(root, split=split) for split in ("train", "val")]
        assert sum(map(len, told)) == 40

    def test_an_entry_without_keypoints(self, eft):
        root, entries = eft
        bare = {name: value for name, value in entries[0].items() if name != "gt_keypoint_2d"}
        (root / "own.json").write_text(json.dumps({"data": [bare] * 1}))
        for split in ("train", "val"):
            try:
                (one,) = coco_eft(root, split=split, file="own.json")
            except SourceError:
                continue
            assert not one.labels["keypoints_px"].any()
            return
        pytest.fail("the entry is in neither split")

    def test_what_is_missing_is_told(self, tmp_path):
        with pytest.raises(SourceError, match="no such file"):
            coco_eft(tmp_path, split="train")
        (tmp_path / "own.json").write_text(json.dumps({"data": [eft_entry(f"{n}.jpg") for n in range(9)]}))
        with pytest.raises(SourceError, match=r"none of \d pictures was found"):
            coco_eft(tmp_path, split="train", file="own.json")


@pytest.fixture(scope="module")
def threedpw_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "3DPW"
    pw.write_threedpw(root)
    return root


class TestThreedpw:
    def test_people_of_valid_frames(self, threedpw_root):
        examples = threedpw(threedpw_root, split="test")
        frames = {(key.split("/")[2], int(key.split("/")[3])) for key in sorted(examples.keys())}
        everyone = {(f"p{person}", frame) for person in (0, 1) for frame in range(pw.NUM_FRAMES)}
        unseen = {(f"p{person}", frame) for person, frame in (pw.NO_CAMERA, pw.NO_KEYPOINTS, pw.NOTHING)}
        assert frames == everyone - unseen
        assert examples.keys() == sorted(examples.keys())
        told = {(reject.key, reject.reason): reject.count for reject in examples.about.rejects}
        assert told == {
            ("3dpw/downtown_walking_00/p0", Reason.UNLABELLED): 1,
            ("3dpw/downtown_walking_00/p1", Reason.UNLABELLED): 1,
            ("3dpw/downtown_walking_00/p1", Reason.HIDDEN): 1,
        }

    def test_joints_lie_where_the_picture_shows_them(self, threedpw_root):
        one = threedpw(threedpw_root, split="train")[0]
        figure = pw.figures_of("courtyard_arguing_00", 0)[0]
        expected = pw.lens_of("courtyard_arguing_00", 0).pixels(figure.joints(pw.SMPL24))
        found, _ = project(one.labels["joints_m"], one.labels["intrinsics"], np.eye(4))
        assert np.allclose(found, expected, atol=0.05)

    def test_the_root_turns_into_the_camera(self, threedpw_root):
        one = threedpw(threedpw_root, split="train")[0]
        camera = pw.labels_of("courtyard_arguing_00")["cam_poses"][0]
        assert np.allclose(Rotation.from_rotvec(one.labels["pose"][0]).as_matrix(), camera[:3, :3], atol=1e-6)
        assert one.labels["gender"] == "male"
        assert one.labels["betas"].shape == (10,)

    def test_the_square(self, threedpw_root):
        one = threedpw(threedpw_root, split="train")[0]
        xyc = one.labels["keypoints_px"]
        seen = xyc[xyc[:, 2] > 0, :2]
        side = one.square_xyxy_px[2:] - one.square_xyxy_px[:2]
        assert np.allclose(side, MARGIN * np.ptp(seen, axis=0).max(), rtol=1e-5)

    def test_a_neighbour_in_time(self, threedpw_root):
        by_key = {one.key: one for one in threedpw(threedpw_root, split="train", neighbour=3)}
        first, third, last = (by_key[f"3dpw/courtyard_arguing_00/p0/0000{frame}"] for frame in (0, 3, 5))
        assert np.array_equal(first.second_HW3, third.rgb_HW3)
        assert np.array_equal(first.second_square_xyxy_px, third.square_xyxy_px)
        assert np.array_equal(third.second_HW3, first.rgb_HW3), "near the end it is an earlier one"
        assert last.second_HW3 is None, "its neighbour has no camera"
        assert threedpw(threedpw_root, split="train")[0].second_HW3 is None

    def test_lost_pictures_are_counted(self, tmp_path):
        root = tmp_path / "3DPW"
        pw.write_threedpw(root)
        (root / "imageFiles" / "downtown_walking_00" / "image_00000.jpg").unlink()
        rejects = threedpw(root, split="test").about.rejects
        assert {(reject.key[-2:], reject.count) for reject in rejects if reject.reason is Reason.MISSING} == {
            ("p0", 1),
            ("p1", 1),
        }

    def test_what_is_missing_is_told(self, tmp_path):
        with pytest.raises(SourceError, match="no sequenceFiles/"):
            threedpw(tmp_path, split="test")
        root = tmp_path / "3DPW"
        pw.write_threedpw(root)
        pw.write_labels(root, "downtown_walking_00", {"poses2d": [], "cam_poses": []})
        with pytest.raises(SourceError, match="no sequence of 3DPW"):
            threedpw(root, split="test")

    def test_val_is_taken_for_validation(self, tmp_path):
        root = tmp_path / "3DPW"
        pw.write_threedpw(root)
        (root / "sequenceFiles" / "validation").rename(root / "sequenceFiles" / "val")
        assert len(threedpw(root, split="val")) > 0


@pytest.fixture
def freihand_root(tmp_path):
    root = write_freihand(tmp_path / "FreiHAND")
    for name in ("xyz", "verts", "mano"):
        (root / f"evaluation_{name}.json").write_bytes((root / f"training_{name}.json").read_bytes())
    mano = np.arange(NUM_UNIQUE * 61, dtype=float).reshape(NUM_UNIQUE, 1, 61) / 100
    (root / "training_mano.json").write_text(json.dumps(mano.tolist()))
    return root


class TestFreihand:
    def test_four_backgrounds_of_each(self, freihand_root):
        train, val = (freihand(freihand_root, split=split) for split in ("train", "val"))
        assert train.keys() == [f"freihand/training/{number:08d}" for number in (0, 2, 4, 6)]
        assert val.keys() == [f"freihand/training/{number:08d}" for number in (1, 3, 5, 7)]
        assert np.array_equal(train[0].labels["pose"], train[3].labels["pose"])

    def test_mano(self, freihand_root):
        labels = freihand(freihand_root, split="train")[0].labels
        assert np.allclose(labels["pose"].ravel(), np.arange(48) / 100)
        assert np.allclose(labels["betas"], np.arange(48, 58) / 100)

    def test_keypoints_are_the_projected_joints(self, freihand_root):
        labels = freihand(freihand_root, split="train")[0].labels
        expected, _ = project(labels["joints_m"], labels["intrinsics"], np.eye(4))
        assert np.allclose(labels["keypoints_px"][:, :2], expected, atol=1e-3)
        assert (labels["keypoints_px"][:, 2] == 1).all()

    def test_evaluation(self, freihand_root):
        test = freihand(freihand_root, split="test")
        assert len(test) == NUM_UNIQUE
        assert test[0].labels["verts_m"].shape == (778, 3)

    def test_evaluation_without_its_labels_is_told(self, tmp_path):
        with pytest.raises(SourceError, match=r"cannot be read(.|\n)*download of their own"):
            freihand(write_freihand(tmp_path / "FreiHAND"), split="test")

    def test_the_evaluation_given_for_the_whole_is_told(self, tmp_path):
        root = write_freihand(tmp_path / "FreiHAND", training=False)
        with pytest.raises(SourceError, match=r"training/rgb/ holds no picture(.|\n)*FreiHAND_pub_v2"):
            freihand(root, split="train")

    @pytest.mark.parametrize("text", ["[", "{}", "[[1, 2], [3, 4]]", "[]"])
    def test_a_damaged_list_is_told(self, freihand_root, text):
        (freihand_root / "training_xyz.json").write_text(text)
        with pytest.raises(SourceError, match=r"training_xyz\.json"):
            freihand(freihand_root, split="train")

    def test_lists_of_another_length_are_told(self, freihand_root):
        xyz = json.loads((freihand_root / "training_xyz.json").read_text())
        (freihand_root / "training_xyz.json").write_text(json.dumps(xyz[:1]))
        with pytest.raises(SourceError, match="do not fit"):
            freihand(freihand_root, split="train")


def runs_of(mask):
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, len(flat)]).tolist()
    return [0, *runs] if flat[0] else runs


def packed(runs):
    """COCO's text of runs, written from the description of its code: the slow way."""
    text = ""
    for index, run in enumerate(runs):
        value = run - (runs[index - 2] if index > 2 else 0)
        while True:
            letter, value = value & 31, value >> 5
            done = value == (-1 if letter & 16 else 0)
            text += chr(48 + letter + (0 if done else 32))
            if done:
                break
    return text


class TestRuns:
    @pytest.mark.parametrize("seed", range(4))
    def test_plain_and_packed(self, seed):
        rng = np.random.default_rng(seed)
        mask = np.zeros((256, 256), bool)
        for _ in range(5):
            y, x = rng.integers(0, 200, 2)
            mask[y : y + rng.integers(1, 56), x : x + rng.integers(1, 56)] = True
        mask[0, 0] = bool(seed % 2)
        runs = runs_of(mask)
        assert np.array_equal(decode_runs({"size": [256, 256], "counts": runs}), mask)
        assert np.array_equal(decode_runs({"size": [256, 256], "counts": packed(runs)}), mask)

    @pytest.mark.parametrize("counts", [[1], [-1, 256 * 256 + 1], "PPPPPPPPP", "~", "P" * 40, ""])
    def test_damage(self, counts):
        with pytest.raises(ValueError, match="mask"):
            decode_runs({"size": [256, 256], "counts": counts})


def dp_entry(number, image=9, **changes):
    mask = np.zeros((256, 256), bool)
    mask[:, :128] = True
    points = {"dp_x": [0.0, 255.0], "dp_y": [0.0, 127.5], "dp_I": [1.0, 24.0], "dp_U": [0.0, 1.0], "dp_V": [0.5, 0.25]}
    masks = [{"size": [256, 256], "counts": packed(runs_of(mask))}, *[[]] * 13]
    return {"id": number, "image_id": image, "bbox": [10.0, 5.0, 40.0, 50.0], "dp_masks": masks} | points | changes


@pytest.fixture
def densepose(tmp_path):
    def write(annotations):
        (tmp_path / "annotations").mkdir(exist_ok=True)
        images = [{"id": 9, "file_name": "COCO_val2014_000000000009.jpg"}, {"id": 8, "file_name": "COCO_val2014_8.jpg"}]
        told = {"info": {}, "images": images, "annotations": annotations}
        (tmp_path / "annotations" / "densepose_coco_2014_minival.json").write_text(json.dumps(told))
        return tmp_path

    picture(tmp_path / "val2014" / "COCO_val2014_000000000009.jpg")
    return write


class TestDensepose:
    def test_points(self, densepose):
        (one,) = densepose_coco(densepose([dp_entry(1)]), split="test")
        surface = one.labels["surface"]
        assert np.allclose(surface[:2], [[9.5, 4.5, 1, 0, 0.5], [49.5, 29.5, 24, 1, 0.25]])

    def test_background_is_where_no_mask_is(self, densepose):
        (one,) = densepose_coco(densepose([dp_entry(1)]), split="test")
        off = one.labels["surface"][2:]
        assert len(off) == LATTICE**2 / 2
        assert (off[:, 2:] == 0).all()
        assert off[:, 0].min() > 10 - 0.5 + 20

    def test_without_masks_there_is_no_background(self, densepose):
        (one,) = densepose_coco(densepose([dp_entry(1, dp_masks=[[]] * 14)]), split="test")
        assert len(one.labels["surface"]) == 2
        assert "coarse" not in one.labels

    def test_coarse_parts(self, densepose):
        left, all_of_it = np.zeros((2, 256, 256), bool)
        left[:, :128], all_of_it[:] = True, True
        masks = [[], *({"size": [256, 256], "counts": runs_of(mask)} for mask in (left, all_of_it)), *[[]] * 11]
        (one,) = densepose_coco(densepose([dp_entry(1, dp_masks=masks)]), split="test")
        assert (one.labels["coarse"][:, :128] == 2).all()
        assert (one.labels["coarse"][:, 128:] == 3).all(), "a later mask does not overwrite an earlier one"
        assert one.labels["coarse_box_xyxy_px"].tolist() == [9.5, 4.5, 49.5, 54.5]

    def test_left_out(self, densepose):
        bad = [
            dp_entry(2, dp_I=[1, 25]), dp_entry(3, dp_U=[0.0, 1.5]), dp_entry(4, bbox=[0, 0, 0, 5]), dp_entry(5, dp_x=[1.0]),
            dp_entry(6, dp_masks=[{"size": [2, 2], "counts": [4]}]),
        ]  # fmt: skip
        bare = {"id": 7, "image_id": 9, "bbox": [0, 0, 1, 1]}
        examples = densepose_coco(densepose([dp_entry(1), dp_entry(1), *bad, bare, dp_entry(8, image=8)]), split="test")
        assert len(examples) == 1
        told = sorted((reject.reason.value, reject.count) for reject in examples.about.rejects)
        assert told == sorted([("twice", 1), *[("bad_label", 1)] * 5, ("unlabelled", 1), ("missing", 1)])

    def test_what_is_missing_is_told(self, densepose, tmp_path):
        with pytest.raises(SourceError, match=r"densepose_coco_2014_minival.json or densepose_minival2014.json"):
            densepose_coco(tmp_path, split="test")
        with pytest.raises(SourceError, match="no point on a picture"):
            densepose_coco(densepose([dp_entry(1, image=8)]), split="test")
