"""Renders that move by the user's own clips: which are taken, what decides them, and whose terms bind them."""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from manifests import table as tables
from manifests.audit.findings import Severity
from manifests.audit.prove import audit
from manifests.build import Build
from manifests.errors import StageError, SyntheticError
from manifests.types import Reason
from pipeline.executors import LocalExecutor
from pipeline.recipes import BuildRecipe, CropRecipe, PairRecipe, ShardRecipe
from pipeline.render import Studio, render_scene
from pipeline.stage import run_stage
from pipeline.stages import stages
from synthetic.models.convert import convert_model
from synthetic.motion.library import load_clip
from synthetic.scene import SceneRecipe
from tests.support.mocap_files import moves, puppet, write_amass, write_bvh
from tests.support.samples import asset
from tests.support.smpl_files import model, write_pickle
from tests.support.smpl_textures import write_texture, write_uv_obj
from tests.support.toy_stage import SilentWatcher

FREE = "CC0 1.0 (bodies, clothes), zlib (motions)"
AMASS = "CC0 1.0 (bodies, clothes), AMASS-derived, non-commercial (motions)"


@pytest.fixture(scope="module")
def assets() -> Path:
    return asset("body.npz").parent


@pytest.fixture
def motion(assets: Path, tmp_path: Path) -> Path:
    """A walk as AMASS would ship it, and a BVH."""
    walk = load_clip(assets / "motion" / "humanoid3d_walk.txt")
    write_amass(tmp_path / "motion" / "CMU" / "CMU" / "01" / "walk_poses.npz", walk, fps=walk.fps)
    who = puppet()
    write_bvh(tmp_path / "motion" / "dance.bvh", who, *moves(who, 4, 0))
    return tmp_path / "motion"


def recipe(motion: Path, *clips: str) -> BuildRecipe:
    return BuildRecipe(
        name="small",
        render=SceneRecipe(
            num_identities=6, scenes_per_identity=1, instants_per_scene=2, num_views=2, clips=clips, motion=str(motion)
        ),
        pair=PairRecipe(cross_view=8, cross_pose=8),
        shard=ShardRecipe(rows=200),
    )


def run(build: BuildRecipe, assets: Path, out: Path, *verbs: str) -> None:
    road = stages(build, roots={}, assets=assets, out=out)
    for verb in verbs:
        run_stage(road[verb](), out, LocalExecutor(), SilentWatcher())


def column(stage: str, table: str, name: str, out: Path) -> list[object]:
    """A column over all units of a stage, in order."""
    return [
        value
        for commit in Build(out).commits(stage)
        if (file := commit.file(table))
        for value in tables.read(table, out / stage / file.name, columns=[name]).column(name).to_pylist()
    ]


def test_amass_marks_what_is_rendered_from_it(assets: Path, motion: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(recipe(motion, "walk", "CMU/*"), assets, out, "render", "pairs", "shards")
    for stage, table in (("renders", "frames"), ("renders", "crops"), ("pairs", "pairs")):
        assert set(column(stage, table, "licence", out)) == {FREE, AMASS}, stage
    shards = tables.read("shards", out / "shards" / "shards.parquet").column("licence").to_pylist()
    assert set(shards) == {f"{AMASS}; {FREE}"}
    assert not [finding for finding in audit(out).findings if finding.severity is Severity.ERROR]


def test_free_motion_stays_free(assets: Path, tmp_path: Path) -> None:
    free = recipe(tmp_path, "walk", "run")
    free = dataclasses.replace(free, render=dataclasses.replace(free.render, motion=None, num_identities=1))
    run(free, assets, tmp_path / "out", "render", "pairs", "shards")
    shards = tables.read("shards", tmp_path / "out" / "shards" / "shards.parquet")
    assert set(shards.column("licence").to_pylist()) == {FREE}


def test_only_the_clips_that_are_wanted_decide(assets: Path, motion: Path, tmp_path: Path) -> None:
    build = recipe(motion, "dance", "walk")
    render = stages(build, roots={}, assets=assets, out=tmp_path)["render"]
    before = render().plan()
    assert set(before.inputs) == {"body.npz", "motion/dance.bvh", "motion/walk.txt"}
    shutil.rmtree(motion / "CMU")
    assert render().plan().inputs == before.inputs
    who = puppet()
    write_bvh(motion / "dance.bvh", who, *moves(who, 4, 1))
    assert render().plan().inputs != before.inputs


def test_patterns_stand_for_your_own_clips_and_names_for_any(assets: Path, motion: Path) -> None:
    def rendered(*clips: str, motion: str | None = str(motion)) -> set[str]:
        studio = Studio(assets, SceneRecipe(clips=clips, motion=motion, num_identities=40))
        decided = {name.rpartition(".")[0].removeprefix("motion/") for name in studio.inputs() if "motion/" in name}
        drawn = {studio.scene(0, index).clip for index in range(80)}
        assert drawn == decided, "what is drawn is what is stamped"
        return drawn

    assert rendered("*") == {"CMU/01/walk", "dance"}
    assert rendered("*walk") == {"CMU/01/walk"}
    assert rendered("run", "dan*") == {"run", "dance"}
    assert rendered("dance_?", motion=None) == {"dance_a", "dance_b"}


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (("walk",), r'(?s)names no clip of it.*name them in render.clips of the recipe, as \["\*"\]'),
        (("walk", "HDM05/*"), r"(?s)no motion clip 'HDM05/\*'.*clips: CMU/01/walk, dance\n.*name other clips"),
        (("dance", "ru[mn]"), r"(?s)no motion clip 'ru\[mn\]'.*clips: CMU/01/walk, dance\n"),
        (("dance", "rum"), r"(?s)no motion clip 'rum'.*clips: CMU/01/walk, backflip, .*walk"),
    ],
    ids=["none of it", "not there", "not of his", "no name"],
)
def test_clips_that_are_not_there_are_told_before_anything_is_rendered(
    assets: Path, motion: Path, tmp_path: Path, clips: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SyntheticError, match=message):
        stages(recipe(motion, *clips), roots={}, assets=assets, out=tmp_path)["render"]().plan()


def test_your_clips_have_names_of_their_own(assets: Path, motion: Path) -> None:
    (motion / "dance.bvh").rename(motion / "walk.bvh")
    with pytest.raises(SyntheticError, match=r"(?s)two motion clips are called walk.*call yours otherwise"):
        Studio(assets, SceneRecipe(motion=str(motion))).clip_paths()
    with pytest.raises(SyntheticError, match="there is no motion clip"):
        Studio(assets, SceneRecipe(motion=str(motion / "nothing"))).clip_paths()


def test_a_damaged_clip_stops_its_scenes_and_says_which(assets: Path, motion: Path, tmp_path: Path) -> None:
    (motion / "CMU/CMU/01/walk_poses.npz").write_bytes(b"PK")
    with pytest.raises((SyntheticError, StageError), match=r"walk_poses\.npz"):
        run(recipe(motion, "CMU/*"), assets, tmp_path / "out", "render")


def test_own_motion_renders_as_the_same_motion_of_ours(assets: Path, motion: Path, tmp_path: Path) -> None:
    """The walk through AMASS's axes and back: the same joints in the image, to what rounding on the floor allows."""
    points = []
    for name in ("walk", "CMU/01/walk"):
        build = recipe(motion, name)
        render = dataclasses.replace(build.render, num_identities=1, motion=str(motion) if "/" in name else None)
        out = tmp_path / str(len(points))
        run(dataclasses.replace(build, render=render), assets, out, "render")
        points.append(np.array(column("renders", "crops", "keypoints_px", out)).reshape(-1, 24, 3)[..., :2])
    assert np.abs(points[0] - points[1])[:, :22].max() < 1.0


def test_an_smpl_of_ones_own_wears_scans(assets: Path, tmp_path: Path) -> None:
    """Of an invented model in SMPL's layout: what it wears is its texture, and its terms are told."""
    parts = model("smpl")
    pickled = write_pickle(tmp_path / "basicModel_f_lbs_10_207_0_v1.0.0.pkl", parts)
    convert_model(pickled, tmp_path / "smpl.npz")
    write_uv_obj(tmp_path / "smpl_uv.obj", parts["v_template"], parts["f"].astype(np.int64))
    (tmp_path / "textures").mkdir()
    write_texture(tmp_path / "textures" / "nongrey_female_0001.jpg", (200, 30, 30))
    render = SceneRecipe(
        num_identities=1,
        scenes_per_identity=1,
        instants_per_scene=1,
        num_views=2,
        clips=("walk",),
        body=str(tmp_path / "smpl.npz"),
        textures=str(tmp_path / "textures"),
        uv=str(tmp_path / "smpl_uv.obj"),
    )
    out = tmp_path / "out"
    build = BuildRecipe(name="scans", render=render)
    run(build, assets, out, "render")
    assert set(column("renders", "crops", "licence", out)) == {
        "terms of SMPL and SURREAL, non-commercial (bodies, textures), zlib (motions)"
    }
    assert column("renders", "scenes", "garments", out) == [["background", "person"]]
    view = Studio(assets, render).renderer().render(Studio(assets, render).scene(0, 0), instant=0, view=0)
    red, green, blue = view.rgb[view.alpha == 255].mean(axis=0)
    assert red > 2 * max(green, blue), "the texture is red"
    write_texture(tmp_path / "textures" / "nongrey_female_0002.jpg", (30, 30, 200))
    with pytest.raises(StageError, match=r"textures/nongrey_female_0002\.jpg"):
        run(build, assets, out, "render")


@pytest.mark.parametrize(
    ("changes", "gone", "message"),
    [
        ({"body": "{}/none.npz"}, (), r"the recipe's body cannot be read: No such file.*none\.npz.*synthetic convert IN OUT"),
        ({"body": "{}"}, (), "the recipe's body cannot be read: Is a directory.*synthetic convert IN OUT"),
        ({}, ("body.npz",), r"body\.npz cannot be read: No such file.*python\S* -m pipeline fetch"),
        ({"domain": "hand", "distance_min_m": 0.4, "distance_max_m": 0.9}, (), r"hand_right\.npz cannot be read.*pipeline fetch"),
        ({"body": "{}/body.npz", "uv": "{}/none.obj", "textures": "{}/skins"}, (), r"coordinates cannot be read.*smpl_uv\.obj"),
        ({"body": "{}/body.npz", "uv": "{}/body.npz", "textures": "{}/none"}, (), "no such folder of textures.*give SURREAL"),
    ],
    ids=["own body", "a folder", "free body", "hand", "uv", "textures"],
)  # fmt: skip
def test_a_missing_file_is_told_before_anything_is_rendered(
    tmp_path: Path, changes: dict[str, object], gone: tuple[str, ...], message: str
) -> None:
    (tmp_path / "body.npz").write_bytes(b"PK")
    for name in ("motion", "skins"):
        (tmp_path / name).mkdir()
    write_bvh(tmp_path / "motion" / "walk.bvh", puppet(), *moves(puppet(), 4, 0))
    write_texture(tmp_path / "skins" / "nongrey_female_0001.jpg", (200, 30, 30))
    for name in gone:
        (tmp_path / name).unlink()
    placed = {name: v.format(tmp_path) if isinstance(v, str) else v for name, v in changes.items()}
    with pytest.raises(SyntheticError, match=f"(?s){message}"):
        Studio(tmp_path, SceneRecipe(clips=("walk",), **placed)).inputs()


def test_views_in_which_the_person_is_hidden_are_left_out_and_counted(assets: Path, tmp_path: Path) -> None:
    render = SceneRecipe(
        num_identities=1, scenes_per_identity=1, instants_per_scene=2, num_views=2, image_px=128, clips=("walk",)
    )
    build = BuildRecipe(name="hidden", render=render, crop=CropRecipe(size_px=128))
    studio = Studio(assets, render)
    shown = [
        float(studio.renderer().render(studio.scene(0, 0), instant=i, view=v).silhouette.mean())
        for i in range(2)
        for v in range(2)
    ]
    least = sorted(shown)[1] + 1e-6  # two of four cover less
    rows, rejects = render_scene(build, 0, studio, lambda *_: None, source="synthetic", least_coverage=least)
    assert len(rows["crops"]) == len(rows["frames"]) == len(rows["labels"]) == 2
    assert {reject.reason for reject in rejects} == {Reason.HIDDEN}
    assert len(rejects) == 2
    assert not {row["key"] for row in rows["crops"]} & {reject.key for reject in rejects}
    assert re.search(r"occluders leave [\d.]+% of the picture", rejects[0].detail)
