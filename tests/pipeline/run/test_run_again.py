"""What runs again after a change: for every field of a recipe, and for everything else that decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from devices.target import Target
from pipeline.recipe.beginnings import deciding
from pipeline.recipe.loading import Recipe, parse_recipe
from pipeline.run import run
from pipeline.stages.latency.targets import OutputsPlace
from pipeline.stages.searching.proposals import Proposals, Proposed, propose_subgraphs
from pipeline.work.folder import WorkFolder
from pipeline.work.stage import StageFolder
from tests.pipeline.run.conftest import Lathe
from tests.pipeline.run.made_up_run import Quiet
from tests.pipeline.run.made_up_stages import DEVICE, RUNTIME, STAGES

TARGET = "board/onnxruntime:fp32@1"
STAGE = {"widths": [8, 12], "depths": [1, 2], "kernels": [3], "expansions": [2, 3]}
BLOCK = {"cells": [{"depth": 1, "width": 8}], "kernels": [3], "expansions": [2, 3]}
DOCUMENT: dict[str, Any] = {
    "name": "made-up",
    "data": {"kind": "npz", "path": "data.npz"},
    "teacher": [{"kind": "factory", "factory": "a:b", "weights": "weights.pt"}],
    "space": {"stem_width": 8, "head_width": 16, "stages": [STAGE]},
    "target": [{"name": TARGET, "budget_ms": 1000}],
}
OF_ONE_METHOD: dict[str, dict[str, Any]] = {
    "dna": {"space": {"stem_width": 8, "head_width": 16, "blocks": [BLOCK, BLOCK]}},
    "subgraph": {},
    "oracle": {},
}
"""Tables that only the method of their name has."""

SHOWN = {"report", "bundle"}
SEARCHED_FIRST = {"mixtures"}  # where a loss asks for it
REHEARSED = {"rehearse"}  # where a budget is relative
VERIFIED = {"verify", *SHOWN}
EXPORTED = {"export", *SHOWN}
SHIPPED = {"export", "compile", *VERIFIED}
SEARCHED = {"known", "search", *SHOWN}
TAUGHT = {"teacher", "table", "distil", *SEARCHED, *SHIPPED}
MEASURED = {"table", "feasibility", *SEARCHED}

# Fields of the recipe, the longest prefix that fits counts, and the stages that run again.
FIELDS: dict[str, set[str]] = {
    "name": SHOWN,
    "allow_chance": set(),
    "method": SEARCHED,
    "seed": {"data", *TAUGHT},
    "data": {"data", *TAUGHT},
    "teacher": TAUGHT,
    "space": {"space", "distil", *MEASURED, *SHIPPED},
    "target.name": MEASURED | SHIPPED,
    "target.budget": {"feasibility", *REHEARSED, *SEARCHED, *VERIFIED},
    "target.budget_ms": {"feasibility", *SEARCHED, *VERIFIED},
    "measure.launches": MEASURED,
    "measure.calibration_networks": {"feasibility", *SEARCHED},
    "search": SEARCHED,
    "search.executor": set(),
    "search.cpus": set(),
    "search.gpus": set(),
    "search.reevaluated": {"search", *SHOWN},
    "search.ratings": {"search", *SHOWN},
    "search.minutes": {"search", *SHOWN},
    "search.supernet": set(),  # where no rating has one
    "search.finalists": set(),
    "search.rounds": set(),
    "distil": {"distil", *SHIPPED},
    "export": EXPORTED,
    "compile": set(),
    "compile.choose": {"compile"},  # and what follows, where another file comes out
    "verify.candidates": SEARCHED,
    "verify.launches": VERIFIED,
    "verify.unmeasured": set(),
}
BLOCKS = {"block-training", "block-scores"}
OF_DNA = {"cut", "scores", *BLOCKS}
SELECTED = {"scores", *SEARCHED}
FIELDS_OF_DNA: dict[str, set[str]] = FIELDS | {
    "seed": {"data", "cut", "scores", *BLOCKS, *TAUGHT},
    "data": {"data", "cut", "scores", *BLOCKS, *TAUGHT},
    "teacher": {"cut", "scores", *BLOCKS, *TAUGHT},
    "space": set(),
    "search": set(),
    "search.reevaluated": set(),
    "search.evaluations": SEARCHED,
    "dna.cuts": {"cut", *BLOCKS, *SELECTED},
    "dna.space": {"space", "distil", *BLOCKS, *SELECTED, *MEASURED, *SHIPPED},
    "dna.training": BLOCKS | SELECTED,
    "dna.training.measure": {"block-scores", *SELECTED},
    "dna.training.recalibrate": {"block-scores", *SELECTED},
    "dna.training.score_images": {"block-scores", *SELECTED},
    "dna.training.calibration_images": {"block-scores", *SELECTED},
    "dna.workers": set(),
}
OF_SUBGRAPH = {"structures", "importance", "proposals"}
PROPOSED = {"proposals", *SEARCHED}
CUT_ANEW = {*OF_SUBGRAPH, "space", "distil", *MEASURED, *SHIPPED}
FIELDS_OF_SUBGRAPH: dict[str, set[str]] = FIELDS | {
    "search.ratings": set(),  # none by default
    "seed": {"data", "teacher", *CUT_ANEW},
    "data": {"data", "teacher", *CUT_ANEW},
    "teacher": {"teacher", *CUT_ANEW},
    "space": set(),
    "target.name": {"proposals", *MEASURED, *SHIPPED},
    "target.budget": {"feasibility", *REHEARSED, *PROPOSED, *VERIFIED},
    "target.budget_ms": {"feasibility", *PROPOSED, *VERIFIED},
    "measure.launches": {"proposals", *MEASURED},
    "measure.calibration_networks": {"feasibility", *PROPOSED},
    "subgraph.most_blocks": CUT_ANEW,
    "subgraph.proposals": PROPOSED,
    "subgraph.selection": PROPOSED,
    "subgraph.weights": {"space", "distil", "proposals", *MEASURED, *SHIPPED},
}
OF_INT8 = {"quantise"}
OF_ORACLE = {"shared"}
SHARED = {*OF_ORACLE, *SEARCHED}
FIELDS_OF_ORACLE: dict[str, set[str]] = FIELDS | {
    "search.ratings": set(),  # none by default
    "seed": {"data", "shared", *TAUGHT},
    "data": {"data", "shared", *TAUGHT},
    "teacher": {"shared", *TAUGHT},
    "space": set(),
    "search.reward": SHARED,
    "search.algorithm": set(),  # REINFORCE is the method's default already
    "oracle.space": {"space", "shared", "distil", *MEASURED, *SHIPPED},
    "oracle.training": SHARED,
    "oracle.max_parameters": SEARCHED,
    "oracle.reward_images": SEARCHED,
}
OTHER_VALUES: dict[str, Any] = {
    "name": "other",
    "method": "akd",
    "data.kind": "mnist",
    "data.path": Path("other/data.npz"),
    "data.train_limit": 3,
    "data.test_limit": 3,
    "data.image_size": 4,
    "data.background": [0, 0, 0],
    "data.broken": "skip",
    "teacher.factory": "a:c",
    "teacher.model": "other",
    "teacher.arguments": {"deep": True},
    "teacher.weights": Path("other/weights.pt"),
    "teacher.weights_key": "state_dict_ema",
    "teacher.path": Path("graph.pt2"),
    "teacher.training": {"epochs": 3},
    "distil.colour": 0.2,
    "distil.rand_augment": (2, 9),
    "distil.mixup": 0.2,
    "distil.cutmix": 1.0,
    "search.training.colour": 0.2,
    "search.training.rand_augment": (2, 9),
    "search.training.mixup": 0.2,
    "search.training.cutmix": 1.0,
    "oracle.training.colour": 0.2,
    "oracle.training.rand_augment": (2, 9),
    "oracle.training.mixup": 0.2,
    "oracle.training.cutmix": 1.0,
    "teacher.resize": 4,
    "teacher.channels": 3,
    "teacher.mean": (0.5,),
    "teacher.std": (0.5,),
    "teacher.classes": {"a": 1, "b": 0},
    "space.preset": "mobile",
    "space.stages": [STAGE | {"kernels": [3, 5]}],
    "target.name": "other/onnxruntime:fp32@1",
    "target.budget": "0.5x",
    "target.budget_ms": 900,
    "dna.cuts": ("a", "b"),
    "dna.space": {"stem_width": 16, "head_width": 16, "blocks": [BLOCK, BLOCK]},
    "oracle.space": {"width": 4, "stages": 2, "depth": 1},
    "oracle.training.threads": 2,
    "oracle.training.loss": [{"kind": "labels"}],
    "oracle.max_parameters": 10**9,
    "search.ahead": 2,
    "search.minutes": 5.0,
    "search.evaluator": "other",
    "search.executor": "processes:1",
    "search.cpus": 2.0,
    "search.gpus": 1.0,
    "search.train_limit": 5,
    "search.ratings": (),
    "search.supernet.train_limit": 5,
    "search.supernet.threads": 2,
    "search.reevaluated": 3,
    "search.training.threads": 2,
    "distil.threads": 2,
    "subgraph.selection.threads": 2,
    "subgraph.proposals": ("importance",),
    "search.training.loss": [{"kind": "labels"}],
    "distil.loss": [{"kind": "soft_targets", "temperature": 2.0}],
}
# Keys that a recipe sets together: what else changes with them.
TOGETHER = {
    "space.preset": {"space": {"preset": "mobile"}},
    "search.fidelities": {"search": {"strategy": "predictor", "fidelities": [0.5, 1.0]}},
    "search.cpus": {"search": {"executor": "ray", "ahead": 1, "cpus": 2.0}},
    "search.gpus": {"search": {"executor": "ray", "ahead": 1, "gpus": 1.0}},
    "target.budget": {"target": [{"name": TARGET, "budget": "0.5x"}]},
    "teacher.kind": {"teacher": [{"kind": "train"}]},
    "teacher.width": {"teacher": [{"kind": "train", "width": 9}]},
    "teacher.depth": {"teacher": [{"kind": "train", "depth": 3}]},
    "teacher.members": {"teacher": [{"kind": "train", "members": 2}]},
    "teacher.model": {"teacher": [{"kind": "timm", "model": "other"}]},
    "teacher.path": {"teacher": [{"kind": "pt2", "path": "graph.pt2"}]},
    "teacher.mean": {"teacher": [DOCUMENT["teacher"][0] | {"mean": [0.5], "std": [0.5]}]},
    "teacher.std": {"teacher": [DOCUMENT["teacher"][0] | {"mean": [0.5], "std": [0.4]}]},
}


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a recipe with its default, tables opened; those that may be left out count as one."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if get_origin(inner) is tuple and isinstance(get_args(inner)[0], type):
            inner = get_args(inner)[0]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from fields_of(inner, f"{prefix}{name}.")
        elif name == "space" and not prefix:
            config = next(each for each in get_args(inner) if each is not type(None))
            yield from fields_of(config, f"{name}.")
        else:
            default = field.get_default(call_default_factory=True)
            yield f"{prefix}{name}", (field.annotation, default)


def other_value(path: str, annotation: Any, default: Any) -> Any:
    """A valid value unlike the default."""
    if path in OTHER_VALUES:
        return OTHER_VALUES[path]
    if get_origin(annotation) is Literal:
        return next(each for each in get_args(annotation) if each != default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return default * 0.5
    if annotation is int or "width" in path:
        return 24
    raise AssertionError(f"{path} has no other value here: add it to OTHER_VALUES")


def document_of(method: str) -> dict[str, Any]:
    return (
        DOCUMENT
        | {"method": method}
        | {name: OF_ONE_METHOD[name] for name in OF_ONE_METHOD if name == method}
    )


def changed(base: dict[str, Any], path: str, annotation: Any, default: Any) -> dict[str, Any]:
    """The document with one field changed."""
    if path in TOGETHER:
        return base | TOGETHER[path]
    first, *rest = path.split(".")
    if not rest:
        return base | {first: other_value(path, annotation, default)}
    held = base.get(first, {})
    table = dict(held[0] if isinstance(held, list) else held)
    place = table
    for name in rest[:-1]:
        place[name] = dict(place.get(name, {}))
        place = place[name]
    value = other_value(path, annotation, default)
    place[rest[-1]] = str(value) if isinstance(value, Path) else value
    return base | {first: [table] if isinstance(held, list) else table}


PATHS = dict(fields_of(Recipe))


def expected(table: dict[str, set[str]], path: str) -> set[str]:
    fitting = [prefix for prefix in table if f"{path}.".startswith(f"{prefix}.")]
    assert fitting, f"{path} is a new field: say in FIELDS which stages run again when it changes"
    return table[max(fitting, key=len)]


# Of every method its table, and the stages that it does not have.
OF_SOME = SEARCHED_FIRST | OF_INT8
NOT_IN_SEARCH = OF_SOME | OF_DNA | OF_SUBGRAPH | OF_ORACLE
OF_METHOD = {
    "search": (FIELDS, NOT_IN_SEARCH),
    "dna": (FIELDS_OF_DNA, OF_SOME | OF_SUBGRAPH | OF_ORACLE | {"known"}),
    "subgraph": (FIELDS_OF_SUBGRAPH, OF_SOME | OF_DNA | OF_ORACLE),
    "oracle": (FIELDS_OF_ORACLE, OF_SOME | OF_DNA | OF_SUBGRAPH),
}


REFUSED = {
    "dna": ("search.minutes", "search.ratings", "search.fidelities", "data.task"),
    "oracle": (
        "data.task",
        "search.fidelities",
        *(f"{place}.{kind}" for place in ("distil", "oracle.training") for kind in ("mixup", "cutmix")),
    ),
}
"""Keys that a method has no use for, and refuses."""


@pytest.mark.slow
@pytest.mark.parametrize("method", OF_METHOD)
def test_a_changed_field_of_a_recipe_makes_exactly_its_stages_run_again(
    lathe: Lathe, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """And one that stages are not begun for decides nothing of what they leave while they work."""
    base = document_of(method)
    table, others = OF_METHOD[method]
    begun: dict[str, Any] = {}

    def begin(folder: Path, asked: Any, beginnings: str, *, anew: bool) -> None:
        begun[beginnings] = asked

    monkeypatch.setattr("pipeline.work.folder.begin", begin)
    assert lathe.again(base) == set(STAGES) - others - REHEARSED
    assert lathe.again(base) == set()
    before, asked = set(begun), deciding(parse_recipe(base, lathe.folder))
    wrong = {}
    for path, (annotation, default) in PATHS.items():
        if (path == "method" and method != "search") or path in REFUSED.get(method, ()):
            continue
        if path.partition(".")[0] in OF_ONE_METHOD.keys() - {method}:
            continue
        begun.clear()
        found = lathe.again(changed(base, path, annotation, default))
        wanted = expected(table, path) - others
        if found != wanted:
            wrong[path] = found ^ wanted
        if asked in begun.values():
            assert begun.keys() <= before, f"{path} decides how stages begin"
    assert not wrong


def test_a_target_in_int8_is_quantised_again_for_what_decides_it(lathe: Lathe) -> None:
    def document(**settings: Any) -> dict[str, Any]:
        targets = [{"name": f"board/onnxruntime:{each}@1", "budget_ms": 1000} for each in ("fp32", "int8")]
        return DOCUMENT | {"target": targets, "compile": settings}

    assert "quantise" in lathe.again(document())
    assert lathe.again(document(max_drop=1.0)) == {"quantise"}
    assert lathe.again(document(fine_tuning_epochs=1)) == {"quantise"}
    assert lathe.again(document(calibration_images=5)) == {"quantise", "compile", *VERIFIED}
    # Only the target in int8 was compiled again.
    compiled = [each for each in lathe.run(document(calibration_images=6)).stages if each.name == "compile"]
    assert [each.cached for each in compiled] == [True, False]


def test_mixtures_are_searched_again_for_what_decides_them(lathe: Lathe) -> None:
    def document(weight: float = 1.0, epochs: int = 9, **training: Any) -> dict[str, Any]:
        loss = {"kind": "feature_aggregation", "weight": weight, "search": {"epochs": epochs}}
        return DOCUMENT | {"distil": {"loss": [loss], **training}}

    trained = {"distil", *SHIPPED}
    assert "mixtures" in lathe.again(document())
    assert lathe.again(document(weight=2.0)) == lathe.again(document(learning_rate=0.01)) == trained
    assert lathe.again(document(epochs=8)) == lathe.again(document(augment="crop")) == {"mixtures", *trained}
    two = DOCUMENT | {
        "distil": {"loss": [*document()["distil"]["loss"], *document(epochs=7)["distil"]["loss"]]}
    }
    first, second = lathe.run(two).to_json()["winner"]["mixtures"]
    assert first != second
    (group,) = first
    assert group.keys() == {"size", "student_layer", "shares"}
    assert sum(group["shares"].values()) == pytest.approx(1)


def test_every_field_of_a_recipe_is_looked_at() -> None:
    assert {path.partition(".")[0] for path in PATHS} == set(Recipe.model_fields)
    assert {"distil.loss", "search.training.epochs", "dna.training.inputs", "space.stem_width"} <= set(PATHS)


ELSE: dict[str, tuple[dict[str, Any], set[str]]] = {
    "runtime version": ({"runtime": replace(RUNTIME, version="2")}, MEASURED | SHIPPED),
    "runtime binary": ({"runtime": replace(RUNTIME, binary_digest="11")}, MEASURED | SHIPPED),
    "runtime options": ({"runtime": replace(RUNTIME, options=("x",))}, MEASURED | SHIPPED),
    "where outputs are taken": (
        {"elsewhere": OutputsPlace(Target("host", "litert"), RUNTIME, DEVICE)},
        {"export", "verify", "report", "bundle"},
    ),
    "another board of one name": ({"device": replace(DEVICE, instance="there")}, MEASURED | SHIPPED),
    "processor": ({"device": replace(DEVICE, cpu="another")}, MEASURED | SHIPPED),
    "accelerator": ({"device": replace(DEVICE, accelerator="gpu")}, MEASURED | SHIPPED),
    "kernel": ({"device": replace(DEVICE, kernel="7")}, MEASURED | SHIPPED),
    "protocol": ({"protocol": {"min_count": 51}}, MEASURED | VERIFIED),
    "exporter": ({"exporter": "2"}, MEASURED | SHIPPED),
    "text of the recipe": ({"text": "other"}, SHOWN),
    "version of Lathe": ({"versions": {"lathe-deploy": "2"}}, set(STAGES) - NOT_IN_SEARCH - REHEARSED),
}


@pytest.mark.parametrize("what", ELSE)
def test_another_identity_makes_exactly_its_stages_run_again(lathe: Lathe, what: str) -> None:
    changes, stages = ELSE[what]
    lathe.again(DOCUMENT)
    for name, value in changes.items():
        setattr(lathe, name, value)
    assert lathe.again(DOCUMENT) == stages
    assert lathe.again(DOCUMENT) == set()


@pytest.mark.parametrize(
    ("file", "stages"), [("data.npz", {"data", *TAUGHT}), ("weights.pt", TAUGHT)], ids=["data", "weights"]
)
def test_another_content_of_a_file_makes_exactly_its_stages_run_again(
    lathe: Lathe, file: str, stages: set[str]
) -> None:
    lathe.again(DOCUMENT)
    (lathe.folder / file).write_text("changed")
    assert lathe.again(DOCUMENT) == stages


@pytest.mark.parametrize("changed", ["my_factory_of_teachers.py", "my_layers_of_teachers.py"])
def test_another_code_of_a_factory_or_of_what_it_imports_makes_its_teacher_again(
    lathe: Lathe, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    (lathe.folder / "my_factory_of_teachers.py").write_text("import my_layers_of_teachers\n")
    (lathe.folder / "my_layers_of_teachers.py").write_text("one = 1\n")
    monkeypatch.syspath_prepend(str(lathe.folder))
    document = DOCUMENT | {"teacher": [DOCUMENT["teacher"][0] | {"factory": "my_factory_of_teachers:b"}]}
    lathe.again(document)
    (lathe.folder / changed).write_text("import my_layers_of_teachers\ntwo = 2\n")
    assert lathe.again(document) == TAUGHT


def test_the_proposal_that_is_trained_first_is_told(lathe: Lathe) -> None:
    def reference(given: Any, folder: StageFolder, services: Any) -> Proposals:
        return Proposals((Proposed("mixed", given.predictors.space.reference(), 1.0),))

    told = Quiet()
    recipe = parse_recipe(DOCUMENT | {"method": "subgraph"}, lathe.folder)
    made_up = propose_subgraphs.function
    object.__setattr__(propose_subgraphs, "function", reference)
    try:
        run(recipe, lathe.text, WorkFolder(lathe.folder / "work"), str(lathe.folder / "l.db"), told)
    finally:
        object.__setattr__(propose_subgraphs, "function", made_up)
    assert "             the first to be trained was proposed by 'mixed'" in told.notes
