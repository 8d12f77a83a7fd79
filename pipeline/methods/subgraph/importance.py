"""How much each part of a network matters to what it says, before any gate falls."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.data.base import Dataset
from pipeline.data.tensors import to_tensor
from pipeline.methods.subgraph.gates import Gates

_BATCHES, _SIZE = 24, 64


def most_important(importance: torch.Tensor, count: int) -> list[int]:
    """The ``count`` parts of a structure that matter most, ascending."""
    order: list[int] = importance.argsort(descending=True, stable=True)[:count].tolist()
    return sorted(order)


def importances(network: nn.Module, gates: Gates, dataset: Dataset, *, seed: int) -> dict[str, torch.Tensor]:
    """Fisher information of every gate: twice the divergence that its removal causes, to second order.

    At the start network and teacher agree, so the divergence and its gradient are zero, and only its
    curvature tells what matters (as in Fisher pruning, 1801.05787). The curvature of
    ``KL(teacher || student)`` is ``E[(d log p(y) / dg)^2]`` over images, and answers y that are drawn from
    what the network says, labels or whatever the task has; the gradient of a batch's mean is squared, and
    multiplied by its size.

    Args:
        network: with gates that are 1; left in evaluation mode, its parameters' gradients as they were.
        gates: its gates.
        dataset: the first train images are used, in batches of at least two.
        seed: of the answers.

    Returns:
        By name of the structure, shape ``(count,)``.
    """
    network.eval()
    device = next(network.parameters()).device
    found = {name: torch.zeros_like(gate) for name, gate in gates.values.items()}
    generator = torch.Generator().manual_seed(seed)
    images = dataset.train.images[: _BATCHES * _SIZE]
    size = min(_SIZE, len(images))
    batches = [images[start : start + size] for start in range(0, len(images) - size + 1, size)]
    for batch in batches:
        inputs = to_tensor(batch, dataset.preprocessing).to(device, memory_format=torch.channels_last)
        loss = dataset.task.sampled_loss(network(inputs), generator)
        gradients = torch.autograd.grad(loss, list(gates.values.values()), allow_unused=True)
        for name, gradient in zip(gates.values, gradients, strict=True):
            if gradient is not None:
                found[name] += size * gradient.detach() ** 2 / len(batches)
    return found
