import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthetic.looks.look import chance_of_woman
from synthetic.scene import Scene, SceneRecipe, light_lobe, sample_scene

RECIPE = SceneRecipe(num_identities=40, scenes_per_identity=3)
SCENES = st.builds(sample_scene, st.just(RECIPE), st.integers(0, 5), st.integers(0, RECIPE.num_scenes - 1))


@given(SCENES)
def test_json_round_trip(scene: Scene) -> None:
    assert Scene.from_json(scene.to_json()) == scene
    assert Scene.from_json(scene.to_json()).to_json() == scene.to_json()


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"index": 1}', "nonsense"])
def test_other_texts_are_no_scene(text: str) -> None:
    with pytest.raises(ValueError, match=r"no scene|Expecting value"):
        Scene.from_json(text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"height_m"', '"higth_m"', "did you mean `height_m`"),
        ('"image_px": 256', '"image_px": "256"', "'256' is not a whole number"),
        ('"skirt": ', '"skirt": "no", "was": ', "was|'no' is not true or false"),
        ('"hair": "', '"hair": "un', "hair must be of"),
    ],
)
def test_a_damaged_scene_is_refused_by_name(old: str, new: str, message: str) -> None:
    text = sample_scene(RECIPE, 0, 0).to_json()
    assert old in text
    with pytest.raises(ValueError, match=message):
        Scene.from_json(text.replace(old, new))


def test_one_person_keeps_its_looks_and_changes_rooms() -> None:
    scenes = [sample_scene(RECIPE, 0, index) for index in range(9)]
    for person in range(3):
        mine = scenes[3 * person : 3 * person + 3]
        assert {(scene.identity, scene.betas, scene.look) for scene in mine} == {
            (f"p{person:04d}", mine[0].betas, mine[0].look)
        }
        assert len({scene.room for scene in mine}) == len({scene.cameras for scene in mine}) == 3
    assert len({scene.look for scene in scenes}) == len({scene.betas for scene in scenes}) == 3


def test_looks_are_clearly_distinct() -> None:
    looks = [sample_scene(RECIPE, 0, 3 * person).look for person in range(40)]
    assert len({look.hair for look in looks}) >= 5
    assert len({look.top.pattern.kind for look in looks}) >= 5
    colours = np.array([[*look.top.pattern.colours[0], *look.bottom.pattern.colours[0], *look.skin] for look in looks])
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 9 * np.eye(40)
    assert distance.min() > 0.03
    assert np.median(distance.min(axis=1)) > 0.15


def test_looks_are_those_of_the_body_that_wears_them() -> None:
    people = [sample_scene(RECIPE, 0, 3 * person) for person in range(40)]
    chances = {scene.identity: chance_of_woman(scene.betas) for scene in people}
    for scene in people:
        assert scene.look.beard == "none" or chances[scene.identity] < 1.0
        assert scene.look.skirt in ("none", "coat") or chances[scene.identity] > 0.0
    hands = dataclasses.replace(RECIPE, domain="hand", distance_min_m=0.4, distance_max_m=0.9)
    own = dataclasses.replace(RECIPE, body="smpl.npz")
    looks = [[sample_scene(recipe, 0, 3 * person).look for person in range(12)] for recipe in (hands, own, RECIPE)]
    assert looks[0] == looks[1] != looks[2], "the shapes of other models tell nothing"


def test_more_people_start_with_the_same_people() -> None:
    more = dataclasses.replace(RECIPE, num_identities=80)
    assert sample_scene(more, 3, 17) == sample_scene(RECIPE, 3, 17)
    assert sample_scene(RECIPE, 4, 17) != sample_scene(RECIPE, 3, 17)


@given(SCENES)
def test_cameras_stand_in_the_room_before_the_furniture(scene: Scene) -> None:
    half = np.array(scene.room.half_m)
    reach = max(np.hypot(camera.eye_m[0], camera.eye_m[2]) for camera in scene.cameras)
    for camera in scene.cameras:
        assert (np.abs(camera.eye_m[[0, 2]]) < half).all()
        assert 0.1 <= camera.eye_m[1] < scene.room.height_m
    for prop in scene.room.furniture:
        depth = prop.size_m[2]
        nearest = max(abs(c) for c, h in zip(prop.centre_m, half, strict=True) if abs(abs(c) - h) < depth) - depth / 2
        assert nearest > reach - 0.1, "no furniture comes between a camera and the person"
    assert list(scene.phases) == sorted(scene.phases)
    assert all(0 <= phase < 1 for phase in scene.phases)


def test_each_kind_of_recipe_draws_scenes_that_round_trip() -> None:
    changes: list[dict[str, object]] = [
        {"rig": "dome", "elevation_max_deg": 75.0, "num_occluders": 2},
        {"rig": "surreal", "num_occluders": 1},
        {"rig": "random", "framing": "mixed", "distance_max_m": 10.0, "elevation_min_deg": -4.0},
        {"noise": 0.1, "jpeg": 40, "blur": 3.0, "white_balance": 0.2, "framing": "hands"},
    ]
    for change in changes:
        recipe = dataclasses.replace(RECIPE, **change)
        for index in range(12):
            scene = sample_scene(recipe, 0, index)
            assert Scene.from_json(scene.to_json()) == scene
            assert sample_scene(dataclasses.replace(recipe, num_identities=99), 0, index) == scene
            eyes = np.array([camera.eye_m for camera in scene.cameras])
            assert (np.abs(eyes[:, [0, 2]]) < np.array(scene.room.half_m) - 0.6).all(), "a room grows with its cameras"
            assert (eyes[:, 1] < scene.room.height_m).all()
            assert (eyes[:, 1] >= 0.1).all()


def test_close_ups_are_mixed_and_name_their_hand() -> None:
    mixed = dataclasses.replace(RECIPE, framing="mixed")
    scenes = [sample_scene(mixed, 0, index) for index in range(RECIPE.num_scenes)]
    share = {word: np.mean([scene.framing == word for scene in scenes]) for word in ("full", "upper", "hands")}
    assert 0.35 < share["full"] < 0.65
    assert 0.18 < share["upper"] < 0.42
    assert 0.1 < share["hands"] < 0.32
    assert all((scene.side is not None) == (scene.framing == "hands") for scene in scenes)
    assert {scene.side for scene in scenes} == {None, "left", "right"}
    plain = sample_scene(RECIPE, 0, 5)
    assert (plain.framing, plain.side, plain.occluders, plain.sensor) == ("full", None, (), None)


def test_switches_change_nothing_else() -> None:
    more = dataclasses.replace(RECIPE, num_occluders=2, noise=0.1, framing="hands")
    plain, changed = sample_scene(RECIPE, 0, 7), sample_scene(more, 0, 7)
    assert changed.occluders
    assert changed.sensor is not None
    assert changed.sensor.noise == 0.1
    back = dataclasses.replace(changed, occluders=(), sensor=None, framing="full", side=None)
    assert back == plain
    assert changed.sensor.seed != getattr(sample_scene(more, 0, 8).sensor, "seed", None)


@given(SCENES)
def test_light_is_never_black_or_blinding(scene: Scene) -> None:
    normals = np.random.default_rng(0).normal(size=(500, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    x, y, z = normals.T
    order = np.stack([np.full_like(x, 0.282095), 0.488603 * y, 0.488603 * z, 0.488603 * x, 1.092548 * x * y, 1.092548 * y * z, 0.315392 * (3 * z * z - 1), 1.092548 * x * z, 0.546274 * (x * x - y * y)])  # fmt: skip
    band = np.array([np.pi, *[2 * np.pi / 3] * 3, *[np.pi / 4] * 5])  # cosine lobe, Ramamoorthi and Hanrahan 2001
    light = np.array(scene.light.sh) * band @ order
    assert light.max() < 1.9
    assert np.median(light) > 0.15
    facing = light.mean(axis=0)[normals @ scene.light.lamp > 0.8].mean()
    away = light.mean(axis=0)[normals @ scene.light.lamp < -0.8].mean()
    assert facing > away, "the lamp's side is the bright side"
    assert np.linalg.norm(scene.light.lamp) == pytest.approx(1.0)


def test_light_lobe_is_orthonormal() -> None:
    directions = np.random.default_rng(0).normal(size=(200_000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    values = np.array(light_lobe(tuple(directions.T)), dtype=object)
    values = np.stack([np.broadcast_to(v, len(directions)).astype(float) for v in values])
    assert np.allclose(values @ values.T / len(directions) * 4 * np.pi, np.eye(9), atol=0.03)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_identities": 0}, "num_identities must be at least 1"),
        ({"num_views": 0}, "num_views"),
        ({"num_identities": 10**12}, r"are [\d,]+,000 scenes: at most 5,000,000 go into one recipe"),
        ({"num_identities": 5_000_001, "scenes_per_identity": 1}, "are 5,000,001 scenes"),
        ({"image_px": 8}, "image_px must lie in"),
        ({"person_share_max": 1.2}, "the person would be cut"),
        ({"person_share_min": 0.9, "person_share_max": 0.8}, "person shares"),
        ({"elevation_min_deg": -80.0}, "elevations must satisfy"),
        ({"elevation_min_deg": -12.0, "distance_max_m": 5.5}, "stands below the floor"),
        ({"distance_max_m": 12.0}, "distances must satisfy 2.2 <= min <= max <= 10 metres for domain body"),
        ({"elevation_min_deg": -30.0}, "stands below the floor"),
        ({"domain": "hand"}, "0.25 <= min <= max <= 2 metres for domain hand: give distance_min_m"),
        ({"domain": "face"}, "domain must be one of body, hand, got 'face'"),
        ({"rig": "circle"}, "rig must be one of ring, dome, random, surreal, got 'circle'"),
        ({"framing": "head"}, "framing must be one of full, upper, hands, mixed"),
        ({"rig": "dome"}, "give elevation_max_deg of 45 to 75"),
        ({"rig": "surreal", "distance_max_m": 6.0}, "level cameras about 8 m from a body: leave distance_max_m out"),
        ({"backgrounds": "photos"}, "set background to what backgrounds holds"),
        ({"background": "images"}, "background images needs a folder: give backgrounds"),
        ({"annotations": "coco.json"}, "they go with background images only"),
        ({"background": "images", "backgrounds": "photos", "num_occluders": 1}, "set num_occluders to 0"),
        ({"textures": "textures"}, "give textures, uv and body"),
        ({"textures": "textures", "uv": "smpl_uv.obj"}, "give textures, uv and body"),
        (
            {"domain": "hand", "distance_min_m": 0.4, "distance_max_m": 0.9, "framing": "upper"},
            "domain hand renders hands alone: leave framing upper out",
        ),
        ({"num_occluders": -1}, r"num_occluders must lie in \[0, 8\]"),
        ({"noise": 2.0}, r"noise must lie in \[0, 0.3\], got 2"),
        ({"blur": -1.0}, "blur must lie in"),
        ({"jpeg": 100}, "jpeg must lie in"),
        ({"white_balance": 1.0}, "white_balance must lie in"),
        ({"labels": ("parts", "flow")}, "labels must be different names of parts, depth, normals, uv"),
        ({"labels": ("uv", "uv")}, "labels must be different names"),
        ({"clips": ()}, "clips must be different names"),
        ({"clips": ("walk", "walk")}, "clips must be different names"),
    ],
)
def test_contradictory_recipes_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPE, **change)


@pytest.mark.parametrize("index", [-1, RECIPE.num_scenes])
def test_there_is_no_scene_outside(index: int) -> None:
    with pytest.raises(ValueError, match=r"scene must lie in \[0, 120\)"):
        sample_scene(RECIPE, 0, index)
