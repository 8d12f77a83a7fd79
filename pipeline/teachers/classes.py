"""Which outputs of a teacher stand for which class of the data."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence

from pipeline.errors import TeacherError

Tell = Callable[[str], None]
ClassNames = Mapping[str, int | str | tuple[int | str, ...]]
Outputs = tuple[tuple[int, ...], ...]
"""For each class of the data, in order, the outputs that stand for it."""

_SHOWN = 5
_MOST_WRITTEN = 100


def outputs_of_classes(
    given: ClassNames | None,
    classes: Sequence[str],
    count: int,
    names: Sequence[str],
    *,
    teacher: str,
    tell: Tell,
) -> Outputs | None:
    """The outputs for each class of the data; ``None`` where output k stands for class k.

    Without a table, classes that the teacher calls by the data's names are found by these.

    Args:
        given: the recipe's table: an output, or several, by its number or its name, for each class.
        classes: of the data.
        count: of the teacher's outputs.
        names: of the teacher's outputs, if they have any.
        teacher: its name.
        tell: called with a line where the order was found by names.

    Raises:
        TeacherError: the table does not name every class once, or names outputs that are not there; there
            is no table, and the outputs are not those of the data.
    """
    if given is not None:
        return _plain(_as_given(given, classes, count, names, teacher), count)
    by_name = _by_name(classes, names)
    if by_name is not None:
        found = _plain(by_name, count)
        if found is not None:
            tell(f"teacher      '{teacher}' has the data's classes among its {count}; they are taken by name")
        return found
    if count != len(classes):
        raise TeacherError(
            f"the teacher '{teacher}' has {count} outputs, but the data have {len(classes)} classes",
            why=_not_these(classes, names),
            fix="say in [[teacher]] which output stands for which class, such as "
            f"{written({name: place for place, name in enumerate(classes[:_SHOWN])})}; or use the data it "
            "was trained on, or a network of one output per class that a [teacher.training] table trains",
        )
    if names:
        pairs = ", ".join(f"{a} for {b}" for a, b in zip(names[:_SHOWN], classes, strict=False))
        more = ", ..." if count > _SHOWN else ""
        tell(f"teacher      '{teacher}' has other names of classes; they are taken in order: {pairs}{more}")
    return None


def written(table: Mapping[str, int | str | Sequence[int | str]]) -> str:
    """A table as the key ``classes`` of a recipe."""
    entries = [f"{_quoted(name)} = {_value(each)}" for name, each in table.items()]
    more = ", ..." if len(entries) > _MOST_WRITTEN else ""
    return f"classes = {{ {', '.join(entries[:_MOST_WRITTEN])}{more} }}"


def _as_given(
    given: ClassNames, classes: Sequence[str], count: int, names: Sequence[str], teacher: str
) -> Outputs:
    strange, absent = [name for name in given if name not in classes], set(classes) - set(given)
    if strange or absent:
        near = difflib.get_close_matches(strange[0], classes, n=1) if strange else []
        raise TeacherError(
            f"'classes' of the teacher '{teacher}' does not name the classes of the data",
            why=f"'{strange[0]}' is none of them" + (f"; did you mean '{near[0]}'?" if near else "")
            if strange
            else f"'{min(absent)}' is missing",
            fix=f"name each class of the data once: {_some(classes)}",
        )
    found = tuple(
        tuple(_number(each, count, names, teacher) for each in _several(given[name])) for name in classes
    )
    each_once = [output for outputs in found for output in outputs]
    twice = next((each for each in each_once if each_once.count(each) > 1), None)
    if twice is not None:
        raise TeacherError(
            f"'classes' of the teacher '{teacher}' gives output {twice} to more than one class",
            fix="let each output stand for one class",
        )
    return found


def _number(output: int | str, count: int, names: Sequence[str], teacher: str) -> int:
    if isinstance(output, str):
        if output in names:
            return names.index(output)
        near = difflib.get_close_matches(output, names, n=1)
        raise TeacherError(
            f"the teacher '{teacher}' has no class '{output}'",
            why=(f"did you mean '{near[0]}'? " if near else "")
            + (f"it has {_some(names)}" if names else "its outputs have no names"),
            fix="correct 'classes' in [[teacher]], or give the number of the output, counted from 0",
        )
    if not 0 <= output < count:
        raise TeacherError(
            f"the teacher '{teacher}' has no output {output}",
            why=f"its outputs are 0 to {count - 1}",
            fix="correct 'classes' in [[teacher]]",
        )
    return output


def _by_name(classes: Sequence[str], names: Sequence[str]) -> Outputs | None:
    """The outputs with the names of the classes, if each has exactly one."""
    known = [_forms(name) for name in names]
    found = [[place for place, forms in enumerate(known) if _form(name) in forms] for name in classes]
    fitting = all(len(places) == 1 for places in found) and len({each[0] for each in found}) == len(classes)
    return tuple((places[0],) for places in found) if fitting and names else None


def _forms(name: str) -> set[str]:
    """A name, and the synonyms that ImageNet's names list."""
    return {_form(name), *map(_form, name.split(","))}


def _form(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _plain(outputs: Outputs, count: int) -> Outputs | None:
    return None if outputs == tuple((place,) for place in range(count)) else outputs


def _several(value: int | str | tuple[int | str, ...]) -> tuple[int | str, ...]:
    return value if isinstance(value, tuple) else (value,)


def _not_these(classes: Sequence[str], names: Sequence[str]) -> str:
    if not names:
        return "its outputs have no names by which the data's classes could be found"
    known = {form for name in names for form in _forms(name)}
    absent = [name for name in classes if _form(name) not in known]
    if not absent:
        return "several of its classes have the name of one of the data's"
    return f"it has {_some(names)}, and none is called {_some(absent)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _quoted(text: str) -> str:
    plain = text.replace("_", "").replace("-", "")
    if plain.isascii() and plain.isalnum():
        return text
    return json.dumps(text, ensure_ascii=False)


def _value(value: int | str | Sequence[int | str]) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return _value(value[0]) if len(value) == 1 else f"[{', '.join(map(_value, value))}]"
