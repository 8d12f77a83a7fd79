from __future__ import annotations

import os
import zipfile
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_taken_as_single(dtype: torch.dtype) -> None:
    weights = {k: v.to(dtype) if v.is_floating_point() else v for k, v in network().state_dict().items()}
    other = network(1)
    fit_weights(other, weights, "w")
    assert torch.equal(other.state_dict()["head.weight"], weights["head.weight"].float())


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


def test_an_unknown_prefix_is_named_in_the_remedy() -> None:
    weights = {"backbone." + name: value for name, value in network().state_dict().items()}
    with pytest.raises(TeacherError, match="does not fit") as caught:
        fit_weights(network(), weights, "w")
    assert "remove 'backbone.' from the names" in caught.value.fix


def test_a_prefix_that_the_network_has_itself_is_kept() -> None:
    inner = nn.ModuleDict({"model": network()})
    other = nn.ModuleDict({"model": network(1)})
    fit_weights(other, inner.state_dict(), "w")
    assert same(other["model"], inner["model"])


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
