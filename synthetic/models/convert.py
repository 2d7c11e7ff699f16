"""Turns files of the SMPL family, as their publishers ship them, into clean npz files: once, by an explicit command.

    models/SMPL_FEMALE.pkl  --convert_model-->  smpl_female.npz

The pickles among them are old, hold `chumpy` objects and sparse matrices, and could run code; `smplx` opens them without any
limit. Here they go through `manifests.unpickle`, every array that a family needs is checked, and what is written holds
plain numbers only. Only such files are given to `smplx`.

Shape letters: X vertices, F faces, J joints, S shape components.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import SourceError
from manifests.files import NPZ_DAMAGE
from manifests.unpickle import Inert, SparseColumns, loads_pickle
from synthetic.models.body import BODY_FORMAT, EXTRA_JOINTS, PARENTS
from synthetic.models.fit import NUM_SHAPES
from synthetic.models.hand import HAND_FORMAT, TIPS
from synthetic.models.npz import write_npz

Array = npt.NDArray[Any]
Shape = tuple[int | None, ...]  # None: any length

_MAX_FILE_BYTES = 2 << 30
_MAX_NESTING = 8
_PUBLISHERS = (
    "get SMPL_*.pkl or basicModel_*.pkl, SMPLH_*.pkl, MANO_*.pkl, SMPLX_*.npz from the sites of SMPL, MANO and SMPL-X; "
    "each is read under the name it was downloaded"
)
_LARGEST = 1e10  # more than any number in these files
_ROOT = 2**32 - 1  # how official files write that the root has no parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What a family's files hold.

    Attributes:
        name: as its publisher calls it.
        num_joints: joints, by which the family is told.
        num_vertices: vertices of its one mesh.
        needs: further arrays and their shapes.
        may_have: arrays that are taken along when they are there.
        place: where `smplx.create` looks for the file.
    """

    name: str
    num_joints: int
    num_vertices: int
    needs: Mapping[str, Shape] = field(default_factory=dict)
    may_have: Mapping[str, Shape] = field(default_factory=dict)
    place: str

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shape of each required array."""
        verts, joints = self.num_vertices, self.num_joints
        return {
            "v_template": (verts, 3),
            "f": (None, 3),
            "shapedirs": (verts, 3, None),
            "posedirs": (verts, 3, 9 * (joints - 1)),
            "J_regressor": (joints, verts),
            "kintree_table": (2, joints),
            "weights": (verts, joints),
            **self.needs,
        }


_TWO_HANDS: dict[str, Shape] = {
    "hands_componentsl": (45, 45), "hands_componentsr": (45, 45), "hands_meanl": (45,), "hands_meanr": (45,),
}  # fmt: skip
FAMILIES = (
    Family(
        name="SMPL", num_joints=24, num_vertices=6890,
        place='smplx.SMPL("", data_struct=smplx.utils.Struct(**np.load(FILE)))',
    ),
    Family(
        name="SMPL-H", num_joints=52, num_vertices=6890, needs=_TWO_HANDS,
        place="smplh/SMPLH_{NEUTRAL,MALE,FEMALE}.npz with ext='npz'",
    ),
    Family(
        name="MANO", num_joints=16, num_vertices=778, needs={"hands_components": (45, 45), "hands_mean": (45,)},
        place="mano/MANO_{RIGHT,LEFT}.npz with ext='npz'",
    ),
    Family(
        name="SMPL-X", num_joints=55, num_vertices=10475,
        needs={**_TWO_HANDS, "lmk_faces_idx": (51,), "lmk_bary_coords": (51, 3)},
        may_have={
            "dynamic_lmk_faces_idx": (None, None), "dynamic_lmk_bary_coords": (None, None, 3), "vt": (None, 2), "ft": (None, 3),
        },
        place="smplx/SMPLX_{NEUTRAL,MALE,FEMALE}.npz",
    ),
)  # fmt: skip
_INDICES = {"f", "kintree_table", "lmk_faces_idx", "dynamic_lmk_faces_idx", "ft"}


def convert_model(source: Path, out: Path) -> Family:
    """Convert one model file.

    Equal files under equal names give equal bytes. A 24-joint SMPL can also be loaded by `synthetic.models.body.load_body`, a MANO by
    `synthetic.models.hand.load_hand`. A left MANO hand is compared with its right hand, `MANO_RIGHT.pkl` in the same folder: as
    shipped, it has the right hand's shape components, not mirrored, which is put right.

    Args:
        source: SMPL_*.pkl, basicModel_*.pkl, SMPLH_*.pkl, MANO_*.pkl, SMPLX_*.npz, ... under any name.
        out: the npz to write.

    Returns:
        The family that was found.

    Raises:
        SourceError: the file is no model of the family, is damaged or hostile, or cannot be read without `chumpy`.
        SyntheticError: the npz cannot be written.
    """
    if out.suffix != ".npz" or out.resolve() == source.resolve():
        raise SourceError("the result must be another file, an .npz", where=out, hint="convert IN OUT.npz")
    values, sha256 = _read_file(source)
    family, arrays = _checked_model(values, source)
    provenance = {
        "format": f"crosspose-{family.name.lower().replace('-', '')}-1",
        "layout": family.name,
        "made_from": source.name,
        "made_from_sha256": sha256,
        "terms": "those of the file it was made from; as a rule non-commercial, and not to be passed on",
    }
    if family.name == "SMPL":
        provenance["format"] = BODY_FORMAT
        arrays |= _body_extras(len(arrays["f"]))
    elif family.name == "MANO":
        provenance["format"] = HAND_FORMAT
        arrays |= _hand_extras(arrays, source, out)
    write_npz(out, {**arrays, "provenance": np.array(json.dumps(provenance, sort_keys=True))})
    return family


# ------------------------------------------------------------------------------------------------------------- reading


def _read_file(path: Path) -> tuple[dict[str, Any], str]:
    """Everything in the file that stands under a name that some family knows, and the file's SHA-256."""
    if path.is_dir():
        models = sorted(p.name for p in path.iterdir() if p.suffix in (".pkl", ".npz"))
        hint = (
            f"name one of its files: {', '.join(models[:8])}"
            if models
            else "it holds no .pkl or .npz: unpack the download"
        )
        raise SourceError(f"{path.name} is a folder", where=path, hint=hint)
    try:
        size = path.stat().st_size
        if size > _MAX_FILE_BYTES:
            raise SourceError(
                f"{path.name} has {size / 2**30:.1f} GiB", where=path, hint="check that it is the right file"
            )
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read {path.name}: {error.strerror}", where=path, hint="check the path") from error
    names = {name for family in FAMILIES for name in (*family.shapes, *family.may_have)}
    found = _read_npz(data, names, path) if data.startswith(b"PK") else loads_pickle(data, path)
    if not isinstance(found, dict):
        raise SourceError(f"{path.name} holds a {type(found).__name__}, no model", where=path, hint=_PUBLISHERS)
    return {name: found[name] for name in names if name in found}, hashlib.sha256(data).hexdigest()


def _read_npz(data: bytes, names: set[str], where: Path) -> dict[str, Array]:
    found: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: info.file_size for info in archive.infolist()}
            wanted = [name for name in sorted(names) if f"{name}.npy" in members]
            if sum(members[f"{name}.npy"] for name in wanted) > _MAX_FILE_BYTES:
                raise ValueError("it unpacks to more than a model has")
            if not wanted and not any(name.endswith(".npy") for name in members):
                raise ValueError("it is an archive of other files")
            for name in wanted:
                # Arrays of objects stop here: reading them would mean `pickle.load`.
                found[name] = np.load(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)
    except NPZ_DAMAGE as error:
        what = f"{where.name} does not read as an npz of arrays: {error}"
        hint = "download it again; unpack a .zip first"
        if "allow_pickle" in str(error):
            what = f"{where.name} holds objects under {name!r} where numbers are due"
            hint = (
                "reading objects could run code: get the file from its publisher, or save this array as plain numbers"
            )
        raise SourceError(what, where=where, hint=hint) from error
    return found


def _plain(value: Any, nesting: int = 0) -> Array | None:
    """The numbers of an array, a sparse matrix or a `chumpy` object; None where they cannot be told without running it."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, SparseColumns):
        return value.toarray()
    if not isinstance(value, Inert) or not isinstance(value.state, dict) or nesting == _MAX_NESTING:
        return None
    state, kind = value.state, value.name.rpartition(".")[2]
    below = _plain(state.get("x" if kind == "Ch" else "a"), nesting + 1)
    try:
        if kind == "Select" and below is not None:
            below = below.ravel()[np.asarray(state["idxs"])].reshape(state.get("preferred_shape", -1))
        elif kind == "Reshape" and below is not None:
            below = below.reshape(state["newshape"])
        elif kind != "Ch":
            return None
    except (ValueError, TypeError, LookupError):
        return None
    return below


# ------------------------------------------------------------------------------------------------------------ checking


def _checked_model(values: Mapping[str, Any], where: Path) -> tuple[Family, dict[str, Array]]:
    weights = _numbers(values, "weights", where)
    found = [family for family in FAMILIES if weights.ndim == 2 and family.num_joints == weights.shape[1]]
    if not found:
        known = ", ".join(f"{f.name} {f.num_joints}" for f in FAMILIES)
        raise SourceError(
            f"{where.name} has weights of shape {weights.shape}: no known family has so many joints ({known})",
            where=where,
            hint=_PUBLISHERS,
        )
    family = found[0]
    missing = sorted(set(family.shapes) - set(values))
    if missing and set(missing) <= set(_TWO_HANDS):
        raise SourceError(
            f"{where.name} is {family.name} without {', '.join(missing)}: this is the body alone, as AMASS's model.npz",
            where=where,
            hint="give SMPLH_*.pkl or SMPLX_*.npz, or add the hands by smplx's tools/merge_smplh_mano.py",
        )
    arrays = {name: _numbers(values, name, where) for name in family.shapes}
    arrays |= {name: _numbers(values, name, where) for name in family.may_have if name in values}
    for name, shape in {**family.shapes, **family.may_have}.items():
        if name in arrays:
            arrays[name] = _checked_array(name, arrays[name], shape, family, where)
    _check_sense(arrays, family, where)
    return family, arrays


def _numbers(values: Mapping[str, Any], name: str, where: Path) -> Array:
    if name not in values:
        raise SourceError(f"{where.name} has no {name}", where=where, hint=_PUBLISHERS)
    array = _plain(values[name])
    if array is None:
        kind = values[name].name if isinstance(values[name], Inert) else type(values[name]).__name__
        raise SourceError(
            f"the numbers of {name} cannot be read from {kind!r}",
            where=where,
            hint="run smplx's tools/clean_ch.py once where chumpy is installed, and convert its result",
        )
    return array


def _checked_array(name: str, array: Array, shape: Shape, family: Family, where: Path) -> Array:
    def refuse(problem: str) -> SourceError:
        return SourceError(f"{name} of {where.name} {problem}", where=where, hint=_PUBLISHERS)

    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    if not fits or 0 in array.shape:
        due = ", ".join("any" if size is None else str(size) for size in shape)
        raise refuse(f"has shape {array.shape}, {family.name} has ({due})")
    if array.dtype.kind not in "fiu" or not (np.abs(array) < _LARGEST).all():
        raise refuse(f"holds {array.dtype}, or values that are not finite or far too large; real numbers are due")
    if name not in _INDICES:
        return array.astype(np.float32)
    if (array != np.trunc(array)).any():
        raise refuse("holds fractions; whole numbers are due")
    return array.astype(np.int64)


def _check_sense(arrays: dict[str, Array], family: Family, where: Path) -> None:
    """What shapes cannot tell. Turns `kintree_table` and `f` into the types that are written."""
    num_faces, tree = len(arrays["f"]), arrays["kintree_table"]
    parents = tree[0]
    limits = {"f": family.num_vertices, "lmk_faces_idx": num_faces, "dynamic_lmk_faces_idx": num_faces}
    limits["ft"] = len(arrays.get("vt", ()))
    problem = ""
    for name in sorted(arrays.keys() & limits.keys()):
        if arrays[name].min() < 0 or arrays[name].max() >= limits[name]:
            problem = f"{name} points at {arrays[name].max()} of {limits[name]}"
    if arrays["shapedirs"].shape[2] < NUM_SHAPES:
        problem = f"there are {arrays['shapedirs'].shape[2]} shape components, at least {NUM_SHAPES} are due"
    for name in ("weights", "J_regressor"):
        sums = arrays[name].sum(axis=1, dtype=np.float64)
        row = int(np.abs(sums - 1).argmax())
        if abs(sums[row] - 1) > 1e-2:
            problem = f"row {row} of {name} sums to {sums[row]:.3f}, not to 1"
    if arrays["weights"].min() < -1e-6:
        problem = "weights are negative"
    children = np.arange(1, family.num_joints)
    if parents[0] not in (-1, _ROOT) or (parents[1:] < 0).any() or (parents[1:] >= children).any():
        problem = "kintree_table is no tree in which parents come before their children"
    elif family.name == "SMPL" and tuple(parents[1:]) != PARENTS[1:]:
        problem = "kintree_table is not the tree of SMPL's 24 joints"
    if problem:
        raise SourceError(f"{where.name} is no usable {family.name}: {problem}", where=where, hint=_PUBLISHERS)
    arrays["kintree_table"] = np.stack([np.concatenate([[_ROOT], parents[1:]]), np.arange(family.num_joints)])
    arrays["f"] = arrays["f"].astype(np.uint32)


# -------------------------------------------------------------------------------------------------------------- extras


def _body_extras(num_faces: int) -> dict[str, Array]:
    """What `BodyModel` needs beyond SMPL's own arrays: all is skin, and there are no texture coordinates."""
    from smplx.vertex_ids import vertex_ids

    return {
        "face_group": np.zeros(num_faces, dtype=np.uint8),
        "face_uvs": np.zeros((0, 3), dtype=np.int32),
        "uvs": np.zeros((0, 2), dtype=np.float32),
        "extra_vertices": np.array([vertex_ids["smplh"][name] for name in EXTRA_JOINTS], dtype=np.int64),
    }


def _hand_extras(arrays: dict[str, Array], source: Path, out: Path) -> dict[str, Array]:
    """What `HandModel` needs beyond MANO's own arrays."""
    from smplx.vertex_ids import vertex_ids

    joints_J3 = arrays["J_regressor"] @ arrays["v_template"]
    side = "right" if joints_J3[4, 0] < joints_J3[0, 0] else "left"  # the middle finger points to -x from a right wrist
    other = "left" if side == "right" else "right"
    if other.upper() in out.name.upper():
        raise SourceError(
            f"{source.name} holds a {side} hand", where=out, hint=f"smplx goes by names: write MANO_{side.upper()}.npz"
        )
    if side == "left":
        _mirror_left_shapes(arrays, source)
    return {
        "side": np.array(side),
        "tip_vertices": np.array([vertex_ids["mano"][name] for name in TIPS], dtype=np.int64),
        "face_group": np.zeros(len(arrays["f"]), dtype=np.uint8),
        "face_uvs": np.zeros((0, 3), dtype=np.int32),
        "uvs": np.zeros((0, 2), dtype=np.float32),
    }


def _mirror_left_shapes(arrays: dict[str, Array], source: Path) -> None:
    # Source: smplx issue 48.
    beside = source.with_name(source.name.replace("LEFT", "RIGHT").replace("left", "right"))
    if beside == source or not beside.is_file():
        raise SourceError(
            f"{source.name} is a left hand, and its right hand is not beside it",
            where=source,
            hint="put MANO_LEFT.pkl and MANO_RIGHT.pkl in one folder: left hands are shipped with shapes to be mirrored",
        )
    right = _checked_model(_read_file(beside)[0], beside)[1]["shapedirs"]
    left = arrays["shapedirs"]
    if right.shape == left.shape and np.abs(left[:, 0] - right[:, 0]).sum() < 0.1 * np.abs(right[:, 0]).sum():
        left[:, 0] *= -1


__all__ = ["FAMILIES", "Family", "convert_model"]
