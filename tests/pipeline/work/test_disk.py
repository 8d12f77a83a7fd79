from __future__ import annotations

import resource
import subprocess
import sys
import textwrap
from pathlib import Path

from pipeline.work.disk import write_atomically


def test_write_atomically_keeps_the_old_file_when_the_disk_fills_while_writing(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, b"old")
    code = textwrap.dedent(
        f"""
        import resource, signal, sys
        from pathlib import Path
        from pipeline.work.disk import write_atomically
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, {resource.RLIM_INFINITY}))
        try:
            write_atomically(Path(sys.argv[1]), b"x" * 1000)
        except OSError:
            sys.exit(7)
        """
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert ended.returncode == 7
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
