import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from manifests.errors import SyntheticError
from manifests.types import Domain
from pipeline.labels import label_columns
from synthetic.hand_figure import HandFigure
from synthetic.models.body import build_body, load_body
from synthetic.models.hand import build_hands, load_hand
from synthetic.motion.library import load_clip
from synthetic.render import Renderer
from synthetic.scene import SceneRecipe, sample_scene
from tests.support.clips import waving, write_clip
from training.examples.base import About, Example

ASSETS = Path(os.environ.get("CROSSPOSE_ASSETS") or Path(__file__).parents[3] / "assets")


@pytest.fixture(scope="session")
def assets(tmp_path_factory):
    """The models that `make fetch` built, or models built now, which takes half a minute."""
    if all((ASSETS / name).exists() for name in ("body.npz", "hand_right.npz", "hand_left.npz")):
        return ASSETS
    folder = tmp_path_factory.mktemp("assets")
    build_body(folder / "body.npz")
    build_hands(folder / "hand_right.npz", folder / "hand_left.npz")
    return folder


@pytest.fixture(scope="session")
def rendered(assets):
    """By domain: views of rendered people or hands of both sides, and what tasks know of them.

    Each is an example, its dataset, and where the model stands in the camera's axes, (3,) metres.
    """
    return {domain: _rendered(*_stage(assets, domain), domain) for domain in ("body", "hand")}


@pytest.fixture(scope="session")
def hand_stage(assets):
    """The renderer of hands, and a scene."""
    renderer, recipe = _stage(assets, "hand")
    return renderer, sample_scene(recipe, 0, 0)


def _stage(assets, domain):
    hands = SceneRecipe(
        domain="hand", num_identities=3, scenes_per_identity=1, instants_per_scene=1, num_views=2, image_px=128,
        distance_min_m=0.4, distance_max_m=0.9,
    )  # fmt: skip
    people = SceneRecipe(
        num_identities=1, scenes_per_identity=1, instants_per_scene=2, num_views=2, image_px=128, clips=("waving",)
    )
    try:
        if domain == "hand":
            models = {side: load_hand(assets / f"hand_{side}.npz") for side in ("right", "left")}
            return Renderer(HandFigure(**models)), hands
        with TemporaryDirectory() as folder:
            clip = load_clip(write_clip(Path(folder), "waving", waving()))
        return Renderer.of_body(load_body(assets / "body.npz"), {"waving": clip}), people
    except SyntheticError as error:
        pytest.skip(str(error))


def _rendered(renderer, recipe, domain):
    about = About(
        name=f"free_{domain}",
        domain=Domain(domain),
        split="train",
        labels=("pose", "betas", "joints_m", "keypoints_px"),
        joint_set="mano16" if domain == "hand" else "smpl24",
        keypoint_set="hand21" if domain == "hand" else "smpl24",
        protocol="rendered for a test",
    )
    views = []
    for index in range(recipe.num_scenes):
        scene = sample_scene(recipe, 0, index)
        for instant in range(len(scene.phases)):
            views += [_example(renderer, scene, instant, view) for view in range(len(scene.cameras))]
    return [(example, about, transl) for example, transl in views]


def _example(renderer, scene, instant, view):
    seen = renderer.render(scene, instant=instant, view=view)
    row = label_columns(seen, ())
    points = seen.keypoints_px["hand21"] if scene.hand else np.pad(seen.joints_xy_px, ((0, 0), (0, 1)))
    points[:, 2] = 1.0
    example = Example(
        key=f"{scene.index}/{instant}/{view}",
        rgb_HW3=seen.rgb,
        square_xyxy_px=np.array([-0.5, -0.5, scene.image_px - 0.5, scene.image_px - 0.5]),
        labels={
            "pose": np.array([*row["global_orient"], *row["pose"]]).reshape(-1, 3),
            "betas": np.array(row["betas"]),
            "gender": "neutral",
            "joints_m": np.array(row["joints_m"]).reshape(-1, 3),
            "keypoints_px": points,
            "intrinsics": seen.intrinsics,
            **({"side": scene.side} if scene.hand else {}),
        },
    )
    return example, np.array(row["transl"])
