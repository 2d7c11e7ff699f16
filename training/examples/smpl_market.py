"""SMPLMarket for textures: Market-1501's photographs with the bodies that Texformer's authors fitted to them.

``` text
<root>/train_test_img_paths_pid.pkl       {"out_dict_train": {person: [picture, ...]}, "out_dict_test": {...}}
<root>/eval_list.pkl                      [picture, ...]: what is scored
<root>/bounding_box_train/0002_c1s1_000451_03.jpg      the pictures as the lists name them, 64 x 128 px
<root>/SMPL_RSC/pkl/0002_c1s1_000451_03.pkl            [vertices (6890, 3), shift (3,)]: SMPL as RSC-Net posed it, and where it stands, metres
<root>/smpl_uv.obj                        SMPL's texture coordinates, of SMPL's own site; it may lie among the assets
```
The camera looks along z at the picture's centre; the square around a picture, as high as it, has a focal length of 5000 / 224 of its side. From it and
the vertices, each pixel's texture coordinate is drawn when an example is read. The second picture is another one of the same person, fixed by the key. A
tenth of the people of the train list are the validation split; who is in the evaluation list is in no other split.

The layout was read off Texformer's published code, not off the files. SMPL_RSC/parts, drawn from the same
bodies, and part_seg_EANet, a parsing of the pictures, are not read.

Source: Xu and Loy, Texformer, ICCV 2021; Zheng et al., Market-1501, ICCV 2015. Research only.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import SourceError
from manifests.obj import Charts
from manifests.seeds import rng_for
from manifests.splits import split_of
from manifests.types import Domain, Reason, Reject
from manifests.unpickle import read_pickle
from training.examples.base import About
from training.examples.free_surface import body_file
from training.examples.listed import Entry, Listed
from training.examples.pictures import read_picture
from training.tasks.atlas import read_charts
from training.tasks.raster import draw_faces

SIZE_PX = 128, 64  # height, width
NUM_VERTICES = 6890
VAL_SHARE = 0.1
FOCAL = 5000 / 224  # of the square's side
LEAST_PIXELS = 64  # of a person that is worth an example
_LISTS, _SCORED = "train_test_img_paths_pid.pkl", "eval_list.pkl"
_HINT = "give the folder SMPLMarket, as Texformer's page has it"
_EDGE = (SIZE_PX[1] - SIZE_PX[0]) / 2 - 0.5
_SQUARE = np.array([_EDGE, -0.5, _EDGE + SIZE_PX[0], SIZE_PX[0] - 0.5])

Floats = npt.NDArray[np.float64]


def smpl_market(root: Path, *, split: str, uv: str | None = None) -> Listed:
    """Photographs of one split. Every picture and body of it is read once, a millisecond each.

    Args:
        root: holds the lists, the pictures and `SMPL_RSC/`.
        split: train, val or test.
        uv: SMPL's texture coordinates, an OBJ file; when None, `smpl_uv.obj` of the root, or else of the assets.

    Raises:
        SourceError: a list is missing or of another form, or no picture is left.
        TrainingError: the texture coordinates are missing, damaged, or not SMPL's.
    """
    in_root = root / "smpl_uv.obj"
    uv_file = Path(uv) if uv else in_root if in_root.is_file() else body_file(None).with_name("smpl_uv.obj")
    charts = read_charts(uv_file)
    if charts.num_vertices != NUM_VERTICES:
        what = f"{uv_file.name} has {charts.num_vertices} vertices, SMPL has {NUM_VERTICES}"
        raise SourceError(what, where=uv_file, hint="give smpl_uv.obj of SMPL's site")
    people, scored = _people(root, split)
    names = {_named(picture) for picture in scored}
    rejects: dict[tuple[Reason, str], int] = {}
    entries = []
    for person, pictures in sorted(people.items()):
        if split != "test" and any(_named(picture) in names for picture in pictures):
            _count(rejects, Reason.EVALUATION, "pictures are of people of the evaluation list", len(pictures))
            continue
        if split != "test" and split_of(person, seed=0, val_share=VAL_SHARE).value != split:
            continue
        good = []
        for picture in pictures:
            if why := _why_not(root, picture):
                _count(rejects, *why)
            else:
                good.append(picture)
        wanted = [picture for picture in good if split != "test" or picture in scored]
        entries += [_entry(root, charts, person, picture, good) for picture in wanted]
    if not entries:
        told = "; ".join(f"{num} {detail}" for (_, detail), num in rejects.items()) or "the lists name none"
        raise SourceError(f"no picture of the {split} split is left: {told}", where=root, hint=_HINT)
    about = About(
        name="smpl_market",
        domain=Domain.BODY,
        split=split,
        labels=("uv", "second_uv"),
        protocol="whole pictures of 64 x 128 px in a square; second picture of the same person, at another moment",
        rejects=tuple(Reject("examples", "smpl_market", *why, num) for why, num in rejects.items()),
    )
    return Listed(about, entries)


def uv_of_body(charts: Charts, verts_X3_m: Floats) -> npt.NDArray[np.float32]:
    """Texture coordinates (H, W, 2) of what a picture of `SIZE_PX` shows of a body, -1 off it."""
    face_HW, share_HW3 = draw_faces(*_projected(charts, verts_X3_m), size=SIZE_PX)
    corners_HW32 = charts.uvs[charts.face_uvs[face_HW]]
    uv_HW2 = (corners_HW32 * share_HW3[..., None]).sum(axis=2)
    return np.where(face_HW[..., None] >= 0, uv_HW2, -1).astype(np.float32)


def _projected(charts: Charts, verts_X3_m: Floats) -> tuple[Floats, Floats]:
    """Pixels (F, 3, 2) and depths (F, 3) of the corners."""
    height, width = SIZE_PX
    middle_2 = np.array([width - 1, height - 1]) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        xy_X2 = FOCAL * height * verts_X3_m[:, :2] / verts_X3_m[:, 2:] + middle_2
    return xy_X2[charts.faces], verts_X3_m[charts.faces, 2]


def _people(root: Path, split: str) -> tuple[Mapping[str, list[str]], set[str]]:
    """Pictures of each person of a list, and those that are scored."""
    lists, scored = read_pickle(root / _LISTS), read_pickle(root / _SCORED)
    try:
        told = lists["out_dict_test" if split == "test" else "out_dict_train"]
        people = {str(person): sorted({_relative(picture) for picture in own}) for person, own in told.items()}
        evaluated = {_relative(picture) for picture in scored}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SourceError(f"the lists are none of SMPLMarket: {error!r}", where=root / _LISTS, hint=_HINT) from error
    if split == "test":
        known = {picture for own in people.values() for picture in own}
        names = {_named(own[0]): person for person, own in people.items() if own}
        for picture in sorted(evaluated - known):
            people.setdefault(names.get(_named(picture), _named(picture)), []).append(picture)
    return people, evaluated


def _relative(picture: Any) -> str:
    path = Path(str(picture))
    if not isinstance(picture, str) or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{picture!r} is no path below the folder")
    return path.as_posix()


def _named(picture: str) -> str:
    """Who a picture's name says it shows: 0002_c1s1_000451_03.jpg shows 0002."""
    return Path(picture).name.partition("_")[0]


def _count(rejects: dict[tuple[Reason, str], int], reason: Reason, detail: str, num: int = 1) -> None:
    rejects[reason, detail] = rejects.get((reason, detail), 0) + num


def _why_not(root: Path, picture: str) -> tuple[Reason, str] | None:
    """What is wrong with a picture or its body, if anything is."""
    if not (root / picture).is_file():
        return Reason.MISSING, "pictures of the lists are not there"
    try:
        rgb_HW3 = read_picture(root / picture, where=root / picture)
    except SourceError:
        return Reason.UNREADABLE, "pictures cannot be read"
    if rgb_HW3.shape[:2] != SIZE_PX:
        return Reason.SIZE, "pictures are not 64 x 128 px"
    file = _body_file(root, picture)
    if not file.is_file():
        return Reason.UNLABELLED, "pictures have no body in SMPL_RSC/pkl"
    try:
        verts_X3 = _read_body(file)
    except SourceError:
        return Reason.BAD_LABEL, "bodies cannot be read"
    height, width = SIZE_PX
    near = verts_X3[:, 2] > 0.1
    x, y = FOCAL * height * verts_X3[near, :2].T / verts_X3[near, 2]
    if not near.all() or not ((abs(x) < width / 2) & (abs(y) < height / 2)).sum() >= LEAST_PIXELS:
        return Reason.BAD_LABEL, "bodies are not in their pictures"
    return None


def _body_file(root: Path, picture: str) -> Path:
    return root / "SMPL_RSC" / "pkl" / f"{Path(picture).name[:-4]}.pkl"


def _read_body(file: Path) -> Floats:
    """Vertices (X, 3) in the camera's axes."""
    told = read_pickle(file)
    try:
        verts, shift = (np.asarray(part, np.float64) for part in told)
        verts = verts.reshape(NUM_VERTICES, 3) + shift.reshape(3)
    except (TypeError, ValueError) as error:
        raise SourceError(f"holds no vertices and shift: {error}", where=file, hint=_HINT) from error
    if not np.isfinite(verts).all():
        raise SourceError("a vertex is not a finite number", where=file, hint=_HINT)
    return verts


def _entry(root: Path, charts: Charts, person: str, picture: str, good: Iterable[str]) -> Entry:
    key = f"smpl_market/{picture.rpartition('.')[0]}"
    others = [other for other in good if other != picture]
    second = str(rng_for(key).choice(others)) if others else None
    labels: dict[str, Any] = {"uv": partial(_drawn, root, charts, picture)}
    if second is not None:
        labels["second_uv"] = partial(_drawn, root, charts, second)
    return Entry(
        key=key,
        picture=root / picture,
        square_xyxy_px=_SQUARE,
        labels=labels,
        subject=person,
        second=None if second is None else root / second,
        second_square_xyxy_px=None if second is None else _SQUARE,
    )


def _drawn(root: Path, charts: Charts, picture: str) -> npt.NDArray[np.float32]:
    return uv_of_body(charts, _read_body(_body_file(root, picture)))
