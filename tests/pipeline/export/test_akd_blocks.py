"""Exports of the layers that the space of AKD adds to the mobile space, against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from devices.requests.prediction import predict
from devices.target import Target
from pipeline.export.base import Format
from pipeline.export.blocks import export_modules
from pipeline.spaces.mobile.config import SpaceConfig
from pipeline.spaces.mobile.space import MobileSpace

TARGETS = {Format.ONNX: Target("host", "onnxruntime"), Format.LITERT: Target("host", "litert")}
WANTED = {
    "regular": {"kind": "regular", "stride": 2, "kernel": 5},
    "regular-gated": {"kind": "regular", "stride": 1, "squeeze_excite": 0.25},
    "regular-pool": {"kind": "regular", "pool": 3, "kernel": 3},
    "regular-none": {"kind": "regular", "residual": False},
    "separable": {"kind": "mbconv", "expansion": 1, "stride": 2},
    "inverted-pool": {"kind": "mbconv", "expansion": 3, "pool": 3, "squeeze_excite": 0.25},
    "inverted-none": {"kind": "mbconv", "expansion": 3, "residual": False},
}


def modules() -> dict[str, tuple[nn.Module, tuple[int, int, int]]]:
    torch.manual_seed(3)
    space = MobileSpace.from_config(SpaceConfig(preset="akd"), (1, 8, 8), 10)
    found = {}
    for name, wanted in WANTED.items():
        block = next(
            block
            for block in space.distinct_blocks()
            if wanted.items() <= {"kind": block.kind, **dict(block.arguments)}.items()
        )
        module = space.build_block(block)
        for layer in module.modules():
            # Statistics that are not those of a fresh layer, so that wrong folding would show.
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.running_mean, -0.5, 0.5)
                nn.init.uniform_(layer.running_var, 0.5, 2)
        found[name] = (module.eval(), block.input_shape)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("exporters_here")
@pytest.mark.parametrize("fmt", TARGETS, ids=str)
def test_every_new_kind_of_layer_answers_like_torch_when_exported(fmt: Format, tmp_path: Path) -> None:
    layers = modules()
    files = export_modules(layers, fmt, tmp_path)
    for name, (module, shape) in layers.items():
        inputs = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = module(inputs)
        if fmt is Format.LITERT:
            inputs, expected = inputs.permute(0, 2, 3, 1), expected.permute(0, 2, 3, 1)
        file = files[name]
        assert isinstance(file, Path), (name, file)
        outputs = predict(file, inputs.contiguous().numpy(), TARGETS[fmt])
        np.testing.assert_allclose(
            outputs, expected.reshape(2, -1).numpy(), rtol=1e-4, atol=1e-5, err_msg=name
        )
