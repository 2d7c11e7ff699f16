"""Rendering against the loop that one would write with pyrender, on the same scenes in one run.

The loop builds a trimesh and a pyrender scene per image, lights it with a lamp and ambient light, renders with pyrender's
defaults, and once more for the mask; it labels only the mask and depth. Ours gives all labels, and pays for everything: looks,
rooms, poses, shadows. Two loops are told: one gets posed, dressed people and textured rooms for nothing, and one poses the
person for each image, as what builds a scene per image does. Times are CPU time of one process.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from pipeline.render import Studio
from synthetic.camera import crop_intrinsics
from synthetic.gl import shared_gl
from synthetic.labels import seen_surface
from synthetic.pixels import pixels_of
from synthetic.places.room import build_room, floor_shadow
from synthetic.render import Renderer
from synthetic.scene import Scene, SceneRecipe
from tests.support.samples import asset

logger = logging.getLogger(__name__)

RECIPE = SceneRecipe(num_identities=1, scenes_per_identity=2, instants_per_scene=8, num_views=8)
REPEATS = 4  # the least is told, since others use the machine too
PLAIN_EVERY = 8  # the loop keeps nothing from image to image, so a part of the images tells its time


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio(asset("body.npz").parent, RECIPE)


def images(scenes: list[Scene]) -> Iterator[tuple[Scene, int, int]]:
    for scene in scenes:
        for instant in range(RECIPE.instants_per_scene):
            for view in range(RECIPE.num_views):
                yield scene, instant, view


class PlainLoop:
    """What a person writes who reads pyrender's documentation."""

    def __init__(self, renderer: Renderer, scenes: list[Scene]) -> None:
        self._figure = renderer.figure
        self._pr = shared_gl().pyrender
        self._offscreen = shared_gl()._offscreen
        self._offscreen.viewport_width = self._offscreen.viewport_height = RECIPE.image_px
        self._dressed = [self._figure.dress(scene) for scene in scenes]
        self._posed = [
            [self._figure.pose(scene, instant, dressed) for instant in range(RECIPE.instants_per_scene)]
            for scene, dressed in zip(scenes, self._dressed, strict=True)
        ]
        self._rooms = [build_room(scene.room) for scene in scenes]

    def render(
        self, scene: Scene, instant: int, view: int, *, poses: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pr, camera = self._pr, scene.cameras[view]
        dressed, posed = self._dressed[scene.index], self._posed[scene.index][instant]
        if poses:
            self._figure._naked = None  # ours poses neighbouring instants at once; this loop knows of no other
            posed = self._figure.pose(replace(scene, phases=scene.phases[instant : instant + 1]), 0, dressed)
        uvs, corners = self._figure.uvs_U2, dressed.corners_K2
        stage = pr.Scene(ambient_light=[0.3] * 3)
        body = self._mesh(
            posed.verts_X3[corners[:, 0]],
            posed.normals_X3[corners[:, 0]],
            uvs[corners[:, 1]],
            dressed.triangles_T3,
            dressed.texture_SS4[::-1, :, :3],
        )
        person = stage.add(body)
        for s in self._rooms[scene.index]:
            stage.add(self._mesh(s.verts_X3, s.normals_X3, s.uvs_X2, s.faces_F3, s.texture_HWC))
        stage.add(pr.DirectionalLight(color=np.ones(3), intensity=3.0), pose=_towards(scene.light.lamp))
        k, pose = crop_intrinsics(camera, posed.framed_M3, scene.image_px), camera.camera_from_world
        stage.add(
            pr.IntrinsicsCamera(k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5, znear=0.05, zfar=60.0),
            pose=np.linalg.inv(np.diag([1.0, -1.0, -1.0, 1.0]) @ pose),
        )
        rgb, depth = self._offscreen.render(stage)
        mask, _ = self._offscreen.render(stage, flags=pr.RenderFlags.SEG, seg_node_map={person: (255, 255, 255)})
        return rgb, depth, mask[..., 0] > 0

    def _mesh(self, verts: Any, normals: Any, uvs: Any, faces: Any, picture: np.ndarray) -> Any:
        material = trimesh.visual.material.PBRMaterial(
            baseColorTexture=Image.fromarray(np.ascontiguousarray(picture)), metallicFactor=0.0, roughnessFactor=1.0
        )
        visual = trimesh.visual.TextureVisuals(uv=uvs, material=material)
        return self._pr.Mesh.from_trimesh(
            trimesh.Trimesh(verts, faces, vertex_normals=normals, visual=visual, process=False)
        )


def _towards(lamp: tuple[float, float, float]) -> np.ndarray:
    z = np.array(lamp)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    return pose


def cpu_ms(work: Callable[[], object], times: int) -> float:
    """CPU milliseconds of one of `times`."""
    start = time.process_time()
    work()
    return (time.process_time() - start) / times * 1e3


@pytest.mark.timeout(1800)
def test_against_the_plain_loop(studio: Studio) -> None:
    renderer = studio.renderer()
    scenes = [studio.scene(0, index) for index in range(RECIPE.num_scenes)]
    loop = PlainLoop(renderer, scenes)
    todo = list(images(scenes))
    rgb, _, mask = loop.render(*todo[0], poses=False)
    view = renderer.render(scenes[0], instant=0, view=0)
    assert rgb.shape == view.rgb.shape
    assert (mask & view.silhouette).sum() / (mask | view.silhouette).sum() > 0.9, "both draw the same person"
    some = todo[::PLAIN_EVERY]
    drawn = {zoom: [(replace(scene, supersampling=zoom), i, v) for scene, i, v in todo] for zoom in (2, 1)}
    plain = posing = np.inf
    least = dict.fromkeys(drawn, np.inf)
    for _ in range(REPEATS):  # in turn, so that a busy minute of the machine meets all of them
        plain = min(plain, cpu_ms(lambda: [loop.render(*one, poses=False) for one in some], len(some)))
        posing = min(posing, cpu_ms(lambda: [loop.render(*one, poses=True) for one in some], len(some)))
        for zoom, wanted in drawn.items():
            took = cpu_ms(
                lambda wanted=wanted: [renderer.render(s, instant=i, view=v) for s, i, v in wanted], len(todo)
            )
            least[zoom] = min(least[zoom], took)
    logger.info("plain loop %.1f ms an image, mask and depth only, people posed for nothing", plain)
    logger.info("plain loop %.1f ms an image that poses the person for each", posing)
    for zoom, ours in least.items():
        logger.info(
            "ours %.1f ms an image with all labels, supersampling %d: %.1f and %.1f times as fast",
            ours,
            zoom,
            plain / ours,
            posing / ours,
        )
        assert plain > 2 * ours

    scene = scenes[0]
    dressed, posed, stage = renderer._set(scene, 0)
    k, pose = view.intrinsics, view.camera_from_world
    drawing = stage.draw(k, pose, scene.image_px, supersampling=2)
    pixels = pixels_of(drawing, scene.image_px)
    parts = {
        "drawing and reading back": (lambda: stage.draw(k, pose, scene.image_px, supersampling=2), 1),
        "samples to pixels": (lambda: pixels_of(drawing, scene.image_px), 1),
        "surface of each pixel": (
            lambda: seen_surface(pixels, posed.verts_X3, dressed.verts_T3, k @ pose[:3]),
            1,
        ),
        "a view in all": (lambda: renderer.render(scene, instant=0, view=0), 1),
        "pose and clothes of an instant": (lambda: renderer.figure.pose(scene, 0, dressed), RECIPE.num_views),
        "shadow of an instant": (
            lambda: floor_shadow(posed.shown_N3, scene.light, scene.room, scene.occluders),
            RECIPE.num_views,
        ),
        "room of a scene": (lambda: build_room(scene.room), RECIPE.num_views * RECIPE.instants_per_scene),
        "look of a person": (
            lambda: renderer.figure.dress(scene),
            RECIPE.num_views * RECIPE.instants_per_scene * RECIPE.scenes_per_identity,
        ),
    }
    for name, (work, share) in parts.items():
        each = min(cpu_ms(lambda work=work: [work() for _ in range(5)], 5) for _ in range(REPEATS))
        logger.info("  %-32s %6.1f ms, %5.2f ms an image", name, each, each / share)
