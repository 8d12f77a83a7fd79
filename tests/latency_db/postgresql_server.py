"""A real PostgreSQL server for the tests, which can be stopped and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import create_engine


def missing() -> str | None:
    """Why no server can be started here, if none can."""
    if _binary("initdb") is None:
        return "PostgreSQL is not installed (Debian: postgresql)"
    if find_spec("psycopg") is None:
        return "psycopg is not installed (extra postgresql)"
    if os.getuid() == 0 and shutil.which("setpriv") is None:
        return "root may not start PostgreSQL, and setpriv is not installed (Debian: util-linux)"
    return None


class PostgresqlServer:
    """A server of its own on a free port, without authentication, in a temporary folder."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="lathe-postgresql-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        if os.getuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        data = str(self._folder / "data")
        self._call("initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "-D", data)

    def start(self) -> None:
        settings = [
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self._folder}",
        ]
        options = [option for setting in (*settings, "fsync=off") for option in ("-c", setting)]
        command = self._command("postgres", "-D", str(self._folder / "data"), *options)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
        for _ in range(300):
            ready = [str(_binary("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError((self._folder / "log").read_text())

    def stop(self) -> None:
        """Stop at once, as in a crash: connections end, and what was committed is recovered later."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(60)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"lathe_{self._databases}"
        engine = create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://{self._user}@127.0.0.1:{self.port}/{database}"

    def _call(self, *arguments: str) -> None:
        subprocess.run(self._command(*arguments), check=True, capture_output=True, cwd="/")

    def _command(self, name: str, *arguments: str) -> list[str]:
        command = [str(_binary(name)), *arguments]
        if os.getuid() != 0:
            return command
        # With --pdeathsig nothing stays behind when the tests are killed.
        return [
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            "--pdeathsig=INT",
            *command,
        ]


def _binary(name: str) -> Path | None:
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name)
    return installed[-1] if installed else Path(found) if found else None
