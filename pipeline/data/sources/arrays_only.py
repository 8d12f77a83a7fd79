"""Pickles of dictionaries, lists, texts, whole numbers and arrays; nothing that they name is run.

Python's unpickler calls what a file names, and hands what the file says to its ``__setstate__``; NumPy's own
takes bytes of a file for pointers if the type says so. Here every name stands for an inert object, only the
opcodes that such a pickle needs are admitted, and arrays are made from bytes of the file.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_OPCODES = 1_000_000
MOST_TUPLES = 1_000
"""Python hashes a tuple of tuples without an eye on the stack."""
_TYPES = {code: np.dtype(code) for code in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")}
_ADMITTED = """MARK STOP PROTO FRAME POP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1
    STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE
    EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS
    GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD"""


def load_arrays(content: bytes) -> Any:
    """The value in a pickle; its arrays are ``StoredArray``.

    Raises:
        Exception: of nearly any kind, where it is damaged or holds anything else.
    """
    admitted = frozenset(_ADMITTED.split())
    tuples = 0
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in admitted:
            raise pickle.UnpicklingError(f"the file uses {opcode.name}, which such a pickle never does")
        tuples += "TUPLE" in opcode.name
        if number == MOST_OPCODES or tuples == MOST_TUPLES:
            raise pickle.UnpicklingError("the file has more parts than such a pickle ever has")
        if isinstance(argument, int) and "PUT" in opcode.name and not 0 <= argument <= MOST_OPCODES:
            raise pickle.UnpicklingError("the file counts what it remembers from nowhere")
        if isinstance(argument, int) and not -(1 << 63) <= argument < 1 << 64:
            raise pickle.UnpicklingError("the file has a number of more than 64 bits")
    return _Unpickler(io.BytesIO(content), encoding="bytes").load()


class StoredArray:
    """An array as a pickle builds it."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: NDArray[Any] = np.zeros(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        match state:
            case (int(), (*shape,), StoredType(code=str(code)), False, bytes(data)):
                pass
            case _:
                raise pickle.UnpicklingError("the file has an array of an unknown kind")
        dtype = _TYPES[code]
        if not all(type(length) is int and length >= 0 for length in shape):
            raise pickle.UnpicklingError("the file has an array without a shape")
        if math.prod(shape) * dtype.itemsize != len(data):
            raise pickle.UnpicklingError("the file has an array whose shape is not that of its bytes")
        self.array = np.frombuffer(data, dtype).reshape(shape)


class StoredType:
    """The type of an array: whole numbers, in little-endian order where that matters."""

    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        match state:
            case (3, b"|" | b"<" | "|" | "<", None, None, None, -1, -1, 0):
                pass
            case _:
                raise pickle.UnpicklingError("the file has numbers of an unknown kind")


class _Name:
    """What stands for a name: nothing can be set on it, and only what arrays need can be called."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"the file would change {self._name}")

    def __call__(self, *arguments: Any) -> StoredArray | StoredType:
        match self._name, arguments:
            case "_reconstruct", (_Name(_name="ndarray"), *_):
                return StoredArray()
            case "dtype", (bytes() | str() as code, *_):
                code = code if isinstance(code, str) else code.decode()
                if code in _TYPES:
                    return StoredType(code)
        raise pickle.UnpicklingError("the file asks for an array of an unknown kind")


class _Unpickler(pickle.Unpickler):
    """Admits the three names by which a pickle rebuilds a NumPy array, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return _Name(name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _Name(name)
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which a CIFAR batch never does")
