"""One pre-training run, readable from top to bottom: `pretrain`.

A run's folder holds `recipe.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/`, and, once it is done, `loss.png` and
`finished.json`. Running the same recipe into the same folder goes on from the last checkpoint, bit for bit as if it had never
stopped (float32 on one kind of CPU): nothing random has a state, it is all keyed by (seed, place in the stream).
Shape letters: `B` pairs, `N` patches of an image, `V` visible, `P` values of a patch.
"""

import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from manifests.doors import door
from manifests.errors import TrainingError
from manifests.recipes import changed_keys, fingerprint, from_mapping, to_mapping
from manifests.seeds import seed_for
from training.ahead import ahead
from training.augment import black
from training.batch import STORED_PX
from training.checkpoints import (
    Checkpoint,
    Place,
    file_sha256,
    list_checkpoints,
    load_shares,
    load_weights,
    read_place,
    save_checkpoint,
    save_shares,
    shares_of,
)
from training.inputs import Group, training_groups, validation_groups
from training.machine import Machine, Processes, StopSignal, peak_tflops, profile_of
from training.masking import Longest
from training.model.decoder import DecoderBlock
from training.model.vit import Block
from training.objective import Inputs, Objective, step_flops
from training.recipes import PretrainRecipe
from training.record import Record, draw_loss_curve
from training.run_folder import FINISHED, RECIPE, Ended, claim, few, write_json
from training.source import PairSource

logger = logging.getLogger(__name__)

USUAL_SHARE = 0.02
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
SHARES = StateDictOptions(cpu_offload=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Ended):
    """How a call of `pretrain` ended.

    Args:
        validation_loss: of the last validation, None when there was none yet.
    """

    validation_loss: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a step tells.

    Args:
        loss: mean over all pairs of all processes.
        lr: learning rate.
        gradient_norm: length of the gradient.
        left_out: whether the weights stayed as they were, for its sake.
    """

    loss: float
    lr: float
    gradient_norm: float
    left_out: bool


class Trainer:
    """Network, optimiser and place of a run.

    Args:
        recipe: what decides the result.
        machine: where it runs.
        processes: this process among its peers.
        init: weights to start from; random ones when None.

    Raises:
        TrainingError: the machine is to compile a step whose shapes change, or the weights do not fit.
    """

    def __init__(
        self, recipe: PretrainRecipe, machine: Machine, processes: Processes, init: Path | None = None
    ) -> None:
        self.recipe, self.machine = recipe, machine
        if machine.compile and recipe.mask == "human" and recipe.pad_to == "batch_max":
            raise TrainingError(
                "only shapes that never change are compiled",
                where="--compile",
                hint=f"set `pad_to: {recipe.full_length}` in the recipe",
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(recipe.seed, "weights"))
            self.objective = Objective(recipe)
        self.model = self.objective.model
        self.init = None if init is None else load_weights(self.model, init)
        self.objective.to(machine.device)
        self.model.recompute = machine.recompute
        blocks = [module for module in self.model.modules() if isinstance(module, Block | DecoderBlock)]
        if machine.shard and machine.compile:
            for block in blocks:
                block.compile(dynamic=False)
        if machine.shard:
            processes.share(self.objective, blocks)
        self.optimizer = build_optimizer(self.objective, recipe)
        self.network = self.objective if machine.shard else processes.wrap(self.objective)
        self.run_network: Callable[[Inputs], Tensor] = self.network
        if machine.compile and not machine.shard:
            self.run_network = torch.compile(self.network, dynamic=False)
        self.step, self.position = 0, 0
        self.usual_norm = 0.0

    def losses(self, inputs: Inputs) -> Tensor:
        """Loss of each pair, (B,)."""
        device = self.machine.device
        use_bfloat16 = device.type == "cuda" and self.recipe.precision == "bfloat16"
        with torch.autocast("cuda", torch.bfloat16) if use_bfloat16 else nullcontext():
            # Validation needs neither gradients to average nor code for its batch sizes.
            grad = torch.is_grad_enabled()
            losses_B: Tensor = self.run_network(inputs) if grad else self.objective(inputs, target_only=True)
            return losses_B

    def train_step(self, groups: Sequence[Group], processes: Processes) -> Step:
        """Do one step: the gradient is the mean over all pairs of all groups of all processes.

        Raises:
            TrainingError: the loss or its gradient is not finite in some process; the weights are those before the step.
        """
        lr = learning_rate(self.step, self.recipe)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for number, group in enumerate(groups, start=1):
            with self._no_talk_before(last=number == len(groups)):
                losses.append(self.losses(group.inputs))
                (losses[-1].mean() / len(groups)).backward()  # type: ignore[no-untyped-call]
        loss = torch.stack([losses_B.detach().mean() for losses_B in losses]).mean()
        norm = nn.utils.get_total_norm([p.grad for p in self.objective.parameters() if p.grad is not None])
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        sums = processes.sum(loss, (~torch.isfinite(loss + norm)).float())
        if sums[1] > 0:
            raise _not_finite(self.step, groups, torch.cat(losses).detach())
        is_spike = self._is_spike(float(norm), processes)
        if not is_spike:
            self.optimizer.step()
        self.step, self.position = self.step + 1, self.position + self.recipe.batch_size
        return Step(loss=sums[0] / processes.world, lr=lr, gradient_norm=float(norm), left_out=is_spike)

    @torch.no_grad()
    def validate(self, source: PairSource) -> dict[str, float]:
        """Mean loss over the validation pairs with the true reference, a black one, and that of another pair.

        Masks are keyed by the place of the pair in the split, and have the full length: the numbers depend on neither the
        step nor the batch. Every process does it, as weights may be shared among them.
        """
        sums: dict[str, float] = {"loss": 0.0, "loss_black": 0.0, "loss_other": 0.0}
        num_pairs = 0
        for batch, group in validation_groups(source, self.recipe, self.machine.device):
            for name, inputs in (
                ("loss", group.inputs),
                ("loss_black", group.inputs.with_references(black)),
                ("loss_other", group.inputs.with_references(lambda images: images.roll(1, dims=0))),
            ):
                sums[name] += float(self.losses(inputs).sum())
            num_pairs += len(batch)
        if not num_pairs:
            raise TrainingError(
                "the validation split is empty", where="shards", hint="rebuild the pairs with a validation share"
            )
        return {name: value / num_pairs for name, value in sums.items()} | {"pairs": num_pairs}

    def save(self, folder: Path, shards: str, processes: Processes) -> None:
        """Write a checkpoint: each process its share where weights are shared, otherwise the first one everything."""
        values: dict[str, Any] = {
            "step": self.step,
            "position": self.position,
            "shards": shards,
            "recipe": to_mapping(self.recipe),
            "init": self.init,
            "usual_norm": self.usual_norm,
        }
        folder, keep = folder / "checkpoints", self.machine.keep_checkpoints
        are_shared = self.machine.shard and processes.world > 1
        state, optimizer = get_state_dict(self.objective, self.optimizer, options=SHARES if are_shared else WHOLE)
        if are_shared:
            path = save_shares(folder, Place(**values), shares_of(state, optimizer), keep=keep)
        elif processes.is_first:
            parts: dict[str, dict[str, Any]] = {"model": {}, "head": {}}
            for name, value in state.items():
                part, _, rest = name.partition(".")
                parts[part][rest] = value
            whole = Checkpoint(**values, model=parts["model"], head=parts["head"], optimizer=dict(optimizer))
            path = save_checkpoint(folder, whole, keep=keep)
        if processes.is_first:
            logger.info("checkpoint of step %d: %s", self.step, path)

    def restore(self, path: Path, place: Place) -> None:
        """Continue where a checkpoint was written, by however many processes.

        Args:
            path: the checkpoint.
            place: what `read_place` gave of it.

        Raises:
            TrainingError: it is damaged.
        """
        if isinstance(place, Checkpoint):
            parts = {"model": place.model, "head": place.head}
            state: dict[str, Any] = {
                f"{part}.{name}": value for part, given in parts.items() for name, value in given.items()
            }
            optimizer, options = place.optimizer, WHOLE
        else:
            state, optimizer = get_state_dict(self.objective, self.optimizer, options=SHARES)
            load_shares(path, shares_of(state, optimizer))
            options = SHARES
        set_state_dict(
            self.objective, self.optimizer, model_state_dict=state, optim_state_dict=optimizer, options=options
        )
        self.step, self.position, self.init = place.step, place.position, place.init
        self.usual_norm = place.usual_norm

    @contextmanager
    def _no_talk_before(self, *, last: bool) -> Iterator[None]:
        """Gradients are averaged over the processes once a step, with the last group's."""
        if isinstance(self.network, FSDPModule):
            self.network.set_requires_gradient_sync(last)
            yield
        elif isinstance(self.network, nn.parallel.DistributedDataParallel) and not last:
            with self.network.no_sync():
                yield
        else:
            yield

    def _is_spike(self, norm: float, processes: Processes) -> bool:
        """Whether the gradient is far longer than usual; what is usual follows it slowly, so that no run is stuck."""
        limit = self.recipe.spike * self.usual_norm
        is_spike = self.step >= self.recipe.warmup_steps and 0 < limit < norm
        change = (min(norm, limit) if limit else norm) - self.usual_norm
        self.usual_norm += change * (USUAL_SHARE if self.usual_norm else 1)
        if is_spike and processes.is_first:
            logger.warning("step %d is left out: the gradient's norm is %.3g, %.3g at most", self.step + 1, norm, limit)
        return is_spike


def pretrain(
    recipe: PretrainRecipe,
    source: PairSource,
    out: Path,
    *,
    machine: Machine | None = None,
    init: Path | None = None,
) -> Outcome:
    """Train a completion network, or go on with a run, or find it finished.

    Args:
        recipe: what decides the result.
        source: pairs to train on.
        out: the run's folder.
        machine: where it runs.
        init: weights to start from; random ones when None.

    Returns:
        How it ended. SIGTERM, SIGINT and SIGUSR1 stop the run after the current step, with a checkpoint.

    Raises:
        TrainingError: the folder belongs to another recipe or other shards, a file is damaged, the loss is not finite, or
            the disk is full.
    """
    machine = machine or Machine()
    with Processes(machine) as processes, StopSignal() as stop:
        num_sharing = processes_of_a_group(recipe, processes.world)
        done = _claim_folder(out, recipe, source, init, processes)
        if done is not None:
            logger.info("%s is finished: %d steps, validation loss %s", out, done.step, done.validation_loss)
            return done
        found = list_checkpoints(out / "checkpoints")
        try:
            trainer = Trainer(recipe, machine, processes, init=None if found else init)
            if found:
                _go_on(trainer, found[-1], source)
            with Record(out, step=trainer.step) if processes.is_first else nullcontext() as record:
                longest = processes.longest(num_sharing)
                validation = _run(trainer, source, out, record, processes, stop, longest)
        except TrainingError:
            if processes.is_first and not list_checkpoints(out / "checkpoints"):
                (out / RECIPE).unlink(missing_ok=True)  # nothing was kept: the folder is nobody's
            raise
        if trainer.step < recipe.num_steps:
            return Outcome(finished=False, step=trainer.step, signal=stop.number)
        # A run killed after its last checkpoint comes back here without having validated.
        validation = validation or trainer.validate(source)
        if processes.is_first:
            _finish(out, trainer, validation)
        return Outcome(finished=True, step=trainer.step, validation_loss=validation["loss"])


def build_optimizer(objective: nn.Module, recipe: PretrainRecipe) -> torch.optim.AdamW:
    """AdamW with decay on weights only: vectors and biases have none (the mask token, three-dimensional, has)."""
    named = [(name, p) for name, p in objective.named_parameters() if p.requires_grad]
    free = [p for name, p in named if p.ndim == 1 or name.endswith(".bias")]
    decayed = [p for name, p in named if not (p.ndim == 1 or name.endswith(".bias"))]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.peak_lr, betas=recipe.betas, fused=True)


def learning_rate(step: int, recipe: PretrainRecipe) -> float:
    """Rate of a step, counted from 0: a linear rise to the peak, then a cosine that reaches 0 at `anneal_steps`."""
    if step < recipe.warmup_steps:
        return recipe.peak_lr * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / (recipe.anneal_steps - recipe.warmup_steps)
    return recipe.peak_lr * 0.5 * (1 + math.cos(math.pi * progress))


def processes_of_a_group(recipe: PretrainRecipe, world: int) -> int:
    """How many processes share a group; 1 where each has whole ones.

    Raises:
        TrainingError: so many processes cannot share a step evenly.
    """
    num_groups = recipe.batch_size // recipe.group_size

    def num_sharing(processes: int) -> int:
        num, rest = divmod(processes, num_groups)
        return 1 if num_groups % processes == 0 else 0 if rest or recipe.group_size % num else num

    if num := num_sharing(world):
        return num
    fewer = next(num for num in range(world - 1, 0, -1) if num_sharing(num))
    own, rest = divmod(recipe.batch_size, world)
    raise TrainingError(
        f"{world} processes cannot share {num_groups} groups of {recipe.group_size} pairs",
        where=f"batch_size {recipe.batch_size} and group_size {recipe.group_size} of the recipe",
        hint=f"start {fewer} process{'es' * (fewer > 1)}, or set "
        + (f"`batch_size: {(own + 1) * world}` and `group_size: {own + 1}`" if rest else f"`group_size: {own}`"),
    )


def zero_loss(recipe: PretrainRecipe) -> float:
    """Loss of a network that always predicts zero: (P - 1) / P, 767/768 for patches of 16 px."""
    values = 3 * recipe.architecture.patch_px**2
    return (values - 1) / values


def _claim_folder(
    out: Path, recipe: PretrainRecipe, source: PairSource, init: Path | None, processes: Processes
) -> Outcome | None:
    """Take an empty folder, or check that a used one is this run's; a finished run is returned."""
    wanted = {
        "recipe": to_mapping(recipe),
        "shards": source.shards_hash,
        "init": None if init is None else _hash_of(init),
    }

    def as_now(found: dict[str, Any]) -> dict[str, Any]:
        return found | {"recipe": _as_now(found.get("recipe", {}), out / RECIPE)}

    noted = {"fingerprint": fingerprint(recipe)}
    done = claim(out, wanted, noted=noted, as_now=as_now, writes=processes.is_first)
    if done is None:
        return None
    return Outcome(finished=True, step=done["step"], validation_loss=done["validation"]["loss"])


def _as_now(recipe: dict[str, Any], path: Path) -> dict[str, Any]:
    """A recipe as this version writes it: keys that were not known when the run began are at what they stand for."""
    values: dict[str, Any] = to_mapping(from_mapping(PretrainRecipe, recipe, where=str(path)))
    return values


def _go_on(trainer: Trainer, path: Path, source: PairSource) -> None:
    """Continue from a checkpoint of this run."""
    place = read_place(path)
    changes = changed_keys(_as_now(place.recipe, path), to_mapping(trainer.recipe))
    if changes or place.shards != source.shards_hash:
        raise TrainingError(
            f"the checkpoint is of another run: {few(changes) or 'other shards'}",
            where=path,
            hint="give another --out",
        )
    trainer.restore(path, place)
    logger.info("going on from step %d: %s", trainer.step, path)


def _run(
    trainer: Trainer,
    source: PairSource,
    out: Path,
    record: Record | None,
    processes: Processes,
    stop: StopSignal,
    longest: Longest,
) -> dict[str, float]:
    """Step until the run is done or a signal comes; returns the last validation."""
    recipe, machine = trainer.recipe, trainer.machine
    validation: dict[str, float] = {}
    shown = processes.is_first and machine.console is not None
    profiler = profile_of(machine, out) if processes.is_first else None
    with (
        closing(ahead(_groups(trainer, source, processes, longest))) as stream,
        Progress(console=machine.console, disable=not shown) as progress,
        profiler or nullcontext(),
    ):
        bar = progress.add_task("pre-training", total=recipe.num_steps, completed=trainer.step)
        while trainer.step < recipe.num_steps:
            start_s = time.perf_counter()
            groups = next(stream)
            ready_s = time.perf_counter()
            step = trainer.train_step(groups, processes)
            seconds = time.perf_counter() - start_s
            if profiler is not None:
                profiler.step()
            last = trainer.step == recipe.num_steps
            if record is not None and (last or step.left_out or trainer.step % machine.log_every == 0):
                num_visible = groups[-1].inputs.visible_BV.shape[1]
                _report(record, trainer, step, seconds, (ready_s - start_s) / seconds, num_visible, processes.world)
            progress.update(bar, completed=trainer.step)
            stopping = processes.any(stop.number is not None)
            if last or (not stopping and trainer.step % recipe.validate_every == 0):
                validation = trainer.validate(source)
                if record is not None:
                    record.write("validation", trainer.step, **validation)
                    logger.info(
                        "step %d/%d  validation loss %.4f  black reference %.4f  other reference %.4f  pairs %d",
                        *(trainer.step, recipe.num_steps, validation["loss"]),
                        *(validation["loss_black"], validation["loss_other"], validation["pairs"]),
                    )
            if last or stopping or trainer.step % machine.checkpoint_every == 0:
                trainer.save(out, source.shards_hash, processes)
                processes.wait()
            if stopping:
                logger.info("stopped by signal %s after step %d; run again to go on", stop.number, trainer.step)
                break
    return validation


def _groups(
    trainer: Trainer, source: PairSource, processes: Processes, longest: Longest
) -> Generator[list[Group], None, None]:
    """This process's groups of each step, or its part of one, from the run's place in the stream on."""
    recipe = trainer.recipe
    stream = source.train(
        seed=recipe.seed,
        batch_size=recipe.batch_size,
        position=trainer.position,
        rank=processes.rank,
        world=processes.world,
        num_references=recipe.num_references,
    )
    try:
        with closing(stream):
            for batch in stream:
                yield list(training_groups(batch, recipe, trainer.machine.device, source, longest=longest))
    except MemoryError as error:
        num_pairs = recipe.batch_size // processes.world
        num_bytes = num_pairs * (1 + recipe.num_references) * 3 * STORED_PX**2
        raise TrainingError(
            f"{num_pairs} pairs do not fit into memory: their pictures take {num_bytes / 1e9:.3g} GB, and batches are made ahead",
            where=f"batch_size {recipe.batch_size} of the recipe",
            hint="set a smaller `batch_size`, or start more processes (torchrun): each takes its share",
        ) from error


def _report(
    record: Record, trainer: Trainer, step: Step, seconds: float, wait: float, num_visible: int, world: int
) -> None:
    """One line, always in the same order."""
    rate = trainer.recipe.batch_size / seconds
    tflops = rate * step_flops(trainer.recipe, num_visible) / 1e12 / world
    peak, numbers = peak_tflops(trainer.machine), {}
    left_out = record.left_out + int(step.left_out)
    if peak is not None:
        numbers["mfu"] = tflops / peak
    if trainer.machine.device.type == "cuda":
        numbers["memory_gb"] = torch.cuda.max_memory_allocated(trainer.machine.device) / 1e9
    record.write(
        "train",
        trainer.step,
        loss=step.loss,
        lr=step.lr,
        pairs_per_s=rate,
        data_wait=wait,
        position=trainer.position,
        gradient_norm=step.gradient_norm,
        left_out=int(step.left_out),
        left_out_so_far=left_out,
        tflops=tflops,
        **numbers,
    )
    logger.info(
        "step %d/%d  loss %.4f  lr %.2e  %.1f pairs/s  data %.1f %%  position %d  %s",
        *(trainer.step, trainer.recipe.num_steps, step.loss, step.lr, rate, 100 * wait, trainer.position),
        f"{tflops:.3g} TFLOP/s a device"
        + (f"  MFU {100 * tflops / peak:.1f} %" if peak else "")
        + (f"  left out {left_out}" if left_out else ""),
    )


def _finish(out: Path, trainer: Trainer, validation: dict[str, float]) -> None:
    """Draw the curve, then leave the mark that the run is done."""
    draw_loss_curve(out, out / "loss.png", zero_loss=zero_loss(trainer.recipe))
    numbers = {"step": trainer.step, "position": trainer.position, "validation": validation}
    write_json(out / FINISHED, {**numbers, "fingerprint": fingerprint(trainer.recipe)})


def _not_finite(step: int, groups: Sequence[Group], losses_B: Tensor) -> TrainingError:
    keys = [key for group in groups for key in group.keys]
    bad = [key for key, loss in zip(keys, losses_B.tolist(), strict=True) if not math.isfinite(loss)]
    what = "the loss" if bad else "the gradient"
    shown = ", ".join((bad or keys)[:8])
    return TrainingError(
        f"{what} is not finite; stopped before the optimiser's step, so weights and checkpoints are sound",
        where=f"step {step + 1}, pairs {shown}",
        hint=f"look at them: `{door('manifests', 'show', 'BUILD', '--key', (bad or keys)[0])}`, BUILD the folder above the"
        " shards; if they are fine, lower base_lr",
    )


def _hash_of(init: Path) -> str:
    if not init.is_file():
        what = "this is a folder" if init.is_dir() else "there is no such file"
        raise TrainingError(what, where=init, hint="check --init: it takes a file of weights")
    return file_sha256(init)
