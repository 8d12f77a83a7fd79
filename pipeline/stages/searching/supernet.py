"""Stage ``supernet``: weights that all candidates share, for an evaluator that trains its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from devices.words import count_of
from pipeline.distill.divergence import divergence_is
from pipeline.errors import VerificationError
from pipeline.search.evaluators.registry import find_evaluator
from pipeline.stages.searching.evaluation import Evaluation, TrainedSupernet
from pipeline.stages.services import Services
from pipeline.work.disk import write_atomically
from pipeline.work.stage import StageFolder, stage

_WEIGHTS = "supernet.safetensors"


@dataclass(frozen=True)
class SupernetInput:
    """Whose weights, and all that decides them."""

    evaluation: Evaluation


def _told(given: SupernetInput, value: TrainedSupernet) -> Sequence[str]:
    first, last = value.losses[0], value.losses[-1]
    return [
        f"supernet     {count_of(len(value.losses), 'epoch')} of weights that candidates share for rating "
        f"{given.evaluation.name}; loss {first:.3g}, then {last:.3g}"
    ]


@stage("supernet", packages=("torch",), resumes=True, tell=_told)
def train_supernet(given: SupernetInput, folder: StageFolder, services: Services) -> TrainedSupernet:
    """Train them; after a kill it goes on from its last epoch.

    Raises:
        VerificationError: the training diverges.
        TeacherError: teacher and candidates have no feature maps of one size.
    """
    from safetensors.torch import save

    evaluation = given.evaluation
    kind = find_evaluator(evaluation.name)
    assert kind.train is not None
    checkpoint = folder / "checkpoint.pt"
    diverged = VerificationError(
        f"the training of the supernet of rating {evaluation.name} diverged",
        fix="lower search.supernet.learning_rate",
    )
    with (
        divergence_is(diverged),
        services.reporter.task(f"training the supernet of rating {evaluation.name}", "epochs") as advance,
    ):
        tensors, losses = kind.train(evaluation.task(folder, 0), checkpoint, advance)
    write_atomically(folder / _WEIGHTS, save({name: each.detach() for name, each in tensors.items()}))
    checkpoint.unlink(missing_ok=True)
    return TrainedSupernet(folder.stored(_WEIGHTS), tuple(losses))
