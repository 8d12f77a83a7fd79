"""What can be removed from a network: channels, heads and residual blocks, each proven by removing it once.

Channels that must go together are found by following the graph (torch-pruning's dependency graph). Where a
convolution or a norm has groups, its channels go group by group. What the graph says is not believed: a
structure is removable if the network without it gives the outputs of the network in which it is silenced.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from devices.installing import how_to_install
from pipeline.errors import TeacherError
from pipeline.methods.subgraph.attention import Attention
from pipeline.spaces.teacher.config import Kind, Shape, Structure

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)
"""Layers that scale channels."""

_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
_LAYERS = (*_WEIGHTED, *NORMS)
_LAST_LAYERS = (*_LAYERS, nn.LayerNorm)
"""With which the branch of a block may end."""

_TOLERANCE = 1e-4


def find_structures(network: nn.Module, input_shape: Shape) -> tuple[Structure, ...]:
    """Everything that can be removed: channels in the order of the layers, then heads, then blocks.

    Args:
        network: ``(N, C, H, W)`` to logits ``(N, classes)``; put into evaluation mode, otherwise not changed.
        input_shape: channels, height, width.

    Raises:
        TeacherError: nothing can be removed, or torch-pruning is not installed.
    """
    network.eval()
    images = example_images(network, input_shape)
    found = (*_channels(network, images), *_heads(network, images), *_blocks(network, images))
    if not found:
        raise TeacherError(
            "nothing can be removed from the teacher",
            why="no channels, heads or residual block were found whose removal leaves the rest as it is: its "
            "layers are called several times, have weights that others have too, or all reach the output",
            fix="use a convolutional network built of torch modules, or another method",
        )
    return found


def removed(
    network: nn.Module, input_shape: Shape, structures: Sequence[Structure], kept: Mapping[str, Sequence[int]]
) -> nn.Module:
    """A copy of the network with nothing left of its structures but the parts in ``kept``.

    Args:
        network: as ``find_structures`` saw it.
        input_shape: channels, height, width.
        structures: those that ``kept`` speaks of; others stay whole.
        kept: ascending parts by name of the structure; for a block ``[0]``, or nothing to remove it.

    Raises:
        ValueError: all channels or heads of a structure would be removed, or a part does not exist.
    """
    smaller = copy.deepcopy(network).eval()
    for structure in structures:
        if structure.kind == "block" and not kept.get(structure.name, [0]):
            _replace(smaller, structure.name, nn.Identity())
    graph = None
    for structure in structures:
        parts = set(kept.get(structure.name, range(structure.count)))
        if not parts <= set(range(structure.count)):
            raise ValueError(f"{structure.name} has no such parts: {sorted(parts)}")
        if structure.kind == "block" or len(parts) == structure.count:
            continue
        modules = dict(smaller.named_modules())
        # Some of the layers may lie in blocks that are gone.
        layer = next((modules[name] for name in (structure.name, *structure.gated) if name in modules), None)
        if layer is None:
            continue
        if not parts:
            raise ValueError(f"all {structure.kind} of {structure.name} would be removed")
        gone = sorted(set(range(structure.count)) - parts)
        if isinstance(layer, Attention):
            layer.remove(gone)
            continue
        graph = graph or _dependency_graph(smaller, example_images(smaller, input_shape))
        _remove(graph, structure, layer, gone)
    return smaller


def narrowed_one_by_one(
    network: nn.Module, input_shape: Shape, structures: Sequence[Structure]
) -> Iterator[tuple[Structure, nn.Module]]:
    """A copy of the network from which one more part is gone each time, of one structure of channels or heads
    after the other; it is the same object each time.
    """
    smaller = copy.deepcopy(network).eval()
    modules = dict(smaller.named_modules())
    graph = _dependency_graph(smaller, example_images(smaller, input_shape))
    for structure in structures:
        if structure.kind == "block":
            continue
        layer = modules[structure.name]
        if isinstance(layer, Attention):
            layer.remove([0])
        else:
            _remove(graph, structure, layer, [0])
        yield structure, smaller


def channels_of(layer: nn.Module) -> int:
    """The dimension of a layer's output that its channels are: of tokens ``(N, L, C)`` the last."""
    return -1 if isinstance(layer, nn.Linear) else 1


def spread(factors: Tensor, channels: int) -> Tensor:
    """A factor for each channel of a layer, of one for each of its parts: heads and groups have several."""
    return factors if len(factors) in (1, channels) else factors.repeat_interleave(channels // len(factors))


def example_images(network: nn.Module, input_shape: Shape) -> Tensor:
    """Two images of noise, always the same, on the network's device."""
    images = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0))
    return images.to(next((tensor.device for tensor in network.parameters()), torch.device("cpu")))


def _dependency_graph(network: nn.Module, images: Tensor) -> Any:
    try:
        from pipeline.methods.subgraph.dependencies import GroupedDependencyGraph
    except ModuleNotFoundError as error:
        raise TeacherError(
            "the method subgraph needs torch-pruning",
            why=str(error),
            fix=how_to_install("subgraph"),
        ) from error
    # A dependency graph follows gradients, so parameters must have them while it is built.
    frozen = [parameter for parameter in network.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            return GroupedDependencyGraph().build_dependency(network, example_inputs=images, verbose=False)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _remove(graph: Any, structure: Structure, layer: nn.Module, parts: Sequence[int]) -> None:
    """Remove parts of a layer that has all of them, and everything that hangs on them."""
    pruner = graph.get_pruner_of_module(layer)
    each = pruner.get_out_channels(layer) // structure.count
    channels = [part * each + channel for part in parts for channel in range(each)]
    graph.get_pruning_group(layer, pruner.prune_out_channels, channels).prune()


def _proven(network: nn.Module, images: Tensor, structures: Sequence[Structure]) -> list[Structure]:
    """Those that can be removed: all at once if that works, else each tried alone."""
    if len(structures) > 1 and _is_proven(network, images, structures):
        return list(structures)
    return [each for each in structures if _is_proven(network, images, [each])]


def _channels(network: nn.Module, images: Tensor) -> list[Structure]:
    graph = _dependency_graph(network, images)
    from pipeline.methods.subgraph.dependencies import channels_of_group

    names = {module: name for name, module in network.named_modules()}
    shared = _with_shared_weights(network)
    _, order = _calls(network, images)
    of_heads = {f"{name}.{layer}" for name in _attentions(network) for layer in ("queries", "keys", "values")}
    found = []
    for group in graph.get_all_groups(root_module_types=[*_WEIGHTED]):
        producers = {
            member.dep.target.module
            for member in group
            if "out" in member.dep.handler.__name__ and isinstance(member.dep.target.module, _LAYERS)
        }
        called = sorted(
            (names[each] for each in producers if names.get(each) in order), key=order.__getitem__
        )
        weighted = [name for name in called if isinstance(network.get_submodule(name), _WEIGHTED)]
        touched = {member.dep.target.module for member in group}
        if (weighted and weighted[0] in of_heads) or not shared.isdisjoint(touched):
            continue
        ends = _ends(graph, producers)
        gated = tuple(name for name in called if network.get_submodule(name) in ends)
        size = math.lcm(*(channels_of_group(module) for module in touched))
        count, rest = divmod(len(group[0].idxs), size)
        if weighted and gated and count > 1 and not rest:
            kind: Kind = "channels" if size == 1 else "groups"
            found.append(Structure(weighted[0], kind, count, gated))
    found.sort(key=lambda each: order[each.name])
    alone = [each for each in found if len(each.gated) == 1]
    coupled = [each for each in found if len(each.gated) > 1]
    proven = {*_proven(network, images, alone), *_proven(network, images, coupled)}
    return [each for each in found if each in proven]


def _with_shared_weights(network: nn.Module) -> Set[nn.Module]:
    """Modules of which a parameter is another's, too: neither a gate nor a removal may change it."""
    owners: dict[nn.Parameter, set[nn.Module]] = {}
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(parameter, set()).add(module)
    return {module for each in owners.values() if len(each) > 1 for module in each}


def _attentions(network: nn.Module) -> dict[str, Attention]:
    return {name: module for name, module in network.named_modules() if isinstance(module, Attention)}


def _heads(network: nn.Module, images: Tensor) -> list[Structure]:
    """Heads of attention: a head without values adds nothing to the tokens."""
    found = [
        Structure(name, "heads", attention.heads, (f"{name}.values",))
        for name, attention in _attentions(network).items()
        if attention.heads > 1
    ]
    return _proven(network, images, found)


def _ends(graph: Any, producers: Set[nn.Module]) -> Set[nn.Module]:
    """Layers of a group after which its channels leave it; norms alone where there are some."""

    def stays(follower: nn.Module) -> bool:
        pruner = graph.get_pruner_of_module(follower)
        return follower in producers and pruner.prune_in_channels == pruner.prune_out_channels

    ends = {
        module
        for module in producers
        if not (followers := list(_followers(graph.module2node[module]))) or not all(map(stays, followers))
    }
    return {module for module in ends if isinstance(module, NORMS)} or ends


def _followers(node: Any) -> Iterator[nn.Module]:
    """The next layers after a node, whatever operations lie between."""
    waiting, seen = list(node.outputs), set()
    while waiting:
        following = waiting.pop()
        if following in seen:
            continue
        seen.add(following)
        if isinstance(following.module, _LAYERS):
            yield following.module
        else:
            waiting += following.outputs


def _is_proven(network: nn.Module, images: Tensor, structures: Sequence[Structure]) -> bool:
    """Whether the network without some parts equals the one in which these parts are silenced: without every
    second one, and without the first alone, for layers may demand that numbers of channels can be divided.
    """
    if not _equal(network, images, structures, lambda part: part % 2 == 1):
        return False
    of_parts = [each for each in structures if each.count > 2]
    return not of_parts or _equal(network, images, of_parts, lambda part: part > 0)


def _equal(
    network: nn.Module, images: Tensor, structures: Sequence[Structure], stays: Callable[[int], bool]
) -> bool:
    kept = {each.name: [part for part in range(each.count) if stays(part)] for each in structures}
    channels, height, width = images.shape[1:]
    try:
        smaller = removed(network, (channels, height, width), structures, kept)
        with torch.no_grad(), _silenced(network, structures, kept):
            silenced = network(images)
        with torch.no_grad():
            outputs = smaller(images)
    except Exception:  # The graph may be wrong in any way; such a structure is left alone.
        return False
    if outputs.shape != silenced.shape or not torch.isfinite(silenced).all():
        return False
    return bool((outputs - silenced).abs().max() <= _TOLERANCE * (1 + silenced.abs().max()))


@contextmanager
def _silenced(
    network: nn.Module, structures: Sequence[Structure], kept: Mapping[str, Sequence[int]]
) -> Iterator[None]:
    """Inside, the outputs of parts that are not kept are zero."""

    def silence(structure: Structure) -> Any:
        factors = torch.zeros(structure.count)
        factors[list(kept[structure.name])] = 1

        def hook(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
            channels = output.movedim(channels_of(layer), -1)
            spoken = channels * spread(factors, channels.shape[-1]).to(output.device)
            return spoken.movedim(-1, channels_of(layer))

        return hook

    handles = [
        network.get_submodule(name).register_forward_hook(silence(each))
        for each in structures
        for name in each.gated
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _blocks(network: nn.Module, images: Tensor) -> list[Structure]:
    """Modules that add something to their input and can be replaced by nothing; the outermost of each."""
    shapes, order = _calls(network, images)
    sharing = _with_shared_weights(network)
    shared = {name for name, module in network.named_modules() if module in sharing}
    found = list[Structure]()
    for name, module in network.named_modules():
        inside = any(name.startswith(f"{outer.name}.") for outer in found)
        layers = [
            child
            for child, layer in module.named_modules(prefix=name)
            if isinstance(layer, _LAST_LAYERS) and child in order
        ]
        given, gave = shapes.get(name, (None, None))
        wrapped = isinstance(module, nn.Sequential) and len(module) == 1
        if not name or inside or wrapped or len(layers) < 2 or given is None or given != gave:
            continue
        for ends in _branch_ends(module, name, layers, order):
            structure = Structure(name, "block", 1, ends)
            if shared.isdisjoint(ends) and _is_proven(network, images, [structure]):
                found.append(structure)
                break
    return found


def _branch_ends(
    module: nn.Module, name: str, layers: Sequence[str], order: Mapping[str, int]
) -> Iterator[tuple[str, ...]]:
    """Layers that may be all that adds to the input of a block: the last one; or, where two branches follow
    each other as in a transformer's layer, the last one of each child. A sequence of blocks is none itself.
    """
    yield (max(layers, key=order.__getitem__),)
    if isinstance(module, nn.Sequential):
        return
    last = {}
    for child, _ in module.named_children():
        inside = [
            layer for layer in layers if layer == f"{name}.{child}" or layer.startswith(f"{name}.{child}.")
        ]
        if inside:
            last[child] = max(inside, key=order.__getitem__)
    if len(last) > 1:
        yield tuple(sorted(last.values(), key=order.__getitem__))


def _calls(
    network: nn.Module, images: Tensor
) -> tuple[dict[str, tuple[torch.Size, torch.Size]], dict[str, int]]:
    """Shapes of input and output of modules called once with one tensor, and the order of the calls' ends."""
    shapes: dict[str, tuple[torch.Size, torch.Size]] = {}
    order: dict[str, int] = {}
    repeated = set[str]()

    def note(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if name in order:
                repeated.add(name)
            order[name] = len(order)
            if len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                shapes[name] = (inputs[0].shape, output.shape)

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules()]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return {name: shape for name, shape in shapes.items() if name not in repeated}, order


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
