"""Which variant is taken, and why, from what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from devices.measurement import BetweenBatches, Ratio, Verdict
from devices.measuring import PRACTICAL, Rounds
from devices.target import Target
from pipeline.compile.result import Fate, Objective, Raced, Row, front_of
from pipeline.tasks import SINGLE_LABEL, AnyTask


@dataclass(frozen=True)
class Rules:
    """What the choice has to keep.

    Attributes:
        objective: what it makes small.
        max_drop: points of accuracy that may be lost.
        budget_ms: latency that must be kept.
        forced: variants that change outputs may be chosen though their loss is not known or too large.
    """

    objective: Objective = Objective.LATENCY
    max_drop: float = 0.5
    budget_ms: float | None = None
    forced: bool = False


def choose(
    rows: tuple[Row, ...],
    baseline: str,
    rules: Rules,
    table: Rounds,
    between: BetweenBatches | None = None,
    *,
    task: AnyTask | None = SINGLE_LABEL,
) -> Raced:
    """The choice among measured rows.

    For latency: of those that are slower than the fastest by ``PRACTICAL`` at most, the one that loses least
    accuracy, then the smallest, then that without options. For size: the smallest that keeps the budget.

    Args:
        rows: all of them.
        baseline: name of the model as it comes.
        rules: what to keep.
        table: the rounds, for ratios of any two.
        between: how far batches differ on the device: a budget in milliseconds is to be kept tomorrow, too.
        task: by which accuracies were taken, if by any.
    """
    measured = [row for row in rows if row.fate is Fate.MEASURED and row.measurement is not None]
    front = front_of(rows)
    keeping = [row for row in measured if _keeps(row, rules, between)]
    if not measured:
        return Raced(
            "", rows, baseline, None, "no variant runs and keeps the accuracy", front, between=between
        )
    if not keeping:
        fastest = min(measured, key=lambda row: row.latency_ms or 0.0)
        taken = _ms(fastest, between)
        reason = f"no variant keeps {rules.budget_ms:g} ms: the fastest, {fastest.name}, takes {taken}"
        return Raced("", rows, baseline, None, reason, front, False, between=between)
    if rules.objective is Objective.SIZE:
        chosen = min(keeping, key=lambda row: (row.size_bytes or 0, row.latency_ms))
    else:
        fastest = min(keeping, key=lambda row: _ratio(table, row, baseline))
        alike = [row for row in keeping if row is fastest or not _slower(table, row, fastest)]
        chosen = min(alike, key=_preference)
    cost = _cost(chosen, rules, task or SINGLE_LABEL)
    reason = f"{_advantage(chosen, baseline, rules, table, rows)}{cost}{_doubt(chosen)}"
    kept = None if rules.budget_ms is None else True
    return Raced("", rows, baseline, chosen.name, reason, front, kept, between=between)


def _preference(row: Row) -> tuple[float, int, int, int, float]:
    """Among rows that are alike in latency: accurate, small, plain, and with few threads."""
    target = Target.parse(row.target)
    return (
        round(row.drop, 6),
        row.size_bytes or 0,
        len(target.options),
        target.threads,
        row.latency_ms or 0.0,
    )


def _keeps(row: Row, rules: Rules, between: BetweenBatches | None) -> bool:
    if rules.budget_ms is None or row.measurement is None:
        return rules.budget_ms is None
    valid = row.measurement.verdict is not Verdict.INVALID
    return valid and row.measurement.on_device(between).high_ns <= rules.budget_ms * 1e6


def _ratio(table: Rounds, row: Row, baseline: str) -> float:
    found = table.ratio(row.name, baseline)
    return found.value if found is not None else float("inf")


def _slower(table: Rounds, row: Row, fastest: Row) -> bool:
    """Whether a row may be slower than the fastest by more than what counts."""
    ratio = table.ratio(row.name, fastest.name)
    return ratio is None or ratio.value > 1 + PRACTICAL


def _advantage(chosen: Row, baseline: str, rules: Rules, table: Rounds, rows: tuple[Row, ...]) -> str:
    if rules.objective is Objective.SIZE:
        first = next(row for row in rows if row.name == baseline)
        share = (chosen.size_bytes or 0) / (first.size_bytes or 1)
        what = f"{chosen.name} is the smallest, {share:.2f}x the size of {baseline}"
    elif chosen.name == baseline:
        what = f"nothing is faster than {baseline} by more than {PRACTICAL:.0%}"
    else:
        what = f"{chosen.name} takes {_faster(table.ratio(chosen.name, baseline))} the latency of {baseline}"
    return what


def _doubt(chosen: Row) -> str:
    measurement = chosen.measurement
    if measurement is None or measurement.sharp:
        return ""
    return "; the device was disturbed, so only the ratio counts, which is of launches side by side"


def _faster(ratio: Ratio | None) -> str:
    return "?" if ratio is None else f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"


def _cost(chosen: Row, rules: Rules, task: AnyTask) -> str:
    quality = chosen.quality
    if quality is None or chosen.lossless:
        return ", with the same outputs" if chosen.lossless else ""
    if quality.accuracy is not None and quality.drop is not None:
        word = "loses" if quality.drop >= 0 else "gains"
        return (
            f", and {word} {abs(quality.drop):.2f} points of {task.metric} ({rules.max_drop:g} may be lost)"
        )
    if quality.agreement is not None and task.kind != "single-label":
        return f"; over {quality.samples} inputs, {task.agreement_shown(quality.agreement)}"
    if quality.agreement is not None:
        return f", and gives the same class in {quality.agreement:.2%} of {quality.samples} inputs"
    return f"; its outputs differ by {quality.max_rel:.2g} of the largest" if quality.max_rel else ""


def _ms(row: Row, between: BetweenBatches | None) -> str:
    return "?" if row.measurement is None else f"{row.measurement.on_device(between)} on this machine"
