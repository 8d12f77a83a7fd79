"""Many modules to one file each, by few processes, in groups small enough to lose."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

from torch import nn

from devices.measurement import Reason
from pipeline.errors import ExportError, PassingExportError
from pipeline.export.base import Format, exporter_versions
from pipeline.export.conversion import Shape, convert
from pipeline.export.process import Worker
from pipeline.work.disk import write_atomically

# Modules that cost a worker as much time as its start does: fewer are not worth a second one.
_SMALLEST_SHARE = {"onnxruntime": 60, "litert": 15}
# Layers of one exporter call: what a kill can lose, some ten seconds of work. To LiteRT, calls a quarter as
# large take a third more time for each layer.
_MOST_LAYERS = {"onnxruntime": 400, "litert": 200}
# One worker holds about 0.8 GB.
_MOST_WORKERS = 4

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def export_modules(
    modules: Mapping[str, tuple[nn.Module, Shape]],
    fmt: Format,
    folder: Path,
    *,
    on_file: Callable[[str, Path], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Path | Reason]:
    """Export every module to ``folder/NAME.SUFFIX``, batch 1, in evaluation mode, with the weights it has.

    Modules are converted in small groups by a few worker processes, and the joint models are cut apart. A
    group that fails is halved and tried again, so one bad module costs its own file only.

    Args:
        modules: by name (letters, digits, ``_.-``), the module and its input's channels, height, width.
        fmt: what to write.
        folder: where to; made when it is not there.
        on_file: called by any thread with name and file as soon as that is written.
        on_progress: called, when a group is finished, with how many modules are done and how many there are.

    Returns:
        For every name its file, or a ``Reason`` with the code ``export-failed`` or one of a failure that may
        pass.

    Raises:
        ExportError: the exporter is not installed, or a name is not fit for a file.
        TemporaryFolderError: the disk of temporary folders is full.
        Interrupted: this process was told to end.
    """
    exporter_versions(fmt)
    for name in modules:
        if not _NAME.fullmatch(name):
            raise ExportError(f"{name!r} cannot name a file", why="only letters, digits, '_', '.', '-' may")
    folder.mkdir(parents=True, exist_ok=True)
    count = max(min(os.cpu_count() or 1, _MOST_WORKERS, len(modules) // _SMALLEST_SHARE[fmt.runtime]), 1)
    idle: SimpleQueue[Worker] = SimpleQueue()

    def attempt(group: Sequence[str]) -> dict[str, Path] | ExportError:
        worker = idle.get()
        try:
            contents = convert([modules[name] for name in group], fmt, "output", worker)
        except ExportError as error:
            return error
        except MemoryError as error:
            return PassingExportError("out-of-memory", "the exported model could not be cut", why=str(error))
        finally:
            idle.put(worker)
        paths = {name: folder / f"{name}{fmt.suffix}" for name in group}
        for (name, path), content in zip(paths.items(), contents, strict=True):
            write_atomically(path, content)
            if on_file is not None:
                on_file(name, path)
        return paths

    done: dict[str, Path | Reason] = {}
    with ExitStack() as opened:
        for _ in range(count):
            idle.put(opened.enter_context(Worker(fmt.runtime)))
        pool = opened.enter_context(ThreadPoolExecutor(count))
        opened.callback(pool.shutdown, cancel_futures=True)
        layers = {name: _layers(module) for name, (module, _) in modules.items()}
        groups = _groups(layers, _MOST_LAYERS[fmt.runtime], count)
        pending = {pool.submit(attempt, group): group for group in groups}
        while pending:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                group, outcome = pending.pop(future), future.result()
                if not isinstance(outcome, ExportError):
                    done |= outcome
                elif len(group) == 1:
                    code = outcome.code if isinstance(outcome, PassingExportError) else "export-failed"
                    done[group[0]] = Reason(code, f"{outcome.what}: {outcome.why}")
                else:
                    middle = len(group) // 2
                    for half in (group[:middle], group[middle:]):
                        pending[pool.submit(attempt, half)] = half
                if on_progress is not None:
                    on_progress(len(done), len(modules))
    return {name: done[name] for name in modules}


def _layers(module: nn.Module) -> int:
    return sum(1 for each in module.modules() if next(each.children(), None) is None)


def _groups(layers: Mapping[str, int], most: int, workers: int) -> list[list[str]]:
    """Contiguous groups of about as many layers each, one for each worker unless they would be too large."""
    total = sum(layers.values())
    count = max(workers, -(-total // most))
    groups: list[list[str]] = [[] for _ in range(count)]
    before = 0
    for name, own in layers.items():
        groups[(2 * before + own) * count // (2 * total)].append(name)
        before += own
    return [group for group in groups if group]
