"""Render scenes into frames and crops: a rendered view is framed as a crop already, with exact labels."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from manifests.sample import cells_of, pack_cells
from manifests.splits import split_of
from manifests.types import BoxFrom, Domain, FrameKey, SilhouetteFrom, Split
from pipeline.crop import stored_picture
from pipeline.fetch import BODY
from pipeline.recipes import BuildRecipe
from pipeline.stage import Report
from synthetic.body import load_body
from synthetic.motion import ClipLibrary, find_clips
from synthetic.render import Renderer, View
from synthetic.scene import Scene, sample_scene

TRACK = "p0"
LICENCE = "CC0 1.0 (bodies, clothes), zlib (motions)"


@dataclass(frozen=True, slots=True)
class Studio:
    """Where the body and the motion clips lie. They are read, and EGL opened, when the first scene is rendered."""

    assets: Path

    def inputs(self) -> list[Path]:
        """The files that decide what is rendered."""
        return [self.assets / BODY, *find_clips(self.assets / "motion").values()]

    def renderer(self) -> Renderer:
        """The one renderer of this process."""
        return _renderer(self.assets)


@lru_cache(maxsize=1)
def _renderer(assets: Path) -> Renderer:
    return Renderer(load_body(assets / BODY), ClipLibrary(find_clips(assets / "motion")))


def render_scene(
    recipe: BuildRecipe, index: int, renderer: Renderer, report: Report, *, source: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Render all views of all instants of one scene.

    Args:
        recipe: of the build.
        index: of the scene.
        renderer: of this process.
        report: told after every image.
        source: opens the keys.

    Returns:
        rows of the frames table, and rows of the crops table, in the same order.
    """
    assert recipe.render is not None, "the plan has no scenes without a render recipe"
    scene = sample_scene(recipe.render, recipe.seed, index)
    held_out = recipe.split
    split = split_of(scene.identity, seed=recipe.seed, val_groups=held_out.val_groups, val_share=held_out.val_share)
    frames, crops = [], []
    total = len(scene.phases) * len(scene.cameras)
    for instant in range(len(scene.phases)):
        for view in range(len(scene.cameras)):
            shared = _shared_columns(scene, split, instant, view, source)
            image = renderer.render(scene, instant=instant, view=view)
            labels = _labels(image)
            frames.append(shared | labels | _frame_columns(scene, image))
            crops.append(shared | labels | _crop_columns(shared["key"], image, recipe.crop.jpeg_quality))
            report(len(frames), total)
    return frames, crops


def _shared_columns(scene: Scene, split: Split, instant: int, view: int, source: str) -> dict[str, Any]:
    sequence, camera = f"s{scene.index:06d}", f"v{view}"
    key = FrameKey(source=source, split=split, sequence=sequence, instant=instant, view=camera, track=TRACK)
    return {
        "key": str(key),
        "source": source,
        "licence": LICENCE,
        "domain": Domain.BODY.value,
        "split": split.value,
        "group": scene.identity,
        "subject": scene.identity,
        "sequence": sequence,
        "instant": instant,
        "view": camera,
        "track": TRACK,
        "flags": [],
    }


def _labels(image: View) -> dict[str, Any]:
    """Columns that frames and crops share: for a rendered view both are the same image."""
    seen = np.concatenate([image.joints_xy_px, image.joint_visible[:, None]], axis=1).astype(np.float32)
    return {
        "time_s": float(image.time_s),
        "box_xyxy_px": image.box_xyxy_px.tolist(),
        "box_from": BoxFrom.RENDER.value,
        "intrinsics": image.intrinsics.ravel().tolist(),
        "camera_from_world": image.camera_from_world.ravel().tolist(),
        "silhouette_from": SilhouetteFrom.RENDER.value,
        "keypoints_set": "smpl24",
        "keypoints_px": seen.ravel().tolist(),
    }


def _frame_columns(scene: Scene, image: View) -> dict[str, Any]:
    height, width = image.rgb.shape[:2]
    return {"media": f"scene/{scene.index:06d}", "media_index": 0, "width": width, "height": height}


def _crop_columns(key: str, image: View, quality: int) -> dict[str, Any]:
    size = image.rgb.shape[0]
    return {
        "frame_key": key,
        **stored_picture(image.rgb, quality),
        "square_xyxy_px": [-0.5, -0.5, size - 0.5, size - 0.5],
        "silhouette": pack_cells(cells_of(image.silhouette)),
        "coverage": float(image.silhouette.mean()),
        "segment": 0,
    }
