"""The exact labels of a rendered view as columns of the table `labels`."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from synthetic.render import View

# The fastest of zlib's levels: maps are a third larger than at its best, and written four times as fast.
_FAST = (cv2.IMWRITE_PNG_COMPRESSION, 1)


def label_columns(view: View, wanted: Sequence[str]) -> dict[str, Any]:
    """All columns but the key.

    Args:
        view: what was rendered.
        wanted: the maps that are kept, of `synthetic.scene.LABELS`.
    """
    maps = {name: _png(picture) for name, picture in _maps(view).items() if name in wanted}
    if "parts" in wanted:
        maps["garments"] = _png(view.garments)
    turn, move = view.camera_from_world[:3, :3], view.camera_from_world[:3, 3]
    given = view.parameters
    return {
        **maps,
        "joints_m": (view.joints_m @ turn.T + move).astype(np.float32).ravel().tolist(),
        **{
            name: points.astype(np.float32).ravel().tolist()
            for name, points in view.keypoints_px.items()
            if name in ("coco17", "penn13")
        },
        "pose": (given["body_pose"] if "body_pose" in given else given["hand_pose"]).ravel().tolist(),
        **{name: given[name].ravel().tolist() for name in ("global_orient", "betas", "transl")},
    }


def _maps(view: View) -> dict[str, npt.NDArray[Any]]:
    """Pictures as PNG keeps them, channels in the order R, G, B."""
    person = view.silhouette
    normals = np.where(person[..., None], np.rint(view.normals * 127.0) + 128.0, 0).astype(np.uint8)
    uv = np.zeros((*person.shape, 3), dtype=np.uint16)
    uv[person, :2] = np.rint(np.clip(view.uv[person], 0.0, 1.0) * 65535.0)
    uv[person, 2] = 65535
    return {
        "parts": view.parts,
        "depth": np.rint(np.clip(view.depth_m, 0.0, 65.535) * 1000.0).astype(np.uint16),
        "normals": normals,
        "uv": uv,
    }


def _png(picture: npt.NDArray[Any]) -> bytes:
    done, data = cv2.imencode(".png", picture if picture.ndim == 2 else picture[..., ::-1], _FAST)
    assert done, "a map is encoded"
    return data.tobytes()
