"""The tabular study: its space, which takes nothing from Lathe, and a small run of all of it."""

import importlib
import json
import sys

import numpy as np
import pytest

from pipeline.search.budgets.constraints import Constraints
from pipeline.search.strategies.evolution import EvolutionStrategy
from tests.contracts.search_space import SearchSpaceContract
from tests.contracts.strategy import StrategyContract
from tests.places import ROOT, SHARED
from tools.studies.cell_space import OPERATIONS, Cell, CellSpace, TabledLatency, cell

DATA = SHARED / "nasbench201" / "nasbench201.npz"


class TestCellSpace(SearchSpaceContract):
    @pytest.fixture
    def space(self):
        return CellSpace()


class TestEvolutionOnCells(StrategyContract):
    @pytest.fixture
    def constraints(self):
        latencies_ns = np.random.default_rng(0).uniform(1, 1000, CellSpace().count())
        return Constraints(CellSpace(), {"t": TabledLatency(latencies_ns)}, {"t": 10.0})

    def make(self, constraints, seed):
        return EvolutionStrategy(constraints, seed, population_size=8)


def test_cells_that_compute_the_same_but_for_dead_edges_differ_only_in_their_own_operations():
    operations = ("nor_conv_3x3", "none", "none", "skip_connect", "none", "avg_pool_3x3")
    one, other = (cell((first, *operations[1:])) for first in ("nor_conv_3x3", "avg_pool_3x3"))
    codes = [CellSpace().encode(each) for each in (one, other)]
    assert (codes[0][:30] != codes[1][:30]).any()
    assert (codes[0][30:] == codes[1][30:]).all()
    counts = dict(zip(OPERATIONS, 2 * codes[0][60:], strict=True))
    assert counts == dict.fromkeys(OPERATIONS, 0.0) | {"none": 5.0, "skip_connect": 1.0}


def test_cells_are_numbered_in_the_order_of_the_members():
    numbers = [cell.number for cell in CellSpace().members()]
    assert numbers == list(range(5**6))
    assert all(type(cell) is Cell for cell in CellSpace().members())


@pytest.mark.skipif(not DATA.exists(), reason="NAS-Bench-201 is not beside the checkout")
def test_study_runs_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pymoo", reason="pymoo is not installed")
    monkeypatch.syspath_prepend(ROOT / "tools" / "studies")
    tabular, tabular_page = map(importlib.import_module, ("tabular", "tabular_page"))
    monkeypatch.setattr(tabular, "SCALES", {"smoke": (("pixel3",), 1)})
    monkeypatch.setattr(tabular, "PERCENTILES", (20, 60))
    monkeypatch.setattr(tabular, "CHECKPOINTS", (10, 25, 50, 100))
    monkeypatch.setattr(tabular, "RESAMPLES", 200)
    monkeypatch.setattr(tabular_page, "SHOWN", (25, 50, 100))
    page = tmp_path / "docs" / "results" / "tabular.md"

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tabular.py", "--work", str(tmp_path / "work"), *arguments])
        tabular.main()
        return json.loads(capsys.readouterr().out)

    first = run()
    rows = tmp_path / "work" / "rows.jsonl"
    lines = rows.read_bytes().splitlines(keepends=True)
    searches = [name for name in first["strategies"] if not name.endswith(", ranked")]
    assert len(lines) == 1 * 2 * len(searches)
    rows.write_bytes(b"".join(lines[:-3]) + lines[-3][:20])
    assert run("--page", str(page)) == first
    assert rows.read_bytes() == b"".join(lines)
    assert "regularised evolution" in page.read_text()
    assert (tmp_path / "docs" / "figures" / "tabular.png").stat().st_size > 0
    for found in first["strategies"].values():
        assert all(low <= mean <= high for low, mean, high in zip(*bounds(found["regret"]), strict=True))
        assert found["core_seconds"] == sorted(found["core_seconds"])
    assert set(first["strategies"]["random"]["less_than_random"]["mean"]) == {0.0}
    rated = [row["rated"] for row in map(json.loads, lines) if row["strategy"] == "rated"]
    assert all(counts[0] > 0 and counts == sorted(counts) for counts in rated)
    assert "## What it costs" in page.read_text()


def bounds(values):
    return values["low"], values["mean"], values["high"]
