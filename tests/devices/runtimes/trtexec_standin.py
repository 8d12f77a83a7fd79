#!/usr/bin/env python3
"""Stands in for trtexec: same arguments, same lines on the same streams, same exported files, no GPU.

Its "models" are JSON objects, ``{"latency_ms": 1.0, "fault": "..."}``; any other file is a model of 0.5 ms. An
"engine" is a JSON object with the version that built it and the model. The layout of lines and files follows
samples/common/{logging.h,sampleReporting.cpp,sampleOptions.cpp,sampleEngines.cpp} of TensorRT 8.6, 10.3 and 11.1.
The environment variable TRTEXEC_STANDIN_VERSION chooses the version, by default 100300.
"""

# ruff: noqa: E501
from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

VERSION = int(os.environ.get("TRTEXEC_STANDIN_VERSION", "100300"))
MAJOR = VERSION // 10_000 if VERSION >= 10_000 else VERSION // 1000
BUILD = " [b26]" if VERSION >= 100_000 else ""
COMMON = {
    *(
        "onnx",
        "saveEngine",
        "shapes",
        "loadEngine",
        "skipInference",
        "profilingVerbosity",
        "timingCacheFile",
        "noTF32",
    ),
    *("exposeDMA", "useSpinWait", "warmUp", "iterations", "duration", "help"),
    *("exportTimes", "exportProfile", "exportLayerInfo"),
}
KNOWN = COMMON | (
    {"includeDataTransfers", "noCudaGraph", "noSpinWait"}
    if MAJOR >= 11
    else {"fp16", "int8", "useCudaGraph", "noDataTransfers", *(["bf16"] if MAJOR >= 10 else [])}
)


def info(text: str) -> None:
    print(f"[{time.strftime('%m/%d/%Y-%H:%M:%S')}] [I] {text}", flush=True)


def warning(text: str) -> None:
    print(f"[{time.strftime('%m/%d/%Y-%H:%M:%S')}] [W] {text}", file=sys.stderr, flush=True)


def error(text: str) -> None:
    print(f"[{time.strftime('%m/%d/%Y-%H:%M:%S')}] [E] {text}", file=sys.stderr, flush=True)


def report(result: str) -> int:
    command = " ".join(sys.argv)
    print(f"&&&& {result} TensorRT.trtexec [TensorRT v{VERSION}]{BUILD} # {command}", flush=True)
    return 1 if result == "FAILED" else 0


def parse() -> dict[str, str] | None:
    options: dict[str, str] = {}
    unknown = []
    for argument in sys.argv[1:]:
        name, _, value = argument.removeprefix("--").partition("=")
        options[name] = value
        if not argument.startswith("--") or name not in KNOWN:
            unknown.append((argument.partition("=")[0], value))
    for name, value in unknown:
        error(f"Unknown option: {name} {value}")
    return None if unknown else options


def model_of(path: str) -> dict:
    try:
        model = json.loads(Path(path).read_text())
    except ValueError:
        return {}
    return model if isinstance(model, dict) else {}


def build(options: dict[str, str]) -> bool:
    info("Start parsing network model.")
    model = model_of(options["onnx"])
    fault = model.get("fault")
    if fault == "unsupported":
        error('[TRT] ModelImporter.cpp:951: While parsing node number 3 [Whirl -> "y"]:')
        error(
            "[TRT] ModelImporter.cpp:956: ERROR: onnxOpCheckers.cpp:780 In function checkFallbackPluginImporter:"
        )
        error('[6] creator && "Plugin not found, are the plugin name, version, and namespace correct?"')
        error("Failed to parse onnx file")
        info("Finished parsing network model. Parse time: 0.00213")
        error("Parsing model failed")
        error("Failed to create engine from model or file.")
        error("Engine set up failed")
        return False
    if fault == "build-memory":
        error(
            "[TRT] [virtualMemoryBuffer.cpp::resizePhysical::160] Error Code 2: OutOfMemory (no further information)"
        )
        error(
            "[TRT] IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation)"
        )
        error("Engine could not be created from network")
        error("Building engine failed")
        error("Failed to create engine from model or file.")
        error("Engine set up failed")
        return False
    timings = Path(options["timingCacheFile"]) if "timingCacheFile" in options else None
    if timings is not None and timings.is_file() and timings.read_text() != "timings":
        error("TimingCache creation failed")
        error("Failed to create engine from model or file.")
        error("Engine set up failed")
        return False
    if timings is not None:
        timings.write_text("timings")
    engine = {
        "version": VERSION,
        "options": sorted(options),
        "model": model,
        "precision": "Half" if "fp16" in options else "Float",
    }
    Path(options["saveEngine"]).write_text(json.dumps(engine))
    with Path(options["saveEngine"]).with_name("builds").open("a") as log:
        log.write(" ".join(sys.argv[1:]) + "\n")
    info("Engine built in 0.0213 sec.")
    info("Skipped inference phase since --skipInference is added.")
    return True


def load(options: dict[str, str]) -> dict | None:
    data = Path(options["loadEngine"]).read_bytes()
    info("Engine loaded in 0.000125 sec.")
    try:
        engine = json.loads(data)
        if engine["version"] != VERSION:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        error(
            "[TRT] IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion "
            "stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: 239, "
            "Serialized Engine Version: 236)"
        )
        error("Engine deserialization failed")
        error("Got invalid engine!")
        error("Inference set up failed")
        return None
    info("Engine deserialized in 0.0135 sec.")
    return engine


def infer(options: dict[str, str], engine: dict) -> bool:
    model = engine["model"]
    fault, latency_ms = model.get("fault"), model.get("latency_ms", 0.5)
    info("Starting inference")
    if fault == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "hang":
        time.sleep(600)
    if fault == "run-memory":
        error("[TRT] IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (out of memory)")
        error("Error occurred during inference")
        return False
    warm_up_ms, iterations = float(options.get("warmUp", 200)), int(options.get("iterations", 10))
    duration_ms = float(options.get("duration", 3)) * 1000
    copies = ("noDataTransfers" not in options) if MAJOR < 11 else ("includeDataTransfers" in options)
    generator, rows, now = random.Random(0), [], warm_up_ms
    while len(rows) < iterations or now < warm_up_ms + duration_ms:
        compute, copy = latency_ms * (1 + generator.random() / 100), 0.01 if copies else 0.0
        marks = [now, now + 0.02, now, now + copy, now + copy, now + copy + compute]
        marks += [now + copy + compute, now + copy + compute + copy]
        rows.append((marks, copy, compute, copy))
        now = marks[-1]
    if "exportProfile" not in options or MAJOR >= 11:
        summarise(model, rows, warm_up_ms, latency_ms)
    if "exportTimes" in options:
        export_times(Path(options["exportTimes"]), rows, fault)
    if "exportProfile" in options:
        export_profile(Path(options["exportProfile"]), len(rows), latency_ms)
    return True


def summarise(model: dict, rows: list, warm_up_ms: float, latency_ms: float) -> None:
    info(f"Warmup completed 12 queries over {warm_up_ms:g} ms")
    info(f"Timing trace has {len(rows)} queries over {rows[-1][0][-1] / 1000:g} s")
    info("")
    info("=== Trace details ===")
    info("Trace averages of 10 runs:")
    info("")
    info("=== Performance summary ===")
    info(f"Throughput: {1000 / latency_ms:g} qps")
    times = f"min = {latency_ms:g} ms, max = {latency_ms:g} ms, mean = {latency_ms:g} ms, median = {latency_ms:g} ms"
    for name in ("Latency", "Enqueue Time", "H2D Latency", "GPU Compute Time", "D2H Latency"):
        info(f"{name}: {times}, percentile(90%) = {latency_ms:g} ms")
    info("Total Host Walltime: 0.3 s")
    info("Total GPU Compute Time: 0.3 s")
    if model.get("warn"):
        warning(
            "* Throughput may be bound by Enqueue Time rather than GPU Compute and the GPU may be under-utilized."
        )
        warning(
            "  If not already in use, --useCudaGraph (utilize CUDA graphs where possible) may increase the throughput."
        )
        warning("* GPU compute time is unstable, with coefficient of variance = 5.55763%.")
        warning(
            "  If not already in use, locking GPU clock frequency or adding --useSpinWait may improve the stability."
        )
    info("Explanations of the performance metrics are printed in the verbose logs.")
    info("")


def export_times(path: Path, rows: list, fault: str | None) -> None:
    names = [f"{when}{what}Ms" for what in ("Enq", "H2d", "Compute", "D2h") for when in ("start", "end")]
    text, separator = "[\n", "  "
    for marks, h2d, compute, d2h in rows:
        values = [*zip(names, marks, strict=True), ("h2dMs", h2d), ("computeMs", compute), ("d2hMs", d2h)]
        values.append(("latencyMs", h2d + compute + d2h))
        text += f"{separator}{{ " + ", ".join(f'"{name}" : {value:.6g}' for name, value in values) + " }\n"
        separator = ", "
    text += "]\n"
    if fault == "cut":
        text = text[: len(text) // 2]
    if fault == "few":
        text = text[: text.index("\n, ", len(text) // 2)] + "\n]\n"
    if fault == "not-json":
        text = "nan"
    if fault != "no-file":
        path.write_text(text)


def export_profile(path: Path, count: int, latency_ms: float) -> None:
    text = f'[\n  {{ "count" : {count} }}\n'
    for name, share in (("conv1 + relu1", 0.75), ("fc", 0.25)):
        mean = latency_ms * share
        text += (
            f', {{ "name" : "{name}", "timeMs" : {mean * count:.6g}, "averageMs" : {mean:.6g}, '
            f'"medianMs" : {mean:.6g}, "percentage" : {share * 100:g} }}\n'
        )
    path.write_text(text + "]\n")


def export_layers(path: Path, engine: dict) -> None:
    tensor = {"Name": "x", "Location": "Device", "Dimensions": [1, 8], "Format/Datatype": engine["precision"]}
    layers = [
        {"Name": name, "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor], "TacticValue": "0x0"}
        for name, kind in (("conv1 + relu1", "CaskConvolution"), ("fc", "gemm"))
    ]
    path.write_text(
        json.dumps({"Layers": layers, "Bindings": ["x", "y"], "engine_options": engine["options"]})
    )


def main() -> int:
    report("RUNNING")
    if "--help" in sys.argv:
        print("=== Model Options ===\n  --onnx=<file>               ONNX model")
        return 0
    options = parse()
    if options is None:
        return report("FAILED")
    info(f"TensorRT version: {MAJOR}.x")
    if "onnx" in options:
        return report("PASSED" if build(options) else "FAILED")
    engine = load(options)
    if engine is None:
        return report("FAILED")
    if "exportLayerInfo" in options:
        export_layers(Path(options["exportLayerInfo"]), engine)
    if not infer(options, engine):
        return report("FAILED")
    if engine["model"].get("fault") == "silent-end":
        return 0
    return report("PASSED")


if __name__ == "__main__":
    sys.exit(main())
