"""Networks of torch, from a factory or a ``.pt2`` file, exported to each format that is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devices.inventory import HOST
from devices.target import Target
from pipeline.compile.model import Factory, GivenModel, ModelInput, TensorSpec
from pipeline.compile.services import CompileServices
from pipeline.compile.variants import ModelFormat
from pipeline.errors import ExportError
from pipeline.work.canonical import OutsideFile
from pipeline.work.stage import StageFolder

if TYPE_CHECKING:
    from torch import nn

_PARITY_INPUTS, _PARITY_TOLERANCE = 4, 1e-3


def network_of(source: OutsideFile | Factory) -> nn.Module:
    """The network in evaluation mode.

    Raises:
        TeacherError: the file cannot be read, the factory fails, or its weights do not fit.
    """
    from pipeline.teachers.building import network_of_factory
    from pipeline.teachers.exported import load_exported
    from pipeline.teachers.fitting import fit_weights
    from pipeline.teachers.weights import read_weights

    if isinstance(source, OutsideFile):
        return load_exported(source.path)
    network = network_of_factory(source.function, source.arguments)
    if source.weights is not None:
        fit_weights(
            network, read_weights(source.weights.path, source.weights_key), f"'{source.weights.path}'"
        )
    return network.eval()


def export_to_all(
    given: ModelInput, network: nn.Module, folder: StageFolder, services: CompileServices
) -> GivenModel:
    """Export a network to the formats that are wanted, each compared with torch.

    Args:
        given: what was asked for.
        network: of one image, in evaluation mode; see ``pipeline.teachers.outputs.giving_one_tensor``.
        folder: for the files.
        services: where to report.

    Raises:
        ExportError: it cannot be exported, or does not take such inputs.
        ParityError: an export does not compute what torch does.
    """
    import torch

    from pipeline.export.base import Format
    from pipeline.export.conversion import save_program
    from pipeline.export.network import export_network
    from pipeline.export.parity import check_parity
    from pipeline.teachers.exported import ExportedNetwork
    from pipeline.teachers.outputs import OutputsError, giving_one_tensor

    shape = given.input_shape
    if shape is None and isinstance(network, ExportedNetwork):
        shape = network.input_shape
    if shape is None or len(shape) != 3:
        raise ExportError(
            f"the shape of the input of {given.name} is not known",
            why="a network of torch takes any; it is exported for one of channels, height and width",
            fix="give it, for example --input-shape 3x224x224",
        )
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(_PARITY_INPUTS, *shape, generator=generator)
    try:
        with torch.inference_mode():
            network = giving_one_tensor(network, inputs)
            outputs = network(inputs)
    except OutputsError as error:
        raise ExportError(
            f"{given.name} cannot be exported",
            why=str(error),
            fix="wrap it in a module that gives the tensor that is wanted",
        ) from error
    except Exception as error:  # the network is the person's own, and may raise anything
        raise ExportError(
            f"{given.name} does not take inputs of shape {'x'.join(map(str, shape))}",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            fix="give the shape that it takes with --input-shape",
        ) from error
    tolerance = _PARITY_TOLERANCE * float(outputs.abs().max())
    files = {}
    for fmt in given.formats:
        name = f"model{fmt.suffix}"
        with services.reporter.task(f"exporting {given.name} to {fmt}", ""):
            if fmt is ModelFormat.TORCH:
                save_program(network, shape, folder / name)
            else:
                exported = {ModelFormat.ONNX: Format.ONNX, ModelFormat.LITERT: Format.LITERT}[fmt]
                export_network(network, shape, exported, folder / name)
                target = Target(HOST.name, exported.runtime)
                check_parity(network, folder / name, exported, inputs.numpy(), target, tolerance=tolerance)
        files[fmt] = folder.stored(name)
    return GivenModel(
        given.name,
        ModelFormat.TORCH,
        files,
        (TensorSpec("input", (1, *shape), "float32"),),
        (TensorSpec("logits", (1, *outputs.shape[1:]), "float32"),),
    )
