"""The report: one self-contained HTML page of a run."""

from pipeline.report.data import (
    BlockLatencies,
    CandidatePoint,
    Comparison,
    ReportData,
    TargetReport,
    TrainingCurve,
)
from pipeline.report.page import render

__all__ = [
    "BlockLatencies",
    "CandidatePoint",
    "Comparison",
    "ReportData",
    "TargetReport",
    "TrainingCurve",
    "render",
]
