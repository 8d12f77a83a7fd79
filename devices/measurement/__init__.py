"""What a measurement is: launches with raw samples, conditions, a verdict, and the protocol behind them."""

from devices.measurement.between import BetweenBatches, Spread
from devices.measurement.conditions import Conditions
from devices.measurement.headline import launch_interval
from devices.measurement.inputs import InputUse, fed_alike, sizes
from devices.measurement.measurement import (
    PASSING_CODES,
    DeviceIdentity,
    Launch,
    Measurement,
    MeasurementFailure,
    Outcome,
    Placement,
    Ratio,
    Reason,
    RuntimeIdentity,
    Verdict,
    paired_ratio,
)
from devices.measurement.protocol import MeasuringProtocol
from devices.measurement.statistics import Interval, quantile
from devices.measurement.tail_latency import pooled_ns
from devices.measurement.verdict import SPREAD_DEGRADED

__all__ = [
    "PASSING_CODES",
    "SPREAD_DEGRADED",
    "BetweenBatches",
    "Conditions",
    "DeviceIdentity",
    "InputUse",
    "Interval",
    "Launch",
    "Measurement",
    "MeasurementFailure",
    "MeasuringProtocol",
    "Outcome",
    "Placement",
    "Ratio",
    "Reason",
    "RuntimeIdentity",
    "Spread",
    "Verdict",
    "fed_alike",
    "launch_interval",
    "paired_ratio",
    "pooled_ns",
    "quantile",
    "sizes",
]
