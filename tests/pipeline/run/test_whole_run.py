from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices.requests.prediction import predict
from devices.target import Target
from pipeline.bundle import read_bundle
from tests.lathe_process import LatheProcess, run_here
from tests.pipeline.run.tiny_recipe import ONE_TARGET, STAGES, TWO_TARGETS, command, run_recipe, write_recipe
from tests.pipeline.teachers.tiny_transformers import saved, vit

pytestmark = [pytest.mark.usefixtures("quiet_machine", "exporters_here"), pytest.mark.slow]

Finished = tuple[Path, Path, dict[str, Any]]


@pytest.fixture(scope="module", name="finished")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A recipe, the folder it ran in, and what it printed."""
    folder = tmp_path_factory.mktemp("finished run")
    recipe = write_recipe(folder)
    return recipe, folder, run_recipe(recipe, folder)


@pytest.fixture(scope="module", name="for_two_targets")
def _for_two_targets(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The same with a second target; what does not depend on it was done before."""
    _, folder, _ = finished
    recipe = write_recipe(tmp_path_factory.mktemp("two targets"), TWO_TARGETS)
    return recipe, folder, run_recipe(recipe, folder)


def test_run_goes_through_every_stage_and_hands_over_a_whole_bundle(finished: Finished) -> None:
    _, _, document = finished
    assert {stage["name"] for stage in document["stages"]} == set(STAGES)
    assert not any(stage["cached"] for stage in document["stages"])
    (target,) = read_bundle(Path(document["bundle"])).targets
    assert target.target == "host/onnxruntime:fp32@1"
    # A measurement that was disturbed makes the search look at more.
    assert len(document["candidates"]) >= 3
    assert "<html" in Path(document["report"]).read_text()[:200]


def test_run_for_two_targets_makes_one_student_that_keeps_both_budgets(for_two_targets: Finished) -> None:
    _, _, document = for_two_targets
    made = {stage["name"] for stage in document["stages"] if not stage["cached"]}
    assert not {"data", "teacher", "space"} & made
    manifest = read_bundle(Path(document["bundle"]))
    assert [target.target for target in manifest.targets] == ["host/onnxruntime:fp32@1", "host/litert:fp32@1"]
    for target in document["winner"]["targets"]:
        assert target["feasible"]
        assert target["parity_max_abs"] < 1e-4
        assert target["measured_ms"]["low"] <= target["measured_ms"]["value"] <= target["measured_ms"]["high"]
    # A measurement that was disturbed makes the search look at more.
    assert len(document["candidates"]) >= 3
    teachers = document["teacher"]["models"]
    assert {kind: Path(file).name for kind, file in teachers.items()} == {
        "onnx": "teacher.onnx",
        "litert": "teacher.tflite",
    }
    for target, layout in (("onnxruntime:fp32@1", (1, 8, 8)), ("litert:fp32@1", (8, 8, 1))):
        file = Path(teachers["onnx" if target.startswith("onnx") else "litert"])
        logits = predict(file, np.zeros((2, *layout), np.float32), Target.parse(f"host/{target}"))
        assert logits.shape == (2, 10)
    assert "<html" in Path(document["report"]).read_text()[:200]


def test_run_does_nothing_again_when_everything_is_done(finished: Finished) -> None:
    recipe, folder, before = finished
    database = (folder / "latency.db").read_bytes()
    again = run_recipe(recipe, folder)
    assert all(stage["cached"] for stage in again["stages"])
    assert again["winner"] == before["winner"]
    assert (folder / "latency.db").read_bytes() == database


def test_run_finds_measured_blocks_in_the_database_when_the_work_folder_is_new(
    finished: Finished, tmp_path: Path
) -> None:
    recipe, folder, before = finished
    shutil.copy(folder / "latency.db", tmp_path / "latency.db")
    again = run_recipe(recipe, tmp_path)
    # The same measurements and the same seed choose and train the same student.
    assert again["candidates"] == before["candidates"]
    assert again["winner"]["architecture"] == before["winner"]["architecture"]
    assert again["winner"]["test_accuracy"] == before["winner"]["test_accuracy"]
    assert again["feasibility"] == before["feasibility"]


def test_search_ends_where_run_goes_on(finished: Finished) -> None:
    recipe, folder, whole = finished
    document = run_recipe(recipe, folder, what="search")
    assert document["candidates"] == whole["candidates"]
    assert all(stage["cached"] for stage in document["stages"])
    assert document["stages"][-1]["name"] == "search"
    assert whole["winner"]["architecture"] in document["within_budget"]
    best = document["candidates"][0]
    for target, limit in document["limits_ms"].items():
        assert best["predicted_lower_ms"][target] < best["predicted_ms"][target] < limit
        assert best["measured_ms"][target] > 0
    text = run_here(*(part for part in command(recipe, folder, what="search") if part != "--json")).stdout
    assert text.startswith("tiny: 3 candidates, best first")
    assert "predicted, 0.0" in text
    assert "measured, within 1000.0000 ms" in text


def test_a_search_that_is_done_needs_no_cluster(finished: Finished, tmp_path: Path) -> None:
    recipe, folder, _ = finished
    far = tmp_path / "far.toml"
    section = '[search]\nexecutor = "ray://127.0.0.1:9"\nahead = 1\n'
    far.write_text(recipe.read_text().replace("[search]\n", section))
    for what, also in (("search", set()), ("run", {"report", "bundle"})):
        stages = run_recipe(far, folder, what=what)["stages"]
        assert {stage["name"] for stage in stages if not stage["cached"]} == also


def test_akd_rates_the_best_again_and_takes_the_best_finalist(finished: Finished) -> None:
    recipe, folder, _ = finished
    settings = ["method=akd", "search.reevaluated=2", "search.finalists=2"]
    document = run_recipe(recipe, folder, settings)
    made = [stage["name"] for stage in document["stages"] if not stage["cached"]]
    assert not {"data", "teacher", "table", "feasibility"} & set(made)
    assert [stage["name"] for stage in document["stages"]].count("distil") == 2
    assert [candidate["reevaluation"] is None for candidate in document["candidates"]] == [False, False, True]
    assert all(target["feasible"] for target in document["winner"]["targets"])
    labels = run_recipe(recipe, folder, [*settings, "search.reward=labels"], what="search")
    # The twin draws the same first candidates, and rates them itself.
    assert "search" in [stage["name"] for stage in labels["stages"] if not stage["cached"]]
    drawn = [{json.dumps(each["architecture"]) for each in run["candidates"]} for run in (document, labels)]
    assert drawn[0] == drawn[1]


def test_a_teacher_of_transformers_goes_all_the_way_to_a_bundle(finished: Finished, tmp_path: Path) -> None:
    _, folder, _ = finished
    saved(vit([str(digit) for digit in range(9, -1, -1)]), tmp_path / "vit")
    teacher = 'kind = "huggingface"\npath = "vit"'
    text = ONE_TARGET.replace('kind = "train"\nwidth = 8\ndepth = 1', teacher)
    assert teacher in text
    document = run_recipe(write_recipe(tmp_path, text), folder, ["method=akd", "search.finalists=1"])
    made = {stage["name"] for stage in document["stages"] if not stage["cached"]}
    assert {"teacher", "search", "distil", "bundle"} <= made
    assert document["teacher"]["name"] == "vit"
    (target,) = document["winner"]["targets"]
    assert target["feasible"]
    assert {Path(each).name for each in document["teacher"]["models"].values()} == {"teacher.onnx"}
    read_bundle(Path(document["bundle"]))


DNA_SPACE = (
    "{ stem_width = 8, head_width = 16, blocks = ["
    "{ cells = [{ depth = 1, width = 8 }], stride = 1, kernels = [3], expansions = [2, 3] }, "
    "{ cells = [{ depth = 1, width = 8 }, { depth = 1, width = 16 }], kernels = [3], expansions = [2, 3] }, "
    "{ cells = [{ depth = 1, width = 8 }, { depth = 1, width = 16 }], kernels = [3], expansions = [2] }] }"
)


def test_dna_selects_from_evaluated_blocks_and_ends_with_a_bundle(finished: Finished) -> None:
    recipe, folder, _ = finished
    settings = ["method=dna", f"dna.space={DNA_SPACE}", "dna.training.epochs=1"]
    document = run_recipe(recipe, folder, settings)
    assert {"cut", "scores"} <= {stage["name"] for stage in document["stages"]}
    losses = [-candidate["score"] for candidate in document["candidates"]]
    assert losses == sorted(losses)
    assert document["winner"]["architecture"].keys() >= {"block1.cell", "block3.layer1"}
    assert all(target["feasible"] for target in document["winner"]["targets"])
    read_bundle(Path(document["bundle"]))
    # Other budgets need no other scores.
    again = run_recipe(recipe, folder, [*settings, "target.*.budget_ms=900"], what="search")
    made = {stage["name"] for stage in again["stages"] if not stage["cached"]}
    assert not {"cut", "scores", "table"} & made


def test_a_subgraph_of_the_teacher_is_cut_distilled_and_verified_on_both_runtimes(
    for_two_targets: Finished,
) -> None:
    recipe, folder, _ = for_two_targets
    # Preferences that cannot be kept: the smallest subgraph, however fast this machine is today.
    budgets = ["target.*.budget=0.1x teacher soft"]
    settings = ["method=subgraph", "subgraph.most_blocks=12", "subgraph.selection.epochs=1"]
    settings += ["search.evaluations=2", *budgets]
    document = run_recipe(recipe, folder, settings)
    names = {stage["name"] for stage in document["stages"]}
    assert {"structures", "importance", "proposals"} <= names
    assert not {"cut", "scores"} & names
    winner = document["winner"]
    assert {target["target"] for target in winner["targets"]} == {
        "host/onnxruntime:fp32@1",
        "host/litert:fp32@1",
    }
    assert winner["parameters"] < document["teacher"]["parameters"]
    bundle = Path(document["bundle"])
    read_bundle(bundle)
    assert " channels</text>" in (bundle / "report.html").read_text()


def test_a_search_by_several_fidelities_and_searched_mixtures_of_maps_end_in_a_bundle(
    finished: Finished,
) -> None:
    recipe, folder, _ = finished
    search = "{ epochs = 1, warmup_epochs = 0 }"
    loss = f'[{{ kind = "soft_targets" }}, {{ kind = "feature_aggregation", search = {search} }}]'
    document = run_recipe(recipe, folder, [f"distil.loss={loss}", "search.fidelities=[0.5, 1.0]"])
    made = [stage["name"] for stage in document["stages"] if not stage["cached"]]
    ends = ["search", "mixtures", "distil", "export", "compile", "verify", "report", "bundle"]
    assert made[-len(ends) :] == ends
    assert {each["fidelity"] for each in document["candidates"]} >= {1.0}
    bundle = Path(document["bundle"])
    read_bundle(bundle)
    assert "feature_aggregation" in (bundle / "recipe.toml").read_text()


def test_run_makes_only_what_changed_again_when_a_setting_changes(finished: Finished) -> None:
    recipe, folder, _ = finished
    changed = run_recipe(recipe, folder, ["distil.epochs=2"])
    made = [stage["name"] for stage in changed["stages"] if not stage["cached"]]
    assert made[0] == "distil"
    assert not {"data", "teacher", "table", "feasibility", "search"} & set(made)


def test_run_killed_at_every_stage_ends_like_one_that_was_not(finished: Finished, tmp_path: Path) -> None:
    recipe, folder, expected = finished
    # The same database gives the same estimates; measurements of one machine are never equal twice.
    shutil.copy(folder / "latency.db", tmp_path / "latency.db")
    for stage in ("teacher", "table", "feasibility", "search", "distil", "export", "verify"):
        run = LatheProcess(*command(recipe, tmp_path), log=tmp_path)
        stages = tmp_path / "work" / "stages"
        assert run.kill_when(lambda stages=stages, stage=stage: any(stages.glob(f"{stage}-*"))), stage
    document = run_recipe(recipe, tmp_path)
    assert document["candidates"] == expected["candidates"]
    assert document["winner"]["architecture"] == expected["winner"]["architecture"]
    assert document["winner"]["test_accuracy"] == expected["winner"]["test_accuracy"]
    read_bundle(Path(document["bundle"]))


def test_run_continues_from_the_blocks_already_measured_when_killed_while_measuring(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    database = tmp_path / "latency.db"
    run = LatheProcess(*command(recipe, tmp_path), log=tmp_path)
    assert run.kill_when(lambda: bool(_digests(database)))
    stored = _digests(database)
    document = run_recipe(recipe, tmp_path, what="search")
    table = next(stage for stage in document["stages"] if stage["name"] == "table")
    assert not table["cached"]
    assert stored < _digests(database)


def test_a_second_run_on_one_work_folder_is_refused(finished: Finished, tmp_path: Path) -> None:
    recipe, _, _ = finished
    holder = tmp_path / "work" / "lock.holder"
    first = LatheProcess(*command(recipe, tmp_path), log=tmp_path)
    refused: list[subprocess.CompletedProcess[str]] = []

    def refuses() -> bool:
        if holder.exists():
            refused.append(run_here(*command(recipe, tmp_path)))
        return bool(refused)

    assert first.kill_when(refuses)
    (second,) = refused
    assert second.returncode == 9
    assert f"in use by process {first.pid}" in second.stderr


def test_an_unreachable_budget_ends_with_five_and_the_nearest_possible_one(for_two_targets: Finished) -> None:
    recipe, folder, _ = for_two_targets
    ended = run_here(*command(recipe, folder, ["target.*.budget=0.01x"]))
    assert ended.returncode == 5
    error = json.loads(ended.stdout)["error"]
    assert 'budget = "0.' in error["fix"] or 'budget = "1.' in error["fix"]
    assert "host/litert:fp32@1" in error["fix"]


def test_an_export_that_differs_from_torch_ends_with_ten(finished: Finished) -> None:
    recipe, folder, _ = finished
    # No float32 runtime is that near.
    ended = run_here(*command(recipe, folder, ["export.tolerance=1e-12"]))
    assert ended.returncode == 10
    assert "differs from torch" in json.loads(ended.stdout)["error"]["what"]


def test_a_disk_that_is_full_ends_with_nine_and_the_next_run_goes_on(
    finished: Finished, tmp_path: Path
) -> None:
    recipe, folder, expected = finished
    shutil.copy(folder / "latency.db", tmp_path / "latency.db")
    # Data and table fit, the teacher's checkpoint does not.
    ended = LatheProcess(*command(recipe, tmp_path), log=tmp_path, largest_file_bytes=60_000).wait()
    assert ended.returncode == 9, ended.stderr
    assert "no space to write" in json.loads(ended.stdout)["error"]["what"]
    document = run_recipe(recipe, tmp_path, what="search")
    assert document["stages"][0]["cached"]
    assert document["candidates"] == expected["candidates"]


def test_an_unreadable_database_ends_with_eight(finished: Finished, tmp_path: Path) -> None:
    recipe, _, _ = finished
    (tmp_path / "latency.db").write_bytes(b"this is no database" * 100)
    assert run_here(*command(recipe, tmp_path)).returncode == 8


def test_a_teacher_of_another_width_ends_with_four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)
    labels = np.arange(60) % 3
    np.savez(tmp_path / "three.npz", train_x=images, train_y=labels, test_x=255 - images, test_y=labels)
    (tmp_path / "teachers_of_seven.py").write_text(
        "from torch import nn\n\n\ndef seven():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))\n"
    )
    text = ONE_TARGET.replace('kind = "digits"\ntrain_limit = 300', 'kind = "npz"\npath = "three.npz"')
    text = text.replace(
        'kind = "train"\nwidth = 8\ndepth = 1', 'kind = "factory"\nfactory = "teachers_of_seven:seven"'
    )
    monkeypatch.syspath_prepend(tmp_path)
    ended = run_here(*command(write_recipe(tmp_path, text), tmp_path))
    assert ended.returncode == 4, ended.stderr
    error = json.loads(ended.stdout)["error"]
    assert "7 outputs" in error["what"]
    assert "3 classes" in error["what"]


def test_verify_repeats_the_bundle_and_refuses_it_after_one_changed_byte(
    finished: Finished, tmp_path: Path
) -> None:
    _, _, document = finished
    bundle = shutil.copytree(document["bundle"], tmp_path / "my bundle")
    verify = ["verify", str(bundle), "--json"]
    ended = run_here(*verify)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["holds"]
    artifact = next(bundle.glob("artifacts/*/model.onnx"))
    content = bytearray(artifact.read_bytes())
    content[len(content) // 2] ^= 1
    artifact.write_bytes(content)
    ended = run_here(*verify)
    assert ended.returncode == 11
    document = json.loads(ended.stdout)
    assert document["holds"] is False
    assert "model.onnx" in document["error"]["what"]


def _digests(database: Path) -> set[str]:
    """Of the measurements that are stored, while another process may be making the database."""
    with (
        contextlib.suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection,
    ):
        return {digest for (digest,) in connection.execute("SELECT digest FROM measurements")}
    return set()


ORACLE = TWO_TARGETS.replace('name = "tiny"', 'name = "tiny"\nmethod = "oracle"').replace(
    "depth = 1\n", "depth = 1\nmembers = 2\n"
)


def test_oracle_searches_add_ons_by_shared_weights_and_ends_with_a_bundle_that_verifies(
    tmp_path: Path,
) -> None:
    settings = [
        "oracle.space.width=4",
        "oracle.space.stages=2",
        "oracle.space.depth=1",
        'oracle.space.operations=["separable3","max_pool"]',
        "oracle.training.epochs=2",
        "oracle.max_parameters=1900",
        "search.evaluations=12",
        "search.reevaluated=3",
    ]
    document = run_recipe(write_recipe(tmp_path, ORACLE), tmp_path, settings)
    assert [each["name"] for each in document["stages"]].count("shared") == 1
    assert document["teacher"]["ensemble"].keys() >= {"agreement", "oracle_accuracy", "mixed", "saturated"}
    assert len(document["teacher"]["members"]) == 2
    assert [loss["kind"] for loss in document["recipe"]["distil"]["loss"]] == ["labels", "oracle"]
    assert document["winner"]["parameters"] <= 1900
    assert sum(each["reevaluation"] is not None for each in document["candidates"]) == 3
    assert "The teacher is an ensemble" in Path(document["report"]).read_text("utf-8")
    ended = run_here("verify", document["bundle"], "--json")
    assert ended.returncode == 0, ended.stderr
