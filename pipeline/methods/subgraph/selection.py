"""Drives gates to zero until the student keeps every budget, with the teacher's outputs as the only aim."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.base import Dataset
from pipeline.data.tensors import to_tensor
from pipeline.distill.augment import augment
from pipeline.distill.crash_marker import Tell, told_next_time
from pipeline.distill.divergence import TrainingDiverged
from pipeline.distill.draws import drawing_from
from pipeline.distill.losses.settings import LabelsSettings, LossSettings, SoftTargetsSettings
from pipeline.distill.objective import Objective
from pipeline.distill.onednn_workaround import sampled_before_convolution
from pipeline.distill.targets import SoftTargets
from pipeline.distill.training import save_atomically, training_device
from pipeline.methods.subgraph.costs import Costs, Counts, least_counts
from pipeline.methods.subgraph.gates import Gates
from pipeline.methods.subgraph.importance import importances
from pipeline.methods.subgraph.settings import SubgraphSettings
from pipeline.methods.subgraph.structures import removed
from pipeline.spaces.teacher.config import Shape, Structure
from pipeline.tasks import Task

_STEP = 1.1
"""By how much the penalty's weight rises in a step in which the latency is above its path, or falls else."""

_RANGE = 1000.0
"""By how much it can rise on the whole way, if that has few steps."""

_FIRST_PENALTY = 1e-2
_LEAST = 1e-3
"""Least importance of a part, in medians of all."""


@dataclass(frozen=True)
class SelectionStep:
    """One record: step, divergence to the teacher, excess over the budgets, weight of the penalty."""

    step: int
    loss: float
    excess: float
    penalty: float


@dataclass(frozen=True)
class Selection:
    """What stays of a teacher.

    Attributes:
        counts: numbers of parts by name of the structure, widths of the space.
        kept: ascending parts by name of the structure; none of a block that goes.
        network: the smaller network with its weights, in evaluation mode, on the CPU.
        snapped: how many parts were cut though their gates were not zero: to reach a width of the space, or
            because the steps did not suffice.
        history: about a hundred records of the way.
    """

    counts: Mapping[str, int]
    kept: Mapping[str, tuple[int, ...]]
    network: nn.Module
    snapped: int
    history: tuple[SelectionStep, ...]


def select(
    network: nn.Module,
    input_shape: Shape,
    structures: Sequence[Structure],
    *,
    teacher: SoftTargets,
    dataset: Dataset,
    settings: SubgraphSettings,
    costs: Costs,
    seed: int,
    checkpoint: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
    tell: Tell = lambda line: None,
) -> Selection:
    """Select the parts of a network that are worth their latency; on a GPU where there is one.

    The data term is ``T^2 KL(teacher || student)``, batch mean; labels have no part in it. The penalty is
    ``lambda sum_j alpha_j / s_j |g_j|``: alpha what the part adds to the price, s its importance before any
    gate falls (an adaptive L1 norm, Zou 2006), without which gates would fall by their prices alone, as the
    divergence is flat where it is zero. A layer that shrinks all its gates, at no loss where a normalisation
    follows, gains nothing by that: s is fixed, and each gate has its own way to zero.

    lambda is not given but found: it rises while the predicted latency is above a straight path from the
    teacher's to the budgets, and falls while it is below. When every budget is kept the penalty ends, and the
    rest of the steps settles the weights. Where the path ends above a budget, the parts are cut that lose
    least for what they save. What the budgets leave room for comes back: runtimes compute channels in groups,
    and the last of a group may cost nothing.

    Args:
        network: a copy of the teacher's network; changed, and of no use afterwards.
        input_shape: channels, height, width.
        structures: of the space in ``costs``.
        teacher: what the teacher says to a batch.
        dataset: only ``train`` is used.
        settings: schedule.
        costs: what subgraphs cost, and may cost.
        seed: of order, augmentation and dropout.
        checkpoint: written after every epoch, and continued from when it is there.
        on_step: called with steps done and all steps.
        tell: called with a line when the last process that selected here died in the middle.

    Raises:
        BudgetError: the smallest subgraph is above a budget.
        TrainingDiverged: the loss is not finite.
    """
    costs.require_reachable()
    with ExitStack() as stack:
        if checkpoint is not None:
            stack.enter_context(told_next_time(checkpoint, "the selection of a subgraph", tell))
        if settings.threads is not None:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(settings.threads)
        stack.enter_context(sampled_before_convolution(network))
        run = _Run(network, structures, settings, costs, _objective(settings, teacher, dataset.task))
        if checkpoint is not None and checkpoint.exists():
            run.restore(torch.load(checkpoint, map_location="cpu", weights_only=True))
        else:
            run.begin(dataset, seed)
        _descend(run, dataset, settings, seed=seed, checkpoint=checkpoint, on_step=on_step)
    return run.result(input_shape)


def _descend(
    run: _Run,
    dataset: Dataset,
    settings: SubgraphSettings,
    *,
    seed: int,
    checkpoint: Path | None,
    on_step: Callable[[int, int], None] | None,
) -> None:
    labels = torch.from_numpy(dataset.train.labels)
    # A batch of one would break BatchNorm, so a last batch of one is left out.
    batches = max(1, math.ceil((len(labels) - 1) / settings.batch_size))
    total = settings.epochs * batches
    while run.step < total:
        epoch = run.step // batches
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(labels), generator=generator)
        with drawing_from(seed, epoch):
            for index in torch.split(order, settings.batch_size)[:batches]:
                images = to_tensor(dataset.train.images[index.numpy()], dataset.preprocessing)
                images = augment(images, settings.augment, generator)
                images = images.to(run.device, memory_format=torch.channels_last)
                run.train_step(images, index, labels[index].to(run.device), total)
                if on_step is not None:
                    on_step(run.step, total)
        if checkpoint is not None:
            save_atomically(run.state(), checkpoint)


def _objective(settings: SubgraphSettings, teacher: SoftTargets, task: Task) -> Objective:
    """What the teacher says, as in the paper, or the labels."""
    data_term: LossSettings = SoftTargetsSettings(weight=1, temperature=settings.temperature)
    if settings.data_term == "labels":
        data_term = LabelsSettings(weight=1)
    return Objective((data_term,), teacher, task)


class _Run:
    """A network with gates on its way down; everything that a checkpoint holds."""

    def __init__(
        self,
        network: nn.Module,
        structures: Sequence[Structure],
        settings: SubgraphSettings,
        costs: Costs,
        objective: Objective,
    ) -> None:
        self._objective = objective
        self.step, self.penalty, self.snapped, self.settled = 0, _FIRST_PENALTY, 0, False
        self.history: list[SelectionStep] = []
        self._network, self._structures, self._settings, self._costs = network, structures, settings, costs
        network.requires_grad_(True)
        self.device = training_device()
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.gates = Gates(network, structures)
        self._matter: dict[str, Tensor] = {}
        self._least = least_counts(costs.space)
        self._start = costs.excess({each.name: each.count for each in structures})
        self._optimizer = torch.optim.SGD(
            network.parameters(), lr=settings.learning_rate, momentum=0.9, weight_decay=5e-4, nesterov=True
        )

    def begin(self, dataset: Dataset, seed: int) -> None:
        """Find out what matters, while network and teacher agree."""
        found = importances(self._network, self.gates, dataset, seed=seed)
        middle = torch.cat(list(found.values())).median().clamp(min=torch.finfo(torch.float32).tiny)
        self._matter = {name: (value / middle).clamp(min=_LEAST) for name, value in found.items()}

    def train_step(self, images: Tensor, index: Tensor, labels: Tensor, total: int) -> None:
        """One step on weights and gates."""
        settings = self._settings
        descent = max(1, int(total * settings.descent_share))
        rest = max(0.0, (self.step - descent) / max(1, total - descent))
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * rest))
        self._network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            outputs, members = self._network(images), self._objective.members(images, index)
        loss = self._objective(outputs.float(), members, labels)
        if not torch.isfinite(loss):
            raise TrainingDiverged(
                f"the loss became {float(loss.detach())} in step {self.step + 1} of the selection"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        excess = self._descend(descent)
        if self.step % max(1, total // 100) == 0:
            self.history.append(SelectionStep(self.step, float(loss.detach()), excess, self.penalty))
        self.step += 1

    def _descend(self, descent: int) -> float:
        """Step on the gates while the budgets are not kept; returns the excess before."""
        done = (self.step + 1) / descent
        counts = {name: len(parts) for name, parts in self.gates.kept().items()}
        excess = self._costs.excess(counts)
        if self.settled:
            self.gates.settle(self._settings.gate_learning_rate)
        elif excess <= 1 or done > 1:
            self._snap(counts)
        else:
            path = self._start + (1 - self._start) * done
            step = max(_STEP, _RANGE ** (1 / descent))
            self.penalty *= step if excess > path else 1 / step
            penalties = self._costs.penalties(counts)
            self.gates.proximal_step(
                self._settings.gate_learning_rate,
                {name: self.penalty * value / self._matter[name] for name, value in penalties.items()},
                self._least,
            )
        return excess

    def _order(self, name: str) -> Tensor:
        """Parts of a structure: those that are left, descending by gate, then the others by importance."""
        gate, matter = self.gates.values[name].detach(), self._matter[name]
        return torch.where(gate > 0, 1 + gate, matter / (1 + matter)).argsort(descending=True, stable=True)

    def _snap(self, counts: Counts) -> None:
        """From so many parts that are left to as many as the budgets allow; the descent ends."""
        order = {name: self._order(name) for name in self.gates.values}
        worth = {}
        for name, value in self.gates.values.items():
            gate = torch.where(value.detach() > 0, value.detach(), 1.0)
            worth[name] = (gate**2 * self._matter[name])[order[name]].tolist()
        most = self._costs.grown(self._costs.cut(counts, worth), worth)
        for name, count in most.items():
            self.snapped += max(0, counts[name] - count)
            self.gates.keep(name, order[name][:count])
        self.settled = True

    def result(self, input_shape: Shape) -> Selection:
        """The smaller network."""
        if not self.settled:
            self._snap({name: len(parts) for name, parts in self.gates.kept().items()})
        self.gates.fold()
        kept = {name: tuple(parts) for name, parts in self.gates.kept().items()}
        network = self._network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        smaller = removed(network, input_shape, self._structures, kept)
        counts = {name: len(parts) for name, parts in kept.items()}
        return Selection(counts, kept, smaller, self.snapped, tuple(self.history))

    def state(self) -> dict[str, Any]:
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "gates": self.gates.state(),
            "matter": self._matter,
            "step": self.step,
            "penalty": self.penalty,
            "snapped": self.snapped,
            "settled": self.settled,
            "history": [asdict(record) for record in self.history],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.gates.restore(state["gates"])
        self._matter = {name: value.to(self.device) for name, value in state["matter"].items()}
        self.step, self.penalty = state["step"], state["penalty"]
        self.snapped, self.settled = state["snapped"], state["settled"]
        self.history = [SelectionStep(**record) for record in state["history"]]
