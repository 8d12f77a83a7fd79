"""Readers of bytes that others wrote, each with limits, so that no file can exhaust memory or time.

docs/reference/limits.md states the limits.
"""

from devices.untrusted.arrays import Header, array_from, arrays_from, npy_header
from devices.untrusted.compressed import Bounded, open_zip
from devices.untrusted.documents import MOST_TOML_BYTES, json_from, toml_from
from devices.untrusted.files import file_bytes, regular_size

__all__ = [
    "MOST_TOML_BYTES",
    "Bounded",
    "Header",
    "array_from",
    "arrays_from",
    "file_bytes",
    "json_from",
    "npy_header",
    "open_zip",
    "regular_size",
    "toml_from",
]
