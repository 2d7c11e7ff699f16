"""Each rule is given a build with one thing broken, and must say that and nothing else."""

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from manifests import table as tables
from manifests.audit.findings import RULES, Finding, Severity, fold
from manifests.audit.prove import audit
from manifests.build import STAGES
from manifests.commit import UnitWriter
from manifests.doors import door
from manifests.errors import ManifestError
from manifests.sample import unpack_cells
from manifests.schema import CELLS
from manifests.types import Reason, Reject
from tests.support.build_folder import (
    STAMP,
    add_crop,
    assert_only_finding,
    change_rows,
    change_samples,
    make_build,
    recommit,
    write_raw,
)

SHARD = "train-rig-body-000000"


def test_an_honest_build_passes_without_any_finding(honest):
    seen = []
    result = audit(honest, progress=lambda *step: seen.append(step))
    assert result.findings == ()
    assert result.passed
    assert {what: total for what, _, total in seen} == {"files": 31, "rows": 3, "images": 54, "shards": 9}
    assert all(done <= total for _, done, total in seen)


def test_stats_count_what_was_written(honest):
    stats = audit(honest).stats
    assert stats["rows"] == {"frames": 54, "crops": 54, "pairs": 117, "rejects": 4}
    # 6 instants x C(3, 2) views; segments of 4 and 2 instants in each of 3 views: 3 x (6 + 1)
    assert {(row["source"], row["split"], row["kind"]): row["rows"] for row in stats["pairs"]} == {
        (source, split, kind): rows
        for source, split in (("rig", "train"), ("rig", "val"), ("synthetic", "train"))
        for kind, rows in (("cross_view", 18), ("cross_pose", 21))
    }
    assert [(r["stage"], r["source"], r["reason"], r["rows"]) for r in stats["rejects"]] == [
        ("crops", "rig", "frozen", 2),
        ("frames", "rig", "unreadable", 2),
    ]
    angles = stats["histograms"]["view_angle_rad"]
    assert (sum(angles["counts"]), angles["unknown"]) == (54, 0)
    assert angles["counts"][3] == 36  # 0.6 rad = 34 degrees
    assert sum(stats["histograms"]["dt_s"]["counts"]) == 63
    assert stats["shards"]["rows"] == 117
    json.dumps(stats)  # plain values


def test_silhouettes_are_told_by_source_and_by_who_drew_them(honest, build):
    table = pa.concat_tables([tables.read("crops", path) for path in sorted(honest.glob("*/*.crops.parquet"))])
    told = {(row["source"], row["drawn_by"]): row for row in audit(honest).stats["silhouettes"]}
    assert sum(row["crops"] for row in told.values()) == table.num_rows
    for (source, drawn_by), row in told.items():
        mine = table.filter(pc.and_(pc.equal(table["source"], source), pc.equal(table["silhouette_from"], drawn_by)))
        assert row["crops"] == mine.num_rows
        assert row["coverage"][1] == pytest.approx(np.median(mine["coverage"].to_numpy()), abs=1e-4)
        shares = mine["coverage"].to_numpy()
        assert row["histogram"] == [((shares >= k / 20) & (shares < (k + 1) / 20)).sum() for k in range(20)]
        assert row["agreement"] is None, "no box is the dataset's here"

    def boxed(rows):
        """The dataset's box is the silhouette's own in half of the crops, and another place in the others."""
        for number, row in enumerate(rows):
            cells = np.argwhere(unpack_cells(row["silhouette"]))
            (y0, x0), (y1, x1) = cells.min(axis=0), cells.max(axis=0) + 1
            left, top, right, _ = row["square_xyxy_px"]
            size = (right - left) / CELLS
            box = np.array([x0, y0, x1, y1]) if number % 2 else np.array([0, 0, 3, 3])
            row |= {"box_from": "dataset", "box_xyxy_px": (box * size + [left, top] * 2).tolist()}

    change_rows(build, "crops", "rig-rec1", "crops", boxed)
    rows = {row["source"]: row for row in audit(build).stats["silhouettes"]}
    assert (rows["rig"]["astray"], rows["synthetic"]["astray"]) == (0.5, None)
    assert rows["rig"]["agreement"] > 0.4
    doubted = [f for f in audit(build).findings if f.rule == "drawn"]
    assert [(f.severity, f.where, f.count) for f in doubted] == [(Severity.WARNING, "source rig", 9)]
    assert doubted[0].message.startswith("9 of 18 crops have a silhouette beside the dataset's box")


def test_people_without_silhouettes_are_warned_of(build):
    """Of bodies only: nobody draws hands where the dataset has no masks."""

    def bare(rows):
        return [row | {"silhouette": bytes(512), "silhouette_from": "none", "coverage": 0.0} for row in rows]

    for unit in ("rig-rec1", "rig-rec2"):
        change_rows(build, "crops", unit, "crops", bare)
    doubted = [f for f in audit(build).findings if f.rule == "drawn"]
    assert [(f.severity, f.where, f.count) for f in doubted] == [(Severity.WARNING, "source rig", 36)]


def test_two_builds_and_two_audits_say_the_same(honest, tmp_path):
    other = make_build(tmp_path / "again")
    files = {path.relative_to(honest): path.read_bytes() for path in honest.rglob("*") if path.is_file()}
    assert files == {path.relative_to(other): path.read_bytes() for path in other.rglob("*") if path.is_file()}
    assert audit(honest, threads=1) == audit(other, threads=3)


def test_nothing_to_audit_is_an_error_with_a_hint(tmp_path):
    with pytest.raises(ManifestError, match=r"no build is here(?s:.)*give the OUT folder"):
        audit(tmp_path)


# --- files and commits ---


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "the plan does not read: "),
        ("[" * 100_000, "the plan does not read: "),
        ("\udcff", "the plan does not read: "),
        ("[]", "the plan holds no JSON object but a list"),
        ("{}", "the plan lacks `units` and `fingerprint`"),
        ('{"units": ["rig-rec1"]}', "the plan lacks `fingerprint`"),
        ('{"units": "rig-rec1", "fingerprint": "a"}', "the plan's `units` are no list of names"),
        ('{"units": ["rig-rec1"], "fingerprint": 3}', "the plan's `fingerprint` is no text"),
        ('{"units": [], "fingerprint": "a", "own": {"b": {}}}', "the plan's `own` or `packed` do not tell"),
    ],
)
def test_plan_that_does_not_read(build, text, told):
    (build / "frames" / "plan.json").write_text(text, errors="surrogateescape")
    found = assert_only_finding(build, "plan", severity=Severity.ERROR, where="frames/plan.json")
    assert found.message.startswith(told)


def test_plan_that_is_missing(build):
    (build / "pairs" / "plan.json").unlink()
    assert "missing" in assert_only_finding(build, "plan", where="pairs/plan.json").message


@pytest.mark.parametrize("text", ["", "7", "[]", '{"files": 3}', '{"files": [], "unit": "rig-rec3"}'])
def test_commit_that_does_not_read(build, text):
    (build / "frames" / "rig-rec3.json").write_text(text)
    assert_only_finding(build, "commit", where="frames/rig-rec3.json")


def test_commit_that_names_a_file_elsewhere(build):
    path = build / "frames" / "rig-rec3.json"
    path.write_text((build / "frames" / "rig-rec1.json").read_text().replace('"rig-rec1', '"../frames/rig-rec1'))
    assert_only_finding(build, "commit", where="frames/rig-rec3.json")


def test_commit_of_another_stage(build):
    shutil.copy(build / "frames" / "rig-rec1.json", build / "pairs" / "rig-rec3.json")
    path = build / "pairs" / "rig-rec3.json"
    path.write_text(path.read_text().replace('"rig-rec1', '"rig-rec3'))
    assert (
        assert_only_finding(build, "commit", where="pairs/rig-rec3.json").message == "it is a commit of stage 'frames'"
    )


def test_commit_of_another_recipe(build):
    path = build / "pairs" / "rig-rec1.json"
    path.write_text(path.read_text().replace(STAMP["pairs"], "0" * 64))
    assert_only_finding(build, "fingerprint", where="pairs/rig-rec1.json")


def test_planned_unit_without_commit(build):
    path = build / "frames" / "plan.json"
    plan = json.loads(path.read_text())
    path.write_text(json.dumps(plan | {"units": [*plan["units"], "rig-rec3"]}))
    first, second = audit(build).findings
    assert (first.rule, first.severity, first.where, first.examples) == (
        "uncommitted", Severity.ERROR, "frames/", ("rig-rec3",)
    )  # fmt: skip
    assert (second.rule, second.severity, second.where) == ("unchecked", Severity.WARNING, "frames")


def test_missing_rows_of_an_uncommitted_unit_are_not_told_twice(build):
    (build / "crops" / "rig-rec1.json").unlink()
    found = {finding.rule: finding for finding in audit(build).findings}
    assert set(found) == {"uncommitted", "unchecked", "stray"}
    assert found["stray"].examples == ("crops/rig-rec1.crops.parquet", "crops/rig-rec1.rejects.parquet")


def test_committed_unit_that_nobody_planned(build):
    path = build / "frames" / "plan.json"
    plan = json.loads(path.read_text())
    path.write_text(json.dumps(plan | {"units": plan["units"][1:]}))
    assert_only_finding(build, "unplanned", severity=Severity.WARNING, examples=("rig-rec1",))


def test_strays_are_warned_of(build):
    (build / "crops" / "_tmp" / "rig-rec1.abc").mkdir(parents=True)
    (build / "crops" / "rig-old.crops.parquet").write_bytes(b"")
    assert_only_finding(
        build, "stray", severity=Severity.WARNING, count=2, examples=("crops/rig-old.crops.parquet", "crops/_tmp")
    )


def test_missing_file(build):
    (build / "frames" / "rig-rec1.rejects.parquet").unlink()
    assert_only_finding(build, "missing", table="rejects", where="frames/rig-rec1.rejects.parquet")


def test_one_bit_of_a_tar_beside_its_samples(build):
    path = build / "shards" / f"{SHARD}.tar"
    data = bytearray(path.read_bytes())
    last = tables.read("index", build / "shards" / f"{SHARD}.index.parquet").to_pylist()[-1]["json"]
    assert sum(last.values()) % 512
    data[sum(last.values())] ^= 1  # in the padding: no sample is hurt, and still the hash must tell
    path.write_bytes(data)
    assert_only_finding(build, "hash", table="tar", where=f"shards/{SHARD}.tar")


@pytest.mark.parametrize("recommitted", [False, True])
def test_tar_cut_between_samples(build, recommitted):
    path = build / "shards" / f"{SHARD}.tar"
    index = tables.read("index", build / "shards" / f"{SHARD}.index.parquet").to_pylist()
    path.write_bytes(path.read_bytes()[: index[-1]["target_jpg"]["offset"] - 512])  # stock readers do not notice
    if recommitted:
        recommit(build, "shards", SHARD)
    found = {finding.rule: finding for finding in audit(build).findings}
    assert set(found) == ({"tar"} if recommitted else {"hash", "tar"})
    assert found["tar"].message == "the tar does not end where its last sample does"


def test_tar_with_fewer_samples_than_committed(build):
    change_samples(build, SHARD, lambda samples: samples[:-1], keep_index=True)
    assert (
        assert_only_finding(build, "rows", table="tar").message == "it holds 70 members, its commit and index tell 75"
    )


def test_tar_cut_inside_a_member(build):
    path = build / "shards" / f"{SHARD}.tar"
    middle = (
        tables.read("index", build / "shards" / f"{SHARD}.index.parquet").to_pylist()[7]["reference_jpg"]["offset"] + 9
    )
    path.write_bytes(path.read_bytes()[:middle])
    assert {finding.rule for finding in audit(build).findings} == {"hash", "unreadable"}


def test_empty_tar(build):
    (build / "shards" / f"{SHARD}.tar").write_bytes(b"")
    assert {finding.rule for finding in audit(build).findings} == {"hash", "unreadable"}


def test_rows_other_than_committed(build):
    path = build / "frames" / "rig-rec1.json"
    raw = json.loads(path.read_text())
    raw["files"] = [file | {"rows": file["rows"] + 1} if file["table"] == "frames" else file for file in raw["files"]]
    path.write_text(json.dumps(raw))
    assert_only_finding(build, "rows", table="frames", message="it has 18 rows, its commit tells 19")


def test_table_of_another_version(build):
    path = build / "frames" / "rig-rec1.rejects.parquet"
    data = tables.read("rejects", path)
    write_raw(
        build, "frames", "rig-rec1", "rejects", data.replace_schema_metadata({"table": "rejects", "version": "0"})
    )
    assert "rejects version 0, not rejects version 2" in assert_only_finding(build, "schema", table="rejects").message


def test_table_with_another_column(build):
    data = tables.read("rejects", build / "frames" / "rig-rec1.rejects.parquet")
    odd = data.set_column(2, "reason", pa.array([1])).replace_schema_metadata(data.schema.metadata)
    write_raw(build, "frames", "rig-rec1", "rejects", odd)
    assert "['reason'] differ from the schema" in assert_only_finding(build, "schema").message


def test_nulls_where_none_may_be(build):
    data = tables.read("rejects", build / "frames" / "rig-rec1.rejects.parquet")
    holey = pa.Table.from_arrays(
        [pa.array([None], pa.string()), *data.columns[1:]],
        schema=pa.schema([f.with_nullable(f.name == "stage" or f.nullable) for f in data.schema], data.schema.metadata),
    )
    write_raw(build, "frames", "rig-rec1", "rejects", holey)
    assert_only_finding(build, "schema", table="rejects")


@pytest.mark.parametrize("table", ["frames", "crops", "pairs"])
@pytest.mark.parametrize("how", ["cut", "garbage", "empty", "flipped"])
def test_damaged_table_is_a_finding_and_the_rest_is_audited(build, table, how):
    path = build / table / f"rig-rec1.{table}.parquet"
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[40 : len(data) // 2] = bytes(255 - byte for byte in data[40 : len(data) // 2])
    path.write_bytes({"cut": data[: len(data) // 2], "garbage": b"PAR1" * 99, "empty": b"", "flipped": data}[how])
    change_rows(build, "pairs", "rig-rec2", "pairs", lambda rows: rows[0].update(dt_s=99.0))
    found = {finding.rule for finding in audit(build).findings}
    assert {"hash", "unreadable", "time"} <= found
    assert found <= {"hash", "unreadable", "time", "unchecked", "sample_json"}


@pytest.mark.parametrize("seed", range(6))
def test_random_damage_anywhere_never_crashes_and_never_passes(build, seed):
    rng = np.random.default_rng(seed)
    files = sorted(path for path in build.rglob("*") if path.suffix in (".parquet", ".tar", ".json"))
    path = files[rng.integers(len(files))]
    data = bytearray(path.read_bytes())
    for place in rng.integers(len(data), size=20):
        data[place] ^= 0x55
    path.write_bytes(data)
    assert not audit(build, threads=2).passed


# --- rows ---


def test_key_used_twice(build):
    change_rows(build, "frames", "rig-rec1", "frames", lambda rows: [*rows, rows[0]])
    assert_only_finding(build, "unique", table="frames", count=1, examples=("rig/train/rec1/00000000/cam1/all",))


def test_pair_key_used_twice_across_units(build):
    rows = tables.read("pairs", build / "pairs" / "rig-rec1.pairs.parquet").slice(0, 1).to_pylist()
    change_rows(build, "pairs", "rig-rec2", "pairs", lambda own: [*own, *rows])
    assert_only_finding(build, "unique", table="pairs")


def test_key_that_its_columns_do_not_spell(build):
    key = add_crop(build)
    change_rows(build, "crops", "rig-rec1", "crops", lambda rows: rows[-1].update(key=key.replace("/p0", "/p1")))
    assert_only_finding(build, "key", table="crops", count=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"silhouette_from": "guess"}, "silhouette_from is none of dataset, vertices, keypoints, render, parser, none"),
        ({"box_from": "guess"}, "box_from is none of"),
        ({"coverage": 1.5}, r"coverage is not in [0, 1]"),
        ({"mean": float("nan")}, r"mean is not in [0, 255]"),
    ],
)
def test_values_outside_what_is_known(build, changes, message):
    key = add_crop(build, **changes)
    finding = assert_only_finding(build, "value", table="crops", where=next(iter(changes)), examples=(key,))
    assert message in finding.message


def test_reject_for_no_known_reason(build):
    change_rows(build, "crops", "rig-rec1", "rejects", lambda rows: rows[0].update(reason="mood"))
    assert_only_finding(build, "value", table="rejects", where="reason")


def test_crop_of_no_frame(build):
    key = add_crop(build, frame_key="rig/train/rec1/00000077/cam1/all")
    assert_only_finding(build, "reference", table="crops", where="frame_key", count=1, examples=(key,))


def test_reject_of_a_picture_that_was_not_there(build):
    key = "rig/train/rec1/00000006/cam1/t1"
    change_rows(build, "crops", "rig-rec1", "rejects", lambda rows: rows[0].update(key=key))
    told = assert_only_finding(build, "reference", table="rejects", where="crops/rig-rec1.rejects.parquet", count=1)
    assert (told.message, told.examples) == ("what crops left out is in none of its frames", (key,))


@pytest.mark.parametrize(("place", "is_there"), [("rig/train/rec1", True), ("rig/train/rec2", False), ("rig", False)])
def test_reject_of_a_sequence_of_which_there_is_no_crop(build, place, is_there):
    pairs = tables.read("pairs", build / "pairs" / "rig-rec1.pairs.parquet")
    with UnitWriter(build / "pairs", stage="pairs", unit="rig-rec1", fingerprint=STAMP["pairs"]) as out:
        out.table("pairs", pairs)
        out.reject([Reject("pairs", place, Reason.NO_PARTNER)])
    if is_there:
        assert audit(build).findings == ()
    else:
        assert_only_finding(build, "reference", table="rejects", where="pairs/rig-rec1.rejects.parquet", count=1)


def test_pair_of_no_crop(build):
    def change(rows):
        rows[0].update(target="rig/train/rec1/00000077/cam1/p0")

    change_rows(build, "pairs", "rig-rec1", "pairs", change)
    first, second = audit(build).findings
    assert (first.rule, first.table, first.where, first.count) == ("reference", "pairs", "target", 1)
    assert (second.rule, second.message) == ("sample_json", "its JSON differs from its pair in target.key")


@pytest.mark.parametrize("column", ["group", "domain", "licence"])
def test_crop_that_disagrees_with_its_frame(build, column):
    key = add_crop(build, **{column: "hand"})
    assert_only_finding(build, "crop_frame", where=column, examples=(key,))


def repair(build, kind, change):
    """Change the first train pair of a kind, in its table and in its sample, so that only the rule about pairs can tell."""
    changed = {}

    def of_pair(rows):
        row = next(row for row in rows if row["kind"] == kind)
        change(row)
        changed.update(row)

    change_rows(build, "pairs", "rig-rec1", "pairs", of_pair)
    crops = {row["key"]: row for row in tables.read("crops", build / "crops" / "rig-rec1.crops.parquet").to_pylist()}

    def of_sample(sample):
        if sample.key != changed["key"]:
            return sample
        target, reference = crops[changed["target"]], crops[changed["reference"]]
        meta = {
            name: changed[name] for name in ("kind", "source", "licence", "domain", "split", "dt_s", "view_angle_rad")
        }
        return replace(
            sample,
            meta=meta | {"target": {"key": target["key"]}, "reference": {"key": reference["key"]}},
            target_jpg=target["jpeg"],
            target_sil=target["silhouette"],
            reference_jpg=reference["jpeg"],
            reference_sil=reference["silhouette"],
        )

    for path in sorted((build / "shards").glob("train-rig-*.tar")):
        change_samples(build, path.stem, lambda samples: [of_sample(sample) for sample in samples])
    return changed["key"]


@pytest.mark.parametrize(
    ("kind", "changes", "where", "message"),
    [
        ("cross_view", {"target": "00000001/cam1", "reference": "00000002/cam2"}, "instant", "joins two instants"),
        ("cross_view", {"target": "00000001/cam1", "reference": "00000001/cam1"}, "view", "joins a camera with itself"),
        (
            "cross_pose", {"target": "00000001/cam1", "reference": "00000002/cam2", "dt_s": 0.04}, "view",
            "joins two cameras",
        ),
        (
            "cross_pose", {"target": "00000001/cam1", "reference": "00000001/cam1", "dt_s": 0.0}, "instant",
            "joins an instant with itself",
        ),
        (
            "cross_pose", {"target": "00000003/cam1", "reference": "00000004/cam1", "dt_s": 0.04}, "segment",
            "crosses a cut or a time gap",
        ),
    ],
)  # fmt: skip
def test_pair_of_the_wrong_crops(build, kind, changes, where, message):
    crops = {r: f"rig/train/rec1/{changes[r]}/p0" for r in ("target", "reference")}
    key = repair(build, kind, lambda row: row.update(changes | crops))
    finding = assert_only_finding(build, kind, table="pairs", where=where, count=1, examples=(key,))
    assert message in finding.message


@pytest.mark.parametrize("kind", ["cross_view", "cross_pose"])
def test_pair_of_two_people(build, kind):
    def other_person(rows):
        for row in rows:
            if row["view"] == "cam3":
                row.update(track="p1", key=row["key"].replace("/p0", "/p1"))

    honest_rows = tables.read("pairs", build / "pairs" / "rig-rec1.pairs.parquet").to_pylist()
    change_rows(build, "crops", "rig-rec1", "crops", other_person)
    if kind == "cross_pose":  # the person changes within a camera, from one instant to the next
        change_rows(
            build, "crops", "rig-rec1", "crops",
            lambda rows: [r | {"track": "p0", "key": r["key"].replace("/p1", "/p0")} if r["instant"] else r for r in rows],
        )  # fmt: skip

    def renamed(key):
        _, _, _, instant, view, _ = key.split("/")
        return key.replace("/p0", "/p1") if view == "cam3" and (kind == "cross_view" or not int(instant)) else key

    change_rows(
        build, "pairs", "rig-rec1", "pairs",
        lambda rows: [r | {"target": renamed(r["target"]), "reference": renamed(r["reference"])} for r in rows],
    )  # fmt: skip
    found = [f for f in audit(build).findings if f.rule in ("cross_view", "cross_pose")]
    assert {(f.rule, f.where) for f in found} >= {(kind, "track")}
    wrong = sum(
        r["kind"] == kind and (renamed(r["target"]) == r["target"]) != (renamed(r["reference"]) == r["reference"])
        for r in honest_rows
    )
    assert next(f.count for f in found if f.rule == kind) == wrong > 0


def test_pair_of_two_sequences(build):
    rows = tables.read("pairs", build / "pairs" / "rig-rec2.pairs.parquet").to_pylist()
    change_rows(
        build, "pairs", "rig-rec1", "pairs", lambda own: own[0].update(reference=rows[0]["reference"])
    )  # a person of the val split seen in training
    found = {(f.rule, f.where) for f in audit(build).findings if f.table == "pairs"}
    assert found == {
        ("cross_pose", "sequence"), ("pair_columns", "sequence"), ("pair_columns", "subject"), ("pair_split", "split"),
    }  # fmt: skip


def test_pair_that_claims_another_split(build):
    key = repair(build, "cross_view", lambda row: row.update(split="test"))
    first, second = audit(build).findings
    assert (first.rule, first.examples) == ("pair_split", (key,))
    assert (second.rule, second.examples) == ("shard_columns", (key,))


def test_pair_that_claims_another_domain(build):
    key = repair(build, "cross_view", lambda row: row.update(domain="hand"))
    first, second = audit(build).findings
    assert (first.rule, first.where, first.examples) == ("pair_columns", "domain", (key,))
    assert second.rule == "shard_columns"


@pytest.mark.parametrize(("kind", "dt_s"), [("cross_view", 0.04), ("cross_pose", 0.04)])
def test_pair_with_the_wrong_time(build, kind, dt_s):
    key = repair(build, kind, lambda row: row.update(dt_s=dt_s))
    assert_only_finding(build, "time", table="pairs", examples=(key,))


def test_pair_of_an_evaluation_set(build):
    for stage in ("frames", "crops"):
        change_rows(build, stage, "rig-rec1", stage, lambda rows: [row | {"flags": ["evaluation"]} for row in rows])
    found = [finding for finding in audit(build).findings if finding.rule == "evaluation"]
    assert [(f.severity, f.where) for f in found] == [(Severity.ERROR, "flags")]
    pairs = tables.read("pairs", build / "pairs" / "rig-rec1.pairs.parquet")
    assert found[0].count == pairs.num_rows > 0


def test_unknown_time_is_no_finding(build):
    repair(build, "cross_pose", lambda row: row.update(dt_s=None))
    assert audit(build).findings == ()


@pytest.mark.parametrize(("column", "shared"), [("group", "rec1"), ("subject", "rig-rec1")])
def test_group_or_subject_in_two_splits(build, column, shared):
    for stage in ("frames", "crops"):
        change_rows(build, stage, "rig-rec2", stage, lambda rows: [row | {column: shared} for row in rows])
    if column == "subject":
        change_rows(build, "pairs", "rig-rec2", "pairs", lambda rows: [row | {column: shared} for row in rows])
    assert_only_finding(build, "leak", where=column, severity=Severity.ERROR, examples=(f"rig/{shared}",))


def test_subject_in_two_splits_of_the_dataset_s_own_is_a_warning(build):
    for stage, unit in itertools.product(("frames", "crops"), ("rig-rec1", "rig-rec2")):
        change_rows(
            build,
            stage,
            unit,
            stage,
            lambda rows: [row | {"subject": "bo", "flags": ["official_split"]} for row in rows],
        )
    found = [finding for finding in audit(build).findings if finding.rule == "leak"]
    assert [(f.where, f.severity, f.examples) for f in found] == [("subject", Severity.WARNING, ("rig/bo",))]


@pytest.mark.parametrize("group", ["same", "other"])
def test_sequence_in_two_splits(build, group):
    """Frames of `rec1` under `val`: an error when its group comes along; only a reused name when the groups differ."""
    rows = [
        row | {
            "split": "val", "key": row["key"].replace("/train/", "/val/"), "subject": None, "media": f"val/{row['media']}",
            "group": row["group"] if group == "same" else "somebody-else",
        }
        for row in tables.read("frames", build / "frames" / "rig-rec1.frames.parquet").to_pylist()
    ]  # fmt: skip
    change_rows(build, "frames", "rig-rec2", "frames", lambda own: [*own, *rows])
    found = {f.where: f.severity for f in audit(build).findings if f.rule == "leak"}
    assert found == (
        {"group": Severity.ERROR, "sequence": Severity.ERROR} if group == "same" else {"sequence": Severity.WARNING}
    )


def test_same_names_in_two_sources_are_no_leak(build):
    """Two datasets may both have a `rec2`, one for training and one for validation."""
    for table in ("frames", "crops"):
        change_rows(
            build, "renders", "synthetic-s000000", table,
            lambda rows: [row | {"group": "rec2", "subject": "rig-rec2"} for row in rows],
        )  # fmt: skip
    change_rows(
        build, "pairs", "synthetic-s000000", "pairs", lambda rows: [row | {"subject": "rig-rec2"} for row in rows]
    )
    assert audit(build).findings == ()


# --- findings ---


def test_many_findings_alike_are_folded_and_none_is_lost():
    files = [
        Finding(rule="hash", severity=Severity.ERROR, table="tar", where=f"shards/s{i:02}.tar", message="differs")
        for i in reversed(range(20))
    ]
    note = Finding(rule="stray", severity=Severity.WARNING, table="", where="crops/", message="files")
    first, second = fold([note, *files])
    assert (first.count, first.where) == (20, "shards/s00.tar and 19 more places")
    assert first.examples == tuple(f"shards/s{i:02}.tar" for i in range(5))
    assert second == note
    assert fold(reversed([note, *files[:3]])) == fold([*files[:3], note])


def test_causes_come_before_what_follows_from_them(build):
    """Followed from the top, what mends one finding does not undo what mended another."""
    for stage, unit in (("shards", "train-rig-body-000000"), ("pairs", "rig-rec1"), ("crops", "rig-rec1")):
        (build / stage / f"{unit}.json").unlink()
    path = build / "crops" / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"own": {"rig-rec1": {"inputs": {"frames": "0" * 64}}}}))
    (build / "renders" / "synthetic-s000000.crops.parquet").unlink()
    found = audit(build).findings
    errors = [finding.stage for finding in found if finding.severity is Severity.ERROR]
    order = [*STAGES, ""]
    assert {"renders", "crops", "pairs", "shards"} <= set(errors)
    assert errors == sorted(errors, key=order.index)
    assert [f.severity for f in found] == sorted((f.severity for f in found), key=list(Severity).index)
    rules = [finding.rule for finding in found if finding.stage == "crops" and finding.severity is Severity.ERROR]
    assert rules.index("behind") < rules.index("uncommitted")


def test_a_finding_names_a_known_rule_and_the_command_that_shows_it():
    with pytest.raises(ValueError, match="no rule named taste"):
        Finding(rule="taste", severity=Severity.ERROR, table="", where="", message="")
    row = Finding(rule="key", severity=Severity.ERROR, table="crops", where="", message="", examples=("a/b", "c"))
    assert row.command("a b") == door("manifests", "show", "a b", "--table", "crops", "--key", "a/b")
    file = Finding(rule="hash", severity=Severity.ERROR, table="tar", where="shards/a.tar", message="")
    assert file.command("out") == "ls -l out/shards/a.tar"


def test_every_rule_is_provoked_somewhere_here():
    source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [rule for rule in RULES if f'"{rule}"' not in source] == []


def test_audit_reads_what_the_writers_of_the_build_write(tmp_path):
    """A unit committed by `UnitWriter` beside the others is audited like them."""
    build = make_build(tmp_path / "out")
    with UnitWriter(build / "frames", stage="frames", unit="rig-rec3", fingerprint=STAMP["frames"]) as out:
        out.table("frames", tables.empty("frames"))
    assert_only_finding(build, "unplanned", examples=("rig-rec3",))
    assert pq.read_metadata(build / "frames" / "rig-rec3.frames.parquet").num_rows == 0
