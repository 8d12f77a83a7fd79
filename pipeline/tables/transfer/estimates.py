"""Estimates of a target as a file of their own kind, which is never taken for a table."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from latency_db.errors import EstimateError
from latency_db.few_shot import TransferredModel
from pipeline.tables.exchange.documents import Content, Document

_ESTIMATES = Document(
    "lathe-estimates",
    1,
    "a file of estimates",
    "lathe table transfer --save",
    TypeAdapter(TransferredModel),
)


def write_estimates(
    path: Path, model: TransferredModel, space: dict[str, object], blocks: dict[str, str]
) -> None:
    """Write a model, the description of its space, and what its blocks are, by identity.

    Raises:
        EstimateError, WorkFolderError: as of ``check_place``, or the file cannot be written.
    """
    check_place(path)
    _ESTIMATES.write(path, Content(model, space, blocks))


def read_estimates(path: Path) -> TransferredModel:
    """The model of a file that ``write_estimates`` wrote.

    Raises:
        EstimateError: the file is missing, too long, damaged, of another version, or something else.
    """
    return _ESTIMATES.read(path).model


def check_place(path: Path) -> None:
    """Check that estimates may be written here: over older estimates at most, never over measurements.

    Raises:
        EstimateError: there is no such folder, or something else has the name.
    """
    if not path.parent.is_dir():
        raise EstimateError(f"there is no folder '{path.parent}'", fix="make it, or save somewhere else")
    if path.exists():
        try:
            read_estimates(path)
        except EstimateError as error:
            raise EstimateError(
                f"'{path}' is there already, and holds something else than estimates",
                why=error.why,
                fix="save under another name: nothing else is written over",
            ) from error
