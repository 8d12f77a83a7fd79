"""Which variant compiles an ONNX graph follows from what will run it."""

import pytest

from devices.inventory import uses_accelerator
from devices.target import Target
from pipeline.compile.variants import variant_for


@pytest.mark.parametrize(
    ("target", "variant"),
    [
        ("host/onnxruntime:fp32@1", "onnxruntime-this-cpu"),
        ("host/onnxruntime:fp32+cores=0@1", "onnxruntime-this-cpu"),
        ("host/onnxruntime:fp32+native@1", "onnxruntime-any-cpu"),
        ("host/onnxruntime:fp32+cuda@1", "onnxruntime-accelerator"),
        ("host/onnxruntime:fp32+native+xnnpack@1", "onnxruntime-accelerator"),
        ("board/onnxruntime:fp32@1", "onnxruntime-any-cpu"),
        ("board/onnxruntime:fp32+openvino@1", "onnxruntime-accelerator"),
    ],
)
def test_variant_is_for_the_processor_or_accelerator_that_runs_the_file(target, variant, tmp_path, monkeypatch):
    definition = '[devices.board]\nconnection = "ssh"\nhost = "board"\n'
    (tmp_path / "devices.toml").write_text(definition)
    monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "devices.toml"))
    assert variant_for(Target.parse(target)).name == variant
    assert uses_accelerator(Target.parse(target)) == (variant == "onnxruntime-accelerator")
