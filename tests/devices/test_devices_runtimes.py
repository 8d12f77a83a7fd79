from __future__ import annotations

import sys

import pytest
from contracts.runtime import RuntimeContract
from tiny_models import INPUTS, tiny_reference

from devices.connections import LocalConnection
from devices.errors import TargetError
from devices.probe import identify
from devices.runtimes import find_runtime
from devices.runtimes.litert import LITERT
from devices.runtimes.onnxruntime import ONNXRUNTIME
from devices.target import Target


class TestOnnxRuntime(RuntimeContract):
    input_shape = (INPUTS,)
    packages = frozenset({"onnxruntime"})

    @pytest.fixture
    def runtime(self):
        return ONNXRUNTIME

    @pytest.fixture
    def artifact(self, tiny_onnx):
        return tiny_onnx

    @pytest.fixture
    def reference(self):
        return tiny_reference


class TestLiteRt(RuntimeContract):
    input_shape = (INPUTS,)
    packages = frozenset({"ai_edge_litert"})

    @pytest.fixture
    def runtime(self):
        return LITERT

    @pytest.fixture
    def artifact(self, tiny_tflite):
        return tiny_tflite

    @pytest.fixture
    def reference(self):
        return tiny_reference


def test_find_runtime_lists_the_known_ones_when_the_name_is_unknown():
    with pytest.raises(TargetError, match="onnxrt") as caught:
        find_runtime("onnxrt")
    assert "onnxruntime, litert" in caught.value.why


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_identify_names_the_extra_when_the_interpreter_lacks_the_runtime(runtime):
    bare = LocalConnection(python=(sys.executable, "-I", "-S"))
    with pytest.raises(TargetError) as caught:
        identify(Target("host", runtime), bare)
    assert caught.value.fix == f'pip install "lathe-deploy[{runtime}]"'
    assert "No module named" in caught.value.why
