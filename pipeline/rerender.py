"""Renders one crop of a build anew, from its line in the table of scenes, and holds it against the bytes that are stored."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.compute as pc
import simplejpeg

from manifests import table as tables
from manifests.build import Build
from manifests.commit import read_commit
from manifests.doors import door
from manifests.errors import ManifestError, SyntheticError
from manifests.files import write_bytes
from manifests.recipes import from_mapping
from manifests.types import FrameKey
from pipeline.crop import stored_picture
from pipeline.recipes import CropRecipe
from pipeline.render import Studio
from pipeline.stage import read_plan
from synthetic.scene import Scene, SceneRecipe

RENDERS = "renders"  # the stage's folder


def rerender(out: Path, key: str, assets: Path, picture: Path) -> tuple[str, ...]:
    """Render a crop from its scene, with the recipe that the build was started with, and write it.

    Args:
        out: the build.
        key: of a rendered crop.
        assets: holds the models and the free clips.
        picture: to write: .png, or .jpg as a build stores it.

    Returns:
        What may have changed its JPEG; nothing where the bytes are those that the build stores.

    Raises:
        ManifestError: the key names no rendered crop of the build, or the build tells no scenes or cannot be read.
        SyntheticError: a model, clip or background is missing, or the picture's name ends otherwise or cannot be written.
    """
    if picture.suffix not in (".png", ".jpg"):
        raise SyntheticError(f"pictures end in .png or .jpg, not {picture.suffix!r}", where=picture, hint="name it so")
    frame, crop, stored = _rows(out, key)
    plan = read_plan(out / RENDERS) or {}
    try:
        recipe = from_mapping(SceneRecipe, plan["recipe"]["render"], where=f"{RENDERS}/plan.json")
        quality = from_mapping(CropRecipe, plan["recipe"]["crop"], where=f"{RENDERS}/plan.json").jpeg_quality
        scene = Scene.from_json(stored["scene"])
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(
            f"the scene of {key} cannot be read: {error}",
            where=out / RENDERS,
            hint="use the version of crosspose that rendered it, or render it again",
        ) from error
    studio = Studio(assets, recipe)
    renderer = studio.renderer()
    view = renderer.render(scene, instant=frame.instant, view=int(frame.view.removeprefix("v")))
    jpeg: bytes = stored_picture(view.rgb, quality)["jpeg"]
    data = jpeg if picture.suffix == ".jpg" else cv2.imencode(".png", view.rgb[..., ::-1])[1].tobytes()
    try:
        write_bytes(picture, data)
    except OSError as error:
        raise SyntheticError(
            f"the picture cannot be written: {error.strerror}", where=picture, hint="give a folder that you may write"
        ) from error
    reasons: list[str] = []
    if jpeg != crop["jpeg"]:
        reasons += [
            f"{what}: {old} then, {new} now"
            for what, old, new in (
                ("another device", stored["device"], renderer.device),
                ("another model", stored["model"], renderer.figure.sha256),
            )
            if old != new
        ]
        reasons += _changed_inputs(plan.get("inputs", {}), studio.inputs())
        reasons = reasons or [
            "device, model and inputs are the same: the code, or a library it uses, renders otherwise"
        ]
        reasons.append(_distance(crop["jpeg"], jpeg))
    return tuple(reasons)


def _rows(out: Path, key: str) -> tuple[FrameKey, dict[str, Any], dict[str, Any]]:
    """What the key names, the crop's JPEG and its scene's line."""
    folder = out / RENDERS
    if not out.is_dir():
        raise ManifestError("there is no build", where=out, hint="give the OUT folder of a build that renders")
    if not folder.is_dir():
        raise ManifestError(
            "no rendered scenes are here", where=folder, hint="give the OUT folder of a build that renders"
        )
    try:
        frame = FrameKey.parse(key)
    except ManifestError as error:
        raise ManifestError(f"{key!r} is no key of a crop", where=folder, hint=_some_key(out)) from error
    path = folder / f"{frame.source}-{frame.sequence}.json"
    if not path.exists():
        raise ManifestError(f"the build has no rendered crop {frame}", where=folder, hint=_some_key(out))
    commit = read_commit(path)
    crops, scenes = commit.file("crops"), commit.file("scenes")
    if crops is None or scenes is None:
        raise ManifestError(
            "the unit has no table of scenes",
            where=path,
            hint="it is of an older version: render it again with this one",
        )
    found = tables.read("crops", folder / crops.name, columns=["key", "jpeg"])
    rows = found.filter(pc.equal(found["key"], str(frame))).to_pylist()
    lines = tables.read("scenes", folder / scenes.name).to_pylist()
    if len(rows) != 1 or len(lines) != 1:
        raise ManifestError(f"the build has no rendered crop {frame}", where=folder, hint=_some_key(out))
    return frame, rows[0], lines[0]


def _some_key(out: Path) -> str:
    """A hint that names a key of the build, if it holds one."""
    lists = f"`{door('manifests', 'show', out)}` lists keys"
    for commit in Build(out).commits(RENDERS):
        crops = commit.file("crops")
        if crops is not None and crops.rows:
            (key,) = tables.read("crops", out / RENDERS / crops.name, columns=["key"])["key"][:1].to_pylist()
            return f"a key of this build is {key}; {lists}"
    return lists


def _changed_inputs(then: dict[str, str], now: dict[str, str]) -> list[str]:
    return [
        f"{name} has changed: {then.get(name, 'absent')[:16]} then, {now.get(name, 'absent')[:16]} now"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]


def _distance(then: bytes, now: bytes) -> str:
    apart = np.abs(simplejpeg.decode_jpeg(then).astype(int) - simplejpeg.decode_jpeg(now).astype(int))
    return f"pixels differ by {apart.mean():.2f} of 255 on average, {apart.max()} at most"
