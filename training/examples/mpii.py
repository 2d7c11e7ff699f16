"""MPII human pose: people in daily life with up to 16 joints each, in MATLAB's own form.

``` text
<root>/images/015601864.jpg
<root>/mpii_human_pose_v1_u12_2/mpii_human_pose_v1_u12_1.mat       RELEASE: annolist(image.name, annorect(scale, objpos, annopoints.point)),
                                                                    img_train
```
Pixels count from 1; `scale` is the person's height in units of 200 px. The square is 1.25 x scale x 200 px around `objpos`, moved down by 15 x
scale, as in HRNet. The test set has no joints, so it cannot be read; people without joints are left out. With SMPL fits MPII is read by
`coco_eft` (`file: eft_fit/MPII_ver01.json, images: mpii/images`).

Source: Andriluka et al., CVPR 2014.
"""

from pathlib import Path
from typing import Any

import numpy as np

from manifests.errors import SourceError
from manifests.matlab import read_mat
from manifests.splits import split_of
from manifests.types import Domain, Reason, Reject, Split
from training.examples.base import About
from training.examples.listed import Entry, Listed

NUM_JOINTS = 16
VAL_SHARE = 0.1
_MATS = (
    "mpii_human_pose_v1_u12_2/mpii_human_pose_v1_u12_1.mat", "mpii_human_pose_v1_u12_1/mpii_human_pose_v1_u12_1.mat",
    "mpii_human_pose_v1_u12_1.mat",
)  # fmt: skip


def mpii(root: Path, *, split: str) -> Listed:
    """Annotated people of one split.

    Args:
        root: holds `images/` and the annotations.
        split: train, or val: a tenth of the pictures.

    Raises:
        SourceError: annotations or pictures are missing or of another form.
    """
    path = next((root / name for name in _MATS if (root / name).is_file()), None)
    if path is None:
        raise SourceError(f"no {_MATS[0]} is here", where=root, hint="unpack mpii_human_pose_v1_u12_2.zip")
    try:
        release = read_mat(path, variables=["RELEASE"])["RELEASE"].ravel()[0]
        pictures, is_train = release["annolist"].ravel(), np.asarray(release["img_train"]).ravel() > 0
        if len(pictures) != len(is_train):
            raise ValueError(f"{len(pictures)} pictures and {len(is_train)} marks")
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise SourceError(f"holds no RELEASE of MPII: {error}", where=path, hint="unpack it again") from error
    entries: list[Entry] = []
    counted: dict[tuple[Reason, str], int] = {}
    for index in np.flatnonzero(is_train).tolist():
        name = _text(pictures[index])
        if name is None or Path(name).name != name:
            counted[Reason.BAD_LABEL, "pictures have no name"] = (
                counted.get((Reason.BAD_LABEL, "pictures have no name"), 0) + 1
            )
            continue
        if split_of(name, seed=0, val_share=VAL_SHARE) is not Split(split):
            continue
        file = root / "images" / name
        is_there = file.is_file()
        for number, rect in enumerate(_rects(pictures[index])):
            labels = _person(rect)
            if labels is None or not is_there:
                why = (
                    (Reason.UNLABELLED, "people without joints")
                    if labels is None
                    else (Reason.MISSING, "people of pictures that are not in images/")
                )
                counted[why] = counted.get(why, 0) + 1
                continue
            square, keypoints = labels
            key = f"mpii/{Path(name).stem}/{number:02d}"
            entries.append(Entry(key=key, picture=file, square_xyxy_px=square, labels={"keypoints_px": keypoints}))
    if not entries:
        raise SourceError(
            "no person with joints on a picture that is here",
            where=root / "images",
            hint="unpack mpii_human_pose_v1.tar.gz",
        )
    about = About(
        name="mpii",
        domain=Domain.BODY,
        split=split,
        labels=("keypoints_px",),
        keypoint_set="mpii16",
        protocol="square of 250 px x scale around objpos, 15 px x scale lower",
        rejects=tuple(Reject("examples", f"mpii/{split}", why, detail, num) for (why, detail), num in counted.items()),
    )
    return Listed(about, entries)


def _text(picture: Any) -> str | None:
    try:
        return str(np.asarray(picture["image"].ravel()[0]["name"]).ravel()[0])
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None


def _rects(picture: Any) -> list[Any]:
    try:
        rects = picture["annorect"]
        return list(rects.ravel()) if rects.dtype.names else []
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def _person(rect: Any) -> tuple[Any, Any] | None:
    """The square and the keypoints; nothing where either is not told, as of many people."""
    try:
        scale = float(np.asarray(rect["scale"]).ravel()[0])
        middle = rect["objpos"].ravel()[0]
        x, y = (float(np.asarray(middle[axis]).ravel()[0]) for axis in "xy")
        points = rect["annopoints"].ravel()[0]["point"].ravel()
        keypoints = np.zeros((NUM_JOINTS, 3), np.float32)
        for point in points:
            number, u, v = (float(np.asarray(point[name]).ravel()[0]) for name in ("id", "x", "y"))
            keypoints[int(number)] = (u - 1, v - 1, 1)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None
    if (
        not np.isfinite(keypoints).all()
        or not np.isfinite([x, y]).all()
        or not 0 < scale < 1e3
        or not keypoints[:, 2].any()
    ):
        return None
    middle_px, half = np.array([x - 1, y - 1 + 15 * scale]), 125.0 * scale
    return np.concatenate([middle_px - half, middle_px + half]), keypoints
