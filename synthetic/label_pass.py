"""The pass that draws: pyrender's scenes, meshes and textures, our framebuffer, state and shader.

Import it when PYOPENGL_PLATFORM is set: pyrender and OpenGL choose their platform as they are imported (`gl.GL` sees to it).
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from OpenGL import GL as api  # noqa: N811
from OpenGL.raw.GL.VERSION.GL_1_0 import glReadPixels  # the other knows no GL_RG
from pyrender.renderer import ProgramFlags, Renderer
from pyrender.shader_program import ShaderProgramCache

from manifests.errors import SyntheticError
from synthetic.gl import LIT
from synthetic.pixels import Drawing
from synthetic.places.room import SHADOW_SIZE_M


class LabelRenderer(Renderer):  # type: ignore[misc]
    """Draws into two targets without multisampling: RGBA8 colour, and (triangle, depth) as floats."""

    sh_93: npt.NDArray[np.float32]
    _main_fb: Any = None
    _main_fb_dims: Any = None

    def __init__(self) -> None:
        super().__init__(64, 64)
        self._program_cache = ShaderProgramCache(shader_dir=str(Path(__file__).with_name("shaders")))

    def _sorted_mesh_nodes(self, scene: Any) -> list[Any]:
        # Theirs falls back on the order of a set, by address in memory; surfaces in one plane then win by chance.
        return sorted(scene.mesh_nodes, key=lambda node: int(node.place))

    def _forward_pass(self, scene: Any, flags: int, seg_node_map: Any = None) -> Drawing:  # noqa: ARG002
        """One program's state is set once, and only what our shader reads: theirs asks OpenGL for names at every mesh."""
        self._configure_forward_pass_viewport(flags)
        api.glDisable(api.GL_BLEND)
        api.glCullFace(api.GL_BACK)
        api.glClearColor(0.0, 0.0, 0.0, 0.0)
        api.glClear(api.GL_COLOR_BUFFER_BIT | api.GL_DEPTH_BUFFER_BIT)
        view, projection = self._get_camera_matrices(scene)
        camera = (projection @ view).astype(np.float32)
        bound = None
        for node in self._sorted_mesh_nodes(scene):
            for primitive in node.mesh.primitives:
                material = primitive.material
                program = self._get_primitive_program(primitive, flags, ProgramFlags.USE_MATERIAL)
                if program is not bound:
                    program._bind()
                    at, bound = _places(program), program
                    api.glUniformMatrix4fv(at["camera"], 1, api.GL_TRUE, camera)
                    api.glUniform3fv(at["sh"], 9, self.sh_93)
                    api.glUniform1i(at["picture"], 0)
                    if at["shadow"] >= 0:
                        api.glUniform1i(at["shadow"], 1)
                        api.glUniform1f(at["shadow_size_m"], SHADOW_SIZE_M)
                api.glUniform1i(at["first_triangle"], node.first_triangle)
                api.glUniform1f(at["lit"], float(material.metallicFactor == LIT))
                for unit, texture in enumerate((material.baseColorTexture, material.emissiveTexture)):
                    if texture is not None:
                        api.glActiveTexture(api.GL_TEXTURE0 + unit)
                        texture._bind()
                (api.glDisable if material.doubleSided else api.glEnable)(api.GL_CULL_FACE)
                primitive._bind()
                api.glDrawElementsInstanced(primitive.mode, primitive.indices.size, api.GL_UNSIGNED_INT, None, 1)
                primitive._unbind()
        return self._read_main_framebuffer(scene, flags)

    def _configure_main_framebuffer(self) -> None:
        size = (self.viewport_width, self.viewport_height)
        if self._main_fb is not None and self._main_fb_dims == size:
            return
        self._delete_main_framebuffer()
        self._main_fb = self._main_fb_ms = api.glGenFramebuffers(1)
        api.glBindFramebuffer(api.GL_FRAMEBUFFER, self._main_fb)
        self._buffers = api.glGenRenderbuffers(3)
        kinds = (
            (api.GL_RGBA8, api.GL_COLOR_ATTACHMENT0),
            (api.GL_RG32F, api.GL_COLOR_ATTACHMENT1),
            (api.GL_DEPTH_COMPONENT24, api.GL_DEPTH_ATTACHMENT),
        )
        for buffer, (kind, place) in zip(self._buffers, kinds, strict=True):
            api.glBindRenderbuffer(api.GL_RENDERBUFFER, buffer)
            api.glRenderbufferStorage(api.GL_RENDERBUFFER, kind, *size)
            api.glFramebufferRenderbuffer(api.GL_FRAMEBUFFER, place, api.GL_RENDERBUFFER, buffer)
        api.glDrawBuffers(2, [api.GL_COLOR_ATTACHMENT0, api.GL_COLOR_ATTACHMENT1])
        self._main_fb_dims = size

    def _delete_main_framebuffer(self) -> None:
        if self._main_fb is not None:
            api.glDeleteFramebuffers(1, [self._main_fb])
            api.glDeleteRenderbuffers(3, self._buffers)
        self._main_fb = self._main_fb_ms = None

    def _read_main_framebuffer(self, scene: Any, flags: int) -> Drawing:  # noqa: ARG002
        width, height = self._main_fb_dims
        api.glBindFramebuffer(api.GL_READ_FRAMEBUFFER, self._main_fb)

        rgba = np.empty((height, width, 4), dtype=np.uint8)
        labels = np.empty((height, width, 2), dtype=np.float32)
        for place, channels, kind, into in (
            (api.GL_COLOR_ATTACHMENT0, api.GL_RGBA, api.GL_UNSIGNED_BYTE, rgba),
            (api.GL_COLOR_ATTACHMENT1, api.GL_RG, api.GL_FLOAT, labels),
        ):
            api.glReadBuffer(place)
            glReadPixels(0, 0, width, height, channels, kind, into)
        if error := api.glGetError():  # looked at once a picture, not after every call
            raise SyntheticError(
                f"OpenGL failed with error {error}",
                where="drawing",
                hint="start Python anew; render fewer pixels at once",
            )
        return Drawing(rgba, labels)


def _places(program: Any) -> dict[str, int]:
    """Where a program keeps what the shader reads; asked for once."""
    known: dict[str, int] = program.__dict__.setdefault("places", {})
    if not known:
        names = {"picture": "material.base_color_texture", "shadow": "material.emissive_texture"}
        for name in ("camera", "lit", "sh", "first_triangle", "shadow_size_m", "picture", "shadow"):
            known[name] = api.glGetUniformLocation(program._program_id, names.get(name, name))
        assert min(known[name] for name in ("camera", "lit", "sh", "first_triangle", "picture")) >= 0
    return known
