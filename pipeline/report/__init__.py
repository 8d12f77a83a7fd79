"""The report: one self-contained HTML page of a run."""

from pipeline.report.data import (
    BlockLatencies,
    CandidatePoint,
    ComparedNetwork,
    LayerMixture,
    KeptLayer,
    ReportData,
    TargetReport,
    TrainingCurve,
)
from pipeline.report.page import render

__all__ = [
    "BlockLatencies",
    "CandidatePoint",
    "ComparedNetwork",
    "LayerMixture",
    "KeptLayer",
    "ReportData",
    "TargetReport",
    "TrainingCurve",
    "render",
]
