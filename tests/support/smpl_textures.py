"""SURREAL's textures and SMPL's texture coordinates in their true layout, with invented pictures and coordinates."""

from pathlib import Path

import cv2
import numpy as np


def spherical_uvs(verts: np.ndarray) -> np.ndarray:
    """A pair of texture coordinates for each vertex, and the same once more moved, as along a seam."""
    unit = verts / np.linalg.norm(verts, axis=1, keepdims=True)
    uv = np.stack(
        [np.arctan2(unit[:, 0], unit[:, 2]) / (2.5 * np.pi) + 0.5, np.arcsin(unit[:, 1]) / np.pi + 0.5], axis=1
    )
    return np.concatenate([uv, 0.9 * uv])


def write_uv_obj(
    path: Path, verts: np.ndarray, faces: np.ndarray, *, seed: int = 0, shuffle: bool = False
) -> np.ndarray:
    """Write an OBJ like smpl_uv.obj; each corner takes its vertex' first or second pair by chance.

    With `shuffle`, faces come in another order and begin at another corner. Returns the index (F, 3) of each corner's pair.
    """
    rng = np.random.default_rng(seed)
    face_uvs = faces.astype(np.int64) + len(verts) * (rng.random((len(faces), 1)) < 0.3)
    lines = ["# texture coordinates", "o smpl"]
    lines += [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in verts]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in spherical_uvs(verts)]
    lines.append("s off")
    order = rng.permutation(len(faces)) if shuffle else np.arange(len(faces))
    for face in order:
        turn = int(rng.integers(3)) if shuffle else 0
        lines.append(
            "f "
            + " ".join(f"{a + 1}/{b + 1}" for a, b in np.roll(np.stack([faces[face], face_uvs[face]], 1), turn, axis=0))
        )
    path.write_text("\n".join(lines) + "\n")
    return face_uvs


def write_texture(path: Path, colour: tuple[int, int, int], *, size: tuple[int, int] = (512, 512)) -> Path:
    """A picture of one colour (RGB) whose upper half is black."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((size[1], size[0], 3), colour[::-1], np.uint8)
    picture[: size[1] // 2] = 0
    assert cv2.imwrite(str(path), picture)
    return path


def write_textures(folder: Path) -> Path:
    """As SURREAL unpacks: two folders, people in ordinary clothes and scans in grey."""
    for gender, red in (("female", 200), ("male", 90)):
        for index in range(4):
            write_texture(folder / gender / f"nongrey_{gender}_{index:04d}.jpg", (red, 40 * index, 60))
            write_texture(folder / gender / f"grey_{gender}_{index:04d}.jpg", (128, 128, 128))
    return folder
