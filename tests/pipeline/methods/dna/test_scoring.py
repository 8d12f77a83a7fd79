import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.errors import TeacherError
from pipeline.methods.dna.features import ScoreSet, standard_deviation
from pipeline.methods.dna.scoring import calibrate, score_paths
from pipeline.methods.dna.supernet import Supernet


def convolution(inputs, outputs, kernel=3):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def supernet(seed=0, layers=3, choices=2):
    torch.manual_seed(seed)
    made = Supernet([[convolution(3, 3, 1 + 2 * index) for index in range(choices)] for _ in range(layers)])
    for _ in range(3):  # statistics as training leaves them
        made.train()(torch.randn(8, 3, 5, 5), (0,) * layers)
    return made


def score_set(seed=0, targets=None, batches=2):
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(6, 3, 5, 5, generator=generator) for _ in range(batches)]
    calibration = [torch.randn(4, 3, 5, 5, generator=generator) for _ in range(batches)]
    targets = [targets(x) if targets else torch.randn(6, 3, 5, 5, generator=generator) for x in inputs]
    return ScoreSet(tuple(calibration), tuple(inputs), tuple(targets), standard_deviation(targets))


def state(module):
    norms = [m.momentum for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    modes = [m.training for m in module.modules()]
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}, norms, modes


def score_path(net, path, images, **options):
    """One path by itself: the only one of a supernet without choices."""
    return score_paths(Supernet([[module] for module in net.path_modules(path)]), images, **options).item()


@settings(max_examples=12)
@given(
    layers=st.integers(1, 3),
    choices=st.integers(1, 3),
    batches=st.integers(1, 2),
    measure=st.sampled_from(["relative-l1", "mse"]),
    recalibrate=st.booleans(),
)
def test_scores_that_share_beginnings_equal_those_path_by_path(
    layers, choices, batches, measure, recalibrate
):
    net, images = supernet(layers=layers, choices=choices), score_set(batches=batches)
    options = {"measure": measure, "recalibrate": recalibrate}
    shared = score_paths(net, images, **options)
    assert shared.shape == (choices,) * layers
    assert shared.dtype == np.float64
    for path in itertools.product(range(choices), repeat=layers):
        assert score_path(net, path, images, **options) == pytest.approx(shared[path], rel=1e-12)


def test_every_layer_runs_once_for_each_common_beginning():
    net, images = supernet(layers=3, choices=2), score_set(batches=1)
    runs = []
    for layer in net.candidates():
        for module in layer:
            module.register_forward_hook(lambda m, *_: runs.append(m.training))
    score_paths(net, images)
    assert len(runs) == 2 * (2 + 4 + 8)
    runs.clear()
    for path in itertools.product(range(2), repeat=3):
        score_path(net, path, images)
    assert len(runs) == 2 * 8 * 3


@pytest.mark.parametrize("recalibrate", [True, False])
def test_a_student_block_identical_to_the_teachers_scores_zero(recalibrate):
    net, path = supernet(), (1, 0, 1)
    modules = [*net.path_modules(path)]
    unrelated = score_set()
    if recalibrate:  # the teacher's statistics are then those of the same images
        calibrate(modules, unrelated.calibration)
    teacher = nn.Sequential(*modules).eval()
    with torch.no_grad():
        images = score_set(targets=lambda x: teacher(x).clone())
    scores = score_paths(net, images, recalibrate=recalibrate)
    assert scores[path] == 0.0
    assert (np.delete(scores.ravel(), np.ravel_multi_index(path, scores.shape)) > 0).all()


def test_score_is_the_mean_absolute_difference_in_standard_deviations_of_the_teacher():
    net = Supernet([[nn.Identity()]])
    images = score_set()
    x, y = torch.cat(images.inputs).double().numpy(), torch.cat(images.targets).double().numpy()
    assert images.sigma == pytest.approx(y.std())
    assert score_path(net, (0,), images) == pytest.approx(np.abs(y - x).mean() / y.std())
    assert score_path(net, (0,), images, measure="mse") == pytest.approx(np.square(y - x).mean())


def test_the_score_does_not_depend_on_the_scale_of_the_teachers_features():
    net = Supernet([[nn.Identity()]])
    one = score_set()
    scaled = ScoreSet(
        one.calibration,
        tuple(64 * x for x in one.inputs),
        tuple(64 * y for y in one.targets),
        64 * one.sigma,
    )
    assert score_path(net, (0,), scaled) == pytest.approx(score_path(net, (0,), one))
    assert score_path(net, (0,), scaled, measure="mse") == pytest.approx(
        64**2 * score_path(net, (0,), one, measure="mse")
    )


@pytest.mark.parametrize("training", [True, False])
def test_score_leaves_statistics_momentum_and_modes_as_they_were(training):
    net = supernet().train(training)
    before, momenta, modes = state(net)
    score_paths(net, score_set())
    score_path(net, (0, 1, 0), score_set())
    after, momenta_after, modes_after = state(net)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (momenta, modes) == (momenta_after, modes_after)


def test_recalibration_takes_the_statistics_of_the_path_and_not_of_training():
    net, images = supernet(), score_set()
    with torch.no_grad():
        recalibrated, plain = score_paths(net, images), score_paths(net, images, recalibrate=False)
        for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.add_(100.0)
    assert np.array_equal(score_paths(net, images), recalibrated)
    assert not np.allclose(score_paths(net, images, recalibrate=False), plain)


def test_calibrated_statistics_are_averages_over_the_batches():
    module = nn.BatchNorm2d(3)
    calibration = score_set(batches=3).calibration
    calibrate([module], calibration)
    means = torch.stack([x.mean((0, 2, 3)) for x in calibration])
    assert torch.allclose(module.running_mean, means.mean(0), atol=1e-6)
    assert not module.training


def test_path_whose_features_are_not_finite_is_evaluated_infinite():
    broken = nn.Conv2d(3, 3, 1)
    nn.init.constant_(broken.weight, math.nan)
    scores = score_paths(Supernet([[nn.Identity(), broken]]), score_set())
    assert np.isfinite(scores[0])
    assert scores[1] == math.inf


def test_teacher_whose_features_do_not_vary_is_refused():
    images = score_set(targets=torch.zeros_like)
    with pytest.raises(TeacherError, match="cannot be reproduced"):
        score_paths(supernet(), images)


def test_standard_deviation_is_of_all_batches_together():
    generator = torch.Generator().manual_seed(0)
    batches = [1000.0 + torch.randn(size, 2, 3, 3, generator=generator) for size in (5, 3)]
    together = torch.cat(batches).double().numpy()
    assert standard_deviation(batches) == pytest.approx(together.std(), rel=1e-9)
