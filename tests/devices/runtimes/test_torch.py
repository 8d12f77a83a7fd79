from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from devices.connections import LocalConnection
from devices.errors import LatheError
from devices.measurement.measurement import Measurement
from devices.measuring.batch import Job, measure
from devices.measuring.probing import identify
from devices.requests.operations import profile_operations
from devices.requests.prediction import predict
from devices.runtimes.python_runtimes import TORCH
from devices.target import Target
from tests.contracts.runtime import (
    QUICK,
    AgentRuntimeContract,
    EngineContract,
    load_engine,
    settings_of,
)
from tests.devices.tiny_models import INPUTS, OUTPUTS, tiny_module, tiny_reference, write_tiny_pt2
from tests.places import ROOT

HOST = Target("host", "torch")
METADATA = {"lathe_inputs": json.dumps([[[1, INPUTS], "float32"]])}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no NVIDIA GPU")


@pytest.fixture(scope="module")
def tiny_pt2(tmp_path_factory) -> Path:
    return write_tiny_pt2(tmp_path_factory.mktemp("models") / "tiny.pt2")


@pytest.fixture(scope="module")
def engine():
    return load_engine(TORCH)


def rewrite(source: Path, target: Path, change) -> Path:
    """Copy an archive, each entry as ``change(name, content)`` gives it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


@pytest.mark.slow  # every process imports torch
class TestTorch(AgentRuntimeContract, EngineContract):
    input_shape = (INPUTS,)
    packages = frozenset({"torch"})
    operations = 2
    profiled = True
    refusal = "nosuch"

    @pytest.fixture
    def runtime(self):
        return TORCH

    @pytest.fixture
    def artifact(self, tiny_pt2):
        return tiny_pt2

    @pytest.fixture
    def unsupported(self, tiny_pt2, tmp_path):
        return rewrite(
            tiny_pt2,
            tmp_path / "unsupported.pt2",
            lambda name, content: content.replace(b"aten.relu.default", b"aten.nosuch.default"),
        )

    @pytest.fixture
    def reference(self):
        return tiny_reference


class Several(torch.nn.Module):
    """Two inputs, one of them by name, and outputs in a dictionary."""

    def forward(self, x, *, index):
        return {"sum": x + index, "half": x.to(torch.bfloat16)}


def test_torch_takes_several_inputs_and_gives_every_output_in_order(engine, tmp_path):
    path = tmp_path / "several.pt2"
    arguments = {"index": torch.ones(3, dtype=torch.int64)}
    torch.export.save(torch.export.export(Several(), (torch.zeros(2, 3),), arguments), path)
    model = engine.Model(str(path), settings_of(TORCH))
    assert model.inputs == [((2, 3), "float32"), ((3,), "int64")]
    model.set_inputs([np.full((2, 3), 0.5, np.float32), np.array([1, 2, 3])])
    model.run()
    total, half = model.outputs()
    np.testing.assert_array_equal(total, [[1.5, 2.5, 3.5]] * 2)
    np.testing.assert_array_equal(half, np.full((2, 3), 0.5, np.float32))


def test_torch_takes_the_smallest_size_of_an_open_dimension(engine, tmp_path):
    for least in (1, 3):
        path = tmp_path / f"open{least}.pt2"
        batch = torch.export.Dim("batch", min=least, max=16)
        program = torch.export.export(tiny_module(), (torch.zeros(5, INPUTS),), dynamic_shapes=({0: batch},))
        torch.export.save(program, path)
        model = engine.Model(str(path), settings_of(TORCH))
        assert model.inputs == [((least, INPUTS), "float32")]
        model.set_inputs([np.ones((least, INPUTS), np.float32)])
        model.run()
        assert model.outputs()[0].shape == (least, OUTPUTS)


def test_torch_takes_a_given_size_of_an_open_dimension(engine, tmp_path):
    path = str(tmp_path / "open.pt2")
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(tiny_module(), (torch.zeros(5, INPUTS),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    name = engine.Model(path, settings_of(TORCH)).described[0][0]
    model = engine.Model(path, {**settings_of(TORCH), "shapes": {name: [7, INPUTS]}})
    model.set_inputs([np.ones((7, INPUTS), np.float32)])
    model.run()
    assert model.outputs()[0].shape == (7, OUTPUTS)


def test_torch_gives_bfloat16_inputs_from_float32(engine, tmp_path):
    path = tmp_path / "bf16.pt2"
    module = tiny_module().to(torch.bfloat16)
    torch.export.save(torch.export.export(module, (torch.zeros(1, INPUTS, dtype=torch.bfloat16),)), path)
    model = engine.Model(str(path), settings_of(TORCH))
    assert model.inputs == [((1, INPUTS), "float32")]
    row = np.ones((1, INPUTS), np.float32)
    model.set_inputs([row])
    model.run()
    np.testing.assert_allclose(model.outputs()[0], tiny_reference(row), atol=0.1)


def test_torch_refuses_an_archive_that_is_neither_program_nor_package(engine, tmp_path):
    path = tmp_path / "script.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("script/code/__torch__.py", "")
    with pytest.raises(ValueError, match="neither an exported program nor an AOTInductor package"):
        engine.Model(str(path), settings_of(TORCH))


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return Path.mkdir, (self.folder,)


@pytest.mark.parametrize("place", ["sample_inputs", "weights", "constants"])
def test_torch_runs_no_pickle_when_an_archive_is_hostile(engine, tiny_pt2, tmp_path, place):
    trap = tmp_path / "sprung"
    hostile = tmp_path / "hostile.pt2"
    pickled = tmp_path / "pickled.pt"
    torch.save(Hostile(trap), pickled)

    def change(name, content):
        if place == "sample_inputs" and "sample_inputs" in name:
            return pickled.read_bytes()
        if place == "weights" and name.endswith("model_weights_config.json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true')
        if place == "weights" and "data/weights/weight_" in name:
            return pickled.read_bytes()
        return content

    rewrite(tiny_pt2, hostile, change)
    if place == "constants":
        with zipfile.ZipFile(hostile, "a") as archive:
            archive.writestr("tiny/data/constants/opaque_obj_0", pickle.dumps(Hostile(trap)))
    try:
        engine.Model(str(hostile), settings_of(TORCH))
    except Exception as error:
        assert "pickle" in str(error).lower() or "weights_only" in str(error).lower()
    else:
        assert place == "sample_inputs"
    assert not trap.exists()


def test_torch_profiles_operations_in_order(engine, tiny_pt2):
    row = np.ones((1, INPUTS), np.float32)
    found, total_ns = engine.operations(str(tiny_pt2), settings_of(TORCH), [row], 4)
    assert [(entry["name"], entry["kind"]) for entry in found] == [
        ("linear_0", "aten::linear"),
        ("relu_1", "aten::relu"),
    ]
    assert [len(entry["samples_ns"]) for entry in found] == [4, 4]
    assert len(total_ns) == 4


def test_torch_says_why_when_there_is_no_gpu(engine, tiny_pt2, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ValueError, match="built without CUDA"):
        engine.Model(str(tiny_pt2), settings_of(TORCH, cuda=""))
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    with pytest.raises(ValueError, match="sees no NVIDIA GPU"):
        engine.canary(settings_of(TORCH, cuda=""))


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has an NVIDIA GPU")
def test_measure_says_why_when_there_is_no_gpu(tiny_pt2):
    with pytest.raises(LatheError, match=r"CUDA|GPU"):
        measure([Job("tiny", tiny_pt2)], replace(HOST, options=("cuda",)), QUICK)


def test_canary_runs_and_lasts_longer_than_the_clock_can_mistake(engine):
    canary = engine.canary(settings_of(TORCH))
    canary.set_inputs([np.ones(shape, dtype) for shape, dtype in canary.inputs])
    canary.run()
    first = canary.outputs()[0]
    canary.run()
    np.testing.assert_array_equal(canary.outputs()[0], first)
    assert first.shape == (1, 16, 32, 32)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """What AOTInductor makes of the tiny module, for which it needs a C++ compiler.

    It hands torch's own folder to that compiler unquoted, so torch is imported through a link without spaces.
    """
    site_packages = tmp_path_factory.mktemp("link") / "packages"
    site_packages.symlink_to(Path(torch.__file__).parent.parent)
    path = tmp_path_factory.mktemp("packages") / "tiny.pt2"
    code = (
        "import json, sys, torch\n"
        "from tests.devices.tiny_models import INPUTS, tiny_module\n"
        "program = torch.export.export(tiny_module(), (torch.zeros(1, INPUTS),))\n"
        "path, configs = sys.argv[1], json.loads(sys.argv[2])\n"
        "torch._inductor.aoti_compile_and_package(program, package_path=path, inductor_configs=configs)"
    )
    fast_to_compile = {"precompile_headers": False, "compile_wrapper_opt_level": "O0"}
    configs = {
        f"aot_inductor.{key}": value for key, value in {"metadata": METADATA, **fast_to_compile}.items()
    }
    subprocess.run(
        [sys.executable, "-c", code, path, json.dumps(configs)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(site_packages), str(ROOT)))},
        check=True,
    )
    return path


@pytest.mark.slow
def test_torch_runs_a_compiled_package_when_it_tells_its_inputs(package, engine, tmp_path):
    outcome = measure([Job("package", package)], HOST, QUICK)["package"]
    assert isinstance(outcome, Measurement), outcome
    assert str(outcome.placement) == "1 of 1 operations on cpu"
    inputs = np.random.default_rng(0).standard_normal((5, INPUTS), dtype=np.float32)
    np.testing.assert_allclose(predict(package, inputs, HOST), tiny_reference(inputs), atol=1e-5)
    with pytest.raises(Exception, match="profile the exported program"):
        engine.operations(str(package), settings_of(TORCH), [inputs[:1]], 2)

    def threaded(name, content):
        return (
            content + b"\n#pragma omp parallel num_threads(3)\n" if name.endswith(".kernel.cpp") else content
        )

    other = rewrite(package, tmp_path / "threaded.pt2", threaded)
    with pytest.raises(ValueError, match="compiled for 3 threads"):
        engine.Model(str(other), settings_of(TORCH))


@pytest.mark.slow
def test_torch_says_how_to_compile_again_when_a_package_does_not_tell_its_inputs(package, engine, tmp_path):
    def without_inputs(name, content):
        if not name.endswith("_metadata.json"):
            return content
        return json.dumps({key: value for key, value in json.loads(content).items() if key not in METADATA})

    untold = rewrite(package, tmp_path / "untold.pt2", without_inputs)
    with pytest.raises(ValueError, match=r"aot_inductor\.metadata"):
        engine.Model(str(untold), settings_of(TORCH))


@needs_gpu
class TestTorchOnGpu:
    target = Target("host", "torch", options=("cuda",))

    def test_identify_names_the_gpu_and_its_driver(self):
        with LocalConnection() as connection:
            assert "driver" in identify(self.target, connection)[1].accelerator

    def test_measure_tells_copies_apart_from_inferences(self, tiny_pt2):
        outcome = measure([Job("tiny", tiny_pt2)], self.target, QUICK)["tiny"]
        assert isinstance(outcome, Measurement), outcome
        assert outcome.placement.full
        for launch in outcome.launches:
            assert launch.to_device_ns and launch.from_device_ns
            assert launch.before.gpu_temperature_millicelsius is not None

    def test_predict_gives_what_the_cpu_gives(self, tiny_pt2):
        inputs = np.random.default_rng(0).standard_normal((5, INPUTS), dtype=np.float32)
        outputs = predict(tiny_pt2, inputs, self.target)
        np.testing.assert_allclose(outputs, tiny_reference(inputs), atol=1e-2)

    def test_profile_gives_the_time_of_kernels(self, tiny_pt2):
        profile = profile_operations(tiny_pt2, self.target, QUICK)
        assert {operation.where for operation in profile.operations} == {"cuda"}
        assert profile.sum_ns > 0
