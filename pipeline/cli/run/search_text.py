"""What ``lathe search`` prints."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.run import SearchResult
from pipeline.stages.search import EvaluatedCandidate


def search_text(result: SearchResult) -> str:
    """Every candidate, best first: score, what was predicted, and what was measured."""
    searched = result.searched
    lines = [f"{result.recipe.name}: {len(searched.candidates)} candidates, best first"]
    for number, candidate in enumerate(searched.candidates, start=1):
        lines += ["", f"{number:3}. {_score(candidate, searched.evaluated_by)}  {candidate.architecture}"]
        lines += _latencies(result, candidate)
    kept = len(searched.order)
    return "\n".join([*lines, "", f"{kept} measured within every budget; 'lathe run' goes on with them", ""])


def _score(candidate: EvaluatedCandidate, evaluated_by: str) -> str:
    if candidate.score is None:
        return f"failed: {candidate.failure}"
    if evaluated_by == "loss":
        return f"loss {-candidate.score:.4f}"
    again = "" if candidate.reevaluation is None else f" ({candidate.reevaluation:.2%} again)"
    return f"{candidate.score:.2%}{again}"


def _latencies(result: SearchResult, candidate: EvaluatedCandidate) -> Iterator[str]:
    measured = {
        network.target: network.measured
        for network in result.searched.measured
        if network.architecture == candidate.architecture
    }
    for target, estimate in candidate.estimates.items():
        limit_ns = result.feasible.limits_ns[target]
        seen = "not measured"
        if target in measured:
            word = "within" if measured[target].high_ns <= limit_ns else "not within"
            seen = f"{measured[target]} measured, {word} {limit_ns / 1e6:.4f} ms"
        yield f"     {target}: {estimate} predicted, {seen}"
