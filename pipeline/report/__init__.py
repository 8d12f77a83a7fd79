"""Self-contained HTML pages: the report of a run, and the health of a device."""

from pipeline.report.data import (
    BlockLatencies,
    CandidatePoint,
    CandidateRow,
    ComparedNetwork,
    KeptLayer,
    LayerMixture,
    ReportData,
    TargetReport,
    TrainingCurve,
)
from pipeline.report.health import render_health
from pipeline.report.page import render

__all__ = [
    "BlockLatencies",
    "CandidatePoint",
    "CandidateRow",
    "ComparedNetwork",
    "KeptLayer",
    "LayerMixture",
    "ReportData",
    "TargetReport",
    "TrainingCurve",
    "render",
    "render_health",
]
