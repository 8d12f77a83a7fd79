"""With CI=true nothing may be skipped silently: a skip fails unless its reason names what CI cannot have."""

from __future__ import annotations

import faulthandler
import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

# As Hypothesis has it in CI: there every run draws the same examples, and on a busy machine the time that an
# example takes says nothing.
settings.register_profile(
    "lathe",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lathe")

pytest.register_assert_rewrite("tests.contracts")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
ALLOWED_IN_CI = ("GPU",)
EXIT_S = 120


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Generator[None, None, None]:
    """Locks, devices and databases of the suite are its own, never the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATHE_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        patch.setenv("LATHE_DEVICES", str(tmp_path_factory.mktemp("config") / "devices.toml"))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("trust")))
        patch.setenv("LATHE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("LATHE_DB", str(tmp_path_factory.mktemp("data") / "latency.db"))
        yield


@pytest.fixture(scope="module")
def quiet_machine() -> Generator[None, None, None]:
    """No launch is disturbed and every measurement valid, however busy the machine of the tests is."""
    from tests.quiet_machine import be_quiet

    with pytest.MonkeyPatch.context() as patch:
        be_quiet(patch.setattr)
        yield


@pytest.fixture(scope="module")
def exporters_here() -> Generator[None, None, None]:
    """Modules are exported in this process, where the exporters are imported once."""
    from tests.exporters_here import export_here

    with pytest.MonkeyPatch.context() as patch:
        export_here(patch.setattr)
        yield


@pytest.fixture(scope="session")
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file system of an arm64 board, one for all workers of a run."""
    from tests.devices.arm64 import arm64_tree

    own = tmp_path_factory.getbasetemp()
    return arm64_tree(own.parent if hasattr(request.config, "workerinput") else own)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests go first, so that no worker is left alone with one of them at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow") is not None)
    items.sort(key=lambda item: -slow[item.path])


def _refuse_skip(report: Report) -> Report:
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(word in reason for word in ALLOWED_IN_CI):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _refuse_skip((yield))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """A thread that never ends keeps Python from ending: show where it hangs, and fail."""
    faulthandler.dump_traceback_later(EXIT_S, exit=True)
