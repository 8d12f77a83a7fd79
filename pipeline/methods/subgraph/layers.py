"""The layers of a network in the order its data flow, and how many channels or heads each of them has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from pipeline.methods.subgraph.attention import Attention

_SIGNS = {"add": "+", "iadd": "+", "mul": "×", "imul": "×", "sub": "-"}


@dataclass(frozen=True)
class GraphLayer:
    """A layer with weights, or a place where several values meet.

    Attributes:
        name: of the layer; empty where values meet.
        around: the module in which it is called; empty for the network itself.
        kind: what it does, in a word.
        after: positions of those whose outputs reach it, with nothing but operations without weights between.
    """

    name: str
    around: str
    kind: str
    after: tuple[int, ...]


def graph_layers(
    network: nn.Module, blocks: Collection[str], beginnings: Collection[str]
) -> tuple[GraphLayer, ...]:
    """The layers of a network, each behind those whose outputs it takes.

    Norms, activations and pooling belong to the layer before them.

    Args:
        network: one that torch.fx can follow, at least where it does not look into the blocks.
        blocks: names of modules; where torch.fx cannot follow one, it counts as a layer.
        beginnings: of units, which count as layers, too.
    """
    graph = _Tracer([name for name in blocks if not _is_followed(network, name)]).trace(network)
    found: list[GraphLayer] = []
    place: dict[fx.Node, int | None] = {}
    for node in graph.nodes:
        before = tuple(dict.fromkeys(p for n in node.all_input_nodes if (p := place[n]) is not None))
        weighted = node.op == "call_module" and (
            str(node.target) in beginnings or _has_weights(network.get_submodule(str(node.target)))
        )
        if node.op == "output" or (not weighted and len(before) < 2):
            place[node] = before[0] if before else None
            continue
        place[node] = len(found)
        if weighted:
            name = str(node.target)
            kind = _kind(network.get_submodule(name))
            found.append(GraphLayer(name, name.rpartition(".")[0], kind, before))
        else:
            found.append(GraphLayer("", _around(node), _operation(node), before))
    return tuple(found)


def parts_of(network: nn.Module) -> Mapping[str, tuple[int, str]]:
    """By name of the layer, how many output channels or heads it has, and which of both."""
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, Attention):
            found[name] = module.heads, "heads"
        elif isinstance(module, nn.modules.conv._ConvNd):
            found[name] = module.out_channels, "channels"
        elif isinstance(module, nn.Linear):
            found[name] = module.out_features, "channels"
    return found


class _Tracer(fx.Tracer):
    """Does not look into modules of torch, attention, and the modules named."""

    def __init__(self, closed: Collection[str]) -> None:
        super().__init__()
        self._closed = frozenset(closed)

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        closed = name in self._closed or isinstance(module, Attention)
        return closed or super().is_leaf_module(module, name)


def _is_followed(network: nn.Module, block: str) -> bool:
    try:
        _Tracer(()).trace(network.get_submodule(block))
    except Exception:  # Tracing runs the user's code with values that are no tensors.
        return False
    return True


def _has_weights(module: nn.Module) -> bool:
    """Whether it is more than a scale of single channels, as norms and activations with parameters are."""
    return any(parameter.dim() > 1 for parameter in module.parameters())


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.modules.conv._ConvNd):
        return f"conv {'x'.join(map(str, module.kernel_size))}"
    if isinstance(module, Attention | nn.MultiheadAttention):
        return "attention"
    return type(module).__name__.strip("_").lower()


def _operation(node: fx.Node) -> str:
    target: Any = node.target
    # Operations of exported graphs have names such as add.Tensor.
    name, _, _ = str(target if isinstance(target, str) else getattr(target, "__name__", target)).partition(
        "."
    )
    return _SIGNS.get(name.strip("_"), name.strip("_"))


def _around(node: fx.Node) -> str:
    scopes = list(node.meta.get("nn_module_stack", {}).values())
    return str(scopes[-1][0]) if scopes else ""
