"""Stage ``mixtures``: what feature aggregation mixes of the teacher's maps for one student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.distill.aggregation.result import FoundMixture
from pipeline.distill.aggregation.settings import MixtureSearchSettings
from pipeline.distill.divergence import divergence_is
from pipeline.distill.settings import TrainingSettings
from pipeline.errors import VerificationError
from pipeline.spaces.base import Architecture
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.inputs.teacher import TeacherSummary, open_teacher
from pipeline.stages.services import Services
from pipeline.work.canonical import by_digest
from pipeline.work.stage import StageFolder, stage


@dataclass(frozen=True)
class MixturesInput:
    """For which student, and how; of the final training, what ``without_schedule`` leaves."""

    plan: SpacePlan
    architecture: Architecture
    search: MixtureSearchSettings
    training: TrainingSettings
    seed: int
    data: DataSummary = by_digest()
    teacher: TeacherSummary = by_digest()


@dataclass(frozen=True)
class Mixtures:
    """A mixture for each layer group that the networks have in common."""

    groups: tuple[FoundMixture, ...]

    @property
    def shares(self) -> tuple[tuple[float, ...], ...]:
        """Group by group, as ``FeatureAggregationSettings`` takes them."""
        return tuple(group.shares for group in self.groups)


def _told(given: MixturesInput, value: Mixtures) -> Sequence[str]:
    return [f"mixtures     {_described(group)}" for group in value.groups]


def _described(group: FoundMixture) -> str:
    height, width = group.size
    shares = ", ".join(
        f"{name} {share:.0%}" for name, share in zip(group.teacher_layers, group.shares, strict=True)
    )
    return f"{height}x{width}: {shares}"


@stage("mixtures", packages=("torch",), tell=_told)
def find_mixtures(given: MixturesInput, folder: StageFolder, services: Services) -> Mixtures:
    """Search with a student as it is before its training, which is thrown away.

    After a kill the search goes on from its last epoch.

    Raises:
        DataError: there are too few train images for two halves.
        TeacherError: teacher and student have no layer group in common.
        VerificationError: the search diverges.
    """
    from pipeline.distill.aggregation.search import search_mixtures

    student = given.plan.begin(given.architecture, given.seed, folder)
    dataset = open_data(given.data, folder)
    checkpoint = folder / "checkpoint.pt"
    diverged = VerificationError(
        "the search for mixtures of feature maps diverged",
        fix="lower 'learning_rate' in the table 'search' of the loss",
    )
    with (
        divergence_is(diverged),
        services.reporter.task("searching mixtures of feature maps", "epochs") as advance,
    ):
        found = search_mixtures(
            student,
            open_teacher(given.teacher, folder).module,
            dataset,
            given.search,
            given.training,
            seed=given.seed,
            checkpoint=checkpoint,
            on_epoch=advance,
            tell=services.reporter.note,
        )
    checkpoint.unlink(missing_ok=True)
    return Mixtures(found)
