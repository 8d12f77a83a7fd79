"""The losses of a recipe, ``[[distil.loss]]``; free of torch, so that recipes load fast."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.distill.aggregation.settings import MixtureSearchSettings

if TYPE_CHECKING:
    from pipeline.distill.losses.base import Loss

_SUM_TOLERANCE = 1e-6
_Share = Annotated[float, Field(ge=0, le=1)]


class LossSettings(BaseModel, ABC):
    """One term of what a training minimises, and its weight in the sum."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    needs_teacher: ClassVar[bool] = True
    needs_features: ClassVar[bool] = False

    weight: float = Field(default=1.0, gt=0, le=1e6)

    @abstractmethod
    def make(self) -> Loss:
        """The loss itself, without its weight."""


class LabelsSettings(LossSettings):
    """Cross-entropy with the labels."""

    needs_teacher: ClassVar[bool] = False

    kind: Literal["labels"] = "labels"

    def make(self) -> Loss:
        """A ``LabelsLoss``."""
        from pipeline.distill.losses.labels import LabelsLoss

        return LabelsLoss()


class SoftTargetsSettings(LossSettings):
    """The teacher's probabilities (1503.02531)."""

    kind: Literal["soft_targets"] = "soft_targets"
    temperature: float = Field(default=4.0, gt=0, le=1000)

    def make(self) -> Loss:
        """A ``SoftTargetsLoss``."""
        from pipeline.distill.losses.soft_targets import SoftTargetsLoss

        return SoftTargetsLoss(self.temperature)


class OracleSettings(LossSettings):
    """The probabilities of the teacher's members that are right, else the labels (1911.13019)."""

    kind: Literal["oracle"] = "oracle"
    temperature: float = Field(default=4.0, gt=0, le=1000)

    def make(self) -> Loss:
        """An ``OracleLoss``."""
        from pipeline.distill.losses.oracle import OracleLoss

        return OracleLoss(self.temperature)


class DecoupledKdSettings(LossSettings):
    """The teacher's probabilities, of the right class and among the others apart (2203.08679)."""

    kind: Literal["decoupled_kd"] = "decoupled_kd"
    alpha: float = Field(default=1.0, ge=0, le=1000)
    beta: float = Field(default=8.0, ge=0, le=1000)
    temperature: float = Field(default=4.0, gt=0, le=1000)

    def make(self) -> Loss:
        """A ``DecoupledKdLoss``."""
        from pipeline.distill.losses.decoupled_kd import DecoupledKdLoss

        return DecoupledKdLoss(self.alpha, self.beta, self.temperature)


class FeatureLossSettings(LossSettings, ABC):
    """A loss on feature maps.

    Attributes:
        student_layers: names of the student's modules; without, the last map of each spatial size.
        teacher_layers: as many of the teacher's, with maps of the same sizes.
    """

    needs_features: ClassVar[bool] = True

    student_layers: tuple[str, ...] | None = Field(default=None, min_length=1)
    teacher_layers: tuple[str, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _layers_in_pairs(self) -> Self:
        if len(self.student_layers or ()) != len(self.teacher_layers or ()):
            raise ValueError("give 'student_layers' and 'teacher_layers' together, with as many names each")
        return self


class FitNetSettings(FeatureLossSettings):
    """The teacher's feature maps, behind a 1x1 convolution (1412.6550)."""

    kind: Literal["fitnet"] = "fitnet"

    def make(self) -> Loss:
        """A ``FitNetLoss``."""
        from pipeline.distill.losses.fitnet import FitNetLoss

        return FitNetLoss(self.student_layers, self.teacher_layers)


class BlockwiseSettings(FeatureLossSettings):
    """The teacher's map at the end of every stage, as a share of its variance (1911.13053)."""

    kind: Literal["blockwise"] = "blockwise"

    def make(self) -> Loss:
        """A ``BlockwiseLoss``."""
        from pipeline.distill.losses.blockwise import BlockwiseLoss

        return BlockwiseLoss(self.student_layers, self.teacher_layers)


class AttentionTransferSettings(FeatureLossSettings):
    """Where the teacher's activations are strong (1612.03928)."""

    kind: Literal["attention_transfer"] = "attention_transfer"

    def make(self) -> Loss:
        """An ``AttentionTransferLoss``."""
        from pipeline.distill.losses.attention_transfer import AttentionTransferLoss

        return AttentionTransferLoss(self.student_layers, self.teacher_layers)


class SimilarityPreservingSettings(FeatureLossSettings):
    """How similar the images of a batch are to each other (1907.09682)."""

    kind: Literal["similarity_preserving"] = "similarity_preserving"

    def make(self) -> Loss:
        """A ``SimilarityPreservingLoss``."""
        from pipeline.distill.losses.similarity_preserving import SimilarityPreservingLoss

        return SimilarityPreservingLoss(self.student_layers, self.teacher_layers)


class FeatureAggregationSettings(LossSettings):
    """Mixtures of the teacher's feature maps of each spatial size (DFA, 2008.00506).

    Attributes:
        mixture: where the shares of the maps come from: ``searched``; all of the ``last`` map; the
            ``average``; ``random``, drawn with ``mixture_seed``; or ``fixed``, those in ``shares``.
        mixture_seed: of ``random``.
        shares: for ``fixed``: of the teacher's maps, group by group, from the images to the logits.
        search: for ``searched``.
    """

    needs_features: ClassVar[bool] = True

    kind: Literal["feature_aggregation"] = "feature_aggregation"
    mixture: Literal["searched", "last", "average", "random", "fixed"] = "searched"
    mixture_seed: int = Field(default=0, ge=0, le=2**31 - 1)
    shares: tuple[tuple[_Share, ...], ...] | None = Field(default=None, min_length=1)
    search: MixtureSearchSettings = MixtureSearchSettings()

    @model_validator(mode="after")
    def _shares_where_they_are_fixed(self) -> Self:
        if (self.mixture == "fixed") != (self.shares is not None):
            raise ValueError("give 'shares' with mixture = 'fixed', and only there")
        for group in self.shares or ():
            if abs(math.fsum(group) - 1) > _SUM_TOLERANCE:
                raise ValueError(f"the shares of a group sum to 1, not {list(group)}")
        return self

    @property
    def is_searched(self) -> bool:
        """Whether the mixture has to be found before a training."""
        return self.mixture == "searched"

    def found(self, shares: tuple[tuple[float, ...], ...]) -> FeatureAggregationSettings:
        """The same with the mixtures that a search found."""
        # Validated anew: model_copy would not.
        return FeatureAggregationSettings(weight=self.weight, mixture="fixed", shares=shares)

    def make(self) -> Loss:
        """A ``FeatureAggregationLoss``.

        Raises:
            ValueError: the mixture has to be searched first.
        """
        from pipeline.distill.losses import mixtures
        from pipeline.distill.losses.feature_aggregation import FeatureAggregationLoss

        match self.mixture:
            case "last":
                return FeatureAggregationLoss(mixtures.last)
            case "average":
                return FeatureAggregationLoss(mixtures.average)
            case "random":
                return FeatureAggregationLoss(mixtures.random(self.mixture_seed))
            case "fixed":
                return FeatureAggregationLoss(mixtures.fixed(self.shares or ()))
            case "searched":
                raise ValueError("a mixture that is searched is not known yet")


AnyLossSettings = Annotated[
    LabelsSettings
    | SoftTargetsSettings
    | OracleSettings
    | DecoupledKdSettings
    | FitNetSettings
    | BlockwiseSettings
    | AttentionTransferSettings
    | SimilarityPreservingSettings
    | FeatureAggregationSettings,
    Field(discriminator="kind"),
]
"""Every kind of loss that a recipe may name."""

KINDS: tuple[str, ...] = tuple(
    each.model_fields["kind"].default for each in get_args(get_args(AnyLossSettings)[0])
)
"""Their names."""
