import dataclasses
import hashlib
import importlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from manifests.errors import SyntheticError
from manifests.geometry import project
from synthetic.labels import joint_visibility, silhouette_box
from synthetic.looks.wardrobe import PARTS
from synthetic.models.body import BodyModel
from synthetic.motion.library import Clip
from synthetic.render import Renderer, View
from synthetic.scene import Scene, SceneRecipe, light_lobe, sample_scene
from tests.support.silhouettes import fill_triangles

ROOT = Path(__file__).parents[2]
RECIPE = SceneRecipe(
    num_identities=3,
    scenes_per_identity=1,
    instants_per_scene=2,
    num_views=3,
    image_px=128,
    clips=("waving",),
)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(RECIPE, 0, index) for index in range(RECIPE.num_scenes)]


@pytest.fixture(scope="module")
def views(renderer: Renderer, scenes: list[Scene]) -> dict[tuple[int, int, int], View]:
    return {
        (s, i, v): renderer.render(scene, instant=i, view=v)
        for s, scene in enumerate(scenes)
        for i in range(RECIPE.instants_per_scene)
        for v in range(RECIPE.num_views)
    }


def digest(view: View) -> str:
    arrays = (
        view.rgb,
        view.silhouette,
        view.garments,
        view.parts,
        view.normals,
        view.uv,
        view.depth_m,
        view.joints_xy_px,
        view.intrinsics,
        view.box_xyxy_px,
    )
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def test_silhouettes_equal_filled_triangles(views: dict) -> None:
    for view in (views[0, 0, 0], views[1, 1, 2]):
        share = fill_triangles(
            view.posed.verts_X3, view.dressed.verts_T3, view.intrinsics, view.camera_from_world, RECIPE.image_px
        )
        assert overlap(view.silhouette, share >= 0.5) > 0.97
        assert view.silhouette[share > 0.99].all(), "no covered pixel is missing: the pixel grids agree"
        assert not view.silhouette[share < 0.01].any()
        assert ((view.alpha >= 128) == view.silhouette).all(), "a silhouette is where alpha is a half or more"
        assert np.abs(view.alpha / 255 - share).mean() < 0.005


def test_the_floor_lies_where_geometry_says(views: dict) -> None:
    view = views[0, 0, 0]
    rows, columns = np.nonzero(~view.silhouette)
    points = np.stack([columns, rows, np.ones_like(rows)]) * view.depth_m[rows, columns]
    world = np.linalg.inv(view.camera_from_world) @ np.vstack(
        [np.linalg.inv(view.intrinsics) @ points, np.ones(len(rows))]
    )
    assert (view.depth_m > 0).all(), "the room is closed"
    assert world[1].min() > -0.05
    assert (np.abs(world[1]) < 0.05).mean() > 0.1


def test_the_person_is_whole_and_large(scenes: list[Scene], views: dict) -> None:
    for (s, _, v), view in views.items():
        border = np.concatenate([view.silhouette[[0, -1]].ravel(), view.silhouette[:, [0, -1]].ravel()])
        assert not border.any()
        x0, y0, x1, y1 = view.box_xyxy_px
        assert max(x1 - x0, y1 - y0) / RECIPE.image_px == pytest.approx(scenes[s].cameras[v].person_share, abs=0.03)
        assert (
            view.silhouette[int(y0 + 0.5) : int(y1 + 0.5), int(x0 + 0.5) : int(x1 + 0.5)].sum() == view.silhouette.sum()
        )


def test_joints_project_into_the_silhouette(views: dict) -> None:
    for view in views.values():
        pixels, depth = project(view.joints_m, view.intrinsics, view.camera_from_world)
        assert np.allclose(pixels, view.joints_xy_px)
        assert (depth > 1).all()
        column, row = np.rint(pixels).astype(int).T
        assert view.silhouette[row, column].mean() > 0.95
    seen = np.stack([view.joint_visible for view in views.values()])
    assert 0.4 < seen.mean() < 1.0, "the far side of a body is hidden"


def test_parts_fill_the_silhouette_and_nothing_else(views: dict) -> None:
    for view in views.values():
        assert ((view.garments > 0) == view.silhouette).all()
        assert view.garments.max() < len(PARTS)
        counts = np.bincount(view.garments[view.silhouette], minlength=len(PARTS))
        dressed = counts[[PARTS.index("top"), PARTS.index("bottom"), PARTS.index("shoes")]].sum()
        assert dressed > 0.4 * view.silhouette.sum()


def test_views_of_one_instant_share_the_joints(views: dict) -> None:
    for s in range(RECIPE.num_identities):
        for i in range(RECIPE.instants_per_scene):
            assert len({views[s, i, v].joints_m.tobytes() for v in range(RECIPE.num_views)}) == 1
    assert views[0, 0, 0].camera_from_world.tolist() == views[0, 1, 0].camera_from_world.tolist()
    assert views[0, 0, 0].time_s != views[0, 1, 0].time_s


def test_pictures_differ_between_people_instants_and_views(views: dict) -> None:
    assert len({digest(view) for view in views.values()}) == len(views)
    mean = {s: views[s, 0, 0].rgb[views[s, 0, 0].silhouette].mean(axis=0) for s in range(3)}
    assert all(np.abs(mean[a] - mean[b]).max() > 5 for a, b in ((0, 1), (0, 2), (1, 2)))
    for view in views.values():
        assert view.rgb.std() > 15
        assert 25 < view.rgb.mean() < 230


def test_order_and_company_do_not_change_a_byte(
    renderer: Renderer, body: BodyModel, clips: dict[str, Clip], scenes: list[Scene], views: dict
) -> None:
    for s, i, v in [(2, 1, 2), (0, 0, 1), (1, 1, 0), (0, 1, 1)]:
        assert digest(renderer.render(scenes[s], instant=i, view=v)) == digest(views[s, i, v])
    second = Renderer.of_body(body, clips)  # shares the one context; both must live on
    assert digest(second.render(scenes[1], instant=0, view=0)) == digest(views[1, 0, 0])
    del second
    assert digest(renderer.render(scenes[1], instant=0, view=0)) == digest(views[1, 0, 0])


ANOTHER_PROCESS = """
import json, sys
from pathlib import Path
import numpy as np, torch
torch.set_num_threads(2)
from synthetic.models.body import load_body
from synthetic.motion.library import Clip
from synthetic.render import Renderer
from synthetic.scene import Scene
from tests.synthetic.test_render import digest
body, clip, scene = sys.argv[1:]
with np.load(clip) as data:
    clips = {"waving": Clip(name="waving", pose_TJ3=data["pose"], trans_T3=data["trans"], fps=30.0)}
view = Renderer.of_body(load_body(Path(body)), clips).render(Scene.from_json(Path(scene).read_text()), instant=1, view=1)
print(json.dumps(digest(view)))
"""


def test_another_process_renders_the_same_bytes(
    renderer: Renderer, scenes: list[Scene], clips: dict[str, Clip], body_file: Path, tmp_path: Path
) -> None:
    scene = dataclasses.replace(scenes[0], clip="waving")
    (tmp_path / "scene.json").write_text(scene.to_json())
    np.savez(tmp_path / "clip.npz", pose=clips["waving"].pose_TJ3, trans=clips["waving"].trans_T3)
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER_PROCESS, str(body_file), str(tmp_path / "clip.npz"), str(tmp_path / "scene.json")],
        env={**os.environ, "LP_NUM_THREADS": "0", "OMP_NUM_THREADS": "2"},
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == digest(renderer.render(scene, instant=1, view=1))


def test_the_lit_side_is_brighter(renderer: Renderer, scenes: list[Scene]) -> None:
    lamp = (1.0, 0.0, 0.0)
    sh = np.zeros((3, 9))
    sh[:, 0] = 0.3
    sh += 0.8 * np.array(light_lobe(lamp))
    light = dataclasses.replace(scenes[0].light, sh=tuple(map(tuple, sh.tolist())), lamp=(0.8, 0.6, 0.0))
    ahead = dataclasses.replace(scenes[0].cameras[0], azimuth_rad=0.0, elevation_rad=0.0, roll_rad=0.0)
    view = renderer.render(
        dataclasses.replace(scenes[0], light=light, cameras=(ahead,), clip="standing"), instant=0, view=0
    )
    # Seen from +z, the world's +x is on the right.
    columns = np.nonzero(view.silhouette)[1]
    middle = view.joints_xy_px[0, 0]
    trunk = (view.garments == PARTS.index("top")) & (np.abs(np.arange(RECIPE.image_px) - middle) < np.ptp(columns) / 5)
    right, left = (trunk & side for side in (np.arange(128) > middle, np.arange(128) < middle))
    assert view.rgb[right].mean() > 1.1 * view.rgb[left].mean()


def test_an_unknown_clip_and_instant_are_named(renderer: Renderer, scenes: list[Scene]) -> None:
    with pytest.raises(SyntheticError, match=r"clip 'tango'.*not loaded\n  where: clips: standing, waving"):
        renderer.render(dataclasses.replace(scenes[0], clip="tango"), instant=0, view=0)
    with pytest.raises(IndexError):
        renderer.render(scenes[0], instant=2, view=0)
    with pytest.raises(IndexError):
        renderer.render(scenes[0], instant=0, view=3)


@pytest.mark.usefixtures("renderer")
def test_opengl_tells_no_news_that_nobody_needs(caplog: pytest.LogCaptureFixture) -> None:
    """Its module says at INFO, when it is imported, that it goes without its accelerator."""
    with caplog.at_level(logging.INFO):
        importlib.reload(importlib.import_module("OpenGL.acceleratesupport"))
    assert caplog.records == []


def test_absent_egl_names_the_packages(body_file: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from synthetic.models.body import load_body; from synthetic.render import Renderer\n"
        "from manifests.errors import SyntheticError\n"
        "try: Renderer.of_body(load_body(Path(sys.argv[1])), {})\n"
        "except SyntheticError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(body_file)],
        env={**os.environ, "PYOPENGL_PLATFORM": "egl", "EGL_DEVICE_ID": "99"},
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "OpenGL without a screen cannot be opened" in done.stdout
    assert "apt-get install -y libegl1 libgl1 libgl1-mesa-dri" in done.stdout


def test_boxes_and_visibility_on_a_toy() -> None:
    silhouette = np.zeros((6, 8), dtype=bool)
    assert silhouette_box(silhouette).tolist() == [0, 0, 0, 0]
    silhouette[2:5, 3] = True
    assert silhouette_box(silhouette).tolist() == [2.5, 1.5, 3.5, 4.5]
    depth = np.full((6, 8), 3.0, dtype=np.float32)
    depth[3, 3] = 2.0
    pixels = np.array([[3.0, 2.0], [3.0, 3.0], [4.0, 3.0], [30.0, 3.0], [3.0, -9.0]])
    assert joint_visibility(pixels, np.array([3.1, 3.1, 3.1, 3.1, 3.1]), depth, silhouette).tolist() == [
        True,
        False,
        False,
        False,
        False,
    ]
