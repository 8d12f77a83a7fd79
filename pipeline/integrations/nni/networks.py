"""The networks of a model space: built, and run once to see which blocks they are made of."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from latency_db.table import BlockTraits
from pipeline.integrations.nni.errors import NniError
from pipeline.integrations.nni.recording import Record, Recorder
from pipeline.integrations.nni.units import Sample, Unit, resolve

Image = tuple[int, int, int]


@dataclass(frozen=True)
class UnitBlock:
    """What a unit does in a network; equal ones do the same.

    Attributes:
        identity: digest of the operations with their shapes and types, without names and weights' values.
        unit: where it was met, as its position in the list of units.
        shape: of its input, without the batch.
        description: for people.
        traits: sizes.
    """

    identity: str
    unit: int = field(compare=False)
    shape: tuple[int, ...] = field(compare=False)
    description: str = field(compare=False)
    traits: BlockTraits = field(compare=False)

    @property
    def image_shape(self) -> Image:
        """Of the input that the exported block takes: channels, height, width."""
        return _image_shape(self.shape)


@dataclass(frozen=True)
class Anatomy:
    """A network as it ran.

    Attributes:
        identity: digest of its operations, as that of a ``UnitBlock``.
        macs: of the whole network.
        blocks: for each unit, one for each time it was called; none where it computes nothing.
    """

    identity: str
    macs: int
    blocks: tuple[tuple[UnitBlock, ...], ...]


class Networks:
    """The networks of a space, in evaluation mode and on the CPU.

    Neither the space nor the state of torch's generators is changed.

    Args:
        space: as its author made it: a one-shot strategy rebuilds a space in place.
        inputs: what the space takes, shape (N, C, H, W), (N, L, C) or (N, C), float32; the first is used.

    Raises:
        NniError: the inputs are something else.
    """

    def __init__(self, space: ModelSpace, units: Sequence[Unit], inputs: Tensor) -> None:
        self._space = space
        self._units = tuple(units)
        _check_input((inputs,), {}, "the model space")
        self._inputs = inputs[:1].detach().cpu()

    def build(self, sample: Sample) -> nn.Module:
        """The network of a sample, as NNI makes it.

        Raises:
            NniError: NNI cannot make it.
        """
        try:
            with torch.random.fork_rng(devices=[]):
                network = self._space.freeze(dict(sample))
        except Exception as error:  # users' modules are frozen by their own code
            raise NniError(
                f"NNI cannot freeze the model space at {dict(sample)}", why=f"{type(error).__name__}: {error}"
            ) from error
        # What is fixed is shared between the space and its networks.
        module: nn.Module = copy.deepcopy(network).cpu().eval()
        return module

    @property
    def image_shape(self) -> Image:
        """Of the input that an exported network takes: channels, height, width."""
        return _image_shape(tuple(self._inputs.shape[1:]))

    def exportable(self, sample: Sample) -> nn.Module:
        """The network of a sample, for an input of ``image_shape``."""
        return _as_image(self.build(sample), tuple(self._inputs.shape[1:]))

    def exportable_block(self, block: UnitBlock, sample: Sample) -> nn.Module:
        """A block of the network of a sample, for an input of the block's ``image_shape``."""
        module = resolve(self._units[block.unit], self._space, self.build(sample), sample)
        assert module is not None, "a block stands in the network that it was found in"
        return _as_image(module, block.shape)

    def run(self, sample: Sample) -> Anatomy:
        """Run the network of a sample once.

        Raises:
            NniError: it cannot be made or run, or one of its units takes or gives other than one tensor.
        """
        network = self.build(sample)
        watch = _Watch()
        for position, unit in enumerate(self._units):
            module = resolve(unit, self._space, network, sample)
            if module is not None:
                choices = ", ".join(f"{label}={sample[label]}" for label in unit.labels)
                watch.over(module, position, f"{unit} ({choices})" if choices else str(unit))
        whole = watch.open(self._inputs)
        try:
            with torch.no_grad(), watch.recorder:
                output = network(self._inputs)
        except NniError:
            raise
        except Exception as error:  # users' modules run their own code
            raise NniError(
                f"the network of the model space at {dict(sample)} does not run",
                why=f"{type(error).__name__}: {error}",
                fix=f"give inputs that the space takes; these have the shape {tuple(self._inputs.shape)}",
            ) from error
        blocks = tuple(tuple(watch.blocks.get(position, ())) for position in range(len(self._units)))
        return Anatomy(whole.identity(_one_tensor(output, "the model space")), whole.macs, blocks)


class _Watch:
    """Records modules while they run, each by itself."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.blocks: dict[int, list[UnitBlock]] = {}
        self._inside: nn.Module | None = None
        self._seen: set[int] = set()

    def open(self, inputs: Tensor) -> Record:
        record = Record(inputs)
        self.recorder.open.append(record)
        return record

    def over(self, module: nn.Module, position: int, name: str) -> None:
        # A module that stands at two places is that of the first one.
        if id(module) in self._seen:
            return
        self._seen.add(id(module))
        record: Record | None = None

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal record
            if self._inside is None:
                _check_input(args, kwargs, name)
                self._inside = module
                record = self.open(args[0])

        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if self._inside is module and record is not None:
                self._inside = None
                self.recorder.open.remove(record)
                if not record.is_empty:
                    block = _block(record, position, name, module, (args[0], _one_tensor(output, name)))
                    self.blocks.setdefault(position, []).append(block)

        module.register_forward_pre_hook(enter, with_kwargs=True)
        module.register_forward_hook(leave)


class _AsImage(nn.Module):
    """Takes an input of four axes for a module that takes fewer; the others have size 1, so nothing moves."""

    def __init__(self, module: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.module = module
        self.shape = shape

    def forward(self, features: Tensor) -> Any:
        return self.module(features.reshape(features.shape[0], *self.shape))


def _as_image(module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    return module if len(shape) == 3 else _AsImage(module, shape)


def _image_shape(shape: tuple[int, ...]) -> Image:
    match shape:
        case (channels, height, width):
            return channels, height, width
        case (length, channels):
            return 1, length, channels
        case (channels,):
            return channels, 1, 1
    raise AssertionError(f"an input of shape {shape} was accepted")


def _block(
    record: Record, unit: int, name: str, module: nn.Module, tensors: tuple[Tensor, Tensor]
) -> UnitBlock:
    inputs, output = tensors
    shape = tuple(inputs.shape[1:])
    return UnitBlock(
        record.identity(output),
        unit,
        shape,
        f"{type(module).__name__} {'x'.join(map(str, shape))} at {name}",
        BlockTraits(
            inputs.nbytes + output.nbytes,
            sum(weights.nbytes for weights in module.parameters()),
            record.macs,
        ),
    )


def _check_input(args: tuple[Any, ...], kwargs: dict[str, Any], what: str) -> None:
    one = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
    if not one or args[0].dtype != torch.float32 or not 2 <= args[0].dim() <= 4:
        given = ", ".join(_said(each) for each in (*args, *kwargs.values()))
        raise NniError(
            f"{what} cannot be measured: it is called with {given or 'nothing'}",
            why="what is measured takes one float32 tensor of two to four axes, the first of them the batch",
            fix="let the modules that are chosen from, and those beside them, take one such tensor",
        )


def _one_tensor(output: Any, what: str) -> Tensor:
    if not isinstance(output, Tensor):
        raise NniError(
            f"{what} cannot be measured: it returns {_said(output)}", why="it has to be one tensor"
        )
    return output


def _said(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
