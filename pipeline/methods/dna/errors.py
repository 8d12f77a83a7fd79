"""What can go wrong in DNA besides its inputs."""

from __future__ import annotations

from devices.errors import LatheError


class DnaError(LatheError):
    """A block of DNA that cannot be trained or evaluated."""
