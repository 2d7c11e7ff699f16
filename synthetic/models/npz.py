"""The file of a model: arrays by name in one npz, written whole, and read only when they fit together."""

import contextlib
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import SyntheticError
from manifests.files import NPZ_DAMAGE
from synthetic.models.fit import NUM_SHAPES


def write_npz(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write arrays by name, atomically; equal arrays give equal bytes.

    Raises:
        SyntheticError: the file cannot be written.
    """
    # Not np.savez: its zip level and dates are its own business, ours are pinned.
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for name in sorted(arrays):
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, np.asanyarray(arrays[name]), allow_pickle=False)
                archive.writestr(
                    zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), buffer.getvalue(), zipfile.ZIP_DEFLATED
                )
        partial.replace(path)
    except OSError as error:
        raise SyntheticError(
            f"the model cannot be written: {error.strerror}",
            where=path,
            hint="choose a folder with free space that you may write",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def read_npz(path: Path, file_format: str, *, hint: str) -> tuple[dict[str, npt.NDArray[Any]], str]:
    """Read what `write_npz` wrote.

    Args:
        path: the file.
        file_format: what `format` in its `provenance` must say.
        hint: what to do when there is no such file.

    Returns:
        The arrays by name, and the SHA-256 of the file.

    Raises:
        SyntheticError: the file is missing, damaged, or of another format.
    """
    what = file_format.split("-")[1]
    try:
        data = path.read_bytes()
        if not data.startswith(b"PK"):
            raise SyntheticError(f"{path.name} is no npz file", where=path, hint=hint)
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        found = str(json.loads(str(arrays["provenance"]))["format"]) if "provenance" in arrays else "unknown"
    except FileNotFoundError:
        raise SyntheticError(f"there is no {what}", where=path, hint=hint) from None
    except NPZ_DAMAGE as error:
        told = "it holds objects where numbers are due" if "allow_pickle" in str(error) else str(error)
        raise SyntheticError(f"the {what} cannot be read: {told}", where=path, hint=hint) from error
    if found != file_format:
        raise SyntheticError(f"the {what} is not of the format {file_format} but of {found!r}", where=path, hint=hint)
    return arrays, hashlib.sha256(data).hexdigest()


def check_model(
    arrays: Mapping[str, npt.NDArray[Any]],
    num_joints: int,
    further: Mapping[str, tuple[int | str, ...]],
    *,
    limits: Mapping[str, int | str],
    where: Path,
    hint: str,
) -> None:
    """Check that a model's arrays fit together and hold numbers.

    Args:
        arrays: by name.
        num_joints: the joints it must have.
        further: shapes of arrays beyond those that all models have; a letter is any length, the same wherever it stands.
        limits: how many things the indices of these arrays choose from, a number or the letter of a length.
        where: the file.
        hint: what to do about a bad one.

    Raises:
        SyntheticError: an array is missing, of another shape or kind, not finite, or points outside another one.
    """
    with_uvs = np.size(arrays.get("face_uvs", ())) > 0  # a converted model has none
    due: dict[str, tuple[int | str, ...]] = {
        "v_template": ("X", 3), "f": ("F", 3), "shapedirs": ("X", 3, "S"), "posedirs": ("X", 3, 9 * (num_joints - 1)),
        "J_regressor": (num_joints, "X"), "weights": ("X", num_joints), "kintree_table": (2, num_joints),
        "face_group": ("F",), "face_uvs": ("F" if with_uvs else 0, 3), "uvs": ("U", 2), **further,
    }  # fmt: skip
    limits = {"f": "X", "face_uvs": "U", **limits}
    whole = {"kintree_table", *limits}
    lengths: dict[int | str, int] = {}

    def refuse(problem: str) -> SyntheticError:
        return SyntheticError(f"the model is damaged: {problem}", where=where, hint=hint)

    for name, shape in due.items():
        if name not in arrays:
            raise refuse(f"it has no {name}")
        array = arrays[name]
        sizes = list(zip(shape, array.shape, strict=False))
        if array.ndim == len(shape) and all(isinstance(size, str) or size == length for size, length in sizes):
            for size, length in sizes:
                lengths.setdefault(size, length)
        wanted = tuple(lengths.get(size, size) for size in shape)
        if array.shape != wanted:
            raise refuse(f"{name} has shape {array.shape}, due is {wanted}".replace("'", ""))
        if array.dtype.kind not in ("iu" if name in whole else "fiu"):
            raise refuse(f"{name} holds {array.dtype}, due are {'whole numbers' if name in whole else 'numbers'}")
        if not np.isfinite(array).all():
            raise refuse(f"{name} holds values that are not finite")
    if not lengths["X"] or not lengths["F"] or lengths["S"] < NUM_SHAPES:
        raise refuse(
            f"shapedirs has shape {arrays['shapedirs'].shape}, due are at least {NUM_SHAPES} shapes, and some faces"
        )
    for name, limit in limits.items():
        most = limit if isinstance(limit, int) else lengths[limit]
        if arrays[name].size and not 0 <= arrays[name].min() <= arrays[name].max() < most:
            raise refuse(f"{name} points at {arrays[name].min()} to {arrays[name].max()}, due is 0 to {most - 1}")
    parents = arrays["kintree_table"][0, 1:]
    if (parents < 0).any() or (parents >= np.arange(1, num_joints)).any():
        raise refuse("kintree_table is no tree in which parents come before their children")


__all__ = ["check_model", "read_npz", "write_npz"]
