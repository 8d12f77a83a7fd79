"""Which nodes of an ONNX file the operations of a runtime are, by how runtimes name what they run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from devices.artifacts import OnnxNode
from devices.requests import Operation

_JOINED = re.compile(r" \+ | \|\| ")
"""Between the names of layers that TensorRT runs as one."""
_ADDED = re.compile(r"^(PWN\(|node_of_|fused )+|(\)|_nchwc|_token_\d+|_fused_\w+|/\w+Fusion/?)+$")
"""What runtimes add to a name when they change an operation's layout or join it with others."""
_KINDS = (
    ("conv", re.compile(r"conv(?!ert)", re.IGNORECASE)),
    ("matmul", re.compile(r"matmul|gemm|fullyconnected|matrixmultiply", re.IGNORECASE)),
)
"""What most of the time is spent on, whatever a runtime calls it."""


def nodes_of(nodes: Sequence[OnnxNode], operations: Sequence[Operation]) -> list[int | None]:
    """The position of each operation's node; ``None`` of those that are no node of the file.

    A runtime joins nodes and calls the result by any of them, or by a tensor that it gives: ONNX Runtime
    names a convolution by what its activation gives. So an operation that is of another kind than the node of
    its name is the nearest node of its kind before that.

    Args:
        nodes: of the file, in its order.
        operations: as the runtime tells of them.
    """
    names = _names(nodes)
    makers = {name: position for position, node in enumerate(nodes) for name in node.outputs if name}
    called = [_called(each, names, nodes) for each in operations]
    taken = {position for position in called if position is not None}
    return [
        None if position is None else _of_its_kind(position, operation.kind, nodes, makers, taken)
        for operation, position in zip(operations, called, strict=True)
    ]


def _names(nodes: Sequence[OnnxNode]) -> dict[str, int]:
    """Positions by names: of the nodes, of what they give, and as ONNX Runtime calls those without a name."""
    named: dict[str, int] = {}
    number = 0
    for position, node in enumerate(nodes):
        named |= dict.fromkeys(filter(None, (*node.outputs, node.name)), position)
        # Constants are taken out before it numbers the nodes.
        if node.kind != "Constant":
            if not node.name:
                named.setdefault(f"{node.kind}_{number}", position)
            number += 1
    return named


def _called(operation: Operation, names: Mapping[str, int], nodes: Sequence[OnnxNode]) -> int | None:
    """The node that an operation is called by; of several, the first of its kind."""
    found = [names[name] for name in _spellings(operation.name) if name in names]
    alike = [position for position in found if _kind(nodes[position].kind) == _kind(operation.kind)]
    return next(iter((*alike, *found)), None)


def _spellings(name: str) -> Iterator[str]:
    for part in (name, *_JOINED.split(name)):
        yield part
        yield _ADDED.sub("", part)


def _of_its_kind(
    position: int, kind: str, nodes: Sequence[OnnxNode], makers: Mapping[str, int], taken: set[int]
) -> int:
    """That node, or the nearest before it that is of the kind and of which no operation is called by name."""
    wanted = _kind(kind)
    if wanted not in dict(_KINDS) or _kind(nodes[position].kind) == wanted:
        return position
    seen, waiting = {position}, [position]
    for each in waiting:
        for name in nodes[each].inputs:
            before = makers.get(name)
            if before is None or before in seen or before in taken:
                continue
            if _kind(nodes[before].kind) == wanted:
                return before
            seen.add(before)
            waiting.append(before)
    return position


def _kind(words: str) -> str:
    return next((kind for kind, pattern in _KINDS if pattern.search(words)), words)
