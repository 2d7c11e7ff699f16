"""Pixels and shards: each rule is given a build with one thing broken, and must say that and nothing else."""

import json
import shutil
import struct
from dataclasses import replace

import numpy as np
import pytest
import simplejpeg

from manifests import table as tables
from manifests.audit.findings import Severity
from manifests.audit.prove import audit
from manifests.build import STAGES
from manifests.sample import read_tar, write_tar
from tests.support.build_folder import (
    add_crop,
    assert_only_finding,
    change_rows,
    change_samples,
    change_shards_table,
    recommit,
)

SHARD = "train-rig-body-000000"


# --- pixels ---


def jpeg_of(width, height):
    return simplejpeg.encode_jpeg(np.zeros((height, width, 3), np.uint8))


def claims_to_be_huge():
    """A small JPEG whose header says 65,500 x 65,500: it must be refused before anything is decoded."""
    data = bytearray(jpeg_of(64, 64))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 65500, 65500)
    return bytes(data)


@pytest.mark.parametrize(
    ("jpeg", "message"),
    [
        (b"", "does not decode"),
        (b"GIF89a", "does not decode"),
        (jpeg_of(64, 64)[:-80], "does not decode"),
        (jpeg_of(64, 48), "is 64 x 48 px"),
        (jpeg_of(32, 32), "is 32 x 32 px, not a square of 64"),
        (claims_to_be_huge(), "says that it is 65500 x 65500 px"),
        (jpeg_of(64, 64) + bytes(5 << 20), "more than any image of ours"),
    ],
)
def test_image_that_does_not_decode(build, jpeg, message):
    key = add_crop(build, jpeg=jpeg)
    finding = assert_only_finding(build, "image", table="crops", where="crops/rig-rec1.crops.parquet", examples=(key,))
    assert message in finding.message


def test_silhouette_of_another_size(build):
    key = add_crop(build, silhouette=bytes(511))
    assert_only_finding(build, "silhouette", table="crops", count=1, examples=(key,))


# --- shards ---


def test_pair_that_is_in_no_shard(build):
    change_samples(build, SHARD, lambda samples: samples[1:])
    fix_ends(build)
    path = build / "shards" / f"{SHARD}.json"
    path.write_text(path.read_text().replace('"rows":15', '"rows":14'))
    recommit(build, "shards", SHARD)
    lost = assert_only_finding(build, "packed", table="pairs", count=1)
    assert lost.message == "a pair is in no shard"


def fix_ends(build):
    keys = tables.read("index", build / "shards" / f"{SHARD}.index.parquet").column("key").to_pylist()
    change_shards_table(build, SHARD, lambda row: row | {"first_pair": keys[0], "last_pair": keys[-1]})


def grow(build, sample):
    change_samples(build, SHARD, lambda samples: [*samples[:1], sample, *samples[1:]])
    path = build / "shards" / f"{SHARD}.json"
    path.write_text(path.read_text().replace('"rows":15', '"rows":16'))
    recommit(build, "shards", SHARD)


def test_pair_that_is_in_two_shards(build):
    other = next(read_tar(build / "shards" / "train-rig-body-000001.tar"))
    grow(build, other)
    finding = assert_only_finding(build, "packed", table="pairs", count=1, examples=(other.key,))
    assert finding.message == "a pair is more than once in the shards"


def test_sample_that_is_no_pair(build):
    stranger = replace(next(read_tar(build / "shards" / f"{SHARD}.tar")), key="rig/train/rec1/v/nobody")
    grow(build, stranger)
    finding = assert_only_finding(build, "packed", table="index", count=1, examples=(stranger.key,))
    assert finding.message == "a sample is no pair"


def test_shard_with_a_pair_of_another_split(build):
    """Whoever trains on `train-*.tar` would learn from a validation pair."""
    moved = "val-rig-body-000000"
    sample = list(read_tar(build / "shards" / f"{moved}.tar"))[1]
    change_samples(build, moved, lambda samples: [s for s in samples if s.key != sample.key])
    path = build / "shards" / f"{moved}.json"
    path.write_text(path.read_text().replace('"rows":15', '"rows":14'))
    recommit(build, "shards", moved)
    grow(build, sample)
    assert_only_finding(
        build, "shard_columns", table="pairs", count=1, where=f"shards/{SHARD}.tar", examples=(sample.key,)
    )


def test_tar_in_another_order_than_its_index(build):
    change_samples(build, SHARD, lambda s: [s[0], s[2], s[1], *s[3:]], keep_index=True)
    found = {finding.rule: finding for finding in audit(build).findings}
    assert set(found) == {"tar", "offset"}
    assert found["tar"].message.startswith("member 5 is ")


def test_index_that_points_beside_a_member(build):
    def shift(rows):
        rows[3]["target_jpg"]["offset"] += 1

    change_rows(build, "shards", SHARD, "index", shift)
    assert_only_finding(build, "offset", table="index", count=1, where=f"shards/{SHARD}.tar")


def test_member_that_is_no_file(build):
    path = build / "shards" / f"{SHARD}.tar"
    data = bytearray(path.read_bytes())
    header = data[:512]
    header[156:157] = b"2"  # a symbolic link
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[:512] = header
    path.write_bytes(data)
    recommit(build, "shards", SHARD)
    assert "is no part of a sample" in assert_only_finding(build, "unreadable", table="tar").message


def change_one(build, **changes):
    changed = []

    def change(samples):
        changed.append(samples[4].key)
        return [replace(sample, **changes) if i == 4 else sample for i, sample in enumerate(samples)]

    change_samples(build, SHARD, change)
    return changed[0]


def test_sample_whose_image_does_not_decode(build):
    key = change_one(build, reference_jpg=jpeg_of(64, 64)[:300])
    finding = assert_only_finding(build, "image", table="index", where=f"shards/{SHARD}.tar", count=1, examples=(key,))
    assert finding.message.startswith("the reference does not decode")


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"target_jpg": jpeg_of(64, 64)}, "image"), ({"target_sil": bytes(512)}, "silhouette")],
)
def test_sample_with_bytes_of_another_crop(build, changes, what):
    key = change_one(build, **changes)
    finding = assert_only_finding(build, "sample_bytes", table="index", count=1, examples=(key,))
    assert finding.message == f"the target's {what} is not its crop's"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "cross_time"}, "differs from its pair in kind"),
        ({"target": {"key": "x"}, "view_angle_rad": 9}, "differs from its pair in view_angle_rad, target.key"),
        ({"reference": None}, "differs from its pair in reference.key"),
    ],
)
def test_sample_whose_json_disagrees(build, change, message):
    meta = list(read_tar(build / "shards" / f"{SHARD}.tar"))[4].meta
    key = change_one(build, meta=meta | change)
    finding = assert_only_finding(build, "sample_json", table="index", count=1, examples=(key,))
    assert finding.message == f"its JSON {message}"


@pytest.mark.parametrize(
    ("json_bytes", "message"),
    [(b"{", "does not parse"), (b"[]", "is no mapping"), (b"[" * 100_000, "does not parse")],
)
def test_sample_whose_json_is_none(build, json_bytes, message, monkeypatch):
    original = json.dumps
    samples = list(read_tar(build / "shards" / f"{SHARD}.tar"))

    def change(samples):
        return samples

    class Raw(dict):
        pass

    marked = replace(samples[0], meta=Raw(samples[0].meta))
    monkeypatch.setattr(
        "manifests.sample.json.dumps",
        lambda value, **how: json_bytes.decode() if isinstance(value, Raw) else original(value, **how),
    )
    path = build / "shards" / f"{SHARD}.tar"
    with path.open("wb") as file:
        index = write_tar(file, [marked, *samples[1:]])
    tables.write("index", tables.from_rows("index", index), build / "shards" / f"{SHARD}.index.parquet")
    monkeypatch.undo()
    recommit(build, "shards", SHARD)
    assert assert_only_finding(build, "sample_json", count=1, examples=(marked.key,)).message == f"its JSON {message}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 14}, "rows differ from"),
        ({"sha256": "0" * 64, "fingerprint": "1" * 64}, "sha256, fingerprint differ from"),
        ({"first_pair": "rig/train/rec1/v/none"}, "first_pair differ from"),
        ({"licence": "public domain"}, "licence differ from"),
    ],
)
def test_shards_table_that_disagrees(build, changes, message):
    change_shards_table(build, SHARD, lambda row: row | changes)
    finding = assert_only_finding(build, "shards_table", table="shards", examples=(SHARD,))
    assert message in finding.message


def test_shards_table_without_a_shard(build):
    path = build / "shards" / "shards.parquet"
    tables.write("shards", tables.read("shards", path).slice(1), path)
    assert_only_finding(build, "shards_table", examples=(SHARD,))


@pytest.mark.parametrize("how", ["missing", "garbage"])
def test_shards_table_that_does_not_read(build, how):
    path = build / "shards" / "shards.parquet"
    path.unlink()
    if how == "garbage":
        path.write_bytes(b"PAR1")
    assert_only_finding(build, "shards_table", where="shards/shards.parquet")


def test_a_build_under_way_is_no_failure(build):
    for stage in ("pairs", "shards"):
        shutil.rmtree(build / stage)
    result = audit(build)
    assert result.passed
    assert [(f.rule, f.severity, f.message) for f in result.findings] == [
        ("unchecked", Severity.INFO, "not run yet: pairs, shards")
    ]


def test_an_empty_stage_is_no_crash(tmp_path):
    for stage in STAGES:
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "plan.json").write_text(json.dumps({"units": [], "fingerprint": "a"}))
    result = audit(tmp_path)
    assert result.passed
    assert result.stats["rows"] == {"frames": 0, "crops": 0, "pairs": 0, "rejects": 0}


def test_further_views_of_a_sample_are_those_of_its_pair(build):
    """A third view in the pair, the tar and the index agrees; other bytes, or none, are told."""
    unit = "rig-rec1"
    samples = list(read_tar(build / "shards" / f"{SHARD}.tar"))
    key = next(sample.key for sample in samples if "/v/" in sample.key and "cam3" not in sample.key)
    view = f"rig/train/rec1/{int(key.split('/')[4].split('-')[0]):08d}/cam3/p0"
    crops = {row["key"]: row for row in tables.read("crops", build / "crops" / f"{unit}.crops.parquet").to_pylist()}
    change_rows(
        build, "pairs", unit, "pairs",
        lambda rows: [row | ({"further": [view]} if row["key"] == key else {}) for row in rows],
    )  # fmt: skip

    def with_view(jpeg):
        def change(samples):
            return [
                replace(one, further=((jpeg, crops[view]["silhouette"]),), meta=one.meta | {"view2": {"key": view}})
                if one.key == key
                else one
                for one in samples
            ]

        change_samples(build, SHARD, change)

    assert {(f.rule, f.examples) for f in audit(build).findings} == {("sample_json", (key,))}
    with_view(crops[view]["jpeg"])
    assert audit(build).findings == ()
    with_view(jpeg_of(64, 64))
    told = assert_only_finding(build, "sample_bytes", table="index", count=1, examples=(key,))
    assert told.message == "the view2's image is not its crop's"
    with_view(crops[view]["jpeg"])

    def shift(rows):
        next(row for row in rows if row["key"] == key)["further"][0]["jpg"]["offset"] += 1

    change_rows(build, "shards", SHARD, "index", shift)
    assert_only_finding(build, "offset", table="index", count=1, examples=(key,))


def test_a_sound_tar_is_proven_by_columns_alone(build, monkeypatch):
    """Header by header a walk takes several times as long: it is left for tars that are not as listed."""

    def walked(tar):
        raise AssertionError(f"{tar.where} was walked through")

    monkeypatch.setattr("manifests.audit.shards.members_of", walked)
    assert audit(build).findings == ()


def test_blocks_of_samples_leave_the_same_findings(build, monkeypatch):
    """However few samples are held against the rest together; and views may begin in any block."""
    change_one(build, target_sil=bytes(512), meta={"kind": "x"}, reference_jpg=jpeg_of(64, 64))
    whole = audit(build).findings
    assert {f.rule for f in whole} == {"sample_json", "sample_bytes"}
    monkeypatch.setattr("manifests.audit.tars.AT_ONCE", 2)
    assert audit(build).findings == whole


def test_tar_with_other_bytes_than_its_commit_tells(build):
    path = build / "shards" / f"{SHARD}.tar"
    data = bytearray(path.read_bytes())
    place = tables.read("index", path.with_suffix(".index.parquet")).to_pylist()[0]["json"]
    data[place["offset"] + place["size"]] ^= 1  # behind a member, where nothing else is held against anything
    path.write_bytes(data)
    assert_only_finding(build, "hash", table="tar", where=f"shards/{SHARD}.tar")


def test_text_that_reads_like_a_number_is_none(build):
    meta = list(read_tar(build / "shards" / f"{SHARD}.tar"))[4].meta
    key = change_one(build, meta=meta | {"view_angle_rad": repr(float(meta["view_angle_rad"]))})
    finding = assert_only_finding(build, "sample_json", table="index", count=1, examples=(key,))
    assert finding.message == "its JSON differs from its pair in view_angle_rad"


def test_pairs_are_not_read_again_where_there_is_no_shard(build, monkeypatch):
    """Of ten million pairs that takes a gigabyte."""
    shutil.rmtree(build / "shards")
    monkeypatch.setattr("manifests.audit.shards.Paired.of", None)
    assert_only_finding(build, "unchecked", message="not run yet: shards")
