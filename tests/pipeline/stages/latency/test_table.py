from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from devices.measurement import Reason
from devices.measurement.protocol import MeasuringProtocol
from devices.target import Target
from latency_db.store.store import open_store
from pipeline.budget import Budget
from pipeline.export.base import Format, block_workload, network_workload
from pipeline.export.cached_exports import Exportable, Exports
from pipeline.progress import Reporter
from pipeline.run.preparation import _teacher_ns
from pipeline.spaces.base import Block
from pipeline.spaces.cost import block_cost
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.latency import table
from pipeline.stages.latency.feasibility import FeasibilityInput, check_feasibility
from pipeline.stages.latency.table import TableInput, Tables, build_tables
from pipeline.stages.latency.targets import BoundTarget
from pipeline.stages.latency.teacher_parts import teacher_parts, whole_teacher
from pipeline.stages.services import Services
from pipeline.tables.building.space_table import build
from pipeline.teachers.convnet import ConvNet
from pipeline.work.folder import WorkFolder
from pipeline.work.stage import StageFolder
from tests.made_up_measurer import DEVICE, OTHERS_NS, MadeUpMeasurer, adapted, exported_to, latencies_of
from tests.made_up_tables import SPACE
from tests.pipeline.run.made_up_run import Quiet

TARGET = Target("host", "onnxruntime")
PLAN = SpacePlan(SPACE.config, SPACE.input_shape, SPACE.classes)
PROTOCOL = MeasuringProtocol()
NETWORKS = 12
CONVNET = ConvNet(1, 10, width=4, depth=1)
TEACHER: Any = SimpleNamespace(digest="0", name="t", data=SimpleNamespace(input_shape=(1, 8, 8)))


def cost_ns(block: Block) -> float:
    return 5_000 + block_cost(block).macs


LATENCIES = latencies_of(SPACE, cost_ns, Format.ONNX)


@pytest.fixture(name="measurer")
def _measurer() -> MadeUpMeasurer:
    return MadeUpMeasurer(LATENCIES)


@pytest.fixture(name="services")
def _services(tmp_path: Path, measurer: MadeUpMeasurer) -> Iterator[Services]:
    with open_store(str(tmp_path / "latency.db")) as store:
        yield Services(
            store, Quiet(), WorkFolder(tmp_path), measurer=measurer, export=partial(exported_to, tmp_path)
        )


@pytest.fixture(autouse=True)
def _teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = SimpleNamespace(module=CONVNET)
    monkeypatch.setattr(table, "open_teacher", lambda summary, folder: opened)


def bound(measurer: MadeUpMeasurer, target: Target = TARGET) -> tuple[BoundTarget, ...]:
    return (BoundTarget(target, *measurer.probe(target)),)


def tables_of(services: Services, folder: Path, target: Target = TARGET) -> Tables:
    targets = bound(services.measurer, target)  # type: ignore[arg-type]
    given = TableInput(PLAN, targets, PROTOCOL, {}, TEACHER, NETWORKS)
    return build_tables.function(given, StageFolder(folder), services)


def feasible_with(services: Services, tables: Tables, folder: Path) -> Any:
    given = FeasibilityInput(
        PLAN,
        tables.by_target,
        bound(services.measurer),  # type: ignore[arg-type]
        PROTOCOL,
        {},
        {str(TARGET): Budget.parse("0.9x")},
        {},
        NETWORKS,
    )
    return check_feasibility.function(given, StageFolder(folder), services)


def test_stage_builds_the_table_under_the_protocol_that_the_target_follows(
    services: Services, measurer: MadeUpMeasurer, tmp_path: Path
) -> None:
    tables = tables_of(services, tmp_path)
    found = tables.by_target[str(TARGET)]
    assert found.key is not None
    assert (found.key.runtime, found.key.protocol) == (measurer.probe(TARGET)[0], adapted(PROTOCOL))
    assert found.key.device["cpu"] == DEVICE.cpu
    assert len(found.rows) == len(SPACE.distinct_blocks())
    whole = tables.teacher[str(TARGET)].whole
    assert whole is not None and whole.value_ns == OTHERS_NS
    assert tables.complete and build_tables.final(tables)
    teacher = tables.teacher_models[Format.ONNX]
    assert StageFolder(tmp_path).find(teacher) == tmp_path / "teacher.onnx"
    assert (tmp_path / "teacher.onnx").is_file()


def test_the_teacher_is_measured_in_float_beside_blocks_in_int8(
    services: Services, measurer: MadeUpMeasurer, tmp_path: Path
) -> None:
    target = replace(TARGET, precision="int8")
    tables = tables_of(services, tmp_path, target)
    blocks = {block_workload(block, Format.ONNX_INT8).identity for block in SPACE.distinct_blocks()}
    teacher = {part.workload.identity for part in teacher_parts(TEACHER, CONVNET, Format.ONNX).values()}
    assert blocks | teacher <= {each for batch in measurer.measured for each in batch}
    whole = tables.teacher[str(target)].whole
    assert whole is not None and whole.value_ns == OTHERS_NS
    assert tables.by_target.keys() == tables.teacher.keys() == {str(target)}
    assert tables.teacher_models.keys() == {Format.ONNX}


def test_stages_and_the_builder_of_tables_find_what_each_other_measured(
    services: Services, measurer: MadeUpMeasurer, tmp_path: Path
) -> None:
    feasible = feasible_with(services, tables_of(services, tmp_path), tmp_path)
    measurer.measured.clear()
    built = build(SPACE, [TARGET], services.bench(PROTOCOL), networks=NETWORKS)[TARGET]
    assert measurer.measured == []
    # Relative budgets leave out what all networks share.
    assert feasible.models == {str(TARGET): built.model.with_level(0.0)}
    assert [each.architecture for each in feasible.calibration] == [e.architecture for e in built.networks]
    assert feasible.limits_ns[str(TARGET)] == pytest.approx(0.9 * built.networks[0].measured.value_ns)


def test_a_relative_budget_means_its_reference_as_fast_as_the_machine_was_for_the_table(
    services: Services, measurer: MadeUpMeasurer, tmp_path: Path
) -> None:
    reference = network_workload(SPACE.description, SPACE.reference(), Format.ONNX).identity
    teacher = whole_teacher(teacher_parts(TEACHER, CONVNET, Format.ONNX)).workload.identity
    measurer.slowdowns = {reference: 1.08, teacher: 1.2}
    tables = tables_of(services, tmp_path)
    feasible = feasible_with(services, tables, tmp_path)
    assert feasible.limits_ns[str(TARGET)] == pytest.approx(0.9 * LATENCIES[reference])
    seen = next(each for each in feasible.calibration if each.architecture == SPACE.reference())
    assert seen.measured.value_ns == pytest.approx(1.08 * LATENCIES[reference])
    # A candidate that is measured while the machine is slow is judged likewise.
    assert feasible.predictors(PLAN).judged(seen).value_ns == pytest.approx(LATENCIES[reference])
    context: Any = SimpleNamespace(budgets={str(TARGET): Budget.parse("0.9x teacher")})
    assert _teacher_ns(context, tables) == {str(TARGET): pytest.approx(OTHERS_NS)}


@pytest.mark.parametrize("code", ["timeout", "device-lost", "out-of-memory"])
def test_stage_that_misses_a_block_goes_on_and_is_not_kept(
    services: Services, measurer: MadeUpMeasurer, tmp_path: Path, code: str
) -> None:
    block = SPACE.distinct_blocks()[20]
    measurer.special[block_workload(block, Format.ONNX).identity] = code
    tables = tables_of(services, tmp_path)
    assert tables.by_target[str(TARGET)].missing.keys() == {block.identity}
    assert not tables.complete and not build_tables.final(tables)
    assert any("1 missing" in line for line in build_tables.tell(None, tables))  # type: ignore[arg-type]
    feasible = feasible_with(services, tables, tmp_path)
    assert all(block not in SPACE.blocks(each.architecture) for each in feasible.calibration)
    measurer.special.clear()
    assert tables_of(services, tmp_path).complete


def test_teacher_whose_failure_may_pass_is_measured_again(
    services: Services, measurer: MadeUpMeasurer, tmp_path: Path
) -> None:
    measurer.otherwise = "timeout"
    tables = tables_of(services, tmp_path)
    assert tables.teacher[str(TARGET)].whole is None
    assert tables.teacher_models == {}
    assert "whole network" in tables.teacher[str(TARGET)].missing
    assert not tables.complete
    measurer.otherwise = ""
    again = tables_of(services, tmp_path)
    assert again.complete
    assert again.teacher[str(TARGET)].whole is not None


@pytest.mark.parametrize(("code", "complete"), [("export-failed", True), ("out-of-memory", False)])
def test_teacher_that_cannot_be_exported_any_more_is_no_file_and_stops_nothing(
    services: Services, tmp_path: Path, code: str, complete: bool
) -> None:
    tables_of(services, tmp_path)

    @contextmanager
    def fails(
        wanted: Mapping[Format, Mapping[str, Exportable]], what: str, reporter: Reporter
    ) -> Iterator[Exports]:
        failed = Reason(code, "made up")
        yield {fmt: dict.fromkeys(modules, failed) for fmt, modules in wanted.items()}

    tables = tables_of(replace(services, export=fails), tmp_path)
    assert tables.complete is complete
    assert tables.teacher[str(TARGET)].whole is not None
    assert tables.teacher_models == {}
