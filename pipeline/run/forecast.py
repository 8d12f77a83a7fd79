"""What is left of a run and how long it may take, before anything is trained or measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from devices.words import count_of
from latency_db.tables import stored
from pipeline.distill.settings import TrainingSettings
from pipeline.errors import TeacherError
from pipeline.export.base import Format, block_workload
from pipeline.export.cache import ExportCache
from pipeline.memory import gigabytes, machine_bytes, require_room, training_bytes
from pipeline.methods.subgraph.settings import SubgraphSettings
from pipeline.progress import duration
from pipeline.recipe.ratings import images_of, rated_for_each, ratings_of
from pipeline.run import durations
from pipeline.run.context import Context
from pipeline.run.durations import Duration
from pipeline.run.looking import Looked
from pipeline.run.preparation import dna_plan
from pipeline.run.subgraphs import space_of_teacher, teacher_as_layers
from pipeline.run.supernets import FORWARD_SHARE, cut_teacher_of, scoring
from pipeline.search.evaluators.registry import SHARED_WEIGHTS, SHORT_TRAINING, find_evaluator
from pipeline.spaces.dna.space import DnaSpace
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.inputs.space import SpacePlan
from pipeline.work.stage import StageFolder

if TYPE_CHECKING:
    from torch import nn

    from pipeline.methods.dna.cutting import CutTeacher

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

_VERIFIED_S = 20.0
"""Export, compilation and parity of one candidate, besides its measurement."""

_MUCH = 0.4
"""Share of the machine's memory above which a run says what it needs at least."""


@dataclass(frozen=True)
class OpenStage:
    """What is left of one part of a run.

    Attributes:
        name: the stage that does it.
        work: how much there is to do, in words.
        seconds: it may take; ``None`` where that is not known yet.
        basis: how the seconds were found, or why there are none.
        memory_bytes: that a step of its training takes at least, as an estimate; ``None`` without one.
    """

    name: str
    work: str
    seconds: float | None
    basis: str
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Forecast:
    """Stages that are done already, and an estimate of those that are not."""

    done: tuple[str, ...]
    left: tuple[OpenStage, ...]

    @property
    def seconds(self) -> float:
        """Of all that is left and can be estimated."""
        return sum(stage.seconds or 0.0 for stage in self.left)

    @property
    def is_whole(self) -> bool:
        """Whether all that is left can be estimated."""
        return all(stage.seconds is not None for stage in self.left)

    def to_json(self) -> dict[str, Any]:
        """The document of ``lathe run --dry-run --json``."""
        return {
            "done": list(self.done),
            "left": [
                {
                    "stage": stage.name,
                    "work": stage.work,
                    "estimated_seconds": None if stage.seconds is None else round(stage.seconds, 1),
                    "basis": stage.basis,
                    "estimated_memory_bytes": stage.memory_bytes,
                }
                for stage in self.left
            ],
            "estimated_seconds": round(self.seconds, 1),
            "complete": self.is_whole,
        }

    def lines(self) -> Iterator[str]:
        """What a run says of it at its start."""
        if not self.left:
            return
        least = "" if self.is_whole else "at least "
        parts = ", ".join(
            f"{stage.name} {'?' if stage.seconds is None else duration(stage.seconds)}" for stage in self.left
        )
        yield f"estimate     {least}{duration(self.seconds)} if nothing disturbs: {parts}"
        if self.done:
            yield f"             done before: {', '.join(self.done)}"
        most = max(self.left, key=lambda stage: stage.memory_bytes or 0)
        if (most.memory_bytes or 0) > machine_bytes() * _MUCH:
            yield (
                f"memory       estimated at least {gigabytes(most.memory_bytes or 0)} for {most.name}, "
                f"of the {gigabytes(machine_bytes())} of this machine"
            )


def forecast(context: Context, looked: Looked) -> Forecast:
    """Estimate what an earlier run has left; a few steps of training are timed on noise.

    Raises:
        LatheError: of the kind that says why the run could not begin: recipe, memory.
    """
    if looked.part is None:
        return Forecast(looked.done, ())
    left = _Left(context, looked.data)
    steps = {
        "teacher": left.teacher,
        "table": left.table,
        "search": left.search,
        "distil": left.distil,
        "verify": left.verify,
    }
    names = list(steps)
    begin = names.index(looked.part)
    stages = []
    for step in list(steps.values())[begin:]:
        left.memory_bytes = None
        stages.append(replace(step(), memory_bytes=left.memory_bytes))
    return Forecast(looked.done, tuple(stages))


class _Left:
    """Estimates of what is left, each as if all of that part were left."""

    def __init__(self, context: Context, data: DataSummary) -> None:
        self._context, self._recipe, self._data = context, context.recipe, data
        self._images = data.counts[0]
        self.memory_bytes: int | None = None
        self._why_not_cut = "the teacher is not looked at yet"

    def teacher(self) -> OpenStage:
        """Members that are trained; loading the others takes seconds."""
        from pipeline.teachers.building import build
        from pipeline.teachers.loading import untrained

        trained = [each for each in self._recipe.teacher if each.kind == "train" or each.training is not None]
        if not trained:
            return OpenStage("teacher", f"{len(self._recipe.teacher)} to load and to check", 10.0, "a guess")
        dataset = open_data(self._data, StageFolder(self._context.work.find(self._data.arrays).parent))
        seconds, epochs, basis = 0.0, 0, ""
        for config in trained:
            settings = config.training or TrainingSettings()
            try:
                if config.kind == "train":
                    self._require_room(
                        lambda config=config: build(config, dataset).network,  # type: ignore[misc]
                        settings,
                        self._images,
                        f"training '{config.name}'",
                    )
                module = untrained(config, dataset, self._recipe.seed)
            except TeacherError as error:
                return OpenStage("teacher", "cannot be built", None, error.what)
            took, basis = self._training(module, settings, self._images)
            seconds += config.members * took
            epochs += config.members * settings.epochs
        return OpenStage(
            "teacher", f"{count_of(epochs, 'epoch')} of {self._images} images at most", seconds, basis
        )

    def table(self) -> OpenStage:
        """Blocks that are neither measured nor exported, and the networks of the calibration."""
        plan = self._plan()
        if plan is None and self._recipe.method == "subgraph":
            return self._most_blocks()
        if plan is None:
            return OpenStage("table", "the blocks of the space", None, self._why_not_cut)
        context, networks = self._context, self._recipe.measure.calibration_networks
        cache = ExportCache.of_user()
        seconds, absent_count, export_count, found_count = 0.0, 0, 0, 0
        bases = list[str]()
        exports = dict[Format, set[str]]()
        for bound in context.targets:
            fmt = bound.format
            workloads = [block_workload(block, fmt) for block in plan.space.distinct_blocks()]
            found = stored(workloads, bound.target, store=context.store, protocol=context.protocol)
            absent = [each for each in workloads if each.identity not in found]
            exports.setdefault(fmt, set()).update(
                each.identity for each in absent if not cache.holds(each.identity, fmt.suffix)
            )
            each = durations.measuring(context.store, bound.name, context.protocol)
            seconds += (len(absent) + networks) * each.seconds
            found_count, absent_count = found_count + len(found), absent_count + len(absent)
            bases.append(each.basis)
        for fmt, identities in exports.items():
            took = durations.exporting(fmt, len(identities) + networks)
            seconds += took.seconds
            export_count += len(identities)
            bases.append(took.basis)
        work = (
            f"{count_of(absent_count, 'block')} to measure, {export_count} of them to export, "
            f"{found_count} in the database; up to {count_of(networks, 'network')} on {_targets(context)}"
        )
        return OpenStage("table", work, seconds, "; ".join(dict.fromkeys(bases)))

    def _most_blocks(self) -> OpenStage:
        """As many blocks as a teacher may have, before it is known what can be removed from it."""
        context, most = self._context, self._recipe.subgraph.most_blocks
        count = most + self._recipe.measure.calibration_networks
        each = [durations.measuring(context.store, bound.name, context.protocol) for bound in context.targets]
        each = [Duration(count * one.seconds, one.basis) for one in each]
        each += [durations.exporting(fmt, count) for fmt in {bound.format for bound in context.targets}]
        return OpenStage(
            "table",
            f"at most {most} blocks of the teacher to export and to measure on {_targets(context)}",
            sum(one.seconds for one in each),
            "; ".join(dict.fromkeys(one.basis for one in each)),
        )

    def search(self) -> OpenStage:
        """Candidates that are trained for a short time, blocks of a supernet, or gates of the teacher."""
        if self._recipe.method == "dna":
            return self._supernets()
        settings = self._recipe.search
        if settings.evaluator == SHARED_WEIGHTS:
            return self._shared()
        images = min(self._images, settings.train_limit or self._images)
        again = settings.reevaluated
        count = settings.evaluations + (again if isinstance(again, int) else 0)
        took, basis = self._student(settings.training, images)
        work = (
            f"{count_of(count, 'candidate')}, {count_of(settings.training.epochs, 'epoch')} "
            f"of {images} images each"
            + (", and those that tie with the best again" if again == "ties" else "")
        )
        rated, its_share = self._ratings(settings.training.epochs * images)
        work += rated
        if took is not None:
            took *= count + settings.evaluations * its_share
        if took is not None and settings.minutes is not None:
            took = min(took, 60 * settings.minutes)
            work = f"{work}, for {settings.minutes:g} minutes at most"
        for name in ratings_of(self._recipe):
            if find_evaluator(name).train is not None:
                its, of = self._supernet(images)
                work = f"{of} for rating {name}; {work}"
                took = None if took is None or its is None else took + its
        if self._recipe.method == "subgraph" and "gates" in self._recipe.subgraph.proposals:
            gates, selecting = self._selection()
            work = f"{selecting}; {work}"
            took = None if took is None or gates is None else took + gates
        return OpenStage("search", work, took, basis)

    def _ratings(self, images: int) -> tuple[str, float]:
        """What ratings there are, in words, and at most their share of the time of evaluations.

        Args:
            images: that an evaluation trains with, those of all epochs.
        """
        ratings = ratings_of(self._recipe)
        if not ratings:
            return "", 0.0
        if self._recipe.search.evaluator != SHORT_TRAINING:
            return f", with ratings {', '.join(ratings)}, whose time is not known", 0.0
        rated = rated_for_each(ratings, images)
        return f"; {rated} rated before each, at most", rated * images_of(ratings) / images

    def _selection(self) -> tuple[float | None, str]:
        """Training steps of the teacher with its gates, and its answers: once, or in each epoch."""
        settings = self._recipe.subgraph.selection
        took, _ = self._student(settings, self._images)
        members = sum(each.members for each in self._recipe.teacher)
        answers = 1 if settings.augment == "none" else settings.epochs
        if took is not None:
            took += took / settings.epochs * FORWARD_SHARE * answers * members
        work = f"{count_of(settings.epochs, 'epoch')} of {self._images} images with gates on the teacher"
        return took, work

    def _supernet(self, images: int) -> tuple[float | None, str]:
        """Weights that candidates share, for a rating: about a step of one candidate for each batch."""
        settings = self._recipe.search.supernet
        images = min(images, settings.train_limit or images)
        as_student = TrainingSettings(
            epochs=settings.epochs, batch_size=settings.batch_size, augment=settings.augment
        )
        took, _ = self._student(as_student, images)
        return took, f"{count_of(settings.epochs, 'epoch')} of {images} images of a supernet"

    def _shared(self) -> OpenStage:
        """Training of shared weights; candidates are evaluated by them in no time."""
        settings = self._recipe.oracle.training
        took, basis = self._student(settings, self._images)
        work = (
            f"up to {count_of(settings.epochs, 'epoch')} of shared weights, "
            f"{count_of(self._recipe.search.evaluations, 'candidate')}"
        )
        return OpenStage("search", work, took, basis)

    def distil(self) -> OpenStage:
        """The finalists; more are trained where they miss a budget."""
        count, settings = self._recipe.search.finalists, self._recipe.distil
        took, basis = self._student(settings, self._images)
        tries, epochs = count_of(self._context.tries, "candidate"), count_of(settings.epochs, "epoch")
        work = f"{count} of at most {tries}, up to {epochs} each"
        for loss in settings.searched:
            work += f", after {count_of(loss.search.epochs, 'epoch')} of search for each size of feature maps"
            plan = self._plan()
            if plan is None:
                took, basis = None, self._why_not_cut
            elif took is not None:
                took += took / settings.epochs * loss.search.epochs * _sizes(plan)
        seconds = None if took is None else count * (took + self._rehearsal())
        return OpenStage("distil", work, seconds, basis)

    def _rehearsal(self) -> float:
        """Seconds for one candidate beside what its relative budgets refer to."""
        context = self._context
        return sum(
            2 * durations.measuring(context.store, name, context.verification_protocol).seconds
            for name, budget in context.budgets.items()
            if budget.relative is not None and not budget.soft
        )

    def verify(self) -> OpenStage:
        """Export, compilation, accuracy and latency of one candidate."""
        seconds, bases = _VERIFIED_S, ["a guess for export and compilation"]
        for bound in self._context.targets:
            each = durations.measuring(self._context.store, bound.name, self._context.verification_protocol)
            seconds += 2 * each.seconds
            bases.append(each.basis)
        work = f"one candidate and its reference on {_targets(self._context)}"
        return OpenStage("verify", work, seconds, "; ".join(dict.fromkeys(bases)))

    def _supernets(self) -> OpenStage:
        """The blocks of method ``dna``."""
        plan, cut = self._plan(), self._cut
        if plan is None or cut is None:
            return OpenStage("search", "the blocks of the space", None, self._why_not_cut)
        assert isinstance(plan.space, DnaSpace)
        try:
            work, took = scoring(self._context, self._data, plan.space, cut)
        except TeacherError as error:
            return OpenStage("search", "the blocks of the space", None, error.what)
        return OpenStage("search", work, took.seconds, took.basis)

    def _plan(self) -> SpacePlan | None:
        match self._recipe.method:
            case "subgraph":
                return space_of_teacher(self._context, self._data)
            case "oracle":
                return SpacePlan.add_on(self._recipe.oracle.space, self._data)
            case "dna":
                cut = self._cut
                return None if cut is None else dna_plan(self._recipe.dna.space, cut.shapes, self._data)
            case _:
                return SpacePlan.mobile(self._recipe.space, self._data)

    @cached_property
    def _cut(self) -> CutTeacher | None:
        """The teacher of method ``dna``, if it can be cut."""
        try:
            return cut_teacher_of(self._context, self._data)
        except TeacherError as error:
            self._why_not_cut = error.what
            return None

    def _student(
        self, settings: TrainingSettings | SubgraphSettings, images: int
    ) -> tuple[float | None, str]:
        if self._recipe.method == "subgraph":
            try:
                took, basis = self._training(teacher_as_layers(self._context, self._data), settings, images)
            except TeacherError as error:
                return None, error.what
            return took, f"{basis}, of the whole teacher"
        plan = self._plan()
        if plan is None:
            return None, self._why_not_cut
        import torch

        build = partial(plan.space.build, plan.space.reference())
        self._require_room(build, settings, images, "training the largest student")
        with torch.random.fork_rng(devices=[]):
            return self._training(build(), settings, images)

    def _require_room(
        self,
        build: Callable[[], nn.Module],
        settings: TrainingSettings | SubgraphSettings,
        images: int,
        what: str,
    ) -> None:
        """Before anything is built or timed, which would take the memory."""
        batch = min(settings.batch_size, images)
        needed = training_bytes(build, self._data.input_shape, batch)
        if needed is not None:
            require_room(needed, f"{what} in batches of {batch}")
            self.memory_bytes = max(needed, self.memory_bytes or 0)

    def _training(
        self, module: nn.Module, settings: TrainingSettings | SubgraphSettings, images: int
    ) -> tuple[float, str]:
        step = durations.training_step(module, self._data.input_shape, min(settings.batch_size, images))
        steps = settings.epochs * math.ceil(images / settings.batch_size)
        return steps * step.seconds, step.basis


def _sizes(plan: SpacePlan) -> int:
    """Sizes of the maps that the blocks of a student give. Both halves make up one epoch of steps."""
    return len({block.input_shape[1:] for block in plan.space.blocks(plan.space.reference())[1:]})


def _targets(context: Context) -> str:
    return ", ".join(bound.name for bound in context.targets)
