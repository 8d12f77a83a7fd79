"""What is wrong with a recipe, in words: the key, the value given, and the values that it may have."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from devices.words import count_of, listed

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "a path, as text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a table",
    "model": "a table",
}
"""What a value has to be, by the first word of pydantic's name for the error."""

_SAID = {"missing", "union_tag_not_found", "union_tag_invalid", "value_error", "too_short"}
"""Errors that say what is wrong, whatever else the value might have been."""


def explain(error: ValidationError, document: Mapping[str, Any], model: type[BaseModel]) -> list[str]:
    """One line for each wrong value of ``document``, which should have been a ``model``."""
    places: dict[tuple[str | int, ...], list[dict[str, Any]]] = {}
    for detail in (dict(each) for each in error.errors()):
        if not _follows_from_another(detail, document):
            places.setdefault(tuple(_steps(detail, document)), []).append(detail)
    # Where a part of a value is wrong, that says more than what else the whole might have been.
    parts = {steps[:length] for steps in places for length in range(len(steps))}
    return [_line(steps, each, document, model) for steps, each in places.items() if steps not in parts]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models inside an annotation such as ``tuple[Model, ...]`` or ``Model | None``."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


def model_of_kind(item: Any, models: Sequence[type[BaseModel]]) -> type[BaseModel] | None:
    """Of several models that one key may hold, the one that the item's ``kind`` names."""
    if len(models) < 2:
        return models[0] if models else None
    kind = item.get("kind") if isinstance(item, Mapping) else None
    return next((each for each in models if each.model_fields["kind"].default == kind), None)


def _line(
    steps: Sequence[str | int], details: Sequence[dict[str, Any]], document: Any, model: type[BaseModel]
) -> str:
    """What is wrong in one place: of a value that may be of several kinds, each says why it is not that."""
    where = ".".join(map(str, steps)) or "the recipe"
    detail = next((each for each in details if each["type"] in _SAID), details[0])
    context = detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            line = f"{where} is missing"
        case "union_tag_not_found":
            line = f"{where}.kind is missing"
        case "union_tag_invalid":
            line = f"{where}.kind is {context['tag']!r}; it must be one of {context['expected_tags']}"
        case "value_error":
            line = f"{where}: {context['error']}{_given(detail)}"
        case "too_short":
            entries = count_of(context["actual_length"], "entry")
            line = f"{where} has {entries}; it needs at least {context['min_length']}"
        case _:
            field = _field(steps, document, model)
            wanted = listed(dict.fromkeys(_wanted(each, field) for each in details), "or")
            line = f"{where} is {_shown(detail.get('input'))}; it must be {wanted}"
    return line


def _shown(value: Any) -> str:
    """A value as TOML writes it, or what kind of thing it is."""
    match value:
        case None:
            return "missing"
        case bool():
            return str(value).lower()
        case Mapping():
            return "a table"
        case list() | tuple():
            return "a list"
        case _:
            return repr(value)


def _wanted(detail: Mapping[str, Any], field: FieldInfo | None) -> str:
    kind, context = str(detail["type"]), detail.get("ctx", {})
    if kind == "literal_error":
        expected = str(context["expected"])
        return f"one of {expected}" if " or " in expected else expected
    if field is not None and field.description:
        return field.description
    if kind == "string_too_long":
        return f"text of at most {context['max_length']} characters"
    if kind == "string_too_short":
        return f"text of at least {context['min_length']} characters"
    if kind.startswith(("greater", "less", "finite", "int", "float")):
        whole = field is not None and "int" in str(field.annotation)
        return f"{'a whole number' if whole or kind.startswith('int') else 'a number'}{_range(field)}"
    words = _KINDS.get(kind.partition("_")[0])
    if words == "a list" and field is not None:
        words += " of tables" if models_in(field.annotation) else _as_list(detail.get("input"), field)
    message = str(detail["msg"])
    return words or f"{message[0].lower()}{message[1:]}"


def _as_list(value: Any, field: FieldInfo) -> str:
    """How a value that stands alone is written as a list; or text that was to be one, without quotes.

    Nothing for lists of a fixed length, where one value is too few.
    """
    open_ended = any(... in typing.get_args(part) for part in _parts(field.annotation))
    if not (open_ended and isinstance(value, str | int | float)) or isinstance(value, bool) or value == "":
        return ""
    text = str(value)
    entries = text[1:-1].split(",") if text.startswith("[") and text.endswith("]") else [text]
    return f", such as [{', '.join(_as_entry(each.strip()) for each in entries if each.strip())}]"


def _as_entry(text: str) -> str:
    try:
        float(text)
    except ValueError:
        return json.dumps(text)
    return text


def _range(field: FieldInfo | None) -> str:
    low = high = ""
    for limit in [] if field is None else _limits(field):
        match limit:
            case Ge(ge=value):
                low = f"from {value}"
            case Gt(gt=value):
                low = f"above {value}"
            case Le(le=value):
                high = f"to {value}" if low.startswith("from") else f"at most {value}"
            case Lt(lt=value):
                high = f"below {value}"
    if low.startswith("from") and not high:
        return f", {low.removeprefix('from ')} or more"
    return f" {low}{' and ' if low and high and not high.startswith('to') else ' '}{high}".rstrip()


def _limits(field: FieldInfo) -> Iterator[Any]:
    """What limits a value: of the key itself, and of the entries of a list or one of several types."""
    yield from field.metadata
    for part in _parts(field.annotation):
        if isinstance(part, FieldInfo):
            yield from part.metadata


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation and everything that it is made of."""
    yield annotation
    for part in typing.get_args(annotation):
        yield from _parts(part)


def _given(detail: Mapping[str, Any]) -> str:
    given = detail.get("input")
    return f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""


def _follows_from_another(detail: Mapping[str, Any], document: Any) -> bool:
    """A list whose entries are wrong counts as empty too; only one that is empty is said to be so."""
    if detail["type"] != "too_short":
        return False
    value = document
    for step in _steps(detail, document):
        value = value[step]
    return isinstance(value, Sequence) and len(value) >= detail["ctx"]["min_length"]


def _steps(detail: Mapping[str, Any], document: Any) -> Iterator[str | int]:
    """A place as the document has it: pydantic also names the kind of a value where there are several."""
    value, location = document, detail["loc"]
    for number, step in enumerate(location):
        inside = isinstance(value, Mapping) and step in value
        if isinstance(value, Sequence) and isinstance(step, int) and step < len(value):
            inside = True
        if inside:
            value = value[step]
            yield step
        elif number == len(location) - 1 and detail["type"] == "missing":
            yield step


def _field(steps: Sequence[str | int], document: Any, model: type[BaseModel]) -> FieldInfo | None:
    """The field of the model that a place belongs to."""
    field, value, inner = None, document, [model]
    for step in steps:
        if isinstance(step, str):
            holder = model_of_kind(value, inner)
            field = None if holder is None else holder.model_fields.get(step)
            inner = [] if field is None else models_in(field.annotation)
        known = isinstance(value, Mapping) and step in value
        value = value[step] if known or (isinstance(step, int) and isinstance(value, Sequence)) else None
    return field
