"""What every compile variant must keep. Inherit ``CompileVariantContract``, give ``variant`` and ``task``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from devices.digests import file_digest
from devices.requests import predict
from pipeline.compile import CompileTask, CompileVariant
from pipeline.errors import ExportError

FAR_OFF = 0.25
"""Share of the largest output by which a variant that is not lossless may be off, on a small network."""


class CompileVariantContract:
    @pytest.fixture
    def variant(self) -> CompileVariant:
        raise NotImplementedError("a subclass gives the variant")

    @pytest.fixture
    def task(self) -> CompileTask:
        """A model of one input, its target, and calibration inputs."""
        raise NotImplementedError("a subclass gives the task")

    @pytest.fixture
    def expected(self) -> np.ndarray:
        """The model's own outputs for the calibration inputs, a row for each."""
        raise NotImplementedError("a subclass gives the outputs")

    def test_the_file_runs_computes_what_the_model_does_and_is_the_same_each_time(
        self, variant, task, expected, tmp_path
    ):
        """One test, since some variants take a minute to make."""
        path, again = tmp_path / f"made{variant.suffix}", tmp_path / f"again{variant.suffix}"
        notes = variant.make(task, path)
        assert all(isinstance(each, str) for pair in notes.items() for each in pair)
        assert [each.name for each in tmp_path.iterdir() if each.is_file()] == [path.name]
        (inputs,) = task.calibration.values()
        outputs = predict(path, inputs, task.target)
        allowed = 1e-4 if variant.lossless else FAR_OFF * np.abs(expected).max()
        assert np.abs(outputs - expected).max() <= allowed
        assert variant.make(task, again) == notes
        assert file_digest(path) == file_digest(again)

    def test_a_file_that_is_no_model_is_refused_and_nothing_is_left(self, variant, task, tmp_path):
        broken = tmp_path / f"broken{task.model.suffix}"
        broken.write_bytes(b"no model at all")
        path = tmp_path / "made" / f"made{variant.suffix}"
        path.parent.mkdir()
        with pytest.raises(ExportError):
            variant.make(CompileTask(broken, task.target, task.calibration, task.sensitive), path)
        assert list(path.parent.iterdir()) == []

    def test_its_name_says_runtime_and_precision(self, variant, task):
        assert variant.name.startswith(f"{variant.runtime}:{variant.precision}")
        assert (task.target.runtime, task.target.precision) == (variant.runtime, variant.precision)
        assert Path(f"x{variant.suffix}").suffix == variant.suffix
