"""What the host knows of a runtime: the engine to send, the artifacts it takes, the targets it can be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from devices.errors import TargetError
from devices.target import Target


@dataclass(frozen=True)
class Runtime:
    """An inference engine as seen from the host.

    ``engine`` is a Python file (3.8+, standard library, numpy and the runtime only) that is pushed to the
    device and loaded by the agent. Importing it must raise ImportError when the runtime is not installed.
    It provides::

        def version() -> str
        def binaries() -> list[str]                     # native files whose content identifies the runtime
        class Model:
            def __init__(self, path: str, settings: dict)  # load; settings: threads, precision, options
            inputs: list[tuple[tuple[int, ...], str]]      # shape and numpy dtype of each input
            def set_inputs(self, arrays) -> None           # copy into buffers that the runtime owns
            def run(self) -> None                          # one inference, complete on return: this is timed
            def outputs(self) -> list                      # copies of the last outputs

    ``run`` may be called many times after one ``set_inputs`` and gives the same outputs each time; no copy
    between the caller and the runtime is in it, so that times of blocks add up. The suite in
    ``tests/contracts/runtime.py`` checks all this.

    Attributes:
        name: as written in targets.
        engine: the engine file on the host.
        suffixes: file suffixes of the artifacts it loads.
        precisions: precisions that a target may name.
        options: options that a target may name.
        extra: the extra of the distribution that installs it.
    """

    name: str
    engine: Path
    suffixes: tuple[str, ...]
    precisions: tuple[str, ...]
    options: tuple[str, ...]
    extra: str

    def check(self, target: Target) -> None:
        """Refuse a precision or option that the runtime does not have.

        Raises:
            TargetError: naming what is supported.
        """
        if target.precision not in self.precisions:
            raise TargetError(
                f"target '{target}' asks for {target.precision}",
                why=f"{self.name} is supported with {', '.join(self.precisions)}",
                fix=f"write {target.device}/{target.runtime}:{self.precisions[0]}@{target.threads}",
            )
        for option in target.options:
            if option not in self.options:
                raise TargetError(
                    f"target '{target}' asks for the option '{option}'",
                    why=f"{self.name} has {', '.join(self.options) or 'no options'}",
                    fix=f"leave '+{option}' out",
                )

    def missing(self, device: str, detail: str) -> TargetError:
        """The error for a device on which the runtime cannot be imported."""
        return TargetError(
            f"{self.name} is not installed on '{device}'",
            why=detail,
            fix=f'pip install "lathe-deploy[{self.extra}]"',
        )
