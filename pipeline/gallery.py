"""A page of scenes to look at: all views, the labels of some, and what they share; HTML that needs nothing beside itself.

Everything is taken from the rows that a build would store, decoded as a reader of its tables decodes them. Only how much of
a pixel the person covers, and exact correspondence, come from rendering a view once more.

Shape letters: H W image, K keypoints, P pixels of the silhouette.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from manifests import table as tables
from manifests.audit.page import STYLE, Markup, text
from manifests.doors import door
from manifests.errors import RecipeError, SyntheticError
from manifests.files import write_bytes
from manifests.surface import covisibility
from pipeline.labels import decode_maps
from pipeline.recipes import BuildRecipe
from pipeline.render import Studio, render_scene
from pipeline.stage import Report
from pipeline.stages import SYNTHETIC
from synthetic.hand_figure import HAND21
from synthetic.models.hand import HAND_JOINT_NAMES, HAND_PARENTS
from synthetic.models.makehuman import JOINT_NAMES, PARENTS
from synthetic.render import View
from synthetic.scene import LABELS, Scene
from synthetic.surface import correspond

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Rows = dict[str, list[dict[str, Any]]]

MOST_VIEWS = 4  # whose labels are shown of a scene
_SHOWN_PX = 256  # larger images are shown smaller
_LINES = 28  # correspondences that are drawn of a pair

_LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_LIMB_NAMES = tuple(f"{side}_{limb}" for limb in _LIMBS for side in ("left", "right"))
_LIMB_BONES = ((0, 1), (0, 2), (2, 4), (1, 3), (3, 5), (0, 6), (1, 7), (6, 7), (6, 8), (8, 10), (7, 9), (9, 11))


def _bones(parents: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((parent, child) for child, parent in enumerate(parents) if parent >= 0)


def _after(num: int, bones: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple((first + num, second + num) for first, second in bones)


# Of each set of keypoints: names, and the lines that are drawn between them.
KEYPOINTS: dict[str, tuple[tuple[str, ...], tuple[tuple[int, int], ...]]] = {
    "smpl24": (JOINT_NAMES, _bones(PARENTS)),
    "coco17": (
        ("nose", "left_eye", "right_eye", "left_ear", "right_ear", *_LIMB_NAMES),
        ((0, 1), (0, 2), (1, 3), (2, 4), *_after(5, _LIMB_BONES)),
    ),
    "penn13": (("head", *_LIMB_NAMES), ((0, 1), (0, 2), *_after(1, _LIMB_BONES))),
    "hand21": (HAND21, tuple((0 if point % 4 == 1 else point - 1, point) for point in range(1, 21))),
    "mano16": (HAND_JOINT_NAMES, _bones(HAND_PARENTS)),
}
_PARTS = {"body": JOINT_NAMES, "hand": HAND_JOINT_NAMES}

_STYLE = """
h2 { border-top: 1px solid var(--line); padding-top: 24px; } h2 small { font-weight: 400; color: var(--faint); }
pre { margin: 6px 0; padding: 8px 10px; background: var(--code); border-radius: 4px; overflow: auto; max-height: 360px; font-size: 12px;
  white-space: pre-wrap; }
.pic, .two { display: block; position: relative; width: 100%; aspect-ratio: 1; background-size: 100% 100%; border-radius: 4px; overflow: hidden; }
.pic > svg, .two > svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.strip { display: grid; gap: 4px; margin: 10px 0; max-width: 760px; }
.two { aspect-ratio: 2; display: grid; grid-template-columns: 1fr 1fr; } .two .pic { border-radius: 0; }
.layers { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(210px, 47%), 1fr)); gap: 10px; }
.pairs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(430px, 100%), 1fr)); gap: 10px; }
.layers figure, .pairs figure { padding: 6px 8px; } .layers img { display: block; width: 100%; border: 0; border-radius: 4px; }
.pairs figure > div { display: grid; grid-template-columns: 2fr 1fr; gap: 6px; } .pairs img { width: 100%; border: 0; border-radius: 4px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 12px; margin: 8px 0; font-size: 13px; } .legend i { display: inline-block;
  width: 12px; height: 12px; border: 1px solid var(--line); border-radius: 3px; margin-right: 5px; }
.tabs > input { position: absolute; opacity: 0; } .tabs > label { display: inline-block; padding: 4px 12px; margin: 0 4px 10px 0;
  border: 1px solid var(--line); border-radius: 8px; cursor: pointer; }
.tabs > input:checked + label { background: var(--bar); color: var(--paper); border-color: var(--bar); }
.tabs > input:focus-visible + label { outline: 2px solid var(--ink); } .tabs > .panel { display: none; }
@media (max-width: 600px) { .pairs figure > div { grid-template-columns: 1fr; } .pairs figure > div > img { width: 50%; } }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class _Shown:
    """One scene and what was made of it.

    Attributes:
        scene: as it was drawn.
        rows: of the tables frames, crops, labels and scenes, view after view, instant after instant.
        views: rendered once more, by (instant, view).
    """

    scene: Scene
    rows: Rows
    views: dict[tuple[int, int], View]

    def at(self, instant: int, view: int) -> int:
        """The row of a view."""
        return instant * len(self.scene.cameras) + view

    def picture(self, instant: int, view: int) -> str:
        """The style that shows a view's image."""
        return f"s{self.scene.index}i{instant}v{view}"


def chosen_scenes(recipe: BuildRecipe, *, first: int, num: int, where: str) -> range:
    """The scenes that are shown: some, from one on, as far as the recipe goes.

    Raises:
        RecipeError: the recipe renders nothing, or has no such scene.
    """
    if recipe.render is None:
        raise RecipeError(
            f"recipe {recipe.name} renders nothing",
            where=where,
            hint="take a recipe with a section `render`, such as synthetic or synthetic_hand",
        )
    total = recipe.render.num_scenes
    if num < 1 or not 0 <= first < total:
        raise RecipeError(
            f"no scene can be shown of {num} from number {first}",
            where=where,
            hint=f"the recipe has scenes 0 to {total - 1}: --first of these, and --scenes of at least 1",
        )
    return range(first, min(first + num, total))


def write_gallery(
    path: Path, recipe: BuildRecipe, assets: Path, scenes: range, report: Report, *, command: str
) -> None:
    """Render scenes and write the page.

    Args:
        path: of the page.
        recipe: of a build; it renders.
        assets: holds the free models and clips.
        scenes: indices of those that are shown.
        report: told after every scene.
        command: that made the page, to which `--first I --scenes 1` can be added.

    Raises:
        SyntheticError: a model, clip or background is missing, nothing can be rendered here, or the page cannot be written.
    """
    render = recipe.render
    assert render is not None, "scenes were chosen of it"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # before anything is rendered
    except OSError as error:
        raise _unwritten(path, error) from error
    whole = Studio(assets, replace(render, labels=LABELS))
    sections, images = [], []
    for done, index in enumerate(scenes):
        shown = _render(recipe, whole, index)
        sections.append(_section(shown, whole, command))
        images += [
            f".{shown.picture(crop['instant'], int(crop['view'][1:]))} {{ background-image: url({_jpeg_uri(crop['jpeg'])}); }}"
            for crop in shown.rows["crops"]
        ]
        report(done + 1, len(scenes))
    tabs = [
        f".tabs > input:nth-of-type({k}):checked ~ .panel:nth-of-type({k}) {{ display: block; }}"
        for k in range(1, MOST_VIEWS + 1)
    ]
    figure, device = whole.renderer().figure, whole.renderer().device
    which = f"Scene {scenes[0]}" if len(scenes) == 1 else f"Scenes {scenes[0]} to {scenes[-1]}"
    told = (
        f"{which} of {render.num_scenes:,}, counted from 0: {render.instants_per_scene} instants by "
        f"{render.num_views} cameras each, {render.image_px} px; seed {recipe.seed}. "
        f"Maps that a build of it keeps: {', '.join(render.labels) or 'none'}. Drawn by {device}."
    )
    page = "\n".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
            f'<meta http-equiv=Content-Security-Policy content="{_POLICY}">',
            f"<title>scenes of {text(recipe.name)}</title><style>{STYLE}{_STYLE}",
            *tabs, *images,
            f"</style><h1>Scenes of recipe {text(recipe.name)}</h1><p class=faint>{text(told)}</p>",
            f"<h3>Parts</h3>{_legend(_PARTS[whole.domain.value])}<h3>Garments</h3>{_legend(figure.garments[1:])}",
            *sections,
            "</html>\n",
        ]
    )  # fmt: skip
    try:
        write_bytes(path, page.encode())
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> SyntheticError:
    return SyntheticError(
        f"the page cannot be written: {error.strerror}", where=path, hint="give an --out that you may write"
    )


def _render(recipe: BuildRecipe, studio: Studio, index: int) -> _Shown:
    made, _ = render_scene(recipe, index, studio, lambda _done, _total: None, source=SYNTHETIC, least_coverage=0.0)
    rows = {name: tables.from_rows(name, its).to_pylist() for name, its in made.items()}
    scene = Scene.from_json(rows["scenes"][0]["scene"])
    wanted = [(0, view) for view in range(min(MOST_VIEWS, len(scene.cameras)))]
    wanted += [(1, 0)] if len(scene.phases) > 1 else []
    renderer = studio.renderer()
    return _Shown(scene, rows, {(i, v): renderer.render(scene, instant=i, view=v) for i, v in wanted})


# ------------------------------------------------------------------------------------------------------------ sections


def _section(shown: _Shown, studio: Studio, command: str) -> str:
    scene, rows = shown.scene, shown.rows
    what = f"{scene.side} hand" if scene.hand else scene.clip
    again = door("pipeline", "rerender", "OUT", rows["crops"][0]["key"], "--out", "picture.png")
    return "\n".join(
        [
            f"<section><h2>Scene {scene.index} <small>{text(f'{scene.identity}, {what}, {scene.framing}')}</small></h2>",
            _strip(shown),
            f"<h3>Labels</h3>{_tabs(shown, studio)}",
            *_pairs(shown),
            f"<details><summary>Facts: person, movement, light, place, cameras</summary>{_facts(shown)}</details>",
            f"<details><summary>The scene as data, {len(rows['scenes'][0]['scene']):,} bytes</summary>"
            f"<pre>{text(_by_line(rows['scenes'][0]['scene']))}</pre></details>",
            f"<p class=faint>This scene again: <code>{text(command)} --first {scene.index} --scenes 1</code><br>one image of "
            f"it, from a build: <code>{text(again)}</code></p></section>",
        ]
    )


def _by_line(scene: str) -> str:
    """A scene's JSON with each of its fields in a line."""
    fields = json.loads(scene).items()
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in fields) + "\n}"


def _strip(shown: _Shown) -> str:
    num = len(shown.scene.cameras)
    pictures = [
        f"<span class='pic {shown.picture(crop['instant'], int(crop['view'][1:]))}' role=img title='{text(crop['key'])}' "
        f"aria-label='instant {crop['instant']}, view {crop['view']}'></span>"
        for crop in shown.rows["crops"]
    ]
    return (
        f"<div class=strip style='grid-template-columns: repeat({num}, 1fr)'>{''.join(pictures)}</div>"
        f"<p class=faint>A row is an instant, a column a camera.</p>"
    )


def _tabs(shown: _Shown, studio: Studio) -> str:
    scene = shown.scene
    buttons, panels = [], []
    for view in range(min(MOST_VIEWS, len(scene.cameras))):
        name = f"s{scene.index}-{view}"
        buttons.append(
            f"<input type=radio name=s{scene.index} id={name}{' checked' if view == 0 else ''}>"
            f"<label for={name}>view {view}</label>"
        )
        panels.append(f"<div class=panel><div class=layers>{_layers(shown, view, studio)}</div></div>")
    return f"<div class=tabs>{''.join(buttons)}{''.join(panels)}</div>"


def _layers(shown: _Shown, view: int, studio: Studio) -> str:
    row = shown.rows["labels"][shown.at(0, view)]
    crop, image, maps = shown.rows["crops"][shown.at(0, view)], shown.views[0, view], decode_maps(row)
    person = maps["parts"] > 0
    depth, depths = _depth_picture(maps["depth"], person, "hand" if shown.scene.hand else "person")
    background = ~person
    normals = np.rint(maps["normals"] * 127.0 + 128.0)
    normals[background] = 0
    uv = np.concatenate([maps["uv"], np.full((*person.shape, 1), 0.25, np.float32)], axis=-1) * 255.0
    uv[background] = 0
    style = shown.picture(0, view)
    figures = [
        _figure(
            f"<span class='pic {style}' role=img aria-label=image></span>", "image", f"{len(crop['jpeg']):,} bytes"
        ),
        _figure(_png(image.alpha), "alpha", f"covers {100 * crop['coverage']:.1f} %"),
        _figure(_png(_coloured(maps["parts"])), "parts", f"{len(np.unique(maps['parts'][person]))} seen"),
        _figure(_png(_coloured(maps["garments"])), "garments", f"{len(np.unique(maps['garments'][person]))} seen"),
        _figure(_photo(depth), "depth", depths),
        _figure(_photo(normals.astype(np.uint8)), "normals", "x, y, z as R, G, B"),
        _figure(_photo(uv.astype(np.uint8)), "uv", "u, v as R, G"),
    ]
    sets: dict[str, Any] = {crop["keypoints_set"]: crop["keypoints_px"]}
    sets |= {name: row[name] for name in ("coco17", "penn13") if row[name] is not None}
    if studio.renderer().figure.joints_set not in sets:
        sets[studio.renderer().figure.joints_set] = np.c_[image.joints_xy_px, image.joint_visible]
    for name, values in sets.items():
        points = np.reshape(values, (-1, 3))
        drawing = _skeleton(name, points, len(person))
        seen = f"{int(points[:, 2].sum())} of {len(points)} seen"
        figures.append(_figure(f"<span class='pic {style}'>{drawing}</span>", name, seen))
    return "".join(figures)


def _pairs(shown: _Shown) -> list[str]:
    scene, figures = shown.scene, []
    if len(scene.cameras) > 1:
        figures.append(_pair(shown, "cross-view: views 0 and 1", (0, 0), (0, 1)))
    if len(scene.phases) > 1:
        figures.append(_pair(shown, "cross-pose: instants 0 and 1", (0, 0), (1, 0)))
    return ["<h3>What two images share</h3>", f"<div class=pairs>{''.join(figures)}</div>"] if figures else []


def _pair(shown: _Shown, title: str, target: tuple[int, int], reference: tuple[int, int]) -> str:
    here, there = shown.views[target], shown.views[reference]
    found, back = correspond(here, there), correspond(there, here)
    cells = np.stack(
        [np.frombuffer(shown.rows["crops"][shown.at(*one)]["surface"], np.uint8) for one in (target, reference)]
    )
    told = covisibility(cells, cells[::-1])
    size = len(here.rgb)
    seen = np.flatnonzero(found.seen)
    some = seen[np.linspace(0, len(seen) - 1, min(_LINES, len(seen))).astype(int)] if len(seen) else seen
    lines = "".join(
        f"<line x1={found.columns[p]} y1={found.rows[p]} x2={size + found.xy_px[p, 0]:.1f} y2={found.xy_px[p, 1]:.1f} "
        f"stroke='hsl({300 * rank / max(len(some) - 1, 1):.0f} 90% 60%)' />"
        for rank, p in enumerate(some)
    )
    pictures = "".join(
        f"<span class='pic {shown.picture(*one)}' role=img aria-label={role}></span>"
        for role, one in (("target", target), ("reference", reference))
    )
    overlay = (
        f"<svg viewBox='-0.5 -0.5 {2 * size} {size}' stroke-width={size / 256:.2f} stroke-opacity=0.8 role=img "
        f"aria-label=correspondences>{lines}</svg>"
    )
    return (
        f"<figure><div><span class=two>{pictures}{overlay}</span>{_photo(_warped(here, there.rgb, found.xy_px, found.seen))}"
        f"</div><figcaption><b>{text(title)}</b> The reference shows {_per_cent(found.covisibility)} of what the target shows "
        f"({_per_cent(told[0])} by cells), and the target {_per_cent(back.covisibility)} of the reference "
        f"({_per_cent(told[1])}). Last: the target in the reference's colours, red what that does not show.</figcaption></figure>"
    )


def _warped(target: View, reference: Bytes, xy_px: Floats, seen: npt.NDArray[np.bool_]) -> Bytes:
    """The target's surface in the colours that the reference has there; red what it does not see, dim what is no person."""
    picture, at = (target.rgb * 0.25).astype(np.uint8), (target.seen.rows, target.seen.columns)
    places = np.zeros((*target.silhouette.shape, 2), np.float32)
    places[at] = xy_px
    colours = cv2.remap(reference, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[
        at
    ]
    red = (target.rgb[at] * 0.3 + np.array([140, 0, 20])).astype(np.uint8)
    picture[at] = np.where(seen[:, None], colours, red)
    return picture


def _facts(shown: _Shown) -> str:
    scene, crop = shown.scene, shown.rows["crops"][0]
    times = [shown.rows["frames"][shown.at(instant, 0)]["time_s"] for instant in range(len(scene.phases))]
    height, around = (
        np.arcsin(np.clip(scene.light.lamp[1], -1, 1)),
        np.arctan2(scene.light.lamp[0], scene.light.lamp[2]),
    )
    place = f"{scene.backdrop.kind}: {', '.join(scene.backdrop.names)}" if scene.backdrop else "nothing"
    if scene.room:
        (half_x, half_z), tall = scene.room.half_m, scene.room.height_m
        place = f"a room of {2 * half_x:.1f} by {2 * half_z:.1f} m, {tall:.1f} m high, with {len(scene.room.furniture)} things"
    facts = {
        "identity": f"{scene.identity}, {crop['split']}; shape {' '.join(f'{beta:+.1f}' for beta in scene.betas)}",
        "movement": f"{scene.clip or 'grasps'} at {', '.join(f'{time:.2f}' for time in times)} s",
        "light": f"lamp {np.rad2deg(height):.0f}\N{DEGREE SIGN} high, {np.rad2deg(around):.0f}\N{DEGREE SIGN} around, shadows "
        f"{100 * scene.light.shadow:.0f} % dark",
        "place": f"{place}; {len(scene.occluders)} things between cameras and person",
        "sensor": "no faults" if scene.sensor is None else str(scene.sensor),
        "terms": crop["licence"],
    }
    rows = "".join(f"<tr><td>{name}</td><td>{text(value)}</td></tr>" for name, value in facts.items())
    cameras = []
    for view, camera in enumerate(scene.cameras):
        crop = shown.rows["crops"][shown.at(0, view)]
        values = (
            view, f"{np.rad2deg(camera.azimuth_rad) % 360:.0f}\N{DEGREE SIGN}", f"{np.rad2deg(camera.elevation_rad):.0f}\N{DEGREE SIGN}",
            f"{camera.distance_m:.2f} m", f"{np.rad2deg(camera.roll_rad):.1f}\N{DEGREE SIGN}", f"{crop['intrinsics'][0]:.0f} px",
            f"{100 * crop['coverage']:.1f} %",
        )  # fmt: skip
        cameras.append(f"<tr>{''.join(f'<td class=n>{text(value)}</td>' for value in values)}</tr>")
    names = ("view", "around", "above", "away", "roll", "focal length", "person")
    head = "".join(f"<th class=n>{name}</th>" for name in names)
    return f"<div class=wide><table>{rows}</table></div><br><div class=wide><table><tr>{head}</tr>{''.join(cameras)}</table></div>"


# ------------------------------------------------------------------------------------------------------------ pictures


def _figure(picture: str, title: str, told: str) -> str:
    return f"<figure>{picture}<figcaption><b>{text(title)}</b> {text(told)}</figcaption></figure>"


def _per_cent(share: float) -> str:
    return "none" if np.isnan(share) else f"{100 * share:.0f} %"


@lru_cache(maxsize=1)
def _palette() -> Bytes:
    """(256, 3) colours of numbers: black for 0, then each as far from all before as can be, to the eye."""
    steps = np.linspace(0, 255, 10).astype(np.uint8)
    tried = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    tried = tried[cv2.cvtColor(tried, cv2.COLOR_RGB2LAB)[:, 0, 0] > 90]  # dark ones look alike
    places = cv2.cvtColor(tried, cv2.COLOR_RGB2LAB)[:, 0].astype(np.float64)
    chosen = [int(np.square(places - 128.0).sum(axis=1).argmax())]
    apart = np.full(len(places), np.inf)
    for _ in range(254):
        np.minimum(apart, np.square(places - places[chosen[-1]]).sum(axis=1), out=apart)
        chosen.append(int(apart.argmax()))
    return np.concatenate([np.zeros((1, 3), np.uint8), tried[chosen, 0]])


def _coloured(numbers: Bytes) -> Bytes:
    return np.asarray(_palette()[numbers])


def _legend(names: Sequence[str]) -> Markup:
    items = "".join(
        f"<span><i style='background: rgb{tuple(_palette()[number].tolist())}'></i>{text(name.replace('_', ' '))}</span>"
        for number, name in enumerate(names, start=1)
    )
    return Markup(f"<div class=legend>{items}</div>")


def _depth_picture(depth_m: npt.NDArray[np.float32], person: npt.NDArray[np.bool_], who: str) -> tuple[Bytes, str]:
    """The depth of who is shown in colours, near bright; what is around in grey."""
    around = (depth_m > 0) & ~person
    picture = np.zeros((*depth_m.shape, 3), np.uint8)
    told: list[str] = []
    for which, name, most in ((around, "around", 120.0), (person, who, 255.0)):
        if which.any():
            low, high = float(depth_m[which].min()), float(depth_m[which].max())
            bright = np.rint(most * (1.0 - (depth_m[which] - low) / max(high - low, 1e-3))).astype(np.uint8)
            grey = bright[:, None]
            picture[which] = cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS)[:, 0, ::-1] if name == who else grey
            told.insert(0, f"{name} {low:.2f} to {high:.2f} m")
    return picture, ", ".join(told)


def _skeleton(name: str, points: Floats, size: int) -> str:
    """Keypoints (K, 3) and their bones, filled where they are seen."""
    names, bones = KEYPOINTS[name]
    lines = [
        f"<line x1={points[a, 0]:.1f} y1={points[a, 1]:.1f} x2={points[b, 0]:.1f} y2={points[b, 1]:.1f} />"
        for a, b in bones
    ]
    dots = [
        f"<circle cx={x:.1f} cy={y:.1f} r={size / 90:.2f} fill='{'#ffd23f' if seen else 'none'}'>"
        f"<title>{text(label)}{'' if seen else ', hidden'}</title></circle>"
        for (x, y, seen), label in zip(points, names, strict=True)
    ]
    return (
        f"<svg viewBox='-0.5 -0.5 {size} {size}' role=img aria-label={name}><g stroke='#33d6ff' stroke-opacity=0.85 "
        f"stroke-width={size / 140:.2f}>{''.join(lines)}</g><g stroke='#ffd23f' stroke-width={size / 220:.2f}>{''.join(dots)}</g></svg>"
    )


def _smaller(picture: Bytes, how: int) -> Bytes:
    if len(picture) <= _SHOWN_PX:
        return picture
    return np.asarray(cv2.resize(picture, (_SHOWN_PX, _SHOWN_PX), interpolation=how), np.uint8)


def _png(picture: Bytes) -> str:
    shown = _smaller(picture, cv2.INTER_NEAREST)
    data = cv2.imencode(".png", shown if shown.ndim == 2 else shown[..., ::-1])[1].tobytes()
    return f"<img alt='' loading=lazy src='{_uri('png', data)}'>"


def _photo(picture: Bytes) -> str:
    shown = np.ascontiguousarray(_smaller(picture, cv2.INTER_AREA))
    return f"<img alt='' loading=lazy src='{_uri('jpeg', simplejpeg.encode_jpeg(shown, quality=88))}'>"


def _jpeg_uri(jpeg: bytes) -> str:
    """A stored image, as it is; made smaller only where it is large."""
    rgb = simplejpeg.decode_jpeg(jpeg)
    if len(rgb) > _SHOWN_PX:
        jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(_smaller(rgb, cv2.INTER_AREA)), quality=88)
    return _uri("jpeg", jpeg)


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
