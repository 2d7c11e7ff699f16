import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from manifests.errors import SyntheticError
from synthetic.figure import Dressed, Posed
from synthetic.hand_figure import HAND21, HandFigure
from synthetic.looks.hand_look import HAND_M, MAX_RINGS, Hand, HandLook, Ring
from synthetic.looks.hand_paint import GARMENTS, GLOVE, NAIL, TEXTURE_PX, HandPainter, rasterise
from synthetic.looks.hand_wear import rim_of
from synthetic.models.hand import FINGERS, HAND_JOINT_NAMES, TIPS, HandModel, load_hand
from synthetic.patterns import Pattern
from synthetic.render import Renderer, View
from synthetic.rotations import matrix_from_axis_angle
from synthetic.scene import Scene, SceneRecipe, sample_scene
from tests.support.samples import asset
from tests.support.silhouettes import fill_triangles, ray_depth

RECIPE = SceneRecipe(
    domain="hand",
    num_identities=8,
    scenes_per_identity=2,
    instants_per_scene=3,
    num_views=3,
    image_px=128,
    elevation_min_deg=-20.0,
    elevation_max_deg=60.0,
    distance_min_m=0.4,
    distance_max_m=0.9,
)
SCENES = [sample_scene(RECIPE, 0, index) for index in range(RECIPE.num_scenes)]
GLOVE_CLOTH = Pattern(kind="dots", colours=((0.1, 0.1, 0.1), (0.9, 0.9, 0.9), (0.5, 0.1, 0.1)), tile_m=0.1, seed=1)


def hand_of(scene: Scene) -> Hand:
    assert scene.hand is not None
    return scene.hand


def with_look(scene: Scene, **changes: object) -> Scene:
    hand = hand_of(scene)
    return dataclasses.replace(scene, hand=dataclasses.replace(hand, look=dataclasses.replace(hand.look, **changes)))


def bare(scene: Scene) -> Scene:
    return with_look(scene, rings=(), watch=None, glove=None)


RIGHT, LEFT = (bare(next(scene for scene in SCENES if scene.side == side)) for side in ("right", "left"))


@pytest.fixture(scope="module")
def hands() -> dict[str, HandModel]:
    return {side: load_hand(asset(f"hand_{side}.npz")) for side in ("right", "left")}


@pytest.fixture(scope="module")
def figure(hands: dict[str, HandModel]) -> HandFigure:
    return HandFigure(**hands)


@pytest.fixture(scope="module")
def painter(hands: dict[str, HandModel]) -> HandPainter:
    return HandPainter(hands["right"])


@pytest.fixture(scope="module")
def placed(figure: HandFigure) -> Callable[[Scene, int], tuple[Dressed, Posed]]:
    def place(scene: Scene, instant: int) -> tuple[Dressed, Posed]:
        dressed = figure.dress(scene)
        return dressed, figure.pose(scene, instant, dressed)

    return place


@pytest.fixture(scope="module")
def renderer(figure: HandFigure) -> Renderer:
    try:
        return Renderer(figure)
    except SyntheticError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def views(renderer: Renderer) -> dict[tuple[str, int], View]:
    return {
        (scene.side or "", instant): renderer.render(scene, instant=instant, view=instant)
        for scene in (RIGHT, LEFT)
        for instant in (0, 1, 2)
    }


# --------------------------------------------------------------------------------------------------------------- scenes


def test_scenes_of_hands_are_data() -> None:
    for scene in SCENES:
        assert Scene.from_json(scene.to_json()) == scene
    assert {scene.side for scene in SCENES} == {"left", "right"}
    assert all(first.identity == second.identity for first, second in zip(SCENES[::2], SCENES[1::2], strict=True))
    assert all(
        hand_of(first).look == hand_of(second).look for first, second in zip(SCENES[::2], SCENES[1::2], strict=True)
    )
    assert len({hand_of(scene).look for scene in SCENES}) == RECIPE.num_identities
    assert len({hand_of(scene).seed for scene in SCENES}) == len(SCENES)
    assert len({hand_of(scene).look.skin for scene in SCENES}) == RECIPE.num_identities
    assert sample_scene(dataclasses.replace(RECIPE, num_identities=9), 0, 3) == SCENES[3]


def test_bodies_have_no_hand() -> None:
    recipe = SceneRecipe(num_identities=1)
    assert sample_scene(recipe, 0, 0).hand is None
    assert sample_scene(recipe, 0, 0).clip
    assert not SCENES[0].clip


@pytest.mark.parametrize("rig", ["ring", "dome"])
def test_no_camera_stands_in_the_arm(placed: Callable, rig: str) -> None:
    many = dataclasses.replace(RECIPE, num_views=9, num_identities=4, scenes_per_identity=1, rig=rig)
    for index in range(4):
        scene = sample_scene(many, 2, index)
        dressed, posed = placed(scene, 0)
        for camera in scene.cameras:
            assert np.linalg.norm(posed.verts_X3[dressed.shown_N] - camera.eye_m, axis=1).min() > 0.08


def test_cameras_stand_around_the_hand() -> None:
    for scene in SCENES:
        arm = np.array(hand_of(scene).arm)
        assert np.linalg.norm(arm) == pytest.approx(1.0)
        for camera in scene.cameras:
            eye = camera.eye_m - HAND_M
            assert 0.4 <= np.linalg.norm(eye) <= 0.9
            assert eye @ arm / np.linalg.norm(eye) < np.cos(0.5), "no camera looks along the arm"


@pytest.mark.parametrize(("grasps", "duration_s"), [(1, 2.0), (2, 0.0)])
def test_movements_that_are_none_are_refused(grasps: int, duration_s: float) -> None:
    with pytest.raises(ValueError, match="a movement has 2 grasps or more and lasts"):
        dataclasses.replace(hand_of(RIGHT), grasps=grasps, duration_s=duration_s)


@pytest.mark.parametrize("field", ["body", "motion"])
def test_what_only_bodies_have_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"domain hand renders hands alone: leave {field} here out"):
        dataclasses.replace(RECIPE, **{field: "here"})


def test_looks_are_varied() -> None:
    recipe = dataclasses.replace(RECIPE, num_identities=120, scenes_per_identity=1)
    looks = [hand_of(sample_scene(recipe, 1, index)).look for index in range(120)]
    assert 0.03 < np.mean([look.glove is not None for look in looks]) < 0.25
    assert 0.1 < np.mean([look.watch is not None for look in looks]) < 0.4
    assert 0.3 < np.mean([bool(look.rings) for look in looks]) < 0.7
    assert 0.1 < np.mean([look.polish for look in looks]) < 0.4
    assert np.ptp([np.mean(look.skin) for look in looks]) > 0.4
    assert all(look.sleeve_m >= 0.05 for look in looks if look.watch), "the sleeve does not hide the watch"
    assert all(look.sleeve_m <= 0.03 and not look.rings for look in looks if look.glove), (
        "the sleeve hides the glove's end"
    )


# ---------------------------------------------------------------------------------------------------------------- poses


@pytest.mark.parametrize("scene", [RIGHT, LEFT], ids=["right", "left"])
def test_parameters_give_the_vertices(hands: dict[str, HandModel], placed: Callable, scene: Scene) -> None:
    for instant in range(3):
        _, posed = placed(scene, instant)
        model = hands[scene.side]
        pose = np.concatenate([posed.parameters["global_orient"], posed.parameters["hand_pose"]]).reshape(1, 16, 3)
        verts, joints = model.pose(pose, posed.parameters["betas"], posed.parameters["transl"][None])
        assert np.allclose(posed.verts_X3[: len(verts[0])], verts[0], atol=1e-5)
        assert np.allclose(posed.joints_J3, joints[0], atol=1e-5)
        rest = model.pose(np.zeros((1, 16, 3)), posed.parameters["betas"], np.zeros((1, 3)))[1][0, 0]
        assert np.allclose(posed.root_3, rest, atol=1e-6), "the root stays where it is at rest"


def test_keypoints_are_freihands(hands: dict[str, HandModel], placed: Callable) -> None:
    _, posed = placed(LEFT, 1)
    named = dict(zip(HAND21, posed.keypoints["hand21"], strict=True))
    joints = dict(zip(HAND_JOINT_NAMES, posed.joints_J3, strict=True))
    assert list(named)[::4] == ["wrist", "thumb_tip", "index_tip", "middle_tip", "ring_tip", "pinky_tip"]
    for name, place in named.items():
        if not name.endswith("tip"):
            assert np.array_equal(place, joints[name])
    for finger, vertex in zip(TIPS, hands["left"].tip_vertices, strict=True):
        assert np.array_equal(named[f"{finger}_tip"], posed.verts_X3[vertex])
        assert 0.01 < np.linalg.norm(named[f"{finger}_tip"] - named[f"{finger}3"]) < 0.045


def test_the_arm_points_where_the_scene_says(placed: Callable) -> None:
    for scene in SCENES[::3]:
        dressed, posed = placed(scene, 0)
        worn = posed.verts_X3[np.unique(dressed.verts_T3[dressed.num_own :])] - posed.joints_J3[0]
        away = np.linalg.norm(worn, axis=1)
        forearm = worn[(away > 0.15) & (away < 0.24)].mean(axis=0)
        assert forearm @ hand_of(scene).arm / np.linalg.norm(forearm) > np.cos(0.45), "but for a sway"
        shoulder = worn[away.argmax()]
        assert shoulder[1] > forearm[1] * shoulder @ hand_of(scene).arm / np.linalg.norm(forearm), "the upper arm rises"
        palm = posed.joints_J3[[0, 1, 4, 7, 10, 13]].mean(axis=0)
        assert np.linalg.norm(palm - HAND_M) < 0.1


def test_movement_is_smooth_and_goes_far(figure: HandFigure, hands: dict[str, HandModel]) -> None:
    phases = tuple(np.linspace(0.0, 1.0, 61)[:-1].tolist())
    far = []
    for scene in (RIGHT, LEFT):
        fine = dataclasses.replace(scene, phases=phases)
        dressed = figure.dress(fine)
        posed = [figure.pose(fine, instant, dressed) for instant in range(60)]
        local = np.stack([p.parameters["hand_pose"].reshape(15, 3) for p in posed])
        full = np.concatenate([np.zeros((60, 1, 3)), local], axis=1)
        assert not hands[scene.side].collides(full).any()
        tips = np.stack([p.keypoints["hand21"][4::4] for p in posed])
        wrists = np.stack([p.keypoints["hand21"][0] for p in posed])
        assert np.linalg.norm(np.diff(wrists, axis=0), axis=1).max() < 0.02
        assert np.median(np.linalg.norm(np.diff(tips, axis=0), axis=2)) < 0.01
        far.append(np.linalg.norm(tips - tips[0], axis=2).max())
        times = [p.time_s for p in posed]
        assert np.allclose(np.diff(times), hand_of(scene).duration_s / 60)
    assert max(far) > 0.06


def test_poses_go_by_the_dress_that_they_are_given(figure: HandFigure) -> None:
    first = figure.dress(RIGHT)
    before = figure.pose(RIGHT, 0, first).verts_X3
    figure.dress(LEFT)
    assert np.array_equal(figure.pose(RIGHT, 0, first).verts_X3, before), "others who dress the figure change nothing"
    with pytest.raises(IndexError):
        figure.pose(LEFT, 3, figure.dress(LEFT))


# ------------------------------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize("scene", [RIGHT, LEFT], ids=["right", "left"])
def test_there_is_no_cut(figure: HandFigure, placed: Callable, scene: Scene) -> None:
    dressed, posed = placed(scene, 0)
    edges = np.concatenate([dressed.verts_T3[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    of_face = np.tile(dressed.faces_T, 3)
    faces_at: dict[tuple[int, int], list[int]] = {}
    for edge, face in zip(np.sort(edges, axis=1).tolist(), of_face.tolist(), strict=True):
        faces_at.setdefault(tuple(edge), []).append(face)
    own = {edge for edge, faces in faces_at.items() if any(figure.part_F[face] for face in faces)}
    assert all(len(faces_at[edge]) == 2 for edge in own), "the skin goes on into the forearm"
    open_edges = np.array([edge for edge, faces in faces_at.items() if len(faces) == 1])
    along = np.array(hand_of(scene).arm)
    depth = (posed.verts_X3[np.unique(open_edges)] - posed.joints_J3[0]) @ along
    start = hand_of(scene).look.sleeve_m
    assert (depth > start - 0.012).all(), "what is open lies in the sleeve, or is its edge"


@pytest.mark.parametrize("scene", [RIGHT, LEFT], ids=["right", "left"])
def test_faces_look_outwards(placed: Callable, scene: Scene) -> None:
    dressed, posed = placed(scene, 1)
    corners = posed.verts_X3[dressed.verts_T3] - posed.joints_J3[0]
    signed_m3 = np.einsum("ta,ta->t", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    assert 1.5e-4 < signed_m3[: dressed.num_own].sum() < 6e-4, "of the hand"
    assert signed_m3[dressed.num_own :].sum() > 1e-4, "of forearm and sleeve"
    assert np.allclose(np.linalg.norm(posed.normals_X3[np.unique(dressed.verts_T3)], axis=1), 1.0)


def sky_seen(place: np.ndarray, normal: np.ndarray, corners: np.ndarray, gazes: np.ndarray) -> float:
    """The share of an even light that reaches a point of a surface, by rays (N, 3) against triangles (T, 3, 3)."""
    gazes = gazes[gazes @ normal > 0.05]
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    cross = np.cross(gazes[:, None], ac)
    scale = np.einsum("ntc,tc->nt", cross, ab)
    scale = np.where(np.abs(scale) < 1e-12, 1e-12, scale)
    start = place + 2e-3 * normal - a
    u = np.einsum("ntc,tc->nt", cross, start) / scale
    other = np.cross(start, ab)
    v, t = (gazes @ other.T) / scale, (other * ac).sum(axis=1) / scale
    hidden = ((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)).any(axis=1)
    weight = gazes @ normal
    return float(weight[~hidden].sum() / weight.sum())


def test_light_is_missing_where_rays_are_stopped(placed: Callable) -> None:
    rng = np.random.default_rng(0)
    gazes = rng.normal(size=(160, 3))
    gazes /= np.linalg.norm(gazes, axis=1, keepdims=True)
    told, traced = [], []
    for scene in (RIGHT, LEFT):
        for instant in (0, 2):
            dressed, posed = placed(scene, instant)
            own = dressed.verts_T3[: dressed.num_own]
            for vertex in rng.choice(np.unique(own), 40, replace=False):
                told.append(posed.open_X[vertex])
                traced.append(sky_seen(posed.verts_X3[vertex], posed.normals_X3[vertex], posed.verts_X3[own], gazes))
            assert posed.open_X.min() >= 0.3
            assert posed.open_X.max() <= 1.0
    assert np.corrcoef(told, traced)[0, 1] > 0.6
    assert np.mean(told) == pytest.approx(np.mean(traced), abs=0.15)


def test_rings_sit_on_their_fingers(hands: dict[str, HandModel], placed: Callable) -> None:
    plain, _ = placed(RIGHT, 0)
    for finger in FINGERS:
        ring = Ring(side="right", finger=finger, at=0.7, width_m=0.004, colour=(0.8, 0.7, 0.3))
        elsewhere = dataclasses.replace(ring, side="left")
        for instant in (0, 2):
            dressed, posed = placed(with_look(RIGHT, rings=(ring, elsewhere)), instant)
            assert len(dressed.faces_T) - len(plain.faces_T) == 2 * 3 * 32, "one ring, that of this hand"
            band = posed.verts_X3[np.unique(dressed.verts_T3[np.isin(dressed.faces_T, plain.faces_T, invert=True)])]
            named = dict(zip(HAND21, posed.keypoints["hand21"], strict=True))
            a, b = (named[f"{finger}{knuckle}"] for knuckle in ((2, 3) if finger == "thumb" else (1, 2)))
            along = (b - a) / np.linalg.norm(b - a)
            share = (band - a) @ along / np.linalg.norm(b - a)
            assert 0.55 < share.min() < share.max() < 0.85
            from_middle = band - band.mean(axis=0)
            radius = np.linalg.norm(from_middle - np.outer(from_middle @ along, along), axis=1)
            assert 0.005 < radius.min() < radius.max() < 0.02, finger
            skin = posed.framed_M3[np.abs((posed.framed_M3 - band.mean(axis=0)) @ along) < 0.003]
            inside = np.linalg.norm(skin - band.mean(axis=0), axis=1)
            assert (inside < radius.max()).sum() > 4, "around skin"


def test_watches_and_gloves_are_worn(figure: HandFigure, placed: Callable) -> None:
    plain, _ = placed(RIGHT, 0)
    watched = next(
        scene for scene in (sample_scene(RECIPE, seed, 0) for seed in range(60)) if hand_of(scene).look.watch
    )
    watch = hand_of(watched).look.watch
    assert watch is not None
    on = with_look(RIGHT, watch=dataclasses.replace(watch, side="right"), sleeve_m=0.07)
    dressed, posed = placed(on, 0)
    extra = np.isin(dressed.faces_T, plain.faces_T, invert=True)
    place = posed.verts_X3[np.unique(dressed.verts_T3[extra])]
    assert np.linalg.norm(place - posed.joints_J3[0], axis=1).max() < 0.07
    assert not np.isin(
        placed(with_look(on, watch=dataclasses.replace(watch, side="left")), 0)[0].faces_T, dressed.faces_T[extra]
    ).any()
    gloved, in_glove = placed(with_look(RIGHT, glove=GLOVE_CLOTH), 0)
    naked = placed(RIGHT, 0)[1]
    num = len(figure.template_X3) - (len(figure.template_X3) - len(in_glove.framed_M3))
    thick = np.linalg.norm(in_glove.verts_X3[:num] - naked.verts_X3[:num], axis=1)
    assert 0.001 < np.median(thick) < 0.002
    assert np.allclose(in_glove.joints_J3, naked.joints_J3)
    assert (gloved.texture_SS4[..., 3] == GLOVE).any()
    assert not (gloved.texture_SS4[..., 3] == NAIL).any()


# ---------------------------------------------------------------------------------------------------------------- paint


def test_texels_lie_on_their_faces() -> None:
    corners = np.array([[[0.1, 0.1], [0.6, 0.1], [0.1, 0.6]], [[0.7, 0.7], [0.9, 0.75], [0.8, 0.95]]])
    face, weights, (empty, copied) = rasterise(corners, 64)
    for index in (0, 1):
        at = np.flatnonzero(face == index)
        place = weights[at] @ corners[index] * 64 - 0.5
        texel = np.stack([at % 64, at // 64], axis=1)
        assert np.abs(place - texel).max() < 0.75
        assert np.median(np.abs(place - texel)) < 1e-9
    assert (face == 0).sum() == pytest.approx(0.125 * 64 * 64, rel=0.1)
    assert (face[empty] == -1).all()
    assert (face[copied] >= 0).all()


def test_five_nails_on_the_backs_of_the_tips(hands: dict[str, HandModel], painter: HandPainter) -> None:
    right = hands["right"]
    texture = painter.paint(hand_of(RIGHT).look, "right")
    kind = texture[..., 3].ravel()
    face, weights, _ = rasterise(painter.uvs_U2[right.face_uvs_F3], TEXTURE_PX)
    nail = np.flatnonzero((kind == NAIL) & (face >= 0))
    points = np.einsum("nk,nkc->nc", weights[nail], right.template_X3[right.faces_F3[face[nail]]])
    tips = right.template_X3[right.tip_vertices]
    finger = np.linalg.norm(points[:, None] - tips, axis=2).argmin(axis=1)
    for index, name in enumerate(TIPS):
        of_finger = points[finger == index]
        last = right.joints_J3[HAND_JOINT_NAMES.index(f"{name}3")]
        assert 0.006 < np.ptp(of_finger, axis=0).max() < 0.02, name
        assert (np.linalg.norm(of_finger - tips[index], axis=1) < np.linalg.norm(of_finger - last, axis=1)).mean() > 0.8
        if name != "thumb":
            assert (of_finger[:, 1] > last[1] - 0.006).all(), "on the back"
    used = {GARMENTS[index] for index in np.unique(kind)}
    assert used == {"background", "skin", "nail", "sleeve"}


def test_palms_are_paler_than_backs_of_dark_hands(hands: dict[str, HandModel], painter: HandPainter) -> None:
    right = hands["right"]
    face, weights, _ = rasterise(painter.uvs_U2[right.face_uvs_F3], TEXTURE_PX)
    at = np.flatnonzero(face >= 0)
    points = np.einsum("nk,nkc->nc", weights[at], right.template_X3[right.faces_F3[face[at]]])
    flat = (np.abs(points[:, 0] + 0.06) < 0.03) & (np.abs(points[:, 2]) < 0.02)
    middle = np.median(points[flat, 1])
    ratio = []
    for skin in ((0.33, 0.21, 0.15), (0.93, 0.78, 0.68)):
        look: HandLook = dataclasses.replace(hand_of(RIGHT).look, skin=skin)
        rgb = painter.paint(look, "right").reshape(-1, 4)[at, :3].astype(float)
        ratio.append(rgb[flat & (points[:, 1] < middle)].mean() / rgb[flat & (points[:, 1] > middle)].mean())
    assert ratio[0] > 1.4
    assert 0.9 < ratio[1] < 1.2


def test_paint_follows_the_seed_and_the_years(painter: HandPainter) -> None:
    look = dataclasses.replace(hand_of(RIGHT).look, age=0.0)
    first = painter.paint(look, "right")
    assert np.array_equal(painter.paint(look, "right"), first)
    assert not np.array_equal(painter.paint(dataclasses.replace(look, seed=look.seed + 1), "right"), first)
    old = painter.paint(dataclasses.replace(look, age=1.0), "right")
    skin = first[..., 3] == GARMENTS.index("skin")
    darker = first[skin].astype(int)[:, 1] - old[skin].astype(int)[:, 1]
    assert darker.max() > 30, "creases deepen"
    assert np.median(np.abs(darker)) <= 1, "and nothing else changes"


# --------------------------------------------------------------------------------------------------------------- render


def test_the_silhouette_is_the_hand_and_nothing_worn_beside_it(
    renderer: Renderer, views: dict[tuple[str, int], View]
) -> None:
    for (side, instant), view in views.items():
        dressed, posed = view.dressed, view.posed
        own, worn = dressed.verts_T3[: dressed.num_own], dressed.verts_T3[dressed.num_own :]
        share = fill_triangles(posed.verts_X3, own, view.intrinsics, view.camera_from_world, RECIPE.image_px)
        assert not view.silhouette[share < 0.01].any(), (side, instant)
        assert ((view.parts > 0) == view.silhouette).all()
        assert view.parts.max() <= 16
        rows, columns = np.nonzero((share > 0.99) & ~view.silhouette)
        for row, column in list(zip(rows, columns, strict=True))[:10]:  # the sleeve is in front
            at, camera = np.array([column, row]), (view.intrinsics, view.camera_from_world)
            assert ray_depth(at, posed.verts_X3, worn, *camera) < ray_depth(at, posed.verts_X3, own, *camera)
        assert (view.silhouette & (share > 0.5)).sum() > 0.8 * (share > 0.5).sum()
        border = np.concatenate([view.silhouette[[0, -1]].ravel(), view.silhouette[:, [0, -1]].ravel()])
        assert not border.any(), "the hand is whole"


def test_the_forearm_leaves_the_image(views: dict[tuple[str, int], View]) -> None:
    """Skin and cloth go on to the border: what is nearer than the room and no hand touches the image's edge."""
    touching = 0
    for view in views.values():
        border = np.zeros_like(view.silhouette)
        border[[0, -1]], border[:, [0, -1]] = True, True
        touching += bool((border & (view.depth_m < 1.3)).any())
    assert touching >= len(views) - 1


def test_hidden_keypoints_are_those_behind_the_surface(views: dict[tuple[str, int], View]) -> None:
    agree = []
    for view in views.values():
        points = view.posed.keypoints["hand21"]
        depth = points @ view.camera_from_world[2, :3] + view.camera_from_world[2, 3]
        for (x, y, seen), along in zip(view.keypoints_px["hand21"], depth, strict=True):
            first = ray_depth(
                np.array([x, y]), view.posed.verts_X3, view.dressed.verts_T3, view.intrinsics, view.camera_from_world
            )
            agree.append(bool(seen) == (along - first < HandFigure.limb_m and np.isfinite(first)))
        assert 4 < view.keypoints_px["hand21"][:, 2].sum() <= 21
    assert np.mean(agree) > 0.9
    hidden = np.mean([1 - view.keypoints_px["hand21"][:, 2].mean() for view in views.values()])
    assert 0.05 < hidden < 0.7


def test_camera_parameters_pose_the_hand_in_the_camera(
    hands: dict[str, HandModel], views: dict[tuple[str, int], View]
) -> None:
    for (side, _), view in views.items():
        own = view.parameters
        pose = np.concatenate([own["global_orient"], own["hand_pose"]]).reshape(1, 16, 3)
        joints = hands[side].pose(pose, own["betas"], own["transl"][None])[1][0]
        pixels = joints @ view.intrinsics.T
        assert np.abs(pixels[:, :2] / pixels[:, 2:] - view.joints_xy_px).max() < 0.05


def test_hands_of_one_scene_change_clothes_by_side(renderer: Renderer) -> None:
    other = dataclasses.replace(RIGHT, side="left")
    first, second = (renderer.render(scene, instant=0, view=0).rgb for scene in (RIGHT, other))
    assert not np.array_equal(first, second)
    assert np.array_equal(renderer.render(RIGHT, instant=0, view=0).rgb, first)


# --------------------------------------------------------------------------------------------------------------- errors


def test_what_cannot_be_rendered_says_why(figure: HandFigure, hands: dict[str, HandModel]) -> None:
    with pytest.raises(SyntheticError, match=r'(?s)of a body, not of a hand.*scene 0.*domain="hand"'):
        figure.dress(sample_scene(SceneRecipe(num_identities=1), 0, 0))
    with pytest.raises(SyntheticError, match=r"(?s)two hands are not one person's.*right, right.*--side left"):
        HandFigure(hands["right"], hands["right"])
    mano = load_hand(asset("hand_right.npz"))
    mano.uvs_U2 = mano.uvs_U2[:0]
    with pytest.raises(SyntheticError, match=r"(?s)no texture coordinates.*render with the free hands"):
        HandFigure(mano, hands["left"])
    ring = Ring(side="left", finger="ring", at=0.5, width_m=0.004, colour=(1, 1, 1))
    with pytest.raises(ValueError, match="wears 3 rings at most, got 4"):
        with_look(RIGHT, rings=(ring,) * (MAX_RINGS + 1))


def test_bent_arms_stay_in_one_piece(figure: HandFigure, hands: dict[str, HandModel]) -> None:
    from synthetic.hand_figure import _bent

    rest = figure.dress(RIGHT).worn
    across = np.cross(rest.along, [0.0, 1.0, 0.0])
    across /= np.linalg.norm(across)
    bent = _bent(rest.verts_E3, rest.along, *matrix_from_axis_angle(np.array([[0.4], [1.5]]) * across))
    around = len(rim_of(hands["right"]))
    rings = [
        verts[10 * around : 42 * around].reshape(32, around, 3)[2:-2] for verts in (rest.verts_E3, bent)
    ]  # the sleeve's
    sizes = [np.linalg.norm(np.roll(ring, 1, axis=1) - ring, axis=2) for ring in rings]
    assert np.allclose(sizes[0], sizes[1], rtol=0.03), "rings keep their form"
    steps, middles = np.diff(rings[1], axis=0), np.diff(rings[1].mean(axis=1), axis=0)
    ahead = np.einsum("mrc,mc->mr", steps, middles) / np.square(middles).sum(axis=1)[:, None]
    assert ahead.min() > 0.05, "and none is pushed through its neighbour"
    assert np.abs(bent - rest.verts_E3).max() > 0.05


def test_arms_bend_at_the_wrist_and_the_elbow_and_are_straight_between() -> None:
    from synthetic.hand_figure import _bent

    line = np.linspace(0.0, 0.55, 56)[:, None] * np.array([1.0, 0.0, 0.0])
    bent = _bent(line, np.array([1.0, 0.0, 0.0]), *matrix_from_axis_angle(np.array([[0.0, 0.3, 0.0], [0.0, 1.3, 0.0]])))
    gaze = np.diff(bent, axis=0) / np.linalg.norm(np.diff(bent, axis=0), axis=1, keepdims=True)
    forearm, upper = gaze[8:19], gaze[30:]
    assert np.ptp(forearm, axis=0).max() < 1e-6
    assert np.ptp(upper, axis=0).max() < 1e-6
    assert np.arccos(forearm[0] @ upper[0]) == pytest.approx(1.3, abs=0.01)
    assert np.arccos(forearm[0] @ [1.0, 0.0, 0.0]) == pytest.approx(0.3, abs=0.01)
