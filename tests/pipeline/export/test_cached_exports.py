"""A module is exported once; afterwards its file comes from the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import nn

from devices.measurement import Reason
from pipeline.errors import ExportError
from pipeline.export import blocks
from pipeline.export.base import Format
from pipeline.export.cache import ExportCache
from pipeline.export.cached_exports import Shape, exported
from pipeline.progress import ConsoleReporter

A, B = "a" * 64, "b" * 64


@pytest.fixture(name="cache")
def _cache(tmp_path: Path) -> ExportCache:
    return ExportCache(tmp_path, 10_000)


def export_weights(
    modules: Mapping[str, tuple[nn.Module, Shape]],
    fmt: Format,
    folder: Path,
    *,
    on_file: Callable[[str, Path], None],
    on_progress: Callable[[int, int], None],
) -> dict[str, Path | Reason]:
    """In place of an exporter: a file holds the module's weights; of one without weights there is none."""
    files: dict[str, Path | Reason] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, (module, _) in modules.items():
        if weights := list(module.parameters()):
            path = folder / f"{name}{fmt.suffix}"
            path.write_bytes(b"".join(weight.detach().numpy().tobytes() for weight in weights))
            on_file(name, path)
            files[name] = path
        else:
            files[name] = Reason("export-failed", "no weights")
        on_progress(len(files), len(modules))
    return files


def refuse() -> NoReturn:
    raise AssertionError("built again")


def linear() -> nn.Module:
    return nn.Linear(3, 2)


def contents(cache: ExportCache, build: Callable[[], nn.Module], *identities: str) -> list[bytes]:
    wanted = {fmt: dict.fromkeys(identities, (build, (1, 1, 3))) for fmt in (Format.ONNX, Format.LITERT)}
    with exported(wanted, "blocks", ConsoleReporter(), cache) as found:
        files = [path for each in found.values() for path in each.values()]
        assert all(isinstance(path, Path) for path in files)
        return [path.read_bytes() for path in files if isinstance(path, Path)]


def test_a_second_time_nothing_is_built_or_exported(
    cache: ExportCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "export_modules", export_weights)
    first = contents(cache, linear, A, B)
    assert len(set(first)) == 2
    assert contents(cache, refuse, A, B) == first


def test_a_workload_is_the_same_file_whatever_is_exported_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "export_modules", export_weights)
    both = contents(ExportCache(tmp_path / "1", 10_000), linear, A, B)
    torch.manual_seed(7)
    assert contents(ExportCache(tmp_path / "2", 10_000), linear, B) == [both[1], both[3]]


def test_what_was_exported_before_a_failure_is_kept(
    cache: ExportCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_then_fail(*args: object, **kwargs: object) -> NoReturn:
        modules, *others = args
        assert isinstance(modules, Mapping)
        export_weights({A: modules[A]}, *others, **kwargs)  # type: ignore[arg-type]
        raise ExportError("killed")

    monkeypatch.setattr(blocks, "export_modules", one_then_fail)
    wanted = {Format.ONNX: dict.fromkeys((A, B), (linear, (1, 1, 3)))}
    with pytest.raises(ExportError), exported(wanted, "blocks", ConsoleReporter(), cache):
        pass
    kept = {Format.ONNX: {A: (refuse, (1, 1, 3))}}
    with exported(kept, "blocks", ConsoleReporter(), cache) as found:
        assert isinstance(found[Format.ONNX][A], Path)


def test_a_failure_is_no_file_and_is_tried_again(cache: ExportCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "export_modules", export_weights)
    wanted = {Format.ONNX: {A: (nn.Identity, (1, 1, 1))}}
    for _ in range(2):
        with exported(wanted, "blocks", ConsoleReporter(), cache) as found:
            assert found[Format.ONNX][A] == Reason("export-failed", "no weights")
