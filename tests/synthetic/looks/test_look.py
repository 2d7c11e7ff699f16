import dataclasses
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from synthetic.looks.canvas import Landmarks
from synthetic.looks.garments import print_picture
from synthetic.looks.look import (
    BEARDS,
    BOTTOMS,
    EXTRAS,
    HAIR_STYLES,
    NECKS,
    PRINTS,
    SHOES,
    SKIRTS,
    TOPS,
    chance_of_woman,
    sample_look,
)
from synthetic.models.body import BodyModel
from synthetic.patterns import crease_tiles, lookup, streaks

LOOKS = [sample_look(np.random.default_rng(seed)) for seed in range(1500)]


def test_looks_follow_their_seed_and_are_plain_data() -> None:
    assert sample_look(np.random.default_rng(7)) == LOOKS[7]
    plain = dataclasses.asdict(LOOKS[7])
    assert np.isfinite(list(numbers(plain))).all()


def numbers(value: object) -> Iterator[float]:
    """Every number in nested plain data, and nothing that is no plain data."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif type(value) in (int, float, bool):
        yield value
    else:
        assert type(value) is str, f"{value!r} would not come back from JSON as it was"


def test_thousands_of_looks_differ_in_more_than_numbers() -> None:
    assert len(set(LOOKS)) == len(LOOKS)
    told_apart = ("hair", "beard", "top_style", "neck", "tucked", "print", "bottom_style", "skirt", "shoe_style")
    kinds = Counter(
        (*(getattr(look, name) for name in told_apart), look.top.pattern.kind, look.bottom.pattern.kind, look.open > 0)
        for look in LOOKS
    )
    assert len(kinds) > 1450


def test_looks_are_those_of_women_or_men_as_likely_as_is_said() -> None:
    men, women = (
        [sample_look(np.random.default_rng(seed), women=share) for seed in range(150)] for share in (0.0, 1.0)
    )
    assert {look.skirt for look in men} <= {"none", "coat"}
    assert not any("makeup" in look.extras for look in men)
    assert {look.beard for look in women} == {"none"}
    assert sum(look.beard != "none" for look in men) > 60
    assert sum(look.skirt != "none" for look in women) > 40


def test_shapes_tell_women_from_men(body: BodyModel) -> None:
    """Women are shorter, and their shoulders are less wide for their hips."""
    axis = np.eye(10)[[0, 1, 3]].sum(axis=0)
    assert (chance_of_woman(axis), chance_of_woman(-axis)) == (1.0, 0.0)
    assert 0.4 < chance_of_woman(np.zeros(10)) < 0.6
    shares = [chance_of_woman(betas) for betas in np.random.default_rng(0).normal(0.0, 1.0, (1000, 10))]
    assert 0.4 < np.mean(shares) < 0.6
    assert np.mean([share in (0.0, 1.0) for share in shares]) > 0.4, "few are in doubt"
    woman, man = (
        body.pose(np.zeros((1, 24, 3)), sign * axis, np.zeros((1, 3)))[0][0, body.skin_vertices] for sign in (1, -1)
    )
    assert np.ptp(woman[:, 1]) < np.ptp(man[:, 1]) - 0.05
    rest, marks = body.template_X3[body.skin_vertices], Landmarks.of(body)
    shoulders = (np.abs(rest[:, 1] - marks.shoulder_y) < 0.03) & (np.abs(rest[:, 0]) < marks.shoulder_x)
    hips = np.abs(rest[:, 1] - marks.hip_y) < 0.03
    ratio = [np.ptp(verts[shoulders, 0]) / np.ptp(verts[hips, 0]) for verts in (woman, man)]
    assert ratio[0] < 0.95 * ratio[1]


def test_every_style_is_worn_by_somebody() -> None:
    for name, known in (
        ("hair", HAIR_STYLES),
        ("beard", BEARDS),
        ("top_style", TOPS),
        ("neck", NECKS),
        ("print", PRINTS),
        ("bottom_style", BOTTOMS),
        ("skirt", SKIRTS),
        ("shoe_style", SHOES),
    ):
        assert {getattr(look, name) for look in LOOKS} == set(known)
    assert {extra for look in LOOKS for extra in look.extras} == set(EXTRAS)


def test_what_does_not_go_together_is_not_worn_together() -> None:
    for look in LOOKS:
        assert not (look.beard != "none" and look.skirt in ("skirt", "dress"))
        assert not (look.tucked and look.skirt == "dress")
        assert look.open == 0 or look.top_style in ("jacket", "blazer", "hoodie")
        assert look.skirt != "coat" or look.top_style == "jacket"
        assert 0 <= look.bottom.end <= 1
        assert 0 <= look.top.end <= 1


@pytest.mark.parametrize(("field", "value"), [("hair", "mullet"), ("print", "photo"), ("shoe_style", "clog")])
def test_unknown_styles_are_refused(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be of .*got '{value}'"):
        dataclasses.replace(LOOKS[0], **{field: value})
    with pytest.raises(ValueError, match="extras must be of"):
        dataclasses.replace(LOOKS[0], extras=("monocle",))


@pytest.mark.parametrize("kind", [kind for kind in PRINTS if kind not in ("none", "band")])
def test_prints_are_drawn_from_the_looks_seed(kind: str) -> None:
    colours = {"accent": (0.9, 0.1, 0.1)}
    one, again, other = (
        print_picture(dataclasses.replace(LOOKS[3], print=kind, seed=seed, **colours)) for seed in (1, 1, 2)
    )
    assert one.shape == (256, 256, 4)
    assert one.tobytes() == again.tobytes() != other.tobytes()
    assert 0 <= one.min() <= one.max() <= 1
    cover = one[..., 3]
    assert 0.02 < cover.mean() <= 1
    assert kind == "picture" or cover[[0, -1]].max() == cover[:, [0, -1]].max() == 0, "ink stays on the cloth"


def test_tiles_are_looked_up_between_texels_and_around_edges() -> None:
    ramp = np.tile(np.arange(8, dtype=np.float32)[None], (8, 1))
    u = np.array([0.5 / 8, 1.0 / 8, 3.5 / 8 - 2, 0.0])
    assert lookup(ramp, u, np.full(4, 0.3)) == pytest.approx([0.0, 0.5, 3.0, 3.5], abs=0.02)
    fine = (np.indices((256, 256)).sum(axis=0) % 2).astype(np.float32)
    places = np.linspace(0, 1, 500, dtype=np.float32)
    seen = lookup(fine, places, places, texel_tiles=1 / 40)
    assert np.abs(seen - 0.5).max() < 0.05, "finer than the texels is grey, not noise"


def test_creases_repeat_and_keep_the_brightness() -> None:
    for tile in crease_tiles():
        assert tile.mean() == pytest.approx(1.0, abs=0.03)
        assert tile.std() > 0.05
        assert np.abs(tile[0] - tile[-1]).mean() < 3 * np.abs(np.diff(tile, axis=0)).mean()
        assert np.abs(tile[:, 0] - tile[:, -1]).mean() < 3 * np.abs(np.diff(tile, axis=1)).mean()


def test_streaks_are_longer_one_way() -> None:
    hair = streaks(np.random.default_rng(0), ((4, 64),))
    assert np.abs(np.diff(hair, axis=1)).mean() > 5 * np.abs(np.diff(hair, axis=0)).mean()
