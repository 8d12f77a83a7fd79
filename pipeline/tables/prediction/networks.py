"""Networks to predict, and what a table's model says of each, as documents for people's programs."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from devices.measurement import Reason
from devices.untrusted import file_bytes, json_from
from devices.words import cause_of, count_of
from latency_db.errors import EstimateError
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
from pipeline.tables.building.plan import block_names, distinct_architectures

MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Prediction:
    """What is predicted of a network.

    Attributes:
        label: what it was asked for as.
        architecture: the network.
        estimate: infinite where the network has none.
        obstacles: its blocks without a latency on the target, with the reason.
        cannot_run: one of these blocks cannot run there; else they are missing.
    """

    label: str
    architecture: Architecture
    estimate: Estimate
    obstacles: Mapping[Block, Reason]
    cannot_run: bool


def predict(space: Space, model: NetworkModel, networks: Mapping[str, Architecture]) -> list[Prediction]:
    """An estimate of each network, by label.

    Raises:
        EstimateError: the table lacks one of their blocks.
    """
    table = model.table
    blocks = {label: list(dict.fromkeys(space.blocks(network))) for label, network in networks.items()}
    unknown = {
        each for its_blocks in blocks.values() for each in its_blocks if not table.knows(each.identity)
    }
    if unknown:
        raise EstimateError(
            f"the latency table of {table.target} lacks {count_of(len(unknown), 'block')} of these networks",
            why=f"not measured: {', '.join(sorted(map(str, unknown))[:5])}",
            fix="use the table of this space, or run 'lathe table build' for it",
        )
    reasons = {**table.missing, **table.failed}
    estimates = model.estimate([block_names(space, network) for network in networks.values()])
    return [
        Prediction(
            label,
            network,
            estimate,
            {each: reasons[each.identity] for each in blocks[label] if each.identity in reasons},
            any(each.identity in table.failed for each in blocks[label]),
        )
        for (label, network), estimate in zip(networks.items(), estimates, strict=True)
    ]


def landmarks(space: Space, model: NetworkModel) -> dict[str, Architecture]:
    """The reference network, the fastest by the model, and the slowest of those that can run."""
    costs = {block: model.block_cost_ns(block.identity) for block in space.distinct_blocks()}
    slowest = space.extreme(
        lambda block: costs[block] if costs[block] < math.inf else -math.inf, largest=True
    )
    return {
        "reference": space.reference(),
        "fastest": space.extreme(costs.__getitem__),
        "slowest": slowest,
    }


def drawn(space: Space, count: int, seed: int) -> dict[str, Architecture]:
    """Random networks, none twice; fewer where the space has no more."""
    found = itertools.islice(distinct_architectures(space, seed), count)
    return {f"random {number}": network for number, network in enumerate(found, 1)}


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
        inline = text.lstrip().startswith(("{", "["))
        # An architecture may be longer than any name of a file, of which Path.exists makes an error.
        if "=" in text and not inline and not os.access(text, os.F_OK):
            return [_architecture(space, _printed(space, text))]
        document = json_from(text if inline else file_bytes(Path(text), MOST_BYTES))
        return [
            _architecture(space, each) for each in (document if isinstance(document, list) else [document])
        ]
    except (OSError, ValueError) as error:
        raise RecipeError(
            "an architecture cannot be read",
            why=cause_of(error),
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
        "networks": [_prediction_json(each) for each in predictions],
    }


def _prediction_json(prediction: Prediction) -> dict[str, Any]:
    estimate = prediction.estimate
    obstacles = [{"block": str(block), **asdict(reason)} for block, reason in prediction.obstacles.items()]
    values_ns = {"estimate": estimate.value_ns, "low": estimate.low_ns, "high": estimate.high_ns}
    return {
        "label": prediction.label,
        "architecture": dict(prediction.architecture.choices),
        **{f"{name}_ms": ns / 1e6 if ns < math.inf else None for name, ns in values_ns.items()},
        "cannot_run": obstacles if prediction.cannot_run else [],
        "not_measured": [] if prediction.cannot_run else obstacles,
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
