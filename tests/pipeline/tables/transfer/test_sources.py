from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devices.errors import TargetError
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.models.network_model import NetworkModel
from latency_db.store.store import open_store
from latency_db.tables.table import TableKey
from pipeline.progress import ConsoleReporter
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.space_table import load
from pipeline.tables.exchange.table_file import write_table
from pipeline.tables.transfer.sources import source_models
from tests.made_up_tables import NEW, OLD, PROTOCOL, SPACE, keep_blocks, keep_networks, old_ns, planned


@pytest.fixture(name="bench", scope="module")
def _bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with open_store(str(tmp_path_factory.mktemp("sources") / "latency.db")) as store:
        bench = Bench(store, PROTOCOL, ConsoleReporter())
        keep_blocks(bench, OLD, SPACE.distinct_blocks(), old_ns)
        keep_networks(bench, OLD, planned(12), old_ns)
        yield bench


@pytest.fixture(name="model", scope="module")
def _model(bench: Bench) -> NetworkModel:
    return load(SPACE, OLD, bench).model


def written(path: Path, model: NetworkModel) -> str:
    write_table(path, model, SPACE.description, {})
    return str(path)


def elsewhere(model: NetworkModel) -> NetworkModel:
    """The same table, of a device that nobody here can reach."""
    assert model.table.key is not None
    device = {**model.table.key.device, "cpu": "another one"}
    key = TableKey(model.table.key.runtime, device, model.table.key.protocol)
    return replace(model, table=replace(model.table, target=Target("phone", "onnxruntime"), key=key))


def test_source_is_taken_from_the_database_as_the_target_is_now(bench: Bench, model: NetworkModel) -> None:
    assert source_models(SPACE, [str(OLD)], NEW, bench) == [model]


def test_source_named_twice_counts_once(bench: Bench) -> None:
    assert len(source_models(SPACE, [str(OLD), str(OLD)], NEW, bench)) == 1


def test_exported_table_of_a_device_that_cannot_be_reached_is_a_source(
    bench: Bench, model: NetworkModel, tmp_path: Path
) -> None:
    path = written(tmp_path / "phone.json", elsewhere(model))
    (found,) = source_models(SPACE, [path], OLD, bench)
    assert found == elsewhere(model)


def test_target_is_never_its_own_source(bench: Bench, model: NetworkModel, tmp_path: Path) -> None:
    for name in (str(OLD), written(tmp_path / "own.json", model)):
        with pytest.raises(EstimateError, match="from its own table"):
            source_models(SPACE, [name], OLD, bench)


def test_source_without_a_table_names_the_command_that_builds_it(bench: Bench) -> None:
    with pytest.raises(EstimateError, match="lacks 43 of 43 blocks") as caught:
        source_models(SPACE, [str(NEW)], OLD, bench)
    assert "lathe table build" in caught.value.fix


def test_table_of_another_space_is_refused(bench: Bench, model: NetworkModel, tmp_path: Path) -> None:
    other = MobileSpace.from_config(None, (3, 8, 8), 10)
    with pytest.raises(EstimateError, match="lacks 1 of the 43 blocks of the space"):
        source_models(other, [written(tmp_path / "table.json", elsewhere(model))], NEW, bench)


@pytest.mark.parametrize("text", ["", "[]", '{"format": "lathe-estimates", "version": 1}'])
def test_file_that_is_no_table_is_refused(bench: Bench, tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(EstimateError, match="cannot be read as a latency table"):
        source_models(SPACE, [str(path)], NEW, bench)


def test_name_that_is_neither_file_nor_target_is_refused(bench: Bench) -> None:
    with pytest.raises(EstimateError, match="there is no file"):
        source_models(SPACE, ["nowhere.json"], NEW, bench)
    with pytest.raises(EstimateError, match="there is no file"):
        source_models(SPACE, [f"{'x' * 300}.json"], NEW, bench)
    with pytest.raises(TargetError, match="is not a target"):
        source_models(SPACE, ["nowhere"], NEW, bench)
    with pytest.raises(TargetError, match="is not a target"):
        source_models(SPACE, ["x" * 300], NEW, bench)
