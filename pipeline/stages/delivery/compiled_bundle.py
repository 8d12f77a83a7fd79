"""From what ``lathe compile`` chose to the bundle that ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from devices.measurement import BetweenBatches
from devices.target import Target
from pipeline.budget import Budget
from pipeline.bundle import (
    BundleContent,
    ClassifierContent,
    CompileContent,
    Edge,
    TargetContent,
    TensorDescription,
    edges_of,
    write_bundle,
)
from pipeline.compile import (
    CompiledModel,
    Raced,
    Row,
    TensorSpec,
    Wish,
    find_variant,
    held_out_of,
    outputs_of,
    specs_of,
)
from pipeline.data import Preprocessing, Split
from pipeline.errors import VerificationError
from pipeline.progress import Reporter
from pipeline.target_verdict import Accuracy, TargetVerdict, accuracy_of, judge
from pipeline.tasks import Task
from pipeline.work.folder import WorkFolder
from pipeline.work.stage import installed

_WHITE = (255, 255, 255)
_ROUNDING = 0.05
"""By which probabilities in int8 may miss a sum of 1."""
_PACKAGES = ("lathe-deploy", "onnxruntime", "onnx", "ai-edge-litert", "ai-edge-quantizer", "torch", "numpy")


@dataclass(frozen=True)
class CompiledBundle:
    """A bundle of the variants that were chosen, one for each target.

    Attributes:
        found: what was chosen.
        wish: what was asked for.
        work: in which the files lie.
        reporter: where to tell of progress.
    """

    found: CompiledModel
    wish: Wish
    work: WorkFolder
    reporter: Reporter

    def write(self, variants: Mapping[str, Any], out: Path) -> Path:
        """Write it to a folder.

        Args:
            variants: everything that was tried, as JSON.
            out: where to.

        Raises:
            VerificationError: on some target nothing was chosen.
            TargetError: there is no inference script for a runtime that was chosen.
            WorkFolderError: ``out`` is there and no bundle, or cannot be written.
        """
        raced = self.found.raced.values()
        for each in raced:
            if each.chosen is None:
                raise VerificationError(
                    f"there is no bundle for {each.place}",
                    why=each.reason,
                    fix="allow more, or choose another target",
                )
        model = self.work.find(next(iter(self.found.model.files.values())))
        classifier = self._classifier()
        rows = [each.row(each.chosen) for each in raced if each.chosen is not None]
        chosen = {package for row in rows for package in find_variant(row.variant).packages}
        content = BundleContent(
            name=self.found.model.name,
            origin=CompileContent(
                Path(self.wish.model).name, model, "; ".join(each.reason for each in raced), variants, None
            ),
            targets=tuple(self._target(each, classifier) for each in raced),
            classifier=classifier,
            versions=installed(sorted({*_PACKAGES, *chosen})),
        )
        return write_bundle(content, out)

    def _classifier(self) -> ClassifierContent | None:
        """What the artifacts take, where the data are labelled images."""
        samples, width = self.found.samples, self.found.model.width
        shape, task = samples.image_shape, samples.task
        if shape is None or task is None or width is None:
            return None
        arrays = held_out_of(self.found, self.work)
        preprocessing = Preprocessing(*self.wish.feeding.for_channels(shape[2]))
        test = Split(arrays["images"], arrays["labels"], task)
        # Of an embedding the names are those of the test images, whatever its outputs.
        count = max(len(samples.classes), int(test.labels.max()) + 1) if task.kind == "embedding" else width
        names = samples.classes if len(samples.classes) == count else tuple(map(str, range(count)))
        raced = next(iter(self.found.raced.values()))
        # The model as it came: int8 rounds too much to tell.
        outputs, _ = outputs_of(raced.baseline, raced, self.found, self.work, self.reporter)
        given = _are_probabilities(outputs, task)
        return ClassifierContent(shape, preprocessing, _WHITE, names, test, task, given)

    def _target(self, raced: Raced, classifier: ClassifierContent | None) -> TargetContent:
        assert raced.chosen is not None
        row, baseline = raced.row(raced.chosen), raced.row(raced.baseline)
        assert row.file is not None
        target = Target.parse(row.target)
        artifact = self.work.find(row.file)
        source = self.work.find(self.found.model.files[find_variant(row.variant).takes])
        runs_on, portable = row.notes.get("cpu", "any"), source
        if self.found.model.compiled:
            runs_on, portable = "the NPU for which it was brought compiled", artifact
        elif runs_on == "any":
            portable = artifact
        # A ratio can be measured again only where the same target runs both files.
        like = (
            baseline if replace(Target.parse(baseline.target), precision=target.precision) == target else None
        )
        inputs, outputs = specs_of(artifact, self.found.model)
        edges = edges_of(artifact) or ((None,) * len(inputs), (None,) * len(outputs))
        return TargetContent(
            artifact=artifact,
            runs_on=runs_on,
            portable=portable,
            reference=None if like is None or like.file is None else self.work.find(like.file),
            inputs=tuple(
                _described(each, _layout(each.shape, classifier), edge)
                for each, edge in zip(inputs, edges[0], strict=True)
            ),
            outputs=tuple(_described(each, None, edge) for each, edge in zip(outputs, edges[1], strict=True)),
            predicted=None,
            verdict=self._verdict(
                row, like, None if classifier is None else self._accuracy(raced), raced.between
            ),
        )

    def _verdict(
        self, row: Row, like: Row | None, accuracy: Accuracy | None, between: BetweenBatches | None
    ) -> TargetVerdict:
        assert row.file is not None
        assert row.measurement is not None
        budget_ms = self.wish.rules.budget_ms
        budget = None if budget_ms is None else Budget(limit_ms=budget_ms)
        reference = None if like is None else like.measurement
        ratio = None if like is None else row.ratio
        feasible, why = judge(budget, row.measurement, reference, ratio, between)
        return TargetVerdict(
            row.target,
            row.file.digest,
            accuracy,
            row.measurement,
            reference,
            ratio,
            budget,
            feasible,
            why,
            between,
        )

    def _accuracy(self, raced: Raced) -> Accuracy:
        """From the outputs that were taken when the variant was compared with the model."""
        assert raced.chosen is not None
        outputs, place = outputs_of(raced.chosen, raced, self.found, self.work, self.reporter)
        labels, task = held_out_of(self.found, self.work)["labels"], self.found.samples.task
        assert task is not None
        itself = Target.parse(raced.row(raced.chosen).target)
        same = replace(place, threads=1, options=()) == replace(itself, threads=1, options=())
        return replace(accuracy_of(outputs, labels, task), target=None if same else str(place))


def _are_probabilities(outputs: NDArray[np.float32], task: Task) -> bool:
    """Whether a network ends in softmax or, for several labels, sigmoid; int8 rounds both."""
    if task.kind not in ("single-label", "multi-label") or outputs.min() < 0 or outputs.max() > 1:
        return False
    return task.kind == "multi-label" or bool((np.abs(outputs.sum(axis=1) - 1) < _ROUNDING).all())


def _described(
    spec: TensorSpec, layout: Literal["NCHW", "NHWC"] | None, edge: Edge | None
) -> TensorDescription:
    """With the scale of an integer as the file has it."""
    return TensorDescription.model_validate(
        {
            "name": spec.name,
            "shape": spec.shape,
            "layout": layout,
            "dtype": spec.dtype,
            "quantisation": edge and edge.quantisation,
        }
    )


def _layout(shape: tuple[int, ...], classifier: ClassifierContent | None) -> Literal["NCHW", "NHWC"] | None:
    if classifier is None or len(shape) != 4:
        return None
    return "NHWC" if shape[1:] == classifier.image_shape else "NCHW"
