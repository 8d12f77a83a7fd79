"""Single questions about one file: its outputs, the time of its operations, its behaviour under heat."""

from devices.requests.operations import OperationProfile, profile_operations
from devices.requests.prediction import predict
from devices.requests.sustained import SustainedRun, Window, sustain

__all__ = ["OperationProfile", "SustainedRun", "Window", "predict", "profile_operations", "sustain"]
