from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.measurement.measurement import Reason, RuntimeIdentity
from devices.measurement.protocol import MeasuringProtocol
from devices.measurement.statistics import Interval
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.estimate import Estimate
from latency_db.few_shot.transferred import TransferredModel
from latency_db.models.network_model import NetworkModel
from latency_db.tables.table import LatencyTable, TableKey
from pipeline.tables.exchange.table_file import read_table, write_table
from pipeline.tables.transfer.estimates import check_place, read_estimates, write_estimates

RUNTIME = RuntimeIdentity("litert", "2.0", "ab", "fp32", 1)
MODEL = TransferredModel(
    target=Target("phone", "litert"),
    key=TableKey(RUNTIME, {"cpu": "some"}, MeasuringProtocol()),
    sources=(Target("host", "litert"),),
    measured={"a": Interval(9.0, 10.0, 11.0, 0.9)},
    estimated={"b": Estimate(15.0, 20.0, 25.0, 0.9)},
    failed={"c": Reason("unsupported", "no kernel")},
    costs_ns={"a": 8.0, "b": 16.0},
    fixed_ns=2.0,
    upper_factor=1.1,
    coverage=0.9,
    fitted_networks=10,
    canary_ns=3.0,
)


def table() -> NetworkModel:
    rows = LatencyTable(MODEL.target, MODEL.measured, {}, {}, MODEL.key)
    return NetworkModel(rows, 1.0, 0.0, 0.0, 1.1, 0.9, 6)


def test_estimates_are_read_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "estimates.json"
    write_estimates(path, MODEL, {"space": "any"}, {"a": "stem"})
    assert read_estimates(path) == MODEL
    document = json.loads(path.read_text())
    assert document["format"] == "lathe-estimates"
    assert document["blocks"] == {"a": "stem"}


@given(
    factor=st.floats(1, 10),
    costs=st.dictionaries(st.text(), st.floats(0, 1e12)),
    canary_ns=st.none() | st.floats(1, 1e9),
)
def test_any_figures_survive_the_file(
    tmp_path_factory: pytest.TempPathFactory, factor: float, costs: dict[str, float], canary_ns: float | None
) -> None:
    path = tmp_path_factory.mktemp("estimates") / "estimates.json"
    model = replace(MODEL, upper_factor=factor, costs_ns=costs, canary_ns=canary_ns)
    write_estimates(path, model, {}, {})
    assert read_estimates(path) == model


def test_neither_estimates_nor_tables_are_read_as_the_other(tmp_path: Path) -> None:
    estimates, exported = tmp_path / "estimates.json", tmp_path / "table.json"
    write_estimates(estimates, MODEL, {}, {})
    write_table(exported, table(), {}, {})
    with pytest.raises(EstimateError, match="cannot be read as a latency table"):
        read_table(estimates)
    with pytest.raises(EstimateError, match="cannot be read as a file of estimates"):
        read_estimates(exported)


def test_estimates_are_written_over_estimates_and_over_nothing_else(tmp_path: Path) -> None:
    estimates, exported = tmp_path / "estimates.json", tmp_path / "table.json"
    write_estimates(estimates, MODEL, {}, {})
    write_estimates(estimates, replace(MODEL, fixed_ns=5.0), {}, {})
    assert read_estimates(estimates).fixed_ns == 5.0
    write_table(exported, table(), {}, {})
    before = exported.read_bytes()
    with pytest.raises(EstimateError, match="holds something else than estimates"):
        write_estimates(exported, MODEL, {}, {})
    assert exported.read_bytes() == before


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EstimateError, match="there is no folder"):
        check_place(tmp_path / "nowhere" / "estimates.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(version=2),
        lambda document: document.update(model=None),
        lambda document: document["model"].update(estimated={"b": {"value_ns": 1.0}}),
        lambda document: document["model"]["estimated"]["b"].update(kind="measurement"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "estimates.json"
    write_estimates(path, MODEL, {}, {})
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(EstimateError, match="cannot be read as a file of estimates"):
        read_estimates(path)
