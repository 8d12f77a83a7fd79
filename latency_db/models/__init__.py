"""Models of whole networks' latencies, how they are fitted, and how far they can be trusted."""

from latency_db.models.accuracy import Accuracy, accuracy_of, spearman, straight_line
from latency_db.models.calibration import is_random, order, spread
from latency_db.models.features import network_properties
from latency_db.models.fitting import jackknife_factor
from latency_db.models.network_model import MIN_NETWORKS, NetworkModel

__all__ = [
    "MIN_NETWORKS",
    "Accuracy",
    "NetworkModel",
    "accuracy_of",
    "is_random",
    "jackknife_factor",
    "network_properties",
    "order",
    "spearman",
    "spread",
    "straight_line",
]
