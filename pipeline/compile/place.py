"""Where a model is compiled for: a target of which runtime, precision and threads may be left open."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from devices.errors import LatheError, TargetError
from devices.inventory import HOST, find_device, runtime_of
from devices.measuring import probe
from devices.runtimes import AgentRuntime, known_runtimes
from devices.target import PRECISIONS, Target
from pipeline.compile.variants import CompileVariant, known_variants

_PATTERN = re.compile(
    r"(?P<device>[^/:+@]+)(?:/(?P<runtime>[^/:+@]+)(?::(?P<precision>[^/:+@]+))?)?"
    r"(?P<options>(?:\+[^+@]+)*)(?:@(?P<threads>[1-9][0-9]{0,3}))?"
)


@dataclass(frozen=True)
class Place:
    """``DEVICE``, ``DEVICE/RUNTIME``, ``DEVICE/RUNTIME:PRECISION``, each with or without ``@THREADS``.

    What is left out is open: every runtime that is there, every precision, and every number of threads is
    tried.
    """

    device: str
    runtime: str | None = None
    precision: str | None = None
    options: tuple[str, ...] = ()
    threads: int | None = None

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read ``host``, ``host/onnxruntime``, ``pi5/litert:int8@4`` and the like.

        Raises:
            TargetError: the text has another form, or names a device, runtime or precision that is unknown.
        """
        match = _PATTERN.fullmatch(text.strip())
        if match is None or (match["options"] and not match["runtime"]):
            raise TargetError(
                f"'{text}' is not a target to compile for",
                why="it is written DEVICE, DEVICE/RUNTIME, DEVICE/RUNTIME:PRECISION or "
                "DEVICE/RUNTIME:PRECISION@THREADS",
                fix="write for example host, host/onnxruntime or host/onnxruntime:int8@1",
            )
        options = tuple(match["options"].split("+")[1:])
        threads = int(match["threads"]) if match["threads"] else None
        place = cls(match["device"], match["runtime"], match["precision"], options, threads)
        find_device(place.device)
        if place.precision is not None and place.precision not in PRECISIONS:
            raise TargetError(
                f"'{text}' names the unknown precision '{place.precision}'",
                why=f"known precisions are {', '.join(PRECISIONS)}",
                fix=f"write {place.device}/{place.runtime}",
            )
        if place.runtime is not None:
            # Refuses what is no target at all.
            Target.parse(str(place.target(place.runtime, place.precision or "fp32")))
            runtime_of(place.target(place.runtime, "fp32"))
        return place

    def __str__(self) -> str:
        runtime = f"/{self.runtime}" if self.runtime else ""
        precision = f":{self.precision}" if self.precision else ""
        options = "".join(f"+{option}" for option in self.options)
        threads = f"@{self.threads}" if self.threads else ""
        return f"{self.device}{runtime}{precision}{options}{threads}"

    def target(self, runtime: str, precision: str, threads: int | None = None) -> Target:
        """The target of a variant there; one thread where they are open."""
        return Target(self.device, runtime, precision, threads or self.threads or 1, self.options)

    def variants(self) -> Iterator[tuple[CompileVariant, str]]:
        """Variants that could be made for here, each with the reason why it is not, or nothing.

        Of a runtime that is not on the device, nothing is said. The model as it comes is always made: it is
        what others are measured against.
        """
        present: dict[str, bool] = {}
        for variant in known_variants():
            if self.runtime not in (None, variant.runtime):
                continue
            if variant.runtime not in present:
                present[variant.runtime] = self.has(variant.runtime)
            if not present[variant.runtime]:
                continue
            asked = self.precision in (None, variant.precision) or is_as_it_comes(variant)
            if not asked:
                continue
            try:
                target = self.target(variant.runtime, variant.precision)
                runtime_of(target)
                yield variant, "" if is_as_it_comes(variant) else variant.unfit(target)
            except TargetError as error:
                yield variant, error.why or error.what

    def has(self, runtime: str) -> bool:
        """Whether a runtime is on the device."""
        target = self.target(runtime, "fp32")
        try:
            if self.device == HOST.name:
                found = next((each for each in known_runtimes() if each.name == runtime), None)
                if not isinstance(found, AgentRuntime):
                    return False
                version(found.package)
                return True
            probe(target)
        except (LatheError, PackageNotFoundError):
            return self.runtime == runtime
        return True

    def identity(self, runtimes: frozenset[str]) -> Any:
        """What stands behind the runtimes now, as JSON: part of the key of what is measured.

        On this machine the packages and the processor say it, which takes no time.
        """
        if self.device == HOST.name and "native" not in self.options:
            from pipeline.compile.processors import processor_name

            packages = {
                each.name: version(each.package)
                for each in known_runtimes()
                if isinstance(each, AgentRuntime) and each.name in runtimes
            }
            return {"processor": processor_name(), "packages": packages}
        found = {}
        for runtime in sorted(runtimes):
            identity, device = probe(self.target(runtime, "fp32"))
            found[runtime] = [identity.version, identity.binary_digest, device.cpu, device.cores]
        return found


def is_as_it_comes(variant: CompileVariant) -> bool:
    """Whether it is the model itself, in a runtime's default: a baseline."""
    return variant.lossless and not variant.how and variant.precision == "fp32"
