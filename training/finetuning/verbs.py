"""The verbs of fine-tuning: `finetune`, `evaluate`, `predict`, `compare`."""

import argparse
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from manifests.errors import TrainingError
from training.finetuning.compare import SHARES, compare
from training.finetuning.compare_page import rows_of
from training.finetuning.evaluate import evaluate_run, scores_table
from training.finetuning.finetune import finetune
from training.finetuning.measure import task_of
from training.finetuning.predict import predict
from training.machine import Machine, Processes, find_device
from training.tasks.datasets import with_roots
from training.tasks.recipes import RECIPES, TASKS, check_task, read_finetune

Verb = Callable[[argparse.Namespace, Console], int]


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", common: argparse.ArgumentParser) -> None:
    """Tell the command line what these verbs take."""
    on_device = argparse.ArgumentParser(add_help=False)
    on_device.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument(
        "--data", nargs="+", default=[], metavar="KIND=FOLDER", help="where datasets lie; a folder alone is for all"
    )

    train = verbs.add_parser(
        "finetune", parents=[common, on_device, data], help="train a task's network and score it, or go on with a run"
    )
    train.add_argument("--task", required=True, help=", ".join(TASKS))
    train.add_argument("--recipe", default="free", help=f"{', '.join(RECIPES)}, or a .yaml file (default: %(default)s)")
    train.add_argument("--out", type=Path, required=True, help="the run's folder; a run in it goes on")
    train.add_argument(
        "--init", default="random", help="a run's folder, a file of weights, or random (default: %(default)s)"
    )
    train.add_argument("--seed", type=int, help="another seed than the recipe's")
    train.add_argument("--share", type=_share, help="of the training examples; another than the recipe's")
    train.add_argument("--steps", type=_count, help="another number of steps than the recipe's")
    train.add_argument("--checkpoint-every", type=_count, default=200, metavar="STEPS")
    train.add_argument("--log-every", type=_count, default=20, metavar="STEPS")

    many = verbs.add_parser(
        "compare",
        parents=[common, on_device, data],
        help="fine-tune from several starts, with seeds and shares of the data",
    )
    many.add_argument("--task", required=True, help=", ".join(TASKS))
    many.add_argument("--recipe", default="free", help="as of finetune (default: %(default)s)")
    many.add_argument(
        "--init",
        type=_start,
        nargs="+",
        required=True,
        metavar="NAME=WEIGHTS",
        help="as of finetune, ours first; or random",
    )
    many.add_argument("--share", type=_share, nargs="+", default=SHARES, help="(default: %(default)s)")
    many.add_argument("--seed", type=int, nargs="+", default=(0, 1, 2), help="(default: %(default)s)")
    many.add_argument("--steps", type=_count, help="another number of steps than the recipe's")
    many.add_argument(
        "--jobs", type=_count, default=1, help="processes that share runs and threads (default: %(default)s)"
    )
    many.add_argument("--out", type=Path, required=True, help="folder of the runs and of compare.html")

    score = verbs.add_parser("evaluate", parents=[common, on_device, data], help="score a fine-tuned run on a dataset")
    score.add_argument("--run", type=Path, required=True, help="the run's folder")
    score.add_argument("--task", help="the run's task, to be sure of it")
    score.add_argument("--test", help="dataset to score, KIND or KIND/SPLIT (default: the test sets of the recipe)")
    score.add_argument("--out", type=Path, help="folder for the scores (default: the run's; with --test one in it)")

    ask = verbs.add_parser("predict", parents=[common, on_device], help="ask a fine-tuned run about a photograph")
    ask.add_argument("--run", type=Path, required=True, help="the run's folder")
    ask.add_argument("--task", help="the run's task, to be sure of it")
    ask.add_argument("--image", type=Path, nargs="+", required=True, help="photograph; two for tasks on two pictures")
    ask.add_argument(
        "--box",
        type=_box,
        action="append",
        default=[],
        metavar="X0,Y0,X1,Y1",
        help="of the person, for each photograph; --box=-5,... where it begins with a minus",
    )
    ask.add_argument("--side", choices=("left", "right"), help="which hand it is")
    ask.add_argument(
        "--out", type=Path, required=True, help="file to write: mesh.glb, answer.json; a picture lies beside it"
    )


def _finetune(options: argparse.Namespace, console: Console) -> int:
    recipe = read_finetune(options.recipe, options.task)
    changes = {"seed": options.seed, "share": options.share, "num_steps": options.steps}
    recipe = replace(recipe, **{name: value for name, value in changes.items() if value is not None})
    machine = Machine(
        device=find_device(options.device),
        checkpoint_every=options.checkpoint_every,
        log_every=options.log_every,
        console=console if console.is_terminal else None,
    )
    is_first = Processes(machine).is_first
    if not is_first:
        logging.getLogger().setLevel(logging.WARNING)  # what all tell alike, the first one tells
    outcome = finetune(with_roots(recipe, options.data), options.out, init=options.init, machine=machine)
    if not outcome.finished:
        return 128 + outcome.signal if outcome.signal else 1
    if not is_first:
        return 0
    out = Console()
    for evaluation in outcome.evaluations:
        out.print(scores_table(evaluation))
    out.print(f"scores and pictures: {options.out}", soft_wrap=True)
    return 0


def _compare(options: argparse.Namespace, console: Console) -> int:
    recipe = read_finetune(options.recipe, options.task)
    if options.steps is not None:
        recipe = replace(recipe, num_steps=options.steps)
    machine = Machine(
        device=find_device(options.device),
        keep_checkpoints=1,
        log_every=100,
        console=console if console.is_terminal else None,
    )
    report = compare(
        with_roots(recipe, options.data),
        dict(options.init),
        options.out,
        shares=sorted({*options.share}, reverse=True),
        seeds=sorted({*options.seed}),
        machine=machine,
        jobs=options.jobs,
    )
    if report is None:
        return 130
    out, main = Console(), report["main"]
    score = report["scores"][main]
    title = f"{options.task}: {main} ({score['unit']}, {score['better']} is better; {score['convention']})"
    table = Table("data", "start", "mean over seeds", f"above {options.init[0][0]}", title=title, title_justify="left")
    for row in rows_of(report, main):
        table.add_row(*row)
    out.print(table)
    out.print(f"tables and pictures: {options.out / 'compare.html'}", soft_wrap=True)
    return 0


def _evaluate(options: argparse.Namespace, console: Console) -> int:
    _check_task(options)
    out = options.out or (options.run / options.test.replace("/", "-") if options.test else options.run)
    evaluations = evaluate_run(
        options.run,
        out,
        given=options.data,
        test=options.test,
        device=find_device(options.device),
        console=console if console.is_terminal else None,
    )
    for evaluation in evaluations:
        Console().print(scores_table(evaluation))
    Console().print(f"scores: {out / 'scores.json'}", soft_wrap=True)
    return 0


def _predict(options: argparse.Namespace, _console: Console) -> int:
    _check_task(options)
    device = find_device(options.device)
    written = predict(options.run, options.image, options.out, boxes=options.box, side=options.side, device=device)
    Console().print("\n".join(str(path) for path in written), soft_wrap=True)
    return 0


def _check_task(options: argparse.Namespace) -> None:
    if options.task is not None:
        check_task(options.task)
        found = task_of(options.run)
        if found != options.task:
            hint = f"give --task {found}, or another --run"
            raise TrainingError(f"the run is of the task {found}", where=options.run, hint=hint)


def _share(text: str) -> float:
    try:
        share = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share, in (0, 1] or with %")
    return share


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 on")
    return int(text)


def _start(text: str) -> tuple[str, str]:
    name, _, init = text.partition("=")
    if not name or not (init or name == "random"):
        raise argparse.ArgumentTypeError(f"{text} is not NAME=WEIGHTS")
    return name, init or name


def _box(text: str) -> tuple[float, ...]:
    try:
        edges = tuple(float(edge) for edge in text.split(","))
    except ValueError:
        edges = ()
    if len(edges) != 4:
        raise argparse.ArgumentTypeError(f"{text} is not x0,y0,x1,y1")
    return edges


VERBS: Mapping[str, Verb] = {"finetune": _finetune, "compare": _compare, "evaluate": _evaluate, "predict": _predict}
"""What each verb does."""
