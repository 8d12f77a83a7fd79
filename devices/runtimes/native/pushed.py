"""Tools that are files of this machine and are pushed to the device; ``tools.py`` finds them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from devices.digests import file_digest
from devices.errors import TargetError
from devices.runtimes.native.base import Fields, NativeRuntime, Tool, ToolFailed, ToolSession, tail
from devices.runtimes.native.shell import read_platform
from devices.runtimes.native.tools import native_tool

UNKNOWN_VERSION = "unknown"
"""These tools do not tell their version; the digest of the binary identifies them."""


@dataclass(frozen=True)
class PushedTool(NativeRuntime[Tool]):
    """A runtime whose tool is pushed.

    Attributes:
        tool: the tool's name.
        usage: a part of what the tool prints when it is asked for its usage.
    """

    tool: str
    usage: str

    usage_arguments: ClassVar[tuple[str, ...]] = ("--help",)

    def find(self, session: ToolSession) -> Tool:
        """Push the file for the device's system and processor."""
        call = session.call
        path = native_tool(self.tool, read_platform(call.connection), call.tools)
        return Tool(self.tool, call.connection.push(path), UNKNOWN_VERSION, file_digest(path))

    def identity(self, session: ToolSession, tool: Tool) -> Fields:
        """The device, after a look at what the tool is; its GPU, where the target's option uses one."""
        target = session.call.target
        try:
            lines, _ = session.run(tool, self.usage_arguments)
        except ToolFailed as failure:
            lines = [f"{failure.code}: {failure}"]
        if not any(self.usage in line for line in lines):
            raise TargetError(
                f"{self.tool} does not run on '{target.device}', or is another program",
                why=f"asked for its usage, it gave: {tail(lines)}",
                fix=f"give a {self.tool} that is built for this device",
            )
        device = super().identity(session, tool)
        if self.delegate(target) == self.delegate(replace(target, options=())):  # the CPU
            device["accelerator"] = ""
        return device
