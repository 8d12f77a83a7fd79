"""The runtimes that Lathe's agent drives, from ONNX Runtime to TensorRT.

Each is an engine file in ``devices/agent`` and what the host has to know of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from devices.agent.providers import ASYNCHRONOUS, CPU, PROVIDERS
from devices.errors import TargetError
from devices.measurement.protocol import MeasuringProtocol
from devices.runtimes.agent_runtime import FOLDER, AgentRuntime
from devices.runtimes.capabilities import STARTS_KERNELS, YES, Support
from devices.runtimes.native.trtexec import DELEGATE, INSTALL, TRTEXEC, WARMUP_NS
from devices.target import Target
from devices.words import listed

__all__ = ["EXECUTORCH", "LITERT", "ONNXRUNTIME", "OPENVINO", "TENSORRT", "TFLITE_RUNTIME", "TORCH"]

CANARIES = FOLDER.parent / "canary"
CORES = "run on these cores only, as in cores=0-3,6"


def _providers(target: Target) -> list[str]:
    return [PROVIDERS[name] for name in target.settings if name in PROVIDERS]


def _provider(target: Target) -> str:
    return next(iter(_providers(target)), CPU)


def _operations_of_onnxruntime(target: Target) -> Support:
    return STARTS_KERNELS if _provider(target) in ASYNCHRONOUS else YES


@dataclass(frozen=True)
class OnnxRuntime(AgentRuntime):
    """ONNX Runtime, with one execution provider beside the CPU's at most."""

    def check(self, target: Target) -> None:
        """Refuse also more than one execution provider.

        Raises:
            TargetError: naming them.
        """
        super().check(target)
        chosen = [name for name in target.settings if name in PROVIDERS]
        if len(chosen) > 1:
            raise TargetError(
                f"target '{target}' asks for {listed(_providers(target))}",
                why="a model is measured on one execution provider, and on the CPU what that does not take",
                fix=f"leave '+{chosen[1]}' out",
            )


ONNXRUNTIME = OnnxRuntime(
    name="onnxruntime",
    suffixes=(".onnx", ".ort"),
    precisions=("fp32", "fp16", "int8"),
    options={"cores": CORES, **{name: f"run on {provider}" for name, provider in PROVIDERS.items()}},
    engine=FOLDER / "engine_onnxruntime.py",
    extra="onnxruntime",
    package="onnxruntime",
    delegates=_provider,
    operations=_operations_of_onnxruntime,
    canary=CANARIES / "canary.onnx",
    modules=(FOLDER / "nvidia.py", FOLDER / "providers.py"),
)

OPENVINO = AgentRuntime(
    name="openvino",
    suffixes=(".onnx",),
    precisions=("fp32", "fp16", "bf16", "int8"),
    options={"cores": CORES},
    engine=FOLDER / "engine_openvino.py",
    extra="openvino",
    package="openvino",
    delegates=lambda target: "CPU",
    operations=lambda target: Support(True, "a mean for each operation"),
    canary=CANARIES / "canary.onnx",
)


def _operations_of_litert(target: Target) -> Support:
    if _accelerator(target):
        return Support(False, "LiteRT's profiler sees the CPU only")
    return Support(True, "with LiteRT 2.3")


def _accelerator(target: Target) -> str:
    return next((name for name in ("gpu", "npu") if name in target.settings), "")


@dataclass(frozen=True)
class LiteRt(AgentRuntime):
    """LiteRT, with one accelerator beside the CPU at most."""

    def check(self, target: Target) -> None:
        """Refuse also two accelerators.

        Raises:
            TargetError: naming them.
        """
        super().check(target)
        if {"gpu", "npu"} <= target.settings.keys():
            raise TargetError(
                f"target '{target}' asks for the GPU and an NPU",
                why="a model is measured on one accelerator, and on the CPU what was not compiled for an NPU",
                fix="leave '+gpu' or '+npu' out",
            )


LITERT = LiteRt(
    name="litert",
    suffixes=(".tflite",),
    precisions=("fp32", "fp16", "int8"),
    options={
        "cores": CORES,
        "gpu": "run on the GPU through LiteRT's GPU accelerator",
        "npu": "run what was compiled for an NPU on it, and the rest on the CPU; 'lathe compile' takes its "
        "name with it, as in npu=SM8650",
    },
    engine=FOLDER / "engine_litert.py",
    extra="litert",
    package="ai-edge-litert",
    delegates=lambda target: _accelerator(target) or "xnnpack",
    operations=_operations_of_litert,
    canary=CANARIES / "canary.tflite",
    modules=(FOLDER / "interpreter.py", FOLDER / "dispatch.py"),
)

TFLITE_RUNTIME = AgentRuntime(
    name="tflite-runtime",
    suffixes=(".tflite",),
    precisions=("fp32", "fp16", "int8"),
    options={"cores": CORES},
    engine=FOLDER / "engine_tflite_runtime.py",
    extra="tflite-runtime",
    package="tflite-runtime",
    delegates=lambda target: "xnnpack",
    canary=CANARIES / "canary.tflite",
    modules=(FOLDER / "interpreter.py",),
)

EXECUTORCH = AgentRuntime(
    name="executorch",
    suffixes=(".pte",),
    precisions=("fp32", "fp16", "int8"),
    options={"cores": CORES},
    engine=FOLDER / "engine_executorch.py",
    extra="executorch",
    package="executorch",
    delegates=lambda target: "XnnpackBackend",
    operations=lambda target: YES,
    canary=CANARIES / "canary.pte",
)

TORCH = AgentRuntime(
    name="torch",
    suffixes=(".pt2",),
    precisions=("fp32", "fp16", "bf16", "int8"),
    options={"cores": CORES, "cuda": "run on the first NVIDIA GPU"},
    engine=FOLDER / "engine_torch.py",
    extra="torch",
    package="torch",
    delegates=lambda target: "cuda" if "cuda" in target.settings else "cpu",
    operations=lambda target: Support(True, "of exported programs, not of compiled packages"),
    modules=(FOLDER / "nvidia.py",),
)


@dataclass(frozen=True)
class TensorRt(AgentRuntime):
    """TensorRT by its Python API; ``TRTEXEC`` is the other way to it.

    Both build an ``.onnx`` file on the device, and keep the engine there in
    ``$XDG_CACHE_HOME/lathe/tensorrt`` under a digest of the file's bytes, the build options, the GPU, and the
    versions of TensorRT and the driver.
    """

    def adapt(self, protocol: MeasuringProtocol) -> MeasuringProtocol:
        """The protocol with a warm-up that is long enough for a GPU."""
        return replace(protocol, warmup_ns=max(protocol.warmup_ns, WARMUP_NS))

    def unusable(self, device: str, detail: str, *, broken: bool) -> TargetError:
        """The error for a device without TensorRT for Python, or without a driver."""
        error = super().unusable(device, detail, broken=broken)
        return type(error)(
            error.what,
            why=f"{detail} (the Python package tensorrt and an NVIDIA driver are needed)",
            fix=f"{error.fix}; {INSTALL}; or write +native to use trtexec instead",
        )


TENSORRT = TensorRt(
    name=TRTEXEC.name,
    suffixes=TRTEXEC.suffixes,
    precisions=TRTEXEC.precisions,
    options={"cores": CORES, "tf32": TRTEXEC.options["tf32"]},
    engine=FOLDER / "engine_tensorrt.py",
    extra="tensorrt",
    package="tensorrt",
    delegates=lambda target: DELEGATE,
    operations=lambda target: Support(True, "for each layer"),
    canary=CANARIES / "canary.onnx",
    modules=(FOLDER / "nvidia.py", FOLDER / "cuda.py", FOLDER / "tensorrt_engines.py"),
)
