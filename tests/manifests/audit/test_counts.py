"""What commits count and stages add up is held against the rows."""

import json

import pytest

from manifests.audit.findings import Severity
from manifests.audit.mend import mend
from manifests.audit.prove import audit
from manifests.build import Build
from manifests.files import write_json
from tests.support.build_folder import add_crop, assert_only_finding, change_rows

SHARD = "train-rig-body-000000"
ODD = "of an evaluation set, never paired"


def change_commit(build, place, **changes):
    path = build / f"{place}.json"
    told = json.loads(path.read_text())
    for name, change in changes.items():
        told[name] = told[name] | change
    path.write_text(json.dumps(told))


@pytest.mark.parametrize("tables_only", [False, True])
@pytest.mark.parametrize(
    ("place", "changes", "message"),
    [
        ("frames/rig-rec1", {"counts": {"frames": 19}}, "it counts 19 frames, there are 18"),
        ("crops/rig-rec1", {"counts": {"labels": 3}}, "it counts 3 labels, there are 0"),
        ("frames/rig-rec1", {"counts": {ODD: 2}}, f"it counts 2 {ODD}, there are 0"),
        ("crops/rig-rec1", {"rejects": {"frozen": 2}}, "of what was left out it counts 2 frozen, not 1"),
        ("pairs/rig-rec1", {"rejects": {"cut": 1}}, "of what was left out it counts 1 cut, not 0"),
        (f"shards/{SHARD}", {"counts": {"index": 14}}, "it counts 14 index, there are 15"),
    ],
)
def test_a_commit_that_counts_what_is_not_there(build, place, changes, message, tables_only):
    change_commit(build, place, **changes)
    found = [f for f in audit(build, tables_only=tables_only).findings if f.rule != "unchecked"]
    assert [(f.rule, f.severity, f.where, f.message) for f in found] == [
        ("counts", Severity.ERROR, f"{place}.json", message)
    ]
    assert mend(found[0]).startswith(f"remove {place}.json, then run `make ")


def test_counts_that_are_missing(build):
    path = build / "frames" / "rig-rec1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"counts": {}, "rejects": {}}))
    found = audit(build).findings
    assert {f.rule for f in found} == {"counts"}
    assert {f.message for f in found} == {
        "it counts 0 frames, there are 18",
        "it counts 0 rejects, there are 1",
        "of what was left out it counts 0 unreadable, not 1",
    }


def test_frames_of_an_evaluation_set_are_counted(build):
    change_rows(build, "frames", "rig-rec1", "frames", lambda rows: rows[0].update(flags=["evaluation"]))
    change_commit(build, "frames/rig-rec1", counts={ODD: 1})
    assert audit(build).findings == ()
    change_commit(build, "frames/rig-rec1", counts={ODD: 5})
    assert_only_finding(build, "counts", message=f"it counts 5 {ODD}, there are 1")


def test_kinds_of_pairs_in_a_shard_are_counted(build):
    rows = Build(build).table("pairs").to_pylist()
    kinds = {row["key"]: row["kind"] for row in rows}
    index = Build(build).table("index", columns=["key"])["key"].to_pylist()[:15]  # this shard is the first of all
    across = sum(kinds[key] == "cross_view" for key in index)
    change_commit(build, f"shards/{SHARD}", counts={"cross_view": across, "cross_pose": 15 - across})
    assert audit(build).findings == ()
    change_commit(build, f"shards/{SHARD}", counts={"cross_view": across + 1})
    message = f"it counts {across + 1} cross_view pairs, there are {across}"
    assert_only_finding(build, "counts", where=f"shards/{SHARD}.json", message=message)


def summed(build, stage):
    done = Build(build).commits(stage)
    counts, rejects = {}, {}
    for commit in done:
        for sums, told in ((counts, commit.counts), (rejects, commit.rejects)):
            for name, count in told.items():
                sums[name] = sums.get(name, 0) + count
    return {"units": len(done), "counts": counts, "rejects": rejects, "seconds": 1.5}


def test_sums_of_a_stage(build):
    told = summed(build, "crops")
    write_json(build / "crops" / "stats.json", told)
    assert audit(build).findings == ()
    for name, wrong in (("units", 7), ("counts", {"crops": 3}), ("rejects", {})):
        write_json(build / "crops" / "stats.json", told | {name: wrong})
        found = assert_only_finding(build, "counts", severity=Severity.WARNING, where="crops/stats.json")
        assert found.message == f"its {name} are not the sums of the commits"
        assert mend(found).startswith("run `make crop` again")


@pytest.mark.parametrize(
    "text", ["", "[]", "7", '{"units": 3}', '{"units": 1, "counts": 3, "rejects": {}}', "[" * 100_000]
)
def test_sums_that_do_not_read(build, text):
    (build / "crops" / "stats.json").write_text(text)
    assert assert_only_finding(build, "counts", severity=Severity.WARNING).message == "it does not read"


def test_sums_of_a_stage_whose_commits_do_not_all_read_are_not_judged(build):
    write_json(build / "crops" / "stats.json", summed(build, "crops"))
    (build / "crops" / "rig-rec1.json").write_text("{")
    assert "counts" not in {f.rule for f in audit(build).findings}


def test_what_the_writers_of_the_build_count_is_right(build):
    add_crop(build)
    assert audit(build).findings == ()


@pytest.mark.parametrize("table", ["crops", "tar"])
def test_a_commit_that_tells_of_another_version(build, table):
    path = build / ("crops/rig-rec1.json" if table == "crops" else f"shards/{SHARD}.json")
    told = json.loads(path.read_text())
    told["files"] = [file | {"version": 9} if file["table"] == table else file for file in told["files"]]
    path.write_text(json.dumps(told))
    found = assert_only_finding(build, "commit", table=table, where=str(path.relative_to(build)))
    assert found.message.startswith(f"the commit tells version 9 of {table}, which is at version ")
