"""Reads texture coordinates of a mesh from an OBJ file, as smpl_uv.obj: only its `v`, `vt` and `f` lines are looked at."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.errors import CrossposeError

HINT = "give smpl_uv.obj as SMPL's or SURREAL's site has it, with v, vt and f lines"
_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Charts:
    """How a mesh's faces lie in its texture.

    Args:
        faces: (F, 3) int64, vertices of each face's corners.
        uvs: (U, 2) float64 texture coordinates in [0, 1], origin at the lower left.
        face_uvs: (F, 3) int64, the texture coordinate of each corner.
        num_vertices: of the mesh.
    """

    faces: npt.NDArray[np.int64]
    uvs: npt.NDArray[np.float64]
    face_uvs: npt.NDArray[np.int64]
    num_vertices: int


def read_obj(path: Path, error: type[CrossposeError], *, num_vertices: int | None = None) -> Charts:
    """Read a mesh's texture coordinates.

    Args:
        path: the file.
        error: raised where it is missing, damaged, or without triangles or texture coordinates.
        num_vertices: of the mesh that is meant; any when None.
    """

    def refused(what: str, hint: str = HINT) -> CrossposeError:
        return error(f"{path.name} {what}", where=path, hint=hint)

    found, uvs, corners, number = 0, [], [], 0
    try:
        if (size := path.stat().st_size) > _MAX_BYTES:
            raise refused(f"has {size >> 20} MiB")
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                number += 1
                head, *rest = line.split() or [""]
                if head == "v":
                    found += 1
                elif head == "vt":
                    uvs.append((float(rest[0]), float(rest[1])))
                elif head == "f":
                    if len(rest) != 3:
                        raise ValueError("a face that is no triangle")
                    corners.append([[int(text) - 1 for text in corner.split("/")[:2]] for corner in rest])
                    if any(len(corner) != 2 for corner in corners[-1]):
                        raise ValueError("a face without texture coordinates")
        corner_table, uv_table = np.array(corners, np.int64).reshape(-1, 3, 2), np.array(uvs, np.float64).reshape(-1, 2)
    except OSError as cause:
        raise refused(f"cannot be read: {cause.strerror}") from cause
    except (ValueError, IndexError, OverflowError) as cause:
        raise error(f"line {number} of {path.name} does not read: {cause}", where=path, hint=HINT) from cause
    if not len(corner_table):
        raise refused("holds no faces")
    if not len(uv_table):
        raise refused("holds no texture coordinates (vt lines)")
    if num_vertices not in (None, found):
        hint = "take the texture coordinates of the same model; SMPL and SMPL-H have 6890 vertices, SMPL-X has 10475"
        raise refused(f"has {found} vertices, the body has {num_vertices}", hint)
    if (corner_table < 0).any() or (corner_table.max(axis=(0, 1)) >= (found, len(uv_table))).any():
        raise refused("has a face that names a v or vt that is not there")
    if not ((uv_table >= -0.01) & (uv_table <= 1.01)).all():
        raise refused("has texture coordinates that lie outside [0, 1]")
    return Charts(corner_table[..., 0], uv_table.clip(0, 1), corner_table[..., 1], found)
