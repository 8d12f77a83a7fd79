"""A network of torch fine-tuned for int8, where quantisation alone loses too much: stage ``fine-tune``."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from devices.errors import LatheError
from devices.words import count_of
from pipeline.compile.feeding import images_of
from pipeline.compile.model import GivenModel, ModelInput
from pipeline.compile.networks import export_to_all, network_of
from pipeline.compile.samples import (
    Samples,
    SamplesInput,
    array_of_input,
    arrays_of_file,
    dataset_at,
    inputs_in,
    kind_of_data,
    labels_in,
    labels_of,
    open_samples,
    parts_of,
)
from pipeline.compile.services import CompileServices
from pipeline.compile.variants import ModelFormat
from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.distill.divergence import divergence_is
from pipeline.errors import ExportError
from pipeline.tasks import (
    SINGLE_LABEL,
    AnyTask,
    Embedding,
    MultiLabel,
    Regression,
    RegressionInUnits,
    TaskKind,
)
from pipeline.work.canonical import StoredFile, by_digest
from pipeline.work.stage import StageFolder, stage

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_IMAGES, FEWEST_IMAGES = 5000, 500
"""To fine-tune with: more take long, and fewer gave nothing (docs/results/accuracy.md)."""
VALIDATION = 0.15
_LEARNING_RATE = 0.005
_SEED = 0


@dataclass(frozen=True)
class Tuning:
    """How the model and the data were brought, and how long a fine-tuning may be.

    Attributes:
        model: with its source.
        data: with theirs.
        epochs: at most; 0 for no fine-tuning.
    """

    model: ModelInput
    data: SamplesInput
    epochs: int


@dataclass(frozen=True)
class TuneInput:
    """What is fine-tuned.

    Attributes:
        tuning: the model, the data and the epochs.
        max_drop: points of accuracy that may be lost.
        samples: to calibrate with.
    """

    tuning: Tuning
    max_drop: float
    samples: Samples = by_digest()


@dataclass(frozen=True)
class Tuned:
    """The fine-tuned network.

    Attributes:
        files: exported, by format, as those of the model.
        epochs: that it took.
        in_float: accuracy of the model on the validation slice.
        before: the same, computed as int8 will.
        after: that of the fine-tuned network, computed as int8 will.
        images: that it was trained with.
    """

    files: Mapping[ModelFormat, StoredFile]
    epochs: int
    in_float: float
    before: float
    after: float
    images: int

    @property
    def words(self) -> str:
        """What it gave, for people."""
        return (
            f"fine-tuned for {count_of(self.epochs, 'epoch')} with {self.images} images: "
            f"{self.before:.2%} before and {self.after:.2%} after in simulated int8, "
            f"{self.in_float:.2%} in float, on a validation slice"
        )


def why_not_tuned(tuning: Tuning | None, model: GivenModel, samples: Samples) -> str:
    """Why a model cannot be fine-tuned, as far as it is known beforehand; empty where it can."""
    if model.format is not ModelFormat.TORCH:
        return f"the model came as {model.format}; give the network of torch, as a factory or .pt2"
    if not samples.labelled:
        return "the data have no labels"
    if samples.image_shape is None:
        return "the data are no images in bytes"
    return "--fine-tuning-epochs is 0" if tuning is None or not tuning.epochs else ""


@stage("fine-tune", packages=("torch", "onnx", "litert-torch"), resumes=True)
def fine_tune(given: TuneInput, folder: StageFolder, services: CompileServices) -> Tuned:
    """Fine-tune with fake quantisation, learning from the labels and from the network in float.

    After a kill it goes on from its last epoch.

    Raises:
        ExportError: there are too few images, or the training diverges or does not fit the network.
        TeacherError: a program cannot be turned back into layers.
        VerificationError: the network makes other calls when it trains.
        ParityError: an export does not compute what the network does.
    """
    import torch

    from pipeline.distill.fake_quantisation import fake_quantised, fine_tune_in_int8
    from pipeline.distill.losses.settings import SoftTargetsSettings
    from pipeline.distill.settings import DistillationSettings
    from pipeline.distill.targets import StoredTargets
    from pipeline.distill.training import accuracy
    from pipeline.teachers.outputs import giving_logits

    tuning = given.tuning
    dataset = training_data(tuning.data)
    calibration = inputs_in(
        open_samples(given.samples, folder.find(given.samples.arrays), "calibration"), "calibration"
    )
    images = torch.from_numpy(calibration[0])
    network = _trainable(network_of(tuning.model.source), images)
    student = network
    if tuning.data.task in ("single-label", "multi-label"):
        # The losses take logits; what is exported goes on giving what the network gave.
        student = giving_logits(network, images, tuning.data.task == "multi-label")
    in_float = accuracy(student, dataset.validation, dataset.preprocessing)
    rounded = copy.deepcopy(student)
    with fake_quantised(rounded, images):
        before = accuracy(rounded, dataset.validation, dataset.preprocessing)
    settings = DistillationSettings(
        epochs=tuning.epochs, patience=tuning.epochs, learning_rate=_LEARNING_RATE
    )
    if tuning.data.task == "embedding":  # of which labels teach nothing
        settings = settings.model_copy(update={"loss": (SoftTargetsSettings(),)})
    checkpoint = folder / "checkpoint.pt"
    diverged = ExportError("fine-tuning for int8 diverged")
    try:
        with divergence_is(diverged), services.reporter.task("fine-tuning for int8", "epochs") as advance:
            result = fine_tune_in_int8(
                student,
                dataset,
                settings,
                seed=_SEED,
                calibration=images,
                goal=in_float - given.max_drop / 100,
                targets=StoredTargets(_Frozen(copy.deepcopy(student)), dataset.train, dataset.preprocessing),
                checkpoint=checkpoint,
                on_epoch=lambda done, total, record: advance(done, total),
                tell=services.reporter.note,
            )
    except LatheError:
        raise
    except Exception as error:  # the network is the person's own, and may raise anything
        raise ExportError(
            "the network cannot be trained, hence not be fine-tuned for int8",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
        ) from error
    shaped = replace(tuning.model, input_shape=tuple(calibration[0].shape[1:]))
    exported = export_to_all(shaped, network, folder, services)
    checkpoint.unlink(missing_ok=True)
    return Tuned(
        exported.files,
        len(result.history),
        in_float,
        before,
        result.best_validation_accuracy,
        len(dataset.train),
    )


class _Frozen:
    """A network that others learn from."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network.eval()

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self._network

    def member_logits(self, images: Tensor) -> Tensor:
        """``(N, C, H, W)`` to logits ``(1, N, classes)``, without gradients."""
        import torch

        with torch.no_grad():
            logits: Tensor = self._network(images)[None]
        return logits


def _trainable(network: nn.Module, images: Tensor) -> nn.Module:
    """A network whose layers can learn: a program, which is read frozen, is turned back into layers."""
    from torch import nn

    from pipeline.teachers.outputs import giving_one_tensor
    from pipeline.teachers.rebuilding import rebuild_layers

    inside = nn.Sequential(giving_one_tensor(network, images[:2]))
    rebuild_layers(inside, images[:2])
    return inside.requires_grad_()


def _task_of(kind: TaskKind, labels: NDArray[Any]) -> AnyTask:
    """The task of a network that was finished elsewhere."""
    if kind == "regression":
        spread = Regression.of(labels)
        return RegressionInUnits(spread.mean, tuple(each or 1.0 for each in spread.std))
    if kind == "multi-label":
        return MultiLabel()
    return Embedding() if kind == "embedding" else SINGLE_LABEL


def training_data(given: SamplesInput) -> Dataset:
    """Labelled images to train with, none of which is held out; ``test`` is empty.

    Raises:
        DataError: the data cannot be read.
        ExportError: there are too few.
    """
    assert given.source is not None
    path, model, (entry,) = given.source.path, given.model, given.model.inputs
    arrays = arrays_of_file(path) if path.suffix.lower() == ".npz" else {}
    if arrays and not {"train_x", "train_bytes"} & set(arrays):
        values = array_of_input(entry, path, arrays, model)
        labels = labels_in(arrays, len(values), path, given.task)
        assert labels is not None
        order = np.random.default_rng(0).permutation(len(values))
        first, held_out = parts_of(order, model)
        left = order[len(first) + len(held_out) :]
        rows = np.concatenate([first, left])[:MOST_IMAGES]
        split = Split(values[rows], labels[rows])
    else:
        read = dataset_at(path, kind_of_data(path), entry, task=given.task, train_limit=MOST_IMAGES)
        split = Split(
            np.concatenate([read.train.images, read.validation.images]),
            np.concatenate([labels_of(read.train), labels_of(read.validation)]),
        )
    if len(split) < FEWEST_IMAGES:
        raise ExportError(
            "the model cannot be fine-tuned for int8",
            why=f"there are {len(split)} labelled images beside those that are held out, fewer than "
            f"{FEWEST_IMAGES}",
            fix="give more",
        )
    by_class = given.task == "single-label"
    if by_class and (split.labels.min() < 0 or split.labels.max() >= (model.classes or 0)):
        raise ExportError(
            "the model cannot be fine-tuned for int8",
            why=f"labels run from {split.labels.min()} to {split.labels.max()}, and {model.name} knows "
            f"{model.classes} classes",
            fix="count labels from 0, in the order of the model's outputs",
        )
    images = images_of(split.images, model, entry)
    split = replace(split, images=images, task=_task_of(given.task, split.labels))
    order = np.random.default_rng(_SEED).permutation(len(split))
    count = round(VALIDATION * len(split))
    mean, std = given.feeding.for_channels(images.shape[3])
    return Dataset(
        "given",
        split.take(order[count:]),
        split.take(order[:count]),
        split.take(order[:0]),
        tuple(map(str, range(model.classes or 0))),
        Preprocessing(mean, std),
        given.source.digest,
    )
