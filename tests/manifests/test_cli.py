"""The auditor's door: what a person reads, what a program reads, and the exit codes."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from manifests import table as tables
from manifests.__main__ import main
from manifests.audit.findings import RULES
from manifests.audit.page import bars, megabytes, page
from manifests.audit.prove import audit
from manifests.audit.report import page_of, sheets_of, to_json
from manifests.build import Build
from manifests.diff import diff
from manifests.doors import door
from manifests.errors import ManifestError
from manifests.sheet import (
    CAPTION_PX,
    GAP_PX,
    OF_FURTHER,
    OUTLINE,
    TILE_PX,
    captions,
    choose_pairs,
    contact_sheet,
    open_jpeg,
)
from manifests.show import rows_by_key, value_text
from manifests.types import Role
from tests.support.build_folder import add_crop, change_rows, make_build, write_raw

CROP = "rig/train/rec1/00000003/cam2/p0"
PAIR = "rig/train/rec1/p/1-cam1-p0/0-cam1-p0"


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the door with these arguments: exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "110")

    def run(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        return (code, *capsys.readouterr())

    return run


# --- audit ---


def test_audit_of_an_honest_build(build, run):
    code, out, err = run("audit", build)
    assert (code, err) == (0, "")
    assert re.search(r"synthetic +body +train +1 +1 +18 +18 +18 +21", out)
    assert f"passed: 0 errors, 0 warnings, 0 infos; {len(RULES)} rules" in out
    assert f"report: {build}/audit/report.html" in out


def test_audit_of_a_broken_build_fails_and_names_rule_place_and_command(build, run):
    key = add_crop(build, coverage=2.0)
    code, out, _ = run("audit", build)
    assert code == 1
    assert re.search(r"value +1 +coverage is not in \[0, 1\]", out)
    assert f"$ {door('manifests', 'show', build, '--table', 'crops', '--key', key)}\n" in out
    assert "remove the commit of that unit" in out
    assert "FAILED: 1 error, 0 warnings" in out


def test_json_is_the_same_on_stdout_and_on_disk_and_wherever_the_build_lies(build, run, tmp_path):
    add_crop(build, coverage=2.0)
    code, out, _ = run("audit", build, "--json")
    told = json.loads(out)
    assert code == 1
    assert (told["passed"], told["counts"]) == (False, {"error": 1, "warning": 0, "info": 0})
    assert told["findings"][0]["rule"] == "value"
    assert out == (build / "audit" / "report.json").read_text()
    moved = shutil.move(build, tmp_path / "moved")
    assert run("audit", moved, "--json")[1] == out


def test_an_audit_does_not_change_what_it_audits(build, run):
    before = {path: path.read_bytes() for path in build.rglob("*") if path.is_file()}
    run("audit", build)
    after = {path: path.read_bytes() for path in build.rglob("*") if path.is_file()}
    assert {path.name for path in set(after) - set(before)} == {"report.json", "report.html"}
    assert all(after[path] == data for path, data in before.items())


def test_page_is_self_contained_and_escapes_what_it_shows(build):
    add_crop(build, parser="<script>alert(1)</script>", coverage=2.0)
    path = build / "frames" / "plan.json"
    path.write_text(path.read_text().replace("rig-rec1", "<img src=x onerror=alert(1)>"))
    text = page_of(audit(build), "a <b> & c")
    assert "onerror" in text
    assert "<img src=x" not in text
    assert "alert(1)" in text
    assert text.count("<script") == 1  # the page's own, which its policy names by hash
    assert "<script>alert" not in text
    assert "a &lt;b&gt; &amp; c" in text
    assert re.findall(r"(?:src|href)=['\"](?!data:)", text) == []
    assert "url(" not in text
    pictures = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", text)
    sizes = [Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures]
    assert sizes == [sheet_size(len(sheet.keys)) for sheet in sheets_of(audit(build))]
    assert sizes[0] == sheet_size(12)
    assert [rule for rule in RULES if f"<td>{rule}</td>" not in text] == []


def test_page_of_a_build_without_pairs(build):
    for stage in ("pairs", "shards"):
        shutil.rmtree(build / stage)
    text = page_of(audit(build), "out")
    assert "There is no pair that can be shown." in text
    assert "data:image" not in text
    assert "<td>packed</td><td>no finding</td>" in text  # no shard was there to be held against the pairs


def test_page_claims_proof_only_where_all_was_looked_at(honest):
    assert "<td>packed</td><td>holds</td>" in page(to_json(audit(honest)), "out", [], [])


def test_report_that_cannot_be_written(build, run):
    (build / "audit").write_text("a file where a folder is due")
    code, _, err = run("audit", build)
    assert code == 2
    assert re.search(r"ManifestError: the report cannot be written(?s:.)*where: .*audit\n  try:", err)


def test_bars_are_as_high_as_their_counts():
    svg = bars([1, 4, 0, 2], ["0", "1", "2", "3", "4"])
    heights = [float(height) for height in re.findall(r"<rect[^>]* height='([\d.]+)'", svg)]
    assert np.allclose(np.array(heights) / heights[1], [0.25, 1, 0, 0.5], atol=0.01)
    assert "<title>1 to 2: 4</title>" in svg
    assert bars([0, 0], ["a", "b", "c"]).count("height='0.0'") == 2


@pytest.mark.parametrize(("size", "text"), [(0, "0.0 MB"), (1_234_567, "1.2 MB"), (2_500_000_000, "2.5 GB")])
def test_megabytes(size, text):
    assert megabytes(size) == text


# --- show ---


def test_show_without_key_lists_stages_and_keys_of_every_table(honest, run):
    code, out, _ = run("show", honest)
    assert code == 0
    assert re.search(r"shards +9 of 9 +117 samples +0", out)
    assert re.search(r"crops +2 of 2 +36 crops +2", out)
    for key in ("rig/train/rec1/00000000/cam1/all", "rig/rec1/extra.avi", PAIR, "train-rig-body-000000"):
        assert f" {key}\n" in out


def test_every_listed_key_can_be_shown(honest, run):
    lines = run("show", honest)[1].split("--key:\n")[1].splitlines()
    keys = [line.split()[-1] for line in lines]
    assert len(keys) == 16
    for key in keys:
        code, out, err = run("show", honest, "--key", key)
        assert (code, err) == (0, "")
        assert key in out


def test_show_a_crop(honest, run):
    code, out, _ = run("show", honest, "--table", "crops", "--key", CROP)
    assert code == 0
    assert re.search(r"crops +crops/rig-rec1.crops.parquet row 10", out)
    assert re.search(r"jpeg +│ JPEG 64 x 64 px, YCbCr 444, [\d,]+ bytes", out)
    assert re.search(r"camera_from_world +│ +0.8253 +0 +0.5646 +0", out)
    assert out.count("\N{FULL BLOCK}") > 100  # the drawn silhouette
    assert re.search(r"difference +│ unknown", out)


def test_show_finds_a_key_in_every_table_that_has_it(honest, run):
    _, out, _ = run("show", honest, "--key", PAIR)
    assert re.search(r"^pairs +pairs/rig-rec1.pairs.parquet row 0", out, re.MULTILINE)
    assert re.search(r"^index +shards/train-rig-body-00000\d.index.parquet row \d+", out, re.MULTILINE)
    assert "0.0000 rad = 0.0°" in out


def test_show_shows_all_rejects_of_one_key(build):
    change_rows(build, "crops", "rig-rec1", "rejects", lambda rows: [*rows, {**rows[0], "reason": "black"}])
    rows = rows_by_key(Build(build), "rejects", "rig/train/rec1/00000005/cam1/t1")
    assert [row["reason"] for _, row in rows] == ["frozen", "black"]


def test_show_lists_the_keys_of_a_table(honest, run):
    code, out, _ = run("show", honest, "--table", "pairs", "--num", "3")
    lines = out.splitlines()
    assert (code, lines[0], lines[1], lines[-1]) == (0, "pairs: 117 rows", PAIR, "... and 114 more")
    assert len(lines) == 5


def test_values_that_are_not_what_they_should_be_are_told():
    assert value_text("jpeg", b"GIF").plain.startswith("3 bytes that are no JPEG")
    assert value_text("silhouette", bytes(3)).plain == "3 bytes, not 512"
    assert value_text("silhouette", bytes(512)).plain == "unknown (all zero)"
    assert value_text("view_angle_rad", np.pi / 2).plain == "1.5708 rad = 90.0°"
    assert value_text("flags", []).plain == "none"
    assert value_text("box_xyxy_px", [1.0, 2.5, 3.0, 4.0]).plain == "1  2.5  3  4"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--key", "nobody"], "no row nobody in frames or crops"),
        (["--key", CROP, "--table", "pairs"], f"no row {CROP} in pairs"),
        (["--sheet", "a.png", "--source", "nowhere"], "no pair of source 'nowhere'"),
        (["--sheet", "/proc/none/a.png"], "the sheet cannot be written"),
    ],
)
def test_show_what_is_not_there(honest, run, arguments, message):
    code, out, err = run("show", honest, *arguments)
    assert (code, out) == (2, "")
    assert f"ManifestError: {message}" in err
    assert "\n  where: " in err
    assert "\n  try:   " in err


@pytest.mark.parametrize(
    "arguments",
    [["--kind", "cross_view"], ["--num", "0"], ["--sheet", "a.png", "--key", "a"], ["--table", "people"]],
)
def test_misuse_of_show(honest, run, arguments):
    code, _, err = run("show", honest, *arguments)
    assert code == 2
    assert "usage: python -m manifests show" in err or "usage: python -m manifests" in err


def test_misuse_of_audit(honest, run):
    code, _, err = run("audit", honest, "--tables", "--all")
    assert (code, "ask for one of them" in err) == (2, True)


@pytest.mark.parametrize("verb", [["audit"], ["show"], ["diff", "."]])
def test_folders_that_are_no_builds(tmp_path, run, verb):
    code, _, err = run(*verb, tmp_path)
    assert code == 2
    assert re.search(r"no build is here\n  where: .*\n  try:   give the OUT folder", err)


def test_show_of_a_damaged_table_says_what_and_where(build, run):
    path = build / "crops" / "rig-rec1.crops.parquet"
    path.write_bytes(path.read_bytes()[:500])
    code, _, err = run("show", build, "--key", CROP)
    assert code == 2
    assert f"where: {path}" in err


# --- contact sheet ---


def sheet_size(num, columns=3):
    columns = min(columns, num)
    lines = -(-num // columns)
    return GAP_PX + columns * (2 * TILE_PX + 2 + GAP_PX), GAP_PX + lines * (TILE_PX + CAPTION_PX + GAP_PX)


def test_sheet_from_the_command_line_is_the_same_every_time(honest, run, tmp_path):
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    code, out, _ = run("show", honest, "--sheet", one, "--num", 5, "--kind", "cross_view", "--split", "val")
    assert (code, out) == (0, f"5 pairs: {one}\n")
    run("show", honest, "--sheet", two, "--num", 5, "--kind", "cross_view", "--split", "val")
    assert one.read_bytes() == two.read_bytes()
    with Image.open(one) as sheet:
        assert sheet.size == sheet_size(5)


def test_choice_takes_turns_over_sources_splits_and_kinds(honest):
    chosen = choose_pairs(Build(honest), num=12)
    places = list(zip(*(chosen.column(c).to_pylist() for c in ("source", "split", "kind")), strict=True))
    assert {places.count(place) for place in set(places)} == {2}
    assert len(set(places)) == 6
    assert places == sorted(places)


@pytest.mark.parametrize("column", ["kind", "source", "split"])
def test_choice_keeps_to_what_is_asked_for(honest, column):
    value = {"kind": "cross_pose", "source": "synthetic", "split": "val"}[column]
    chosen = choose_pairs(Build(honest), num=1000, **{column: value})
    assert set(chosen.column(column).to_pylist()) == {value}
    assert chosen.num_rows == {"kind": 63, "source": 39, "split": 39}[column]


def test_outlines_lie_around_the_silhouettes(honest):
    build = Build(honest)
    sheet = np.asarray(contact_sheet(build, choose_pairs(build, num=1)))
    for side, role in enumerate(Role):
        left = GAP_PX + side * (TILE_PX + 2)
        tile = sheet[GAP_PX : GAP_PX + TILE_PX, left : left + TILE_PX]
        y, x = np.nonzero((tile == OUTLINE[role]).all(axis=-1))
        # The person of the miniature build is an ellipse of 14 x 26 cells around the middle row.
        assert abs((y.max() - y.min()) / TILE_PX * 64 - 52) <= 3
        assert abs((x.max() - x.min()) / TILE_PX * 64 - 28) <= 3
        assert abs(y.mean() - TILE_PX / 2) < 2


def test_sheet_shows_further_views(build):
    """A pair with two more views is twice as wide; one without leaves their places empty."""
    rows = Build(build).table("pairs").to_pylist()
    two = next(row for row in rows if row["kind"] == "cross_view")
    crops = [row["key"] for row in Build(build).table("crops", columns=["key"]).to_pylist()]
    further = [key for key in crops if "/00000000/" in key and key.startswith("rig/train")][:2]
    four = two | {"key": f"{two['key']}-more", "further": further}
    pairs = tables.from_rows("pairs", [four, two])
    sheet = np.asarray(contact_sheet(Build(build), pairs))
    assert sheet.shape[1] == GAP_PX + 4 * (TILE_PX + 2) - 2 + GAP_PX
    colours = [*OUTLINE.values(), OF_FURTHER, OF_FURTHER]
    for line, views in enumerate((4, 2)):
        top = GAP_PX + line * (TILE_PX + CAPTION_PX + GAP_PX)
        for side, colour in enumerate(colours):
            left = GAP_PX + side * (TILE_PX + 2)
            tile = sheet[top : top + TILE_PX, left : left + TILE_PX]
            assert (tile == colour).all(axis=2).any() == (side < views), (line, side)
    assert captions(four)[1].startswith("cam1 + cam2 + cam1 + cam2, 34")


def test_sheet_of_damaged_crops_marks_them(build):
    change_rows(build, "crops", "rig-rec1", "crops", lambda rows: [row | {"jpeg": b"GIF"} for row in rows])
    pairs = choose_pairs(Build(build), num=2, source="rig", split="train")
    sheet = np.asarray(contact_sheet(Build(build), pairs))
    tile = sheet[GAP_PX : GAP_PX + TILE_PX, GAP_PX : GAP_PX + TILE_PX]
    assert (tile[TILE_PX // 2 + 20, 4] == (228, 222, 216)).all()


def test_captions_tell_degrees_and_seconds():
    pair = {
        "kind": "cross_view", "source": "rig", "sequence": "rec1", "split": "val", "view_angle_rad": np.pi / 3, "dt_s": 0.0,
        "target": "rig/val/rec1/00000007/cam1/p0", "reference": "rig/val/rec1/00000007/cam2/p0", "further": [],
    }  # fmt: skip
    assert captions(pair) == ("cross-view  rig / rec1  (val)", "cam1 + cam2, 60° apart, instant 7")
    assert captions(pair | {"view_angle_rad": None})[1] == "cam1 + cam2, angle unknown, instant 7"
    later = pair | {"kind": "cross_pose", "dt_s": -0.5, "reference": "rig/val/rec1/00000002/cam1/p0"}
    assert captions(later)[1] == "cam1, dt -0.50 s, instants 7 + 2"
    assert captions(later | {"dt_s": None})[1] == "cam1, dt unknown, instants 7 + 2"


def test_images_of_the_sheet_are_held_to_the_caps():
    data = io.BytesIO()
    Image.new("RGB", (5000, 8)).save(data, "JPEG")
    with pytest.raises(ValueError, match="too many pixels"):
        open_jpeg(data.getvalue())
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    with pytest.raises(ValueError, match="cannot identify"):
        open_jpeg(png.getvalue())


# --- diff ---


def test_builds_that_agree(honest, tmp_path, run):
    other = make_build(tmp_path / "again")
    code, out, _ = run("diff", honest, other)
    assert code == 0
    assert out.endswith("\nno difference\n")
    assert diff(honest, other) == []


def test_other_recipe(honest, tmp_path, run):
    other = make_build(tmp_path / "other", rows_per_shard=20)
    code, out, _ = run("diff", honest, other)
    assert code == 1
    assert "recipe.rows: 15 -> 20" in out
    assert "9 files differing: 117 rows in A, 117 in B" in out
    assert "6 of 6 shards of one name differ in bytes" in out
    assert re.search(r"train-rig-body-000000: 15 rows, [\d,]+ bytes, \w{12} -> 20 rows, [\d,]+ bytes, \w{12}", out)
    assert re.search(r"shards\S*  3 units only in A\n  train-rig-body-000002\n  train-synthetic-body-000002", out)


def test_one_value_of_one_row(honest, build):
    change_rows(build, "pairs", "rig-rec2", "pairs", lambda rows: rows[3].update(weight=2.0))
    found = [(d.what, d.where, d.message) for d in diff(honest, build)]
    assert found == [
        ("rows", "pairs/pairs", "1 file differing: 39 rows in A, 39 in B"),
        ("rows", "pairs/pairs.weight", "weight differs in 1 of 39 rows of one key"),
    ]
    key = Build(build).table("pairs", columns=["key"]).column("key")[39 + 3].as_py()
    assert diff(honest, build)[1].examples == (f"{key}: 1.0 -> 2.0",)
    assert diff(build, honest)[1].examples == (f"{key}: 2.0 -> 1.0",)


def test_rows_that_only_one_build_has(honest, build):
    key = add_crop(build)
    found = {(d.where, d.message): d.examples for d in diff(honest, build)}
    assert found[("crops/crops", "1 key only in B")] == (key,)
    assert ("crops/crops", "1 key only in A") in {(d.where, d.message) for d in diff(build, honest)}


def test_a_stage_that_only_one_build_has(honest, build):
    shutil.rmtree(build / "renders")
    found = [(d.what, d.message) for d in diff(honest, build) if d.where == "renders"]
    assert found == [("recipe", "only A has this stage"), ("units", "1 unit only in A")]


def test_diff_of_a_damaged_file_says_where(honest, build, run):
    write_raw(build, "frames", "rig-rec1", "rejects", Build(honest).table("pairs"))
    with pytest.raises(ManifestError, match="this is pairs version 3, not rejects version 2"):
        diff(honest, build)
    (build / "frames" / "plan.json").write_text("[]")
    assert run("diff", honest, build)[0] == 2


def test_diff_sees_a_tar_that_was_cut(honest, build):
    tar = sorted((build / "shards").glob("*.tar"))[0]
    tar.write_bytes(tar.read_bytes()[:3000])
    (found,) = diff(honest, build)
    assert (found.what, found.where, found.examples) == ("bytes", "shards", (tar.name,))


def test_drift_is_told_in_shares(honest, build):
    """Fewer pairs of one kind in one recording move the shares of all that is measured."""
    change_rows(build, "pairs", "rig-rec2", "pairs", lambda rows: [row for row in rows if row["kind"] == "cross_view"])
    found = {d.where: (d.message, d.examples) for d in diff(honest, build) if d.what == "drift"}
    # 54 of 117 pairs are cross-view; then 54 of 96.
    assert found["pairs by kind"] == (
        "10.1 % of it moved", ("cross_pose: 53.8 % -> 43.8 %", "cross_view: 46.2 % -> 56.2 %"),
    )  # fmt: skip
    assert found["pairs by split"][1] == ("train: 66.7 % -> 81.2 %", "val: 33.3 % -> 18.8 %")
    assert "view_angle_rad" not in found  # the angles of cross-view pairs are what they were
    assert "crops of rig" not in found
    turned = {d.where: d.message for d in diff(build, honest) if d.what == "drift"}
    assert turned["pairs by kind"] == "10.1 % of it moved"


def test_drift_of_a_measure_and_of_crops(honest, build):
    def wider(rows):
        return [row | {"view_angle_rad": row["view_angle_rad"] + 0.25 * (row["kind"] == "cross_view")} for row in rows]

    change_rows(build, "pairs", "rig-rec1", "pairs", wider)
    change_rows(build, "crops", "rig-rec1", "crops", lambda rows: rows[:9])
    found = {d.where: (d.message, d.examples) for d in diff(honest, build) if d.what == "drift"}
    assert found["view_angle_rad"][0] == "33.3 % of it moved"  # all of one recording of three
    assert found["view_angle_rad"][1][0] == "0.524 to 0.698: 66.7 % -> 44.4 %"
    assert found["crops of rig"] == ("36 in A, 27 in B", ())
    assert "pairs by source" not in found


# --- as a program ---


def test_the_door_opens_without_torch_ray_or_cv2(honest, tmp_path):
    code = (
        "import sys; from manifests.__main__ import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'ray', 'cv2', 'pyrender'} & set(sys.modules); sys.exit(f'imported {heavy}' if heavy else code)"
    )
    copy = shutil.copytree(honest, tmp_path / "out")
    done = subprocess.run([sys.executable, "-c", code, "audit", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
