"""How latencies are measured: batches of launches on a device, alone or paired."""

from devices.measuring.batch import Job, adapted, measure, probe
from devices.measuring.busy import OtherLoad, busy_with
from devices.measuring.comparison import LAUNCHES, Comparison, compare

__all__ = [
    "LAUNCHES",
    "Comparison",
    "Job",
    "OtherLoad",
    "adapted",
    "busy_with",
    "compare",
    "measure",
    "probe",
]
