from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import TeacherError
from pipeline.teachers.convnet import ConvNet
from pipeline.teachers.exported import load_exported


class _Varied(nn.Module):
    """Several results, symbolic shapes, constants, keyword and text arguments, type conversion."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 8, 3, padding=1)
        self.gelu = nn.GELU(approximate="tanh")
        self.head = nn.Linear(8, 5)
        self.register_buffer("scale", torch.arange(1.0, 5.0), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.gelu(self.expand(images.to(memory_format=torch.channels_last)))
        left, right = features.chunk(2, dim=1)
        left = left * self.scale.view(1, 4, 1, 1)
        features = torch.cat([left, right.double().float()], dim=1)
        best, _ = features.flatten(2).max(dim=2)
        features = nn.functional.dropout(best, 0.5, self.training).reshape(images.shape[0], -1)
        return self.head(features) + torch.tensor([1.0]) + torch.zeros(5, dtype=torch.float32)


def exported(path: Path, network: nn.Module, shape: tuple[int, ...], *, open_batch: bool) -> Path:
    shapes = ({0: torch.export.Dim("batch", min=1)},) if open_batch else None
    torch.export.save(torch.export.export(network, (torch.rand(shape),), dynamic_shapes=shapes), path)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """The archive with the content of its files changed."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, change(name.partition("/")[2], content))
    return path


@pytest.mark.parametrize("open_batch", [True, False])
@pytest.mark.parametrize("make", [_Varied, lambda: ConvNet(3, 5, width=2, depth=1)])
def test_load_exported_computes_what_the_network_computes(
    tmp_path: Path, make: Callable[[], nn.Module], open_batch: bool
) -> None:
    network = make().eval()
    graph = load_exported(exported(tmp_path / "t.pt2", network, (2, 3, 8, 8), open_batch=open_batch))
    for count in (1, 2, 5):
        images = torch.rand(count, 3, 8, 8)
        assert torch.allclose(graph(images), network(images), atol=1e-6)


def test_load_exported_refuses_images_of_another_size(tmp_path: Path) -> None:
    graph = load_exported(exported(tmp_path / "t.pt2", _Varied().eval(), (2, 3, 8, 8), open_batch=True))
    with pytest.raises(ValueError, match=r"takes images of shape \(3, 8, 8\), got \(3, 9, 9\)"):
        graph(torch.rand(1, 3, 9, 9))


def test_load_exported_says_eval_when_the_network_was_exported_in_training_mode(tmp_path: Path) -> None:
    path = exported(tmp_path / "t.pt2", _Varied().train(), (2, 3, 8, 8), open_batch=False)
    with pytest.raises(TeacherError) as caught:
        load_exported(path)
    assert "model.eval()" in caught.value.why


class _Malicious:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def _malicious_pickle() -> bytes:
    stream = io.BytesIO()
    torch.save(_Malicious(), stream)
    return stream.getvalue()


def _edit(change: Callable[[Any], None]) -> Callable[[str, bytes], bytes]:
    def edit(name: str, content: bytes) -> bytes:
        if name != "models/model.json":
            return content
        document = json.loads(content)
        change(document)
        return json.dumps(document).encode()

    return edit


def _first_node(document: Any) -> Any:
    return document["graph_module"]["graph"]["nodes"][0]


def _pickled_weights(name: str, content: bytes) -> bytes:
    if name == "data/weights/model_weights_config.json":
        return content.replace(b'"use_pickle": false', b'"use_pickle": true')
    return _malicious_pickle() if name.startswith("data/weights/weight_") else content


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.hub.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.add.__class__",
        "torch.ops.aten.__class__.mro",
        "torch.ops.higher_order.cond",
        "_operator.attrgetter",
        "#ext:op",
        "math.pow",
    ],
)
def test_load_exported_calls_nothing_but_operators(tmp_path: Path, target: str) -> None:
    path = exported(tmp_path / "t.pt2", _Varied().eval(), (2, 3, 8, 8), open_batch=True)
    rewritten(path, _edit(lambda document: _first_node(document).update(target=target)))
    with pytest.raises(TeacherError, match="cannot be read as an exported network") as caught:
        load_exported(path)
    assert target in caught.value.why


def test_load_exported_never_opens_a_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = _Varied().eval()
    path = exported(tmp_path / "t.pt2", network, (2, 3, 8, 8), open_batch=True)
    rewritten(path, lambda name, content: _malicious_pickle() if "sample_inputs" in name else content)
    images = torch.rand(2, 3, 8, 8)
    assert torch.allclose(load_exported(path)(images), network(images), atol=1e-6)
    rewritten(path, _pickled_weights)
    with pytest.raises(TeacherError) as caught:
        load_exported(path)
    assert "is a pickle" in caught.value.why
    assert not (tmp_path / "pwned").exists()


def test_load_exported_never_evaluates_a_shape_expression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = exported(tmp_path / "t.pt2", _Varied().eval(), (2, 3, 8, 8), open_batch=True)
    code = b"\"expr_str\": \"__import__('os').system('touch pwned')\""

    def poison(name: str, content: bytes) -> bytes:
        if name != "models/model.json":
            return content
        head, _, tail = content.partition(b'"expr_str": "')
        return head + code + tail.partition(b'"')[2]

    load_exported(rewritten(path, poison))(torch.rand(2, 3, 8, 8))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "change",
    [
        _edit(lambda document: document["schema_version"].update(major=99)),
        _edit(lambda document: document["graph_module"].pop("signature")),
        _edit(lambda document: _first_node(document)["inputs"][0].update(arg={"as_graph": {}})),
        lambda name, content: content[:5] if name.startswith("data/weights/weight_0") else content,
        lambda name, content: b"{" if name == "models/model.json" else content,
        lambda name, content: b"big" if name == "byteorder" else content,
    ],
)
def test_load_exported_refuses_a_damaged_or_foreign_file(
    tmp_path: Path, change: Callable[[str, bytes], bytes]
) -> None:
    path = exported(tmp_path / "t.pt2", _Varied().eval(), (2, 3, 8, 8), open_batch=True)
    with pytest.raises(TeacherError, match="cannot be read as an exported network"):
        load_exported(rewritten(path, change))


def test_a_package_of_machine_code_is_no_network_and_nothing_of_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "package.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("package/data/aotinductor/model/code.so", b"\x7fELF")
        archive.writestr("../../outside", b"x")
    with pytest.raises(TeacherError) as caught:
        load_exported(path)
    assert "a package of AOTInductor: machine code" in caught.value.why
    assert [each.name for each in tmp_path.iterdir()] == ["package.pt2"]


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_load_exported_refuses_what_is_no_archive(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "t.pt2"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TeacherError):
        load_exported(path)
