"""Options that the commands of ``lathe table`` share, and what they stand for."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from pipeline.cli.options import Database

if TYPE_CHECKING:
    from devices.target import Target
    from latency_db.models import NetworkModel
    from pipeline.progress import Reporter
    from pipeline.spaces.base import Space
    from pipeline.tables.bench import Bench
    from pipeline.tables.documents import Content

SpaceName = Annotated[
    str,
    typer.Option("--space", metavar="S", help="The space: mobile, akd, or a recipe file that has a [space]."),
]
Input = Annotated[
    str, typer.Option("--input", metavar="HxW", help="Size of an input image, e.g. 32x32 or 1x28x28.")
]
Classes = Annotated[int, typer.Option("--classes", min=1, metavar="N", help="Number of classes.")]
Targets = Annotated[
    list[str], typer.Option("--target", metavar="T", help="Target, e.g. host/litert:fp32@1; may be repeated.")
]
OneTarget = Annotated[str, typer.Option("--target", metavar="T", help="Target, e.g. host/litert:fp32@1.")]
TableName = Annotated[
    str,
    typer.Argument(
        metavar="TABLE", help="A file of lathe table export, or a target with a table in the database."
    ),
]
Networks = Annotated[
    int, typer.Option("--networks", metavar="N", min=6, help="Whole networks to measure for the model.")
]
Launches = Annotated[
    int,
    typer.Option(
        "--launches", metavar="N", min=3, help="Fresh processes in which each workload is measured."
    ),
]


@dataclass(frozen=True)
class SpaceOptions:
    """Which space."""

    space: SpaceName = "mobile"
    input_shape: Input = "32x32"
    classes: Classes = 10

    def find(self) -> Space:
        """The space itself."""
        from pipeline.tables.request import find_space

        return find_space(self.space, self.input_shape, self.classes)


@dataclass(frozen=True)
class BenchOptions:
    """How to measure, and where outcomes are kept."""

    launches: Launches = 5
    db: Database = None

    @contextmanager
    def opened(self, *, must_exist: bool = False) -> Iterator[Bench]:
        """The bench, while its database is open; with ``must_exist`` no database is made."""
        from devices.measurement import MeasuringProtocol
        from latency_db.store import open_store
        from pipeline.tables.bench import Bench

        with open_store(self.db, must_exist=must_exist) as store:
            yield Bench(store, MeasuringProtocol(launches=self.launches), reporter())


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take dataclasses of options: typer sees their fields, the command the dataclasses."""
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    groups: dict[str, type[Any]] = {
        each.name: each.annotation
        for each in parameters
        if isinstance(each.annotation, type) and is_dataclass(each.annotation)
    }

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        command(**given)

    shown: list[Parameter] = []
    for each in parameters:
        shown += _expanded(groups[each.name]) if each.name in groups else [_keyword(each)]
    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    run.__annotations__ = {}
    return run


def parsed(targets: list[str]) -> list[Target]:
    """Targets, each once."""
    from devices.target import Target

    return list(dict.fromkeys(map(Target.parse, targets)))


def named_tables(
    names: Sequence[str], space_options: SpaceOptions, bench_options: BenchOptions
) -> list[Content[NetworkModel]]:
    """Tables by files of ``lathe table export``, or by targets, for which the database is opened.

    Raises:
        typer.BadParameter: the options of a space are given, and all names are files.
        LatheError: a file cannot be read, or the database has no such table.
    """
    from pipeline.tables.exchange import read_table, table_file

    files = [table_file(name) for name in names]
    if all(files) and space_options != SpaceOptions():
        raise typer.BadParameter(
            "a file says itself which space it is of: leave out --space, --input, --classes"
        )
    return [
        _stored_table(name, space_options, bench_options) if file is None else read_table(file)
        for name, file in zip(names, files, strict=True)
    ]


def reporter() -> Reporter:
    """Progress on standard error."""
    from pipeline.progress import ConsoleReporter

    return ConsoleReporter()


def block_texts(space: Space) -> dict[str, str]:
    """What the space's blocks are, by identity."""
    return {block.identity: str(block) for block in space.distinct_blocks()}


def _stored_table(
    target: str, space_options: SpaceOptions, bench_options: BenchOptions
) -> Content[NetworkModel]:
    from pipeline.tables.building import load
    from pipeline.tables.documents import Content

    space = space_options.find()
    with bench_options.opened(must_exist=True) as bench:
        model = load(space, parsed([target])[0], bench).model
    return Content(model, space.description, block_texts(space))


def _expanded(kind: type[Any]) -> list[Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]


def _keyword(parameter: Parameter) -> Parameter:
    return parameter.replace(kind=Parameter.KEYWORD_ONLY)
