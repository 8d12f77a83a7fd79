"""NNI's profiler interface over a measured latency table."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Self

from nni.mutable import MutableExpression
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.profiler import ExpressionProfiler
from torch import Tensor

from devices.measurement import MeasuringProtocol
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.estimate import Estimate
from latency_db.models import NetworkModel
from latency_db.store import open_store
from pipeline.integrations.nni.building import load, measure
from pipeline.integrations.nni.errors import NniError
from pipeline.integrations.nni.space import ModelSpaceBlocks
from pipeline.integrations.nni.trees import Leaf, Tree, follow, mapped
from pipeline.integrations.nni.units import Sample
from pipeline.progress import ConsoleReporter
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.space_table import NETWORKS

Bound = Literal["upper", "value"]

_NS_PER_MS = 1e6


class LatencyTableProfiler(ExpressionProfiler):  # type: ignore[misc]
    """Latencies of the networks of a model space on one target, in milliseconds.

    The latency of a network is the sum of what its blocks add to it. NNI's filters and penalties work on it,
    the expectation penalty exactly: each term of the sum looks at few of the choices.

    Make one by ``build`` or ``load``, before a one-shot strategy rebuilds the model space in place. It keeps
    neither the model space nor a connection to the database or the device.

    Args:
        space: the model space's choices and blocks.
        model: the network model over a table of these blocks.
        bound: what ``profile`` and ``expression`` give: ``value``, the estimate, which about half of the
            networks exceed; or ``upper``, the upper end of its interval, so that a filter keeps its limit.

    Attributes:
        model: as above, with the table.
    """

    def __init__(self, space: ModelSpaceBlocks, model: NetworkModel, bound: Bound = "upper") -> None:
        if bound not in ("upper", "value"):
            raise ValueError(f"bound {bound!r} is neither 'upper' nor 'value'")
        self.model = model
        self._mutables = space.mutables
        self._factor = model.upper_factor if bound == "upper" else 1.0
        self._names = {identity: block.description for identity, block in space.blocks.items()}
        self._costs_ns = [
            mapped(tree, lambda blocks: math.fsum(map(model.block_cost_ns, blocks))) for tree in space.trees
        ]

    @classmethod
    def build(
        cls,
        model_space: ModelSpace,
        inputs: Tensor,
        target: str,
        *,
        db: str | None = None,
        networks: int = NETWORKS,
        protocol: MeasuringProtocol | None = None,
        bound: Bound = "upper",
    ) -> Self:
        """Measure what the database lacks of the model space's blocks and of some whole networks.

        Every outcome is stored at once: a call that was ended goes on when it is made again.

        Args:
            model_space: it is not changed.
            inputs: what the model space takes, float32, shape (N, C, H, W), (N, L, C) or (N, C); latencies
                are those of a batch of 1.
            target: for example ``host/onnxruntime:fp32@1``.
            db: latency database, a file or an SQLAlchemy URL; the user's own if None.
            networks: how many whole networks to fit the network model on, at least 6.
            protocol: how to measure; the default protocol if None.
            bound: as of the class.

        Raises:
            NniError: the model space has mutables or modules of a kind that cannot be profiled.
            EstimateError: blocks or networks stay without a valid measurement: call again.
            TargetError, MeasurementError: the target cannot be reached or measured on.
            ExportError: the exporter for the target is not installed.
            StoreError: the database cannot be opened, read or written.
        """
        with _bench(db, protocol) as bench:
            space, where = ModelSpaceBlocks(model_space, inputs, bench.reporter), Target.parse(target)
            measure(space, where, bench, networks)
            return cls(space, load(space, where, bench, networks), bound)

    @classmethod
    def load(
        cls,
        model_space: ModelSpace,
        inputs: Tensor,
        target: str,
        *,
        db: str | None = None,
        networks: int = NETWORKS,
        protocol: MeasuringProtocol | None = None,
        bound: Bound = "upper",
    ) -> Self:
        """The same from what is stored; nothing is measured.

        Args:
            model_space: as of ``build``, like all others.
            inputs: what the model space takes.
            target: as text.
            db: latency database.
            networks: how many whole networks to look for.
            protocol: how was measured.
            bound: as of the class.

        Raises:
            NniError: the model space has mutables or modules of a kind that cannot be profiled.
            EstimateError: blocks or networks are missing; the first one is named, with what differs from what
                is stored.
            TargetError: the target cannot be reached to see whether it is still the same.
            StoreError: the database cannot be opened or read.
        """
        with _bench(db, protocol, must_exist=True) as bench:
            space, where = ModelSpaceBlocks(model_space, inputs, bench.reporter), Target.parse(target)
            return cls(space, load(space, where, bench, networks), bound)

    def profile(self, sample: Sample) -> float:
        """Latency of a sample's network in ms, by ``bound``; infinite where a block cannot run on the target.

        Raises:
            NniError: the sample lacks a choice that matters.
        """
        return self._value_ns(sample) * self._factor / _NS_PER_MS

    def estimate(self, sample: Sample) -> Estimate:
        """Predicted latency of a sample's network, with its interval.

        Raises:
            NniError: the sample lacks a choice that matters.
        """
        return self.model.around(self._value_ns(sample))

    @functools.cached_property
    def expression(self) -> MutableExpression[float] | float:
        """``profile`` as an expression of the model space's mutables, for NNI's expectation penalty.

        Raises:
            EstimateError: a block cannot run on the target, so that an expectation would be infinite.
        """
        table = self.model.table
        for identity, reason in {**table.failed, **table.missing}.items():
            what = "cannot run" if identity in table.failed else "has no latency"
            raise EstimateError(
                f"the expected latency on {table.target} is infinite",
                why=f"{self._names[identity]} {what} there: {reason.code}: {reason.detail}",
                fix="leave this choice out of the model space, or use a range filter, which refuses it",
            )
        scale = self._factor / _NS_PER_MS
        costs = [mapped(tree, lambda cost_ns: cost_ns * scale) for tree in self._costs_ns]
        fixed = self.model.fixed_ns * scale + math.fsum(
            tree.value for tree in costs if isinstance(tree, Leaf)
        )
        return _sum([fixed, *(self._term(tree) for tree in costs if not isinstance(tree, Leaf))])

    def _value_ns(self, sample: Sample) -> float:
        try:
            return self.model.fixed_ns + math.fsum(follow(tree, sample) for tree in self._costs_ns)
        except KeyError as error:
            raise NniError(
                f"the sample has no choice that the model space knows for {error}",
                why=f"it is {dict(sample)}",
                fix=f"give a choice for each of {', '.join(self._mutables)}",
            ) from None

    def _term(self, tree: Tree[float]) -> MutableExpression[float] | float:
        if isinstance(tree, Leaf):
            return tree.value
        branches = {choice: self._term(branch) for choice, branch in tree.branches}
        return MutableExpression.switch_case(self._mutables[tree.label], branches)


@contextmanager
def _bench(
    db: str | None, protocol: MeasuringProtocol | None, *, must_exist: bool = False
) -> Iterator[Bench]:
    with open_store(db, must_exist=must_exist) as store:
        yield Bench(store, protocol or MeasuringProtocol(), ConsoleReporter())


def _sum(
    terms: Sequence[MutableExpression[float] | float],
) -> MutableExpression[float] | float:
    """A balanced sum: NNI evaluates expressions by recursion."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return _sum(terms[:middle]) + _sum(terms[middle:])
