"""What is learned: a task says what labels and outputs mean, what is minimised, and how good outputs are."""

from pipeline.tasks.base import AnyTask, Task, TaskKind
from pipeline.tasks.embedding import Embedding
from pipeline.tasks.multi_label import MultiLabel
from pipeline.tasks.regression import Regression, RegressionInUnits
from pipeline.tasks.single_label import SINGLE_LABEL, SingleLabel, WeightedClasses

__all__ = [
    "SINGLE_LABEL",
    "AnyTask",
    "Embedding",
    "MultiLabel",
    "Regression",
    "RegressionInUnits",
    "SingleLabel",
    "Task",
    "TaskKind",
    "WeightedClasses",
]
