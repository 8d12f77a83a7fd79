"""What is said when the worker process ends badly."""

from __future__ import annotations

import errno

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.errors import ExportError, PassingExportError
from pipeline.export.base import Format
from pipeline.export.blocks import _groups
from pipeline.export.conversion import _fold_batch_norm, convert
from pipeline.export.process import how_it_ended
from pipeline.export.worker import first_line, lacks_memory, lacks_space


def test_a_signal_is_named_when_the_exporter_aborts():
    assert how_it_ended(-6, b"some words\nLLVM ERROR: no\n") == (
        "the exporter was ended by SIGABRT: LLVM ERROR: no"
    )


def test_the_last_line_is_given_when_the_exporter_ends_before_it_can_tell():
    assert how_it_ended(1, b"no torch") == "the exporter ended with status 1: no torch"


def test_first_line_is_the_innermost_cause():
    try:
        try:
            raise KeyError("aten.special")
        except KeyError as error:
            raise RuntimeError("step 3 of 3 failed\nand much advice") from error
    except RuntimeError as error:
        assert first_line(error) == "KeyError: 'aten.special'"


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (caused(RuntimeError("step 3 of 3 failed"), MemoryError()), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("memory format is not supported"), False),
        (KeyError("aten.special"), False),
    ],
)
def test_memory_that_runs_out_is_recognised_under_any_name(error, memory):
    assert lacks_memory(error) is memory


class Greedy(nn.Module):
    def forward(self, images):
        raise MemoryError


class Wrong(nn.Module):
    def forward(self, images):
        raise NotImplementedError("never")


@pytest.mark.parametrize(("module", "passing"), [(Greedy(), True), (Wrong(), False)])
def test_a_trace_without_memory_may_succeed_another_time(module, passing):
    with pytest.raises(ExportError, match="could not trace") as caught:
        convert([(module, (1, 2, 2))], Format.ONNX, "output")
    assert isinstance(caught.value, PassingExportError) is passing


@given(st.lists(st.integers(1, 300), min_size=1, max_size=200), st.integers(1, 500), st.integers(1, 8))
def test_groups_hold_every_name_once_and_are_of_bearable_size(layers, most, workers):
    sizes = {str(index): own for index, own in enumerate(layers)}
    groups = _groups(sizes, most, workers)
    assert [name for group in groups for name in group] == list(sizes)
    assert all(groups)
    # Half of the first and of the last module may stand out at either end.
    assert all(sum(sizes[name] for name in group) <= most + max(layers) for group in groups)


def test_small_modules_are_shared_out_among_the_workers():
    groups = _groups(dict.fromkeys("abcdef", 10), 400, 2)
    assert groups == [["a", "b", "c"], ["d", "e", "f"]]


def test_large_modules_are_converted_one_by_one():
    groups = _groups(dict.fromkeys("abcd", 120), 200, 2)
    assert max(map(len, groups)) <= 2
    assert len(groups) >= 3


def test_fold_batch_norm_keeps_the_function_and_leaves_shared_layers_alone():
    torch.manual_seed(0)
    shared = nn.Conv2d(3, 3, 1)
    norms = [nn.BatchNorm2d(3), nn.BatchNorm2d(3)]
    for norm in norms:
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    network = nn.Sequential(
        nn.Sequential(shared, norms[0]), nn.ReLU(), nn.Sequential(shared, norms[1])
    ).eval()
    inputs = torch.randn(2, 3, 5, 5)
    expected = network(inputs)
    _fold_batch_norm(network)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    torch.testing.assert_close(network(inputs), expected)


@pytest.mark.parametrize(
    ("error", "space"),
    [
        (OSError(errno.ENOSPC, "anything"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("iostream error"), False),
        (OSError(errno.EACCES, "Permission denied"), False),
    ],
)
def test_a_full_disk_is_told_from_a_failure_of_the_exporter(error: Exception, space: bool) -> None:
    """Else it would be kept for ever as a failure of the model."""
    outer = ValueError("the exporter failed")
    outer.__cause__ = error
    assert lacks_space(outer) is space
