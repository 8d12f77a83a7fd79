"""A teacher cut into blocks: the features at the end of each block, batch by batch.

The teacher is always in evaluation mode, and frozen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from devices.digests import value_digest
from pipeline.distill.tracing import Capture, CutPoint, Tracer
from pipeline.errors import TeacherError
from pipeline.spaces.dna.config import Shape
from pipeline.teachers.teacher import AdaptedNetwork

_FEWEST_CONVOLUTIONS = 2
_FEWEST_BLOCKS = 2
_SHOWN = 12


class CutTeacher:
    """A teacher and where its blocks end.

    Attributes:
        shapes: channels, height, width at the end of each block.
        digest: over the teacher's weights and the cuts.

    Args:
        network: preprocessed ``(N, C, H, W)`` to logits; put into evaluation mode.
        cuts: the ends of the blocks, in order.
    """

    def __init__(self, network: nn.Module, cuts: Sequence[CutPoint]) -> None:
        self._network = network.eval().requires_grad_(False)
        self._calls = tuple(cut.call for cut in cuts)
        self.shapes: tuple[Shape, ...] = tuple(cut.shape for cut in cuts)
        self.digest = value_digest([_digest_of(network), self._calls, self.shapes])

    def features(self, images: Tensor, blocks: int | None = None) -> list[Tensor]:
        """The features at the ends of the first blocks, ``(N, C, H, W)`` each; nothing after is computed.

        Args:
            images: ``(N, C, H, W)`` preprocessed, on any device; the teacher is moved there.
            blocks: how many; all if None.
        """
        self._network.to(images.device).eval()
        return Capture(self._calls[:blocks]).run(self._network, images)


def cut_teacher(network: nn.Module, input_shape: Shape, cuts: Sequence[str] | None = None) -> CutTeacher:
    """Cut a teacher into blocks.

    Without names, a block ends at the last value of each size of features from which alone the rest of the
    network is computed. A size with fewer than two convolutions, such as a stem's, is joined with the next.
    This needs no names, so it works for exported graphs too, if they take batches of any size.

    Args:
        network: preprocessed ``(N, C, H, W)`` to logits, such as ``Teacher.module``.
        input_shape: channels, height, width of the images.
        cuts: names of modules, in the order they run, each of which ends a block.

    Raises:
        TeacherError: no two blocks were found, or a name is of no module, or of one that does not give a
            single map of features once per image.
    """
    network.eval()
    images = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0))
    images = images.to(next((tensor.device for tensor in network.parameters()), "cpu"))
    tracer = Tracer(images)
    if cuts is not None:
        return CutTeacher(network, _named(network, images, tracer, cuts))
    with torch.no_grad(), tracer:
        network(images)
    ends = _stage_ends(tracer.cuts())
    if len(ends) < _FEWEST_BLOCKS:
        raise TeacherError(
            f"the teacher cannot be cut into blocks: {len(ends)} found",
            why="looked for maps of features that all later layers depend on alone, the last of each size, "
            "with two convolutions or more between them; an ensemble has none, nor has a graph that was "
            "exported for one batch size",
            fix=f"name the modules that end a block (cuts = [...]) among {_names(_inner(network))}; take "
            "one network of an ensemble; export a graph with "
            'dynamic_shapes={0: torch.export.Dim("batch")}',
        )
    return CutTeacher(network, ends)


def _stage_ends(found: Sequence[CutPoint]) -> list[CutPoint]:
    ends: list[CutPoint] = []
    for position, cut in enumerate(found):
        if position + 1 < len(found) and found[position + 1].shape[1:] == cut.shape[1:]:
            continue
        before = ends[-1].convolutions if ends else 0
        if cut.convolutions - before >= _FEWEST_CONVOLUTIONS:
            ends.append(cut)
    return ends


def _named(network: nn.Module, images: Tensor, tracer: Tracer, names: Sequence[str]) -> list[CutPoint]:
    modules = dict(_inner(network).named_modules())
    unknown = [name for name in names if name not in modules or not name]
    if unknown or not names:
        raise TeacherError(
            f"the teacher has no module {', '.join(unknown)}" if names else "no module is named to cut at",
            fix=f"name modules among {_names(_inner(network))}",
        )
    seen: dict[str, list[CutPoint | None]] = {name: [] for name in names}

    def note(name: str) -> Any:
        def hook(_: nn.Module, arguments: Any, output: Any) -> None:
            call = tracer.call_of(output) if isinstance(output, Tensor) else None
            seen[name].append(None if call is None else tracer.cut_at(call))

        return hook

    handles = [modules[name].register_forward_hook(note(name)) for name in names]
    try:
        with torch.no_grad(), tracer:
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    ends: list[CutPoint] = []
    for name, cuts in seen.items():
        cut = cuts[0] if len(cuts) == 1 else None
        if cut is None or (ends and cut.call <= ends[-1].call):
            raise TeacherError(
                f"the teacher cannot be cut after its module {name}",
                why="a block ends with a module that runs once, gives one map of features (N, C, H, W), and "
                "runs after the modules named before it",
                fix=f"name other modules among {_names(_inner(network))}",
            )
        ends.append(cut)
    return ends


def _inner(network: nn.Module) -> nn.Module:
    """The network as it was given, without what adapts it to the data."""
    return network.network if isinstance(network, AdaptedNetwork) else network


def _names(network: nn.Module) -> str:
    names = [name for name, _ in network.named_modules() if name and name.count(".") < 2]
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")


def _digest_of(network: nn.Module) -> str:
    """Over all parameters and buffers, those that are not saved included."""
    digest = hashlib.sha256()
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
