"""The exact labels of a rendered view as columns of the table `labels`, and back.

Shape letters: H W image.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from manifests.errors import ManifestError
from synthetic.render import View

# How each map is packed. Of 64 views of 256 px (bodies and hands) on one CPU, milliseconds and bytes a view, and in brackets
# what zlib's fastest and best levels make of them where nothing else is set:
#   parts 0.13, 1,452 (0.66, 2,300; 5.2, 1,469)         garments 0.13, 983 (0.57, 1,819; 3.7, 1,047)
#   depth 1.6, 17,875 (1.8, 21,104; 46, 12,870)         normals 1.7, 16,877 (3.1, 20,223; 11, 17,635)
#   uv 2.6, 32,717 (7.7, 38,620; 33, 34,830)            all 6.1, 69,904 (13.8, 84,066; 99, 67,851)
_RUNS = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)
_FLAT = (*_RUNS, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)
_SMOOTH = (*_RUNS, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH)
_DEEP = (
    cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_FILTERED,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB,
)  # fmt: skip
_PACKING = {"parts": _FLAT, "garments": _FLAT, "depth": _DEEP, "normals": _SMOOTH, "uv": _SMOOTH}

_MOST_PX = 1024  # the largest image that is rendered
_END = b"IEND\xaeB`\x82"  # how a PNG ends that was not cut

_STORED: dict[str, tuple[Any, int]] = {  # what a PNG holds: its numbers and their dimensions
    "parts": (np.uint8, 2), "garments": (np.uint8, 2), "depth": (np.uint16, 2), "normals": (np.uint8, 3), "uv": (np.uint16, 3),
}  # fmt: skip


def label_columns(view: View, wanted: Sequence[str]) -> dict[str, Any]:
    """All columns but the key.

    Args:
        view: what was rendered.
        wanted: the maps that are kept, of `synthetic.scene.LABELS`; garments are kept with parts.
    """
    kept = {*wanted, "garments"} if "parts" in wanted else {*wanted}
    turn, move = view.camera_from_world[:3, :3], view.camera_from_world[:3, 3]
    given = view.parameters
    return {
        **{name: _png(picture, _PACKING[name]) for name, picture in _maps(view).items() if name in kept},
        "joints_m": (view.joints_m @ turn.T + move).astype(np.float32).ravel().tolist(),
        **{
            name: points.astype(np.float32).ravel().tolist()
            for name, points in view.keypoints_px.items()
            if name in ("coco17", "penn13")
        },
        "pose": (given["body_pose"] if "body_pose" in given else given["hand_pose"]).ravel().tolist(),
        **{name: given[name].ravel().tolist() for name in ("global_orient", "betas", "transl")},
    }


def decode_maps(columns: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Read the maps of a row of the table `labels`; those that were not kept are left out.

    Args:
        columns: of the row; with "key", it is told in errors.

    Returns:
        "parts" and "garments" (H, W) uint8, "depth" (H, W) float32 metres, "normals" (H, W, 3) float32 unit or 0,
        "uv" (H, W, 2) float32 or -1: as `View` has them.

    Raises:
        ManifestError: a map is damaged, or of another kind than its column holds.
    """
    return {name: _decoded(name, columns) for name in _STORED if columns.get(name) is not None}


def _decoded(name: str, columns: Mapping[str, Any]) -> npt.NDArray[Any]:
    data, (kind, dimensions) = columns[name], _STORED[name]
    sides = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")  # a PNG begins with them
    fits = len(data) > len(_END) and max(sides) <= _MOST_PX and data.endswith(_END)
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if fits else None
    if stored is None or stored.dtype != kind or stored.ndim != dimensions:
        raise ManifestError(
            f"the map of {name} is damaged", where=columns.get("key", "labels table"), hint="render the scene again"
        )
    if name == "depth":
        return np.asarray(stored / np.float32(1000.0))
    if dimensions == 2:
        return np.asarray(stored)
    rgb = stored[..., ::-1].astype(np.float32)
    if name == "uv":
        return np.where(rgb[..., 2:] > 0, rgb[..., :2] / np.float32(65535.0), np.float32(-1.0))
    normals = rgb - np.float32(128.0)
    lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(rgb.any(axis=-1, keepdims=True), normals / np.maximum(lengths, np.float32(1.0)), np.float32(0.0))


def _maps(view: View) -> dict[str, npt.NDArray[Any]]:
    """Pictures as PNG keeps them, channels in the order R, G, B."""
    person = view.silhouette
    normals = np.where(person[..., None], np.rint(view.normals * 127.0) + 128.0, 0).astype(np.uint8)
    uv = np.zeros((*person.shape, 3), dtype=np.uint16)
    uv[person, :2] = np.rint(np.clip(view.uv[person], 0.0, 1.0) * 65535.0)
    uv[person, 2] = 65535
    return {
        "parts": view.parts,
        "garments": view.garments,
        "depth": np.rint(np.clip(view.depth_m, 0.0, 65.535) * 1000.0).astype(np.uint16),
        "normals": normals,
        "uv": uv,
    }


def _png(picture: npt.NDArray[Any], packing: tuple[int, ...]) -> bytes:
    done, data = cv2.imencode(".png", picture if picture.ndim == 2 else picture[..., ::-1], packing)
    assert done, "a map is encoded"
    return data.tobytes()
