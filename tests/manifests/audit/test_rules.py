"""Geometry, likeness, leakage and balance: each rule is given a build with one thing wrong, and must say that."""

import json

import numpy as np
import pyarrow as pa
import pytest

from manifests import table as tables
from manifests.audit.findings import Severity
from manifests.audit.geometry import Sight, look_at_rays
from manifests.audit.prove import audit
from manifests.files import write_json
from manifests.surface import SURFACE_CELLS, covisibility
from tests.support.build_folder import add_crop, assert_only_finding, change_rows

UNITS = ("rig-rec1", "rig-rec2")


def found(build, *rules, **how):
    """Rule, place and count of the findings of these rules; those about shards, which no longer agree, are left out."""
    return [(f.rule, f.where, f.count) for f in audit(build, threads=2, **how).findings if f.rule in rules]


def pairs_of(build, unit="rig-rec1"):
    return tables.read("pairs", build / "pairs" / f"{unit}.pairs.parquet").to_pylist()


def ask(build, **recipe):
    """Let the plan of the pairs ask for something."""
    path = build / "pairs" / "plan.json"
    plan = json.loads(path.read_text())
    write_json(path, plan | {"recipe": recipe})


# --- geometry ---


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"intrinsics": [-87.0, 0, 31.5, 0, 87, 31.5, 0, 0, 1]}, "intrinsics"),
        ({"intrinsics": [87.0, 0, 31.5, 0, 87, 31.5, 0, 0, 2]}, "intrinsics"),
        ({"intrinsics": [87.0, 40, 31.5, 0, 87, 31.5, 0, 0, 1]}, "intrinsics"),
        ({"intrinsics": [float("nan"), 0, 31.5, 0, 87, 31.5, 0, 0, 1]}, "intrinsics"),
        ({"camera_from_world": np.diag([1.0, 1, -1, 1]).ravel().tolist()}, "camera_from_world"),  # a mirror
        ({"camera_from_world": np.diag([2.0, 2, 2, 1]).ravel().tolist()}, "camera_from_world"),
        ({"camera_from_world": [*np.eye(4).T.ravel().tolist()[:12], 0, 0, 3.0, 1]}, "camera_from_world"),  # transposed
        ({"camera_from_world": [float("inf"), *np.eye(4).ravel()[1:].tolist()]}, "camera_from_world"),
    ],
)
def test_camera_that_cannot_be(build, changes, where):
    key = add_crop(build, **changes)
    assert_only_finding(
        build, "calibration", table="crops", where=where, count=1, examples=(key,), severity=Severity.ERROR
    )


def test_lens_of_a_frame_in_another_unit(build):
    """A focal length in millimetres where pixels are due."""
    change_rows(
        build, "frames", "rig-rec1", "frames", lambda rows: rows[0].update(intrinsics=[8.0, 0, 160, 0, 8, 120, 0, 0, 1])
    )
    assert_only_finding(build, "calibration", table="frames", where="intrinsics", count=1)


def test_unknown_cameras_are_no_finding(build):
    for unit in UNITS:
        change_rows(
            build,
            "crops",
            unit,
            "crops",
            lambda rows: [r | {"intrinsics": None, "camera_from_world": None} for r in rows],
        )
    assert audit(build).findings == ()


def test_angle_that_is_not_the_true_one(build):
    def wrong(rows):
        for row in rows:
            row["view_angle_rad"] += 0.01 * (row["key"].endswith("cam3-p0") and row["kind"] == "cross_view")

    change_rows(build, "pairs", "rig-rec1", "pairs", wrong)
    due = sum(row["kind"] == "cross_view" and row["key"].endswith("cam3-p0") for row in pairs_of(build))
    assert found(build, "angle", "meet") == [("angle", "view_angle_rad", due)]


def test_angle_of_a_camera_that_moves(build):
    """A pair across time of a turning camera has the angle that it turned by."""

    def turn(rows):
        for row in rows:
            angle = 0.1 * row["instant"]
            pose = np.array(row["camera_from_world"]).reshape(4, 4)
            spin = np.eye(4)
            spin[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
            row["camera_from_world"] = (pose @ spin).ravel().tolist()

    change_rows(build, "crops", "rig-rec1", "crops", turn)
    posed = [row for row in pairs_of(build) if row["kind"] == "cross_pose"]
    assert found(build, "angle") == [("angle", "view_angle_rad", len(posed))]
    steps = {row["key"]: int(row["target"].split("/")[3]) - int(row["reference"].split("/")[3]) for row in posed}
    change_rows(
        build, "pairs", "rig-rec1", "pairs",
        lambda rows: [r | ({"view_angle_rad": 0.1 * abs(steps[r["key"]])} if r["key"] in steps else {}) for r in rows],
    )  # fmt: skip
    assert found(build, "angle", "meet") == []


@pytest.mark.parametrize(
    ("shift_m", "domain", "is_found"), [(1.0, "body", False), (1.5, "body", True), (1.0, "hand", True)]
)
def test_rays_that_miss_each_other(build, shift_m, domain, is_found):
    """One camera is lifted: its rays pass above whom the others look at; half a person is allowed."""

    def lift(rows):
        for row in rows:
            row["domain"] = domain
            if row.get("view") == "cam2":
                pose = np.array(row["camera_from_world"]).reshape(4, 4)
                pose[1, 3] += shift_m
                row["camera_from_world"] = pose.ravel().tolist()

    change_rows(build, "crops", "rig-rec1", "crops", lift)
    change_rows(build, "pairs", "rig-rec1", "pairs", lambda rows: [row | {"domain": domain} for row in rows])
    # cam2 takes part in two of three couples of views, at six instants.
    assert found(build, "meet", "angle") == ([("meet", "rays", 12)] if is_found else [])


def test_rays_that_meet_behind_a_camera(build):
    """Poses written world-from-camera: here, cameras that look away from what they see."""

    def away(rows):
        for row in rows:
            pose = np.array(row["camera_from_world"]).reshape(4, 4)
            pose[2, 3] = -3.0
            row["camera_from_world"] = pose.ravel().tolist()

    change_rows(build, "crops", "rig-rec1", "crops", away)
    assert found(build, "meet", "angle") == [("meet", "rays", 18)]


# --- rendered surfaces ---


def test_covisibility_is_computed_anew(build):
    rng = np.random.default_rng(0)
    unit = "synthetic-s000000"
    seen = {}

    def show(rows):
        for row in rows:
            seen[row["key"]] = rng.integers(0, 3, SURFACE_CELLS).astype(np.uint8)
            row["surface"] = seen[row["key"]].tobytes()

    def tell(rows):
        for row in rows:
            row["covisibility"] = float(covisibility(seen[row["target"]][None], seen[row["reference"]][None])[0])

    change_rows(build, "renders", unit, "crops", show)
    change_rows(build, "pairs", unit, "pairs", tell)
    assert found(build, "covisibility", "value") == []
    key = pairs_of(build, unit)[5]["key"]
    change_rows(build, "pairs", unit, "pairs", lambda rows: rows[5].update(covisibility=rows[5]["covisibility"] + 0.01))
    told = next(f for f in audit(build).findings if f.rule == "covisibility")
    assert (told.count, told.examples) == (1, (key,))
    change_rows(build, "renders", unit, "crops", lambda rows: rows[0].update(surface=None))
    assert found(build, "covisibility") > [("covisibility", "covisibility", 1)]  # nothing proves its pairs any more
    change_rows(build, "pairs", unit, "pairs", lambda rows: rows[5].update(covisibility=1.5))
    assert found(build, "value") == [("value", "covisibility", 1)]


# --- likeness ---


def test_pictures_of_a_pair_that_are_nearly_one(build):
    pair = next(row for row in pairs_of(build) if row["kind"] == "cross_pose")

    def liken(rows):
        hashes = {row["key"]: row["phash"] for row in rows}
        for row in rows:
            if row["key"] == pair["reference"]:
                row["phash"] = hashes[pair["target"]] ^ (1 << 17)

    change_rows(build, "crops", "rig-rec1", "crops", liken)
    assert found(build, "alike") == []  # the recipe asks for no more than that hashes differ
    ask(build, pair={"min_hash_distance": 2})
    assert_only_finding(build, "alike", table="pairs", count=1, examples=(pair["key"],), severity=Severity.ERROR)


@pytest.mark.parametrize(("bits", "is_found"), [((), True), ((3, 60), True), ((3, 17, 60), False)])
def test_pictures_of_two_splits_that_look_the_same(build, bits, is_found):
    one = tables.read("crops", build / "crops" / "rig-rec1.crops.parquet", columns=["key", "phash"]).to_pylist()[4]
    other = one["phash"] ^ sum(1 << bit for bit in bits)
    change_rows(build, "crops", "rig-rec2", "crops", lambda rows: rows[7].update(phash=other))
    if not is_found:
        assert audit(build).findings == ()
        return
    told = assert_only_finding(
        build, "copies", table="crops", where="phash of train and val", count=1, severity=Severity.WARNING
    )
    assert told.examples[0] == one["key"]
    assert told.examples[1].startswith("rig/val/rec2/")


def test_one_image_in_two_splits(build):
    jpeg = tables.read("crops", build / "crops" / "rig-rec1.crops.parquet", columns=["jpeg"]).to_pylist()[4]["jpeg"]
    change_rows(build, "crops", "rig-rec2", "crops", lambda rows: rows[7].update(jpeg=jpeg))
    told = next(f for f in audit(build).findings if f.rule == "copies")
    assert (told.severity, told.where, told.count) == (Severity.ERROR, "jpeg", 1)
    assert {key.split("/")[1] for key in told.examples} == {"train", "val"}


def test_one_image_for_two_crops(build):
    jpeg = tables.read("crops", build / "crops" / "rig-rec1.crops.parquet").to_pylist()[-1]["jpeg"]
    key = add_crop(build, jpeg=jpeg)
    told = assert_only_finding(build, "copies", where="jpeg", count=1, severity=Severity.WARNING)
    assert key in told.examples


# --- leakage ---


def test_one_video_in_two_splits(build):
    """Whatever its sequences and groups are called, it is one recording."""
    change_rows(
        build,
        "frames",
        "rig-rec2",
        "frames",
        lambda rows: [r | {"media": r["media"].replace("rec2", "rec1")} for r in rows],
    )
    told = assert_only_finding(
        build, "leak", table="frames", where="media", count=3, severity=Severity.ERROR
    )  # three cameras
    assert all(key.startswith(("rig/train/", "rig/val/")) for key in told.examples)


# --- further views ---


def test_further_views_are_held_to_their_pair(build):
    first = pairs_of(build)[0]
    good, gone = "rig/train/rec1/00000000/cam3/p0", "rig/train/rec1/00000077/cam3/p0"
    other = "rig/val/rec2/00000000/cam3/p0"

    def with_further(*keys):
        change_rows(build, "pairs", "rig-rec1", "pairs", lambda rows: rows[0].update(further=list(keys)))
        return {(f.rule, f.where): f.examples for f in audit(build).findings if f.table == "pairs"}

    assert with_further(good) == {}
    assert with_further(good, gone) == {("reference", "further"): (first["key"],)}
    key = (first["key"],)
    assert with_further(other) == {("pair_columns", "further sequence"): key, ("pair_split", "further split"): key}
    change_rows(build, "crops", "rig-rec2", "crops", lambda rows: [row | {"flags": ["evaluation"]} for row in rows])
    assert ("evaluation", "further") in with_further(good, other)


# --- what the recipe asks for ---


def test_pair_with_a_weight_of_its_own(build):
    ask(build, weights={"rig": 1.0, "synthetic": 1.0})
    assert audit(build).findings == ()
    key = pairs_of(build)[3]["key"]
    change_rows(build, "pairs", "rig-rec1", "pairs", lambda rows: rows[3].update(weight=2.0))
    told = [f for f in audit(build).findings if f.rule == "weight"]
    assert [(f.where, f.count, f.examples) for f in told] == [("weight", 1, (key,))]
    ask(build, weights={"synthetic": 1.0})
    assert ("weight", "source", 78) in found(build, "weight")


def test_source_that_the_recipe_weighs_but_nobody_has(build):
    ask(build, weights={"rig": 1.0, "synthetic": 1.0, "mars": 2.0})
    told = assert_only_finding(build, "balance", where="source mars", severity=Severity.WARNING)
    assert told.message.startswith("50 % of the mixture is due to this source, which has no pair")
    rows = {row["source"]: row for row in audit(build).stats["balance"]}
    assert (rows["rig"]["pairs"], rows["rig"]["share"], rows["rig"]["share_of_pairs"]) == (39, 0.25, 0.5)
    assert rows["rig"]["repeats"] == rows["synthetic"]["repeats"] == 1.0


def test_source_whose_few_pairs_are_seen_over_and_over(build):
    ask(build, weights={"rig": 1.0, "synthetic": 70.0})
    change_rows(build, "pairs", "synthetic-s000000", "pairs", lambda rows: [row | {"weight": 70.0} for row in rows[:1]])
    told = next(f for f in audit(build).findings if f.rule == "balance")
    assert (told.where, told.count) == ("source synthetic", 1)
    assert told.message == "99 % of the mixture is drawn from 1 pairs: 39 times as often as an average pair"


def test_pairs_that_tell_no_terms(build):
    for stage in ("frames", "crops", "pairs"):
        change_rows(build, stage, "rig-rec1", stage, lambda rows: [row | {"licence": " "} for row in rows])
    assert found(build, "licence") == [("licence", "source rig", 39)]
    told = {(row["licence"], row["source"], row["split"]): row["rows"] for row in audit(build).stats["licences"]}
    assert told == {(" ", "rig", "train"): 39, ("none", "rig", "val"): 39, ("none", "synthetic", "train"): 39}


# --- tables alone ---


def test_tables_alone_are_quick_and_say_so(build):
    """No pixel is read, and no byte of a file that holds some; what is wrong with rows is found all the same."""
    path = build / "crops" / "rig-rec2.crops.parquet"
    change_rows(build, "pairs", "rig-rec1", "pairs", lambda rows: rows[0].update(dt_s=9.0))
    (build / "shards" / "train-rig-body-000000.tar").write_bytes(b"")
    seen = []
    result = audit(build, tables_only=True, progress=lambda *step: seen.append(step[0]))
    assert {(f.rule, f.table) for f in result.findings} == {("hash", "tar"), ("time", "pairs"), ("unchecked", "")}
    assert set(seen) == {"files", "rows"}
    assert result.stats["silhouettes"] == [
        row | {"agreement": None, "astray": None, "boxed": 0} for row in audit(build).stats["silhouettes"]
    ]
    assert path.exists()


def test_rows_of_other_units_are_found_in_any_batch(build, monkeypatch):
    """One unit at a time must say what all at once do, whatever names whom."""
    change_rows(build, "pairs", "rig-rec2", "pairs", lambda own: [*own, *pairs_of(build)[:3]])
    change_rows(build, "crops", "rig-rec1", "crops", lambda own: own[:-1])
    at_once = audit(build)
    monkeypatch.setattr("manifests.audit.rows.ROWS_AT_ONCE", 0)
    one_by_one = audit(build)
    assert {(f.rule, f.where, f.count) for f in one_by_one.findings} == {
        (f.rule, f.where, f.count) for f in at_once.findings
    }
    assert {f.rule for f in at_once.findings} >= {"unique", "reference"}
    assert one_by_one.stats["histograms"] == at_once.stats["histograms"]


@pytest.mark.parametrize("part", ["look_at_rows", "look_at_same_images", "look_at_shards"])
def test_what_stops_a_part_of_the_audit_is_an_error_of_it(build, monkeypatch, part):
    """Whatever a hostile build makes a rule do, the audit ends with a finding and does not pass."""

    def stop(*_):
        raise RuntimeError("no such thing was thought of")

    monkeypatch.setattr(f"manifests.audit.prove.{part}", stop)
    told = [f for f in audit(build).findings if f.rule == "unchecked" and f.severity is Severity.ERROR]
    assert [f.message.split(" stopped on ")[1] for f in told] == ["RuntimeError: no such thing was thought of"] * len(
        told
    )
    assert told


def sights(centres, rays):
    rays = np.array(rays, float) / np.linalg.norm(rays, axis=1, keepdims=True)
    return Sight(np.array(centres, float), rays, np.arange(len(rays)))


@pytest.mark.parametrize(
    ("centres", "rays", "meets"),
    [
        ([[0, 0, -3], [3, 0, 0]], [[0, 0, 1], [-1, 0, 0]], True),
        ([[0, 0, -3], [3, 0, 0]], [[0, 0, -1], [1, 0, 0]], False),  # both look away from where the lines meet
        ([[0, 0, -3], [3, 2, 0]], [[0, 0, 1], [-1, 0, 0]], False),  # two metres above
        ([[0, 0, -3], [3, 1, 0]], [[0, 0, 1], [-1, 0, 0]], True),
        # Two cameras that face each other see one person between them, wherever the lines cross: here, behind the second.
        ([[0, 0, -4], [0.3, 0, 4]], [[0, 0, 1], [0.01, 0, -1]], True),
        ([[0, 0, -4], [4, 0, -4]], [[0, 0, 1], [0, 0, 1]], False),  # side by side, four metres apart
        ([[0, 0, -4], [1, 0, -4]], [[0, 0, 1], [0, 0, 1]], True),
    ],
)
def test_rays_begin_at_their_cameras(centres, rays, meets):
    pairs = pa.table(
        {
            "key": ["a"],
            "view_angle_rad": pa.array([None], pa.float64()),
            "domain": pa.array(["body"]).dictionary_encode(),
        }
    )
    yes, zero, one = np.array([True]), np.array([0]), np.array([1])
    for target, reference in ((zero, one), (one, zero)):
        found = list(look_at_rays(pairs, yes, yes, sights(centres, rays), target, reference))
        assert [finding.rule for finding in found] == ([] if meets else ["meet"])
