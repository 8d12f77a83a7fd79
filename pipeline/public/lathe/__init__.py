"""Lathe from Python: profile models, build and ask latency tables, search and run recipes, open bundles.

What this package exports is public and documented in docs/reference/python.md; every other module of Lathe is
private and may change at any time. Importing it imports neither torch nor a runtime.

    import lathe

    print(lathe.profile("model.onnx", "host/onnxruntime:fp32@1"))
"""

from devices.errors import LatheError
from devices.measurement import Interval, Ratio
from latency_db.estimate import Estimate
from lathe.bundles import Bundle, BundleTarget, Verification, VerifiedTarget, open_bundle, verify
from lathe.profiling import ModelComparison, Profile, compare, profile
from lathe.recipes import Run, RunTarget, Search, run, search
from lathe.tables import NetworkPrediction, Table, build_table, load_table, space

__all__ = [
    "Bundle",
    "BundleTarget",
    "Estimate",
    "Interval",
    "LatheError",
    "ModelComparison",
    "NetworkPrediction",
    "Profile",
    "Ratio",
    "Run",
    "RunTarget",
    "Search",
    "Table",
    "Verification",
    "VerifiedTarget",
    "build_table",
    "compare",
    "load_table",
    "open_bundle",
    "profile",
    "run",
    "search",
    "space",
    "verify",
]
