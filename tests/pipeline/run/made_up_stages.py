"""Stages that make up results in no time; each result depends on what the real one would depend on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from devices.digests import value_digest
from devices.measurement import (
    Conditions,
    DeviceIdentity,
    Interval,
    Launch,
    Measurement,
    Ratio,
    RuntimeIdentity,
    Verdict,
)
from devices.target import Target
from latency_db.estimate import Estimate
from latency_db.tables import LatencyTable
from pipeline.data.base import Preprocessing
from pipeline.distill.aggregation.result import FoundMixture
from pipeline.export.parity import Parity
from pipeline.methods.dna.block import TrainedBlock, score_block, train_block
from pipeline.methods.dna.result import BlockScores
from pipeline.methods.dna.run import score_blocks as blocks_scored
from pipeline.search.budgets.feasibility import Feasibility
from pipeline.spaces.base import Architecture, Cost
from pipeline.spaces.teacher.config import Structure, TeacherSpaceConfig, Unit, UnitSize
from pipeline.spaces.teacher.space import TeacherSpace
from pipeline.stages.delivery.bundle import BundleMade, make_bundle
from pipeline.stages.delivery.report import ReportFile, write_report
from pipeline.stages.inputs.cut import Cut, cut_into_blocks
from pipeline.stages.inputs.data import DataSummary, prepare_data
from pipeline.stages.inputs.importance import measure_importance
from pipeline.stages.inputs.space import SpaceSummary, describe_space
from pipeline.stages.inputs.structures import find_teacher_structures
from pipeline.stages.inputs.teacher import MemberSummary, TeacherSummary, prepare_teacher
from pipeline.stages.latency.feasibility import Feasible, check_feasibility
from pipeline.stages.latency.table import Tables, build_tables
from pipeline.stages.latency.teacher_parts import TeacherLatency
from pipeline.stages.searching.candidates import EvaluatedCandidate, Searched
from pipeline.stages.searching.known import KnownBefore, known_before
from pipeline.stages.searching.proposals import Proposals, Proposed, propose_subgraphs
from pipeline.stages.searching.scores import Scores, score_blocks
from pipeline.stages.searching.search import search_candidates
from pipeline.stages.searching.selection import select_candidates
from pipeline.stages.searching.shared import Shared, train_shared
from pipeline.stages.student.compile import Compiled, CompiledFile, compile_student
from pipeline.stages.student.distil import Distilled, distil_student
from pipeline.stages.student.export import Exported, export_student
from pipeline.stages.student.mixtures import Mixtures, find_mixtures
from pipeline.stages.student.quantise import Int8Figures, Quantised, quantise_student
from pipeline.stages.student.rehearse import Rehearsed, rehearse
from pipeline.stages.student.verify import Verified, verify_student
from pipeline.target_verdict import Accuracy, TargetVerdict
from pipeline.work.canonical import StoredFile, canonical
from pipeline.work.stage import StageFolder

RUNTIME = RuntimeIdentity("made-up", "1", "00", "fp32", 1)
DEVICE = DeviceIdentity("x86_64", "made up", 1, "Linux", "6", "here")


def digest(*values: Any) -> str:
    return value_digest([canonical(value) for value in values])


def interval(*values: Any) -> Interval:
    """About a millisecond, another one for other values."""
    value = 1e6 + int(digest(*values)[:4], 16)
    return Interval(value, value, value, 0.95)


def stored(folder: StageFolder, name: str, *values: Any) -> StoredFile:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(digest(*values))
    return folder.stored(name)


def data(given: Any, folder: StageFolder, services: Any) -> DataSummary:
    file = stored(folder, "arrays", given)
    preprocessing = Preprocessing((0.5,), (0.5,))
    return DataSummary("made-up", file.digest, ("a", "b"), (1, 8, 8), (4, 2, 2), preprocessing, file)


def teacher(given: Any, folder: StageFolder, services: Any) -> TeacherSummary:
    file = stored(folder, "weights", given)
    return TeacherSummary(
        "made-up", file.digest, 0.9, 7, (MemberSummary("made-up", 0.9),), given.data, given.seed, (file,)
    )


def space(given: Any, folder: StageFolder, services: Any) -> SpaceSummary:
    return SpaceSummary(1, 1, given.space.reference())


def cut(given: Any, folder: StageFolder, services: Any) -> Cut:
    return Cut(((8, 8, 8), (8, 4, 4)), digest(given))


def structures(given: Any, folder: StageFolder, services: Any) -> TeacherSpaceConfig:
    layer = Structure("layer", "channels", 64, ("norm",))
    unit = Unit("layer", digest(given), (8, 8, 8), ("layer",), (0,))
    config = TeacherSpaceConfig((layer,), {"layer": tuple(range(1, 65))}, {}, (unit,), {})
    blocks = TeacherSpace(config, (8, 8, 8), 2).distinct_blocks()
    return replace(config, sizes={block.identity: UnitSize(Cost(1, 1), 1) for block in blocks})


def importance(given: Any, folder: StageFolder, services: Any) -> StoredFile:
    return stored(folder, "importance", given)


def proposals(given: Any, folder: StageFolder, services: Any) -> Proposals:
    """All that was asked for decides which ones."""
    space, name = given.predictors.space, digest(given)
    widths = [1 + int(name[start : start + 4], 16) % 64 for start in (0, 4, 8)]
    return Proposals(tuple(Proposed("gates", space.architecture({"layer": width}), 1.0) for width in widths))


def scores(given: Any, folder: StageFolder, services: Any) -> Scores:
    """As the real one, but for a teacher and data that are nothing but their digests."""
    space = given.plan.space
    shapes = tuple((8, *space.size_into(block + 1)) for block in range(len(space.config.blocks)))
    teacher: Any = SimpleNamespace(digest=digest(given.cut), shapes=shapes)
    work = services.work
    return Scores(blocks_scored(space, teacher, given.data, given.settings, work=work, seed=given.seed))


def block_training(given: Any, folder: StageFolder, work: Any) -> TrainedBlock:
    return TrainedBlock((interval(given).value_ns,), stored(folder, "weights", given))


def block_scores(given: Any, folder: StageFolder, work: Any) -> BlockScores:
    return BlockScores(interval(given, work.run(train_block, given.training, work)).value_ns, (), ())


def table(given: Any, folder: StageFolder, services: Any) -> Tables:
    """What blocks take does not depend on the teacher."""
    blocks = interval(given.plan, given.targets, given.protocol, given.exporters)
    whole = TeacherLatency(interval(given), ())
    return Tables(
        {each.name: LatencyTable(each.target, {"block": blocks}, {}) for each in given.targets},
        {each.name: whole for each in given.targets},
        {each.format: stored(folder, f"teacher{each.format.suffix}", given) for each in given.targets},
    )


def feasibility(given: Any, folder: StageFolder, services: Any) -> Feasible:
    reference = given.plan.space.reference()
    limits = {each.name: interval(given).value_ns for each in given.targets}
    certificate = Feasibility((), reference, (), 0.5, 0.5, True)
    return Feasible({}, limits, frozenset(), reference, certificate, ())


@dataclass
class Fates:
    """How many candidates a search puts in order, how good they are in int8, what share of the reference's
    latency they take before they are trained, and what verifications say of each, time by time."""

    candidates: int = 1
    untrained: dict[Architecture, float] = field(default_factory=dict)
    verdicts: dict[Architecture, list[str]] = field(default_factory=dict)
    in_int8: dict[Architecture, float] = field(default_factory=dict)


FATES = Fates()


def search(given: Any, folder: StageFolder, services: Any) -> Searched:
    space = given.this.predictors.space
    order = [space.reference(), *(each for each in space.members() if each != space.reference())]
    estimate = Estimate(1.0, interval(given).value_ns, 2e6, 0.9)
    estimates = {each.name: estimate for each in given.where.targets}
    order = order[: FATES.candidates]
    candidates = [EvaluatedCandidate(each, 0.5, None, None, estimates) for each in order]
    return Searched(tuple(candidates), (), tuple(order))


def distil(given: Any, folder: StageFolder, services: Any) -> Distilled:
    file = stored(folder, "weights", given)
    return Distilled(given.architecture, file, 1, 0.8, (), given.mixtures)


def mixtures(given: Any, folder: StageFolder, services: Any) -> Mixtures:
    share = int(digest(given)[:4], 16) / 2**16
    return Mixtures((FoundMixture((4, 4), "1", ("a", "b"), (share, 1 - share)),))


def export(given: Any, folder: StageFolder, services: Any) -> Exported:
    """The files do not depend on what they are compared with, and where."""
    formats = {each.format.in_float for each in given.targets}
    of_student = given.plan, given.architecture, given.weights, given.exporters
    of_reference = given.plan, given.reference, given.exporters
    return Exported(
        {fmt: stored(folder, f"student{fmt.suffix}", *of_student) for fmt in formats},
        {
            fmt: stored(folder, f"reference{fmt.suffix}", *of_reference)
            for fmt in formats
            if given.reference_on
        },
        {fmt: stored(folder, f"teacher{fmt.suffix}", given.teacher) for fmt in formats if given.teacher},
        {each.name: Parity(interval(given).value_ns, 0, 1, 1) for each in given.targets},
    )


def quantise(given: Any, folder: StageFolder, services: Any) -> Quantised:
    """In int8 as good as FATES say, else without loss; never fine-tuned."""
    stored(folder, "figures", given)
    accuracy = FATES.in_int8.get(given.architecture, 0.8)
    figures = {each.name: Int8Figures(accuracy, 1.0) for each in given.targets}
    return Quantised(given.weights, given.exported, 0.8, figures, {}, False)


def compile_(given: Any, folder: StageFolder, services: Any) -> Compiled:
    def compiled(name: str, source: StoredFile) -> CompiledFile:
        file = stored(folder, name, given.target, source, given.calibration)
        return CompiledFile(file, given.target.format, {}, 1)

    return Compiled(
        compiled("student", given.student),
        compiled("reference", given.reference) if given.reference else None,
    )


def measurement(target: Target, artifact_digest: str, latency_ns: float, verdict: Verdict) -> Measurement:
    launch = Launch(1, 1, 1, (round(latency_ns),) * 20, None, Conditions(), Conditions())
    from devices.measurement import MeasuringProtocol

    return Measurement(
        artifact_digest,
        str(target),
        RUNTIME,
        DEVICE,
        MeasuringProtocol(),
        (launch,) * 3,
        verdict,
        (),
        "2025-01-01",
    )


def verify(given: Any, folder: StageFolder, services: Any) -> Verified:
    left = FATES.verdicts.get(given.architecture, [])
    fate = left.pop(0) if left else "kept"

    def verdict(target: Any) -> TargetVerdict:
        file = given.compiled[target.name].student.file.digest
        validity = Verdict.INVALID if fate == "disturbed" else Verdict.VALID
        measured = measurement(target.target, file, interval(given).value_ns, validity)
        budget = given.budgets[target.name]
        all_right = Accuracy(1, 1, ())
        return TargetVerdict(target.name, file, all_right, measured, None, None, budget, fate == "kept", fate)

    return Verified(0.9, 0.8, {each.name: verdict(each) for each in given.targets})


def rehearsal(given: Any, folder: StageFolder, services: Any) -> Rehearsed:
    """Hardly anything, unless FATES know better."""
    share = FATES.untrained.get(given.architecture, 0.01)
    return Rehearsed({each.name: Ratio(0.9 * share, share, 1.1 * share, 0.95) for each in given.targets})


def report(given: Any, folder: StageFolder, services: Any) -> ReportFile:
    return ReportFile(stored(folder, "report.html", given))


def bundle(given: Any, folder: StageFolder, services: Any) -> BundleMade:
    return BundleMade(stored(folder, "bundle/manifest.json", given))


def known(given: Any, folder: StageFolder, services: Any) -> KnownBefore:
    return KnownBefore()


def shared(given: Any, folder: StageFolder, services: Any) -> Shared:
    return Shared(stored(folder, "weights", given), 0.5, ())


FUNCTIONS = (
    (prepare_data, data),
    (prepare_teacher, teacher),
    (describe_space, space),
    (cut_into_blocks, cut),
    (find_teacher_structures, structures),
    (measure_importance, importance),
    (score_blocks, scores),
    (train_block, block_training),
    (score_block, block_scores),
    (build_tables, table),
    (check_feasibility, feasibility),
    (train_shared, shared),
    (known_before, known),
    (search_candidates, search),
    (select_candidates, search),
    (propose_subgraphs, proposals),
    (find_mixtures, mixtures),
    (distil_student, distil),
    (export_student, export),
    (quantise_student, quantise),
    (compile_student, compile_),
    (rehearse, rehearsal),
    (verify_student, verify),
    (write_report, report),
    (make_bundle, bundle),
)
STAGES = tuple(stage.name for stage, _ in FUNCTIONS)


@contextmanager
def made_up_functions() -> Iterator[None]:
    """Put the functions in the place of the real ones for a while."""
    real = [(stage, stage.function) for stage, _ in FUNCTIONS]
    FATES.candidates, FATES.untrained, FATES.verdicts, FATES.in_int8 = 1, {}, {}, {}
    try:
        for stage, function in FUNCTIONS:
            object.__setattr__(stage, "function", function)
        yield
    finally:
        for stage, function in real:
            object.__setattr__(stage, "function", function)
