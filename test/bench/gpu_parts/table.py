"""The report as text: a line for each contender of each case."""

from collections.abc import Iterable
from typing import Any

HEAD = (
    f"{'case':44}{'who':22}{'us min':>9}{'median':>9}{'flushed':>9}{'floor':>8}{'of roof':>9}"
    f"{'TFLOP/s':>9}{'NMSE':>10}"
)


def render(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Lines of the table for these rows."""
    lines: list[str] = []
    for row in rows:
        if "error" in row:
            at = f" (at {row['at']})" if row.get("at") else ""
            lines.append(f"{row['id']:44}FAILED{at}: {row['error'][:200]}")
        for variant, why in row.get("broken", {}).items():
            lines.append(f"{row['id']:44}{'nybble ' + variant:22}BROKEN: {why[:150]}")
        lines += [_line(row, one) for one in row.get("contenders", ())]
        lines += [f"{'':44}{name}: skipped, {why}" for name, why in row.get("skipped", {}).items()]
    return lines


def _line(row: dict[str, Any], one: dict[str, Any]) -> str:
    begin = f"{row['id']:44}{one['name']:22}"
    if "error" in one:
        return f"{begin}FAILED: {one['error'][:150]}"
    wrong = "" if one.get("right", True) else "  WRONG"
    nmse = f"{one['nmse']:10.1e}" if one.get("nmse") is not None else f"{'':10}"
    if "best" not in one:
        return f"{begin}{'':53}{nmse}{wrong}"
    numbers = f"{one['best']:9.1f}{one['median']:9.1f}{one['flushed_best']:9.1f}"
    roof = f"{one['floor']:8.1f}{100 * one['floor'] / one['best']:8.0f}%"
    return f"{begin}{numbers}{roof}{one['tflops']:9.1f}{nmse}{wrong}"
