"""Stage ``scores`` of method ``dna``: every path of every block, trained and evaluated by the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.methods.dna.result import BlockScores
from pipeline.methods.dna.settings import DnaSettings
from pipeline.spaces.dna.space import DnaSpace
from pipeline.stages.inputs.cut import CutInput, open_cut_teacher
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.services import Services
from pipeline.work.canonical import by_digest
from pipeline.work.stage import StageFolder, stage


@dataclass(frozen=True)
class ScoresInput:
    """The space, the teacher's cuts, the data, and how blocks are trained and evaluated."""

    plan: SpacePlan
    cut: CutInput
    settings: DnaSettings
    seed: int
    data: DataSummary = by_digest()


@dataclass(frozen=True)
class Scores:
    """Of every path of every block."""

    blocks: tuple[BlockScores, ...]


def _told(given: ScoresInput, value: Scores) -> Sequence[str]:
    paths = [sum(len(cell.values) for cell in block.cells) for block in value.blocks]
    return [f"scores       {' + '.join(map(str, paths))} paths of {len(paths)} blocks evaluated"]


@stage("scores", packages=("torch",), resumes=True, tell=_told)
def score_blocks(given: ScoresInput, folder: StageFolder, services: Services) -> Scores:
    """Train and evaluate the blocks of the space.

    Raises:
        TeacherError: the teacher's blocks do not fit the space's.
        DnaError: training diverged, or a worker was lost again and again.
    """
    from pipeline.methods.dna import run

    assert isinstance(given.plan.space, DnaSpace)
    with services.reporter.task("scoring the blocks", "blocks") as advance:
        return Scores(
            run.score_blocks(
                given.plan.space,
                open_cut_teacher(given.cut, folder),
                open_data(given.data, folder),
                given.settings,
                work=services.work,
                seed=given.seed,
                workers=services.workers,
                on_progress=advance,
            )
        )
