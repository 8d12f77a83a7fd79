from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from devices.requests.prediction import predict
from devices.target import Target
from pipeline.errors import TeacherError
from pipeline.export.base import Format
from pipeline.export.blocks import export_modules
from pipeline.methods.subgraph.attention import Attention, separate_heads
from pipeline.methods.subgraph.structures import find_structures, removed
from pipeline.methods.subgraph.units import describe_teacher
from pipeline.teachers.exported import load_exported
from pipeline.teachers.rebuilding import rebuild_layers
from tests.exporters_here import export_here
from tests.pipeline.methods.subgraph.networks import (
    SHAPE,
    Fused,
    HeadedLayer,
    Reused,
    Transformer,
    bottlenecks,
    images,
    plain,
    resnet,
    seeded,
)
from tests.pipeline.teachers.test_exported import exported, rewritten


@seeded
def transformer() -> nn.Module:
    return Transformer([HeadedLayer(12, 16, Fused(12, 4)), HeadedLayer(12, 16, Fused(12, 4))]).eval()


@seeded
def multihead() -> nn.Module:
    attention = nn.MultiheadAttention(12, 3, batch_first=True)
    return Transformer([HeadedLayer(12, 16, attention)]).eval()


class Several(nn.Module):
    """Layers of other kinds, a class token, several results of a call, a size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(48, 8, 3, padding=1, groups=2)
        self.norm = nn.GroupNorm(2, 8)
        self.other = nn.BatchNorm1d(8, affine=True)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.offset = nn.Buffer(torch.randn(16))
        self.head = nn.Linear(16, 5, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        rows = self.other(self.norm(self.convolution(images.flatten(1, 2))))
        rows = torch.cat([self.token.expand(images.shape[0], -1, -1), rows + self.offset], dim=1)
        left, right = rows.chunk(2, dim=1)[0], rows.max(dim=1, keepdim=True)[0]
        logits: Tensor = self.head((left + right).reshape(images.shape[0] * left.shape[1], 16))
        return logits.view(images.shape[0], 5, 5).mean(dim=1)


def rebuilt(path: Path, network: nn.Module, *, open_batch: bool = True) -> nn.Module:
    """The network by way of a file, inside another as a teacher is."""
    teacher = nn.Sequential(load_exported(exported(path, network, (2, *SHAPE), open_batch=open_batch)))
    rebuild_layers(teacher, images(2))
    return teacher


@pytest.mark.parametrize("open_batch", [True, False], ids=["open", "fixed"])
@pytest.mark.parametrize("make", [plain, bottlenecks, resnet, transformer])
def test_the_same_can_be_removed_as_from_the_network_that_was_exported(
    tmp_path: Path, make: Callable[[], nn.Module], open_batch: bool
) -> None:
    network = nn.Sequential(make())
    teacher = rebuilt(tmp_path / "t.pt2", network[0], open_batch=open_batch)
    for each in (network, teacher):
        separate_heads(each, images(2))
    structures = find_structures(network, SHAPE)
    assert find_structures(teacher, SHAPE) == structures
    theirs, ours = (describe_teacher(each, SHAPE, structures, most_blocks=30) for each in (network, teacher))
    assert [(each.name, each.structures, each.block) for each in ours.units] == [
        (each.name, each.structures, each.block) for each in theirs.units
    ]
    assert ours.widths == theirs.widths
    with torch.no_grad():
        torch.testing.assert_close(teacher(images(5)), network(images(5)), rtol=1e-4, atol=1e-5)


def test_weights_keep_their_names(tmp_path: Path) -> None:
    network = nn.Sequential(resnet())
    ours, theirs = rebuilt(tmp_path / "t.pt2", network[0]).state_dict(), network.state_dict()
    counted = {name for name in theirs if name.endswith("num_batches_tracked")}
    assert ours.keys() - counted == theirs.keys() - counted
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs.keys() - counted)


def test_normalisations_that_were_exported_for_evaluation_learn_again(tmp_path: Path) -> None:
    teacher = rebuilt(tmp_path / "t.pt2", plain())
    norm = next(each for each in teacher.modules() if isinstance(each, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    teacher.train()(images(8))
    assert not torch.equal(norm.running_mean, before)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_other_layers_class_tokens_and_sizes_of_the_batch_are_rebuilt(tmp_path: Path) -> None:
    network = seeded(lambda: Several().eval())()
    teacher = rebuilt(tmp_path / "t.pt2", network)
    kinds = {type(each) for each in teacher.modules()}
    assert {nn.Conv1d, nn.GroupNorm, nn.BatchNorm1d, nn.Linear} <= kinds
    for count in (1, 7):
        torch.testing.assert_close(teacher(images(count)), network(images(count)), rtol=1e-4, atol=1e-5)


def test_heads_of_torchs_own_attention_are_found_if_the_batch_size_is_open(tmp_path: Path) -> None:
    teacher = rebuilt(tmp_path / "t.pt2", multihead())
    separate_heads(teacher, images(2))
    assert [each.heads for each in teacher.modules() if isinstance(each, Attention)] == [3]


def test_a_graph_that_holds_its_batch_size_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="cannot be turned back into layers") as caught:
        rebuilt(tmp_path / "t.pt2", multihead(), open_batch=False)
    assert "open batch size" in caught.value.fix
    assert "\n" not in caught.value.why


def test_layers_whose_outputs_have_another_shape_are_no_such_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Narrower(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return torch.zeros(1, 1)

    linear = nn.Linear(math.prod(SHAPE), 5)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    monkeypatch.setattr("pipeline.teachers.rebuilding.as_modules", lambda network: Narrower())
    with pytest.raises(TeacherError) as caught:
        rebuilt(tmp_path / "t.pt2", nn.Sequential(nn.Flatten(), linear))
    assert caught.value.why == "as layers it gives other outputs"


def test_layers_that_were_taken_apart_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "t.pt2"
    program = torch.export.export(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), (images(2),))
    torch.export.save(program.run_decompositions(), path)
    with pytest.raises(TeacherError, match="cannot be turned back into layers") as caught:
        rebuild_layers(nn.Sequential(load_exported(path)), images(2))
    assert "run_decompositions" in caught.value.why
    assert "run_decompositions" in caught.value.fix


def test_a_layer_that_is_called_twice_is_one_layer(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reused, self.head = Reused(), nn.Linear(3, 5)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.head(self.reused(images))
            return logits

    teacher = rebuilt(tmp_path / "t.pt2", Twice().eval())
    assert sum(isinstance(each, nn.Conv2d) for each in teacher.modules()) == 1
    with pytest.raises(TeacherError, match="nothing can be removed"):
        find_structures(teacher, SHAPE)


def test_names_in_a_file_are_never_source(tmp_path: Path) -> None:
    bad = '0");raise SystemExit;("'

    def renamed(name: str, content: bytes) -> bytes:
        if not name.endswith(".json"):
            return content
        text = json.dumps(json.loads(content))
        return (
            text.replace('"0.weight"', json.dumps(f"{bad}.weight")).replace("L__self__0,0,", "x,0,").encode()
        )

    path = rewritten(exported(tmp_path / "t.pt2", plain(), (2, *SHAPE), open_batch=True), renamed)
    teacher = nn.Sequential(load_exported(path))
    rebuild_layers(teacher, images(2))
    torch.testing.assert_close(teacher(images()), plain()(images()), rtol=1e-4, atol=1e-5)
    assert all(re.fullmatch(r"[A-Za-z0-9_.]+", name) for name in teacher.state_dict())
    assert any("raise" in name for name in teacher.state_dict())


@pytest.mark.slow
def test_what_is_left_of_an_exported_teacher_answers_alike_on_both_runtimes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_here(monkeypatch.setattr)
    teacher = rebuilt(tmp_path / "t.pt2", bottlenecks())
    structures = find_structures(teacher, SHAPE)
    kept = {each.name: range(1, max(2, each.count // 2)) for each in structures if each.kind != "block"}
    smaller = removed(teacher, SHAPE, structures, kept)
    with torch.no_grad():
        expected = smaller(images())
    for fmt, target in {
        Format.ONNX: Target("host", "onnxruntime"),
        Format.LITERT: Target("host", "litert"),
    }.items():
        (folder := tmp_path / fmt.runtime).mkdir()
        files = export_modules({"student": (smaller, SHAPE)}, fmt, folder)
        fed = images() if fmt is Format.ONNX else images().permute(0, 2, 3, 1)
        outputs = predict(files["student"], fed.contiguous().numpy(), target)
        np.testing.assert_allclose(outputs, expected.numpy(), rtol=1e-3, atol=1e-4)
