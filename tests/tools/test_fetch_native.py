from __future__ import annotations

import functools
import re
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from devices.digests import file_digest
from devices.runtimes.native.tools import native_folder, native_tool
from tests.places import ROOT


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def served(tmp_path):
    """A web server with one file, and its digest."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "tool").write_bytes(b"a tool")
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/tool", file_digest(folder / "tool")
    server.shutdown()
    thread.join()
    server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format, *arguments):
        pass


def fetch(*arguments):
    script = ROOT / "tools" / "fetch_native"
    return subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, check=False
    )


def test_fetch_native_installs_a_file_with_the_pinned_digest(served):
    url, digest = served
    ended = fetch("benchmark_model", "android-aarch64", "--url", url, "--sha256", digest)
    assert (ended.returncode, ended.stderr) == (0, "")
    installed = native_tool("benchmark_model", "android-aarch64", {})
    assert installed.read_bytes() == b"a tool" and installed.stat().st_mode & 0o111


def test_fetch_native_installs_nothing_when_the_digest_differs(served):
    url, _ = served
    ended = fetch("benchmark_model", "android-aarch64", "--url", url, "--sha256", "0" * 64)
    assert ended.returncode == 1 and "not installed" in ended.stderr
    assert list((native_folder() / "android-aarch64").iterdir()) == []


def test_fetch_native_fetches_nothing_when_no_digest_is_pinned():
    ended = fetch("benchmark_model", "android-aarch64")
    assert ended.returncode == 1 and "--sha256" in ended.stderr and "bazel build" in ended.stderr
    assert not (native_folder() / "android-aarch64").exists()


def test_fetch_native_says_how_to_build_a_tool_that_nobody_publishes():
    ended = fetch("onnxruntime_perf_test", "android-aarch64")
    assert ended.returncode == 1 and "build.sh" in ended.stderr


def test_fetch_native_installs_a_file_of_the_users_own(tmp_path):
    own = tmp_path / "my build"
    own.write_bytes(b"mine")
    assert fetch("onnxruntime_perf_test", "linux-aarch64", "--file", str(own)).returncode == 0
    assert native_tool("onnxruntime_perf_test", "linux-aarch64", {}).read_bytes() == b"mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "file:///etc/hostname", "--sha256", "0" * 64),
        ("--url", "http://127.0.0.1:9/tool", "--sha256", "0" * 64),
        ("--url", "http://127.0.0.1:9/tool", "--sha256", "short"),
        ("--file", "/no/such/file"),
    ],
)
def test_fetch_native_explains_what_it_cannot_do(arguments):
    ended = fetch("benchmark_model", "android-aarch64", *arguments)
    assert ended.returncode == 1 and ended.stderr.startswith("fetch_native: ")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("platform_name", ["../other", "", "a/b"])
def test_fetch_native_refuses_a_platform_that_is_a_path(platform_name):
    assert fetch("benchmark_model", platform_name, "--file", __file__).returncode == 2


def test_every_published_tool_is_listed_with_a_digest_or_none():
    listed = fetch("list").stdout.splitlines()
    assert any("benchmark_model android-aarch64" in line for line in listed)
    assert all(re.search(r" (no pinned digest|[0-9a-f]{64}) https://", line) for line in listed)
