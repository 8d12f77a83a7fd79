"""Who takes part in a race: variants made, compared with the model, and what may stand in for one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from devices.measurement import MeasuringProtocol
from devices.measuring import Entrant
from devices.target import Target
from pipeline.compile.choice import Rules
from pipeline.compile.comparing import Comparer, Untaken
from pipeline.compile.making import Made, MakeInput, make_variant
from pipeline.compile.model import GivenModel
from pipeline.compile.place import Place, is_as_it_comes
from pipeline.compile.quality import Quality
from pipeline.compile.result import Fate, Objective
from pipeline.compile.samples import Samples
from pipeline.compile.sensitivity import FINDERS, LayerSensitivity, SensitivityInput, measure_sensitivity
from pipeline.compile.services import CompileServices
from pipeline.compile.tuning import Tuned, TuneInput, Tuning, fine_tune, why_not_tuned
from pipeline.compile.variants import CompileVariant, ModelFormat
from pipeline.errors import ExportError, ParityError, TeacherError, VerificationError
from pipeline.work.stage import StageFolder


@dataclass(frozen=True)
class RaceInput:
    """Who races where, by which rules.

    Attributes:
        model: that is compiled.
        samples: to calibrate and compare with.
        place: where.
        identity: what stands behind the place now.
        variants: names of those that may be made there, with the versions that decide them.
        unfit: names of those that may not, with the reason.
        rules: of the choice.
        protocol: of the measurement.
        tuning: how the network can be fine-tuned for int8, where that may be tried.
    """

    model: GivenModel
    samples: Samples
    place: Place
    identity: Any
    variants: Mapping[str, Mapping[str, str]]
    unfit: Mapping[str, str]
    rules: Rules
    protocol: MeasuringProtocol
    tuning: Tuning | None = None


@dataclass
class Runner:
    """One variant on one target, as far as is known.

    Attributes:
        name: of the variant, with what was tried with it: threads, cores, a network that was fine-tuned.
        variant: what it is.
        target: where it runs.
        made: what became of the making.
        fate: what is known of it so far.
        why: for every fate but ``measured``.
        quality: beside the model itself; ``None`` where it was not asked for, or cannot be known.
        unknown: why its outputs cannot be taken, if they cannot.
        passing: what ended it may be gone another time.
        peak_memory_bytes: of a process that runs it alone.
    """

    name: str
    variant: CompileVariant
    target: Target
    made: Made
    fate: Fate = Fate.MEASURED
    why: str = ""
    quality: Quality | None = None
    unknown: str = ""
    passing: bool = False
    peak_memory_bytes: int | None = None

    def end(self, fate: Fate, why: str, *, passing: bool = False) -> None:
        """No further launches."""
        self.fate, self.why, self.passing = fate, why, passing


class Runners:
    """All that take part, by name.

    Args:
        given: of the race.
        folder: of its stage.
        services: where to report, and the work folder.
    """

    def __init__(self, given: RaceInput, folder: StageFolder, services: CompileServices) -> None:
        self._given, self._folder, self._services = given, folder, services
        self._variants = {
            variant.name: variant for variant, _ in given.place.variants() if variant.name in given.variants
        }
        self._comparer = Comparer(given.model, given.samples, folder, services)
        self.all: dict[str, Runner] = {}
        self.left_out: dict[str, str] = dict(given.unfit)
        self.baseline = ""
        self.waiting: list[CompileVariant] = []
        self._tuned: Tuned | None = None
        self._why_not_tuned = why_not_tuned(given.tuning, given.model, given.samples)

    def __getitem__(self, name: str) -> Runner:
        return self.all[name]

    @property
    def alive(self) -> list[str]:
        """Those that nothing ended so far."""
        return [name for name, each in self.all.items() if each.fate is Fate.MEASURED]

    def start(self) -> None:
        """Make the variants that start, and find the baseline: the model as it comes.

        Dear ones wait, unless their runtime alone was asked for, and so do those that compute as others do.
        None waits if the smallest is wanted.

        Raises:
            ExportError: the model itself cannot be made for any runtime.
        """
        starters = []
        for variant in self._variants.values():
            if variant.instead_of:
                self.left_out[variant.name] = f"tried only if {variant.instead_of} loses too much accuracy"
            elif why := self._not_allowed(variant):
                self.left_out[variant.name] = why
            elif self._may_wait(variant):
                self.waiting.append(variant)
            else:
                starters.append(variant)
        self._enter_together(starters)
        if not self._find_baseline():
            self._enter_together(self.waiting)
            self.waiting = []
            self._find_baseline()
        if not self.baseline:
            whys = [f"{name}: {each.why}" for name, each in self.all.items()]
            raise ExportError(
                f"{self._given.model.name} cannot be compiled for {self._given.place}",
                why="; ".join(whys) or "no runtime there takes models of its format",
                fix="install a runtime that takes it; see docs/devices/runtimes.md",
            )

    def _may_wait(self, variant: CompileVariant) -> bool:
        if self._given.rules.objective is Objective.SIZE:
            return False
        if variant.dear:
            return self._given.place.runtime is None
        return variant.like in self._variants

    def enter(self, variant: CompileVariant, sensitive: tuple[str, ...] = ()) -> Runner:
        """Make a variant that takes part from now on; ``sensitive`` as ``CompileTask`` has it."""
        self.left_out.pop(variant.name, None)
        return self._enter(variant.name, variant, self._given.model, sensitive)

    def _enter(
        self, name: str, variant: CompileVariant, model: GivenModel, sensitive: tuple[str, ...] = ()
    ) -> Runner:
        given = self._given
        target = given.place.target(variant.runtime, variant.precision)
        making = MakeInput.of(model, variant, target, given.samples, sensitive)
        made = self._services.work.run(make_variant, making, self._services)
        runner = Runner(name, variant, target, made)
        if made.file is None:
            runner.end(Fate.FAILED, made.why_not, passing=made.passing)
        self.all[runner.name] = runner
        return runner

    def enter_all(self) -> None:
        """Make everything that may be made, also what a race would try only in another's place."""
        for variant in self._variants.values():
            if not self._not_allowed(variant):
                self.enter(variant, self._sensitive(variant) if variant.from_sensitivity else ())

    def enter_others(self, rejected: CompileVariant) -> None:
        """Make what may stand in a variant's place until one keeps the accuracy; that one races.

        If none does, the same variant is made of the network fine-tuned for int8, where that can be.
        """
        for variant in self._variants.values():
            if variant.instead_of != rejected.name or self._not_allowed(variant):
                continue
            try:
                sensitive = self._sensitive(variant) if variant.from_sensitivity else ()
            except ExportError as error:
                self.left_out[variant.name] = f"{error.what}: {error.why}" if error.why else error.what
                continue
            runner = self.enter(variant, sensitive)
            if runner.fate is Fate.MEASURED and self.keeps(runner):
                return
        if rejected.calibrates and rejected.precision == "int8" and (tuned := self._tune()) is not None:
            model = replace(self._given.model, files=tuned.files)
            runner = self._enter(f"{rejected.name}+tuned", rejected, model)
            if runner.fate is Fate.MEASURED:
                runner.made = replace(runner.made, notes={**runner.made.notes, "fine_tuned": tuned.words})
                self.keeps(runner)

    def _tune(self) -> Tuned | None:
        """The network fine-tuned, once for all; ``None`` where it cannot be, and then it is known why."""
        given = self._given
        if self._tuned is None and not self._why_not_tuned:
            assert given.tuning is not None
            asked = TuneInput(given.tuning, given.rules.max_drop, given.samples)
            try:
                self._tuned = self._services.work.run(fine_tune, asked, self._services)
            except (ExportError, TeacherError, VerificationError, ParityError) as error:
                self._why_not_tuned = f"{error.what}: {error.why}" if error.why else error.what
        return self._tuned

    @property
    def untuned(self) -> str:
        """What there is to say where int8 lost too much, and no network was fine-tuned; else empty."""
        lost = any(
            each.fate is Fate.REJECTED and each.variant.calibrates and each.variant.precision == "int8"
            for each in self.all.values()
        )
        return (
            f"int8 loses too much, and was not fine-tuned: {self._why_not_tuned}"
            if (lost and self._why_not_tuned)
            else ""
        )

    def sensitivity(self, chosen: str | None) -> dict[ModelFormat, tuple[LayerSensitivity, ...]]:
        """What each operator loses alone in int8, by format of the model.

        Of formats whose static int8 variants were chosen, or rejected; others are of no interest.
        """
        wanted = {
            runner.variant.takes
            for name, runner in self.all.items()
            if runner.variant.calibrates and (name == chosen or runner.fate is Fate.REJECTED)
        }
        found = {}
        for takes in (each for each in ModelFormat if each in wanted & FINDERS.keys()):
            with contextlib.suppress(ExportError):  # said already by variants that need it
                found[takes] = self._layers(takes)
        return found

    def again(self, runner: Runner, target: Target, suffix: str) -> None:
        """The same file on another target also takes part."""
        name = f"{runner.name}{suffix}"
        self.all[name] = Runner(name, runner.variant, target, runner.made, quality=runner.quality)

    def entrant(self, runner: Runner) -> Entrant:
        """What is measured of a runner."""
        assert runner.made.file is not None
        return Entrant(runner.name, self._folder.find(runner.made.file), runner.target)

    def keeps(self, runner: Runner) -> bool:
        """Whether a variant keeps the accuracy; if it does not, that ends it.

        A baseline whose outputs cannot be taken is only not compared.
        """
        self._compare(runner)
        if runner.quality is None:
            if runner.variant.name == self.baseline:
                return True
            runner.end(Fate.FAILED, runner.unknown, passing=runner.passing)
            return False
        if why := self._loss(runner, runner.quality):
            runner.end(Fate.REJECTED, why)
        return not why

    def _enter_together(self, variants: Sequence[CompileVariant]) -> None:
        with self._services.reporter.task("making variants", "variants") as task:
            for done, variant in enumerate(variants):
                task(done, len(variants))
                self.enter(variant)

    def _find_baseline(self) -> bool:
        """The model as it comes, in ONNX Runtime where that has it."""
        names = [name for name in self.alive if is_as_it_comes(self.all[name].variant)]
        names.sort(key=lambda name: self.all[name].variant.runtime != "onnxruntime")
        self.baseline = names[0] if names else ""
        return bool(names)

    def _loss(self, runner: Runner, quality: Quality) -> str:
        """Why what a variant loses is too much; empty where it is not."""
        rules, drop = self._given.rules, quality.drop
        if not quality.finite:
            return "its outputs are inf or NaN" + (
                ", as fp16 overflows at 65504" if runner.variant.precision == "fp16" else ""
            )
        if rules.forced or runner.variant.lossless or drop is None or drop <= rules.max_drop:
            return ""
        task = self._given.samples.task
        assert task is not None
        if quality.accuracy is None:
            assert quality.agreement is not None
            said = task.agreement_shown(quality.agreement)
            return f"{said}, which counts as {drop:.2f} points lost, more than {rules.max_drop:g}"
        return f"loses {drop:.2f} points of {task.metric}, more than {rules.max_drop:g}"

    def _not_allowed(self, variant: CompileVariant) -> str:
        """Why a variant that changes outputs is not tried; empty where it is."""
        model, samples, rules = self._given.model, self._given.samples, self._given.rules
        if variant.lossless:
            return ""
        if model.quantised:
            return "the model is quantised already"
        why = ""
        if samples.random:
            why = "there are no data to tell what it does to the accuracy; give --data, or --force"
        elif samples.task is None:
            why = (
                "the model's output is no row of class scores, so no loss can be told; see --task and --force"
            )
        return "" if rules.forced else why

    def _sensitive(self, variant: CompileVariant) -> tuple[str, ...]:
        """Operators of the model that a variant is made of, the most sensitive first."""
        return tuple(layer.name for layer in self._layers(variant.takes))

    def _layers(self, takes: ModelFormat) -> tuple[LayerSensitivity, ...]:
        asked = SensitivityInput.of(self._given.model, takes, self._given.samples)
        return self._services.work.run(measure_sensitivity, asked, self._services).layers

    def _compare(self, runner: Runner) -> None:
        """Take the outputs beside the model's own, or say why they cannot be taken."""
        if runner.quality is not None or runner.unknown:
            return
        assert runner.made.file is not None
        found = self._comparer.compare(runner.made.file, runner.variant.takes, runner.target)
        if isinstance(found, Untaken):
            runner.unknown, runner.passing = found.why, found.passing
        else:
            runner.quality = found
