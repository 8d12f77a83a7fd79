from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devices.measurement.measurement import Reason
from latency_db.errors import EstimateError
from latency_db.models.network_model import NetworkModel
from latency_db.store.store import open_store
from pipeline.errors import RecipeError
from pipeline.progress import ConsoleReporter
from pipeline.spaces.base import Architecture, Condition, Decision
from pipeline.spaces.decisions import DecisionSpace
from pipeline.spaces.mobile.config import SpaceConfig
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.space_table import load
from pipeline.tables.prediction.networks import drawn, landmarks, predict, predictions_json, written
from pipeline.tables.spaces import space_of
from tests.made_up_tables import (
    OLD,
    PROTOCOL,
    SPACE,
    keep_blocks,
    keep_networks,
    network_ns,
    old_ns,
    planned,
)


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkModel]:
    with open_store(str(tmp_path_factory.mktemp("prediction") / "latency.db")) as store:
        bench = Bench(store, PROTOCOL, ConsoleReporter())
        keep_blocks(bench, OLD, SPACE.distinct_blocks(), old_ns)
        keep_networks(bench, OLD, planned(12), old_ns)
        yield load(SPACE, OLD, bench).model


def without(model: NetworkModel, network: Architecture) -> NetworkModel:
    """A model of a target on which a block of the network cannot run."""
    failing = SPACE.blocks(network)[1].identity
    rows = {block: row for block, row in model.table.rows.items() if block != failing}
    return replace(
        model, table=replace(model.table, rows=rows, failed={failing: Reason("unsupported", "no")})
    )


def test_landmarks_are_the_reference_the_fastest_and_the_slowest(model: NetworkModel) -> None:
    found = landmarks(SPACE, model)
    assert found["reference"] == SPACE.reference()
    costs = {each: network_ns(each, old_ns) for each in SPACE.members()}
    assert costs[found["fastest"]] == min(costs.values())
    assert costs[found["slowest"]] == max(costs.values())


def test_predictions_meet_what_the_model_was_fitted_on(model: NetworkModel) -> None:
    networks = drawn(SPACE, 10, 1)
    assert list(networks) == [f"random {number}" for number in range(1, 11)]
    assert len(set(networks.values())) == 10
    for prediction in predict(SPACE, model, networks):
        assert prediction.architecture == networks[prediction.label]
        truth = network_ns(prediction.architecture, old_ns)
        assert prediction.estimate.value_ns == pytest.approx(truth, rel=1e-2)
        assert prediction.obstacles == {}


def test_network_that_cannot_run_has_no_latency_and_names_the_block(model: NetworkModel) -> None:
    network = SPACE.reference()
    broken = without(model, network)
    (prediction,) = predict(SPACE, broken, {"mine": network})
    assert prediction.estimate.low_ns == math.inf
    document = predictions_json(broken, [prediction])["networks"][0]
    assert document["estimate_ms"] is document["low_ms"] is document["high_ms"] is None
    assert document["cannot_run"] == [
        {"block": str(SPACE.blocks(network)[1]), "code": "unsupported", "detail": "no"}
    ]
    assert document["not_measured"] == []
    found = landmarks(SPACE, broken)
    assert network not in (found["fastest"], found["slowest"])


def test_network_with_a_missing_block_has_no_latency_and_is_not_said_to_be_unable(
    model: NetworkModel,
) -> None:
    network = SPACE.reference()
    broken = without(model, network)
    lost = replace(broken, table=replace(broken.table, failed={}, missing=broken.table.failed))
    (prediction,) = predict(SPACE, lost, {"mine": network})
    assert prediction.estimate.low_ns == math.inf
    assert not prediction.cannot_run
    document = predictions_json(lost, [prediction])["networks"][0]
    assert document["cannot_run"] == []
    assert document["not_measured"][0]["block"] == str(SPACE.blocks(network)[1])


def test_table_of_another_space_is_refused_by_the_names_of_its_blocks(model: NetworkModel) -> None:
    other = MobileSpace.from_config(None, (3, 8, 8), 10)
    with pytest.raises(EstimateError, match="lacks 1 block of these networks") as caught:
        predict(other, model, {"mine": other.reference()})
    assert str(other.blocks(other.reference())[0]) in caught.value.why


def test_document_says_estimate_and_under_which_key(model: NetworkModel) -> None:
    document = predictions_json(model, predict(SPACE, model, {"mine": SPACE.reference()}))
    assert document["kind"] == "estimates"
    assert model.table.key is not None
    assert document["key"]["runtime"]["version"] == model.table.key.runtime.version
    (network,) = document["networks"]
    assert network["label"] == "mine"
    assert 0 < network["low_ms"] <= network["estimate_ms"] <= network["high_ms"]
    assert written(SPACE, json.dumps(network["architecture"])) == [SPACE.reference()]


def test_architectures_are_read_from_text_and_from_files(tmp_path: Path) -> None:
    networks = list(drawn(SPACE, 3, 2).values())
    listed = json.dumps([dict(each.choices) for each in networks])
    path = tmp_path / "networks.json"
    path.write_text(listed)
    assert written(SPACE, listed) == written(SPACE, str(path)) == networks


def test_printed_architectures_can_be_pasted_back() -> None:
    for network in drawn(SPACE, 5, 3).values():
        assert written(SPACE, str(network)) == [network]


def test_printed_architectures_may_be_longer_than_the_name_of_a_file() -> None:
    large = MobileSpace.from_config(SpaceConfig(preset="akd"), (3, 224, 224), 1000)
    network = large.reference()
    assert len(str(network)) > 255
    assert written(large, str(network)) == [network]


def test_a_file_whose_name_reads_like_an_architecture_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("depth=1.json").write_text(json.dumps(dict(SPACE.reference().choices)))
    assert written(SPACE, "depth=1.json") == [SPACE.reference()]


@pytest.mark.parametrize(
    ("text", "why"),
    [("stage1(kernel=3", "is no choice"), ("kernel=", "is no choice"), ("colour=1", "colour: unknown")],
)
def test_what_is_printed_of_no_architecture_is_refused(text: str, why: str) -> None:
    with pytest.raises(RecipeError) as caught:
        written(SPACE, text)
    assert why in caught.value.why
    assert str(SPACE.reference()) in caught.value.fix


def test_equal_numbers_are_taken_as_the_space_writes_them() -> None:
    given = {name: float(choice) for name, choice in SPACE.reference().choices}
    (found,) = written(SPACE, json.dumps(given))
    assert [block.identity for block in SPACE.blocks(found)] == [
        block.identity for block in SPACE.blocks(SPACE.reference())
    ]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda given: given.pop("stage1.kernel"), "stage1.kernel: missing"),
        (lambda given: given.update(colour=1), "colour: unknown"),
        (lambda given: given.update({"stage1.kernel": 4}), "stage1.kernel = 4 is not in"),
        (lambda given: given.update({"stage1.kernel": [3]}), "stage1.kernel"),
    ],
)
def test_what_is_no_network_of_the_space_is_refused(change: Any, why: str) -> None:
    given = dict(SPACE.reference().choices)
    change(given)
    with pytest.raises(RecipeError) as caught:
        written(SPACE, json.dumps(given))
    assert why in caught.value.why


@pytest.mark.parametrize("text", ["{", "[3]", "nowhere.json", "", '{"a": NaN', "[" * 100_000])
def test_text_that_is_no_architecture_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        written(SPACE, text)


class _Conditional(DecisionSpace):
    decisions = (
        Decision("operation", ("plain", "wide")),
        Decision("expansion", (2, 3), Condition("operation", ("wide",))),
    )

    def reference(self) -> Architecture:
        return Architecture((("operation", "wide"), ("expansion", 3)))


def test_decision_that_is_not_to_be_made_may_be_left_out() -> None:
    space: Any = _Conditional()
    (found,) = written(space, '{"operation": "plain"}')
    assert dict(found.choices) == {"operation": "plain", "expansion": 2}
    with pytest.raises(RecipeError, match="not to be made") as caught:
        written(space, '{"operation": "plain", "expansion": 3}')
    assert "not to be made" in caught.value.why


def test_space_is_made_again_from_its_description() -> None:
    assert space_of(json.loads(json.dumps(SPACE.description))) == SPACE


@pytest.mark.parametrize(
    "change", [{"space": "other"}, {"version": 9}, {"classes": 0}, {"config": {}}, {"x": 1}]
)
def test_description_of_a_space_that_is_not_known_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(EstimateError, match="cannot be made"):
        space_of({**SPACE.description, **change})
