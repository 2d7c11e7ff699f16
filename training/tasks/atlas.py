"""The atlas of a body's texture: which part of the body each texel is on, and texture coordinates of bodies whose file has none.

Parts are EANet's seven: 1 head, 2 torso, 3 upper arm, 4 lower arm with the hand, 5 upper leg, 6 lower leg, 7 foot. A face is of the part of
that joint which moves it most.

Shape letters: `F` faces, `X` vertices, `U` texture coordinates, `T` side of the atlas. Convention: the first row of the atlas is its top, v = 1.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from manifests.errors import TrainingError
from training.tasks.mesh_model import BODY_FORMAT, read_arrays
from training.tasks.raster import draw_faces

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

NUM_PARTS = 7
PART_OF_JOINT = np.array([2, 5, 5, 2, 6, 6, 2, 7, 7, 2, 7, 7, 1, 2, 2, 1, 3, 3, 4, 4, 4, 4, 4, 4], np.uint8)
_HEAD, _HANDS = 15, (20, 21, 22, 23)  # joints
_MAX_OBJ_BYTES = 64 << 20
_HINT = "give smpl_uv.obj as SMPL's or SURREAL's site has it, with v, vt and f lines"


@dataclass(frozen=True, slots=True, eq=False)
class Charts:
    """How a mesh's faces lie in its atlas.

    Args:
        faces_F3: vertices of each corner.
        uvs_U2: texture coordinates, origin at the lower left.
        face_uvs_F3: the texture coordinate of each corner.
        num_vertices: of the mesh.
    """

    faces_F3: Ints
    uvs_U2: Floats
    face_uvs_F3: Ints
    num_vertices: int

    def drawn(self, side: int) -> tuple[Ints, Floats]:
        """The face that each texel is on (T, T), -1 on none, and the shares of its corners (T, T, 3)."""
        texel_U2 = self.uvs_U2 * (side, -side) + (-0.5, side - 0.5)
        return draw_faces(texel_U2[self.face_uvs_F3], np.ones(self.faces_F3.shape), size=(side, side))


@lru_cache(maxsize=4)
def read_charts(path: Path) -> Charts:
    """Read `v`, `vt` and `f` lines of an OBJ file, as smpl_uv.obj.

    Raises:
        TrainingError: it is missing, damaged, or without texture coordinates.
    """
    num_vertices, uvs, corners, number = 0, [], [], 0
    try:
        if path.stat().st_size > _MAX_OBJ_BYTES:
            raise TrainingError(f"{path.name} has {path.stat().st_size >> 20} MiB", where=path, hint=_HINT)
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            number += 1
            head, *rest = line.split() or [""]
            if head == "v":
                num_vertices += 1
            elif head == "vt":
                uvs.append((float(rest[0]), float(rest[1])))
            elif head == "f":
                if len(rest) != 3:
                    raise ValueError("a face that is no triangle")
                corners.append([[int(text) - 1 for text in corner.split("/", 2)[:2]] for corner in rest])
        table_F32, uvs_U2 = np.array(corners, np.int64).reshape(-1, 3, 2), np.array(uvs, np.float64).reshape(-1, 2)
    except OSError as error:
        raise TrainingError(f"{path.name} cannot be read: {error.strerror}", where=path, hint=_HINT) from error
    except (ValueError, IndexError) as error:
        raise TrainingError(f"line {number} of {path.name} does not read: {error}", where=path, hint=_HINT) from error
    if not len(table_F32) or not len(uvs_U2):
        raise TrainingError(f"{path.name} holds no faces with texture coordinates", where=path, hint=_HINT)
    if (table_F32 < 0).any() or (table_F32.max(axis=(0, 1)) >= (num_vertices, len(uvs_U2))).any():
        raise TrainingError(f"a face of {path.name} names a v or vt that is not there", where=path, hint=_HINT)
    if not ((uvs_U2 >= -0.01) & (uvs_U2 <= 1.01)).all():
        raise TrainingError(f"texture coordinates of {path.name} lie outside [0, 1]", where=path, hint=_HINT)
    return Charts(table_F32[..., 0], uvs_U2.clip(0, 1), table_F32[..., 1], num_vertices)


class Atlas:
    """What lies where in a body's texture.

    Args:
        arrays: of the body's file.
        charts: its texture coordinates.
    """

    def __init__(self, arrays: dict[str, npt.NDArray[Any]], charts: Charts) -> None:
        self._charts, self._verts_X3 = charts, arrays["v_template"].astype(np.float64)
        self._joint_F = arrays["weights"][charts.faces_F3].sum(axis=1).argmax(axis=1)

    def places(self, side: int) -> Bytes:
        """(T, T, 3) where each texel is on the body at rest: red, green and blue along x, y and z; black where the atlas is empty."""
        low_3, high_3 = self._verts_X3.min(axis=0), self._verts_X3.max(axis=0)
        face_TT, share_TT3 = self._charts.drawn(side)
        corners_TT33 = self._verts_X3[self._charts.faces_F3[face_TT]]
        place_TT3 = ((corners_TT33 * share_TT3[..., None]).sum(axis=2) - low_3) / (high_3 - low_3)
        return np.where(face_TT[..., None] >= 0, 1 + np.rint(254 * place_TT3), 0).astype(np.uint8)

    def parts(self, side: int) -> Bytes:
        """(T, T) the part of each texel, 1 to 7; where the atlas is empty, the nearest one."""
        face_TT, _ = self._charts.drawn(side)
        row_TT, column_TT = distance_transform_edt(face_TT < 0, return_distances=False, return_indices=True)
        return np.asarray(PART_OF_JOINT[self._joint_F[face_TT[row_TT, column_TT]]])

    def face_and_hands(self, side: int) -> npt.NDArray[np.bool_]:
        """(T, T) whether a texel is on the hands, or on that half of the head that looks forward at rest."""
        head_F = self._joint_F == _HEAD
        forward_F = self._verts_X3[self._charts.faces_F3].mean(axis=1)[:, 2]
        middle = np.median(forward_F[head_F]) if head_F.any() else 0.0
        wanted_F = (head_F & (forward_F > middle)) | np.isin(self._joint_F, _HANDS)
        face_TT, _ = self._charts.drawn(side)
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
    elif arrays.get("face_uvs", np.zeros(0)).size:
        faces_F3, face_uvs_F3 = arrays["f"].astype(np.int64), arrays["face_uvs"].astype(np.int64)
        charts = Charts(faces_F3, arrays["uvs"].astype(np.float64), face_uvs_F3, len(arrays["v_template"]))
    else:
        raise TrainingError("the body has no texture coordinates", where=body, hint=f"uv: {_HINT}")
    if charts.num_vertices != len(arrays["v_template"]):
        what = f"{charts.num_vertices} vertices have texture coordinates, the body has {len(arrays['v_template'])}"
        hint = "give the texture coordinates of the same model; `python -m synthetic convert` reads a published SMPL"
        raise TrainingError(what, where=uv or body, hint=hint)
    return Atlas(arrays, charts)
