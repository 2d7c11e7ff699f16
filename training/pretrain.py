"""One pre-training run, readable from top to bottom: `pretrain`.

A run's folder holds `recipe.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/`, and, once it is done, `loss.png` and
`finished.json`. Running the same recipe into the same folder goes on from the last checkpoint, bit for bit as if it had never
stopped (float32 on one kind of CPU): nothing random has a state, it is all keyed by (seed, place in the stream).
Shape letters: `B` pairs, `N` patches of an image, `V` visible, `P` values of a patch.
"""

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn

from manifests.errors import TrainingError
from manifests.recipes import changed_keys, fingerprint, to_mapping
from manifests.seeds import seed_for
from training.augment import Views, black, prepare
from training.batch import Batch
from training.checkpoints import (
    Checkpoint,
    file_sha256,
    list_checkpoints,
    load_weights,
    read_checkpoint,
    save_checkpoint,
    write_atomic,
)
from training.losses import pair_losses, patchify
from training.machine import Machine, Processes, StopSignal
from training.masking import Masks, human_masks, uniform_masks
from training.model.croco import CroCo
from training.noise import uniform_noise
from training.recipes import PretrainRecipe
from training.record import Record, draw_loss_curve
from training.source import PairSource

logger = logging.getLogger(__name__)

VALIDATION_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call of `pretrain` ended.

    Args:
        finished: the run is complete; otherwise a signal stopped it after a checkpoint.
        step: steps done.
        validation_loss: of the last validation, None when there was none yet.
        signal: number of the signal that stopped the run.
    """

    finished: bool
    step: int
    validation_loss: float | None = None
    signal: int | None = None


class Trainer:
    """Network, optimiser and place of a run.

    Args:
        recipe: what decides the result.
        machine: where it runs.
        processes: this process among its peers.
    """

    def __init__(self, recipe: PretrainRecipe, machine: Machine, processes: Processes) -> None:
        self.recipe, self.machine = recipe, machine
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(recipe.seed, "weights"))
            self.model = CroCo(recipe.architecture).to(machine.device)
        self.optimizer = build_optimizer(self.model, recipe)
        self.network: nn.Module = processes.wrap(self.model)
        self.step, self.position, self.init = 0, 0, None  # type: int, int, str | None

    def forward(self, views: Views, masks: Masks, reference_BCHW: Tensor | None = None) -> Tensor:
        """Loss of each pair, (B,); another reference than the true one may be shown."""
        architecture, device = self.recipe.architecture, self.machine.device
        target_BNP = patchify(views.target_BCHW, architecture.patch_px)
        reference_BNP = patchify(
            views.reference_BCHW if reference_BCHW is None else reference_BCHW, architecture.patch_px
        )
        visible_BV = torch.from_numpy(masks.visible_BV).to(device)
        masked_BM = torch.from_numpy(masks.masked_BM).to(device)
        use_bfloat16 = device.type == "cuda" and self.recipe.precision == "bfloat16"
        with torch.autocast("cuda", torch.bfloat16) if use_bfloat16 else nullcontext():
            # Validation runs in the first process alone, so it must not talk to the others.
            network = self.network if torch.is_grad_enabled() else self.model
            predicted_BNP = network(target_BNP, reference_BNP, visible_BV)
        return pair_losses(predicted_BNP, target_BNP, masked_BM)

    def train_step(self, batch: Batch, views: Views, masks: Masks, processes: Processes) -> tuple[float, float, float]:
        """Do one step.

        Returns:
            loss over all processes, learning rate, and norm of the gradient.

        Raises:
            TrainingError: the loss or its gradient is not finite in some process; the weights are those before the step.
        """
        lr = learning_rate(self.step, self.recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        losses_B = self.forward(views, masks)
        loss = losses_B.mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        sums = processes.sum(loss.detach(), (~torch.isfinite(loss + norm)).float())
        if sums[1] > 0:
            raise _not_finite(self.step, batch, losses_B.detach())
        self.optimizer.step()
        self.step, self.position = self.step + 1, self.position + self.recipe.batch_size
        return sums[0] / processes.world, lr, float(norm)

    @torch.no_grad()
    def validate(self, source: PairSource) -> dict[str, float]:
        """Mean loss over the validation pairs with the true reference, a black one, and that of another pair.

        Masks are keyed by the place of the pair in the split, and have the full length: the numbers depend on neither the
        step nor the batch.
        """
        sums: dict[str, float] = {"loss": 0.0, "loss_black": 0.0, "loss_other": 0.0}
        num_pairs = 0
        for batch, views, masks in validation_views(source, self.recipe, self.machine.device):
            for name, reference_BCHW in (
                ("loss", views.reference_BCHW),
                ("loss_black", black(views.reference_BCHW)),
                ("loss_other", views.reference_BCHW.roll(1, dims=0)),
            ):
                sums[name] += float(self.forward(views, masks, reference_BCHW).sum())
            num_pairs += len(batch)
        if not num_pairs:
            raise TrainingError(
                "the validation split is empty", where="shards", hint="rebuild the pairs with a validation share"
            )
        return {name: value / num_pairs for name, value in sums.items()} | {"pairs": num_pairs}

    def save(self, folder: Path, shards: str) -> None:
        """Write a checkpoint."""
        checkpoint = Checkpoint(
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            step=self.step,
            position=self.position,
            shards=shards,
            recipe=to_mapping(self.recipe),
            init=self.init,
        )
        path = save_checkpoint(folder / "checkpoints", checkpoint, keep=self.machine.keep_checkpoints)
        logger.info("checkpoint of step %d: %s", self.step, path)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue where a checkpoint was written."""
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.step, self.position, self.init = checkpoint.step, checkpoint.position, checkpoint.init


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
        How it ended. SIGTERM and SIGINT stop the run after the current step, with a checkpoint.

    Raises:
        TrainingError: the folder belongs to another recipe or other shards, a file is damaged, the loss is not finite, or
            the disk is full.
    """
    machine = machine or Machine()
    with Processes(machine) as processes, StopSignal() as stop:
        if recipe.batch_size % processes.world:
            raise TrainingError(
                f"{processes.world} processes cannot share {recipe.batch_size} pairs",
                where="batch_size",
                hint="change either",
            )
        done = _claim_folder(out, recipe, source, init, processes)
        if done is not None:
            logger.info("%s is finished: %d steps, validation loss %s", out, done.step, done.validation_loss)
            return done
        trainer = Trainer(recipe, machine, processes)
        _start(trainer, out, source, init)
        with Record(out, step=trainer.step) if processes.is_first else nullcontext() as record:
            validation = _run(trainer, source, out, record, processes, stop)
        if trainer.step < recipe.num_steps:
            return Outcome(finished=False, step=trainer.step, signal=stop.number)
        if processes.is_first:
            # A run killed after its last checkpoint comes back here without having validated.
            validation = validation or trainer.validate(source)
            _finish(out, trainer, validation)
        validation = processes.from_first(validation)
        return Outcome(finished=True, step=trainer.step, validation_loss=validation["loss"])


def build_optimizer(model: nn.Module, recipe: PretrainRecipe) -> torch.optim.AdamW:
    """AdamW with decay on weights only: vectors and biases have none (the mask token, three-dimensional, has)."""
    named = list(model.named_parameters())
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


def training_views(batch: Batch, recipe: PretrainRecipe, device: torch.device) -> tuple[Views, Masks]:
    """Vary and mask a training batch, each pair by its place in the stream."""
    architecture = recipe.architecture
    views = prepare(
        batch,
        recipe.augmentation,
        image_px=architecture.image_px,
        side=architecture.side,
        device=device,
        seed=recipe.seed,
    )
    noise_BN = uniform_noise(seed_for(recipe.seed, "mask"), batch.index_B, architecture.num_patches)
    if recipe.mask == "uniform":
        return views, uniform_masks(noise_BN, mask_ratio=recipe.mask_ratio)
    human_BN = views.coverage_BN >= recipe.human_coverage
    return views, human_masks(human_BN, noise_BN, mask_ratio=recipe.mask_ratio, pad_to=recipe.pad_to)


def validation_views(
    source: PairSource, recipe: PretrainRecipe, device: torch.device, *, limit: int | None = None
) -> Iterator[tuple[Batch, Views, Masks]]:
    """Centre crops of validation pairs, with masks that never change; as many as the recipe says, or `limit`."""
    architecture = recipe.architecture
    for batch in source.validation(batch_size=VALIDATION_BATCH, limit=limit or recipe.validation_pairs):
        views = prepare(
            batch,
            recipe.augmentation,
            image_px=architecture.image_px,
            side=architecture.side,
            device=device,
            seed=None,
        )
        noise_BN = uniform_noise(seed_for("validation", "mask"), batch.index_B, architecture.num_patches)
        if recipe.mask == "uniform":
            masks = uniform_masks(noise_BN, mask_ratio=recipe.mask_ratio)
        else:
            human_BN = views.coverage_BN >= recipe.human_coverage
            masks = human_masks(human_BN, noise_BN, mask_ratio=recipe.mask_ratio, pad_to=recipe.full_length)
        yield batch, views, masks


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
    path = out / "recipe.json"
    if path.exists():
        try:
            found = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise TrainingError(f"not JSON: {error}", where=path, hint="give another --out") from error
        found.pop("fingerprint", None)
        changes = changed_keys(found, wanted)
        if changes:
            raise TrainingError(
                f"the folder holds another run; changed: {'; '.join(changes)}",
                where=out,
                hint="give another --out, or remove this one to start anew",
            )
    elif processes.is_first:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"cannot write: {error}", where=out, hint="give another --out") from error
        write_atomic(path, _json({**wanted, "fingerprint": fingerprint(recipe)}))
    finished = out / "finished.json"
    if finished.exists():
        numbers = json.loads(finished.read_text())
        return Outcome(finished=True, step=numbers["step"], validation_loss=numbers["validation"]["loss"])
    return None


def _start(trainer: Trainer, out: Path, source: PairSource, init: Path | None) -> None:
    """Load the last checkpoint, or the weights to start from."""
    found = list_checkpoints(out / "checkpoints")
    if found:
        checkpoint = read_checkpoint(found[-1])
        changes = changed_keys(checkpoint.recipe, to_mapping(trainer.recipe))
        if changes or checkpoint.shards != source.shards_hash:
            raise TrainingError(
                f"the checkpoint is of another run: {'; '.join(changes) or 'other shards'}",
                where=found[-1],
                hint="give another --out",
            )
        trainer.restore(checkpoint)
        logger.info("going on from step %d: %s", trainer.step, found[-1])
    elif init is not None:
        trainer.init = load_weights(trainer.model, init)
        logger.info("starting from %s", init)


def _run(
    trainer: Trainer, source: PairSource, out: Path, record: Record | None, processes: Processes, stop: StopSignal
) -> dict[str, float]:
    """Step until the run is done or a signal comes; returns the last validation."""
    recipe, machine = trainer.recipe, trainer.machine
    validation: dict[str, float] = {}
    stream = source.train(
        seed=recipe.seed,
        batch_size=recipe.batch_size,
        position=trainer.position,
        rank=processes.rank,
        world=processes.world,
    )
    shown = processes.is_first and machine.console is not None
    with closing(stream), Progress(console=machine.console, disable=not shown) as progress:
        bar = progress.add_task("pre-training", total=recipe.num_steps, completed=trainer.step)
        while trainer.step < recipe.num_steps:
            start_s = time.perf_counter()
            batch = next(stream)
            views, masks = training_views(batch, recipe, machine.device)
            ready_s = time.perf_counter()
            loss, lr, norm = trainer.train_step(batch, views, masks, processes)
            seconds = time.perf_counter() - start_s
            if record is not None:
                _report(record, trainer, loss, lr, norm, seconds, (ready_s - start_s) / seconds)
            progress.update(bar, completed=trainer.step)
            stopping = processes.any(stop.number is not None)
            last = trainer.step == recipe.num_steps
            if record is not None and (last or (not stopping and trainer.step % recipe.validate_every == 0)):
                validation = trainer.validate(source)
                record.write("validation", trainer.step, **validation)
                logger.info(
                    "step %d/%d  validation loss %.4f  black reference %.4f  other reference %.4f  pairs %d",
                    *(trainer.step, recipe.num_steps, validation["loss"]),
                    *(validation["loss_black"], validation["loss_other"], validation["pairs"]),
                )
            processes.wait()
            if processes.is_first and (last or stopping or trainer.step % machine.checkpoint_every == 0):
                trainer.save(out, source.shards_hash)
            if stopping:
                logger.info("stopped by signal %s after step %d; run again to go on", stop.number, trainer.step)
                break
    return validation


def _report(record: Record, trainer: Trainer, loss: float, lr: float, norm: float, seconds: float, wait: float) -> None:
    """One line a step, always in the same order."""
    rate = trainer.recipe.batch_size / seconds
    record.write(
        "train",
        trainer.step,
        loss=loss,
        lr=lr,
        pairs_per_s=rate,
        data_wait=wait,
        position=trainer.position,
        gradient_norm=norm,
    )
    logger.info(
        "step %d/%d  loss %.4f  lr %.2e  %.1f pairs/s  data %.1f %%  position %d",
        *(trainer.step, trainer.recipe.num_steps, loss, lr, rate, 100 * wait, trainer.position),
    )


def _finish(out: Path, trainer: Trainer, validation: dict[str, float]) -> None:
    """Draw the curve, then leave the mark that the run is done."""
    draw_loss_curve(out, out / "loss.png", zero_loss=zero_loss(trainer.recipe))
    numbers = {"step": trainer.step, "position": trainer.position, "validation": validation}
    write_atomic(out / "finished.json", _json({**numbers, "fingerprint": fingerprint(trainer.recipe)}))


def _not_finite(step: int, batch: Batch, losses_B: Tensor) -> TrainingError:
    bad = [key for key, loss in zip(batch.keys, losses_B.tolist(), strict=True) if not math.isfinite(loss)]
    what = "the loss" if bad else "the gradient"
    shown = ", ".join((bad or list(batch.keys))[:8])
    return TrainingError(
        f"{what} is not finite; stopped before the optimiser's step, so weights and checkpoints are sound",
        where=f"step {step + 1}, pairs {shown}",
        hint="look at these pairs with `python -m manifests show`; if they are fine, lower base_lr",
    )


def _hash_of(init: Path) -> str:
    if not init.is_file():
        raise TrainingError("there is no such file", where=init, hint="check --init")
    return file_sha256(init)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
