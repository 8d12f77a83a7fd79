from __future__ import annotations

import argparse
import os
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from pipeline.errors import TeacherError
from pipeline.teachers.convnet import ConvNet
from pipeline.teachers.fitting import fit_weights
from pipeline.teachers.weights import read_weights, weights_bytes


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return ConvNet(1, 3, width=2, depth=1).eval()


def same(first: nn.Module, second: nn.Module) -> bool:
    images = torch.rand(2, 1, 8, 8)
    return torch.equal(first(images), second(images))


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_ema", "anything"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model."]
)
def test_read_weights_takes_a_state_dict_out_of_a_checkpoint(
    tmp_path: Path, wrapper: str | None, prefix: str
) -> None:
    state = {prefix + name: value for name, value in network().state_dict().items()}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    content = {"epoch": 3, wrapper: state, "optimizer": optimizer} if wrapper else state
    torch.save(content, tmp_path / "w.pth")
    other = network(1)
    fit_weights(other, read_weights(tmp_path / "w.pth"), "w.pth")
    assert same(other, network())


@pytest.mark.parametrize("name", ["checkpoint.pth.tar", "lightning.ckpt", "pytorch_model.bin", "w.pt"])
def test_read_weights_takes_the_usual_suffixes(tmp_path: Path, name: str) -> None:
    torch.save({"state_dict": network().state_dict()}, tmp_path / name)
    assert read_weights(tmp_path / name).keys() == network().state_dict().keys()


def test_of_several_state_dicts_one_is_asked_for(tmp_path: Path) -> None:
    plain, average = network(1).state_dict(), {"module." + k: v for k, v in network().state_dict().items()}
    torch.save({"epoch": 3, "state_dict": plain, "state_dict_ema": average}, tmp_path / "w.pth")
    with pytest.raises(TeacherError, match="several state dicts") as caught:
        read_weights(tmp_path / "w.pth")
    assert "'state_dict', 'state_dict_ema'" in caught.value.why
    assert "weights_key = 'state_dict_ema'" in caught.value.fix
    other = network(2)
    fit_weights(other, read_weights(tmp_path / "w.pth", "state_dict_ema"), "w")
    assert same(other, network())
    with pytest.raises(TeacherError, match="no state dict 'ema'") as caught:
        read_weights(tmp_path / "w.pth", "ema")
    assert "'state_dict_ema'" in caught.value.why


def test_weights_survive_a_round_trip_through_safetensors(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(weights_bytes(network()))
    other = network(1)
    fit_weights(other, read_weights(tmp_path / "w.safetensors"), "w")
    assert same(other, network())
    assert weights_bytes(other) == weights_bytes(network())


class Settings(dict[str, Any]):
    """Hyper-parameters as Lightning keeps them: a dictionary of a class of its own."""


@pytest.mark.parametrize(
    "beside",
    [
        argparse.Namespace(lr=0.1),
        np.float64(0.5),
        {"folder": PurePosixPath("data"), "accuracy": np.float32(0.9)},
        Settings(lr=0.1),
        [Settings(), Settings(depth=3)],
    ],
)
def test_objects_beside_the_weights_are_passed_over(tmp_path: Path, beside: Any) -> None:
    torch.save({"state_dict": network().state_dict(), "hyper_parameters": beside}, tmp_path / "w.ckpt")
    other = network(1)
    fit_weights(other, read_weights(tmp_path / "w.ckpt"), "w")
    assert same(other, network())


def test_weights_below_a_prefix_are_chosen_by_it(tmp_path: Path) -> None:
    states = {"model.": network(1).state_dict(), "ema_model.": network().state_dict()}
    both = {prefix + name: value for prefix, state in states.items() for name, value in state.items()}
    torch.save({"state_dict": both}, tmp_path / "w.ckpt")
    for key in ("ema_model", "state_dict.ema_model"):
        other = network(2)
        fit_weights(other, read_weights(tmp_path / "w.ckpt", key), "w")
        assert same(other, network())
    with pytest.raises(TeacherError, match="no state dict 'average'"):
        read_weights(tmp_path / "w.ckpt", "average")


def test_a_whole_network_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "model": network()}, tmp_path / "w.pt")
    with pytest.raises(TeacherError, match="whole objects") as caught:
        read_weights(tmp_path / "w.pt")
    assert "pipeline.teachers.convnet.ConvNet" in caught.value.why
    assert "save model.state_dict()" in caught.value.fix


def test_a_program_of_torchscript_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(network(), torch.rand(1, 1, 8, 8)), tmp_path / "w.pt")
    with pytest.raises(TeacherError, match="TorchScript") as caught:
        read_weights(tmp_path / "w.pt")
    assert "state_dict()" in caught.value.fix


class _Malicious:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def test_read_weights_never_runs_code_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": _Malicious()}, tmp_path / "w.pt")
    with pytest.raises(TeacherError, match="holds more than weights") as caught:
        read_weights(tmp_path / "w.pt")
    assert "posix.system" in caught.value.why
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
    [("absent.pt", "do not exist"), ("w.h5", "type '.h5'"), ("list.pt", "not a state dict")],
)
def test_read_weights_says_what_is_wrong_with_a_file(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "w.h5").write_bytes(b"x")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(TeacherError, match=message):
        read_weights(tmp_path / name)


def test_weights_of_a_network_with_one_compiled_module_fit(tmp_path: Path) -> None:
    state = network().state_dict()
    first = next(iter(state)).partition(".")[0]
    compiled = {name.replace(f"{first}.", f"{first}._orig_mod.", 1): value for name, value in state.items()}
    assert compiled.keys() != state.keys()
    torch.save(compiled, tmp_path / "w.pth")
    safetensors.torch.save_file(compiled, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        other = network(1)
        fit_weights(other, read_weights(tmp_path / name), name)
        assert same(other, network())


@pytest.mark.parametrize(
    ("member", "change"),
    [
        ("byteorder", lambda content: b"\xf2"),
        ("data.pkl", lambda content: content[:-1] + b"h\xce."),
        ("data.pkl", lambda content: b""),
    ],
)
def test_read_weights_refuses_a_file_in_whose_archive_something_is_damaged(
    tmp_path: Path, member: str, change: Any
) -> None:
    torch.save(network().state_dict(), tmp_path / "sound.pt")
    with (
        zipfile.ZipFile(tmp_path / "sound.pt") as sound,
        zipfile.ZipFile(tmp_path / "damaged.pt", "w") as damaged,
    ):
        for name in sound.namelist():
            content = sound.read(name)
            damaged.writestr(name, change(content) if name.endswith(f"/{member}") else content)
    with pytest.raises(TeacherError):
        read_weights(tmp_path / "damaged.pt", None)


def test_read_weights_refuses_what_unpacks_to_too_much(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(100 << 20, dtype=torch.uint8)}, tmp_path / "large.pt")
    with (
        zipfile.ZipFile(tmp_path / "large.pt") as large,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in large.namelist():
            small.writestr(name, large.read(name))
    with pytest.raises(TeacherError, match="suspiciously small"):
        read_weights(tmp_path / "small.pt")
    assert read_weights(tmp_path / "large.pt")["a.weight"].numel() == 100 << 20
