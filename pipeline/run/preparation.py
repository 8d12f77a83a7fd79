"""What stands before a search: the task, what its blocks take on the targets, and whether that can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from devices.words import count_of
from pipeline.distill.losses.settings import OracleSettings
from pipeline.errors import BudgetError
from pipeline.recipe.loading import Recipe
from pipeline.run.chance import require_useful_teacher
from pipeline.run.context import Context
from pipeline.search.evaluators.registry import SHARED_WEIGHTS
from pipeline.spaces.cost import network_cost
from pipeline.spaces.dna.config import DnaSpaceConfig, Shape
from pipeline.stages.inputs.cut import CutInput, cut_into_blocks
from pipeline.stages.inputs.data import DataInput, DataSummary, prepare_data
from pipeline.stages.inputs.importance import ImportanceInput, measure_importance
from pipeline.stages.inputs.space import SpacePlan, describe_space
from pipeline.stages.inputs.structures import StructuresInput, find_teacher_structures
from pipeline.stages.inputs.teacher import TeacherInput, TeacherSource, TeacherSummary, prepare_teacher
from pipeline.stages.latency.feasibility import FeasibilityInput, Feasible, check_feasibility
from pipeline.stages.latency.predictors import LatencyPredictors
from pipeline.stages.latency.table import TableInput, Tables, build_tables
from pipeline.stages.searching.shared import SharedInput
from pipeline.work.canonical import StoredFile

_ONE_MEMBER = (
    "             the teacher is one network: the oracle loss distils it where it is right, and learns the "
    "labels elsewhere; members = 3 in [[teacher]] makes an ensemble"
)


@dataclass(frozen=True)
class LearningTask:
    """What is learned, from whom, and among which architectures.

    Attributes:
        cut: of method ``dna``.
        shared: of method ``oracle``, where candidates are evaluated by shared weights.
        importance: of the teacher's parts, with method ``subgraph``.
    """

    data: DataSummary
    teacher: TeacherSummary
    plan: SpacePlan
    cut: CutInput | None = None
    shared: SharedInput | None = None
    importance: StoredFile | None = None


def prepare_task(context: Context) -> LearningTask:
    """Data, teacher and space.

    Raises:
        DataError: the data is missing, unreadable or inconsistent.
        TeacherError: the teacher cannot be loaded, does not fit the data, cannot be cut into blocks, or has
            nothing that can be removed.
    """
    recipe = context.recipe
    data = context.do(prepare_data, DataInput.of(recipe.data, recipe.seed))
    sources = tuple(map(TeacherSource.of, recipe.teacher))
    teacher = context.do(prepare_teacher, TeacherInput(sources, recipe.seed, data))
    if not recipe.allow_chance:
        require_useful_teacher(teacher, data)
    losses = (*recipe.search.training.loss, *recipe.distil.loss)
    if recipe.method == "oracle":
        losses += recipe.oracle.training.loss
    if len(teacher.members) == 1 and any(isinstance(loss, OracleSettings) for loss in losses):
        context.reporter.note(_ONE_MEMBER)
    if recipe.method == "dna":
        cut = CutInput(data.input_shape, recipe.dna.cuts, teacher)
        task = LearningTask(
            data, teacher, dna_plan(recipe.dna.space, context.do(cut_into_blocks, cut).shapes, data), cut
        )
    elif recipe.method == "subgraph":
        given = StructuresInput(data.input_shape, recipe.subgraph.most_blocks, teacher)
        config = context.do(find_teacher_structures, given)
        importance = context.do(measure_importance, ImportanceInput(config, recipe.seed, data, teacher))
        inherited = importance if recipe.subgraph.weights == "inherited" else None
        outputs = teacher.outputs or len(data.classes)
        plan = SpacePlan(config, data.input_shape, outputs, teacher, inherited)
        task = LearningTask(data, teacher, plan, importance=importance)
    elif recipe.method == "oracle":
        plan = SpacePlan.add_on(recipe.oracle.space, data)
        task = LearningTask(data, teacher, plan, shared=_shared(recipe, plan, data, teacher))
    else:
        task = LearningTask(data, teacher, SpacePlan.mobile(recipe.space, data, teacher.outputs))
    context.do(describe_space, task.plan)
    return task


def measure_blocks_of(context: Context, task: LearningTask) -> Tables:
    """The latency tables of the space, with the teacher's latencies."""
    return context.do(build_tables, _table_input(context, task))


def _table_input(context: Context, task: LearningTask) -> TableInput:
    where, networks = context.where, context.recipe.measure.calibration_networks
    return TableInput(task.plan, where.targets, where.protocol, where.exporters, task.teacher, networks)


def check_budgets(context: Context, task: LearningTask, tables: Tables) -> tuple[Feasible, LatencyPredictors]:
    """Whether the space can keep the budgets, and what a search starts from.

    Raises:
        BudgetError: no member of the space can keep every budget, or because of what disturbed the machine it
            cannot be told. Then the next run measures that again.
        EstimateError: too few networks could be measured.
    """
    recipe, where = context.recipe, context.where
    given = FeasibilityInput(
        task.plan,
        tables.by_target,
        where.targets,
        where.protocol,
        where.exporters,
        context.budgets,
        _teacher_ns(context, tables),
        recipe.measure.calibration_networks,
    )
    feasible = context.do(check_feasibility, given)
    try:
        feasible.require_reachable(context.budgets)
    except BudgetError as error:
        disturbed = sum(len(table.disturbed) for table in tables.by_target.values())
        disturbed += sum(network.disturbed for network in feasible.calibration)
        disturbed += sum(tables.teacher[name].disturbed for name in given.teacher_ns)
        if not (feasible.in_doubt and disturbed):
            raise
        context.forget(build_tables, _table_input(context, task))
        context.forget(check_feasibility, given)
        raise _in_doubt(error, disturbed) from None
    most = recipe.oracle.max_parameters if recipe.method == "oracle" else None
    if most is not None:
        _require_small_backbone(task.plan, most)
    return feasible, feasible.predictors(task.plan, most)


def _in_doubt(error: BudgetError, disturbed: int) -> BudgetError:
    return BudgetError(
        "it cannot be told whether a network of the space keeps the budgets",
        why=f"{error.why}. The estimate keeps them, but not its whole interval, which is wide because "
        f"something disturbed {count_of(disturbed, 'measurement')}",
        fix=f"run again when the machine is quiet, which repeats these measurements; or {error.fix}",
    )


def _teacher_ns(context: Context, tables: Tables) -> dict[str, float]:
    """The teacher's latency on the targets whose budgets refer to it, corrected for drift to the table."""
    found = {}
    for name, budget in context.budgets.items():
        if budget.relative is None or budget.relative_to != "teacher":
            continue
        whole = tables.teacher[name].whole
        if whole is None and tables.teacher[name].may_come:
            raise BudgetError(
                f"it is not known yet what the budget of {budget.words} on {name} allows",
                why="the teacher could not be measured there this time",
                fix="run again, which measures it again; or give a budget in milliseconds",
            )
        if whole is None:
            raise BudgetError(
                f"the budget of {budget.words} on {name} has no meaning",
                why="the teacher could not be exported or run there",
                fix="give a budget of the reference network, such as 0.6x, or in milliseconds",
            )
        found[name] = whole.value_ns / tables.by_target[name].slowdown(tables.teacher[name].canary_ns)
    return found


def _require_small_backbone(plan: SpacePlan, most: int) -> None:
    smallest = network_cost(plan.space.blocks(plan.space.reference())).parameters
    if smallest > most:
        raise BudgetError(
            f"the backbone alone has more parameters than max_parameters = {most}",
            why=f"it has {smallest:,}",
            fix=f"allow {smallest} or more, or give [oracle.space] less width, depth or stages",
        )


def _shared(
    recipe: Recipe, plan: SpacePlan, data: DataSummary, teacher: TeacherSummary
) -> SharedInput | None:
    """Shared weights, where the recipe's evaluator uses them."""
    if recipe.search.evaluator != SHARED_WEIGHTS:
        return None
    teaches = recipe.search.reward == "distilled" and recipe.oracle.training.needs_teacher
    return SharedInput(plan, recipe.oracle.training, recipe.seed, data, teacher if teaches else None)


def dna_plan(config: DnaSpaceConfig | None, shapes: Sequence[Shape], data: DataSummary) -> SpacePlan:
    """The space of ``[dna.space]``, or of the defaults for the shapes at the ends of the teacher's blocks."""
    config = config or DnaSpaceConfig.for_teacher(shapes, data.input_shape)
    return SpacePlan(config, data.input_shape, len(data.classes))
