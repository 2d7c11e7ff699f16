import numpy as np
import pytest
import trimesh

from synthetic.looks.canvas import SKIRT_GROUP, vertex_normals
from synthetic.looks.shade import Shade
from synthetic.models.body import JOINT_NAMES, BodyModel
from synthetic.models.makehuman import PARENTS

UP = (0.0, 1.0, 0.0)
HIGH_M = np.array([0.0, 9.0, 0.0])  # so high that the floor takes nothing


def balls(gap_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Two balls of 0.1 m, the second that far above the first, middle to middle."""
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.1)
    verts, faces = np.array(ball.vertices), np.array(ball.faces)
    upper = verts + np.array([0.0, gap_m, 0.0])
    return np.concatenate([verts, upper]) + HIGH_M, np.concatenate([faces, faces + len(verts)])


def light_on(verts: np.ndarray, faces: np.ndarray, *, shadow: float = 0.0) -> np.ndarray:
    shade = Shade(verts, faces, np.zeros(len(faces), dtype=np.int64))
    weights = shade.weights(np.arange(len(faces)))
    return shade.open(verts, vertex_normals(verts, faces), weights, lamp=UP, shadow=shadow)


@pytest.mark.parametrize("shadow", [0.0, 0.9])
def test_a_ball_takes_nothing_from_itself(shadow: float) -> None:
    verts, faces = balls(1.0)
    alone = slice(len(verts) // 2), slice(len(faces) // 2)
    assert light_on(verts[alone[0]], faces[alone[1]], shadow=shadow).min() > 0.98


@pytest.mark.parametrize("gap_m", [0.3, 0.4, 0.8])
def test_a_ball_takes_its_share_of_the_sky(gap_m: float) -> None:
    """Of the top of another one: (radius / distance)^2."""
    verts, faces = balls(gap_m)
    below = verts[: len(verts) // 2]
    light = light_on(verts, faces)
    share = (0.1 / (gap_m - 0.1)) ** 2
    assert light[below[:, 1].argmax()] == pytest.approx(1.0 - 0.9 * share, abs=0.06)
    assert light[below[:, 1].argmin()] > 0.98, "what turns away loses nothing"


def test_the_lamp_is_hidden_where_a_limb_stands_before_it() -> None:
    verts, faces = balls(1.5)
    lower, half = verts[: len(verts) // 2, 1], len(verts) // 2
    light = light_on(verts, faces, shadow=0.6)
    assert light[lower.argmax()] == pytest.approx(0.4, abs=0.12)
    assert light[lower.argmin()] > 0.97, "there the lamp does not shine, so it is not missed"
    assert light[half:].min() > 0.97, "nothing stands before the upper one"


def test_open_surfaces_hide_the_lamp_from_either_side() -> None:
    x, z = np.meshgrid(np.linspace(-0.4, 0.4, 25), np.linspace(-0.4, 0.4, 25))
    sheet = np.stack([x.ravel(), np.full(x.size, 0.5), z.ravel()], axis=1) + HIGH_M
    at = np.arange(24)[:, None] * 25 + np.arange(24)
    cells = np.stack([at, at + 1, at + 25, at + 26], axis=-1).reshape(-1, 4)
    cloth = np.concatenate([cells[:, [0, 1, 2]], cells[:, [1, 3, 2]]])
    verts, faces = balls(40.0)
    half = len(verts) // 2
    verts = np.concatenate([verts[:half], sheet])
    for side in (1, -1):
        shown = np.concatenate([faces[: len(faces) // 2], (cloth + half)[:, ::side]])
        group = np.where(shown[:, 0] >= half, SKIRT_GROUP, 0)
        shade = Shade(verts, shown, group)
        light = shade.open(
            verts, vertex_normals(verts, shown), shade.weights(np.arange(len(shown))), lamp=UP, shadow=0.6
        )
        assert light[verts[:half, 1].argmax()] < 0.5
    hidden = shade.weights(np.flatnonzero(group == 0))
    assert shade.open(verts, vertex_normals(verts, shown), hidden, lamp=UP, shadow=0.6)[:half].min() > 0.95


def test_near_the_floor_less_comes_from_below() -> None:
    verts, faces = balls(40.0)
    verts = verts - HIGH_M + (0.0, 0.1, 0.0)
    half = len(verts) // 2
    light = light_on(verts, faces)[:half]
    assert light[verts[:half, 1].argmin()] < 0.5
    assert light[verts[:half, 1].argmax()] > 0.98


def test_lowered_arms_shade_the_flanks(body: BodyModel) -> None:
    shade = Shade(body.template_X3, body.faces_F3, body.face_group_F)
    weights = shade.weights(np.flatnonzero(body.face_group_F == 0))
    pose = np.zeros((2, len(PARENTS), 3))
    pose[1, JOINT_NAMES.index("left_shoulder"), 2] = -1.35
    verts = body.pose(pose, np.zeros(10), np.tile(HIGH_M, (2, 1)))[0].astype(np.float64)
    raised, lowered = (
        shade.open(v, vertex_normals(v, body.faces_F3), weights, lamp=(1.0, 0.0, 0.0), shadow=0.6) for v in verts
    )
    place = body.template_X3[body.skin_vertices]
    chest_y = body.joints_J3[JOINT_NAMES.index("spine2"), 1]
    flank = (np.abs(place[:, 1] - chest_y) < 0.05) & (np.abs(place[:, 2]) < 0.05)
    left, right = (body.skin_vertices[flank & (s * place[:, 0] > 0.09)] for s in (1, -1))
    assert lowered[left].mean() < 0.7 * raised[left].mean()
    assert lowered[right] == pytest.approx(raised[right], abs=0.02), "the other side has no arm beside it"
    again = shade.open(verts[1], vertex_normals(verts[1], body.faces_F3), weights, lamp=(1.0, 0.0, 0.0), shadow=0.6)
    assert np.array_equal(again, lowered)
