"""HanCo for hands seen from two sides: right hands before eight synchronous cameras.

``` text
<root>/meta.json                             is_train, subject_id, is_valid, has_fit: for each sequence a list of one value per frame
<root>/rgb/0110/cam3/00000024.jpg            crops of 224 px
<root>/calib/0110/00000024.json              K (8, 3, 3) and M (8, 4, 4), world to camera, of this frame's crops
<root>/xyz/0110/00000024.json                (21, 3) joints in the world, metres
<root>/shape/0110/cam3/00000024.json         optional: one list, 48 pose and 10 shape values first, in the camera's axes
```
The second picture is of a neighbouring camera at the same instant, by the authors' table of partners; which one is fixed by the key. Sequences
with `is_train` false are the test split, because FreiHAND's evaluation set was taken from them; subjects of the others are parted into
train and val. Where the MANO parameters lie and in whose axes was read in third-party code (unverified).

Source: Zimmermann et al., Contrastive representation learning for hand shape estimation, GCPR 2021.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import SourceError
from manifests.seeds import rng_for
from manifests.splits import split_of
from manifests.types import Domain, Reason, Reject, Split
from training.examples.base import About
from training.examples.listed import Entry, Listed

SIZE_PX = 224
VAL_SHARE = 0.1
PARTNERS = {
    0: (1, 4, 7), 1: (0, 2, 6), 2: (1, 3, 4), 3: (2, 5, 6), 4: (0, 2, 5), 5: (3, 4, 7), 6: (1, 3, 7), 7: (0, 5, 6),
}  # fmt: skip
_SQUARE = np.array([-0.5, -0.5, SIZE_PX - 0.5, SIZE_PX - 0.5])


def hanco(root: Path, *, split: str) -> Listed:
    """Views of one split.

    Args:
        root: holds `rgb/`, `meta.json`, `calib/` and `xyz/`.
        split: train, val or test.

    Raises:
        SourceError: something is missing or of another form.
    """
    meta = _json(root / "meta.json", "it is the separate download 'Camera Calibration and Meta Information'")
    if not isinstance(meta, dict) or not isinstance(meta.get("is_train"), list):
        raise SourceError("no list is_train", where=root / "meta.json", hint="get HanCo's meta.json again")
    entries: list[Entry] = []
    counted: dict[tuple[str, Reason, str], int] = {}
    for folder in sorted(path for path in (root / "rgb").glob("[0-9]" * 4) if path.is_dir()):
        which = _split_of(meta, int(folder.name))
        if which is None:
            counted[folder.name, Reason.UNLABELLED, "meta.json does not know the sequence"] = 1
        elif which == split:
            frames = sorted({path.stem for path in folder.glob("cam[0-7]/*.jpg")})
            for frame in frames:
                found, reject = _instant(root, folder, frame, meta)
                entries += found
                if reject is not None:
                    counted[folder.name, *reject] = counted.get((folder.name, *reject), 0) + 1
    if not entries:
        raise SourceError(
            f"no hand of the {split} split",
            where=root,
            hint="give the folder that holds rgb/, calib/, xyz/ and meta.json",
        )
    about = About(
        name="hanco",
        domain=Domain.HAND,
        split=split,
        labels=(
            "side",
            "joints_m",
            "keypoints_px",
            "intrinsics",
            "instance",
            *(["pose", "betas"] if all("pose" in e.labels for e in entries) else []),
        ),
        joint_set="hand21",
        keypoint_set="hand21",
        protocol="whole crops of 224 px; second picture from a neighbouring camera",
        rejects=tuple(Reject("examples", f"hanco/{key}", why, what, num) for (key, why, what), num in counted.items()),
    )
    return Listed(about, entries)


def _split_of(meta: dict[str, Any], sequence: int) -> str | None:
    try:
        is_train = bool(meta["is_train"][sequence][0])
        subject = str(meta["subject_id"][sequence][0]) if "subject_id" in meta else f"sequence {sequence}"
    except (IndexError, KeyError, TypeError):
        return None
    return split_of(subject, seed=0, val_share=VAL_SHARE).value if is_train else Split.TEST.value


def _instant(
    root: Path, folder: Path, frame: str, meta: dict[str, Any]
) -> tuple[list[Entry], tuple[Reason, str] | None]:
    """Entries of all cameras at one instant, or why there are none."""
    sequence, number = int(folder.name), int(frame)
    try:
        if not all(meta[name][sequence][number] for name in ("is_valid",) if name in meta):
            return [], (Reason.UNLABELLED, "frames are not valid")
        calib = _json(root / "calib" / folder.name / f"{frame}.json", "unpack calib/")
        xyz = np.array(_json(root / "xyz" / folder.name / f"{frame}.json", "unpack xyz/"), dtype=np.float64).reshape(
            21, 3
        )
        K, M = np.array(calib["K"], np.float64).reshape(8, 3, 3), np.array(calib["M"], np.float64).reshape(8, 4, 4)
        if not all(np.isfinite(array).all() for array in (K, M, xyz)):
            raise ValueError("a number is none")
    except (SourceError, ValueError, TypeError, KeyError, IndexError):
        return [], (Reason.UNLABELLED, "frames lack meta, calibration or joints")
    there = [camera for camera in range(8) if (folder / f"cam{camera}" / f"{frame}.jpg").is_file()]
    entries = []
    for camera in there:
        key = f"hanco/{folder.name}/{frame}/cam{camera}"
        partners = [other for other in PARTNERS[camera] if other in there]
        other = int(rng_for(key).choice(partners)) if partners else None
        joints = xyz @ M[camera, :3, :3].T + M[camera, :3, 3]
        pixels = joints @ K[camera].T
        labels: dict[str, Any] = {
            "side": "right",
            "joints_m": joints.astype(np.float32),
            "keypoints_px": np.column_stack([pixels[:, :2] / pixels[:, 2:], np.ones(21)]).astype(np.float32),
            "intrinsics": K[camera],
            "instance": f"{folder.name}/{frame}",
        }
        subject = str(meta["subject_id"][sequence][0]) if "subject_id" in meta else folder.name
        entries.append(
            Entry(
                key=key,
                picture=folder / f"cam{camera}" / f"{frame}.jpg",
                square_xyxy_px=_SQUARE,
                labels=labels | _mano(root / "shape" / folder.name / f"cam{camera}" / f"{frame}.json"),
                subject=subject,
                second=None if other is None else folder / f"cam{other}" / f"{frame}.jpg",
                second_square_xyxy_px=None if other is None else _SQUARE,
            )
        )
    return entries, None


def _mano(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    try:
        values = np.array(json.loads(path.read_bytes()), dtype=np.float32).ravel()
    except (OSError, ValueError, TypeError, RecursionError):
        return {}
    if len(values) < 58 or not np.isfinite(values).all():
        return {}
    return {"pose": values[:48].reshape(16, 3), "betas": values[48:58]}


def _json(path: Path, hint: str) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}", where=path, hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"not JSON: {error}", where=path, hint="unpack it again") from error
