"""What a table is asked for: a space, by name or by what is written of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from devices.untrusted import regular_size
from latency_db.errors import EstimateError
from pipeline.errors import RecipeError
from pipeline.spaces.add_on.config import AddOnSpaceConfig
from pipeline.spaces.add_on.space import AddOnSpace
from pipeline.spaces.base import Space
from pipeline.spaces.mobile.config import MobileSpaceConfig, Preset, SpaceConfig
from pipeline.spaces.mobile.space import MobileSpace

_SHAPE = re.compile(r"(?:(?P<channels>[1-9]\d{0,3})x)?(?P<height>[1-9]\d{0,3})x(?P<width>[1-9]\d{0,3})")

_OF_TEACHER = ("subgraph", "dna")
"""Methods whose spaces are made from the teacher."""


def find_space(name: str, shape: str, classes: int) -> Space:
    """The space of a name: ``mobile`` or ``akd``, or a recipe file whose space it is.

    Args:
        name: of the space, or path of a TOML recipe.
        shape: of the input, as ``32x32`` or ``1x28x28``; 3 channels unless given.
        classes: number of logits.

    Raises:
        RecipeError: there is no such space or file, the shape cannot be read, or the recipe's space is made
            from its teacher.
    """
    match = _SHAPE.fullmatch(shape)
    if match is None or classes < 1:
        raise RecipeError(
            f"no space has inputs of '{shape}' and {classes} classes",
            fix="write the input as HEIGHTxWIDTH or CHANNELSxHEIGHTxWIDTH, for example 32x32",
        )
    size = (int(match["channels"] or 3), int(match["height"]), int(match["width"]))
    if name in get_args(Preset):
        return MobileSpace.from_config(SpaceConfig.model_validate({"preset": name}), size, classes)
    try:
        regular_size(Path(name))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"there is no space '{name}'",
            why="it is neither a known space nor a file",
            fix="write mobile or akd, or the path of a recipe whose [space] is meant",
        ) from error
    from pipeline.recipe.loading import load_recipe

    recipe, _ = load_recipe(name, [])
    if recipe.method in _OF_TEACHER:
        raise RecipeError(
            f"the space of {name} cannot be made from the recipe alone",
            why=f'its method is "{recipe.method}", which makes its space from the teacher',
            fix=f"run 'lathe run {name}', which builds this table, or name mobile, akd or another recipe",
        )
    if recipe.method == "oracle":
        return AddOnSpace(recipe.oracle.space or AddOnSpaceConfig.for_input(size), size, classes)
    return MobileSpace.from_config(recipe.space, size, classes)


def space_of(description: Mapping[str, object]) -> Space:
    """The space that says this of itself (``Space.description``).

    Raises:
        EstimateError: it is of another kind than ``mobile`` and ``add_on``, of another version, or damaged.
    """
    try:
        if description.get("space") == "add_on":
            added = _AddOnDescription.model_validate(description)
            return AddOnSpace(added.config, added.input_shape, added.classes)
        known = _MobileDescription.model_validate(description)
    except ValidationError as error:
        first = error.errors()[0]
        raise EstimateError(
            f"a space '{description.get('space')}' cannot be made from what is written of it",
            why=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            fix="use the table of the database, or the version of Lathe that wrote the file",
        ) from error
    return MobileSpace(known.config, known.input_shape, known.classes)


class _Description(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    classes: PositiveInt


class _MobileDescription(_Description):
    space: Literal["mobile"]
    config: MobileSpaceConfig


class _AddOnDescription(_Description):
    space: Literal["add_on"]
    config: AddOnSpaceConfig
