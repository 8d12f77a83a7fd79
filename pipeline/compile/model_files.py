"""Finished models in files: an ONNX or LiteRT file stays what it is, with its open dimensions fixed."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from devices.artifacts import companions
from devices.words import listed
from pipeline.compile.model import GivenModel, ModelInput, TensorSpec
from pipeline.compile.variants import ModelFormat
from pipeline.errors import ExportError
from pipeline.work.canonical import OutsideFile
from pipeline.work.disk import write_atomically
from pipeline.work.stage import StageFolder

MOST_BYTES = 2**31 - 1
"""Of an ONNX model with its weights: as many as a message of protocol buffers has, of which variants are."""
_INPUT_TYPES = ("float32", "float16", "uint8", "int8", "int32", "int64", "bool")
_OUTPUT_TYPES = (*_INPUT_TYPES, "float64", "int16")
_LITERT_TYPES = {
    **{0: "float32", 1: "float16", 2: "int32", 3: "uint8"},
    **{4: "int64", 6: "bool", 7: "int16", 9: "int8", 10: "float64"},
}
"""``TensorType`` of LiteRT's schema."""
_QUANTISED = frozenset({"QuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"})


def external_data_of(path: Path) -> tuple[OutsideFile, ...]:
    """The files beside an ONNX file that hold its weights, as they are now; none for another format.

    Of a file that cannot be read there are none: whoever opens it says why.
    """
    folder, files = path.absolute().parent.resolve(), set()
    for each in companions(path.absolute()).values():
        with contextlib.suppress(OSError, ValueError):  # a name that no file can have
            files.add(each.resolve())
    found = (OutsideFile.of(each) for each in sorted(files) if folder in each.parents and each.is_file())
    return tuple(each for each in found if each is not None)


def read_onnx(given: ModelInput, path: Path, folder: StageFolder) -> GivenModel:
    """Read an ONNX file, and keep it with its weights in it and without open dimensions.

    Raises:
        ExportError: it cannot be read or is too large, its inputs cannot be fixed, or its outputs have no
            fixed size.
    """
    try:
        import onnx
    except ImportError as error:
        from devices.installing import how_to_install

        raise ExportError(
            "ONNX models cannot be read", why=str(error), fix=how_to_install("onnxruntime")
        ) from error
    _require_size(path, given.external)
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
    _require_edges(path, len(entries), len(model.graph.output), given.input_shape)
    _require_types(path, [_onnx_spec(each) for each in entries], map(_onnx_spec, model.graph.output))
    batches = {dims[0].dim_param for each in entries if (dims := each.type.tensor_type.shape.dim)} - {""}
    notes = tuple(note for each in entries for note in _fix_shapes(path, each, given.input_shape))
    inputs = tuple(_onnx_spec(each) for each in entries)
    if notes or not all(map(_is_sized, model.graph.output)):
        model = _with_sized_outputs(path, model, batches)
    kept = folder / "model.onnx"
    write_atomically(kept, model.SerializeToString())
    operators = Counter(node.op_type for node in model.graph.node)
    return GivenModel(
        given.name,
        ModelFormat.ONNX,
        {ModelFormat.ONNX: folder.stored("model.onnx")},
        inputs,
        tuple(_onnx_spec(each) for each in model.graph.output),
        dict(sorted(operators.items())),
        bool(_QUANTISED & set(operators)),
        notes,
    )


def _with_sized_outputs(path: Path, model: Any, batches: Collection[str]) -> Any:
    """The model with the shapes of its outputs inferred; what cannot be inferred is taken as declared.

    Args:
        path: of its file.
        model: its inputs are fixed.
        batches: what it called the dimensions of its inputs that were set to 1.

    Raises:
        ExportError: the size of an output is not known.
    """
    import onnx

    declared = [copy.deepcopy(each.type.tensor_type.shape) for each in model.graph.output]
    del model.graph.value_info[:]
    for each in model.graph.output:
        each.type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for entry, before in zip(model.graph.output, declared, strict=True):
        tensor = entry.type.tensor_type
        if not tensor.HasField("shape"):
            tensor.shape.CopyFrom(before)
        for dim, old in zip(tensor.shape.dim, before.dim, strict=False):
            if dim.dim_value < 1 and (old.dim_value > 0 or old.dim_param in batches):
                dim.dim_value = max(1, old.dim_value)
        if not _is_sized(entry):
            raise _unsized(path, entry.name, [dim.dim_value for dim in tensor.shape.dim])
    return model


def _is_sized(entry: Any) -> bool:
    return all(dim.dim_value > 0 for dim in entry.type.tensor_type.shape.dim)


def _unsized(path: Path, name: str, sizes: Sequence[int]) -> ExportError:
    shape = " x ".join(str(size) if size > 0 else "?" for size in sizes)
    return ExportError(
        f"the output '{name}' of {path.name} has no fixed size: {shape}",
        why="outputs are compared number by number",
        fix="export it with fixed shapes, and without operators that choose how much they give",
    )


def _require_types(path: Path, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> None:
    edges = (
        ("input", inputs, _INPUT_TYPES, "takes", "filled"),
        ("output", outputs, _OUTPUT_TYPES, "gives", "compared"),
    )
    for edge, specs, types, does, done in edges:
        for each in specs:
            if each.dtype not in types:
                raise ExportError(
                    f"{path.name} cannot be compiled",
                    why=f"its {edge} '{each.name}' {does} {each.dtype}, which cannot be {done}",
                    fix=f"export it with one of {listed(types)}",
                )


def _require_size(path: Path, external: Sequence[OutsideFile]) -> None:
    size = path.stat().st_size + sum(each.path.stat().st_size for each in external)
    if size > MOST_BYTES:
        raise ExportError(
            f"{path.name} is too large: {size / 1e9:.1f} GB with its weights",
            why=f"variants are ONNX files with the weights in them, which hold {MOST_BYTES / 1e9:.1f} GB",
            fix="export it in smaller parts, or with weights in fp16",
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
            fix="give the others, for example --input-shape 3x224x224; of several inputs, export them fixed",
        )
    _require_shape(path, entry.name, tuple(fixed), wanted)
    if not any(is_open):
        return ()
    for each, size in zip(sizes, fixed, strict=True):
        each.dim_value = size
    return (f"open dimensions of the input '{entry.name}' were set: {'x'.join(map(str, fixed))}",)


def _require_shape(path: Path, name: str, shape: tuple[int, ...], wanted: tuple[int, ...] | None) -> None:
    """An input is of batch 1, and of the shape that was asked for behind it."""
    if wanted is not None and shape[1:] != wanted:
        raise ExportError(
            f"{path.name} does not take inputs of shape {'x'.join(map(str, wanted))}",
            why=f"its input '{name}' is {'x'.join(map(str, shape[1:]))}",
            fix="leave --input-shape out",
        )
    if shape[:1] != (1,):
        raise ExportError(
            f"{path.name} takes batches of {shape[0] if shape else 0}",
            why="models are compiled and measured for one input at a time",
            fix="export it with batch 1, or with an open batch",
        )


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
    return model.inputs, model.outputs


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


def read_litert(given: ModelInput, path: Path, folder: StageFolder) -> GivenModel:
    """Read a LiteRT file, and keep it as it is.

    Raises:
        ExportError: it cannot be read, takes batches or another shape, or has open dimensions.
    """
    from pipeline.export import flatbuffer

    content = path.read_bytes()
    model = flatbuffer.read(content)
    if not model.subgraphs:
        raise ExportError(f"{path.name} cannot be compiled", why="it has no graph", fix="export it again")
    graph = model.subgraphs[0]
    with _whole(path):
        _require_edges(path, len(graph.inputs), len(graph.outputs), given.input_shape)
        inputs = tuple(_litert_spec(graph, each) for each in graph.inputs)
        outputs = tuple(_litert_spec(graph, each) for each in graph.outputs)
        signatures = [graph.tensors[number].shapeSignature for number in graph.inputs]
        operators = Counter(flatbuffer.operator_names(model))
        quantised = any(
            tensor.quantization is not None
            and tensor.quantization.scale is not None
            and len(tensor.quantization.scale)
            for tensor in graph.tensors
        )
    _require_types(path, inputs, outputs)
    for spec in outputs:
        if any(size < 1 for size in spec.shape):
            raise _unsized(path, spec.name, spec.shape)
    notes = tuple(
        note
        for spec, signature in zip(inputs, signatures, strict=True)
        for note in _litert_notes(path, spec, spec.shape if signature is None else signature)
    )
    for spec in inputs:
        _require_shape(path, spec.name, spec.shape, given.input_shape)
    write_atomically(folder / "model.tflite", content)
    return GivenModel(
        given.name,
        ModelFormat.LITERT,
        {ModelFormat.LITERT: folder.stored("model.tflite")},
        inputs,
        outputs,
        dict(sorted(operators.items())),
        quantised,
        notes,
    )


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """What a LiteRT file names and does not have is one clear error."""
    try:
        yield
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ExportError(
            f"{path.name} is not a whole LiteRT model",
            why=f"{type(error).__name__}: {error}",
            fix="convert it again",
        ) from error


def _litert_notes(path: Path, spec: TensorSpec, signature: Sequence[int]) -> tuple[str, ...]:
    """What there is to say of the open dimensions of an input, which its signature has as -1."""
    sizes = ["?" if size < 0 else str(size) for size in signature]
    if "?" in sizes[1:]:
        raise ExportError(
            f"the input '{spec.name}' of {path.name} has open dimensions: {' x '.join(sizes)}",
            why="a LiteRT file stays what it is; only the first dimension, the batch, is taken as 1",
            fix="convert it again with the others fixed",
        )
    return (f"the open batch of the input '{spec.name}' is taken as 1",) if "?" in sizes else ()


def _litert_spec(graph: Any, index: int) -> TensorSpec:
    if index < 0:
        raise IndexError(f"there is no tensor {index}")
    tensor = graph.tensors[index]
    name = tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)
    dtype = _LITERT_TYPES.get(tensor.type, "another type")
    sizes = () if tensor.shape is None else tensor.shape
    return TensorSpec(name, tuple(int(each) for each in sizes), dtype)


def _require_edges(path: Path, inputs: int, outputs: int, wanted: tuple[int, ...] | None) -> None:
    for count, what in ((inputs, "input"), (outputs, "output")):
        if not count:
            raise ExportError(
                f"{path.name} cannot be compiled", why=f"it has no {what}", fix="export it again"
            )
    if wanted is not None and inputs > 1:
        raise ExportError(
            f"{path.name} has {inputs} inputs",
            why="--input-shape is the shape of one",
            fix="leave it out, and export the model with fixed shapes",
        )
