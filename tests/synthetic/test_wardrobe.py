from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import SyntheticError
from synthetic.body import BodyModel
from synthetic.looks import Look, sample_look
from synthetic.patterns import KINDS, Pattern, noise, sample_tile, tile
from synthetic.wardrobe import PARTS, TEXTURE_PX, Outfit, Wardrobe, vertex_normals

TOP, BOTTOM, SHOES, SKIN = (PARTS.index(name) for name in ("top", "bottom", "shoes", "skin"))


@pytest.fixture(scope="module")
def wardrobe(body: BodyModel) -> Wardrobe:
    return Wardrobe(body)


def look_of(seed: int) -> Look:
    return sample_look(np.random.default_rng(seed))


def part_of_vertices(outfit: Outfit, body: BodyModel) -> np.ndarray:
    """The part painted where each vertex lies in the texture; 0 for vertices without faces."""
    at = np.clip((body.uvs_U2[outfit.corners_K2[:, 1]] * TEXTURE_PX).astype(int), 0, TEXTURE_PX - 1)
    parts = np.zeros(len(body.template_X3), dtype=int)
    parts[outfit.corners_K2[:, 0]] = outfit.texture_SS4[at[:, 1], at[:, 0], 3]
    return parts


def test_a_body_that_cannot_be_dressed_is_refused() -> None:
    bare = SimpleNamespace(uvs_U2=np.zeros((0, 2)), face_group_F=np.zeros(4, np.int64))
    with pytest.raises(SyntheticError, match="cannot be dressed"):
        Wardrobe(bare)


@given(st.integers(0, 10_000))
@settings(max_examples=5)
def test_nobody_is_undressed(body: BodyModel, wardrobe: Wardrobe, seed: int) -> None:
    outfit = wardrobe.dress(look_of(seed))
    parts = part_of_vertices(outfit, body)[body.skin_vertices]
    x, y, _ = body.template_X3[body.skin_vertices].T
    neck, hip, ankle = body.joints_J3[12, 1], body.joints_J3[1, 1], body.joints_J3[7, 1]
    trunk = (y < neck - 0.14) & (y > hip - 0.18) & (np.abs(x) < body.joints_J3[16, 0] - 0.02)
    assert np.isin(parts[trunk], (TOP, BOTTOM)).all()
    assert (parts[y < ankle - 0.04] == SHOES).all()
    push = outfit.push_X[body.skin_vertices]
    assert (push[trunk] > 0.001).mean() > 0.97, "cloth lies over the skin"
    face = (y > neck + 0.08) & (body.template_X3[body.skin_vertices, 2] > 0.1)
    assert (parts[face] == SKIN).mean() > 0.5
    assert (outfit.push_X >= 0).all()
    assert outfit.push_X.max() < 0.08


def test_an_outfit_is_the_same_each_time(body: BodyModel, wardrobe: Wardrobe) -> None:
    first, again, other = (wardrobe.dress(look_of(seed)) for seed in (1, 1, 2))
    assert first.texture_SS4.tobytes() == again.texture_SS4.tobytes()
    assert first.push_X.tobytes() == again.push_X.tobytes()
    assert np.abs(first.texture_SS4[..., :3].astype(int) - other.texture_SS4[..., :3]).mean() > 10


def test_clothes_widen_the_body_but_leave_hands_and_face(body: BodyModel, wardrobe: Wardrobe) -> None:
    outfit = wardrobe.dress(look_of(3))
    verts, normals = wardrobe.clothe(body.template_X3, outfit)
    hands = np.flatnonzero(body.weights_XJ[:, [22, 23]].sum(axis=1) > 0.9)
    assert np.allclose(verts[hands], body.template_X3[hands], atol=1e-9)
    hips = [i for i in body.skin_vertices if abs(body.template_X3[i, 1] - body.joints_J3[1, 1]) < 0.04]
    assert np.ptp(verts[hips, 0]) > np.ptp(body.template_X3[hips, 0])
    used = np.unique(outfit.faces_F3)
    assert np.allclose(np.linalg.norm(normals[used], axis=1), 1.0)
    outward = (normals[used] * (body.template_X3[used] - body.joints_J3[0])).sum(axis=1)
    assert (outward > 0).mean() > 0.6


def test_triangles_and_faces_are_the_same(body: BodyModel, wardrobe: Wardrobe) -> None:
    outfit = wardrobe.dress(look_of(4))
    assert (outfit.corners_K2[outfit.triangles_F3, 0] == outfit.faces_F3).all()
    assert (body.faces_F3[outfit.face_ids_F] == outfit.faces_F3).all()


def test_normals_of_an_octahedron_point_outwards() -> None:
    verts = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1], [9, 9, 9]], dtype=float)
    faces = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    assert np.allclose(vertex_normals(verts, faces)[:6], verts[:6])
    assert (vertex_normals(verts, faces)[6] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_repeat_and_vary_with_their_seed(kind: str) -> None:
    colours = ((0.9, 0.8, 0.7), (0.2, 0.3, 0.4), (0.6, 0.1, 0.1))
    first, again, other = (tile(Pattern(kind=kind, colours=colours, tile_m=0.3, seed=seed)) for seed in (1, 1, 2))
    assert first.shape == (256, 256, 3)
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert first.min() >= 0
    assert first.max() <= 1
    assert first.std() > 0.005
    seen = sample_tile(first, np.array([0.1, 1.1, -0.9]), np.array([0.3, 5.3, -0.7]))
    assert np.allclose(seen[0], seen)


def test_noise_has_no_seam() -> None:
    picture = noise(np.random.default_rng(0), (4, 9))
    steps = np.abs(np.diff(picture, axis=0)).max()
    assert np.abs(picture[0] - picture[-1]).max() < 2 * steps
    assert np.abs(picture[:, 0] - picture[:, -1]).max() < 2 * np.abs(np.diff(picture, axis=1)).max()
    assert 0.35 < picture.mean() < 0.65


def test_patterns_and_looks_refuse_unknown_names() -> None:
    colour = (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="unknown pattern 'tartan'"):
        Pattern(kind="tartan", colours=(colour, colour, colour), tile_m=0.3, seed=0)
    with pytest.raises(ValueError, match="tile_m must be positive"):
        Pattern(kind="plain", colours=(colour, colour, colour), tile_m=0.0, seed=0)
