"""Commands that keep something: what each needs, and what it made, to compare."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.pipeline.run.tiny_recipe import write_recipe
from tools.attack.samples import digests, fill

_TARGET = "host/onnxruntime:fp32@1"


@dataclass(frozen=True)
class Scenario:
    """A command that is killed.

    Attributes:
        prepare: makes what it needs in a folder.
        arguments: of ``lathe``, run in that folder.
        result: what it made there, to compare; what it has after a kill is part of it.
        again: done between a kill and the next try.
    """

    name: str
    prepare: Callable[[Path], None]
    arguments: tuple[str, ...]
    result: Callable[[Path], set[str]]
    again: Callable[[Path], None] = lambda folder: None


def scenarios() -> Iterator[Scenario]:
    """Every command that keeps something."""
    rows = ("--db", "here.db")
    yield Scenario("import", _rows, ("db", "import", "rows.csv", *rows), _stored)
    yield Scenario("merge", _rows, ("db", "merge", "there.db", *rows), _stored)
    published = ("db", "import", "--published", "table.csv", "--device", "d", *rows)
    yield Scenario("published", _table, published, _cells)
    yield Scenario(
        "measure", _package, ("table", "measure", "package", "--target", _TARGET, *rows), _measured
    )
    target = ("--target", _TARGET, "--launches", "3")
    yield Scenario("profile", _models, ("profile", *_MODELS, *target, "--save", "r.json"), _saved, _put_aside)
    space = ("--space", "tiny.toml", "--input", "8x8", "--networks", "6")
    yield Scenario("build", _recipe, ("table", "build", *space, *target, *rows), _measured)
    shorter = ("search.evaluations=2", "distil.epochs=2", "verify.unmeasured=pass-over")
    settings = [part for each in shorter for part in ("--set", each)]
    yield Scenario("run", _recipe, ("run", "tiny.toml", "--work", "work", *rows, *settings), _made)


def _rows(folder: Path) -> None:
    fill(str(folder / "there.db"), 1_200)
    from latency_db.store import export_file, open_store

    with open_store(str(folder / "there.db")) as store:
        export_file(store, folder / "rows.csv")


def _stored(folder: Path) -> set[str]:
    if not (folder / "here.db").exists():
        return set()
    try:
        return {json.dumps(row[1:]) for row in json.loads(digests(str(folder / "here.db")))}
    except Exception as error:
        return {f"cannot be read: {error}"} if "no tables" not in str(error) else set()


def _table(folder: Path) -> None:
    lines = "".join(f"Conv{n},{n},{1 + n % 7}.5\n" for n in range(60_000))
    (folder / "table.csv").write_text(f"block,in_h,mean_ms\n{lines}")


def _cells(folder: Path) -> set[str]:
    from latency_db.store import open_store, published_rows

    if not (folder / "here.db").exists():
        return set()
    try:
        with open_store(str(folder / "here.db"), must_exist=True) as store:
            return {str(sorted(row.items())) for batch in published_rows(store) for row in batch}
    except Exception as error:
        return {f"cannot be read: {error}"} if "no tables" not in str(error) else set()


def package_of(folder: Path, workloads: int) -> None:
    """A work package of so many workloads, all of one small model."""
    from devices.measurement import MeasuringProtocol, Reason
    from devices.target import Target
    from latency_db.store import Workload
    from latency_db.tables.package import write_package

    canary = Path(__file__).parents[2] / "devices" / "canary" / "canary.onnx"
    blocks = [Workload.of("block", f"block {n}", n) for n in range(workloads)]
    artifacts: dict[str, Path | Reason] = {each.identity: canary for each in blocks}
    protocol = MeasuringProtocol(launches=3, max_launches=3)
    write_package(folder / "package", Target("host", "onnxruntime"), protocol, blocks, artifacts)


def _package(folder: Path) -> None:
    package_of(folder, workloads=6)


def _measured(folder: Path) -> set[str]:
    """Which workloads have an outcome: their times differ from one command to the next."""
    from latency_db.store import open_store, records

    if not (folder / "here.db").exists():
        return set()
    try:
        with open_store(str(folder / "here.db"), must_exist=True) as store:
            found = [record for batch in records(store) for record in batch if record.damage is None]
            return {str(record.parts["workload"]["description"]) for record in found}
    except Exception as error:
        return {f"cannot be read: {error}"} if "no tables" not in str(error) else set()


_MODELS = tuple(f"model{number}.onnx" for number in range(4))


def _models(folder: Path) -> None:
    canary = Path(__file__).parents[2] / "devices" / "canary" / "canary.onnx"
    for name in _MODELS:
        (folder / name).write_bytes(canary.read_bytes())


def _saved(folder: Path) -> set[str]:
    """Which models have a result, in all files together: a result file is never written over."""
    from devices.result_file import read_results

    files = [*folder.glob("r.json"), *folder.glob("kept-*.json")]
    return {f"{entry.models}" for file in files for entry in read_results(file).entries}


def _put_aside(folder: Path) -> None:
    if (folder / "r.json").exists():
        (folder / "r.json").rename(folder / f"kept-{time.time_ns()}.json")


def _recipe(folder: Path) -> None:
    write_recipe(folder)


def _made(folder: Path) -> set[str]:
    """Stages that are done and workloads that were measured, by name; the teacher's weights, by content.

    What is measured differs from one command to the next, and what is made from it.
    """
    results = {path.parent.name.rpartition("-")[0]: path for path in (folder / "work").rglob("result.json")}
    teacher = json.loads(results["teacher"].read_bytes())["files"] if "teacher" in results else {}
    weights = {digest for name, digest in teacher.items() if name.endswith(".safetensors")}
    # Below bundles/NAME-DIGEST, where the digest is that of what was measured.
    bundles = folder / "work" / "bundles"
    parts = (path.relative_to(bundles).parts for path in bundles.rglob("*") if path.is_file())
    return {*results, *weights, *("/".join(each[1:]) for each in parts), *_measured(folder)}
