"""Penn Action: short clips of sports, one labelled person in each; a folder of images per clip.

``` text
<root>/frames/0001/000001.jpg      clip 0001, frame 1; at most 640 x 480 px
<root>/labels/0001.mat             boxes, 13 joints, visibility, image size, official split
```
Pixels of the labels count from 1. `bbox` is x1, y1, x2, y2, and may end a row or so before the images: then its last row
goes on. Joints that are not visible may lie anywhere.

Source: Zhang et al., From Actemes to Action, ICCV 2013; order of the joints from the dataset's own notes.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from manifests.errors import SourceError
from manifests.matlab import read_mat
from manifests.types import BoxFrom, Domain, Reason, Reject, Split
from pipeline.sources import trees
from pipeline.sources.base import STAGE, Card, Floats, Marker, Recording, Scan, Source
from pipeline.sources.boxes import around, clipped
from pipeline.sources.layout import files_below

logger = logging.getLogger(__name__)

Bools = npt.NDArray[np.bool_]

IMAGE = r"\d{6}\.jpg"
OFFICIAL = "official"
VIEW, TRACK = "cam", "p0"
UNLABELLED = "unlabelled"  # flag of frames whose person is looked for
# head, then left and right shoulder, elbow, wrist, hip, knee, ankle
KEYPOINTS, NUM_JOINTS = "penn13", 13
MOST_REPEATED = 5  # frames that the last box may stand for
NO_LABELS = "labels/ is part of the same archive, frames and labels; labels of phases (TCC) are something else"

CARD = Card(
    title="Penn Action",
    domains=(Domain.BODY,),
    tree="frames/0001/000001.jpg, labels/0001.mat",
    get="the page of the University of Pennsylvania: Penn_Action.tar.gz (no form)",
    licence="research only (unverified)",
    terms="Its exact terms were not seen; the clips were collected on the web.",
    gives="cross-pose; boxes from the dataset, silhouettes from the parser",
)


@dataclass(frozen=True, slots=True)
class Clip:
    """What one label file says; pixels count from 0.

    Attributes:
        joints: (T, 13, 3) x, y, and 1 where visible.
        boxes: (T', 4).
        size: width and height of its images, px.
        is_train: official split.
    """

    joints: Floats
    boxes: Floats
    size: tuple[int, int]
    is_train: bool


class PennActionSource(Source):
    """See the module."""

    card = CARD
    protocols = (OFFICIAL,)

    @override
    def look(self, root: Path) -> list[Marker]:
        """See `Source.look`."""
        home = trees.find_home(root, _is_home)
        labelled = home is not None and _label(home, "*") is not None
        return [
            Marker.of("frames/0001/000001.jpg", home, "" if home else _hint(root)),
            Marker.of("labels/0001.mat", labelled, NO_LABELS, needed=False),
        ]

    @override
    def recordings(self, root: Path) -> list[Recording]:
        """One recording per clip; see `Source.recordings`."""
        home = trees.require_home(root, _is_home, "no frames/0001/000001.jpg is here", _hint)
        labels, _ = trees.list_named(home / "labels", r"\d{4}\.mat") if (home / "labels").is_dir() else ([], 0)
        labelled = {str(name)[:4] for name in labels}
        folders = trees.list_folders(home / "frames")
        clips = {name for name in folders if _is_clip(name)}
        if len(clips) < len(folders):
            logger.warning(
                "PennAction: %d folders of frames/ are left out, such as %s: a clip is named like 0001",
                len(folders) - len(clips), min(set(folders) - clips),
            )  # fmt: skip
        self._say_unlabelled(home, clips - labelled, len(clips))
        found = []
        for name in sorted(clips | labelled):
            path = home / "labels" / f"{name}.mat"
            files = files_below(root, [path]) if name in labelled else ()
            place = (home / "frames" / name).relative_to(root).as_posix()
            split = None if self.recipe.protocol is None else Split.TRAIN if read_clip(path).is_train else Split.TEST
            found.append(Recording(sequence=name, group=name, split=split, files=files, folder=place))
        return found

    def _say_unlabelled(self, home: Path, clips: set[str], num: int) -> None:
        if not clips:
            return
        what = f"labels of {len(clips)} of {num} clips are missing, such as labels/{min(clips)}.mat"
        if self.recipe.protocol == OFFICIAL:
            raise SourceError(
                f"{what}, and with them the official split", where=home, hint=f"{NO_LABELS}; or leave `protocol` out"
            )
        logger.warning("PennAction: %s: the person in them is looked for. %s", what, NO_LABELS)

    @override
    def scan(self, root: Path, recording: Recording, *, split: Split) -> Scan:
        """List the images of one clip; see `Source.scan`."""
        folder, place = root / recording.folder, recording.folder
        clip = read_clip(root / recording.files[0][0]) if recording.files else None
        if not folder.is_dir():
            num = len(clip.joints) if clip else 0
            detail = trees.numbered(num, "frames that labels tell of: no such folder")
            return Scan([], [Reject(STAGE, place, Reason.MISSING, detail, max(1, num))])
        names, odd = trees.list_named(folder, IMAGE)
        rejects = trees.counted(place, (odd, Reason.BAD_LABEL, "images are not named like 000001.jpg"))
        size = trees.image_size(folder, names)
        if size is None:
            return Scan([], rejects + trees.nothing_seen(place, len(names)))
        instant = trees.numbers_of(names, 0, 6)
        shared = {"view": VIEW, "width": size[0], "height": size[1]}
        if clip is None:
            media = trees.below(place, names)
            return Scan(
                self.table(recording, split, instant=instant, media=media, flags=(UNLABELLED,), **shared), rejects
            )
        if size != clip.size:
            detail = "images of {} x {} px, where the labels are for {} x {}".format(*size, *clip.size)
            return Scan([], rejects + trees.counted(place, (len(names), Reason.BAD_LABEL, detail)))
        row = instant - 1
        told = (row >= 0) & (row < len(clip.joints))
        boxes, from_joints = _boxes(clip, recording.sequence)
        known = told.copy()
        known[told] = np.isfinite(boxes[row[told]]).all(axis=1)
        rejects += trees.counted(
            place,
            (int((~told).sum()), Reason.UNLABELLED, f"images have no row in labels/{recording.sequence}.mat"),
            (len(clip.joints) - int(told.sum()), Reason.MISSING, "frames of the labels have no image"),
            (int((told & ~known).sum()), Reason.UNLABELLED, "images have neither a box nor visible joints"),
        )
        if not known.any():
            return Scan([], rejects)
        row, names = row[known], names.filter(known)
        frames = self.table(
            recording, split,
            instant=instant[known],
            media=trees.below(place, names),
            track=TRACK,
            box_xyxy_px=boxes[row],
            box_from=np.where(from_joints[row], BoxFrom.KEYPOINTS.value, BoxFrom.DATASET.value),
            keypoints_set=KEYPOINTS,
            keypoints_px=clip.joints[row],
            **shared,
        )  # fmt: skip
        return Scan(frames, rejects)


def read_clip(path: Path) -> Clip:
    """Read the labels of one clip.

    Raises:
        SourceError: the file does not parse, or is of another form.
    """
    found = read_mat(path, variables=["x", "y", "visibility", "bbox", "dimensions", "train"])
    try:
        parts = {name: np.asarray(value, np.float64) for name, value in found.items()}
        joints = np.stack([parts["x"] - 1, parts["y"] - 1, parts["visibility"] > 0], axis=-1)
        joints[~np.isfinite(joints).all(axis=-1)] = 0
        boxes = parts["bbox"].reshape(len(parts["bbox"]), 4) - 1
        height, width = (int(side) for side in parts["dimensions"].ravel()[:2])
        is_train = int(parts["train"].item()) == 1
        if joints.ndim != 3 or joints.shape[1] != NUM_JOINTS:
            raise ValueError(f"x is of shape {parts['x'].shape}, not frames x {NUM_JOINTS}")
    except (ValueError, TypeError, OverflowError) as error:
        raise trees.unparsed(path, error, "unpack labels/ again", says="is no label file of Penn Action") from error
    return Clip(joints, boxes, (width, height), is_train)


def _boxes(clip: Clip, name: str) -> tuple[Floats, Bools]:
    """The box of each frame, within the image, and whether it was drawn around the visible joints; NaN: there is none."""
    num, given = len(clip.joints), len(clip.boxes)
    boxes = np.full((num, 4), np.nan)
    boxes[:given] = clip.boxes[:num]
    if 0 < given < num:
        boxes[given : given + MOST_REPEATED] = clip.boxes[-1]
        logger.info("PennAction %s: %d frames, %d boxes: last box repeated.", name, num, given)
    boxes = clipped(boxes, clip.size)
    of_joints = clipped(around(clip.joints[..., :2], clip.joints[..., 2] > 0), clip.size)
    lacking = np.asarray(np.isnan(boxes).any(axis=1))
    return np.where(lacking[:, None], of_joints, boxes), lacking


def _is_clip(name: str) -> bool:
    return len(name) == 4 and name.isdecimal()


def _is_home(folder: Path) -> bool:
    clip = next((name for name in trees.list_folders(folder / "frames") if _is_clip(name)), None)
    return clip is not None and len(trees.list_named(folder / "frames" / clip, IMAGE)[0]) > 0


def _label(home: Path, name: str) -> Path | None:
    return next((home / "labels").glob(f"{name}.mat"), None)


def _hint(root: Path) -> str:
    if trees.find_home(root, lambda folder: (folder / "Penn_Action.tar.gz").is_file()):
        return "unpack Penn_Action.tar.gz"
    if trees.find_home(root, lambda folder: (folder / "labels" / "0001.mat").is_file()):
        return "only labels/ is here: frames/ is part of the same archive"
    return "give the folder that holds frames/ and labels/ (Penn_Action) as ROOT"
