"""A training that diverges ends in the error that its stage gives, and says what became of the loss."""

from __future__ import annotations

import pytest

from pipeline.distill.divergence import TrainingDiverged, divergence_is
from pipeline.errors import TeacherError, VerificationError


@pytest.mark.parametrize(("kind", "code"), [(VerificationError, 11), (TeacherError, 4)])
def test_divergence_becomes_the_error_of_its_stage(
    kind: type[VerificationError | TeacherError], code: int
) -> None:
    with pytest.raises(kind) as caught, divergence_is(kind("training diverged", fix="lower it")):
        raise TrainingDiverged("the loss became nan in epoch 3")
    assert caught.value.exit_code == code
    assert str(caught.value).splitlines() == [
        "training diverged",
        "Why: the loss became nan in epoch 3",
        "Fix: lower it",
    ]
    assert isinstance(caught.value.__cause__, TrainingDiverged)


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), divergence_is(VerificationError("training diverged")):
        _ = 1 / 0
