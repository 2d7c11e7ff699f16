"""One fine-tuning run, readable from top to bottom: `finetune`.

A run's folder holds `recipe.json`, `checkpoints/`, `best.pt`, `metrics.jsonl`, `tensorboard/`, and, once it is done, `loss.png`,
`predictions.png`, `scores.json`, the scores of each example, and `finished.json`. Running the same recipe into the same folder goes
on from the last checkpoint, bit for bit as if it had never stopped (float32 on one kind of CPU): nothing random has a state, it is all
keyed by (seed, place in the stream).

Several processes (torchrun) take equal shares of each batch and of what is scored. Their loss is that of one process on the whole batch, up
to rounding, for every task (see `Task.loss`); what dropout leaves out, and which queries the model-free head hides, is drawn by (seed, step,
process), so that another number of processes draws otherwise. Checkpoints are the same whatever the number.
Shape letters: `B` examples.
"""

import logging
import math
import re
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import nn

from manifests.errors import TrainingError
from manifests.recipes import fingerprint, to_mapping
from manifests.seeds import seed_for
from training.ahead import ahead
from training.checkpoints import Checkpoint, list_checkpoints, read_checkpoint, save_checkpoint, write_checkpoint
from training.finetuning.evaluate import Evaluation, spoken, unit_of, write_scores
from training.finetuning.measure import (
    Measured,
    Run,
    load_finetuned,
    measure,
    measure_sets,
    precision_of,
    restore,
    whole,
)
from training.finetuning.mixture import Batch, Mixture, Part, divide, stamp_of, thin
from training.finetuning.network import BEST, TaskNetwork, build_network, find_start, settle, told_of
from training.finetuning.sheet import draw_curves
from training.machine import Machine, Processes, StopSignal
from training.record import Record, read_metrics
from training.run_folder import FINISHED, Ended, claim, write_json
from training.tasks.base import Score, Task, Tensors
from training.tasks.datasets import check_places, open_examples, without_roots
from training.tasks.recipes import FinetuneRecipe, build_task

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Ended):
    """How a call of `finetune` ended.

    Args:
        evaluations: of the test sets, where this call finished the run; the first process has them.
    """

    evaluations: tuple[Evaluation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sets:
    """The examples of a run: what is learned from, what chooses the best weights, what is scored."""

    train: Sequence[Part]
    validation: Sequence[Part]
    test: Sequence[Part]


def finetune(recipe: FinetuneRecipe, out: Path, *, init: str = "random", machine: Machine | None = None) -> Outcome:
    """Train a task's network, or go on with a run, or find it finished; then score it.

    Args:
        recipe: what decides the result; each dataset has its root.
        out: the run's folder.
        init: `random`, the folder of a run, or a file of weights.
        machine: where it runs.

    Returns:
        How it ended. SIGTERM, SIGINT and SIGUSR1 stop the run after the current step, with a checkpoint.

    Raises:
        RecipeError: a dataset, task or option is not known.
        TrainingError: a dataset or a model is missing or lacks what the task needs, the folder belongs to another run, the loss is
            not finite, the disk is full, or so many processes cannot share a batch evenly.
    """
    machine = machine or Machine()
    processes = Processes(machine)
    check_shares(recipe, processes.world)
    check_places(recipe, [init])
    recipe, task, sets = prepare(recipe)
    start = find_start(init)
    recipe = settle(recipe, task, start)
    wanted = {
        "recipe": to_mapping(without_roots(recipe)),
        "data": stamp_of([*sets.train, *sets.validation]),
        "init": None if start is None else start.sha256,
    }
    network = build_network(recipe, task, start)  # weights that do not fit are told before the folder is taken
    roots = sorted({f"{data.kind}={data.root}" for data in (*recipe.train, *recipe.test)})
    noted = {"roots": roots, "from": init, "fingerprint": fingerprint(without_roots(recipe))}
    with processes:
        with StopSignal() as stop:
            done = claim(out, wanted, noted=noted, writes=processes.is_first)
            if done is not None:
                logger.info("%s is finished: %d steps", out, done["step"])
                return Outcome(finished=True, step=done["step"])
            tuner = Tuner(recipe, task, network, machine, processes)
            tuner.stamp, tuner.init = wanted["data"], wanted["init"]
            if found := processes.from_first({"checkpoints": list_checkpoints(out / "checkpoints")})["checkpoints"]:
                tuner.restore(read_checkpoint(found[-1]))
                logger.info("going on from step %d: %s", tuner.step, found[-1])
            else:
                logger.info("%s", told_of(start, recipe.task))
            with Record(out, step=tuner.step) if processes.is_first else nullcontext() as record:
                _run(tuner, sets, out, record, stop)
            if number := max(caught or 0 for caught in processes.from_all(stop.number)):
                logger.info("stopped by signal %d after step %d; run again to go on", number, tuner.step)
                return Outcome(finished=False, step=tuner.step, signal=number)
        # A signal ends what follows at once: all of it can be done again from the last checkpoint.
        best, measured = _measure(out, tuner, sets)
    # What takes long in one process is done when nobody waits for it.
    evaluations = _finish(out, tuner, sets, best, measured) if processes.is_first else ()
    return Outcome(finished=True, step=tuner.step, evaluations=evaluations)


def check_shares(recipe: FinetuneRecipe, world: int) -> None:
    """Refuse a number of processes that does not divide the batch.

    Raises:
        TrainingError: it does not; what would.
    """
    own, rest = divmod(recipe.batch_size, world)
    if rest:
        fewer = next(num for num in range(world - 1, 0, -1) if recipe.batch_size % num == 0)
        raise TrainingError(
            f"{world} processes cannot share a batch of {recipe.batch_size} examples evenly",
            where="batch_size of the recipe",
            hint=f"start {fewer} process{'es' * (fewer > 1)}, or set `batch_size: {(own + 1) * world}`",
        )


def prepare(recipe: FinetuneRecipe) -> tuple[FinetuneRecipe, Task, Sets]:
    """Open what a recipe names, and let the task check it, before anything is trained.

    Returns:
        The recipe, with the classes of the training set where the task has classes and the recipe names none; the task; and what it
        learns from and is scored on.

    Raises:
        RecipeError: a dataset, task or option is not known.
        TrainingError: a dataset or a model is missing, or lacks what the task needs.
    """
    train = [replace(whole(open_examples(data, seed=recipe.seed)), weight=data.weight) for data in recipe.train]
    test = [whole(open_examples(data)) for data in recipe.test]
    task = build_task(recipe.task, recipe.options)
    if getattr(task, "classes", None) == ():
        recipe = replace(recipe, options=recipe.options | {"classes": train[0].examples.about.classes})
        task = build_task(recipe.task, recipe.options)
    if recipe.validation is None:
        train, validation = divide(train, share=recipe.validation_share, seed=recipe.seed)
    else:
        validation = [whole(open_examples(recipe.validation))]
    for part in (*train, *validation, *test):
        about = part.examples.about
        numbers, protocol = (len(part.index), len(about.rejects)), about.protocol.partition(";")[0]
        logger.info("%s, %s: %d examples, %d left out; %s", about.name, about.split, *numbers, protocol)
        if not len(part.index):
            raise TrainingError(f"{about.name} has no example", where=f"split {about.split}", hint="check --data")
    for part in (*validation, *test):
        task.check([one.examples.about for one in train], part.examples.about)
    thinned = [thin(part, share=recipe.share, seed=recipe.seed) for part in train]
    if recipe.share < 1:
        counts = " and ".join(
            f"{len(few.index)} of {len(part.index)}" for few, part in zip(thinned, train, strict=True)
        )
        logger.info("%g %% of the training examples: %s", 100 * recipe.share, counts)
    sets = Sets(
        train=thinned,
        validation=[part.spread(-(-recipe.validation_examples // len(validation))) for part in validation],
        test=test,
    )
    return recipe, task, sets


class Tuner:
    """Network, optimiser and place of a run.

    Args:
        recipe: what decides the result.
        task: gives the loss.
        network: what is trained.
        machine: where it runs.
        processes: this process among its peers.
    """

    stamp = ""
    init: str | None = None

    def __init__(
        self, recipe: FinetuneRecipe, task: Task, network: TaskNetwork, machine: Machine, processes: Processes
    ) -> None:
        self.recipe, self.task, self.machine, self.processes = recipe, task, machine, processes
        self.network = network.to(machine.device)
        self.optimizer = build_optimizer(network, recipe)
        self.wrapped = processes.wrap(self.network)
        self.step = 0

    @property
    def position(self) -> int:
        """Place in the stream."""
        return self.step * self.recipe.batch_size

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Do one step on the batch of which this is the process's share.

        Returns:
            The loss, its terms, the learning rate of the head and the length of the gradient, all of the whole batch.

        Raises:
            TrainingError: the loss or its gradient is not finite in some process; the weights are those before the step.
        """
        lr = learning_rate(self.step, self.recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        self.network.train()
        devices = [self.machine.device] if self.machine.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            # Drawn anew for each step and process: no state.
            torch.manual_seed(seed_for(self.recipe.seed, "dropout", self.step) ^ self.processes.rank)
            with precision_of(self.recipe, self.machine.device):
                outputs = self.wrapped(batch.images)
            terms = {name: term.float() for name, term in self.task.loss(outputs, batch.target).items()}
        loss = torch.stack([*terms.values()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        trained = [p for p in self.network.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        told = [loss.detach(), *(term.detach() for term in terms.values())]
        *sums, num_bad = self.processes.sum(*told, (~torch.isfinite(loss + norm)).float())
        if num_bad > 0:
            raise _not_finite(self.step, batch, terms)
        nn.utils.clip_grads_with_norm_(trained, self.recipe.clip, norm)
        self.optimizer.step()
        self.step += 1
        loss_mean, *means = (value / self.processes.world for value in sums)
        numbers = {"loss": loss_mean, "lr": lr, "gradient_norm": float(norm)}
        return numbers | {f"loss_{name}": mean for name, mean in zip(terms, means, strict=True)}

    def validate(self, parts: Sequence[Part]) -> dict[str, Score]:
        """Each score, its mean over the validation sets."""
        self.network.eval()
        run, device = self.ready(), self.machine.device
        found = [measure(run, part, device=device, processes=self.processes).scores for part in parts]
        return {
            name: replace(one, value=float(np.mean([scores[name].value for scores in found])))
            for name, one in found[0].items()
        }

    def ready(self) -> Run:
        """The network as it is, to be asked."""
        return Run(self.recipe, self.task, self.network, self.step)

    def checkpoint(self, *, goes_on: bool = True) -> Checkpoint:
        """The state after a step; without the optimiser's no run can go on from it."""
        return Checkpoint(
            model=self.network.features.network.state_dict(),
            head=self.network.head.state_dict(),
            optimizer=self.optimizer.state_dict() if goes_on else {},
            step=self.step,
            position=self.position,
            shards=self.stamp,
            recipe=to_mapping(without_roots(self.recipe)),
            init=self.init,
            usual_norm=0.0,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue where a checkpoint was written."""
        restore(self.network, checkpoint.model, checkpoint.head)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.step = checkpoint.step


def build_optimizer(network: TaskNetwork, recipe: FinetuneRecipe) -> torch.optim.AdamW:
    """AdamW: rates fall from block to block towards the image, and only weights decay, neither vectors nor biases."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    depth = network.architecture.enc_depth
    for name, parameter in network.named_parameters():
        scale = recipe.layer_decay ** (depth + 1 - layer_of(name, depth))
        decay = 0.0 if parameter.ndim == 1 or name.endswith(".bias") else recipe.weight_decay
        groups.setdefault((scale, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": own, "scale": scale, "weight_decay": decay} for (scale, decay), own in groups.items()],
        lr=recipe.peak_lr,
        betas=recipe.betas,
        fused=True,
    )


def layer_of(name: str, depth: int) -> int:
    """How far from the image a weight is: 0 the patches, then the encoder's blocks, and `depth` + 1 for all that follows."""
    if block := re.match(r"features\.network\.(?:query\.)?(?:enc_)?blocks\.(\d+)\.", name):
        return int(block[1]) + 1
    return 0 if re.match(r"features\.network\.(?:query\.)?(?:patch_embed|cls_token)", name) else depth + 1


def learning_rate(step: int, recipe: FinetuneRecipe) -> float:
    """Rate of a step, counted from 0: a linear rise to the peak, then a cosine that reaches 0 after the last step."""
    warmup = round(recipe.warmup * recipe.num_steps)
    if step < warmup:
        return recipe.peak_lr * (step + 1) / warmup
    return recipe.peak_lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (recipe.num_steps - warmup)))


def _run(tuner: Tuner, sets: Sets, out: Path, record: Record | None, stop: StopSignal) -> None:
    """Step until the run is done or a signal comes."""
    recipe, machine, processes = tuner.recipe, tuner.machine, tuner.processes
    mixture = Mixture(sets.train, recipe, tuner.task, image_px=tuner.network.architecture.image_px)
    batches = mixture.batches(tuner.position, device=machine.device, rank=processes.rank, world=processes.world)
    shown = processes.is_first and machine.console is not None
    with closing(ahead(batches)) as stream, Progress(console=machine.console, disable=not shown) as progress:
        bar = progress.add_task(f"fine-tuning {recipe.task}", total=recipe.num_steps, completed=tuner.step)
        stopping = False
        while tuner.step < recipe.num_steps and not stopping:
            start_s = time.perf_counter()
            batch = next(stream)
            ready_s = time.perf_counter()
            numbers = tuner.train_step(batch)
            seconds = time.perf_counter() - start_s
            wait = (ready_s - start_s) / seconds
            if record is not None:
                record.write("train", tuner.step, **numbers, seconds=seconds, data_wait=wait)
                if tuner.step % machine.log_every == 0:
                    _tell(tuner, numbers, seconds, wait)
            progress.update(bar, completed=tuner.step)
            is_last, stopping = tuner.step == recipe.num_steps, processes.any(stop.number is not None)
            if is_last or tuner.step % recipe.validate_every == 0:
                _validate(tuner, sets.validation, out, record)
            if is_last or stopping or tuner.step % machine.checkpoint_every == 0:
                if record is not None:
                    save_checkpoint(out / "checkpoints", tuner.checkpoint(), keep=machine.keep_checkpoints)
                processes.wait()


def _validate(tuner: Tuner, parts: Sequence[Part], out: Path, record: Record | None) -> None:
    """Score the validation sets; keep the weights if none were better."""
    scores = tuner.validate(parts)
    if record is None:
        return
    main = scores[tuner.task.main]
    sign = 1 if main.better == "higher" else -1
    earlier = [line[tuner.task.main] for line in read_metrics(out) if line["kind"] == "validation"]
    if not math.isnan(main.value) and all(
        sign * main.value > sign * value for value in earlier if not math.isnan(value)
    ):
        write_checkpoint(out / BEST, tuner.checkpoint(goes_on=False))
    record.write("validation", tuner.step, **{name: one.value for name, one in scores.items()})
    told = "  ".join(f"{name} {spoken(one.value, one.unit)}{unit_of(one)}" for name, one in scores.items())
    logger.info("step %d  validation  %s", tuner.step, told)


def _tell(tuner: Tuner, numbers: dict[str, float], seconds: float, wait: float) -> None:
    """One line, always in the same order."""
    recipe = tuner.recipe
    logger.info(
        "step %d/%d  loss %.4g  lr %.2e  %.1f examples/s  data %.1f %%",
        *(tuner.step, recipe.num_steps, numbers["loss"], numbers["lr"], recipe.batch_size / seconds, 100 * wait),
    )


def _measure(out: Path, tuner: Tuner, sets: Sets) -> tuple[Run, list[Measured]]:
    """Ask the best weights for the test sets."""
    machine, processes = tuner.machine, tuner.processes
    run = load_finetuned(out, machine.device)
    processes.wrap(run.network)  # takes the first's weights: another node may not see yet that the file was replaced
    console = machine.console if processes.is_first else None
    return run, measure_sets(
        run, sets.test, train=sets.train, device=machine.device, console=console, processes=processes
    )


def _finish(out: Path, tuner: Tuner, sets: Sets, run: Run, measured: Sequence[Measured]) -> tuple[Evaluation, ...]:
    """Write the scores of the best weights on the test sets, draw, then leave the mark that the run is done."""
    evaluations = write_scores(run, sets.test, measured, out, device=tuner.machine.device)
    main = tuner.task.main
    draw_curves(out, out / "loss.png", main=main, unit=evaluations[0].scores[main].unit)
    write_json(out / FINISHED, {"step": tuner.step, "best_step": run.step})
    return evaluations


def _not_finite(step: int, batch: Batch, terms: Tensors) -> TrainingError:
    bad = [name for name, term in terms.items() if not bool(torch.isfinite(term))]
    what = f"the loss ({', '.join(bad)})" if bad else "the gradient"
    return TrainingError(
        f"{what} is not finite; stopped before the optimiser's step, so weights and checkpoints are sound",
        where=f"step {step + 1}, examples {', '.join(batch.keys[:8])}",
        hint="look at the labels of these examples; if they are fine, lower base_lr",
    )
