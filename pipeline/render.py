"""Render scenes into frames and crops: a rendered view is framed as a crop already, with exact labels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.doors import door
from manifests.errors import SyntheticError
from manifests.files import stamp_of
from manifests.sample import cells_of, pack_cells
from manifests.splits import split_of
from manifests.types import BoxFrom, Domain, FrameKey, Reason, Reject, SilhouetteFrom, Split
from pipeline.crop import stored_picture
from pipeline.fetch import BODY, HANDS
from pipeline.labels import label_columns
from pipeline.recipes import BuildRecipe
from pipeline.stage import Report
from synthetic.figure import BodyFigure
from synthetic.hand_figure import HandFigure
from synthetic.looks.scans import TextureWardrobe, find_textures
from synthetic.models.body import load_body
from synthetic.models.hand import load_hand
from synthetic.motion.library import ClipLibrary, choose_clips, files_of, find_clips
from synthetic.places.backdrops import Backdrops
from synthetic.render import Renderer, View
from synthetic.scene import Scene, SceneRecipe, sample_scene
from synthetic.surface import cells_of_faces, cells_seen

TRACKS = {Domain.BODY: "p0", Domain.HAND: "hand"}
_KEYPOINTS = {Domain.BODY: "smpl24", Domain.HAND: "hand21"}
_OWN_WORK = {Domain.BODY: "CC0 1.0 (bodies, clothes)", Domain.HAND: "CC0 1.0 (hands, sleeves)"}
LEAST_COVERAGE = 0.02
_SMPL = "terms of SMPL and SURREAL, non-commercial (bodies, textures)"


@dataclass(frozen=True, slots=True)
class Studio:
    """Where a recipe's scenes are rendered. Models and clips are read, and EGL opened, when the first scene is.

    Attributes:
        assets: holds the free body, the hands and the free clips.
        recipe: names what the user brings: a body, textures, motion, backgrounds.
    """

    assets: Path
    recipe: SceneRecipe

    @property
    def domain(self) -> Domain:
        """Whether people or hands are rendered."""
        return Domain(self.recipe.domain)

    @property
    def body(self) -> Path:
        """The body's file."""
        return self.assets / BODY if self.recipe.body is None else Path(self.recipe.body)

    def clip_paths(self) -> dict[str, Path]:
        """The files of all clips, by name.

        Raises:
            SyntheticError: a folder holds none, or two clips have one name.
        """
        free = find_clips(self.assets / "motion")
        own = {} if self.recipe.motion is None else find_clips(Path(self.recipe.motion))
        if both := sorted(free.keys() & own.keys()):
            raise SyntheticError(
                f"two motion clips are called {both[0]}",
                where=own[both[0]],
                hint="call yours otherwise: it is a free clip's name",
            )
        return free | own

    def chosen_clips(self, paths: Mapping[str, Path]) -> tuple[str, ...]:
        """The clips that are rendered: a pattern stands for the user's own where he gives a folder of them, a name for any.

        Args:
            paths: what `clip_paths` gave.

        Raises:
            SyntheticError: a name or pattern stands for none.
        """
        motion = self.recipe.motion
        own = [name for name, path in paths.items() if motion is None or path.is_relative_to(motion)]
        chosen: dict[str, None] = {}
        for wanted in self.recipe.clips:
            is_pattern = wanted not in paths and any(sign in wanted for sign in "*?[")
            chosen |= dict.fromkeys(choose_clips(own if is_pattern else paths, [wanted]))
        return tuple(chosen)

    def inputs(self) -> dict[str, str]:
        """Stamps of what decides what is rendered, by name: models, wanted clips, textures, backgrounds.

        Raises:
            SyntheticError: something is missing, or the folder of own clips is given and none of them is wanted.
        """
        files = (
            {name: self.assets / name for name in HANDS.values()} if self.domain is Domain.HAND else self._body_files()
        )
        stamps = {name: self._stamp(name, path) for name, path in files.items()}
        if backdrops := self.backdrops():
            stamps["backgrounds"] = backdrops.stamp
        return stamps

    def _stamp(self, name: str, path: Path) -> str:
        try:
            return stamp_of(path)
        except OSError as error:
            what, hint = f"{name} cannot be read", f"`{door('pipeline', 'fetch')}` brings it"
            if name == BODY and self.recipe.body is not None:
                what = "the recipe's body cannot be read"
                hint = f"check render.body of the recipe; `{door('synthetic', 'convert', 'IN', 'OUT')}` makes it of a published SMPL"
            elif name == "uv":
                what = "the texture coordinates cannot be read"
                hint = "give SMPL's smpl_uv.obj as render.uv of the recipe"
            elif name not in (BODY, *HANDS.values()):
                hint = "check the file and its permissions, or leave it out of the recipe"
            raise SyntheticError(f"{what}: {error.strerror}", where=path, hint=hint) from error

    def _body_files(self) -> dict[str, Path]:
        recipe, paths = self.recipe, self.clip_paths()
        chosen = self.chosen_clips(paths)
        if recipe.motion is not None and not any(paths[name].is_relative_to(recipe.motion) for name in chosen):
            raise SyntheticError(
                "the recipe gives a folder of motion and names no clip of it",
                where=recipe.motion,
                hint='name them in render.clips of the recipe, as ["*"] or ["CMU/*", "walk"]',
            )
        files = {f"motion/{name}{file.suffix}": file for name in chosen for file in files_of(paths[name])}
        if recipe.textures is not None and recipe.uv is not None:
            names = find_textures(Path(recipe.textures))
            files |= {"uv": Path(recipe.uv)} | {f"textures/{name}": Path(recipe.textures) / name for name in names}
        return {BODY: self.body} | files

    def backdrops(self) -> Backdrops | None:
        """The recipe's backgrounds; none for rooms.

        Raises:
            SyntheticError: the folder is missing or unusable.
        """
        return _backdrops(self.recipe)

    def scene(self, seed: int, index: int) -> Scene:
        """One of the recipe's scenes."""
        recipe = self.recipe
        if self.domain is Domain.BODY:
            recipe = replace(recipe, clips=_clips(self))
        return sample_scene(recipe, seed, index, self.backdrops())

    def library(self) -> ClipLibrary:
        """The clips of this process."""
        return _library(self)

    def renderer(self) -> Renderer:
        """The one renderer of this process."""
        return _renderer(self)

    def cells(self) -> npt.NDArray[np.int32]:
        """The surface cell of each face of the model."""
        return _cells(self)


@lru_cache(maxsize=1)
def _backdrops(recipe: SceneRecipe) -> Backdrops | None:
    if recipe.backgrounds is None or recipe.background == "room":
        return None
    return Backdrops.of(recipe.background, Path(recipe.backgrounds), annotations=recipe.annotations)


@lru_cache(maxsize=1)
def _library(studio: Studio) -> ClipLibrary:
    return ClipLibrary(studio.clip_paths())


@lru_cache(maxsize=1)
def _clips(studio: Studio) -> tuple[str, ...]:
    return studio.chosen_clips(studio.library().paths)


@lru_cache(maxsize=1)
def _renderer(studio: Studio) -> Renderer:
    if studio.domain is Domain.HAND:
        hands = {side: load_hand(studio.assets / name) for side, name in HANDS.items()}
        return Renderer(HandFigure(**hands), studio.backdrops())
    body, recipe = load_body(studio.body), studio.recipe
    textures = None
    if recipe.textures is not None and recipe.uv is not None:
        textures = TextureWardrobe(body, Path(recipe.uv), Path(recipe.textures))
    return Renderer(BodyFigure(body, studio.library(), textures), studio.backdrops())


@lru_cache(maxsize=1)
def _cells(studio: Studio) -> npt.NDArray[np.int32]:
    return cells_of_faces(studio.renderer().figure)


def render_scene(
    recipe: BuildRecipe,
    index: int,
    studio: Studio,
    report: Report,
    *,
    source: str,
    least_coverage: float = LEAST_COVERAGE,
) -> tuple[dict[str, list[dict[str, Any]]], list[Reject]]:
    """Render all views of all instants of one scene.

    Args:
        recipe: of the build.
        index: of the scene.
        studio: where it is rendered.
        report: told after every image.
        source: opens the keys.
        least_coverage: images of which the person covers less are left out: an occluder stands before it.

    Returns:
        Rows of the tables frames, crops and labels, in the same order, and of the table scenes; and what was left out.
    """
    renderer, scene = studio.renderer(), studio.scene(recipe.seed, index)
    licence = _licence(studio, scene)
    held_out = recipe.split
    split = split_of(scene.identity, seed=recipe.seed, val_groups=held_out.val_groups, val_share=held_out.val_share)
    rows: dict[str, list[dict[str, Any]]] = {"frames": [], "crops": [], "labels": []}
    rejects: list[Reject] = []
    total = len(scene.phases) * len(scene.cameras)
    for instant in range(len(scene.phases)):
        for view in range(len(scene.cameras)):
            shared = _shared_columns(scene, studio.domain, split, instant, view, source) | {"licence": licence}
            image = renderer.render(scene, instant=instant, view=view)
            report(instant * len(scene.cameras) + view + 1, total)
            if (covered := float(image.silhouette.mean())) < least_coverage:
                detail = f"occluders leave {covered:.1%} of the picture to the person"
                rejects.append(Reject("renders", shared["key"], Reason.HIDDEN, detail))
                continue
            told = _told(image, studio.domain) | {"side": scene.side if scene.hand else None}
            surface = {"surface": cells_seen(image, studio.cells())}
            rows["frames"].append(shared | told | _frame_columns(scene, image))
            rows["crops"].append(
                shared | told | surface | _crop_columns(shared["key"], image, recipe.crop.jpeg_quality)
            )
            rows["labels"].append({"key": shared["key"]} | label_columns(image, studio.recipe.labels))
    figure = renderer.figure
    written = {
        "sequence": f"s{index:06d}",
        "scene": scene.to_json(),
        "model": figure.sha256,
        "garments": list(figure.garments),
    }
    return rows | {"scenes": [written | {"device": renderer.device}]}, rejects


def _licence(studio: Studio, scene: Scene) -> str:
    """The terms of all that an image is made from."""
    terms = [_OWN_WORK[studio.domain] if studio.recipe.textures is None else _SMPL]
    if studio.domain is Domain.BODY:
        terms.append(f"{studio.library()[scene.clip].licence} (motions)")
    if scene.backdrop is not None:
        terms.append("your own terms (backgrounds)")
    return ", ".join(terms)


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


def _told(image: View, domain: Domain) -> dict[str, Any]:
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
