import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthetic.patterns import Pattern
from synthetic.places.props import Prop
from synthetic.places.room import SHADOW_SIZE_M, build_props, build_room, floor_shadow
from synthetic.scene import Light, Room, Scene, SceneRecipe, sample_scene

RECIPE = SceneRecipe(num_identities=20, scenes_per_identity=1)
PLAIN = Pattern(kind="plain", colours=((0.5, 0.5, 0.5),) * 3, tile_m=1.0, seed=0)
UP = Light(sh=((1.0,) + (0.0,) * 8,) * 3, lamp=(0.0, 1.0, 0.0), shadow=0.6)
PERSON = np.random.default_rng(0).uniform((-0.2, 0.0, -0.2), (0.2, 1.7, 0.2), (20_000, 3))


def scene(index: int) -> Scene:
    return sample_scene(RECIPE, 0, index)


def at(shadow: np.ndarray, x_m: float, z_m: float) -> float:
    size = len(shadow)
    column, row = int((x_m / SHADOW_SIZE_M + 0.5) * size), size - 1 - int((z_m / SHADOW_SIZE_M + 0.5) * size)
    return float(shadow[row, column, 0]) / 255


@settings(max_examples=8)
@given(st.integers(0, 19))
def test_a_room_is_closed_and_follows_from_its_data(index: int) -> None:
    room = scene(index).room
    surfaces, again = build_room(room), build_room(room)
    wide, deep = room.half_m
    for surface, same in zip(surfaces, again, strict=True):
        assert surface.texture_HWC.tobytes() == same.texture_HWC.tobytes()
        assert surface.verts_X3.tobytes() == same.verts_X3.tobytes()
        assert (np.abs(surface.verts_X3) <= (wide, room.height_m, deep)).all()
        assert surface.texture_HWC.flags.c_contiguous
        assert max(surface.texture_HWC.shape) <= 2048
    assert [surface.is_floor for surface in surfaces] == [True] + [False] * (len(surfaces) - 1)
    centre = np.array([0.0, room.height_m / 2, 0.0])
    for surface in surfaces[:6]:
        corners = surface.verts_X3[surface.faces_F3]
        facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert ((centre - corners[:, 0]) * facing).sum(axis=1).min() > 0, "it is seen from inside"
    area = sum(
        np.linalg.norm(np.cross(v[1] - v[0], v[3] - v[0])) for v in (surface.verts_X3 for surface in surfaces[:6])
    )
    assert area == pytest.approx(8 * wide * deep + 4 * room.height_m * (wide + deep))


def test_walls_are_lit_unevenly_and_darker_behind_furniture() -> None:
    cabinet = Prop(kind="box", centre_m=(0.0, -3.7), size_m=(1.4, 1.6, 0.5), yaw_rad=0.0, pattern=PLAIN)

    def wall(furniture: tuple[Prop, ...]) -> np.ndarray:
        room = Room(
            half_m=(4.0, 4.0), height_m=3.0, floor=PLAIN, walls=(PLAIN,) * 4, ceiling=(0.9,) * 3, furniture=furniture, seed=1
        )  # fmt: skip
        return build_room(room)[2].texture_HWC.astype(float).mean(axis=2)

    bare, covered = wall(()), wall((cabinet,))
    share = covered / np.maximum(bare, 1.0)
    height, width = share.shape
    behind = share[round(height * 0.6) : round(height * 0.9), round(width * 0.45) : round(width * 0.55)]
    assert behind.mean() < 0.7
    assert share[: round(height * 0.2)].mean() > 0.98, "far above it nothing changes"
    assert share[:, : round(width * 0.2)].mean() > 0.98
    columns = bare[round(height * 0.05) : round(height * 0.1)].mean(axis=0)
    assert columns[: width // 50].mean() < 0.95 * np.median(columns), "corners are darker"


def test_the_person_darkens_the_floor_under_it_and_away_from_the_lamp() -> None:
    slanted = Light(sh=UP.sh, lamp=(float(np.cos(0.8)), float(np.sin(0.8)), 0.0), shadow=0.6)
    shadow = floor_shadow(PERSON, slanted)
    assert shadow.dtype == np.uint8
    assert (shadow[..., 0] == shadow[..., 1]).all()
    assert at(shadow, 0.0, 0.0) < 0.45
    assert at(shadow, -1.0, 0.0) == pytest.approx(0.4, abs=0.05), "1.7 m throw 1.65 m at 46 degrees"
    assert at(shadow, -2.2, 0.0) > 0.9
    assert at(shadow, 1.0, 0.0) > 0.9
    assert at(shadow, -1.0, 0.7) > 0.9


def test_things_throw_shadows_and_darken_their_foot() -> None:
    crate = Prop(kind="box", centre_m=(2.0, 1.0), size_m=(0.6, 1.0, 0.6), yaw_rad=0.0, pattern=PLAIN)
    slanted = Light(sh=UP.sh, lamp=(0.0, float(np.sin(0.8)), float(np.cos(0.8))), shadow=0.6)
    without, with_crate = floor_shadow(PERSON, slanted), floor_shadow(PERSON, slanted, None, (crate,))
    assert at(without, 2.0, 0.2) > 0.95
    assert at(with_crate, 2.0, 0.2) < 0.5, "the lamp stands at +z"
    assert at(with_crate, 2.0, 1.4) < 0.9, "its foot is darker than the open floor"
    assert at(with_crate, 2.0, 2.4) > 0.95
    assert at(with_crate, 0.0, 0.0) == at(without, 0.0, 0.0)
    doubled = Prop(kind="box", centre_m=(0.0, 1.2), size_m=(0.6, 1.9, 0.6), yaw_rad=0.0, pattern=PLAIN)
    both = floor_shadow(PERSON, slanted, None, (doubled,))
    assert at(both, 0.0, -0.5) == pytest.approx(at(without, 0.0, -0.5), abs=0.03), "a lamp is hidden but once"


def test_the_floor_is_darker_at_walls_and_light_beyond_the_map() -> None:
    room = Room(
        half_m=(3.0, 4.0), height_m=3.0, floor=PLAIN, walls=(PLAIN,) * 4, ceiling=(0.9,) * 3, furniture=(), seed=0
    )
    shadow = floor_shadow(PERSON, UP, room)
    assert at(shadow, 2.95, 0.0) < 0.75
    assert at(shadow, 0.0, -3.95) < 0.75
    assert at(shadow, 2.0, -2.0) > 0.95
    assert (shadow[[0, -1]] == 255).all()
    assert (shadow[:, [0, -1]] == 255).all()


def test_things_of_one_pattern_are_one_surface() -> None:
    chairs = tuple(
        Prop(kind="chair", centre_m=(float(i), 0.0), size_m=(0.5, 1.0, 0.5), yaw_rad=0.1 * i, pattern=PLAIN)
        for i in range(4)
    )
    assert len(build_props(chairs)) == 1
    assert build_props(()) == []
