from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from devices.measurement import Verdict
from pipeline.run.context import Context
from pipeline.stages.student import rehearse as rehearsals
from pipeline.stages.student.rehearse import RehearsalInput, Rehearsed, rehearse
from pipeline.work.canonical import StoredFile
from pipeline.work.stage import StageFolder
from tests.pipeline.run.made_up_run import MEMBERS, SPACE, SPACE_PLAN, TARGET, made_up_context, recipe_of
from tests.pipeline.run.made_up_stages import measurement

pytestmark = [pytest.mark.usefixtures("exporters_here"), pytest.mark.slow]


def rehearsed(context: Context, teachers: Mapping[str, StoredFile]) -> Rehearsed:
    given = RehearsalInput(
        SPACE_PLAN,
        MEMBERS[0],
        SPACE.reference(),
        teachers,
        context.targets,
        context.protocol,
        context.where.exporters,
        context.budgets,
    )
    return context.do(rehearse, given)


def teacher_file(context: Context, content: bytes) -> Mapping[str, StoredFile]:
    folder = StageFolder(context.work.stages / "table-0")
    folder.path.mkdir(parents=True)
    (folder / "teacher.onnx").write_bytes(content)
    return {str(TARGET): folder.stored("teacher.onnx")}


def test_the_untrained_network_is_measured_beside_the_reference_of_its_budget(tmp_path: Path) -> None:
    with made_up_context(tmp_path, recipe_of("0.6x")) as context:
        found = rehearsed(context, {})
        (ratio,) = found.ratios.values()
        assert 0 < ratio.low <= ratio.value <= ratio.high
        assert context.reporter.notes[-1] == (
            f"rehearse     {TARGET}: untrained {ratio} of the reference network's latency"
        )
        # It is kept, whatever it was.
        assert rehearsed(context, {}) == found


def test_a_teacher_that_does_not_run_leaves_no_ratio_and_no_error(tmp_path: Path) -> None:
    with made_up_context(tmp_path, recipe_of("0.6x teacher")) as context:
        assert rehearsed(context, teacher_file(context, b"no model")).ratios == {}


@pytest.mark.parametrize("verdict", [Verdict.VALID, Verdict.INVALID])
def test_an_invalid_measurement_leaves_no_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: Verdict
) -> None:
    asked: list[Path] = []

    def measured(candidate: Path, reference: Path, *_: Any) -> Any:
        asked.extend((candidate, reference))
        return measurement(TARGET, "00", 2e6, Verdict.VALID), measurement(TARGET, "11", 8e6, verdict)

    monkeypatch.setattr(rehearsals, "measure_artifact", measured)
    with made_up_context(tmp_path, recipe_of("0.6x teacher")) as context:
        teachers = teacher_file(context, b"some model")
        ratios = rehearsed(context, teachers).ratios
        assert asked[1] == context.work.find(teachers[str(TARGET)])
        if verdict is Verdict.INVALID:
            assert ratios == {}
        else:
            assert ratios[str(TARGET)].value == pytest.approx(0.25)
