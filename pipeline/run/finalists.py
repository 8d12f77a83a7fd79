"""From the order of the candidates to the winner: finalists trained in full, the best verified one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from pipeline.budget import Budget
from pipeline.errors import NotMeasuredError
from pipeline.run.chance import require_useful_student
from pipeline.run.context import Context
from pipeline.run.preparation import LearningTask
from pipeline.run.rehearsal import failed_rehearsal
from pipeline.spaces.base import Architecture, Cost
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.latency.feasibility import Feasible
from pipeline.stages.latency.table import Tables
from pipeline.stages.latency.targets import BoundTarget, outputs_of
from pipeline.stages.searching.candidates import Searched
from pipeline.stages.student.compile import Calibration, Compiled, CompileInput, compile_student
from pipeline.stages.student.distil import DistilInput, Distilled, distil_student
from pipeline.stages.student.export import Exported, ExportInput, export_student
from pipeline.stages.student.mixtures import Mixtures, MixturesInput, find_mixtures
from pipeline.stages.student.quantise import Quantised, QuantiseInput, quantise_student
from pipeline.stages.student.verify import Verified, VerifyInput, verify_student
from pipeline.stages.student.winner import Failure, Winner

FINE_TUNING_RATE = 0.1
"""Of the learning rate of the distillation, for fine-tuning in int8."""


@dataclass(frozen=True)
class _Trained:
    """A candidate trained in full, and in int8 too where a target wants it so."""

    student: Distilled
    exported: Exported
    quantised: Quantised | None
    in_float: bool

    @property
    def validation_accuracy(self) -> float:
        """The lowest of all that would ship."""
        if self.quantised is None:
            return self.student.validation_accuracy
        if self.in_float:
            return min(self.student.validation_accuracy, self.quantised.accuracy)
        return self.quantised.accuracy


@dataclass(frozen=True)
class _Made:
    """A candidate made real and looked at on its targets."""

    trained: _Trained
    compiled: Mapping[str, Compiled]
    verified: Verified

    @property
    def student(self) -> Distilled:
        """As it was distilled."""
        return self.trained.student


def make_winner(
    context: Context, task: LearningTask, tables: Tables, feasible: Feasible, searched: Searched
) -> tuple[Winner | None, tuple[Failure, ...]]:
    """Train as many candidates as are finalists, verify the best of them first; then the next ones.

    One that exceeds a relative budget before it is trained, beside what that refers to, is not trained.
    Finalists are compared on the validation slice, in int8 where a target wants that: the test split is for
    the report alone. A candidate whose measurement is invalid has not failed: it is measured again, which
    takes less time than to train another one, and once more after the others. No worse one takes its place
    unless the recipe says so.

    Returns:
        The winner, if a candidate keeps every budget, and the candidates that were tried before.

    Raises:
        VerificationError: the students learned nothing.
        ParityError: an exported student differs from torch beyond the tolerance.
        NotMeasuredError: a candidate could not be measured that would be preferred to all that were.
    """
    failures, unmeasured, winner = list[Failure](), list[_Made](), None
    failed = partial(failed_rehearsal, context, task, tables, feasible)
    hopeful = _hopeful(context, searched, failed, failures)
    for trained in _trained(context, task, hopeful, feasible):
        student = trained.student
        compiled = {each.name: _compiled(context, task, feasible, trained, each) for each in context.targets}
        made = _Made(trained, compiled, _verified(context, task, student, compiled))
        if not made.verified.acceptable and not made.verified.exceeded:
            context.reporter.note(
                f"             not measured, is measured again: {student.architecture.brief}"
            )
            made = replace(made, verified=_verified(context, task, student, compiled))
        if made.verified.acceptable:
            winner = made
            break
        if made.verified.exceeded:
            failures.append(_failure(made))
            context.reporter.note(
                f"             exceeds a budget, the next is tried: {student.architecture.brief}"
            )
        else:
            unmeasured.append(made)
            context.reporter.note(
                f"             not measured, is tried again after the others: {student.architecture.brief}"
            )
    passed_over = list[_Made]()
    for made in unmeasured:
        verified = _verified(context, task, made.student, made.compiled)
        again = replace(made, verified=verified)
        if verified.acceptable:
            winner = again
            break
        if verified.exceeded:
            failures.append(_failure(again))
        else:
            passed_over.append(again)
    if passed_over and (winner is None or context.recipe.verify.unmeasured == "stop"):
        raise _not_measured(passed_over, winner)
    if winner is None:
        return None, tuple(failures)
    return Winner(
        winner.student,
        winner.trained.exported,
        winner.trained.quantised,
        winner.compiled,
        winner.verified,
        _size(task.plan, winner.student.architecture),
        tuple(failures),
        tuple(map(_failure, passed_over)),
    ), tuple(failures)


def _hopeful(
    context: Context,
    searched: Searched,
    failed: Callable[[Architecture], Failure | None],
    failures: list[Failure],
) -> Iterator[Architecture]:
    """Candidates in their order, without those that ``failed`` before they are trained."""
    for architecture in searched.order[: context.tries]:
        failure = failed(architecture)
        if failure is None:
            yield architecture
        else:
            failures.append(failure)
            context.reporter.note(f"             exceeds a budget, is not trained: {architecture.brief}")


def _trained(
    context: Context, task: LearningTask, hopeful: Iterator[Architecture], feasible: Feasible
) -> Iterator[_Trained]:
    """Finalists trained, the best of them first; then the next ones, when they are asked for."""
    while finalists := list(islice(hopeful, context.recipe.search.finalists)):
        students = [_distilled(context, task, each) for each in finalists]
        if not context.recipe.allow_chance:
            require_useful_student(max(map(_validation_accuracy, students)), task.teacher, task.data)
        if not any(each.is_int8 for each in context.targets):
            students.sort(key=_validation_accuracy, reverse=True)
            for student in students:
                yield _Trained(student, _exported(context, task, student, feasible), None, in_float=True)
            continue
        trained = [_quantised(context, task, student, feasible) for student in students]
        yield from sorted(trained, key=lambda each: each.validation_accuracy, reverse=True)


def _not_measured(passed_over: Sequence[_Made], winner: _Made | None) -> NotMeasuredError:
    reasons = "; ".join(f"{made.student.architecture.brief}: {_why(made.verified)}" for made in passed_over)
    found = f"; {winner.student.architecture.brief} keeps every budget but comes after" if winner else ""
    pass_over = (
        ', or set verify.unmeasured = "pass-over" to take the next candidate instead' if winner else ""
    )
    return NotMeasuredError(
        "the best candidate could not be measured on its targets",
        why=f"{reasons}{found}",
        fix="leave the devices to the measurement alone and run again: only the measurement is repeated"
        + pass_over,
    )


def _distilled(context: Context, task: LearningTask, architecture: Architecture) -> Distilled:
    recipe = context.recipe
    teacher = task.teacher if recipe.distil.needs_teacher else None
    mixtures = _mixtures(context, task, architecture)
    given = DistilInput(task.plan, architecture, recipe.distil, recipe.seed, task.data, teacher, mixtures)
    return context.do(distil_student, given)


def _mixtures(context: Context, task: LearningTask, architecture: Architecture) -> tuple[Mixtures, ...]:
    """What the losses mix that search for it, in their order."""
    recipe = context.recipe
    training = recipe.distil.without_schedule()
    return tuple(
        context.do(
            find_mixtures,
            MixturesInput(
                task.plan,
                architecture,
                loss.search,
                training,
                recipe.seed,
                task.data,
                task.teacher,
            ),
        )
        for loss in recipe.distil.searched
    )


def _exported(context: Context, task: LearningTask, student: Distilled, feasible: Feasible) -> Exported:
    where = context.where
    return context.do(
        export_student,
        ExportInput(
            task.plan,
            student.architecture,
            student.weights,
            feasible.reference,
            feasible.with_reference,
            where.targets,
            where.exporters,
            context.recipe.export,
            outputs_of(where.targets),
            task.data,
            task.teacher if any(map(_refers_to_teacher, context.budgets.values())) else None,
        ),
    )


def _quantised(context: Context, task: LearningTask, student: Distilled, feasible: Feasible) -> _Trained:
    """In int8 for every target that wants it."""
    recipe, where = context.recipe, context.where
    exported = _exported(context, task, student, feasible)
    targets = tuple(each for each in context.targets if each.is_int8)
    epochs = recipe.compile.fine_tuning_epochs
    training = recipe.distil.with_mixtures([each.shares for each in student.mixtures]).model_copy(
        update={
            "epochs": epochs,
            "patience": epochs,
            "learning_rate": FINE_TUNING_RATE * recipe.distil.learning_rate,
        }
    )
    given = QuantiseInput(
        task.plan,
        student.architecture,
        student.weights,
        {fmt: exported.students[fmt] for fmt in {each.format.in_float for each in targets}},
        targets,
        {each.name: where.exporters[each.name] for each in targets},
        outputs_of(targets),
        _calibration(context, task),
        training if epochs else None,
        recipe.compile.max_drop,
        recipe.seed,
        task.teacher if recipe.distil.needs_teacher else None,
    )
    quantised = context.do(quantise_student, given)
    return _Trained(student, exported, quantised, in_float=len(targets) < len(context.targets))


def _calibration(context: Context, task: LearningTask) -> Calibration:
    return Calibration(context.recipe.compile.calibration_images, task.data)


def _compiled(
    context: Context, task: LearningTask, feasible: Feasible, trained: _Trained, target: BoundTarget
) -> Compiled:
    fmt, exported = target.format.in_float, trained.exported
    of_teacher = _refers_to_teacher(context.budgets[target.name])
    reference = None
    if of_teacher:
        reference = exported.teachers[fmt]
    elif target.name in feasible.with_reference:
        reference = exported.references[fmt]
    students, calibration, measured = exported.students, None, None
    if target.is_int8:
        assert trained.quantised is not None
        students, calibration = trained.quantised.models, _calibration(context, task)
    elif context.recipe.compile.choose == "measured":
        measured = context.verification_protocol
    given = CompileInput(students[fmt], reference, target, of_teacher, calibration, measured)
    return context.do(compile_student, given)


def _refers_to_teacher(budget: Budget) -> bool:
    return budget.relative is not None and budget.relative_to == "teacher"


def _verified(
    context: Context, task: LearningTask, student: Distilled, compiled: Mapping[str, Compiled]
) -> Verified:
    return context.do(
        verify_student,
        VerifyInput(
            compiled,
            context.targets,
            context.verification_protocol,
            context.budgets,
            task.plan,
            student.architecture,
            student.weights,
            outputs_of(context.targets),
            task.data,
            task.teacher,
        ),
    )


def _size(plan: SpacePlan, architecture: Architecture) -> Cost:
    return sum(map(plan.space.cost, plan.space.blocks(architecture)), Cost(0, 0))


def _validation_accuracy(student: Distilled) -> float:
    return student.validation_accuracy


def _failure(made: _Made) -> Failure:
    verdicts = made.verified.verdicts
    shares = {name: verdict.used for name, verdict in verdicts.items() if verdict.used is not None}
    return Failure(made.student.architecture, shares, _why(made.verified))


def _why(verified: Verified) -> str:
    return "; ".join(verdict.why for verdict in verified.verdicts.values() if not verdict.acceptable)
