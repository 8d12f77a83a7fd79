"""The tables that a new target is estimated from: of the database, or files of ``lathe table export``."""

from __future__ import annotations

from collections.abc import Iterable

from devices.measuring import probe
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.models import NetworkModel
from latency_db.store import kind_of_device
from pipeline.spaces.base import Space
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.space_table import load
from pipeline.tables.exchange.table_file import read_table, table_file


def source_models(space: Space, names: Iterable[str], target: Target, bench: Bench) -> list[NetworkModel]:
    """Tables with their network models, of targets or of files.

    Targets are looked up as they are now, so they must be reachable; files need nothing.

    Args:
        space: whose blocks they must have.
        names: targets, or paths of files.
        target: which is new, and must not be among them.
        bench: where tables are looked up.

    Raises:
        EstimateError: a table is not there, cannot be read, lacks blocks, or is the target's own.
        TargetError, MeasurementError: a name is neither, or a target cannot be reached.
    """
    models = [_model(space, name, target, bench) for name in dict.fromkeys(names)]
    runtime, device = probe(target)
    for model in models:
        key = model.table.key
        if key is not None and (key.runtime, key.device) == (runtime, kind_of_device(device)):
            why = f"that of {model.table.target} has the same runtime on the same kind of device"
            raise _own_table(target, why)
    return models


def _model(space: Space, name: str, target: Target, bench: Bench) -> NetworkModel:
    path = table_file(name)
    if path is not None:
        model = read_table(path).model
        lacking = [block for block in space.distinct_blocks() if not _holds(model, block.identity)]
        if lacking:
            raise EstimateError(
                f"'{name}' lacks {len(lacking)} of the {len(space.distinct_blocks())} blocks of the space",
                why=f"it has no {lacking[0]}: it is of another space, input or number of classes",
                fix="name a file that 'lathe table export' wrote for this space",
            )
        return model
    source = Target.parse(name)
    if source == target:
        raise _own_table(target, "it stands among the sources")
    return load(space, source, bench).model


def _own_table(target: Target, why: str) -> EstimateError:
    return EstimateError(
        f"{target} cannot be estimated from its own table",
        why=why,
        fix="use that table itself, as 'lathe table show' does, or name other sources",
    )


def _holds(model: NetworkModel, block: str) -> bool:
    return block in model.table.rows or block in model.table.failed
