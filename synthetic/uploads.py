"""What OpenGL is given: textures as bytes, corners as floats in memory.

Import it when PYOPENGL_PLATFORM is set: pyrender and OpenGL choose their platform as they are imported (`gl.GL` sees to it).
"""

from ctypes import c_void_p
from typing import Any

import numpy as np
import numpy.typing as npt
from OpenGL import GL as api  # noqa: N811
from pyrender.primitive import Primitive
from pyrender.texture import Texture

from synthetic.drawn import may_show

Floats32 = npt.NDArray[np.float32]


class Picture(Texture):  # type: ignore[misc]
    """A texture of bytes, row 0 at the bottom; only one that is seen from afar has smaller copies, which take long to make."""

    def _add_to_context(self) -> None:
        kind = api.GL_RED if self.source.ndim == 2 else api.GL_RGB
        height, width = self.source.shape[:2]
        self._texid = api.glGenTextures(1)
        self._bind()
        api.glTexImage2D(self.tex_type, 0, kind, width, height, 0, kind, api.GL_UNSIGNED_BYTE, self.source)
        if self.sampler.minFilter == api.GL_LINEAR_MIPMAP_NEAREST:
            api.glGenerateMipmap(self.tex_type)
        for name, value in (
            (api.GL_TEXTURE_MAG_FILTER, self.sampler.magFilter),
            (api.GL_TEXTURE_MIN_FILTER, self.sampler.minFilter),
            (api.GL_TEXTURE_WRAP_S, self.sampler.wrapS),
            (api.GL_TEXTURE_WRAP_T, self.sampler.wrapT),
        ):
            api.glTexParameteri(self.tex_type, name, value)


class Corners(Primitive):  # type: ignore[misc]
    """Triangles whose corners lie in memory as OpenGL reads them.

    Args:
        corners_K9: (K, 9) float32: place, light, number, texture coordinate.
        triangles_F3: (F, 3) indices into them.
        material: what they are made of.
    """

    def __init__(self, corners_K9: Floats32, triangles_F3: npt.NDArray[np.uint32], material: Any) -> None:
        super().__init__(positions=corners_K9[:, :3], indices=triangles_F3, material=material, mode=api.GL_TRIANGLES)
        self._corners, self._triangles = corners_K9, triangles_F3  # pyrender keeps indices as floats
        self._by_axis: tuple[Floats32, npt.NDArray[np.int64]] | None = None
        self.num_indices = triangles_F3.size

    def choose(self, camera: Floats32, side: int) -> None:
        """Draw from now on those triangles of `Drawn` only that a camera may see."""
        if self._by_axis is None:
            self._by_axis = (
                np.ascontiguousarray(self._corners[:, :3].T),
                np.ascontiguousarray(self._triangles.T, dtype=np.int64),
            )
        chosen = self._triangles.take(may_show(*self._by_axis, camera, side), axis=0)
        self._bind()
        api.glBufferData(api.GL_ELEMENT_ARRAY_BUFFER, chosen.nbytes, chosen, api.GL_STREAM_DRAW)
        self.num_indices = chosen.size

    def _add_to_context(self) -> None:
        self._vaid = api.glGenVertexArrays(1)
        api.glBindVertexArray(self._vaid)
        self._buffers = api.glGenBuffers(2).tolist()
        for buffer, kind, data in zip(
            self._buffers,
            (api.GL_ARRAY_BUFFER, api.GL_ELEMENT_ARRAY_BUFFER),
            (self._corners, self._triangles),
            strict=True,
        ):
            api.glBindBuffer(kind, buffer)
            api.glBufferData(kind, data.nbytes, data, api.GL_STATIC_DRAW)
        for place, (first, size) in enumerate(((0, 3), (3, 4), (7, 2))):
            api.glVertexAttribPointer(place, size, api.GL_FLOAT, False, self._corners.strides[0], c_void_p(4 * first))
            api.glEnableVertexAttribArray(place)
        api.glBindVertexArray(0)
