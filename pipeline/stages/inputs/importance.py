"""Stage ``importance`` of method ``subgraph``: how much each part of the teacher matters to what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.spaces.teacher.config import TeacherSpaceConfig
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.inputs.structures import open_network
from pipeline.stages.inputs.teacher import TeacherSummary
from pipeline.stages.services import Services
from pipeline.work.canonical import StoredFile, by_digest
from pipeline.work.disk import write_atomically
from pipeline.work.stage import StageFolder, stage

if TYPE_CHECKING:
    from torch import Tensor

_FILE = "importance.safetensors"


@dataclass(frozen=True)
class ImportanceInput:
    """The parts, the teacher, and images that are shown to it."""

    config: TeacherSpaceConfig
    seed: int
    data: DataSummary = by_digest()
    teacher: TeacherSummary = by_digest()


@stage("importance", packages=("torch",))
def measure_importance(given: ImportanceInput, folder: StageFolder, services: Services) -> StoredFile:
    """The importance of every part, see ``methods.subgraph.importance``."""
    from safetensors.torch import save

    from pipeline.distill.training import training_device
    from pipeline.methods.subgraph.gates import Gates
    from pipeline.methods.subgraph.importance import importances

    with services.reporter.task("finding out what matters in the teacher", ""):
        network = open_network(given.teacher, given.data.input_shape, folder)
        network.requires_grad_(True).to(training_device())
        gates = Gates(network, given.config.structures)
        found = importances(network, gates, open_data(given.data, folder), seed=given.seed)
    content = save({name: value.cpu().contiguous() for name, value in found.items()})
    write_atomically(folder / _FILE, content)
    return folder.stored(_FILE)


def open_importance(file: StoredFile, folder: StageFolder) -> dict[str, Tensor]:
    """Importance by name of the structure, shape ``(count,)``."""
    from safetensors.torch import load_file

    found: dict[str, Tensor] = load_file(folder.find(file))
    return found
