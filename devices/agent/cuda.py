"""An NVIDIA GPU by the driver's own library, libcuda, which is wherever a GPU works: identity and memory.

Source: CUDA driver API. Importing this raises OSError where there is no driver.
"""

from __future__ import annotations

import ctypes
import functools
import re
from typing import Any

import numpy

from .machine import read

DRIVER = ctypes.CDLL("libcuda.so.1")

OUT_OF_MEMORY = 2
COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76


def driver(name: str, *arguments: Any) -> None:
    """Call a function of the CUDA driver.

    Raises:
        MemoryError: the GPU has no memory left.
        RuntimeError: anything else went wrong.
    """
    status = getattr(DRIVER, name)(*arguments)
    if status == OUT_OF_MEMORY:
        raise MemoryError(f"the GPU has no memory left ({name})")
    if status:
        text = ctypes.c_char_p()
        DRIVER.cuGetErrorName(status, ctypes.byref(text))
        raise RuntimeError(f"{name}: {(text.value or b'unknown').decode()} ({status})")


@functools.lru_cache(maxsize=None)
def gpu_identity() -> dict[str, str]:
    """Name, compute capability and driver of the first GPU, whose context becomes this thread's."""
    driver("cuInit", 0)
    device, context = ctypes.c_int(), ctypes.c_void_p()
    driver("cuDeviceGet", ctypes.byref(device), 0)
    driver("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    driver("cuCtxSetCurrent", context)
    name = ctypes.create_string_buffer(256)
    driver("cuDeviceGetName", name, len(name), device)
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver("cuDeviceGetAttribute", ctypes.byref(major), COMPUTE_CAPABILITY_MAJOR, device)
    driver("cuDeviceGetAttribute", ctypes.byref(minor), COMPUTE_CAPABILITY_MINOR, device)
    return {
        "name": name.value.decode(errors="replace"),
        "compute_capability": f"{major.value}.{minor.value}",
        "driver": driver_version(
            read("/proc/driver/nvidia/version") or "", read("/etc/nv_tegra_release") or ""
        ),
    }


def driver_version(kernel_module: str, tegra_release: str) -> str:
    """The driver's version: by its kernel module, on older Jetsons by the release of their system."""
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", kernel_module)
    return found.group(1) if found else tegra_release.partition("\n")[0].lstrip("# ") or "unknown"


class Buffer:
    """A tensor in memory of the GPU, and beside it in locked memory of the host, as ``array``."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.address, self._host = ctypes.c_uint64(), ctypes.c_void_p()
        size = max(1, int(numpy.prod(shape, dtype=numpy.int64)) * dtype.itemsize)
        driver("cuMemAlloc_v2", ctypes.byref(self.address), ctypes.c_size_t(size))
        driver("cuMemAllocHost_v2", ctypes.byref(self._host), ctypes.c_size_t(size))
        assert self._host.value is not None
        memory = (ctypes.c_byte * size).from_address(self._host.value)
        self.array = numpy.frombuffer(memory, dtype, int(numpy.prod(shape))).reshape(shape)

    def upload(self) -> None:
        """Copy ``array`` to the GPU, complete."""
        driver("cuMemcpyHtoD_v2", self.address, self._host, ctypes.c_size_t(self.array.nbytes))

    def download(self) -> None:
        """Copy what is on the GPU to ``array``, complete."""
        driver("cuMemcpyDtoH_v2", self._host, self.address, ctypes.c_size_t(self.array.nbytes))

    def __del__(self) -> None:
        if self.address.value:
            DRIVER.cuMemFree_v2(self.address)
        if self._host.value:
            DRIVER.cuMemFreeHost(self._host)
