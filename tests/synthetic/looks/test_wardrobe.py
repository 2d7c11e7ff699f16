import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trimesh
from hypothesis import example, given, settings
from hypothesis import strategies as st

from manifests.errors import SyntheticError
from synthetic.looks.canvas import Landmarks, behind_eyes, body_points, neighbour_means
from synthetic.looks.look import SHOES as SHOES_WORN
from synthetic.looks.look import TOPS, Look, sample_look
from synthetic.looks.skins import paint_skin
from synthetic.looks.wardrobe import PARTS, TEXTURE_PX, Outfit, Wardrobe, vertex_normals
from synthetic.models.body import BodyModel
from synthetic.patterns import KINDS, Pattern, noise, sample_tile, tile
from synthetic.rotations import matrix_from_axis_angle

TOP, BOTTOM, SHOES, SKIN, ACCESSORY = (PARTS.index(n) for n in ("top", "bottom", "shoes", "skin", "accessory"))


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


def test_what_lies_behind_the_eyes_is_seen_from_nowhere(body: BodyModel) -> None:
    hidden = behind_eyes(body)
    assert 800 < hidden.sum() < 1300
    mesh = trimesh.Trimesh(body.template_X3, body.faces_F3[body.face_group_F < 3], process=False)
    corners = body.template_X3[body.faces_F3[hidden]]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    starts = corners.mean(axis=1) + 1e-5 * across / np.linalg.norm(across, axis=1, keepdims=True)
    for way in np.random.default_rng(0).normal(size=(40, 3)):
        ahead = starts[across @ way > 0]
        assert mesh.ray.intersects_any(ahead, np.repeat(way[None], len(ahead), axis=0)).all()


def assert_dressed(outfit: Outfit, body: BodyModel) -> None:
    parts = part_of_vertices(outfit, body)[body.skin_vertices]
    x, y, _ = body.template_X3[body.skin_vertices].T
    neck, hip, ankle = body.joints_J3[12, 1], body.joints_J3[1, 1], body.joints_J3[7, 1]
    trunk = (y < neck - 0.14) & (y > hip - 0.18) & (np.abs(x) < body.joints_J3[16, 0] - 0.02)
    assert np.isin(parts[trunk], (TOP, BOTTOM)).all()
    assert (parts[y < ankle - 0.04] == SHOES).all()
    push = outfit.push_X[body.skin_vertices]
    assert (push[trunk] > 0.001).mean() > 0.97, "cloth lies over the skin"
    face = (y > neck + 0.08) & (body.template_X3[body.skin_vertices, 2] > 0.1)
    assert np.isin(parts[face], (SKIN, ACCESSORY)).mean() > 0.5
    assert (outfit.push_X >= 0).all()
    assert outfit.push_X.max() < 0.09


@given(st.integers(0, 10_000))
@settings(max_examples=5)
@example(20240)  # a dress whose folds once lay on the skin
def test_nobody_is_undressed(body: BodyModel, wardrobe: Wardrobe, seed: int) -> None:
    assert_dressed(wardrobe.dress(look_of(seed)), body)


@pytest.mark.parametrize(
    "barest",
    [
        *({"top_style": style, "tucked": True, "hem": 0.0, "open": 1.0, "neck": "v"} for style in TOPS),
        {"top_style": "tank", "tucked": False, "hem": 0.0, "open": 0.0},
        {"top_style": "blazer", "tucked": False, "hem": 0.0, "open": 1.0},
        {"skirt": "dress", "skirt_end": 0.0, "tucked": False, "hem": 0.0, "extras": ()},
    ],
)
def test_the_barest_of_clothes_cover_the_trunk(body: BodyModel, wardrobe: Wardrobe, barest: dict[str, Any]) -> None:
    look = look_of(1)
    short = dataclasses.replace(look.bottom, end=0.3, loose_m=0.004)
    bare = dataclasses.replace(look.top, end=0.0, loose_m=0.0)
    assert_dressed(wardrobe.dress(dataclasses.replace(look, top=bare, bottom=short, **barest)), body)


@pytest.mark.parametrize("seed", range(4))
def test_clothes_go_where_the_body_goes(body: BodyModel, wardrobe: Wardrobe, seed: int) -> None:
    outfit = wardrobe.dress(look_of(seed))
    turn = matrix_from_axis_angle(np.array([0.4, -1.1, 0.3]))
    here, normals = wardrobe.clothe(body.template_X3, outfit)
    there, turned = wardrobe.clothe(body.template_X3 @ turn.T + (1.0, 2.0, 3.0), outfit)
    assert np.allclose(there, here @ turn.T + (1.0, 2.0, 3.0), atol=1e-7)
    used = np.unique(outfit.faces_F3)
    assert np.allclose(turned[used], normals[used] @ turn.T, atol=1e-5)


def test_quick_fitting_equals_the_plain_one(body: BodyModel, wardrobe: Wardrobe) -> None:
    outfit = wardrobe.dress(dataclasses.replace(look_of(5), hair="short"))
    verts = body.template_X3.copy()
    mean = neighbour_means(body.faces_F3, len(verts))
    smooth = np.where(outfit.smooth_X > 0.01, outfit.smooth_X, 0)[:, None]
    for _ in range(8):
        verts = verts + 0.7 * smooth * (mean @ verts - verts)
    verts = verts + vertex_normals(verts, outfit.faces_F3) * outfit.push_X[:, None] + outfit.shift_X3
    found, normals = wardrobe.clothe(body.template_X3, outfit)
    used = np.unique(outfit.faces_F3)
    supple = used[np.abs(outfit.shift_X3[used]).max(axis=1) == 0]
    assert len(supple) > 10_000
    assert np.allclose(found[supple], verts[supple], atol=1e-9)
    assert np.allclose(
        found[used], verts[used], atol=1e-5
    )  # nobody turned: what is stiff is where it lies on the T-pose
    assert np.allclose(normals[used], vertex_normals(found, outfit.faces_F3)[used])


@pytest.mark.parametrize("style", SHOES_WORN)
def test_shoes_have_flat_soles_and_no_toes(body: BodyModel, wardrobe: Wardrobe, style: str) -> None:
    outfit = wardrobe.dress(dataclasses.replace(look_of(2), shoe_style=style))
    verts, _ = wardrobe.clothe(body.template_X3, outfit)
    toes = np.flatnonzero((body.weights_XJ[:, 10] > 0.9) & (body.template_X3[:, 2] > 0.12))
    sole = body.template_X3[:, 1].min()
    assert len(toes) > 200
    assert np.abs(verts[toes, 1].min() - sole) < 0.004
    assert verts[toes, 2].max() > body.template_X3[toes, 2].max() + 0.005
    ahead = toes[(verts[toes, 2] > 0.13) & (verts[toes, 2] < 0.17)]
    over = verts[ahead, 1] - sole
    assert not ((over > 0.012) & (over < 0.04) & (np.abs(verts[ahead, 0] - 0.165) < 0.01)).any(), "nothing stays inside"


@pytest.mark.parametrize("skirt_end", [0.0, 0.4, 1.0])
def test_hems_of_skirts_are_even(body: BodyModel, wardrobe: Wardrobe, skirt_end: float) -> None:
    look = dataclasses.replace(look_of(3), skirt="skirt", skirt_end=skirt_end)
    shown = wardrobe.dress(look).face_ids_F
    skirt = body.faces_F3[shown[body.face_group_F[shown] == 3]]
    edges = np.sort(np.concatenate([skirt[:, [0, 1]], skirt[:, [1, 2]], skirt[:, [2, 0]]]), axis=1)
    sides, times = np.unique(edges, axis=0, return_counts=True)
    rim = np.unique(sides[times == 1])
    hem = body.template_X3[rim[body.template_X3[rim, 1] < body.joints_J3[1, 1]], 1]
    assert len(hem) > 30
    assert np.ptp(hem) < 0.1
    assert hem.mean() == pytest.approx(body.joints_J3[1, 1] - 0.26 - 0.3 * skirt_end, abs=0.06)


def test_palms_have_no_spot(body: BodyModel) -> None:
    marks = Landmarks.of(body)
    points = body_points(body, marks)
    off_m = points.side - marks.wrist_x
    palm = np.intersect1d(body.skin_vertices, np.flatnonzero((off_m > 0.05) & (off_m < 0.1)))
    red, green, _ = paint_skin(points.take(palm), look_of(3))
    assert np.ptp(red / green) < 0.09 * np.median(red / green)


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
