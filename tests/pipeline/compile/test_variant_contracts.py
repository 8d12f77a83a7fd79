"""Lathe's own variants keep the contract."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from devices.target import Target
from pipeline.compile import CompileTask, CompileVariant, find_variant
from pipeline.export.base import Format
from pipeline.export.network import export_network
from tests.contracts.compile_variant import CompileVariantContract

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("exporters_here")]

NAMES = [
    "onnxruntime:fp32-optimised",
    "onnxruntime:fp32-cleaned",
    "onnxruntime:int8-u8s8-minmax",
    "onnxruntime:int8-s8s8-percentile",
    "onnxruntime:int8-u8s8-mixed10",
    "onnxruntime:int8-dynamic",
    "onnxruntime:int8-weights",
    "openvino:int8-mixed10",
    "litert:fp32-tidied",
    "litert:int8-static",
    "litert:int8-mixed30",
    "litert:int8-dynamic",
    "litert:fp16-weights",
    "executorch:int8-static",
]


@functools.cache
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()


@functools.cache
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((12, 3, 16, 16), dtype=np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    program = torch.export.export(network(), (torch.zeros(1, 3, 16, 16),))
    torch.export.save(program, folder / "model.pt2")
    return {
        "torch": folder / "model.pt2",
        **{
            fmt.value: export_network(network(), (3, 16, 16), fmt, folder / f"model{fmt.suffix}")
            for fmt in (Format.ONNX, Format.LITERT)
        },
    }


@pytest.mark.parametrize("variant", NAMES, indirect=True)
class TestOwnVariants(CompileVariantContract):
    @pytest.fixture
    def variant(self, request) -> CompileVariant:
        return find_variant(request.param)

    @pytest.fixture
    def task(self, variant, models, tmp_path_factory) -> CompileTask:
        values = images().transpose(0, 2, 3, 1) if variant.takes == "litert" else images()
        return CompileTask(
            models[variant.takes.value],
            Target("host", variant.runtime, variant.precision),
            {"input": np.ascontiguousarray(values)},
            # By the names that ``find_sensitive`` gives operators of these formats.
            sensitive=("tensor_3", "tensor_6") if variant.takes == "litert" else ("Conv_0", "Conv_2"),
            shared=tmp_path_factory.mktemp("shared"),
        )

    @pytest.fixture
    def expected(self) -> np.ndarray:
        with torch.no_grad():
            return network()(torch.from_numpy(images())).numpy()
