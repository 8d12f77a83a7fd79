"""Modules to files for as long as they are needed: from the cache, or exported now and kept there."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from devices.measurement import Reason
from devices.words import listed
from pipeline.export.base import Format
from pipeline.export.cache import ExportCache
from pipeline.progress import Reporter

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int, int]
Exportable = tuple[Callable[[], "nn.Module"], Shape]
"""What builds a module, when it has to be exported, and its input's shape."""

Exports = dict[Format, dict[str, Path | Reason]]
"""By format and identity, a file or the reason why there is none."""


@contextmanager
def exported(
    wanted: Mapping[Format, Mapping[str, Exportable]],
    what: str,
    reporter: Reporter,
    cache: ExportCache | None = None,
) -> Iterator[Exports]:
    """Files of modules, all formats side by side, while the context lasts.

    Each file is kept in the cache as soon as it is written, so that a killed process loses half a minute of
    work at most.

    Args:
        wanted: by format and by identity of the workload, which decides the file but for its weights. These
            are drawn from the identity, so that the same workload is the same file each time.
        what: the modules in a word, for progress lines.
        reporter: is told of progress.
        cache: the user's unless given.

    Raises:
        ExportError: an exporter is not installed.
        TemporaryFolderError: there is no temporary folder, or its disk is full.
        Interrupted: this process was told to end.
    """
    cache = cache or ExportCache.of_user()
    with cache.place() as folder:
        found: Exports = {fmt: {} for fmt in wanted}
        absent: dict[Format, dict[str, Exportable]] = {}
        for fmt, modules in wanted.items():
            for identity, module in modules.items():
                path = folder / fmt / f"{identity}{fmt.suffix}"
                if cache.take(identity, path):
                    found[fmt][identity] = path
                else:
                    absent.setdefault(fmt, {})[identity] = module
        if absent:
            for fmt, files in _export(absent, folder, what, reporter, cache).items():
                found[fmt] |= files
        yield found


def _export(
    absent: Mapping[Format, Mapping[str, Exportable]],
    folder: Path,
    what: str,
    reporter: Reporter,
    cache: ExportCache,
) -> Exports:
    done = dict.fromkeys(absent, 0)
    total = sum(map(len, absent.values()))
    with (
        reporter.task(f"exporting {what} to {listed(absent)}", what) as task,
        ThreadPoolExecutor(len(absent)) as pool,
    ):
        from pipeline.export.blocks import export_modules

        built = {
            fmt: {identity: (_built(identity, build), shape) for identity, (build, shape) in modules.items()}
            for fmt, modules in absent.items()
        }

        def export(fmt: Format) -> dict[str, Path | Reason]:
            def count(finished: int, _: int) -> None:
                done[fmt] = finished
                task(sum(done.values()), total)

            return export_modules(built[fmt], fmt, folder / fmt, on_file=cache.keep, on_progress=count)

        return dict(zip(absent, pool.map(export, absent), strict=True))


def _built(identity: str, build: Callable[[], nn.Module]) -> nn.Module:
    import torch

    torch.manual_seed(zlib.crc32(identity.encode()))
    return build()
