"""NNI's own strategies, run by NNI, with a profiler behind their filters and penalties."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nni", reason="NNI is not installed")

import nni
import torch
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.evaluator.pytorch import ClassificationModule, Lightning, Trainer
from nni.nas.experiment import NasExperiment, NasExperimentConfig
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty, RangeProfilerFilter
from nni.nas.space import ModelStatus
from nni.nas.strategy import DARTS, GumbelDARTS, Proxyless, Random, RandomOneShot, RegularizedEvolution
from nni.nas.strategy.middleware import Chain, Filter
from torch.utils.data import DataLoader, TensorDataset

from pipeline.integrations.nni import LatencyTableProfiler, with_penalty_gradient
from tests.pipeline.integrations.nni.nni_spaces import IMAGES, Small, TwoLayers
from tests.pipeline.integrations.nni.nni_tables import block_space, fill, profiler

TWO = block_space(TwoLayers, IMAGES)


@pytest.fixture(name="home", autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """NNI lists its experiments under the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(name="small", scope="module")
def _small(tmp_path_factory: pytest.TempPathFactory) -> LatencyTableProfiler:
    db = tmp_path_factory.mktemp("small") / "latency.db"
    fill(db, block_space(Small, IMAGES))
    return profiler(db, Small, IMAGES)


@pytest.fixture(name="two", scope="module")
def _two(tmp_path_factory: pytest.TempPathFactory) -> LatencyTableProfiler:
    db = tmp_path_factory.mktemp("two") / "latency.db"
    fill(db, TWO)
    return profiler(db, TwoLayers, IMAGES)


def configuration(home: Path, models: int | None = None) -> NasExperimentConfig:
    config = NasExperimentConfig(execution_engine="sequential", model_format="raw")
    config.execution_engine.max_model_count = models
    config.experiment_working_directory = home / "experiments"
    return config


def best_of(experiment: NasExperiment) -> list[dict[str, object]]:
    """Run an experiment to its end; the sample of the best model."""
    nni.silence_stdout()
    try:
        experiment.run()
        return experiment.export_top_models(1, formatter="dict")
    finally:
        experiment.stop()


def weights(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    "strategy",
    [Random(seed=0), RegularizedEvolution(population_size=6, sample_size=3)],
    ids=["random", "evolution"],
)
def test_every_model_that_is_evaluated_keeps_the_budget(
    strategy, small: LatencyTableProfiler, home: Path
) -> None:
    plan = block_space(Small, IMAGES).calibration_plan()
    budget_ms = sorted(map(small.profile, plan))[len(plan) // 3]
    within = RangeProfilerFilter(small, 0, budget_ms)
    evaluated = []

    def evaluate(model: torch.nn.Module) -> None:
        evaluated.append(weights(model))
        nni.report_final_result(float(evaluated[-1]))

    chain = Chain(strategy, Filter(lambda model: within(model.sample)))
    (best,) = best_of(
        NasExperiment(Small(), FunctionalEvaluator(evaluate), chain, configuration(home, models=12))
    )

    models = list(chain.list_models(sort=False))
    trained = [model for model in models if model.status is ModelStatus.Trained]
    assert len(trained) == len(evaluated) == 12
    assert all(small.profile(model.sample) <= budget_ms for model in trained)
    refused = [model for model in models if model.status is ModelStatus.Invalid]
    assert refused
    assert all(small.profile(model.sample) > budget_ms for model in refused)
    assert small.profile(best) <= budget_ms


def evaluator() -> Lightning:
    """Trains on pure noise, in which all candidates are alike."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 3, 8, 8, generator=generator)
    labels = torch.randint(2, (64,), generator=generator)
    loader = DataLoader(TensorDataset(images, labels), batch_size=8)
    return Lightning(
        ClassificationModule(num_classes=2),
        Trainer(
            max_epochs=3,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
        ),
        train_dataloaders=loader,
        val_dataloaders=loader,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", [DARTS, GumbelDARTS, Proxyless])
def test_penalty_with_a_gradient_leads_a_differentiable_strategy_to_the_cheapest_network(
    kind, two: LatencyTableProfiler, home: Path
) -> None:
    penalty = ExpectationProfilerPenalty(two, baseline=two.profile({"a": 2, "b": 2}), scale=100.0)
    strategy = with_penalty_gradient(kind(arc_learning_rate=0.1, penalty=penalty))
    best_of(NasExperiment(TwoLayers(), evaluator(), strategy, configuration(home)))
    assert [int(weight.argmax()) for weight in strategy.oneshot_module.arch_parameters()] == [2, 2]


@pytest.mark.slow
def test_nni_alone_gives_its_penalty_numbers_that_have_no_gradient(
    two: LatencyTableProfiler, home: Path
) -> None:
    strategy = DARTS(penalty=ExpectationProfilerPenalty(two, baseline=1.0))
    best_of(NasExperiment(TwoLayers(), evaluator(), strategy, configuration(home)))
    shares = strategy.oneshot_module.export_probs()
    assert all(isinstance(share, float) for each in shares.values() for share in each.values())


@pytest.mark.slow
def test_filter_keeps_the_samples_of_a_supernet_within_the_budget(
    two: LatencyTableProfiler, home: Path
) -> None:
    budget_ms = two.profile({"a": 1, "b": 1})
    within = RangeProfilerFilter(two, 0, budget_ms)
    seen = []

    def watched(sample: dict[str, int]) -> bool:
        seen.append((dict(sample), within(sample)))
        return seen[-1][1]

    strategy = RandomOneShot(filter=watched)
    best_of(NasExperiment(TwoLayers(), evaluator(), strategy, configuration(home)))
    kept = [sample for sample, keeps in seen if keeps]
    assert len(kept) < len(seen)
    assert kept
    assert all(two.profile(sample) <= budget_ms for sample in kept)
