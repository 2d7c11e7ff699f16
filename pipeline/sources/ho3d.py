"""HO-3D v2 and v3: a right hand holds an object; some sequences are seen by up to five synchronous cameras.

``` text
<root>/train/SB10/rgb/0000.jpg                        v3; .png in v2; 640 x 480 px
<root>/train/SB10/meta/0000.pkl                       the hand's joints, the camera's matrix
<root>/evaluation/SB11/{rgb,meta}/                    the hand's box, and only its wrist
<root>/train.txt, evaluation.txt                      optional: lines SB10/0000, the pictures that count
<root>/calibration/SB1/calibration/                   optional, v3: cam_orders.txt, cam_0_intrinsics.txt, trans_0.txt
```
The last digit of a sequence of certain names is its camera: SB10 and SB12 are two views of SB1, whose cameras 1 and 3 are in
evaluation/. A recording holds the cameras of one split, so no pair joins the two. Evaluation pictures are flagged.

Convention: joints are metres in the camera's axes of OpenGL (y up, z backwards), turned here. trans_i maps camera i to a frame
that the cameras share, metres; cam_orders.txt says which digit camera i has. Lenses do not distort.

Source: names of the sequences of several cameras, and the order of joints, of the authors' scripts.
"""

import logging
import re
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import override

from manifests.errors import SourceError
from manifests.types import EVALUATION, OFFICIAL_SPLIT, BoxFrom, Domain, Reason, Reject, SilhouetteFrom, Split, key_part
from manifests.unpickle import read_pickle
from pipeline.silhouettes import from_limbs
from pipeline.sources import trees
from pipeline.sources.base import Card, Floats, Labels, Marker, Recording, Scan, Source
from pipeline.sources.boxes import around, clipped
from pipeline.sources.calibration import is_rotation, pinhole
from pipeline.sources.layout import files_below

logger = logging.getLogger(__name__)

FOLDERS = {Split.TRAIN: "train", Split.TEST: "evaluation"}
GROUPS = ("ABF1", "BB1", "GPMF1", "GSF1", "MDF1", "SB1", "ShSu1", "SiBF1", "SMu4", "MPM1", "AP1")
WIDTH, HEIGHT = 640, 480
FINGER_M = 0.022  # breadth of what is drawn along the bones
AGAIN = "unpack it again, or move it away to go on without"
MAX_METAS = 16  # looked at for a camera's matrix
_CAMERA = re.compile(rf"({'|'.join(GROUPS)})([0-4])")
WHERE = "give the folder that holds train/ and evaluation/ as ROOT"
_VERSIONS = {".png": "v2 (png)", ".jpg": "v3 (jpg)"}

# Joints in MANO's order: wrist, three each of index, middle, little, ring finger and thumb; then the tips, thumb first.
FINGERS = ((13, 14, 15, 16), (1, 2, 3, 17), (4, 5, 6, 18), (10, 11, 12, 19), (7, 8, 9, 20))  # thumb to little finger
LIMBS = (
    *((0, finger[0]) for finger in FINGERS),
    *((a[0], b[0]) for a, b in pairwise(FINGERS)),
    *(pair for finger in FINGERS for pair in pairwise(finger)),
)

CARD = Card(
    title="HO-3D v2, v3",
    domains=(Domain.HAND,),
    tree="train/SB10/{rgb/0000.jpg,meta/0000.pkl}, evaluation/, train.txt; calibration/ (v3, optional)",
    get="the project page (TU Graz) or github.com/shreyashampali/ho3d: a OneDrive folder",
    licence="academic research only, non-commercial",
    terms="It may not be handed on or modified, in part or as a whole: ask the authors before shards leave the building.",
    gives="cross-view of 11 recordings, cross-pose; boxes and silhouettes from projected joints",
)


class Ho3dSource(Source):
    """See the module."""

    card = CARD

    @override
    def look(self, root: Path) -> list[Marker]:
        """See `Source.look`."""
        home = trees.find_home(root, _is_home)
        there = home or root
        lists = all((there / f"{name}.txt").is_file() for name in FOLDERS.values() if (there / name).is_dir())
        calibrated = (there / "calibration").is_dir()
        seen = f"{_version(there)} detected" if home else WHERE
        return [
            Marker(what="train/SB10/rgb/ or evaluation/SB11/rgb/", found=home is not None, hint=seen),
            Marker.of("train.txt, evaluation.txt", lists, "without: every picture counts", needed=False),
            Marker.of("calibration/", calibrated, "v3 only; without: cameras have no place", needed=False),
        ]

    @override
    def recordings(self, root: Path) -> list[Recording]:
        """One recording per group of cameras and split; see `Source.recordings`."""
        home = trees.require_home(root, _is_home, "neither train/ nor evaluation/ holds a folder SB10/rgb/", WHERE)
        logger.info("HO-3D %s detected in %s", _version(home), home)
        found = []
        for split, name in FOLDERS.items():
            files = [home / f"{name}.txt"]
            for group in _groups(_split_folder(home, split)):
                files += sorted((home / "calibration" / group / "calibration").glob("*.txt"))
                sequence = key_part(group)
                found.append(
                    Recording(
                        sequence=sequence,
                        group=f"{sequence}-{name}",
                        split=split,
                        files=files_below(root, [file for file in files if file.is_file()]),
                        folder=(_split_folder(home, split) / group).relative_to(root).as_posix(),
                    )
                )
                files = []  # the list is that of all: it stands in the fingerprint once
        return sorted(found, key=lambda one: (one.sequence, one.group))

    @override
    def scan(self, root: Path, recording: Recording, *, split: Split) -> Scan:
        """List the frames of one group of cameras; see `Source.scan`."""
        above, group = (root / recording.folder).parent, (root / recording.folder).name
        home = above.parent.parent if above.parent.name == above.name else above.parent
        listed = read_list(home / f"{above.name}.txt")
        calibration = home / "calibration" / group / "calibration"
        views, places, rejects = [], list[str](), list[Reject]()
        folders = [name for name in (group, *(f"{group}{digit}" for digit in range(5))) if _group_of(name) == group]
        for folder in (name for name in folders if (above / name / "rgb").is_dir()):
            names, left_out = _list_view(above / folder, None if listed is None else listed.get(folder, set()))
            place = (above / folder / "rgb").relative_to(root).as_posix()
            rejects += trees.counted(place, *left_out)
            view = f"cam{folder[len(group) :]}"
            matrix, pose = _calibrated(calibration, folder[len(group) :])
            if np.isnan(matrix).any():
                matrix = _first_matrix(above / folder / "meta", names)
            places.append(place)
            views.append(
                (trees.numbers_of(names, 0, -4), np.full(len(names), view), trees.below(place, names), matrix, pose)
            )
        frames, view_of, media, matrices, poses = zip(*views, strict=True)
        sizes, everywhere = [len(one) for one in frames], np.unique(np.concatenate(frames))
        for place, size in zip(places, sizes, strict=True):
            what = f"of {len(everywhere)} instants have no usable picture of this camera"
            rejects += trees.counted(place, (len(everywhere) - size if size else 0, Reason.MISSING, what))
        table = self.table(
            recording, split,
            instant=np.concatenate(frames),
            view=np.concatenate(view_of),
            track="hand",
            media=np.concatenate(media).tolist(),
            width=WIDTH, height=HEIGHT,
            intrinsics=np.repeat(matrices, sizes, axis=0),
            camera_from_world=np.repeat(poses, sizes, axis=0),
            silhouette_from=(SilhouetteFrom.KEYPOINTS if split is not Split.TEST else SilhouetteFrom.NONE).value,
            side="right",
            flags=(OFFICIAL_SPLIT,) if recording.split is Split.TRAIN else (EVALUATION, OFFICIAL_SPLIT),
        )  # fmt: skip
        return Scan(table, rejects)

    @override
    def labels(self, root: Path, row: dict[str, Any]) -> Labels | None:
        """The hand's box and bones in one picture; see `Source.labels`."""
        picture = root / row["media"]
        try:
            meta = read_pickle(picture.parent.parent / "meta" / f"{picture.stem}.pkl")
        except SourceError as error:
            return Labels(reject=(Reason.BAD_LABEL, error.what))
        try:
            given, joints, matrix = (_array(meta.get(key)) for key in ("handBoundingBox", "handJoints3D", "camMat"))
            # Evaluation pictures tell the wrist only.
            bones = None if joints is None or joints.shape != (21, 3) or matrix is None else project(joints, matrix)
            if given is not None:
                box, box_from = given.reshape(4), BoxFrom.DATASET
            elif bones is not None:
                points, finger_px = bones
                box = around(points, np.ones(len(points), bool)) + finger_px / 2 * np.array([-1, -1, 1, 1])
                box_from = BoxFrom.KEYPOINTS
            else:
                return Labels(reject=(Reason.UNLABELLED, "meta has no box and no joints of the hand"))
        except (AttributeError, TypeError, ValueError, IndexError) as error:
            return Labels(reject=(Reason.BAD_LABEL, f"meta does not hold what it should: {error}"))
        box = clipped(box, (WIDTH, HEIGHT))
        if np.isnan(box).any():
            return Labels(reject=(Reason.HIDDEN, "the hand lies outside the picture"))
        if bones is None:
            return Labels(box_xyxy_px=box, box_from=box_from)
        draw = partial(from_limbs, bones[0], LIMBS, bones[1])
        return Labels(box_xyxy_px=box, box_from=box_from, silhouette=draw, silhouette_from=SilhouetteFrom.KEYPOINTS)


def project(joints_m: Floats, matrix: Floats) -> tuple[Floats, float]:
    """Project a hand's joints.

    Args:
        joints_m: (J, 3) in the camera's axes of OpenGL.
        matrix: (3, 3) K.

    Returns:
        (J, 2) px, and the breadth of a finger, px.

    Raises:
        ValueError: the hand is not before the camera, or K is none.
    """
    if matrix.shape != (3, 3) or matrix[0, 0] <= 0:
        raise ValueError("camMat is no camera matrix")
    points = joints_m * [1.0, -1.0, -1.0]
    if points[:, 2].min() <= 0:
        raise ValueError("joints lie behind the camera")
    pixels = points @ matrix.T
    return pixels[:, :2] / pixels[:, 2:], float(FINGER_M * matrix[0, 0] / np.median(points[:, 2]))


@trees.remembered(2)
def read_list(path: Path) -> dict[str, set[str]] | None:
    """Read train.txt or evaluation.txt: file ids by sequence; None where it is not there.

    Raises:
        SourceError: a line is not like SB10/0000.
    """
    if not path.is_file():
        return None
    listed: dict[str, set[str]] = {}
    for line in trees.read_text(path, AGAIN).split():
        sequence, slash, name = line.partition("/")
        if not slash or not name.isdecimal():
            raise trees.unparsed(path, f"{line[:80]!r} is not like SB10/0000", AGAIN)
        listed.setdefault(sequence, set()).add(name)
    return listed


def _list_view(folder: Path, listed: set[str] | None) -> tuple[pa.StringArray, list[tuple[int, Reason, str]]]:
    """Names of one camera's pictures that have labels, and what is left out.

    Raises:
        SourceError: pictures of both versions lie in one folder.
    """
    names, odd = trees.list_named(folder / "rgb", r"\d{4}\.(?:jpg|png)")
    if len(pc.unique(pc.utf8_slice_codeunits(names, 4, 8))) > 1:
        raise SourceError(
            "png (v2) and jpg (v3) lie in one folder",
            where=folder / "rgb",
            hint="unpack v2 and v3 into folders of their own",
        )
    left_out = [(odd, Reason.BAD_LABEL, "images are not named like 0000.jpg")]
    if listed is not None:
        taken = names.filter(pc.is_in(pc.utf8_slice_codeunits(names, 0, 4), pa.array(sorted(listed), pa.string())))
        left_out.append((len(listed) - len(taken), Reason.MISSING, "listed pictures are not there"))
        left_out.append((len(names) - len(taken), Reason.UNLABELLED, "pictures are not listed"))
        names = taken
    metas, _ = (
        trees.list_named(folder / "meta", r"\d{4}\.pkl")
        if (folder / "meta").is_dir()
        else (pa.array([], pa.string()), 0)
    )
    labelled = pc.is_in(pc.utf8_slice_codeunits(names, 0, 4), pc.utf8_slice_codeunits(metas, 0, 4))
    without = names.filter(pc.invert(labelled))
    ranges = f"pictures: meta missing for {folder.name}/{', '.join(_ranges(trees.numbers_of(without, 0, -4)))}"
    left_out.append((len(without), Reason.UNLABELLED, ranges))
    return names.filter(labelled), left_out


def _ranges(numbers: npt.NDArray[np.int64]) -> list[str]:
    """Numbers as text, those that follow one another as 0678..0728."""
    numbers = np.sort(numbers)
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1) if len(numbers) else []
    return [f"{run[0]:04d}..{run[-1]:04d}" if len(run) > 1 else f"{run[0]:04d}" for run in runs]


def _calibrated(folder: Path, digit: str) -> tuple[Floats, Floats]:
    """K (3, 3) and camera_from_world (4, 4) of the camera of a digit; NaN where they are not there."""
    matrix, pose = np.full((3, 3), np.nan), np.full((4, 4), np.nan)
    if not digit or not (folder / "cam_orders.txt").is_file():
        return matrix, pose
    orders = _table(folder / "cam_orders.txt").ravel().tolist()
    if int(digit) not in orders:
        return matrix, pose
    lens, place = (folder / name.format(orders.index(int(digit))) for name in ("cam_{}_intrinsics.txt", "trans_{}.txt"))
    if lens.is_file():
        values = dict(re.findall(r"(\w+)\s*:\s*([-+.\deE]+)", trees.read_text(lens, AGAIN)))
        try:
            matrix = pinhole(*(float(values[key]) for key in ("fx", "fy", "ppx", "ppy")))
        except (KeyError, ValueError) as error:
            raise trees.unparsed(lens, f"fx, fy, ppx and ppy are due: {error}", AGAIN) from error
    if place.is_file():
        shared_from_camera = _table(place)
        if shared_from_camera.shape != (4, 4) or not is_rotation(shared_from_camera[:3, :3]):
            raise trees.unparsed(place, "it is no rigid motion of 4 x 4 numbers", AGAIN)
        pose = np.asarray(np.linalg.inv(shared_from_camera), np.float64)
    return matrix, pose


def _first_matrix(folder: Path, names: pa.StringArray) -> Floats:
    """K of the first meta file that has one, or NaN; they are all the same in a sequence."""
    for name in sorted(names.to_pylist())[:MAX_METAS]:
        try:
            matrix = _array(read_pickle(folder / f"{name[:-4]}.pkl").get("camMat"))
        except (SourceError, AttributeError, TypeError, ValueError):
            continue  # this picture is left out when it is cut
        if matrix is not None and matrix.shape == (3, 3):
            return matrix
    return np.full((3, 3), np.nan)


def _array(value: Any) -> Floats | None:
    """Finite numbers, or None where the dataset says None.

    Raises:
        ValueError: something else; also TypeError.
    """
    if value is None:
        return None
    array = np.asarray(value, float)
    if not np.isfinite(array).all():
        raise ValueError("numbers that are not finite")
    return array


def _table(path: Path) -> Floats:
    """Rows of numbers."""
    try:
        return np.array(
            [
                [float(word) for word in line.split()]
                for line in trees.read_text(path, AGAIN).splitlines()
                if line.strip()
            ]
        )
    except ValueError as error:
        raise trees.unparsed(path, error, AGAIN) from error


def _split_folder(home: Path, split: Split) -> Path:
    return trees.unwrapped(home / FOLDERS[split])


def _groups(folder: Path) -> dict[str, Sequence[str]]:
    """Sequence folders by the group that they are cameras of, or by their own name."""
    groups: dict[str, list[str]] = {}
    for name in trees.list_folders(folder):
        if (folder / name / "rgb").is_dir():
            groups.setdefault(_group_of(name), []).append(name)
    return dict(groups)


def _group_of(name: str) -> str:
    match = _CAMERA.fullmatch(name)
    return match[1] if match else name


def _is_home(folder: Path) -> bool:
    return any(_groups(_split_folder(folder, split)) for split in FOLDERS)


def _version(home: Path) -> str:
    """Which release it is, by the suffix of a picture."""
    for split in FOLDERS:
        for folders in _groups(_split_folder(home, split)).values():
            for image in trees.list_names(_split_folder(home, split) / folders[0] / "rgb"):
                if image[-4:] in _VERSIONS:
                    return _VERSIONS[image[-4:]]
    return ""
