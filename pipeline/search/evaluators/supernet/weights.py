"""Weights that all members of a space share: a block has slices of the largest that may take its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from devices.digests import value_digest
from pipeline.distill.onednn_workaround import sampled_before_convolution
from pipeline.spaces.base import Architecture, Block, Space

Size = tuple[int, int]


class Placed(NamedTuple):
    """A block with the place in which it shares weights: only those that give maps of one size share."""

    block: Block
    place: str


class _Template(NamedTuple):
    """What a shared tensor begins with: a shape that holds every block's, and the moments of the largest."""

    shape: tuple[int, ...]
    mean: float
    std: float


class SharedWeights:
    """One tensor for each parameter of each place, as large as the largest block needs it.

    A smaller block has its first channels and the middle of its kernels (as slimmable networks, 1812.08928,
    and once-for-all, 1908.09791, have). Parameters of one name share, so a space whose operations have names
    of their own shares nothing between them. BatchNorm uses the statistics of the batch, always: those of one
    member are wrong for another.

    Tensors are made when they are first needed; what they begin with depends on ``seed`` and their name
    alone, not on the order.

    Args:
        space: whose members share.
        seed: of the weights.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed
        self._modules: dict[Block, nn.Module] = {}
        self._templates: dict[tuple[str, Size], dict[str, _Template]] = {}
        self._trained = True
        self.tensors: dict[str, nn.Parameter] = {}

    def placed(self, architecture: Architecture) -> list[Placed]:
        """The blocks of an architecture with their places."""
        blocks = self._space.blocks(architecture)
        sizes: list[Size | None] = [block.input_shape[1:] for block in blocks[1:]]
        found, counts = [], Counter[str]()
        for block, after in zip(blocks, [*sizes, None], strict=True):
            group = f"{block.kind}-{_text(block.input_shape[1:])}-{_text(after)}"
            found.append(Placed(block, f"{group}-{counts[group]}"))
            counts[group] += 1
        return found

    def run(self, path: Sequence[Placed], features: Tensor) -> Tensor:
        """What these blocks make of features, one after the other."""
        for block, place in path:
            module = self._module(block)
            # The way back follows what ran here.
            with sampled_before_convolution(module):
                features = functional_call(module, self._of(module, block, place), (features,))
        return features

    def tensor(self, name: str, draw: Callable[[], Tensor]) -> nn.Parameter:
        """The shared tensor of a name; ``draw`` gives what it begins with."""
        if name not in self.tensors:
            with self._seeded(name):
                self.tensors[name] = nn.Parameter(draw(), requires_grad=self._trained)
        return self.tensors[name]

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take these for the tensors of their names."""
        for name, values in tensors.items():
            self.tensors[name] = nn.Parameter(values.clone(), requires_grad=self._trained)

    def freeze(self) -> None:
        """End the training."""
        self._trained = False
        for tensor in self.tensors.values():
            tensor.requires_grad_(False)

    @contextmanager
    def _seeded(self, name: str) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(value_digest([self._seed, name])[:8], 16))
            yield

    def _module(self, block: Block) -> nn.Module:
        if block not in self._modules:
            with self._seeded("module"):
                module = self._space.build_block(block).requires_grad_(False)
            for norm in module.modules():
                if isinstance(norm, _BatchNorm):
                    norm.track_running_stats = False
                    norm.running_mean = norm.running_var = norm.num_batches_tracked = None
            self._modules[block] = module
        return self._modules[block]

    def _of(self, module: nn.Module, block: Block, place: str) -> dict[str, Tensor]:
        """A block's parameters by their names in its module, as slices."""
        found = {}
        for name, key, parameter in _named(module):

            def draw(key: str = key) -> Tensor:
                template = self._template(block)[key]
                return template.mean + template.std * torch.randn(template.shape)

            found[name] = _slice(self.tensor(f"{place}.{key}", draw), parameter.shape)
        return found

    def _template(self, block: Block) -> Mapping[str, _Template]:
        """Of all blocks of its kind that take maps of its size."""
        kind, size = block.kind, block.input_shape[1:]
        if (kind, size) not in self._templates:
            own: dict[str, list[Tensor]] = {}
            with self._seeded("templates"):
                for each in self._space.distinct_blocks():
                    if (each.kind, each.input_shape[1:]) == (kind, size):
                        for _, key, parameter in _named(self._space.build_block(each)):
                            own.setdefault(key, []).append(parameter.detach())
            self._templates[kind, size] = {key: _template_of(tensors) for key, tensors in own.items()}
        return self._templates[kind, size]


def _template_of(tensors: Sequence[Tensor]) -> _Template:
    largest = max(tensors, key=Tensor.numel)
    shape = tuple(max(sizes) for sizes in zip(*(each.shape for each in tensors), strict=True))
    return _Template(shape, float(largest.mean()), float(largest.std(correction=0)))


def _named(module: nn.Module) -> Iterator[tuple[str, str, nn.Parameter]]:
    """Name, name for sharing, and each parameter; a depthwise convolution shares with its like alone."""
    for name, parameter in module.named_parameters():
        owner = module.get_submodule(name.rpartition(".")[0])
        yield name, f"{name}.grouped" if getattr(owner, "groups", 1) > 1 else name, parameter


def _slice(whole: Tensor, shape: Sequence[int]) -> Tensor:
    """The first channels, and of kernels the middle."""
    for axis, size in enumerate(shape):
        start = (whole.shape[axis] - size) // 2 if axis >= 2 else 0
        whole = whole.narrow(axis, start, size)
    return whole


def _text(size: Size | None) -> str:
    return "logits" if size is None else f"{size[0]}x{size[1]}"
