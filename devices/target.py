"""A target names everything that decides a latency: device, runtime, precision, options, threads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from devices.errors import TargetError
from devices.words import count_of

__all__ = ["PRECISIONS", "Target"]

MOST_THREADS = 1024
PRECISIONS = ("fp32", "fp16", "bf16", "int8")

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_PATTERN = re.compile(
    rf"(?P<device>{_NAME})/(?P<runtime>[a-z][a-z0-9-]*):(?P<precision>[a-z0-9]+)"
    r"(?P<options>(?:\+[a-z][a-z0-9-]*(?:=[A-Za-z0-9][A-Za-z0-9.,_-]*)?)*)(?:@(?P<threads>[0-9]{1,4}))?"
)


@dataclass(frozen=True, order=True)
class Target:
    """Device, runtime, precision, options and threads; written ``DEVICE/RUNTIME:PRECISION+OPTION@THREADS``.

    An option is ``name`` or ``name=value``, e.g. ``gpu`` or ``cores=4-7``. ``Target.parse(str(target)) ==
    target`` holds for every target; the text gives options in alphabetical order, and always the threads.
    """

    device: str
    runtime: str
    precision: str = "fp32"
    threads: int = 1
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Put the options in order.

        Raises:
            TargetError: an option is given twice.
        """
        object.__setattr__(self, "options", tuple(sorted(self.options)))
        if len(self.settings) < len(self.options):
            raise TargetError(f"target '{self}' gives an option twice", fix="give each option once")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``host/litert:fp32@1`` and the like; threads default to 1.

        Raises:
            TargetError: the text has another form, or names an unknown precision.
        """
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise TargetError(
                f"'{text}' is not a target",
                why="a target is written DEVICE/RUNTIME:PRECISION@THREADS",
                fix="write for example host/onnxruntime:fp32@1 or host/litert:fp32@1",
            )
        precision = match["precision"]
        if precision not in PRECISIONS:
            raise TargetError(
                f"target '{text}' names the unknown precision '{precision}'",
                why=f"known precisions are {', '.join(PRECISIONS)}",
                fix=f"write {match['device']}/{match['runtime']}:fp32@1",
            )
        threads = int(match["threads"] or 1)
        if not 1 <= threads <= MOST_THREADS:
            raise TargetError(
                f"target '{text}' asks for {threads} threads", fix=f"write @1 to @{MOST_THREADS}"
            )
        options = tuple(match["options"].split("+")[1:])
        return cls(match["device"], match["runtime"], precision, threads, options)

    def __str__(self) -> str:
        options = "".join(f"+{option}" for option in self.options)
        return f"{self.device}/{self.runtime}:{self.precision}{options}@{self.threads}"

    def warning(self, cores: int) -> str:
        """What to say where the target asks for more threads than its device has cores; else nothing."""
        if self.threads <= cores:
            return ""
        have = count_of(cores, "core")
        return (
            f"{self} asks for {self.threads} threads, and the device has {have}: threads wait for each other"
        )

    @property
    def settings(self) -> Mapping[str, str]:
        """Options by name; those without a value have an empty one."""
        return MappingProxyType(
            {name: value for name, _, value in (option.partition("=") for option in self.options)}
        )
