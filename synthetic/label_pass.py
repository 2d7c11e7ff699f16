"""The pass that draws: pyrender's meshes and textures, our framebuffers, state and shader.

Import it when PYOPENGL_PLATFORM is set: pyrender and OpenGL choose their platform as they are imported (`gl.GL` sees to it).
"""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from OpenGL import GL as api  # noqa: N811
from OpenGL.raw.GL.VERSION.GL_1_0 import glReadPixels  # it fills our arrays
from pyrender.constants import RenderFlags
from pyrender.renderer import Renderer
from pyrender.shader_program import ShaderProgramCache

from manifests.errors import SyntheticError
from synthetic.pixels import Drawing
from synthetic.places.room import SHADOW_SIZE_M

Floats32 = npt.NDArray[np.float32]

_COLOUR = (api.GL_COLOR_ATTACHMENT0, api.GL_RGBA8)
_NUMBER = (api.GL_COLOR_ATTACHMENT1, api.GL_R32F)
_DEPTH = (api.GL_DEPTH_ATTACHMENT, api.GL_DEPTH_COMPONENT32F)


class LabelPass:
    """Draws without multisampling: colour and depth of all, and the numbers of the person's triangles.

    The person is drawn into a framebuffer of all three, the rest into one that shares colour and depth with it: so it costs
    nothing to say of walls that they are no triangle of the person.
    """

    def __init__(self) -> None:
        # Rows of textures of any width: the default of 4 shears those of odd width and reads past their end.
        api.glPixelStorei(api.GL_UNPACK_ALIGNMENT, 1)
        self._uploads = Renderer(1, 1)
        programs = ShaderProgramCache(shader_dir=str(Path(__file__).with_name("shaders")))
        self._plain, self._shadowed = (_Program(programs, defines) for defines in ({}, {"SHADOWED": 1}))
        self._side = 0
        self._buffers: Any = None
        self._framebuffers: Any = None

    def upload(self, meshes: Sequence[Any]) -> None:
        """Give OpenGL meshes and their textures, and take back those that it had before."""
        # As much of a scene as pyrender reads here: to build a whole one takes long.
        self._uploads._update_context(SimpleNamespace(meshes=set(meshes), lights=()), RenderFlags.NONE)

    def draw(self, person: Sequence[Any], surroundings: Sequence[Any], camera: Floats32, side: int) -> Drawing:
        """Draw meshes that were uploaded.

        Args:
            person: meshes of `Drawn`, whose triangles are numbered; what they hide need not be shaded.
            surroundings: all others.
            camera: (4, 4) clip space from the world, with the image's upper row at the bottom.
            side: of the drawing.
        """
        self._open(side)
        api.glDisable(api.GL_BLEND)
        api.glDisable(api.GL_MULTISAMPLE)
        api.glEnable(api.GL_DEPTH_TEST)
        api.glDepthMask(api.GL_TRUE)
        api.glDepthFunc(api.GL_LESS)
        api.glEnable(api.GL_CULL_FACE)
        api.glCullFace(api.GL_FRONT)  # of the world's fronts we see the backs, since the image is upside down
        api.glProvokingVertex(api.GL_FIRST_VERTEX_CONVENTION)
        api.glViewport(0, 0, side, side)
        for program in (self._plain, self._shadowed):
            program.aim(camera)
        api.glBindFramebuffer(api.GL_FRAMEBUFFER, self._framebuffers[0])
        api.glClearColor(0.0, 0.0, 0.0, 0.0)
        api.glClear(api.GL_COLOR_BUFFER_BIT | api.GL_DEPTH_BUFFER_BIT)
        for mesh in person:
            mesh.primitives[0].choose(camera, side)
        self._draw(person)
        api.glBindFramebuffer(api.GL_FRAMEBUFFER, self._framebuffers[1])
        self._draw(surroundings)
        api.glBindVertexArray(0)
        return self._read(side)

    def _draw(self, meshes: Sequence[Any]) -> None:
        for mesh in meshes:
            (primitive,) = mesh.primitives
            picture, shadow = primitive.material.baseColorTexture, primitive.material.emissiveTexture
            (self._plain if shadow is None else self._shadowed).use()
            for unit, texture in enumerate([picture] if shadow is None else [picture, shadow]):
                api.glActiveTexture(api.GL_TEXTURE0 + unit)
                texture._bind()
            primitive._bind()
            api.glDrawElements(api.GL_TRIANGLES, primitive.num_indices, api.GL_UNSIGNED_INT, None)

    def _open(self, side: int) -> None:
        """Have framebuffers of a side."""
        if side == self._side:
            return
        if self._side:
            api.glDeleteFramebuffers(2, self._framebuffers)
            api.glDeleteRenderbuffers(3, self._buffers)
        self._side, self._framebuffers, self._buffers = side, api.glGenFramebuffers(2), api.glGenRenderbuffers(3)
        for framebuffer, targets in zip(
            self._framebuffers, ((_COLOUR, _DEPTH, _NUMBER), (_COLOUR, _DEPTH)), strict=True
        ):
            api.glBindFramebuffer(api.GL_FRAMEBUFFER, framebuffer)
            for buffer, (place, kind) in zip(self._buffers, targets, strict=False):
                api.glBindRenderbuffer(api.GL_RENDERBUFFER, buffer)
                if framebuffer == self._framebuffers[0]:
                    api.glRenderbufferStorage(api.GL_RENDERBUFFER, kind, side, side)
                api.glFramebufferRenderbuffer(api.GL_FRAMEBUFFER, place, api.GL_RENDERBUFFER, buffer)
            api.glDrawBuffers(len(targets) - 1, [_COLOUR[0], _NUMBER[0]])

    def _read(self, side: int) -> Drawing:
        rgba = np.empty((side, side, 4), dtype=np.uint8)
        number, depth = np.empty((2, side, side), dtype=np.float32)
        api.glBindFramebuffer(api.GL_READ_FRAMEBUFFER, self._framebuffers[0])
        for place, channels, kind, into in (
            (_COLOUR[0], api.GL_RGBA, api.GL_UNSIGNED_BYTE, rgba),
            (_NUMBER[0], api.GL_RED, api.GL_FLOAT, number),
            (_COLOUR[0], api.GL_DEPTH_COMPONENT, api.GL_FLOAT, depth),
        ):
            api.glReadBuffer(place)
            glReadPixels(0, 0, side, side, channels, kind, into)
        if error := api.glGetError():  # looked at once a picture, not after every call
            raise SyntheticError(
                f"OpenGL failed with error {error}",
                where="drawing",
                hint="start Python anew; render fewer pixels at once",
            )
        return Drawing(rgba, number, depth)


class _Program:
    """A shader program, and where it keeps its uniforms; asked for once."""

    def __init__(self, programs: ShaderProgramCache, defines: dict[str, int]) -> None:
        self._program = programs.get_program("mesh.vert", "mesh.frag", defines=defines)
        self._program._add_to_context()
        self.use()
        self._camera = self._place("camera")
        api.glUniform1i(self._place("picture"), 0)
        if defines:
            api.glUniform1i(self._place("shadow"), 1)
            api.glUniform1f(self._place("shadow_size_m"), SHADOW_SIZE_M)

    def use(self) -> None:
        """Draw with it from now on."""
        self._program._bind()

    def aim(self, camera: Floats32) -> None:
        """Draw from a camera, (4, 4) clip space from the world."""
        self.use()
        api.glUniformMatrix4fv(self._camera, 1, api.GL_TRUE, camera)

    def _place(self, name: str) -> int:
        place = int(api.glGetUniformLocation(self._program._program_id, name))
        assert place >= 0, name
        return place
