"""The inputs of a model: which shape each one gets, and which values.

A request may give shapes and values by the names of inputs. What it leaves open is chosen here: open
dimensions are taken as 1 unless the engine knows better, and values by the type and the name of an input.
What was chosen is told with the result, so that nobody takes a latency for that of another size.

The settings of a job hold, as JSON::

    shapes: {name: [sizes] or {"picture": [height, width, channels]} or {"sound": [samples]}}
    fills: {name: {"kind": "zeros" | "ones" | "random" | "range" | "value" | "file", ...}}

where ``range`` has ``low`` and ``high``, both included, ``value`` has ``value``, and ``file`` has ``path``,
an .npy file, its ``form`` (``array``, ``picture`` or ``sound``), and ``said``, how it is told.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import Any, Dict, List, Sequence, Tuple, Union

import numpy

from . import machine

Declared = Tuple[Union[int, str], ...]
"""Sizes of an input as a model declares them; an open one is a text, its name in the model or ``UNNAMED``."""
UNNAMED = "?"
Described = Sequence[Tuple[str, Declared]]
"""Name and declared sizes of each input."""

SAMPLE_RATE = 16000
TOKENS = (0, 99)
"""Values of token ids: few enough for any vocabulary, and not all the same row of a table."""
LENGTHS = r"\b(len|lens|length|lengths)\b"
WIDE, ANY = r"int(16|32|64)", ""
MEANINGS: Tuple[Tuple[str, str, Dict[str, Any]], ...] = (
    (ANY, "mask", {"kind": "ones"}),
    ("bool", r"\buse\b.*\bcache\b", {"kind": "zeros"}),
    ("bool", "", {"kind": "ones"}),
    (WIDE, r"\b(type|segment)\b", {"kind": "zeros"}),
    (WIDE, r"\bpositions?\b", {"kind": "positions"}),
    (WIDE, r"\b(ids|tokens?)\b", {"kind": "range", "low": TOKENS[0], "high": TOKENS[1]}),
    (WIDE, r"\b(sr|rate|fs)\b", {"kind": "value", "value": SAMPLE_RATE}),
)
"""Types and names of inputs other than floating point, and what they are filled with; the first that fits."""
MOST_BYTES = 1 << 40
CHANNELS = (3, 1, 4)
"""Sizes of an axis that can be the colours of a picture, the likeliest first."""


class BadInputError(ValueError):
    """An input that was given does not fit the model."""


def shapes_of(
    described: Described, settings: Dict[str, Any], least: Sequence[Sequence[int]] = ()
) -> List[Any]:
    """The shape of each input: what was given where it fits, else the declared one with 1 for open sizes.

    A size that a model calls by one name in several inputs is given with the first of them.

    Args:
        described: the inputs of the model.
        settings: of the job.
        least: for each input its sizes where nothing is given, of a runtime that knows better than 1.

    Raises:
        BadInputError: there is no such input, it has another rank or size, or no memory could hold it.
    """
    given = settings.get("shapes", {})
    names = [name for name, _ in described]
    for name in [*given, *settings.get("fills", {})]:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1, 0.4)
            nearest = f"; the nearest is '{near[0]}'" if near else ""
            have = ", ".join(f"'{each}'" for each in names) or "none"
            raise BadInputError(f"the model has no input '{name}'{nearest}; it has {have}")
    shapes, named = [], named_sizes(described, settings)
    for index, (name, declared) in enumerate(described):
        wanted = (
            _sizes(name, declared, given[name]) if name in given else [named.get(size) for size in declared]
        )
        otherwise = least[index] if least else [size if isinstance(size, int) else 1 for size in declared]
        shape = tuple(int(other if size is None else size) for size, other in zip(wanted, otherwise))
        _check_memory(name, shape)
        shapes.append(shape)
    return shapes


def named_sizes(described: Described, settings: Dict[str, Any]) -> Dict[Any, int]:
    """Sizes that were given of open dimensions, by the model's name for them."""
    found: Dict[Any, int] = {}
    for name, declared in described:
        if name in settings.get("shapes", {}):
            for size, given in zip(declared, _sizes(name, declared, settings["shapes"][name])):
                if isinstance(size, str) and size != UNNAMED and given is not None:
                    found.setdefault(size, int(given))
    return found


def _sizes(name: str, declared: Declared, given: Any) -> List[Any]:
    """The sizes that were given; None for one that was not."""
    if isinstance(given, dict):
        picture = given.get("picture")
        return (
            _picture_sizes(name, declared, picture)
            if picture
            else _sound_sizes(name, declared, given["sound"])
        )
    if len(given) != len(declared):
        raise BadInputError(
            f"input '{name}' is {_told(declared)}, {len(declared)} dimensions, and {_told(given)} has "
            f"{len(given)}"
        )
    for size, fixed in zip(given, declared):
        if isinstance(fixed, int) and size != fixed:
            raise BadInputError(
                f"input '{name}' is {_told(declared)} in the model; {_told(given)} does not fit"
            )
    return list(given)


def _picture_sizes(name: str, declared: Declared, picture: Sequence[int]) -> List[Any]:
    height, width, channels = picture
    axis = channel_axis(name, declared)
    if isinstance(declared[axis], int) and declared[axis] != channels:
        raise BadInputError(
            f"input '{name}' is {_told(declared)}, of {declared[axis]} channels; the picture has {channels}"
        )
    sizes: List[Any] = [1] * len(declared)
    places = [each for each in range(len(declared))[-3:] if each != axis]
    for place, size in zip([axis, *places], [channels, height, width]):
        fixed = declared[place]
        sizes[place] = fixed if isinstance(fixed, int) else size
    if any(isinstance(size, int) and size != 1 for size in declared[:-3]):
        raise BadInputError(f"input '{name}' is {_told(declared)}, more than one picture")
    return sizes


def channel_axis(name: str, declared: Declared) -> int:
    """Which axis of an input holds the colours of a picture.

    Raises:
        BadInputError: none does.
    """
    if len(declared) in (3, 4):
        first, last = len(declared) - 3, len(declared) - 1
        for colours in CHANNELS:
            for axis in (first, last):
                if declared[axis] == colours:
                    return axis
        if isinstance(declared[first], str):
            return first
    raise BadInputError(f"input '{name}' is {_told(declared)}, no picture; give it as an .npy file")


def _sound_sizes(name: str, declared: Declared, sound: Sequence[int]) -> List[Any]:
    (samples,) = sound
    if not declared or any(isinstance(size, int) and size != 1 for size in declared[:-1]):
        raise BadInputError(
            f"input '{name}' is {_told(declared)}, which is no sound; give it as an .npy file"
        )
    wanted = declared[-1]
    if isinstance(wanted, int) and wanted > samples:
        raise BadInputError(f"input '{name}' takes {wanted} samples, and the sound has {samples}")
    return [*[1] * (len(declared) - 1), wanted if isinstance(wanted, int) else samples]


def _check_memory(name: str, shape: Sequence[int], value_bytes: int = 1) -> None:
    """Refuse what the memory cannot hold, before a runtime is asked for it or an array is made."""
    least_bytes = math.prod(shape) * value_bytes
    available = machine.conditions().get("memory_available_bytes") or MOST_BYTES
    if least_bytes > available:
        raise BadInputError(
            f"input '{name}' of {_told(shape)} takes {least_bytes:,} bytes at least, and {available:,} bytes "
            "of memory are available on the device"
        )


def fill(model: Any, settings: Dict[str, Any], seed: int) -> Tuple[List[Any], List[Dict[str, Any]]]:
    """An array for each input of a loaded model, and what is told of each.

    Raises:
        BadInputError: a value or a file does not fit the input.
    """
    described = described_by(model)
    generator = numpy.random.default_rng(seed)
    used = [tuple(shape) for shape, _ in model.inputs]
    for (name, _), wanted, shape in zip(described, shapes_of(described, settings, used), used):
        if wanted != shape:
            raise BadInputError(
                f"input '{name}' was to be {_told(wanted)}; this runtime takes {_told(shape)}"
            )
    named = named_sizes(described, settings)
    sizes = [(declared, shape) for (_, declared), (shape, _) in zip(described, model.inputs)]
    arrays, told = [], []
    for index, ((name, declared), (shape, dtype)) in enumerate(zip(described, model.inputs)):
        others = sizes[:index] + sizes[index + 1 :]
        chosen = settings.get("fills", {}).get(name)
        wanted = by_meaning(name, shape, dtype, others) if chosen is None else chosen
        about = {"name": name, "dtype": dtype, "shape": list(shape)}
        arrays.append(_array(declared, about, wanted, generator))
        told.append(
            {
                **about,
                "declared": [str(size) for size in declared],
                "fill": said(wanted, dtype),
                "assumed": assumed(name, declared, settings, named),
                "given": chosen is not None and not chosen.get("chosen", False),
            }
        )
    return arrays, told


def described_by(model: Any) -> Described:
    """Names and declared sizes of a model's inputs; made up where the engine does not tell."""
    found = getattr(model, "described", None)
    return found or [(f"input_{index}", tuple(shape)) for index, (shape, _) in enumerate(model.inputs)]


def assumed(name: str, declared: Declared, settings: Dict[str, Any], named: Dict[Any, int]) -> List[int]:
    """Axes that the model leaves open and for which nothing was given, nor for another of that name."""
    if name in settings.get("shapes", {}):
        return []
    return [axis for axis, size in enumerate(declared) if not isinstance(size, int) and size not in named]


def refused_shapes(error: Exception, described: Described, settings: Dict[str, Any]) -> Exception:
    """The error of a runtime that could not load a model, with the open sizes that it was loaded with."""
    named = named_sizes(described, settings)
    opened = [
        f"{name} {_told(declared)}"
        for name, declared in described
        if assumed(name, declared, settings, named)
    ]
    if not opened:
        return error
    return RuntimeError(
        f"open dimensions were taken as 1, of {', '.join(opened)}; give their sizes with --shape: {error}"
    )


def by_meaning(
    name: str, shape: Sequence[int], dtype: str, others: Sequence[Tuple[Declared, Sequence[int]]]
) -> Dict[str, Any]:
    """The values of an input for which none are given, by its type and name.

    Args:
        name: of the input.
        shape: of the input.
        dtype: of the input.
        others: declared sizes and shape of each other input, from which a length is taken.
    """
    if is_float(dtype):
        return {"kind": "random"} if len(shape) else {"kind": "value", "value": 1}
    words = " ".join(re.findall("[a-z]+", name.lower()))
    if re.search(LENGTHS, words) and "int8" not in dtype:
        return {"kind": "value", "value": _length(others)}
    for types, pattern, wanted in MEANINGS:
        if re.search(types, dtype) and re.search(pattern, words):
            return dict(wanted)
    single = math.prod(shape) == 1 and "int8" not in dtype
    return {"kind": "value", "value": 1} if single else {"kind": "random"}


def _length(others: Sequence[Tuple[Declared, Sequence[int]]]) -> int:
    """The longest open dimension of the other inputs but the first, else their longest last one."""
    opened = [
        size
        for declared, shape in others
        for axis, size in enumerate(shape)
        if axis and not isinstance(declared[axis], int)
    ]
    return max(opened or [shape[-1] for _, shape in others if len(shape)] or [1])


def tamer(settings: Dict[str, Any], told: Sequence[Dict[str, Any]]) -> Union[Dict[str, Any], None]:
    """The settings with token ids of 0 and 1, where others were chosen here; None where none were.

    A vocabulary may be smaller than any that is used for language.
    """
    chosen = said({"kind": "range", "low": TOKENS[0], "high": TOKENS[1]}, "")
    names = [entry["name"] for entry in told if entry["fill"] == chosen and not entry["given"]]
    low = {name: {"kind": "range", "low": 0, "high": 1, "chosen": True} for name in names}
    return {**settings, "fills": {**settings.get("fills", {}), **low}} if names else None


def is_float(dtype: str) -> bool:
    """Whether a type is one of floating point, numpy's or another."""
    return "float" in dtype


def _array(declared: Declared, about: Dict[str, Any], wanted: Dict[str, Any], generator: Any) -> Any:
    """The values of one input, of which name, shape and type are known; bits where numpy lacks the type."""
    name, shape, dtype, kind = about["name"], about["shape"], about["dtype"], wanted["kind"]
    if dtype in ("int4", "uint4"):
        return numpy.zeros(shape, "int8")
    plain = "float32" if dtype == "bfloat16" or dtype.startswith("float8") else dtype
    # The array here, and the runtime's buffer.
    _check_memory(name, shape, 2 * numpy.dtype(plain).itemsize)
    for key in {"low", "high", "value"} & wanted.keys():
        _check_value(name, plain, wanted[key])
    if kind == "file":
        values = _from_file(declared, {**about, "dtype": plain}, wanted)
    elif kind == "random":
        values = _random(shape, plain, generator)
    elif kind == "range":
        values = _between(shape, plain, wanted, generator)
    elif kind == "positions":
        values = numpy.zeros(shape) + numpy.arange(shape[-1] if len(shape) else 1).reshape([-1][: len(shape)])
    else:
        values = numpy.full(shape, {"zeros": 0, "ones": 1}.get(kind, wanted.get("value")))
    return bits(numpy.ascontiguousarray(values.astype(plain)).reshape(shape), dtype)


def _random(shape: Sequence[int], dtype: str, generator: Any) -> Any:
    if is_float(dtype):
        return generator.standard_normal(shape, dtype=numpy.float32)
    if dtype in ("int8", "uint8"):
        limits = numpy.iinfo(dtype)
        return generator.integers(limits.min, limits.max, shape, endpoint=True)
    return generator.integers(0, 2, shape)


def _between(shape: Sequence[int], dtype: str, wanted: Dict[str, Any], generator: Any) -> Any:
    if is_float(dtype):
        return generator.uniform(wanted["low"], wanted["high"], shape)
    return generator.integers(int(wanted["low"]), int(wanted["high"]), shape, dtype=dtype, endpoint=True)


def _check_value(name: str, dtype: str, value: Any) -> None:
    """Refuse a value that the type of an input cannot hold."""
    if is_float(dtype):
        fits = abs(value) <= float(numpy.finfo(dtype).max)
    else:
        limits = (0, 1) if dtype == "bool" else (numpy.iinfo(dtype).min, numpy.iinfo(dtype).max)
        fits = value == int(value) and limits[0] <= value <= limits[1]
    if not fits:
        raise BadInputError(f"input '{name}' is of type {dtype}, which cannot hold {value:.15g}")


def _from_file(declared: Declared, about: Dict[str, Any], wanted: Dict[str, Any]) -> Any:
    """The values of a file, as an input of the shape."""
    name, shape, dtype = about["name"], about["shape"], about["dtype"]
    values = numpy.load(wanted["path"], allow_pickle=False)
    if wanted["form"] == "picture":
        return _picture(declared, about, values)
    if wanted["form"] == "sound":
        _sound_sizes(name, tuple(shape), values.shape)
        if not is_float(dtype) and dtype != "int16":
            raise BadInputError(f"input '{name}' is of type {dtype}, and a sound is of float or int16")
        samples = values[: shape[-1]]
        return (samples / 32768.0 if is_float(dtype) else samples).reshape(shape)
    if list(values.shape) != list(shape):
        raise BadInputError(f"input '{name}' has {_told(shape)}, and {wanted['said']} {_told(values.shape)}")
    kinds = ({"f"}, {"i", "u"}, {"b"})
    numbers = numpy.dtype(dtype)
    if not any({numbers.kind, values.dtype.kind} <= kind for kind in kinds):
        raise BadInputError(f"input '{name}' is of type {dtype}, and {wanted['said']} of {values.dtype}")
    if numbers.kind in "iu" and values.size:
        for end in (int(values.min()), int(values.max())):
            _check_value(name, dtype, end)
    return values


def _picture(declared: Declared, about: Dict[str, Any], picture: Any) -> Any:
    """A picture (height, width, channels; 0 to 255) as an input, with the nearest pixels of another size."""
    name, shape, dtype = about["name"], about["shape"], about["dtype"]
    axis = channel_axis(name, declared)
    if shape[axis] != picture.shape[2] or math.prod(shape[:-3]) != 1:
        raise BadInputError(
            f"input '{name}' has {_told(shape)}, which is not one picture of {picture.shape[2]} channels"
        )
    places = [each for each in range(len(shape))[-3:] if each != axis]
    height, width = (shape[place] for place in places)
    rows = numpy.arange(height) * picture.shape[0] // height
    columns = numpy.arange(width) * picture.shape[1] // width
    sized = picture[rows][:, columns]
    if axis == len(shape) - 3:
        sized = sized.transpose(2, 0, 1)
    if is_float(dtype):
        return (sized / 255.0).reshape(shape)
    if dtype == "int8":
        return (sized.astype("int16") - 128).reshape(shape)
    if dtype != "uint8":
        raise BadInputError(f"input '{name}' is of type {dtype}, and a picture has numbers from 0 to 255")
    return sized.reshape(shape)


def bits(values: Any, dtype: str) -> Any:
    """Values of a type that numpy lacks as their bits; all others as they are.

    A bfloat16 is the upper half of a float32. Of float8 there are several kinds: all get the bits of 0.
    """
    if dtype == "bfloat16":
        return (values.view("uint32") >> 16).astype("uint16")
    return numpy.zeros(values.shape, "uint8") if dtype.startswith("float8") else values


def said(wanted: Dict[str, Any], dtype: str) -> str:
    """Values in words: as an option gives them, or as a file is called."""
    kind = wanted["kind"]
    if dtype in ("int4", "uint4"):
        return "whatever is in memory"
    if dtype.startswith("float8"):
        return "zeros"
    if kind == "range":
        return f"range:{wanted['low']:g},{wanted['high']:g}"
    if kind == "value":
        return f"value:{wanted['value']:.17g}" if is_float(dtype) else f"value:{int(wanted['value'])}"
    return str(wanted["said"]) if kind == "file" else str(kind)


def _told(sizes: Sequence[Any]) -> str:
    return f"[{', '.join(str(size) for size in sizes)}]"
