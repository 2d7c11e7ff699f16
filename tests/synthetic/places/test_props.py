import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from synthetic.camera import Camera, sample_rig
from synthetic.patterns import Pattern
from synthetic.places.props import PERSON_M, PERSONS_P3, Prop, hidden_share, sample_furniture, sample_occluders
from synthetic.places.room import build_props

PLAIN = Pattern(kind="plain", colours=((0.5, 0.5, 0.5),) * 3, tile_m=1.0, seed=0)


def cameras(seed: int, num_views: int = 4, reach_m: tuple[float, float] = (2.2, 4.8)) -> tuple[Camera, ...]:
    return sample_rig(
        np.random.default_rng(seed),
        "random",
        num_views,
        elevation_rad=(-0.1, 0.5),
        distance_m=reach_m,
        person_share=(0.6, 0.8),
    )


def mesh(props: tuple[Prop, ...]) -> trimesh.Trimesh:
    surfaces = build_props(props)
    return trimesh.util.concatenate([trimesh.Trimesh(s.verts_X3, s.faces_F3, process=False) for s in surfaces])


def meets(start: np.ndarray, end: np.ndarray, triangles_F33: np.ndarray) -> bool:
    """Whether the line between two points passes through a triangle."""
    edges = np.stack([triangles_F33[:, 1] - triangles_F33[:, 0], triangles_F33[:, 2] - triangles_F33[:, 0]], axis=-1)
    system = np.concatenate([edges, np.broadcast_to(start - end, (len(edges), 3))[..., None]], axis=-1)
    a, b, share = np.linalg.solve(system, (start - triangles_F33[:, 0])[..., None])[..., 0].T
    return bool(((a >= 0) & (b >= 0) & (a + b <= 1) & (share > 0) & (share < 1)).any())


@pytest.mark.parametrize(
    ("framing", "standing", "lying"), [("full", 0.5, 0.7), ("upper", 0.5, 0.5), ("hands", 0.25, 0.35)]
)
@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_occluders_hide_a_part_and_leave_room(seed: int, framing: str, standing: float, lying: float) -> None:
    views = cameras(seed)
    props = sample_occluders(np.random.default_rng(seed), 3, views, 3.1, framing)
    hidden = np.array([hidden_share(view, props, "standing", framing) for view in views])
    assert len(props) <= 3
    assert hidden.max() <= standing, "enough of the person is seen from everywhere"
    assert max(hidden_share(view, props, "lying", framing) for view in views) <= lying
    if props:
        assert hidden.max() >= 0.06
    for prop in props:
        radius = np.hypot(prop.size_m[0], prop.size_m[2]) / 2
        assert np.hypot(*prop.centre_m) - radius >= PERSON_M - 1e-9, "the person can move"
        for view in views:
            away = np.hypot(*(view.eye_m[[0, 2]] - prop.centre_m)) - radius
            assert away > 0.29 or view.eye_m[1] > prop.size_m[1] + 0.29, "no camera stands in a thing"


def test_occluders_are_found_and_follow_their_seed() -> None:
    counts = []
    for seed in range(40):
        views = cameras(seed)
        props = sample_occluders(np.random.default_rng(seed), 2, views, 3.1)
        assert props == sample_occluders(np.random.default_rng(seed), 2, views, 3.1)
        counts.append(len(props))
    assert np.mean(counts) > 1.8
    assert sample_occluders(np.random.default_rng(0), 0, cameras(0), 3.1) == ()


@pytest.mark.parametrize("framing", ["full", "upper", "hands"])
@pytest.mark.parametrize("pose", ["standing", "lying"])
def test_hidden_share_is_what_rays_through_the_mesh_tell(pose: str, framing: str) -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        view = cameras(seed, 1)[0]
        away = view.eye_m[[0, 2]] * rng.uniform(0.4, 0.6)
        prop = Prop(
            kind="box",
            centre_m=(float(away[0]), float(away[1])),
            size_m=tuple(rng.uniform((0.2, 0.5, 0.2), (0.8, 1.5, 0.6)).tolist()),
            yaw_rad=float(rng.uniform(0, 6)),
            pattern=PLAIN,
        )
        triangles = mesh((prop,)).triangles
        seen = np.array([meets(view.eye_m, end, triangles) for end in PERSONS_P3[framing][pose]])
        assert hidden_share(view, (prop,), pose, framing) == pytest.approx(seen.mean(), abs=1.5 / len(seen))


def test_what_stands_behind_the_person_hides_nothing() -> None:
    view = cameras(0, 1)[0]
    x, z = -view.eye_m[[0, 2]] / np.hypot(*view.eye_m[[0, 2]]) * 2.0
    behind = Prop(kind="box", centre_m=(float(x), float(z)), size_m=(1.0, 2.0, 0.5), yaw_rad=0.3, pattern=PLAIN)
    assert hidden_share(view, (behind,)) == hidden_share(view, (behind,), "lying") == 0.0
    assert hidden_share(view, ()) == 0.0


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_furniture_stands_inside_along_the_walls(seed: int) -> None:
    half = tuple(np.random.default_rng(seed).uniform(3.0, 9.0, 2).tolist())
    props = sample_furniture(np.random.default_rng(seed), half)
    assert 3 <= len(props) <= 16
    for prop in props:
        verts = mesh((prop,)).vertices
        low, high = verts.min(axis=0), verts.max(axis=0)
        assert (np.abs(np.stack([low, high])[:, [0, 2]]) <= half).all(), "it does not stick through a wall"
        front = np.array([np.sin(prop.yaw_rad), np.cos(prop.yaw_rad)])
        back = np.array(prop.centre_m) - front * prop.size_m[2] / 2.0
        assert np.abs(front) @ half - np.abs(front @ back) == pytest.approx(0.02), "its back is at a wall"
        assert front @ back < 0.0, "its front is seen"


@pytest.mark.parametrize("kind", ["box", "shelf", "table", "chair", "plant", "pole"])
def test_things_fill_their_box_and_face_outwards(kind: str) -> None:
    prop = Prop(kind=kind, centre_m=(1.0, -2.0), size_m=(0.5, 1.2, 0.5), yaw_rad=np.pi / 2, pattern=PLAIN)
    verts = mesh((prop,)).vertices
    low, high = verts.min(axis=0), verts.max(axis=0)
    assert (low >= (0.75 - 1e-9, -1e-9, -2.25 - 1e-9)).all()
    assert (high <= (1.25 + 1e-9, 1.2 + 1e-9, -1.75 + 1e-9)).all()
    assert (high - low > (0.35, 0.8, 0.35)).all(), "it is as large as it says"
    for surface in build_props((prop,)):
        corners = surface.verts_X3[surface.faces_F3]
        wound = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = surface.normals_X3[surface.faces_F3].mean(axis=1)
        assert ((wound * normals).sum(axis=1) > 0).all(), "triangles are wound as their normals say"
        assert np.allclose(np.linalg.norm(surface.normals_X3, axis=1), 1.0)
        assert surface.uvs_X2.shape == (len(surface.verts_X3), 2)
        assert surface.texture_HWC.dtype == np.uint8


def test_each_piece_of_one_colour_gets_its_own() -> None:
    green = Pattern(kind="plain", colours=((0.8, 0.1, 0.1), (0.1, 0.5, 0.1), (0.1, 0.3, 0.1)), tile_m=1.0, seed=3)
    prop = Prop(kind="plant", centre_m=(0.0, 0.0), size_m=(0.5, 1.2, 0.5), yaw_rad=0.0, pattern=green)
    (surface,) = build_props((prop,))
    side = len(surface.texture_HWC)
    column, row = (surface.uvs_X2 * side).astype(int).T
    colours = surface.texture_HWC[side - 1 - row, column].astype(int)
    low = surface.verts_X3[:, 1] < 0.3
    assert (colours[low & (np.hypot(*surface.verts_X3[:, [0, 2]].T) > 0.15), 0] > 190).all(), "the pot is red"
    assert (colours[surface.verts_X3[:, 1] > 0.8, 1] > colours[surface.verts_X3[:, 1] > 0.8, 0]).all(), (
        "leaves are green"
    )
