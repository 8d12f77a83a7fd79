"""Many modules to one file each, in few exporter calls."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import nn

from devices.measurement import Reason
from pipeline.errors import ExportError
from pipeline.export.base import Format, exporter_versions
from pipeline.export.conversion import Shape, convert
from pipeline.work.disk import write_atomically

# Modules that cost a worker as much time as its start does: fewer are not worth a second one.
_SMALLEST_GROUP = {"onnxruntime": 60, "litert": 15}
_LARGEST_GROUP = 64
# One worker holds about 0.8 GB.
_MOST_WORKERS = 4

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def export_modules(
    modules: Mapping[str, tuple[nn.Module, Shape]],
    fmt: Format,
    folder: Path,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Path | Reason]:
    """Export every module to ``folder/NAME.SUFFIX``, batch 1, in evaluation mode, with the weights it has.

    Modules are converted in groups, one worker process per group, and the joint models are cut apart. A group
    that fails is halved and tried again, so one bad module costs its own file only.

    Args:
        modules: by name (letters, digits, ``_.-``), the module and its input's channels, height, width.
        fmt: what to write.
        folder: where to; made when it is not there.
        on_progress: called, when a group is finished, with how many modules are done and how many there are.

    Returns:
        For every name its file, or a ``Reason`` with the code ``export-failed``.

    Raises:
        ExportError: the exporter is not installed, or a name is not fit for a file.
    """
    exporter_versions(fmt)
    for name in modules:
        if not _NAME.fullmatch(name):
            raise ExportError(f"{name!r} cannot name a file", why="only letters, digits, '_', '.', '-' may")
    folder.mkdir(parents=True, exist_ok=True)

    def attempt(group: Sequence[str]) -> dict[str, Path] | ExportError:
        try:
            contents = convert([modules[name] for name in group], fmt, "output")
        except ExportError as error:
            return error
        paths = {name: folder / f"{name}{fmt.suffix}" for name in group}
        for path, content in zip(paths.values(), contents, strict=True):
            write_atomically(path, content)
        return paths

    done: dict[str, Path | Reason] = {}
    workers = min(os.cpu_count() or 1, _MOST_WORKERS)
    groups = _groups(list(modules), _SMALLEST_GROUP[fmt.runtime], workers)
    with ThreadPoolExecutor(workers) as pool:
        while groups:
            outcomes = zip(groups, pool.map(attempt, groups), strict=True)
            groups = []
            for group, outcome in outcomes:
                if not isinstance(outcome, ExportError):
                    done |= outcome
                elif len(group) == 1:
                    done[group[0]] = Reason("export-failed", f"{outcome.what}: {outcome.why}")
                else:
                    middle = len(group) // 2
                    groups += [group[:middle], group[middle:]]
                if on_progress is not None:
                    on_progress(len(done), len(modules))
    return {name: done[name] for name in modules}


def _groups(names: list[str], smallest: int, workers: int) -> list[list[str]]:
    """Contiguous groups of nearly equal size: one per worker unless they would be too small or too large."""
    count = max(min(workers, len(names) // smallest), -(-len(names) // _LARGEST_GROUP), 1)
    bounds = [len(names) * index // count for index in range(count + 1)]
    return [names[start:end] for start, end in itertools.pairwise(bounds) if end > start]
