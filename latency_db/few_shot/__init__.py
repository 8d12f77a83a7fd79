"""Latencies on a new device from few measurements there and the tables of known ones."""

from latency_db.few_shot.explanation import Explanation
from latency_db.few_shot.predictor import DeviceBasis
from latency_db.few_shot.transfer import Transfer
from latency_db.few_shot.transferred import TransferredModel

__all__ = ["DeviceBasis", "Explanation", "Transfer", "TransferredModel"]
