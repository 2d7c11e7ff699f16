"""One image of a build rendered anew: the same bytes, or what has changed; and how many images a render makes."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg

from manifests import table as tables
from manifests.errors import CrossposeError, ManifestError, RecipeError, SyntheticError
from manifests.recipes import read_recipe
from pipeline.__main__ import main, with_images
from pipeline.executors import LocalExecutor
from pipeline.recipes import RECIPES, BuildRecipe, CropRecipe
from pipeline.rerender import rerender
from pipeline.stage import run_stage
from pipeline.stages import stages
from synthetic.scene import SceneRecipe
from tests.support.backdrop_files import write_ramp
from tests.support.samples import asset
from tests.support.toy_stage import SilentWatcher

RECIPE = BuildRecipe(
    name="tiny",
    render=SceneRecipe(
        num_identities=2, scenes_per_identity=1, instants_per_scene=2, num_views=2, image_px=128, clips=("walk",)
    ),
    crop=CropRecipe(size_px=128, jpeg_quality=80),
)
KEY = "synthetic/train/s000001/00000001/v1/p0"
CROPS, SCENES = "renders/synthetic-s000001.crops.parquet", "renders/synthetic-s000001.scenes.parquet"


@pytest.fixture(scope="module")
def assets() -> Path:
    return asset("body.npz").parent


@pytest.fixture(scope="module")
def pristine(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("build")
    try:
        run_stage(stages(RECIPE, roots={}, assets=assets, out=out)["render"](), out, LocalExecutor(), SilentWatcher())
    except SyntheticError as error:
        pytest.skip(str(error))
    return out


@pytest.fixture
def build(pristine: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return shutil.copytree(pristine, tmp_path / "build")


def change(build: Path, table: str, path: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    rows = tables.read(table, build / path).to_pylist()
    change(rows)
    tables.write(table, tables.from_rows(table, rows), build / path)


def row_of(build: Path) -> dict[str, Any]:
    return next(row for row in tables.read("crops", build / CROPS).to_pylist() if row["key"] == KEY)


def test_the_same_bytes_as_the_build(pristine: Path, assets: Path, tmp_path: Path) -> None:
    """Of the recipe's own JPEG quality, from what the build tells alone."""
    assert rerender(pristine, KEY, assets, tmp_path / "a" / "again.jpg") == ()
    assert (tmp_path / "a" / "again.jpg").read_bytes() == row_of(pristine)["jpeg"]
    assert rerender(pristine, KEY, assets, tmp_path / "again.png") == ()
    rgb = cv2.imread(str(tmp_path / "again.png"))[..., ::-1]
    assert (
        simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=80, colorsubsampling="420")
        == row_of(pristine)["jpeg"]
    )


KINDS: dict[str, dict[str, Any]] = {
    "hand": {"domain": "hand", "rig": "dome", "elevation_max_deg": 50.0, "distance_min_m": 0.4, "distance_max_m": 0.9},
    "photo": {"background": "images", "annotations": "none", "noise": 0.1, "blur": 1.0, "jpeg": 30, "white_balance": 0.1,
              "framing": "upper", "rig": "random"},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_scene(kind: str, assets: Path, tmp_path: Path) -> None:
    asset("hand_right.npz")
    if kind == "photo":
        for k in range(3):
            write_ramp(tmp_path / f"{k}.png", size=(300 + 40 * k, 240))
    photos = {"backgrounds": str(tmp_path)} if kind == "photo" else {}
    scenes = SceneRecipe(
        num_identities=1, scenes_per_identity=1, instants_per_scene=1, num_views=2, image_px=128, clips=("walk",),
        **KINDS[kind], **photos,
    )  # fmt: skip
    recipe, out = dataclasses.replace(RECIPE, render=scenes), tmp_path / "build"
    run_stage(stages(recipe, roots={}, assets=assets, out=out)["render"](), out, LocalExecutor(), SilentWatcher())
    crop = tables.read("crops", out / "renders/synthetic-s000000.crops.parquet").to_pylist()[1]
    assert rerender(out, crop["key"], assets, tmp_path / "again.jpg") == ()
    assert (tmp_path / "again.jpg").read_bytes() == crop["jpeg"]


def test_other_bytes_where_nothing_known_has_changed(build: Path, assets: Path, tmp_path: Path) -> None:
    def brighter(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            rgb = simplejpeg.decode_jpeg(row["jpeg"])
            row["jpeg"] = simplejpeg.encode_jpeg(np.minimum(rgb, 235) + np.uint8(20), quality=80)

    change(build, "crops", CROPS, brighter)
    code, distance = rerender(build, KEY, assets, tmp_path / "again.png")
    assert code == "device, model and inputs are the same: the code, or a library it uses, renders otherwise"
    average, most = (float(word) for word in distance.split() if word.replace(".", "").isdigit() and word != "255")
    assert 17 < average < 21
    assert 19 < most < 60


def test_what_has_changed_is_told(build: Path, assets: Path, tmp_path: Path) -> None:
    def elsewhere(rows: list[dict[str, Any]]) -> None:
        rows[0] |= {"device": "a GPU", "model": "f" * 64}

    change(build, "scenes", SCENES, elsewhere)
    assert rerender(build, KEY, assets, tmp_path / "again.png") == ()  # the same bytes need no reasons
    change(build, "crops", CROPS, lambda rows: [row.update(jpeg=rows[0]["jpeg"]) for row in rows])
    plan = json.loads((build / "renders/plan.json").read_text())
    plan["inputs"]["motion/walk.txt"] = "0" * 64
    (build / "renders/plan.json").write_text(json.dumps(plan))
    device, model, clip, distance = rerender(build, KEY, assets, tmp_path / "again.png")
    assert device.startswith("another device: a GPU then, ")
    assert device.endswith(" now")
    assert model.startswith(f"another model: {'f' * 64} then, ")
    assert clip.startswith(f"motion/walk.txt has changed: {'0' * 16} then, ")
    assert "pixels differ by" in distance


def test_the_door_tells_and_exits_by_what_it_found(
    build: Path, assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["rerender", str(build), KEY, "--assets", str(assets), "--out", str(tmp_path / "again.png")]
    assert main(words) == 0
    assert "again.png; the JPEG's bytes are the stored ones" in capsys.readouterr().out
    change(build, "crops", CROPS, lambda rows: [row.update(jpeg=rows[0]["jpeg"]) for row in rows])
    assert main(words) == 1
    assert "are not the stored ones:\n  device, model and inputs are the same" in capsys.readouterr().out


def without_scenes(build: Path) -> None:
    path = build / "renders/synthetic-s000001.json"
    commit = json.loads(path.read_text())
    commit["files"] = [file for file in commit["files"] if file["table"] != "scenes"]
    path.write_text(json.dumps(commit))


def without_crops(build: Path) -> None:
    for path in (build / "renders").glob("synthetic-*.json"):
        path.unlink()


def with_half_a_scene(build: Path) -> None:
    change(build, "scenes", SCENES, lambda rows: rows[0].update(scene=rows[0]["scene"][:100]))


def with_an_older_scene(build: Path) -> None:
    def older(rows: list[dict[str, Any]]) -> None:
        scene = json.loads(rows[0]["scene"])
        del scene["light"]
        rows[0]["scene"] = json.dumps(scene)

    change(build, "scenes", SCENES, older)


BAD: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no such scene": (lambda build: None, "synthetic/train/s000009/00000001/v1/p0", "no rendered crop .*s000009.*a key of this build is synthetic/train/s000000/.*lists keys"),
    "no such view": (lambda build: None, KEY.replace("v1", "v7"), "no rendered crop .*v7.*a key of this build is synthetic/train/s000000/.*lists keys"),
    "no key": (lambda build: None, "s000001", "'s000001' is no key of a crop.*a key of this build is synthetic/train/s000000/00000000/v0/p0; .*lists"),
    "no number": (lambda build: None, KEY.replace("00000001", "one"), "is no key of a crop.*a key of this build is synthetic/"),
    "no crops": (without_crops, "s000001", r"is no key of a crop.*try:   `\S*python\S* -m manifests show"),
    "no build": (shutil.rmtree, "s000001", "there is no build.*give the OUT folder"),
    "no renders": (lambda build: shutil.rmtree(build / "renders"), KEY, "no rendered scenes are here.*give the OUT"),
    "no scenes": (without_scenes, KEY, "has no table of scenes.*render it again"),
    "half a scene": (with_half_a_scene, KEY, "the scene of .* cannot be read.*use the version"),
    "an older scene": (with_an_older_scene, KEY, "cannot be read.*`light` is missing.*use the version"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "key", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_rendered_anew(
    build: Path, assets: Path, tmp_path: Path, spoil: Callable[[Path], object], key: str, message: str
) -> None:
    spoil(build)
    with pytest.raises(ManifestError, match=f"(?s){message}") as caught:
        rerender(build, key, assets, tmp_path / "again.png")
    assert not re.search("unpack|invalid literal|Errno", str(caught.value))
    assert not (tmp_path / "again.png").exists()


def test_where_the_picture_goes(build: Path, assets: Path, tmp_path: Path) -> None:
    with pytest.raises(SyntheticError, match=r"(?s)pictures end in \.png or \.jpg, not '\.bmp'"):
        rerender(build, KEY, assets, tmp_path / "again.bmp")
    (tmp_path / "file").write_text("")
    with pytest.raises(CrossposeError, match=r"(?s)the picture cannot be written.*give a folder"):
        rerender(build, KEY, assets, tmp_path / "file" / "again.png")


def named(name: str) -> BuildRecipe:
    return read_recipe(name, RECIPES)


@pytest.mark.parametrize("images", [1, 31, 32, 33, 1000])
def test_as_many_people_as_the_images_take(images: int) -> None:
    recipe = named("synthetic")
    of_one = 2 * 4 * 4
    render = with_images(recipe, images).render
    assert render.num_images >= images > render.num_images - of_one
    assert render.num_images == of_one * render.num_identities
    assert with_images(recipe, images).crop == recipe.crop


def test_images_of_a_recipe_that_renders_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RecipeError, match=r"(?s)recipe humbi renders nothing.*--images 9.*leave N out"):
        with_images(named("humbi"), 9)
    with pytest.raises(RecipeError, match=r"(?s)0 images cannot be rendered.*at least 1"):
        with_images(named("synthetic"), 0)
    with pytest.raises(RecipeError, match=r"(?s)at most 5,000,000.*--images 1000000000000.*ask for fewer images"):
        with_images(named("synthetic"), 10**12)
    assert main(["render", "--recipe", "humbi", "--images", "9", "--out", str(tmp_path)]) == 2
    assert "RecipeError: recipe humbi renders nothing" in capsys.readouterr().err
