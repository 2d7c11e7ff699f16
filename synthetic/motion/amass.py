"""Reads AMASS, in both of its releases: `*_poses.npz` (SMPL+H, 52 joints) and `*_stageii.npz` (SMPL-X, 55 joints).

`poses` holds axis-angles: root, 21 joints of the body, then for SMPL+H both hands, for SMPL-X jaw, eyes and hands. The first
22 joints are SMPL's; its two hands take the turn of the index finger's first joint. Shape, gender, markers and soft tissue are
not read: shape is drawn for each person. AMASS has z up.

The licence is non-commercial and rules out training networks for commercial use: so are images that are rendered from it.
Shape letters: T instants, J joints.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.errors import SyntheticError
from manifests.files import NPZ_DAMAGE
from synthetic.motion.clip import Clip, on_floor, thinning
from synthetic.rotations import axis_angle_from_matrix, matrix_from_axis_angle

Floats = npt.NDArray[np.float64]

LICENCE = "AMASS-derived, non-commercial"
MAX_MEMBER_BYTES = 2**30  # some 800,000 instants
# Subsets by their names in older downloads.
RENAMED = {
    "BioMotionLab_NTroje": "BMLrub",
    "DFaust_67": "DFaust",
    "MPI_HDM05": "HDM05",
    "MPI_Limits": "PosePrior",
    "MPI_mosh": "MoSh",
    "SSM_synced": "SSM",
    "TCD_handMocap": "TCDHands",
    "Transitions_mocap": "Transitions",
}
_JOINTS = {"SMPL+H": 52, "SMPL-X": 55}
_HANDS = {"SMPL+H": (22, 37), "SMPL-X": (25, 40)}  # first joints of the left and the right index finger
_OTHER = {"SMPL+H": "SMPL-X", "SMPL-X": "SMPL+H"}
_ENDING = {"SMPL+H": "_poses.npz", "SMPL-X": "_stageii.npz"}
_HIP_M = 0.93
_SANE = 1e6  # radians and metres
_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
_HINT = "download the file again from amass.is.tue.mpg.de, as `SMPL+H G` or `SMPL-X G`, or take it out of the folder"


def holds_shape(path: Path) -> bool:
    """Whether the file is one of those that hold a person's shape and lie among the motions."""
    return path.name.endswith(("shape.npz", "_stagei.npz"))


def read_amass(path: Path, *, name: str) -> Clip:
    """Read a motion of AMASS.

    Args:
        path: a `*_poses.npz` or `*_stageii.npz`; of any other name it is taken for the release that its keys tell.
        name: of the clip.

    Raises:
        SyntheticError: the file is missing, damaged, no motion, or of the other release than its name says.
    """
    if holds_shape(path):
        raise SyntheticError(
            "the file holds a person's shape and no motion", where=path, hint="give *_poses.npz or *_stageii.npz"
        )
    arrays = _read(path)
    release = "SMPL-X" if path.name.endswith("_stageii.npz") or "mocap_frame_rate" in arrays else "SMPL+H"
    missing = [key for key in ("poses", "trans") if key not in arrays]
    rates = [arrays[key] for key in ("mocap_framerate", "mocap_frame_rate") if key in arrays]
    if missing or not rates:
        raise SyntheticError(
            f"the file has no {missing[0] if missing else 'mocap_framerate, nor mocap_frame_rate'}: it is no motion of AMASS",
            where=path,
            hint=_HINT,
        )
    poses, trans_T3 = arrays["poses"], arrays["trans"]
    width = 3 * _JOINTS[release]
    if poses.ndim != 2 or poses.shape[1] != width:
        raise _wrong_width(poses, release, path)
    fps = float(rates[0]) if rates[0].size == 1 else 0.0
    if trans_T3.shape != (len(poses), 3) or len(poses) < 2 or not 1.0 <= fps <= 10_000.0:
        raise SyntheticError(
            f"{len(poses)} poses, translations {trans_T3.shape} and {fps:g} frames a second are no motion",
            where=path,
            hint=_HINT,
        )
    every = thinning(fps)
    left, right = _HANDS[release]
    joints = [*range(22), left, right]
    pose_TJ3 = poses[::every].reshape(-1, _JOINTS[release], 3)[:, joints].astype(np.float64)
    trans_T3 = trans_T3[::every].astype(np.float64)
    if not all(np.abs(values).max() < _SANE for values in (pose_TJ3, trans_T3)):  # nor for NaN
        raise SyntheticError("the motion holds what is no angle or place of a person", where=path, hint=_HINT)
    pose_TJ3[:, 0] = axis_angle_from_matrix(_Y_UP @ matrix_from_axis_angle(pose_TJ3[:, 0]))
    return Clip(
        name=name,
        pose_TJ3=pose_TJ3,
        trans_T3=on_floor(pose_TJ3, trans_T3 @ _Y_UP.T, hip_m=_HIP_M),
        fps=fps / every,
        hip_m=_HIP_M,
        licence=LICENCE,
    )


def _wrong_width(poses: npt.NDArray[np.float64], release: str, path: Path) -> SyntheticError:
    found, other = poses.shape[-1] if poses.ndim == 2 else 0, _OTHER[release]
    if found != 3 * _JOINTS[other]:
        return SyntheticError(f"poses is {poses.shape}, not (T, {3 * _JOINTS[release]})", where=path, hint=_HINT)
    return SyntheticError(
        f"poses has {_JOINTS[other]} joints ({found} numbers), where the {release} release has {_JOINTS[release]}",
        where=path,
        hint=f"this is a file of the {other} release: give it its name back, *{_ENDING[other]}, or download `{release} G`",
    )


def _read(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """The numbers that are wanted; what lies beside them, of any type, is not looked at."""
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for key in ("poses", "trans", "mocap_framerate", "mocap_frame_rate"):
                if f"{key}.npy" not in archive.namelist():
                    continue
                if archive.getinfo(f"{key}.npy").file_size > MAX_MEMBER_BYTES:
                    raise ValueError(f"{key} has more than {MAX_MEMBER_BYTES} bytes")
                array = np.load(io.BytesIO(archive.read(f"{key}.npy")), allow_pickle=False)
                if array.dtype.kind not in "fiu":
                    raise ValueError(f"{key} holds {array.dtype}, not numbers")
                arrays[key] = array
    except NPZ_DAMAGE as error:
        raise SyntheticError(f"the motion cannot be read: {error}", where=path, hint=_HINT) from error
    return arrays
