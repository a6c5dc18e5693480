"""A bench as text: one table, fastest first in each case, and the plain sentences below it."""

from __future__ import annotations

from thresher.deploy.bench.result import NOISY, Bench, Row, ratio

_HEAD = ("precision", "threads", "batch", "engine", "model", "ms", "from-to", "speedup", "vs eager")
_MORE = ("zeros", "bytes", "accuracy", "difference")


def lines(bench: Bench) -> list[str]:
    """The table and what it says."""
    rows: list[tuple[str, ...]] = [(*_HEAD, *_MORE)]
    for case in bench.cases():
        best, eager = bench.best_dense(case), bench.eager(case)
        rows += [_cells(bench, row, best, eager) for row in sorted(case, key=lambda row: row.seconds)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    left = {0, 3, 4}
    text = [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [text[0], "-" * len(text[0]), *text[1:], "", *verdicts(bench)]


def verdicts(bench: Bench) -> list[str]:
    """What the table means, case by case, and what it lacks."""
    found = ["speedup: against the best dense engine of the same precision, threads and batch (marked *)"]
    for case in bench.cases():
        best = bench.best_dense(case)
        others = [row for row in case if row.variant != "dense" and row.agrees]
        if best is None or not others:
            continue
        fastest = min(others, key=lambda row: row.seconds)
        gain = ratio(best, fastest)
        precision, threads, batch = best.case
        found.append(
            f"{precision}, {threads} thread{'s' * (threads > 1)}, batch {batch}: {fastest.variant} on {fastest.engine} "
            f"{gain:.2f}x the best dense engine ({best.engine}, {1000 * best.seconds:.3g} ms)"
            + (", but the rounds scatter too much to say so" if max(best.spread, fastest.spread) > NOISY else "")
        )
        found += [
            f"  at {accuracy:.2f} %: "
            + ", ".join(f"{pattern} {speed:.2f}x" for pattern, speed in sorted(speeds.items(), key=lambda one: -one[1]))
            for accuracy, speeds in bench.equal_accuracy(case)
        ]
    found += [
        f"NOT COMPARABLE: {row.engine} on {row.variant} is off by {row.difference:.2g} of the largest output of torch"
        for row in bench.rows
        if not row.agrees
    ]
    noisy = bench.noisy()
    if noisy:
        found.append(
            f"TOO NOISY: in {len(noisy)} of {len(bench.rows)} rows the rounds scatter by more than 30 %; "
            "measure again when the machine is quiet"
        )
    if not bench.isolated:
        found.append("all engines shared one process: their threads may have disturbed each other")
    return [*found, *(f"left out: {one.engine}: {one.reason}" for one in bench.skipped)]


def _cells(bench: Bench, row: Row, best: Row | None, eager: Row | None) -> tuple[str, ...]:
    variant = bench.variants[row.variant]
    return (
        row.precision,
        str(row.threads),
        str(row.batch),
        row.engine + ("*" if row is best else "") + (f" ({row.note})" if row.note.startswith("chose") else ""),
        row.variant,
        f"{1000 * row.seconds:.3f}",
        f"{1000 * min(row.rounds):.3f}-{1000 * max(row.rounds):.3f}",
        _times(ratio(best, row)),
        _times(ratio(eager, row)),
        f"{variant.zeros / max(variant.entries, 1):.1%}",
        f"{variant.bytes:,}",
        "" if variant.accuracy is None else f"{variant.accuracy:.2f}",
        f"{row.difference:.1e}" if row.agrees else f"{row.difference:.1e} !",
    )


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"
