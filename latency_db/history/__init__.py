"""What a device's stored measurements tell of the device itself: how it changes from batch to batch."""

from latency_db.history.learning import PRIOR, Seen, learned
from latency_db.history.reading import Batch, History, history_of

__all__ = ["PRIOR", "Batch", "History", "Seen", "history_of", "learned"]
