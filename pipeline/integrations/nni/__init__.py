"""For users of NNI 3: latencies of the networks of an NNI model space, from measured blocks.

Raises:
    NniError: on import, where NNI is not installed.
"""

from pipeline.integrations.nni.errors import NniError, require_nni

require_nni()

from pipeline.integrations.nni.gradient import with_penalty_gradient  # noqa: E402
from pipeline.integrations.nni.profiler import LatencyTableProfiler  # noqa: E402

__all__ = ["LatencyTableProfiler", "NniError", "with_penalty_gradient"]
