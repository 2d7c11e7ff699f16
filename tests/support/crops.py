"""Crops of made-up recordings, as rows of the crops table."""

from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg

from manifests import table as tables
from manifests.sample import SILHOUETTE_BYTES
from manifests.seeds import rng_for
from manifests.types import FrameKey, Split


def ring_camera(angle_rad: float, *, distance_m: float = 4.0) -> np.ndarray:
    """camera_from_world of a camera on a horizontal ring around the origin, looking at it; y down."""
    back = np.array([np.sin(angle_rad), 0.0, np.cos(angle_rad)])  # from the subject to the camera
    forward, down = -back, np.array([0.0, 1.0, 0.0])
    right = np.cross(down, forward)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, down, forward])
    pose[:3, 3] = -pose[:3, :3] @ (back * distance_m)
    return pose


def picture(*names: str | int, size_px: int = 256) -> bytes:
    """A JPEG that is different for different names."""
    coarse = rng_for(*names).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pixels = np.kron(coarse, np.ones((size_px // 8, size_px // 8, 1), np.uint8))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90, colorsubsampling="420")


def crop_row(
    *,
    source: str = "cameras",
    split: Split = Split.TRAIN,
    sequence: str = "rec",
    instant: int = 0,
    view: str = "cam0",
    track: str = "p0",
    time_s: float | None = None,
    camera: np.ndarray | None = None,
    **other: Any,
) -> dict[str, Any]:
    """One row of the crops table; its picture and hash come from its names."""
    key = FrameKey(source=source, split=split, sequence=sequence, instant=instant, view=view, track=track)
    box = [100.0, 100.0, 300.0, 400.0]
    row = {
        "key": str(key),
        "source": source,
        "licence": "none",
        "domain": "body",
        "split": split.value,
        "group": sequence,
        "sequence": sequence,
        "instant": instant,
        "time_s": instant / 30 if time_s is None else time_s,
        "view": view,
        "track": track,
        "frame_key": str(
            FrameKey(source=source, split=split, sequence=sequence, instant=instant, view=view, track="all")
        ),
        "jpeg": picture(str(key)),
        "size_px": 256,
        "square_xyxy_px": [0.0, 0.0, 500.0, 500.0],
        "box_xyxy_px": box,
        "box_from": "parser",
        "intrinsics": [256.0, 0, 127.5, 0, 256.0, 127.5, 0, 0, 1] if camera is not None else None,
        "camera_from_world": camera.ravel().tolist() if camera is not None else None,
        "silhouette": bytes(SILHOUETTE_BYTES),
        "silhouette_from": "none",
        "coverage": 0.0,
        "mean": 120.0,
        "phash": int(rng_for("phash", str(key)).integers(0, 2**63)),
        "segment": 0,
        "flags": [],
    }
    return row | other


def recording(*, views: int = 4, instants: int = 10, calibrated: bool = True, **other: Any) -> pa.Table:
    """Crops of a synchronous recording: every view sees one person at every instant."""
    angles = np.linspace(0, 2 * np.pi, views, endpoint=False)
    cameras = [ring_camera(float(angle)) if calibrated else None for angle in angles]
    rows = [
        crop_row(instant=instant, view=f"cam{view}", camera=camera, **other)
        for view, camera in enumerate(cameras)
        for instant in range(instants)
    ]
    return tables.from_rows("crops", rows)
