"""Labels as a build stores them: its maps agree with each other, with the crop, and with the model that was rendered."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import smplx
import torch
from smplx.utils import Struct

from manifests import table as tables
from manifests.errors import ManifestError, SyntheticError
from manifests.geometry import project
from manifests.sample import cells_of, unpack_cells
from manifests.surface import covisibility
from pipeline.crop import stored_picture
from pipeline.executors import LocalExecutor
from pipeline.labels import decode_maps, label_columns
from pipeline.recipes import BuildRecipe, CropRecipe
from pipeline.render import Studio
from pipeline.stage import run_stage
from pipeline.stages import stages
from synthetic.scene import LABELS, Scene, SceneRecipe
from tests.support.samples import asset
from tests.support.toy_stage import SilentWatcher

SIZE = 128
SCENES = SceneRecipe(
    num_identities=2, scenes_per_identity=1, instants_per_scene=2, num_views=2, image_px=SIZE, clips=("walk", "kick")
)
HANDS = SceneRecipe(
    num_identities=1,
    scenes_per_identity=1,
    instants_per_scene=1,
    num_views=2,
    image_px=SIZE,
    domain="hand",
    rig="dome",
    elevation_max_deg=50.0,
    distance_min_m=0.4,
    distance_max_m=0.9,
)

Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def assets() -> Path:
    return asset("body.npz").parent


def built(assets: Path, out: Path, scenes: SceneRecipe) -> Rows:
    """Rows of all tables of a build, in the order of units."""
    recipe = BuildRecipe(name="tiny", render=scenes, crop=CropRecipe(size_px=SIZE))
    run_stage(stages(recipe, roots={}, assets=assets, out=out)["render"](), out, LocalExecutor(), SilentWatcher())
    rows: Rows = {
        name: [
            row
            for path in sorted((out / "renders").glob(f"*.{name}.parquet"))
            for row in tables.read(name, path).to_pylist()
        ]
        for name in ("frames", "crops", "labels", "scenes")
    }
    return rows | {"again": rendered_again(rows, Studio(assets, scenes))}


def rendered_again(rows: Rows, studio: Studio) -> list[dict[str, Any]]:
    """The crops rendered from the table of scenes, in another order than before."""
    again = []
    for stored in reversed(rows["scenes"]):
        scene = Scene.from_json(stored["scene"])
        assert stored["model"] == studio.renderer().figure.sha256
        assert stored["device"] == studio.renderer().device
        for crop in reversed([crop for crop in rows["crops"] if crop["sequence"] == stored["sequence"]]):
            view = studio.renderer().render(scene, instant=crop["instant"], view=int(crop["view"][1:]))
            jpeg = stored_picture(view.rgb, CropRecipe().jpeg_quality)["jpeg"]
            again.append({"key": crop["key"], "jpeg": jpeg})
    return again


@pytest.fixture(scope="module")
def bodies(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    try:
        return built(assets, tmp_path_factory.mktemp("bodies"), SCENES)
    except SyntheticError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def hands(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    asset("hand_right.npz")
    try:
        return built(assets, tmp_path_factory.mktemp("hands"), HANDS)
    except SyntheticError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["bodies", "hands"])
def rows(request: pytest.FixtureRequest) -> Rows:
    return request.getfixturevalue(request.param)


def pairs_of(rows: Rows) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return list(zip(rows["crops"], rows["labels"], strict=True))


def test_tables_name_the_same_rows(bodies: Rows) -> None:
    keys = [row["key"] for row in bodies["crops"]]
    assert len(keys) == len(set(keys)) == SCENES.num_images == 8
    assert [row["key"] for row in bodies["labels"]] == keys == [row["key"] for row in bodies["frames"]]
    assert [row["sequence"] for row in bodies["scenes"]] == ["s000000", "s000001"]


def test_maps_agree_with_each_other_and_the_crop(rows: Rows) -> None:
    garments = rows["scenes"][0]["garments"]
    for crop, label in pairs_of(rows):
        maps = decode_maps(label)
        assert set(maps) == {*LABELS, "garments"}
        person = maps["parts"] > 0
        assert 0.02 < person.mean() == pytest.approx(crop["coverage"], abs=1e-12)
        assert np.array_equal(cells_of(person), unpack_cells(crop["silhouette"]))
        assert np.array_equal(maps["garments"] > 0, person)
        assert maps["garments"].max() < len(garments)
        assert np.array_equal(np.linalg.norm(maps["normals"], axis=-1) > 0.5, person)
        assert np.allclose(np.linalg.norm(maps["normals"][person], axis=-1), 1.0, atol=1e-5)
        away = maps["normals"][person][:, 2] > 0.3
        assert away.mean() < 0.02  # they look at the camera, but for hems and the inside of skirts
        assert np.array_equal(maps["uv"][..., 0] >= 0, person)
        assert np.array_equal(maps["uv"][..., 1] >= 0, person)
        assert maps["uv"].max() <= 1.0
        edges = np.flatnonzero(person.any(axis=0))[[0, -1]], np.flatnonzero(person.any(axis=1))[[0, -1]]
        assert crop["box_xyxy_px"] == [edges[0][0] - 0.5, edges[1][0] - 0.5, edges[0][1] + 0.5, edges[1][1] + 0.5]


def test_depth_lies_around_the_joints(rows: Rows) -> None:
    for crop, label in pairs_of(rows):
        maps = decode_maps(label)
        person = maps["parts"] > 0
        joints_m = np.reshape(label["joints_m"], (-1, 3))
        depth = maps["depth"][person]
        assert depth.min() > joints_m[:, 2].min() - 0.3
        assert depth.max() < joints_m[:, 2].max() + 0.3
        # What a visible joint's pixel sees lies before it, and no deeper than its limb is thick.
        seen = np.reshape(crop["keypoints_px"], (-1, 3))
        if crop["domain"] == "body":
            at = np.rint(seen[seen[:, 2] > 0, :2]).astype(int)
            over = joints_m[seen[:, 2] > 0, 2] - maps["depth"][at[:, 1], at[:, 0]]
            assert over.max() < 0.16 + 0.001
            assert np.median(over) > 0.0


def test_normals_are_those_of_the_depth(bodies: Rows) -> None:
    """Where the surface is smooth, neighbouring depths span the plane that the normal stands on."""
    turned = []
    for crop, label in pairs_of(bodies):
        maps = decode_maps(label)
        intrinsics = np.reshape(crop["intrinsics"], (3, 3))
        row, column = np.mgrid[:SIZE, :SIZE]
        rays = np.stack([column, row, np.ones_like(row)], axis=-1) @ np.linalg.inv(intrinsics).T
        points = rays * maps["depth"][..., None]
        across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        normals = np.cross(down, across)
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
        inside = cv2.erode((maps["parts"] > 0).astype(np.uint8), np.ones((5, 5)))[1:-1, 1:-1] > 0
        smooth = inside & (np.abs(across[..., 2]) < 0.02) & (np.abs(down[..., 2]) < 0.02)
        turned += [(normals * maps["normals"][1:-1, 1:-1]).sum(axis=-1)[smooth]]
    assert len(np.concatenate(turned)) > 2000
    assert np.median(np.concatenate(turned)) > 0.9


def test_uv_names_the_same_point_in_every_view(bodies: Rows, assets: Path) -> None:
    """A part has one place in the texture, on whomever and from wherever it is seen."""
    with np.load(assets / "body.npz", allow_pickle=False) as body:
        corners, uvs, weights, faces = body["face_uvs"], body["uvs"], body["weights"], body["f"]
    part_F = 1 + weights[faces].sum(axis=1).argmax(axis=1)
    own = {part: uvs[corners[part_F == part]].reshape(-1, 2) for part in range(1, 25)}
    for _, label in pairs_of(bodies):
        maps = decode_maps(label)
        for part in np.unique(maps["parts"][maps["parts"] > 0]):
            seen = maps["uv"][maps["parts"] == part]
            assert (seen > own[part].min(axis=0) - 1e-4).all()
            assert (seen < own[part].max(axis=0) + 1e-4).all()


def test_smplx_puts_the_body_where_the_picture_shows_it(bodies: Rows, assets: Path) -> None:
    with np.load(assets / "body.npz", allow_pickle=False) as file:
        arrays = dict(file)
    model = smplx.SMPL("", data_struct=Struct(**arrays))
    for crop, label in pairs_of(bodies):
        given = {
            name: torch.tensor([label[name]], dtype=torch.float32) for name in ("global_orient", "betas", "transl")
        }
        out = model(body_pose=torch.tensor([label["pose"]], dtype=torch.float32), **given)
        joints_m = out.joints[0, :24].detach().numpy().astype(np.float64)
        assert np.abs(joints_m - np.reshape(label["joints_m"], (24, 3))).max() < 1e-4
        flat = joints_m @ np.reshape(crop["intrinsics"], (3, 3)).T
        assert np.abs(flat[:, :2] / flat[:, 2:] - np.reshape(crop["keypoints_px"], (24, 3))[:, :2]).max() < 0.05
        verts = out.vertices[0].detach().numpy().astype(np.float64) @ np.reshape(crop["intrinsics"], (3, 3)).T
        xy_px = verts[:, :2] / verts[:, 2:]
        face = arrays["extra_vertices"][[0, 2, 1, 4, 3]]  # nose, eyes and ears, the left first
        assert np.abs(xy_px[face] - np.reshape(label["coco17"], (17, 3))[:5, :2]).max() < 0.05
        at = np.rint(xy_px).astype(int)
        person = cv2.dilate((decode_maps(label)["parts"] > 0).astype(np.uint8), np.ones((3, 3)))
        skin = np.unique(arrays["f"][arrays["face_group"] == 0])
        inside = ((at[skin] >= 0) & (at[skin] < SIZE)).all(axis=1)
        assert person[at[skin][inside, 1], at[skin][inside, 0]].mean() > 0.99  # the naked body lies within the dressed


def test_smplx_puts_the_hand_where_the_picture_shows_it(hands: Rows, assets: Path, tmp_path: Path) -> None:
    (tmp_path / "mano").mkdir()
    for crop, label in pairs_of(hands):
        side = crop["side"]
        shutil.copy(assets / f"hand_{side}.npz", tmp_path / "mano" / f"MANO_{side.upper()}.npz")
        model = smplx.create(
            str(tmp_path), "mano", is_rhand=side == "right", ext="npz", use_pca=False, flat_hand_mean=True
        )
        given = {
            name: torch.tensor([label[name]], dtype=torch.float32) for name in ("global_orient", "betas", "transl")
        }
        out = model(hand_pose=torch.tensor([label["pose"]], dtype=torch.float32), **given)
        joints_m = out.joints[0, :16].detach().numpy().astype(np.float64)
        assert np.abs(joints_m - np.reshape(label["joints_m"], (16, 3))).max() < 1e-4
        flat = joints_m @ np.reshape(crop["intrinsics"], (3, 3)).T
        hand21 = np.reshape(crop["keypoints_px"], (21, 3))[:, :2]
        # MANO's wrist and, of each finger, its first joint; FreiHAND orders the fingers from the thumb.
        for ours, mano in ((0, 0), (1, 13), (5, 1), (9, 4), (13, 10), (17, 7)):
            assert np.abs(flat[mano, :2] / flat[mano, 2] - hand21[ours]).max() < 0.05


def test_other_sets_of_keypoints(bodies: Rows) -> None:
    smpl_of = {"coco17": [16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8]}
    for crop, label in pairs_of(bodies):
        smpl24 = np.reshape(crop["keypoints_px"], (24, 3))
        coco17, penn13 = np.reshape(label["coco17"], (17, 3)), np.reshape(label["penn13"], (13, 3))
        assert np.allclose(coco17[5:], smpl24[smpl_of["coco17"]], atol=1e-4)
        assert np.array_equal(coco17[5:], penn13[1:])
        ears = np.linalg.norm(coco17[3, :2] - coco17[4, :2])
        assert np.linalg.norm(penn13[0, :2] - coco17[:5, :2].mean(axis=0)) < max(ears, 0.1 * SIZE)
        size = max(crop["box_xyxy_px"][2] - crop["box_xyxy_px"][0], crop["box_xyxy_px"][3] - crop["box_xyxy_px"][1])
        assert (
            np.linalg.norm(coco17[:5, :2] - smpl24[15, :2], axis=1).max() < 0.2 * size
        )  # a face is near its head's joint
        assert set(np.unique(coco17[:, 2])) <= {0.0, 1.0}


def test_hands_have_no_keypoints_of_bodies(hands: Rows) -> None:
    for crop, label in pairs_of(hands):
        assert label["coco17"] is None
        assert label["penn13"] is None
        assert (crop["keypoints_set"], len(crop["keypoints_px"]), len(label["pose"])) == ("hand21", 63, 45)


def test_a_crop_sees_all_of_what_it_sees(rows: Rows) -> None:
    cells = np.stack([np.frombuffer(crop["surface"], np.uint8) for crop in rows["crops"]])
    assert np.array_equal(covisibility(cells, cells), np.ones(len(cells)))
    other = covisibility(cells[:-1], cells[1:])
    assert ((other >= 0) & (other < 1)).all()


def test_cameras_project_the_joints(bodies: Rows) -> None:
    for crop, label in pairs_of(bodies):
        xy, _ = project(np.reshape(label["joints_m"], (-1, 3)), np.reshape(crop["intrinsics"], (3, 3)), np.eye(4))
        assert np.abs(xy - np.reshape(crop["keypoints_px"], (24, 3))[:, :2]).max() < 0.01


def test_scenes_render_the_same_bytes_again(rows: Rows) -> None:
    assert [row["key"] for row in rows["again"]] == [row["key"] for row in rows["crops"]][::-1]
    for again, crop in zip(reversed(rows["again"]), rows["crops"], strict=True):
        assert again["jpeg"] == crop["jpeg"], crop["key"]


def test_maps_that_are_not_wanted_are_null(assets: Path, tmp_path: Path, bodies: Rows) -> None:
    one = dataclasses.replace(SCENES, num_identities=1, instants_per_scene=1, num_views=1, labels=())
    bare = built(assets, tmp_path, one)["labels"][0]
    assert {name for name, value in bare.items() if value is None} == {*LABELS, "garments"}
    assert decode_maps(bare) == {}
    assert set(bare) == set(bodies["labels"][0])
    studio = Studio(assets, one)
    some = label_columns(studio.renderer().render(studio.scene(0, 0), instant=0, view=0), ("parts", "uv"))
    assert set(decode_maps(some)) == {"parts", "garments", "uv"}
    assert bare["pose"] == some["pose"]


SPOILT = {
    "cut": lambda png: png[:-20],
    "empty": lambda png: b"",
    "no picture": lambda png: b"no picture",
    "too large": lambda png: png[:16] + b"\xff" * 8 + png[24:],
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_damaged_map_is_told(bodies: Rows, spoil: Any) -> None:
    row = bodies["labels"][0]
    with pytest.raises(
        ManifestError, match=r"(?s)the map of depth is damaged.*synthetic/train/s000000.*render the scene"
    ):
        decode_maps(row | {"depth": spoil(row["depth"])})


def test_a_map_of_another_kind_is_told(bodies: Rows) -> None:
    row = bodies["labels"][0]
    with pytest.raises(ManifestError, match="the map of uv is damaged"):
        decode_maps(row | {"uv": row["normals"]})
