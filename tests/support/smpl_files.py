"""Files of the SMPL family as their publishers ship them: true names, keys, shapes and types, invented bodies."""

import pickle
from pathlib import Path

import numpy as np
import scipy.sparse
from scipy.spatial import ConvexHull

from synthetic.models.body import PARENTS
from tests.support.pickles import python2_pickle

JOINTS = {"smpl": 24, "smplh": 52, "mano": 16, "smplx": 55}
VERTICES = {"smpl": 6890, "smplh": 6890, "mano": 778, "smplx": 10475}


def model(family: str, *, seed: int = 0, mirrored: bool = False) -> dict[str, np.ndarray]:
    """Arrays of one model: a closed ellipsoid along x, skinned to its joints; weights and J_regressor sum to one.

    `mirrored` makes the left hand of a MANO whose right hand has the same seed.
    """
    rng = np.random.default_rng(seed)
    num_verts, num_joints = VERTICES[family], JOINTS[family]
    index = np.arange(num_verts) + 0.5
    along, around = 1 - 2 * index / num_verts, index * np.pi * (1 + 5**0.5)
    ring = np.sqrt(1 - along**2)
    sphere = np.stack([along, ring * np.cos(around), ring * np.sin(around)], axis=1)
    faces = ConvexHull(sphere).simplices
    corners = sphere[faces]
    inward = (np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) * corners[:, 0]).sum(axis=1) < 0
    faces[inward] = faces[inward][:, ::-1]
    nearest = np.clip(np.round((1 - along) / 2 * (num_joints - 1)).astype(int), 0, num_joints - 1)
    share = rng.uniform(0.5, 1.0, num_verts)
    weights = np.zeros((num_verts, num_joints))
    weights[np.arange(num_verts), nearest] += share
    weights[np.arange(num_verts), np.maximum(nearest - 1, 0)] += 1 - share
    regressor = np.zeros((num_joints, num_verts))
    for joint in range(num_joints):
        regressor[joint, rng.choice(np.flatnonzero(nearest == joint), 6, replace=False)] = 1 / 6
    parents = PARENTS if family == "smpl" else [(joint - 1) // 2 for joint in range(num_joints)]
    tree = np.stack([parents, np.arange(num_joints)]).astype(np.int64)
    tree[0, 0] = 2**32 - 1
    arrays = {
        "v_template": sphere * (0.1, 0.02, 0.05) if family == "mano" else sphere * (0.3, 0.9, 0.2),
        "f": faces.astype(np.uint32),
        "shapedirs": rng.normal(0, 1e-3, (num_verts, 3, 20 if family == "smplx" else 10)),
        "posedirs": np.zeros((num_verts, 3, 9 * (num_joints - 1)), np.float64 if family == "mano" else np.float32),
        "J_regressor": regressor,
        "kintree_table": tree,
        "weights": weights,
    }
    if family == "mano":
        arrays |= {"hands_components": np.linalg.qr(rng.normal(size=(45, 45)))[0], "hands_mean": rng.normal(0, 0.2, 45)}
    elif family != "smpl":
        for side in "lr":
            arrays[f"hands_components{side}"] = np.linalg.qr(rng.normal(size=(45, 45)))[0]
            arrays[f"hands_mean{side}"] = rng.normal(0, 0.2, 45)
    if family == "smplx":
        arrays |= {
            "lmk_faces_idx": rng.integers(0, len(faces), 51),
            "lmk_bary_coords": rng.dirichlet((1, 1, 1), 51),
            "dynamic_lmk_faces_idx": rng.integers(0, len(faces), (79, 17)),
            "dynamic_lmk_bary_coords": rng.dirichlet((1, 1, 1), (79, 17)),
        }
    if mirrored:
        arrays["v_template"] = arrays["v_template"] * (-1, 1, 1)
        arrays["f"] = arrays["f"][:, ::-1]
    return arrays


def chumpy(array: np.ndarray) -> object:
    """What `chumpy.array(array)` pickles as, made without chumpy."""
    value = type("Ch", (), {"__module__": "chumpy.ch"})()
    value.__dict__ |= {"x": array, "_dirty_vars": set(), "_itr": None, "_depends_on_deps": {}}
    return value


def chumpy_slice(array: np.ndarray, count: int) -> object:
    """What `chumpy.array(array)[..., :count]` pickles as."""
    chosen = np.arange(array.size).reshape(array.shape)[..., :count]
    value = type("Select", (), {"__module__": "chumpy.reordering"})()
    value.__dict__ |= {"a": chumpy(array), "idxs": chosen.ravel(), "preferred_shape": chosen.shape}
    return value


def sum_of_chumpy(array: np.ndarray) -> object:
    """A `chumpy` object that computes: its numbers are nowhere in the pickle."""
    value = type("add", (), {"__module__": "chumpy.ch_ops"})()
    value.__dict__ |= {"a": chumpy(array / 2), "b": chumpy(array / 2)}
    return value


def write_pickle(path: Path, arrays: dict[str, object]) -> Path:
    """By Python 2; J_regressor sparse under the path that scipy had, as all these files have it."""
    regressor = arrays["J_regressor"]
    if isinstance(regressor, np.ndarray):
        regressor = scipy.sparse.csc_matrix(regressor)
    path.write_bytes(python2_pickle({**arrays, "J_regressor": regressor, "bs_style": "lbs", "bs_type": "lrotmin"}))
    return path


def write_npz(path: Path, arrays: dict[str, object]) -> Path:
    """As SMPL-X ships: with two dictionaries among the arrays, which make a careless reader unpickle."""
    tables = {name: np.array({"Pelvis": 0}, dtype=object) for name in ("joint2num", "part2num")}
    np.savez_compressed(path, **arrays, **tables)
    return path


class _Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def write_hostile_pickle(path: Path, trace: Path) -> Path:
    """A model whose pickle makes the file `trace` when it is opened without care."""
    path.write_bytes(pickle.dumps({**model("mano"), "J": _Payload(trace)}, protocol=2))
    return path
