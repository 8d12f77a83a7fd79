"""How latencies are measured: batches of launches on a device, alone or paired."""

from devices.measuring.batch import Job, measure, probe
from devices.measuring.comparison import LAUNCHES, Comparison, compare

__all__ = ["LAUNCHES", "Comparison", "Job", "compare", "measure", "probe"]
