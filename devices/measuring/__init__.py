"""How latencies are measured: batches of launches on a device, alone or paired."""

from devices.measuring.batch import Job, adapted, measure, probe
from devices.measuring.busy import OtherLoad, busy_with
from devices.measuring.comparison import LAUNCHES, Comparison, compare
from devices.measuring.limits import (
    LOOKS,
    AgainstLimit,
    LimitFinding,
    latency_against_limit,
    ratio_against_limit,
)

__all__ = [
    "LAUNCHES",
    "LOOKS",
    "AgainstLimit",
    "Comparison",
    "Job",
    "LimitFinding",
    "OtherLoad",
    "adapted",
    "busy_with",
    "compare",
    "latency_against_limit",
    "measure",
    "probe",
    "ratio_against_limit",
]
