"""Background files made in a test: photos with COCO-like annotations, panoramas that are formulas, a room as a mesh."""

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial

from manifests.geometry import camera_centre, rays
from synthetic.places.room import Surface

# The room, before it is moved to `SHIFT_M`: its inner size, and a table.
HALF_M, HEIGHT_M = (4.0, 3.0), 2.8
TABLE_M = ((1.9, 3.1), (0.0, 0.75), (-2.0, -1.0))
SHIFT_M = (12.0, 1.3, -7.0)
# Discs on it: centre, colour. Two cameras must see them in one place.
MARKS = (
    ((4.0, 1.4, 0.5), (230, 20, 20)),
    ((-1.0, 1.2, -3.0), (20, 200, 20)),
    ((-2.0, 0.0, 1.0), (20, 20, 230)),
)
MARK_M = 0.25  # radius


def write_photo(
    path: Path, *, size: tuple[int, int] = (240, 180), colour: tuple[int, int, int] = (90, 120, 60)
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def write_ramp(path: Path, *, size: tuple[int, int]) -> Path:
    """A photo whose red tells the column and whose green tells the row, as shares of 255."""
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    Image.fromarray(np.stack([across, down, 0 * down], axis=-1).round().astype(np.uint8)).save(path)
    return path


def write_png_of(path: Path, width: int, height: int) -> Path:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    return path


def write_annotations(path: Path, images: Mapping[str, tuple[str, ...]], *, person: str = "person") -> Path:
    """Annotations in COCO's layout, categories last as in COCO's own: for each image, the categories it shows."""
    categories = sorted({person, "dog", *(name for shown in images.values() for name in shown)})
    listed = [{"id": 100 + k, "file_name": name, "width": 240, "height": 180} for k, name in enumerate(images)]
    shown = [(100 + k, categories.index(name) + 1) for k, names in enumerate(images.values()) for name in names]
    data = {
        "info": {"year": 2017},
        "images": listed,
        "annotations": [
            {"id": n, "image_id": image, "category_id": category, "segmentation": [[1.0, 2.0, 3.0]], "iscrowd": 0}
            for n, (image, category) in enumerate(shown)
        ],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(categories)],
    }
    path.write_text(json.dumps(data))
    return path


def panorama_of(colour: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], *, height: int = 256) -> np.ndarray:
    """(H, 2H, 3): the formula's colours, in [0, 1], of the unit directions x, y, z of each pixel."""
    polar = (np.arange(height) + 0.5) / height * np.pi
    around = (np.arange(2 * height) + 0.5) / (2 * height) * 2 * np.pi - np.pi
    around, polar = np.meshgrid(around, polar)
    x, y, z = np.sin(polar) * np.sin(around), np.cos(polar), -np.sin(polar) * np.cos(around)
    return (colour(x, y, z) * 255.0 + 0.5).astype(np.uint8)


def slopes(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """A sky in which every direction has a colour of its own."""
    return np.stack([0.5 + 0.4 * x, 0.5 + 0.4 * y, 0.5 + 0.4 * z], axis=-1)


def room_scene(*, up: str = "y", table: bool = True, scale: float = 1.0) -> trimesh.Scene:
    """A furnished room as a scene graph: textured floor and walls, a plain ceiling, a table with colours of vertices."""
    (wide, deep), high = HALF_M, HEIGHT_M
    walls = {
        "floor": ([-wide, 0, deep], [2 * wide, 0, 0], [0, 0, -2 * deep], (150, 140, 130)),
        "back": ([-wide, 0, -deep], [2 * wide, 0, 0], [0, high, 0], (190, 180, 160)),
        "right": ([wide, 0, -deep], [0, 0, 2 * deep], [0, high, 0], (150, 170, 190)),
        "front": ([wide, 0, deep], [-2 * wide, 0, 0], [0, high, 0], (180, 190, 150)),
        "left": ([-wide, 0, deep], [0, 0, -2 * deep], [0, high, 0], (170, 150, 180)),
    }
    scene = trimesh.Scene()
    place = trimesh.transformations.translation_matrix(SHIFT_M)
    if up == "z":
        place = trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]) @ place
    place = np.diag([scale, scale, scale, 1.0]) @ place
    for name, (corner, along, rise, colour) in walls.items():
        mesh = _quad(corner, along, rise)
        mesh.visual = TextureVisuals(
            uv=np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=float),
            material=PBRMaterial(baseColorTexture=Image.fromarray(_marked(corner, along, rise, colour))),
        )
        scene.add_geometry(mesh, node_name=name, geom_name=name, transform=place)
    ceiling = _quad([-wide, high, -deep], [2 * wide, 0, 0], [0, 0, 2 * deep])
    ceiling.visual = TextureVisuals(material=PBRMaterial(baseColorFactor=[255, 255, 255, 255]))
    scene.add_geometry(ceiling, node_name="ceiling", geom_name="ceiling", transform=place)
    if table:
        low, size = np.array(TABLE_M)[:, 0], np.ptp(np.array(TABLE_M), axis=1)
        box = trimesh.creation.box(size)
        box.apply_translation(low + size / 2)
        box.visual = ColorVisuals(box, vertex_colors=np.tile(np.uint8([120, 80, 40, 255]), (len(box.vertices), 1)))
        scene.add_geometry(box, node_name="table", geom_name="table", transform=place)
    return scene


def write_room(path: Path, **how: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene = room_scene(**how)  # type: ignore[arg-type]
    if path.suffix == ".ply":
        mesh = scene.to_mesh()
        mesh.visual = ColorVisuals(mesh, face_colors=np.tile(np.uint8([90, 60, 30, 255]), (len(mesh.faces), 1)))
        mesh.export(path)
    else:
        scene.export(path)
    return path


def cast(surfaces: list[Surface], intrinsics: np.ndarray, camera_from_world: np.ndarray, side_px: int) -> np.ndarray:
    """What a camera sees of surfaces, (S, S, 3), ray by ray and triangle by triangle: slow, and without OpenGL."""
    at = np.arange(side_px, dtype=float)
    gaze = rays(np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2), intrinsics, camera_from_world)
    eye = camera_centre(camera_from_world)
    nearest, picture = np.full(len(gaze), np.inf), np.zeros((len(gaze), 3), np.uint8)
    for surface in surfaces:
        height, width = surface.texture_HWC.shape[:2]
        for face in surface.faces_F3:
            a, b, c = surface.verts_X3[face]
            # eye + t gaze = a + u (b - a) + v (c - a)
            system = np.stack(np.broadcast_arrays(gaze, a - b, a - c), axis=-1)
            sound = np.abs(np.linalg.det(system)) > 1e-12
            t, u, v = np.full((3, len(gaze)), -1.0)
            t[sound], u[sound], v[sound] = np.linalg.solve(system[sound], (a - eye)[:, None])[..., 0].T
            hit = (t > 1e-6) & (t < nearest) & (u >= 0) & (v >= 0) & (u + v <= 1)
            uv = np.stack([1 - u - v, u, v], axis=-1)[hit] @ surface.uvs_X2[face]
            column = np.minimum((uv[:, 0] * width).astype(int), width - 1)
            row = np.minimum(((1 - uv[:, 1]) * height).astype(int), height - 1)
            nearest[hit], picture[hit] = t[hit], surface.texture_HWC[row, column]
    return picture.reshape(side_px, side_px, 3)


def _quad(corner: list[float], along: list[float], rise: list[float]) -> trimesh.Trimesh:
    start, right, up = np.array(corner, float), np.array(along, float), np.array(rise, float)
    return trimesh.Trimesh(
        [start, start + right, start + right + up, start + up], [[0, 1, 2], [0, 2, 3]], process=False
    )


def _marked(corner: list[float], along: list[float], rise: list[float], colour: tuple[int, int, int]) -> np.ndarray:
    """The picture of a wall, 50 pixels a metre, with the discs that lie on it."""
    start, right, up = np.array(corner, float), np.array(along, float), np.array(rise, float)
    width, height = (round(50 * np.abs(v).sum()) for v in (right, up))
    across, rising = np.meshgrid((np.arange(width) + 0.5) / width, 1 - (np.arange(height) + 0.5) / height)
    points = start + across[..., None] * right + rising[..., None] * up
    picture = np.full((height, width, 3), colour, np.uint8)
    for centre, mark in MARKS:
        picture[np.linalg.norm(points - centre, axis=-1) < MARK_M] = mark
    return picture
