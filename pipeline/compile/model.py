"""A finished model that somebody brings, in every form that variants take: stage ``model``.

An ONNX or LiteRT file stays what it is. A network of torch, from a factory or a ``.pt2`` file, is exported to
each format that is wanted, and compared there with torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.inventory import HOST
from devices.target import Target
from devices.words import count_of, listed
from pipeline.compile.services import CompileServices
from pipeline.compile.variants import ModelFormat
from pipeline.errors import ExportError
from pipeline.teachers.code import factory_digest
from pipeline.work.canonical import OutsideFile, StoredFile
from pipeline.work.stage import StageFolder, stage

if TYPE_CHECKING:
    from torch import nn

_FORMATS = {".onnx": ModelFormat.ONNX, ".tflite": ModelFormat.LITERT, ".pt2": ModelFormat.TORCH}
_PARITY_INPUTS, _PARITY_TOLERANCE = 4, 1e-3
_QUANTISED = frozenset({"QuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"})


@dataclass(frozen=True)
class Factory:
    """A function that returns a network of torch.

    Attributes:
        function: ``package.module:function``.
        arguments: by name.
        weights: state dict, ``.safetensors`` or a file of ``torch.save``.
        code: digest of the code.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: OutsideFile | None = None
    code: str | None = None

    @classmethod
    def of(cls, function: str, arguments: Mapping[str, Any], weights: Path | None) -> Factory:
        """With weights and code as they are now."""
        return cls(function, arguments, OutsideFile.of(weights), factory_digest(function))


@dataclass(frozen=True)
class ModelInput:
    """What somebody brings.

    Attributes:
        source: a file, or a factory.
        input_shape: of one input, without the batch; ``None`` where the file says it.
        formats: in which it is wanted, as far as it can be had.
        external: files beside an ONNX file that hold its weights.
    """

    source: OutsideFile | Factory
    input_shape: tuple[int, ...] | None
    formats: tuple[ModelFormat, ...]
    external: tuple[OutsideFile, ...] = ()

    @property
    def name(self) -> str:
        """Short, for people."""
        if isinstance(self.source, Factory):
            return self.source.function.partition(":")[2]
        return self.source.path.stem


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: its shape has no open dimension."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class GivenModel:
    """The model as it was brought.

    Attributes:
        name: short.
        format: in which it was brought.
        files: by format. Of torch the LiteRT file takes channels last, the others channels first.
        input: as the original takes it; of torch, channels first.
        outputs: likewise.
        operators: how many of each kind, where the format tells.
        quantised: it has integer operators already.
        notes: what there is to say of it.
    """

    name: str
    format: ModelFormat
    files: Mapping[ModelFormat, StoredFile]
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    operators: Mapping[str, int] = field(default_factory=dict)
    quantised: bool = False
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> int | None:
        """How many classes its output scores; ``None`` if that is no row of scores."""
        shape = self.outputs[0].shape
        return shape[1] if len(shape) == 2 and shape[0] == 1 and shape[1] > 1 else None

    def turned(self, fmt: ModelFormat) -> bool:
        """Whether the file of a format takes channels last where the original takes them first."""
        return self.format is ModelFormat.TORCH and fmt is ModelFormat.LITERT and len(self.input.shape) == 4


def format_of_file(path: Path) -> ModelFormat:
    """By its suffix.

    Raises:
        ExportError: it is of no format that is compiled, or there is no such file.
    """
    fmt = _FORMATS.get(path.suffix.lower())
    if fmt is None:
        raise ExportError(
            f"{str(path)!r} is no model that can be compiled",
            why=f"models are {listed(_FORMATS)} files, or a factory written package.module:function",
            fix="export it to ONNX, or give the factory",
        )
    if not path.is_file():
        raise ExportError(
            f"there is no file {str(path)!r}", why="it is a folder" if path.is_dir() else "", fix="check it"
        )
    return fmt


def external_data_of(path: Path) -> tuple[OutsideFile, ...]:
    """The files beside an ONNX file that hold its weights, as they are now; none for another format.

    Of a file that cannot be read there are none: whoever opens it says why.
    """
    if path.suffix.lower() != ModelFormat.ONNX.suffix:
        return ()
    try:
        import onnx

        tensors = onnx.load(path, load_external_data=False).graph.initializer
    except Exception:  # as in _read_onnx
        return ()
    entries = (entry for tensor in tensors for entry in tensor.external_data if entry.key == "location")
    folder = path.absolute().parent
    files = sorted({(folder / entry.value).resolve() for entry in entries})
    found = (OutsideFile.of(each) for each in files if each.is_relative_to(folder.resolve()))
    return tuple(each for each in found if each is not None)


@stage("model", packages=("torch", "onnx", "litert-torch"))
def open_model(given: ModelInput, folder: StageFolder, services: CompileServices) -> GivenModel:
    """Read the model, fix its shapes, and export it where it is torch's.

    Raises:
        ExportError: it cannot be read or exported, has several inputs, open dimensions, or another input.
        TeacherError: a factory fails, or its weights do not fit.
        ParityError: an export does not compute what torch does.
    """
    source = given.source
    fmt = ModelFormat.TORCH if isinstance(source, Factory) else format_of_file(source.path)
    if fmt is ModelFormat.TORCH:
        return _exported(given, _network(source), folder, services)
    assert isinstance(source, OutsideFile)
    read = _read_onnx if fmt is ModelFormat.ONNX else _read_litert
    return read(given, source.path, folder)


def _network(source: OutsideFile | Factory) -> nn.Module:
    from pipeline.teachers.exported import load_exported
    from pipeline.teachers.loading import network_of_factory
    from pipeline.teachers.weights import fit_weights, read_weights

    if isinstance(source, OutsideFile):
        return load_exported(source.path)
    network = network_of_factory(source.function, source.arguments)
    if source.weights is not None:
        fit_weights(network, read_weights(source.weights.path, None), f"'{source.weights.path}'")
    return network.eval()


def _exported(
    given: ModelInput, network: nn.Module, folder: StageFolder, services: CompileServices
) -> GivenModel:
    import torch

    from pipeline.export.base import Format
    from pipeline.export.conversion import save_program
    from pipeline.export.network import export_network
    from pipeline.export.parity import check_parity
    from pipeline.teachers.exported import ExportedNetwork

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
            outputs = network(inputs)
    except Exception as error:  # the network is the person's own, and may raise anything
        raise ExportError(
            f"{given.name} does not take inputs of shape {'x'.join(map(str, shape))}",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            fix="give the shape that it takes with --input-shape",
        ) from error
    if not isinstance(outputs, torch.Tensor):
        raise ExportError(
            f"{given.name} cannot be exported",
            why=f"it gives a {type(outputs).__name__}, not one tensor",
            fix="wrap it in a module that gives the tensor that is wanted",
        )
    tolerance = _PARITY_TOLERANCE * float(outputs.abs().max())
    files = {}
    for fmt in given.formats:
        name = f"model{fmt.suffix}"
        services.reporter.note(f"model        exporting {given.name} to {fmt}")
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
        TensorSpec("input", (1, *shape), "float32"),
        (TensorSpec("logits", (1, *outputs.shape[1:]), "float32"),),
    )


def _read_onnx(given: ModelInput, path: Path, folder: StageFolder) -> GivenModel:
    try:
        import onnx
    except ImportError as error:
        from devices.installing import how_to_install

        raise ExportError(
            "ONNX models cannot be read", why=str(error), fix=how_to_install("onnxruntime")
        ) from error
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # the reader of protocol buffers raises kinds of its own
        raise ExportError(
            f"{path.name} cannot be read as an ONNX model",
            why=" ".join(str(error).split())[:300],
            fix="export it again; external data must lie beside it",
        ) from error
    weights = {each.name for each in model.graph.initializer}
    entries = [each for each in model.graph.input if each.name not in weights]
    _require_one(path, [each.name for each in entries])
    notes = _fix_shapes(path, entries[0], given.input_shape)
    if notes:
        del model.graph.value_info[:]
        for each in model.graph.output:
            each.type.tensor_type.ClearField("shape")
        model = onnx.shape_inference.infer_shapes(model)
    kept = folder / "model.onnx"
    kept.write_bytes(model.SerializeToString())
    operators = Counter(node.op_type for node in model.graph.node)
    return GivenModel(
        given.name,
        ModelFormat.ONNX,
        {ModelFormat.ONNX: folder.stored("model.onnx")},
        _onnx_spec(entries[0]),
        tuple(_onnx_spec(each) for each in model.graph.output),
        dict(sorted(operators.items())),
        bool(_QUANTISED & set(operators)),
        notes,
    )


def _fix_shapes(path: Path, entry: Any, wanted: tuple[int, ...] | None) -> tuple[str, ...]:
    """Set the open dimensions of the input; what was done, in words."""
    sizes = entry.type.tensor_type.shape.dim
    is_open = [not each.HasField("dim_value") or each.dim_value < 1 for each in sizes]
    shape = (1, *wanted) if wanted is not None else (1,) + (0,) * (len(sizes) - 1)
    fixed = [shape[n] if is_open[n] and n < len(shape) else each.dim_value for n, each in enumerate(sizes)]
    if not fixed or any(each < 1 for each in fixed):
        names = [
            each.dim_param or "?" if o else str(each.dim_value)
            for each, o in zip(sizes, is_open, strict=True)
        ]
        raise ExportError(
            f"the input '{entry.name}' of {path.name} has open dimensions: {' x '.join(names) or 'all'}",
            why="latency and calibration are of one shape; only the first dimension, the batch, is set to 1",
            fix="give the others, for example --input-shape 3x224x224",
        )
    if wanted is not None and tuple(fixed[1:]) != wanted:
        raise ExportError(
            f"{path.name} does not take inputs of shape {'x'.join(map(str, wanted))}",
            why=f"its input '{entry.name}' is {'x'.join(map(str, fixed[1:]))}",
            fix="leave --input-shape out",
        )
    if fixed[0] != 1:
        raise ExportError(
            f"{path.name} takes batches of {fixed[0]}",
            why="models are compiled and measured for one input at a time",
            fix="export it with batch 1, or with an open batch",
        )
    if not any(is_open):
        return ()
    for each, size in zip(sizes, fixed, strict=True):
        each.dim_value = size
    return (f"open dimensions of the input were set: {'x'.join(map(str, fixed))}",)


def specs_of(path: Path, model: GivenModel) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a compiled file; those of the model where its format does not tell."""
    if path.suffix == ".onnx":
        import onnx

        graph = onnx.load(path).graph
        weights = {each.name for each in graph.initializer}
        inputs = tuple(_onnx_spec(each) for each in graph.input if each.name not in weights)
        outputs = tuple(_onnx_spec(each) for each in graph.output)
        return inputs, tuple(_known(each, model) for each in outputs)
    if path.suffix == ".tflite":
        from pipeline.export import flatbuffer

        graph = flatbuffer.read(path.read_bytes()).subgraphs[0]
        inputs, outputs = (
            tuple(_litert_spec(graph, each) for each in tensors) for tensors in (graph.inputs, graph.outputs)
        )
        return inputs, outputs
    return (model.input,), model.outputs


def _known(spec: TensorSpec, model: GivenModel) -> TensorSpec:
    """An output with the shape that it has in the model, where an optimiser left that out."""
    shapes = {each.name: each.shape for each in model.outputs}
    known = spec.shape and all(spec.shape)
    return spec if known else TensorSpec(spec.name, shapes.get(spec.name, model.outputs[0].shape), spec.dtype)


def _onnx_spec(entry: Any) -> TensorSpec:
    import onnx

    tensor = entry.type.tensor_type
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)) if tensor.elem_type else "unknown"
    return TensorSpec(entry.name, tuple(each.dim_value for each in tensor.shape.dim), dtype)


def _read_litert(given: ModelInput, path: Path, folder: StageFolder) -> GivenModel:
    from pipeline.export import flatbuffer

    content = path.read_bytes()
    model = flatbuffer.read(content)
    if not model.subgraphs:
        raise ExportError(f"{path.name} cannot be compiled", why="it has no graph", fix="export it again")
    graph = model.subgraphs[0]
    _require_one(path, [str(graph.tensors[n].name) for n in graph.inputs])
    names = flatbuffer.operator_names(model)
    (folder / "model.tflite").write_bytes(content)
    entry = _litert_spec(graph, graph.inputs[0])
    signature = graph.tensors[graph.inputs[0]].shapeSignature
    open_shape = signature is not None and any(int(each) < 0 for each in signature)
    notes = ("open dimensions of the input are taken as 1",) if open_shape else ()
    return GivenModel(
        given.name,
        ModelFormat.LITERT,
        {ModelFormat.LITERT: folder.stored("model.tflite")},
        entry,
        tuple(_litert_spec(graph, each) for each in graph.outputs),
        dict(sorted(Counter(names).items())),
        any(
            tensor.quantization is not None
            and tensor.quantization.scale is not None
            and len(tensor.quantization.scale)
            for tensor in graph.tensors
        ),
        notes,
    )


def _litert_spec(graph: Any, index: int) -> TensorSpec:
    tensor = graph.tensors[index]
    name = tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)
    dtype = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 9: "int8"}.get(tensor.type, "unknown")
    sizes = () if tensor.shape is None else tensor.shape
    return TensorSpec(name, tuple(int(each) for each in sizes), dtype)


def _require_one(path: Path, inputs: Sequence[str]) -> None:
    if len(inputs) != 1:
        raise ExportError(
            f"{path.name} has {count_of(len(inputs), 'input')}: {', '.join(inputs) or 'none'}",
            why="a model is calibrated and compared with inputs of one array",
            fix="make the others constants, or measure the file with 'lathe profile'",
        )
