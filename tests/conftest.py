"""With CI=true nothing may be skipped silently: a skip fails unless its reason names what CI cannot have."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator
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
        patch.setenv("LATHE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("LATHE_DB", str(tmp_path_factory.mktemp("data") / "latency.db"))
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--measuring", choices=("only", "without"), help="run only the tests that measure, or only the others"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("--measuring")
    if chosen is None:
        return
    kinds: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        kinds[item.get_closest_marker("measures") is not None].append(item)
    items[:] = kinds[chosen == "only"]
    config.hook.pytest_deselected(items=kinds[chosen != "only"])


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
