"""Rooms and buildings from mesh files: their surfaces, a free place on the floor, and how far one sees from there.

A file holds metres. glTF has y up by its standard, but scans are also kept with z up in it: unless told, the axis is taken that
more area of floors and ceilings looks along. A texture or colours of vertices are taken as photographed, with their light; plain
colours of materials are lit as the person is.

Convention: x right, y up, z to the viewer, as in drawn rooms. Occupied space is kept in voxels, grown by one on all sides, so
that what passes for free is about `VOXEL_M` from any surface, or more.
Shape letters: X vertices, F faces, P points, G H D voxels along x, y, z.
"""

import json
import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import trimesh

from manifests.errors import SyntheticError
from synthetic.places.backdrop import Axis, Backdrop
from synthetic.places.room import SHADOW_SIZE_M, Surface

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

SUFFIXES = (".glb", ".gltf", ".obj", ".ply")
Up = Literal["auto", "y", "z"]
VOXEL_M = 0.1
FREE_M = 0.75  # from the person's place to the nearest thing that stands on the floor
HEADROOM_M = 2.1
MAX_FILE_BYTES = 2**30
MAX_FACES = 3_000_000
MAX_TEXTURE_PX = 80_000_000
_MAX_SIDE_M, _MAX_HEIGHT_M, _MIN_SIDE_M = 100.0, 25.0, 2.0
_TEXTURE_SIDE_PX = 2048
_SPACING_M, _PORTION = 0.7 * VOXEL_M, 1_000_000
_STEP_M = 0.06  # over curbs, carpets and what scans are inexact by
_FLAT = 0.9  # y of a normal from which on a face is level
_HINT = "convert it with Blender to a plain .glb, or take it out of the folder"


@dataclass(frozen=True, slots=True)
class Space:
    """A mesh that one can stand in.

    Attributes:
        up: the file's axis that points up, "y" or "z".
        pieces: its surfaces, y up, otherwise placed as in the file.
        low_m: (3,) corner of the voxels.
        blocked_GHD: (G, H, D) what is taken, or within a voxel of it.
        floor_m: height of the floor.
        places_P2: (P, 2) x and z where a person has room, in a fixed order.
    """

    up: Axis
    pieces: tuple[Surface, ...]
    low_m: Floats
    blocked_GHD: Bools
    floor_m: float
    places_P2: Floats

    def clear_m(self, origin_m: npt.ArrayLike, direction: npt.ArrayLike, *, reach_m: float) -> float:
        """How far a camera can go from a point along a unit direction before it comes near a surface, up to `reach_m`."""
        along = np.arange(0.0, reach_m, VOXEL_M / 4)
        points = np.asarray(origin_m) + along[:, None] * np.asarray(direction)
        at = np.floor((points - self.low_m) / VOXEL_M).astype(np.int64)
        at[:, 1] = np.minimum(
            at[:, 1], self.blocked_GHD.shape[1] - 1
        )  # above the mesh it is as free as in its top layer
        inside = ((at >= 0) & (at < self.blocked_GHD.shape)).all(axis=1)
        free = np.zeros(len(at), dtype=np.bool_)
        free[inside] = ~self.blocked_GHD[tuple(at[inside].T)]
        return reach_m if free.all() else float(along[max(int(free.argmin()) - 1, 0)])


def check_header(path: Path) -> None:
    """Look at a mesh file's size and, of glTF, at what it asks a reader to know.

    Raises:
        SyntheticError: it is too large, no glTF, or needs an extension that is not read.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise SyntheticError(
            f"the mesh has {path.stat().st_size >> 20} MiB, more than {MAX_FILE_BYTES >> 20}",
            where=path,
            hint="cut it into parts, or simplify it",
        )
    if path.suffix.lower() not in (".glb", ".gltf"):
        return
    try:
        with path.open("rb") as file:
            if path.suffix.lower() == ".glb":
                magic, _, _, length, kind = struct.unpack("<4sIII4s", file.read(20))
                if magic != b"glTF" or kind != b"JSON":
                    raise ValueError("its header is another one")
                content = json.loads(file.read(length))
            else:
                content = json.load(file)
        needed = content.get("extensionsRequired", [])
        unread = [str(name) for name in needed if not str(name).startswith(("KHR_materials_", "KHR_lights_"))]
    except (struct.error, ValueError, AttributeError, RecursionError) as error:
        raise SyntheticError(f"the file is no glTF: {error}", where=path, hint=_HINT) from error
    unread = [name for name in unread if name != "EXT_texture_webp"]
    if unread:
        raise SyntheticError(
            f"the mesh needs {', '.join(unread)} to be read, which is not known here", where=path, hint=_HINT
        )


@lru_cache(maxsize=2)
def read_space(path: Path, up: Up) -> Space:
    """Read a mesh and find out where one can stand in it; the last two are kept.

    Args:
        path: the file.
        up: "y", "z", or "auto".

    Raises:
        SyntheticError: the file is damaged, not of a room's size in metres, or has no free floor.
    """
    check_header(path)
    pieces = _pieces(path)
    if up == "auto":
        return read_space(path, _up(pieces, path))
    if up == "z":
        pieces = [_turned(piece, np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])) for piece in pieces]
    corners_F33 = np.concatenate([piece.verts_X3[piece.faces_F3] for piece in pieces])
    low, high = corners_F33.min(axis=(0, 1)), corners_F33.max(axis=(0, 1))
    size = high - low
    if size[[0, 2]].max() > _MAX_SIDE_M or size[1] > _MAX_HEIGHT_M or size[[0, 2]].min() < _MIN_SIDE_M:
        raise SyntheticError(
            f"the mesh measures {size[0]:.3g} x {size[2]:.3g} m and is {size[1]:.3g} m high",
            where=path,
            hint=f"give metres, from {_MIN_SIDE_M:.0f} to {_MAX_SIDE_M:.0f} m wide and at most {_MAX_HEIGHT_M:.0f} m high; "
            "scale it, cut it into parts, or say which axis is up",
        )
    low = low - 2 * VOXEL_M
    taken_GHD = np.zeros(np.ceil((high - low) / VOXEL_M).astype(int) + 3, dtype=np.bool_)
    _mark(taken_GHD, corners_F33, low, (0, 1, 2))
    floor, places_P2 = _free_floor(corners_F33, taken_GHD, low, path)
    return Space(
        up=up,
        pieces=tuple(pieces),
        low_m=low,
        blocked_GHD=_grown(taken_GHD),
        floor_m=floor,
        places_P2=places_P2,
    )


def _grown(taken_GHD: Bools) -> Bools:
    """What is taken and all voxels that touch it; an axis at a time."""
    for axis in range(3):
        before, after = (
            tuple(cut if k == axis else slice(None) for k in range(3)) for cut in (slice(-1), slice(1, None))
        )
        grown_GHD = taken_GHD.copy()
        grown_GHD[after] |= taken_GHD[before]
        grown_GHD[before] |= taken_GHD[after]
        taken_GHD = grown_GHD
    return taken_GHD


def place_from_world(backdrop: Backdrop) -> tuple[Floats, Floats]:
    """How a scene lies in its mesh: rotation (3, 3) and shift (3,), `point_in_mesh = rotation @ point_in_world + shift`."""
    cos, sin = np.cos(backdrop.yaw_rad), np.sin(backdrop.yaw_rad)
    return np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]]), np.array(backdrop.place_m)


def surfaces_around(space: Space, backdrop: Backdrop) -> list[Surface]:
    """The mesh's surfaces in the scene's world: floor at y = 0, the person's place at the origin.

    Level faces of the floor under and around the person come as surfaces of their own, `is_floor`, to take the shadow.
    """
    turn, shift = place_from_world(backdrop)
    found = []
    for piece in space.pieces:
        moved = _turned(replace(piece, verts_X3=piece.verts_X3 - shift), turn.T)
        corners_F33 = moved.verts_X3[moved.faces_F3]
        normal_F3, _ = _normals(corners_F33)
        near = (corners_F33[..., [0, 2]].min(axis=1) < SHADOW_SIZE_M / 2).all(axis=1)
        near &= (corners_F33[..., [0, 2]].max(axis=1) > -SHADOW_SIZE_M / 2).all(axis=1)
        is_floor_F = near & (np.abs(normal_F3[:, 1]) > _FLAT) & (np.abs(corners_F33[..., 1]).max(axis=1) < VOXEL_M)
        for is_floor, kept_F in ((False, ~is_floor_F), (True, is_floor_F)):
            if kept_F.any():
                found.append(replace(_with_faces(moved, moved.faces_F3[kept_F]), is_floor=is_floor))
    return found


def _with_faces(piece: Surface, faces_F3: Ints) -> Surface:
    """Some faces of a surface, with their vertices only."""
    used_X = np.zeros(len(piece.verts_X3), dtype=np.bool_)
    used_X[faces_F3] = True
    return replace(
        piece,
        verts_X3=piece.verts_X3[used_X],
        normals_X3=piece.normals_X3[used_X],
        uvs_X2=piece.uvs_X2[used_X],
        faces_F3=(np.cumsum(used_X) - 1)[faces_F3],
    )


# ---------------------------------------------------------------------------------------------------------------- reading


@lru_cache(maxsize=1)
def _pieces(path: Path) -> list[Surface]:
    """The surfaces of a file as it holds them; kept until its axis is known."""
    try:
        scene = trimesh.load_scene(str(path), process=False)
        meshes = [mesh for mesh in scene.dump() if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces)]
        pieces = [piece for piece in (_piece(mesh, path) for mesh in meshes) if piece is not None]
    except SyntheticError:
        raise
    except Exception as error:  # a reader of four formats: whatever it stumbles over, the file is damaged
        raise SyntheticError(
            f"the mesh cannot be read: {type(error).__name__}: {error}", where=path, hint=_HINT
        ) from error
    if not pieces:
        raise SyntheticError("the mesh has no faces", where=path, hint=_HINT)
    if not all(_is_whole(piece) for piece in pieces):
        raise SyntheticError(
            "the mesh has vertices that are no numbers, or faces without vertices", where=path, hint=_HINT
        )
    if sum(len(piece.faces_F3) for piece in pieces) > MAX_FACES:
        raise SyntheticError(
            f"the mesh has more than {MAX_FACES} faces", where=path, hint="simplify it, or cut it into parts"
        )
    if all(piece.lit for piece in pieces):
        logger.warning("%s: no texture or colour of vertices was found, it is drawn in plain colours", path)
    return pieces


def _is_whole(piece: Surface) -> bool:
    """Whether arrays that a stranger's file gave fit each other."""
    num = len(piece.verts_X3)
    return (
        piece.verts_X3.shape == piece.normals_X3.shape == (num, 3)
        and piece.uvs_X2.shape == (num, 2)
        and all(bool(np.isfinite(array).all()) for array in (piece.verts_X3, piece.normals_X3, piece.uvs_X2))
        and int(piece.faces_F3.min()) >= 0
        and int(piece.faces_F3.max()) < num
    )


def _piece(mesh: Any, path: Path) -> Surface | None:
    """One mesh of a file with its texture; None: glass."""
    visual, faces = mesh.visual, np.asarray(mesh.faces, dtype=np.int64)
    material: Any = getattr(visual, "material", None)
    is_gltf = isinstance(material, trimesh.visual.material.PBRMaterial)
    picture = material.baseColorTexture if is_gltf else getattr(material, "image", None)
    colour = material.baseColorFactor if is_gltf else getattr(material, "diffuse", None)
    colour = np.full(4, 1.0) if colour is None else np.asarray(colour, dtype=np.float64) / 255.0
    if is_gltf:
        if material.alphaMode == "BLEND" and colour[3] < 0.5:
            return None
        colour = colour ** (1 / 2.2)  # glTF's factors are linear
    if picture is not None and getattr(visual, "uv", None) is not None:
        uvs, texture, is_photo = np.asarray(visual.uv)[:, :2], _texture(picture, colour[:3], path), True
    elif getattr(visual, "kind", None) in ("vertex", "face"):
        return _coloured(mesh, faces)
    else:
        plain = colour[:3] if material is not None else np.full(3, 0.7)
        uvs, texture, is_photo = np.full((len(mesh.vertices), 2), 0.5), _plain(plain), False
    return Surface(
        verts_X3=np.asarray(mesh.vertices, dtype=np.float64),
        normals_X3=np.asarray(mesh.vertex_normals, dtype=np.float64),
        uvs_X2=uvs.astype(np.float64),
        faces_F3=faces,
        texture_HWC=texture,
        lit=not is_photo,
    )


def _texture(picture: Any, colour: Floats, path: Path) -> Bytes:
    width, height = picture.size
    if width * height > MAX_TEXTURE_PX:
        raise SyntheticError(
            f"a texture has {width}x{height} px, more than {MAX_TEXTURE_PX} in all", where=path, hint="scale it down"
        )
    pixels = np.asarray(picture.convert("RGB"))
    scale = _TEXTURE_SIDE_PX / max(width, height)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return pixels if (colour == 1).all() else np.asarray((pixels * colour + 0.5).astype(np.uint8))


def _plain(colour: Floats) -> Bytes:
    return np.full((2, 2, 3), np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8)


def _coloured(mesh: Any, faces: Ints) -> Surface:
    """A mesh whose vertices or faces have colours: each face takes its mean, one pixel of a texture."""
    colours_F3 = np.asarray(mesh.visual.face_colors)[:, :3].astype(np.uint8)
    side = int(np.ceil(np.sqrt(len(faces))))
    texture = np.zeros((side * side, 3), dtype=np.uint8)
    texture[: len(faces)] = colours_F3
    row, column = np.divmod(np.arange(len(faces)), side)
    uvs_F2 = np.stack([(column + 0.5) / side, 1 - (row + 0.5) / side], axis=1)
    corners_F33 = np.asarray(mesh.vertices, dtype=np.float64)[faces]
    return Surface(
        verts_X3=corners_F33.reshape(-1, 3),
        normals_X3=np.repeat(_normals(corners_F33)[0], 3, axis=0),
        uvs_X2=np.repeat(uvs_F2, 3, axis=0),
        faces_F3=np.arange(3 * len(faces)).reshape(-1, 3),
        texture_HWC=texture.reshape(side, side, 3),
        lit=False,
    )


def _turned(piece: Surface, turn: Floats) -> Surface:
    return replace(piece, verts_X3=piece.verts_X3 @ turn.T, normals_X3=piece.normals_X3 @ turn.T)


# --------------------------------------------------------------------------------------------------------------- standing


def _normals(corners_F33: Floats) -> tuple[Floats, Floats]:
    """Unit normals (F, 3), zero for a face without area, and areas (F,)."""
    across_F3 = np.cross(corners_F33[:, 1] - corners_F33[:, 0], corners_F33[:, 2] - corners_F33[:, 0])
    length_F = np.linalg.norm(across_F3, axis=1)
    return across_F3 / np.maximum(length_F, 1e-12)[:, None], length_F / 2


def _up(pieces: list[Surface], path: Path) -> Axis:
    """The axis, of y and z, that floors and ceilings look along; in doubt the one that is usual for the format."""
    normal_F3, area_F = _normals(np.concatenate([piece.verts_X3[piece.faces_F3] for piece in pieces]))
    along_y, along_z = (float(area_F[np.abs(normal_F3[:, axis]) > _FLAT].sum()) for axis in (1, 2))
    usual: Axis = "z" if path.suffix.lower() == ".ply" else "y"
    if max(along_y, along_z) < 1.2 * min(along_y, along_z):
        return usual
    return "y" if along_y > along_z else "z"


def _points(corners_F33: Floats) -> Iterator[Floats]:
    """Points (P, 3) all over the faces, less than a voxel apart, in portions: rows along each face's longest edge."""
    edges_F3 = np.linalg.norm(corners_F33[:, [1, 2, 0]] - corners_F33, axis=2)
    order_F3 = (edges_F3.argmax(axis=1)[:, None] + np.arange(3)) % 3
    corners_F33 = np.take_along_axis(corners_F33, order_F3[..., None], axis=1)
    long_F = np.maximum(edges_F3.max(axis=1), 1e-12)
    steps_F2 = np.stack([long_F, 2 * _normals(corners_F33)[1] / long_F], axis=1) / _SPACING_M
    # Few different numbers, each of many faces.
    steps_F2 = np.ceil(2 ** (np.ceil(2 * np.log2(np.maximum(steps_F2, 1))) / 2)).astype(np.int64)
    kinds, kind_F = np.unique(steps_F2, axis=0, return_inverse=True)
    for kind, (along, across) in enumerate(kinds):
        v, u = (
            part.ravel() for part in np.mgrid[0 : across + 1, 0 : along + 1] / np.array([across, along])[:, None, None]
        )
        weights_P3 = np.stack([(1 - u) * (1 - v), u * (1 - v), v], axis=1)
        faces = np.flatnonzero(kind_F.ravel() == kind)
        for portion in np.array_split(faces, 1 + len(faces) * len(u) // _PORTION):
            yield (weights_P3 @ corners_F33[portion].transpose(1, 0, 2).reshape(3, -1)).reshape(-1, 3)


def _mark(grid: npt.NDArray[Any], corners_F33: Floats, low: Floats, axes: tuple[int, ...]) -> None:
    """Set the cells of a grid over some axes that faces pass through, in place."""
    for points in _points(corners_F33):
        grid[tuple(np.floor((points[:, axes] - low[list(axes)]) / VOXEL_M).astype(np.int64).T)] = 1


def _free_floor(corners_F33: Floats, taken_GHD: Bools, low: Floats, path: Path) -> tuple[float, Floats]:
    """The lowest level with room to stand: its height, and the places (P, 2) on it."""
    normal_F3, area_F = _normals(corners_F33)
    level_F = np.abs(normal_F3[:, 1]) > _FLAT
    flat_F33, area_F = corners_F33[level_F], area_F[level_F]
    height_F = flat_F33[..., 1].mean(axis=1)
    layer_F = np.floor((height_F - low[1]) / VOXEL_M).astype(np.int64)
    area_H = np.bincount(layer_F, weights=area_F, minlength=taken_GHD.shape[1])
    wide_enough_H = area_H >= max(1.0, 0.15 * area_H.max(initial=0.0))
    for layer in np.flatnonzero(wide_enough_H[: len(wide_enough_H) // 2 + 1]):  # above lie ceilings and roofs
        near_F = np.abs(layer_F - layer) <= 1
        order = np.argsort(height_F[near_F])
        share = np.cumsum(area_F[near_F][order])
        floor = float(height_F[near_F][order][np.searchsorted(share, share[-1] / 2)])  # half of the area lies lower
        ground_GD = np.zeros(taken_GHD.shape[::2], dtype=np.uint8)
        _mark(ground_GD, flat_F33[np.abs(flat_F33[..., 1] - floor).max(axis=1) <= VOXEL_M], low, (0, 2))
        first = int(np.floor((floor + _STEP_M - low[1]) / VOXEL_M)) + 1
        last = int(np.floor((floor + HEADROOM_M - low[1]) / VOXEL_M))
        whole_GD = np.asarray(cv2.morphologyEx(ground_GD, cv2.MORPH_CLOSE, np.ones((3, 3), dtype=np.uint8)))
        free_GD = (whole_GD > 0) & ~taken_GHD[:, first : last + 1].any(axis=1)
        away_GD = cv2.distanceTransform(np.pad(free_GD, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[
            1:-1, 1:-1
        ]
        cells = np.argwhere(away_GD * VOXEL_M >= FREE_M + VOXEL_M)
        if len(cells):
            return floor, low[[0, 2]] + (cells + 0.5) * VOXEL_M
    raise SyntheticError(
        f"the mesh has no level floor with {FREE_M} m of free space around a place and {HEADROOM_M} m over it",
        where=path,
        hint="check that it is a room in metres and which axis is up, or take it out of the folder",
    )
