"""What OpenGL is given: whose triangle begins at a corner, and the light there."""

import dataclasses

import numpy as np
import pytest

from synthetic import uploads
from synthetic.drawn import Drawn, may_show, root_light
from synthetic.figure import Dressed
from synthetic.render import Renderer
from synthetic.scene import SceneRecipe, light_lobe, sample_scene


def dressed(triangles_T3: np.ndarray, *, closed: int, own: int) -> Dressed:
    empty = np.zeros(0, dtype=np.int64)
    return Dressed(
        texture_SS4=np.zeros((1, 1, 4), dtype=np.uint8),
        faces_T=np.arange(len(triangles_T3)),
        num_closed=closed,
        num_own=own,
        verts_T3=triangles_T3,
        shown_N=empty,
        corners_K2=empty,
        triangles_T3=triangles_T3,
        worn=None,
    )


@pytest.mark.parametrize("seed", range(20))
def test_every_triangle_has_its_corners_and_a_first_of_its_own(seed: int) -> None:
    rng = np.random.default_rng(seed)
    triangles = np.array([rng.choice(12, 3, replace=False) for _ in range(30)])
    person, worn = Drawn.of(dressed(triangles, closed=10, own=24))
    for drawn, front, back, first in (
        (person, triangles[:24], triangles[10:24], 10),
        (worn, triangles[24:], triangles[24:], 0),
    ):
        assert (drawn.corner_C[drawn.triangles_D3] == np.concatenate([front, back[:, ::-1]])).all()
        is_back = drawn.back_C[drawn.triangles_D3]
        assert (is_back == (np.arange(len(is_back)) >= len(front))[:, None]).all(), "a side's light is at its corners"
        assert len(np.unique(drawn.triangles_D3[:, 0])) == len(drawn.triangles_D3)
        told = drawn.number_C[drawn.triangles_D3[:, 0]]
        expected = np.concatenate([np.arange(24), np.arange(first, 24)]) + 1 if drawn is person else np.zeros(len(told))
        assert (told == expected).all()


def test_a_figure_may_wear_nothing_that_is_not_its_own() -> None:
    _, worn = Drawn.of(dressed(np.array([[0, 1, 2]]), closed=1, own=1))
    assert worn.triangles_D3.shape == (0, 3)


def test_light_of_one_lamp_falls_on_the_front_that_faces_it() -> None:
    lamp = (0.0, 0.6, 0.8)
    sh = np.tile(np.array(light_lobe(lamp)), (3, 1))
    normals = np.array([lamp, [0.0, -0.6, -0.8], [1.0, 0.0, 0.0]])
    front, back = root_light(normals, tuple(map(tuple, sh)))
    assert front.shape == (3, 3)
    assert front[0, 0] > front[2, 0] >= front[1, 0] == pytest.approx(0.08**0.5)
    assert np.allclose(front[:2], back[1::-1], atol=1e-6), "a back sees what an opposite front sees"
    half, _ = root_light(normals, tuple(map(tuple, sh)), np.full(3, 0.5))
    assert half[0, 0] == pytest.approx(front[0, 0] * 0.5**0.5, rel=1e-5)
    both = root_light(normals, tuple(map(tuple, sh)), np.multiply.outer((1.0, 0.5), np.ones(3)))
    assert (both[0] == front).all()
    assert both[1, 1, 0] == pytest.approx(front[0, 0] * 0.5**0.5, rel=1e-5), "less light inside"


@pytest.mark.parametrize("zoom", [1, 2])
def test_triangles_that_are_left_out_would_not_show(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, zoom: int
) -> None:
    left_out = []

    def choose(places_3C: np.ndarray, triangles_3D: np.ndarray, *args: object) -> np.ndarray:
        chosen = may_show(places_3C, triangles_3D, *args)
        left_out.append(1.0 - len(chosen) / triangles_3D.shape[1])
        return chosen if few else np.arange(triangles_3D.shape[1])

    monkeypatch.setattr(uploads, "may_show", choose)
    recipe = SceneRecipe(num_identities=3, num_views=2, scenes_per_identity=1, image_px=96, clips=("waving",))
    for framing in ("full", "upper", "hands"):
        scene = sample_scene(dataclasses.replace(recipe, framing=framing, supersampling=zoom), 5, 1)
        for view in range(2):
            few = False
            whole = renderer.render(scene, instant=0, view=view)
            few = True
            drawn = renderer.render(scene, instant=0, view=view)
            for name in ("rgb", "alpha", "depth_m", "normals", "uv", "parts"):
                assert (getattr(drawn, name) == getattr(whole, name)).all(), (framing, name)
            assert left_out[-1] > {"full": 0.5, "upper": 0.55, "hands": 0.75}[framing]


def test_what_reaches_behind_the_camera_is_not_sorted_out() -> None:
    places = np.array([[0.0, 1.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0, 2.0, -1.0]])
    triangles = np.array([[0, 1], [4, 2], [5, 3]])
    clip = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]], dtype=np.float32)
    assert may_show(places.astype(np.float32), triangles, clip, 64).tolist() == [0, 1]
    places[2, 5] = 2.0
    kept = may_show(places.astype(np.float32), triangles, clip, 64).tolist()
    turned = may_show(places.astype(np.float32), triangles[[0, 2, 1]], clip, 64).tolist()
    assert sorted(kept + turned) == [0, 1], "one side or the other is seen"
