"""Following people with a parser that can tell one from the others: nobody is joined, nobody is swapped."""

import cv2
import numpy as np
import pytest

from manifests.geometry import box_overlap
from pipeline.find import TRIALS, find
from pipeline.people import DOUBT, Follower
from pipeline.recipes import CropRecipe
from pipeline.sight import see
from tests.support.figures import MAGENTA, ORANGE, RED, Figure, OneColourParser, draw

THRESHOLD = 0.4


class UnsureParser(OneColourParser):
    """Can see everybody, but is never sure of one."""

    def _one(self, crop):
        return np.zeros(crop.shape[:2], np.float32), 0.2


def follow(scenes, *, parser=None, **recipe):
    follower = Follower(parser or OneColourParser(), CropRecipe(**recipe), threshold=THRESHOLD)
    return [{t.number: t.person for t in follower.step(draw(figures))} for figures in scenes]


def visible(figures, index):
    """Pixels of a figure that those drawn later leave free."""
    mask = figures[index].mask()
    for other in figures[index + 1 :]:
        mask = mask & ~other.mask()
    return mask


def pixels(person, shape=(240, 320)):
    """(H, W): a silhouette in the image."""
    mask = np.zeros(shape, bool)
    ys, xs = np.nonzero(person.person > THRESHOLD)
    step = person.square.side / len(person.person)
    y = np.floor(person.square.y0 + (ys + 0.5) * step).astype(int)
    x = np.floor(person.square.x0 + (xs + 0.5) * step).astype(int)
    inside = (x >= 0) & (y >= 0) & (x < shape[1]) & (y < shape[0])
    mask[y[inside], x[inside]] = True
    return mask


def fit(person, figures, index):
    mask, truth = pixels(person), visible(figures, index)
    return (mask & truth).sum() / (mask | truth).sum()


@pytest.mark.parametrize("apart", [30, 40, 60])
def test_two_who_overlap_are_found_as_two(apart):
    figures = [Figure(160 - apart / 2, 120, colour=RED), Figure(160 + apart / 2, 124, 110, colour=MAGENTA)]
    people = find(OneColourParser(), draw(figures), threshold=THRESHOLD, min_person_px=40)
    assert len(people) == 2
    assert all(person.alone for person in people)
    assert {max((0, 1), key=lambda k: fit(person, figures, k)) for person in people} == {0, 1}
    assert all(max(fit(person, figures, k) for k in (0, 1)) > 0.8 for person in people)


def test_two_who_cross_are_never_swapped():
    """The one behind may be lost while it is hidden; whoever has a number has the pixels of one figure only."""
    scenes = [[Figure(80 + 8 * i, 120), Figure(240 - 8 * i, 125, colour=MAGENTA)] for i in range(21)]
    seen = follow(scenes)
    owners = {}
    for figures, people in zip(scenes, seen, strict=True):
        for number, person in people.items():
            best = max((0, 1), key=lambda k: fit(person, figures, k))
            assert owners.setdefault(number, best) == best
            assert fit(person, figures, best) > 0.5
    front = {number for number, owner in owners.items() if owner == 1}
    assert len(front) == 1, "the one in front is followed without a break"
    assert sum(front <= set(people) for people in seen) == len(scenes)
    assert len(seen[-1]) == 2


@pytest.mark.parametrize("neighbour", [True, False])
def test_when_the_parser_is_no_longer_sure_nobody_is_taken_in(neighbour):
    """Everybody's pixels go on with the track when they are the person's; not when they hold a neighbour too."""
    figures = [Figure(180, 120, colour=MAGENTA), Figure(140, 120)][0 if neighbour else 1 :]
    parser = OneColourParser()
    follower = Follower(parser, CropRecipe(detect_every=100, max_people=1), threshold=THRESHOLD)
    numbers = []
    for i in range(12):
        if i == 5:
            parser._one = UnsureParser()._one
        tracks = follower.step(draw(figures))
        numbers.append([track.number for track in tracks])
        if i == 0:
            owner = max(range(len(figures)), key=lambda k: fit(tracks[0].person, figures, k))
        assert all(track.number or fit(track.person, figures, owner) > 0.8 for track in tracks)
    assert numbers[:5] == [[0]] * 5
    if neighbour:
        assert numbers[5:8] == [[]] * 3
        assert all(0 not in later for later in numbers[8:])
    else:
        assert numbers[5:] == [[0]] * 7


def test_a_parser_that_is_never_sure_is_used_for_everybody():
    figure = Figure(150, 120)
    person = see(UnsureParser(), draw([figure]), figure.box(), threshold=THRESHOLD)
    assert not person.alone
    assert box_overlap(person.box_xyxy_px, figure.box()) > 0.95
    assert see(UnsureParser(), draw([figure]), figure.box(), threshold=THRESHOLD, only_one=True) is None


def test_others_are_painted_over():
    """The nearest to the middle is somebody else; told who that is, the parser sees the one who is meant."""
    hidden, before = Figure(130, 120, 130, colour=RED), Figure(165, 120, 110, colour=ORANGE)
    image = draw([hidden, before])
    rival = see(OneColourParser(), image, before.box(), threshold=THRESHOLD)
    where = np.array([120.0, 60, 190, 180])
    assert fit(see(OneColourParser(), image, where, threshold=THRESHOLD), [hidden, before], 1) > 0.8
    person = see(OneColourParser(), image, where, threshold=THRESHOLD, rivals=[rival])
    assert fit(person, [hidden, before], 0) > 0.7


def test_nobody_new_is_found_in_who_is_known():
    figures = [Figure(140, 120, colour=RED), Figure(180, 120, colour=MAGENTA)]
    image = draw(figures)
    people = find(OneColourParser(), image, threshold=THRESHOLD, min_person_px=40)
    assert len(people) == 2
    assert find(OneColourParser(), image, threshold=THRESHOLD, min_person_px=40, known=people) == []
    (other,) = find(OneColourParser(), image, threshold=THRESHOLD, min_person_px=40, known=people[:1])
    assert fit(other, figures, 0) + fit(other, figures, 1) > 0.8


class Ghosts:
    """Sees a person in the middle of whatever it is shown, but nobody in the trials, which are parsed together."""

    name = "ghosts-1"
    seen = 0

    def parse(self, crops):
        self.seen += len(crops)
        there = float(len(crops) != len(TRIALS))
        return [cv2.circle(np.zeros(c.shape[:2], np.float32), (128, 128), 91, there, -1) for c in crops]


def test_a_box_that_held_nobody_is_passed_over_for_some_looks():
    """What is not believed costs its trials only in every `DOUBT`th look; the tiles are looked at each time."""
    parser, image, costs = Ghosts(), draw([], size=(640, 480)), []
    follower = Follower(parser, CropRecipe(detect_every=1), threshold=THRESHOLD)
    for _ in range(2 * DOUBT + 1):
        before = parser.seen
        assert follower.step(image) == []
        costs.append(parser.seen - before)
    tiles = min(costs)
    assert [cost > tiles for cost in costs] == ([True] + [False] * (DOUBT - 1)) * 2 + [True]
