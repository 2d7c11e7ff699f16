"""Keys: equal texts if and only if equal frames, and no text that a tar or a reader could misread."""

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from manifests.errors import ManifestError
from manifests.types import KEY_PART, SAMPLE_KEY, FrameKey, Split, key_part

PART = st.text(string.ascii_lowercase + string.digits + "_-", min_size=1, max_size=12)
KEYS = st.builds(
    FrameKey,
    source=PART,
    split=st.sampled_from(Split),
    sequence=PART,
    instant=st.integers(0, 10**10),
    view=PART,
    track=PART,
)


@given(KEYS)
def test_key_round_trip(key):
    assert FrameKey.parse(str(key)) == key
    assert SAMPLE_KEY.fullmatch(str(key))
    assert str(key).count("/") == 5


@given(KEYS, KEYS)
def test_equal_texts_if_and_only_if_equal_frames(one, other):
    assert (str(one) == str(other)) == (one == other)


def test_instants_sort_as_text():
    keys = [
        FrameKey(source="a", split=Split.VAL, sequence="b", instant=i, view="c", track="d") for i in (9, 10, 99, 100, 2)
    ]
    assert [key.instant for key in sorted(keys, key=str)] == [2, 9, 10, 99, 100]
    assert str(keys[0]) == "a/val/b/00000009/c/d"


@pytest.mark.parametrize("name", ["source", "sequence", "view", "track"])
@pytest.mark.parametrize("bad", ["", "A", "a.b", "a/b", "..", "é", "a b", "a\n"])
def test_parts_that_could_be_misread_are_refused(name, bad):
    parts = {"source": "a", "split": Split.VAL, "sequence": "b", "instant": 0, "view": "c", "track": "d"}
    with pytest.raises(ValueError, match=f"{name} .* does not match"):
        FrameKey(**parts | {name: bad})


def test_negative_instants_are_refused():
    with pytest.raises(ValueError, match="instant -1 is negative"):
        FrameKey(source="a", split=Split.VAL, sequence="b", instant=-1, view="c", track="d")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "it has 1 parts, not 6"),
        ("a/b/c", "it has 3 parts, not 6"),
        ("a/val/b/0/c/d/e", "it has 7 parts, not 6"),
        ("a/nosplit/b/00000000/c/d", "split 'nosplit' is none of train, val, test"),
        ("a/val/b/x/c/d", "instant 'x' is no whole number"),
        ("a/val/b/-0000001/c/d", "instant '-0000001' is no whole number"),
        ("A/val/b/0/c/d", "source 'A' does not match"),
    ],
)
def test_texts_that_are_no_keys(text, what):
    told = rf"not a frame key: {what}(?s:.)*try:   a key is source/split/sequence/instant/view/track"
    with pytest.raises(ManifestError, match=told):
        FrameKey.parse(text)


@given(st.text(max_size=30))
def test_key_part_of_any_name_is_a_part_and_stays_one(name):
    try:
        part = key_part(name)
    except ValueError as error:
        assert "no letter or digit" in str(error)  # noqa: PT017
        assert not any(c in string.ascii_letters + string.digits + "_" for c in name)
        return
    assert KEY_PART.fullmatch(part)
    assert key_part(part) == part


@given(PART)
def test_key_part_keeps_what_is_a_part_already(part):
    assume(part.strip("-") == part)
    assume("--" not in part)
    assert key_part(part) == part


@pytest.mark.parametrize(
    ("name", "part"),
    [("Cam 01.MP4", "cam-01-mp4"), ("take__2", "take__2"), ("Straße/links", "stra-e-links"), ("--x--", "x")],
)
def test_key_part_of_names_people_give(name, part):
    assert key_part(name) == part
