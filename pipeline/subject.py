"""The same person in all views: which tracks of a recording's cameras belong together, and who is only passing by.

A track is what one camera followed. With calibration, an *identity* is a set of tracks whose rays meet at the same
instants, seen from more than half of the calibrated cameras; what meets nobody is a bystander.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import numpy.typing as npt

from manifests.geometry import meet
from manifests.types import Reason

Floats = npt.NDArray[np.float64]

MIN_COMMON = 3  # instants at which two tracks must be seen together (or all that the shorter one has)
DOMINANT = 2.0  # a view's main person weighs this many times what the next one does
ALIKE = 0.6  # likeness of colours above which two successive tracks of one view are one person


@dataclass(frozen=True, slots=True)
class ViewTrack:
    """One person as followed by one camera.

    Attributes:
        view: the camera.
        number: of the track in its view.
        instants: (T,) rising.
        origins_m: (T, 3) camera centres, or None without calibration.
        directions: (T, 3) unit, rays through the middle of the person's silhouette; None without calibration.
        sizes_px: (T,) longer sides of the person's boxes.
        colours: (64,) histogram, mean over time.
    """

    view: str
    number: int
    instants: npt.NDArray[np.int64]
    origins_m: Floats | None
    directions: Floats | None
    sizes_px: Floats
    colours: Floats

    @property
    def key(self) -> tuple[str, int]:
        """Names it in the recording."""
        return self.view, self.number

    def sight(self) -> tuple[Floats, Floats]:
        """Where its rays begin and lead, (T, 3) each; only for a calibrated view."""
        assert self.origins_m is not None, "only calibrated tracks are held against each other"
        assert self.directions is not None, "a calibrated track has rays"
        return self.origins_m, self.directions


@dataclass(frozen=True, slots=True)
class Who:
    """What became of a track: the person's name (`p0`, `p1`, ...), or why it was left out."""

    name: str | None
    reason: Reason | None = None
    detail: str = ""


@dataclass(slots=True)
class _Identity:
    tracks: list[ViewTrack] = field(default_factory=list)

    @property
    def views(self) -> set[str]:
        return {track.view for track in self.tracks}

    @property
    def seen(self) -> int:
        return sum(len(track.instants) for track in self.tracks)

    def order(self) -> tuple[object, ...]:
        first = min(self.tracks, key=lambda track: (track.instants[0], track.view, track.number))
        return -self.seen, int(first.instants[0]), first.view, first.number


def identify(tracks: Sequence[ViewTrack], *, views: Sequence[str], meet_m: float) -> dict[tuple[str, int], Who]:
    """Say who each track of a recording is.

    Args:
        tracks: of all views.
        views: all views of the recording, also those that saw nobody.
        meet_m: rays of one person pass the point where they meet within this distance, metres.

    Returns:
        for each track's key its name or the reason why it is left out.
    """
    tracks = sorted(tracks, key=lambda track: track.key)
    if len(views) == 1:
        people = sorted((_Identity([track]) for track in tracks), key=_Identity.order)
        return {person.tracks[0].key: Who(f"p{i}") for i, person in enumerate(people)}
    calibrated = [track for track in tracks if track.directions is not None]
    blind = {track.view for track in tracks if track.directions is None}
    if calibrated and len(views) - len(blind) > 1:
        # A view that saw nobody counts as calibrated: it cannot vote for anybody.
        who = _by_rays(calibrated, num_views=len(views) - len(blind), meet_m=meet_m)
        names = {one.name for one in who.values() if one.name}
        rest = [track for track in tracks if track.directions is None]
        return who | _by_weight(rest, alone=len(names) == 1)
    return _by_weight(tracks, alone=True)


def gap_m(a: ViewTrack, b: ViewTrack) -> float | None:
    """How far the rays of two tracks pass the point where they meet, metres: median over their common instants.

    Instants at which they meet behind a camera, or are parallel, count as infinitely far. None: too few in common.
    """
    origins_a, directions_a = a.sight()
    origins_b, directions_b = b.sight()
    _, at_a, at_b = np.intersect1d(a.instants, b.instants, assume_unique=True, return_indices=True)
    if len(at_a) < min(MIN_COMMON, len(a.instants), len(b.instants)):
        return None
    distances = []
    for i, j in zip(at_a, at_b, strict=True):
        origins = np.stack([origins_a[i], origins_b[j]])
        directions = np.stack([directions_a[i], directions_b[j]])
        try:
            point, away = meet(origins, directions)
        except ValueError:  # parallel: nothing is known
            continue
        ahead = bool((((point - origins) * directions).sum(axis=1) > 0).all())
        distances.append(float(away.max()) if ahead else np.inf)
    return float(np.median(distances)) if distances else None


def _by_rays(tracks: Sequence[ViewTrack], *, num_views: int, meet_m: float) -> dict[tuple[str, int], Who]:
    """Join tracks whose rays meet, the surest first, as long as nobody is in two places at once."""
    gaps = {
        (i, j): gap
        for (i, a), (j, b) in combinations(enumerate(tracks), 2)
        if a.view != b.view and (gap := gap_m(a, b)) is not None
    }
    home = {i: _Identity([track]) for i, track in enumerate(tracks)}

    close = {edge for edge, gap in gaps.items() if gap <= meet_m}

    def doubt(edge: tuple[int, int]) -> tuple[float, ...]:
        i, j = edge
        # Two rays often meet by chance, three seldom; and long company says more than a brief encounter.
        witnesses = {
            track.view
            for k, track in enumerate(tracks)
            if (min(i, k), max(i, k)) in close and (min(j, k), max(j, k)) in close
        }
        common = len(np.intersect1d(tracks[i].instants, tracks[j].instants))
        return -len(witnesses), gaps[edge] + meet_m / max(1, common) ** 0.5, i, j

    for i, j in sorted(close, key=doubt):
        one, other = home[i], home[j]
        if one is other or not _may_join(one, other, tracks, gaps, meet_m):
            continue
        one.tracks += other.tracks
        for k in home:
            if home[k] is other:
                home[k] = one
    people = {id(identity): identity for identity in home.values()}.values()
    kept = sorted((p for p in people if len(p.views) > num_views / 2), key=_Identity.order)
    who = {track.key: Who(f"p{i}") for i, person in enumerate(kept) for track in person.tracks}
    for i, track in enumerate(tracks):
        if track.key not in who:
            near = min((gap for edge, gap in gaps.items() if i in edge), default=np.inf)
            seen = f"seen in {len(home[i].views)} of {num_views} views, nearest ray {near:.2f} m off"
            who[track.key] = Who(None, Reason.BYSTANDER, seen)
    return who


def _may_join(
    one: _Identity,
    other: _Identity,
    tracks: Sequence[ViewTrack],
    gaps: dict[tuple[int, int], float],
    meet_m: float,
) -> bool:
    """Whether two identities can be one: never in two places in one view, and all rays that can be compared about meet."""
    index = {track.key: i for i, track in enumerate(tracks)}
    for a in one.tracks:
        for b in other.tracks:
            if a.view == b.view:
                if len(np.intersect1d(a.instants, b.instants)) or not _alike(a, b):
                    return False
            else:
                edge = (min(index[a.key], index[b.key]), max(index[a.key], index[b.key]))
                if gaps.get(edge, 0.0) > 1.5 * meet_m:
                    return False
    return True


def _by_weight(tracks: Sequence[ViewTrack], *, alone: bool) -> dict[tuple[str, int], Who]:
    """Without rays: the one person who dominates each view is the subject; with several nobody can be told apart."""
    who: dict[tuple[str, int], Who] = {}
    for view in sorted({track.view for track in tracks}):
        here = [track for track in tracks if track.view == view]
        people = sorted(_chained(here), key=lambda person: (-_weight(person), person.order()))
        clear = len(people) == 1 or _weight(people[0]) >= DOMINANT * _weight(people[1])
        for i, person in enumerate(people):
            for track in person.tracks:
                if alone and clear and i == 0:
                    who[track.key] = Who("p0")
                elif alone and clear:
                    who[track.key] = Who(None, Reason.BYSTANDER, "beside the view's main person")
                else:
                    detail = f"{len(people)} people in the view, without calibration"
                    who[track.key] = Who(None, Reason.AMBIGUOUS, detail)
    return who


def _chained(tracks: Sequence[ViewTrack]) -> list[_Identity]:
    """Join tracks of one view that follow each other in time and look alike."""
    people: list[_Identity] = []
    for track in sorted(tracks, key=lambda track: (track.instants[0], track.number)):
        for person in people:
            last = person.tracks[-1]
            if last.instants[-1] < track.instants[0] and _alike(last, track):
                person.tracks.append(track)
                break
        else:
            people.append(_Identity([track]))
    return people


def _alike(a: ViewTrack, b: ViewTrack) -> bool:
    """Whether two tracks of one view look like one person."""
    return float(np.sqrt(a.colours * b.colours).sum()) > ALIKE


def _weight(person: _Identity) -> float:
    return float(sum(track.sizes_px.sum() for track in person.tracks))
