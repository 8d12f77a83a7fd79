"""The study of ratings in the mobile space: its pieces of work are done once, its page follows from them."""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.distill.settings import DistillationSettings
from pipeline.search.evaluators.supernet.settings import SupernetSettings
from pipeline.spaces.mobile.space import MobileSpace
from tests.places import ROOT


@pytest.fixture(name="studies")
def _studies(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Modules of the folder by name."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(ROOT / "tools" / "studies")
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name in ("mobile_pool", "mobile_pool_page", "units"):
            del sys.modules[name]


@pytest.fixture(name="archive")
def _archive(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for split, count in (("train", 60), ("test", 20)):
        found[f"{split}_x"] = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        found[f"{split}_y"] = np.arange(count) % 10
    path = tmp_path / "images.npz"
    np.savez(path, **found)
    return path


def small_pool(study: Any, archive: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A network for each level, one of them trained twice, everything short."""
    settings = DistillationSettings(epochs=1, batch_size=16, threads=1)
    scale = {"IN_FULL": settings, "SHORT": settings, "SHORT_IMAGES": 30, "RATED_IMAGES": 40, "TWICE": 1}
    supernet = SupernetSettings(epochs=1, batch_size=16, score_images=4, threads=1)
    for name, value in {**scale, "SUPERNET": supernet, "OF_LEVEL": 1}.items():
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr(study, "RATINGS", ("synflow", "relation", "blockwise"))
    space, generator = MobileSpace.from_config(None, (3, 32, 32), 10), random.Random(0)
    networks = [
        {
            "choices": space.sample(generator).choices,
            "level": level,
            "latency_ns": 1e5 * (1 + level),
            "parameters": 10 + level,
            "macs": 10 - level,
        }
        for level in range(3)
    ]
    folder.mkdir(exist_ok=True)
    (folder / "pool.jsonl").write_text(json.dumps({"unit": "networks", "value": networks}) + "\n")
    return study.Pool(archive, folder)


@pytest.mark.slow
def test_every_network_is_trained_and_rated_once(
    studies: Any, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = studies("mobile_pool")
    pool = small_pool(study, archive, tmp_path / "pool", monkeypatch)
    pool.train(1, 2)
    pool.train(2, 2)
    pool.rate()
    done = pool.everything()
    trained = {name for name in done if name.startswith("training ")}
    assert trained == {"training 0 0", "training 1 0", "training 2 0", "training 0 1"}
    assert all(0 <= done[name]["test_accuracy"] <= 1 for name in trained)
    rated = {"synflow", "relation", "blockwise", "short-training"}
    assert all(np.isfinite(done[f"{name} {place}"]["value"]) for name in rated for place in range(3))
    assert done["blockwise training"]["core_seconds"] > 0
    # A second call finds everything, and a new process too.
    monkeypatch.setattr(study, "fit", None)
    again = study.Pool(archive, tmp_path / "pool")
    again.train(1, 2)
    again.rate()
    assert again.everything() == done


def made_up(count: int = 30) -> dict[str, Any]:
    """Accuracies that the kinds of rating follow, and sizes that say nothing."""
    generator = np.random.default_rng(0)
    truth = generator.normal(0.8, 0.02, count)
    training = {"core_seconds": 3600.0, "epochs": 2, "images": 5000}
    done: dict[str, Any] = {
        "networks": [
            {
                "choices": [],
                "level": place // (count // 3),
                "latency_ns": 1e5 * (1 + place),
                **dict(zip(("macs", "parameters"), generator.integers(1, 1000, 2).tolist(), strict=True)),
            }
            for place in range(count)
        ]
    }
    for place in range(count):
        done[f"training {place} 0"] = {"test_accuracy": truth[place], **training}
        for name in ("synflow", "relation", "blockwise", "short-training"):
            done[f"{name} {place}"] = {
                "value": truth[place] + generator.normal(0, 0.01),
                "core_seconds": 1.0,
            }
    done["blockwise training"] = {"core_seconds": 10.0}
    for place in range(8):
        again = truth[place] + 0.01 * (-1) ** place
        done[f"training {place} 1"] = {"test_accuracy": again, **training}
    return done


def test_the_page_tells_what_the_fused_rating_is_worth(
    studies: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, done = studies("mobile_pool_page"), made_up()
    monkeypatch.setattr(page, "RESAMPLES", 100)
    (tmp_path / "results").mkdir()
    page.write_page(done, tmp_path / "results" / "mobile_pool.md", "a machine")
    text = (tmp_path / "results" / "mobile_pool.md").read_text()
    assert (tmp_path / "figures" / "mobile_pool.png").stat().st_size > 0
    assert "2 epochs over 5,000 images, 38.0 core-hours on a machine" in text.replace("\n", " ")
    # Both trainings of a network differ by 0.01: so one of them deviates by 0.01 over the root of two.
    assert "standard deviation of 0.71%" in text
    beside = [line for line in text.splitlines() if line.startswith("- tau in levels, beside")]
    assert len(beside) == 3
    assert all("(better)" in line for line in beside if "macs" in line or "parameters" in line)


def test_no_page_is_written_before_everything_is_there(studies: Any, tmp_path: Path) -> None:
    page, done = studies("mobile_pool_page"), made_up()
    del done["training 7 0"]
    with pytest.raises(SystemExit, match="not everything is there yet"):
        page.write_page(done, tmp_path / "mobile_pool.md", "a machine")


def test_tau_in_levels_sees_no_difference_between_levels(studies: Any) -> None:
    page = studies("mobile_pool_page")
    levels = np.repeat([0, 1, 2], 4)
    truth = np.tile([1.0, 2.0, 3.0, 4.0], 3) + 10 * levels
    assert page.in_levels(truth, truth, levels) == 1
    assert page.in_levels(-truth + 100 * levels, truth, levels) == -1
    assert page.tau(-truth + 100 * levels, truth, levels) > 0.4
