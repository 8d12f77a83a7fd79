"""From the recipe's ``[[teacher]]`` tables to a ``Teacher`` that fits the data."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn

from devices.digests import file_digest, value_digest
from devices.installing import how_to_install
from pipeline.data.base import Dataset
from pipeline.data.tensors import to_tensor
from pipeline.distill.crash_marker import Tell
from pipeline.distill.settings import EpochRecord, TrainingSettings
from pipeline.distill.training import TrainingDiverged, fit
from pipeline.errors import TeacherError
from pipeline.teachers.code import code_digest
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.convnet import ConvNet
from pipeline.teachers.exported import load_exported
from pipeline.teachers.fitting import fit_weights
from pipeline.teachers.teacher import AdaptedNetwork, Member, Teacher
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
        network = network_of(config, dataset, tell)
    adapted = AdaptedNetwork(network, config, dataset.preprocessing)
    _check_fit(adapted, config, dataset)
    return adapted


def _member(
    config: TeacherConfig, dataset: Dataset, *, folder: Path, seed: int, progress: OnProgress, tell: Tell
) -> Member:
    adapted = untrained(config, dataset, seed, tell)
    network = adapted.network
    if _gives_probabilities(adapted, dataset):
        adapted.gives_probabilities = True
        tell(f"teacher      '{config.name}' gives probabilities, not logits; their logarithm is used")
    history: tuple[EpochRecord, ...] = ()
    if config.kind == "train" or config.training is not None:
        history = _train(adapted, config, dataset, folder=folder, seed=seed, progress=progress, tell=tell)
    content = file_digest(config.path) if config.path is not None else _digest_of(network)
    digest = value_digest([config.content(), content, code_digest(config)])
    return Member(config.name, adapted, digest, history)


def network_of(config: TeacherConfig, dataset: Dataset, tell: Tell = lambda line: None) -> nn.Module:
    """The network that a teacher's table names, as it comes.

    Raises:
        TeacherError: a file or package is missing or unsafe.
    """
    channels, classes = config.channels or dataset.input_shape[0], len(dataset.classes)
    if config.kind == "pt2" and config.path is not None:
        return load_exported(config.path)
    if config.kind == "timm":
        network = _from_timm(config, channels, classes)
    elif config.kind == "factory" and config.factory is not None:
        network = network_of_factory(config.factory, config.arguments)
    else:
        return ConvNet(channels, classes, width=config.width, depth=config.depth)
    if config.weights is not None:
        weights = read_weights(config.weights, config.weights_key)
        fit_weights(network, weights, f"'{config.weights}'", tell)
    return network


def network_of_factory(factory: str, arguments: Mapping[str, Any]) -> nn.Module:
    """What a function of the person's own returns.

    Args:
        factory: ``package.module:function``.
        arguments: of the function, by name.

    Raises:
        TeacherError: it cannot be imported, raises, or returns something else than a network.
    """
    module_name, _, function_name = factory.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (Exception, SystemExit) as error:  # the module is the person's own, and may raise anything
        raise TeacherError(
            f"the factory '{factory}' cannot be imported",
            why=f"{type(error).__name__}: {error}",
            fix="install its package in this environment, or set PYTHONPATH to the folder that holds it",
        ) from error
    try:
        network = function(**arguments)
    except (Exception, SystemExit) as error:
        raise TeacherError(
            f"the factory '{factory}' failed",
            why=f"{type(error).__name__}: {error}",
            fix="correct 'arguments'",
        ) from error
    if not isinstance(network, nn.Module):
        raise TeacherError(
            f"the factory '{factory}' returned a {type(network).__name__}",
            fix="return a torch.nn.Module",
        )
    return network


def _from_timm(config: TeacherConfig, channels: int, classes: int) -> nn.Module:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        raise TeacherError(
            "a teacher of kind 'timm' needs the package timm, which cannot be imported",
            why=str(error),
            fix=how_to_install("timm"),
        ) from error
    arguments: dict[str, Any] = {"in_chans": channels, "pretrained": config.weights is None}
    if config.weights is not None or config.training is not None:
        arguments["num_classes"] = classes
    try:
        network: nn.Module = timm.create_model(config.model, **{**arguments, **config.arguments})
    except Exception as error:  # timm, huggingface_hub and its network layer raise many kinds
        raise TeacherError(
            f"timm cannot make '{config.model}'",
            why=f"{type(error).__name__}: {error}",
            fix="check the name; without 'weights', pretrained weights are downloaded and need a network",
        ) from error
    return network


def _check_fit(adapted: AdaptedNetwork, config: TeacherConfig, dataset: Dataset) -> None:
    """Run the network once on two blank images of the data's size."""
    channels, height, width = dataset.input_shape
    shape = f"{channels}x{height}x{width}"
    try:
        with torch.no_grad():
            output = adapted.eval()(torch.zeros(2, channels, height, width))
    except Exception as error:
        raise TeacherError(
            f"the teacher '{config.name}' does not take the data's images of {shape}",
            why=str(error).splitlines()[0] if str(error) else type(error).__name__,
            fix="set 'resize' to the size it was trained on, and channels = 3 if it wants colour",
        ) from error
    classes = len(dataset.classes)
    given = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if given != (2, classes):
        outputs = output.shape[1] if isinstance(given, tuple) and len(given) == 2 else given
        raise TeacherError(
            f"the teacher '{config.name}' has {outputs} outputs, but the data have {classes} classes",
            why=f"two images of {shape} gave {given}, expected (2, {classes})",
            fix="use the data it was trained on, or a network with one output per class that a "
            "[teacher.training] table trains",
        )


def _gives_probabilities(adapted: AdaptedNetwork, dataset: Dataset) -> bool:
    """Whether every output lies in 0..1 and those of an image sum to 1, on some real images."""
    images = to_tensor(dataset.validation.images[:_PROBED], dataset.preprocessing)
    with torch.no_grad():
        outputs = adapted.eval()(images)
    sums = outputs.sum(dim=1)
    within = bool(((outputs >= 0) & (outputs <= 1)).all())
    return within and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


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
    try:
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
    except TrainingDiverged as error:
        raise TeacherError(
            f"training the teacher '{config.name}' diverged", why=str(error), fix="lower its learning_rate"
        ) from error
    write_atomically(past, _HISTORY.dump_json(result.history))
    write_atomically(final, weights_bytes(adapted.network))
    checkpoint.unlink(missing_ok=True)
    return result.history


def _digest_of(network: nn.Module) -> str:
    return hashlib.sha256(weights_bytes(network)).hexdigest()
