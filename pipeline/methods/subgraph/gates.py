"""Gates on the structures of a network: non-negative factors, of which the proximal step makes exact zeros.

A gate multiplies the whole output of a layer, scale and bias, so that a zero silences the part. Gates start
at 1: the network is the function that it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.methods.subgraph.structures import NORMS, channels_of, spread
from pipeline.spaces.teacher.config import Structure

_SMALLEST = 1e-3
"""Of a gate that is to stay above zero."""


class Gates:
    """The gates of a network while it is trained; attached when made, gone after ``fold``.

    Attributes:
        values: one factor per part, by name of the structure, shape ``(count,)``, each with its gradient, on
            the device of the network.

    Args:
        network: changed in place: its layers multiply what they give.
        structures: what is gated.
    """

    def __init__(self, network: nn.Module, structures: Sequence[Structure]) -> None:
        self._network, self._structures = network, tuple(structures)
        self.values: dict[str, Tensor] = {}
        self._momentum: dict[str, Tensor] = {}
        # A layer can end a block and carry channels that several blocks share.
        gates_of: dict[nn.Module, list[Tensor]] = {}
        for structure in structures:
            layers = [network.get_submodule(name) for name in structure.gated]
            device = next(network.parameters()).device
            value = torch.ones(structure.count, requires_grad=True, device=device)
            self.values[structure.name] = value
            self._momentum[structure.name] = torch.zeros_like(value)
            for layer in layers:
                gates_of.setdefault(layer, []).append(value)
        self._undo = [_gate(layer, gates) for layer, gates in gates_of.items()]

    def proximal_step(
        self,
        learning_rate: float,
        penalties: Mapping[str, Tensor],
        least: Mapping[str, int],
        momentum: float = 0.9,
    ) -> None:
        """One accelerated proximal gradient step on every gate, from the gradients that they have now.

        ``z = soft(g - eta * dL/dg, eta * penalty)``, ``m <- z - g + mu * m``, ``g <- max(0, z + mu * m)``
        (the solver of sparse structure selection, 1707.01213, which 2001.11612 uses).

        Args:
            learning_rate: eta.
            penalties: lambda times the weight of each part, shape ``(count,)`` by name of the structure.
            least: how many of the largest gates are not penalised and stay above zero; 0 for a block.
            momentum: mu.
        """
        for structure in self._structures:
            gate, velocity = self.values[structure.name], self._momentum[structure.name]
            with torch.no_grad():
                gradient = torch.zeros_like(gate) if gate.grad is None else gate.grad
                moved = gate - learning_rate * gradient
                threshold = learning_rate * penalties[structure.name].clone()
                protected = moved.argsort(descending=True, stable=True)[: least[structure.name]]
                threshold[protected] = 0
                shrunk = moved.sign() * (moved.abs() - threshold).clamp(min=0)
                velocity.mul_(momentum).add_(shrunk - gate)
                gate.copy_((shrunk + momentum * velocity).clamp(min=0))
                gate[protected] = gate[protected].clamp(min=_SMALLEST)
                # What was driven to zero does not come back by momentum alone.
                velocity[gate == 0] = 0
                gate.grad = None

    def settle(self, learning_rate: float) -> None:
        """A plain gradient step on the gates that are not zero; none becomes zero."""
        with torch.no_grad():
            for gate in self.values.values():
                if gate.grad is not None:
                    alive = gate > 0
                    gate[alive] = (gate - learning_rate * gate.grad)[alive].clamp(min=_SMALLEST)
                    gate.grad = None

    def kept(self) -> dict[str, list[int]]:
        """The parts whose gates are not zero, ascending, by name of the structure."""
        return {name: gate.detach().nonzero().flatten().tolist() for name, gate in self.values.items()}

    def keep(self, name: str, parts: Tensor) -> None:
        """Set all gates of a structure to zero but those of these parts; which were zero begin again at 1."""
        with torch.no_grad():
            gate = self.values[name]
            left = torch.zeros_like(gate)
            left[parts] = torch.where(gate[parts] > 0, gate[parts], 1.0)
            gate.copy_(left)

    def fold(self) -> None:
        """Multiply the gates into their layers and take the hooks away; the function stays the same."""
        for undo in self._undo:
            undo()
        for structure in self._structures:
            for name in structure.gated:
                _scale(self._network.get_submodule(name), self.values[structure.name].detach())

    def state(self) -> dict[str, Any]:
        """Gates and velocities, for a checkpoint."""
        return {
            "values": {name: value.detach().clone() for name, value in self.values.items()},
            "momentum": {name: value.clone() for name, value in self._momentum.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state`` returned."""
        with torch.no_grad():
            for name, value in self.values.items():
                value.copy_(state["values"][name])
                self._momentum[name].copy_(state["momentum"][name])


def _scale(layer: nn.Module, factors: Tensor) -> None:
    """Multiply a layer's output channels, in place."""
    if isinstance(layer, NORMS) and layer.weight is None:
        _make_affine(layer, factors)
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    outputs = weight.shape[:1]
    with torch.no_grad():
        if isinstance(layer, nn.modules.conv._ConvTransposeNd):
            # (inputs, outputs of a group, ...), as (groups, outputs of a group, inputs of a group, ...).
            weight = weight.view(layer.groups, -1, *weight.shape[1:]).transpose(1, 2)
            outputs = weight.shape[:2]
        of_outputs = spread(factors, math.prod(outputs)).expand(math.prod(outputs))
        weight.mul_(of_outputs.view(*outputs, *(1,) * (weight.dim() - len(outputs))))
        if bias is not None:
            assert isinstance(bias, Tensor)
            bias.mul_(of_outputs)


def _make_affine(norm: Any, like: Tensor) -> None:
    """Give a norm without weights those with which it is the same, where and as precise as ``like`` is."""
    channels = norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features
    norm.affine, norm.weight = True, nn.Parameter(like.new_ones(channels))
    norm.bias = nn.Parameter(like.new_zeros(channels))


def _gate(layer: nn.Module, gates: Sequence[Tensor]) -> Callable[[], None]:
    """Multiply what a layer gives by gates; returns what ends that."""
    if isinstance(layer, nn.BatchNorm2d) and layer.affine and layer.momentum is not None:
        # Scale and bias are a thousand times smaller than what the layer gives.
        norm = layer

        def forward(images: Tensor) -> Tensor:
            return functional.batch_norm(
                images,
                norm.running_mean,
                norm.running_var,
                math.prod((spread(gate, norm.num_features) for gate in gates), start=norm.weight),
                math.prod((spread(gate, norm.num_features) for gate in gates), start=norm.bias),
                norm.training or norm.running_mean is None,
                norm.momentum or 0.0,
                norm.eps,
            )

        norm.forward = forward  # type: ignore[method-assign, assignment]
        return lambda: norm.__dict__.pop("forward", None)
    return layer.register_forward_hook(_multiplying(gates)).remove


def _multiplying(gates: Sequence[Tensor]) -> Any:
    def hook(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        dimension = channels_of(layer) % output.dim()
        channels, behind = output.shape[dimension], output.dim() - 1 - dimension
        return math.prod((spread(gate, channels).view(-1, *(1,) * behind) for gate in gates), start=output)

    return hook
