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
from pipeline.fetch import BODY, HANDS
from pipeline.recipes import BuildRecipe
from pipeline.stage import Report
from synthetic.body import load_body
from synthetic.hand import load_hand
from synthetic.hand_figure import HandFigure
from synthetic.motion import ClipLibrary, choose_clips, files_of, find_clips
from synthetic.render import Renderer, View
from synthetic.scene import Scene, SceneRecipe, sample_scene

TRACKS = {Domain.BODY: "p0", Domain.HAND: "hand"}
_KEYPOINTS = {Domain.BODY: "smpl24", Domain.HAND: "hand21"}
_OWN_WORK = {Domain.BODY: "CC0 1.0 (bodies, clothes)", Domain.HAND: "CC0 1.0 (hands, sleeves)"}


@dataclass(frozen=True, slots=True)
class Studio:
    """Where the models and the motion clips lie. They are read, and EGL opened, when the first scene is rendered.

    Attributes:
        assets: holds the body, the hands and the free clips.
        motion: a folder of the user's own clips, see `SceneRecipe.motion`.
        domain: who is rendered.
    """

    assets: Path
    motion: Path | None = None
    domain: Domain = Domain.BODY

    @classmethod
    def of(cls, recipe: SceneRecipe, assets: Path) -> "Studio":
        """The studio in which a recipe's scenes are rendered."""
        return cls(assets, None if recipe.motion is None else Path(recipe.motion), Domain(recipe.domain))

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
        """The files that decide what is rendered, by name: the hands, or the body and the clips that `wanted` stands for.

        Raises:
            SyntheticError: a clip is missing, or the folder of own clips is given and none of them is wanted.
        """
        if self.domain is Domain.HAND:
            return {name: self.assets / name for name in HANDS.values()}
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
    if studio.domain is Domain.HAND:
        return Renderer(HandFigure(**{side: load_hand(studio.assets / name) for side, name in HANDS.items()}))
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
    renderer, licence = studio.renderer(), _OWN_WORK[studio.domain]
    if studio.domain is Domain.HAND:
        scene = sample_scene(recipe.render, recipe.seed, index)
    else:
        clips = studio.library()
        scene = sample_scene(replace(recipe.render, clips=choose_clips(clips, recipe.render.clips)), recipe.seed, index)
        licence += f", {clips[scene.clip].licence} (motions)"
    held_out = recipe.split
    split = split_of(scene.identity, seed=recipe.seed, val_groups=held_out.val_groups, val_share=held_out.val_share)
    frames, crops = [], []
    total = len(scene.phases) * len(scene.cameras)
    for instant in range(len(scene.phases)):
        for view in range(len(scene.cameras)):
            shared = _shared_columns(scene, studio.domain, split, instant, view, source) | {"licence": licence}
            image = renderer.render(scene, instant=instant, view=view)
            labels = _labels(image, studio.domain) | {"side": scene.side if scene.hand else None}
            frames.append(shared | labels | _frame_columns(scene, image))
            crops.append(shared | labels | _crop_columns(shared["key"], image, recipe.crop.jpeg_quality))
            report(len(frames), total)
    return frames, crops


def _shared_columns(scene: Scene, domain: Domain, split: Split, instant: int, view: int, source: str) -> dict[str, Any]:
    sequence, camera, track = f"s{scene.index:06d}", f"v{view}", TRACKS[domain]
    key = FrameKey(source=source, split=split, sequence=sequence, instant=instant, view=camera, track=track)
    return {
        "key": str(key),
        "source": source,
        "domain": domain.value,
        "split": split.value,
        "group": scene.identity,
        "subject": scene.identity,
        "sequence": sequence,
        "instant": instant,
        "view": camera,
        "track": track,
        "flags": [],
    }


def _labels(image: View, domain: Domain) -> dict[str, Any]:
    """Columns that frames and crops share: for a rendered view both are the same image."""
    seen = np.concatenate([image.joints_xy_px, image.joint_visible[:, None]], axis=1)
    if domain is Domain.HAND:
        seen = image.keypoints_px[_KEYPOINTS[domain]]
    return {
        "time_s": float(image.time_s),
        "box_xyxy_px": image.box_xyxy_px.tolist(),
        "box_from": BoxFrom.RENDER.value,
        "intrinsics": image.intrinsics.ravel().tolist(),
        "camera_from_world": image.camera_from_world.ravel().tolist(),
        "silhouette_from": SilhouetteFrom.RENDER.value,
        "keypoints_set": _KEYPOINTS[domain],
        "keypoints_px": seen.astype(np.float32).ravel().tolist(),
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
