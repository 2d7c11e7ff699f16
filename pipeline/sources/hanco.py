"""HanCo: hands before eight synchronous cameras, cut out already. It overlaps FreiHAND.

``` text
<root>/meta.json                             is_train, subject_id, ...: for each sequence a list of one value per frame
<root>/rgb/0110/cam3/00000024.jpg            sequence, camera 0 to 7, frame; 224 x 224 px
<root>/mask_hand/0110/cam3/00000024.jpg      optional: the hand, brighter than 127
<root>/calib/0110/00000024.json              optional: K (8, 3, 3) and M (8, 4, 4) of this frame's crops
```
`rgb_merged`, `rgb_homo`, `rgb_color_auto` and `rgb_color_sample` show the frames of `rgb` before other backgrounds. They are the
same instants, and are not read.

Convention: M maps the world to the camera, metres. Crops follow the hand, so K differs from frame to frame.
"""

from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from typing_extensions import override

from manifests.errors import SourceError
from manifests.types import EVALUATION, OFFICIAL_SPLIT, BoxFrom, Domain, Reason, Reject, SilhouetteFrom, Split
from pipeline.media import read_frames
from pipeline.silhouettes import from_mask
from pipeline.sources import trees
from pipeline.sources.base import STAGE, Card, Floats, Labels, Marker, Recording, Scan, Source
from pipeline.sources.boxes import whole
from pipeline.sources.layout import files_below

CAMERAS = tuple(f"cam{number}" for number in range(8))
VARIANTS = ("rgb_merged", "rgb_homo", "rgb_color_auto", "rgb_color_sample")
MASK_ABOVE = 127  # the masks are JPEGs: their edges hold every value
AGAIN = "unpack 'Camera Calibration and Meta Information' again; a file of calib/ may also be removed"
NO_META = "meta.json absent: it is the separate download 'Camera Calibration and Meta Information'"

CARD = Card(
    title="HanCo",
    domains=(Domain.HAND,),
    tree="rgb/0110/cam3/00000024.jpg, meta.json; calib/ and mask_hand/ (optional)",
    get="the project page of contra-hand (Freiburg): RGB originals, hand masks, Camera Calibration and Meta Information",
    licence="research only (unverified)",
    terms="Its text was not seen; FreiHAND, of the same authors, forbids commercial use.",
    gives="cross-view and cross-pose; the pictures are crops of hands; silhouettes from its masks",
)


class HanCoSource(Source):
    """See the module."""

    card = CARD

    @override
    def look(self, root: Path) -> list[Marker]:
        """See `Source.look`."""
        home = trees.find_home(root, _is_home)
        there = home or root
        meta, calib, masks = ((there / name).exists() for name in ("meta.json", "calib", "mask_hand"))
        return [
            Marker.of("rgb/0000/cam0/", home, _hint(root)),
            Marker.of("meta.json", meta, NO_META),
            Marker.of("calib/", calib, "comes with meta.json; without: no cameras", needed=False),
            Marker.of("mask_hand/", masks, "without: no silhouettes", needed=False),
        ]

    @override
    def recordings(self, root: Path) -> list[Recording]:
        """One recording per sequence; those before a green screen are to learn from, see `Source.recordings`."""
        home = trees.require_home(root, _is_home, "rgb/0000/cam0/ is not here", _hint)
        if not (home / "meta.json").is_file():
            raise SourceError(NO_META, where=home, hint="download it and unpack it beside rgb/")
        meta, found = read_meta(home / "meta.json"), []
        files = files_below(root, [home / "meta.json"])
        for name in _sequences(home):
            is_train, subjects = told_of(meta, name)
            split = Split.TRAIN if all(is_train) else Split.TEST
            who = name if not subjects or subjects[0] is None else f"subject-{subjects[0]}"
            group = who if split is Split.TRAIN else f"{EVALUATION}-{who}"  # one person may be in both
            folder = (home / "rgb" / name).relative_to(root).as_posix()
            found.append(Recording(sequence=name, group=group, split=split, files=files, folder=folder))
            files = ()  # it is the file of all: it stands in the fingerprint once
        return found

    @override
    def scan(self, root: Path, recording: Recording, *, split: Split) -> Scan:
        """List the frames of one sequence; see `Source.scan`."""
        folder, name = root / recording.folder, recording.sequence
        home = folder.parent.parent
        is_train, subjects = told_of(read_meta(home / "meta.json"), name)
        views, rejects, size = [], list[Reject](), None
        for number, camera in enumerate(CAMERAS):
            names, left_out = _list_view(folder / camera, len(is_train))
            rejects += trees.counted(f"{recording.folder}/{camera}", *left_out)
            if len(names):
                size = size or trees.image_size(folder / camera, names)
                frames = trees.numbers_of(names, 0, -4)
                views.append((frames, np.full(len(frames), number), trees.below(f"{recording.folder}/{camera}", names)))
        if not views:
            return Scan([], rejects or [Reject(STAGE, recording.folder, Reason.MISSING, "no image is here")])
        if size is None:
            return Scan([], rejects + trees.nothing_seen(recording.folder, sum(len(frames) for frames, _, _ in views)))
        instant, view, media = (np.concatenate(column) for column in zip(*views, strict=True))
        instants, row = np.unique(instant, return_inverse=True)
        matrices, poses = _cameras_of(home / "calib" / name, instants)
        subject = np.array([None if one is None else f"subject-{one}" for one in subjects], object)
        has_masks = (home / "mask_hand" / name).is_dir()
        shared = [] if recording.split is Split.TRAIN else [EVALUATION, OFFICIAL_SPLIT]
        lost = np.isnan(poses[row, view, 0, 0]).tolist()
        width, height = size
        table = self.table(
            recording, split,
            instant=instant,
            view=np.array(CAMERAS)[view],
            track="hand",
            subject=subject[instant],
            media=media.tolist(),
            width=width, height=height,
            box_xyxy_px=whole(size),
            box_from=BoxFrom.FULL_FRAME.value,
            intrinsics=matrices[row, view],
            camera_from_world=poses[row, view],
            silhouette_from=(SilhouetteFrom.DATASET if has_masks else SilhouetteFrom.NONE).value,
            flags=[[*shared, "uncalibrated"] if bad else shared for bad in lost],
        )  # fmt: skip
        return Scan(table, rejects)

    @override
    def labels(self, root: Path, row: dict[str, Any]) -> Labels | None:
        """The mask of one picture; see `Source.labels`."""
        if row["silhouette_from"] == SilhouetteFrom.NONE:
            return None
        *home, _, sequence, view, name = PurePosixPath(row["media"]).parts
        path = root.joinpath(*home, "mask_hand", sequence, view, name)
        if not path.is_file():
            return None
        picture = next(read_frames(path))
        if picture.rgb is None:
            return Labels(reject=(Reason.BAD_LABEL, f"mask_hand: {picture.detail}"))
        mask = picture.rgb[..., 0] > MASK_ABOVE
        if mask.shape != (row["height"], row["width"]):
            return Labels(reject=(Reason.BAD_LABEL, f"mask_hand has {mask.shape[1]} x {mask.shape[0]} px"))
        if not mask.any():
            return Labels(reject=(Reason.HIDDEN, "mask_hand shows no hand in this view"))
        return Labels(silhouette=partial(from_mask, mask))


@trees.remembered(2)  # every sequence of a worker looks itself up in it
def read_meta(path: Path) -> dict[str, Any]:
    """Read meta.json: for `is_train` and `subject_id`, a list per sequence of one value per frame.

    Raises:
        SourceError: it does not parse, or holds something else.
    """
    meta = trees.read_json(path, AGAIN)
    lists = {key: meta.get(key) if isinstance(meta, dict) else None for key in ("is_train", "subject_id")}
    if not all(isinstance(one, list) and all(isinstance(frames, list) for frames in one) for one in lists.values()):
        raise trees.unparsed(path, "is_train and subject_id are no lists of one list per sequence", AGAIN)
    return lists


def told_of(meta: dict[str, list[list[Any]]], name: str) -> tuple[list[Any], list[Any]]:
    """What meta.json says of the frames of a sequence, `is_train` and `subject_id`; empty of one that it does not know."""
    is_train, subjects = (
        one[int(name)] if int(name) < len(one) else [] for one in (meta["is_train"], meta["subject_id"])
    )
    frames = min(len(is_train), len(subjects))
    return is_train[:frames], subjects[:frames]


def _list_view(folder: Path, num_frames: int) -> tuple[pa.StringArray, list[tuple[int, Reason, str]]]:
    """Names of one camera's images that meta.json knows, and what is left out."""
    if not folder.is_dir():
        return pa.array([], pa.string()), [(num_frames, Reason.MISSING, "frames: the camera's folder is not there")]
    names, odd = trees.list_named(folder, r"\d{8}\.jpg")
    known = trees.numbers_of(names, 0, -4) < num_frames
    unknown, absent = int((~known).sum()), num_frames - int(known.sum())
    return names.filter(pa.array(known)), [
        (odd, Reason.BAD_LABEL, "images are not named like 00000024.jpg"),
        (unknown, Reason.UNLABELLED, f"images: meta.json knows {num_frames} frames"),
        (absent, Reason.MISSING, "frames of meta.json have no image"),
    ]


def _cameras_of(folder: Path, instants: Any) -> tuple[Floats, Floats]:
    """K (n, 8, 3, 3) and M (n, 8, 4, 4) of the frames of a sequence; NaN where a frame has no file."""
    matrices, poses = np.full((len(instants), 8, 3, 3), np.nan), np.full((len(instants), 8, 4, 4), np.nan)
    for row, instant in enumerate(instants):
        path = folder / f"{instant:08d}.json"
        if not path.is_file():
            continue
        try:
            calibration = trees.read_json(path, AGAIN)
            matrices[row] = np.array(calibration["K"], float).reshape(8, 3, 3)
            poses[row] = np.array(calibration["M"], float).reshape(8, 4, 4)
        except (KeyError, TypeError, ValueError) as error:
            raise trees.unparsed(path, f"K (8, 3, 3) and M (8, 4, 4) are due: {trees.saying(error)}", AGAIN) from error
        if not (np.isfinite(matrices[row]).all() and np.isfinite(poses[row]).all()):
            raise trees.unparsed(path, "K or M holds numbers that are not finite", AGAIN)
    return matrices, poses


def _sequences(home: Path) -> list[str]:
    return [name for name in trees.list_folders(home / "rgb") if len(name) == 4 and name.isdecimal()]


def _is_home(folder: Path) -> bool:
    return bool(_sequences(folder))


def _hint(root: Path) -> str:
    """What to do about a root that is not HanCo."""
    if trees.find_home(root, lambda folder: any((folder / name).is_dir() for name in VARIANTS)):
        return "only pictures before other backgrounds are here, which are not read: rgb/ is another download, 'RGB originals'"
    return "give the folder that holds rgb/ (the RGB originals) as ROOT"
