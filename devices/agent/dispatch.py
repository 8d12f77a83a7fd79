"""Which library hands the parts of a ``.tflite`` file that were compiled for an NPU to it.

Sources: the module ``environment`` of ai-edge-litert 2.3, and the files that its tool ``apply_plugin_main``
writes. The inference scripts of bundles have the text of this file in them.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

STAMP = b"LiteRtStamp"
"""Name of the metadata in which LiteRT's tool says what it compiled for: the maker, then the chip."""


def vendors() -> Path:
    """Where LiteRT's package keeps and looks for the libraries, in a folder for each maker."""
    import ai_edge_litert

    return Path(ai_edge_litert.__file__).parent / "vendors"


def made_for(path: str) -> str:
    """The maker of the NPU that a file was compiled for, as LiteRT calls it; empty where none is named."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(Path(path).read_bytes())
    entries = [model.Metadata(position) for position in range(model.MetadataLength())]
    stamp = next((model.Buffers(each.Buffer()) for each in entries if each.Name() == STAMP), None)
    if stamp is None or not stamp.DataLength():
        return ""
    return str(stamp.DataAsNumpy().tobytes().partition(b"\0")[0].decode("ascii", "replace"))


def dispatch_library(maker: str) -> Path:
    """The library that hands compiled parts to the NPU of a maker, loaded from where LiteRT's package has it.

    LiteRT itself takes the first maker's, loads it at the first inference, and then does not say what is
    missing.

    Raises:
        RuntimeError: there is none, or it cannot be loaded.
    """
    libraries = sorted(vendors().glob("*/dispatch/libLiteRtDispatch_*.so"))
    # Folders are named as makers are, or longer: google_tensor of Google.
    found = [each for each in libraries if each.parts[-3].replace("_", "").lower().startswith(maker.lower())]
    if not found:
        others = ", ".join(each.parts[-3] for each in libraries)
        raise RuntimeError(
            "no library hands the compiled parts of the model to an NPU"
            + (f" of {maker}" if maker else "")
            + (f" (there are those of {others})" if others else "")
            + f": put libLiteRtDispatch_*.so of the NPU's maker into {vendors()}/MAKER/dispatch"
        )
    try:
        ctypes.CDLL(str(found[0]))
    except OSError as error:
        raise RuntimeError(
            f"{found[0].name}, which hands the compiled parts of the model to the NPU, cannot be loaded: "
            f"{error}; install the runtime of the NPU's maker in the version that it names"
        ) from error
    return found[0]


def environment_of(library: Path) -> Any:
    """What a compiled model runs in, so that this library gets its compiled parts."""
    from ai_edge_litert.environment import Environment

    return Environment.create(dispatch_library_path=str(library.parent))
