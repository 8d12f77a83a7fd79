"""Searches the mixture of every layer group on two halves of the train images (DFA, 2008.00506)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from devices.digests import value_digest
from pipeline.data.base import Dataset, Split
from pipeline.data.tensors import to_tensor
from pipeline.distill.aggregation.bridge import Bridge, Paths
from pipeline.distill.aggregation.result import FoundMixture, MixtureEpoch
from pipeline.distill.aggregation.settings import MixtureSearchSettings
from pipeline.distill.augment import augment
from pipeline.distill.crash_marker import Tell, told_next_time
from pipeline.distill.divergence import TrainingDiverged
from pipeline.distill.draws import drawing_from
from pipeline.distill.ensemble import members_maps
from pipeline.distill.feature_groups import LayerGroup, layer_groups
from pipeline.distill.feature_maps import feature_maps, watched
from pipeline.distill.onednn_workaround import sampled_before_convolution
from pipeline.distill.settings import TrainingSettings
from pipeline.distill.training import EXAMPLES, save_atomically, training_device
from pipeline.errors import DataError

_LARGEST_GRADIENT = 5.0
_LAST_RATE = 0.04
_ADAM_BETAS = (0.5, 0.999)

OnEpoch = Callable[[int, int], None]


def search_mixtures(
    student: nn.Module,
    teacher: nn.Module,
    dataset: Dataset,
    settings: MixtureSearchSettings,
    training: TrainingSettings,
    *,
    seed: int,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
    tell: Tell = lambda line: None,
) -> tuple[FoundMixture, ...]:
    """Find ``beta* = argmin L(w*(beta), beta) + R(beta)`` with ``w*(beta) = argmin_w L(w, beta)``.

    The outer L is over one half of the train images, the inner one over the other. L is the bridge loss,
    ``gamma_ST L_ST + gamma_TS L_TS``, or one part of it. One group after the other is searched, from the
    images to the logits; the student, of which only the mixtures outlive the search, is trained on from
    group to group. R is the decay of beta.

    Steps are of first order: beta is improved for the weights as they are, then the weights for beta. After
    the warm-up, the gammas are chosen so that the gradients of both paths on beta have the lengths that
    ``balance`` asks for, over the whole outer half. For w both parts count 1: no weight gets a gradient of
    both, so that w* is the same for any gammas.

    Args:
        student: fresh; it ends trained for nothing, on the device of the training.
        teacher: is run in eval mode; the members of an ensemble add their maps to the groups.
        dataset: its train split is used.
        settings: of the search.
        training: gives augmentation, size of batches and threads.
        seed: of halves, order, augmentation, dropout and connectors.
        checkpoint: file written after every epoch and continued from when it exists.
        on_epoch: called with epochs done, and epochs at most.
        tell: called with a line when the last process that searched died in the middle.

    Returns:
        A mixture for each group. Where the teacher has one map there is nothing to search.

    Raises:
        DataError: a half has fewer than two images.
        TeacherError: there is no common layer group.
        TrainingDiverged: a loss is not finite.
    """
    device = training_device()
    student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher.to(device)
    example = to_tensor(dataset.train.images[:EXAMPLES], dataset.preprocessing).to(device)
    groups = layer_groups(feature_maps(student, example[:2]), members_maps(teacher, example))
    with ExitStack() as stack:
        if checkpoint is not None:
            stack.enter_context(told_next_time(checkpoint, "searching mixtures of feature maps", tell))
        if training.threads is not None:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(training.threads)
        stack.enter_context(sampled_before_convolution(student))
        search = _Search(student, teacher.eval(), _Halves.of(dataset, training), settings, groups, seed)
        return search.run(checkpoint, on_epoch)


@dataclass(frozen=True)
class _Halves:
    """Batches of both halves; an epoch's follow from its number."""

    dataset: Dataset
    training: TrainingSettings
    weights: Split
    mixture: Split

    @classmethod
    def of(cls, dataset: Dataset, training: TrainingSettings) -> _Halves:
        train, half = dataset.train, len(dataset.train) // 2
        first, second = train.first(half), train.after(half)
        if min(len(first), len(second)) < 2:
            raise DataError(
                f"{len(train)} train images are too few to search mixtures of feature maps",
                why="the search trains on one half of them and judges on the other, two images or more each",
                fix="use more data, or a mixture that is not searched, such as mixture = 'average'",
            )
        return cls(dataset, training, first, second)

    def batches(self, split: Split, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(split), generator=generator)
        for index in torch.split(order, self.training.batch_size):
            # A batch of one would break BatchNorm.
            if len(index) > 1:
                images = to_tensor(split.images[index.numpy()], self.dataset.preprocessing)
                batch = augment(images, self.training.augment, generator)
                labels = torch.from_numpy(split.labels[index.numpy()])
                device = training_device()
                yield batch.to(device, memory_format=torch.channels_last), labels.to(device)


@dataclass
class _Progress:
    """Everything that a checkpoint holds besides weights and optimisers."""

    found: list[FoundMixture] = field(default_factory=list)
    history: list[MixtureEpoch] = field(default_factory=list)
    slopes: tuple[float, ...] = ()


_PROGRESS = TypeAdapter(_Progress)


@dataclass
class _Search:
    """The groups one after the other."""

    student: nn.Module
    teacher: nn.Module
    halves: _Halves
    settings: MixtureSearchSettings
    groups: tuple[LayerGroup, ...]
    seed: int
    progress: _Progress = field(default_factory=_Progress)

    def run(self, checkpoint: Path | None, on_epoch: OnEpoch | None) -> tuple[FoundMixture, ...]:
        state = None
        if checkpoint is not None and checkpoint.exists():
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
            self.student.load_state_dict(state["student"])
            self.progress = _PROGRESS.validate_python(state["progress"])
        while len(self.progress.found) < len(self.groups):
            number = len(self.progress.found)
            group = _Group(self, number)
            if state is not None and self.progress.history:
                group.load(state)
            state = None
            if len(self.groups[number].teacher) > 1:
                self._search(group, checkpoint, on_epoch)
            self.progress = _Progress([*self.progress.found, group.found(self.progress)])
        return tuple(self.progress.found)

    def _search(self, group: _Group, checkpoint: Path | None, on_epoch: OnEpoch | None) -> None:
        progress, epochs = self.progress, self.settings.epochs
        while (epoch := len(progress.history)) < epochs:
            seeds = self._draw("weights", epoch), self._draw("mixture", epoch)
            searches = epoch >= self.settings.warmup_epochs
            with drawing_from(self._draw("layers", epoch)):
                if epoch == self.settings.warmup_epochs:
                    progress.slopes = group.slopes(self._draw("slopes", epoch))
                loss = group.epoch(*seeds, progress.slopes if searches else None, epoch / epochs)
            if not math.isfinite(loss):
                raise TrainingDiverged(f"the loss of the search for mixtures became {loss}")
            progress.history.append(MixtureEpoch(loss, group.shares()))
            if checkpoint is not None:
                save_atomically(
                    {
                        "student": self.student.state_dict(),
                        "progress": asdict(progress),
                        **group.state(),
                    },
                    checkpoint,
                )
            if on_epoch is not None:
                on_epoch(len(progress.found) * epochs + epoch + 1, len(self.groups) * epochs)

    def _draw(self, use: str, epoch: int) -> int:
        return int(value_digest([self.seed, use, len(self.progress.found), epoch])[:8], 16)


class _Group:
    """The search of one group: bridge, optimisers, and an epoch of steps."""

    def __init__(self, search: _Search, number: int) -> None:
        self._student, self._teacher = search.student, search.teacher
        self._halves, self._settings = search.halves, search.settings
        self._layers = search.groups[number]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(search.seed)
            self._bridge = Bridge(self._layers, crosses=self._settings.objective != "student_loss")
        self._bridge.to(training_device())
        self._trained = [*self._student.parameters(), *self._bridge.connectors.parameters()]
        given = self._settings
        self._optimizer = torch.optim.SGD(
            self._trained, lr=given.learning_rate, momentum=given.momentum, weight_decay=given.weight_decay
        )
        self._mixture_optimizer = torch.optim.Adam(
            [self._bridge.beta],
            lr=given.mixture_learning_rate,
            betas=_ADAM_BETAS,
            weight_decay=given.mixture_decay,
        )

    def epoch(self, seed: int, mixture_seed: int, slopes: tuple[float, ...] | None, position: float) -> float:
        """All steps on the weights' half, each after one on the mixture's if there are slopes; mean loss."""
        for options in self._optimizer.param_groups:
            half_cosine = 0.5 * (1 + math.cos(math.pi * position))
            options["lr"] = self._settings.learning_rate * (_LAST_RATE + (1 - _LAST_RATE) * half_cosine)
        self._student.train()
        halves, total, count = self._halves, 0.0, 0
        others: Iterator[tuple[Tensor, Tensor]] = iter(())
        if slopes is not None:
            # Not itertools.cycle, which keeps all that it has given.
            endless = (halves.batches(halves.mixture, mixture_seed) for _ in itertools.count())
            others = itertools.chain.from_iterable(endless)
        for images, labels in halves.batches(halves.weights, seed):
            if slopes is not None:
                self._improve_mixture(*next(others), slopes)
            self._bridge.beta.requires_grad_(False)
            loss = self._weights_loss(self._paths(images, labels))
            self._bridge.beta.requires_grad_(True)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self._trained, _LARGEST_GRADIENT)
            self._optimizer.step()
            total, count = total + float(loss.detach()) * len(labels), count + len(labels)
        return total / count

    def slopes(self, seed: int) -> tuple[float, ...]:
        """Length of the gradient of each path on beta, over the mixture's half; 0 of one that is not used."""
        sums = torch.zeros(len(Paths._fields), len(self._layers.teacher), device=training_device())
        self._student.train()
        for images, labels in self._halves.batches(self._halves.mixture, seed):
            for number, part in enumerate(self._paths(images, labels)):
                (gradient,) = torch.autograd.grad(
                    part, self._bridge.beta, retain_graph=True, allow_unused=True
                )
                if gradient is not None:
                    sums[number] += gradient * len(labels)
        lengths = (sums.norm(dim=1) / len(self._halves.mixture)).tolist()
        used = self._searched_with()
        return tuple(length * is_used for length, is_used in zip(lengths, used, strict=True))

    def _improve_mixture(self, images: Tensor, labels: Tensor, slopes: tuple[float, ...]) -> None:
        strengths = self._settings.balance, 1.0
        terms = [
            strength / slope * part
            for strength, slope, part in zip(strengths, slopes, self._paths(images, labels), strict=True)
            if slope
        ]
        if not terms:
            return
        (self._bridge.beta.grad,) = torch.autograd.grad(torch.stack(terms).sum(), self._bridge.beta)
        self._mixture_optimizer.step()

    def _weights_loss(self, paths: Paths) -> Tensor:
        match self._settings.objective:
            case "teacher_to_student":
                return paths.teacher_to_student
            case "student_to_teacher":
                return paths.student_to_teacher
            case _:
                return paths.teacher_to_student + paths.student_to_teacher

    def _searched_with(self) -> tuple[bool, bool]:
        objective = self._settings.objective
        return objective in ("bridge", "teacher_to_student"), objective != "teacher_to_student"

    def _paths(self, images: Tensor, labels: Tensor) -> Paths:
        names = [each.name for each in self._layers.teacher]
        with watched(self._teacher, names) as features:
            with torch.no_grad():
                self._teacher(images)
            return self._bridge(self._student, features, images, labels)  # type: ignore[no-any-return]

    def shares(self) -> tuple[float, ...]:
        # In double precision, so that they sum to 1 as closely as a recipe asks.
        return tuple(torch.softmax(self._bridge.beta.detach().double(), dim=0).tolist())

    def found(self, progress: _Progress) -> FoundMixture:
        layers = self._layers
        names = tuple(each.name for each in layers.teacher)
        history = tuple(progress.history)
        return FoundMixture(layers.size, layers.student.name, names, self.shares(), progress.slopes, history)

    def state(self) -> dict[str, Any]:
        return {
            "bridge": self._bridge.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "mixture_optimizer": self._mixture_optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self._bridge.load_state_dict(state["bridge"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._mixture_optimizer.load_state_dict(state["mixture_optimizer"])
