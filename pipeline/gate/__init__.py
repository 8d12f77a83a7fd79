"""Gates: whether a bundle keeps limits of latency, accuracy and size, for build steps to ask."""

from pipeline.gate.checks import Check, CheckFinding
from pipeline.gate.documents import junit_xml, markdown
from pipeline.gate.gating import GateResult, gate_bundle
from pipeline.gate.limits import Limits, parse_share, parse_size

__all__ = [
    "Check",
    "CheckFinding",
    "GateResult",
    "Limits",
    "gate_bundle",
    "junit_xml",
    "markdown",
    "parse_share",
    "parse_size",
]
