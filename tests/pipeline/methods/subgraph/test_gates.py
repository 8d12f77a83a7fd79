from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.methods.subgraph.gates import Gates
from pipeline.methods.subgraph.structures import find_structures, removed
from tests.pipeline.methods.subgraph.networks import NETWORKS, SHAPE, bottlenecks, fused, images, plain


def gated(network: nn.Module) -> Gates:
    return Gates(network, find_structures(network, SHAPE))


def penalties(gates: Gates, weight: float) -> dict[str, torch.Tensor]:
    return {name: torch.full_like(value.detach(), weight) for name, value in gates.values.items()}


@pytest.mark.parametrize("network", NETWORKS)
def test_gates_leave_the_function_as_it_was_so_the_divergence_to_the_teacher_is_zero(
    network: Callable[[], nn.Module],
) -> None:
    teacher, student = network(), network()
    gated(student)
    with torch.no_grad():
        theirs, ours = teacher(images()).log_softmax(1), student(images()).log_softmax(1)
    assert float(functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)) < 1e-6


@pytest.mark.parametrize("network", NETWORKS)
def test_a_large_penalty_gives_exact_zeros_everywhere_but_in_what_must_stay(
    network: Callable[[], nn.Module],
) -> None:
    student = network()
    gates = gated(student)
    least = {name: 0 if len(value) == 1 else 2 for name, value in gates.values.items()}
    for _ in range(3):
        student(images()).sum().backward()
        gates.proximal_step(0.1, penalties(gates, 1e6), least)
    assert {name: len(parts) for name, parts in gates.kept().items()} == least
    for value in gates.values.values():
        assert (value >= 0).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_folded_gates_and_removed_zeros_leave_the_outputs_as_they_were(
    network: Callable[[], nn.Module],
) -> None:
    student = network()
    structures = find_structures(student, SHAPE)
    gates = Gates(student, structures)
    for name, value in gates.values.items():
        gates.keep(name, torch.arange(max(1, len(value) // 2)))
    with torch.no_grad():
        for value in gates.values.values():
            value.mul_(torch.linspace(0.5, 1.5, len(value)))
        before = student(images())
        gates.fold()
        torch.testing.assert_close(student(images()), before, rtol=1e-4, atol=1e-5)
        smaller = removed(student, SHAPE, structures, gates.kept())
        torch.testing.assert_close(smaller(images()), before, rtol=1e-3, atol=1e-4)


def test_parts_that_are_kept_keep_their_gates_and_those_that_were_gone_begin_at_1() -> None:
    gates = gated(plain())
    name, value = next((name, value) for name, value in gates.values.items() if len(value) >= 4)
    with torch.no_grad():
        value[:4] = torch.tensor([0.5, 0.0, 0.25, 0.75])
    gates.keep(name, torch.tensor([0, 1, 3]))
    assert value[:4].tolist() == [0.5, 1.0, 0.0, 0.75]
    assert not value[4:].any()


def test_without_a_penalty_and_gradient_a_step_changes_nothing() -> None:
    student = plain()
    gates = gated(student)
    before = {name: value.detach().clone() for name, value in gates.values.items()}
    gates.proximal_step(0.1, penalties(gates, 0.0), dict.fromkeys(gates.values, 1))
    for name, value in gates.values.items():
        torch.testing.assert_close(value.detach(), before[name])


def test_gates_fall_at_the_pace_of_their_own_penalties_however_their_layer_falls() -> None:
    """The loophole: behind a normalisation all gates of a layer could shrink for nothing."""
    student = plain()
    gates = gated(student)
    weights = {name: torch.linspace(1, 2, len(value)) for name, value in gates.values.items()}
    for _ in range(4):
        gates.proximal_step(0.1, weights, dict.fromkeys(gates.values, 0), momentum=0)
    for name, value in gates.values.items():
        torch.testing.assert_close(value.detach(), 1 - 0.4 * weights[name])


def test_a_state_is_restored_exactly() -> None:
    student = plain()
    gates = gated(student)
    student(images()).square().sum().backward()
    gates.proximal_step(1e-3, penalties(gates, 1.0), dict.fromkeys(gates.values, 1))
    other = gated(plain())
    other.restore(gates.state())
    for name, value in gates.values.items():
        assert torch.equal(other.values[name], value)


@pytest.mark.parametrize("network", [bottlenecks, fused])
def test_gates_lie_where_their_layers_do(network: Callable[[], nn.Module]) -> None:
    """Operations refuse tensors of two devices; one that computes nothing stands for a GPU."""
    structures = find_structures(network(), SHAPE)
    student = network().to("meta")
    gates = Gates(student, structures)
    student(images().to("meta")).sum().backward()
    gates.proximal_step(0.1, penalties(gates, 1.0), dict.fromkeys(gates.values, 1))
    student(images().to("meta")).sum().backward()
    gates.fold()
    assert {value.device.type for value in gates.values.values()} == {"meta"}
    assert {parameter.device.type for parameter in student.parameters()} == {"meta"}
