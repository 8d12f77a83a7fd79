"""The worked example of the documentation, done to a copy of the package."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.places import ROOT

PAGE = (ROOT / "docs" / "extending" / "losses.md").read_text("utf-8")
PROGRAM = """
import torch
from pathlib import Path
from pipeline.distill.losses.base import Step
from pipeline.recipe.loading import parse_recipe

recipe = parse_recipe(
    {
        "name": "demo",
        "data": {"kind": "digits"},
        "teacher": [{"kind": "train"}],
        "target": [{"name": "host/litert:fp32@1", "budget": "0.6x"}],
        "distil": DISTIL,
    },
    Path(),
)
labels, correlation = recipe.distil.loss
logits = torch.randn(5, 3)
step = Step(torch.zeros(5, dtype=torch.long), logits, logits[None] + 7.0)
assert correlation.weight == 2.0
assert abs(float(correlation.make()(step))) < 1e-6
assert float(correlation.make()(Step(step.labels, logits, -logits[None]))) > 1.0
print(type(correlation.make()).__module__)
"""


def test_the_example_of_a_loss_works_with_the_files_that_the_page_names(tmp_path: Path) -> None:
    for package in ("pipeline", "devices", "latency_db"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (loss, settings), (recipe,) = _blocks("python"), _blocks("toml")
    (tmp_path / "pipeline" / "distill" / "losses" / "correlation.py").write_text(loss, "utf-8")
    listed = tmp_path / "pipeline" / "distill" / "losses" / "settings.py"
    text = listed.read_text("utf-8")
    assert "AnyLossSettings = Annotated[\n    LabelsSettings\n" in text
    text = text.replace("AnyLossSettings = ", f"{settings}\n\nAnyLossSettings = ")
    text = text.replace(
        "Annotated[\n    LabelsSettings\n", "Annotated[\n    CorrelationSettings | LabelsSettings\n"
    )
    listed.write_text(text, "utf-8")
    program = f"import tomllib\nDISTIL = tomllib.loads({recipe!r})['distil']\n{PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "pipeline.distill.losses.correlation"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.S | re.M)
