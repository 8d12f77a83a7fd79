"""The runtime that goes with hostile_engine.py."""

from __future__ import annotations

from pathlib import Path

from devices.runtimes import AgentRuntime


def hostile_runtime() -> AgentRuntime:
    """A runtime that does what its artifacts say."""
    return AgentRuntime(
        name="hostile",
        suffixes=(".script",),
        precisions=("fp32",),
        options={"cores": "run on these cores only"},
        engine=Path(__file__).parent / "hostile_engine.py",
        extra="hostile",
        package="hostile",
        delegates=lambda target: "hostile",
    )
