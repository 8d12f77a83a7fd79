from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.data.base import Preprocessing
from pipeline.distill.settings import EpochRecord
from pipeline.errors import TeacherError, VerificationError
from pipeline.run.chance import require_useful_student, require_useful_teacher
from pipeline.stages.inputs.data import DataSummary
from pipeline.stages.inputs.teacher import MemberSummary, TeacherSummary
from pipeline.teachers.suspicion import Suspicion
from pipeline.work.canonical import StoredFile

FILE = StoredFile("data", "arrays", "0" * 64)
DATA = DataSummary(
    "made-up", "d", ("cat", "dog", "emu"), (1, 8, 8), (90, 60, 30), Preprocessing((0.5,), (0.3,)), FILE
)
EPOCH = EpochRecord(0, 1.0, 0.4, 0.1)


def _teacher(accuracy: float, *, trained: bool = False) -> TeacherSummary:
    members = (MemberSummary("net", accuracy, (EPOCH,) if trained else ()),)
    return TeacherSummary("net", "t", accuracy, 1, members, DATA, 0, (), chance=1 / 3)


@pytest.mark.parametrize("accuracy", [0.2, 1 / 3, 0.4])
def test_a_loaded_teacher_at_chance_stops_the_run_with_the_likely_causes(accuracy: float) -> None:
    with pytest.raises(TeacherError, match="no better than chance") as caught:
        require_useful_teacher(_teacher(accuracy), DATA)
    assert "33.33%" in str(caught.value)
    assert "cat=0, dog=1, emu=2" in caught.value.why
    assert "normalised" in caught.value.why
    assert "allow_chance = true" in caught.value.fix


def test_a_trained_teacher_at_chance_points_to_its_training() -> None:
    with pytest.raises(TeacherError, match="no better than chance") as caught:
        require_useful_teacher(_teacher(0.35, trained=True), DATA)
    assert "learning rate" in caught.value.why


def test_a_member_at_chance_stops_the_run_though_the_ensemble_is_useful() -> None:
    members = (MemberSummary("net", 0.9), MemberSummary("lost", 0.35))
    ensemble = replace(_teacher(0.9), members=members)
    with pytest.raises(TeacherError, match="member 2 of 2 of the teacher, lost, is no better than chance"):
        require_useful_teacher(ensemble, DATA)


def test_a_teacher_that_is_misread_stops_the_run_with_the_key_that_puts_it_right() -> None:
    suspicion = Suspicion(
        "its classes have another order", "set in [[teacher]] classes = { cat = 1, dog = 0 }"
    )
    lost = replace(_teacher(0.6).members[0], suspicion=suspicion)
    with pytest.raises(TeacherError, match="is misread") as caught:
        require_useful_teacher(replace(_teacher(0.6), members=(lost,)), DATA)
    assert caught.value.why == suspicion.cause
    assert caught.value.fix.startswith(f"{suspicion.fix}, or set allow_chance")


def test_a_student_at_chance_stops_the_run() -> None:
    with pytest.raises(VerificationError, match="student is no better than chance") as caught:
        require_useful_student(0.3, _teacher(0.9), DATA)
    assert "allow_chance = true" in caught.value.fix


def test_who_is_better_than_chance_goes_on() -> None:
    require_useful_teacher(_teacher(0.6), DATA)
    require_useful_student(0.6, _teacher(0.9), DATA)
