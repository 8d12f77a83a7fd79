"""The recipe: everything a run is asked to do, read from TOML and checked before anything starts."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from devices.untrusted import MOST_TOML_BYTES, file_bytes, toml_from
from devices.words import cause_of
from pipeline.data.config import DataConfig
from pipeline.distill.settings import DistillationSettings
from pipeline.errors import RecipeError
from pipeline.methods.subgraph.settings import PROPOSALS
from pipeline.recipe.explaining import explain, model_of_kind, models_in
from pipeline.recipe.methods import Method, refuse_losses, require_used
from pipeline.recipe.ratings import require_seen
from pipeline.recipe.sections import (
    CompileConfig,
    DnaConfig,
    ExportConfig,
    MeasureConfig,
    OracleConfig,
    SearchConfig,
    Section,
    SubgraphConfig,
    TargetConfig,
    VerifyConfig,
)
from pipeline.recipe.tasks import require_served
from pipeline.search.evaluators.registry import SHARED_WEIGHTS
from pipeline.spaces.mobile.config import SpaceConfig
from pipeline.teachers.config import TeacherConfig

_ORACLE_LOSS = [{"kind": "labels", "weight": 0.1}, {"kind": "oracle", "weight": 0.9}]
_DEFAULTS: dict[str, dict[str, Any]] = {
    "akd": {"search": {"strategy": "policy", "reevaluated": 5, "finalists": 3}},
    # A search of the few subgraphs that are proposed is over before there is anything to predict from.
    "subgraph": {
        "search": {
            "strategy": "evolution",
            "training": {"epochs": 1, "patience": 1, "learning_rate": 0.02},
        }
    },
    "oracle": {
        "search": {
            "strategy": "policy",
            "algorithm": "reinforce",
            "evaluator": SHARED_WEIGHTS,
            "evaluations": 200,
            "measure_every": 50,
            "reevaluated": 10,
        },
        "oracle": {"training": {"epochs": 60, "patience": 60, "loss": _ORACLE_LOSS}},
        "distil": {"loss": _ORACLE_LOSS},
    },
}
"""Keys that a method sets where the recipe does not."""
_IMITATION = {"loss": [{"kind": "soft_targets"}]}
"""The teacher's vectors alone, for embeddings."""


class Recipe(Section):
    """A whole run. Relative paths are taken from the recipe's own folder."""

    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
            max_length=100,
            description="a name of letters, digits, '_', '.' and '-'",
        ),
    ]
    method: Annotated[Method, BeforeValidator(refuse_losses)] = "search"
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    allow_chance: bool = False
    data: DataConfig
    teacher: tuple[TeacherConfig, ...] = Field(min_length=1)
    space: SpaceConfig | None = None
    target: tuple[TargetConfig, ...] = Field(min_length=1)
    measure: MeasureConfig = MeasureConfig()
    search: SearchConfig = SearchConfig()
    dna: DnaConfig = DnaConfig()
    subgraph: SubgraphConfig = SubgraphConfig()
    oracle: OracleConfig = OracleConfig()
    distil: DistillationSettings = DistillationSettings()
    export: ExportConfig = ExportConfig()
    compile: CompileConfig = CompileConfig()
    verify: VerifyConfig = VerifyConfig()

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_method(cls, document: Any) -> Any:
        if not isinstance(document, Mapping):
            return document
        method = str(document.get("method"))
        found = _completed(document, _DEFAULTS.get(method, {}))
        data = document.get("data")
        if isinstance(data, Mapping) and data.get("task") == "embedding":
            found = _completed(found, {"search": {"training": _IMITATION}, "distil": _IMITATION})
        if method == "subgraph":
            count = _number_of_proposals(document.get("subgraph"))
            found = _completed(found, {"search": {"evaluations": count, "population": max(2, count)}})
        return found

    @model_validator(mode="after")
    def _targets_differ(self) -> Recipe:
        names = [target.name for target in self.target]
        if len(set(names)) != len(names):
            raise ValueError(f"target names must differ, got {names}")
        return self

    @model_validator(mode="after")
    def _tables_are_of_the_method(self) -> Recipe:
        require_used(self)
        return self

    @model_validator(mode="after")
    def _shared_weights_are_there(self) -> Recipe:
        if self.search.evaluator == SHARED_WEIGHTS and self.method != "oracle":
            raise ValueError(f"the evaluator '{SHARED_WEIGHTS}' needs method = \"oracle\", which trains them")
        return self

    @model_validator(mode="after")
    def _task_is_served(self) -> Recipe:
        require_served(self)
        return self

    @model_validator(mode="after")
    def _candidates_are_evaluated(self) -> Recipe:
        search = self.search
        evaluates = search.minutes is not None or search.ratings not in ("auto", ())
        if self.method == "dna" and (evaluates or len(search.fidelities) > 1):
            raise ValueError(
                'method "dna" scores blocks and evaluates no candidates: remove search.minutes, '
                "search.ratings and search.fidelities"
            )
        return self

    @model_validator(mode="after")
    def _ratings_can_see_the_teacher(self) -> Recipe:
        require_seen(self)
        return self


EMBEDDED = (
    "quickstart",
    "quickstart-akd",
    "quickstart-dna",
    "quickstart-dfa",
    "quickstart-subgraph",
    "quickstart-oracle",
    "fashion-mnist",
    "cifar10",
)


def load_recipe(source: str | None, overrides: Sequence[str] = ()) -> tuple[Recipe, str]:
    """Read a recipe file, or an embedded recipe by its name (``quickstart`` if none is given).

    Args:
        source: path of a TOML file, or one of ``EMBEDDED``.
        overrides: ``key=value`` with dotted keys; ``target.0.budget=0.5x``, ``target.*.budget=0.5x``. Values
            are TOML where they parse as TOML and text otherwise.

    Returns:
        The recipe, and a text that makes it again from the same folder: that of the file, with its comments,
        and the overrides in it.

    Raises:
        RecipeError: the file cannot be read, or a key or value is wrong; names the nearest valid key.
    """
    name = source or "quickstart"
    if name in EMBEDDED:
        text, base = embedded_text(name), Path.cwd()
    else:
        text, base = _read(Path(name)), Path(name).absolute().parent
    try:
        document = toml_from(text)
    except ValueError as error:
        raise RecipeError(
            f"the recipe {name} is not valid TOML", why=cause_of(error), fix="correct that line"
        ) from error
    for override in overrides:
        _apply(document, override)
    recipe = parse_recipe(document, base)
    return recipe, _changed(text, overrides, document) if overrides else text


def _changed(text: str, overrides: Sequence[str], document: dict[str, Any]) -> str:
    """A recipe's text with overrides in it, so that it says what ``document`` does, where possible with its
    comments."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    with suppress(TOMLKitError):
        commented = tomlkit.parse(text)
        for override in overrides:
            _apply(commented, override)
        # Among dotted keys, tomlkit puts a table that replaces some of them where it means something else.
        if tomllib.loads(commented.as_string()) == document:
            return commented.as_string()
    return tomlkit.dumps(document)


def embedded_text(name: str) -> str:
    """Text of an embedded recipe, one of ``EMBEDDED``."""
    return resources.files("pipeline").joinpath("recipes", f"{name}.toml").read_text("utf-8")


def parse_recipe(document: Mapping[str, Any], base: Path) -> Recipe:
    """Check a recipe given as a dictionary; relative paths are taken from ``base``.

    Raises:
        RecipeError: all wrong keys and values in one message, each with its remedy.
    """
    problems = _unknown_keys(document, Recipe, "")
    if problems:
        raise RecipeError(
            "the recipe has keys that do not exist",
            why="\n     ".join(problems),
            fix="correct or remove them; docs/reference/recipes.md lists every key",
        )
    try:
        return Recipe.model_validate(document, context={"base": base})
    except ValidationError as error:
        lines = explain(error, document, Recipe)
        raise RecipeError(
            "the recipe is not valid",
            why="\n     ".join(lines),
            fix="correct these values; docs/reference/recipes.md lists every key with its type",
        ) from error


def _number_of_proposals(subgraph: Any) -> int:
    given = subgraph.get("proposals") if isinstance(subgraph, Mapping) else None
    return len(given) if isinstance(given, Sequence) and given else len(PROPOSALS)


def _completed(table: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The table with what it lacks of the defaults, also in the tables within."""
    found = dict(table)
    for key, default in defaults.items():
        given = found.setdefault(key, {} if isinstance(default, Mapping) else default)
        if isinstance(default, Mapping) and isinstance(given, Mapping):
            found[key] = _completed(given, default)
    return found


def _read(path: Path) -> str:
    try:
        return file_bytes(path, MOST_TOML_BYTES).decode("utf-8")
    except OSError as error:
        near = difflib.get_close_matches(str(path), EMBEDDED, n=1)
        hint = f"; did you mean the embedded recipe '{near[0]}'?" if near else ""
        raise RecipeError(
            f"the recipe {path} cannot be read",
            why=error.strerror or str(error),
            fix=f"give the path of a .toml file, or one of {', '.join(EMBEDDED)}{hint}",
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"the recipe {path} is not UTF-8 text", why=str(error)) from error
    except ValueError as error:
        raise RecipeError(f"the recipe {path} cannot be read", why=str(error)) from error


def _apply(document: dict[str, Any], override: str) -> None:
    key, separator, raw = override.partition("=")
    if not separator or not key.strip():
        raise RecipeError(f"--set {override} is not a key and a value", fix="write --set key=value")
    try:
        value = toml_from(f"value = {raw}")["value"]
    except ValueError:
        value = raw
    *parents, last = key.strip().split(".")
    for holder in _holders(document, parents, override):
        _assign(holder, last, value, override)


def _holders(node: Any, parents: Sequence[str], override: str) -> list[Any]:
    if not parents:
        return [node]
    first, *rest = parents
    if isinstance(node, list):
        chosen = node if first == "*" else [node[_index(node, first, override)]]
        return [holder for item in chosen for holder in _holders(item, rest, override)]
    if not isinstance(node, dict):
        raise RecipeError(f"--set {override}: '{first}' lies below a plain value", fix="shorten the key")
    return _holders(node.setdefault(first, {}), rest, override)


def _assign(holder: Any, last: str, value: Any, override: str) -> None:
    if isinstance(holder, list):
        holder[_index(holder, last, override)] = value
    elif isinstance(holder, dict):
        # A budget replaces the other form of it: the two exclude each other.
        for other in {"budget": ("budget_ms",), "budget_ms": ("budget",)}.get(last, ()):
            holder.pop(other, None)
        holder[last] = value
    else:
        raise RecipeError(f"--set {override}: the key lies below a plain value", fix="shorten the key")


def _index(items: list[Any], text: str, override: str) -> int:
    if text.isdigit() and int(text) < len(items):
        return int(text)
    raise RecipeError(
        f"--set {override}: '{text}' is not a position in a list of {len(items)}",
        fix=f"use 0{f' to {len(items) - 1}' if len(items) > 1 else ''}, or * for all",
    )


def _unknown_keys(document: Any, model: type[BaseModel], where: str) -> list[str]:
    if not isinstance(document, Mapping):
        return []
    problems = []
    for key, value in document.items():
        if key not in model.model_fields:
            near = difflib.get_close_matches(key, model.model_fields, n=1, cutoff=0.5)
            hint = f"; did you mean '{where}{near[0]}'?" if near else ""
            problems.append(f"'{where}{key}' is not a key{hint} (valid: {', '.join(model.model_fields)})")
            continue
        inner = models_in(model.model_fields[key].annotation)
        items = value if isinstance(value, list) else [value]
        for position, item in enumerate(items):
            step = f"{where}{key}.{position}." if isinstance(value, list) else f"{where}{key}."
            chosen = model_of_kind(item, inner)
            problems += _unknown_keys(item, chosen, step) if chosen is not None else []
    return problems
