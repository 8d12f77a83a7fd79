"""Networks to predict, and what a table's model says of each, as documents for people's programs."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latency_db.estimate import Estimate
from latency_db.models import NetworkModel
from pipeline.errors import RecipeError
from pipeline.spaces.base import (
    Architecture,
    Block,
    Choice,
    Space,
    architecture_of,
    check_architecture,
    choice_text,
    read_choices,
)
from pipeline.tables.building import block_names, distinct_architectures


@dataclass(frozen=True)
class Prediction:
    """What is predicted of a network.

    Attributes:
        architecture: the network.
        estimate: infinite where the network cannot run.
        obstacles: its blocks that cannot run on the target.
    """

    architecture: Architecture
    estimate: Estimate
    obstacles: tuple[Block, ...]


def predict(space: Space, model: NetworkModel, networks: Iterable[Architecture]) -> list[Prediction]:
    """An estimate of each network.

    Raises:
        EstimateError: the table lacks one of its blocks.
    """
    chosen = list(networks)
    estimates = model.estimate([block_names(space, network) for network in chosen])
    failed = model.table.failed
    return [
        Prediction(
            network,
            estimate,
            tuple(block for block in dict.fromkeys(space.blocks(network)) if block.identity in failed),
        )
        for network, estimate in zip(chosen, estimates, strict=True)
    ]


def landmarks(space: Space, model: NetworkModel) -> list[Architecture]:
    """The reference network, the fastest by the model, and the slowest of those that can run."""
    costs = {block: model.block_cost_ns(block.identity) for block in space.distinct_blocks()}
    slowest = space.extreme(
        lambda block: costs[block] if costs[block] < math.inf else -math.inf, largest=True
    )
    return [space.reference(), space.extreme(costs.__getitem__), slowest]


def drawn(space: Space, count: int, seed: int) -> list[Architecture]:
    """Random networks, none twice; fewer where the space has no more."""
    return list(itertools.islice(distinct_architectures(space, seed), count))


def written(space: Space, text: str) -> list[Architecture]:
    """The networks in a text or a file.

    Args:
        space: of which they are.
        text: an architecture as it is printed; or JSON, an object of choices by decision or a list of such;
            or the path of a file of JSON.

    Raises:
        RecipeError: it cannot be read, or describes no network of the space.
    """
    try:
        if "=" in text and not text.lstrip().startswith(("{", "[")) and not Path(text).exists():
            return [_architecture(space, _printed(space, text))]
        document = json.loads(text if text.lstrip().startswith(("{", "[")) else Path(text).read_bytes())
        return [
            _architecture(space, each) for each in (document if isinstance(document, list) else [document])
        ]
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(
            "an architecture cannot be read",
            why=str(error),
            fix=f"write it as it is printed, e.g. '{space.reference()}', or as a JSON object",
        ) from error


def predictions_json(model: NetworkModel, predictions: Iterable[Prediction]) -> dict[str, Any]:
    """Milliseconds, and the key for which they hold; no value where a network cannot run."""
    table = model.table
    return {
        "kind": "estimates",
        "target": str(table.target),
        "key": None if table.key is None else asdict(table.key),
        "coverage": model.coverage,
        "networks": [_prediction_json(model, each) for each in predictions],
    }


def _prediction_json(model: NetworkModel, prediction: Prediction) -> dict[str, Any]:
    estimate, failed = prediction.estimate, model.table.failed
    values_ns = {"estimate": estimate.value_ns, "low": estimate.low_ns, "high": estimate.high_ns}
    return {
        "architecture": dict(prediction.architecture.choices),
        **{f"{name}_ms": ns / 1e6 if ns < math.inf else None for name, ns in values_ns.items()},
        "cannot_run": [
            {"block": str(block), **asdict(failed[block.identity])} for block in prediction.obstacles
        ],
    }


def _printed(space: Space, text: str) -> dict[str, Choice]:
    """Choices by decision of an architecture as it is printed; an unknown choice stays a text."""
    choices = {
        decision.name: {choice_text(each): each for each in decision.choices} for decision in space.decisions
    }
    return {name: choices.get(name, {}).get(said, said) for name, said in read_choices(text).items()}


def _architecture(space: Space, given: Any) -> Architecture:
    """The network with these choices; those of decisions that are not to be made may be left out.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(given, dict):
        raise ValueError(f"{json.dumps(given)} is no object")
    decisions = {decision.name: decision for decision in space.decisions}
    unknown = given.keys() - decisions.keys()
    lacking = {name for name, each in decisions.items() if each.condition is None} - given.keys()
    if unknown or lacking:
        said = [f"{', '.join(sorted(unknown))}: unknown"] if unknown else []
        said += [f"{', '.join(sorted(lacking))}: missing"] if lacking else []
        raise ValueError("; ".join(said))
    chosen = []
    for name, decision in decisions.items():
        choice = given.get(name, decision.choices[0])
        # Of equal numbers the space's own one is taken: 3.0 would be another block than 3.
        chosen.append((name, next((each for each in decision.choices if each == choice), choice)))
    architecture = architecture_of(space, chosen)
    check_architecture(space, architecture)
    return architecture
