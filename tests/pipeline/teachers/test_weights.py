from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from pipeline.errors import TeacherError
from pipeline.teachers.convnet import ConvNet
from pipeline.teachers.weights import fit_weights, read_weights, weights_bytes


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return ConvNet(1, 3, width=2, depth=1).eval()


def same(first: nn.Module, second: nn.Module) -> bool:
    images = torch.rand(2, 1, 8, 8)
    return torch.equal(first(images), second(images))


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_read_weights_takes_a_state_dict_out_of_a_checkpoint(
    tmp_path: Path, wrapper: str | None, prefix: str
) -> None:
    state = {prefix + name: value for name, value in network().state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pth")
    other = network(1)
    fit_weights(other, read_weights(tmp_path / "w.pth"), "w.pth")
    assert same(other, network())


def test_weights_survive_a_round_trip_through_safetensors(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(weights_bytes(network()))
    other = network(1)
    fit_weights(other, read_weights(tmp_path / "w.safetensors"), "w")
    assert same(other, network())
    assert weights_bytes(other) == weights_bytes(network())


def test_fit_weights_accepts_batch_norm_without_its_counters() -> None:
    weights = {k: v for k, v in network().state_dict().items() if "num_batches_tracked" not in k}
    other = network(1)
    fit_weights(other, weights, "w")
    assert same(other, network())


def test_fit_weights_lists_every_name_and_shape_that_does_not_fit() -> None:
    weights = dict(network().state_dict())
    weights["extra.weight"] = torch.zeros(1)
    weights["head.bias"] = torch.zeros(10)
    del weights["head.weight"]
    with pytest.raises(TeacherError, match="w does not fit") as caught:
        fit_weights(network(), weights, "w")
    assert "missing: head.weight" in caught.value.why
    assert "unexpected: extra.weight" in caught.value.why
    assert "head.bias is (10,), expected (3,)" in caught.value.why


class _Malicious:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def test_read_weights_never_runs_code_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": _Malicious()}, tmp_path / "w.pt")
    with pytest.raises(TeacherError, match="holds more than weights"):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_read_weights_refuses_a_truncated_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".pt"):
        torch.save(network().state_dict(), path)
    else:
        safetensors.torch.save_file(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TeacherError):
        read_weights(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent.pt", "do not exist"), ("w.bin", "type '.bin'"), ("list.pt", "not a state dict")],
)
def test_read_weights_says_what_is_wrong_with_a_file(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "w.bin").write_bytes(b"x")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(TeacherError, match=message):
        read_weights(tmp_path / name)


def test_weights_of_a_network_with_one_compiled_module_fit(tmp_path: Path) -> None:
    state = network().state_dict()
    first = next(iter(state)).partition(".")[0]
    compiled = {name.replace(f"{first}.", f"{first}._orig_mod.", 1): value for name, value in state.items()}
    assert compiled.keys() != state.keys()
    torch.save(compiled, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").keys() == state.keys()
    safetensors.torch.save_file(compiled, tmp_path / "w.safetensors")
    assert read_weights(tmp_path / "w.safetensors").keys() == state.keys()
