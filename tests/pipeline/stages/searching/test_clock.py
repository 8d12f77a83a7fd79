from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.stages.searching.clock import Clock


def test_time_of_processes_before_counts(tmp_path: Path) -> None:
    path = tmp_path / "seconds.json"
    assert Clock(path).seconds() < 1000
    path.write_text('{"seconds": 1000.5}')
    clock = Clock(path)
    assert 1000.5 <= clock.seconds() < 2000
    clock.keep()
    assert Clock(path).seconds() >= 1000.5


@pytest.mark.parametrize(
    "content", ["", "[]", '{"seconds": "x"}', '{"seconds": -5}', "{}", '{"seconds": Infinity}']
)
def test_a_file_that_means_nothing_counts_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "seconds.json"
    path.write_text(content)
    assert 0 <= Clock(path).seconds() < 1000
