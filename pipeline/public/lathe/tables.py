"""Latency tables of a whole space, and what they predict: ``space``, ``build_table``, ``load_table``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.words import count_of
from latency_db.estimate import Estimate
from lathe.result import Result, Rows, reporter

if TYPE_CHECKING:
    from latency_db.models import NetworkModel
    from pipeline.spaces.base import Space

Network = Mapping[str, Any]
"""A network of a space: a choice for each decision, by the decision's name."""

_SHOWN = 10


@dataclass(frozen=True, repr=False)
class NetworkPrediction(Result):
    """What a table predicts of one network; nothing of it was measured.

    Attributes:
        network: its choices.
        target: of the table.
        estimate: nanoseconds; ``None`` where the network cannot run on the target.
        cannot_run: its blocks that cannot run there.
    """

    network: Network
    target: str
    estimate: Estimate | None
    cannot_run: tuple[str, ...]

    def _title(self) -> str:
        return f"{'cannot run' if self.estimate is None else self.estimate} on {self.target}"

    def _rows(self) -> Rows:
        rows = [(name, str(choice)) for name, choice in self.network.items()]
        return [*rows, *(("cannot run", block) for block in self.cannot_run)]


@dataclass(frozen=True, repr=False)
class Table(Result):
    """Measured latencies of a space's blocks on one target, and a model of whole networks.

    Attributes:
        target: where the blocks ran.
        space: whose blocks.
        latencies_ns: of every block that ran, by what the block is.
        failed: why, by what the block is.
        coverage: share of networks that the intervals of predictions claim to hold.
    """

    target: str
    space: Space = field(compare=False)
    latencies_ns: Mapping[str, float]
    failed: Mapping[str, str]
    coverage: float
    _model: NetworkModel = field(compare=False)

    def predict(self, networks: Iterable[Network] | None = None) -> tuple[NetworkPrediction, ...]:
        """An estimate of each network.

        Args:
            networks: by default the reference network, the fastest and the slowest one.

        Raises:
            RecipeError: a network is none of the space.
            EstimateError: the table lacks one of its blocks.
        """
        from pipeline.tables.prediction.networks import landmarks, predict, predictions_json, written

        if networks is None:
            chosen = landmarks(self.space, self._model)
        else:
            given = written(self.space, json.dumps([dict(each) for each in networks]))
            chosen = {f"given {number}": network for number, network in enumerate(given, 1)}
        found = predict(self.space, self._model, chosen)
        documents = predictions_json(self._model, found)["networks"]
        return tuple(
            NetworkPrediction(
                dict(each.architecture.choices),
                self.target,
                None if each.obstacles else each.estimate,
                tuple(map(str, each.obstacles)),
                _document=document,
            )
            for each, document in zip(found, documents, strict=True)
        )

    def save(self, file: str | PathLike[str]) -> None:
        """Write a file that predicts without a database or a device; ``load_table`` reads it.

        Raises:
            WorkFolderError: it cannot be written.
        """
        from pipeline.tables.exchange.table_file import write_table

        write_table(Path(file), self._model, self.space.description, _texts(self.space))

    def _title(self) -> str:
        failed = f", {len(self.failed)} cannot run" if self.failed else ""
        return f"{self.target}: {count_of(len(self.latencies_ns), 'block')} measured{failed}"

    def _rows(self) -> Rows:
        slowest = sorted(self.latencies_ns.items(), key=lambda each: -each[1])[:_SHOWN]
        more = len(self.latencies_ns) - len(slowest)
        rows = [(block, f"{latency / 1e6:.4f} ms measured") for block, latency in slowest]
        return [*rows, (f"and {more} faster ones", "")] if more else rows


def space(name: str = "mobile", input_shape: Sequence[int] = (3, 32, 32), classes: int = 10) -> Space:
    """A space of networks: its ``decisions``, ``count()``, ``sample(random.Random(0))``, ``reference()``.

    Args:
        name: ``mobile``, ``akd``, or the path of a recipe whose ``[space]`` it is.
        input_shape: channels, height and width of the images.
        classes: number of logits.

    Raises:
        RecipeError: there is no such space or file, or the shape has no meaning.
    """
    from pipeline.tables.spaces import find_space

    return find_space(name, "x".join(map(str, input_shape)), classes)


def build_table(
    space: Space,
    target: str,
    *,
    networks: int = 24,
    budget_minutes: float | None = None,
    db: str | None = None,
    progress: bool = False,
) -> Table:
    """Measure what the database does not have yet of a space's blocks and networks, and fit the model.

    What is measured is stored at once: a call that was interrupted goes on when it is made again.

    Args:
        space: as ``space`` gives it.
        target: as ``host/onnxruntime:fp32@1``.
        networks: how many whole networks, at least 6.
        budget_minutes: no measurement is begun later than that.
        db: URL or file of the latency database; your own by default.
        progress: show it on standard error.

    Raises:
        EstimateError: blocks or networks are missing or invalid: call it again.
        TargetError: the target cannot be reached.
        MeasurementError: the target cannot be measured on.
    """
    from devices.measurement import MeasuringProtocol
    from devices.target import Target
    from latency_db.store import open_store
    from pipeline.tables.building.bench import Bench
    from pipeline.tables.building.space_table import build

    where = Target.parse(target)
    budget_s = None if budget_minutes is None else 60 * budget_minutes
    with open_store(db) as store:
        bench = Bench(store, MeasuringProtocol(), reporter(progress))
        built = build(space, [where], bench, networks=networks, budget_s=budget_s)
    return _table(space, built[where].model, _texts(space))


def load_table(file: str | PathLike[str]) -> Table:
    """Read a table that ``Table.save`` or ``lathe table export`` wrote; no database or device is needed.

    Raises:
        EstimateError: the file is missing, damaged, of another version, or something else.
    """
    from pipeline.tables.exchange.table_file import read_table
    from pipeline.tables.spaces import space_of

    content = read_table(Path(file))
    return _table(space_of(content.space), content.model, content.blocks)


def _table(space: Space, model: NetworkModel, texts: dict[str, str]) -> Table:
    from pipeline.tables.exchange.table_file import table_json

    table = model.table
    return Table(
        str(table.target),
        space,
        {texts.get(name, name): row.value_ns for name, row in table.rows.items()},
        {texts.get(name, name): reason.detail for name, reason in table.failed.items()},
        model.coverage,
        model,
        _document=table_json(model, texts),
    )


def _texts(space: Space) -> dict[str, str]:
    """What the blocks are, by identity."""
    return {block.identity: str(block) for block in space.distinct_blocks()}
