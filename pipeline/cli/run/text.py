"""What ``lathe run`` and ``lathe search`` print for people."""

from __future__ import annotations

from collections.abc import Iterator

from devices.measurement import Interval
from devices.target import Target
from devices.words import count_of, listed
from pipeline.memory import gigabytes
from pipeline.progress import duration
from pipeline.run import Forecast, RunResult, SearchResult
from pipeline.search.base import Score
from pipeline.stages.inputs.teacher import ensemble_lines
from pipeline.stages.searching.candidates import (
    EvaluatedCandidate,
    after_words,
    ratings_words,
    score_words,
    worth_lines,
)
from pipeline.target_verdict import TargetVerdict


def result_text(result: RunResult) -> str:
    """What a finished run has to say, as text."""
    verified = result.winner.verified
    over = [name for name, verdict in verified.verdicts.items() if not verdict.feasible]
    kept = f"every budget but the soft one of {listed(over)}" if over else "every budget"
    lines = [f"{result.recipe.name}: the student keeps {kept}"]
    for failure in result.winner.passed_over:
        lines.append(f"NOT THE BEST CANDIDATE: {failure.architecture.brief} was preferred, but {failure.why}")
    for name, verdict in verified.verdicts.items():
        whole = result.tables.teacher[name].whole
        lines += [
            "",
            name,
            *_budget(verdict, result.why_unused.get(name, "")),
            f"  teacher   {_teacher(whole, verdict)}",
            f"  accuracy  {verdict.accuracy_words}, teacher {verified.teacher_accuracy:.2%}",
        ]
        if quantised := result.winner.quantised_words(name):
            lines.append(f"  int8      {quantised}, on the validation slice")
        comparison = result.comparison(name)
        lines += [] if comparison is None else [f"  compare   {comparison}"]
    size = result.size
    lines += ["", f"student   {size.parameters:,} parameters, {size.macs:,} MACs; the teacher has "]
    lines[-1] += f"{result.teacher.parameters:,} parameters"
    lines += [
        f"{'ensemble' if not place else '':8}  {line}"
        for place, line in enumerate(ensemble_lines(result.teacher))
    ]
    if result.tied:
        others = count_of(len(result.tied), "other candidate")
        lines.append(
            f"chosen    within the noise of the scores: less than the combined standard error from {others} "
            "that could keep the budgets"
        )
    return "\n".join([*lines, "", f"bundle  {result.bundle}", f"report  {result.report}", ""])


def _budget(verdict: TargetVerdict, why_unused: str) -> Iterator[str]:
    ratio = ""
    if verdict.budget is not None:
        yield f"  budget    {verdict.budget.words}{_used(verdict, why_unused)}"
        ratio = f", {verdict.ratio} of the {verdict.budget.reference_name}'s" if verdict.ratio else ""
    yield f"  latency   {verdict.measurement.latency} measured{ratio}"


def _used(verdict: TargetVerdict, why_unused: str) -> str:
    if verdict.used is None:
        return ""
    rest = 1 - verdict.used
    if rest < 0:
        return f", exceeded by {-rest:.0%}"
    return f", {rest:.0%} of it unused{f': {why_unused}' if why_unused else ''}"


def _teacher(teacher: Interval | None, verdict: TargetVerdict) -> str:
    """The teacher's latency, and what the student gains: side by side if that is the budget's ratio."""
    if teacher is None:
        return "could not be exported or run there"
    budget, ratio = verdict.budget, verdict.ratio
    side_by_side = ratio is not None and budget is not None and budget.relative_to == "teacher"
    factor = (
        ratio.inverse.value
        if ratio and side_by_side
        else teacher.value_ns / verdict.measurement.latency.value_ns
    )
    gain = f"{factor:.2f} times the student's" if factor > 1 else "faster than the student: lower the budget"
    gain += " side by side" if side_by_side and factor > 1 else ""
    in_float = " in float" if Target.parse(verdict.target).precision != "fp32" else ""
    return f"{teacher} measured{in_float}, {gain}"


def forecast_text(name: str, found: Forecast) -> str:
    """What is done, what is left, and an estimate of its time."""
    if not found.left:
        return f"{name}: everything is done; 'lathe run' answers at once\n"
    least = "" if found.is_whole else "at least "
    lines = [
        f"{name}: estimated {least}{duration(found.seconds)}, if nothing disturbs the machine",
        "",
    ]
    if found.done:
        lines += [f"done before: {', '.join(found.done)}", ""]
    for stage in found.left:
        time = "not estimated" if stage.seconds is None else f"about {duration(stage.seconds)}"
        memory = "" if stage.memory_bytes is None else f"; at least {gigabytes(stage.memory_bytes)} of memory"
        lines += [f"{stage.name:9} {time}: {stage.work}{memory}", f"{'':9} from {stage.basis}"]
    return "\n".join([*lines, ""])


def search_text(result: SearchResult) -> str:
    """Every candidate, best first: score, posterior and ratings; what was predicted and measured; the worth
    of the ratings.
    """
    searched = result.searched
    lines = [f"{result.recipe.name}: {count_of(len(searched.candidates), 'candidate')}, best first"]
    for number, candidate in enumerate(searched.candidates, start=1):
        lines += ["", f"{number:3}. {_score(candidate, searched.evaluated_by)}  {candidate.architecture}"]
        lines += _latencies(result, candidate)
        if candidate.posterior is not None:
            expected = Score(candidate.posterior.mean, candidate.posterior.deviation)
            lines.append(f"     posterior {score_words(expected, searched.evaluated_by)}")
        if rated := ratings_words(candidate, searched.evaluated_by):
            lines.append(f"     rated {rated}")
    soft = result.feasible.soft
    which = "every budget" if not soft else "every budget that is not soft"
    if result.feasible.limits_ns.keys() == soft:
        kept = f"{count_of(len(searched.order), 'candidate')} ready, every budget is soft"
    else:
        kept = f"{count_of(len(searched.order), 'candidate')} within {which}"
    if worth := list(worth_lines(searched)):
        lines += ["", *worth]
    return "\n".join([*lines, "", f"{kept}; 'lathe run' continues with them", ""])


def _score(candidate: EvaluatedCandidate, evaluated_by: str) -> str:
    if candidate.score is None:
        return f"failed: {candidate.failure}"
    name = "score " if evaluated_by == "number" else ""
    again = ""
    if candidate.reevaluation is not None:
        closer = Score(candidate.reevaluation, candidate.reevaluation_spread)
        again = f" ({score_words(closer, evaluated_by)} again)"
    score = score_words(Score(candidate.score, candidate.spread), evaluated_by)
    return f"{name}{score}{after_words(candidate.fidelity)}{again}"


def _latencies(result: SearchResult, candidate: EvaluatedCandidate) -> Iterator[str]:
    measured = {
        network.target: network
        for network in result.searched.measured
        if network.architecture == candidate.architecture
    }
    for target, estimate in candidate.estimates.items():
        limit_ns = result.feasible.limits_ns[target]
        seen = "not measured"
        if target in measured:
            judged = measured[target].judged(result.feasible.models[target])
            word = "within" if judged.high_ns <= limit_ns else "not within"
            kind = "the soft budget of " if target in result.feasible.soft else ""
            seen = f"{measured[target].measured} measured, {word} {kind}{limit_ns / 1e6:.4f} ms"
        yield f"     {target}: {estimate} predicted, {seen}"
