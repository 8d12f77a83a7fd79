"""What the commands of ``lathe table`` print for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from statistics import median
from typing import Any

from devices.measurement import PASSING_CODES, Interval, Measurement, MeasurementFailure
from devices.words import count_of
from latency_db.estimate import Estimate
from latency_db.models import NetworkModel
from latency_db.tables import WorkPackage
from pipeline.tables.building.space_table import described
from pipeline.tables.exchange.difference import TableDifference
from pipeline.tables.prediction.networks import Prediction
from pipeline.tables.transfer.estimating import Transferred
from pipeline.tables.validation.verification import TableVerification


def table_line(model: NetworkModel) -> str:
    """A table with its model in one line."""
    table = model.table
    interval = f"within {model.upper_factor - 1:.1%} at {model.coverage:.0%} coverage"
    fitted = f"from {model.fitted_networks} measured"
    return f"{table.target}: {described(table)}; networks {interval}, {fitted}"


def verified_text(verified: TableVerification) -> str:
    """A short table of figures, one line per predictor."""
    rows = {
        "model": verified.model,
        "as measured": verified.as_measured,
        **verified.baselines,
        "noise ceiling": verified.ceiling,
    }
    width = max(14, *map(len, rows))
    lines = [
        f"{verified.target}: {count_of(len(verified.networks), 'network')} that the model had not seen",
        f"{'':{width}} {'in 5 %':>7} {'in 10 %':>8} {'MAPE':>7} {'Spearman':>9} {'covered':>8}",
    ]
    for name, each in rows.items():
        covered = "" if each.covered is None else f"{each.covered:.0%}"
        lines.append(
            f"{name:{width}} {each.within_5_percent:7.0%} {each.within_10_percent:8.0%} {each.mape:7.2%} "
            f"{each.spearman:9.4f} {covered:>8}"
        )
    if verified.model.coverage is not None:
        lines.append(f"intervals claim {verified.model.coverage:.0%}")
    if verified.invalid:
        lines.append(f"{verified.invalid} left out: no valid measurement")
    if verified.infeasible:
        lines.append(f"{verified.infeasible} drawn and not measured: a block cannot run there")
    return "\n".join(lines)


def shown_text(model: NetworkModel, blocks: dict[str, str]) -> str:
    """Every block of a table, the slowest first, what cannot run, and a summary."""
    table = model.table
    disturbed = set(table.disturbed)
    lines = [
        f"{row.value_ns / 1e6:9.4f} ms  {blocks.get(name, name)}"
        + (f"  disturbed: {_interval(row)}" if name in disturbed else "")
        for name, row in sorted(table.rows.items(), key=lambda each: -each[1].value_ns)
    ]
    lines += [
        f"cannot run    {blocks.get(name, name)}: {reason.code}: {reason.detail}"
        for name, reason in table.failed.items()
    ]
    lines += [
        f"missing       {blocks.get(name, name)}: {reason.code}: {reason.detail}"
        for name, reason in table.missing.items()
    ]
    return "\n".join([*lines, table_line(model)])


def _interval(latency: Interval | Estimate) -> str:
    return f"[{latency.low_ns / 1e6:.4f}, {latency.high_ns / 1e6:.4f}]"


def difference_text(found: TableDifference) -> str:
    """What differs between two tables: keys, blocks, latencies."""
    lines = list(found.key or ("measured under one key",))
    alone = f"{len(found.only_first)} only in the first, {len(found.only_second)} only in the second"
    lines.append(f"{count_of(found.shared, 'block')} in both, {alone}")
    if found.median_ratio is not None:
        ranks = "undefined" if found.spearman is None else f"{found.spearman:.4f}"
        lines.append(
            f"second over first: median {found.median_ratio:.3f}x, from {found.smallest_ratio:.3f}x to "
            f"{found.largest_ratio:.3f}x; Spearman {ranks}; {len(found.beyond)} beyond their intervals"
        )
    return "\n".join(lines)


def planned_text(package: str, manifest: WorkPackage) -> str:
    """What is in a work package, in a line."""
    reasons = [item.reason for item in manifest.items if item.reason is not None]
    missing = sum(reason.code in PASSING_CODES for reason in reasons)
    workloads = count_of(len(manifest.items), "workload")
    said = f"{package}: {workloads}, {len(reasons) - missing} of which cannot be exported"
    return said + (f", {missing} missing: plan again into another folder to export them" if missing else "")


def measured_text(measured: Mapping[str, Any]) -> str:
    """What came of a work package, in a line; see ``documents.measured_json``."""
    workloads = count_of(measured["workloads"], "workload")
    said = f"{measured['target']}: {workloads}, {measured['failed']} of which cannot run"
    said += f", {measured['missing']} missing: run again to measure them" if measured["missing"] else ""
    return said + (f", {measured['disturbed']} disturbed" if measured["disturbed"] else "")


def predictions_text(model: NetworkModel, predictions: Iterable[Prediction]) -> str:
    """Every network with its estimate, or with why it has none, and the table."""
    lines = []
    for each in predictions:
        if not each.obstacles:
            lines.append(f"{each.label}: {each.estimate}  {each.architecture}")
            continue
        reasons = [f"{block}: {each.obstacles[block].code}" for block in each.obstacles]
        verb = "cannot run" if each.cannot_run else "not measured"
        lines.append(f"{each.label}: {verb}  {each.architecture}: {'; '.join(reasons)}")
    return "\n".join([*lines, table_line(model)])


def transferred_text(transferred: Transferred, blocks: dict[str, str]) -> str:
    """Every block, what was measured before what is estimated, then a summary."""
    return "\n".join([*_block_lines(transferred, blocks), *_summary_lines(transferred)])


def _block_lines(transferred: Transferred, blocks: dict[str, str]) -> Iterator[str]:
    model = transferred.model
    for name, row in sorted(model.measured.items(), key=lambda each: -each[1].value_ns):
        disturbed = f"  disturbed: {_interval(row)}" if name in model.disturbed else ""
        yield f"measured   {row.value_ns / 1e6:9.4f} ms {'':20} {blocks[name]}{disturbed}"
    for name, reason in model.failed.items():
        yield f"cannot run {'':33} {blocks[name]}: {reason.code}: {reason.detail}"
    for name, estimate in sorted(model.estimated.items(), key=lambda each: -each[1].value_ns):
        value = f"~{estimate.value_ns / 1e6:.4f}"
        yield f"estimated {value:>10} ms {_interval(estimate):20} {blocks[name]}"
    for block in transferred.unknown:
        yield f"unknown    {'':33} {block}: it ran on no source"


def _summary_lines(transferred: Transferred) -> Iterator[str]:
    model = transferred.model
    yield f"{model.target} from {', '.join(map(str, model.sources))}"
    for what, samples in (("block", transferred.blocks), ("network", transferred.networks)):
        ran = [sample.outcome for sample in samples if isinstance(sample.outcome, Measurement)]
        disturbed = sum(not outcome.sharp for outcome in ran)
        failed = sum(
            isinstance(each.outcome, MeasurementFailure) and not each.outcome.passing for each in samples
        )
        missing = len(samples) - len(ran) - failed
        counts = [f"measured {count_of(len(ran), what)}"]
        counts += [f"{disturbed} of them disturbed"] if disturbed else []
        counts += [f"{failed} cannot run"] if failed else []
        counts += [f"{missing} missing: run again to measure them"] if missing else []
        yield ", ".join(counts)
    if model.estimated:
        width = median(each.high_ns / each.value_ns - 1 for each in model.estimated.values())
        claim = f"{next(iter(model.estimated.values())).coverage:.0%} coverage"
        blocks = count_of(len(model.estimated), "block")
        yield f"estimated {blocks}, half of them within {width:.1%} at {claim}"
    interval = f"within {model.upper_factor - 1:.1%} at {model.coverage:.0%} coverage"
    yield f"estimated networks {interval}, from {model.fitted_networks} measured"
    values_ms = sorted(each.value_ns / 1e6 for _, each in transferred.others if math.isfinite(each.value_ns))
    if values_ms:
        yield f"{len(values_ms)} random ones: ~{values_ms[0]:.4f} ms to ~{values_ms[-1]:.4f} ms"
    yield from _explanation_lines(transferred)


def _explanation_lines(transferred: Transferred) -> Iterator[str]:
    found = transferred.explanation
    known = found.known_errors
    usual = f" ({known[0]:.1%} to {known[-1]:.1%} among the sources' machines)" if known else ""
    yield f"each sample predicted from the others: half of them miss by at most {found.error:.1%}{usual}"
    if found.is_good:
        return
    target, wanted, left = transferred.model.target, transferred.wanted_samples, transferred.untried
    yield f"that is more than {found.bound:.1%}: {target} is unlike what was transferred from"
    if wanted is None:
        yield f"measure all of it: lathe table build --target {target}"
    else:
        yield f"{left} more can be measured: the same command with --samples {wanted} keeps these"
