"""Self-contained HTML pages: the report of a run, the health of a device, the profile of models."""

from pipeline.report.data import (
    BlockLatencies,
    CandidatePoint,
    CandidateRow,
    ComparedNetwork,
    KeptLayer,
    KeptUnit,
    LayerMixture,
    ReportData,
    TargetReport,
    TrainingCurve,
)
from pipeline.report.health import render_health
from pipeline.report.page import render
from pipeline.report.profile import render_profile

__all__ = [
    "BlockLatencies",
    "CandidatePoint",
    "CandidateRow",
    "ComparedNetwork",
    "KeptLayer",
    "KeptUnit",
    "LayerMixture",
    "ReportData",
    "TargetReport",
    "TrainingCurve",
    "render",
    "render_health",
    "render_profile",
]
