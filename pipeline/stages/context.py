"""What every stage may use: recipe, work folder, latency database, targets, and where to report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from devices.host import temporary_folder
from devices.measurement import DeviceIdentity, MeasuringProtocol, RuntimeIdentity
from devices.target import Target
from latency_db.store import Store
from pipeline.budget import Budget
from pipeline.export.base import student_format
from pipeline.progress import Reporter
from pipeline.recipe.loading import Recipe
from pipeline.work.folder import WorkFolder


@dataclass
class Context:
    """One run. Stages read it and never change it."""

    recipe: Recipe
    recipe_text: str
    work: WorkFolder
    store: Store
    reporter: Reporter

    @cached_property
    def budgets(self) -> dict[Target, Budget]:
        """The budget of every target, in the recipe's order."""
        return {config.target(): config.limit() for config in self.recipe.target}

    @property
    def tries(self) -> int:
        """How many candidates of a round may be trained in full."""
        return max(self.recipe.verify.candidates, self.recipe.search.finalists)

    @cached_property
    def identities(self) -> dict[Target, tuple[RuntimeIdentity, DeviceIdentity]]:
        """Runtime and device behind every target, asked once per run.

        Raises:
            TargetError: a target is unknown or its runtime is not installed.
        """
        from devices.measuring import probe

        return {target: probe(target) for target in self.budgets}

    def check_targets(self) -> None:
        """Find out before any work whether every target can be reached and compiled for.

        Raises:
            TargetError: a target is unknown, its runtime is not installed, or no student is made in its
                precision.
        """
        for target in self.budgets:
            student_format(target)
        assert self.identities

    @property
    def protocol(self) -> MeasuringProtocol:
        """Protocol of block tables and of whole networks before verification."""
        return MeasuringProtocol(launches=self.recipe.measure.launches)

    def conditions(self, target: Target) -> dict[str, Any]:
        """Everything besides the workload that decides a latency on ``target``, as JSON."""
        runtime, device = self.identities[target]
        return {
            "target": str(target),
            "runtime": asdict(runtime),
            "device": asdict(device),
            "protocol": asdict(self.protocol),
        }

    @property
    def verification_protocol(self) -> MeasuringProtocol:
        """Protocol of verification: more launches, for a surer interval."""
        return MeasuringProtocol(launches=self.recipe.verify.launches)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder that is gone afterwards, on the disk of the work folder."""
        with temporary_folder("scratch", self.work.path) as folder:
            yield folder


def versions() -> dict[str, str]:
    """Installed versions of what decides the results; packages that are not installed are left out."""
    names = ("lathe-deploy", "torch", "numpy", "onnx", "onnxruntime", "onnxscript", "litert-torch")
    found = {}
    for name in (*names, "ai-edge-litert"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def training_versions() -> dict[str, str]:
    """The versions that decide how training goes: part of the inputs of stages that train."""
    return {name: found for name, found in versions().items() if name in ("lathe-deploy", "torch")}
