"""Renders a scene with pyrender on EGL: colour, silhouette, part ids and depth in one pass.

All renderers of a process share one OpenGL context, opened by the first and never closed: pyrender would close the display
of every other one with it. Use it from one thread. Rendering is deterministic on one version of Mesa; it also runs on a GPU's
EGL, with other pixels.

Shape letters: H W image, X vertices, F faces, J joints (24).
"""

import importlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from manifests.errors import SyntheticError
from synthetic.body import BodyModel
from synthetic.camera import crop_intrinsics
from synthetic.labels import joint_visibility, joints_in_image, silhouette_box
from synthetic.motion import Clip, place_on_ground
from synthetic.room import SHADOW_SIZE_M, Surface, build_room, floor_shadow
from synthetic.scene import Scene
from synthetic.wardrobe import Outfit, Wardrobe

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

SUPERSAMPLING = 2
_NEAR_M, _FAR_M = 0.1, 40.0
_EGL_HINT = (
    "apt-get install -y libegl1 libgl1 libgl1-mesa-dri, and start Python anew with PYOPENGL_PLATFORM=egl or unset"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One rendered image and its exact labels.

    Attributes:
        rgb: (H, W, 3) uint8.
        silhouette: (H, W) bool, the person's visible pixels: at least half of a pixel's samples.
        parts: (H, W) uint8, index into `wardrobe.PARTS`, 0 outside the silhouette.
        depth_m: (H, W) float32, along the gaze, metres, of the nearest sample.
        intrinsics: (3, 3) K, pixels; pixel (0, 0) is the centre of the first pixel.
        camera_from_world: (4, 4).
        joints_m: (24, 3) joints in the world, metres.
        joints_xy_px: (24, 2) their projections.
        joint_visible: (24,) bool, nothing but the joint's own limb is in front of it.
        box_xyxy_px: (4,) edges of the silhouette; zeros if it is empty.
        time_s: seconds since the clip's start.
    """

    rgb: Bytes
    silhouette: npt.NDArray[np.bool_]
    parts: Bytes
    depth_m: npt.NDArray[np.float32]
    intrinsics: Floats
    camera_from_world: Floats
    joints_m: Floats
    joints_xy_px: Floats
    joint_visible: npt.NDArray[np.bool_]
    box_xyxy_px: Floats
    time_s: float


@dataclass(frozen=True, slots=True)
class _Posed:
    verts_X3: Floats
    joints_J3: Floats
    points_X3: Floats
    time_s: float


class Renderer:
    """Renders views of scenes with one body; keeps what neighbouring views share.

    Cheapest in the order scene, instant, view: clothes are drawn once per person, the room once per scene, the pose once per
    instant.

    Args:
        body: whom to render.
        clips: motions by name; must hold every clip that the scenes name.

    Raises:
        SyntheticError: OpenGL without a screen (EGL) is not there.
    """

    def __init__(self, body: BodyModel, clips: Mapping[str, Clip]) -> None:
        self._gl = _shared_gl()
        self._body = body
        self._clips = clips  # not copied: a library reads a clip when it is asked for
        self._wardrobe = Wardrobe(body)
        self._outfit: tuple[object, Outfit, Any] | None = None
        self._room: tuple[object, list[Any]] | None = None
        self._posed: tuple[object, _Posed, Any] | None = None

    @property
    def device(self) -> str:
        """What OpenGL says it runs on, as "llvmpipe (LLVM 15.0.6, 256 bits) | 4.5 (Core Profile) Mesa 22.3.6"."""
        return self._gl.device

    def render(self, scene: Scene, *, instant: int, view: int) -> View:
        """Render one image.

        Args:
            scene: what to render.
            instant: index into `scene.phases`.
            view: index into `scene.cameras`.

        Returns:
            The image and its labels; equal arguments give equal bytes, in any process and order.

        Raises:
            SyntheticError: the scene names a clip that was not given.
            IndexError: there is no such instant or view.
        """
        camera = scene.cameras[view]
        posed, person = self._pose(scene, instant)
        intrinsics = crop_intrinsics(camera, posed.points_X3, scene.image_px)
        pose = camera.camera_from_world
        rgba, depth = self._gl.draw(
            [*self._surroundings(scene), *person], scene.light.sh, intrinsics, pose, scene.image_px
        )
        rgb, silhouette, parts, depth_m = _downsample(rgba, depth)
        joints_xy_px, joint_depth_m = joints_in_image(posed.joints_J3, intrinsics, pose)
        return View(
            rgb=rgb,
            silhouette=silhouette,
            parts=parts,
            depth_m=depth_m,
            intrinsics=intrinsics,
            camera_from_world=pose,
            joints_m=posed.joints_J3,
            joints_xy_px=joints_xy_px,
            joint_visible=joint_visibility(joints_xy_px, joint_depth_m, depth_m, silhouette),
            box_xyxy_px=silhouette_box(silhouette),
            time_s=posed.time_s,
        )

    def dressed_mesh(self, scene: Scene, *, instant: int) -> tuple[Floats, Ints]:
        """Vertices (X, 3), metres, and faces (F, 3) of the dressed person, as they are rendered."""
        posed, _ = self._pose(scene, instant)
        return posed.verts_X3, self._dress(scene)[0].faces_F3

    def _dress(self, scene: Scene) -> tuple[Outfit, Any]:
        if self._outfit is None or self._outfit[0] != scene.look:
            outfit = self._wardrobe.dress(scene.look)
            self._outfit = (
                scene.look,
                outfit,
                self._gl.material(outfit.texture_SS4[::-1], repeat=False, double_sided=True),
            )
        return self._outfit[1], self._outfit[2]

    def _surroundings(self, scene: Scene) -> list[Any]:
        if self._room is None or self._room[0] != scene.room:
            surfaces = build_room(scene.room)
            self._room = (scene.room, [self._gl.surface(surface) for surface in surfaces if not surface.is_floor])
            self._floor = next(surface for surface in surfaces if surface.is_floor)
        return self._room[1]

    def _pose(self, scene: Scene, instant: int) -> tuple[_Posed, list[Any]]:
        key = (scene, instant)
        if self._posed is None or self._posed[0] != key:
            clip = self._clip(scene.clip)
            index = min(int(scene.phases[instant] * clip.num_instants), clip.num_instants - 1)
            trans = place_on_ground(clip, self._body, scene.betas, index)
            verts_TX3, joints_TJ3 = self._body.pose(clip.pose_TJ3[index, None], scene.betas, trans[None])
            outfit, material = self._dress(scene)
            verts, normals = self._wardrobe.clothe(verts_TX3[0], outfit)
            posed = _Posed(verts, joints_TJ3[0].astype(np.float64), verts[np.unique(outfit.faces_F3)], index / clip.fps)
            corners = outfit.corners_K2
            person = self._gl.mesh(
                verts[corners[:, 0]],
                normals[corners[:, 0]],
                self._body.uvs_U2[corners[:, 1]],
                outfit.triangles_F3,
                material,
            )
            self._surroundings(scene)
            shadow = floor_shadow(posed.points_X3, scene.light)
            self._posed = (key, posed, [(person, 1.0), self._gl.surface(self._floor, shadow)])
        return self._posed[1], self._posed[2]

    def _clip(self, name: str) -> Clip:
        if name not in self._clips:
            raise SyntheticError(
                f"the scene moves by the clip {name!r}, which was not loaded",
                where=f"clips: {', '.join(sorted(self._clips)) or 'none'}",
                hint="give the folder that holds it, or name other clips in the recipe",
            )
        return self._clips[name]


def _downsample(
    rgba: Bytes, depth: npt.NDArray[np.float32]
) -> tuple[Bytes, npt.NDArray[np.bool_], Bytes, npt.NDArray[np.float32]]:
    step = SUPERSAMPLING
    size = rgba.shape[0] // step
    rgb = cv2.resize(rgba[..., :3], (size, size), interpolation=cv2.INTER_AREA)
    samples = rgba[..., 3].reshape(size, step, size, step)
    silhouette = (samples > 0).sum(axis=(1, 3)) * 2 >= step * step
    parts = np.where(silhouette, samples.max(axis=(1, 3)), 0).astype(np.uint8)
    return np.asarray(rgb, dtype=np.uint8), silhouette, parts, depth.reshape(size, step, size, step).min(axis=(1, 3))


class _GL:
    """pyrender with our shader: spherical-harmonic light, no multisampling, part id in alpha."""

    def __init__(self) -> None:
        os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
        os.environ.setdefault("LP_NUM_THREADS", "1")  # one process per core, not one thread per core in each process
        vars(np).setdefault("infty", np.inf)  # pyrender 0.1.45 was written for numpy 1
        try:
            self._pyrender: Any = importlib.import_module("pyrender")
            self._api: Any = importlib.import_module("OpenGL.GL")
            offscreen = self._pyrender.OffscreenRenderer(64, 64)
        except Exception as error:
            raise SyntheticError(
                f"OpenGL without a screen cannot be opened: {type(error).__name__}: {error}",
                where=f"PYOPENGL_PLATFORM={os.environ['PYOPENGL_PLATFORM']}",
                hint=_EGL_HINT,
            ) from error
        self._offscreen = offscreen
        self._offscreen._renderer = self._own_renderer()
        offscreen._platform.make_current()
        # Rows of textures of any width: the default of 4 shears those of odd width and reads past their end.
        self._api.glPixelStorei(self._api.GL_UNPACK_ALIGNMENT, 1)
        self.device = " | ".join(
            self._api.glGetString(n).decode() for n in (self._api.GL_RENDERER, self._api.GL_VERSION)
        )
        logger.info("rendering on %s", self.device)

    def _own_renderer(self) -> Any:
        module: Any = importlib.import_module("pyrender.renderer")
        programs: Any = importlib.import_module("pyrender.shader_program")
        api = self._api
        storage = api.glRenderbufferStorageMultisample
        module.glRenderbufferStorageMultisample = lambda target, _samples, *rest: storage(target, 0, *rest)

        class ShRenderer(module.Renderer):  # type: ignore[misc]
            sh_93: npt.NDArray[np.float32]

            def _sorted_mesh_nodes(self, scene: Any) -> list[Any]:
                # Theirs falls back on the order of a set, by address in memory; surfaces in one plane then win by chance.
                return sorted(scene.mesh_nodes, key=lambda node: int(node.place))

            def _bind_lighting(self, scene: Any, program: Any, node: Any, flags: int) -> None:  # noqa: ARG002
                places = {
                    name: api.glGetUniformLocation(program._program_id, name)
                    for name in ("sh", "has_parts", "shadow_size_m")
                }
                assert places["sh"] >= 0
                assert places["has_parts"] >= 0
                api.glUniform3fv(places["sh"], 9, self.sh_93)
                api.glUniform1f(places["has_parts"], node.has_parts)
                if places["shadow_size_m"] >= 0:
                    api.glUniform1f(places["shadow_size_m"], SHADOW_SIZE_M)

        renderer = ShRenderer(64, 64)
        renderer._program_cache = programs.ShaderProgramCache(shader_dir=str(Path(__file__).with_name("shaders")))
        return renderer

    def material(self, texture: Bytes, *, repeat: bool, double_sided: bool = False, shadow: Bytes | None = None) -> Any:
        """A texture, row 0 at the top, RGB or RGB and part id."""
        pr, api = self._pyrender, self._api

        def upload(picture: Bytes, wrap: int) -> Any:
            channels = "RGBA" if picture.shape[2] == 4 else "RGB"
            sampler = pr.Sampler(wrapS=wrap, wrapT=wrap)
            return pr.Texture(source=np.ascontiguousarray(picture), source_channels=channels, sampler=sampler)

        return pr.MetallicRoughnessMaterial(
            baseColorTexture=upload(texture, api.GL_REPEAT if repeat else api.GL_CLAMP_TO_EDGE),
            emissiveTexture=None if shadow is None else upload(shadow, api.GL_CLAMP_TO_EDGE),
            alphaMode="OPAQUE",
            doubleSided=double_sided,
        )

    def mesh(self, verts: Floats, normals: Floats, uvs: npt.NDArray[Any], faces: Ints, material: Any) -> Any:
        """A pyrender mesh, without the detour over trimesh."""
        pr = self._pyrender
        primitive = pr.Primitive(
            positions=verts.astype(np.float32),
            normals=normals.astype(np.float32),
            texcoord_0=np.asarray(uvs, dtype=np.float32),
            indices=faces.astype(np.uint32),
            material=material,
            mode=4,
        )
        return pr.Mesh(primitives=[primitive])

    def surface(self, surface: Surface, shadow: Bytes | None = None) -> tuple[Any, float]:
        """A piece of the room and its weight in the part ids, which is none."""
        material = self.material(surface.texture_HWC, repeat=True, shadow=shadow)
        return self.mesh(surface.verts_X3, surface.normals_X3, surface.uvs_X2, surface.faces_F3, material), 0.0

    def draw(
        self,
        meshes: list[tuple[Any, float]],
        sh: tuple[tuple[float, ...], ...],
        intrinsics: Floats,
        camera_from_world: Floats,
        image_px: int,
    ) -> tuple[Bytes, npt.NDArray[np.float32]]:
        """Render at the supersampled size.

        Returns:
            RGB and part id (H, W, 4) uint8, depth (H, W) float32 in metres.
        """
        pr = self._pyrender
        scene = pr.Scene(bg_color=np.zeros(4))
        for place, (mesh, has_parts) in enumerate(meshes):
            node = scene.add(mesh)
            node.place, node.has_parts = place, has_parts
        zoom = float(SUPERSAMPLING)
        camera = pr.IntrinsicsCamera(  # pyrender counts pixels from the corner, K from the centre of the first pixel
            fx=intrinsics[0, 0] * zoom,
            fy=intrinsics[1, 1] * zoom,
            cx=(intrinsics[0, 2] + 0.5) * zoom,
            cy=(intrinsics[1, 2] + 0.5) * zoom,
            znear=_NEAR_M,
            zfar=_FAR_M,
        )
        flip = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenGL looks along -z with y up
        scene.add(camera, pose=np.linalg.inv(flip @ camera_from_world))
        self._offscreen.viewport_width = self._offscreen.viewport_height = image_px * SUPERSAMPLING
        self._offscreen._renderer.sh_93 = np.ascontiguousarray(np.array(sh, dtype=np.float32).T)
        rgba, depth = self._offscreen.render(scene, flags=pr.RenderFlags.RGBA)
        return rgba, depth


@cache
def _shared_gl() -> _GL:
    return _GL()
