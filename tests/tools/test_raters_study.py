"""The study of ratings: its networks, and its summary and page from ratings that were kept."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.search.evaluators.supernet.weights import SharedWeights
from tests.places import ROOT, SHARED

DATA = SHARED / "nasbench201" / "nasbench201.npz"
RATINGS = ROOT / "docs" / "results" / "raters" / "ratings.npz"
STUDIES = (
    "raters",
    "raters_page",
    "cell_networks",
    "cell_ratings",
    "cell_space",
    "tabular",
    "tabular_page",
)
ALL_3X3 = ("nor_conv_3x3",) * 6


@pytest.fixture(name="studies")
def _studies(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Modules of the folder by name."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(ROOT / "tools" / "studies")
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name in STUDIES:
            del sys.modules[name]


def test_a_network_is_its_blocks_and_has_the_skeletons_size(studies: Any) -> None:
    networks, cells = studies("cell_networks"), studies("cell_space")
    space, cell = networks.CellNetworks(), cells.cell(ALL_3X3)
    network = space.build(cell).eval()
    images = torch.randn(2, 3, 32, 32)
    features = images
    with torch.no_grad():
        for block in space.blocks(cell):
            assert tuple(features.shape[1:]) == block.input_shape
            features = space.build_block(block).eval()(features)
    assert network(images).shape == features.shape == (2, 10)
    # Six convolutions with their norms in each of three cells, beside what all networks have.
    counted = [sum(p.numel() for p in each.parameters()) for each in network]
    assert [counted[place] for place in (1, 3, 5)] == [6 * (9 * w * w + 2 * w) for w in (16, 32, 64)]


def test_edges_that_lead_nowhere_make_no_other_network(studies: Any) -> None:
    networks, cells = studies("cell_networks"), studies("cell_space")
    dead = ("nor_conv_3x3", "none", "none", "skip_connect", "none", "avg_pool_3x3")
    alive = cells.cell(("none", "none", "none", "skip_connect", "none", "none"))
    assert networks.live(cells.cell(dead)) == alive
    assert networks.is_connected(cells.cell(dead))
    assert not networks.is_connected(cells.cell(("nor_conv_3x3", "none", "none", "none", "none", "none")))
    whole = cells.cell(ALL_3X3)
    assert networks.live(whole) == whole


def test_networks_that_are_tuned_on_are_different_and_the_same_for_a_seed(studies: Any) -> None:
    raters, networks = studies("raters"), studies("cell_networks")
    found = raters.tuned_on(60, 1)
    assert len({networks.live(cell) for cell in found}) == 60
    assert [cell.number for cell in raters.tuned_on(30, 1)] == [cell.number for cell in found[:30]]
    assert all(networks.is_connected(cell) for cell in found)


def test_cells_share_the_weights_of_an_operation_on_an_edge(studies: Any) -> None:
    networks, cells = studies("cell_networks"), studies("cell_space")
    space = networks.CellNetworks()
    weights = SharedWeights(space, 0)
    images = torch.randn(4, 3, 32, 32)
    one = cells.cell(ALL_3X3)
    other = one.with_choice("0-1", "nor_conv_1x1")
    assert weights.run(weights.placed(one), images).shape == (4, 10)
    before = set(weights.tensors)
    assert weights.run(weights.placed(other), images).shape == (4, 10)
    # Nothing is new but the other operation, with its norm, in three cells.
    new = set(weights.tensors) - before
    assert len(new) == 3 * 3
    assert all("0-1 nor_conv_1x1" in name for name in new)


@pytest.mark.skipif(not DATA.exists(), reason="NAS-Bench-201 is not beside the checkout")
def test_summary_and_page_follow_from_the_ratings_that_were_kept(
    studies: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    raters, page = studies("raters"), studies("raters_page")
    monkeypatch.setattr(raters, "RESAMPLES", 5)
    ratings, costs = raters.stored(RATINGS)
    assert {len(values) for values in ratings.values()} == {15625}
    assert costs["blockwise"][1] > costs["blockwise"][0] > 0
    networks = raters.rated(ratings)
    numbers = raters.drawn(networks, 120, 1)
    assert len(set(numbers.tolist())) == 120
    with pytest.raises(SystemExit, match="networks are rated"):
        raters.drawn(networks, 100_000, 1)
    result = raters.summary(RATINGS, 120, 1)
    assert (result["cells"], result["known_to_the_process"]) == (120, len(networks) // 10)
    cost = result["raters"]["multiply-accumulates"]["cifar10"]
    assert cost["tau"]["low"] <= cost["tau"]["value"] <= cost["tau"]["high"]
    assert cost["tau"]["value"] > cost["in_bands"]["value"]
    (tmp_path / "results").mkdir()
    page.write_page(result, tmp_path / "results" / "raters.md")
    text = (tmp_path / "results" / "raters.md").read_text()
    assert text.count("(target at least") == 4
    assert f"| naswot | {result['raters']['naswot']['cifar10']['tau']['value']:.2f}" in text
    assert (tmp_path / "figures" / "raters.png").stat().st_size > 0
