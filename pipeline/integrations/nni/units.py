"""Where a model space is cut into units, the pieces that are measured alone.

A module is cut into its children where that leaves fewer variants to measure. So a choice of three layers and
the activation behind it are one unit of three variants; two such choices are two units and not one of nine.
A fixed module is one unit. The space itself is always cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nni.mutable import Categorical, Mutable
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableModule, Repeat
from torch import nn

from pipeline.integrations.nni.errors import NniError
from pipeline.spaces.base import Choice

Sample = Mapping[str, Choice]
"""An NNI sample: one choice for each label."""

Step = tuple[Literal["child", "candidate", "layer"], Choice]


@dataclass(frozen=True)
class Unit:
    """A piece of a space, by its place.

    Attributes:
        path: steps to it from the space: into a child, a candidate of a LayerChoice, a layer of a Repeat.
        above: labels of the mutables that decide whether it is there.
        labels: of the mutables inside it.
        variants: how many modules the mutables inside it make.
    """

    path: tuple[Step, ...]
    above: tuple[str, ...]
    labels: tuple[str, ...]
    variants: int

    def __str__(self) -> str:
        return ".".join(str(key) for _, key in self.path)


def mutables_of(space: ModelSpace) -> dict[str, Categorical]:
    """The mutables of a space by label.

    Raises:
        NniError: one is of a kind whose latency cannot be tabulated, or there is none.
    """
    found: dict[str, Categorical] = space.simplify()
    for label, mutable in found.items():
        if not isinstance(mutable, Categorical):
            raise NniError(
                f"the mutable '{label}' cannot be profiled: it is a {type(mutable).__name__}",
                why="a table has a latency for each choice, so every mutable has to be a Categorical, "
                "as those of LayerChoice, Repeat and nni.choice are",
                fix=f"make '{label}' an nni.choice of a few values, or leave it out of the space",
            )
        strange = [value for value in mutable.values if not isinstance(value, Choice)]
        if strange:
            raise NniError(
                f"the mutable '{label}' cannot be profiled: one of its choices is {strange[0]!r}",
                why="choices have to be numbers, strings or truth values",
                fix=f"give '{label}' the positions in a list as its choices",
            )
    if not found:
        raise NniError(
            "the model space has nothing to choose", fix="add a LayerChoice, a Repeat or an nni.choice"
        )
    return found


def cut(space: ModelSpace) -> list[Unit]:
    """The units of a space, none inside another."""
    return _pieces(space, (), ())


def template(unit: Unit, space: ModelSpace) -> nn.Module:
    """The module of the space that stands at the unit's place."""
    module: Any = space
    for kind, key in unit.path:
        match kind:
            case "candidate":
                module = module[key]
            case "layer":
                module = module.blocks[key]
            case "child":
                module = getattr(module, str(key))
    found: nn.Module = module
    return found


def resolve(unit: Unit, space: ModelSpace, network: nn.Module, sample: Sample) -> nn.Module | None:
    """The module that stands at the unit's place in a network; ``None`` if the network has no such place.

    Args:
        unit: of the space.
        space: as it was cut.
        network: ``space.freeze(sample)``.
        sample: the network's.
    """
    passed: Any = space
    module: Any = network
    for kind, key in unit.path:
        match kind:
            case "candidate":
                if sample[passed.label] != key:
                    return None
                passed = passed[key]
            case "layer":
                if int(key) >= len(module):
                    return None
                passed, module = passed.blocks[key], module[key]
            case "child":
                passed, module = getattr(passed, str(key)), getattr(module, str(key))
    found: nn.Module = module
    return found


def _cut(module: nn.Module, path: tuple[Step, ...], above: tuple[str, ...]) -> list[Unit]:
    pieces = _pieces(module, path, above)
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):  # holds modules and is never run itself
        return pieces
    inside = _mutables_inside(module)
    whole = Unit(path, above, tuple(inside), math.prod(map(len, inside.values())))
    return pieces if pieces and sum(piece.variants for piece in pieces) < whole.variants else [whole]


def _pieces(module: nn.Module, path: tuple[Step, ...], above: tuple[str, ...]) -> list[Unit]:
    return [
        unit
        for step, part, deciding in _parts(module)
        for unit in _cut(part, (*path, step), (*above, *deciding))
    ]


def _parts(module: nn.Module) -> Iterator[tuple[Step, nn.Module, tuple[str, ...]]]:
    """The parts that a frozen module still has, with the labels that decide whether it has them."""
    if isinstance(module, LayerChoice):
        for value in module.choice.values:
            yield ("candidate", value), module[value], (module.label,)
    elif isinstance(module, Repeat):
        depth = tuple(module.depth_choice.simplify()) if isinstance(module.depth_choice, Mutable) else ()
        for index, layer in enumerate(module.blocks):
            yield ("layer", index), layer, depth if index >= module.min_depth else ()
    elif not isinstance(module, MutableModule) or type(module).freeze is MutableModule.freeze:
        for name, child in module.named_children():
            yield ("child", name), child, ()


def _mutables_inside(module: nn.Module) -> dict[str, Categorical]:
    if isinstance(module, MutableModule):
        inside: dict[str, Categorical] = module.simplify()
        return inside
    found: dict[str, Categorical] = {}
    for _, child in MutableModule.named_mutable_descendants(module):
        found |= child.simplify()
    return found
