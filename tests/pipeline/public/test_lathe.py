"""The public Python API: its page is true, its results can be read, and what it imports is little."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lathe
import pytest

from latency_db.store import open_store
from pipeline.progress import ConsoleReporter
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.space_table import load
from pipeline.tables.exchange.table_file import write_table
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
from tests.pipeline.run.tiny_recipe import write_recipe
from tests.pipeline.tiny_bundles import bundle_content, save_onnx, written_bundle
from tests.places import ROOT

__all__ = ["bundle_content", "written_bundle"]

PAGE = (ROOT / "docs" / "reference" / "python.md").read_text("utf-8")
TARGET = "host/onnxruntime:fp32@1"


def examples(heading: str) -> list[str]:
    """The Python examples below a heading of the page."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


def run_examples(codes: list[str]) -> dict[str, Any]:
    """Run them one after the other, as in a notebook."""
    names: dict[str, Any] = {"lathe": lathe}
    for code in codes:
        exec(code, names)
    return names


@pytest.fixture(name="table_file", scope="module")
def _table_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("public")
    with open_store(str(folder / "latency.db")) as store:
        bench = Bench(store, PROTOCOL, ConsoleReporter())
        keep_blocks(bench, OLD, SPACE.distinct_blocks(), old_ns)
        keep_networks(bench, OLD, planned(12), old_ns)
        texts = {block.identity: str(block) for block in SPACE.distinct_blocks()}
        write_table(folder / "table.json", load(SPACE, OLD, bench).model, SPACE.description, texts)
    yield folder / "table.json"


def readable(result: Any) -> None:
    """What every result promises."""
    document = result.to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    document.clear()
    assert result.to_json(), "a caller cannot change the result"
    assert repr(result) == str(result)
    assert "<table>" in result._repr_html_()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.target = "elsewhere"


def test_importing_it_imports_neither_torch_nor_numpy_nor_pydantic() -> None:
    code = "import sys, lathe; print(sorted({'torch', 'numpy', 'pydantic', 'rich'} & set(sys.modules)))"
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'pipeline' / 'public'}"}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_export_has_a_docstring_and_an_annotation_for_all_it_takes() -> None:
    for name in lathe.__all__:
        exported = getattr(lathe, name)
        assert exported.__doc__, name
        if not isinstance(exported, type):
            assert set(exported.__annotations__) > {"return"}, name


@pytest.mark.usefixtures("quiet_machine")
def test_examples_of_latencies_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_onnx(tmp_path / "model.onnx")
    save_onnx(tmp_path / "other.onnx", 3)
    monkeypatch.chdir(tmp_path)
    names = run_examples(examples("Latencies of model files"))
    found, both = names["found"], names["both"]
    for result in (found, both):
        readable(result)
    assert (found.model, found.target) == ("model.onnx", TARGET)
    assert str(found.latency) in str(found)
    assert found.to_json()["target"] == TARGET
    assert both.models == ("model.onnx", "other.onnx")
    assert both.finding in str(both)


def test_examples_of_tables_predict_from_a_file(table_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(table_file.parent)
    names = run_examples(examples("Latency tables")[:1])
    table, prediction = names["table"], names["prediction"]
    for result in (table, prediction):
        readable(result)
    assert table.space.description == SPACE.description
    assert len(table.latencies_ns) == len(SPACE.distinct_blocks())
    truth_ns = network_ns(names["network"], old_ns)
    assert prediction.estimate.value_ns == pytest.approx(truth_ns, rel=1e-2)
    assert str(prediction).startswith("~"), "an estimate is not shown as a measurement"


def test_network_of_another_space_is_refused(table_file: Path) -> None:
    with pytest.raises(lathe.LatheError, match="architecture"):
        lathe.load_table(table_file).predict([{"stage1.kernel": 9}])


def test_saved_table_is_the_one_that_was_read(table_file: Path, tmp_path: Path) -> None:
    table = lathe.load_table(table_file)
    table.save(tmp_path / "again.json")
    again = lathe.load_table(tmp_path / "again.json")
    assert again.to_json() == table.to_json()
    assert [each.estimate for each in again.predict()] == [each.estimate for each in table.predict()]


@pytest.mark.usefixtures("quiet_machine")
def test_examples_of_bundles_run(
    written_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "bundle").symlink_to(written_bundle)
    monkeypatch.chdir(tmp_path)
    names = run_examples(examples("Bundles"))
    bundle, verified = names["bundle"], names["verified"]
    for result in (bundle, verified):
        readable(result)
    assert bundle.targets[0].artifact.is_file()
    assert bundle.to_json()["digest"] == bundle.digest
    assert [each.target for each in verified.targets] == [each.target for each in bundle.targets]
    assert verified.targets[0].accuracy == bundle.targets[0].accuracy
    narrow, wide = verified.targets[0].latency, verified.targets[0].latency_on_device
    assert wide is None or (wide.low_ns < narrow.low_ns and wide.high_ns > narrow.high_ns)
    assert f"{narrow} measured here and now" in repr(verified)


@pytest.mark.usefixtures("quiet_machine", "exporters_here")
@pytest.mark.slow
def test_examples_of_tables_and_recipes_build_and_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(tmp_path).rename(tmp_path / "mine.toml")
    monkeypatch.chdir(tmp_path)
    names = run_examples(examples("Latency tables")[1:] + examples("Recipes"))
    readable(names["searched"])
    readable(names["done"])
    assert len(names["searched"].candidates) == 4, "settings replace those of the recipe"
    assert lathe.load_table("mine.json").to_json() == names["built"].to_json()
    assert {each.budget for each in names["done"].targets} == {"1000 ms"}
    bundle = lathe.open_bundle(names["done"].bundle)
    assert [each.accuracy for each in bundle.targets] == [each.accuracy for each in names["done"].targets]


def test_missing_model_says_what_to_do() -> None:
    with pytest.raises(lathe.LatheError) as caught:
        lathe.profile("nowhere.onnx", TARGET)
    assert caught.value.fix
