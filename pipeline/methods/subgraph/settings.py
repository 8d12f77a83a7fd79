"""What a selection of a subgraph is asked for; free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.distill.settings import Augmentation

Price = Literal["latency", "macs", "parameters", "uniform"]
Proposal = Literal["gates", "importance", "least-blocks", "shallower", "mixed", "narrower"]
PROPOSALS: tuple[Proposal, ...] = ("gates", "importance", "least-blocks", "shallower", "mixed", "narrower")


class SubgraphSettings(BaseModel):
    """How the parts of the teacher that stay are selected (2001.11612; the paper's values are not known).

    Attributes:
        epochs: passes over the training split while gates fall, and after.
        batch_size: images per step.
        learning_rate: of the weights, constant while gates fall, then a half cosine to zero.
        gate_learning_rate: of the gates.
        temperature: of the divergence to the teacher.
        descent_share: share of the steps within which the predicted latency is led down to the budgets.
        cost: what a part costs: its latency by the targets' tables, multiply-accumulates, parameters, or the
            same for all.
        data_term: divergence to the teacher alone, as in the paper; or the labels, for comparison.
        augment: of the images, as in training; the teacher sees the same.
        threads: of the processor; without, torch's choice holds.
        precision: of what the network and its teacher compute; weights, gates and the divergence are always
            in float32.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=6, ge=1, le=1000)
    batch_size: int = Field(default=64, ge=2, le=65536)
    learning_rate: float = Field(default=0.01, gt=0, le=10)
    gate_learning_rate: float = Field(default=0.1, gt=0, le=10)
    temperature: float = Field(default=4.0, gt=0, le=100)
    descent_share: float = Field(default=0.7, gt=0, le=1)
    cost: Price = "latency"
    data_term: Literal["teacher", "labels"] = "teacher"
    augment: Augmentation = "none"
    threads: int | None = Field(default=None, ge=1, le=1024)
    precision: Literal["fp32", "bf16"] = "fp32"
