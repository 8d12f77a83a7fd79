"""What ``lathe db`` prints for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from latency_db.store import Info, PublishedTable


def info_text(found: Info) -> str:
    """Where the database is, and how much of what is in it."""
    size = "" if found.size_bytes is None else f", {found.size_bytes / 1e6:.1f} MB"
    lines = [
        f"{found.place} (schema {found.schema}{size})",
        "  " + ", ".join(f"{number} {part}s" for part, number in found.parts.items()),
    ]
    for target, verdicts in found.outcomes.items():
        counts = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())
        lines.append(f"  {target}{' (emulated)' if target in found.emulated else ''}: {counts}")
    lines += [f"  {line}" for table in found.published for line in _published_lines(table)]
    lines += [f"  copy made before a migration: {name}" for name in found.backups]
    return "\n".join(lines)


def row_text(row: dict[str, Any]) -> str:
    """A measurement or a failure in one line."""
    value = row["latency_ns"]
    time = "-" if value is None else f"{value / 1e6:.4f} ms"
    if value is not None:
        time += f" [{row['latency_low_ns'] / 1e6:.4f}, {row['latency_high_ns'] / 1e6:.4f}]"
    target = row["target"] + (" (emulated)" if row["emulated"] else "")
    codes = ", ".join(reason["code"] for reason in row["reasons"])
    verdict = row["verdict"] + (f" ({codes})" if codes else "")
    return f"{row['started_at'][:19]}  {target}  {time}  {verdict}  {row['workload']}"


def published_text(row: dict[str, Any]) -> str:
    """A published latency in one line."""
    value = row["latency_ns"]
    time = "-" if value is None else f"{value / 1e6:.4f} ms"
    flag = f"  {row['flag']}" if row["flag"] else ""
    return f"published in {row['source']}  {row['device']}  {time}{flag}  {row['workload']}"


def _published_lines(table: PublishedTable) -> Iterator[str]:
    stored = sum(table.devices.values())
    cut = "" if stored == table.cells else f" of {table.cells}: import its file again"
    yield f"published table {table.name}: {stored} published latencies{cut}"
    for device, number in table.devices.items():
        said = [finding["detail"] for finding in table.findings if finding["device"] == device]
        yield f"  {device}: {'; '.join([str(number), *said])}"
