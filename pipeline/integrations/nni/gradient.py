"""A gradient for the expectation penalty of NNI's differentiable strategies.

NNI 3.0 hands the penalty the probabilities of the choices as plain numbers: its supernet modules export them
by ``tolist``. So the penalty is added to the loss and moves no architecture parameter. Here they are tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from nni.nas.strategy import DARTS
from torch import nn

Strategy = TypeVar("Strategy", bound=DARTS)


def with_penalty_gradient(strategy: Strategy) -> Strategy:
    """The same strategy, whose penalty moves its architecture parameters.

    Args:
        strategy: ``DARTS``, ``GumbelDARTS`` or ``Proxyless`` with an ``ExpectationProfilerPenalty``; it is
            changed in place, and must not have been given to an experiment yet.

    Returns:
        ``strategy``.
    """
    configure: Callable[[Any], Any] = strategy.configure_oneshot_module

    def configured(training_module: Any) -> Any:
        module = configure(training_module)
        export = module.export_probs
        module.export_probs = lambda: _as_tensors(module, export())
        return module

    strategy.configure_oneshot_module = configured
    return strategy


def _as_tensors(module: Any, probabilities: dict[str, dict[Any, Any]]) -> dict[str, dict[Any, Any]]:
    """The same probabilities, by label and choice, from the architecture parameters of a supernet."""
    found: dict[str, dict[Any, Any]] = {}
    for mixed in module.supernet_modules():
        parameters = getattr(mixed, "_arch_alpha", None)
        if isinstance(parameters, nn.Parameter):
            parameters = {mixed.label: parameters}
        for label, parameter in (parameters or {}).items():
            if label in probabilities and label not in found:
                found[label] = dict(
                    zip(probabilities[label], mixed._softmax(parameter).unbind(), strict=True)
                )
    return {**probabilities, **found}
