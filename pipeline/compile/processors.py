"""What this machine's processor is called, and for which products it has instructions."""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_FLOATS = {"fp16": {"avx512_fp16", "amx_fp16", "asimdhp"}, "bf16": {"avx512_bf16", "amx_bf16", "bf16"}}
_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}


def processor_name() -> str:
    """Name of the processor, or its architecture where the system does not tell."""
    return _field("model name") or platform.processor() or platform.machine()


def has_dot_products() -> bool:
    """Whether it multiplies 8-bit integers without saturating in between (VNNI, AMX, Arm's dot product).

    Where the system does not tell, it is taken not to.
    """
    return bool(_DOT_PRODUCTS & set(f"{_field('flags')} {_field('Features')}".split()))


def computes_in(precision: str) -> bool:
    """Whether it has instructions for products in ``fp16`` or ``bf16``; taken not to where nothing tells."""
    return bool(_FLOATS[precision] & set(f"{_field('flags')} {_field('Features')}".split()))


def _field(name: str) -> str:
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.partition(":")[0].strip() == name:
                return line.partition(":")[2].strip()
    return ""
