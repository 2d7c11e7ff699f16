"""Render scenes into frames and crops: a rendered view is framed as a crop already, with exact labels."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from manifests.errors import SyntheticError
from manifests.sample import cells_of, pack_cells
from manifests.splits import split_of
from manifests.types import BoxFrom, Domain, FrameKey, SilhouetteFrom, Split
from pipeline.crop import stored_picture
from pipeline.fetch import BODY
from pipeline.recipes import BuildRecipe
from pipeline.stage import Report
from synthetic.body import load_body
from synthetic.motion import ClipLibrary, choose_clips, files_of, find_clips
from synthetic.render import Renderer, View
from synthetic.scene import Scene, SceneRecipe, sample_scene

TRACK = "p0"
_OWN_WORK = "CC0 1.0 (bodies, clothes)"


@dataclass(frozen=True, slots=True)
class Studio:
    """Where the body and the motion clips lie. They are read, and EGL opened, when the first scene is rendered.

    Attributes:
        assets: holds the body and the free clips.
        motion: a folder of the user's own clips, see `SceneRecipe.motion`.
    """

    assets: Path
    motion: Path | None = None

    @classmethod
    def of(cls, recipe: SceneRecipe, assets: Path) -> "Studio":
        """The studio in which a recipe's scenes are rendered."""
        return cls(assets, None if recipe.motion is None else Path(recipe.motion))

    def clip_paths(self) -> dict[str, Path]:
        """The files of all clips, by name.

        Raises:
            SyntheticError: a folder holds none, or two clips have one name.
        """
        free = find_clips(self.assets / "motion")
        own = {} if self.motion is None else find_clips(self.motion)
        if both := sorted(free.keys() & own.keys()):
            raise SyntheticError(
                f"two motion clips are called {both[0]}",
                where=own[both[0]],
                hint="call yours otherwise: it is a free clip's name",
            )
        return free | own

    def inputs(self, wanted: tuple[str, ...]) -> dict[str, Path]:
        """The files that decide what is rendered, by name: the body, and the clips that `wanted` stands for.

        Raises:
            SyntheticError: a clip is missing, or the folder of own clips is given and none of them is wanted.
        """
        paths = self.clip_paths()
        chosen = choose_clips(paths, wanted)
        if self.motion is not None and not any(paths[name].is_relative_to(self.motion) for name in chosen):
            raise SyntheticError(
                "the recipe gives a folder of motion and names no clip of it",
                where=self.motion,
                hint='name them in render.clips of the recipe, as ["*"] or ["CMU/*", "walk"]',
            )
        files = {f"motion/{name}{file.suffix}": file for name in chosen for file in files_of(paths[name])}
        return {BODY: self.assets / BODY} | files

    def library(self) -> ClipLibrary:
        """The clips of this process."""
        return _library(self)

    def renderer(self) -> Renderer:
        """The one renderer of this process."""
        return _renderer(self)


@lru_cache(maxsize=1)
def _library(studio: Studio) -> ClipLibrary:
    return ClipLibrary(studio.clip_paths())


@lru_cache(maxsize=1)
def _renderer(studio: Studio) -> Renderer:
    return Renderer.of_body(load_body(studio.assets / BODY), studio.library())


def render_scene(
    recipe: BuildRecipe, index: int, studio: Studio, report: Report, *, source: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Render all views of all instants of one scene.

    Args:
        recipe: of the build.
        index: of the scene.
        studio: where it is rendered.
        report: told after every image.
        source: opens the keys.

    Returns:
        rows of the frames table, and rows of the crops table, in the same order.
    """
    assert recipe.render is not None, "the plan has no scenes without a render recipe"
    clips, renderer = studio.library(), studio.renderer()
    named = replace(recipe.render, clips=choose_clips(clips, recipe.render.clips))
    scene = sample_scene(named, recipe.seed, index)
    licence = f"{_OWN_WORK}, {clips[scene.clip].licence} (motions)"
    held_out = recipe.split
    split = split_of(scene.identity, seed=recipe.seed, val_groups=held_out.val_groups, val_share=held_out.val_share)
    frames, crops = [], []
    total = len(scene.phases) * len(scene.cameras)
    for instant in range(len(scene.phases)):
        for view in range(len(scene.cameras)):
            shared = _shared_columns(scene, split, instant, view, source) | {"licence": licence}
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
