"""Stage ``shared`` of method ``oracle``: weights that all candidates share, trained by the oracle loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devices.words import count_of
from pipeline.distill.divergence import divergence_is
from pipeline.distill.settings import DistillationSettings, EpochRecord
from pipeline.errors import VerificationError
from pipeline.spaces.add_on.space import AddOnSpace
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.inputs.teacher import TeacherSummary, soft_targets
from pipeline.stages.services import Services
from pipeline.work.canonical import StoredFile, by_digest
from pipeline.work.disk import write_atomically
from pipeline.work.stage import StageFolder, stage

if TYPE_CHECKING:
    from torch import Tensor

_WEIGHTS = "shared.safetensors"


@dataclass(frozen=True)
class SharedInput:
    """Which space shares weights, and how they are trained; labels alone are learned without a teacher."""

    plan: SpacePlan
    training: DistillationSettings
    seed: int
    data: DataSummary = by_digest()
    teacher: TeacherSummary | None = by_digest()


@dataclass(frozen=True)
class Shared:
    """Shared weights.

    Attributes:
        weights: their file.
        backbone_accuracy: of the bare backbone with them, on the validation slice.
        history: of their training; its accuracies are those of the bare backbone.
    """

    weights: StoredFile
    backbone_accuracy: float
    history: tuple[EpochRecord, ...]


def _told(given: SharedInput, value: Shared) -> Sequence[str]:
    return [
        f"shared       {count_of(len(value.history), 'epoch')} of shared weights; the bare backbone gets "
        f"{value.backbone_accuracy:.2%} with them on the validation slice"
    ]


@stage("shared", packages=("torch",), resumes=True, tell=_told)
def train_shared(given: SharedInput, folder: StageFolder, services: Services) -> Shared:
    """Train the shared weights; after a kill it goes on from its last epoch.

    Raises:
        VerificationError: the training diverges.
    """
    import torch
    from safetensors.torch import save

    from pipeline.distill.training import fit
    from pipeline.methods.oracle.supernet import SharedWeights

    assert isinstance(given.plan.space, AddOnSpace)
    torch.manual_seed(given.seed)
    network, dataset = SharedWeights(given.plan.space, given.seed), open_data(given.data, folder)
    soft = None
    if given.teacher is not None:
        soft = soft_targets(given.teacher, folder, dataset, given.training)
    checkpoint = folder / "checkpoint.pt"
    diverged = VerificationError(
        "the training of the shared weights diverged", fix="lower oracle.training.learning_rate"
    )
    with divergence_is(diverged), services.reporter.task("training the shared weights", "epochs") as advance:
        result = fit(
            network,
            dataset,
            given.training,
            seed=given.seed,
            targets=soft,
            checkpoint=checkpoint,
            on_epoch=lambda done, total, record: advance(done, total),
            what="training the shared weights",
            tell=services.reporter.note,
        )
    write_atomically(folder / _WEIGHTS, save(network.state_dict()))
    checkpoint.unlink(missing_ok=True)
    return Shared(folder.stored(_WEIGHTS), result.best_validation_accuracy, result.history)


def open_shared(weights: StoredFile, folder: StageFolder) -> Mapping[str, Tensor]:
    """The weights, from the stage's file."""
    from safetensors.torch import load_file

    return load_file(folder.find(weights))
