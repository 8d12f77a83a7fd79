from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.distill.onednn_workaround import sampled_before_convolution
from pipeline.teachers.convnet import ConvNet

SCRIPT = Path(__file__).with_name("guarded_training.py")


def test_a_training_with_a_narrow_strided_convolution_on_an_odd_batch_survives(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path / "checkpoint"), "2"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "trained 2\n"), done.stderr


@pytest.mark.parametrize("stride", [2, 3, (1, 2)])
def test_outputs_and_gradients_are_those_of_the_convolution_itself(stride: int) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(8, 5, 1, stride)
    images = torch.randn(4, 8, 9, 7, requires_grad=True)

    def run() -> list[torch.Tensor]:
        outputs = convolution(images)
        return [outputs, *torch.autograd.grad(outputs.square().sum(), [images, *convolution.parameters()])]

    expected = run()
    with sampled_before_convolution(convolution):
        guarded = run()
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(expected, guarded, strict=True))
    assert convolution.stride == ((stride, stride) if isinstance(stride, int) else stride)
    assert torch.equal(run()[0], expected[0])


def test_only_the_convolutions_at_risk_are_changed_and_the_state_keeps_its_names() -> None:
    network = ConvNet(3, 2, width=8, depth=1)
    names = list(network.state_dict())
    strides = {name: m.stride for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    with sampled_before_convolution(network):
        inside = {name: m.stride for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}
        assert list(network.state_dict()) == names
    changed = {name for name in strides if strides[name] != inside[name]}
    assert changed == {"blocks.1.shortcut.0"}, "the second shortcut has sixteen input channels"
