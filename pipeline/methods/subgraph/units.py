"""A teacher as a row of units, each measured by itself: found on its graph, described, and cut out.

A unit begins at a map of features ``(N, C, H, W)``, or at tokens ``(N, L, C)``, from which alone the rest of
the network is computed, and has one layer with weights, or several that no such value parts. What has no
weights (activations, pooling) belongs to the unit before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.fx.passes.shape_prop import ShapeProp
from torch.utils.flop_counter import FlopCounterMode

from devices.digests import value_digest
from pipeline.errors import TeacherError
from pipeline.methods.subgraph.importance import most_important
from pipeline.methods.subgraph.structures import NORMS, example_images, narrowed_one_by_one, removed
from pipeline.spaces.base import Architecture, Block, Cost
from pipeline.spaces.teacher.config import Shape, Structure, TeacherSpaceConfig, Unit, UnitSize
from pipeline.spaces.teacher.space import TeacherSpace

_WIDTHS = (8, 6, 4, 3, 2)
"""How many widths a structure may have: as many as keep the number of blocks in bounds."""


@dataclass(frozen=True)
class OpenTeacherSpace(TeacherSpace):
    """A teacher's space that can build its networks and units.

    Args:
        load: gives the teacher's network, which is not changed; called when the first network is built.
        importance: of the parts by name of the structure, shape ``(count,)``. With it, networks begin with
            the teacher's weights, of each layer the most important parts; without, with fresh ones.
    """

    load: Callable[[], nn.Module]
    importance: Mapping[str, Tensor] | None = None

    @cached_property
    def network(self) -> nn.Module:
        """The teacher's."""
        return self.load()

    def build(self, architecture: Architecture) -> nn.Module:
        """A network as narrow as the architecture says."""
        counts = self.counts(architecture)
        if self.importance is None:
            return _fresh(self._narrowed(counts))
        kept = {name: most_important(self.importance[name], count) for name, count in counts.items()}
        network = removed(self.network, self.input_shape, self.config.structures, kept)
        return network.requires_grad_(True)

    def build_block(self, block: Block) -> nn.Module:
        """A fresh unit.

        Raises:
            ValueError: a block of another space.
        """
        try:
            unit, counts = self.places[block]
        except KeyError:
            raise ValueError(f"the teacher has no unit {block}") from None
        whole = {each.name: each.count for each in self.config.structures}
        blocks = [each.name for each in self.config.structures if each.kind == "block"]
        network = self._narrowed({**whole, **counts})
        return _fresh(_Traced(network, blocks, self.input_shape).cut_out(unit.name))

    def _narrowed(self, counts: Mapping[str, int]) -> nn.Module:
        # Which parts stay does not matter: no shape depends on it.
        kept = {name: range(count) for name, count in counts.items()}
        return removed(self.network, self.input_shape, self.config.structures, kept)


def describe_teacher(
    network: nn.Module, input_shape: Shape, structures: Sequence[Structure], *, most_blocks: int
) -> TeacherSpaceConfig:
    """The space of a teacher's subgraphs.

    Args:
        network: ``(N, C, H, W)`` to logits.
        input_shape: channels, height, width.
        structures: of ``find_structures``.
        most_blocks: how many distinct blocks there may be, for each is measured. Structures have 8 widths or,
            where these are too many, fewer, and half as many if several units share them. If that does not
            do, shared ones are left out.

    Raises:
        TeacherError: the graph cannot be followed, or even so has more blocks.
    """
    inside = _inside(structures)
    place = {each.name: position for position, each in enumerate(structures)}
    first = {
        around: min(place[name] for name in inside if inside[name] == around) for around in inside.values()
    }
    ordered = sorted(
        structures, key=lambda each: (first.get(each.name, place[each.name]), each.kind != "block")
    )
    touched = _touched(network, input_shape, ordered)
    shared = {name for name, units in touched.items() if len(units) > 1}
    fewest = 0
    for left_out in (set[str](), shared):
        chosen = [each for each in ordered if each.name not in left_out]
        units = _described(network, input_shape, chosen, touched)
        for count in _WIDTHS:
            widths = {
                each.name: _widths(each.count, max(2, count // 2) if each.name in shared else count)
                for each in chosen
                if each.kind != "block"
            }
            config = TeacherSpaceConfig(tuple(chosen), widths, inside, units, {})
            fewest = _count_blocks(config)
            if chosen and fewest <= most_blocks:
                return replace(config, sizes=_sizes(network, input_shape, config))
    raise TeacherError(
        f"the teacher's subgraphs have {fewest} distinct blocks, and no more than {most_blocks} are measured",
        why="too many of its layers are joined in one unit, or hang together",
        fix="allow more with subgraph.most_blocks, or use a method with a space of its own",
    )


def _inside(structures: Sequence[Structure]) -> dict[str, str]:
    """The block around each structure of channels that lies in one."""
    blocks = [each.name for each in structures if each.kind == "block"]
    return {
        each.name: around
        for each in structures
        if each.kind != "block"
        for around in blocks
        if all(name.startswith(f"{around}.") for name in (each.name, *each.gated))
    }


def _widths(count: int, wanted: int) -> tuple[int, ...]:
    return tuple(sorted({max(1, round(count * step / wanted)) for step in range(1, wanted + 1)}))


@dataclass(frozen=True)
class _Touch:
    """How a structure changes a unit: which dimensions of its tensors, and its input."""

    role: tuple[tuple[int, int], ...]
    narrowed: int


def _touched(
    network: nn.Module, input_shape: Shape, structures: Sequence[Structure]
) -> dict[str, dict[str, _Touch]]:
    """By name of the structure, how it changes which unit: found by removing one part after the other."""
    blocks = [each.name for each in structures if each.kind == "block"]
    before = _Traced(network, blocks, input_shape).shapes()
    touched: dict[str, dict[str, _Touch]] = {}
    for structure, smaller in narrowed_one_by_one(network, input_shape, structures):
        after = _Traced(smaller, blocks, input_shape).shapes()
        touched[structure.name] = {
            unit: touch for unit in before if (touch := _difference(before[unit], after[unit])) is not None
        }
        before = after
    for block in blocks:
        traced = _Traced(network, blocks, input_shape)
        touched[block] = {unit: _Touch(((-1, position),), 0) for unit, position in traced.places_of(block)}
    return touched


def _difference(before: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> _Touch | None:
    """The first of each has the channels of the unit's input."""
    role = tuple(
        (index, dimension)
        for index, (old, new) in enumerate(zip(before[1:], after[1:], strict=True))
        for dimension, (its_old, its_new) in enumerate(zip(old, new, strict=True))
        if its_old != its_new
    )
    narrowed = before[0][0] - after[0][0]
    return _Touch(role, narrowed) if role or narrowed else None


def _described(
    network: nn.Module,
    input_shape: Shape,
    structures: Sequence[Structure],
    touched: Mapping[str, Mapping[str, _Touch]],
) -> tuple[Unit, ...]:
    blocks = [each.name for each in structures if each.kind == "block"]
    traced = _Traced(network, blocks, input_shape)
    units = []
    for name in traced.units:
        touches = {each.name: touched[each.name][name] for each in structures if name in touched[each.name]}
        # Equal units have their structures in one order.
        order = sorted(touches, key=lambda each: touches[each].role)
        content = [traced.description(name), [[touches[each].role, touches[each].narrowed] for each in order]]
        units.append(
            Unit(
                name,
                value_digest(content)[:16],
                traced.input_shape(name),
                tuple(order),
                tuple(touches[each].narrowed for each in order),
                next((each for each in order if each in blocks and traced.is_all_of(name, each)), None),
                traced.takes_tokens(name),
            )
        )
    return tuple(units)


def _count_blocks(config: TeacherSpaceConfig) -> int:
    """An upper bound of the number of distinct blocks."""
    options = {
        unit.content: math.prod(
            len(config.widths.get(name, (0, 1))) for name in unit.structures if name != unit.block
        )
        for unit in config.units
    }
    return sum(options.values())


def _sizes(network: nn.Module, input_shape: Shape, config: TeacherSpaceConfig) -> dict[str, UnitSize]:
    space = OpenTeacherSpace(config, input_shape, 0, lambda: network)
    sizes = {}
    for block in space.distinct_blocks():
        unit = space.build_block(block)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            outputs = unit(torch.zeros(1, *block.input_shape))
        parameters = sum(parameter.numel() for parameter in unit.parameters())
        sizes[block.identity] = UnitSize(Cost(counter.get_total_flops() // 2, parameters), outputs.numel())
    return sizes


def _fresh(network: nn.Module) -> nn.Module:
    """With new weights, in place: each layer draws its own, and others are drawn with the mean and spread
    that they had.
    """
    bare: list[tuple[nn.Parameter, Tensor]] = []
    for module in network.modules():
        resets = [getattr(module, name, None) for name in ("reset_parameters", "_reset_parameters")]
        reset = next(filter(callable, resets), None)
        if reset is not None:
            reset()
        else:
            bare += [(each, each.detach().clone()) for each in module.parameters(recurse=False)]
    with torch.no_grad():
        for parameter, before in bare:
            # A module around it may have drawn it.
            if torch.equal(parameter, before):
                parameter.normal_(before.mean().item(), before.std(correction=0).item())
    return network.requires_grad_(True)


class _Tracer(fx.Tracer):
    """Does not look into modules of torch, nor into blocks."""

    def __init__(self, blocks: Collection[str]) -> None:
        super().__init__()
        self._blocks = frozenset(blocks)

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return name in self._blocks or super().is_leaf_module(module, name)


class _Traced:
    """A network's graph, parted into units.

    Attributes:
        units: names of the units, from input to output: of their first layers with weights.

    Args:
        network: ``(N, C, H, W)`` to logits.
        blocks: modules that are not looked into.
        input_shape: channels, height, width.

    Raises:
        TeacherError: the graph depends on values, or a layer is called twice.
    """

    def __init__(self, network: nn.Module, blocks: Collection[str], input_shape: Shape) -> None:
        self._blocks = frozenset(blocks)
        network.eval()
        try:
            graph = _Tracer(blocks).trace(network)
            self._module = fx.GraphModule(network, graph)
            with torch.no_grad():
                ShapeProp(self._module).propagate(example_images(network, input_shape))
        except Exception as error:  # Tracing runs the user's code with values that are no tensors.
            raise TeacherError(
                "the teacher's graph cannot be followed",
                why=f"torch.fx says: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                fix="take control flow out of its forward, or use a method with a space of its own",
            ) from error
        self._nodes = [node for node in graph.nodes if node.op not in ("placeholder", "output", "get_attr")]
        self._input = next(node for node in graph.nodes if node.op == "placeholder")
        self.units = {
            next(str(node.target) for node in self._nodes[start:end] if self._has_weights(node)): (start, end)
            for start, end in self._parts()
        }

    def _parts(self) -> Iterator[tuple[int, int]]:
        """Where units begin and end."""
        cuts = self._cuts()
        start, last_weights = 0, None
        for position, node in enumerate(self._nodes):
            if not self._has_weights(node):
                continue
            between = [cut for cut in cuts if last_weights is not None and last_weights <= cut < position]
            if between:
                yield start, between[-1] + 1
                start = between[-1] + 1
            last_weights = position
        if last_weights is None:
            raise TeacherError("the teacher has no layer with weights")
        yield start, len(self._nodes)

    def _cuts(self) -> list[int]:
        """Positions of maps of features from which alone the rest is computed."""
        position_of = {node: position for position, node in enumerate(self._nodes)}
        last_use = {
            node: max((position_of.get(user, len(self._nodes)) for user in node.users), default=-1)
            for node in (self._input, *self._nodes)
        }
        found, latest = [], last_use[self._input]
        for position, node in enumerate(self._nodes):
            shape: Sequence[int] = getattr(node.meta.get("tensor_meta"), "shape", ())
            if latest <= position < last_use[node] and len(shape) in (3, 4) and shape[0] == 2:
                found.append(position)
            latest = max(latest, last_use[node])
        return found

    def _has_weights(self, node: fx.Node) -> bool:
        if node.op != "call_module":
            return False
        module = self._module.get_submodule(str(node.target))
        return str(node.target) in self._blocks or (
            not isinstance(module, NORMS) and next(module.parameters(), None) is not None
        )

    def _inside(self, unit: str) -> list[fx.Node]:
        start, end = self.units[unit]
        return self._nodes[start:end]

    def _entry(self, unit: str) -> fx.Node:
        """The value that enters a unit."""
        start, _ = self.units[unit]
        node: fx.Node = self._nodes[start - 1] if start else self._input
        return node

    def input_shape(self, unit: str) -> Shape:
        """Channels, height, width of what enters a unit."""
        _, *shape = self._shape(unit)
        return (1, shape[0], shape[1]) if self.takes_tokens(unit) else (shape[0], shape[1], shape[2])

    def takes_tokens(self, unit: str) -> bool:
        """Whether tokens enter a unit, in place of a map of features."""
        return len(self._shape(unit)) == 3

    def _shape(self, unit: str) -> Sequence[int]:
        shape: Sequence[int] = self._entry(unit).meta["tensor_meta"].shape
        return shape

    def shapes(self) -> dict[str, list[tuple[int, ...]]]:
        """Of every unit how many channels enter it, and the shapes of all its tensors, in order."""
        found = {}
        for unit in self.units:
            modules = [
                self._module.get_submodule(str(n.target)) for n in self._inside(unit) if n.op == "call_module"
            ]
            tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
            channels = self.input_shape(unit)[2 if self.takes_tokens(unit) else 0]
            found[unit] = [(channels,), *(tuple(tensor.shape) for tensor in tensors)]
        return found

    def places_of(self, block: str) -> Iterator[tuple[str, int]]:
        """The unit in which a block is called, and where in it."""
        for unit in self.units:
            for position, node in enumerate(self._inside(unit)):
                if node.op == "call_module" and node.target == block:
                    yield unit, position

    def is_all_of(self, unit: str, block: str) -> bool:
        """Whether nothing with weights is in a unit but this block."""
        return [str(node.target) for node in self._inside(unit) if self._has_weights(node)] == [block]

    def description(self, unit: str) -> list[Any]:
        """All that decides the unit's graph, as JSON, without the names of its modules."""
        return [list(self.input_shape(unit)), _lines(self._inside(unit), self._module, self._entry(unit))]

    def cut_out(self, unit: str) -> nn.Module:
        """The unit as a module of its own, which shares the network's modules."""
        graph = fx.Graph()
        given = graph.placeholder("images")
        if self.takes_tokens(unit):
            given = graph.call_method("squeeze", (given, 1))
        copies: dict[fx.Node, fx.Node] = {self._entry(unit): given}

        def copy_of(node: fx.Node) -> fx.Node:
            if node not in copies:
                assert node.op == "get_attr"
                copies[node] = graph.node_copy(node)
            return copies[node]

        for node in self._inside(unit):
            copies[node] = graph.node_copy(node, copy_of)
        graph.output(copies[self._inside(unit)[-1]])
        return fx.GraphModule(self._module, graph)


def _lines(nodes: Sequence[fx.Node], module: nn.Module, entry: fx.Node) -> list[Any]:
    numbers = {node: f"%{position}" for position, node in enumerate(nodes)}

    def text(node: fx.Node) -> str:
        if node is entry:
            return "%input"
        if node.op == "get_attr":
            tensor = _attribute(module, str(node.target))
            return f"%{tuple(tensor.shape)} {tensor.dtype}"
        return numbers[node]

    return [
        [
            node.op,
            _what(node, module),
            repr(map_arg(node.args, text)),
            repr(sorted(map_arg(node.kwargs, text).items())),
        ]
        for node in nodes
    ]


def _what(node: fx.Node, module: nn.Module) -> Any:
    if node.op == "call_function":
        return f"{getattr(node.target, '__module__', '')}.{getattr(node.target, '__name__', node.target)}"
    if node.op != "call_module":
        return str(node.target)
    called = module.get_submodule(str(node.target))
    if type(called).__module__.startswith("torch.nn"):
        return repr(called)
    try:
        graph = fx.Tracer().trace(called)
    except Exception:  # What cannot be followed equals nothing but itself.
        return [str(node.target), repr(called)]
    inner = [each for each in graph.nodes if each.op not in ("placeholder", "output", "get_attr")]
    return _lines(inner, called, next(each for each in graph.nodes if each.op == "placeholder"))


def _attribute(module: nn.Module, name: str) -> Tensor:
    *parents, last = name.split(".")
    value = getattr(module.get_submodule(".".join(parents)), last)
    assert isinstance(value, Tensor)
    return value
