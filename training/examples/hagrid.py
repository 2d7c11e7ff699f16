"""HaGRID: gestures of single hands before webcams, as versions 1 and 2 lie on disk.

``` text
<root>/ann_train_val/call.json  ann_test/call.json          version 1: {"<uuid>": {bboxes, labels, user_id, ...}}
<root>/hagrid_annotations/{train,val,test}/call.json        version 2
<root>/[train_val_]call/<uuid>.jpg  test/call/<uuid>.jpg    pictures; hagrid_dataset/call/ in version 2
```
Boxes are [x, y, width, height] in shares of the picture. The example is the hand whose label is the file's gesture: a square of the
longer side of its box around its middle. A picture without an annotation, and the other way round, is left out and counted. Version 1
has no validation split: `split_of` holds out a tenth of the users.

Source: Kapitanov et al., HaGRID, WACV 2024.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import SourceError
from manifests.geometry import square_around
from manifests.jsonstream import iter_members
from manifests.splits import split_of
from manifests.types import Domain, Reason, Reject, Split
from training.examples.base import About
from training.examples.listed import Entry, Listed

VAL_SHARE = 0.1
BOX_SCALE = 1.0
_FOLDERS = {  # of annotations, by split; version 2 first
    "train": ("hagrid_annotations/train", "annotations/train", "ann_train_val"),
    "val": ("hagrid_annotations/val", "annotations/val", "ann_train_val"),
    "test": ("hagrid_annotations/test", "annotations/test", "ann_test"),
}
_HINT = "give the folder that holds ann_train_val/ and ann_test/ (version 1) or hagrid_annotations/ (version 2)"


def hagrid(root: Path, *, split: str) -> Listed:
    """The gestures of one split.

    Args:
        root: where the annotations and the pictures are.
        split: train, val or test.

    Raises:
        SourceError: the annotations are not there or not as they should be, or no picture of them is there.
    """
    folder = next((root / name for name in _FOLDERS[split] if (root / name).is_dir()), None)
    files = [] if folder is None else sorted(folder.glob("*.json"))
    # "no_gesture" is a label of the other hand, and a class only in files of its own.
    files = [file for file in files if file.stem != "no_gesture"]
    if folder is None or not files:
        raise SourceError(f"no annotations of HaGRID's {split} split are here", where=root, hint=_HINT)
    entries, rejects = [], []
    both = folder.name == "ann_train_val"  # one file for two splits
    for index, file in enumerate(files):
        pictures = _pictures(root, file.stem, test=split == "test")
        seen = set()
        for stem, told in iter_members(file):
            user = told.get("user_id") if isinstance(told, dict) else None
            if both and split_of(str(user), seed=0, val_share=VAL_SHARE) is not Split(split):
                seen.add(stem)
                continue
            box = _box(told, file.stem)
            key = f"hagrid/{file.stem}/{stem}"
            if stem not in pictures:
                rejects.append(Reject("examples", key, Reason.MISSING, "an annotation without a picture"))
            elif box is None:
                rejects.append(Reject("examples", key, Reason.BAD_LABEL, f"no box is labelled {file.stem}"))
            else:
                labels = {"class": index, "instance": stem}
                entries.append(
                    Entry(
                        key=key,
                        picture=pictures[stem],
                        square_xyxy_px=_Square(box),
                        labels=labels,
                        subject=None if user is None else str(user),
                    )
                )
            seen.add(stem)
        if extra := len(pictures.keys() - seen):
            detail = "pictures without an annotation"
            rejects.append(Reject("examples", f"hagrid/{file.stem}", Reason.UNLABELLED, detail, extra))
    if not entries:
        what = f"none of the pictures that {folder.name}/ tells of is here"
        raise SourceError(what, where=root, hint="unpack the pictures beside the annotations: <gesture>/<uuid>.jpg")
    about = About(
        name="hagrid",
        domain=Domain.HAND,
        split=split,
        labels=("class", "instance"),
        classes=tuple(file.stem for file in files),
        protocol=f"square of the longer side of the gesture's box, times {BOX_SCALE:g}",
        rejects=tuple(rejects),
    )
    return Listed(about, sorted(entries, key=lambda entry: entry.key))


class _Square:
    """The square of a box in shares of the picture."""

    def __init__(self, box_xywh: npt.NDArray[np.float64]) -> None:
        self._box = box_xywh

    def __call__(self, width: int, height: int) -> npt.NDArray[np.float64]:
        x, y, w, h = self._box * (width, height, width, height)
        # Shares count from the picture's edge, which lies half a pixel before the middle of the first one.
        return square_around(np.array([x - 0.5, y - 0.5, x + w - 0.5, y + h - 0.5]), margin=BOX_SCALE)


def _pictures(root: Path, gesture: str, *, test: bool) -> dict[str, Path]:
    places = [f"train_val_{gesture}/{gesture}", f"train_val_{gesture}", gesture]
    if test and (root / "test").is_dir():
        places = [f"test/{gesture}"]
    found: dict[str, Path] = {}
    for place in places:
        for home in (root, root / "hagrid_dataset", root / "images"):
            if (home / place).is_dir():
                for path in sorted((home / place).iterdir()):
                    if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
                        found.setdefault(path.stem, path)
    return found


def _box(told: Any, gesture: str) -> npt.NDArray[np.float64] | None:
    """The box that is labelled with the gesture; labels are written with underscores, in some versions with spaces."""
    if (
        not isinstance(told, dict)
        or not isinstance(told.get("bboxes"), list)
        or not isinstance(told.get("labels"), list)
    ):
        return None
    for box, label in zip(told["bboxes"], told["labels"], strict=False):
        if str(label).replace(" ", "_") != gesture or not isinstance(box, list) or len(box) != 4:
            continue
        if all(isinstance(value, int | float) and math.isfinite(value) for value in box) and min(box[2:]) > 0:
            return np.array(box, dtype=np.float64)
    return None
