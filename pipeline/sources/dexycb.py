"""DexYCB: ten people grasp objects before eight synchronous cameras.

``` text
<root>/20200709-subject-01/20200709_141754/meta.yml                          one sequence: cameras, frames, side, calibration
<root>/20200709-subject-01/20200709_141754/932122060861/color_000053.jpg     camera, frame; 640 x 480 px
<root>/20200709-subject-01/20200709_141754/932122060861/labels_000053.npz    seg: 255 is the hand
<root>/calibration/intrinsics/932122060861_640x480.yml                       optional: color: {fx, fy, ppx, ppy}
<root>/calibration/extrinsics_20200702_151821/extrinsics.yml                 optional: the one that meta.yml names
```
Convention: extrinsics map a camera to the master camera, metres; the world here is the master camera. Lenses do not distort.

Protocols are those of the publisher: s0 holds out every fifth sequence of a subject, s1 subjects, s2 cameras, s3 objects. Only
s1, the default, keeps a person on one side. In s2 the cameras of one instant are in several splits: these are recordings of
their own, and no pair joins them. A person's sequences are counted in the order of their names, so s0 and s3 need all of them.

Source: the lists of the DexYCB toolkit (setups s0 to s3, order of cameras), and how it applies the calibration.
"""

import io
import logging
import re
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import yaml
from typing_extensions import override

from manifests.errors import SourceError
from manifests.files import NPZ_DAMAGE
from manifests.types import OFFICIAL_SPLIT, BoxFrom, Domain, Reason, Reject, SilhouetteFrom, Split, key_part
from pipeline.recipes import SourceRecipe
from pipeline.silhouettes import from_mask
from pipeline.sources import trees
from pipeline.sources.base import STAGE, Card, Floats, Labels, Marker, Mask, Recording, Scan, Source
from pipeline.sources.calibration import is_rotation, pinhole
from pipeline.sources.layout import files_below

logger = logging.getLogger(__name__)

CAMERAS = (
    "836212060125", "839512060362", "840412060917", "841412060263", "932122060857", "932122060861", "932122061900",
    "932122062010",
)  # fmt: skip
WIDTH, HEIGHT = 640, 480
HAND = 255  # in seg
NUM_SEQUENCES = 100  # of each subject, when all are there
MAX_YAML_BYTES = 1 << 20
AGAIN = "unpack it again from the publisher's archive"
_SUBJECT = re.compile(r"\d{8}-(subject-(\d\d))")
_FILES = r"color_\d{6}\.jpg|aligned_depth_to_color_\d{6}\.png|labels_\d{6}\.npz"

CARD = Card(
    title="DexYCB",
    domains=(Domain.HAND,),
    tree="20200709-subject-01/20200709_141754/{meta.yml,932122060861/color_000053.jpg,labels_000053.npz}, calibration/",
    get="the publisher's page: one archive (119 GB) or subjects one by one (12 GB each), and the calibration",
    licence="CC BY-NC 4.0",
    terms="No commercial use; the toolkit, which is not used here, is GPL-3.0.",
    gives="cross-view and cross-pose; boxes and silhouettes from its segmentation",
)


class DexYcbSource(Source):
    """See the module."""

    card = CARD
    protocols = ("s0", "s1", "s2", "s3")

    def __init__(self, recipe: SourceRecipe, work: Path | None = None) -> None:
        super().__init__(recipe, work)
        self._protocol = recipe.protocol or "s1"

    @override
    def look(self, root: Path) -> list[Marker]:
        """See `Source.look`."""
        home = trees.find_home(root, _is_home)
        there = home or root
        few = [f"{name} has {num} of {NUM_SEQUENCES} sequences" for name, num in _counts(there) if num < NUM_SEQUENCES]
        calibrated = (trees.unwrapped(there / "calibration") / "intrinsics").is_dir()
        return [
            Marker.of("20200709-subject-01/ or another subject", home, _hint(root)),
            Marker.of("calibration/", calibrated, "a download of its own; without it: no cameras", needed=False),
            Marker.of("100 sequences of each subject", home and not few, "; ".join(few), needed=False),
        ]

    @override
    def recordings(self, root: Path) -> list[Recording]:
        """One recording per sequence and split; see `Source.recordings`."""
        home = trees.require_home(root, _is_home, "no folder here is named like 20200709-subject-01", _hint)
        found: list[Recording] = []
        shared = sorted(trees.unwrapped(home / "calibration").glob("*/*.yml"))  # of all: in the fingerprint once
        for subject in _subjects(home):
            folder = trees.unwrapped(home / subject)
            names = _sequences(folder)
            if len(names) < NUM_SEQUENCES:
                logger.warning("%s: subject has %d of %d sequences", subject, len(names), NUM_SEQUENCES)
                if self._protocol in ("s0", "s3"):
                    raise SourceError(
                        f"protocol {self._protocol} goes by a sequence's place among {NUM_SEQUENCES}, "
                        f"and {subject} has {len(names)}",
                        where=folder,
                        hint="download the whole subject, move it away, or take protocol s1 or s2",
                    )
            for place, name in enumerate(names):
                files = files_below(root, [file for file in (folder / name / "meta.yml", *shared) if file.is_file()])
                shared = []
                who, number = _who(subject)
                splits = sorted({split_of(self._protocol, number, place, camera) for camera in range(len(CAMERAS))})
                found += [
                    Recording(
                        sequence=key_part(f"{who}-{name}"),
                        group=who if self._protocol == "s1" else f"{who}-{split}",
                        split=split,
                        files=files,
                        folder=(folder / name).relative_to(root).as_posix(),
                    )
                    for split in splits
                ]
        return sorted(found, key=lambda one: (one.sequence, one.split))

    @override
    def scan(self, root: Path, recording: Recording, *, split: Split) -> Scan:
        """List the frames of one sequence, of the cameras that are in the split; see `Source.scan`."""
        folder = root / recording.folder
        home = trees.find_home(root, _is_home) or root
        if not (folder / "meta.yml").is_file():
            listed = [trees.list_named(folder / camera, _FILES)[0] for camera in trees.list_folders(folder)]
            num = sum(pc.sum(pc.ends_with(names, ".jpg")).as_py() or 0 for names in listed)
            detail = f"meta.yml: the sequence's {len(listed)} cameras, {num} pictures in all, cannot be used"
            return Scan([], [Reject(STAGE, recording.folder, Reason.MISSING, detail, max(1, num))])
        num_frames, side, extrinsics = _read_meta(folder / "meta.yml")
        who, number = _who(next(part for part in Path(recording.folder).parts if _SUBJECT.fullmatch(part)))
        rejects: list[Reject] = []
        numbers: list[str] = []
        views, matrices, poses, media, sizes = [], [], [], list[str](), []
        for index, camera in enumerate(CAMERAS):
            # Only s2 parts the cameras of a sequence, and there its place does not matter.
            if self._protocol == "s2" and split_of("s2", number, 0, index) is not recording.split:
                continue
            place = f"{recording.folder}/{camera}"
            shown, left_out = _list_view(folder / camera, num_frames)
            rejects += trees.counted(place, *left_out)
            matrix, pose = _camera(trees.unwrapped(home / "calibration"), extrinsics, camera)
            numbers += shown
            media += [f"{place}/color_{one}.jpg" for one in shown]
            views.append(camera)
            matrices.append(matrix)
            poses.append(pose)
            sizes.append(len(shown))
        shared = [] if self._protocol == "s1" else [OFFICIAL_SPLIT]
        lost = [np.isnan(matrix).any() or np.isnan(pose).any() for matrix, pose in zip(matrices, poses, strict=True)]
        marks = [[*shared, "uncalibrated"] if one else shared for one in lost]
        table = self.table(
            recording, split,
            instant=np.array(numbers, np.int64),
            view=np.repeat(views, sizes),
            track="hand",
            subject=who,
            media=media,
            width=WIDTH, height=HEIGHT,
            intrinsics=np.repeat(matrices, sizes, axis=0),
            camera_from_world=np.repeat(poses, sizes, axis=0),
            silhouette_from=SilhouetteFrom.DATASET.value,
            side=side,
            flags=[flags for flags, size in zip(marks, sizes, strict=True) for _ in range(size)],
        )  # fmt: skip
        return Scan(table, rejects)

    @override
    def labels(self, root: Path, row: dict[str, Any]) -> Labels | None:
        """The hand's box and pixels in one picture; see `Source.labels`."""
        picture = root / row["media"]
        path = picture.with_name(f"labels_{picture.stem[6:]}.npz")
        try:
            seg = read_member(path, "seg", (HEIGHT, WIDTH), np.dtype(np.uint8))
        except NPZ_DAMAGE as error:
            return Labels(reject=(Reason.BAD_LABEL, trees.unparsed(path, error, AGAIN).what))
        hand: Mask = seg == HAND
        if not hand.any():
            return Labels(reject=(Reason.HIDDEN, "labels say no hand in this view (seg has no 255)"))
        columns, rows = np.flatnonzero(hand.any(axis=0)), np.flatnonzero(hand.any(axis=1))
        box = np.array([columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5])
        return Labels(box_xyxy_px=box, box_from=BoxFrom.DATASET, silhouette=partial(from_mask, hand))


def split_of(protocol: str, subject: int, place: int, camera: int) -> Split:
    """The publisher's split of one camera of one sequence.

    Args:
        protocol: s0, s1, s2 or s3.
        subject: from 1.
        place: of the sequence among its subject's 100, in the order of their names, from 0.
        camera: index into `CAMERAS`.
    """
    if protocol == "s0":
        if place % 5 != 4:
            return Split.TRAIN
        return Split.VAL if subject in (1, 2) else Split.TEST
    if protocol == "s1":
        return {7: Split.VAL, 8: Split.TEST, 9: Split.TEST}.get(subject, Split.TRAIN)
    if protocol == "s2":
        return {6: Split.VAL, 7: Split.TEST}.get(camera, Split.TRAIN)
    of_object = {3: Split.VAL, 19: Split.VAL, 7: Split.TEST, 11: Split.TEST, 15: Split.TEST}
    return of_object.get(place // 5, Split.TRAIN)  # five sequences follow one another for each object


def read_member(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Read one array of an npz file, whose size is known before anything is decompressed.

    Raises:
        ValueError: it is of another shape or dtype, or larger; what else a damaged file raises stands in `NPZ_DAMAGE`.
    """
    most = int(np.prod(shape)) * dtype.itemsize + 1024  # and numpy's header
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        if member.file_size > most:
            raise ValueError(f"{name} has {member.file_size} bytes, more than {shape} of {dtype}")
        array = np.load(io.BytesIO(archive.read(member)), allow_pickle=False)
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name} is {array.shape} of {array.dtype}, not {shape} of {dtype}")
    return array


class _Loader(yaml.SafeLoader):
    """Plain YAML whose scalars stay text (20200702_151821 is a name, no number), and the tuples that Python wrote."""


_Loader.yaml_implicit_resolvers = {}


def _tuple(loader: yaml.SafeLoader, node: yaml.Node) -> list[Any]:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, "a tuple that is no sequence", node.start_mark)
    return loader.construct_sequence(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


@trees.remembered(64)  # the calibrations of all sequences
def _read_yaml(path: Path) -> Any:
    text = trees.read_text(path, AGAIN, most_bytes=MAX_YAML_BYTES)
    try:
        return yaml.load(text, Loader=_Loader)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise trees.unparsed(path, error, AGAIN) from error


def _read_meta(path: Path) -> tuple[int, str, str]:
    """Frames of each camera, the hand's side, and the name of the calibration."""
    meta = _read_yaml(path)
    try:
        num_frames, (side, *_), extrinsics = int(meta["num_frames"]), meta["mano_sides"], meta["extrinsics"]
        if side not in ("left", "right") or not re.fullmatch(r"[\w-]+", extrinsics) or num_frames < 0:
            raise ValueError(f"mano_sides {side}, extrinsics {extrinsics}, num_frames {num_frames}")
    except (KeyError, TypeError, ValueError) as error:
        raise trees.unparsed(
            path, f"num_frames, mano_sides and extrinsics are due: {trees.saying(error)}", AGAIN
        ) from error
    return num_frames, side, extrinsics


def _camera(folder: Path, extrinsics: str, camera: str) -> tuple[Floats, Floats]:
    """K (3, 3) and camera_from_world (4, 4) of a camera; NaN where the calibration is not there."""
    lens, rig = folder / "intrinsics" / f"{camera}_640x480.yml", folder / f"extrinsics_{extrinsics}" / "extrinsics.yml"
    matrix, pose = np.full((3, 3), np.nan), np.full((4, 4), np.nan)
    path = lens
    try:
        if lens.is_file():
            matrix = pinhole(*(float(_read_yaml(lens)["color"][key]) for key in ("fx", "fy", "ppx", "ppy")))
        path = rig
        if rig.is_file():
            master_from_camera = np.eye(4)
            master_from_camera[:3] = np.array(_read_yaml(rig)["extrinsics"][camera], float).reshape(3, 4)
            if not is_rotation(master_from_camera[:3, :3]):
                raise ValueError("the rotation is none")
            pose = np.linalg.inv(master_from_camera)
    except (KeyError, TypeError, ValueError) as error:
        raise trees.unparsed(path, f"camera {camera}: {trees.saying(error)}", AGAIN) from error
    return matrix, pose


def _list_view(folder: Path, num_frames: int) -> tuple[list[str], list[tuple[int, Reason, str]]]:
    """Numbers of one camera's pictures that have labels, as in their names, and what is left out."""
    if not folder.is_dir():
        return [], [(num_frames, Reason.MISSING, "frames: the camera's folder is not there")]
    names, odd = trees.list_named(folder, _FILES)
    listed = names.to_pylist()
    shown = {name[6:12] for name in listed if name.endswith(".jpg")}
    labelled = shown & {name[7:13] for name in listed if name.endswith(".npz")}
    return sorted(labelled), [
        (odd, Reason.BAD_LABEL, "images are not named like color_000053.jpg"),
        (len(shown) - len(labelled), Reason.UNLABELLED, "images have no labels_*.npz"),
        (num_frames - len(shown), Reason.MISSING, f"of {num_frames} frames of meta.yml have no image"),
    ]


def _who(subject: str) -> tuple[str, int]:
    """`subject-01` and 1 of the folder `20200709-subject-01`."""
    match = _SUBJECT.fullmatch(subject)
    assert match is not None, "only folders of this form are listed"
    return match[1], int(match[2])


def _subjects(home: Path) -> list[str]:
    return [name for name in trees.list_folders(home) if _SUBJECT.fullmatch(name)]


def _sequences(subject: Path) -> list[str]:
    return [name for name in trees.list_folders(subject) if re.fullmatch(r"\d{8}_\d{6}", name)]


def _counts(home: Path) -> list[tuple[str, int]]:
    return [(name, len(_sequences(trees.unwrapped(home / name)))) for name in _subjects(home)]


def _is_home(folder: Path) -> bool:
    return bool(_subjects(folder))


def _hint(root: Path) -> str:
    """What to do about a root that is not DexYCB."""
    if _SUBJECT.fullmatch(root.resolve().name):
        return "this is one subject: give the folder that holds it, and calibration/"
    return "give the folder that holds 20200709-subject-01/ and calibration/ as ROOT"
