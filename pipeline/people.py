"""Following the people of a video.

Whoever was found (`pipeline.find`) is looked for in a square around where they are expected in the next picture
(`pipeline.sight`); the box and the silhouette come from the same map. Where two cover each other so that they may have been
swapped, both tracks end rather than guess.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from manifests.geometry import box_overlap
from pipeline.find import find
from pipeline.parse import HumanParser
from pipeline.recipes import CropRecipe
from pipeline.sight import KEEP, OPEN, Person, are_mixed, likeness, longer_side, see
from pipeline.squares import Floats, Image

GROWTH = 1.7  # a silhouette's area changes at most by this factor from one frame to the next
DRIFT = 2.5  # and is at most this many times its running mean: it does not creep over what is near
LIKENESS = 0.35  # of the colours, below which it is somebody else
DOUBT = 3  # looks for which a box that held nobody is passed over
MAX_MISSED = 3  # frames a person may be unclear before the track ends


@dataclass(slots=True)
class Track:
    """A person followed through time.

    Attributes:
        number: names it; rises with every new track of a view.
        person: as last seen.
        box_xyxy_px: smoothed causally, so that the crops do not jitter.
        velocity_px: (2,) per frame, smoothed.
        colours: running mean.
        area_px: of the silhouette, running mean.
        missed: frames since it was clear.
    """

    number: int
    person: Person
    box_xyxy_px: Floats
    colours: Floats
    velocity_px: Floats = field(default_factory=lambda: np.zeros(2))
    area_px: float = 0.0
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
        self._doubts: list[tuple[int, Floats]] = []  # look at which a box turned out to hold nobody
        self._frame, self._look, self._next_look, self._next_number = -1, 0, 0, 0

    def restart(self) -> None:
        """Forget everybody: after a cut or a gap in time nothing says who is who."""
        self._tracks, self._lost, self._doubts, self._next_look = [], [], [], 0

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
            rivals = [other.person for other in self._tracks if other is not track and not other.missed]
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
        track.area_px = 0.9 * track.area_px + 0.1 * seen.area_px(self._threshold)
        track.person, track.missed = seen, 0
        return True

    def _is_same(self, track: Track, seen: Person) -> bool:
        before, now = track.person.area_px(self._threshold), seen.area_px(self._threshold)
        growth = GROWTH ** (track.missed + 1)
        return (
            seen.agreement >= KEEP
            and before / growth <= now <= before * growth
            and now <= track.area_px * DRIFT
            and likeness(track.colours, seen.colours) >= LIKENESS
            and longer_side(seen.box_xyxy_px) >= self._recipe.min_person_px / 2
        )

    def _part(self, tracks: list[Track]) -> list[Track]:
        """End every two tracks that cover each other; one that was told from the others outlives one that was not."""
        mixed: set[int] = set()
        for i, one in enumerate(tracks):
            for other in tracks[i + 1 :]:
                hidden = (one.missed and one.person.alone) or (other.missed and other.person.alone)
                if not hidden and are_mixed(one.person, other.person, self._threshold):
                    certain = one.person.alone != other.person.alone
                    mixed |= {t.number for t in (one, other) if not (certain and t.person.alone)}
        if mixed:
            self._next_look = self._frame + 1
        return [track for track in tracks if track.number not in mixed]

    def _welcome(self, image: Image) -> None:
        """Look for people who are not followed yet."""
        known = [track.person for track in self._tracks]
        room = self._recipe.max_people - len(known)
        if room <= 0:
            return
        self._look += 1
        self._doubts = [(at, box) for at, box in self._doubts if self._look - at < DOUBT]
        doubts = [box for _, box in self._doubts]
        before = len(doubts)
        found = find(
            self._parser,
            image,
            threshold=self._threshold,
            min_person_px=self._recipe.min_person_px / 2,
            known=known,
            doubts=doubts,
        )
        self._doubts += [(self._look, box) for box in doubts[before:]]
        for person in found[:room]:
            track = self._return(person)
            if track is None:
                track = Track(
                    number=self._next_number,
                    person=person,
                    box_xyxy_px=person.box_xyxy_px.copy(),
                    colours=person.colours.copy(),
                    area_px=person.area_px(self._threshold),
                )
                self._next_number += 1
            self._tracks.append(track)
        self._tracks.sort(key=lambda track: track.number)

    def _return(self, person: Person) -> Track | None:
        """The track, lost a moment ago near here, that a newly found person goes on with."""
        self._lost = [(at, track) for at, track in self._lost if self._frame - at <= self._recipe.detect_every]
        fit = [
            (at, track)
            for at, track in self._lost
            if track.person.alone == person.alone
            and box_overlap(track.person.box_xyxy_px, person.box_xyxy_px) > 0.4
            and likeness(track.colours, person.colours) > 0.7
        ]
        if len(fit) != 1:
            return None
        self._lost = [lost for lost in self._lost if lost[1].number != fit[0][1].number]
        return replace(
            fit[0][1],
            person=person,
            box_xyxy_px=person.box_xyxy_px.copy(),
            velocity_px=np.zeros(2),
            area_px=person.area_px(self._threshold),
            missed=0,
        )


def _smooth(guess: Floats, new: Floats) -> Floats:
    """A box that follows at once when the person reaches further out, and slowly when a limb or the head fades."""
    outward = (new - guess) * np.array([-1, -1, 1, 1]) > 0
    smooth: Floats = guess + np.where(outward, 0.6, 0.15) * (new - guess)
    return smooth
