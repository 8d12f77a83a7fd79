"""From the recipe's ``[[teacher]]`` tables to a ``Teacher`` that fits the data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from devices.digests import file_digest, value_digest
from pipeline.data.base import Dataset
from pipeline.data.tensors import to_tensor
from pipeline.distill.crash_marker import Tell
from pipeline.distill.divergence import divergence_is
from pipeline.distill.settings import EpochRecord, TrainingSettings
from pipeline.distill.training import fit
from pipeline.errors import TeacherError
from pipeline.tasks import AnyTask, Embedding, MultiLabel, Regression, SingleLabel
from pipeline.teachers.building import Built, build
from pipeline.teachers.classes import outputs_of_classes
from pipeline.teachers.code import code_digest
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.fitting import fit_weights
from pipeline.teachers.outputs import are_probabilities, described, place_of_logits
from pipeline.teachers.plain_weights import with_plain_weights
from pipeline.teachers.teacher import AdaptedNetwork, Member, Teacher, logits_in
from pipeline.teachers.weights import read_weights, weights_bytes
from pipeline.work.disk import write_atomically

_HISTORY = TypeAdapter(tuple[EpochRecord, ...])
_PROBED = 32

OnProgress = Callable[[int, int, str], None]
"""Called with how many epochs are done, how many there are, and the teacher's name."""


def load_teacher(
    configs: Sequence[TeacherConfig],
    dataset: Dataset,
    *,
    folder: Path,
    seed: int,
    progress: OnProgress,
    tell: Tell = lambda line: None,
) -> Teacher:
    """Load or train every teacher of a recipe; several make an ensemble.

    The seed of each network is ``seed`` plus its place in the ensemble, counted from 0. A teacher that is
    trained keeps its checkpoint and then its final weights in ``folder``, under the digest of what it was
    trained from: the same call again loads it, and after a kill goes on where it was. What a person should
    know of a teacher is given to ``tell``, line by line.

    Raises:
        TeacherError: a file or package is missing or unsafe, weights do not fit, training diverges, or the
            network does not take the data's images or has another number of outputs than there are classes.
        OSError: ``folder`` cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    each = [config for config in configs for _ in range(config.members)]
    return Teacher(
        [
            _member(config, dataset, folder=folder, seed=seed + place, progress=progress, tell=tell)
            for place, config in enumerate(each)
        ]
    )


def untrained(
    config: TeacherConfig, dataset: Dataset, seed: int, tell: Tell = lambda line: None
) -> AdaptedNetwork:
    """The network of a teacher before it is trained here, as it takes the data's images.

    Raises:
        TeacherError: a file or package is missing or unsafe, or the network does not fit the data.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = build(config, dataset, tell)
    return _described(
        AdaptedNetwork(built.network, built.config, dataset.preprocessing), built, dataset, tell
    )


def _member(
    config: TeacherConfig, dataset: Dataset, *, folder: Path, seed: int, progress: OnProgress, tell: Tell
) -> Member:
    adapted = untrained(config, dataset, seed, tell)
    network = adapted.network
    history: tuple[EpochRecord, ...] = ()
    if config.kind == "train" or config.training is not None:
        history = _train(adapted, config, dataset, folder=folder, seed=seed, progress=progress, tell=tell)
    if config.kind == "pt2" and config.path is not None:
        content = file_digest(config.path)
    else:
        content = _digest_of(network)
    with_plain_weights(network)
    read_as = [adapted.outputs, asdict(dataset.task)]
    digest = value_digest([adapted.config.content(), read_as, content, code_digest(config)])
    return Member(config.name, adapted, digest, history)


def _described(adapted: AdaptedNetwork, built: Built, dataset: Dataset, tell: Tell) -> AdaptedNetwork:
    """Find out on a few images how the network's output is to be read.

    Raises:
        TeacherError: the network does not take the images, gives no logits, or has other outputs than the
            data have classes.
    """
    config, classes = built.config, dataset.classes
    channels, height, width = dataset.input_shape
    shape = f"{channels}x{height}x{width}"
    images = to_tensor(dataset.validation.images[:_PROBED], dataset.preprocessing)
    adapted.eval()
    try:
        with torch.no_grad():
            output = adapted.network(adapted.prepared(images))
    except Exception as error:
        raise TeacherError(
            f"the teacher '{config.name}' does not take the data's images of {shape}",
            why=str(error).splitlines()[0] if str(error) else type(error).__name__,
            fix="set 'resize' to the size it was trained on, and channels = 3 if it wants colour",
        ) from error
    try:
        adapted.place = place_of_logits(output, len(classes))
        logits = logits_in(output, adapted.place)
    except ValueError as error:
        raise TeacherError(
            f"the teacher '{config.name}' gives no logits",
            why=str(error),
            fix="let its forward return one value per class, in a tensor, a tuple or a dictionary",
        ) from error
    if logits.ndim != 2 or len(logits) != len(images):
        raise TeacherError(
            f"the teacher '{config.name}' gives no logits",
            why=f"{len(images)} images of {shape} gave {tuple(logits.shape)}, and not one row of values each",
            fix="let its forward return a tensor of one value per class",
        )
    if adapted.place is not None and not built.known_output:
        tell(f"teacher      '{config.name}': {described(output, adapted.place)} is taken as logits")
    _find_place_in_training(adapted, logits.shape[1], dataset, tell)
    _read_probabilities(adapted, logits, dataset.task, built, tell)
    if not isinstance(dataset.task, Embedding):
        adapted.take(
            outputs_of_classes(
                config.classes, classes, logits.shape[1], built.classes, teacher=config.name, tell=tell
            )
        )
    if isinstance(dataset.task, Regression) and not built.drawn:
        adapted.in_units_of(dataset.task)
        adapted.put_unit_into_last_layer(images)
    return adapted


def _find_place_in_training(adapted: AdaptedNetwork, outputs: int, dataset: Dataset, tell: Tell) -> None:
    """Find out where the logits are in training mode, on two images.

    Raises:
        TeacherError: it will be trained here, and gives none in that mode.
    """
    config, network = adapted.config, adapted.network
    adapted.place_in_training = adapted.place
    images = adapted.prepared(to_tensor(dataset.train.images[:2], dataset.preprocessing))
    # In this mode the statistics of norms change, and dropout draws.
    kept = {name: tensor.clone() for name, tensor in network.named_buffers()}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output = network.train()(images)
        place = place_of_logits(output, outputs)
        shape = tuple(logits_in(output, place).shape)
        if shape != (len(images), outputs):
            raise ValueError(f"{len(images)} images gave {shape} there")
    except Exception as error:  # whatever the network's own code raises
        if config.training is None:
            return
        raise TeacherError(
            f"the teacher '{config.name}' gives no logits in training mode",
            why=str(error).splitlines()[0] if str(error) else type(error).__name__,
            fix="let its forward return the logits in training mode too, alone, first in a tuple, or as "
            "'logits' in a dictionary",
        ) from error
    finally:
        network.eval()
        for name, tensor in kept.items():
            network.get_buffer(name).copy_(tensor)
    if place not in (None, adapted.place) and config.training is not None:
        where = described(output, place)
        tell(f"teacher      '{config.name}': in training, {where} is taken as logits")
    adapted.place_in_training = place


def _read_probabilities(
    adapted: AdaptedNetwork, outputs: Tensor, task: AnyTask, built: Built, tell: Tell
) -> None:
    """Let logarithms or logits stand for probabilities, if those are what the network gives."""
    adapted.several_labels = isinstance(task, MultiLabel)
    if adapted.several_labels and built.drawn:
        return  # Of few labels, all logits of a network that has learned nothing may lie within 0 and 1.
    if isinstance(task, SingleLabel | MultiLabel) and are_probabilities(outputs, adapted.several_labels):
        adapted.gives_probabilities = True
        used = "logits are" if adapted.several_labels else "logarithm is"
        tell(f"teacher      '{adapted.config.name}' gives probabilities, not logits; their {used} used")


def _train(
    adapted: AdaptedNetwork,
    config: TeacherConfig,
    dataset: Dataset,
    *,
    folder: Path,
    seed: int,
    progress: OnProgress,
    tell: Tell,
) -> tuple[EpochRecord, ...]:
    """Train in place, or load what an equal call has trained; returns the history of the training."""
    settings = config.training or TrainingSettings()
    inputs = [config.content(), settings.model_dump(mode="json"), dataset.digest, seed, _digest_of(adapted)]
    key = value_digest(inputs)[:16]
    final, checkpoint = folder / f"teacher-{key}.safetensors", folder / f"teacher-{key}.checkpoint"
    past = folder / f"teacher-{key}.history.json"
    if final.exists():
        fit_weights(adapted.network, read_weights(final), f"'{final}'")
        return _HISTORY.validate_json(past.read_bytes())
    with divergence_is(
        TeacherError(f"training the teacher '{config.name}' diverged", fix="lower its learning_rate")
    ):
        result = fit(
            adapted,
            dataset,
            settings,
            seed=seed,
            checkpoint=checkpoint,
            on_epoch=lambda done, total, record: progress(done, total, config.name),
            what=f"training the teacher '{config.name}'",
            tell=tell,
        )
    write_atomically(past, _HISTORY.dump_json(result.history))
    write_atomically(final, weights_bytes(adapted.network))
    checkpoint.unlink(missing_ok=True)
    return result.history


def _digest_of(network: nn.Module) -> str:
    return hashlib.sha256(weights_bytes(network)).hexdigest()
