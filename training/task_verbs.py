"""The verbs of fine-tuning: `finetune`, `evaluate`, `predict`, `compare`."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from training.evaluate import scores_table
from training.finetune import finetune
from training.machine import Machine, find_device
from training.tasks.recipes import RECIPES, TASKS, read_finetune, with_roots

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
    train.add_argument("--share", type=float, help="of the training examples; another than the recipe's")
    train.add_argument("--steps", type=int, help="another number of steps than the recipe's")
    train.add_argument("--checkpoint-every", type=int, default=200, metavar="STEPS")
    train.add_argument("--log-every", type=int, default=20, metavar="STEPS")

    score = verbs.add_parser("evaluate", parents=[common, on_device, data], help="score a fine-tuned run on a dataset")
    score.add_argument("--run", type=Path, required=True, help="the run's folder")
    score.add_argument("--task", help="the run's task, to be sure of it")
    score.add_argument("--test", help="dataset to score, KIND or KIND/SPLIT (default: the test sets of the recipe)")
    score.add_argument("--out", type=Path, help="folder for the scores (default: the run's)")


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
    outcome = finetune(with_roots(recipe, options.data), options.out, init=options.init, machine=machine)
    if not outcome.finished:
        return 128 + outcome.signal if outcome.signal else 1
    out = Console()
    for evaluation in outcome.evaluations:
        out.print(scores_table(evaluation))
    out.print(f"predictions: {options.out / 'predictions.png'}\ncurves: {options.out / 'loss.png'}", soft_wrap=True)
    return 0


VERBS: Mapping[str, Verb] = {"finetune": _finetune}
"""What each verb does."""
