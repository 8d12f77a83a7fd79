"""What a machine's stored measurements tell of itself: how it changes from batch to batch."""

from latency_db.history.health import Health, Level, Point, health_of
from latency_db.history.learning import PRIOR, Seen, learned
from latency_db.history.machines import Machine, machines_of
from latency_db.history.own import own_history
from latency_db.history.reading import Batch, History, history_of, latest, moment_of

__all__ = [
    "PRIOR",
    "Batch",
    "Health",
    "History",
    "Level",
    "Machine",
    "Point",
    "Seen",
    "health_of",
    "history_of",
    "latest",
    "learned",
    "machines_of",
    "moment_of",
    "own_history",
]
