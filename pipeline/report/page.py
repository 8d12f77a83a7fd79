"""The page of a run: what it found, as sections of a document."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

from devices.measurement import Interval
from latency_db.estimate import Estimate
from pipeline.report.data import ReportData, TargetReport
from pipeline.report.document import document, plot, section, table, written
from pipeline.report.figures import (
    accuracy_figure,
    blocks_figure,
    comparison_figure,
    curves_figure,
    mixtures_figure,
)
from pipeline.report.kept import drawn_units, key_of_units
from pipeline.target_verdict import Accuracy, TargetVerdict


def render(report: ReportData, path: Path) -> Path:
    """Write the report as one HTML file that works offline; atomic.

    Raises:
        WorkFolderError: the file cannot be written, or the disk is full.
    """
    return written(page(report), path)


def page(report: ReportData) -> str:
    """The report as HTML text."""
    sections = (
        _head(report),
        _search(report),
        _units(report),
        _prediction(report),
        _blocks(report),
        _training(report),
        _mixtures(report),
        _provenance(report),
    )
    body = "\n".join(section for section in sections if section)
    return document(report.title, body)


def _head(report: ReportData) -> str:
    panels = "\n".join(_verdict(report, target) for target in report.targets)
    return (
        f'<h1>{html.escape(report.title)}</h1>\n<p class="lead">{html.escape(report.summary)}</p>\n'
        f"{_ensemble(report)}"
        f'<div class="panels">\n{panels}\n</div>'
    )


def _ensemble(report: ReportData) -> str:
    if not report.ensemble:
        return ""
    lines = " ".join(html.escape(_sentence(line)) for line in report.ensemble)
    return f'<p class="note">The teacher is an ensemble. {lines}</p>\n'


def _verdict(report: ReportData, target: TargetReport) -> str:
    verdict = target.verdict
    word, style = ("FEASIBLE", "feasible") if verdict.feasible else ("NOT FEASIBLE", "infeasible")
    measurement = verdict.measurement
    reasons = "".join(f"<small>{html.escape(reason.detail)}</small>" for reason in measurement.reasons)
    rows = [
        *_budget(target),
        ("Predicted (estimate)", _estimate(target.predicted) if target.predicted else "none was made"),
        ("Measured", _interval(measurement.latency, len(measurement.launches))),
        *_ratio(verdict),
        ("Quality of measurement", html.escape(str(measurement.verdict)) + reasons),
        (f"Teacher's {report.metric}", _percent(report.teacher_accuracy)),
        (
            f"Student's {report.metric}",
            f"{_percent(report.student_accuracy)} <small>in torch, before export</small>",
        ),
        *_accuracy(verdict.accuracy),
    ]
    rows += _figures(report, target)
    shown = table((html.escape(name), value) for name, value in rows)
    return (
        f'<section class="panel"><h3>{html.escape(verdict.target)}</h3>\n'
        f'<span class="verdict {style}">{word}</span>\n'
        f'<p class="why">{html.escape(_sentence(verdict.why))}</p>\n{shown}</section>'
    )


def _figures(report: ReportData, target: TargetReport) -> list[tuple[str, str]]:
    """What the student gains, how large it is, and how it does class by class."""
    verdict, latency = target.verdict, target.verdict.measurement.latency
    rows = []
    budget = verdict.budget
    side_by_side = verdict.ratio is not None and budget is not None and budget.relative_to == "teacher"
    if target.teacher is not None and not side_by_side:
        times = target.teacher.value_ns / latency.value_ns
        takes = f"in float, which takes {_ms(target.teacher.value_ns)}"
        note = f"{takes}; measured by the same protocol, not side by side"
        rows.append(("Against the teacher", f"{times:.2f} times as fast <small>{note}</small>"))
    if verdict.ratio and budget is not None:
        name = budget.reference_name
        rows.append((f"Against the {name}", f"{verdict.ratio.inverse.value:.2f} times as fast"))
    if verdict.used is not None:
        rest = 1 - verdict.used
        why = f" <small>{html.escape(target.why_unused)}</small>" if target.why_unused else ""
        used = f"{rest:.0%} unused{why}" if rest >= 0 else f"exceeded by {-rest:.0%}"
        rows.append(("Use of the budget", used))
    rows += [
        ("Parameters", f"{report.student_parameters:,} <small>teacher {report.teacher_parameters:,}</small>"),
        ("Multiply-accumulates", f"{report.student_macs:,}"),
        ("Size of the artifact", f"{target.size_bytes / 1000:,.0f} kB <small>{_runs_on(target)}</small>"),
    ]
    if target.int8:
        rows.append(("On the validation slice", target.int8))
    if verdict.accuracy is not None and verdict.accuracy.by_class:
        rows.append((f"{_capital(report.metric)} by class", _by_class(report, verdict.accuracy)))
    return rows


def _runs_on(target: TargetReport) -> str:
    """What the artifact is for, and the portable model beside it."""
    if target.runs_on == "any":
        return "runs on any processor with the runtime"
    return (
        f"compiled for {html.escape(target.runs_on)}; the model in the bundle's folder portable/ runs on any "
        "processor with the runtime"
    )


def _by_class(report: ReportData, accuracy: Accuracy) -> str:
    counts = accuracy.by_class
    lines = "".join(
        f"<br>{html.escape(label)}: {_percent(count.correct / count.total)} "
        f"<small>{count.correct} of {count.total}</small>"
        for label, count in zip(report.labels, counts, strict=False)
        if count.total
    )
    worst = min((c.correct / c.total for c in counts if c.total), default=0.0)
    return f"<details><summary>worst {_percent(worst)}</summary>{lines}</details>"


def _search(report: ReportData) -> str:
    note = (
        f"Every point is an estimate: {report.metric} after a short distillation, on the validation slice, "
        "against latency predicted from measured blocks. Vertical bars are one standard error. "
        "The line is the Pareto front: nothing faster was better."
    )
    plots = [
        plot(f"search-{number}", target.verdict.target, accuracy_figure(target, report.metric))
        for number, target in enumerate(report.targets)
        if len(target.candidates) > 1
    ]
    return section("Candidates", note, plots) + _candidates(report)


def _candidates(report: ReportData) -> str:
    """All of them as a table that opens, where there is more to say of them than the plots do."""
    if not any(each.posterior or each.ratings for each in report.candidates):
        return ""
    columns = ("architecture", "score", "again", "posterior", "ratings")
    head = "".join(f"<th>{name}</th>" for name in columns)
    lines = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(getattr(each, name))}</td>" for name in columns) + "</tr>"
        for each in report.candidates
    )
    worth = " ".join(html.escape(_sentence(each)) for each in report.ratings)
    return (
        '<section><p class="note">The posterior is what a score is expected to be by all scores, the network '
        "itself, its latency and its ratings; it decides the order, but for those that were evaluated again. "
        f"{worth}</p>\n<details><summary>All candidates, best first</summary>"
        f'<div class="panel"><table>\n<tr>{head}</tr>\n{lines}\n</table></div></details></section>'
    )


def _units(report: ReportData) -> str:
    if not report.units:
        return ""
    targets = [name for name, _, _ in report.units[0].latencies]
    shares = (
        "The percentages are the share of the teacher's latency that a frame takes, and after the arrow that "
        f"of what is left, by blocks measured alone on {html.escape(targets[0])}"
        + ("; rest the pointer on a frame for the other targets." if targets[1:] else ".")
        if targets
        else ""
    )
    note = (
        "The student is a subgraph of its teacher, whose layers are drawn in the order that data flow, in "
        "strips from left to right. A number is how many of a layer's output channels or heads are left. "
        f"{shares}"
    )
    return section("What is left of the teacher", note, [key_of_units() + drawn_units(report.units)], "")


def _prediction(report: ReportData) -> str:
    note = (
        "Whole networks that were both predicted and measured, with both intervals. A point on the "
        "dotted line is predicted exactly; one that was used to fit the predictor proves less."
    )
    plots = [
        plot(f"prediction-{number}", target.verdict.target, comparison_figure(target.comparisons))
        for number, target in enumerate(report.targets)
        if target.comparisons
    ]
    return section("Predicted and measured latency", note, plots)


def _blocks(report: ReportData) -> str:
    note = (
        "Each block measured by itself, in the order the blocks run; one that runs twice is listed twice. "
        "Alone, a block pays for a call of the runtime, so the blocks add up to more than their network."
    )
    plots = [
        plot(f"blocks-{number}", target.verdict.target, blocks_figure(target.blocks))
        for number, target in enumerate(report.targets)
        if target.blocks
    ]
    return section("Latency by block", note, plots, "panels rows")


def _training(report: ReportData) -> str:
    if not report.curves:
        return ""
    plots = [
        plot(
            "curves-accuracy",
            f"{_capital(report.metric)} on the validation slice",
            curves_figure(report.curves, "accuracy", report.metric),
        ),
        plot("curves-loss", "Training loss", curves_figure(report.curves, "loss", report.metric)),
    ]
    note = "The losses of teacher and student are different functions; compare each with itself only."
    return section("Training", note, plots)


def _mixtures(report: ReportData) -> str:
    note = (
        "For each size of feature maps, the student imitated a mixture of the teacher's layers. The shares "
        "were searched before its training; those of one size sum to 100 %."
    )
    plots = [plot("mixtures", "Shares of the teacher's layers", mixtures_figure(report.mixtures))]
    return section("Feature aggregation", note, plots if report.mixtures else [], "panels rows")


def _provenance(report: ReportData) -> str:
    shown = table((html.escape(name), html.escape(value)) for name, value in report.provenance)
    return (
        f'<section><h2>Provenance</h2>\n<div class="panel">{shown}</div>\n'
        f"<h2>Recipe</h2>\n<pre>{html.escape(report.recipe)}</pre></section>"
    )


def _budget(target: TargetReport) -> Iterator[tuple[str, str]]:
    budget = target.verdict.budget
    if budget is None:
        return
    note = (
        "" if budget.relative is None else f" <small>{_ms(target.limit_ns)} by its measured latency</small>"
    )
    yield "Budget", budget.words + note


def _ratio(verdict: TargetVerdict) -> Iterator[tuple[str, str]]:
    ratio, budget = verdict.ratio, verdict.budget
    if ratio is None or budget is None:
        return
    yield (
        "Measured ratio",
        f"{ratio.value:.3f}x <small>{ratio.low:.3f} to {ratio.high:.3f} of the {budget.reference_name}, "
        f"{100 * ratio.confidence:.3g} % confidence</small>",
    )


def _estimate(estimate: Estimate) -> str:
    return (
        f"{_ms(estimate.value_ns)} <small>{_ms(estimate.low_ns)} to {_ms(estimate.high_ns)}, "
        f"{100 * estimate.coverage:.3g} % coverage</small>"
    )


def _interval(interval: Interval, launches: int) -> str:
    return (
        f"{_ms(interval.value_ns)} <small>{_ms(interval.low_ns)} to {_ms(interval.high_ns)}, "
        f"{100 * interval.confidence:.3g} % confidence over {launches} launches</small>"
    )


def _ms(latency_ns: float) -> str:
    return f"{latency_ns / 1e6:#.4g} ms"


def _accuracy(accuracy: Accuracy | None) -> Iterator[tuple[str, str]]:
    if accuracy is None:
        return
    place = "on the target"
    if accuracy.target is not None:
        place = html.escape(f"on {accuracy.target}: the target gives no outputs for given inputs")
    shown = f"{_percent(accuracy.share)} <small>{accuracy.count_words}, {place}</small>"
    yield f"Artifact's {accuracy.metric}", shown


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    return _capital(text) + ("" if text.endswith(".") else ".")
