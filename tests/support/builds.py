"""A small but real shards folder, written through `manifests` alone, with textured pictures made from noise."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from manifests import table as tables
from manifests.commit import UnitWriter, read_commit
from manifests.sample import Sample, pack_cells, write_tar
from manifests.schema import CELLS
from manifests.seeds import rng_for

FINGERPRINT = "0" * 64
NUM_TEXTURES = 6


@dataclass(frozen=True, kw_only=True)
class Made:
    """One source of a made build: pairs in each of its shards, and its weight in the mixture."""

    source: str
    rows: tuple[int, ...]
    weight: float = 1.0
    split: str = "train"
    domain: str = "body"


def texture(*names: str | int, size_px: int = 256) -> np.ndarray:
    """A picture with detail at every scale; as a JPEG of quality 90 it takes some 16 kB, like a photo of a person."""
    rng = rng_for("texture", *names)
    picture = np.zeros((size_px, size_px, 3), np.float32)
    for cells, strength in ((4, 50.0), (16, 26.0), (64, 11.0), (256, 3.0)):
        coarse = rng.normal(0, strength, (cells, cells, 3 if cells < 64 else 1)).astype(np.float32)
        at = np.linspace(0, cells - 1, size_px)
        low = np.floor(at).astype(int)
        high, part = np.minimum(low + 1, cells - 1), (at - low).astype(np.float32)
        rows = coarse[low] * (1 - part)[:, None, None] + coarse[high] * part[:, None, None]
        picture += rows[:, low] * (1 - part)[:, None] + rows[:, high] * part[:, None]
    return np.clip(picture + 128, 0, 255).astype(np.uint8)


def encode(picture: np.ndarray) -> bytes:
    """JPEG as the crop stage writes it."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=90, colorsubsampling="420")


def disc(centre: tuple[float, float], radius: float) -> np.ndarray:
    """(CELLS, CELLS) booleans, True inside a disc given in shares of the side."""
    y, x = (np.mgrid[:CELLS, :CELLS] + 0.5) / CELLS
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2


def make_sample(key: str, *, source: str = "made", split: str = "train", size_px: int = 256) -> Sample:
    """A sample whose pictures and silhouettes follow from its key."""
    rng = rng_for("sample", key)
    jpegs, sils = [], []
    for number in rng.integers(0, NUM_TEXTURES, 2).tolist():
        shift = rng.integers(0, size_px, 2).tolist()
        jpegs.append(encode(np.roll(_texture(number, size_px), shift, axis=(0, 1))))
        sils.append(pack_cells(disc(tuple(rng.uniform(0.3, 0.7, 2)), rng.uniform(0.1, 0.4))))
    roles: dict[str, Any] = {
        role: {"key": f"{key}/{role}", "silhouette_from": "render"} for role in ("target", "reference")
    }
    meta = {
        "kind": "cross_view",
        "source": source,
        "licence": "none",
        "domain": "body",
        "split": split,
        "dt_s": 0.0,
        "view_angle_rad": 0.5,
    }
    return Sample(
        key=key,
        target_jpg=jpegs[0],
        reference_jpg=jpegs[1],
        target_sil=sils[0],
        reference_sil=sils[1],
        meta={**meta, **roles},
    )


def write_shard(folder: Path, name: str, samples: list[Sample], **row: Any) -> dict[str, Any]:
    """Commit one shard as the shard stage does. Returns its row of the shard table."""
    folder.mkdir(parents=True, exist_ok=True)
    with UnitWriter(folder, stage="shards", unit=name, fingerprint=FINGERPRINT) as out:
        path = out.path(".tar")
        with path.open("wb") as file:
            rows = write_tar(file, samples)
        out.add(path, table="tar", rows=len(rows))
        out.table("index", tables.from_rows("index", rows))
    commit = read_commit(folder / f"{name}.json")
    tar, index = commit.file("tar"), commit.file("index")
    assert tar is not None
    assert index is not None
    return {
        "name": name,
        **row,
        "rows": tar.rows,
        "bytes": tar.bytes,
        "sha256": tar.sha256,
        "index_sha256": index.sha256,
        "fingerprint": FINGERPRINT,
        "first_pair": samples[0].key,
        "last_pair": samples[-1].key,
    }


def write_shards(folder: Path, made: list[Made]) -> Path:
    """Write shards of several sources, and the shard table. Keys are `<source>/<split>/<shard>/<row>`. Returns the folder."""
    table = []
    for one in made:
        for number, rows in enumerate(one.rows):
            name = f"{one.split}-{one.source}-{one.domain}-{number:06d}"
            keys = [f"{one.source}/{one.split}/{number:06d}/{row:06d}" for row in range(rows)]
            samples = [make_sample(key, source=one.source, split=one.split) for key in keys]
            about = {
                "split": one.split,
                "source": one.source,
                "licence": "none",
                "domain": one.domain,
                "weight": one.weight,
            }
            table.append(write_shard(folder, name, samples, **about))
    tables.write("shards", tables.from_rows("shards", table), folder / "shards.parquet")
    return folder


_TEXTURES: dict[tuple[int, int], np.ndarray] = {}


def _texture(number: int, size_px: int) -> np.ndarray:
    if (number, size_px) not in _TEXTURES:
        _TEXTURES[number, size_px] = texture(number, size_px=size_px)
    return _TEXTURES[number, size_px]
