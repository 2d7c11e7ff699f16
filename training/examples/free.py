"""Rendered people and hands with exact labels: the `renders` stage of a build, free of anybody's terms.

Shape letters: as in `training.examples.base`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import simplejpeg

from manifests.build import Build
from manifests.errors import TrainingError
from manifests.seeds import seed_for
from manifests.splits import assign
from manifests.types import Domain, Split
from training.examples.base import About, Example

MARGIN = 1.2  # of the square around the person's box, as in the protocols of people in photographs
VALIDATION_SHARE = 0.1
SEED = seed_for("free", "validation")  # no build's: whom a build keeps, the same choice would never hold out
POINTS = {Domain.BODY: ("smpl24", "coco17", "penn13"), Domain.HAND: ("hand21",)}
_JOINTS = {Domain.BODY: "smpl24", Domain.HAND: "mano16"}
_MOST_PX = 1024
_CROPS = (
    "key", "split", "domain", "subject", "sequence", "instant", "view", "side", "jpeg", "box_xyxy_px", "intrinsics",
    "keypoints_px",
)  # fmt: skip
_LABELS = ("key", "parts", "uv", "joints_m", "coco17", "penn13", "global_orient", "pose", "betas")


class Free:
    """Rendered pictures, each with the same moment from another side where the build has one.

    Every point is known exactly, seen or hidden, so its confidence is 1. `test` is who the build holds out, `val` a tenth of the
    other people, chosen by their names, and `train` the rest.

    Args:
        root: of the build.
        split: train, val or test.
        keypoint_set: smpl24, coco17 or penn13 of bodies, hand21 of hands; the first of them when None.

    Raises:
        TrainingError: there are no renders, none of this split, or no such points.
    """

    def __init__(self, root: Path, *, split: str, keypoint_set: str | None = None) -> None:
        if not (root / "renders").is_dir():
            hint = "`make render RECIPE=free_body OUT=...` (or free_hand) makes a build that does"
            raise TrainingError("the build holds no rendered pictures", where=root, hint=hint)
        self._crops, self._labels = crops, labels = _tables(root.resolve(), (root / "renders").stat().st_mtime_ns)
        people = list(zip(crops["split"].to_pylist(), crops["subject"].to_pylist(), strict=True))
        sides = assign({name for held, name in people if held == Split.TRAIN}, seed=SEED, val_share=VALIDATION_SHARE)
        self._places = np.flatnonzero(
            [(sides[name].value if held == Split.TRAIN else "test") == split for held, name in people]
        )
        if not len(self._places):
            raise TrainingError(f"no rendered person is in the split {split}", where=root, hint="render more people")
        self._second = _other_views(crops.select(["sequence", "instant", "view"]).take(self._places).to_pylist())
        domain = Domain(crops["domain"][0].as_py())
        self._points = keypoint_set or POINTS[domain][0]
        if self._points not in POINTS[domain]:
            hint = f"give {' or '.join(POINTS[domain])}"
            raise TrainingError(f"a {domain} has no points {self._points}", where="keypoint_set", hint=hint)
        self._maps = tuple(name for name in ("parts", "uv") if not labels[name].null_count)
        seconds = ("second_uv",) if "uv" in self._maps and None not in self._second else ()
        side = ("side",) if domain is Domain.HAND else ()
        known = "pose", "betas", "gender", "joints_m", "keypoints_px", "intrinsics", "instance"
        self._about = About(
            name=f"free_{domain}",
            domain=domain,
            split=split,
            labels=(*known, *self._maps, *seconds, *side),
            joint_set=_JOINTS[domain],
            keypoint_set=self._points,
            protocol=f"rendered; nobody is in two splits; square of {MARGIN} x the longer side of the {domain}'s box",
        )

    @property
    def about(self) -> About:
        """What is known of all."""
        return self._about

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Example:
        """Decode one.

        Raises:
            IndexError: there is none.
            TrainingError: its picture, or a map of it, is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        crop, label = self._row(self._crops, index), self._row(self._labels, index)
        points = crop["keypoints_px"] if self._points == POINTS[self._about.domain][0] else label[self._points]
        points_K3 = np.array(points, np.float64).reshape(-1, 3)
        points_K3[:, 2] = 1.0
        labels: dict[str, Any] = {
            "pose": np.array([*label["global_orient"], *label["pose"]], np.float64).reshape(-1, 3),
            "betas": np.array(label["betas"], np.float64),
            "gender": "neutral",
            "joints_m": np.array(label["joints_m"], np.float64).reshape(-1, 3),
            "keypoints_px": points_K3,
            "intrinsics": np.array(crop["intrinsics"], np.float64).reshape(3, 3),
            "instance": f"{crop['sequence']}/{crop['instant']}",
        }
        maps = {name: (name, label) for name in self._maps}
        if self._about.domain is Domain.HAND:
            labels["side"] = crop["side"]
        second, place = None, self._second[index]
        if place is not None:
            second = self._row(self._crops, place)
            if "uv" in self._maps:
                maps["second_uv"] = "uv", self._row(self._labels, place)
        return Example(
            key=crop["key"],
            rgb_HW3=_picture(crop),
            square_xyxy_px=_square(crop),
            labels=_Labels(labels, maps),
            subject=crop["subject"],
            second_HW3=None if second is None else _picture(second),
            second_square_xyxy_px=None if second is None else _square(second),
        )

    def subjects(self) -> Sequence[str | None]:
        """The person of each picture."""
        return self._column("subject")

    def keys(self) -> Sequence[str]:
        """The key of each."""
        return self._column("key")

    def poses(self) -> npt.NDArray[np.float64]:
        """(n, R, 3) the label `pose` of each, without decoding."""
        columns = (np.stack(self._labels[name].take(self._places).to_numpy()) for name in ("global_orient", "pose"))
        return np.concatenate(list(columns), axis=1).reshape(len(self), -1, 3)

    def sides(self) -> Sequence[str | None]:
        """Which hand each shows; None of bodies."""
        return self._column("side")

    def _column(self, name: str) -> list[Any]:
        column: list[Any] = self._crops[name].take(self._places).to_pylist()
        return column

    def _row(self, table: pa.Table, index: int) -> dict[str, Any]:
        row: dict[str, Any] = table.slice(self._places[index], 1).to_pylist()[0]
        return row


@lru_cache(maxsize=1)
def _tables(root: Path, _changed_ns: int) -> tuple[pa.Table, pa.Table]:
    """Crops and labels of the same pictures, row by row. All splits read them, and a comparison reads them dozens of times."""
    crops, labels = Build(root).table("crops", columns=_CROPS), Build(root).table("labels", columns=_LABELS)
    return crops.take(pa.compute.index_in(labels["key"], crops["key"])).combine_chunks(), labels.combine_chunks()


class _Labels(Mapping[str, Any]):
    """Labels of which maps are decoded when they are asked for: they cost more than all else, and most tasks need none."""

    def __init__(self, known: Mapping[str, Any], maps: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
        self._known, self._maps = known, maps

    def __getitem__(self, name: str) -> Any:
        return _map(*self._maps[name]) if name in self._maps else self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*self._known, *self._maps))

    def __len__(self) -> int:
        return len(self._known) + len(self._maps)


def _other_views(rows: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """For each picture the next view of its moment, the first one after the last; else its view's next moment, if there is one."""
    moments: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    views: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        moments[row["sequence"], row["instant"]].append(place)
        views[row["sequence"], row["view"]].append(place)
    other: list[int | None] = [None] * len(rows)
    for groups in (views, moments):  # the later wins
        for places in groups.values():
            for place, following in zip(places, places[1:] + places[:1], strict=True):
                other[place] = following if following != place else other[place]
    return other


def _square(crop: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    low, high = np.array(crop["box_xyxy_px"]).reshape(2, 2)
    half = MARGIN * (high - low).max() / 2
    return np.concatenate([(low + high) / 2 - half, (low + high) / 2 + half])


def _picture(crop: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    try:
        if max(simplejpeg.decode_jpeg_header(crop["jpeg"])[:2]) > _MOST_PX:
            raise ValueError(f"larger than {_MOST_PX} px")
        return np.asarray(simplejpeg.decode_jpeg(crop["jpeg"], "RGB"))
    except ValueError as error:
        raise TrainingError(
            f"the picture is damaged: {error}", where=crop["key"], hint="render the scene again"
        ) from error


def _map(name: str, label: Mapping[str, Any]) -> npt.NDArray[Any]:
    """A map as `LABELS` has it, from its PNG: 8 bits of parts; 16 bits of u, v and whether there is a person."""
    data = label[name]
    sides = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")  # a PNG begins with them
    fits = 0 < max(sides) <= _MOST_PX
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if fits else None
    dtype, ndim = (np.uint8, 2) if name == "parts" else (np.uint16, 3)
    if stored is None or stored.dtype != dtype or stored.ndim != ndim:
        raise TrainingError(f"the map of {name} is damaged", where=label["key"], hint="render the scene again")
    if name == "parts":
        return np.asarray(stored)
    uv1 = stored[..., ::-1]
    return np.where(uv1[..., 2:] > 0, uv1[..., :2] / np.float32(65535), np.float32(-1))
