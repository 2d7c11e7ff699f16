"""EFT: SMPL bodies fitted to pictures of COCO, MPII, LSP and others, as one JSON file for each.

``` text
eft_fit/COCO2014-Part-ver01.json     {"ver": ..., "data": [entry, ...]}; 28 thousand, ...-All-: 79 thousand; MPII_ver01.json
coco/train2014/COCO_train2014_000000000009.jpg
```
Of an entry are read `parm_pose` (24 rotations of 3 x 3), `parm_shape` (10), `bbox_center` and `bbox_scale` (a square of 200 px times it),
`gt_keypoint_2d` (49 x 3, x, y, confidence, order of SPIN) where it is, `annotId`, `imageName`. Where only COCO's folders of 2017 are
there, the same picture has a name without a prefix. The file of all takes 0.6 GB: it is streamed, and what is kept is 1 kB an entry.

Source: Joo et al., Exemplar fine-tuning for 3D human model fitting, 3DV 2021; CC BY-NC 4.0.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from manifests.errors import SourceError
from manifests.jsonstream import iter_items
from manifests.splits import split_of
from manifests.types import Domain, Reason, Reject, Split
from training.examples.base import About
from training.examples.listed import Entry, Listed

VAL_SHARE = 0.02
_PREFIX = "COCO_train2014_"
_FOLDERS = ("train2014", "train2017", "val2017", "images", ".")
_TURN = 1e-3  # how far a fitted rotation may be from one


def coco_eft(root: Path, *, split: str, file: str = "eft_fit/COCO2014-Part-ver01.json", images: str = "") -> Listed:
    """People of one fitted file.

    Args:
        root: where `file` and `images` are looked for.
        split: train, or val: one picture in fifty.
        file: the JSON; a path below the root, or an absolute one.
        images: folder of the pictures, or of train2014/, train2017/ and val2017/.

    Raises:
        SourceError: the file is missing, is no file of EFT, or none of its pictures is here.
    """
    path, home = root / file, root / images
    folders = [folder for name in _FOLDERS if (folder := home / name).is_dir()]
    if not path.is_file():
        raise SourceError("there is no such file", where=path, hint="get it from EFT's page, or name yours as `file`")
    entries: list[Entry] = []
    rejects: list[Reject] = []
    missing = 0
    for number, told in enumerate(iter_items(path, "data")):
        key = f"{path.stem}/{number:06d}"
        labels = _labels(told)
        if labels is None:
            rejects.append(Reject("examples", key, Reason.BAD_LABEL, "no entry of EFT, or of numbers that are no body"))
            continue
        if split_of(told["imageName"], seed=0, val_share=VAL_SHARE) is not Split(split):
            continue
        picture = _picture(folders, told["imageName"])
        if picture is None:
            missing += 1
            continue
        centre, half = np.array(told["bbox_center"], float), 100.0 * told["bbox_scale"]
        square = np.concatenate([centre - half, centre + half])
        # Read when the example is: as arrays of numbers alone, a million entries fit into a gigabyte.
        entries.append(Entry(key=key, picture=picture, square_xyxy_px=square, labels=labels))
    if missing:
        rejects.append(Reject("examples", path.stem, Reason.MISSING, f"pictures are not under {home}", missing))
    if not entries:
        hint = f"none of {missing} pictures was found: put train2014/ there, or name its place as `images`"
        raise SourceError(f"no example of the {split} split", where=home, hint=hint)
    about = About(
        name=path.stem,
        domain=Domain.BODY,
        split=split,
        labels=("pose", "betas", "gender", "keypoints_px"),
        keypoint_set="spin49",
        protocol="EFT's own square around the person; fitted neutral SMPL",
        rejects=tuple(rejects),
    )
    return Listed(about, entries)


def _labels(told: Any) -> dict[str, Any] | None:
    try:
        rotations = np.array(told["parm_pose"], dtype=np.float64).reshape(24, 3, 3)
        betas = np.array(told["parm_shape"], dtype=np.float32).reshape(10)
        centre = np.array(told["bbox_center"], dtype=np.float64).reshape(2)
        keypoints = np.zeros((49, 3), np.float32)
        if told.get("gt_keypoint_2d") is not None:
            keypoints = np.array(told["gt_keypoint_2d"], dtype=np.float32).reshape(49, 3)
        finite = all(np.isfinite(array).all() for array in (rotations, betas, centre, keypoints))
        sound = finite and math.isfinite(told["bbox_scale"]) and told["bbox_scale"] > 0
        if not sound or not isinstance(told["imageName"], str):
            return None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    if np.abs(rotations @ rotations.swapaxes(1, 2) - np.eye(3)).max() > _TURN or (np.linalg.det(rotations) < 0).any():
        return None
    return {
        "pose": Rotation.from_matrix(rotations).as_rotvec().astype(np.float32),
        "betas": betas,
        "gender": "neutral",
        "keypoints_px": keypoints,
    }


def _picture(folders: list[Path], name: str) -> Path | None:
    """A picture by its name alone: a name with folders in it is no name."""
    if Path(name).name != name:
        return None
    names = [name, name.removeprefix(_PREFIX)]
    return next((path for folder in folders for one in names if (path := folder / one).is_file()), None)
