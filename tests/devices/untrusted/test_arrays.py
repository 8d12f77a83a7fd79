from __future__ import annotations

import os
from pathlib import Path

import pytest

from devices.untrusted import array_from


def test_a_pipe_is_no_array(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(ValueError, match="not a regular file"):
        array_from(tmp_path / "pipe.npy")
