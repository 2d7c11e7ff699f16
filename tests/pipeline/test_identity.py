"""The same person in all views: rays of a made-up rig of four cameras, whose truth is known."""

import numpy as np
import pytest

from manifests.geometry import camera_centre, project, rays
from manifests.types import Reason
from pipeline.subject import ViewTrack, gap_m, identify
from tests.support.rigs import true_rig

RIG = true_rig(4)
VIEWS = [camera.name for camera in RIG]
MEET_M = 0.35


def path(*, at=(0.0, 0.0), instants=range(30), speed=0.02, phase=0.0):
    """A person's middle through time, metres: {instant: (3,)}."""
    return {
        i: np.array([at[0] + 0.3 * np.sin(speed * 10 * i + phase), at[1] + 0.3 * np.cos(speed * 10 * i), 0.1])
        for i in instants
    }


def colours(kind):
    histogram = np.zeros(64)
    histogram[kind * 4 : kind * 4 + 4] = 0.25
    return histogram


def track(view, number, way, *, calibrated=True, noise_px=0.0, size_px=200.0, look=0):
    """What one camera followed of a person; the pixels go through the lens and back."""
    camera = RIG[VIEWS.index(view)]
    instants = np.array(sorted(way), np.int64)
    origins = directions = None
    if calibrated:
        middle, _ = project(np.stack([way[i] for i in instants]), camera.K, camera.pose, camera.distortion)
        middle = middle + np.random.default_rng(number).normal(0, noise_px, middle.shape)
        directions = rays(middle, camera.K, camera.pose, camera.distortion)
        origins = np.tile(camera_centre(camera.pose), (len(instants), 1))
    sizes = np.full(len(instants), size_px)
    return ViewTrack(view, number, instants, origins, directions, sizes, colours(look))


def names(who):
    return {key: one.name for key, one in who.items()}


def test_one_person_in_all_views_is_p0():
    tracks = [track(view, 0, path(), noise_px=5) for view in VIEWS]
    assert names(identify(tracks, views=VIEWS, meet_m=MEET_M)) == {(view, 0): "p0" for view in VIEWS}


def test_rays_of_one_person_meet_and_those_of_two_pass_each_other():
    near, far = path(), path(at=(1.0, 0.8))
    one, same, other = track(VIEWS[0], 0, near), track(VIEWS[1], 0, near), track(VIEWS[1], 0, far)
    assert gap_m(one, same) < 1e-6
    across = np.cross(one.directions, other.directions)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    between = np.abs(((one.origins_m - other.origins_m) * across).sum(axis=1))
    # The point where they meet lies halfway between the two lines.
    assert gap_m(one, other) == pytest.approx(np.median(between) / 2)
    assert gap_m(one, other) == pytest.approx(gap_m(other, one))


def test_tracks_that_share_too_few_instants_say_nothing():
    early, late = path(instants=range(10)), path(instants=range(8, 20))
    assert gap_m(track(VIEWS[0], 0, early), track(VIEWS[1], 0, late)) is None
    assert gap_m(track(VIEWS[0], 0, early), track(VIEWS[1], 0, path(instants=range(7, 20)))) < 1e-6
    brief = path(instants=[4])  # all that a short track has is enough
    assert gap_m(track(VIEWS[0], 0, early), track(VIEWS[1], 0, brief)) < 1e-6


def test_rays_that_meet_behind_a_camera_do_not_meet():
    one, other = track(VIEWS[0], 0, path()), track(VIEWS[1], 0, path())
    turned = ViewTrack(other.view, 0, other.instants, other.origins_m, -other.directions, other.sizes_px, other.colours)
    assert gap_m(one, turned) == np.inf


@pytest.mark.parametrize("order", [1, -1])
def test_two_people_have_the_same_names_in_all_views(order):
    """Numbers of tracks differ from view to view; the longer seen is p0 in each."""
    long, short = path(at=(-0.5, 0)), path(at=(0.9, 0.5), instants=range(5, 25), phase=1.0)
    tracks = []
    for k, view in enumerate(VIEWS):
        swap = k % 2
        tracks += [track(view, swap, long, noise_px=3), track(view, 1 - swap, short, noise_px=3)]
    who = names(identify(tracks[::order], views=VIEWS, meet_m=MEET_M))
    assert who == {(view, k % 2): "p0" for k, view in enumerate(VIEWS)} | {
        (view, 1 - k % 2): "p1" for k, view in enumerate(VIEWS)
    }


def test_a_track_that_was_lost_and_found_again_is_the_same_person():
    tracks = [track(view, 0, path()) for view in VIEWS[1:]]
    tracks += [track(VIEWS[0], 0, path(instants=range(12))), track(VIEWS[0], 3, path(instants=range(15, 30)))]
    who = names(identify(tracks, views=VIEWS, meet_m=MEET_M))
    assert set(who.values()) == {"p0"}
    assert len(who) == 5


def test_a_person_seen_in_two_of_four_views_is_a_bystander():
    tracks = [track(view, 0, path()) for view in VIEWS]
    tracks += [track(view, 1, path(at=(1.2, 0.9), phase=2.0)) for view in VIEWS[:2]]
    who = identify(tracks, views=VIEWS, meet_m=MEET_M)
    assert [who[view, 0].name for view in VIEWS] == ["p0"] * 4
    for view in VIEWS[:2]:
        assert (who[view, 1].name, who[view, 1].reason) == (None, Reason.BYSTANDER)
        assert "seen in 2 of 4 views" in who[view, 1].detail


def test_a_person_in_three_of_four_views_is_somebody():
    who = identify([track(view, 0, path()) for view in VIEWS[:3]], views=VIEWS, meet_m=MEET_M)
    assert set(names(who).values()) == {"p0"}


def test_a_view_that_saw_nobody_cannot_vote():
    who = identify([track(view, 0, path()) for view in VIEWS[:2]], views=VIEWS, meet_m=MEET_M)
    assert {one.reason for one in who.values()} == {Reason.BYSTANDER}
    who = identify([track(view, 0, path()) for view in VIEWS[:2]], views=VIEWS[:3], meet_m=MEET_M)
    assert set(names(who).values()) == {"p0"}


def test_nobody_is_in_two_places_of_one_view_at_once():
    """Two tracks of one view at the same instants never share a name, though both rays pass near the person."""
    tracks = [track(view, 0, path()) for view in VIEWS]
    close = {i: point + np.array([0.05, 0.0, 0.0]) for i, point in path().items()}
    tracks.append(track(VIEWS[0], 1, close))
    who = names(identify(tracks, views=VIEWS, meet_m=MEET_M))
    assert sorted((who[VIEWS[0], 0] or "", who[VIEWS[0], 1] or "")) == ["", "p0"]


def test_without_calibration_one_person_per_view_is_p0():
    tracks = [track(view, 0, path(), calibrated=False) for view in VIEWS]
    assert set(names(identify(tracks, views=VIEWS, meet_m=MEET_M)).values()) == {"p0"}


def test_without_calibration_who_dominates_is_p0_and_the_other_a_bystander():
    tracks = [track(view, 0, path(), calibrated=False, size_px=300) for view in VIEWS]
    tracks.append(track(VIEWS[2], 1, path(instants=range(10)), calibrated=False, size_px=120, look=3))
    who = identify(tracks, views=VIEWS, meet_m=MEET_M)
    assert [who[view, 0].name for view in VIEWS] == ["p0"] * 4
    assert who[VIEWS[2], 1].reason is Reason.BYSTANDER


def test_without_calibration_two_equals_are_ambiguous_in_their_view_only():
    tracks = [track(view, 0, path(), calibrated=False) for view in VIEWS]
    tracks.append(track(VIEWS[1], 1, path(), calibrated=False, size_px=150, look=3))
    who = identify(tracks, views=VIEWS, meet_m=MEET_M)
    for number in (0, 1):
        assert (who[VIEWS[1], number].name, who[VIEWS[1], number].reason) == (None, Reason.AMBIGUOUS)
        assert "2 people in the view" in who[VIEWS[1], number].detail
    assert {who[view, 0].name for view in VIEWS if view != VIEWS[1]} == {"p0"}


def test_without_calibration_tracks_that_follow_each_other_and_look_alike_are_one():
    halves = (path(instants=range(15)), path(instants=range(18, 30)))
    alike = [track(VIEWS[0], k, half, calibrated=False) for k, half in enumerate(halves)]
    assert set(names(identify(alike, views=VIEWS, meet_m=MEET_M)).values()) == {"p0"}
    unlike = [track(VIEWS[0], k, half, calibrated=False, look=k) for k, half in enumerate(halves)]
    assert {one.reason for one in identify(unlike, views=VIEWS, meet_m=MEET_M).values()} == {Reason.AMBIGUOUS}


def test_an_uncalibrated_view_joins_only_when_there_is_one_person():
    blind = track(VIEWS[3], 0, path(), calibrated=False)
    one = [track(view, 0, path()) for view in VIEWS[:3]]
    assert identify([*one, blind], views=VIEWS, meet_m=MEET_M)[VIEWS[3], 0].name == "p0"
    two = [track(view, 1, path(at=(1.0, 0.8), phase=2.0)) for view in VIEWS[:3]]
    who = identify([*one, *two, blind], views=VIEWS, meet_m=MEET_M)
    assert {who[view, 0].name for view in VIEWS[:3]} | {who[view, 1].name for view in VIEWS[:3]} == {"p0", "p1"}
    assert who[VIEWS[3], 0].reason is Reason.AMBIGUOUS


@pytest.mark.parametrize("calibrated", [True, False])
def test_in_a_single_view_every_track_is_its_own_the_longest_first(calibrated):
    lengths = {0: 10, 1: 25, 2: 10}
    tracks = [
        track(VIEWS[0], number, path(instants=range(number, number + count)), calibrated=calibrated)
        for number, count in lengths.items()
    ]
    who = names(identify(tracks, views=VIEWS[:1], meet_m=MEET_M))
    assert who == {(VIEWS[0], 1): "p0", (VIEWS[0], 0): "p1", (VIEWS[0], 2): "p2"}


def test_the_order_of_the_tracks_says_nothing():
    tracks = [track(view, 0, path(), noise_px=4) for view in VIEWS]
    tracks += [track(view, 1, path(at=(0.9, 0.5), phase=1.0), noise_px=4) for view in VIEWS]
    tracks += [track(VIEWS[3], 2, path(at=(-1.5, 1.0)), noise_px=4)]
    expected = identify(tracks, views=VIEWS, meet_m=MEET_M)
    for seed in range(5):
        mixed = [tracks[i] for i in np.random.default_rng(seed).permutation(len(tracks))]
        assert identify(mixed, views=VIEWS, meet_m=MEET_M) == expected


def test_a_third_view_outweighs_two_rays_that_meet_better_by_chance():
    """The fourth camera's noisy track of the subject meets a still bystander's ray exactly: three views know better."""
    way = path()
    subject = [track(view, 0, way, noise_px=4) for view in VIEWS]
    last = subject[3]
    # Somebody on the very rays by which the last camera sees the subject, 1.5 m further away, seen by the first camera.
    behind = {
        int(i): origin + direction * (np.linalg.norm(way[int(i)] - origin) + 1.5)
        for i, origin, direction in zip(last.instants, last.origins_m, last.directions, strict=True)
    }
    passer = track(VIEWS[0], 1, behind)
    assert gap_m(passer, last) < gap_m(subject[0], last)
    who = names(identify([*subject, passer], views=VIEWS, meet_m=MEET_M))
    assert who == {(view, 0): "p0" for view in VIEWS} | {(VIEWS[0], 1): None}
