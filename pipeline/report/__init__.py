"""The report: one self-contained HTML page of a run."""

from pipeline.report.data import (
    BlockLatencies,
    CandidatePoint,
    ComparedNetwork,
    KeptLayer,
    LayerMixture,
    ReportData,
    TargetReport,
    TrainingCurve,
)
from pipeline.report.page import render

__all__ = [
    "BlockLatencies",
    "CandidatePoint",
    "ComparedNetwork",
    "KeptLayer",
    "LayerMixture",
    "ReportData",
    "TargetReport",
    "TrainingCurve",
    "render",
]
