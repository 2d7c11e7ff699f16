"""Weights of a ResNet-50 under torchvision's names, random by a seed, in the forms in which people keep them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from training.tasks.reid import ResNet50


def write_weights(
    path: Path, *, seed: int, prefix: str = "", wrapped: bool = False, changes: Mapping[str, Tensor] | None = None
) -> Path:
    """Write a state dict, of half precision so that the file is small.

    Args:
        path: of the file.
        seed: of the numbers.
        prefix: before each name: `base.` or `module.`.
        wrapped: as `state_dict` of a checkpoint, with a classifier that nobody asked for and without counts of batches, as old files are.
        changes: other values for some names; the rest is zero then, and takes no room.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    with torch.device("meta"):
        network = ResNet50("pcb")
    for name, value in network.state_dict().items():
        if changes is not None:
            state[name] = torch.zeros((), dtype=torch.float16).expand(value.shape)
        elif value.ndim == 4:
            state[name] = torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            state[name] = torch.rand(value.shape, generator=generator) + 0.5
        elif value.ndim == 1:
            state[name] = float(name.endswith("weight")) + 0.2 * torch.randn(value.shape, generator=generator)
        elif not wrapped:
            state[name] = torch.tensor(100)
    state = {name: value.half() if value.ndim else value for name, value in state.items()}
    state = {f"{prefix}{name}": value for name, value in {**state, **(changes or {})}.items()}
    if wrapped:
        state["instance0.weight"] = torch.zeros(751, 256)
    torch.save({"state_dict": state, "epoch": 120} if wrapped else state, path)
    return path
