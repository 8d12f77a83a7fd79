"""``lathe compile`` from what is asked to what was found, for one model on any number of devices."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.errors import LatheError
from devices.measurement import MeasuringProtocol
from devices.measuring import LAUNCHES
from devices.requests import OperationProfile
from devices.target import Target
from pipeline.compile.choice import Rules
from pipeline.compile.feeding import Feeding
from pipeline.compile.making import versions_of
from pipeline.compile.model import (
    Factory,
    GivenModel,
    ModelInput,
    format_of_file,
)
from pipeline.compile.model_files import external_data_of
from pipeline.compile.opening import open_model
from pipeline.compile.operations import OperationsInput, time_operations
from pipeline.compile.place import Place, is_as_it_comes
from pipeline.compile.quality import outputs_in, outputs_input, take_outputs
from pipeline.compile.race import race
from pipeline.compile.result import Raced
from pipeline.compile.runners import RaceInput
from pipeline.compile.samples import Samples, SamplesInput, open_samples, prepare_samples
from pipeline.compile.services import BetweenOf, CompileServices, assumed
from pipeline.compile.tuning import Tuning, why_not_tuned
from pipeline.compile.variants import ModelFormat, find_variant
from pipeline.errors import ExportError
from pipeline.progress import Reporter
from pipeline.tasks import TaskKind
from pipeline.work.canonical import OutsideFile
from pipeline.work.folder import WorkFolder


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        model: a file, or a factory written ``package.module:function``.
        places: where to compile for.
        data: to calibrate and compare with; ``None`` for none.
        feeding: how images become inputs.
        rules: of the choice.
        arguments: of the factory.
        weights: of the factory's network.
        weights_key: which of several state dicts in that file, or which prefix.
        input_shape: of one input, where the model does not say it.
        fine_tuning_epochs: at most, of a network of torch that loses too much in int8.
        task: what labels and the model's first output mean.
        runtimes: that may be chosen; ``None`` for all.
    """

    model: str
    places: tuple[Place, ...]
    data: Path | None = None
    feeding: Feeding = field(default_factory=Feeding)
    rules: Rules = field(default_factory=Rules)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    weights_key: str | None = None
    input_shape: tuple[int, ...] | None = None
    fine_tuning_epochs: int = 5
    task: TaskKind = "single-label"
    runtimes: frozenset[str] | None = None


@dataclass(frozen=True)
class CompiledModel:
    """What was found.

    Attributes:
        model: as it was brought.
        samples: that were taken.
        raced: by place.
        errors: by the place that gave them.
        cached: everything was there already.
        seconds: that it took now.
    """

    model: GivenModel
    samples: Samples
    raced: Mapping[str, Raced]
    errors: Mapping[str, LatheError]
    cached: bool
    seconds: float


def compile_model(
    wish: Wish, work: WorkFolder, reporter: Reporter, history: Callable[[], BetweenOf] = assumed
) -> CompiledModel:
    """Try every variant that fits on every place; a place that fails keeps no other from being tried.

    Args:
        wish: what is asked for.
        work: an opened folder, in which everything is kept.
        reporter: where to tell of progress.
        history: as of the services.

    Raises:
        ExportError, TeacherError: the model cannot be opened.
        DataError: the data cannot be used.
        LatheError: the error of the place, if there is but one.
    """
    started = time.monotonic()
    services = CompileServices(reporter, work, history)
    source = _source(wish)
    fmt = ModelFormat.TORCH if isinstance(source, Factory) else format_of_file(source.path)
    wanted = _formats(fmt, wish.places)
    external = external_data_of(source.path) if isinstance(source, OutsideFile) else ()
    brought = ModelInput(source, wish.input_shape, wanted, external)
    with reporter.task(f"reading {brought.name}", ""):
        model = work.run(open_model, brought, services)
    given = SamplesInput.of(wish.data, wish.feeding, model, wish.task)
    samples = work.run(prepare_samples, given, services)
    raced: dict[str, Raced] = {}
    errors: dict[str, LatheError] = {}
    for place in wish.places:
        try:
            tuning = Tuning(brought, given, wish.fine_tuning_epochs)
            with reporter.task(f"looking for runtimes on {place}", ""):
                asked = race_input(model, samples, place, wish.rules, tuning, runtimes=wish.runtimes)
            raced[str(place)] = work.run(race, asked, services)
        except LatheError as error:
            if len(wish.places) == 1:
                raise
            errors[str(place)] = error
    cached = all(record.cached for record in work.records)
    return CompiledModel(model, samples, raced, errors, cached, time.monotonic() - started)


def _source(wish: Wish) -> OutsideFile | Factory:
    path = Path(wish.model)
    if not path.exists() and ":" in wish.model:
        return Factory.of(wish.model, wish.arguments, wish.weights, wish.weights_key)
    format_of_file(path)
    if wish.weights is not None or wish.arguments:
        raise ExportError(
            f"{wish.model} takes no weights and no arguments",
            why="these are of a factory",
            fix="leave them out",
        )
    found = OutsideFile.of(path)
    assert found is not None
    return found


def _formats(fmt: ModelFormat, places: Sequence[Place]) -> tuple[ModelFormat, ...]:
    """Formats that variants take, as far as the model can be had in them."""
    if fmt is not ModelFormat.TORCH:
        return (fmt,)
    taken = {variant.takes for place in places for variant, unfit in place.variants() if not unfit}
    return tuple(each for each in ModelFormat if each in taken)


def race_input(
    model: GivenModel,
    samples: Samples,
    place: Place,
    rules: Rules,
    tuning: Tuning | None = None,
    *,
    runtimes: frozenset[str] | None = None,
) -> RaceInput:
    """The input of the stage ``race``, with what stands behind a place now.

    Of ``tuning`` nothing is kept where the model cannot be fine-tuned, so that it decides nothing; of
    ``runtimes``, those that may be chosen, only which variants it leaves out.

    Raises:
        ExportError: no variant fits.
    """
    fitting: dict[str, dict[str, str]] = {}
    unfit: dict[str, str] = {}
    needed: set[str] = set()
    for variant, why in place.variants():
        if variant.takes not in model.files:
            unfit[variant.name] = f"it takes {variant.takes} models; give the network of torch"
        elif model.compiled and not is_as_it_comes(variant):
            unfit[variant.name] = "the model is compiled for an NPU already"
        elif why:
            unfit[variant.name] = why
        elif runtimes is not None and variant.runtime not in runtimes:
            unfit[variant.name] = f"a bundle has no inference script for {variant.runtime}"
        else:
            fitting[variant.name] = versions_of(variant)
            needed.add(variant.runtime)
    if not fitting:
        raise ExportError(
            f"nothing compiles {model.name} for {place}",
            why="; ".join(dict.fromkeys(unfit.values())) or "no runtime is there that Lathe compiles for",
            fix="name another target, or install a runtime; see docs/devices/runtimes.md",
        )
    protocol = replace(MeasuringProtocol(), launches=LAUNCHES)
    identity = place.identity(frozenset(needed))
    tuning = None if why_not_tuned(tuning, model, samples) else tuning
    return RaceInput(model, samples, place, identity, fitting, unfit, rules, protocol, tuning)


def operations_of(
    found: CompiledModel, work: WorkFolder, reporter: Reporter
) -> dict[str, tuple[OperationProfile, OperationProfile] | LatheError]:
    """By place, the time of each operation of the baseline and of the choice, or why it cannot be had."""
    services = CompileServices(reporter, work)
    profiles: dict[str, tuple[OperationProfile, OperationProfile] | LatheError] = {}
    for place, raced in found.raced.items():
        rows = [raced.row(name) for name in (raced.baseline, raced.chosen or raced.baseline)]
        try:
            targets = [Target.parse(row.target) for row in rows]
            identity = Place.parse(place).identity(frozenset(target.runtime for target in targets))
            before, after = (
                work.run(
                    time_operations,
                    OperationsInput(row.file, target, identity, MeasuringProtocol()),
                    services,
                )
                for row, target in zip(rows, targets, strict=True)
                if row.file is not None
            )
            profiles[place] = before, after
        except LatheError as error:
            profiles[place] = error
    return profiles


def held_out_of(found: CompiledModel, work: WorkFolder) -> dict[str, NDArray[Any]]:
    """The samples that variants were compared on, with labels and images where there are any."""
    return open_samples(found.samples, work.find(found.samples.arrays))


def outputs_of(
    name: str, raced: Raced, found: CompiledModel, work: WorkFolder, reporter: Reporter
) -> tuple[NDArray[np.float32], Target]:
    """The first output of a variant that was compared, and the target on which they were taken.

    Raises:
        MeasurementError, TargetError: they have to be taken again, and cannot be.
    """
    row = raced.row(name)
    assert row.file is not None
    variant = find_variant(row.variant)
    # However many threads were chosen: this is how it was compared with the model.
    target = Place.parse(raced.place).target(variant.runtime, variant.precision)
    asked = outputs_input(row.file, variant.takes, target, found.model, found.samples)
    outputs = work.run(take_outputs, asked, CompileServices(reporter, work))
    return outputs_in(outputs, work.find(outputs.array))[0], asked.target
