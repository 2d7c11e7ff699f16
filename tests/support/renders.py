"""The renders stage of a build in miniature: true tables and the pipeline's own packing, of pictures and labels that are made up."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from manifests import table as tables
from manifests.commit import UnitWriter
from manifests.seeds import rng_for
from manifests.types import Split
from pipeline.labels import label_columns
from tests.support.crops import crop_row

SIZE_PX = 256
BOX = (60.0, 30.0, 180.0, 230.0)


def write_renders(root: Path, people: dict[str, str], *, views: int = 3, domain: str = "body", labels=("parts", "uv")):
    """One scene for each person, of two moments; `people` says who is in which split of the build.

    Returns:
        What was seen, by key of the crop.
    """
    made = {}
    for number, (person, split) in enumerate(people.items()):
        crops, told = [], []
        for place in range(2 * views):
            names = {"sequence": f"s{number:06d}", "instant": place // views, "view": f"v{place % views}"}
            row = crop_row(source="synthetic", split=Split(split), **names)
            made[row["key"]] = seen = _seen(row["key"], domain)
            points = np.column_stack(
                [rng_for(row["key"]).uniform(60, 180, (24 if domain == "body" else 21, 2)), seen.shown]
            )
            row |= {
                "domain": domain,
                "subject": person,
                "side": None if domain == "body" else ("left", "right")[number % 2],
                "size_px": SIZE_PX,
                "box_xyxy_px": list(BOX),
                "intrinsics": seen.intrinsics.ravel().tolist(),
                "keypoints_px": points.ravel().tolist(),
            }
            seen.points = points
            crops.append(row)
            told.append({"key": row["key"]} | label_columns(seen, labels))
        unit = f"synthetic-s{number:06d}"
        with UnitWriter(root / "renders", stage="renders", unit=unit, fingerprint="f" * 64) as out:
            out.table("crops", tables.from_rows("crops", crops))
            out.table("labels", tables.from_rows("labels", told))
    return made


def _seen(key: str, domain: str) -> SimpleNamespace:
    rng = rng_for("seen", key)
    person = np.zeros((SIZE_PX, SIZE_PX), bool)
    person[31:230, 61:180] = True
    joints, hand = (24, False) if domain == "body" else (16, True)
    pose = {"hand_pose": rng.normal(size=45)} if hand else {"body_pose": rng.normal(size=69)}
    return SimpleNamespace(
        silhouette=person,
        parts=np.where(person, rng.integers(1, 25, person.shape), 0).astype(np.uint8),
        garments=np.zeros(person.shape, np.uint8),
        uv=np.where(person[..., None], rng.random((*person.shape, 2)), -1).astype(np.float32),
        depth_m=np.where(person, 3, 0).astype(np.float32),
        normals=np.zeros((*person.shape, 3), np.float32),
        intrinsics=np.array([[400.0, 0, 127.5], [0, 400, 127.5], [0, 0, 1]]),
        camera_from_world=np.eye(4),
        joints_m=rng.normal((0, 0, 3), 1, (joints, 3)),
        keypoints_px={} if hand else {"coco17": rng.random((17, 3)), "penn13": rng.random((13, 3))},
        parameters={"global_orient": rng.normal(size=3), "betas": rng.normal(size=10), "transl": np.zeros(3), **pose},
        shown=rng.integers(0, 2, 21 if hand else 24),
    )
