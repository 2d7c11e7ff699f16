"""SMPLMarket: its layout and defects, its splits, and whether what is drawn of a body is where the body is."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from manifests.errors import SourceError, TrainingError
from manifests.types import Reason, Split
from tests.support.smpl_market_fixture import people, texture_of, uv_of_vertices, write_lists, write_smpl_market
from training.examples.base import LABELS
from training.examples.smpl_market import FOCAL, SIZE_PX, smpl_market, uv_of_body
from training.tasks.atlas import read_charts
from training.tasks.datasets import open_examples
from training.tasks.raster import draw_faces
from training.tasks.recipes import Data


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return write_smpl_market(tmp_path_factory.mktemp("market") / "SMPLMarket")


def pixels(verts):
    """(X, 2) where vertices are seen."""
    height, width = SIZE_PX
    return FOCAL * height * verts[:, :2] / verts[:, 2:] + ((width - 1) / 2, (height - 1) / 2)


def test_an_example_is_a_photo_its_body_and_another_photo_of_the_same_person(market):
    examples = open_examples(Data(kind="smpl_market", root=str(market.root)))
    assert {"uv", "second_uv"} == set(examples.about.labels) <= set(LABELS)
    assert set(examples.subjects()) == {str(int(name)) for name in people(Split.TRAIN, 3)}
    assert len(examples) == 9
    for index in range(len(examples)):
        example = examples[index]
        assert example.key.startswith("smpl_market/bounding_box_train/")
        picture = f"{example.key.removeprefix('smpl_market/')}.jpg"
        assert example.rgb_HW3.shape == (*SIZE_PX, 3)
        np.testing.assert_array_equal(example.square_xyxy_px, [-32.5, -0.5, 95.5, 127.5])
        np.testing.assert_array_equal(
            example.labels["uv"], uv_of_body(read_charts(market.root / "smpl_uv.obj"), market.verts[picture])
        )
        assert example.second_HW3.shape == (*SIZE_PX, 3)
        assert not np.array_equal(example.rgb_HW3, example.second_HW3)
        # Both photos wear the texture of the person, at the coordinates that are told.
        texture = texture_of(f"{int(example.subject):04d}").astype(float)
        for rgb, uv in ((example.rgb_HW3, example.labels["uv"]), (example.second_HW3, example.labels["second_uv"])):
            on = uv[..., 0] >= 0
            assert 2000 < on.sum() < 5000
            row, column = ((1 - uv[on, 1]) * 64).astype(int), (uv[on, 0] * 64).astype(int)
            assert np.median(np.abs(rgb[on] - texture[row.clip(0, 63), column.clip(0, 63)])) < 4


def test_vertices_are_seen_at_their_pixels_with_their_own_coordinates_and_hidden_ones_are_not(market):
    """A pixel whose centre is a vertex shows one of the vertex' own two pairs, whichever side of the seam the nearest face is of."""
    charts = read_charts(market.root / "smpl_uv.obj")
    own_2X2 = uv_of_vertices(market.arrays)
    rng = np.random.default_rng(0)
    verts = next(iter(market.verts.values()))
    normals = outward(market.arrays, verts)
    front = seen = 0
    for vertex in rng.choice(len(verts), 60, replace=False):
        at = pixels(verts)[vertex]
        aim = np.rint(at)  # move the body so that the vertex is at a pixel's centre
        moved = verts + np.append((aim - at) * verts[vertex, 2] / (FOCAL * SIZE_PX[0]), 0.0)
        column, row = np.rint(pixels(moved)[vertex]).astype(int)
        np.testing.assert_allclose(pixels(moved)[vertex], (column, row), atol=1e-9)
        if not (2 <= column < SIZE_PX[1] - 2 and 2 <= row < SIZE_PX[0] - 2):
            continue
        uv = uv_of_body(charts, moved)[row, column]
        facing = normals[vertex] @ moved[vertex] / np.linalg.norm(moved[vertex])
        apart = np.abs(own_2X2[:, vertex] - uv).max(axis=1).min()
        if facing < -0.2:  # an ellipsoid hides nothing of its near side
            front += 1
            assert apart < 1e-5
        elif facing > 0.2:
            seen += 1
            assert apart > 1e-3
    assert front > 10
    assert seen > 10


def outward(arrays, verts):
    """Normals of the body's vertices, of length 1, away from its middle."""
    faces = arrays["f"].astype(int)
    normal = np.zeros_like(verts)
    across = np.cross(verts[faces[:, 1]] - verts[faces[:, 0]], verts[faces[:, 2]] - verts[faces[:, 0]])
    for corner in range(3):
        np.add.at(normal, faces[:, corner], across)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return normal * np.sign((normal * (verts - verts.mean(axis=0))).sum(axis=1, keepdims=True))


def test_faces_are_drawn_as_by_a_slow_twin_that_follows_each_ray():
    """Random triangles before a near camera, so that shares on the surface differ from those in the picture."""
    rng = np.random.default_rng(3)
    corners = rng.uniform(-1, 1, (40, 1, 3)) + rng.uniform(-0.6, 0.6, (40, 3, 3)) + (0, 0, 2.5)
    corners[0, :, 2] = 0.05  # too near
    corners[1, 2] = corners[1, 1]  # no area
    size, focal = (24, 30), 20.0
    xy = focal * corners[..., :2] / corners[..., 2:] + ((size[1] - 1) / 2, (size[0] - 1) / 2)
    face, share = draw_faces(xy, corners[..., 2], size=size)
    found = 0
    for row, column in np.ndindex(*size):
        ray = np.array([(column - (size[1] - 1) / 2) / focal, (row - (size[0] - 1) / 2) / focal, 1.0])
        nearest, told = -1, (np.inf, np.zeros(3))
        for index, triangle in enumerate(corners):
            if triangle[:, 2].min() <= 0.1 or index == 1:
                continue
            inside = np.linalg.solve(triangle.T, ray)  # ray = a multiple of a point of the plane
            if (inside >= 0).all() and 1 / inside.sum() < told[0]:
                nearest, told = index, (1 / inside.sum(), inside / inside.sum())
        assert face[row, column] == nearest
        np.testing.assert_allclose(share[row, column], told[1], atol=1e-9)
        found += nearest >= 0
    assert found > 200


def test_between_two_faces_there_is_no_gap_and_nothing_is_drawn_twice():
    """A square of two triangles whose edges run through the centres of pixels."""
    square = np.array([[[0, 0], [8, 0], [8, 8]], [[0, 0], [8, 8], [0, 8]]], float)
    face, share = draw_faces(square, np.ones((2, 3)), size=(10, 10))
    assert (face[:9, :9] >= 0).all()
    assert (face[9:] < 0).all() & (face[:, 9:] < 0).all()
    np.testing.assert_allclose(share[:9, :9].sum(axis=2), 1)
    assert not share[9].any()
    assert (draw_faces(np.zeros((0, 3, 2)), np.zeros((0, 3)), size=(4, 4))[0] == -1).all()


def test_every_defect_is_counted_with_its_reason(market):
    examples = smpl_market(market.root, split="train")
    counts = Counter({(reject.reason, reject.detail): reject.count for reject in examples.about.rejects})
    assert counts == {
        (Reason.MISSING, "pictures of the lists are not there"): 1,
        (Reason.UNREADABLE, "pictures cannot be read"): 1,
        (Reason.SIZE, "pictures are not 64 x 128 px"): 1,
        (Reason.UNLABELLED, "pictures have no body in SMPL_RSC/pkl"): 1,
        (Reason.BAD_LABEL, "bodies cannot be read"): 2,
        (Reason.BAD_LABEL, "bodies are not in their pictures"): 1,
        (Reason.EVALUATION, "pictures are of people of the evaluation list"): 2,
    }
    assert all(reject.key == "smpl_market" for reject in examples.about.rejects)


def test_splits_share_nobody_and_only_the_evaluation_list_is_scored(market):
    splits = {split: smpl_market(market.root, split=split) for split in ("train", "val", "test")}
    names = {split: {Path(key).name.partition("_")[0] for key in found.keys()} for split, found in splits.items()}  # noqa: SIM118
    assert not names["train"] & names["val"]
    assert not (names["train"] | names["val"]) & names["test"]
    assert len(names["val"]) == 2
    assert len(splits["test"]) == 2 * 2 + 1
    with_second = [splits["test"][index].second_HW3 is not None for index in range(5)]
    assert sorted(with_second) == [False, True, True, True, True]  # who is on the list alone has none
    again = smpl_market(market.root, split="train")
    assert again.keys() == splits["train"].keys()
    np.testing.assert_array_equal(again[4].second_HW3, splits["train"][4].second_HW3)


def test_what_is_missing_is_told_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSPOSE_ASSETS", str(tmp_path / "assets"))
    with pytest.raises(TrainingError, match=r"smpl_uv.obj cannot be read[\s\S]*SURREAL's site"):
        smpl_market(tmp_path, split="train")
    root = write_smpl_market(tmp_path / "SMPLMarket", num_train=1, num_test=1, faults=False).root
    (tmp_path / "assets").mkdir()
    uv = str((root / "smpl_uv.obj").rename(tmp_path / "assets" / "smpl_uv.obj"))
    assert len(smpl_market(root, split="train")) == 3
    assert len(smpl_market(root, split="train", uv=uv)) == 3
    small = tmp_path / "small.obj"
    small.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n")
    with pytest.raises(SourceError, match="has 3 vertices, SMPL has 6890"):
        smpl_market(root, split="train", uv=str(small))
    write_lists(root, {"out_dict_train": {}, "out_dict_test": {}}, [])
    with pytest.raises(SourceError, match="no picture of the val split is left: the lists name none"):
        smpl_market(root, split="val", uv=uv)
    for lists in (
        [],
        {"out_dict_train": 3},
        {"out_dict_train": {1: [4]}},
        {"out_dict_train": {1: ["../../secret.jpg"]}},
    ):
        (root / "train_test_img_paths_pid.pkl").write_bytes(pickle.dumps(lists))
        with pytest.raises(SourceError, match="the lists are none of SMPLMarket"):
            smpl_market(root, split="train", uv=uv)
    (root / "eval_list.pkl").unlink()
    with pytest.raises(SourceError, match=r"cannot read eval_list.pkl"):
        smpl_market(root, split="train", uv=uv)
