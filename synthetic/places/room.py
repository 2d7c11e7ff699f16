"""Draws a room and what stands in it: triangles and textures that all cameras of a scene see alike, and shadows on its floor.

Shape letters: X vertices, F faces, H W picture, C channels, N boxes, L leaves.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from manifests.seeds import rng_for
from synthetic.patterns import Floats32, Pattern, tile
from synthetic.places.props import Prop
from synthetic.scene import Light, Room

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

WALL_PX_PER_M = 72
_WALL_PX = 1200  # at most, along a wall
SHADOW_SIZE_M = 16.0
_SHADOW_PX = 512
_SHADOW_PX_PER_M = _SHADOW_PX / SHADOW_SIZE_M
_PERSON_PX = 112  # half the side of the part of the shadow that the person can reach
_SHADE_PX_PER_M = 12
_ART_KINDS = ("blotches", "print", "camo", "plain", "stripes")
_PALETTE = 16  # colours along a side


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


@dataclass(frozen=True, slots=True)
class _Mesh:
    """A convex piece of a thing.

    Attributes:
        verts_X3: (X, 3) metres.
        normals_X3: (X, 3) unit.
        uvs_X2: (X, 2) metres on the surface; for a piece of one colour, not used.
        faces_F3: (F, 3).
        colour: of a piece of one colour, or none: it has the thing's pattern.
    """

    verts_X3: Floats
    normals_X3: Floats
    uvs_X2: Floats
    faces_F3: Ints
    colour: tuple[float, ...] | None = None


def build_room(room: Room) -> list[Surface]:
    """Turn a room's description into surfaces: floor first, ceiling, walls, then its furniture."""
    wide, deep = room.half_m
    height = room.height_m
    floor = _quad([-wide, 0, deep], [2 * wide, 0, 0], [0, 0, -2 * deep])
    tiles = np.array([2 * wide, 2 * deep]) / room.floor.tile_m
    surfaces = [_surface(floor, floor.uvs_X2 * tiles, _bytes(tile(room.floor)), is_floor=True)]
    ceiling = _quad([-wide, height, -deep], [2 * wide, 0, 0], [0, 0, 2 * deep])
    bounced = replace(ceiling, normals_X3=-ceiling.normals_X3)  # the floor lights it about as the floor is lit
    surfaces.append(_surface(bounced, ceiling.uvs_X2, _ceiling_picture(room)))
    walls = (
        ([-wide, 0, -deep], [2 * wide, 0, 0]),
        ([wide, 0, -deep], [0, 0, 2 * deep]),
        ([wide, 0, deep], [-2 * wide, 0, 0]),
        ([-wide, 0, deep], [0, 0, -2 * deep]),
    )
    tiles_HWC = {pattern: _bytes(tile(pattern)) for pattern in dict.fromkeys(room.walls)}
    art = _art(rng_for(room.seed, "art"))
    for index, ((corner, along), pattern) in enumerate(zip(walls, room.walls, strict=True)):
        length = float(np.abs(along).sum())
        picture = _wall_picture(pattern, tiles_HWC[pattern], length, height, art, rng_for(room.seed, "wall", index))
        shade = _wall_shade(room, np.array(corner), np.array(along) / length, rng_for(room.seed, "shade", index))
        high, wide_px = picture.shape[:2]
        fine = cv2.resize(shade, (wide_px, high), interpolation=cv2.INTER_LINEAR)
        shaded = cv2.multiply(picture, cv2.merge([fine] * 3), dtype=cv2.CV_8U)
        quad = _quad(corner, along, [0, height, 0])
        surfaces.append(_surface(quad, quad.uvs_X2, np.asarray(shaded, dtype=np.uint8)))
    return surfaces + build_props(room.furniture)


def build_props(props: Iterable[Prop]) -> list[Surface]:
    """Turn things into surfaces: one for each pattern, and one for all that is of one colour."""
    groups: dict[Pattern | None, list[tuple[_Mesh, Prop]]] = {}
    for prop in props:
        for mesh in _meshes(prop):
            groups.setdefault(prop.pattern if mesh.colour is None else None, []).append((mesh, prop))
    surfaces = []
    for pattern, pieces in groups.items():
        meshes = [mesh for mesh, _ in pieces]
        if pattern is None:
            uvs, texture = _palette(meshes)
        else:
            uvs, texture = np.concatenate([mesh.uvs_X2 for mesh in meshes]) / pattern.tile_m, _bytes(tile(pattern))
        starts = np.cumsum([0, *(len(mesh.verts_X3) for mesh in meshes)])
        surfaces.append(
            Surface(
                verts_X3=np.concatenate([_place(mesh.verts_X3, prop) for mesh, prop in pieces]),
                normals_X3=np.concatenate([mesh.normals_X3 @ _turn(prop).T for mesh, prop in pieces]),
                uvs_X2=uvs,
                faces_F3=np.concatenate([mesh.faces_F3 + s for mesh, s in zip(meshes, starts, strict=False)]),
                texture_HWC=texture,
            )
        )
    return surfaces


# ------------------------------------------------------------------------------------------------------------- shadows


def floor_shadow(
    points_X3: npt.ArrayLike, light: Light, room: Room | None = None, occluders: Sequence[Prop] = ()
) -> Bytes:
    """Draw the soft shadows of a person and of things on the floor.

    Args:
        points_X3: (X, 3) surface points of the person, metres.
        light: its lamp casts the shadows.
        room: whose walls and furniture darken the floor beside them.
        occluders: what else stands there.

    Returns:
        (512, 512, 3) uint8: share of light that arrives, over `SHADOW_SIZE_M` around the origin; column is x, row 0 is the
        farthest +z.
    """
    still = _still_shadow(light, room, tuple(occluders))
    points = np.asarray(points_X3, dtype=np.float64)
    shadow = _splat(_cast(points, light), blur_px=2.2)
    contact = _splat(points[points[:, 1] < 0.12][:, [0, 2]], blur_px=1.4)
    near = _splat(points[points[:, 1] < 0.9][:, [0, 2]], blur_px=8.0)
    around = slice(_SHADOW_PX // 2 - _PERSON_PX, _SHADOW_PX // 2 + _PERSON_PX)
    cast, ambient = (picture[around, around] for picture in still[:2])
    out = still[2].copy()
    out[around, around] = _arriving(
        np.maximum(cast, shadow), ambient * (1.0 - 0.5 * contact) * (1.0 - 0.25 * near), light
    )
    return np.asarray(cv2.merge([out] * 3), dtype=np.uint8)


@lru_cache(maxsize=2)
def _still_shadow(light: Light, room: Room | None, occluders: tuple[Prop, ...]) -> tuple[Floats32, Floats32, Bytes]:
    """What does not move: the lamp's shadow, the light that arrives from all sides, and both together."""
    cast, foot = np.zeros((2, _SHADOW_PX, _SHADOW_PX), dtype=np.float32)
    for prop in (*(room.furniture if room else ()), *occluders):
        for mesh in _meshes(prop):
            verts = _place(mesh.verts_X3, prop)
            _fill(cast, _cast(verts, light))
            if verts[:, 1].min() < 0.3:
                _fill(foot, verts[:, [0, 2]])
    ambient = 1.0 - 0.45 * cv2.GaussianBlur(foot, (0, 0), 4.0) - 0.25 * cv2.GaussianBlur(foot, (0, 0), 14.0)
    if room:
        at = (np.arange(_SHADOW_PX) + 0.5) / _SHADOW_PX_PER_M - SHADOW_SIZE_M / 2.0
        wall_x, wall_z = (1.0 - 0.4 * np.exp((np.abs(at) - half) / 0.3) for half in room.half_m)
        ambient *= (wall_z[::-1, None] * wall_x).clip(0.4, 1.0)
    cast = np.asarray(cv2.GaussianBlur(cast, (0, 0), 2.2), dtype=np.float32)
    both = _arriving(cast, ambient, light)
    both[[0, -1]] = both[:, [0, -1]] = 255  # the edge goes on over the rest of a larger room
    return cast, np.asarray(ambient, dtype=np.float32), both


def _arriving(cast: Floats32, ambient: Floats32, light: Light) -> Bytes:
    return np.asarray(((1.0 - light.shadow * cast) * ambient * 255.0 + 0.5).astype(np.uint8))


def _cast(points_X3: Floats, light: Light) -> Floats:
    lamp = np.array(light.lamp)
    reach = np.minimum(points_X3[:, 1] / max(lamp[1], 0.3), 4.0)
    return np.asarray(points_X3[:, [0, 2]] - reach[:, None] * lamp[[0, 2]])


def _splat(points_X2: Floats, *, blur_px: float) -> Floats32:
    at = np.floor(points_X2 * _SHADOW_PX_PER_M).astype(np.int64) + _PERSON_PX
    at = at[(at >= 0).all(axis=1) & (at < 2 * _PERSON_PX).all(axis=1)]
    picture = np.zeros((2 * _PERSON_PX, 2 * _PERSON_PX), dtype=np.float32)
    picture[2 * _PERSON_PX - 1 - at[:, 1], at[:, 0]] = 1.0
    closed = cv2.morphologyEx(picture, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
    return np.asarray(cv2.GaussianBlur(closed, (0, 0), blur_px), dtype=np.float32)


def _fill(picture: Floats32, points_X2: Floats) -> None:
    """Fill the convex hull of points on the floor, in place."""
    at = (points_X2 * (1.0, -1.0) + SHADOW_SIZE_M / 2.0) * _SHADOW_PX_PER_M - 0.5
    hull = cv2.convexHull(np.round(at * 16.0).astype(np.int32))
    cv2.fillConvexPoly(picture, hull, 1.0, lineType=cv2.LINE_8, shift=4)


# -------------------------------------------------------------------------------------------------------------- meshes


def _quad(corner: npt.ArrayLike, along: npt.ArrayLike, up: npt.ArrayLike) -> _Mesh:
    """Two triangles, seen from the side where `along` runs right and `up` runs up."""
    start, right, high = (np.asarray(v, dtype=np.float64) for v in (corner, along, up))
    verts = np.stack([start, start + right, start + right + high, start + high])
    normal = np.cross(right, high)
    uvs = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    return _Mesh(verts, np.repeat(normal[None] / np.linalg.norm(normal), 4, axis=0), uvs, _QUAD_FACES)


def _surface(mesh: _Mesh, uvs_X2: Floats, texture_HWC: Bytes, *, is_floor: bool = False) -> Surface:
    return Surface(
        verts_X3=mesh.verts_X3,
        normals_X3=mesh.normals_X3,
        uvs_X2=uvs_X2,
        faces_F3=mesh.faces_F3,
        texture_HWC=texture_HWC,
        is_floor=is_floor,
    )


_QUAD_FACES = np.array([[0, 1, 2], [0, 2, 3]])
_CUBE = tuple(  # corner, along, up of each side of the unit cube, seen from outside
    _quad(*side)
    for side in (
        ([0, 0, 1], [1, 0, 0], [0, 1, 0]),
        ([1, 0, 1], [0, 0, -1], [0, 1, 0]),
        ([1, 0, 0], [-1, 0, 0], [0, 1, 0]),
        ([0, 0, 0], [0, 0, 1], [0, 1, 0]),
        ([0, 1, 1], [1, 0, 0], [0, 0, -1]),
        ([0, 0, 0], [1, 0, 0], [0, 0, 1]),
    )
)
_CUBE_VERTS = np.concatenate([side.verts_X3 for side in _CUBE])
_CUBE_NORMALS = np.concatenate([side.normals_X3 for side in _CUBE])
_CUBE_FACES = np.concatenate([_QUAD_FACES + 4 * index for index in range(6)])
_CUBE_AXES = np.repeat([[0, 1], [2, 1], [0, 1], [2, 1], [0, 2], [0, 2]], 4, axis=0)


def _block(low: npt.ArrayLike, high: npt.ArrayLike, colour: tuple[float, ...] | None = None) -> _Mesh:
    """A box between two corners; its pattern goes on from box to box of one thing."""
    start, end = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    verts = start + _CUBE_VERTS * (end - start)
    return _Mesh(verts, _CUBE_NORMALS, np.take_along_axis(verts, _CUBE_AXES, axis=1), _CUBE_FACES, colour)


def _pillar(bottom_m: float, top_m: float, height_m: float, colour: tuple[float, ...] | None = None) -> _Mesh:
    """A round pillar with a lid, of one radius at the bottom and one at the top."""
    sides = 14
    angle = np.linspace(0.0, 2.0 * np.pi, sides + 1)
    circle = np.stack([np.sin(angle), np.zeros(sides + 1), np.cos(angle)], axis=1)
    ring = np.concatenate([circle * bottom_m, circle * top_m + (0.0, height_m, 0.0)])
    lid = circle[:-1] * top_m + (0.0, height_m, 0.0)
    around = angle * max(bottom_m, top_m)
    uvs = np.concatenate([np.stack([around, np.full(sides + 1, y)], axis=1) for y in (0.0, height_m)])
    first = np.arange(sides)
    wall = np.concatenate(
        [np.stack([first, first + 1, first + sides + 2], 1), np.stack([first, first + sides + 2, first + sides + 1], 1)]
    )
    fan = np.stack([np.zeros(sides - 2, dtype=np.int64), first[1:-1], first[2:]], axis=1) + 2 * (sides + 1)
    return _Mesh(
        np.concatenate([ring, lid]),
        np.concatenate([circle, circle, np.broadcast_to([0.0, 1.0, 0.0], lid.shape)]),
        np.concatenate([uvs, lid[:, [0, 2]]]),
        np.concatenate([wall, fan]),
        colour,
    )


@lru_cache(maxsize=64)
def _meshes(prop: Prop) -> list[_Mesh]:
    """The convex pieces of a thing, at the origin, its front towards +z."""
    width, height, depth = prop.size_m
    w, d = width / 2.0, depth / 2.0
    match prop.kind:
        case "box":
            return [_block((-w, 0.0, -d), (w, height, d))]
        case "pole":
            return [_pillar(w, w, height)]
        case "table":
            leg = 0.06
            legs = [
                _block((x, 0.0, z), (x + leg, height - 0.04, z + leg)) for x in (-w, w - leg) for z in (-d, d - leg)
            ]
            return [_block((-w, height - 0.04, -d), (w, height, d)), *legs]
        case "chair":
            leg, seat = 0.04, 0.46
            legs = [_block((x, 0.0, z), (x + leg, seat, z + leg)) for x in (-w, w - leg) for z in (-d, d - leg)]
            back = _block((-w, seat + 0.1, -d), (w, height, -d + 0.04))
            posts = [_block((x, seat, -d), (x + leg, height, -d + leg)) for x in (-w, w - leg)]
            return [_block((-w, seat, -d), (w, seat + 0.04, d)), back, *legs, *posts]
        case "shelf":
            return _shelf(prop, w, height, d)
        case "plant":
            return _plant(prop, w, height, d)


def _shelf(prop: Prop, w: float, height: float, d: float) -> list[_Mesh]:
    rng, thick = rng_for("shelf", prop.pattern.seed, *(round(1e4 * value) for value in prop.centre_m)), 0.03
    boards = max(3, round(height / 0.36))
    levels = np.linspace(0.06, height - thick, boards)
    pieces = [
        _block((-w, 0.0, -d), (w, height, -d + 0.01)),
        *(_block((x, 0.0, -d), (x + thick, height, d)) for x in (-w, w - thick)),
        *(_block((-w, y, -d), (w, y + thick, d)) for y in levels),
    ]
    for low, high in itertools.pairwise(levels):
        x = -w + thick + rng.uniform(0.0, 0.1)
        while x < w - 0.3:
            size = rng.uniform((0.06, 0.45, 0.5), (0.28, 0.85, 0.8)) * (1.0, high - low - thick, 2.0 * d)
            colour = tuple(np.clip(rng.uniform(0.1, 0.9) + rng.normal(0.0, 0.12, 3), 0.02, 0.98))
            base = low + thick
            pieces.append(_block((x, base, d - 0.03 - size[2]), (x + size[0], base + size[1], d - 0.03), colour))
            x += size[0] + (rng.uniform(0.03, 0.3) if rng.random() < 0.3 else 0.004)
    return pieces


def _plant(prop: Prop, w: float, height: float, d: float) -> list[_Mesh]:
    rng = rng_for("plant", prop.pattern.seed)
    pot, dark, bright = prop.pattern.colours
    pot_m, radius = 0.22 + 0.1 * height, 0.5 * min(w, d)
    pieces = [_pillar(0.75 * radius, radius, pot_m, pot), _pillar(0.02, 0.015, 0.6 * height, dark)]
    num, wide = int(rng.integers(34, 60)), min(w, d)
    azimuth, rise = rng.uniform(0.0, 2.0 * np.pi, num), rng.uniform(-0.1, 1.3, num)
    out_L3 = np.stack([np.sin(azimuth), np.zeros(num), np.cos(azimuth)], axis=1)
    side_L3 = 0.16 * wide * np.stack([np.cos(azimuth), np.zeros(num), -np.sin(azimuth)], axis=1)
    stem_L3 = rng.uniform(pot_m, 0.7 * height, (num, 1)) * (0.0, 1.0, 0.0)
    far_L1 = rng.uniform(0.6, 1.0, (num, 1)) * wide
    climb_L3 = far_L1 * np.sin(rise)[:, None] * (0.0, 1.0, 0.0)
    middle_L3, tip_L3 = stem_L3 + 0.75 * climb_L3 + 0.5 * far_L1 * out_L3, stem_L3 + climb_L3 + far_L1 * out_L3
    leaves_L43 = np.stack([stem_L3, middle_L3 + side_L3, tip_L3, middle_L3 - side_L3], axis=1)
    leaves_L43[..., 1] = np.minimum(leaves_L43[..., 1], height)
    normals_L3 = np.cross(2.0 * side_L3, tip_L3 - stem_L3)
    normals_L3 /= np.linalg.norm(normals_L3, axis=1, keepdims=True)
    mix_L1 = rng.random((num, 1))
    colours_L3 = (1.0 - mix_L1) * np.array(dark) + mix_L1 * np.array(bright)
    faces = np.concatenate([_QUAD_FACES, _QUAD_FACES[:, ::-1] + 4])
    for verts, normal, colour in zip(leaves_L43, normals_L3, colours_L3, strict=True):
        both = np.repeat([normal, -normal], 4, axis=0)
        pieces.append(_Mesh(np.concatenate([verts, verts]), both, np.zeros((8, 2)), faces, tuple(colour)))
    return pieces


def _turn(prop: Prop) -> Floats:
    cos, sin = np.cos(prop.yaw_rad), np.sin(prop.yaw_rad)
    return np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])


def _place(verts_X3: Floats, prop: Prop) -> Floats:
    return np.asarray(verts_X3 @ _turn(prop).T + (prop.centre_m[0], 0.0, prop.centre_m[1]))


def _palette(meshes: Sequence[_Mesh]) -> tuple[Floats, Bytes]:
    """Texture coordinates and texture of pieces of one colour each; rarely, two pieces share a place."""
    cells = _PALETTE * _PALETTE
    picture = np.zeros((cells, 3), dtype=np.uint8)
    for index, mesh in enumerate(meshes):
        picture[index % cells] = _bytes(np.array(mesh.colour))
    place = np.arange(len(meshes)) % cells
    centres = np.stack([place % _PALETTE + 0.5, _PALETTE - 0.5 - place // _PALETTE], axis=1) / _PALETTE
    texture = picture.reshape(_PALETTE, _PALETTE, 3).repeat(4, axis=0).repeat(4, axis=1)
    return np.repeat(centres, [len(mesh.verts_X3) for mesh in meshes], axis=0), texture


# ------------------------------------------------------------------------------------------------------------ pictures


def _wall_picture(
    pattern: Pattern, tile_HWC: Bytes, length_m: float, height_m: float, art: Bytes, rng: np.random.Generator
) -> Bytes:
    """A wall seen from inside: its pattern, a skirting board, windows, doors and pictures."""
    px_per_m = min(WALL_PX_PER_M, _WALL_PX / length_m)
    height, width = round(height_m * px_per_m), round(length_m * px_per_m)
    edge = max(2, round(pattern.tile_m * px_per_m))
    small = np.asarray(cv2.resize(tile_HWC, (edge, edge), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    picture = np.tile(small, (-(-height // edge), -(-width // edge), 1))[-height:, :width].copy()
    taken: list[tuple[float, float]] = []
    for _ in range(int(rng.integers(3, 9))):
        _hang(picture, px_per_m, art, taken, rng)
    board = np.array(pattern.colours[2]) * rng.uniform(0.6, 1.6)
    picture[height - round(rng.uniform(0.06, 0.16) * px_per_m) :] = _bytes(board)
    return picture


def _wall_shade(room: Room, corner: Floats, along: Floats, rng: np.random.Generator) -> Floats32:
    """How light a wall is from place to place: less in corners and behind furniture, more where a lamp is near."""
    length, height = 2.0 * float(np.abs(along) @ [room.half_m[0], 0.0, room.half_m[1]]), room.height_m
    x = (np.arange(round(length * _SHADE_PX_PER_M)) + 0.5) / _SHADE_PX_PER_M
    y = height - (np.arange(round(height * _SHADE_PX_PER_M)) + 0.5) / _SHADE_PX_PER_M
    foot = np.zeros((len(y), len(x)), dtype=np.float32)
    for prop in room.furniture:
        offset = np.array([prop.centre_m[0] - corner[0], prop.centre_m[1] - corner[2]])
        at = float(offset @ along[[0, 2]])
        away = float(np.linalg.norm(offset - at * along[[0, 2]]))
        if away < prop.size_m[2] / 2.0 + 0.1:
            left, right = at - prop.size_m[0] / 2.0, at + prop.size_m[0] / 2.0
            foot[np.ix_(y < prop.size_m[1], (x > left) & (x < right))] = 0.3 if prop.kind == "plant" else 1.0
    behind = 1.0 - 0.4 * cv2.GaussianBlur(foot, (0, 0), 0.16 * _SHADE_PX_PER_M)
    edge = np.minimum(np.minimum(x, length - x)[None], np.minimum(y, height - y)[:, None])
    corners = 0.72 + 0.28 * np.clip(edge / 0.8, 0.0, 1.0) ** 0.6
    pool_x = np.exp(-0.5 * ((x - rng.uniform(0.0, length)) / rng.uniform(1.0, 2.5)) ** 2)
    pool_y = np.exp(-0.5 * ((y - rng.uniform(1.2, height)) / rng.uniform(0.8, 1.6)) ** 2)
    slope = (
        1.0
        + rng.uniform(-0.12, 0.12) * (2.0 * x / length - 1.0)
        + rng.uniform(0.0, 0.1) * (2.0 * y[:, None] / height - 1.0)
    )
    shade = behind * corners * slope * (0.93 + rng.uniform(0.0, 0.25) * pool_y[:, None] * pool_x)
    return np.asarray(shade, dtype=np.float32)


def _ceiling_picture(room: Room) -> Bytes:
    """A ceiling that darkens towards the walls, with lamps let into it."""
    rng, size = rng_for(room.seed, "ceiling"), 96
    at = np.minimum(np.arange(size) + 0.5, size - 0.5 - np.arange(size)) / size
    edge = [0.75 + 0.25 * np.clip(2.0 * half * at / 1.2, 0.0, 1.0) ** 0.6 for half in room.half_m]
    picture = np.array(room.ceiling) * (edge[1][:, None] * edge[0])[..., None]
    wide, high = (max(1, round(size * rng.uniform(0.2, 0.6) / half / 2.0)) for half in room.half_m)
    for x in np.linspace(0.0, 1.0, 2 + int(rng.integers(1, 4)))[1:-1]:
        for y in np.linspace(0.0, 1.0, 2 + int(rng.integers(1, 4)))[1:-1]:
            left, top = round(x * size - wide / 2.0), round(y * size - high / 2.0)
            picture[top : top + high, left : left + wide] = 1.0
    return _bytes(picture)


def _art(rng: np.random.Generator) -> Bytes:
    """What the pictures of a room are cut from."""
    muted = rng.uniform(0.1, 0.9, (3, 1)) + rng.normal(0.0, 0.12, (3, 3))
    colours = (muted[0].tolist(), muted[1].tolist(), muted[2].tolist())
    kind = str(rng.choice(_ART_KINDS))
    return _bytes(tile(Pattern(kind=kind, colours=colours, tile_m=1.0, seed=int(rng.integers(2**31)))))


def _hang(
    picture: Bytes, px_per_m: float, art: Bytes, taken: list[tuple[float, float]], rng: np.random.Generator
) -> None:
    """Put one door, window or framed picture on a wall, in place, unless its stretch of the wall is taken."""
    height_m, length_m = picture.shape[0] / px_per_m, picture.shape[1] / px_per_m
    kind = str(rng.choice(("door", "window", "frame"), p=(0.25, 0.3, 0.45)))
    wide = {"door": rng.uniform(0.8, 1.1), "window": rng.uniform(0.9, 2.0), "frame": rng.uniform(0.4, 1.3)}[kind]
    high = {"door": 2.05, "window": rng.uniform(0.9, 1.5), "frame": rng.uniform(0.4, 1.1)}[kind]
    low = {"door": 0.0, "window": rng.uniform(0.8, 1.0), "frame": rng.uniform(0.9, 1.5)}[kind]
    left = rng.uniform(0.3, length_m - wide - 0.3)
    if any(left < end + 0.1 and start < left + wide + 0.1 for start, end in taken):
        return
    taken.append((left, left + wide))
    x0, x1 = (round(v * px_per_m) for v in (left, left + wide))
    y0, y1 = (round((height_m - v) * px_per_m) for v in (min(low + high, height_m - 0.2), low))
    rim = max(2, round(rng.uniform(0.03, 0.08) * px_per_m))
    picture[y0:y1, x0:x1] = _bytes(rng.uniform(0.1, 0.95) + rng.normal(0.0, 0.04, 3))
    inner = picture[y0 + rim : y1 - (0 if kind == "door" else rim), x0 + rim : x1 - rim]
    h, w = inner.shape[:2]
    if kind == "frame":
        (top, across), order = rng.integers(0, 128, 2), rng.permutation(3)
        piece = np.ascontiguousarray(art[top : top + 128, across : across + 128, order])
        inner[:] = cv2.resize(piece, (w, h), interpolation=cv2.INTER_AREA)
    elif kind == "window":
        sky = np.linspace(rng.uniform(0.7, 1.0), rng.uniform(0.5, 0.8), h)
        inner[:] = _bytes(sky[:, None, None] * np.array((0.85, 0.93, 1.0)))
        ground = h - round(h * rng.uniform(0.1, 0.5))
        inner[ground:] = _bytes(rng.uniform(0.25, 0.55) * np.array((0.95, 1.0, 0.8)))
        picture[y0:y1, (x0 + x1) // 2 - rim // 2 : (x0 + x1) // 2 + rim // 2 + 1] = picture[y0, x0]
    else:
        colour = np.clip(rng.uniform(0.2, 0.9) * np.array((1.0, 0.9, 0.78)) + rng.normal(0.0, 0.05, 3), 0.0, 1.0)
        inner[:] = _bytes(colour)
        for top, bottom in ((0.08, 0.45), (0.52, 0.94)):
            inner[round(top * h) : round(bottom * h), round(0.15 * w) : round(0.85 * w)] = _bytes(colour * 0.85)
        inner[round(0.5 * h) : round(0.53 * h), round(0.86 * w) : round(0.95 * w)] = 51


def _bytes(picture: npt.ArrayLike) -> Bytes:
    return np.asarray((np.clip(np.asarray(picture), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))
