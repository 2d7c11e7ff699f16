"""Crops of a recording: every picture decoded once, in order; people found, followed, matched across views, cut out.

A crop is encoded when its picture is at hand, and given up later when its track turns out too short or a bystander's: a few
JPEGs in memory cost less than decoding twice.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import simplejpeg

from manifests import table as tables
from manifests.geometry import camera_centre, crop_from_frame, rays
from manifests.sample import SILHOUETTE_BYTES, cells_of, pack_cells
from manifests.types import EVERYBODY, BoxFrom, Domain, FrameKey, Reason, Reject, SilhouetteFrom
from pipeline.guard import ParserCrashError
from pipeline.media import Picture, read_media
from pipeline.parse import HumanParser
from pipeline.people import Follower
from pipeline.quality import Verdict, Watch, gaps, perceptual_hash
from pipeline.recipes import CropRecipe
from pipeline.sight import Person, Sought, see_all
from pipeline.silhouettes import Mask, coco17_of, from_coco17, gate
from pipeline.sources.base import Labels
from pipeline.squares import Floats, Image, Square, carry, cut, square_within
from pipeline.subject import ViewTrack, identify

STAGE = "crops"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 1 << 28  # of freed memory
LEAST_COVERAGE, MOST_COVERAGE = 0.03, 0.90  # a silhouette beyond these is no silhouette of a person in this crop
PARSED_AT_ONCE = 16  # people of boxes that the dataset gave
SLIVER = 0.2  # a box at the image's edge, thinner than this share of its length: too much lies outside

Row = dict[str, Any]


@dataclass(slots=True)
class _Seen:
    """One followed person in one picture: the crop's columns, and where the camera looked."""

    row: Row
    instant: int
    middle_px: Floats  # of the silhouette, in the frame
    size_px: float
    colours: Floats


@dataclass(slots=True)
class _View:
    """What one camera gave."""

    name: str
    camera: Row
    tracks: dict[int, list[_Seen]] = field(default_factory=dict)
    boxed: list[Row] = field(default_factory=list)  # crops of frames that came with a box, named already


def crop_recording(
    frames: pa.Table,
    root: Path,
    *,
    recipe: CropRecipe,
    parser: HumanParser | None,
    parser_threshold: float,
    labels: Callable[[Row], Labels | None] = lambda _: None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[pa.Table, list[Reject]]:
    """Cut the people out of one recording.

    Args:
        frames: rows of the frames table of one recording.
        root: of its source.
        recipe: how people are found, followed and cut out.
        parser: sees people; None takes each whole frame that has no box.
        parser_threshold: person probability from which a pixel is the person.
        labels: what the source's label files say of a row, see `Source.labels`.
        progress: told pictures done and in all.

    Returns:
        rows of the crops table sorted by key, and what was left out. A reject names the frame (track `all`) or, where a
        person was left out of it, the person by the track's number in its view (`t0`).
    """
    _keep_memory()
    cv2.setNumThreads(1)  # workers share the machine, and one order of additions gives one result
    rows = sorted(frames.to_pylist(), key=lambda row: (row["view"], row["instant"], row["key"]))
    rejects: list[Reject] = []
    views, done = [], 0
    for name, group in groupby(rows, key=lambda row: str(row["view"])):
        mine = list(group)
        view = _View(name, mine[0])
        walk = _Walk(view, recipe, parser, parser_threshold, labels, rejects)
        for row, picture, gap, again in _pictures(mine, root, recipe):
            walk.step(row, picture, gap=gap, again=again)
            done += 1
            if progress is not None:
                progress(done, len(rows))
        walk.finish()
        views.append(view)
    crops = _name_people(views, recipe, rejects)
    return tables.from_rows("crops", sorted(crops, key=lambda crop: str(crop["key"]))), rejects


def _keep_memory() -> None:
    """Let glibc keep the memory of past pictures: given back to the system, each new picture's pages are faulted in anew."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for setting in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            mallopt(setting, KEPT_BYTES)


def _pictures(rows: list[Row], root: Path, recipe: CropRecipe) -> Iterator[tuple[Row, Picture, bool, bool]]:
    """The pictures of one view's rows; whether time is missing before each; whether it is the row before's picture again.

    Several rows of one instant and picture are several people whose boxes the source knows.
    """
    times = [row["time_s"] for row in rows]
    clock = [float(row["instant"]) for row in rows] if any(time is None for time in times) else times
    missing = gaps(clock, factor=recipe.time_gap)
    shown = [(row["instant"], row["media"], row["media_index"]) for row in rows]
    again = [i > 0 and shown[i] == shown[i - 1] for i in range(len(rows))]
    pictures = read_media(root, [place[1:] for place, same in zip(shown, again, strict=True) if not same])
    picture = None
    for row, gap, same in zip(rows, missing, again, strict=True):
        picture = picture if same and picture is not None else next(pictures)
        yield row, picture, bool(gap), same


@dataclass(slots=True)
class _Boxed:
    """The person of a box that the dataset gave, whose silhouette is still to be drawn into the crop's columns."""

    crop: Row
    rgb: Image
    box: Floats
    square: Square
    to_crop: Floats
    points: Floats | None  # (17, 3) in the frame
    told: Labels
    parsed: bool  # whether the parser can be asked


class _Walk:
    """Goes through one view's pictures in order."""

    def __init__(
        self,
        view: _View,
        recipe: CropRecipe,
        parser: HumanParser | None,
        threshold: float,
        labels: Callable[[Row], Labels | None],
        rejects: list[Reject],
    ) -> None:
        self._view, self._recipe, self._parser, self._threshold = view, recipe, parser, threshold
        self._labels, self._rejects = labels, rejects
        self._watch = Watch(recipe)
        self._verdict = Verdict(None, None, False)
        self._follower = Follower(parser, recipe, threshold=threshold) if parser is not None else None
        self._segment = 0
        self._waiting: list[tuple[_Boxed, Sequence[str]]] = []  # for the parser, and what is tried after it

    def step(self, row: Row, picture: Picture, *, gap: bool, again: bool = False) -> None:
        """Judge one picture and cut out whom it shows; `again`: another person in the picture of the row before."""
        followed = row["track"] == EVERYBODY  # else the dataset says who is who, across gaps and cuts
        if gap and followed:
            self._part(row, Reason.TIME_GAP, "frames are missing before this one")
        if picture.rgb is None:
            self._reject(row["key"], Reason.UNREADABLE, picture.detail)
            return
        height, width = picture.rgb.shape[:2]
        if (width, height) != (row["width"], row["height"]):
            detail = f"{width} x {height} px, where {row['width']} x {row['height']} is due"
            self._reject(row["key"], Reason.SIZE, detail)
            return
        if not again:
            self._verdict = self._watch.look(picture.rgb)
        verdict = self._verdict
        if verdict.reason is not None:
            self._reject(row["key"], verdict.reason, verdict.detail)
            return
        if verdict.cut and not again and followed:
            self._part(row, Reason.CUT, verdict.detail)
        shared = {"difference": verdict.difference, "segment": self._segment}
        told = self._labels(row) or Labels()
        if told.reject is not None:
            self._reject(row["key"], *told.reject)
            return
        if told.box_xyxy_px is not None:
            row = row | {"box_xyxy_px": told.box_xyxy_px.tolist(), "box_from": told.box_from.value}
        try:
            if row["box_xyxy_px"] is not None or self._follower is None or row["domain"] == Domain.HAND:
                self._cut_boxed(row, picture.rgb, shared, told)
            else:
                self._cut_followed(row, picture.rgb, shared, self._follower)
        except ParserCrashError as error:  # whom it followed is lost with it
            self._part(row, Reason.PARSER_CRASH, str(error))

    def _part(self, row: Row, reason: Reason, detail: str) -> None:
        """Nothing after this joins what was before."""
        self._reject(row["key"], reason, detail)
        self._segment += 1
        if self._follower is not None:
            self._follower.restart()

    def _reject(self, key: str, reason: Reason, detail: str = "") -> None:
        self._rejects.append(Reject(STAGE, key, reason, detail))

    def _cut_boxed(self, row: Row, rgb: Image, shared: Row, told: Labels) -> None:
        """Cut the box that the dataset gave; without one, the whole frame."""
        height, width = rgb.shape[:2]
        given = row["box_xyxy_px"] is not None
        box = np.array(row["box_xyxy_px"] if given else [-0.5, -0.5, width - 0.5, height - 0.5], float)
        if self._too_small(row["key"], box):
            return
        box_from = row["box_from"] if given else BoxFrom.FULL_FRAME.value
        track = "p0" if row["track"] == EVERYBODY else row["track"]
        square, to_crop = self._place(rgb, box)
        crop = self._crop(row, rgb, box, square, to_crop) | shared | {"box_from": box_from}
        crop |= {"key": _with_track(row["key"], track), "track": track, "subject": row["subject"]}
        self._view.boxed.append(crop)
        points = coco17_of(row["keypoints_px"], row["keypoints_set"]) if given else None
        parsed = self._parser is not None and row["domain"] == Domain.BODY and given
        self._draw(_Boxed(crop, rgb, box, square, to_crop, points, told, parsed))

    def _cut_followed(self, row: Row, rgb: Image, shared: Row, follower: Follower) -> None:
        """Cut out everybody who is followed."""
        tracks = follower.step(rgb)
        if not tracks:
            self._reject(row["key"], Reason.EMPTY, "nobody is seen clearly")
        for track in tracks:
            name = _with_track(row["key"], f"t{track.number}")
            height, width = rgb.shape[:2]
            box = np.clip(track.box_xyxy_px, -0.5, np.array([width, height] * 2) - 0.5)
            if self._too_small(name, box) or self._sliver(name, box, width=width, height=height):
                continue
            square, to_crop = self._place(rgb, box)
            crop = self._crop(row, rgb, box, square, to_crop) | shared | {"box_from": BoxFrom.PARSER.value}
            self._fill(crop, self._parsed(track.person, square), SilhouetteFrom.PARSER)
            seen = _Seen(
                crop, row["instant"], _middle(track.person), float((box[2:] - box[:2]).max()), track.person.colours
            )
            self._view.tracks.setdefault(track.number, []).append(seen)

    def _too_small(self, key: str, box: Floats) -> bool:
        longer = float((box[2:] - box[:2]).max())
        if longer >= self._recipe.min_person_px:
            return False
        self._reject(key, Reason.TOO_SMALL, f"{longer:.0f} px")
        return True

    def _sliver(self, key: str, box: Floats, *, width: int, height: int) -> bool:
        size = box[2:] - box[:2]
        on_edge = bool((box[:2] <= 0).any() or (box[2:] >= np.array([width, height]) - 1).any())
        if not on_edge or size.min() >= SLIVER * size.max():
            return False
        self._reject(key, Reason.TRUNCATED, f"{size[0]:.0f} x {size[1]:.0f} px at the image's edge")
        return True

    def _draw(self, one: "_Boxed", ways: Sequence[str] | None = None) -> None:
        """Let the first who can draw the person of a box; those for whom the parser is asked wait for one another."""
        size = self._recipe.size_px
        ways = self._recipe.silhouettes if ways is None else ways
        for number, way in enumerate(ways):
            drawn = False
            if way == "labels" and one.told.silhouette is not None:
                drawn = self._fill(one.crop, one.told.silhouette(one.to_crop, size), one.told.silhouette_from)
            elif way == "parser" and one.parsed:
                self._waiting.append((one, ways[number + 1 :]))
                if len(self._waiting) >= PARSED_AT_ONCE:
                    self.finish()
                return
            elif way == "keypoints" and one.points is not None:
                mask = from_coco17(one.points, one.to_crop, size)
                drawn = self._fill(one.crop, mask, SilhouetteFrom.KEYPOINTS)
            if drawn:
                return

    def finish(self) -> None:
        """Parse the people who wait."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            self._parse(waiting)
        except ParserCrashError:  # one of them is to blame: which?
            for one, ways in waiting:
                try:
                    self._parse([(one, ways)])
                except ParserCrashError as error:
                    self._view.boxed.remove(one.crop)
                    self._reject(one.crop["key"], Reason.PARSER_CRASH, str(error))

    def _parse(self, waiting: "list[tuple[_Boxed, Sequence[str]]]") -> None:
        assert self._parser is not None, "nobody waits for a parser that is not there"
        seen = see_all(self._parser, [Sought(one.rgb, one.box) for one, _ in waiting], threshold=self._threshold)
        for (one, ways), person in zip(waiting, seen, strict=True):
            mask = None if person is None else self._parsed(person, one.square)
            if mask is not None:
                mask &= gate(one.points, one.box, one.to_crop, self._recipe.size_px)
            if not self._fill(one.crop, mask, SilhouetteFrom.PARSER):
                self._draw(one, ways)

    def _parsed(self, person: Person, square: Square) -> Mask | None:
        """What the parser saw, where it can be a person in this crop."""
        mask = carry(person.person, person.square, square, self._recipe.size_px) > self._threshold
        return mask if LEAST_COVERAGE <= mask.mean() <= MOST_COVERAGE else None

    def _fill(self, crop: Row, mask: Mask | None, drawn_by: SilhouetteFrom) -> bool:
        """Put a silhouette into a crop's columns; whether there is one."""
        if mask is None or not mask.any():
            return False
        crop |= {
            "silhouette": pack_cells(cells_of(mask)),
            "silhouette_from": drawn_by.value,
            "coverage": float(mask.mean()),
            "parser": self._parser.name if self._parser and drawn_by is SilhouetteFrom.PARSER else None,
        }
        return True

    def _place(self, rgb: Image, box: Floats) -> tuple[Square, Floats]:
        """The square to store for a box, and the matrix that maps the image's pixels into the crop."""
        height, width = rgb.shape[:2]
        square = square_within(box, margin=self._recipe.margin, width=width, height=height)
        return square, crop_from_frame(square.xyxy_px(), self._recipe.size_px)

    def _crop(self, row: Row, rgb: Image, box: Floats, square: Square, crop_from_image: Floats) -> Row:
        """The crop's columns, but for its name; without a silhouette as yet."""
        camera = row["intrinsics"]
        return {
            **{
                name: row[name]
                for name in ("source", "licence", "domain", "split", "group", "sequence", "instant", "time_s", "view")
            },
            **{name: row[name] for name in ("camera_from_world", "side", "keypoints_set")},
            "frame_key": row["key"],
            "flags": row["flags"] + (["distorted"] if row["distortion"] and any(row["distortion"]) else []),
            **stored_picture(cut(rgb, square, self._recipe.size_px), self._recipe.jpeg_quality),
            "square_xyxy_px": square.xyxy_px().tolist(),
            "box_xyxy_px": box.tolist(),
            "intrinsics": None if camera is None else (crop_from_image @ np.reshape(camera, (3, 3))).ravel().tolist(),
            "keypoints_px": _keypoints(row["keypoints_px"], crop_from_image),
            "silhouette": bytes(SILHOUETTE_BYTES),
            "silhouette_from": SilhouetteFrom.NONE.value,
            "coverage": 0.0,
            "parser": None,
        }


def stored_picture(rgb: Image, quality: int) -> Row:
    """Encode a crop, once and for all, and take its fingerprints.

    Args:
        rgb: (S, S, 3).
        quality: of the JPEG (baseline, 4:2:0: what decodes fastest).

    Returns:
        columns jpeg, size_px, mean and phash of the crops table.
    """
    luma = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=quality, colorspace="RGB", colorsubsampling="420")
    return {"jpeg": jpeg, "size_px": len(rgb), "mean": cv2.mean(luma)[0], "phash": perceptual_hash(luma)}


def _keypoints(points: list[float] | None, crop_from_image: Floats) -> list[float] | None:
    if points is None:
        return None
    table = np.reshape(np.array(points, float), (-1, 3))
    table[:, :2] = table[:, :2] @ crop_from_image[:2, :2].T + crop_from_image[:2, 2]
    return [float(value) for value in table.ravel()]


def _middle(person: Person) -> Floats:
    """Centre of a silhouette's mass, in pixels of the frame."""
    weight = person.person.astype(np.float64)
    at = np.arange(len(weight)) + 0.5
    share = np.array([weight.sum(axis=0) @ at, weight.sum(axis=1) @ at]) / weight.sum() / len(weight)
    corner = person.square.xyxy_px()
    middle: Floats = corner[:2] + share * person.square.side
    return middle


def _with_track(key: str, track: str) -> str:
    parsed = FrameKey.parse(key)
    return str(
        FrameKey(
            source=parsed.source, split=parsed.split, sequence=parsed.sequence,
            instant=parsed.instant, view=parsed.view, track=track,
        )
    )  # fmt: skip


def _name_people(views: list[_View], recipe: CropRecipe, rejects: list[Reject]) -> list[Row]:
    """Say who each track is, across views; the crops of those who stay, named."""
    tracks = []
    for view in views:
        for number, seen in sorted(view.tracks.items()):
            if len(seen) < recipe.min_track:
                _reject_track(rejects, view, number, Reason.SHORT_TRACK, f"followed for {len(seen)} frames")
                view.tracks[number] = []
            else:
                tracks.append(_view_track(view, number, seen))
    who = (
        identify(tracks, views=[view.name for view in views if not view.boxed], meet_m=recipe.meet_m) if tracks else {}
    )
    several = len({one.name for one in who.values() if one.name}) > 1
    crops = [crop for view in views for crop in view.boxed]
    for view in views:
        for number, seen in sorted(view.tracks.items()):
            if not seen:
                continue
            one = who[view.name, number]
            if one.name is None:
                assert one.reason is not None, "who is left out has a reason"
                _reject_track(rejects, view, number, one.reason, one.detail)
                continue
            subject = (
                None if several else view.camera["subject"]
            )  # the recording's subject is one of them, unknown which
            crops += [
                s.row | {"key": _with_track(s.row["frame_key"], one.name), "track": one.name, "subject": subject}
                for s in seen
            ]
    return crops


def _reject_track(rejects: list[Reject], view: _View, number: int, reason: Reason, detail: str) -> None:
    rejects += [
        Reject(STAGE, _with_track(seen.row["frame_key"], f"t{number}"), reason, detail) for seen in view.tracks[number]
    ]


def _view_track(view: _View, number: int, seen: list[_Seen]) -> ViewTrack:
    origins = directions = None
    camera = view.camera
    if camera["intrinsics"] is not None and camera["camera_from_world"] is not None:
        pose = np.reshape(camera["camera_from_world"], (4, 4))
        matrix = np.reshape(camera["intrinsics"], (3, 3))
        lens = np.array(camera["distortion"], float) if camera["distortion"] else None
        directions = rays(np.stack([s.middle_px for s in seen]), matrix, pose, lens)
        origins = np.tile(camera_centre(pose), (len(seen), 1))
    return ViewTrack(
        view=view.name,
        number=number,
        instants=np.array([s.instant for s in seen], np.int64),
        origins_m=origins,
        directions=directions,
        sizes_px=np.array([s.size_px for s in seen]),
        colours=np.mean([s.colours for s in seen], axis=0),
    )
