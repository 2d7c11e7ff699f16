"""Draws a room: triangles and textures that all cameras of a scene see alike.

Shape letters: X vertices, F faces, H W picture, C channels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from manifests.seeds import rng_for
from synthetic.patterns import Floats32, Pattern, sample_tile, tile
from synthetic.props import Prop
from synthetic.scene import Light, Room

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

WALL_PX_PER_M = 72
SHADOW_SIZE_M = 7.0
_SHADOW_PX = 256
_ART_KINDS = ("blotches", "print", "camo", "plain", "stripes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """A textured mesh.

    Attributes:
        verts_X3: (X, 3) metres.
        normals_X3: (X, 3) unit.
        uvs_X2: (X, 2) texture coordinates, v upwards; they may repeat.
        faces_F3: (F, 3).
        texture_HWC: (H, W, 3) uint8, row 0 is the top.
        is_floor: whether shadows fall on it.
        lit: whether the scene's light falls on it; else its texture holds its light already.
    """

    verts_X3: Floats
    normals_X3: Floats
    uvs_X2: Floats
    faces_F3: Ints
    texture_HWC: Bytes
    is_floor: bool = False
    lit: bool = True


def build_room(room: Room) -> list[Surface]:
    """Turn a room's description into surfaces."""
    wide, deep = room.half_m
    height = room.height_m
    floor = _quad(
        [-wide, 0, deep], [2 * wide, 0, 0], [0, 0, -2 * deep], tiles=np.array([2 * wide, 2 * deep]) / room.floor.tile_m
    )
    surfaces = [_surface(floor, _bytes(tile(room.floor)), is_floor=True)]
    ceiling = np.full((8, 8, 3), np.array(room.ceiling), dtype=np.float32)
    surfaces.append(_surface(_quad([-wide, height, -deep], [2 * wide, 0, 0], [0, 0, 2 * deep]), _bytes(ceiling)))
    walls = (
        ([-wide, 0, -deep], [2 * wide, 0, 0]),
        ([wide, 0, -deep], [0, 0, 2 * deep]),
        ([wide, 0, deep], [-2 * wide, 0, 0]),
        ([-wide, 0, deep], [0, 0, -2 * deep]),
    )
    for index, ((corner, along), pattern) in enumerate(zip(walls, room.walls, strict=True)):
        length = float(np.abs(along).sum())
        picture = _wall_picture(pattern, length, height, rng_for(room.seed, "wall", index))
        surfaces.append(_surface(_quad(corner, along, [0, height, 0]), _bytes(picture)))
    surfaces.extend(_box(prop) for prop in room.furniture)
    return surfaces


def floor_shadow(points_X3: npt.ArrayLike, light: Light) -> Bytes:
    """Draw the soft shadow of a person on the floor.

    Args:
        points_X3: (X, 3) surface points of the person, metres.
        light: its lamp casts the shadow.

    Returns:
        (256, 256, 3) uint8: share of light that arrives, over `SHADOW_SIZE_M` around the origin; column is x, row 0 is the
        farthest +z.
    """
    points = np.asarray(points_X3, dtype=np.float64)
    lamp = np.array(light.lamp)
    reach = np.minimum(points[:, 1] / max(lamp[1], 0.3), 4.0)
    cast = points[:, [0, 2]] - reach[:, None] * lamp[[0, 2]]
    shadow = _splat(cast, grow_px=3, blur_px=2.2)
    contact = _splat(points[points[:, 1] < 0.12][:, [0, 2]], grow_px=3, blur_px=1.5)
    near = _splat(points[points[:, 1] < 0.9][:, [0, 2]], grow_px=3, blur_px=9.0)
    arrives = (1.0 - light.shadow * shadow) * (1.0 - 0.5 * contact) * (1.0 - 0.25 * near)
    return np.repeat((arrives * 255.0 + 0.5).astype(np.uint8)[..., None], 3, axis=2)


def _splat(points_X2: Floats, *, grow_px: int, blur_px: float) -> Floats:
    at = np.floor((points_X2 / SHADOW_SIZE_M + 0.5) * _SHADOW_PX).astype(np.int64)
    at = at[(at >= 0).all(axis=1) & (at < _SHADOW_PX).all(axis=1)]
    picture = np.zeros((_SHADOW_PX, _SHADOW_PX), dtype=np.float32)
    picture[_SHADOW_PX - 1 - at[:, 1], at[:, 0]] = 1.0
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grow_px, grow_px))
    closed = cv2.morphologyEx(picture, cv2.MORPH_CLOSE, kernel)
    return np.asarray(cv2.GaussianBlur(closed, (0, 0), blur_px), dtype=np.float64)


def _quad(
    corner: npt.ArrayLike, along: npt.ArrayLike, up: npt.ArrayLike, *, tiles: npt.ArrayLike = (1.0, 1.0)
) -> tuple[Floats, Floats, Floats, Ints]:
    """Two triangles, seen from the side where `along` runs right and `up` runs up."""
    start, right, high = (np.asarray(v, dtype=np.float64) for v in (corner, along, up))
    verts = np.stack([start, start + right, start + right + high, start + high])
    normal = np.cross(right, high)
    uvs = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * np.asarray(tiles, dtype=np.float64)
    return verts, np.repeat(normal[None] / np.linalg.norm(normal), 4, axis=0), uvs, np.array([[0, 1, 2], [0, 2, 3]])


def _surface(quad: tuple[Floats, Floats, Floats, Ints], texture_HWC: Bytes, *, is_floor: bool = False) -> Surface:
    verts, normals, uvs, faces = quad
    return Surface(
        verts_X3=verts, normals_X3=normals, uvs_X2=uvs, faces_F3=faces, texture_HWC=texture_HWC, is_floor=is_floor
    )


def _box(box: Prop) -> Surface:
    w, h, d = np.array(box.size_m) / (2.0, 1.0, 2.0)
    sides = (
        ([-w, 0, d], [2 * w, 0, 0], [0, h, 0]),
        ([w, 0, d], [0, 0, -2 * d], [0, h, 0]),
        ([w, 0, -d], [-2 * w, 0, 0], [0, h, 0]),
        ([-w, 0, -d], [0, 0, 2 * d], [0, h, 0]),
        ([-w, h, d], [2 * w, 0, 0], [0, 0, -2 * d]),
    )
    quads = [
        _quad(c, a, u, tiles=np.array([np.linalg.norm(a), np.linalg.norm(u)]) / box.pattern.tile_m) for c, a, u in sides
    ]
    cos, sin = np.cos(box.yaw_rad), np.sin(box.yaw_rad)
    turn = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
    return Surface(
        verts_X3=np.concatenate([q[0] for q in quads]) @ turn.T + (box.centre_m[0], 0.0, box.centre_m[1]),
        normals_X3=np.concatenate([q[1] for q in quads]) @ turn.T,
        uvs_X2=np.concatenate([q[2] for q in quads]),
        faces_F3=np.concatenate([q[3] + 4 * i for i, q in enumerate(quads)]),
        texture_HWC=_bytes(tile(box.pattern)),
    )


def _wall_picture(pattern: Pattern, length_m: float, height_m: float, rng: np.random.Generator) -> Floats32:
    """A wall seen from inside: its pattern, a skirting board, windows, doors and pictures, darker towards its edges."""
    height, width = round(height_m * WALL_PX_PER_M), round(length_m * WALL_PX_PER_M)
    x_m = (np.arange(width) + 0.5) / WALL_PX_PER_M
    y_m = height_m - (np.arange(height) + 0.5) / WALL_PX_PER_M
    across, up = np.meshgrid(x_m, y_m)
    picture = np.ascontiguousarray(sample_tile(tile(pattern), across / pattern.tile_m, up / pattern.tile_m))
    for _ in range(int(rng.integers(2, 7))):
        _hang(picture, height_m, length_m, rng)
    board = np.array(pattern.colours[2], dtype=np.float32) * rng.uniform(0.6, 1.6)
    picture[y_m < rng.uniform(0.06, 0.16)] = np.clip(board, 0.0, 1.0)
    edge = np.minimum(np.minimum(across, length_m - across), np.minimum(up, height_m - up))
    shade = 0.72 + 0.28 * np.clip(edge / 0.8, 0.0, 1.0) ** 0.6
    return np.asarray(picture * shade[..., None], dtype=np.float32)


def _hang(picture: Floats32, height_m: float, length_m: float, rng: np.random.Generator) -> None:
    """Put one door, window or framed picture on a wall, in place."""
    kind = str(rng.choice(("door", "window", "frame"), p=(0.25, 0.3, 0.45)))
    wide = {"door": rng.uniform(0.8, 1.1), "window": rng.uniform(0.9, 2.0), "frame": rng.uniform(0.4, 1.3)}[kind]
    high = {"door": 2.05, "window": rng.uniform(0.9, 1.5), "frame": rng.uniform(0.4, 1.1)}[kind]
    low = {"door": 0.0, "window": rng.uniform(0.8, 1.0), "frame": rng.uniform(0.9, 1.5)}[kind]
    left = rng.uniform(0.3, length_m - wide - 0.3)
    x0, x1 = (round(v * WALL_PX_PER_M) for v in (left, left + wide))
    y0, y1 = (round((height_m - v) * WALL_PX_PER_M) for v in (min(low + high, height_m - 0.2), low))
    rim = max(2, round(rng.uniform(0.03, 0.08) * WALL_PX_PER_M))
    picture[y0:y1, x0:x1] = np.clip(rng.uniform(0.1, 0.95) + rng.normal(0.0, 0.04, 3), 0.0, 1.0)
    inner = (slice(y0 + rim, y1 - (0 if kind == "door" else rim)), slice(x0 + rim, x1 - rim))
    h, w = picture[inner].shape[:2]
    if kind == "frame":
        muted = rng.uniform(0.1, 0.9, (3, 1)) + rng.normal(0.0, 0.12, (3, 3))
        colours = (muted[0].tolist(), muted[1].tolist(), muted[2].tolist())
        art = Pattern(kind=str(rng.choice(_ART_KINDS)), colours=colours, tile_m=1.0, seed=int(rng.integers(2**31)))
        picture[inner] = cv2.resize(np.clip(tile(art), 0.0, 1.0), (w, h), interpolation=cv2.INTER_AREA)
    elif kind == "window":
        sky = np.linspace(rng.uniform(0.7, 1.0), rng.uniform(0.5, 0.8), h, dtype=np.float32)
        picture[inner] = sky[:, None, None] * np.array((0.85, 0.93, 1.0), dtype=np.float32)
        ground = h - round(h * rng.uniform(0.1, 0.5))
        picture[inner][ground:] = rng.uniform(0.25, 0.55) * np.array((0.95, 1.0, 0.8))
        picture[y0:y1, (x0 + x1) // 2 - rim // 2 : (x0 + x1) // 2 + rim // 2 + 1] = picture[y0, x0]
    else:
        colour = np.clip(
            rng.uniform(0.2, 0.9) * np.array((1.0, 0.9, 0.78)) + rng.normal(0.0, 0.05, 3), 0.0, 1.0
        ).astype(np.float32)
        picture[inner] = colour
        for top, bottom in ((0.08, 0.45), (0.52, 0.94)):
            panel = picture[inner][round(top * h) : round(bottom * h), round(0.15 * w) : round(0.85 * w)]
            panel[:] = colour * 0.85
        picture[inner][round(0.5 * h) : round(0.53 * h), round(0.86 * w) : round(0.95 * w)] = 0.2


def _bytes(picture: npt.NDArray[np.floating]) -> Bytes:
    return np.asarray((np.clip(picture, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))
