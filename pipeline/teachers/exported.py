"""Networks saved with ``torch.export.save`` (.pt2), read without ``torch.export.load``.

``torch.export.load`` runs code that a file may choose: it unpickles with ``weights_only=False`` (sample
inputs that fail the safe way, weights and constants marked ``use_pickle``), evaluates symbolic shapes with
``sympy.sympify``, resolves targets by attribute from ``torch``, and makes Python source from names in the
graph. So the graph's JSON and the raw tensors are read here, and the graph is interpreted: only ATen
operators and integer arithmetic can be called. Sample inputs, shape expressions and pickles are never opened.
"""

from __future__ import annotations

import math
import operator
import re
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from devices.untrusted import json_from, open_zip
from pipeline.errors import TeacherError

_SCHEMA_MAJOR = 8
_DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
_MEMORY_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}
_KEYWORD = 2
_EITHER = frozenset({"as_sym_int", "as_sym_float", "as_sym_bool", "as_optional_tensor"})
_LITERALS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(
        ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string"), lambda x: x
    ),
    "as_none": lambda _: None,
    "as_scalar_type": _DTYPES.__getitem__,
    "as_memory_format": _MEMORY_FORMATS.__getitem__,
    "as_layout": lambda _: torch.strided,
}
_STRINGS = frozenset({"none", "tanh", "constant", "reflect", "replicate", "circular", "trunc", "floor"})
_ATEN = re.compile(r"torch\.ops\.aten\.([A-Za-z]\w*|_\w+)\.(\w+)")
_CHECKS = frozenset(
    {"_assert_scalar", "_assert_tensor_metadata", "_assert_async", "sym_constrain_range_for_size"}
)
_PRIVATE = frozenset(
    {"_softmax", "_log_softmax", "_to_copy", "_unsafe_view", "_native_batch_norm_legit_no_training"}
)
_REACHES_OUT = frozenset({"from_file"})
_INTEGER = frozenset({"add", "sub", "mul", "floordiv", "mod", "neg", "eq", "ne", "lt", "le", "gt", "ge"})


def load_exported(path: Path) -> ExportedNetwork:
    """Read a ``.pt2`` file with one image input and one logits output.

    Raises:
        TeacherError: the file is missing, damaged, of another version, was exported in training mode, or uses
            what is not interpreted.
    """
    try:
        return _Archive(path).network()
    except FileNotFoundError as error:
        raise TeacherError(
            f"the exported network '{path}' does not exist",
            fix="correct 'path'; a relative path starts at the recipe's folder",
        ) from error
    except (
        OSError,
        zipfile.BadZipFile,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:
        raise TeacherError(
            f"'{path}' cannot be read as an exported network",
            why=f"{type(error).__name__}: {error}",
            fix="write it with torch.export.save from torch 2.9 or newer",
        ) from error


_Getter = Callable[[Mapping[str, Any], torch.device], Any]


@dataclass(frozen=True)
class Step:
    """One call of the graph.

    Attributes:
        function: an ATen operator, or arithmetic of integers.
        positional: how to find its arguments among the values.
        named: the same, by name.
        outputs: what is made of its result.
        spent: values that are not needed after it.
        modules: names of the modules around it in the network that was exported, from the outermost.
    """

    function: Callable[..., Any]
    positional: tuple[_Getter, ...]
    named: tuple[tuple[str, _Getter], ...]
    outputs: list[Mapping[str, Any]]
    spent: tuple[str, ...]
    modules: tuple[str, ...]

    @property
    def results(self) -> set[str]:
        """Names of the values that it gives."""
        return _names(self.outputs)

    def assign(self, result: Any, values: dict[str, Any]) -> None:
        """Put what the call gave among the values."""
        results = result if len(self.outputs) > 1 else [result]
        for output, value in zip(self.outputs, results, strict=True):
            if "as_tensors" in output:
                values.update(zip((entry["name"] for entry in output["as_tensors"]), value, strict=True))
            else:
                for name in _names(output):
                    values[name] = value


@dataclass(frozen=True)
class ExportedGraph:
    """What is called on which values.

    Attributes:
        steps: calls in order.
        input_name: the image input.
        output_name: the logits.
        qualified: names of parameters, buffers and constants in the network that was exported.
        parameters: which of them are parameters.
        sizes: of the values; ``None`` where the export left a dimension open.
    """

    steps: tuple[Step, ...]
    input_name: str
    output_name: str
    qualified: Mapping[str, str]
    parameters: frozenset[str]
    sizes: Mapping[str, tuple[int | None, ...]]

    @property
    def input_sizes(self) -> tuple[int | None, ...]:
        """Of the image input."""
        return self.sizes[self.input_name]


class ExportedNetwork(nn.Module):
    """Interprets an exported graph; ``(N, C, H, W)`` to logits, also for a graph of fixed batch size.

    Args:
        tensors: parameters, buffers and constants by their name in the graph.
        graph: what is called.
    """

    def __init__(self, tensors: Mapping[str, Tensor], graph: ExportedGraph) -> None:
        super().__init__()
        self.graph = graph
        self._names = tuple(tensors)
        for position, tensor in enumerate(tensors.values()):
            self.register_buffer(f"tensor_{position}", tensor)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters, buffers and constants by their name in the graph."""
        return {name: getattr(self, f"tensor_{position}") for position, name in enumerate(self._names)}

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Of one image; ``None`` where the export left one of these dimensions open."""
        _, *sizes = self.graph.input_sizes
        known = tuple(size for size in sizes if size is not None)
        return known if len(known) == len(sizes) else None

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, classes)``.

        Raises:
            ValueError: the images have other sizes than the graph was exported for.
        """
        batch, *wanted = self.graph.input_sizes
        if images.ndim != len(self.graph.input_sizes) or any(
            size not in (None, given) for size, given in zip(wanted, images.shape[1:], strict=True)
        ):
            raise ValueError(
                f"the graph takes images of shape {tuple(wanted)}, got {tuple(images.shape[1:])}"
            )
        if batch is None:
            return self._run(images)
        count = len(images)
        filled = torch.cat([images, images[-1:].expand(-count % batch, *images.shape[1:])])
        return torch.cat([self._run(part) for part in torch.split(filled, batch)])[:count]

    def _run(self, images: Tensor) -> Tensor:
        values: dict[str, Any] = {**self.tensors, self.graph.input_name: images}
        for step in self.graph.steps:
            positional = [get(values, images.device) for get in step.positional]
            named = {name: get(values, images.device) for name, get in step.named}
            step.assign(step.function(*positional, **named), values)
            for name in step.spent:
                values.pop(name, None)
        logits: Tensor = values[self.graph.output_name]
        return logits


class _Archive:
    def __init__(self, path: Path) -> None:
        self._zip = open_zip(path)
        models = [name for name in self._zip.namelist() if re.fullmatch(r"[^/]+/models/[^/]+\.json", name)]
        if not models and any("/data/aotinductor/" in f"/{name}" for name in self._zip.namelist()):
            raise ValueError("it is a package of AOTInductor: machine code, of which no network can be read")
        if len(models) != 1:
            raise ValueError(f"expected one exported program, found {len(models)}")
        self._root, _, file = models[0].split("/")
        self._model = file.removesuffix(".json")
        if self._read("byteorder").decode() != sys.byteorder:
            raise ValueError("the file was written on a machine of another byte order")

    def network(self) -> ExportedNetwork:
        program = json_from(self._read(f"models/{self._model}.json"))
        major = program["schema_version"]["major"]
        if major != _SCHEMA_MAJOR:
            raise ValueError(f"its schema has version {major}, version {_SCHEMA_MAJOR} is understood")
        graph, signature = program["graph_module"]["graph"], program["graph_module"]["signature"]
        stored = {**self._tensors("weights"), **self._tensors("constants")}
        tensors: dict[str, Tensor] = {}
        qualified: dict[str, str] = {}
        parameters, images = set[str](), list[str]()
        for spec in signature["input_specs"]:
            (kind, content), *_ = spec.items()
            match kind:
                case "parameter" | "buffer" | "tensor_constant":
                    name = content["arg"]["name"]
                    qualified[name] = content[f"{kind}_name"]
                    tensors[name] = stored[qualified[name]]
                    parameters |= {name} if kind == "parameter" else set()
                case "user_input" if "as_tensor" in content["arg"]:
                    images.append(content["arg"]["as_tensor"]["name"])
                case _:
                    raise ValueError(f"inputs of kind {kind} are not interpreted")
        outputs = [
            spec.get("user_output", {}).get("arg", {}).get("as_tensor") for spec in signature["output_specs"]
        ]
        if len(images) != 1 or len(outputs) != 1 or outputs[0] is None:
            raise ValueError(
                f"expected one image input and one logits output, found {len(images)} and {len(outputs)}"
            )
        output = outputs[0]["name"]
        described = ExportedGraph(
            _steps(graph["nodes"], output),
            images[0],
            output,
            qualified,
            frozenset(parameters),
            {
                name: tuple(size.get("as_int") for size in value["sizes"])
                for name, value in graph["tensor_values"].items()
            },
        )
        return ExportedNetwork(tensors, described)

    def _tensors(self, folder: str) -> dict[str, Tensor]:
        config = json_from(self._read(f"data/{folder}/{self._model}_{folder}_config.json"))["config"]
        return {name: self._tensor(folder, meta) for name, meta in config.items()}

    def _tensor(self, folder: str, meta: Mapping[str, Any]) -> Tensor:
        if meta["use_pickle"] or not meta["tensor_meta"]:
            raise ValueError(f"{meta['path_name']} is a pickle, which could run code")
        about = meta["tensor_meta"]
        sizes, strides = ([size["as_int"] for size in about[key]] for key in ("sizes", "strides"))
        content = bytearray(self._read(f"data/{folder}/{meta['path_name']}"))
        dtype = _DTYPES[about["dtype"]]
        if math.prod(sizes) * dtype.itemsize > len(content):
            raise ValueError(f"{meta['path_name']} has {len(content)} bytes for a tensor of {sizes}")
        if not content:
            return torch.zeros(sizes, dtype=dtype)
        flat = torch.frombuffer(content, dtype=dtype)
        return flat.as_strided(sizes, strides, about["storage_offset"]["as_int"])

    def _read(self, name: str) -> bytes:
        return self._zip.read(f"{self._root}/{name}")


def _steps(nodes: list[Mapping[str, Any]], output: str) -> tuple[Step, ...]:
    calls = [(node, function) for node in nodes if (function := _function(node)) is not None]
    last_use: dict[str, int] = {}
    for position, (node, _) in enumerate(calls):
        last_use.update(dict.fromkeys(_names(node["outputs"]), position))
        last_use.update({name: position for name in _names(node["inputs"]) if name in last_use})
    last_use.pop(output, None)
    spent: dict[int, list[str]] = {}
    for name, position in last_use.items():
        spent.setdefault(position, []).append(name)
    steps = []
    for position, (node, function) in enumerate(calls):
        positional = [_getter(given["arg"]) for given in node["inputs"] if given.get("kind") != _KEYWORD]
        named = [(g["name"], _getter(g["arg"])) for g in node["inputs"] if g.get("kind") == _KEYWORD]
        freed = tuple(spent.get(position, ()))
        modules = _modules(node.get("metadata", {}).get("nn_module_stack", ""))
        steps.append(Step(function, tuple(positional), tuple(named), node["outputs"], freed, modules))
    return tuple(steps)


def _function(node: Mapping[str, Any]) -> Callable[..., Any] | None:
    """What a node calls; ``None`` for checks of shapes that the caller has made already."""
    target = node["target"]
    if match := _ATEN.fullmatch(target):
        name, overload = match.groups()
        if name in _CHECKS:
            return None
        if name not in _REACHES_OUT and (not name.startswith("_") or name in _PRIVATE):
            _refuse_training(node)
            function = getattr(getattr(torch.ops.aten, name), overload)
            if isinstance(function, torch._ops.OpOverload):
                return function
    module, _, name = target.partition(".")
    if module == "_operator" and name in _INTEGER:
        arithmetic: Callable[..., Any] = getattr(operator, name)
        return arithmetic
    raise ValueError(f"the operator {target} is not interpreted; use kind 'factory' with weights instead")


def _refuse_training(node: Mapping[str, Any]) -> None:
    for argument in node["inputs"]:
        if argument["name"] in ("train", "training") and argument["arg"].get("as_bool"):
            raise ValueError(
                "the network was exported in training mode: call model.eval() before torch.export"
            )


def _getter(argument: Mapping[str, Any]) -> _Getter:
    """How to find an argument's value while the graph runs."""
    (kind, content), *_ = argument.items()
    if kind in _LITERALS and (kind != "as_string" or content in _STRINGS):
        literal = _LITERALS[kind](content)
        return lambda values, device: literal
    if kind == "as_device":
        return lambda values, device: device
    if kind == "as_tensor" or (kind in _EITHER and "as_name" in content):
        name = content["name" if kind == "as_tensor" else "as_name"]
        return lambda values, device: values[name]
    if kind in _EITHER:
        return _getter(content)
    if kind == "as_tensors" or kind.removesuffix("s") in _EITHER:
        getters = [_getter({kind.removesuffix("s"): entry}) for entry in content]
        return lambda values, device: [get(values, device) for get in getters]
    raise ValueError(f"an argument of kind {kind} ({content!r}) is not interpreted")


def _modules(stack: str) -> tuple[str, ...]:
    """Names in ``key,name,class;key,name,class``; the second call of a module has a name of its own.

    Where torch knows no module, the key is the name.
    """
    entries = (entry.split(",") for entry in stack.split(";"))
    return tuple(entry[1] for entry in entries if len(entry) == 3 and entry[1] not in ("", entry[0]))


def _names(part: Any) -> set[str]:
    """Every value that a piece of the graph refers to."""
    if isinstance(part, list):
        return {name for entry in part for name in _names(entry)}
    if not isinstance(part, Mapping):
        return set()
    if "arg" in part:
        return _names(part["arg"])
    own = {part[key] for key in ("name", "as_name") if isinstance(part.get(key), str)}
    return own.union(*(_names(value) for value in part.values()))
