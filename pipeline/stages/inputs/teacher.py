"""Stage ``teacher``: loaded or trained, checked against the data, and kept whole."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from devices.digests import file_digest, value_digest
from pipeline.data.base import Dataset
from pipeline.distill.settings import DistillationSettings, EpochRecord
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.services import Services
from pipeline.teachers.code import code_digest
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.ensemble import EnsembleFigures, figures_of, joined_names
from pipeline.teachers.folders import files_of_folder, folder_in_cache
from pipeline.teachers.suspicion import Suspicion
from pipeline.work.canonical import OutsideFile, StoredFile, by_digest, without_influence
from pipeline.work.stage import StageFolder, stage

if TYPE_CHECKING:
    from pipeline.distill.targets import SoftTargets
    from pipeline.teachers.teacher import Member, Teacher


@dataclass(frozen=True)
class TeacherSource:
    """One ``[[teacher]]`` of a recipe.

    Attributes:
        config: apart from its file.
        file: weights, graph or folder, if it has one.
        code: digest of the code that builds the network, if that is not Lathe's own.
    """

    config: TeacherConfig
    file: OutsideFile | None
    code: str | None

    @classmethod
    def of(cls, config: TeacherConfig) -> TeacherSource:
        """Of a recipe's table, with file and code as they are now."""
        bare = config.model_copy(update={"weights": None, "path": None})
        return cls(bare, _file_of(config), code_digest(config))

    def config_with(self, path: Path) -> TeacherConfig:
        """The table with its file or folder at ``path``."""
        if self.config.kind == "huggingface":
            return self.config.model_copy(update={"path": path, "model": None})
        return self.config.model_copy(update={_key_of(self.config): path})


@dataclass(frozen=True)
class TeacherInput:
    """Who is to teach what; ``seed`` is of training."""

    sources: tuple[TeacherSource, ...]
    seed: int
    data: DataSummary = by_digest()


@dataclass(frozen=True)
class MemberSummary:
    """One network of a teacher.

    Attributes:
        name: of the network.
        validation_accuracy: on the validation slice.
        history: of its training here, empty where its weights were taken as they are.
        suspicion: what makes it wrong, if that could be found.
    """

    name: str
    validation_accuracy: float
    history: tuple[EpochRecord, ...] = ()
    suspicion: Suspicion | None = None


@dataclass(frozen=True)
class TeacherSummary:
    """Who teaches, and all that the network is opened from.

    Attributes:
        name: of the members, ``3 x NAME`` where they are of one kind.
        digest: over configuration, code and weights of all members.
        validation_accuracy: on the validation slice.
        chance: what one gets there who never looks, such as by always naming the most frequent class.
        parameters: of all members.
        members: each network; several are an ensemble.
        data: that it was checked against.
        seed: of the networks before their weights are loaded.
        files: given and trained weights.
        configs: of the members, their files named within the stage's folder; ``digest`` stands for them.
        ensemble: how its members differ; ``None`` of a single network.
        outputs: values that it gives for an image.
    """

    name: str
    digest: str
    validation_accuracy: float
    parameters: int
    members: tuple[MemberSummary, ...]
    data: DataSummary
    seed: int
    files: tuple[StoredFile, ...]
    configs: tuple[TeacherConfig, ...] = without_influence(())
    chance: float = 0.0
    ensemble: EnsembleFigures | None = None
    outputs: int | None = None


def _told(given: TeacherInput, value: TeacherSummary) -> Sequence[str]:
    found = given.data.task.shown(value.validation_accuracy)
    lines = [f"teacher      {value.name}: {found} on the validation slice"]
    if value.ensemble is not None:
        lines += [f"             {line}" for line in ensemble_lines(value)]
    return lines


def ensemble_lines(teacher: TeacherSummary) -> Sequence[str]:
    """What there is to say of the members of an ensemble; nothing of a single network."""
    if teacher.ensemble is None:
        return ()
    each = ", ".join(f"{member.validation_accuracy:.2%}" for member in teacher.members)
    return (f"members alone: {each}", *teacher.ensemble.lines())


@stage("teacher", packages=("torch",), tell=_told)
def prepare_teacher(given: TeacherInput, folder: StageFolder, services: Services) -> TeacherSummary:
    """Load or train the teacher, and check that it fits the data.

    Raises:
        TeacherError: it cannot be loaded, or does not fit the data.
    """
    from pipeline.distill.training import accuracy
    from pipeline.teachers.loading import load_teacher

    dataset = open_data(given.data, folder)
    configs = [_with_copy(source, number, folder) for number, source in enumerate(given.sources)]
    with services.reporter.task("training the teacher", "epochs") as advance:
        teacher = load_teacher(
            configs,
            dataset,
            folder=folder.path,
            seed=given.seed,
            progress=lambda done, total, _: advance(done, total),
            tell=services.reporter.note,
        )
    seen = [_summary(member, dataset) for member in teacher.members]
    members = tuple(summary for summary, _ in seen)
    together = (
        members[0].validation_accuracy
        if len(members) == 1
        else accuracy(teacher.module, dataset.validation, dataset.preprocessing)
    )
    files = sorted(path.relative_to(folder.path) for path in folder.path.rglob("*") if path.is_file())
    return TeacherSummary(
        joined_names(teacher.names),
        teacher.digest,
        together,
        sum(parameter.numel() for parameter in teacher.module.parameters()),
        members,
        given.data,
        given.seed,
        tuple(folder.stored(path.as_posix()) for path in files),
        tuple(_within(config) for config in configs),
        dataset.task.chance(dataset.validation.labels),
        figures_of(teacher, dataset) if len(teacher.members) > 1 else None,
        seen[0][1],
    )


def _summary(member: Member, dataset: Dataset) -> tuple[MemberSummary, int]:
    """What there is to know of a member, and how many values it gives for an image."""
    from pipeline.distill.training import predict_logits
    from pipeline.teachers.suspicion import suspicion_of

    logits = predict_logits(member.network, dataset.validation, dataset.preprocessing)
    value = dataset.task.value(logits.numpy(), dataset.validation.labels)
    suspicion = None
    if not member.history and dataset.task.kind == "single-label":
        suspicion = suspicion_of(member.network, dataset, logits.argmax(dim=1).numpy())
    return MemberSummary(member.name, value, member.history, suspicion), logits.shape[1]


def open_teacher(summary: TeacherSummary, folder: StageFolder) -> Teacher:
    """The network itself, from the stage's files."""
    from pipeline.teachers.loading import load_teacher

    own = folder.path.parent / summary.files[0].stage if summary.files else folder.path
    configs = [_within(config, own) for config in summary.configs]
    dataset = open_data(summary.data, folder)
    return load_teacher(configs, dataset, folder=own, seed=summary.seed, progress=lambda *_: None)


def soft_targets(
    summary: TeacherSummary, folder: StageFolder, dataset: Dataset, settings: DistillationSettings
) -> SoftTargets | None:
    """What a training on ``dataset`` needs of the teacher, if anything."""
    from pipeline.distill.targets import targets_for

    return targets_for(open_teacher(summary, folder), dataset, settings)


def _with_copy(source: TeacherSource, number: int, folder: StageFolder) -> TeacherConfig:
    """The table with its file copied here, so that what the user does with theirs changes nothing."""
    if source.file is None:
        return source.config
    given = source.file.path
    if not given.exists():
        return source.config_with(given)
    # The name of a graph or folder is the teacher's; that of one in a cache says nothing.
    name = given.name if source.config.kind != "huggingface" else Path(source.config.model or given).name
    copy = folder / f"given-{number}" / name
    files = {copy / each.name: each for each in files_of_folder(given)} if given.is_dir() else {copy: given}
    for place, file in files.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    return source.config_with(copy)


def _file_of(config: TeacherConfig) -> OutsideFile | None:
    if config.kind != "huggingface":
        return OutsideFile.of(config.weights or config.path)
    path = config.path or folder_in_cache(config.model or "")
    return OutsideFile(path, value_digest([[each.name, file_digest(each)] for each in files_of_folder(path)]))


def _key_of(config: TeacherConfig) -> Literal["path", "weights"]:
    return "path" if config.kind in ("pt2", "huggingface") else "weights"


def _within(config: TeacherConfig, folder: Path | None = None) -> TeacherConfig:
    """The file named within the stage's folder; or there again, below ``folder``."""
    key = _key_of(config)
    path: Path | None = getattr(config, key)
    if path is None:
        return config
    inner = Path(path.parent.name) / path.name
    return config.model_copy(update={key: inner if folder is None else folder / inner})
