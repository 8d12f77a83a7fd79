"""Stage ``model``: a finished model is read as it is, or exported where it is torch's."""

from __future__ import annotations

from pipeline.compile.model import Factory, GivenModel, ModelInput, format_of_file
from pipeline.compile.model_files import read_litert, read_onnx
from pipeline.compile.networks import export_to_all, network_of
from pipeline.compile.services import CompileServices
from pipeline.compile.variants import ModelFormat
from pipeline.work.canonical import OutsideFile
from pipeline.work.stage import StageFolder, stage


@stage("model", packages=("torch", "onnx", "litert-torch"))
def open_model(given: ModelInput, folder: StageFolder, services: CompileServices) -> GivenModel:
    """Read the model, fix its shapes, and export it where it is torch's.

    Raises:
        ExportError: it cannot be read or exported, has open dimensions or no outputs, or takes another input.
        TeacherError: a factory fails, or its weights do not fit.
        ParityError: an export does not compute what torch does.
    """
    source = given.source
    fmt = ModelFormat.TORCH if isinstance(source, Factory) else format_of_file(source.path)
    if fmt is ModelFormat.TORCH:
        return export_to_all(given, network_of(source), folder, services)
    assert isinstance(source, OutsideFile)
    read = read_onnx if fmt is ModelFormat.ONNX else read_litert
    return read(given, source.path, folder)
