"""Seeing one person in an image, who is expected about there.

A parser of one person (`OneParser`) is asked first, with the others who are known painted over. Where there is none, or it is
not sure, the person is picked out of everybody's pixels in two crops: one component, and where somebody else is followed
near, only what is nearer to where the person was.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from manifests.geometry import box_overlap
from pipeline.parse import HumanParser, OneParser
from pipeline.squares import Floats, Image, Square, carry, cut, inside, square_of

Mask = npt.NDArray[np.bool_]

GRID = 256  # side of the maps that people are found in
# Crops that are parsed together to see one person: margin, shift, mirrored.
LOOKS = ((1.4, (0.0, 0.0), False), (1.8, (0.06, -0.06), True))
ONE_MARGIN = 1.3  # of the crop that a parser of one person is given
SURE = 0.5  # of one person in the middle of a crop
NEARLY = 0.6  # overlap above which everybody's pixels still are this one person's
SAME = 0.3  # overlap with where the person was expected, below which the one in the middle is another
KEEP = 0.35  # the same between the two looks, to go on following
OPEN = 0.06  # share of a silhouette's outline that may lie on the edge of the crop
COVER = 0.35  # two people's boxes that overlap by more may have been swapped (nobody told them apart)
SHARED = 0.5  # share of a silhouette that another person has too: the two are one, or may have been swapped
APART = 0.4  # share of a silhouette's largest piece from which another piece beside it is another person
FADE = 0.5  # share of the threshold that is enough where the person was a moment ago


@dataclass(frozen=True, slots=True)
class Person:
    """One person in one image.

    Attributes:
        box_xyxy_px: tight box (4,), within the image.
        square: what was parsed.
        person: (GRID, GRID) float32 over `square`: the probability of this person, zero on everybody else.
        agreement: overlap of the silhouettes from differing crops, 0..1.
        openness: share of the silhouette's outline on the edge of the crop: it goes on outside.
        colours: (64,) histogram of the silhouette.
        alone: the parser told this person from the others.
    """

    box_xyxy_px: Floats
    square: Square
    person: npt.NDArray[np.float32]
    agreement: float
    openness: float
    colours: Floats
    alone: bool = False

    def area_px(self, threshold: float) -> float:
        """Pixels of the image inside the silhouette."""
        return float((self.person > threshold).sum()) * (self.square.side / GRID) ** 2


@dataclass(frozen=True, slots=True)
class Sought:
    """Somebody who is expected in a box.

    Attributes:
        image: (H, W, 3) RGB.
        box_xyxy_px: (4,) where the person is expected.
        last: the person a moment ago; says which component of the map is meant. Without, it is what fills the box most.
        moved_px: (2,) how far that person has moved since.
        rivals: others near: what is nearer to them is theirs.
    """

    image: Image
    box_xyxy_px: Floats
    last: Person | None = None
    moved_px: Floats | None = None
    rivals: Sequence[Person] = ()

    def expected(self, square: Square, threshold: float) -> Mask:
        """(GRID, GRID) over a square: where the person should be."""
        if self.last is None:
            corners = (self.box_xyxy_px - square.xyxy_px()[[0, 1, 0, 1]]) * GRID / square.side
            x0, y0, x1, y1 = corners.round().astype(int)
            expected = np.zeros((GRID, GRID), bool)
            expected[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
            return expected
        shift = np.zeros(2) if self.moved_px is None else self.moved_px
        before = self.last.square
        moved = before._replace(x0=before.x0 + round(shift[0]), y0=before.y0 + round(shift[1]))
        return carry(self.last.person, moved, square, GRID) > threshold


def see(
    parser: HumanParser,
    image: Image,
    box_xyxy_px: Floats,
    *,
    threshold: float,
    last: Person | None = None,
    moved_px: Floats | None = None,
    rivals: Sequence[Person] = (),
    only_one: bool = False,
) -> Person | None:
    """See the person who is expected in a box; see `Sought` and `see_all`."""
    sought = Sought(image, box_xyxy_px, last, moved_px, rivals)
    return see_all(parser, [sought], threshold=threshold, only_one=only_one)[0]


def see_all(
    parser: HumanParser, sought: Sequence[Sought], *, threshold: float, only_one: bool = False
) -> list[Person | None]:
    """See the people who are sought, each by himself, in as few calls of the parser as can be: a GPU wants batches.

    Args:
        parser: sees people.
        sought: who is expected where.
        threshold: person probability from which a pixel is the person.
        only_one: do without a parser's word of who is one person rather than take everybody's pixels.

    Returns:
        each person, or None where nobody is there.
    """
    found: list[Person | None] = [None] * len(sought)
    unsure = list(range(len(sought)))
    if isinstance(parser, OneParser):
        told = _see_ones(parser, sought, threshold)
        found = [person for person, _ in told]
        unsure = [] if only_one else [k for k, (_, sure) in enumerate(told) if not sure]
    for k, person in zip(unsure, _see_among(parser, [sought[k] for k in unsure], threshold), strict=True):
        found[k], last = person, sought[k].last
        if person is not None and last is not None and last.alone:
            # Everybody's pixels pass for the one who was told apart only where they are nearly the same ones.
            near = overlap(person.person > threshold, sought[k].expected(person.square, threshold)) > NEARLY
            found[k] = replace(person, alone=True) if near else None
    return found


def _see_ones(parser: OneParser, sought: Sequence[Sought], threshold: float) -> list[tuple[Person | None, bool]]:
    """Let the parser tell each person from the others; and whether it is sure that somebody is in the middle."""
    squares = [square_of(one.box_xyxy_px, margin=ONE_MARGIN) for one in sought]
    crops = []
    for one, square in zip(sought, squares, strict=True):
        crop = cut(one.image, square, GRID)
        for rival in one.rivals:  # painted over, others cannot be taken for the person
            other = mask_over(rival, square, threshold)
            hidden = other & ~one.expected(square, threshold) if one.last is not None else other
            crop[hidden] = crop.mean(axis=(0, 1)).astype(np.uint8)
        crops.append(crop)
    answers = zip(sought, squares, parser.parse_one(crops), strict=True)
    return [_told_apart(one, square, seen, sure, threshold) for one, square, (seen, sure) in answers]


def _told_apart(
    one: Sought, square: Square, seen: npt.NDArray[np.float32], sure: float, threshold: float
) -> tuple[Person | None, bool]:
    """What the parser's word of one person is worth."""
    if sure < SURE:
        return None, False
    height, width = one.image.shape[:2]
    seen = np.where(inside(square, GRID, width=width, height=height), seen, 0).astype(np.float32)
    expected = one.expected(square, threshold)
    mine = _mine(seen > threshold, expected, ())
    if mine is None:
        return None, True
    if one.last is not None:
        fit = overlap(mine, expected)
        if fit < SAME or any(overlap(mine, mask_over(rival, square, threshold)) > fit for rival in one.rivals):
            return None, True
    return _person(one.image, square, np.where(mine, seen, 0), mine, agreement=sure, alone=True), True


def _see_among(parser: HumanParser, sought: Sequence[Sought], threshold: float) -> list[Person | None]:
    """Look for each person among everybody, in two crops."""
    if not sought:
        return []
    squares = [[square_of(one.box_xyxy_px, margin=margin, shift=shift) for margin, shift, _ in LOOKS] for one in sought]
    flips = [mirrored for *_, mirrored in LOOKS]
    crops = [
        _flipped(cut(one.image, square, GRID), flip)
        for one, looks in zip(sought, squares, strict=True)
        for square, flip in zip(looks, flips, strict=True)
    ]
    maps = iter(parser.parse(crops))
    return [
        _picked(one, looks, [_flipped(next(maps), flip) for flip in flips], threshold)
        for one, looks in zip(sought, squares, strict=True)
    ]


def _picked(
    one: Sought, squares: Sequence[Square], maps: Sequence[npt.NDArray[np.float32]], threshold: float
) -> Person | None:
    """Pick the person out of everybody, from the maps of the two crops."""
    height, width = one.image.shape[:2]
    square = squares[0]
    inner = inside(square, GRID, width=width, height=height)
    looks = [np.where(inner, carry(m, s, square, GRID), 0) for m, s in zip(maps, squares, strict=True)]
    mean = np.mean(looks, axis=0, dtype=np.float32)
    expected = one.expected(square, threshold)
    # What was the person a moment ago is given up later than it was taken up.
    people = mean > np.where(expected & (one.last is not None), FADE * threshold, threshold)
    mine = _mine(np.asarray(people), expected, [mask_over(rival, square, threshold) for rival in one.rivals])
    if mine is None:
        return None
    near = cv2.dilate(mine.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    agreement = overlap((looks[0] > threshold) & near, (looks[1] > threshold) & near)
    return _person(one.image, square, np.where(mine, mean, 0), mine, agreement=agreement, alone=False)


def _person(
    image: Image, square: Square, person: npt.NDArray[Any], mine: Mask, *, agreement: float, alone: bool
) -> Person:
    height, width = image.shape[:2]
    return Person(
        box_xyxy_px=_box(mine, square, width=width, height=height),
        square=square,
        person=person.astype(np.float32),
        agreement=agreement,
        openness=_openness(mine, square, width=width, height=height),
        colours=_colours(cut(image, square, GRID // 4), mine),
        alone=alone,
    )


def likeness(a: Floats, b: Floats) -> float:
    """Overlap of two colour histograms, 0..1."""
    return float(np.sqrt(a * b).sum())


def parse_squares(
    parser: HumanParser, image: Image, squares: Sequence[Square], mirrored: Sequence[bool], *, one: bool = False
) -> list[npt.NDArray[np.float32]]:
    """Maps (GRID, GRID) over squares of an image: of everybody, or of the one person in the middle."""
    crops = [_flipped(cut(image, square, GRID), flip) for square, flip in zip(squares, mirrored, strict=True)]
    if one and isinstance(parser, OneParser):
        maps = [person * np.float32(sure >= SURE) for person, sure in parser.parse_one(crops)]
    else:
        maps = parser.parse(crops)
    return [_flipped(one, flip) for one, flip in zip(maps, mirrored, strict=True)]


def _flipped(image: npt.NDArray[Any], flip: bool) -> npt.NDArray[Any]:
    return np.ascontiguousarray(image[:, ::-1]) if flip else image


def mask_over(person: Person, square: Square, threshold: float) -> Mask:
    """(GRID, GRID): a person's silhouette over a square."""
    return carry(person.person, person.square, square, GRID) > threshold


def _mine(people: Mask, expected: Mask, rivals: Sequence[Mask]) -> Mask | None:
    """Of everybody's pixels, those of the person who is expected: one component, and pieces of which most is expected."""
    for rival in rivals:
        if rival.any() and expected.any():
            people = people & (_distance(expected) <= _distance(rival))
    number, labels, stats, _ = cv2.connectedComponentsWithStats(people.astype(np.uint8))
    common = np.bincount(labels[expected & people], minlength=number)
    common[0] = 0
    if not common.any():
        return None
    main = int(common.argmax())
    area = stats[:, cv2.CC_STAT_AREA]
    kept = (common > 0.5 * area) & (area > 0.01 * area[main])
    kept &= ~_beside(np.asarray(stats, np.int32), main)
    kept[[0, main]] = False, True
    mine: Mask = kept[labels]
    return mine


def _beside(stats: npt.NDArray[np.int32], main: int) -> Mask:
    """Which components stand beside the main one and are about as large: two who were one silhouette have come apart."""
    left, top, width, height, area = stats.T
    across = np.minimum(left + width, left[main] + width[main]) - np.maximum(left, left[main])
    along = np.minimum(top + height, top[main] + height[main]) - np.maximum(top, top[main])
    apart = (across < 0.2 * np.minimum(width, width[main])) & (along > 0.5 * np.minimum(height, height[main]))
    found: Mask = apart & (area > APART * area[main])
    return found


def _distance(mask: Mask) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3), np.float32)


def _box(mask: Mask, square: Square, *, width: int, height: int) -> Floats:
    """Tight box of a mask over a square, within the image."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    cells = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)
    box = cells * square.side / GRID + np.array([square.x0, square.y0] * 2) - 0.5
    return np.asarray(np.clip(box, -0.5, np.array([width, height] * 2) - 0.5))


def _openness(mask: Mask, square: Square, *, width: int, height: int) -> float:
    """Share of a mask's outline, of its box at least, that lies on an edge of the square inside the image."""
    edges = (
        (mask[:, 0], square.x0 > 0),
        (mask[0], square.y0 > 0),
        (mask[:, -1], square.x0 + square.side < width),
        (mask[-1], square.y0 + square.side < height),
    )
    on_edge = sum(int(edge.sum()) for edge, counts in edges if counts)
    return on_edge / max(1, 2 * int(mask.any(axis=0).sum() + mask.any(axis=1).sum()))


def _colours(crop: Image, mask: Mask) -> Floats:
    """(64,) histogram of a silhouette, four levels a channel, blurred over neighbouring levels."""
    own = cv2.resize(mask.astype(np.uint8), crop.shape[1::-1], interpolation=cv2.INTER_AREA)
    histogram = cv2.calcHist([crop], [0, 1, 2], own, [4, 4, 4], [0, 256] * 3).ravel().astype(np.float64)
    return histogram / max(1.0, float(histogram.sum()))


def overlap(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks on one grid."""
    return float((a & b).sum()) / max(1.0, float((a | b).sum()))


def longer_side(box: Floats) -> float:
    """Longer side of a box (4,), px."""
    return float(max(box[2] - box[0], box[3] - box[1]))


def is_part(box: Floats, of: Person) -> bool:
    """Whether a box is that of a person or mostly inside it; one who was told from others may have others behind."""
    both = np.clip(np.minimum(box[2:], of.box_xyxy_px[2:]) - np.maximum(box[:2], of.box_xyxy_px[:2]), 0, None).prod()
    inside_share = float(both) / max(1e-9, float((box[2:] - box[:2]).prod()))
    return inside_share > (0.9 if of.alone else 0.7) or (not of.alone and bool(box_overlap(box, of.box_xyxy_px) > 0.5))


def are_one(new: Person, known: Person, threshold: float) -> bool:
    """Whether somebody who was seen is known already."""
    if new.alone and known.alone:
        return shared(new, known, threshold) > SHARED
    return is_part(new.box_xyxy_px, known) or is_part(known.box_xyxy_px, new)


def are_mixed(one: Person, other: Person, threshold: float) -> bool:
    """Whether two people cover each other so much that they may have been swapped."""
    if one.alone or other.alone:
        return shared(one, other, threshold) > SHARED
    return bool(box_overlap(one.box_xyxy_px, other.box_xyxy_px) > COVER)


def shared(a: Person, b: Person, threshold: float) -> float:
    """Share of the smaller silhouette that is the other's too."""
    small, large = sorted((a, b), key=lambda person: person.area_px(threshold))
    own = small.person > threshold
    return float((own & mask_over(large, small.square, threshold)).sum()) / max(1.0, float(own.sum()))
