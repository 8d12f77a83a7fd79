"""Feature maps of a network: which there are, which of two networks belong together, and watching them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.distill.tracing import Tracer
from pipeline.errors import TeacherError

_SHOWN = 12
_TRACED = 2
_AT_ONCE = 8


@dataclass(frozen=True)
class FeatureMap:
    """The output ``(N, channels, height, width)`` of a module, by the module's name.

    Attributes:
        passage: all that follows is computed from this map alone, and it is the last such map before the
            next convolution: the end of a residual block, or of a convolution with its normalisation and
            activation in a plain row.
        mean: of all values of a passage, over the images that it was found with.
        std: their standard deviation; 1 for a map of one value.
        member: of an ensemble, by number.
    """

    name: str
    channels: int
    height: int
    width: int
    passage: bool = False
    mean: float = field(default=0.0, compare=False)
    std: float = field(default=1.0, compare=False)
    member: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


@dataclass(frozen=True)
class MapPair:
    """Two feature maps of one spatial size."""

    student: FeatureMap
    teacher: FeatureMap


def feature_maps(network: nn.Module, images: Tensor) -> tuple[FeatureMap, ...]:
    """The maps of every module that runs once, in the order in which they are finished.

    Maps of a single pixel are left out: they are pooled, as those of gates are.

    Args:
        network: is run in eval mode, and is left in the mode that it was in.
        images: ``(N, C, H, W)``, on the network's device.
    """
    found: list[FeatureMap] = []
    calls: dict[str, int | None] = {}
    entered: dict[str, set[int | None]] = {}
    traced = images[:_TRACED]
    tracer = Tracer(traced)

    def begin(name: str, inputs: tuple[Any, ...]) -> None:
        entered[name] = {tracer.call_of(each) for each in inputs if isinstance(each, Tensor)}

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and max(output.shape[2:]) > 1:
            found.append(FeatureMap(name, *output.shape[1:]))
            call = tracer.call_of(output)
            # What a module only hands on, as nn.Identity does, is the map of another.
            calls[name] = None if call in entered[name] else call

    mode = network.training
    with ExitStack() as hooks, torch.no_grad():
        for name, module in network.named_modules():
            if name:
                before = module.register_forward_pre_hook(lambda _m, inputs, name=name: begin(name, inputs))
                after = module.register_forward_hook(lambda _m, _i, output, name=name: note(name, output))
                hooks.callback(before.remove)
                hooks.callback(after.remove)
        network.eval()
        with tracer:
            network(traced)
    runs = Counter(each.name for each in found)
    once = [each for each in found if runs[each.name] == 1]
    passages = _passages(tracer, {each.name: calls[each.name] for each in once})
    maps = _with_statistics(network, [replace(each, passage=each.name in passages) for each in once], images)
    network.train(mode)
    return tuple(maps)


def _passages(tracer: Tracer, calls: Mapping[str, int | None]) -> set[str]:
    """Names of the modules whose maps are passages; of several that give one map, one."""
    names: dict[int, list[str]] = {}
    for name, call in calls.items():
        if call is not None:
            names.setdefault(call, []).append(name)
    last = {cut.convolutions: cut.call for cut in tracer.cuts() if cut.call in names}
    kept = {call: names[call] for convolutions, call in last.items() if convolutions}
    return {_outermost(own, [each for call in kept for each in kept[call][:1]]) for own in kept.values()}


def _outermost(own: Sequence[str], innermost: Sequence[str]) -> str:
    """The largest of the modules that give one map which holds none that gives another."""
    others = [each for each in innermost if each != own[0]]
    fitting = [name for name in own if not any(each.startswith(f"{name}.") for each in others)]
    return min(fitting, key=lambda name: name.count("."), default=own[0])


def _with_statistics(network: nn.Module, maps: list[FeatureMap], images: Tensor) -> list[FeatureMap]:
    passages = [each.name for each in maps if each.passage]
    moments: dict[str, list[tuple[int, float, float]]] = {name: [] for name in passages}
    with watched(network, passages) as outputs, torch.no_grad():
        for batch in torch.split(images, _AT_ONCE):
            network(batch)
            for name in passages:
                # After the whole run, because a later module may change a map in place.
                values = outputs[name].double()
                moments[name].append((values.numel(), float(values.sum()), float(values.square().sum())))
    return [_described(each, moments.get(each.name)) for each in maps]


def _described(each: FeatureMap, moments: Sequence[tuple[int, float, float]] | None) -> FeatureMap:
    if moments is None:
        return each
    count, total, squares = map(sum, zip(*moments, strict=True))
    mean = total / count
    std = max(0.0, squares / count - mean**2) ** 0.5
    return replace(each, mean=mean, std=std or 1.0)


def paired(
    student: Sequence[FeatureMap],
    teacher: Sequence[FeatureMap],
    student_layers: Sequence[str] | None = None,
    teacher_layers: Sequence[str] | None = None,
) -> tuple[MapPair, ...]:
    """Maps of the named layers in their order; without names, the last map of each size that both have.

    Raises:
        TeacherError: a layer has no feature map, two maps differ in size, or no size is common.
    """
    if student_layers is not None and teacher_layers is not None:
        ours = [_named(name, student, "student") for name in student_layers]
        theirs = [_named(name, teacher, "teacher") for name in teacher_layers]
        pairs = tuple(map(MapPair, ours, theirs))
        for pair in pairs:
            if pair.student.size != pair.teacher.size:
                raise TeacherError(
                    f"the feature maps of '{pair.student.name}' and '{pair.teacher.name}' differ in size",
                    why=f"the student's is {_text(pair.student)}, the teacher's {_text(pair.teacher)}",
                    fix="name layers whose maps have the same height and width",
                )
        return pairs
    last_ours, last_theirs = ({each.size: each for each in maps} for maps in (student, teacher))
    pairs = tuple(MapPair(ours, last_theirs[size]) for size, ours in last_ours.items() if size in last_theirs)
    if not pairs:
        raise no_common_size(last_ours, last_theirs)
    return pairs


def no_common_size(ours: Iterable[tuple[int, int]], theirs: Iterable[tuple[int, int]]) -> TeacherError:
    """The error where maps of a student and its teacher cannot be compared; heights and widths of both."""
    return TeacherError(
        "teacher and student have no feature maps of the same size",
        why=f"the student's are {_sizes(ours)}; the teacher's {_sizes(theirs)}",
        fix="use a loss on logits, such as soft_targets, or a teacher that takes the images at their "
        "size; of an exported graph (kind 'pt2') no layer can be seen, use kind 'factory' with weights",
    )


@contextmanager
def watched(network: nn.Module, names: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
    """While the block runs, the latest outputs of the named modules, by name."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            outputs[name] = output

        return hook

    with ExitStack() as hooks:
        for name in dict.fromkeys(names):
            hooks.callback(network.get_submodule(name).register_forward_hook(keep(name)).remove)
        yield outputs


def _named(name: str, maps: Sequence[FeatureMap], whose: str) -> FeatureMap:
    for each in maps:
        if each.name == name:
            return each
    names = ", ".join(f"{each.name} ({_text(each)})" for each in maps[:_SHOWN]) or "none"
    raise TeacherError(
        f"the {whose} has no feature map '{name}'",
        why=f"its maps are {names}" + (" and others" if len(maps) > _SHOWN else ""),
        fix=f"correct '{whose}_layers', or leave both lists out",
    )


def _text(each: FeatureMap) -> str:
    return f"{each.channels}x{each.height}x{each.width}"


def _sizes(maps: Iterable[tuple[int, int]]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in maps) or "none"
