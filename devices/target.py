"""A target names everything that decides a latency: device, runtime, precision, threads, options."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from devices.errors import TargetError

PRECISIONS = ("fp32", "fp16", "bf16", "int8")

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_PATTERN = re.compile(
    rf"(?P<device>{_NAME})/(?P<runtime>[a-z][a-z0-9-]*):(?P<precision>[a-z0-9]+)"
    r"(?P<options>(?:\+[a-z][a-z0-9-]*)*)(?:@(?P<threads>[0-9]{1,4}))?"
)


@dataclass(frozen=True, order=True)
class Target:
    """Device, runtime, precision, options and threads; written ``DEVICE/RUNTIME:PRECISION+OPTION@THREADS``.

    ``Target.parse(str(target)) == target`` holds for every target.
    """

    device: str
    runtime: str
    precision: str = "fp32"
    threads: int = 1
    options: tuple[str, ...] = ()

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
        if threads < 1:
            raise TargetError(f"target '{text}' asks for {threads} threads", fix="write @1 or more")
        options = tuple(match["options"].split("+")[1:])
        return cls(match["device"], match["runtime"], precision, threads, options)

    def __str__(self) -> str:
        options = "".join(f"+{option}" for option in self.options)
        return f"{self.device}/{self.runtime}:{self.precision}{options}@{self.threads}"
