from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from pipeline.data.tensors import to_tensor
from pipeline.methods.subgraph.gates import Gates
from pipeline.methods.subgraph.importance import importances, most_important
from pipeline.methods.subgraph.structures import find_structures
from tests.pipeline.methods.subgraph.networks import SHAPE, plain
from tests.pipeline.methods.subgraph.test_selection import dataset


def test_importance_is_the_curvature_of_the_divergence_to_the_network_as_it_was() -> None:
    network, data = plain(), dataset(1536)
    structures = find_structures(network, SHAPE)
    teacher, gates = copy.deepcopy(network), Gates(network, structures)
    found = importances(network, gates, data, seed=0)
    inputs = to_tensor(data.train.images, data.preprocessing)
    step = 0.02
    with torch.no_grad():
        theirs = teacher(inputs).log_softmax(1)
        for name, gate in gates.values.items():
            for part in range(len(gate)):
                gate[part] = 1 - step
                ours = network(inputs).log_softmax(1)
                gate[part] = 1
                divergence = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
                curvature = 2 * float(divergence) / step**2
                # Labels are drawn, so the one is an estimate of the other.
                assert float(found[name][part]) == pytest.approx(curvature, rel=0.8, abs=1e-3)


def test_what_reaches_nothing_does_not_matter() -> None:
    network = plain()
    with torch.no_grad():
        network.get_parameter("3.weight")[:, 2] = 0
    gates = Gates(network, find_structures(network, SHAPE))
    found = importances(network, gates, dataset(), seed=0)
    assert float(found["0"][2]) == 0
    assert (found["0"][[0, 1, 3]] > 0).all()


def test_the_same_seed_gives_the_same_importances_and_few_images_suffice() -> None:
    network = plain()
    gates = Gates(network, find_structures(network, SHAPE))
    once, twice = (importances(network, gates, dataset(5), seed=3) for _ in range(2))
    for name, value in once.items():
        assert torch.equal(value, twice[name])


def test_the_most_important_parts_are_told_in_their_order() -> None:
    assert most_important(torch.tensor([1.0, 5.0, 3.0, 5.0]), 3) == [1, 2, 3]
    assert most_important(torch.tensor([1.0, 5.0]), 0) == []
