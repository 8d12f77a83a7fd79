"""LiteRT models compiled ahead of time for an NPU, by the plug-in of its maker that LiteRT's package has.

Source: the modules below ``ai_edge_litert.aot`` of ai-edge-litert 2.3, and what its ``apply_plugin_main``
says.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

_TAG = re.compile(r"^(?:\[LITERT|INFO: |WARNING: |ERROR: |VERBOSE: )")
_LIBRARY = re.compile(r"(\S+): cannot open shared object file")


def chips() -> dict[str, str]:
    """The maker, as the package calls its backend, of each NPU that the package compiles for."""
    return {model: target.backend_id() for model, target in _targets().items()}


def compile_model(model: str, path: str, chip: str) -> dict[str, Any]:
    """Save a model with all that the plug-in takes of it compiled for an NPU.

    Args:
        model: a ``.tflite`` file.
        path: where to.
        chip: one of ``chips``.

    Returns:
        ``operators`` of the model, and how many are ``compiled``, in how many ``parts``.

    Raises:
        ValueError: it cannot be compiled, or the plug-in takes none of it.
    """
    from ai_edge_litert.aot.aot_compile import aot_compile

    folder = Path(path).parent / "compiled"
    try:
        found = aot_compile(model, folder, _targets()[chip], keep_going=False)
    except ValueError as error:
        raise ValueError(_reason(str(error))) from None
    (made,) = found.models
    stats = made.partition_stats.subgraph_stats
    compiled = sum(each.num_ops_offloaded for each in stats)
    operators = sum(each.num_total_ops for each in stats)
    if not compiled:
        raise ValueError(f"the plug-in takes none of the model's {operators} operators")
    shutil.move(made.path, path)
    parts = sum(each.num_partitions_offloaded for each in stats)
    return {"operators": operators, "compiled": compiled, "parts": parts}


def _targets() -> dict[str, Any]:
    """What ``aot_compile`` takes, by the name of the chip."""
    from ai_edge_litert.aot.vendors.google_tensor import target as google
    from ai_edge_litert.aot.vendors.intel_openvino import target as intel
    from ai_edge_litert.aot.vendors.mediatek import target as mediatek
    from ai_edge_litert.aot.vendors.qualcomm import target as qualcomm
    from ai_edge_litert.aot.vendors.samsung import target as samsung

    return {
        str(chip): maker.Target(chip)
        for maker in (google, intel, mediatek, qualcomm, samsung)
        for chip in maker.SocModel
        if chip != "ALL"
    }


def _reason(said: str) -> str:
    """Why the tool failed, of the file in which the package leaves what it said."""
    named = re.search(r"See (\S+) for details", said)
    if named is None:
        return said
    log = Path(named[1])
    lines = log.read_text(errors="replace").splitlines()
    log.unlink()
    missing = next((found[1] for line in lines if (found := _LIBRARY.search(line))), None)
    if missing is not None:
        return f"{Path(missing).name} of the maker's SDK is not there, or another version of it is"
    first = next((number for number, line in enumerate(lines) if line.startswith("ERROR: ")), None)
    if first is None:
        return said
    rest = iter(lines[first + 1 :])
    told = [re.sub(r"^ERROR: \[[^]]*\] ", "", lines[first])]
    for line in rest:
        if _TAG.match(line):
            break
        told.append(line.strip())
    return " ".join(filter(None, told))
