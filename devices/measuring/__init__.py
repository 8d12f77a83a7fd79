"""How latencies are measured: batches of launches on a device, alone or paired."""

from devices.measuring.busy import OtherLoad
from devices.measuring.comparison import LAUNCHES, PRACTICAL, Comparison, compare
from devices.measuring.launch import Job
from devices.measuring.limits import (
    LOOKS,
    AgainstLimit,
    LimitFinding,
    latency_against_limit,
    ratio_against_limit,
)
from devices.measuring.pool import busy_with, measure, probe
from devices.measuring.probing import adapted
from devices.measuring.rounds import Entrant, Round, Rounds, measure_round
from devices.measuring.side_by_side import GoingOn, side_by_side

__all__ = [
    "LAUNCHES",
    "LOOKS",
    "PRACTICAL",
    "AgainstLimit",
    "Comparison",
    "Entrant",
    "GoingOn",
    "Job",
    "LimitFinding",
    "OtherLoad",
    "Round",
    "Rounds",
    "adapted",
    "busy_with",
    "compare",
    "latency_against_limit",
    "measure",
    "measure_round",
    "probe",
    "ratio_against_limit",
    "side_by_side",
]
