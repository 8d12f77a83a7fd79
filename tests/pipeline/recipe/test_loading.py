from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RecipeError
from pipeline.recipe.loading import EMBEDDED, embedded_text, load_recipe, parse_recipe
from pipeline.recipe.ratings import ratings_of
from pipeline.recipe.sections import SearchConfig
from pipeline.search.evaluators.registry import UNTRAINED


def _minimal() -> dict[str, Any]:
    return {
        "name": "demo",
        "data": {"kind": "digits"},
        "teacher": [{"kind": "train"}],
        "target": [{"name": "host/litert:fp32@1", "budget": "0.6x"}],
    }


@pytest.mark.parametrize("name", EMBEDDED)
def test_load_recipe_reads_every_embedded_recipe(name: str) -> None:
    recipe, text = load_recipe(name)
    assert recipe.name == name
    assert text.startswith("# ")


def test_load_recipe_reads_the_quickstart_when_none_is_named() -> None:
    assert load_recipe(None)[0].name == "quickstart"


def test_load_recipe_takes_relative_paths_from_the_recipes_folder(tmp_path: Path) -> None:
    recipe = tmp_path / "my recipe.toml"
    recipe.write_text(
        'name = "mine"\n[data]\nkind = "npz"\npath = "data/mine.npz"\n'
        '[[teacher]]\nkind = "pt2"\npath = "/absolute/teacher.pt2"\n'
        '[[target]]\nname = "host/litert:fp32@1"\nbudget_ms = 1.5\n'
    )
    loaded, _ = load_recipe(str(recipe))
    assert loaded.data.path == tmp_path / "data" / "mine.npz"
    assert loaded.teacher[0].path == Path("/absolute/teacher.pt2")
    assert loaded.target[0].limit().limit_ms == 1.5


@pytest.mark.parametrize(
    ("where", "key", "near"),
    [
        ((), "sead", "'seed'"),
        (("data",), "vlidation", "'data.validation'"),
        (("teacher", 0), "widht", "'teacher.0.width'"),
        (("target", 0), "bugdet", "'target.0.budget'"),
    ],
)
def test_parse_recipe_names_the_nearest_valid_key_when_a_key_is_unknown(
    where: tuple[Any, ...], key: str, near: str
) -> None:
    document = _minimal()
    holder: Any = document
    for step in where:
        holder = holder[step]
    holder[key] = 1
    with pytest.raises(RecipeError) as caught:
        parse_recipe(document, Path())
    assert f"did you mean {near}?" in caught.value.why


def test_parse_recipe_looks_for_unknown_keys_in_deep_tables() -> None:
    document = _minimal() | {"search": {"training": {"epoch": 3}}, "space": {"stages": [{"widht": 1}]}}
    with pytest.raises(RecipeError) as caught:
        parse_recipe(document, Path())
    assert "'search.training.epochs'" in caught.value.why
    assert "'space.stages.0.widths'" in caught.value.why


@pytest.mark.parametrize("missing", ["name", "data", "teacher", "target"])
def test_parse_recipe_says_what_is_missing(missing: str) -> None:
    document = _minimal()
    del document[missing]
    with pytest.raises(RecipeError) as caught:
        parse_recipe(document, Path())
    assert f"{missing} is missing" in caught.value.why


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"seed": "seven"}, "seed"),
        ({"seed": -1}, "seed"),
        ({"name": "../escape"}, "name"),
        ({"distil": {"epochs": 0}}, "distil.epochs"),
        ({"data": {"kind": "digit"}}, "data.kind"),
        ({"search": {"strategy": "psychic"}}, "search.strategy"),
        ({"search": {"exponent": 0.1}}, "search.exponent"),
        ({"search": {"reward": "money"}}, "search.reward"),
        ({"search": 3}, "search"),
        ({"method": "magic"}, "method"),
        ({"method": ["akd"]}, "method"),
        ({"dna": {"cuts": ["layer1"]}}, "dna.cuts"),
        ({"verify": {"launches": 2}}, "verify.launches"),
        ({"target": []}, "target"),
        ({"data": {"kind": "folder", "path": ""}}, "data.path: the path is empty"),
    ],
)
def test_parse_recipe_names_the_place_when_a_value_is_wrong(changed: dict[str, Any], place: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(_minimal() | changed, Path())
    assert place in caught.value.why


@pytest.mark.parametrize(
    "budget",
    [{}, {"budget": "0.6x", "budget_ms": 1.0}, {"budget": "0.6"}, {"budget_ms": 0.0}, {"budget": "-1x"}],
)
def test_parse_recipe_refuses_a_target_without_exactly_one_good_budget(budget: dict[str, Any]) -> None:
    document = _minimal() | {"target": [{"name": "host/litert:fp32@1", **budget}]}
    with pytest.raises(RecipeError):
        parse_recipe(document, Path())


def test_parse_recipe_refuses_one_target_twice_however_it_is_written() -> None:
    twice = [{"name": "host/litert:fp32@1", "budget": "1x"}, {"name": "host/litert:fp32", "budget": "1x"}]
    with pytest.raises(RecipeError, match="not valid") as caught:
        parse_recipe(_minimal() | {"target": twice}, Path())
    assert "must differ" in caught.value.why


def test_the_nearest_evaluator_is_named() -> None:
    with pytest.raises(RecipeError, match="there is no evaluator 'short-train'") as caught:
        load_recipe("quickstart", ["search.evaluator=short-train"])
    assert caught.value.why.endswith("; did you mean 'short-training'?")


def test_of_a_list_with_a_wrong_entry_that_entry_alone_is_named() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(_minimal() | {"search": {"ratings": ["naswot", 1]}}, Path())
    assert caught.value.why == "search.ratings.1 is 1; it must be text"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["search.fidelities=[]"], "search.fidelities"),
        (["search.fidelities=[0.0, 1.0]"], "search.fidelities"),
        (["search.fidelities=[0.5, 1.5]"], "search.fidelities"),
        (["search.fidelities=[0.5]"], "ascend to 1, such as [0.25, 1.0], got [0.5]"),
        (["search.fidelities=[1.0, 0.5]"], "ascend to 1"),
        (["search.fidelities=[0.5, 0.5, 1.0]"], "ascend to 1"),
        (["search.fidelities=0.5"], "it must be numbers above 0 that ascend to 1, in a list"),
        (
            ["search.fidelities=[0.5, 1.0]", "search.strategy=evolution"],
            "strategy 'evolution' cannot choose among fidelities: set strategy = 'predictor'",
        ),
        (
            ["search.fidelities=[0.5, 1.0]", "search.evaluator=naswot", "search.ratings=[]"],
            "evaluator 'naswot' does not train candidates",
        ),
    ],
)
def test_fidelities_that_mean_nothing_or_that_nobody_chooses_are_refused(
    overrides: list[str], said: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("quickstart", overrides)
    assert said in caught.value.why
    assert len(caught.value.why.splitlines()) == 1


def test_method_dna_refuses_fidelities() -> None:
    with pytest.raises(RecipeError, match="not valid") as caught:
        load_recipe("quickstart-dna", ["search.fidelities=[0.5, 1.0]"])
    assert "evaluates no candidates" in caught.value.why


def test_parse_recipe_refuses_an_evaluator_that_is_not_there_before_anything_starts() -> None:
    with pytest.raises(RecipeError, match="there is no evaluator 'psychic'"):
        parse_recipe(_minimal() | {"search": {"evaluator": "psychic"}}, Path())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "search.ratings=naswot",
            "search.ratings is 'naswot'; it must be 'auto' or a list, such as [\"naswot\"]",
        ),
        ("search.ratings=[naswot, synflow]", 'or a list, such as ["naswot", "synflow"]'),
        ("search.ratings=3", "search.ratings is 3; it must be 'auto' or a list, such as [3]"),
        ("data.background=3", "data.background is 3; it must be a list"),
        ("target=host", "target is 'host'; it must be a list of tables"),
        (
            'search.ratings=["short-training"]',
            "'short-training' is no rating: ratings are asked for far",
        ),
        ('subgraph.proposals="gates"', 'it must be a list, such as ["gates"]'),
        ("dna.cuts=layer1", 'it must be a list, such as ["layer1"]'),
        (
            "search.reevaluated=tie",
            "search.reevaluated is 'tie'; it must be a whole number from 0 to 1000000 or 'ties'",
        ),
        (
            'search.ratings=["naswo"]',
            "there is no rating 'naswo'; did you mean 'naswot'? (known ones are blockwise, naswot, one-shot, "
            "readout, relation, synflow)",
        ),
    ],
)
def test_a_value_that_should_be_a_list_or_one_of_several_kinds_is_told_in_words(
    override: str, said: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("quickstart", [override])
    assert said in caught.value.why
    assert "literal[" not in caught.value.why
    assert "tuple[" not in caught.value.why
    assert len(caught.value.why.splitlines()) == 1


def test_overrides_change_values_by_dotted_keys() -> None:
    recipe, text = load_recipe(
        "quickstart",
        ["seed=3", "search.evaluations=5", "target.0.budget=0.5x", "distil.augment=none", "name=mine"],
    )
    assert (recipe.seed, recipe.search.evaluations, recipe.distil.augment) == (3, 5, "none")
    assert [str(target.limit()) for target in recipe.target] == ["0.5x", "0.6x"]
    assert text.startswith("# Handwritten digits")
    assert "seed = 3\n" in text


OVERRIDES = (
    ["seed=3", "name=mine", "allow_chance=true", "target.*.budget_ms=2.5"],
    ["search.evaluations=5", "search.training.epochs=7", "target.1.budget=0.5x soft"],
    ["search.training={epochs=4, patience=2}", "seed=1", "data.background=[0,0,0]"],
    ['distil.loss=[{kind="labels",weight=0.1},{kind="soft_targets",weight=0.9}]', "distil.epochs=3"],
    ["export.tolerance=1e-3", "distil.augment=none", "verify.launches=7"],
)
INLINE = """# mine
name = "inline"
teacher = [{kind = "train"}]  # small
target = [{name = "host/litert:fp32@1", budget = "1x"}, {name = "host/onnxruntime:fp32@1", budget_ms = 2}]
data.kind = "digits"
search.evaluations = 3
search.training.epochs = 2
"""
SCATTERED = """# mine
name = "scattered"
[search]
evaluations = 3
[data]
kind = "digits"
[[target]]  # the first
name = "host/litert:fp32@1"
budget = "1x"
[search.training]
epochs = 1
[[teacher]]
kind = "train"
[[target]]
name = "host/onnxruntime:fp32@1"
budget = "1x"
[distil]
loss = [{kind = "labels"}]"""


@pytest.mark.parametrize("source", ["quickstart", "quickstart-akd", INLINE, SCATTERED])
@pytest.mark.parametrize("overrides", OVERRIDES, ids=lambda overrides: overrides[0].partition("=")[0])
def test_the_text_that_is_kept_makes_the_recipe_with_its_overrides_again(
    tmp_path: Path, source: str, overrides: list[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(embedded_text(source) if source in EMBEDDED else source)
    recipe, text = load_recipe(str(path), overrides)
    path.write_text(text)
    assert load_recipe(str(path)) == (recipe, text)
    assert recipe != parse_recipe(
        tomllib.loads(source if "\n" in source else embedded_text(source)), tmp_path
    )


def test_comments_are_kept_with_overrides_and_without_them_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for source in (INLINE, SCATTERED):
        path.write_text(source)
        assert load_recipe(str(path))[1] == source
    path.write_text(INLINE)
    _, text = load_recipe(str(path), ["target.0.budget=0.5x", "search.evaluations=9"])
    assert text == INLINE.replace('"1x"', '"0.5x"').replace("evaluations = 3", "evaluations = 9")


def test_a_path_in_the_text_that_is_kept_starts_where_it_did(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SCATTERED)
    recipe, text = load_recipe(str(path), ["data.kind=npz", "data.path=data/mine.npz"])
    assert recipe.data.path == tmp_path / "data" / "mine.npz"
    assert 'path = "data/mine.npz"' in text


def test_an_override_with_a_star_changes_every_item_and_replaces_the_other_form_of_a_budget() -> None:
    recipe, _ = load_recipe("quickstart", ["target.*.budget_ms=2.5"])
    assert [target.limit().limit_ms for target in recipe.target] == [2.5, 2.5]


@pytest.mark.parametrize(
    "override", ["seed", "=3", "target.7.budget=1x", "target.x.budget=1x", "seed.deep=1", "name.a.b=1"]
)
def test_an_override_that_leads_nowhere_is_refused(override: str) -> None:
    with pytest.raises(RecipeError, match="--set"):
        load_recipe("quickstart", [override])


def test_load_recipe_says_so_when_the_file_is_missing_or_not_toml(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read") as caught:
        load_recipe("quickstrat")
    assert "did you mean the embedded recipe 'quickstart'?" in caught.value.fix
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(RecipeError, match="not valid TOML"):
        load_recipe(str(broken))
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(str(broken))


def test_a_method_brings_defaults_that_the_recipe_may_change() -> None:
    akd = parse_recipe(_minimal() | {"method": "akd"}, Path()).search
    assert (akd.strategy, akd.reevaluated, akd.finalists) == ("policy", 5, 3)
    twin = parse_recipe(_minimal() | {"method": "akd", "search": {"strategy": "random"}}, Path()).search
    assert (twin.strategy, twin.reevaluated) == ("random", 5)
    assert parse_recipe(_minimal(), Path()).search.strategy == "predictor"


def test_ratings_by_default_are_of_candidates_that_are_trained_from_fresh_weights() -> None:
    def ratings(method: str = "search", search: dict[str, Any] | None = None, **tables: Any) -> Sequence[str]:
        document = _minimal() | {"method": method, "search": search or {}} | tables
        return ratings_of(parse_recipe(document, Path()))

    predictor = {"strategy": "predictor"}
    assert ratings() == ratings("akd", predictor) == UNTRAINED
    assert ratings("subgraph", predictor, subgraph={"weights": "fresh"}) == UNTRAINED
    for method in ("akd", "dna", "subgraph", "oracle"):
        assert ratings(method) == ()
    for method in ("dna", "subgraph", "oracle"):
        assert ratings(method, predictor) == ()
    assert ratings(search={"evaluator": "naswot"}) == ratings(search={"strategy": "random"}) == ()
    assert ratings(search={"ratings": ["synflow"]}) == ("synflow",)
    assert ratings(search={"ratings": []}) == ()


def test_ratings_that_look_at_a_graph_whose_maps_cannot_be_seen_are_refused_and_by_default_tried() -> None:
    graph = _minimal() | {"teacher": [{"kind": "pt2", "path": "graph.pt2"}]}
    assert parse_recipe(graph, Path()).search.ratings == "auto"
    with pytest.raises(RecipeError) as caught:
        parse_recipe(graph | {"search": {"ratings": ["readout"]}}, Path())
    assert "'readout' looks at the teacher's feature maps" in caught.value.why
    assert "'factory'" in caught.value.why


def test_a_search_from_proposals_evaluates_as_many_as_there_are() -> None:
    def search(**tables: Any) -> SearchConfig:
        return parse_recipe(_minimal() | {"method": "subgraph"} | tables, Path()).search

    assert (search().evaluations, search().population, search().training.epochs) == (6, 6, 1)
    two = {"subgraph": {"proposals": ["importance", "mixed"]}}
    assert (search(**two).evaluations, search(**two).population) == (2, 2)
    assert search(**two, search={"evaluations": 9}).evaluations == 9
    with pytest.raises(RecipeError, match="not valid") as caught:
        search(subgraph={"proposals": ["mixed", "mixed"]})
    assert "each proposal" in caught.value.why
    with pytest.raises(RecipeError, match="not valid"):
        search(subgraph={"proposals": []})


def test_the_oracle_brings_its_loss_and_keeps_what_the_recipe_says_beside_it() -> None:
    changed = {"method": "oracle", "oracle": {"training": {"epochs": 7}}, "search": {"evaluations": 9}}
    recipe = parse_recipe(_minimal() | changed, Path())
    for training in (recipe.oracle.training, recipe.distil):
        assert [(each.kind, each.weight) for each in training.loss] == [("labels", 0.1), ("oracle", 0.9)]
    assert (recipe.oracle.training.epochs, recipe.oracle.training.patience) == (7, 60)
    search = recipe.search
    assert (search.strategy, search.algorithm, search.evaluations) == ("policy", "reinforce", 9)


def test_shared_weights_are_refused_where_no_method_trains_them() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(_minimal() | {"search": {"evaluator": "shared-weights"}}, Path())
    assert 'needs method = "oracle"' in caught.value.why


@pytest.mark.parametrize("search", [{"minutes": 5}, {"strategy": "predictor", "ratings": ["naswot"]}])
def test_what_only_candidates_that_are_evaluated_have_is_refused_where_none_are(
    search: dict[str, Any],
) -> None:
    parse_recipe({**_minimal(), "search": search}, Path())
    with pytest.raises(RecipeError, match="evaluates no candidates"):
        parse_recipe({**_minimal(), "method": "dna", "search": search}, Path())


def test_a_budget_may_be_soft() -> None:
    soft = _minimal() | {"target": [{"name": "host/litert:fp32@1", "budget": "0.6x soft"}]}
    assert parse_recipe(soft, Path()).target[0].limit().soft


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("dfa", "feature_aggregation"),
        ("feature_aggregation", "feature_aggregation"),
        ("FitNet", "fitnet"),
        ("decoupled-kd", "decoupled_kd"),
    ],
)
def test_a_loss_named_as_the_method_is_refused_with_the_table_that_it_needs(method: str, kind: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(_minimal() | {"method": method}, Path())
    assert f"method: {kind} is a loss" in caught.value.why
    assert f'[[distil.loss]] with kind = "{kind}"' in caught.value.why
    parse_recipe(_minimal() | {"distil": {"loss": [{"kind": kind}]}}, Path())


def test_the_oracle_is_a_method_as_well_as_a_loss() -> None:
    assert parse_recipe(_minimal() | {"method": "oracle"}, Path()).method == "oracle"


@pytest.mark.parametrize("table", ["dna", "subgraph", "oracle"])
def test_the_table_of_another_method_is_refused(table: str) -> None:
    document = _minimal() | {table: {}}
    assert parse_recipe(document | {"method": table}, Path()).method == table
    with pytest.raises(RecipeError) as caught:
        parse_recipe(document | {"method": "akd"}, Path())
    assert f'[{table}] is for method = "{table}", and the method is "akd"' in caught.value.why
    assert f"remove [{table}]" in caught.value.why
    with pytest.raises(RecipeError) as caught:
        parse_recipe(document, Path())
    assert 'the method is "search"' in caught.value.why
