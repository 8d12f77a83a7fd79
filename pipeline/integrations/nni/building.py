"""Measured blocks and networks of a model space, and the network model that is fitted on them."""

from __future__ import annotations

from functools import partial

from devices.measurement import Measurement
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.history import history_of, latest
from latency_db.models import MIN_NETWORKS, NetworkModel, is_random, spread
from latency_db.store import Workload
from latency_db.tables import LatencyTable, explain_missing
from pipeline.export.base import Format, exporter_identity, format_of
from pipeline.integrations.nni.blocks import as_image, image_shape
from pipeline.integrations.nni.errors import NniError
from pipeline.integrations.nni.space import ModelSpaceBlocks
from pipeline.integrations.nni.units import Sample
from pipeline.tables.building import measuring
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.measuring import ModuleWorkload
from pipeline.tables.building.networks import NetworkLatency, fit_model, latency_of


def measure(space: ModelSpaceBlocks, target: Target, bench: Bench, networks: int) -> None:
    """Measure what is not stored yet of every block and of the first ``networks`` of the calibration plan.

    Every outcome is stored at once, so a call that was ended goes on when it is made again.

    Raises:
        NniError: the space has too few networks.
        TargetError, MeasurementError: the target cannot be reached or measured on.
        ExportError: the exporter is not installed.
    """
    fmt = format_of(target)
    wholes = [part for _, part in network_parts(space, fmt, networks)]
    wanted = spread(list(block_parts(space, fmt).values()), wholes)
    measuring.measure(bench, {target: wanted}, "blocks and networks")


def load(space: ModelSpaceBlocks, target: Target, bench: Bench, networks: int) -> NetworkModel:
    """The network model, with its table, from what is stored for the target as it is now.

    Its intervals hold at another time too, by what was known of the machine when the table was measured.

    Raises:
        NniError: the space has too few networks.
        EstimateError: blocks are missing, of which the first is named with what differs from what is stored;
            or too few networks have a latency.
    """
    fmt = format_of(target)
    parts = block_parts(space, fmt)
    found = measuring.look_up(bench, target, [part.workload for part in parts.values()], disturbed=True)
    missing = [part.workload for part in parts.values() if part.workload.identity not in found]
    if missing:
        why = explain_missing(
            missing[0], target, store=bench.store, protocol=bench.protocol, measurer=bench.measurer
        )
        raise EstimateError(
            f"the latency table of {target} lacks {len(missing)} of {len(parts)} blocks of the model space",
            why=why,
            fix="call LatencyTableProfiler.build for this model space and target; it continues from there",
        )
    outcomes = {identity: found[part.workload.identity] for identity, part in parts.items()}
    table = LatencyTable.of(target, outcomes, space.sizes())

    wholes = network_parts(space, fmt, networks)
    measured = measuring.look_up(bench, target, [part.workload for _, part in wholes], disturbed=True)
    names: list[list[str]] = []
    latencies: list[NetworkLatency] = []
    for position, (sample, part) in enumerate(wholes):
        outcome, blocks = measured.get(part.workload.identity), space.blocks_of(sample)
        if isinstance(outcome, Measurement) and table.rows.keys() >= set(blocks):
            names.append(blocks)
            latencies.append(latency_of(outcome, scored=is_random(position)))
    until = latest([*outcomes.values(), *measured.values()])
    _, device = bench.measurer.probe(target)
    return fit_model(table, names, latencies).at_another_time(history_of(bench.store, device, until).between)


def block_parts(space: ModelSpaceBlocks, fmt: Format) -> dict[str, ModuleWorkload]:
    """Every block of the space, by its identity."""
    return {
        identity: ModuleWorkload(
            Workload.of("block", block.description, _content(identity, fmt)),
            partial(block.exportable, space.networks),
            block.image_shape,
        )
        for identity, block in space.blocks.items()
    }


def network_parts(space: ModelSpaceBlocks, fmt: Format, networks: int) -> list[tuple[Sample, ModuleWorkload]]:
    """The first ``networks`` of the space's calibration plan, each of which is run once to identify it.

    Raises:
        NniError: the space has too few networks for a model.
    """
    plan = space.calibration_plan()
    if len(plan) < MIN_NETWORKS:
        raise NniError(
            f"the model space has only {len(plan)} different networks",
            why=f"a model of latencies is fitted on {MIN_NETWORKS} of them at least",
            fix="measure each of them by itself: export it to ONNX and call 'lathe profile'",
        )
    shape = space.networks.input_shape
    return [
        (
            sample,
            ModuleWorkload(
                Workload.of(
                    "network",
                    " ".join(f"{label}={choice}" for label, choice in sample.items()),
                    _content(space.networks.trace(sample).identity, fmt),
                ),
                lambda sample=sample: as_image(space.networks.build(sample), shape),  # type: ignore[misc]
                image_shape(shape),
            ),
        )
        for sample in plan[:networks]
    ]


def _content(operations: str | None, fmt: Format) -> dict[str, object]:
    return {"operations": operations, **exporter_identity(fmt)}
