"""The study of feature aggregation: a tiny run of all of it, and what its page claims."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.places import ROOT, SHARED
from tools.studies.feature_aggregation_page import ARMS, SEARCHES, summarise, write_page

DATA = SHARED / "fashion_mnist" / "fashion_mnist.npz"
SETTING = {
    "scale": "small",
    "images": [10, 10, 10],
    "teacher_images": 20,
    "image_size": 8,
    "student_epochs": 1,
    "student_parameters": 1000,
    "search_epochs": 2,
    "warmup_epochs": 1,
    "weight": 1.0,
    "weights": [1.0],
}


def units(seeds, depths, accuracies):
    """Groups of two maps, so that the second share is the depth."""

    def group(depth):
        return {"size": [4, 4], "teacher_layers": ["a", "b"], "shares": [1 - depth, depth], "depth": depth}

    found = {"teacher": {"test": 90.0}}
    for seed in range(seeds):
        for name in SEARCHES:
            found[f"search {name} {seed}"] = [group(depths[name] + 0.01 * seed)]
        for arm in ARMS:
            for name in [f"random{n}" for n in range(5)] if arm == "random" else [arm]:
                found[f"train {name} {seed}"] = {"test": accuracies.get(arm, 70.0) + seed}
    return found


APART = {"teacher_to_student": 0.9, "bridge": 0.6, "student_to_teacher": 0.3, "student_loss": 0.3}


def page_of(tmp_path, found):
    write_page(SETTING, found, tmp_path / "results" / "page.md")
    assert (tmp_path / "figures" / "feature_aggregation.png").exists()
    return (tmp_path / "results" / "page.md").read_text()


def test_page_claims_what_all_seeds_show(tmp_path):
    text = page_of(tmp_path, units(5, APART, {"bridge": 75.0}))
    assert text.count("**shown**") == 9
    assert "maps than the bridge: **shown** (0.30 [0.30, 0.30] of the depth; 5 of 5 seeds)" in text
    assert "| bridge | 0.62 [0.61, 0.63] | 0.62 [0.61, 0.63] |" in text


def test_page_of_equal_results_shows_nothing_and_of_opposite_ones_says_so(tmp_path):
    text = page_of(tmp_path, units(5, dict.fromkeys(SEARCHES, 0.5), {}))
    assert "**shown**" not in text
    assert text.count("**not shown**") == 9
    opposite = dict(zip(APART, reversed(APART.values()), strict=True))
    assert "**the opposite is shown**" in page_of(tmp_path, units(3, opposite, {}))


def test_page_of_few_seeds_decides_on_the_searches_alone_and_of_none_tests_nothing(tmp_path):
    assert page_of(tmp_path, units(2, APART, {})).count("**not decided**") == 9
    text = page_of(tmp_path, units(3, APART, {"bridge": 75.0}))
    assert (text.count("**shown**"), text.count("**not decided**, that needs 5 seeds (5.00")) == (3, 6)
    searches = {name: value for name, value in units(3, APART, {}).items() if "train" not in name}
    text = page_of(tmp_path, searches)
    assert text.count("**shown**") == 3
    assert text.count("**not tested**") == 6
    assert "No seed of the trainings is complete." in text


def test_page_shows_other_balances_with_the_seeds_that_they_have(tmp_path):
    found = units(3, APART, {})
    found["search bridge_tenth 0"] = found["search bridge 0"]
    assert "| bridge, a tenth of the balance (seeds: 1) | 0.60 [0.60, 0.60] |" in page_of(tmp_path, found)


def test_seeds_count_while_all_of_theirs_is_there():
    found = units(3, APART, {})
    del found["train random3 1"], found["search bridge 2"]
    result = summarise(found)
    assert (result["searched"], result["trained"]) == ([0, 1], [0])
    assert result["shares"]["bridge"][0] == pytest.approx(np.array([[0.4, 0.6], [0.39, 0.61]]))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="LATHE_SHARED_DATA has no Fashion-MNIST")
def test_a_tiny_study_runs_and_goes_on_where_it_was(tmp_path):
    state, page = tmp_path / "units.jsonl", tmp_path / "results" / "page.md"

    def run():
        command = [
            *(sys.executable, "tools/studies/feature_aggregation.py", "--work", tmp_path / "work"),
            *("--state", state, "--page", page),
        ]
        done = subprocess.run(
            command, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "LATHE_SHARED_DATA": str(SHARED)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr

    run()
    lines = state.read_text().splitlines()
    assert len(lines) == len({json.loads(line)["unit"] for line in lines}) == 1 + 1 + 2 * (6 + 16)
    # Killed in the middle of a line: that piece and the later ones are done again, with the same figures.
    state.write_text("\n".join(lines[:-3]) + "\n" + lines[-3][:20])
    shutil.rmtree(page.parent)
    assert run().count("\n") == 3
    assert state.read_text().splitlines() == lines
    assert "tiny" not in page.read_text()
    assert "--scale smoke" in page.read_text()
