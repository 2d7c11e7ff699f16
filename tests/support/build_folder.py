"""An honest build folder in miniature, through the writers of `manifests`, and ways to break one thing of it.

Two recordings of a rig (three cameras, six instants, one person; `rec1` train, `rec2` val) and one rendered scene: frames,
crops, pairs of both kinds, nine shards. Everything follows from names, so two builds are byte-identical.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg

from manifests import table as tables
from manifests.audit.findings import Finding
from manifests.audit.prove import audit
from manifests.commit import Commit, UnitWriter, commits, read_commit
from manifests.files import sha256_of, write_json
from manifests.recipes import canonical_json, fingerprint
from manifests.sample import Sample, pack_cells, write_tar
from manifests.schema import CELLS
from manifests.seeds import rng_for
from manifests.types import EVERYBODY, FrameKey, Reason, Reject, Split

SIZE_PX = 64
VIEWS, INSTANTS = ("cam1", "cam2", "cam3"), range(6)
STAMP = {stage: fingerprint(stage) for stage in ("frames", "renders", "crops", "pairs", "shards")}
RECORDINGS = {"rec1": Split.TRAIN, "rec2": Split.VAL}
Rows = list[dict[str, Any]]


def make_build(root: Path, *, rows_per_shard: int = 15, jpeg_quality: int = 90) -> Path:
    """Write the build and return its root."""
    pairs: dict[str, Rows] = {}
    crops: dict[str, Any] = {}
    for sequence, split in RECORDINGS.items():
        unit = f"rig-{sequence}"
        seen = _frames("rig", sequence, split, track=EVERYBODY)
        with UnitWriter(_folder(root, "frames"), stage="frames", unit=unit, fingerprint=STAMP["frames"]) as out:
            out.table("frames", tables.from_rows("frames", seen))
            out.reject([Reject("frames", f"rig/{sequence}/extra.avi", Reason.UNREADABLE, "no video stream")])
        cut = [_crop(frame, track="p0", jpeg_quality=jpeg_quality) for frame in seen]
        with UnitWriter(_folder(root, "crops"), stage="crops", unit=unit, fingerprint=STAMP["crops"]) as out:
            out.table("crops", tables.from_rows("crops", cut))
            out.reject([Reject("crops", f"rig/{split}/{sequence}/00000005/cam1/t1", Reason.FROZEN)])
        crops |= {crop["key"]: crop for crop in cut}
        pairs[unit] = _pairs(cut)
    seen = _frames("synthetic", "s000000", Split.TRAIN, track="p0")
    cut = [_crop(frame, track="p0", jpeg_quality=jpeg_quality) for frame in seen]
    with UnitWriter(
        _folder(root, "renders"), stage="renders", unit="synthetic-s000000", fingerprint=STAMP["renders"]
    ) as out:
        out.table("frames", tables.from_rows("frames", seen))
        out.table("crops", tables.from_rows("crops", cut))
    crops |= {crop["key"]: crop for crop in cut}
    pairs["synthetic-s000000"] = _pairs(cut)
    for unit, rows in pairs.items():
        with UnitWriter(_folder(root, "pairs"), stage="pairs", unit=unit, fingerprint=STAMP["pairs"]) as out:
            out.table("pairs", tables.from_rows("pairs", rows))
    _shards(root, [pair for rows in pairs.values() for pair in rows], crops, rows_per_shard)
    for stage in STAMP:
        units = [commit.unit for commit in commits(root / stage)]
        recipe = {"jpeg_quality": jpeg_quality} if stage == "crops" else {"rows": rows_per_shard}
        plan = {"stage": stage, "recipe": recipe, "inputs": {}, "fingerprint": STAMP[stage], "units": units}
        write_json(root / stage / "plan.json", plan)
    return root


def _folder(root: Path, stage: str) -> Path:
    (root / stage).mkdir(parents=True, exist_ok=True)
    return root / stage


def _frames(source: str, sequence: str, split: Split, *, track: str) -> Rows:
    rows = []
    for instant, (number, view) in itertools.product(INSTANTS, enumerate(VIEWS)):
        angle = number * 0.6
        pose = np.eye(4)
        pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        pose[2, 3] = 3.0  # the camera looks at the origin from three metres
        key = FrameKey(source=source, split=split, sequence=sequence, instant=instant, view=view, track=track)
        rows.append(
            {
                "key": str(key), "source": source, "licence": "none", "domain": "body", "split": split.value, "group": sequence,
                "subject": f"{source}-{sequence}", "sequence": sequence, "instant": instant, "time_s": instant / 25,
                "view": view, "track": track, "media": f"{sequence}/{view}.avi", "media_index": instant, "width": 320,
                "height": 240, "intrinsics": [300.0, 0, 160, 0, 300, 120, 0, 0, 1],
                "camera_from_world": pose.ravel().tolist(), "silhouette_from": "parser", "flags": [],
            }
        )  # fmt: skip
    return rows


def _crop(frame: dict[str, Any], *, track: str, jpeg_quality: int) -> dict[str, Any]:
    y, x = np.mgrid[:CELLS, :CELLS]
    middle = CELLS / 2 + 3 * frame["instant"] - 8
    person = ((x - middle) / 14) ** 2 + ((y - CELLS / 2) / 26) ** 2 < 1
    rng = rng_for("picture", frame["source"], frame["sequence"], frame["view"], frame["instant"])
    wall, shirt = rng.integers(40, 110, 3), rng.integers(140, 230, 3)
    step = SIZE_PX // CELLS
    picture = (
        np.where(person[..., None], shirt, wall + (x[..., None] + y[..., None]) // 4).repeat(step, 0).repeat(step, 1)
    )
    picture = np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)
    key = FrameKey.parse(frame["key"])
    shared = ("source", "licence", "domain", "split", "group", "subject", "sequence", "instant", "time_s", "view")
    return {
        **{name: frame[name] for name in shared}, "key": str(replace(key, track=track)), "track": track,
        "frame_key": frame["key"], "jpeg": simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=jpeg_quality),
        "size_px": SIZE_PX, "square_xyxy_px": [50.0, 10, 270, 230], "box_xyxy_px": [90.0, 20, 230, 220],
        "box_from": "parser", "intrinsics": [87.0, 0, 31.5, 0, 87, 31.5, 0, 0, 1],
        "camera_from_world": frame["camera_from_world"], "silhouette": pack_cells(person), "silhouette_from": "parser",
        "parser": "ellipse-1", "coverage": float(person.mean()), "mean": float(picture.mean()),
        "phash": int(rng.integers(1 << 63)), "segment": int(frame["instant"] >= 4), "flags": [],
    }  # fmt: skip


def _pairs(crops: Rows) -> Rows:
    rows = []
    for kind, one, other in _partners(crops):
        place = f"{one['source']}/{one['split']}/{one['sequence']}"
        names = [f"{crop['instant']}-{crop['view']}-{crop['track']}" for crop in (one, other)]
        across = kind == "cross_view"
        turn = 0.6 * abs(VIEWS.index(one["view"]) - VIEWS.index(other["view"]))
        rows.append(
            {
                "key": f"{place}/{'v' if across else 'p'}/{names[0]}/{names[1]}", "kind": kind, "source": one["source"],
                "licence": "none", "domain": "body", "split": one["split"], "subject": one["subject"], "sequence": one["sequence"],
                "target": one["key"],
                "reference": other["key"], "dt_s": 0.0 if across else other["time_s"] - one["time_s"],
                "view_angle_rad": turn, "weight": 1.0, "further": [],
            }
        )  # fmt: skip
    return sorted(rows, key=lambda row: row["key"])


def _partners(crops: Rows):
    for one, other in itertools.combinations(crops, 2):
        if one["instant"] == other["instant"]:
            yield "cross_view", one, other
        elif one["view"] == other["view"] and one["segment"] == other["segment"]:
            yield "cross_pose", other, one


def _shards(root: Path, pairs: Rows, crops: dict[str, Any], rows_per_shard: int) -> None:
    folder, listed = _folder(root, "shards"), []
    places = sorted({(pair["split"], pair["source"]) for pair in pairs})
    for split, source in places:
        mine = [pair for pair in pairs if (pair["split"], pair["source"]) == (split, source)]
        mine = [mine[i] for i in rng_for("shards", split, source).permutation(len(mine))]
        for number, first in enumerate(range(0, len(mine), rows_per_shard)):
            name = f"{split}-{source}-body-{number:06d}"
            samples = [sample_of(pair, crops) for pair in mine[first : first + rows_per_shard]]
            listed.append(_shard(folder, name, samples, split, source))
    tables.write("shards", tables.from_rows("shards", listed), folder / "shards.parquet")


def _shard(folder: Path, name: str, samples: list[Sample], split: str, source: str) -> dict[str, Any]:
    with UnitWriter(folder, stage="shards", unit=name, fingerprint=STAMP["shards"]) as out:
        path = out.path(".tar")
        with path.open("wb") as file:
            index = write_tar(file, samples)
        out.add(path, table="tar", rows=len(index))
        out.table("index", tables.from_rows("index", index))
    commit = read_commit(folder / f"{name}.json")
    return {
        "name": name, "split": split, "source": source, "licence": "none", "domain": "body", "weight": 1.0, **shard_facts(commit),
        "first_pair": samples[0].key, "last_pair": samples[-1].key,
    }  # fmt: skip


def shard_facts(commit: Commit) -> dict[str, Any]:
    tar, index = commit.file("tar"), commit.file("index")
    assert tar is not None
    assert index is not None
    return {
        "rows": tar.rows, "bytes": tar.bytes, "sha256": tar.sha256, "index_sha256": index.sha256,
        "fingerprint": commit.fingerprint,
    }  # fmt: skip


def sample_of(pair: dict[str, Any], crops: dict[str, Any]) -> Sample:
    target, reference = crops[pair["target"]], crops[pair["reference"]]
    meta = {name: pair[name] for name in ("kind", "source", "licence", "domain", "split", "dt_s", "view_angle_rad")}
    meta |= {role: {"key": crop["key"]} for role, crop in (("target", target), ("reference", reference))}
    return Sample(
        key=pair["key"],
        target_jpg=target["jpeg"],
        reference_jpg=reference["jpeg"],
        target_sil=target["silhouette"],
        reference_sil=reference["silhouette"],
        meta=meta,
    )


# --- breaking one thing ---


def recommit(root: Path, stage: str, unit: str) -> None:
    """Make a commit true again after its files were changed: rows, counts, bytes and hashes; `shards.parquet` follows."""
    path = root / stage / f"{unit}.json"
    commit = read_commit(path)
    files, left_out = [], Counter[str]()
    for file in commit.files:
        data = root / stage / file.name
        if file.table == "rejects":
            for reject in tables.read("rejects", data).to_pylist():
                left_out[reject["reason"]] += reject["count"]
        rows = file.rows if file.table == "tar" else tables.read(file.table, data).num_rows
        files.append(replace(file, rows=rows, bytes=data.stat().st_size, sha256=sha256_of(data)))
    counts = {file.table: file.rows for file in files if file.table != "tar"}
    commit = replace(commit, files=tuple(files), counts=counts, rejects=dict(left_out))
    path.write_text(canonical_json(commit) + "\n")
    if stage == "shards":
        change_shards_table(root, unit, lambda row: row | shard_facts(commit))


def change_shards_table(root: Path, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = root / "shards" / "shards.parquet"
    rows = [change(row) if row["name"] == name else row for row in tables.read("shards", path).to_pylist()]
    tables.write("shards", tables.from_rows("shards", rows), path)


def change_rows(root: Path, stage: str, unit: str, table: str, change: Callable[[Rows], Rows | None]) -> None:
    """Rewrite a unit's table through `change`, which may alter the rows in place, and recommit."""
    path = root / stage / f"{unit}.{table}.parquet"
    rows = tables.read(table, path).to_pylist()
    changed = change(rows)
    tables.write(table, tables.from_rows(table, rows if changed is None else changed), path)
    recommit(root, stage, unit)


def write_raw(root: Path, stage: str, unit: str, table: str, data: pa.Table) -> None:
    """Replace a unit's table by anything at all, and recommit its bytes."""
    path = root / stage / f"{unit}.{table}.parquet"
    with path.open("wb") as file:
        tables.encode(data, file)
    commit_path = root / stage / f"{unit}.json"
    raw = json.loads(commit_path.read_text())
    for file in raw["files"]:
        if file["name"] == path.name:
            file |= {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    commit_path.write_text(canonical_json(raw) + "\n")


def add_crop(root: Path, **changes: Any) -> str:
    """Add a frame of `rec1` and its crop, in no pair, with some of the crop's values changed; returns the crop's key."""
    late = {"instant": 9, "time_s": 9 / 25, "segment": 1}

    def copy(rows: Rows, changes: dict[str, Any]) -> Rows:
        row = rows[-1] | {name: value for name, value in late.items() if name in rows[-1]}
        row["key"] = str(replace(FrameKey.parse(row["key"]), instant=9))
        if "frame_key" in row:
            other = simplejpeg.encode_jpeg(simplejpeg.decode_jpeg(row["jpeg"])[:, ::-1].copy(), quality=90)
            frame_key = str(replace(FrameKey.parse(row["frame_key"]), instant=9))
            row |= {"frame_key": frame_key, "jpeg": other, "phash": row["phash"] ^ 0xFFFF}
        return [*rows, row | changes]

    change_rows(root, "frames", "rig-rec1", "frames", lambda rows: copy(rows, {}))
    change_rows(root, "crops", "rig-rec1", "crops", lambda rows: copy(rows, changes))
    return str(tables.read("crops", root / "crops" / "rig-rec1.crops.parquet").column("key")[-1])


def change_samples(
    root: Path, name: str, change: Callable[[list[Sample]], list[Sample]], *, keep_index: bool = False
) -> None:
    """Rewrite a shard through `change`, and (unless kept) its index, and recommit."""
    from manifests.sample import read_tar

    path = root / "shards" / f"{name}.tar"
    samples = change(list(read_tar(path)))
    with path.open("wb") as file:
        index = write_tar(file, samples)
    if not keep_index:
        tables.write("index", tables.from_rows("index", index), root / "shards" / f"{name}.index.parquet")
    recommit(root, "shards", name)


# --- asking the audit ---


def assert_only_finding(root: Path, rule: str, **about: Any) -> Finding:
    """The one finding of an audit; `about` are attributes it must have."""
    findings = audit(root, threads=2).findings
    assert [finding.rule for finding in findings] == [rule], findings
    assert {name: getattr(findings[0], name) for name in about} == about
    return findings[0]
