"""Variants of programs of torch.export, of which those that are slow to make are made as seldom as can be."""

from __future__ import annotations

import shutil
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from devices.installing import how_to_install
from devices.requests import predict
from devices.target import Target
from pipeline.compile import CompileTask, find_variant
from pipeline.errors import ExportError

AHEAD = "torch:fp32-aotinductor-frozen"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


@pytest.fixture(scope="module")
def program(network, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "model.pt2"
    torch.export.save(torch.export.export(network, (torch.zeros(1, 3, 16, 16),)), path)
    return path


@pytest.mark.slow
def test_a_package_runs_on_its_target_and_computes_what_the_program_does(program, network, tmp_path):
    path = tmp_path / "made.pt2"
    notes = find_variant(AHEAD).make(CompileTask(program, Target("host", "torch")), path)
    assert "native code" in notes["code"]
    images = np.random.default_rng(0).standard_normal((4, 3, 16, 16), dtype=np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    for threads in (1, 2):
        outputs = predict(path, images, Target("host", "torch", threads=threads))
        np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_a_package_needs_a_compiler_and_says_how_to_get_one(program, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ExportError, match="cannot be compiled for host/torch:fp32@1") as caught:
        find_variant(AHEAD).make(CompileTask(program, Target("host", "torch")), tmp_path / "made.pt2")
    assert "no g++" in caught.value.why
    assert "apt install g++" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_a_package_is_not_meant_for_another_processor_than_that_of_this_machine():
    assert "this machine" in find_variant(AHEAD).unfit(Target("pi5", "torch"))
    assert find_variant(AHEAD).unfit(Target("host", "torch", options=("cuda",)))
    assert not find_variant(AHEAD).unfit(Target("host", "torch"))


@pytest.mark.parametrize(
    ("name", "extra"), [("executorch:fp32", "executorch"), ("openvino:int8-symmetric", "openvino")]
)
def test_a_variant_whose_compiler_is_not_installed_names_the_extra(
    program, tmp_path, monkeypatch, name, extra
):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    variant = find_variant(name)
    task = CompileTask(program, Target("host", variant.runtime, variant.precision))
    with pytest.raises(ExportError, match="is not installed") as caught:
        variant.make(task, tmp_path / f"made{variant.suffix}")
    assert caught.value.fix == how_to_install(extra)


@pytest.mark.parametrize("name", ["executorch:int8-static", "openvino:int8-asymmetric"])
def test_a_static_int8_variant_asks_for_data_where_there_are_none(program, tmp_path, name):
    variant = find_variant(name)
    task = CompileTask(program, Target("host", variant.runtime, variant.precision))
    with pytest.raises(ExportError, match="no calibration inputs") as caught:
        variant.make(task, tmp_path / f"made{variant.suffix}")
    assert caught.value.fix == "give --data"
