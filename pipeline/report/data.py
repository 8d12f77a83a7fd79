"""What a report is made of: plain values, estimates and measurements kept apart by their types."""

from __future__ import annotations

from dataclasses import dataclass

from devices.measurement import Interval
from latency_db.estimate import Estimate
from pipeline.target_verdict import TargetVerdict


@dataclass(frozen=True)
class CandidatePoint:
    """One evaluated architecture: its accuracy on the validation slice and its predicted latency.

    Attributes:
        architecture: in words.
        accuracy: share of the validation slice, 0..1.
        spread: one standard error of the accuracy, if known.
        predicted: estimate on the target that the point belongs to.
        winner: the one that was trained in full.
    """

    architecture: str
    accuracy: float
    spread: float | None
    predicted: Estimate
    winner: bool = False


@dataclass(frozen=True)
class CandidateRow:
    """One evaluated architecture in words: its score, what it is expected to be, and its ratings.

    Attributes:
        again: the score of a second, closer evaluation; empty without one, as ``posterior`` and ``ratings``.
    """

    architecture: str
    score: str
    again: str = ""
    posterior: str = ""
    ratings: str = ""


@dataclass(frozen=True)
class ComparedNetwork:
    """A whole network that was predicted and measured.

    ``fitted``: its measurement was used to fit the predictor, so its agreement proves less.
    """

    name: str
    predicted: Estimate
    measured: Interval
    fitted: bool


@dataclass(frozen=True)
class BlockLatencies:
    """Measured latencies of a network's blocks, or of its whole, in the order they run."""

    network: str
    blocks: tuple[tuple[str, Interval], ...]


@dataclass(frozen=True)
class TargetReport:
    """One target's part of a report.

    Attributes:
        verdict: of the winner's artifact.
        predicted: estimate of the winner before it was compiled; ``None`` if none was made.
        limit_ns: the budget in nanoseconds; for a relative budget by the measured reference network.
        candidates: all evaluated architectures.
        size_bytes: of the artifact.
        runs_on: the processor that the artifact was compiled for; ``any`` if it is not for one alone.
        teacher: its latency there, if it could be measured.
        comparisons: whole networks predicted and measured.
        blocks: the winner first, then teacher and reference network as far as they were measured.
        int8: accuracies on the validation slice in float and in int8, in words; empty for a target in float.
        why_unused: why the winner takes less than its budget, in words; empty where nothing is said.
    """

    verdict: TargetVerdict
    predicted: Estimate | None
    limit_ns: float
    candidates: tuple[CandidatePoint, ...]
    size_bytes: int
    runs_on: str
    teacher: Interval | None = None
    comparisons: tuple[ComparedNetwork, ...] = ()
    blocks: tuple[BlockLatencies, ...] = ()
    int8: str = ""
    why_unused: str = ""


@dataclass(frozen=True)
class TrainingCurve:
    """Training of one network, epoch by epoch from 1; accuracy on the validation slice, 0..1."""

    network: str
    train_loss: tuple[float, ...]
    validation_accuracy: tuple[float, ...]


@dataclass(frozen=True)
class LayerMixture:
    """What the training mixed of the teacher's maps of one size: share of each layer, 0..1."""

    size: tuple[int, int]
    layers: tuple[str, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class KeptLayer:
    """What is left of one layer of the teacher.

    Attributes:
        name: of the layer; empty where several values meet.
        kind: what it does, in a word.
        after: positions of those whose outputs reach it, counted through all units.
        kept: how many of its output channels or heads are left; 0 of one that was removed.
        whole: how many the teacher has; 0 where there are none to count.
        parts: ``channels`` or ``heads``.
        removed: it is gone, with the block in which it was.
    """

    name: str
    kind: str
    after: tuple[int, ...]
    kept: int = 0
    whole: int = 0
    parts: str = "channels"
    removed: bool = False


@dataclass(frozen=True)
class KeptUnit:
    """Layers of the teacher whose latency is measured together; what enters them is one value.

    Attributes:
        name: of the module that all of them are in; empty if that is the teacher itself.
        layers: in the order their data flow.
        latencies: by target, its latency and that of what is left, as shares of the teacher's, 0..1.
    """

    name: str
    layers: tuple[KeptLayer, ...]
    latencies: tuple[tuple[str, float, float], ...] = ()

    @property
    def removed(self) -> bool:
        """Whether nothing is left of it."""
        return all(each.removed for each in self.layers)


@dataclass(frozen=True)
class ReportData:
    """A whole report.

    Attributes:
        title: name of the run.
        summary: one sentence for the head of the page.
        teacher_accuracy: the metric on the test split, at most 1.
        student_accuracy: of the student in torch, before export.
        teacher_parameters: of all members.
        student_parameters: trainable ones.
        student_macs: multiply-accumulates for one image.
        labels: of the classes.
        metric: by which accuracies were taken.
        targets: at least one.
        curves: of the teacher or teachers, then of the student.
        provenance: name and value pairs: digests, versions, device, conditions.
        recipe: text of the recipe.
        ensemble: how the members of the teacher differ, in sentences; empty where it is one network.
        mixtures: that were searched for the student's training.
        units: what is left of the teacher, in the order its units run, if the student is a subgraph of it.
        candidates: all that were evaluated, best first.
        ratings: what ratings of candidates were worth, in sentences.
    """

    title: str
    summary: str
    teacher_accuracy: float
    student_accuracy: float
    teacher_parameters: int
    student_parameters: int
    student_macs: int
    labels: tuple[str, ...]
    targets: tuple[TargetReport, ...]
    curves: tuple[TrainingCurve, ...]
    provenance: tuple[tuple[str, str], ...]
    recipe: str
    ensemble: tuple[str, ...] = ()
    mixtures: tuple[LayerMixture, ...] = ()
    units: tuple[KeptUnit, ...] = ()
    candidates: tuple[CandidateRow, ...] = ()
    ratings: tuple[str, ...] = ()
    metric: str = "accuracy"


def pareto_front(points: tuple[CandidatePoint, ...]) -> tuple[CandidatePoint, ...]:
    """Points that no other point beats in accuracy at no more predicted latency, fastest first."""
    front: list[CandidatePoint] = []
    for point in sorted(points, key=lambda each: (each.predicted.value_ns, -each.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return tuple(front)
