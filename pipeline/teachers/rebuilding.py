"""An exported graph as a network of torch modules, so that its layers can be looked at, changed and trained.

Calls of layers that have weights become these layers, under the names that they had; normalisations can learn
again. Everything else stays a call. What was a module with one input and one output is a module again.
"""

from __future__ import annotations

import operator
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from pipeline.errors import TeacherError
from pipeline.teachers.exported import ExportedNetwork, Step
from pipeline.teachers.teacher import AdaptedNetwork

_TOLERANCE = 1e-4
_CPU = torch.device("cpu")
_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_TAKEN_APART = frozenset(
    {
        "aten::addmm",
        "aten::mm",
        "aten::_native_batch_norm_legit_no_training",
        "aten::native_layer_norm",
        "aten::native_group_norm",
    }
)
_RESHAPES = frozenset({"aten::view", "aten::reshape", "aten::_unsafe_view"})


def rebuild_layers(network: nn.Module, images: Tensor) -> None:
    """Put modules in place of every exported graph in a network.

    Args:
        network: changed in place, and in evaluation mode afterwards; its function stays the same.
        images: ``(N, C, H, W)``, on which both are compared, and with one more: no graph is for both sizes.

    Raises:
        TeacherError: what is built is not the same function, as the graph has constants of its batch size; or
            layers were taken apart.
    """
    network.eval()
    for name, exported in list(network.named_modules()):
        if not isinstance(exported, ExportedNetwork):
            continue
        batches = (images, torch.cat([images, images[:1]]))
        with torch.no_grad():
            expected = [network(batch) for batch in batches]
        try:
            _set(network, name, as_modules(exported))
            with torch.no_grad():
                given = [network(batch) for batch in batches]
            same = all(map(_are_close, given, expected))
            why = "as layers it gives other outputs"
        except Exception as error:  # A graph may hold anything that was exported.
            same, why = False, str(error).splitlines()[0] if str(error) else type(error).__name__
        if not same:
            raise TeacherError(
                "the exported network cannot be turned back into layers",
                why=why,
                fix="save what torch.export.export gives with an open batch size, dynamic_shapes=({0: "
                "torch.export.Dim('batch')},), without run_decompositions; or use kind 'factory' or 'timm'",
            )
    if isinstance(network, AdaptedNetwork):
        network.put_unit_into_last_layer(images)


def _are_close(given: Tensor, expected: Tensor) -> bool:
    # Tensors of other shapes may be subtracted too.
    alike = given.shape == expected.shape
    return alike and bool((given - expected).abs().max() <= _TOLERANCE * (1 + expected.abs().max()))


def as_modules(exported: ExportedNetwork) -> nn.Module:
    """The network of a graph, in evaluation mode; where a graph has a fixed batch size, it is opened.

    Raises:
        ValueError: a layer was taken apart, or has arguments that it cannot have.
    """
    flat = _Rebuilt(exported)
    flat.call_all()
    return _nested(flat.root, flat.graph).eval()


@dataclass(frozen=True)
class _Stored:
    """A tensor of the file, of which it is not decided yet whether a layer takes it."""

    name: str
    tensor: Tensor


class _Rebuilt:
    """A graph whose calls of layers are calls of modules; not nested yet."""

    def __init__(self, exported: ExportedNetwork) -> None:
        self.root, self.graph = nn.Module(), fx.Graph()
        self._exported = exported.graph
        self._batch = exported.graph.input_sizes[0]
        self._values: dict[str, Any] = {
            name: _Stored(name, tensor) for name, tensor in exported.tensors.items()
        }
        self._layers: dict[tuple[Any, ...], str] = {}
        self._parameters: dict[str, nn.Parameter] = {}
        self._images = self._values[exported.graph.input_name] = self.graph.placeholder("images")
        self._images.meta["sizes"] = exported.graph.input_sizes

    def call_all(self) -> None:
        """Make a node of every step."""
        for step in self._exported.steps:
            positional = [get(self._values, _CPU) for get in step.positional]
            named = {name: get(self._values, _CPU) for name, get in step.named}
            node = self._call(step, positional, named)
            node.meta["modules"] = tuple(map(_clean, step.modules))
            lists = step.outputs[0].get("as_tensors")
            count = len(step.outputs if lists is None else lists)
            several = lists is not None or count > 1
            step.assign(
                [self._part(node, index) for index in range(count)] if several else node, self._values
            )
            for name in step.results:
                self._values[name].meta["sizes"] = self._exported.sizes.get(name)
        self.graph.output(self._values[self._exported.output_name])
        self.graph.eliminate_dead_code(_is_needed)

    def _part(self, node: fx.Node, index: int) -> fx.Node:
        part = self.graph.call_function(operator.getitem, (node, index))
        part.meta["modules"] = node.meta["modules"]
        return part

    def _call(self, step: Step, positional: list[Any], named: dict[str, Any]) -> fx.Node:
        function = step.function
        if isinstance(function, torch._ops.OpOverload):
            if function._schema.name in _TAKEN_APART:
                raise ValueError(f"{function} is part of a layer that run_decompositions took apart")
            given = _bound(function, positional, named)
            entering, build = given.get("input"), _LAYERS.get(function._schema.name)
            if build is not None and isinstance(entering, fx.Node) and isinstance(given["weight"], _Stored):
                layer = self._layer(build, given, len(entering.meta["sizes"]))
                return self.graph.call_module(layer, (entering,))
            if function._schema.name in _RESHAPES:
                positional[1] = self._opened(positional[1], self._exported.sizes[next(iter(step.results))])
            elif function._schema.name == "aten::expand" and positional[1][0] == self._batch:
                count = self.graph.call_function(torch.ops.aten.sym_size.int, (self._images, 0))
                positional[1] = [count, *positional[1][1:]]
        arguments, options = fx.node.map_aggregate((tuple(positional), named), self._in_graph)
        return self.graph.call_function(function, arguments, options)

    def _layer(self, build: Callable[..., nn.Module], given: Mapping[str, Any], rank: int) -> str:
        """The name of the layer that a call is of; the same for the second call of one."""
        stored = {name: value for name, value in given.items() if isinstance(value, _Stored)}
        others = {name: value for name, value in given.items() if name not in stored and name != "input"}
        key = (build, tuple(each.name for each in stored.values()), repr(others), rank)
        if key not in self._layers:
            layer = build({**others, **{name: each.tensor for name, each in stored.items()}}, rank)
            for name, each in stored.items():
                if isinstance(getattr(layer, name), nn.Parameter):
                    setattr(layer, name, self._parameter(each))
                else:
                    setattr(layer, name, each.tensor.clone())
            own = _clean(self._exported.qualified[stored["weight"].name])
            self._layers[key] = self._put(re.sub(r"[._]?weight$", "", own) or "layer", layer)
        return self._layers[key]

    def _parameter(self, stored: _Stored) -> nn.Parameter:
        """One for each tensor, so that layers with common weights keep them in common."""
        if stored.name not in self._parameters:
            self._parameters[stored.name] = nn.Parameter(stored.tensor.clone(), requires_grad=False)
        return self._parameters[stored.name]

    def _in_graph(self, value: Any) -> Any:
        """A stored tensor that no layer takes, as a value of the graph."""
        if not isinstance(value, _Stored):
            return value
        key = ("tensor", value.name)
        if key not in self._layers:
            learns = value.name in self._exported.parameters
            tensor = self._parameter(value) if learns else value.tensor.clone()
            self._layers[key] = self._put(_clean(self._exported.qualified[value.name]), tensor)
        return self.graph.get_attr(self._layers[key])

    def _put(self, name: str, value: nn.Module | Tensor) -> str:
        *parents, last = name.split(".")
        around = self.root
        for parent in parents:
            if not isinstance(getattr(around, parent, None), nn.Module):
                around.add_module(parent, nn.Module())
            around = around.get_submodule(parent)
        while hasattr(around, last):
            last += "_"
        if isinstance(value, nn.Module):
            around.add_module(last, value)
        elif isinstance(value, nn.Parameter):
            around.register_parameter(last, value)
        else:
            around.register_buffer(last, value)
        return ".".join([*parents, last])

    def _opened(self, sizes: Any, given: tuple[int | None, ...]) -> Any:
        """Sizes of a reshape with -1 in place of what depends on the batch size, or of that size itself."""
        if given.count(None) == 1:
            return [-1 if size is None else size for size in given]
        return [-1, *given[1:]] if None not in given and given[0] == self._batch else sizes


def _is_needed(node: fx.Node) -> bool:
    """Whether a node does something even if nobody uses what it gives."""
    in_place = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
    return in_place or node.op in ("placeholder", "output")


def _clean(name: str) -> str:
    """A name from a file, as it may stand in the source that torch.fx makes of a graph."""
    return ".".join(re.sub(r"[^A-Za-z0-9_]", "_", part) or "_" for part in name.split("."))


def _bound(function: Any, positional: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by their names, with the defaults of those that are not given."""
    arguments = function._schema.arguments
    given = dict(zip((each.name for each in arguments), positional, strict=False)) | dict(named)
    return {each.name: given.get(each.name, each.default_value) for each in arguments}


def _convolution(given: Mapping[str, Any], _: int) -> nn.Module:
    weight: Tensor = given["weight"]
    dimensions = weight.dim() - 2
    if given.get("transposed"):
        raise ValueError("transposed convolutions are not turned back into layers")

    def each(value: Sequence[int]) -> tuple[int, ...]:
        return tuple(value) * (dimensions // len(value))

    return _CONVOLUTIONS[dimensions](
        weight.shape[1] * given["groups"],
        weight.shape[0],
        tuple(weight.shape[2:]),  # type: ignore[arg-type]
        each(given["stride"]),  # type: ignore[arg-type]
        each(given["padding"]),  # type: ignore[arg-type]
        each(given["dilation"]),  # type: ignore[arg-type]
        given["groups"],
        given["bias"] is not None,
    )


def _linear(given: Mapping[str, Any], _: int) -> nn.Module:
    outputs, inputs = given["weight"].shape
    return nn.Linear(inputs, outputs, given["bias"] is not None)


def _batch_norm(given: Mapping[str, Any], rank: int) -> nn.Module:
    return _NORMS[rank](
        len(given["weight"]),
        given["eps"],
        given["momentum"],
        track_running_stats=given["running_mean"] is not None,
    )


def _layer_norm(given: Mapping[str, Any], _: int) -> nn.Module:
    return nn.LayerNorm(given["normalized_shape"], given["eps"], bias=given["bias"] is not None)


def _group_norm(given: Mapping[str, Any], _: int) -> nn.Module:
    return nn.GroupNorm(given["num_groups"], len(given["weight"]), given["eps"])


_LAYERS: dict[str, Callable[[Mapping[str, Any], int], nn.Module]] = {
    **dict.fromkeys(("aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::convolution"), _convolution),
    "aten::linear": _linear,
    "aten::batch_norm": _batch_norm,
    "aten::layer_norm": _layer_norm,
    "aten::group_norm": _group_norm,
}
"""By the operator's name: makes the layer from its arguments and the dimensions of its input."""


def _nested(root: nn.Module, graph: fx.Graph) -> nn.Module:
    """Modules of what was called as a module, from the inside."""
    names = {name for node in graph.nodes for name in node.meta.get("modules", ())}
    for name in sorted(names, key=lambda each: (-each.count("."), each)):
        _nest(root, graph, name)
    return fx.GraphModule(root, graph)


def _nest(root: nn.Module, graph: fx.Graph, name: str) -> None:
    """Make one node of a module's nodes, if they are a function of one value and stand together."""
    members = [node for node in graph.nodes if name in node.meta.get("modules", ())]
    inside = set(members)
    own = {node for node in graph.nodes if node.op == "get_attr" and inside.issuperset(node.users)}
    entering = {
        given
        for node in members
        for given in node.all_input_nodes
        if given not in inside and given not in own
    }
    leaving = [node for node in members if any(user not in inside for user in node.users)]
    with_names = [node for node in (*members, *own) if node.op in ("call_module", "get_attr")]
    elsewhere = [node for node in graph.nodes if node not in inside and node not in own]
    if (
        len(entering) != 1
        or len(leaving) != 1
        or _is_apart(graph, members)
        or not all(str(node.target).startswith(f"{name}.") for node in with_names)
        or any(str(node.target).startswith(f"{name}.") for node in elsewhere)
    ):
        return
    (given,), (last,) = entering, leaving
    inner = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {given: inner.placeholder("features")}
    for node in graph.nodes:
        if node in inside or node in own:
            copy = copies[node] = inner.node_copy(node, copies.__getitem__)
            if node.op in ("call_module", "get_attr"):
                copy.target = str(node.target).removeprefix(f"{name}.")
    inner.output(copies[last])
    around = _module_at(root, name)
    _set(root, name, _as_sequence(around, inner) or fx.GraphModule(around, inner))
    with graph.inserting_after(last):
        call = graph.call_module(name, (given,))
    call.meta["modules"] = tuple(each for each in last.meta["modules"] if each != name)
    last.replace_all_uses_with(call)
    for node in reversed(list(graph.nodes)):
        if node in inside or node in own:
            graph.erase_node(node)


def _is_apart(graph: fx.Graph, members: Sequence[fx.Node]) -> bool:
    """Whether something else is computed between a module's nodes."""
    order = [node for node in graph.nodes if node.op != "get_attr"]
    first = order.index(members[0])
    return order[first : first + len(members)] != list(members)


def _as_sequence(around: nn.Module, graph: fx.Graph) -> nn.Sequential | None:
    """A graph that calls a module's own modules one after the other, as the sequence that it is."""
    given, *calls, output = graph.nodes
    names = [str(node.target) for node in calls]
    values = [given, *calls]
    chained = all(
        node.op == "call_module" and node.args == (before,)
        for before, node in zip(values, calls, strict=False)
    )
    if not chained or output.args != (values[-1],) or len(set(names)) < len(names) or "." in "".join(names):
        return None
    return nn.Sequential(OrderedDict((name, around.get_submodule(name)) for name in names))


def _module_at(root: nn.Module, name: str) -> nn.Module:
    """A module by its name, made if there is none."""
    for part in name.split("."):
        if not isinstance(getattr(root, part, None), nn.Module):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    return root


def _set(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, module)
