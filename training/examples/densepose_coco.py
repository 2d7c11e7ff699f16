"""DensePose-COCO: points on people whose place on the body's surface was told by hand.

``` text
coco/annotations/densepose_coco_2014_train.json  densepose_train2014.json      both namings, {"images": ..., "annotations": ...}
coco/{train2014,val2014}/COCO_train2014_000000000009.jpg
```
Of an annotation are read `bbox` (x, y, width, height), `dp_x` and `dp_y` (0 to 255 within the box), `dp_I` (part 1 to 24), `dp_U`, `dp_V`, and
`dp_masks` (14 run-length masks of 256 x 256 within the box, or empty lists). Annotations without `dp_x` have no points and are no examples.
Where no mask covers a place of a lattice within the box, a point of part 0 says so: background, to be learned and not to be scored.

Source: Güler et al., DensePose, CVPR 2018; CC BY-NC 4.0.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import SourceError
from manifests.geometry import square_around
from manifests.jsonstream import iter_items
from manifests.types import Domain, Reason, Reject
from training.examples.base import About
from training.examples.listed import Entry, Listed

NUM_PARTS = 24
MARGIN = 1.2
MASK_PX = 256
NUM_COARSE = 14
LATTICE = 24  # places a side at which the background is looked for
_LAST = 255.0
_FILES = {
    "train": ("densepose_coco_2014_train.json", "densepose_train2014.json"),
    "val": ("densepose_coco_2014_valminusminival.json", "densepose_valminusminival2014.json"),
    "test": ("densepose_coco_2014_minival.json", "densepose_minival2014.json"),
}


def densepose_coco(root: Path, *, split: str) -> Listed:
    """Annotated people of one split; test is `minival`, on which papers score.

    Args:
        root: COCO's folder, with `annotations/` and the pictures of 2014.
        split: train, val or test.

    Raises:
        SourceError: annotations or pictures are missing or of another form.
    """
    places = [root / folder / name for name in _FILES[split] for folder in ("annotations", ".")]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        names = " or ".join(_FILES[split])
        raise SourceError(f"no {names} is here", where=root / "annotations", hint="get it from DensePose's page")
    pictures = {item.get("id"): item.get("file_name") for item in iter_items(path, "images") if isinstance(item, dict)}
    entries: list[Entry] = []
    rejects: list[Reject] = []
    bare = missing = 0
    seen: set[Any] = set()
    for number, told in enumerate(iter_items(path, "annotations")):
        if not isinstance(told, dict) or "dp_x" not in told:
            bare += 1
            continue
        key = f"densepose/{split}/{number:06d}"
        labels = _labels(told)
        if labels is None:
            rejects.append(Reject("examples", key, Reason.BAD_LABEL, "points, parts or box are not as they should be"))
            continue
        if told.get("id") in seen:
            rejects.append(Reject("examples", key, Reason.TWICE, f"the id {told.get('id')} stands there twice"))
            continue
        seen.add(told.get("id"))
        picture = _picture(root, pictures.get(told.get("image_id")))
        if picture is None:
            missing += 1
            continue
        box = np.array(told["bbox"], dtype=np.float64)
        square = square_around(np.concatenate([box[:2], box[:2] + box[2:]]) - 0.5, margin=MARGIN)
        entries.append(Entry(key=key, picture=picture, square_xyxy_px=square, labels=labels))
    if bare:
        rejects.append(Reject("examples", path.stem, Reason.UNLABELLED, "people without points", bare))
    if missing:
        rejects.append(Reject("examples", path.stem, Reason.MISSING, f"pictures are not under {root}", missing))
    if not entries:
        raise SourceError(
            "it tells of no point on a picture that is here",
            where=path,
            hint=f"put COCO's train2014/ and val2014/ under {root}",
        )
    about = About(
        name="densepose_coco",
        domain=Domain.BODY,
        split=split,
        labels=("surface", "coarse", "coarse_box_xyxy_px"),
        protocol=f"square of {MARGIN:g} x the longer side of the dataset's box"
        + (" (minival)" if split == "test" else ""),
        rejects=tuple(rejects),
    )
    return Listed(about, entries)


def _labels(told: dict[str, Any]) -> dict[str, Any] | None:
    """Points and coarse parts; nothing where the annotation contradicts itself."""
    try:
        x, y, part, u, v = (np.array(told[f"dp_{name}"], dtype=np.float64) for name in ("x", "y", "I", "U", "V"))
        box = np.array(told["bbox"], dtype=np.float64).reshape(4)
        points = np.column_stack([x, y, part, u, v])
        coarse = _coarse(told.get("dp_masks") or [])
    except (KeyError, TypeError, ValueError):
        return None
    sound = np.isfinite(points).all() and np.isfinite(box).all() and min(box[2:]) > 0 and len(points) > 0
    if not sound or (part != part.round()).any() or part.min() < 1 or part.max() > NUM_PARTS:
        return None
    if points[:, :2].min() < 0 or points[:, :2].max() > MASK_PX or points[:, 3:].min() < 0 or points[:, 3:].max() > 1:
        return None
    edges = np.concatenate([box[:2], box[:2] + box[2:]]) - 0.5
    labels: dict[str, Any] = {}
    if coarse is not None:
        points = np.concatenate([points, _background(coarse)])
        labels = {"coarse": coarse, "coarse_box_xyxy_px": edges}
    points[:, :2] = points[:, :2] * box[2:] / _LAST + edges[:2]
    return labels | {"surface": points.astype(np.float32)}


def _coarse(masks: list[Any]) -> npt.NDArray[np.uint8] | None:
    """(256, 256) of the number of the first of 14 masks at a place, 0 where there is none; None without any mask."""
    if len(masks) > NUM_COARSE:
        raise ValueError(f"{len(masks)} masks")
    if not any(masks):
        return None
    coarse = np.zeros((MASK_PX, MASK_PX), dtype=np.uint8)
    for number, mask in enumerate(masks, 1):
        if mask:
            coarse[decode_runs(mask) & (coarse == 0)] = number
    return coarse


def _background(coarse: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Points (n, 5) of part 0 at the places of a lattice, 0 to 255, that no mask covers."""
    at = np.linspace(0, MASK_PX - 1, LATTICE).round().astype(int)
    ys, xs = np.meshgrid(at, at, indexing="ij")
    is_free = coarse[ys, xs] == 0
    return np.pad(np.column_stack([xs[is_free], ys[is_free]]).astype(np.float64), ((0, 0), (0, 3)))


def decode_runs(mask: Any) -> npt.NDArray[np.bool_]:
    """A mask of COCO's run-length code, plain or packed into text.

    Args:
        mask: {"size": [256, 256], "counts": list of run lengths or text}; runs go down the columns, the first one is empty space.

    Returns:
        (256, 256) bool.

    Raises:
        ValueError: the runs are not those of a mask of this size.
        TypeError, KeyError: it is no such code.
    """
    if list(mask["size"]) != [MASK_PX, MASK_PX]:
        raise ValueError(f"a mask of {mask['size']}")
    counts = mask["counts"]
    runs = np.array(_unpacked(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != MASK_PX**2:
        raise ValueError("runs do not fill the mask")
    is_inside: npt.NDArray[np.bool_] = (np.arange(len(runs)) % 2 == 1).repeat(runs)
    return is_inside.reshape(MASK_PX, MASK_PX).T


def _unpacked(text: str) -> list[int]:
    """Numbers of five bits a letter from "0" on, the sixth bit saying that more follow; from the third on, differences to the last but one."""
    runs: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        more = True
        while more:
            if place == len(text) or shift > 30:
                raise ValueError("the text of a mask ends within a number")
            letter = ord(text[place]) - 48
            if not 0 <= letter < 64:
                raise ValueError("a mask holds a letter that is none of its code")
            value |= (letter & 31) << shift
            more, shift, place = bool(letter & 32), shift + 5, place + 1
            if not more and letter & 16:
                value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs


def _picture(root: Path, name: Any) -> Path | None:
    if not isinstance(name, str) or Path(name).name != name:
        return None
    folder = "val2014" if "val2014" in name else "train2014"
    places = (root / folder / name, root / "images" / folder / name)
    return next((path for path in places if path.is_file()), None)
