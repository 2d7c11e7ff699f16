"""Wrong references, against a plain loop over all samples."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from manifests.negatives import hard_negatives
from manifests.types import FrameKey, Split


def key(source: str, sequence: str, track: str, instant: int, view: str) -> str:
    return str(FrameKey(source=source, split=Split.VAL, sequence=sequence, instant=instant, view=view, track=track))


@st.composite
def samples(draw: st.DrawFn) -> list[tuple[str, str, str | None]]:
    """Pairs of both kinds, of people known and unknown; a track is one person."""
    found = []
    names = {}
    for _ in range(draw(st.integers(0, 25))):
        source, sequence, track = (draw(st.sampled_from(pair)) for pair in (("a", "b"), ("r1", "r2"), ("p0", "p1")))
        who = names.setdefault((source, sequence, track), draw(st.sampled_from([None, "s1", "s2", "s3"])))
        one, other = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        views = ("c0", "c1") if one == other else ("c0", "c0")
        found.append((key(source, sequence, track, one, views[0]), key(source, sequence, track, other, views[1]), who))
    return found


def is_other_person(one, other, *, beside: bool) -> bool:
    (target, _, who), (wrong, _, whom) = one, other
    a, b = FrameKey.parse(target), FrameKey.parse(wrong)
    together = (a.source, a.sequence) == (b.source, b.sequence)
    if a.source != b.source or (beside and not together):
        return False
    if who is None and whom is None:
        return a.track != b.track if beside else a.sequence != b.sequence
    return who != whom


def is_other_pose(one, other) -> bool:
    target, true, wrong = (FrameKey.parse(name) for name in (one[0], one[1], other[1]))
    same = (true.source, true.sequence, true.track) == (wrong.source, wrong.sequence, wrong.track)
    return same and wrong.instant not in (true.instant, target.instant)


@given(samples(), st.integers(0, 5))
def test_negatives_are_what_they_are_said_to_be(rows, seed) -> None:
    negatives = hard_negatives(*([row[i] for row in rows] for i in range(3)), seed=seed)
    for row, wrong in zip(rows, negatives.other_person.tolist(), strict=True):
        beside = [i for i, other in enumerate(rows) if is_other_person(row, other, beside=True)]
        anywhere = [i for i, other in enumerate(rows) if is_other_person(row, other, beside=False)]
        assert wrong in (beside or anywhere or [-1])
    for row, wrong in zip(rows, negatives.other_pose.tolist(), strict=True):
        poses = [i for i, other in enumerate(rows) if is_other_pose(row, other)]
        assert wrong in (poses or [-1])
    again = hard_negatives(*([row[i] for row in rows] for i in range(3)), seed=seed)
    assert np.array_equal(again.other_person, negatives.other_person)
    assert np.array_equal(again.other_pose, negatives.other_pose)


def test_they_are_drawn_evenly_and_found_for_all_that_have_one() -> None:
    rows = [(key("a", f"r{p}", "p0", i, "c0"), key("a", f"r{p}", "p0", i, "c1"), f"s{p}") for p in range(5) for i in range(200)]  # fmt: skip
    negatives = hard_negatives(*([row[i] for row in rows] for i in range(3)), seed=0)
    person = np.arange(1000) // 200
    pairs = Counter(zip(person.tolist(), person[negatives.other_person].tolist(), strict=True))
    assert len(pairs) == 20
    assert 25 < min(pairs.values()) <= max(pairs.values()) < 80  # 50 each
    assert (person[negatives.other_pose] == person).all()
    assert (negatives.other_pose != np.arange(1000)).all()
    assert len(np.unique(negatives.other_pose)) > 500


def test_two_people_of_one_recording_are_taken_before_those_of_others() -> None:
    rows = [
        (key("a", r, t, i, "c0"), key("a", r, t, i, "c1"), None)
        for r in ("r1", "r2")
        for t in ("p0", "p1")
        for i in range(5)
    ]
    negatives = hard_negatives(*([row[i] for row in rows] for i in range(3)), seed=0)
    for number, wrong in enumerate(negatives.other_person.tolist()):
        assert (number // 10, number // 5 % 2) == (wrong // 10, 1 - wrong // 5 % 2)


def test_a_lone_person_has_nobody_else() -> None:
    rows = [(key("a", "r1", "p0", 1, "c0"), key("a", "r1", "p0", 1, "c1"), None)]
    negatives = hard_negatives(*([row[i] for row in rows] for i in range(3)), seed=0)
    assert (negatives.other_person.tolist(), negatives.other_pose.tolist()) == ([-1], [-1])
