"""The pipeline's door: `python -m pipeline ingest|render|crop|pairs|shards|build|publish|pull|gallery|rerender|sources|doctor|fetch|recipe|convert-checkpoint|train-parser`."""

import argparse
import logging
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from manifests.commit import NO_ROOM
from manifests.doors import door
from manifests.errors import CrossposeError, RecipeError, SourceError, StageError
from manifests.recipes import read_recipe, to_mapping
from pipeline.executors import LocalExecutor, RayExecutor
from pipeline.progress import TerminalWatcher, print_summary
from pipeline.recipes import DATASETS, RECIPES, BuildRecipe, SourceRecipe
from pipeline.stage import Executor, check_recipes, run_stage

VERBS = ("ingest", "render", "crop", "pairs", "shards")


def main(argv: list[str] | None = None) -> int:
    """Run one verb; 0 when it is done, 2 with what, where and what to try when it is not."""
    arguments = _parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, _stop)
    console = Console(highlight=False)
    try:
        return _run(arguments, console)
    except CrossposeError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"{type(error).__name__}: {error}", style="red", markup=False
        )
        return 2
    except OSError as error:
        told: CrossposeError
        if isinstance(error, PermissionError):
            told = SourceError("this may not be read by you", where=str(error.filename), hint="check its permissions")
        elif error.errno in NO_ROOM:
            told = StageError(f"{error.strerror}", where=str(error.filename), hint="free disk space, then run again")
        else:
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(str(told), style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; what is committed stays: run the same command to go on")
        return 130


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline", description="Build shards of pairs from raw recordings."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    _add_stages(verbs)
    _add_copies(verbs)
    _add_pictures(verbs)
    _add_parsers(verbs)
    fetch = verbs.add_parser("fetch", help="get the inputs of the demo: clips, motions, the parser's weights, the body")
    _add_assets(fetch)
    recipe = verbs.add_parser("recipe", help="print a recipe with all its values")
    recipe.add_argument("recipe", nargs="?", default="demo")
    verbs.add_parser("sources", help="the datasets that are read: what each needs, its terms, what it gives")
    doctor = verbs.add_parser("doctor", help="say what lies in a data folder, and what a build would make of it")
    doctor.add_argument("root", type=Path, nargs="+", help="a dataset, or a folder that holds several")
    doctor.add_argument("--all", action="store_true", help="list the frames of every recording, not of some")
    arguments, odd = parser.parse_known_args(argv)
    if odd:
        spaces = (
            "" if odd[0].startswith("-") else "; make splits names at spaces: give others, or call this with quotes"
        )
        parser.error(f"unrecognized arguments: {' '.join(odd)}{spaces}")
    return arguments


def _add_stages(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = {
        "ingest": "list the frames of every recording",
        "render": "render synthetic people",
        "crop": "find and follow people, cut them out",
        "pairs": "draw cross-view and cross-pose pairs",
        "shards": "pack the pairs into tars",
        "build": "all of these in order",
    }
    for verb, text in about.items():
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("--recipe", default="demo", help="a recipe's name or a YAML file")
        sub.add_argument(
            "--root",
            action="append",
            default=[],
            help="where the raw recordings are: FOLDER for a recipe of one source (with several: FOLDER/<source>, or FOLDER for datasets that lie in it under other names), or SOURCE=FOLDER, repeated",
        )
        sub.add_argument("--out", type=Path, required=True, help="the folder that holds everything a run writes")
        sub.add_argument("--executor", choices=("ray", "local"), default="ray")
        sub.add_argument("--ray-address", default=os.environ.get("RAY_ADDRESS") or None, help="of a running cluster")
        sub.add_argument("--workers", type=int, help="units under way at once")
        sub.add_argument("--extend", action="store_true", help="add what is new to what is there, which stays as it is")
        sub.add_argument(
            "--retry-failed", action="store_true", help="run only what failed before (<stage>/failed.jsonl)"
        )
        sub.add_argument(
            "--gpus", type=float, default=0.0, help="share of a GPU for each worker with a network, as 0.25"
        )
        if verb in ("render", "build"):
            sub.add_argument("--images", type=int, metavar="N", help="as many people as at least N images take")
        _add_assets(sub)


def _add_copies(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    publish = verbs.add_parser(
        "publish", help="copy a build to an object store, where trainers on other machines read it"
    )
    publish.add_argument("source", metavar="OUT", help="the build")
    publish.add_argument("target", metavar="URL", help="s3://bucket/folder, or another that fsspec opens")
    pull = verbs.add_parser("pull", help="copy a published build to a folder, or go on with a copy that was stopped")
    pull.add_argument("source", metavar="URL", help="where it was published")
    pull.add_argument("target", metavar="OUT", help="the folder")
    for sub in (publish, pull):
        sub.add_argument("--stages", default="shards", help="of them, these, with commas between (shards)")
        sub.add_argument("--all", action="store_true", help="all stages that are there")
        sub.add_argument("--threads", type=int, default=8, metavar="N", help="files under way at once (8)")
        sub.add_argument("--verify", action="store_true", help="read all of the copy back; send anew what is damaged")


def _add_pictures(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    gallery = verbs.add_parser("gallery", help="render some scenes of a recipe into one page to look at, gallery.html")
    gallery.add_argument("--recipe", default="synthetic", help="a recipe's name or a YAML file (synthetic)")
    gallery.add_argument("--out", type=Path, required=True, help="folder for gallery.html")
    gallery.add_argument("--scenes", type=int, default=8, metavar="N", help="how many (8)")
    gallery.add_argument("--first", type=int, default=0, metavar="I", help="number of the first (0)")
    _add_assets(gallery)
    rerender = verbs.add_parser(
        "rerender",
        help="render one image of a build anew, and say whether its bytes are those stored: 0 if so, 1 if not",
    )
    rerender.add_argument("build", type=Path, metavar="OUT", help="the build")
    rerender.add_argument("key", metavar="KEY", help="of a rendered crop, as `python -m manifests show OUT` lists them")
    rerender.add_argument("--out", type=Path, required=True, help="picture to write: .png, or .jpg as it is stored")
    _add_assets(rerender)


def _add_parsers(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    convert = verbs.add_parser("convert-checkpoint", help="make a checkpoint plain: weights and class names only")
    convert.add_argument("source", type=Path, metavar="IN")
    convert.add_argument("target", type=Path, metavar="OUT")
    convert.add_argument(
        "--i-trust-this-file",
        action="store_true",
        help="read it even where that runs code which the file's author put into it",
    )
    train = verbs.add_parser("train-parser", help="train a small mmseg net on rendered people's exact silhouettes")
    train.add_argument("--out", type=Path, required=True, help="folder for the config, the checkpoint and the report")
    train.add_argument("--renders", type=int, default=480, help="images to render, four of each person (480)")
    train.add_argument("--steps", type=int, default=800, help="of training, on 16 crops each (800)")
    train.add_argument("--seed", type=int, default=0, help="root of all randomness (0)")
    train.add_argument("--real", type=Path, help="judge it on photos too: a folder with images/*.jpg and labels/*.png")
    _add_assets(train)


def _add_assets(parser: argparse.ArgumentParser) -> None:
    default = Path(os.environ.get("CROSSPOSE_ASSETS") or "assets")
    parser.add_argument("--assets", type=Path, default=default, help="where fetched inputs are kept")


def _run(arguments: argparse.Namespace, console: Console) -> int:
    if arguments.verb == "fetch":
        from pipeline.fetch import fetch_all

        fetch_all(arguments.assets.resolve(), console)
        return 0
    if arguments.verb in ("sources", "doctor"):
        return _say(arguments, console)
    if arguments.verb in ("publish", "pull"):
        from pipeline.publish import copy_build

        wanted = [] if arguments.all else arguments.stages.split(",")
        how = {"threads": max(arguments.threads, 1), "verify": arguments.verify}
        copy_build(arguments.source, arguments.target, console, stages=wanted, **how)
        return 0
    if arguments.verb == "convert-checkpoint":
        from pipeline.parsers.convert import convert_checkpoint

        number = convert_checkpoint(arguments.source, arguments.target, trusted=arguments.i_trust_this_file)
        console.print(f"wrote {number} tensors to {arguments.target}", markup=False, soft_wrap=True)
        return 0
    if arguments.verb == "train-parser":
        _train_parser(arguments, console)
        return 0
    if arguments.verb == "rerender":
        return _rerender(arguments, console)
    recipe = read_recipe(arguments.recipe, RECIPES)
    if arguments.verb == "recipe":
        console.print_json(data=to_mapping(recipe))
        return 0
    if arguments.verb == "gallery":
        _gallery(arguments, recipe, console)
        return 0
    if arguments.verb in ("render", "build") and arguments.images is not None:
        recipe = with_images(recipe, arguments.images)
        render = recipe.render
        assert render is not None, "it has images"
        console.print(
            f"{render.num_images:,} images: {render.num_scenes:,} scenes of {render.num_identities:,} people, each of "
            f"{render.instants_per_scene} instants by {render.num_views} cameras",
            soft_wrap=True,
        )
    roots = find_roots(recipe, arguments.root) if arguments.verb in ("ingest", "crop", "build") else {}
    if arguments.verb == "build":
        parts = [source.name for source in recipe.sources]
        parts += (
            [f"{recipe.render.num_scenes:,} rendered scenes (`render: null` leaves them out)"] if recipe.render else []
        )
        console.print(f"recipe {recipe.name}: {', '.join(parts)}", soft_wrap=True)
    try:
        ray = RayExecutor(address=arguments.ray_address, workers=arguments.workers, gpus=arguments.gpus)
    except ValueError as error:
        where = f"WORKERS={arguments.workers} GPUS={arguments.gpus:g}"
        hint = "WORKERS=2, or none for one per CPU; GPUS=0.25, or none to compute on CPUs"
        raise RecipeError(str(error), where=where, hint=hint) from error
    executor: Executor = LocalExecutor() if arguments.executor == "local" else ray
    from pipeline.stages import stages

    out = arguments.out.resolve()
    there = stages(recipe, roots=roots, assets=arguments.assets.resolve(), out=out)
    todo = [make() for verb, make in there.items() if arguments.verb in (verb, "build")]
    earlier = [] if arguments.verb == "build" else list(there)[: list(there).index(arguments.verb)]
    check_recipes(todo, out, earlier=[there[verb]() for verb in earlier])
    for stage in todo:
        how = {"extend": arguments.extend, "retry_failed": arguments.retry_failed}
        print_summary(console, run_stage(stage, out, executor, TerminalWatcher(console), **how))
    return 0


def _say(arguments: argparse.Namespace, console: Console) -> int:
    from pipeline.doctor import print_doctor, print_sources
    from pipeline.sources.layout import require_folder

    if arguments.verb == "sources":
        print_sources(console)
        return 0
    for root in arguments.root:
        require_folder(root, "the folder")
    healthy = [print_doctor(root.resolve(), console, everything=arguments.all) for root in arguments.root]
    return 0 if all(healthy) else 2


def _gallery(arguments: argparse.Namespace, recipe: BuildRecipe, console: Console) -> None:
    from pipeline.gallery import chosen_scenes, write_gallery

    scenes = chosen_scenes(recipe, first=arguments.first, num=arguments.scenes, where="the command line")
    path, assets = arguments.out / "gallery.html", arguments.assets.resolve()
    command = door("pipeline", "gallery", "--recipe", arguments.recipe, "--out", arguments.out)
    with Progress(TextColumn("rendering scenes"), BarColumn(), MofNCompleteColumn(), console=console) as bars:
        task = bars.add_task("scenes", total=len(scenes))
        write_gallery(
            path, recipe, assets, scenes, lambda done, _total: bars.update(task, completed=done), command=command
        )
    console.print(f"wrote {path}, {path.stat().st_size / 1e6:.1f} MB", markup=False, soft_wrap=True)


def _rerender(arguments: argparse.Namespace, console: Console) -> int:
    from pipeline.rerender import rerender

    reasons = rerender(arguments.build, arguments.key, arguments.assets.resolve(), arguments.out)
    same = "are not the stored ones:" if reasons else "are the stored ones"
    console.print(f"wrote {arguments.out}; the JPEG's bytes {same}", markup=False, soft_wrap=True)
    for reason in reasons:
        console.print(f"  {reason}", markup=False, soft_wrap=True)
    return 1 if reasons else 0


def with_images(recipe: BuildRecipe, images: int) -> BuildRecipe:
    """A recipe with as many people as at least so many images take.

    Raises:
        RecipeError: it renders nothing, or no image is wanted, or too many for one recipe.
    """
    render, where = recipe.render, f"--images {images}"
    if render is None:
        hint = "leave N out, or take a recipe with a section `render`, such as synthetic"
        raise RecipeError(f"recipe {recipe.name} renders nothing", where=where, hint=hint)
    if images < 1:
        raise RecipeError(f"{images} images cannot be rendered", where=where, hint="ask for at least 1")
    of_one = render.scenes_per_identity * render.instants_per_scene * render.num_views
    try:
        return replace(recipe, render=replace(render, num_identities=-(-images // of_one)))
    except ValueError as error:
        raise RecipeError(str(error), where=where, hint="ask for fewer images") from error


def _train_parser(arguments: argparse.Namespace, console: Console) -> None:
    from pipeline.parsers.train import train_parser

    out, assets = arguments.out.resolve(), arguments.assets.resolve()
    report = train_parser(
        out, assets=assets, renders=arguments.renders, steps=arguments.steps, seed=arguments.seed, real=arguments.real
    )
    for crops, parsers in report["scores"].items():
        table = Table(*["parser", *next(iter(parsers.values()))], title=f"{crops}, pixels from {report['threshold']}")
        for name, scores in parsers.items():
            table.add_row(name, *[f"{value:.3f}".removesuffix(".000") for value in scores.values()])
        console.print(table)
    console.print(f"wrote {out}/report.json and overlays.png; to use the net, put into a recipe", soft_wrap=True)
    console.print(
        f"parser:\n  backend: mmseg\n  config: {out}/config.py\n  checkpoint: {out}/parser.pth",
        markup=False, soft_wrap=True,
    )  # fmt: skip


def find_roots(recipe: BuildRecipe, given: list[str]) -> dict[str, Path]:
    """Where each source of a recipe lies.

    Args:
        recipe: whose sources are looked for.
        given: `FOLDER`, or `SOURCE=FOLDER` for each.

    Raises:
        RecipeError: a name is no source of the recipe, or a source has no folder.
        SourceError: a folder is not there.
    """
    from pipeline.sources.layout import require_folder

    names = [source.name for source in recipe.sources]
    roots: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if equals and name not in names:
            raise RecipeError(
                f"{name!r} is no source of this recipe", where=f"ROOT={text}", hint=f"sources: {', '.join(names)}"
            )
        if equals:
            roots[name] = Path(folder)
        else:
            roots |= {one.name: _root_below(Path(text), one, names) for one in recipe.sources if one.name not in roots}
    missing = [name for name in names if name not in roots]
    if missing:
        raise RecipeError(
            f"no folder is given for {', '.join(missing)}", where="ROOT", hint="ROOT=FOLDER, or ROOT=SOURCE=FOLDER"
        )
    for name, root in roots.items():
        require_folder(root, f"the root of source {name}")
    return {name: root.resolve() for name, root in roots.items()}


def _root_below(folder: Path, source: SourceRecipe, names: list[str]) -> Path:
    """The folder of one of several sources: called after it, or for datasets, which find their own place, the one above."""
    own = folder / source.name
    return own if len(names) > 1 and (own.is_dir() or source.kind not in DATASETS) else folder


if __name__ == "__main__":
    sys.exit(main())
