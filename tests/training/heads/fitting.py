"""A short training on fixed inputs."""

import torch


def fit(modules, loss, *, steps, rate=1e-3):
    """Loss before and after some steps of Adam, dropout off: what a head cannot learn by heart it cannot learn at all."""
    for module in modules:
        module.eval()
    optimiser = torch.optim.Adam([p for module in modules for p in module.parameters()], lr=rate)
    first = loss().item()
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    return first, loss().item()


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
