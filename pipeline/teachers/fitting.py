"""State dicts put into networks: names may have prefixes, but all of a network's must be there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from pipeline.errors import TeacherError

Tell = Callable[[str], None]

_COMPILED = re.compile(r"(^|\.)_orig_mod\.")
_COUNTER = ".num_batches_tracked"
_SHOWN = 6


def fit_weights(
    network: nn.Module, weights: Mapping[str, Tensor], source: str, tell: Tell = lambda line: None
) -> None:
    """Load weights in place: every name and shape must match (BatchNorm's batch counters may be absent).

    Names may have a prefix that the network's have not, such as ``module.`` of data-parallel training or
    ``model.`` of Lightning, or lack one that all of the network's have: the one with which everything fits is
    found. What a checkpoint has beside that prefix is left out, and given to ``tell``.

    Raises:
        TeacherError: lists missing names, unexpected names, and shapes that differ; or the prefixes, if
            there are several with which everything fits.
    """
    own = network.state_dict()
    if not any(_COMPILED.search(name) for name in own):
        # torch.compile puts its name before those of whatever was compiled, the whole or a part.
        weights = {_COMPILED.sub(r"\1", name): tensor for name, tensor in weights.items()}
    outer = _common_prefix(own)
    bare = {name.removeprefix(outer): tensor for name, tensor in own.items()}
    prefixes = [each for each in _candidates(weights, bare) if _fits(weights, bare, each)]
    if len(prefixes) > 1:
        raise TeacherError(
            f"{source} holds the network's weights more than once, and it is not clear which are meant",
            why=f"it fits the names that begin with {' and those with '.join(map(repr, prefixes))}; one with "
            "'ema' in its name is a moving average, often the better one",
            fix=f"choose one, e.g. weights_key = '{max(prefixes, key=len).rstrip('.')}'; in lathe compile by "
            "--weights-key",
        )
    prefix = prefixes[0] if prefixes else _common_prefix(weights)
    below = {
        outer + name.removeprefix(prefix): each for name, each in weights.items() if name.startswith(prefix)
    }
    _require_fit(below, own, source)
    left_out = [name for name in weights if not name.startswith(prefix)]
    if left_out:
        tell(
            f"weights      {source}: those below '{prefix}' are taken, {len(left_out)} others are not: "
            f"{_listed(left_out)}"
        )
    network.load_state_dict({**own, **below})


def _candidates(weights: Mapping[str, Tensor], bare: Mapping[str, Tensor]) -> list[str]:
    """Prefixes under which there is a name like one that the network has."""
    first = next((name for name in bare if not name.endswith(_COUNTER)), None)
    if first is None:
        return []
    found = [name.removesuffix(first) for name in weights if name.endswith(first)]
    return [each for each in found if not each or each.endswith(".")]


def _fits(weights: Mapping[str, Tensor], bare: Mapping[str, Tensor], prefix: str) -> bool:
    return all(
        name.endswith(_COUNTER) or (prefix + name in weights and weights[prefix + name].shape == tensor.shape)
        for name, tensor in bare.items()
    )


def _require_fit(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    missing = [name for name in own if name not in weights and not name.endswith(_COUNTER)]
    unexpected = [name for name in weights if name not in own]
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(problems.values()):
        raise TeacherError(
            f"{source} does not fit the network",
            why="; ".join(f"{kind}: {_listed(names)}" for kind, names in problems.items() if names),
            fix="use the network that the weights were saved from: its depth, width and number of classes",
        )


def _common_prefix(names: Mapping[str, Tensor]) -> str:
    """What all names begin with, up to a dot; the last part of a name is never in it."""
    shared: list[str] = []
    for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "".join(f"{part}." for part in shared)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
