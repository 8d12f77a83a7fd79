"""The tables of a recipe, apart from those that data, teachers, spaces and training define themselves."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from devices.target import Target
from devices.words import nearest
from pipeline.budget import Budget
from pipeline.distill.settings import DistillationSettings
from pipeline.methods.dna.settings import DnaSettings
from pipeline.methods.subgraph.settings import PROPOSALS, Proposal, SubgraphSettings
from pipeline.search.evaluators.registry import SHORT_TRAINING, TRAINED, evaluator_names, find_evaluator
from pipeline.search.evaluators.supernet.settings import SupernetSettings
from pipeline.search.evaluators.workers import parse_pool
from pipeline.spaces.add_on.config import AddOnSpaceConfig
from pipeline.spaces.dna.config import DnaSpaceConfig


class Section(BaseModel):
    """Refuses keys that it does not know, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TargetConfig(Section):
    """One target and its budget: ``budget = "0.6x"`` of the reference network, or ``budget_ms = 1.5``."""

    name: str
    budget: str | None = None
    budget_ms: float | None = None

    @field_validator("name")
    @classmethod
    def _canonical(cls, name: str) -> str:
        return str(Target.parse(name))

    @model_validator(mode="after")
    def _one_budget(self) -> TargetConfig:
        if (self.budget is None) == (self.budget_ms is None):
            raise ValueError("give exactly one of budget (such as '0.6x') and budget_ms (such as 1.5)")
        self.limit()
        return self

    def target(self) -> Target:
        """The parsed target."""
        return Target.parse(self.name)

    def limit(self) -> Budget:
        """The parsed budget."""
        return Budget.parse(self.budget if self.budget is not None else f"{self.budget_ms}ms")


class SearchConfig(Section):
    """How students are searched: who proposes, how they are evaluated, when they are measured."""

    strategy: Literal["random", "evolution", "nsga2", "policy", "predictor"] = "predictor"
    evaluations: int = Field(default=24, ge=1, le=1_000_000)
    minutes: float | None = Field(default=None, gt=0, le=1_000_000)
    population: int = Field(default=8, ge=2, le=100_000)
    tournament: int = Field(default=3, ge=1, le=100_000)
    algorithm: Literal["ppo", "reinforce"] = "ppo"
    exponent: float = Field(default=-0.07, ge=-100, le=0)
    evaluator: str = SHORT_TRAINING
    ratings: Literal["auto"] | tuple[str, ...] = "auto"
    supernet: SupernetSettings = SupernetSettings()
    executor: str = "in-process"
    cpus: float = Field(default=1, gt=0, le=1024)
    gpus: float = Field(default=0, ge=0, le=64)
    ahead: int | None = Field(default=None, ge=1, le=1000)
    reward: Literal["distilled", "labels"] = "distilled"
    train_limit: int | None = Field(default=None, ge=2, le=1_000_000_000)
    training: DistillationSettings = DistillationSettings(epochs=3, patience=3)
    fidelities: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(1.0,), min_length=1, description="numbers above 0 that ascend to 1, in a list"
    )
    reevaluated: Annotated[int, Field(ge=0, le=1_000_000)] | Literal["ties"] = "ties"
    finalists: int = Field(default=1, ge=1, le=1000)
    measure_every: int = Field(default=10, ge=1, le=1_000_000)
    rounds: int = Field(default=2, ge=1, le=1000)

    @field_validator("evaluator")
    @classmethod
    def _known_evaluator(cls, evaluator: str) -> str:
        find_evaluator(evaluator)
        return evaluator

    @field_validator("ratings")
    @classmethod
    def _known_ratings(cls, ratings: Literal["auto"] | tuple[str, ...]) -> Literal["auto"] | tuple[str, ...]:
        if ratings == "auto":
            return ratings
        known = [each for each in evaluator_names() if each not in TRAINED]
        for rating in ratings:
            if rating not in {*known, *TRAINED}:
                names = f"(known ones are {', '.join(known)})"
                raise ValueError(f"there is no rating '{rating}'{nearest(rating, known)} {names}")
            find_evaluator(rating)
        if len(set(ratings)) < len(ratings):
            raise ValueError(f"each rating counts once, got {', '.join(ratings)}")
        return ratings

    @model_validator(mode="after")
    def _ratings_have_a_reader(self) -> SearchConfig:
        if self.ratings == "auto":
            return self
        if self.ratings and self.strategy != "predictor":
            raise ValueError(
                f"strategy '{self.strategy}' does not look at ratings: set strategy = 'predictor', "
                "or remove them"
            )
        if dear := TRAINED.intersection(self.ratings):
            raise ValueError(
                f"'{min(dear)}' is no rating: ratings are asked for far more candidates than are evaluated"
            )
        if self.evaluator in self.ratings:
            raise ValueError(f"'{self.evaluator}' is the evaluator already: leave it out of the ratings")
        return self

    @model_validator(mode="after")
    def _fidelities_can_be_chosen(self) -> SearchConfig:
        shares = ", ".join(f"{each:g}" for each in self.fidelities)
        if self.fidelities[-1] != 1 or any(one >= other for one, other in pairwise(self.fidelities)):
            raise ValueError(
                f"fidelities are shares of the training that ascend to 1, such as [0.25, 1.0], got [{shares}]"
            )
        if len(self.fidelities) == 1:
            return self
        if self.strategy != "predictor":
            raise ValueError(
                f"strategy '{self.strategy}' cannot choose among fidelities: set strategy = 'predictor', or "
                "remove them"
            )
        if self.evaluator != SHORT_TRAINING:
            raise ValueError(
                f"fidelities are shares of a training, and evaluator '{self.evaluator}' does not train "
                f"candidates: remove them, or use '{SHORT_TRAINING}'"
            )
        return self

    @field_validator("training")
    @classmethod
    def _nothing_to_search_first(cls, training: DistillationSettings) -> DistillationSettings:
        if training.searched:
            raise ValueError(
                "mixture = 'searched' is for the final training ([distil]): a search for each candidate "
                "would take longer than its training; use 'average' or 'last' here"
            )
        return training

    @field_validator("executor")
    @classmethod
    def _known_executor(cls, executor: str) -> str:
        parse_pool(executor)
        return executor

    @model_validator(mode="after")
    def _room_is_for_a_cluster(self) -> SearchConfig:
        if parse_pool(self.executor)[1] is None:
            if self.ahead is None:
                raise ValueError(
                    f"executor '{self.executor}' needs search.ahead: how many candidates are evaluated at a "
                    "time decides what is proposed, and so must not change with the number of nodes"
                )
        elif self.cpus != 1 or self.gpus:
            raise ValueError("search.cpus and search.gpus are for the executor ray: remove them")
        return self


class MeasureConfig(Section):
    """How blocks and networks are measured; docs/concepts/measuring.md explains the protocol."""

    launches: int = Field(default=5, ge=3, le=1000)
    calibration_networks: int = Field(default=16, ge=6, le=1000)


class ExportConfig(Section):
    """Parity of exported models with torch: largest absolute difference of the logits on real inputs."""

    tolerance: float = Field(default=1e-4, gt=0, le=1000)
    samples: int = Field(default=32, ge=1, le=1_000_000)


class CompileConfig(Section):
    """How students are compiled.

    ``choose``, for targets in float: ``default`` takes the variant that fits the target best as far as can be
    said beforehand; ``measured`` makes all that leave the outputs as they are, and takes the fastest.

    For targets in int8, ``max_drop`` is in points of accuracy on the validation slice: where the quantised
    student loses more, it is fine-tuned for at most ``fine_tuning_epochs``. ``calibration_images`` are of the
    train split.
    """

    choose: Literal["default", "measured"] = "default"
    max_drop: float = Field(default=0.5, ge=0, le=100)
    calibration_images: int = Field(default=128, ge=1, le=1_000_000)
    fine_tuning_epochs: int = Field(default=5, ge=0, le=100_000)


class VerifyConfig(Section):
    """Verification on the target: how many candidates may be tried, and launches per measurement.

    ``unmeasured``: whether a run ends when a better candidate cannot be measured, or takes the next one.
    """

    candidates: int = Field(default=3, ge=1, le=1000)
    launches: int = Field(default=9, ge=6, le=1000)
    unmeasured: Literal["stop", "pass-over"] = "stop"


class DnaConfig(Section):
    """Method ``dna``: where the teacher is cut, the space, and how blocks are trained and evaluated."""

    cuts: tuple[str, ...] | None = Field(default=None, min_length=2)
    space: DnaSpaceConfig | None = None
    training: DnaSettings = DnaSettings()
    workers: int = Field(default=1, ge=1, le=1024)


class SubgraphConfig(Section):
    """Method ``subgraph``: how many distinct blocks are measured at most, and where the search begins.

    ``proposals``: which subgraphs are tried first; ``selection`` is how ``gates`` are trained. ``weights``:
    whether students begin with the teacher's weights, or from scratch as in the paper.
    """

    most_blocks: int = Field(default=300, ge=2, le=100_000)
    proposals: tuple[Proposal, ...] = Field(default=PROPOSALS, min_length=1)
    selection: SubgraphSettings = SubgraphSettings()
    weights: Literal["inherited", "fresh"] = "inherited"

    @field_validator("proposals")
    @classmethod
    def _different(cls, proposals: tuple[Proposal, ...]) -> tuple[Proposal, ...]:
        if len(set(proposals)) < len(proposals):
            raise ValueError(f"each proposal is made once, got {', '.join(proposals)}")
        return proposals


class OracleConfig(Section):
    """Method ``oracle``: backbone and what may be added to it, shared weights, limit on parameters, rewards.

    ``reward_images``: of the validation slice, by which a candidate is evaluated first.
    """

    space: AddOnSpaceConfig | None = None
    training: DistillationSettings = DistillationSettings()
    max_parameters: int | None = Field(default=None, ge=1, le=10**12)
    reward_images: int = Field(default=512, ge=1, le=1_000_000_000)
