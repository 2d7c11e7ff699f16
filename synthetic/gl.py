"""OpenGL through pyrender on EGL: one context for a process, our shader, colour and labels in one pass.

All who draw share one context, opened by the first and never closed: pyrender would close the display of every other one
with it. Use it from one thread. Drawing is deterministic on one version of Mesa; it also runs on a GPU's EGL, with other pixels.

Shape letters: H W image (supersampled), X vertices, F triangles, K corners (a vertex with its texture coordinate).
"""

import importlib
import logging
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import SyntheticError
from synthetic.drawn import root_light
from synthetic.pixels import FAR_M, NEAR_M, Drawing
from synthetic.places.room import Surface

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_EGL_HINT = (
    "apt-get install -y libegl1 libgl1 libgl1-mesa-dri, and start Python anew with PYOPENGL_PLATFORM=egl or unset"
)


class Stage:
    """Meshes that stand together, drawn from any number of cameras; uploaded once.

    The latest stage is the one that OpenGL holds.
    """

    def __init__(self, gl: "GL", person: Sequence[Any], surroundings: Sequence[Any]) -> None:
        self._gl, self._person, self._surroundings = gl, tuple(person), tuple(surroundings)
        gl.upload([*self._person, *self._surroundings])

    def draw(self, intrinsics: Floats, camera_from_world: Floats, image_px: int, *, supersampling: int) -> Drawing:
        """Draw one view.

        Args:
            intrinsics: (3, 3) K of the final image, before supersampling.
            camera_from_world: (4, 4).
            image_px: side of the final image.
            supersampling: how many times larger it is drawn.
        """
        # OpenGL counts from the corner of the image, K from the centre of the first pixel.
        (fx, _, cx), (_, fy, cy) = 2.0 / image_px * (intrinsics[:2] + np.array([0.0, 0.0, 0.5]))
        far, near = FAR_M / (FAR_M - NEAR_M), FAR_M * NEAR_M / (FAR_M - NEAR_M)
        clip_from_camera = np.array(
            [[fx, 0, cx - 1, 0], [0, fy, cy - 1, 0], [0, 0, 2 * far - 1, -2 * near], [0, 0, 1, 0]]
        )
        camera = (clip_from_camera @ camera_from_world).astype(np.float32)
        return self._gl.draw(self._person, self._surroundings, camera, image_px * supersampling)


class GL:
    """The context. Get it with `shared_gl`.

    Raises:
        SyntheticError: OpenGL without a screen (EGL) is not there.
    """

    def __init__(self) -> None:
        os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
        os.environ.setdefault("LP_NUM_THREADS", "1")  # one process per core, not one thread per core in each process
        logging.getLogger("OpenGL.acceleratesupport").setLevel(logging.WARNING)  # it tells at INFO what it does without
        vars(np).setdefault("infty", np.inf)  # pyrender 0.1.45 was written for numpy 1
        try:
            self.pyrender: Any = importlib.import_module("pyrender")
            self._api: Any = importlib.import_module("OpenGL.GL")
            self._offscreen = self.pyrender.OffscreenRenderer(64, 64)
        except Exception as error:
            raise SyntheticError(
                f"OpenGL without a screen cannot be opened: {type(error).__name__}: {error}",
                where=f"PYOPENGL_PLATFORM={os.environ['PYOPENGL_PLATFORM']}",
                hint=_EGL_HINT,
            ) from error
        self._offscreen._platform.make_current()  # and never another
        self._uploads: Any = importlib.import_module("synthetic.uploads")
        self._pass = importlib.import_module("synthetic.label_pass").LabelPass()
        self.device = " | ".join(
            self._api.glGetString(n).decode() for n in (self._api.GL_RENDERER, self._api.GL_VERSION)
        )
        logger.info("rendering on %s", self.device)

    def texture(self, picture: Bytes, *, tiles: bool) -> Any:
        """A texture to draw with.

        Args:
            picture: (H, W, 3) or (H, W) uint8; row 0 is at v = 0.
            tiles: whether it goes on beyond its edge, and is seen from afar, so that it must be filtered.
        """
        api = self._api
        wrap = api.GL_REPEAT if tiles else api.GL_CLAMP_TO_EDGE
        fine = api.GL_LINEAR_MIPMAP_NEAREST if tiles else api.GL_LINEAR
        return self._uploads.Picture(
            source=np.ascontiguousarray(picture),
            source_channels="R" if picture.ndim == 2 else "RGB",
            sampler=self.pyrender.Sampler(magFilter=api.GL_LINEAR, minFilter=fine, wrapS=wrap, wrapT=wrap),
        )

    def mesh(self, corners_K9: Floats32, triangles_F3: Ints, texture: Any, *, shadow: Any = None) -> Any:
        """A mesh to put on a stage, seen from its front.

        Args:
            corners_K9: (K, 9) place in metres; the root of the light that arrives, `drawn.root_light`; the number of the triangle
                that begins there, see `Drawn`, 0 for what is not the person; texture coordinate, v upwards.
            triangles_F3: (F, 3) indices into them.
            texture: what `texture` gave.
            shadow: texture of the root of the light that arrives on the floor, or none.
        """
        pr = self.pyrender
        material = pr.MetallicRoughnessMaterial(baseColorTexture=texture, emissiveTexture=shadow)
        return pr.Mesh(primitives=[self._uploads.Corners(corners_K9, triangles_F3.astype(np.uint32), material)])

    def surface(
        self,
        surface: Surface,
        sh: tuple[tuple[float, ...], ...],
        *,
        texture: Any = None,
        shadow: Any = None,
        double_sided: bool = False,
    ) -> Any:
        """A piece of the surroundings as a mesh; `texture` if it was uploaded before."""
        length = np.linalg.norm(surface.normals_X3, axis=1, keepdims=True)  # a stranger's mesh may have any
        light = root_light(surface.normals_X3 / np.maximum(length, 1e-9), sh)
        if not surface.lit:
            light[:] = 1.0
        faces, sides = surface.faces_F3, 1 + double_sided
        corners = np.zeros((sides, len(length), 9), dtype=np.float32)
        corners[..., :3], corners[..., 3:6], corners[..., 7:] = surface.verts_X3, light[:sides], surface.uvs_X2
        return self.mesh(
            corners.reshape(-1, 9),
            np.concatenate([faces, faces[:, ::-1] + len(length)]) if double_sided else faces,
            self.texture(surface.texture_HWC[::-1], tiles=True) if texture is None else texture,
            shadow=shadow,
        )

    def stage(self, person: Sequence[Any], surroundings: Sequence[Any]) -> Stage:
        """Put meshes together; the person's triangles are numbered."""
        return Stage(self, person, surroundings)

    def upload(self, meshes: Sequence[Any]) -> None:
        """Hold meshes and their textures, and no others."""
        self._pass.upload(meshes)

    def draw(
        self, person: Sequence[Any], surroundings: Sequence[Any], camera: npt.NDArray[np.float32], side: int
    ) -> Drawing:
        """Draw what was uploaded."""
        drawing: Drawing = self._pass.draw(person, surroundings, camera, side)
        return drawing


@cache
def shared_gl() -> GL:
    """The one context of this process, opened by the first who asks."""
    return GL()
