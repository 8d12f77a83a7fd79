"""A run that cannot succeed stops: a teacher or a student that is no better than chance."""

from __future__ import annotations

from pipeline.errors import TeacherError, VerificationError
from pipeline.stages.inputs.data import DataSummary
from pipeline.stages.inputs.teacher import TeacherSummary

_ANYWAY = "or set allow_chance = true to continue anyway"


def require_useful_teacher(teacher: TeacherSummary, data: DataSummary) -> None:
    """Stop where there is nothing to learn from the teacher, or where it teaches other classes.

    Raises:
        TeacherError: its accuracy on the validation slice, or that of one of its members, is no better than
            chance, or would be far better with its classes in another order.
    """
    accuracies = {f"the teacher {teacher.name}": teacher.validation_accuracy}
    for place, member in enumerate(teacher.members, start=1):
        name = f"the teacher {teacher.name}"
        if len(teacher.members) > 1:
            name = f"member {place} of {len(teacher.members)} of the teacher, {member.name},"
            accuracies[name] = member.validation_accuracy
        if member.suspicion is not None:
            raise TeacherError(
                f"{name} is misread: {_against(member.validation_accuracy, teacher, data)}",
                why=member.suspicion.cause,
                fix=f"{member.suspicion.fix}, {_ANYWAY}",
            )
    for name, accuracy in accuracies.items():
        if not _useful(accuracy, teacher, data):
            raise _useless(name, accuracy, teacher, data)


def _useless(name: str, accuracy: float, teacher: TeacherSummary, data: DataSummary) -> TeacherError:
    if any(member.history for member in teacher.members):
        causes = "its training failed: the learning rate is too high, the epochs too few, or labels are wrong"
        fix = f"change [teacher.training], or look at the labels of the data, {_ANYWAY}"
    else:
        order = ", ".join(f"{name}={number}" for number, name in enumerate(data.classes[:5]))
        causes = (
            f"likely causes: its classes have another order than {order}{', ...' * (len(data.classes) > 5)}; "
            "its images were normalised in another way; the weights are not those that were trained"
        )
        fix = (
            "compare the order of classes, set 'mean', 'std', 'channels' and 'resize' as in its training, "
            f"check 'weights' and 'weights_key', {_ANYWAY}"
        )
    return TeacherError(
        f"{name} is no better than chance: {_against(accuracy, teacher, data)}", why=causes, fix=fix
    )


def require_useful_student(accuracy: float, teacher: TeacherSummary, data: DataSummary) -> None:
    """Stop where a student has learned nothing: that it keeps its budgets is worth nothing then.

    Args:
        accuracy: of the best of the fully trained students, on the validation slice.
        teacher: knows what chance gives on that slice.
        data: knows how many images it has.

    Raises:
        VerificationError: the accuracy is no better than chance.
    """
    if _useful(accuracy, teacher, data):
        return
    raise VerificationError(
        f"the student is no better than chance: {_against(accuracy, teacher, data)}",
        why="its training failed: the learning rate is too high, the epochs are too few, or the budget "
        "leaves only students that are too small",
        fix=f"change [distil], loosen the budgets, {_ANYWAY}",
    )


def _useful(accuracy: float, teacher: TeacherSummary, data: DataSummary) -> bool:
    return data.task.better_than_chance(accuracy, data.counts[1], teacher.chance)


def _against(accuracy: float, teacher: TeacherSummary, data: DataSummary) -> str:
    return (
        f"{data.task.shown(accuracy)} of the validation slice, where {data.task.guess} gets "
        f"{teacher.chance:.2%}"
    )
