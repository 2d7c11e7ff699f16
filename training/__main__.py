"""Door of the room: `python -m training pretrain | reconstruct | probe | export | recipe | finetune | evaluate | predict | compare`."""

import argparse
import gc
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

try:  # torch takes seconds
    import torch
    import yaml
    from rich.console import Console
    from rich.logging import RichHandler

    from manifests.errors import CrossposeError
    from manifests.recipes import read_recipe, to_mapping
    from training.checkpoints import export_safetensors
    from training.data import OnBadShard
    from training.finetuning.verbs import VERBS, add_verbs
    from training.machine import Machine, find_device, hold_memory
    from training.pretrain import pretrain
    from training.probe import REFERENCES, probe
    from training.recipes import RECIPES
    from training.reconstruct import load_run, reconstruct
    from training.source import Shards
    from training.storage import Cache
    from training.tasks.recipes import RECIPES as FINETUNE_RECIPES
    from training.tasks.recipes import read_finetune
except KeyboardInterrupt:
    print("stopped before anything began", file=sys.stderr)
    sys.exit(130)


def main(arguments: list[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0 when done, 2 for a mistake that the message explains, 128 + signal when a signal stopped the run.
    """
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    _log_to(console)
    hold_memory()
    try:
        if options.threads:
            torch.set_num_threads(options.threads)
        own = {
            "pretrain": _pretrain,
            "reconstruct": _reconstruct,
            "probe": _probe,
            "export": _export,
            "recipe": _recipe,
        }
        return {**own, **VERBS}[options.verb](options, console)
    except CrossposeError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped at once; what was written stands", file=sys.stderr)
        return 130


def _pretrain(options: argparse.Namespace, console: Console) -> int:
    recipe = read_recipe(options.recipe, RECIPES, where="--recipe, or MODEL of make")
    if options.seed is not None:
        recipe = replace(recipe, seed=options.seed)
    machine = Machine(
        device=find_device(options.device),
        checkpoint_every=options.checkpoint_every,
        keep_checkpoints=options.keep,
        console=console if console.is_terminal else None,
        log_every=options.log_every,
        shard=options.shard,
        recompute=options.recompute,
        compile=options.compile,
        profile_steps=options.profile,
        peak_tflops=options.peak_tflops,
    )
    source = _shards(options, threads=options.decode_threads, on_bad_shard=options.on_bad_shard)
    outcome = pretrain(recipe, source, options.out, machine=machine, init=options.init)
    for shard, pairs in sorted(source.left_out.items()):
        print(f"{shard}: left out since this start; other pairs stood in {pairs} times")
    if outcome.finished:
        print(f"{options.out}: {outcome.step} steps, validation loss {outcome.validation_loss:.4f}")
        print(f"loss curve: {options.out / 'loss.png'}")
        return 0
    return 128 + outcome.signal if outcome.signal else 1


def _shards(options: argparse.Namespace, **given: Any) -> Shards:
    chosen = {"folder": options.cache} if options.cache else {}
    cache = Cache(**chosen, max_bytes=int(options.cache_gb * 1e9))
    return Shards(options.shards if "://" in options.shards else Path(options.shards), cache=cache, **given)


def _reconstruct(options: argparse.Namespace, _console: Console) -> int:
    device = find_device(options.device)
    rows = reconstruct(options.run, _shards(options), options.out, device=device, num_rows=options.rows)
    loss, blind = (sum(values) / len(rows) for values in ([r.loss for r in rows], [r.loss_black for r in rows]))
    print(f"{options.out}: {len(rows)} pairs, mean loss {loss:.4f}, with a black reference {blind:.4f}")
    return 0


def _probe(options: argparse.Namespace, _console: Console) -> int:
    device = find_device(options.device)
    report = probe(options.run, _shards(options), options.out, device=device, num_pairs=options.pairs)
    every = report["strata"][0]
    for name in REFERENCES:
        loss, gain = every["loss"][name], every["gain"][name]
        if loss is not None:
            bounds = "" if gain["low"] is None else f" [{gain['low']:.4f}, {gain['high']:.4f}]"
            above = "" if name == "true" else f"  above the true one's by {gain['mean']:.4f}{bounds}"
            print(f"{name:>12} reference: loss {loss['mean']:.4f}  pairs {loss['pairs']}{above}")
    print(f"  predicting nothing: loss {report['zero_loss']:.4f}")
    answer = f"not shown to be used ({'; '.join(report['doubts'])})" if report["doubts"] else "used"
    print(f"the reference is {answer}: {options.out / 'probe.html'}")
    return 0


def _export(options: argparse.Namespace, _console: Console) -> int:
    objective, step = load_run(options.run, torch.device("cpu"))
    export_safetensors(objective.model, options.out)
    print(f"{options.out}: weights of {objective.recipe.name}, step {step}")
    return 0


def _recipe(options: argparse.Namespace, _console: Console) -> int:
    if options.task:
        recipe: Any = read_finetune(options.recipe or "free", options.task)
    else:
        recipe = read_recipe(options.recipe or "demo", RECIPES, where="the recipe")
    told = to_mapping(recipe)
    print(yaml.safe_dump(told, sort_keys=False, default_flow_style=None, width=120), end="")
    return 0


def _log_to(console: Console) -> None:
    """Lines above the progress bar on a terminal, plain lines in a log file."""
    if console.is_terminal:
        handler: logging.Handler = RichHandler(
            console=console, show_path=False, show_level=False, markup=False, highlighter=None
        )
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--threads", type=_positive, help="CPU threads of the network (default: as torch decides)")
    on_device = argparse.ArgumentParser(add_help=False)
    on_device.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    on_device.add_argument(
        "--shards", required=True, help="folder of the shards stage: a path, http(s)://... or s3://..."
    )
    on_device.add_argument("--cache", type=Path, help="folder for fetched shards (default: ~/.cache/crosspose)")
    on_device.add_argument("--cache-gb", type=float, default=100.0, help="room for them (default: %(default)s)")

    train = verbs.add_parser("pretrain", parents=[common, on_device], help="train, go on with, or find finished a run")
    train.add_argument("--recipe", default="demo", help=f"{', '.join(RECIPES)}, or a .yaml file (default: %(default)s)")
    train.add_argument("--out", type=Path, required=True, help="the run's folder; a run in it goes on")
    train.add_argument("--init", type=Path, help="weights to start from: public CroCo or MAE, or a checkpoint")
    train.add_argument("--seed", type=int, help="another seed than the recipe's")
    train.add_argument("--checkpoint-every", type=_positive, default=200, metavar="STEPS")
    train.add_argument("--keep", type=_positive, default=2, metavar="CHECKPOINTS")
    train.add_argument("--decode-threads", type=_positive, default=2)
    train.add_argument("--on-bad-shard", choices=get_args(OnBadShard), default="error", help="(default: %(default)s)")
    train.add_argument("--log-every", type=_positive, default=1, metavar="STEPS")
    train.add_argument("--shard", action="store_true", help="share weights among the processes of torchrun (FSDP2)")
    train.add_argument(
        "--recompute", action="store_true", help="compute activations twice: less memory, a third more work"
    )
    train.add_argument("--compile", action="store_true", help="torch.compile; needs a fixed `pad_to`")
    train.add_argument(
        "--profile", type=_positive, default=0, metavar="STEPS", help="trace so many steps: OUT/profile/"
    )
    train.add_argument("--peak-tflops", type=float, help="of the device at best, for the MFU (default: as known of it)")

    draw = verbs.add_parser("reconstruct", parents=[common, on_device], help="draw completions of validation pairs")
    draw.add_argument("--run", type=Path, required=True, help="the run's folder")
    draw.add_argument("--out", type=Path, required=True, help="PNG to write")
    draw.add_argument("--rows", type=_positive, default=8)

    look = verbs.add_parser(
        "probe", parents=[common, on_device], help="measure on held-out pairs whether references are used"
    )
    look.add_argument("--run", type=Path, required=True, nargs="+", help="folders of runs that differ in their seed")
    look.add_argument("--out", type=Path, required=True, help="folder for probe.html, probe.json and probe.png")
    look.add_argument("--pairs", type=_positive, default=512)

    export = verbs.add_parser("export", parents=[common], help="write a run's weights as safetensors")
    export.add_argument("--run", type=Path, required=True, help="the run's folder")
    export.add_argument("--out", type=Path, required=True, help="file to write")
    told = verbs.add_parser("recipe", parents=[common], help="print a recipe with all its values")
    told.add_argument(
        "recipe", nargs="?", help=f"{', '.join(RECIPES)}, or a .yaml file (default: demo; free of a task)"
    )
    told.add_argument(
        "--task", help=f"print a recipe of finetune instead: {', '.join(FINETUNE_RECIPES)}, or a .yaml file"
    )
    add_verbs(verbs, common)
    return parser


if __name__ == "__main__":
    code = main()
    gc.freeze()  # Python would look through all that torch made before it leaves: a second, and more on a busy machine
    sys.exit(code)
