"""Runs with made-up stages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.measurement import MeasuringProtocol
from devices.target import Target
from pipeline.recipe.loading import parse_recipe
from pipeline.run import Forecast, RunResult, run
from pipeline.search.evaluators.registry import EVALUATORS, SHORT_TRAINING
from pipeline.stages.latency.targets import BoundTarget, OutputsPlace
from pipeline.work.folder import WorkFolder
from tests.pipeline.run.made_up_run import Quiet
from tests.pipeline.run.made_up_stages import DEVICE, RUNTIME, made_up_functions


class Lathe:
    """Runs recipes with made-up stages on one work folder; identities can be changed in between."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runtime, self.device, self.protocol = RUNTIME, DEVICE, {}
        self.exporter, self.versions = "1", {"lathe-deploy": "1"}
        self.elsewhere: OutputsPlace | None = None
        self.text = "text"

    def run(self, document: dict[str, Any]) -> RunResult:
        recipe = parse_recipe(document, self.folder)
        return run(recipe, self.text, WorkFolder(self.folder / "work"), str(self.folder / "l.db"), Quiet())

    def again(self, document: dict[str, Any]) -> set[str]:
        """Names of the stages that ran."""
        return {record.name for record in self.run(document).stages if not record.cached}


@pytest.fixture(name="lathe")
def _lathe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lathe]:
    lathe = Lathe(tmp_path)
    for name in ("data.npz", "weights.pt", "graph.pt2", "other/data.npz", "other/weights.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)

    def bind(target: Target) -> BoundTarget:
        return BoundTarget(target, lathe.runtime, lathe.device, lathe.elsewhere)

    monkeypatch.setattr("pipeline.stages.latency.targets.BoundTarget.bind", bind)
    monkeypatch.setattr(
        "pipeline.stages.latency.targets.exporter_identity", lambda fmt: {"exporter": lathe.exporter}
    )
    monkeypatch.setattr("pipeline.work.stage.version", lambda name: lathe.versions.get(name, "1"))
    monkeypatch.setattr(
        "pipeline.run.context.MeasuringProtocol", lambda **given: MeasuringProtocol(**given, **lathe.protocol)
    )
    monkeypatch.setattr("pipeline.run.recipe_to_bundle.publish", lambda bundle, name, bundles: bundle)
    # What is made up cannot be timed.
    monkeypatch.setattr("pipeline.run.recipe_to_bundle.forecast", lambda context, looked: Forecast((), ()))
    monkeypatch.setattr("pipeline.teachers.code.version", lambda name: "1")
    monkeypatch.setitem(EVALUATORS, "other", EVALUATORS[SHORT_TRAINING])
    with made_up_functions():
        yield lathe
