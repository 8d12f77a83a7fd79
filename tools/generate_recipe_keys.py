"""Writes docs/reference/recipe-keys.md from what a recipe may say; run it with .venv/bin/python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.recipe.loading import Recipe

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference" / "recipe-keys.md"

HEAD = """# Recipe keys

This page is generated from the code by `tools/generate_recipe_keys.py`. It lists every key as `--set` takes
it, with the values that it may have; `*` stands for an entry of a list. [Recipes](recipes.md) says what the
keys mean.

| key | values | default |
| --- | --- | --- |
"""
BOUNDS = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
}
KINDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "`true`, `false`",
    "object": "table",
    "string": "text",
}


def keys() -> str:
    """The whole page."""
    schema = Recipe.model_json_schema()
    return HEAD + "".join(dict.fromkeys(_rows(schema, schema["$defs"], "", {})))


def _rows(model: dict[str, Any], models: dict[str, Any], path: str, unset: dict[str, Any]) -> Iterator[str]:
    """A row for each key of a model and below it; ``unset`` is what the model is where it is left out."""
    kind = model["properties"].get("kind", {}).get("const")
    for name, key in model["properties"].items():
        value = unset.get(name, key.get("default"))
        below = list(_models(key, models))
        for inner, listed in below:
            whole = value if isinstance(value, dict) and not listed else {}
            yield from _rows(inner, models, f"{path}{name}.{'*.' if listed else ''}", whole)
        if not below:
            only = f" (kind `{kind}`)" if kind and name != "kind" else ""
            default = "required" if name in model.get("required", ()) else _default(value)
            if "const" not in key:
                yield f"| `{path}{name}`{only} | {_values(key)} | {default} |\n"
            else:
                yield f"| `{path}{name}` | `{json.dumps(key['const'])}` | required |\n"


def _models(key: dict[str, Any], models: dict[str, Any]) -> Iterator[tuple[dict[str, Any], bool]]:
    """The models that a key may hold, and whether it lists them."""
    if "$ref" in key:
        yield models[key["$ref"].rpartition("/")[2]], False
    for listed in [key["items"]] if isinstance(key.get("items"), dict) else []:
        yield from ((model, True) for model, _ in _models(listed, models))
    for choice in [*key.get("anyOf", ()), *key.get("oneOf", ())]:
        yield from _models(choice, models)


def _values(key: dict[str, Any]) -> str:
    choices = [choice for choice in key.get("anyOf", ()) if choice.get("type") != "null"]
    if choices:
        return " or ".join(map(_values, choices))
    if "enum" in key:
        return ", ".join(f"`{json.dumps(value)}`" for value in key["enum"])
    bounds = [f"{words} {key[bound]}" for bound, words in BOUNDS.items() if bound in key]
    if key.get("type") == "array":
        return f"list of: {_values(key['items'])}" if isinstance(key.get("items"), dict) else "list"
    name = "path" if key.get("format") == "path" else KINDS[key["type"]]
    return ", ".join([name, *bounds])


def _default(value: Any) -> str:
    return "none" if value is None else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    TARGET.write_text(keys(), "utf-8")
