"""FreiHAND: single right hands, each before four backgrounds, with MANO.

``` text
<root>/training/rgb/00000000.jpg            130,240 pictures: number = id + 32,560 * version; lists hold the 32,560 ids
<root>/training_{K,mano,xyz,scale}.json
<root>/evaluation/rgb/00000000.jpg          3,960 pictures, evaluation_{K,scale}.json, and since 2022 evaluation_{xyz,verts,mano}.json
```
An entry of `mano` is [[48 pose, 10 shape, 2, 1]]: axis-angle in the camera's axes, the mean pose not subtracted. Pictures are 224 px squares
around the hand already, and are used whole. The last twentieth of the ids is the validation split: the dataset has none.

Source: Zimmermann et al., FreiHAND, ICCV 2019; research only.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import SourceError
from manifests.types import Domain
from training.examples.base import About
from training.examples.listed import Entry, Listed

SIZE_PX = 224
VAL_SHARE = 0.05
_SQUARE = np.array([-0.5, -0.5, SIZE_PX - 0.5, SIZE_PX - 0.5])


def freihand(root: Path, *, split: str) -> Listed:
    """Hands of one split.

    Args:
        root: holds `training/` or `evaluation/`.
        split: train and val of `training/`; test is `evaluation/`.

    Raises:
        SourceError: lists or pictures are not there, or do not fit together.
    """
    part = "evaluation" if split == "test" else "training"
    folder = root / part / "rgb"
    num_pictures = sum(path.suffix == ".jpg" for path in folder.iterdir()) if folder.is_dir() else 0
    if not num_pictures:
        hint = "give FreiHAND_pub_v2" + (" (the evaluation is a download of its own, too)" if split == "test" else "")
        raise SourceError(f"{part}/rgb/ holds no picture", where=root, hint=hint)
    K, xyz = (_table(root / f"{part}_{name}.json", shape) for name, shape in (("K", (3, 3)), ("xyz", (21, 3))))
    mano = _table(root / f"{part}_mano.json", (1, 61))[:, 0]
    num = len(K)
    if len(xyz) != num or len(mano) != num or num_pictures % num or num_pictures < num:
        what = f"{num_pictures} pictures do not fit lists of {num}, {len(xyz)} and {len(mano)}"
        raise SourceError(what, where=root / part, hint="unpack FreiHAND_pub_v2 again")
    verts = None
    if split == "test":
        verts = _table(root / f"{part}_verts.json", (778, 3))
    first_val = num - max(1, round(VAL_SHARE * num))
    wanted = {"train": range(first_val), "val": range(first_val, num), "test": range(num)}[split]
    entries = []
    for version in range(num_pictures // num):
        for index in wanted:
            pixels = xyz[index] @ K[index].T
            labels: dict[str, Any] = {
                "pose": mano[index, :48].reshape(16, 3),
                "betas": mano[index, 48:58],
                "side": "right",
                "joints_m": xyz[index],
                "keypoints_px": np.column_stack([pixels[:, :2] / pixels[:, 2:], np.ones(21)]).astype(np.float32),
                "intrinsics": K[index],
            }
            if verts is not None:
                labels["verts_m"] = verts[index]
            number = index + num * version
            entries.append(
                Entry(
                    key=f"freihand/{part}/{number:08d}",
                    picture=folder / f"{number:08d}.jpg",
                    square_xyxy_px=_SQUARE,
                    labels=labels,
                )
            )
    about = About(
        name="freihand",
        domain=Domain.HAND,
        split=split,
        labels=(
            "pose",
            "betas",
            "side",
            "joints_m",
            "keypoints_px",
            "intrinsics",
            *(["verts_m"] if split == "test" else []),
        ),
        joint_set="hand21",
        keypoint_set="hand21",
        protocol="whole pictures of 224 px" + ("" if split == "test" else ", four backgrounds each"),
    )
    return Listed(about, entries)


def _table(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    hint = "unpack FreiHAND_pub_v2 again"
    if path.name.startswith("evaluation"):
        hint = "the labels of the evaluation set are a download of their own: FreiHAND's page, since 2022"
    try:
        table = np.array(json.loads(path.read_bytes()), dtype=np.float32)
        if table.shape[1:] != shape or not len(table) or not np.isfinite(table).all():
            raise ValueError(f"an array of {table.shape}, not n x {' x '.join(map(str, shape))} numbers")
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}", where=path, hint=hint) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise SourceError(f"not a list of FreiHAND: {error}", where=path, hint=hint) from error
    return table
