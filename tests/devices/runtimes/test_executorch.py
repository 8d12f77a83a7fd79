from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from devices.measurement.measurement import Measurement, Placed
from devices.measuring.batch import Job, measure
from devices.requests.operations import profile_operations
from devices.runtimes.python_runtimes import EXECUTORCH
from devices.target import Target
from tests.contracts.runtime import (
    QUICK,
    AgentRuntimeContract,
    EngineContract,
    load_engine,
    settings_of,
)
from tests.devices.tiny_models import INPUTS, tiny_reference, write_mixed_pte, write_pte, write_tiny_pte
from tests.places import ROOT

pytestmark = pytest.mark.slow  # the exporter takes seconds to import
HOST = Target("host", "executorch")


@pytest.fixture(scope="module")
def tiny_pte(tmp_path_factory) -> Path:
    return write_tiny_pte(tmp_path_factory.mktemp("models") / "tiny.pte")


@pytest.fixture(scope="module")
def mixed_pte(tmp_path_factory) -> Path:
    return write_mixed_pte(tmp_path_factory.mktemp("models") / "mixed.pte")


@pytest.fixture(scope="module")
def engine():
    return load_engine(EXECUTORCH)


def settings(precision: str = "fp32", threads: int = 1) -> dict:
    return {**settings_of(EXECUTORCH), "precision": precision, "threads": threads}


class TestExecuTorch(AgentRuntimeContract, EngineContract):
    input_shape = (INPUTS,)
    packages = frozenset({"executorch", "torch"})
    operations = 1  # XNNPACK fuses the relu into the product
    profiled = True
    refusal = "lacks aten::nosuch.out"

    @pytest.fixture
    def runtime(self):
        return EXECUTORCH

    @pytest.fixture
    def artifact(self, tiny_pte):
        return tiny_pte

    @pytest.fixture
    def heavy(self, runtime):
        return runtime.canary

    @pytest.fixture
    def unsupported(self, mixed_pte, tmp_path):
        path = tmp_path / "unsupported.pte"
        path.write_bytes(mixed_pte.read_bytes().replace(b"aten::cumsum", b"aten::nosuch"))
        return path

    @pytest.fixture
    def reference(self):
        return tiny_reference


def test_executorch_names_a_delegate_that_it_lacks(engine, tiny_pte, tmp_path):
    other = tmp_path / "other.pte"
    other.write_bytes(tiny_pte.read_bytes().replace(b"XnnpackBackend", b"XnnpackNowhere"))
    with pytest.raises(ValueError, match=r"this ExecuTorch \d.* lacks XnnpackNowhere"):
        engine.Model(str(other), settings())


def test_executorch_names_the_methods_when_forward_is_not_among_them(engine, tiny_pte, tmp_path):
    other = tmp_path / "other.pte"
    other.write_bytes(tiny_pte.read_bytes().replace(b"forward", b"encoder"))
    with pytest.raises(ValueError, match="no method 'forward', only encoder"):
        engine.Model(str(other), settings())


def test_measure_tells_what_xnnpack_left_to_executorchs_own_kernels(mixed_pte):
    outcome = measure([Job("mixed", mixed_pte)], HOST, QUICK)["mixed"]
    assert isinstance(outcome, Measurement), outcome
    assert outcome.placement.parts == (Placed("XnnpackBackend", 2, 2), Placed("cpu", 1, 1))
    assert not outcome.placement.full


def test_profile_has_operations_of_xnnpack_and_kernels_beside_it_in_order(mixed_pte):
    profile = profile_operations(mixed_pte, HOST, QUICK)
    kinds = [(operation.kind, operation.where) for operation in profile.operations]
    assert [where for _, where in kinds] == ["XnnpackBackend", "cpu", "XnnpackBackend"]
    assert kinds[0][0].startswith("Fully Connected (NC, F32)")
    assert kinds[1][0] == "aten::cumsum"
    assert len(profile.total_ns) == QUICK.min_count


class Chain(torch.nn.Module):
    """Three convolutions, so that the memory of the input is used again in the middle."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(*[torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)])

    def forward(self, x):
        return self.layers(x).cumsum(1).cumsum(2)


def test_executorch_gives_the_same_outputs_again_where_a_program_reuses_the_memory_of_its_input(
    engine, tmp_path
):
    torch.manual_seed(0)
    module, row = Chain().eval(), torch.randn(1, 3, 16, 16)
    model = engine.Model(str(write_pte(tmp_path / "chain.pte", module, (row,))), settings())
    model.set_inputs([row.numpy()])
    for _ in range(3):
        model.run()
        with torch.no_grad():
            np.testing.assert_allclose(model.outputs()[0], module(row).numpy(), atol=1e-5)


class Several(torch.nn.Module):
    def forward(self, x, index):
        return x + index, x.to(torch.float64)


def test_executorch_takes_inputs_of_several_types_and_gives_every_output(engine, tmp_path):
    inputs = (torch.zeros(2, 3), torch.ones(3, dtype=torch.int64))
    model = engine.Model(str(write_pte(tmp_path / "several.pte", Several(), inputs)), settings())
    assert model.inputs == [((2, 3), "float32"), ((3,), "int64")]
    model.set_inputs([np.full((2, 3), 0.5, np.float32), np.array([1, 2, 3])])
    model.run()
    total, double = model.outputs()
    np.testing.assert_array_equal(total, [[1.5, 2.5, 3.5]] * 2)
    assert double.dtype == np.float64
    np.testing.assert_array_equal(double, np.full((2, 3), 0.5))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_executorch_uses_the_threads_of_the_target(engine, threads):
    model = engine.Model(str(EXECUTORCH.canary), settings(threads=threads))
    assert engine.runtime._threadpool_get_thread_count() == threads
    model.set_inputs([np.zeros(shape, dtype) for shape, dtype in model.inputs])
    model.run()


def test_executorch_warns_when_no_operation_computes_in_the_precision_of_the_target(engine):
    model = engine.Model(str(EXECUTORCH.canary), settings("int8"))
    model.set_inputs([np.zeros(shape, dtype) for shape, dtype in model.inputs])
    assert [warning["code"] for warning in model.warnings()] == ["precision-unused"]
    assert engine.Model(str(EXECUTORCH.canary), settings()).warnings() == []


def test_executorch_imports_no_exporter_to_run_a_program():
    files = {name: str(path) for name, path in EXECUTORCH.files().items()}
    code = (
        "import sys\n"
        "from devices.agent.agent import load\n"
        f"load({files!r})\n"
        "sys.exit('executorch.exir' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
