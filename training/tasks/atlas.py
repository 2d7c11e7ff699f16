"""The atlas of a body's texture: which part of the body each texel is on, and texture coordinates of bodies whose file has none.

Parts are EANet's seven: 1 head, 2 torso, 3 upper arm, 4 lower arm with the hand, 5 upper leg, 6 lower leg, 7 foot. A face is of the part of
that joint which moves it most.

Shape letters: `F` faces, `X` vertices, `U` texture coordinates, `T` side of the atlas. Convention: the first row of the atlas is its top, v = 1.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from manifests.errors import TrainingError
from manifests.obj import HINT, Charts, read_obj
from training.tasks.mesh_model import BODY_FORMAT, read_arrays
from training.tasks.raster import draw_faces

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

NUM_PARTS = 7
PART_OF_JOINT = np.array([2, 5, 5, 2, 6, 6, 2, 7, 7, 2, 7, 7, 1, 2, 2, 1, 3, 3, 4, 4, 4, 4, 4, 4], np.uint8)
_HEAD, _HANDS = 15, (20, 21, 22, 23)  # joints


@lru_cache(maxsize=4)
def read_charts(path: Path) -> Charts:
    """Read texture coordinates from an OBJ file; the same object for the same file.

    Raises:
        TrainingError: it is missing, damaged, or without texture coordinates.
    """
    return read_obj(path, TrainingError)


class Atlas:
    """What lies where in a body's texture.

    Args:
        arrays: of the body's file.
        charts: its texture coordinates.
    """

    def __init__(self, arrays: dict[str, npt.NDArray[Any]], charts: Charts) -> None:
        self._charts, self._verts_X3 = charts, arrays["v_template"].astype(np.float64)
        self._joint_F = arrays["weights"][charts.faces].sum(axis=1).argmax(axis=1)

    def places(self, side: int) -> Bytes:
        """(T, T, 3) where each texel is on the body at rest: red, green and blue along x, y and z; black where the atlas is empty."""
        low_3, high_3 = self._verts_X3.min(axis=0), self._verts_X3.max(axis=0)
        face_TT, share_TT3 = draw_charts(self._charts, side)
        corners_TT33 = self._verts_X3[self._charts.faces[face_TT]]
        place_TT3 = ((corners_TT33 * share_TT3[..., None]).sum(axis=2) - low_3) / (high_3 - low_3)
        return np.where(face_TT[..., None] >= 0, 1 + np.rint(254 * place_TT3), 0).astype(np.uint8)

    def parts(self, side: int) -> Bytes:
        """(T, T) the part of each texel, 1 to 7; where the atlas is empty, the nearest one."""
        face_TT, _ = draw_charts(self._charts, side)
        row_TT, column_TT = distance_transform_edt(face_TT < 0, return_distances=False, return_indices=True)
        return np.asarray(PART_OF_JOINT[self._joint_F[face_TT[row_TT, column_TT]]])

    def face_and_hands(self, side: int) -> npt.NDArray[np.bool_]:
        """(T, T) whether a texel is on the hands, or on that half of the head that looks forward at rest."""
        head_F = self._joint_F == _HEAD
        forward_F = self._verts_X3[self._charts.faces].mean(axis=1)[:, 2]
        middle = np.median(forward_F[head_F]) if head_F.any() else 0.0
        wanted_F = (head_F & (forward_F > middle)) | np.isin(self._joint_F, _HANDS)
        face_TT, _ = draw_charts(self._charts, side)
        return np.asarray((face_TT >= 0) & wanted_F[face_TT])


@lru_cache(maxsize=2)
def read_atlas(body: Path, uv: Path | None = None) -> Atlas:
    """Read a body's atlas; the same object for the same files.

    Args:
        body: npz of `python -m synthetic`.
        uv: OBJ file of its texture coordinates; those of the body's own file when None.

    Raises:
        TrainingError: a file is missing or damaged, or the two are of different meshes.
    """
    arrays = read_arrays(body, BODY_FORMAT)
    if uv is not None:
        charts = read_charts(uv)
    elif arrays.get("face_uvs", np.zeros(0)).size and "uvs" in arrays:
        faces_F3, face_uvs_F3 = arrays["f"].astype(np.int64), arrays["face_uvs"].astype(np.int64)
        charts = Charts(faces_F3, arrays["uvs"].astype(np.float64), face_uvs_F3, len(arrays["v_template"]))
    else:
        raise TrainingError("the body has no texture coordinates", where=body, hint=f"uv: {HINT}")
    if charts.num_vertices != len(arrays["v_template"]):
        what = f"{charts.num_vertices} vertices have texture coordinates, the body has {len(arrays['v_template'])}"
        hint = "give the texture coordinates of the same model; `python -m synthetic convert` reads a published SMPL"
        raise TrainingError(what, where=uv or body, hint=hint)
    return Atlas(arrays, charts)


def draw_charts(charts: Charts, side: int) -> tuple[Ints, Floats]:
    """The face that each texel is on (T, T), -1 on none, and the shares of its corners (T, T, 3).

    A texel next to a chart is on it, too: colours are interpolated between texels, so that a chart's edge shows it.
    """
    texel_U2 = charts.uvs * (side, -side) + (-0.5, side - 0.5)
    face_TT, share_TT3 = draw_faces(texel_U2[charts.face_uvs], np.ones(charts.faces.shape), size=(side, side))
    away_TT, nearest = distance_transform_edt(face_TT < 0, return_indices=True)
    face_TT, share_TT3 = face_TT[tuple(nearest)], share_TT3[tuple(nearest)]
    return np.where(away_TT < 1.5, face_TT, -1), share_TT3
