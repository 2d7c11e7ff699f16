"""Labels of rendered views against rays cast by trimesh, and against each other."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import trimesh

from synthetic.figure import part_of_faces
from synthetic.models.body import JOINT_NAMES, BodyModel
from synthetic.motion.library import place_on_ground
from synthetic.render import Renderer, View
from synthetic.scene import Scene, SceneRecipe, sample_scene

RECIPE = SceneRecipe(
    num_identities=2, scenes_per_identity=1, instants_per_scene=2, num_views=3, image_px=192, clips=("waving",)
)


@dataclass
class Shot:
    scene: Scene
    view: View


@pytest.fixture(scope="module")
def shots(renderer: Renderer) -> list[Shot]:
    scenes = [sample_scene(RECIPE, 3, index) for index in range(2)]
    return [
        Shot(scene, renderer.render(scene, instant=instant, view=view))
        for scene in scenes
        for instant in range(2)
        for view in range(3)
    ]


def cast(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rays through the centres of the silhouette's pixels: which pixels hit, where (camera's axes), and which triangle."""
    mesh = trimesh.Trimesh(view.posed.verts_X3, view.dressed.verts_T3, process=False)
    rows, columns = view.seen.rows, view.seen.columns
    turn, move = view.camera_from_world[:3, :3], view.camera_from_world[:3, 3]
    rays = (np.linalg.inv(view.intrinsics) @ np.stack([columns, rows, np.ones(len(rows))])).T @ turn
    eye = np.repeat(-turn.T @ move[None].T, len(rays), axis=1).T
    points, pixel, triangle = mesh.ray.intersects_location(eye, rays, multiple_hits=False)
    return pixel, points @ turn.T + move, triangle


def test_depth_and_normals_equal_cast_rays(shots: list[Shot]) -> None:
    for shot in shots[::4]:
        view = shot.view
        pixel, points, triangle = cast(view)
        assert len(pixel) > 0.97 * view.silhouette.sum(), "rays miss only where less than the middle is covered"
        at = (view.seen.rows[pixel], view.seen.columns[pixel])
        error = np.abs(view.depth_m[at] - points[:, 2])
        same = triangle == view.seen.triangles[pixel]
        assert same.sum() > 200
        assert error[same].max() < 1e-5, "where a sample and the centre hit one triangle, depth is the centre's"
        assert np.median(error) < 0.002, "elsewhere it is that of a point a quarter of a pixel away"
        assert np.quantile(error, 0.95) < 0.02, "and a pixel is 11 mm wide"
        flat = trimesh.Trimesh(view.posed.verts_X3, view.dressed.verts_T3, process=False).face_normals[triangle]
        along = np.abs((flat @ view.camera_from_world[:3, :3].T * view.normals[at]).sum(axis=1))
        assert np.quantile(along, 0.1) > 0.85, "smooth normals follow the faces"
        assert np.allclose(np.linalg.norm(view.normals[at], axis=1), 1, atol=1e-5)
        gaze = points / np.linalg.norm(points, axis=1, keepdims=True)
        assert ((view.normals[at] * gaze).sum(axis=1) < 0.1).mean() > 0.97, "what is seen faces the camera"
        assert not view.normals[~view.silhouette].any()


def test_each_pixel_sees_the_point_that_projects_into_it(shots: list[Shot]) -> None:
    for shot in shots:
        view = shot.view
        points = view.seen.carry(view.posed.verts_X3, view.dressed.verts_T3)
        seen = (points @ view.camera_from_world[:3, :3].T + view.camera_from_world[:3, 3]) @ view.intrinsics.T
        xy = seen[:, :2] / seen[:, 2:]
        off = np.hypot(xy[:, 0] - view.seen.columns, xy[:, 1] - view.seen.rows)
        assert np.quantile(off, 0.99) < 0.4
        assert off.max() < 1.0
        assert np.allclose(view.seen.weights_P3.sum(axis=1), 1)
        assert np.allclose(seen[:, 2], view.depth_m[view.silhouette], atol=1e-5)


def test_texture_coordinates_name_the_texel_that_was_drawn(shots: list[Shot]) -> None:
    for shot in shots[::5]:
        view = shot.view
        texture = view.dressed.texture_SS4
        uv = view.uv[view.silhouette]
        assert (view.uv[~view.silhouette] == -1).all()
        row, column = (np.clip((uv[:, axis] * len(texture)).astype(int), 0, len(texture) - 1) for axis in (1, 0))
        assert (texture[row, column, 3] == view.garments[view.silhouette]).mean() > 0.97


def test_parts_lie_around_their_joints(shots: list[Shot], body: BodyModel) -> None:
    parts = part_of_faces(body.weights_XJ, body.faces_F3)
    assert set(parts) == set(range(1, 25)), "24 parts"
    for shot in shots:
        view = shot.view
        assert ((view.parts > 0) == view.silhouette).all()
        points = view.seen.carry(view.posed.verts_X3, view.dressed.verts_T3)
        of = view.parts[view.silhouette]
        for joint, child in ((4, 7), (5, 8), (18, 20), (19, 21)):  # shins and forearms
            mine = points[of == joint + 1]
            if len(mine) > 20:
                middle = (view.joints_m[joint] + view.joints_m[child]) / 2
                assert np.linalg.norm(np.median(mine, axis=0) - middle) < 0.12, JOINT_NAMES[joint]


def test_parameters_put_the_naked_model_where_the_camera_sees_it(
    shots: list[Shot], body: BodyModel, renderer: Renderer
) -> None:
    for shot in shots[::3]:
        view, p = shot.view, shot.view.parameters
        pose = np.concatenate([p["global_orient"], p["body_pose"]]).reshape(1, 24, 3)
        verts, joints = body.pose(pose, p["betas"], p["transl"][None])
        turn, move = view.camera_from_world[:3, :3], view.camera_from_world[:3, 3]
        assert np.allclose(joints[0], view.joints_m @ turn.T + move, atol=1e-5)
        seen = view.posed.verts_X3 @ turn.T + move
        gap = np.linalg.norm(verts[0] - seen, axis=1)[np.unique(view.dressed.verts_T3)]
        assert np.quantile(gap, 0.9) < 0.08, "clothes lie on the body"


def test_keypoints_of_coco_and_penn(shots: list[Shot]) -> None:
    for shot in shots:
        view = shot.view
        coco, penn = view.keypoints_px["coco17"], view.keypoints_px["penn13"]
        assert coco.shape == (17, 3)
        assert penn.shape == (13, 3)
        assert np.allclose(coco[5:, :2], view.joints_xy_px[[16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8]])
        assert (coco[5:, 2] == view.joint_visible[[16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8]]).all()
        assert np.allclose(penn[1:], coco[5:])
        world = view.posed.keypoints["coco17"]
        ears = world[3] - world[4]
        shoulders = world[5] - world[6]
        assert 0.1 < np.linalg.norm(ears) < 0.25
        assert ears @ shoulders > 0, "left is left"
        assert np.linalg.norm(world[0] - world[3:5].mean(axis=0)) < 0.2


def test_hidden_joints_are_told(shots: list[Shot]) -> None:
    for shot in shots:
        view = shot.view
        mesh = trimesh.Trimesh(view.posed.verts_X3, view.dressed.verts_T3, process=False)
        eye = -view.camera_from_world[:3, :3].T @ view.camera_from_world[:3, 3]
        rays = view.joints_m - eye
        hits, ray, _ = mesh.ray.intersects_location(np.repeat(eye[None], 24, axis=0), rays, multiple_hits=False)
        under = np.full(24, -1.0)
        under[ray] = np.linalg.norm(rays[ray], axis=1) - np.linalg.norm(hits - eye, axis=1)
        clear, hidden = (under > 0) & (under < 0.14), under > 0.2
        assert view.joint_visible[clear].mean() > 0.9
        assert not view.joint_visible[hidden].any()


def test_the_ground_is_where_it_was(body: BodyModel, shots: list[Shot], clips: dict) -> None:
    scene, view = shots[0].scene, shots[0].view
    clip = clips[scene.clip]
    index = min(int(scene.phases[0] * clip.num_instants), clip.num_instants - 1)
    assert np.allclose(view.posed.parameters["transl"], place_on_ground(clip, body, scene.betas, index))


def test_without_supersampling_every_label_is_the_centres(renderer: Renderer, shots: list[Shot]) -> None:
    scene = dataclasses.replace(shots[0].scene, supersampling=1)
    view = renderer.render(scene, instant=0, view=1)
    pixel, points, triangle = cast(view)
    at = (view.seen.rows[pixel], view.seen.columns[pixel])
    same = triangle == view.seen.triangles[pixel]
    assert same.mean() > 0.98, "OpenGL and Embree hit one triangle"
    assert np.quantile(np.abs(view.depth_m[at] - points[:, 2]), 0.98) < 1e-4
    assert set(np.unique(view.alpha)) == {0, 255}
    assert ((view.alpha == 255) == view.silhouette).all()
    smooth = shots[1].view
    assert (view.silhouette & smooth.silhouette).sum() / (view.silhouette | smooth.silhouette).sum() > 0.95
    assert np.abs(view.rgb.astype(int) - smooth.rgb).mean() < 6, "the same picture, with jagged edges"
    with pytest.raises(ValueError, match="supersampling must be 1 or 2"):
        dataclasses.replace(RECIPE, supersampling=3)
