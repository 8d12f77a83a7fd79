"""Single questions about one file: its outputs, the time of its operations, its behaviour under heat."""

from devices.requests.operations import MOVING, Operation, OperationProfile, profile_operations
from devices.requests.prediction import outputs_target, predict, predict_all
from devices.requests.sustained import SustainedRun, Window, sustain

__all__ = [
    "MOVING",
    "Operation",
    "OperationProfile",
    "SustainedRun",
    "Window",
    "outputs_target",
    "predict",
    "predict_all",
    "profile_operations",
    "sustain",
]
