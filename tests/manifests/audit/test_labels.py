"""Labels and scenes of renders: each rule is given a build with one thing wrong, and must say that and nothing else."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from manifests import table as tables
from manifests.audit.labels import SOME
from manifests.audit.prove import audit
from manifests.commit import UnitWriter
from manifests.sample import unpack_cells
from tests.support.build_folder import SIZE_PX, STAMP, assert_only_finding, change_rows

UNIT = "synthetic-s000000"
SCENE = {"cameras": [{}] * 3, "phases": [0.0] * 6}


def png_of(parts):
    data = io.BytesIO()
    Image.fromarray(parts).save(data, "PNG")
    return data.getvalue()


def label_of(crop):
    parts = 7 * unpack_cells(crop["silhouette"]).astype(np.uint8)
    return {
        "key": crop["key"], "parts": png_of(parts.repeat(SIZE_PX // 64, 0).repeat(SIZE_PX // 64, 1)), "joints_m": [], "pose": [],
        "betas": [], "global_orient": [0.0] * 3, "transl": [0.0] * 3,
    }  # fmt: skip


@pytest.fixture
def rendered(build):
    """The miniature build, with the labels and the scene of its rendered unit."""
    folder = build / "renders"
    held = {table: tables.read(table, folder / f"{UNIT}.{table}.parquet") for table in ("frames", "crops")}
    held["labels"] = tables.from_rows("labels", [label_of(crop) for crop in held["crops"].to_pylist()])
    scene = {"sequence": "s000000", "scene": json.dumps(SCENE), "model": "0" * 64, "garments": [], "device": "none"}
    held["scenes"] = tables.from_rows("scenes", [scene])
    for path in folder.glob(f"{UNIT}.*"):
        path.unlink()
    with UnitWriter(folder, stage="renders", unit=UNIT, fingerprint=STAMP["renders"]) as out:
        for table, data in held.items():
            out.table(table, data)
    return build


def change_labels(build, change):
    change_rows(build, "renders", UNIT, "labels", change)


def test_labels_that_agree_leave_no_finding(rendered):
    assert audit(rendered, every_label=True).findings == ()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (png_of(np.zeros((64, 64), np.uint8)), "the map of parts shows the person elsewhere than the silhouette"),
        (b"GIF89a", "the map of parts does not decode: cannot identify"),
        (png_of(np.zeros((64, 64, 3), np.uint8)), "the map of parts does not decode: it is 64 x 64 px of mode RGB"),
        (png_of(np.zeros((65, 65), np.uint8)), "the map of parts does not decode: the mask must be square"),
        (png_of(np.zeros((64, 64), np.uint8))[:-30], "the map of parts does not decode"),
    ],
)
def test_map_of_parts_that_does_not_fit(rendered, parts, message):
    change_labels(rendered, lambda rows: [row | {"parts": parts} for row in rows])
    assert assert_only_finding(rendered, "labels", table="labels", count=SOME).message.startswith(message)


def test_one_bad_map_is_seen_when_all_are_asked_for(rendered):
    keys = []

    def turn(rows):
        keys.append(rows[5]["key"])
        rows[5]["parts"] = rows[0]["parts"] if rows[0]["parts"] != rows[5]["parts"] else b""

    change_labels(rendered, turn)
    found = audit(rendered, every_label=True).findings
    assert [(f.rule, f.examples) for f in found] == [("labels", tuple(keys))]


def test_maps_that_were_not_kept_are_no_fault(rendered):
    change_labels(rendered, lambda rows: [row | {"parts": None} for row in rows])
    assert audit(rendered).findings == ()


def test_crop_without_labels_and_labels_without_a_crop(rendered):
    change_labels(rendered, lambda rows: [*rows[1:], rows[0] | {"key": "synthetic/train/s000000/00000099/cam1/p0"}])
    found = audit(rendered).findings
    assert {(f.rule, f.message, f.count) for f in found} == {
        ("labels", "a rendered crop has no labels", 1), ("labels", "labels are of no crop of their unit", 1),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "x" * 64}, "the model of a scene is no SHA-256"),
        ({"scene": "{"}, "a scene does not parse"),
        ({"scene": "[" * 100_000}, "a scene does not parse"),
        ({"scene": "[]"}, "a scene has no cameras, or no phases"),
        ({"scene": '{"cameras": 3, "phases": []}'}, "a scene has no cameras, or no phases"),
        (
            {"scene": json.dumps(SCENE | {"cameras": [{}] * 2})},
            "a scene has 2 cameras and 6 phases, its pictures 3 views and 6 instants",
        ),
        (
            {"scene": json.dumps(SCENE | {"phases": [0.0] * 5})},
            "a scene has 3 cameras and 5 phases, its pictures 3 views and 6 instants",
        ),
    ],
)
def test_scene_that_does_not_fit_its_pictures(rendered, changes, message):
    change_rows(rendered, "renders", UNIT, "scenes", lambda rows: [row | changes for row in rows])
    assert_only_finding(rendered, "scenes", table="scenes", message=message)


def test_rendered_sequence_without_a_scene(rendered):
    change_rows(rendered, "renders", UNIT, "scenes", lambda rows: [row | {"sequence": "s000001"} for row in rows])
    assert_only_finding(rendered, "scenes", message="a rendered sequence has no scene", examples=("s000000",))


def ask_for(build, *maps):
    """Let the plan of the renders tell of a recipe with labels."""
    path = build / "renders" / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"recipe": {"render": {"labels": list(maps)}}}))


def test_rendered_unit_without_the_tables_that_its_recipe_asks_for(build):
    assert audit(build).findings == (), "this build was rendered without labels, and nobody asked for them"
    ask_for(build, "parts")
    assert [(f.rule, f.where, f.message) for f in audit(build).findings] == [
        ("labels", f"renders/{UNIT}.json", "a rendered unit has no table of labels"),
        ("scenes", f"renders/{UNIT}.json", "a rendered unit has no table of scenes"),
    ]


def test_maps_that_the_recipe_asks_for_and_nobody_kept(rendered):
    ask_for(rendered, "parts")
    assert audit(rendered).findings == ()
    ask_for(rendered, "parts", "depth")
    assert_only_finding(rendered, "labels", count=18, message="the recipe asks for depth, which is not there")


def test_a_table_of_labels_that_does_not_read_is_told_once(rendered):
    ask_for(rendered, "parts")
    (rendered / "renders" / f"{UNIT}.labels.parquet").write_bytes(b"PAR1")
    assert {f.rule for f in audit(rendered).findings} == {"hash", "unreadable"}


def plan_images(build, units, instants, views):
    path = build / "renders" / "plan.json"
    plan = json.loads(path.read_text())
    recipe = {"render": {"instants_per_scene": instants, "num_views": views}}
    path.write_text(json.dumps(plan | {"units": units, "recipe": recipe}))


def test_what_mends_a_render_names_the_number_of_images(rendered):
    """It is no part of the recipe: without it, `make render` would ask for as many as the recipe's default."""
    plan_images(rendered, [UNIT, "synthetic-s000001"], 3, 5)
    (rendered / "renders" / f"{UNIT}.labels.parquet").unlink()
    lost = next(f for f in audit(rendered).findings if f.rule == "missing")
    again = "run `make render` again with the same RECIPE, N=30, ROOT and OUT"
    assert lost.hint == f"remove renders/{UNIT}.json, then {again}: that unit is made anew, all others stay"
    assert again in next(f for f in audit(rendered).findings if f.rule == "uncommitted").hint
    plan_images(rendered, [UNIT], "many", None)
    lost = next(f for f in audit(rendered).findings if f.rule == "missing")
    assert "run `make render` again with the same RECIPE, N, ROOT and OUT" in lost.hint


def test_without_a_plan_the_scenes_tell_the_number_of_images(rendered):
    (rendered / "renders" / "plan.json").unlink()
    images = len(SCENE["phases"]) * len(SCENE["cameras"])
    told = next(f for f in audit(rendered).findings if f.rule == "plan").hint
    assert f"`make render` again with the same RECIPE, N={images}, ROOT and OUT" in told
    (rendered / "renders" / f"{UNIT}.scenes.parquet").write_bytes(b"PAR1")
    told = next(f for f in audit(rendered).findings if f.rule == "plan").hint
    assert "`make render` again with the same RECIPE, N, ROOT and OUT" in told


def test_builds_of_recordings_are_mended_without_a_number_of_images(build):
    shutil.rmtree(build / "renders")
    shutil.rmtree(build / "frames")
    lost = next(f for f in audit(build).findings if f.rule == "missing")
    assert lost.hint.endswith("or run `make build` with the same RECIPE, ROOT and OUT")


def test_maps_that_were_not_decoded_are_told(rendered):
    assert audit(rendered).left_out == {
        "labels": f"all maps but {SOME} of each scene: ALL=1 (`--all`) decodes every one"
    }
    assert audit(rendered, every_label=True).left_out == {}
    change_labels(rendered, lambda rows: [row | {"parts": b""} for row in rows[1:]])
    found = [f.message for f in audit(rendered, tables_only=True).findings if f.rule == "labels"]
    assert found == ["a rendered crop has no labels"], "keys are looked at, maps are not"
