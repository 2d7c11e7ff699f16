"""Finding the people in an image, with nothing but a human parser.

A parser needs a person to fill a fair part of what it sees, so overlapping tiles are parsed at a few scales. A component of the
map is believed only when it stays the same as the crop around it moves, grows and is mirrored: what a net hallucinates into
foliage or furniture does not.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from manifests.geometry import box_overlap
from pipeline.parse import HumanParser, OneParser
from pipeline.sight import (
    GRID,
    KEEP,
    OPEN,
    Person,
    are_one,
    is_part,
    longer_side,
    overlap,
    parse_squares,
    see,
)  # fmt: skip
from pipeline.squares import Floats, Image, Square, carry, square_of

# Further crops that a newly found person must survive: margin, shift, mirrored.
TRIALS = ((1.25, (0.0, 0.0), True), (1.6, (-0.06, -0.06), True), (2.0, (0.05, 0.05), False))
ONE_TRIALS = ((1.15, (0.0, 0.0), True), (1.5, (0.03, -0.03), False))  # the same for a parser of one person
BELIEVE = 0.6  # overlap of the silhouettes in all trials above which a component is a person
LEAST_SHARE = 0.15  # of a tile's side: smaller components are not looked at


def find(
    parser: HumanParser,
    image: Image,
    *,
    threshold: float,
    min_person_px: float,
    known: Sequence[Person] = (),
    doubts: list[Floats] | None = None,
) -> list[Person]:
    """Find the people in an image, the largest first.

    Args:
        parser: sees people.
        image: (H, W, 3) RGB.
        threshold: person probability from which a pixel is the person.
        min_person_px: people whose box has no longer side are left out.
        known: people who need not be found again.
        doubts: boxes (4,) that were looked at before and hold nobody; those of this look are added.
    """
    height, width = image.shape[:2]
    found: list[Person] = []
    doubts = [] if doubts is None else doubts
    tried = doubts[:]
    for side in (max(width, height), min(width, height), min(width, height) / 2):
        everybody = _everybody(parser, image, side)
        while True:
            taken = [*known, *found]
            boxes = _components(everybody, taken, image.shape[:2], threshold)
            fresh = (box for box in boxes if not any(box_overlap(box, other) > 0.8 for other in tried))
            box = next((box for box in fresh if not any(is_part(box, one) for one in taken)), None)
            if box is None:
                break
            tried.append(box)
            new = _try(parser, image, box, taken, threshold, min_person_px)
            found += new
            if new:
                tried += [person.box_xyxy_px for person in new]
            else:
                doubts.append(box)
    return sorted(found, key=lambda person: -person.area_px(threshold))


def _try(
    parser: HumanParser,
    image: Image,
    box: Floats,
    taken: Sequence[Person],
    threshold: float,
    min_person_px: float,
) -> list[Person]:
    """Who is in a box, if anybody: people who can be told from each other, else the whole as one."""
    starts = [(box, False)]
    if isinstance(parser, OneParser):
        x0, y0, x1, y1 = box
        middle = (x0 + x1) / 2
        # Two people who touch are often one component, too wide for one who stands.
        parts = [(x0, y0, middle, y1), (middle, y0, x1, y1)] if x1 - x0 > 0.6 * (y1 - y0) else []
        starts = [*((np.array(part), True) for part in [box, *parts]), (box, False)]
    found: list[Person] = []
    for start, only_one in starts:
        if found and not only_one:
            break
        person = _settle(parser, image, start, threshold, others=[*taken, *found], only_one=only_one)
        if person is None or longer_side(person.box_xyxy_px) < min_person_px:
            continue
        if any(are_one(person, other, threshold) for other in (*taken, *found)):
            continue
        if _believable(parser, image, person, threshold):
            found.append(person)
    return found


def _settle(
    parser: HumanParser, image: Image, box: Floats, threshold: float, *, others: Sequence[Person], only_one: bool
) -> Person | None:
    """Look again around what was seen until the box stays."""
    person: Person | None = None
    for _ in range(4):
        seen = see(
            parser, image, box, threshold=threshold, last=person, rivals=others if only_one else (), only_one=only_one
        )
        if seen is None:
            return None
        stays = box_overlap(box, seen.box_xyxy_px) > 0.85
        person, box = seen, seen.box_xyxy_px
        if stays and seen.openness <= OPEN:
            return person if seen.agreement >= KEEP else None
    return person if person is not None and person.openness <= OPEN and person.agreement >= KEEP else None


def _believable(parser: HumanParser, image: Image, person: Person, threshold: float) -> bool:
    """Whether the silhouette stays the same when the crop around it changes."""
    trials = ONE_TRIALS if person.alone else TRIALS
    squares = [square_of(person.box_xyxy_px, margin=margin, shift=shift) for margin, shift, _ in trials]
    maps = parse_squares(parser, image, squares, [mirrored for *_, mirrored in trials], one=person.alone)
    own = person.person > threshold
    near = cv2.dilate(own.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    scores = []
    for person_map, square in zip(maps, squares, strict=True):
        # What the trial does not cover cannot speak against it.
        covered = carry(np.ones((GRID, GRID), np.float32), square, person.square, GRID) > 0.5
        other = carry(person_map, square, person.square, GRID) > threshold
        scores.append(overlap(other & near & covered, own & covered))
    return min(scores) >= BELIEVE


def _everybody(parser: HumanParser, image: Image, side: float) -> npt.NDArray[np.float32]:
    """Map of everybody in an image, from tiles of this side, px; its cells are `side / GRID` px."""
    height, width = image.shape[:2]
    size = (max(1, round(width * GRID / side)), max(1, round(height * GRID / side)))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    tiles = [Square(x, y, GRID) for y in _starts(size[1]) for x in _starts(size[0])]
    maps = parse_squares(parser, small, tiles, [False] * len(tiles))
    total, weight = np.zeros(size[::-1], np.float32), np.full(size[::-1], 1e-6, np.float32)
    for tile, person in zip(tiles, maps, strict=True):
        x, y = max(tile.x0, 0), max(tile.y0, 0)
        here = np.s_[y : min(tile.y0 + GRID, size[1]), x : min(tile.x0 + GRID, size[0])]
        there = np.s_[y - tile.y0 : here[0].stop - tile.y0, x - tile.x0 : here[1].stop - tile.x0]
        total[here] += (_TAPER * person)[there]
        weight[here] += _TAPER[there]
    return np.asarray(total / weight)


def _components(
    everybody: npt.NDArray[np.float32], taken: Sequence[Person], shape: tuple[int, ...], threshold: float
) -> list[Floats]:
    """Boxes, in pixels of an image of this shape, of what a map shows beside people who are known; the largest first."""
    height, width = shape
    rest = (everybody > threshold).astype(np.uint8)
    longer = max(rest.shape)
    whole = Square(0, 0, max(width, height))
    for person in taken:
        own = (carry(person.person, person.square, whole, longer) > threshold / 2).astype(np.uint8)
        near = cv2.dilate(own, np.ones((9, 9), np.uint8)) > 0
        rest[near[: rest.shape[0], : rest.shape[1]]] = 0
    _, _, stats, _ = cv2.connectedComponentsWithStats(rest)
    scale = np.array([width / rest.shape[1], height / rest.shape[0]] * 2)
    return [
        np.array([x, y, x + w, y + h]) * scale - 0.5
        for x, y, w, h, area in sorted(stats[1:].tolist(), key=lambda s: (-s[4], s[0], s[1]))
        if max(w, h) >= LEAST_SHARE * GRID and area >= 0.1 * w * h
    ]


def _starts(length: int) -> list[int]:
    """Where tiles that overlap by a third begin, to cover a length; a shorter one is centred."""
    if length <= GRID:
        return [(length - GRID) // 2]
    count = int(np.ceil((length - GRID) / (GRID * 2 / 3))) + 1
    return [round(start) for start in np.linspace(0, length - GRID, count)]


def _taper() -> npt.NDArray[np.float32]:
    """Weight of a tile's cells: its edges, where people are cut, count little."""
    at = np.arange(GRID) + 0.5
    edge = np.clip(np.minimum(at, GRID - at) / (GRID / 4), 0.02, 1)
    return np.outer(edge, edge).astype(np.float32)


_TAPER = _taper()
