"""From one ``[[teacher]]`` table of a recipe to its network, as it was saved."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from devices.installing import how_to_install
from pipeline.data.base import Dataset
from pipeline.errors import TeacherError
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.convnet import ConvNet
from pipeline.teachers.exported import load_exported
from pipeline.teachers.fitting import fit_weights
from pipeline.teachers.weights import read_weights

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Built:
    """A network with what came along.

    Attributes:
        network: as it was saved, or with weights that are drawn.
        config: the recipe's table, completed by what the network's files say.
        classes: names of its outputs, if they have names.
        known_output: whether it is known by its kind where its logits are.
        drawn: whether weights of it are drawn, for the training here; what it gives says nothing before.
    """

    network: nn.Module
    config: TeacherConfig
    classes: tuple[str, ...] = ()
    known_output: bool = False
    drawn: bool = False


def build(config: TeacherConfig, dataset: Dataset, tell: Tell = lambda line: None) -> Built:
    """The network that a teacher's table names.

    Raises:
        TeacherError: a file or package is missing or unsafe, or weights do not fit.
    """
    channels, classes = config.channels or dataset.input_shape[0], len(dataset.classes)
    if config.kind == "pt2" and config.path is not None:
        return Built(load_exported(config.path), config)
    if config.kind == "huggingface" and config.path is not None:
        from pipeline.teachers.huggingface import build_from_folder

        return build_from_folder(config, classes, tell)
    if config.kind == "torchvision":
        network = _from_torchvision(config, classes)
    elif config.kind == "timm":
        network = _from_timm(config, channels, classes)
    elif config.kind == "factory" and config.factory is not None:
        network = network_of_factory(config.factory, config.arguments)
    else:
        network = ConvNet(channels, classes, width=config.width, depth=config.depth)
        return Built(network, config, drawn=True)
    if config.weights is not None:
        weights = read_weights(config.weights, config.weights_key)
        fit_weights(network, weights, f"'{config.weights}'", tell)
    return Built(network, config, drawn=config.weights is None and config.training is not None)


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
    if config.classes is None and (config.weights is not None or config.training is not None):
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


def _from_torchvision(config: TeacherConfig, classes: int) -> nn.Module:
    try:
        from torchvision.models import get_model
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise TeacherError(
            "a teacher of kind 'torchvision' needs the package torchvision, which cannot be imported",
            why=str(error),
            fix=how_to_install("torchvision"),
        ) from error
    arguments: dict[str, Any] = {"weights": None}
    if config.classes is None:
        arguments["num_classes"] = classes
    try:
        network: nn.Module = get_model(config.model, **{**arguments, **config.arguments})
    except Exception as error:  # whatever the model's own function raises
        raise TeacherError(
            f"torchvision cannot make '{config.model}'",
            why=f"{type(error).__name__}: {error}",
            fix="check the name and 'arguments'",
        ) from error
    return network
