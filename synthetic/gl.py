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
from synthetic.pixels import Drawing
from synthetic.places.room import Surface

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_NEAR_M, _FAR_M = 0.05, 60.0
LIT, UNLIT = 0.0, 1.0  # what a material's metallic factor means to our shader
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenGL looks along -z with y up
_EGL_HINT = (
    "apt-get install -y libegl1 libgl1 libgl1-mesa-dri, and start Python anew with PYOPENGL_PLATFORM=egl or unset"
)


class Stage:
    """Meshes that stand together, drawn from any number of cameras; uploaded once."""

    def __init__(self, gl: "GL", person: Sequence[Any], surroundings: Sequence[Any]) -> None:
        self._gl = gl
        pr = gl.pyrender
        self._scene = pr.Scene(bg_color=np.zeros(4))
        first = 1
        for place, mesh in enumerate((*person, *surroundings)):  # the person first: what it hides need not be shaded
            node = self._scene.add(mesh)
            node.place, node.first_triangle = place, first if place < len(person) else 0
            first += mesh.primitives[0].indices.size // 3
        self._camera = self._scene.add(pr.IntrinsicsCamera(1.0, 1.0, 0.0, 0.0, znear=_NEAR_M, zfar=_FAR_M))

    def draw(
        self,
        sh: tuple[tuple[float, ...], ...],
        intrinsics: Floats,
        camera_from_world: Floats,
        image_px: int,
        *,
        supersampling: int,
    ) -> Drawing:
        """Draw one view.

        Args:
            sh: nine spherical-harmonic coefficients of incoming light for each of R, G, B.
            intrinsics: (3, 3) K of the final image, before supersampling.
            camera_from_world: (4, 4).
            image_px: side of the final image.
            supersampling: how many times larger it is drawn.
        """
        zoom, camera = float(supersampling), self._camera.camera
        camera.fx, camera.fy = intrinsics[0, 0] * zoom, intrinsics[1, 1] * zoom
        # pyrender counts pixels from the corner, K from the centre of the first pixel.
        camera.cx, camera.cy = (intrinsics[0, 2] + 0.5) * zoom, (intrinsics[1, 2] + 0.5) * zoom
        self._scene.set_pose(self._camera, np.linalg.inv(_FLIP @ camera_from_world))
        return self._gl.draw(self._scene, sh, image_px * supersampling)


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
        self._renderer = importlib.import_module("synthetic.label_pass").LabelRenderer()
        # Rows of textures of any width: the default of 4 shears those of odd width and reads past their end.
        self._api.glPixelStorei(self._api.GL_UNPACK_ALIGNMENT, 1)
        self.device = " | ".join(
            self._api.glGetString(n).decode() for n in (self._api.GL_RENDERER, self._api.GL_VERSION)
        )
        logger.info("rendering on %s", self.device)

    def texture(self, picture_HWC: Bytes, *, tiles: bool) -> Any:
        """A texture to draw with, row 0 at the top: RGB, or RGB and the id of the garment.

        Args:
            picture_HWC: (H, W, C) uint8.
            tiles: whether it goes on beyond its edge, and is seen from afar, so that it must be filtered.
        """
        api = self._api
        wrap = api.GL_REPEAT if tiles else api.GL_CLAMP_TO_EDGE
        fine = api.GL_LINEAR_MIPMAP_NEAREST if tiles else api.GL_LINEAR
        return self.pyrender.Texture(
            source=np.ascontiguousarray(picture_HWC),
            source_channels="RGBA" if picture_HWC.shape[2] == 4 else "RGB",
            sampler=self.pyrender.Sampler(magFilter=api.GL_LINEAR, minFilter=fine, wrapS=wrap, wrapT=wrap),
        )

    def mesh(
        self,
        verts_K3: npt.ArrayLike,
        normals_K3: npt.ArrayLike,
        uvs_K2: npt.ArrayLike,
        triangles_F3: Ints,
        texture: Any,
        *,
        double_sided: bool = False,
        lit: bool = True,
        shadow: Any = None,
    ) -> Any:
        """A mesh to put on a stage.

        Args:
            verts_K3: (K, 3) metres.
            normals_K3: (K, 3) unit.
            uvs_K2: (K, 2) texture coordinates, v upwards.
            triangles_F3: (F, 3) indices into them.
            texture: what `texture` gave.
            double_sided: whether backs are drawn.
            lit: whether light falls on it; scans hold theirs.
            shadow: texture of the light that arrives on the floor, or none.
        """
        pr = self.pyrender
        material = pr.MetallicRoughnessMaterial(
            baseColorTexture=texture,
            emissiveTexture=shadow,
            alphaMode="OPAQUE",
            doubleSided=double_sided,
            metallicFactor=LIT if lit else UNLIT,
        )
        primitive = pr.Primitive(
            positions=np.asarray(verts_K3, dtype=np.float32),
            normals=np.asarray(normals_K3, dtype=np.float32),
            texcoord_0=np.asarray(uvs_K2, dtype=np.float32),
            indices=triangles_F3.astype(np.uint32),
            material=material,
            mode=4,
        )
        return pr.Mesh(primitives=[primitive])

    def surface(self, surface: Surface, *, texture: Any = None, shadow: Any = None, double_sided: bool = False) -> Any:
        """A piece of the surroundings as a mesh; `texture` if it was uploaded before."""
        length = np.linalg.norm(surface.normals_X3, axis=1, keepdims=True)  # a stranger's mesh may have any
        return self.mesh(
            surface.verts_X3,
            surface.normals_X3 / np.maximum(length, 1e-9),
            surface.uvs_X2,
            surface.faces_F3,
            self.texture(surface.texture_HWC, tiles=True) if texture is None else texture,
            double_sided=double_sided,
            lit=surface.lit,
            shadow=shadow,
        )

    def stage(self, person: Sequence[Any], surroundings: Sequence[Any]) -> Stage:
        """Put meshes together; the person's triangles are numbered on from mesh to mesh."""
        return Stage(self, person, surroundings)

    def draw(self, scene: Any, sh: tuple[tuple[float, ...], ...], side_px: int) -> Drawing:
        """Draw a pyrender scene at its full size."""
        renderer = self._renderer
        renderer.viewport_width = renderer.viewport_height = side_px
        renderer.sh_93 = np.ascontiguousarray(np.array(sh, dtype=np.float32).T)
        flags = self.pyrender.RenderFlags
        drawing: Drawing = renderer.render(scene, flags.RGBA | flags.OFFSCREEN)
        return drawing


@cache
def shared_gl() -> GL:
    """The one context of this process, opened by the first who asks."""
    return GL()
