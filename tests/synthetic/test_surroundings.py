"""Backgrounds, occluders, close-ups and sensors in rendered views."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from manifests.errors import SyntheticError
from synthetic.places.backdrops import Backdrops
from synthetic.render import Renderer
from synthetic.scene import SceneRecipe, sample_scene
from tests.support.backdrop_files import panorama_of, slopes, write_photo, write_room

PLAIN = SceneRecipe(
    num_identities=2, scenes_per_identity=1, instants_per_scene=1, num_views=4, image_px=128, clips=("waving",)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backgrounds")
    for name in ("images", "panoramas", "meshes"):
        (folder / name).mkdir()
    for index in range(4):
        write_photo(folder / f"images/{index}.png", size=(240, 180), colour=(40 * index + 20, 90, 200 - 40 * index))
    cv2.imwrite(str(folder / "panoramas/p.png"), panorama_of(slopes, height=256)[..., ::-1])
    write_room(folder / "meshes/room.glb")
    return folder


def before(renderer: Renderer, folder: Path, kind: str) -> tuple[Renderer, SceneRecipe, Backdrops]:
    annotations = "none" if kind == "images" else None
    recipe = dataclasses.replace(PLAIN, background=kind, backgrounds=str(folder / kind), annotations=annotations)
    backdrops = Backdrops.of(kind, folder / kind, annotations=annotations)
    return Renderer(renderer.figure, backdrops), recipe, backdrops


def test_photos_stand_behind_the_person_and_change_nothing_of_it(renderer: Renderer, folder: Path) -> None:
    own, recipe, backdrops = before(renderer, folder, "images")
    scene = sample_scene(recipe, 0, 0, backdrops)
    assert len(scene.backdrop.names) == PLAIN.num_views
    for index in range(2):
        view = own.render(scene, instant=0, view=index)
        picture = backdrops.picture(
            scene.backdrop,
            view=index,
            intrinsics=view.intrinsics,
            camera_from_world=view.camera_from_world,
            image_px=128,
            zoom=2,
        )
        shrunk = cv2.resize(picture, (128, 128), interpolation=cv2.INTER_AREA)
        free = view.alpha == 0
        assert np.abs(view.rgb[free].astype(int) - shrunk[free]).max() <= 1
        assert not view.depth_m[free].any(), "nothing is there"
        swapped = dataclasses.replace(
            scene, backdrop=dataclasses.replace(scene.backdrop, names=scene.backdrop.names[::-1])
        )
        other = own.render(swapped, instant=0, view=index)
        inner = view.alpha == 255
        assert (other.rgb[inner] == view.rgb[inner]).all()
        assert (other.silhouette == view.silhouette).all()
        assert (other.rgb[free] != view.rgb[free]).any()


def test_a_panorama_lights_the_person_and_turns_with_the_camera(renderer: Renderer, folder: Path) -> None:
    own, recipe, backdrops = before(renderer, folder, "panoramas")
    scene = sample_scene(recipe, 0, 0, backdrops)
    assert scene.room is None
    assert scene.light == backdrops.light(scene.backdrop)
    views = [own.render(scene, instant=0, view=index) for index in range(4)]
    colours = [view.rgb[view.alpha == 0].mean(axis=0) for view in views]
    assert max(np.abs(a - b).max() for a in colours for b in colours) > 20, "four directions, four colours"


def test_a_mesh_stands_around_the_person(renderer: Renderer, folder: Path) -> None:
    own, recipe, backdrops = before(renderer, folder, "meshes")
    scene = sample_scene(recipe, 0, 1, backdrops)
    view = own.render(scene, instant=0, view=0)
    assert (view.depth_m > 0).mean() > 0.99, "the room is closed"
    turn, move = view.camera_from_world[:3, :3], view.camera_from_world[:3, 3]
    room = trimesh.util.concatenate(
        [trimesh.Trimesh(s.verts_X3, s.faces_F3, process=False) for s in backdrops.surfaces(scene.backdrop)]
    )
    rows, columns = np.mgrid[2:126:9, 2:126:9].reshape(2, -1)
    free = view.alpha[rows, columns] == 0
    rows, columns = rows[free], columns[free]
    rays = (np.linalg.inv(view.intrinsics) @ np.stack([columns, rows, np.ones(len(rows))])).T @ turn
    eye = np.repeat((-turn.T @ move)[None], len(rays), axis=0)
    points, ray, _ = room.ray.intersects_location(eye, rays, multiple_hits=False)
    depth_m = (points @ turn.T + move)[:, 2]
    error = np.abs(view.depth_m[rows[ray], columns[ray]] - depth_m)
    assert len(ray) > 0.98 * len(rows)
    assert np.median(error) < 0.02
    assert np.quantile(error, 0.9) < 0.2


def test_a_scene_without_its_backgrounds_says_so(renderer: Renderer, folder: Path) -> None:
    _, recipe, backdrops = before(renderer, folder, "panoramas")
    scene = sample_scene(recipe, 0, 0, backdrops)
    with pytest.raises(SyntheticError, match=r"(?s)background from files.*give the folder"):
        renderer.render(scene, instant=0, view=0)
    with pytest.raises(ValueError, match="needs backdrops"):
        sample_scene(recipe, 0, 0)
    with pytest.raises(ValueError, match="takes no backdrops"):
        sample_scene(PLAIN, 0, 0, backdrops)


def test_occluders_hide_and_are_no_part_of_the_person(renderer: Renderer) -> None:
    recipe = dataclasses.replace(PLAIN, num_occluders=4)
    scene = sample_scene(recipe, 0, 0)
    clear = dataclasses.replace(scene, occluders=())
    hidden = []
    for index in range(PLAIN.num_views):
        view, free = (renderer.render(one, instant=0, view=index) for one in (scene, clear))
        gone = free.silhouette & ~view.silhouette
        assert not (view.silhouette & ~free.silhouette).any()
        assert not view.parts[gone].any()
        assert not gone.any() or (view.depth_m[gone] < free.depth_m[gone] + 0.05).mean() > 0.95, (
            "what hides stands in front"
        )
        hidden.append(gone.sum() / free.silhouette.sum())
        assert (view.joint_visible <= free.joint_visible).all()
    assert max(hidden) > 0.02
    assert max(hidden) < 0.8


def test_close_ups_show_what_they_are_called(renderer: Renderer) -> None:
    joints = {"upper": [12, 15, 16, 17], "hands": [20, 22]}
    for framing in ("upper", "hands"):
        scene = sample_scene(dataclasses.replace(PLAIN, framing=framing), 0, 0)
        assert scene.framing == framing
        for index in range(2):
            view = renderer.render(scene, instant=0, view=index)
            wanted = joints[framing] if scene.side != "right" else [21, 23]
            inside = (view.joints_xy_px[wanted] > 0).all() and (view.joints_xy_px[wanted] < 127).all()
            assert inside
            outside = (view.joints_xy_px[[7, 8]] < 0) | (view.joints_xy_px[[7, 8]] > 127)
            assert outside.any(axis=1).all(), "the feet are not in the picture"


def test_a_sensor_changes_the_picture_and_no_label(renderer: Renderer) -> None:
    scene = sample_scene(dataclasses.replace(PLAIN, noise=0.1, blur=2.0, jpeg=40, white_balance=0.2), 0, 0)
    clean = dataclasses.replace(scene, sensor=None)
    view, still = (renderer.render(one, instant=0, view=1) for one in (scene, clean))
    assert np.abs(view.rgb.astype(int) - still.rgb).mean() > 1
    assert (view.parts == still.parts).all()
    assert (view.depth_m == still.depth_m).all()
    again = renderer.render(scene, instant=0, view=1)
    assert (again.rgb == view.rgb).all()
