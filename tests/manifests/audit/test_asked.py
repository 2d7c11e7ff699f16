"""What the recipe asked for and the build did not give; stages that are not there; who is held out."""

import json
import shutil

import numpy as np
import pytest

from manifests.audit.files import Evidence
from manifests.audit.findings import RULES, Finding, Severity
from manifests.audit.mend import mend
from manifests.audit.prove import _val_share, audit
from manifests.audit.report import page_of
from manifests.audit.totals import look_at_totals
from manifests.build import STAGES
from tests.support.build_folder import change_rows


def ask(build, **pair):
    """Let the plan of the pairs tell of a recipe."""
    path = build / "pairs" / "plan.json"
    plan = json.loads(path.read_text())
    path.write_text(json.dumps(plan | {"recipe": {"pair": pair}}))


def findings(build):
    return [(f.rule, f.severity, f.where, f.message) for f in audit(build).findings]


# The rig has three cameras .6 rad (34 degrees) apart: of its 36 cross-view pairs 24 are 34 degrees apart, 12 are 69.
ANGLES = {"edges": [0, 50, 90, 180], "shares": [2, 1, 1]}


def test_classes_of_angles_asked_for_and_got(build):
    ask(build, cross_view=18, view_angle_deg=ANGLES)
    low, middle, high = (
        f"{got} % in {of} where {share} % are asked for"
        for got, of, share in ((67, "0 to 50", 50), (33, "50 to 90", 25), (0, "90 to 180", 25))
    )
    assert findings(build) == [
        (
            "asked",
            Severity.WARNING,
            "source rig",
            f"of 36 cross_view pairs, by view_angle_deg: {low}, {middle}, {high}",
        ),
        # Of 18 pairs one more or less is 6 %: the middle class may be so by chance.
        ("asked", Severity.WARNING, "source synthetic", f"of 18 cross_view pairs, by view_angle_deg: {low}, {high}"),
    ]
    rows = audit(build).stats["asked"]["classes"]
    assert [(row["source"], row["from"], row["to"], row["pairs"], row["share"], row["got"]) for row in rows[:3]] == [
        ("rig", 0, 50, 24, 0.5, 0.6667), ("rig", 50, 90, 12, 0.25, 0.3333), ("rig", 90, 180, 0, 0.25, 0.0),
    ]  # fmt: skip
    page = page_of(audit(build), "out")
    assert "The classes of pairs that the recipe asks for" in page
    assert "50 to 90 degrees" in page


def test_classes_that_are_met_leave_no_finding(build):
    ask(build, cross_view=18, view_angle_deg={"edges": [0, 50, 90], "shares": [2, 1]})
    assert findings(build) == []


def test_classes_of_times_asked_for_and_got(build):
    """Instants are 40 ms apart: of 63 cross-pose pairs, per view 4 x 40 ms, 2 x 80 ms and 1 x 120 ms."""
    ask(build, cross_pose=21, time_gap_s={"edges": [0, 0.05, 0.1, 0.15], "shares": [4, 2, 1]})
    assert findings(build) == []
    ask(build, cross_pose=21, time_gap_s={"edges": [0, 0.05, 10.0], "shares": [1, 9]})
    assert [row[0] for row in findings(build)] == ["asked", "asked"]
    assert "by time_gap_s: 57 % in 0 to 0.05 where 10 % are asked for" in findings(build)[0][3]


def test_pairs_on_the_edges_of_classes_are_where_the_stage_of_pairs_puts_them(build):
    """The first edge belongs to a class, the last to its end; what is outside, or not known, is in none."""
    rows = audit(build).stats["pairs"]
    assert rows[1]["kind"] == "cross_view"
    ask(
        build,
        cross_view=18,
        view_angle_deg={
            "edges": [0, float(np.degrees(0.6).round(9)), float(np.degrees(1.2).round(9))],
            "shares": [1, 1],
        },
    )
    told = [row["pairs"] for row in audit(build).stats["asked"]["classes"] if row["source"] == "rig"]
    assert told == [0, 36]
    ask(build, cross_view=18, view_angle_deg={"edges": [0, 30, 40], "shares": [1, 1]})
    told = [row["pairs"] for row in audit(build).stats["asked"]["classes"] if row["source"] == "rig"]
    assert told == [0, 24]


@pytest.mark.parametrize(
    "odd",
    [7, "all", [], {}, {"edges": 3, "shares": 1}, {"edges": [1, 0], "shares": [1]}, {"edges": [0, 1], "shares": [0]},
     {"edges": [0, 1], "shares": [-1]}, {"edges": ["a", "b"], "shares": [1]}, {"edges": [0, 1e400], "shares": [1]},
     {"edges": [], "shares": []}, {"edges": [0, 1], "shares": [1, 2]}],
)  # fmt: skip
def test_classes_that_a_plan_does_not_tell_well_are_not_asked_for(build, odd):
    ask(build, cross_view=odd, cross_pose=odd, per_subject=odd, equal_kinds=odd, view_angle_deg=odd, time_gap_s=odd)
    assert [f for f in findings(build) if f[0] == "asked" and "recipe allows" not in f[3]] == []


def without(kind):
    return lambda rows: [row for row in rows if row["kind"] != kind]


def test_a_kind_that_is_asked_for_and_not_there(build):
    ask(build, cross_view=9, cross_pose=9)
    shutil.rmtree(build / "shards")
    for unit in ("rig-rec1", "rig-rec2"):
        change_rows(build, "pairs", unit, "pairs", without("cross_view"))
    asked = [f for f in findings(build) if f[0] == "asked"]
    assert asked == [("asked", Severity.WARNING, "source rig", "cross_view pairs are asked for, and there is none")]
    for unit in ("rig-rec1", "rig-rec2"):
        change_rows(build, "crops", unit, "crops", lambda rows: [row for row in rows if row["view"] == "cam1"])
    assert [f for f in findings(build) if f[0] == "asked"] == [], "one camera gives no such pair"
    ask(build, cross_view=0, cross_pose=9, equal_kinds=True)
    told = "both kinds are asked for in equal number, and there are {} cross_view and {} cross_pose pairs"
    assert [f[3] for f in findings(build) if f[0] == "asked"] == [told.format(0, 42), told.format(18, 21)]


def test_more_pairs_of_a_person_than_the_recipe_allows(build):
    ask(build, per_subject=21)
    assert findings(build) == []
    ask(build, per_subject=20)
    assert findings(build)[0] == (
        "asked", Severity.ERROR, "source rig", "somebody is in 21 pairs of a kind, and the recipe allows 20",
    )  # fmt: skip


def test_nobody_to_validate_on(build):
    shutil.rmtree(build / "shards")
    change_rows(build, "pairs", "rig-rec2", "pairs", lambda rows: [])
    told = {f.rule: f for f in audit(build).findings}
    assert (told["held_out"].severity, told["held_out"].message) == (
        Severity.WARNING, "there is nobody to validate on: no pair of 78 is of val",
    )  # fmt: skip
    assert told["held_out"].hint.startswith("its people are there, and no pair of them")


def held_out(build, groups, *, source="synthetic", split="train", share):
    """The hint for a build of so many people who are all on one side."""
    stats = audit(build).stats
    stats["sources"] = [{**stats["sources"][0], "source": source, "split": split, "groups": groups}]
    stats["pairs"] = [{**stats["pairs"][0], "split": split, "rows": 9}]
    return next(f for f in look_at_totals(stats, complete=True, val_share=share) if f.rule == "held_out").hint


def test_people_of_whom_a_share_holds_out_nobody(build):
    """The share is there already: what helps are more people, and how many is told."""
    told = held_out(build, 4, share=0.2)
    assert told.startswith("there are 4 groups (people or recordings) in all")
    assert "a share of 0.2 holds out nobody of 4 people for 41 of 100 seeds, of 21 for 1" in told  # 0.8^4, 0.8^21
    assert "build more people (a larger N), or ask for a larger `val_share`, another `seed`" in told
    assert "val_share: 0.1" not in told
    assert "`split: {val_share: 0.1}`" in held_out(build, 4, share=0.0)
    assert "`split: {val_share: 0.1}`" in held_out(build, 4, share=None)
    assert "`split: {val_share: 0.1}`" in held_out(build, 4, share=5e-324)
    assert "hold out some by name with `split: val_groups`, or build more recordings" in held_out(
        build, 2, source="rig", share=0.2
    )
    assert "there is 1 group" in held_out(build, 1, share=0.2)
    assert "hold out fewer" in held_out(build, 4, split="val", share=0.9)


@pytest.mark.parametrize(
    ("plans", "share"),
    [
        (
            {"renders": {"recipe": {"split": {"val_share": 0.3}}}, "frames": {"shapes": {"split": {"val_share": 0.1}}}},
            0.3,
        ),
        ({"renders": {"recipe": None}, "frames": {"shapes": {"split": {"val_share": 0.1}}}}, 0.1),
        ({"frames": {"shapes": {"split": {"val_share": "some"}}}}, None),
        ({"frames": {"shapes": {"split": 3}}}, None),
        ({}, None),
    ],
)
def test_the_share_is_the_one_that_a_plan_tells(tmp_path, plans, share):
    assert _val_share(Evidence(tmp_path, plans=plans)) == share


def test_stage_of_pairs_without_a_pair(build):
    shutil.rmtree(build / "shards")
    for unit in ("rig-rec1", "rig-rec2", "synthetic-s000000"):
        change_rows(build, "pairs", unit, "pairs", lambda rows: [])
    told = {f.rule: f for f in audit(build).findings}
    assert told["held_out"].message == "there is no pair at all"
    assert "rejects tell why" in mend(told["held_out"])


@pytest.mark.parametrize(("stage", "later"), [("pairs", "shards"), ("frames", "crops")])
def test_a_stage_that_is_gone_though_a_later_one_was_made_from_it(build, stage, later):
    shutil.rmtree(build / stage)
    result = audit(build)
    gone = [f for f in result.findings if f.rule == "missing"]
    assert [(f.severity, f.where, f.message) for f in gone] == [
        (Severity.ERROR, f"{stage}/", f"stage {stage} is not there, though {later} was made from it")
    ]
    assert {f.rule for f in result.findings} == {"missing", "unchecked"}, "and no row is told to name nothing"
    assert not any("not run yet" in f.message for f in result.findings)


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (["frames"], "not run yet: crops, pairs, shards"),
        (["renders"], "not run yet: pairs, shards"),
        (["frames", "renders", "crops", "pairs"], "not run yet: shards"),
    ],
)
def test_stages_that_are_to_come(build, kept, told):
    for stage in STAGES:
        if stage not in kept:
            shutil.rmtree(build / stage)
    late = [f for f in audit(build).findings if f.message.startswith("not run yet")]
    assert [(f.severity, f.message) for f in late] == [(Severity.INFO, told)]
    assert mend(late[0]).startswith("run `make ")


def test_what_an_audit_of_tables_alone_does_not_prove_is_said(build):
    (found,) = audit(build, tables_only=True).findings
    assert (found.rule, found.severity) == ("unchecked", Severity.INFO)
    for rule in (
        "image",
        "tar",
        "sample_bytes",
        "sample_json",
        "hash (bytes of crops and tars)",
        "copies (byte for byte)",
    ):
        assert rule in found.message
    left_out = audit(build, tables_only=True).left_out
    assert left_out.keys() <= RULES.keys()
    assert audit(build).left_out == {}
    page = page_of(audit(build, tables_only=True), "out")
    assert "not looked at: bytes of crops and tars" in page
    assert "not or not in full looked at: image" in page


def test_tables_alone_still_prove_that_every_pair_is_packed(build):
    change_rows(build, "shards", "train-rig-body-000000", "index", lambda rows: rows[:-1])
    assert "packed" in {f.rule for f in audit(build, tables_only=True).findings}


def test_every_rule_that_fails_says_what_mends_it():
    """Whatever the finding is about: a unit's file, rows of a table, a folder, or many places folded into one."""
    for rule in RULES:
        for table, where in (
            ("crops", "crops/rig-a.crops.parquet"),
            ("pairs", "dt_s"),
            ("", "pairs/"),
            ("tar", "shards/a.tar and 9 more places"),
        ):
            told = mend(
                Finding(
                    rule=rule,
                    severity=Severity.ERROR,
                    table=table,
                    where=where,
                    message="",
                    examples=("synthetic/train/s/0",),
                )
            )
            assert told or rule == "unchecked"
            assert "{" not in told.replace("{val_share: 0.1}", "")
    unit = Finding(rule="hash", severity=Severity.ERROR, table="crops", where="crops/rig-a.crops.parquet", message="")
    again = "run `make crop` again with the same RECIPE, ROOT and OUT"
    assert mend(unit) == f"remove crops/rig-a.json, then {again}: that unit is made anew, all others stay"
    rendered = Finding(
        rule="value", severity=Severity.ERROR, table="crops", where="mean", message="", examples=("synthetic/train/a",)
    )
    assert "run `make render` again" in mend(rendered)


def test_mending_a_damaged_unit_as_it_is_told(build):
    """What is told is true: without its commit the unit is the only one that is not committed."""
    path = build / "pairs" / "rig-rec1.pairs.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    found = next(f for f in audit(build).findings if f.rule == "hash")
    record = mend(found).split(",")[0].removeprefix("remove ")
    (build / record).unlink()
    assert next(f for f in audit(build).findings if f.rule == "uncommitted").examples == ("rig-rec1",)
