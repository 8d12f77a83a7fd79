"""What can be wrong with an NNI model space, or with NNI."""

from __future__ import annotations

from devices.errors import LatheError
from devices.installing import how_to_install


class NniError(LatheError):
    """An NNI model space that cannot be profiled, or NNI that is not installed."""


def require_nni() -> None:
    """Check that NNI's model spaces can be imported.

    Raises:
        NniError: they cannot.
    """
    try:
        import nni.nas.nn.pytorch
        import nni.nas.profiler  # noqa: F401
    except ImportError as error:
        raise NniError(
            "profiling NNI model spaces needs NNI 3, which cannot be imported",
            why=str(error),
            fix=how_to_install("nni"),
        ) from error
