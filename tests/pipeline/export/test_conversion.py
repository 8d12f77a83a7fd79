"""What is said when the worker process ends badly."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.export.blocks import _groups
from pipeline.export.conversion import _fold_batch_norm
from pipeline.export.process import how_it_ended
from pipeline.export.worker import first_line


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


@given(st.integers(0, 200), st.integers(1, 70), st.integers(1, 4))
def test_groups_hold_every_name_once_and_are_of_bearable_size(count, largest, workers):
    names = [str(index) for index in range(count)]
    groups = _groups(names, largest, workers)
    assert [name for group in groups for name in group] == names
    assert all(1 <= len(group) <= largest for group in groups)
    assert len(groups) >= min(workers, count)


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
