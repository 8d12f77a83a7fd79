"""The networks of a model space: built, and run once to see what they do."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace, MutableModule, recursive_freeze
from torch import Tensor, nn

from pipeline.integrations.nni.errors import NniError
from pipeline.integrations.nni.recording import Trace, trace
from pipeline.integrations.nni.units import Sample, Unit, resolve, template

Shape = tuple[int, ...]
"""Of an input, without the batch."""


class Networks:
    """The networks of a space, in evaluation mode and on the CPU, with a batch of one.

    Neither the space nor the state of torch's generators is changed.

    Args:
        space: as its author made it: a one-shot strategy rebuilds a space in place.
        inputs: what the space takes, shape (N, C, H, W), (N, L, C) or (N, C), float32; the first is used.

    Raises:
        NniError: the inputs are something else, or the space makes its networks by code of its own.
    """

    def __init__(self, space: ModelSpace, inputs: Tensor) -> None:
        if type(space).freeze is not MutableModule.freeze:
            raise NniError(
                f"{type(space).__name__} cannot be profiled: it has a freeze of its own",
                why="so what a choice changes cannot be seen from the modules",
                fix="choose by LayerChoice, Repeat, or nni.choice as an argument of Mutable modules",
            )
        check_input((inputs,), {}, "the model space")
        self._space = space
        self._inputs = inputs[:1].detach().cpu()

    @property
    def input_shape(self) -> Shape:
        """Of the networks' inputs."""
        return tuple(self._inputs.shape[1:])

    def build(self, sample: Sample) -> nn.Module:
        """The network of a sample, as NNI makes it.

        Raises:
            NniError: NNI cannot make it.
        """
        return self._frozen(self._space, sample)

    def build_unit(self, unit: Unit, sample: Sample) -> nn.Module:
        """A unit of the network of a sample.

        Raises:
            NniError: NNI cannot make it.
        """
        return self._frozen(template(unit, self._space), sample)

    def trace(self, sample: Sample) -> Trace:
        """What the network of a sample does.

        Raises:
            NniError: it cannot be made or run, or returns other than one tensor.
        """
        network = self.build(sample)
        try:
            found = trace(network, self._inputs)
        except Exception as error:  # users' modules run their own code
            raise self._does_not_run(sample, error) from error
        check_output(found.output, "the model space")
        return found

    def input_shapes(self, units: Sequence[Unit], sample: Sample) -> list[tuple[Shape, ...]]:
        """For each unit, the shapes of its inputs in the network of a sample, one for each time it is called.

        Raises:
            NniError: the network cannot be made or run, or a unit is called with other than one tensor.
        """
        network = self.build(sample)
        shapes: list[list[Shape]] = [[] for _ in units]
        running: list[nn.Module] = []
        watched: set[int] = set()

        def watch(module: nn.Module, unit: Unit, found: list[Shape]) -> None:
            def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                if not running:
                    check_input(args, kwargs, f"'{unit}'")
                    found.append(tuple(args[0].shape[1:]))
                running.append(module)

            module.register_forward_pre_hook(enter, with_kwargs=True)
            module.register_forward_hook(lambda *_: running.remove(module))

        for unit, found in zip(units, shapes, strict=True):
            module = resolve(unit, self._space, network, sample)
            if module is not None and id(module) not in watched:  # at two places: that of the first one
                watched.add(id(module))
                watch(module, unit, found)
        try:
            with torch.no_grad():
                network(self._inputs)
        except NniError:
            raise
        except Exception as error:  # users' modules run their own code
            raise self._does_not_run(sample, error) from error
        return [tuple(found) for found in shapes]

    def _frozen(self, module: nn.Module, sample: Sample) -> nn.Module:
        try:
            with torch.random.fork_rng(devices=[]):
                frozen, _ = recursive_freeze(module, dict(sample))
        except Exception as error:  # users' modules are frozen by their own code
            raise NniError(
                f"NNI cannot freeze the model space at {dict(sample)}", why=f"{type(error).__name__}: {error}"
            ) from error
        # What is fixed is shared between the space and its networks.
        network: nn.Module = copy.deepcopy(frozen).cpu().eval()
        return network

    def _does_not_run(self, sample: Sample, error: Exception) -> NniError:
        return NniError(
            f"the network of the model space at {dict(sample)} does not run",
            why=f"{type(error).__name__}: {error}",
            fix=f"give inputs that the space takes; these have the shape {tuple(self._inputs.shape)}",
        )


def check_input(args: tuple[Any, ...], kwargs: dict[str, Any], what: str) -> None:
    """Refuse a call that cannot be measured.

    Raises:
        NniError: it is with other than one float32 tensor of two to four axes.
    """
    one = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
    if not one or args[0].dtype != torch.float32 or not 2 <= args[0].dim() <= 4:
        given = ", ".join(_said(each) for each in (*args, *kwargs.values()))
        raise NniError(
            f"{what} cannot be measured: it is called with {given or 'nothing'}",
            why="what is measured takes one float32 tensor of two to four axes, the first of them the batch",
            fix="let the modules that are chosen from, and those beside them, take one such tensor",
        )


def check_output(output: Any, what: str) -> Tensor:
    """``output`` if it is one tensor.

    Raises:
        NniError: it is something else.
    """
    if not isinstance(output, Tensor):
        raise NniError(
            f"{what} cannot be measured: it returns {_said(output)}",
            why="what is measured returns one tensor",
            fix="let the modules that are chosen from, and those beside them, return one tensor",
        )
    return output


def _said(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
