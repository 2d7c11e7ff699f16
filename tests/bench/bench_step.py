"""A training step of the paper's network against one written as CroCo's description reads, in one run.

The plain step embeds every patch and then drops the masked ones, picks patches by boolean masks, spells attention out, takes
the loss of all patches times the mask, and steps with AdamW as it comes. Same weights, same pairs, same masks: the losses must be
equal. Each runs in a process of its own, as a user would run it, and they take turns: ours holds its memory as `make pretrain` does. Times are CPU time of one thread; `BENCH_DEVICE=cuda` takes a GPU and its clock, in bfloat16, and tells the share of its peak.
The floor is the time of the step's bare matrix products, each done alone; those of attention are not in it.
"""

import logging
import multiprocessing
import os
import statistics
import time
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from training.inputs import Group
from training.losses import patchify
from training.machine import Machine, Processes, hold_memory, peak_tflops
from training.objective import Inputs, step_flops
from training.pretrain import Trainer
from training.recipes import body

logger = logging.getLogger(__name__)
DEVICE = torch.device(os.environ.get("BENCH_DEVICE", "cpu"))
PAIRS = 64 if DEVICE.type == "cuda" else 16  # of 4, weights and AdamW weigh more, and attention stays in the cache
ROUNDS = 10 if DEVICE.type == "cuda" else 5
WARM_UP = 2  # the optimiser's state is made in the first, and memory is settled in the second
RECIPE = replace(body(), batch_size=PAIRS, group_size=PAIRS, pad_to=49, warmup_steps=0)


class PlainAttention(nn.Module):
    def __init__(self, dim, heads, *, cross):
        super().__init__()
        self.heads = heads
        if cross:
            self.projq, self.projk, self.projv = (nn.Linear(dim, dim) for _ in range(3))
        else:
            self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, memory=None):
        parts = self.qkv(x).chunk(3, -1) if memory is None else (self.projq(x), self.projk(memory), self.projv(memory))
        q, k, v = (part.reshape(*part.shape[:2], self.heads, -1).permute(0, 2, 1, 3) for part in parts)
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(x.shape))


class PlainMlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.fc2(functional.gelu(self.fc1(x)))


class PlainBlock(nn.Module):
    def __init__(self, dim, heads, *, cross=False):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=1e-6) for _ in range(2))
        self.attn, self.mlp = PlainAttention(dim, heads, cross=False), PlainMlp(dim)
        if cross:
            self.norm3, self.norm_y = (nn.LayerNorm(dim, eps=1e-6) for _ in range(2))
            self.cross_attn = PlainAttention(dim, heads, cross=True)

    def forward(self, x, memory=None):
        x = x + self.attn(self.norm1(x))
        if memory is None:
            return x + self.mlp(self.norm2(x))
        x = x + self.cross_attn(self.norm2(x), self.norm_y(memory))
        return x + self.mlp(self.norm3(x))


class PlainCroCo(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, 768, 16, 16)})
        self.enc_blocks = nn.ModuleList(PlainBlock(768, 12) for _ in range(12))
        self.enc_norm = nn.LayerNorm(768, eps=1e-6)
        self.decoder_embed = nn.Linear(768, 512)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 512))
        self.dec_blocks = nn.ModuleList(PlainBlock(512, 16, cross=True) for _ in range(8))
        self.dec_norm = nn.LayerNorm(512, eps=1e-6)
        self.prediction_head = nn.Linear(512, 768)
        self.register_buffer("enc_pos_embed", torch.zeros(196, 768))
        self.register_buffer("dec_pos_embed", torch.zeros(196, 512))

    def encode(self, images, mask=None):
        x = self.patch_embed["proj"](images).flatten(2).transpose(1, 2) + self.enc_pos_embed
        if mask is not None:
            x = x[~mask].reshape(len(x), -1, 768)
        for block in self.enc_blocks:
            x = block(x)
        return self.enc_norm(x)

    def forward(self, target, reference, mask):
        visible, memory = self.decoder_embed(self.encode(target, mask)), self.decoder_embed(self.encode(reference))
        x = self.mask_token.repeat(*mask.shape, 1).to(visible.dtype)
        x[~mask] = visible.flatten(0, 1)
        x, memory = x + self.dec_pos_embed, memory + self.dec_pos_embed
        for block in self.dec_blocks:
            x = block(x, memory)
        return self.prediction_head(self.dec_norm(x))


def plain_step(model, optimizer, inputs, mask):
    optimizer.zero_grad()
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
        predicted = model(inputs.target_BCHW, inputs.reference_BCHW, mask)
        truth = patchify(inputs.target_BCHW, 16)
        truth = (truth - truth.mean(-1, keepdim=True)) / (truth.var(-1, keepdim=True) + 1e-6) ** 0.5
        loss = (((predicted - truth) ** 2).mean(-1) * mask).sum() / mask.sum()
    loss.backward()
    nn.utils.get_total_norm([p.grad for p in model.parameters()])
    optimizer.step()
    return float(loss.detach())


class Products(TorchDispatchMode):
    """Counts matrix products by their operands' layout."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.calls[function, tuple((arg.shape, arg.stride(), arg.dtype) for arg in args)] += 1
        return function(*args, **(kwargs or {}))

    def seconds(self):
        """Time of them all, from the faster of two runs of each."""
        total = 0.0
        for (function, layouts), times in self.calls.items():
            operands = [
                torch.empty_strided(shape, stride, dtype=dtype, device=DEVICE).fill_(0.5)
                for shape, stride, dtype in layouts
            ]
            function(*operands)
            taken = []
            for _ in range(2):
                start = clock()
                function(*operands)
                taken.append(clock() - start)
            total += times * min(taken)
        return total


def clock():
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def make_pairs():
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(PAIRS, 196, generator=generator).argsort(dim=1)
    target, reference = torch.randn(2, PAIRS, 3, 224, 224, generator=generator).to(DEVICE)
    return Inputs(
        target_BCHW=target,
        reference_BCHW=reference,
        visible_BV=order[:, :49].sort(dim=1).values.to(DEVICE),
        masked_BM=order[:, 49:].sort(dim=1).values.to(DEVICE),
    )


def run_plain(weights, turns):
    """Wait for the weights, then do a plain step whenever asked for one, and answer with its time and loss."""
    turns.recv()
    inputs, plain = make_pairs(), PlainCroCo().to(DEVICE)
    plain.load_state_dict(torch.load(weights, map_location=DEVICE))
    optimizer = torch.optim.AdamW(plain.parameters(), lr=RECIPE.peak_lr, betas=RECIPE.betas, weight_decay=0.05)
    mask = torch.zeros(PAIRS, 196, dtype=torch.bool, device=DEVICE).scatter(1, inputs.masked_BM, True)
    while turns.recv():
        start = clock()
        loss = plain_step(plain, optimizer, inputs, mask)
        turns.send((clock() - start, loss))


@pytest.mark.timeout(3600)
def test_a_step_against_the_plain_one(tmp_path):
    torch.set_num_threads(1)
    weights, (turns, far_end) = tmp_path / "weights.pt", multiprocessing.Pipe()
    plain = multiprocessing.get_context("fork").Process(target=run_plain, args=(weights, far_end), daemon=True)
    plain.start()  # before this one touches a GPU, or holds its memory
    hold_memory()
    machine = Machine(device=DEVICE)
    trainer, processes = Trainer(RECIPE, machine, Processes(machine)), Processes(machine)
    torch.save(trainer.model.state_dict(), weights)
    turns.send(True)
    group = Group(tuple(map(str, range(PAIRS))), make_pairs())
    ratios, plain_s, ours_s = [], [], []
    for number in range(WARM_UP + ROUNDS):
        turns.send(True)
        taken, plain_loss = turns.recv()
        start = clock()
        loss = trainer.train_step([group], processes).loss
        own = clock() - start
        if number == 0:
            assert loss == pytest.approx(plain_loss, rel=1e-5 if DEVICE.type == "cpu" else 1e-2)
        if number >= WARM_UP:
            ratios.append(taken / own)
            plain_s.append(taken)
            ours_s.append(own)
    turns.send(False)
    plain.join()
    tflops = step_flops(RECIPE, 49) * PAIRS / statistics.median(ours_s) / 1e12
    peak = peak_tflops(machine)
    logger.info(
        "%d pairs: %.3f s, %.2f times as fast as the plain step (%s), %.3g TFLOP/s%s",
        *(PAIRS, statistics.median(ours_s), statistics.median(ratios), ", ".join(f"{r:.2f}" for r in ratios), tflops),
        f", {100 * tflops / peak:.0f} % of the peak" if peak else "",
    )
    with Products() as products:
        trainer.train_step([group], processes)
    floor_s = products.seconds()
    logger.info(
        "%d matrix products take %.3f s, %.0f %% of the step: no step that does them is more than %.2f times as fast as the plain one",
        *(
            products.calls.total(),
            floor_s,
            100 * floor_s / statistics.median(ours_s),
            statistics.median(plain_s) / floor_s,
        ),
    )
    assert statistics.median(ratios) > 1.0
