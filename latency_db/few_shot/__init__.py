"""Latencies on a new device from few measurements there and the tables of known ones."""

from latency_db.few_shot.explanation import Explanation
from latency_db.few_shot.predictor import MIN_SAMPLES_ALONE, DeviceBasis
from latency_db.few_shot.transfer import Transfer
from latency_db.few_shot.transferred import TransferredModel

__all__ = ["MIN_SAMPLES_ALONE", "DeviceBasis", "Explanation", "Transfer", "TransferredModel"]
