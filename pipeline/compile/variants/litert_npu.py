"""Variants for NPUs through LiteRT: compiled ahead of time by the plug-in of the NPU's maker.

A target names the NPU, as in ``host/litert:int8+npu=LNL``. What the plug-in takes of the model becomes one
operator, ``DISPATCH_OP``, whose code stands behind the model in the file; the rest stays for the CPU. The
plug-ins are in LiteRT's package; each needs the SDK of its maker.

Intel's plug-in was run with OpenVINO's CPU in the place of an NPU. Nobody has run the others, or any NPU,
yet: they are called as LiteRT's package documents it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from importlib import metadata, util
from pathlib import Path

from devices.host import temporary_folder
from devices.target import Target
from devices.words import count_of
from pipeline.compile.child import call
from pipeline.compile.variants.base import CompileTask, CompileVariant, ModelFormat
from pipeline.compile.variants.litert import PACKAGES, quantised
from pipeline.errors import ExportError
from pipeline.work.disk import write_atomically

_SDKS = {
    "GOOGLE": "ai-edge-litert-sdk-google-tensor",
    "intel_openvino": "ai-edge-litert-sdk-intel",
    "mediatek": "ai-edge-litert-sdk-mediatek",
    "qualcomm": "ai-edge-litert-sdk-qualcomm",
    "samsung": "ai-edge-litert-sdk-samsung",
}
"""By backend of LiteRT's package: the distribution whose module, of the same name, it asks for the SDK."""


def _fp16(task: CompileTask, path: Path) -> Mapping[str, str]:
    write_atomically(path, task.model.read_bytes())
    return {"layout": "NHWC"}


def _compiled(make: Callable[[CompileTask, Path], Mapping[str, str]]) -> Callable[..., Mapping[str, str]]:
    """What a variant of LiteRT makes, compiled."""

    def make_compiled(task: CompileTask, path: Path) -> Mapping[str, str]:
        chip = task.target.settings["npu"]
        with temporary_folder("compile") as folder:
            source, made = folder / "model.tflite", folder / "made.tflite"
            notes = make(task, source)
            found = call(
                "litert_npu:compile_model",
                what=f"{task.model.name} cannot be compiled for the NPU '{chip}'",
                fix=_how_to_install(_SDKS[_chips()[chip]]),
                model=str(source),
                path=str(made),
                chip=chip,
            )
            write_atomically(path, made.read_bytes())
        parts = count_of(found["parts"], "part")
        return {
            **notes,
            "cpu": f"the NPU {chip}",
            "compiled": f"{found['compiled']} of {found['operators']} operators in {parts}",
            "compiler": f"ai-edge-litert {metadata.version('ai-edge-litert')}",
        }

    return make_compiled


def _needs_npu(target: Target) -> str:
    chip = target.settings.get("npu")
    if chip is None:
        return "the target names no NPU to compile for, as +npu=SM8650 does"
    try:
        known = _chips()
    except ExportError as error:
        return f"{error.what}: {error.why}"
    if chip not in known:
        named = f"LiteRT does not compile for '{chip}'" if chip else "the target does not say which NPU it is"
        return f"{named}; write +npu=NAME with one of {', '.join(known)}"
    sdk = _SDKS[known[chip]]
    if util.find_spec(_module(sdk)) is None:
        return f"the SDK of its maker is not installed; {_how_to_install(sdk)}"
    return ""


def _module(sdk: str) -> str:
    return sdk.replace("-", "_")


@functools.cache
def _chips() -> dict[str, str]:
    found: dict[str, str] = call("litert_npu:chips", what="LiteRT's package does not compile for NPUs")
    return found


def _how_to_install(sdk: str) -> str:
    if sdk == _SDKS["samsung"]:
        return f"get the module {_module(sdk)} from Samsung; no package index has it"
    return (
        f"install {sdk}=={metadata.version('ai-edge-litert')} for the Python that runs Lathe: it fetches the "
        "SDK from its maker, whose terms hold"
    )


def _variant(precision: str, make: Callable[..., Mapping[str, str]], *, calibrates: bool) -> CompileVariant:
    return CompileVariant(
        "litert",
        precision,
        "npu",
        ModelFormat.LITERT,
        ".tflite",
        _compiled(make),
        (*PACKAGES, "openvino", *_SDKS.values()),
        calibrates=calibrates,
        unfit=_needs_npu,
    )


VARIANTS = (
    _variant("fp16", _fp16, calibrates=False),
    _variant("int8", quantised("static", activations="s8", weights="s8 per channel"), calibrates=True),
)
