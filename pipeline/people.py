"""Finding the people in a video and following them, with nothing but a human parser.

A parser is semantic and needs a person to fill a fair part of what it sees. So people are *found* by parsing overlapping
tiles at a few scales, and a component of the map is believed only when it stays the same as the crop around it moves,
grows and is mirrored: what a net hallucinates into foliage or furniture does not. They are then *followed* by parsing a
square around where each is expected; the box and the silhouette come from the same map. Where two followed people touch,
pixels go to the nearer of the two earlier silhouettes; where they cover each other, both tracks end rather than guess.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt

from manifests.geometry import box_overlap
from pipeline.parse import HumanParser
from pipeline.recipes import CropRecipe
from pipeline.squares import Floats, Image, Square, carry, cut, inside, square_of

Mask = npt.NDArray[np.bool_]

GRID = 256  # side of the maps that people are found in
# Crops that are parsed together to see one person: margin, shift, mirrored.
LOOKS = ((1.4, (0.0, 0.0), False), (1.8, (0.06, -0.06), True))
# Further crops that a newly found person must survive.
TRIALS = ((1.25, (0.0, 0.0), True), (1.6, (-0.06, -0.06), True), (2.0, (0.05, 0.05), False))
BELIEVE = 0.6  # overlap of the silhouettes in all trials above which a component is a person
KEEP = 0.35  # the same between the two looks, to go on following
OPEN = 0.06  # share of a silhouette's outline that may lie on the edge of the crop
GROWTH = 1.7  # a silhouette's area changes at most by this factor from one frame to the next
LIKENESS = 0.35  # of the colours, below which it is somebody else
COVER = 0.35  # two people's boxes that overlap by more may have been swapped
APART = 0.4  # share of a silhouette's largest piece from which another piece beside it is another person
FADE = 0.5  # share of the threshold that is enough where the person was a moment ago
MAX_MISSED = 3  # frames a person may be unclear before the track ends
LEAST_SHARE = 0.15  # of a tile's side: smaller components are not looked at


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
    """

    box_xyxy_px: Floats
    square: Square
    person: npt.NDArray[np.float32]
    agreement: float
    openness: float
    colours: Floats

    def area_px(self, threshold: float) -> float:
        """Pixels of the image inside the silhouette."""
        return float((self.person > threshold).sum()) * (self.square.side / GRID) ** 2


@dataclass(slots=True)
class Track:
    """A person followed through time.

    Attributes:
        number: names it; rises with every new track of a view.
        person: as last seen.
        box_xyxy_px: smoothed causally, so that the crops do not jitter.
        velocity_px: (2,) per frame, smoothed.
        colours: running mean.
        missed: frames since it was clear.
    """

    number: int
    person: Person
    box_xyxy_px: Floats
    colours: Floats
    velocity_px: Floats = field(default_factory=lambda: np.zeros(2))
    missed: int = 0


class Follower:
    """Finds and follows the people of one view, image by image.

    Args:
        parser: sees people.
        recipe: how often to look for new people, how many, how small.
        threshold: person probability from which a pixel is the person.
    """

    def __init__(self, parser: HumanParser, recipe: CropRecipe, *, threshold: float) -> None:
        self._parser, self._recipe, self._threshold = parser, recipe, threshold
        self._tracks: list[Track] = []
        self._lost: list[tuple[int, Track]] = []  # frame of the loss
        self._frame, self._next_look, self._next_number = -1, 0, 0

    def restart(self) -> None:
        """Forget everybody: after a cut or a gap in time nothing says who is who."""
        self._tracks, self._lost, self._next_look = [], [], 0

    def step(self, image: Image) -> list[Track]:
        """Follow everybody into the next image, and look for new people when it is time.

        Args:
            image: (H, W, 3) RGB.

        Returns:
            the tracks that are clear in this image, by number. They are the follower's own: read, do not keep.
        """
        self._frame += 1
        alive = []
        for track in self._tracks:
            rivals = [other.person for other in self._tracks if other is not track]
            if self._follow(image, track, rivals):
                alive.append(track)
            else:
                self._lost.append((self._frame, track))
                self._next_look = self._frame
        self._tracks = self._part(alive)
        if self._frame >= self._next_look:
            self._welcome(image)
            every = self._recipe.detect_every
            self._next_look = self._frame + (every if self._tracks else max(1, every // 3))
        return [track for track in self._tracks if track.missed == 0]

    def _follow(self, image: Image, track: Track, rivals: Sequence[Person]) -> bool:
        """Update a track from an image; False when it has ended."""
        guess = track.box_xyxy_px + np.tile(track.velocity_px, 2)
        seen = see(
            self._parser, image, guess, threshold=self._threshold, last=track.person,
            moved_px=track.velocity_px, rivals=rivals,
        )  # fmt: skip
        if seen is not None and seen.openness > OPEN:  # moved or grew beyond the crop: once more, around it
            seen = see(self._parser, image, seen.box_xyxy_px, threshold=self._threshold, last=seen, rivals=rivals)
        if seen is None or not self._is_same(track, seen):
            track.missed += 1
            track.velocity_px = track.velocity_px / 2
            return track.missed <= MAX_MISSED
        old, new = track.person.box_xyxy_px, seen.box_xyxy_px
        step = (new[:2] + new[2:] - old[:2] - old[2:]) / 2 / (track.missed + 1)
        limit = 0.15 * float((new[2:] - new[:2]).max())
        track.velocity_px = np.clip(0.5 * track.velocity_px + 0.5 * step, -limit, limit)
        track.box_xyxy_px = _smooth(guess, new)
        track.colours = 0.9 * track.colours + 0.1 * seen.colours
        track.person, track.missed = seen, 0
        return True

    def _is_same(self, track: Track, seen: Person) -> bool:
        before, now = track.person.area_px(self._threshold), seen.area_px(self._threshold)
        growth = GROWTH ** (track.missed + 1)
        return (
            seen.agreement >= KEEP
            and before / growth <= now <= before * growth
            and likeness(track.colours, seen.colours) >= LIKENESS
            and _longer(seen.box_xyxy_px) >= self._recipe.min_person_px / 2
        )

    def _part(self, tracks: list[Track]) -> list[Track]:
        """End every two tracks that cover each other."""
        mixed: set[int] = set()
        for i, one in enumerate(tracks):
            for other in tracks[i + 1 :]:
                if box_overlap(one.person.box_xyxy_px, other.person.box_xyxy_px) > COVER:
                    mixed |= {one.number, other.number}
        if mixed:
            self._next_look = self._frame + 1
        return [track for track in tracks if track.number not in mixed]

    def _welcome(self, image: Image) -> None:
        """Look for people who are not followed yet."""
        known = [track.person for track in self._tracks]
        room = self._recipe.max_people - len(known)
        if room <= 0:
            return
        found = find(
            self._parser, image, threshold=self._threshold, min_person_px=self._recipe.min_person_px / 2, known=known
        )
        for person in found[:room]:
            track = self._return(person)
            if track is None:
                track = Track(self._next_number, person, person.box_xyxy_px.copy(), person.colours.copy())
                self._next_number += 1
            self._tracks.append(track)
        self._tracks.sort(key=lambda track: track.number)

    def _return(self, person: Person) -> Track | None:
        """The track, lost a moment ago near here, that a newly found person goes on with."""
        self._lost = [(at, track) for at, track in self._lost if self._frame - at <= self._recipe.detect_every]
        fit = [
            (at, track)
            for at, track in self._lost
            if box_overlap(track.person.box_xyxy_px, person.box_xyxy_px) > 0.4
            and likeness(track.colours, person.colours) > 0.7
        ]
        if len(fit) != 1:
            return None
        self._lost = [lost for lost in self._lost if lost[1].number != fit[0][1].number]
        return replace(
            fit[0][1], person=person, box_xyxy_px=person.box_xyxy_px.copy(), velocity_px=np.zeros(2), missed=0
        )


def see(
    parser: HumanParser,
    image: Image,
    box_xyxy_px: Floats,
    *,
    threshold: float,
    last: Person | None = None,
    moved_px: Floats | None = None,
    rivals: Sequence[Person] = (),
) -> Person | None:
    """See the person who is expected in a box.

    Args:
        parser: sees people.
        image: (H, W, 3) RGB.
        box_xyxy_px: (4,) where the person is expected.
        threshold: person probability from which a pixel is the person.
        last: the person a moment ago; says which component of the map is meant. Without, it is what fills the box most.
        moved_px: (2,) how far that person has moved since.
        rivals: others near: what is nearer to them is theirs.

    Returns:
        the person, or None when nobody is there.
    """
    height, width = image.shape[:2]
    squares = [square_of(box_xyxy_px, margin=margin, shift=shift) for margin, shift, _ in LOOKS]
    maps = _parse(parser, image, squares, [mirrored for *_, mirrored in LOOKS])
    square = squares[0]
    inner = inside(square, GRID, width=width, height=height)
    looks = [np.where(inner, carry(m, s, square, GRID), 0) for m, s in zip(maps, squares, strict=True)]
    mean = np.mean(looks, axis=0, dtype=np.float32)
    expected = _expected(square, box_xyxy_px, last, moved_px, threshold)
    # What was the person a moment ago is given up later than it was taken up.
    people = mean > np.where(expected & (last is not None), FADE * threshold, threshold)
    mine = _mine(people, expected, [_mask(other, square, threshold) for other in rivals])
    if mine is None:
        return None
    near = cv2.dilate(mine.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    agreement = _iou((looks[0] > threshold) & near, (looks[1] > threshold) & near)
    return Person(
        box_xyxy_px=_box(mine, square, width=width, height=height),
        square=square,
        person=np.where(mine, mean, 0).astype(np.float32),
        agreement=agreement,
        openness=_openness(mine, square, width=width, height=height),
        colours=_colours(cut(image, square, GRID // 4), mine),
    )


def find(
    parser: HumanParser,
    image: Image,
    *,
    threshold: float,
    min_person_px: float,
    known: Sequence[Person] = (),
) -> list[Person]:
    """Find the people in an image, the largest first.

    Args:
        parser: sees people.
        image: (H, W, 3) RGB.
        threshold: person probability from which a pixel is the person.
        min_person_px: people whose box has no longer side are left out.
        known: people who need not be found again.
    """
    found: list[Person] = []
    tried: list[Floats] = []
    for box in _candidates(parser, image, threshold):
        taken = [person.box_xyxy_px for person in (*known, *found)]
        if any(_is_part(box, other) for other in taken) or any(box_overlap(box, b) > 0.8 for b in tried):
            continue
        tried.append(box)
        person = _settle(parser, image, box, threshold)
        if person is None or _longer(person.box_xyxy_px) < min_person_px:
            continue
        tried.append(person.box_xyxy_px)
        if any(_is_part(person.box_xyxy_px, b) or _is_part(b, person.box_xyxy_px) for b in taken):
            continue
        if _believable(parser, image, person, threshold):
            found.append(person)
    return sorted(found, key=lambda person: -person.area_px(threshold))


def likeness(a: Floats, b: Floats) -> float:
    """Overlap of two colour histograms, 0..1."""
    return float(np.sqrt(a * b).sum())


def _settle(parser: HumanParser, image: Image, box: Floats, threshold: float) -> Person | None:
    """Look again around what was seen until the box stays."""
    person: Person | None = None
    for _ in range(4):
        seen = see(parser, image, box, threshold=threshold, last=person)
        if seen is None:
            return None
        stays = box_overlap(box, seen.box_xyxy_px) > 0.85
        person, box = seen, seen.box_xyxy_px
        if stays and seen.openness <= OPEN:
            return person if seen.agreement >= KEEP else None
    return person if person is not None and person.openness <= OPEN and person.agreement >= KEEP else None


def _believable(parser: HumanParser, image: Image, person: Person, threshold: float) -> bool:
    """Whether the silhouette stays the same when the crop around it changes."""
    squares = [square_of(person.box_xyxy_px, margin=margin, shift=shift) for margin, shift, _ in TRIALS]
    maps = _parse(parser, image, squares, [mirrored for *_, mirrored in TRIALS])
    own = person.person > threshold
    near = cv2.dilate(own.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    scores = []
    for person_map, square in zip(maps, squares, strict=True):
        # What the trial does not cover cannot speak against it.
        covered = carry(np.ones((GRID, GRID), np.float32), square, person.square, GRID) > 0.5
        other = carry(person_map, square, person.square, GRID) > threshold
        scores.append(_iou(other & near & covered, own & covered))
    return min(scores) >= BELIEVE


def _candidates(parser: HumanParser, image: Image, threshold: float) -> Iterator[Floats]:
    """Boxes of components in tiled maps of the whole image, from coarse to fine."""
    height, width = image.shape[:2]
    for side in (max(width, height), min(width, height), min(width, height) / 2):
        step = side / GRID  # image pixels per cell
        size = (max(1, round(width / step)), max(1, round(height / step)))
        small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        tiles = [Square(x, y, GRID) for y in _starts(size[1]) for x in _starts(size[0])]
        maps = _parse(parser, small, tiles, [False] * len(tiles))
        total, weight = np.zeros(size[::-1], np.float32), np.full(size[::-1], 1e-6, np.float32)
        for tile, person in zip(tiles, maps, strict=True):
            x, y = max(tile.x0, 0), max(tile.y0, 0)
            here = np.s_[y : min(tile.y0 + GRID, size[1]), x : min(tile.x0 + GRID, size[0])]
            there = np.s_[y - tile.y0 : here[0].stop - tile.y0, x - tile.x0 : here[1].stop - tile.x0]
            total[here] += (_TAPER * person)[there]
            weight[here] += _TAPER[there]
        _, _, stats, _ = cv2.connectedComponentsWithStats((total / weight > threshold).astype(np.uint8))
        scale = np.array([width / size[0], height / size[1]] * 2)
        for x, y, w, h, area in sorted(stats[1:].tolist(), key=lambda s: (-s[4], s[0], s[1])):
            if max(w, h) >= LEAST_SHARE * GRID and area >= 0.1 * w * h:
                yield np.array([x, y, x + w, y + h]) * scale - 0.5


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


def _parse(
    parser: HumanParser, image: Image, squares: Sequence[Square], mirrored: Sequence[bool]
) -> list[npt.NDArray[np.float32]]:
    """Maps (GRID, GRID) over squares of an image."""
    crops = [cut(image, square, GRID) for square in squares]
    maps = parser.parse([c[:, ::-1] if flip else c for c, flip in zip(crops, mirrored, strict=True)])
    return [np.ascontiguousarray(m[:, ::-1]) if flip else m for m, flip in zip(maps, mirrored, strict=True)]


def _expected(
    square: Square, box: Floats, last: Person | None, moved_px: Floats | None, threshold: float
) -> npt.NDArray[np.bool_]:
    """(GRID, GRID) over a square: where the person should be."""
    if last is None:
        x0, y0, x1, y1 = ((box - square.xyxy_px()[[0, 1, 0, 1]]) * GRID / square.side).round().astype(int)
        expected = np.zeros((GRID, GRID), bool)
        expected[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
        return expected
    shift = np.zeros(2) if moved_px is None else moved_px
    moved = last.square._replace(x0=last.square.x0 + round(shift[0]), y0=last.square.y0 + round(shift[1]))
    return carry(last.person, moved, square, GRID) > threshold


def _mask(person: Person, square: Square, threshold: float) -> Mask:
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


def _iou(a: Mask, b: Mask) -> float:
    return float((a & b).sum()) / max(1.0, float((a | b).sum()))


def _smooth(guess: Floats, new: Floats) -> Floats:
    """A box that follows at once when the person reaches further out, and slowly when a limb or the head fades."""
    outward = (new - guess) * np.array([-1, -1, 1, 1]) > 0
    smooth: Floats = guess + np.where(outward, 0.6, 0.15) * (new - guess)
    return smooth


def _longer(box: Floats) -> float:
    return float(max(box[2] - box[0], box[3] - box[1]))


def _is_part(box: Floats, of: Floats) -> bool:
    """Whether a box is another one or mostly inside it."""
    both = np.clip(np.minimum(box[2:], of[2:]) - np.maximum(box[:2], of[:2]), 0, None).prod()
    return bool(both > 0.7 * (box[2:] - box[:2]).prod() or box_overlap(box, of) > 0.5)
