"""Rendered hands on the whole road: what their rows say, and that their pairs reproject."""

import dataclasses
import io
import json
import tarfile
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from manifests import table as tables
from manifests.audit.findings import Severity
from manifests.audit.prove import audit
from manifests.build import Build
from manifests.geometry import camera_centre, meet, project, rays
from manifests.sample import unpack_cells
from manifests.show import show_key, show_summary
from pipeline.executors import LocalExecutor
from pipeline.fetch import HANDS
from pipeline.recipes import RECIPES, BuildRecipe, PairRecipe, ShardRecipe
from pipeline.stage import run_stage
from pipeline.stages import stages
from synthetic.scene import sample_scene
from tests.support.samples import asset
from tests.support.toy_stage import SilentWatcher

Row = dict[str, object]


@pytest.fixture(scope="module")
def assets() -> Path:
    return asset(HANDS["left"]).parent


@pytest.fixture(scope="module")
def build() -> BuildRecipe:
    recipe = RECIPES["synthetic_hand"]()
    assert recipe.render is not None
    few = dataclasses.replace(recipe.render, num_identities=2, scenes_per_identity=1, instants_per_scene=2, num_views=3)
    return dataclasses.replace(
        recipe, render=few, pair=PairRecipe(cross_view=9, cross_pose=9), shard=ShardRecipe(rows=100)
    )


@pytest.fixture(scope="module")
def out(build: BuildRecipe, assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hands")
    road = stages(build, roots={}, assets=assets, out=out)
    for verb in ("render", "pairs", "shards"):
        run_stage(road[verb](), out, LocalExecutor(), SilentWatcher())
    return out


def rows_of(stage: str, table: str, out: Path) -> list[Row]:
    return [
        row
        for commit in Build(out).commits(stage)
        if (file := commit.file(table))
        for row in tables.read(table, out / stage / file.name).to_pylist()
    ]


@pytest.fixture(scope="module")
def crops(out: Path) -> dict[str, Row]:
    return {str(row["key"]): row for row in rows_of("renders", "crops", out)}


def camera(row: Row) -> tuple[np.ndarray, np.ndarray]:
    return np.reshape(row["intrinsics"], (3, 3)), np.reshape(row["camera_from_world"], (4, 4))


def keypoints(row: Row) -> np.ndarray:
    return np.reshape(row["keypoints_px"], (21, 3)).astype(np.float64)


def test_rows_say_what_is_shown(build: BuildRecipe, out: Path, crops: dict[str, Row]) -> None:
    assert build.render is not None
    frames = rows_of("renders", "frames", out)
    assert len(frames) == len(crops) == build.render.num_images == 12
    for row in (*frames, *crops.values()):
        scene = sample_scene(build.render, build.seed, int(str(row["sequence"])[1:]))
        assert (row["domain"], row["keypoints_set"], row["track"]) == ("hand", "hand21", "hand")
        assert (row["side"], row["subject"]) == (scene.side, scene.identity)
        assert row["licence"] == "CC0 1.0 (hands, sleeves)"
        assert row["silhouette_from"] == row["box_from"] == "render"
    assert {row["side"] for row in frames} <= {"left", "right"}


def test_keypoints_of_two_views_meet_and_are_seen_where_the_third_has_them(crops: dict[str, Row]) -> None:
    moments: dict[tuple[object, object], list[Row]] = {}
    for row in crops.values():
        moments.setdefault((row["sequence"], row["instant"]), []).append(row)
    assert len(moments) == 4
    for views in moments.values():
        for first, second in combinations(views, 2):
            (third,) = [row for row in views if row not in (first, second)]
            origins = np.array([camera_centre(camera(row)[1]) for row in (first, second)])
            for joint in range(21):
                gazes = np.array([rays(keypoints(row)[joint, :2], *camera(row)) for row in (first, second)])
                place, apart_m = meet(origins, gazes)
                assert np.max(apart_m) < 1e-4
                assert np.linalg.norm(project(place, *camera(third))[0] - keypoints(third)[joint, :2]) < 0.1


def test_visible_keypoints_lie_on_the_silhouette(crops: dict[str, Row]) -> None:
    for row in crops.values():
        cells = unpack_cells(row["silhouette"])
        seen = keypoints(row)[keypoints(row)[:, 2] > 0]
        assert 3 < len(seen) <= 21
        at = (seen[:, 1::-1] + 0.5) * cells.shape[0] / row["size_px"] - 0.5
        away = np.linalg.norm(at[:, None] - np.argwhere(cells), axis=2).min(axis=1)
        assert away.max() < 1.5, "cells on the outline may be less than half the hand's"
        assert np.median(away) < 0.8
        x0, y0, x1, y1 = row["box_xyxy_px"]
        assert 0 <= x0 < x1 <= row["size_px"]
        assert 0 <= y0 < y1 <= row["size_px"], "the hand is whole"
        assert 0.03 < row["coverage"] < 0.6


def test_pairs_join_views_of_an_instant_and_poses_of_a_hand(out: Path, crops: dict[str, Row]) -> None:
    pairs = rows_of("pairs", "pairs", out)
    kinds = {kind: [pair for pair in pairs if pair["kind"] == kind] for kind in ("cross_view", "cross_pose")}
    assert min(map(len, kinds.values())) >= 4
    moved_px = []
    for kind, some in kinds.items():
        for pair in some:
            target, reference = crops[str(pair["target"])], crops[str(pair["reference"])]
            assert pair["domain"] == "hand"
            assert (target["subject"], target["side"]) == (reference["subject"], reference["side"])
            if kind == "cross_view":
                assert target["instant"] == reference["instant"]
                assert pair["dt_s"] == 0
                assert pair["view_angle_rad"] > 0.2
            else:
                assert target["camera_from_world"] == reference["camera_from_world"]
                assert abs(pair["dt_s"]) >= 0.1
                moved_px.append(np.abs(keypoints(target) - keypoints(reference))[:, :2].max())
    assert np.median(moved_px) > 5, "another pose"


def test_the_audit_finds_no_error_and_shards_hold_the_labels(out: Path) -> None:
    assert not [finding for finding in audit(out).findings if finding.severity is Severity.ERROR]
    (first, *_) = sorted((out / "shards").glob("*.tar"))
    with tarfile.open(first) as tar:
        member = next(member for member in tar if member.name.endswith(".json"))
        told = json.load(tar.extractfile(member))  # type: ignore[arg-type]
    assert told["target"]["keypoints_set"] == "hand21"
    assert told["target"]["side"] in ("left", "right")
    assert np.shape(told["target"]["keypoints_px"]) in ((63,), (21, 3))


def test_scenes_are_decided_by_the_hands_alone(build: BuildRecipe, assets: Path, tmp_path: Path) -> None:
    plan = stages(build, roots={}, assets=assets, out=tmp_path)["render"]().plan()
    assert set(plan.inputs) == set(HANDS.values())


def test_every_table_of_a_rendered_build_is_shown(out: Path) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(show_summary(Build(out)))
    told = console.export_text()
    for table in ("labels", "scenes"):
        assert table in told
    console.print(show_key(Build(out), "s000001", "scenes"))
    assert '"identity": "p0001"' in console.export_text()
